"""What a stored result must be to count: not too old, valid; and exceptions that are kept."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Hashable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import msgspec

from fleche._amounts import shown_seconds
from fleche._util import renewed_after_fork
from fleche.call import CallRecord, LazyCall
from fleche.decorator._singleflight import note_child
from fleche.errors import ParcelError

if TYPE_CHECKING:
    from fleche.decorator._invocation import KeyedInvocation

__all__ = ["Rules"]

log = logging.getLogger("fleche.decorator")

_refreshing: set[Hashable] = set()
_refreshing_lock = renewed_after_fork(threading.RLock())


class Rules(msgspec.Struct, frozen=True):
    """What was said where the function was decorated.

    Attributes:
        expires: how old a result may be.
        stale: return one that is older all the same, and compute it anew in the background.
        validate: is asked whether a stored result is still right.
        errors: exceptions that are kept like results.
    """

    expires: timedelta | None = None
    stale: bool = False
    validate: Callable[[Any], Any] | None = None
    errors: tuple[type[BaseException], ...] = ()

    def counts(self, call: LazyCall) -> bool:
        """Return whether a stored call, which may have raised, is the answer to one like it."""
        if call.record.error is not None:
            return self.kept_error(call) is not None
        return not self.refuse(call)

    def refuse(self, hit: LazyCall) -> str:
        """Return why a stored result does not count; an empty text if it does."""
        if self.expires is not None and (why := self.expired(hit.record)):
            return why
        if self.validate is not None and not self.validate(hit.result):
            return "is not valid any more"
        return ""

    def expired(self, record: CallRecord) -> str:
        """Return why the outcome of a call is too old; an empty text if it is not."""
        if self.expires is None:
            return ""
        said = record.notes.get("computed")
        when = datetime.fromisoformat(said) if isinstance(said, str) else record.began
        if when is None:
            return "expires, and does not say when it was computed"
        age = datetime.now(timezone.utc) - when
        if abs(age) < self.expires:
            return ""
        limit = shown_seconds(self.expires.total_seconds())
        if age < timedelta():
            ahead = shown_seconds(-age.total_seconds())
            return f"was computed {ahead} from now, by another clock, and expires after {limit}"
        return f"is {shown_seconds(age.total_seconds())} old, and expires after {limit}"

    def returns_stale(self, why: str) -> bool:
        """Return whether a result is returned once more that :meth:`refuse` refuses."""
        return self.stale and self.expires is not None and "expires" in why

    def answers(self, invocation: KeyedInvocation, hit: LazyCall) -> bool:
        """Return whether ``hit`` is the answer to a call; raise the exception that is one."""
        if hit.record.error is not None:
            error = self.kept_error(hit)
            if error is None:
                return False
            note_child(invocation.key)
            raise error
        why = self.refuse(hit)
        if not why:
            return True
        if self.returns_stale(why):
            _refresh(invocation)
            return True
        log.debug("call %s: %s, computing again", hit.key[:12], why)
        return False

    def kept_error(self, call: LazyCall) -> BaseException | None:
        """Return the exception that is the outcome of a stored call and still counts, if any."""
        if call.record.error is None or self.expired(call.record):
            return None
        try:
            error = call.error
        except (KeyError, ParcelError):
            return None
        return error if isinstance(error, self.errors) else None


def _refresh(invocation: KeyedInvocation) -> None:
    """Compute a call anew in a thread of its own, unless that is being done."""
    with _refreshing_lock:
        if invocation.slot in _refreshing:
            return
        _refreshing.add(invocation.slot)
    context = contextvars.copy_context()
    try:
        threading.Thread(
            target=context.run, args=(_compute, invocation), name="fleche computes anew"
        ).start()
    except RuntimeError as error:  # the system has no more, or the interpreter is ending
        log.warning("%s(): not computed anew: %s", invocation.spec.info.name, error)
        with _refreshing_lock:
            _refreshing.discard(invocation.slot)


def _compute(invocation: KeyedInvocation) -> None:
    from fleche.decorator._computation import Computation
    from fleche.decorator._invocation import run_body
    from fleche.decorator._singleflight import Flight, inside

    inside.set(())
    try:
        run_body(Computation(invocation, Flight()))
    except Exception:
        log.exception("%s(): computing anew failed", invocation.spec.info.name)
    finally:
        with _refreshing_lock:
            _refreshing.discard(invocation.slot)
