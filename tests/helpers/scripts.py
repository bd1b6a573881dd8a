"""Programs of a user: scripts, their modules, and notebooks, each run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

__all__ = ["run_cells", "run_script"]

ROOT = Path(__file__).parents[2]

HEAD = """\
import sys
from fleche import Cache, cache, fleche
from fleche.storage import CallFile, ValueFile

cache(Cache(ValueFile({root!r} + "/values"), CallFile({root!r} + "/calls")))
"""

DRIVER = '''\
import linecache, sys

def run(number, text):
    """Run a cell of `__main__` as IPython does: its text is in the line cache, and in no file."""
    name = f"<cell-{number}>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), vars(sys.modules["__main__"]))

CELLS = []
del sys.modules["__main__"].__file__
for number, cell in enumerate(CELLS):
    run(number, cell)
'''


def run_script(
    directory: Path,
    script: str,
    files: dict[str, str] | None = None,
    *,
    cache: Path | None = None,
    name: str = "script.py",
    python: str = sys.executable,
    seed: str = "0",
    check: bool = True,
) -> str:
    """Write a script and its modules into ``directory``, run it, and return what it prints.

    The cache lies beside it in files, unless another place is given.
    """
    for file, text in (files or {}).items():
        path = directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
    path = directory / name
    head = HEAD.format(root=str(cache or directory / "cache"))
    path.write_text(head + dedent(script), encoding="utf-8")
    return run_python(path, python, seed, check=check)


def run_cells(directory: Path, *cells: str, python: str = sys.executable) -> str:
    """Run cells of a notebook in one process, one after the other; return what they print."""
    texts = [HEAD.format(root=str(directory / "cache")), *map(dedent, cells)]
    path = directory / "driver.py"
    path.write_text(DRIVER.replace("CELLS = []", f"CELLS = {texts!r}"), encoding="utf-8")
    return run_python(path, python, "0")


def run_python(path: Path, python: str, seed: str, *, check: bool = True) -> str:
    done = subprocess.run(
        [python, "-B", str(path)],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
        return done.stdout
    return done.stdout + done.stderr
