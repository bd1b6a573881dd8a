"""What a hit and a miss cost: calls of our own code, and system calls. Never seconds.

The bounds are what the path of a call needs today; a longer path fails here.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import fleche
from fleche import Call, _turns
from fleche.caches import BaseCache, Cache, Local
from fleche.remote import PipeChannel, RemoteCache, serve
from fleche.storage import CallFile, ValueFile

CACHES: dict[str, Callable[[Path], BaseCache]] = {
    "local": Local,
    "files": lambda root: Cache(ValueFile(root / "values"), CallFile(root / "calls")),
}


def is_call_of_ours(frame: FrameType, event: str) -> bool:
    """Whether a Python function is entered that is one of the package, or of code that it made."""
    name = frame.f_globals.get("__name__", "")
    return event == "call" and (name == "fleche" or name.startswith("fleche."))


def calls_of_ours(run: Callable[[], object]) -> int:
    """How many Python functions of the package, or of code that it made, `run` enters."""
    count = 0

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        count += is_call_of_ours(frame, event)

    threading.setprofile(None)
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.skipif(sys.gettrace() is not None, reason="the coverage of code adds calls to it")
@pytest.mark.parametrize(("kind", "hit", "miss"), [("local", 30, 120), ("files", 40, 125)])
def test_calls(
    kind: str, hit: int, miss: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warm call of `f(1)` runs through so many calls at most; beside other threads, two more."""
    monkeypatch.setattr(_turns, "THREADS", (1,))

    @fleche.fleche(version=1)
    def twice(number: int) -> int:
        return 2 * number

    with CACHES[kind](tmp_path) as cache, fleche.cache(cache):
        for number in range(12):  # by then a body that draws numbers would have been found out
            twice(number)
        assert calls_of_ours(lambda: twice(100)) <= miss
        twice(1)
        assert calls_of_ours(lambda: twice(1)) <= hit
        monkeypatch.setattr(_turns, "THREADS", (1, 2))
        assert calls_of_ours(lambda: twice(1)) <= hit + 2


@pytest.mark.skipif(sys.gettrace() is not None, reason="the coverage of code adds calls to it")
def test_calls_of_a_remote_hit(tmp_path: Path) -> None:
    """A warm hit of `f(1)` runs through so many calls at most, in all threads of both ends."""
    entered: list[str] = []

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if is_call_of_ours(frame, event):
            entered.append(frame.f_code.co_name)

    @fleche.fleche(version=1)
    def twice(number: int) -> int:
        return 2 * number

    threading.setprofile(profile)
    try:
        with (
            Local(tmp_path) as served,
            RemoteCache(PipeChannel(lambda i, o: serve(i, o, served))) as remote,
            fleche.cache(remote),
        ):
            for number in (1, 1, 1):
                twice(number)
            time.sleep(0.1)  # the threads are done
            entered.clear()
            sys.setprofile(profile)
            twice(1)
            sys.setprofile(None)
            time.sleep(0.1)
            assert len(entered) <= 255, Counter(entered)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def test_calls_do_not_grow_with_the_number_of_records(tmp_path: Path) -> None:
    """A hit among a thousand calls is as short as among ten."""

    @fleche.fleche(version=1)
    def twice(number: int) -> int:
        return 2 * number

    with Local(tmp_path) as cache, fleche.cache(cache):
        found = []
        for last in (10, 1000):
            for number in range(last - 5, last):
                twice(number)
            for number in range(last - 5):
                cache.save(Call("other", {"number": number}, result=number))
            twice(last - 1)
            found.append(calls_of_ours(lambda last=last: twice(last - 1)))  # type: ignore[misc]
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", CACHES)
def test_a_call_leaves_no_cycles(kind: str, tmp_path: Path) -> None:
    """What a computed call has used is gone at once, large arguments too; no collection is due."""

    @fleche.fleche(version=1)
    def size(text: list[int]) -> int:
        return len(text)

    with CACHES[kind](tmp_path) as cache, fleche.cache(cache):
        for number in range(12):
            size([number])
        gc.collect()
        gc.disable()
        try:
            for number in range(100, 150):
                size([number])
            assert gc.collect() < 50
        finally:
            gc.enable()


PROGRAM = """
import os, sys
import fleche
from fleche.caches import Local

@fleche.fleche(cache=Local(sys.argv[1]))
def small(number: int, factor: float = 0.5) -> float:
    return number * factor

for number in range(30):  # a body that draws numbers would have been found out by now
    small(number)
small(7)
os.write(2, b"MARK\\n")
small(7)
os.write(2, b"MARK\\n")
small(1000)
os.write(2, b"MARK\\n")
"""


def system_calls(command: list[str]) -> list[Counter[str]]:
    """The names of the system calls between the marks that a program writes."""
    traced = ["strace", "-qq", "-e", "signal=none", *command]
    ran = subprocess.run(traced, capture_output=True, text=True)
    if ran.returncode and "MARK" not in ran.stderr:
        pytest.skip(f"strace cannot trace here: {ran.stderr[-200:]}")
    parts = re.split(r'write\(2, "MARK\\n".*\n', ran.stderr)
    return [Counter(re.findall(r"^(\w+)\(", part, re.MULTILINE)) for part in parts[1:-1]]


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")
def test_system_calls(tmp_path: Path) -> None:
    """A warm hit of a small result reads nothing from the disk; a miss writes to one file."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    hit, miss = system_calls([sys.executable, str(program), str(tmp_path / "cache")])
    locks = 4  # what SQLite takes and gives back for a look at its log
    assert hit["fcntl"] <= locks
    assert set(hit) <= {"fcntl", "getpid", "pread64", "futex"}, hit
    assert miss["fcntl"] <= 2 * locks
    assert miss["pwrite64"] <= 16
    assert not set(miss) & {"openat", "fsync", "fdatasync", "unlink", "rename", "mkdir"}, miss
    assert sum(miss.values()) <= 45, miss
    assert os.path.exists(tmp_path / "cache" / "fleche.db")
