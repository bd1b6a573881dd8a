"""The memory of a server under a client that keeps no rules: little, whatever comes.

Each test sends what would take hundreds of MiB or some GiB if it was believed, to a server in a
process of its own, and looks at the most that this process has ever held.
"""

from __future__ import annotations

import itertools
import os
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleche.caches import BaseCache, Verify
from fleche.call import CallEntry, CallRecord, QueryCall, ValueRef, encode_record
from fleche.config import cache_from_config
from fleche.digest import Address, digest
from fleche.errors import Rejected
from fleche.parcel import hash_bytes, pack, pack_buffer, zstd_module
from fleche.parcel._layout import assemble
from fleche.remote import PipeChannel, RemoteCache, serve
from fleche.remote import _messages as m
from fleche.remote._frames import Flag, Frame, Kind
from tests.helpers.backends import save_parcel
from tests.helpers.caches import cache_factory
from tests.helpers.leaks import check_leaks
from tests.helpers.peers import Wire, message, raw_client
from tests.helpers.processes import rss
from tests.helpers.sweeps import swept

MIB = 1 << 20
KEY = "ab" * 32
ZEROS = zlib.compress(bytes(MIB), 9)
READ_ONLY = ("--read-only", "--no-unpickle")
MANY = (2).__lt__
ARGUMENTS = swept([pytest.param(READ_ONLY), pytest.param(())], lambda case: case.values != ((),))

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="no way to see the memory of a process"
)


@contextmanager
def _little_memory(
    tmp_path: Path,
    *arguments: str,
    most: int = 128 * MIB,
    store: tuple[str, Path | str] = ("cloudpickle", "store"),
) -> Iterator[Wire]:
    """A greeted client of a server whose memory may not grow by more than `most`.

    The server may end the connection.
    """
    (tmp_path / "fleche.toml").write_text(
        '[default]\ncache = "c"\n[c]\ntemplate = "{}"\nroot = "{}"\n'.format(*store)
    )
    command = [sys.executable, "-m", "fleche", "remote", "--serve", *arguments]
    with check_leaks(), raw_client(command, tmp_path) as wire:
        wire.write(message(1, m.Info()))
        while (frame := wire.read()) is not None and not frame.end:
            pass
        idle = rss(wire.pid, peak=True)
        with suppress(OSError):
            yield wire
        peak = _settled(wire)
        assert peak - idle < most, f"{(peak - idle) >> 20} MiB"


def _settled(wire: Wire) -> int:
    """Return the most memory that the server has held, when it is done with what came."""
    peak, used = 0, -1.0
    while not wire.over.wait(0.3):
        status = Path(f"/proc/{wire.pid}/stat").read_text().rpartition(")")[2].split()
        peak, before, used = max(peak, rss(wire.pid, peak=True)), used, sum(map(int, status[11:13]))
        if used == before:
            break
    return peak


def _zeros(stream: int, *, kind: Kind = Kind.DATA, flags: Flag = Flag.NONE) -> Frame:
    return Frame(kind, stream, flags | Flag.ZLIB, ZEROS)


