"""The browser in a terminal, driven by textual's own driver of tests."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("textual")

from textual.widgets import DataTable

import fleche
from fleche.browse import browser
from fleche.browse._describe import value_text
from fleche.caches import BaseCache, Cache, CacheStack, Local
from fleche.call import Call
from fleche.errors import RemoteConnectionError, StorageError
from fleche.remote import PipeChannel, RemoteCache, serve
from fleche.storage import CallMemory, ValueMemory
from tests.helpers.layers import Layer, in_memory
from tests.helpers.sweeps import swept

PATIENCE = 50.0


class Screen:
    """What a person sees and does."""

    def __init__(self, app: Any, pilot: Any) -> None:
        self.app, self.pilot = app, pilot

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for something to be seen."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.text
            await self.pilot.pause(0.02)
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def see(self, *texts: str) -> None:
        await self.until(lambda: all(text in self.text for text in texts))

    @property
    def text(self) -> str:
        """Everything on the screen, as text."""
        lines = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in lines)

    @property
    def table(self) -> Any:
        return self.app.query_one("#calls")

    @property
    def notes(self) -> list[str]:
        return [f"{note.title}: {note.message}" for note in self.app._notifications]


def using(
    cache: BaseCache,
    work: Callable[[Screen], Awaitable[None]],
    size: tuple[int, int] = (150, 44),
    stack: BaseCache | None = None,
) -> None:
    """Run the browser on ``cache`` while ``work`` uses it."""

    async def run() -> None:
        app = browser(cache, stack=stack)
        async with app.run_test(size=size) as pilot:
            await work(Screen(app, pilot))

    asyncio.run(run())


def call(name: str = "f", module: str = "study", result: Any = 1.5, **arguments: Any) -> Call:
    runtime = {"started": "2026-03-01T10:00:00+00:00", "host": "laptop", "user": "ada"}
    metadata = {"runtime": runtime, "tags": {"project": "alloys"}}
    return Call(name=name, module=module, arguments=arguments, result=result, metadata=metadata)


@fleche.fleche
def inner(x: int) -> int:
    return x + 1


@fleche.fleche
def outer(n: int) -> int:
    return sum(inner(x) for x in range(n))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Local]:
    with Local(tmp_path / "cache") as made:
        with fleche.cache(made):
            outer(2)
        made.save(call("energy", metal="Cu", a=3.6, result=-3.5))
        made.save(call("energy", metal="Al", a=4.05, result=-3.1))
        made.save(call("vibrate", metal="Cu", result=np.arange(12.0).reshape(3, 4)))
        yield made


def test_functions_calls_and_details(cache: Local) -> None:
    """Three panes: functions with their numbers, calls, and all that is known of one call."""

    async def work(screen: Screen) -> None:
        await screen.see("6 calls", "energy", "vibrate", "outer", "metal='Cu', a=3.6", "-3.5")
        assert screen.table.row_count == 6
        await screen.see("Arguments", "float64[3, 4]", "project", "alloys", "ada@laptop")

    using(cache, work, size=(150, 60))


def test_functions_of_one_name(cache: Local) -> None:
    """Those of several modules are told apart."""
    cache.save(call("energy", module="md", metal="Cu"))

    async def work(screen: Screen) -> None:
        await screen.see("energy, study", "energy, md", "vibrate ")

    using(cache, work)


def test_numbers_of_two_types(cache: Local) -> None:
    """An argument 2 and an argument 2.0 are two, and do not look the same."""
    cache.save(call("whole", a=2, result=-4.0000000001))
    cache.save(call("whole", a=2.0, result=1e30))

    async def work(screen: Screen) -> None:
        await screen.see("a=2 ", "a=2.0", "-4.0", "1e+30")

    using(cache, work)


def test_a_row_is_highlighted_when_the_screen_is_gone(cache: Local) -> None:
    """While the browser ends, the last messages may come after its panes have been taken away."""

    async def run() -> None:
        app = browser(cache)
        async with app.run_test() as pilot:
            table = Screen(app, pilot).table
            await Screen(app, pilot).until(lambda: table.row_count == 6)
            row = table.coordinate_to_cell_key((0, 0)).row_key
            await app.screen.query("*").remove()
            app.on_data_table_row_highlighted(DataTable.RowHighlighted(table, 0, row))

    asyncio.run(run())


def test_one_function(cache: Local) -> None:
    """Choosing a function shows its calls alone."""

    async def work(screen: Screen) -> None:
        await screen.see("6 calls", "energy")
        await screen.press("shift+tab", "down", "enter")
        await screen.until(lambda: screen.table.row_count == 2)
        names = {str(screen.table.get_row_at(row)[1]) for row in range(2)}
        assert len(names) == 1

    using(cache, work)


def test_search(cache: Local) -> None:
    """Words that must all occur in arguments, results, tags, machines or keys; Escape ends it."""

    async def work(screen: Screen) -> None:
        await screen.see("6 calls")
        await screen.press("slash", *"CU", "space", *"energy", "enter")
        await screen.until(lambda: screen.table.row_count == 1)
        await screen.see("search: cu energy", "a=3.6")
        await screen.press("escape")
        await screen.until(lambda: screen.table.row_count == 6)
        await screen.press("slash", *"nothing", "enter")
        await screen.until(lambda: screen.table.row_count == 0)
        await screen.see("no call")

    using(cache, work)


def test_lineage(cache: Local) -> None:
    """A tree of what a call called and of what used it, read as its branches are opened."""

    async def work(screen: Screen) -> None:
        await screen.see("6 calls")
        await screen.press("slash", *"outer", "enter")
        await screen.until(lambda: screen.table.row_count == 1)
        await screen.press("t")
        await screen.see("Lineage", "outer(n=2)", "inner(x=0)", "inner(x=1)")
        await screen.press("down", "down", "g")
        await screen.until(lambda: screen.app.screen is screen.app.screen_stack[0])
        await screen.until(lambda: screen.table.row_count == 1)
        await screen.see("inner", "x=0")
        await screen.press("t", "down", "down", "down", "enter")
        await screen.see("outer(n=2)")

    using(cache, work)


def test_the_value(cache: Local) -> None:
    """A plain result can be looked at."""

    async def work(screen: Screen) -> None:
        await screen.see("6 calls")
        await screen.press("slash", *"vibrate", "enter")
        await screen.until(lambda: screen.table.row_count == 1)
        await screen.press("v")
        await screen.see("float64[3, 4]", "[ 8.  9. 10. 11.]]")
        await screen.press("escape")
        assert len(screen.app.screen_stack) == 1

    using(cache, work)


def test_a_wide_frame() -> None:
    """Its columns are shown in blocks that fit, and not cut somewhere."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(np.linspace(0, 1, 50).reshape(5, 10))
    *lines, size = value_text(frame).split("\n")
    assert max(map(len, lines)) <= 90
    assert len(lines) > 2 * len(frame)
    assert size == "5 \N{MULTIPLICATION SIGN} 10 in all"
    assert value_text(frame[0]).endswith("\n5 in all")


