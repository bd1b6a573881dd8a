"""The browser: its panes, its keys, and what is done in threads meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Thread
from typing import Any, ClassVar, TypeVar

from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import Resize
from textual.theme import Theme
from textual.widgets import DataTable, Footer, Input, OptionList, Static
from textual.widgets.option_list import Option

from fleche._amounts import count, shown_seconds
from fleche._columns import Span, fit_columns, printable
from fleche._util import home_shortened, override
from fleche.browse._describe import arguments_of, details_of, result_of, value_text, when, where_of
from fleche.browse._dialogs import Confirm, Lineage, Reader
from fleche.browse._source import (
    Functions,
    Pages,
    Wanted,
    count_functions,
    further_layers,
    push_calls,
)
from fleche.caches import BaseCache
from fleche.call import LazyCall
from fleche.errors import UnpackError, told

__all__ = ["Browser"]

log = logging.getLogger("fleche.browse")

T = TypeVar("T")

_AHEAD = 40
"""Rows before the last one at which the next page is fetched."""

_PADDING = 2
"""Columns of the terminal between two columns of the table."""

_LEFT, _LEFT_LEAST = 28, 16
"""Columns of the list of functions, which takes a quarter of a narrow terminal."""

_BORDERS = 2 + 1
"""Columns that the frame of a pane takes, and its bar for scrolling."""

_THEME = Theme(
    name="fleche",
    primary="#2f8fa9",
    secondary="#58b4cd",
    accent="#58b4cd",
    warning="#e6b866",
    error="#c4604d",
    success="#85b787",
    foreground="#d8dde1",
    background="#121416",
    surface="#191c1f",
    panel="#20262a",
    dark=True,
)

_MARK = Text("●", "bold yellow")

_KEYS = (
    ("↑ ↓ PgUp PgDn", "move (^Home, ^End: far)"),
    ("Tab", "functions, calls, details"),
    ("/", "search, at Enter: words that must all occur"),
    ("Esc", "end the search"),
    ("Enter, v", "open the value"),
    ("t", "lineage of the call"),
    ("space", "mark the call"),
    ("d", "delete marked calls, or the one under the cursor"),
    ("p", "push them to the next caches of a stack"),
    ("k", "show the whole key, and copy it"),
    ("r", "read anew"),
    ("q", "quit"),
)
_NOTE = """
Details and tables are read off records. Opening a value (v) makes plain data only: numbers, text, \
containers, arrays and tables; no code that is stored with a value is run."""


class Browser(App[None]):
    """What is in a cache.

    The cache is asked in threads, so that keys are answered while a network is slow. Calls are
    fetched a page at a time, as the cursor comes near the end of those that are there.
    """

    TITLE = "fleche"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: $background; }
    * { scrollbar-size-vertical: 1; scrollbar-background: $background; }
    * { scrollbar-background-hover: $background; scrollbar-background-active: $background; }
    * { scrollbar-color: $primary 40%; scrollbar-color-hover: $primary 70%; }
    #bar { height: 1; background: $panel; }
    #search { display: none; height: 3; border: round $accent; background: $background; }
    #search.open { display: block; }
    #functions, #calls, #details { border: round $panel-lighten-2; background: $background; }
    #functions, #calls, #details { border-title-color: $text-muted; }
    #functions, #calls, #details { border-subtitle-color: $text-muted; }
    #functions:focus, #calls:focus, #details:focus { border: round $accent; }
    #functions { height: 1fr; padding: 0; }
    #calls { height: 3fr; }
    #details { height: 2fr; padding: 0 1; }
    DataTable > .datatable--header { background: $background; color: $text-muted; }
    ModalScreen { align: center middle; background: $background 60%; }
    .dialog { width: 66; height: auto; padding: 1 2; border: round $error; }
    .dialog, .reader { background: $surface; }
    .dialog .note { margin: 1 0; }
    .dialog .buttons { height: 3; align-horizontal: right; }
    .dialog Button { margin-left: 2; }
    .reader { width: 90%; height: 80%; padding: 1 2; border: round $accent; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("slash", "search", "Search", key_display="/"),
        Binding("v,enter", "value", "Value", key_display="v"),
        Binding("t", "tree", "Lineage"),
        Binding("space", "mark", "Mark", key_display="space"),
        Binding("d", "delete", "Delete"),
        Binding("p", "push", "Push"),
        Binding("k", "key", "Key", show=False),
        Binding("r", "refresh", "Refresh"),
        Binding("escape", "end_search", show=False),
    ]

    def __init__(self, cache: BaseCache, stack: BaseCache) -> None:
        super().__init__()
        self._cache, self._stack = cache, stack
        self._wanted = Wanted()
        self._pages: Pages | None = None
        self._fetching = False
        self._rows: dict[str, LazyCall] = {}
        self._marked: set[str] = set()
        self._functions = Functions()
        self._listed: list[tuple[str, str] | None] = [None]
        self._alive = True
        self._round = 0
        self._counting = 0
        self._width = 0
        self._left_width = _LEFT
        self._columns: list[str] = []
        # Held, not looked up: a message may still come when the screen has already let go of them.
        self._bar = Static(id="bar")
        self._search = Input(
            id="search", placeholder="words, and Enter: Cu 300, a tag, a machine, a key ..."
        )
        self._box = OptionList(id="functions", markup=False)
        self._left = Vertical(self._box)
        self._table: DataTable[Any] = DataTable(id="calls", cursor_type="row")
        self._text = Static(id="text")
        self._details = VerticalScroll(self._text, id="details")

    # -- panes -------------------------------------------------------------------------------------

    @override
    def compose(self) -> ComposeResult:
        yield self._bar
        yield self._search
        with Horizontal():
            yield self._left
            yield Vertical(self._table, self._details)
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Draw the panes, and begin to read."""
        self._home_loop = asyncio.get_running_loop()
        self._home_context = contextvars.copy_context()
        for pane in (self._box, self._table, self._details):
            pane.border_title = pane.id
        self.register_theme(_THEME)
        self.theme = "fleche"
        self._make_columns(self.size.width)
        self._table.focus()
        self._read_anew()

    def on_resize(self, event: Resize) -> None:
        """Fit the columns into the new width."""
        if self._width and event.size.width != self._width:
            current, calls = self._current(), list(self._rows.values())
            self._make_columns(event.size.width)  # the app itself still has its size of before
            self._list_functions()
            self._rows = {}
            self._add(calls)
            if current is not None:
                self._table.move_cursor(row=self._table.get_row_index(str(current.key)))

    def _make_columns(self, width: int) -> None:
        """Make the columns anew, as many and as wide as the terminal allows."""
        self._width = width
        self._left_width = left = min(_LEFT, max(_LEFT_LEAST, self._width // 4))
        self._left.styles.width = left
        room = self._width - left - _BORDERS - _PADDING
        spans = {
            "mark": Span.rigid(1),
            "function": Span.between(8, 14, 18),
            "arguments": Span.between(12, 22, room),
            "result": Span.between(8, 14, max(18, room // 4)),
            "started": Span.rigid(16),
            "took": Span.rigid(8),
            "where": Span.rigid(18),
        }
        core, others = ("mark", "result", "arguments", "function"), ("took", "started", "where")
        widths = fit_columns(spans, room, _PADDING, core=core, others=others)
        self._columns = list(widths)
        table = self._table
        table.clear(columns=True)
        for name, wide in widths.items():
            label = f"{name:>{wide}}" if name == "took" else "" if name == "mark" else name
            table.add_column(label, key=name, width=wide)

    def on_unmount(self) -> None:
        """Let threads end by themselves; none of them is waited for."""
        self._alive = False

    def _show_bar(self) -> None:
        total = sum(self._functions.counts.values())
        bar = Text(" fleche  ", "bold", no_wrap=True, overflow="ellipsis")
        partial = self._functions.is_partial
        bar.append(f"{total:,}+ calls" if partial else count(total, "call"))
        if self._marked:
            bar.append(f"   {len(self._marked)} marked", "yellow")
        if self._wanted.words:
            bar.append(f"   search: {printable(' '.join(self._wanted.words))}", "bold cyan")
        cache = home_shortened(printable(repr(self._cache)))
        bar.append(f"   {cache}", "not bold dim")
        self._bar.update(bar)

    # -- threads -----------------------------------------------------------------------------------

    def _in_thread(
        self, work: Callable[[], T], done: Callable[[T], None], what: str = "read"
    ) -> None:
        """Run ``work`` in a thread and ``done`` with its result here; an error is a notification.

        The thread is a daemon: an unreachable machine does not keep the browser from ending.
        """

        def run() -> None:
            try:
                found = work()
            except Exception as error:
                log.debug("%s failed", what, exc_info=True)
                message = f"{type(error).__name__}: {told(error)}"
                self._soon(lambda: self._complain(what, message))
            else:
                self._soon(lambda: done(found))

        Thread(target=run, name=f"fleche-browse-{what}", daemon=True).start()

    def _soon(self, action: Callable[[], None]) -> None:
        """Run ``action`` in the thread of the browser, if that is there."""

        def act() -> None:
            if self._alive:
                action()

        with suppress(RuntimeError):  # the loop is closed
            self._home_loop.call_soon_threadsafe(act, context=self._home_context.copy())

    def _complain(self, what: str, message: str) -> None:
        self._fetching = False
        self.notify(
            printable(message)[:600], title=f"{what} failed", severity="error", markup=False
        )

    # -- reading -----------------------------------------------------------------------------------

    def _read_anew(self) -> None:
        self._counting += 1
        turn = self._counting

        def show(functions: Functions) -> None:
            if turn == self._counting:
                self._functions = functions
                self._list_functions()

        def tell(functions: Functions) -> bool:
            self._soon(lambda: show(functions))
            return self._alive and turn == self._counting

        show(Functions())
        self._in_thread(lambda: count_functions(self._cache, tell), show, "count")
        self._look_for(self._wanted)

    def _look_for(self, wanted: Wanted) -> None:
        """Begin a new list of calls."""
        old, self._pages = self._pages, None
        if old is not None:
            self._in_thread(old.close, lambda _: None, "close")
        self._wanted = wanted
        self._round += 1
        self._rows, self._marked = {}, set()
        self._fetching = False
        self._table.clear()
        self._show_details(None)
        self._show_bar()
        self._fetch()

    def _fetch(self) -> None:
        """Fetch the next page, unless one is on its way or there is none."""
        pages, wanted, current = self._pages, self._wanted, self._round
        if self._fetching or (pages is not None and pages.is_over):
            return
        self._fetching = True
        self._show_count("reading …")

        def read() -> tuple[Pages, list[LazyCall]]:
            found = pages or Pages(self._cache, wanted)
            return found, found.next()

        def show(answer: tuple[Pages, list[LazyCall]]) -> None:
            found, calls = answer
            if current != self._round:  # another search has begun meanwhile
                self._in_thread(found.close, lambda _: None, "close")
                return
            self._pages, self._fetching = found, False
            self._add(calls)
            self._show_count()
            if not calls and not found.is_over:
                self._fetch()  # a long search goes on

        self._in_thread(read, show)

    def _add(self, calls: Iterable[LazyCall]) -> None:
        table, is_first = self._table, not self._rows
        for call in calls:
            if call.key in self._rows:
                continue
            self._rows[str(call.key)] = call
            record = call.record
            failed = "" if record.error is None else "red"
            cells = {
                "mark": _MARK if call.key in self._marked else Text(""),
                "function": _cut(printable(record.name), "bold"),
                "arguments": _cut(arguments_of(record)),
                "result": _cut(result_of(record), failed),
                "started": Text(when(record), "dim"),
                "took": Text(shown_seconds(record.duration), justify="right"),
                "where": _cut(where_of(record), "dim"),
            }
            table.add_row(*(cells[column] for column in self._columns), key=str(call.key))
        if is_first and self._rows:
            table.move_cursor(row=0)
            self._show_details(self._current())

    def _show_count(self, doing: str = "") -> None:
        shown = len(self._rows)
        is_over = self._pages is not None and self._pages.is_over
        more = "" if is_over else "+"
        note = doing or (f"{shown:,}{more}" if shown or not is_over else "none")
        self._table.border_subtitle = note

    def _list_functions(self) -> None:
        box = self._box
        counts = self._functions.counts
        chosen = self._wanted.function
        listed: list[tuple[str, str] | None] = [None, *(each for each, _ in counts.most_common())]
        width = self._left_width - 5
        options = [Option(_function_line("all", sum(counts.values()), width, "bold"))]
        named = Counter(name for _, name in counts)
        for (module, name), number in counts.most_common():
            shown = f"{name}, {module}" if named[name] > 1 else name
            options.append(Option(_function_line(shown, number, width)))
        self._listed = listed
        place = listed.index(chosen) if chosen in listed else 0
        box.clear_options()
        box.add_options(options)
        with self.prevent(OptionList.OptionHighlighted):
            box.highlighted = place
        self._show_bar()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Show the calls of one function."""
        self._look_for(Wanted(self._listed[event.option_index], self._wanted.words))
        self._table.focus()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Show the call under the cursor, and fetch the next page in time."""
        key = event.row_key.value if event.row_key is not None else None
        self._show_details(self._rows.get(key or ""))
        if event.cursor_row >= len(self._rows) - _AHEAD:
            self._fetch()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open the value of the call under the cursor."""
        del event
        self.action_value()

    def _show_details(self, call: LazyCall | None) -> None:
        text = Text("no call", "dim") if call is None else details_of(call)
        self._text.update(text)
        self._details.scroll_home(animate=False)

    # -- actions -----------------------------------------------------------------------------------

    def _current(self) -> LazyCall | None:
        table = self._table
        if not self._rows or not table.is_valid_row_index(table.cursor_row):
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return self._rows.get(key or "")

    def _chosen(self) -> list[LazyCall]:
        """Return the marked calls, or else the one under the cursor."""
        if self._marked:
            return [call for key, call in self._rows.items() if key in self._marked]
        current = self._current()
        return [] if current is None else [current]

    def action_search(self) -> None:
        """Ask for words."""
        self._search.add_class("open")
        self._search.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Search."""
        words = tuple(event.value.lower().split())
        if not words:
            self._search.remove_class("open")
        self._look_for(Wanted(self._wanted.function, words))
        self._table.focus()

    def action_end_search(self) -> None:
        """Show all calls again."""
        self._search.remove_class("open")
        self._search.value = ""
        if self._wanted.words:
            self._look_for(Wanted(self._wanted.function))
        self._table.focus()

    def action_refresh(self) -> None:
        """Read everything anew."""
        self._read_anew()

    def action_help(self) -> None:
        """Say what the keys do."""
        keys = Table.grid(padding=(0, _PADDING))
        for key, what in _KEYS:
            keys.add_row(Text(key, "bold", no_wrap=True), what)
        self.push_screen(Reader("Keys", Group(keys, _NOTE)))

    def action_key(self) -> None:
        """Show the whole key."""
        call = self._current()
        if call is not None:
            self.copy_to_clipboard(str(call.key))
            self.notify(str(call.key), title="key (copied)", markup=False)

    def action_value(self) -> None:
        """Open the result, if it is plain data."""
        call = self._current()
        if call is None:
            return
        if call.record.error is not None:
            said = printable(f"it raised {call.record.error.text}")
            self.notify(said, title="no result", severity="warning", markup=False)
            return
        ref = call.record.result
        if ref is None:
            return
        title = printable(f"{call.name}({arguments_of(call.record)})")[:100]

        def read() -> str | None:
            try:
                value = self._cache.open_ref(ref, call.entry, plain=True)
            except KeyError:
                return None
            except UnpackError as error:
                how = f"Only plain data is opened here; 'fleche get {call.key[:12]}' opens it all"
                raise UnpackError(f"{error}. {how}") from None
            return value_text(value)

        self._in_thread(read, lambda text: self._show_value(title, text), "open")

    def _show_value(self, title: str, text: str | None) -> None:
        if text is not None:
            self.push_screen(Reader(title, text))
            return
        self.notify(
            "This value is not in the cache. The call is computed again when it is asked for.",
            title="no value",
            severity="warning",
            markup=False,
        )

    def action_tree(self) -> None:
        """Show what the call called, and what used it."""
        call = self._current()
        if call is not None:
            self.push_screen(Lineage(call, self._in_thread), self._go_to)

    def _go_to(self, call: LazyCall | None) -> None:
        if call is None:
            return
        if call.key in self._rows:
            self._table.move_cursor(row=self._table.get_row_index(str(call.key)))
        else:
            self._look_for(Wanted(words=(str(call.key),)))

    def action_mark(self) -> None:
        """Mark the call under the cursor, or take the mark away; go to the next."""
        call = self._current()
        if call is None:
            return
        self._marked ^= {str(call.key)}
        mark = _MARK if call.key in self._marked else Text("")
        self._table.update_cell(str(call.key), "mark", mark)
        self._table.action_cursor_down()
        self._show_bar()

    def action_delete(self) -> None:
        """Ask, then forget calls."""
        calls = self._chosen()
        if not calls:
            return
        first = printable(f"{calls[0].name}({arguments_of(calls[0].record)})")[:120]
        what = first if len(calls) == 1 else f"{count(len(calls), 'call')}, {first} among them"
        note = "They are computed again when they are asked for. Values that no other call uses go "
        note += "with the next gc."
        self.push_screen(
            Confirm(f"Delete {what}?", note, "Delete"),
            lambda answer: self._delete(calls) if answer else None,
        )

    def _delete(self, calls: list[LazyCall]) -> None:
        keys = [call.key for call in calls]

        def show(number: int) -> None:
            for call in calls:
                if self._rows.pop(str(call.key), None) is not None:
                    self._table.remove_row(str(call.key))
            self._functions = self._functions.without(calls)
            self._marked -= set(map(str, keys))
            self._list_functions()
            self._show_count()
            self._show_details(self._current())
            self.notify(f"{number} deleted", markup=False)

        self._in_thread(lambda: self._cache.evict_many(keys), show, "delete")

    def action_push(self) -> None:
        """Ask, then copy calls to the further layers of a stack."""
        calls = self._chosen()
        if not calls:
            return
        self._in_thread(
            lambda: further_layers(self._stack),
            lambda found: self._ask_to_push(calls, found),
            "push",
        )

    def _ask_to_push(self, calls: list[LazyCall], layers: Any) -> None:
        if not layers:
            self.notify(
                "This cache has no further layer that takes calls; only a stack pushes.",
                title="nothing to push to",
                severity="warning",
                markup=False,
            )
            return
        where = printable(", ".join(map(repr, layers)))[:200]
        number = "this call" if len(calls) == 1 else count(len(calls), "call")
        self.push_screen(
            Confirm(f"Push {number}?", f"To {where}, with all values.", "Push"),
            lambda answer: self._push(calls, layers) if answer else None,
        )

    def _push(self, calls: list[LazyCall], layers: Any) -> None:
        self.notify("pushing …", timeout=2, markup=False)
        self._in_thread(
            lambda: push_calls(self._cache, calls, layers),
            lambda done: self.notify(
                _what_was_pushed(*done),
                severity="warning" if done[1] else "information",
                markup=False,
            ),
            "push",
        )


def _what_was_pushed(copied: int, left_out: int) -> str:
    if left_out:
        return f"{copied} copied; {left_out} left out, damaged or refused"
    return f"{copied} copied" if copied else "everything was there already"


def _function_line(name: str, number: int, width: int, style: str = "") -> Text:
    shown, calls = printable(name), f"{number:,}"
    room = width - len(calls) - 1
    shown = shown if len(shown) <= room else f"{shown[: room - 1]}…"
    text = Text(f"{shown:<{room}} ", style, no_wrap=True, overflow="ellipsis")
    text.append(calls, "dim")
    return text


def _cut(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")
