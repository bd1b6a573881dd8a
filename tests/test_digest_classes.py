"""Classes whose name identifies nothing: what they are made of, and what was derived from that."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import functools
import reprlib
import subprocess
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from fleche.digest import code_digest, digest
from tests.golden import functions
from tests.helpers.pythons import PYTHON_VERSIONS, Pythons

ROOT = Path(__file__).parents[1]
T = typing.TypeVar("T")


def class_code(obj: Any) -> Any:
    """The code digest of a class; that of the class of an object with the digest of the object."""
    return code_digest(obj) if isinstance(obj, type) else (code_digest(type(obj)), digest(obj))


def differ(build: Callable[[Any], Any], one: Any = 1, other: Any = 2) -> None:
    """Check that the code of a class is what it is built from."""
    assert class_code(build(one)) == class_code(build(one)) != class_code(build(other))


class TestEnumerations:
    """Everything that a body says counts, and nothing of what the machinery makes of it."""

    @pytest.mark.parametrize(
        "name",
        [
            "__call__",
            "__init__",
            "__str__",
            "__len__",
            "_helper",
            "_missing_",
            "_private",
            "public",
        ],
    )
    def test_functions(self, name: str) -> None:
        def build(n: int) -> Any:
            def function(*_: Any) -> Any:
                return None if name == "__init__" else n

            body = classmethod(function) if name == "_missing_" else function
            space = enum.EnumMeta.__prepare__("Local", (enum.Enum,))
            space["A"], space[name] = 1, body
            return enum.EnumMeta("Local", (enum.Enum,), space)

        differ(build)
        differ(lambda n: build(n).A)

    def test_new(self) -> None:
        """What `__new__` does counts, and what it leaves on the members."""

        def build(n: int, factor: int = 1) -> Any:
            class Local(enum.Enum):
                def __new__(cls, value: int, weight: int) -> Any:
                    member = object.__new__(cls)
                    member._value_ = value
                    member.weight = factor * weight  # type: ignore[attr-defined]
                    return member

                A = 1, n

            return Local

        differ(build)
        differ(lambda n: build(0, n))

    def test_mixed_in_data(self) -> None:
        """A member that is a number, too, may be another number than its value."""

        def build(n: int) -> Any:
            class Local(int, enum.Enum):
                def __new__(cls, value: str, number: int) -> Any:
                    member = int.__new__(cls, number)
                    member._value_ = value
                    return member

                A = "a", n

            return Local

        assert build(5).A + 1 == 6
        differ(build)

    def test_constants(self) -> None:
        """What is no member counts as well."""

        def build(n: int) -> Any:
            class Local(enum.Enum):
                A = 1

            Local.limit = n  # type: ignore[attr-defined]
            return Local

        differ(build)

    def test_order(self) -> None:
        """Members are iterated over in the order of their definition."""

        def build(names: str) -> Any:
            return enum.Enum("Local", {name: ord(name) for name in names})

        differ(build, "ab", "ba")

    def test_inherited(self) -> None:
        def build(n: int) -> Any:
            class Base(enum.Enum):
                def area(self) -> int:
                    return n

            class Local(Base):
                A = 1

            return Local

        differ(build)

    def test_text(self) -> None:
        """To take the text of the mixed-in type is a choice."""

        class Plain(str, enum.Enum):
            A = "a"

        class Own(str, enum.Enum):
            A = "a"
            __str__ = str.__str__

        Plain.__qualname__ = Own.__qualname__ = Own.__name__ = "Local"
        Plain.__name__ = "Local"
        assert class_code(Plain) != class_code(Own)

    def test_using_leaves_no_trace(self) -> None:
        class Local(enum.Flag):
            A = 1
            B = 2

        before = class_code(Local), class_code(Local.A)
        assert [~Local.A, Local.A | Local.B, Local(3), Local(0), list(Local), str(Local.A)]
        assert (class_code(Local), class_code(Local.A)) == before


class TestFields:
    """Options of fields count, those that other packages read among them."""

    @pytest.mark.parametrize("option", ["metadata", "default", "repr", "compare", "kw_only"])
    def test_dataclasses(self, option: str) -> None:
        values = {"metadata": ({"unit": "eV"}, {"unit": "K"}), "default": (1, 2)}
        one, other = values.get(option, (True, False))

        def build(value: Any) -> Any:
            options = {"default": 0, option: value}
            return dataclasses.make_dataclass("Local", [("a", int, dataclasses.field(**options))])

        differ(build, one, other)
        differ(lambda value: build(value)(a=1), one, other)

    @pytest.mark.parametrize(
        ("option", "one", "other"),
        [
            ("metadata", {"unit": "eV"}, {"unit": "K"}),
            ("alias", "x", "y"),
            ("repr", True, False),
            ("type", int, float),
            ("on_setattr", attrs.setters.validate, attrs.setters.convert),
            ("order", int, str),
        ],
    )
    def test_attrs(self, option: str, one: Any, other: Any) -> None:
        def build(value: Any) -> Any:
            options = {"order": True} if option == "order" else {}
            return attrs.make_class("Local", {"a": attrs.field(**{option: value})}, **options)

        differ(build, one, other)

    @pytest.mark.parametrize("option", ["eq", "repr", "frozen"])
    def test_options_of_attrs(self, option: str) -> None:
        """What attrs was asked to make counts, too."""
        differ(lambda value: attrs.make_class("Local", ["a"], **{option: value}), True, False)

    def test_order(self) -> None:
        """The order of fields is that of arguments and of rows."""

        def build(names: str) -> Any:
            return dataclasses.make_dataclass("Local", [(name, int) for name in names])

        differ(build, "ab", "ba")
        differ(lambda names: build(names)(**dict.fromkeys("ab", 1)), "ab", "ba")
        differ(lambda names: attrs.make_class("Local", list(names)), "ab", "ba")

    def test_match_arguments(self) -> None:
        differ(lambda names: type("Local", (), {"__match_args__": names}), ("a", "b"), ("b", "a"))


class TestBases:
    """Bases count as they were written."""

    def test_parameters(self) -> None:
        def build(kind: Any) -> Any:
            class Base(typing.Generic[T]):
                pass

            class Local(Base[kind]):
                pass

            return Local

        differ(build, int, str)
        differ(build, list[int], list[str])

    def test_type_variables(self) -> None:
        """A variable without a name that leads to it counts by what it says."""
        differ(typing.TypeVar, "U", "V")
        differ(lambda kind: typing.TypeVar("U", bound=kind), int, float)
        differ(lambda kind: typing.TypeVar("U", kind, str), int, float)
        differ(lambda flag: typing.TypeVar("U", covariant=flag), True, False)
        assert class_code(T) != class_code(typing.TypeVar("T"))


@pytest.mark.parametrize("options", [{"default": 3}, {"default_factory": list}])
def test_private_fields_of_pydantic(options: dict[str, Any]) -> None:
    """What pydantic finds out of one when the first object is made does not count."""
    pydantic = pytest.importorskip("pydantic")

    def build(**options: Any) -> Any:
        class Local(pydantic.BaseModel):
            _inner: Any = pydantic.PrivateAttr(**options)

        return Local

    cls = build(**options)
    before = class_code(cls)
    cls()
    assert class_code(cls) == before == class_code(build(**options))
    assert before != class_code(build(default=4)) != class_code(build(default_factory=dict))


class Drawn(typing.Protocol):
    def draw(self) -> int: ...


class Sized(Drawn, typing.Protocol):
    pass


class Started:
    def __init__(self) -> None:
        self.size = 1


@pytest.mark.parametrize("bases", [(Drawn,), (Sized,), (Drawn, Started), (Drawn, Exception)])
def test_the_first_object_of_a_protocol(bases: tuple[type, ...]) -> None:
    """Typing writes into the class when the first object is made, and that does not count."""

    class Local(*bases):  # type: ignore[misc]
        def draw(self) -> int:
            return 1

    before = set(vars(Local))
    found = class_code(Local)
    Local()
    assert set(vars(Local)) - before <= {"__init__"}
    assert class_code(Local) == found


def test_an_init_of_a_protocol_counts() -> None:
    def build(n: int) -> Any:
        class Local(Drawn):
            def __init__(self) -> None:
                self.size = n

        return Local

    differ(build)


@pytest.mark.parametrize("name", ["dataclass", "parameters", "attrs", "enum", "model", "members"])
def test_names_of_members(name: str) -> None:
    """No member of a class stands in the place of what its decorator was told."""

    def build(value: int) -> Any:
        cls = types.new_class("Local", (collections.UserDict[int, int],))
        setattr(cls, name, value)
        return dataclasses.dataclass(cls)

    differ(build)


def test_a_module_that_raises_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``ast`` does of names of before, where a program makes errors of warnings."""
    module: Any = types.ModuleType("raising")

    def refuse(name: str) -> None:
        raise DeprecationWarning(name)

    module.__getattr__ = refuse
    monkeypatch.setitem(sys.modules, "raising", module)
    assert digest(type("Found", (), {"__module__": "raising"}))


