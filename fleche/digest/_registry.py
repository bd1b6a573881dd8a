"""Which handler describes which type.

A *handler* takes an object and the running walk, and returns either a token (the object is a leaf)
or a :data:`Node`: what kind of container it is, a label, its children, and how to name the path to
a child. Handlers are looked up by exact type; the first object of a type decides for the type:

1. a hook of :func:`add_hook` or a ``__digest__`` method, the nearest in the method resolution
   order;
2. open files and iterators are refused;
3. the handlers of this package, by the nearest base that has one;
4. dataclasses, attrs classes, and at last a walk of ``__reduce_ex__``.

Handlers of modules that are slow to import, or may not be there at all, are found by the name of
the type: an object that has the type proves that its module is loaded.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from fleche._util import renewed_after_fork
from fleche.errors import Indigestible

if TYPE_CHECKING:
    from fleche.digest._walk import Walk

from fleche.digest._tokens import ORDERED

__all__ = [
    "LEAVES",
    "Handler",
    "Node",
    "Step",
    "add_hook",
    "find_handler",
    "is_genuine",
    "is_unfamiliar",
    "item_step",
    "key_step",
    "module_of",
    "no_step",
    "node",
    "package_of",
    "register",
    "register_fallback",
    "register_leaf",
    "register_name",
]

T = TypeVar("T")
Step = Callable[[Sequence[Any], int], str]
Node = tuple[bytes, bytes, Sequence[Any], Step]
Handler = Callable[[Any, "Walk"], "bytes | Node"]

LEAVES: dict[type, Callable[[Any], bytes]] = {}
"""Types whose objects are leaves, with their token functions: the fast path of the walk."""

PLAIN = (type(None), bool, int, float, str, bytes, list, tuple, dict)
ENTRY_POINTS = "fleche.digest"
MANY_TYPES = 20_000
PATHS = ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath")
NOT_NAMED = ("", False)

exact: dict[type, Handler] = {}
inherited: dict[type, Handler] = {}
named: dict[tuple[str, str], tuple[str, bool]] = {}
fallbacks: list[tuple[Callable[[type], Handler | None], bool]] = []
hooks: dict[type, Callable[[Any], Any]] = {}
resolved: dict[type, Handler] = {}
unfamiliar: set[type] = set()


def item_step(_children: Sequence[Any], index: int) -> str:
    """Name a child by its position."""
    return f"[{index}]"


def key_step(children: Sequence[Any], index: int) -> str:
    """Name a child of a mapping, whose children are keys and values in turn, by its key."""
    key = children[index - index % 2]
    try:
        text = repr(key)
    except Exception:  # noqa: BLE001 - an integer of 5,000 digits, or an object that is broken
        text = f"<{describe_type(type(key))}>"
    return f"[{text if len(text) <= 60 else text[:57] + '...'}]"


def no_step(_children: Sequence[Any], _index: int) -> str:
    """Leave a child without a name of its own."""
    return ""


def node(
    label: bytes, children: Sequence[Any], kind: bytes = ORDERED, step: Step = no_step
) -> Node:
    """Describe an object by a label and its children."""
    return (kind, label, children, step)


def register(cls: type, handler: Handler, *, subclasses: bool = False) -> None:
    """Set the handler of a type, and of its subclasses if it knows how to treat them."""
    (inherited if subclasses else exact)[cls] = handler


def register_name(module: str, qualname: str, target: str, *, subclasses: bool = False) -> None:
    """Set the handler of a type that need not be loaded; ``target`` is ``module:function``.

    ``module`` may be a package with all its modules, written ``package.*``.
    """
    named[module, qualname] = (target, subclasses)


def register_fallback(choose: Callable[[type], Handler | None], *, familiar: bool = False) -> None:
    """Add a rule for the types that no handler is registered for; rules are asked in order.

    Args:
        choose: returns the handler for a type, or None.
        familiar: whether the rule knows all that there is to know about such types.
    """
    fallbacks.append((choose, familiar))


def add_hook(cls: type[T], function: Callable[[T], object]) -> None:
    """Digest the instances of ``cls`` and of its subclasses by what ``function`` makes of them.

    ``function`` returns something digestible that stands for the whole value: two instances of one
    class are the same to fleche if, and only if, it returns equal things for them. The class enters
    the digest beside it. Hooks win over ``__digest__`` of the same class and over everything that
    fleche knows by itself; a hook of a nearer base class wins over one further up.

    Register hooks when the program starts: digests that were made before do not change.

    Raises:
        TypeError: if ``cls`` is no class, is ``object`` or a type of plain data, or ``function``
            is not callable.
    """
    if not isinstance(cls, type) or cls is object:
        raise TypeError(f"a hook needs a class other than object, not {cls!r}")
    if cls in PLAIN:
        raise TypeError(
            f"{cls.__name__} is plain data, which counts as it is; hook a subclass of your own"
        )
    if not callable(function):
        raise TypeError(f"the hook of {cls.__qualname__} is not callable: {function!r}")
    hooks[cls] = function
    for leaf in [leaf for leaf in LEAVES if cls in leaf.__mro__]:
        del LEAVES[leaf]
    forget()


def forget() -> None:
    """Look for the handler of every type anew."""
    resolved.clear()
    unfamiliar.clear()


def is_unfamiliar(cls: type) -> bool:
    """Whether the handler of a type is only the general one, which knows nothing of the class."""
    return cls in unfamiliar


def register_leaf(cls: type, function: Callable[[Any], bytes]) -> None:
    """Make the objects of exactly this type leaves, unless a hook says what they stand for."""
    if find_hook(cls) is None:
        LEAVES[cls] = function


def find_handler(cls: type) -> Handler:
    """Return the handler for the exact type ``cls``, found once and remembered.

    Raises:
        Indigestible: if the objects of this type have no digest, or if an extension cannot be
            loaded.
    """
    handler = resolved.get(cls)
    if handler is None:
        handler = resolve(cls)
        if len(resolved) >= MANY_TYPES:
            forget()
        resolved[cls] = handler
    return handler


def resolve(cls: type) -> Handler:
    if cls in exact and not hooks:
        return exact[cls]
    extensions.load()
    if (stand_in := find_hook(cls)) is not None:
        return make_hooked(stand_in)
    if cls in exact:
        return exact[cls]
    refuse_what_is_used_up(cls)
    for base in cls.__mro__:
        handler = find_registered(base, is_exact=base is cls)
        if handler is not None:
            return handler
    for choose, familiar in fallbacks:
        handler = choose(cls)
        if handler is not None:
            if not familiar:
                unfamiliar.add(cls)
            return handler
    raise Indigestible(f"nothing is known about {describe_type(cls)}")


def refuse_what_is_used_up(cls: type) -> None:
    """Refuse what is read by being used: a digest would take it from the function.

    Raises:
        Indigestible: if ``cls`` is that of open files or iterators.
    """
    if issubclass(cls, (io.BytesIO, io.StringIO)):
        what, instead = "a file in memory", "what is in it, its getvalue()"
    elif issubclass(cls, io.IOBase):
        what, instead = "an open file", "its path, marked Content[Path], or what is in it"
    elif any("__next__" in vars(base) or "__anext__" in vars(base) for base in cls.__mro__):
        what, instead = "an iterator", "a list or another container instead"
    else:
        return
    raise Indigestible(
        f"{what} ({describe_type(cls)}) can only be read once, so it has no digest; pass {instead}"
    )


def find_hook(cls: type) -> Callable[[Any], Any] | None:
    """Return what makes a stand-in for objects of ``cls``: a hook or the class's own method."""
    for base in cls.__mro__:
        if base in hooks:
            return hooks[base]
        if "__digest__" in vars(base):
            return ask_for_digest
    return None


