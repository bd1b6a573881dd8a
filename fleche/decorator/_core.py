"""What a decorated function is: the function, its options, and the keys of its calls."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import msgspec

from fleche import state
from fleche.call import Call, CallRecord, Version, as_literal
from fleche.decorator._complaints import Complaints
from fleche.digest import BufferDigests, Digest, call_key, digest_arguments
from fleche.function import FunctionInfo

if TYPE_CHECKING:
    from fleche.caches import BaseCache
    from fleche.metadata import MetaData

__all__ = ["Coalesce", "Core", "Options", "Seal", "SealedCall"]

Coalesce: TypeAlias = Literal["threads", "processes"]

_INWARD = ("__wrapped__", "__func__", "fget")
"""Where a decorator keeps what it decorates."""

_DEEPEST = 100
"""How many decorators above this one are looked through."""


@dataclass(frozen=True)
class Options:
    """What was said where the function was decorated.

    Attributes:
        version: what the author says the function is at.
        meta: collectors beside the active ones.
        isolate: neither arguments nor results are shared with the function.
        hash_version: the version is part of the key.
        hash_module: the module is part of the key.
        hash_code: the code is part of the key; ``None`` leaves it to :attr:`Core.hashes_code`.
        cache: used instead of the active cache.
        coalesce: who computes identical calls only once: the ``"threads"`` of each process, or all
            ``"processes"`` that share the cache.
    """

    version: Version = None
    meta: tuple[MetaData, ...] = ()
    isolate: bool = False
    hash_version: bool = True
    hash_module: bool = True
    hash_code: bool | None = None
    cache: BaseCache | str | None = None
    coalesce: Coalesce = "threads"


class Seal(NamedTuple):
    """What digesting the arguments of a call has found.

    Attributes:
        key: the key of the call.
        digests: the digest of each argument.
        code: the digest of the code, if it is part of the key.
        buffers: the digests of the large buffers inside, for whoever packs the arguments next.
    """

    key: Digest
    digests: dict[str, Digest]
    code: Digest | None
    buffers: BufferDigests


@dataclass
class SealedCall(Call):
    """A call whose arguments have been digested.

    Attributes:
        digests: the digest of each argument.
        buffers: the digests of the large buffers inside.
    """

    digests: dict[str, Digest] = field(default_factory=dict)
    buffers: BufferDigests = field(default_factory=BufferDigests)

    def seal(self, buffers: BufferDigests | None = None) -> CallRecord:
        """Return the record, without digesting anything again."""
        if buffers is not None:
            buffers.update(self.buffers)
        named = {item: getattr(self, item) for item in ("name", "module", "version", "code")}
        record = Call(**named, arguments=dict(self.digests), unhashed=self.unhashed).seal()
        literals = {name: as_literal(value) for name, value in self.arguments.items()}
        known = {key: value for key, value in literals.items() if value is not msgspec.UNSET}
        return record.replace(literals=known)


class Core:
    """A decorated function, apart from how it is called.

    Attributes:
        function: the function as it was written.
        info: what is known of it.
        options: what was said where it was decorated.
        is_async: whether a call has to be awaited.
        gathering: the names of ``*args`` and ``**kwargs``.
        digest_by_default: whether the default of a parameter is a digest.
        complaints: what it has been warned of.
    """

    def __init__(self, info: FunctionInfo, options: Options) -> None:
        self.info = info
        self.options = options
        self.function: Callable[..., Any] = info.function
        self.complaints = Complaints(info.function, info.name)
        self.is_async = info.is_coroutine
        self.gathering = frozenset(
            name
            for name, parameter in info.signature.parameters.items()
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        )
        self.digest_by_default = any(
            isinstance(parameter.default, Digest) for parameter in info.own.parameters.values()
        )
        self._first_code: Digest | None = None
        self._fixed: dict[str, Any] = {
            "name": info.name,
            "module": info.module if options.hash_module else None,
            "version": options.version if options.hash_version else None,
        }

    @cached_property
    def hashes_code(self) -> bool:
        """Whether the code is part of the key: unless module and name lead here, and only here.

        That is decided when it is first needed, for a function has its name only after it is
        decorated.
        """
        said = self.options.hash_code
        return said if said is not None else not (self.info.is_named or self._is_found())

    def _is_found(self) -> bool:
        """Tell whether this is what the module has under the name, other decorators apart."""
        found = None if self.info.is_main else sys.modules.get(self.info.module)
        with suppress(Exception):  # whatever a foreign decorator does when it is asked
            for name in self.info.name.split("."):
                found = inspect.getattr_static(found, name)
            for _ in range(_DEEPEST):
                if getattr(found, "core", None) is self:
                    return True
                found = next(getattr(found, way) for way in _INWARD if hasattr(found, way))
        return False

    @cached_property
    def unhashed(self) -> tuple[str, ...]:
        """The parts of a call that are recorded, and are no part of the key."""
        known = {"module": not self.options.hash_module, "code": not self.hashes_code}
        known["version"] = self.options.version is not None and not self.options.hash_version
        return tuple(sorted(part for part, is_out in known.items() if is_out))

    def cache(self) -> BaseCache:
        """Return the cache that counts for a call made now.

        Raises:
            ConfigError: it cannot be built.
        """
        chosen = self.options.cache
        if chosen is None:
            return state.cache()
        return state.named_cache(chosen) if isinstance(chosen, str) else chosen

    def collectors(self) -> tuple[MetaData, ...]:
        """Return the collectors that count for a call made now."""
        from fleche.metadata import Tags

        found = (*state.meta(), *self.options.meta)
        tags = state.tags()
        return (*found, Tags(**tags)) if tags else found

    def expanded(self, arguments: dict[str, Any], cache: BaseCache) -> dict[str, Any]:
        """Return ``arguments`` with short digests made complete.

        Raises:
            AmbiguousDigestError: a short digest stands for several entries.
            KeyError: it stands for none.
        """
        for name, value in arguments.items():
            if type(value) is Digest:
                arguments[name] = self._expanded(name, value, cache)
            elif name in self.gathering and isinstance(value, tuple):
                arguments[name] = tuple(self._expanded(name, item, cache) for item in value)
            elif name in self.gathering:
                arguments[name] = {k: self._expanded(k, v, cache) for k, v in value.items()}
        return arguments

    def _expanded(self, name: str, value: Any, cache: BaseCache) -> Any:
        if not isinstance(value, Digest) or value.is_full:
            return value
        try:
            return cache.expand(value)
        except KeyError:
            raise KeyError(self.no_value(name, value)) from None

    def no_value(self, name: str, value: Digest) -> str:
        """Return what to say of a digest that stands for nothing."""
        return (
            f"{self.info.name}(): the argument {name!r} is {value!r}, "
            "and the cache holds no such value; pass the value itself"
        )

    def seal(self, arguments: dict[str, Any]) -> Seal:
        """Digest the arguments, and the code if it is part of the key.

        Raises:
            Indigestible: an argument has no digest.
        """
        buffers = BufferDigests()
        digests = digest_arguments(arguments, buffers, unordered=self.info.unordered)
        code = self.info.code if self.hashes_code else None
        key = call_key(arguments=digests, code=code, **self._fixed)
        return Seal(key, digests, code, buffers)

    def make_call(self, arguments: Mapping[str, Any]) -> Call:
        """Return the call with these arguments, not sealed."""
        return Call(
            name=self.info.name,
            arguments=dict(arguments),
            module=self.info.module,
            version=self.options.version,
            code=self.info.code if self.hashes_code else self.first_code(),
            unhashed=self.unhashed,
            unordered=self.info.unordered,
        )

    def make_sealed_call(self, arguments: dict[str, Any], seal: Seal) -> SealedCall:
        """Return the call with these arguments, of which ``seal`` tells the digests."""
        return SealedCall(
            name=self.info.name,
            arguments=arguments,
            module=self.info.module,
            version=self.options.version,
            code=seal.code or self.first_code(),
            unhashed=self.unhashed,
            unordered=self.info.unordered,
            digests=seal.digests,
            buffers=seal.buffers,
        )

    def first_code(self) -> Digest | None:
        """Return the digest of the code as it was when it was first asked for, if it has one."""
        if self._first_code is None:
            try:
                self._first_code = self.info.code
            except Exception:  # noqa: BLE001 (what an object raises when it is looked into)
                return None
        return self._first_code

    def check_code(self, record: CallRecord) -> None:
        """Warn if ``record`` holds the result of other code, which the key does not tell."""
        if self.hashes_code or record.code is None:
            return
        now = self.first_code()
        if now is not None and now != record.code:
            self.complaints.make(
                "code",
                f"{self.info.name}(): the code has changed since this result was stored. If it now "
                "computes something else, give it another version: @fleche(version=...), or "
                f"compute anew with {self.info.name}.rerun(...)",
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return Core, (self.info, replace(self.options, hash_code=self.hashes_code))
