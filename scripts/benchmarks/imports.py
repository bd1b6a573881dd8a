"""What a new process waits for: the import, and the first hit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from scripts.benchmarks import bare
from scripts.benchmarks.measure import Benchmark, Contender, Setting, Suite, Target

__all__ = ["BENCHMARKS"]

WORK = """
def small(number: int, factor: float = 0.5) -> float:
    return number * factor
"""

OURS = f"""
import sys
import fleche
from fleche.caches import Local
{WORK}
assert fleche.fleche(cache=Local(sys.argv[1]))(small)(1) == 0.5
"""

THEIRS = f"""
import sys
import diskcache, msgspec
{WORK}
cache = diskcache.Cache(sys.argv[1], eviction_policy="none", cull_limit=0)
assert cache.memoize()(small)(1) == 0.5
"""

BARE = f"""
import pickle, sqlite3, sys
import msgspec
from blake3 import blake3
from xxhash import xxh3_128_digest
{WORK}
key = blake3(pickle.dumps(("small", 1), protocol=5)).hexdigest()
connection = sqlite3.connect(sys.argv[1])
connection.execute("CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, sum, entry)")
row = connection.execute("SELECT sum, entry FROM entries WHERE key = ?", (key,)).fetchone()
if row is None:
    entry = msgspec.msgpack.encode({{"result": small(1)}})
    row = (xxh3_128_digest(entry), entry)
    with connection:
        connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (key, *row))
assert xxh3_128_digest(row[1]) == row[0]
assert msgspec.msgpack.decode(row[1])["result"] == 0.5
"""


def python(program: Path, *arguments: str) -> Callable[[], None]:
    """Return what runs a program in a new interpreter, which may keep bytecode."""
    allowed = {name: value for name, value in os.environ.items() if "BYTECODE" not in name}
    command = [sys.executable, str(program), *arguments]
    return partial(subprocess.run, command, check=True, env=allowed)  # type: ignore[return-value]


def written(setting: Setting, name: str, text: str) -> Path:
    """Return the path of a program."""
    path = setting.directory / f"run_{name}.py"  # a name that hides no module
    path.write_text(text)
    return path


def importing(setting: Setting) -> Benchmark:
    """Build: the import alone."""
    contenders = [
        Contender(name, python(written(setting, name, text)))
        for name, text in (
            ("python", "pass\n"),
            ("fleche", "import fleche\n"),
            ("diskcache", "import diskcache\n"),
            ("msgspec", "import msgspec\n"),
        )
    ]
    targets = [Target("fleche", "python", 0.040, added=True)]
    return Benchmark("import fleche", contenders, "python", targets=targets)


def first_hit(setting: Setting) -> Benchmark:
    """Build: a new process that finds a number, without numpy."""
    contenders = []
    programs = (("fleche", OURS), ("diskcache + import msgspec", THEIRS), (bare.NAME, BARE))
    for name, text in programs:
        run = python(written(setting, name.split()[0], text), str(setting.directory / name))
        run()  # which stores the result
        note = "its imports, and one row that is checked" if name == bare.NAME else ""
        contenders.append(Contender(name, run, note=note))
    targets = [Target("fleche", "diskcache + import msgspec", 1.1, least=bare.NAME)]
    title = "a new process and its first hit, of a number"
    return Benchmark(title, contenders, "fleche", targets=targets)


BENCHMARKS: Suite = {"import": importing, "first-hit": first_hit}
