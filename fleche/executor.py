"""Executors whose workers know the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from fleche._util import renewed_after_fork
from fleche.decorator import Batch, BoundMethod, BoundWrapper, Wrapper, submit
from fleche.function import signature_of

if TYPE_CHECKING:
    from fleche.caches import BatchCache

__all__ = ["CachedExecutor", "wrap_executor"]

P = ParamSpec("P")
R = TypeVar("R")

Prepared: TypeAlias = "tuple[Any, tuple[Any, ...], dict[str, Any]]"
"""A function, its positional and its keyword arguments."""


class CachedExecutor(Executor):
    """An executor that answers what is stored and computes the rest; see :func:`wrap_executor`.

    Attributes:
        inner: the executor that does the work.
    """

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self._submit = inner.submit  # one object, by which identical submits are known
        self._shares_memory = isinstance(inner, ThreadPoolExecutor)
        self._own_keywords = _keywords_of(inner.submit)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Return the future of a call; done already if the result is stored.

        Identical calls of a decorated function that are under way at the same time run once. Any
        other function is submitted with the active settings, which count for what it calls.

        Keywords that the inner executor's own ``submit`` names (``resource_dict`` of executorlib,
        ``resources`` and ``workers`` of dask) are for the executor; they reach it, and are no part
        of the call's key.
        """
        return self._send(*_unwrap(fn, args, dict(kwargs)))

    def _send(
        self,
        function: Any,
        given: tuple[Any, ...],
        named: dict[str, Any],
        batch: BatchCache | None = None,
    ) -> Future[Any]:
        own = {name: named.pop(name) for name in self._own_keywords & named.keys()}
        run: Any = partial(self._submit, **own) if own else self._submit
        if not isinstance(function, Wrapper | BoundMethod):
            is_bound = isinstance(function, BoundWrapper)
            bound: Any = function if is_bound else BoundWrapper(function)
            done: Future[Any] = run(bound, *given, **named)
            return done
        future: Future[Any] = submit(
            run,
            function,
            given,
            named,
            place=self._submit,
            shares_memory=self._shares_memory,
            batch=batch,
        )
        return future

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[R]:
        """Return the results of many calls, in order; looked up at once, and saved together.

        What is not saved yet took half a second to compute at most; all is when the last call has
        ended. Small results come back with what is to be saved, so that a worker need not open the
        cache for them.

        Args:
            fn: a decorated function, or any other.
            iterables: as for :meth:`concurrent.futures.Executor.map`, consumed at once.
            timeout: likewise.
            chunksize: of no account: each call is a future of its own.
        """
        del chunksize
        calls = [_unwrap(fn, args, {}) for args in zip(*iterables, strict=False)]
        sending = _Sending(self, len(calls), self._look_ahead(calls))
        try:
            results = sending.map(fn, calls, timeout=timeout)
        except BaseException:
            sending.end()
            raise
        return sending.ending(results)

    def _look_ahead(self, calls: list[Prepared]) -> Batch | None:
        """Look the calls up at once, if they are those of a decorated function."""
        function = calls[0][0] if calls else None
        if not isinstance(function, Wrapper | BoundMethod):
            return None
        batch, own = Batch(function.spec), self._own_keywords
        batch.look_ahead(
            ((*function.lead, *args), {k: v for k, v in kwargs.items() if k not in own})
            for _, args, kwargs in calls
        )
        return batch

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the inner executor down.

        ``cancel_futures`` reaches it only if it is true: not every executor knows the word.
        """
        if cancel_futures:
            self.inner.shutdown(wait=wait, cancel_futures=True)
        else:
            self.inner.shutdown(wait=wait)

    def __repr__(self) -> str:
        return f"CachedExecutor({self.inner!r})"


class _Sending(Executor):
    """Sends some calls by another executor; when the last has ended, their batch ends."""

    def __init__(self, outer: CachedExecutor, number: int, batch: Batch | None) -> None:
        self._outer = outer
        self._left = number
        self._lock = renewed_after_fork(RLock())
        self._batch = batch

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the future of the only argument, which is a prepared call."""
        del fn, kwargs
        function, given, named = args[0]
        cache = None if self._batch is None else self._batch.cache
        future = self._outer._send(function, given, named, cache)  # noqa: SLF001 (a part of it)
        future.add_done_callback(self._note_end)
        return future

    def ending(self, results: Iterator[R]) -> Iterator[R]:
        """Yield the results; all is saved by the time that the last has been taken.

        A future wakes its waiters before it calls back.
        """
        try:
            yield from results
        finally:
            self.end()

    def _note_end(self, _future: Future[Any]) -> None:
        with self._lock:
            self._left -= 1
            is_last = not self._left
        if is_last:
            self.end()

    def end(self) -> None:
        """Save what is unsaved; calls that still run are saved one by one."""
        if self._batch is not None:
            self._batch.end()


def _keywords_of(submit: Callable[..., Any]) -> frozenset[str]:
    """Return the keywords that a ``submit`` takes for itself, besides those of the function."""
    try:
        parameters = [*signature_of(submit).parameters.values()]
    except (TypeError, ValueError):  # of a builtin, say
        return frozenset()
    # the first is the function, under whatever name
    return frozenset(
        each.name
        for each in parameters[1:]
        if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)
    )


def _unwrap(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Prepared:
    while isinstance(function, partial):
        args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
        function = function.func
    return function, args, kwargs


def wrap_executor(executor: Executor) -> CachedExecutor:
    """Return an executor that takes the active cache, metadata and tags along with every call.

    That is so for plain functions, too: decorated functions that they call in the worker use what
    is active where they are submitted.

    ``submit`` and ``map`` answer what is stored without submitting anything. What has to be
    computed runs in ``executor`` with the settings that were active where it was submitted, nested
    calls too, and is stored by the worker; if the cache lies in the memory of this process and the
    workers are other processes, it is stored here when it arrives. Leaving a ``with`` block shuts
    ``executor`` down.

    Args:
        executor: threads, processes, or any other implementation of
            :class:`concurrent.futures.Executor`.

    Raises:
        TypeError: it is no executor: a class of one, or a pool that has ``map`` and no ``submit``.
    """
    if isinstance(executor, type) or not hasattr(executor, "submit"):
        raise TypeError(
            f"{executor!r} is no executor of concurrent.futures; where there is no submit(), pass "
            "function.bind() to map()"
        )
    return CachedExecutor(executor)
