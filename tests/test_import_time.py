"""`import fleche` is cheap: worker processes, servers and command lines do it all the time.

What is measured is the processor time of children, which on an idle machine is how long they take,
and does not depend on what else a busy one does.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from fleche.parcel._codecs import ZSTD
from fleche.remote._handshake import ClientGreeting
from tests.helpers.sweeps import swept

RUNS = 20
ALLOWED = 0.060  # seconds more than bare Python
ATTEMPTS = 6  # the machine may be busy with something else

HEAVY = ["click", "dill", "fsspec", "h5py", "numpy", "pandas", "rich", "sqlalchemy", ZSTD]


def unmeasured() -> dict[str, str]:
    """The environment of a child whose coverage is not measured, which imports much by itself."""
    return {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}


def run(code: str) -> str:
    """Run `code` in a new interpreter."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=unmeasured())
    return done.stdout


def spent() -> float:
    """Processor seconds of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds(code: str) -> float:
    before = spent()
    run(code)
    return spent() - before


def cost_of_import() -> float:
    """Seconds that `import fleche` adds: the difference of two medians, taken in turns."""
    bare, full = [], []
    for _ in range(RUNS):
        bare.append(seconds("pass"))
        full.append(seconds("import fleche"))
    return statistics.median(full) - statistics.median(bare)


@pytest.mark.parametrize("module", HEAVY)
def test_imports_nothing_heavy(module: str) -> None:
    """What only some users need is imported when they need it."""
    assert run(f"import fleche, sys; print({module!r} in sys.modules)").strip() == "False"


HIT = """
import sys
import fleche
from fleche.caches import Local

@fleche.fleche(cache=Local(sys.argv[1]), version=1)
def double(x: int) -> int:
    return 2 * x

double(1)
print(*sorted(sys.modules))
"""


def test_a_hit_imports_only_what_it_needs(tmp_path: Path) -> None:
    """Not what queries, housekeeping, remote caches and configuration need, nor what a miss does.

    Its result is a number, which is in the record: nothing is opened, be it parcel or file.
    """
    program = tmp_path / "program.py"
    program.write_text(HIT)
    command = [sys.executable, str(program), str(tmp_path / "cache")]
    for _ in range(2):  # the second one finds the result of the first
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=unmeasured())
    found = set(done.stdout.split())
    others = ("caches.maintenance.", "caches._query", "caches._transfer", "config", "remote", "cli")
    of_a_miss = ("caches._pending", "decorator._computation", "metadata")
    of_parcels = ("parcel._packing", "parcel._pickles", "storage.file")
    homes = (*others, *of_a_miss, *of_parcels)
    assert not [
        name for name in found if name.startswith(tuple(f"fleche.{each}" for each in homes))
    ]
    known = set(run("import msgspec, sys; print(*sys.modules)").split())
    unwanted = {"fleche.storage.sql._query", "cloudpickle", "subprocess", "json"}
    assert found.isdisjoint(unwanted - known)


def test_a_server_imports_nothing_of_a_client() -> None:
    """What opens connections, and what runs ssh, is not imported to serve."""
    found = run("import sys; from fleche.remote import serve; print(*sys.modules)").split()
    known = run("import msgspec, sys; print(*sys.modules)").split()
    mine = {"_server", "_connection", "_backend", "_cache", "_ssh", "channel"}
    assert {each for each in mine if f"fleche.remote.{each}" in found} == {"_server"}
    assert "subprocess" not in found or "subprocess" in known


def test_is_quick() -> None:
    run("import fleche")  # leaves compiled modules behind
    costs: list[float] = []
    while not costs or (min(costs) > ALLOWED and len(costs) < ATTEMPTS):
        costs.append(cost_of_import())
    assert min(costs) <= ALLOWED


COMMAND_RUNS = 5
COMMANDS = {"--help": 0.080, "log": 0.220}
"""Seconds that a command may take more than bare Python."""


def cost_of_command(command: str) -> float:
    """Seconds that a command needs more than bare Python, in turns."""
    code = f"from fleche.cli import main; main(['{command}'])"
    bare, full = [], []
    for _ in range(COMMAND_RUNS):
        bare.append(seconds("pass"))
        full.append(seconds(code))
    return statistics.median(full) - statistics.median(bare)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("command", swept(COMMANDS, "log".__eq__))
def test_commands_start_quickly(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an idle machine ``fleche log`` of a small cache answers in some 150 ms."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "compiled"))
    from fleche.caches import Local
    from fleche.call import Call

    Path("fleche.toml").write_text('[default]\ncache = "c"\n[c]\ntype = "local"\nroot = "store"\n')
    with Local("store") as store:
        store.save(Call("f", {"x": 1}, result=2))
    cost_of_command(command)  # leaves compiled modules behind
    costs: list[float] = []
    while not costs or (min(costs) > COMMANDS[command] and len(costs) < ATTEMPTS):
        costs.append(cost_of_command(command))
    assert min(costs) <= COMMANDS[command]


HANDSHAKE_RUNS = 12
HANDSHAKE_ALLOWED = 0.200  # seconds more than bare Python


def seconds_to_greet(directory: Path) -> float:
    """Seconds that a server takes to start, to answer the greeting, and to end."""
    greeting = ClientGreeting((1, 1), (), "test")
    command = [sys.executable, "-m", "fleche", "remote", "--serve"]
    before = spent()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=directory, env=unmeasured()
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(greeting.opening)
        server.stdin.flush()
        while greeting.hello is None:
            data = os.read(server.stdout.fileno(), 1 << 16)
            assert data, "the server ended before it answered"
            greeting.feed(data)
    return spent() - before


def cost_of_handshake(directory: Path) -> float:
    """Seconds that a server on a file cache needs more than bare Python, in turns."""
    bare, full = [], []
    for _ in range(HANDSHAKE_RUNS):
        bare.append(seconds("pass"))
        full.append(seconds_to_greet(directory))
    return statistics.median(full) - statistics.median(bare)


def test_the_handshake_is_quick(tmp_path: Path) -> None:
    """A server on a file cache answers soon: every run of a program waits for it."""
    (tmp_path / "fleche.toml").write_text(
        '[default]\ncache = "c"\n[c]\ntemplate = "cloudpickle"\nroot = "store"\n'
    )
    seconds_to_greet(tmp_path)  # leaves compiled modules behind
    costs: list[float] = []
    while not costs or (min(costs) > HANDSHAKE_ALLOWED and len(costs) < ATTEMPTS):
        costs.append(cost_of_handshake(tmp_path))
    assert min(costs) <= HANDSHAKE_ALLOWED
