"""Values of scientific libraries: what counts in their digests, in the tables of `tests/science`.

Two fresh processes go through the tables, under two hash seeds and in opposite orders, so that they
differ in all that has happened before: through those of the light libraries together, and through
that of each library by itself. A library that is not installed is skipped: `scripts/test` installs
the light ones only, CI all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fleche.digest.science import REDUCERS, ROWS
from tests.science.libraries import LIBRARIES

ROOT = Path(__file__).parents[1]
HISTORIES = (("0", "forwards"), ("7", "backwards"))
SECONDS = 300

Case = dict[str, Any]
Report = dict[str, dict[str, Case]]


def run(libraries: Iterable[str], seed: str, order: str) -> Report:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-m", "tests.science", order, *libraries],
        check=False,
        capture_output=True,
        cwd=ROOT,
        env=environment,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report: Report = json.loads(done.stdout.splitlines()[-1])
    return report


def report_on(libraries: Iterable[str]) -> tuple[Report, Report]:
    """What two processes say of libraries."""
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda history: run(libraries, *history), HISTORIES)
    return one, other


def check_one_digest(one: Case, other: Case) -> bool:
    """Made again, and made in another process, a value has the digest that it had."""
    same = {one["made"], one["again"], other["made"], other["again"]}
    return len(one["made"]) == 64 and len(same) == 1 and one["others"] == other["others"]


def check_different(one: Case, _: Case) -> bool:
    """Different values have different digests."""
    found = [one["made"], *one["others"]]
    return all(len(digest) == 64 for digest in found) and len(set(found)) == len(found)


def check_memory(one: Case, other: Case) -> bool:
    """What differs only in memory has one digest."""
    return {*one["equal"], *other["equal"]} <= {one["made"]}


def check_use(one: Case, other: Case) -> bool:
    """What a library notes in an object while it is used does not count."""
    return {one["used"], other["used"]} == {one["made"]}


def check_copies(one: Case, other: Case) -> bool:
    """A copy, and what comes back from a parcel, is equal; values are copied after their use."""
    return {*one["copies"].values(), *other["copies"].values()} <= {one["made"]}


def check_refused(one: Case, other: Case) -> bool:
    """What is only a name is refused, and the error says what to pass in its place."""
    return all(said.get("hint", "no digest") in said["refused"] for said in (one, other))


RULES = (check_one_digest, check_different, check_memory, check_use, check_copies)


HEAVY = ("jax", "numba", "polars", "pyarrow", "rdkit", "torch", "zarr")
"""Seconds to import, twice; of the extra `science-heavy`, and torch."""

LIGHT = [name for name in sorted(LIBRARIES) if name not in HEAVY]


def check(libraries: Iterable[str]) -> None:
    one, other = report_on(libraries)
    faults = [
        f"{library}, {name}: {rule.__doc__}\n    {said}\n    {other[library][name]}"
        for library in libraries
        for name, said in one[library].items()
        for rule in ((check_refused,) if "refused" in said else RULES)
        if not rule(said, other[library][name])
    ]
    assert not faults, "\n".join(faults)
    for library in libraries:
        assert one[library].keys() == other[library].keys() != set()


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
def test_light_libraries() -> None:
    """Each rule holds for each value of their tables, in one program that uses all of them."""
    installed = [name for name in LIGHT if find_spec(name)]
    if not installed:
        pytest.skip(f"none is installed: pip install {' '.join(LIGHT)}")
    check(installed)


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_library(library: str) -> None:
    """Each rule holds for each value of the table of a library, in a program without the others."""
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install {library}")
    check([library])


def test_libraries_are_not_imported() -> None:
    """Digesting plain data loads no library, and none of the handlers."""
    script = (
        "import sys, fleche.digest as f; f.digest([1.0, {'a': print}, f.Digest]);"
        "print([m for m in sys.modules if m in sys.argv[1:] or 'digest.science.' in m])"
    )
    command = [sys.executable, "-c", script, *LIBRARIES]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=True, capture_output=True, env=environment, text=True)
    assert done.stdout.strip() == "[]"


def test_every_row_leads_to_a_function() -> None:
    from fleche.digest import science

    for _, _, target, _ in ROWS:
        module, _, function = target.partition(":")
        loaded = __import__(f"{science.__name__}.{module}", fromlist=[function])
        assert callable(getattr(loaded, function)), target
    reducers = __import__(f"{science.__name__}._reducers", fromlist=["reduce_tensor"])
    assert all(callable(getattr(reducers, name)) for name in REDUCERS.values())
