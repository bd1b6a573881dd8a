"""What a stream may name that is opened without trust: data, and nothing that runs a user's code.

A pickle stream calls what it names. Of the names here, each makes a number, a text, a container, an
array or a table from plain parts, and does nothing else, whatever it is given. A name with a dot,
which would reach inside an object, is none of them.
"""

from __future__ import annotations

__all__ = ["is_plain_name"]

_BUILTINS = frozenset({"bytearray", "complex", "frozenset", "range", "set", "slice"})
_NUMPY = frozenset(
    {
        "MaskedArray",
        "_frombuffer",
        "_mareconstruct",
        "_reconstruct",
        "dtype",
        "ndarray",
        "scalar",
    }
)
_DTYPES = frozenset(
    f"{sign}Int{size}Dtype" for sign in ("", "U") for size in (8, 16, 32, 64)
) | frozenset({"BooleanDtype", "CategoricalDtype", "Float32Dtype", "Float64Dtype", "StringDtype"})
_PANDAS = _DTYPES | frozenset(
    {
        "ArrowStringArray",
        "BlockManager",
        "BooleanArray",
        "Categorical",
        "CategoricalIndex",
        "DataFrame",
        "DatetimeArray",
        "DatetimeIndex",
        "Day",
        "FloatingArray",
        "Index",
        "IntegerArray",
        "MultiIndex",
        "RangeIndex",
        "Series",
        "SingleBlockManager",
        "StringArray",
        "TimedeltaArray",
        "TimedeltaIndex",
        "__pyx_unpickle_NDArrayBacked",
        "_new_DatetimeIndex",
        "_new_Index",
        "_unpickle_block",
        "_unpickle_timestamp",
    }
)

_NAMES: dict[str, frozenset[str]] = {
    "builtins": _BUILTINS,
    "collections": frozenset({"OrderedDict", "deque"}),
    "datetime": frozenset({"date", "datetime", "time", "timedelta", "timezone"}),
    "decimal": frozenset({"Decimal"}),
    "fleche.parcel": frozenset({"laid_out", "masked_array", "memory_view"}),
    "fractions": frozenset({"Fraction"}),
    "pyarrow.lib": frozenset({"_restore_array", "py_buffer", "type_for_alias"}),
    "uuid": frozenset({"UUID"}),
}
_FAMILIES: dict[str, frozenset[str]] = {"numpy": _NUMPY, "pandas": _PANDAS}
"""By package: which of its modules has a name differs between versions."""


def is_plain_name(module: str, name: str) -> bool:
    """Return whether a stream that names this may be opened without trust."""
    if name in _NAMES.get(module, ()):
        return True
    return name in _FAMILIES.get(module.partition(".")[0], ())
