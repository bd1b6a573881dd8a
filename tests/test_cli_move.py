"""``fleche push``, ``pull`` and ``sync``: what goes where, and what an interrupt leaves."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from fleche.caches import Local
from fleche.call import Call
from fleche.storage import Usage
from tests.helpers.commands import fleche_command, fleche_process


class Machines(NamedTuple):
    """Where the two layers of the default cache keep their files."""

    near: Path
    far: Path


@pytest.fixture
def machines(tmp_home: Path) -> Machines:
    """A stack of a local cache and one behind a server; the near one has four calls."""
    station = tmp_home / "station"
    station.mkdir()
    (station / "fleche.toml").write_text(
        '[default]\ncache = "r"\nroot = true\n[r]\ntype = "local"\nroot = "r"\n'
    )
    Path("fleche.toml").write_text(
        '[default]\ncache = "s"\n[[s]]\ntype = "local"\nroot = "near"\n'
        f'[[s]]\ntype = "subprocess"\nworkdir = "{station}"\n'
    )
    found = Machines(Path("near").absolute(), station / "r")
    with Local(found.near) as cache:
        for x in range(4):
            name = "small" if x % 2 else "large"
            cache.save(Call(name, {"x": x}, result=np.arange(30_000.0) + x))
    return found


def held(root: Path) -> list[object]:
    with Local(root) as cache:
        assert cache.verify().ok
        return sorted(call.arguments["x"] for call in cache.query())


def test_counters_of_use_go_along(machines: Machines) -> None:
    """With all calls, and with all of a function; not with some that were chosen."""
    row = Usage(hour=1, host="h", user="u", name="small", hits=3)
    with Local(machines.near) as cache:
        cache.backend.note_usage([row])

    def hits() -> int:
        with Local(machines.far) as cache:
            return sum(each.hits for each in cache.usage())

    fleche_command("push", "--where", "x == 1")
    assert hits() == 0
    for words in (["push", "small"], ["push"], ["sync"], ["pull"]):
        assert fleche_command(*words).status == 0
        assert hits() == 3


def test_push(machines: Machines) -> None:
    """From the first layer to the others; what is there is not sent again."""
    dry = fleche_command("push", "--dry-run", "--json").json
    (copy,) = dry["copies"]
    assert (copy["selected"], copy["copied"], dry["dry_run"]) == (4, 4, True)
    small = fleche_command("push", "small", "--dry-run").out
    assert "would copy" in small
    assert "0 B" not in small
    assert copy["bytes"] >= 4 * 240_000
    assert not machines.far.exists()
    (copy,) = fleche_command("push", "small", "--json").json["copies"]
    assert copy["copied"] == 2
    assert copy["bytes"] >= 2 * 240_000
    assert held(machines.far) == [1, 3]
    told = fleche_command("push")
    assert told.status == 0
    assert "2 calls, 4" in told.out
    assert held(machines.far) == [0, 1, 2, 3]
    assert "all 4 there already" in fleche_command("push").out


def test_what_is_damaged(machines: Machines, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted apart from what is there already, each time, and the status says so."""
    with Local(machines.near) as cache:
        for call in cache.query(name="large"):
            (buffer,) = call.entry.parcel(call.record.result.address).references
            path = next(machines.near.glob(f"values/*/{buffer[2:]}*"))
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-1] + b"!")
    told = fleche_command("push")
    assert (told.status, "2 calls, " in told.out, "; 2 left out" in told.out) == (1, True, True)
    assert "damaged, not copied" in caplog.text
    assert held(machines.far) == [1, 3]
    told = fleche_command("push")
    assert (told.status, "0 calls; 2 left out, 2 there already" in told.out) == (1, True)
    (copy,) = fleche_command("push", "large", "--json").json["copies"]
    assert (copy["selected"], copy["copied"], copy["left_out"]) == (2, 0, 2)
    told = fleche_command("sync")
    assert (told.status, "all 2 there already" in told.out) == (1, True)
    assert fleche_command("push", "small").status == 0


