"""Functions, classes and what identifies them."""

from __future__ import annotations

import abc
import ast
import collections
import dataclasses
import enum
import functools
import importlib
import inspect
import linecache
import math
import subprocess
import sys
import threading
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from fleche.digest import code_digest, digest
from fleche.errors import Indigestible
from tests.golden import functions
from tests.helpers.pythons import PYTHON_VERSIONS, Pythons

ROOT = Path(__file__).parents[1]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that imports a source as a module and returns one name of it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    count = 0

    def build(source: str, name: str = "f", module: str | None = None) -> Any:
        nonlocal count
        count += 1
        module = module or f"made_{count}"
        (tmp_path / f"{module}.py").write_text(source)
        importlib.invalidate_caches()
        sys.modules.pop(module, None)
        return getattr(importlib.import_module(module), name)

    yield build
    for module in [name for name in sys.modules if name.startswith("made_")]:
        del sys.modules[module]


SAME_CODE = [
    ("def f(x):\n    return x", "def f(x):\n    # why\n    return x"),
    ("def f(x):\n    return x", "\n\n\ndef f(x): return (x)"),
    ("def f(x):\n    return x", 'def f(x):\n    """Docstring."""\n    return x'),
    ("def f(x):\n    'One.'\n    return x", 'def f(x):\n    """Other."""\n    return x'),
    ("def f(x):\n    return 'a'", 'def f(x):\n    return "a"'),
    ("def f(x):\n    return 1000", "def f(x):\n    return 1_000"),
    ("def f(x, y=1): return x", "def f(\n    x,\n    y=1,\n): return x"),
    ("def f(x): return x", "def deco(g): return g\n@deco\ndef f(x): return x"),
    (
        "def f(x): return x",
        "def deco(*a): return lambda g: g\n@deco(1)\n@deco(2)\ndef f(x): return x",
    ),
    ("f = lambda x: x + 1", "f = (lambda x:  x+1)"),
    (
        "def f(x):\n    class A:\n        'a'\n        y = 1",
        "def f(x):\n    class A:\n        y = 1",
    ),
]


@pytest.mark.parametrize(("one", "other"), SAME_CODE)
def test_same_code(one: str, other: str, make: Callable[..., Any]) -> None:
    """Layout, comments, docstrings and decorators are no part of the code."""
    assert code_digest(make(one)) == code_digest(make(other))


OTHER_CODE = [
    ("def f(x): return x", "def f(x): return x + 1"),
    ("def f(x): return x", "def f(y): return y"),
    ("def f(x): return x", "def f(x, /): return x"),
    ("def f(x): return x", "def f(*x): return x"),
    ("def f(x): return x", "async def f(x): return x"),
    ("def f(x): return x", "f = lambda x: x"),
    ("def f(x=1): return x", "def f(x=2): return x"),
    ("def f(x=1): return x", "def f(x=True): return x"),
    ("def f(*, x=1): return x", "def f(*, x=1.0): return x"),
    ("N = 1\ndef f(x=N): return x", "N = 2\ndef f(x=N): return x"),
    ("def f(x): return 0.0", "def f(x): return -0.0"),
    ("def f(x): return 1", "def f(x): return True"),
    ("def f(x): return 1", "def f(x): return 1.0"),
    ("def f(x): return 'a'", "def f(x): return b'a'"),
    ("def f(x): return x.a", "def f(x): return x.b"),
    ("def f(x): return f'{x}'", "def f(x): return f'{x!r}'"),
    ("def f(x): return f'{x:1}'", "def f(x): return f'{x:2}'"),
    ("def f(x): return f'a{x}b'", "def f(x): return f'ab{x}'"),
    ("def f(x): return x in {1, 2}", "def f(x): return x in {1, 3}"),
    ("def f(x):\n    if x: return 1\n    return 2", "def f(x):\n    if x: return 2\n    return 1"),
    ("def f(x): return None", "def f(x): pass"),
    ("def f(x): return None", "def f(x): return ..."),
    ("def f(x): return [x]", "def f(x): return (x,)"),
    ("def f(x): return x[1:]", "def f(x): return x[:1]"),
    ("def f(x): return x < 1", "def f(x): return x <= 1"),
    ("def f(x): return g(x)", "def f(x): return g(*x)"),
    ("def f(x): return g(x)", "def f(x): return g(x=x)"),
    ("def f(x): return {**x}", "def f(x): return {x: x}"),
]


