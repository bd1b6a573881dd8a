"""Functions that run in a fresh working directory."""

from __future__ import annotations

import os
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

import fleche
from fleche import File, FlecheWarning, cache
from tests.helpers.layers import in_memory

runs: list[str] = []


@fleche.fleche(version=1, isolate="directory")
def work(x: int) -> str:
    runs.append(os.getcwd())
    if os.listdir():  # no assert, which pytest would write anew
        raise RuntimeError
    Path("scratch.txt").write_text(str(x))
    if x < 0:
        raise ValueError(x)
    return Path("scratch.txt").read_text()


@fleche.fleche(version=1, isolate="directory")
def written(x: int) -> Any:
    Path("out.txt").write_text(f"result {x}")
    return File("out.txt")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runs.clear()
    cache(in_memory())


def test_it_is_empty_and_is_removed() -> None:
    """And nothing of it is left, whether the function returns or raises."""
    here = os.getcwd()
    assert work(1) == work(1) == "1"
    with pytest.raises(ValueError, match="-1"):
        work(-1)
    assert os.getcwd() == here
    assert len(runs) == 2
    assert not any(map(os.path.exists, runs))
    assert os.listdir() == []


def test_files_of_the_result_are_kept() -> None:
    """The first caller gets what a hit gives: a file that is there."""
    first, second = written(1), written(1)
    for found in (first, second):
        assert Path(found).read_text() == "result 1"


def test_without_a_cache() -> None:
    """No directory is left, and the files of the result are the caller's all the same."""

    @fleche.fleche(version=1, isolate="directory", require="key")
    def both(x: int, key: int | None = None) -> Any:
        runs.append(os.getcwd())
        Path("out.txt").write_text("result")
        if x < 0:
            raise ValueError(x)
        return File("out.txt")

    found = both(1)
    with pytest.raises(ValueError, match="-1"):
        both(-1)
    assert written(2) != found
    assert not any(map(os.path.exists, runs))
    assert Path(found).read_text() == "result"


def test_nested_calls() -> None:
    @fleche.fleche(version=1, isolate="directory")
    def outer(x: int) -> str:
        Path("mine.txt").write_text("mine")
        return work(x) + Path("mine.txt").read_text()

    assert outer(5) == "5mine"


@pytest.mark.parametrize("becomes", ["gone before", "gone meanwhile", "another name"])
def test_the_directory_before(
    becomes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is gone back to whatever it is called, or if it is called nothing any more."""
    place, other = tmp_path / "place", tmp_path / "other"
    place.mkdir()
    monkeypatch.chdir(place)
    here = os.stat(os.curdir).st_ino

    @fleche.fleche(version=1, isolate="directory")
    def change(x: str) -> str:
        if x == "gone meanwhile":
            place.rmdir()
        if x == "another name":
            place.rename(other)
        return x

    if becomes == "gone before":
        place.rmdir()
    assert change(becomes) == becomes
    assert os.stat(os.curdir).st_ino == here


def test_threads_take_turns() -> None:
    """A process has one working directory."""
    found: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda x=x: found.update({x: work(x)}))  # type: ignore[misc]
        for x in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {x: str(x) for x in range(8)}


@pytest.mark.parametrize("is_cached", [True, False])
def test_no_circular_wait_for_the_directory(is_cached: bool) -> None:
    """Who has the directory waits for no other thread, whose body may want the directory."""
    has_directory, has_begun = threading.Event(), threading.Event()

    @fleche.fleche(version=1)
    def inner(x: int) -> str:
        has_begun.set()
        assert has_directory.wait(10)
        return work(x)

    @fleche.fleche(version=1, isolate="directory")
    def outer(x: int, more: Any) -> str:
        has_directory.set()
        assert has_begun.wait(10)
        return inner(x)

    found: list[str] = []
    more = 0 if is_cached else iter(())
    threads = [
        threading.Thread(target=lambda: found.append(inner(1)), daemon=True),
        threading.Thread(target=lambda: found.append(outer(1, more)), daemon=True),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FlecheWarning)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert found == ["1", "1"]


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="isolate='folder'"):
        fleche.fleche(isolate="folder")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="not coroutines"):

        @fleche.fleche(isolate="directory")
        async def f() -> None: ...
