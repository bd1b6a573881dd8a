"""A function that takes cache, metadata and tags along, to a thread or a process."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from inspect import iscoroutinefunction
from threading import RLock
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from fleche import state
from fleche._util import renewed_after_fork
from fleche.decorator._execution import short_traceback
from fleche.decorator._function import CachedFunction, is_asked_by_cloudpickle
from fleche.decorator._spec import worker_notice
from fleche.decorator._warnings import WarnOnce
from fleche.errors import ConfigError, MissingExtra
from fleche.function import CodeTracker, own_code

if TYPE_CHECKING:
    from fleche.caches import BaseCache
    from fleche.metadata import MetaData

__all__ = ["BoundWrapper", "void_cache"]

P = ParamSpec("P")
R = TypeVar("R")

KEPT = 16
"""How many caches a worker process keeps open."""


class BoundWrapper(Generic[P, R]):
    """A function with the cache, the metadata and the tags it is to be called with.

    It pickles: the function by reference, or by value if it has no name to find it by, or is of a
    ``__main__`` that is another one, or says something else, where it is opened; the cache as its
    configuration. A cache in the memory of this process means nothing
    to another: there the function runs uncached, with one warning here.
    (:func:`fleche.wrap_executor` stores its results all the same.)

    Args:
        function: a decorated function or method, or a plain function, whose own calls of decorated
            functions then use all of this.
        cache: the cache, or its name; the active one, if not given.
        meta: the collectors; the active ones, if not given.

    Raises:
        TypeError: ``function`` cannot be called.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        cache: BaseCache | str | None = None,
        meta: tuple[MetaData, ...] | None = None,
    ) -> None:
        if not callable(function):
            raise TypeError(f"{function!r} is not a function")
        self.function = function
        if cache is None:
            cache = function.spec.cache() if isinstance(function, CachedFunction) else state.cache()
        chosen = state.named_cache(cache) if isinstance(cache, str) else cache
        self.cache = state.forced_cache() or chosen
        self.meta = state.meta() if meta is None else meta
        self.tags = state.tags()

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function as if all of this were active."""
        with short_traceback:
            return self.call_with(self.cache, *args, **kwargs)

    def call_with(self, cache: BaseCache, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function with a cache of its own; what it calls uses that of this object."""
        if _is_async(self.function):
            return self._call_async(cache, *args, **kwargs)  # type: ignore[return-value]
        with short_traceback, state.holding(self.cache, self.meta, self.tags):
            return self._called(cache, *args, **kwargs)

    async def _call_async(self, cache: BaseCache, /, *args: Any, **kwargs: Any) -> Any:
        with short_traceback, state.holding(self.cache, self.meta, self.tags):
            return await self._called(cache, *args, **kwargs)  # type: ignore[misc]

    def _called(self, cache: BaseCache, /, *args: Any, **kwargs: Any) -> R:
        worker_notice.is_known = True
        if isinstance(self.function, CachedFunction):
            answer: R = self.function.call_with(cache, *args, **kwargs)
            return answer
        return self.function(*args, **kwargs)

    def __reduce__(self) -> Any:
        import cloudpickle

        cache = None
        if self.cache.capabilities.shared:
            cache = _freeze_cache(self.cache)
        elif isinstance(self.function, CachedFunction) and not _is_void(self.cache):
            name, warner = _known_as(self.function)
            warner.warn(
                "pickle",
                f"{name}(): runs uncached in the other process, which cannot share {self.cache!r}. "
                "Activate a cache that is kept in files or in a database: fleche.cache(...)",
            )
        return (
            BoundWrapper.__new__,
            (BoundWrapper,),
            (
                cloudpickle.dumps((self.function, self.meta, self.tags)),
                cache,
                None if is_asked_by_cloudpickle() else self._refer(),
            ),
        )

    def _refer(self) -> _Reference | None:
        """Return a reference to the function, if it is, or is bound to, something of ``__main__``.

        A script is ``__main__`` in the processes that :mod:`multiprocessing` starts, too: there its
        classes are those of the arguments, and of the results that come back.
        """
        try:
            pickled = pickle.dumps((self.function, self.meta, self.tags))
            if b"__main__" in pickled or b"__mp_main__" in pickled:
                return _Reference(pickled, _code_of(self.function))
        except Exception:  # noqa: BLE001 (a pickler raises anything)
            pass
        return None

    def __setstate__(self, frozen: tuple[bytes, bytes | None, _Reference | None]) -> None:
        self._frozen = frozen

    def __getattr__(self, name: str) -> Any:
        # thawed when it is first needed: what then fails is an exception of the call, whereas one
        # in the unpickling would end the worker process
        if name not in ("function", "cache", "meta", "tags") or "_frozen" not in vars(self):
            raise AttributeError(name)
        import cloudpickle

        function, cache, reference = self._frozen
        found = None if reference is None else reference.find()
        self.function, self.meta, self.tags = found or cloudpickle.loads(function)
        self.cache = void_cache() if cache is None else self._thaw_cache(cache)
        return vars(self)[name]

    def _thaw_cache(self, frozen: bytes) -> BaseCache:
        try:
            return _thaw_cache(frozen)
        except (ConfigError, MissingExtra):
            raise
        except Exception as error:  # noqa: BLE001 (of any cache)
            _, warner = _known_as(self.function)
            warner.warn_error(
                "thaw",
                error,
                "runs uncached, since the cache cannot be opened in this process",
                "Mend the cache, or activate another: fleche.cache(...)",
            )
            return void_cache()

    def __repr__(self) -> str:
        return f"BoundWrapper({self.function!r}, cache={self.cache!r})"


