"""Real accounts of a group, for tests of what colleagues do to each other's files."""

from __future__ import annotations

import grp
import os
import pwd
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Account", "Team", "team"]


# Read before the process becomes another user, who may not be allowed to read the interpreter.
_PRELOAD = """
import os, pwd, shutil, sqlite3, sys, tempfile, time, urllib.parse, warnings
import fleche.caches, fleche.storage.file, fleche.storage.local, fleche.storage.sql
import fsspec.implementations.local
import fleche.storage.fsspec, fleche.testing.corpus
from fleche.digest import digest
from fleche.storage import ValueMemory
_packing = ValueMemory().packing
_packing.unpack(_packing.pack({1: [2]}, digest({1: [2]})), digest({1: [2]}))
"""


@dataclass(frozen=True)
class Account:
    """A user that processes can run as.

    Attributes:
        name: of the account.
        uid: its number.
        gid: its own group.
        groups: the group that all of them share, besides.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    def run(
        self, script: str, *arguments: str, umask: int = 0o022, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a Python script as this user, and return what became of it."""
        process = self.start(script, *arguments, umask=umask)
        said, errors = process.communicate(timeout=50)
        if check:
            assert process.returncode == 0, errors[-3000:]
        return subprocess.CompletedProcess(script, process.returncode, said, errors)

    def start(self, script: str, *arguments: str, umask: int = 0o022) -> subprocess.Popen[str]:
        """Start a Python script as this user."""
        pipe = subprocess.PIPE
        become = (
            f"os.setgroups({self.groups!r}); os.setgid({self.gid}); os.setuid({self.uid})\n"
            f"os.umask({umask})\n"
        )
        return subprocess.Popen(
            [sys.executable, "-c", f"{_PRELOAD}{become}{script}", *arguments],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            cwd="/",
            env={"PATH": os.environ["PATH"], "HOME": "/", "PYTHONPATH": os.pathsep.join(sys.path)},
        )


@dataclass(frozen=True)
class Team:
    """Three colleagues.

    Attributes:
        owner: whose store it is.
        writer: works in it, too.
        reader: looks at it.
        gid: the group of all three.
    """

    owner: Account
    writer: Account
    reader: Account
    gid: int

    def directory(self, parent: Path, mode: int) -> Path:
        """Make a directory of the owner and of the group, with this mode."""
        place = parent / secrets.token_hex(4)
        place.mkdir()
        os.chown(place, self.owner.uid, self.gid)
        place.chmod(mode)
        return place


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Accounts that are made for the tests and removed afterwards; only root can do so."""
    if os.geteuid() != 0 or not shutil.which("useradd"):
        pytest.skip("accounts can be made by root only")
    mark = secrets.token_hex(3)
    group = f"fleche{mark}"
    _command("groupadd", group)
    names = [f"fl{role}{mark}" for role in ("own", "write", "read")]
    try:
        for name in names:
            _command("useradd", "--no-create-home", "--groups", group, name)
        found = [pwd.getpwnam(name) for name in names]
        gid = grp.getgrnam(group).gr_gid
        owner, writer, reader = (
            Account(each.pw_name, each.pw_uid, each.pw_gid, (gid,)) for each in found
        )
        yield Team(owner, writer, reader, gid)
    finally:
        for name in names:
            subprocess.run(["userdel", name], capture_output=True, check=False)
        subprocess.run(["groupdel", group], capture_output=True, check=False)


def _command(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{words[0]}: {done.stderr.strip()}")
