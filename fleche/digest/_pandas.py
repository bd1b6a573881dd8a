"""Handlers for pandas, which is never imported here: a frame that arrives proves that it is loaded.

Frames are seen column by column, so how pandas groups columns into blocks does not matter. Columns,
indexes and arrays are reduced to numpy arrays and plain values through the public interface.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._builtin import Attributes
from ._objects import describe_reduced
from ._registry import Node, node

if TYPE_CHECKING:
    from ._walk import Walk

__all__ = [
    "describe_categorical_dtype",
    "describe_extension_array",
    "describe_frame",
    "describe_index",
    "describe_interval",
    "describe_missing",
    "describe_period",
    "describe_series",
    "describe_timedelta",
    "describe_timestamp",
]


def is_own(cls: type) -> bool:
    """Whether a class comes with pandas."""
    return cls.__module__.partition(".")[0] == "pandas"


def class_of(obj: Any) -> Any:
    """Name a class of pandas, wherever it lives in this version; return a foreign class itself."""
    return type(obj).__name__ if is_own(type(obj)) else type(obj)


def extras_of(obj: Any) -> Attributes:
    """Return what a frame has beside its data: flags, attrs and a subclass's own state."""
    extras = {
        name: value
        for name, value in vars(obj).items()
        if not name.startswith("_") and not hasattr(type(obj), name)  # such as a cached accessor
    }
    if not is_own(type(obj)):
        extras.update({name: getattr(obj, name, None) for name in getattr(obj, "_metadata", ())})
    extras["unique labels"] = not obj.flags.allows_duplicate_labels
    extras["attrs"] = obj.attrs
    return Attributes(extras)


def describe_frame(obj: Any, _walk: Walk) -> Node:
    columns = [obj.iloc[:, position].array for position in range(obj.shape[1])]

    def step(_: Any, index: int) -> str:
        if index > 3:
            return f"[{obj.columns[index - 4]!r}]"
        return ("", ".index", ".columns", "")[index]

    return node(
        b"DataFrame", (class_of(obj), obj.index, obj.columns, extras_of(obj), *columns), step=step
    )


def describe_series(obj: Any, _walk: Walk) -> Node:
    return node(
        b"Series",
        (class_of(obj), obj.index, obj.name, extras_of(obj), obj.array),
        step=lambda _, index: ("", ".index", ".name", "", "")[index],
    )


def describe_index(obj: Any, _walk: Walk) -> Node:
    kind = class_of(obj)
    names = tuple(obj.names)
    if hasattr(obj, "levels"):
        levels = [obj.get_level_values(level) for level in range(obj.nlevels)]
        return node(b"MultiIndex", (kind, names, *levels))
    if kind == "RangeIndex":
        return node(b"RangeIndex", (names, obj.start, obj.stop, obj.step))
    freq = getattr(obj, "freq", None)
    return node(b"Index", (kind, names, None if freq is None else freq.freqstr, obj.array))


def describe_extension_array(obj: Any, walk: Walk) -> Any:
    if not is_own(type(obj)):
        return describe_reduced(obj, walk)
    describe = ARRAYS.get(type(obj).__name__)
    if describe is not None:
        return describe(obj)
    return describe_elementwise(obj)


def describe_numpy_array(obj: Any) -> Node:
    return node(b"pandas array", (obj.to_numpy(),))


def describe_times(obj: Any) -> Node:
    """Describe points in time: a numpy array, in UTC and beside the zone if there is one."""
    if getattr(obj, "tz", None) is None:
        return describe_numpy_array(obj)
    return node(b"pandas times", (obj.dtype.unit, str(obj.tz), obj.asi8))


def describe_periods(obj: Any) -> Node:
    return node(b"pandas periods", (str(obj.dtype), obj.asi8))


def describe_categorical(obj: Any) -> Node:
    return node(b"pandas categorical", (obj.codes, obj.categories, bool(obj.ordered)))


def describe_intervals(obj: Any) -> Node:
    return node(b"pandas intervals", (obj.left, obj.right, obj.closed))


def describe_sparse(obj: Any) -> Node:
    return node(b"pandas sparse", (obj.to_dense(), obj.fill_value))


def describe_nullable(obj: Any) -> Node:
    """Describe a nullable array by its values, zero where there are none, and by where that is."""
    values = obj.to_numpy(dtype=obj.dtype.numpy_dtype, na_value=0)
    return node(b"pandas nullable", (str(obj.dtype), values, obj.isna()))


def describe_elementwise(obj: Any) -> Node:
    return node(b"pandas elements", (str(obj.dtype), obj.to_numpy(dtype=object)))


ARRAYS: dict[str, Callable[[Any], Node]] = {
    "NumpyExtensionArray": describe_numpy_array,
    "PandasArray": describe_numpy_array,
    "DatetimeArray": describe_times,
    "TimedeltaArray": describe_numpy_array,
    "PeriodArray": describe_periods,
    "Categorical": describe_categorical,
    "IntervalArray": describe_intervals,
    "SparseArray": describe_sparse,
    "IntegerArray": describe_nullable,
    "FloatingArray": describe_nullable,
    "BooleanArray": describe_nullable,
}


def describe_timestamp(obj: Any, _walk: Walk) -> Node:
    zone = None if obj.tz is None else str(obj.tz)
    return node(b"Timestamp", (obj.asm8, zone, obj.fold))


def describe_timedelta(obj: Any, _walk: Walk) -> Node:
    return node(b"Timedelta", (obj.asm8,))


def describe_missing(obj: Any, _walk: Walk) -> Node:
    return node(b"missing", (type(obj).__name__,))


def describe_period(obj: Any, _walk: Walk) -> Node:
    return node(b"Period", (obj.ordinal, obj.freqstr))


def describe_interval(obj: Any, _walk: Walk) -> Node:
    return node(b"Interval", (obj.left, obj.right, obj.closed))


def describe_categorical_dtype(obj: Any, _walk: Walk) -> Node:
    return node(b"CategoricalDtype", (obj.categories, obj.ordered))
