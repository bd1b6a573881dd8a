"""Calls that run in an executor: answered here if they can be, and computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any

from fleche.call import decode_entry, encode_entry
from fleche.decorator._bound import BoundWrapper, void_cache
from fleche.decorator._computation import Computation, Drawn
from fleche.decorator._effects import copy_generator, find_generators, states_of
from fleche.decorator._function import CachedFunction
from fleche.decorator._futures import CONCURRENT, Outcome, defer
from fleche.decorator._invocation import Invocation, KeyedInvocation, prepare_invocation
from fleche.decorator._singleflight import Flight, Role, flights, note_child
from fleche.digest import Digest

if TYPE_CHECKING:
    from fleche.caches import BatchCache

__all__ = ["submit"]

Submit = Callable[..., Any]


def submit(
    submit: Submit,
    function: CachedFunction[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    place: object,
    shares_memory: bool,
    batch: BatchCache | None = None,
) -> Any:
    """Return a future of a call, submitted only if its result is not stored and not under way.

    The worker stores the result itself if it can reach the cache; if not, it is stored here when
    it arrives.

    Args:
        submit: the executor's own, perhaps with keywords for the executor.
        function: a decorated function or method.
        args: its positional arguments.
        kwargs: its keyword arguments.
        place: an object of the executor, by which identical calls in it are known.
        shares_memory: whether the workers are threads of this process.
        batch: the active cache in the form that has looked ahead for this call, and saves it
            together with others.
    """
    spec = function.spec
    cache = spec.cache() if batch is None else batch
    # the body draws from a generator of its own, be its worker a process or a thread
    memo: dict[int, Any] = {}
    args = tuple(copy_generator(value, memo) for value in args)
    kwargs = {name: copy_generator(value, memo) for name, value in kwargs.items()}
    if spec.is_async:
        return submit(BoundWrapper(function), *args, **kwargs)
    kept = () if spec.rules is None else spec.rules.errors
    while True:
        invocation = prepare_invocation(spec, cache, (*function.lead, *args), kwargs)
        alone = partial(_compute_alone, submit, function, invocation)
        if not isinstance(invocation, KeyedInvocation):
            return alone()
        since = flights.clock
        try:
            hit = invocation.look()
        except kept as error:
            return _ended(Outcome(error=error))
        note_child(invocation.key)
        if hit is not None:
            return _ended(Outcome(hit.result))
        # the worker may be a thread that asks for the same result as the owner of the plain slot
        role, flight = flights.join(("executor", id(place), invocation.slot), since)
        if role is Role.COMPUTE:
            there = not invocation.lost and (shares_memory or cache.capabilities.shared)
            return _compute(submit, function, invocation, flight, batch, there=there)
        if role is Role.ALONE:
            return alone()
        if role is Role.WAIT:
            flights.wait(flight)
            if flight.deferred is not None:
                return flight.deferred.join(flight, alone)


def _compute(
    submit: Submit,
    function: CachedFunction[..., Any],
    invocation: KeyedInvocation,
    flight: Flight,
    batch: BatchCache | None,
    *,
    there: bool,
) -> Any:
    work = Computation(invocation, flight, keep=not there)
    try:
        if there:
            args = invocation.args[len(function.lead) :]
            if batch is None:
                bound: Any = BoundWrapper(function, cache=invocation.cache)
            else:
                batch.batch.expect_missing(invocation.key)
                bound = BatchedCall(
                    BoundWrapper(function, cache=batch.inner),
                    invocation.key,
                    batch.batch.together,
                    time(),
                    batch,
                )
            inner = submit(bound, *args, **invocation.kwargs)
        else:
            draws = bool(invocation.generators) and not function.spec.options.isolate
            inner = _submit_uncached(submit, function, *work.begin(), draws=draws)
        return defer(work, inner, CONCURRENT, "", partial(_open_returned, work))
    except BaseException as error:
        work.fail(error)
        raise


@dataclass
class BatchedCall:
    """One of many calls in a worker; what its body calls in turn is looked up and saved singly.

    In this process it is saved by the batch. In another one, what would be saved together is
    returned with the result (:class:`Returned`), and saved where it arrives: unless the call took
    long or its result is large, a worker need not open the cache.

    Attributes:
        bound: the function, with the cache of the batch.
        key: the key of the call.
        together: whether calls are saved together.
        asked: the time at which the call was not stored, in seconds since the epoch.
        batch: the cache of the batch, in its process.
    """

    bound: BoundWrapper[..., Any]
    key: Digest
    together: bool
    asked: float
    batch: BatchCache | None = None

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if self.batch is not None:
            return self.bound.call_with(self.batch, *args, **kwargs)
        from fleche.caches import BatchCache

        cache = BatchCache(self.bound.cache, together=self.together)
        cache.batch.expect_missing(self.key, abs(time() - self.asked))
        result = self.bound.call_with(cache, *args, **kwargs)
        unsaved = cache.batch.take()
        return Returned(result, {key: encode_entry(key, each) for key, each in unsaved.items()})

    def __reduce__(self) -> Any:
        return BatchedCall, (self.bound, self.key, self.together, self.asked)


@dataclass(frozen=True)
class Returned:
    """What comes back from another process: a result, and the calls to be saved, encoded."""

    result: Any
    unsaved: dict[Digest, bytes]


def _open_returned(work: Computation, result: Any) -> Any:
    """Return the result of a worker, having saved what that has left to this process."""
    if not isinstance(result, Returned):
        return result
    work.save_entries({key: decode_entry(key, data) for key, data in result.unsaved.items()})
    return result.result


def _compute_alone(
    submit: Submit, function: CachedFunction[..., Any], invocation: Invocation
) -> Any:
    return _submit_uncached(submit, function, *invocation.body_arguments())


def _submit_uncached(
    submit: Submit,
    function: CachedFunction[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    draws: bool = False,
) -> Any:
    bound = BoundWrapper(function, cache=void_cache())
    run = _Drawing(bound) if draws else bound
    return submit(run, *args[len(function.lead) :], **kwargs)


class _Drawing:
    """A call in a worker that brings back in which states it leaves its random generators."""

    def __init__(self, bound: BoundWrapper[..., Any]) -> None:
        self._bound = bound

    def __call__(self, /, *args: Any, **kwargs: Any) -> Drawn:
        result = self._bound(*args, **kwargs)
        function = self._bound.function
        assert isinstance(function, CachedFunction)
        arguments = function.spec.info.bind((*function.lead, *args), kwargs)
        return Drawn(result, states_of(find_generators(arguments, function.spec.gathering)))


def _ended(outcome: Outcome) -> Any:
    from concurrent.futures import Future

    future: Future[Any] = Future()
    outcome.tell(future)
    return future
