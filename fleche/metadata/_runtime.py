"""When and where a call ran, what it took, and what its user says about it."""

from __future__ import annotations

import functools
import os
import time
from datetime import datetime, timezone
from typing import Any

from fleche._util import host_name, override, user_name
from fleche.call import legible_text
from fleche.metadata._base import MetaData

__all__ = ["Cpu", "Runtime", "Tags"]


class Runtime(MetaData):
    """When the call ran, for how long, where, and for whom.

    Its data are ``started`` and ``finished`` (ISO 8601, UTC), ``seconds`` (of the clock on the
    wall), ``host``, ``user`` and ``pid``.
    """

    _is_plain = True

    @override
    def start(self) -> None:
        """Read the clocks."""
        self._started = time.time()
        self._clock = time.perf_counter()

    @override
    def finish(self) -> dict[str, Any]:
        seconds = time.perf_counter() - self._clock
        return {
            "started": _iso(self._started),
            "finished": _iso(self._started + seconds),
            "seconds": seconds,
            "host": _host(),
            "user": _user(),
            "pid": os.getpid(),
        }


@functools.cache
def _host() -> str:
    return legible_text(host_name())


@functools.cache
def _user() -> str:
    return legible_text(user_name())


def _iso(seconds: float) -> str:
    whole, microseconds = divmod(round(seconds * 1e6), 1_000_000)
    return f"{_whole_second(whole)}.{microseconds:06}+00:00"


@functools.lru_cache(maxsize=16)
def _whole_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")


class Cpu(MetaData):
    """How much processor time the call took: ``seconds``, of all threads of the process.

    So other work at the same time counts too. It is collected only where it is asked for: the clock
    has to be read from the system, which takes the occasion to let another process go on if more of
    them want to run than there are processors.
    """

    _is_plain = True

    @override
    def start(self) -> None:
        """Read the clock."""
        self._started = time.process_time()

    @override
    def finish(self) -> dict[str, Any]:
        return {"seconds": time.process_time() - self._started}


class Tags(MetaData):
    """What the user says about a call, to find it by: ``Tags(project="alloys", sample=7)``."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def merge(self, later: Tags) -> Tags:
        """Return the tags of both; where they differ, those of ``later``."""
        return Tags(**{**self.fields, **later.fields})

    @override
    def finish(self) -> dict[str, Any]:
        return dict(self.fields)

    def __repr__(self) -> str:
        return f"Tags({', '.join(f'{key}={value!r}' for key, value in self.fields.items())})"
