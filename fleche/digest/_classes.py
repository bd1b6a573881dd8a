"""Classes: by name where the name leads back to them, else by what they consist of.

A class consists of all that is found in it, but for what is derived from the rest: by Python, by a
decorator or by a metaclass. Only what is known to be derived is left out.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ._builtin import Attributes
from ._code import captured_by
from ._instances import attributes_of, is_enum, members_of_enum, written_in_enum
from ._names import find_name
from ._registry import Node, module_of, node, register
from ._tokens import global_token

if TYPE_CHECKING:
    from ._walk import Walk

__all__ = ["describe_type_variable"]

SKIPPED_TYPES = (
    *("CField", "getset_descriptor", "member_descriptor", "_tuplegetter"),
    "LazyClassAttribute",  # of pydantic: a signature
)
MACHINERY = ("abc", "dataclasses", "typing")
DERIVED = frozenset(
    [
        "__abstractmethods__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__attrs_attrs__",
        "__attrs_own_setattr__",
        "__attrs_props__",
        "__callable_proto_members_only__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__mutable_keys__",
        "__non_callable_proto_members__",
        "__optional_keys__",
        "__orig_bases__",
        "__parameters__",
        "__protocol_attrs__",
        "__pydantic_complete__",
        "__pydantic_core_schema__",
        "__pydantic_fields_complete__",
        "__pydantic_generic_metadata__",
        "__pydantic_parent_namespace__",
        "__pydantic_serializer__",
        "__pydantic_setattr_handlers__",
        "__pydantic_validator__",
        "__qualname__",
        "__readonly_keys__",
        "__required_keys__",
        "__slotnames__",
        "__static_attributes__",
        "__type_params__",
        "__weakref__",
        "_abc_impl",
        "_is_protocol",
        "_is_runtime_protocol",
    ]
)
"""What a class has besides its definition: its place, its documentation, what was derived."""

DERIVED_OPTIONS = ("kw_only", "match_args", "slots", "weakref_slot")
DERIVED_OF_FIELDS = ("_field_type", "doc", "name", "type")
"""What is seen elsewhere of a dataclass and its fields, and in no version of Python otherwise."""


def describe_class(obj: Any, _walk: Walk) -> bytes | Node:
    name = find_name(obj)
    if name is not None:
        return global_token(*name)
    members, made = members_of(obj)
    told = told_to(obj, made)
    bases = tuple(base for base in obj.__bases__ if base is not object)
    parts = (obj.__module__, obj.__qualname__, metaclass_of(obj), bases, Attributes(members))
    return node(
        b"class",
        (*parts, Attributes(told)) if told else parts,
        step=lambda _, index: f"<class {obj.__qualname__}>" if index > 3 else "",
    )


def metaclass_of(cls: type) -> Any:
    """Return the metaclass; that of enumerations was renamed in Python 3.11, so by its old name."""
    return "EnumMeta" if module_of(type(cls)) == "enum" else type(cls)


def members_of(cls: Any) -> tuple[dict[str, Any], list[str]]:
    """Return what the body of a class has defined, and the names of the functions made from it."""
    members: dict[str, Any] = {}
    made: list[str] = []
    for name, value in vars(cls).items():
        if name in DERIVED or type(value).__name__ in SKIPPED_TYPES:
            continue
        if is_made(cls, value):
            made.append(name)
        else:
            members[name] = value.__code__.co_name if is_ordering(value) else value
    if annotations := members.pop("__annotations__", None):
        members["__annotations__"] = {name: spell(kind) for name, kind in annotations.items()}
    return written_in_enum(cls, members) if is_enum(cls) else members, made


def told_to(cls: Any, made: list[str]) -> dict[str, Any]:
    """Return what a class has told its bases, its decorator and its metaclass."""
    own = vars(cls)
    told = {
        "parameters": parameters_of(own),
        "dataclass": fields_of_dataclass(own),
        "attrs": fields_of_attrs(own, made),
        "model": tuple(own.get("__pydantic_fields__", ())),
        "enum": members_of_enum(cls) if is_enum(cls) else (),
    }
    return {name: value for name, value in told.items() if value}


def fields_of_dataclass(own: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the options of a dataclass and of its fields, in their order."""
    if "__dataclass_params__" not in own:
        return ()
    options = options_of(own["__dataclass_params__"], DERIVED_OPTIONS)
    fields = own["__dataclass_fields__"].items()
    return (options, [(name, options_of(field, DERIVED_OF_FIELDS)) for name, field in fields])


