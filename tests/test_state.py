"""What is active, where it holds, and for how long."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import fleche as package
from fleche import (
    Cache,
    CacheStack,
    Git,
    Runtime,
    Tags,
    cache,
    config,
    digest,
    meta,
    project,
    state,
    tags,
)
from fleche.errors import ConfigError
from fleche.state import _active as active
from fleche.storage import CallMemory, ValueMemory


def memory() -> Cache:
    return Cache(ValueMemory(), CallMemory())


class Loaders:
    """Stands in for the configuration, and counts."""

    def __init__(self) -> None:
        self.names: list[str | None] = []
        self.metadata = 0
        self.default: str | None = None

    def cache(self, name: str | None) -> Cache:
        if name == "unknown":
            raise ConfigError("there is no cache 'unknown'")
        self.names.append(name)
        return memory()

    def meta(self) -> list[Runtime]:
        self.metadata += 1
        return [Runtime()]


@pytest.fixture(autouse=True)
def loaders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loaders]:
    made = Loaders()
    state.reset()
    monkeypatch.setattr(config, "load_cache_config", made.cache)
    monkeypatch.setattr(config, "load_default_metadata", lambda: tuple(made.meta()))
    monkeypatch.setattr(config, "default_cache_name", lambda: made.default)
    yield made
    state.reset()


def in_thread(function: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(10)


class TestCache:
    def test_default(self, loaders: Loaders) -> None:
        """It is built when it is first needed, once."""
        assert loaders.names == []
        assert cache() is cache()
        assert loaders.names == [None]

    def test_default_by_name(self, loaders: Loaders) -> None:
        with cache("default") as chosen:
            assert chosen is cache()
        assert cache() is chosen
        assert loaders.names == [None]

    def test_by_name(self, loaders: Loaders) -> None:
        """It is built once, however many threads ask, and then used again."""
        found = {id(in_thread(lambda: state.named_cache("shared"))) for _ in range(4)}
        assert len(found) == 1
        cache("shared")
        assert id(cache()) in found
        assert loaders.names == ["shared"]

    def test_unknown_name(self) -> None:
        """It changes nothing."""
        made = memory()
        cache(made)
        with pytest.raises(ConfigError):
            cache("unknown")
        assert cache() is made

    @pytest.mark.parametrize("wrong", [Path("results"), {"template": "memory"}, 3, [], Cache])
    def test_something_else(self, wrong: Any) -> None:
        """It changes nothing, and the error says what to write."""
        before = cache()
        for stack in (False, True):
            with pytest.raises(TypeError, match=r"is not a cache: expected one.*fleche.open"):
                cache(wrong, stack=stack)
        assert cache() is before

    def test_sticky(self) -> None:
        one, two = memory(), memory()
        cache(one)
        assert cache() is one
        assert cache(two).value is two
        assert cache() is two

    def test_block(self) -> None:
        """It puts back what was before, after an exception too."""
        one, two, three = memory(), memory(), memory()
        cache(one)
        with cache(two) as chosen:
            assert chosen is two
            assert cache() is two
            with pytest.raises(ZeroDivisionError), cache(three) as chosen:
                _ = (chosen is cache() is three) / 0
            assert cache() is two
        assert cache() is one

    def test_sticky_inside_a_block(self) -> None:
        """It sticks until the end of the block."""
        one, two, three = memory(), memory(), memory()
        cache(one)
        with cache(two):
            cache(three)
            assert cache() is three
        assert cache() is one

    def test_other_settings_stay(self) -> None:
        """A block puts back what it set, and nothing else."""
        with cache(memory()):
            tags(sample=7)
        assert tags() == {"sample": 7}

    def test_setting_used_later_and_again(self) -> None:
        """As a block it is no longer sticky, and it may be entered inside itself."""
        one, two, three = memory(), memory(), memory()
        cache(one)
        setting = cache(two)
        cache(three)
        with setting:
            assert cache() is two
            with setting:
                assert cache() is two
            assert cache() is two
        assert cache() is three
        assert "Setting" in repr(setting)

    def test_stack(self) -> None:
        """In front of the active one."""
        near, far = memory(), memory()
        cache(far)
        with cache(near, stack=True) as chosen:
            assert isinstance(chosen, CacheStack)
            assert chosen.first is near
            far.save_value(3)
            assert chosen.load_value(digest(3)) == 3
        assert cache() is far


class TestWhere:
    def test_threads_see_what_the_main_thread_set(self) -> None:
        """A plain call there holds for threads started before and after."""
        one = memory()
        asked, answer = threading.Event(), threading.Event()
        seen: list[Any] = []

        def early() -> None:
            asked.wait(5)
            seen.append(cache())
            answer.set()

        thread = threading.Thread(target=early)
        thread.start()
        cache(one)
        asked.set()
        answer.wait(5)
        thread.join()
        assert seen == [one]
        assert in_thread(cache) is one

    def test_threads_do_not_see_blocks(self) -> None:
        """A block is of its own context; a thread is outside, unless the context is taken along."""
        one, two = memory(), memory()
        cache(one)
        with cache(two):
            assert in_thread(cache) is one
            context = contextvars.copy_context()
            assert in_thread(lambda: context.run(cache)) is two

    def test_thread_keeps_its_own(self) -> None:
        """A plain call in another thread holds for that thread alone."""
        one, two = memory(), memory()
        cache(one)

        def work() -> Any:
            cache(two)
            return cache()

        assert in_thread(work) is two
        assert cache() is one

    def test_tasks_are_isolated(self) -> None:
        one, two = memory(), memory()
        cache(one)

        async def work() -> None:
            cache(two)
            await asyncio.sleep(0)
            assert cache() is two

        async def main() -> None:
            task = asyncio.create_task(work())
            await task
            assert cache() is one

        asyncio.run(main())
        assert cache() is one

    def test_tasks_inherit_blocks(self) -> None:
        two = memory()

        async def main() -> Any:
            with cache(two):
                task = asyncio.create_task(asyncio.to_thread(cache))
            return await task

        assert asyncio.run(main()) is two

    def test_cells_of_a_notebook(self) -> None:
        """Their lines run inside an event loop, and hold for the process all the same."""
        two = memory()
        cache(memory())

        async def kernel() -> None:
            exec("import fleche; fleche.cache(two)", {"two": two})

        asyncio.run(kernel())
        assert cache() is two

    def test_fork(self) -> None:
        """A child has what its parent had, and can build caches of its own."""
        with active._configured.lock:  # another thread may hold it at the moment of the fork
            pid = os.fork()
            if not pid:
                done = in_thread(lambda: state.named_cache("shared"))
                os._exit(0 if done else 1)
        assert os.waitpid(pid, 0)[1] == 0


class TestMeta:
    def test_default(self, loaders: Loaders) -> None:
        assert meta() == meta() == (Runtime(),)
        assert loaders.metadata == 1

    def test_objects_classes_and_names(self) -> None:
        meta(Git(), Runtime, "environment")
        assert [each.name for each in meta()] == ["git", "runtime", "environment"]

    def test_none(self) -> None:
        with meta(None):
            assert meta() == ()
        assert meta() == (Runtime(),)

    def test_stack(self) -> None:
        with meta("git", stack=True) as chosen:
            assert chosen == (Runtime(), Git())

    def test_wrong(self) -> None:
        with pytest.raises(ConfigError, match="runtime"):
            meta("nope")
        with pytest.raises(TypeError, match="not metadata"):
            meta(3)  # type: ignore[call-overload]


class TestTags:
    def test_add_up(self) -> None:
        tags(sample=7)
        with tags(run="a", sample=8):
            assert tags() == {"sample": 8, "run": "a"}
            with tags(run=None):
                assert tags() == {"sample": 8}
        assert tags() == {"sample": 7}

    def test_returned_dict_is_a_copy(self) -> None:
        tags().update(sample=1)
        assert tags() == {}

    def test_project(self) -> None:
        """The project is the tag of that name."""
        assert project() is None
        with project("alloys"):
            assert project() == "alloys"
            assert tags() == {"project": "alloys"}
            with project(None):
                assert project() is None
        assert project() is None

    def test_recorded(self) -> None:
        """With every call that is computed, to find it by; those of the moment win."""

        @package.fleche(meta=Tags(sample=1, own=True))
        def measure(x: int) -> int:
            return x

        with cache(memory()), tags(sample=7), project("alloys"):
            measure(1)
            found = measure.load(1).metadata["tags"]
            assert found == {"sample": 7, "own": True, "project": "alloys"}
            wanted = {"tags": {"project": "alloys"}}
            assert cache().query(metadata=wanted).count() == 1


def test_holding() -> None:
    """All at once, for a block."""
    made = memory()
    with state.holding(made, (), {"a": 1}):
        assert (cache(), meta(), tags()) == (made, (), {"a": 1})
    assert tags() == {}


def test_the_default_cache_and_its_name_are_one(tmp_home: Path) -> None:
    """A cache that is asked for by name and as the default is one object, with one connection."""
    (tmp_home / "fleche.toml").write_text(
        '[default]\ncache = "shared"\n[shared]\ntemplate = "memory"\n[other]\ntemplate = "memory"\n'
    )
    code = (
        "import fleche\n"
        "assert fleche.cache('shared').value is fleche.cache('default').value\n"
        "assert fleche.cache('other').value is not fleche.cache('shared').value\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
