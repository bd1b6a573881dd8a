"""Handlers for numpy's random generators, which are never imported here.

A generator is what it will draw next and what it will spawn: the state of its bit generator, and
the seed sequence that it came from, which counts the children that it has spawned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._builtin import Attributes
from ._instances import attributes_of
from ._registry import Node, node, package_of

if TYPE_CHECKING:
    from ._walk import Walk

__all__ = [
    "describe_bit_generator",
    "describe_generator",
    "describe_random_state",
    "describe_seed_sequence",
]


def describe_generator(obj: Any, walk: Walk) -> Node:
    """Describe a generator by its bit generator; by the state alone if the seed tells that."""
    source = obj.bit_generator
    part = source.state if is_as_seeded(source, walk) else source
    return node(b"numpy Generator", (part,))


def is_as_seeded(source: Any, walk: Walk) -> bool:
    """Whether a bit generator of numpy's own is as a plain number has made it."""
    seed = seed_of(source)
    entropy = getattr(seed, "entropy", None)
    if type(entropy) is not int or package_of(type(source)) != "numpy":
        return False
    fresh = type(source)(entropy)
    plain = seed_of(fresh)
    if type(seed) is not type(plain) or seed.state != plain.state:
        return False
    return walk.subtoken(fresh.state) == walk.subtoken(source.state)


def seed_of(source: Any) -> Any:
    """Return the seed sequence of a bit generator; before numpy 1.25 it was none of the public."""
    return getattr(source, "seed_seq", None) or getattr(source, "_seed_seq", None)


def describe_bit_generator(obj: Any, _walk: Walk) -> Node:
    state, attributes = obj.state, Attributes(attributes_of(obj))
    return node(b"numpy bit generator", (type(obj), state, seed_of(obj), attributes))


def describe_seed_sequence(obj: Any, _walk: Walk) -> Node:
    return node(b"numpy SeedSequence", (obj.state,))


def describe_random_state(obj: Any, _walk: Walk) -> Node:
    return node(b"numpy RandomState", (obj.get_state(legacy=False),))
