"""What every test of the project shares: the fixture plugins and the Hypothesis profiles."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.database import DirectoryBasedExampleDatabase

pytest_plugins = [
    "tests.helpers.leaks",
    "tests.helpers.permissions",
    "tests.helpers.pythons",
    "tests.helpers.s3",
    "tests.helpers.sshd",
    "tests.helpers.serving",
]

# A shell that starts the tests in the background has them ignore Ctrl-C, and all their children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests run in directories of their own; the examples that Hypothesis keeps belong to the checkout.
_HOME = Path(__file__).parent / ".hypothesis"
set_hypothesis_home_dir(_HOME)

_IN_CI = os.environ.get("CI") == "true"
_COMMON = settings(
    deadline=None,
    database=None if _IN_CI else DirectoryBasedExampleDatabase(_HOME / "examples"),
    derandomize=_IN_CI,
    print_blob=_IN_CI,
)
settings.register_profile("quick", _COMMON, max_examples=20)
settings.register_profile("thorough", _COMMON, max_examples=100)  # scripts/test --all
settings.load_profile("quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give those that are slow the time for it, where they do not say themselves how much."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what stays to the end, modules and thousands of tests, out of the search for garbage.

    A search takes a second with it, and Python searches often: it took half of all collecting.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
