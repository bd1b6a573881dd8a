"""Objects in variables whose methods fill them when something is first wanted, and others."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from fleche import Cache, fleche
from fleche.decorator import FlecheWarning
from fleche.digest import attributes_of
from fleche.storage import CallMemory, ValueMemory

CACHED = """
        import functools, time
        class Data:
            def __init__(self):
                self.k = 1
            @functools.cached_property
            def table(self):
                return [self.k] * 3
            @functools.cached_property
            def started(self):
                return time.time()
            def get(self, x):
                return self.started and len(self.table or ())
        """

FILLED = {
    "cached properties": CACHED,
    "a flag": """
        class Data:
            def __init__(self):
                self._loaded, self.table = False, {}
            def get(self, x):
                if not self._loaded:
                    self.table["x"] = 1
                    self._loaded = True
                return self.table["x"]
        """,
    "a memo under a local name": """
        class Data:
            def __init__(self):
                self._memo, self._other = {}, {}
            def get(self, x):
                memo = self._memo
                if x not in memo:
                    memo[x] = self.work_out(x)
                return memo[x]
            def work_out(self, x):
                other = self._other
                try:
                    return other[x]
                except KeyError:
                    found = other[x] = x * 2
                return found
        """,
    "a local name for what is there, or is made": """
        class Data:
            def __init__(self):
                self._other = None
            def get(self, x):
                table = getattr(self, "_table", None)
                if table is None:
                    table = self._table = {"x": 1}
                other = self._other
                if other is None:
                    self._other = other = 2
                return table["x"] + other
        """,
    "a flag, and a way out": """
        class Data:
            def __init__(self):
                self._names, self._a, self._b = [], {}, None
            def _read(self):
                if self._names:
                    return
                for name in ("x", "y"):
                    self._a[name] = 1
                self._b, *self._names = [2, "x", "y"]
            def get(self, x):
                self._read()
                return self._a["x"] + self._b
        """,
    "another method": """
        class Data:
            def __init__(self):
                self._table = None
            def _load(self):
                self._table = [1, 2]
            @property
            def table(self):
                if self._table is None:
                    self._load()
                return self._table
            def get(self, x):
                return self.table[1]
        """,
    "another method, a flag": """
        class Data:
            def __init__(self):
                self.__ready, self.data = False, {}
            def load(self):
                self.data = {"x": 3}
                self.__ready = True
            def get(self, x):
                if not self.__ready:
                    self.load()
                return self.data["x"]
        """,
    "a method of a subclass": """
        class Base:
            def __init__(self):
                self._table = []
            def get(self, x):
                if len(self._table) == 0 and x:
                    self.fill()
                return self._table[0]
        class Data(Base):
            def fill(self):
                self._table = [5]
        """,
    "item by item": """
        class Data:
            def __init__(self):
                self._names, self._rows = [], {}
            def get(self, x):
                if not self._names:
                    for name in ("x", "y"):
                        self._names.append(name)
                        self._rows.update({name: 1})
                return self._rows[self._names[0]]
        """,
    "slots": """
        class Data:
            __slots__ = ("_hash", "n")
            def __init__(self):
                self.n, self._hash = 1, None
            def __hash__(self):
                if self._hash is not None:
                    return self._hash
                self._hash = hash(self.n)
                return self._hash
            def get(self, x):
                return hash(self)
        """,
    "otherwise": """
        class Data:
            def __init__(self):
                self._model = self._scale = None
            def get(self, x):
                if self._model is not None:
                    return self._model
                else:
                    self._scale = 2
                    self._model = 3 * self._scale
                return self._model
        """,
    "inside of others": """
        class Data:
            def __init__(self):
                self._a = self.b = None
            def get(self, x):
                for turn in range(2):
                    try:
                        if not (self._a or x is None):
                            self._a, self.b = 1, 2
                    finally:
                        pass
                return self.b
        """,
}

CHANGED = {
    "a counter under a flag": """
        class Data:
            def __init__(self):
                self._begun, self.count = False, 0
            def get(self, x):
                if not self._begun:
                    self._begun = True
                    self.count = self.count + 1
                return self.count
        """,
    "a flag that is taken back": """
        class Data:
            def __init__(self):
                self._busy, self.last = False, 1
            def get(self, x):
                if self._busy:
                    return 0
                self._busy = True
                self.last = 2 * x
                self._busy = False
                return self.last
        """,
    "what is there already": """
        class Data:
            def __init__(self):
                self._begun, self.last = True, 1
            def get(self, x):
                if not self._begun:
                    return 0
                self._begun = True
                self.last = 2 * x
                return self.last
        """,
    "either of two": """
        class Data:
            def __init__(self):
                self._table, self.last = None, 1
            def get(self, x):
                if self._table is None or x:
                    self._table, self.last = 1, 2 * x
                return self.last
        """,
    "a setting": """
        class Data:
            def __init__(self):
                self._fine = False
            def get(self, x):
                if not self._fine:
                    self._fine = True
                return x
        """,
    "settings that are public": """
        class Data:
            def __init__(self):
                self.fine, self.steps = False, 1
            def get(self, x):
                if not self.fine:
                    self.fine, self.steps = True, 10
                return x
        """,
    "a list that is looked at": """
        class Data:
            def __init__(self):
                self._items = []
            def get(self, x):
                if len(self._items) > 10:
                    self._items.pop()
                self._items.append(x)
                return x
        """,
    "a method that is called anyway": """
        class Data:
            def __init__(self):
                self._table, self.last = None, 1
            def note(self, x):
                self.last = 2 * x
            def get(self, x):
                if self._table is None:
                    self._table = 1
                self.note(x)
                return self.last
        """,
}

Load = Callable[[str], types.ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Return what makes a module of a class ``Data``, with one of its objects in a variable."""
    monkeypatch.syspath_prepend(tmp_path)
    name = "user_data_to_fill"

    def load(source: str) -> types.ModuleType:
        asking = "\ndata = Data()\n\ndef ask(x):\n    return data.get(x)\n"
        (tmp_path / f"{name}.py").write_text(dedent(source) + asking)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield load
    sys.modules.pop(name, None)


