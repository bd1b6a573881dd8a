"""Configurations without their secrets, for logs, error reports and the other end of a wire."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, unquote_plus

__all__ = ["HIDDEN", "redact"]

HIDDEN = "***"
"""Stands where a secret was."""

_SECRET = re.compile(
    r"secret|passw|passphrase|(^|[_-])pwd$|token|credential|signature|connection_?string"
    r"|(api|access|account|private|sas|shared)[_-]?key|(^|[_-])(sig|sas|auth)$",
    re.IGNORECASE,
)
_OPTION_OF_SSH = re.compile(
    r"((?:proxy|(?<!permit)local|remote|knownhosts)command|setenv)(\W).*",
    re.IGNORECASE | re.DOTALL,
)
_DSN = re.compile(r"(^|[;\s&?])\s*([\w -]+?)\s*=")
_URL = re.compile(r"([A-Za-z][\w+.-]*)://(\S+)")
_WHOLE_URL = re.compile(r"([A-Za-z][\w+.-]*)://(.+)", re.DOTALL)
_USERINFO = re.compile(r"([^:/@?#]*):(.*)@", re.DOTALL)
_LONE_USER = re.compile(r"([^:/@?#]+)@")
_LONGEST_USER = 32


def redact(config: Any) -> Any:
    """Return a copy of ``config`` in which every secret reads ``"***"``.

    Secrets are ``secret_key`` and whatever else is named like one, all values of ``env``, all
    ``setup_commands`` and the commands and variables in ``ssh_options`` (any word of a command may
    be a password), and passwords, keys and tokens in ``options`` and in URLs wherever they stand
    (user part, query, percent-encoded). The copy has the same shape and loads as the original does,
    without reaching what the secrets open.

    Args:
        config: a table, an array, or anything inside them.
    """
    return _redact(config, _by_name)


def _redact(value: Any, is_secret: Callable[[str], bool]) -> Any:
    if isinstance(value, Mapping):
        return {key: _redact_item(key, item, is_secret) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redact(item, is_secret) for item in value]
    return _redact_text(value) if isinstance(value, str) else value


def _redact_item(key: str, value: Any, is_secret: Callable[[str], bool]) -> Any:
    if key in ("env", "setup_commands") or is_secret(key):
        return _hide(value)
    if key == "ssh_options" and isinstance(value, list | tuple):
        return [_redact_option(item) for item in value]
    return _redact(value, _by_option if key == "options" else is_secret)


def _by_name(key: str) -> bool:
    return bool(_SECRET.search(key))


def _by_option(key: str) -> bool:
    """Filesystems of fsspec take a secret as plain ``key``, too."""
    return key.casefold() in ("key", "pat", "pin") or _by_name(key)


def _hide(value: Any) -> Any:
    """Hide every text and number inside; what is true or false is no secret."""
    if isinstance(value, Mapping):
        return {key: _hide(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hide(item) for item in value]
    return value if isinstance(value, bool) or value is None else HIDDEN


def _redact_option(word: Any) -> Any:
    """Hide what ssh is to run, and the variables it is to set."""
    if not isinstance(word, str):
        return word
    return _redact_text(_OPTION_OF_SSH.sub(rf"\1\2{HIDDEN}", word))


def _redact_text(text: str) -> str:
    whole = _WHOLE_URL.fullmatch(text)
    return _redact_url(whole) if whole else _URL.sub(_redact_url, text)


def _redact_url(match: re.Match[str]) -> str:
    scheme, rest = match.groups()
    is_web = "http" in scheme.casefold() or scheme.casefold().startswith("webdav")
    return f"{scheme}://{_redact_parameters(_redact_user(rest, hide_user=is_web))}"


def _redact_user(rest: str, *, hide_user: bool) -> str:
    """Hide the password, and a user that may itself be a token.

    A password may hold any character, so it ends at the last ``@``: better a path hidden with it
    than half of it shown.
    """
    found = _USERINFO.match(rest)
    if found:
        user = HIDDEN if found[1] and _is_token(found[1], hide_user) else found[1]
        return f"{user}:{HIDDEN}@{rest[found.end() :]}"
    lone = _LONE_USER.match(rest)
    if lone and _is_token(lone[1], hide_user):
        return f"{HIDDEN}@{rest[lone.end() :]}"
    return rest


def _is_token(user: str, hide_user: bool) -> bool:
    return hide_user or len(user) > _LONGEST_USER


def _redact_parameters(rest: str) -> str:
    """Hide the secrets among the parameters of the query and of the fragment."""
    return re.sub(r"(?<=[?&;#])([^=&;#?]+)=([^&;#]*)", _hide_parameter, rest)


def _hide_parameter(match: re.Match[str]) -> str:
    name, value = match.groups()
    decoded = unquote_plus(value)
    holds_secret = any(_by_option(part[2].strip()) for part in _DSN.finditer(decoded))
    if _by_option(unquote(name)) or holds_secret or _redact_text(decoded) != decoded:
        return f"{name}={HIDDEN}"
    return match.group()
