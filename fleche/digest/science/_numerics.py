"""Functions that libraries have wrapped; what scipy has fitted, drawn or triangulated."""

from __future__ import annotations

import sys
from typing import Any

from fleche.digest._builtin import Attributes
from fleche.digest.science._parts import Parts, parts, uncached, without

ON_DEMAND = ("_transform", "_vertex_to_simplex", "_vertex_neighbor_vertices", "_ridge_dict")
MADE_AGAIN = ("__doc__", "_dist", "vecentropy")
ON_DEMAND_OF_HULL = ("_vertices",)


@parts
def numba_function(obj: Any) -> Parts:
    """Describe a compiled function by what it was compiled from.

    Types that it has met since do not matter; those that it was restricted to do.
    """
    return {
        "function": obj.py_func,
        "options": Attributes(dict(obj.targetoptions)),
        "locals": Attributes({name: str(kind) for name, kind in obj.locals.items()}),
        "signatures": None if obj._can_compile else list(map(str, obj.signatures)),  # noqa: SLF001
    }


@parts
def numba_ufunc(obj: Any) -> Parts:
    maker = obj._dispatcher  # noqa: SLF001 - the only way to its function
    return {
        "function": maker.py_func,
        "options": Attributes(dict(maker.targetoptions)),
        "identity": obj.identity,
        "signatures": list(obj.types) if obj._frozen else None,  # noqa: SLF001
    }


@parts
def numba_gufunc(obj: Any) -> Parts:
    maker = obj.gufunc_builder
    return {
        "function": maker.py_func,
        "options": Attributes(dict(maker.targetoptions)),
        "signature": obj.signature,
        "signatures": None if obj.is_dynamic else list(obj.types),
    }


@parts
def numba_callback(obj: Any) -> Parts:
    return {"function": obj.__wrapped__, "signature": str(obj._sig)}  # noqa: SLF001


@parts
def numba_stencil(obj: Any) -> Parts:
    options = Attributes(dict(obj.options))
    return {"function": obj.kernel_ir.func_id.func, "mode": obj.mode, "options": options}


@parts
def numba_list(obj: Any) -> Parts:
    kind = str(obj._list_type)  # noqa: SLF001 - asking for the public one may compile
    return {"type": kind, "items": list(obj) if obj._typed else []}  # noqa: SLF001


@parts
def numba_dict(obj: Any) -> Parts:
    kind = str(obj._dict_type)  # noqa: SLF001
    return {"type": kind, "items": list(obj.items()) if obj._typed else []}  # noqa: SLF001


@parts
def numba_type(obj: Any) -> Parts:
    return {"name": obj.name}


@parts
def memorized_function(obj: Any) -> Parts:
    """Describe a function with a memory; where that is, and where the code is, does not matter."""
    return {"function": obj.func, "ignore": sorted(getattr(obj, "ignore", ()))}


@parts
def curried_function(obj: Any) -> Parts:
    """Describe a function with some arguments, without what was found out about its signature."""
    return {"function": obj.func, "args": obj.args, "keywords": obj.keywords}


@parts
def linear_operator(obj: Any) -> Parts:
    return {name: value for name, value in without(obj).items() if not name.endswith("__adj")}


@parts
def kd_tree(obj: Any) -> Parts:
    """Describe a tree by its points and the order into which it has brought them."""
    return {
        "points": obj.data,
        "indices": obj.indices,
        "boxsize": obj.boxsize,
        "leafsize": obj.leafsize,
        "size": obj.size,
        "attributes": Attributes(without(obj, "_tree")),
    }


@parts
def triangulation(obj: Any) -> Parts:
    """Describe what qhull has made, and whether points may still be added to it."""
    on_demand = ON_DEMAND_OF_HULL if hasattr(obj, "volume") else ()
    found = without(obj, "_qhull", *ON_DEMAND, *on_demand)
    return {**found, "open": getattr(obj, "_qhull", None) is not None}


@parts
def distribution(obj: Any) -> Parts:
    """Describe a distribution by its state; the generator of all of numpy is none of its own."""
    state = obj.__reduce_ex__(4)[2] or {}
    own = {name: value for name, value in state.items() if name not in MADE_AGAIN}
    return {**own, "_random_state": own_generator(own.get("_random_state"))}


def own_generator(generator: Any) -> Any:
    """Return a generator, but for the one behind the functions of `numpy.random` and its copies.

    They are known by the entropy from which numpy has started it.
    """
    shared = vars(sys.modules["numpy.random.mtrand"])["_rand"]
    if generator is shared:
        return None
    if type(generator) is type(shared):
        seed, other = map(entropy_of, (generator, shared))
        return None if seed is not None and seed == other else generator
    return generator


def entropy_of(generator: Any) -> Any:
    source = generator._bit_generator  # noqa: SLF001 - a RandomState has no public way to it
    return getattr(getattr(source, "seed_seq", None), "entropy", None)


@parts
def frozen_distribution(obj: Any) -> Parts:
    found = without(obj, "kwds", "_dist")
    if hasattr(obj, "kwds"):
        found["kwds"] = Attributes(obj.kwds)
    if hasattr(obj, "_dist"):  # it points back where its methods are those of the frozen one
        inner = obj._dist  # noqa: SLF001
        found["of"] = type(inner)
        found["generator"] = own_generator(getattr(inner, "_random_state", None))
    return found


@parts
def random_variable(obj: Any) -> Parts:
    """Describe a random variable; copies have another object in place of no tolerance."""
    found = without(obj, "_moment_methods")
    return {
        name: None if type(value) is object else value
        for name, value in found.items()
        if "cache" not in name
    }


@parts
def spline(obj: Any) -> Parts:
    """Describe a spline of FITPACK by what was fitted and by the knots and coefficients in use.

    Its work arrays are longer than that, and hold whatever was in that memory before.
    """
    found = without(obj, "_data")
    data = getattr(obj, "_data", None)
    if data is not None:
        knots, order = data[7], data[5]
        found["data"] = (*data[:8], data[8][:knots], data[9][: knots - order - 1], data[10])
        found["error"] = data[13]
    return found


@parts
def barycentric(obj: Any) -> Parts:
    """Describe an interpolator without the weights that it has worked out, in a random order."""
    derived = ("wi", "_inv_capacity") if hasattr(obj, "_inv_capacity") else ()
    return without(obj, "r", "_diff_cij", "_diff_baryint", *derived)


@parts
def rational_interpolant(obj: Any) -> Parts:
    return without(obj, "_poles", "_residues", "_roots")


@parts
def short_time_fft(obj: Any) -> Parts:
    found = {name: value for name, value in uncached(obj).items() if "_cache_" not in name}
    return {**found, "_dual_win": obj.dual_win}
