"""The decorator together with other decorators, and on what is decorated already."""

from __future__ import annotations

import functools
import importlib
import inspect
import operator
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from fleche import Cache, Ignored, Required, fleche
from fleche.decorator import FlecheWarning

runs: list[Any] = []


@pytest.fixture(autouse=True)
def fresh(active: Cache) -> None:
    runs.clear()


def times(n: int) -> Callable[[Any], Any]:
    """Multiply what the function returns."""

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return n * function(*args, **kwargs)

        return wrapper

    return decorate


def identity(x: int) -> int:
    runs.append(x)
    return x


def renamed(n: int) -> Callable[[int], int]:
    def scale(x: int) -> int:
        return n * x

    scale.__name__ = scale.__qualname__ = "scale"
    return scale


class Body:
    def __init__(self, mass: int) -> None:
        self.mass = mass

    def weight(self, gravity: int) -> int:
        return self.mass * gravity

    @classmethod
    def name(cls) -> str:
        return cls.__name__


class Derived(Body):
    pass


class TestNames:
    """Where a name does not lead to one function alone, the code counts."""

    def test_wrappers_that_share_a_name(self) -> None:
        """They are told apart although they have the name of the function inside."""
        double, triple = fleche(times(2)(identity)), fleche(times(3)(identity))
        assert (double(10), triple(10)) == (20, 30)
        assert (double(10), triple(10), fleche(identity)(10)) == (20, 30, 10)
        assert runs == [10, 10, 10]

    def test_functions_that_were_renamed(self) -> None:
        assert (fleche(renamed(2))(10), fleche(renamed(3))(10)) == (20, 30)

    def test_bound_methods(self) -> None:
        """The object counts, as it does where the method is decorated in its class."""
        assert (fleche(Body(2).weight)(10), fleche(Body(3).weight)(10)) == (20, 30)
        assert fleche(Body(2).weight).contains(10)

    def test_bound_class_methods(self) -> None:
        assert (fleche(Body.name)(), fleche(Derived.name)()) == ("Body", "Derived")

    def test_generic_functions(self) -> None:
        """What is registered later counts."""
        generic = functools.singledispatch(identity)
        decorated = fleche(generic)
        assert decorated(1) == decorated(1) == 1
        assert runs == [1]
        generic.register(int, lambda x: -x)
        assert decorated(1) == -1


class TestAround:
    """A decorator between two that cache is run, and what it needs is left alone."""

    def test_two_caches(self) -> None:
        decorated = fleche(identity)
        again = fleche(times(2)(decorated))
        assert (again(3), again(3), decorated(3)) == (6, 6, 3)
        assert runs == [3]
        assert again.__wrapped__ is not decorated

    @pytest.mark.parametrize("name", ["spec", "lead", "digest", "query"])
    def test_attributes_of_the_function(self, name: str) -> None:
        """They are taken over, except for what a decorated function has itself."""

        def labelled(x: int) -> int:
            return x

        labelled.unit = "eV"  # type: ignore[attr-defined]
        vars(labelled)[name] = "mine"
        decorated: Any = fleche(labelled)
        assert decorated(1) == decorated(1) == 1
        assert decorated.contains(1)
        assert decorated.query().count() == 1
        assert decorated.unit == "eV"

    def test_async_inside(self) -> None:
        """A plain wrapper of a coroutine function that runs it to its end is a plain function."""
        import asyncio

        @fleche
        async def fetch(x: int) -> int:
            await asyncio.sleep(0)
            return x

        def blocking(x: int) -> int:
            return asyncio.run(fetch(x))

        vars(blocking).update(vars(fetch))
        decorated = fleche(blocking)
        assert decorated(1) == decorated(1) == 1
        assert not inspect.iscoroutinefunction(decorated)

    def test_nameless(self) -> None:
        """What has no name of its own is shown by that of its class or of what it calls."""
        assert "TestAround" not in repr(fleche(functools.partial(identity, 1)))
        assert "identity" in repr(fleche(functools.partial(identity, 1)))