def find_registered(base: type, is_exact: bool) -> Handler | None:
    if base in inherited:
        return inherited[base]
    package = package_of(base) + ".*"
    name = base.__qualname__
    target, subclasses = named.get((module_of(base), name)) or named.get((package, name), NOT_NAMED)
    if target and (is_exact or subclasses) and is_genuine(base):
        module, _, function = target.partition(":")
        return getattr(import_module(f".{module}", __package__), function)  # type: ignore[no-any-return]
    return None


def is_genuine(cls: type) -> bool:
    """Whether the class is what one finds under its name, rather than one that borrowed it."""
    return getattr(sys.modules.get(module_of(cls)), cls.__qualname__, None) is cls


def module_of(cls: type) -> str:
    """Return the module that a class claims to be from; "" if it claims none."""
    module = getattr(cls, "__module__", None)
    return module if isinstance(module, str) else ""


def package_of(cls: type) -> str:
    """Return the top level package that a class claims to be from; "" if it claims none."""
    return module_of(cls).partition(".")[0]


def describe_type(cls: type) -> str:
    """Name a type for a person."""
    module = module_of(cls)
    return cls.__qualname__ if module in ("", "builtins") else f"{module}.{cls.__qualname__}"


def ask_for_digest(obj: Any) -> Any:
    return obj.__digest__()


def make_hooked(function: Callable[[Any], Any]) -> Handler:
    def describe(obj: Any, _walk: Walk) -> Node:
        stand_in = function(obj)
        if stand_in is obj:
            raise Indigestible("its hook returns the object itself, not what stands for it")
        return node(b"hook", (type(obj), stand_in))

    return describe


