"""A live filesystem for each process, what is known of its kind, and what its errors mean.

Every library behind fsspec has exceptions of its own, and most of them are not installed here. They
are told apart by the names of their classes, never by the words of their messages.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import fsspec
from fsspec.asyn import AsyncFileSystem

from fleche._redact import redact
from fleche._util import expand_path, expand_variables
from fleche.errors import ConfigError, FlecheError, MissingExtra, StorageError
from fleche.storage._making import make_directories, make_file

__all__ = [
    "Connection",
    "Traits",
    "explained",
    "failure",
    "is_absent",
    "is_empty_range",
    "is_path",
]


class Traits(NamedTuple):
    """What a kind of filesystem can do.

    Attributes:
        atomic: an object appears when all of it has been written; elsewhere a temporary file takes
            its name.
        streams: an object may be written piece by piece, and given up before it appears.
        narrows: a listing may be restricted to names that begin in a certain way.
        copies: what makes an object young by a copy onto itself; None where that is not safe.
        bucket_only: the url names nothing but a bucket and a path, so that one connection serves
            every url.
        renames: a rename replaces what is there, in one step, and changes no age.
        whole_seconds: the store counts time in seconds, at least sometimes.
        persistent: entries outlive the process, and other processes see them.
    """

    atomic: bool = False
    streams: bool = False
    narrows: bool = False
    copies: Mapping[str, str] | None = None
    bucket_only: bool = False
    renames: bool = False
    whole_seconds: bool = False
    persistent: bool = True


_STORE = Traits(atomic=True, streams=True, narrows=True, whole_seconds=True)
_S3 = _STORE._replace(copies={"MetadataDirective": "REPLACE"}, bucket_only=True)
_GCS = _STORE._replace(copies={}, bucket_only=True)
_LOCAL = Traits(renames=True)
_SFTP = Traits(renames=True, whole_seconds=True)

_TRAITS = {
    "s3": _S3,
    "s3a": _S3,
    "gs": _GCS,
    "gcs": _GCS,
    "az": _STORE,
    "abfs": _STORE,
    "abfss": _STORE,
    "file": _LOCAL,
    "local": _LOCAL,
    "sftp": _SFTP,
    "ssh": _SFTP,
    "memory": Traits(atomic=True, persistent=False),
}

_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "smb": "smbprotocol",
    "hdfs": "pyarrow",
}

# The retries of s3fs and of botocore multiply; as they come, a silent server is waited for during
# an hour. More connections than botocore's ten make batches worth their name.
_S3_CONFIG = {
    "retries": {"max_attempts": 2, "mode": "standard"},
    "max_pool_connections": 32,
}
_S3_RETRIES = 2

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC

_live: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()
_inherited: list[Any] = []
"""What a fork has copied, kept: closing it in the child would close it under its parent."""

os.register_at_fork(after_in_child=lambda: _inherited.extend(_live.values()))


def is_path(url: str) -> bool:
    """Return whether ``url`` is no url but a path of this machine."""
    return "://" not in url and "::" not in url


class Connection:
    """The filesystem that ``url`` leads to, opened when it is first used.

    Each process has its own, and so has each thread where the filesystem is not made for several.

    Args:
        url: what fsspec calls one, or a path.
        options: what the filesystem takes.

    Attributes:
        is_async: one connection serves all threads, many requests at a time.

    Raises:
        ConfigError: there is no filesystem of that name.
        MissingExtra: the package that speaks the protocol is not installed.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url = _normal(url)
        self.name = redact(self.url)
        self._options = dict(options)
        self._protocol = "file" if is_path(url) else _protocol(self.url)
        self.traits = Traits() if "::" in url else _TRAITS.get(self._protocol, Traits())
        self.is_async = issubclass(self._check(), AsyncFileSystem)
        self._opened: dict[tuple[int, int], tuple[Any, str]] = {}

    @property
    def fs(self) -> Any:
        """The filesystem, for this process and, if need be, for this thread alone."""
        return self._open()[0]

    @property
    def root(self) -> str:
        """The path of the url on the filesystem."""
        return self._open()[1]

    def make_directory(self, path: str) -> None:
        """Make a directory, and those above it, where there are none."""
        if self._is_here:
            make_directories(path)
        else:
            self.fs.makedirs(path, exist_ok=True)

    def open_new(self, path: str) -> Any:
        """Open a file to write, that may be new; with the mode that is due if it is here."""
        if self._is_here:
            return open(make_file(path, _WRITE), "wb")
        return self.fs.open(path, "wb")

    @property
    def _is_here(self) -> bool:
        """Whether these are the files of this machine."""
        return self.traits is _LOCAL

    def close(self) -> None:
        """Give up the filesystem; the last one to do so closes its connections. Idempotent."""
        self._opened.clear()

    def _open(self) -> tuple[Any, str]:
        here = (os.getpid(), 0 if self.is_async else threading.get_ident())
        found = self._opened.get(here)
        if found is None:
            with explained("open", self.name):
                found = self._opened.setdefault(here, self._connect(here))
        return found

    def _connect(self, here: tuple[int, int]) -> tuple[Any, str]:
        options = self._all_options()
        if not self.traits.bucket_only:
            fs, root = fsspec.core.url_to_fs(self.url, **options)
            own = (id(fs), *here)
            _live[own] = fs
            return fs, root
        shared = (self._protocol, repr(options), *here)
        fs = _live.get(shared)
        if fs is None:
            fs = _live.setdefault(shared, fsspec.filesystem(self._protocol, **options))
            if self.traits is _S3:
                fs.retries = _S3_RETRIES
        return fs, self.url.partition("://")[2]

    def _all_options(self) -> dict[str, Any]:
        options = {**self._options, "skip_instance_cache": True}
        if self.traits.streams:
            options["use_listings_cache"] = False
        if self.traits is _S3:
            own = deepcopy(_S3_CONFIG)  # botocore alters what it is given
            options["config_kwargs"] = {**own, **options.get("config_kwargs", {})}
        return options

    def _check(self) -> Any:
        """Import every filesystem that the url names, and return the class of the first."""
        links = ["file"] if is_path(self.url) else self.url.split("::")
        first, *_ = [self._import(_protocol(link)) for link in links]
        return first

    def _import(self, protocol: str) -> Any:
        try:
            return fsspec.get_filesystem_class(protocol)
        except ValueError:
            raise ConfigError(f"{self.name}: fsspec knows no filesystem {protocol!r}") from None
        except ImportError as error:
            package = _PACKAGES.get(protocol)
            told = "" if package else f" ({error})"
            raise MissingExtra(
                f"{self.name}: a url {protocol}:// needs a package of its own{told}: "
                f"pip install fsspec {package or ''}".rstrip()
            ) from error


