"""For tests of code that uses fleche: a fixture with an empty cache, and an option for none at all.

pytest finds it by itself where fleche is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fleche.caches import BaseCache

__all__ = ["fleche_cache", "pytest_addoption", "pytest_configure", "pytest_unconfigure"]

_opened = pytest.StashKey[ExitStack]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--fleche-off``."""
    group = parser.getgroup("fleche", "results that fleche keeps")
    group.addoption(
        "--fleche-off",
        action="store_true",
        help="run every function anew: nothing is looked up or stored, but in tests that ask for "
        "fleche_cache",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let no result be found or stored, if the option says so."""
    if config.getoption("--fleche-off"):
        from fleche.caches import Cache
        from fleche.state import forcing
        from fleche.storage import CallVoid, ValueVoid

        opened = config.stash[_opened] = ExitStack()
        opened.enter_context(forcing(Cache(ValueVoid(), CallVoid())))


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what :func:`pytest_configure` has begun."""
    opened = config.stash.get(_opened, None)
    if opened is not None:
        opened.close()


@pytest.fixture
def fleche_cache(tmp_path: Path) -> Iterator[BaseCache]:
    """A cache of this test's own, empty at first, which all decorated functions use.

    It is used whatever the code under test activates or says in ``@fleche(cache=...)``, in all
    threads, and lies in a directory of the test, so that processes can share it.
    """
    from fleche.caches import Local
    from fleche.state import forcing

    with Local(tmp_path / "fleche") as made, forcing(made):
        yield made
