"""Wrappers: what they accept and what their defaults are, whatever the function inside says."""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fleche.function import Ignored, Required, Transparent, inspect_function


def solve(x: int, tol: float = 1e-6) -> tuple[int, float]:
    return x, tol


def quiet(x: int, log: Ignored[Any] = None, seed: Required[int | None] = None) -> int:
    return x


def passing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate with a wrapper that takes whatever it gets."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def loosened(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate with a wrapper that has a default of its own."""

    @functools.wraps(function)
    def wrapper(x: Any, tol: float = 1e-3) -> Any:
        return function(x, tol)

    return wrapper


def scaled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate with a wrapper that takes one more keyword."""

    @functools.wraps(function)
    def wrapper(*args: Any, scale: int = 1, **kwargs: Any) -> Any:
        return scale * function(*args, **kwargs)

    return wrapper


def for_methods(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    return wrapper


class Counted:
    """A decorator that is a class, with a parameter of its own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    def __call__(self, x: int, tol: float = 1e-3) -> Any:
        return self.function(x, tol)


class Passing(Transparent):
    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]


class Body:
    @for_methods
    def weight(self, gravity: float, log: Ignored[Any] = None) -> float:
        return gravity

    @passing
    def __call__(self, x: int, tol: float = 1e-6) -> int:
        return x


def bind(function: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return inspect_function(function).bind(args, kwargs)


class TestOwnParameters:
    """A wrapper with parameters of its own is called by these."""

    def test_defaults(self) -> None:
        """What is not passed has the default of the function that is called."""
        assert bind(loosened(solve), 1) == {"x": 1, "tol": 1e-3}
        assert bind(loosened(solve), 1) != bind(loosened(solve), 1, tol=1e-6)
        assert bind(Counted(solve), 1) == {"x": 1, "tol": 1e-3}

    def test_an_injected_argument(self) -> None:
        """What the wrapper adds is no argument of the call."""

        @functools.wraps(solve)
        def injecting(x: int) -> Any:
            return solve(x, 0.5)

        assert bind(injecting, 1) == bind(injecting, x=1) == {"x": 1}
        with pytest.raises(TypeError, match=r"solve\(\) too many positional arguments"):
            bind(injecting, 1, 2)

    def test_an_added_keyword(self) -> None:
        assert bind(scaled(solve), 2, scale=4) == {"args": (2,), "scale": 4, "kwargs": {}}

    def test_a_pretended_signature(self) -> None:
        """A `__signature__` that was copied from the function inside tells nothing."""
        solve_too = functools.partial(solve)
        inner: Any = passing(solve_too)
        inner.__signature__ = inspect.signature(solve)
        assert bind(loosened(inner), 1) == {"x": 1, "tol": 1e-3}

    def test_compiled_functions(self) -> None:
        """A compiler's functions are not those of Python, and say the same of themselves."""

        class Compiled:
            __code__ = property(lambda self: self.function.__code__)
            __wrapped__ = staticmethod(solve)

            def __init__(self, function: Any) -> None:
                self.function = function
                self.__signature__ = inspect.signature(function, follow_wrapped=False)

            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                return self.function(*args, **kwargs)

        assert bind(Compiled(loosened(solve)), 1) == {"x": 1, "tol": 1e-3}

    def test_around_a_function_without_a_signature(self) -> None:
        assert bind(passing(range), 1) == {"args": (1,), "kwargs": {}}


class TestPassedOn:
    """A wrapper that takes anything: the function inside gives the arguments their names."""

    def test_names(self) -> None:
        """Position and keyword make no difference."""
        wrapper = passing(solve)
        assert bind(wrapper, 1, 2.0) == bind(wrapper, 1, tol=2.0) == {"x": 1, "tol": 2.0}

    def test_defaults_are_not_known(self) -> None:
        """The wrapper may pass something else than the default of the function inside."""
        assert bind(passing(solve), 1) == {"x": 1}
        assert bind(passing(loosened(solve)), 1) == {"x": 1}

    def test_methods(self) -> None:
        """The wrapper may name the first parameters, as decorators of methods do."""
        body = Body()
        assert bind(Body.weight, body, 9.8) == {"self": body, "gravity": 9.8}
        assert bind(body.weight, gravity=9.8, log=print) == {"gravity": 9.8}

    def test_other_names_in_front(self) -> None:
        @functools.wraps(solve)
        def shifted(first: Any, *args: Any, **kwargs: Any) -> Any:
            return solve(*args, **kwargs)

        assert bind(shifted, "log", 1) == {"first": "log", "args": (1,), "kwargs": {}}

    def test_default_in_front(self) -> None:
        @functools.wraps(solve)
        def wrapper(x: int = 5, *args: Any, **kwargs: Any) -> Any:
            return solve(x, *args, **kwargs)

        assert bind(wrapper) == {"x": 5, "args": (), "kwargs": {}}

    def test_what_does_not_fit(self) -> None:
        """It is an error here, and the wrapper may take it all the same; the facts tell."""
        info = inspect_function(passing(solve))
        assert info.borrowed
        with pytest.raises(TypeError, match="unexpected keyword argument 'scale'"):
            info.bind((1,), {"scale": 2})
        assert not inspect_function(solve).borrowed
        assert not inspect_function(loosened(solve)).borrowed

    def test_wrappers_in_wrappers(self) -> None:
        assert bind(passing(passing(solve)), 1, 2.0) == {"x": 1, "tol": 2.0}
        assert bind(passing(scaled(solve)), 1, scale=2)["scale"] == 2

    def test_partials_and_methods(self) -> None:
        """What a partial passes is known, unlike the defaults behind it."""
        assert bind(functools.partial(passing(solve), 1)) == {}
        assert bind(functools.partial(passing(solve), tol=2.0), 1) == {"x": 1, "tol": 2.0}
        assert bind(functools.partial(loosened(solve), 1)) == {"tol": 1e-3}

    def test_a_partial_that_only_the_wrapper_takes(self) -> None:
        found = bind(functools.partial(passing(solve), scale=2), 1)
        assert found == {"args": (1,), "kwargs": {}}

    def test_call_methods(self) -> None:
        """A wrapper may also be the ``__call__`` of an object."""
        assert bind(Body(), 1) == {"x": 1}

    def test_defaults_that_cannot_be_compared(self) -> None:
        def grid(x: Any = np.zeros(3)) -> Any:  # noqa: B008
            return x

        assert bind(passing(grid)) == {}

    def test_loop(self) -> None:
        """A function that claims to be wrapped in itself is refused, not followed for ever."""

        def f(*args: Any, **kwargs: Any) -> None: ...

        f.__wrapped__ = f  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="does not say which parameters"):
            inspect_function(f)


