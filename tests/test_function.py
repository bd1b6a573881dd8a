"""What a callable is: names, signatures, markers, canonical arguments and back."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import pickle
import sys
import textwrap
import typing
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fleche.function
from fleche.digest import digest
from fleche.function import FunctionInfo, Ignored, Unordered, inspect_function

if TYPE_CHECKING:
    from nowhere import Ignored as Skipped
    from nowhere import Missing


def unordered(a: Unordered[dict[str, int]]) -> None: ...


def plain(a: int, b: int = 2) -> int:
    return a + b


def everything(a, /, b, c=3, *args, d, e=5, **kwargs):
    return (a, b, c, args, d, e, kwargs)


def loud(x: int, *, verbose: Ignored[bool] = False, log: Ignored[Any] = None) -> int:
    return x


class Thing:
    def __init__(self, n: int = 1) -> None:
        self.n = n

    def method(self, x: int) -> int:
        return self.n + x

    @classmethod
    def make(cls, x: int) -> Any:
        return cls(x)

    @staticmethod
    def static(x: int) -> int:
        return x

    def __call__(self, y: int) -> int:
        return y


class Derived(Thing):
    def loud(self, x: int, log: Ignored[Any] = iter([])) -> None: ...  # noqa: B008


def bind(function: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return inspect_function(function).bind(args, kwargs)


class TestBind:
    """One call has one form."""

    def test_spellings(self) -> None:
        """Position, keyword and default make no difference."""
        expected = {"a": 1, "b": 2}
        assert bind(plain, 1) == bind(plain, 1, 2) == bind(plain, 1, b=2) == expected
        assert bind(plain, b=2, a=1) == expected

    def test_order(self) -> None:
        """Arguments come in the order of the signature."""
        assert list(bind(plain, b=2, a=1)) == ["a", "b"]
        found = bind(everything, 1, d=4, b=2, z=1, y=2)
        assert list(found) == ["a", "b", "c", "args", "d", "e", "kwargs"]

    def test_variable_arguments(self) -> None:
        """`*args` is a tuple and `**kwargs` a dict as passed, each under its own name."""
        found = bind(everything, 1, 2, 3, 4, 5, d=6, z=1, y=2)
        assert found["args"] == (4, 5)
        assert list(found["kwargs"].items()) == [("z", 1), ("y", 2)]
        assert bind(everything, 1, 2, d=0)["args"] == ()
        assert bind(everything, 1, 2, d=0)["kwargs"] == {}

    def test_no_collisions(self) -> None:
        """A keyword may have the name of a positional parameter, or of `**kwargs` itself."""
        found = bind(everything, 1, 2, d=0, a=5, kwargs=6, args=7)
        assert found["a"] == 1
        assert found["kwargs"] == {"a": 5, "args": 7, "kwargs": 6}

    def test_ignored(self) -> None:
        """Ignored parameters are left out, whether passed or not."""
        assert bind(loud, 1, verbose=True, log=print) == bind(loud, 1) == {"x": 1}

    def test_ignored_is_the_parameter(self) -> None:
        """A keyword of the same name that goes into `**kwargs` is another thing."""
        info = inspect_function(everything, ignore=("a", "args"))
        found = info.bind((1, 2), {"d": 0, "a": 5, "args": 6})
        assert "a" not in found
        assert found["kwargs"] == {"a": 5, "args": 6}

    def test_methods(self) -> None:
        """`self` is an argument."""
        thing = Thing()
        assert bind(Thing.method, thing, 1) == {"self": thing, "x": 1}
        assert bind(thing.method, 1) == {"x": 1}

    @pytest.mark.parametrize(
        ("args", "kwargs", "message"),
        [
            ((), {}, r"plain\(\) missing a required argument: 'a'"),
            ((1, 2, 3), {}, r"plain\(\) too many positional arguments"),
            ((1,), {"a": 1}, r"plain\(\) multiple values for argument 'a'"),
            ((1,), {"z": 1}, r"plain\(\) got an unexpected keyword argument 'z'"),
        ],
    )
    def test_errors(self, args: Any, kwargs: Any, message: str) -> None:
        """What cannot be called cannot be bound."""
        with pytest.raises(TypeError, match=message):
            inspect_function(plain).bind(args, kwargs)

    def test_mutable_defaults(self) -> None:
        """Defaults are those of the signature, as a call would see them."""

        def f(x: list[int] = []) -> None: ...  # noqa: B006

        assert bind(f)["x"] is f.__defaults__[0]  # type: ignore[index]


class TestUnbind:
    """From stored arguments back to the call."""

    @given(
        st.lists(st.integers(), min_size=2, max_size=6),
        st.dictionaries(st.sampled_from(["e", "x", "y", "a", "kwargs"]), st.integers()),
    )
    def test_round_trip(self, args: list[int], extra: dict[str, int]) -> None:
        info = inspect_function(everything)
        arguments = info.bind(tuple(args), {"d": 0, **extra})
        again, keywords = info.unbind(arguments)
        assert everything(*again, **keywords) == everything(*args, d=0, **extra)
        assert info.bind(again, keywords) == arguments

    @pytest.mark.parametrize(
        "function",
        [
            lambda: 0,
            lambda a: a,
            lambda a, /: a,
            lambda a=1, /, b=2: (a, b),
            lambda *, a: a,
            lambda *a: a,
            lambda **a: a,
            lambda a, *b: (a, b),
        ],
    )
    def test_shapes(self, function: Any) -> None:
        info = inspect_function(function)
        needed = [
            name
            for name, parameter in info.signature.parameters.items()
            if parameter.kind.name.startswith("POSITIONAL")
        ]
        keywords = {
            name: 7
            for name, p in info.signature.parameters.items()
            if p.kind.name == "KEYWORD_ONLY"
        }
        args = tuple(range(len(needed)))
        again, kwargs = info.unbind(info.bind(args, keywords))
        assert function(*again, **kwargs) == function(*args, **keywords)

    def test_ignored_fall_back(self) -> None:
        """An ignored parameter takes its default, also in front of one that goes by position."""

        def f(x: int, log: Ignored[Any] = "default", *rest: int, tag: Ignored[str] = "t") -> Any:
            return x, log, rest, tag

        info = inspect_function(f)
        args, kwargs = info.unbind(info.bind((1, "given", 2), {"tag": "u"}))
        assert f(*args, **kwargs) == (1, "default", (2,), "t")

        def g(log: Any = "default", /, x: int = 1) -> Any:
            return log, x

        info = inspect_function(g, ignore="log")
        args, kwargs = info.unbind(info.bind(("given", 2), {}))
        assert g(*args, **kwargs) == ("default", 2)

        def h(log: Any = "default", x: int = 1, /) -> Any:
            return log, x

        info = inspect_function(h, ignore="log")
        args, kwargs = info.unbind(info.bind(("given", 2), {}))
        assert h(*args, **kwargs) == ("default", 2)

    def test_ignored_without_default(self) -> None:
        def f(log: Ignored[Any], x: int) -> None: ...

        info = inspect_function(f)
        with pytest.raises(TypeError, match="'log' is ignored, so it was not stored"):
            info.unbind(info.bind((print, 1), {}))

    def test_missing(self) -> None:
        with pytest.raises(TypeError, match="'a' is not given and has no default"):
            inspect_function(plain).unbind({})

    def test_unknown(self) -> None:
        with pytest.raises(TypeError, match=r"plain\(\) has no parameter 'z'"):
            inspect_function(plain).unbind({"a": 1, "z": 2})

    def test_ignored_variable_arguments(self) -> None:
        info = inspect_function(everything, ignore=("args", "kwargs"))
        arguments = info.bind((1, 2, 3, 4), {"d": 5, "z": 6})
        assert arguments == {"a": 1, "b": 2, "c": 3, "d": 5, "e": 5}
        args, kwargs = info.unbind(arguments)
        assert everything(*args, **kwargs) == (1, 2, 3, (), 5, 5, {})


class TestMarkers:
    """`Ignored[T]`, `Required[T]` and `Unordered[T]`."""

    def test_types_show_through(self) -> None:
        """To all other readers the annotation is the type itself."""
        assert Ignored[int] == Annotated[int, fleche.function.IGNORED]
        hints = typing.get_type_hints(loud)
        assert hints["verbose"] is bool

    def test_strings(self) -> None:
        """Annotations of this module are strings, by `from __future__ import annotations`."""
        assert inspect_function(loud).ignored == {"verbose", "log"}

    def test_objects(self) -> None:
        def f(a, b, c, d, e): ...

        f.__annotations__ = {
            "a": Ignored[int],
            "b": Optional[Ignored[int]],  # noqa: UP045 - another type than a | b
            "c": Annotated[Ignored[int], "metres"],
            "d": fleche.function.Required[int],
            "e": Annotated[int, "metres"],
        }
        info = inspect_function(f)
        assert info.ignored == {"a", "b", "c"}
        assert info.required == {"d"}

    def test_unordered(self) -> None:
        """`Unordered[T]` is exported beside the others, and found as they are."""

        def f(a: fleche.Unordered[dict[str, int]], b: Unordered[dict[str, int]] | None = None): ...

        info = inspect_function(f)
        assert info.unordered == {"a", "b"}
        assert pickle.loads(pickle.dumps(inspect_function(unordered))).unordered == {"a"}

    def test_unions(self) -> None:
        def f(a: Ignored[int] | None, b: Ignored[str] | None, c: list[Ignored[int]]) -> None: ...

        assert inspect_function(f).ignored == {"a", "b"}

    def test_names_for_type_checkers_only(self) -> None:
        """A type that cannot be looked up does not hide the marker."""

        def f(
            a: Ignored[Missing],
            b: fleche.function.Ignored[Missing],
            c: Missing,
            d: Missing[Ignored[int]] = 1,
            e: list[Missing] = 2,
        ) -> None: ...

        assert inspect_function(f).ignored >= {"a", "b"}
        assert not inspect_function(f).ignored & {"c", "e"}

    def test_markers_for_type_checkers_only(self) -> None:
        """A marker that cannot be looked up is taken at its word; anything else is not."""

        def f(a: Unheard.Ignored[int], b: Skipped[int], c: Ignored_[int]) -> None: ...  # noqa: F821

        assert inspect_function(f).ignored == {"a"}

    def test_other_things_of_that_name(self) -> None:
        """What is called `Ignored` here, but is something else, is no marker."""

        def outer() -> Any:
            Ignored = list

            def f(a: Ignored[int]) -> Any:  # type: ignore[valid-type]
                return Ignored

            return f

        assert inspect_function(outer()).ignored == set()

    def test_local_names(self) -> None:
        def outer() -> Any:
            Quiet = Ignored[int]

            def f(a: Quiet) -> Any:
                return Quiet

            return f

        assert inspect_function(outer()).ignored == {"a"}

    def test_no_import_from_the_future(self) -> None:
        """From Python 3.14 on, names for type checkers only need none; nor does what is to come."""
        text = """
            def f(
                a: fleche.Ignored[Missing],
                b: Missing | None,
                c: Unheard.Ignored[int] = 1,
                *,
                d: list[Missing] = (),
            ) -> Missing.Kind: ...
        """
        head = "" if sys.version_info >= (3, 14) else "from __future__ import annotations\n"
        namespace: dict[str, Any] = {"fleche": fleche, "__name__": __name__}
        exec(head + textwrap.dedent(text), namespace)
        f = namespace["f"]
        assert inspect_function(f).ignored == {"a", "c"}
        assert inspect_function(functools.partial(f, 1)).ignored == {"c"}
        decorated = fleche.fleche(f)
        assert "Missing" in decorated._repr_html_()
        assert {"a", "b", "c", "d", "return"} == set(decorated.__annotations__)
        assert list(inspect.signature(decorated).parameters) == ["a", "b", "c", "d"]

    def test_broken_annotations(self) -> None:
        def f(a, b): ...

        f.__annotations__ = {"a": "1 +", "b": "1 / 0"}
        assert inspect_function(f).ignored == set()

    def test_through_wrappers(self) -> None:
        @functools.wraps(loud)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return loud(*args, **kwargs)

        info = inspect_function(wrapper)
        assert info.ignored == {"verbose", "log"}
        assert info.bind((1,), {}) == {"x": 1}


class TestNames:
    """`ignore=` and `require=`."""

    def test_strings_and_lists(self) -> None:
        assert inspect_function(plain, ignore="b").ignored == {"b"}
        assert inspect_function(plain, ignore=["a", "b"]).ignored == {"a", "b"}
        assert inspect_function(plain, require=("a",)).required == {"a"}

    def test_add_to_markers(self) -> None:
        assert inspect_function(loud, ignore="x").ignored == {"x", "verbose", "log"}

    @pytest.mark.parametrize("option", ["ignore", "require"])
    def test_unknown(self, option: Any) -> None:
        with pytest.raises(
            ValueError, match=rf"{option}='z': plain\(\) has no such parameter; there are: a, b"
        ):
            inspect_function(plain, **{option: "z"})

    def test_both(self) -> None:
        with pytest.raises(ValueError, match="'a' is both ignored and required"):
            inspect_function(plain, ignore="a", require="a")

    def test_keywords(self) -> None:
        """Names that go into `**kwargs` may be ignored and required too."""
        info = inspect_function(everything, ignore="quiet", require="seed")
        arguments = info.bind((1, 2), {"d": 3, "quiet": True, "z": 1})
        assert arguments["kwargs"] == {"z": 1}


class TestRequired:
    """A call is cached only if its required parameters are given."""

    def missing(self, info: FunctionInfo, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        return info.missing_required(info.bind(args, kwargs), info.explicit(args, kwargs))

    def test_given(self) -> None:
        info = inspect_function(plain, require="b")
        assert self.missing(info, 1) == ("b",)
        assert self.missing(info, 1, 2) == ()
        assert self.missing(info, 1, b=5) == ()

    def test_none_is_not_given(self) -> None:
        info = inspect_function(plain, require=("a", "b"))
        assert self.missing(info, None) == ("a", "b")
        assert self.missing(info, 0, 0) == ()

    def test_keywords(self) -> None:
        info = inspect_function(everything, require="seed")
        assert self.missing(info, 1, 2, d=3) == ("seed",)
        assert self.missing(info, 1, 2, d=3, seed=None) == ("seed",)
        assert self.missing(info, 1, 2, d=3, seed=4) == ()

    def test_nothing_required(self) -> None:
        assert self.missing(inspect_function(plain), 1) == ()

    def test_explicit(self) -> None:
        assert inspect_function(plain).explicit((1,), {}) == {"a"}
        found = inspect_function(everything).explicit((1, 2), {"d": 3, "z": 4})
        assert found == {"a", "b", "d", "z", "kwargs"}


async def coroutine() -> None: ...


def generator() -> Any:
    yield


async def async_generator() -> Any:
    yield


class Calls:
    """Objects whose call is a coroutine or a generator."""

    class Coroutine:
        async def __call__(self) -> None: ...

    class Generator:
        def __call__(self) -> Any:
            yield

    class AsyncGenerator:
        async def __call__(self) -> Any:
            yield


def times(n: int) -> Any:
    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return n * function(*args)

        return wrapper

    return decorate


def renamed(n: int) -> Any:
    def scale(x: int) -> int:
        return n * x

    scale.__qualname__ = "scale"
    return scale


def labelled(x: int) -> int:
    return x


labelled.__wrapped__ = plain  # type: ignore[attr-defined]


class TestFacts:
    """Name, module, kind and code."""

    def test_names(self) -> None:
        info = inspect_function(Thing.method)
        assert (info.name, info.module) == ("Thing.method", __name__)
        assert not info.is_main

    @pytest.mark.parametrize(
        ("function", "facts"),
        [
            (plain, (False, False, False)),
            (coroutine, (True, False, False)),
            (generator, (False, True, False)),
            (async_generator, (False, True, True)),
            (functools.partial(coroutine), (True, False, False)),
            (functools.partial(generator), (False, True, False)),
            (Thing().method, (False, False, False)),
            (Thing(), (False, False, False)),
            (Calls.Coroutine(), (True, False, False)),
            (Calls.Generator(), (False, True, False)),
            (functools.partial(Calls.AsyncGenerator()), (False, True, True)),
            (Calls.Generator, (False, False, False)),
        ],
    )
    def test_kinds(self, function: Any, facts: tuple[bool, ...]) -> None:
        info = inspect_function(function)
        assert (info.is_coroutine, info.is_generator, info.is_async_generator) == facts

    @pytest.mark.parametrize(
        ("function", "name"),
        [
            (Thing, "Thing"),
            (Thing(), "Thing"),
            (Thing.make, "Thing.make"),
            (Thing().method, "Thing.method"),
            (functools.partial(functools.partial(plain, 1)), "plain"),
            (math.sin, "sin"),
        ],
    )
    def test_other_callables(self, function: Any, name: str) -> None:
        info = inspect_function(function)
        assert info.name == name
        assert info.module in (__name__, "math")

    def test_main(self) -> None:
        def f() -> None: ...

        f.__module__, f.__qualname__ = "__main__", "f"
        info = inspect_function(f)
        assert info.is_main

    def test_pickle(self) -> None:
        info = pickle.loads(pickle.dumps(inspect_function(loud, ignore="x")))
        assert info.bind((1,), {}) == {}
        assert info.function is loud
        assert copy.copy(info).name == "loud"

    def test_frozen(self) -> None:
        with pytest.raises(AttributeError):
            inspect_function(plain).name = "other"  # type: ignore[misc]

    def test_not_callable(self) -> None:
        with pytest.raises(TypeError, match="5 is not callable"):
            inspect_function(5)  # type: ignore[arg-type]

    def test_without_signature(self) -> None:
        with pytest.raises(TypeError, match="does not say which parameters"):
            inspect_function(range)

    def test_same_key_for_all_spellings(self) -> None:
        """The reason for all this."""
        info = inspect_function(plain)
        assert digest(info.bind((1,), {})) == digest(info.bind((), {"b": 2, "a": 1}))
        assert inspect.signature(plain) == info.signature


def test_what_other_processes_know_is_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two functions that do the same, each keeps its own name where there is no source."""
    from fleche.function import _code

    spaces: list[dict[str, Any]] = [{"__name__": "told"}, {"__name__": "told"}]
    for space in spaces:
        exec("def f(x): return x\ndef g(x): return x", space)
    code = spaces[0]["f"].__code__
    known = _code.KnownCode("token", "f", "", "", _code.Facts(), "def f(x): return x")
    monkeypatch.setattr(_code, "known", {id(code): (code, known, "told")})
    monkeypatch.setattr(_code, "foreign", {})
    _code.take_knowledge(_code.pack_knowledge("told"))
    found = [_code.code_of(spaces[1][name]).qualname for name in "fg"]
    assert found == ["f", "g"]
    assert _code.code_of(spaces[1]["f"]) is known
