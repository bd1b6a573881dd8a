"""Handlers for objects of other libraries that keep notes beside what they hold.

The libraries are never imported here: who has such an object has loaded them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ._builtin import Attributes
from ._instances import attributes_of
from ._registry import Node, node

if TYPE_CHECKING:
    from ._walk import Walk

__all__ = ["describe_validator"]


def without(obj: Any, names: Collection[str]) -> dict[str, Any]:
    """Return the attributes of an object, but for some."""
    return {name: value for name, value in attributes_of(obj).items() if name not in names}


def describe_validator(obj: Any, _walk: Walk) -> Node:
    """Describe what pydantic has noted of a validator, without the address of its class."""
    return node(b"pydantic", (type(obj), Attributes(without(obj, ("cls_ref",)))))