@pytest.mark.parametrize(("one", "other"), OTHER_CODE)
def test_other_code(one: str, other: str, make: Callable[..., Any]) -> None:
    """Whatever may change a result changes the code."""
    assert code_digest(make(one)) != code_digest(make(other))


def test_name_is_apart(make: Callable[..., Any]) -> None:
    """The code digest knows no names; that of a function value does, for its globals."""
    source = "def f(x): return N * x\ng = f\ndef h(x): return N * x"
    one, other = make(source), make(source)
    assert code_digest(one) == code_digest(other)
    assert digest(one) != digest(other)
    assert code_digest(make(source, "h")) == code_digest(one)
    assert digest(make(source, "g", module="made_again")) == digest(
        make(source, "f", module="made_again")
    )


class TestCaptured:
    """What a function has captured from its surroundings."""

    def test_values(self) -> None:
        assert code_digest(functions.make_adder(1)) == code_digest(functions.make_adder(1))
        assert code_digest(functions.make_adder(1)) != code_digest(functions.make_adder(2))
        assert digest(functions.make_adder(1)) != digest(functions.make_adder(1.0))

    def test_functions(self) -> None:
        """A captured function counts by what it does."""
        inner = functions.make_adder
        assert digest(functions.make_adder(inner(1))) != digest(functions.make_adder(inner(2)))

    def test_itself(self) -> None:
        """A function may refer to itself."""
        assert digest(functions.make_recursive()) == digest(functions.make_recursive())

    def test_is_read_anew(self) -> None:
        """A captured variable that changes changes the code."""

        def counter() -> tuple[Any, Any]:
            count = 0

            def read() -> int:
                return count

            def bump() -> None:
                nonlocal count
                count += 1

            return read, bump

        read, bump = counter()
        before = code_digest(read)
        bump()
        assert code_digest(read) != before

    def test_empty(self) -> None:
        """A variable that has no value yet differs from every value."""

        def late() -> Any:
            def f() -> Any:
                return value  # type: ignore[has-type]

            before = code_digest(f)
            value = None
            return before, code_digest(f)

        before, after = late()
        assert before != after

    def test_indigestible(self) -> None:
        iterator = iter([])

        def f() -> Any:
            return iterator

        with pytest.raises(Indigestible, match=r"code\.iterator: "):
            code_digest(f)

    def test_super(self) -> None:
        """The class that `super()` uses is no captured value."""

        class A:
            def f(self) -> Any:
                return super().__init__

        class B:
            def f(self) -> Any:
                return super().__init__

        assert code_digest(A.f) == code_digest(B.f)


def test_defaults_of_ignored_parameters() -> None:
    """The default of a parameter that does not matter need not have a digest."""

    def f(x: int, log: Any = iter([]), *, out: Any = iter([])) -> None: ...  # noqa: B008

    assert code_digest(f, ignored={"log", "out"}).is_full
    with pytest.raises(Indigestible, match=r"code\.log"):
        code_digest(f, ignored={"out"})


class TestLambdas:
    """Lambdas are found among others on their line."""

    def test_on_one_line(self) -> None:
        one, other, third = lambda x: x + 1, lambda x: x + 2, lambda y: y + 1
        assert len({digest(one), digest(other), digest(third)}) == 3

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="columns are unknown")
    def test_layout_on_one_line(self) -> None:
        """The source of a lambda is found, whatever stands beside it."""
        one = lambda x: x + 1  # noqa: E731
        pair = (lambda x:  (x+1), lambda x: x + 2)  # fmt: skip
        assert code_digest(pair[0]) == code_digest(one) != code_digest(pair[1])

    def test_nested(self) -> None:
        outer = lambda x: lambda y: x + y  # noqa: E731
        assert code_digest(outer) != code_digest(outer(1))
        assert code_digest(outer(1)) == code_digest(outer(1)) != code_digest(outer(2))

    def test_many_lines(self) -> None:
        first, second = (
            lambda x: [
                x,
                1,
            ],
            lambda x: [x, 1],
        )
        assert code_digest(first) == code_digest(second)


