"""One call on its way: from its arguments to the cache, and back or through the function's body.

A failing cache never stops the function. What it raises becomes one warning, and the call goes on
without it. A cache that cannot be asked may still be able to store, as a stack can whose far layer
is out of reach: what has been computed is offered to it all the same. Only a mistake that a person
has to mend is raised: a broken configuration, a missing package, an ambiguous digest, and, of a
cache that is told to be strict, a damaged value.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from fleche.call import MISSING
from fleche.decorator._core import Core, Seal
from fleche.decorator._flights import Flight, flights
from fleche.digest import Digest
from fleche.errors import (
    AmbiguousDigestError,
    ConfigError,
    Indigestible,
    MissingExtra,
    ParcelError,
    Rejected,
)
from fleche.metadata import Collecting

if TYPE_CHECKING:
    from fleche.caches import BaseCache, PendingCall
    from fleche.decorator._turns import Turn

__all__ = ["LOUD", "Journey", "Work", "depart"]

log = logging.getLogger("fleche.decorator")

LOUD = (AmbiguousDigestError, ConfigError, MissingExtra)
"""The mistakes that a person has to mend."""

_UNSTORED = "the result is not stored"


def depart(
    core: Core, cache: BaseCache, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Journey | None:
    """Seal the key of a call; return ``None`` if this call is none to be cached.

    Raises:
        TypeError: the function cannot be called so.
        KeyError: a digest among the arguments stands for no value.
        AmbiguousDigestError: a short one stands for several.
    """
    info = core.info
    arguments = info.bind(args, kwargs)
    if info.required and info.missing_required(arguments, info.explicit(args, kwargs)):
        return None
    core.expanded(arguments, cache)
    try:
        seal = core.seal(arguments)
    except Exception as error:  # noqa: BLE001 (what an object raises when it is looked into)
        core.complaints.about(
            "arguments",
            error,
            "runs uncached, since something in its arguments or its code has no digest",
            "If the result does not depend on it, ignore it: @fleche(ignore=...) or Ignored[...]; "
            "if it does, give its class a __digest__ method",
        )
        return None
    return Journey(core, cache, args, kwargs, arguments, seal)


class Journey:
    """A call with its key.

    Attributes:
        seal: what digesting the arguments has found.
        key: the key, of the arguments as they were at the beginning.
        slot: what identical calls at the same time have in common.
        lost: the cache could not be asked when it was last looked into, and that has been said.
    """

    def __init__(
        self,
        core: Core,
        cache: BaseCache,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        arguments: dict[str, Any],
        seal: Seal,
    ) -> None:
        self.core = core
        self.cache = cache
        self.args = args
        self.kwargs = kwargs
        self.arguments = arguments
        self.seal = seal
        self.key = seal.key
        self.slot: Hashable = (id(cache), seal.key)
        self.lost = False

    def look(self) -> Any:
        """Return the stored call, or ``None``: there is none, or the cache cannot be asked."""
        self.lost = False
        try:
            hit = self.cache.lookup(self.key)
        except (*LOUD, ParcelError):
            raise
        except Exception as error:  # noqa: BLE001 (of any cache, a user's too)
            self.core.complaints.about(
                "lookup",
                error,
                "runs without looking for a stored result, since the cache failed",
                "The new result is stored if the cache can do that at least. "
                "Mend the cache, or activate another: fleche.cache(...)",
            )
            self.lost = True
            return None
        if hit is not None:
            self.core.check_code(hit.record)
        return hit

    def share(self, result: Any) -> Any:
        """Return another caller's result as one's own, or ``MISSING`` if it cannot be copied."""
        hit = self.look()
        if hit is not None:
            return hit.result
        return self.copy(result)

    def copy(self, value: Any) -> Any:
        """Return a copy that shares nothing with ``value``; ``MISSING`` if there can be none."""
        packing = self.cache.packing
        try:
            return packing.unpack(packing.pack(value))
        except Exception:  # noqa: BLE001 (a pickler raises anything)
            return MISSING

    def body_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what the body gets: values in place of digests, copies if it is isolated.

        Raises:
            KeyError: a digest stands for no value.
            ParcelError: its value cannot be opened.
        """
        isolate = self.core.options.isolate
        if not isolate and not any(map(_holds_digest, self.arguments.values())):
            return self.args, self.kwargs
        bound = self.core.info.bind_signature(self.args, self.kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if name not in self.arguments:
                continue
            sealed = self.arguments[name]
            own = self._resolve(name, sealed if isinstance(sealed, Digest) else value)
            copied = self.copy(own) if isolate else MISSING
            bound.arguments[name] = own if copied is MISSING else copied
        return bound.args, bound.kwargs

    def _resolve(self, name: str, value: Any) -> Any:
        if name in self.core.gathering:
            if isinstance(value, tuple):
                return tuple(self._load(name, item) for item in value)
            return {key: self._load(key, item) for key, item in value.items()}
        return self._load(name, value)

    def _load(self, name: str, value: Any) -> Any:
        if not isinstance(value, Digest):
            return value
        try:
            return self.cache.load_value(value)
        except KeyError:
            raise KeyError(self.core.no_value(name, value)) from None


def _holds_digest(value: Any) -> bool:
    """Tell whether an argument may be a digest, or hold one that was passed by ``*`` or ``**``."""
    kind = type(value)
    if kind is tuple:
        return Digest in map(type, value)
    return kind is Digest or (kind is dict and Digest in map(type, value.values()))


class Work:
    """The computing of one journey: what comes before the body and what comes after it.

    Args:
        journey: the call.
        flight: what other callers wait for; it lands here in any case.
        turn: what keeps other processes from computing the same; it is released here.
        keep: store the result; if not, somebody else does.
    """

    def __init__(
        self, journey: Journey, flight: Flight, turn: Turn | None = None, *, keep: bool = True
    ) -> None:
        self.journey = journey
        self.core = journey.core
        self.flight = flight
        self._turn = turn
        self._keep = keep
        self._pending: PendingCall | None = None
        self._collecting: Collecting | None = None

    def begin(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Store the arguments, start the collectors, and return what to call the body with."""
        body = self.journey.body_arguments()
        if self._keep:
            self._pending = self._prepare()
        self.journey.seal.buffers.clear()  # what digesting made is not kept while the body runs
        if self._pending is not None:
            self._collecting = Collecting(
                self.core.collectors(), self.core.function, self._complain_of_collector
            )
        return body

    def _prepare(self) -> PendingCall | None:
        journey = self.journey
        try:
            call = self.core.make_sealed_call(journey.arguments, journey.seal)
            return journey.cache.prepare(call)
        except LOUD:
            raise
        except Exception as error:  # noqa: BLE001 (of any cache, and of any object's pickling)
            self._complain("prepare", error)
            return None

    def succeed(self, result: Any, returns: str = "") -> Any:
        """Store the result and let the flight land; return what the caller gets.

        Args:
            result: what the body returned.
            returns: the kind of future that held it, if one did.
        """
        try:
            self._commit(result, returns)
            if self.core.options.isolate:
                own = self.journey.copy(result)
                result = result if own is MISSING else own
        except BaseException as error:
            self._land(MISSING, error)
            raise
        self._land(result)
        return result

    def _commit(self, result: Any, returns: str) -> None:
        if self._pending is None or self._collecting is None:
            return
        pending, self._pending = self._pending, None
        try:
            _check_storable(result)
            metadata = self._collecting.finish()
            if returns:
                metadata["fleche"] = {"returns": returns}
            pending.commit(result, metadata)
        except Exception as error:  # noqa: BLE001 (as in _prepare; the result must get to the caller)
            self._complain("save", error)
        finally:
            self._abandon(pending)

    def fail(self, error: BaseException) -> None:
        """Forget the call, whose body has raised, and let the flight land without a result."""
        try:
            if self._pending is not None:
                pending, self._pending = self._pending, None
                self._abandon(pending)
        finally:
            self._land(MISSING, error)

    def _land(self, result: Any, error: BaseException | None = None) -> None:
        """Let everybody go on who waits, here and in other processes."""
        if self._turn is not None:
            self._turn.release()
        flights.land(self.flight, result, error)

    def _abandon(self, pending: PendingCall) -> None:
        try:
            pending.abandon()
        except Exception as error:  # noqa: BLE001 (it must not hide what the body did)
            self._complain("abandon", error)

    def _complain(self, step: str, error: Exception) -> None:
        if self.journey.lost:
            log.warning("call %s: %s: %s", self.journey.key[:12], _UNSTORED, error)
            return
        if isinstance(error, Indigestible):
            advice = (
                "Return a value that can be stored: a list, not an iterator; text, not a Digest"
            )
        elif isinstance(error, Rejected):
            advice = "Activate a cache that takes it: fleche.cache(...)"
        else:
            advice = "Mend what is wrong with the cache, or with pickling the value"
        self.core.complaints.about(step, error, _UNSTORED, advice)

    def _complain_of_collector(self, name: str, error: Exception) -> None:
        self.core.complaints.about(
            f"metadata {name}",
            error,
            f"metadata {name!r} is left out",
            "The result is not affected",
        )


def _check_storable(result: Any) -> None:
    if isinstance(result, Digest):
        raise Indigestible("the result is a Digest, which in a cache stands for its value")
