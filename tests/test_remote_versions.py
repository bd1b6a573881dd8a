"""Versions: other Pythons, other numpys, other minor versions of fleche, other protocols."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleche.errors import ProtocolError, RemoteConnectionError
from fleche.remote import PipeChannel, RemoteCache, serve
from fleche.remote._frames import Frame, FrameDecoder, Kind, encode_frame
from fleche.remote._handshake import ClientGreeting
from fleche.remote._protocol import PROTOCOL
from tests.golden.wire import (
    CODA,
    OPERATIONS,
    Transcript,
    by_exchange,
    content,
    make_served,
    normal_frame,
    run,
)
from tests.helpers.leaks import check_leaks
from tests.helpers.peers import Wire, hostile_server, seal
from tests.helpers.pythons import PYTHON_VERSIONS, Pythons
from tests.helpers.sweeps import swept

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"

# -- golden transcripts ----------------------------------------------------------------------------


def _newer(frame: Frame) -> Frame:
    """The frame as a newer peer might say it: with more fields than we know."""
    if frame.kind is not Kind.MESSAGE:
        return frame
    body = msgspec.msgpack.decode(frame.payload)
    more = {"since": 2030, **body, "zz": [{"any": b"thing"}, None], "deep": {"op": "evict"}}
    return frame._replace(payload=msgspec.msgpack.encode(more))


def _same(frame: Frame) -> Frame:
    return frame


def _newer_line(line: bytes, word: bytes) -> bytes:
    """A line of the greeting with fields and features that are not known."""
    body = json.loads(line.split(b" ", 3)[3])
    features = [*body["features"], "quantum", "compress=brotli"]
    more = {"origin": {"a": [1]}, **body, "features": features, "motto": "hello"}
    return word + seal(json.dumps(more).encode())


class Replay:
    """A recorded client, at the other end of today's server."""

    def __init__(self, greeting: bytes) -> None:
        served = make_served()
        self._channel = PipeChannel(lambda i, o: serve(i, o, served))
        self._reader, self._writer = self._channel.open()
        self._writer.write(greeting + b"\n")
        buffer, seen = memoryview(bytearray(1 << 16)), b""
        while seen.count(b"\n") < 2:
            count = self._reader.readinto(buffer)
            assert count, "no server"
            seen += bytes(buffer[:count])
        _, self.line, leftover = seen.split(b"\n", 2)
        self.wire = Wire(self._reader, self._writer, leftover)

    def ask(self, exchange: int, frames: list[Frame]) -> list[Frame]:
        """Send frames and return what comes for `exchange` up to its end."""
        self.wire.write(*frames)
        found: list[Frame] = []
        while not found or not found[-1].end:
            frame = self.wire.read()
            assert frame is not None, "the server ended"
            if frame.stream_id == exchange:
                found.append(frame._replace(payload=bytes(frame.payload)))
        return found

    def close(self) -> None:
        """End the connection."""
        self._writer.close()
        self.wire.join()
        self._channel.close()
        self._reader.close()


@contextmanager
def _replaying(greeting: bytes) -> Iterator[Replay]:
    with check_leaks():
        replay = Replay(greeting)
        try:
            yield replay
        finally:
            replay.close()


@pytest.fixture(scope="module")
def transcript() -> Transcript:
    """The session as it was recorded."""
    return Transcript()


def test_frames_are_as_recorded(transcript: Transcript) -> None:
    """Recorded bytes are today's frames, and the other way round, bit for bit."""
    for data in (transcript.up, transcript.down):
        frames = FrameDecoder().feed(data)
        assert len(frames) >= len(OPERATIONS)
        assert b"".join(map(encode_frame, frames)) == data