class TestArguments:
    """A wrapper is called as it was written, whatever the function inside accepts."""

    def test_a_default_of_its_own(self) -> None:
        """It is not taken for that of the function inside, which may be passed."""

        def loosened(function: Any) -> Any:
            @functools.wraps(function)
            def wrapper(x: int, tol: float = 1e-3) -> Any:
                return function(x, tol)

            return wrapper

        @fleche
        @loosened
        def solve(x: int, tol: float = 1e-6) -> tuple[int, float]:
            return x, tol

        assert solve(1) == (1, 1e-3)
        assert solve(1, tol=1e-6) == (1, 1e-6)
        assert solve.contains(1, 1e-3)
        assert solve.load(1).arguments["tol"] == 1e-3

    def test_a_default_in_disguise(self) -> None:
        def loosened(function: Any) -> Any:
            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                kwargs.setdefault("tol", 1e-3)
                return function(*args, **kwargs)

            return wrapper

        @fleche
        @loosened
        def solve(x: int, tol: float = 1e-6) -> tuple[int, float]:
            return x, tol

        assert solve(1) == (1, 1e-3)
        assert solve(x=1, tol=1e-6) == (1, 1e-6)
        assert solve.contains(x=1)

    def test_an_injected_argument(self) -> None:
        def connected(function: Any) -> Any:
            @functools.wraps(function)
            def wrapper(x: int) -> Any:
                return function(x, "connection")

            return wrapper

        @fleche
        @connected
        def ask(x: int, connection: str) -> tuple[int, str]:
            runs.append(x)
            return x, connection

        assert ask(1) == ask(x=1) == (1, "connection")
        assert runs == [1]

    def test_an_added_keyword(self) -> None:
        def scaled(function: Any) -> Any:
            @functools.wraps(function)
            def wrapper(*args: Any, scale: int = 1, **kwargs: Any) -> Any:
                return scale * function(*args, **kwargs)

            return wrapper

        decorated = fleche(scaled(identity))
        assert (decorated(2, scale=4), decorated(2), decorated(2, scale=4)) == (8, 2, 8)
        assert runs == [2, 2]

    @pytest.mark.parametrize("isolate", [False, True])
    def test_what_only_the_wrapper_takes(self, isolate: bool) -> None:
        """If it does not say what it takes, the call runs uncached, with one warning."""

        def scaled(function: Any) -> Any:
            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                return kwargs.pop("scale") * function(*args, **kwargs)

            return wrapper

        decorated = fleche(isolate=isolate)(scaled(identity))
        with pytest.warns(FlecheWarning, match=r"identity\(\): runs uncached.*'scale'") as caught:
            assert decorated(2, scale=4) == 8
        assert decorated(2, scale=3) == 6
        assert len(caught) == 1
        assert decorated.explain(2, scale=4).reason == "uncached"
        with pytest.raises(TypeError, match="scale"):
            decorated.digest(2, scale=4)

    @pytest.mark.filterwarnings("ignore::fleche.FlecheWarning")
    def test_mistakes(self) -> None:
        """What no parameter takes is for the function itself to refuse."""
        with pytest.raises(TypeError, match=r"identity\(\) got an unexpected keyword argument"):
            fleche(times(2)(identity))(1, scale=4)

    def test_how_it_is_called(self, active: Cache) -> None:
        """The wrapper gets the arguments as they were passed, copies and values of digests too."""

        def noting(function: Any) -> Any:
            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                runs.append((args, kwargs))
                return function(*args, **kwargs)

            return wrapper

        @fleche(isolate=True)
        @noting
        def joined(x: list[int], y: list[int]) -> list[int]:
            return x + y

        given = [1]
        assert joined(given, y=active.save_value([2])) == [1, 2]
        assert joined([1], [2]) == [1, 2]
        assert runs == [(([1],), {"y": [2]})]
        assert runs[0][0][0] is not given

    def test_markers(self) -> None:
        @fleche
        @times(2)
        def draw(x: int, seed: Required[int | None] = None, log: Ignored[Any] = None) -> int:
            runs.append(seed)
            return x

        assert draw(1) == draw(1) == draw(1, 5, log=iter("a")) == draw(1, 5) == 2
        assert runs == [None, None, 5]


