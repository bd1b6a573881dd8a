"""Handlers for Python's own types, as far as they are loaded anyway."""

from __future__ import annotations

import builtins
import types
from typing import TYPE_CHECKING, Any

from fleche.digest._digest import Digest
from fleche.digest._names import look_up, own_module
from fleche.digest._registry import (
    LEAVES,
    Node,
    describe_type,
    item_step,
    key_step,
    no_step,
    node,
    register,
)
from fleche.digest._tokens import (
    MAPPING,
    ORDERED,
    UNORDERED,
    bytes_token,
    complex_token,
    digest_token,
    float_token,
    global_token,
    int_token,
    raw_token,
    size,
    text_token,
    unset_token,
)
from fleche.errors import Indigestible

if TYPE_CHECKING:
    from fleche.digest._walk import Walk

__all__ = ["UNSET", "Attributes", "Raw", "describe_mapping", "shape_token"]


class Raw(bytes):
    """A child that is a token already."""

    __slots__ = ()


class Unset:
    """Stands for a value that is not there."""


UNSET = Unset()


class Attributes:
    """Named values that belong to an object; their order means nothing."""

    __slots__ = ("values",)

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values


def shape_token(shape: tuple[int, ...]) -> Raw:
    """Encode the shape of an array."""
    return Raw(raw_token(b"".join(map(size, shape))))


def describe_list(obj: list[Any], _walk: Walk) -> Node:
    return (ORDERED, b"list", obj, item_step)


def describe_tuple(obj: tuple[Any, ...], _walk: Walk) -> Node:
    return (ORDERED, b"tuple", obj, item_step)


def describe_set(obj: set[Any], _walk: Walk) -> Node:
    return (UNORDERED, b"set", list(obj), item_step)


def describe_frozenset(obj: frozenset[Any], _walk: Walk) -> Node:
    return (UNORDERED, b"frozenset", list(obj), item_step)


def describe_dict(obj: dict[Any, Any], _walk: Walk) -> Node:
    return (MAPPING, b"dict", [part for item in obj.items() for part in item], key_step)


def describe_mapping(label: bytes, obj: Any) -> Node:
    """Describe anything with ``items()`` as a mapping; its order counts as that of a dict does."""
    return (MAPPING, label, [part for item in obj.items() for part in item], key_step)


def describe_mappingproxy(obj: Any, _walk: Walk) -> Node:
    return describe_mapping(b"mappingproxy", obj)


def attribute_step(children: Any, index: int) -> str:
    return f".{children[index - index % 2]}"


def describe_attributes(obj: Attributes, _walk: Walk) -> Node:
    values = obj.values
    try:
        children = [part for name in sorted(values) for part in (name, values[name])]
    except TypeError:  # a __dict__ may hold other things than names
        return (UNORDERED, b"attributes", list(values.items()), no_step)
    return (ORDERED, b"attributes", children, attribute_step)


def describe_namespace(obj: types.SimpleNamespace, _walk: Walk) -> Node:
    return node(b"namespace", (Attributes(vars(obj)),))


def describe_bytearray(obj: bytearray, walk: Walk) -> Node:
    with memoryview(obj) as view:
        return node(b"bytearray", (Raw(walk.buffer(view)),))


def describe_memoryview(obj: memoryview, walk: Walk) -> Node:
    if obj.c_contiguous:
        data = walk.buffer(obj)
    else:
        with memoryview(obj.tobytes()) as flat:
            data = walk.buffer(flat)
    parts = (obj.format, shape_token(obj.shape or ()), Raw(data), obj.readonly)
    return node(b"memoryview", parts)


def describe_range(obj: range, _walk: Walk) -> Node:
    return node(b"range", (obj.start, obj.stop, obj.step))


def describe_slice(obj: slice, _walk: Walk) -> Node:
    return node(b"slice", (obj.start, obj.stop, obj.step))


def describe_module(obj: types.ModuleType, _walk: Walk) -> bytes:
    return b"M" + text_token(obj.__name__)