class TestSource:
    """Only what compiles to the running code is taken for its source."""

    def test_edited_file(self, tmp_path: Path, make: Callable[..., Any]) -> None:
        """A function goes on by the code that it runs, not by what its file says by now."""
        old = make("def f(x):\n    return x + 1\n", module="made_edited")
        path = tmp_path / "made_edited.py"
        path.write_text("def f(x):\n    return x + 2  # edited\n")
        linecache.checkcache()
        new = make(path.read_text())
        assert code_digest(old) != code_digest(new)

    def test_shifted_file(self, tmp_path: Path, make: Callable[..., Any]) -> None:
        """Another function that has moved to the lines of the first is not mistaken for it."""
        old = make("def f(x):\n    return x + 1\n", module="made_shifted")
        path = tmp_path / "made_shifted.py"
        path.write_text("def f(x):\n    return x + 3\n\n\ndef g(x):\n    return x + 1\n")
        linecache.checkcache()
        assert code_digest(old) != code_digest(make(path.read_text()))

    def test_without_source(self) -> None:
        """Bytecode stands in for a source that is not to be had."""

        def build(source: str) -> Any:
            space: dict[str, Any] = {}
            exec(source, space)
            return space["f"]

        one = build("def f(x): return x + 1")
        assert code_digest(one) == code_digest(build("\n\ndef f(x): return x + 1  # moved"))
        assert code_digest(one) != code_digest(build("def f(x): return x + 2"))
        assert code_digest(one) != code_digest(build("def f(y): return y + 1"))
        assert code_digest(one) != code_digest(build("def f(*x): return x + 1"))
        assert code_digest(build("def f(x): return lambda: x + 1")) != code_digest(
            build("def f(x): return lambda: x + 2")
        )

    def test_constants_keep_their_type(self) -> None:
        """Bytecode that compares equal need not mean the same."""
        codes = [compile(text, "<none>", "eval") for text in ("1", "1.0", "True", "0.0", "-0.0")]
        made = [types.FunctionType(code, {}) for code in codes]
        assert len({code_digest(function) for function in made}) == len(made)

    def test_broken_file(self, tmp_path: Path, make: Callable[..., Any]) -> None:
        old = make("def f(x): return x", module="made_broken")
        (tmp_path / "made_broken.py").write_text("def f(x: return")
        linecache.checkcache()
        assert code_digest(old).is_full

    def test_notebook(self, make: Callable[..., Any]) -> None:
        """The source of a notebook's cell is in the line cache."""
        text = "import asyncio\nawait asyncio.sleep(0)\ndef f(x):\n    return x + 1  # cell\n"
        name = "<cell 1>"
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        module = compile(text, name, "exec", flags)
        (code,) = [item for item in module.co_consts if isinstance(item, types.CodeType)]
        function = types.FunctionType(code, {"__name__": "__main__"})
        assert code_digest(function) == code_digest(make("def f(x): return x + 1"))


