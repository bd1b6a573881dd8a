"""Expressions of sympy and numbers of mpmath."""

from __future__ import annotations

import sys
from typing import Any

from fleche.digest.science._parts import CLASS, Parts, parts, refuse, without

BEYOND_CONTENT = ("_norm", "_offset", "_real_field", "_strides", "_symbol", "name")
"""Attributes that sympy does not compare: of quaternions, indexed bases, dimensions and wilds."""

IN_EXPRESSIONS = ("_args", "_assumptions", "_mhash")
IN_MATRICES = (
    *IN_EXPRESSIONS,
    *("_rep", "_rows", "_cols", "rows", "cols", "_mat", "_flat", "_smat"),
    *("_array", "_sparse_array", "_shape", "_rank", "_loop_size"),
)
"""Attributes in which sympy keeps the entries of matrices and arrays, in one version or another."""


@parts
def expression(obj: Any) -> Parts:
    """Describe an expression by what sympy compares of it, and by options that it does not."""
    content = obj._hashable_content()  # noqa: SLF001 - what equality is made of
    return {"content": content, **told_beyond_content(obj, content)}


def told_beyond_content(obj: Any, content: Any) -> Parts:
    """Return what an object was made with that is not in what sympy compares.

    That is everything where sympy compares nothing: so it is with bases of ideals and Cartan types.
    """
    if not content:
        return without(obj, *IN_EXPRESSIONS, "_hash")
    held = getattr(obj, "__dict__", {})
    return {name: held[name] for name in BEYOND_CONTENT if held.get(name) is not None}


@parts
def wild_function(obj: Any) -> Parts:
    return {"content": obj._hashable_content(), "arguments": obj.nargs}  # noqa: SLF001


@parts
def quantity(obj: Any) -> Parts:
    """Describe a unit by what sympy compares of it, and by what it was said to measure."""
    return {"content": obj._hashable_content(), **told_of_unit(obj)}  # noqa: SLF001


def told_of_unit(obj: Any) -> Parts:
    """Return the dimension and the scale of a unit, which sympy keeps in tables for all of them."""
    found = {name: table.get(obj) for name, table in tables_of_units().items()}
    return {name: value for name, value in found.items() if value is not None}


def tables_of_units() -> dict[str, dict[Any, Any]]:
    """Return what sympy knows of units in all systems, by name."""
    tables = sys.modules["sympy.physics.units.dimensions"]._QuantityMapper  # noqa: SLF001
    names = ("dimension_global", "scale_factors_global", "dimensional_equivalence_map_global")
    return {name: getattr(tables, f"_quantity_{name}") for name in names}


@parts
def floating(obj: Any) -> Parts:
    return {"value": integers(obj._mpf_), "precision": obj._prec}  # noqa: SLF001


def integers(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the integers of a number as Python's, whatever library computes with them."""
    return tuple(integers(part) if isinstance(part, tuple) else int(part) for part in value)


@parts
def rational(obj: Any) -> Parts:
    return {"value": (int(obj.p), int(obj.q))}


@parts
def dummy(obj: Any) -> Parts:
    raise refuse(obj, "a dummy symbol is equal to itself only", "use a Symbol with a name")


@parts
def frame(obj: Any) -> Parts:
    raise refuse(obj, "a frame is equal to itself only", "pass components, vector.to_matrix(frame)")


@parts
def domain(obj: Any) -> Parts:
    """Describe a domain by its name and by what its name does not tell."""
    names = ("precision", "sym", "dom", "symbols", "order")
    return {"name": str(obj), **{name: getattr(obj, name, None) for name in names}}


@parts
def undefined_function(obj: Any) -> Parts:
    """Describe `Function("f")`, a class that is made anew each time, by name and assumptions."""
    own = vars(obj)
    given = own.get("_kwargs", {})
    return {
        CLASS: type(obj),
        "name": obj.__name__,
        "assumptions": sorted(given.items()),
        "arguments": own.get("_nargs"),
        "implementation": getattr(own.get("_imp_"), "__func__", own.get("_imp_")),
    }


@parts
def matrix(obj: Any) -> Parts:
    """Describe a matrix by its entries; how they are kept changes while it is used."""
    return {"shape": (obj.rows, obj.cols), "entries": obj.flat(), **noted_on_matrix(obj)}


def noted_on_matrix(obj: Any) -> Parts:
    """Return what a program has hung on a matrix or an array."""
    return without(obj, *IN_MATRICES)


@parts
def array(obj: Any) -> Parts:
    shape, entries = tuple(map(int, obj.shape)), list(obj.reshape(len(obj)))
    return {"shape": shape, "entries": entries, **noted_on_matrix(obj)}


@parts
def polynomial(obj: Any) -> Parts:
    return {"expression": obj.as_expr(), "gens": obj.gens, "domain": obj.domain}


@parts
def ring(obj: Any) -> Parts:
    """Describe a ring or a field by what it was made from; it also keeps its elements' classes."""
    return {"symbols": obj.symbols, "domain": obj.domain, "order": str(obj.order)}


@parts
def ring_element(obj: Any) -> Parts:
    return {CLASS: "PolyElement", "ring": obj.ring, "terms": obj.terms()}


@parts
def field_element(obj: Any) -> Parts:
    return {CLASS: "FracElement", "parts": (obj.numer, obj.denom)}


@parts
def mpmath_number(obj: Any) -> Parts:
    """Describe a number by its class's name: each context has a class of its own."""
    for name in ("_mpf_", "_mpc_", "_mpi_", "_mpci_"):
        if (value := getattr(obj, name, None)) is not None:
            return {CLASS: type(obj).__name__, name: integers(value)}
    raise refuse(obj, "it has no value of its own", "call it first, +mpmath.pi")


@parts
def mpmath_matrix(obj: Any) -> Parts:
    entries = [obj[i, j] for i in range(obj.rows) for j in range(obj.cols)]
    return {CLASS: type(obj).__name__, "shape": (obj.rows, obj.cols), "entries": entries}


@parts
def mpmath_context(obj: Any) -> Parts:
    raise refuse(obj, "its precision changes while it is used", "pass the precision, mpmath.mp.dps")
