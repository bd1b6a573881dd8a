"""Copying with conditions, in every direction, and what is shown meanwhile."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest

from fleche.caches import BaseCache, CacheStack, Reported
from fleche.call import Call, QueryCall
from fleche.errors import Rejected
from tests.helpers.layers import in_memory

LARGE = 20_000_000


def filled(*numbers: int, size: int = 10) -> BaseCache:
    made = in_memory()
    for x in numbers:
        call = Call(
            name="even" if x % 2 == 0 else "odd", arguments={"x": x}, result=bytes([x]) * size
        )
        made.save(call)
    return made


def numbers(cache: BaseCache) -> list[Any]:
    return sorted(call.arguments["x"] for call in cache.query())


class TestOneSignature:
    """push, pull, transfer and sync take conditions as a template or as fields, and progress."""

    def test_transfer(self) -> None:
        target = in_memory()
        assert filled(1, 2, 3).transfer(target, name="odd") == 2
        assert filled(4, 5).transfer(target, QueryCall(name="even"), progress=print) == 1
        assert numbers(target) == [1, 3, 4]

    def test_push_and_pull(self) -> None:
        source, target = filled(1, 2, 3), in_memory()
        seen: list[Reported] = []
        assert source.push(target, QueryCall(name="odd"), progress=seen.append) == 2
        assert target.pull(source, name="even", progress=seen.append) == 1
        assert numbers(target) == [1, 2, 3]
        assert seen == [2, 1]
        for act in (source.push, source.pull):
            with pytest.raises(TypeError, match="only a stack knows"):
                act()

    def test_of_a_stack(self) -> None:
        """It pushes its first layer to all further ones, and pulls from all of them."""
        stack = CacheStack((filled(1, 2), filled(3), filled(4, 5)))
        seen: list[Reported] = []
        assert stack.pull(name="odd", progress=seen.append) == 2
        assert numbers(stack.first) == [1, 2, 3, 5]
        assert seen == [1, 2]
        assert stack.push(progress=seen.append) == 6
        assert [numbers(layer) for layer in stack.layers[1:]] == [[1, 2, 3, 5], [1, 2, 3, 4, 5]]
        assert seen[-1] == 6

    def test_sync(self) -> None:
        one, other = filled(1, 2), filled(3, 4)
        assert one.sync(other, name="odd", progress=lambda number: None).received == 1
        assert numbers(one) == [1, 2, 3]


class TestOptions:
    def test_pop(self) -> None:
        """What has arrived is forgotten here, and nothing else."""
        source, target = filled(1, 2, 3), in_memory()
        target.transfer(target, pop=False)
        assert source.transfer(target.filter(name="odd"), pop=True) == 2
        assert numbers(source) == [2]
        with pytest.raises(Rejected, match="pop refused"):
            source.readonly().transfer(target, pop=True)
        assert source.query().transfer(target, pop=True) == 1
        assert numbers(source) == []

    def test_overwrite(self) -> None:
        """The record of a call that both have is that of the source."""
        source, target = in_memory(), in_memory()
        for store, tag in ((source, "new"), (target, "old")):
            store.save(Call(name="f", arguments={"x": 1}, result=1, metadata={"tags": {"t": tag}}))
        assert source.transfer(target) == 0
        assert target.query().only().metadata == {"tags": {"t": "old"}}
        assert source.transfer(target, overwrite=True) == 1
        assert target.query().only().metadata == {"tags": {"t": "new"}}


class TestReports:
    def test_bytes_and_totals(self) -> None:
        """A number of calls, which knows how many bytes that were, and of how many calls."""
        source, target = filled(1, 2, size=LARGE), in_memory()
        source.transfer(target, name="odd")
        seen: list[Reported] = []
        source.transfer(target, progress=seen.append)
        last = seen[-1]
        assert (last, last.total) == (1, 2)
        assert LARGE <= last.bytes < LARGE * 1.01
        assert seen[0] == 0, "a large value is reported before its call is complete"

    def test_both_ways_count_on(self) -> None:
        seen: list[Reported] = []
        filled(1, size=1000).sync(filled(2, 4, size=1000), progress=seen.append)
        assert seen == [1, 3]
        assert [each.total for each in seen] == [3, 3]
        assert 2500 < seen[-1].bytes < 4500

    def test_what_is_no_progress(self) -> None:
        with pytest.raises(TypeError, match="progress=3: True, or a function"):
            filled(1).transfer(in_memory(), progress=3)  # type: ignore[arg-type]


class TestShown:
    """progress=True shows it to a person."""

    def test_a_bar(self, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("rich")
        filled(1, 2, size=LARGE).transfer(in_memory(), progress=True)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "copying" in shown.err
        assert "2 of 2" in shown.err
        assert "40 MB" in shown.err

    def test_nothing_to_do(self, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("rich")
        in_memory().transfer(in_memory(), progress=True)
        assert "copying" in capsys.readouterr().err

    def test_without_rich(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Plain lines will do."""
        real = builtins.__import__

        def without(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.partition(".")[0] == "rich":
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)
        for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
            monkeypatch.delitem(sys.modules, name)
        filled(1, 2, size=1000).transfer(in_memory(), progress=True)
        err = capsys.readouterr().err
        assert err.startswith("copying: 2 of 2, 2.")
        assert err.endswith(" kB\n")

    @pytest.mark.parametrize("what", ["gc", "verify", "stats"])
    def test_housekeeping(self, what: str, capsys: pytest.CaptureFixture[str]) -> None:
        getattr(filled(1, 2, 3), what)(progress=True)
        assert capsys.readouterr().err
