"""What a filesystem raises, as one sentence for a person.

Every library behind fsspec has exceptions of its own, and most of them are not installed here. They
are told apart by the names of their classes, never by the words of their messages.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from fleche.digest import Digest
from fleche.errors import FlecheError, StorageError
from fleche.redaction import redact

__all__ = ["explained", "failure", "is_absent", "is_empty_range"]

_AGAIN = "try again later"
_ROOM = "free some space, or remove results that nobody needs (gc)"

_BY_CLASS: tuple[tuple[frozenset[str], str], ...] = (
    (
        frozenset(
            {
                "NoCredentialsError",
                "PartialCredentialsError",
                "DefaultCredentialsError",
                "ClientAuthenticationError",
                "AuthenticationException",
            }
        ),
        "give the credentials in options or in the environment",
    ),
    (
        frozenset({"PermissionError"}),
        "check the credentials in options, or set read_only = true for this cache",
    ),
    (
        frozenset({"FileNotFoundError"}),
        "create the bucket or the directory, or correct the url",
    ),
    (
        frozenset({"TimeoutError", "ReadTimeoutError", "ConnectTimeoutError"}),
        "it does not answer; try again, or raise the timeouts in options",
    ),
    (
        frozenset({"ConnectionError", "ClientConnectionError", "gaierror", "SSLError"}),
        "it cannot be reached; check the url, the options (endpoint_url) and the network",
    ),
    (
        frozenset({"ClientPayloadError", "IncompleteRead", "ResponseStreamingError"}),
        "the connection was cut; try again",
    ),
)

_BY_NUMBER = {
    errno.ENOSPC: f"the disk is full; {_ROOM}",
    errno.EDQUOT: f"your quota is used up; {_ROOM}",
    errno.EROFS: "the file system is mounted read-only; set read_only = true for this cache",
    errno.ENOTDIR: "a file stands where a directory is needed; choose another url",
    errno.EISDIR: "a directory stands where a file is needed; move it away",
    errno.EBUSY: f"it is overloaded; {_AGAIN}",
    errno.EREMOTEIO: f"the store itself fails; {_AGAIN}",
    errno.EIO: f"the store itself fails; {_AGAIN}",
}


def is_absent(error: BaseException) -> bool:
    """Tell whether ``error`` says that there is no such entry, in a place that does exist."""
    return isinstance(error, FileNotFoundError) and _code(error) != "NoSuchBucket"


def is_empty_range(error: BaseException) -> bool:
    """Tell whether ``error`` may say that an object has no bytes where some were asked for."""
    return isinstance(error, OSError) and error.errno == errno.EINVAL


def failure(action: str, name: str, error: BaseException) -> StorageError:
    """Return the error that says that ``action`` on ``name`` failed, and what to do.

    Args:
        action: a verb: "read", "write".
        name: the url, without secrets.
        error: what the filesystem raised.
    """
    told = (error.strerror if isinstance(error, OSError) else None) or str(error)
    kind = type(error).__name__
    reason = f"{kind}: {redact(told)}" if told else kind
    hint = _hint(error)
    return StorageError(f"{name}: cannot {action}: {reason}{f' ({hint})' if hint else ''}")


@contextmanager
def explained(action: str, name: str, key: Digest | None = None) -> Iterator[None]:
    """Turn whatever a filesystem raises into a :class:`StorageError`.

    With a ``key``, an entry that is not there is a :class:`KeyError`.
    """
    try:
        yield
    except FlecheError:
        raise
    except Exception as error:
        if key is not None and is_absent(error):
            raise KeyError(key) from None
        raise failure(action, name, error) from error


def _code(error: BaseException) -> str:
    """Return the error code of an answer of S3, where there is one."""
    response = getattr(error.__cause__, "response", None)
    found = response.get("Error") if isinstance(response, dict) else None
    return str(found.get("Code", "")) if isinstance(found, dict) else ""


def _hint(error: BaseException) -> str | None:
    names = {cls.__name__ for cls in type(error).__mro__}
    for classes, hint in _BY_CLASS:
        if classes & names:
            return hint
    return _BY_NUMBER.get(getattr(error, "errno", None) or 0)
