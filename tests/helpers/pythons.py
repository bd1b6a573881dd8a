"""Other Python versions, each in an environment that holds fleche and its core dependencies.

The environments are built before the first test that asks for `pythons`, and kept under `.venv`
until the dependencies change. Parametrise with

    @pytest.mark.parametrize("version", PYTHON_VERSIONS)
    def test_something(pythons, version):
        run(pythons[version], ...)

A version without an interpreter on this machine skips its tests. They are slow: to build the
environments takes longer than all tests in them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["NUMPY_1", "PYTHON_VERSIONS", "Pythons", "pythons"]

NUMPY_1 = "numpy 1"
"""What to ask `pythons` for to get an interpreter with numpy 1.26, and pandas."""

_ROOT = Path(__file__).parents[2]
_CACHE = _ROOT / ".venv" / "pythons"
_EXTRAS = ["dill", "numpy", "pandas"]
_OTHERS = {NUMPY_1: ("3.11", ["numpy==1.26.4", "pandas>=3"])}
_BUILD_TIMEOUT = 600.0


class Pythons:
    """Interpreters by version ("3.12"); asking for one that is absent skips the test."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}
        self._reasons: dict[str, str] = {}

    def __getitem__(self, version: str) -> str:
        if version not in self._paths and version not in self._reasons:
            self._prepare(version)
        if version in self._reasons:
            pytest.skip(self._reasons[version])
        return self._paths[version]

    def prepare_all(self) -> None:
        """Build every environment at once; nothing is raised here, only where one is asked for."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._prepare, (*PYTHON_VERSIONS, *_OTHERS)))

    def _prepare(self, name: str) -> None:
        if name == _version(sys.version_info):
            self._paths[name] = sys.executable
            return
        version, extras = _OTHERS.get(name, (name, _EXTRAS))
        interpreter = _find(version)
        if interpreter is None:
            self._reasons[name] = f"no Python {version} on PATH or under pyenv"
            return
        try:
            self._paths[name] = str(_environment(name, interpreter, extras))
        except subprocess.SubprocessError as error:
            last = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
            self._reasons[name] = f"no environment for Python {name}: {last}"


_PYTHONS = Pythons()


@pytest.fixture(scope="session")
def pythons() -> Pythons:
    """Interpreters that can import fleche, by version."""
    return _PYTHONS


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave those tests to ``scripts/test --all``; the quick run has ``scripts/test --pythons``."""
    for item in items:
        if "pythons" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Build outside any test, whose time is limited."""
    wanted = any("pythons" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly:
        _PYTHONS.prepare_all()


def _version(info: tuple[object, ...]) -> str:
    return f"{info[0]}.{info[1]}"


def _find(version: str) -> str | None:
    for candidate in _candidates(version):
        script = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
        try:
            answer = subprocess.run([candidate, "-c", script], capture_output=True, text=True)
        except OSError:
            continue
        if answer.stdout.strip() == version:
            return candidate
    return None


def _candidates(version: str) -> Iterator[str]:
    # pyenv's own shims refuse versions that are not selected, so its directory comes first.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    if os.access(pyenv, os.R_OK):
        for directory in sorted(pyenv.glob(f"{version}*"), reverse=True):
            yield str(directory / "bin" / "python3")
    if path := shutil.which(f"python{version}"):
        yield path
    if uv := shutil.which("uv"):
        found = subprocess.run([uv, "python", "find", version], capture_output=True, text=True)
        if found.returncode == 0:
            yield found.stdout.strip()


# CI has none of the last ones to install: each counts where there is one.
PYTHON_VERSIONS = ("3.10", "3.11", "3.12", "3.13", *filter(_find, ("3.14", "3.15")))


def _environment(name: str, interpreter: str, extras: list[str]) -> Path:
    """The interpreter of an environment called `name`, built if need be."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    packages = [*project["dependencies"], *extras]
    key = hashlib.sha256(repr((str(_ROOT), interpreter, packages)).encode()).hexdigest()
    home = _CACHE / name.replace(" ", "-")
    stamp = home / "fleche-stamp"
    with _locked(_CACHE / f"{home.name}.lock"):
        if not stamp.exists() or stamp.read_text() != key:
            _build(home, interpreter, packages)
            stamp.write_text(key)
        _run(home / "bin" / "python", "-m", "compileall", "-q", _ROOT / "fleche")
    return home / "bin" / "python"


def _build(home: Path, interpreter: str, packages: list[str]) -> None:
    _run(interpreter, "-m", "venv", "--clear", home)
    pip = ("-m", "pip", "install", "--disable-pip-version-check", "--only-binary=:all:")
    _run(home / "bin" / "python", *pip, *packages)
    for site in home.glob("lib/python*/site-packages"):
        (site / "fleche.pth").write_text(f"{_ROOT}\n")


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_BUILD_TIMEOUT)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold `path` against other test runs that build the same environment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
