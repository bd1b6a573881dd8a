"""The least that a hit takes: what fleche promises, in a straight line, with the libraries it uses.

Behind each target that asks for more than Python may have to give stands a contender called
``bare``. It finds a row, checks it (XXH3), makes the record, and reads and checks the array; it
looks at no code, knows one cache and one kind of value, is for one function, makes no table of what
it has found, and answers one question at a time.

Run as a program with the path of a store, it answers over its standard input and output.
"""

from __future__ import annotations

import os
import pickle
import sqlite3
import struct
import sys
import threading
from pathlib import Path
from typing import IO, Any

from blake3 import blake3
from xxhash import xxh3_128_hexdigest

from fleche.call import Call, CallEntry, decode_entry, encode_entry
from fleche.parcel import allocate

__all__ = ["NAME", "NOTE", "BareStore", "ask", "decode_all"]

NAME = "bare"
NOTE = "the same checks and records in a straight line"

_ENTRY = "SELECT entry FROM entries WHERE key = ?"
_LENGTH = struct.Struct("<I")


class BareStore:
    """Entries in a table of SQLite, and arrays in files beside it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = str(directory)
        self._own = threading.local()
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, entry)")

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = self._own.connection = sqlite3.connect(f"{self._directory}/entries.db")
        return found

    def put(self, number: int, value: Any) -> str:
        """Store a number, or an array of float64; return the key."""
        key = _key_of(number)
        result = value
        if not isinstance(value, float):
            result = xxh3_128_hexdigest(value)
            Path(self._directory, key).write_bytes(value)
        metadata = {"runtime": {"started": "2025-06-01T12:00:00+00:00", "seconds": 0.5}}
        call = Call("f", {"number": number}, module="work", result=result, metadata=metadata)
        entry = encode_entry(key, CallEntry(call.to_record()))
        with self._connection() as connection:
            connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?)", (key, entry))
        return key

    def read(self, key: str) -> bytes:
        """Return an entry, unchecked."""
        found: bytes = self._connection().execute(_ENTRY, (key,)).fetchone()[0]
        return found

    def number(self, key: str, entry: bytes) -> float:
        """Return the number that an entry holds."""
        ref = decode_entry(key, entry).record.result
        return ref.literal  # type: ignore[union-attr, return-value]

    def array(self, number: int) -> Any:
        """Return the array that was stored for a number.

        Raises:
            ValueError: it is damaged.
        """
        import numpy as np

        key = _key_of(number)
        ref = decode_entry(key, self.read(key)).record.result
        descriptor = os.open(f"{self._directory}/{key}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            memory = allocate(os.fstat(descriptor).st_size)
            os.readv(descriptor, (memory,))
        finally:
            os.close(descriptor)
        if ref is None or xxh3_128_hexdigest(memory) != ref.literal:
            raise ValueError(f"{key}: damaged")
        return np.frombuffer(memory)


def _key_of(number: int) -> str:
    return blake3(pickle.dumps(("f", number), protocol=5)).hexdigest()


def decode_all(connection: sqlite3.Connection) -> list[Any]:
    """Return the records of all calls of a cache of type ``local``."""
    rows = connection.execute("SELECT key, entry FROM fleche_calls").fetchall()
    return [(key, decode_entry(key, entry).record) for key, entry in rows]


def ask(key: str, there: IO[bytes], back: IO[bytes]) -> bytes:
    """Return an entry that a store at the other end has."""
    question = key.encode()
    there.write(_LENGTH.pack(len(question)) + question)
    return _received(back)


def answer(store: BareStore, there: IO[bytes], back: IO[bytes]) -> None:
    """Answer until nothing more is asked."""
    while question := _received(there):
        found = store.read(question.decode())
        back.write(_LENGTH.pack(len(found)) + found)


def _received(stream: IO[bytes]) -> bytes:
    begun = b""
    while len(begun) < _LENGTH.size or len(begun) < _LENGTH.unpack_from(begun)[0] + _LENGTH.size:
        if not (more := stream.read(1 << 16)):
            return b""
        begun += more
    return begun[_LENGTH.size :]


if __name__ == "__main__":
    with open(0, "rb", buffering=0) as questions, open(1, "wb", buffering=0) as answers:
        answer(BareStore(Path(sys.argv[1])), questions, answers)
