"""How a client connects, and how a server begins and ends, when something holds them up."""

from __future__ import annotations

import copyreg
import io
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleche.call import Call
from fleche.errors import MissingExtra, ProtocolError, RemoteConnectionError
from fleche.remote import Channel, PipeChannel, RemoteCache, SshChannel, serve, server_info
from fleche.remote._handshake import ClientGreeting
from fleche.remote.channel import LocalSubprocessChannel, ProcessChannel
from tests.helpers.caches import cache_factory
from tests.helpers.descriptors import own_descriptors
from tests.helpers.processes import is_gone
from tests.helpers.sshd import Sshd
from tests.helpers.sweeps import swept
from tests.helpers.taps import TappedChannel

ABSENT = "0" * 64
PATIENCE = 30.0


def _drain(reader: Any, writer: Any) -> None:
    """Be a server that listens and says nothing."""
    buffer = memoryview(bytearray(1 << 16))
    while reader.readinto(buffer):
        pass


class _Mute(ProcessChannel):
    """A process that says nothing, and does not look at its input."""

    def command(self) -> Sequence[str]:
        return ["sleep", "600"]


MUTE: dict[str, Callable[[], Channel]] = {
    "pipe": lambda: PipeChannel(_drain),
    "process": lambda: _Mute("mute"),
}


class Rig:
    """A remote cache whose server says nothing, until it is told to.

    Attributes:
        tap: counts how often a connection was made.
        served: set when servers may answer.
    """

    def __init__(self, root: Path, channel: Channel | None = None) -> None:
        self._factory = cache_factory("memory", root)
        self.served = threading.Event()
        self.tap = TappedChannel(channel or PipeChannel(self._serve))
        self.remote = RemoteCache(self.tap, timeout=PATIENCE)
        self.found: list[object] = []
        self._threads: list[threading.Thread] = []

    def _serve(self, reader: Any, writer: Any) -> None:
        self.served.wait(PATIENCE)
        serve(reader, writer, self._factory())

    def ask(self) -> object:
        """Return what an operation returns or raises."""
        try:
            return self.remote.contains(ABSENT)
        except Exception as error:  # noqa: BLE001 (what it is, is the question)
            return error

    def start(self, count: int = 1) -> None:
        """Ask in that many threads, and wait until all of them wait for the server."""
        before = self.waiting
        for _ in range(count):
            thread = threading.Thread(target=lambda: self.found.append(self.ask()), daemon=True)
            self._threads.append(thread)
            thread.start()
        _wait(lambda: self.waiting == before + count, "nobody waits for the server")

    @property
    def waiting(self) -> int:
        return self.remote.backend.lazy._waiting

    def join(self) -> list[object]:
        """Wait for all threads, and return what they found."""
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "an operation hangs"
        return self.found


@pytest.fixture
def rig(tmp_path: Path, no_leaks: None) -> Iterator[Rig]:
    """A `Rig` over pipes; whatever the test does, nothing is left."""
    made = Rig(tmp_path)
    try:
        yield made
    finally:
        made.served.set()
        made.remote.close()
        made.join()


def _wait(ready: Callable[[], object], complaint: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.01)


