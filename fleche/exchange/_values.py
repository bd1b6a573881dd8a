"""A value as a file that other programs read: the suffix of its name says which kind."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from fleche.errors import FlecheError, MissingExtra
from fleche.parcel import File

__all__ = ["SUFFIXES", "as_json", "json_text", "write_value"]


def write_value(value: Any, path: str | os.PathLike[str]) -> None:
    """Write ``value`` to a file whose suffix says how; an existing one is replaced as a whole.

    ``.npy`` is an array, ``.csv`` and ``.parquet`` a table (a data frame, a series, an array of one
    or two axes, a list of records or a dict of columns), ``.json`` plain data (see
    :func:`as_json`), ``.txt`` text, ``.pickle`` (or ``.pkl``) anything. A
    :class:`~fleche.parcel.File` is copied, whatever the suffix.

    Args:
        value: what a call returned, or one of its arguments.
        path: the file.

    Raises:
        ValueError: the suffix is not known, or the value has no such form.
        MissingExtra: a package that the form needs is not installed.
        OSError: the file cannot be written.
    """
    target = Path(path)
    if isinstance(value, File):
        value.copy_to(target)
        return
    writer = _WRITERS.get(target.suffix.lower())
    if writer is None:
        known = ", ".join(SUFFIXES)
        raise ValueError(f"{target.name}: the suffix says how to write it; known are {known}")
    # beside the target, so that a failure leaves what was there; with its suffix, which decides
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        writer(value, temporary)
        temporary.replace(target)
    except UnicodeEncodeError as error:
        wrong = error.object[error.start]
        raise ValueError(
            f"{target.name}: the text has {wrong!a}, half of a character, which a "
            f"{target.suffix} file cannot hold; one that ends in .json or .pickle can"
        ) from None
    except (FlecheError, OSError, ValueError):
        raise
    except Exception as error:  # of pandas, pyarrow, numpy, or the value's own class
        raise ValueError(
            f"{target.name}: {_named(value)} has no form in such a file "
            f"({type(error).__name__}: {error}); one that ends in .pickle holds anything"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def as_json(value: Any) -> Any:
    """Return ``value`` as what JSON can hold: text, numbers, lists, and dicts by text.

    Arrays and scalars of numpy, data frames (as a list of records), data classes, named tuples,
    enums, sets, dates, paths, files (by their paths), decimals and bytes (as hexadecimal text) have
    a form. What is no number of JSON (``nan``) becomes text.

    Raises:
        ValueError: something inside has none; the message names its type. So does a dict of which
            two keys, or a frame of which two columns, would be one, and what contains itself.
    """
    try:
        return _as_json(value)
    except RecursionError:
        raise ValueError(
            f"{_named(value)} has no form in JSON: it contains itself, or nests too deep"
        ) from None
    except (TypeError, NotImplementedError) as error:  # of an array of another package
        raise ValueError(f"{_named(value)} has no form in JSON: {error}") from error


def _as_json(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return _as_json(value.value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        plain = value if type(value) in (int, float) else _item(value)
        return repr(plain) if isinstance(plain, float) and not math.isfinite(plain) else plain
    if isinstance(value, Mapping):
        found = {_json_key(key): _as_json(item) for key, item in value.items()}
        if len(found) < len(value):
            raise ValueError(f"{_named(value)} has no form in JSON: two of its keys are one there")
        return found
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: _as_json(item) for name, item in zip(value._fields, value, strict=True)}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, set | frozenset):
        return [_as_json(item) for item in sorted(value, key=repr)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [each.name for each in dataclasses.fields(value)]
        return {name: _as_json(getattr(value, name)) for name in names}
    return _other_as_json(value)


def _other_as_json(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, PurePath | Decimal | Fraction | UUID):
        return str(value)
    if isinstance(value, File):
        return os.fspath(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, complex):
        return [_as_json(value.real), _as_json(value.imag)]
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        if not value.columns.is_unique:
            raise ValueError("DataFrame has no form in JSON: two of its columns have one name")
        return _as_json(value.to_dict("records"))
    if pandas is not None and isinstance(value, pandas.Series | pandas.Index | type(pandas.NA)):
        return None if value is pandas.NA else _as_json(value.tolist())
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        return _array_as_json(value)
    raise ValueError(f"{type(value).__module__}.{type(value).__qualname__} has no form in JSON")


def _array_as_json(value: Any) -> Any:
    if plain := {"g": float, "G": complex}.get(value.dtype.char):  # Python has no longer ones
        value = value.astype(plain)
    if value.dtype.names is None:
        return _as_json((value if value.dtype.kind in "biufcUSOT" else value.astype(str)).tolist())
    if value.ndim:
        return [_array_as_json(item) for item in value]
    return {name: _as_json(value[name]) for name in value.dtype.names}


def _item(value: Any) -> Any:
    found = value.item() if hasattr(value, "item") else value
    return float(found) if isinstance(found, float) else int(found)


def json_text(found: Any, encoding: str = "utf-8", indent: int | None = None) -> str:
    """Return what :func:`as_json` has returned as JSON, in ASCII if the encoding lacks a character.

    Half of a character (a lone surrogate) is none that an encoding has.
    """
    text = json.dumps(found, indent=indent, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(found, indent=indent)
    return text


def _json_key(key: Any) -> str:
    return key if type(key) is str else json.dumps(as_json(key), ensure_ascii=False)


# -- one for each suffix ---------------------------------------------------------------------------


def _write_json(value: Any, path: Path) -> None:
    path.write_text(json_text(as_json(value), indent=2) + "\n", "utf-8")


def _write_text(value: Any, path: Path) -> None:
    path.write_text(value if isinstance(value, str) else f"{value!r}\n", "utf-8")


def _write_pickle(value: Any, path: Path) -> None:
    import cloudpickle

    path.write_bytes(cloudpickle.dumps(value))


def _write_npy(value: Any, path: Path) -> None:
    numpy = _needed("numpy", "a .npy file")
    array = numpy.asarray(value)
    if numpy.ma.is_masked(value):
        raise ValueError("a .npy file has no place for a mask; one that ends in .pickle has")
    if array.dtype.hasobject:
        raise ValueError(f"{_named(value)} is no array of numbers or text, as a .npy file holds")
    numpy.save(path, array, allow_pickle=False)


def _write_csv(value: Any, path: Path) -> None:
    frame = _frame(value, "a .csv file")
    frame.to_csv(path, index=_has_index(value, frame))


def _write_parquet(value: Any, path: Path) -> None:
    frame = _frame(value, "a .parquet file")
    frame.columns = [str(column) for column in frame.columns]
    try:
        frame.to_parquet(path, index=_has_index(value, frame))
    except ImportError:
        raise MissingExtra("a .parquet file needs pyarrow: pip install pyarrow") from None


def _frame(value: Any, what: str) -> Any:
    pandas = _needed("pandas", what)
    if isinstance(value, pandas.DataFrame):
        return value.copy(deep=False)
    if isinstance(value, pandas.Series):
        return value.to_frame()
    if not isinstance(value, type) and hasattr(value, "to_pandas"):  # of polars, pyarrow, xarray
        value = value.to_pandas()
        if isinstance(value, pandas.DataFrame | pandas.Series):
            return _frame(value, what)
    try:
        numpy = sys.modules["numpy"]
        if isinstance(value, numpy.ndarray) and value.ndim not in (1, 2):
            raise ValueError(f"an array of {value.ndim} axes")
        if not isinstance(value, numpy.ndarray | list | tuple | Mapping):
            raise ValueError
        return pandas.DataFrame(value)
    except UnicodeEncodeError:
        raise
    except (ValueError, TypeError) as error:
        why = f" ({error})" if str(error) else ""
        raise ValueError(
            f"{_named(value)} is no table, as {what} holds{why}; .json and .pickle take more"
        ) from None


def _has_index(value: Any, frame: Any) -> bool:
    """Return whether the labels of the rows say something."""
    return not isinstance(value, Mapping) and type(frame.index).__name__ != "RangeIndex"


def _needed(name: str, what: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise MissingExtra(f"{what} needs {name}: pip install {name}") from None


def _named(value: Any) -> str:
    return type(value).__qualname__


_WRITERS: dict[str, Callable[[Any, Path], None]] = {
    ".npy": _write_npy,
    ".csv": _write_csv,
    ".json": _write_json,
    ".parquet": _write_parquet,
    ".pickle": _write_pickle,
    ".pkl": _write_pickle,
    ".txt": _write_text,
}

SUFFIXES = tuple(_WRITERS)
"""The suffixes that :func:`write_value` knows."""
