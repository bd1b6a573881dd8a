"""Over a real sshd: the configuration as it is written down, and what only ssh can prove."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]
import pytest

import fleche
from fleche import wrap_executor
from fleche.config import load_cache_config
from fleche.errors import Rejected, RemoteConnectionError
from fleche.remote import SshCache, SshChannel
from fleche.testing import example_call
from tests.helpers.processes import is_gone
from tests.helpers.sshd import Sshd

SERVED = '[default]\ncache = "shared"\n[shared]\ntemplate = "cloudpickle"\nroot = "~/served"\n'


@pytest.fixture
def workdir(sshd: Sshd) -> Iterator[str]:
    """A directory in the remote home with a fleche.toml, as the remote side writes it."""
    project = sshd.home / "project"
    project.mkdir(exist_ok=True)
    (project / "fleche.toml").write_text(SERVED)
    yield "~/project"
    subprocess.run(["rm", "-rf", str(sshd.home / "served"), str(project)], check=True)


@pytest.fixture
def remote(sshd: Sshd, workdir: str, no_leaks: None) -> Iterator[Callable[..., SshCache]]:
    """Makes caches that reach the server."""
    made: list[SshCache] = []

    def make(**fields: Any) -> SshCache:
        given = {
            "python": sys.executable,
            "ssh_options": sshd.ssh_options,
            "workdir": workdir,
            "timeout": 20,
            "connect_timeout": 20,
        }
        made.append(SshCache(sshd.host, **{**given, **fields}))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def test_the_configuration_as_specified(
    sshd: Sshd, workdir: str, tmp_home: Path, no_leaks: None
) -> None:
    """A local layer with SQL calls, an ssh layer behind it, `~` in every path."""
    Path("fleche.toml").write_text(
        textwrap.dedent(f"""
        [default]
        cache = "shared"

        [[shared]]                      # the local layer: saves go here
        values.type = "cloudpickle"
        values.root = "~/.fleche/values"
        calls.type = "sql"
        calls.url = "sqlite:///~/.fleche/calls.db"

        [[shared]]                      # the remote layer: read through
        type = "ssh"
        host = "marvin@bigpc.example.com"
        cache_name = "shared"
        python = "{sys.executable}"
        ssh_options = ["-F", "{sshd.ssh_options[1]}", "-l", "{os.environ.get("USER", "root")}",
                       "-o", "ControlMaster=auto",
                       "-o", "ControlPath={sshd.directory}/cm-%C",
                       "-o", "ControlPersist=1s"]
        setup_commands = ["echo module load python/3.11", "cd ~/project"]
        workdir = "~/project"
        """)
    )
    with load_cache_config() as stack:
        large = "too large to be kept with its call " * 1000
        key = stack.save(example_call(result=large))
        assert stack.push() == 1
        near, far = stack.layers  # type: ignore[attr-defined]
        assert far.load(key).result == large
        assert far.info()["cwd"] == str(sshd.home / "project")
        assert far.info()["cache"]["values"]["root"] == str(sshd.home / "served" / "values")
        near.evict(key)
        assert stack.load(key).result == large
        assert near.load(key).result == large
    assert (tmp_home / ".fleche" / "calls.db").exists()
    assert (tmp_home / ".fleche" / "values").is_dir()
    time.sleep(1.5)


class TestNoise:
    """Whatever the remote side prints before the server speaks."""

    def test_setup_commands(self, remote: Callable[..., SshCache]) -> None:
        """Chatter, unterminated lines included, does no harm."""
        cache = remote(
            setup_commands=["echo 'Welcome to the cluster'", "printf 'no newline'", "printf '\\0'"]
        )
        assert cache.load(cache.save(example_call())).result == 4

    def test_login_scripts(self, sshd: Sshd, remote: Callable[..., SshCache]) -> None:
        """400 lines of banner, one with the protocol's own words, the last one unterminated."""
        script = "for i in $(seq 400); do echo banner $i; done; echo 'fleche-remote! x'; printf end"
        with sshd.shell(script):
            assert remote().info()["pid"]

    def test_a_failing_setup(self, remote: Callable[..., SshCache]) -> None:
        """A setup command that fails ends the launch; its words are in the error."""
        cache = remote(setup_commands=["echo no such module >&2; false", "touch never"])
        with pytest.raises(RemoteConnectionError, match="no such module"):
            cache.info()

    def test_no_such_directory(self, remote: Callable[..., SshCache]) -> None:
        """So does a directory that is not there."""
        with pytest.raises(RemoteConnectionError, match="no-such-directory"):
            remote(workdir="~/no-such-directory").info()

    def test_no_such_python(self, remote: Callable[..., SshCache]) -> None:
        """So does an interpreter that is not there."""
        with pytest.raises(RemoteConnectionError, match="python9"):
            remote(python="python9").info()


