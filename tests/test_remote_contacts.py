"""When a server was last reached, and how much room it has."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleche.caches import BaseCache, Local, free_bytes
from fleche.remote import PipeChannel, RemoteCache, last_contact, serve
from tests.helpers.commands import fleche_command
from tests.helpers.layers import in_memory

ABSENT = "0" * 64


class Elsewhere(PipeChannel):
    """A server that counts as one on another machine."""

    local = False


@pytest.fixture(autouse=True)
def _notes(tmp_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_home / "notes"))


def served(cache: BaseCache, kind: type[PipeChannel] = Elsewhere) -> RemoteCache:
    channel = kind(lambda reader, writer: serve(reader, writer, cache), "ssh bigpc")
    return RemoteCache(channel, connect_timeout=20)


@pytest.fixture
def remote() -> Iterator[RemoteCache]:
    with served(in_memory()) as made:
        yield made


def test_a_contact_is_noted(remote: RemoteCache) -> None:
    """When, and what the server is; for other processes of this account, too."""
    assert last_contact("ssh bigpc") is None
    before = time.time() - 1
    remote.contains(ABSENT)
    found = last_contact("ssh bigpc")
    assert found is not None
    assert before <= found.at <= time.time() + 1
    assert found.hostname == os.uname().nodename
    assert last_contact("ssh other") is None


def test_what_is_here_needs_no_note(tmp_home: Path) -> None:
    """A server on this machine can be asked at any time."""
    with served(in_memory(), PipeChannel) as cache:
        cache.contains(ABSENT)
    assert last_contact("ssh bigpc") is None


def test_a_failure_is_no_harm(
    remote: RemoteCache, tmp_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the note cannot be written, or was damaged, nothing is known."""
    (tmp_home / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_home / "file"))
    assert remote.contains(ABSENT) is False
    assert last_contact("ssh bigpc") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_home / "notes"))
    remote.reconnect()
    remote.contains(ABSENT)
    for path in (tmp_home / "notes").rglob("*"):
        if path.is_file():
            path.write_text("{")
    assert last_contact("ssh bigpc") is None


def test_status_says_when(remote: RemoteCache) -> None:
    """Without asking the machine."""
    remote.contains(ABSENT)
    Path("fleche.toml").write_text(
        '[default]\ncache = "s"\n[[s]]\ntype = "local"\nroot = "near"\n'
        '[[s]]\ntype = "ssh"\nhost = "bigpc"\n'
    )
    told = fleche_command()
    assert told.status == 0
    assert "reached just now" in told.out
    assert fleche_command("--json").json["caches"][1]["contact"] is not None


def test_room(tmp_path: Path) -> None:
    """A server tells how much is free where its cache is; what is in memory has no disk."""
    with Local(tmp_path / "c") as cache, served(cache) as remote:
        found = remote.info()["free_bytes"]
    here = os.statvfs(tmp_path)
    assert 0 < found <= here.f_blocks * here.f_frsize
    with served(in_memory()) as remote:
        assert remote.info()["free_bytes"] is None


@pytest.mark.parametrize(
    ("config", "known"),
    [
        ({"type": "local", "root": "new/dir"}, True),
        ([{"type": "ssh", "host": "h", "root": "x"}, {"type": "local", "root": "."}], True),
        ({"values": {"type": "memory"}, "calls": {"type": "sql", "url": "calls.db"}}, True),
        ({"pool": [{"type": "local", "root": "/"}]}, True),
        ({"type": "ssh", "host": "h"}, False),
        ({"type": "sql", "url": "postgresql://h/d"}, False),
        ({"type": "memory"}, False),
    ],
    ids=str,
)
def test_where_room_is_looked_for(config: object, known: bool) -> None:
    """Wherever a cache keeps files on this machine, also where they are not there yet."""
    assert (free_bytes(config) is not None) is known
