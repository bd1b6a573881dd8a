"""Exceptions over the wire: as themselves where possible, else as a RuntimeError that tells all."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable

from fleche.errors import FlecheError, ProtocolError, Rejected, error_classes
from fleche.remote._messages import Failure, legible

__all__ = ["Busy", "from_failure", "masked", "no_room", "to_failure"]


_LONGEST_TEXT = 1 << 18
_LARGEST_PICKLE = 1 << 22


class Busy(Rejected):
    """The server has no room for one more request now; nothing of it was done."""

    code = "busy"


def no_room(limit: int) -> Busy:
    """Return what a client is told whose request comes while ``limit`` others are unfinished."""
    return Busy(f"{limit} requests are unfinished on this connection; send it again later")


def to_failure(error: BaseException) -> Failure:
    """Return the message that carries ``error``, whatever that is; it never raises.

    fleche's own errors and misses go by name; other exceptions are cloudpickled, if they survive
    it and are of reasonable size.
    """
    kind = type(error)
    if kind is KeyError:
        return Failure("key", message=_text(lambda: str(error.args[0]) if error.args else ""))
    if (code := _code(kind)) is not None:
        return Failure(code, message=_text(lambda: str(error)))
    pickled = _pickle(error)
    return Failure(
        "other" if pickled is None else "pickled",
        message=_text(lambda: repr(error)),
        type=_text(lambda: f"{kind.__module__}.{kind.__qualname__}"),
        pickled=pickled,
        traceback=_text(lambda: "".join(traceback.format_exception(error))),
    )


def _code(kind: type[BaseException]) -> str | None:
    """Return the name by which errors of class ``kind`` go.

    A private kind of one of fleche's errors goes by the name of that; one of the user's has none.
    """
    if not issubclass(kind, FlecheError):
        return None
    is_ours = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
    return kind.code if is_ours or error_classes().get(kind.code) is kind else None


def from_failure(failure: Failure, host: str = "", *, unpickle: bool = True) -> Exception:
    """Return the exception to raise for ``failure``, which says where it came from.

    Args:
        failure: what the server sent. Its texts are masked, since they may be shown in a terminal.
        host: the name of the server.
        unpickle: open a pickled exception; else it is told in a :class:`RuntimeError`. Exceptions
            are not signed: a client that trusts only signed values does not open them.
    """
    message = masked(failure.message)
    if failure.code == "key":
        return KeyError(message)
    known = error_classes().get(failure.code)
    if known is not None:
        return known(f"{host}: {message}" if host else message)
    if unpickle and failure.code == "pickled" and failure.pickled is not None:
        error = _unpickle(failure.pickled)
        if error is not None:
            return _with_note(_located(error, host), masked(failure.traceback))
    if failure.code not in ("pickled", "other"):
        return ProtocolError(
            f"the server failed with an unknown {masked(failure.code)!r}: {message}"
        )
    return RuntimeError(
        f"{host or 'the remote cache'} raised {masked(failure.type)}: {message}\n\n"
        f"remote traceback:\n{masked(failure.traceback)}"
    )


def _pickle(error: BaseException) -> bytes | None:
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(error, protocol=5)
        survives = isinstance(pickle.loads(data), type(error))
    except Exception:  # noqa: BLE001 (whatever a foreign exception does when it is pickled)
        return None
    return data if survives and len(data) <= _LARGEST_PICKLE else None


def _unpickle(data: bytes) -> Exception | None:
    try:
        error = pickle.loads(data)
    except Exception:  # noqa: BLE001 (its class may not be importable here)
        return None
    return error if isinstance(error, Exception) else None


def _located(error: Exception, host: str) -> Exception:
    """Say in ``error`` on which machine a file is, and mask its texts."""
    error.args = tuple(masked(arg) if isinstance(arg, str) else arg for arg in error.args)
    if host and isinstance(error, OSError) and isinstance(error.filename, str):
        error.filename = f"{host}:{masked(error.filename)}"
    if host and isinstance(error, FlecheError) and error.args:
        error.args = (f"{host}: {error.args[0]}", *error.args[1:])
    return error


def masked(text: str) -> str:
    """Return ``text`` of another machine without what a terminal would obey."""
    return "".join(
        c if c.isprintable() or c in "\n\t" or "\ud800" <= c <= "\udfff" else "·"
        for c in text  # half a surrogate pair is a byte of a path that is not UTF-8
    )


def _with_note(error: Exception, trace: str) -> Exception:
    note = f"remote traceback:\n{trace}"
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:
        error.__cause__ = RuntimeError(note)
    return error


def _text(tell: Callable[[], str]) -> str:
    """Return what ``tell`` returns, as a text that a message can carry: legible, not too long."""
    try:
        found = tell()
    except Exception as error:  # noqa: BLE001 (of a foreign __str__ or __repr__)
        return f"<it cannot be told: {type(error).__name__}>"
    half = _LONGEST_TEXT // 2
    if len(found) > _LONGEST_TEXT:
        found = f"{found[:half]} [...] {found[-half:]}"
    text: str = legible(found)
    return text
