"""The demo and the README tell the truth; the demo leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from fleche.caches import CacheStack
from fleche.config import load_cache_config
from fleche.remote import SshCache
from tests.helpers.pages import is_like
from tests.helpers.processes import children

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
EOS = ROOT / "docs" / "examples" / "eos"
README = (ROOT / "README.md").read_text()

needs_ase = pytest.mark.skipif(find_spec("ase") is None, reason="ase is not installed")


# -- the demo --------------------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo makes its directory."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    return directory


def start(*options: str, script: str = "demo.py") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, EOS / script, "--quick", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def check_story(transport: str) -> str:
    process = start("--transport", transport)
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert "[NO]" not in text
    for claim in (
        "each distinct call ran exactly once",
        "'fleche verify' has checked every byte, and all is well",
        "all 18 calls were pushed to the workstation",
        "laptop B computed nothing",
        "the 4 results it asked for came from the workstation",
        "every number is the same to the last bit",
        "computed: 8 energies and 2 fits, no more",
        "from the workstation: 14 energies",
        "computed nothing, the results are the same",
        "said once that the workstation was missing",
        "2 fits by ada, then 2 by bob",
        "every lattice constant is within 2 % of experiment",
    ):
        assert f"[ok]  {claim}" in text
    paths = (sys.executable, os.environ["TMPDIR"])  # as long as they happen to be here
    lines = [line for line in text.splitlines() if not any(path in line for path in paths)]
    assert max(map(len, lines)) < 80
    return text


@needs_ase
@pytest.mark.slow
def test_over_a_subprocess(temporary: Path) -> None:
    """Every claim holds, every line fits a terminal, and nothing stays behind."""
    text = check_story("subprocess")
    assert "reached through a subprocess" in text
    assert not list(temporary.iterdir())


@needs_ase
@pytest.mark.slow
@pytest.mark.ssh
def test_over_ssh(temporary: Path) -> None:
    """The same over a real sshd."""
    if not shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"):
        pytest.skip("OpenSSH's sshd is not installed")
    text = check_story("ssh")
    assert "reached through ssh and a real sshd" in text
    assert "[ok]  each laptop logged in once and kept its connection" in text
    assert not list(temporary.iterdir())


@needs_ase
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cleans_up_when_it_is_interrupted(temporary: Path, number: signal.Signals) -> None:
    """It ends at once and in order, even if the signal comes twice."""
    process = start()
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Step 1"):
            break
    below = [child.pid for child in children(process.pid)]
    for _ in range(2):
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        time.sleep(0.05)
    rest, _ = process.communicate()
    assert process.returncode == 128 + number, rest
    assert "Traceback" not in rest
    assert not list(temporary.iterdir())
    _wait_until_gone(below)


def _wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 5
    while any(_lives(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@needs_ase
@pytest.mark.slow
def test_a_false_claim_is_a_failure(temporary: Path, tmp_path: Path) -> None:
    """With a function that is not cached the demo says what does not hold, and exits with 1."""
    copy = tmp_path / "eos"
    shutil.copytree(EOS, copy)
    module = copy / "eos.py"
    text = module.read_text()
    assert "@fleche\ndef amplitude" in text
    module.write_text(text.replace("@fleche\ndef amplitude", "def amplitude"))
    process = start("--transport", "subprocess", script=str(copy / "demo.py"))
    told, _ = process.communicate()
    assert process.returncode == 1
    assert "[NO]  laptop B computed nothing" in told
    assert "claims above did not hold" in told
    assert "What you have seen" not in told
    assert not list(temporary.iterdir())


# -- the README ------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


PYTHON, TOML, SHELL, OUTPUT = (blocks(each) for each in ("python", "toml", "sh", "text"))


def test_every_block_is_of_a_kind_that_is_checked_here() -> None:
    assert README.count("\n```") == 2 * len(PYTHON + TOML + SHELL + OUTPUT)


@pytest.fixture
def laptop(tmp_home: Path) -> Path:
    """A directory with the laptop's ``fleche.toml`` of the README, a subprocess for its ssh."""
    station = tmp_home / "station"
    station.mkdir()
    (station / "fleche.toml").write_text(TOML[1].replace("~/results", "results"))
    layer = f'type = "subprocess"\nworkdir = "{station}"\n'
    text, replaced = re.subn(r'type = "ssh"\nhost = ".*"\n', layer, TOML[0])
    assert replaced == 1
    (tmp_home / "work" / "fleche.toml").write_text(text)
    return tmp_home / "work"


def run(directory: Path, script: str) -> str:
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_prints_what_is_shown(laptop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block below the example is its output, but for times and places."""
    (shown,) = OUTPUT
    monkeypatch.setenv("COLUMNS", "150")
    script = laptop / "madelung.py"
    script.write_text(PYTHON[0])
    found = run(laptop, f"import runpy; runpy.run_path('{script}', run_name='__main__')")
    assert is_like(shown, found), found


def test_the_example_computes_once_and_pushes(laptop: Path, tmp_home: Path) -> None:
    """The python blocks run: first a miss, then a hit, then from the workstation."""
    example, push = PYTHON
    script = laptop / "madelung.py"
    script.write_text(example)
    command = f"import runpy; runpy.run_path('{script}', run_name='__main__')"
    first = run(laptop, command)
    assert first.startswith("1 2.1335\n10 1.6926\n30 1.7286\n")
    assert "madelung  n=30" in first
    assert sorted(run(laptop, command).splitlines()) == sorted(first.splitlines())
    run(laptop, push)
    assert "madelung  n=30" in run(
        tmp_home / "station", "import fleche; print(fleche.cache().table())"
    )


def test_its_functions_explain_themselves(laptop: Path) -> None:
    """What the table of features names is there."""
    script = PYTHON[0].replace("(1, 10, 30)", "(1,)")
    script += "\nprint(madelung.explain(30))\nassert cache().query(name='madelung').count() == 1\n"
    assert "madelung" in run(laptop, script)


def test_its_configuration_loads(tmp_home: Path) -> None:
    """The toml blocks are what they are said to be."""
    for text in TOML:
        (tmp_home / "work" / "fleche.toml").write_text(text)
        assert load_cache_config() is not None
    (tmp_home / "work" / "fleche.toml").write_text(TOML[0])
    stack = load_cache_config()
    assert isinstance(stack, CacheStack)
    remote = stack.layers[1]
    assert isinstance(remote, SshCache)
    assert remote.host == "me@workstation.example.com"
    assert remote.policy.on_error == "miss"


def test_its_commands_exist() -> None:
    """The sh blocks name scripts of the checkout and extras of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in "".join(SHELL).splitlines():
        command, _, argument = line.partition("#")[0].strip().rpartition(" ")
        if command == "pip install":
            extra = re.fullmatch(r'"?\.(?:\[(\w+)\])?"?', argument)
            assert extra, line
            assert extra[1] is None or extra[1] in project["optional-dependencies"]
        else:
            assert os.access(ROOT / argument, os.X_OK), line


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target
