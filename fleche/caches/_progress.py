"""Progress of what takes long: numbers for a callback, or a bar for a person."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from fleche._amounts import shown_bytes, shown_seconds

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Meter", "Reported", "ShowProgress", "watching"]

_STEP = 16 << 20
"""After so many bytes progress is reported, also where no call is complete."""

_PAUSE = 1.0
"""Seconds between two lines, where there is no bar."""

_CELL_PAUSE = 0.2
"""Seconds between two pictures of a bar in a notebook, each of which is sent to the browser."""


class Reported(int):
    """How many calls were copied, or entries looked at, so far.

    Attributes:
        bytes: how many bytes were copied so far.
        total: how many calls, or entries, there are to look at; ``None`` if that is not known.
        done: how many of these have been dealt with: copied, or found to be there already.
        left_out: how many calls could not be copied, damaged or refused as they are.
    """

    bytes: int
    total: int | None
    done: int
    left_out: int

    def __new__(
        cls,
        number: int,
        *,
        bytes: int = 0,
        total: int | None = None,
        done: int = 0,
        left_out: int = 0,
    ) -> Self:
        """Make such a number."""
        made = super().__new__(cls, number)
        made.bytes, made.total, made.done = bytes, total, max(done, number)
        made.left_out = left_out
        return made

    def after(self, before: Reported) -> Reported:
        """Return the sum of this and what an earlier step of the same task has done."""
        return Reported(
            self + before,
            bytes=self.bytes + before.bytes,
            total=None if self.total is None else self.total + (before.total or 0),
            done=self.done + before.done,
            left_out=self.left_out + before.left_out,
        )


Report: TypeAlias = Callable[[Reported], Any]

ShowProgress: TypeAlias = "Callable[[Any], Any] | bool | None"
"""``True`` shows a bar. A function is called with a number: of calls copied, or entries looked at,
so far; when calls are copied, it knows bytes and the total as well (see :class:`Reported`)."""


class Meter:
    """Counts what is copied, and reports it.

    Args:
        report: is told.
        total: how many calls there are to look at.
        before: what was copied before, by an earlier step of the same task.
    """

    def __init__(
        self, report: Report | None = None, total: int | None = None, before: Reported | None = None
    ) -> None:
        start = Reported(0) if before is None else before
        self._report, self._total = report, total
        self.copied, self.bytes, self._done = int(start), start.bytes, start.done
        self._left_out = start.left_out
        self._reported = self.bytes

    def add(self, *, copied: int = 0, size: int = 0, done: int = 0, left_out: int = 0) -> None:
        """Count calls that were copied or left out, bytes, and calls that were dealt with."""
        self.copied += copied
        self.bytes += size
        self._done += done
        self._left_out += left_out
        is_news = copied or left_out or self.bytes - self._reported >= _STEP
        if self._report is not None and is_news:
            self._reported = self.bytes
            self._report(self.now())

    def now(self) -> Reported:
        """Return what has been counted."""
        return Reported(
            self.copied,
            bytes=self.bytes,
            total=self._total,
            done=self._done,
            left_out=self._left_out,
        )


@contextmanager
def watching(progress: ShowProgress, what: str) -> Iterator[Callable[[Any], Any] | None]:
    """Yield what is to be called with progress: a given function, or what draws a bar.

    Args:
        progress: as people give it.
        what: what is being done.

    Raises:
        TypeError: it is something else.
    """
    if progress is None or progress is False:
        yield None
    elif progress is not True:
        if not callable(progress):
            raise TypeError(f"progress={progress!r}: True, or a function of one number")
        yield progress
    elif _is_notebook():
        yield from _cell(what)
    else:
        try:
            import rich.progress as rich
        except ImportError:
            yield from _lines(what)
        else:
            yield from _bar(rich, what)


def _bar(rich: Any, what: str) -> Iterator[Report]:
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.TextColumn("{task.fields[calls]}"),
        rich.TextColumn("{task.fields[size]}"),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
    )
    from rich.console import Console

    with rich.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None, calls="0", size="")
        began = time.monotonic()

        def show(number: int) -> None:
            found = number if isinstance(number, Reported) else Reported(number)
            bar.update(
                task,
                completed=found.done,
                total=found.total,
                calls=_counted(found),
                size=_copied(found, time.monotonic() - began),
            )

        yield show
        bar.update(task, total=bar.tasks[0].completed or 1, completed=bar.tasks[0].completed or 1)


def _is_notebook() -> bool:
    """Return whether what is shown is shown below a cell of a notebook."""
    shell_of = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return shell_of is not None and hasattr(shell_of(), "kernel")


def _cell(what: str) -> Iterator[Report]:
    """Show a bar below the cell, of which a line of text stays.

    Rich would need widgets for that, whose bars are gone when the notebook is opened again.
    """
    from IPython import display as ipython

    display: Any = ipython.display
    last, shown, began = Reported(0), 0.0, time.monotonic()

    def bundle(bar: str) -> dict[str, str]:
        seconds = time.monotonic() - began
        size = f", {_copied(last, seconds)}" if last.bytes else ""
        text = f"{what}: {_counted(last)}{size}, {shown_seconds(seconds)}"
        return {"text/plain": text, "text/html": f"<div>{text}{bar}</div>"}

    def show(number: int) -> None:
        nonlocal last, shown
        last = number if isinstance(number, Reported) else Reported(number)
        if time.monotonic() - shown >= _CELL_PAUSE:
            shown = time.monotonic()
            ends = f' value="{last.done}" max="{last.total}"' if last.total else ""
            handle.update(bundle(f" <progress{ends}></progress>"), raw=True)

    handle = display(bundle(" <progress></progress>"), raw=True, display_id=True)
    try:
        yield show
    finally:
        handle.update(bundle(""), raw=True)


def _lines(what: str) -> Iterator[Report]:
    last, shown = Reported(0), time.monotonic()

    def say() -> None:
        size = f", {_copied(last)}" if last.bytes else ""
        sys.stderr.write(f"{what}: {_counted(last)}{size}\n")

    def show(number: int) -> None:
        nonlocal last, shown
        last = number if isinstance(number, Reported) else Reported(number)
        if time.monotonic() - shown >= _PAUSE:
            shown = time.monotonic()
            say()

    yield show
    say()


def _counted(found: Reported) -> str:
    of = "" if found.total is None else f" of {found.total}"
    left_out = f", {found.left_out} left out" if found.left_out else ""
    return f"{int(found)}{of}{left_out}"


def _copied(found: Reported, seconds: float = 0.0) -> str:
    rate = f", {shown_bytes(found.bytes / seconds)}/s" if seconds else ""
    return f"{shown_bytes(found.bytes)}{rate}" if found.bytes else ""
