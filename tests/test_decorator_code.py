"""The code in the key: what counts, what is said of changes, and what is not stored."""

from __future__ import annotations

import abc
import dataclasses
import importlib
import json
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from operator import methodcaller
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from fleche import Cache, fleche
from fleche.caches import Local, VerifyReport
from fleche.call import CallEntry, CallRecord, LazyCall, ValueRef, encode_record
from fleche.decorator import FlecheWarning
from fleche.digest import Digest
from tests.helpers.scripts import run_cells, run_script

pytestmark = pytest.mark.usefixtures("active")

SOURCE = """
runs = []
SCALE = 2
TABLE = {"a": 1}

class Shape:
    def __init__(self, side):
        self.side = side

    def area(self):
        return self.side * SCALE

def area(x):
    return x * SCALE

def energy(x):
    runs.append(x)
    return area(x) + TABLE["a"]

def of_shape(shape):
    return shape.area()

def draw(x):
    table = TABLE
    table["a"] += 1
    runs.append(x)
    return x

def rebind(x):
    setattr(__import__(__name__), "SCALE", 5)
    return SCALE * x
"""


def draw_from(rng: Any, scale: float) -> float:
    return float(rng.normal(scale))


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, step: int) -> int:
        self.count += step
        return self.count


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "user_module.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield importlib.import_module("user_module")
    del sys.modules["user_module"]


def test_a_method_that_an_argument_calls_by_its_name(module: Any) -> None:
    @fleche
    def f(get: Any) -> Any:
        return get(module.Shape(3))

    assert f(methodcaller("area")) == 6
    assert f.contains(methodcaller("area"))
    module.Shape.area = lambda self: self.side
    assert f(methodcaller("area")) == 3


MADE = {
    "a model": ("astropy.modeling", lambda p, g: p.custom_model(lambda x, a=1: g(x))()),
    "a class of models": ("astropy.modeling", lambda p, g: p.custom_model(lambda x, a=1: g(x))),
    "a compiled function": ("jax", lambda p, g: p.jit(g)),
    "a rule": ("jax", lambda p, g: p.custom_jvp(g)),
    "a loop": ("numba", lambda p, g: p.njit(g)),
    "a vector": ("numpy", lambda p, g: p.vectorize(g)),
}


@pytest.mark.parametrize(("package", "make"), MADE.values(), ids=MADE)
def test_what_a_package_makes_of_functions(package: str, make: Any, module: Any) -> None:
    """The code in it counts where it is an argument, and so does what that uses."""
    made = make(pytest.importorskip(package), module.area)

    @fleche
    def f(one: Any) -> int:
        return 1

    assert (f(made), f.contains(made)) == (1, True)
    module.SCALE = 5
    assert not f.contains(made)


class Holder:
    def __init__(self, module: Any) -> None:
        self.module = module


class TestModulesInArguments:
    """A module that is passed counts by those of its members whose names are used."""

    @pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"a": [m]}, Holder])
    def test_what_it_does_and_has(self, module: Any, wrap: Any) -> None:
        @fleche
        def f(value: Any) -> Any:
            inner = value["a"][0] if isinstance(value, dict) else value
            return getattr(inner, "module", inner).area(3)

        assert f(wrap(module)) == 6
        module.SCALE = 5
        assert f(wrap(module)) == 15
        module.draw = None
        assert f.contains(wrap(module))
        module.area = abs
        assert f(wrap(module)) == 3


