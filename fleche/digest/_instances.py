"""What an instance holds: its attributes, and its content seen as that of a known base class.

Members of enumerations count by class, name and value. The machinery of enumerations leaves much
in the class besides its body, and something else in each version of Python. What it has derived is
told from what was written by name, or by being what an enumeration further up has under that name.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from fleche.digest._builtin import UNSET, Attributes
from fleche.digest._registry import Handler, Node, is_genuine, module_of, node
from fleche.errors import Indigestible

if TYPE_CHECKING:
    from fleche.digest._walk import Walk

__all__ = [
    "attributes_of",
    "choose_enum",
    "derived",
    "find_content",
    "is_enum",
    "keep_attributes",
    "key_of_zone",
    "members_of_enum",
    "restore_state",
    "written_in_enum",
]

Content = Callable[[Any, Any], Any]
Slot = tuple[type, str, types.MemberDescriptorType]

MANY_TYPES = 20_000
NOTED = frozenset(["_attrs_cached_hash", "_deprecated_key_to_warnings"])
"""Attributes in which attrs and scikit-learn note what means nothing in another process."""


def attributes_of(obj: object, beyond: type = object) -> dict[str, Any]:
    """Return what is in the ``__dict__`` and the slots of an object; unset slots are left out.

    So are the slots of ``beyond`` and its bases: what they hold is the content of that class.
    """
    found = dict(getattr(obj, "__dict__", {}))
    for base, name, slot in slots_of(type(obj)):
        if base not in beyond.__mro__:
            try:
                found[name] = slot.__get__(obj)
            except AttributeError:
                continue
    for name in NOTED & found.keys():
        del found[name]
    return found


known: dict[int, tuple[type, tuple[Slot, ...]]] = {}


def slots_of(cls: type) -> tuple[Slot, ...]:
    """Return the slots of a class and its bases, which are looked for once.

    Classes are remembered by identity: a metaclass may hold two of them for equal.
    """
    found = known.get(id(cls))
    if found is None:
        found = (cls, tuple(find_slots(cls)))
        if len(known) >= MANY_TYPES:
            known.clear()
        known[id(cls)] = found
    return found[1]


def find_slots(cls: type) -> Iterator[Slot]:
    for base in cls.__mro__:
        for name, slot in vars(base).items():
            if isinstance(slot, types.MemberDescriptorType) and slot.__objclass__ is base:
                yield base, name, slot


def keep_attributes(reduced: Any, held: dict[str, Any]) -> Any:
    """Return how an object is reduced with its attributes, given how it is without them."""
    if not held or not isinstance(reduced, tuple):
        return reduced
    rebuild, args, state, items, pairs, setter = (*reduced, None, None, None, None)[:6]
    return (rebuild, args, (state, setter, held), items, pairs, restore_attributes)


def restore_attributes(obj: Any, state: tuple[Any, Any, dict[str, Any]]) -> None:
    """Give an object its state, and the attributes that this leaves out."""
    own, setter, held = state
    restore_state(obj, own, setter)
    for name, value in held.items():
        slot = next((vars(base)[name] for base in type(obj).__mro__ if name in vars(base)), None)
        if isinstance(slot, types.MemberDescriptorType):
            slot.__set__(obj, value)
        else:
            object.__getattribute__(obj, "__dict__")[name] = value


def restore_state(obj: Any, own: Any, setter: Callable[[Any, Any], None] | None) -> None:
    if setter is not None:
        setter(obj, own)
    elif hasattr(obj, "__setstate__"):
        if own is not None:
            obj.__setstate__(own)
    elif own:
        vars(obj).update(own)


def derived(obj: Any, base: type, content: Any) -> Node:
    """Describe an object by its class, its content as one of ``base``, and what it has beyond."""
    return node(b"derived", (type(obj), content, Attributes(attributes_of(obj, beyond=base))))


def key_of_zone(obj: Any) -> str:
    """Return the name of a ZoneInfo, under which every system has the zone.

    Raises:
        Indigestible: if it was read from a file, which may hold any zone under any name.
    """
    from pickle import PicklingError

    try:
        obj.__reduce__()
    except PicklingError as error:
        raise Indigestible("a ZoneInfo that was read from a file has no digest") from error
    return str(obj.key)


def path_of(base: Any, obj: Any) -> Any:
    return base(base.__str__(obj))


CONTENTS: dict[tuple[str, str], Content] = {
    ("collections", "OrderedDict"): lambda base, obj: base(base.items(obj)),
    ("collections", "defaultdict"): lambda base, obj: base(obj.default_factory, base.items(obj)),
    ("collections", "deque"): lambda base, obj: base(base.__iter__(obj), obj.maxlen),
    ("fractions", "Fraction"): lambda base, obj: base(
        base.numerator.__get__(obj), base.denominator.__get__(obj)
    ),
    ("zoneinfo", "ZoneInfo"): lambda _, obj: key_of_zone(obj),
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
    **{
        (module, name): path_of
        for module in ("pathlib", "pathlib._local")
        for name in (
            *("PurePosixPath", "PureWindowsPath", "PurePath"),
            *("PosixPath", "WindowsPath", "Path"),
        )
    },
}
"""How to see an object of a subclass as one of its base, whatever the subclass overrides.

