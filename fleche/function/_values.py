"""Values of variables, as tokens: text that is equal for equal values.

A value that is data counts by its digest. Containers of functions, classes and objects of the
user's own are looked into, since a digest of the whole would not see through them: what is found
counts as code. What has no digest counts by its type.
"""

from __future__ import annotations

import builtins
import gc
import os
import sys
import weakref
from collections import ChainMap, OrderedDict, UserDict, UserList, UserString, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache, partial, partialmethod, singledispatchmethod
from operator import attrgetter, methodcaller
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    GenericAlias,
    MappingProxyType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

from blake3 import blake3

from fleche._util import loaded_types
from fleche.digest import (
    BufferDigests,
    Digest,
    attributes_of,
    captured_by,
    defaults_of,
    digest,
    digest_with_buffers,
    find_name,
    steady,
)
from fleche.function._code import code_of
from fleche.function._filling import fillings
from fleche.function._kinds import (
    CONTAINERS,
    IMMUTABLE,
    OF_CONTEXT,
    PLAIN,
    OwnKind,
    attribute_of,
    full_name,
    inner_function,
    is_by_type,
    is_frozen,
    is_interface,
    own_kind,
)
from fleche.function._libraries import (
    SUFFIXES,
    is_native,
    libraries_named,
    library_of,
    made_of,
    set_types,
)
from fleche.function._masks import Masks, is_namespace, step_of
from fleche.function._own import (
    is_made_here,
    is_made_in_c,
    is_own_module,
    is_own_namespace,
    is_own_object,
)
from fleche.function._recheck import Snapshot
from fleche.function._signature import Transparent
from fleche.function._trees import Chain, names_in_format
from fleche.function._visits import Visits, in_order
from fleche.function._whole import digest_of_file

__all__ = [
    "GETTERS",
    "Values",
    "hashed",
    "name_of",
    "names_of_getter",
    "needs_maker",
    "token_of_installed",
]

GETTERS = (attrgetter, methodcaller)
SMALL = 64
MANY_HELD = 1000

OTHER_CONTAINERS = frozenset(
    [
        "collections.Counter",
        "collections.OrderedDict",
        "collections.defaultdict",
        "collections.deque",
    ]
)
OPEN: dict[type, str] = {
    SimpleNamespace: "namespace",
    ChainMap: "ChainMap",
    UserDict: "UserDict",
    UserList: "UserList",
    UserString: "UserString",
}
"""Types all of whose content is in the attributes of their objects, with a name for each."""

UNCHANGING = (tuple, frozenset, str, int, float, bytes)
"""Types whose objects never hold anything else, and those of classes derived from them."""


def hashed(*parts: str) -> str:
    raw = "\0".join(f"{len(part)}:{part}" for part in parts)
    return blake3(raw.encode("utf-8", "surrogatepass")).hexdigest()


