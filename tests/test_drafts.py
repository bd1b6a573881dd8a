"""Large arrays of a result are written while another thread hashes them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from threading import enumerate as threads
from typing import Any

import numpy as np
import pytest

from fleche import cache, fleche
from fleche.caches import BaseCache, Cache, CacheStack, Local, SizeLimitedCache
from fleche.caches import _pending as pending
from fleche.digest import Address, buffer_digest, digest
from fleche.digest import _tokens as tokens
from fleche.errors import Indigestible, StorageError
from fleche.parcel import Draft, Parcel, verify
from fleche.storage import CallFile, CallMemory, ValueFile, ValueMemory
from fleche.storage.file import Files
from fleche.storage.file._files import NewFile

SIZE = 8 << 20


def array(seed: int = 0, nbytes: int = SIZE) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, nbytes, dtype="u1").view("u4")


def files(root: Path) -> list[Path]:
    """Return the files of values, temporary ones too."""
    return sorted(path for path in root.rglob("*.value*") if path.is_file())


def in_files(root: Path, **options: Any) -> Cache:
    return Cache(ValueFile(root, **options), CallFile(root, **options))


KINDS: dict[str, Callable[[Path], BaseCache]] = {
    "local": Local,
    "durable": lambda root: Local(root, durable=True),
    "signed": lambda root: Local(root, secret_key="secret"),
    "files": in_files,
    "stack": lambda root: CacheStack([Local(root), Cache(ValueMemory(), CallMemory())]),
    "limited": lambda root: SizeLimitedCache(Local(root), 10**9),
    "filtered": lambda root: Local(root).filter(lambda _: True),
}

VALUES: dict[str, Callable[[], Any]] = {
    "array": array,
    "of rows": lambda: array().reshape(-1, 1024),
    "by columns": lambda: np.asfortranarray(array().reshape(-1, 1024)),
    "list": lambda: [array(1), "between", array(2, 2 * SIZE)],
    "dict": lambda: {"small": array(3, 1 << 16), "large": array(4)},
}


@pytest.fixture
def drafts(monkeypatch: pytest.MonkeyPatch) -> list[Draft]:
    """Every draft that is made."""
    made: list[Draft] = []
    begin = Draft.__init__

    def noted(self: Draft, *args: Any, **options: Any) -> None:
        made.append(self)
        begin(self, *args, **options)

    monkeypatch.setattr(Draft, "__init__", noted)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_is_kept(kind: str, tmp_path: Path, drafts: list[Draft]) -> None:
    """The file is the one that would have been written otherwise, and nothing else is left."""
    with KINDS[kind](tmp_path) as kept:
        name = kept.save_value(array())
        assert len(drafts) == 1
        assert (kept.load_value(name) == array()).all()
        assert kept.backend.contains([Address.of(buffer_digest(array().view("u1").data))]) == [True]
        report = kept.verify()
        assert (report.values, report.corrupt, report.broken) == (2, (), ())
    assert [path.suffix for path in files(tmp_path)] == [".value"] * 2


@pytest.mark.parametrize("kind", VALUES)
def test_is_that_of_a_small_one(
    kind: str, tmp_path: Path, drafts: list[Draft], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever holds the arrays, every byte is what it would be without drafts."""
    value = VALUES[kind]()

    @fleche(version=1)
    def made() -> Any:
        return value

    with cache(Local(tmp_path / "ahead")) as first:
        made()
    assert drafts
    monkeypatch.setattr(pending, "_DRAFTED", 1 << 40)
    with cache(Local(tmp_path / "after")) as second:
        made()
    ahead, after = files(tmp_path / "ahead"), files(tmp_path / "after")
    assert [path.name for path in ahead] == [path.name for path in after]
    assert [path.read_bytes() for path in ahead] == [path.read_bytes() for path in after]
    first.close()
    second.close()


def test_not_where_it_is_compressed(tmp_path: Path, drafts: list[Draft]) -> None:
    """What is stored then depends on all of it."""
    with Local(tmp_path, compress="zlib") as kept:
        assert (kept.load_value(kept.save_value(array())) == array()).all()
    assert drafts == []


def test_what_is_there_is_not_replaced(tmp_path: Path, drafts: list[Draft]) -> None:
    """The draft goes."""
    with Local(tmp_path) as kept:
        kept.save_value(array())
        before = {path.name: path.stat().st_ino for path in files(tmp_path)}
        kept.save_value([array()])
        after = {path.name: path.stat().st_ino for path in files(tmp_path)}
    assert len(drafts) == 2
    assert len(after) == 3
    assert before.items() <= after.items()


def test_what_is_there_is_not_written_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written no longer than it is hashed, however slow the disk is."""
    written: list[int] = []
    write = NewFile.write

    def slow(self: NewFile, data: Any, offset: int) -> None:
        for thread in threads():
            if thread.name == "fleche-hashing":
                thread.join()
        written.append(offset)
        write(self, data, offset)

    monkeypatch.setattr(NewFile, "write", slow)
    with Local(tmp_path) as kept:
        kept.save_value(array())
        assert written[1:-1] == list(range(1 << 21, SIZE + 1, 1 << 21))
        assert written[-1] == 0
        whole = len(written)
        kept.save_value([array()])
        assert len(written) <= whole + 1


def test_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk finds the digest of an array, and so does the packing."""
    large: list[int] = []
    hashed = tokens.plain_hash

    def noted(data: Any) -> bytes:
        large.append(len(data))
        return hashed(data)

    monkeypatch.setattr(tokens, "plain_hash", noted)
    with Local(tmp_path) as kept:
        name = kept.save_value([array(), array(1)])
        assert large == []
        assert name == digest([array(), array(1)])
    assert large == [SIZE, SIZE]


