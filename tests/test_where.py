"""Conditions as text: what they mean, what they refuse, and what storages need not look at."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from fleche.call import Call, QueryCall, parse_where
from tests.helpers.layers import in_files, in_memory

NOW = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)

FIT = Call(
    name="fit",
    module="study.eos",
    version=3,
    arguments={"v": 0.5, "metal": "Cu", "relax": True, "name": "x", "n": 0},
    result=12.5,
    metadata={
        "tags": {"study": "eos", "round": 2},
        "runtime": {"started": "2026-11-20T08:00:00.000000+00:00", "user": "ada", "seconds": 3.0},
        "environment": {"packages": {"numpy": "2.4"}},
    },
)

TRUE = [
    "v >= 0.5",
    "v == 0.5",
    "0.1 < v <= 0.5",
    "0.5 <= v",
    "-1 < v",
    "v > -1",
    "v in (0.1, 0.5)",
    "v not in [0.1]",
    'metal == "Cu" and v < 1',
    'metal == "Ag" or v < 1',
    'not metal == "Ag"',
    'not (metal == "Ag" or v > 1)',
    'tag.study == "eos"',
    'tags.study == "eos" and tag.round >= 2',
    'v >= 0.5 and tag.study=="eos"',
    "result > 12",
    "seconds < 4",
    'name == "fit"',
    'arg.name == "x"',
    'like(name, "f*") and like(metal, "C?")',
    'module == "study.eos"',
    "version == 3",
    'user == "ada"',
    'runtime.user != "bob"',
    "relax",
    "relax == True",
    "not n",
    'started >= "2026-11-20T07:00:00+00:00"',
    'started < "2026-11-25T00:00:00Z"',
    'environment.packages.numpy == "2.4"',
]
FALSE = [
    "v > 0.5",
    "v != 0.5",
    "0.1 < v < 0.5",
    'v == "0.5"',
    "relax == 1",
    "absent == 1",
    "absent != 1",
    "absent not in (1, 2)",
    "absent",
    'tag.absent != "a"',
    'tag.study != "eos"',
    'environment.packages.numpy == "1.0"',
    "seconds > 4",
    'like(metal, "A*")',
    "n",
]


@pytest.mark.parametrize("text", TRUE)
def test_is_met(text: str) -> None:
    """What is true of a call; the template that is made of it matches it, too."""
    where = parse_where(text)
    record = FIT.to_record()
    assert where.matches(record)
    assert where.template.matches(record)


@pytest.mark.parametrize("text", FALSE)
def test_is_not_met(text: str) -> None:
    """What is false of it; a call that lacks what is named meets no comparison."""
    assert not parse_where(text).matches(FIT.to_record())


def test_ages_count_backwards() -> None:
    """``started >= "2d"`` is what began in the last two days."""
    soon = datetime.now(timezone.utc) - timedelta(hours=1)
    call = Call(name="f", result=1, metadata={"runtime": {"started": soon.isoformat()}})
    assert parse_where('started >= "2h"').matches(call.to_record())
    assert not parse_where('started >= "30min"').matches(call.to_record())


def test_storages_look_for_what_they_can() -> None:
    """What stands beside ``and`` goes into the template; the rest is looked at afterwards."""
    found = parse_where('v >= 0.5 and tag.study == "eos" and (metal == "Cu" or n == 1)')
    assert set(found.template.arguments) == {"v"}
    assert set(found.template.metadata) == {"tags"}
    assert parse_where('v > 1 or metal == "Cu"').template == QueryCall()


def test_a_search_finds_the_same(tmp_path: Path) -> None:
    """Over a storage: the template narrows, and never leaves out what meets the condition."""
    for cache in (in_memory(), in_files(tmp_path)):
        for v in range(10):
            for metal in ("Cu", "Ag"):
                cache.save(Call(name="f", arguments={"v": v, "metal": metal}, result=v * 2.0))
        for text, expected in [
            ("2 <= v < 5", 6),
            ('2 <= v < 5 and metal == "Cu"', 3),
            ('v == 1 or v == 2 and metal == "Ag"', 3),
            ("result in (2, 4.0)", 4),
        ]:
            where = parse_where(text)
            found = [c for c in cache.query(where.template) if where.matches(c.record)]
            assert len(found) == expected, text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a condition"),
        ("v =", "not a condition at column"),
        ("v = 3", r"not a condition at column \d+: .*; what is equal is compared by =="),
        ("v >= 3 +", r"not a condition.*: invalid syntax$"),
        ("v >= w", "compared with a number"),
        ("3 < 4", "compared with a number"),
        ("v + 1 > 2", "compared with a number"),
        ("v > 1 + 1", "is expected"),
        ("v > b'x'", "is expected"),
        ("v > -'x'", "a number is expected"),
        ("__import__('os').system('true')", "only function"),
        ("like(v)", "only function"),
        ("like(3, 'x')", "a name is expected"),
        ("like(v, 3)", "a pattern is a text"),
        ("v is None", "compared with"),
        ("v in 3", "'in' is followed by a list"),
        ("name not in 'abc'", "'in' is followed by a list"),
        ("v == [1, 2]", "any other comparison by one value"),
        ("[v for v in x]", "comparison is expected"),
        ("lambda: 1", "comparison is expected"),
        ("started > 'soon'", "no time"),
        ("(" * 300 + "v" + ")" * 300, "not a condition"),
    ],
)
def test_anything_else_is_refused(text: str, said: str) -> None:
    """It is no code: what is no condition is one error that shows the place."""
    with pytest.raises(ValueError, match=said):
        parse_where(text)
