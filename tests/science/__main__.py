"""Print what becomes of the cases of some libraries in this process, as JSON."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import cloudpickle

from fleche.digest import digest, find_reducer
from fleche.errors import Indigestible
from tests.science import Case, Refused
from tests.science.libraries import LIBRARIES


class Pickler(cloudpickle.Pickler):
    """The pickler of a parcel."""

    def reducer_override(self, obj: Any) -> Any:
        reduce = find_reducer(type(obj))
        found = NotImplemented if reduce is None else reduce(obj)
        return super().reducer_override(obj) if found is NotImplemented else found


def through_parcel(value: Any) -> Any:
    file = io.BytesIO()
    Pickler(file, protocol=5).dump(value)
    return pickle.loads(file.getvalue())


WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "parcel": through_parcel,
}


def attempt(step: Callable[[], Any]) -> Any:
    """Return a digest, or what was raised in its place."""
    try:
        return step()
    except Exception as error:  # noqa: BLE001 - it is reported for the case and the step
        return f"{type(error).__name__}: {error}"


def after_use(case: Case) -> str:
    value = case.make()
    before = digest(value)
    if case.use is not None:
        case.use(value)
    return f"{digest(value)}" if digest(value) == before else f"{before} before, {digest(value)}"


def report_case(case: Case) -> dict[str, Any]:
    def copied(way: str) -> str:
        value = case.make()
        if case.use is not None:
            case.use(value)
        return str(digest(WAYS[way](value)))

    return {
        "made": attempt(lambda: digest(case.make())),
        "again": attempt(lambda: digest(case.make())),
        "used": attempt(lambda: after_use(case)),
        "equal": [attempt(lambda make=make: digest(make())) for make in case.equal],
        "others": [attempt(lambda make=make: digest(make())) for make in case.others],
        "copies": {way: attempt(lambda way=way: copied(way)) for way in case.copies},
    }


def report_refusal(case: Refused) -> dict[str, Any]:
    try:
        return {"refused": f"a digest: {digest(case.make())}"}
    except Indigestible as error:
        return {"refused": str(error), "hint": case.hint}


def main(order: str, *libraries: str) -> None:
    """Report on the cases, in the order of their tables or backwards, which is another history."""
    warnings.simplefilter("ignore")
    os.chdir(tempfile.mkdtemp())
    backwards = order == "backwards"
    found: dict[str, dict[str, Any]] = {}
    for library in sorted(libraries, reverse=backwards):
        cases = LIBRARIES[library]()
        said = found[library] = {}
        for name in sorted(cases, reverse=backwards):
            case = cases[name]
            said[name] = report_case(case) if isinstance(case, Case) else report_refusal(case)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
