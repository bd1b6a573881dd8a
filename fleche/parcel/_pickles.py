"""Pickle streams: how an object is written so that equal forms give equal streams, and read again.

The stream of a value names its form (see :attr:`~fleche.parcel.Parcel.variant`), so that it must
not depend on accidents of the process that writes it: members of sets stand in the order of their
digests, and a text stands once, whether or not its equals are one object in memory. C writes most
streams so; where it does not, the stream is written again by :class:`_ExactPickler`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
import re
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import msgspec

from fleche._util import override
from fleche.digest import ENDS_AS_TOLD, digest, ends_otherwise, find_reducer
from fleche.errors import MissingExtra
from fleche.parcel._definitions import Loader, Named
from fleche.parcel._files import ContentMarker, File, FileSection
from fleche.parcel._forms import reducers
from fleche.parcel._layout import ClassName
from fleche.parcel._plain import is_plain_name
from fleche.parcel._source import Buffer

__all__ = ["BUFFER_MIN", "Pickled", "deserialize", "serialize"]

BUFFER_MIN = 1 << 16
_MANY_BUFFERS = 1 << 15
"""So many buffers of a value are kept out of its stream at most: the head stays small."""
_PROTOCOL = 5
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})
_EXACT = 4 << 20
"""Bytes of a stream that is still written again; of longer ones accidents may show."""
_BATCH = 1000
_SETS = re.compile(rb"\x8f\x94\(|\x91\x94")
"""What a stream holds where it holds a set; among many numbers, other bytes look so."""


class Pickled(msgspec.Struct, frozen=True):
    """What pickling an object gave.

    Attributes:
        stream: the pickle stream.
        buffers: the large buffers that are not in it, in their order; a :class:`File` stands for
            its content.
        code: whether the stream itself holds bytecode.
        classes: the classes and functions of ``__main__`` that it names.
        definitions: those by value, pickled; empty if there are none.
    """

    stream: Buffer
    buffers: list[memoryview | File]
    code: bool = False
    classes: tuple[ClassName, ...] = ()
    definitions: bytes = b""


def serialize(serializer: str, obj: Any) -> Pickled:
    """Pickle ``obj``, its large buffers apart.

    Raises:
        MissingExtra: the serializer needs a package that is not installed.
        Exception: whatever the serializer raises for an object it cannot take.
    """
    if type(obj) in _PLAIN:
        return Pickled(pickle.dumps(obj, protocol=_PROTOCOL), [])
    if serializer == "dill":
        return _write(_dill_pickler(), obj)
    try:
        return _write_exactly(_pickler(), _ExactPickler, obj)
    except (pickle.PicklingError, TypeError, AttributeError):
        if serializer == "pickle":
            raise
    # cloudpickle is imported only for what pickle itself cannot take
    return _write_exactly(_cloud_pickler(), _exact_cloud_pickler(), obj)


def _write_exactly(pickler: Any, exact: Any, obj: Any) -> Pickled:
    written = _write_unless_accidents(pickler, obj)
    if written is not None:
        return written
    try:
        return _write(exact, obj)
    except RecursionError:  # it nests deeper than Python can follow, and C can
        return _write(pickler, obj)


class _Notes:
    """What a pickler finds on its way."""

    def __init__(self) -> None:
        self.file = io.BytesIO()
        self.named = Named()
        self.buffers: list[memoryview | File] = []
        self.code = False

    def keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Take a large buffer out of the stream; return whether it stays in."""
        with memoryview(buffer) as view:
            if type(view.obj) is ContentMarker:
                self.buffers.append(view.obj.file)
                return False
            large = view.nbytes >= BUFFER_MIN and view.contiguous
        if large and len(self.buffers) < _MANY_BUFFERS:
            self.buffers.append(buffer.raw())
            return False
        return True


def _write(pickler_class: Any, obj: Any) -> Pickled:
    written = _write_unless_accidents(pickler_class, obj, check=False)
    assert written is not None
    return written


