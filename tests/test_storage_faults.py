"""Disks that fail: the function's result is returned, one warning, and the store is in order."""

from __future__ import annotations

import errno
import os
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fleche import cache, fleche
from fleche.caches import Cache
from fleche.decorator import FlecheWarning
from fleche.storage import CallFile, Sql, ValueFile
from fleche.storage.local import CallLocal
from tests.helpers.permissions import as_somebody
from tests.helpers.sweeps import swept
from tests.helpers.syscalls import Syscalls

runs: list[Any] = []


def fresh(**options: Any) -> Any:
    """A new decorated function, which has been warned of nothing."""

    def double(items: list[int]) -> list[int]:
        runs.append(items)
        return [2 * item for item in items]

    return fleche(version=1, **options)(double)


def in_files(root: Path, *, durable: bool) -> Cache:
    return Cache(ValueFile(root, durable=durable), CallFile(root, durable=durable))


FAILED = ("not stored", "uncached", "runs without looking for a stored result")
"""What a warning says where the cache cannot do its part."""


def leftovers(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*.tmp")]


@contextmanager
def caught() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


class Clock:
    """Time that passes when there is nothing to do but wait."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


class Save:
    """One call that is computed and saved while a system call fails."""

    def __init__(
        self, root: Path, calls: Syscalls, items: list[int], options: dict[str, Any], durable: bool
    ) -> None:
        self.root, self.calls, self.options, self.durable = root, calls, options, durable
        self.items, self.doubled = items, [2 * item for item in items]
        self.number = 0

    def count(self) -> dict[str, int]:
        """The system calls of one save, by name."""
        return self._run()

    def _run(self, *fault: Any, **options: Any) -> dict[str, int]:
        """Compute and save in a new directory, and check everything."""
        self.number += 1
        root = self.root / str(self.number)
        function, items = fresh(**self.options), self.items
        with in_files(root, durable=self.durable) as found, cache(found):
            self.calls.arm(*fault, **options)
            with caught() as warned:
                assert function(items) == self.doubled
            struck, seen = self.calls.struck, dict(self.calls.seen)
            self.calls.arm()
            texts = [str(each.message) for each in warned]
            assert len([text for text in texts if "does not wait" not in text]) <= 1, texts
            assert len([text for text in texts if "does not wait" in text]) <= 1, texts
            for each in warned:
                assert issubclass(each.category, FlecheWarning)
                assert struck
            report = found.verify()
            assert report.ok, report
            left = leftovers(root)
            if fault and (options["lasting"] or fault[0] in ("open", "read", "fstat", "close")):
                left = [name for name in left if not name.endswith(".lock.tmp")]
            if not (fault and fault[0] == "unlink"):
                assert left == [], fault
            stored = function.contains(items)
            said = [text for text in texts if any(each in text for each in FAILED)]
            assert stored or said, (fault, texts)
            assert function(items) == self.doubled
            assert function.contains(items)
            assert len(runs) == (1 if stored else 2)
            assert found.verify().ok
            runs.clear()
        self.struck = struck
        return seen

    def fail(self, name: str, turn: int, error: int, *, lasting: bool) -> bool:
        """Let a call fail; return whether it was made at all."""
        self._run(name, turn, error, lasting=lasting)
        return self.struck


@pytest.mark.parametrize(
    ("error", "coalesce", "durable", "size"),
    swept(
        [
            *((error, "processes", True, 2) for error in ("ENOSPC", "EACCES", "EROFS", "EIO")),
            ("ENOSPC", "threads", False, 2),
            ("EIO", "threads", True, 2),
            ("ENOSPC", "processes", False, 6000),
            ("EIO", "threads", True, 6000),
        ],
        lambda case: case in (("ENOSPC", "processes", True, 2), ("EIO", "threads", True, 6000)),
    ),
)
def test_each_system_call_of_a_save(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: str,
    coalesce: str,
    durable: bool,
    size: int,
) -> None:
    """If any one fails, once or from then on: the result arrives, and nothing is left half done.

    What cannot be removed, because it is the removing that fails, is left: others sweep it.
    """
    runs.clear()
    monkeypatch.setattr("fleche.decorator._locking.time", Clock())
    calls = Syscalls(tmp_path / "cache", monkeypatch)
    items = [*range(size)]
    save = Save(tmp_path / "cache", calls, items, {"coalesce": coalesce}, durable)
    counts = save.count()
    files = 3 if size > 2 else 1
    for name in ("create", "write", "replace"):
        assert counts.get(name, 0) >= files, f"{name} is not watched"
    faults = [
        (name, turn, lasting)
        for name, count in counts.items()
        for turn in range(count)
        for lasting in (False, True)
    ]
    number = getattr(errno, error)
    struck = [save.fail(name, turn, number, lasting=lasting) for name, turn, lasting in faults]
    # a probe and a pin have random names, whose directories may be there already
    assert struck.count(False) <= 0.1 * len(struck)


def protect(root: Path, *, writable: bool) -> None:
    for path in (*root.rglob("*"), root):
        if path.is_dir():
            path.chmod(0o755 if writable else 0o555)


@pytest.mark.parametrize("coalesce", ["threads", "processes"])
def test_a_directory_that_may_only_be_read(open_directory: Path, coalesce: str) -> None:
    """Hits are hits, in silence; what is not there is computed, with a warning to say why."""
    runs.clear()
    function = fresh(coalesce=coalesce)
    with in_files(open_directory, durable=False) as found, cache(found):
        function([1])
        protect(open_directory, writable=False)
        try:
            with as_somebody():
                assert function([1]) == [2]
                with caught() as warned:
                    assert function([2]) == [4]
                    assert function([3]) == [6]
                stored = [text for each in warned if "not stored" in (text := str(each.message))]
                assert len(stored) == 1
                assert "read_only = true" in stored[0]
                assert len(warned) == (1 if coalesce == "threads" else 2)
        finally:
            protect(open_directory, writable=True)
        assert runs == [[1], [2], [3]]
        assert found.verify().ok
        assert leftovers(open_directory) == []


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system with room for 400 KiB, or for what the parameter says."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts file systems")
    place = tmp_path / "disk"
    place.mkdir()
    size = getattr(request, "param", "400k")
    options = ["-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(place)]
    try:
        done = subprocess.run(["mount", *options], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    """What does not fit is returned all the same, and takes no room from what does."""

    @fleche
    def blob(size: int) -> bytes:
        runs.append(size)
        return os.urandom(size)

    runs.clear()
    root = small_disk / "cache"
    with in_files(root, durable=True) as found, cache(found):
        small = blob(10_000)
        with pytest.warns(FlecheWarning, match=r"not stored.*the disk is full; free some space"):
            assert len(blob(1_000_000)) == 1_000_000
        with caught() as warned:
            assert len(blob(1_000_000)) == 1_000_000
        assert warned == []
        assert leftovers(root) == []
        assert found.verify().ok
        assert blob(10_000) == small
        size = 50_000
        with caught():
            while blob.contains(size) or size == 50_000:
                blob(size := size + 1)  # until it is full to the brim
            for size in range(60_000, 60_010):
                assert len(blob(size)) == size
        assert leftovers(root) == []
        assert found.verify().ok
        for kept in [call for call in found.query() if len(call.result) > 50_000]:
            found.evict(kept.key)
        found.gc(0)
        assert len(blob(100_000)) == 100_000
        assert blob.contains(100_000)
        blob(20_000)
        with pytest.warns(FlecheWarning, match="the disk is full"):  # after two successes: news
            assert len(blob(1_000_001)) == 1_000_001
        assert found.verify().ok


@pytest.mark.parametrize("small_disk", ["8m,nr_inodes=30"], indirect=True)
def test_a_disk_that_takes_no_more_files(small_disk: Path) -> None:
    """There is room for bytes, so that is not what is said to be lacking."""
    runs.clear()
    function = fresh()
    with in_files(small_disk / "cache", durable=False) as found, cache(found):
        with caught() as warned:
            for number in range(30):
                assert function([number]) == [2 * number]
        assert "no more files (df -i); free some space, or remove results" in str(warned[0].message)
        assert found.verify().ok
        found.query().evict()
        function([100])
        assert function.contains([100])


@pytest.mark.parametrize("kind", ["sql", "local"])
@pytest.mark.parametrize("small_disk", ["8m"], indirect=True)
def test_a_full_disk_under_a_database(small_disk: Path, tmp_path: Path, kind: str) -> None:
    """A transaction that does not fit is none; the database goes on when there is room."""
    runs.clear()
    function = fresh()
    filler = small_disk / "filler"
    calls = Sql(small_disk / "calls.db") if kind == "sql" else CallLocal(small_disk)
    with Cache(ValueFile(tmp_path / "values"), calls) as found, cache(found):
        function([1])
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(1000)):
                pass
        with caught() as warned:
            for number in range(2, 60):
                assert function([number]) == [2 * number]
        assert [each for each in warned if "not stored" in str(each.message)] == warned
        assert 1 <= len(warned) <= 10  # again where one was stored in between
        assert "the disk is full" in str(warned[0].message) or "free some space" in str(
            warned[0].message
        )
        assert function([1]) == [2]
        assert found.verify().ok
        filler.unlink()
        assert function([50]) == [100]
        assert function.contains([50])
        assert found.verify().ok


def test_a_disk_that_is_mounted_read_only(small_disk: Path) -> None:
    """As a directory that may only be read, for root too."""
    runs.clear()
    function = fresh()
    with in_files(small_disk, durable=False) as found, cache(found):
        function([1])
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        assert function([1]) == [2]
        with pytest.warns(FlecheWarning, match=r"not stored.*set read_only = true"):
            assert function([2]) == [4]
        assert function([2]) == [4]
        with cache(found.readonly()), pytest.warns(FlecheWarning, match="Rejected"):
            assert fresh()([2]) == [4]
        assert found.verify().ok
