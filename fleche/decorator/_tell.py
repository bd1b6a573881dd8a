"""What a person is shown of a call: a line for a miss, and short tracebacks."""

from __future__ import annotations

import logging
from types import TracebackType

from fleche.decorator._invocation import KeyedInvocation

__all__ = ["strip_frames", "tell_miss"]

log = logging.getLogger("fleche.calls")

COMPARED = 200
"""With so many stored calls a miss is compared at most, to say why it is one."""


def tell_miss(invocation: KeyedInvocation) -> None:
    """Log that a call is a miss, and why, if that is to be logged.

    Hits, and what is stored, are logged where they are counted.
    """
    if not log.isEnabledFor(logging.DEBUG):
        return
    from fleche.decorator._explain import explain

    spec = invocation.spec
    try:
        why = explain(spec, invocation.cache, invocation.args, invocation.kwargs, most=COMPARED)
    except Exception as error:  # noqa: BLE001 (of any cache; the function runs all the same)
        log.debug("miss: %s(): %s", spec.info.name, error)
    else:
        log.debug("miss: %s", str(why).partition("\n")[0])


def strip_frames(error: BaseException) -> None:
    """Let the traceback of a user's error show the calling frame of this package alone.

    To be called where the error is caught in the outermost function of the package, which then
    raises it on. An error of the package itself keeps all of its frames.
    """
    head = error.__traceback__
    if head is None:
        return
    step: TracebackType | None = head.tb_next
    while step is not None and _is_ours(step):
        step = step.tb_next
    if step is not None:
        head.tb_next = step


def _is_ours(step: TracebackType) -> bool:
    return str(step.tb_frame.f_globals.get("__name__")).startswith("fleche.decorator.")
