"""What is said of values that do not fit: also for the options of a user's own storage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from fleche.config._validate import ConfigPath, convert, enumerated, plain, suggestion
from fleche.errors import ConfigError

HERE = ConfigPath("here", Path("/"))


class Inner(msgspec.Struct, frozen=True):
    x: int


class Outer(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    inner: Inner = Inner(1)
    many: list[Inner] = []
    named: dict[str, Inner] = {}
    either: int | str | None = None
    some: list[str] | dict[str, int] | bool = False
    percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    level: Literal[1, 2] = 1
    listed: list[str] = []
    table: dict[str, Any] = {}
    renamed: int = msgspec.field(name="re-named", default=0)

    def __post_init__(self) -> None:
        if self.percent == 99:
            raise ValueError("not `99`, please")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"inner": 3}, "here.inner: expected a table, got int"),
        ({"inner": {}}, "here.inner: missing required key 'x'"),
        ({"inner": {"x": "1"}}, "here.inner.x: expected int, got str"),
        ({"many": [{"x": 1}, {"x": None}]}, "here.many[1].x: expected int, got nothing"),
        ({"named": {"a b": {"x": "1"}}}, "here.named.'a b'.x: expected int, got str"),
        ({"either": 1.5}, "here.either: expected int or str, got float"),
        ({"some": [1]}, "here.some[0]: expected str, got int"),
        ({"some": {"a": "1"}}, "here.some.a: expected int, got str"),
        ({"some": 3}, "here.some: expected an array of str, a table or bool, got int"),
        ({"percent": 101}, "here.percent: expected int of at least 0 and of at most 100, got 101"),
        ({"level": 3}, "here.level: expected 1 or 2, got 3"),
        ({"level": "1"}, "here.level: expected int, got str"),
        ({"listed": "a"}, "here.listed: expected an array of str, got str"),
        ({"table": [1]}, "here.table: expected a table, got array"),
        ({"renamed": 1}, "here.renamed: unknown key, did you mean 're-named'?"),
        ({"percent": 99}, "here: not 99, please"),
    ],
)
def test_refused(table: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(table, Outer, HERE)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"inner": {"x": 1, "unknown": "where the struct allows it"}},
        {"either": "a", "some": {"a": 1}, "percent": 100, "re-named": 3},
    ],
)
def test_accepted(table: dict[str, Any]) -> None:
    convert(table, Outer, HERE)


def test_unknown_key_without_a_label() -> None:
    with pytest.raises(ConfigError, match=r"^here\.zzz: unknown key; known are either, inner, "):
        convert({"zzz": 1}, Outer, HERE)


def test_plain() -> None:
    given = {"a": (1, Path("x")), "b": None, "c": {"d": None}, "e": [None]}
    assert plain(given) == {"a": [1, "x"], "c": {}, "e": [None]}


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("hots", "host"), ("HOST", "host"), ("Host", "host"), ("xyz", None), ("", None)],
)
def test_suggestion(wrong: str, meant: str | None) -> None:
    assert suggestion(wrong, ["host", "python"]) == meant


def test_enumerated() -> None:
    assert enumerated(["a"]) == "a"
    assert enumerated(["a", "b", "c"], "and") == "a, b and c"


class TestPlace:
    def test_path(self) -> None:
        file = ConfigPath("/etc/fleche.toml: ", Path("/etc"))
        assert str(file) == "/etc/fleche.toml"
        assert str(file.key("a").index(1).key("b.c")) == "/etc/fleche.toml: a[1].'b.c'"

    @pytest.mark.parametrize(
        ("path", "expected"),
        [("x", "/base/x"), ("../x", "/x"), ("/x", "/x"), ("./a//b/", "/base/a/b"), (".", "/base")],
    )
    def test_resolve(self, path: str, expected: str) -> None:
        assert ConfigPath("p", Path("/base")).resolve(path) == expected

    def test_resolve_home(self, tmp_home: Path) -> None:
        assert ConfigPath("p", Path("/base")).resolve("~/x") == str(tmp_home / "x")
        assert ConfigPath("p", Path("/base")).resolve("a/~/x") == "/base/a/~/x"