def test_what_has_no_digest(tmp_path: Path, drafts: list[Draft]) -> None:
    """The draft of an array beside it goes."""

    class Stubborn:
        def __digest__(self) -> Any:
            raise TypeError("has no digest")

        def __reduce__(self) -> Any:
            return str, ("something",)

    @fleche(version=1)
    def made() -> Any:
        return [array(), Stubborn()]

    with Local(tmp_path) as kept, cache(kept), pytest.warns(UserWarning, match="no digest"):
        made()
    assert len(drafts) == 1
    assert files(tmp_path) == []


def test_what_cannot_be_pickled(tmp_path: Path, drafts: list[Draft]) -> None:
    """It is refused as without an array beside it: what has no digest either says so."""
    with Local(tmp_path) as kept, pytest.raises(Indigestible, match="generator"):
        kept.save_value([array(), (each for each in ())])
    assert drafts == []
    assert files(tmp_path) == []


@pytest.mark.parametrize("at", ["the writing", "the walk"])
def test_interrupted(
    at: str, tmp_path: Path, drafts: list[Draft], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left of it."""

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with Local(tmp_path) as kept:
        if at == "the writing":
            monkeypatch.setattr(NewFile, "write", interrupted)
        else:
            monkeypatch.setattr(pending, "digest_with_buffers", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kept.save_value(array())
    assert len(drafts) == 1
    assert files(tmp_path) == []


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail(*_: Any, **__: Any) -> Any:
    raise FULL


class TestFailures:
    """What cannot be written ahead is written afterwards, or that fails as it always did."""

    def test_cannot_begin(
        self, tmp_path: Path, drafts: list[Draft], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Files, "begin", fail)
        with Local(tmp_path) as kept:
            assert (kept.load_value(kept.save_value(array())) == array()).all()
        assert drafts == []

    def test_no_thread(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: Any) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(Thread, "start", refused)
        with Local(tmp_path) as kept:
            assert (kept.load_value(kept.save_value(array())) == array()).all()
        assert [path.suffix for path in files(tmp_path)] == [".value"] * 2

    @pytest.mark.parametrize("at", ["the content", "the head"])
    def test_cannot_go_on(
        self, at: str, tmp_path: Path, drafts: list[Draft], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = NewFile.write

        def failing(self: NewFile, data: Any, offset: int) -> None:
            if (offset == 0) is (at == "the head"):
                raise FULL
            write(self, data, offset)

        monkeypatch.setattr(NewFile, "write", failing)
        with Local(tmp_path) as kept:
            assert (kept.load_value(kept.save_value(array())) == array()).all()
        assert len(drafts) == 1
        assert [path.suffix for path in files(tmp_path)] == [".value"] * 2

    def test_no_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is a failure to store, and nothing is left."""
        with Local(tmp_path) as kept:
            monkeypatch.setattr(NewFile, "take_name", fail)
            with pytest.raises(StorageError, match=r"(?i)no space"):
                kept.save_value(array())
        assert files(tmp_path) == []


def test_what_a_killed_writer_leaves_is_swept(tmp_path: Path) -> None:
    """It is a temporary file like any other."""
    with Local(tmp_path) as kept:
        draft = kept.backend.draft(memoryview(bytes(SIZE)))
        assert draft is not None
        draft.write_while(lambda: True)
        (path,) = files(tmp_path)
        assert path.suffix == ".tmp"
        assert kept.stats().values == 0
        os.utime(path, (0, 0))
        kept.gc()
        assert files(tmp_path) == []
        draft.discard()


def test_an_argument_that_is_returned(tmp_path: Path) -> None:
    """It is stored once."""

    @fleche(version=1)
    def same(x: Any) -> Any:
        return x

    with Local(tmp_path) as kept, cache(kept):
        same(array())
        assert (same(array()) == array()).all()
        assert same.load(array()).result is not None
    assert [path.suffix for path in files(tmp_path)] == [".value"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("pieces", [0, 1, 8])
def test_a_forked_child(pieces: int, tmp_path: Path) -> None:
    """It has no part in what its parent is writing, and takes nothing away from it."""
    content = memoryview(bytes(SIZE))
    with Local(tmp_path) as kept:
        draft = kept.backend.draft(content)
        assert draft is not None
        draft.write_while(iter([True] * pieces + [False]).__next__)
        name = buffer_digest(content)
        child = os.fork()
        if child == 0:
            os._exit(0 if draft.finish(name, ()) is None else 1)
        assert os.waitpid(child, 0)[1] == 0
        parcel = draft.finish(name, ())
        assert parcel is not None
        kept.backend.save({}, [(Address.of(name), parcel)])
        ((_, found),) = kept.backend.load_values([Address.of(name)])
        assert isinstance(found, Parcel)
        verify(found, digest=name)
        found.close()
