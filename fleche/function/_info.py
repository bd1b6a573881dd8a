"""Signature, markers and code of one callable."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import msgspec

from fleche.digest import Digest, digest
from fleche.function._markers import CONTENT, IGNORED, REQUIRED, SECRET, UNORDERED, find_markers
from fleche.function._signature import (
    OMITTED,
    compile_binder,
    entry_of,
    find_kind,
    find_signatures,
    unbind,
    unwrap_partial,
)

__all__ = ["FunctionInfo", "inspect_function"]

PARAMETER = inspect.Parameter


class FunctionInfo(msgspec.Struct, frozen=True, dict=True):  # for cached properties
    """A callable as fleche sees it; made by :func:`inspect_function`.

    Attributes:
        function: the callable itself.
        name: its qualified name.
        module: the module that defines it.
        signature: the parameters by which its calls are told apart.
        ignored: parameters that are no part of the key.
        required: parameters without which a call is not cached.
        borrowed: whether the signature is that of a function inside a wrapper that takes anything;
            the wrapper may then accept a call that does not fit it.
        unordered: parameters in which the order of dicts does not count.
        content: parameters whose paths count by what the files hold.
        secret: parameters whose values are stored and shown nowhere.
        added: the digests of the values at which parameters mean what the function did before it
            had them; then they are no part of a call.
        renamed: under what names parameters were known before, and still are in calls.
    """

    function: Callable[..., Any]
    name: str
    module: str
    signature: inspect.Signature
    ignored: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    borrowed: bool = False
    unordered: frozenset[str] = frozenset()
    content: frozenset[str] = frozenset()
    secret: frozenset[str] = frozenset()
    added: Mapping[str, Digest] = msgspec.field(default_factory=dict)
    renamed: Mapping[str, str] = msgspec.field(default_factory=dict)

    @property
    def is_main(self) -> bool:
        """Whether it was defined in a script or notebook, whose module name identifies nothing."""
        return self.module == "__main__"

    @property
    def is_generator(self) -> bool:
        """Whether a call returns a generator or an async generator, which cannot be stored."""
        return inspect.isgeneratorfunction(self.entry) or self.is_async_generator

    @property
    def is_async_generator(self) -> bool:
        """Whether a call returns an async generator."""
        return inspect.isasyncgenfunction(self.entry)

    @property
    def is_coroutine(self) -> bool:
        """Whether a call has to be awaited."""
        function, entry = unwrap_partial(self.function), self.entry
        if entry is function and hasattr(function, "__wrapped__"):
            # whatever mark of a coroutine function it may have taken over from that one
            return bool(function.__code__.co_flags & inspect.CO_COROUTINE)
        return any(map(inspect.iscoroutinefunction, (function, entry)))

    @property
    def entry(self) -> Any:
        """The Python function that a call enters, be it that of a class; if there is one."""
        return entry_of(unwrap_partial(self.function))

    @cached_property
    def own(self) -> inspect.Signature:
        """What the callable itself accepts; a wrapper may show the signature of another."""
        return find_signatures(self.function).own if self.borrowed else self.signature

    @cached_property
    def ignored_keywords(self) -> frozenset[str]:
        """The ignored names that are no parameters, and may be passed by ``**kwargs``."""
        return self.ignored.difference(self.signature.parameters)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call in their one canonical form.

        Parameters come in the order of the signature, ``self`` included, with defaults for what was
        not passed. ``*args`` is one tuple and ``**kwargs`` one dict, in the order in which they
        were passed, each under the name of its parameter. Ignored parameters are left out, and so
        are those that are not passed if only the function inside a wrapper has a default for them.

        Raises:
            TypeError: if the function cannot be called so; the message is that of the call. If the
                signature is borrowed, the call may be right all the same.
        """
        bound = self.bind_signature(args, kwargs)
        bound.apply_defaults()
        arguments: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if name in self.ignored or value is OMITTED:
                continue
            if self.signature.parameters[name].kind is PARAMETER.VAR_KEYWORD:
                ignored = self.ignored_keywords
                value = {key: part for key, part in value.items() if key not in ignored}
            arguments[name] = value
        return self.as_before(arguments) if self.added or self.renamed else arguments

    def as_before(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return arguments as they were before parameters were added or renamed."""
        return {
            self.renamed.get(name, name): value
            for name, value in arguments.items()
            if name not in self.added or digest(value) != self.added[name]
        }

    def binder(self) -> Callable[..., dict[str, Any]] | None:
        """Return a function that takes ``*args, **kwargs`` and does what :meth:`bind` does.

        It is many times as fast, where there is one. What it raises does not name the function.
        """
        if self.borrowed or self.added or self.renamed:
            return None
        return compile_binder(self.signature, self.ignored)

    def bind_own(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        """Bind a call by what the callable itself accepts, with its own defaults.

        Raises:
            TypeError: if the function cannot be called so.
        """
        bound = self.bind_signature(args, kwargs, self.own)
        bound.apply_defaults()
        return bound

    def explicit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> frozenset[str]:
        """Return the names of the parameters that a call passes, keywords of ``**kwargs`` included.

        Raises:
            TypeError: if the function cannot be called so.
        """
        given = self.bind_signature(args, kwargs).arguments
        return frozenset(given).union(set(kwargs) - set(self.signature.parameters))

    def missing_required(
        self, arguments: Mapping[str, Any], explicit: Iterable[str]
    ) -> tuple[str, ...]:
        """Return the required parameters that a call does not pass, or passes as None.

        Args:
            arguments: what :meth:`bind` returned for the call.
            explicit: what :meth:`explicit` returned for the call.
        """
        if not self.required:
            return ()
        given = set(explicit)
        extra = find_kind(self.signature, PARAMETER.VAR_KEYWORD)
        values = {**arguments.get(extra, {}), **arguments} if extra else arguments
        return tuple(
            sorted(name for name in self.required if name not in given or values.get(name) is None)
        )

    def unbind(self, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return ``(args, kwargs)`` with which to make the call whose bound arguments are given.

        Parameters that are not given, such as ignored ones, are left to their defaults.

        Raises:
            TypeError: if a name is not a parameter, or one without a default is not given.
        """
        return unbind(self.name, self.signature, self.ignored, arguments)

    def bind_signature(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        signature: inspect.Signature | None = None,
    ) -> inspect.BoundArguments:
        """Bind without defaults, by another signature if one is given; errors name the function.

        Raises:
            TypeError: if the function cannot be called so.
        """
        try:
            return (signature or self.signature).bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None


def inspect_function(
    function: Callable[..., Any],
    *,
    ignore: str | Iterable[str] = (),
    require: str | Iterable[str] = (),
) -> FunctionInfo:
    """Find out what there is to know about a callable.

    Args:
        function: a function, method, class, partial, or other callable.
        ignore: parameters to ignore, beside those annotated with ``Ignored[T]``.
        require: parameters to require, beside those annotated with ``Required[T]``.

    Raises:
        TypeError: if ``function`` is not callable or has no signature.
        ValueError: if a name is not a parameter, or is both ignored and required.
    """
    if not callable(function):
        raise TypeError(f"{function!r} is not callable")
    subject = unwrap_partial(function)
    if not hasattr(subject, "__qualname__"):
        subject = type(subject)
    name = subject.__qualname__
    try:
        _, signature, borrowed = find_signatures(function)
    except ValueError as error:
        raise TypeError(f"{name} does not say which parameters it has ({error})") from error
    marked = find_markers(function, signature)
    ignored = check_names(ignore, "ignore", name, signature) | marked[IGNORED]
    required = check_names(require, "require", name, signature) | marked[REQUIRED]
    if both := sorted(ignored & required):
        raise ValueError(f"{name}(): the parameter {both[0]!r} is both ignored and required")
    return FunctionInfo(
        function,
        name,
        getattr(subject, "__module__", None) or "builtins",
        signature,
        ignored,
        required,
        borrowed=borrowed,
        unordered=marked[UNORDERED],
        content=marked[CONTENT],
        secret=marked[SECRET],
    )


def check_names(
    names: str | Iterable[str], option: str, function: str, signature: inspect.Signature
) -> frozenset[str]:
    """Return the given parameter names as a set; a function with ``**kwargs`` may take any.

    Raises:
        ValueError: if a name is not a parameter.
    """
    wanted = frozenset([names] if isinstance(names, str) else names)
    parameters = signature.parameters
    if any(parameter.kind is PARAMETER.VAR_KEYWORD for parameter in parameters.values()):
        return wanted
    if unknown := sorted(wanted - set(parameters)):
        known = ", ".join(parameters) or "none"
        raise ValueError(
            f"{option}={unknown[0]!r}: {function}() has no such parameter; there are: {known}"
        )
    return wanted
