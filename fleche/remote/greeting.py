"""The first words of a connection, without I/O.

The client writes one line, the server answers with one line, and frames follow::

    client:  fleche-remote? TOKEN CRC {"protocol": [1, 1], "features": [...], "version": "..."} LF
    server:  LF fleche-remote! TOKEN CRC {"protocol": 1, "features": [...], "info": {...}} LF

TOKEN is 32 random hexadecimal digits, CRC the CRC-32 of the JSON as 8 hexadecimal digits. The
client looks for the answer to its own token and skips everything before it: banners, the chatter of
shell start-up files and of ``module load``, whole lines or not.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from fleche.errors import ProtocolError
from fleche.remote.session import MAX_REQUESTS

__all__ = [
    "LINE_LIMIT",
    "NOISE_LIMIT",
    "ClientGreeting",
    "Hello",
    "ServerGreeting",
    "mask",
    "printable",
]

NOISE_LIMIT = 1 << 20
"""Bytes that may come before the server's answer."""

LINE_LIMIT = 1 << 20
"""Bytes that one line of the greeting may have."""

_ASK = b"fleche-remote? "
_REPLY = b"\nfleche-remote! "


@dataclass(frozen=True)
class Hello:
    """What the peer said of itself: its protocol, what it can; a server also its info and limit.

    Attributes:
        requests: how many requests the server has open at once.
    """

    protocol: int
    features: tuple[str, ...]
    version: str = ""
    info: dict[str, Any] | None = None
    requests: int = MAX_REQUESTS


class ClientGreeting:
    """The client's side: ask, then find the answer in whatever comes."""

    def __init__(self, protocols: tuple[int, int], features: tuple[str, ...], version: str) -> None:
        self._protocols = protocols
        self._token = secrets.token_hex(16).encode()
        self._mark = _REPLY + self._token + b" "
        self._seen = bytearray(b"\n")
        self._answer_at: int | None = None
        self._scanned = 0
        self.hello: Hello | None = None
        body = {"protocol": list(protocols), "features": list(features), "version": version}
        self.opening = _ASK + self._token + b" " + _seal(body) + b"\n"

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
        )
        return bytes(self._seen[end + 1 :])

    def answer(
        self,
        features: tuple[str, ...],
        version: str,
        info: dict[str, Any],
        *,
        requests: int = MAX_REQUESTS,
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


def mask(data: bytes, limit: int = 300) -> str:
    """Return foreign output as one harmless line; of a long one, its beginning and its end."""
    if len(data) > limit:
        data = data[: limit // 2] + "…".encode() + data[-limit // 2 :]
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
    requests = body.get("requests", MAX_REQUESTS)
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
