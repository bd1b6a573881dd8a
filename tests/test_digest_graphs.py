"""Graphs of objects: which objects know which is part of the value."""

from __future__ import annotations

import copy
import itertools
import pickle
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleche.digest import digest
from fleche.errors import Indigestible
from tests.helpers.sweeps import examples, swept


class Atom:
    """An object that knows its neighbours, in a list, a set or a dict."""

    def __init__(self, element: Any = "C") -> None:
        self.element = element
        self.bonded: Any = []


class Link:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


Edges = list[list[int]]


def build(edges: Edges, near: Any = list, labels: Any = None) -> list[Atom]:
    """Atoms that know the ones which `edges` name."""
    atoms = [Atom(labels[i] if labels else "C") for i in range(len(edges))]
    for atom, targets in zip(atoms, edges, strict=True):
        atom.bonded = near(atoms[target] for target in targets)
    return atoms


def rings(*sizes: int) -> Edges:
    edges: Edges = []
    for length in sizes:
        first = len(edges)
        edges += [[first + (i - 1) % length, first + (i + 1) % length] for i in range(length)]
    return edges


class TestRings:
    """What looks alike from every object is not alike."""

    def test_sizes(self) -> None:
        """Two rings of three, one of six, and all other ways to arrange as many atoms."""
        shapes = [(6,), (3, 3), (12,), (6, 6), (4, 4, 4), (3, 3, 3, 3), (9, 3), (5, 7)]
        assert len({digest(build(rings(*sizes))) for sizes in shapes}) == len(shapes)
        assert len({digest(build(rings(length))[0]) for length in range(1, 20)}) == 19

    def test_which_is_bonded_to_which(self) -> None:
        """The same rings whose atoms stand elsewhere in the list are another molecule."""
        one = build(rings(3, 3))
        mixed = [one[i] for i in (0, 3, 1, 4, 2, 5)]
        ring = build(rings(6))
        assert digest(one) != digest(mixed)
        assert digest(ring) != digest([ring[i] for i in (0, 2, 4, 1, 3, 5)])

    def test_one_twice_is_not_two(self) -> None:
        """A ring that is met twice is one ring, and two copies of it are two."""
        one, other = build(rings(3))[0], build(rings(3))[0]
        assert digest(one) == digest(other)
        assert digest([one, one]) != digest([one, other])
        assert digest([one, (one,)]) != digest([one, (other,)])

    def test_isotopes(self) -> None:
        """Where the one odd atom is, and how many rings have one, counts."""
        marked = ["C13", "C", "C"] * 2
        assert digest(build(rings(6), labels=marked)) != digest(build(rings(3, 3), labels=marked))
        places = [["C"] * i + ["C13"] + ["C"] * (5 - i) for i in range(6)]
        assert len({digest(build(rings(6), labels=labels)) for labels in places}) == 6

    def test_copies(self) -> None:
        for molecule in (build(rings(6)), build(rings(3, 3)), build(rings(4))[0]):
            assert digest(copy.deepcopy(molecule)) == digest(molecule)
            assert digest(pickle.loads(pickle.dumps(molecule))) == digest(molecule)

    def test_entry(self) -> None:
        """A graph seen from another of its nodes is another value, unless it looks the same."""
        ring, path = build(rings(6)), build([[1], [0, 2], [1]])
        assert len(set(map(digest, ring))) == 1
        assert len(set(map(digest, path))) == 3


