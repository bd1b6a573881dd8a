"""Channels: one contract, three implementations, and what is particular to each."""

from __future__ import annotations

import fcntl
import os
import pickle
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer
from typing import Any, ClassVar

import pytest

from fleche.config import cache_from_config, cache_to_config
from fleche.errors import ConfigError, RemoteConnectionError
from fleche.remote import (
    LocalSubprocessChannel,
    PipeChannel,
    RemoteCache,
    SshChannel,
    SubprocessCache,
    register_channel,
)
from fleche.remote.channel import ProcessChannel, _base, remote_command
from fleche.remote.channel._process import LINES
from fleche.testing.channels import CHANNEL_CHECKS
from tests.helpers.caches import cache_factory
from tests.helpers.leaks import check_leaks
from tests.helpers.permissions import as_somebody
from tests.helpers.serving import Serving


@pytest.mark.parametrize("check", CHANNEL_CHECKS)
def test_contract(serving: Serving, tmp_path: Path, channel_kind: str, check: Any) -> None:
    """Every channel keeps the contract and leaves nothing behind."""
    channel = serving.channel(channel_kind, cache_factory("file", tmp_path / "served"))
    with check_leaks():
        try:
            check(channel)
        finally:
            channel.close(0)


class TestPipe:
    """A server in a thread."""

    def test_a_server_that_raises(self) -> None:
        """The exception that ended the server is in the diagnosis."""

        def serve_badly(reader: Any, writer: Any) -> None:
            raise LookupError("no cache here")

        remote = RemoteCache(PipeChannel(serve_badly), connect_timeout=10)
        with pytest.raises(RemoteConnectionError, match="no cache here"):
            remote.info()


class _Command(ProcessChannel):
    """A channel to any command."""

    def __init__(self, *words: str) -> None:
        super().__init__(f"command {words[0]}")
        self._words = words

    def command(self) -> tuple[str, ...]:
        return self._words


