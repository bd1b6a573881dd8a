"""A second user: an owner, a colleague who works in the same store, and one who only looks.

Each is a real account with a process of its own. A reader leaves nothing behind, whatever the
directory allows; an account that may write can do so after every other one has been there; one that
may not is told so, and what to do.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers import accounts
from tests.helpers.accounts import Account, Team
from tests.helpers.sweeps import swept

team = accounts.team

pytestmark = [pytest.mark.timeout(180)]

COMMON = """
import os, sys, time, warnings
from fleche.digest import Address, digest
from fleche.errors import StorageError
from fleche.testing.corpus import an_entry

kind, place = sys.argv[1:3]
if kind == "local":
    from fleche.storage.local import local_storages
    values, calls = local_storages(place)
elif kind == "files":
    from fleche.storage.file import CallFile, ValueFile
    values, calls = ValueFile(place), CallFile(place)
elif kind == "fsspec":
    from fleche.storage.fsspec import CallFsspec, ValueFsspec
    values, calls = ValueFsspec("file://" + place), CallFsspec("file://" + place)
else:
    from fleche.storage.file import ValueFile
    from fleche.storage.sql import Sql
    values, calls = ValueFile(place), Sql(place + "/calls.db")

def save(number):
    value = {"large": "x" * 50_000, "number": number}
    parcel = values.packing.pack(value, digest(value))
    values.put_many([(Address.of(digest(value), parcel.variant), parcel)])
    calls.put_many([(digest(number), an_entry("f", x=number))])

def close():
    values.close()
    calls.close()
"""

SAVE = COMMON + "for number in sys.argv[3:]: save(int(number))\nclose()"
KILLED = COMMON + "for number in sys.argv[3:]: save(int(number))\nos.kill(os.getpid(), 9)"
REFUSED = (
    COMMON
    + """
try:
    save(int(sys.argv[3]))
except StorageError as error:
    print(error)
"""
)
LOOK = (
    COMMON
    + """
from fleche.call import QueryCall
found = sorted(e.record.arguments["x"].literal for _, e in calls.query(QueryCall.of(name="f")))
assert len(list(calls.entries())) == len(found)
for key, parcel in values.get_many([each.key for each in values.entries()]):
    parcel.close()
if not os.access(place + "/fleche.db", os.W_OK) and not os.access(place + "/calls.db", os.W_OK):
    calls.touch_many([digest(number) for number in found])
    values.touch_many([each.key for each in values.entries()])
list(calls.holders("ab"))
if len(sys.argv) > 3:
    os.kill(os.getpid(), 9)
close()
print(*found)
"""
)
STAY = (
    COMMON
    + """
for number in sys.argv[3:]: save(int(number))
print("here", flush=True)
sys.stdin.readline()
save(1000)
close()
"""
)

KINDS = ["local", "sql", "files", "fsspec"]
SHARED = 0o2775


@pytest.fixture(
    params=swept(KINDS, lambda kind: kind in ("local", "files"))
)  # "sql" is as "local" is
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def mode() -> int:
    """Of the directory, where a test says nothing else."""
    return SHARED


@dataclass(frozen=True)
class Store:
    """The store of a team: its kind, and where it is."""

    team: Team
    kind: str
    place: Path

    def run(
        self, account: Account, script: str, *arguments: object, umask: int, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a script as one of the team."""
        words = (self.kind, str(self.place), *map(str, arguments))
        return account.run(script, *words, umask=umask, check=check)

    def start(
        self, account: Account, script: str, *arguments: object, umask: int
    ) -> subprocess.Popen[str]:
        """Start a script as one of the team."""
        return account.start(script, self.kind, str(self.place), *map(str, arguments), umask=umask)

    def look(self, account: Account) -> list[int]:
        """Return which calls an account sees."""
        done = self.run(account, LOOK, umask=0o002)
        assert done.stderr == ""
        return [int(word) for word in done.stdout.split()]

    def files_of(self, *accounts: Account) -> set[str]:
        """Return the files that belong to one of these."""
        uids = {account.uid for account in accounts}
        return {
            path.relative_to(self.place).as_posix()
            for path in self.place.rglob("*")
            if path.lstat().st_uid in uids
        }


@pytest.fixture
def store(team: Team, kind: str, mode: int) -> Iterator[Store]:
    """A store of the team, in a directory that every account may pass through."""
    above = Path(tempfile.mkdtemp(prefix="fleche-team-"))
    above.chmod(0o755)
    yield Store(team, kind, team.directory(above, mode))
    shutil.rmtree(above)


