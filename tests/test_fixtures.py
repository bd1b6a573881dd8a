"""The fixtures keep their promises: a test that trusts them proves something."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.helpers import descriptors, processes
from tests.helpers.leaks import check_leaks
from tests.helpers.pythons import PYTHON_VERSIONS, Pythons
from tests.helpers.sshd import Sshd

ROOT = Path(__file__).parents[1]


def ssh(options: tuple[str, ...], command: str, host: str = Sshd.host) -> str:
    done = subprocess.run(
        ["ssh", *options, host, command], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestSshd:
    """A real server: authentication, a login shell, a home of its own."""

    def test_runs_a_command(self, sshd: Sshd) -> None:
        assert ssh(sshd.ssh_options, "echo hi") == "hi\n"

    def test_is_reached_by_any_name(self, sshd: Sshd) -> None:
        assert ssh(sshd.ssh_options, "echo hi", host="bigpc.example.com") == "hi\n"

    def test_counts_authentications(self, sshd: Sshd) -> None:
        before = sshd.accepted()
        ssh(sshd.ssh_options, "true")
        ssh(sshd.ssh_options, "true")
        assert sshd.accepted() == before + 2

    def test_home_is_not_the_real_one(self, sshd: Sshd) -> None:
        assert ssh(sshd.ssh_options, "echo ~").strip() == str(sshd.home)

    def test_commands_start_at_home(self, sshd: Sshd) -> None:
        assert ssh(sshd.ssh_options, "pwd -P").strip() == str(sshd.home.resolve())

    def test_environment_is_ours_to_set(self, sshd: Sshd) -> None:
        options = sshd.env(FLECHE_ONE="1", FLECHE_TWO="two words")
        assert ssh(options, 'echo "$FLECHE_ONE, $FLECHE_TWO"') == "1, two words\n"

    def test_shell_chatters_on_demand(self, sshd: Sshd) -> None:
        with sshd.shell("echo welcome"):
            assert ssh(sshd.ssh_options, "echo hi") == "welcome\nhi\n"
        assert ssh(sshd.ssh_options, "echo hi") == "hi\n"

    def test_forced_command_wins(self, sshd: Sshd) -> None:
        options = sshd.add_forced_command('echo "forced: $SSH_ORIGINAL_COMMAND"', "restrict")
        assert ssh(options, "rm -rf /nothing") == "forced: rm -rf /nothing\n"

    def test_wrong_key_is_refused(self, sshd: Sshd, tmp_path: Path) -> None:
        key = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        config = tmp_path / "config"
        config.write_text(Path(sshd.ssh_options[1]).read_text().replace("/key0", "/none"))
        done = subprocess.run(
            ["ssh", "-F", config, "-i", key, sshd.host, "true"], capture_output=True, text=True
        )
        assert done.returncode == 255
        assert "Permission denied" in done.stderr

    def test_control_master_shares_one_authentication(self, sshd: Sshd) -> None:
        path = sshd.directory / "cm"
        options = (
            *sshd.ssh_options,
            *("-o", "ControlMaster=auto", "-o", f"ControlPath={path}", "-o", "ControlPersist=30"),
        )
        before = sshd.accepted()
        try:
            assert [ssh(options, "echo hi") for _ in range(3)] == ["hi\n"] * 3
        finally:
            command = ["ssh", *options, "-O", "exit", sshd.host]
            subprocess.run(command, capture_output=True, check=False)
        assert sshd.accepted() == before + 1

    @pytest.mark.usefixtures("no_leaks")
    def test_drop_ends_every_connection(self, sshd: Sshd) -> None:
        command = ["ssh", *sshd.ssh_options, sshd.host, "echo up; sleep 60"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as connection:
            assert connection.stdout is not None
            assert connection.stdout.readline() == b"up\n"
            assert sshd.drop() == 1
            assert connection.wait(timeout=10) == 255

    def test_remote_python_imports_fleche(self, sshd: Sshd) -> None:
        script = "import fleche; print(list(fleche.__path__)[0])"
        assert ssh(sshd.ssh_options, f"{sys.executable} -c '{script}'").strip().endswith("fleche")


@pytest.mark.parametrize(("ci", "outcome"), [("true", "1 failed"), ("", "1 skipped")])
def test_ci_takes_no_skipped_ssh_test(tmp_path: Path, ci: str, outcome: str) -> None:
    """Continuous integration proves the production layer, or fails."""
    test = tmp_path / "test_it.py"
    test.write_text("import pytest\n@pytest.mark.ssh\ndef test_it():\n    pytest.skip('why')\n")
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "-p", "tests.helpers.sshd", test]
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30
    )
    assert outcome in done.stdout
    assert "why" in done.stdout or not ci


class TestLeaks:
    """Each kind of leak is caught and named; what goes in time is forgiven."""

    @pytest.fixture(autouse=True, params=["/proc", "/dev/fd and ps"])
    def way(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        """How it is found out: on Linux, and on macOS."""
        if request.param != "/proc":
            monkeypatch.setattr(processes, "_PROC", Path("/nowhere"))
            monkeypatch.setattr(descriptors, "_PLACES", ("/nowhere", "/dev/fd"))
        elif not os.path.isdir(request.param):
            pytest.skip("there is none")
        return str(request.param)

    def test_clean_block_passes(self) -> None:
        with check_leaks():
            subprocess.run(["true"], check=True)

    def test_descriptor(self) -> None:
        ends: list[int] = []
        with pytest.raises(AssertionError, match=r"descriptor \d+ -> pipe:"), check_leaks(0.05):
            ends.extend(os.pipe())
        for end in ends:
            os.close(end)

    def test_open_file_is_named(self, tmp_path: Path, way: str) -> None:
        is_named = way == "/proc" or hasattr(fcntl, "F_GETPATH")
        said = r"leaky\.txt" if is_named else r"descriptor \d+ -> -rw"
        with pytest.raises(AssertionError, match=said), check_leaks(0.05):
            file = (tmp_path / "leaky.txt").open("w")
        file.close()

    def test_thread(self) -> None:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait, name="lingerer", daemon=True)
        with pytest.raises(AssertionError, match="thread 'lingerer'"), check_leaks(0.05):
            thread.start()
        stop.set()
        thread.join()

    def test_child(self) -> None:
        with pytest.raises(AssertionError, match="child process 'sleep 60'"), check_leaks(0.05):
            child = subprocess.Popen(["sleep", "60"])
        child.kill()
        child.wait()

    def test_zombie(self) -> None:
        with pytest.raises(AssertionError, match="zombie"), check_leaks(0.5):
            child = subprocess.Popen(["true"])
        child.wait()

    def test_grace(self) -> None:
        with check_leaks(3):
            threading.Thread(target=time.sleep, args=(0.1,)).start()


class TestPythons:
    """Each version is what it says it is, and can import fleche and numpy."""

    @pytest.mark.parametrize("version", PYTHON_VERSIONS)
    def test_runs(self, pythons: Pythons, version: str) -> None:
        script = (
            "import blake3, cloudpickle, dill, fleche, msgspec, numpy, pandas, sys;"
            "print('%d.%d' % sys.version_info[:2])"
        )
        done = subprocess.run(
            [pythons[version], "-c", script], capture_output=True, text=True, timeout=30
        )
        assert done.stdout.strip() == version, done.stderr


class TestHome:
    """No test reads the configuration of the person who runs it."""

    def test_home_and_working_directory_are_the_tests_own(self, tmp_home: Path) -> None:
        assert Path.home() == tmp_home
        assert Path.cwd().is_relative_to(tmp_home)

    def test_is_empty(self, tmp_home: Path) -> None:
        assert list(tmp_home.rglob("*")) == [tmp_home / "work"]
