"""Lineage: which call made which, and what its result went into."""

from __future__ import annotations

from pathlib import Path

import pytest

import fleche
from fleche import D, cache
from fleche.caches import BaseCache, CacheStack
from fleche.call import Call, CallTree, QueryCall
from fleche.digest import digest
from tests.helpers.caches import cache_factory, make_cache
from tests.helpers.layers import Layer, in_memory
from tests.helpers.serving import Serving


@fleche.fleche
def vector(x: int) -> list[int]:
    return [x, x]


@fleche.fleche
def total(values: list[int]) -> int:
    return sum(values)


@fleche.fleche
def study(n: int) -> int:
    return sum(total(vector(x)) for x in range(n))


@pytest.fixture(params=["memory", "file", "sql", "stack"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BaseCache:
    made = make_cache(request.param, str(tmp_path / "cache"))
    cache(made)
    return made


class TestEdges:
    def test_hits_are_edges(self, store: BaseCache) -> None:
        """A call that was stored before is an edge from the call that asks for it all the same."""
        vector(0)
        study(1)
        call = study.load(1)
        assert [child.name for child in call.children()] == ["vector", "total"]
        assert [parent.key for parent in vector.load(0).parents()] == [call.key]

    def test_under_another_name(self, store: BaseCache) -> None:
        """What was found out of a call stays with it; no value is opened."""
        study(2)
        call = study.load(2)
        key = store.save_as(call, name="sum_up", module="elsewhere")
        found = store.load(key)
        assert (found.name, found.module, found.result) == ("sum_up", "elsewhere", 2)
        assert found.duration == call.duration
        assert [each.key for each in found.children()] == [each.key for each in call.children()]
        assert study.load(2).key == call.key != key

    def test_what_a_result_went_into(self, store: BaseCache) -> None:
        """It need not have been made by the call that used it."""
        total(vector(3))
        assert vector.load(3).parents() == []
        assert [user.name for user in vector.load(3).used_by()] == ["total"]
        assert total.load([3, 3]).used_by() == []

    def test_parents_are_among_the_users(self, store: BaseCache) -> None:
        study(1)
        assert sorted(user.name for user in vector.load(0).used_by()) == ["study", "total"]

    def test_a_small_plain_result_is_no_sign(self, store: BaseCache) -> None:
        """The number 6 comes from anywhere."""
        total(vector(3))
        vector(6)
        assert total.load([3, 3]).used_by() == []


class TestQuery:
    def test_by_a_value(self, store: BaseCache) -> None:
        """Under whatever name it was passed."""
        study(2)
        assert store.query(uses=[1, 1]).only().name == "total"
        assert store.query(uses=[9, 9]).empty()
        assert {call.name for call in store.query(uses=1)} == {"vector"}

    def test_by_a_key(self, store: BaseCache) -> None:
        """Of a call that was made, or of a value; it may be short."""
        study(2)
        key = vector.digest(1)
        assert store.query(uses=key).only().name == "study"
        assert store.query(uses=D(key[:8])).only().name == "study"
        assert store.query(uses=digest([1, 1])).only().name == "total"

    def test_by_a_call(self, store: BaseCache) -> None:
        study(2)
        found = store.query(uses=vector.load(1))
        assert {call.name for call in found} == {"study", "total"}

    def test_with_other_conditions(self, store: BaseCache) -> None:
        study(2)
        assert store.query(uses=vector.load(1), name="study").count() == 1
        assert store.query(QueryCall.of(uses=vector.digest(0)), uses=vector.digest(1)).count() == 1
        assert store.query(QueryCall.of(uses=vector.digest(0)), uses=[1, 1]).count() == 0


class TestTree:
    def test_lines(self) -> None:
        """A line for each call: what it was, what came of it, and how long it took."""
        cache(in_memory())
        study(2)
        first, *rest = str(study.load(2).tree()).splitlines()
        assert first.startswith(f"study(n=2) -> 2  [{study.digest(2)[:8]}, ")
        assert [line.partition("(")[0] for line in rest] == [
            "├── vector",
            "├── total",
            "├── vector",
            "└── total",
        ]

    def test_levels(self) -> None:
        cache(in_memory())

        @fleche.fleche
        def outer(n: int) -> int:
            return study(n)

        outer(1)
        tree = outer.load(1).tree()
        assert [(depth, node.call.name) for depth, node in tree.walk() if node.call] == [
            (0, "TestTree.test_levels.<locals>.outer"),
            (1, "study"),
            (2, "vector"),
            (2, "total"),
        ]
        cut = outer.load(1).tree(depth=1)
        assert [node.is_cut for _, node in cut.walk()] == [False, True]
        assert str(cut).endswith(" ...")

    def test_what_used_it(self) -> None:
        cache(in_memory())
        study(1)
        tree = vector.load(0).tree(used_by=True)
        assert {(depth, node.call.name) for depth, node in tree.walk() if node.call} == {
            (0, "vector"),
            (1, "total"),
            (1, "study"),
            (2, "study"),
        }

    def test_a_call_that_is_met_again(self) -> None:
        """What is below it is shown once."""
        cache(in_memory())

        @fleche.fleche
        def twice(n: int) -> int:
            study(1)
            return again(n)

        @fleche.fleche
        def again(n: int) -> int:
            return study(1)

        twice(1)
        text = str(twice.load(1).tree())
        assert text.count("vector(") == 1
        assert text.count("(see above)") == 1

    def test_a_circle_ends(self) -> None:
        """No function makes one; a record from elsewhere may."""
        store = in_memory()
        call = Call(name="f", arguments={"x": 1}, result=2)
        pending = store.prepare(Call(name="f", arguments={"x": 1}))
        pending.commit(2, children=(call.key,))
        tree = store.load(call.key).tree()
        assert [node.key for _, node in tree.walk()] == [call.key, call.key]

    def test_calls_that_are_gone(self) -> None:
        cache(in_memory())
        study(1)
        key = vector.digest(0)
        cache().evict(key)
        tree = study.load(1).tree()
        assert tree.children[0] == CallTree(key, None)
        assert f"<{key[:8]}> is not stored here" in str(tree)

    def test_each_level_is_one_question(self) -> None:
        """A far cache is asked for all calls of a level at once."""
        layer = Layer()
        with cache(layer.inner):
            study(5)
            key = study.digest(5)
        call = layer.load(key)
        layer.asked.clear()
        assert len(list(call.tree().walk())) == 11
        assert layer.asked == {"load": 1}

    def test_a_long_chain(self) -> None:
        """A result that went from call to call is followed however often it did."""
        store, depth = in_memory(), 3000
        key = ""
        for number in range(depth):
            call = Call(name="step", arguments={"n": number})
            key = store.prepare(call).commit(number, children=(key,) if key else ())
        tree = store.load(key).tree()
        assert max(depth for depth, _ in tree.walk()) == depth - 1
        first, *_, last = str(tree).splitlines()
        assert first.startswith(f"step(n={depth - 1})")
        assert last.lstrip().startswith("└── step(n=0)")

    def test_in_a_notebook(self) -> None:
        cache(in_memory())
        vector(1)
        assert "-&gt; " in vector.load(1).tree()._repr_html_()


class TestAcrossMachines:
    def test_children_and_users_far_away(self, serving: Serving, tmp_path: Path) -> None:
        """What was computed elsewhere is found through the stack, with its lineage."""
        with cache(make_cache("sql", str(tmp_path / "far"))):
            study(2)
        far = serving("pipe", cache_factory("sql", tmp_path / "far"))
        with cache(CacheStack((in_memory(), far))):
            study(2)  # a hit, which brings its own record alone
            call = study.load(2)
            assert [child.name for child in call.children()][:2] == ["vector", "total"]
            assert [user.name for user in vector.load(1).parents()] == ["study"]
            assert len(list(call.tree().walk())) == 5
            assert far.query(uses=[1, 1]).only().name == "total"
