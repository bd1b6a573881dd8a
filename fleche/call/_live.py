"""Calls with live objects, and stored calls bound to the cache that holds their values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, cast

import msgspec

from fleche._amounts import shown_seconds
from fleche._util import override
from fleche.call._entry import CallEntry
from fleche.call._record import (
    CallRecord,
    ValueRef,
    Version,
    as_literal,
    encode_metadata,
    plain_metadata,
    plain_version,
)
from fleche.digest import BufferDigests, Digest, digest, digest_arguments, short_key

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from fleche.call._lineage import CallTree

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["MISSING", "Call", "LazyArguments", "LazyCall", "Opener", "refer"]


class _Missing:
    """The type of :data:`MISSING`."""

    def __repr__(self) -> str:
        return "MISSING"

    def __reduce__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""Stands where a call has no result yet; ``None`` is a result."""


class Call(msgspec.Struct):
    """A call with live objects.

    Attributes:
        name: qualified name of the function.
        arguments: the bound arguments by name, in the order of the signature, those that are
            ignored left out. A :class:`~fleche.digest.Digest` stands for the value that it names.
        module: module of the function.
        version: what the author of the function declared.
        code: digest of the function's code and of the code that it depends on.
        dependencies: the digest of each part of that code, by its label.
        result: what the function returned, or :data:`MISSING`.
        metadata: plain data by the name of what collected it.
        unhashed: which of module, version, code are known but are no part of the key.
        unordered: the arguments in which the order of dicts does not count.
        content: the arguments whose paths count by what the files hold.
        duration: seconds that the function took, of a call that was stored before.
    """

    name: str
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    module: str | None = None
    version: Version = None
    code: Digest | None = None
    dependencies: Mapping[str, str] = msgspec.field(default_factory=dict)
    result: Any = MISSING
    metadata: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    unhashed: tuple[str, ...] = ()
    unordered: frozenset[str] = frozenset()
    content: frozenset[str] = frozenset()
    duration: float | None = None

    def replace(self, **changes: Any) -> Call:
        """Return the same with some attributes changed."""
        return msgspec.structs.replace(self, **changes)

    def to_record(self, buffers: BufferDigests | None = None) -> CallRecord:
        """Digest the arguments (and the result, if there is one) and return the record.

        Args:
            buffers: receives the digests of large buffers, for packing the arguments.

        Raises:
            Indigestible: an argument or the result has no digest.
            TypeError: the metadata is not plain data, or the version is no number or string.
            ValueError: no record can hold the version.
        """
        digests = digest_arguments(
            self.arguments, buffers, unordered=self.unordered, content=self.content
        )
        done = self.result is not MISSING
        return CallRecord(
            name=self.name,
            module=self.module,
            version=plain_version(self.version),
            code=self.code,
            dependencies=dict(self.dependencies),
            arguments=self.references(digests),
            result=refer(digest(self.result), self.result) if done else None,
            encoded_metadata=encode_metadata(plain_metadata(self.metadata)),
            unhashed=tuple(self.unhashed),
            duration=self.duration,
        )

    def references(self, digests: Mapping[str, Digest]) -> dict[str, ValueRef]:
        """Return the references to the arguments, whose digests are given.

        A path that counts by its content is no literal: its text is not what its digest names.
        """
        return {
            name: ValueRef(digests[name]) if name in self.content else refer(digests[name], each)
            for name, each in self.arguments.items()
        }

    @property
    def key(self) -> Digest:
        """The digest of the call, from its arguments as they are now."""
        return self.to_record().key


def refer(found: Digest, value: Any) -> ValueRef:
    """Return the reference to ``value``, whose digest is ``found``, before its parcel is stored.

    A :class:`Digest`, and :data:`MISSING`, are no literals.
    """
    return ValueRef(str(found), literal=as_literal(value))


class Opener(Protocol):
    """What a :class:`LazyCall` needs of a cache."""

    def open_ref(self, ref: ValueRef, entry: CallEntry) -> Any:
        """Return the value that ``ref`` of a loaded entry stands for."""
        ...

    def open_dependencies(self, ref: ValueRef, entry: CallEntry) -> dict[str, str]:
        """Return the dependencies that ``ref`` of a loaded entry stands for."""
        ...

    def evict(self, key: Digest | str) -> None:
        """Forget the entry ``key``."""
        ...

    def load_many(self, keys: Iterable[Digest]) -> Iterable[LazyCall]:
        """Return the calls that are stored under any of ``keys``."""
        ...

    def query(self, template: Any = None, **fields: Any) -> Iterable[LazyCall]:
        """Return the stored calls that match."""
        ...


class LazyArguments(Mapping[str, Any]):
    """The arguments, or the states, of a stored call; each is loaded when it is asked for."""

    def __init__(
        self, entry: CallEntry, cache: Opener, refs: Mapping[str, ValueRef] | None = None
    ) -> None:
        """Open what ``refs``, by default the arguments of the entry, refers to."""
        self._entry = entry
        self._cache = cache
        self._refs = entry.record.arguments if refs is None else refs

    @property
    def digests(self) -> dict[str, Digest]:
        """The digest of each argument."""
        return {name: Digest(ref.digest) for name, ref in self._refs.items()}

    def __getitem__(self, name: str) -> Any:
        return self._cache.open_ref(self._refs[name], self._entry)

    @override
    def __contains__(self, name: object) -> bool:
        return name in self._refs

    def __iter__(self) -> Iterator[str]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={ref.text}" for name, ref in self._refs.items())
        return f"LazyArguments({shown})"


