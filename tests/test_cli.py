"""The command line: how it starts, which commands there are, and what they say of what is kept."""

from __future__ import annotations

import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
import numpy as np
import pexpect
import pytest

from fleche import Secret, fleche
from fleche import cache as active
from fleche.caches import Local
from fleche.call import Call, CallRecord
from fleche.cli import _format
from fleche.config import cache_from_config
from fleche.digest import Digest
from fleche.parcel import File
from fleche.storage import Usage
from tests.helpers.commands import Ran, fleche_command, fleche_process
from tests.helpers.sweeps import swept

NOW = datetime.now(timezone.utc)
GRID = np.arange(50_000.0)


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


def made(
    name: str = "fit",
    result: object = 1.5,
    *,
    age: timedelta = timedelta(minutes=5),
    user: str = "ada",
    host: str = "laptop",
    tags: dict[str, object] | None = None,
    seconds: float = 2.0,
    version: int | str | None = None,
    **arguments: object,
) -> Call:
    """A finished call with the metadata of a real one."""
    runtime = {
        "started": (NOW - age).isoformat(timespec="microseconds"),
        "seconds": seconds,
        "user": user,
        "host": host,
    }
    metadata: dict[str, dict[str, object]] = {
        "runtime": runtime,
        "environment": {"python": "3.11.7", "packages": {"numpy": "2.4"}},
    }
    if tags:
        metadata["tags"] = tags
    return Call(
        name=name,
        module="study",
        version=version,
        arguments=arguments,
        result=result,
        metadata=metadata,
    )


@fleche
def squared(x: int) -> int:
    time.sleep(0.01)
    return x * x


@pytest.fixture
def keys(tmp_home: Path) -> dict[str, Digest]:
    """The keys of some calls in the default cache."""
    Path("fleche.toml").write_text(
        '[default]\ncache = "results"\n[results]\ntype = "local"\nroot = "results"\n'
    )
    with Local("results") as cache:
        calls = {
            "cu": made(metal="Cu", v=0.5, tags={"study": "eos", "round": 2}),
            "ag": made(metal="Ag", v=0.7, age=timedelta(days=3), result=2.5),
            "grid": made("make_grid", GRID, n=1000, user="bob", host="cluster7", seconds=90),
            "used": made("use_grid", 3.0, x=GRID, age=timedelta(days=40)),
        }
        return {name: Digest(cache.save(call)) for name, call in calls.items()}


# -- how it starts ---------------------------------------------------------------------------------

SERVER_ONLY = ("click", "rich", "typer", "textual", "fleche.cli._app")


