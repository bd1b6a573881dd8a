"""Tensors, modules and generators of torch, arrays and functions of jax."""

from __future__ import annotations

import sys
from typing import Any

from fleche.digest.science._parts import (
    CLASS,
    Named,
    Parts,
    filled,
    find_name,
    parts,
    refuse,
    without,
)

HOOKS = "_hooks"
TABLES = ("_parameters", "_buffers", "_modules")
STATE = (*TABLES, "training")
FLAT = ("_flat_weights", "_flat_weight_refs")
"""What a recurrent layer keeps of its parameters in another order."""


def torch() -> Any:
    """Return torch, which is loaded."""
    return sys.modules["torch"]


@parts
def torch_tensor(obj: Any) -> Parts:
    """Describe a tensor by its values, and by what autograd is to do with it."""
    if torch().nn.parameter.is_lazy(obj):
        return {"dtype": str(obj.dtype), "device": str(obj.device)}
    if obj.requires_grad and not obj.is_leaf:
        raise refuse(
            obj,
            "it belongs to a graph of autograd, which no copy would belong to",
            "pass or return tensor.detach()",
        )
    with torch().no_grad():
        plain = obj.detach()
        if type(plain) is not torch().Tensor:  # sparse tensors could not be seen as any class
            plain = plain.as_subclass(torch().Tensor)
        found = {
            "dtype": str(obj.dtype),
            "device": str(obj.device),
            "requires_grad": obj.requires_grad,
            "grad": obj.grad if obj.is_leaf else None,
            "attributes": without(obj),
            **contents(plain),
        }
    names = getattr(obj, "names", ())  # gone since torch 2.13
    return {**found, "names": names} if any(names) else found


def contents(tensor: Any) -> Parts:
    """Return the shape and the values of a plain tensor, by its layout."""
    if tensor.is_nested:
        return {"nested": tensor.unbind()}
    layout = str(tensor.layout)
    if layout == "torch.sparse_coo":
        return {
            "layout": (layout, tensor.is_coalesced(), tuple(tensor.shape)),
            "values": (tensor._indices(), tensor._values()),  # noqa: SLF001 - as they are
        }
    if layout.startswith("torch.sparse_"):
        by_row = layout in ("torch.sparse_csr", "torch.sparse_bsr")
        ends = "crow_indices" if by_row else "ccol_indices"
        places = "col_indices" if by_row else "row_indices"
        values = (getattr(tensor, ends)(), getattr(tensor, places)(), tensor.values())
        return {"layout": (layout, tuple(tensor.shape)), "values": values}
    shape = tuple(tensor.shape)
    if tensor.device.type == "meta":
        return {"shape": shape}
    if tensor.is_quantized:
        scheme = str(tensor.qscheme())
        if "channel" in scheme:
            scales = (tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points())
            scale: Any = (*scales, tensor.q_per_channel_axis())
        else:
            scale = (tensor.q_scale(), tensor.q_zero_point())
        return {"values": tensor.int_repr(), "scale": (scheme, scale)}
    return {"shape": shape, "values": raw_bytes(tensor)}


def raw_bytes(tensor: Any) -> Any:
    """Return the values of a strided tensor in C order as an array of bytes, in place if may be."""
    flat = tensor.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return flat.view(torch().uint8).numpy()


@parts
def torch_storage(obj: Any) -> Parts:
    untyped = obj if type(obj).__name__ == "UntypedStorage" else obj.untyped()
    tensor = torch().empty(0, dtype=torch().uint8, device=untyped.device).set_(untyped)
    return {"dtype": str(getattr(obj, "dtype", "")), "bytes": tensor}


@parts
def torch_module(obj: Any) -> Parts:
    """Describe a module by what it would be pickled from, and its hooks by their order.

    Hooks are numbered through the process, so the numbers mean nothing.
    """
    kind = type(obj)
    dynamic = sys.modules.get("torch.nn.utils.parametrize")
    if dynamic is not None and dynamic.is_parametrized(obj):
        kind = dynamic.type_before_parametrizations(obj)
        state = without(obj, *FLAT)
    else:
        state = obj.__reduce_ex__(4)[2]
    found = {name: value for name, value in state.items() if name not in FLAT}
    marked = {name: value for name, value in found.items() if is_mark(name)}
    for name, value in state.items():
        if name.endswith(HOOKS) and hasattr(value, "items"):
            found[name] = [
                (hook, sorted(mark for mark, of in marked.items() if number in of))
                for number, hook in value.items()
            ]
        elif name in marked:
            del found[name]
        elif {f"{name}_orig", f"{name}_g"} & {*state["_parameters"]} or is_handle(value):
            del found[name]  # a hook makes such a weight from the parameters, each time anew
    return {CLASS: kind, **found, **shared_parts(obj)}


