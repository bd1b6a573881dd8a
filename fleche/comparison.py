"""In what two stored calls differ: arguments, code, packages, result."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

import msgspec

from fleche.call import CallRecord, LazyCall, ValueRef, as_literal, as_plain, summarize
from fleche.digest import digest
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
    same: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.differing or self.code)


def compare_calls(first: LazyCall, second: LazyCall, *, values: bool = False) -> CallComparison:
    """Return in what two stored calls differ.

    When, where and for whom they ran is no difference.

    Args:
        first: one call.
        second: the other.
        values: load what differs, and say where and how much: the largest difference of numbers and
            arrays, in containers, data classes and data frames, too.
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
        if values and left and right and not (left.is_literal and right.is_literal):
            remark = _difference(first, second, kind, name) or remark
        found.append(Differing(kind, name, left, right, remark))
    found += _environment(one, other)
    codes = (one.code, other.code)
    changes = (
        changes_of_stored(first.dependencies, second.dependencies, codes)
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
    if before == after:
        kinds = f"{type(before).__name__} and {type(after).__name__}"
        return kinds if type(before) is not type(after) else "the sign of the zero"
    try:
        change = float(after - before)
        relative = f" ({100 * change / abs(before):+.3g} %)" if before else ""
    except OverflowError:
        return ""
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
    places = _places(before, after, "", ())
    shown = [f"{path}: {text}" if path else text for path, text in islice(places, SHOWN)]
    if more := sum(1 for _ in places):
        shown.append(f"{more:,} more")
    return "; ".join(shown) or "equal, but for their form in memory"


# -- where two values differ -----------------------------------------------------------------------

SHOWN = 3
"""So many places in which two values differ are named; others are counted."""

DEEPEST = 50
"""How deep containers inside containers are compared."""

_ABSENT: Final = object()
_Pair: TypeAlias = "tuple[str, Any, Any]"


def _places(
    before: Any, after: Any, path: str, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, str]]:
    """Yield where in two values something differs, as in ``['mesh'][0]``, and how.

    Args:
        before: a part of the one.
        after: the same part of the other.
        path: where that is.
        above: the containers around it, which are not entered again.
    """
    both = (id(before), id(after))
    if before is after or both in above:
        return
    if before is _ABSENT or after is _ABSENT:
        yield path, f"is in the {'second' if before is _ABSENT else 'first'} alone"
        return
    pairs = _pairs(before, after) if len(above) < DEEPEST else None
    if pairs is None:
        if text := _of_wholes(before, after):
            yield path, text
        return
    found = False
    for name, left, right in pairs:
        for place in _places(left, right, path + name, (*above, both)):
            found = True
            yield place
    if not found and isinstance(before, dict) and list(before) != list(after):
        yield path, "in another order"


def _pairs(before: Any, after: Any) -> Iterator[_Pair] | None:
    """Return where the parts of two containers of one kind are, and the parts of both.

    ``None``: they are compared as wholes.
    """
    if type(before) is not type(after):
        return None
    if isinstance(before, dict):
        return (
            (f"[{_brief(key)}]", before.get(key, _ABSENT), after.get(key, _ABSENT))
            for key in {**before, **after}
        )
    if isinstance(before, list | tuple) and len(before) == len(after):
        pairs = zip(before, after, strict=True)
        return ((f"[{index}]", *pair) for index, pair in enumerate(pairs))
    if is_dataclass(before) and not isinstance(before, type):
        names = [each.name for each in fields(before)]
        return (
            (f".{name}", getattr(before, name, _ABSENT), getattr(after, name, _ABSENT))
            for name in names
        )
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(before, pandas.DataFrame) or len(before) != len(after):
        return None
    is_plain = before.columns.is_unique and after.columns.is_unique
    return _columns(before, after) if is_plain else None


def _columns(before: Any, after: Any) -> Iterator[_Pair]:
    yield ".index", before.index, after.index
    for name in dict.fromkeys((*before.columns, *after.columns)):
        left, right = (each[name] if name in each.columns else _ABSENT for each in (before, after))
        yield f"[{_brief(name)}]", left, right


