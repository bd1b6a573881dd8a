"""Opening values without trust: data comes out, and nothing that a stream names is run."""

from __future__ import annotations

import os
import pickle
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fleche.caches import Local
from fleche.call import Call
from fleche.errors import UnpackError
from fleche.parcel import Packing, pack_bytes, unpack

PLAIN = {
    "containers": {"a": [1, (2.5, None)], "b": {3, 4}, "c": frozenset({5}), "d": b"x", "e": 1j},
    "times": [datetime(2026, 1, 2), timedelta(3)],
    "numbers": [Decimal("1.5"), Fraction(1, 3), np.float64(2.5), np.int32(7)],
    "array": np.arange(12.0).reshape(3, 4),
    "large": np.zeros((300, 400)),
    "transposed": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    "structured": np.zeros(3, dtype=[("x", "f8"), ("y", "i4")]),
    "masked": np.ma.masked_array([1.0, 2.0], mask=[False, True]),
    "frame": pd.DataFrame(
        {
            "number": [1.5, 2.5],
            "text": ["a", "b"],
            "time": pd.to_datetime(["2026-01-01", "2026-01-02"]),
            "kind": pd.Categorical(["u", "v"]),
            "gap": pd.array([1, None], dtype="Int64"),
        }
    ),
    "indexed": pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [3, 4]}).set_index(["a", "b"]),
    "series": pd.Series([1.0, 2.0], index=pd.date_range("2026-01-01", periods=2), name="s"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_data_opens(name: str, tmp_path: Path) -> None:
    """Numbers, text, times, containers, arrays and tables come out as they went in."""
    value = PLAIN[name]
    with Local(tmp_path) as cache:
        call = cache.load(cache.save(Call(name="f", result=value)))
        ref = call.record.result
        assert ref is not None
        found = cache.open_ref(ref, call.entry, plain=True)
    assert type(found) is type(value)
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(found, value)
    elif isinstance(value, pd.Series):
        pd.testing.assert_series_equal(found, value)
    elif isinstance(value, np.ndarray):
        np.testing.assert_array_equal(found, value)
    else:
        assert found == value


class Harmless:
    """A class of a user's."""


class Runs:
    """Runs a command when it is opened."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_no_code_of_a_stream_is_run(tmp_path: Path) -> None:
    """A stream that names a function is refused before anything is called."""
    victim = tmp_path / "made"
    stream = pickle.dumps([1, Runs(str(victim))])
    with pytest.raises(UnpackError, match=r"posix\.mkdir is not plain data"):
        unpack(pack_bytes(stream, "pickle"), plain=True)
    assert not victim.exists()
    unpack(pack_bytes(stream, "pickle"))
    assert victim.exists()


@pytest.mark.parametrize(
    "stream",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x04\x8c\x06pandas\x8c\x09core.eval\x93.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
        b"\x80\x04\x8c\x05numpy\x8c\x0bndarray.fld\x93.",
        b"\x80\x04\x8c\x0dfleche.parcel\x8c\x0bclass_named\x93.",
    ],
)
def test_forged_streams_are_refused(stream: bytes) -> None:
    """Older ways to name something, and names that reach inside an object, are no way round."""
    with pytest.raises(UnpackError, match="is not plain data"):
        unpack(pack_bytes(stream, "pickle"), plain=True)


def test_classes_of_users_are_refused() -> None:
    """An object of a class of one's own needs that class; its summary stands for it instead."""
    packing = Packing()
    with pytest.raises(UnpackError, match="Harmless is not plain data"):
        packing.unpack(packing.pack(Harmless()), plain=True)
    assert isinstance(packing.unpack(packing.pack(Harmless())), Harmless)
