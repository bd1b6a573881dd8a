"""A second user: an owner, a colleague who works in the same store, and one who only looks.

Each is a real account with a process of its own. A reader leaves nothing behind, whatever the
directory allows; whoever may write can do so after every other one has been there; whoever may not
is told so, and what to do.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
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

KINDS = ["local", "sql", "files"]
SHARED = 0o2775


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def above() -> Iterator[Path]:
    """A directory that every account may pass through."""
    place = Path(tempfile.mkdtemp(prefix="fleche-team-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def beside(place: Path, *accounts: Account) -> set[str]:
    """The files below that belong to one of these."""
    uids = {account.uid for account in accounts}
    return {
        path.relative_to(place).as_posix()
        for path in place.rglob("*")
        if path.lstat().st_uid in uids
    }


def look(account: Account, kind: str, place: Path) -> list[int]:
    """Which calls an account sees."""
    done = account.run(LOOK, kind, str(place), umask=0o002)
    assert done.stderr == ""
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("mode", swept([SHARED, 0o755, 0o1777], SHARED.__eq__), ids=oct)
class TestReaders:
    def test_leave_nothing_behind(
        self,
        team: Team,
        above: Path,
        kind: str,
        mode: int,
    ) -> None:
        """Whatever the directory allows; the owner goes on as if nobody had looked."""
        place = team.directory(above, mode)
        team.owner.run(SAVE, kind, str(place), "1", "2", umask=0o022)
        before = sorted(path.name for path in place.rglob("*"))
        for reader in (team.reader, team.writer):
            assert look(reader, kind, place) == [1, 2]
            assert beside(place, team.reader, team.writer) == set()
            assert sorted(path.name for path in place.rglob("*")) == before
        team.owner.run(SAVE, kind, str(place), "3", umask=0o022)
        assert look(team.reader, kind, place) == [1, 2, 3]
        assert beside(place, team.reader) == set()

    def test_killed_while_they_look(
        self,
        team: Team,
        above: Path,
        kind: str,
        mode: int,
    ) -> None:
        place = team.directory(above, mode)
        team.owner.run(SAVE, kind, str(place), "1", umask=0o002)
        done = team.reader.run(LOOK, kind, str(place), "die", umask=0o002, check=False)
        assert done.returncode == -signal.SIGKILL
        assert beside(place, team.reader) == set()
        team.owner.run(SAVE, kind, str(place), "2", umask=0o002)
        assert look(team.reader, kind, place) == [1, 2]

    def test_while_the_owner_is_there(
        self,
        team: Team,
        above: Path,
        kind: str,
        mode: int,
    ) -> None:
        """They see what is stored, and are in nobody's way."""
        place = team.directory(above, mode)
        with team.owner.start(STAY, kind, str(place), "1", "2", umask=0o022) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "here\n"
            for _ in range(2):
                assert look(team.reader, kind, place) == [1, 2]
            assert beside(place, team.reader) == set()
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.wait(30) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""
        assert look(team.reader, kind, place) == [1, 2, 1000]

    def test_after_the_owner_was_killed(
        self,
        team: Team,
        above: Path,
        kind: str,
        mode: int,
    ) -> None:
        """Nothing is lost, and nobody has to mend anything."""
        place = team.directory(above, mode)
        done = team.owner.run(KILLED, kind, str(place), "1", "2", umask=0o022, check=False)
        assert done.returncode == -signal.SIGKILL
        assert look(team.reader, kind, place) == [1, 2]
        assert beside(place, team.reader) == set()
        team.owner.run(SAVE, kind, str(place), "3", umask=0o022)
        assert look(team.reader, kind, place) == [1, 2, 3]