class TestChains:
    """Chains of any length."""

    @staticmethod
    def chain(length: int) -> Link:
        first = last = Link(before=None, after=None)
        for _ in range(length - 1):
            last.after = Link(before=last, after=None)
            last = last.after
        return first

    @pytest.mark.parametrize(
        "length", swept([1, 2, 3, 10, 999, 1000, 10_000], lambda length: length <= 1000)
    )
    def test_lengths(self, length: int) -> None:
        assert digest(self.chain(length)) == digest(self.chain(length))
        assert digest(self.chain(length)) != digest(self.chain(length + 1))

    def test_in_sets(self) -> None:
        """Without an order the ends tell everything apart, however far away they are."""

        def chain(length: int) -> Any:
            edges = [[j for j in (i - 1, i + 1) if 0 <= j < length] for i in range(length)]
            return build(edges, set, labels=["H"] + ["C"] * (length - 1))[length // 2]

        assert digest(chain(2_001)) == digest(chain(2_001)) != digest(chain(2_003))


graphs = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, n - 1), max_size=3), min_size=n, max_size=n)
)


def form(edges: Edges) -> Any:
    """What tells lists of such atoms apart: who is on a cycle by its place, the rest as a tree."""
    reach = [set(targets) for targets in edges]
    for _ in edges:
        reach = [found.union(*(reach[i] for i in found)) for found in reach]

    def term(number: int) -> Any:
        if number in reach[number]:
            return number
        return tuple(map(term, edges[number]))

    return [
        (term(number), [term(target) for target in targets] if number in reach[number] else None)
        for number, targets in enumerate(edges)
    ]


def symmetric(pairs: list[tuple[int, int]], n: int) -> Edges:
    edges: Edges = [[] for _ in range(n)]
    for one, other in pairs:
        if other not in edges[one]:
            edges[one].append(other)
            edges[other].append(one)
    return edges


undirected = st.integers(2, 5).flatmap(
    lambda n: st.lists(
        st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda p: p[0] != p[1]),
        max_size=8,
    ).map(lambda pairs: symmetric(pairs, n))
)


def isomorphic(one: Edges, other: Edges) -> bool:
    """Whether one graph can be laid on the other, the first nodes upon each other."""
    if len(one) != len(other):
        return False
    numbers = range(len(one))
    for rest in itertools.permutations(numbers[1:]):
        places = (0, *rest)
        if all({places[t] for t in one[i]} == set(other[places[i]]) for i in numbers):
            return True
    return False


def try_digest(value: Any) -> str | None:
    """The digest of a value, or None if its objects cannot be told apart."""
    try:
        return digest(value)
    except Indigestible as error:
        if "cannot be told apart" not in str(error):
            raise
        return None


def reached(edges: Edges) -> Edges:
    """The part of a graph that its first node leads to, numbered anew."""
    found = [0]
    for number in found:
        found += [target for target in edges[number] if target not in found]
    return [[found.index(target) for target in edges[number]] for number in found]


class TestRandom:
    """Graphs with and without symmetries."""

    @examples(5)
    @given(graphs, graphs)
    def test_ordered(self, one: Edges, other: Edges) -> None:
        """Equal if and only if they are the same graph."""
        assert digest(build(one)) == digest(build(one))
        assert (digest(build(one)) == digest(build(other))) == (form(one) == form(other))

    @examples(5)
    @given(undirected, undirected, st.randoms())
    def test_sets_of_atoms_in_a_list(self, one: Edges, other: Edges, rng: Any) -> None:
        """The list says which atom is which; the sets of neighbours need no order then."""
        shuffled = [rng.sample(targets, len(targets)) for targets in one]
        assert digest(build(one, set)) == digest(build(shuffled, set))
        same = [set(targets) for targets in one] == [set(targets) for targets in other]
        assert (digest(build(one, set)) == digest(build(other, set))) == same

    @examples(5)
    @given(undirected, undirected, st.randoms())
    def test_sets_alone(self, one: Edges, other: Edges, rng: Any) -> None:
        """From one atom and sets alone: refused, or equal if and only if isomorphic."""
        found = try_digest(build(one, set)[0])
        places = [0, *rng.sample(range(1, len(one)), len(one) - 1)]
        moved: Edges = [[] for _ in one]
        for number, targets in enumerate(one):
            moved[places[number]] = [places[target] for target in targets]
        assert try_digest(build(moved, set)[0]) == found
        if found is not None and try_digest(build(other, set)[0]) == found:
            assert isomorphic(reached(one), reached(other))

    def test_families(self) -> None:
        """Regular graphs, in which no counting of neighbours tells anything apart."""
        k33 = [[3, 4, 5]] * 3 + [[0, 1, 2]] * 3
        prism = [[1, 2, 3], [0, 2, 4], [0, 1, 5], [4, 5, 0], [3, 5, 1], [3, 4, 2]]
        assert digest(build(k33, set)) != digest(build(prism, set))
        complete = [[j for j in range(6) if j != i] for i in range(6)]
        assert digest(build(complete, set)) != digest(build(rings(6), set))