@pytest.mark.parametrize("change", [_same, _newer])
def test_the_server_answers_as_recorded(
    transcript: Transcript, change: Callable[[Frame], Frame]
) -> None:
    """A recorded client gets the recorded answers, also if it says more than we know."""
    line = transcript.up_line
    if change is _newer:
        line = _newer_line(line, b"fleche-remote? " + b"0" * 32 + b" ")
    asked, answered = by_exchange(transcript.up), by_exchange(transcript.down)
    with _replaying(line) as replay:
        assert replay.line.startswith(b"fleche-remote! " + b"0" * 32 + b" ")
        ours = json.loads(replay.line.split(b" ", 3)[3])
        theirs = json.loads(transcript.down_line.split(b" ", 3)[3])
        assert set(theirs) <= set(ours)
        assert set(theirs["info"]) <= set(ours["info"])
        assert ours["protocol"] == PROTOCOL
        for exchange, frames in asked.items():
            found = replay.ask(exchange, [change(frame) for frame in frames])
            found = [normal_frame(frame) for frame in found]
            assert content(found) == content(answered[exchange]), exchange


def test_the_server_in_a_corner(transcript: Transcript) -> None:
    """What no ordinary client says: an unknown request, and a ping."""
    with _replaying(transcript.up_line) as replay:
        unknown, ping = CODA
        (failure, _) = content(replay.ask(1, [unknown]))
        body = msgspec.msgpack.decode(failure[1])
        assert (body["op"], body["code"]) == ("failure", "protocol")
        replay.wire.write(ping)
        pong = replay.wire.read()
        assert pong is not None
        assert (pong.kind, bytes(pong.payload)) == (Kind.PONG, b"?")


def _answer_as_recorded(
    transcript: Transcript, change: Callable[[Frame], Frame], wrong: list[Any], wire: Wire
) -> None:
    """Be the recorded server; note in `wrong` whatever the client says otherwise."""
    answered = by_exchange(transcript.down)
    for exchange, expected in by_exchange(transcript.up).items():
        frames: list[Frame] = []
        while not frames or not frames[-1].end:
            frame = wire.read()
            if frame is None:
                return
            if frame.kind in (Kind.MESSAGE, Kind.DATA):
                frames.append(frame)
        if content(frames) != content(expected):
            wrong.append((content(frames), content(expected)))
        wire.write(*(change(frame) for frame in answered[exchange]))
    while wire.read() is not None:
        pass


@pytest.mark.parametrize("change", [_same, _newer])
def test_the_client_understands_what_was_recorded(
    transcript: Transcript, change: Callable[[Frame], Frame]
) -> None:
    """Today's client asks as recorded, and a recorded server's answers mean what they meant."""
    wrong: list[Any] = []
    act = partial(_answer_as_recorded, transcript, change, wrong)
    said = json.loads(transcript.down_line.split(b" ", 3)[3])
    said["info"] |= {"fleche_version": "0.1.0", "cloudpickle_version": "2.0.0", "motto": "hello"}
    if change is _newer:
        said |= {"features": [*said["features"], "quantum"], "origin": 1}
    channel = hostile_server(act, **said)
    with check_leaks(), RemoteCache(channel, timeout=20, compression="none") as remote:
        with pytest.warns(UserWarning, match="cloudpickle 2.0.0 there"):
            remote.info(refresh=False)
        for name, operation in OPERATIONS.items():
            answer = run(operation, remote)
            if name != "info":
                assert answer == transcript.answers[name], name
    assert wrong == []


# -- other protocols -------------------------------------------------------------------------------


def _only_line(error: BaseException) -> str:
    first, _, rest = str(error).partition("\n")
    assert rest.count("\n") == 0
    assert "reconnect()" in rest
    return first


def test_a_server_that_is_too_new() -> None:
    """One sentence says that this machine needs the upgrade."""
    remote = RemoteCache(
        hostile_server(lambda wire: wire.request(), protocol=PROTOCOL + 1, version="7.0")
    )
    with check_leaks(), remote, pytest.raises(RemoteConnectionError) as caught:
        remote.info()
    assert _only_line(caught.value).endswith(
        f"the server (fleche 7.0) speaks protocol {PROTOCOL + 1}, this client {PROTOCOL} to "
        f"{PROTOCOL}: upgrade fleche on this machine"
    )