class Values:
    """Makes tokens.

    Args:
        refer: returns the token of a function, class or module of the user's own; it is told the
            names that an ``attrgetter`` or ``methodcaller`` gets, too.
        here: the directory that paths are taken relative to; "" for none.
        fills: returns the attributes that methods of a class fill when they are first wanted.
        after: leave out those that did not count before, whose :attr:`counted` this is.
        masks: chains of steps to parts of objects that do not count, by the id of the object.

    Attributes:
        mutable: whether something was met that can change in place.
        opaque: the types of what has no digest.
        unsteady: the types among them whose objects have another digest each time.
        by_maker: whether a function was met that :func:`needs_maker`.
        counted: attributes that methods fill, and in which there was something else; by the id of
            the object and the name.
        filled: objects, attributes and what methods have put there, as far as that is new.
        snapshot: what the containers held that were looked into.
    """

    def __init__(
        self,
        refer: Callable[[Any], str],
        here: str = "",
        fills: Callable[[type], Mapping[str, bool]] = lambda _: {},
        after: Collection[tuple[int, str]] | None = None,
        masks: Mapping[int, set[Chain]] | None = None,
    ) -> None:
        self.refer = refer
        self.masks = Masks(masks)
        self.here = here
        self.fills = fills
        self.after = after
        self.mutable = False
        self.opaque: list[str] = []
        self.unsteady: list[str] = []
        self.by_maker = False
        self.counted: set[tuple[int, str]] = set()
        self.filled: list[tuple[Any, str, Any]] = []
        self.snapshot = Snapshot()
        self._visits = Visits()
        self._kinds: dict[int, OwnKind] = {}

    def token(self, value: Any) -> str:
        """Return the token of a value."""
        kind = type(value)
        if kind is str:
            return self.text(value)
        if kind in IMMUTABLE:
            if kind is bytes and len(value) > 200:
                return f"bytes {digest(value)!s}"
            return f"{kind.__name__} {hex(value) if kind is int else repr(value)}"
        visits = self._visits
        if known := visits.reference(value):
            return known
        is_begun, visits.is_begun = visits.is_begun, True
        entered, token = visits.enter(value), None
        try:
            token = self.described(value, kind)
            visits.leave(entered, value, token)
            return token if is_begun else self.completed(token)
        finally:
            if token is None:
                visits.leave(entered, value, None)
            if not is_begun:
                visits.is_begun = False
                visits.forget()

    def completed(self, token: str) -> str:
        """Return the token of a value with what lies deep in it."""
        deep: list[str] = []
        while waiting := self._visits.waiting():
            deep += map(self.token, waiting)
        return hashed(token, *deep) if deep else token

    def text(self, value: str) -> str:
        for name in names_in_format(value) if "{" in value else ():
            self.refer(sys.intern(name))
        for file in libraries_named([value], self.here) if value.endswith(SUFFIXES) else ():
            return f"library {os.path.basename(file)} {digest_of_file(file)}"
        if self.here and value.startswith(self.here):
            rest = value[len(self.here) :]
            if not rest or rest.startswith(os.sep):
                return f"here {rest}"
        return f"str {value!r}" if len(value) <= 200 else f"str {digest(value)!s}"

    def described(self, value: Any, kind: type) -> str:
        # up to Python 3.10, list[int] says that it is a class
        if isinstance(value, (FunctionType, type, ModuleType)) and kind is not GenericAlias:
            if kind is FunctionType:
                self.by_maker |= needs_maker(value)
            return self.refer(value)
        if isinstance(value, Transparent):
            return self.decorated(value)
        if kind in CONTAINERS or full_name(kind) in OTHER_CONTAINERS:
            return self.container(value, kind)
        enum = sys.modules.get("enum")
        if enum is not None and issubclass(kind, enum.Enum):
            return f"enum {self.token(kind)} {value._name_} {self.token(value._value_)}"
        if is_native(kind):  # among them classes that ctypes makes for the program
            return self.native(value)
        if is_own_object(kind):
            return self.own_instance(value, kind)
        if kind in OPEN or is_namespace(kind):
            self.masks.move(value, vars(value))
            return self.joined(OPEN.get(kind, kind.__name__), (vars(value),))
        if (describe := description_of(kind)) is not None:
            return describe(self, value)
        return self.instance(value, kind)

    def joined(self, label: str, parts: Iterable[Any]) -> str:
        return hashed(label, *map(self.token, parts))

    def copied(self, label: str, content: Any) -> str:
        """Return the token of what is looked at as a copy, which no snapshot can follow."""
        self.snapshot.is_partial = True
        self.mutable = True
        return self.joined(label, (content,))

    def decorated(self, value: Any) -> str:
        """Return what the key of a decorated function says of it: its version, or its code."""
        spec = value.spec
        lead = self.joined("lead", value.lead)
        if spec.hashes_code:
            return hashed("fleche", self.token(spec.function), lead, *spec.extra_tokens())
        name = f"{spec.info.module}.{spec.info.name}"
        return hashed("version", name, repr(spec.options.version), lead, *spec.extra_tokens())

    def builtin(self, value: Any) -> str:
        owner = value.__self__
        if owner is None or isinstance(owner, ModuleType):
            module = value.__module__ or getattr(owner, "__name__", "")
            if isinstance(owner, ModuleType) and is_own_namespace(vars(owner)):
                return hashed("native", self.refer(owner), value.__qualname__)
            return f"name {module}.{value.__qualname__}"
        return self.method(value) or f"method {self.token(owner)} {value.__name__}"

    def method(self, value: Any) -> str:
        """Return the name of a method that an installed module has as a function, or ""."""
        owner, name = type(value.__self__), getattr(value, "__name__", "")
        found = getattr(sys.modules.get(owner.__module__), "__dict__", {}).get(name)
        if type(found) is type(value) and found == value and not is_own_object(owner):
            return f"name {owner.__module__}.{name}"
        return ""

    def getter(self, value: Any) -> str:
        """Return the token of an object that gets attributes, or calls a method, by name."""
        for name in names_of_getter(value):
            self.refer(name)
        return self.leaf(value)

    def container(self, value: Any, kind: type) -> str:
        if kind not in (tuple, frozenset):
            self.mutable = True
        is_masked = value in self.masks
        if kind in CONTAINERS and not is_masked and self.is_plain(value):
            return self.plain(value, kind)
        if isinstance(value, dict):
            self.snapshot.mapping(value)
            extra = [getattr(value, "default_factory", None)]
            items = list(value.items())
            if is_masked:
                items = self.masks.without(value, [(step_of(key), key, p) for key, p in items])
            parts = [self.token(part) for item in items for part in item]
            return hashed(full_name(kind), *map(self.token, extra), *parts)
        is_set = isinstance(value, (set, frozenset))
        items = list(enumerate(in_order(value) if is_set else value))
        if is_masked:
            items = self.masks.without(value, [(step_of(place), place, p) for place, p in items])
        parts = [self.token(part) for _, part in items]
        if isinstance(value, deque) and value.maxlen is not None:
            parts.append(f"of {value.maxlen}")
        if is_set:
            parts.sort()
            self.snapshot.members(value)
        elif kind is not tuple:
            self.snapshot.sequence(value)
        return hashed(full_name(kind), *parts)

    def plain(self, value: Any, kind: type) -> str:
        """Return the token of plain data, which the digest reads faster than a snapshot could."""
        token = f"{kind.__name__} {digest(value)!s}"
        if is_unchanging(value):
            return token
        self.mutable = True
        if not is_small(value):
            self.snapshot.leaf(value, token)
        elif kind is dict:
            self.snapshot.mapping(value)
        elif kind is list:
            self.snapshot.sequence(value)
        else:
            self.snapshot.members(value)
        return token

    def is_plain(self, value: Any) -> bool:
        """Whether a container holds plain data only, and no text that may be a path."""
        pending, seen = [value], set()
        while pending:
            item = pending.pop()
            if id(item) in seen:
                continue
            seen.add(id(item))
            parts = [*item, *item.values()] if type(item) is dict else item
            kinds = set(map(type, parts))
            if str in kinds and self.here and any(self.is_here(part) for part in parts):
                return False
            if not kinds - PLAIN:
                continue
            if not kinds - PLAIN - {*CONTAINERS}:
                pending += [part for part in parts if type(part) in CONTAINERS]
                continue
            return False
        return True

    def is_here(self, value: Any) -> bool:
        return type(value) is str and value.startswith(self.here)

    def native(self, value: Any) -> str:
        """Return the token of a shared library, or of a function of one."""
        self.mutable = True
        self.snapshot.is_partial = True
        parts = [*map(self.token, made_of(value))]
        if (file := library_of(value)) is None:
            return hashed("native", *parts, self.types_set(value))
        functions = [(name, name, part) for name, part in sorted(vars(value).items())]
        found = [(name, self.types_set(one)) for name, one in self.masks.without(value, functions)]
        return hashed("library", file, *parts, *(part for one in found if one[1] for part in one))

    def types_set(self, function: Any) -> str:
        """Return the token of the types that the program has set of a function in C, or ""."""
        if not is_native(type(function)) or library_of(function) is not None:
            return ""
        named = [(name, name, part) for name, part in set_types(function)]
        found = self.masks.without(function, named)
        return self.joined("types", (found,)) if found else ""

    def instance(self, value: Any, kind: type) -> str:
        """Return the token of an object of an installed class."""
        pathlib = sys.modules.get("pathlib")
        if pathlib is not None and issubclass(kind, pathlib.PurePath):
            return f"{kind.__name__} {self.text(str(value))}"
        if full_name(kind) in OF_CONTEXT:
            return self.copied(full_name(kind), held_here(value))
        if (parts := queued_or_weak(value)) is not None:
            self.follow_held(parts)
            self.opaque.append(full_name(kind))
            return f"type {full_name(kind)}"
        if is_by_type(kind):
            return f"type {full_name(kind)}"
        if kind.__module__ == "re" and kind.__name__ == "Pattern":
            return self.joined("pattern", (value.pattern, int(value.flags)))
        registry = attribute_of(value, "registry")
        if isinstance(registry, MappingProxyType):
            return self.copied(kind.__name__, dict(registry))
        inner = inner_function(value)
        return self.leaf(value) if inner is None else self.wrapper(value, kind, inner)

    def wrapper(self, value: Any, kind: type, inner: Any) -> str:
        """Return the function that an object of an installed class is made of, and what with."""
        self.mutable = True
        token = hashed(full_name(kind), self.token(inner), self.parameters(value, kind))
        self.snapshot.leaf(value, token)
        return token

    def parameters(self, value: Any, kind: type) -> str:
        """Return the digest of what wraps a function, or "" if it has none.

        Of a class that no handler knows, what stands between two underscores is left out: most of
        it is taken over from the function, documentation among it.
        """
        try:
            found, met = digest_with_buffers(value, BufferDigests(self.code_token))
            if kind not in met.unfamiliar:
                return found
            reduced = value.__reduce_ex__(4)
        except Exception:  # noqa: BLE001 (what an object raises when it is looked into)
            return ""
        inside = Values(self.refer, self.here, self.fills, self.after)
        inside.masks, inside._visits = self.masks, self._visits
        return "" if isinstance(reduced, str) else inside.token(undocumented(reduced[1:3]))

    def own_instance(self, value: Any, kind: type) -> str:
        """Return class and attributes, without what methods have filled."""
        self.mutable = True
        cls, own = self.refer(kind), self.own_kind(kind)
        if own.takes_digest:
            self.snapshot.is_partial = True
            return hashed(cls, self.leaf(value))
        base, left_out = own.base, own.left_out
        try:
            held, space = attributes_of(value, beyond=base), getattr(value, "__dict__", None)
        except Exception:  # noqa: BLE001 (what an object raises when it is looked into)
            return hashed("object", cls, self.by_type(value, kind))
        attributes = {n: own.seen(n, p) for n, p in sorted(held.items()) if n not in left_out}
        self.leave_out_filled(value, own, attributes)
        named = [(name, name, part) for name, part in attributes.items()]
        attributes = dict(self.masks.without(value, named))
        if type(space) is dict:
            self.snapshot.mapping(space)
        elif space:
            self.snapshot.is_partial = True
        # of slots no container is at hand
        self.snapshot.instance(value, base, held if len(space or ()) < len(held) else None)
        told = [hashed(name, self.token(part)) for name, part in attributes.items()]
        if base is object or base in OPEN or is_interface(base):
            return hashed("object", cls, *told)
        content = self.content(value, kind)
        if content is None:
            return hashed("object", cls, self.leaf(value))
        if not issubclass(kind, (*UNCHANGING, dict)) or issubclass(kind, OrderedDict):
            self.snapshot.is_partial = True
        return hashed("object", cls, content, *told)

    def leave_out_filled(self, value: Any, own: OwnKind, attributes: dict[str, Any]) -> None:
        """Take those attributes away that methods have filled, or that hold nothing yet."""
        for name in sorted(own.cached & attributes.keys()):
            if self.is_filled_by_method(value, name, attributes[name]):
                del attributes[name]
        for name, is_flag in self.fills(own.cls).items():
            if name in attributes and self.is_unfilled(value, name, attributes[name], is_flag):
                del attributes[name]

    def own_kind(self, kind: type) -> OwnKind:
        """Return how objects of a class of the user's own are looked at."""
        found = self._kinds.get(id(kind))
        if found is None:
            found = self._kinds[id(kind)] = own_kind(kind, is_special=is_special(kind))
        return found

    def content(self, value: Any, kind: type) -> str | None:
        """Return what an object holds as one of a base from Python itself, if that is known."""
        if (describe := description_of(kind)) is not None:
            return describe(self, value)
        if is_special(kind):
            self.follow_held(queued_or_weak(value) or ())
            return "type"
        if issubclass(kind, dict):
            return self.content_of_dict(value)
        for plain in (list, tuple, set, frozenset, str, int, float, bytes):
            if issubclass(kind, plain):
                return self.token(plain(value))
        return self.token(value.args) if issubclass(kind, BaseException) else None

    def content_of_dict(self, value: dict[Any, Any]) -> str:
        """Return what an object holds as a dict, whatever its class makes of asking for it."""
        self.snapshot.items(value)
        content = dict(dict.items(value))
        parts = {*map(type, content), *map(type, content.values())}
        if parts <= PLAIN and self.is_plain(content):
            return f"dict {digest(content)!s}"  # what its views show is all there is to see
        return self.token(content)

    def is_unfilled(self, obj: Any, name: str, part: Any, is_flag: bool) -> bool:
        """Whether an attribute holds nothing yet, or what a method has put there."""
        if part is None or (is_flag and part is False):
            return True
        if type(part) in (dict, list, set) and not part:
            self.token(part)  # for the snapshot, which is to see when there is something in it
            return True
        return self.is_filled_by_method(obj, name, part)

    def is_filled_by_method(self, obj: Any, name: str, part: Any) -> bool:
        """Whether an attribute holds what a method has put there while a body ran."""
        if fillings.holds(obj, name, part):
            return True
        if self.after is not None and (id(obj), name) not in self.after:
            self.filled.append((obj, name, part))
            return True
        self.counted.add((id(obj), name))
        return False

    def leaf(self, value: Any) -> str:
        """Return the digest of a value, or its type if it has none."""
        kind = type(value)
        try:
            token = f"{full_name(kind)} {self.steady_digest(value)!s}"
        except Unsteady:
            self.opaque.append(full_name(kind))
            self.unsteady.append(full_name(kind))
            return f"type {full_name(kind)}"
        except Exception:  # noqa: BLE001 (what an object raises when it is looked into)
            return self.by_type(value, kind)
        if not is_frozen(kind):
            self.mutable = True
            self.snapshot.leaf(value, token, is_digested=True)
        return token

    def by_type(self, value: Any, kind: type) -> str:
        """Return the token of something that has no digest: its type, and what code it holds."""
        held = self.follow_held([] if is_running(value) else gc.get_referents(value), kind)
        token = f"type {full_name(kind)}"
        if held and is_made_in_c(kind):  # what Python makes may hold more as time goes by
            token = hashed(token, *held)
        self.opaque.append(full_name(kind))
        if not is_frozen(kind):
            self.mutable = True
            self.snapshot.leaf(value, token)
        return token

    def follow_held(self, parts: Iterable[Any], besides: type | None = None) -> list[str]:
        """Follow the code in what cannot be looked at as a whole, and return the tokens of it."""
        return [self.token(code) for code in code_held(parts) if code is not besides]

    def steady_digest(self, value: Any) -> Digest:
        """Return the digest of a value, if it has the same one when it is taken again.

        That is tried once for each class that no handler knows. The digest of a figure of
        matplotlib, for one, changes whenever it is looked at.

        Raises:
            Unsteady: it has another one each time.
            Exception: it has none.
        """
        found, met = digest_with_buffers(value, BufferDigests(self.code_token))
        if not met.unfamiliar <= steady:
            again, _ = digest_with_buffers(value, BufferDigests(self.code_token))
            if again != found:
                raise Unsteady
            steady.update(met.unfamiliar)
        return found

    def code_token(self, obj: Any) -> str | None:
        """Return the token of what a value holds, if that is code of the user's own.

        So it counts as it does elsewhere, with all that it leads to.
        """
        if isinstance(obj, FunctionType | ModuleType):
            own = is_own_namespace(vars(obj) if isinstance(obj, ModuleType) else obj.__globals__)
        else:
            own = is_own_object(obj) or is_made_here(obj)
        return self.refer(obj) if own else None


