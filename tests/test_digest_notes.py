"""What digesting finds out beside the digest, and where a value and its copy differ."""

from __future__ import annotations

import dataclasses
import enum
import functools
import itertools
import pickle
from typing import Any

import numpy as np
import pytest

from fleche import cache, fleche
from fleche.digest import (
    BufferDigests,
    Difference,
    add_hook,
    digest,
    digest_arguments,
    find_difference,
)
from fleche.digest import _registry as registry
from tests.helpers.layers import in_memory


class Model:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def energy(self) -> int:
        return 1


class Familiar:
    def __digest__(self) -> Any:
        return 1


class Status(enum.Enum):
    DONE = 1


@dataclasses.dataclass
class Config:
    step: Any = 1


class Names(dict[str, Any]):
    pass


def helper(x: int) -> int:
    return x


def notes(**arguments: Any) -> BufferDigests:
    found = BufferDigests()
    digest_arguments(arguments, found)
    return found


class TestCode:
    """The functions and classes on whose code the arguments depend."""

    @pytest.mark.parametrize(
        ("value", "met"),
        [
            (Model(a=1), [Model]),
            ([1, {"k": [Model()]}], [Model]),
            ([{1}, Model()], [Model]),
            (Model, [Model]),
            (Config(Model()), [Config, Model]),
            (Status.DONE, [Status]),
            (Names(a=1), [Names]),
            (Familiar(), [Familiar]),
            (helper, [helper]),
            ([helper, functools.partial(helper, 1)], [helper]),
            (Model().energy, [Model.energy, Model]),
            (np.vectorize(helper), [helper]),
            (np.frompyfunc(helper, 1, 1), [helper]),
            (np.array([Model()], object), [Model]),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_met(self, value: Any, met: list[Any]) -> None:
        """Each is noted, wherever in a value it stands."""
        code = [obj for obj in notes(x=value).code if obj.__module__ == __name__]
        assert len(code) == len(met)
        assert {*map(id, code)} == {*map(id, met)}

    def test_each_once(self) -> None:
        """Whether the digest of a class was at hand already makes no difference."""
        for _ in range(2):
            found = notes(x=[Model(), Model(a=Model())], y=Model(), z=Model)
            assert found.code == [Model]

    def test_in_cycles(self) -> None:
        one = Model()
        one.config = Config(one)
        assert {*notes(x=one).code} == {Model, Config}

    def test_of_python_itself(self) -> None:
        """What comes with Python is no code of the user's."""
        assert notes(x=[len, int, functools.partial(max), itertools.count, {1}, 1j]).code == []

    def test_update_and_clear(self) -> None:
        first, second = notes(x=Model()), notes(x=[Model(), helper])
        first.update(second)
        assert first.code == [Model, helper]
        first.clear()
        assert (first.code, first.unfamiliar) == ([], set())


class TestUnfamiliar:
    """Classes whose objects no handler knows."""

    def test_told(self) -> None:
        found = notes(x=[Model(), Config(), Names(), Status.DONE, np.zeros(2), 1j, len, {1}])
        assert found.unfamiliar == {Model, Config, Names}

    def test_every_time(self) -> None:
        assert notes(x=Model()).unfamiliar == notes(x=Model()).unfamiliar == {Model}

    def test_hooks_make_familiar(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry, "hooks", dict(registry.hooks))
        assert notes(x=Familiar()).unfamiliar == set()
        add_hook(Model, lambda model: 1)
        assert notes(x=Model()).unfamiliar == set()
        registry.forget()


class Counted:
    """Comes back from pickle with another number each time."""

    numbers = itertools.count()

    def __init__(self) -> None:
        self.inner = {"n": [0, next(self.numbers)]}

    def __setstate__(self, state: Any) -> None:
        self.inner = {"n": [0, next(self.numbers)]}


def copied(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


class TestDifference:
    """The class and the way to what differs between a value and its copy."""

    def test_none(self) -> None:
        for value in (1, [Model(a={1})], Model(), {"a": np.zeros(3)}):
            assert find_difference(value, copied(value)) is None

    @pytest.mark.parametrize(
        ("wrap", "path"),
        [
            (lambda it: it, ""),
            (lambda it: [1, {"k": (2, it)}], "[1]['k'][1]"),
            (lambda it: Model(a=[it]), ".a[0]"),
            (lambda it: Config(Model(b=it)), ".step.b"),
            (lambda it: np.array([None, it]), "[1]"),
        ],
    )
    def test_found(self, wrap: Any, path: str) -> None:
        value = wrap(Counted())
        assert find_difference(value, copied(value)) == Difference(Counted, path + ".inner['n'][1]")

    def test_other_kinds(self) -> None:
        """Where the two are not even built alike, the way ends."""
        assert find_difference(Model(a=[1]), Model(a=[1, 2])) == (Model, ".a")
        assert find_difference(Model(a=1), Model(a=1, b=2)) == (Model, "")
        assert find_difference([1], (1,)) == (list, "")
        assert find_difference(Model(a={1}), Model(a={2})) == (Model, ".a")

    def test_in_cycles(self) -> None:
        """A graph is followed to the node that differs, and not in circles."""

        def ring(last: int) -> Model:
            nodes = [Model(number=i) for i in range(5)]
            for i, each in enumerate(nodes):
                each.next = nodes[(i + 1) % 5]
            nodes[-1].number = last
            return nodes[0]

        found = find_difference(ring(4), ring(5))
        assert found is not None
        assert found.cls is Model
        assert find_difference(ring(4), ring(4)) is None

    def test_takes_no_time_to_speak_of(self) -> None:
        """The search ends when its time is over, with what it has found."""
        value = Model(a=[[Counted()]])
        found = find_difference(value, copied(value), longest=0)
        assert found == (Model, "")

    def test_digest_agrees(self) -> None:
        value = Counted()
        assert digest(value) != digest(copied(value))

    def test_it_is_told(self) -> None:
        """What returns such a value is a hit; what gets one from a cache is none."""

        @fleche(version=1)
        def make() -> Counted:
            return Counted()

        @fleche(version=1)
        def use(x: Counted) -> int:
            runs.append(x)
            return 1

        runs: list[Counted] = []
        with cache(in_memory()):
            with pytest.warns(UserWarning, match="gets a Counted from a cache") as told:
                make()
            assert len(told) == 1
            assert make.contains()
            assert [use(make()), use(make())] == [1, 1]
        assert len(runs) == 2


class Forgetful:
    """Tells pickle less than it needs."""

    def __init__(self, unit: str) -> None:
        self.unit = unit

    def __reduce__(self) -> Any:
        return Forgetful, ()


def test_what_cannot_be_opened_is_told_when_it_is_stored() -> None:
    """A result that no run would find says so at once, and what to do."""

    @fleche(version=1)
    def make() -> list[Forgetful]:
        return [Forgetful("eV")]

    with cache(in_memory()):
        with pytest.warns(UserWarning, match="never found: a list .*'unit'.*__reduce__") as told:
            make()
        assert len(told) == 1
