"""Handlers for objects of classes that are not known one by one."""

from __future__ import annotations

import copyreg
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from fleche.digest._builtin import UNSET, Attributes
from fleche.digest._instances import attributes_of, choose_enum, derived, find_content
from fleche.digest._names import HEAP, Named, find_name, look_up
from fleche.digest._registry import (
    Handler,
    Node,
    describe_type,
    node,
    package_of,
    register_fallback,
)
from fleche.digest._tokens import global_token
from fleche.errors import Indigestible

if TYPE_CHECKING:
    from fleche.digest._walk import Walk

__all__ = [
    "chain_of",
    "choose_reduce",
    "describe_private_field",
    "describe_validator",
    "reduce",
    "registered_reducer",
]

PICKLING = ("__reduce_ex__", "__reduce__", "__getstate__")  # in the order that pickle asks
STDLIB = sys.stdlib_module_names


def choose_container(cls: type) -> Handler | None:
    """Choose content and attributes for a subclass of a known type that leaves pickling alone."""
    for base in cls.__mro__:
        content = find_content(base)
        if content is not None:
            return make_container_handler(base, content)
        if any(method in vars(base) for method in PICKLING):
            return None
    return None


def make_container_handler(base: Any, content: Callable[[Any, Any], Any]) -> Handler:
    def describe(obj: Any, _walk: Walk) -> Node:
        return derived(obj, base, content(base, obj))

    return describe


def choose_fields(cls: type) -> Handler | None:
    """Choose the fields for a dataclass or an attrs class, unless a base has content of its own."""
    if is_forgetful(cls):
        return None
    if "__dataclass_fields__" in dir(cls):
        return describe_dataclass
    if hasattr(cls, "__attrs_attrs__"):
        return describe_attrs
    return None


def describe_dataclass(obj: Any, _walk: Walk) -> Node:
    return describe_fields(b"dataclass", obj, list(type(obj).__dataclass_fields__))


def describe_attrs(obj: Any, _walk: Walk) -> Node:
    return describe_fields(b"attrs", obj, [field.name for field in type(obj).__attrs_attrs__])


def describe_fields(label: bytes, obj: Any, names: list[str]) -> Node:
    """Describe an object by its class, its fields and whatever else it holds."""
    values = attributes_of(obj)
    for name in names:
        if name not in values:
            values[name] = getattr(obj, name, UNSET)
    return node(label, (type(obj), Attributes(values)))


def choose_exception(cls: type) -> Handler | None:
    """Choose what another rule chooses, and the exceptions that stand behind the exception."""
    if not issubclass(cls, BaseException):
        return None
    choices = (choose(cls) for choose in (choose_container, choose_fields, choose_reduce))
    plain = next(choice for choice in choices if choice is not None)

    def describe(obj: Any, walk: Walk) -> bytes | Node:
        described = plain(obj, walk)
        behind = chain_of(obj)
        if behind is None or isinstance(described, bytes):
            return described
        kind, label, children, step = described
        return (kind, b"chained " + label, [*children, *behind], step)

    return describe


def chain_of(obj: BaseException) -> tuple[Any, ...] | None:
    """Return the exceptions behind one, and whether a traceback shows them; None: there are none.

    They are the cause and the context, as `raise` has set them.
    """
    found = (obj.__cause__, obj.__context__, obj.__suppress_context__)
    return None if found == (None, None, False) else found


def inherited_reducer(cls: type) -> tuple[type, Any] | None:
    """Return the base from which a class has what pickle asks about its objects, and that method.

    There is none if the class has it from its own author: the class itself says what to pickle, or
    it is one of Python's own as much as the base.
    """
    if registered_reducer(cls) is not None or package_of(cls) in STDLIB:
        return None
    for method in PICKLING:
        for base in cls.__mro__[:-1]:
            if method in vars(base):
                return None if base is cls else (base, vars(base)[method])
    return None


def is_forgetful(cls: type) -> bool:
    """Whether objects are pickled by a method of a base that knows nothing of other attributes.

    So it is with the types of Python itself, and with types that are written in C. Such a
    method that is written in Python may leave something out on purpose.
    """
    if (inherited := inherited_reducer(cls)) is None:
        return False
    base, method = inherited
    is_own = isinstance(method, types.FunctionType) and package_of(base) not in STDLIB
    return callable(method) and not is_own


def choose_reduce(cls: type) -> Handler:
    if (inherited := inherited_reducer(cls)) is None:
        return describe_reduced
    known = next((base for base in NAMED_ERRORS if issubclass(cls, base)), object)
    base = known if issubclass(known, inherited[0]) else inherited[0]
    return make_inherited_handler(base, is_forgetful(cls))


def make_inherited_handler(base: type, forgetful: bool) -> Handler:
    """Return the handler for a class that has inherited its reducer, which may forget things.

    It adds the class, if the reducer does not name it, and the attributes that are left out.
    """

    def describe(obj: Any, _walk: Walk) -> bytes | Node:
        reduced = reduce(obj)
        if isinstance(reduced, str):
            return describe_global(obj, reduced)
        rebuild, args, state = (*reduced, None)[:3]
        cls = type(obj)
        added: list[Any] = []
        if rebuild is not cls and not (args and args[0] is cls):
            added.append(cls)
        if forgetful:
            kept = state if type(state) is dict else {}
            attributes = attributes_of(obj, beyond=base).items()
            left_out = {
                name: value for name, value in attributes if kept.get(name, UNSET) is not value
            }
            if left_out:
                added.append(Attributes(left_out))
        return node(b"object", (*parts_of(obj, reduced), *added))

    return describe