class TestCallables:
    """What can be called without being a plain function."""

    def test_methods(self) -> None:
        """A bound method is its function and its object."""
        small, large = functions.Shape(1), functions.Shape(2)
        assert digest(small.area) != digest(large.area)
        assert digest(small.area) == digest(functions.Shape(1).area)
        assert digest(small.area) != digest(functions.Shape.area)
        assert code_digest(small.area) != code_digest(large.area)

    def test_partials(self) -> None:
        one = functools.partial(functions.walrus, 1)
        assert digest(one) == digest(functools.partial(functions.walrus, 1))
        assert digest(one) != digest(functools.partial(functions.walrus, 2))
        assert digest(one) != digest(functools.partial(functions.starred, 1))

    def test_attributes(self) -> None:
        """They count, but for copies of the documentation; None is one as well."""

        def plain() -> None: ...

        seen = {code_digest(plain)}
        for value in (None, 1, 2):
            plain.mode = value  # type: ignore[attr-defined]
            seen.add(code_digest(plain))
        assert len(seen) == 4

    @pytest.mark.parametrize("wrap", [lambda f: f, functools.cache, functools.singledispatch])
    @pytest.mark.parametrize(
        ("name", "one", "other"),
        [
            ("order", 1, 4),
            ("__version__", 1, 2),
            ("__signature__", inspect.Signature(), inspect.signature(len)),
        ],
    )
    def test_what_is_set_on_it(self, wrap: Any, name: str, one: Any, other: Any) -> None:
        """Whatever it is called, and also on what functools makes of a function."""

        def make(*values: Any) -> Any:
            def plain(x: int) -> int:
                return x

            made = wrap(plain)
            for value in values:
                setattr(made, name, value)
            return made

        found = [digest(made) for made in (make(), make(), make(one), make(one), make(other))]
        assert found[0] == found[1]
        assert found[2] == found[3]
        assert len(set(found)) == 3

    def test_another_name(self) -> None:
        """A label that code reads off a function counts."""

        def make(name: str) -> Any:
            def plain(x: int) -> int:
                return x

            plain.__name__ = name
            return plain

        assert len({digest(make(name)) for name in ("plain", "rho", "T")}) == 3

    def test_wrapped(self) -> None:
        """A cached function counts by what it wraps, and differs from it."""
        assert digest(functions.decorated) == digest(
            functools.lru_cache(functions.decorated.__wrapped__)
        )
        assert digest(functions.decorated) != digest(functions.decorated.__wrapped__)

    def test_decorated(self) -> None:
        """A function in a wrapper counts with the wrapper."""

        def twice(function: Callable[[int], int]) -> Callable[[int], int]:
            @functools.wraps(function)
            def wrapper(x: int) -> int:
                return function(function(x))

            return wrapper

        assert digest(twice(functions.walrus)) != digest(functions.walrus)
        assert digest(twice(functions.walrus)) != digest(twice(functions.documented))

    def test_builtins(self) -> None:
        assert code_digest(math.sin) != code_digest(math.cos)
        assert digest(len) == digest(len)

    def test_static_and_class_methods(self) -> None:
        class A:
            @staticmethod
            def f(x: int) -> int:
                return x

            @classmethod
            def g(cls, x: int) -> int:
                return x

        found = {digest(vars(A)[name]) for name in ("f", "g")} | {digest(A.f), digest(A.g)}
        assert len(found) == 4

    def test_generic_functions(self) -> None:
        """A function with implementations by type is all of them."""

        def build(second: Callable[[Any], int]) -> Any:
            generic = functools.singledispatch(functions.documented)
            generic.register(str, second)
            return generic

        assert digest(build(functions.walrus)) == digest(build(functions.walrus))
        assert digest(build(functions.walrus)) != digest(build(functions.starred))

    def test_code_objects(self) -> None:
        one = functions.walrus.__code__
        assert digest(one) == digest(one) != digest(functions.starred.__code__)


def make_class(n: int) -> Any:
    class Local:
        factor = n

        def scale(self, x: int) -> int:
            return x * n

    return Local


def class_code(obj: Any) -> Any:
    """The code digest of a class; that of the class of an object with the digest of the object."""
    return code_digest(obj) if isinstance(obj, type) else (code_digest(type(obj)), digest(obj))


