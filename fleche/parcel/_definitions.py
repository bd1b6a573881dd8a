"""Classes and functions of ``__main__``: named in a stream, found again where it is opened.

What no module has under its name (a class of a script or notebook, of a function's locals, a
lambda) is written as its name and its code digest. Where a process has the same name with the same
code digest, that very object is used, so that ``is``, ``isinstance``, ``==`` and ``match`` hold.
Elsewhere it is built from its definition, which the parcel holds by value beside the stream: apart
from everything alive, and once for each name and code digest in a process, so that two values
opened one after the other are of one class. Opening a value never changes a class or function that
was there before.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import io
import logging
import operator
import os
import pickle
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, WeakValueDictionary

from fleche._util import attempt, warn_caller
from fleche.digest import (
    HEAP,
    array_of,
    code_digest,
    digest,
    made_by_clock,
    members_of,
    take_code,
    told_of_code,
    told_to,
)
from fleche.errors import Indigestible, UnpackError
from fleche.parcel._layout import ClassName
from fleche.parcel._source import Buffer

__all__ = [
    "Loader",
    "Named",
    "born",
    "cached_property",
    "class_apart",
    "class_named",
    "code_with_source",
    "function_named",
    "generic_method",
    "type_named",
]

log = logging.getLogger("fleche.parcel")

MAIN = ("__main__", "__mp_main__")
_LARGEST = 16 << 20
"""Bytes of a definition; a class whose methods use larger global data is not stored by value."""

Built: TypeAlias = Any
"""A class or function."""


def is_interactive(obj: Any) -> bool:
    """Return whether a class or plain function has no name under which other processes find it."""
    module, qualname = getattr(obj, "__module__", None), obj.__qualname__
    if module in MAIN:
        return True
    if not isinstance(module, str):
        return isinstance(obj, types.FunctionType) and not _is_in_any_module(obj, qualname)
    if isinstance(obj, type) and not obj.__flags__ & HEAP:
        return False  # of C: not made at run time
    if module not in sys.modules:
        try:
            importlib.import_module(module)
        except Exception:  # noqa: BLE001 - whatever a module raises, the name leads nowhere
            return True
    return _look_up(module, qualname) is not obj


def _is_in_any_module(obj: Any, qualname: str) -> bool:
    """Return whether a loaded module has an object, of those whose names pickle would write.

    Modules that make what they are asked for are not asked (``torch.classes`` has every name).
    """
    first, _, rest = qualname.partition(".")
    for name, module in list(sys.modules.items()):
        if name not in MAIN and isinstance(module, types.ModuleType) and first in vars(module):
            found = vars(module)[first]
            if (_look_up_in(found, rest) if rest else found) is obj:
                return True
    return False


def _look_up(module: str, qualname: str) -> Any:
    return _look_up_in(sys.modules.get(module), qualname)


def _look_up_in(found: Any, qualname: str) -> Any:
    for part in qualname.split("."):
        if part == "<locals>":
            return None
        found = attempt(getattr, found, part)
    return found


# -- code digests ----------------------------------------------------------------------------------

_codes: WeakKeyDictionary[type, tuple[Any, str]] = WeakKeyDictionary()
"""Code digests of classes, with what was looked at to find them."""


def code_of(obj: Built) -> str:
    """Return the code digest of a class or function: what it does, without what it uses.

    A class is known by its methods and its namespace. What changes while a program runs does not
    count: containers, and attributes that the methods assign.
    """
    if not isinstance(obj, type):
        return _function_code(obj)
    seen = _seen_of(obj)
    known = _codes.get(obj)
    if known is None or known[0] != seen:
        known = _codes[obj] = (seen, _class_code(obj))
    return known[1]


def _function_code(function: types.FunctionType) -> str:
    try:
        return str(code_digest(function))
    except Indigestible:
        return str(digest(("bytecode", function.__code__)))


def _class_code(cls: type) -> str:
    members, made = members_of(cls)
    members.update(made_by_clock(cls, members))
    written = _assigned_names(cls)
    body = {
        name: _digest_of(value, name in written)
        for name, value in sorted(members.items())
        if name != "__annotations__" and not (name in written and not callable(value))
    }
    bases = [_code_of_class(base) for base in cls.__bases__ if base is not object]
    told = [(name, _digest_of(value)) for name, value in sorted(told_to(cls, made).items())]
    meta = type(cls)
    kind = "EnumMeta" if meta.__module__ == "enum" else meta.__qualname__  # renamed in Python 3.11
    return str(digest(["class", cls.__qualname__, kind, bases, told, body]))


def _code_of_class(cls: type) -> str:
    return code_of(cls) if is_interactive(cls) else f"{cls.__module__}:{cls.__qualname__}"


def _module_of(obj: Built) -> str:
    """Return the module of a class or function; the main one has one name in all processes."""
    module = obj.__module__
    return "__main__" if module in MAIN or not module else str(module)


def _digest_of(value: Any, is_state: bool = False) -> str:
    """Return the digest of something in a namespace; that of its type if it has no other."""
    kind = type(value).__qualname__
    if isinstance(value, type):
        return f"{_module_of(value)}:{value.__qualname__}"
    functions = list(_functions_in(value))
    if functions:
        return " ".join([kind, *map(_function_code, functions)])
    if is_state or isinstance(value, (dict, list, set)):
        return f"a {kind}"
    try:
        return str(digest(value))
    except Exception:  # noqa: BLE001 - whatever it raises, it has no digest
        return f"a {kind}"


def _assigned_names(cls: type) -> set[str]:
    """Return the names of attributes that the methods of a class assign."""
    import dis

    data = {name for name, value in vars(cls).items() if not callable(value)}
    found: set[str] = set()
    for function in _functions_of(cls):
        code = function.__code__
        if not data.isdisjoint(code.co_names):
            found.update(
                step.argval for step in dis.get_instructions(code) if step.opname == "STORE_ATTR"
            )
    return found


def _functions_of(cls: type) -> Iterator[types.FunctionType]:
    for value in vars(cls).values():
        yield from _functions_in(value)


def _functions_in(value: Any) -> Iterator[types.FunctionType]:
    """Yield a function, and those of a method or property."""
    yield from (
        found
        for found in (
            value,
            *(getattr(value, name, None) for name in ("__func__", "fget", "fset", "fdel")),
        )
        if isinstance(found, types.FunctionType)
    )


def _seen_of(cls: type) -> Any:
    """Return what tells that a class is as it was; it holds nothing that holds the class."""
    own = [(name, _fingerprint(value)) for name, value in vars(cls).items()]
    bases = [_seen_of(base) for base in cls.__bases__ if base.__module__ in MAIN]
    return (own, bases)


def _fingerprint(value: Any) -> Any:
    function = getattr(value, "__func__", value)
    if isinstance(function, types.FunctionType):
        return (function.__code__, id(function))
    if isinstance(value, (int, float, str, bytes, type(None))):
        return (type(value), value)
    return id(value)


# -- writing ---------------------------------------------------------------------------------------


class Named:
    """Collects the classes and functions that one stream names."""

    def __init__(self) -> None:
        self._found: dict[ClassName, Built] = {}

    def reduce(self, obj: Built) -> Any:
        """Return how a pickler writes ``obj``: by its name if it is interactive."""
        if isinstance(obj, type) and (array := array_of(obj)) is not None:
            return operator.mul, array
        if not is_interactive(obj):
            return _reduce_type(obj) if obj.__module__ == "builtins" else NotImplemented
        name = ClassName(_module_of(obj), obj.__qualname__, code_of(obj))
        self._found[name] = obj
        if isinstance(obj, type):
            _seen[name] = obj
            return class_named, tuple(name)
        return function_named, tuple(name)

    @property
    def names(self) -> tuple[ClassName, ...]:
        """All that was named, sorted."""
        return tuple(sorted(self._found))

    def definitions(self) -> bytes:
        """Return what was found by value, with what that uses in turn; empty if there is none.

        Raises:
            Exception: what cloudpickle raises for a local function or class that it cannot take;
                what has a name may do without a definition.
        """
        done: dict[ClassName, bytes] = {}
        tried: set[ClassName] = set()
        while pending := self._found.keys() - tried:
            for name in sorted(pending):
                tried.add(name)
                try:
                    content = _by_value(name, self._found[name], self)
                except Exception as error:
                    if "<" in name.qualname:
                        raise
                    log.debug("%s cannot be stored by value: %s", name.qualname, error)
                    continue
                if len(content) <= _LARGEST:
                    done[name] = content
        return pickle.dumps({tuple(name): done[name] for name in sorted(done)}, 5) if done else b""


def _reduce_type(obj: type) -> Any:
    """Reduce a type of Python's own, which pickle finds among the builtins only."""
    if getattr(builtins, obj.__qualname__, None) is obj:
        return NotImplemented
    names = [name for name, found in vars(types).items() if found is obj]
    return (type_named, (min(names),)) if names else NotImplemented


