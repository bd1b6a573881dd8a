"""What a terminal and a notebook show of caches, functions, calls, queries, reports."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

import fleche
from fleche import cache
from fleche.caches import CachePool, CacheStack
from fleche.call import between
from tests.helpers.layers import Layer, in_memory


@fleche.fleche(version=3)
def energy(el: str, v: float = 1.0) -> float:
    """Return the energy <per atom>.

    More of it.
    """
    return v * 2


class Reader(HTMLParser):
    """Reads HTML, and complains of what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


@pytest.fixture(autouse=True)
def store() -> None:
    cache(in_memory())
    energy("<Fe>", 1.5)


SHOWN: dict[str, tuple[Callable[[], Any], list[str], list[str]]] = {
    "cache": (cache, ["Cache("], ["Cache(", "hits", "misses"]),
    "stack": (
        lambda: CacheStack((in_memory(), cache())),
        ["CacheStack("],
        ["CacheStack(", "CallMemory"],
    ),
    "pool": (lambda: CachePool((in_memory(), cache())), ["CachePool("], ["CachePool("]),
    "view": (lambda: cache().readonly(), ["ReadOnlyCache("], ["ReadOnlyCache("]),
    "function": (
        lambda: energy,
        ["<fleche ", "energy, version 3>"],
        ["energy(el: 'str', v: 'float' = 1.0) -> 'float'", "3", "the energy <per atom>."],
    ),
    "query": (
        lambda: energy.query(v=between(1, 2), since="2d").sorted("v"),
        ["<QueryIterator name='energy'", "v between [1, 2]", "runtime.started >="],
        ["el='<Fe>', v=1.5", "3.0"],
    ),
    "query by digest": (lambda: energy.query(el="Fe", uses=3), ["el = <", ", uses "], ["no calls"]),
    "explanation": (
        lambda: energy.explain("Cu", 1.5),
        ["<Explanation arguments: energy() would be computed"],
        ["el was '<Fe>', not 'Cu'"],
    ),
    "call": (
        lambda: energy.load("<Fe>", 1.5),
        ["<LazyCall ", "energy(el='<Fe>', v=1.5) -> 3.0>"],
        ["argument v", "1.5", "runtime host", "took"],
    ),
    "tree": (lambda: energy.load("<Fe>", 1.5).tree(), ["energy("], ["energy(el='<Fe>'"]),
    "table": (lambda: cache().table(), ["energy"], ["energy"]),
    "stats": (lambda: cache().stats(), ["StatsReport("], ["calls", "1"]),
    "function stats": (energy.stats, ["FunctionStats("], ["energy: 1 call stored"]),
    "disk usage": (
        lambda: cache().disk_usage(),
        ["DiskUsageReport(calls=(CallSize(key=", "loose=0, other=0)"],
        ["calls", "bytes", "loose"],
    ),
    "gc": (lambda: cache().gc(dry_run=True), ["GcReport("], ["removed", "0"]),
    "verify": (lambda: cache().verify(), ["VerifyReport("], ["misfiled"]),
    "sync": (lambda: cache().sync(in_memory()), ["SyncReport(sent=1"], ["sent", "1"]),
    "dependencies": (energy.dependencies, ["function", "energy"], ["function", "energy"]),
}


@pytest.mark.parametrize("what", SHOWN)
def test_repr(what: str) -> None:
    """A line or a few that say what it is."""
    make, wanted, _ = SHOWN[what]
    text = repr(make())
    for part in wanted:
        assert part in text
    assert len(text) < 1000


@pytest.mark.parametrize("what", SHOWN)
def test_html(what: str) -> None:
    """Well-formed, and every text escaped."""
    make, _, wanted = SHOWN[what]
    text = Reader(make()._repr_html_()).text
    for part in wanted:
        assert part in text


def test_a_cache_is_shown_without_being_asked() -> None:
    """A far one may be slow, or out of reach."""
    layer = Layer()
    assert layer._repr_html_()
    assert layer.asked == {}
