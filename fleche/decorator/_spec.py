"""What a decorated function is: the function, its options, and the keys of its calls."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from time import thread_time
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from fleche import state
from fleche.call import MISSING, Call, CallRecord, LazyCall, Version, refer
from fleche.decorator._rules import Rules
from fleche.decorator._warnings import WarnOnce
from fleche.digest import BufferDigests, CallKeys, Digest, digest_arguments
from fleche.errors import Indigestible, ParcelError
from fleche.function import (
    Change,
    Closure,
    CodeTracker,
    Dependencies,
    Depends,
    FunctionInfo,
    changes_between,
    digest_of_parts,
    inspect_function,
    own_code,
    pack_knowledge,
    save_texts,
    take_knowledge,
)

if TYPE_CHECKING:
    from fleche.caches import AcceptedCode, BaseCache
    from fleche.metadata import MetaData

__all__ = [
    "SIMPLE",
    "CallIdentity",
    "Coalesce",
    "FunctionSpec",
    "Options",
    "StoredCalls",
    "worker_notice",
]

log = logging.getLogger("fleche.decorator")

Coalesce: TypeAlias = Literal["threads", "processes"]

SIMPLE = frozenset([type(None), bool, int, float, str, bytes])
"""Scalars of Python: they hold no digest, generator, buffer or code, and no body changes them."""

_active_cache = state.active_cache  # each hit asks for it: by a name of this module


class Options(msgspec.Struct, frozen=True):
    """What was said where the function was decorated.

    Attributes:
        version: what the author says the function is at.
        meta: collectors beside the active ones.
        isolate: neither arguments nor results are shared with the function.
        directory: the body runs in a fresh working directory.
        hash_version: the version is part of the key.
        hash_module: the module is part of the key.
        hash_code: the code is part of the key; ``None``: it is where no version is given.
        depends: what counts besides the code.
        ignore_globals: variables that do not count.
        cache: used instead of the active cache.
        coalesce: what computes identical calls only once: the ``"threads"`` of each process, or all
            ``"processes"`` that share the cache.
        rules: what a stored result must be to count; ``None``: it always does.
    """

    version: Version = None
    meta: tuple[MetaData, ...] = ()
    isolate: bool = False
    directory: bool = False
    hash_version: bool = True
    hash_module: bool = True
    hash_code: bool | None = None
    depends: tuple[Depends, ...] = ()
    ignore_globals: tuple[str, ...] = ()
    cache: BaseCache | str | None = None
    coalesce: Coalesce = "threads"
    rules: Rules | None = None


class CallIdentity(msgspec.Struct, frozen=True):
    """What digesting the arguments of a call has found.

    Attributes:
        key: the key of the call.
        digests: the digest of each argument.
        code: the digest of the code and what it depends on; None if that cannot be told.
        closure: what the code depends on, as far as that can be told.
        buffers: the digests of the large buffers inside, for the packing of the arguments.
        seconds: the time of the processor that digesting the arguments took.
        others: further digests under which a result of this code may be stored, since some of it
            was accepted.
    """

    key: Digest
    digests: Mapping[str, Digest]
    code: Digest | None
    closure: Closure | None
    buffers: BufferDigests
    seconds: float = 0.0
    others: tuple[Digest, ...] = ()


_NO_BUFFERS = BufferDigests()
"""What is found in plain scalars."""


class WorkerNotice:
    """Says in a worker process, once, which cache functions use there that were sent without one.

    Attributes:
        is_known: whether there is nothing more to say.
    """

    def __init__(self) -> None:
        self.is_known = False
        self._is_forked = False

    def look(self, name: str, cache: BaseCache) -> None:
        """Say where results go, if this is a worker process."""
        self.is_known = True
        parent = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)
        if parent is None or parent() is None:
            return
        # the kernel of marimo is such a process, and the program itself
        is_notebook = getattr(sys.modules.get("marimo"), "running_in_notebook", None)
        if is_notebook is not None and is_notebook():
            return
        # a forked child has inherited what was active
        is_as_meant = state.is_cache_set() or self._is_forked
        log.log(
            logging.INFO if is_as_meant and cache.capabilities.shared else logging.WARNING,
            "%s(): no cache was sent to this worker process, which uses %r. To use the one that is "
            "active where calls are submitted, submit %s.bind(), or use wrap_executor()",
            name,
            cache,
            name,
        )

    def begin_anew(self) -> None:
        """Look again, in a forked child."""
        self.is_known, self._is_forked = False, True


worker_notice = WorkerNotice()
os.register_at_fork(after_in_child=worker_notice.begin_anew)


class FunctionSpec:
    """A decorated function, apart from how it is called.

    Attributes:
        function: the function as it was written.
        info: what is known of it.
        options: what was said where it was decorated.
        is_async: whether a call has to be awaited.
        gathering: the names of ``*args`` and ``**kwargs``.
        takes_simple: whether arguments that are :data:`SIMPLE` count as they are.
        digest_by_default: whether the default of a parameter is a digest.
        warner: what it has been warned of.
        bind: takes the arguments of a call, and returns them in their canonical form.
        body: what runs on a miss: the function, perhaps in a directory of its own.
        rules: what a stored result must be to count; ``None``: it always does.
        keeps_errors: whether exceptions of some classes count like results.
        looks_for_draws: how many more bodies are watched for draws from generators of modules.
    """

    def __init__(self, info: FunctionInfo, options: Options) -> None:
        self.info = info
        self.options = options
        self.rules = options.rules
        self.keeps_errors = bool(self.rules and self.rules.errors)
        self.body: Callable[..., Any] = info.function
        if options.directory:
            from fleche.decorator._directory import in_fresh_directory

            self.body = in_fresh_directory(info.function)
        self.function: Callable[..., Any] = info.function
        self.warner = WarnOnce(info.function, info.name)
        self.looks_for_draws = 8  # a look costs some 50 us: a function that draws, does so early
        self.is_async = info.is_coroutine
        self.gathering = frozenset(
            name
            for name, parameter in info.signature.parameters.items()
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        )
        self.digest_by_default = any(
            isinstance(parameter.default, Digest) for parameter in info.own.parameters.values()
        )
        self.tracker = CodeTracker(
            info.function,
            info.module,
            ignored=info.ignored,
            depends=options.depends,
            ignore_globals=options.ignore_globals,
        )
        self.bind = info.binder() or self._bind
        self._kept: Digest | None = None  # the code whose sources were kept last
        self._keys: CallKeys | None = None  # made at the first call
        self.takes_simple = not (self.gathering or info.unordered or info.content or info.secret)

    def called(self, module: str, name: str) -> FunctionSpec:
        """Return the same under a name of which the function was defined anew."""
        for attribute, value in (("__module__", module), ("__qualname__", name)):
            with suppress(AttributeError):  # of a callable that takes none
                setattr(self.function, attribute, value)
        info = msgspec.structs.replace(self.info, module=module, name=name)
        return FunctionSpec(info, self.options)

    def inspected_anew(self) -> FunctionSpec:
        """Return the same for a function whose parts have changed.

        Raises:
            AttributeError: an option names what is no parameter any more.
        """
        known = self.info
        try:
            info = inspect_function(known.function, ignore=known.ignored, require=known.required)
        except (TypeError, ValueError) as error:
            raise AttributeError(str(error)) from error
        fixed = msgspec.structs.replace(
            info, module=known.module, name=known.name, added=known.added, renamed=known.renamed
        )
        return FunctionSpec(fixed, self.options)

    def _bind(self, /, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.info.bind(args, kwargs)

    @cached_property
    def hashes_code(self) -> bool:
        """Whether the code is part of the key: where no version speaks for it."""
        said = self.options.hash_code
        return said if said is not None else self.options.version is None

    @cached_property
    def counts_code(self) -> bool:
        """Whether the key has a part for code: the code itself, or what ``depends=`` adds."""
        return self.hashes_code or bool(self.options.depends)

    def extra_tokens(self) -> list[str]:
        """Return what ``depends=`` adds, for functions that use this one."""
        return [node.token for node in self.tracker.extras().values()]

    @cached_property
    def unhashed(self) -> tuple[str, ...]:
        """The parts of a call that are recorded, and are no part of the key."""
        known = {"module": not self.options.hash_module, "code": not self.counts_code}
        known["version"] = self.options.version is not None and not self.options.hash_version
        return tuple(sorted(part for part, is_out in known.items() if is_out))

    def cache(self) -> BaseCache:
        """Return the cache that counts for a call made now.

        Raises:
            ConfigError: it cannot be built.
        """
        chosen = self.options.cache
        if chosen is None:
            found = _active_cache()
            if not worker_notice.is_known:
                worker_notice.look(self.info.name, found)
            return found
        return state.forced_cache() or (
            state.named_cache(chosen) if isinstance(chosen, str) else chosen
        )

    def collectors(self) -> tuple[MetaData, ...]:
        """Return the collectors that count for a call made now."""
        found = (*state.meta(), *self.options.meta) if self.options.meta else state.meta()
        tags = state.tags()
        if not tags:
            return found
        from fleche.metadata import Tags

        return (*found, Tags(**tags))

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
            raise KeyError(self.no_value(name, value, cache)) from None

    def no_value(self, name: str, value: Digest, cache: BaseCache) -> str:
        """Return what to say of a digest that stands for no value."""
        said = f"{self.info.name}(): the argument {name!r} is {value!r}"
        with suppress(Exception):  # of any cache; it is being told that something is not there
            call = cache.load(value)
            return f"{said}, the key of a call, {call!r}; pass its result, or the digest of that"
        return f"{said}, and the cache holds no such value; pass the value itself"

    def identify(
        self,
        arguments: dict[str, Any],
        *,
        simple: bool = False,
        accepted: AcceptedCode | None = None,
    ) -> CallIdentity:
        """Digest the arguments, and the code if it is part of the key.

        Args:
            arguments: in their canonical form.
            simple: all of them are :data:`SIMPLE`.
            accepted: which code was accepted for other code, in the cache that counts.

        Raises:
            Indigestible: an argument has no digest.
        """
        keys = self._keys or self._make_keys()
        buffers, seconds = _NO_BUFFERS, 0.0
        digests: Mapping[str, Digest] = {}
        if not simple:
            buffers = BufferDigests()
            began = thread_time()
            digests = keys.digests(arguments, buffers)
            seconds = thread_time() - began
            if self.info.secret and buffers.paths:  # no record is to show these
                met = self._meet({name: arguments.get(name) for name in self.info.secret})
                for path in met.paths:
                    buffers.paths.pop(path, None)
        closure, code = self._look_at_code(buffers.code, arguments)
        others: tuple[Digest, ...] = ()
        if accepted is not None:
            code, others = self._accepted(closure, code, accepted)
        counted = code if self.counts_code else None
        if simple:
            key, digests = keys.of_scalars(counted, arguments)
        else:
            key = keys.key(counted, digests)
        return CallIdentity(key, digests, code, closure, buffers, seconds, others)

    def _accepted(
        self, closure: Closure | None, code: Digest | None, accepted: AcceptedCode
    ) -> tuple[Digest | None, tuple[Digest, ...]]:
        """Return the digest that code counts by, since some of it was accepted, and the others."""
        if closure is None or code is None or (self.options.depends and not self.hashes_code):
            return code, ()
        home = self.tracker.module
        found: tuple[Digest, ...]
        if self.options.depends:  # what these add may be another thing at each call
            extras = self.tracker.extra_parts()
            forms = accepted.forms(closure.digests, home)
            found = tuple(digest_of_parts({**form, **extras}) for form in forms)
        else:
            found = accepted.remember(
                (closure.digest, home),
                lambda: tuple(map(digest_of_parts, accepted.forms(closure.digests, home))),
            )
        return (found[0], (*found[1:], code)) if found else (code, ())

    def with_accepted(self, identity: CallIdentity, accepted: AcceptedCode) -> CallIdentity:
        """Return the identity of the same call where code was accepted, which was not known yet."""
        code, others = self._accepted(identity.closure, identity.code, accepted)
        if not others:
            return identity
        replaced = msgspec.structs.replace(identity, code=code, others=others)
        return self.with_code(replaced, code)

    def with_code(self, identity: CallIdentity, code: Digest | None) -> CallIdentity:
        """Return the identity of the same call with another digest of its code."""
        keys = self._keys or self._make_keys()
        key = keys.key(code if self.counts_code else None, identity.digests)
        return msgspec.structs.replace(identity, key=key, code=code)

    def stored_identity(
        self,
        identity: CallIdentity,
        cache: BaseCache,
        is_there: Callable[[Digest], Any],
    ) -> CallIdentity:
        """Return the identity under which a call is stored; the one it would get, if it is not.

        Args:
            identity: of the call.
            cache: says which code was accepted.
            is_there: returns whether a call of this key is stored.
        """
        if not self.hashes_code or is_there(identity.key):
            return identity
        accepted = cache.read_accepted()
        if accepted is None:
            return identity
        if not identity.others:
            raw, identity = identity, self.with_accepted(identity, accepted)
            if identity is raw or is_there(identity.key):
                return identity
        for code in identity.others:
            other = self.with_code(identity, code)
            if is_there(other.key):
                return other
        return identity

    def _make_keys(self) -> CallKeys:
        info, options = self.info, self.options
        self._keys = CallKeys(
            name=info.name,
            module=info.module if options.hash_module else None,
            version=options.version if options.hash_version else None,
            unordered=info.unordered,
            content=info.content,
        )
        return self._keys

    def _look_at_code(
        self, met: Sequence[Any], arguments: Mapping[str, Any]
    ) -> tuple[Closure | None, Digest | None]:
        """Return what the code depends on, and its digest as it counts or is recorded.

        Args:
            met: the functions, classes and modules that were met in the arguments.
            arguments: of the call.
        """
        try:
            closure = self.tracker.closure(own_code(met) if met else ())
            if closure.asked is not None:
                named = closure.asked.roots(arguments.values())
                closure = self.tracker.closure([*own_code(met), *named])
        except Exception:
            if self.hashes_code:
                raise
            closure = None  # a version speaks for the code, whatever is the matter with it
        if self.options.depends:
            parts = closure.digests if closure is not None and self.hashes_code else {}
            return closure, digest_of_parts({**parts, **self.tracker.extra_parts()})
        return closure, None if closure is None else closure.digest

    def make_call(self, arguments: Mapping[str, Any]) -> Call:
        """Return the call with these arguments, not sealed."""
        try:
            closure, code = self._look_at_code(self._meet(arguments).code, arguments)
        except Exception:
            if self.counts_code:
                raise
            closure = code = None
        return Call(
            name=self.info.name,
            arguments=dict(arguments),
            module=self.info.module,
            version=self.options.version,
            code=code,
            unhashed=self.unhashed,
            dependencies={} if closure is None else closure.record(),
            unordered=self.info.unordered,
            content=self.info.content,
        )

    def make_record(self, arguments: Mapping[str, Any], identity: CallIdentity) -> CallRecord:
        """Return the record of a call whose arguments have the digests of ``identity``."""
        content = self.info.content
        references = {}
        for name, found in identity.digests.items():
            value = MISSING if name in content else arguments[name]
            references[name] = refer(found, value)
        code, closure = identity.code, identity.closure
        return CallRecord(
            name=self.info.name,
            module=self.info.module,
            version=self.options.version,
            code=None if code is None else str(code),
            dependencies={} if closure is None else closure.record(),
            arguments=references,
            unhashed=self.unhashed,
        )

    def concealed(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return ``arguments`` with ``MISSING`` in place of those that are secret."""
        secret = self.info.secret
        return {name: MISSING if name in secret else each for name, each in arguments.items()}

    def dependencies(self, arguments: Mapping[str, Any]) -> Dependencies:
        """Return what the results depend on, with what occurs in ``arguments``."""
        closure, _ = self._look_at_code(self._meet(arguments).code, arguments)
        return self.tracker.listing(closure or self.tracker.closure())

    def _meet(self, arguments: Mapping[str, Any]) -> BufferDigests:
        """Return what is met in arguments, some of which may have no digest."""
        met = BufferDigests()
        for name, value in arguments.items():
            with suppress(Indigestible):
                digest_arguments({name: value}, met)
        return met

    def changes_since(self, call: LazyCall, closure: Closure | None) -> list[Change]:
        """Return what has changed of the code since a call was stored."""
        if closure is None or not call.dependencies:
            return []
        return changes_between(call.dependencies, closure, call.code)

    def check_code(self, call: LazyCall, identity: CallIdentity, cache: BaseCache) -> None:
        """Warn if a call is one of other code, where the key does not tell; of each change once."""
        then = call.entry.record.code
        if then is None or identity.closure is None:
            return
        if then == identity.code and not self.options.depends:
            return
        changes = self.changes_since(call, identity.closure)
        if changes and not self._is_accepted(call, identity.closure, cache):
            self.warner.warn(
                f"code:{then}:{identity.closure.digest}",
                f"{describe_changes(self.info.name, changes)} since this result was stored. "
                "If it now computes something else, give it another version: "
                f"@fleche(version=...), or compute anew with {self.info.name}.rerun(...); if it "
                f"computes the same, say so: {self.info.name}.accept()",
            )

    def _is_accepted(self, call: LazyCall, closure: Closure, cache: BaseCache) -> bool:
        """Return whether the code of a call was accepted as being what there is now."""
        accepted = cache.read_accepted()
        if accepted is None:
            return False
        now, then = map(accepted.canonical, self.parts(call, closure))
        return now == then

    def parts(
        self, call: LazyCall, closure: Closure | None
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Return the parts of the code as they are now, and as they were for a stored call."""
        from fleche.caches import absolute_parts

        home = self.tracker.module
        now = {} if closure is None else absolute_parts(closure.digests, home)
        return now, absolute_parts(call.dependencies, call.module or home)

    def keep_sources(self, identity: CallIdentity) -> None:
        """Keep the sources of what a result depends on, to show what has changed later."""
        if identity.closure is not None and identity.code not in (None, self._kept):
            save_texts(identity.code, identity.closure)
            self._kept = identity.code

    def __reduce__(self) -> tuple[Any, ...]:
        with suppress(Exception):  # what an object raises when it is looked into
            self.tracker.closure()
        return _rebuild, (self.info, self.options, pack_knowledge(self.info.module))


class StoredCalls:
    """Calls as they are stored in a cache, each loaded once.

    Args:
        cache: where they are.
    """

    def __init__(self, cache: BaseCache) -> None:
        self._cache = cache
        self._found: dict[Digest, LazyCall | KeyError | ParcelError] = {}

    def load(self, key: Digest) -> LazyCall:
        """Return the stored call of a complete key; raises what :meth:`BaseCache.load` does."""
        if key not in self._found:
            try:
                self._found[key] = self._cache.load(key)
            except (KeyError, ParcelError) as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, Exception):
            raise found
        return found

    def is_there(self, key: Digest) -> bool:
        """Return whether a call can be answered; mostly its entry tells."""
        from fleche.caches import result_needs

        try:
            entry = self.load(key).entry
        except (KeyError, ParcelError):
            return False
        needs = result_needs(entry, signed=bool(self._cache.packing.keys))
        return not needs or self._cache.contains_many([key])[0]


def _rebuild(info: FunctionInfo, options: Options, knowledge: dict[str, Any]) -> FunctionSpec:
    take_knowledge(knowledge)
    return FunctionSpec(info, options)


def describe_changes(name: str, changes: list[Change]) -> str:
    """Say what has changed, as in "energy() uses helper `area`, which has changed"."""
    shown = [change for change in changes if change.name != name]
    if len(shown) < len(changes):
        return f"{name}(): the code has changed" + (f", with {listed(shown)}," if shown else "")
    last = {"changed": "has changed", "new": "is new", "gone": "is gone"}
    what = {change.what for change in shown}
    verb = last[what.pop()] if len(what) == 1 and len(shown) == 1 else "have changed"
    return f"{name}() uses {listed(shown)}, which {verb}"


def listed(changes: list[Change]) -> str:
    # a function, and what its name leads to, are one
    names = list(dict.fromkeys(map(str, changes)))
    if len(names) > 3:
        names[3:] = [f"{len(names) - 3} more"]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
