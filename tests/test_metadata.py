"""Collectors: what is recorded with a call, and what is not."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
import warnings
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche import (
    Cache,
    Cpu,
    Environment,
    Git,
    MetaData,
    Runtime,
    Tags,
    fleche,
    meta,
    tags,
)
from fleche.call import between, one_of, where
from fleche.errors import ConfigError
from fleche.metadata import Collecting, _environment, metadata_class, metadata_names
from fleche.metadata import _git as git
from fleche.metadata._environment import imported_by

grid = np.array([1.0])


@pytest.fixture(autouse=True)
def fresh(active: Cache) -> None:
    meta(None)


def function() -> None:
    """Something to collect about."""


def fail(name: str, error: Exception) -> None:
    raise error


def collect(*collectors: MetaData, about: Any = function) -> dict[str, dict[str, Any]]:
    return Collecting(collectors, about, fail).finish()


class TestCpu:
    def test_seconds(self) -> None:
        """Time in which the processor worked for this process, and no other."""
        collecting = Collecting((Cpu(), Runtime()), function, fail)
        deadline = time.process_time() + 0.05
        while time.process_time() < deadline:
            pass
        time.sleep(0.1)
        found = collecting.finish()
        assert 0.05 <= found["cpu"]["seconds"] <= found["runtime"]["seconds"] - 0.05


class TestRuntime:
    def test_fields(self) -> None:
        before = datetime.now(timezone.utc)
        collecting = Collecting([Runtime()], function, fail)
        time.sleep(0.05)
        found = collecting.finish()["runtime"]
        started, finished = (datetime.fromisoformat(found[key]) for key in ("started", "finished"))
        assert abs(started - before).total_seconds() < 1
        assert started.tzinfo is not None
        assert (finished - started).total_seconds() == pytest.approx(found["seconds"], abs=1e-4)
        assert found["seconds"] >= 0.05
        assert found["pid"] == os.getpid()
        assert found["host"] == os.uname().nodename
        assert found["user"]

    def test_the_system_is_not_asked_for_the_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not of the processor: under load, each time would let another process go on first."""
        monkeypatch.setattr(time, "process_time", fail)
        assert "seconds" in collect(Runtime())["runtime"]

    def test_user_without_a_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In a container the user may have a number only."""
        from fleche._util import user_name

        monkeypatch.delenv("LOGNAME", raising=False)
        monkeypatch.delenv("USER", raising=False)
        assert user_name.__wrapped__()
        monkeypatch.setattr(os, "getuid", lambda: 54321)
        assert user_name.__wrapped__() == "54321"


class TestEnvironment:
    def test_fields(self) -> None:
        """The packages are those whose names the function's module has imported."""
        found = collect(Environment())["environment"]
        assert found["python"] == ".".join(map(str, sys.version_info[:3]))
        assert found["implementation"] == sys.implementation.name
        assert found["packages"]["numpy"] == np.__version__
        assert found["packages"]["pytest"] == pytest.__version__
        assert "os" not in found["packages"]

    @pytest.mark.parametrize("mac", ["", "14.5"])
    def test_platform(self, monkeypatch: pytest.MonkeyPatch, mac: str) -> None:
        """It starts no process, as the standard library does for this, on macOS two of them."""
        system = f"macOS-{mac}" if mac else f"{platform.system()}-{platform.release()}"
        expected = f"{system}-{platform.machine()}"
        monkeypatch.setattr(platform, "mac_ver", lambda: (mac, ("", "", ""), ""))
        monkeypatch.setattr(subprocess, "Popen", None)
        monkeypatch.setattr(platform, "uname", None)
        found = _environment._interpreter.__wrapped__(None)["platform"]
        assert found.partition("-with-")[0] == expected

    def test_given_packages(self) -> None:
        """What is not installed is left out."""
        found = collect(Environment(["msgspec", "no-such-package"]))["environment"]
        assert list(found["packages"]) == ["msgspec"]

    @pytest.mark.parametrize(
        ("name", "distribution"), [("attr", "attrs"), ("dateutil", "python-dateutil")]
    )
    def test_version_of_the_module(self, name: str, distribution: str) -> None:
        """A package whose modules have another name than itself; it runs nothing for the answer."""
        pytest.importorskip(name)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error"
            )  # some versions of attrs warn of whatever asks for theirs
            found = collect(Environment([name]))["environment"]["packages"]
        assert found == {name: metadata.version(distribution)}

    def test_where_it_ran(self) -> None:
        found = collect(Environment())["environment"]
        assert (found["executable"], found["cwd"]) == (sys.executable, os.getcwd())

    def test_a_working_directory_that_is_gone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        assert "cwd" not in {
            key for key, value in collect(Environment())["environment"].items() if value
        }

    def test_packages_that_are_imported_in_the_body(self) -> None:
        def function() -> None:
            import hypothesis
            from pandas.api import types

            del hypothesis, types

        assert {"hypothesis", "pandas"} <= set(imported_by(function))

    def test_packages_of_the_own_modules_behind_the_function(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What one's own helpers use was used; their own names are none of a package."""
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "own_helpers.py").write_text(
            "import own_deep\ndef help():\n    return own_deep.deep()\n"
        )
        (tmp_path / "own_deep.py").write_text("def deep():\n    import h5py\n    return h5py\n")
        scope: dict[str, Any] = {"__name__": "own_script"}
        exec("import own_helpers\ndef function():\n    return own_helpers.help()", scope)
        try:
            assert imported_by(scope["function"]) == ["h5py"]
        finally:
            for name in ("own_helpers", "own_deep"):
                sys.modules.pop(name, None)

    def test_an_import_behind_many_names(self) -> None:
        """Code counts its names in bytes, of which more than one may be needed."""
        names = "\n".join(f"    x.a{number}" for number in range(700))
        scope: dict[str, Any] = {}
        exec(f"def function(x):\n{names}\n    import h5py", scope)
        assert imported_by(scope["function"]) == ["h5py"]

    def test_packages_that_come_later_are_told_of_later_calls(self) -> None:
        """What a function imports is looked for once, and again when its module has changed."""
        scope: dict[str, Any] = {"__name__": "own_script"}
        exec("def function():\n    pass", scope)
        assert collect(Environment(), about=scope["function"])["environment"]["packages"] == {}
        exec("import numpy", scope)
        found = collect(Environment(), about=scope["function"])["environment"]["packages"]
        assert set(found) == {"numpy"}

    def test_without_a_function(self) -> None:
        assert imported_by(None) == []

    def test_an_object_that_stands_for_another(self) -> None:
        """It is not asked for anything, since that may import the other, or fail."""

        class Lazy:
            @property
            def __class__(self) -> Any:
                raise RuntimeError("there is none yet")

            def __getattr__(self, name: str) -> Any:
                raise RuntimeError(name)

        scope: dict[str, Any] = {"__name__": "mine", "lazy": Lazy()}
        exec("import h5py\ndef function(): pass", scope)
        assert "h5py" in imported_by(scope["function"])

    def test_what_is_around_a_builtin(self) -> None:
        """A function of the module may be round one that has no code of Python."""
        source = "import functools, h5py\n\n@functools.wraps(len)\ndef size(x): return len(x)\n"
        scope: dict[str, Any] = {"__name__": "mine"}
        exec(f"{source}\ndef function(x): return size(x)", scope)
        assert imported_by(scope["function"]) == ["h5py"]
        assert collect(Environment(), about=None)["environment"]["packages"] == {}