class TestWriters:
    def test_of_one_group(self, team: Team, above: Path, kind: str) -> None:
        """In a directory of a group, under the umask of a group, all of them write in turn."""
        place = team.directory(above, SHARED)
        for number, account in enumerate((team.owner, team.writer, team.owner, team.reader)):
            account.run(SAVE, kind, str(place), str(number), umask=0o002)
            assert look(team.reader, kind, place) == list(range(number + 1))

    def test_at_the_same_time(self, team: Team, above: Path, kind: str) -> None:
        place = team.directory(above, SHARED)
        accounts = (team.owner, team.writer, team.reader)
        processes = [
            account.start(SAVE, kind, str(place), *map(str, range(n, 60, 3)), umask=0o002)
            for n, account in enumerate(accounts)
        ]
        for process in processes:
            _, errors = process.communicate(timeout=60)
            assert (process.returncode, errors) == (0, "")
        assert look(team.reader, kind, place) == list(range(60))

    def test_killed(self, team: Team, above: Path, kind: str) -> None:
        """What one of them leaves behind when killed keeps no other from writing."""
        place = team.directory(above, SHARED)
        team.owner.run(SAVE, kind, str(place), "0", umask=0o002)
        for number, account in enumerate((team.writer, team.owner, team.reader), 1):
            done = account.run(KILLED, kind, str(place), str(number), umask=0o002, check=False)
            assert done.returncode == -signal.SIGKILL
            team.owner.run(SAVE, kind, str(place), str(number + 10), umask=0o002)
        assert look(team.reader, kind, place) == [0, 1, 2, 3, 11, 12, 13]

    @pytest.mark.parametrize("shared", ["local", "sql"])
    @pytest.mark.parametrize("mode", [SHARED, 0o1777], ids=oct)
    def test_where_groups_differ(
        self,
        team: Team,
        above: Path,
        shared: str,
        mode: int,
    ) -> None:
        """A log has the group of its database, whichever group its maker is of."""
        place = team.directory(above, mode)
        team.owner.run(SAVE, shared, str(place), "1", umask=0o002)
        for path in [place, *place.rglob("*")]:
            shutil.chown(path, group=team.gid)
        with team.writer.start(STAY, shared, str(place), umask=0o002) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            process.kill()
            process.wait()
        done = team.writer.run(KILLED, shared, str(place), umask=0o002, check=False)
        assert done.returncode == -signal.SIGKILL
        team.owner.run(SAVE, shared, str(place), "2", umask=0o002)
        assert look(team.reader, shared, place) == [1, 2]

    @pytest.mark.parametrize("mode", [0o755, 0o1777], ids=oct)
    def test_who_may_not(
        self,
        team: Team,
        above: Path,
        kind: str,
        mode: int,
    ) -> None:
        """A colleague without permission is told so, and takes nothing from the owner."""
        if kind == "files" and mode == 0o1777:
            pytest.skip("everybody may make files there")
        place = team.directory(above, mode)
        team.owner.run(SAVE, kind, str(place), "1", umask=0o022)
        said = team.writer.run(REFUSED, kind, str(place), "2", umask=0o022).stdout
        assert str(place) in said
        assert "cannot write" in said
        assert "read_only = true" in said
        team.owner.run(SAVE, kind, str(place), "3", umask=0o022)
        assert look(team.reader, kind, place) == [1, 3]


def test_a_log_of_somebody_else_is_named(team: Team, above: Path) -> None:
    """One that keeps the owner from writing: whose it is, and what mends it."""
    place = team.directory(above, 0o1777)
    team.owner.run(SAVE, "sql", str(place), "1", umask=0o022)
    make = "import sys; [open(f'{sys.argv[1]}/calls.db{end}', 'w') for end in ('-wal', '-shm')]"
    team.reader.run(make, str(place))
    said = team.owner.run(REFUSED, "sql", str(place), "2").stdout
    assert f"belongs to {team.reader.name}" in said
    assert "remove calls.db-wal and calls.db-shm" in said
    assert "read_only" not in said
    for end in ("-wal", "-shm"):
        (place / f"calls.db{end}").unlink()
    team.owner.run(SAVE, "sql", str(place), "2")
    time.sleep(0.06)
    assert look(team.reader, "sql", place) == [1, 2]
