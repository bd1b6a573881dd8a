"""The serializers that a parcel may name; all of them write pickle streams, dill with quirks."""

from __future__ import annotations

import functools
import io
import pickle
import types
from collections import ChainMap
from dataclasses import dataclass
from typing import Any

from fleche.errors import MissingExtra
from fleche.parcel._layout import ClassName
from fleche.parcel._source import Buffer

__all__ = ["BUFFER_MIN", "SERIALIZERS", "Pickled", "deserialize", "serialize"]

SERIALIZERS = ("cloudpickle", "pickle", "dill")
BUFFER_MIN = 1 << 16
_PROTOCOL = 5
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})


@dataclass(frozen=True)
class Pickled:
    """What pickling an object gave.

    Attributes:
        stream: the pickle stream.
        buffers: the large buffers that are not in it, in their order.
        code: whether the stream itself holds bytecode.
        classes: the classes and functions that are only named in the stream.
        definitions: those by value, pickled; empty if there are none.
    """

    stream: Buffer
    buffers: list[memoryview]
    code: bool = False
    classes: tuple[ClassName, ...] = ()
    definitions: bytes = b""


def serialize(serializer: str, obj: Any) -> Pickled:
    """Pickle ``obj``, its large buffers apart."""
    if type(obj) in _PLAIN:
        return Pickled(pickle.dumps(obj, protocol=_PROTOCOL), [])
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        with memoryview(buffer) as view:
            large = view.nbytes >= BUFFER_MIN and view.contiguous
        if large:
            buffers.append(buffer.raw())
        return not large

    file = io.BytesIO()
    code = _WRITERS[serializer](obj, file, keep)
    return Pickled(file.getvalue(), buffers, code)


def deserialize(serializer: str, stream: Buffer, buffers: list[Buffer]) -> Any:
    """Return the object of a pickle stream, made over ``buffers``.

    Raises:
        Exception: whatever making it raises.
    """
    if serializer == "dill":  # names a module that only its own reader knows
        try:
            import dill
        except ImportError:
            pass  # plain data do not need it
        else:
            return dill.Unpickler(io.BytesIO(stream), buffers=buffers).load()
    return pickle.loads(stream, buffers=buffers)


def _write_pickle(obj: Any, file: io.BytesIO, keep: Any) -> bool:
    pickle.Pickler(file, protocol=_PROTOCOL, buffer_callback=keep).dump(obj)
    return False


def _write_cloudpickle(obj: Any, file: io.BytesIO, keep: Any) -> bool:
    pickler = _code_noting_pickler()(file, protocol=_PROTOCOL, buffer_callback=keep)
    pickler.dump(obj)
    return bool(pickler.found)


@functools.cache
def _code_noting_pickler() -> Any:
    """Return cloudpickle's pickler, extended to note whether it wrote bytecode."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            self.found: list[str] = []
            table = cloudpickle.Pickler.dispatch_table
            self._reduce_code = table[types.CodeType]
            self.dispatch_table = ChainMap({types.CodeType: self._note_code}, table)
            super().__init__(*args, **options)

        def _note_code(self, code: types.CodeType) -> Any:
            self.found.append(code.co_name)
            return self._reduce_code(code)

    return Pickler


def _write_dill(obj: Any, file: io.BytesIO, keep: Any) -> bool:
    try:
        import dill
    except ImportError:
        raise MissingExtra(
            'serializer "dill" needs the package dill: pip install "fleche[dill]"'
        ) from None
    pickler = dill.Pickler(file, protocol=_PROTOCOL, buffer_callback=keep)
    save_code, found = pickler.dispatch[types.CodeType], []

    def note_code(pickler: Any, code: types.CodeType) -> None:
        found.append(code.co_name)
        save_code(pickler, code)

    pickler.dispatch = type(pickler.dispatch)(pickler.dispatch)
    pickler.dispatch[types.CodeType] = note_code
    pickler.dump(obj)
    return bool(found)


_WRITERS = {"pickle": _write_pickle, "cloudpickle": _write_cloudpickle, "dill": _write_dill}
