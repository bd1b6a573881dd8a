"""The doctor names the first step that fails, and what to do: over a real sshd, and without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import BaseCache, Local
from fleche.call import Call
from fleche.doctor import Step, examine
from fleche.remote import SshCache, SubprocessCache
from tests.helpers.commands import fleche_command, fleche_process
from tests.helpers.layers import in_memory
from tests.helpers.leaks import check_leaks
from tests.helpers.sshd import Sshd
from tests.helpers.sweeps import swept

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds in which nothing is typed."""
    monkeypatch.setattr("fleche.doctor._probe.PATIENCE", 1.5)
    monkeypatch.setattr("fleche.doctor._probe.PATIENCE_TO_LOG_IN", 5.0)
    monkeypatch.setattr("fleche.remote._multiplexer.SWALLOWED_SECONDS", 1.0)


@pytest.fixture
def station(tmp_path: Path) -> Path:
    """The directory of a server, with a ``fleche.toml``."""
    place = tmp_path / "station"
    place.mkdir()
    (place / "fleche.toml").write_text(
        '[default]\ncache = "results"\nroot = true\n[results]\ntype = "local"\nroot = "results"\n'
        '[frozen]\ntype = "local"\nroot = "results"\nread_only = true\n'
    )
    return place


def ssh_cache(sshd: Sshd, station: Path | None, **fields: Any) -> SshCache:
    settings: dict[str, Any] = {
        "host": sshd.host,
        "python": sys.executable,
        "ssh_options": sshd.ssh_options,
        "workdir": None if station is None else str(station),
        "connect_timeout": 15,
        **fields,
    }
    return SshCache(**settings)


def steps_of(cache: BaseCache, *, write: bool = True) -> list[Step]:
    """What the doctor says; no process and no descriptor may be left."""
    with check_leaks(), cache:
        return list(examine(cache, write=write))


def failure(steps: Sequence[Step], name: str, *before: str) -> Step:
    """The last step, which is the one that failed; those before it went well."""
    told = "\n".join(map(str, steps))
    *rest, last = steps
    assert (last.name, last.state) == (name, "failed"), told
    assert {step.state for step in rest} <= {"ok", "note"}, told
    assert set(before) <= {step.name for step in rest}, told
    assert last.advice, told
    return last