def _by_value(name: ClassName, obj: Built, named: Named) -> bytes:
    file = io.BytesIO()
    _definition_pickler()(file, name, obj, named).dump(obj)
    return file.getvalue()


@functools.cache
def _definition_pickler() -> Any:
    """Return cloudpickle's pickler, changed to write one thing by value and others by name."""
    import cloudpickle

    class DefinitionPickler(cloudpickle.Pickler):  # type: ignore[misc]
        def __init__(self, file: io.BytesIO, name: ClassName, root: Built, named: Named) -> None:
            super().__init__(file, protocol=5)
            self._name, self._root, self._named = name, root, named

        def reducer_override(self, obj: Any) -> Any:
            if obj is self._root:
                make, args, *rest = _reduce_by_value(self, obj)
                return born, (tuple(self._name), make, args), *rest
            if type(obj) in _PARTS:
                return _PARTS[type(obj)](obj)
            if isinstance(obj, (type, types.FunctionType)) and not self._is_method(obj):
                reduced = self._named.reduce(obj)
                if reduced is not NotImplemented and reduced[0] in (class_named, function_named):
                    return (class_apart, reduced[1]) if self._would_notice(obj) else reduced
            return super().reducer_override(obj)

        def _would_notice(self, obj: Any) -> bool:
            """Return whether making the class runs code of ``obj``, which may keep a register."""
            root = self._root
            if not (isinstance(root, type) and isinstance(obj, type)):
                return False
            return obj is type(root) or (obj in root.__mro__ and _acts_on_subclasses(obj))

        def _is_method(self, obj: Any) -> bool:
            """Return whether a function belongs to the body of the class."""
            return (
                isinstance(obj, types.FunctionType)
                and obj.__module__ == self._root.__module__
                and obj.__qualname__.startswith(f"{self._root.__qualname__}.")
            )

    return DefinitionPickler


