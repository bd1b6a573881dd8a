"""A real PostgreSQL server for the tests that are marked `postgres`."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["postgres", "postgres_server"]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The url of a server's maintenance database; the server is this session's own."""
    programs = _programs()
    account = _account()
    home = Path(tempfile.mkdtemp(prefix="fleche-pg-"))
    if account is not None:
        shutil.chown(home, account, account)
    port = _free_port()

    def run(program: str, *arguments: str) -> None:
        user: dict[str, Any] = {}
        if account is not None:
            user = {"user": account, "group": account, "extra_groups": []}
        log = home / f"{program}.out"
        with log.open("w") as output:
            done = subprocess.run(
                [programs / program, *arguments], stdout=output, stderr=output, cwd=home, **user
            )
        if done.returncode:
            pytest.skip(f"PostgreSQL does not start: {log.read_text().strip()[-300:]}")

    data = home / "data"
    try:
        run("initdb", "-D", str(data), "-A", "trust", "-U", "fleche", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"
        run("pg_ctl", "-D", str(data), "-w", "-l", str(home / "log"), "-o", options, "start")
        yield f"postgresql+psycopg://fleche@127.0.0.1:{port}/postgres"
        run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server: str) -> Callable[[], str]:
    """Make an empty database each time it is called, and return its url."""
    import psycopg

    def make() -> str:
        name = f"test_{secrets.token_hex(6)}"
        plain = postgres_server.replace("+psycopg", "")
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{postgres_server.rpartition('/')[0]}/{name}"

    return make


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


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
