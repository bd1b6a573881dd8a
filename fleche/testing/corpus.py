"""Values, calls and templates that are awkward in every way that has mattered somewhere."""

from __future__ import annotations

import importlib.util
import math
import pickle
from collections.abc import Iterable, Iterator
from typing import Any

from fleche.call import (
    CallEntry,
    CallRecord,
    Condition,
    QueryCall,
    ValueRef,
    between,
    like,
    one_of,
    refer,
    where,
)
from fleche.digest import Address, Digest, digest
from fleche.parcel import Buffer, pack

__all__ = ["Block", "a_pin", "a_record", "an_entry", "entries", "records", "templates", "values"]


class Block:
    """An object whose bytes are pickled out of band, so that a parcel refers to its memory."""

    def __init__(self, data: Any) -> None:
        self.data = bytearray(data)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Block, (pickle.PickleBuffer(self.data),)


def values() -> Iterator[Any]:
    """Yield values of many kinds; arrays too where numpy is installed."""
    yield from (None, True, 0, -1, 2**100, 0.0, math.inf, 1j, "", "é" * 3, b"", b"\0" * 70_000)
    yield from ((), [], {}, set(), (1, [2, {3: "x"}]), frozenset({1, 2}), {"a": [None] * 5})
    yield "x" * 300_000
    yield {f"key {number}": list(range(number)) for number in range(100)}
    if importlib.util.find_spec("numpy"):
        yield from _arrays()


def _arrays() -> Iterator[Any]:
    import numpy as np

    yield np.arange(5)
    yield np.float64(0.1)
    yield np.array(3.0)
    yield np.zeros((0, 3))
    yield np.arange(500_000, dtype="float64")
    yield np.asfortranarray(np.arange(90_000.0).reshape(300, 300))
    yield np.arange(100_000)[::2]
    yield np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
    yield np.array(["2020-01-01", "NaT"], dtype="datetime64[ns]")
    yield np.array(["a", None], dtype=object)
    yield {"arrays": [np.ones(20_000), np.ones(20_000, dtype="int8")], "n": 2}


_LITERALS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 3, -1, 1.0, 2.5, math.nan, math.inf, -math.inf),
    *(2**53, 2**53 + 1, -(2**63), 2**63 - 1, 1e308, 5e-324, -0.0),
    *(
        "",
        "a",
        "A",
        "ab",
        "a_b",
        "a%b",
        "a\\b",
        "aXb",
        "a*b",
        "a[b",
        "[!]",
        "a\0b",
        "a\0",
        "é",
        "\U0010ffff",
    ),
    *("x" * 200, "line\nline", "'; --"),
)


def a_record(name: str = "f", result: Any = 0, **arguments: Any) -> CallRecord:
    """Return the record of a finished call ``name(**arguments)``, without parcels."""
    return CallRecord(
        name=name,
        module="m",
        arguments={each: refer(digest(value), value) for each, value in arguments.items()},
        result=refer(digest(result), result),
    )


def a_pin(*addresses: Address) -> CallEntry:
    """Return the entry of a pin that protects ``addresses``."""
    held = {f"value{number}": at for number, at in enumerate(addresses)}
    references = {name: ValueRef(at.digest, at.variant) for name, at in held.items()}
    return CallEntry(CallRecord(name="pin", arguments=references))


def an_entry(name: str = "f", result: Any = 0, **arguments: Any) -> CallEntry:
    """Return the entry of a finished call; what is no literal travels with it as a parcel."""
    parcels: dict[Address, Buffer] = {}

    def refer_to(value: Any) -> ValueRef:
        reference = refer(digest(value), value)
        if reference.is_literal:
            return reference
        parcel = pack(value, digest=reference.digest)
        parcels[Address.of(reference.digest, parcel.variant)] = parcel.tobytes()
        return ValueRef(reference.digest, parcel.variant, parcel.nbytes)

    record = a_record(name).replace(
        arguments={each: refer_to(value) for each, value in arguments.items()},
        result=refer_to(result),
    )
    return CallEntry(record, parcels)


