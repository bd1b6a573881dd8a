"""When a server was last reached from this account: what can be said of it without asking it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from typing import Any

import msgspec

from fleche._util import user_cache_directory

__all__ = ["Contact", "last_contact", "note_contact"]

log = logging.getLogger("fleche.remote")


class Contact(msgspec.Struct, frozen=True):
    """What was known of a server when it was last reached.

    Attributes:
        at: when that was, in seconds since the epoch.
        name: of the channel, such as ``"ssh marvin@bigpc"``.
        version: of its fleche.
        hostname: of its machine.
    """

    at: float = 0.0
    name: str = ""
    version: str = ""
    hostname: str = ""


def last_contact(name: str) -> Contact | None:
    """Return when the server of the channel called ``name`` was last reached, if it ever was."""
    path = _path(name)
    try:
        with open(path, "rb") as file:
            found = msgspec.json.decode(file.read(), type=Contact)
        return msgspec.structs.replace(found, at=os.stat(path).st_mtime)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None


def note_contact(name: str, info: Mapping[str, Any]) -> None:
    """Take note that the server has just answered; that this fails is no harm."""
    contact = Contact(
        name=name,
        version=str(info.get("fleche_version", "")),
        hostname=str(info.get("hostname", "")),
    )
    path = _path(name)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "wb") as file:
            file.write(msgspec.json.encode(contact))
        os.replace(temporary, path)
    except OSError as error:
        log.debug("no note of the contact with %s: %s", name, error)


def _path(name: str) -> str:
    return user_cache_directory("contacts", hashlib.blake2s(name.encode()).hexdigest()[:32])
