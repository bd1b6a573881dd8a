"""Hostile peers: nothing but typed errors, bounded memory, no hang, and no parcel opened."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleche.caches import BaseCache
from fleche.call import Call, CallRecord, QueryCall, ValueRef, encode_record
from fleche.digest import Digest, digest
from fleche.errors import (
    CorruptParcel,
    FlecheError,
    ProtocolError,
    RemoteConnectionError,
    SignatureError,
)
from fleche.parcel import Packing, pack, pack_bytes, zstd_module
from fleche.remote import PipeChannel, RemoteCache, serve
from fleche.remote import _messages as m
from fleche.remote._frames import HEADER, MAX_PAYLOAD, Flag, Frame, FrameDecoder, Kind, encode_frame
from fleche.remote._handshake import ClientGreeting, ServerGreeting
from fleche.remote._protocol import WINDOW, Protocol, cost
from fleche.testing import example_call
from tests.helpers.backends import (
    lacking,
    load_parcel,
    load_parcels,
    load_record,
    save_parcel,
    save_parcels,
    save_record,
)
from tests.helpers.caches import cache_factory
from tests.helpers.leaks import check_leaks
from tests.helpers.peers import Wire, hostile_server, message, raw_client, seal
from tests.helpers.processes import rss
from tests.helpers.sweeps import examples, swept
from tests.helpers.taps import TappedChannel

KEY = Digest("ab" * 32)
NO_KEY = "a`" * 32
ASKED = digest("asked")
MIB = 1 << 20
TYPED = (FlecheError, KeyError)
FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck))

opened: list[str] = []


class Poison:
    """Tells when it is unpickled."""

    def __digest__(self) -> str:
        return "poison"

    def __reduce__(self) -> Any:
        return opened.append, ("poison",)


@pytest.fixture(autouse=True)
def unopened() -> Iterator[None]:
    """No test of this file may have opened a poisoned parcel."""
    opened.clear()
    yield
    assert not opened, "a parcel was opened"


@contextmanager
def _bounded(limit: int) -> Iterator[None]:
    """Assert that the block allocates at most `limit` bytes at once."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak} bytes"


# -- a hostile server ------------------------------------------------------------------------------


def _talk(
    act: Callable[[Wire], None], operation: Callable[[RemoteCache], Any], *, seconds: float = 20
) -> Any:
    """Return what `operation` returns, or the error it raises, against the server `act`."""
    with check_leaks():
        remote = RemoteCache(hostile_server(act), timeout=5, connect_timeout=10)
        began = time.monotonic()
        try:
            return operation(remote)
        except Exception as error:  # noqa: BLE001 (whatever it is, the test judges it)
            return error
        finally:
            remote.close()
            assert time.monotonic() - began < seconds, "it hung"


def _answering(*answers: Frame | bytes) -> Callable[[Wire], None]:
    """A server that says the same to every request; a frame's exchange counts from the request."""

    def act(wire: Wire) -> None:
        while True:
            exchange, _ = wire.request()
            for answer in answers:
                if isinstance(answer, bytes):
                    wire.write_bytes(answer)
                else:
                    wire.write(answer._replace(stream_id=exchange + answer.stream_id))

    return act


def _silent(wire: Wire) -> None:
    while wire.read() is not None:
        pass


def _data(payload: bytes, *, end: bool = False) -> Frame:
    return Frame(Kind.DATA, 0, Flag.END if end else Flag.NONE, payload)


OPERATIONS: dict[str, Callable[[RemoteCache], Any]] = {
    "info": lambda c: c.info(),
    "load_entries": lambda c: list(c.backend.load([KEY])),
    "load": lambda c: c.load(KEY).result,
    "load_record": lambda c: load_record(c, KEY),
    "load_parcel": lambda c: load_parcel(c, KEY),
    "load_value": lambda c: c.load_value(KEY),
    "load_parcels": lambda c: list(load_parcels(c, [KEY])),
    "save": lambda c: c.save(example_call()),
    "save_record": lambda c: save_record(c, KEY, CallRecord(name="f")),
    "save_parcel": lambda c: save_parcel(c, ASKED, pack("asked", digest=ASKED)),
    "save_parcels": lambda c: save_parcels(c, [(ASKED, pack("asked", digest=ASKED))]),
    "lacking": lambda c: lacking(c, [KEY]),
    "contains": lambda c: c.contains(KEY),
    "contains_many": lambda c: c.contains_many([KEY, ASKED]),
    "evict": lambda c: c.evict(KEY),
    "expand": lambda c: c.expand(KEY[:8]),
    "shrink": lambda c: c.shrink(KEY, ASKED),
    "query": lambda c: list(c.query()),
    "query_keys": lambda c: list(c.backend.query(QueryCall(), keys_only=True)),
    "newest": lambda c: list(c.query().newest(2)),
    "verify": lambda c: c.verify(),
}
NOTHING_IS_AN_ANSWER = {"load_entries", "load_parcels", "query", "query_keys", "newest", "verify"}

