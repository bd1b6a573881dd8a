"""Tests of code that uses fleche: FLECHE_CACHE, and the plugin of pytest."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from textwrap import dedent

import pytest

import fleche
from fleche import cache, state
from fleche.caches import Cache, Local
from fleche.config import cache_from_config
from fleche.errors import ConfigError
from tests.helpers.commands import fleche_command
from tests.helpers.layers import in_memory
from tests.helpers.scripts import ROOT

runs: list[int] = []


@fleche.fleche(version=1)
def square(x: int) -> int:
    runs.append(x)
    return x * x


@pytest.fixture(autouse=True)
def forget() -> None:
    runs.clear()
    state.reset()


class TestVariable:
    """FLECHE_CACHE says which cache is used, whatever the program says."""

    def test_void(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FLECHE_CACHE", "void")
        with cache(in_memory()):
            square(2), square(2)
        cache(in_memory(), stack=True)
        square(2)
        assert runs == [2, 2, 2]

    def test_an_environment_in_place_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Others put a dict there, as ``mock.patch`` does."""
        monkeypatch.setattr(os, "environ", {**os.environ, "FLECHE_CACHE": "void"})
        with cache(in_memory()):
            square(2), square(2)
        monkeypatch.setattr(os, "environ", {**os.environ, "FLECHE_CACHE": ""})
        with cache(in_memory()):
            square(2), square(2)
        assert runs == [2, 2, 2]

    def test_memory(self, monkeypatch: pytest.MonkeyPatch, tmp_home: Path) -> None:
        monkeypatch.setenv("FLECHE_CACHE", "memory")
        square(2), square(2)
        cache(fleche.open(tmp_home / "other"))
        square(2)
        assert runs == [2]
        assert not (tmp_home / "other").exists()

    @pytest.mark.parametrize("text", ["~/store", "./store", "{home}/store"])
    def test_a_path(self, text: str, monkeypatch: pytest.MonkeyPatch, tmp_home: Path) -> None:
        monkeypatch.setenv("FLECHE_CACHE", text.format(home=tmp_home))
        square(2)
        assert isinstance(cache(), Local)
        place = tmp_home / "work" / "store" if text.startswith(".") else tmp_home / "store"
        assert place.exists()

    def test_a_directory_of_files(self, monkeypatch: pytest.MonkeyPatch, tmp_home: Path) -> None:
        """What is there is used as it is, by programs as by the commands."""
        with cache(cache_from_config({"template": "cloudpickle", "root": "old"})):
            square(2)
        monkeypatch.setenv("FLECHE_CACHE", "./old")
        assert square.contains(2)
        assert fleche_command("log").out.count("square") == 1
        assert not Path("old", "layout").exists()

    def test_a_directory_that_holds_something_else(
        self, monkeypatch: pytest.MonkeyPatch, tmp_home: Path
    ) -> None:
        Path("notes").mkdir()
        Path("notes", "todo.txt").touch()
        monkeypatch.setenv("FLECHE_CACHE", "./notes")
        with pytest.raises(ConfigError, match=r"FLECHE_CACHE=./notes: .*holds no cache .*an empty"):
            square(2)

    def test_a_url(self, monkeypatch: pytest.MonkeyPatch, tmp_home: Path) -> None:
        """It is no path, and no directory is made of it."""
        monkeypatch.chdir(tmp_home)
        monkeypatch.setenv("FLECHE_CACHE", "ssh://bigpc/results")
        with pytest.raises(ConfigError, match=r"FLECHE_CACHE=ssh://bigpc/results: .* a URL"):
            square(2)
        assert not Path("ssh:").exists()

    def test_a_directory_that_is_not_there_yet(
        self, monkeypatch: pytest.MonkeyPatch, tmp_home: Path
    ) -> None:
        """A program would make it, so the commands find nothing in it, and do not make it."""
        monkeypatch.setenv("FLECHE_CACHE", "./new")
        assert fleche_command("status").status == 0
        told = fleche_command("log")
        assert (told.status, "no calls yet in " in told.err) == (1, True)
        assert not Path("new").exists()

    def test_a_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("fleche.toml").write_text(
            '[default]\ncache="b"\n[a]\ntemplate="memory"\n[b]\ntemplate="memory"\n'
        )
        monkeypatch.setenv("FLECHE_CACHE", "a")
        assert cache() is state.named_cache("a")
        cache("b")
        assert cache() is state.named_cache("a")

    def test_what_is_decorated_with_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        own = in_memory()
        other = fleche.fleche(cache=own)(square)
        monkeypatch.setenv("FLECHE_CACHE", "memory")
        other(2)
        other.bind(cache=own)(3)
        assert len(own) == 0
        assert len(cache()) == 2

    def test_no_such_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FLECHE_CACHE", "stoer")
        with pytest.raises(ConfigError, match=r"FLECHE_CACHE=stoer: .*with a slash: ./stoer"):
            square(2)

    def test_a_server_serves_what_it_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The variable is for programs; a configuration that is loaded by name is as it says."""
        from fleche.config import load_cache_config

        monkeypatch.setenv("FLECHE_CACHE", "void")
        assert isinstance(load_cache_config("memory"), Cache)


def test_in_all_threads() -> None:
    """As the fixture does it."""
    cache(in_memory())
    forced = in_memory()
    with state.forcing(forced):
        thread = threading.Thread(target=square, args=(2,))
        thread.start()
        thread.join()
        cache("memory")
        square(3)
        assert len(forced) == 2
    assert len(cache()) == 0
    assert cache() is not forced


class TestPlugin:
    TESTS = """\
        import fleche
        import pytest

        runs = []
        fleche.cache(fleche.open("shared"))

        @fleche.fleche(version=1)
        def square(x):
            runs.append(x)
            return x * x

        @pytest.mark.parametrize("number", [1, 2])
        def test_with_a_cache(fleche_cache, number):
            runs.clear()
            fleche.cache("memory")
            assert square(3) == square(3) == 9
            assert runs == [3]
            assert square.digest(3) in fleche_cache

        def test_as_it_is():
            runs.clear()
            square(3), square(3)
            print("runs:", runs)
        """

    def run(self, directory: Path, *options: str) -> str:
        (directory / "test_it.py").write_text(dedent(self.TESTS))
        command = [sys.executable, "-m", "pytest", "-p", "fleche.pytest_plugin", "-s", "-p"]
        done = subprocess.run(
            [*command, "no:cacheprovider", "-c", os.devnull, "--rootdir", str(directory), *options],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def test_fixture(self, tmp_path: Path) -> None:
        """Each test has an empty cache of its own; others have what they had."""
        text = self.run(tmp_path)
        assert "3 passed" in text
        assert "runs: [3]" in text
        assert (tmp_path / "shared").exists()

    def test_off(self, tmp_path: Path) -> None:
        """Every function runs anew, but where a test asks for a cache."""
        text = self.run(tmp_path, "--fleche-off")
        assert "runs: [3, 3]" in text
        assert not (tmp_path / "shared").exists()

    def test_it_is_light(self) -> None:
        """Pytest loads it wherever fleche is installed."""
        code = (
            "import sys, pytest; before = set(sys.modules); import fleche.pytest_plugin; "
            "print(sorted(name for name in set(sys.modules) - before if 'fleche' not in name), "
            "'fleche.caches' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "[] False"
