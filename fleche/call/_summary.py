"""Summaries: what a person sees of a value that is not in the record itself.

A summary is made from a table of types, in bounded time, and never by the ``repr`` of a class that
is not in the table: that may be long, slow, or have effects. Scalars of numerical libraries are
summarised by the plain number that they equal, so that tables show, sort and search them as
numbers; everything else by a short text. The identity of a value is its digest alone.
"""

from __future__ import annotations

import enum
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, NamedTuple, TypeAlias

from fleche._amounts import count
from fleche.call._record import LONG_NUMBER, Scalar, as_literal, as_plain, legible_text

__all__ = ["Summary", "add_summary", "summarize"]

LONGEST = 80
"""Characters of a text."""

SHOWN = 6
"""How many parts of a container are named."""

DEEPEST = 2
"""How deep containers inside containers are shown."""

_EXACT_BITS = 256  # their digits are no longer than LONGEST
_FINITE_BITS = 1023  # the digits of a huge number would take long, or be refused

_LARGE = 100_000
"""What has more parts is not counted part by part."""


class Summary(NamedTuple):
    """What stands for a value where a person looks.

    Attributes:
        shown: a number, or a text of at most :data:`LONGEST` characters.
        type: the type of the value where :attr:`shown` is its plain number, with its unit if it has
            one; "int" where it is the digits of a long number; else empty.
    """

    shown: Scalar
    type: str = ""


Maker: TypeAlias = Callable[[Any], "Summary | Scalar"]

_own: dict[type, Maker] = {}


def add_summary(kind: type, maker: Maker) -> None:
    """Summarise instances of a class, and of its subclasses, by what ``maker`` returns for them.

    A class of one's own says the same with a method ``__fleche_summary__``.

    Args:
        kind: the class.
        maker: returns a number, a short text, or a :class:`Summary`. It should be quick.
    """
    _own[kind] = maker


def summarize(value: Any) -> Summary:
    """Return the summary of a value; it never fails, and takes a bounded time.

    Args:
        value: any object. It is looked at, not changed.
    """
    try:
        return _cut(_summary_of(value, 0))
    except Exception:  # noqa: BLE001 (of whatever class the value has; a summary is a courtesy)
        return Summary(type(value).__name__)


def _cut(summary: Summary) -> Summary:
    shown, kind = summary
    if isinstance(shown, str):
        line = " ".join(shown[: 4 * LONGEST].split()) or shown[:LONGEST]
        line = legible_text(line)
        shown = line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
    return Summary(shown, kind)


def _summary_of(value: Any, depth: int) -> Summary:
    maker = _maker_of(type(value))
    if maker is not None:
        found = maker(value)
        return found if isinstance(found, Summary) else Summary(_as_scalar(found))
    if number := _number_of(value):
        return number
    return Summary(_text_of(value, depth))


def _maker_of(kind: type) -> Maker | None:
    for base in kind.__mro__:
        if base in _own:
            return _own[base]
        if "__fleche_summary__" in vars(base):
            maker: Maker = vars(base)["__fleche_summary__"]
            return maker
    return None


def _as_scalar(found: Any) -> Scalar:
    plain = as_plain(found)
    literal = as_literal(plain)
    return literal if isinstance(literal, bool | int | float | str) else str(plain)


# -- numbers ---------------------------------------------------------------------------------------


