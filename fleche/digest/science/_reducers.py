"""How objects are pickled for a parcel whose library would lose, or could not write, a part.

What a program has hung on an object is such a part: pickling an array of a class of its own keeps
the numbers and loses the unit.

Each function takes an object and returns what ``__reduce_ex__`` would, or NotImplemented where the
library's own way serves.
"""

from __future__ import annotations

import copyreg
import gc
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import product
from pickle import PicklingError
from types import BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType
from typing import Any

from fleche.digest._instances import (
    attributes_of,
    keep_attributes,
    restore_attributes,
    restore_state,
)
from fleche.digest._keys import digest
from fleche.digest._names import HEAP, find_name
from fleche.digest._numpy import MEMORY_MAP_STATE, attributes_of_masked, place_of_ufunc
from fleche.digest._objects import (
    NAMED_ERRORS,
    chain_of,
    is_forgetful,
    reduce,
    registered_reducer,
)
from fleche.digest._pandas import attributes_beyond, attributes_of_scalar
from fleche.digest._registry import describe_type, package_of
from fleche.digest.science._images import kept_of_file, parts_of_image
from fleche.digest.science._numerics import own_generator
from fleche.digest.science._parts import without
from fleche.digest.science._plotting import WORKED_OUT_IN_C
from fleche.digest.science._symbolic import (
    IN_EXPRESSIONS,
    noted_on_matrix,
    tables_of_units,
    told_beyond_content,
    told_of_unit,
)
from fleche.digest.science._units import attributes_of_table, groups_of, own_groups

__all__ = [
    "reduce_array",
    "reduce_as_base",
    "reduce_column",
    "reduce_distribution",
    "reduce_exception",
    "reduce_expression",
    "reduce_finite_field",
    "reduce_image",
    "reduce_jax_function",
    "reduce_masked",
    "reduce_matrix",
    "reduce_molecule",
    "reduce_mpmath",
    "reduce_named",
    "reduce_numba_dict",
    "reduce_numba_list",
    "reduce_opened",
    "reduce_pandas",
    "reduce_polynomial",
    "reduce_random_variable",
    "reduce_reaction",
    "reduce_scalar",
    "reduce_table",
    "reduce_tensor",
    "reduce_triangulation",
    "reduce_ufunc",
    "reduce_unit",
    "reduce_variable",
    "reduce_vectorized",
    "reduce_wild",
]

PICKLING = ("__reduce_ex__", "__reduce__", "__getstate__", "__setstate__")
"""What pickle asks a class for."""


def reduce_as_base(base: type, obj: Any) -> Any:
    """Keep the class and the attributes that the way of a base leaves out."""
    if registered_reducer(type(obj)) is not None:
        return NotImplemented
    reduced = obj.__reduce_ex__(5)
    if not isinstance(reduced, tuple):
        return NotImplemented
    held = attributes_of(obj, beyond=base)
    state = reduced[2] if len(reduced) > 2 else None
    parts = state if isinstance(state, tuple) else (state,)
    if any(isinstance(part, dict) and held.keys() <= part.keys() for part in parts):
        held = {}
    of_class = with_class(type(obj), reduced)
    return keep_attributes(of_class, held) if held or of_class is not reduced else NotImplemented