def run_git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


class TestGit:
    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        root = tmp_path / "repository"
        root.mkdir()
        run_git(root, "init", "-b", "main")
        (root / "inner").mkdir()
        (root / "inner" / "code.py").write_text("def function():\n    pass\n")
        run_git(root, "add", ".")
        run_git(root, "commit", "-m", "first")
        git._answers.clear()
        return root

    def function_of(self, root: Path) -> Any:
        path = root / "inner" / "code.py"
        scope: dict[str, Any] = {}
        exec(compile(path.read_text(), str(path), "exec"), scope)
        return scope["function"]

    def test_fields(self, repository: Path) -> None:
        head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=repository, text=True)
        assert collect(Git(), about=self.function_of(repository))["git"] == {
            "root": str(repository),
            "commit": head.strip(),
            "branch": "main",
            "dirty": False,
        }

    def test_dirty_and_detached(self, repository: Path) -> None:
        function = self.function_of(repository)
        run_git(repository, "checkout", "--detach")
        (repository / "inner" / "code.py").write_text("changed\n")
        found = collect(Git(), about=function)["git"]
        assert (found["branch"], found["dirty"]) == (None, True)

    @pytest.mark.parametrize("ignored", [False, True])
    def test_dirty_where_the_file_of_the_function_is_not_tracked(
        self, repository: Path, ignored: bool
    ) -> None:
        """The commit does not hold the code that ran."""
        (repository / "inner" / "code.py").rename(repository / "inner" / "other.py")
        run_git(repository, "add", "-A")
        if ignored:
            (repository / ".gitignore").write_text("code.py\n")
            run_git(repository, "add", "-A")
        run_git(repository, "commit", "-m", "second")
        (repository / "inner" / "code.py").write_text("def function():\n    pass\n")
        assert collect(Git(), about=self.function_of(repository))["git"]["dirty"] is True

    def test_a_file_elsewhere_that_is_not_tracked(self, repository: Path) -> None:
        """It leaves the state clean: notes and results lie about in every repository."""
        function = self.function_of(repository)
        (repository / "notes.txt").write_text("nothing")
        assert collect(Git(), about=function)["git"]["dirty"] is False

    def test_before_the_first_commit(self, tmp_path: Path) -> None:
        run_git(tmp_path, "init", "-b", "main")
        assert git.describe(tmp_path)["commit"] is None

    def test_asked_once_in_a_while(self, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = git.describe(repository)
        monkeypatch.setenv("PATH", "")
        assert git.describe(repository) == first

    def test_no_repository(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then there are no data; a function without a file is taken to be where one works."""
        monkeypatch.chdir(tmp_path)
        assert collect(Git(), about=None) == {}

    def test_no_git(self, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        assert git.describe(repository) == {}

    def test_broken_repository(self, tmp_path: Path) -> None:
        (tmp_path / ".git").mkdir()
        assert git.describe(tmp_path) == {}

    def test_slow_git(
        self, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is not waited for long."""
        slow = tmp_path / "bin" / "git"
        slow.parent.mkdir()
        slow.write_text("#!/bin/sh\nexec sleep 30\n")
        slow.chmod(0o755)
        monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(git, "TIMEOUT", 0.2)
        begin = time.monotonic()
        assert git.describe(repository) == {}
        assert time.monotonic() - begin < 5

    def test_runs_no_hooks(self, repository: Path, tmp_path: Path) -> None:
        """Nothing that a repository holds is executed."""
        hook = tmp_path / "hook"
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
        hook.chmod(0o755)
        run_git(repository, "config", "core.fsmonitor", str(hook))
        (repository / "inner" / "code.py").write_text("changed\n")
        assert git.describe(repository)["dirty"]
        assert not (tmp_path / "ran").exists()

    def test_foreign_variables(self, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Called inside another repository's hook, it still describes the function's."""
        monkeypatch.setenv("GIT_DIR", "/nowhere")
        assert git.describe(repository)["branch"] == "main"


class TestOwn:
    def test_each_call_has_its_own_copy(self) -> None:
        """What a collector notes at the start is of one call, however many run at a time."""

        class Thread(MetaData):
            def start(self) -> None:
                self.started = threading.get_ident()

            def finish(self) -> dict[str, Any]:
                return {"same": self.started == threading.get_ident()}

        barrier = threading.Barrier(4)

        @fleche(meta=[Thread], hash_code=False)
        def meet(x: int) -> int:
            barrier.wait(5)
            return x

        threads = [threading.Thread(target=meet, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [call.metadata for call in meet.query()] == [{"thread": {"same": True}}] * 4

    def test_known_by_name(self) -> None:
        class Weather(MetaData):
            def finish(self) -> dict[str, Any]:
                return {"sun": True}

        assert metadata_class("weather") is Weather
        assert {"environment", "git", "runtime", "tags", "weather"} <= set(metadata_names())
        meta("weather")
        assert meta() == (Weather(),)

    def test_named_otherwise(self) -> None:
        class Sky(MetaData):
            name = "heaven"

        assert metadata_class("heaven") is Sky

    def test_reserved_name(self) -> None:
        """What fleche itself records of a call is under "fleche"; no collector takes its place."""
        with pytest.raises(ConfigError, match="'fleche' is reserved"):
            type("Fleche", (MetaData,), {})
        with pytest.raises(ConfigError, match="Weather"):
            type("Weather", (MetaData,), {"name": "fleche"})
        assert "fleche" not in metadata_names()

    def test_imported_by_name(self) -> None:
        assert metadata_class("fleche.metadata._git:Git") is Git

    @pytest.mark.parametrize(
        "name", ["nope", "no_such_module:A", "fleche.metadata._git:Nope", "os.path:join"]
    )
    def test_unknown_name(self, name: str) -> None:
        with pytest.raises(ConfigError, match="metadata"):
            metadata_class(name)

    def test_unfinished(self) -> None:
        with pytest.raises(NotImplementedError):
            MetaData().finish()


class TestTags:
    @pytest.mark.parametrize(
        ("tag", "stored"),
        [
            (np.float64(300.5), 300.5),
            (np.float32(0.1), float(np.float32(0.1))),
            (np.int64(2**53 + 1), 2**53 + 1),
            (np.uint8(7), 7),
            (np.bool_(True), True),
            (np.str_("abc"), "abc"),
        ],
        ids=repr,
    )
    def test_scalars_of_numpy(self, active: Cache, tag: Any, stored: Any) -> None:
        """They are recorded as the numbers that they are, and found by numbers of either kind."""

        @fleche(hash_code=False)
        def plain(x: int) -> int:
            return x

        with tags(t=tag, other="kept"):
            plain(1)
        found = plain.load(1).metadata["tags"]
        assert found == {"t": stored, "other": "kept"}
        assert type(found["t"]) is type(stored)
        for wanted in (tag, stored, where("=", tag), one_of(tag), between(tag, tag)):
            calls = active.query(metadata={"tags": {"t": wanted}})
            expected = not (isinstance(stored, bool) and getattr(wanted, "op", "") == "between")
            assert bool(calls) is expected, wanted


class TestCollecting:
    def test_last_of_a_name_counts(self) -> None:
        found = collect(Environment(["numpy"]), Environment(["msgspec"]))
        assert list(found["environment"]["packages"]) == ["msgspec"]

    def test_tags_add_up(self) -> None:
        assert collect(Tags(a=1, b=1), Tags(b=2))["tags"] == {"a": 1, "b": 2}

    def test_equality_and_text(self) -> None:
        assert Tags(a=1) == Tags(a=1) != Tags(a=2)
        assert len({Git(), Git()}) == 1
        assert repr(Tags(a=1)) == "Tags(a=1)"
        assert repr(Environment(["numpy"])) == "Environment(packages=('numpy',))"

    def test_nothing_collected_nothing_recorded(self) -> None:
        @fleche
        def plain(x: int) -> int:
            return x

        plain(1)
        assert plain.load(1).metadata == {}
