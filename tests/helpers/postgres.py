"""A real PostgreSQL server for the tests that are marked `postgres`."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.processes import free_port

__all__ = ["PostgresServer", "own_postgres", "postgres", "postgres_server"]


class PostgresServer:
    """A server of one's own, in a directory of its own, stopped at first.

    Attributes:
        url: the url of its maintenance database; it outlives a restart.
    """

    def __init__(self) -> None:
        self._programs = _programs()
        self._account = _account()
        self._home = Path(tempfile.mkdtemp(prefix="fleche-pg-"))
        if self._account is not None:
            shutil.chown(self._home, self._account, self._account)
        port = free_port()
        self.url = f"postgresql+psycopg://fleche@127.0.0.1:{port}/postgres"
        self._options = f"-p {port} -k {self._home} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._data = self._home / "data"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        if not self._data.exists():
            options = ("-A", "trust", "-U", "fleche", "-E", "UTF8", "--no-sync")
            self._run("initdb", "-D", str(self._data), *options)
        self._control("start", "-l", str(self._home / "log"), "-o", self._options)

    def stop(self, mode: str = "fast") -> None:
        """Stop it: "fast" says so to those who are connected, "immediate" does not."""
        self._control("stop", "-m", mode)

    def make_database(self, options: str = "") -> str:
        """Make an empty database and return its url."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return f"{self.url.rpartition('/')[0]}/{name}"

    def execute(self, statement: str, url: str = "") -> None:
        """Execute a statement in the database of ``url``, on a connection of its own."""
        import psycopg

        plain = (url or self.url).replace("+psycopg", "")
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(statement.encode())

    def break_connections(self, url: str) -> None:
        """End every session in the database of ``url``, whatever it is in the midst of."""
        name = url.rpartition("/")[2]
        self.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            f" WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        )

    def remove(self) -> None:
        """Remove all that it has written."""
        shutil.rmtree(self._home, ignore_errors=True)

    def _control(self, action: str, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-w", *arguments, action)

    def _run(self, program: str, *arguments: str) -> None:
        user: dict[str, Any] = {}
        if self._account is not None:
            user = {"user": self._account, "group": self._account, "extra_groups": []}
        log = self._home / f"{program}.out"
        command = [str(self._programs / program), *arguments]
        with log.open("w") as output:
            done = subprocess.run(command, stdout=output, stderr=output, cwd=self._home, **user)
        if done.returncode:
            pytest.skip(f"PostgreSQL does not start: {log.read_text().strip()[-300:]}")


@contextmanager
def _running() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
        server.stop("immediate")
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server for all tests of the session, which is not stopped before."""
    with _running() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Callable[[], str]:
    """Make an empty database each time it is called, and return its url."""
    return postgres_server.make_database


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """A server for the tests of one file, which leave it running, however often it stopped."""
    with _running() as server:
        yield server


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if path := shutil.which("initdb"):
        found.append(Path(path))
    if not found:
        pytest.skip("no PostgreSQL server is installed")
    pytest.importorskip("psycopg")
    return found[-1].resolve().parent


def _account() -> str | None:
    """The user that runs the server; None for the one who runs the tests. It refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root, and there is no other user")
