"""The first words of a connection, without I/O, and what a server says of itself.

The client writes one line, the server answers with one line, and frames follow::

    client:  fleche-remote? TOKEN CRC {"protocol": [1, 1], "features": [...], "version": "..."} LF
    server:  LF fleche-remote! TOKEN CRC {"protocol": 1, "features": [...], "info": {...}} LF

TOKEN is 32 random hexadecimal digits, CRC the CRC-32 of the JSON as 8 hexadecimal digits. The
client looks for the answer to its own token and skips everything before it: banners, the chatter of
shell start-up files and of ``module load``, whole lines or not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import cloudpickle

from fleche._redact import redact
from fleche._util import __version__, attempt, host_name, warn_caller
from fleche.caches import BaseCache, free_bytes
from fleche.errors import ConfigError, ProtocolError
from fleche.remote._protocol import MAX_STREAMS
from fleche.storage import Capabilities

__all__ = [
    "LINE_LIMIT",
    "NOISE_LIMIT",
    "NOT_GREETED",
    "ClientGreeting",
    "Hello",
    "ServerGreeting",
    "check_way",
    "mask",
    "printable",
    "read_capabilities",
    "server_info",
    "via",
    "warn_of_skew",
]

NOISE_LIMIT = 1 << 20
"""Bytes that may come before the server's answer."""

LINE_LIMIT = 1 << 20
"""Bytes that one line of the greeting may have."""

_SHOWN = 150
"""Bytes of the beginning, and of the end, of foreign output that are shown."""

NOT_GREETED = b"\nfleche-remote: no greeting has come\n"
"""What a server says that has waited for its greeting for a while, before it waits on."""

_SWALLOWED = (
    "\nWhat was sent to the server has gone to another program there: a start-up file of the "
    "account (~/.bashrc, ~/.profile, ~/.zshenv, ~/.cshrc) or a setup command reads standard input "
    "(read, cat, exec of another shell). Let it do so in interactive shells only, or give it "
    "</dev/null"
)
_ASK = b"fleche-remote? "
_REPLY = b"\nfleche-remote! "


@dataclass(frozen=True)
class Hello:
    """What the peer said of itself: its protocol, what it can; a server also its info and limit.

    Attributes:
        requests: how many requests the server has open at once.
        via: the servers, by their marks, through which the client was asked itself.
    """

    protocol: int
    features: tuple[str, ...]
    version: str = ""
    info: dict[str, Any] | None = None
    requests: int = MAX_STREAMS
    via: tuple[str, ...] = ()