GARBAGE: dict[str, tuple[Frame | bytes, ...]] = {
    "no message": (_data(b"", end=True),),
    "no msgpack": (message(0, b"\xc1\xff garbage"),),
    "an unknown kind": (message(0, msgspec.msgpack.encode({"op": "hello"})),),
    "a deep message": (message(0, b"\x81\xa2op" + b"\x91" * 100_000),),
    "a request": (message(0, m.Info()),),
    "no frame": (b"Segmentation fault\n" * 10,),
    "an exchange that never was": (message(1000, m.Done()),),
    "a cancel": (Frame(Kind.CANCEL, 0),),
    "a credit of no number": (Frame(Kind.CREDIT, 0, 0, b"123"),),
    "a heavy ping": (Frame(Kind.PING, 0, 0, bytes(MAX_PAYLOAD)),),
    "a length beyond all": (struct.pack("<IIBBHI", 2**32 - 1, 1, 2, 0, 0, 0),),
    "more than the window": (_data(bytes(MIB)),) * (WINDOW // MIB + 2),
    "not what zlib wrote": (Frame(Kind.MESSAGE, 0, Flag.END | Flag.ZLIB, b"no zlib"),),
    "a codec that is not": (Frame(Kind.MESSAGE, 0, Flag.END | 6, b"no zlib, no zstd"),),
    "a bomb": (Frame(Kind.MESSAGE, 0, Flag.END | Flag.ZLIB, zlib.compress(bytes(1 << 27), 1)),),
    "an unknown failure": (message(0, m.Failure("never heard of")),),
    "a poisoned failure": (message(0, m.Failure("pickled", pickled=b"\x80\x05garbage")),),
}


def _few(garbage: str) -> list[str]:
    """A few operations for this garbage; each operation is one of those of two others."""
    apart = list(GARBAGE).index(garbage)
    return [name for n, name in enumerate(OPERATIONS) if (n - apart) % len(GARBAGE) in (0, 8)]


@pytest.mark.parametrize(
    ("garbage", "every"),
    swept([(name, every) for every in (False, True) for name in GARBAGE], lambda case: not case[1]),
)
def test_nonsense(garbage: str, every: bool) -> None:
    """Whatever the operation, an answer that is none is one typed error, and nothing hangs."""
    for name in OPERATIONS if every else _few(garbage):
        operation = OPERATIONS[name]
        with _bounded(64 * MIB):
            found = _talk(_answering(*GARBAGE[garbage]), operation)
        expected = (*TYPED, RuntimeError) if "failure" in garbage else FlecheError
        if garbage == "no message" and name.startswith("load"):
            expected = (KeyError,)
        if garbage != "no message" or name not in NOTHING_IS_AN_ANSWER:
            assert isinstance(found, expected), (name, found)
        assert len(str(found)) < 2000


WRONG: dict[str, m.Answer] = {
    "info": m.InfoAnswer({}),
    "found": m.Found(str(KEY)),
    "found what was not asked for": m.Found(str(digest("other")), size=1),
    "expanded": m.Expanded([[str(KEY)]] * 5),
    "progressed": m.Progressed(1),
    "reported": m.Reported({"values": 1}),
    "digests": m.Digests([str(KEY)] * 5),
    "flags": m.Flags([True] * 5),
    "listed": m.Listed([m.WireEntry(str(KEY), b"no record")]),
    "nothing listed": m.Listed([]),
    "done": m.Done(),
}
RIGHT = {
    "info": {"info"},
    "digests": {"lacking"},
    "listed": {"query_keys"},
    "progressed": {"verify"},
    "reported": {"verify"},
    "done": {"save", "save_record", "save_parcel", "save_parcels"},
}


@pytest.mark.parametrize("answer", WRONG)
def test_the_answer_to_another_question(answer: str) -> None:
    """An answer of the wrong kind, or to another number of questions, is one typed error."""
    for name, operation in OPERATIONS.items():
        found = _talk(_answering(message(0, WRONG[answer])), operation)
        if name not in RIGHT.get(answer, ()):
            assert isinstance(found, TYPED), (name, found)


def test_nothing_is_asked_for_that_was_not_offered() -> None:
    """A server cannot make a client upload other values than those it asked about."""
    answer = m.Digests([str(digest("secret")), str(ASKED), "abcd"])
    found = _talk(_answering(message(0, answer)), lambda c: lacking(c, [ASKED, KEY]))
    assert found == [ASKED]


class TestSizes:
    """Sizes that a server claims are only believed as far as bytes come."""

    @pytest.mark.parametrize("size", [0, 1, 10**9, 1 << 40, 1 << 50, (1 << 62) - 1])
    def test_a_parcel(self, size: int) -> None:
        """A parcel of any announced size that does not come is one error, and little memory."""
        before = rss(os.getpid())
        found = _talk(
            _answering(
                message(0, m.Found(str(KEY), size=size), end=False), _data(b"x" * 100, end=True)
            ),
            lambda c: load_parcel(c, KEY),
        )
        assert isinstance(found, FlecheError), found
        assert rss(os.getpid()) - before < 64 * MIB

    def test_more_than_announced(self) -> None:
        """A parcel that does not end where it should is corrupt."""
        parcel = pack(1, digest=KEY).tobytes()
        found = _talk(
            _answering(
                message(0, m.Found(str(KEY), size=len(parcel)), end=False),
                _data(parcel + b"more"),
                _data(b"", end=True),
            ),
            lambda c: load_parcel(c, KEY),
        )
        assert isinstance(found, FlecheError), found

    def test_a_head_that_lies(self) -> None:
        """A head that claims sections beyond all bounds is corrupt, and little memory."""
        honest = pack(1, digest=KEY).tobytes()
        for offset, width in ((12, 4), (16, 8)):
            lying = bytearray(honest)
            lying[offset : offset + width] = b"\xff" * (width - 1) + b"\x3f"
            act = _answering(
                message(0, m.Found(str(KEY), size=len(lying)), end=False),
                _data(bytes(lying), end=True),
            )
            with _bounded(16 * MIB):
                found = _talk(act, lambda c: load_parcel(c, KEY))
            assert isinstance(found, CorruptParcel), found

    def test_a_message_without_an_end(self) -> None:
        """A message that goes on and on is given up at a bound, compressed or not."""

        def act(wire: Wire) -> None:
            exchange, _ = wire.request()
            payload = zlib.compress(bytes(MIB))
            while True:
                wire.write(Frame(Kind.MESSAGE, exchange, Flag.MORE | Flag.ZLIB, payload))

        with _bounded(40 * MIB):
            found = _talk(act, lambda c: c.info())
        assert isinstance(found, FlecheError), found


class TestEndless:
    """A server that never stops."""

    def _listing(self, batch: m.Listed) -> Callable[[Wire], None]:
        def act(wire: Wire) -> None:
            exchange, _ = wire.request()
            frame, left = message(exchange, batch, end=False), WINDOW
            while True:
                if left > 0:
                    wire.write(frame)
                    left -= cost(frame.flags, len(frame.payload))
                    continue
                heard = wire.read()
                if heard is None or heard.kind is Kind.CANCEL:
                    return
                if heard.kind is Kind.CREDIT:
                    left += struct.unpack("<I", heard.payload)[0]

        return act

    def test_results(self) -> None:
        """Endless results stop when the caller stops, and take the memory of a window."""
        record = CallRecord(name="f", result=ValueRef(KEY))
        batch = m.Listed([m.WireEntry(str(record.key), encode_record(record))] * 1000)

        def take(cache: RemoteCache) -> int:
            taken = 0
            for _ in cache.query():
                taken += 1
                if taken == 50_000:
                    return taken
            return taken

        with _bounded(60 * MIB):
            assert _talk(self._listing(batch), take) == 50_000

    def test_nothing_for_ever(self) -> None:
        """Endless empty lists are no answer."""
        found = _talk(self._listing(m.Listed([])), lambda c: list(c.query()))
        assert isinstance(found, FlecheError), found

    @pytest.mark.slow
    def test_pings(self) -> None:
        """Endless pings are answered, as far as there is room, while the real answer is awaited."""

        def act(wire: Wire) -> None:
            exchange, _ = wire.request()
            for _ in range(20_000):
                wire.write(Frame(Kind.PING, 0, 0, b"x" * 64))
            wire.write(message(exchange, m.Flags([True])))

        with _bounded(20 * MIB):
            assert _talk(act, lambda c: c.contains(KEY)) is True

    def test_answers_to_a_cancelled_call(self) -> None:
        """What comes after a call was given up is dropped, however much it is."""

        def act(wire: Wire) -> None:
            exchange, _ = wire.request()
            wire.write(message(exchange, m.Listed([m.WireEntry(str(KEY), b"x")]), end=False))
            while (frame := wire.read()) is not None and frame.kind is not Kind.CANCEL:
                pass
            for _ in range(40):
                wire.write(Frame(Kind.DATA, exchange, 0, bytes(MIB)))
            wire.write(Frame(Kind.DATA, exchange, Flag.END))
            exchange, _ = wire.request()
            wire.write(message(exchange, m.Flags([True])))

        def operate(cache: RemoteCache) -> bool:
            with pytest.raises(CorruptParcel):
                list(cache.query())
            return cache.contains(KEY)

        with _bounded(20 * MIB):
            assert _talk(act, operate) is True


class TestCredit:
    """A server that plays with the window."""

    def test_too_much(self) -> None:
        """Credit beyond all bounds changes nothing; an upload still keeps to its window."""
        most = 0

        def act(wire: Wire) -> None:
            nonlocal most
            exchange, _ = wire.request()
            for _ in range(100):
                wire.write(Frame(Kind.CREDIT, exchange, 0, b"\xff" * 4))
            time.sleep(0.2)
            wire.write(message(exchange, m.Failure("rejected", message="enough")))
            while (frame := wire.read()) is not None:
                most += frame.kind is Kind.DATA

        value = os.urandom(100 * MIB)
        parcel = pack(value, digest=ASKED)
        found = _talk(act, lambda c: save_parcel(c, ASKED, parcel))
        assert isinstance(found, FlecheError), found
        assert "enough" in str(found)

    def test_none(self) -> None:
        """A server that grants nothing and says nothing is given up like any silent one."""
        parcel = pack(os.urandom(40 * MIB), digest=ASKED)
        remote = RemoteCache(hostile_server(_silent), timeout=0.6, connect_timeout=10)
        with check_leaks(), remote, pytest.raises(RemoteConnectionError, match="silent"):
            save_parcel(remote, ASKED, parcel)


class TestParcels:
    """What a parcel holds is believed only after every check, and only then unpickled."""

    def _serving(self, data: bytes) -> Callable[[Wire], None]:
        return _answering(
            message(0, m.Found(str(KEY), size=len(data)), end=False),
            _data(data),
            _data(b"", end=True),
        )

    def test_altered(self) -> None:
        """Not one altered byte is unpickled, wherever it is."""
        parcel = pack(Poison(), digest=KEY)
        begin, data = parcel._offsets[0], parcel.tobytes()  # before it there are zeros, not read
        for offset in (*range(0, begin - 64, 5), *range(begin, len(data), 3)):
            altered = bytearray(data)
            altered[offset] ^= 0x10
            found = _talk(self._serving(bytes(altered)), lambda c: c.load_value(KEY))
            assert isinstance(found, CorruptParcel), (offset, found)

    def test_of_another_value(self) -> None:
        """A sound parcel of another value is refused unopened."""
        parcel = pack(Poison(), digest=ASKED).tobytes()
        found = _talk(self._serving(parcel), lambda c: c.load_value(KEY))
        assert isinstance(found, CorruptParcel)

    @pytest.mark.parametrize("keys", [(), (b"another",)])
    def test_signature(self, keys: tuple[bytes, ...]) -> None:
        """With a secret configured, what it did not sign is refused unopened."""
        parcel = pack(Poison(), digest=KEY, keys=keys).tobytes()

        def load(cache: RemoteCache) -> Any:
            cache.backend.packing = Packing(keys=(b"secret",))
            return cache.load_value(KEY)

        assert isinstance(_talk(self._serving(parcel), load), SignatureError)

    def test_signed(self) -> None:
        """The same, signed, opens: the test above proves something."""
        parcel = pack([1, 2], digest=KEY, keys=(b"secret",)).tobytes()

        def load(cache: RemoteCache) -> Any:
            cache.backend.packing = Packing(keys=(b"secret",))
            return cache.load_value(KEY)

        assert _talk(self._serving(parcel), load) == [1, 2]

    def test_exceptions_are_not_signed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a secret configured, a pickled exception stays closed; it is told in words."""
        monkeypatch.setenv("FLECHE_SECRET_KEY", "secret")
        failure = m.Failure("pickled", message="boo", type="x.Y", pickled=pickle.dumps(Poison()))
        found = _talk(_answering(message(0, failure)), lambda c: c.contains(KEY))
        assert isinstance(found, RuntimeError)
        assert "boo" in str(found)

    def test_the_record_of_another_call(self) -> None:
        """A record that does not make the key that was asked for is refused."""
        record = encode_record(CallRecord(name="f", result=ValueRef(KEY)))
        for key in (KEY, ASKED):
            entry = m.WireEntry(str(key), record)
            answer = message(0, m.Found(str(KEY), entry))
            found = _talk(_answering(answer), lambda c: c.load(KEY))
            assert isinstance(found, FlecheError), found


class TestGreeting:
    """A server that greets badly."""

    @pytest.mark.parametrize(
        "body",
        [
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b'{"protocol":' + b"9" * 5000 + b"}",
            b'{"protocol": 1}',
            b'{"protocol": "1", "info": {}}',
            b'{"protocol": 1, "info": []}',
            b"null",
            b"\xff\xfe",
            b"",
        ],
    )
    def test_no_greeting(self, body: bytes) -> None:
        """A sealed answer that is none is one error, at once, without any `connect_timeout`."""

        def badly(reader: Any, writer: Any) -> None:
            buffer = memoryview(bytearray(1 << 16))
            line = bytes(buffer[: reader.readinto(buffer)])
            writer.write(b"\nfleche-remote! " + line.split(b" ")[1] + b" " + seal(body) + b"\n")
            while reader.readinto(buffer):
                pass

        with check_leaks(), RemoteCache(PipeChannel(badly)) as remote:
            began = time.monotonic()
            with pytest.raises(RemoteConnectionError, match=r"greeting|answer of the server"):
                remote.info()
            assert time.monotonic() - began < 5

    def test_versions_are_harmless(self) -> None:
        """What a server says of its version cannot take over a terminal, nor fill it."""
        evil = "\x1b[2J" + "9" * 10_000
        info = {"fleche_version": evil, "cloudpickle_version": evil}
        remote = RemoteCache(hostile_server(_silent, version=evil, info=info))
        with check_leaks(), remote, pytest.warns(UserWarning, match="there") as caught:
            remote.info(refresh=False)
        too_new = RemoteCache(hostile_server(_silent, version=evil, protocol=9))
        with check_leaks(), too_new, pytest.raises(RemoteConnectionError) as raised:
            too_new.info()
        for text in (str(caught[0].message), str(raised.value)):
            assert "\x1b" not in text
            assert len(text) < 1000


# -- a hostile client ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transcripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, bytes]]:
    """What goes up and down when all is well, for each operation, without the greeting."""
    found = {}
    for name, operation in OPERATIONS.items():
        served = _served(tmp_path_factory.mktemp(name))
        tap = TappedChannel(PipeChannel(lambda i, o, served=served: serve(i, o, served)))
        with RemoteCache(tap, timeout=20, compression="none") as remote, suppress(*TYPED):
            operation(remote)
        # past the LF of the client's line; past the two of the server's
        found[name] = (tap.sent.split(b"\n", 1)[1], tap.received.split(b"\n", 2)[2])
    return found


def _served(root: Path) -> BaseCache:
    cache = cache_factory("memory", root)()
    cache.save(example_call())
    save_parcel(cache, KEY, pack(Poison(), digest=KEY))
    return cache


def _serve_bytes(cache: BaseCache, said: bytes) -> list[Frame]:
    """Return what a server answers to `said` after a greeting."""
    greeting = ClientGreeting((1, 1), (), "test")
    output = io.BytesIO()
    output.close = lambda: None  # type: ignore[method-assign]
    began = time.monotonic()
    serve(io.BytesIO(greeting.opening + said), output, cache)
    assert time.monotonic() - began < 10
    leftover = greeting.feed(output.getvalue())
    assert leftover is not None
    return FrameDecoder().feed(leftover)


def _check_unharmed(cache: BaseCache) -> None:
    report = cache.verify()
    assert not report.corrupt, report
    assert not report.dangling, report


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A few changes to bytes: flipped, deleted, doubled, replaced, cut off."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["flip", "delete", "double", "replace", "cut"]),
                st.floats(0, 1, exclude_max=True),
                st.binary(min_size=1, max_size=20),
            ),
            min_size=1,
            max_size=4,
        )
    )

    def mutate(data: bytes) -> bytes:
        for kind, where, piece in steps:
            at = int(where * len(data))
            if kind == "flip":
                data = data[:at] + bytes([data[at] ^ piece[0]]) + data[at + 1 :] if data else data
            elif kind == "delete":
                data = data[:at] + data[at + len(piece) :]
            elif kind == "double":
                data = data[: at + len(piece)] + data[at:]
            elif kind == "replace":
                data = data[:at] + piece + data[at + len(piece) :]
            else:
                data = data[:at]
        return data

    return mutate


names = st.sampled_from(sorted(OPERATIONS))


def _with_mutated_frames(data: bytes, mutate: Callable[[bytes], bytes], which: int) -> bytes:
    """Return the frames of `data`, the payload of one of them mutated, its checks right again."""
    frames = FrameDecoder().feed(data)
    chosen = frames[which % len(frames)]
    changed = chosen._replace(payload=mutate(bytes(chosen.payload))[:MAX_PAYLOAD])
    return b"".join(encode_frame(changed if f is chosen else f) for f in frames)


@FUZZ
@given(names, mutations(), st.integers(0, 50), st.booleans())
def test_a_server_survives_mutated_requests(
    transcripts: dict[str, tuple[bytes, bytes]],
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    mutate: Callable[[bytes], bytes],
    which: int,
    well_formed: bool,
) -> None:
    """Mutated requests are answered or end the connection; nothing is opened or half stored."""
    cache = _served(Path("unused"))
    sent = transcripts[name][0]
    said = _with_mutated_frames(sent, mutate, which) if well_formed else mutate(sent)
    _serve_bytes(cache, said)
    _check_unharmed(cache)


def test_a_value_under_the_address_of_another_is_refused() -> None:
    """So that what has that address can be saved, and is not taken for being there."""
    cache = _served(Path("unused"))
    values = cache.verify().values
    parcel = pack("asked", digest=ASKED)
    for address in (f"{KEY}.{parcel.variant}", str(KEY), f"{ASKED}.{'0' * 32}"):
        sent = [
            Frame(Kind.MESSAGE, 1, 0, m.encode(m.Save(parcels=[(address, parcel.nbytes)]))),
            Frame(Kind.DATA, 1, Flag.END, parcel.tobytes()),
        ]
        (answer,) = _serve_bytes(cache, b"".join(map(encode_frame, sent)))
        assert b"the parcel of another came" in bytes(answer.payload)
    assert cache.verify().values == values


def get_tag(kind: type) -> str:
    """Return what the field `op` says of a kind of message."""
    return str(kind.__struct_config__.tag)  # type: ignore[attr-defined]


any_frames = st.builds(
    Frame,
    st.sampled_from(list(Kind)),
    st.integers(0, 4),
    st.sampled_from([0, 1, 1, 2, 3, 4, 8, 9]),
    st.one_of(
        st.binary(max_size=70),
        st.sampled_from(
            [
                m.encode(request)
                for request in (
                    m.Info(),
                    m.Load([str(KEY)], 1 << 20),
                    m.LoadValues([str(KEY)]),
                    m.Save(parcels=[(str(KEY), 10)]),
                    m.Save([m.WireEntry(str(KEY), encode_record(CallRecord(name="f")))]),
                    m.Query(QueryCall()),
                    m.Contains([str(KEY)]),
                )
            ]
        ),
    ),
)


@FUZZ
@given(st.lists(any_frames, max_size=12))
def test_a_server_survives_any_frames(frames: list[Frame]) -> None:
    """Well-formed frames in any order: answers, or the end of the connection."""
    cache = _served(Path("unused"))
    answers = _serve_bytes(cache, b"".join(map(encode_frame, frames)))
    asked = {frame.stream_id for frame in frames}
    assert {frame.stream_id for frame in answers} <= asked | {0}


@FUZZ
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(1 << 63), (1 << 64) - 1)
        | st.floats(allow_nan=False)
        | st.text(max_size=10)
        | st.binary(max_size=10)
        | st.just(str(KEY)),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["op", "keys", "digests", "entries", "parcels", "inline", "template", "info"]
                )
                | st.text(max_size=4),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from([get_tag(kind) for kind in (*get_args(m.Request), *get_args(m.Answer))]),
)
def test_messages(body: Any, op: str) -> None:
    """Any msgpack is a message or a `ProtocolError`."""
    if isinstance(body, dict):
        body = {**body, "op": op}
    data = msgspec.msgpack.encode(body)
    for decode in (m.decode_request, m.decode_answer):
        with suppress(ProtocolError):
            m.encode(decode(data))  # type: ignore[operator]


@pytest.mark.parametrize("name", ["ab" * 32 + "\n", "AB" * 32, "../" + "ab" * 30, "abc", ""])
@pytest.mark.parametrize(
    "asking",
    [
        lambda name: m.Load([name]),
        lambda name: m.LoadValues([name]),
        lambda name: m.Save(entries=[m.WireEntry(name, b"")]),
        lambda name: m.Save(entries=[m.WireEntry("ab" * 32, b"", {name: b""})]),
        lambda name: m.Save(parcels=[(name, 1)]),
        lambda name: m.Save(unpin=[name]),
        lambda name: m.Lacking([name]),
        lambda name: m.Contains([name]),
        lambda name: m.Evict([name]),
        lambda name: m.Expand([name]),
        lambda name: m.Shrink([name]),
    ],
)
def test_names_of_entries(name: str, asking: Callable[[str], m.Request]) -> None:
    """A key or an address is one to the last character: it becomes the name of a file."""
    with pytest.raises(ProtocolError, match="not a request"):
        m.decode_request(m.encode(asking(name)))


@FUZZ
@given(st.binary(max_size=200))
def test_garbage_messages(data: bytes) -> None:
    """Any bytes are a message or a `ProtocolError`."""
    for decode in (m.decode_request, m.decode_answer):
        with suppress(ProtocolError):
            decode(data)  # type: ignore[operator]


@FUZZ
@given(names, mutations(), st.sampled_from([0, 1]), st.integers(1, 40))
def test_decoder(
    transcripts: dict[str, tuple[bytes, bytes]],
    name: str,
    mutate: Callable[[bytes], bytes],
    direction: int,
    step: int,
) -> None:
    """Mutated bytes, however they arrive: frames or a `ProtocolError`, in a frame's memory."""
    data = mutate(transcripts[name][direction])
    decoder = FrameDecoder()
    with suppress(ProtocolError):
        for start in range(0, len(data), step):
            decoder.feed(data[start : start + step])
            assert len(decoder.buffer()) <= MAX_PAYLOAD


@FUZZ
@given(st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 255))
def test_headers(length: int, kind: int, flags: int) -> None:
    """Whatever a header claims, its check right, it costs the memory of one frame at most."""
    checked = struct.pack("<IIBB", length, 1, kind, flags)
    header = checked + struct.pack("<HI", zlib.crc32(checked) & 0xFFFF, 0)
    decoder = FrameDecoder()
    try:
        decoder.feed(header)
    except ProtocolError:
        return
    assert length <= MAX_PAYLOAD
    assert len(decoder.buffer()) <= MAX_PAYLOAD


