"""A fuzz target for the reader of parcels and entries; `scripts/fuzz` runs it.

Each input is read as it is, and once more behind a head whose checksum is right, so that what the
head says is looked at, too. Damage is told by one kind of error, at once, and in little memory.
A pickle that the fuzzer invents finds no class or function but those of the sound parcels.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import atheris
from xxhash import xxh3_128_digest

with atheris.instrument_imports(include=["fleche"]):
    from fleche.call import CallEntry, CallRecord, decode_entry, encode_entry
    from fleche.digest import Address, digest
    from fleche.errors import MissingExtra, ParcelError, UnpackError
    from fleche.parcel import (
        MAGIC,
        VERSION,
        IncomingParcel,
        Packing,
        Parcel,
        StreamSource,
        read_bytes,
        receive,
        unpack,
        verify,
    )

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "build" / "fuzz"
PROLOGUE = struct.Struct("<8sHHIQ8x")
KEY = digest("fuzz")
MIB = 1 << 20
LIMITS = (
    "-max_len=200000",
    "-timeout=10",
    # the peak of a process is never less than that of the one that has started it
    f"-rss_limit_mb={1024 + getrusage(RUSAGE_SELF).ru_maxrss // 1024}",
    "-malloc_limit_mb=128",
)


def main() -> None:
    """Run for so many seconds as the argument says, with the corpus of another directory, if any.

    Raises:
        SystemExit: something was found, or the arguments are wrong.
    """
    given = sys.argv[1:]
    seconds, corpus = (*given, *("60", str(CORPUS))[len(given) :])[:2]
    if len(given) > 2 or not seconds.isdecimal():
        raise SystemExit("usage: scripts/fuzz [seconds [directory]]")
    Path(corpus).mkdir(parents=True, exist_ok=True)
    finds = _Finds()
    sys.addaudithook(finds)
    for data in seeds():
        read(data)
        (Path(corpus) / f"seed-{zlib.crc32(data):08x}").write_bytes(data)
    finds.are_all = True
    arguments = [sys.argv[0], f"-max_total_time={seconds}", *LIMITS]
    atheris.Setup([*arguments, f"-artifact_prefix={corpus}/failed-", corpus], read)
    atheris.Fuzz()


class _Finds:
    """What pickles may find by name: what those of the seeds have found."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()
        self.are_all = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "pickle.find_class":
            return
        if not self.are_all:
            self._known.add(arguments)
        elif arguments not in self._known:
            raise ValueError(f"{arguments} is not opened here")


def read(data: bytes) -> None:
    """Do with ``data`` everything that is done with bytes from a disk or a wire."""
    for each in (data, resealed(data)):
        for use in (as_a_value, as_bytes, as_it_arrives, as_an_upload):
            with suppress(ParcelError, UnpackError, MissingExtra):
                use(each)
    for each in (data, resealed_entry(data)):
        with suppress(ParcelError):
            entry = decode_entry(KEY, each)
            for address in entry.parcels:
                verify(entry.parcel(address) or Parcel.from_bytes(b""))


def as_a_value(data: bytes) -> None:
    unpack(Parcel.from_bytes(bytearray(data), owned=True))


def as_bytes(data: bytes) -> None:
    verify(Parcel.from_bytes(data))
    read_bytes(Parcel.from_bytes(data), "kind")


def as_it_arrives(data: bytes) -> None:
    pieces = [data[start : start + 1000] for start in range(0, len(data), 1000)]
    for _ in IncomingParcel(StreamSource(len(data), iter(pieces))).chunks():
        pass


def as_an_upload(data: bytes) -> None:
    unpack(receive(memoryview(bytearray(data)), [data]))


def resealed(data: bytes) -> bytes:
    """Return ``data`` with the prologue and checksum that its head would have."""
    if len(data) < PROLOGUE.size:
        return data
    length = min(struct.unpack_from("<I", data, 12)[0], len(data) - PROLOGUE.size)
    start = PROLOGUE.size + length
    total = max(len(data), start + 16)
    covered = PROLOGUE.pack(MAGIC, VERSION, 0, length, total) + data[PROLOGUE.size : start]
    return (covered + xxh3_128_digest(covered) + data[start + 16 :])[:total]


def resealed_entry(data: bytes) -> bytes:
    """Return ``data`` as an entry of which the checksum is right."""
    head, body = data[:16].ljust(16, b"\0"), data[32:]
    return head + xxh3_128_digest(b"".join((KEY.encode(), head, body))) + body


def seeds() -> Iterator[bytes]:
    """Yield sound parcels and entries, small and with parts of every kind."""
    recorded = (ROOT / "tests" / "golden" / "wire-1.up").read_bytes()
    at = recorded.find(MAGIC)
    while at >= 0:
        total = PROLOGUE.unpack_from(recorded, at)[4]
        if total < MIB:
            yield recorded[at : at + total]
        at = recorded.find(MAGIC, at + 1)
    values = [None, {"a": [1, 2.5, "text"]}, bytes(70_000), [b"x" * 300, {1, 2}], Path]
    with suppress(ImportError):
        import numpy as np

        values += [np.arange(10_000.0), {"a": np.zeros((3, 4), order="F")}, np.float32(1)]
    for compression in (None, "zlib", "zstd"):
        for value in values:
            parcel = Packing(compression=compression).pack(value, digest(value))
            data = parcel.tobytes()
            yield data
            record = CallRecord(name="f").with_metadata({"Notes": {"x": [1, "two"]}})
            if len(data) < 10_000:
                at_ = Address.of(digest(value), parcel.variant)
                yield encode_entry(KEY, CallEntry(record, {at_: data}))


if __name__ == "__main__":
    main()