def entries() -> dict[str, CallEntry]:
    """Return entries by key: :func:`records`, calls that bring parcels along, and pins."""
    found: dict[str, CallEntry] = {key: CallEntry(each) for key, each in records().items()}
    bringing = [
        an_entry("p", result=[1, 2], x=(3, 4), y=(3, 4)),
        an_entry("p", result={"a": b"\0" * 10_000}, x="y" * 300),
        an_entry("p", x={}, y=b""),
    ]
    found |= {digest(("entry", number)): entry for number, entry in enumerate(bringing)}
    found[digest("pin")] = a_pin(Address.of(digest(1), "0" * 32), Address.of(digest(2)))
    return found


def records() -> dict[Digest, CallRecord]:
    """Return records by key, two pins among them."""
    found = [*_by_name(), *_by_value(), *_by_metadata(), *_unusual()]
    finished = {digest(("record", number)): record for number, record in enumerate(found)}
    pins = [a_record("f", x=1).replace(result=None), found[0].replace(result=None)]
    return finished | {digest(("a pin", number)): record for number, record in enumerate(pins)}


def _by_name() -> Iterator[CallRecord]:
    for name in ("f", "F", "f.g", "ff", "f_g", "f%g", "f[g]", "fé", "é", "g.<locals>.f", "n" * 600):
        yield a_record(name, x=1)
    for module in (None, "", "m", "M", "m.n", "m_n", "mn", "__main__"):
        yield a_record(x=2).replace(module=module)
    for version in (None, 0, 1, 1.0, 1.5, "1", "1.0", "", 2**60):
        yield a_record(x=3).replace(version=version, unhashed=("module", "code"))
    for code in (None, digest("code 1"), digest("code 2")):
        yield a_record(x=4).replace(code=code)


def _by_value() -> Iterator[CallRecord]:
    for literal in _LITERALS:
        yield a_record("g", x=literal, y=1)
        yield a_record("h", result=literal, y=literal)
    yield a_record("g")
    yield a_record("g", result=[1, 2], x=[1, 2])
    yield a_record("g", **{"a very_strange%name": 1, "x": "y" * 5000})


def _by_metadata() -> Iterator[CallRecord]:
    fields: tuple[Any, ...] = (
        *(None, True, 1, 0, 1.0, 2.5, "", "a", "A", "a\0b", "x" * 3000, [1, 2], {"a": 1}),
        *(2**62, math.nan, math.inf),
    )
    for field in fields:
        yield a_record("k", x=1).replace(metadata={"run": {"field": field, "host": "h"}})
    yield a_record("k", x=2).replace(metadata={"run": {}, "tags": {"field": 1}})
    yield a_record("k", x=3).replace(metadata={"tags": {"n" * 700: 1, "strange %_\0": "x"}})


def _unusual() -> Iterator[CallRecord]:
    """Yield what only some calls have: errors, states, summaries, children, dependencies."""
    number = ValueRef(digest(2.5), "1" * 32, 200, summary=2.5, type="numpy.float64")
    shape = ValueRef(digest(b"array"), "2" * 32, 1 << 40, summary="float64[12, 3]")
    yield a_record("s", y=1).replace(result=number, arguments={"x": number, "y": shape})
    yield a_record("s", x=1).replace(result=None, error=ValueRef(digest("error"), "3" * 32, 300))
    yield a_record("s", x=3).replace(states={"rng": ValueRef(digest("state"), "4" * 32)})
    yield a_record("s", x=4).replace(covered=ValueRef(digest("parts"), "5" * 32))
    yield a_record("s", x=2.5).replace(
        dependencies={"function helpers.area": digest("area"), "value helpers.\0": digest(3)},
        children=(digest("child"), digest("other child")),
        duration=0.25,
        scheme=2**40,
    )