def _upload(stream: int, size: int = 1 << 40) -> Frame:
    return message(stream, m.Save(parcels=[(KEY, size)]), end=False)


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_compressed_data(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A window counts bytes as they are after decompression."""
    with _little_memory(tmp_path, *arguments) as wire:
        for stream in range(2, 60):
            wire.write(_upload(stream), *[_zeros(stream)] * 15)


@pytest.mark.parametrize("streams", swept([1, 60], MANY))
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_heads(tmp_path: Path, arguments: tuple[str, ...], streams: int) -> None:
    """The head of a parcel is not collected beyond what a head may be, nor if it is in vain."""
    prologue = struct.pack("<8sHHIQ8x", b"\x89fleche\n", 1, 0, 255 * MIB, 1 << 40)
    with _little_memory(tmp_path, *arguments) as wire:
        for stream in range(2, 2 + streams):
            wire.write(_upload(stream), Frame(Kind.DATA, stream, 0, prologue))
            for _ in range(15 if streams > 1 else 250):
                wire.write(_zeros(stream))
                if streams == 1:
                    time.sleep(0.002)  # so that there is credit, as for a client that keeps rules


@pytest.mark.parametrize("streams", swept([2, 256], MANY))
def test_messages_without_an_end(tmp_path: Path, streams: int) -> None:
    """Messages that go on and on do not pile up."""
    with _little_memory(tmp_path, *READ_ONLY) as wire:
        for stream in range(2, 2 + streams):
            wire.write(*[_zeros(stream, kind=Kind.MESSAGE, flags=Flag.MORE)] * 63)


def test_first_halves_of_messages(tmp_path: Path) -> None:
    """Nor do those that stay below every bound."""
    with _little_memory(tmp_path, *READ_ONLY) as wire:
        for stream in range(2, 60):
            wire.write(*[_zeros(stream, kind=Kind.MESSAGE, flags=Flag.MORE)] * 7)


@pytest.mark.parametrize("op", ["contains", "load", "lacking", "nothing"])
def test_long_lists(tmp_path: Path, op: str) -> None:
    """A list is as long as it says, and refused before there is anything of it."""
    count = 13_000_000
    field = {"load": b"\xa4keys", "contains": b"\xa4keys"}.get(op, b"\xa9addresses")
    begin = b"\x82\xa2op" + msgspec.msgpack.encode(op) + field + b"\xdd" + struct.pack(">I", count)
    body = memoryview(begin + b"\xa4abcd" * count)
    with _little_memory(tmp_path, *READ_ONLY) as wire:
        for start in range(0, len(body), MIB):
            piece = zlib.compress(body[start : start + MIB], 1)
            flags = Flag.ZLIB | (Flag.MORE if start + MIB < len(body) else Flag.END)
            wire.write(Frame(Kind.MESSAGE, 2, flags, piece))


def _nested(items: int) -> Any:
    return {"op": "query", "template": {"arguments": {str(i): ["=", 0] for i in range(items)}}}


BOMBS: dict[str, Callable[[], bytes]] = {
    "empty lists": lambda: (
        b"\x82\xa2op\xa5query\xa8template\x81\xa4name\xdd\x00\x70\x00\x00" + b"\x90" * 0x700000
    ),
    "conditions": lambda: msgspec.msgpack.encode(_nested(700_000)),
    "choices": lambda: msgspec.msgpack.encode(
        {"op": "query", "template": {"result": ["in", [0] * 7_000_000]}}
    ),
}


@pytest.mark.parametrize(
    ("bomb", "streams"),
    swept(
        [*itertools.product(BOMBS, (1, 20, 60)), ("choices", 4)],  # of which 20 take ten seconds
        lambda case: case[1] == (4 if case[0] == "choices" else 20),
    ),
)
def test_small_bytes_that_become_large_objects(tmp_path: Path, bomb: str, streams: int) -> None:
    """What a message holds is counted before it is decoded."""
    body = BOMBS[bomb]()
    with _little_memory(tmp_path, *READ_ONLY) as wire:
        for stream in range(2, 2 + streams):
            for start in range(0, len(body), MIB):
                flags = Flag.MORE if start + MIB < len(body) else Flag.END
                piece = zlib.compress(body[start : start + MIB], 1)
                wire.write(Frame(Kind.MESSAGE, stream, Flag.ZLIB | flags, piece))


@pytest.mark.parametrize("streams", swept([2, 18], lambda streams: streams == 2))
def test_records_that_become_large_objects(tmp_path: Path, streams: int) -> None:
    """What records hold is counted before they are decoded."""
    note = CallRecord(name="f").with_metadata({"notes": {"x": "@"}})
    record = encode_record(note).replace(b"\xa1@", b"\xdd\x00\x00\x20\x00" + b"\x90" * 0x2000)
    request = m.Save([m.WireEntry(str(note.key), record)] * 900)
    body = m.encode(request)
    with _little_memory(tmp_path) as wire:
        for stream in range(2, 2 + streams):
            for start in range(0, len(body), MIB):
                flags = Flag.MORE if start + MIB < len(body) else Flag.END
                piece = zlib.compress(body[start : start + MIB], 1)
                wire.write(Frame(Kind.MESSAGE, stream, Flag.ZLIB | flags, piece))


@pytest.mark.parametrize("size", [64 * MIB, MIB - 1024])
def test_answers_that_are_not_read(tmp_path: Path, size: int) -> None:
    """However many values are asked for at once, little of them is in memory."""
    value = os.urandom(size)
    with cache_factory("file", tmp_path / "store")() as local:
        save_parcel(local, digest(value), pack(value, digest=digest(value)))
    with _little_memory(tmp_path, *READ_ONLY) as wire, suppress(Exception):
        for stream in range(2, 66):
            wire.write(message(stream, m.LoadValues([str(digest(value))])))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Return a store with long records, or with many small ones, by its name and kind."""
    root = tmp_path_factory.mktemp("stores")
    sizes = {"long": (4, 7 * MIB, 0), "many": (1500, 10, 15_000)}

    @lru_cache
    def make(name: str, kind: str) -> Path:
        path = root / f"{name}-{kind}"
        with cache_from_config({"template": kind, "root": str(path)}) as cache:
            _fill(cache, *sizes[name])
        return path

    return make


class TestNothingIsRead:
    """A client that asks much and reads nothing: what waits for it is little, whatever it is."""

    @pytest.mark.parametrize(
        ("name", "kind", "ask"),
        swept(
            [
                ("long", "cloudpickle", "load"),
                ("long", "local", "load"),
                ("long", "local", "query"),
                ("many", "local", "load"),
                ("many", "local", "load_values"),
                ("many", "local", "expand"),
                ("many", "local", "lacking"),
            ],
            lambda case: case[0] == "long" or case[2] == "load_values",
        ),
    )
    def test_whatever_is_asked(
        self, tmp_path: Path, stores: Callable[[str, str], Path], name: str, kind: str, ask: str
    ) -> None:
        """Many of the largest requests there are, at once."""
        root = stores(name, kind)
        with cache_from_config({"template": kind, "root": str(root)}) as cache:
            keys = [str(key) for key, _ in cache.backend.query(QueryCall(), keys_only=True)]
        requests: dict[str, m.Request] = {
            "load": m.Load(keys, MIB),
            "load_values": m.LoadValues(keys),
            "query": m.Query(QueryCall()),
            "expand": m.Expand([keys[0][:4]] * 4096),
            "lacking": m.Lacking([f"{n:064x}" for n in range(4096)]),
        }
        with _little_memory(tmp_path, *READ_ONLY, store=(kind, root)) as wire:
            wire.reads.clear()
            for stream in range(2, 22):
                wire.write(message(stream, requests[ask]))


def _fill(cache: BaseCache, count: int, size: int, inline: int) -> None:
    """Store `count` calls with `size` bytes of metadata each, and parcels of `inline` bytes."""
    entries = {}
    for n in range(count):
        parcels = {}
        if inline:
            parcel = pack(os.urandom(inline), digest=digest(n))
            parcels = {Address.of(digest(n), parcel.variant): parcel.tobytes()}
        record = CallRecord(
            name="f",
            module="m",
            arguments={"n": ValueRef(digest(n))},
        ).with_metadata({"Notes": {"text": "x" * size}})
        entries[record.key] = CallEntry(record, parcels)
        if n % 100 == 99:
            cache.backend.save(entries)
            entries = {}
    cache.backend.save(entries)


@pytest.mark.parametrize(
    ("codec", "size"),
    swept(
        itertools.product(("zlib", "zstd"), (-5, 1 << 28, 3 << 30, 2**64 - 1)),
        lambda case: case in (("zlib", 2**64 - 1), ("zstd", -5)),
    ),
)
def test_parcels_that_lie_about_their_size(tmp_path: Path, codec: str, size: int) -> None:
    """A client sends one, or it is in the store; then the server is asked to check what it has."""
    zeros = bytes(1 << 28)
    name = hash_bytes(zeros).hex()
    sound = pack_buffer(zeros, name, compression=codec)
    section = msgspec.structs.replace(sound.head.stream, size=size)
    head = msgspec.structs.replace(sound.head, stream=section)
    lying = assemble(head, [sound.stored(0)]).tobytes()
    path = tmp_path / "store" / "values" / name[:2] / f"{name[2:]}.value"
    with _little_memory(tmp_path) as wire:
        wire.write(message(2, m.Save(parcels=[(name, len(lying))]), end=False))
        for start in range(0, len(lying), MIB):
            wire.write(Frame(Kind.DATA, 2, Flag.NONE, lying[start : start + MIB]))
        wire.write(Frame(Kind.DATA, 2, Flag.END, b""))
        (stored,) = wire.answers(2)
        assert isinstance(stored, m.Done) == (size == len(zeros))
        assert path.exists() == (size == len(zeros))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lying)
        wire.write(message(3, m.Maintain(Verify())))
        found = [part.report for part in wire.answers(3) if isinstance(part, m.Reported)]
        corrupt = [each for part in found for each in part.get("corrupt", ())]
        assert corrupt == ([] if size == len(zeros) else [name])


def test_zstd_windows(tmp_path: Path) -> None:
    """A compressed frame cannot make the decompressor allocate more than a frame needs."""
    zstd, of = zstd_module(), zstd_module().CompressionParameter
    compressor = zstd.ZstdCompressor(options={of.window_log: 27, of.content_size_flag: 0})
    frame = compressor.compress(bytes(MIB)) + compressor.flush()
    with _little_memory(tmp_path, *READ_ONLY, most=64 * MIB) as wire:
        wire.write(_upload(2), *[Frame(Kind.DATA, 2, Flag.ZSTD, frame)] * 10)


def test_a_query_of_many_conditions(tmp_path: Path) -> None:
    """It is refused for what it is; the connection goes on."""
    served = cache_factory("memory", tmp_path)()
    channel = PipeChannel(lambda i, o: serve(i, o, served))
    with check_leaks(), RemoteCache(channel, timeout=20) as remote:
        with pytest.raises(Rejected, match="5000 conditions"):
            list(remote.query(arguments={f"x{i}": i for i in range(5000)}))
        assert remote.contains(KEY) is False