@FUZZ
@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["protocol", "features", "version", "info"]), inner, max_size=4
                )
            ),
            max_leaves=8,
        ).map(lambda body: __import__("json").dumps(body).encode()),
    )
)
def test_greetings(body: bytes) -> None:
    """Any sealed body is a greeting or a `ProtocolError`, on both sides."""
    server = ServerGreeting((1, 1))
    with suppress(ProtocolError):
        server.feed(b"fleche-remote? " + b"0" * 32 + b" " + seal(body) + b"\n")
        if server.hello is not None:
            assert server.answer((), "1", {})
    client = ClientGreeting((1, 1), (), "1")
    token = client.opening.split(b" ")[1]
    with suppress(ProtocolError):
        client.feed(b"\nfleche-remote! " + token + b" " + seal(body) + b"\n")


@FUZZ
@given(st.sampled_from(["client", "server"]), st.lists(any_frames, max_size=60))
def test_protocols(side: Any, frames: list[Frame]) -> None:
    """Any frames are events or a `ProtocolError`; what must be kept never exceeds the window."""
    protocol = Protocol(side)
    if side == "client":
        for _ in range(3):
            protocol.send(protocol.open(), Kind.MESSAGE, b"", Flag.END)
    kept: dict[int, int] = {}
    with suppress(ProtocolError):
        for frame in frames:
            event = protocol.receive(frame)
            if type(event).__name__ == "Received":
                price = cost(frame.flags, len(frame.payload))
                kept[frame.stream_id] = kept.get(frame.stream_id, 0) + price
    assert all(size <= WINDOW + 2 * MAX_PAYLOAD for size in kept.values())


