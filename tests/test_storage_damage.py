"""Damaged files under a whole cache: a counted miss, never an unpickle, never a wrong value."""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleche.caches import Cache, Local
from fleche.call import Call, CallEntry
from fleche.digest import Digest
from fleche.errors import CorruptParcel, ParcelError, SignatureError
from fleche.parcel import Parcel, _packing
from fleche.parcel._layout import assemble
from fleche.storage import CallFile, CallStorage, Sql, ValueFile
from fleche.storage.local import CallLocal, ValueLocal
from tests.helpers.layers import call

RESULTS: dict[str, Any] = {
    "small": {"energy": -1.25, "label": "fcc", "steps": [1, 2, 3]},
    "large": {"label": "fcc", "data": random.Random(0).randbytes(17_000)},
}
PADDING = 64  # bytes before each section of a parcel, which mean nothing


def made(what: str) -> Call:
    return Call(name="measure", arguments={"x": what}, result=RESULTS[what])


class Measure:
    """A function whose results are kept: looked up, or else computed and saved.

    Attributes:
        runs: how often it was computed.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.runs = 0

    def key(self, what: str) -> Digest:
        return made(what).to_record().key

    def __call__(self, what: str) -> Any:
        hit = self.cache.lookup(self.key(what))
        if hit is not None:
            return hit.result
        self.runs += 1
        self.cache.save(made(what))
        return made(what).result


class Opened:
    """Counts what is unpickled. To raise would not do, since a cache counts what that raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        real = _packing.deserialize

        def deserialize(*args: Any, **options: Any) -> Any:
            self.times += 1
            return real(*args, **options)

        monkeypatch.setattr(_packing, "deserialize", deserialize)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Tens of thousands of warnings take longer than all the rest."""
    caplog.set_level(logging.CRITICAL, "fleche")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    return Opened(monkeypatch)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "compressed": {"compress": "zlib"},
    "signed": {"secret_key": ["new", "old"]},
}


@pytest.fixture(params=OPTIONS)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cache]:
    """A cache of files that holds a small call, and one with a large result."""
    options, root = OPTIONS[request.param], tmp_path / "cache"
    with Cache(ValueFile(root, **options), CallFile(root, **options)) as cache:
        for what in RESULTS:
            cache.save(made(what))
        yield cache


def entry_file(root: Path, key: str) -> Path:
    return root / key[:2] / f"{key[2:]}.call"


def file_that_answers(root: Path, which: str) -> Path:
    """The file of the small call, or that of the large value."""
    if which == "small":
        return entry_file(root, made(which).to_record().key)
    (found,) = root.rglob("*.value")
    return found


class Prober:
    """Puts bytes in the place of a file, and looks the call up."""

    def __init__(self, cache: Cache, opened: Opened, path: Path, what: str) -> None:
        self.cache, self.opened, self.path, self.what = cache, opened, path, what
        self.measure = Measure(cache)
        self.key = self.measure.key(what)
        self.sound = path.read_bytes()

    def is_hit(self, data: bytes) -> bool:
        """Look it up; all that a damaged file may do to a cache is checked here."""
        self.path.write_bytes(data)
        before, opened = self.cache.counts(), self.opened.times
        hit = self.cache.lookup(self.key)
        after = self.cache.counts()
        if hit is not None:
            assert hit.result == RESULTS[self.what]
            return True
        assert self.opened.times == opened, "damaged bytes were unpickled"
        assert after["misses"] == before.get("misses", 0) + 1
        kinds = [name for name in after if after[name] > before.get(name, 0)]
        assert set(kinds) <= {"misses", "errors.corrupt", "errors.signature"}
        assert len(kinds) == 2, "not counted as what it is"
        with pytest.raises((CorruptParcel, SignatureError)):
            self.cache.lookup(self.key, strict=True)
        return False

    def heal(self) -> None:
        """Call the function: it computes, and everything is as it was."""
        before = self.measure.runs
        assert self.measure(self.what) == RESULTS[self.what]
        assert self.measure.runs == before + 1
        assert self.measure(self.what) == RESULTS[self.what]
        assert self.measure.runs == before + 1
        report = self.cache.verify()
        assert report.ok, report
        assert report.incomplete == ()


@pytest.mark.parametrize("which", RESULTS)
class TestEveryFile:
    @pytest.fixture
    def prober(self, stored: Cache, opened: Opened, which: str, tmp_path: Path) -> Prober:
        return Prober(stored, opened, file_that_answers(tmp_path / "cache", which), which)

    @pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
    def test_every_bit(self, prober: Prober, step: int) -> None:
        """The flip of any bit makes it a miss, unless it lies where the layout pads."""
        if len(prober.sound) > 10_000 and step > 1:
            step = 97
        harmless = set()
        for bit in range(0, 8 * len(prober.sound), step):
            data = bytearray(prober.sound)
            data[bit // 8] ^= 1 << bit % 8
            if prober.is_hit(data):
                harmless.add(bit // 8)
        assert {prober.sound[position] for position in harmless} <= {0}
        assert len(harmless) < PADDING
        assert not harmless or max(harmless) - min(harmless) < PADDING

    def test_every_length(self, prober: Prober) -> None:
        """So it is with a file that ends early, or goes on."""
        step = 1 if len(prober.sound) < 10_000 else 13
        for length in (*range(0, len(prober.sound), step), len(prober.sound) - 1):
            assert not prober.is_hit(prober.sound[:length]), length
        for more in (b"\0", b"x" * PADDING, prober.sound):
            assert not prober.is_hit(prober.sound + more)
        assert not prober.is_hit(bytes(len(prober.sound)))

    def test_it_heals(self, prober: Prober, which: str) -> None:
        """A result that is computed again takes the place of what was damaged."""
        chance = random.Random(which)
        for _ in range(40):
            data = bytearray(prober.sound)
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            if not prober.is_hit(data):
                prober.heal()
        for _ in range(40):
            prober.is_hit(prober.sound[: chance.randrange(len(prober.sound))])
            prober.heal()


@pytest.mark.parametrize("kind", ["file", "local"])
def test_a_large_buffer(tmp_path: Path, opened: Opened, kind: str) -> None:
    """A flip anywhere in a large value is found before it is unpickled, and heals."""
    np = pytest.importorskip("numpy")
    values = ValueFile(tmp_path) if kind == "file" else ValueLocal(tmp_path)
    calls = CallFile(tmp_path) if kind == "file" else CallLocal(tmp_path)
    saved = call(x=1, result=np.arange(100_000))
    with Cache(values, calls) as cache:
        key = Digest(cache.save(saved))
        path = max(tmp_path.rglob("*.value"), key=lambda path: path.stat().st_size)
        sound, chance = path.read_bytes(), random.Random(0)
        for turn in range(200):
            data = bytearray(sound)
            data[chance.randrange(len(data) // 2, len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(data if turn % 2 else data[: chance.randrange(len(data))])
            before = opened.times
            assert cache.lookup(key) is None
            assert opened.times == before
            if turn % 20 == 0:
                cache.save(saved)
                assert cache.verify().ok
                hit = cache.lookup(key)
                assert hit is not None
                assert hit.result.sum() == 4_999_950_000


DATABASES: dict[str, Callable[[Path], tuple[CallStorage, Path]]] = {
    "sql": lambda root: (Sql(root / "calls.db"), root / "calls.db"),
    "local": lambda root: (CallLocal(root), root / "fleche.db"),
}


@pytest.mark.parametrize("kind", DATABASES)
@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_every_bit_of_an_entry_in_a_database(tmp_path: Path, kind: str, step: int) -> None:
    """An entry in a row is checked as one in a file is: any flip makes it a miss."""
    calls, path = DATABASES[kind](tmp_path)
    find = "SELECT entry FROM fleche_calls WHERE key = ?"
    with Cache(ValueFile(tmp_path / "values"), calls) as cache:
        measure = Measure(cache)
        measure("small")
        key = str(measure.key("small"))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("PRAGMA synchronous = OFF")
        sound = other.execute(find, (key,)).fetchone()[0]

        def change(data: bytes) -> None:
            other.execute("UPDATE fleche_calls SET entry = ? WHERE key = ?", (data, key))

        for bit in range(0, 8 * len(sound), step):
            data = bytearray(sound)
            data[bit // 8] ^= 1 << bit % 8
            change(bytes(data))
            assert cache.lookup(Digest(key)) is None
            with pytest.raises(CorruptParcel):
                cache.lookup(Digest(key), strict=True)
        for length in range(len(sound)):
            change(sound[:length])
            assert cache.lookup(Digest(key)) is None
        assert measure("small") == RESULTS["small"]
        assert cache.verify().ok
        assert other.execute(find, (key,)).fetchone()[0] == sound
        other.close()


@pytest.mark.parametrize("kind", ["files", "local"])
@pytest.mark.parametrize("since", [0.0, 1.1])
def test_a_value_that_was_changed_long_after_it_was_stored(
    tmp_path: Path, kind: str, since: float
) -> None:
    """verify() removes it: the storage may take the file for younger than what it knows of it."""
    storages = (ValueFile(tmp_path), CallFile(tmp_path))
    with Local(tmp_path) if kind == "local" else Cache(*storages) as cache:
        measure = Measure(cache)
        measure("large")
        time.sleep(0.05)
        (path,) = tmp_path.rglob("*.value")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        time.sleep(since)
        report = cache.verify(repair=True)
        assert len(report.corrupt) == 1
        assert report.removed == 2
        assert not path.exists()
        assert cache.verify().ok
        measure("large")
        assert measure.runs == 2


@pytest.mark.parametrize("codec", ["zlib", "zstd"])
@pytest.mark.parametrize("size", [-5, -1, 3 << 30, 2**64 - 1])
def test_a_size_that_lies(tmp_path: Path, codec: Any, size: int) -> None:
    """A parcel that claims an impossible size is damage, which verify() finds and removes."""
    with Cache(ValueFile(tmp_path, compress=codec), CallFile(tmp_path)) as cache:
        key = cache.save_value(["text" * 1000])
        (path,) = tmp_path.rglob("*.value")
        sound = Parcel.from_bytes(path.read_bytes())
        section = msgspec.structs.replace(sound.head.stream, size=size)
        head = msgspec.structs.replace(sound.head, stream=section)
        path.write_bytes(assemble(head, [sound.stored(0)]).tobytes())
        with pytest.raises((CorruptParcel, KeyError)):
            cache.load_value(key)
        assert not cache.verify().ok
        cache.verify(repair=True)
        assert not path.exists()
        assert cache.verify().ok
        cache.gc(grace=0)


class TestSignatures:
    """What is not signed by a known secret is refused before it is unpickled."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "cache"

    def opened_by(self, root: Path, secret: str | None) -> Cache:
        return Cache(ValueFile(root, secret_key=secret), CallFile(root, secret_key=secret))

    @pytest.mark.parametrize("theirs", [None, "theirs"], ids=["unsigned", "foreign"])
    @pytest.mark.parametrize("which", RESULTS)
    def test_of_others(
        self, root: Path, tmp_path: Path, opened: Opened, which: str, theirs: str | None
    ) -> None:
        """A file that is slipped in is a miss, and is replaced."""
        with self.opened_by(root, "ours") as ours:
            measure = Measure(ours)
            measure(which)
            with self.opened_by(tmp_path / "foreign", theirs) as foreign:
                foreign.save(made(which))
            slipped = file_that_answers(tmp_path / "foreign", which)
            file_that_answers(root, which).write_bytes(slipped.read_bytes())
            before = opened.times
            assert ours.lookup(measure.key(which)) is None
            with pytest.raises(SignatureError):
                ours.lookup(measure.key(which), strict=True)
            assert opened.times == before
            assert ours.counts()["errors.signature"] >= 1
            assert measure(which) == RESULTS[which]
            assert ours.lookup(measure.key(which)) is not None

    @pytest.mark.parametrize("theirs", [None, "theirs"], ids=["unsigned", "foreign"])
    def test_of_others_in_a_database(self, tmp_path: Path, theirs: str | None) -> None:
        """A row that is slipped in is a miss, and is replaced."""
        url, values = tmp_path / "calls.db", ValueFile(tmp_path / "values", secret_key="ours")
        with Cache(values, Sql(url, secret_key="ours")) as ours:
            measure = Measure(ours)
            measure("small")
            key = measure.key("small")
            foreign = Sql(url, secret_key=theirs)
            foreign.put_many([(key, CallEntry(ours.load(key).record))])
            foreign.close()
            assert ours.lookup(key) is None
            with pytest.raises(SignatureError, match=f"calls.db: call {key[:12]}: "):
                ours.lookup(key, strict=True)
            assert ours.counts()["errors.signature"] == 2
            assert list(ours.query()) == []
            assert measure("small") == RESULTS["small"]
            assert ours.lookup(key) is not None

    def test_replayed(self, root: Path, opened: Opened) -> None:
        """A file that is signed, but for another key, does not pass for this one."""
        results = [bytes([number]) * 20_000 for number in (1, 2)]
        with self.opened_by(root, "ours") as ours:
            one, two = (
                Digest(ours.save(call(x=number, result=result)))
                for number, result in enumerate(results)
            )
            by_value = {path.read_bytes()[-100]: path for path in root.rglob("*.value")}
            pairs = [(by_value[1], by_value[2]), (entry_file(root, one), entry_file(root, two))]
            for source, target in pairs:
                sound = target.read_bytes()
                target.write_bytes(source.read_bytes())
                assert ours.lookup(two) is None
                with pytest.raises(CorruptParcel):
                    ours.lookup(two, strict=True)
                with pytest.raises(ParcelError):
                    _ = ours.load(two).result
                assert opened.times == 0
                target.write_bytes(sound)
            assert ours.load(two).result == results[1]