def templates(*, every: bool = False) -> Iterator[QueryCall]:
    """Yield templates that between them use every field and every operator.

    Args:
        every: every operator with every value on every field; takes several times as long.
    """
    yield QueryCall()
    yield from _of_names()
    yield from _of_literals(_LITERALS if every else _LITERALS[::4])
    for number, wanted in enumerate(_conditions(_LITERALS if every else _LITERALS[::4])):
        places = [
            QueryCall.of(arguments={"x": wanted}),
            QueryCall.of(metadata={"run": {"field": wanted}}),
            QueryCall.of(result=wanted),
            QueryCall.of(arguments={"y": wanted}, name="h"),
        ]
        yield from places if every else [places[number % 3]]
    for used in (digest("child"), Digest(str(digest("child"))[:6]), 1, "nothing", [1, 2]):
        yield QueryCall.of(uses=used)
    yield QueryCall.of(uses=1, name="s").merged(QueryCall.of(uses=Digest(str(digest(2))[:4])))
    yield QueryCall(uses=((),))
    yield QueryCall(uses=((str(digest("child"))[:4], str(digest(1)), "zz"),), name="s")
    yield QueryCall.of(metadata={"run": {"host": "h"}, "tags": {"field": 1}})
    yield QueryCall.of(metadata={"run": {"host": like("*"), "field": where(">=", 1)}})
    yield QueryCall.of(
        metadata={"run": {"field": where("digest", "a"), "host": where("digest", "")}}
    )
    yield QueryCall.of(metadata={"tags": {"n" * 700: 1}})
    yield QueryCall.of(metadata={"tags": {"strange %_\0": "x"}})
    yield QueryCall.of(name="g", module="m", arguments={"x": 1, "y": one_of(1, 2)}, result=0)


def _of_names() -> Iterator[QueryCall]:
    patterns = (
        "f",
        "f*",
        "*f",
        "*",
        "?",
        "f?g",
        "f_g",
        "f%g",
        "f[[]g]",
        "[!f]*",
        "[f-g]",
        "[!]",
        "[",
    )
    for pattern in (*patterns, "nothing", "é*", "*é", "", "F", "n" * 600, "n" * 700, "*n", "f\0"):
        yield QueryCall.of(name=pattern)
        yield QueryCall.of(module=pattern.replace("f", "m"))
    for version in (None, 0, 1, 1.0, 1.5, "1", "", True, 2**60, 2**60 + 1, "1" * 600):
        yield QueryCall.of(version=version)
    for code in (str(digest("code 1")), str(digest("code 1"))[:4], "", "zz"):
        yield QueryCall.of(code=code)


def _of_literals(literals: Iterable[Any]) -> Iterator[QueryCall]:
    for literal in (*literals, [1, 2], "y" * 5000):
        yield QueryCall.of(arguments={"x": literal})
        yield QueryCall.of(result=literal)
    yield QueryCall.of(arguments={"x": Digest(str(digest(1))[:6]), "y": 1})
    yield QueryCall.of(arguments={"nothing": where("!=", 1)})
    yield QueryCall.of(arguments={"a very_strange%name": where("=", 1)})
    yield QueryCall.of(arguments={"strange\0name" * 99: where("=", 1)})


def _conditions(literals: Iterable[Any]) -> Iterator[Condition]:
    for literal in literals:
        yield where("=", literal)
        yield where("!=", literal)
        yield where("<", literal)
        yield where(">=", literal)
    yield from (where("<=", 2**53 + 1), where(">", 2**53), where("=", 10**400), where("<", 10**400))
    yield from (between(0, 3), between("a", "b"), between(3, 0), between(None, "a"))
    yield from (one_of(), one_of(1, "a", None, True), one_of(*range(2000)), one_of("a\0b", 2.5))
    patterns = ("a*", "*b", "a?b", "a_b", "a[X_]b", "*", "", "a\\b", "[!]", "a[b", "*[", "A", "x*x")
    yield from (like(pattern) for pattern in (*patterns, "a\0b", "é", "\U0010ffff*"))
    yield from (where("digest", str(digest(1))), where("digest", str(digest(1))[:5]))
    yield from (where("=", [1, 2]), where("=", "\ud800"), where("<", "\ud800"), like("\ud800*"))
