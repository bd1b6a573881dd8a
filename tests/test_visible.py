"""What a person sees while it works: lines in the log, and short tracebacks."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fleche
from fleche import cache
from tests.helpers.caches import cache_factory
from tests.helpers.layers import in_memory
from tests.helpers.serving import Serving


@fleche.fleche(version=1)
def energy(el: str, v: float) -> list[float]:
    if v < 0:
        raise ValueError("no such volume")
    return [v] * 10


@fleche.fleche(version=1)
async def soon(v: float) -> float:
    await asyncio.sleep(0)
    if v < 0:
        raise ValueError("no such volume")
    return v


class Box:
    def __init__(self, v: float) -> None:
        self.v = v

    @fleche.fleche(version=1)
    def energy(self) -> list[float]:
        return energy("Fe", self.v)


@pytest.fixture(autouse=True)
def store() -> Iterator[None]:
    cache(in_memory())
    yield
    fleche.verbose(False)


class TestLog:
    def test_hits_misses_and_what_is_stored(self, caplog: pytest.LogCaptureFixture) -> None:
        """One line each, on the logger fleche.calls, with the reason, the time and the bytes."""
        with caplog.at_level(logging.DEBUG, "fleche.calls"):
            energy("Fe", 1.0)
            energy("Fe", 2.0)
            energy("Fe", 2.0)
        first, stored, second, _, hit = [each.getMessage() for each in caplog.records]
        assert first == "miss: no result of energy() is stored in this cache"
        assert stored.startswith("stored: energy(el='Fe', v=1.0) -> list(10): 1.0, ")
        assert ", took " in stored or "(took " in stored
        assert second.startswith("miss: energy() would be computed: in the nearest stored call")
        assert second.endswith("v was 1.0, not 2.0")
        assert hit.startswith("hit: energy(el='Fe', v=2.0) -> list(10): 2.0")
        assert "saved, " in hit

    def test_hits_of_a_map_and_of_coroutines(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG, "fleche.calls"):
            for _ in range(2):
                list(energy.map(["Fe", "Cu"], [1.0, 2.0]))
                asyncio.run(soon(1.0))
        kinds = Counter(each.getMessage().partition(":")[0] for each in caplog.records)
        assert kinds == {"miss": 3, "stored": 3, "hit": 3}

    def test_a_connection(self, serving: Serving, tmp_path: Path, caplog: Any) -> None:
        with caplog.at_level(logging.INFO, "fleche"):
            remote = serving("pipe", cache_factory("file", tmp_path))
            len(remote), len(remote)
        (line,) = [each.getMessage() for each in caplog.records if "connected" in each.msg]
        assert line.startswith("connected to pipe in 0.")
        assert line.endswith(f" s (fleche {fleche.__version__}, its default cache)")

    def test_a_hit_asks_once_whether_to_log(self) -> None:
        """Nothing is made into text, or into a record of the log, that is not wanted."""
        energy("Fe", 1.0)
        met: Counter[str] = Counter()

        def profile(frame: Any, event: str, arg: object) -> None:
            if event == "call" and frame.f_globals.get("__name__") == "logging":
                met[frame.f_code.co_name] += 1
            if event == "call" and frame.f_code.co_name == "text":
                met["text"] += 1

        sys.setprofile(profile)
        try:
            energy("Fe", 1.0)
        finally:
            sys.setprofile(None)
        assert met <= Counter({"isEnabledFor": 1})


class TestVerbose:
    def test_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        with fleche.verbose():
            energy("Fe", 1.0)
            energy("Fe", 1.0)
        energy("Fe", 1.0)
        lines = capsys.readouterr().err.splitlines()
        assert [line.partition(":")[2].partition(":")[0] for line in lines] == [
            " miss",
            " stored",
            " hit",
        ]
        assert all(line.startswith("fleche: ") for line in lines)

    def test_on_and_off(self, capsys: pytest.CaptureFixture[str]) -> None:
        fleche.verbose()
        fleche.verbose()
        energy("Fe", 1.0)
        fleche.verbose(False)
        energy("Fe", 2.0)
        assert len(capsys.readouterr().err.splitlines()) == 2

    def test_inside_of_itself(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A block gives back what was before."""
        fleche.verbose()
        with fleche.verbose(False):
            energy("Fe", 1.0)
        assert capsys.readouterr().err == ""
        energy("Fe", 1.0)
        assert "hit: " in capsys.readouterr().err

    def test_a_program_with_a_log_of_its_own(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Lines that it writes to the terminal itself do not come twice."""
        handler = logging.StreamHandler(sys.stderr)
        logging.getLogger().addHandler(handler)
        try:
            with fleche.verbose():
                energy("Fe", 1.0)
        finally:
            logging.getLogger().removeHandler(handler)
        assert len(capsys.readouterr().err.splitlines()) == 2


def _frames_of_ours(call: Callable[[], object]) -> list[str]:
    with pytest.raises(ValueError, match="no such volume") as caught:
        call()
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert frames[-1].name in ("energy", "soon")
    root = str(Path(fleche.__file__).parent)
    return [frame.name for frame in frames if frame.filename.startswith(root)]


class TestTracebacks:
    """Between the caller's line and the user's function there is one frame of this package."""

    @pytest.mark.parametrize(
        "call",
        [
            lambda: energy("Fe", -1.0),
            lambda: energy.rerun("Fe", -1.0),
            lambda: list(energy.map(["Fe"], [-1.0])),
            lambda: energy.bind()("Fe", -1.0),
            lambda: energy.call_with(in_memory(), "Fe", -1.0),
            lambda: asyncio.run(soon(-1.0)),
            lambda: asyncio.run(soon.rerun(-1.0)),
            lambda: asyncio.run(soon.bind()(-1.0)),
        ],
    )
    def test_one_frame(self, call: Callable[[], object]) -> None:
        assert len(_frames_of_ours(call)) == 1

    def test_nested_calls_have_one_each(self) -> None:
        assert len(_frames_of_ours(lambda: Box(-1.0).energy())) == 2

    def test_errors_of_the_package_keep_theirs(self) -> None:
        with pytest.raises(TypeError, match="missing") as caught:
            energy("Fe")  # type: ignore[call-arg]
        assert len(traceback.extract_tb(caught.value.__traceback__)) > 2