def _reduce_property(obj: Any) -> Any:
    """Leave the lock behind that a cached property has in some versions."""
    return cached_property, (obj.func, obj.attrname)


def _reduce_generic(obj: Any) -> Any:
    """Leave behind what a method with implementations by type has looked up."""
    return generic_method, (obj.func, list(obj.dispatcher.registry.items()))


def _reduce_code(obj: types.CodeType) -> Any:
    """Keep the source of a code object, by which a function counts."""
    import cloudpickle

    make, args = cloudpickle.Pickler.dispatch_table[types.CodeType](obj)
    told = told_of_code(obj)
    return (make, args) if told is None else (code_with_source, (make, args, told))


_PARTS: dict[type, Callable[[Any], Any]] = {
    functools.cached_property: _reduce_property,
    functools.singledispatchmethod: _reduce_generic,
    types.CodeType: _reduce_code,
}
"""How parts of a definition are written that cloudpickle could not take, or not in full."""


def _acts_on_subclasses(cls: type) -> bool:
    """Return whether code of the program runs when a class is derived from ``cls``."""
    acting = (base for base in cls.__mro__ if "__init_subclass__" in vars(base))
    return is_interactive(type(cls)) or any(map(is_interactive, acting))


def _reduce_by_value(pickler: Any, obj: Built) -> Any:
    from cloudpickle import cloudpickle

    if isinstance(obj, types.FunctionType):
        return pickler._dynamic_function_reduce(obj)  # noqa: SLF001 - cloudpickle's own way
    make, args, *rest = cloudpickle._dynamic_class_reduce(obj)  # noqa: SLF001
    # the last but one is the id by which cloudpickle would find, and change, a class alive
    return make, (*args[:-2], None, args[-1]), *rest


# -- reading ---------------------------------------------------------------------------------------

_built: WeakValueDictionary[ClassName, Any] = WeakValueDictionary()
"""What was built by value in this process."""

_seen: WeakValueDictionary[ClassName, Any] = WeakValueDictionary()
"""Classes of this process that no name leads to, where they were met last."""

_told: set[ClassName] = set()


class _Lock:
    """The lock under which things are built, one at a time."""

    held = threading.RLock()

    @classmethod
    def forked(cls) -> None:
        cls.held = threading.RLock()


os.register_at_fork(after_in_child=_Lock.forked)