class TestTwice:
    """A function that is decorated already keeps what is not said anew."""

    def test_options(self) -> None:
        first = fleche(version=2, isolate=True, ignore="x", hash_code=False)(identity)
        again = fleche(hash_code=True)(first)
        assert again(1) == again(2) == 1
        options = again.spec.options
        assert (options.version, options.isolate, options.hash_code) == (2, True, True)
        assert fleche(version=3)(first).spec.options.version == 3
        assert fleche(first).digest(1) == first.digest(1)

    def test_parameters(self) -> None:
        def draw(seed: int | None = None, verbose: bool = False) -> int | None:
            return seed

        info = fleche(ignore="verbose")(fleche(require=["seed"])(draw)).spec.info
        assert (info.required, info.ignored) == ({"seed"}, {"verbose"})

    def test_methods(self) -> None:
        """It stays a method of its object."""

        class Local:
            @fleche(version=2)
            def method(self, x: int) -> int:
                return x

        local = Local()
        again = fleche(isolate=True)(local.method)
        assert again.__self__ is local
        assert again.spec.options.version == 2
        assert again.digest(1) == local.method.digest(1)

    def test_names_from_an_iterator(self) -> None:
        """One decorator may decorate many functions."""
        decorate = fleche(ignore=iter(["x"]))
        assert [decorate(identity).spec.info.ignored for _ in range(2)] == [{"x"}, {"x"}]


MODULE = '''
import functools
import threading

from fleche import fleche

runs = []


class Locked:
    """A wrapper that has no digest."""

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function
        self.lock = threading.Lock()

    def __call__(self, *args, **kwargs):
        with self.lock:
            return self.function(*args, **kwargs)


def counted(function):
    """A wrapper that captures what changes with every call."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        runs.append(args)
        return function(*args, **kwargs)

    return wrapper


@fleche
@Locked
def locked(x):
    runs.append(x)
    return x


@fleche
@counted
def below(x):
    return x


@Locked
@counted
@fleche
def above(x):
    runs.append(x)
    return x


class Model:
    @staticmethod
    @fleche
    @counted
    def static(x):
        return x

    @fleche
    @counted
    def method(self, x):
        return x


def plain(x):
    return x


other = fleche(counted(plain))
'''