class TestTheConfigurationOfSsh:
    """What stands in the user's `~/.ssh/config` for other uses of the same host."""

    @pytest.fixture
    def options(self, sshd: Sshd, tmp_path: Path) -> list[str]:
        """Options to read a configuration that is made for people at a terminal."""
        config = tmp_path / "config"
        config.write_text(
            "Host *\n"
            "    RequestTTY force\n"
            "    RemoteCommand tmux attach\n"
            "    EscapeChar ~\n"
            "    IgnoreUnknown SessionType,StdinNull,ForkAfterAuthentication\n"
            "    SessionType none\n"
            "    StdinNull yes\n"
            "    ForkAfterAuthentication yes\n"
            f"Include {sshd.ssh_options[1]}\n"
        )
        return ["-F", str(config)]

    def test_it_does_not_garble(
        self, options: list[str], remote: Callable[..., SshCache], tmp_path: Path
    ) -> None:
        """No terminal changes bytes, no other command is run, and no byte means anything to ssh."""
        value = b"\n~.\n~?\r~.\r\n\x03\x04\x11\x13" + bytes(range(256))
        cache = remote(ssh_options=options, compression="none")
        assert cache.load(cache.save(example_call(result=value))).result == value

    def test_what_is_asked_for_here_is_done(self, options: list[str]) -> None:
        """The options of the cache itself are the user's last word."""
        asked = ["-tt", "-o", "RemoteCommand=mine"]
        assert resolved([*options, *asked])["requesttty"] == "force"
        assert resolved([*options, *asked])["remotecommand"] == "mine"
        assert resolved([*options, "-N"]).get("sessiontype", "none") == "none"
        assert resolved(options)["requesttty"] == "false"
        assert resolved(options).get("remotecommand", "none") == "none"

    def test_who_shares_a_connection_keeps_it(
        self, sshd: Sshd, remote: Callable[..., SshCache]
    ) -> None:
        """Other programs, and logins, that share it are not cut off when who opened it ends."""
        options = ["-o", "ControlMaster=auto", "-o", f"ControlPath={sshd.directory}/cm"]
        before = sshd.accepted()
        first, second = (remote(ssh_options=[*options, *sshd.ssh_options]) for _ in range(2))
        first.info()
        second.info()
        assert sshd.accepted() == before + 1, "they share no connection"
        first.close()
        assert second.info()["pid"]
        second.close()
        subprocess.run(["ssh", *options, "-O", "exit", "h"], capture_output=True, check=False)


def resolved(options: list[str]) -> dict[str, str]:
    """What ssh makes of these options, by name, as it says itself."""
    words = list(SshChannel("h", ssh_options=options).command())
    words = words[words.index("ssh") + 1 : words.index("--")]
    done = subprocess.run(["ssh", "-G", *words, "h"], capture_output=True, text=True, check=True)
    return dict(line.partition(" ")[::2] for line in done.stdout.splitlines())


def test_unreachable(sshd: Sshd) -> None:
    """A host that refuses is one error, with ssh's own words."""
    cache = SshCache("nowhere", ssh_options=[*sshd.ssh_options, "-p", "1"])
    with pytest.raises(RemoteConnectionError, match=r"exit status 255[\s\S]*refused"):
        cache.info()


class TestForcedCommand:
    """A key that may do nothing but talk to one cache."""

    def test_the_clients_wishes_are_ignored(
        self, sshd: Sshd, workdir: str, remote: Callable[..., SshCache]
    ) -> None:
        """The server's command line is that of authorized_keys, whatever the client asks for."""
        forced = f"cd ~/project && {sys.executable} -m fleche remote --serve --read-only"
        options = sshd.add_forced_command(forced, "restrict")
        cache = remote(
            ssh_options=options,
            cache_name="no such cache; touch ~/owned",
            setup_commands=["touch ~/owned"],
        )
        assert cache.read_only
        assert cache.info()["cache_name"] is None
        with pytest.raises(Rejected):
            cache.save(example_call())
        assert not (sshd.home / "owned").exists()


