"""Channels: one contract, three implementations, and what is particular to each."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fleche.errors import RemoteConnectionError
from fleche.remote import LocalSubprocessChannel, PipeChannel, RemoteCache, SshChannel
from fleche.remote.channel import ProcessChannel, remote_command
from fleche.remote.stderr import LINES
from fleche.testing.channels import CHANNEL_CHECKS
from tests.helpers.caches import cache_factory
from tests.helpers.leaks import check_leaks
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

    def test_no_such_program(self) -> None:
        """A program that is not there is named."""
        with pytest.raises(
            RemoteConnectionError, match=r"cannot start 'no-such-program'.*installed"
        ):
            _Command("no-such-program").open()

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
