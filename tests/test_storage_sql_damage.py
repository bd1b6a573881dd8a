"""A damaged database file: never a wrong word, and what cannot be used is said."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleche.call import CallEntry, QueryCall, encode_entry
from fleche.digest import digest
from fleche.errors import ParcelError, StorageError
from fleche.storage import CallStorage
from fleche.storage.local import CallLocal
from fleche.storage.sql import Sql, _sqlite
from fleche.testing.corpus import a_pin, an_entry

PAGE = 4096
SLOW = [pytest.mark.slow, pytest.mark.timeout(1800)]


def made() -> dict[str, CallEntry]:
    """Three calls and a pin."""
    return {
        digest("seven"): an_entry("measure", {"energy": -1.25, "steps": [1, 2]}, x=7.0, label="a"),
        digest("small"): an_entry("measure", -2.5, x=-2.5, label="fcc"),
        digest("other"): an_entry("measure", {"energy": 3.5}, x=7.0, label="bcc"),
        digest("pin"): a_pin(),
    }


class Patient:
    """A database file with three calls and a pin.

    Attributes:
        sound: the bytes of the file as it was closed.
        hurt: how often a look at it failed, and how often it found nothing.
    """

    def __init__(self, root: Path, kind: str) -> None:
        self.root, self.kind = root, kind
        self.path = root / ("fleche.db" if kind == "local" else "calls.db")
        self.entries = made()
        self.encoded = {key: encode_entry(key, each) for key, each in self.entries.items()}
        storage = self.open()
        storage.put_many(list(self.entries.items()))
        list(storage.holders(""))  # writes what calls are searched by
        storage.close()
        self.key = digest("seven")
        self.sound = self.path.read_bytes()
        self.hurt = 0

    def open(self) -> CallStorage:
        return CallLocal(self.root) if self.kind == "local" else Sql(self.path)

    def survives(self, data: bytes) -> None:
        """Put ``data`` in place of the file and do to it what people do."""
        for name in ("", "-wal", "-shm", "-journal"):
            self.path.with_name(f"{self.path.name}{name}").unlink(missing_ok=True)
        self.path.write_bytes(data)
        storage = self.open()
        try:
            for look in (self.look_up, self.query, self.list, self.remove, self.store):
                said = self.complaint(look, storage)
                assert said is None or (
                    str(self.path) in said and said.endswith((")", "another database"))
                ), said
        finally:
            storage.close()

    def complaint(self, look: Callable[[Any], None], storage: CallStorage) -> str | None:
        """Look, and return what is said if the database cannot be used."""
        try:
            look(storage)
        except StorageError as error:
            self.hurt += 1
            return str(error)
        return None

    def look_up(self, storage: CallStorage) -> None:
        """What was stored, an error in its place, or nothing."""
        found = list(storage.get_many([self.key]))
        if not found or isinstance(found[0][1], ParcelError):
            self.hurt += 1
            return
        ((key, entry),) = found
        assert encode_entry(key, entry) == self.encoded[self.key]

    def query(self, storage: CallStorage) -> None:
        """What is found is right."""
        for template in (
            QueryCall(),
            QueryCall.of(arguments={"x": 7.0}),
            QueryCall.of(name="*measure"),
            QueryCall.of(name="measure", arguments={"label": "bcc"}),
        ):
            for key, entry in storage.query(template):
                assert entry is not None
                assert encode_entry(key, entry) == self.encoded[key]
                assert template.matches(entry.record)

    def list(self, storage: CallStorage) -> None:
        """It works, or says why not."""
        list(storage.entries())
        list(storage.entries("ab"))
        list(storage.holders(""))

    def remove(self, storage: CallStorage) -> None:
        storage.delete_many([digest("other")])
        storage.delete_older({digest("pin"): 1e12})

    def store(self, storage: CallStorage) -> None:
        """What is stored now is there now."""
        key, entry = digest("new"), an_entry("measure", [1], x=1.0)
        storage.put_many([(key, entry)])
        found = dict(storage.get_many([key]))
        assert encode_entry(key, found[key]) == encode_entry(key, entry)  # type: ignore[arg-type]


@pytest.fixture(params=["sqlite", "local"])
def patient(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Patient:
    caplog.set_level(logging.CRITICAL, "fleche")
    real = _sqlite.prepare

    def prepare(connection: Any) -> None:
        real(connection)
        connection.execute("PRAGMA synchronous = OFF")  # thousands of times to wait for a disk

    monkeypatch.setattr(_sqlite, "prepare", prepare)
    return Patient(tmp_path, request.param)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def row_of(patient: Patient) -> range:
    """The bits of a row: its header, the columns, the entry."""
    data = patient.encoded[patient.key]
    begin = patient.sound.index(data)
    assert patient.sound.count(data) == 1
    first = patient.sound.rindex(str(patient.key).encode(), 0, begin)
    return range(8 * (first - 40), 8 * (begin + len(data)))


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
