"""Handlers for pandas, which is never imported here: a frame that arrives proves that it is loaded.

Frames are seen column by column, so how pandas groups columns into blocks does not matter. Columns,
indexes and arrays are reduced to numpy arrays and plain values through the public interface.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fleche.digest._builtin import Attributes
from fleche.digest._instances import attributes_of, key_of_zone
from fleche.digest._objects import choose_reduce
from fleche.digest._registry import Node, is_genuine, module_of, node, package_of

if TYPE_CHECKING:
    from fleche.digest._walk import Walk

__all__ = [
    "attributes_beyond",
    "attributes_of_scalar",
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


ACCESSORS = ("Accessor", "CachedAccessor")
INTERNAL = frozenset(
    [
        *("_attrs", "_cache", "_codes", "_data", "_freq", "_id", "_levels", "_name", "_names"),
        *("_no_setting_name", "_range", "_references", "_typ", "sortorder"),
    ]
)
"""What pandas keeps in an index for its own use, and in a frame beside what it lists itself."""
WORKED_OUT = ("_cache", "_microseconds", "_seconds")
"""What pandas notes in a scalar that was asked for it."""


def is_own(cls: type) -> bool:
    """Whether a class comes with pandas."""
    return package_of(cls) == "pandas"


def class_of(obj: Any) -> Any:
    """Name a class of pandas, wherever it lives in this version; return a foreign class itself."""
    return type(obj).__name__ if is_own(type(obj)) else type(obj)


def attributes_beyond(obj: Any) -> dict[str, Any]:
    """Return what a program has hung on a frame or an index, or a subclass keeps there.

    What patsy hangs there is left out, as pickle does: how the columns were made from a formula, by
    which statsmodels makes it again. It cannot be pickled.
    """
    internal = getattr(sys.modules["pandas"].DataFrame, "_internal_names", ())
    return {
        name: value
        for name, value in attributes_of(obj).items()
        if name not in INTERNAL and name not in internal and not is_accessor(type(obj), name)
        if type(value).__name__ != "DesignInfo" or package_of(type(value)) != "patsy"
    }


def is_accessor(cls: type, name: str) -> bool:
    """Whether pandas keeps under this name what it has made on demand, such as ``series.str``."""
    kinds = (type(vars(base).get(name)) for base in cls.__mro__)
    return any(is_own(kind) and kind.__name__ in ACCESSORS for kind in kinds)


def extras_of(obj: Any) -> Attributes:
    """Return what a frame has beside its data: flags, attrs and a subclass's own state."""
    extras = attributes_beyond(obj)
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
    attributes = attributes_beyond(obj)
    beyond = (Attributes(attributes),) if attributes else ()
    if hasattr(obj, "levels"):
        used = obj.remove_unused_levels()  # as unstacking does
        codes = [code.astype("i8") for code in used.codes]
        return node(b"MultiIndex", (kind, names, *used.levels, *codes, *beyond))
    if kind == "RangeIndex":
        return node(b"RangeIndex", (names, obj.start, obj.stop, obj.step, *beyond))
    freq = frequency_of(getattr(obj, "freq", None))
    return node(b"Index", (kind, names, freq, obj.array, *beyond))


def frequency_of(freq: Any) -> Any:
    """Return the code of a frequency if that says all, else the frequency: it may have holidays."""
    if freq is None:
        return None
    try:
        spelled = sys.modules["pandas"].tseries.frequencies.to_offset(freq.freqstr)
    except ValueError:
        return freq
    return freq.freqstr if spelled == freq else freq


def zone_of(zone: Any) -> Any:
    """Return the name of a time zone if that says all, else the zone: two may be called "LAB"."""
    kind = type(zone)
    if (module_of(kind), kind.__qualname__) == ("zoneinfo", "ZoneInfo") and is_genuine(kind):
        return key_of_zone(zone)
    is_offset = kind is dt.timezone and len(zone.__getinitargs__()) == 1
    is_public = package_of(kind) == "pytz" and getattr(zone, "zone", None) is not None
    return str(zone) if is_offset or is_public else zone


def describe_extension_array(obj: Any, walk: Walk) -> Any:
    if not is_own(type(obj)):
        return choose_reduce(type(obj))(obj, walk)
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
    return node(b"pandas times", (obj.dtype.unit, zone_of(obj.tz), obj.asi8))


def describe_periods(obj: Any) -> Node:
    return node(b"pandas periods", (str(obj.dtype), obj.asi8))