def test_a_value_that_is_not_plain_stays_closed(tmp_path: Path) -> None:
    """Nothing that is stored with a value is run: the reason is a notification."""
    from tests.helpers.values import Touches

    with Local(tmp_path / "cache") as cache:
        cache.save(call(result=Touches(str(tmp_path / "touched"))))

        async def work(screen: Screen) -> None:
            await screen.see("1 call ")
            await screen.press("v")
            await screen.until(lambda: screen.notes)
            assert "is not plain data" in screen.notes[0]
            assert "'fleche get " in screen.notes[0]

        using(cache, work)
    assert not (tmp_path / "touched").exists()


def test_an_exception_that_is_kept_has_no_value(tmp_path: Path) -> None:
    """What was raised is said again, in place of nothing at all."""

    @fleche.fleche(version=1, errors=ValueError)
    def relax(x: int) -> int:
        raise ValueError(f"no convergence at {x}")

    with Local(tmp_path / "cache") as cache:
        with fleche.cache(cache), pytest.raises(ValueError, match="no convergence"):
            relax(3)

        async def work(screen: Screen) -> None:
            await screen.see("raised ValueError")
            await screen.press("v")
            await screen.until(lambda: screen.notes)
            assert screen.notes == ["no result: it raised ValueError: no convergence at 3"]

        using(cache, work)


def test_delete_asks(cache: Local) -> None:
    """Only a yes deletes: the call under the cursor, or those that are marked."""

    async def work(screen: Screen) -> None:
        await screen.see("6 calls")
        for answer in ("n", "escape", "enter"):
            await screen.press("d")
            await screen.see("Delete vibrate(metal='Cu')?")
            await screen.press(answer)
            await screen.until(lambda: len(screen.app.screen_stack) == 1)
        assert cache.query().count() == 6
        await screen.press("d")
        await screen.see("Delete (y)")
        await screen.press("y")
        await screen.until(lambda: screen.table.row_count == 5)
        await screen.see("5 calls")
        assert cache.query(name="vibrate").count() == 0
        await screen.press("space", "space")
        await screen.see("2 marked")
        await screen.press("d")
        await screen.see("Delete 2 calls")
        await screen.press("y")
        await screen.until(lambda: screen.table.row_count == 3)
        assert cache.query().count() == 3

    using(cache, work)


