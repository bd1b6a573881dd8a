"""The markers of parameters, such as ``Ignored[T]``, and how to find them in annotations."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec

from fleche.function._signature import signature_of, unwrap_partial

__all__ = [
    "CONTENT",
    "IGNORED",
    "REQUIRED",
    "SECRET",
    "UNORDERED",
    "Content",
    "Ignored",
    "Marker",
    "Required",
    "Secret",
    "Unordered",
    "find_markers",
]

T = TypeVar("T")


class Marker(msgspec.Struct, frozen=True):
    """What an annotation says about a parameter beyond its type."""

    name: str


IGNORED = Marker("Ignored")
REQUIRED = Marker("Required")
UNORDERED = Marker("Unordered")
CONTENT = Marker("Content")
SECRET = Marker("Secret")

Ignored = Annotated[T, IGNORED]
"""``Ignored[T]`` is ``T`` to a type checker; fleche leaves the parameter out of the key."""

Required = Annotated[T, REQUIRED]
"""``Required[T]`` is ``T`` to a type checker; fleche caches only calls that pass the parameter."""

Unordered = Annotated[T, UNORDERED]
"""``Unordered[T]`` is ``T`` to a type checker; the order of dicts in the argument does not count.

That holds at any depth, and for what is built on dicts as well.
"""

Content = Annotated[T, CONTENT]
"""``Content[T]`` is ``T`` to a type checker; a path in the argument counts by what it names holds.

That is the bytes of the file, or of the tree of a directory, and not the text of the path. The
argument is a path, as an object or as text, or a list, tuple, set, dict or dataclass of paths, and
the marker may stand inside as well: ``list[Content[Path]]``.
"""

Secret = Annotated[T, SECRET]
"""``Secret[T]`` is ``T`` to a type checker; the value of the argument is stored and shown nowhere.

It is part of the key by its digest, which the record holds: one who guesses the value can tell that
the guess is right. To leave it out of the key as well, mark the parameter as ``Ignored``.
"""

VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
MARKERS = {marker.name: marker for marker in (IGNORED, REQUIRED, UNORDERED, CONTENT, SECRET)}
GENERICS = {
    "Ignored": Ignored,
    "Required": Required,
    "Unordered": Unordered,
    "Content": Content,
    "Secret": Secret,
}


def find_markers(
    function: Callable[..., Any], signature: inspect.Signature
) -> dict[Marker, frozenset[str]]:
    """Return the parameters that are annotated with each marker.

    Those of a function inside a wrapper count too, where a call may pass them through it.
    """
    parameters = dict(signature.parameters)
    if any(parameter.kind in VARIABLE for parameter in parameters.values()):
        parameters = {**shown_parameters(function), **parameters}
    found: dict[Marker, set[str]] = {marker: set() for marker in MARKERS.values()}
    for name, parameter in parameters.items():
        for marker in markers_of(parameter.annotation, function):
            found[marker].add(name)
    return {marker: frozenset(names) for marker, names in found.items()}


def shown_parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of the innermost function, if it says which it has."""
    try:
        return signature_of(function).parameters
    except (TypeError, ValueError):
        return {}


def markers_of(annotation: Any, function: Callable[..., Any]) -> list[Marker]:
    """Return the markers in an annotation, at its top or in a member of a union.

    ``Content`` counts at any depth: a path inside a list is a path.
    """
    annotation = getattr(annotation, "__forward_arg__", annotation)
    if isinstance(annotation, str):
        return markers_of_text(annotation, function)
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        found = [item for item in metadata if isinstance(item, Marker)]
        return found + markers_of(inner, function)
    if is_union(get_origin(annotation)):
        return [marker for part in get_args(annotation) for marker in markers_of(part, function)]
    inside = [marker for part in parts_of(annotation) for marker in markers_of(part, function)]
    return [CONTENT] if CONTENT in inside else []


def parts_of(annotation: Any) -> list[Any]:
    """Return the arguments of a generic type; a ``Literal`` has none that are types."""
    if getattr(get_origin(annotation), "_name", "") == "Literal":
        return []
    return [part for part in get_args(annotation) if not isinstance(part, list)]


def is_union(origin: Any) -> bool:
    return getattr(origin, "__name__", getattr(origin, "_name", None)) in ("Union", "UnionType")


def markers_of_text(annotation: str, function: Callable[..., Any]) -> list[Marker]:
    """Return the markers in an annotation that is source code.

    Names that only exist for type checkers cannot be evaluated. A marker is then found by the name
    that is subscripted, which is looked up, or taken at its word where it does not exist either.
    """
    inner = inspect.unwrap(unwrap_partial(function))
    namespace = dict(
        getattr(inner, "__globals__", vars(sys.modules.get(inner.__module__, inspect)))
    )
    for variable, cell in zip(
        getattr(getattr(inner, "__code__", None), "co_freevars", ()),
        getattr(inner, "__closure__", None) or (),
        strict=False,
    ):
        try:
            namespace[variable] = cell.cell_contents
        except ValueError:
            continue
    try:
        return markers_of(eval(annotation, namespace), function)
    except Exception:  # noqa: BLE001 - whatever an annotation raises, it is only an annotation
        return [marker for name, marker in MARKERS.items() if mentions(annotation, name, namespace)]


def mentions(annotation: str, name: str, namespace: dict[str, Any]) -> bool:
    """Whether source code subscripts something that is, or can only be, the marker of this name."""
    try:
        tree = ast.parse(annotation, mode="eval")
    except SyntaxError:
        return False
    generic = GENERICS[name]
    for part in ast.walk(tree):
        if isinstance(part, ast.Subscript):
            head = ast.unparse(part.value)
            try:
                if eval(head, namespace) is generic:
                    return True
            except Exception:  # noqa: BLE001 - see above
                if head.rpartition(".")[2] == name:
                    return True
    return False
