"""A damaged database file under a whole cache: never a wrong word, and functions run on."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleche import Runtime, cache, fleche
from fleche.caches import Cache
from fleche.call import encode_record
from fleche.digest import digest
from fleche.errors import StorageError
from fleche.storage import Sql, ValueFile
from fleche.storage.sql import sqlite
from fleche.table import Row
from fleche.testing.corpus import a_record

pytestmark = pytest.mark.filterwarnings("ignore::fleche.decorator.FlecheWarning")

SMALL = {"energy": -1.25, "label": "fcc", "steps": [1, 2, 3]}
PAGE = 4096
SLOW = [pytest.mark.slow, pytest.mark.timeout(1800)]


@fleche(meta=Runtime())
def measure(x: float, label: str = "fcc") -> Any:
    """A result that its record shows, or one that it does not."""
    return x if x < 0 else {**SMALL, "label": label}


class Patient:
    """A database file with three calls and a lease, and the cache above it.

    Attributes:
        sound: the bytes of the file as it was closed.
        hurt: how often a look at it failed, and how often it found nothing.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / "calls.db"
        self.values = ValueFile(root / "values")
        with self.open() as made, cache(made):
            measure(7.0)
            measure(-2.5)
            measure(7.0, "bcc")
            made.calls.put(digest("lease"), a_record("running", x=1).replace(result=None))
            self.records = {call.key: call.record for call in made.query()}
        self.rows = {key: Row.of(key, record) for key, record in self.records.items()}
        self.encoded = {key: encode_record(record) for key, record in self.records.items()}
        self.key = measure.digest(7.0)
        self.sound = self.path.read_bytes()
        self.hurt = 0

    def open(self) -> Cache:
        return Cache(self.values, Sql(self.path))

    def survives(self, data: bytes) -> None:
        """Put ``data`` in place of the file and do to it what people do."""
        for name in ("", "-wal", "-shm", "-journal"):
            self.path.with_name(f"calls.db{name}").unlink(missing_ok=True)
        self.path.write_bytes(data)
        with self.open() as made, cache(made):
            for look in (self.look_up, self.query, self.keep_house):
                said = self.complaint(look, made)
                assert said is None or (
                    str(self.path) in said and said.endswith((")", "another database"))
                ), said
            assert measure(7.0) == SMALL
            assert measure(-2.5) == -2.5

    def complaint(self, look: Callable[[Cache], None], made: Cache) -> str | None:
        """Look, and return what is said if the database cannot be used."""
        try:
            look(made)
        except StorageError as error:
            self.hurt += 1
            return str(error)
        return None

    def look_up(self, made: Cache) -> None:
        """A right result, or a counted miss."""
        hit = made.lookup(self.key)
        if hit is None:
            assert made.counts()["misses"] == 1
            self.hurt += 1
            return
        assert hit.result == SMALL
        assert encode_record(hit.record) == self.encoded[self.key]

    def query(self, made: Cache) -> None:
        """What is found is right."""
        for call in made.query():
            assert encode_record(call.record) == self.encoded[call.key]
        for found in (made.query(arguments={"x": 7.0}), made.query(name="*measure")):
            for row in found.table():
                assert Row.of(row.key, self.records[row.key]).cells() == self.rows[row.key].cells()
                assert row.arguments == self.rows[row.key].arguments
                assert row.result == self.rows[row.key].result
        list(made.calls.entries())

    def keep_house(self, made: Cache) -> None:
        """It works, or says why not."""
        made.verify()
        made.gc(dry_run=True)


@pytest.fixture
def patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Patient:
    caplog.set_level(logging.CRITICAL, "fleche")
    real = sqlite._use_wal

    def use_wal(connection: Any) -> None:
        real(connection)
        connection.execute("PRAGMA synchronous = OFF")  # thousands of times to wait for a disk

    monkeypatch.setattr(sqlite, "_use_wal", use_wal)
    return Patient(tmp_path)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def row_of(patient: Patient) -> range:
    """The bits of a row: its header, the columns, the record, the seal."""
    record = patient.encoded[patient.key]
    begin = patient.sound.index(record)
    assert patient.sound.count(record) == 1
    first = patient.sound.rindex(str(patient.key).encode(), 0, begin)
    return range(8 * (first - 40), 8 * (begin + len(record) + 32))


def overwritten(data: bytes, chance: random.Random, places: list[int]) -> bytes:
    changed = bytearray(data)
    for place in places:
        changed[place] = chance.randrange(256)
    return bytes(changed)


STEPS = [pytest.param(61, id="some"), pytest.param(1, id="all", marks=SLOW)]
TRIALS = [pytest.param(150, id="some"), pytest.param(5000, id="many", marks=SLOW)]


@pytest.mark.parametrize("step", STEPS)
def test_every_bit_of_a_row(patient: Patient, step: int) -> None:
    """Wherever in a row a bit is flipped, and many places are only searched by."""
    for bit in row_of(patient)[::step]:
        patient.survives(flipped(patient.sound, bit))
    assert patient.hurt > 10


@pytest.mark.parametrize("trials", TRIALS)
def test_bits_anywhere(patient: Patient, trials: int) -> None:
    """Flips anywhere: in the header, the index pages, the catalogue of tables."""
    chance = random.Random(trials)
    for _ in range(trials):
        patient.survives(flipped(patient.sound, chance.randrange(8 * len(patient.sound))))
    assert patient.hurt > 10


@pytest.mark.parametrize("trials", TRIALS)
def test_the_beginnings_of_pages(patient: Patient, trials: int) -> None:
    """There it says where the rows are; what is read then may be anything."""
    chance = random.Random(trials)
    for _ in range(trials):
        page = PAGE * chance.randrange(len(patient.sound) // PAGE)
        places = [page + chance.randrange(130 if page else 240)]
        patient.survives(overwritten(patient.sound, chance, places))
    assert patient.hurt > 10


@pytest.mark.parametrize("trials", TRIALS)
def test_several_bytes(patient: Patient, trials: int) -> None:
    chance = random.Random(trials)
    for _ in range(trials):
        places = [chance.randrange(len(patient.sound)) for _ in range(chance.randrange(1, 6))]
        patient.survives(overwritten(patient.sound, chance, places))
    assert patient.hurt > 10


@pytest.mark.parametrize("step", [pytest.param(1021, id="some"), pytest.param(97, marks=SLOW)])
def test_every_length(patient: Patient, step: int) -> None:
    """A file that ends early, anywhere; an empty one is a new one."""
    for length in range(0, len(patient.sound), step):
        patient.survives(patient.sound[:length])
    assert patient.hurt > 10


@pytest.mark.parametrize("step", [pytest.param(7, id="some"), pytest.param(1, marks=SLOW)])
def test_pages_in_each_others_place(patient: Patient, step: int) -> None:
    """As a disk does that writes to the wrong block."""
    pages = range(0, len(patient.sound), PAGE)
    pairs = [(here, there) for here in pages for there in pages if here != there]
    for here, there in pairs[::step]:
        data = bytearray(patient.sound)
        data[here : here + PAGE] = patient.sound[there : there + PAGE]
        patient.survives(bytes(data))
    assert patient.hurt > 10