def test_errors_are_notifications(cache: Local) -> None:
    """A cache that refuses, or fails, is said, and the browser goes on."""

    async def refused(screen: Screen) -> None:
        await screen.see("6 calls")
        await screen.press("d")
        await screen.see("Delete (y)")
        await screen.press("y")
        await screen.until(lambda: screen.notes)
        assert "delete failed: Rejected" in screen.notes[0]
        assert screen.table.row_count == 6

    using(cache.readonly(), refused)

    failing = Layer(cache)
    failing.backend.error = StorageError("the disk is gone [red]")

    async def failed(screen: Screen) -> None:
        await screen.until(lambda: screen.notes)
        assert "StorageError: the disk is gone [red]" in screen.notes[0]
        failing.backend.error = None
        await screen.press("r")
        await screen.see("6 calls", "energy")

    using(failing, failed)


def test_push(cache: Local) -> None:
    """Calls go to the further layers of a stack, with their values; a single cache has none."""
    far = in_memory()

    async def work(screen: Screen) -> None:
        await screen.see("6 calls")
        await screen.press("p")
        await screen.see("Push this call?")
        await screen.press("y")
        await screen.until(lambda: any("1 copied" in note for note in screen.notes))

    using(CacheStack([cache, far]), work)
    assert far.query().only().result.shape == (3, 4)

    async def alone(screen: Screen) -> None:
        await screen.see("6 calls")
        await screen.press("p")
        await screen.until(lambda: screen.notes)
        assert "nothing to push to" in screen.notes[0]

    using(cache, alone)


def test_the_near_layer_of_a_stack(cache: Local) -> None:
    """It is shown by itself, though the other one is away; only a push asks that, and may fail."""
    far = Layer(in_memory())
    far.backend.error = RemoteConnectionError(f"far is away\n{RemoteConnectionError.advice}")
    stack = CacheStack([cache, far])

    async def work(screen: Screen) -> None:
        await screen.see("6 calls", "energy")
        await screen.press("p")
        await screen.see("Push this call?")
        await screen.press("y")
        await screen.until(lambda: any("failed" in note for note in screen.notes))
        assert screen.notes[-1] == "push failed: RemoteConnectionError: far is away"

    using(cache, work, stack=stack)


def test_what_a_push_leaves_out(cache: Local) -> None:
    """A call that the other layer refuses is not there already."""
    picky = in_memory().filter(name="energy")

    async def work(screen: Screen) -> None:
        await screen.see("6 calls")
        await screen.press("p")
        await screen.see("Push this call?")
        await screen.press("y")
        await screen.until(lambda: any("0 copied; 1 left out" in note for note in screen.notes))

    using(CacheStack([cache, picky]), work)


def test_many_calls_come_in_pages() -> None:
    """Calls are fetched as the cursor comes near the end of what is there."""
    cache = in_memory()
    for number in range(450):
        cache.save(call(number=number))
    fetched = 0

    class Counting(Cache):
        def query(self, *args: Any, **fields: Any) -> Any:
            def count(each: Any) -> bool:
                nonlocal fetched
                fetched += threading.current_thread().name != "fleche-browse-count"
                return True

            return super().query(*args, **fields).filter(count)

    counting = Counting(cache.values, cache.calls)

    async def work(screen: Screen) -> None:
        await screen.see("450 calls")
        await screen.until(lambda: screen.table.row_count == 100)
        assert fetched <= 101
        for rows in (200, 300, 400, 450):
            await screen.press("ctrl+end")
            await screen.until(lambda rows=rows: screen.table.row_count == rows)

    using(counting, work)


def test_a_slow_cache_does_not_freeze_the_browser() -> None:
    """Keys are answered while the cache is asked, and the browser ends without waiting for it."""
    answers = threading.Event()

    class Slow(Cache):
        def query(self, *args: Any, **fields: Any) -> Any:
            answers.wait()
            return super().query(*args, **fields)

    slow = Slow(ValueMemory(), CallMemory())
    slow.save(call())

    async def work(screen: Screen) -> None:
        await screen.see("reading …")
        await screen.press("question_mark")
        await screen.see("lineage of the call")
        await screen.press("escape")

    try:
        using(slow, work)
    finally:
        answers.set()


