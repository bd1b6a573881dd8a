"""Digests of scientific types: one table of what stands for a value of which library.

A row names types by their package and qualified name, so no library is ever imported here: an
object that has the type proves that its module is loaded. The function of a row takes an object and
returns what stands for it in the digest, as a dict of named parts: everything that a user of the
object can see and that survives using it, nothing that the library has only noted on the way. The
class enters the digest beside the parts. A function raises
:class:`~fleche.errors.Indigestible` where the object is only the name of something else.
"""

from __future__ import annotations

from fleche.digest._registry import register_name

__all__ = ["ROWS", "register_rows"]

EXACT, SUBCLASSES = False, True

ROWS: tuple[tuple[str, str, str, bool], ...] = (
    # torch
    ("torch", "Tensor", "_tensors:torch_tensor", SUBCLASSES),
    ("torch", "Module", "_tensors:torch_module", SUBCLASSES),
    ("torch", "OptimizedModule", "_tensors:torch_compiled", EXACT),
    ("torch", "ScriptModule ScriptFunction ScriptObject", "_tensors:torch_script", SUBCLASSES),
    ("torch", "UntypedStorage TypedStorage", "_tensors:torch_storage", EXACT),
    ("torch", "Generator", "_tensors:torch_generator", EXACT),
    ("torch", "dtype layout memory_format", "_tensors:torch_singleton", EXACT),
    ("torch", "Distribution", "_tensors:torch_distribution", SUBCLASSES),
    ("torch", "Transform", "_tensors:torch_transform", SUBCLASSES),
    # jax
    ("jaxlib", "ArrayImpl", "_tensors:jax_array", EXACT),
    ("jaxlib", "PjitFunction", "_tensors:jax_function", EXACT),
    ("jaxlib", "PyTreeDef pytree.PyTreeDef", "_tensors:jax_tree", EXACT),
    ("jax", "PRNGKeyArray", "_tensors:jax_keys", EXACT),
    ("jax", "custom_jvp custom_vjp ufunc", "_tensors:jax_wrapper", EXACT),
    ("jax", "Tracer", "_tensors:jax_tracer", SUBCLASSES),
)


def register_rows() -> None:
    """Enter the table into the registry."""
    for package, names, target, subclasses in ROWS:
        for name in names.split():
            register_name(f"{package}.*", name, f"science.{target}", subclasses=subclasses)
