"""A connection at work: long messages, signs of life, unfinished requests, ends of all kinds."""

from __future__ import annotations

import gc
import io
import itertools
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

from fleche.call import Call, CallRecord, ValueRef
from fleche.digest import Digest, digest
from fleche.errors import Rejected, RemoteConnectionError
from fleche.parcel import Buffer, pack
from fleche.remote import (
    LocalSubprocessChannel,
    PipeChannel,
    RemoteCache,
    _connection,
    _server,
    serve,
)
from fleche.remote import _messages as m
from fleche.remote._connection import PendingRequest
from fleche.remote._errors import Busy
from fleche.remote._frames import CHUNK, Flag, Frame, FrameDecoder, Kind
from fleche.remote._multiplexer import Multiplexer
from fleche.remote._protocol import MESSAGE_LIMIT, WINDOW, Protocol
from fleche.remote._server import _Workers
from fleche.remote._streams import Stream, StreamCancelled, Wakeup
from tests.helpers.backends import (
    lacking,
    load_record,
    save_parcel,
    save_parcels,
    save_record,
    save_records,
)
from tests.helpers.caches import cache_factory
from tests.helpers.leaks import check_leaks
from tests.helpers.peers import Wire, hostile_server, message, raw_client
from tests.helpers.serving import CHANNELS, Serving
from tests.helpers.taps import TappedChannel

MIB = 1 << 20
KEY = Digest("ab" * 32)
ABSENT = "0" * 64


def _wait(ready: Callable[[], object], complaint: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.01)


def _mux(remote: RemoteCache) -> Multiplexer:
    return remote.backend.connected()._mux


def _record(size: int) -> CallRecord:
    """Return a record whose metadata has `size` bytes."""
    return CallRecord(
        name="f",
        module="m",
        result=ValueRef("cd" * 32),
    ).with_metadata({"Notes": {"text": "x" * size}})


@contextmanager
def _joined(answer: Callable[[Stream], None], **options: Any) -> Iterator[Multiplexer]:
    """A client's mux to a server's whose requests `answer` answers, each in a thread."""
    down_read, down_write = os.pipe()
    up_read, up_write = os.pipe()
    workers = _Workers("test")
    server = Multiplexer(
        Protocol("server"),
        FileIO(down_read, "rb"),
        FileIO(up_write, "wb"),
        name="server",
        on_request=lambda stream: workers.run(lambda: answer(stream)),
    )
    client = Multiplexer(
        Protocol("client"), FileIO(up_read, "rb"), FileIO(down_write, "wb"), name="x", **options
    )
    with check_leaks():
        server.start()
        client.start()
        try:
            yield client
        finally:
            client.close()
            server.close()
            assert client.join(10)
            assert server.join(10)
            workers.finish(10)


# -- messages --------------------------------------------------------------------------------------