def describe_reduced(obj: Any, _walk: Walk) -> bytes | Node:
    """Describe an object by what pickle would be told to rebuild it from."""
    reduced = reduce(obj)
    if isinstance(reduced, str):
        return describe_global(obj, reduced)
    return node(b"object", parts_of(obj, reduced))


def parts_of(obj: Any, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what an object is rebuilt from: class or function, arguments, state and items."""
    rebuild, args, state, items, pairs, *setter = (*reduced, None, None, None, None)[:6]
    head: tuple[Any, ...] = (Named(rebuild), args)
    if rebuild is vars(copyreg)["__newobj__"]:
        head = (args[0], args[1:])
    tail = (
        tuple(items) if items is not None else None,
        pairs_of(obj, pairs) if pairs is not None else None,
        *(Named(part) for part in setter if part is not None),
    )
    return (*head, state_of(state, obj), *tail)


def pairs_of(obj: Any, pairs: Iterable[tuple[Any, Any]]) -> Any:
    """Return the pairs that are put into an object: a dict for one of a kind of dict."""
    if isinstance(obj, dict) and not isinstance(obj, OrderedDict):
        return dict(pairs)
    return tuple(pairs)


def registered_reducer(cls: type) -> Callable[[Any], str | tuple[Any, ...]] | None:
    """Return how the program has told :mod:`copyreg` to pickle a class.

    What tblib has told it does not count. That writes the traceback of an exception along, each
    time another one; executors install it for all exceptions that there are.
    """
    found = copyreg.dispatch_table.get(cls)
    of_tblib = str(getattr(found, "__module__", "")).startswith("tblib.")
    return None if of_tblib else found


def reduce(obj: Any) -> str | tuple[Any, ...]:
    """Ask an object, as pickle does, how to rebuild it.

    Raises:
        Indigestible: if it cannot be pickled.
    """
    cls = type(obj)
    reducer = registered_reducer(cls)
    try:
        if reducer:
            return reducer(obj)
        reduced: str | tuple[Any, ...] = obj.__reduce_ex__(4)
        is_named = isinstance(obj, NAMED_ERRORS) and not isinstance(reduced, str)
        return with_name(obj, reduced) if is_named else reduced
    except Exception as error:
        if not cls.__flags__ & HEAP and callable(obj) and (found := find_name(obj)):
            return found[1]  # a function of Boost
        raise Indigestible(
            f"{describe_type(cls)} has no digest: it can neither be looked into nor pickled "
            f"({type(error).__name__}: {error}); give its class a __digest__ method, or "
            "register a hook with fleche.digest.add_hook"
        ) from error


NAMED_ERRORS: tuple[type[BaseException], ...] = (AttributeError, NameError)
"""They know which name was missing."""


def with_name(obj: BaseException, reduced: Any) -> Any:
    """Tell which name was missing: Python does from 3.12 on, and of attributes alone."""
    members = [vars(base)["name"] for base in NAMED_ERRORS if isinstance(obj, base)]
    rebuild, args, state, *rest = reduced if len(reduced) > 2 else (*reduced, None)
    if type(state or {}) is not dict:
        return reduced
    told = {name: value for name, value in (state or {}).items() if name not in ("args", "name")}
    is_genuine = getattr(type(obj), "name", None) in members  # and no property of a subclass
    if is_genuine and obj.name is not None:  # type: ignore[attr-defined]
        told["name"] = obj.name  # type: ignore[attr-defined]
    return (rebuild, args, told or None, *rest)


def state_of(state: Any, obj: Any) -> Any:
    """Show the attributes of an object as such, if that is what its state consists of.

    Having no attributes is no state: some objects show an empty dict once it has been asked for.
    """
    if type(state) is dict:
        return attributes_or_dict(state, obj) if state or tells_state(type(obj)) else None
    if type(state) is tuple and len(state) == 2 and type(state[1]) is dict:
        return tuple(state_of(part, obj) for part in state)
    return state


def tells_state(cls: type) -> bool:
    """Whether a class has its own way, in Python, to tell the state of its objects."""
    return any(
        isinstance(vars(base).get(method), types.FunctionType)
        for base in cls.__mro__
        for method in PICKLING
    )


def attributes_or_dict(state: dict[Any, Any], obj: Any) -> Any:
    """Return a state as attributes, unless the class has filled it with something else."""
    if not all(type(name) is str for name in state):
        return state
    is_own = not tells_state(type(obj)) or not state.keys().isdisjoint(attributes_of(obj))
    return Attributes(state) if is_own else state


def describe_global(obj: Any, name: str) -> bytes:
    """Describe what reduces to a name: something there is one of in its module."""
    for module in (getattr(obj, "__module__", None), type(obj).__module__):
        is_main = module in ("__main__", "__mp_main__")
        if isinstance(module, str) and not is_main and look_up(module, name) is obj:
            return global_token(module, name)
    raise Indigestible(
        f"{describe_type(type(obj))} is known by its name {name!r} only, and that does not lead to "
        "it from everywhere; define it in a module that can be imported"
    )


def describe_validator(obj: Any, _walk: Walk) -> Node:
    """Describe what pydantic has noted of a validator, without the address of its class."""
    attributes = attributes_of(obj)
    attributes.pop("cls_ref", None)
    return node(b"pydantic", (type(obj), Attributes(attributes)))


def describe_private_field(obj: Any, _walk: Walk) -> Node:
    """Describe a private field of pydantic, without what is found out of it when it is filled."""
    return node(b"pydantic", (type(obj), obj.default, obj.default_factory))


def register_fallbacks() -> None:
    register_fallback(choose_enum, familiar=True)
    for choose in (choose_exception, choose_container, choose_fields, choose_reduce):
        register_fallback(choose)


register_fallbacks()