class Extensions:
    """Hooks that installed packages offer under the entry point group ``fleche.digest``.

    An entry point names a function without arguments, which calls :func:`add_hook`. All are called
    once, when the first object arrives that is not one of Python's own types.
    """

    def __init__(self) -> None:
        self.lock = renewed_after_fork(threading.RLock())
        self.loaded = False
        self.loading = False

    def forget_loading(self) -> None:
        """Begin anew in a forked child: the thread that was loading is not there."""
        self.loading = False

    def load(self) -> None:
        if self.loaded:
            return
        with self.lock:
            if self.loaded or self.loading:
                return
            self.loading = True
            try:
                self.run()
                self.loaded = True
            finally:
                self.loading = False

    def run(self) -> None:
        from importlib.metadata import entry_points

        before = set(hooks)
        for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
            try:
                entry.load()()
            except Exception as error:
                raise Indigestible(
                    f"the digest extension {entry.name!r} ({entry.value}) cannot be loaded "
                    f"({type(error).__name__}: {error}); mend or uninstall it"
                ) from error
            for cls in set(hooks) - before:
                if cls in exact:
                    del hooks[cls]
                    raise Indigestible(
                        f"the digest extension {entry.name!r} hooks {cls.__name__}, whose digests "
                        "may have been used already; extensions may hook other types only"
                    )


extensions = Extensions()

os.register_at_fork(after_in_child=extensions.forget_loading)

TABLE: tuple[tuple[str, bool, dict[str, str]], ...] = (
    ("_struct _stdlib", False, {"Struct": "struct"}),
    ("array _stdlib", False, {"array": "array"}),
    (
        "collections _stdlib",
        False,
        {
            "deque": "deque",
            "OrderedDict": "ordered_dict",
            "defaultdict": "default_dict",
            "Counter": "counter",
        },
    ),
    (
        "datetime _stdlib",
        False,
        {
            "date": "date",
            "time": "time",
            "datetime": "datetime",
            "timedelta": "timedelta",
            "timezone": "timezone",
        },
    ),
    ("decimal _stdlib", False, {"Decimal": "decimal", "Context": "decimal_context"}),
    ("fractions _stdlib", False, {"Fraction": "fraction"}),
    (
        "functools _stdlib",
        False,
        {
            "partial": "partial",
            "cached_property": "cached_property",
            "_lru_cache_wrapper": "lru_cache",
            "singledispatchmethod": "generic_method",
        },
    ),
    ("pathlib _stdlib", False, dict.fromkeys(PATHS, "path")),
    ("pathlib._local _stdlib", False, dict.fromkeys(PATHS, "path")),
    ("re _stdlib", False, {"Pattern": "pattern"}),
    ("uuid _stdlib", False, {"UUID": "uuid"}),
    ("zoneinfo _stdlib", False, {"ZoneInfo": "zoneinfo"}),
    (
        "typing _classes",
        False,
        {
            "ForwardRef": "forward_reference",
            "TypeVar": "type_variable",
            "Union": "union",
            "_UnionGenericAlias": "union",
        },
    ),
    ("annotationlib _classes", False, {"ForwardRef": "forward_reference"}),
    ("types _classes", False, {"UnionType": "union"}),
    (
        "numpy.* _numpy",
        True,
        {
            "ndarray": "array",
            "generic": "scalar",
            "dtype": "dtype",
            "ufunc": "ufunc",
            "vectorize": "vectorize",
            "MaskedArray": "masked",
            "BitGenerator": "bit_generator",
        },
    ),
    (
        "numpy.* _numpy",
        False,
        {
            "Generator": "generator",
            "RandomState": "random_state",
            "SeedSequence": "seed_sequence",
        },
    ),
    (
        "pandas.* _pandas",
        True,
        {
            "DataFrame": "frame",
            "Series": "series",
            "Index": "index",
            "ExtensionArray": "extension_array",
            "Timestamp": "timestamp",
            "Timedelta": "timedelta",
            "Period": "period",
            "Interval": "interval",
        },
    ),
    (
        "pandas.* _pandas",
        False,
        {
            "NaTType": "missing",
            "NAType": "missing",
            "CategoricalDtype": "categorical_dtype",
        },
    ),
    ("scipy.* _numpy", True, {"_spbase": "sparse", "spmatrix": "sparse"}),
    ("pydantic.* _objects", False, {"Decorator": "validator", "ModelPrivateAttr": "private_field"}),
)
"""Types known by name: their module and the room of their handlers, whether subclasses are meant,
and for each name the handler without its ``describe_``.

A type of numpy or pandas may live in any module of the package, since that differs between
versions.
"""

for place, with_subclasses, rows in TABLE:
    home, room = place.split()
    for qualname, handler_name in rows.items():
        register_name(home, qualname, f"{room}:describe_{handler_name}", subclasses=with_subclasses)