class Loader:
    """Finds what the stream of one parcel names.

    Args:
        read: returns the definitions of the parcel; empty if it has none.
        load: unpickles a definition with this loader.
    """

    def __init__(
        self, read: Callable[[], Buffer], load: Callable[[Buffer, Loader], Any] | None = None
    ) -> None:
        self._read = read
        self._load = load
        self._definitions: Mapping[tuple[str, ...], bytes] | None = None
        self._building: dict[ClassName, Any] = {}
        self._different: list[ClassName] = []

    def find(self, name: ClassName, is_class: bool, *, apart: bool = False) -> Any:
        """Return the class or function of that name and code.

        Args:
            name: of it.
            is_class: whether it is a class.
            apart: do not take one that the program itself has made.

        Raises:
            UnpackError: it is not here, and the parcel does not hold it by value.
        """
        live = None if apart else _live(name, is_class)
        if live is not None and code_of(live) == name.code:
            return live
        with _Lock.held:
            found = self._building.get(name, _built.get(name))
            if found is None and is_class and not apart:
                found = _search(name)
            if found is None:
                found = self._build(name)
        if live is not None:
            self._different.append(name)
        return found

    def _build(self, name: ClassName) -> Any:
        if self._definitions is None:
            content = self._read()
            self._definitions = pickle.loads(content) if content else {}
        definition = self._definitions.get(tuple(name))
        if definition is None or self._load is None:
            raise UnpackError(
                f"it needs {name.qualname!r} of {name.module}, which is not here as it was then; "
                "define it in a module that both can import"
            )
        found = self._load(definition, self)
        _built[name] = found
        self._building.pop(name, None)
        return found

    def born(self, name: tuple[str, str, str], make: Callable[..., Any], args: Any) -> Any:
        """Make a class or function whose body is still to come, and be found for its own name."""
        found = ClassName(*name)
        made = self._building[found] = make(*args)
        if isinstance(made, type):  # one that is new has no more than its name
            made.__qualname__ = found.qualname
        return made

    def tell(self) -> None:
        """Warn, once for each, of what has another body in this program."""
        if not self._different:
            return
        new = [name for name in self._different if name not in _told]
        if not new:
            return
        _told.update(new)
        shown = ", ".join(dict.fromkeys(repr(name.qualname) for name in reversed(new)))
        warn_caller(
            f"a stored value uses {shown} of {new[0].module} as it was when the value was stored, "
            "and that has changed since. The value was opened with the old definition: "
            "isinstance(), == and match with yours do not hold. Compute it again, or put the "
            "definition into a module"
        )


def _live(name: ClassName, is_class: bool) -> Any:
    for module in MAIN if name.module in MAIN else (name.module,):
        found = _look_up(module, name.qualname)
        if isinstance(found, type if is_class else types.FunctionType):
            return found
    return None


def _search(name: ClassName) -> type | None:
    """Return the newest class of this process that is the one, wherever it is."""
    known = _seen.get(name)
    if known is not None and code_of(known) == name.code:
        return known  # type: ignore[no-any-return]
    seen: set[int] = set()  # a class need not have a hash
    found: list[type] = []
    pending: list[type] = [object]
    while pending:
        cls = pending.pop()
        if id(cls) in seen:
            continue
        seen.add(id(cls))
        pending += type.__subclasses__(cls)
        if cls.__qualname__ == name.qualname:
            module = cls.__module__
            if module == name.module or (module in MAIN and name.module in MAIN):
                found.append(cls)
    for cls in found:
        if code_of(cls) == name.code:
            _seen[name] = cls
            return cls
    return None


def class_named(module: str, qualname: str, code: str) -> Any:
    """Return a class of this process; a stream names it so."""
    return Loader(bytes).find(ClassName(module, qualname, code), is_class=True)


def class_apart(module: str, qualname: str, code: str) -> Any:
    """Return a class that nothing of the program uses; a definition names a base so."""
    return Loader(bytes).find(ClassName(module, qualname, code), is_class=True, apart=True)


def function_named(module: str, qualname: str, code: str) -> Any:
    """Return a function of this process; a stream names it so."""
    return Loader(bytes).find(ClassName(module, qualname, code), is_class=False)


def type_named(name: str) -> Any:
    """Return a type of Python's own that is no builtin; a stream names it so."""
    return getattr(types, name)


def cached_property(function: Callable[[Any], Any], name: str) -> Any:
    """Return a cached property of that name; a definition names it so."""
    found: Any = functools.cached_property(function)
    found.attrname = name
    return found


def generic_method(function: Any, registry: list[tuple[type, Any]]) -> Any:
    """Return a method with implementations by type; a definition names it so."""
    found: Any = functools.singledispatchmethod(function)
    for cls, implementation in registry:
        if cls is not object:
            found.register(cls, implementation)
    return found


def code_with_source(make: Callable[..., Any], args: Any, told: Any) -> Any:
    """Return a code object that has come with its source; a definition names it so."""
    code = make(*args)
    take_code(code, told)
    return code


def born(name: tuple[str, str, str], make: Callable[..., Any], args: Any) -> Any:  # noqa: ARG001
    """Make a class or function; a definition names it so."""
    return make(*args)


for _function in (
    born,
    cached_property,
    class_apart,
    class_named,
    code_with_source,
    function_named,
    generic_method,
    type_named,
):
    _function.__module__ = "fleche.parcel"