def with_class(cls: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return how an object is reduced with its class, if a base has forgotten that."""
    rebuild, args, *rest = reduced
    if any(each is cls for each in (rebuild, getattr(rebuild, "__self__", None), *args)):
        return reduced
    try:
        made = make_derived(cls, rebuild, args).__reduce_ex__(5)
        is_kept = digest(made[1]) == digest(args)
    except Exception:  # noqa: BLE001 - of the class, which may ask for other arguments than its base
        is_kept = False
    if not is_kept:
        raise PicklingError(
            f"{describe_type(cls)} cannot be stored: its base pickles it as one of its own kind; "
            "give the class a method __reduce__"
        )
    return (make_derived, (cls, rebuild, args), *rest)


def make_derived(cls: Any, rebuild: Any, args: tuple[Any, ...]) -> Any:
    """Make an object of a class from one of its base."""
    plain = rebuild(*args)
    base = type(plain)
    found = base.__new__(cls, getattr(plain, "asm8", plain))  # pandas makes no other of a Timedelta
    if type(found) is not cls:
        raise TypeError(f"{describe_type(base)} makes none of {describe_type(cls)}")
    if "__init__" in vars(base):
        base.__init__(found, *args)
    return found


def pickles_as(cls: type, base: type) -> bool:
    """Whether a class leaves pickling to a base."""
    return all(getattr(cls, name, None) is getattr(base, name, None) for name in PICKLING)


def reduce_array(obj: Any) -> Any:
    """Keep the attributes of an array of a subclass, and how it lies in memory."""
    import numpy as np

    cls = type(obj)
    if cls is np.ndarray or not any(
        pickles_as(cls, base) for base in cls.__mro__ if writes_numbers(base)
    ):
        return NotImplemented
    plain = obj.view(np.ndarray)
    if type(plain) is not np.ndarray:  # a masked one of astropy
        return NotImplemented
    skipped = MEMORY_MAP_STATE if isinstance(obj, np.memmap) else ()
    held = {name: value for name, value in attributes_of(obj).items() if name not in skipped}
    try:
        is_viewable = type(plain.view(cls)) is cls
    except Exception:  # noqa: BLE001 - of __array_finalize__, which may ask for more than an array
        is_viewable = False
    if not is_viewable:
        return keep_attributes(obj.__reduce_ex__(5), held)
    return keep_attributes((make_array, (cls, plain)), held)


def writes_numbers(base: type) -> bool:
    """Whether a class writes an array as numpy does, or that and its attributes."""
    place = (package_of(base), base.__qualname__)
    return place in (("numpy", "ndarray"), ("astropy", "Quantity"))


def make_array(cls: Any, plain: Any) -> Any:
    """Return an array as one of a subclass."""
    found = plain.view(cls)
    if found.flags.writeable != plain.flags.writeable:
        found.flags.writeable = plain.flags.writeable
    return found


def reduce_masked(obj: Any) -> Any:
    """Keep the attributes of a masked array of a subclass."""
    masked = sys.modules["numpy.ma"].MaskedArray
    if not pickles_as(type(obj), masked):
        return NotImplemented
    held = attributes_of_masked(obj)
    return keep_attributes(obj.__reduce_ex__(5), held) if held else NotImplemented


def reduce_pandas(obj: Any) -> Any:
    """Keep what a program has hung on a frame, a series or an index."""
    known = getattr(obj, "_metadata", ())
    held = {name: part for name, part in attributes_beyond(obj).items() if name not in known}
    return keep_attributes(obj.__reduce_ex__(5), held) if held else NotImplemented


def reduce_scalar(obj: Any) -> Any:
    """Keep the class of a scalar, what hangs on it, and which of two equal hours it is in."""
    cls = type(obj)
    own = next(base for base in cls.__mro__ if package_of(base) == "pandas")
    if registered_reducer(cls) is not None or not pickles_as(cls, own):
        return NotImplemented
    held = attributes_of_scalar(obj)
    folded = getattr(obj, "fold", 0)
    if cls is own and not (held or folded):
        return NotImplemented
    reduced = obj.__reduce_ex__(5)
    if cls is not own:
        reduced = with_class(cls, reduced)
    elif folded:
        reduced = (make_folded, reduced[:2])
    return keep_attributes(reduced, held)


def make_folded(rebuild: Any, args: tuple[Any, ...]) -> Any:
    """Make a point in time that is in the second one of two equal hours."""
    found = rebuild(*args)
    return found if found.fold else found.replace(fold=1)


def reduce_named(obj: Any) -> Any:
    """Write a function by its name, of a type that knows nothing of pickling."""
    found = find_name(obj)
    return NotImplemented if found is None else found[1]


def reduce_table(obj: Any) -> Any:
    """Keep the groups of a table of astropy, by which column it is looked up, and what hangs on it.

    A pickled table has no groups, so that each sum over one would be that over all of it.
    """
    held = attributes_of_table(obj)
    if groups_of(obj) is not None:
        held["_groups"] = vars(obj)["_groups"]
    return keep_attributes(obj.__reduce_ex__(4), held)


def reduce_column(obj: Any) -> Any:
    """Keep the groups of a column of astropy, and its order of bytes.

    Those of FITS files are big-endian; from the state of an array numpy makes a native one.
    """
    held = {} if own_groups(obj) is None else {"_groups": vars(obj)["_groups"]}
    if obj.dtype.isnative:
        return keep_attributes(obj.__reduce_ex__(5), held) if held else NotImplemented
    numpy = sys.modules["numpy"]
    plain = obj.view(
        numpy.ma.MaskedArray if isinstance(obj, numpy.ma.MaskedArray) else numpy.ndarray
    )
    told = {name: getattr(obj, name) for name in ("name", "unit", "format", "description", "meta")}
    state = {**told, "indices": obj.indices, **held}
    return (make_column, (type(obj), plain), state, None, None, restore_column)


def make_column(cls: Any, plain: Any) -> Any:
    """Return an array as a column of astropy."""
    found = plain.view(cls)
    if hasattr(plain, "fill_value"):
        found.fill_value = plain.fill_value
    return found


def restore_column(obj: Any, state: dict[str, Any]) -> None:
    """Give a column its name, its unit, and whatever else it had."""
    for name, value in state.items():
        setattr(obj, name, value)


def reduce_triangulation(obj: Any) -> Any:
    """Leave out what a triangulation of matplotlib has worked out in C, and makes again."""
    held = attributes_of(obj)
    made = {name: None for name in WORKED_OUT_IN_C if held.get(name) is not None}
    return (*reduce(obj)[:2], {**held, **made}) if made else NotImplemented


def reduce_mpmath(obj: Any) -> Any:
    """Name the class of a number or matrix, which a context of mpmath has made for itself."""
    mpmath = sys.modules["mpmath"]
    for place in product(("mp", "iv", "fp"), ("matrix", "mpf", "mpc")):
        if getattr(getattr(mpmath, place[0]), place[1], None) is type(obj):
            return (make_mpmath, (*place, attributes_of(obj)))
    return NotImplemented


def make_mpmath(context: str, name: str, attributes: dict[str, Any]) -> Any:
    """Make a number or matrix of a context of mpmath."""
    cls = getattr(getattr(import_module("mpmath"), context), name)
    found = object.__new__(cls)
    for key, value in attributes.items():
        setattr(found, key, value)
    return found


def reduce_ufunc(obj: Any) -> Any:
    """Name the module that a ufunc is from, or make it again from its function."""
    if (place := place_of_ufunc(obj)) is not None:
        return (load_name, place)
    functions = [part for part in gc.get_referents(obj) if callable(part)]
    if len(functions) != 1:
        return NotImplemented
    return (make_ufunc, (functions[0], obj.nin, obj.nout, obj.identity))


def load_name(module: str, name: str) -> Any:
    """Return what a module has under a name."""
    return getattr(import_module(module), name)


def make_ufunc(function: Any, nin: int, nout: int, identity: Any) -> Any:
    """Make a ufunc of a Python function."""
    import numpy as np

    options = {} if identity is None else {"identity": identity}
    return np.frompyfunc(function, nin, nout, **options)


def reduce_exception(obj: BaseException) -> Any:
    """Keep the exceptions behind an exception, and make it without its class's ``__init__``.

    Pickle would call that with what it has told its base, which is often something else.
    """
    behind = chain_of(obj)
    base = base_in_c(type(obj))
    is_told = copyreg.dispatch_table.get(type(obj)) is not registered_reducer(type(obj))
    is_named = isinstance(obj, NAMED_ERRORS)
    held = attributes_of(obj, beyond=base_of_type(type(obj))) if is_forgetful(type(obj)) else {}
    held = {name: value for name, value in held.items() if name not in vars(obj)}
    is_ours = behind is not None or base is not None or is_told or is_named or bool(held)
    reduced = reduce(obj) if is_ours else NotImplemented
    if not isinstance(reduced, tuple):
        return NotImplemented
    if base is not None and reduced[0] is type(obj):
        reduced = (make_exception, (base, type(obj), reduced[1]), *reduced[2:])
    reduced = keep_attributes(reduced, held)
    if behind is None:
        return reduced
    rebuild, args, state, items, pairs, setter = (*reduced, None, None, None, None)[:6]
    return (rebuild, args, (state, setter, behind), items, pairs, restore_exception)


def base_of_type(cls: type) -> type:
    """Return the first of a class and its bases that is written in C."""
    return next(base for base in cls.__mro__ if not base.__flags__ & HEAP)


def base_in_c(cls: type) -> type | None:
    """Return the base in C of a class of exceptions that has an ``__init__`` in Python.

    There is none if the class says itself how its objects are made, or pickled.
    """
    for index, base in enumerate(cls.__mro__):
        names = vars(base)
        if isinstance(names.get("__init__"), WrapperDescriptorType):
            above = cls.__mro__[:index]
            return base if any("__init__" in vars(each) for each in above) else None
        ways = (names[name] for name in ("__new__", "__reduce_ex__", "__reduce__") if name in names)
        if not all(isinstance(way, (BuiltinFunctionType, MethodDescriptorType)) for way in ways):
            return None
    return None


def make_exception(base: Any, cls: Any, args: tuple[Any, ...]) -> Any:
    """Make an exception as its base in C does, which its class derives from."""
    found = cls.__new__(cls, *args)
    base.__init__(found, *args)
    return found


def restore_exception(obj: BaseException, state: tuple[Any, Any, Any]) -> None:
    """Give an exception its state, and the exceptions behind it."""
    own, setter, behind = state
    restore_state(obj, own, setter)
    obj.__cause__, obj.__context__, obj.__suppress_context__ = behind


def reduce_jax_function(obj: Any) -> Any:
    """Name a function of jax itself; others are compiled again by jax's own way."""
    place = find_name(obj)
    return NotImplemented if place is None else (load_name, place)


def reduce_reaction(obj: Any) -> Any:
    """Keep all properties of a reaction and of the molecules in it."""
    return (type(obj), (obj.ToBinary(flags_of_molecules()),))


def reduce_vectorized(obj: Any) -> Any:
    """Leave out the ufunc that it has made for itself, which cannot be pickled."""
    rebuild, args, state, *rest = obj.__reduce_ex__(4)
    unmade: Any = {} if isinstance(state["_ufunc"], dict) else None
    return (rebuild, args, {**state, "_ufunc": unmade}, *rest)


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
    """Write the values of a tensor as those of an array, and keep the gradient of a leaf.

    Torch writes the whole memory of which a tensor may be a small part, for each part anew, and in
    the stream.
    """
    grad = obj.grad if obj.is_leaf else None
    if is_plain_tensor(obj):
        with sys.modules["torch"].no_grad():
            return keep_attributes(
                (make_tensor, (*written(obj), type(obj), obj.requires_grad, grad)), vars(obj)
            )
    if grad is None:
        return NotImplemented
    rebuild, args, *rest = obj.__reduce_ex__(4)
    return (restore_tensor, (rebuild, args, grad), *rest)


def is_plain_tensor(obj: Any) -> bool:
    """Whether a tensor is nothing but values in memory that any process can have."""
    torch = sys.modules["torch"]
    return (
        type(obj) in (torch.Tensor, torch.nn.Parameter)
        and obj.is_leaf
        and obj.layout is torch.strided
        and obj.device.type == "cpu"
        and not (obj.is_quantized or obj.is_nested or obj.is_conj() or obj.is_neg())
        and not getattr(obj, "_backward_hooks", None)
        and not any(getattr(obj, "names", ()))
    )


def written(tensor: Any) -> tuple[Any, ...]:
    """Return the bytes of a tensor, its type, and how its axes lie in memory.

    That is the shape in the order of memory, where each lies, and the axes along which one element
    is repeated.
    """
    steps, shape = tensor.stride(), tuple(tensor.shape)
    repeated = [axis for axis, n in enumerate(shape) if n > 1 and steps[axis] == 0]
    others = [axis for axis in range(len(shape)) if axis not in repeated]
    axes = repeated + sorted(others, key=lambda axis: -steps[axis])
    once = tensor.detach()
    for axis in repeated:
        once = once.narrow(axis, 0, 1)
    once = once.permute(axes).contiguous()
    flat = once.as_strided((once.numel(),), (1,))  # an axis of one element may have any stride
    raw = flat.view(sys.modules["torch"].uint8).numpy()
    inverse = tuple(sorted(range(len(shape)), key=axes.__getitem__))
    return (raw, tensor.dtype, tuple(once.shape), inverse, shape if repeated else None)


def make_tensor(
    raw: Any,
    dtype: Any,
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    repeated: tuple[int, ...] | None,
    cls: Any,
    requires_grad: bool,
    grad: Any,
) -> Any:
    """Make a tensor of the bytes of an array, which it goes on using."""
    torch: Any = import_module("torch")
    found = torch.from_numpy(raw if raw.flags.writeable else raw.copy())
    found = found.view(dtype).reshape(shape).permute(axes)
    if repeated is not None:
        found = found.expand(repeated)
    if cls is not torch.Tensor:
        return finish_tensor(cls(found, requires_grad=requires_grad), grad)
    return finish_tensor(found.requires_grad_() if requires_grad else found, grad)


def finish_tensor(tensor: Any, grad: Any) -> Any:
    if grad is not None:
        tensor.grad = grad
    return tensor


def restore_tensor(rebuild: Any, args: Any, grad: Any) -> Any:
    """Make a tensor, and give it its gradient."""
    return finish_tensor(rebuild(*args), grad)


def reduce_numba_list(obj: Any) -> Any:
    if not obj._typed:  # noqa: SLF001
        return (type(obj), ())
    return (restore_numba_list, (obj._list_type.item_type, list(obj)))  # noqa: SLF001


def restore_numba_list(kind: Any, items: list[Any]) -> Any:
    """Make a typed list."""
    from numba import typed

    found = typed.List.empty_list(kind)
    found.extend(items)
    return found


def reduce_numba_dict(obj: Any) -> Any:
    if not obj._typed:  # noqa: SLF001
        return (type(obj), ())
    kinds = obj._dict_type  # noqa: SLF001
    return (restore_numba_dict, (kinds.key_type, kinds.value_type, list(obj.items())))


def restore_numba_dict(key: Any, value: Any, items: list[tuple[Any, Any]]) -> Any:
    """Make a typed dict."""
    from numba import typed

    found = typed.Dict.empty(key, value)
    for name, item in items:
        found[name] = item
    return found


def reduce_random_variable(obj: Any) -> Any:
    """Make a bare object of the class: scipy's own way makes a standard normal of any other."""
    _, _, state, *rest = obj.__reduce_ex__(4)
    return (make_bare, (type(obj),), state, *rest)


def make_bare(cls: type) -> Any:
    """Make an object of a class without asking the class."""
    return object.__new__(cls)


DERIVED: dict[str, Callable[[Any, tuple[Any, ...]], Any]] = {
    "_argset": lambda _, args: frozenset(args),
    "nargs": lambda cls, _: cls.nargs,
}
"""Attributes of expressions that follow from the class and the arguments, and are not written."""

SIMPLE = {"is_commutative", *DERIVED}


def reduce_expression(obj: Any) -> Any:
    """Write an expression as its arguments, which are put together without evaluation.

    Sympy calls the class, which evaluates what was not evaluated and expands what was factored.
    That way stays for an object that holds more than its arguments, if it leads to the same.
    """
    cls, basic = type(obj), sys.modules["sympy.core.basic"]
    is_named = hasattr(cls, "__getnewargs_ex__")  # a symbol
    if obj.is_Number or is_named or not pickles_as(cls, basic.Basic):
        return NotImplemented
    args, held = obj._args, without(obj, *IN_EXPRESSIONS)  # noqa: SLF001
    assumed, usual = obj._assumptions, cls.default_assumptions  # noqa: SLF001
    has_own_args = cls.__getnewargs__ is not basic.Basic.__getnewargs__
    is_assumed = assumed.generator != usual.generator
    if is_assumed or has_own_args or not held.keys() <= SIMPLE:
        if is_made_again(obj):
            return NotImplemented
        if assumed is not usual:
            held["_assumptions"] = (assumed.generator, dict(assumed))
    for name in DERIVED.keys() & held.keys():
        if held[name] == DERIVED[name](cls, args):
            held[name] = ...
    return (make_expression, (cls, held, *args))


def is_made_again(obj: Any) -> bool:
    """Whether the class of an expression makes the same of what sympy pickles."""
    try:
        made = type(obj).__new__(type(obj), *obj.__getnewargs__())
        if type(made) is not type(obj) or made != obj:
            return False
        one, other = ((x._args, told_beyond_content(x, x._args)) for x in (made, obj))  # noqa: SLF001
        return bool(one == other)
    except Exception:  # noqa: BLE001 - of any constructor: then there is no other way
        return False


def make_expression(cls: Any, held: dict[str, Any], *args: Any) -> Any:
    """Put an expression together without asking its class."""
    found = import_module("sympy").Basic.__new__(cls, *args)
    for name, value in held.items():
        if value is ...:
            held[name] = DERIVED[name](cls, args)
    if "_assumptions" in held:
        given, facts = held["_assumptions"]
        held["_assumptions"] = known = type(found._assumptions)(given)  # noqa: SLF001
        known.update(facts)
    restore_attributes(found, (None, None, held))
    return found


def reduce_wild(obj: Any) -> Any:
    """Keep what a wild symbol does not match, and the properties that it asks for."""
    (name,), assumptions = obj.__getnewargs_ex__()
    make = vars(copyreg)["__newobj_ex__"]
    return (make, (type(obj), (name, obj.exclude, obj.properties), assumptions))


def reduce_matrix(obj: Any) -> Any:
    """Keep what a program has hung on a matrix that cannot be changed."""
    held = noted_on_matrix(obj)
    return keep_attributes(obj.__reduce_ex__(5), held) if held else NotImplemented


def reduce_finite_field(obj: Any) -> Any:
    """Make a finite field again, with the class of its numbers."""
    return (type(obj), (int(obj.mod), obj.sym))


def reduce_polynomial(obj: Any) -> Any:
    """Keep the domain of a polynomial."""
    return (make_polynomial, (type(obj), obj.as_expr(), obj.gens, obj.domain))


def make_polynomial(cls: Any, expression: Any, gens: Any, domain: Any) -> Any:
    """Make a polynomial over a domain."""
    return cls(expression, *gens, domain=domain)


def reduce_unit(obj: Any) -> Any:
    """Keep what a unit was said to measure."""
    told = told_of_unit(obj)
    if not told:
        return NotImplemented
    reduced: tuple[Any, ...] = obj.__reduce_ex__(4)
    rebuild, args, state = (*reduced, None)[:3]
    return (rebuild, args, (state, told), None, None, restore_unit)


def restore_unit(obj: Any, state: tuple[Any, dict[str, Any]]) -> None:
    """Give a unit its state, and say what it measures unless the program has said so itself."""
    own, told = state
    if own is not None:
        obj.__setstate__(own)
    tables = tables_of_units()
    if not told_of_unit(obj):
        for name, value in told.items():
            tables[name][obj] = value


def reduce_molecule(obj: Any) -> Any:
    """Keep all properties of a molecule, and its coordinates in double precision."""
    return (type(obj), (obj.ToBinary(flags_of_molecules()),), vars(obj) or None)


def flags_of_molecules() -> int:
    options = sys.modules["rdkit.Chem.rdchem"].PropertyPickleOptions
    return int(options.AllProps) | int(options.CoordsAsDouble)


def reduce_variable(obj: Any) -> Any:
    """Read the values of a variable that still lie in a file."""
    data = obj._data  # noqa: SLF001
    if package_of(type(data)) != "xarray" or type(data).__name__.startswith("Pandas"):
        return NotImplemented
    return obj._replace(data=obj.values).__reduce_ex__(4)


def reduce_opened(obj: Any) -> Any:
    """Leave the file behind from which a dataset was opened."""
    rebuild, args, state, *rest = obj.__reduce_ex__(4)
    attributes, slots = state
    if slots.get("_close") is None:
        return NotImplemented
    return (rebuild, args, (attributes, {**slots, "_close": None}), *rest)


def reduce_image(obj: Any) -> Any:
    """Keep the palette of an image with its mode, the EXIF tags, and what else its file told."""
    state = parts_of_image(obj)
    del state["tags"]
    exif = obj.getexif()
    state["exif"] = (*state["exif"], {"endian": exif.endian, "bigtiff": exif.bigtiff})
    state["file"] = kept_of_file(obj)
    return (make_bare, (type(obj),), state, None, None, restore_image)


def restore_image(obj: Any, state: dict[str, Any]) -> None:
    """Give an image its pixels and whatever else it had; no file is open any more."""
    pillow = import_module("PIL.Image")
    vars(obj).update(state["file"])
    given = [state[name] for name in ("info", "mode", "size")]
    pillow.Image.__setstate__(obj, [*given, None, state["pixels"]])
    if state["palette"] is not None:
        mode, colors = state["palette"]
        obj.putpalette(colors, mode)
    obj._exif = exif = pillow.Exif()  # noqa: SLF001
    exif._data, exif._ifds, options = state["exif"]  # noqa: SLF001
    vars(exif).update(options, _loaded=True)
    vars(obj).update(state["attributes"])
