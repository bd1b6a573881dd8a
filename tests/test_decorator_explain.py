"""`explain`: whether a call would hit, and if not, why; nothing runs for that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fleche as package
from fleche import Cache, Runtime, cache, fleche
from fleche.config import cache_from_config
from fleche.digest import digest
from tests.helpers.layers import in_files


@pytest.fixture(autouse=True)
def fresh(active: Cache) -> None:
    package.meta(Runtime())


def decorated(step: int = 1, **options: Any) -> Any:
    """One function, in several states of its code."""
    scope: dict[str, Any] = {"__name__": "made_up_module"}
    exec(f"def grow(x, y=(1, 2), z=None):\n    return x + {step}", scope)
    return fleche(**{"hash_code": False, **options})(scope["grow"])


def taking(parameters: str) -> Any:
    """One function, with these parameters, which it leaves alone."""
    scope: dict[str, Any] = {"__name__": "made_up_module"}
    exec(f"def grow({parameters}):\n    return 1", scope)
    return fleche(hash_code=False)(scope["grow"])


def test_hit() -> None:
    grow = decorated()
    grow(1)
    found = grow.explain(1)
    assert found
    assert found.reason == "hit"
    assert "grow() is stored" in str(found)


def test_never() -> None:
    found = decorated().explain(1)
    assert not found
    assert found.reason == "never"


def test_evicted(active: Cache) -> None:
    """The call is known, and its result is gone."""

    @fleche
    def zeros(number: int) -> bytes:
        return bytes(number)

    zeros(100_000)
    active.values.delete_many([entry.key for entry in active.values.entries()])
    assert zeros.explain(100_000).reason == "evicted"


@pytest.mark.parametrize(
    ("before", "now", "differing", "text"),
    [
        ({"version": 1}, {"version": 2}, ("version",), "the version was 1, not 2"),
        ({"hash_code": True}, {"hash_code": True, "step": 2}, ("code",), "the code was different"),
        ({"hash_module": False}, {}, ("module",), "the module was None, not 'made_up_module'"),
    ],
)
def test_changed(
    before: dict[str, Any], now: dict[str, Any], differing: tuple[str, ...], text: str
) -> None:
    decorated(**before)(1)
    found = decorated(**now).explain(1)
    assert found.reason == "changed"
    assert found.differing == differing
    assert text in str(found)


def test_a_function_that_has_moved() -> None:
    """As from a script into a module; how its results may stay found is said."""

    def area(r: float) -> float:
        return 3 * r

    area.__module__ = "script"
    fleche(area)(1.0)
    area.__module__ = "geometry"
    found = fleche(area).explain(1.0)
    assert (found.reason, found.differing) == ("changed", ("module",))
    assert "the module was 'script', not 'geometry'" in str(found)
    assert "hash_module=False" in str(found)
    assert "save_as(call, module=" in str(found)


def test_arguments() -> None:
    """Those that differ from the nearest stored call, in the clear where they are small."""
    grow = decorated()
    grow(10, (3, 4), "a")
    grow(1, (1, 2), "b")
    found = grow.explain(2)
    assert found.reason == "arguments"
    assert found.differing == ("x", "z")
    assert found.nearest == grow.load(1, (1, 2), "b")
    assert "x was 1, not 2, and z was 'b', not None" in str(found)
    assert "y was (1, 2), not (5,)" in str(grow.explain(1, (5,), "b"))


def test_scalars_of_numpy() -> None:
    """Shown as the numbers that they are, with their type."""
    grow = decorated()
    grow(np.float64(0.5), (1, 2), "a")
    assert "x was 0.5 (float64), not 0.7" in str(grow.explain(0.7, (1, 2), "a"))


def test_the_newest_of_those_that_are_equally_near() -> None:
    """The same one in every process, whatever order the cache finds them in."""
    grow = decorated()
    for x in (7, 3, 11, 5):
        grow(x, (1, 2), "a")
    assert grow.explain(1, (1, 2), "a").nearest == grow.load(5, (1, 2), "a")
    grow.rerun(3, (1, 2), "a")
    assert grow.explain(1, (1, 2), "a").nearest == grow.load(3, (1, 2), "a")


def test_uncached() -> None:
    grow = decorated(require="z")
    assert "'z' is required" in str(grow.explain(1))
    found = grow.explain(iter([]), z=1)
    assert found.reason == "uncached"
    assert "arguments['x']" in str(found)


class Opaque:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@dataclass
class Setup:
    cutoff: float


@pytest.mark.parametrize(
    ("value", "stored", "passed"),
    [
        (np.float64(2.0), "2.0 (float64)", "2.0 (float64)"),
        (np.zeros((2, 3), "f4"), "float32[2, 3]", "float32[2, 3]"),
        ([1, 2], "list(2): 1, 2", "[1, 2]"),
        (list(range(99)), "list(99): 0, 1, 2, 3, 4, 5, …", "[0, 1, 2, 3, 4, 5, ...]"),
        ({"cutoff": (Opaque(), None)}, "dict(1): cutoff", "{'cutoff': (Opaque, None)}"),
        (Path("there"), "there", "there"),
        (Setup(3.0), "Setup(cutoff=3.0)", "Setup(cutoff=3.0)"),
        (Opaque(), "Opaque", "Opaque"),
        ("long " * 100, "long " * 15 + "long…", "long " * 15 + "long…"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values(value: Any, stored: str, passed: str) -> None:
    """Of whatever class, in a few words: of what is stored, those of the record."""
    grow = taking("x, z=0")
    grow(1.0)
    assert f"x was 1.0, not {passed}" in grow.explain(value).text
    grow(value, z=2)
    assert f"x was {stored}, not 1.0" in grow.explain(1.0, z=2).text


def test_containers() -> None:
    """Two that are compared are shown in one way."""
    grow = taking("x, z=0")
    grow({"cutoff": 3.0, "k": [1, 2]})
    text = grow.explain({"cutoff": 4.0}).text
    assert "x was {'cutoff': 3.0, 'k': [1, 2]}, not {'cutoff': 4.0}" in text


def test_parameters_named_like_parts_of_a_key() -> None:
    grow = taking("version, code, module")
    grow(1, 2, 3)
    text = grow.explain(4, 5, 6).text
    assert "version was 1, not 4, and code was 2, not 5, and module was 3, not 6" in text


def test_a_digest_is_shown_as_such() -> None:
    grow = taking("x, z=None")
    grow(1.0)
    assert re.search(r"x was 1.0, not <[0-9a-f]{8}>", grow.explain(digest([7])).text)


def test_values_that_look_alike() -> None:
    """Where a few words do not tell them apart, their digests do."""
    grow = taking("x, z=None")
    grow(np.zeros(3), z="a")
    text = grow.explain(np.ones(3), z="a").text
    assert re.search(r"x was float64\[3\] <[0-9a-f]{8}>, not float64\[3\] <[0-9a-f]{8}>", text)


def test_large_values_are_not_loaded(active: Cache) -> None:
    grow = taking("x, z=None")
    grow(list(range(1_000_000)), z="a")
    active.values.delete_many([entry.key for entry in active.values.entries()])
    assert "x was list(1000000): 0, 1, 2, 3, 4, 5, …, not [1]" in grow.explain([1], z="a").text


class TestSignatures:
    """A function whose parameters are others than when its calls were stored."""

    @pytest.mark.parametrize("default", ["2", "'abc'", "None", "[1, 2]", "{'a': 1}", "(1,) * 9"])
    def test_an_added_parameter(self, default: str) -> None:
        taking("x")(1)
        found = taking(f"x, n={default}").explain(1)
        assert (found.reason, found.differing) == ("arguments", ("n",))
        assert "there was no n, which is " in found.text
        assert default in found.text or "(1, 1, 1, 1, 1, 1, ...)" in found.text
        advice = f"keep what is stored: @fleche(added={{'n': {default}}})"
        assert (advice in found.text) is (default in ("2", "'abc'", "None"))

    @pytest.mark.parametrize(
        ("value", "shown"), [(2, "2"), ("abc", "'abc'"), ([1], "list(1): 1"), ({}, "dict(0)")]
    )
    def test_a_removed_parameter(self, value: Any, shown: str) -> None:
        taking("x, n")(1, value)
        found = taking("x").explain(1)
        assert (found.reason, found.differing) == ("arguments", ("n",))
        assert f"there was also n, which was {shown}" in found.text

    def test_a_renamed_parameter(self) -> None:
        taking("x, n")(1, [1])
        found = taking("x, m").explain(1, [1])
        assert found.differing == ("m", "n")
        assert found.text.endswith(
            "there was no m, which is [1] now, and there was also n, which was list(1): 1\n"
            "If it computes the same, keep what is stored: @fleche(renamed={'m': 'n'})"
        )
        assert "keep" not in taking("x, m").explain(1, [2]).text

    def test_a_renamed_parameter_of_several_calls(self) -> None:
        """The nearest is that with the same value under the other name, not the newest."""
        for n in range(4):
            taking("x, n")(1, n)
        assert "renamed={'m': 'n'}" in taking("x, m").explain(1, 2).text

    def test_with_other_code(self) -> None:
        """Which is accepted apart."""
        fleche(lambda v: v)(1)
        found = fleche(lambda v, steps=1: v).explain(1)
        assert "keep what is stored: @fleche(added={'steps': 1}), and Test" in found.text
        assert found.text.endswith("<lambda>.accept() for the code")

    def test_another_default(self) -> None:
        """It is a part of the code, and an argument of the calls that leave it out."""
        fleche(lambda v, k=2.0: v)(1)
        text = fleche(lambda v, k=3.0: v).explain(1).text
        assert "was different, together with the default of `k`, and k was 2.0, not 3.0\n" in text

    def test_any_arguments(self) -> None:
        taking("x")(1)
        found = taking("*args, **kwargs").explain(1, n=[2])
        assert found.differing == ("args", "kwargs", "x")
        assert "there was no args, which is (1,) now" in found.text

    def test_the_line_for_a_miss(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`verbose()` says the same."""
        taking("x")(1)
        with package.verbose():
            taking("x, n=[1]")(1)
        assert "there was no n, which is [1] now" in capsys.readouterr().err


