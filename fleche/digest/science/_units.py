"""Quantities, times, coordinates and tables of astropy; quantities of pint; models of lmfit."""

from __future__ import annotations

import copy
import sys
from typing import Any

from fleche.digest._builtin import Attributes
from fleche.digest.science._parts import CLASS, Parts, parts, refuse, uncached, without

NOTES = ("info", "cache", "representation_info", "SCALES", "_id_cache")
WRITTEN = ("name", "format", "description", "meta")
MASK = ("_mask", "_fill_value", "_hardmask", "_sharedmask", "_isfield", "_basedict", "_optinfo")
NOTES_OF_ARRAYS = (
    *("info", "_unit", "indices", "_parent_table", "_checked_units", "__doc__", "_groups"),
)
NOTES_OF_TABLES = (
    *("formatter", "columns", "_copy_indices", "_init_indices", "_column_class", "_meta"),
    *("info", "_groups", "_first_colname", "pprint_include_names", "pprint_exclude_names"),
)
DELTAS = ("_delta_ut1_utc", "_delta_tdb_tt")
NOTES_OF_MODELS = (
    *("_parameters", "_parameters_", "_param_metrics", "_constraints_cache", "_leaflist"),
    *("_tdict", "_param_map", "_param_map_inverse", "_param_names", "_model", "__doc__"),
    *("n_left_params", "_fittable"),
)


OPTIONS = {
    "_default_system_name": "mks",
    "_non_int_type": float,
    "auto_reduce_dimensions": False,
    "autoconvert_offset_to_baseunit": False,
    "autoconvert_to_preferred": False,
    "case_sensitive": True,
    "default_as_delta": True,
    "force_ndarray": False,
    "force_ndarray_like": False,
}
"""The options of a registry of pint, and what they are unless a program sets them."""


def without_empty(attributes: Parts) -> Parts:
    """Leave out what is empty: None becomes {} when it is looked at."""
    return {
        name: value
        for name, value in attributes.items()
        if value is not None and not (isinstance(value, (dict, list)) and not value)
    }


def told(obj: Any) -> Parts:
    """Return what a program has written into the info of an object."""
    written = getattr(vars(obj).get("info"), "_attrs", None) or {}
    return without_empty({name: written.get(name) for name in WRITTEN})


@parts
def astropy_unit(obj: Any) -> Parts:
    """Describe a unit by its names and what they stand for, or by its scale and its parts."""
    if hasattr(obj, "_names"):
        return {"names": (obj.name, sorted(obj.names)), "of": getattr(obj, "_represents", None)}
    units = sorted(zip(obj.bases, obj.powers, strict=True), key=lambda pair: pair[0].name)
    return {"scale": obj.scale, "units": units}


@parts
def astropy_array(obj: Any) -> Parts:
    """Describe an array with a unit, a mask or a name; what `info` says only if it says something.

    A constant works out its unit when it is asked for it.
    """
    numpy = sys.modules["numpy"]
    found = without_empty(without(obj, *NOTES_OF_ARRAYS))
    found.update({"unit": getattr(obj, "unit", None), "info": Attributes(told(obj))})
    if (groups := own_groups(obj)) is not None:
        found["groups"] = groups
    if isinstance(obj, numpy.ma.MaskedArray):
        kept = {name: value for name, value in found.items() if name not in MASK}
        fill, mask = obj.fill_value, numpy.ma.getmaskarray(obj)
        return {**kept, "values": obj.data.view(numpy.ndarray), "mask": mask, "fill": fill}
    return {**found, "values": obj.view(numpy.ndarray)}


@parts
def astropy_samples(obj: Any) -> Parts:
    """Describe an uncertain quantity by its samples; its class is made for theirs."""
    return {CLASS: "Distribution", "samples": obj.distribution}


@parts
def astropy_masked(obj: Any) -> Parts:
    """Describe a masked array, whose class is made for the class of what is masked."""
    return {
        CLASS: "Masked",
        "mask": obj.mask,
        "values": obj.unmasked,
        "info": Attributes(told(obj)),
    }


