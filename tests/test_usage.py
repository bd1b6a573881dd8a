"""Counters of use: how often stored results were found, by hour, machine, account and function."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fleche
from fleche.caches import BaseCache, Cache, CacheStack, Local
from fleche.errors import StorageError
from fleche.remote import PipeChannel, RemoteCache, serve
from fleche.storage import (
    CallFile,
    CallMemory,
    CallVoid,
    Sql,
    Usage,
    ValueFile,
    ValueMemory,
    merge_usage,
)
from fleche.storage.file import _notes

MAKERS: dict[str, Callable[[Path], BaseCache]] = {
    "memory": lambda path: Cache(ValueMemory(), CallMemory()),
    "local": Local,
    "file": lambda path: Cache(ValueFile(path), CallFile(path)),
    "sql": lambda path: Cache(ValueFile(path), Sql(path / "calls.db")),
    "stack": lambda path: CacheStack([Local(path), Local(path / "far")]),
}


@pytest.fixture(params=MAKERS)
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseCache]:
    with MAKERS[request.param](tmp_path) as made:
        yield made


@fleche.fleche
def square(x: int) -> int:
    return x * x


@fleche.fleche
def cube(x: int) -> int:
    return x**3


def test_hits_and_misses_are_counted_by_function(cache: BaseCache) -> None:
    """A body that ran and was stored is a miss; a result that was found is a hit."""
    with fleche.cache(cache):
        for x in (1, 2, 2, 2):
            square(x)
        cube(1)
    found = {row.name: (row.misses, row.hits) for row in cache.usage()}
    assert found == {"square": (2, 2), "cube": (1, 0)}


def test_maps_are_counted(cache: BaseCache) -> None:
    """`f.map` counts like single calls."""
    with fleche.cache(cache):
        list(square.map([1, 2, 3]))
        list(square.map([1, 2, 3, 4]))
    assert [(row.misses, row.hits) for row in cache.usage("square")] == [(4, 3)]


def test_time_saved_is_the_duration_of_what_was_found(cache: BaseCache) -> None:
    """A hit saves what the body took when it ran."""
    with fleche.cache(cache):
        square(3)
        took = cache.query().only().duration
        square(3)
        square(3)
    (row,) = cache.usage()
    assert took is not None
    assert row.spent == pytest.approx(took)
    assert row.saved == pytest.approx(2 * took)


def test_rows_say_where_and_when() -> None:
    """Host, account, hour and module are those of the process that counts."""
    from datetime import datetime, timezone

    cache = Cache(ValueMemory(), CallMemory())
    before = datetime.now(timezone.utc).timestamp() // 3600
    with fleche.cache(cache), fleche.meta(fleche.Runtime()):
        square(3)
    (row,) = cache.usage()
    runtime = cache.query().only().metadata["runtime"]
    assert (row.host, row.user) == (runtime["host"], runtime["user"])
    assert before <= row.hour <= datetime.now(timezone.utc).timestamp() // 3600
    assert row.module == __name__
    assert cache.usage(module="elsewhere") == []


def test_counters_add_up_over_processes(tmp_path: Path) -> None:
    """What a process has counted is stored when it ends, and adds to what is there."""
    program = textwrap.dedent(
        """
        import sys, fleche
        from fleche.caches import Local

        @fleche.fleche
        def double(x):
            return 2 * x

        fleche.cache(Local(sys.argv[1]))
        double(1), double(1)
        """
    )
    (tmp_path / "program.py").write_text(program)
    for _ in range(2):
        subprocess.run([sys.executable, "program.py", "cache"], cwd=tmp_path, check=True)
    with Local(tmp_path / "cache") as cache:
        assert [(row.misses, row.hits) for row in cache.usage()] == [(1, 3)]


@pytest.mark.parametrize("kind", ["local", "file", "sql"])
def test_a_directory_that_was_removed_is_not_made_again(tmp_path: Path, kind: str) -> None:
    """By the counters, that is, which are stored at the end of the process."""
    program = textwrap.dedent(
        """
        import shutil, sys, fleche
        from pathlib import Path
        from fleche.caches import Cache, Local
        from fleche.storage import CallFile, Sql, ValueFile

        @fleche.fleche
        def double(x):
            return 2 * x

        root = Path("cache")
        cache = {
            "local": lambda: Local(root),
            "file": lambda: Cache(ValueFile(root), CallFile(root)),
            "sql": lambda: Cache(ValueFile(root), Sql(root / "calls.db")),
        }[sys.argv[1]]()
        fleche.cache(cache)
        double(1), double(1)
        shutil.rmtree(root)
        """
    )
    (tmp_path / "program.py").write_text(program)
    subprocess.run([sys.executable, "program.py", kind], cwd=tmp_path, check=True)
    assert not (tmp_path / "cache").exists()


def test_a_forked_child_does_not_count_what_its_parent_has(tmp_path: Path) -> None:
    """Each process stores what it has counted itself."""
    program = textwrap.dedent(
        """
        import os, sys, fleche
        from fleche.caches import Local

        @fleche.fleche
        def double(x):
            return 2 * x

        fleche.cache(Local(sys.argv[1]))
        double(1), double(1)
        if os.fork() == 0:
            double(1)
            sys.exit()
        os.wait()
        """
    )
    (tmp_path / "program.py").write_text(program)
    subprocess.run([sys.executable, "program.py", "cache"], cwd=tmp_path, check=True)
    with Local(tmp_path / "cache") as cache:
        assert [(row.misses, row.hits) for row in cache.usage()] == [(1, 2)]


def test_a_hit_writes_nothing(tmp_path: Path) -> None:
    """The counters stay in memory until the cache is closed, or they are asked for."""
    with Local(tmp_path) as cache, fleche.cache(cache):
        square(5)
        assert cache.usage()
        with Local(tmp_path) as other:
            square(5)
            assert [row.hits for row in other.usage()] == [0]
            cache.usage()
            assert [row.hits for row in other.usage()] == [1]


def test_read_only_caches_count_nothing(tmp_path: Path) -> None:
    """Where nothing can be written, hits are answered all the same."""
    with Local(tmp_path) as cache:
        with fleche.cache(cache):
            square(7)
        assert len(cache.usage()) == 1
        with fleche.cache(cache.readonly()) as view:
            assert square(7) == 49
            assert [(row.hits, row.misses) for row in view.usage()] == [(0, 1)]


def test_storages_without_counters_have_none() -> None:
    """A storage that keeps no counters, such as one that a user has written, answers with none."""
    cache = Cache(ValueMemory(), CallVoid())
    with fleche.cache(cache):
        square(7)
    assert cache.usage() == []


def test_a_server_keeps_the_counters_of_its_clients() -> None:
    """Through the wire, counters arrive with the names of the client's machine and account."""
    served = Cache(ValueMemory(), CallMemory())
    with (
        RemoteCache(PipeChannel(lambda reader, writer: serve(reader, writer, served))) as client,
        fleche.cache(client),
    ):
        square(7)
        square(7)
        assert [(row.hits, row.misses) for row in client.usage()] == [(1, 1)]
    assert [(row.hits, row.misses) for row in served.usage()] == [(1, 1)]