class Unsteady(Exception):
    """The digest of a value changes whenever it is taken."""


LRU = type(lru_cache(int))

BY_CLASS: tuple[tuple[type, Callable[[Values, Any], str]], ...] = (
    (
        MethodType,
        lambda values, one: (
            values.method(one) or values.joined("method", (one.__func__, one.__self__))
        ),
    ),
    (staticmethod, lambda values, one: values.joined("static", (one.__func__,))),
    (classmethod, lambda values, one: values.joined("class", (one.__func__,))),
    (property, lambda values, one: values.joined("property", (one.fget, one.fset, one.fdel))),
    (cached_property, lambda values, one: values.joined("cached", (one.func,))),
    (partial, lambda values, one: values.joined("partial", (one.func, one.args, one.keywords))),
    (partialmethod, lambda values, one: values.joined("made", (one.func, one.args, one.keywords))),
    (
        singledispatchmethod,
        lambda values, one: values.copied("singledispatchmethod", dict(one.dispatcher.registry)),
    ),
    (LRU, lambda values, one: values.joined("functools._lru_cache_wrapper", (one.__wrapped__,))),
    (BuiltinFunctionType, lambda values, one: values.builtin(one)),
    *(
        (kind, lambda values, one: values.copied(type(one).__name__, dict(one)))
        for kind in (MappingProxyType, getattr(builtins, "frozendict", None))
        if kind is not None
    ),
    (attrgetter, lambda values, one: values.getter(one)),
    (methodcaller, lambda values, one: values.getter(one)),
)
"""How to describe what is made of other things."""


