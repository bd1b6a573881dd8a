"""What keeps a server from starting, or from being greeted: found out, and said."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleche import cache, fleche
from fleche.config import cache_from_config, load_cache_config
from fleche.errors import Rejected, RemoteConnectionError, StorageError
from fleche.remote import (
    LocalSubprocessChannel,
    PipeChannel,
    ProcessChannel,
    RemoteCache,
    SshCache,
    SshChannel,
    SubprocessCache,
    serve,
)
from fleche.storage.sql._errors import DiskFull
from tests.helpers.caches import cache_factory
from tests.helpers.leaks import check_leaks
from tests.helpers.serving import faulty
from tests.helpers.sshd import running_sshd

ABSENT = "0" * 64
SERVER = [sys.executable, "-m", "fleche", "remote", "--serve", "--cache=memory"]


class _After(ProcessChannel):
    """A server that a shell starts after a start-up file."""

    def __init__(self, startup: str, shell: str = "/bin/sh") -> None:
        super().__init__("started")
        self._command = [shell, "-c", f'{startup}\nexec "$0" "$@"', *SERVER]

    def command(self) -> list[str]:
        return self._command


class TestSwallowed:
    """A start-up file that reads standard input takes the greeting."""

    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fleche.remote._multiplexer.SWALLOWED_SECONDS", 1.0)

    @pytest.mark.parametrize("startup", ["read line", "cat", "exec sh"])
    def test_it_is_explained(self, startup: str) -> None:
        """Whether it comes back, is gone, or is taken for a command: it ends, with a reason."""
        with check_leaks(), RemoteCache(_After(startup), connect_timeout=30) as remote:
            began = time.monotonic()
            with pytest.raises(RemoteConnectionError, match=r"start-up file.*reads standard input"):
                remote.contains(ABSENT)
            assert time.monotonic() - began < 20, "it waited for the time to be up"

    def test_an_echo_is_no_harm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A greeting that comes back and is answered all the same is noise."""
        monkeypatch.setattr("fleche.remote._multiplexer.SWALLOWED_SECONDS", 30.0)
        # as a terminal does
        twice = """{ read -r line; echo "$line" >&5; echo "$line"; exec cat; }"""
        channel = _After(f"""exec 5>&1; {twice} | "$0" "$@"; exit""")
        with check_leaks(), RemoteCache(channel, connect_timeout=30) as remote:
            assert remote.contains(ABSENT) is False