def test_a_server_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence says that the remote machine needs the upgrade."""
    monkeypatch.setattr("fleche.remote._connection.PROTOCOL", PROTOCOL + 1)
    remote = RemoteCache(PipeChannel(lambda i, o: serve(i, o, make_served())))
    with check_leaks(), remote, pytest.raises(RemoteConnectionError) as caught:
        remote.info()
    assert _only_line(caught.value).endswith("upgrade fleche on the remote machine")


@pytest.mark.parametrize("spoken", [[1, 7], [0, 1], [-5, 1]])
def test_a_client_that_speaks_more(spoken: list[int]) -> None:
    """A client that speaks other versions too is answered in the common one."""
    body = json.dumps({"protocol": spoken, "features": [], "version": "7.0"}).encode()
    with _replaying(b"fleche-remote? " + b"0" * 32 + b" " + seal(body)) as replay:
        assert json.loads(replay.line.split(b" ", 3)[3])["protocol"] == 1


@pytest.mark.parametrize(("low", "high", "who"), [(2, 3, "remote"), (0, 0, "this")])
def test_a_client_of_another_time(low: int, high: int, who: str) -> None:
    """A server greets every client, so that the client can say which side is to be upgraded."""
    greeting = ClientGreeting((low, high), (), "7.0")
    with _replaying(greeting.opening.rstrip(b"\n")) as replay:
        line = replay.line
    with pytest.raises(ProtocolError, match=f"upgrade fleche on (the )?{who}"):
        greeting.feed(b"\n" + line + b"\n")


# -- other Pythons ---------------------------------------------------------------------------------

_SHAPES = """\
from dataclasses import dataclass, field
from enum import Enum

@dataclass
class Point:
    x: float
    tags: list = field(default_factory=list)

@dataclass(frozen=True)
class Frozen:
    point: Point
    name: str = "n"

class Colour(Enum):
    RED = "red"

class Problem(Exception):
    def __init__(self, message, detail):
        super().__init__(message, detail)
        self.detail = detail
"""

_SITE = """\
import shapes
from fleche.caches import LocalBackend
contains = LocalBackend.contains
ERRORS = {
    "dead": lambda: shapes.Problem("from there", {"answer": 42}),
    "beef": lambda: 1 / 0,
    "cafe": lambda: ValueError("numbers", 1, (2,)),
}
def troubled(self, keys):
    for key in keys:
        made = ERRORS.get(key[:4])
        if made is not None:
            raise made()
    return contains(self, keys)
LocalBackend.contains = troubled
"""

_COMMON = """\
import datetime, decimal, fractions, json, os, sys, uuid
import numpy
from fleche.call import Call
from shapes import Colour, Frozen, Point, Problem

def of_both(x):
    return x + 2

VALUES = {
    "builtins": [None, True, 1 << 80, -1.5, 2j, "snow \\u2603", b"\\0bytes", (1,), {"a": {2}},
                 frozenset([3]), range(4), ..., slice(1, 2), bytearray(b"x")],
    "stdlib": [datetime.datetime(2020, 1, 2), datetime.timedelta(1), decimal.Decimal("1.50"),
               fractions.Fraction(1, 3), uuid.UUID(int=7)],
    "dataclasses": Frozen(Point(1.5, [Colour.RED])),
    "long": bytes(range(256)) * 8000,
}
ARRAYS = {
    "floats": numpy.arange(30_000, dtype="float64").reshape(100, 300),
    "fortran": numpy.asfortranarray(numpy.arange(12).reshape(3, 4)),
    "text": numpy.array(["a", "bcd"]),
    "records": numpy.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    "empty": numpy.zeros((0, 3)),
    "booleans": numpy.array([True, False]),
    "dates": numpy.array(["2020-01-01"], dtype="datetime64[D]"),
    "big-endian": numpy.arange(5, dtype=">i8"),
}

def fill(cache, who):
    keys = {}
    for name, value in [*VALUES.items(), *ARRAYS.items()]:
        keys[name] = str(cache.save(Call("give", {"who": who, "name": name}, result=value)))
    for name, function in (("code", globals()["of_" + who]), ("shared code", of_both)):
        keys[name] = str(cache.save(Call("give", {"who": who, "name": name}, result=function)))
    return keys