def names_of_getter(getter: Any) -> list[str]:
    """Return the names of attributes that an ``attrgetter`` or ``methodcaller`` asks for."""
    make, args = getter.__reduce__()
    given = (*getattr(make, "args", ()), *args)  # a partial, if the method gets keywords
    chains = given[:1] if isinstance(getter, methodcaller) else given
    return [sys.intern(name) for chain in chains for name in chain.split(".")]


def held_here(value: Any) -> Any:
    """Return what a context variable, or an object for the data of threads, holds at the moment."""
    if not hasattr(type(value), "reset"):
        return dict(vars(value))
    try:
        return [value.get()]
    except LookupError:
        return []


def queued_or_weak(value: Any) -> Collection[Any] | None:
    """Return what a queue holds, or weak references lead to; None of everything else.

    That comes and goes, and so does not count, but for the code in it.
    """
    kind = type(value)
    if issubclass(kind, loaded_types("queue", "Queue")):
        return list(value.queue)
    if issubclass(kind, weakref.ref):
        return [value()]
    if issubclass(kind, (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)):
        return list(value.items())
    return list(value) if issubclass(kind, weakref.WeakSet) else None


def is_running(value: Any) -> bool:
    """Whether something holds the variables of code that runs, or has stopped in the middle."""
    return isinstance(value, (GeneratorType, CoroutineType, AsyncGeneratorType, FrameType))


