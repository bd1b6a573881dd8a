"""``fleche accept``: stored calls are hits again, though code has changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fleche.cli import main
from tests.helpers.commands import Ran

ROOT = Path(__file__).parents[1]

STUDY = """
import fleche

def area(w, h):
    return w * h

@fleche.fleche
def volume(w, h, d):
    print("computing")
    return area(w, h) * d

@fleche.fleche
def tiles(w, h):
    print("computing")
    return area(w, h) * 4

def plain():
    return 1

if __name__ == "__main__":
    print(volume(1, 2, 3), tiles(1, 2))
"""
TOML = '[default]\ncache = "here"\n[here]\ntype = "local"\nroot = "cache"\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "fleche.toml").write_text(TOML)
    (tmp_path / "study.py").write_text(STUDY)
    return tmp_path


def python(place: Path, *words: str) -> Ran:
    ran = subprocess.run(
        [sys.executable, *words],
        cwd=place,
        env={"PYTHONPATH": str(ROOT), "HOME": str(place), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def accept(place: Path, *words: str) -> Ran:
    return python(place, "-m", "fleche", "accept", *words)


def test_a_module(place: Path) -> None:
    """Found by what the stored calls say; and the functions that profit are told."""
    call = "import study; print(study.volume(1, 2, 3), study.tiles(1, 2))"
    python(place, "-c", call)
    (place / "study.py").write_text(STUDY.replace("w * h", "h * w"))
    ran = accept(place, "volume", "--dry-run")
    assert (ran.status, ran.err) == (0, "")
    assert "1 call of volume() would be a hit again" in ran.out
    assert "would be accepted: area" in ran.out
    assert "tiles  1" in ran.out
    assert "computing" in python(place, "-c", "import study; study.tiles(1, 2)").out
    found = accept(place, "volume", "--json").json
    assert (found["function"], found["calls"], found["dry_run"]) == ("study.volume", 1, False)
    assert found["others"] == {"tiles": 1}
    assert list(found["accepted"][0]["then"]) == ["study:area"]
    assert python(place, "-c", call).out == "6 8\n"
    assert accept(place, "volume", "--undo", "--json").json["undone"] == 1
    assert "nothing was accepted" in accept(place, "volume", "--undo").out
    ran = accept(place, "volume")
    assert (ran.status, "\naccepted: area" in ran.out) == (0, True)
    again = accept(place, "volume")
    assert (again.status, "nothing to accept" in again.out) == (1, True)


def test_a_program(place: Path) -> None:
    """A file whose functions are of `__main__`; its main part does not run."""
    python(place, "study.py")
    (place / "study.py").write_text(STUDY.replace("w * h", "h * w"))
    told = accept(place, "volume")
    assert (told.status, "name its file" in told.err) == (2, True)
    told = accept(place, "study:volume")
    assert (told.status, "are of __main__, not of study; name its file" in told.out) == (1, True)
    assert "If it has moved: cache().save_as(call, module='study')" in told.out
    ran = accept(place, "study.py:volume")
    assert (ran.status, "computing" in ran.out) == (0, False)
    assert python(place, "study.py").out == "6 8\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["volume"], "fleche: no calls yet in local "),
        (["study:volum"], "study has no function volum; it has tiles, volume"),
        (["./study.py:volum"], "./study.py has no function volum; it has tiles, volume"),
        (["study:plain"], "study has no function that @fleche decorates: plain"),
        (["nothing_such:volume"], "nothing_such cannot be imported: ModuleNotFoundError"),
        (["gone.py:volume"], "there is no file gone.py"),
    ],
)
def test_mistakes(words: list[str], said: str, place: Path) -> None:
    """Each says what is wrong."""
    ran = accept(place, *words)
    assert (ran.status, said in ran.err) == (2, True), ran


@pytest.mark.parametrize("words", [["study.py:volume"], ["study:volume"]], ids=["file", "module"])
@pytest.mark.parametrize("ends", ["sys.exit(3)", "sys.exit('done')", "raise SystemExit"])
def test_a_file_that_exits(words: list[str], ends: str, place: Path) -> None:
    """It is told which, and what to do."""
    (place / "study.py").write_text(f"{STUDY}\nimport sys\n{ends}\n")
    ran = accept(place, *words)
    assert ran.status == 2
    assert f"{words[0].partition(':')[0]} ends the program when it is imported (Syst" in ran.err
    assert "below: if __name__ == '__main__':" in ran.err


def test_a_name_in_two_modules(place: Path) -> None:
    """Which they are, and how to say which is meant."""
    python(place, "-c", "import study; study.volume(1, 2, 3)")
    python(place, "study.py")
    ran = accept(place, "volume")
    assert ran.status == 2
    assert "calls of volume() are stored of __main__ and study; --module says which" in ran.err


def test_a_name_that_is_misspelt(place: Path) -> None:
    """That which was perhaps meant."""
    python(place, "-c", "import study; study.volume(1, 2, 3)")
    ran = accept(place, "volum")
    assert (ran.status, ran.err) == (
        2,
        "fleche: there is no call of 'volum' (did you mean 'volume'?)\n",
    )


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """Each on a line of its own."""
    assert main(["accept", "--help"]) == 0
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith("fleche accept study.py:energy --dry-run ") for line in shown)