@pytest.mark.parametrize("mode", swept([SHARED, 0o755, 0o1777], SHARED.__eq__), ids=oct)
class TestReaders:
    def test_leave_nothing_behind(self, team: Team, store: Store) -> None:
        """Whatever the directory allows; the owner goes on as if there had been no look."""
        store.run(team.owner, SAVE, 1, 2, umask=0o022)
        before = sorted(path.name for path in store.place.rglob("*"))
        for reader in (team.reader, team.writer):
            assert store.look(reader) == [1, 2]
            assert store.files_of(team.reader, team.writer) == set()
            assert sorted(path.name for path in store.place.rglob("*")) == before
        store.run(team.owner, SAVE, 3, umask=0o022)
        assert store.look(team.reader) == [1, 2, 3]
        assert store.files_of(team.reader) == set()

    def test_killed_while_they_look(self, team: Team, store: Store) -> None:
        store.run(team.owner, SAVE, 1, umask=0o002)
        done = store.run(team.reader, LOOK, "die", umask=0o002, check=False)
        assert done.returncode == -signal.SIGKILL
        assert store.files_of(team.reader) == set()
        store.run(team.owner, SAVE, 2, umask=0o002)
        assert store.look(team.reader) == [1, 2]

    def test_while_the_owner_is_there(self, team: Team, store: Store) -> None:
        """They see what is stored, and stop no one else from working."""
        with store.start(team.owner, STAY, 1, 2, umask=0o022) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "here\n"
            for _ in range(2):
                assert store.look(team.reader) == [1, 2]
            assert store.files_of(team.reader) == set()
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.wait(30) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""
        assert store.look(team.reader) == [1, 2, 1000]

    def test_after_the_owner_was_killed(self, team: Team, store: Store) -> None:
        """Nothing is lost, and nothing needs mending."""
        done = store.run(team.owner, KILLED, 1, 2, umask=0o022, check=False)
        assert done.returncode == -signal.SIGKILL
        assert store.look(team.reader) == [1, 2]
        assert store.files_of(team.reader) == set()
        store.run(team.owner, SAVE, 3, umask=0o022)
        assert store.look(team.reader) == [1, 2, 3]