def _number_of(value: Any) -> Summary | None:
    """Return the plain number of a scalar of any library, or ``None`` if it is no scalar."""
    if isinstance(value, enum.Enum):
        return None
    plain = as_plain(value)
    if type(plain) in (bool, int, float) and isinstance(as_literal(plain), bool | int | float):
        return Summary(plain, type(value).__name__)
    if type(plain) is int and plain.bit_length() <= _FINITE_BITS:
        is_short = plain.bit_length() <= _EXACT_BITS
        return Summary(str(plain) if is_short else float(plain), LONG_NUMBER)
    # where there is a fraction, its module has been imported
    fraction = getattr(sys.modules.get("fractions"), "Fraction", ())
    if isinstance(value, (Decimal, fraction) if fraction else Decimal):
        number = float(value)
        return Summary(number, type(value).__name__) if math.isfinite(number) else None
    home = _home_of(value)
    if home in ("numpy", "torch", "jax", "jaxlib") and getattr(value, "shape", None) == ():
        return _of_item(value, str(getattr(value, "dtype", "")).rpartition(".")[2])
    if home == "pint" and type(value).__name__.endswith("Quantity"):
        return _of_item(value.magnitude, str(value.units))
    if home == "astropy" and hasattr(value, "unit") and getattr(value, "shape", None) == ():
        return _of_item(value.value, str(value.unit))
    return None


def _of_item(value: Any, kind: str) -> Summary | None:
    item = value.item() if hasattr(value, "item") else value
    plain = as_plain(item)
    return Summary(plain, kind) if type(plain) in (bool, int, float) else None


# -- texts -----------------------------------------------------------------------------------------