class TestWell:
    def test_over_ssh(self, sshd: Sshd, station: Path) -> None:
        """Every step, one authentication, and nothing is left in the cache."""
        logins = sshd.accepted()
        steps = {step.name: step for step in steps_of(ssh_cache(sshd, station))}
        assert {step.state for step in steps.values() if step.name != "free space"} == {"ok"}
        assert list(steps) == [
            *("ssh", "connection", "python", "versions", "cache", "free space"),
            *("round trip", "transfer"),
        ]
        assert "results" in steps["cache"].found
        assert str(station) in steps["python"].found
        assert "B/s" in steps["transfer"].found
        assert sshd.accepted() == logins + 1
        with Local(station / "results") as cache:
            assert cache.stats().values == 0

    def test_login_noise(self, sshd: Sshd, station: Path) -> None:
        """It does no harm, and is quoted."""
        with sshd.shell("echo Welcome to the cluster"):
            steps = steps_of(ssh_cache(sshd, station))
        noise = next(step for step in steps if step.name == "login noise")
        assert noise.state == "note"
        assert "Welcome to the cluster" in noise.found
        assert steps[-1].state == "ok"

    def test_no_configuration(self, tmp_home: Path) -> None:
        """A cache that is only the one by default is no mistake, and is told as that."""
        step = next(step for step in steps_of(SubprocessCache()) if step.name == "cache")
        assert step.state == "note"
        assert str(tmp_home / ".local/share/fleche/default") in step.found
        assert "no fleche.toml says so" in step.advice

    @pytest.mark.parametrize("here", [True, False], ids=["here", "there"])
    def test_read_only(self, here: bool, station: Path) -> None:
        """Who says so; nothing is saved."""
        cache = SubprocessCache(
            workdir=str(station), cache_name=None if here else "frozen", read_only=here
        )
        steps = steps_of(cache)
        note = next(step for step in steps if step.name == "read-only")
        assert note.state == "note"
        assert ("on this machine" in note.found) is here
        assert not (station / "results").exists()

    def test_other_versions(self, station: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are named at both ends."""
        monkeypatch.setattr("fleche.doctor._examine.__version__", "9.9")
        steps = steps_of(SubprocessCache(workdir=str(station)))
        versions = next(step for step in steps if step.name == "versions")
        assert versions.state == "note"
        assert "9.9" in versions.found

    def test_on_this_machine(self, tmp_path: Path) -> None:
        """A local cache has a directory, contents and free space."""
        steps = steps_of(Local(tmp_path / "new"))
        assert [step.name for step in steps][:4] == ["fleche", "cache", "directory", "contents"]
        assert "not there yet" in steps[2].found
        assert steps[-1].name == "transfer"
        assert steps_of(in_memory())[-1].state == "ok"

    def test_one_is_one(self, tmp_path: Path) -> None:
        cache = Local(tmp_path)
        cache.save_value([1])
        found = {step.name: step.found for step in steps_of(cache)}
        assert found["contents"].startswith("0 calls, 1 value, ")

    def test_writes_nothing_if_told(self, tmp_path: Path) -> None:
        steps = steps_of(Local(tmp_path / "new"), write=False)
        assert "transfer" not in {step.name for step in steps}
        assert not (tmp_path / "new").exists()

    def test_little_room(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It says so before it is a failure."""
        monkeypatch.setattr("fleche.doctor._examine.SCARCE", 1 << 60)
        steps = steps_of(Local(tmp_path / "c"))
        room = next(step for step in steps if step.name == "free space")
        assert room.state == "note"
        assert "fleche gc" in room.advice


class TestStandardInput:
    @pytest.mark.parametrize(
        "startup",
        swept(
            ["read line", "cat", "cat >/dev/null", "exec sh"],
            lambda startup: startup == "read line",  # all of them: TestSwallowed of the client
        ),
    )
    def test_a_start_up_file_reads_it(self, startup: str, sshd: Sshd, station: Path) -> None:
        """Whether the line comes back, is gone, or is taken for a command."""
        with sshd.shell(startup):
            last = failure(steps_of(ssh_cache(sshd, station)), "standard input", "ssh")
        assert "</dev/null" in last.advice

    @pytest.mark.slow
    def test_a_setup_command_reads_it(self, sshd: Sshd, station: Path) -> None:
        cache = ssh_cache(sshd, station, setup_commands=["read line"])
        failure(steps_of(cache), "standard input", "login", "python")


class TestSteps:
    def test_no_python(self, sshd: Sshd, station: Path) -> None:
        """The name that was looked for, and how to find the right one."""
        last = failure(steps_of(ssh_cache(sshd, station, python="python9")), "python", "login")
        assert "python9" in last.found
        assert "which python3" in last.advice

    def test_an_old_python(self, sshd: Sshd, station: Path) -> None:
        """One that cannot run fleche says so itself."""
        old = station / "old"
        old.write_text(
            f"#!/bin/sh\nexec {sys.executable} -c \"import sys; sys.version = '3.6.8 old'; "
            'exec(sys.argv[1])" "$2"\n'
        )
        old.chmod(0o755)
        last = failure(steps_of(ssh_cache(sshd, station, python=str(old))), "python", "login")
        assert "3.6.8" in last.found
        assert "3.10 or newer" in last.found

    def test_no_fleche(self, sshd: Sshd, station: Path) -> None:
        """An interpreter without it."""
        bare = station / "bare"
        bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
        bare.chmod(0o755)
        last = failure(steps_of(ssh_cache(sshd, station, python=str(bare))), "fleche", "python")
        assert "has no fleche" in last.found

    def test_another_package_of_that_name(self, sshd: Sshd, station: Path) -> None:
        """A package that is called so and is not this one: where it is."""
        other = station / "fleche"
        other.mkdir()
        (other / "__init__.py").write_text('__version__ = "7.0"\n')
        last = failure(steps_of(ssh_cache(sshd, station)), "fleche", "login", "python")
        assert "different package" in last.found
        assert str(other) in last.found
        assert "7.0" in last.found

    def test_a_directory_of_that_name(self, sshd: Sshd, station: Path) -> None:
        """A checkout in the directory of the server is none that is installed."""
        bare = station / "bare"
        bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
        bare.chmod(0o755)
        (station / "fleche" / "fleche").mkdir(parents=True)
        last = failure(steps_of(ssh_cache(sshd, station, python=str(bare))), "fleche", "python")
        assert f"has no fleche, only {station / 'fleche'}, a directory" in last.found
        assert "name its interpreter" in last.advice

    def test_no_workdir(self, sshd: Sshd, station: Path) -> None:
        last = failure(steps_of(ssh_cache(sshd, station / "absent")), "workdir", "login")
        assert str(station / "absent") in last.found

    def test_a_setup_command_fails(self, sshd: Sshd, station: Path) -> None:
        """Which of them, and what it said."""
        cache = ssh_cache(sshd, station, setup_commands=["true", "load_modules gcc"])
        last = failure(steps_of(cache), "setup_commands", "login")
        assert "number 2" in last.found
        assert "load_modules" in last.found

    def test_a_broken_configuration(self, sshd: Sshd, station: Path) -> None:
        """The place in the file there."""
        (station / "fleche.toml").write_text('[default]\ncache = "c"\n[c]\ntyp = "local"\n')
        last = failure(steps_of(ssh_cache(sshd, station)), "cache", "login", "python", "fleche")
        assert "typ" in last.found
        last = failure(
            steps_of(SubprocessCache(workdir=str(station), cache_name="absent")), "cache", "fleche"
        )
        assert last.found

    def test_an_account_without_a_shell(self, sshd: Sshd, station: Path) -> None:
        """A forced command runs in place of ours."""
        options = sshd.add_forced_command("echo This account is not available; exit 1")
        last = failure(steps_of(ssh_cache(sshd, station, ssh_options=options)), "shell", "ssh")
        assert "not available" in last.found


class TestServer:
    """What a server can do, and is out of reach of."""

    STACK = (
        '[default]\ncache = "both"\nroot = true\n[[both]]\ntype = "local"\nroot = "kept"\n'
        '[[both]]\ntype = "subprocess"\nworkdir = "{}"\non_error = "miss"\n'
    )

    @pytest.mark.parametrize(
        ("workdir", "said"), [("../station", "this cache asks itself"), ("../gone", "gone")]
    )
    def test_a_layer_out_of_its_reach(self, workdir: str, said: str, station: Path) -> None:
        """It may go on without; that is told, whole and in words, with where to look further."""
        (station / "fleche.toml").write_text(self.STACK.format(workdir))
        steps = steps_of(SubprocessCache(workdir=str(station)))
        step = failure(steps, "server", "transfer")
        assert "unreachable, going on without it" in step.found
        assert said in step.found
        assert "fleche." not in step.found
        assert "reconnect" not in step.found


class TestLogin:
    def test_an_unknown_host(self) -> None:
        last = failure(steps_of(SshCache("host.invalid", connect_timeout=15)), "login", "ssh")
        assert "resolve" in last.found

    def test_nobody_listens(self, sshd: Sshd) -> None:
        options = (*sshd.ssh_options, "-o", "Port=1")
        cache = SshCache(sshd.host, ssh_options=("-o", "Port=1", *options), connect_timeout=15)
        last = failure(steps_of(cache), "login", "ssh")
        assert "refused" in last.found
        assert "sshd" in last.advice

    def test_no_permission(self, sshd: Sshd) -> None:
        """The key is not accepted there."""
        key = sshd.directory / f"other{os.getpid()}"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        config = sshd.directory / f"other_config{os.getpid()}"
        text = Path(sshd.ssh_options[1]).read_text()
        lines = [line for line in text.splitlines() if "IdentityFile" not in line]
        config.write_text("\n".join([*lines, f"    IdentityFile {key}"]) + "\n")
        cache = SshCache(sshd.host, ssh_options=("-F", str(config)), connect_timeout=15)
        last = failure(steps_of(cache), "login", "ssh")
        assert "Permission denied" in last.found
        assert "ssh-copy-id" in last.advice

    def test_an_unknown_key_of_the_host(self, sshd: Sshd, tmp_path: Path) -> None:
        options = ("-o", f"UserKnownHostsFile={tmp_path}/none", *sshd.ssh_options)
        last = failure(
            steps_of(SshCache(sshd.host, ssh_options=options, connect_timeout=15)), "login", "ssh"
        )
        assert "Host key verification failed" in last.found

    def test_a_socket_with_a_long_path(self, tmp_path: Path) -> None:
        """It may have 104 bytes on macOS, 108 on Linux."""
        options = ("-o", "ControlMaster=auto", "-o", f"ControlPath={tmp_path}/{'x' * 100}")
        cache = SshCache("host.invalid", ssh_options=options, connect_timeout=15)
        last = failure(steps_of(cache), "login", "ssh")
        assert "%C" in last.advice

    def test_no_ssh(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        last = failure(steps_of(SshCache("host")), "ssh")
        assert "install OpenSSH" in last.advice


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for less than the doctor sends."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts file systems")
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", str(place)]
    try:
        done = subprocess.run(["mount", *options], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("remote", [True, False], ids=["remote", "local"])
def test_a_full_disk(remote: bool, full_disk: Path, station: Path) -> None:
    """It is found by saving, and is said with what frees space."""
    root = full_disk / "results"
    (station / "fleche.toml").write_text(
        f'[default]\ncache = "r"\nroot = true\n[r]\ntype = "local"\nroot = "{root}"\n'
    )
    cache = SubprocessCache(workdir=str(station)) if remote else Local(root)
    last = failure(steps_of(cache), "transfer")
    assert "full" in last.found or "space" in last.found
    assert "fleche gc" in last.advice


def test_a_directory_that_is_not_ours(tmp_path: Path) -> None:
    """A root that cannot be made is a failure of the transfer, with the reason."""
    (tmp_path / "file").write_text("")
    steps = steps_of(Local(tmp_path / "file" / "cache"))
    assert steps[-1].state == "failed"


@pytest.mark.parametrize("damage", ["malformed", "no database", "a file"])
def test_what_cannot_be_read(damage: str, tmp_path: Path) -> None:
    """Where not even the calls can be counted, verify would end with the same error."""
    root = tmp_path / "cache"
    with Local(root) as cache:
        cache.save(Call("f", {"x": 1}, result=1))
        (database,) = root.glob("*.db")
    if damage == "a file":
        shutil.rmtree(root)
        root.write_text("")
    elif damage == "no database":
        database.write_text("something else " * 500)
    else:
        with database.open("r+b") as file:
            file.seek(100)
            file.write(b"\xff" * (database.stat().st_size - 100))
    last = failure(steps_of(Local(root), write=False), "contents")
    assert str(root) in last.found
    assert "move it" in last.found
    assert ("-wal" in last.found) is (damage != "a file"), "which would damage what is put there"
    assert "url" not in last.found
    assert "verify" not in last.advice
    assert "computed again" in last.advice


# -- the command -----------------------------------------------------------------------------------


class TestCommand:
    def test_by_name_and_by_host(self, sshd: Sshd, station: Path) -> None:
        """A cache by its name; a host by that of the layer that is configured for it."""
        options = ", ".join(f'"{word}"' for word in sshd.ssh_options)
        Path("fleche.toml").write_text(
            '[default]\ncache = "s"\n[[s]]\ntype = "local"\nroot = "near"\n'
            f'[[s]]\ntype = "ssh"\nhost = "{sshd.host}"\nssh_options = [{options}]\n'
            f'python = "{sys.executable}"\nworkdir = "{station}"\n'
        )
        found = fleche_command("doctor", "--json")
        assert found.status == 0, found
        assert [each["ok"] for each in found.json["caches"]] == [True, True]
        told = fleche_command("doctor", sshd.host, "--no-write")
        assert told.status == 0, told
        assert "all well" in told.out
        assert "local" not in told.out.splitlines()[0]
        assert "round trip" in told.out

    def test_a_failure(self, tmp_path: Path) -> None:
        """Status 1, the reason and the advice; for programs the same."""
        told = fleche_command("doctor", "host.invalid")
        assert told.status == 1
        assert "✗ login" in told.out
        assert "→ check the name" in told.out
        (found,) = fleche_command("doctor", "host.invalid", "--json").json["caches"]
        assert found["steps"][-1]["state"] == "failed"

    @pytest.mark.parametrize("end", [":2222", ":/data/results", ":~/results"])
    def test_more_than_a_host(self, end: str, tmp_path: Path) -> None:
        """A port or a directory behind the host, as other programs take them, is recognised."""
        Path("fleche.toml").write_text(
            f'[default]\ncache = "far"\n[far]\ntype = "ssh"\nhost = "me@host.invalid{end}"\n'
        )
        told = fleche_command("doctor")
        assert (told.status, "→ host is user@host, or an alias: a port" in told.out) == (1, True)

    def test_a_pool_is_only_read(self, tmp_path: Path) -> None:
        """Nothing is saved in a member, made for one that is not there, or pushed to one."""
        Path("fleche.toml").write_text(
            '[default]\ncache = "work"\n[alice]\ntype = "local"\nroot = "alice"\n'
            '[bob]\ntype = "local"\nroot = "bbo"\n[[work]]\ntype = "local"\nroot = "near"\n'
            '[[work]]\npool = ["alice", "bob"]\n'
            '[[work]]\ntype = "local"\nroot = "alice"\nread_only = true\n'
        )
        for root in ("near", "alice"):
            with Local(root) as cache:
                cache.save(Call("f", {"x": root}, result=1))
        before = sorted(Path("alice").rglob("*"))
        found = fleche_command("doctor", "--json").json["caches"]
        steps = [{step["name"]: step for step in each["steps"]} for each in found]
        assert ["transfer" in each for each in steps] == [True, False, False, False]
        assert steps[1]["directory"]["state"] == "ok"
        assert "there is no such directory" in steps[2]["directory"]["found"]
        assert "root" in steps[2]["directory"]["advice"]
        assert not Path("bbo").exists()
        assert sorted(Path("alice").rglob("*")) == before
        listed = fleche_command("status", "--json").json["caches"][:4]
        assert [each["unpushed"] for each in listed] == [None, None, None, None]
        assert not Path("bbo").exists()

    def test_a_broken_file_here(self) -> None:
        Path("fleche.toml").write_text("[default\n")
        told = fleche_command("doctor")
        assert told.status == 1
        assert "not valid TOML" in told.out

    def test_the_default_that_is_not_there(self) -> None:
        """The name that status says to examine is that of a cache, not of a host."""
        Path("fleche.toml").write_text('[default]\ncache = "r"\n')
        assert "fleche doctor r" in fleche_command().out
        for words in (("doctor", "r"), ("doctor", "--cache", "r"), ("doctor",)):
            told = fleche_command(*words)
            assert told.status == 1
            assert "no cache is named 'r'" in told.out
            assert "ssh" not in told.out

    def test_a_name_that_is_taken_for_a_host(self) -> None:
        """It may be one that is not spelt right: what it could have meant is said first."""
        Path("fleche.toml").write_text('[results]\ntemplate = "memory"\n')
        (found,) = fleche_command("doctor", "reslts", "--json").json["caches"]
        assert found["steps"][0]["state"] == "note"
        assert "did you mean 'results'?" in found["steps"][0]["found"]
        assert "tried as a host" in found["steps"][0]["found"]
        told = fleche_command("doctor", "reslts", "--cache", "results")
        assert (told.status, "say one cache" in told.err) == (2, True)

    def test_the_variable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What FLECHE_CACHE names is examined, unless another cache is named."""
        Path("fleche.toml").write_text('[r]\ntype = "local"\nroot = "r"\n')
        with Local(tmp_path / "other"):
            pass
        monkeypatch.setenv("FLECHE_CACHE", "memory")
        (found,) = fleche_command("doctor", "--json").json["caches"]
        assert found["cache"] == "memory"
        for words in (("doctor", "r"), ("doctor", "--cache", "r")):
            (found,) = fleche_command(*words, "--no-write", "--json").json["caches"]
            assert found["cache"].startswith("local")

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("runtme", "did you mean 'runtime'"),
            ("own:Absent", "has no attribute 'Absent'"),
            ("broken:Own", "ZeroDivisionError"),
            ("own:Own", None),
        ],
    )
    def test_metadata(self, name: str, reason: str | None) -> None:
        """What is named there is imported, since no call is computed without it."""
        Path("own.py").write_text(
            "from fleche.metadata import MetaData\n\n\nclass Own(MetaData):\n    pass\n"
        )
        Path("broken.py").write_text("1 / 0\n")
        Path("fleche.toml").write_text(f'[default]\ncache = "memory"\nmetadata = ["{name}"]\n')
        told = fleche_process("doctor")
        assert told.status == (1 if reason else 0), told
        assert ("✗ metadata" in told.out) is bool(reason)
        assert (reason or "all well") in told.out