def describe_categorical(obj: Any) -> Node:
    return node(b"pandas categorical", (obj.codes, obj.categories, bool(obj.ordered)))


def describe_intervals(obj: Any) -> Node:
    return node(b"pandas intervals", (obj.left, obj.right, obj.closed))


def describe_sparse(obj: Any) -> Node:
    """Describe a sparse array by what it stores, be that the fill value, and by how."""
    places = obj.sp_index.to_int_index().indices
    parts = (obj.kind, len(obj), places, obj.sp_values, obj.fill_value)
    return node(b"pandas sparse", parts)


def describe_nullable(obj: Any) -> Node:
    """Describe a nullable array by its values, zero where there are none, and by where that is."""
    values = obj.to_numpy(dtype=obj.dtype.numpy_dtype, na_value=0)
    return node(b"pandas nullable", (str(obj.dtype), values, obj.isna()))


def describe_strings(obj: Any) -> Node:
    """Describe an array of strings by how it is stored, what stands for none, and the strings."""
    dtype = obj.dtype
    head = (str(dtype), getattr(dtype, "storage", None), getattr(dtype, "na_value", None))
    if not type(obj).__name__.startswith("Arrow"):
        return node(b"pandas strings", (*head, obj.to_numpy(dtype=object)))
    return node(b"pandas arrow strings", (*head, *parts_of_arrow(obj.__arrow_array__())))


def parts_of_arrow(strings: Any) -> tuple[Any, ...]:
    """Return lengths, bytes and gaps of strings of pyarrow, however they lie in chunks."""
    numpy, pyarrow = sys.modules["numpy"], sys.modules["pyarrow"]
    gaps = strings.is_null().to_numpy(zero_copy_only=False) if strings.null_count else None
    whole = strings.cast(pyarrow.large_string()).fill_null("")
    if hasattr(whole, "combine_chunks"):
        whole = whole.combine_chunks()
        whole = whole if hasattr(whole, "buffers") else pyarrow.concat_arrays(whole.chunks)
    _, ends, texts = whole.buffers()
    if len(whole) == 0 or ends is None:
        return (numpy.zeros(0, "<i8"), numpy.zeros(0, "u1"), gaps)
    offsets = numpy.frombuffer(ends, "<i8")[whole.offset : whole.offset + len(whole) + 1]
    content = numpy.frombuffer(texts or b"", "u1")[offsets[0] : offsets[-1]]
    return (numpy.diff(offsets), content, gaps)


def describe_elementwise(obj: Any) -> Node:
    return node(b"pandas elements", (obj.dtype, obj.to_numpy(dtype=object)))


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
    "StringArray": describe_strings,
    "StringArrayNumpySemantics": describe_strings,
    "ArrowStringArray": describe_strings,
    "ArrowStringArrayNumpySemantics": describe_strings,
}


def describe_timestamp(obj: Any, _walk: Walk) -> Node:
    return describe_scalar(b"Timestamp", obj, obj.asm8, zone_of(obj.tz), obj.fold)


def describe_timedelta(obj: Any, _walk: Walk) -> Node:
    return describe_scalar(b"Timedelta", obj, obj.asm8)


def describe_period(obj: Any, _walk: Walk) -> Node:
    return describe_scalar(b"Period", obj, obj.ordinal, obj.freqstr)


def describe_interval(obj: Any, _walk: Walk) -> Node:
    return describe_scalar(b"Interval", obj, obj.left, obj.right, obj.closed)


def describe_scalar(label: bytes, obj: Any, *parts: Any) -> Node:
    """Describe a scalar by its parts, its class if that is a foreign one, and what hangs on it."""
    held = attributes_of_scalar(obj)
    foreign = () if is_own(type(obj)) else (type(obj),)
    return node(label, (*parts, *foreign, *((Attributes(held),) if held else ())))


def attributes_of_scalar(obj: Any) -> dict[str, Any]:
    """Return what a program has hung on a scalar, without what pandas has worked out there."""
    base = next(base for base in type(obj).__mro__ if is_own(base))
    held = attributes_of(obj, beyond=base)
    return {name: value for name, value in held.items() if name not in WORKED_OUT}


def describe_missing(obj: Any, _walk: Walk) -> Node:
    return node(b"missing", (type(obj).__name__,))


def describe_categorical_dtype(obj: Any, _walk: Walk) -> Node:
    return node(b"CategoricalDtype", (obj.categories, obj.ordered))