class LazyCall(Generic[T]):
    """A stored call, bound to the cache that holds its values.

    Everything but :attr:`result` and the items of :attr:`arguments` is at hand without loading a
    value.
    """

    __slots__ = ("_cache", "_opened", "entry", "key")

    def __init__(self, key: Digest, entry: CallEntry, cache: Opener) -> None:
        self.key = key
        self.entry = entry
        self._cache = cache
        self._opened: dict[str, Any] = {}

    @property
    def record(self) -> CallRecord:
        """What is stored of the call."""
        return self.entry.record

    @property
    def name(self) -> str:
        """Qualified name of the function."""
        return self.record.name

    @property
    def module(self) -> str | None:
        """Module of the function."""
        return self.record.module

    @property
    def version(self) -> Version:
        """Version that the function declared."""
        return self.record.version

    @property
    def code(self) -> str | None:
        """Digest of the function's code when the call ran."""
        return self.record.code

    @property
    def dependencies(self) -> dict[str, str]:
        """Digest of each thing that the function depended on when the call ran, by name.

        Empty if they were stored as a value of their own, and that is gone.
        """
        ref = self.record.covered
        if ref is None:
            return self.record.dependencies
        return self._cache.open_dependencies(ref, self.entry)

    @property
    def metadata(self) -> dict[str, dict[str, Any]]:
        """Plain data by the name of what collected it."""
        return self.record.metadata

    @property
    def arguments(self) -> LazyArguments:
        """The arguments by name; each is loaded when asked for."""
        return LazyArguments(self.entry, self._cache)

    @property
    def states(self) -> LazyArguments:
        """What the call left its random generators in, by the name of the argument."""
        return LazyArguments(self.entry, self._cache, self.record.states)

    @property
    def duration(self) -> float | None:
        """Seconds that the function took; ``None`` if that was not measured."""
        return self.record.duration

    def children(self) -> list[LazyCall]:
        """Return the calls that the function made while it ran, as far as they are stored.

        Hits are among them. They come in the order in which they were made, each once.
        """
        keys = [Digest(key) for key in self.record.children]
        found = {call.key: call for call in self._cache.load_many(keys)}
        return [found[key] for key in keys if key in found]

    def parents(self) -> list[LazyCall]:
        """Return the stored calls that made this one while they ran."""
        found = self._cache.query(uses=Digest(self.key))
        return [call for call in found if self.key in call.record.children]

    def used_by(self) -> list[LazyCall]:
        """Return the stored calls that made this one, and those that got its result as an argument.

        A result that is small and plain (a number, a short text) is no sign: it may come from
        anywhere.
        """
        return list(self._cache.query(uses=self))

    def tree(self, *, depth: int | None = None, used_by: bool = False) -> CallTree:
        """Return the calls that this one made, those that they made in turn, and so on.

        Printed, it shows a line for each. The calls of one level are loaded at once.

        Args:
            depth: how many levels below this call at most.
            used_by: the other way: the calls that used this one, and those that used them.
        """
        from fleche.call._lineage import tree_of

        return tree_of(self, self._cache, depth, used_by=used_by)

    @property
    def result(self) -> T:
        """The result, loaded the first time and kept.

        Raises:
            KeyError: the value has been evicted.
            ParcelError: the value is damaged, not trusted, or cannot be made here.
        """
        opened = self._opened
        if "result" in opened:
            return opened["result"]  # type: ignore[no-any-return]
        ref = self.entry.record.result
        if ref is None:
            raise KeyError(f"{self!r} has no result")
        # Without a lock, which a forked child could inherit closed. Of two threads that open it at
        # the same time, both get what one of them has made.
        found: T = opened.setdefault("result", self._cache.open_ref(ref, self.entry))
        return found

    @property
    def error(self) -> BaseException | None:
        """The exception that the function raised, where it keeps some; it has no result then.

        Raises:
            KeyError: the value has been evicted.
            ParcelError: the value is damaged, not trusted, or cannot be made here.
        """
        ref = self.entry.record.error
        if ref is None:
            return None
        return cast("BaseException", self._cache.open_ref(ref, self.entry))

    def load(self) -> Call:
        """Return the live call, with all its values loaded."""
        record = self.record
        return Call(
            name=record.name,
            arguments=dict(self.arguments),
            module=record.module,
            version=record.version,
            code=None if record.code is None else Digest(record.code),
            dependencies=self.dependencies,
            result=self.result,
            metadata=record.metadata,
            unhashed=record.unhashed,
            duration=record.duration,
        )

    @property
    def text(self) -> str:
        """The call and its result in one line, as far as the record shows them."""
        return self.record.text

    def bind(self, cache: Opener) -> LazyCall[T]:
        """Return the same call, bound to another cache."""
        return LazyCall(self.key, self.entry, cache)

    def evict(self) -> None:
        """Remove the call from its cache."""
        self._cache.evict(self.key)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LazyCall):
            return NotImplemented
        return self.key == other.key and self.record == other.record

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> tuple[type[LazyCall[T]], tuple[Digest, CallEntry, Opener]]:
        """Be pickled as what is stored, and the configuration of its cache."""
        return LazyCall, (self.key, self.entry, self._cache)

    def __repr__(self) -> str:
        return f"<LazyCall {short_key(self.key)} {self.text}>"

    def _repr_html_(self) -> str:
        """Return what the record shows of the call."""
        from fleche._html import facts

        record = self.record
        found: dict[str, object] = {"key": self.key, "module": self.module, "version": self.version}
        found.update((f"argument {name}", ref.text) for name, ref in record.arguments.items())
        if record.result is not None:
            found["result"] = record.result.text
        if record.duration is not None:
            found["took"] = shown_seconds(record.duration)
        found["calls inside"] = len(record.children) or None
        for collector, fields in record.metadata.items():
            found.update((f"{collector} {name}", value) for name, value in fields.items())
        return facts(self.text, {name: each for name, each in found.items() if each is not None})
