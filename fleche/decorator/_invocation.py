"""One call on its way: from its arguments to the cache, and back or through the function's body.

A failing cache never stops the function. What it raises becomes one warning, and the call goes on
without it. A cache that cannot be asked may still be able to store, as a stack can whose far layer
is out of reach: what has been computed is offered to it all the same. Only a mistake that a person
has to mend is raised: a broken configuration, a missing package, an ambiguous digest, and, of a
cache that is told to be strict, a damaged value.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from inspect import Parameter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fleche.call import MISSING, LazyCall
from fleche.decorator._effects import (
    changed_files,
    find_generators,
    restore_generators,
    same_generators,
)
from fleche.decorator._singleflight import Flight, inside, note_child
from fleche.decorator._spec import SIMPLE, CallIdentity, FunctionSpec
from fleche.decorator._warnings import is_out_of_stack
from fleche.digest import ContentError, Digest, digest_arguments
from fleche.errors import AmbiguousDigestError, ConfigError, Indigestible, MissingExtra, ParcelError

if TYPE_CHECKING:
    from fleche.caches import BaseCache
    from fleche.decorator._computation import Computation

__all__ = ["LOUD", "Invocation", "KeyedInvocation", "prepare_invocation", "run_body"]

LOUD = (AmbiguousDigestError, ConfigError, MissingExtra)
"""The mistakes that a person has to mend."""


class Invocation:
    """A call on its way to the body; without more to it, none that is cached.

    Attributes:
        spec: the function.
        cache: where digests are looked up.
        args: the positional arguments as they were passed.
        kwargs: the keyword arguments as they were passed.
    """

    def __init__(
        self, spec: FunctionSpec, cache: BaseCache, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.spec = spec
        self.cache = cache
        self.args = args
        self.kwargs = kwargs

    def enter(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what to call the body with."""
        return self.body_arguments()

    def fail(self, error: BaseException) -> None:
        """End a body that has raised."""
        del error
        self.remove_directories()

    def finish(self, result: Any) -> Any:
        """End a body that has returned ``result``; return what the caller gets.

        If it raises, :meth:`fail` comes next.
        """
        result = self.own(result)
        self.remove_directories()
        return result

    def alone(self) -> Any:
        """Call the function as if there were no cache."""
        return run_body(self)

    async def alone_async(self) -> Any:
        """Do the same for a coroutine function."""
        args, kwargs = self.body_arguments()
        return self.own(await self.spec.body(*args, **kwargs))

    def own(self, result: Any) -> Any:
        """Return what the caller gets of a result: a copy, if the body is to keep nothing of it.

        A copy has copies of the files that the result names. If there can be none, it is the result
        itself.
        """
        options = self.spec.options
        copied = self.copy(result) if options.isolate or options.directory else MISSING
        return result if copied is MISSING else copied

    def remove_directories(self) -> None:
        """Remove the working directories of bodies that have ended in this thread."""
        if self.spec.options.directory:
            from fleche.decorator._directory import remove_directories

            remove_directories()

    def copy(self, value: Any) -> Any:
        """Return a copy that shares nothing with ``value``; ``MISSING`` if there can be none."""
        packing = self.cache.packing
        try:
            return packing.unpack(packing.pack(value))
        except Exception:  # noqa: BLE001 (a pickler raises anything)
            return MISSING

    def body_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what the body gets: values in place of digests, copies if it is isolated.

        Ignored arguments are not copied: a log, a progress bar are passed to be changed.

        Raises:
            TypeError: the function cannot be called so.
            KeyError: a digest stands for no value.
            ParcelError: its value cannot be opened.
        """
        spec = self.spec
        if not (spec.options.isolate or spec.digest_by_default):
            kinds = [*map(type, self.args), *map(type, self.kwargs.values())]
            if Digest not in kinds:
                return self.args, self.kwargs
        bound = spec.info.bind_own(self.args, self.kwargs)
        ignored, keywords = spec.info.ignored, spec.info.ignored_keywords
        for name, value in bound.arguments.items():
            kind = bound.signature.parameters[name].kind
            if kind is Parameter.VAR_KEYWORD:
                given = {k: self._for_body(k, v, k in keywords) for k, v in value.items()}
                bound.arguments[name] = given
            elif kind is Parameter.VAR_POSITIONAL:
                items = (self._for_body(name, item, name in ignored) for item in value)
                bound.arguments[name] = tuple(items)
            else:
                bound.arguments[name] = self._for_body(name, value, name in ignored)
        return bound.args, bound.kwargs

    def _check_content(self, name: str, found: Any, digest: Digest) -> None:
        """Check that paths still lead to the content of ``digest``; the bytes are not in the cache.

        Raises:
            KeyError: they do not.
        """
        try:
            now = digest_arguments({name: found}, content=(name,))[name]
        except Indigestible as error:
            raise KeyError(f"{self.spec.no_value(name, digest, self.cache)} ({error})") from error
        if now != self.cache.complete(digest):
            said = self.spec.no_value(name, digest, self.cache)
            raise KeyError(f"{said} ({found} holds something else by now)")

    def _for_body(self, name: str, value: Any, is_ignored: bool) -> Any:
        if isinstance(value, Digest):
            try:
                found = self.cache.load_value(value)
            except KeyError:
                raise KeyError(self.spec.no_value(name, value, self.cache)) from None
            if name in self.spec.info.content:
                self._check_content(name, found, value)
            value = found
        if is_ignored or not self.spec.options.isolate:
            return value
        copied = self.copy(value)
        return value if copied is MISSING else copied


def run_body(step: Invocation | Computation) -> Any:
    """Call the function as the step of its call says."""
    try:
        args, kwargs = step.enter()
        return step.finish(step.spec.body(*args, **kwargs))
    except BaseException as error:
        step.fail(error)
        raise


class KeyedInvocation(Invocation):
    """A call with its key.

    Attributes:
        arguments: the arguments in their canonical form.
        identity: what digesting the arguments has found.
        key: the key, of the arguments as they were at the beginning.
        slot: what identical calls at the same time have in common.
        generators: the random generators among the arguments that a call advances; by name.
        simple: whether all arguments are scalars of Python.
        lost: the cache could not be asked when it was last looked into, and that has been said.
    """

    # what few calls have: a hit makes one of these objects
    lost = False
    generators: Mapping[str, Any] = MappingProxyType({})
    _states: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        spec: FunctionSpec,
        cache: BaseCache,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        arguments: dict[str, Any],
        identity: CallIdentity,
        *,
        simple: bool = False,
    ) -> None:
        self.spec = spec  # here and not by the base: a hit makes one of these objects
        self.cache = cache
        self.args = args
        self.kwargs = kwargs
        self.arguments = arguments
        self.identity = identity
        self.simple = simple
        self.key = identity.key
        self.slot: Hashable = (cache.slot, identity.key)
        if not (simple or spec.options.isolate):
            self.generators = find_generators(arguments, spec.gathering)

    def look(self, *, again: bool = False) -> Any:
        """Return the stored call, or ``None``: there is none, or the cache cannot be asked.

        Args:
            again: it was looked for before.
        """
        spec = self.spec
        self.lost, raised = False, spec.keeps_errors
        try:
            hit = self.cache.lookup(self.key, again=again, raised=raised)
            hit = hit or self._look_for_accepted()
        except (*LOUD, ParcelError):
            raise
        except Exception as error:
            if is_out_of_stack(error):
                raise
            spec.warner.warn_error(
                "lookup",
                error,
                "runs without looking for a stored result, since the cache failed",
                "The new result is stored if the cache can do that at least. "
                "Mend the cache, or activate another: fleche.cache(...)",
            )
            self.lost = True
            return None
        if spec.warner.had_outages:
            spec.warner.settle("lookup")
        if hit is None:
            return None
        if (
            (spec.rules is not None and not spec.rules.answers(self, hit))
            or (self.generators and not self._open_states(hit))
            or (self.identity.buffers.paths and changed_files(hit.record))
        ):
            self.cache.take_back(hit, again=again)
            return None
        if not spec.hashes_code:
            spec.check_code(hit, self.identity, self.cache)
        return hit

    def _look_for_accepted(self) -> Any:
        """Return the stored call of code for which this code was accepted, or ``None``."""
        if not self.spec.hashes_code or self.cache.read_accepted() is None:
            return None
        found: Any = None
        asked = self.key

        def is_there(key: Digest) -> bool:
            nonlocal found
            if key != asked:
                found = self.cache.lookup(key, again=True, raised=self.spec.keeps_errors)
            return found is not None

        identity = self.spec.stored_identity(self.identity, self.cache, is_there)
        if identity is not self.identity:  # it is the same call under another key
            self.identity, self.key = identity, identity.key
            self.slot = (self.cache.slot, identity.key)
        return found

    def _open_states(self, hit: LazyCall) -> bool:
        """Open the states that the generators were left in; return whether all are there.

        Else a hit could not advance them as the body does.
        """
        try:
            self._states = {name: hit.states[name] for name in self.generators}
        except (KeyError, ParcelError):
            return False
        return True

    def answer(self, hit: LazyCall) -> LazyCall:
        """Let a hit, which :meth:`look` has returned, be the answer to this call.

        It counts for the body that has made the call, and advances generators as the body would.
        """
        around = inside.get()
        if around:
            around[-1].children[self.key] = None
        if self.generators:
            restore_generators(self.generators, self._states)
        return hit

    def share(self, flight: Flight) -> Any:
        """Return what another caller has computed, as one's own; ``MISSING`` if there is none."""
        hit = self.look()
        if hit is not None:
            return self.answer(hit).result
        if flight.spare is MISSING or self.generators:
            return MISSING
        note_child(self.key)
        return self.copy(flight.spare)