class TestAuthentication:
    """Every authentication may cost a person a second factor."""

    def test_once_for_a_run(self, sshd: Sshd, remote: Callable[..., SshCache]) -> None:
        """One process authenticates once, however much it does."""
        cache, before = remote(), sshd.accepted()
        for number in range(5):
            cache.save(example_call(x=number))
        assert sshd.accepted() == before + 1

    def test_once_for_several_runs(
        self, sshd: Sshd, workdir: str, tmp_path: Path, no_leaks: None
    ) -> None:
        """With ControlMaster and ControlPersist, three processes authenticate once."""
        options = [
            *sshd.ssh_options,
            *("-o", "ControlMaster=auto"),
            *("-o", f"ControlPath={sshd.directory}/once-%C"),
            *("-o", "ControlPersist=20s"),
        ]
        code = (
            "from fleche.remote import SshCache\n"
            f"with SshCache({sshd.host!r}, python={sys.executable!r}, ssh_options={options!r},\n"
            f"              workdir={workdir!r}) as cache:\n"
            "    print(cache.info()['pid'])\n"
        )
        before = sshd.accepted()
        pids = set()
        for _ in range(3):
            done = subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                timeout=40,
                check=True,
                stdin=subprocess.DEVNULL,
            )
            pids.add(done.stdout)
        assert len(pids) == 3
        assert sshd.accepted() == before + 1
        subprocess.run(["ssh", *options, "-O", "exit", sshd.host], capture_output=True, check=True)

    def test_never_again_by_itself(self, sshd: Sshd, remote: Callable[..., SshCache]) -> None:
        """A dropped connection is not made again before `reconnect()`."""
        cache = remote()
        cache.info()
        before = sshd.accepted()
        sshd.drop()
        for _ in range(3):
            with pytest.raises(RemoteConnectionError):
                cache.contains("0" * 64)
        assert sshd.accepted() == before
        cache.reconnect()
        cache.info()
        assert sshd.accepted() == before + 1


@fleche.fleche
def cube(x: int) -> int:
    """Return the third power."""
    return x**3


def test_a_process_pool_fills_the_remote(
    sshd: Sshd, workdir: str, remote: Callable[..., SshCache]
) -> None:
    """Workers connect for themselves and store in the same remote cache."""
    cache = remote()
    with fleche.cache(cache), wrap_executor(ProcessPoolExecutor(2)) as pool:
        futures = [pool.submit(cube, x) for x in range(6)]
        assert [future.result(60) for future in futures] == [x**3 for x in range(6)]
    assert cache.query(name="cube").count() == 6
    with fleche.cache(cache):
        assert all(cube.contains(x) for x in range(6))


class TestInterrupt:
    """Ctrl-C and ssh, on a real terminal."""

    def test_ssh_survives(self, sshd: Sshd, workdir: str, tmp_path: Path) -> None:
        """A Ctrl-C at the terminal interrupts the program, not ssh; the connection goes on."""
        script = tmp_path / "job.py"
        script.write_text(
            textwrap.dedent(f"""
            import time
            from fleche.remote import SshCache
            cache = SshCache({sshd.host!r}, python={sys.executable!r},
                             ssh_options={list(sshd.ssh_options)!r}, workdir={workdir!r})
            pid = cache.info()["pid"]
            try:
                print("ready", flush=True)
                time.sleep(30)
            except KeyboardInterrupt:
                time.sleep(0.5)
                print("same:", cache.info()["pid"] == pid, flush=True)
            cache.close()
            """)
        )
        terminal = pexpect.spawn(sys.executable, [str(script)], timeout=30, encoding="utf-8")
        terminal.expect("ready")
        terminal.sendintr()
        terminal.expect("same: True")
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 0

    def test_prompts_can_be_interrupted(self, sshd: Sshd, tmp_path: Path) -> None:
        """While ssh prompts, Ctrl-C ends the attempt, and the program gets its own interrupt."""
        asking = ["BatchMode=no", "StrictHostKeyChecking=ask", f"UserKnownHostsFile={tmp_path}/x"]
        options = [word for option in asking for word in ("-o", option)]
        script = tmp_path / "job.py"
        script.write_text(
            textwrap.dedent(f"""
            from fleche.remote import SshCache
            cache = SshCache("prompting", ssh_options={[*options, *sshd.ssh_options]!r})
            try:
                cache.info()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            """)
        )
        terminal = pexpect.spawn(sys.executable, [str(script)], timeout=30, encoding="utf-8")
        terminal.expect("continue connecting")
        terminal.sendintr()
        terminal.expect("interrupted")
        terminal.expect(pexpect.EOF)
        terminal.close()


def test_the_client_is_killed(sshd: Sshd, workdir: str, tmp_path: Path) -> None:
    """When the client is killed, its ssh ends, and the server soon after."""
    code = (
        "import time\n"
        "from fleche.remote import SshCache\n"
        f"cache = SshCache({sshd.host!r}, python={sys.executable!r},\n"
        f"                 ssh_options={list(sshd.ssh_options)!r}, workdir={workdir!r})\n"
        "print(cache.info()['pid'], flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        server = int(client.stdout.readline())
        client.send_signal(signal.SIGKILL)
        client.wait()
        _gone_within(server, 5)


def _gone_within(pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_gone(pid):
        assert time.monotonic() < deadline, "the server outlives its client"
        time.sleep(0.05)
