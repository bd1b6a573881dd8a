"""How the reports of housekeeping, which take their time, come over the wire.

A report travels in parts, which add up as reports do; between them the server tells how far it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, TypeVar

import msgspec

from fleche.caches import Progress, Report
from fleche.errors import ProtocolError
from fleche.remote import messages as m

__all__ = ["Telling", "parts", "read_report"]

R = TypeVar("R", bound=Report)

_TELL = 0.2
"""Seconds between two words on how far it is."""

_DIGESTS = 4096
"""So many digests are in one part of a report."""


class Telling:
    """Tells, now and then, how many entries have been looked at.

    That is also when a server learns that nobody wants to know any more.
    """

    def __init__(self, send: Callable[[m.Answer], None]) -> None:
        self._send = send
        self._next = time.monotonic() + _TELL

    def __call__(self, entries: int) -> None:
        """Tell, if it is time."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _TELL
            self._send(m.Progressed(entries))


def parts(report: Report) -> Iterator[m.Reported]:
    """Yield ``report`` as parts that add up to it, each small enough for a message."""
    plain = {each.name: getattr(report, each.name) for each in fields(report)}
    lists = {name: value for name, value in plain.items() if isinstance(value, tuple)}
    yield m.Reported({name: value for name, value in plain.items() if name not in lists})
    for name, digests in lists.items():
        for start in range(0, len(digests), _DIGESTS):
            yield m.Reported({name: digests[start : start + _DIGESTS]})


def read_report(
    answers: Callable[[], m.Answer | None], kind: type[R], progress: Progress | None
) -> R:
    """Return the report that ``answers`` bring.

    Args:
        answers: returns the next answer, ``None`` after the last.
        kind: of the report.
        progress: called with the number of entries that the server has looked at.

    Raises:
        ProtocolError: they bring something else.
    """
    report = kind()
    while (answer := answers()) is not None:
        if isinstance(answer, m.Reported):
            report = report + _decoded(answer.report, kind)
        elif not isinstance(answer, m.Progressed):
            raise ProtocolError(f"a report was asked for, and {type(answer).__name__} came")
        elif progress is not None:
            progress(answer.entries)
    return report


def _decoded(plain: dict[str, Any], kind: type[R]) -> R:
    try:
        return msgspec.convert(plain, kind, dec_hook=lambda wanted, value: wanted(value))
    except (msgspec.ValidationError, ValueError) as error:
        raise ProtocolError(f"not a {kind.__name__}: {error}") from None
