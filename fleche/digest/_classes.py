"""Classes: as values by name, as code by what they consist of.

A class consists of all that is found in it, but for what is derived from the rest: by Python, by a
decorator or by a metaclass. Only what is known to be derived is left out.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from fleche._util import annotations_of
from fleche.digest._assignments import defining_syntax
from fleche.digest._builtin import Attributes
from fleche.digest._clock import is_from_clock, is_simple
from fleche.digest._code import captured_by
from fleche.digest._instances import attributes_of, is_enum, members_of_enum, written_in_enum
from fleche.digest._names import array_of, find_name, own_module
from fleche.digest._registry import Node, module_of, node, register
from fleche.digest._tokens import global_token

if TYPE_CHECKING:
    from fleche.digest._walk import Walk

__all__ = [
    "ClassCode",
    "describe_forward_reference",
    "describe_type_variable",
    "describe_union",
    "made_by_clock",
    "members_of",
    "told_to",
    "types_in",
]

SKIPPED_TYPES = (
    *(("builtins", name) for name in ("getset_descriptor", "member_descriptor")),
    ("_ctypes", "CField"),
    *((module, "_tuplegetter") for module in ("_collections", "collections")),
    ("pydantic._internal._utils", "LazyClassAttribute"),  # a signature
)
"""Types of descriptors, by module and name, that only lead to what is known anyway."""
UNIONS = ("Union", "UnionType", "_UnionGenericAlias")
GENERICS = ("GenericAlias", "_CallableGenericAlias", "_GenericAlias")
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
        "__classdictcell__",
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

ASSUMPTIONS = frozenset(["_explicit_class_assumptions", "_prop_handler", "default_assumptions"])
"""What sympy notes in a class, in an order that depends on the hash seed."""


class ClassCode:
    """What a class consists of, apart from what its bases that have a name consist of."""

    __slots__ = ("cls",)

    def __init__(self, cls: type) -> None:
        self.cls = cls


class FromClock:
    """An attribute of a class that the clock or chance has made: it counts as it is written."""

    __slots__ = ("syntax",)

    def __init__(self, syntax: bytes) -> None:
        self.syntax = syntax


def describe_class(obj: Any, _walk: Walk) -> bytes | Node:
    if (array := array_of(obj)) is not None:
        return node(b"array of ctypes", array)
    return global_token(*(find_name(obj) or (own_module(obj), obj.__qualname__)))


def describe_class_code(obj: ClassCode, _walk: Walk) -> Node:
    cls = obj.cls
    members, made = members_of(cls)
    members.update(made_by_clock(cls, members))
    told = told_to(cls, made)
    bases = tuple(
        base if find_name(base) else ClassCode(base) for base in cls.__bases__ if base is not object
    )
    parts = (own_module(cls), cls.__qualname__, metaclass_of(cls), bases, Attributes(members))
    return node(
        b"class",
        (*parts, Attributes(told)) if told else parts,
        step=lambda _, index: f"<class {cls.__qualname__}>" if index > 3 else "",
    )


def metaclass_of(cls: type) -> Any:
    """Return the metaclass; that of enumerations was renamed in Python 3.11, so by its old name."""
    return "EnumMeta" if module_of(type(cls)) == "enum" else type(cls)


def members_of(cls: Any) -> tuple[dict[str, Any], list[str]]:
    """Return what the body of a class has defined, and the names of the functions made from it."""
    members: dict[str, Any] = {}
    made: list[str] = []
    for name, value in vars(cls).items():
        if name in DERIVED or (type(value).__module__, type(value).__name__) in SKIPPED_TYPES:
            continue
        if name == "__init__" and is_handed_down(cls, value):
            continue
        if is_made(cls, value):
            made.append(name)
        else:
            members[name] = value.__code__.co_name if is_ordering(value) else value
    if "_explicit_class_assumptions" in members:  # sympy makes them of sets
        for name in ASSUMPTIONS & members.keys():
            members[name] = dict(sorted(members[name].items()))
    members.pop("__annotations__", None)
    if annotations := annotations_of(cls):
        members["__annotations__"] = {name: spell(kind) for name, kind in annotations.items()}
    return written_in_enum(cls, members) if is_enum(cls) else members, made


def made_by_clock(cls: type, values: Mapping[str, Any]) -> dict[str, FromClock]:
    """Return those attributes of a class that the clock or chance has made."""
    space = getattr(sys.modules.get(cls.__module__), "__dict__", {})
    paths = {name: f"{cls.__qualname__}.{name}" for name in values if is_simple(values[name])}
    return {
        name: FromClock(defining_syntax(space, path))
        for name, path in paths.items()
        if is_from_clock(space, path)
    }


def told_to(cls: Any, made: list[str]) -> dict[str, Any]:
    """Return what a class has told its bases, its decorator and its metaclass."""
    own = vars(cls)
    told = {
        "parameters": parameters_of(own),
        "dataclass": fields_of_dataclass(cls),
        "attrs": fields_of_attrs(own, made),
        "model": tuple(own.get("__pydantic_fields__", ())),
        "struct": fields_of_struct(cls),
        "enum": members_of_enum(cls) if is_enum(cls) else (),
    }
    return {name: value for name, value in told.items() if value}


def fields_of_dataclass(cls: Any) -> tuple[Any, ...]:
    """Return the options of a dataclass and of its fields, in their order."""
    own = vars(cls)
    if "__dataclass_params__" not in own:
        return ()
    options = options_of(own["__dataclass_params__"], DERIVED_OPTIONS)
    fields = {name: options_of_field(field) for name, field in own["__dataclass_fields__"].items()}
    defaults = {name: found["default"] for name, found in fields.items() if "default" in found}
    for name, default in made_by_clock(cls, defaults).items():
        fields[name]["default"] = default
    return (options, list(fields.items()))


def options_of_field(field: Any) -> dict[str, Any]:
    """Return what was said of a field of a dataclass.

    What says that there is no default, and the type of the metadata, are others in Python 3.15.
    """
    missing = sys.modules["dataclasses"].MISSING
    options = {**options_of(field, DERIVED_OF_FIELDS), "metadata": dict(field.metadata)}
    return {name: value for name, value in options.items() if value is not missing}


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


def fields_of_struct(cls: Any) -> tuple[Any, ...]:
    """Return the fields of a struct of msgspec with what stands for them, and its options."""
    if not isinstance(getattr(cls, "__struct_fields__", None), tuple):
        return ()
    config = cls.__struct_config__
    defaults = [getattr(each, "factory", each) for each in cls.__struct_defaults__]
    options = {name: getattr(config, name) for name in dir(config) if not name.startswith("_")}
    return (
        list(cls.__struct_encode_fields__),
        [repr(each) if type(each).__module__ == "msgspec._core" else each for each in defaults],
        options,
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


def types_in(function: types.FunctionType) -> str:
    """Return the annotations of a function as text."""
    return ", ".join(f"{name}: {spell(kind)}" for name, kind in annotations_of(function).items())


def spell(obj: object) -> str:
    """Return an annotation as text, without addresses of objects in memory.

    It is the same in all versions of Python, which write unions and forward references otherwise.
    """
    annotation: Any = getattr(obj, "__forward_arg__", obj)
    if isinstance(annotation, str):
        return annotation
    kind = type(annotation).__name__
    if kind in UNIONS:
        return " | ".join(map(spell, annotation.__args__))
    if kind in GENERICS:
        return f"{spell(annotation.__origin__)}[{', '.join(map(spell, annotation.__args__))}]"
    if kind == "_AnnotatedAlias":
        annotation = (spell(annotation.__origin__), *annotation.__metadata__)
    import re

    return re.sub(r" at 0x\w+", "", repr(annotation))


def describe_union(obj: Any, _walk: Walk) -> bytes | Node:
    """Describe a union by its members, however it is written; to Python 3.14 that is one type."""
    return node(b"Union", obj.__args__)


def describe_forward_reference(obj: Any, _walk: Walk) -> bytes | Node:
    """Describe what an annotation refers to, which has no value yet, as it is written."""
    return node(b"ForwardRef", (obj.__forward_arg__, obj.__forward_module__))


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


def is_handed_down(cls: type, init: Any) -> bool:
    """Whether typing has written the inherited `__init__` into a class with a protocol as base.

    It does so when the first object is made.
    """
    inherited = (vars(base).get("__init__") for base in cls.__mro__[1:])
    theirs = (found for found in inherited if found and module_of(found) != "typing")
    return init is next(theirs, None)


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
register(ClassCode, describe_class_code)
register(FromClock, lambda obj, _walk: node(b"clock", (obj.syntax,)))