@settings(FUZZ, max_examples=examples(0.4).max_examples)
@given(names, mutations(), st.integers(0, 50), st.booleans())
def test_a_client_survives_mutated_answers(
    transcripts: dict[str, tuple[bytes, bytes]],
    name: str,
    mutate: Callable[[bytes], bytes],
    which: int,
    well_formed: bool,
) -> None:
    """Mutated answers give an answer or one typed error; nothing hangs, no altered parcel opens."""
    received = transcripts[name][1]
    said = _with_mutated_frames(received, mutate, which) if well_formed else mutate(received)

    def act(wire: Wire) -> None:
        wire.request()
        wire.write_bytes(said)
        time.sleep(0.005)

    found = _talk(act, OPERATIONS[name])
    if name in ("load_value", "load"):
        opened.clear()  # unaltered, it may open
    if isinstance(found, Exception):
        assert isinstance(found, TYPED), found


class TestFloods:
    """A client that sends what costs a server memory."""

    def _said(self, *frames: Frame) -> bytes:
        return b"".join(map(encode_frame, frames))

    def test_ends(self) -> None:
        """Ends of one exchange, which are free, cannot pile up: the second is a violation."""
        cache, over = _served(Path("unused")), Event()
        cache.backend.contains = lambda keys: [over.wait(1)]  # type: ignore[method-assign]
        said = (
            message(1, m.Contains([str(KEY)]), end=False),
            *(_data(b"", end=True)._replace(stream_id=1),) * 2,
            message(2, m.Info()),
        )
        assert not _serve_bytes(cache, self._said(*said)), "the connection should have ended"

    def test_pings(self) -> None:
        """Neither can pings."""
        said = self._said(Frame(Kind.PING, 0, 0, b"x" * 64)) * 20_000
        cache = _served(Path("unused"))
        with _bounded(40 * MIB):
            _serve_bytes(cache, said)

    @pytest.mark.parametrize("size", [10**9, 1 << 40, (1 << 62) - 1])
    def test_a_claimed_size(self, tmp_path: Path, size: int) -> None:
        """A parcel of any announced size costs what comes of it."""
        cache = cache_factory("file", tmp_path)()
        said = self._said(
            message(1, m.Save(parcels=[(str(KEY), size)]), end=False),
            _data(pack_bytes(b"x", "pickle", digest=KEY).tobytes())._replace(stream_id=1),
            _data(b"", end=True)._replace(stream_id=1),
        )
        with _bounded(16 * MIB):
            (answer, *_) = [f for f in _serve_bytes(cache, said) if f.payload]
        failure = m.decode_answer(answer.payload)
        assert isinstance(failure, m.Failure)
        assert not list(tmp_path.rglob("*.*"))

    def test_bombs(self) -> None:
        """What decompresses to more than a frame ends the connection before it does."""
        bomb = zlib.compress(bytes(1 << 28))
        said = self._said(
            Frame(Kind.MESSAGE, 1, Flag.END | Flag.ZLIB, bomb), message(2, m.Contains([str(KEY)]))
        )
        with _bounded(16 * MIB):
            assert not _serve_bytes(_served(Path("unused")), said), "it should have ended"

    def test_zstd_bombs(self) -> None:
        """The same for Zstandard."""
        bomb = zstd_module().compress(bytes(1 << 28))
        said = self._said(Frame(Kind.MESSAGE, 1, Flag.END | Flag.ZSTD, bomb))
        with _bounded(16 * MIB):
            assert not _serve_bytes(_served(Path("unused")), said), "it should have ended"