@dataclass(frozen=True)
class _Reference:
    """A function by the name that it has in ``__main__``, and what it says there."""

    pickled: bytes
    code: str

    def find(self) -> Any:
        """Return what was pickled, if it is the same in this process."""
        try:
            found = pickle.loads(self.pickled)
            return found if _code_of(found[0]) == self.code else None
        except Exception:  # noqa: BLE001 (an unpickler raises anything)
            return None


def _code_of(function: Any) -> str:
    """Return the digest of what a function depends on, and the class of what it is bound to.

    Raises:
        TypeError: it is an object that can be called.
    """
    if isinstance(function, CachedFunction):
        tracker, bound = function.spec.tracker, function.lead
    else:
        tracker = _tracker_of(getattr(function, "__func__", function))
        bound = (getattr(function, "__self__", None),)
    return tracker.closure(own_code(map(type, bound))).digest


@lru_cache(maxsize=16)  # it keeps them, with what they have captured
def _tracker_of(function: Any) -> CodeTracker:
    if not isinstance(function, FunctionType):
        raise TypeError(function)
    return CodeTracker(function, function.__module__)


def _is_async(function: Any) -> bool:
    if isinstance(function, CachedFunction):
        return function.spec.is_async
    return iscoroutinefunction(function)


def _known_as(function: Any) -> tuple[str, WarnOnce]:
    """Return the name of a function, and what has been said of it."""
    if isinstance(function, CachedFunction):
        return function.spec.info.name, function.spec.warner
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return name, WarnOnce(function, name)


def void_cache() -> BaseCache:
    """Return a cache that keeps nothing."""
    from fleche.caches import Cache
    from fleche.storage import CallVoid, ValueVoid

    return Cache(ValueVoid(), CallVoid())


def _is_void(cache: BaseCache) -> bool:
    from fleche.storage import CallVoid

    return isinstance(getattr(cache, "calls", None), CallVoid)


_caches: OrderedDict[bytes, BaseCache] = OrderedDict()
_caches_lock = renewed_after_fork(RLock())


def _freeze_cache(cache: BaseCache) -> bytes:
    import cloudpickle

    try:
        frozen: bytes = cloudpickle.dumps(cache)
    except Exception:  # noqa: BLE001 (a pickler raises anything)
        frozen = cloudpickle.dumps(partial(state.rebuild_cache, cache.to_config()))
    return frozen


def _thaw_cache(frozen: bytes) -> BaseCache:
    """Return the cache; one for all calls that come with the same, so that it stays connected."""
    import cloudpickle

    with _caches_lock:
        if frozen not in _caches:
            thawed = cloudpickle.loads(frozen)
            _caches[frozen] = thawed() if isinstance(thawed, partial) else thawed
            while len(_caches) > KEPT:
                _caches.popitem(last=False)[1].close()
        _caches.move_to_end(frozen)
        return _caches[frozen]
