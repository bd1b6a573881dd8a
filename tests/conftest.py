"""Fixtures of every test: no real home directory, configuration or environment."""

from __future__ import annotations

import os
import sys
import threading
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from fleche import Cache, cache, state
from tests.helpers.layers import in_memory
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


@pytest.fixture
def active() -> Iterator[Cache]:
    """An empty cache in memory, active during the test."""
    made = in_memory()
    cache(made)
    yield made
    state.reset()


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
    if not _is_one_of(20 if hasattr(request.node, "callspec") else share, request.node):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure in the quick run one case in four of a parametrised test, and two of three others.

    Under measurement everything takes twice as long, pytest itself as well.
    """
    is_left_out = not _is_one_of(4, item) if hasattr(item, "callspec") else _is_one_of(3, item)
    if not (is_quick(item.config) and is_left_out):
        return (yield)
    own, others = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        threading.settrace(others)
        sys.settrace(own)


def _is_one_of(count: int, item: pytest.Item) -> bool:
    """Return whether a test is in a part of one in `count`, the same in each run."""
    return zlib.crc32(item.nodeid.encode()) % count == 0