class TestClasses:
    """Classes are known by name as values, and as code by what they are made of."""

    def test_by_name(self) -> None:
        """The digest of a value names its class only."""
        assert digest(functions.Shape) == digest(functions.Shape)
        assert digest(make_class(1)) == digest(make_class(2))
        assert digest(make_class(1)()) == digest(make_class(2)())

    def test_local(self) -> None:
        """The code of a class inside a function is what it is made of."""
        assert make_class(1) is not make_class(1)
        assert class_code(make_class(1)) == class_code(make_class(1))
        assert class_code(make_class(1)) != class_code(make_class(2))
        assert class_code(make_class(1)()) == class_code(make_class(1)())
        assert class_code(make_class(1)()) != class_code(make_class(2)())

    def test_enumerations(self) -> None:
        """Members with their values, aliases and methods count."""

        def build(red: Any, shade: Any = None) -> Any:
            class Colour(enum.Enum):
                RED = red
                CRIMSON = red  # noqa: PIE796
                BLUE = "blue"

                def area(self) -> Any:
                    return shade

            return Colour

        assert class_code(build(1)) == class_code(build(1)) != class_code(build(2))
        assert class_code(build(1, 2)) != class_code(build(1, 3))
        assert class_code(build(1).RED) == class_code(build(1).CRIMSON) != class_code(build(2).RED)
        assert class_code(build(1).RED) != class_code(build(1).BLUE)

    def test_dataclasses(self) -> None:
        """Fields, defaults and options count, and what dataclass makes of them does not."""

        def build(x: Any = 1, **options: Any) -> Any:
            return dataclasses.make_dataclass("Local", [("x", int, x)], **options)

        assert class_code(build()) == class_code(build()) != class_code(build(2))
        assert (
            class_code(build()) != class_code(build(frozen=True)) != class_code(build(order=True))
        )
        assert class_code(build()(5)) != class_code(build(2)(5))

    def test_attrs_classes(self) -> None:
        def build(**options: Any) -> Any:
            return attrs.make_class("Local", {"x": attrs.field(**options)})

        assert (
            class_code(build(default=1))
            == class_code(build(default=1))
            != class_code(build(default=2))
        )
        assert (
            class_code(build())
            != class_code(build(converter=int))
            != class_code(build(converter=float))
        )
        assert class_code(build()(5)) == class_code(build()(5)) != class_code(build(default=1)(5))

    def test_named_tuples(self) -> None:
        def build(names: str, **options: Any) -> Any:
            return collections.namedtuple("Local", names, **options)

        assert class_code(build("x y")) == class_code(build("x y")) != class_code(build("y x"))
        assert class_code(build("x")(1)) != class_code(build("y")(1))
        assert class_code(build("x")) != class_code(build("x", defaults=[1]))

    def test_annotations(self) -> None:
        """Annotations count by what they say, not by where their objects lie in memory."""

        def build(kind: Any) -> Any:
            return type("Local", (), {"__annotations__": {"x": kind}})

        assert class_code(build(object())) == class_code(build(object()))
        assert class_code(build(int)) == class_code(build(int)) != class_code(build(float))
        assert class_code(build("int")) != class_code(build("float"))

    def test_members(self) -> None:
        """Properties, static methods and class methods count."""

        def build(kind: Any, n: int) -> Any:
            return type("Local", (), {"f": kind(lambda *_: n)})

        for kind in (property, staticmethod, classmethod, functools.cached_property):
            assert (
                class_code(build(kind, 1))
                == class_code(build(kind, 1))
                != class_code(build(kind, 2))
            )
        assert class_code(build(staticmethod, 1)) != class_code(build(classmethod, 1))

    def test_bases(self) -> None:
        def build(*bases: Any, **options: Any) -> Any:
            return types.new_class("Local", bases, options)

        assert class_code(build(int)) != class_code(build(float))
        assert class_code(build(build())) == class_code(build(build()))
        assert class_code(build()) != class_code(build(metaclass=abc.ABCMeta))

    def test_cached_properties(self) -> None:
        """The lock of a cached property is no part of a class; a lock in its body is."""

        class Fine:
            @functools.cached_property
            def area(self) -> int:
                return 1

        class Locked:
            lock = threading.Lock()

        assert class_code(Fine()) == class_code(Fine())
        with pytest.raises(Indigestible, match=r"code<class .*Locked>\.lock: "):
            class_code(Locked())

    def test_names_in_main(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is nothing but a name has no digest where names identify nothing."""
        number = typing.NewType("number", int)
        number.__module__ = "__main__"
        monkeypatch.setattr(sys.modules["__main__"], "number", number, raising=False)
        with pytest.raises(Indigestible, match="does not lead to it from everywhere"):
            digest(number)

    def test_public_names(self) -> None:
        """A class that moves to a private module between versions keeps its digest."""
        module = types.ModuleType("made_public")
        hidden = types.ModuleType("made_public._hidden")
        cls = type("A", (), {"__module__": "made_public._hidden"})
        module.A = hidden.A = cls  # type: ignore[attr-defined]
        sys.modules.update({"made_public": module, "made_public._hidden": hidden})
        try:
            found = digest(cls)
            cls.__module__ = "made_public"
            assert digest(cls) == found
        finally:
            del sys.modules["made_public"], sys.modules["made_public._hidden"]


SCRIPT = """
import dataclasses, enum, sys, typing
from fleche.digest import code_digest, digest
@dataclasses.dataclass
class Config:
    x: int = {x}
    y: list = dataclasses.field(default_factory=list)
    def area(self):
        return self.x * {factor}
class Colour(enum.Enum):
    RED = {x}
    def shade(self):
        return {factor}
class Point(typing.NamedTuple):
    x: int
    y: int = {x}
@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: int
class Plain:
    __slots__ = ("a",)
class Shape(typing.Protocol):
    def area(self): ...
class Child(Config):
    def __init__(self):
        super().__init__(1)
def function(a):
    return a * {factor}
values = [Config(1), Config, Colour.RED, Colour, Point(1, 2), Point]
values += [Child(), function, Config(1).area]
values += [Frozen(1), Frozen, Plain(), Plain, Shape]
def whole(value):
    cls = value if isinstance(value, type) else type(value)
    own = cls.__module__ == "__main__"
    return f"{{code_digest(cls) if own else ''}}{{digest(value)}}"
print("\\n".join(map(whole, values)))
"""


def test_pickling_leaves_no_trace() -> None:
    """What copyreg notes in a class is no part of it."""

    class Local:
        __slots__ = ("a",)

    before = code_digest(Local)
    Local().__reduce_ex__(4)
    assert code_digest(Local) == before


class TestMain:
    """Names in `__main__` identify nothing, so definitions count."""

    def run(self, path: Path, python: str = sys.executable, **values: int) -> list[str]:
        path.write_text(SCRIPT.format(**values))
        environment = {"PYTHONPATH": str(ROOT)}
        return subprocess.check_output([python, str(path)], text=True, env=environment).split()

    @pytest.mark.parametrize("version", PYTHON_VERSIONS)
    def test_versions(self, tmp_path: Path, version: str, pythons: Pythons) -> None:
        """What `__main__` defines has the same digests under all versions of Python."""
        here = self.run(tmp_path / "a.py", x=1, factor=2)
        assert here == self.run(tmp_path / "a.py", pythons[version], x=1, factor=2)

    def test_without_source(self) -> None:
        """Methods count where there is no file, as in `python -c`."""
        texts = [SCRIPT.format(x=1, factor=factor) for factor in (2, 2, 3)]
        environment = {"PYTHONPATH": str(ROOT)}
        first, again, other = (
            subprocess.check_output(
                [sys.executable, "-c", text], text=True, env=environment
            ).split()
            for text in texts
        )
        assert first == again
        assert [one == two for one, two in zip(first, other, strict=True)] == [
            *(False, False, False, False, True, True, False, False, False),
            *(True, True, True, True, True),
        ]

    def test_scripts(self, tmp_path: Path) -> None:
        first = self.run(tmp_path / "a.py", x=1, factor=2)
        assert first == self.run(tmp_path / "b.py", x=1, factor=2)
        assert len(set(first)) == len(first)
        other = self.run(tmp_path / "a.py", x=1, factor=3)
        assert [one == two for one, two in zip(first, other, strict=True)] == [
            *(False, False),  # a method of the dataclass differs
            *(False, False),  # a method of the enumeration differs
            *(True, True),
            *(False, False, False),
            *(True, True, True, True, True),
        ]
        third = self.run(tmp_path / "a.py", x=5, factor=2)
        assert not any(one == two for one, two in zip(first[:7], third[:7], strict=True))
