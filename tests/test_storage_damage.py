"""Damaged files under a whole cache: a counted miss, never an unpickle, never a wrong value."""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleche import D, cache, fleche
from fleche.caches import Cache
from fleche.digest import Digest, digest
from fleche.errors import CorruptParcel, ParcelError, SignatureError
from fleche.parcel import Parcel
from fleche.parcel import _packing as packing
from fleche.parcel._layout import assemble
from fleche.storage import CallFile, Sql, ValueFile
from tests.helpers.layers import call

SMALL = {"energy": -1.25, "label": "fcc", "steps": [1, 2, 3]}
PADDING = 64  # bytes before each section of a parcel, which mean nothing

runs: list[Any] = []


@fleche
def measure(x: Any) -> Any:
    """A small result, or a large one."""
    runs.append(x)
    if x == "large":
        import numpy as np

        return np.arange(100_000)
    return dict(SMALL)


class Opened:
    """Counts what is unpickled. To raise would not do, since a cache counts what that raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        real = packing.deserialize

        def deserialize(*args: Any) -> Any:
            self.times += 1
            return real(*args)

        monkeypatch.setattr(packing, "deserialize", deserialize)


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
    """A cache of files, active, that holds one call."""
    options, root = OPTIONS[request.param], tmp_path / "cache"
    made = Cache(ValueFile(root, **options), CallFile(root, **options))
    runs.clear()
    with made, cache(made):
        measure(7)
        yield made


def file_of(found: Cache, key: Digest | str, kind: str) -> Path:
    return Path(found.values.to_config()["root"]) / key[:2] / f"{key[2:]}.{kind}"


def sample(found: Cache, x: Any = 7) -> dict[str, Path]:
    """The files that answer a call."""
    lazy = measure.load(x)
    assert lazy.record.result is not None
    return {
        "value": file_of(found, lazy.record.result, "value"),
        "call": file_of(found, lazy.key, "call"),
    }


class Prober:
    """Puts bytes in the place of a file, and looks the call up."""

    def __init__(self, found: Cache, opened: Opened, path: Path) -> None:
        self.cache, self.opened, self.path = found, opened, path
        self.key = measure.digest(7)
        self.sound = path.read_bytes()

    def is_hit(self, data: bytes) -> bool:
        """Look it up; all that a damaged file may do to a cache is checked here."""
        self.path.write_bytes(data)
        before, opened = self.cache.counts(), self.opened.times
        hit = self.cache.lookup(self.key)
        after = self.cache.counts()
        if hit is not None:
            assert hit.result == SMALL
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
        before = len(runs)
        assert measure(7) == SMALL
        assert len(runs) == before + 1
        assert measure(7) == SMALL
        assert len(runs) == before + 1
        report = self.cache.verify()
        assert report.ok, report
        assert report.incomplete == ()


@pytest.mark.parametrize("which", ["value", "call"])
class TestEveryFile:
    @pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
    def test_every_bit(self, stored: Cache, opened: Opened, which: str, step: int) -> None:
        """Whichever bit is flipped, it is a miss, unless it lies where the layout pads."""
        prober = Prober(stored, opened, sample(stored)[which])
        harmless = set()
        for bit in range(0, 8 * len(prober.sound), step):
            data = bytearray(prober.sound)
            data[bit // 8] ^= 1 << bit % 8
            if prober.is_hit(data):
                harmless.add(bit // 8)
        assert {prober.sound[position] for position in harmless} <= {0}
        assert len(harmless) < PADDING
        assert not harmless or max(harmless) - min(harmless) < PADDING

    def test_every_length(self, stored: Cache, opened: Opened, which: str) -> None:
        """So it is with a file that ends early, or goes on."""
        prober = Prober(stored, opened, sample(stored)[which])
        for length in range(len(prober.sound)):
            assert not prober.is_hit(prober.sound[:length]), length
        for more in (b"\0", b"x" * PADDING, prober.sound):
            assert not prober.is_hit(prober.sound + more)
        assert not prober.is_hit(bytes(len(prober.sound)))

    def test_it_heals(self, stored: Cache, opened: Opened, which: str) -> None:
        """A result that is computed again takes the place of what was damaged."""
        prober = Prober(stored, opened, sample(stored)[which])
        chance = random.Random(which)
        for _ in range(40):
            data = bytearray(prober.sound)
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            if not prober.is_hit(data):
                prober.heal()
        for _ in range(40):
            prober.is_hit(prober.sound[: chance.randrange(len(prober.sound))])
            prober.heal()


def test_a_large_buffer(stored: Cache, opened: Opened) -> None:
    """A flip anywhere in a large value is found before it is unpickled, and heals."""
    pytest.importorskip("numpy")
    measure("large")
    key, root = measure.digest("large"), sample(stored, "large")["value"].parents[1]
    files = [path for path in root.rglob("*") if path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)  # wherever the buffer itself is
    sound, chance = path.read_bytes(), random.Random(0)
    for turn in range(200):
        data = bytearray(sound)
        data[chance.randrange(len(data) // 2, len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data if turn % 2 else data[: chance.randrange(len(data))])
        before = opened.times
        assert stored.lookup(key) is None
        assert opened.times == before
        if turn % 20 == 0:
            assert measure("large").sum() == 4_999_950_000
            assert stored.verify().ok
            assert stored.lookup(key) is not None


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_every_bit_of_a_record_in_a_database(tmp_path: Path, step: int) -> None:
    """A record in a row is checked as one in a file is: whatever is flipped, it is a miss."""
    url = tmp_path / "calls.db"
    made = Cache(ValueFile(tmp_path / "values"), Sql(url))
    with made, cache(made), sqlite3.connect(url, isolation_level=None) as other:
        other.execute("PRAGMA synchronous = OFF")
        measure(7)
        key = measure.digest(7)
        find = "SELECT record FROM fleche_calls WHERE key = ?"
        sound = other.execute(find, (str(key),)).fetchone()[0]

        def change(data: bytes) -> None:
            other.execute("UPDATE fleche_calls SET record = ? WHERE key = ?", (data, str(key)))

        for bit in range(0, 8 * len(sound), step):
            data = bytearray(sound)
            data[bit // 8] ^= 1 << bit % 8
            change(bytes(data))
            assert made.lookup(key) is None
            with pytest.raises(CorruptParcel):
                made.lookup(key, strict=True)
        for length in range(len(sound)):
            change(sound[:length])
            assert made.lookup(key) is None
        assert measure(7) == SMALL
        assert made.verify().ok
        assert other.execute(find, (str(key),)).fetchone()[0] != sound[:-1]
    other.close()


@pytest.mark.parametrize("theirs", [None, "theirs"], ids=["unsigned", "foreign"])
def test_somebody_elses_record_in_a_database(tmp_path: Path, theirs: str | None) -> None:
    """A row that somebody slips in is a miss, and is replaced."""
    url, values = tmp_path / "calls.db", ValueFile(tmp_path / "values", secret_key="ours")
    with Cache(values, Sql(url, secret_key="ours")) as ours, cache(ours):
        measure(7)
        key = measure.digest(7)
        foreign = Sql(url, secret_key=theirs)
        foreign.put(key, measure.load(7).record)
        foreign.close()
        assert ours.lookup(key) is None
        with pytest.raises(SignatureError, match=f"calls.db: call {key[:12]}: "):
            ours.lookup(key, strict=True)
        assert ours.counts()["errors.signature"] == 2
        assert list(ours.query()) == []
        assert measure(7) == SMALL
        assert ours.lookup(key) is not None


@pytest.mark.parametrize("codec", ["zlib", "zstd"])
@pytest.mark.parametrize("size", [-5, -1, 3 << 30, 2**64 - 1])
def test_a_size_that_lies(tmp_path: Path, codec: str, size: int) -> None:
    """A parcel that claims an impossible size is damage, which verify() finds and removes."""
    if codec == "zstd":
        pytest.importorskip("zstandard")
    with Cache(ValueFile(tmp_path, compress=codec), CallFile(tmp_path)) as made:
        key = made.save_value(["text" * 1000])
        path = file_of(made, key, "value")
        sound = Parcel.from_bytes(path.read_bytes())
        section = msgspec.structs.replace(sound.head.stream, size=size)
        head = msgspec.structs.replace(sound.head, stream=section)
        path.write_bytes(assemble(head, [sound.stored(0)]).tobytes())
        with pytest.raises((CorruptParcel, KeyError)):
            made.load_value(key)
        report = made.verify()
        assert not report.ok
        made.verify(repair=True)
        assert not path.exists()
        assert made.verify().ok
        made.gc(grace=0)


class TestSignatures:
    """What is not signed by a known secret is refused before it is unpickled."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "cache"

    def opened_by(self, root: Path, secret: str | None) -> Cache:
        return Cache(ValueFile(root, secret_key=secret), CallFile(root, secret_key=secret))

    @pytest.mark.parametrize("theirs", [None, "theirs"], ids=["unsigned", "foreign"])
    @pytest.mark.parametrize("which", ["value", "call", "both"])
    def test_somebody_elses(
        self, root: Path, tmp_path: Path, opened: Opened, which: str, theirs: str | None
    ) -> None:
        """A value or a record that somebody slips in is a miss, and is replaced."""
        with self.opened_by(root, "ours") as ours, cache(ours):
            measure(7)
            for name, path in sample(ours).items():
                if which in (name, "both"):
                    path.unlink()
            foreign = self.opened_by(tmp_path / "foreign", theirs)
            with foreign, cache(foreign):
                measure(7)
                files = sample(foreign)
            for name, path in sample_paths(ours, files).items():
                if which in (name, "both"):
                    path.write_bytes(files[name].read_bytes())
            before = opened.times
            assert ours.lookup(measure.digest(7)) is None
            with pytest.raises(SignatureError):
                ours.lookup(measure.digest(7), strict=True)
            assert opened.times == before
            assert ours.counts()["errors.signature"] >= 1
            assert measure(7) == SMALL
            assert ours.lookup(measure.digest(7)) is not None

    def test_replayed(self, root: Path, opened: Opened) -> None:
        """A file that is signed, but for another key, does not pass for this one."""
        with self.opened_by(root, "ours") as ours:
            one = D(ours.save(call(x=1, result=["one"])))
            two = D(ours.save(call(x=2, result=["two"])))
            kinds = [("value", digest(["one"]), digest(["two"])), ("call", one, two)]
            for kind, source, target in kinds:
                path = file_of(ours, target, kind)
                sound = path.read_bytes()
                path.write_bytes(file_of(ours, source, kind).read_bytes())
                assert ours.lookup(two) is None
                with pytest.raises(CorruptParcel):
                    ours.lookup(two, strict=True)
                with pytest.raises(ParcelError):
                    _ = ours.load(two).result
                assert opened.times == 0
                path.write_bytes(sound)
            assert ours.load(two).result == ["two"]


def sample_paths(found: Cache, like: dict[str, Path]) -> dict[str, Path]:
    """Where ``found`` keeps the files that another cache keeps at ``like``."""
    root = Path(found.values.to_config()["root"])
    return {name: root / path.parent.name / path.name for name, path in like.items()}