class TestStarting:
    def test_the_server_needs_no_package_of_the_commands(self) -> None:
        """It is started over ssh, all the time, where only fleche is installed."""
        code = (
            "import runpy, sys; sys.argv = ['fleche', 'remote', '--serve']\n"
            "for name in ('click', 'rich'): sys.modules[name] = None\n"
            "try: runpy.run_module('fleche', run_name='__main__')\n"
            f"finally: print([n for n in {SERVER_ONLY!r} if sys.modules.get(n)], file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code.replace("'--serve'", "'--help'")],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.strip() == "[]"

    def test_the_server_imports_as_little_as_before(self) -> None:
        """The count of modules, which is what the time to start is made of."""
        code = (
            "import sys; sys.argv = ['fleche', 'remote', '--serve']; "
            "import fleche.cli; from fleche.cli.remote import serve_standard_streams; "
            "print(len(sys.modules))"
        )
        plain = code.replace("import fleche.cli; from fleche", "from fleche")
        counts = [
            int(subprocess.run([sys.executable, "-c", each], capture_output=True).stdout)
            for each in (code, plain)
        ]
        assert counts[0] == counts[1]

    @pytest.mark.parametrize("words", [["--help"], ["log"], ["--version"]])
    def test_imports_no_more_than_it_needs(self, words: list[str], keys: object) -> None:
        """Libraries of values, and what draws bars and trees, are for those who ask for them."""
        code = (
            "import sys; from fleche.cli import main; main(sys.argv[1:]); "
            "print(*sys.modules, file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        )
        loaded = set(done.stderr.split())
        heavy = {"numpy", "pandas", "typer", "rich.progress", "rich.syntax", "asyncio"}
        assert not loaded & heavy
        if words != ["log"]:
            assert not loaded & {"rich", "rich.console"}

    @pytest.mark.parametrize("package", ["click", "rich"])
    def test_a_missing_package(self, package: str, keys: object) -> None:
        """One line says which, and how to install it."""
        code = (
            f"import sys; sys.modules[{package!r}] = None\n"
            "from fleche.cli import main; sys.exit(main(['log']))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 2
        assert f"need the package {package}" in done.stderr
        assert "pip install click rich" in done.stderr
        assert "Traceback" not in done.stderr

    def test_help_lists_every_command(self) -> None:
        """Under headings, each with what it does, which is the first line of its own help."""
        text = fleche_command("--help").out
        listed = re.findall(r"^  ([a-z][\w-]+) +([A-Z].*[.?])$", text, re.MULTILINE)
        assert len(listed) > 20
        for name, summary in listed:
            told = fleche_process(name, "--help") if name == "remote" else None
            told = told or fleche_command(name, "--help")
            assert told.status == 0
            if name != "remote":
                assert summary in told.out
                assert "--json" in told.out
                assert ("--cache" in told.out) is (name not in ("config", "init"))

    @pytest.mark.parametrize(
        ("name", "default"),
        [("log", "20"), ("du", "20"), ("tree", "4"), ("gc", "1h"), ("report", "study.html")],
    )
    def test_help_tells_defaults(self, name: str, default: str) -> None:
        """What counts unless an option is given stands in its help."""
        assert f"[default: {default}" in fleche_command(name, "--help").out

    def test_mistakes(self, keys: object) -> None:
        """Status 2, and what was meant."""
        told = fleche_command("lgo")
        assert told.status == 2
        assert "Did you mean 'log'?" in told.err
        assert fleche_command("log", "--sinse", "2d").status == 2
        told = fleche_command("log", "--since", "monday")
        assert (told.status, "is no time" in told.err) == (2, True)
        told = fleche_command("log", "--where", "v = 3")
        assert (told.status, "not a condition" in told.err) == (2, True)
        told = fleche_command("log", "--cache", "absent")
        assert (told.status, "known are default" in told.err) == (2, True)
        told = fleche_command("evict", "--all", "--yes", "--cache", "")
        assert (told.status, "'--cache': it is empty" in told.err) == (2, True)
        told = fleche_command("push", "--to", "")
        assert (told.status, "'--to': it is empty" in told.err) == (2, True)
        assert fleche_command("log").status == 0

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["log", "fti"], "there is no call of 'fti' (did you mean 'fit'?)"),
            (
                ["evict", "-y", "xyz"],
                "there is no call of 'xyz' (there are fit, make_grid,",
            ),
            (["log", "x*", "y*"], "there is no call of 'x*' or 'y*' (there are fit,"),
            (["du", "fit", "--where", "v > 9"], "no call is like that"),
            (["log", "--where", "metall == 'Cu'"], "no call has an argument 'metall' (did you"),
            (["log", "--where", "took > 9"], "'took' (that column is 'seconds' in a condition)"),
            (["log", "fit", "--where", "n > 1"], "no call has an argument 'n' (there are metal"),
            (["log", "--where", "runtme.host == 'x'"], "no call has metadata 'runtme' (did you"),
            (["log", "--where", "metal.Z > 9"], "'metal' is an argument, whose parts the record"),
            (["log", "use_grid", "--tag", "study=eos"], "no call has tags"),
        ],
        ids=[
            "near",
            "far",
            "patterns",
            "condition",
            "argument",
            "column",
            "argument of others",
            "metadata",
            "part of an argument",
            "tags",
        ],
    )
    def test_names_that_are_not_there(self, words: list[str], said: str, keys: object) -> None:
        """What is there is said, in place of nothing."""
        told = fleche_command(*words)
        assert (told.status, said in told.err) == (1, True), told

    @pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout and stderr"])
    @pytest.mark.parametrize(
        "words",
        [["log"], ["log", "--json"], ["du"], ["--help"], ["log", "--help"], ["get", "KEY"]],
        ids=" ".join,
    )
    def test_a_reader_who_has_seen_enough(
        self, words: list[str], both: bool, keys: dict[str, Digest]
    ) -> None:
        """``fleche log | head -1`` is quiet, and the status that of what SIGPIPE ends."""
        words = [word.replace("KEY", keys["cu"]) for word in words]
        command = [sys.executable, "-m", "fleche", *words]
        ours, theirs = os.pipe()
        os.close(ours)
        err = theirs if both else subprocess.PIPE
        try:
            done = subprocess.run(command, stdout=theirs, stderr=err, text=True)
        finally:
            os.close(theirs)
        assert (done.returncode, done.stderr or "") == (141, "")

    @pytest.mark.parametrize(
        "words", [["log"], ["log", "--json"], ["du"], ["--help"], ["--version"]], ids=" ".join
    )
    def test_output_that_cannot_be_written(self, words: list[str], keys: object) -> None:
        """One line says so, as of every file; the status is 2."""
        command = [sys.executable, "-m", "fleche", *words]
        environment = {**os.environ, "PYTHONUNBUFFERED": ""}
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment
            )
        assert done.returncode == 2
        assert done.stderr == "fleche: standard output: No space left on device\n"

    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
    def test_streams_that_are_closed(self, closed: str, keys: object) -> None:
        """They are as if they led nowhere, and no file of a cache gets their descriptors."""
        command = f"{sys.executable} -m fleche"
        script = f"{command} evict -y fit {closed}; echo status $?; {command} log --json -n 0"
        done = subprocess.run(script, shell=True, capture_output=True, text=True)
        assert "status 0" in done.stdout
        assert done.stderr == ""
        assert len(done.stdout.splitlines()) == 3 + (">&-" not in closed.replace("2>&-", "")) * 2

    @pytest.mark.parametrize(
        "words",
        [["get", "KEY", "-o"], ["export"], ["report", "-o"]],
        ids=["get", "export", "report"],
    )
    def test_files_in_no_directory(self, words: list[str], keys: dict[str, Digest]) -> None:
        """The directory is named, before anything is looked for."""
        words = [word.replace("KEY", keys["cu"]) for word in words]
        told = fleche_command(*words, "absent/file.txt")
        assert told.status == 2
        assert "there is no directory absent" in told.err

    def test_what_the_system_refuses(
        self, keys: dict[str, Digest], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of every command: which file, and the reason."""

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied", "there/x.txt")

        monkeypatch.setattr("fleche.cli._get.write_value", refuse)
        told = fleche_command("get", keys["cu"], "-o", "x.txt")
        assert (told.status, told.err) == (2, "fleche: there/x.txt: Permission denied\n")

    def test_completion(self) -> None:
        """The shell asks for the words that may follow."""
        told = fleche_process(
            _FLECHE_COMPLETE="bash_complete", COMP_WORDS="fleche ve", COMP_CWORD="1"
        )
        assert told.out.split() == ["plain,verify"]

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            ("fleche log make", ["make_grid"]),
            ("fleche log --name u", ["use_grid"]),
            ("fleche show KEY", ["KEY"]),
            ("fleche show START", ["KEY"]),
            ("fleche show make", []),
            ("fleche log KEY", ["KEY"]),
            ("fleche du --by m", ["machine"]),
            ("fleche log --cache re", ["results"]),
            ("fleche log --cache absent --name u", []),
        ],
    )
    def test_completion_of_names(
        self, words: str, found: list[str], keys: dict[str, Digest]
    ) -> None:
        """Functions, keys, caches and choices; no error where there are none."""
        words = words.replace("KEY", keys["cu"][:6]).replace("START", keys["cu"][:3])
        count = str(len(words.split()) - 1)
        told = fleche_process(_FLECHE_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=count)
        expected = [f"plain,{each.replace('KEY', keys['cu'][:12])}" for each in found]
        assert told.out.split() == expected, told
        assert told.err == ""


# -- what it prints --------------------------------------------------------------------------------


def in_terminal(*words: str, width: int = 80, **environment: str) -> str:
    """What a command prints on a terminal."""
    master, slave = pty.openpty()
    env = {**os.environ, "COLUMNS": str(width), "TERM": "xterm-256color", **environment}
    with subprocess.Popen(
        [sys.executable, "-m", "fleche", *words], stdout=slave, stderr=slave, env=env
    ):
        os.close(slave)
        text = b""
        while True:
            try:
                more = os.read(master, 1 << 16)
            except OSError:
                break
            if not more:
                break
            text += more
    os.close(master)
    return text.decode()


class TestOutput:
    @pytest.mark.parametrize("width", swept([50, 80, 120], lambda width: width == 50))
    def test_fits_the_terminal(self, width: int, keys: object) -> None:
        """No line is longer than the terminal is wide; the key and the function stay."""
        for command in ("log", "du", "stats", "status"):
            text = in_terminal(command, width=width, NO_COLOR="1")
            plain = re.sub(r"\x1b\[[\d;]*m", "", text)
            assert max(map(len, plain.splitlines())) <= width, plain
        text = in_terminal("log", width=width, NO_COLOR="1")
        assert "make_grid" in text

    def test_what_is_the_same_everywhere_goes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rather than cut arguments, the table leaves out a column that says one thing."""
        with Local("results") as cache:
            for x in (1, 2):
                cache.save(made(text="x" * 14, number=x))
        monkeypatch.setenv("WIDTH", "80")
        out = fleche_command("log", "--cache", "results").out
        assert "number=2" in out
        assert "…" not in out

    def test_colours(self, keys: object) -> None:
        """In a terminal, unless NO_COLOR is set; never in a pipe."""
        coloured = re.compile(r"\x1b\[\d*;?3[0-7]m")
        assert coloured.search(in_terminal("log"))
        assert not coloured.search(in_terminal("log", NO_COLOR="1"))
        assert "\x1b" not in fleche_process("log").out

    def test_a_pipe_gets_everything(
        self, keys: dict[str, Digest], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is cut, unless COLUMNS says so, and no line has blanks at its end."""
        with Local("results") as cache:
            cache.save(made(text="x" * 150))
        lines = fleche_command("log").out.splitlines()
        assert any("x" * 150 in line for line in lines)
        assert [line for line in lines if line != line.rstrip()] == []
        monkeypatch.setenv("WIDTH", "70")
        assert max(map(len, fleche_command("log").out.splitlines())) <= 70

    def test_a_width_of_nothing(self, keys: object, monkeypatch: pytest.MonkeyPatch) -> None:
        """COLUMNS=0, which some tools and containers set, says that the width is not known."""
        assert "make_grid" in in_terminal("log", width=0, NO_COLOR="1")
        monkeypatch.setenv("WIDTH", "0")
        assert "make_grid" in fleche_command("log").out

    def test_control_characters_are_harmless(self, keys: object) -> None:
        """What others have stored moves no cursor."""
        with Local("results") as cache:
            cache.save(made("evil\x1b[2J", result="a\nb\x07", user="x\x1b[1m", tags={"t": "\x1b"}))
        for words in (["log"], ["du"], ["du", "--by", "user"], ["du", "--by", "tag"], ["stats"]):
            assert not re.search(r"[\x00-\x09\x0b-\x1f]", fleche_command(*words).out), words


# -- status ----------------------------------------------------------------------------------------


class TestStatus:
    def test_says_where_and_what(self, keys: object) -> None:
        """Files, caches, counts, sizes; for programs the same."""
        told = fleche_command()
        assert told.status == 0
        assert "fleche.toml" in told.out
        line = r"results \* +local +\S*results +4 +\d+ kB +last call \d+ min ago"
        assert re.search(line, told.out)
        found = fleche_command("--json").json
        assert found["default"] == "results"
        (cache,) = found["caches"]
        assert cache["calls"] == 4
        assert cache["bytes"] > GRID.nbytes
        assert fleche_command("status", "--json").json["caches"] == found["caches"]

    def test_the_last_of_many_calls(self, keys: object, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is shown where a database finds it, and not where all calls would have to be read."""
        with Path("fleche.toml").open("a") as file:
            file.write('[limited]\ncache = "results"\nmax_size = 10\n')
            file.write('[files]\ntemplate = "cloudpickle"\nroot = "files"\n')
        with cache_from_config({"template": "cloudpickle", "root": "files"}) as cache:
            cache.save(made())
            cache.save(made(v=1))
        monkeypatch.setattr("fleche.cli._status._MANY", 1)
        found = {each["cache"]: each for each in fleche_command("--json").json["caches"]}
        assert found["results"]["last"] == found["limited"]["last"] is not None
        assert (found["files"]["calls"], found["files"]["last"]) == (2, None)

    def test_hits(self, keys: object) -> None:
        """How many calls were hits, and what that saved: of all processes together."""
        for _ in range(2):
            with Local("results") as cache, active(cache):
                squared(3)
        (found,) = fleche_command("--json").json["caches"]
        assert (found["hits"], found["misses"]) == (1, 1)
        assert found["saved"] >= 0.01
        assert re.search(
            r"results has saved \d+ ms: 50 % of 2 calls were hits", fleche_command().out
        )
        functions = fleche_command("stats", "--json").json["functions"]
        assert functions["squared"]["hits"] == 1
        assert "50 % of 2 calls" in fleche_command("stats").out

    def test_without_configuration(self, tmp_home: Path) -> None:
        """The default cache, and that there is no file."""
        told = fleche_command()
        assert told.status == 0
        assert "no fleche.toml" in told.out

    def test_a_cache_that_cannot_be_used(self, keys: object) -> None:
        """It is named with the reason; the others are shown all the same."""
        with Path("fleche.toml").open("a") as file:
            file.write('[team]\ntype = "local"\nroot = "team"\n')
        Path("team").mkdir()
        Path("team/layout").write_text("something else\n")
        told = fleche_command()
        assert told.status == 1
        assert "cannot be used" in told.out
        assert "no layout of fleche" in told.out
        assert "fleche doctor team" in told.out
        assert "last call" in told.out

    def test_the_variable(
        self, keys: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """FLECHE_CACHE is what every program uses, so it alone is shown, and is said to count."""
        with Local(tmp_path / "other") as cache:
            cache.save(made("elsewhere"))
        monkeypatch.setenv("FLECHE_CACHE", str(tmp_path / "other"))
        told = fleche_command()
        assert (told.status, "* the default" in told.out) == (0, False)
        assert re.search(rf"FLECHE_CACHE +{tmp_path}/other", told.out)
        (cache_,) = fleche_command("--json").json["caches"]
        assert (cache_["cache"], cache_["calls"]) == (str(tmp_path / "other"), 1)
        (cache_,) = fleche_command("--json", "--cache", "results").json["caches"]
        assert cache_["calls"] == 4
        assert "FLECHE_CACHE" not in fleche_command("--cache", "results").out

    @pytest.mark.parametrize("words", [("status",), ("log",), ("doctor",)], ids=" ".join)
    def test_a_variable_that_names_nothing(
        self, words: tuple[str, ...], keys: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No other cache is used in its place; the variable is named."""
        monkeypatch.setenv("FLECHE_CACHE", "nope")
        told = fleche_command(*words)
        assert told.status in (1, 2)
        assert "FLECHE_CACHE=nope: no cache is named 'nope'" in told.out + told.err
        assert "local" not in told.out

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("runtme", "no metadata is named 'runtme', did you mean 'runtime'?"),
            ("nope.mod:Class", "metadata 'nope.mod:Class' cannot be imported"),
            ("own:Absent", None),
            ("own:Own", None),
        ],
    )
    def test_metadata_that_are_not_there(
        self, name: str, reason: str | None, keys: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They are told with their place, as no call could be computed; nothing is imported."""
        Path("own.py").write_text("raise SystemExit('imported')\n")
        text = Path("fleche.toml").read_text()
        Path("fleche.toml").write_text(
            text.replace("[default]", f'[default]\nmetadata = ["{name}"]')
        )
        told, found = fleche_command(), fleche_command("--json")
        assert told.status == found.status == (1 if reason else 0)
        assert ("default.metadata[0]: " in told.out) is bool(reason)
        assert (reason or "") in told.out
        assert len(found.json["problems"]) == bool(reason)
        assert found.json["caches"][0]["calls"] == 4

    def test_a_directory_that_is_gone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is configured for the user counts; it is said that the directory is gone."""
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        told = fleche_process("status")
        assert told.status == 0, told
        assert told.err.count("the working directory is gone") == 1

    def test_other_machines_are_asked_only_if_wished(self, tmp_home: Path) -> None:
        """Without --everywhere nothing is started; with it, what was not pushed is counted."""
        station = tmp_home / "station"
        station.mkdir()
        (station / "fleche.toml").write_text(
            '[default]\ncache = "r"\nroot = true\n[r]\ntype = "local"\nroot = "r"\n'
        )
        Path("fleche.toml").write_text(
            '[default]\ncache = "s"\n[[s]]\ntype = "local"\nroot = "near"\n'
            f'[[s]]\ntype = "subprocess"\nworkdir = "{station}"\n'
        )
        with Local("near") as near, Local(station / "r") as far:
            near.save(made(x=1))
            near.save(made(x=2))
            far.save(made(x=2))
        near_only = fleche_command("--json").json["caches"]
        assert [each["calls"] for each in near_only] == [2, None]
        assert [each["unpushed"] for each in near_only] == [None, None]
        asked = fleche_command("status", "--everywhere", "--json").json["caches"]
        assert [each["calls"] for each in asked] == [2, 1]
        assert asked[1]["unpushed"] == 1
        assert "1 not pushed" in fleche_command("status", "--everywhere").out
        assert "'fleche status --everywhere' asks" in fleche_command().out

    def test_what_a_layer_here_lacks(self) -> None:
        """Of a layer on this machine it is said without asking for it."""
        Path("fleche.toml").write_text(
            '[default]\ncache = "s"\n[[s]]\ntype = "local"\nroot = "near"\n'
            '[[s]]\ntype = "local"\nroot = "group"\n'
        )
        with Local("near") as near:
            near.save(made(x=1))
            near.save(made(x=2))
            assert [each["unpushed"] for each in fleche_command("--json").json["caches"]] == [
                None,
                2,
            ]
            assert "2 not pushed" in fleche_command().out
            with Local("group") as group:
                near.push(group)
        assert "all pushed" in fleche_command().out


# -- log, show, get --------------------------------------------------------------------------------


def names(told: Ran) -> list[str]:
    return [each["name"] for each in told.lines]


class TestLog:
    def test_numbers_of_two_types(self, tmp_home: Path) -> None:
        """An argument 1 and an argument 1.0 are two, and do not look the same."""
        with Local("results") as cache:
            cache.save(made(v=1, result=3.0000000001))
            cache.save(made(v=1.0, result=1e20))
        told = fleche_command("log", "--cache", "./results")
        rows = [line.split()[2:4] for line in told.out.splitlines()[1:]]
        assert sorted(rows) == [["v=1", "3.0"], ["v=1.0", "1e+20"]]

    def test_moments_to_come(self) -> None:
        """What a machine with another clock has stored is not shown as of just now."""
        now = time.time()
        shown = {ahead: _format.ago(now + ahead) for ahead in (5, 3 * 86400 + 60, -3 * 86400 - 60)}
        assert list(shown.values()) == ["just now", "in 3 d", "3 d ago"]

    def test_newest_first(self, keys: dict[str, Digest]) -> None:
        """With key, arguments, result, age and duration; every field for programs."""
        told = fleche_command("log")
        assert told.status == 0
        first, *rows = told.out.splitlines()
        assert first.split() == ["key", "function", "arguments", "result", "when", "took", "where"]
        assert "use_grid" in rows[-1]
        row = next(line for line in rows if "metal='Cu'" in line)
        assert row.startswith(keys["cu"][:8])
        assert re.search(r"v=0\.5 +1\.5 +\d+ min ago +2\.0 s +ada@laptop", row)
        found = {each["key"]: each for each in fleche_command("log", "--json").lines}
        assert found[keys["cu"]] == {
            "key": keys["cu"],
            "name": "fit",
            "module": "study",
            "version": None,
            "arguments": {"metal": "Cu", "v": 0.5},
            "result": 1.5,
            "error": None,
            "started": (NOW - timedelta(minutes=5)).isoformat(timespec="seconds"),
            "seconds": 2.0,
            "user": "ada",
            "host": "laptop",
            "tags": {"study": "eos", "round": 2},
        }
        result = found[keys["grid"]]["result"]
        assert result["summary"] == "float64[50000]"
        assert result["bytes"] > GRID.nbytes
        assert len(result["digest"]) == 64

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            (["fit"], {"cu", "ag"}),
            (["*_grid"], {"grid", "used"}),
            (["--name", "make_*", "use_grid"], {"grid", "used"}),
            (["--since", "2d"], {"cu", "grid"}),
            (["--before", "2d"], {"ag", "used"}),
            (["--since", "yesterday", "--before", "1 h ago"], set()),
            (["--since", "10d", "--before", "1d"], {"ag"}),
            (["--user", "bob"], {"grid"}),
            (["--host", "cluster*"], {"grid"}),
            (["--tag", "study=eos"], {"cu"}),
            (["--tag", "round=2"], {"cu"}),
            (["--tag", "study=e*"], {"cu"}),
            (["--where", 'v >= 0.5 and tag.study == "eos"'], {"cu"}),
            (["fit", "--where", "v > 0.6 or v < 0"], {"ag"}),
            (["--user", "ada", "--where", 'user == "bob"'], set()),
            (["--where", "seconds > 60"], {"grid"}),
            (["--where", "result > 2"], {"ag", "used"}),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_chooses(self, words: list[str], found: set[str], keys: dict[str, Digest]) -> None:
        """By function, time, person, machine, tag and condition, all at once."""
        told = fleche_command("log", "--json", *words)
        assert {each["key"] for each in told.lines} == {keys[name] for name in found}
        assert told.status == (0 if found else 1)

    def test_by_version(self, keys: object) -> None:
        """As it is written, whether it is a number or text."""
        versions = (1, 2, "2", "2.0")
        with Local("results") as cache:
            for version in versions:
                cache.save(made(version=version, v=len(str(version))))
        assert fleche_command("evict", "--version", "3", "--dry-run").status == 1
        for text, found in (("2", {2, "2"}), ("2.0", {"2.0"})):
            lines = fleche_command("log", "--json", "fit", "--version", text).lines
            assert {line["version"] for line in lines} == found
        lines = fleche_command("log", "--json", "--version", "2.0", "--where", "v < 3").lines
        assert lines == []

    def test_by_key(self, keys: dict[str, Digest]) -> None:
        """Keys, or beginnings of them, choose single calls."""
        told = fleche_command("log", "--json", keys["cu"][:8], keys["grid"])
        assert {each["key"] for each in told.lines} == {keys["cu"], keys["grid"]}
        told = fleche_command("log", "0" * 8)
        assert told.status == 1
        assert re.fullmatch(r"fleche: no call has the key \w+ \(looked in local \S+\)\n", told.err)

    def test_limits(self, keys: object) -> None:
        """-n, and how many more there are."""
        told = fleche_command("log", "-n", "1")
        assert len(told.out.splitlines()) == 3
        assert "more; -n 0 shows all" in told.out
        assert "more" not in fleche_command("log", "-n", "4").out
        assert names(fleche_command("log", "--json", "-n", "1", "--oldest")) == ["use_grid"]
        assert len(fleche_command("log", "--json", "-n", "0").lines) == 4

    def test_the_variable(
        self, keys: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """FLECHE_CACHE overrides the default, and --cache overrides that."""
        with Local(tmp_path / "other") as cache:
            cache.save(made("elsewhere"))
        monkeypatch.setenv("FLECHE_CACHE", str(tmp_path / "other"))
        assert names(fleche_command("log", "--json")) == ["elsewhere"]
        assert len(fleche_command("log", "--json", "--cache", "results").lines) == 4

    def test_nothing(self, tmp_home: Path) -> None:
        """An empty cache is said to be one, on standard error; the status is 1."""
        told = fleche_command("log")
        assert (told.status, told.out) == (1, "")
        assert "no calls yet in local " in told.err
        assert "no calls yet in local " in fleche_command("du").err
        assert "no calls yet in local " in fleche_command("log", "fit", "--since", "2d").err

    def test_what_is_not_signed(
        self,
        keys: object,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """It is there, and whole; that it may not be trusted here is said, and once."""
        monkeypatch.setenv("FLECHE_SECRET_KEY", "hush")
        for words in (["log"], ["du"], ["export", "x.fleche"]):
            told = fleche_command(*words)
            assert told.status == 1
            assert "none of 4 calls here can be read; 'fleche verify' says more" in told.err
        caplog.clear()
        fleche_command("status")
        (told_of,) = caplog.messages
        assert told_of.startswith("query skips a record that is not trusted: ")
        caplog.clear()
        told = fleche_command("push", "--to", "other/")
        assert (told.status, "0 calls; 4 left out" in told.out) == (1, True)
        assert "not trusted, not copied: " in caplog.text
        assert "damaged, not" not in caplog.text


class TestShow:
    def test_everything(self, keys: dict[str, Digest]) -> None:
        """What is known of a call, without a value being loaded."""
        told = fleche_command("show", keys["cu"][:8])
        for part in ("fit(metal='Cu', v=0.5)", keys["cu"], "ada@laptop", "study=eos", "2.0 s"):
            assert part in told.out
        assert "numpy 2.4" in told.out
        assert "host=" not in told.out  # it stands at the top
        found = fleche_command("show", keys["cu"], "--json").json
        assert found["metadata"]["environment"]["packages"] == {"numpy": "2.4"}
        fields = {field.encode_name for field in msgspec.structs.fields(CallRecord)}
        assert fields - {"unhashed", "duration", "covered"} <= set(found)

    def test_processor_time(self, keys: object) -> None:
        """Where it was collected, it stands beside the time that the call took."""
        call = made("busy")
        with Local("results") as cache:
            cache.save(call.replace(metadata={**call.metadata, "cpu": {"seconds": 1.5}}))
        told = fleche_command("show", call.key)
        assert "2.0 s (processor: 1.5 s)" in told.out
        assert "seconds=" not in told.out

    def test_dependencies(self, keys: object) -> None:
        """What the code depends on: parts by digest, and what other names lead to."""
        parts = {"fit": "a" * 64, "fit~": "b" * 64, "np": "=numpy", "later": "-absent"}
        with Local("results") as cache:
            key = cache.save(made().replace(code=Digest("c" * 64), dependencies=parts))
        told = fleche_command("show", key, "--packages")
        shown = told.out[told.out.index("depends on") :].split("\n")
        assert [" ".join(line.split()) for line in shown if line] == [
            "depends on",
            "aaaaaaaa fit",
            "other names np (numpy), later (absent)",
        ]

    def test_unknown_keys(self, keys: object) -> None:
        assert fleche_command("show", "f" * 12).status == 1
        for text, command in (("abc", "log"), ("fit", "log fit"), ("no-key", "log")):
            told = fleche_command("show", text)
            assert told.status == 2
            assert f"'{text}' is no key of a call: 'fleche {command}' shows keys" in told.err


class TestGet:
    def test_prints(self, keys: dict[str, Digest]) -> None:
        """A result or an argument, as text or as JSON."""
        assert fleche_command("get", keys["ag"][:8]).out == "2.5\n"
        assert fleche_command("get", keys["ag"], "--arg", "metal").out == "Ag\n"
        found = fleche_command("get", keys["grid"], "--json").json
        assert found == list(GRID)

    def test_writes(self, keys: dict[str, Digest]) -> None:
        """To a file of a kind that its name says."""
        told = fleche_command("get", keys["used"], "--arg", "x", "-o", "grid.npy")
        assert told.status == 0
        assert np.array_equal(np.load("grid.npy"), GRID)
        told = fleche_command("get", keys["used"], "-o", "grid.xyz")
        assert (told.status, "known are" in told.err) == (2, True)

    def test_half_of_a_character(self, keys: object) -> None:
        """What no encoding has is shown by its number, and is exact in JSON."""
        with Local("results") as cache:
            key = cache.save(made(result="half of \ud83d"))
        assert fleche_command("get", key).out == "half of \\ud83d\n"
        assert fleche_command("get", key, "--json").json == "half of \ud83d"
        told = fleche_command("get", key, "-o", "half.txt")
        assert (told.status, "a .txt file cannot hold" in told.err) == (2, True)

    def test_what_cannot_be_shown(self, keys: object) -> None:
        """Its own class is to blame, which is told with a way out."""
        with Local("results") as cache:
            key = cache.save(made(result=Silent()))
        told = fleche_command("get", key)
        assert "Silent cannot be shown (RuntimeError: no words); -o value.pickle" in told.err
        assert (told.status, told.out) == (2, "")

    def test_a_file(self, keys: object) -> None:
        """A result that is a file is copied."""
        Path("frames.xyz").write_bytes(b"frames")
        with Local("results") as cache:
            key = cache.save(made(result=File("frames.xyz")))
        assert fleche_command("get", key, "-o", "copy.txt").status == 0
        assert Path("copy.txt").read_bytes() == b"frames"

    def test_what_is_not_there(self, keys: dict[str, Digest]) -> None:
        told = fleche_command("get", keys["cu"], "--arg", "w")
        assert (told.status, "it has: metal, v" in told.err) == (2, True)
        with Local("results") as cache:
            result = cache.load(keys["grid"]).record.result
            assert result is not None
            cache.evict(result.digest)
        told = fleche_command("get", keys["grid"])
        assert (told.status, "its result is not in Local(" in told.err) == (1, True)

    def test_a_secret(self, keys: object) -> None:
        """It is an argument of the call, and is not there to be shown."""

        @fleche(version=1)
        def login(user: str, password: Secret[str]) -> int:
            return 1

        with Local("results") as cache, active(cache):
            login("ada", "hush")
            key = login.digest("ada", "hush")
        told = fleche_command("get", key, "--arg", "password")
        assert told.status == 1
        assert "its argument 'password' is not in Local(" in told.err
        assert "a secret, which is never stored" in told.err

    def test_an_exception(self, keys: object) -> None:
        """A call that raised has no result, and says what it raised."""

        @fleche(version=1, errors=ZeroDivisionError)
        def divide(x: int) -> float:
            return x / 0

        with Local("results") as cache, active(cache), pytest.raises(ZeroDivisionError):
            divide(1)
        told = fleche_command("get", divide.digest(1))
        assert (told.status, "has no result: it raised ZeroDivisionError" in told.err) == (1, True)
        raised = "ZeroDivisionError: division by zero"
        for command in (("log", "*divide"), ("tree", divide.digest(1))):
            assert f"raised {raised}" in fleche_command(*command).out
            found = fleche_command(*command, "--json").json
            assert (found["result"], found["error"]["summary"]) == (None, raised)


class TestAnotherMachineIsAway:
    """What is on this machine can be seen, compared and kept meanwhile."""

    @pytest.fixture
    def stored(self, tmp_home: Path) -> list[Digest]:
        """The keys of two calls in the first layer of a stack, whose second cannot be reached."""
        Path("fleche.toml").write_text(
            '[default]\ncache = "s"\n[[s]]\ntype = "local"\nroot = "near"\n'
            '[[s]]\ntype = "subprocess"\nworkdir = "there"\n'
        )
        Path("there").mkdir()
        Path("there", "fleche.toml").write_text("broken")
        with Local("near") as near:
            return [Digest(near.save(made(x=x, result=x))) for x in (1, 2)]

    def test_a_call_that_is_here(self, stored: list[Digest]) -> None:
        """By its key, or the beginning of it; nothing is said of the other machine."""
        for key in (stored[0], stored[0][:8]):
            for words in (["show", key], ["get", key], ["diff", key, stored[1]], ["tree", key]):
                told = fleche_command(*words)
                assert (told.status, told.err) == (0, ""), told

    def test_a_call_that_is_not(self, stored: list[Digest]) -> None:
        """It may be there: that is said, and what to do, in words of the command line."""
        told = fleche_command("show", "0" * 10)
        assert told.status == 2
        assert "no call on this machine has the key 0000000000" in told.err
        assert told.err.splitlines()[-1] == "'fleche doctor' looks for the reason"
        assert "reconnect()" not in told.err
        assert "reconnect()" not in fleche_command("status", "--everywhere").out

    def test_what_changes_the_cache(self, stored: list[Digest]) -> None:
        """It is done on this machine, which is said."""
        Path("study.py").write_text("import fleche\n\n@fleche.fleche\ndef fit(x):\n    return x\n")
        assert fleche_command("export", "two.fleche").status == 0
        fleche_command("evict", stored[0], "--yes")
        told = fleche_process("import", "two.fleche"), fleche_process("accept", "study.py:fit")
        for each in told:
            assert each.status == 0, each
            assert each.err.endswith("fleche: goes on with what is on this machine\n")
            assert "reconnect()" not in each.err
        assert "imported 1 of 2 calls, 1 there already" in told[0].out
        assert "2 calls of fit() are hits again" in told[1].out


# -- du, evict, gc, verify, stats ------------------------------------------------------------------


class TestSpace:
    def test_du_divides(self, keys: object) -> None:
        """A value that two calls need counts half for each; the largest comes first."""
        found = fleche_command("du", "--json").lines
        assert [each["calls"] for each in found] == [1, 1, 2]
        large = {each["name"]: each["bytes"] for each in found}
        half = GRID.nbytes / 2
        assert half <= large["make_grid"] < half + 10_000
        assert half <= large["use_grid"] < half + 10_000
        assert sum(each["part"] for each in found) == pytest.approx(1, abs=0.01)

    @pytest.mark.parametrize(
        ("by", "groups"),
        [
            ("user", {"ada", "bob"}),
            ("machine", {"laptop", "cluster7"}),
            ("tag", {"study=eos", "round=2", "(no tag)"}),
        ],
    )
    def test_du_by(self, by: str, groups: set[str], keys: object) -> None:
        assert {each[by] for each in fleche_command("du", "--json", "--by", by).lines} == groups
        assert all(group in fleche_command("du", "--by", by).out for group in groups)

    def test_evict_then_gc(self, keys: dict[str, Digest]) -> None:
        """A dry run changes nothing; what is forgotten is freed by gc."""
        dry = fleche_command("evict", "*_grid", "--dry-run")
        assert (dry.status, "would forget 2 calls, " in dry.out) == (0, True)
        assert len(fleche_command("log", "--json").lines) == 4
        done = fleche_command("evict", "*_grid", "--yes", "--json").json
        assert done["evicted"] == 2
        assert done["bytes"] >= GRID.nbytes
        assert set(done["keys"]) == {keys["grid"], keys["used"]}
        assert len(fleche_command("log", "--json").lines) == 2
        assert "that no call needs" in fleche_command("du").out
        young = fleche_command("gc", "--json").json
        assert (young["freed"], young["young"] >= GRID.nbytes) == (0, True)
        assert "that no call needs are younger than 1h: " in fleche_command("gc").out
        assert "would free 4" in fleche_command("gc", "--grace", "0s", "--dry-run").out
        assert fleche_command("gc", "--grace", "0", "--json").json["freed"] == young["young"]

    def test_evict_by_age(self, keys: dict[str, Digest]) -> None:
        """By when a call began, or was last used."""
        assert "no call is like that" in fleche_command("evict", "--older-than", "9y", "-y").err
        found = fleche_command("evict", "--older-than", "30d", "--dry-run", "--json").json
        assert found["keys"] == [keys["used"]]
        assert found["evicted"] == 0
        nothing = fleche_command("evict", "--unused", "1d", "--dry-run", "--json")
        assert (nothing.status, nothing.json["keys"]) == (1, [])
        week_ago = time.time() - 7 * 86400
        with sqlite3.connect("results/fleche.db") as database:
            database.execute("UPDATE fleche_calls SET modified = ?", (week_ago,))
        database.close()
        found = fleche_command("evict", "--unused", "1d", "--dry-run", "--json").json
        assert len(found["keys"]) == 4
        with Local("results") as cache:
            assert cache.lookup(keys["cu"]) is not None
            cache.counter.hit(cache.load(keys["cu"]).record)
        found = fleche_command("evict", "--unused", "1d", "--dry-run", "--json").json
        assert set(found["keys"]) == {keys["grid"], keys["used"]}, "its function was used"
        used = {each["name"]: each["used"] for each in fleche_command("du", "--json").lines}
        assert used["fit"] > used["make_grid"]

    def test_the_last_use(self, keys: dict[str, Digest]) -> None:
        """Hits are counted by the hour, whose beginning is told; evict waits for its end."""
        hour = int(time.time()) // 3600 - 5
        with Local("results") as cache:
            cache.backend.note_usage([Usage(hour=hour, host="h", user="u", name="fit", hits=1)])
        with closing(sqlite3.connect("results/fleche.db")) as database, database:
            database.execute("UPDATE fleche_calls SET modified = ?", ((hour - 9) * 3600,))
        used = {each["name"]: each["used"] for each in fleche_command("du", "--json").lines}
        assert datetime.fromisoformat(used["fit"]).timestamp() == hour * 3600
        assert datetime.fromisoformat(used["use_grid"]).timestamp() == (hour - 9) * 3600
        since = time.time() - (hour + 1) * 3600
        for seconds, number in ((since - 60, 4), (since + 60, 2)):
            words = ["evict", "--unused", f"{seconds:.0f}s", "--dry-run", "--json"]
            assert len(fleche_command(*words).json["keys"]) == number

    def test_what_gc_keeps(self, keys: object) -> None:
        """What is young is not said to stay where no age protects it."""
        told = fleche_command("gc")
        assert "1 value kept: needed by calls, or younger than 1h" in told.out
        told = fleche_command("gc", "--grace", "0s")
        assert told.out.endswith("1 value kept: needed by calls\n")

    def test_evict_asks(self, keys: object) -> None:
        """Everything must be said to be meant; without a terminal to ask on, nothing happens."""
        told = fleche_command("evict")
        assert (told.status, "--all" in told.err) == (2, True)
        told = fleche_process("evict", "fit")
        assert (told.status, "no terminal" in told.err, "--yes" in told.err) == (2, True, True)
        assert len(fleche_command("log", "--json").lines) == 4
        assert fleche_command("evict", "--all", "--yes").status == 0
        assert fleche_command("log").status == 1

    def test_verify(self, keys: dict[str, Digest]) -> None:
        """Status 1 for damage, which is named and can be removed."""
        assert "all well: 4 calls" in fleche_command("verify").out
        files = [each for each in Path("results").glob("*/**/*") if each.is_file()]
        buffer = max(files, key=lambda each: each.stat().st_size)
        data = bytearray(buffer.read_bytes())
        data[len(data) // 2] ^= 1
        before = buffer.stat()
        buffer.chmod(0o644)
        buffer.write_bytes(data)
        os.utime(buffer, ns=(before.st_atime_ns, before.st_mtime_ns))  # as bits rot
        found = fleche_command("verify", "--json")
        assert (found.status, found.json["ok"]) == (1, False)
        assert found.json["corrupt"]
        told = fleche_command("verify")
        assert "damage in 4 calls" in told.out
        assert "--repair removes" in told.out
        assert fleche_command("verify", "--repair").status == 1
        assert fleche_command("verify").status == 0

    def test_stats(self, keys: object) -> None:
        """Calls, bytes, and what they took to compute."""
        found = fleche_command("stats", "--json").json
        assert found["calls"] == 4
        assert found["seconds"] == 96
        assert found["functions"]["fit"]["calls"] == 2
        assert found["functions"]["fit"]["seconds"] == 4
        assert "1 min 36 s" in fleche_command("stats").out
        assert fleche_command("stats", "fit", "--json").json["calls"] == 2


def test_json_has_no_nan(keys: object) -> None:
    """What is printed is JSON for every reader."""
    with Local("results") as cache:
        cache.save(made(result=float("nan"), x=float("inf")))

    def refuse(text: str) -> None:
        raise AssertionError(text)

    for line in fleche_command("log", "--json").out.splitlines():
        json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("encoding", swept(["ascii", "latin-1", "utf-8"], "latin-1".__ne__))
def test_encodings(encoding: str, keys: object) -> None:
    """What one has no character for is escaped; JSON says the same in all of them."""
    with Local("results") as cache:
        key = cache.save(made("µ→✓", result="ä→", x="…"))
    commands = (["log"], ["du"], ["stats"], ["tree", key], ["doctor"], ["push", "--to", "copy/"])
    for words in (*commands, ["log", "--json", "µ*"]):
        done = subprocess.run(
            [sys.executable, "-m", "fleche", *words],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert (done.returncode, done.stderr) == (0, b""), words
        text = done.stdout.decode(encoding)
        if words == ["log"]:
            assert text.isascii() is (encoding == "ascii")
            name = "µ→✓".encode(encoding, "backslashreplace").decode(encoding)
            assert name in text
    assert json.loads(text)["name"] == "µ→✓"
    assert json.loads(text)["result"] == "ä→"


@pytest.mark.parametrize(
    "words", [["evict", "--all", "--yes"], ["gc", "--grace", "0"], ["verify", "--repair"]]
)
def test_a_configuration_that_is_not_used(words: list[str], keys: object) -> None:
    """Nothing is removed from another cache than that which it may name."""
    with Local(Path.home() / ".local/share/fleche/default") as default:
        default.save(made())
    Path("fleche.toml").chmod(0o666)
    told = fleche_command(*words)
    assert (told.status, "nothing is removed: " in told.err, told.out) == (2, True, "")
    assert len(fleche_command("log", "--json").lines) == 1
    assert fleche_command(*words, "--cache", "./results").status == 0


def test_evict_on_a_terminal(keys: object) -> None:
    """It shows which calls, and takes no for an answer."""
    for answer, left in (("n", 4), ("y", 2)):
        words = ["-m", "fleche", "evict", "fit"]
        child = pexpect.spawn(sys.executable, words, encoding="utf-8", timeout=30)
        child.expect("metal='Ag'")
        child.expect(r"Forget 2 calls \(.* k?B\)\?.*: ")
        child.sendline(answer)
        child.expect("nothing was forgotten" if answer == "n" else "forgot 2 calls")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == (1 if answer == "n" else 0)
        assert len(fleche_command("log", "--json").lines) == left
