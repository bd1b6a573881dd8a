"""What is stored of one function: what ``f.query(x=3)`` asks for, and ``f.stats()`` counts."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from fleche._amounts import count, shown_bytes, shown_seconds
from fleche._html import paragraph
from fleche.call import QUERY_FIELDS, Condition, QueryCall, as_literal, as_plain, encode_entry
from fleche.decorator._spec import FunctionSpec
from fleche.digest import Digest, digest_arguments

if TYPE_CHECKING:
    from fleche.caches import BaseCache

__all__ = ["FunctionStats", "stats_of", "template_of"]

_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType)


def template_of(spec: FunctionSpec, fields: dict[str, Any]) -> QueryCall:
    """Return the template of the stored calls of a function.

    Args:
        spec: the function.
        fields: what ``query()`` was called with: names of parameters, and those fields of
            :meth:`QueryCall.of` that no parameter has the name of.

    Raises:
        TypeError: there is no such parameter, or a value is a function.
        Indigestible: a value has no digest.
    """
    parameters = spec.info.signature.parameters
    general = {name: value for name, value in fields.items() if name not in parameters}
    arguments = {name: _wanted(spec, name, fields[name]) for name in fields if name in parameters}
    exact = dict(general.pop("arguments", None) or {})
    if twice := sorted(exact.keys() & arguments.keys()):
        raise ValueError(f"{spec.info.name}.query(): the argument {twice[0]!r} is given twice")
    unknown = [name for name in general if name not in QUERY_FIELDS]
    unknown += [name for name in exact if name not in parameters]
    if unknown:
        raise TypeError(_unknown(spec, unknown[0]))
    for name in (*exact, *arguments):
        if name in spec.info.ignored:
            raise TypeError(
                f"{spec.info.name}.query(): the argument {name!r} is ignored, and not recorded"
            )
    general.setdefault("name", spec.info.name)
    if spec.options.hash_module:
        general.setdefault("module", spec.info.module)
    before = spec.info.renamed
    found = {before.get(name, name): each for name, each in {**exact, **arguments}.items()}
    return QueryCall.of(arguments=found, **general)


def _wanted(spec: FunctionSpec, name: str, value: Any) -> Condition | Digest:
    """Return the condition that an argument is ``value``: a number counts by what it is worth."""
    if isinstance(value, Condition | Digest):
        return value
    if isinstance(value, _FUNCTIONS):
        raise TypeError(
            f"{spec.info.name}.query({name}={value!r}): a function is no condition. There are "
            "where('<', 3), between(low, high), one_of(...) and like('a*') of fleche.call; any "
            "other is asked of each call, query().filter(function). If the argument was this very "
            f"function, say arguments={{{name!r}: function}}"
        )
    plain = as_plain(value)
    # no record shows a larger whole number, or one that is none, as the number that it is
    if (type(plain) is int and as_literal(plain) is not UNSET) or (
        type(plain) is float and math.isfinite(plain)
    ):
        return Condition("=", plain)
    info = spec.info
    return digest_arguments({name: value}, unordered=info.unordered, content=info.content)[name]


def _unknown(spec: FunctionSpec, name: str) -> str:
    info = spec.info
    names = [each for each in info.signature.parameters if each not in info.ignored]
    fields = [each for each in QUERY_FIELDS if each not in names]
    near = difflib.get_close_matches(name, [*names, *fields], 1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    return (
        f"{info.name}.query(): {name!r} is no parameter{hint} The parameters are "
        f"{', '.join(names) or 'none'}; besides, there are {', '.join(fields)}"
    )


# -- how much there is -----------------------------------------------------------------------------


@dataclass(frozen=True)
class FunctionStats:
    """What is stored of one function, and how it was used.

    Attributes:
        name: qualified name of the function.
        calls: how many calls are stored.
        bytes: what they take with their arguments and results; a large value that several calls
            have counts once.
        hits: how often a stored result was found, by all processes that use the cache.
        misses: how often the body ran, and its result was stored.
        saved: seconds that the bodies of the hits had taken.
        spent: seconds that the bodies of the misses took.
    """

    name: str
    calls: int = 0
    bytes: int = 0
    hits: int = 0
    misses: int = 0
    saved: float = 0.0
    spent: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.name}: {count(self.calls, 'call')} stored ({shown_bytes(self.bytes)}); "
            f"{count(self.hits, 'hit')}, {count(self.misses, 'miss', 'misses')}; "
            f"{shown_seconds(self.saved)} saved, {shown_seconds(self.spent)} spent"
        )

    def _repr_html_(self) -> str:
        return paragraph(str(self))


def stats_of(cache: BaseCache, template: QueryCall) -> FunctionStats:
    """Return what a cache has of the calls of one function; all of their records are read.

    Args:
        cache: the cache.
        template: finds the calls, by the name of the function and perhaps by its module.
    """
    sizes: dict[str, int] = {}
    calls = 0
    for call in cache.query(template):
        calls += 1
        sizes[call.key] = len(encode_entry(call.key, call.entry))
        for ref in call.record.values():
            apart = ref.size - len(call.entry.parcels.get(ref.address, b""))
            if apart > 0:
                sizes[ref.address] = apart
    rows = cache.usage(template.name, template.module)
    return FunctionStats(
        name=template.name or "",
        calls=calls,
        bytes=sum(sizes.values()),
        hits=sum(row.hits for row in rows),
        misses=sum(row.misses for row in rows),
        saved=sum(row.saved for row in rows),
        spent=sum(row.spent for row in rows),
    )
