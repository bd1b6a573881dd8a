"""Calls with live objects, and stored calls bound to the cache that holds their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from fleche.call.record import (
    CallRecord,
    Version,
    as_literal,
    plain_metadata,
    plain_version,
)
from fleche.digest import SCHEME, BufferDigests, Digest, digest, digest_arguments

if TYPE_CHECKING:
    from fleche.parcel import Parcel

__all__ = ["MISSING", "Call", "LazyArguments", "LazyCall", "Opener", "split_digests"]


class _Missing:
    """The type of :data:`MISSING`."""

    def __repr__(self) -> str:
        return "MISSING"

    def __reduce__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""Stands where a call has no result yet; ``None`` is a result."""


@dataclass
class Call:
    """A call with live objects.

    Attributes:
        name: qualified name of the function.
        arguments: the bound arguments by name, in the order of the signature, those that are
            ignored left out. A :class:`~fleche.digest.Digest` stands for the value that it names.
        module: module of the function.
        version: what the author of the function declared.
        code: digest of the function's code.
        result: what the function returned, or :data:`MISSING`.
        metadata: plain data by the name of what collected it.
        unhashed: which of module, version, code are known but are no part of the key.
        unordered: the arguments in which the order of dicts does not count.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    module: str | None = None
    version: Version = None
    code: Digest | None = None
    result: Any = MISSING
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    unhashed: tuple[str, ...] = ()
    unordered: frozenset[str] = frozenset()

    def seal(self, buffers: BufferDigests | None = None) -> CallRecord:
        """Digest the arguments (and the result, if there is one) and return the record.

        Args:
            buffers: where to note the digests of large buffers, for packing the arguments.

        Raises:
            Indigestible: an argument or the result has no digest.
            TypeError: the metadata is not plain data, or the version is no number or string.
            ValueError: no record can hold the version.
        """
        done = self.result is not MISSING
        return CallRecord(
            name=self.name,
            module=self.module,
            version=plain_version(self.version),
            code=self.code,
            arguments=digest_arguments(self.arguments, buffers, unordered=self.unordered),
            result=digest(self.result) if done else None,
            literals={
                name: literal
                for name, value in self.arguments.items()
                if not isinstance((literal := as_literal(value)), msgspec.UnsetType)
            },
            literal=as_literal(self.result) if done else msgspec.UNSET,
            metadata=plain_metadata(self.metadata),
            unhashed=tuple(self.unhashed),
            scheme=SCHEME,
        )

    @property
    def key(self) -> Digest:
        """The digest of the call, from its arguments as they are now."""
        return self.seal().key


class Opener(Protocol):
    """What a :class:`LazyCall` needs of a cache."""

    def load_value(self, digest: Digest | str) -> Any:
        """Return the value of ``digest``."""
        ...

    def open_parcel(self, parcel: Parcel, digest: Digest) -> Any:
        """Return the value inside ``parcel``."""
        ...

    def evict(self, key: Digest | str) -> None:
        """Forget the entry ``key``."""
        ...


class LazyArguments(Mapping[str, Any]):
    """The arguments of a stored call; each is loaded when it is asked for."""

    def __init__(self, digests: Mapping[str, Digest], cache: Opener) -> None:
        self.digests = digests
        self._cache = cache

    def __getitem__(self, name: str) -> Any:
        return self._cache.load_value(self.digests[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.digests)

    def __len__(self) -> int:
        return len(self.digests)

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value[:8]}" for name, value in self.digests.items())
        return f"LazyArguments({inner})"


class LazyCall:
    """A stored call, bound to the cache that holds its values.

    Everything but :attr:`result` and the items of :attr:`arguments` is at hand without loading a
    value.
    """

    def __init__(
        self, key: Digest, record: CallRecord, cache: Opener, parcel: Parcel | None = None
    ) -> None:
        self.key = key
        self.record = record
        self._cache = cache
        self._parcel = parcel
        self._result: Any = MISSING
        self._lock = RLock()

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
    def code(self) -> Digest | None:
        """Digest of the function's code when the call ran."""
        return self.record.code

    @property
    def metadata(self) -> dict[str, dict[str, Any]]:
        """Plain data by the name of what collected it."""
        return self.record.metadata

    @property
    def arguments(self) -> LazyArguments:
        """The arguments by name; each is loaded when asked for."""
        return LazyArguments(self.record.arguments, self._cache)

    @property
    def result(self) -> Any:
        """The result, loaded the first time and kept.

        Raises:
            KeyError: the value has been evicted.
            ParcelError: the value is damaged, not trusted, or cannot be made here.
        """
        with self._lock:
            if self._result is MISSING:
                self._result = self._load_result()
            return self._result

    def _load_result(self) -> Any:
        if self.record.result is None:
            raise KeyError(self.key)
        if self._parcel is None:
            return self._cache.load_value(self.record.result)
        parcel, self._parcel = self._parcel, None
        return self._cache.open_parcel(parcel, self.record.result)

    def load(self) -> Call:
        """Return the live call, with all its values loaded."""
        record = self.record
        return Call(
            name=record.name,
            arguments=dict(self.arguments),
            module=record.module,
            version=record.version,
            code=record.code,
            result=self.result,
            metadata=record.metadata,
            unhashed=record.unhashed,
        )

    def bind(self, cache: Opener) -> LazyCall:
        """Return the same call, bound to another cache."""
        return LazyCall(self.key, self.record, cache, self._parcel)

    def evict(self) -> None:
        """Remove the call from its cache."""
        self._cache.evict(self.key)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LazyCall):
            return NotImplemented
        return self.key == other.key and self.record == other.record

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={self.record.literals[name]!r}"
            if name in self.record.literals
            else f"{name}=<{value[:8]}>"
            for name, value in self.record.arguments.items()
        )
        return f"<LazyCall {self.key[:8]} {self.name}({shown})>"


def split_digests(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Digest]]:
    """Part ``arguments`` into live values and digests that stand for values."""
    live = {name: value for name, value in arguments.items() if not isinstance(value, Digest)}
    named = {name: value for name, value in arguments.items() if isinstance(value, Digest)}
    return live, named
