"""The decorated function."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from inspect import signature
from types import FunctionType, MethodType
from typing import Any, Concatenate, ParamSpec, TypeVar, cast, overload

from fleche.decorator._core import Core
from fleche.decorator._surface import Surface
from fleche.function import FunctionInfo

__all__ = ["BoundMethod", "Wrapper"]

_LIKE_A_COROUTINE = ("__code__", "__defaults__", "__kwdefaults__")
_OF_FUNCTIONS = (*_LIKE_A_COROUTINE, "__globals__", "__closure__")
_OURS = ("core", "_is_coroutine", "_is_coroutine_marker", *_LIKE_A_COROUTINE)

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class Wrapper(Surface[P, R]):
    """What :func:`fleche.fleche` makes of a function.

    It has the name, the documentation and the signature of the function, which is at
    ``__wrapped__``. It is a method where it is an attribute of a class. It pickles as a reference
    to its module and name.
    """

    __wrapped__: Callable[P, R]
    __name__: str
    __qualname__: str

    def __init__(self, core: Core) -> None:
        self._look_like(core.function, core.info)
        self.core = core
        if core.is_async:
            self._look_like_a_coroutine_function()
        if core.info.is_main:
            _teach_cloudpickle()

    def _look_like(self, function: Callable[..., Any], info: FunctionInfo) -> None:
        self.__module__, self.__qualname__ = info.module, info.name
        self.__name__ = info.name.rpartition(".")[2]
        theirs = getattr(function, "__dict__", {})
        vars(self).update({name: theirs[name] for name in theirs if not _is_ours(name)})
        functools.update_wrapper(self, function, updated=())

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        """The class; to :mod:`inspect` and what builds on it a function is a function."""
        return _class_for_tools(self, Wrapper, FunctionType)

    def __getattr__(self, name: str) -> Any:
        # not in the __dict__, which functools.wraps() copies to what is wrapped round this
        if "__wrapped__" in vars(self):
            if name in _OF_FUNCTIONS:
                return getattr(self.__wrapped__, name)
            if name == "__signature__":
                return signature(self.__wrapped__)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _look_like_a_coroutine_function(self) -> None:
        import asyncio
        import inspect

        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)
        else:  # what inspect and asyncio look at
            for name in _LIKE_A_COROUTINE:
                setattr(self, name, getattr(self.core.function, name, None))
            self._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)

    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> Wrapper[P, R]: ...

    @overload
    def __get__(
        self: Wrapper[Concatenate[S, Q], R], instance: S, owner: type[Any] | None = None, /
    ) -> BoundMethod[Q, R]: ...

    def __get__(self, instance: Any, owner: type[Any] | None = None, /) -> Any:
        """Return the method of ``instance``."""
        return self if instance is None else BoundMethod(cast("Any", self), instance)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._is_findable():
            return self.__qualname__
        return reduce_by_value(self)

    def _is_findable(self) -> bool:
        found: Any = sys.modules.get(self.__module__)
        for name in self.__qualname__.split("."):
            found = getattr(found, name, None)
        return found is self

    def __setstate__(self, core: Core) -> None:
        Wrapper.__init__(self, core)

    def __repr__(self) -> str:
        return f"<fleche {self.__module__}.{self.__qualname__}>"


class BoundMethod(Surface[P, R]):
    """A decorated method of an object."""

    def __init__(self, wrapper: Wrapper[..., R], instance: Any) -> None:
        self.__func__ = wrapper
        self.__self__ = instance
        self.__wrapped__ = MethodType(wrapper.__wrapped__, instance)
        self.__module__, self.__doc__ = wrapper.__module__, wrapper.__doc__
        self.core = wrapper.core
        self.lead = (instance,)

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        """The class; to :mod:`inspect` and what builds on it a method is a method."""
        return _class_for_tools(self, BoundMethod, MethodType)

    @property
    def __annotations__(self) -> dict[str, Any]:  # type: ignore[override]
        """Those of the function."""
        found: dict[str, Any] = getattr(self.__func__, "__annotations__", {})
        return found

    def __getattr__(self, name: str) -> Any:
        if name in ("__func__", "__wrapped__", "core"):
            raise AttributeError(name)
        if name == "__signature__":
            return signature(self.__wrapped__)
        return getattr(self.__func__, name)

    def __reduce__(self) -> Any:
        return BoundMethod, (self.__func__, self.__self__)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundMethod):
            return NotImplemented
        return self.__func__ is other.__func__ and self.__self__ is other.__self__

    def __hash__(self) -> int:
        return hash((id(self.__func__), id(self.__self__)))

    def __repr__(self) -> str:
        return f"<fleche method {self.__func__.__qualname__} of {self.__self__!r}>"


def _class_for_tools(wrapper: Surface[..., Any], own: type, plain: type) -> type:
    """Return ``plain`` to the functions of :mod:`inspect`, and ``own`` to all others.

    Those accept nothing but what Python calls a function. Others, cloudpickle among them, take what
    claims to be a function apart, and would make another one of it.
    """
    if sys._getframe(2).f_globals.get("__name__") != "inspect":  # noqa: SLF001 (public in all but name)
        return own
    inner = vars(wrapper).get("__wrapped__")
    return plain if type(getattr(inner, "__func__", inner)) is FunctionType else own


def _is_ours(name: str) -> bool:
    """Tell whether a wrapper has a use of its own for an attribute of this name."""
    return name in _OURS or hasattr(Wrapper, name)


def reduce_by_value(wrapper: Wrapper[..., Any]) -> Any:
    """Return what makes the same wrapper where its module cannot be imported."""
    # the state comes after the object, since the globals of the function may lead back to it
    return Wrapper.__new__, (Wrapper,), wrapper.core


@functools.cache
def _teach_cloudpickle() -> None:
    """Let cloudpickle take what is defined in ``__main__`` by value, as it does with functions."""
    import cloudpickle

    def reduce(wrapper: Wrapper[..., Any]) -> Any:
        if wrapper.__module__ in ("__main__", "__mp_main__"):
            return reduce_by_value(wrapper)
        return wrapper.__reduce_ex__(4)

    cloudpickle.Pickler.dispatch_table[Wrapper] = reduce
