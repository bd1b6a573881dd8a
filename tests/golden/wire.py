"""A session on the wire, recorded byte for byte, so that the protocol never changes by accident.

`python -m tests.golden.wire` records it anew, into `wire-N.up`, `wire-N.down` (what client and
server say) and `wire-N.json` (what the operations return) beside this file. That is right only
when protocol version N has never been released, or when the change is one that every released
client and server of version N understands.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from fleche.caches import BaseCache, Cache
from fleche.call import CallEntry, CallRecord, Condition, QueryCall, ValueRef, encode_record
from fleche.digest import Address, Digest, digest
from fleche.parcel import Parcel, pack_bytes
from fleche.remote import PipeChannel, RemoteCache, serve
from fleche.remote._frames import Flag, Frame, FrameDecoder, Kind, encode_frame
from fleche.remote._protocol import PROTOCOL
from fleche.storage import CallMemory, ValueMemory
from tests.helpers.backends import (
    load_parcel,
    load_parcels,
    load_record,
    save_parcel,
    save_parcels,
    save_record,
    save_records,
)
from tests.helpers.peers import seal
from tests.helpers.taps import TappedChannel

__all__ = [
    "CODA",
    "INFO",
    "OPERATIONS",
    "Transcript",
    "by_exchange",
    "content",
    "make_served",
    "normal_frame",
    "run",
]

HERE = Path(__file__).parent
LONG_NAME = Digest("ab" * 32)
_NINE = pack_bytes(b"\x80\x05K\x09.", "pickle", digest=digest(9)).tobytes()
_FOUR = pack_bytes(b"\x80\x05K\x04.", "pickle", digest=digest(4)).tobytes()
_LONG = pack_bytes(b"\x80\x05C" + bytes(5_000), "pickle", digest=LONG_NAME).tobytes()
_BYTES = {digest(4): _FOUR, digest(9): _NINE, LONG_NAME: _LONG}
ABSENT = Digest("0" * 64)

INFO = {
    "cache": {"type": "memory"},
    "cache_name": None,
    "fleche_version": "0.1.0",
    "cloudpickle_version": "3.0.0",
    "cwd": "/home/marvin",
    "hostname": "bigpc",
    "python": "3.11.0",
    "pid": 4242,
}
"""What differs from one server to the next, made the same."""


def _parcel(value: Digest) -> Parcel:
    return Parcel.from_bytes(_BYTES[value])


def _address(value: Digest) -> Address:
    return Address.of(value, _parcel(value).variant)


def _record(x: int, result: Digest) -> CallRecord:
    return CallRecord(
        name="square",
        module="numbers",
        arguments={"x": ValueRef(digest(x), literal=x)},
        result=ValueRef(result, _parcel(result).variant, len(_BYTES[result])),
    ).with_metadata({"runtime": {"seconds": 0.5}})


TWO = _record(2, digest(4))
THREE = _record(3, digest(9))
TEMPLATE = QueryCall(name="sq*", arguments={"x": Condition("=", 3)})
WIDE = _record(5, LONG_NAME)
WITH_RESULT = CallEntry(TWO, {_address(digest(4)): _FOUR})


def make_served() -> BaseCache:
    """Return the cache that is served in the session."""
    cache = Cache(ValueMemory(), CallMemory())
    for name in _BYTES:
        save_parcel(cache, name, _parcel(name))
    for record in (THREE, WIDE):
        save_record(cache, record.key, record)
    return cache


def _short(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _loaded(remote: RemoteCache, *keys: Digest, inline: int) -> list[Any]:
    """What there is of calls, in the order of their keys: each with the results that came along."""
    found = []
    for key, entry in remote.backend.load(keys, inline=inline):
        assert isinstance(entry, CallEntry)
        parcels = {str(at): _short(data) for at, data in entry.parcels.items()}
        found.append((str(key), _short(encode_record(entry.record)), parcels))
    return sorted(found)


OPERATIONS: dict[str, Callable[[RemoteCache], Any]] = {
    "info": lambda c: sorted(c.info()),
    "load a record": lambda c: _loaded(c, THREE.key, inline=0),
    "load with a small result": lambda c: _loaded(c, THREE.key, inline=1 << 20),
    "load with a large result": lambda c: _loaded(c, WIDE.key, inline=100),
    "load what is not there": lambda c: load_record(c, ABSENT),
    "load many": lambda c: _loaded(c, THREE.key, ABSENT, WIDE.key, inline=1 << 20),
    "load a parcel": lambda c: _short(load_parcel(c, LONG_NAME).tobytes()),
    "load a parcel of one form": lambda c: [
        _short(parcel.tobytes())
        for _, parcel in c.backend.load_values([_address(digest(4))])
        if isinstance(parcel, Parcel)
    ],
    "load a value": lambda c: c.load_value(digest(9)),
    "load a parcel that is not there": lambda c: load_parcel(c, ABSENT),
    "load parcels": lambda c: [
        (key, _short(parcel.tobytes()))
        for key, parcel in load_parcels(c, [digest(4), ABSENT, digest(9)])
    ],
    "contains": lambda c: c.backend.contains(
        [THREE.key, ABSENT, Address.of(digest(9)), _address(digest(9)), Address.of(ABSENT)]
    ),
    "lacking": lambda c: c.backend.lacking([Address.of(digest(1)), _address(digest(4))]),
    "lacking, and keep": lambda c: c.backend.lacking([_address(digest(4))], keep=True),
    "expand": lambda c: c.expand(THREE.key[:10]),
    "expand what is not there": lambda c: c.expand(ABSENT),
    "shrink": lambda c: c.shrink(THREE.key, WIDE.key),
    "shrink what is not there": lambda c: c.backend.shrink([ABSENT]),
    "query": lambda c: [call.key for call in c.query(TEMPLATE)],
    "query for nothing": lambda c: [call.key for call in c.query(name="cube")],
    "query for keys": lambda c: [key for key, _ in c.backend.query(QueryCall(), keys_only=True)],
    "save a parcel": lambda c: save_parcel(c, LONG_NAME, _parcel(LONG_NAME)),
    "save parcels": lambda c: save_parcels(
        c, [(name, _parcel(name)) for name in (digest(4), digest(9))]
    ),
    "save a record": lambda c: save_record(c, TWO.key, TWO),
    "save records": lambda c: save_records(c, {TWO.key: TWO, THREE.key: THREE}),
    "save with a result": lambda c: c.backend.save({TWO.key: WITH_RESULT}),
    "save all at once": lambda c: c.backend.save(
        {WIDE.key: CallEntry(WIDE)}, [(_address(LONG_NAME), _parcel(LONG_NAME))], unpin=[ABSENT]
    ),
    "evict": lambda c: c.evict(THREE.key),
    "evict what is not there": lambda c: c.evict(ABSENT),
    "evict values": lambda c: c.backend.evict([Address.of(digest(9)), _address(digest(9))]),
    "count": lambda c: c.stats(),
    "verify": lambda c: c.verify(),
    "collect garbage": lambda c: c.gc(0, dry_run=True),
}


def run(operation: Callable[[RemoteCache], Any], remote: RemoteCache) -> str:
    """Return what an operation returns, or the error it raises, as text."""
    try:
        return repr(operation(remote))
    except Exception as error:  # noqa: BLE001 (an error is an answer too)
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


CODA = (
    Frame(Kind.MESSAGE, 1, Flag.END, b"\x81\xa2op\xa7nothing"),
    Frame(Kind.PING, 0, 0, b"?"),
)
"""What no ordinary client says: an unknown request, a ping."""


class Transcript:
    """What client and server said: a line of greeting each, and frames."""

    def __init__(self, version: int = PROTOCOL) -> None:
        """Read the transcript of protocol `version`."""
        self.up_line, self.up = _split((HERE / f"wire-{version}.up").read_bytes(), b"")
        self.down_line, self.down = _split((HERE / f"wire-{version}.down").read_bytes(), b"\n")
        self.answers: dict[str, str] = json.loads((HERE / f"wire-{version}.json").read_text())


def _split(data: bytes, before: bytes) -> tuple[bytes, bytes]:
    assert data.startswith(before)
    line, _, frames = data[len(before) :].partition(b"\n")
    return line, frames


def by_exchange(data: bytes) -> dict[int, list[Frame]]:
    """Return the frames of each exchange, without credits, which come when they come."""
    found: dict[int, list[Frame]] = {}
    for frame in FrameDecoder().feed(data):
        if frame.kind is not Kind.CREDIT:
            plain = frame._replace(payload=bytes(frame.payload))
            found.setdefault(frame.stream_id, []).append(plain)
    return found


def content(frames: list[Frame]) -> list[tuple[str, Any]]:
    """Return what `frames` of one exchange say, however messages and data are cut."""
    found: list[tuple[str, Any]] = []
    more = False
    for frame in frames:
        goes_on = more or (frame.kind is Kind.DATA and bool(found) and found[-1][0] == "DATA")
        if goes_on and frame.payload:
            found[-1] = (frame.kind.name, found[-1][1] + bytes(frame.payload))
        elif frame.payload or frame.kind is Kind.CANCEL:
            found.append((frame.kind.name, bytes(frame.payload)))
        more = bool(frame.flags & Flag.MORE)
    if frames and frames[-1].end:
        found.append(("END", b""))
    return found


def normal_frame(frame: Frame) -> Frame:
    """Return a frame; if it tells the server's info, with that of a normal server."""
    if frame.kind is Kind.MESSAGE:
        body = msgspec.msgpack.decode(frame.payload)
        if body["op"] == "info_answer":
            told = {**body, "info": {**body["info"], **INFO}}
            return frame._replace(payload=msgspec.msgpack.encode(told))
    return frame