class TestMethods:
    """Which functions are derived, and which only look so."""

    def test_recursive_repr(self) -> None:
        """A function in a wrapper of the library is the user's."""

        def build(n: int) -> Any:
            class Local:
                @reprlib.recursive_repr()
                def __repr__(self) -> str:
                    return str(n)

            return Local

        differ(build)

    def test_borrowed(self) -> None:
        """A method that was taken from the library differs from none, and from another."""

        def build(method: Any) -> Any:
            return type("Local", (), {"update": method} if method else {})

        mapping = collections.abc.MutableMapping
        methods = [None, mapping.update, mapping.pop, collections.Counter.update]
        assert len({class_code(build(method)) for method in methods}) == len(methods)

    def test_total_ordering(self) -> None:
        def build(total: bool) -> Any:
            class Local:
                def __lt__(self, other: Any) -> bool:
                    return True

                def __eq__(self, other: object) -> bool:
                    return True

                __hash__ = None  # type: ignore[assignment]

            return functools.total_ordering(Local) if total else Local

        differ(build, True, False)


class TestGenericFunctions:
    """Functions with implementations by type are all of these, and not what they have noted."""

    @staticmethod
    def build(second: Callable[[Any], Any]) -> Any:
        @functools.singledispatch
        def function(x: Any) -> Any:
            return x

        function.register(str, second)
        return function

    def test_code(self) -> None:
        build = self.build
        assert code_digest(build(functions.walrus)) == code_digest(build(functions.walrus))
        assert code_digest(build(functions.walrus)) != code_digest(build(functions.starred))

    def test_calling_leaves_no_trace(self) -> None:
        function = self.build(functions.walrus)
        before = class_code(function), code_digest(function)
        assert function(b"") == b""
        assert (class_code(function), code_digest(function)) == before

    def test_methods(self) -> None:
        def build(n: int) -> Any:
            class Local:
                @functools.singledispatchmethod
                def area(self, x: Any) -> Any:
                    return n

                @area.register
                def _(self, x: str) -> Any:
                    return x

            return Local

        assert (local := build(1))().area(5) == 1
        assert class_code(local) == class_code(build(1)) != class_code(build(2))