def check(cache, keys, python):
    from fleche.errors import UnpackError
    for name, value in VALUES.items():
        assert cache.load(keys[name]).result == value, name
    for name, value in ARRAYS.items():
        found = cache.load(keys[name]).result
        assert found.dtype == value.dtype and found.shape == value.shape, name
        assert (found == value).all(), name
        found.flags.writeable and found.fill(0)
    assert cache.load(keys["shared code"]).result is of_both
    ours = "%d.%d" % sys.version_info[:2]
    try:
        function = cache.load(keys["code"]).result
    except UnpackError as error:
        assert ours != python, error
        text = str(error)
        assert "\\n" not in text and f"Python {python}" in text and f"Python {ours}" in text, text
        assert "define it in a module that both can import" in text
    else:
        assert ours == python
        assert function(1) == 2
"""

_FILL = (
    _COMMON
    + """
def of_server(x):
    return x + 1

from fleche.config import load_cache_config
with load_cache_config() as cache:
    if len(sys.argv) > 1:
        check(cache, json.loads(sys.argv[1]), sys.argv[2])
    else:
        print(json.dumps(fill(cache, "server")))
"""
)

_VISIT = (
    _COMMON
    + """
def of_client(x):
    return 1 + x

from fleche.remote import SubprocessCache
theirs, python, version, workdir = sys.argv[1:]
with SubprocessCache(python=python, workdir=workdir, timeout=30, connect_timeout=30) as cache:
    info = cache.info()
    assert info["python"].startswith(version + "."), info
    check(cache, json.loads(theirs), version)
    keys = fill(cache, "client")
    check(cache, keys, "%d.%d" % sys.version_info[:2])
    for key, kind, arguments in (
        ("dead", Problem, ("from there", {"answer": 42})),
        ("beef", ZeroDivisionError, ("division by zero",)),
        ("cafe", ValueError, ("numbers", 1, (2,))),
    ):
        try:
            cache.contains(key + "0" * 60)
        except kind as error:
            assert error.args == arguments
            notes = "".join(getattr(error, "__notes__", ())) or str(error.__cause__)
            assert "remote traceback" in notes and "troubled" in notes, notes
        else:
            raise AssertionError(key)
    try:
        cache.load("0" * 64)
    except KeyError as error:
        assert "0" * 64 in error.args[0]
    assert cache.query(name="give").count() == 2 * len(keys)
print(json.dumps(keys))
"""
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with a module that both sides can import, and a cache that they share."""
    (tmp_path / "fleche.toml").write_text(
        '[default]\ncache = "c"\n[c]\ntemplate = "cloudpickle"\nroot = "store"\n'
    )
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "shapes.py").write_text(_SHAPES)
    (tmp_path / "modules" / "sitecustomize.py").write_text(_SITE)
    (tmp_path / "fill.py").write_text(_FILL)
    (tmp_path / "visit.py").write_text(_VISIT)
    return tmp_path


def _run(project: Path, python: str, *arguments: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(project / "modules"), *_running_from_a_copy()]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [python, "-W", "error::RuntimeWarning", *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _running_from_a_copy() -> list[str]:
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


OLDEST = next(version for version in PYTHON_VERSIONS if version != HERE)
NEWEST = next(version for version in reversed(PYTHON_VERSIONS) if version != HERE)
PAIRS = swept(
    itertools.product(PYTHON_VERSIONS, repeat=2),
    lambda pair: pair in ((OLDEST, HERE), (HERE, NEWEST)),
)


@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_pythons(pythons: Pythons, project: Path, no_leaks: None, client: str, server: str) -> None:
    """Values, code and errors cross between any two Pythons, and any two numpys, both ways."""
    theirs = _run(project, pythons[server], "fill.py").strip()
    arguments = (theirs, pythons[server], server, str(project))
    ours = _run(project, pythons[client], "visit.py", *arguments).strip()
    _run(project, pythons[server], "fill.py", ours, client)