def code_held(parts: Iterable[Any]) -> Iterator[Any]:
    """Yield the code in objects, and in containers of them: functions, and classes of objects."""
    pending, seen = list(parts), set[int]()
    while pending and len(seen) < MANY_HELD:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        kind = type(part)
        if kind in (FunctionType, type) or issubclass(kind, (Transparent, type)):
            yield part
        elif issubclass(kind, MethodType):
            pending += [part.__func__, part.__self__]
        elif issubclass(kind, partial):
            pending += [part.func, *part.args, *part.keywords.values()]
        elif kind in CONTAINERS or full_name(kind) in OTHER_CONTAINERS:
            pending += [*part, *part.values()] if issubclass(kind, dict) else part
        elif is_own_object(kind):
            yield kind


def is_small(value: Any) -> bool:
    """Whether it is faster to compare what plain data holds than to take its digest."""
    if len(value) > SMALL or type(value) not in (dict, list, set):
        return False
    parts = (*value, *value.values()) if type(value) is dict else value
    return not any(type(part) in CONTAINERS for part in parts)


def is_special(kind: type) -> bool:
    """Whether objects of a class, or of one of its bases, are not taken apart."""
    return description_of(kind) is not None or any(map(is_by_type, kind.__mro__))


def is_unchanging(value: Any) -> bool:
    """Whether plain data holds nothing that can change in place."""
    pending = [value]
    while pending:
        item = pending.pop()
        if type(item) not in (tuple, frozenset):
            return False
        pending += [part for part in item if type(part) in CONTAINERS]
    return True


