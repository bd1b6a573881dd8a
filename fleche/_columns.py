"""Tables of text: which columns there is room for, how wide each is, and what a cell may hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

__all__ = ["Span", "fit_columns", "printable"]


def printable(text: str) -> str:
    """Return ``text`` in one line and free of control characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Span(NamedTuple):
    """How wide a column may be.

    Attributes:
        wanted: as wide as its widest cell; it is never wider.
        easy: it is narrower than this only where all columns that can be spared are left out.
        least: it is never narrower.
    """

    wanted: int
    easy: int
    least: int

    @classmethod
    def between(cls, least: int, easy: int, wanted: int) -> Span:
        """Return the span of a column that may be cut, unless it is narrow anyway."""
        return cls(wanted, min(easy, wanted), min(least, wanted))

    @classmethod
    def rigid(cls, width: int) -> Span:
        """Return the span of a column that is shown in full or not at all."""
        return cls(width, width, width)


def fit_columns(
    spans: Mapping[str, Span],
    room: int,
    gap: int,
    *,
    core: Sequence[str],
    others: Sequence[str] = (),
    alike: Sequence[str] = (),
) -> dict[str, int]:
    """Return the width of each column that is shown, in the order of ``spans``.

    Columns are taken one after the other, each if it fits beside those that were taken before. The
    room that is left goes to them, so that leaving a column out never leaves a gap. The first of
    the core is always taken.

    Args:
        spans: of every column, in the order in which they are shown.
        room: the width of all of them.
        gap: the width between two of them.
        core: what is taken first, the most important at the beginning, cut as far as it must be.
        others: what is taken next, if no column has to be narrower than is easy to read.
        alike: what says the same in every row, and is taken last, if no column has to be cut.
    """

    def total(widths: Iterable[int]) -> int:
        found = list(widths)
        return sum(found) + gap * (len(found) - 1)

    taken: list[str] = []
    ranks = (
        (core, attrgetter("least")),
        (others, attrgetter("easy")),
        (alike, attrgetter("wanted")),
    )
    for names, width in ranks:
        for name in names:
            if not taken or total(width(spans[each]) for each in (*taken, name)) <= room:
                taken.append(name)
    widths = {name: span.wanted for name, span in spans.items() if name in taken}

    def surplus(name: str) -> tuple[bool, int]:
        return widths[name] > spans[name].easy, widths[name] - spans[name].least

    while total(widths.values()) > room and any(surplus(name)[1] for name in widths):
        widths[max(widths, key=surplus)] -= 1
    return widths
