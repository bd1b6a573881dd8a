"""The tutorial and the guide to SSH, followed by a new account with nothing but a checkout."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.pages import Page, pages
from tests.helpers.reader import Reader

ROOT = Path(__file__).parents[1]
PAGES = {page.name: page for page in pages()}
PATH = "/usr/local/bin:/usr/bin:/bin"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Newcomer:
    """An account whose home holds a checkout.

    Attributes:
        name: of the account.
        home: its home directory.
    """

    name: str
    home: Path

    @property
    def become(self) -> list[str]:
        """What runs a command as this user."""
        return ["setpriv", f"--reuid={self.name}", f"--regid={self.name}", "--init-groups"]

    @property
    def env(self) -> dict[str, str]:
        """What a login would set, and where pip finds packages."""
        own = {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name, "COLUMNS": "100"}
        kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        # Python takes two edits of one second that leave the size of a file for none.
        return {**kept, **own, "PATH": PATH, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, script: str, directory: Path | None = None, path: str = PATH) -> str:
        """Run a script of bash, and return what it prints."""
        done = subprocess.run(
            [*self.become, "bash", "-ec", script],
            cwd=directory or self.home,
            env={**self.env, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout

    def write(self, path: Path, text: str) -> None:
        path.write_text(text)
        shutil.chown(path, self.name, self.name)


@pytest.fixture
def newcomer() -> Iterator[Newcomer]:
    """An account that is made for the test, and gone afterwards."""
    needed = ("useradd", "userdel", "usermod", "setpriv", "git", "bash")
    if os.geteuid() != 0 or not all(map(shutil.which, needed)):
        pytest.skip("accounts can be made by root only")
    name = f"fl{secrets.token_hex(2)}"  # short, so that tables have room for it
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", name], check=True)
    try:
        subprocess.run(["usermod", "--password", "*", name], check=True)  # not locked, for sshd
        made = Newcomer(name, Path(pwd.getpwnam(name).pw_dir))
        checkout = made.home / "fleche"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
        subprocess.run(["chown", "-R", f"{name}:", str(checkout)], check=True)
        yield made
    finally:
        subprocess.run(["userdel", "--remove", name], capture_output=True)


def commands(page: Page, *beginnings: str) -> list[str]:
    """The blocks of commands of a page that begin so, ready for a shell."""
    found = [block.code.replace("$ ", "") for block in page.blocks if block.language in SHELLS]
    chosen = [code for code in found if code.startswith(beginnings)]
    assert len(chosen) == len(beginnings)
    return chosen


SHELLS = ("sh", "console")


def test_the_tutorial(newcomer: Newcomer) -> None:
    """From the installation to the last command, each prints what the page shows."""
    page = PAGES["tutorial.md"]
    newcomer.run(*commands(page, "python3 -m venv"))
    programs = newcomer.home / "fleche-tutorial" / "bin"
    env = {**newcomer.env, "PATH": f"{programs}:{PATH}"}
    with closing(Reader(newcomer.home, env, newcomer.become, str(programs / "python"))) as reader:
        assert reader.read(page) == []


@pytest.mark.ssh
def test_the_guide_to_ssh(newcomer: Newcomer, tmp_path: Path) -> None:
    """What the guide says, with an sshd of this machine as the other one."""
    page = PAGES["howto/ssh.md"]
    install, version = commands(page, "python3 -m venv", "ssh me@")
    (ask,) = commands(page, "python -c")
    there, here = [block.code for block in page.blocks if block.language == "toml"][:2]
    with other_machine(newcomer, tmp_path):
        newcomer.run(install)
        newcomer.write(newcomer.home / "fleche.toml", there)
        assert newcomer.run(as_user(newcomer, version)).startswith("fleche ")

        laptop = newcomer.home / "laptop"
        newcomer.run("mkdir laptop")
        newcomer.write(laptop / "fleche.toml", as_user(newcomer, here))
        path = f"{newcomer.home / 'fleche-env' / 'bin'}:{PATH}"
        assert f"'cwd': '{newcomer.home}'" in newcomer.run(ask, laptop, path)

        function = "from fleche import cache, fleche\n\n\n@fleche\ndef f(x):\n    return x + 1\n"
        newcomer.write(laptop / "f.py", function)
        push = 'python -c "from f import *; f(3); print(cache().push())"'
        assert newcomer.run(push, laptop, path) == "1\n"
        newcomer.run("rm -r ~/.fleche")
        found = 'python -c "from f import *; print(f.contains(3), f.explain(3))"'
        assert newcomer.run(found, laptop, path).startswith("True f() is stored")


def as_user(newcomer: Newcomer, text: str) -> str:
    """What a page says, for this account."""
    return text.replace("me@", f"{newcomer.name}@")


@contextmanager
def other_machine(newcomer: Newcomer, directory: Path) -> Iterator[None]:
    """Run an sshd that `bigpc.example.com` leads to in the account's own configuration of ssh."""
    sshd = shutil.which("sshd", path=f"{PATH}:/usr/sbin:/usr/local/sbin")
    if not sshd or not shutil.which("ssh"):
        pytest.skip("OpenSSH's sshd and ssh are not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    newcomer.run(
        "mkdir -m 700 .ssh; ssh-keygen -q -t ed25519 -N '' -f .ssh/fleche;"
        "cp .ssh/fleche.pub .ssh/authorized_keys"
    )
    newcomer.write(
        newcomer.home / ".ssh" / "config",
        f"Host bigpc.example.com\n    HostName 127.0.0.1\n    Port {port}\n"
        "    IdentityFile ~/.ssh/fleche\n    IdentitiesOnly yes\n"
        "    StrictHostKeyChecking accept-new\n    LogLevel ERROR\n",
    )
    key = directory / "host_key"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    config = directory / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {key}\nUsePAM no\nPidFile none\n"
        "AuthenticationMethods publickey\n"
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    log = directory / "log"
    process = subprocess.Popen([sshd, "-D", "-f", str(config), "-E", str(log)])
    try:
        for _ in range(500):
            if log.exists() and "Server listening" in log.read_text():
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()