def _normal(url: str) -> str:
    if is_path(url):
        return str(expand_path(url).absolute())
    url = expand_variables(url)
    return url if url.endswith("://") else url.rstrip("/")


def _protocol(url: str) -> str:
    return url.partition("::")[0].partition("://")[0]


# -- errors ----------------------------------------------------------------------------------------

_AGAIN = "try again later"
_ROOM = "free some space, or remove results (fleche evict, then fleche gc)"

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
    errno.EFBIG: "the size of files is limited here; raise the limit (ulimit -f)",
    errno.ENAMETOOLONG: "choose a shorter url",
    errno.EBUSY: f"it is overloaded; {_AGAIN}",
    errno.EIO: f"the store itself fails; {_AGAIN}",
    getattr(errno, "EREMOTEIO", errno.EIO): f"the store itself fails; {_AGAIN}",  # of Linux alone
}


def is_absent(error: BaseException) -> bool:
    """Return whether ``error`` says that there is no such entry, in a place that does exist."""
    return isinstance(error, FileNotFoundError) and _code(error) != "NoSuchBucket"


def is_empty_range(error: BaseException) -> bool:
    """Return whether ``error`` may say that an object has no bytes where some were asked for."""
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
def explained(action: str, name: str, key: str | None = None) -> Iterator[None]:
    """Turn any error of a filesystem into a :class:`StorageError`.

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