class TestWriters:
    @pytest.mark.parametrize("umask", swept([0o077, 0o002, 0o022], (0o077).__eq__), ids=oct)
    def test_of_one_group(self, team: Team, store: Store, umask: int) -> None:
        """In a directory of a group all of them write in turn, whatever their umask."""
        for number, account in enumerate((team.owner, team.writer, team.owner, team.reader)):
            store.run(account, SAVE, number, umask=umask)
            assert store.look(team.reader) == list(range(number + 1))

    @pytest.mark.parametrize("mode", [0o2775, 0o2770], ids=oct)
    def test_what_they_make_has_the_mode_of_the_directory(
        self, team: Team, store: Store, mode: int
    ) -> None:
        """That is so in directories that they make themselves, too."""
        inner = Store(team, store.kind, store.place / "of" / "alloys")
        inner.run(team.owner, SAVE, 1, umask=0o077)
        inner.run(team.writer, SAVE, 2, umask=0o022)
        made = list(store.place.rglob("*"))
        found = {(path.is_dir(), oct(path.stat().st_mode & 0o7777)) for path in made}
        assert found == {(True, oct(mode)), (False, oct(mode & 0o666))}

    @pytest.mark.parametrize("mode", [0o700], ids=oct)
    def test_in_what_is_given_to_the_group(self, team: Team, store: Store) -> None:
        """A store that one of them had is that of all after the commands that the guide names."""
        store.run(team.owner, SAVE, 1, umask=0o077)
        for command in (
            ("chgrp", "-R", str(team.gid), store.place),
            ("chmod", "-R", "g+rwX", store.place),
            ("find", store.place, "-type", "d", "-exec", "chmod", "g+s", "{}", "+"),
        ):
            subprocess.run(command, check=True)
        store.run(team.writer, SAVE, *range(2, 40), umask=0o077)
        store.run(team.owner, SAVE, 1, 2, 40, umask=0o077)
        assert store.look(team.reader) == list(range(1, 41))

    @pytest.mark.parametrize("umask", [0o002, 0o077], ids=oct)
    def test_at_the_same_time(self, team: Team, store: Store, umask: int) -> None:
        accounts = (team.owner, team.writer, team.reader)
        processes = [
            store.start(account, SAVE, *range(n, 60, 3), umask=umask)
            for n, account in enumerate(accounts)
        ]
        for process in processes:
            _, errors = process.communicate(timeout=60)
            assert (process.returncode, errors) == (0, "")
        assert store.look(team.reader) == list(range(60))

    @pytest.mark.parametrize("kind", ["files"])
    def test_a_file_that_has_no_mode_yet(self, team: Team, store: Store) -> None:
        """One that another member is just making is waited for, on a busy machine for long."""
        directory = store.place / "new"
        directory.mkdir()
        os.chown(directory, team.owner.uid, team.gid)
        directory.chmod(0o2770)
        script = (
            "import os, sys\n"
            "from fleche.storage._making import make_file\n"
            "print('ready', flush=True)\n"
            "sys.stdin.readline()\n"
            "flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT\n"
            "os.close(make_file(sys.argv[2] + '/new/file', flags))\n"
        )
        with store.start(team.writer, script, umask=0o077) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            path = directory / "file"
            path.touch(0o600)
            os.chown(path, team.owner.uid, team.gid)
            print("go", file=process.stdin, flush=True)
            time.sleep(0.25)
            path.chmod(0o660)
            _, errors = process.communicate(timeout=20)
            assert (process.returncode, errors) == (0, "")

    def test_killed(self, team: Team, store: Store) -> None:
        """What one of them leaves behind when killed keeps no other from writing."""
        store.run(team.owner, SAVE, 0, umask=0o002)
        for number, account in enumerate((team.writer, team.owner, team.reader), 1):
            done = store.run(account, KILLED, number, umask=0o002, check=False)
            assert done.returncode == -signal.SIGKILL
            store.run(team.owner, SAVE, number + 10, umask=0o002)
        assert store.look(team.reader) == [0, 1, 2, 3, 11, 12, 13]

    @pytest.mark.parametrize("kind", ["local", "sql"])
    @pytest.mark.parametrize("mode", [SHARED, 0o1777], ids=oct)
    def test_where_groups_differ(self, team: Team, store: Store) -> None:
        """A log has the group of its database, whichever group its maker is of."""
        store.run(team.owner, SAVE, 1, umask=0o002)
        for path in [store.place, *store.place.rglob("*")]:
            shutil.chown(path, group=team.gid)
        with store.start(team.writer, STAY, umask=0o002) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            process.kill()
            process.wait()
        done = store.run(team.writer, KILLED, umask=0o002, check=False)
        assert done.returncode == -signal.SIGKILL
        store.run(team.owner, SAVE, 2, umask=0o002)
        assert store.look(team.reader) == [1, 2]

    @pytest.mark.parametrize("mode", [0o755, 0o1777], ids=oct)
    def test_who_may_not(self, team: Team, store: Store, mode: int) -> None:
        """A colleague without permission is told so, and takes nothing from the owner."""
        if store.kind in ("files", "fsspec") and mode == 0o1777:
            pytest.skip("everybody may make files there")
        store.run(team.owner, SAVE, 1, umask=0o022)
        said = store.run(team.writer, REFUSED, 2, umask=0o022).stdout
        assert str(store.place) in said
        assert "cannot write" in said
        assert "read_only = true" in said
        store.run(team.owner, SAVE, 3, umask=0o022)
        assert store.look(team.reader) == [1, 3]


@pytest.mark.parametrize("kind", ["fsspec"])
def test_files_of_fsspec_are_those_of_the_group(team: Team, store: Store) -> None:
    """As all others are, where the file system is the one of this machine."""
    for number, account in enumerate((team.owner, team.writer, team.owner)):
        store.run(account, SAVE, number, umask=0o077)
    assert store.look(team.reader) == [0, 1, 2]


@pytest.mark.parametrize(("kind", "mode"), [("sql", 0o1777)])
def test_a_log_of_another_account_is_named(team: Team, store: Store) -> None:
    """One that keeps the owner from writing: whose it is, and what mends it."""
    store.run(team.owner, SAVE, 1, umask=0o022)
    make = "import sys; [open(f'{sys.argv[1]}/calls.db{end}', 'w') for end in ('-wal', '-shm')]"
    team.reader.run(make, str(store.place))
    said = store.run(team.owner, REFUSED, 2, umask=0o022).stdout
    assert f"belongs to {team.reader.name}" in said
    assert "remove calls.db-wal and calls.db-shm" in said
    assert "read_only" not in said
    for end in ("-wal", "-shm"):
        (store.place / f"calls.db{end}").unlink()
    store.run(team.owner, SAVE, 2, umask=0o022)
    time.sleep(0.06)
    assert store.look(team.reader) == [1, 2]
