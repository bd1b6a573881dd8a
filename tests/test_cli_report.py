"""``fleche report`` and ``fleche browse``: thin layers over their public functions."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios
import time
from pathlib import Path
from select import select
from subprocess import Popen

import pytest

import fleche
from fleche.caches import Local
from tests.helpers.commands import fleche_command


@fleche.fleche
def energy(metal: str, a: float) -> float:
    return a * len(metal)


@fleche.fleche
def other(a: float) -> float:
    return -a


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with Local("results") as cache, fleche.cache(cache):
        for a in (3.5, 3.6, 3.7):
            energy("Cu", a)
            energy("Cu", a)
        other(1.0)
    return tmp_path


def test_report(place: Path) -> None:
    """The file, how many calls it is about, and how large it is."""
    told = fleche_command("report", "--cache", "results/")
    assert told.status == 0, told
    assert "study.html: 4 calls" in told.out
    assert "time saved" in (place / "study.html").read_text().lower()


def test_report_of_either() -> None:
    """Conditions of which one must hold choose, too."""
    words = ("report", "--where", "a == 3.5 or a == 3.6", "--json", "--cache", "results/")
    assert fleche_command(*words).json["calls"] == 2


def test_report_of_nothing(place: Path) -> None:
    """A page that is there is not replaced by one without calls."""
    (place / "study.html").write_text("of yesterday")
    told = fleche_command("report", "enrgy", "--cache", "results/")
    assert told.status == 1
    assert "did you mean 'energy'?); nothing was written" in told.err
    assert (place / "study.html").read_text() == "of yesterday"


def test_report_of_a_selection() -> None:
    """The usual conditions choose calls; --json says what was written."""
    told = fleche_command(
        "report",
        "energy",
        "--where",
        "a > 3.55",
        "-o",
        "part.html",
        "--json",
        "--cache",
        "results/",
    )
    assert told.status == 0, told
    assert (told.json["file"], told.json["calls"], told.json["shown"]) == ("part.html", 2, 2)
    assert told.json["bytes"] == Path("part.html").stat().st_size


def test_report_that_cannot_be_written() -> None:
    """Status 2, with the reason."""
    told = fleche_command("report", "-o", "absent/study.html", "--cache", "results/")
    assert told.status == 2
    assert "there is no directory absent" in told.err


def test_browse_needs_a_terminal() -> None:
    """A pipe is told what to use instead."""
    told = fleche_command("browse", "--cache", "results/")
    assert (told.status, "'fleche log' prints calls" in told.err) == (2, True)
    told = fleche_command("browse", "--json", "--cache", "results/")
    assert (told.status, "'fleche log --json' is for programs" in told.err) == (2, True)


def read_until(master: int, wanted: bytes, seconds: float) -> bytes:
    """What a program writes to its terminal until it has written something, or ends."""
    text, deadline = b"", time.monotonic() + seconds
    while wanted not in text and (left := deadline - time.monotonic()) > 0:
        if not select([master], [], [], left)[0]:
            break
        try:
            text += os.read(master, 1 << 16)
        except OSError:  # the other end is closed
            break
    return text


def test_browse_in_a_terminal() -> None:
    """It shows the calls, and ends with q."""
    pytest.importorskip("textual")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "fleche", "browse", "--cache", "results/"]
    with Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env) as process:
        os.close(slave)
        text = read_until(master, b"a=3.6", 30)
        os.write(master, b"q")
        read_until(master, b"\0", 10)
        if process.poll() is None:
            process.terminate()
        status = process.wait()
    os.close(master)
    assert b"a=3.6" in text, text[-2000:]
    assert status == 0


def test_browse_without_textual() -> None:
    """One line says what to install."""
    master, slave = pty.openpty()
    code = "import sys; sys.modules['textual'] = None; sys.modules['textual.app'] = None\n"
    code += "from fleche.cli import main; sys.exit(main(['browse', '--cache', 'results/']))"
    with Popen([sys.executable, "-c", code], stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        said = read_until(master, b"\0", 40)
        assert process.wait() == 2
    os.close(master)
    assert b"pip install textual rich" in said
    assert b"Traceback" not in said