def figures(cache: BaseCache) -> tuple[int, int]:
    rows = cache.usage("square")
    return sum(row.misses for row in rows), sum(row.hits for row in rows)


def test_counters_go_along_with_results(cache: BaseCache, tmp_path: Path) -> None:
    """However often and on whatever ways they are copied, each counts once."""
    with Local(tmp_path / "other") as other, Local(tmp_path / "third") as third:
        with fleche.cache(cache):
            square(1), square(1), cube(1)
        with fleche.cache(other):
            square(2), square(2), square(2)
        assert cache.push(other) == 2
        assert cache.push(other) == 0
        assert figures(other) == (2, 3)
        with fleche.cache(cache):
            square(1)
        cache.sync(other)
        other.sync(cache)
        assert figures(cache) == figures(other) == (2, 4)
        third.pull(other), third.pull(cache)
        assert figures(third) == (2, 4)
        assert sum(row.misses for row in third.usage("cube")) == 1
        third.push(other)
        assert figures(other) == figures(CacheStack([other, third])) == (2, 4)
        with fleche.cache(other):
            square(2)
        assert figures(other) == (2, 5)


def test_counters_of_a_function_alone(tmp_path: Path) -> None:
    """Of all calls of a function; not where some of its calls were chosen."""
    with Local(tmp_path / "near") as near:
        with fleche.cache(near):
            square(1), square(2), cube(1)
        some, functions = Cache(ValueMemory(), CallMemory()), Cache(ValueMemory(), CallMemory())
        near.push(some, name="square", since="1d")
        assert some.usage() == []
        near.push(functions, name="squ*")
        assert [(row.name, row.misses) for row in functions.usage()] == [("square", 2)]


def test_counters_of_one_place_are_merged() -> None:
    """Sums are taken of what is of one hour, machine, account and function; the oldest first."""
    base = {"host": "h", "user": "u", "name": "f"}
    rows = [
        Usage(hour=2, hits=1, saved=0.5, **base),
        Usage(hour=1, misses=1, spent=2.0, **base),
        Usage(hour=2, hits=2, saved=0.25, bytes=10, **base),
    ]
    assert merge_usage(rows) == [
        Usage(hour=1, misses=1, spent=2.0, **base),
        Usage(hour=2, hits=3, saved=0.75, bytes=10, **base),
    ]


def test_files_of_counters_stay_small(tmp_path: Path) -> None:
    """Appending goes on for ever; the file does not grow for ever, and no count is lost."""
    storage = CallFile(tmp_path)
    row = Usage(hour=1, host="h", user="u", name="f" * 1000, hits=1)
    for _ in range(60):
        storage.note_usage([row] * 10)
    assert sum(each.hits for each in storage.usage()) == 600
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.jsonl")) < 400_000


def test_counters_stay_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be written anew, the disk being full, stays as it is; nothing is left."""
    storage = CallFile(tmp_path)
    row = Usage(hour=1, host="h", user="u", name="f" * 1000, hits=1)
    storage.note_usage([row] * 200)
    write, turns = _notes.write_all, iter(range(10))

    def fill(descriptor: int, lines: bytes) -> None:
        if next(turns):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(descriptor, lines)

    with monkeypatch.context() as patch:
        patch.setattr(_notes, "write_all", fill)
        with pytest.raises(StorageError, match="the disk is full"):
            storage.note_usage([row] * 100)
    assert sum(each.hits for each in storage.usage()) == 300
    assert len(list((tmp_path / "usage").iterdir())) == 1
    storage.note_usage([row])
    assert sum(each.hits for each in storage.usage()) == 301