# -- a real server against a client that ignores what it was told ---------------------------------


@contextmanager
def _server(tmp_path: Path, *arguments: str) -> Iterator[Wire]:
    (tmp_path / "fleche.toml").write_text(
        '[default]\ncache = "c"\n[c]\ntemplate = "cloudpickle"\nroot = "store"\n'
    )
    command = [sys.executable, "-m", "fleche", "remote", "--serve", *arguments]
    with check_leaks(), raw_client(command, tmp_path) as wire:
        yield wire


def _upload(exchange: int, name: str, parcel: bytes) -> tuple[Frame, ...]:
    return (
        message(exchange, m.Save(parcels=[(name, len(parcel))]), end=False),
        _data(parcel)._replace(stream_id=exchange),
        _data(b"", end=True)._replace(stream_id=exchange),
    )


def test_read_only_holds(tmp_path: Path) -> None:
    """A client that has not read its greeting cannot write, and is told so; the server goes on."""
    with _server(tmp_path, "--read-only") as wire:
        wire.write(*_upload(1, str(KEY), pack(1, digest=KEY).tobytes()))
        wire.write(message(2, m.Save([m.WireEntry(str(KEY), encode_record(CallRecord(name="f")))])))
        wire.write(message(3, m.Evict([str(KEY)])))
        for exchange in (1, 2, 3):
            (failure,) = _all_answers(wire, exchange)
            assert failure.code == "rejected", exchange
        assert not [p for p in (tmp_path / "store").rglob("*") if p.suffix or len(p.name) > 40]


