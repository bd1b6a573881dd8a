"""Ages and sizes as people write them: ``"30d"``, ``"1h30m"``, ``"20GB"``."""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time, timedelta, timezone
from itertools import pairwise
from typing import SupportsFloat

__all__ = [
    "as_age",
    "as_bytes",
    "as_seconds",
    "as_stamp",
    "count",
    "shown_bytes",
    "shown_float",
    "shown_seconds",
]

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SECONDS.update({"mo": 30 * 86400.0, "y": 365 * 86400.0})
_WORDS = r"(?:second|sec|minute|min|hour|day|week|month|year)s?|mo|[smhdwy]"
_AGE = rf"(\d+(?:\.\d+)?)\s*({_WORDS})(?![a-z])"
_DAYS = {"today": 0, "yesterday": 1}  # since the day
_SIZE = r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?"  # in small letters
_SPANS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_MULTIPLES = ("kB", "MB", "GB", "TB", "PB")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def as_age(given: timedelta | str | float) -> timedelta:
    """Return how long a time is that is given as ``"90s"``, ``"15m"``, ``"2d"``, ``"2 days"``.

    Several may follow each other: ``"1h30m"``. A number is one of seconds.

    Raises:
        TypeError: it is none of these.
        ValueError: it is a text that says something else, or less than no time, or too long.
    """
    try:
        found = _age(given)
    except OverflowError:
        raise ValueError(f"{given!r} is too long a time") from None
    if found < timedelta(0):
        raise ValueError(f"{given!r} is less than no time")
    return found


def as_seconds(given: timedelta | str | float) -> float:
    """Return how many seconds a time has; a number is one of seconds, even if it is less than none.

    Raises:
        TypeError: it is none of these.
        ValueError: it is a text that says something else.
    """
    if isinstance(given, str | timedelta):
        return as_age(given).total_seconds()
    if isinstance(given, SupportsFloat):
        return float(given)
    raise TypeError(f"{given!r} is no time: seconds, a timedelta or a text such as '30d' is")


def _age(given: timedelta | str | float) -> timedelta:
    if isinstance(given, timedelta):
        return given
    if isinstance(given, str):
        text = given.strip().lower()
        if text == "0":  # of any unit
            return timedelta(0)
        parts = re.findall(_AGE, text)
        if not parts or re.sub(_AGE, "", text).strip():
            raise ValueError(
                f"{given!r} is no time: write numbers with units (s, m or min, h, d, w, mo, y), "
                "as in '30d' or '1h30m'"
            )
        return timedelta(seconds=sum(float(number) * _unit(word) for number, word in parts))
    if isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given):
        return timedelta(seconds=given)
    raise TypeError(f"{given!r} is no time: a timedelta or a text such as '30d' is")


def _unit(word: str) -> float:
    return _SECONDS["mo" if word.startswith("mo") else word[0]]


def as_stamp(given: datetime | date | timedelta | str) -> str:
    """Return a moment as the metadata of calls have it, in UTC: a date, or how long ago it is.

    Args:
        given: a :class:`datetime` or a date (local, if it has no zone), as ISO-8601 text too;
            ``"today"`` or ``"yesterday"``, when that day began; or an age, as for :func:`as_age`.

    Raises:
        TypeError: it is none of these.
        ValueError: it is a text that says something else, or no date that there is.
    """
    try:
        return _moment(given).isoformat(timespec="microseconds")
    except OverflowError:
        raise ValueError(f"{given!r} is before the first date that there is, or too late") from None


def _moment(given: datetime | date | timedelta | str) -> datetime:
    if isinstance(given, datetime):
        return _in_utc(given)
    if isinstance(given, date):
        return _in_utc(datetime.combine(given, time()))
    if isinstance(given, str):
        text = given.strip()
        if (days := _DAYS.get(text.lower())) is not None:
            return _moment(date.today() - timedelta(days))
        try:
            found = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            pass
        else:
            return _in_utc(found)
    elif not isinstance(given, timedelta):
        raise TypeError(
            f"{given!r} is no moment: a datetime, a timedelta (so long ago) or a text such as '2d' "
            "or '2026-01-31' is"
        )
    try:
        age = as_age(re.sub(r"\s+ago\s*$", "", given) if isinstance(given, str) else given)
    except ValueError as error:
        hint = "a moment may be a date, '2026-01-31', 'today' or 'yesterday' as well"
        raise ValueError(f"{error}; {hint}") from None
    return datetime.now(timezone.utc) - age


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(timezone.utc)
    except ValueError as error:  # as some systems say it
        raise OverflowError(str(error)) from None


def as_bytes(given: int | str) -> int:
    """Return a number of bytes that is given as ``"20GB"``, ``"512 MiB"`` or a number.

    ``k``, ``M``, ``G``, ``T`` and ``P`` are powers of 1000, with an ``i`` of 1024.

    Raises:
        TypeError: it is neither text nor a whole number.
        ValueError: it is a text that says something else, or too many.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    if not isinstance(given, str):
        raise TypeError(f"{given!r} is no size: a number of bytes or a text such as '20GB' is")
    found = re.fullmatch(_SIZE, given.strip().lower())
    if found is None:
        raise ValueError(f"{given!r} is no size: '20GB', '512MiB' and 1000 are")
    base = 1024 if found[3] else 1000
    try:
        return round(float(found[1]) * float(base) ** _POWERS[found[2]])
    except OverflowError:
        raise ValueError(f"{given[:40]!r} is no size that there can be") from None


def shown_seconds(seconds: float | None) -> str:
    """Return a time span: ``12 ms``, ``3.4 s``, ``2 min 5 s``, ``3 h 20 min``, ``2 d 4 h``."""
    if not seconds:
        return "" if seconds is None else "0 s"
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.0f} {unit}"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    for (large, unit), (small, next_unit) in pairwise(_SPANS):
        if rest >= large:
            more = rest % large // small
            whole = f"{rest // large} {unit}"
            return f"{whole} {more} {next_unit}" if more else whole
    return f"{rest} s"


def shown_float(number: float, figures: int) -> str:
    """Return a float in so many figures, which never looks like a whole number."""
    text = f"{number:.{figures}g}"
    return f"{text}.0" if text.lstrip("-").isdigit() else text


def count(number: int, noun: str, plural: str = "", *, commas: bool = True) -> str:
    """Return ``1 call`` or ``1,234 calls``; without commas what is stored, and searched for."""
    digits = f"{number:,}" if commas else str(number)
    return f"{digits} {noun if number == 1 else plural or f'{noun}s'}"


def shown_bytes(number: float) -> str:
    """Return bytes in the largest unit that leaves a figure before the point: ``3.4 MB``."""
    if number < 1000:
        return f"{number:.0f} B"
    units = iter(_MULTIPLES)
    unit = next(units)
    number /= 1000
    while number >= 999.5 and (larger := next(units, None)):
        number, unit = number / 1000, larger
    return f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"
