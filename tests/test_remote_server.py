"""The server: its loop, its streams, its secrets, and its command line."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest

from fleche.call import CallEntry, CallRecord, QueryCall, ValueRef, encode_record
from fleche.config import load_cache_config
from fleche.digest import Digest
from fleche.errors import ConfigError, ProtocolError, Rejected, RemoteConnectionError
from fleche.parcel import pack
from fleche.remote import LocalSubprocessChannel, RemoteCache, SubprocessCache, serve
from fleche.remote import _messages as m
from fleche.remote._frames import Flag, Frame, FrameDecoder, Kind, encode_frame
from fleche.remote._handshake import ClientGreeting
from fleche.testing import example_call
from tests.helpers.caches import cache_factory
from tests.helpers.layers import in_memory
from tests.helpers.serving import Serving

ABSENT = "0" * 64


def _talk(cache: Any, *frames: Frame) -> list[Frame]:
    """Return what a server answers to a greeting and `frames`, over streams in memory."""
    greeting = ClientGreeting((1, 1), (), "test")
    output = io.BytesIO()
    said = greeting.opening + b"".join(map(encode_frame, frames))
    serve(io.BytesIO(said), output, cache)
    leftover = greeting.feed(output.getvalue())
    assert leftover is not None
    return FrameDecoder().feed(leftover)


def _ask(cache: Any, *requests: bytes) -> list[Any]:
    frames = [Frame(Kind.MESSAGE, n, Flag.END, data) for n, data in enumerate(requests, 1)]
    answers = {frame.stream_id: frame for frame in _talk(cache, *frames) if frame.payload}
    return [m.decode_answer(answers[number].payload) for number in range(1, len(requests) + 1)]


class TestLoop:
    """`serve()` answers until its input ends."""

    def test_streams_in_memory(self, tmp_path: Path) -> None:
        """Any binary streams will do; every request is answered before it returns."""
        cache = cache_factory("memory", tmp_path)()
        key = cache.save(example_call())
        found = _ask(
            cache,
            m.encode(m.Contains([key, ABSENT])),
            m.encode(m.Expand([key[:8]])),
        )
        assert found == [m.Flags([True, False]), m.Expanded([[key]])]
        (nothing,) = _talk(cache, Frame(Kind.MESSAGE, 1, Flag.END, m.encode(m.Load([ABSENT]))))
        assert (nothing.stream_id, nothing.end, bytes(nothing.payload)) == (1, True, b"")

    def test_nobody_there(self, tmp_path: Path) -> None:
        """An input that ends before the greeting ends the server without a word."""
        output = io.BytesIO()
        serve(io.BytesIO(), output, cache_factory("memory", tmp_path)())
        assert output.getvalue() == b""

    @pytest.mark.parametrize("lacking", ["ctypes", "gnu_get_libc_version"])
    def test_another_c_library(self, tmp_path: Path, lacking: str) -> None:
        """Where freed memory cannot be told to go, as on macOS, a server serves all the same."""
        (tmp_path / "sitecustomize.py").write_text(
            "import ctypes, sys\n"
            + (
                "sys.modules['ctypes'] = None"
                if lacking == "ctypes"
                else "ctypes.CDLL = lambda _: 0"
            )
        )
        env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        with SubprocessCache(workdir=str(_configured(tmp_path)), env=env) as remote:
            assert not remote.contains(ABSENT)

    def test_a_stranger(self, tmp_path: Path) -> None:
        """What is no client is refused."""
        cache = cache_factory("memory", tmp_path)()
        with pytest.raises(ProtocolError, match="GET /"):
            serve(io.BytesIO(b"GET / HTTP/1.1\r\n"), io.BytesIO(), cache)

    @pytest.mark.parametrize(
        "request_bytes",
        [
            b"",
            b"\xc1",
            b"garbage",
            msgspec.msgpack.encode({"op": "no such thing"}),
            msgspec.msgpack.encode({"op": "load"}),
            msgspec.msgpack.encode({"op": "load", "keys": ["../../etc/passwd"]}),
            msgspec.msgpack.encode({"op": "contains", "keys": "not a list"}),
            msgspec.msgpack.encode({"op": "save", "parcels": [[ABSENT, -1]]}),
            msgspec.msgpack.encode({"op": "save", "entries": [[ABSENT, b"nonsense"]]}),
            b"\x91" * 5000,
        ],
    )
    def test_malformed_requests(self, tmp_path: Path, request_bytes: bytes) -> None:
        """A malformed request is answered with an error, and the loop lives on."""
        cache = cache_factory("memory", tmp_path)()
        first, second = _ask(cache, request_bytes, m.encode(m.Contains([ABSENT])))
        assert isinstance(first, m.Failure)
        assert first.code in ("protocol", "corrupt")
        assert second == m.Flags([False])

    def test_unknown_fields(self, tmp_path: Path) -> None:
        """A newer client may say more."""
        more = msgspec.msgpack.encode({"op": "contains", "keys": [ABSENT], "since": 2030})
        assert _ask(cache_factory("memory", tmp_path)(), more) == [m.Flags([False])]

    @pytest.mark.parametrize("size", [10, 10**12])
    def test_a_parcel_that_is_none(self, tmp_path: Path, size: int) -> None:
        """What is no parcel, or another one than announced, is never stored."""
        cache = cache_factory("file", tmp_path)()
        frames = [
            Frame(Kind.MESSAGE, 1, 0, m.encode(m.Save(parcels=[(ABSENT, size)]))),
            Frame(Kind.DATA, 1, 0, b"0123456789"),
            Frame(Kind.DATA, 1, Flag.END, b""),
        ]
        answers = [frame for frame in _talk(cache, *frames) if frame.payload]
        failure = m.decode_answer(answers[0].payload)
        assert isinstance(failure, m.Failure)
        assert failure.code == "corrupt"
        assert list(tmp_path.rglob("*.*")) == []

    def test_an_altered_parcel(self, tmp_path: Path) -> None:
        """A parcel with one flipped bit is refused before it is visible."""
        cache = cache_factory("file", tmp_path)()
        data = bytearray(pack(list(range(1000)), digest=ABSENT).tobytes())
        data[-5] ^= 4
        frames = [
            Frame(Kind.MESSAGE, 1, 0, m.encode(m.Save(parcels=[(ABSENT, len(data))]))),
            Frame(Kind.DATA, 1, Flag.END, data),
        ]
        answers = [frame for frame in _talk(cache, *frames) if frame.payload]
        failure = m.decode_answer(answers[0].payload)
        assert isinstance(failure, m.Failure)
        assert failure.code == "corrupt"
        assert not cache.contains(ABSENT)

    def test_an_altered_parcel_in_an_entry(self, tmp_path: Path) -> None:
        """So is one that travels with its call, and with it all that was sent along."""
        cache = cache_factory("file", tmp_path)()
        parcel = pack([1, 2, 3], digest=ABSENT)
        at, data = f"{ABSENT}.{parcel.variant}", bytearray(parcel.tobytes())
        record = CallRecord(name="f", result=ValueRef(ABSENT, parcel.variant, len(data)))
        sound = CallRecord(name="g", result=ValueRef(ABSENT))
        for offset, code in ((None, None), (-5, "corrupt")):
            if offset is not None:
                data[offset] ^= 4
            entries = [
                m.WireEntry(str(sound.key), encode_record(sound)),
                m.WireEntry(str(record.key), encode_record(record), {at: bytes(data)}),
            ]
            (answer,) = _ask(cache, m.encode(m.Save(entries)))
            assert getattr(answer, "code", None) == code, answer
            assert cache.backend.evict([sound.key, record.key]) == [code is None] * 2


class TestQueries:
    """Long answers stop when they are not read."""

    def test_a_window_and_no_more(self, serving: Serving, tmp_path: Path) -> None:
        """A query over many calls transfers no more than the window that its reader uses."""
        taken: list[int] = []

        def endless() -> Any:
            cache = cache_factory("memory", tmp_path)()

            def query(
                template: QueryCall, *, keys_only: bool = False
            ) -> Iterator[tuple[Digest, CallEntry]]:
                record = CallRecord(name="f" * 200, result=ValueRef(cache.save_value(1)))
                for number in range(10_000_000):
                    taken.append(number)
                    yield record.key, CallEntry(record)

            cache.backend.query = query  # type: ignore[method-assign, assignment]
            return cache

        remote = serving("pipe", endless)
        assert len(list(remote.query().take(10))) == 10
        time.sleep(0.3)
        seen = len(taken)
        assert seen < 10_000
        time.sleep(0.3)
        assert len(taken) == seen


class TestRedaction:
    """What the server tells of its cache holds no secret."""

    def test_info(self, tmp_path: Path) -> None:
        """Keys and passwords are hidden, in stacks and pools too; the form still loads."""
        (tmp_path / "fleche.toml").write_text(
            """
            [default]
            cache = "all"
            [near]
            values = { type = "cloudpickle", root = "values", secret_key = "hunter2" }
            calls = { type = "sql", url = "sqlite:///calls.db" }
            [[far]]
            template = "memory"
            [[far]]
            type = "ssh"
            host = "nowhere"
            setup_commands = ["export API_TOKEN=hunter2"]
            [all]
            pool = ["near", "far"]
            """
        )
        with SubprocessCache(workdir=str(tmp_path), cache_name="near") as remote:
            told = remote.info()
            assert "hunter2" not in json.dumps(told)
            assert told["cache"]["values"]["secret_key"] == "***"
            assert told["cache_name"] == "near"
            assert told["cwd"] == str(tmp_path)

    def test_pools(self, tmp_path: Path) -> None:
        """Nothing shines through a pool of stacks either."""
        (tmp_path / "fleche.toml").write_text(
            """
            [default]
            cache = "all"
            [[near]]
            values = { type = "cloudpickle", root = "values", secret_key = ["hunter2", "hunter3"] }
            calls = { type = "sql", url = "calls.db" }
            [other]
            template = "memory"
            [all]
            pool = ["near", "other"]
            """
        )
        with SubprocessCache(workdir=str(tmp_path)) as remote:
            assert "hunter" not in json.dumps(remote.info())


class TestItself:
    """A server whose cache leads to that server: both machines have the same `fleche.toml`, say."""

    LAYER = 'type = "subprocess"\npython = "./counting"\nworkdir = "."\n'

    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        """A directory with an interpreter that notes its starts, and is there only five times."""
        script = tmp_path / "counting"
        script.write_text(
            f"#!/bin/sh\ncd {tmp_path} && echo started >> starts\n"
            f'[ $(wc -l < starts) -le 5 ] && exec {sys.executable} "$@"\n'
        )
        script.chmod(0o755)
        return tmp_path

    def test_alone(self, project: Path) -> None:
        """It is told, by the second server, instead of starting ever more."""
        (project / "fleche.toml").write_text(f'[default]\ncache = "c"\n[c]\n{self.LAYER}')
        with (
            load_cache_config(start=project) as remote,
            pytest.raises(RemoteConnectionError, match="this cache asks itself"),
        ):
            remote.contains(ABSENT)
        assert (project / "starts").read_text() == "started\n" * 2

    @pytest.mark.parametrize("through", ["false", "true", '"background"'])
    def test_behind_another_layer(self, project: Path, through: str) -> None:
        """What is asked, and what is saved through a thread of its own."""
        (project / "fleche.toml").write_text(
            '[default]\ncache = "c"\n[[c]]\ntype = "local"\nroot = "near"\n'
            f'[[c]]\n{self.LAYER}on_error = "miss"\nwrite_through = {through}\n'
        )
        with load_cache_config(start=project) as stack:
            key = stack.save(example_call())
            assert stack.lookup(Digest(ABSENT)) is None
            assert stack.load(key).result == 4
        assert (project / "starts").read_text() == "started\n" * 2

    def test_another_cache_of_the_same_file(self, project: Path) -> None:
        (project / "fleche.toml").write_text(
            '[default]\ncache = "c"\n[far]\ntype = "local"\nroot = "far"\n'
            f'[[c]]\ntemplate = "memory"\n[[c]]\n{self.LAYER}cache_name = "far"\n'
        )
        with load_cache_config(start=project) as stack:
            assert stack.lookup(Digest(ABSENT)) is None
        assert (project / "starts").read_text() == "started\n"

    def test_a_way_without_an_end(self) -> None:
        """Servers that differ, each of which asks another one."""
        body: dict[str, Any] = {"protocol": [1, 1], "via": [str(n) for n in range(16)]}
        text = json.dumps(body).encode()
        said = b"fleche-remote? " + b"0" * 32 + b" %08x %s\n" % (crc32(text), text)
        with pytest.raises(ConfigError, match="asks itself"):
            serve(io.BytesIO(said), io.BytesIO(), in_memory())


def _configured(tmp_path: Path) -> Path:
    (tmp_path / "fleche.toml").write_text(
        '[default]\ncache = "c"\n[c]\ntemplate = "cloudpickle"\nroot = "store"\n'
        '[other]\ntemplate = "cloudpickle"\nroot = "other"\n'
    )
    return tmp_path


@pytest.mark.usefixtures("no_leaks")
class TestCommandLine:
    """`python -m fleche remote --serve`."""

    def test_the_named_cache(self, tmp_path: Path) -> None:
        """`--cache` chooses one of the server's own configuration."""
        root = _configured(tmp_path)
        with SubprocessCache(workdir=str(root), cache_name="other") as remote:
            remote.save(example_call())
            assert remote.info()["cache_name"] == "other"
        assert (root / "other").exists()
        assert not (root / "store").exists()

    def test_an_unknown_name(self, tmp_path: Path) -> None:
        """A name that is not configured is an error that says so, at the client."""
        with (
            SubprocessCache(workdir=str(_configured(tmp_path)), cache_name="othr") as remote,
            pytest.raises(RemoteConnectionError, match=r"othr[\s\S]*other"),
        ):
            remote.info()

    def test_a_broken_configuration(self, tmp_path: Path) -> None:
        """A broken file is an error that names it; never a silent memory cache."""
        (tmp_path / "fleche.toml").write_text("[default\n")
        with (
            SubprocessCache(workdir=str(tmp_path)) as remote,
            pytest.raises(RemoteConnectionError, match=r"fleche\.toml"),
        ):
            remote.save(example_call())

    def test_its_warnings_are_those_of_the_client(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """That a configuration is not used there decides where the results are."""
        place = tmp_path / ("deep" * 50)  # its path is said several times
        place.mkdir()
        (_configured(place) / "fleche.toml").chmod(0o666)
        with SubprocessCache(workdir=str(place)) as remote:
            assert "default" in remote.info()["cache"]["root"]
            told: list[logging.LogRecord] = []
            deadline = time.monotonic() + 20
            while not told and time.monotonic() < deadline:  # it comes beside the answer
                told = [each for each in caplog.records if "toml: not used" in each.getMessage()]
                time.sleep(0.01)
        assert [each.levelno for each in told] == [logging.WARNING]
        assert told[0].getMessage().startswith(f"{remote.backend.channel.name}: ")

    def test_read_only(self, tmp_path: Path) -> None:
        """`--read-only` holds, and is told."""
        channel = LocalSubprocessChannel(
            workdir=str(_configured(tmp_path)), arguments=["--read-only"]
        )
        with RemoteCache(channel) as remote:
            assert remote.read_only
            assert remote.info()["read_only"] is True
            with pytest.raises(Rejected):
                remote.save(example_call())

    def test_read_only_holds_against_a_client_that_does_not_ask(self, tmp_path: Path) -> None:
        """A client that ignores what it was told is refused by the server."""
        channel = LocalSubprocessChannel(
            workdir=str(_configured(tmp_path)), arguments=["--read-only"]
        )
        with RemoteCache(channel) as remote:
            remote._ensure_handshake()
            assert remote.backend.lazy.info is not None
            remote.backend.lazy.info["read_only"] = False
            assert not remote.read_only
            with pytest.raises(Rejected):
                remote.save_value(1)
            with pytest.raises(Rejected):
                remote.evict(ABSENT)

    def test_printing_is_harmless(self, tmp_path: Path) -> None:
        """Whatever prints in the server prints to standard error."""
        mark = tmp_path / "printed"
        (tmp_path / "sitecustomize.py").write_text(
            "import os, pathlib, subprocess\n"
            "from fleche.caches import LocalBackend\n"
            "print('at start', flush=True)\n"
            "os.write(1, b'on the descriptor, no newline')\n"
            "contains = LocalBackend.contains\n"
            "def loud(self, keys):\n"
            "    print('in mid-call', flush=True)\n"
            "    os.write(1, b'x' * 1000)\n"
            "    subprocess.run(['echo', 'from a child'])\n"
            f"    pathlib.Path({str(mark)!r}).touch()\n"
            "    return contains(self, keys)\n"
            "LocalBackend.contains = loud\n"
        )
        env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        with SubprocessCache(workdir=str(_configured(tmp_path)), env=env) as remote:
            for _ in range(3):
                assert not remote.contains(ABSENT)
            key = remote.save(example_call())
            assert remote.contains(key)
        assert mark.exists(), "nothing was printed"

    def test_standard_input_belongs_to_the_protocol(self, tmp_path: Path) -> None:
        """Code that reads standard input in the server finds its end, and steals nothing."""
        mark = tmp_path / "read"
        (tmp_path / "sitecustomize.py").write_text(
            "import pathlib, sys\n"
            "from fleche.caches import LocalBackend\n"
            "contains = LocalBackend.contains\n"
            "def reading(self, keys):\n"
            "    assert sys.stdin.read() == ''\n"
            f"    pathlib.Path({str(mark)!r}).touch()\n"
            "    return contains(self, keys)\n"
            "LocalBackend.contains = reading\n"
        )
        env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        with SubprocessCache(workdir=str(_configured(tmp_path)), env=env, timeout=10) as remote:
            assert not remote.contains(ABSENT)
        assert mark.exists(), "nothing was read"

    def test_no_unpickle(self, tmp_path: Path) -> None:
        """`--no-unpickle` serves what keeps parcels closed."""
        channel = LocalSubprocessChannel(
            workdir=str(_configured(tmp_path)), arguments=["--no-unpickle"]
        )
        with RemoteCache(channel) as remote:
            assert remote.load(remote.save(example_call())).result == 4

    def test_no_unpickle_refuses(self, tmp_path: Path) -> None:
        """A cache that must open values is not served with `--no-unpickle`."""
        pytest.importorskip("h5py")
        (tmp_path / "fleche.toml").write_text(
            '[default]\ncache = "opened"\nroot = true\n[opened]\n'
            'values = {type = "hdf5", root = "values"}\ncalls = {type = "memory"}\n'
        )
        channel = LocalSubprocessChannel(workdir=str(tmp_path), arguments=["--no-unpickle"])
        refused = pytest.raises(RemoteConnectionError, match="--no-unpickle forbids that")
        with RemoteCache(channel) as remote, refused:
            remote.contains(ABSENT)

    def test_it_exits_with_its_input(self, tmp_path: Path) -> None:
        """The end of input ends the server, with status 0; that no client greeted it is said."""
        done = subprocess.run(
            [sys.executable, "-m", "fleche", "remote", "--serve"],
            input=b"",
            capture_output=True,
            cwd=_configured(tmp_path),
            timeout=30,
        )
        assert (done.returncode, done.stdout) == (0, b"")
        assert b"input ended before a greeting" in done.stderr

    def test_a_stranger(self, tmp_path: Path) -> None:
        """Who is no client is told so on standard error, with status 2."""
        done = subprocess.run(
            [sys.executable, "-m", "fleche", "remote", "--serve"],
            input=b"hello?\n",
            capture_output=True,
            cwd=_configured(tmp_path),
            timeout=30,
        )
        assert done.returncode == 2
        assert b"not a fleche client" in done.stderr

    @pytest.mark.parametrize("lacking", ["blake3", "cloudpickle", "msgspec", "xxhash"])
    def test_an_interpreter_without_what_it_needs(self, tmp_path: Path, lacking: str) -> None:
        """One sentence says which interpreter that is, what it lacks, and what to do."""
        (tmp_path / f"{lacking}.py").write_text(f"raise ImportError('no {lacking}')")
        channel = LocalSubprocessChannel(env={"PYTHONPATH": str(tmp_path)})
        with RemoteCache(channel) as remote, pytest.raises(RemoteConnectionError) as caught:
            remote.contains(ABSENT)
        said = f"no {lacking}; {sys.executable} lacks what fleche needs"
        assert said in str(caught.value)
        assert "Traceback" not in str(caught.value)

    @pytest.mark.parametrize("arguments", [["remote"], ["--help"], ["remote", "--help"]])
    def test_help(self, arguments: list[str]) -> None:
        """The command says how it is used; without options, that of a server does."""
        done = subprocess.run(
            [sys.executable, "-m", "fleche", *arguments], capture_output=True, text=True, timeout=30
        )
        assert "usage: fleche" in (done.stdout + done.stderr).lower()