def description_of(kind: type) -> Callable[[Values, Any], str] | None:
    """Return how to describe objects of a class that are made of other things."""
    return next((describe for cls, describe in BY_CLASS if issubclass(kind, cls)), None)


def name_of(obj: Any) -> str:
    """Return the name of a function or class of an installed package."""
    try:
        found = find_name(obj)
    except Exception:  # noqa: BLE001 (what an object raises when it is looked into)
        found = None
    module, name = found or (getattr(obj, "__module__", "?"), getattr(obj, "__qualname__", "?"))
    return f"{module}.{name}"


def undocumented(part: Any) -> Any:
    """Return what an object is rebuilt from without what has a name of Python's own."""
    if type(part) is tuple:
        return tuple(map(undocumented, part))
    if type(part) is not dict:
        return part
    return {name: value for name, value in part.items() if not str(name).startswith("__")}


def token_of_installed(function: FunctionType, values: Values) -> str:
    """Return the name of an installed function, and what of the user's own it wraps.

    Of a function that was made when the program asked for it, and that no name leads to, all counts
    that it was made with, but for what it writes itself.
    """
    registry = function.__dict__.get("registry")
    if isinstance(registry, MappingProxyType):
        return values.joined("singledispatch", (dict(registry),))
    is_made = not is_found_by_name(function)
    parts: list[Any] = []
    if isinstance(wrapped := function.__dict__.get("__wrapped__"), (FunctionType, Transparent)):
        parts.append(wrapped)
    held = captured_by(function)
    if is_made:
        held |= defaults_of(function, ())
    for name, value in sorted(held.items()):
        if type(value) in PLAIN or (
            isinstance(value, (FunctionType, type, Transparent)) and value is not wrapped
        ):
            parts.append(value)
        elif is_made and value is not wrapped:
            is_written = name in code_of(function).facts.captured_writes
            parts.append(type(value) if is_written else value)
    code = function.__code__
    name = f"{function.__globals__.get('__name__')}.{getattr(code, 'co_name', '')}"
    if any(is_made or type(part) not in PLAIN for part in parts):
        return values.joined(f"wrapper {name}", parts)
    return f"name {name_of(function)}"


def needs_maker(function: Any, depth: int = 3) -> bool:
    """Whether what a function captures and writes began with what its maker was given.

    Or that of a function which it has captured.
    """
    if not is_own_namespace(function.__globals__):
        return False
    if code_of(function).needs_maker:
        return True
    inner = (each for each in captured_by(function).values() if type(each) is FunctionType)
    return depth > 0 and any(needs_maker(each, depth - 1) for each in inner)


def is_found_by_name(function: FunctionType) -> bool:
    """Whether a name of an installed module leads to a function."""
    with suppress(Exception):  # what a module raises when it is looked into
        found = find_name(function)
        return found is not None and not is_own_module(found[0])
    return False