def fields_of_attrs(own: Mapping[str, Any], made: list[str]) -> tuple[Any, ...]:
    """Return which methods attrs was told to make, and the options of fields, in their order."""
    if "__attrs_attrs__" not in own:
        return ()
    methods = sorted({*made} - {"__replace__"})  # which Python 3.13 alone asks for
    fields = own["__attrs_attrs__"]
    return (
        methods,
        [(field.name, spell(field.type), options_of(field, ("name", "type"))) for field in fields],
    )


def options_of(obj: object, derived: Collection[str]) -> dict[str, Any]:
    """Return all that an object of a decorator says, but for what is derived."""
    return {name: value for name, value in attributes_of(obj).items() if name not in derived}


def parameters_of(own: Mapping[str, Any]) -> list[Any]:
    """Return what stood in the brackets of generic bases, and what pydantic has made of a model."""
    found = [
        (base.__origin__, [written(kind) for kind in base.__args__])
        for base in own.get("__orig_bases__", ())
        if hasattr(base, "__origin__") and hasattr(base, "__args__")
    ]
    model = own.get("__pydantic_generic_metadata__")
    if model and model["origin"] is not None:
        found.append((model["origin"], [written(kind) for kind in model["args"]]))
    return found


def written(kind: object) -> object:
    """Return a class as it is, and any other annotation as text."""
    return kind if issubclass(type(kind), type) else spell(kind)  # list[int] may say it is a type


def spell(annotation: object) -> str:
    """Return an annotation as text, without addresses of objects in memory."""
    annotation = getattr(annotation, "__forward_arg__", annotation)
    if isinstance(annotation, str):
        return annotation
    import re

    return re.sub(r" at 0x\w+", "", repr(annotation))


def describe_type_variable(obj: Any, _walk: Walk) -> bytes | Node:
    """Describe a type variable by its name, or by what it says where that leads nowhere."""
    if (name := find_name(obj)) is not None:
        return global_token(*name)
    limits = (obj.__bound__, *obj.__constraints__)
    kind = (obj.__covariant__, obj.__contravariant__)
    return node(b"TypeVar", (obj.__name__, *kind, *map(written, limits)))


def is_ordering(value: Any) -> bool:
    """Whether total_ordering has made a method; its code differs between versions of Python."""
    return (
        isinstance(value, types.FunctionType)
        and value.__globals__.get("__name__") == "functools"
        and "_from_" in value.__code__.co_name
    )


def is_made(cls: type, value: Any) -> bool:
    """Whether a function was generated by a decorator or base class from what is known anyway."""
    function = getattr(value, "__func__", value)
    if not isinstance(function, types.FunctionType):
        return False
    module = str(function.__globals__.get("__name__"))
    if module == "reprlib":  # it wraps what others write, and since Python 3.13 dataclasses, too
        return any(is_made(cls, inner) for inner in captured_by(function).values())
    if module in MACHINERY or module.startswith("attr."):
        return True
    if "_fields" in vars(cls) and module in ("collections", f"namedtuple_{cls.__name__}"):
        return True
    code = function.__code__
    if code.co_filename.startswith("<attrs generated"):
        return True
    if hasattr(code, "co_qualname"):
        return bool(code.co_qualname.startswith("__create_fn__"))
    is_dataclass = "__dataclass_fields__" in vars(cls)
    return is_dataclass and code.co_filename == "<string>" and code.co_firstlineno <= 2


register(type, describe_class, subclasses=True)