def test_order() -> None:
    """A difference in order alone is told as such, with what to do about it."""

    @fleche
    def first(table: Any) -> Any:
        return next(iter(table))

    first({"a": 1, "b": [{"c": 1, "d": 2}]})
    found = first.explain({"b": [{"d": 2, "c": 1}], "a": 1})
    assert found.reason == "arguments"
    assert re.search(r"table differs only in order \(Unordered\[", str(found))
    assert "only in order" not in str(first.explain({"b": 1, "a": 1}))


def test_long_integers() -> None:
    """Python refuses to write thousands of digits; a call with them is explained all the same."""
    grow = decorated()
    assert grow.explain(10**5000).reason == "never"
    grow(10**5000)
    assert grow.explain(10**5000)
    assert grow.explain(10**5000 + 1).reason == "arguments"
    assert grow.explain([10**5000]).reason == "arguments"


class TestRules:
    """What is stored and not returned is told as what it is: a call that would be computed."""

    def test_expired(self) -> None:
        grow = decorated(expires="0s")
        grow(1)
        found = grow.explain(1)
        assert found.reason == "refused"
        text = "grow() would be computed: the stored result (.*) is .* old, and expires after 0 s"
        assert re.search(text.replace("(", r"\(").replace(")", r"\)"), found.text)

    def test_stale(self) -> None:
        """One that is returned for the last time is a hit."""
        grow = decorated(expires="0s", stale=True)
        grow(1)
        found = grow.explain(1)
        assert found.reason == "hit"
        assert "it is returned, and computed anew" in found.text

    def test_invalid(self) -> None:
        grow = decorated(validate=lambda result: False)
        grow(1)
        assert "would be computed: the stored result" in grow.explain(1).text
        assert "is not valid any more" in grow.explain(1).text

    def test_a_result_that_cannot_be_validated(self, tmp_path: Path) -> None:
        """A damaged one is told as such."""
        scope: dict[str, Any] = {"__name__": "made_up_module"}
        exec("def zeros(n):\n    return bytes(n)", scope)
        zeros = fleche(hash_code=False, validate=len)(scope["zeros"])
        with in_files(tmp_path) as files, cache(files):
            zeros(100_000)
            files_there = filter(Path.is_file, tmp_path.rglob("*"))
            path = max(files_there, key=lambda each: each.stat().st_size)
            path.chmod(0o600)
            path.write_bytes(path.read_bytes()[:-1] + b"!")
            assert zeros.explain(100_000).reason == "unusable"

    def test_exceptions(self) -> None:
        """Those that are kept are hits as long as they count."""
        scope: dict[str, Any] = {"__name__": "made_up_module"}
        exec("def fail(x):\n    raise ZeroDivisionError(x)", scope)
        with pytest.raises(ZeroDivisionError):
            fleche(hash_code=False, errors=ZeroDivisionError)(scope["fail"])(1)
        kept = {"errors": ArithmeticError, "expires": "1d", "validate": bool}
        found = fleche(hash_code=False, **kept)(scope["fail"]).explain(1)
        assert (found.reason, "it raises ZeroDivisionError" in found.text) == ("hit", True)
        for options in ({}, {"errors": KeyError}, {"errors": ArithmeticError, "expires": "0s"}):
            found = fleche(hash_code=False, **options)(scope["fail"]).explain(1)
            assert found.reason == "evicted"
            assert "would be computed: the stored call" in found.text


class TestUnusable:
    """What is stored would not be used, and why."""

    def test_a_damaged_record(self, tmp_path: Path) -> None:
        grow = decorated()
        with in_files(tmp_path) as files, cache(files):
            grow(1)
            (path,) = tmp_path.rglob(f"{grow.digest(1)[2:]}*")
            path.write_bytes(path.read_bytes()[:-1])
            found = grow.explain(1)
        assert not found
        assert found.reason == "unusable"
        assert str(path) in found.text

    def test_a_record_that_nobody_signed(self, tmp_path: Path) -> None:
        grow = decorated()
        with in_files(tmp_path) as files, cache(files):
            grow(1)
        signed = {"type": "cloudpickle", "root": str(tmp_path), "secret_key": "ours"}
        with cache_from_config({"values": signed, "calls": signed}) as made, cache(made):
            found = grow.explain(1)
        assert (found.reason, bool(found)) == ("unusable", False)
        assert "not signed" in found.text
