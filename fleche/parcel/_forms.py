"""Forms that pickle would lose: views, arrays, generators of numbers, and objects with a name.

The functions here are named in streams. They are written so that numpy 1.26 and 2 read what the
other has written.
"""

from __future__ import annotations

import contextlib
import importlib
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any

from fleche.digest import look_up, name_of_bare
from fleche.parcel._files import File, reduce_file

__all__ = [
    "axes_in_memory",
    "bare_object",
    "bit_generator",
    "by_axes",
    "laid_out",
    "masked_array",
    "memory_view",
    "random_generator",
    "random_state",
    "reducers",
    "seed_sequence",
]

Reducer = Callable[[Any], Any]

_known: dict[type, Reducer] = {}
_of_python: dict[type, Reducer] = {}


def reducers() -> dict[type, Reducer]:
    """Return how objects of some types are reduced, by the exact type; numpy's once it is here."""
    if len(_known) == len(_of_python) and "numpy" in sys.modules:
        _known.update(_numpy_reducers())
    return _known


def _numpy_reducers() -> dict[type, Reducer]:
    import numpy as np

    found: dict[type, Reducer] = {
        np.ndarray: _reduce_array,
        np.ma.MaskedArray: _reduce_masked,
        np.random.Generator: lambda obj: (random_generator, (obj.bit_generator,)),
        np.random.RandomState: _reduce_random_state,
        np.random.SeedSequence: _reduce_seed_sequence,
        np.finfo: lambda obj: (np.finfo, (obj.dtype,)),  # its own way cannot be read
    }
    names = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
    found.update((getattr(np.random, name), _reduce_bit_generator) for name in names)
    return found


def _reduce_view(view: memoryview) -> Any:
    if len(view.format) != 1:
        return NotImplemented
    content = pickle.PickleBuffer(view) if view.c_contiguous else view.tobytes()
    return memory_view, (content, view.format, view.shape, view.readonly)


def memory_view(content: Any, form: str, shape: tuple[int, ...], readonly: bool) -> memoryview:
    """Return a view of that format and shape of contiguous bytes."""
    view = memoryview(content if readonly or content.__class__ is not bytes else bytearray(content))
    if view.nbytes and (form, shape) != (view.format, view.shape):
        view = view.cast("B").cast(form, list(shape))  # type: ignore[call-overload]
    return view.toreadonly() if readonly else view


def _reduce_array(array: Any) -> Any:
    """Keep how an array lies in memory, as far as pickle would lose it.

    That is the order of its axes, of which pickle knows C and Fortran only, the axes along which
    one element is repeated, and that it is not to be written to, which pickle keeps of what it
    writes as a buffer. An array that lies in neither order is written as one that does: pickle
    would lose its order of bytes, and put its content into the stream, where it is slow to read.
    """
    flags = array.flags
    if flags.forc and (flags.writeable or _is_buffer(array)):
        return NotImplemented
    shape = array.shape
    repeated, others = axes_in_memory(array)
    axes = repeated + others
    if flags.writeable and axes == list(range(array.ndim)) and not repeated:
        return array.copy("C").__reduce_ex__(5)
    parts: list[Any] = [slice(1 if axis in repeated else None) for axis in range(array.ndim)]
    parts.append(...)  # else one without axes would be its element
    content, inverse = by_axes(array[tuple(parts)], axes)
    return laid_out, (content, inverse, shape if repeated else None, bool(flags.writeable))


def axes_in_memory(array: Any) -> tuple[list[int], list[int]]:
    """Return the axes along which one element is repeated, and the others, the slowest first."""
    steps = array.strides
    repeated = [axis for axis, n in enumerate(array.shape) if n > 1 and steps[axis] == 0]
    others = [axis for axis in range(array.ndim) if axis not in repeated]
    return repeated, sorted(others, key=lambda axis: -abs(steps[axis]))


def by_axes(array: Any, axes: Sequence[int]) -> tuple[Any, tuple[int, ...]]:
    """Return a copy that has its axes in another order, and the order that turns it back."""
    inverse = tuple(sorted(range(array.ndim), key=axes.__getitem__))
    return array.transpose(axes).copy("C"), inverse


