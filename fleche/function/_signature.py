"""Signatures: what a callable accepts, and what tells its calls apart.

The two differ for a wrapper, such as a decorator makes with :func:`functools.wraps`. Which calls it
accepts, and what it takes for an argument that is not passed, only its own code says. If that takes
anything (``*args, **kwargs``), the function inside lends the names, but never the defaults: the
wrapper may pass something else.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib import import_module
from types import FunctionType, MethodType
from typing import Any, Final, NamedTuple

from fleche._util import annotations_of

__all__ = [
    "OMITTED",
    "Signatures",
    "Transparent",
    "compile_binder",
    "find_kind",
    "find_signatures",
    "signature_of",
    "unbind",
    "unwrap_partial",
]

PARAMETER = inspect.Parameter
POSITIONAL = (PARAMETER.POSITIONAL_ONLY, PARAMETER.POSITIONAL_OR_KEYWORD)
ANYTHING = [PARAMETER.VAR_POSITIONAL, PARAMETER.VAR_KEYWORD]


class _Omitted:
    """The type of :data:`OMITTED`."""

    def __repr__(self) -> str:
        return "..."

    def __reduce__(self) -> str:
        return "OMITTED"


OMITTED: Final = _Omitted()
"""The default of a parameter whose real default is not known."""


class Transparent:
    """A callable object that calls its ``__wrapped__`` with the very arguments that it gets."""


class Signatures(NamedTuple):
    """The signatures of one callable.

    Attributes:
        own: that of the callable itself.
        canonical: that by which its calls are told apart.
        borrowed: whether the latter is that of a function inside, which may accept other calls.
    """

    own: inspect.Signature
    canonical: inspect.Signature
    borrowed: bool


def signature_of(function: Callable[..., Any], **options: Any) -> inspect.Signature:
    """Return what :func:`inspect.signature` does, whatever an annotation needs that is not there.

    Raises:
        ValueError: the callable does not say which parameters it has.
    """
    if sys.version_info >= (3, 14):
        options["annotation_format"] = import_module("annotationlib").Format.FORWARDREF
    return inspect.signature(function, **options)


def unwrap_partial(function: Any) -> Any:
    """Return the callable below any number of partials and bound methods."""
    while isinstance(function, partial) or inspect.ismethod(function):
        function = function.func if isinstance(function, partial) else function.__func__
    return function


def find_signatures(function: Callable[..., Any]) -> Signatures:
    """Find out how a callable is called.

    Raises:
        ValueError: it does not say which parameters it has.
    """
    base = unwrap_partial(function)
    entry = entry_of(base)
    if hasattr(base, "__wrapped__") and not inspect.isclass(base):
        inspect.unwrap(base)  # raises if that never ends
        found = signatures_of_wrapper(base, entry)
    elif entry is not base and hasattr(entry, "__wrapped__"):
        found = find_signatures(MethodType(entry, base))
    else:
        own = signature_of(function)
        return Signatures(own, own, borrowed=False)
    own = refit(function, found.own)
    try:
        return Signatures(own, refit(function, found.canonical), found.borrowed)
    except ValueError:  # a partial passes what only the wrapper takes
        return Signatures(own, own, borrowed=False)


def entry_of(function: Any) -> Any:
    """Return the function with code that a call enters: this one, or that of its class, or None."""
    if inspect.isclass(function):
        return None
    entry = function if has_code(function) else type(function).__call__
    return entry if has_code(entry) else None


def has_code(function: Any) -> bool:
    """Whether this is a function of Python, or of a compiler that makes the same."""
    return hasattr(type(function), "__code__")


def signatures_of_wrapper(wrapper: Any, entry: Any) -> Signatures:
    """Find out how what has a ``__wrapped__`` is called, and ask that too if need be."""
    if entry is None or isinstance(wrapper, Transparent):  # such as functools.lru_cache
        return find_signatures(wrapper.__wrapped__)
    own = signature_of_code(entry)
    if entry is not wrapper:
        own = inspect.signature(MethodType(stand_in(own), wrapper))
    try:
        inner = find_signatures(wrapper.__wrapped__).canonical
    except (TypeError, ValueError):
        return Signatures(own, own, borrowed=False)
    if not passes_on(own, inner):
        return Signatures(own, own, borrowed=False)
    return Signatures(own, without_defaults(inner), borrowed=True)


def signature_of_code(function: Any) -> inspect.Signature:
    """Return the signature that a function really has, whatever its attributes pretend."""
    if not isinstance(function, FunctionType):
        return signature_of(function, follow_wrapped=False)
    bare = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    bare.__kwdefaults__ = function.__kwdefaults__
    bare.__annotations__ = annotations_of(function)
    return signature_of(bare)


def passes_on(own: inspect.Signature, inner: inspect.Signature) -> bool:
    """Whether a wrapper takes anything, except that it may name the first parameters as well."""
    parameters = list(own.parameters.values())
    if [parameter.kind for parameter in parameters[-2:]] != ANYTHING:
        return False
    leading = parameters[:-2]
    within = list(inner.parameters.values())[: len(leading)]
    same = [outer.name for outer in leading] == [
        parameter.name for parameter in within if parameter.kind in POSITIONAL
    ]
    return same and all(outer.default is PARAMETER.empty for outer in leading)


def without_defaults(signature: inspect.Signature) -> inspect.Signature:
    """Return the same with defaults that are not known."""
    parameters = signature.parameters.values()
    return signature.replace(
        parameters=[
            parameter
            if parameter.default is PARAMETER.empty
            else parameter.replace(default=OMITTED)
            for parameter in parameters
        ]
    )


def refit(function: Any, signature: inspect.Signature) -> inspect.Signature:
    """Return the signature of partials and bound methods round a callable that has this one.

    Raises:
        ValueError: it does not take what they pass.
    """
    if isinstance(function, partial):
        inner = stand_in(refit(function.func, signature))
        return inspect.signature(partial(inner, *function.args, **function.keywords))
    if inspect.ismethod(function):
        inner = stand_in(refit(function.__func__, signature))
        return inspect.signature(MethodType(inner, function.__self__))
    return signature


def stand_in(signature: inspect.Signature) -> Any:
    """Return something that has a signature."""
    shown: Any = lambda: None  # noqa: E731
    shown.__signature__ = signature
    return shown


# -- from a call to its arguments, and back --------------------------------------------------------


def compile_binder(
    signature: inspect.Signature, ignored: Collection[str] = ()
) -> Callable[..., dict[str, Any]] | None:
    """Return a function that takes a call's arguments and returns them in their canonical form.

    It is a function with this very signature, so that the interpreter itself binds, some ten times
    as fast as :meth:`inspect.Signature.bind`. What is wrong with a call it says less well.

    Args:
        signature: what is bound by.
        ignored: parameters that are left out.

    Returns:
        The function; None where the signature has something that cannot be compiled.
    """
    parameters = signature.parameters.values()
    names = [parameter.name for parameter in parameters]
    gathers = [parameter.kind is PARAMETER.VAR_KEYWORD for parameter in parameters]
    if not all(map(str.isidentifier, names)) or (any(gathers) and not set(names) >= set(ignored)):
        return None
    if any(parameter.default is OMITTED for parameter in parameters):
        return None
    given = [each for each in parameters if each.default is not PARAMETER.empty]
    defaults = {each.name: f"_default_{index}" for index, each in enumerate(given)}
    head = _head_of(parameters, defaults)
    body = ", ".join(f"{name!r}: {name}" for name in names if name not in ignored)
    namespace = {defaults[each.name]: each.default for each in given}
    namespace["__name__"] = __name__
    try:
        exec(f"def bind({head}): return {{{body}}}", namespace)
    except SyntaxError:  # a parameter that C code calls by a keyword
        return None
    return namespace["bind"]  # type: ignore[no-any-return]


def _head_of(parameters: Collection[inspect.Parameter], defaults: dict[str, str]) -> str:
    """Return the parameters as they are written, with the names of their defaults."""
    parts: list[str] = []
    before: Any = None
    for parameter in parameters:
        kind = parameter.kind
        if before is PARAMETER.POSITIONAL_ONLY is not kind:
            parts.append("/")
        if kind is PARAMETER.KEYWORD_ONLY and before not in (kind, PARAMETER.VAR_POSITIONAL):
            parts.append("*")
        stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(kind.name, "")
        default = defaults.get(parameter.name)
        parts.append(f"{stars}{parameter.name}" + (f"={default}" if default else ""))
        before = kind
    if before is PARAMETER.POSITIONAL_ONLY:
        parts.append("/")
    return ", ".join(parts)


def unbind(
    function: str,
    signature: inspect.Signature,
    ignored: Collection[str],
    arguments: Mapping[str, Any],
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
        if default is PARAMETER.empty or default is OMITTED:
            was = "is ignored, so it was not stored," if name in ignored else "is not given"
            raise TypeError(
                f"{function}() cannot be called: the parameter {name!r} {was} and has no default"
            )
        return default

    last = last_positional(signature, arguments)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for index, (name, parameter) in enumerate(parameters.items()):
        if parameter.kind is PARAMETER.VAR_POSITIONAL:
            args += arguments.get(name, ())
        elif parameter.kind is PARAMETER.VAR_KEYWORD:
            kwargs.update(arguments.get(name, {}))
        elif index <= last:
            args.append(value_of(name))
        elif name in arguments or parameter.default is PARAMETER.empty:
            kwargs[name] = value_of(name)
    return tuple(args), kwargs


def last_positional(signature: inspect.Signature, arguments: Mapping[str, Any]) -> int:
    """Return the index of the last parameter that has to be passed by position, or -1."""
    extra = find_kind(signature, PARAMETER.VAR_POSITIONAL)
    more = extra is not None and bool(arguments.get(extra))
    last = -1
    for index, (name, parameter) in enumerate(signature.parameters.items()):
        if parameter.kind is PARAMETER.POSITIONAL_ONLY:
            last = index if name in arguments else last
        elif parameter.kind is PARAMETER.POSITIONAL_OR_KEYWORD and more:
            last = index
    return last


def find_kind(signature: inspect.Signature, kind: Any) -> str | None:
    """Return the name of the parameter of a kind of which there is at most one."""
    for name, parameter in signature.parameters.items():
        if parameter.kind is kind:
            return name
    return None