class TestPatience:
    """How long a client waits for the first word."""

    def test_what_was_heard_is_quoted(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The line that says that it waits says what came instead, on both streams."""
        monkeypatch.setattr("fleche.remote._multiplexer.REMIND_SECONDS", 0.5)
        channel = _After("echo Enter your code:; echo module not found >&2; exec sleep 30")
        expected = pytest.raises(RemoteConnectionError, match="Enter your code")
        with check_leaks(), RemoteCache(channel, connect_timeout=2) as remote, expected:
            remote.contains(ABSENT)
        told = [r.getMessage() for r in caplog.records if "still waiting" in r.getMessage()]
        assert told
        assert "Enter your code:" in told[-1]
        assert "module not found" in told[-1]

    @pytest.mark.parametrize(
        ("given", "terminal", "expected"),
        [
            (None, True, None),
            (None, False, 60.0),
            (5, True, 5),
            (5, False, 5),
            (float("inf"), False, None),
        ],
    )
    def test_without_a_terminal_it_ends(
        self, monkeypatch: pytest.MonkeyPatch, given: Any, terminal: bool, expected: float | None
    ) -> None:
        """A person may be typing a code for as long as it takes; in a batch job there is none."""
        monkeypatch.setattr("fleche.remote._backend._has_terminal", lambda: terminal)
        remote = SshCache("host", connect_timeout=given)
        assert remote.backend._patience_to_connect() == expected
        again = cache_from_config(remote.to_config())
        assert isinstance(again, SshCache)
        assert again.backend._patience_to_connect() == expected

    @pytest.mark.parametrize(
        ("startup", "explained"),
        [
            ("exit 0", "in order before it was greeted"),
            ("echo over >&2; exit 0", r"in a comment; its last words:\nover"),
            ("exec >&-; sleep 10; exit", r"\(ssh -N\)"),
            ("echo over >&2; exec >&-; sleep 10; exit", r"\(ssh -N\); its last words:\nover"),
        ],
    )
    def test_an_end_before_a_greeting(self, startup: str, explained: str) -> None:
        """An end without an error is explained, whatever was said: it has not been a server."""
        remote = RemoteCache(_After(startup), connect_timeout=30)
        with check_leaks(), remote, pytest.raises(RemoteConnectionError, match=explained):
            remote.contains(ABSENT)

    def test_an_input_that_is_over(self) -> None:
        """A server whose input is at its end says so."""
        done = subprocess.run(
            SERVER, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert "input ended before a greeting" in done.stderr


RELAY = """
import os, socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while data := connection.recv(4096):
    os.write(1, data)
"""


@pytest.mark.ssh
class TestRefusedBySshd:
    """An sshd takes a limited number of connections that are not authenticated yet."""

    @contextmanager
    def _crowded(self, *options: str) -> Iterator[tuple[RemoteCache, list[socket.socket]]]:
        """A remote cache behind an sshd that is full of connections that do not authenticate."""
        with running_sshd(startups="3:100:3") as sshd, check_leaks():
            crowd: list[socket.socket] = []
            deadline = time.monotonic() + 10
            while len(crowd) < 3:
                # who looked whether it is up may still count as one of the three
                assert time.monotonic() < deadline
                each = socket.create_connection(("127.0.0.1", sshd.port))
                if each.recv(4) == b"SSH-":
                    crowd.append(each)
                else:
                    each.close()
            remote = SshCache(
                sshd.host,
                "memory",
                sys.executable,
                ssh_options=(*options, "-o", "LogLevel=INFO", *sshd.ssh_options),
                connect_timeout=60,
            )
            try:
                with remote:
                    yield remote, crowd
            finally:
                for each in crowd:
                    each.close()

    def test_it_is_tried_again(self, caplog: pytest.LogCaptureFixture) -> None:
        """What was refused before a person was asked for anything is tried again, and logged."""

        class Leaving(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "trying again" in record.getMessage():
                    for each in crowd:
                        each.close()

        handler, log = Leaving(), logging.getLogger("fleche.remote")
        with self._crowded() as (remote, crowd):
            log.addHandler(handler)
            try:
                assert remote.contains(ABSENT) is False
            finally:
                log.removeHandler(handler)
        assert "MaxStartups" in caplog.text

    @pytest.mark.parametrize("level", ["ERROR", "INFO"])
    def test_not_behind_a_jump_host(self, level: str, caplog: pytest.LogCaptureFixture) -> None:
        """A jump host may have asked for a code, whatever ssh is told to say of the connection."""
        relay = shlex.join([sys.executable, "-c", RELAY])
        jump = ("-o", f"LogLevel={level}", "-o", f"ProxyCommand={relay} %h %p")
        with self._crowded(*jump) as (remote, _), pytest.raises(RemoteConnectionError) as caught:
            remote.contains(ABSENT)
        assert "MaxStartups" not in str(caught.value)
        assert "trying again" not in caplog.text

    @pytest.mark.parametrize("by", ["closed", "reset"])
    def test_all_that_openssh_10_says(
        self, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Other versions say it of a login that came to nothing; that takes time."""
        ssh = tmp_path / "ssh"
        ssh.write_text(
            f'#!/bin/sh\necho "$1" >>{tmp_path}/asked\n'
            '[ "$1" = -G ] && echo hostname bigpc && exit\n'
            f"echo Connection {by} by 192.0.2.1 port 22 >&2\nexit 255\n"
        )
        ssh.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr("fleche.remote._connection._pauses", lambda: [0.05])
        for seconds in (5.0, 0.0):
            monkeypatch.setattr("fleche.remote.channel._ssh._REFUSAL_SECONDS", seconds)
            with SshCache("bigpc", "memory") as remote, pytest.raises(RemoteConnectionError) as no:
                remote.contains(ABSENT)
            assert ("MaxStartups" in str(no.value)) == (seconds > 0)
        asked = (tmp_path / "asked").read_text().split()
        assert asked.count("-G") == len(asked) / 2 == 3  # once for each connection

    def test_not_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """After a few times the reason is told, with what to do; then it is dead as any other."""
        monkeypatch.setattr("fleche.remote._connection._pauses", lambda: [0.05, 0.05])
        with self._crowded() as (remote, _):
            for _ in range(2):
                with pytest.raises(RemoteConnectionError, match=r"MaxStartups[\s\S]*ControlMaster"):
                    remote.contains(ABSENT)


def test_connecting_while_it_is_interrupted_by_who_connects(tmp_path: Path) -> None:
    """There is one connection; the interrupting use is told that it is just being made."""
    served = cache_factory("memory", tmp_path)()
    told: list[str] = []

    class Channel(PipeChannel):
        def open(self) -> Any:
            try:
                remote.contains(ABSENT)
            except RemoteConnectionError as error:
                told.append(str(error))
            return super().open()

    with check_leaks():
        remote = RemoteCache(Channel(lambda i, o: serve(i, o, served)), timeout=20)
        with remote:
            assert remote.contains(ABSENT) is False
    assert told == ["the connection is just being made"]


def test_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose directory has been removed reaches its caches all the same."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with check_leaks(), SubprocessCache(cache_name="memory") as remote:
        assert remote.contains(ABSENT) is False
        assert remote.info()["cwd"] is None


def test_modules_of_the_user_do_not_stop_a_server(tmp_path: Path) -> None:
    """Whatever lies in its working directory, a server takes its own modules from their place.

    Modules of the user that nothing else is called like are found there all the same.
    """
    for name in ("random", "struct", "json", "typing", "select", "zlib", "msgspec"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    (tmp_path / "own_storage.py").write_text(
        "from fleche.storage import ValueMemory\nclass Own(ValueMemory):\n    pass\n"
    )
    (tmp_path / "fleche.toml").write_text(
        '[default]\ncache = "c"\nroot = true\n[c]\nvalues.type = "own_storage:Own"\n'
        'calls.type = "memory"\n'
    )
    with check_leaks(), SubprocessCache(workdir=str(tmp_path)) as remote:
        assert remote.contains(ABSENT) is False
        info = remote.info()
    assert info["python"].split() == [sys.version.split()[0], f"({sys.executable})"]


@pytest.mark.parametrize(
    "name", ["here! it's !! (mine)", "=here", "a=b", "-x", "~x y", "{a,[b]*?#^"]
)
@pytest.mark.parametrize("shell", ["sh", "bash", "tcsh", "zsh"])
def test_names_of_directories(tmp_path: Path, shell: str, name: str) -> None:
    """A shell leaves them alone: tcsh with its ``!`` even in quotes, zsh with its ``=``."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    place = tmp_path / name
    place.mkdir()
    for workdir in (str(place), name):
        channel = SshChannel("h", python="pwd #", workdir=workdir)
        remote_command = channel.command()[-1].partition(" && ")[0]
        done = subprocess.run(
            [shell, "-c", f"{remote_command} && pwd"], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.stdout.rstrip("\n") == str(place), done.stderr


class QuotaError(StorageError):
    """Of a storage that a user has written."""


class TestFailures:
    """What a server's failure says, and of whom."""

    def _failing(self, tmp_path: Path, error: BaseException) -> RemoteCache:
        served = faulty(cache_factory("memory", tmp_path), lambda: error)()
        return RemoteCache(PipeChannel(lambda i, o: serve(i, o, served), "ssh bigpc"), timeout=20)

    @pytest.mark.parametrize(
        "error",
        [
            StorageError("disk full"),
            Rejected("read-only"),
            PermissionError(13, "Permission denied", "/data/results"),
            QuotaError("no more than 3 results"),
        ],
    )
    def test_they_name_the_host(self, tmp_path: Path, error: Exception) -> None:
        """The path of another machine is not looked for on this one."""
        expected = pytest.raises(type(error), match="ssh bigpc")
        with check_leaks(), self._failing(tmp_path, error) as remote, expected:
            remote.load(ABSENT)

    def test_a_private_kind_of_an_error(self, tmp_path: Path) -> None:
        """It arrives as what it is a kind of, and needs no pickle for that."""
        error = DiskFull("fleche.db: disk is full")
        expected = pytest.raises(StorageError, match=r"^ssh bigpc: fleche\.db: disk is full$")
        with check_leaks(), self._failing(tmp_path, error) as remote, expected as caught:
            remote.load(ABSENT)
        assert caught.type is StorageError

    @pytest.mark.parametrize("kind", [StorageError, ValueError, RuntimeError])
    def test_control_characters_are_masked(self, tmp_path: Path, kind: type[Exception]) -> None:
        """A server cannot take over the terminal in which its failure is shown."""
        error = kind("\x1b[2J\x07 no\r such thing")
        expected = pytest.raises(kind)
        with check_leaks(), self._failing(tmp_path, error) as remote, expected as caught:
            remote.load(ABSENT)
        assert all(c.isprintable() for c in str(caught.value))
        assert "such thing" in str(caught.value)


def test_every_outage_is_told(tmp_path: Path) -> None:
    """A warning that was given is given again after the cache has worked meanwhile."""
    (tmp_path / "fleche.toml").write_text('[default]\ncache = "memory"\nroot = true\n')

    @fleche
    def work(x: int) -> int:
        return x

    remote = RemoteCache(LocalSubprocessChannel(workdir=str(tmp_path)), timeout=20)
    told: list[int] = []
    with check_leaks(), cache(remote), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for outage in range(2):
            work(outage * 10)
            os.kill(remote.info()["pid"], 9)
            before = len(caught)
            deadline = time.monotonic() + 20
            while len(caught) == before and time.monotonic() < deadline:
                work(outage * 10 + 1)
            work(outage * 10 + 2)
            told.append(len(caught) - before)
            remote.reconnect()
        remote.close()
    assert told == [1, 1]


@pytest.mark.timeout(60)
class TestCircles:
    """Servers that serve stacks with further layers on other machines may lead back to themselves.

    Each request would start one server more, until the machine has no room for another.
    """

    @staticmethod
    def write(directory: Path, workdir: str, on_error: str = "raise") -> Path:
        """Make a machine: a directory whose default cache has a layer in ``workdir``."""
        directory.mkdir(exist_ok=True)
        (directory / "fleche.toml").write_text(
            '[default]\ncache = "both"\n[kept]\ntype = "local"\nroot = "kept"\n'
            f'[[both]]\ncache = "kept"\n[[both]]\ntype = "subprocess"\n'
            f'workdir = "{workdir}"\non_error = "{on_error}"\n'
        )
        return directory

    @pytest.fixture
    def laptop(self, tmp_home: Path) -> Path:
        """Two machines that name each other."""
        self.write(tmp_home / "bigpc", "../laptop")
        return self.write(tmp_home / "laptop", "../bigpc")

    def test_a_circle_is_refused(self, laptop: Path) -> None:
        """By the server that is asked by itself; the error says so, and what to do."""
        with load_cache_config(start=laptop) as stack:
            with pytest.raises(RemoteConnectionError) as caught:
                stack.contains(ABSENT)
            assert "this cache asks itself" in str(caught.value)
            assert "cache_name" in str(caught.value)

    def test_a_copied_configuration(self, tmp_home: Path) -> None:
        """A server that finds the very file that has led to it asks nothing more."""
        (self.write(tmp_home / "work", "there") / "there").mkdir()
        with (
            load_cache_config(start=tmp_home / "work") as stack,
            pytest.raises(RemoteConnectionError, match="asks itself"),
        ):
            stack.contains(ABSENT)

    def test_an_account_that_unpickles_nothing(self, tmp_home: Path) -> None:
        """What its cache does with values is asked on the way that has led to it, too."""
        server = tmp_home / "python"
        server.write_text(f'#!/bin/sh\nexec {sys.executable} "$@" --no-unpickle\n')
        server.chmod(0o755)
        (tmp_home / "fleche.toml").write_text(
            '[default]\ncache = "there"\nroot = true\n[there]\ntype = "subprocess"\n'
            f'workdir = "{tmp_home}"\npython = "{server}"\n'
        )
        with (
            check_leaks(),
            load_cache_config(start=tmp_home) as remote,
            pytest.raises(RemoteConnectionError, match="asks itself"),
        ):
            remote.contains(ABSENT)

    def test_a_layer_that_may_be_missing(self, laptop: Path) -> None:
        """Each machine has what the other has, and nothing else."""
        for name in ("laptop", "bigpc"):
            self.write(
                laptop.parent / name, {"laptop": "../bigpc", "bigpc": "../laptop"}[name], "miss"
            )

        @fleche(version=1)
        def square(x: int) -> int:
            return x * x

        with load_cache_config("kept", start=laptop.parent / "bigpc") as kept, cache(kept):
            square(3)
        with load_cache_config(start=laptop) as stack, cache(stack):
            assert (square.contains(3), square.contains(4)) == (True, False)

    def test_a_row(self, laptop: Path) -> None:
        """Servers behind each other that end somewhere are as good as one."""
        self.write(laptop.parent / "bigpc", "../cluster")
        end = self.write(laptop.parent / "cluster", "unused") / "fleche.toml"
        end.write_text('[default]\ncache = "kept"\n[kept]\ntype = "local"\nroot = "kept"\n')
        with load_cache_config(start=end.parent) as kept:
            address = kept.save_value([1, 2, 3])
        with load_cache_config(start=laptop) as stack:
            assert stack.load_value(address) == [1, 2, 3]