class TestTies:
    """Where nothing puts objects in an order, the value is refused with a hint."""

    def test_refused(self) -> None:
        with pytest.raises(Indigestible, match=r"object\.bonded.*cannot be told apart.*in a list"):
            digest(build(rings(6), set)[0])
        with pytest.raises(Indigestible, match=r"object\[1\].*cannot be told apart"):
            digest([1, set(build(rings(3)))])

    def test_told_apart(self) -> None:
        """A name, another place, or what hangs on an object is enough."""
        named = build(rings(6), set, labels=list("abcdef"))[0]
        assert digest(named) == digest(copy.deepcopy(named))
        ring = build(rings(3))
        assert digest([ring, set(ring)]) == digest([ring, {ring[2], ring[0], ring[1]}])
        assert digest([ring, set(ring)]) != digest([ring, set(ring[:2])])

    def test_met_in_another_place(self) -> None:
        """Objects that come in an order further on have that order in a set before it."""
        ring = build(rings(3))
        assert digest([set(ring), ring]) == digest([{ring[2], ring[0], ring[1]}, ring])
        two = build(rings(3, 3))
        assert digest([{two[0], two[3]}, two]) != digest([{two[0], two[1]}, two])

    def test_many_members(self) -> None:
        """A set of thousands of objects that know their owner takes no time to speak of."""

        def owner(order: list[int]) -> Any:
            found = Link(name="owner")
            found.members = {Link(name=number, owner=found) for number in order}
            return found

        order = list(range(3_000))
        expected = digest(owner(order))
        random.Random(1).shuffle(order)
        assert digest(owner(order)) == expected

    def test_dicts_without_order(self) -> None:
        one, other = Link(), Link()
        one.parts = {"a": Link(up=one), "b": Link(up=one)}
        other.parts = dict(reversed([("a", Link(up=other)), ("b", Link(up=other))]))
        assert digest(one) != digest(other)
        assert digest(one, unordered=True) == digest(other, unordered=True)


class TestBeside:
    """What hangs on a cycle, and what leads to it, counts as it always does."""

    def test_sharing_of_plain_data(self) -> None:
        """Plain data that leads to no cycle has no identity, nor has a tuple that does."""
        ring = build(rings(3))
        shared, pair = [1, 2], (ring[0], 1)
        assert digest([ring, shared, shared]) == digest([ring, [1, 2], [1, 2]])
        assert digest([ring, pair, pair]) == digest([ring, (ring[0], 1), (ring[0], 1)])
        assert digest([ring, pair]) != digest([ring, (ring[1], 1)])

    @pytest.mark.slow
    def test_depth(self) -> None:
        """Long ways to a cycle and from it."""

        def tail(length: int) -> Any:
            found: Any = build(rings(3))[0]
            found.element = None
            for _ in range(length):
                found.element = [found.element]
            for _ in range(length):
                found = (found,)
            return found

        assert digest(tail(10_000)) == digest(tail(10_000)) != digest(tail(10_001))

    def test_path_to_an_error(self) -> None:
        ring = build(rings(3))
        ring[1].element = {"k": iter([])}
        with pytest.raises(Indigestible, match=r"object\[0\]\.bonded\[1\]\.element\['k'\]: "):
            digest([ring[0]])
