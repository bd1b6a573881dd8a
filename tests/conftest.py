"""Fixtures of every test: nobody's real home directory, configuration or environment."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from tests.helpers.sweeps import is_quick


@pytest.fixture(autouse=True)
def tmp_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory; the test's working directory is `work` below it.

    The search for `fleche.toml` goes upward from the working directory and stops at home, so it
    finds only what the test itself has written.
    """
    home = tmp_path / "home"
    work = home / "work"
    work.mkdir(parents=True)
    for name in [name for name in os.environ if name.startswith("FLECHE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    # Of a module that is rewritten within a second, at the same length, Python runs the bytecode of
    # before. Programs of tests are, so children write none.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.chdir(work)
    return home


@pytest.fixture(autouse=True)
def measured_children(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the coverage of child processes in a part of the tests.

    To be measured costs a child a tenth of a second, as much as its own start; there are thousands,
    and they run the same code. So those of one case in twenty of a parametrised test are measured,
    and those of all tests that are not parametrised; in the quick run of one in four of these.
    """
    if request.node.get_closest_marker("ssh"):
        request.getfixturevalue("sshd")  # one server for all: its children are measured or not
    share = 4 if is_quick(request.config) else 1
    if hasattr(request.node, "callspec"):
        share = 20
    if zlib.crc32(request.node.nodeid.encode()) % share:
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