@parts
def astropy_object(obj: Any) -> Parts:
    """Describe coordinates, frames and representations without what they have worked out."""
    return {**without_empty(without(obj, *NOTES)), "info": Attributes(told(obj))}


@parts
def astropy_time(obj: Any) -> Parts:
    """Describe a time; the offsets between its scales count where they are not those of astropy."""
    found = without_empty(without(obj, *NOTES))
    for name in DELTAS:
        if name in found and is_usual(obj, name, found[name]):
            del found[name]
    return {**found, "info": Attributes(told(obj))}


def is_usual(obj: Any, name: str, value: Any) -> bool:
    """Whether an offset is the one that astropy works out on demand."""
    fresh = copy.copy(obj)
    vars(fresh).pop(name, None)
    vars(fresh).pop("cache", None)
    try:
        return bool((getattr(fresh, name[1:]) == value).all())
    except Exception:  # noqa: BLE001 - then it cannot have come from there
        return False


@parts
def astropy_format(obj: Any) -> Parts:
    return without(obj, "cache", "info")


@parts
def astropy_table(obj: Any) -> Parts:
    """Describe a table by its columns, in their order, and its metadata."""
    return {
        **attributes_of_table(obj),
        "columns": [(name, obj[name]) for name in obj.colnames],
        "groups": groups_of(obj),
        "length": len(obj),
        "meta": dict(obj.meta),
    }


def attributes_of_table(obj: Any) -> Parts:
    """Return what a table has beside columns, metadata and groups."""
    return without_empty(without(obj, *NOTES_OF_TABLES))


def groups_of(table: Any) -> Any:
    """Return where the groups of a table begin, and by what it was grouped."""
    groups = vars(table).get("_groups")
    if groups is None or groups.keys is None:
        return None
    return (groups.indices, groups.keys)


def own_groups(column: Any) -> Any:
    """Return the groups of a column that has them for itself, not from its table."""
    groups = vars(column).get("_groups")
    indices = getattr(groups, "_indices", None)
    return None if indices is None else (indices, groups.keys)


@parts
def astropy_cosmology(obj: Any) -> Parts:
    """Describe a cosmology by what it was made from; the rest is worked out from that."""
    names = getattr(type(obj), "__parameters__", None) or type(obj).parameters
    return {
        "name": obj.name,
        "meta": dict(obj.meta or {}),
        "parameters": Attributes({name: getattr(obj, name) for name in names}),
    }


@parts
def astropy_model(obj: Any) -> Parts:
    """Describe a model by its parameters, its constraints and what it was made with."""
    found = without_empty(without(obj, *NOTES_OF_MODELS))
    values = [(name, getattr(obj, name)) for name in obj.param_names]
    parameter = sys.modules["astropy.modeling"].Parameter  # larger models leave theirs in the class
    own = {name: value for name, value in found.items() if not isinstance(value, parameter)}
    return {**own, "parameters": values}


@parts
def astropy_parameter(obj: Any) -> Parts:
    found = without_empty(without(obj, *NOTES_OF_MODELS, "_value", "_internal_value"))
    bound = {
        name: value for name, value in found.items() if not name.endswith(("_model_required",))
    }
    return {**bound, "value": obj.value}


@parts
def astropy_projection(obj: Any) -> Parts:
    """Describe a projection by the FITS file as which it is pickled."""
    _, attributes, file = obj.__reduce__()[1]
    return {"attributes": Attributes(attributes), "file": file}


@parts
def fits_header(obj: Any) -> Parts:
    return {"cards": obj.tostring(sep="\n")}


@parts
def fits_unit(obj: Any) -> Parts:
    """Describe an HDU; reading the data removes keywords from the header, so they come first."""
    data = obj.data
    return {"data": data, "header": obj.header}


@parts
def fits_file(obj: Any) -> Parts:
    """Describe the units of a FITS file, which are read now as far as they were not."""
    return {"units": list(obj)}


@parts
def fits_records(obj: Any) -> Parts:
    columns = [(column.name, column.format, column.unit) for column in obj.columns]
    return {"columns": columns, "values": [obj.field(name) for name, _, _ in columns]}


