"""Calls and what is asked of them: plain data in records, conditions, and patterns."""

from __future__ import annotations

import copy
import enum
import pickle
from datetime import date, datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fleche.caches import BaseCache
from fleche.call import (
    Call,
    Condition,
    QueryCall,
    as_plain,
    between,
    decode_record,
    encode_record,
    like,
    one_of,
    plain_metadata,
    where,
)
from fleche.digest import digest
from fleche.errors import CorruptParcel
from fleche.testing.corpus import a_record
from tests.helpers.caches import cache_factory
from tests.helpers.serving import Serving


class Colour(str, enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    THREE = 3


class Shouting(str):
    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


SCALARS = [
    (None, None),
    (True, True),
    (3, 3),
    (0.5, 0.5),
    ("a", "a"),
    (Number.THREE, 3),
    (Colour.RED, "red"),
    (Shouting("a"), "a"),
    (digest(1), str(digest(1))),
    (np.float64(300.5), 300.5),
    (np.float32(0.1), float(np.float32(0.1))),
    (np.float16(0.5), 0.5),
    (np.int64(2**53 + 1), 2**53 + 1),
    (np.uint64(2**63 - 1), 2**63 - 1),
    (np.bool_(False), False),
    (np.str_("abc"), "abc"),
]

STRANGERS = [
    b"bytes",
    1j,
    Fraction(1, 3),
    [1],
    np.array(1.0),
    np.complex128(1j),
    np.longdouble(0.1),
    np.timedelta64(3, "s"),
    np.datetime64("2024-05-01"),
    np.bytes_(b"bytes"),
]


def is_exactly(found: Any, expected: Any) -> bool:
    return type(found) is type(expected) and bool(found == expected)


class TestPlainData:
    @pytest.mark.parametrize(("value", "expected"), SCALARS, ids=repr)
    def test_scalars(self, value: Any, expected: Any) -> None:
        """A scalar of any class is the builtin that equals it, numpy's among them."""
        assert is_exactly(as_plain(value), expected)
        assert is_exactly(plain_metadata(value), expected)

    @pytest.mark.parametrize("value", STRANGERS, ids=repr)
    def test_everything_else_stays(self, value: Any) -> None:
        """What no builtin equals exactly is never rounded, nor turned into text."""
        assert type(as_plain(value)) is type(value)

    @pytest.mark.parametrize("value", [s for s in STRANGERS if s != [1]], ids=repr)
    def test_everything_else_is_no_metadata(self, value: Any) -> None:
        """The message names the place."""
        with pytest.raises(TypeError, match=r"tags\['t'\]\[0\]: \w+ is not plain data"):
            plain_metadata({"t": [value]}, "tags")

    def test_inside_of_containers(self) -> None:
        """Keys, items and dates too."""
        found = plain_metadata({np.str_("a"): [np.int64(1)], Colour.RED: (date(2024, 5, 1),)})
        assert found == {"a": [1], "red": ["2024-05-01"]}
        assert {type(key) for key in found} == {str}
        assert type(found["a"][0]) is int


class TestRecords:
    def test_digests_are_text(self) -> None:
        """They come back as text, and are equal to digests."""
        record = a_record(x=1).replace(code=digest("code"))
        found = decode_record(encode_record(record))
        assert found == record
        assert found.key == record.key
        assert found.code == digest("code")

    @pytest.mark.parametrize("stranger", [np.float64(1.5), np.int64(1), Fraction(1, 3), object()])
    def test_nothing_turns_into_text(self, stranger: Any) -> None:
        """What is not plain data is refused; it is not stored as what ``str`` makes of it."""
        with pytest.raises(TypeError, match=f"{type(stranger).__name__} .* not plain data"):
            a_record(x=1).replace(metadata={"tags": {"t": stranger}})

    def test_metadata_are_read_when_asked_for(self) -> None:
        """They come back as they were, anew each time, and so does when the call began."""
        runtime = {"started": "2026-01-01T01:00:00+01:00", "seconds": 0.5}
        metadata = {"runtime": runtime, "fleche": {"a": [1]}}
        record = decode_record(encode_record(a_record(x=1).with_metadata(metadata)))
        assert record.metadata == metadata
        assert record.notes == {"a": [1]}
        assert record.began == datetime(2026, 1, 1, tzinfo=timezone.utc)
        record.metadata["runtime"].clear()
        assert record.metadata == metadata
        assert "'seconds': 0.5" in repr(record)

    @pytest.mark.parametrize("broken", [5, ["runtime"], {"runtime": 5}, {1: {}}])
    def test_metadata_that_cannot_be_read(self, broken: Any) -> None:
        """A call is as good without them; it is said where they are asked for."""
        whole = encode_record(a_record(x=1).with_metadata({"x": {"y": "@"}}))
        sound = msgspec.msgpack.encode({"x": {"y": "@"}})
        record = decode_record(whole.replace(sound, msgspec.msgpack.encode(broken)))
        assert record.metadata == {}
        assert record.notes == {}
        assert record.began is None
        assert record.key == a_record(x=1).key
        with pytest.raises(CorruptParcel, match="metadata cannot be read"):
            record.check()

    @pytest.mark.parametrize(("version", "expected"), [s for s in SCALARS if s[1] not in (0, 1)])
    def test_versions(self, version: Any, expected: Any) -> None:
        """The version of a record is a builtin, so that its key is that of its record."""
        record = Call(name="f", version=version, result=1).to_record()
        assert is_exactly(record.version, expected)
        assert decode_record(encode_record(record)).key == record.key

    @pytest.mark.parametrize("version", [True, np.bool_(False), 1j])
    def test_what_is_no_version(self, version: Any) -> None:
        """A record with it could not be read."""
        with pytest.raises(TypeError, match="a number or a string, not"):
            Call(name="f", version=version).to_record()

    @pytest.mark.parametrize("version", [2**63, -(2**70), "half \ud800"])
    def test_versions_that_no_record_holds(self, version: Any) -> None:
        """They are refused before anything is stored."""
        with pytest.raises(ValueError, match="version="):
            Call(name="f", version=version).to_record()


class TestConditions:
    @pytest.mark.parametrize(("value", "expected"), SCALARS, ids=repr)
    def test_scalars(self, value: Any, expected: Any) -> None:
        """A condition holds builtins, whatever it was made of: they mean the same everywhere."""
        assert is_exactly(where("=", value).value, expected)
        assert is_exactly(Condition("<", value).value, expected)
        for condition in (one_of(value), between(value, value), where("in", (value,))):
            items = condition.value
            assert isinstance(items, list)
            assert all(is_exactly(item, expected) for item in items)
        assert where("=", value).matches(expected)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(where("=", value)), type=Condition)

    @pytest.mark.parametrize(
        "value",
        [*STRANGERS[:3], *STRANGERS[4:], [[1]], {}, datetime(2024, 5, 1, tzinfo=timezone.utc)],
        ids=repr,
    )
    def test_everything_else_is_refused(self, value: Any) -> None:
        """It would match nothing, and say nothing."""
        with pytest.raises(TypeError, match="a condition compares with text, numbers"):
            where("=", value)

    @pytest.mark.parametrize("op", ["=>", "==", "", "not in", None])
    def test_there_is_no_such_comparison(self, op: Any) -> None:
        """It is told where the condition is made, not where it is asked."""
        with pytest.raises(ValueError, match=f"{op!r} is no comparison; there are '=', '!='"):
            where(op, 3)

    @pytest.mark.parametrize(
        ("op", "value", "message"),
        [
            ("between", 3, r"'between' compares with two values, \[low, high\], not 3"),
            ("between", [1, 2, 3], r"two values, \[low, high\], not \[1, 2, 3\]"),
            ("in", "abc", "'in' compares with a list of values, not 'abc'"),
            ("<", [1], r"'<' compares with one value, not \[1\]"),
            ("like", 3, "'like' compares with text, not 3"),
        ],
    )
    def test_what_a_comparison_cannot_compare_with(self, op: Any, value: Any, message: str) -> None:
        with pytest.raises(TypeError, match=message):
            where(op, value)

    @pytest.mark.parametrize("value", [np.float64(1.5), np.float32(1.5)])
    def test_versions_of_numpy(self, value: Any) -> None:
        """A version may be asked for by a scalar of numpy."""
        assert QueryCall.of(version=value).matches(a_record(x=1).replace(version=1.5))

    def test_metadata_that_is_no_scalar(self) -> None:
        """A field is compared with a plain value."""
        for value in ([1], {"a": 1}, (1, 2)):
            with pytest.raises(TypeError, match="compared with a plain value"):
                QueryCall.of(metadata={"tags": {"t": value}})