def imported(text: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    name = f"module_{directory.name}"
    (directory / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(directory)
    yield importlib.import_module(name)
    del sys.modules[name]


class TestInModules:
    """What a decorator has made of a function counts by both."""

    @pytest.fixture
    def module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        yield from imported(MODULE, tmp_path, monkeypatch)

    @pytest.mark.parametrize(
        "name", ["locked", "below", "Model.static", pytest.param("Model.method", id="method")]
    )
    def test_below(self, module: Any, name: str, recwarn: pytest.WarningsRecorder) -> None:
        function = operator.attrgetter(name)(module)
        start = [module.Model.__name__] if name == "Model.method" else []
        for _ in range(3):
            assert function(*start, 5) == 5
        assert len(module.runs) == 1
        assert not recwarn.list
        assert function.load(*start, 5).record.unhashed == ()

    def test_above(self, module: Any) -> None:
        for _ in range(3):
            assert module.above(5) == 5
        assert module.runs.count(5) == 1

    def test_what_is_found_under_another_name(self, module: Any) -> None:
        """It is told apart by its code from whatever bears the name."""
        assert module.other(5) == 5
        (stored,) = module.other.query()
        assert stored.record.name == "plain"
        assert "code" not in stored.record.unhashed

    def test_in_another_process(self, module: Any) -> None:
        """A copy for a worker has the same keys, where it cannot be found too."""
        for name in ("below", "other"):
            spec = getattr(module, name).spec
            copy = pickle.loads(cloudpickle.dumps(spec))
            assert copy.identify({"x": 1}).key == spec.identify({"x": 1}).key


RELOADED = """
import functools
from fleche import fleche

K = len("a")


def h(x):
    return x + 1


def twice(function):
    @functools.wraps(function)
    def wrapper(x):
        return 2 * function(x)
    return wrapper


@fleche
def f(x):
    return h(x)


@fleche
@twice
def below(x):
    return x


@fleche
@functools.lru_cache
def kept(x):
    return x


@fleche(ignore="seen")
def fewer(x, seen=0):
    return x


@twice
def helper(x):
    return x


@fleche
def above(x):
    return (f(x), below(x), kept(x), fewer(x), helper(x))


@fleche
def alone(x):
    return x + 5


class A:
    @fleche
    def method(self, x):
        return x

    @classmethod
    @fleche
    def by_class(cls, x):
        return x

    @staticmethod
    @fleche
    def static(x):
        return x


a = A()
"""

EDITS = {
    "helper": ("x + 1", "x + 2"),
    "body": ("return h(x)", "return 10 * h(x)"),
    "options": (
        "@fleche\ndef f(x):\n    return h(x)",
        "@fleche(version=2)\ndef f(x):\n    return 7",
    ),
    "parameters": ("def f(x):\n    return h(x)", "def f(x, y=5):\n    return h(x) * y"),
    "another parameter": ("seen=0):\n    return x", "seen=0, y=5):\n    return x * y"),
    "ignored": (
        'ignore="seen")\ndef fewer(x, seen=0):\n    return x',
        'ignore="y")\ndef fewer(x, y=0):\n    return x * 2',
    ),
    "decorated helper": ("def helper(x):\n    return x", "def helper(x):\n    return x * 5"),
    "decorator below": ("def below(x):\n    return x", "def below(x):\n    return x * 5"),
    "that one": ("2 * function(x)", "3 * function(x)"),
    "one of C below": ("def kept(x):\n    return x", "def kept(x):\n    return x * 5"),
    "decorator gone": ("@fleche\ndef alone(x):\n    return x", "def alone(x):\n    return 2 * x"),
    "method": ("method(self, x):\n        return x", "method(self, x):\n        return x * 5"),
    "method of class": (
        "by_class(cls, x):\n        return x",
        "by_class(cls, x):\n        return -x",
    ),
    "static method": ("static(x):\n        return x", "static(x):\n        return x * 5"),
}
"""Edits of a module, of which each changes what one of its functions returns."""

UNDECORATED = "fleche = lambda *function, **_: function[0] if function else fleche #"

FOUND = ("f", "below", "kept", "fewer", "above", "alone", "a.method", "a.by_class", "a.static")


class TestReloaded:
    """`%autoreload` puts what is new into the functions that are there, decorated or not."""

    @pytest.fixture
    def module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        yield from imported(RELOADED, tmp_path, monkeypatch)

    @pytest.mark.parametrize("edit", EDITS)
    @pytest.mark.parametrize("way", ["function by function", "the whole module", "old"])
    def test_what_was_imported_before(self, module: Any, edit: str, way: str) -> None:
        from IPython.extensions.autoreload import ModuleReloader

        found = [operator.attrgetter(name)(module) for name in FOUND]
        before = [function(3) for function in found]
        names = [repr(function) for function in found[:5]]
        reloader = ModuleReloader()
        if way == "old" and hasattr(reloader, "deduper_reloader"):
            reloader.deduper_reloader.enabled = False
        edits = (
            EDITS[edit],
            ("return x + ", "return 100 * x + "),
            ("helper(x):\n    return", "helper(x):\n    return -"),
        )
        for count, (old, new) in enumerate(edits, 1):
            path = Path(module.__file__)
            text = path.read_text()
            assert count > 1 or old in text
            text = text.replace(old, new)
            if way == "the whole module":
                text = text.replace('len("a', 'len("aa')
            path.write_text(text)
            os.utime(path, (time.time() + count, time.time() + count))
            reloader.check(check_all=True)
            scope: dict[str, Any] = {}
            exec(text.replace("from fleche import", UNDECORATED), scope)
            expected = [eval(name, scope)(3) for name in FOUND]
            assert expected != before or count > 1
            for _ in range(2):
                assert [function(3) for function in found] == expected
                assert [operator.attrgetter(name)(module)(3) for name in FOUND] == expected
        assert [function.contains(3) for function in found] == [True] * len(FOUND)
        assert edit == "options" or [repr(function) for function in found[:5]] == names
