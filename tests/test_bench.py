"""The benchmarks work; whether fleche is quick is for `scripts/bench` to say, not for a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("cachier", reason="the benchmarks need the extra `bench`")
pytest.importorskip("diskcache")
pytest.importorskip("joblib")

from scripts.benchmarks import measure
from scripts.benchmarks.__main__ import main, use_memory
from scripts.benchmarks.measure import Benchmark, Contender, Measure, Setting, Target
from scripts.benchmarks.report import as_text, target_lines
from scripts.benchmarks.suites import suites
from tests.helpers.sweeps import swept

# what the peers do is none of our warnings
pytestmark = pytest.mark.filterwarnings("default")


# take long even when they are tiny
SLOW = ("remote-batch-delayed", "remote-memory-client")


def first_of_each_suite() -> set[str]:
    return {next(name for name in each if name not in SLOW) for each in suites("all").values()}


BENCHMARKS = swept(
    (
        # the remote ones start an sshd
        pytest.param(suite, name, id=name, marks=[pytest.mark.ssh] if suite == "remote" else [])
        for suite, benchmarks in suites("all").items()
        for name in benchmarks
    ),
    lambda case: case.values[1] in first_of_each_suite(),
)


@pytest.mark.parametrize(("suite", "name"), BENCHMARKS)
def test_a_benchmark_runs_when_it_is_tiny(suite: str, name: str, tmp_path: Path) -> None:
    """Each gives a sample for every contender, and a ratio of one for the reference."""
    (tmp_path / "own").mkdir()
    with ExitStack() as stack:
        benchmark = suites(suite)[suite][name](
            Setting(tmp_path / "own", tmp_path, stack, quick=True)
        )
        outcomes = measure.measure(benchmark, 1, quick=True)
    assert [found.contender for found in outcomes] == [who.name for who in benchmark.contenders]
    assert next(o for o in outcomes if o.contender == benchmark.reference).ratio == 1
    assert all(sample >= 0 for found in outcomes for sample in found.samples)


def script(samples: dict[str, list[float]]) -> Measure:
    """A measure that has the numbers ready."""
    return Measure("s", lambda who, _: iter(samples[who.name]).__next__)


def contenders(*names: str) -> list[Contender]:
    return [Contender(name, object) for name in names]


def test_ratios_are_those_of_the_same_round() -> None:
    """A round in which the machine is busy makes all contenders slow, and no ratio worse."""
    measured = script({"a": [1.0, 10.0, 2.0], "b": [3.0, 30.0, 6.0]})
    ours, theirs = measure.measure(Benchmark("work", contenders("a", "b"), "a", measured), 3)
    assert ours.ratios == [1.0, 1.0, 1.0]
    assert theirs.ratios == [3.0, 3.0, 3.0]
    assert theirs.ratio == 3.0
    assert theirs.spread == (3.0, 3.0)


def test_contenders_take_turns() -> None:
    """A B, B A, so that whatever else the machine does meets both, and neither is always second."""
    turns: list[str] = []
    who = [Contender(name, object, lambda name=name: turns.append(name)) for name in "AB"]
    measure.measure(Benchmark("work", who, "A"), 2)
    assert "".join(turns[2:]) == "ABBA"


@pytest.mark.parametrize("count", range(2, 11))
def test_everybody_comes_after_everybody(count: int) -> None:
    """Each is first, second, ... equally often, and equally often after each other one."""
    rows = [measure.order(count, number) for number in range(count * (1 + count % 2))]
    for place in range(count):
        assert Counter(row[place] for row in rows) == dict.fromkeys(range(count), len(rows) / count)
    after = Counter(pair for row in rows for pair in pairwise(row))
    assert len(after) == count * (count - 1)
    assert len(set(after.values())) == 1


def test_the_reference_must_be_a_contender() -> None:
    with pytest.raises(ValueError, match="no contender is called 'c'"):
        Benchmark("work", contenders("a", "b"), "c")


def test_the_text_says_ratios_first() -> None:
    measured = script({"a": [0.002], "b": [0.003]})
    benchmark = Benchmark("work", contenders("a", "b"), "a", measured)
    text = as_text("name", benchmark, measure.measure(benchmark, 1))
    assert "b  1.50  (1.50 to 1.50)" in text
    assert text.index("1.50") < text.index("a 2 ms, b 3 ms")


def test_the_text_says_whether_a_target_is_reached() -> None:
    """A target is a bound of the ratio, or of what is added; the median of the rounds counts."""
    measured = script({"a": [2.0, 2.0, 9.0], "b": [4.0, 4.0, 4.0]})
    targets = [Target("a", "b", 0.5), Target("b", "a", 1.9), Target("b", "a", 2.5, added=True)]
    benchmark = Benchmark("work", contenders("a", "b"), "a", measured, targets=targets)
    lines = target_lines(benchmark, measure.measure(benchmark, 3))
    assert lines == [
        "target: a \u2264 0.5 of b: 0.50, reached",
        "target: b \u2264 1.9 of a: 2.00, not reached",
        "target: b \u2264 2.5 s over a: 2 s over a, reached",
    ]


def test_the_text_says_what_could_be() -> None:
    """Beside a target stands what a contender takes that does no more than it must."""
    measured = script({"a": [3.0], "b": [1.0], "bare": [2.0]})
    targets = [Target("a", "b", 1.5, least="bare")]
    benchmark = Benchmark("work", contenders("a", "b", "bare"), "a", measured, targets=targets)
    (line,) = target_lines(benchmark, measure.measure(benchmark, 1))
    assert line == "target: a \u2264 1.5 of b: 3.00, not reached (bare: 2.00)"


def test_a_target_is_of_contenders() -> None:
    with pytest.raises(ValueError, match="no contender is called 'c'"):
        Benchmark("work", contenders("a", "b"), "a", targets=[Target("a", "c", 1.0)])
    with pytest.raises(ValueError, match="no contender is called 'd'"):
        Benchmark("work", contenders("a", "b"), "a", targets=[Target("a", "b", 1.0, least="d")])


@pytest.mark.timeout(240)
def test_drawings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--plots` draws the targets, and hits by their size, as SVG that is sound XML."""
    main(["local", "--quick", "--only", "hit-small", "--only", "hits-by", "--plots", str(tmp_path)])
    assert "targets:" in capsys.readouterr().out
    for name in ("targets", "sizes"):
        root = ET.parse(tmp_path / f"{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(root) > 4


def test_they_need_nothing_of_the_tests() -> None:
    """From a fresh clone `scripts/bench` installs no pytest."""
    program = (
        "import sys, scripts.benchmarks.local, scripts.benchmarks.remote, scripts.benchmarks.house;"
        "print([name for name in sys.modules if name.split('.')[0] in ('pytest', 'tests')])"
    )
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.slow
def test_the_house_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """What there is to read, and how many calls a hit and a miss run through."""
    main(["house"])
    table = capsys.readouterr().out
    found = dict(line.rsplit("  ", 1) for line in table.splitlines())
    found = {name.strip(): value for name, value in found.items()}
    assert int(found["lines of code"]) > int(found["files"]) > 0
    for where in ("local", "files", "remote (client)"):
        hit, miss = (
            int(found[f"{where}, {what}: calls / functions / modules / depth"].split(" / ")[0])
            for what in ("hit", "miss")
        )
        assert 0 < hit < miss


def grab() -> bytes:
    return b"x" * 50_000_000


def test_a_system_that_does_not_tell_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS: no memory is used for nothing."""
    names = {name: each for name, each in os.sysconf_names.items() if name != "SC_AVPHYS_PAGES"}
    monkeypatch.setattr(os, "sysconf_names", names)
    monkeypatch.setattr(os, "sysconf", names.__getitem__)
    use_memory()


@pytest.mark.skipif(not measure.STATUS.exists(), reason="nothing to compare it with")
def test_the_peak_of_a_system_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told in bytes, by getrusage(2)."""
    told = measure._high_water()
    monkeypatch.setattr(measure, "STATUS", Path("/nowhere"))
    assert 0.9 * told < measure._high_water() < 1000 * told


def test_peak_memory_is_that_of_the_work_alone() -> None:
    """50 MB are 50 MB, whatever the interpreter itself takes."""
    assert measure.peak_memory(grab) == pytest.approx(50_000_000, rel=0.1)


def test_the_command_line_writes_every_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--json` has what the table sums up."""
    path = tmp_path / "bench.json"
    main(["digest", "--quick", "--only", "digest-dict", "--json", str(path)])
    assert "digest-dict" in capsys.readouterr().out
    (found,) = json.loads(path.read_text())
    assert found["reference"] == "fleche"
    assert len(found["contenders"][0]["samples"]) == 2


def test_a_page_of_what_was_measured(tmp_path: Path) -> None:
    """`--page` has a row for each target; `--from` makes it again without measuring."""
    found, page, again = tmp_path / "bench.json", tmp_path / "a.md", tmp_path / "b.md"
    main(["digest", "--quick", "--only", "digest", "--json", str(found), "--page", str(page)])
    targets = [target for each in json.loads(found.read_text()) for target in each["targets"]]
    lines = page.read_text().splitlines()
    assert targets
    marks = [line.split("|")[5].strip() for line in lines if line.startswith("|")]
    assert len([mark for mark in marks if mark.endswith("reached")]) == len(targets)
    main(["--from", str(found), "--page", str(again), "--plots", str(tmp_path / "plots")])
    assert again.read_text() == page.read_text()
    assert (tmp_path / "plots" / "targets.svg").is_file()