@parts
def pint_quantity(obj: Any) -> Parts:
    found = {CLASS: "Quantity", "magnitude": obj.magnitude, "units": pint_units(obj)}
    return {**found, **pint_settings(obj)}


@parts
def pint_unit(obj: Any) -> Parts:
    return {CLASS: "Unit", "units": pint_units(obj), **pint_settings(obj)}


def pint_settings(obj: Any) -> Parts:
    """Return how the registry of a quantity computes with it and writes it, where that is unusual.

    Those are its options, the contexts that it is in, and the format that it writes in.
    """
    registry = obj._REGISTRY  # noqa: SLF001
    own = vars(registry)
    found = {name: own[name] for name, usual in OPTIONS.items() if own.get(name, usual) != usual}
    contexts = [
        (context.name, dict(context.defaults), [str(part) for part in context.redefinitions])
        for context in registry._active_ctx.contexts  # noqa: SLF001
    ]
    written = getattr(own.get("formatter"), "default_format", own.get("default_format"))
    if contexts:
        found["contexts"] = contexts
    if written:
        found["format"] = written
    return {"settings": Attributes(found)} if found else {}


def pint_units(obj: Any) -> Any:
    """Return the units of a quantity with what they mean in its registry, in the order of names.

    Each registry has classes of its own, and may define a unit in its own way.
    """
    registry = obj._REGISTRY  # noqa: SLF001
    found = []
    for name, power in sorted(obj._units.items()):  # noqa: SLF001
        factor, base = registry.get_base_units(name, check_nonmult=False)
        definition = registry._units.get(name)  # noqa: SLF001
        converter = without(getattr(definition, "converter", None))
        bases = sorted(base._units.items())  # noqa: SLF001
        found.append((name, power, factor, bases, Attributes(converter)))
    return found


@parts
def pint_container(obj: Any) -> Parts:
    return {CLASS: "UnitsContainer", "units": sorted(obj.items())}


@parts
def pint_registry(obj: Any) -> Parts:
    raise refuse(
        obj,
        "it learns units while it is used",
        "pass quantities, or the path of its definitions as Content[Path]",
    )


@parts
def lmfit_parameter(obj: Any) -> Parts:
    """Describe a parameter, whose value may be a whole number until it is copied."""
    value = obj.value
    return {
        "name": obj.name,
        "value": float(value) if type(value) is int else value,
        "free": (obj.vary, obj.expr, obj.min, obj.max, obj.brute_step),
        "found": (obj.stderr, obj.correl, obj.init_value),
        "user_data": obj.user_data,
    }


@parts
def lmfit_parameters(obj: Any) -> Parts:
    """Describe parameters in their order, with the names that their expressions may use."""
    usual = type(obj)()._asteval.symtable  # noqa: SLF001
    interpreter = obj._asteval  # noqa: SLF001
    added = {
        name: value
        for name, value in interpreter.symtable.items()
        if name not in obj and getattr(value, "__self__", None) is not interpreter
        if usual.get(name) is not value and is_added(name, value, usual)
    }
    return {"parameters": list(obj.values()), "symbols": Attributes(added)}


def is_added(name: str, value: Any, usual: dict[str, Any]) -> bool:
    """Whether a name of an interpreter means something else than in a new one."""
    if name not in usual:
        return True
    try:
        return type(value) is not type(usual[name]) or bool(value != usual[name])
    except ValueError:  # an array
        return True


@parts
def lmfit_model(obj: Any) -> Parts:
    """Describe a model; one that was made from an expression has a function that only runs it."""
    made = ("func", "asteval", "astcode") if hasattr(obj, "asteval") else ()
    return without(obj, "_func_allargs", "_func_haskeywords", "_param_names", *made)


@parts
def lmfit_result(obj: Any) -> Parts:
    """Describe the outcome of a fit without the numbers of uncertainties made from it."""
    made = ("userfcn", "userargs", "reduce_fcn", "model_result") if hasattr(obj, "model") else ()
    return {name: value for name, value in uncached(obj).items() if name not in ("uvars", *made)}