def _is_buffer(array: Any) -> bool:
    """Whether numpy writes an array as a buffer; what has dates or odd names of fields is none."""
    try:
        pickle.PickleBuffer(array).release()
    except Exception:  # noqa: BLE001 (of whatever kind, numpy then goes another way)
        return False
    return not array.dtype.hasobject


def laid_out(array: Any, axes: tuple[int, ...], shape: Any, writeable: bool) -> Any:
    """Return an array with its axes in another order, and some elements repeated."""
    found = array.transpose(axes)
    if shape is not None:
        import numpy as np

        found = np.broadcast_to(found, shape)
    if found.flags.writeable != writeable:
        found.flags.writeable = writeable
    return found


def _reduce_masked(array: Any) -> Any:
    """Keep a hardened mask, and the absence of one, and what was hung on the array."""
    import numpy as np

    from fleche.digest import attributes_of_masked, keep_attributes

    parts = vars(array)
    mask = parts["_mask"]
    mask = None if mask is np.ma.nomask else np.asarray(mask)
    args = (array.data, mask, parts.get("_fill_value"), bool(array.hardmask))
    held = attributes_of_masked(array)
    return keep_attributes((masked_array, args), held)


def masked_array(data: Any, mask: Any, fill_value: Any, hard: bool) -> Any:
    """Return a masked array over ``data``; a mask of None is none."""
    import numpy as np

    found: Any = np.ma.MaskedArray(
        data, mask=np.ma.nomask if mask is None else mask, hard_mask=hard, copy=False
    )
    if fill_value is not None:
        found.fill_value = fill_value
    return found


def random_generator(bits: Any) -> Any:
    """Return numpy's generator over a source of random bits."""
    import numpy as np

    return np.random.Generator(bits)


def _reduce_random_state(state: Any) -> Any:
    bits = getattr(state, "_bit_generator")  # noqa: B009 - there is no public name
    return random_state, (bits, state.get_state(legacy=False))


def random_state(bits: Any, state: dict[str, Any]) -> Any:
    """Return numpy's older kind of generator."""
    import numpy as np

    found = np.random.RandomState(bits)
    found.set_state(state)
    return found


def _reduce_bit_generator(bits: Any) -> Any:
    seed = getattr(bits, "seed_seq", None) or getattr(bits, "_seed_seq", None)
    return bit_generator, (type(bits).__name__, bits.state, seed)


def bit_generator(name: str, state: dict[str, Any], seed: Any) -> Any:
    """Return a source of random bits in the given state."""
    import numpy as np

    found: Any = getattr(np.random, name)(0 if seed is None else seed)
    if seed is None and name == "MT19937":  # of a RandomState
        found._legacy_seeding(0)  # noqa: SLF001 - leaves no sequence of seeds behind
    elif seed is None and name == "Philox":  # made from a key
        found = np.random.Philox(key=0)
    found.state = state
    return found


def _reduce_seed_sequence(seed: Any) -> Any:
    return (
        seed_sequence,
        (seed.entropy, seed.spawn_key, seed.pool_size, seed.n_children_spawned),
    )


def seed_sequence(
    entropy: Any, spawn_key: tuple[int, ...], pool_size: int, n_children_spawned: int
) -> Any:
    """Return numpy's sequence of seeds."""
    import numpy as np

    return np.random.SeedSequence(
        entropy, spawn_key=spawn_key, pool_size=pool_size, n_children_spawned=n_children_spawned
    )


def _reduce_bare(obj: object) -> Any:
    place = name_of_bare(obj)
    return NotImplemented if place is None else (bare_object, place)


def bare_object(module: str, name: str) -> object:
    """Return the bare object of that name, or another one if none is here."""
    if module != "__main__":
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    found = look_up(module, name)
    return found if type(found) is object else object()


_of_python.update({memoryview: _reduce_view, File: reduce_file, object: _reduce_bare})
_known.update(_of_python)

for _function in (
    bare_object,
    bit_generator,
    laid_out,
    masked_array,
    memory_view,
    random_generator,
    random_state,
    seed_sequence,
):
    _function.__module__ = "fleche.parcel"