@pytest.mark.usefixtures("no_leaks")
class TestProcess:
    """A server in a process, and what can go wrong with it."""

    @pytest.mark.parametrize("known", ["", None])
    def test_inside_of_another_program(
        self, monkeypatch: pytest.MonkeyPatch, known: str | None
    ) -> None:
        """An interpreter that is embedded may not know a program that starts one."""
        monkeypatch.setattr(sys, "executable", known)
        with pytest.raises(RemoteConnectionError, match="name an interpreter: python="):
            LocalSubprocessChannel().open()

    def test_no_such_program(self) -> None:
        """A program that is not there is named."""
        with pytest.raises(
            RemoteConnectionError, match=r"cannot start 'no-such-program'.*installed"
        ):
            _Command("no-such-program").open()
        with pytest.raises(RemoteConnectionError, match=r"cannot start '/': \w[^;]*$"):
            _Command("/").open()

    def test_a_place_that_may_not_be_looked_into(
        self, open_directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It stands in PATH, and is not why a program that is nowhere cannot be started."""
        closed = open_directory / "closed"
        closed.mkdir(mode=0o000)
        monkeypatch.setenv("PATH", f"{closed}:{os.environ['PATH']}")
        with as_somebody(), pytest.raises(RemoteConnectionError, match="is it installed"):
            _Command("no-such-program").open()

    def test_an_encoding_without_the_character(self, tmp_path: Path) -> None:
        """What is meant for the other machine has to go through the locale of this one."""
        path = tmp_path / "script.py"
        path.write_text(
            "from fleche.remote import RemoteConnectionError, SshChannel\n"
            "try:\n"
            "    SshChannel('bigpc', workdir='~/\\xfcbung').open()\n"
            "except RemoteConnectionError as error:\n"
            "    print(ascii(str(error)))\n"
        )
        ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        said = subprocess.run(
            [sys.executable, str(path)],
            env={**os.environ, **ascii_only},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "is no character of this locale, whose encoding is ascii" in said

    def test_status_and_last_words(self) -> None:
        """Exit status and the last lines of standard error are in the error."""
        command = "for i in 1 2 3; do echo line $i >&2; done; exit 7"
        remote = RemoteCache(_Command("sh", "-c", command), connect_timeout=10)
        with pytest.raises(RemoteConnectionError, match="exit status 7") as caught:
            remote.info()
        for part in ("line 1", "line 3", "reconnect()"):
            assert part in str(caught.value)

    def test_killed(self) -> None:
        """A signal is told as one."""
        remote = RemoteCache(_Command("sh", "-c", "kill -9 $$"), connect_timeout=10)
        with pytest.raises(RemoteConnectionError, match="signal 9"):
            remote.info()

    def test_a_child_that_never_ends(self) -> None:
        """A child that ignores the end of its input and SIGTERM is killed, in bounded time."""
        channel = _Command("sh", "-c", "trap '' TERM; exec sleep 60")
        reader, writer = channel.open()
        began = time.monotonic()
        writer.close()
        channel.close(0.2)
        reader.close()
        assert time.monotonic() - began < 5

    def test_an_interrupt_while_it_is_closed(self) -> None:
        """A child that does not end by itself is not left behind."""
        channel = _Command("sleep", "100")
        reader, writer = channel.open()
        pid = channel.pid
        assert pid is not None
        Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            channel.close(grace=20)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        reader.close()
        writer.close()

    def test_control_characters(self) -> None:
        """What a child prints cannot take over the terminal of who reads the error."""
        remote = RemoteCache(_Command("printf", r"\033[2Jwiped", "x"), connect_timeout=10)
        with pytest.raises(RemoteConnectionError) as caught:
            remote.info()
        assert "\x1b" not in str(caught.value)

    def test_endless_standard_error(self) -> None:
        """Only the last lines are kept, and the child is never blocked by them."""
        chatter = f"import sys\nfor i in range({LINES * 50}): print(i, 'x' * 2000, file=sys.stderr)"
        channel = _Command(sys.executable, "-c", chatter)
        reader, writer = channel.open()
        assert reader.readinto(memoryview(bytearray(10))) == 0
        said = channel.diagnose()
        reader.close()
        writer.close()
        assert said.startswith("exit status 0")
        assert len(said) < LINES * 600

    def test_standard_error_that_outlives_the_child(self) -> None:
        """Closing does not wait for a grandchild that holds standard error open."""
        channel = _Command("sh", "-c", "sleep 3 >&2 & echo started >&2")
        reader, writer = channel.open()
        assert reader.readinto(memoryview(bytearray(10))) == 0
        began = time.monotonic()
        assert "started" in channel.diagnose()
        channel.close()
        assert time.monotonic() - began < 2
        reader.close()
        writer.close()


class TestSubprocess:
    """``python -m fleche remote --serve`` on this machine."""

    def test_command(self) -> None:
        """The command is the one that SSH would run too."""
        channel = LocalSubprocessChannel(cache_name="shared", arguments=["--read-only"])
        assert channel.command() == [
            *(sys.executable, "-m", "fleche", "remote", "--serve"),
            *("--cache=shared", "--read-only"),
        ]

    def test_surroundings(self, tmp_path: Path) -> None:
        """``workdir`` and ``env`` are those of the child."""
        channel = LocalSubprocessChannel(workdir=str(tmp_path), env={"NAME": "value"})
        options = channel.options()
        assert options["cwd"] == str(tmp_path)
        assert options["env"]["NAME"] == "value"  # type: ignore[index]

    def test_pipes_as_they_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where a pipe cannot be made longer, as on macOS, large values go through a short one."""
        monkeypatch.delattr(fcntl, "F_SETPIPE_SZ", raising=False)
        value = os.urandom(3 << 20)
        with SubprocessCache(cache_name="memory") as remote:
            assert remote.load_value(remote.save_value(value)) == value


class TestSsh:
    """The command line of ssh."""

    @pytest.mark.parametrize("host", ["", "-oProxyCommand=touch /tmp/x", "-v"])
    def test_hosts_that_are_options(self, host: str) -> None:
        """A host that ssh would take for an option is refused at once."""
        with pytest.raises(ValueError, match="host"):
            SshChannel(host)

    def test_options_stand_before_the_host(self) -> None:
        """The user's words come first, verbatim: of what is said twice, ssh takes the first."""
        words = list(SshChannel("me@bigpc", ssh_options=["-o", "ControlMaster=auto"]).command())
        assert words[words.index("ssh") : -1] == [
            *("ssh", "-o", "ControlMaster=auto"),
            *("-o", "RequestTTY=no", "-o", "RemoteCommand=none"),
            *("--", "me@bigpc"),
        ]

    def test_remote_command(self) -> None:
        """The directory first, then the setup, then the server; each only after the one before."""
        command = remote_command(
            python="python3",
            cache_name="shared",
            setup_commands=["module load python/3.11", "source ~/.venv/bin/activate"],
            workdir="~/project",
        )
        assert command == (
            "cd ~/project && module load python/3.11 && source ~/.venv/bin/activate"
            " && exec python3 -m fleche remote --serve --cache=shared"
        )

    def test_a_setup_of_several_lines(self) -> None:
        """As TOML gives what stands between three quotes."""
        command = remote_command(
            python="true", cache_name=None, setup_commands=["\na=1\necho $a\n"], workdir=None
        )
        shown = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        assert shown.stdout == "1\n"

    @pytest.mark.parametrize(
        ("path", "quoted"),
        [
            ("~", "~"),
            ("~/a b", "~/'a b'"),
            ("~user/x", "~user/x"),
            ("~$(id)/x", "'~$(id)/x'"),
            ("a;b", "'a;b'"),
            ("/plain", "/plain"),
        ],
    )
    def test_quoting(self, path: str, quoted: str) -> None:
        """A leading ~ is left to the remote shell, everything else is data."""
        command = remote_command(python="p", cache_name=None, setup_commands=(), workdir=path)
        assert command.startswith(f"cd {quoted} && ")

    def test_quoting_holds(self, tmp_path: Path) -> None:
        """A shell takes the words as they were meant."""
        directory = tmp_path / "it's $(a) `dir`"
        directory.mkdir()
        command = remote_command(
            python="echo", cache_name="a b'c", setup_commands=["true"], workdir=str(directory)
        )
        shown = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        assert shlex.join(["-m", "fleche", "remote", "--serve", "--cache"]) in shown.stdout
        assert shown.stdout.endswith("a b'c\n")


# -- channels of the user's ------------------------------------------------------------------------


class NiceChannel(ProcessChannel):
    """A server that lets others go first."""

    def __init__(self, cache_name: str, level: int = 10) -> None:
        super().__init__(f"nice {cache_name}")
        self._words = [
            "nice",
            "-n",
            str(level),
            sys.executable,
            "-m",
            "fleche",
            "remote",
            "--serve",
        ]
        self._words.append(f"--cache={cache_name}")

    def command(self) -> list[str]:
        return self._words


class TestByName:
    """A configuration names a channel as it names a storage."""

    TABLE: ClassVar = {"cache_name": "memory", "level": 5, "timeout": 30.0, "on_error": "miss"}

    @pytest.fixture(autouse=True)
    def registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the name be known here alone."""
        monkeypatch.setattr(_base, "_registered", {})
        register_channel("nice", NiceChannel)

    @pytest.fixture(params=["nice", f"{__name__}:NiceChannel"])
    def named(self, request: pytest.FixtureRequest) -> str:
        """The name of the channel: registered, or its import path."""
        return str(request.param)

    def test_it_works(self, named: str) -> None:
        """The keys that are not those of every remote cache are the channel's."""
        with check_leaks(), cache_from_config({"type": named, **self.TABLE}) as remote:
            assert isinstance(remote, RemoteCache)
            assert remote.info()["cache_name"] == "memory"
            assert (remote.timeout, remote.on_error) == (30.0, "miss")

    def test_it_is_its_configuration(self, named: str) -> None:
        """It comes back from its table, and from a pickle."""
        remote = cache_from_config({"type": named, **self.TABLE})
        assert cache_to_config(remote) == {"type": named, **self.TABLE}
        assert cache_from_config(cache_to_config(remote)) == remote
        assert pickle.loads(pickle.dumps(remote)) == remote

    @pytest.mark.parametrize(
        ("table", "said"),
        [
            ({"type": "nice"}, "cache_name"),
            ({"type": "nice", "cache_name": "m", "levl": 5}, "levl"),
            ({"type": "nicer"}, "did you mean 'nice'"),
            ({"type": "nowhere:Channel"}, "No module named 'nowhere'"),
            ({"type": "fleche.remote:SshCache"}, "no subclass of Channel"),
            ({"type": "nice", "cache_name": "m", "timeout": "x"}, "timeout"),
        ],
    )
    def test_what_is_wrong(self, table: dict[str, Any], said: str) -> None:
        """A mistake is one error that says where it is."""
        with pytest.raises(ConfigError, match=said):
            cache_from_config(table)

    def test_what_cannot_be_registered(self) -> None:
        """A name that is taken, and what is no channel."""
        with pytest.raises(ValueError, match="built in"):
            register_channel("ssh", NiceChannel)
        with pytest.raises(TypeError, match="no subclass"):
            register_channel("odd", dict)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a name is letters, digits"):
            register_channel("", NiceChannel)