def _in_time(action: Callable[[], object], seconds: float = 10) -> None:
    """Do it in a thread, so that a test fails, and does not hang, if it takes too long."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"


# -- one connection, for all that wait for it ------------------------------------------------------


class TestConnecting:
    """All threads wait for the one connection in the making, and any of them can end it."""

    def test_once(self, rig: Rig) -> None:
        """However many threads ask at once, one connection is made, and all are answered."""
        rig.start(8)
        rig.served.set()
        assert rig.join() == [False] * 8
        assert rig.tap.opened == 1

    def test_told_once(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        """And one warning is given, if there is something to warn of."""
        monkeypatch.setattr(
            "fleche.remote._server.server_info",
            lambda *given: {**server_info(*given), "fleche_version": "99"},
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rig.start(8)
            rig.served.set()
            assert rig.join() == [False] * 8
        assert len(caught) == 1

    @pytest.mark.usefixtures("no_leaks")
    @pytest.mark.parametrize("kind", MUTE)
    @pytest.mark.parametrize("end", [RemoteCache.close, RemoteCache.reconnect])
    def test_ending_it(self, tmp_path: Path, kind: str, end: Callable[[RemoteCache], None]) -> None:
        """`close()` and `reconnect()` do not wait for the server; threads that do learn of it."""
        rig = Rig(tmp_path, MUTE[kind]())
        rig.start(3)
        _in_time(lambda: end(rig.remote))
        found = rig.join()
        assert [type(error) for error in found] == [RemoteConnectionError] * 3
        assert "was closed" in str(found[0])
        assert rig.tap.opened == 1

    @pytest.mark.parametrize("end", [RemoteCache.close, RemoteCache.reconnect])
    def test_the_next_use_connects(self, rig: Rig, end: Callable[[RemoteCache], None]) -> None:
        """What was ended before the server spoke has not failed."""
        rig.start()
        rig.served.set()
        end(rig.remote)
        rig.join()
        assert rig.ask() is False
        assert rig.tap.opened == 2

    def test_a_server_that_dies(self, tmp_path: Path) -> None:
        """Threads that wait learn of it, and those that ask later; nothing is started again."""
        died = threading.Event()
        channel = PipeChannel(lambda reader, writer: died.wait(PATIENCE) and None)
        rig = Rig(tmp_path, channel)
        rig.start(3)
        died.set()
        rig.join()
        rig.found += [rig.ask(), rig.ask()]
        rig.remote.close()
        rig.found.append(rig.ask())
        assert {type(error) for error in rig.found} == {RemoteConnectionError}
        assert all("reconnect()" in str(error) for error in rig.found)
        assert rig.tap.opened == 1

    def test_closing_does_not_raise_the_dead(self, tmp_path: Path) -> None:
        """After `close()` too, a connection that had died is only made again by `reconnect()`."""
        cache = cache_factory("memory", tmp_path)()
        rig = Rig(tmp_path, PipeChannel(lambda r, w: serve(r, w, cache)))
        assert rig.ask() is False
        rig.tap.close(0)
        _wait(lambda: isinstance(rig.ask(), RemoteConnectionError), "nobody notices the death")
        for _ in range(2):
            rig.remote.close()
            assert isinstance(rig.ask(), RemoteConnectionError)
        assert rig.tap.opened == 1

    def test_the_story_of_the_last_connection_spares_the_next(self, tmp_path: Path) -> None:
        """While it is found out why a connection died, `reconnect()` waits: it is one channel."""
        asked, told = threading.Event(), threading.Event()

        class Slow(PipeChannel):
            def diagnose(self) -> str:
                asked.set()
                told.wait(PATIENCE)
                return super().diagnose()

        cache = cache_factory("memory", tmp_path)()
        servers: Iterator[Any] = iter((_drain, lambda r, w: serve(r, w, cache)))

        def serve_next(reader: Any, writer: Any) -> None:
            next(servers)(reader, writer)

        rig = Rig(tmp_path, Slow(serve_next))
        options = rig.remote.backend.options
        rig.remote.backend.options = msgspec.structs.replace(options, connect_timeout=0.1)
        dying = threading.Thread(target=rig.ask)
        dying.start()
        assert asked.wait(PATIENCE)
        rig.remote.backend.options = msgspec.structs.replace(options, connect_timeout=PATIENCE)

        def reconnect() -> None:
            rig.remote.reconnect()
            rig.found.append(rig.ask())

        next_one = threading.Thread(target=reconnect)
        next_one.start()
        next_one.join(0.5)
        told.set()
        for thread in (dying, next_one):
            thread.join(PATIENCE)
            assert not thread.is_alive()
        rig.found.append(rig.ask())
        rig.remote.close()
        assert rig.found == [False, False]
        assert rig.tap.opened == 2


class TestInterrupt:
    """Ctrl-C while the main thread waits for the server."""

    def _interrupt(self, rig: Rig) -> None:
        """Ask in the main thread, and interrupt that when it waits for the server."""
        waiting = rig.waiting + 1

        def interrupt() -> None:
            _wait(lambda: rig.waiting == waiting, "nobody waits for the server")
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        with pytest.raises(KeyboardInterrupt):
            thread.start()
            rig.remote.contains(ABSENT)
        thread.join()

    def test_alone(self, rig: Rig) -> None:
        """A connection that no thread waits for any more is given up; the next use makes one."""
        self._interrupt(rig)
        assert rig.remote.backend.lazy.connection is None
        rig.served.set()
        assert rig.ask() is False
        assert rig.tap.opened == 2

    def test_in_company(self, rig: Rig) -> None:
        """It interrupts the call, not the connection that another thread waits for."""
        rig.start()
        self._interrupt(rig)
        rig.served.set()
        assert rig.join() == [False]
        assert rig.ask() is False
        assert rig.tap.opened == 1


class Uncopyable(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class TestFailing:
    """To connect may ask a person for a code: what failed is not tried again by itself."""

    def test_a_compression_that_is_not_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that lacks what is asked for is asked once."""
        monkeypatch.setattr("fleche.remote._server.available_codecs", lambda: ("zlib",))
        cache = cache_factory("memory", tmp_path)()
        tap = TappedChannel(PipeChannel(lambda r, w: serve(r, w, cache)))
        with RemoteCache(tap, compression="zstd") as remote:
            for opened in (1, 2):
                for _ in range(3):
                    with pytest.raises(MissingExtra, match=f'^{tap.name} lacks compression "zstd"'):
                        remote.contains(ABSENT)
                assert tap.opened == opened
                remote.reconnect()

    @pytest.mark.parametrize("kind", ["stderr", "writer", "reader"])
    def test_no_thread_to_be_had(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leaks: None, kind: str
    ) -> None:
        """It is an error of the connection, and nothing is left of the server that was started."""
        begin = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name.endswith(kind):
                raise RuntimeError("can't start new thread")
            begin(thread)

        with RemoteCache(LocalSubprocessChannel(workdir=str(tmp_path))) as remote:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refuse)
                with pytest.raises(RemoteConnectionError, match="can't start new thread"):
                    remote.contains(ABSENT)
            remote.reconnect()
            assert remote.contains(ABSENT) is False

    @pytest.mark.parametrize(
        ("error", "later"),
        [
            (OSError(24, "Too many open files"), OSError),
            (RemoteConnectionError("no ssh here"), RemoteConnectionError),
            (Uncopyable(1, 2), RemoteConnectionError),
        ],
    )
    @pytest.mark.parametrize("is_told", [False, True])
    def test_a_channel_that_raises(
        self,
        error: Exception,
        later: type[Exception],
        is_told: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Whatever it raises is raised again, in the same words.

        Libraries tell Python to copy exceptions with their tracebacks, as tblib does.
        """
        monkeypatch.delitem(copyreg.dispatch_table, type(error), raising=False)
        if is_told and isinstance(error, OSError):
            monkeypatch.setitem(copyreg.dispatch_table, type(error), reduced_with_traceback)
        opened, closed = [], []

        class Broken(Channel):
            name = "broken"

            def open(self) -> Any:
                opened.append(error)
                raise error

            def close(self, grace: float = 2.0) -> None:
                closed.append(grace)

            def diagnose(self) -> str:
                return ""

        remote = RemoteCache(Broken())
        with pytest.raises(type(error)):
            remote.contains(ABSENT)
        assert closed, "what was begun is not ended"
        for _ in range(2):
            with pytest.raises(later) as caught:
                remote.contains(ABSENT)
            assert str(error) in str(caught.value)
        assert len(opened) == 1
        kept = remote.backend.lazy._failure
        assert kept is not None
        assert kept.__traceback__ is None, "it holds everything that was on its way"
        remote.reconnect()
        with pytest.raises(type(error)):
            remote.contains(ABSENT)
        assert len(opened) == 2


def reduced_with_traceback(error: BaseException) -> Any:
    return copied_with_traceback, (type(error), error.args, error.__traceback__)


def copied_with_traceback(cls: type[BaseException], args: Any, traceback: Any) -> BaseException:
    return cls(*args).with_traceback(traceback)


# -- forks -----------------------------------------------------------------------------------------


def _pipes() -> set[str]:
    return {target for _, target in own_descriptors() if target.startswith("pipe:")}


def _pipes_of_a_child() -> set[str]:
    """Return the pipes that a forked child has."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            os.write(writer, " ".join(_pipes()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        found = set(stream.read().split())
    os.waitpid(child, 0)
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.usefixtures("no_leaks")
class TestForks:
    """A child leaves the connection to its parent: it would keep it open when that closes it."""

    @pytest.mark.parametrize("kind", MUTE)
    def test_while_connecting(self, tmp_path: Path, kind: str) -> None:
        """No end of a pipe is kept of a connection that another thread is making."""
        before = _pipes()
        rig = Rig(tmp_path, MUTE[kind]())
        rig.start()
        made = _pipes() - before
        assert made
        assert not made & _pipes_of_a_child()
        rig.remote.close()
        rig.join()

    def test_server_in_a_thread(self, tmp_path: Path) -> None:
        """Nor of one that is made, the server's ends included."""
        before = _pipes()
        cache = cache_factory("memory", tmp_path)()
        with RemoteCache(PipeChannel(lambda r, w: serve(r, w, cache))) as remote:
            assert not remote.contains(ABSENT)
            made = _pipes() - before
            assert not made & _pipes_of_a_child()
            assert not remote.contains(ABSENT)


# -- the streams of a server -----------------------------------------------------------------------


def _opening() -> bytes:
    return ClientGreeting((1, 1), ("compress=",), "test").opening


class TestStreams:
    """`serve()` leaves the streams open: they are the caller's."""

    @pytest.mark.parametrize("said", [b"", _opening(), _opening() + b"no frame of any kind"])
    def test_they_stay_open(self, tmp_path: Path, said: bytes) -> None:
        """Whether it ends before the greeting, after it, or by a violation of the protocol."""
        reader, writer = io.BytesIO(said), io.BytesIO()
        serve(reader, writer, cache_factory("memory", tmp_path)())
        assert not reader.closed
        assert bool(writer.getvalue()) == bool(said)

    def test_a_stranger(self, tmp_path: Path) -> None:
        """Or because no client has greeted it."""
        reader, writer = io.BytesIO(b"GET / HTTP/1.1\r\n"), io.BytesIO()
        with pytest.raises(ProtocolError):
            serve(reader, writer, cache_factory("memory", tmp_path)())
        assert not reader.closed
        assert writer.getvalue() == b""

    def test_a_client_that_does_not_wait(self, tmp_path: Path) -> None:
        """A client that is gone before it has its answer is no error of the server."""

        class Gone(io.BytesIO):
            def write(self, data: Any, /) -> int:
                raise BrokenPipeError("gone")

        serve(io.BytesIO(_opening()), Gone(), cache_factory("memory", tmp_path)())


# -- the process of a server -----------------------------------------------------------------------

_COMMAND = (sys.executable, "-m", "fleche", "remote", "--serve")

HELD_UP = {
    "opening": "fleche.config.load_cache_config = hang",
    "asked what it is": "fleche.caches.LocalBackend.capabilities = property(hang)",
    "closing": "fleche.caches.LocalBackend.close = hang",
}

FAR = {
    "alone": "[c]\ntype = 'subprocess'\npython = './mute'\n",
    "in a stack": (
        "[[c]]\ntemplate = 'cloudpickle'\nroot = 'r'\n"
        "[[c]]\ntype = 'subprocess'\npython = './mute'\non_error = 'miss'\nwrite_through = true\n"
    ),
}


class Far:
    """Makes a configuration whose cache is behind another server, which says nothing."""

    def __init__(self, directory: Path, where: str) -> None:
        mark = self._mark = directory / "pids"
        mute = directory / "mute"
        mute.write_text(
            "#!/bin/sh\nread greeting\n"  # so that a client waits for the answer from then on
            f"echo $$ $PPID > {mark}.new\nmv {mark}.new {mark}\nexec sleep 600\n"
        )
        mute.chmod(0o755)
        (directory / "fleche.toml").write_text(f"[default]\ncache = 'c'\n{FAR[where]}")

    def is_started(self) -> bool:
        return self._mark.exists()

    def processes(self) -> list[int]:
        """Return which of the two are there: that server, and the one that has started it."""
        pids = [int(word) for word in self._mark.read_text().split()]
        return [pid for pid in pids if not is_gone(pid)]

    def __enter__(self) -> Far:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.processes() if self.is_started() else ():
            os.kill(pid, signal.SIGKILL)


@contextmanager
def _server(directory: Path, *arguments: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server that has been greeted, and of which nothing is left afterwards."""
    with subprocess.Popen(
        [*_COMMAND, *arguments],
        cwd=directory,
        env={**os.environ, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        try:
            process.stdin.write(_opening())
            yield process
        finally:
            process.kill()


def _leave(process: subprocess.Popen[bytes]) -> None:
    """Be a client that is gone, and wait for the end of its server."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait(PATIENCE)


class TestOrphans:
    """A server ends with its input, whatever it is waiting for then."""

    @pytest.mark.parametrize(
        ("where", "arguments"),
        swept(
            itertools.product(FAR, [(), ("--no-unpickle",)]),
            lambda case: (case[0] == "alone") is (case[1] == ()),
        ),
    )
    def test_behind_another_server(
        self, tmp_path: Path, where: str, arguments: tuple[str, ...]
    ) -> None:
        """One that waits for the first word of another server ends, and ends that one too."""
        with Far(tmp_path, where) as far, _server(tmp_path, *arguments) as process:
            _wait(far.is_started, "the other server is not started")
            _leave(process)
            assert process.returncode == 0
            assert far.processes() == []

    def test_told_to_end(self, tmp_path: Path) -> None:
        """One that is terminated, as a client does that has no patience, ends the other one too."""
        with Far(tmp_path, "alone") as far, _server(tmp_path) as process:
            _wait(far.is_started, "the other server is not started")
            process.terminate()
            assert process.wait(PATIENCE) == 128 + signal.SIGTERM
            assert far.processes() == []
            assert process.stderr is not None
            assert process.stderr.read() == b""

    def test_told_while_it_waits_for_a_lock(self, tmp_path: Path) -> None:
        """What it waits in may make another exception of it; it ends as it was told, and silent."""
        mark = tmp_path / "held"
        (tmp_path / "sitecustomize.py").write_text(
            textwrap.dedent(f"""
            import fleche.config, pathlib, time
            def hang(*_):
                pathlib.Path({str(mark)!r}).touch()
                try:
                    for _ in range(60_000):
                        time.sleep(0.01)  # a signal that comes just before a wait does not end it
                finally:
                    raise RuntimeError("cannot release un-acquired lock")
            fleche.config.load_cache_config = hang
            """)
        )
        path = os.pathsep.join([str(tmp_path), *sys.path])
        with _server(tmp_path, PYTHONPATH=path) as process:
            _wait(mark.exists, "nothing hangs")
            process.terminate()
            assert process.wait(PATIENCE) == 128 + signal.SIGTERM
            assert process.stderr is not None
            assert process.stderr.read() == b""

    @pytest.mark.ssh
    def test_behind_ssh(self, tmp_path: Path, sshd: Sshd) -> None:
        """So does one whose client has lost its ssh."""
        channel = SshChannel(
            sshd.host,
            python=sys.executable,
            ssh_options=sshd.ssh_options,
            workdir=str(tmp_path),
        )
        with Far(tmp_path, "alone") as far:
            rig = Rig(tmp_path, channel)
            rig.start()
            _wait(far.is_started, "the other server is not started")
            os.kill(channel.pid or 0, signal.SIGKILL)
            assert [type(error) for error in rig.join()] == [RemoteConnectionError]
            _wait(lambda: far.processes() == [], "a server is left behind")

    @pytest.mark.parametrize("when", HELD_UP)
    def test_held_up(self, tmp_path: Path, when: str) -> None:
        """One whose cache hangs while it is opened, asked what it is, or closed, ends."""
        mark = tmp_path / "held"
        (tmp_path / "sitecustomize.py").write_text(
            textwrap.dedent(f"""
            import os, pathlib, time, fleche.caches, fleche.config
            def hang(*_):
                pathlib.Path({str(mark)!r}).touch()
                time.sleep(600)
            {HELD_UP[when]}
            """)
        )
        (tmp_path / "fleche.toml").write_text(
            "[default]\ncache = 'c'\n[c]\ntemplate = 'cloudpickle'\nroot = 'r'\n"
        )
        path = os.pathsep.join([str(tmp_path), *sys.path])
        with _server(tmp_path, PYTHONPATH=path) as process:
            if when != "closing":
                _wait(mark.exists, "nothing hangs")
            _leave(process)
            assert process.returncode == 0
        assert mark.exists()

    def test_as_a_mac_polls(self, tmp_path: Path) -> None:
        """What there is to read ends a wait for the end of the input there, and is no such end."""
        mark = tmp_path / "held"
        (tmp_path / "sitecustomize.py").write_text(
            textwrap.dedent(f"""
            import pathlib, select, time
            from fleche.cli import remote

            class Poll:
                def register(self, stream, asked):
                    self.number, self.asked = stream.fileno(), asked

                def poll(self):  # as poll_callback() of XNU
                    real = poll()
                    real.register(self.number, select.POLLIN)
                    found = real.poll()[0][1] & (self.asked | select.POLLHUP)
                    return [(self.number, found)] if found else []

            poll, select.poll = select.poll, Poll
            vars(select).pop("POLLRDHUP", None)
            remote.PATIENCE = 0.1

            def hang(*_):
                time.sleep(1)
                pathlib.Path({str(mark)!r}).touch()
                time.sleep(600)

            remote.load_cache_config = hang
            """)
        )
        path = os.pathsep.join([str(tmp_path), *sys.path])
        with _server(tmp_path, PYTHONPATH=path) as process:
            _wait(mark.exists, "it has ended before its input")
            _leave(process)
            assert process.returncode == 0

    def test_a_client_that_does_not_wait(self, tmp_path: Path) -> None:
        """A client that is gone before it has its answer is no error, and nothing is said."""
        with _server(tmp_path) as process:
            _leave(process)
            assert process.stderr is not None
            assert (process.returncode, process.stderr.read()) == (0, b"")


class _Silent(ProcessChannel):
    """A server whose standard error is closed, in the directory of its name."""

    def command(self) -> Sequence[str]:
        return ["sh", "-c", 'cd "$0" && exec "$@" 2>&-', self.name, *_COMMAND]


class TestStandardStreams:
    """A server without one of its standard streams."""

    @pytest.mark.parametrize(("closed", "name"), [("<&-", "input"), (">&-", "output")])
    def test_closed(self, tmp_path: Path, closed: str, name: str) -> None:
        """It is one sentence, on standard error if that is there, and the status of bad use."""
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *_COMMAND],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stdout) == (2, "")
        said = f"fleche remote: standard {name}: closed, and a server needs both\n"
        assert done.stderr == said

    def test_without_standard_error(self, tmp_path: Path) -> None:
        """A server that can say nothing serves all the same, and mixes no word into its frames."""
        (tmp_path / "fleche.toml").write_text('[default]\ncache = "memory"\n')
        with RemoteCache(_Silent(str(tmp_path))) as remote:
            key = remote.save(Call("f", {"x": 1}, result=[2]))
            assert remote.load(key).result == [2]
