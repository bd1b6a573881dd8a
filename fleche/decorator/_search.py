"""What ``f.query(x=3)`` means: conditions on the parameters of the function."""

from __future__ import annotations

import difflib
import math
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from msgspec import UNSET

from fleche.call import QUERY_FIELDS, Condition, QueryCall, as_literal, as_plain
from fleche.decorator._spec import FunctionSpec
from fleche.digest import Digest, digest_arguments

__all__ = ["template_of"]

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
