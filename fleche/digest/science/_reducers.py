"""How objects are pickled for a parcel whose library would lose, or could not write, a part.

Each function takes an object and returns what ``__reduce_ex__`` would, or NotImplemented where the
library's own way serves.
"""

from __future__ import annotations

import sys
from typing import Any

from ._numerics import own_generator

__all__ = [
    "reduce_distribution",
    "reduce_numba_dict",
    "reduce_numba_list",
    "reduce_tensor",
    "reduce_vectorized",
]


def reduce_vectorized(obj: Any) -> Any:
    """Leave out the ufunc that it has made for itself, which cannot be pickled."""
    rebuild, args, state, *rest = obj.__reduce_ex__(4)
    kept = {name: value for name, value in state.items() if name != "_ufunc"}
    if getattr(obj, "otypes", None) is None:
        kept["_ufunc"] = {}
    else:
        kept["_ufunc"] = None
    return (rebuild, args, kept, *rest)


def reduce_distribution(obj: Any) -> Any:
    """Name the generator of all of numpy in place of a snapshot of it."""
    rebuild, args, state, *_ = obj.__reduce_ex__(4)
    if "_random_state" not in state or own_generator(state["_random_state"]) is not None:
        return NotImplemented
    kept = {name: value for name, value in state.items() if name != "_random_state"}
    return (rebuild, args, kept, None, None, restore_distribution)


def restore_distribution(obj: Any, state: dict[str, Any]) -> None:
    """Give a distribution its state, and the generator of this process."""
    from numpy.random import mtrand

    full = {**state, "_random_state": vars(mtrand)["_rand"]}
    if hasattr(obj, "__setstate__"):
        obj.__setstate__(full)
    else:
        vars(obj).update(full)


def reduce_tensor(obj: Any) -> Any:
    """Keep the gradient of a leaf."""
    if not obj.is_leaf or obj.grad is None:
        return NotImplemented
    rebuild, args, *rest = obj.__reduce_ex__(4)
    return (restore_tensor, (rebuild, args, obj.grad), *rest)


def restore_tensor(rebuild: Any, args: Any, grad: Any) -> Any:
    """Make a tensor, and give it its gradient."""
    tensor = rebuild(*args)
    tensor.grad = grad
    return tensor


def reduce_numba_list(obj: Any) -> Any:
    if not obj._typed:  # noqa: SLF001
        return (type(obj), ())
    return (restore_numba_list, (obj._list_type.item_type, list(obj)))  # noqa: SLF001


def restore_numba_list(kind: Any, items: list[Any]) -> Any:
    """Make a typed list."""
    found = sys.modules["numba.typed"].List.empty_list(kind)
    found.extend(items)
    return found


def reduce_numba_dict(obj: Any) -> Any:
    if not obj._typed:  # noqa: SLF001
        return (type(obj), ())
    kinds = obj._dict_type  # noqa: SLF001
    return (restore_numba_dict, (kinds.key_type, kinds.value_type, list(obj.items())))


def restore_numba_dict(key: Any, value: Any, items: list[tuple[Any, Any]]) -> Any:
    """Make a typed dict."""
    found = sys.modules["numba.typed"].Dict.empty(key, value)
    for name, item in items:
        found[name] = item
    return found
