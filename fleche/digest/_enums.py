"""Enumerations: their members by class, name and value, and what such a class consists of.

The machinery of enumerations leaves much in the class besides its body, and something else in each
version of Python. What it has derived is told from what was written by name, or by being what an
enumeration further up has under the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._builtin import UNSET, Attributes
from ._instances import attributes_of, find_content
from ._registry import Handler, Node, module_of, node

if TYPE_CHECKING:
    from ._walk import Walk

__all__ = ["choose_enum", "is_enum", "members_of_enum", "written_in_enum"]

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
        found: what is found in it, whoever has put it there.
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
