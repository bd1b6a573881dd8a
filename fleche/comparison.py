"""In what two stored calls differ: arguments, code, packages, result."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fleche.call import CallRecord, LazyCall, ValueRef
from fleche.errors import ParcelError
from fleche.function import Change, changes_of_stored

__all__ = ["CallComparison", "Differing", "compare_calls"]


@dataclass(frozen=True)
class Differing:
    """One thing in which two calls differ.

    Attributes:
        kind: ``"function"``, ``"argument"``, ``"package"``, ``"environment"``, ``"result"`` or
            ``"state"``.
        name: of the argument, the package, ...
        first: what the first call has: a :class:`~fleche.call.ValueRef` of a value, else plain
            data; ``None``: nothing.
        second: likewise the second.
        remark: what is known of the difference, such as its size.
    """

    kind: str
    name: str
    first: Any
    second: Any
    remark: str = ""


@dataclass(frozen=True)
class CallComparison:
    """In what two calls differ; true if they do.

    Attributes:
        differing: everything but the code, in the order of the kinds.
        code: what has changed of the code, with the sources where they are known on this machine.
        same: what is equal: names of arguments, and ``"result"``.
    """

    differing: tuple[Differing, ...] = ()
    code: tuple[Change, ...] = ()
    same: tuple[str, ...] = field(default=())

    def __bool__(self) -> bool:
        return bool(self.differing or self.code)


def compare_calls(first: LazyCall, second: LazyCall, *, values: bool = False) -> CallComparison:
    """Return in what two stored calls differ.

    When, where and for whom they ran is no difference.

    Args:
        first: one call.
        second: the other.
        values: load what differs, and say how much: the largest difference of numbers and arrays.
    """
    one, other = first.record, second.record
    found = [*_parts(one, other)]
    same: list[str] = []
    pairs: list[tuple[str, str, ValueRef | None, ValueRef | None]] = [
        ("argument", name, one.arguments.get(name), other.arguments.get(name))
        for name in dict.fromkeys((*one.arguments, *other.arguments))
    ]
    results = [("result", "result", one.result or one.error, other.result or other.error)]
    for kind, name, left, right in (*pairs, *results):
        if left is not None and right is not None and left.digest == right.digest:
            same.append(name)
            continue
        remark = _remark(left, right)
        if values and left is not None and right is not None:
            remark = _difference(first, second, kind, name) or remark
        found.append(Differing(kind, name, left, right, remark))
    found += _environment(one, other)
    codes = (one.code, other.code)
    changes = (
        changes_of_stored(one.dependencies, other.dependencies, codes)
        if one.name == other.name and one.code != other.code
        else []
    )
    order = {kind: place for place, kind in enumerate(_KINDS)}
    found.sort(key=lambda each: order[each.kind])
    return CallComparison(tuple(found), tuple(changes), tuple(same))


_KINDS = ("function", "argument", "result", "package", "environment")


def _parts(one: CallRecord, other: CallRecord) -> Iterator[Differing]:
    for part in ("name", "module", "version"):
        before, after = getattr(one, part), getattr(other, part)
        if before != after or type(before) is not type(after):
            yield Differing("function", part, before, after)


def _environment(one: CallRecord, other: CallRecord) -> Iterator[Differing]:
    before, after = (each.metadata.get("environment", {}) for each in (one, other))
    packages: list[Mapping[str, Any]] = [each.get("packages") or {} for each in (before, after)]
    for name in sorted({*packages[0], *packages[1]}):
        first, second = (each.get(name) for each in packages)
        if first != second:
            yield Differing("package", name, first, second)
    for name in ("implementation", "python", "platform"):
        if before.get(name) != after.get(name):
            yield Differing("environment", name, before.get(name), after.get(name))


def _remark(left: ValueRef | None, right: ValueRef | None) -> str:
    """Return how much two numbers differ that the records show."""
    if left is None or right is None:
        return ""
    before, after = left.shown, right.shown
    if before is msgspec.UNSET or after is msgspec.UNSET:
        return ""
    return _of_numbers(before, after)


def _of_numbers(before: Any, after: Any) -> str:
    if not (_is_number(before) and _is_number(after)):
        return ""
    if type(before) is not type(after) and before == after:
        return f"{type(before).__name__} and {type(after).__name__}"
    change = after - before
    relative = f", {change / abs(before):+.3g} of it" if before else ""
    return f"{change:+.6g}{relative}" if math.isfinite(change) else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _difference(first: LazyCall, second: LazyCall, kind: str, name: str) -> str:
    """Return how much two values differ, which are loaded for it."""
    try:
        if kind == "result":
            before, after = first.result, second.result
        else:
            before, after = first.arguments[name], second.arguments[name]
    except (KeyError, ParcelError) as error:
        return f"cannot be loaded: {error}"
    numpy = sys.modules.get("numpy")
    if numpy is None or not all(isinstance(each, numpy.ndarray) for each in (before, after)):
        return _of_numbers(before, after)
    return _of_arrays(before, after, numpy)


def _of_arrays(before: Any, after: Any, numpy: Any) -> str:
    if before.shape != after.shape:
        return f"shapes {before.shape} and {after.shape}"
    if before.dtype != after.dtype:
        return f"{before.dtype} and {after.dtype}"
    unequal = before != after
    if before.dtype.kind == "f":
        unequal &= ~(numpy.isnan(before) & numpy.isnan(after))
    number = int(unequal.sum())
    text = f"{number:,} of {before.size:,} elements differ"
    if number and before.dtype.kind in "fciu":
        kind = "c16" if before.dtype.kind == "c" else "f8"
        wide = [each[unequal].astype(kind) for each in (before, after)]
        text += f", by {abs(wide[1] - wide[0]).max():.3g} at most"
    return text if number else "equal, but for their form in memory"