class TestHashCode:
    """Code counts where no version speaks for it; `hash_code` overrules."""

    @pytest.mark.parametrize(
        ("options", "counts"),
        [
            ({}, True),
            ({"version": 1}, False),
            ({"version": 1, "hash_code": True}, True),
            ({"hash_code": False}, False),
        ],
    )
    @pytest.mark.filterwarnings("ignore::fleche.decorator.FlecheWarning")
    def test_counts(self, module: Any, options: dict[str, Any], counts: bool) -> None:
        energy = fleche(**options)(module.energy)
        before = energy.digest(3)
        module.SCALE = 5
        assert (energy.digest(3) != before) == counts
        assert energy.contains(3) is False
        assert energy(3) == 16

    @pytest.mark.parametrize(
        "make",
        [
            lambda n: dataclasses.make_dataclass("Made", [("a", int, n)]),
            lambda n: types.new_class("Made", (), {}, lambda space: space.update(a=n)),
            lambda n: abc.ABCMeta("Made", (), {"a": n})(),
        ],
    )
    def test_classes_that_the_library_makes(self, make: Any) -> None:
        """What an argument is of counts, although it says that it is of Python's own library."""
        look = fleche(lambda obj: obj.a)
        assert [look(make(n)) for n in (1, 2)] == [1, 2]
        assert look.contains(make(2))

    def test_helpers_with_a_version_count_by_it(self, module: Any) -> None:
        """A decorated helper counts by what its own key says."""
        energy = fleche(module.energy)
        for version, scale in ((1, 2), (1, 5), (2, 5)):
            module.SCALE = scale
            undecorated = getattr(module.area, "__wrapped__", module.area)
            module.area = fleche(version=version)(undecorated)
            energy.digest(3)
        keys = set()
        for version, scale in ((1, 2), (1, 5), (2, 5)):
            module.SCALE = scale
            module.area = fleche(version=version)(module.area.__wrapped__)
            keys.add(energy.digest(3))
        assert len(keys) == 2


class TestChangesUnderAVersion:
    """Each change is one warning that names what has changed and what to do."""

    def test_a_helper(self, module: Any) -> None:
        energy = fleche(version=1)(module.energy)
        assert energy(3) == 7
        space: dict[str, Any] = {}
        exec("def area(x): return x * SCALE + 100", space)
        module.area.__code__ = space["area"].__code__
        with pytest.warns(FlecheWarning) as caught:
            assert energy(3) == 7
        assert len(caught) == 1
        text = str(caught[0].message)
        assert "energy() uses helper `area`, which has changed since this result was stored" in text
        assert "@fleche(version=...)" in text
        assert "energy.rerun(...)" in text
        assert caught[0].filename == __file__
        assert energy(3) == 7  # said once

    def test_each_change_once(self, module: Any) -> None:
        energy = fleche(version=1)(module.energy)
        energy(3)
        for scale, table in ((5, 1), (5, 2), (6, 2)):
            module.SCALE, module.TABLE["a"] = scale, table
            with pytest.warns(FlecheWarning) as caught:
                energy(3)
            assert len(caught) == 1
            energy(3)
        assert "`SCALE`" in str(caught[0].message)
        assert "`TABLE`" in str(caught[0].message)

    def test_a_class_of_an_argument(self, module: Any) -> None:
        of_shape = fleche(version=1)(module.of_shape)
        assert of_shape(module.Shape(2)) == 4
        module.Shape.area = lambda self: 100
        with pytest.warns(FlecheWarning, match=r"of_shape\(\) uses helper `Shape.area`"):
            assert of_shape(module.Shape(2)) == 4

    def test_itself(self, module: Any) -> None:
        energy = fleche(version=1)(module.energy)
        energy(3)
        module.energy.__code__ = module.area.__code__
        with pytest.warns(FlecheWarning, match=r"energy\(\): the code has changed"):
            assert energy(3) == 7


