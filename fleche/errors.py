"""Every exception of the package, and its warning.

Each class has a ``code``: a short, stable word by which the remote protocol names the error, so
that it arrives on the other side as the same class, whatever the versions of Python at the two
ends. A miss is a plain :class:`KeyError`, as in any mapping.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "AmbiguousDigestError",
    "AmbiguousFormError",
    "ConfigError",
    "CorruptParcel",
    "FlecheError",
    "FlecheWarning",
    "Indigestible",
    "MissingExtra",
    "ParcelError",
    "ProtocolError",
    "Rejected",
    "RemoteConnectionError",
    "SignatureError",
    "StorageError",
    "UnpackError",
    "error_classes",
    "flaw_of",
    "told",
]


class FlecheError(Exception):
    """Base of all errors that fleche itself raises.

    The first argument is always the whole sentence for a person; it survives pickling and the wire.
    """

    code: ClassVar[str] = "fleche"


class Indigestible(FlecheError, TypeError):
    """An object has no digest: its value cannot be told from outside (a file, an iterator)."""

    code = "indigestible"


class AmbiguousDigestError(FlecheError, LookupError):
    """A short digest stands for more than one entry.

    Not a :class:`KeyError`: an ambiguous name is a mistake to mend, never a miss to compute around.
    """

    code = "ambiguous"


class ParcelError(FlecheError, ValueError):
    """A parcel cannot be opened."""

    code = "parcel"


class CorruptParcel(ParcelError):
    """The bytes are truncated, altered, of another value, or no parcel. Nothing was unpickled.

    Attributes:
        newer: they claim, where it was raised, that a newer fleche has laid them out. Housekeeping
            leaves them to that one.
    """

    code = "corrupt"
    newer: bool = False


class SignatureError(ParcelError):
    """A parcel is not signed by a key that is known here. Nothing was unpickled.

    Attributes:
        head: what the parcel says of itself, where it was raised. It is not signed; garbage
            collection reads from it what other users, who trust the parcel, still need.
    """

    code = "signature"
    head: Any = None


class UnpackError(ParcelError):
    """The bytes are sound, but the object cannot be made here (a missing module, say)."""

    code = "unpack"


class AmbiguousFormError(ParcelError, AmbiguousDigestError):
    """A digest stands for values of different classes that are equal in digest alone."""

    code = "ambiguous-form"


class Rejected(FlecheError):
    """A cache refuses to save or to evict (it is read-only, or filtered, or too small)."""

    code = "rejected"


class StorageError(FlecheError, OSError):
    """A storage failed: a full disk, a missing permission, an unreachable database."""

    code = "storage"


class ConfigError(FlecheError, ValueError):
    """A configuration is broken; the message names the file and the place inside it."""

    code = "config"


class MissingExtra(FlecheError, ImportError):
    """An optional dependency is not installed; the message names the command that installs it."""

    code = "extra"


class ProtocolError(FlecheError):
    """The peer sent bytes or messages that the protocol does not allow."""

    code = "protocol"


class RemoteConnectionError(FlecheError, RuntimeError):
    """The process of a remote cache cannot be reached or has died."""

    code = "connection"
    advice = (
        "Every operation on this remote cache raises this error until reconnect() is called. "
        "'fleche doctor' looks for the reason."
    )
    """What the text ends with if the connection is not made again by itself."""


class FlecheWarning(UserWarning):
    """The cache could not do its part for a function: what it was, and what to do about it.

    The function itself has run as if it were not decorated.
    """


def flaw_of(error: ParcelError) -> str:
    """Return what a parcel or a record is that cannot be used, as an adjective."""
    if isinstance(error, SignatureError):
        return "not trusted"
    if isinstance(error, CorruptParcel):
        return "too new" if error.newer else "damaged"
    return "unusable"


def told(text: object) -> str:
    """Return what a person at the command line or in the browser is told of an error, or a log.

    Args:
        text: the error, or a text that ends with one.
    """
    return str(text).removesuffix(RemoteConnectionError.advice).rstrip()


def error_classes() -> dict[str, type[FlecheError]]:
    """Return every error class of fleche by its wire code."""
    found: dict[str, type[FlecheError]] = {}
    pending: list[type[FlecheError]] = [FlecheError]
    while pending:
        cls = pending.pop()
        found.setdefault(cls.code, cls)
        pending.extend(cls.__subclasses__())
    return found
