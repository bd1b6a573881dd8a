"""A real OpenSSH server on loopback, with keys, accounts file and home directory of its own.

    def test_something(sshd):
        cache = SshCache(sshd.host, python=sys.executable, ssh_options=sshd.ssh_options)

Every host name leads to the server, so tests may use aliases. The remote side is this machine and
this account, but its HOME is `sshd.home` (a fresh, shared directory: write `fleche.toml` there or
better into a `workdir` of the test's own).
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.helpers.processes import children, free_port
from tests.helpers.sweeps import is_quick

__all__ = ["Sshd", "running_sshd", "sshd"]

_START_TIMEOUT = 10.0

_SERVER = """\
ListenAddress 127.0.0.1
Port {port}
PidFile {directory}/sshd.pid
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
AuthenticationMethods publickey
PermitRootLogin yes
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
LogLevel VERBOSE
MaxStartups {startups}
MaxSessions 200
AcceptEnv *
SetEnv {environment}
"""

# Unknown to OpenSSH before 9.8; later versions shut out an address that fails too often.
_NO_PENALTIES = "PerSourcePenalties no\n"

_CLIENT = """\
Host *
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {key}
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {directory}/known_hosts
    GlobalKnownHostsFile /dev/null
    HostKeyAlias fleche-sshd
    StrictHostKeyChecking yes
    BatchMode yes
    LogLevel ERROR
"""


class Sshd:
    """A running server.

    Attributes:
        host: a name that reaches it, with `ssh_options`.
        ssh_options: what goes between `ssh` and the host.
        directory: short enough for a ControlPath below it.
        home: HOME on the remote side. Its `.bashrc` is read before every command (see `shell`).
        log_path: the server's log.
        port: where it listens.
    """

    host = "fleche-sshd"

    def __init__(self, directory: Path, startups: str = "200", *, measured: bool = False) -> None:
        self.startups = startups
        self._measured = measured
        self.directory = directory
        self.home = directory / "home"
        self.log_path = directory / "sshd.log"
        self.port = free_port()
        self._keys = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.home.mkdir()
        _generate_key(directory / "host_key")
        host_key = (directory / "host_key.pub").read_text()
        (directory / "known_hosts").write_text(f"fleche-sshd {host_key}")
        self.ssh_options = self._add_key()
        self._reset_shell()

    @property
    def pid(self) -> int:
        """The process that listens; each connection has a child of it."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it greets.

        Raises:
            RuntimeError: it did not; the message holds its log.
        """
        config = self._write_config()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # for privilege separation
        self._process = subprocess.Popen(
            [_sshd(), "-D", "-f", config, "-E", self.log_path], stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._greets():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"sshd did not start:\n{self.log()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server and every connection to it."""
        if self._process is not None:
            self.drop()
            self._process.terminate()
            self._process.wait()
            self._process = None

    def drop(self) -> int:
        """Kill the server's end of every connection; returns how many there were."""
        connections = list(children(self.pid))
        # An unprivileged user's connection is served by a second process, below the first.
        helpers = [child for parent in connections for child in children(parent.pid)]
        for process in (*connections, *helpers):
            if process.command.startswith("sshd"):
                with suppress(ProcessLookupError):  # the second goes with the first
                    os.kill(process.pid, signal.SIGKILL)
        return len(connections)

    def log(self) -> str:
        """What the server has logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def accepted(self) -> int:
        """How many authentications have succeeded."""
        return self.log().count("Accepted publickey ")

    def env(self, **variables: str) -> tuple[str, ...]:
        """Options, in place of `ssh_options`, that add variables to the remote environment."""
        setting = " ".join(f'{name}="{value}"' for name, value in variables.items())
        return (*self.ssh_options, "-o", f"SetEnv={setting}")

    @contextmanager
    def shell(self, script: str) -> Iterator[None]:
        """Let the remote shell, where it is bash, run `script` before each command meanwhile."""
        with (self.home / ".bashrc").open("a") as file:
            file.write(f"{script}\n")
        try:
            yield
        finally:
            self._reset_shell()

    def add_forced_command(self, command: str, *options: str) -> tuple[str, ...]:
        """Admit a new key that always runs `command`, whatever the client asks for.

        Args:
            command: as `command="..."` in `authorized_keys`.
            options: further options of that line, such as `restrict`.

        Returns:
            The options, in place of `ssh_options`, that use the key.
        """
        quoted = command.replace('"', '\\"')
        return self._add_key(f'command="{quoted}"', *options)

    def _add_key(self, *options: str) -> tuple[str, ...]:
        key = self.directory / f"key{self._keys}"
        config = self.directory / f"ssh_config{self._keys}"
        self._keys += 1
        _generate_key(key)
        public = key.with_suffix(".pub").read_text()
        with (self.directory / "authorized_keys").open("a") as file:
            file.write(f"{','.join(options)} {public}".lstrip())
        user = pwd.getpwuid(os.geteuid()).pw_name
        config.write_text(
            _CLIENT.format(port=self.port, user=user, key=key, directory=self.directory)
        )
        return ("-F", str(config))

    def _reset_shell(self) -> None:
        (self.home / ".bashrc").write_text("cd\n")

    def _write_config(self) -> Path:
        environment = {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / ".config")}
        coverage = os.environ.get("COVERAGE_PROCESS_CONFIG")
        if coverage and self._measured:
            environment["COVERAGE_PROCESS_CONFIG"] = coverage
        config = self.directory / "sshd_config"
        text = _SERVER.format(
            port=self.port,
            directory=self.directory,
            startups=self.startups,
            environment=" ".join(f"{name}={value}" for name, value in environment.items()),
        )
        config.write_text(text + _NO_PENALTIES)
        if subprocess.run([_sshd(), "-t", "-f", config], capture_output=True).returncode != 0:
            config.write_text(text)
        return config

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


@pytest.fixture(scope="session")
def sshd(request: pytest.FixtureRequest) -> Iterator[Sshd]:
    """The server, for the whole session. Except in the quick run, what it starts is measured."""
    if not (_sshd() and shutil.which("ssh")):
        pytest.skip("OpenSSH's sshd and ssh are not installed")
    with running_sshd(measured=not is_quick(request.config)) as server:
        yield server


@contextmanager
def running_sshd(startups: str = "200", *, measured: bool = False) -> Iterator[Sshd]:
    """A server for the time of the block. `startups` is its MaxStartups."""
    # Not tmp_path: a ControlPath may have 108 bytes at most.
    with tempfile.TemporaryDirectory(prefix="fl-", ignore_cleanup_errors=True) as directory:
        server = Sshd(Path(directory), startups, measured=measured)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that uses the server is an ssh test."""
    for item in items:
        if "sshd" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.ssh)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In continuous integration an ssh test that is skipped has failed."""
    report = yield
    unproved = report.skipped and item.get_closest_marker("ssh") is not None
    if unproved and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"an ssh test may not be skipped when CI=true: {report.longrepr}"
    return report


def _sshd() -> str:
    """The server's absolute path (it insists on one), or an empty string."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH')}:/usr/sbin:/usr/local/sbin") or ""


def _generate_key(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
