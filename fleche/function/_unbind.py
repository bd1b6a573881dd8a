"""From the canonical arguments of a call back to the call."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from inspect import Parameter, Signature
from typing import Any

from ._signature import OMITTED

__all__ = ["find_kind", "unbind"]


def unbind(
    function: str, signature: Signature, ignored: Collection[str], arguments: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return ``(args, kwargs)`` with which to make the call whose bound arguments are given.

    Args:
        function: its name, for errors.
        signature: its parameters.
        ignored: those that were not stored.
        arguments: values by the names of the parameters.

    Raises:
        TypeError: if a name is not a parameter, or one without a default is not given.
    """
    parameters = signature.parameters
    if unknown := sorted(set(arguments) - set(parameters)):
        raise TypeError(f"{function}() has no parameter {unknown[0]!r}")

    def value_of(name: str) -> Any:
        default = parameters[name].default
        if name in arguments:
            return arguments[name]
        if default is Parameter.empty or default is OMITTED:
            was = "is ignored, so it was not stored," if name in ignored else "is not given"
            raise TypeError(
                f"{function}() cannot be called: the parameter {name!r} {was} and has no default"
            )
        return default

    last = last_positional(signature, arguments)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for index, (name, parameter) in enumerate(parameters.items()):
        if parameter.kind is Parameter.VAR_POSITIONAL:
            args += arguments.get(name, ())
        elif parameter.kind is Parameter.VAR_KEYWORD:
            kwargs.update(arguments.get(name, {}))
        elif index <= last:
            args.append(value_of(name))
        elif name in arguments or parameter.default is Parameter.empty:
            kwargs[name] = value_of(name)
    return tuple(args), kwargs


def last_positional(signature: Signature, arguments: Mapping[str, Any]) -> int:
    """Return the index of the last parameter that has to be passed by position, or -1."""
    extra = find_kind(signature, Parameter.VAR_POSITIONAL)
    more = extra is not None and bool(arguments.get(extra))
    last = -1
    for index, (name, parameter) in enumerate(signature.parameters.items()):
        if parameter.kind is Parameter.POSITIONAL_ONLY:
            last = index if name in arguments else last
        elif parameter.kind is Parameter.POSITIONAL_OR_KEYWORD and more:
            last = index
    return last


def find_kind(signature: Signature, kind: Any) -> str | None:
    """Return the name of the parameter of a kind of which there is at most one."""
    for name, parameter in signature.parameters.items():
        if parameter.kind is kind:
            return name
    return None
