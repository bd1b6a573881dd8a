"""The package: its names, found when they are first used, and what it installs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fleche as package
from fleche import state
from fleche.metadata import MetaData


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    state.reset()
    yield
    state.reset()


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("name", package.__all__)
def test_names(name: str) -> None:
    """Every public name is there, and listed."""
    assert getattr(package, name) is not None
    assert name in dir(package)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = package.nope  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "code",
    [
        "import fleche; print(fleche.digest(1))",
        "from fleche import digest; print(digest(1))",
        "import fleche.digest; print(fleche.digest(1))",
        "from fleche.digest import digest; print(digest(1))",
        "from fleche.digest import Digest; import fleche; print(fleche.digest.digest(1))",
        "from fleche import digest; from fleche.digest import digest as plain; print(plain(1))",
    ],
)
def test_digest_is_function_and_module(code: str) -> None:
    """Whichever way it is imported, and in whichever order."""
    from fleche.digest import digest

    assert run(code) == digest(1)


@pytest.mark.parametrize(
    "code",
    [
        "import fleche\n@fleche.fleche\ndef f(x): return x",
        "from fleche import fleche\n@fleche\ndef f(x): return x",
        "from fleche import *\n@fleche(version=1)\ndef f(x): return x",
    ],
)
def test_ways_to_decorate(code: str) -> None:
    assert run(f"{code}\nprint(f)") in ("<fleche __main__.f>", "<fleche __main__.f, version 1>")
    assert run(f"{code}\nprint(open.__module__)") in ("io", "_io")


def test_import_is_light() -> None:
    """Nothing of the package's own is loaded before it is used."""
    loaded = run("import sys, fleche; print([n for n in sys.modules if n.startswith('fleche')])")
    assert set(eval(loaded)) == {"fleche", "fleche._path"}


def test_an_old_python() -> None:
    """One that finds a checkout, and for which pip would install nothing, says what it is."""
    old = "import sys\nsys.version_info, sys.version = (3, 9, 7), '3.9.7 (old)'\n"
    told = run(f"{old}try: import fleche\nexcept ImportError as error: print(error)")
    assert told == f"fleche needs Python 3.10 or newer, and this is 3.9.7 ({sys.executable})"


def test_configuration(tmp_home: Path) -> None:
    """Caches by name, the default cache and the default metadata come from `fleche.toml`."""
    (tmp_home / "fleche.toml").write_text(
        '[default]\ncache = "kept"\nmetadata = ["git", "runtime"]\n'
        '[kept]\ntemplate = "cloudpickle"\nroot = "store"\n'
    )

    @package.fleche
    def twice(x: int) -> int:
        return 2 * x

    assert twice(2) == 4
    assert twice.contains(2)
    assert (tmp_home / "store").is_dir()
    assert [each.name for each in package.meta()] == ["git", "runtime"]
    assert all(isinstance(each, MetaData) for each in package.meta())
    with package.cache("memory") as chosen:
        assert not twice.contains(2)
        assert chosen is state.named_cache("memory")
    with pytest.raises(package.ConfigError, match="shraed"):
        package.cache("shraed")