def _text_of(value: Any, depth: int) -> str:
    for kinds, maker in _BUILTIN:
        if isinstance(value, kinds):
            return maker(value, depth)
    home = _home_of(value)
    for base in type(value).__mro__:
        if found := _LIBRARIES.get(f"{base.__module__.partition('.')[0]}.{base.__name__}"):
            return found(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _of_fields(value, depth)
    if home in _ARRAYS and isinstance(getattr(value, "shape", None), tuple):
        return _of_array(value)
    return type(value).__name__


def _of_bytes(value: bytes | bytearray | memoryview, _: int) -> str:
    size = value.nbytes if isinstance(value, memoryview) else len(value)
    return f"{type(value).__name__}, {count(size, 'byte', commas=False)}"


def _of_mapping(value: Mapping[Any, Any], depth: int) -> str:
    return _of_parts(value, (_inner(key, DEEPEST) for key in islice(value, SHOWN)), depth)


def _of_items(value: Any, depth: int) -> str:
    return _of_parts(value, (_inner(item, depth + 1) for item in islice(value, SHOWN)), depth)


def _of_parts(value: Sized, parts: Iterable[str], depth: int) -> str:
    head = f"{type(value).__name__}({len(value)})"
    if depth >= DEEPEST or not len(value):
        return head
    more = ", …" if len(value) > SHOWN else ""
    return f"{head}: {', '.join(parts)}{more}"


def _inner(value: Any, depth: int) -> str:
    """Return a part of a container, in a few characters."""
    if isinstance(value, str):
        return value if len(value) <= 20 else value[:19] + "…"
    if value is None or isinstance(value, bool | float):
        return repr(value)
    summary = _summary_of(value, depth)
    text = f"{summary.shown}"
    return text if len(text) <= 30 else text[:29] + "…"


def _of_fields(value: Any, depth: int) -> str:
    if depth >= DEEPEST:
        return type(value).__name__
    named = (
        f"{each.name}={_inner(vars_of(value, each.name), depth + 1)}" for each in fields(value)
    )
    return f"{type(value).__name__}({', '.join(islice(named, SHOWN))})"


def _of_exception(value: BaseException, depth: int) -> str:
    """Return the class and what it was raised with, if that is nothing but texts and numbers."""
    if hasattr(type(value), "__dataclass_fields__"):
        return _of_fields(value, depth)
    name = type(value).__name__
    if depth:
        return name
    found = vars(BaseException)["args"].__get__(value)[:SHOWN]  # no property of the class
    if not found or any(type(each) not in _SAID for each in found):
        return name
    return f"{name}: {', '.join(str(each)[: 4 * LONGEST] for each in found)}"


_SAID = (str, int, float, bool)


def vars_of(value: Any, name: str) -> Any:
    """Return an attribute without running a property of the class."""
    held = getattr(value, "__dict__", {})
    return held[name] if name in held else getattr(value, name)


_BUILTIN: tuple[tuple[Any, Callable[[Any, int], str]], ...] = (
    (enum.Enum, lambda value, _: f"{type(value).__name__}.{value.name}"),
    (str, lambda value, _: value[: 4 * LONGEST]),
    (int, lambda value, _: f"int, {value.bit_length()} bits"),
    ((bytes, bytearray, memoryview), _of_bytes),
    (complex, lambda value, _: repr(complex(value))),
    ((datetime, date, time), lambda value, _: value.isoformat()),
    (timedelta, lambda value, _: str(value)),
    (PurePath, lambda value, _: str(value)),
    (dict, _of_mapping),
    ((list, tuple, set, frozenset), _of_items),
    (BaseException, _of_exception),
    (type, lambda value, _: f"class {value.__qualname__}"),
    (
        (FunctionType, BuiltinFunctionType, MethodType),
        lambda value, _: f"function {value.__qualname__}",
    ),
)


# -- libraries -------------------------------------------------------------------------------------


def _home_of(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _of_array(value: Any) -> str:
    kind = str(getattr(value, "dtype", type(value).__name__)).rpartition(".")[2]
    shape = ", ".join(map(str, value.shape))
    return f"{kind if len(kind) <= 30 else 'structured'}[{shape}]"


def _of_sparse(value: Any) -> str:
    return f"{type(value).__name__} {_of_array(value)}, {value.nnz} stored"


def _of_unit_array(value: Any) -> str:
    unit = getattr(value, "units", getattr(value, "unit", ""))
    return f"{_of_array(getattr(value, 'magnitude', value))} {unit}".strip()


def _of_frame(value: Any) -> str:
    rows, columns = value.shape
    return f"{type(value).__name__} {rows} \N{MULTIPLICATION SIGN} {columns}"


def _of_series(value: Any) -> str:
    name = f" {value.name}" if isinstance(getattr(value, "name", None), str) else ""
    return f"{type(value).__name__}{name} {value.dtype}[{len(value)}]"


def _of_dimensions(value: Any) -> str:
    sizes = ", ".join(f"{name}: {size}" for name, size in islice(value.sizes.items(), SHOWN))
    return f"{type(value).__name__} {sizes}"


def _of_atoms(value: Any) -> str:
    formula = value.get_chemical_formula() if len(value) <= _LARGE else f"{len(value)} atoms"
    return f"Atoms {formula}"


def _of_graph(value: Any) -> str:
    edges = value.number_of_edges() if value.number_of_nodes() <= _LARGE else "many"
    return f"{type(value).__name__} {value.number_of_nodes()} nodes, {edges} edges"


_ARRAYS = ("numpy", "torch", "jax", "jaxlib", "cupy", "scipy", "tensorflow")
_LIBRARIES: dict[str, Callable[[Any], str]] = {
    "numpy.ndarray": _of_array,
    "numpy.generic": lambda value: f"{value.dtype} {value.item()}"[:LONGEST],
    "torch.Tensor": _of_array,
    "scipy.sparray": _of_sparse,
    "scipy.spmatrix": _of_sparse,
    "pandas.DataFrame": _of_frame,
    "pandas.Series": _of_series,
    "pandas.Index": _of_series,
    "polars.DataFrame": _of_frame,
    "polars.Series": _of_series,
    "pyarrow.Table": _of_frame,
    "xarray.Dataset": _of_dimensions,
    "xarray.DataArray": _of_dimensions,
    "astropy.Quantity": _of_unit_array,
    "pint.Quantity": _of_unit_array,
    "ase.Atoms": _of_atoms,
    "networkx.Graph": _of_graph,
    "rdkit.Mol": lambda value: f"Mol {value.GetNumAtoms()} atoms",
}
"""Makers by package and class name; base classes count too, and no library is imported."""
