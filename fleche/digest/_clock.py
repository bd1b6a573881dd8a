"""Which variables are made by the clock, or by chance.

They count by the syntax of their defining assignments, since their values differ from run to run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from fleche.digest._assignments import defining_statements, origin_of

__all__ = ["CLOCK_CALLS", "is_from_clock", "is_simple"]

CLOCKS = {
    "time": (
        *("time", "monotonic", "perf_counter", "process_time", "thread_time", "clock_gettime"),
        *("time_ns", "monotonic_ns", "perf_counter_ns", "process_time_ns", "thread_time_ns"),
        *("clock_gettime_ns", "localtime", "gmtime", "ctime", "asctime", "strftime"),
    ),
    "uuid": ("uuid1", "uuid4", "getnode"),
    "random": ("random", "randint", "randrange", "getrandbits", "uniform", "choice", "gauss"),
    "secrets": None,
    "socket": ("gethostname", "getfqdn", "gethostbyname"),
    "getpass": ("getuser",),
    "datetime": ("now", "utcnow", "today"),
    "tempfile": ("gettempdir", "mkdtemp", "mkstemp", "mktemp"),
    "os": ("getpid", "getppid", "urandom"),
    "posix": ("getpid", "getppid", "urandom"),
}
"""Modules whose functions return something else in each run, and which functions do."""

CLOCK_CALLS = frozenset(name for names in CLOCKS.values() for name in names or ())
"""What these functions are called."""

UNTIMED = {"localtime": 0, "gmtime": 0, "ctime": 0, "asctime": 0, "strftime": 1}
"""Functions of ``time`` that ask the clock only if they are given no time, and how many other
arguments they have."""

PLAIN = (int, float, str, bytes)
"""Types of what a clock or chance gives, and other variables may be made from."""


def is_simple(value: Any) -> bool:
    """Whether a value may be what a clock or chance has given, and not an object that does more."""
    # the object itself is not asked: it may stand for another one, which is not there yet
    return issubclass(type(value), (*PLAIN, tuple)) or not type(value).__dictoffset__


def is_from_clock(namespace: Mapping[str, Any], path: str, depth: int = 4) -> bool:
    """Whether a variable is made by a call that returns something else in each run.

    Args:
        namespace: the names of its module, or of one that imports it.
        path: its name; that of a class before it if it is an attribute of one.
        depth: how many variables may stand between it and that call.
    """
    space, path = origin_of(namespace, path)
    if space is None:
        return False
    owner = path.rpartition(".")[0]
    values = [getattr(part, "value", None) for part in defining_statements(space, path)]
    return any(calls_clock(value, space, owner, depth) for value in values if value)


def calls_clock(expression: Any, namespace: Mapping[str, Any], owner: str, depth: int) -> bool:
    import ast

    for item in ast.walk(expression):
        if isinstance(item, ast.Call):
            found = is_call_of_clock(item, namespace)
        else:
            variable = variable_of(item, namespace, owner) if depth else None
            found = variable is not None and is_from_clock(*variable, depth - 1)
        if found:
            return True
    return False


def variable_of(
    item: Any, namespace: Mapping[str, Any], owner: str
) -> tuple[Mapping[str, Any], str] | None:
    """Return the plain variable or attribute of a class that an expression is, or None."""
    kind = type(item).__name__
    if kind == "Name":
        if owner and defining_statements(namespace, f"{owner}.{item.id}"):
            return namespace, f"{owner}.{item.id}"
        return (namespace, item.id) if type(namespace.get(item.id)) in PLAIN else None
    cls: Any = namespace.get(getattr(item.value, "id", "")) if kind == "Attribute" else None
    module = sys.modules.get(cls.__module__) if isinstance(cls, type) else None
    return (vars(module), f"{cls.__qualname__}.{item.attr}") if module is not None else None


def is_call_of_clock(call: Any, namespace: Mapping[str, Any]) -> bool:
    function, last = call.func, ""
    while type(function).__name__ in ("Attribute", "Call"):
        last = last or getattr(function, "attr", "")
        function = function.value if hasattr(function, "attr") else function.func
    root = namespace.get(getattr(function, "id", ""))
    module = getattr(root, "__module__", None) or getattr(root, "__name__", None)
    module = "random" if type(getattr(root, "__self__", None)).__name__ == "Random" else module
    last = last or getattr(root, "__name__", "")
    if module not in CLOCKS:
        return False
    if module == "time" and last in UNTIMED:
        given = [part for part in call.args if getattr(part, "value", part) is not None]
        return len(given) <= UNTIMED[last]
    allowed = CLOCKS[module]
    return allowed is None or last in allowed
