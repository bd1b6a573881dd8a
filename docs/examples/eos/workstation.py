"""The workstation of the demo: a directory of this machine, reached over SSH or a subprocess.

Over SSH it is a real OpenSSH server on loopback with keys, configuration and a port of its own. The
account's own ``~/.ssh`` is neither read nor written.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path

import interrupts

CONFIG = """\
[default]
cache = "results"
root = true

[results]
type = "local"
root = "results"
"""

_SERVER = """\
ListenAddress 127.0.0.1
Port {port}
PidFile none
HostKey {keys}/host_key
AuthorizedKeysFile {keys}/user_key.pub
AuthenticationMethods publickey
PermitRootLogin yes
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
"""

_CLIENT = """\
Host workstation
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {keys}/user_key
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {keys}/known_hosts
    GlobalKnownHostsFile /dev/null
    HostKeyAlias workstation
    StrictHostKeyChecking yes
    BatchMode yes
    LogLevel ERROR
"""


class Unavailable(Exception):
    """This kind of workstation cannot be had on this machine; says why."""


class Workstation(ABC):
    """A directory with a ``fleche.toml`` of its own, and the way there.

    Attributes:
        directory: where its server runs.
        route: in words, how it is reached.
    """

    route = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        (directory / "fleche.toml").write_text(CONFIG)

    @abstractmethod
    def layer(self) -> str:
        """Return what a laptop's ``fleche.toml`` says to get there."""

    @abstractmethod
    def start(self) -> None:
        """Switch it on.

        Raises:
            Unavailable: this cannot be done here.
        """

    @abstractmethod
    def stop(self) -> None:
        """Switch it off; it cannot be reached any more. Idempotent."""

    def logins(self) -> int | None:
        """Return the number of logins, if they are counted."""
        return None


class SubprocessWorkstation(Workstation):
    """Another process of this machine; switched off, its directory is out of reach."""

    route = "a subprocess of this machine"

    def layer(self) -> str:
        """Return the table of ``type = "subprocess"``."""
        return f'type = "subprocess"\nworkdir = {json.dumps(str(self.directory))}\n'

    def start(self) -> None:
        """Bring the directory into place."""
        if self._away.exists():
            self._away.rename(self.directory)

    def stop(self) -> None:
        """Put the directory out of the way."""
        if self.directory.exists():
            self.directory.rename(self._away)

    @property
    def _away(self) -> Path:
        return self.directory.with_suffix(".off")


class SshWorkstation(Workstation):
    """A real OpenSSH server on loopback."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._keys = directory.with_name("ssh")
        self._process: subprocess.Popen[bytes] | None = None
        self._port = _free_port()
        self.route = f"ssh and a real sshd (127.0.0.1:{self._port})"

    def layer(self) -> str:
        """Return the table of ``type = "ssh"``; ssh runs in the directory of the laptop."""
        return (
            'type = "ssh"\n'
            'host = "workstation"\n'
            'ssh_options = ["-F", "../ssh/config"]\n'
            f"python = {json.dumps(sys.executable)}\n"
            f"workdir = {json.dumps(str(self.directory))}\n"
        )

    def start(self) -> None:
        """Make keys unless there are some, start the server and log in once."""
        sshd = find_sshd()
        if not (sshd and shutil.which("ssh") and shutil.which("ssh-keygen")):
            raise Unavailable("no OpenSSH server is installed")
        try:
            if not self._keys.exists():
                self._write_keys()
            if os.geteuid() == 0:
                Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # for privilege separation
            command = [sshd, "-D", "-f", str(self._keys / "server"), "-E", str(self._log)]
            with interrupts.postponed():
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, start_new_session=True
                )
            self._wait()
            self._log_in()
        except (OSError, subprocess.SubprocessError) as error:
            self.stop()
            raise Unavailable(f"sshd is installed but does not serve here: {error}") from error

    def stop(self) -> None:
        """End the server."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def logins(self) -> int:
        """Return how many logins the server has logged."""
        return self._log.read_text(errors="replace").count("Accepted publickey ")

    @property
    def _log(self) -> Path:
        return self._keys / "server.log"

    def _write_keys(self) -> None:
        self._keys.mkdir(mode=0o700)
        for name in ("host_key", "user_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._keys / name)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        host_key = (self._keys / "host_key.pub").read_text()
        (self._keys / "known_hosts").write_text(f"workstation {host_key}")
        user = pwd.getpwuid(os.geteuid()).pw_name
        for name, text in (("server", _SERVER), ("config", _CLIENT)):
            filled = text.format(port=self._port, keys=self._keys, user=user)
            (self._keys / name).write_text(filled)

    def _wait(self, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not _listens(self._port):
            if self._process is None or self._process.poll() is not None:
                raise OSError(self._log.read_text(errors="replace").strip() or "it ended at once")
            if time.monotonic() > deadline:
                raise OSError(f"it did not answer within {seconds:.0f} s")
            time.sleep(0.05)

    def _log_in(self) -> None:
        command = ["ssh", "-F", str(self._keys / "config"), "workstation", "true"]
        tried = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=20
        )
        if tried.returncode != 0:
            raise OSError(tried.stderr.decode(errors="replace").strip() or "the login failed")


def find_sshd() -> str | None:
    """Return the absolute path of OpenSSH's server, which it insists on."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
