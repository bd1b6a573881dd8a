"""Where answers go: tables, trees and bars on a terminal, plain text elsewhere, JSON for programs.

Rich is imported when the first line for people is printed; ``--json`` never imports it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["Column", "Screen", "TransferBar"]

_GAP = 2
_PATIENCE = 0.5
"""Seconds that something may take without a word."""
_WIDEST = 10_000
"""Columns of what is no terminal: nothing is cut there."""

_BAR = 12
"""Columns of the longest bar in a table."""

_USUAL = 80
"""Columns of a terminal that says that it has none, as Python before 3.11 passes on."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        right: whether figures stand at the right.
        style: how rich shows it.
        least: characters below which it is not narrowed; 0: it is never narrowed.
        goes: the column with the highest number is left out first where there is no room; 0: never.
    """

    title: str
    right: bool = False
    style: str = ""
    least: int = 0
    goes: int = 0


class Screen:
    """Prints what a command has found.

    Attributes:
        json: whether that is for programs.
    """

    def __init__(self, *, json: bool = False) -> None:
        """Print for people, or as JSON."""
        self.json = json

    @cached_property
    def console(self) -> Console:
        """The terminal, or what stands in for one."""
        from rich.console import Console

        terminal = sys.stdout.isatty()
        told = os.environ.get("COLUMNS", "")
        width = None if terminal or told.isdecimal() else _WIDEST
        if told.isdecimal() and not int(told):  # not known, and not nothing, as rich takes it
            width = (get_terminal_size().columns or _USUAL) if terminal else _WIDEST

        class _Console(Console):
            def on_broken_pipe(self) -> None:
                raise  # noqa: PLE0704 (what rich is handling; it would end the program by itself)

        return _Console(
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=not terminal,
            width=width,
            force_terminal=None if terminal else False,
        )

    # -- for programs ------------------------------------------------------------------------------

    def document(self, found: Any) -> None:
        """Print one JSON document."""
        sys.stdout.write(self._as_json(found, 2))

    def lines(self, found: Iterable[Any]) -> None:
        """Print one JSON document in a line for each item."""
        for each in found:
            sys.stdout.write(self._as_json(each))

    @staticmethod
    def _as_json(found: Any, indent: int | None = None) -> str:
        from fleche.exchange import as_json, json_text

        return json_text(as_json(found), sys.stdout.encoding or "utf-8", indent) + "\n"

    # -- for people --------------------------------------------------------------------------------

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line."""
        from rich.text import Text

        self.console.print(Text(text, style), soft_wrap=not self.console.is_terminal)

    def title(self, text: str, more: str = "") -> None:
        """Print a heading, and what belongs to it."""
        from rich.text import Text

        line = Text(text, "bold")
        if more:
            line.append(f"  {more}", "dim")
        self.console.print(line, soft_wrap=True)

    def pairs(self, rows: Iterable[tuple[str, Any]], indent: int = 0) -> None:
        """Print names and what they stand for; rows without anything are left out."""
        from rich.text import Text

        found = [(name, each) for name, each in rows if each not in ("", None)]
        widest = max((len(name) for name, _ in found), default=0)
        for name, each in found:
            self.hanging(Text(" " * indent + name.ljust(widest + _GAP), "dim"), each)

    def hanging(self, head: Text, body: Any, style: str = "") -> None:
        """Print ``head`` and behind it ``body``, whose further lines begin where it began."""
        from rich.text import Text

        text = body if isinstance(body, Text) else Text(str(body), style)
        room = max(self.console.width - head.cell_len, 20)
        lines: list[Text] = []
        for part in text.split("\n"):
            lines += part.wrap(self.console, room) if part.cell_len > room else [part]
        for number, line in enumerate(lines):
            line.rstrip()
            front = Text(" " * head.cell_len) if number else head
            self.console.print(front + line, soft_wrap=True)

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> None:
        """Print rows under headings, cut to what fits; empty columns are left out.

        Where there is no room, one that is the same in every row goes first.
        """
        from rich.text import Text

        cells = [
            [each if isinstance(each, Text) else Text(str(each)) for each in row] for row in rows
        ]
        used = [i for i in range(len(columns)) if any(row[i].plain for row in cells)]
        widths = self._fitted(columns, cells, used)
        heads = [Text(column.title, "dim") for column in columns]
        for number, row in enumerate([heads, *cells]):
            line = Text()
            for place, (index, width) in enumerate(widths.items()):
                cell, column = row[index].copy(), columns[index]
                if number and column.style and not cell.style:
                    cell.style = column.style
                cell.truncate(width, overflow="ellipsis")
                blank = " " * (width - cell.cell_len)
                if place:
                    line.append(" " * _GAP)
                if column.right:
                    line.append(blank)
                line.append_text(cell)
                if not column.right:
                    line.append(blank)
            line.rstrip()
            self.console.print(line, soft_wrap=True)

    def _fitted(
        self, columns: Sequence[Column], cells: Sequence[Sequence[Any]], used: list[int]
    ) -> dict[int, int]:
        """Return the width of each column that there is room for."""
        widths: dict[int, int] = {
            i: max(len(columns[i].title), *(row[i].cell_len for row in cells)) for i in used
        }

        def surplus() -> int:
            return sum(widths.values()) + _GAP * (len(widths) - 1) - self.console.width

        def spare(index: int) -> int:
            least = columns[index].least
            return max(widths[index] - least, 0) if least else 0

        # what is the same in every row says less than what another column would lose
        same = [i for i in used if len(cells) > 1 and len({row[i].plain for row in cells}) == 1]
        index = max(same, key=lambda i: columns[i].goes, default=-1)
        if surplus() > 0 and index >= 0 and columns[index].goes:
            del widths[index]
        while surplus() > 0:
            if surplus() > sum(map(spare, widths)):
                index = max(widths, key=lambda i: columns[i].goes)
                if columns[index].goes:
                    del widths[index]
                    continue
            index = max(widths, key=spare)
            if not spare(index):
                break
            widths[index] -= 1
        return widths

    def share_bar(self, part: float) -> str:
        """Return a bar whose length is a part of one."""
        part = max(0.0, min(part, 1.0))
        if self.console.options.ascii_only:
            return "#" * round(part * _BAR)
        eighths = round(part * _BAR * 8)
        rest = " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        return "█" * (eighths // 8) + rest

    # -- while it takes time -----------------------------------------------------------------------

    @contextmanager
    def counting(self, what: str) -> Iterator[Any]:
        """Show how many entries have been looked at so far; yields what is told the number."""
        if self.json or not sys.stderr.isatty():
            yield None
            return
        began = time.monotonic()
        status: Any = None

        def told(number: int) -> None:
            nonlocal status, began
            if time.monotonic() - began < (0.1 if status else _PATIENCE):
                return
            if status is None:
                from rich.console import Console

                status = Console(stderr=True).status(what)
                status.start()
            status.update(f"{what} {number:,}")
            began = time.monotonic()

        try:
            yield told
        finally:
            if status is not None:
                status.stop()

    @contextmanager
    def transferring(self, what: str, calls: int, nbytes: int) -> Iterator[TransferBar]:
        """Show a bar with calls, bytes, rate and time left."""
        if self.json or not sys.stderr.isatty():
            yield TransferBar()
            return
        from rich import progress as bars
        from rich.console import Console

        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=None),
            bars.TextColumn("{task.fields[calls]}"),
            bars.DownloadColumn(),
            bars.TransferSpeedColumn(),
            bars.TimeRemainingColumn(compact=True),
        )
        with bars.Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(what, total=nbytes or None, calls=f"0/{calls:,}")

            def show(done: int, sent: int) -> None:
                total = max(nbytes, sent) or None
                progress.update(task, completed=sent, total=total, calls=f"{done:,}/{calls:,}")

            yield TransferBar(show)


class TransferBar:
    """How far a copy is.

    Attributes:
        nbytes: how many bytes have been copied.
        left_out: how many calls could not be copied.
    """

    def __init__(self, show: Any = None) -> None:
        """Tell ``show(calls, nbytes)``, if there is any."""
        self.nbytes = self.left_out = 0
        self._show = show

    def tell(self, number: Any) -> None:
        """Take note of what a cache reports while it copies."""
        self.nbytes = getattr(number, "bytes", 0)
        self.left_out = getattr(number, "left_out", 0)
        if self._show is not None:
            self._show(int(number), self.nbytes)
