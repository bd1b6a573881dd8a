"""The decorated function: how it is called, what else it offers, and how it looks to tools."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from fleche._util import annotations_of
from fleche.call import Call, LazyCall
from fleche.decorator._effects import changed_files
from fleche.decorator._execution import (
    approach,
    compute_async,
    run,
    run_async,
    short_traceback,
    strip_frames,
)
from fleche.decorator._invocation import KeyedInvocation, prepare_invocation, run_body
from fleche.decorator._singleflight import Flight
from fleche.decorator._spec import CallIdentity, FunctionSpec, StoredCalls
from fleche.digest import Digest
from fleche.function import Dependencies, Transparent, signature_of

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fleche.caches import BaseCache, QueryIterator
    from fleche.decorator._bound import BoundWrapper
    from fleche.decorator._explain import Explanation
    from fleche.decorator._search import FunctionStats
    from fleche.metadata import MetaData

__all__ = ["BoundMethod", "CachedFunction", "Wrapper", "is_asked_by_cloudpickle"]

_LIKE_A_COROUTINE = ("__code__", "__defaults__", "__kwdefaults__")
_OF_FUNCTIONS = (*_LIKE_A_COROUTINE, "__globals__", "__closure__")
_OURS = ("spec", "_is_coroutine", "_is_coroutine_marker", *_LIKE_A_COROUTINE)
"""Attributes of which a wrapper has a use of its own."""

_RELOADED = (*_LIKE_A_COROUTINE, "__dict__")
_RELOADERS = ("IPython.extensions.autoreload", "marimo._runtime.reload.autoreload")
"""Modules that put the parts of a new function into the old one, if both are functions."""

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class CachedFunction(Transparent, Generic[P, R_co]):
    """A function whose results are kept.

    Every method that takes arguments takes those of the function.

    Attributes:
        spec: the function, its options, and what makes the keys of its calls.
        lead: the object whose method it is, if it is one.
    """

    spec: FunctionSpec
    lead: tuple[Any, ...] = ()

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the stored result, or compute it and store it."""
        spec = self.spec
        if spec.is_async:
            return run_async(spec, spec.cache(), (*self.lead, *args), kwargs)  # type: ignore[return-value]
        step, result = approach(spec, spec.cache(), (*self.lead, *args), kwargs)
        if step is None:
            return result  # type: ignore[no-any-return]
        # As in run_body(), but here: so a nested call adds one frame to that of its body, and a
        # recursion gets deep.
        try:
            given, named = step.enter()
            return step.finish(spec.body(*given, **named))  # type: ignore[no-any-return]
        except BaseException as error:
            if spec.options.directory:
                strip_frames(error)
            step.fail(error)
            raise

    def call_with(self, cache: BaseCache, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function with another cache than the active one."""
        answer = run_async if self.spec.is_async else run
        with short_traceback:
            return answer(self.spec, cache, (*self.lead, *args), kwargs)  # type: ignore[return-value]

    def map(self, /, *arguments: Iterable[Any]) -> Iterator[R_co]:
        """Yield the results of many calls, in order, each as it is asked for, as :func:`map` does.

        Stored results are looked up a thousand calls at a time. What has to be computed is computed
        here, and small, quick results are saved together; results whose bodies took half a second
        in all are never unsaved. The cache is the one that is active now.

        Args:
            arguments: for each positional argument of the function its values, call by call.

        Raises:
            TypeError: the function is a coroutine function, or no arguments are given.
        """
        from fleche.decorator._map import map_calls

        return map_calls(self.spec, self.lead, arguments)

    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> Call:
        """Return the :class:`~fleche.call.Call` that these arguments make, without running it."""
        return self.spec.make_call(self.spec.info.bind((*self.lead, *args), kwargs))

    def digest(self, /, *args: P.args, **kwargs: P.kwargs) -> Digest:
        """Return the key of a call.

        Raises:
            Indigestible: an argument has no digest.
            KeyError: a short digest among the arguments stands for no value.
        """
        return self._identify(self.spec.cache(), args, kwargs).key

    def _identify(self, cache: BaseCache, args: Any, kwargs: Any) -> CallIdentity:
        spec = self.spec
        arguments = spec.expanded(spec.info.bind((*self.lead, *args), kwargs), cache)
        return spec.identify(arguments, accepted=cache.accepted)

    def contains(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Return whether the active cache has the result, without loading it."""
        spec, cache = self.spec, self.spec.cache()

        @functools.cache
        def is_there(key: Digest) -> bool:
            return cache.contains_many([key])[0]

        identity = spec.stored_identity(self._identify(cache, args, kwargs), cache, is_there)
        if not is_there(identity.key):
            return False
        if spec.rules is None and not identity.buffers.paths:
            return True
        stored = cache.load(identity.key)
        if spec.rules is not None and not spec.rules.counts(stored):
            return False
        return not identity.buffers.paths or not changed_files(stored.record)

    @overload
    def load(
        self: CachedFunction[P, Coroutine[Any, Any, S] | Future[S]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> LazyCall[S]: ...

    @overload
    def load(self, /, *args: P.args, **kwargs: P.kwargs) -> LazyCall[R_co]: ...

    def load(self, /, *args: P.args, **kwargs: P.kwargs) -> LazyCall[Any]:
        """Return the stored call.

        Raises:
            KeyError: there is none.
        """
        cache = self.spec.cache()
        identity, stored = self._identify(cache, args, kwargs), StoredCalls(cache)
        key = self.spec.stored_identity(identity, cache, stored.is_there).key
        try:
            return stored.load(key)
        except KeyError:
            raise KeyError(
                f"{self.spec.info.name}(): no result is stored for these arguments (key {key[:12]})"
            ) from None

    def rerun(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Compute, whatever is stored, and replace it by the new result."""
        spec = self.spec
        step: Any = prepare_invocation(spec, spec.cache(), (*self.lead, *args), kwargs)
        if isinstance(step, KeyedInvocation):
            if spec.is_async:
                return compute_async(step, Flight())  # type: ignore[return-value]
            from fleche.decorator._computation import Computation

            step = Computation(step, Flight())
        elif spec.is_async:
            return step.alone_async()  # type: ignore[no-any-return]
        with short_traceback:
            return run_body(step)  # type: ignore[no-any-return]

    @overload
    def query(
        self: CachedFunction[P, Coroutine[Any, Any, S] | Future[S]], /, **fields: Any
    ) -> QueryIterator[S]: ...

    @overload
    def query(self, /, **fields: Any) -> QueryIterator[R_co]: ...

    def query(self, /, **fields: Any) -> QueryIterator[Any]:
        """Return the stored calls of this function: ``query(x=3, y=between(0, 1), since="2d")``.

        Args:
            fields: by the name of a parameter what the argument was. A number counts by what it is
                worth, whatever its type; anything else by its digest. Or a condition of
                :mod:`fleche.call`. Other names are those of :meth:`fleche.call.QueryCall.of`:
                ``since=``, ``until=``, ``metadata=``, ``result=``, ``uses=``, ``arguments=`` (every
                value by its digest), ... A parameter of such a name comes first.

        Raises:
            TypeError: there is no parameter of that name, or a value is a function.
            Indigestible: a value has no digest.
        """
        from fleche.decorator._search import template_of

        return self.spec.cache().query(template_of(self.spec, fields))

    def stats(self) -> FunctionStats:
        """Return how much the active cache has of this function, and how it was used.

        Printed, it is a sentence. Hits and misses are counted by all processes that use the cache;
        what others have counted in the last minute may not be there yet.
        """
        from fleche.decorator._search import stats_of, template_of

        return stats_of(self.spec.cache(), template_of(self.spec, {}))

    def accept(self, *, dry_run: bool = False, undo: bool = False, **fields: Any) -> int:
        """Say that what is stored is right for the code as it is now; return how many calls.

        A refactoring that computes the same changes the code and so the keys. What has changed
        since the newest stored call of this function, of the same version, is accepted as being
        what it was: its stored calls are hits again, and so are those of every other function that
        uses the same changed code, here and wherever the cache is used. Nothing is computed.

        Args:
            dry_run: change nothing, and return how many calls there are.
            undo: take back what was accepted for this function, in this cache; return how many
                times that was. What the new code has computed meanwhile stays where it is: with the
                results of the old code.
            fields: which calls, as for :meth:`query`. If any are given, these calls alone are hits
                again, and the code is not accepted.

        Raises:
            Rejected: the active cache is read-only.
        """
        from fleche.decorator._accept import accept_code, take_back

        if undo:
            return take_back(self)
        return accept_code(self, fields, dry_run=dry_run, others=False).calls

    def clear(self) -> int:
        """Forget all stored calls of this function, of whatever version; return how many.

        Large values that they leave behind stay until the cache's ``gc()``: other calls may use
        them. ``query(...).evict()`` forgets some of the calls.

        Raises:
            Rejected: the active cache is read-only.
        """
        return self.query().evict()

    def bind(
        self,
        *,
        cache: BaseCache | str | None = None,
        meta: tuple[MetaData, ...] | None = None,
    ) -> BoundWrapper[P, R_co]:
        """Return the function with cache, metadata and tags frozen, for another thread or process.

        Args:
            cache: which cache, if not the active one.
            meta: which collectors, if not the active ones.
        """
        from fleche.decorator._bound import BoundWrapper

        return BoundWrapper(self, cache=cache, meta=meta)

    def explain(self, /, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """Say, without computing, whether a call would hit, and if not, why."""
        from fleche.decorator._explain import explain

        spec = self.spec
        return explain(spec, spec.cache(), (*self.lead, *args), kwargs)

    def dependencies(self, /, *args: P.args, **kwargs: P.kwargs) -> Dependencies:
        """Return what results depend on besides the arguments: names, kinds and digests.

        Args:
            args: those of a call, whose functions and objects bring code of their own, or none.
            kwargs: likewise.
        """
        spec = self.spec
        given = (*self.lead, *args)
        arguments = spec.info.bind(given, kwargs) if args or kwargs else {"": given}
        return spec.dependencies(arguments)

    def _repr_html_(self) -> str:
        """Return its name, its signature and what is said of it."""
        from fleche._html import facts

        spec = self.spec
        found = {"module": spec.info.module, "version": spec.options.version}
        if doc := getattr(spec.function, "__doc__", None):
            found["does"] = doc.strip().partition("\n")[0]
        shown = {name: each for name, each in found.items() if each is not None}
        return facts(f"{spec.info.name}{signature_of(spec.function)}", shown)

    def __digest__(self) -> Any:
        """Return what tells this function from others: itself as written, and its version."""
        return ("fleche", self.spec.function, self.spec.options.version, self.lead)


class Wrapper(CachedFunction[P, R_co]):
    """What :func:`fleche.fleche` makes of a function.

    It has the name, the documentation and the signature of the function, which is at
    ``__wrapped__``. It is a method where it is an attribute of a class. It pickles as a reference
    to its module and name.
    """

    __wrapped__: Callable[P, R_co]
    __name__: str
    __qualname__: str

    def __init__(self, spec: FunctionSpec) -> None:
        self.__module__, self.__qualname__ = spec.info.module, spec.info.name
        self.__name__ = spec.info.name.rpartition(".")[2]
        for name, each in getattr(spec.function, "__dict__", {}).items():
            if name not in _OURS and not hasattr(Wrapper, name):
                vars(self)[name] = each
        functools.update_wrapper(self, spec.function, updated=())
        self.__annotations__ = annotations_of(spec.function)
        self.spec = spec
        if spec.is_async:
            self._look_like_a_coroutine_function()

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        """The class; to :mod:`inspect`, what builds on it and ``%autoreload``, a function."""
        return _class_for_tools(self, Wrapper, FunctionType)

    def __getattr__(self, name: str) -> Any:
        # not in the __dict__, which functools.wraps() copies to what is wrapped round this
        if "__wrapped__" in vars(self):
            if name in _OF_FUNCTIONS:
                return getattr(self.__wrapped__, name)
            if name == "__signature__":
                return signature_of(self.__wrapped__)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Take over the parts of another function, which ``%autoreload`` sets one at a time."""
        if name not in _RELOADED:
            super().__setattr__(name, value)
            return
        spec = value.get("spec") if name == "__dict__" else None
        if isinstance(spec, FunctionSpec):
            spec = spec.called(self.__module__, self.__qualname__)
        elif isinstance(self.__wrapped__, FunctionType):
            setattr(self.__wrapped__, name, value)
            spec = self.spec.inspected_anew()
        else:  # what is reloaded may be below another decorator
            raise AttributeError(f"{name!r} of {self!r} cannot be set")
        vars(self).update(vars(Wrapper(spec)))  # all at once: other threads may be calling

    def _look_like_a_coroutine_function(self) -> None:
        import asyncio
        import inspect

        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)
        else:  # what inspect and asyncio look at
            for name in _LIKE_A_COROUTINE:
                vars(self)[name] = getattr(self.spec.function, name, None)
            self._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)

    # Type checkers look through a classmethod or staticmethod below the decorator; when it runs,
    # either is above it. What an attribute of the class takes they cannot tell, then.
    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> Wrapper[..., R_co]: ...

    @overload
    def __get__(
        self: Wrapper[Concatenate[type[S], Q], R_co], instance: S, owner: Any = None, /
    ) -> BoundMethod[Q, R_co]: ...

    @overload
    def __get__(
        self: Wrapper[Concatenate[S, Q], R_co], instance: S, owner: Any = None, /
    ) -> BoundMethod[Q, R_co]: ...

    @overload
    def __get__(self, instance: object, owner: Any = None, /) -> Wrapper[P, R_co]: ...

    def __get__(self, instance: Any, owner: type[Any] | None = None, /) -> Any:
        """Return the method of ``instance``."""
        return self if instance is None else BoundMethod(cast("Any", self), instance)

    def __reduce_ex__(self, protocol: Any) -> Any:
        is_main = self.__module__ in ("__main__", "__mp_main__")
        if self._is_findable() and not (is_main and is_asked_by_cloudpickle()):
            return self.__qualname__
        # the state comes after the object, since the globals of the function may lead back to it
        return Wrapper.__new__, (Wrapper,), self.spec

    def _is_findable(self) -> bool:
        found: Any = sys.modules.get(self.__module__)
        for name in self.__qualname__.split("."):
            found = getattr(found, name, None)
        return found is self

    def __setstate__(self, spec: FunctionSpec) -> None:
        Wrapper.__init__(self, spec)

    def __repr__(self) -> str:
        version = self.spec.options.version
        said = "" if version is None else f", version {version}"
        return f"<fleche {self.__module__}.{self.__qualname__}{said}>"


class BoundMethod(CachedFunction[P, R_co]):
    """A decorated method of an object."""

    def __init__(self, wrapper: Wrapper[..., R_co], instance: Any) -> None:
        self.__func__ = wrapper
        self.__self__ = instance
        self.__wrapped__ = MethodType(wrapper.__wrapped__, instance)
        self.__module__, self.__doc__ = wrapper.__module__, wrapper.__doc__
        self.__annotations__ = wrapper.__annotations__
        self.spec = wrapper.spec
        self.lead = (instance,)

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        """The class; to :mod:`inspect` and what builds on it a method is a method."""
        return _class_for_tools(self, BoundMethod, MethodType)

    def __getattr__(self, name: str) -> Any:
        if name in ("__func__", "__wrapped__", "spec"):
            raise AttributeError(name)
        if name == "__signature__":
            return signature_of(self.__wrapped__)
        return getattr(self.__func__, name)

    def __reduce__(self) -> Any:
        return BoundMethod, (self.__func__, self.__self__)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundMethod):
            return NotImplemented
        return self.__func__ is other.__func__ and self.__self__ is other.__self__

    def __hash__(self) -> int:
        return hash((id(self.__func__), id(self.__self__)))

    def __repr__(self) -> str:
        return f"<fleche method {self.__func__.__qualname__} of {self.__self__!r}>"


def _class_for_tools(wrapper: CachedFunction[..., Any], own: type, plain: type) -> type:
    """Return ``plain`` to :mod:`inspect` and to what reloads modules, and ``own`` to all others.

    Those accept nothing but what Python calls a function. Others, cloudpickle among them, take what
    claims to be a function apart, and would make another one of it.
    """
    asking = sys._getframe(2).f_globals.get("__name__")  # noqa: SLF001 (public in all but name)
    if asking in _RELOADERS:
        return plain
    if asking != "inspect":
        return own
    inner = vars(wrapper).get("__wrapped__")
    return plain if type(getattr(inner, "__func__", inner)) is FunctionType else own


def is_asked_by_cloudpickle() -> bool:
    """Return whether it is cloudpickle that reduces an object just now, by what calls this.

    It takes what is defined in ``__main__`` by value, and others by reference.
    """
    name: str = sys._getframe(2).f_globals.get("__name__", "")  # noqa: SLF001 (public in all but name)
    return name.partition(".")[0] == "cloudpickle"
