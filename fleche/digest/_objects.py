"""Handlers for classes, and for objects of classes that are not known one by one."""

from __future__ import annotations

import copyreg
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fleche.errors import Indigestible

from ._builtin import UNSET, Attributes
from ._names import Named, look_up
from ._registry import (
    Handler,
    Node,
    describe_type,
    is_genuine,
    node,
    register_fallback,
)
from ._tokens import global_token

if TYPE_CHECKING:
    from ._walk import Walk

__all__: list[str] = []

PICKLING = ("__reduce__", "__reduce_ex__", "__getstate__")


def attributes_of(obj: object) -> dict[str, Any]:
    """Return what is in the ``__dict__`` and the slots of an object; unset slots are left out."""
    found = dict(getattr(obj, "__dict__", {}))
    for base in type(obj).__mro__:
        for name, slot in vars(base).items():
            if isinstance(slot, types.MemberDescriptorType) and slot.__objclass__ is base:
                try:
                    found[name] = slot.__get__(obj)
                except AttributeError:
                    continue
    return found


def choose_enum(cls: type) -> Handler | None:
    for base in cls.__mro__:
        if base.__module__ == "enum" and base.__qualname__ == "Flag":
            return describe_flag
        if base.__module__ == "enum" and base.__qualname__ == "Enum":
            return describe_enum
    return None


def describe_enum(obj: Any, _walk: Walk) -> Node:
    return node(b"enum", (type(obj), obj._name_, obj._value_))


def describe_flag(obj: Any, _walk: Walk) -> Node:
    """Describe flags by their value; the name of a combination depends on the Python version."""
    return node(b"flag", (type(obj), obj._value_))


CONTENTS: dict[tuple[str, str], Callable[[Any, Any], Any]] = {
    ("collections", "OrderedDict"): lambda base, obj: base(base.items(obj)),
    ("collections", "defaultdict"): lambda base, obj: base(obj.default_factory, base.items(obj)),
    ("collections", "deque"): lambda base, obj: base(base.__iter__(obj), obj.maxlen),
    ("builtins", "list"): lambda base, obj: base(base.__iter__(obj)),
    ("builtins", "tuple"): lambda base, obj: base(base.__iter__(obj)),
    ("builtins", "dict"): lambda base, obj: base(base.items(obj)),
    ("builtins", "set"): lambda base, obj: base(base.__iter__(obj)),
    ("builtins", "frozenset"): lambda base, obj: base(base.__iter__(obj)),
    ("builtins", "str"): lambda base, obj: base.__str__(obj),
    ("builtins", "bytes"): lambda _, obj: bytes(memoryview(obj)),
    ("builtins", "bytearray"): lambda _, obj: bytearray(memoryview(obj)),
    ("builtins", "int"): lambda base, obj: base.__int__(obj),
    ("builtins", "float"): lambda base, obj: base.__float__(obj),
    ("builtins", "complex"): lambda base, obj: base.__pos__(obj),
}
"""How to see an object of a subclass as one of its base, whatever the subclass overrides."""


def choose_container(cls: type) -> Handler | None:
    """Choose content and attributes for a subclass of a builtin type that leaves pickling alone."""
    for base in cls.__mro__:
        contents = CONTENTS.get((base.__module__, base.__qualname__))
        if contents is not None and is_genuine(base):
            return make_container_handler(base, contents)
        if any(method in vars(base) for method in PICKLING):
            return None
    return None


def make_container_handler(base: Any, contents: Callable[[Any, Any], Any]) -> Handler:
    def describe(obj: Any, _walk: Walk) -> Node:
        return node(b"derived", (type(obj), contents(base, obj), Attributes(attributes_of(obj))))

    return describe


def choose_fields(cls: type) -> Handler | None:
    """Choose the fields for a dataclass or an attrs class."""
    if "__dataclass_fields__" in dir(cls):
        return describe_dataclass
    if hasattr(cls, "__attrs_attrs__"):
        return describe_attrs
    return None


def describe_dataclass(obj: Any, _walk: Walk) -> Node:
    return describe_fields(b"dataclass", obj, list(type(obj).__dataclass_fields__))


def describe_attrs(obj: Any, _walk: Walk) -> Node:
    return describe_fields(b"attrs", obj, [field.name for field in type(obj).__attrs_attrs__])


def describe_fields(label: bytes, obj: Any, names: list[str]) -> Node:
    """Describe an object by its class, its fields and whatever else it holds."""
    values = attributes_of(obj)
    for name in names:
        if name not in values:
            values[name] = getattr(obj, name, UNSET)
    return node(label, (type(obj), Attributes(values)))


def choose_reduce(_cls: type) -> Handler:
    return describe_reduced


def describe_reduced(obj: Any, _walk: Walk) -> bytes | Node:
    """Describe an object by what pickle would be told to rebuild it from."""
    reduced = reduce(obj)
    if isinstance(reduced, str):
        return describe_global(obj, reduced)
    rebuild, args, state, items, pairs, *setter = (*reduced, None, None, None, None)[:6]
    head: tuple[Any, ...] = (Named(rebuild), args)
    if rebuild is vars(copyreg)["__newobj__"]:
        head = (args[0], args[1:])
    tail = (
        tuple(items) if items is not None else None,
        dict(pairs) if pairs is not None else None,
        *(Named(part) for part in setter if part is not None),
    )
    return node(b"object", (*head, state_of(state), *tail))


def reduce(obj: Any) -> str | tuple[Any, ...]:
    """Ask an object, as pickle does, how to rebuild it.

    Raises:
        Indigestible: if it cannot be pickled.
    """
    cls = type(obj)
    reducer = copyreg.dispatch_table.get(cls)
    try:
        return reducer(obj) if reducer else obj.__reduce_ex__(4)
    except Exception as error:
        raise Indigestible(
            f"{describe_type(cls)} has no digest: it can neither be looked into nor pickled "
            f"({type(error).__name__}: {error}); give its class a __digest__ method, register a "
            "hook with fleche.digest.add_hook, or mark the parameter as Ignored"
        ) from error


def state_of(state: Any) -> Any:
    """Show the attributes of an object as such, if that is what its state consists of."""
    if type(state) is dict:
        return attributes_or_dict(state)
    if type(state) is tuple and len(state) == 2 and type(state[1]) is dict:
        return tuple(map(state_of, state))
    return state


def attributes_or_dict(state: dict[Any, Any]) -> Any:
    return Attributes(state) if all(type(name) is str for name in state) else state


def describe_global(obj: Any, name: str) -> bytes:
    """Describe what reduces to a name: something there is one of in its module."""
    for module in (getattr(obj, "__module__", None), type(obj).__module__):
        if isinstance(module, str) and module != "__main__" and look_up(module, name) is obj:
            return global_token(module, name)
    raise Indigestible(
        f"{describe_type(type(obj))} is known by its name {name!r} only, and that does not lead to "
        "it from everywhere; define it in a module that can be imported"
    )


def register_fallbacks() -> None:
    for choose in (choose_enum, choose_container, choose_fields, choose_reduce):
        register_fallback(choose)


register_fallbacks()