def _write_unless_accidents(pickler_class: Any, obj: Any, *, check: bool = True) -> Pickled | None:
    notes = _Notes()
    pickler = pickler_class(notes)
    pickler.dump(obj)
    stream = notes.file.getvalue()
    if check and len(stream) <= _EXACT and _shows_accidents(pickler, stream):
        return None
    names = notes.named.names
    return Pickled(stream, notes.buffers, notes.code, names, notes.named.definitions())


def _shows_accidents(pickler: Any, stream: bytes) -> bool:
    met = [each for _, each in pickler.memo.copy().values()]
    if not ENDS_AS_TOLD and any(map(ends_otherwise, met)):
        return True
    if _SETS.search(stream) and any(type(each) in (set, frozenset) for each in met):
        return True
    texts = [each for each in met if type(each) in (str, bytes)]
    return len(set(texts)) < len(texts)


class _Reducing:
    """What all picklers here have in common."""

    notes: _Notes

    def reducer_override(self, obj: Any) -> Any:
        """Return how ``obj`` is reduced, where that is not pickle's business."""
        kind = type(obj)
        if kind is types.FunctionType or issubclass(kind, type):
            return self.notes.named.reduce(obj)
        reducer = reducers().get(kind) or find_reducer(kind)
        return NotImplemented if reducer is None else reducer(obj)


@functools.cache
def _pickler() -> Any:
    class Pickler(_Reducing, pickle.Pickler):
        def __init__(self, notes: _Notes) -> None:
            super().__init__(notes.file, _PROTOCOL, buffer_callback=notes.keep)
            self.notes = notes

    return Pickler


@functools.cache
def _cloud_pickler() -> Any:
    class CloudPickler(_pickler()):  # type: ignore[misc]
        def __init__(self, notes: _Notes) -> None:
            super().__init__(notes)
            self.dispatch_table = _dispatch_table(notes)

    return CloudPickler


@functools.cache
def _exact_cloud_pickler() -> Any:
    class ExactCloudPickler(_ExactPickler):
        def __init__(self, notes: _Notes) -> None:
            super().__init__(notes)
            self.dispatch_table = _dispatch_table(notes)

    return ExactCloudPickler


def _dispatch_table(notes: _Notes) -> dict[type, Callable[[Any], Any]]:
    """Return cloudpickle's ways to reduce things, noting whether bytecode is written."""
    import cloudpickle

    table = dict(cloudpickle.Pickler.dispatch_table)
    reduce_code = table[types.CodeType]

    def note_code(code: types.CodeType) -> Any:
        notes.code = True
        return reduce_code(code)

    table[types.CodeType] = note_code
    return table


_PythonPickler: Any = pickle._Pickler  # noqa: SLF001 - the one that Python's own tests use, too


