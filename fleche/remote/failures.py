"""Exceptions over the wire: as themselves where possible, else as a RuntimeError that tells all."""

from __future__ import annotations

import pickle
import traceback

from fleche.errors import ProtocolError, error_classes
from fleche.remote.messages import Failure

__all__ = ["from_failure", "to_failure"]


def to_failure(error: BaseException) -> Failure:
    """Return the message that carries ``error``.

    fleche's own errors and misses go by name; other exceptions are cloudpickled, if they survive
    it.
    """
    kind = type(error)
    if isinstance(error, KeyError) and kind is KeyError:
        return Failure("key", message=str(error.args[0]) if error.args else "")
    code = getattr(kind, "code", None)
    if isinstance(code, str) and error_classes().get(code) is kind:
        return Failure(code, message=str(error))
    trace = "".join(traceback.format_exception(kind, error, error.__traceback__))
    pickled = _pickle(error)
    return Failure(
        "other" if pickled is None else "pickled",
        message=_safe_repr(error),
        type=f"{kind.__module__}.{kind.__qualname__}",
        pickled=pickled,
        traceback=trace,
    )


def from_failure(failure: Failure, *, unpickle: bool = True) -> Exception:
    """Return the exception to raise for ``failure``.

    Args:
        failure: what the server sent.
        unpickle: open a pickled exception; else it is told in a :class:`RuntimeError`. Exceptions
            are not signed, so whoever trusts only signed values does not open them.
    """
    if failure.code == "key":
        return KeyError(failure.message)
    known = error_classes().get(failure.code)
    if known is not None:
        return known(failure.message)
    if unpickle and failure.code == "pickled" and failure.pickled is not None:
        error = _unpickle(failure.pickled)
        if error is not None:
            return _with_note(error, failure.traceback)
    if failure.code not in ("pickled", "other"):
        return ProtocolError(
            f"the server failed with an unknown {failure.code!r}: {failure.message}"
        )
    return RuntimeError(
        f"the remote cache raised {failure.type}: {failure.message}\n\n"
        f"remote traceback:\n{failure.traceback}"
    )


def _pickle(error: BaseException) -> bytes | None:
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(error, protocol=5)
        survives = isinstance(pickle.loads(data), type(error))
    except Exception:  # noqa: BLE001 (whatever a foreign exception does when it is pickled)
        return None
    return data if survives else None


def _unpickle(data: bytes) -> Exception | None:
    try:
        error = pickle.loads(data)
    except Exception:  # noqa: BLE001 (its class may not be importable here)
        return None
    return error if isinstance(error, Exception) else None


def _with_note(error: Exception, trace: str) -> Exception:
    note = f"remote traceback:\n{trace}"
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:
        error.__cause__ = RuntimeError(note)
    return error


def _safe_repr(error: BaseException) -> str:
    try:
        return repr(error)
    except Exception:  # noqa: BLE001 (a foreign repr)
        return f"<{type(error).__name__}>"