def _all_answers(wire: Wire, exchange: int) -> list[Any]:
    """Return what came for an exchange; what comes for others meanwhile is kept."""
    while True:
        mine = [frame for frame in wire.seen if frame.stream_id == exchange]
        if mine and mine[-1].end:
            return [m.decode_answer(frame.payload) for frame in mine if frame.payload]
        frame = wire.read()
        assert frame is not None, "the server ended"
        wire.seen.append(frame)


class Marker:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("arguments", [(), ("--no-unpickle",)])
def test_a_server_never_unpickles(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Whatever is done with a parcel, the server does not open it."""
    mark = tmp_path / "opened"
    parcel = pack(Marker(str(mark)), digest=KEY).tobytes()
    record = CallRecord(name="f", arguments={"x": ValueRef(KEY)}, result=ValueRef(KEY))
    with _server(tmp_path, *arguments) as wire:
        wire.write(*_upload(1, str(KEY), parcel))
        assert _all_answers(wire, 1) == [m.Done()]
        requests: tuple[m.Request, ...] = (
            m.Save([m.WireEntry(str(record.key), encode_record(record))]),
            m.Load([str(record.key)], MIB),
            m.Contains([str(record.key), str(KEY)]),
            m.Lacking([str(KEY)]),
            m.Shrink([str(KEY)]),
            m.Expand([KEY[:8]]),
            m.Query(QueryCall(name="f")),
            m.Query(QueryCall(name="f", result=1, arguments={"x": 1})),
            m.Info(),
            m.Evict([str(record.key)]),
        )
        for number, request in enumerate(requests, 2):
            wire.write(message(number, request))
            while (frame := wire.read()) is not None and not frame.end:
                pass
            assert frame is not None, request
    assert not mark.exists()


@pytest.mark.parametrize("metadata", [5, ["runtime"], {"runtime": 5}])
def test_a_server_keeps_no_unreadable_metadata(tmp_path: Path, metadata: Any) -> None:
    """They are decoded late elsewhere, but what a client sends is read whole."""
    unread = msgspec.Raw(msgspec.msgpack.encode(metadata))
    record = CallRecord(name="f", result=ValueRef(KEY)).replace(encoded_metadata=unread)
    with _server(tmp_path) as wire:
        wire.write(message(1, m.Save([m.WireEntry(str(record.key), encode_record(record))])))
        (failure,) = _all_answers(wire, 1)
        assert isinstance(failure, m.Failure)
        assert "metadata cannot be read" in failure.message
        wire.write(message(2, m.Load([str(record.key)], MIB)))
        assert not any(isinstance(each, m.Found) for each in _all_answers(wire, 2))


@pytest.mark.parametrize(
    "changes",
    [
        {"arguments": {"x": ValueRef(NO_KEY)}},
        {"result": ValueRef(NO_KEY)},
        {"error": ValueRef(NO_KEY)},
        {"states": {"x": ValueRef(NO_KEY)}},
        {"code": NO_KEY},
        {"children": (NO_KEY,)},
        {"result": ValueRef(str(KEY), variant="x")},
    ],
)
def test_a_server_keeps_no_record_of_what_is_no_digest(tmp_path: Path, changes: Any) -> None:
    """Nothing could be looked up by it, and ``verify`` would find the call damaged."""
    record = CallRecord(**{"name": "f", "result": ValueRef(KEY), **changes})
    with _server(tmp_path) as wire:
        wire.write(message(1, m.Save([m.WireEntry(str(KEY), encode_record(record))])))
        (failure,) = _all_answers(wire, 1)
        assert isinstance(failure, m.Failure)
        assert "is not a digest" in failure.message


def test_a_poisoned_call_stays_closed(tmp_path: Path) -> None:
    """Saving through the client and every operation of the server leave the value closed."""
    served = cache_factory("file", tmp_path)()
    channel = PipeChannel(lambda i, o: serve(i, o, served))
    with check_leaks(), RemoteCache(channel, timeout=20) as remote:
        key = remote.save(Call("f", {"x": Poison()}, result=Poison()))
        assert remote.contains(key)
        assert remote.query(name="f").count() == 1
        assert remote.load(key).record.name == "f"
        remote.evict(key)


def test_headers_are_small() -> None:
    """The figures of this file depend on it."""
    assert HEADER.size == 16