class TestLongMessages:
    """A message may be longer than the window, and has one limit."""

    @pytest.mark.parametrize("kind", CHANNELS)
    def test_a_large_record(self, serving: Serving, tmp_path: Path, kind: str) -> None:
        """A record of many frames is saved, loaded and listed."""
        remote = serving(kind, cache_factory("file", tmp_path / "served"))
        record = _record(MESSAGE_LIMIT - 4096)
        save_record(remote, record.key, record)
        assert load_record(remote, record.key) == record
        assert [call.record for call in remote.query()] == [record]
        _wait(lambda: not len(_mux(remote)._protocol), "an exchange is left")

    def test_large_records_among_others(self, tmp_path: Path) -> None:
        """Each goes through by itself, so all of them together do: saved, loaded and listed."""
        served = cache_factory("memory", tmp_path)()
        sizes = [100, 200_000, MESSAGE_LIMIT - 4096, 200_000, MESSAGE_LIMIT - 4096, 100]
        found = [_record(size).replace(name=f"f{at}") for at, size in enumerate(sizes)]
        records = {record.key: record for record in found}
        channel = PipeChannel(lambda i, o: serve(i, o, served))
        with check_leaks(), RemoteCache(channel, timeout=20) as remote:
            save_records(remote, records)
            assert {call.key: call.record for call in remote.query()} == records
            assert {call.key: call.record for call in remote.load_many(records)} == records

    @pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, MIB, MESSAGE_LIMIT])
    def test_any_length(self, size: int) -> None:
        """A request and its answer arrive whole, however many frames they take."""
        request = random.Random(size).randbytes(size)

        def echo(stream: Stream) -> None:
            stream.send_message(bytes(stream.receive_message() or b""), end=True)

        with _joined(echo) as mux:
            stream = mux.open(request)
            assert stream.receive_message() == request
            assert stream.receive_message() is None
            assert not len(mux._protocol)

    def test_other_requests_go_on_beside_it(self) -> None:
        """While an upload waits for room, others are answered."""
        go_on = threading.Event()

        def answer(stream: Stream) -> None:
            data = stream.receive_message() or b""
            if stream.stream_id == 1:
                assert go_on.wait(20)
            length = len(data)
            while (piece := stream.receive_data()) is not None:
                length += len(piece)
            stream.send_message(b"%d" % length, end=True)

        with _joined(answer) as mux:
            upload = mux.open(b"", end=False)

            def send() -> None:
                upload.send_data(bytes(2 * WINDOW))
                upload.end()

            sending = threading.Thread(target=send)
            sending.start()
            for _ in range(20):
                assert mux.open(b"short").receive_message() == b"5"
            go_on.set()
            assert upload.receive_message() == b"%d" % (2 * WINDOW)
            sending.join(20)

    def test_a_record_beyond_the_limit(self, tmp_path: Path) -> None:
        """What is too long is refused before anything of it is sent, and nothing is left of it."""
        served = cache_factory("memory", tmp_path)()
        tap = TappedChannel(PipeChannel(lambda i, o: serve(i, o, served)))
        record = _record(MESSAGE_LIMIT)
        with check_leaks(), RemoteCache(tap, timeout=20) as remote:
            assert remote.contains(ABSENT) is False
            tap.clear_sent()
            with pytest.raises(Rejected, match=rf"8\d{{6}} bytes.* {MESSAGE_LIMIT} "):
                save_record(remote, KEY, record)
            assert tap.sent_bytes == 0
            assert not len(_mux(remote)._protocol)
            assert remote.contains(ABSENT) is False

    def test_one_beyond_the_limit_among_others(self, tmp_path: Path) -> None:
        """It is refused alone, by its name, and the others are stored."""
        served = cache_factory("memory", tmp_path)()
        channel = PipeChannel(lambda i, o: serve(i, o, served))
        sizes = {"a": 100, "long": MESSAGE_LIMIT, "b": 200_000}
        found = [_record(size).replace(name=name) for name, size in sizes.items()]
        with check_leaks(), RemoteCache(channel, timeout=20) as remote:
            with pytest.raises(
                Rejected, match=rf"long \({found[1].key[:12]}\): a record of 8\d{{6}}"
            ):
                save_records(remote, {record.key: record for record in found})
            assert {call.name for call in served.query()} == {"a", "b"}

    @pytest.mark.parametrize("kind", ["memory", "file", "sql"])
    def test_any_record_is_read(self, tmp_path: Path, kind: str) -> None:
        """However long a record is that a server holds, it is loaded and listed among others."""
        served = cache_factory(kind, tmp_path)()
        sizes = [100, MESSAGE_LIMIT, 3 * MIB, 3 * MESSAGE_LIMIT, 200_000, 10]
        found = [_record(size).replace(name=f"f{at}") for at, size in enumerate(sizes)]
        records = {record.key: record for record in found}
        save_records(served, records)
        channel = PipeChannel(lambda i, o: serve(i, o, served))
        with check_leaks(), RemoteCache(channel, timeout=20) as remote:
            assert {call.key: call.record for call in remote.load_many(records)} == records
            assert {call.key: call.record for call in remote.query()} == records
            assert load_record(remote, found[3].key) == found[3]
            _wait(lambda: not len(_mux(remote)._protocol), "an exchange is left")

    def test_a_long_record_with_a_result_apart(self, tmp_path: Path) -> None:
        """Both follow in one answer."""
        served = cache_factory("file", tmp_path)()
        value = os.urandom(MIB // 2)
        call = Call("f", {"x": 1}, result=value, metadata={"Notes": {"text": "x" * MESSAGE_LIMIT}})
        key = served.save(call)
        channel = PipeChannel(lambda i, o: serve(i, o, served))
        with check_leaks(), RemoteCache(channel, timeout=20) as remote:
            loaded = remote.load(key)
            assert loaded.result == value
            assert len(loaded.metadata["Notes"]["text"]) == MESSAGE_LIMIT

    def test_long_answers_that_are_not_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One more is refused in the end; when they are read, or closed, everything goes on."""
        monkeypatch.setattr("fleche.remote._room.PATIENCE", 0.5)
        served = cache_factory("memory", tmp_path)()
        found = [_record(7 * MIB).replace(name=f"f{at}") for at in range(4)]
        records = {record.key: record for record in found}
        save_records(served, records)
        channel = PipeChannel(lambda i, o: serve(i, o, served))
        with check_leaks(), RemoteCache(channel, timeout=20) as remote:
            begun = [iter(remote.backend.load(list(records))) for _ in range(2)]
            for each in begun:
                next(each)
            with pytest.raises(Rejected, match=r"MiB of answers .* wait"):
                while True:  # until the answers that are not read have all been made
                    load_record(remote, found[0].key)
            assert remote.contains(ABSENT) is False
            assert len(list(begun[0])) == 3
            begun[1].close()
            assert load_record(remote, found[0].key) == found[0]

    def test_bytes_count_not_frames(self) -> None:
        """A message in very many small frames is no longer than its bytes."""
        data = m.encode(m.Flags([True] * 100_000))
        pieces = [data[start : start + 1000] for start in range(0, len(data), 1000)]
        assert len(pieces) > 64

        def act(wire: Wire) -> None:
            exchange, _ = wire.request()
            for piece in pieces[:-1]:
                wire.write(Frame(Kind.MESSAGE, exchange, Flag.MORE, piece))
            wire.write(Frame(Kind.MESSAGE, exchange, Flag.END, pieces[-1]))

        with check_leaks(), RemoteCache(hostile_server(act), timeout=20) as remote:
            assert (
                remote.backend.connected().ask(m.Contains([KEY]), m.Flags).flags == [True] * 100_000
            )

    def test_a_refusal_comes_early(self) -> None:
        """A server may answer before it has all of a request; the rest is not sent."""

        def refuse(stream: Stream) -> None:
            stream.send_message(b"no", end=True)

        with _joined(refuse) as mux:
            for _ in range(3):
                assert mux.open(bytes(MESSAGE_LIMIT)).receive_message() == b"no"
            assert not len(mux._protocol)

    def test_memory_is_let_go(self) -> None:
        """Once a frame is used up, nothing here holds on to its memory."""

        def answer(stream: Stream) -> None:
            stream.receive_message()
            for _ in range(3):
                stream.send_data(b"x" * MIB)
            stream.end()

        with _joined(answer) as mux:
            memory = bytearray(3 * MIB)
            stream = mux.open(b"")
            stream.expect(memoryview(memory))
            while stream.receive() is not None:
                pass
            del stream
            assert memory == b"x" * len(memory)

            def is_free() -> bool:
                try:
                    memory.clear()
                except BufferError:
                    return False
                return True

            _wait(is_free, "the memory is held")

    def test_an_interrupt(self) -> None:
        """An upload that is interrupted half-way is cancelled, here and there."""
        cancelled = threading.Event()

        def answer(stream: Stream) -> None:
            try:
                stream.receive_message()  # which may be cancelled already
                while stream.receive_data() is not None:
                    pass
            except StreamCancelled:
                cancelled.set()
                stream.end()
            else:
                stream.send_message(b"yes", end=True)

        def chunks() -> Iterator[Buffer]:
            for _ in range(3):
                yield bytes(CHUNK)
            raise KeyboardInterrupt

        with _joined(answer) as mux:
            with pytest.raises(KeyboardInterrupt):
                PendingRequest(mux, b"", chunks, unpickle=False)
            assert cancelled.wait(20)
            _wait(lambda: not len(mux._protocol), "the stream is left")
            assert not mux._streams
            assert mux.open(b"more").receive_message() == b"yes"


# -- life ------------------------------------------------------------------------------------------


class _SlowWriter:
    """Takes a few bytes at a time."""

    def __init__(self, writer: Any, piece: int, pause: float) -> None:
        self._writer, self._piece, self._pause = writer, piece, pause
        self.slow = False

    def write(self, data: Buffer, /) -> int | None:
        if not self.slow:
            return self._writer.write(data)  # type: ignore[no-any-return]
        time.sleep(self._pause)
        return self._writer.write(memoryview(data)[: self._piece])  # type: ignore[no-any-return]

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _SlowChannel(PipeChannel):
    """A pipe whose way up is slow while `writer.slow`."""

    writer: _SlowWriter

    def open(self) -> tuple[Any, Any]:
        reader, writer = super().open()
        self.writer = _SlowWriter(writer, 8192, 0.04)
        return reader, self.writer


class TestSlowness:
    """`timeout` is silence, whichever way the bytes go."""

    def test_a_frame_that_takes_longer_than_the_timeout(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that receives a frame slowly says now and then that it lives."""
        monkeypatch.setattr("fleche.remote._multiplexer.TELL_SECONDS", 0.1)
        served = cache_factory("memory", tmp_path)()
        channel = _SlowChannel(lambda i, o: serve(i, o, served))
        value = random.Random(1).randbytes(MIB)
        name = digest(value)
        with check_leaks(), RemoteCache(channel, timeout=2, compression="none") as remote:
            remote.info()
            channel.writer.slow = True
            began = time.monotonic()
            save_parcel(remote, name, pack(value, digest=name))
            assert time.monotonic() - began > 2 * 2, "it was too fast to prove anything"
            channel.writer.slow = False
            assert remote.load_value(name) == value

    def test_nothing_is_told_without_need(self, tmp_path: Path) -> None:
        """What comes in whole frames, or at once, is not commented."""
        served = cache_factory("memory", tmp_path)()
        tap = TappedChannel(PipeChannel(lambda i, o: serve(i, o, served)))
        with check_leaks(), RemoteCache(tap, timeout=60, compression="none") as remote:
            remote.info()
            tap.clear()
            for _ in range(20):
                assert remote.contains(ABSENT) is False
            told = FrameDecoder().feed(tap.received)
            assert {frame.kind for frame in told} == {Kind.MESSAGE}

    def test_a_peer_that_neither_reads_nor_speaks(self) -> None:
        """It is found when the time is up, however much is still to be written."""
        down_read, down_write = os.pipe()
        up_read, up_write = os.pipe()
        client = Multiplexer(
            Protocol("client"),
            FileIO(up_read, "rb"),
            FileIO(down_write, "wb"),
            name="x",
            timeout=0.5,
            explain=lambda reason: (os.close(down_read), os.close(up_write), reason)[2],
        )
        with check_leaks():
            client.start()
            began = time.monotonic()
            with pytest.raises(RemoteConnectionError, match="silent"):
                client.open(b"", end=False).send_data(bytes(4 * WINDOW))
            assert time.monotonic() - began < 15
            assert client.join(10)


# -- the end ---------------------------------------------------------------------------------------


class _Ended:
    """A stream for reading that ends when it is told to."""

    def __init__(self) -> None:
        self.end = threading.Event()

    def readinto(self, buffer: memoryview, /) -> int:
        assert self.end.wait(20)
        return 0

    def close(self) -> None:
        self.end.set()


class _Broken:
    """A stream for writing that is not read."""

    def __init__(self, reader: _Ended, *, ends: bool) -> None:
        self._reader, self._ends = reader, ends

    def write(self, data: Buffer, /) -> int:
        if self._ends:
            threading.Timer(0.05, self._reader.end.set).start()
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None: ...

    def close(self) -> None: ...


class TestEnds:
    """How a connection may end, and what is said of it."""

    @pytest.mark.parametrize("ends", [True, False])
    def test_a_broken_pipe(self, ends: bool) -> None:
        """It is the story only if the input does not end as well: that comes with last words."""
        reader = _Ended()
        mux = Multiplexer(Protocol("client"), reader, _Broken(reader, ends=ends), name="x")
        with check_leaks():
            mux.start()
            stream = mux.open(b"request")
            expected = "closed the connection" if ends else "broke while writing"
            with pytest.raises(RemoteConnectionError, match=expected):
                stream.receive()
            reader.end.set()
            assert mux.join(10)

    @pytest.mark.parametrize("size", [100, 2 * MIB])
    def test_what_was_queued_before_it_was_closed(self, size: int) -> None:
        """It is written, in as many pieces as it takes, and then the writer is done."""
        come = threading.Event()
        received: list[int] = []

        def answer(stream: Stream) -> None:
            received.append(len(stream.receive_message() or b""))
            come.set()

        with _joined(answer) as mux:
            time.sleep(0.05)  # the writer waits
            with mux.lock:
                mux.open(bytes(size))
                mux.close()
            assert come.wait(10)
            mux._threads[0].join(10)
            assert not mux._threads[0].is_alive()
        assert received == [size]

    def test_a_reader_that_does_not_wait(self) -> None:
        """To have nothing just now is an error, and not the end."""
        down_read, down_write = os.pipe()
        os.set_blocking(down_read, False)
        output = io.BytesIO()
        mux = Multiplexer(Protocol("client"), FileIO(down_read, "rb"), output, name="x")
        mux.start()
        with pytest.raises(RemoteConnectionError, match=r"while reading.*does not wait"):
            mux.open(b"request").receive()
        mux.close()
        assert mux.join(10)
        os.close(down_write)

    def test_a_writer_that_does_not_wait(self) -> None:
        """To be full just now is an error, and not a reason to try again and again."""
        reader, (down_read, down_write) = _Ended(), os.pipe()
        os.set_blocking(down_write, False)
        mux = Multiplexer(Protocol("client"), reader, FileIO(down_write, "wb"), name="x")
        with check_leaks():
            mux.start()
            stream = mux.open(bytes(MESSAGE_LIMIT))
            reader.end.wait(0.1)
            with pytest.raises(RemoteConnectionError, match=r"writing.*does not wait"):
                stream.receive()
            reader.end.set()
            assert mux.join(10)
            os.close(down_read)

    def test_a_cancel_while_everybody_is_told(self) -> None:
        """Garbage may be collected, and a query given up, in the midst of telling the waiting."""
        reader = _Ended()
        mux = Multiplexer(Protocol("client"), reader, io.BytesIO(), name="x")
        streams = [mux.open(b"x") for _ in range(3)]

        class Collecting(Wakeup):
            def set(self) -> None:
                streams[-1].cancel()
                super().set()

        streams[0].receivers.append(Collecting())
        mux.fail("over")
        assert mux.failure == "over"
        reader.close()


# -- work ------------------------------------------------------------------------------------------


def _full_of_calls(root: Path, count: int = 400) -> Any:
    """Return a memory cache whose listing is longer than what is sent ahead."""
    cache = cache_factory("memory", root)()
    records = [
        CallRecord(
            name="f", module="m", arguments={"x": ValueRef(digest(number))}, result=ValueRef(KEY)
        )
        for number in range(count)
    ]
    note = {"Notes": {"text": "y" * 8000}}
    save_records(cache, {r.key: r.with_metadata(note) for r in records})
    return cache


class TestUnfinishedRequests:
    """A server has a limited number of requests open at once, and tells its clients how many."""

    @pytest.fixture
    def remote(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteCache]:
        """A cache whose server has four requests open at a time."""
        monkeypatch.setattr("fleche.remote._protocol.MAX_STREAMS", 4)
        monkeypatch.setattr("fleche.remote._multiplexer.PATIENCE", 0.2)
        served = _full_of_calls(tmp_path)
        channel = PipeChannel(lambda i, o: serve(i, o, served))
        with check_leaks(), RemoteCache(channel, timeout=30) as remote:
            yield remote

    def _begin(self, remote: RemoteCache) -> Any:
        listing = iter(remote.query())
        next(listing)
        return listing

    def test_they_stop_nobody(self, remote: RemoteCache) -> None:
        """As long as there are few, other requests are answered."""
        listings = [self._begin(remote) for _ in range(3)]
        for _ in range(10):
            assert remote.contains(ABSENT) is False
        assert [len(list(listing)) for listing in listings] == [399] * 3

    def test_too_many(self, remote: RemoteCache) -> None:
        """When all are taken up by what is not read, the next one fails here, and says why."""
        listings = [self._begin(remote) for _ in range(4)]
        for _ in range(2):
            with pytest.raises(Rejected, match=r"4 requests are unfinished.*finish or close some"):
                remote.contains(ABSENT)
        listings.pop().close()
        assert remote.contains(ABSENT) is False
        assert [len(list(listing)) for listing in listings] == [399] * 3
        assert remote.contains(ABSENT) is False
        _wait(lambda: not len(_mux(remote)._protocol), "a stream is left")

    def test_the_next_one_waits(self, remote: RemoteCache) -> None:
        """While those that are open wait for the server, the next one is held back, not refused."""
        mux = _mux(remote)
        values = [random.Random(number).randbytes(100) for number in range(12)]
        parcels = [pack(value, digest=digest(value)).tobytes() for value in values]
        begun = threading.Semaphore(0)
        go_on = threading.Event()
        failures: list[BaseException] = []

        def upload(value: bytes, parcel: bytes) -> None:
            """Say what comes, and let it come only when all have said so that may."""

            def chunks() -> Iterator[Buffer]:
                begun.release()
                assert go_on.wait(20)
                yield parcel

            request = m.Save(parcels=[(str(digest(value)), len(parcel))])
            try:
                remote.backend.connected().ask(request, m.Done, upload=chunks)
            except Exception as error:  # noqa: BLE001 (the test judges it)
                failures.append(error)

        threads = [
            threading.Thread(target=upload, args=each) for each in zip(values, parcels, strict=True)
        ]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert begun.acquire(timeout=20)
        _wait(lambda: len(mux._protocol) == 4, "too few requests are open")
        assert len(mux._queue.openings) == 8, "more are open than the server allows"
        go_on.set()
        for thread in threads:
            thread.join(20)
        assert not failures
        assert lacking(remote, [digest(value) for value in values]) == []

    def test_what_is_refused_is_sent_again(self) -> None:
        """A request that a server has no room for is not lost, nor is what follows it."""
        value = random.Random(1).randbytes(100)
        refused: list[m.Request] = []
        data: list[bytes] = []

        def act(wire: Wire) -> None:
            for turn in range(6):
                exchange, request = wire.request()
                if turn % 3 < 2:
                    refused.append(request)
                    wire.write(message(exchange, m.Failure("busy", message="no room")))
                    continue
                if isinstance(request, m.Save):
                    while (frame := wire.read()) is not None and not frame.end:
                        data.append(bytes(frame.payload))
                    wire.write(message(exchange, m.Done()))
                else:
                    wire.write(message(exchange, m.Flags([True])))

        with check_leaks(), RemoteCache(hostile_server(act), timeout=20) as remote:
            assert remote.contains(KEY) is True
            parcel = pack(value, digest=digest(value))
            save_parcels(remote, [(digest(value), parcel)])
        assert [type(request) for request in refused] == [m.Contains] * 2 + [m.Save] * 2
        assert data == [pack(value, digest=digest(value)).tobytes()]

    def test_what_is_refused_many_times(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However often that is: what is in the way may take hours."""
        monkeypatch.setattr(_connection, "exponential", lambda _: itertools.repeat(0.0))
        served, times = _full_of_calls(tmp_path, 1), sys.getrecursionlimit() + 10
        asked = itertools.count(1)

        def contains(keys: Any) -> list[bool]:
            if next(asked) <= times:
                raise Busy("not now")
            return [True]

        served.backend.contains = contains
        with RemoteCache(PipeChannel(lambda i, o: serve(i, o, served)), timeout=30) as remote:
            assert remote.backend.contains([ABSENT]) == [True]

    def test_what_comes_late_is_credited(self, tmp_path: Path) -> None:
        """What is on its way to a request that has been answered takes no room for good."""
        command = [sys.executable, "-m", "fleche", "remote", "--serve", "--cache", "memory"]
        with check_leaks(), raw_client([*command, "--read-only"], tmp_path) as wire:
            wire.write(message(1, m.Save(parcels=[(KEY, WINDOW)]), end=False))
            assert isinstance(next(wire.answers(1)), m.Failure)
            wire.write(*[Frame(Kind.DATA, 1, 0, bytes(CHUNK))] * 8)
            found = wire.read()
            assert found is not None
            assert (found.kind, found.stream_id) == (Kind.CREDIT, 0)

    def test_who_does_not_count_is_told(self, tmp_path: Path) -> None:
        """A server answers even what it was never ready to take, and goes on."""
        served = _full_of_calls(tmp_path, 1)
        go_on = threading.Event()
        served.backend.contains = lambda keys: [go_on.wait(20)]
        channel = PipeChannel(lambda i, o: serve(i, o, served))
        with check_leaks(), RemoteCache(channel, timeout=30) as remote:
            connection, mux = remote.backend.connected(), _mux(remote)
            limit = mux._protocol.limit
            open_ = [connection.request(m.Contains([ABSENT])) for _ in range(limit)]
            mux.allow(limit + 1)
            one_more = mux.open(m.encode(m.Contains([ABSENT])))
            refusal = m.decode_answer(one_more.receive_message() or b"")
            assert isinstance(refusal, m.Failure)
            assert (refusal.code, str(limit) in refusal.message) == ("busy", True)
            go_on.set()
            assert all(each.answer(m.Flags).flags == [True] for each in open_)

    def test_a_crowd(self, remote: RemoteCache) -> None:
        """More requests at once than workers are no trouble: each has its turn."""
        connection = remote.backend.connected()
        exchanges = [connection.request(m.Contains([ABSENT])) for _ in range(200)]
        assert all(exchange.answer(m.Flags).flags == [False] for exchange in exchanges)

    def test_a_crowd_that_uploads(self, remote: RemoteCache) -> None:
        """Nor are more uploads at once than workers."""
        values = [random.Random(number).randbytes(70_000) for number in range(40)]
        parcels = [(digest(value), pack(value, digest=digest(value))) for value in values]
        threads = [
            threading.Thread(target=save_parcels, args=(remote, parcels[start::2]))
            for start in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert lacking(remote, [name for name, _ in parcels]) == []


class TestWorkers:
    """Threads for jobs."""

    def test_a_job_that_raises(self, caplog: pytest.LogCaptureFixture) -> None:
        """It is logged, and its thread goes on: none is lost to the count."""
        workers = _Workers("test")
        done: list[int] = []
        raised: list[type[BaseException]] = [ValueError, SystemExit, KeyboardInterrupt]

        def fail(kind: type[BaseException]) -> None:
            raise kind("of a job")

        with check_leaks():
            for number in range(30):
                workers.run(lambda number=number: fail(raised[number % 3]))  # type: ignore[misc]
                workers.run(lambda number=number: done.append(number))  # type: ignore[misc]
            _wait(lambda: len(done) == 30, "a job was lost")
            workers.finish(20)
            assert not any(thread.is_alive() for thread in workers._threads)
        assert len([r for r in caplog.records if r.exc_info]) == 30

    @pytest.mark.parametrize("size", [10, 2 << 20])
    def test_no_thread_for_one_more(
        self, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While the system has no more, a request is sent again later, with what follows it."""
        served = _full_of_calls(tmp_path, 1)
        go_on, begun = threading.Event(), threading.Event()

        def contains(keys: Any) -> list[bool]:
            begun.set()
            return [go_on.wait(20)]

        served.backend.contains = contains
        start, refused = threading.Thread.start, threading.Semaphore(0)

        def refuse(thread: threading.Thread) -> None:
            if begun.is_set() and thread.name.endswith("worker"):
                refused.release()
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)
        value = random.Random(1).randbytes(size)
        parcels = [(digest(value), pack(value, digest=digest(value)))]
        channel = PipeChannel(lambda i, o: serve(i, o, served))
        with check_leaks(), RemoteCache(channel, timeout=30) as remote:
            first = remote.backend.connected().request(m.Contains([ABSENT]))
            assert begun.wait(20)
            saving = threading.Thread(target=save_parcels, args=(remote, parcels))
            start(saving)
            for _ in range(2):
                assert refused.acquire(timeout=20)
            go_on.set()
            assert first.answer(m.Flags).flags == [True]
            saving.join(20)
            assert lacking(remote, [digest(value)]) == []

    def test_no_thread_to_be_had(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A thread that cannot be started is not counted."""
        workers = _Workers("test")

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError):
                workers.run(lambda: None)
        assert not workers._threads

    def test_an_idle_thread_that_has_waited_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It ends, unless a job comes at the last moment; none is lost."""
        monkeypatch.setattr(_server, "IDLE_SECONDS", 0.001)
        workers = _Workers("test")
        done: list[int] = []
        with check_leaks():
            for number in range(300):
                workers.run(lambda number=number: done.append(number))  # type: ignore[misc]
                time.sleep(0.001)
            _wait(lambda: len(done) == 300, "a job was lost")
            _wait(lambda: not workers._threads, "an idle thread goes on")
            workers.finish(20)
        assert sorted(done) == list(range(300))

    def test_an_idle_thread_whose_job_another_one_takes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It waits no longer than any other: who has taken the job is idle in its place."""
        workers = _Workers("test")
        idle = iter([0, 1])  # a job is put for it, and then the other one waits

        class Jobs:
            def get(self, *, timeout: float | None = None) -> Any:
                assert timeout is not None, "it waits for ever"
                workers._idle = next(idle)
                raise Empty

        monkeypatch.setattr(workers, "_jobs", Jobs())
        assert workers._next() is None
        assert workers._idle == 0


# -- standard error --------------------------------------------------------------------------------


class _Talkative(LocalSubprocessChannel):
    """A server beside which something writes to standard error, now and then."""

    def command(self) -> list[str]:
        talk = "(while echo hi >&2; do sleep 0.05; done) >/dev/null </dev/null &"
        return ["/bin/sh", "-c", f'{talk} exec "$@"', "sh", *super().command()]


def test_collected_in_the_thread_that_reads_standard_error(tmp_path: Path) -> None:
    """A cache that is collected there is closed as anywhere else, and leaves nothing."""
    (tmp_path / "fleche.toml").write_text(
        '[default]\ncache = "c"\nroot = true\n[c]\ntemplate = "memory"\n'
    )
    collected: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if dropped.is_set() and not collected:
                collected.append(threading.current_thread().name)
                gc.collect()

    dropped, handler = threading.Event(), Collecting()
    log = logging.getLogger("fleche.remote.stderr")
    level = log.level
    with check_leaks():
        gc.collect()
        gc.disable()
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            remote = RemoteCache(_Talkative(workdir=str(tmp_path)), connect_timeout=30)
            assert remote.contains(ABSENT) is False
            cycle: list[Any] = [remote]
            cycle.append(cycle)
            del remote, cycle
            dropped.set()
            _wait(lambda: collected, "nothing was logged")
            assert "stderr" in collected[0]
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
            gc.enable()
