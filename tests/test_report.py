"""The report: one page that needs no network, runs nothing that it is given, and stays small."""

from __future__ import annotations

import base64
import itertools
import json
import re
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fleche
from fleche.caches import Cache, CacheStack, Local
from fleche.call import Call, QueryCall
from fleche.errors import StorageError
from fleche.remote import PipeChannel, RemoteCache, serve
from fleche.report import write_report
from fleche.storage import CallMemory, Usage, ValueMemory
from tests.helpers.browser import Shown, needs_browser, open_page
from tests.helpers.sweeps import swept

HOSTILE = "</script><img src=x onerror=\"document.title='broken'\"><!--"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def data_of(page: Path) -> dict[str, Any]:
    """What a page holds, as its script reads it."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def record(
    name: str = "f",
    day: int = 1,
    host: str = "laptop",
    seconds: float = 2.0,
    packages: dict[str, str] | None = None,
    **arguments: Any,
) -> Call:
    result = arguments.pop("result", 1.5)
    return Call(
        name=name,
        module="study",
        arguments=arguments,
        result=result,
        metadata={
            "runtime": {
                "started": f"2026-03-{day:02}T10:00:00+00:00",
                "seconds": seconds,
                "host": host,
                "user": "ada",
            },
            "environment": {
                "python": "3.12.1",
                "platform": "Linux",
                "packages": packages or {"ase": "3.23.0", "numpy": "2.4.0"},
            },
        },
    )


@pytest.fixture
def cache() -> Iterator[Cache]:
    with Cache(ValueMemory(), CallMemory()) as made:
        yield made


@fleche.fleche
def inner(x: float) -> float:
    time.sleep(0.01)
    return x**2


@fleche.fleche
def outer(n: int) -> float:
    return sum(inner(float(x)) for x in range(n))


# -- what it says ----------------------------------------------------------------------------------


def test_one_file_without_network(cache: Cache, tmp_path: Path) -> None:
    """Nothing is loaded from anywhere, and the policy of the page forbids that it could be."""
    cache.save(record(x=1))
    written = write_report(cache, tmp_path / "study.html")
    assert written.path == tmp_path / "study.html"
    assert written.calls == written.shown == 1
    assert written.bytes == written.path.stat().st_size
    text = written.path.read_text()
    assert re.findall(r"<(?:link|iframe|object)\b", text) == []
    assert re.findall(r"<script[^>]*\bsrc=", text) == []
    assert "default-src 'none'" in text
    assert "Apache License" in text
    assert [path for path in tmp_path.iterdir() if path.is_file()] == [written.path]


def test_sums_are_over_all_calls_and_the_table_over_the_newest(
    cache: Cache, tmp_path: Path
) -> None:
    """A page is bounded, and says what it leaves out."""
    for day in range(1, 11):
        cache.save(record(x=day, day=day))
    written = write_report(cache, tmp_path / "study.html", most_calls=3)
    data = data_of(written.path)
    assert (written.calls, written.shown) == (10, 3)
    assert data["total"] == 10
    assert [call[1]["x"] for call in data["calls"]] == [10, 9, 8]
    assert data["functions"][0]["calls"] == 10
    assert data["functions"][0]["seconds"] == 20.0
    assert sum(each[3] for each in data["activity"]) == 10


def test_a_query_chooses_the_calls(cache: Cache, tmp_path: Path) -> None:
    """A template, a query or any iterable of calls; counters are those of the functions in it."""
    cache.save(record("f", x=1))
    cache.save(record("g", x=2))
    rows = [
        Usage(hour=1, host="h", user="u", name=name, module="study", hits=number, saved=1.0)
        for name, number in (("f", 1), ("g", 10))
    ]
    cache.backend.note_usage(rows)
    for query in (QueryCall(name="g"), cache.query(name="g"), list(cache.query(name="g"))):
        write_report(cache, tmp_path / "study.html", query)
        data = data_of(tmp_path / "study.html")
        assert [each["name"] for each in data["functions"]] == ["g"]
        assert [each[3] for each in data["usage"]] == [10]


def test_time_saved_comes_from_counted_hits(tmp_path: Path) -> None:
    """What hits have saved is in the page, by machine and hour."""
    with Local(tmp_path / "cache") as cache, fleche.cache(cache):
        for _ in range(3):
            outer(2)
        (row,) = cache.usage("outer")
        data = data_of(write_report(cache, tmp_path / "study.html").path)
    (found,) = [each for each in data["usage"] if data["functions"][each[2]]["name"] == "outer"]
    assert found[3] == 2
    assert found[5] == pytest.approx(row.saved, rel=1e-4)
    assert data["hosts"][found[1]] == f"{row.user}@{row.host}"


def test_time_inside_is_counted_once(tmp_path: Path) -> None:
    """A call that ran inside another one is no time of the other."""
    with Local(tmp_path / "cache") as cache, fleche.cache(cache):
        outer(4)
        whole = cache.query(name="outer").only().duration
        data = data_of(write_report(cache, tmp_path / "study.html").path)
    assert whole is not None
    seconds = {each["name"]: each["seconds"] for each in data["functions"]}
    assert seconds["inner"] >= 0.04
    assert sum(seconds.values()) == pytest.approx(whole, rel=0.2)


def test_lineage(tmp_path: Path) -> None:
    """The calls that a call made are edges, by their places in the page."""
    with Local(tmp_path / "cache") as cache, fleche.cache(cache):
        outer(3)
        data = data_of(write_report(cache, tmp_path / "study.html").path)
    names = [data["functions"][call[0]]["name"] for call in data["calls"]]
    (children,) = [call[7] for call, name in zip(data["calls"], names, strict=True) if call[7]]
    assert [names[place] for place in children] == ["inner"] * 3


def test_shared_values_count_once(tmp_path: Path) -> None:
    """What several calls store together is divided among them."""
    large = np.arange(200_000.0)
    with Local(tmp_path / "cache") as cache:
        for name in ("f", "g"):
            cache.save(record(name, result=large))
        data = data_of(write_report(cache, tmp_path / "study.html").path)
    sizes = [each["bytes"] for each in data["functions"]]
    assert sum(sizes) == pytest.approx(large.nbytes, rel=0.01)
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def test_sizes_are_those_of_the_cache(tmp_path: Path) -> None:
    """Buffers that different values share count once, small equal results in each record."""
    large = np.arange(200_000.0)
    with Local(tmp_path / "cache") as cache:
        for x in range(3):
            cache.save(record("large", x=x, result={"shared": large, "own": x}))
            cache.save(record("small", x=x, result="text " * 400))
        usage = cache.disk_usage()
        data = data_of(write_report(cache, tmp_path / "all.html").path)
        some = data_of(write_report(cache, tmp_path / "some.html", QueryCall(name="small")).path)
    sizes = {call[11]: call[5] for call in data["calls"]}
    assert sizes == {each.key: round(each.bytes) for each in usage.calls}
    assert sum(each["bytes"] for each in data["functions"]) == pytest.approx(usage.bytes, abs=2)
    functions = {each["name"]: each["bytes"] for each in data["functions"]}
    assert functions["large"] == pytest.approx(large.nbytes, rel=0.01)
    assert functions["small"] > 3 * 400
    assert [each["bytes"] for each in some["functions"]] == [functions["small"]]


def test_sizes_of_calls_elsewhere(tmp_path: Path) -> None:
    """A stack measures its layers on this machine: what is on another one alone has no size."""
    with Local(tmp_path / "near") as near, Local(tmp_path / "far") as served:
        near.save(record("near", x=1))
        served.save(record("far", x=1))
        channel = PipeChannel(lambda reader, writer: serve(reader, writer, served))
        with RemoteCache(channel) as far:
            data = data_of(write_report(CacheStack([near, far]), tmp_path / "study.html").path)
    sizes = {data["functions"][call[0]]["name"]: call[5] for call in data["calls"]}
    assert sizes["near"] > 0
    assert sizes["far"] is None
    assert (data["measured"], data["total"]) == (1, 2)


def test_methods_paragraph(cache: Cache, tmp_path: Path) -> None:
    """Versions, machines, dates and the time of computing, ready for a paper."""
    cache.save(record("fit", day=3, x=1, seconds=90.0))
    cache.save(record("fit", day=5, x=2, seconds=60.0, host="cluster"))
    cache.save(record("plot", day=5, x=3, packages={"ase": "3.22.1", "numpy": "2.4.0"}))
    paragraph = data_of(write_report(cache, tmp_path / "study.html").path)["methods"]
    assert paragraph == (
        "3 results of 2 functions (study.fit and study.plot) were computed on cluster and laptop "
        "between 3 March 2026 and 5 March 2026, in 3 min of computing time. Computed with Python "
        "3.12.1, ase 3.23.0 (2) and 3.22.1 (1) and numpy 2.4.0. Results, their provenance and the "
        f"versions above were recorded with fleche {fleche.__version__}."
    )


def test_methods_without_an_environment(cache: Cache, tmp_path: Path) -> None:
    """Where no versions were recorded, the paragraph does not make them up."""
    cache.save(Call(name="f", result=1))
    paragraph = data_of(write_report(cache, tmp_path / "study.html").path)["methods"]
    assert "were not recorded" in paragraph


def test_functions_of_one_name(cache: Cache, tmp_path: Path) -> None:
    """Those of several modules are told apart, and all others are called what they are."""
    cache.save(record("fit"))
    cache.save(record("fit").replace(module="__main__"))
    cache.save(record("plot"))
    functions = data_of(write_report(cache, tmp_path / "r.html").path)["functions"]
    assert {(each["module"], each["name"]) for each in functions} == {
        ("study", "study.fit"),
        ("__main__", "fit"),
        ("study", "plot"),
    }


def test_an_empty_cache(cache: Cache, tmp_path: Path) -> None:
    """No calls are no error."""
    assert write_report(cache, tmp_path / "study.html").calls == 0
    assert data_of(tmp_path / "study.html")["methods"] == "No calls."


def test_numbers_in_summaries_can_be_plotted(cache: Cache, tmp_path: Path) -> None:
    """Scalars of numpy are numbers; of a dataclass, the numbers that its summary shows."""
    from tests.helpers.values import Fit

    cache.save(record("f", result=np.float64(2.5)))
    cache.save(record("g", result=Fit(a0=3.61, bulk_modulus=137.25)))
    cache.save(record("h", result=float("nan")))
    calls = {
        call[11]: call[2]
        for call in data_of(write_report(cache, tmp_path / "r.html").path)["calls"]
    }
    results = [calls[call.key] for call in cache.query().sorted("name")]
    assert results[0][:2] == [2.5, "float64"]
    assert results[1][3] == {"a0": 3.61, "bulk_modulus": 137.25}
    assert results[2][0] == ["nan"]  # and not a text in quotes


# -- what can be seen of results -------------------------------------------------------------------


def previews_of(cache: Cache, path: Path, **options: Any) -> list[dict[str, Any]]:
    return list(data_of(write_report(cache, path, **options).path)["previews"].values())


def test_an_array_is_a_strip(cache: Cache, tmp_path: Path) -> None:
    """Levels of 0 to 254 from the least to the greatest; 255 is no number."""
    cache.save(record(result=np.array([[0.0, 1.0], [np.nan, 2.0]])))
    (found,) = previews_of(cache, tmp_path / "r.html")
    assert (found["kind"], found["shape"], found["dtype"]) == ("array", [2, 2], "float64")
    assert list(base64.b64decode(found["levels"])) == [0, 127, 255, 254]
    assert (found["low"], found["high"], found["mean"]) == (0.0, 2.0, 1.0)


def test_a_large_array_is_thinned(cache: Cache, tmp_path: Path) -> None:
    """However large an array, its strip is small."""
    cache.save(record(result=np.random.default_rng(1).normal(size=(1000, 30, 40))))
    (found,) = previews_of(cache, tmp_path / "r.html")
    assert (found["width"], found["height"]) == (240, 48)
    assert len(base64.b64decode(found["levels"])) == 240 * 48


def test_a_frame_shows_its_first_rows(cache: Cache, tmp_path: Path) -> None:
    """Columns, index and the first rows; how many there are in all is said."""
    cache.save(record(result=pd.DataFrame({"a": range(20), "b": ["x"] * 20})))
    (found,) = previews_of(cache, tmp_path / "r.html")
    assert found["columns"] == ["", "a", "b"]
    assert found["rows"][1] == ["1", "1", "x"]
    assert (len(found["rows"]), found["size"]) == (8, [20, 2])


def test_an_image_is_inline(cache: Cache, tmp_path: Path) -> None:
    """Bytes that are a picture are shown as one."""
    cache.save(record(result=PIXEL))
    (found,) = previews_of(cache, tmp_path / "r.html")
    assert found["source"] == f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"


def test_containers_and_text(cache: Cache, tmp_path: Path) -> None:
    """Dicts and lists as rows, long lists of numbers as a strip, long texts as such."""
    cache.save(record("a", result={"energy": -1.5, "steps": [1, 2]}))
    cache.save(record("b", result=[float(x) for x in range(100)]))
    cache.save(record("c", result="word " * 1000))
    kinds = {each["kind"]: each for each in previews_of(cache, tmp_path / "r.html")}
    assert kinds["table"]["rows"][0] == ["energy", "-1.5"]
    assert kinds["array"]["shape"] == [100]
    assert kinds["text"]["size"] == 5000
    assert len(kinds["text"]["text"]) == 2000


def test_values_of_users_are_opened_only_if_all_are_trusted(cache: Cache, tmp_path: Path) -> None:
    """By default, opening runs nothing; figures are drawn where all values are trusted."""
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    cache.save(record(result=figure))
    assert previews_of(cache, tmp_path / "r.html") == []
    (found,) = previews_of(cache, tmp_path / "r.html", previews="all")
    assert found["source"].startswith("data:image/png;base64,")


def test_no_value_runs_code(cache: Cache, tmp_path: Path) -> None:
    """A value that would run something when it is opened stays closed."""
    from tests.helpers.values import Touches

    cache.save(record(result=Touches(str(tmp_path / "touched"))))
    assert previews_of(cache, tmp_path / "r.html") == []
    assert not (tmp_path / "touched").exists()


def test_no_previews_if_none_are_wanted(cache: Cache, tmp_path: Path) -> None:
    """Records alone then make the page."""
    cache.save(record(result=np.zeros(3)))
    assert previews_of(cache, tmp_path / "r.html", previews="none") == []


def test_a_value_that_is_gone_has_no_preview(tmp_path: Path) -> None:
    """A damaged or missing value costs its preview, not the page."""
    with Local(tmp_path / "cache") as cache:
        key = cache.save(record(result=np.zeros(100_000)))
        result = cache.load(key).record.result
        assert result is not None
        cache.evict(result.digest)
        assert previews_of(cache, tmp_path / "r.html") == []


# -- bad input -------------------------------------------------------------------------------------


def test_impossible_options(cache: Cache, tmp_path: Path) -> None:
    """Options that cannot be are refused before anything is read."""
    with pytest.raises(ValueError, match='"plain", "all" or "none"'):
        write_report(cache, tmp_path / "r.html", previews="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        write_report(cache, tmp_path / "r.html", most_calls=0)


def test_a_file_that_cannot_be_written(cache: Cache, tmp_path: Path) -> None:
    """The error names the file; an older report stays as it is."""
    with pytest.raises(StorageError, match=r"absent.r\.html: the report cannot be written"):
        write_report(cache, tmp_path / "absent" / "r.html")


# -- in a browser ----------------------------------------------------------------------------------


def charts_in(shown: Shown) -> set[str]:
    """The charts in which something was drawn."""
    return set(re.findall(r'id="(\w+)"[^>]*_echarts_instance_', shown.html))


def with_script(page: Path, script: str) -> Path:
    """A copy of a page that runs ``script`` at its end, and shows what that returns."""
    text = re.sub(r"<meta http-equiv=[^>]*>", "", page.read_text())
    copy = page.with_name(f"{page.stem}-watched.html")
    watch = f"document.documentElement.dataset.found = JSON.stringify((() => {{{script}}})())"
    copy.write_text(text.replace("</body>", f"<script>{watch}</script></body>"))
    return copy


def found_in(shown: Shown) -> Any:
    """What the script of :func:`with_script` returned."""
    found = re.search(r'data-found="([^"]*)"', shown.html)
    assert found is not None
    return json.loads(unescape(found[1]))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with Local(tmp_path_factory.mktemp("study") / "cache") as cache:
        with fleche.cache(cache):
            for n in (2, 3, 5, 5):
                outer(n)
        cache.save(record("strip", result=np.arange(30.0)))
        yield cache


@needs_browser
@pytest.mark.timeout(180)
class TestInABrowser:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_everything_is_drawn(self, study: Local, tmp_path: Path, scheme: str) -> None:
        """Charts, table, figures and paragraph are there, and the console is silent."""
        page = write_report(study, tmp_path / "study.html", title="A study").path
        dark = 0 if scheme == "dark" else 1
        shown = open_page(page, f"--blink-settings=preferredColorScheme={dark}")
        assert shown.console == []
        assert f'data-theme="{scheme}"' in shown.html
        assert 'data-ready="true"' in shown.html
        assert charts_in(shown) >= {"activity", "treemap", "lineage"}
        assert shown.html.count('class="chart" _echarts_instance_') >= 1, "plots"
        assert len(re.findall(r'<div class="row"', shown.html)) == study.query().count()
        assert '<h1 id="title">A study</h1>' in shown.html
        assert re.search(r'id="saved">\d+(\.\d+)?<small>m?s</small>', shown.html)
        assert "Computed with Python" in shown.html

    def test_one_call(self, study: Local, tmp_path: Path) -> None:
        """The address of a call opens its record, its packages, and what it called."""
        page = write_report(study, tmp_path / "study.html").path
        key = max(study.query(name="outer"), key=lambda call: len(call.record.children)).key
        shown = open_page(page, fragment=f"#call={key[:12]}")
        drawer = shown.html[shown.html.index('id="drawer"') :]
        assert shown.console == []
        for text in ("inner(x=4)", "Calls", "Packages", "Code", f"{key[:16]}…", "numpy"):
            assert text in drawer

    def test_a_strip_is_painted(self, study: Local, tmp_path: Path) -> None:
        """The preview of an array is a canvas with its range below."""
        page = write_report(study, tmp_path / "study.html").path
        shown = open_page(page, fragment=f"#call={study.query(name='strip').only().key}")
        assert shown.console == []
        assert '<canvas id="strip" width="30" height="1"' in shown.html
        assert "<span>max 29</span>" in shown.html

    @pytest.mark.parametrize(
        ("number", "options"),
        swept(
            itertools.product((3, 40), ((), ("--hide-scrollbars",), ("--window-size=700,2400",))),
            lambda case: case in ((3, ("--hide-scrollbars",)), (40, ())),
        ),
    )
    def test_headings_stand_over_their_columns(
        self, cache: Cache, tmp_path: Path, number: int, options: tuple[str, ...]
    ) -> None:
        """With few rows and many, with bars and without, and scrolled to the right."""
        for x in range(number):
            cache.save(record(x=x))
        page = write_report(cache, tmp_path / "study.html").path
        script = """
            const body = document.getElementById("table-body");
            body.scrollLeft = 150;
            body.dispatchEvent(new Event("scroll"));
            const left = (cell) => cell.getBoundingClientRect().left;
            return [".row.header", ".body .row"]
                .map((each) => [...document.querySelector(each).children].map(left));
        """
        headings, cells = found_in(open_page(with_script(page, script), *options))
        assert len(headings) == 8
        assert headings == pytest.approx(cells, abs=0.5)

    def test_the_newest_call_is_the_first_row(self, cache: Cache, tmp_path: Path) -> None:
        """However shortly they follow each other; by any other column, those that are alike."""
        for x in range(5):
            call = record(x=x)
            call.metadata["runtime"]["started"] = f"2026-03-01T10:00:00.{x:06}+00:00"
            cache.save(call)
        page = write_report(cache, tmp_path / "study.html").path
        script = """
            const rows = () => [...document.querySelectorAll(".body .row")]
                .map((row) => row.children[1].textContent);
            const click = (name) => [...document.querySelectorAll(".header button")]
                .find((each) => each.textContent === name).click();
            return [rows(), ...["Started", "Took", "Took"].map((each) => (click(each), rows()))];
        """
        newest = [f"x={x}" for x in reversed(range(5))]
        shown = found_in(open_page(with_script(page, script)))
        assert shown == [newest, newest[::-1], newest, newest]

    def test_hostile_text_is_text(self, tmp_path: Path) -> None:
        """Names, arguments, tags, machines and previews from elsewhere are never markup or code."""
        with Cache(ValueMemory(), CallMemory()) as cache:
            for number in range(3):
                call = record(HOSTILE, result={HOSTILE: HOSTILE, "n": [number] * 3}, x=HOSTILE)
                call.module = HOSTILE
                call.version = HOSTILE
                call.arguments = {"x": HOSTILE, HOSTILE: number}
                call.metadata["runtime"].update(host=HOSTILE, user=HOSTILE)
                call.metadata["environment"]["packages"] = {HOSTILE: HOSTILE}
                call.metadata["tags"] = {HOSTILE: HOSTILE}
                key = cache.save(call)
            page = write_report(cache, tmp_path / "study.html", title=HOSTILE).path
        shown = open_page(page, fragment=f"#call={key}")
        assert shown.console == []
        assert 'data-ready="true"' in shown.html
        assert "<title>broken" not in shown.html
        assert re.findall(r"<img[^>]*onerror", shown.html) == []
        assert shown.html.count("&lt;/script&gt;") > 5

    def test_an_empty_page(self, cache: Cache, tmp_path: Path) -> None:
        """Without calls, each part says that there is nothing, and no more."""
        shown = open_page(write_report(cache, tmp_path / "study.html").path)
        assert shown.console == []
        assert 'data-ready="true"' in shown.html
        texts = {
            name: re.search(rf'id="{name}"[^>]*>(?:<p[^>]*>)?([^<]*)<', shown.html)
            for name in ("saved-note", "activity", "treemap", "lineage", "table-space", "methods")
        }
        assert {name: found and found[1] for name, found in texts.items()} == dict.fromkeys(
            texts, "No calls."
        )
        assert "A click" not in shown.html.partition("<script")[0]

    def test_whole_numbers_of_arguments(self, cache: Cache, tmp_path: Path) -> None:
        """As they are written in Python; with commas they would look like several."""
        cache.save(record(n=100000, result=-2000000))
        table = open_page(write_report(cache, tmp_path / "study.html").path).html
        assert "n=100000" in table.partition("<script")[0]
        assert "100,000" not in table.partition("<script")[0]
        assert "-2000000" in table.partition("<script")[0]

    def test_calls_of_which_no_more_is_known(self, cache: Cache, tmp_path: Path) -> None:
        """Without counters and times, and with a filter that finds nothing, the page says so."""
        cache.save(Call(name="f", result=1))
        page = write_report(cache, tmp_path / "study.html").path
        script = """
            document.getElementById("filter").value = "nothing";
            document.getElementById("filter").dispatchEvent(new Event("input"));
        """
        shown = open_page(with_script(page, script))
        assert "No use of these results has been counted." in shown.html
        assert "When these calls were made is not recorded" in shown.html
        assert "No call matches the filter." in shown.html.partition("<script")[0]

    @pytest.mark.slow
    def test_ten_thousand_calls(self, cache: Cache, tmp_path: Path) -> None:
        """A page of 10,000 calls is a few megabytes, and only the rows in sight are elements."""
        for number in range(10_000):
            day, host = 1 + number % 28, f"node{number % 4}"
            cache.save(record("scan", day=day, host=host, x=number, y=f"s{number % 5}"))
        written = write_report(cache, tmp_path / "study.html")
        assert written.bytes < 6_000_000
        shown = open_page(written.path)
        assert shown.console == []
        assert 'data-ready="true"' in shown.html
        assert 10 < len(re.findall(r'<div class="row"', shown.html)) < 100
        assert "10,000 calls" in shown.html

    def test_the_browser_tells_of_errors(self, tmp_path: Path) -> None:
        """What these tests rely on: an error on the console is seen, and a policy is enforced."""
        page = tmp_path / "page.html"
        policy = '<meta http-equiv="Content-Security-Policy" content="script-src \'none\'">'
        page.write_text("<p>here<script>throw new Error('broken')</script>")
        assert "broken" in "".join(open_page(page).console)
        page.write_text(f"{policy}<p>here<script>document.title = 'ran'</script>")
        shown = open_page(page)
        assert "Content Security Policy" in "".join(shown.console)
        assert "ran" not in shown.html.partition("<script>")[0]
