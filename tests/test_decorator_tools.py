"""Tools that look at functions see a decorated function as the function that it is."""

from __future__ import annotations

import copy
import doctest
import inspect
import multiprocessing
import pickle
import sys
import types
import typing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from fleche import cache, fleche
from fleche.decorator import BoundMethod, Wrapper
from fleche.decorator._spec import WorkerNotice
from tests.helpers.layers import in_files


def plain(r: float, *, k: int = 3) -> float:
    """Return an area.

    >>> 1 + 1
    2
    """
    return r * r * k


class Body:
    """A class with a method, decorated and not."""

    def plain(self, x: int) -> int:
        """Return x."""
        return x

    method = fleche(plain)


area = fleche(plain)


@fleche
def documented(x: int) -> int:
    """Return the square.

    >>> documented(3)
    9
    """
    return x * x


TOOLS: list[Callable[[Any], Any]] = [
    inspect.signature,
    inspect.getfullargspec,
    inspect.getfile,
    inspect.getsourcefile,
    inspect.getsource,
    inspect.getsourcelines,
    inspect.getmodule,
    inspect.getdoc,
    inspect.isfunction,
    inspect.ismethod,
    inspect.isroutine,
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    typing.get_type_hints,
]


pytestmark = pytest.mark.usefixtures("active")


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_functions(tool: Callable[[Any], Any]) -> None:
    """What a tool says of the function itself, it says of the decorated one."""
    assert tool(area) == tool(plain)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_methods(tool: Callable[[Any], Any]) -> None:
    """So it does of a method of an object."""
    assert tool(Body().method) == tool(Body().plain)


def test_coroutine_functions() -> None:
    @fleche
    async def soon() -> None: ...

    assert inspect.iscoroutinefunction(soon)
    assert not inspect.isasyncgenfunction(soon)


def test_callables_without_code() -> None:
    """What is no function of Python is not taken for one; its signature is seen all the same."""
    half = fleche(partial(plain, k=1))
    assert not inspect.isfunction(half)
    assert not inspect.iscoroutinefunction(half)
    assert list(inspect.signature(half).parameters) == ["r", "k"]


def test_doctest() -> None:
    """The examples in the docstring of a decorated function are run."""
    found = doctest.DocTestFinder().find(documented, "documented", sys.modules[__name__])
    assert [len(test.examples) for test in found] == [1]


def test_it_is_a_wrapper_to_all_others() -> None:
    """Only tools take it for a function: what pickles or copies functions does not."""
    assert isinstance(area, Wrapper)
    assert not isinstance(area, types.FunctionType)
    assert not isinstance(Body().method, types.MethodType)
    assert isinstance(Body().method, BoundMethod)
    assert area.__class__ is Wrapper

    @fleche
    def local(x: int) -> int:
        return x

    for copied in (
        pickle.loads(pickle.dumps(area)),
        cloudpickle.loads(cloudpickle.dumps(area)),
        cloudpickle.loads(cloudpickle.dumps(local)),
        copy.deepcopy(area),
    ):
        assert isinstance(copied, Wrapper)


def test_a_method_can_be_decorated_in_a_partial() -> None:
    """A partial of a decorated method is decorated like any callable."""
    assert fleche(partial(Body().method, 3))() == 3


def use(x: int) -> int:
    documented(x)
    return documented(x + 1)


def test_a_worker_says_which_cache_it_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A function that reaches a worker process without a cache says there, once, what it uses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLECHE_CACHE", "void")
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.map(use, [1, 2]) == [4, 9]
    said = capfd.readouterr().err
    assert said.count("documented(): no cache was sent to this worker process") == 1
    with cache(in_files(tmp_path)), context.Pool(1) as pool:
        assert pool.map(documented.bind(), [1, 2]) == [1, 4]
    assert "no cache was sent" not in capfd.readouterr().err


def test_a_notebook_of_marimo_is_no_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its kernel is a process of multiprocessing, and there is none to send a cache from."""
    monkeypatch.setattr(multiprocessing.process, "parent_process", object)
    for is_notebook in (True, False):
        marimo = types.SimpleNamespace(running_in_notebook=lambda found=is_notebook: found)
        monkeypatch.setitem(sys.modules, "marimo", marimo)  # type: ignore[arg-type]
        caplog.clear()
        WorkerNotice().look("f", cache())
        assert ("no cache was sent" in caplog.text) is not is_notebook
