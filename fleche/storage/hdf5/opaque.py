"""What HDF5 has no form for: whether it can be kept apart from what it has a form for."""

from __future__ import annotations

import io
import pickle
from collections.abc import Container
from typing import Any

import cloudpickle

__all__ = ["refers_to"]


def refers_to(parts: list[Any], others: Container[int]) -> bool:
    """Tell whether pickling ``parts`` meets an object whose id is among ``others``.

    Such a value is not to be taken apart: the object would come back twice.
    """

    class Seeker(cloudpickle.Pickler):  # type: ignore[misc]
        def persistent_id(self, obj: Any) -> None:
            if id(obj) in others:
                raise _Met

    try:
        Seeker(_Nowhere(), protocol=5, buffer_callback=_ignore).dump(parts)
    except _Met:
        return True
    return False


class _Met(Exception):
    pass


class _Nowhere(io.RawIOBase):
    def write(self, data: Any) -> int:
        return memoryview(data).nbytes


def _ignore(_buffer: pickle.PickleBuffer) -> None:
    """Leave large buffers out of the stream."""
