"""Executors whose workers know the cache."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from fleche.decorator import BoundMethod, Wrapper, submit

__all__ = ["CachedExecutor", "wrap_executor"]

P = ParamSpec("P")
R = TypeVar("R")


class CachedExecutor(Executor):
    """An executor that answers what is stored and computes the rest; see :func:`wrap_executor`.

    Attributes:
        inner: the executor that does the work.
    """

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self._submit = inner.submit  # one object, by which identical submits are known
        self._shares_memory = isinstance(inner, ThreadPoolExecutor)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Return the future of a call; done already if the result is stored.

        Identical calls of a decorated function that are under way at the same time run once. What
        is not decorated is submitted as it is.
        """
        function, given, named = _unwrap(fn, args, kwargs)
        if not isinstance(function, Wrapper | BoundMethod):
            return self._submit(fn, *args, **kwargs)
        future: Future[R] = submit(
            self._submit, function, given, named, shares_memory=self._shares_memory
        )
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the inner executor down."""
        self.inner.shutdown(wait=wait, cancel_futures=cancel_futures)

    def __repr__(self) -> str:
        return f"CachedExecutor({self.inner!r})"


def _unwrap(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    while isinstance(function, partial):
        args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
        function = function.func
    return function, args, kwargs


def wrap_executor(executor: Executor) -> CachedExecutor:
    """Return an executor that takes the active cache, metadata and tags along with every call.

    ``submit`` and ``map`` answer what is stored without submitting anything. What has to be
    computed runs in ``executor`` with the settings that were active where it was submitted, nested
    calls too, and is stored by the worker; if the cache lies in the memory of this process and the
    workers are other processes, it is stored here when it arrives. Leaving a ``with`` block shuts
    ``executor`` down.

    Args:
        executor: threads, processes, or any other implementation of
            :class:`concurrent.futures.Executor`.
    """
    return CachedExecutor(executor)