def prepare_invocation(
    spec: FunctionSpec, cache: BaseCache, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Invocation | KeyedInvocation:
    """Find the key of a call, or return a mere :class:`Invocation` if it is not to be cached.

    Raises:
        TypeError: the function cannot be called so.
        KeyError: a digest among the arguments stands for no value.
        AmbiguousDigestError: a short one stands for several.
    """
    arguments = bound_arguments(spec, args, kwargs)
    if arguments is None:
        return Invocation(spec, cache, args, kwargs)
    try:
        simple = spec.takes_simple and SIMPLE.issuperset(map(type, arguments.values()))
    except TypeError:  # of a class that has no hash, since its metaclass has an equality only
        simple = False
    if not simple:
        spec.expanded(arguments, cache)
    try:
        identity = spec.identify(arguments, simple=simple, accepted=cache.accepted)
    except ContentError as error:
        spec.warner.warn_error(
            "content",
            error,
            "runs uncached, since what a file holds, which is part of its key, cannot be told",
            "Pass the path of a file or directory that this process can read",
        )
    except Exception as error:
        if is_out_of_stack(error):
            raise
        spec.warner.warn_error(
            "arguments",
            error,
            "runs uncached, since something in its arguments or its code has no digest",
            "If the result does not depend on it, leave it out: mark the parameter as Ignored, or "
            "say @fleche(hash_code=False) for the code",
        )
    else:
        keyed = KeyedInvocation(spec, cache, args, kwargs, arguments, identity, simple=simple)
        if len(keyed.generators) < 2 or not (names := same_generators(keyed.generators)):
            return keyed
        spec.warner.warn(
            "generators",
            f"{spec.info.name}(): runs uncached, since {' and '.join(map(repr, names))} are one "
            "random generator, and no key tells them from two that are in the same state. Pass it "
            "once, or two that were seeded (generator.spawn(2))",
        )
    return Invocation(spec, cache, args, kwargs)


def bound_arguments(
    spec: FunctionSpec, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the arguments of a call in their canonical form; ``None`` if it is not to be cached.

    Raises:
        TypeError: the function cannot be called so.
    """
    info = spec.info
    try:
        arguments = spec.bind(*args, **kwargs)
    except TypeError:
        try:
            arguments = info.bind(args, kwargs)  # which says what is wrong
        except TypeError as error:
            if not info.borrowed:
                raise
            spec.warner.warn_error(
                "signature",
                error,
                "runs uncached, since a wrapper of this function may take what the function does "
                "not",
                "Let the wrapper name its parameters, instead of *args and **kwargs",
            )
            return None
    if info.required and info.missing_required(arguments, info.explicit(args, kwargs)):
        return None
    return arguments
