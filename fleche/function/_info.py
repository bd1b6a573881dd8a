"""Signature, markers and code of one callable."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleche.digest import Digest, code_digest

from ._markers import IGNORED, REQUIRED, find_markers, unwrap_partial

__all__ = ["FunctionInfo", "inspect_function"]

PARAMETER = inspect.Parameter


@dataclass(frozen=True)
class FunctionInfo:
    """A callable as fleche sees it; made by :func:`inspect_function`.

    Attributes:
        function: the callable itself.
        name: its qualified name.
        module: the module that defines it.
        signature: its parameters.
        ignored: parameters that are no part of the key.
        required: parameters without which a call is not cached.
        pinned_code: the code digest from the process that first inspected the function; set when
            the record travels to another process, where the source may be missing.
    """

    function: Callable[..., Any]
    name: str
    module: str
    signature: inspect.Signature
    ignored: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    pinned_code: Digest | None = field(default=None, repr=False)

    @property
    def code(self) -> Digest:
        """The digest of what the function does, taken anew since captured values may change.

        Raises:
            Indigestible: if a default or a captured value has no digest.
        """
        return self.pinned_code or code_digest(self.function, ignored=self.ignored)

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            code = self.code
        except TypeError:
            code = None
        values = (
            self.function,
            self.name,
            self.module,
            self.signature,
            self.ignored,
            self.required,
        )
        return (FunctionInfo, (*values, code))

    @property
    def is_main(self) -> bool:
        """Whether it was defined in a script or notebook, whose module name identifies nothing."""
        return self.module == "__main__"

    @property
    def is_named(self) -> bool:
        """Whether module and name lead to this function alone.

        They do not for functions of ``__main__``, lambdas, functions defined inside functions,
        partial and bound functions and other callable objects. Two of those may share a name, so
        their code has to be in the key.
        """
        if self.is_main or "<" in self.name:
            return False
        function = self.function
        if inspect.isbuiltin(function):
            return inspect.ismodule(function.__self__)
        return inspect.isfunction(function) or inspect.isclass(function)

    @property
    def is_generator(self) -> bool:
        """Whether a call returns a generator or an async generator, which cannot be stored."""
        function = unwrap_partial(self.function)
        return inspect.isgeneratorfunction(function) or self.is_async_generator

    @property
    def is_async_generator(self) -> bool:
        """Whether a call returns an async generator."""
        return inspect.isasyncgenfunction(unwrap_partial(self.function))

    @property
    def is_coroutine(self) -> bool:
        """Whether a call has to be awaited."""
        return inspect.iscoroutinefunction(unwrap_partial(self.function))

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call in their one canonical form.

        Parameters come in the order of the signature, ``self`` included, with defaults for what was
        not passed. ``*args`` is one tuple and ``**kwargs`` one dict, sorted by name, each under the
        name of its parameter. Ignored parameters are left out.

        Raises:
            TypeError: if the function cannot be called so; the message is that of the call.
        """
        bound = self.bind_signature(args, kwargs)
        bound.apply_defaults()
        arguments: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if name in self.ignored:
                continue
            if self.signature.parameters[name].kind is PARAMETER.VAR_KEYWORD:
                value = {key: value[key] for key in sorted(value) if key not in self.ignored}
            arguments[name] = value
        return arguments

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
        extra = self.find_kind(PARAMETER.VAR_KEYWORD)
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
        parameters = self.signature.parameters
        if unknown := sorted(set(arguments) - set(parameters)):
            raise TypeError(f"{self.name}() has no parameter {unknown[0]!r}")
        last = self.last_positional(arguments)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for index, (name, parameter) in enumerate(parameters.items()):
            if parameter.kind is PARAMETER.VAR_POSITIONAL:
                args += arguments.get(name, ())
            elif parameter.kind is PARAMETER.VAR_KEYWORD:
                kwargs.update(arguments.get(name, {}))
            elif index <= last:
                args.append(self.value_of(name, arguments))
            elif name in arguments or parameter.default is PARAMETER.empty:
                kwargs[name] = self.value_of(name, arguments)
        return tuple(args), kwargs

    def last_positional(self, arguments: Mapping[str, Any]) -> int:
        """Return the index of the last parameter that has to be passed by position, or -1."""
        extra = self.find_kind(PARAMETER.VAR_POSITIONAL)
        last = -1
        for index, (name, parameter) in enumerate(self.signature.parameters.items()):
            if parameter.kind is PARAMETER.POSITIONAL_ONLY:
                last = index if name in arguments else last
            elif (
                parameter.kind is PARAMETER.POSITIONAL_OR_KEYWORD and extra and arguments.get(extra)
            ):
                last = index
        return last

    def value_of(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Return the given value of a parameter, or its default.

        Raises:
            TypeError: if there is neither.
        """
        default = self.signature.parameters[name].default
        if name in arguments:
            return arguments[name]
        if default is PARAMETER.empty:
            why = (
                "is ignored, so it was not stored, and"
                if name in self.ignored
                else "is not given and"
            )
            raise TypeError(
                f"{self.name}() cannot be called: the parameter {name!r} {why} has no default"
            )
        return default

    def bind_signature(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> inspect.BoundArguments:
        """Bind without defaults; errors name the function.

        Raises:
            TypeError: if the function cannot be called so.
        """
        try:
            return self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None

    def find_kind(self, kind: Any) -> str | None:
        """Return the name of the parameter of a kind of which there is at most one."""
        for name, parameter in self.signature.parameters.items():
            if parameter.kind is kind:
                return name
        return None


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
        signature = inspect.signature(function)
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
