"""A real OpenSSH server on loopback, with keys and files of its own, to measure what ssh takes."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Server", "running_sshd"]

_START_SECONDS = 10.0

_SERVER = """\
ListenAddress 127.0.0.1
Port {port}
PidFile none
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/user_key.pub
AuthenticationMethods publickey
PermitRootLogin yes
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
"""

_CLIENT = """\
Host *
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {directory}/user_key
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {directory}/known_hosts
    GlobalKnownHostsFile /dev/null
    HostKeyAlias bench
    StrictHostKeyChecking yes
    BatchMode yes
    LogLevel ERROR
"""


@dataclass(frozen=True)
class Server:
    """A running server: a name that reaches it with these options of ssh, and where it listens."""

    host: str
    ssh_options: tuple[str, ...]
    port: int


@contextmanager
def running_sshd() -> Iterator[Server]:
    """Run a server for the time of the block.

    Raises:
        RuntimeError: OpenSSH is not installed, or its server does not start.
    """
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not (sshd and shutil.which("ssh") and shutil.which("ssh-keygen")):
        raise RuntimeError("install OpenSSH (its server, too), or choose benchmarks with --only")
    with tempfile.TemporaryDirectory(prefix="bench-ssh-") as name:
        directory, port = Path(name), _free_port()
        _write_files(directory, port)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # for privilege separation
        log = directory / "sshd.log"
        command = [sshd, "-D", "-f", str(directory / "server"), "-E", str(log)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            try:
                _wait_for(process, port, log)
                yield Server("bench", ("-F", str(directory / "client")), port)
            finally:
                process.terminate()


def _write_files(directory: Path, port: int) -> None:
    for key in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / key)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    (directory / "known_hosts").write_text(f"bench {(directory / 'host_key.pub').read_text()}")
    user = pwd.getpwuid(os.geteuid()).pw_name
    for name, text in (("server", _SERVER), ("client", _CLIENT)):
        (directory / name).write_text(text.format(port=port, directory=directory, user=user))


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _greets(port):
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace") if log.exists() else ""
            raise RuntimeError(f"sshd did not start:\n{said}")
        time.sleep(0.02)


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