SCRIPT = """
import dataclasses, enum, functools, reprlib, sys, typing
from fleche.digest import code_digest, digest
T = typing.TypeVar("T")
class Base(enum.Enum):
    def __str__(self):
        return "base"
class Member(Base):
    A = 1
    B = 1
    C = 2
    _ignored = 3
    def __call__(self, x):
        return x
    @classmethod
    def _missing_(cls, value):
        return cls.A
    @staticmethod
    def _generate_next_value_(name, start, count, last):
        return 5
class Made(enum.Enum):
    def __new__(cls, value, weight):
        member = object.__new__(cls)
        member._value_, member.weight = value, weight
        return member
    def __init__(self, *args):
        self.args = args
    A = 1, 5
class Word(str, enum.Enum):
    A = "a"
class Number(int, enum.Enum):
    A = 1
class Count(enum.IntEnum):
    A = enum.auto()
class Access(enum.Flag):
    READ = 1
    WRITE = 2
    BOTH = 3
class Bits(enum.IntFlag):
    READ = 1
    WRITE = 2
class Mixed(str, Base):
    A = "a"
class Keys(typing.TypedDict, total=False):
    a: int
    b: "str"
class Stack(typing.Generic[T]):
    def push(self, x: T) -> None: ...
class Numbers(Stack[int]):
    pass
class Lists(Stack[list[int]]):
    pass
class Shape(typing.Protocol[T]):
    def area(self) -> T: ...
@functools.total_ordering
class Ordered:
    def __eq__(self, other): return True
    def __lt__(self, other): return False
class Shown:
    @reprlib.recursive_repr()
    def __repr__(self): return "shown"
@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    a: int = dataclasses.field(default=1, metadata={"unit": "eV"})
    b: typing.Optional[int] = None
@dataclasses.dataclass(order=True, kw_only=True)
class Other:
    a: int = 1
    b: dataclasses.InitVar[int] = 2
class Generic:
    @functools.singledispatchmethod
    def area(self, x): return x
    @area.register
    def _(self, x: str): return 1
@functools.singledispatch
def function(x): return x
@function.register
def _(x: int): return 2
class Amount(float):
    unit: "eV"
values = [Member, Member.A, Made, Made.A, Word, Number, Count, Access, Access.READ, Bits, Mixed]
values += [Keys, Stack, Numbers, Lists, Shape, Ordered, Shown, Config, Config(2)]
values += [Other, Other(), Generic]
values += [function, Amount(1), typing.Optional[int], typing.List[int | str], type(None)]
def whole(value):
    cls = value if isinstance(value, type) else type(value)
    own = cls.__module__ == "__main__"
    return f"{code_digest(cls) if own else ''}{digest(value)}"
print("\\n".join(map(whole, values)))
"""


class TestMain:
    """What `__main__` defines has one digest everywhere."""

    @staticmethod
    def run(path: Path, python: str, seed: str = "0") -> list[str]:
        path.write_text(SCRIPT)
        environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [python, str(path)], check=False, text=True, env=environment, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    @pytest.mark.parametrize("version", PYTHON_VERSIONS)
    def test_versions(self, tmp_path: Path, version: str, pythons: Pythons) -> None:
        here = self.run(tmp_path / "a.py", sys.executable)
        assert len(set(here)) == len(here)
        assert self.run(tmp_path / "a.py", pythons[version], "7") == here