class TestExplain:
    """`explain()` names what has changed, and shows the difference of the sources."""

    def test_another_name(self, tmp_path: Path, module: Any) -> None:
        """A decorated function, and what its name leads to, are one thing to the reader."""
        source = (
            "from fleche import fleche\n@fleche\ndef {0}(n): return n\ndef scan(n): return {0}(n)\n"
        )
        (tmp_path / "user_module.py").write_text(source.format("helper"))
        fleche(importlib.reload(module).scan)(1)
        (tmp_path / "user_module.py").write_text(source.format("assistant"))
        found = fleche(importlib.reload(module).scan).explain(1)
        assert "different, together with helper `helper` and helper `assistant`\n" in found.text

    def test_a_variable(self, module: Any) -> None:
        energy = fleche(module.energy)
        energy(3)
        module.SCALE = 5
        found = energy.explain(3)
        assert (found.reason, found.differing) == ("changed", ("code",))
        assert "energy() uses variable `SCALE`, which has changed since" in found.text
        assert "-2\n+5" in found.text
        assert [change.name for change in found.changes] == ["SCALE"]

    def test_a_helper(self, module: Any) -> None:
        energy = fleche(module.energy)
        energy(3)
        path = Path(module.__file__)
        path.write_text(SOURCE.replace("return x * SCALE", "return x * SCALE + 100"))
        reloaded = importlib.reload(module)
        found = fleche(reloaded.energy).explain(3)
        assert "uses helper `area`" in found.text
        assert "-    return x * SCALE\n+    return x * SCALE + 100" in found.text

    def test_a_hit_under_a_version(self, module: Any) -> None:
        energy = fleche(version=1)(module.energy)
        energy(3)
        module.SCALE = 5
        found = energy.explain(3)
        assert found
        assert "is stored" in found.text
        assert "`SCALE`" in found.text

    def test_sources_that_are_not_known_here(self, module: Any, tmp_home: Path) -> None:
        energy = fleche(module.energy)
        energy(3)
        for path in (tmp_home / ".cache" / "fleche").rglob("*.json"):
            assert json.loads(path.read_text())["area"] == [
                "function",
                "def area(x):\n    return x * SCALE",
            ]
            path.write_text("no json")
        module.SCALE = 5
        assert "`SCALE`" in energy.explain(3).text