def shared_parts(module: Any) -> Parts:
    """Return which parameters, buffers and modules a module has in several places.

    They are trained together, and counted once.
    """
    first: dict[int, str] = {}
    shared = []
    pending = [("", module)]
    while pending:
        prefix, owner = pending.pop()
        for table in TABLES:
            for name, part in (vars(owner).get(table) or {}).items():
                place = f"{prefix}{name}"
                if part is None:
                    continue
                if id(part) in first:
                    shared.append((first[id(part)], place))
                    continue
                first[id(part)] = place
                if table == "_modules":
                    pending.append((f"{place}.", part))
    return {"shared": shared} if shared else {}


def is_handle(value: object) -> bool:
    """Whether an attribute is only there to take a hook away again."""
    return type(value).__name__ == "RemovableHandle"


def is_mark(name: str) -> bool:
    """Whether an attribute of a module only tells something more about hooks, by their numbers."""
    return name.endswith(("_with_kwargs", "_always_called")) and HOOKS in name


@parts
def torch_compiled(obj: Any) -> Parts:
    """Describe a compiled module by the module: how fast it runs does not matter."""
    return {"module": vars(obj)["_modules"]["_orig_mod"]}


@parts
def torch_traced(obj: Any) -> Parts:
    """Describe a traced module by its code and its state; each has a class of its own."""
    state = {name: value for name, value in vars(obj).items() if name in STATE}
    return {CLASS: "GraphModule", "code": obj.code, **state, **shared_parts(obj)}


@parts
def torch_script(obj: Any) -> Parts:
    raise refuse(
        obj,
        "it is a program of TorchScript, not a value",
        "pass the module or function that it was made from, or the path of the saved file as "
        "Content[Path]",
    )


@parts
def torch_generator(obj: Any) -> Parts:
    return {"device": str(obj.device), "state": obj.get_state()}


@parts
def torch_singleton(obj: Any) -> Parts:
    return {"name": str(obj)}


@parts
def torch_distribution(obj: Any) -> Parts:
    return filled(obj, "lazy_property")


@parts
def torch_transform(obj: Any) -> Parts:
    return without(obj, "_inv", "_cached_x_y")


@parts
def jax_array(obj: Any) -> Parts:
    """Describe an array by its values; in which memory they lie does not matter."""
    values = sys.modules["numpy"].asarray(obj)
    raw = values.reshape(-1).view("u1") if values.dtype.kind == "V" else values
    return {
        "dtype": str(obj.dtype),
        "shape": obj.shape,
        "values": raw,
        "weak_type": bool(obj.weak_type),
    }


@parts
def jax_keys(obj: Any) -> Parts:
    data = sys.modules["jax"].random.key_data(obj)
    return {"dtype": str(obj.dtype), "data": data}


@parts
def jax_function(obj: Any) -> Parts:
    """Describe a compiled function by the function and what is static of it.

    One of jax itself counts by its name, which says nothing of what a program has written.
    """
    if is_of_jax(obj):
        return {"name": Named(obj)}
    state = obj.__getstate__()
    return {
        "function": state["fun"],
        "static": (list(state["static_argnums"]), list(state["static_argnames"])),
    }


def is_of_jax(obj: Any) -> bool:
    place = find_name(obj)
    return place is not None and place[0].partition(".")[0] in ("jax", "jaxlib")


@parts
def jax_wrapper(obj: Any) -> Parts:
    if is_of_jax(obj):
        return {"name": Named(obj)}
    return without(obj, "__wrapped__", "__doc__", "__annotations__")


@parts
def jax_tree(obj: Any) -> Parts:
    return {"tree": str(obj), "leaves": obj.num_leaves}


@parts
def jax_tracer(obj: Any) -> Parts:
    raise refuse(
        obj,
        "it stands for a value that jax will know later",
        "call the function from outside of jax.jit, jax.grad and jax.vmap",
    )