class TestTemplates:
    """A template says what it was given, or what is wrong with it, at once."""

    @pytest.mark.parametrize("make", [QueryCall, QueryCall.of])
    def test_plain_values(self, make: Any) -> None:
        """They mean the same however the template is made."""
        wanted = make(
            arguments={"x": 1, "y": where("<", 3)}, result=[4], metadata={"tags": {"t": "a"}}
        )
        assert wanted == QueryCall(
            arguments={"x": Condition("digest", digest(1)), "y": where("<", 3)},
            result=Condition("digest", digest([4])),
            metadata={"tags": {"t": where("=", "a")}},
        )
        assert wanted.matches(
            Call("f", {"x": 1, "y": 2}, result=[4], metadata={"tags": {"t": "a"}}).to_record()
        )
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(wanted), type=QueryCall) == wanted

    @pytest.mark.parametrize("make", [QueryCall, QueryCall.of])
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"arguments": "x"}, "arguments='x': a dictionary"),
            ({"arguments": ["x"]}, "arguments=.*: a dictionary"),
            ({"metadata": "t"}, "metadata='t': a dictionary"),
            ({"metadata": {"tags": "t"}}, r"metadata\['tags'\]='t': a dictionary"),
            ({"name": 3}, "name=3: the name of a function is text"),
            ({"module": len}, "module=.*: the module"),
            ({"code": b"ab"}, "code=b'ab': the code"),
        ],
    )
    def test_what_is_none(self, make: Any, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(TypeError, match=message):
            make(**fields)

    def test_two_together(self) -> None:
        """They ask for what each of them asks for."""
        one = QueryCall(name="f", arguments={"x": 1}, metadata={"tags": {"a": 1}})
        other = QueryCall.of(version=2, arguments={"y": 2}, metadata={"tags": {"b": 2}})
        both = QueryCall.of(
            name="f",
            version=2,
            arguments={"x": 1, "y": 2},
            metadata={"tags": {"a": 1, "b": 2}},
        )
        assert one.merged(other) == other.merged(one) == both
        assert one.merged(one) == one.merged(QueryCall()) == QueryCall().merged(one) == one

    @pytest.mark.parametrize(
        ("fields", "name"),
        [
            ({"name": "g"}, "name"),
            ({"arguments": {"x": 2}}, r"arguments\['x'\]"),
            ({"metadata": {"tags": {"a": 2}}}, r"metadata\['tags'\]\['a'\]"),
        ],
    )
    def test_two_that_disagree(self, fields: dict[str, Any], name: str) -> None:
        one = QueryCall(name="f", arguments={"x": 1}, metadata={"tags": {"a": 1}})
        with pytest.raises(ValueError, match=f"{name} is given twice"):
            one.merged(QueryCall(**fields))


PATTERNS = [
    ("a[b]", "a[b]", True),
    ("a[b]", "ab", False),
    ("[!a]", "b", False),
    ("[!a]", "[!a]", True),
    ("*[0]", "data[0]", True),
    ("?[", "a[", True),
    ("[[]", "[", False),
    ("a*c?", "abbcd", True),
    ("a*", "A", False),
    ("a\\*", "a\\b", True),
    ("*", "line\nline", True),
]


class TestPatterns:
    @pytest.mark.parametrize(("pattern", "text", "expected"), PATTERNS)
    def test_two_characters_are_special(self, pattern: str, text: str, expected: bool) -> None:
        """``*`` is any text and ``?`` any character; every other one stands for itself."""
        record = a_record(text, x=text).replace(module=text)
        assert like(pattern).matches(text) is expected
        assert QueryCall(name=pattern).matches(record) is expected
        assert QueryCall(module=pattern).matches(record) is expected
        assert QueryCall.of(arguments={"x": like(pattern)}).matches(record) is expected

    @pytest.mark.parametrize("kind", ["memory", "file", "sql", "remote"])
    def test_everywhere_the_same(self, serving: Serving, tmp_path: Path, kind: str) -> None:
        """Wherever the search is done."""
        if kind == "remote":
            cache: BaseCache = serving("pipe", cache_factory("sql", tmp_path))
        else:
            cache = cache_factory(kind, tmp_path)()
        with cache:
            for text in {text for _, text, _ in PATTERNS}:
                metadata = {"tags": {"t": text}}
                cache.save(Call(text, {"x": text}, text, result=text, metadata=metadata))
            for pattern, text, expected in PATTERNS:
                for wanted in (
                    QueryCall(name=pattern),
                    QueryCall(module=pattern),
                    QueryCall.of(arguments={"x": like(pattern)}),
                    QueryCall.of(result=like(pattern)),
                    QueryCall.of(metadata={"tags": {"t": like(pattern)}}),
                ):
                    found = {call.name for call in cache.query(wanted)}
                    assert (text in found) is expected, (wanted, text)


# -- stored calls ----------------------------------------------------------------------------------


class TestStored:
    @pytest.mark.parametrize("copied", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
    def test_it_may_be_sent_to_a_worker(self, tmp_path: Path, copied: Any) -> None:
        """With its small values; larger ones are loaded there from the same cache."""
        small, large = {"a": [1]}, list(range(100_000))
        with cache_factory("file", tmp_path)() as cache:
            for each in (small, large):
                call = cache.load(cache.save(Call("f", {"x": each}, result=each)))
                again = copied(call)
                assert (again, repr(again)) == (call, repr(call))
                assert again.result == again.arguments["x"] == each
                assert copied(call.arguments)["x"] == each

    def test_to_look_at_it_does_not_change_it(self, tmp_path: Path) -> None:
        """It has the same digest when its result has been loaded."""
        with cache_factory("file", tmp_path)() as cache:
            call = cache.load(cache.save(Call("f", {"x": 1}, result=[1])))
            before = digest(call)
            assert call.result == [1]
            assert digest(call) == before