def describe_builtin(obj: types.BuiltinFunctionType, _walk: Walk) -> bytes | Node:
    """Describe a function written in C by its name, a bound one by its object as well."""
    owner = obj.__self__
    if owner is None or isinstance(owner, types.ModuleType):
        module = obj.__module__ or (owner.__name__ if owner is not None else "")
        if look_up(module, obj.__name__) is not obj:
            raise Indigestible(f"the function {obj.__qualname__} is not found under its name")
        return global_token(module, obj.__qualname__)
    return node(b"builtin method", (owner, obj.__name__))


def describe_slot(obj: Any, _walk: Walk) -> Node:
    return node(b"slot", (obj.__objclass__, obj.__name__))


def describe_bound_slot(obj: Any, _walk: Walk) -> Node:
    return node(b"bound slot", (obj.__self__, obj.__name__))


def describe_method(obj: types.MethodType, _walk: Walk) -> Node:
    return node(b"method", (obj.__func__, obj.__self__))


def describe_wrapped_function(obj: Any, _walk: Walk) -> Node:
    return node(type(obj).__name__.encode(), (obj.__func__,))


def describe_property(obj: property, _walk: Walk) -> Node:
    return node(b"property", (obj.fget, obj.fset, obj.fdel))


def describe_frozendict(obj: Any, _walk: Walk) -> Node:
    return describe_mapping(b"frozendict", obj)


def describe_sentinel(obj: Any, _walk: Walk) -> Node:
    """Describe a sentinel (PEP 661) by its module and name, which is all that there is of it."""
    return node(b"sentinel", (own_module(obj), obj.__name__))


def describe_cell(obj: types.CellType, _walk: Walk) -> Node:
    try:
        return node(b"cell", (obj.cell_contents,))
    except ValueError:
        return node(b"cell", (UNSET,))


def refuse(obj: object, _walk: Walk) -> Node:
    raise Indigestible(
        f"{describe_type(type(obj))} has no digest: only running it tells what it holds; "
        "pass the values themselves"
    )


LEAVES.update(
    {
        type(None): lambda _: b"N",
        bool: lambda value: b"T" if value else b"F",
        int: int_token,
        float: float_token,
        complex: complex_token,
        str: text_token,
        bytes: bytes_token,
        type(...): lambda _: b"E",
        type(NotImplemented): lambda _: b"X",
        Digest: digest_token,
        Raw: bytes,
        Unset: lambda _: unset_token(),
    }
)
LEAF_HANDLERS = dict(LEAVES)


def describe_leaf(obj: Any, _walk: Walk) -> bytes:
    return LEAF_HANDLERS[type(obj)](obj)


for leaf in LEAF_HANDLERS:
    register(leaf, describe_leaf)

for cls, handler in (
    (list, describe_list),
    (tuple, describe_tuple),
    (set, describe_set),
    (frozenset, describe_frozenset),
    (dict, describe_dict),
    (types.MappingProxyType, describe_mappingproxy),
    (types.SimpleNamespace, describe_namespace),
    (Attributes, describe_attributes),
    (bytearray, describe_bytearray),
    (memoryview, describe_memoryview),
    (range, describe_range),
    (slice, describe_slice),
    (types.BuiltinFunctionType, describe_builtin),
    (types.MethodDescriptorType, describe_slot),
    (types.ClassMethodDescriptorType, describe_slot),
    (types.WrapperDescriptorType, describe_slot),
    (types.GetSetDescriptorType, describe_slot),
    (types.MemberDescriptorType, describe_slot),
    (types.MethodWrapperType, describe_bound_slot),
    (types.MethodType, describe_method),
    (staticmethod, describe_wrapped_function),
    (classmethod, describe_wrapped_function),
    (property, describe_property),
    (types.CellType, describe_cell),
    (types.GeneratorType, refuse),
    (types.AsyncGeneratorType, refuse),
    (types.CoroutineType, refuse),
):
    register(cls, handler)
for new, handler in (("frozendict", describe_frozendict), ("sentinel", describe_sentinel)):
    if hasattr(builtins, new):  # from Python 3.15 on
        register(getattr(builtins, new), handler)
register(types.ModuleType, describe_module, subclasses=True)