def _of_wholes(before: Any, after: Any) -> str:
    """Return how two values differ that are not taken apart; empty: they do not."""
    if _is_same(before, after):
        return ""
    if text := _of_numbers(as_plain(before), as_plain(after)):
        return text
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    arrays: list[Any] = [before, after]
    if pandas is not None and all(isinstance(e, pandas.Series | pandas.Index) for e in arrays):
        if before.dtype != after.dtype:
            return f"{before.dtype} and {after.dtype}"
        arrays = [each.to_numpy() for each in arrays]
    if numpy is not None and all(isinstance(each, numpy.ndarray) for each in arrays):
        with suppress(Exception):  # of arrays of other packages, which refuse this or that
            return _of_arrays(*arrays)
    is_sequence = type(before) is type(after) and isinstance(before, list | tuple | str | bytes)
    if is_sequence and len(before) != len(after):
        return f"lengths {len(before):,} and {len(after):,}"
    shown = _brief(before), _brief(after)
    if shown[0] == shown[1] and is_sequence and isinstance(before, str | bytes):
        pairs = enumerate(zip(before, after, strict=True))
        place = next(index for index, (left, right) in pairs if left != right)
        parts = (reprlib.repr(each[place : place + 20]) for each in (before, after))
        return f"from place {place:,} on: {' and '.join(parts)}"
    if shown[0] == shown[1]:
        return f"not compared ({type(before).__qualname__})"
    return " and ".join(shown)


def _is_same(before: Any, after: Any) -> bool:
    if type(before) is not type(after):
        return False
    if type(before) in _SIMPLE and before == after and before:  # a zero has a sign
        return True
    try:
        return digest(before) == digest(after)
    except Exception:  # noqa: BLE001 (of any class; what has no digest is not known to be equal)
        return False


_SIMPLE = (bool, int, float, str, bytes)


def _brief(value: Any) -> str:
    literal = as_literal(value)
    return str(summarize(value).shown) if literal is msgspec.UNSET else reprlib.repr(literal)


def _of_arrays(before: Any, after: Any) -> str:
    numpy = sys.modules["numpy"]
    if before.shape != after.shape:
        return f"shapes {before.shape} and {after.shape}"
    units = [getattr(each, "unit", None) for each in (before, after)]
    kinds = [type(each).__qualname__ for each in (before, after)]
    for left, right in ((before.dtype, after.dtype), kinds, units):
        if left != right:
            return f"{left} and {right}"
    if isinstance(before, numpy.ma.MaskedArray):
        masks = [numpy.ma.getmaskarray(each) for each in (before, after)]
        if number := int((masks[0] != masks[1]).sum()):
            return f"{number:,} of {before.size:,} elements are masked in one of them alone"
        before, after = (each.filled(before.fill_value) for each in (before, after))
    before, after = map(numpy.asarray, (before, after))
    if before.dtype.hasobject:
        pairs = zip(before.flat, after.flat, strict=True)
        number = sum(not _is_same(*pair) for pair in pairs)
        return f"{number:,} of {before.size:,} elements differ" if number else ""
    unequal = before != after
    if before.dtype.kind in "fcMm":  # what is no number, or no time, is equal to itself here
        unequal &= ~((before != before) & (after != after))
    number = int(unequal.sum())
    if not number:
        is_float = before.dtype.kind in "fc" and before.tobytes() != after.tobytes()
        return "equal, but for the sign of a zero or the bits of a nan" if is_float else ""
    unit = f" {units[0]}" if units[0] is not None else ""
    most = _largest(before[unequal], after[unequal])
    return f"{number:,} of {before.size:,} elements differ{most and f', by {most}{unit} at most'}"


def _largest(before: Any, after: Any) -> str:
    """Return the largest difference of numbers in two arrays; empty: there is none."""
    numpy, kind = sys.modules["numpy"], before.dtype.kind
    if kind in "iu":  # exactly
        wide = [found(before, after).astype(f"{kind}8") for found in (numpy.maximum, numpy.minimum)]
        return f"{int((wide[0] - wide[1]).astype('u8').max()):,}"
    if kind not in "fc":
        return ""
    with numpy.errstate(invalid="ignore", over="ignore"):
        left, right = (each.astype("c16" if kind == "c" else "f8") for each in (before, after))
        found = abs(right - left)
    found = found[~numpy.isnan(found)]
    return f"{found.max():.3g}" if found.size else ""