def _normal_line(line: bytes, **changes: Any) -> bytes:
    word, _, _, body = line.split(b" ", 3)
    said = {**json.loads(body), "version": "0.1.0", **changes}
    text = json.dumps(said, separators=(",", ":")).encode()
    return word + b" " + b"0" * 32 + b" " + seal(text)


def _normal_frames(data: bytes) -> Iterator[bytes]:
    for frames in by_exchange(data).values():
        for frame in frames:
            yield encode_frame(normal_frame(frame))


def record() -> None:
    """Run the session and write it down."""
    served = make_served()
    tap = TappedChannel(PipeChannel(lambda i, o: serve(i, o, served)))
    with RemoteCache(tap, timeout=20, compression="none") as remote:
        answers = {name: run(operation, remote) for name, operation in OPERATIONS.items()}
    up_line, up = _split(tap.sent, b"")
    down_line, down = _split(tap.received, b"\n")
    up_line = _normal_line(up_line, features=["zlib", "compress="])
    info = {**json.loads(down_line.split(b" ", 3)[3])["info"], **INFO}
    down_line = _normal_line(down_line, features=["zlib"], info=info)
    name = HERE / f"wire-{PROTOCOL}"
    name.with_suffix(".up").write_bytes(up_line + b"\n" + b"".join(_normal_frames(up)))
    name.with_suffix(".down").write_bytes(
        b"\n" + down_line + b"\n" + b"".join(_normal_frames(down))
    )
    name.with_suffix(".json").write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    record()