These are the types whose own reducers cannot serve: they iterate over the object by methods that a
subclass may override, or what they return depends on the version of Python.
"""


def find_content(base: type) -> Content | None:
    """Return how to see an object of a subclass as one of ``base``, if that is known."""
    content = CONTENTS.get((module_of(base), base.__qualname__))
    return content if content is not None and is_genuine(base) else None


DERIVED = frozenset(
    [
        "_all_bits_",
        "_flag_mask_",
        "_hashable_values_",
        "_inverted_",
        "_member_map_",
        "_member_names_",
        "_member_type_",
        "_new_member_",
        "_singles_mask_",
        "_unhashable_values_",
        "_unhashable_values_map_",
        "_use_args_",
        "_value2member_map_",
        "_value_repr_",
    ]
)
"""What an enumeration keeps in its class for its own use."""

BOOKKEEPING = ("__objclass__", "_inverted_", "_name_", "_sort_order_", "_value_")
"""What an enumeration keeps in a member for its own use."""


def choose_enum(cls: type) -> Handler | None:
    for base in cls.__mro__:
        if module_of(base) == "enum" and base.__qualname__ == "Flag":
            return describe_flag
        if module_of(base) == "enum" and base.__qualname__ == "Enum":
            return describe_enum
    return None


def describe_enum(obj: Any, _walk: Walk) -> Node:
    return node(b"enum", (type(obj), obj._name_, obj._value_))


def describe_flag(obj: Any, _walk: Walk) -> Node:
    """Describe flags by their value; the name of a combination depends on the Python version."""
    return node(b"flag", (type(obj), obj._value_))


def is_enum(cls: type) -> bool:
    """Whether a class is an enumeration."""
    return choose_enum(cls) is not None


def written_in_enum(cls: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Return what was written in the body of an enumeration beside the members.

    Args:
        cls: the enumeration.
        found: what is found in it, wherever it comes from.
    """
    written = {
        name: value
        for name, value in found.items()
        if name not in DERIVED
        and name not in cls.__members__
        and not is_inherited(cls, name, value)
    }
    if generate := written.get("_generate_next_value_"):
        written["_generate_next_value_"] = unwrap(generate)
    return written


def members_of_enum(cls: Any) -> list[tuple[Any, ...]]:
    """Return the members of an enumeration in their order, aliases included."""
    return [(name, *parts_of_member(member)) for name, member in cls.__members__.items()]


def is_inherited(cls: type, name: str, value: Any) -> bool:
    """Whether the nearest enumeration further up has the same under this name."""
    for base in cls.__mro__[1:]:
        if is_enum(base) and name in vars(base):
            return unwrap(vars(base)[name]) is unwrap(value)
    return False


def unwrap(value: Any) -> Any:
    """Return the function in a static method, as which some versions of Python show it."""
    return value.__func__ if isinstance(value, staticmethod) else value


def parts_of_member(member: Any) -> tuple[Any, ...]:
    """Return the value of a member, the number or text that it is, and its other attributes."""
    content = UNSET
    for base in type(member).__mro__:
        if find := find_content(base):
            content = find(base, member)
            break
    attributes = attributes_of(member)
    others = {name: value for name, value in attributes.items() if name not in BOOKKEEPING}
    return (member._value_, content, Attributes(others))