class _ExactPickler(_Reducing, _PythonPickler):  # type: ignore[misc]
    """Writes what C would, but for accidents: sets in order, each text once.

    It is some twenty times slower than C.
    """

    dispatch: ClassVar[dict[type, Callable[..., None]]] = dict(_PythonPickler.dispatch)

    def __init__(self, notes: _Notes) -> None:
        super().__init__(notes.file, _PROTOCOL, buffer_callback=notes.keep)
        self.notes = notes
        self._texts: dict[Any, Any] = {}

    def save_text(self, obj: Any) -> None:
        """Write a text or bytes, or refer to their equal."""
        first = self._texts.setdefault(obj, obj)
        if first is not obj and id(first) in self.memo:
            self.write(self.get(self.memo[id(first)][0]))
        else:
            _PythonPickler.dispatch[type(obj)](self, first)

    def save_list(self, obj: list[Any]) -> None:
        """Write a list, in the batches of C."""
        self.write(pickle.EMPTY_LIST)
        self.memoize(obj)
        if len(obj) == 1:
            self.save(obj[0])
            self.write(pickle.APPEND)
            return
        for start in range(0, len(obj), _BATCH):
            self.write(pickle.MARK)
            for item in obj[start : start + _BATCH]:
                self.save(item)
            self.write(pickle.APPENDS)

    def save_dict(self, obj: dict[Any, Any]) -> None:
        """Write a dict, in the batches of C."""
        self.write(pickle.EMPTY_DICT)
        self.memoize(obj)
        if len(obj) == 1:
            ((key, value),) = obj.items()
            self.save(key)
            self.save(value)
            self.write(pickle.SETITEM)
            return
        items = list(obj.items())
        for start in range(0, len(items) + 1 if items else 0, _BATCH):
            self.write(pickle.MARK)
            for key, value in items[start : start + _BATCH]:
                self.save(key)
                self.save(value)
            self.write(pickle.SETITEMS)

    def save_set(self, obj: set[Any]) -> None:
        """Write a set, its members in order."""
        self.write(pickle.EMPTY_SET)
        self.memoize(obj)
        members = _in_order(obj)
        for start in range(0, len(members), _BATCH):
            self.write(pickle.MARK)
            for item in members[start : start + _BATCH]:
                self.save(item)
            self.write(pickle.ADDITEMS)

    def save_frozenset(self, obj: frozenset[Any]) -> None:
        """Write a frozen set, its members in order."""
        self.write(pickle.MARK)
        for item in _in_order(obj):
            self.save(item)
        if id(obj) in self.memo:  # a member refers to it
            self.write(pickle.POP_MARK + self.get(self.memo[id(obj)][0]))
            return
        self.write(pickle.FROZENSET)
        self.memoize(obj)

    def save_buffer(self, obj: pickle.PickleBuffer) -> None:
        """Write a buffer; pickle's own way fails where a small one is an object that is shared."""
        with obj.raw() as view:
            if not self.notes.keep(obj):
                self.write(pickle.NEXT_BUFFER + (pickle.READONLY_BUFFER if view.readonly else b""))
                return
            size = view.nbytes
            if not view.readonly:
                header = pickle.BYTEARRAY8 + size.to_bytes(8, "little")
            elif size < 1 << 8:
                header = pickle.SHORT_BINBYTES + size.to_bytes(1, "little")
            elif size < 1 << 32:
                header = pickle.BINBYTES + size.to_bytes(4, "little")
            else:
                header = pickle.BINBYTES8 + size.to_bytes(8, "little")
            if size < BUFFER_MIN:
                self.write(header + view)
            else:
                self._write_large_bytes(header, view)
            self.memoize(obj)

    dispatch[pickle.PickleBuffer] = save_buffer
    dispatch[str] = dispatch[bytes] = save_text
    dispatch[list] = save_list
    dispatch[dict] = save_dict
    dispatch[set] = save_set
    dispatch[frozenset] = save_frozenset


def _in_order(members: Iterable[Any]) -> list[Any]:
    """Return the members of a set in an order that is the same in every process."""
    found = list(members)
    kinds = set(map(type, found))
    if len(kinds) == 1 and kinds <= {int, str, bytes}:
        return sorted(found)
    try:
        return sorted(found, key=digest)
    except Exception:  # noqa: BLE001 - a member has no digest, and so the value has none
        return found


@functools.cache
def _dill_pickler() -> Any:
    try:
        import dill
    except ImportError:
        raise MissingExtra('serializer "dill" needs the package dill: pip install dill') from None

    class DillPickler(_Reducing, dill.Pickler):  # type: ignore[misc]
        dispatch = type(dill.Pickler.dispatch)(dill.Pickler.dispatch)

        def __init__(self, notes: _Notes) -> None:
            super().__init__(notes.file, protocol=_PROTOCOL, buffer_callback=notes.keep)
            self.notes = notes
            self._texts: dict[Any, Any] = {}

        def save_code(self, code: types.CodeType) -> None:
            self.notes.code = True
            dill.Pickler.dispatch[types.CodeType](self, code)

        dispatch[types.CodeType] = save_code
        dispatch[pickle.PickleBuffer] = _ExactPickler.save_buffer
        dispatch[str] = dispatch[bytes] = _ExactPickler.save_text
        dispatch[set] = _ExactPickler.save_set
        dispatch[frozenset] = _ExactPickler.save_frozenset

    return DillPickler


# -- reading ---------------------------------------------------------------------------------------


