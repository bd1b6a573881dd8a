"""The computing of a call: what comes before the body, and what comes after it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fleche.call import MISSING
from fleche.decorator._flights import Flight, flights
from fleche.decorator._journey import LOUD, Journey
from fleche.digest import Digest, read_content
from fleche.errors import Indigestible, Rejected
from fleche.metadata import Collecting

if TYPE_CHECKING:
    from fleche.caches import PendingCall
    from fleche.decorator._turns import Turn

__all__ = ["Work"]

log = logging.getLogger("fleche.decorator")

_UNSTORED = "the result is not stored"


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
            spare = self._spare(result)
            if self.core.options.isolate:
                own = self.journey.copy(result)
                result = result if own is MISSING else own
        except BaseException as error:
            self._land(MISSING, error)
            raise
        self._land(result, spare=spare)
        return result

    def _spare(self, result: Any) -> Any:
        """Return a copy for those who wait, if they will not find the result in the cache.

        It is made before anybody has the result: who has it may change it.
        """
        if not self.flight.joined or self._is_stored():
            return MISSING
        return self.journey.copy(result)

    def _is_stored(self) -> bool:
        try:
            return not self.journey.lost and self.journey.cache.contains(self.journey.key)
        except Exception:  # noqa: BLE001 (of any cache)
            return False

    def _commit(self, result: Any, returns: str) -> None:
        if self._pending is None or self._collecting is None:
            return
        pending, self._pending = self._pending, None
        if self._has_changed_globals() or self._has_changed_files():
            self._abandon(pending)
            return
        try:
            _check_storable(result)
            metadata = self._collecting.finish()
            if returns:
                metadata["fleche"] = {"returns": returns}
            pending.commit(result, metadata)
            self.core.keep_sources(self.journey.seal)
            self.core.complaints.settle("prepare", "save", "abandon")
        except Exception as error:  # noqa: BLE001 (as in _prepare; the result must get to the caller)
            self._complain("save", error)
        finally:
            self._abandon(pending)

    def _has_changed_globals(self) -> bool:
        """Whether data that the key speaks of is not what it was, through the body or beside it."""
        closure = self.journey.seal.closure
        if closure is None or not self.core.hashes_code:
            return False
        changed = closure.changed_data()
        if changed:
            names = " and ".join(f"`{name}`" for name in changed)
            plain = changed[0].rpartition(":")[2]
            self.core.complaints.make(
                f"globals:{names}",
                f"{self.core.info.name}(): {_UNSTORED}, since {names} changed while it ran, and a "
                "hit would not repeat that. Pass it as an argument, make it anew inside the "
                "function, or, if the result does not depend on it, say "
                f"@fleche(ignore_globals={plain!r})",
            )
        return bool(changed)

    def _has_changed_files(self) -> bool:
        """Whether a file whose content is part of the key is not what it was when the call began.

        What the body has read then was perhaps not what the key says.
        """
        for path, before in self.journey.seal.buffers.files.items():
            try:
                if read_content(path) == before:
                    continue
            except Indigestible:
                pass
            self.core.complaints.make(
                f"files:{path}",
                f"{self.core.info.name}(): {_UNSTORED}, since {path}, whose content is part of the "
                "key, changed while it ran. Let the function write to another file, and let "
                "nothing else write to this one meanwhile",
            )
            return True
        return False

    def fail(self, error: BaseException) -> None:
        """Forget the call, whose body has raised, and let the flight land without a result."""
        try:
            if self._pending is not None:
                pending, self._pending = self._pending, None
                self._abandon(pending)
        finally:
            self._land(MISSING, error)

    def _land(self, result: Any, error: BaseException | None = None, spare: Any = MISSING) -> None:
        """Let everybody go on who waits, here and in other processes."""
        if self._turn is not None:
            self._turn.release()
        flights.land(self.flight, result, error, spare)

    def _abandon(self, pending: PendingCall) -> None:
        try:
            pending.abandon()
        except Exception as error:  # noqa: BLE001 (it must not hide what the body did)
            self._complain("abandon", error)

    def _complain(self, step: str, error: Exception) -> None:
        if self.journey.lost:
            level = logging.WARNING if self.core.complaints.is_new("lost") else logging.DEBUG
            log.log(level, "call %s: %s: %s", self.journey.key[:12], _UNSTORED, error)
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