class TestTransparent:
    """What is known to pass its arguments on has the defaults of what it wraps."""

    @pytest.mark.parametrize("wrap", [functools.lru_cache, Passing])
    def test_defaults(self, wrap: Any) -> None:
        assert bind(wrap(solve), 1) == {"x": 1, "tol": 1e-6}
        assert bind(wrap(loosened(solve)), 1) == {"x": 1, "tol": 1e-3}
        assert bind(wrap(passing(solve)), 1) == {"x": 1}


class TestMarkers:
    def test_are_found_inside(self) -> None:
        """``log`` as a keyword means the parameter of the function inside."""
        info = inspect_function(scaled(quiet))
        assert (info.ignored, info.required) == ({"log"}, {"seed"})
        assert info.bind((1,), {"log": print}) == {"args": (1,), "scale": 1, "kwargs": {}}
        assert info.missing_required(info.bind((1,), {}), info.explicit((1,), {})) == ("seed",)

    def test_of_parameters_that_a_call_cannot_pass(self) -> None:
        """What the wrapper always passes itself is not missing."""

        @functools.wraps(quiet)
        def injecting(x: int) -> Any:
            return quiet(x, seed=1)

        assert inspect_function(injecting).required == set()


class TestBack:
    """Facts of a wrapper travel, and its calls can be made again."""

    @pytest.mark.parametrize("function", [Body.weight, functools.partial(Body.weight, None)])
    def test_pickle(self, function: Any) -> None:
        info = inspect_function(function)
        again = pickle.loads(pickle.dumps(info))
        assert again.borrowed
        assert again.signature == info.signature
        assert again.bind((1, 2), {}) == info.bind((1, 2), {})
        assert again.own == info.own

    def test_unbind(self) -> None:
        info = inspect_function(passing(solve))
        for args, kwargs in (((1,), {}), ((1, 2.0), {}), ((1,), {"tol": 2.0})):
            again, keywords = info.unbind(info.bind(args, kwargs))
            assert solve(*again, **keywords) == solve(*args, **kwargs)

    def test_unbind_what_only_the_wrapper_knows(self) -> None:
        def f(x: int, log: Ignored[Any] = "default", *rest: int) -> Any: ...

        info = inspect_function(passing(f))
        with pytest.raises(TypeError, match="'log' is ignored, so it was not stored"):
            info.unbind(info.bind((1, print, 2), {}))

    def test_own(self) -> None:
        """For the body, a call is bound by what the wrapper itself accepts."""
        bound = inspect_function(passing(solve)).bind_own((1,), {"tol": 2.0, "scale": 3})
        assert (bound.args, bound.kwargs) == ((1,), {"tol": 2.0, "scale": 3})
        assert inspect_function(loosened(solve)).bind_own((1,), {}).args == (1, 1e-3)
        assert inspect_function(Body().weight).bind_own((1,), {}).args == (1,)