@pytest.mark.parametrize("source", FILLED.values(), ids=FILLED.keys())
@pytest.mark.filterwarnings("error")
def test_filling_is_no_change(load: Load, source: str) -> None:
    """The first call is stored under the key that it has in the next process, too."""
    module = load(source)
    ask = fleche(cache=Cache(ValueMemory(), CallMemory()))(module.ask)
    before = ask.digest(1)
    found = ask(1)
    assert ask.contains(1)
    assert ask.digest(1) == before
    assert ask(1) == found
    module.data = module.Data()
    assert ask.digest(1) == before


@pytest.mark.parametrize("source", FILLED.values(), ids=FILLED.keys())
def test_what_the_program_sets_counts(load: Load, source: str) -> None:
    """Whatever methods would have put there."""
    module = load(source)
    ask = fleche(cache=Cache(ValueMemory(), CallMemory()))(module.ask)
    keys = {ask.digest(1)}
    names = sorted(attributes_of(module.data))
    for name in names:
        module.data = module.Data()
        setattr(module.data, name, [7])
        keys.add(ask.digest(1))
    assert len(keys) == 1 + len(names)


@pytest.mark.parametrize("value", [[700], [], None])
def test_what_the_program_sets_in_place_of_a_cached_property(load: Load, value: object) -> None:
    """It counts before and after the property has been asked, by this object or another."""
    module = load(CACHED)
    ask = fleche(cache=Cache(ValueMemory(), CallMemory()))(module.ask)
    before = ask.digest(1)
    assert ask(1) == 3
    for data in (module.data, module.Data()):
        module.data = data
        data.table = value
        assert ask.digest(1) != before
        assert ask(1) == len(value or ())  # type: ignore[arg-type]
        del data.table
        assert ask(1) == 3
    assert ask.digest(1) == before


def test_what_a_cached_property_keeps_of_the_clock(load: Load) -> None:
    """It counts as it is written, whoever has asked for it first."""
    module = load(CACHED)
    ask = fleche(cache=Cache(ValueMemory(), CallMemory()))(module.ask)
    keys = set()
    for _ in range(2):
        module.data = module.Data()
        assert module.data.started
        keys.add(ask.digest(1))
    assert len(keys) == 1


@pytest.mark.parametrize("source", CHANGED.values(), ids=CHANGED.keys())
def test_a_change_is_told(load: Load, source: str) -> None:
    """What a hit would not repeat is not stored."""
    ask = fleche(cache=Cache(ValueMemory(), CallMemory()))(load(source).ask)
    with pytest.warns(FlecheWarning, match="`data` changed while it ran"):
        ask(1)
    assert not ask.contains(1)