def test_pull_and_sync(machines: Machines) -> None:
    """From the others to the first layer, and both ways."""
    with Local(machines.far) as cache:
        cache.save(Call("small", {"x": 9}, result=9))
        cache.save(Call("other", {"x": 8}, result=8))
    (copy,) = fleche_command("pull", "other", "--json").json["copies"]
    assert copy["copied"] == 1
    assert held(machines.near) == [0, 1, 2, 3, 8]
    sent, received = fleche_command("sync", "--json").json["copies"]
    assert (sent["copied"], received["copied"]) == (4, 1)
    assert held(machines.near) == held(machines.far) == [0, 1, 2, 3, 8, 9]


def test_between_any_two(machines: Machines, tmp_path: Path) -> None:
    """``--from`` and ``--to`` take whatever ``--cache`` does; a new directory is made."""
    told = fleche_command("push", "--from", machines.near, "--to", tmp_path / "copy", "large")
    assert told.status == 0, told
    assert held(tmp_path / "copy") == [0, 2]
    assert fleche_command("pull", "--from", machines.near, "--to", tmp_path / "copy").status == 0
    assert held(tmp_path / "copy") == [0, 1, 2, 3]
    told = fleche_command("push", "--cache", machines.near)
    assert (told.status, "--to" in told.err) == (2, True)
    told = fleche_command("push", "--from", machines.near, "--to", "void", "absent")
    assert (told.status, "no call is like that" in told.out) == (1, True)


def test_what_is_read_only(machines: Machines) -> None:
    """A layer that takes nothing is an error that names it; nothing has been copied."""
    text = Path("fleche.toml").read_text()
    Path("fleche.toml").write_text(f"{text}read_only = true\n")
    told = fleche_command("push")
    assert (told.status, "read-only" in told.err) == (2, True)
    assert fleche_command("sync").status == 2
    assert not machines.far.exists()


def test_interrupted(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived is whole and stays; the same command goes on where it was."""
    with monkeypatch.context() as patch:

        def interrupt(self: object, number: int) -> None:
            if number:
                raise KeyboardInterrupt

        patch.setattr("fleche.caches._transfer._PORTION", 1)  # small values in several portions
        patch.setattr("fleche.cli._screen.TransferBar.tell", interrupt)
        told = fleche_command("push")
    assert (told.status, "interrupted" in told.err) == (130, True)
    assert set(held(machines.far)) < {0, 1, 2, 3}
    assert fleche_command("push").status == 0
    assert held(machines.far) == [0, 1, 2, 3]


def test_an_unreachable_machine(machines: Machines) -> None:
    """Status 2, with the reason."""
    (machines.far.parent / "fleche.toml").write_text("broken")
    told = fleche_command("push")
    assert told.status == 2
    assert "not valid TOML" in told.err
    assert "Traceback" not in told.err
    for words, name in (([], ""), (["--cache", "s"], " s")):
        told = fleche_command("push", *words)
        assert told.status == 2
        assert told.err.splitlines()[-1] == f"'fleche doctor{name}' looks for the reason"
        assert "reconnect()" not in told.err
    told = fleche_command("status", "--everywhere")
    assert (told.status, "not valid TOML" in told.out) == (1, True)
    assert "reconnect()" not in told.out


def test_going_on_without_a_machine(machines: Machines) -> None:
    """What a command says of it names the machine, once, and what a person can do."""
    (machines.far.parent / "fleche.toml").write_text("broken")
    text = Path("fleche.toml").read_text()
    Path("fleche.toml").write_text(f'{text}on_error = "miss"\n')
    told = fleche_process("log", "--everywhere")
    assert (told.status, len(told.out.splitlines())) == (0, 5)
    first, *_ = told.err.splitlines()
    assert first.startswith("fleche: subprocess python: unreachable, going on without it: the ")
    assert told.err.count("subprocess python") == 1
    assert "reconnect()" not in told.err


def test_a_bar(machines: Machines) -> None:
    """On a terminal: calls, bytes, rate and time left; it is gone in the end."""
    master, slave = pty.openpty()
    env = {**os.environ, "COLUMNS": "100", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "fleche", "push", "--to"]
    for words, shown in (([*command, "one/"], True), ([*command, "two/", "--json"], False)):
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=slave, env=env) as process:
            process.wait()
        os.write(slave, b"END")
        text = b""
        while not text.endswith(b"END"):
            text += os.read(master, 1 << 16)
        assert (b"kB" in text and b"4/4" in text) is shown
    os.close(slave)
    os.close(master)