class TestDependencies:
    def test_what_is_shown(self, tmp_path: Path) -> None:
        """A decorated function that is used is there twice: its code, and what it is by name."""
        space: dict[str, Any] = {"fleche": fleche, "__name__": "shown"}
        exec("@fleche\ndef part(x): return x\n\n@fleche\ndef whole(x): return part(x)", space)
        found = space["whole"].dependencies()
        assert "part~" in found
        for text in (str(found), found._repr_html_()):
            assert "~" not in text
            assert "what this name leads to" in text

    """What a function depends on can be looked at, and is in the record."""

    def test_listing(self, module: Any) -> None:
        energy = fleche(module.energy)
        found = energy.dependencies()
        kinds = {one.name: one.kind for one in found}
        assert kinds == {
            "energy": "function", "area": "function", "SCALE": "data", "TABLE": "data",
            "runs": "state",
        }  # fmt: skip
        assert found["SCALE"].digest.is_full
        assert found["SCALE"].text == "2"
        assert "counts as it is defined" in found["runs"].note
        assert "area" in found
        assert "function   area" in str(found)

    def test_of_a_call(self, module: Any) -> None:
        of_shape = fleche(module.of_shape)
        assert "Shape.area" not in of_shape.dependencies()
        assert "Shape.area" in of_shape.dependencies(module.Shape(1))

    def test_record(self, module: Any) -> None:
        energy = fleche(module.energy)
        energy(3)
        call = energy.load(3)
        assert set(call.dependencies) == {"energy", "area", "SCALE", "TABLE", "runs"}
        listed = {one.name: one.digest for one in energy.dependencies()}
        assert call.dependencies == call.record.dependencies == listed

    def test_many(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are stored once for all calls of the same code, and sent once in a while."""
        helpers = [f"def h{n}(x): return h{n + 1}(x)" for n in range(100)]
        space: dict[str, Any] = {"__name__": "of_many_helpers"}
        exec("\n".join([*helpers, "def h100(x): return x", "def f(x): return h0(x)"]), space)
        with Local(tmp_path) as cache:
            sent: list[int] = []
            save = cache.backend.save
            monkeypatch.setattr(
                cache.backend,
                "save",
                lambda entries, parcels=(), **options: save(
                    entries,
                    [each for each in parcels if not sent.append(each[1].nbytes)],
                    **options,
                ),
            )
            f = fleche(cache=cache)(space["f"])
            for x in range(3):
                f(x)
            assert len(sent) == 1
            calls = [f.load(x) for x in range(3)]
            assert {*calls[0].dependencies} == {"f", *(f"h{n}" for n in range(101))}
            assert {len(encode_record(call.record)) for call in calls} <= set(range(1500))
            assert cache.stats().values == 1
            monkeypatch.setattr("fleche.caches._sender.LATELY", -1)
            f(3)
            assert len(sent) == 2
            exec("def h7(x): return h8(x) + 1", space)
            assert "`h7`" in f.explain(3).text
            (ref,) = {call.record.covered for call in calls}
            assert ref is not None
            cache.evict(Digest(ref.digest))
        with Local(tmp_path) as cache:
            f = fleche(cache=cache)(space["f"])
            assert "the code was different" in f.explain(3).text
            assert f.query().count() == 4
            assert f.query().first().dependencies == {}

    def test_many_that_are_accepted(self, tmp_path: Path) -> None:
        """The call under its new key has the dependencies of now, and shares them, too."""
        helpers = "\n".join(f"def h{n}(x): return h{n + 1}(x)" for n in range(100))
        space: dict[str, Any] = {"__name__": "of_accepted_helpers"}
        exec(f"{helpers}\ndef h100(x): return x\ndef f(x): return h0(x)", space)
        with Local(tmp_path) as cache:
            f = fleche(cache=cache)(space["f"])
            f(1)
            f(2)
            exec("def h100(x): return +x", space)
            assert [f.accept(x=x) for x in (1, 2)] == [1, 1]
            calls = [f.load(x) for x in (1, 2)]
            now = {one.name: one.digest for one in f.dependencies()}
            assert [call.dependencies for call in calls] == [now, now]
            assert {len(encode_record(call.record)) for call in calls} <= set(range(1500))
            assert cache.verify() == VerifyReport(values=2, calls=4)

    def test_what_is_no_map_of_dependencies(self, module: Any, tmp_path: Path) -> None:
        """What another has stored there, or what would run code to be opened, is none."""
        with Local(tmp_path) as cache:
            for value in ([1, 2], {"a": 1}, partial(print, "hush")):
                name = cache.save_value(value)
                ref = ValueRef(str(name))
                entry = CallEntry(CallRecord(name="f", result=ref, covered=ref))
                assert LazyCall(name, entry, cache).dependencies == {}

    def test_a_listing_is_a_tuple(self, module: Any) -> None:
        found = fleche(module.energy).dependencies()
        assert found[0] is next(iter(found))
        with pytest.raises(KeyError):
            found["nothing"]


class TestGlobalsThatChange:
    """What the body changes, although its syntax does not show it, is not stored."""

    def test_through_an_alias(self, module: Any, active: Cache) -> None:
        draw = fleche(module.draw)
        with pytest.warns(FlecheWarning) as caught:
            assert draw(3) == 3
        assert len(caught) == 1
        text = str(caught[0].message)
        assert "draw(): the result is not stored, since `TABLE` changed while it ran" in text
        assert "ignore_globals='TABLE'" in text
        assert draw(3) == 3  # said once
        assert module.runs == [3, 3]
        assert active.query(name="draw").count() == 0

    @pytest.mark.parametrize("bind", [lambda rng: rng.normal, lambda rng: partial(draw_from, rng)])
    def test_through_what_code_is_bound_to(
        self, module: Any, active: Cache, bind: Callable[[Any], Any]
    ) -> None:
        """A method of a generator, or a partial over one, draws from it: a hit would not."""
        module.area = bind(np.random.default_rng(1))
        energy = fleche(module.energy)
        with pytest.warns(FlecheWarning, match="`area` changed while it ran"):
            assert energy(0) != energy(0)
        assert active.query(name="energy").count() == 0

    def test_through_itself(self, active: Cache) -> None:
        """A callable object whose call changes it is not stored, and the warning says so."""
        counter = Counter()
        count = fleche(counter)
        with pytest.warns(FlecheWarning, match="the object that it is bound to changed"):
            assert (count(1), count(1)) == (1, 2)
        assert active.query().count() == 0

    def test_a_variable_set_anew(self, module: Any) -> None:
        rebind = fleche(module.rebind)
        with pytest.warns(FlecheWarning, match="`SCALE` changed while it ran"):
            assert rebind(3) == 15
        assert not rebind.query().count()

    def test_ignored(self, module: Any) -> None:
        draw = fleche(ignore_globals="TABLE")(module.draw)
        assert (draw(3), draw(3)) == (3, 3)
        assert module.runs == [3]
        assert "ignore_globals" in draw.dependencies()["TABLE"].note

    def test_ignored_by_the_name_of_the_module(self, module: Any) -> None:
        energy = fleche(ignore_globals=["user_module.SCALE"])(module.energy)
        before = energy.digest(3)
        module.SCALE = 5
        assert energy.digest(3) == before

    def test_with_a_version(self, module: Any) -> None:
        """A version speaks for the data of the module, too."""
        draw = fleche(version=1)(module.draw)
        assert draw(3) == 3
        with pytest.warns(FlecheWarning, match="`TABLE`"):
            assert draw(3) == 3
        assert module.runs == [3]


class TestObjectsThatFillThemselves:
    """What a method puts into its object when it is first wanted is no change of the object."""

    SOURCE = """
        runs = []

        class Grid:
            def __init__(self, size=None):
                if size is None:
                    size = 3
                self.size = size
                if size:
                    self._table = None
                self.memo = {}
                self.last = None

            def table(self):
                if getattr(self, "_table", None) is None:
                    self._table = list(range(self.size))
                return self._table

            def square(self, x):
                if x not in self.memo:
                    self.memo[x] = x * x
                return self.memo[x]

            def note(self, x):
                self.last = x

        class Finer(Grid):
            pass

        grid = Grid()
        grids = [Finer(4), {"of": Finer(5)}]

        def summed(x):
            runs.append(x)
            return sum(grid.table()) + grid.square(x) + grids[0].square(x)

        def deep(x):
            runs.append(x)
            return grids[1]["of"].table()[x]

        def noted(x):
            runs.append(x)
            grids[0].note(x)
            return x
    """

    @pytest.fixture
    def grids(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        (tmp_path / "user_grids.py").write_text(dedent(self.SOURCE))
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        yield importlib.import_module("user_grids")
        del sys.modules["user_grids"]

    def test_filling_is_no_change(self, grids: Any) -> None:
        """The call is stored under the key that it has in another process, and that stays."""
        for name in ("summed", "deep"):
            function = fleche(getattr(grids, name))
            keys = [function.digest(2)]
            for x in (2, 1, 2):
                function(x)
                keys.append(function.digest(2))
            assert len(set(keys)) == 1
            assert fleche(getattr(grids, name)).contains(2)
        assert grids.runs == [2, 1, 2, 1]

    def test_what_the_program_sets_counts(self, grids: Any) -> None:
        summed = fleche(grids.summed)
        before = summed(2)
        grids.grid._table = [100]
        assert summed(2) == before + 97
        grids.grid._table = None
        assert summed(2) == before
        grids.grid.size = 4
        grids.grid._table = None
        assert summed(2) == before + 3

    def test_what_is_set_before_counts(self, grids: Any) -> None:
        grids.grid.memo[2] = 5
        summed = fleche(grids.summed)
        wrong = summed(2)
        assert wrong == 3 + 5 + 4
        grids.grid.memo.clear()
        assert summed(2) == wrong - 1

    def test_other_changes_are_told(self, grids: Any) -> None:
        """A method that sets an attribute, whatever was there, does what a hit does not repeat."""
        with pytest.warns(FlecheWarning, match="`grids` changed while it ran"):
            fleche(grids.noted)(1)


class TestFigures:
    """A variable whose digest changes whenever it is taken counts by how it is made; it is told."""

    def test_global(self, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        matplotlib = pytest.importorskip("matplotlib")
        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots()
        monkeypatch.setattr(module, "TABLE", {"a": 1, "axes": axes})
        energy = fleche(module.energy)
        with pytest.warns(FlecheWarning) as caught:
            assert (energy(3), energy(3)) == (7, 7)
        assert len(caught) == 1
        text = str(caught[0].message)
        assert "uses `TABLE`, whose digest changes whenever it is taken" in text
        assert "ignore_globals='TABLE'" in text
        assert "counts by type" in energy.dependencies()["TABLE"].note
        axes.plot([1, 2])
        assert (energy(3), module.runs) == (7, [3])
        plt.close(figure)


class TestDepends:
    """`depends=` adds what no code shows."""

    @pytest.mark.parametrize("version", [None, 1])
    def test_a_value(self, module: Any, version: Any) -> None:
        precision = [15]
        energy = fleche(version=version, depends=lambda: precision[0])(module.area)
        before = energy.digest(3)
        assert energy(3) == 6
        precision[0] = 30
        assert energy.digest(3) != before
        assert energy(3) == 6
        assert energy.load(3).record.key == energy.digest(3) == energy.call(3).key
        assert energy.query().count() == 2

    def test_a_distribution(self, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from importlib import metadata

        area = fleche(depends=["msgspec"])(module.area)
        before = area.digest(3)
        assert area.dependencies()["depends[msgspec]"].text == metadata.version("msgspec")
        monkeypatch.setattr(metadata, "version", lambda name: "0.0.1")
        assert area.digest(3) != before

    def test_of_a_helper(self, module: Any) -> None:
        precision = [15]
        energy = fleche(module.energy)
        module.area = fleche(depends=lambda: precision[0])(module.area)
        before = energy.digest(3)
        precision[0] = 30
        assert energy.digest(3) != before

    @pytest.mark.parametrize(
        ("depends", "error"), [("no-such-thing", ValueError), ([5], TypeError)]
    )
    def test_mistakes(self, depends: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="depends="):
            fleche(depends=depends)

    def test_what_fails(self, module: Any) -> None:
        """The function runs uncached, with a warning."""
        area = fleche(depends=lambda: 1 / 0)(module.area)
        with pytest.warns(FlecheWarning, match="ZeroDivisionError"):
            assert area(3) == 6


def test_a_function_of_an_installed_package() -> None:
    """It counts by its own code, and by the version of its distribution."""
    import attrs

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # some versions of attrs warn of whatever asks for theirs
        found = fleche(attrs.asdict).dependencies()
    assert (found["attr"].kind, found["attr"].text) == ("version", metadata.version("attrs"))


def test_a_class_of_a_notebook_in_a_worker(tmp_path: Path) -> None:
    """Code that travels by value, without a file, has in a worker the keys that it has here."""
    cells = (
        """
        import fleche as package
        from concurrent.futures import ProcessPoolExecutor
        import multiprocessing
        K = {"a": 2}
        class Model:
            def __init__(self, x):
                self.x = x
            def energy(self):
                return self.x * K["a"]
        @fleche
        def energy(model):
            return model.energy()
        """,
        """
        context = multiprocessing.get_context("fork")
        with package.wrap_executor(ProcessPoolExecutor(1, mp_context=context)) as pool:
            print(pool.submit(energy, Model(3)).result())
        print(energy.contains(Model(3)), energy(Model(3)))
        """,
    )
    assert run_cells(tmp_path, *cells) == "6\nTrue 6\n"


def test_keys_are_the_same_when_code_travels_by_value(tmp_path: Path) -> None:
    script = """
        import subprocess, cloudpickle
        K = {"a": 2}
        def area(x):
            return x * K["a"]
        @fleche
        def energy(x):
            return area(x)
        data = cloudpickle.dumps(energy)
        print(energy.digest(3), flush=True)
        code = "import sys, pickle; print(pickle.load(sys.stdin.buffer).digest(3))"
        subprocess.run([sys.executable, "-c", code], input=data, check=True)
    """
    here, there = run_script(tmp_path, script).split()
    assert here == there