class ClientGreeting:
    """The client's side: ask, then find the answer in whatever comes."""

    def __init__(self, protocols: tuple[int, int], features: tuple[str, ...], version: str) -> None:
        self._protocols = protocols
        self._token = os.urandom(16).hex().encode()
        self._mark = _REPLY + self._token + b" "
        self._seen = bytearray(b"\n")
        self._answer_at: int | None = None
        self._scanned = 0
        self.hello: Hello | None = None
        body: dict[str, Any] = {
            "protocol": list(protocols),
            "features": list(features),
            "version": version,
        }
        if way := via.get():
            body["via"] = list(way)
        self.opening = _ASK + self._token + b" " + _seal(body) + b"\n"

    def instead(self, told: str = "") -> str:
        """Return what came in place of an answer, as the end of a sentence; empty if nothing did.

        Args:
            told: what is known from elsewhere, such as standard error.
        """
        said = f"; so far it said: {self.noise}" if self.noise else ""
        return said + (_SWALLOWED if self.is_swallowed(told) else "")

    def is_swallowed(self, told: str = "") -> bool:
        """Return whether the greeting went to something that is no server of fleche.

        It came back (the echo of a terminal, which is followed by an answer, or of ``cat``), or a
        shell complains of it (in ``told``), or the server says that none came.
        """
        came_back = self._token in self._seen and self._answer_at is None
        return came_back or NOT_GREETED in self._seen or _ASK.strip().decode() in told

    @property
    def noise(self) -> str:
        """What came before any answer, masked and shortened, for messages; empty if nothing did."""
        end = None if self._answer_at is None else self._answer_at - len(self._mark)
        return mask(bytes(self._seen[1:end])) if self._seen[1:end] else ""

    def feed(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """Take what was read; return what follows the answer once it is there, else ``None``.

        Raises:
            ProtocolError: too much noise, a damaged answer, or a server of another protocol.
        """
        self._seen += data
        if self._answer_at is None:
            found = self._seen.find(self._mark, max(0, self._scanned - len(self._mark)))
            self._scanned = len(self._seen)
            if found < 0:
                if len(self._seen) > NOISE_LIMIT:
                    raise ProtocolError(
                        f"{NOISE_LIMIT} bytes came, and no answer of a fleche server"
                    )
                return None
            self._answer_at = found + len(self._mark)
        end = self._seen.find(b"\n", self._answer_at)
        if end < 0:
            if len(self._seen) - self._answer_at > LINE_LIMIT:
                raise ProtocolError("the answer of the server has no end")
            return None
        body = _open(bytes(self._seen[self._answer_at : end]))
        self.hello = self._check(body)
        return bytes(self._seen[end + 1 :])

    def _check(self, body: dict[str, Any]) -> Hello:
        hello = _hello(body)
        low, high = self._protocols
        if not low <= hello.protocol <= high:
            where = "on the remote machine" if hello.protocol < low else "on this machine"
            raise ProtocolError(
                f"the server (fleche {hello.version}) speaks protocol {hello.protocol}, "
                f"this client {low} to {high}: upgrade fleche {where}"
            )
        return hello


class ServerGreeting:
    """The server's side: read the client's line, then answer it."""

    def __init__(self, protocols: tuple[int, int]) -> None:
        self._protocols = protocols
        self._seen = bytearray()
        self._token = b""
        self.hello: Hello | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """Take what was read; return what follows the line once it is there, else ``None``.

        Raises:
            ProtocolError: this is no client of fleche.
        """
        self._seen += data
        end = self._seen.find(b"\n")
        if end < 0:
            if len(self._seen) > LINE_LIMIT or not _ASK.startswith(self._seen[: len(_ASK)]):
                raise ProtocolError(f"not a fleche client; it says: {mask(bytes(self._seen))}")
            return None
        line = bytes(self._seen[:end])
        token, _, rest = line[len(_ASK) :].partition(b" ")
        if not line.startswith(_ASK) or len(token) != 32:
            raise ProtocolError(f"not a fleche client; it says: {mask(line)}")
        body = _open(rest)
        low, high = _range(body.get("protocol"))
        self._token = token
        self.hello = Hello(
            protocol=min(high, self._protocols[1])
            if low <= self._protocols[1]
            else self._protocols[1],
            features=_words(body.get("features")),
            version=printable(body.get("version", "")),
            via=_words(body.get("via")),
        )
        return bytes(self._seen[end + 1 :])

    def answer(
        self,
        features: tuple[str, ...],
        version: str,
        info: dict[str, Any],
        *,
        requests: int = MAX_STREAMS,
    ) -> bytes:
        """Return the line to write; ``requests`` is how many may be open at once."""
        assert self.hello is not None
        protocol = max(self.hello.protocol, self._protocols[0])
        body = {
            "protocol": protocol,
            "features": list(features),
            "version": version,
            "requests": requests,
            "info": info,
        }
        return _REPLY + self._token + b" " + _seal(body) + b"\n"


def mask(data: bytes) -> str:
    """Return foreign output as one harmless line; of a long one, its beginning and its end."""
    if len(data) > 2 * _SHOWN:
        data = data[:_SHOWN] + "…".encode() + data[-_SHOWN:]
    text = data.decode("utf-8", "replace")
    return repr("".join(c if c.isprintable() else "·" if c != "\n" else " ⏎ " for c in text))


def printable(word: object) -> str:
    """Return what a peer says of itself, a version say, as a short and harmless word."""
    return "".join(filter(str.isprintable, str(word)[:40]))


def _seal(body: dict[str, Any]) -> bytes:
    text = json.dumps(body, separators=(",", ":"), default=str).encode()
    return b"%08x %s" % (crc32(text), text)


def _open(sealed: bytes) -> dict[str, Any]:
    check, _, text = sealed.partition(b" ")
    if b"%08x" % crc32(text) != check:
        raise ProtocolError("the greeting of the other side arrived damaged")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the greeting of the other side cannot be read: {error}") from None
    if not isinstance(body, dict):
        raise ProtocolError("the greeting of the other side is no JSON object")
    return body


def _hello(body: dict[str, Any]) -> Hello:
    protocol, info = body.get("protocol"), body.get("info")
    if not isinstance(protocol, int) or not isinstance(info, dict):
        raise ProtocolError("the answer of the server lacks its protocol or its info")
    requests = body.get("requests", MAX_STREAMS)
    if not isinstance(requests, int) or requests < 1:
        raise ProtocolError("the answer of the server allows no requests")
    features, version = _words(body.get("features")), printable(body.get("version", ""))
    return Hello(protocol, features, version, info, requests)


def _range(value: Any) -> tuple[int, int]:
    match value:
        case [int(low), int(high)]:
            return low, high
    raise ProtocolError("the greeting of the client names no protocol versions")


def _words(value: Any) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


log = logging.getLogger("fleche.remote.server")


# -- servers that are clients of others ------------------------------------------------------------

via: ContextVar[tuple[str, ...]] = ContextVar("fleche.via", default=())
"""The servers, by their marks, on whose behalf this thread works, the first one first."""

LONGEST_WAY = 16
"""Servers that may ask one another on behalf of one client."""


def check_way(cache: BaseCache, way: tuple[str, ...]) -> tuple[str, ...]:
    """Return the way that leads on from a server of ``cache``, which ``way`` has led to.

    A cache may name itself: where a machine has the configuration of the one that asks it, or a
    subprocess has that of its parent. Each server would start the next one, without an end.

    Raises:
        ConfigError: a server of this very cache is on the way already, or it is too long.
    """
    try:
        described = redact(cache.to_config())
    except Exception:  # noqa: BLE001 (of any cache: it has no configuration)
        described = [os.getpid(), id(cache)]
    told = json.dumps([host_name(), os.getuid(), described], sort_keys=True, default=str)
    mark = hashlib.blake2s(told.encode(), digest_size=16).hexdigest()
    if mark in way or len(way) >= LONGEST_WAY:
        raise ConfigError(
            "this cache asks itself: a remote cache in it leads back here, where it is what is "
            "served. Name there which cache is meant (cache_name), or another directory (workdir)"
        )
    return (*way, mark)


def server_info(cache: BaseCache, cache_name: str | None) -> dict[str, Any]:
    """Return what the server says of itself; credentials are hidden."""
    capabilities = cache.capabilities
    config = _described(cache)
    return {
        "cache": redact(config),
        "cache_name": cache_name,
        "read_only": capabilities.read_only,
        **_versions(),
        "cwd": attempt(os.getcwd),  # it may have been removed
        "hostname": host_name(),
        "python": f"{platform.python_version()} ({sys.executable})",
        "pid": os.getpid(),
        "free_bytes": free_bytes(config),
        "accepted": _has_accepted(cache),
        "capabilities": {
            "persistent": capabilities.persistent,
            "shared": capabilities.shared,
            "opens_parcels": capabilities.opens_parcels,
        },
    }


def _has_accepted(cache: BaseCache) -> bool:
    """Return whether code was accepted there, as far as that is known without asking elsewhere."""
    try:
        return bool(cache.backend.accepted(near=True))
    except Exception as error:  # noqa: BLE001 (of any cache; clients then ask themselves)
        log.debug("%r: cannot tell which code was accepted: %s", cache, error)
        return True


def read_capabilities(info: Mapping[str, Any]) -> Capabilities:
    """Return what the cache behind a server is, by the server's ``info``.

    What is neither true nor false counts as not said: it is a server of other habits, or none to be
    trusted, and refuses what it does not want.
    """
    told = info.get("capabilities")
    known = told if isinstance(told, Mapping) else {}
    return Capabilities(
        read_only=_flag(info, "read_only", unless_said=False),
        persistent=_flag(known, "persistent", unless_said=True),
        shared=_flag(known, "shared", unless_said=True),
        opens_parcels=_flag(known, "opens_parcels", unless_said=False),
    )


def _flag(told: Mapping[str, Any], name: str, *, unless_said: bool) -> bool:
    said = told.get(name)
    return said if isinstance(said, bool) else unless_said


def warn_of_skew(name: str, info: Mapping[str, Any]) -> None:
    """Warn, at the user's line, if the server called ``name`` has other versions, by ``info``."""
    skew = ", ".join(
        f"{each.removesuffix('_version')} {printable(info.get(each))} there, {version} here"
        for each, version in _versions().items()
        if info.get(each) != version
    )
    if skew:
        warn_caller(
            f"{name}: {skew}; if values cannot be opened, install the same versions at both ends"
        )


def _versions() -> dict[str, str]:
    return {"fleche_version": __version__, "cloudpickle_version": cloudpickle.__version__}


def _described(cache: BaseCache) -> Any:
    try:
        return cache.to_config()
    except Exception as error:  # noqa: BLE001 (a cache without a configuration can be served too)
        log.debug("the cache has no configuration: %s", error)
        return {"type": type(cache).__name__}