def deserialize(
    serializer: str,
    stream: Buffer,
    buffers: list[Buffer | FileSection],
    definitions: Callable[[], Buffer] = bytes,
    *,
    plain: bool = False,
) -> Any:
    """Return the object of a pickle stream, made over ``buffers``.

    Args:
        serializer: what wrote it.
        stream: the pickle stream.
        buffers: what is not in it.
        definitions: returns the definitions that came with it, if they are needed.
        plain: refuse a stream that names anything but plain data.

    Raises:
        Exception: whatever making it raises.
    """
    # Such a stream names nothing; one that was forged may, by older opcodes.
    if not plain and pickle.STACK_GLOBAL not in bytes(stream):
        return pickle.loads(stream, buffers=buffers)
    loader = Loader(definitions, _load_definition)
    if plain:
        return _load(_PlainUnpickler, stream, buffers, loader)
    reader = _Unpickler
    if serializer == "dill":  # names a module that only its own reader knows
        reader = _dill_unpickler() or reader
    found = _load(reader, stream, buffers, loader)
    loader.tell()
    return found


def _load(reader: Any, stream: Buffer, buffers: Iterable[Any], loader: Loader) -> Any:
    unpickler = reader(io.BytesIO(stream), buffers=buffers)
    unpickler.loader = loader
    return unpickler.load()


def _load_definition(content: Buffer, loader: Loader) -> Any:
    return _load(_Unpickler, content, (), loader)


_of_numpy: dict[tuple[str, str], Any] = {}
"""What streams have named of numpy: each array names its class and its dtype."""


class _Finding:
    """How all unpicklers here find what a stream names."""

    loader: Loader

    def find_class(self, module: str, name: str) -> Any:
        """Return what a stream names, wherever this process has it."""
        if (known := _of_numpy.get((module, name))) is not None:
            return known
        loader = self.loader  # what is returned stays in the memo: it must not lead to this object
        if module == "fleche.parcel":
            if name == "class_named":
                return lambda *args: loader.find(ClassName(*args), is_class=True)
            if name == "function_named":
                return lambda *args: loader.find(ClassName(*args), is_class=False)
            if name == "class_apart":
                return lambda *args: loader.find(ClassName(*args), is_class=True, apart=True)
            if name == "born":
                return loader.born
        find = super().find_class  # type: ignore[misc]
        try:
            found = find(_moved(module), name)
            if module.partition(".")[0] == "numpy":
                _of_numpy[module, name] = found
            return found
        except (ImportError, AttributeError):
            for place in _other_places(module, name):
                with contextlib.suppress(ImportError, AttributeError):
                    return find(*place)
            raise


def _other_places(module: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield where else a name may be in other versions of a package.

    That is in the public module round a private one (``pathlib._local``), or in what is no module
    but an attribute of one (``numpy.rec``).
    """
    public = ".".join(part for part in module.split(".") if not part.startswith("_"))
    if public and public != module:
        yield public, name
    package, dot, attribute = module.rpartition(".")
    if dot:
        yield package, f"{attribute}.{name}"


def _moved(module: str) -> str:
    """Return where a module of numpy is in the numpy of this process: 1 and 2 differ."""
    for core in ("numpy.core", "numpy._core"):
        if module == core or module.startswith(core + "."):
            import numpy as np

            here = "numpy.core" if np.__version__.startswith("1.") else "numpy._core"
            return here + module[len(core) :]
    return module


class _Unpickler(_Finding, pickle.Unpickler):
    """The unpickler of streams that :mod:`pickle` can read."""


class _PlainUnpickler(_Unpickler):
    @override
    def find_class(self, module: str, name: str) -> Any:
        """Return what a stream names, if it is plain data."""
        if not is_plain_name(module, name):
            raise pickle.UnpicklingError(f"{module}.{name} is not plain data")
        return super().find_class(module, name)


@functools.cache
def _dill_unpickler() -> Any:
    try:
        import dill
    except ImportError:
        return None  # plain data do not need it

    class DillUnpickler(_Finding, dill.Unpickler):  # type: ignore[misc]
        """The unpickler of streams that dill has written."""

    return DillUnpickler