def test_a_remote_cache() -> None:
    """Over the wire it is the same browser."""
    served = in_memory()
    served.save(call("energy", metal="Cu", result=np.arange(4.0)))
    channel = PipeChannel(lambda reader, writer: serve(reader, writer, served))

    async def work(screen: Screen) -> None:
        await screen.see("1 call ", "metal='Cu'", "float64[4]")
        await screen.press("v")
        await screen.see("[0. 1. 2. 3.]")

    with RemoteCache(channel) as client:
        using(client, work)


def test_hostile_text_is_text() -> None:
    """Control characters and markup from records are shown, not obeyed."""
    cache = in_memory()
    cache.save(call("[bold]x[/]\x1b[2J", "m\x07", **{"[red]a": "\x1b]0;broken\x07"}))

    async def work(screen: Screen) -> None:
        await screen.see("[bold]x[/]\\x1b[2J", "[red]a=")
        assert "\x1b" not in screen.text
        await screen.press("v", "escape", "d")
        await screen.see("Delete [bold]x[/]\\x1b[2J(")
        await screen.press("n", "t")
        await screen.see("Lineage")

    using(cache, work)


@pytest.mark.parametrize(
    ("width", "columns"),
    swept(
        [
            (40, "result"),
            (60, "function arguments result"),
            (80, "function arguments result"),
            (100, "function arguments result took"),
            (120, "function arguments result started took"),
            (160, "function arguments result started took where"),
        ],
        lambda case: case[0] in (40, 80, 160),
    ),
)
def test_columns_are_shown_whole_or_not_at_all(cache: Local, width: int, columns: str) -> None:
    """What matters most is seen in a narrow terminal too, and nothing runs over its edge."""

    async def work(screen: Screen) -> None:
        await screen.see("6 calls", "energy", "-3.5", "? Help", "q Quit")
        heading = screen.text.splitlines()[2]
        assert " ".join(heading.strip("│").split("│")[-1].split()) == columns
        assert is_fitted(screen)

    using(cache, work, size=(width, 40))


def is_fitted(screen: Screen) -> bool:
    """Return whether the columns are as wide together as there is room."""
    room = screen.table.scrollable_content_region.width
    return bool(room - 2 <= screen.table.virtual_size.width <= room)


@pytest.mark.slow
def test_the_terminal_becomes_wider(cache: Local) -> None:
    """Columns are fitted anew, and the call under the cursor stays there."""

    async def work(screen: Screen) -> None:
        await screen.see("6 calls", "energy", "-3.5")
        await screen.press("down", "down")
        await screen.pilot.resize_terminal(180, 40)
        await screen.see("where", "ada@laptop", "-3.5")
        assert (screen.table.row_count, screen.table.cursor_row) == (6, 2)
        await screen.pilot.resize_terminal(70, 40)
        await screen.until(lambda: "where" not in screen.text.partition("details")[0])
        assert (screen.table.row_count, screen.table.cursor_row) == (6, 2)
        for width in (150, 70, 50):
            await screen.pilot.resize_terminal(width, 40)
            await screen.until(lambda: is_fitted(screen))

    using(cache, work, size=(100, 40))


@pytest.mark.parametrize("width", swept([50, 80, 150], (50).__eq__))
def test_help(cache: Local, width: int) -> None:
    """Each key stands on a line with what it does, and longer texts go on below themselves."""

    async def work(screen: Screen) -> None:
        await screen.see("6 calls")
        await screen.press("question_mark")
        await screen.see("Esc closes")
        for key, what in (("Enter, v", "open"), ("Esc", "end"), ("d", "delete"), ("q", "quit")):
            wanted = re.compile(rf"^.*│  {key}  +{what}\b.*$", re.MULTILINE)
            await screen.until(lambda wanted=wanted: wanted.search(screen.text))

    using(cache, work, size=(width, 60))


def test_a_value_that_is_not_there(cache: Local) -> None:
    """A missing value is said in words."""
    call = cache.query(name="vibrate").only()
    assert call.record.result is not None
    cache.evict(call.record.result.digest)

    async def work(screen: Screen) -> None:
        await screen.see("6 calls")
        await screen.press("slash", *"vibrate", "enter")
        await screen.until(lambda: screen.table.row_count == 1)
        await screen.press("v")
        await screen.until(lambda: screen.notes)
        (note,) = screen.notes
        assert note.startswith("no value: This value is not in the cache.")

    using(cache, work)
