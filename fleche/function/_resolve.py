"""The walk over the user's own code and data that a function's result depends on.

Code is followed first: functions, the functions and classes whose names they load, and the members
of those classes whose names are used as attributes anywhere in the closure, until nothing new is
found. Data is looked at afterwards, when it is known which variables the code itself writes.
Nothing is followed into installed packages; their names are enough.
"""

from __future__ import annotations

import abc
import builtins
import os
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any

from blake3 import blake3

from fleche._util import attempt, package_version
from fleche.digest import (
    attributes_of_function,
    captured_by,
    defaults_of,
    keeping_trees,
    members_of,
    own_module,
    registered_reducer,
    told_to,
)
from fleche.function._closure import ENTRY, Closure, Findings
from fleche.function._code import KnownCode, code_of
from fleche.function._definitions import redefined
from fleche.function._facts import Import
from fleche.function._imported import ImportsByName, absolute, file_state, take_from, texts_in
from fleche.function._kinds import overloads_of
from fleche.function._lazy import is_lazy, make_real, names_in
from fleche.function._libraries import extension_of, libraries_named
from fleche.function._looking import (
    ARGUMENTS,
    LookedInto,
    identities_of_subclasses,
    is_of_module,
    place_of,
    subclasses_of,
)
from fleche.function._members import Members
from fleche.function._own import (
    directory_of,
    extension_file,
    is_made_here,
    is_missing,
    is_own_module,
    is_own_namespace,
    is_own_object,
    module_name,
)
from fleche.function._patched import Place, holds_own, installed_places, own_members, own_parts
from fleche.function._reaching import home_of
from fleche.function._read import (
    Read,
    asks_own_code,
    names_asked_for,
    names_read,
    types_of_fields,
)
from fleche.function._recheck import Datum
from fleche.function._settings import note_settings
from fleche.function._signature import Transparent
from fleche.function._texts import NamedInText, NamesAsked, Texts
from fleche.function._trees import Chain
from fleche.function._values import name_of, token_of_installed
from fleche.function._variables import Imported, Variables, Writes, mark_of
from fleche.function._whole import digest_of_file, digest_of_package

__all__ = ["resolve"]

CONSTANTS = ("Ellipsis", "NotImplemented")
"""Values of Python itself that are under a name in ``builtins``."""

MANY_FUNCTIONS = 2000
"""Beyond so many functions and classes whole packages count. A limit in seconds would let the key
depend on how busy the machine is."""

ROUNDS = 8
OF_MODULE = frozenset(
    [
        *("__name__", "__file__", "__spec__", "__package__", "__loader__", "__path__"),
        *("__builtins__", "__debug__", "__cached__", "__annotations__", "__class__"),
    ]
)
"""Names that say where a module is, and nothing about what it does."""


NOTHING = object()


class TooMuch(Exception):
    """There is more to follow than is worth it."""


def resolve(
    entry: Any,
    *,
    home: str,
    roots: Iterable[Any] = (),
    ignored: Collection[str] = (),
    ignore_globals: Collection[str] = (),
) -> Closure:
    """Return what ``entry`` depends on.

    Args:
        entry: a function, or another callable.
        home: the module whose names stand without it.
        roots: functions, classes and modules that occur in the arguments of a call, and names of
            attributes that something in them gets.
        ignored: parameters whose defaults do not count.
        ignore_globals: variables that do not count, as ``name`` or ``module.name``.
    """
    writes = Writes()
    with keeping_trees():
        for left in reversed(range(ROUNDS)):
            resolver = Resolver(home, ignored, ignore_globals, writes)
            try:
                resolver.run(entry, roots)
            except TooMuch:
                resolver.take_whole_packages()
                break
            if not (left and resolver.variables.must_restart):
                resolver.conclude()
                break
    asked = NamesAsked(resolver.by_name.is_used, tuple(resolver.texts.readers))
    return resolver.found.closure(asked if any(asked) else None)


class Resolver:
    """One walk over the code that a function leads to."""

    def __init__(
        self,
        home: str,
        ignored: Collection[str],
        ignore_globals: Collection[str],
        writes: Writes,
    ) -> None:
        self.home = home
        self.ignored = ignored
        self.ignore_globals = frozenset(ignore_globals)
        self.found = Findings(home)
        self.kept: dict[int, tuple[Any, str]] = {}
        self.code: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.members = Members(self.follow_member)
        self.read = Read(self.found, self.members.taken)
        self.modules: dict[str, ModuleType] = {}
        self.places: list[Place] = []
        self.spaces: dict[int, Mapping[str, Any]] = {}
        self.searched = 0
        self.looked_into = LookedInto(home)
        self.texts = Texts()
        self.prefixes: set[str] = set()
        self.taken_whole = (0, 0, 0)
        self.by_name = ImportsByName()
        self.forced: set[int] = set()
        self.tops: set[str] = set()
        self.packages: set[str] = set()
        self.variables = Variables(
            self.found, writes, self.kept, self.members.used, self.refer, self.load, self.use
        )
        self.values = self.variables.values

    def run(self, entry: Any, roots: Iterable[Any]) -> None:
        """Follow everything."""
        if isinstance(entry, FunctionType) and not is_own_namespace(entry.__globals__):
            self.forced.add(id(entry))
            self.installed_entry(entry)
        if isinstance(entry, FunctionType):
            self.refer(entry)
            self.variables.add_making_of_entry(entry)
        else:
            self.variables.add_code(ENTRY, entry)
        self.looked_into.place = ARGUMENTS
        for root in roots:
            self.refer(root)
        while self.code or self.variables.waiting:
            self.follow_code()
            if self.variables.waiting:
                label, value, namespace, name = self.variables.waiting.popleft()
                self.looked_into.place = self.home if namespace is None else module_name(namespace)
                self.variables.look_at(label, value, namespace, name)
                self.look_further()

    def conclude(self) -> None:
        """Let count what shows when all else is known: modules imported by name, and settings."""
        parts, data = self.by_name.parts(self.variables.looked_at)
        for name, part in parts.items():
            self.found.put(f"{name}:*", "package", part)
            if isinstance(module := sys.modules.get(name), ModuleType):
                self.found.checks.execution(vars(module))
            else:
                self.found.checks.absent(sys.modules, name)
        self.found.checks.data += data
        installed = (node for node in self.found.nodes.values() if node.kind == "installed")
        packages = {node.token.partition(".")[0] for node in installed} | self.packages
        entry = sys.modules.get(self.home)
        spaces = [*self.spaces.values(), *([vars(entry)] if entry else ())]
        define = partial(redefined, self.found, self.variables.defined)
        note_settings(self.found, packages, spaces, define)

    def follow_code(self) -> None:
        """Follow what code there is, before data is looked at."""
        while self.code:
            function, args = self.code.popleft()
            self.looked_into.place = ""
            function(*args)
            if len(self.kept) > MANY_FUNCTIONS:
                raise TooMuch
            self.look_further()
            if not self.code and self.searched != len(self.members.used):
                self.searched = len(self.members.used)
                self.look_for_patches()

    def installed_entry(self, entry: FunctionType) -> None:
        top = module_name(entry.__globals__).partition(".")[0]
        version = package_version(top) or ""
        self.found.put(top, "version", version, version)

    # what is code

    def refer(self, obj: Any) -> str:
        """Return the token of a function, class or module, and see to it that it is followed.

        A text is the name of an attribute that something gets.
        """
        if isinstance(obj, Import):
            self.by_name.names.add(obj.module)
            return ""
        if isinstance(obj, NamedInText):
            self.texts.told.update(obj.chains)
            return ""
        self.looked_into.note(obj)
        if id(obj) in self.kept:
            return self.kept[id(obj)][1]
        if isinstance(obj, str):
            self.use([obj])
        if isinstance(obj, FunctionType):
            return self.refer_to_function(obj)
        if isinstance(obj, ModuleType):
            return self.refer_to_module(extension_of(obj))
        if not is_own_object(obj) or not hasattr(obj, "__mro__"):
            return self.refer_to_installed(obj)
        label = self.found.fresh_label(own_module(obj), obj.__qualname__)
        return self.keep(obj, label, self.do_class)

    def refer_to_installed(self, obj: Any) -> str:
        """Name something installed, and follow what is the user's own in a class without a name."""
        token = f"name {name_of(obj)}"
        if is_made_here(obj):
            self.kept[id(obj)] = (obj, token)
            label = self.found.fresh_label(obj.__module__, obj.__qualname__)
            for name, member, path, part in own_members(obj):
                self.found.checks.member(obj, name, member)
                self.variables.add(f"{label}.{name}{path}", part)
        return token

    def refer_to_function(self, function: FunctionType) -> str:
        namespace = function.__globals__
        if not is_own_namespace(namespace) and id(function) not in self.forced:
            self.kept[id(function)] = (function, "again")
            token = token_of_installed(function, self.values)
            self.kept[id(function)] = (function, token)
            if isinstance(registry := function.__dict__.get("registry"), MappingProxyType):
                self.found.checks.mapping(registry)
            return token
        label = self.found.fresh_label(module_name(namespace), code_of(function).qualname)
        return self.keep(function, label, self.do_function)

    def keep(self, obj: Any, label: str, follow: Callable[..., None]) -> str:
        token = f"@{label}"
        self.kept[id(obj)] = (obj, token)
        self.read.note(obj, label)
        self.tops.add(str(getattr(obj, "__module__", "")).partition(".")[0])
        self.code.append((follow, (obj, label)))
        return token

    def do_function(self, function: FunctionType, label: str) -> None:
        known = code_of(function)
        namespace = function.__globals__
        make_real(namespace, names_in(function.__code__))
        module = self.looked_into.place = module_name(namespace)
        self.found.put(label, "function", known.token, known.text)
        self.variables.note_writes(function, known, module)
        written = self.variables.writes.attributes.get(id(function), ())
        self.found.checks.function(function, written)
        self.parts_of(function, label, known)
        self.follow_overloads(function)
        self.uses_of(function, known, module)
        if id(namespace) not in self.spaces:
            self.spaces[id(namespace)] = namespace
            self.places += installed_places(namespace)
            self.searched = 0
        captured = captured_by(function)
        lazy = self.imported_inside(known, namespace)
        for chain in sorted(known.facts.loads | self.variables.stored_in(known.facts, namespace)):
            self.load(namespace, module, chain)
        for chain in sorted(known.facts.named):
            self.select(namespace, module, chain)
        for chain in sorted(known.facts.captured):
            value = captured.get(chain[0])
            if isinstance(value, ModuleType):
                self.follow(value, module, chain[0], chain[1:])
            else:
                self.use(chain[1:])
        for chain in sorted(known.facts.lazy):
            self.load_lazily(lazy.get(chain[0], []), chain)
        for chain, prefix in sorted(known.facts.dynamic):
            self.look_into(namespace, chain, prefix)
        texts = partial(self.texts_of, namespace, known)
        self.texts.note(function, known.facts, texts)
        self.load_libraries(known.facts.texts, directory_of(namespace), texts)
        self.by_name.note(known.facts, namespace, texts)
        self.use(names_read(known.facts, namespace))
        if unseen := known.facts.unseen:
            self.found.notes[label] = "dynamic access: " + ", ".join(sorted(unseen))
            self.look_around(namespace if "globals" in unseen else {}, module)
        if known.facts.uses_own_module or known.facts.uses_any_global:
            self.use_own_module(namespace, everything=known.facts.uses_any_global)

    def parts_of(self, function: FunctionType, label: str, known: KnownCode) -> None:
        """Let defaults, captured values and attributes count."""
        ignored = self.ignored if label == function.__qualname__ else ()
        for name, value in sorted(defaults_of(function, ignored).items()):
            if name in known.facts.parameter_writes and mark_of(value):  # a memo in a default
                self.found.put(f"{label}({name})", "state", type(value).__name__)
                self.variables.follow_code_in(value)
            else:
                self.variables.add(f"{label}({name})", value)
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        for name, value in sorted(captured_by(function).items()):
            if name in known.facts.captured_writes:
                begins = known.beginnings.get(name, "")
                self.found.put(f"{label}[{name}]", "state", f"{type(value).__name__} {begins}")
                self.variables.follow_code_in(value)
            else:
                self.variables.cells[f"{label}[{name}]"] = cells[name]
                self.variables.add(f"{label}[{name}]", value)
        for name, value in sorted(attributes_of_function(function).items()):
            self.variables.add_attribute(label, function, name, value)

    def uses_of(self, function: FunctionType, known: KnownCode, module: str) -> None:
        facts = known.facts
        self.use(facts.attributes)
        if facts.looks_into_itself and known.method_of:
            self.looked_into.shown.add(f"{module}:{known.method_of}")
        elif facts.looks_into_itself or facts.looks_into_others:
            self.looked_into.search(function)
        self.members.use_any(facts.prefixes, sets=facts.sets_any)
        for prefix in sorted(facts.prefixes - self.prefixes):
            self.prefixes.add(prefix)
            for other in list(self.modules.values()):
                self.take_module(other, prefix)

    def use(self, names: Iterable[str]) -> None:
        """Let the members of classes and modules that have one of these names count."""
        for name in sorted(set(names) - self.members.used):
            self.members.use(name)
            for module in list(self.modules.values()):
                self.code.append((self.do_attribute, (module, name)))

    # names

    def load(self, namespace: Mapping[str, Any], module: str, chain: Chain) -> None:
        """Follow a chain that begins with a global name."""
        name, tail = chain[0], chain[1:]
        if name in OF_MODULE or self.is_ignored(module, name):
            return
        if found := self.variables.imported(namespace, name):
            for source in (source for source, _ in found if isinstance(source, str)):
                self.found.put(self.found.label(module, name), "installed", source)
            self.load_lazily(found, chain)
            return
        if name not in namespace:
            self.found.checks.absent(namespace, name)
            self.use(tail)
            self.load_builtin(namespace, module, name)
            return
        make_real(namespace, (name,))
        value = namespace[name]
        self.found.checks.name(namespace, name, value)
        label = self.found.label(module, name)
        if isinstance(value, ModuleType) and not self.variables.is_written(label):
            self.follow(value, module, name, tail)
        elif is_lazy(value):
            self.found.put(label, "absent", "import fails")
        else:
            self.use(tail)
            if "__dict__" in tail:
                cls = reach(namespace, chain[: chain.index("__dict__")])
                if isinstance(cls, type) and is_own_object(cls):
                    self.looked_into.shown.add(place_of(cls))
            self.follow_overloads(value)
            self.variables.add(label, value, namespace, name)

    def follow_overloads(self, value: Any) -> None:
        for overload in overloads_of(value):
            if is_own_namespace(overload.__globals__):
                self.refer(overload)

    def load_builtin(self, namespace: Mapping[str, Any], module: str, name: str) -> None:
        """Follow a name that a module does not have, in case that the program has patched it."""
        label = self.found.label(module, name)
        if name not in vars(builtins):
            self.variables.add_absent(label, namespace, name)
            return
        value = vars(builtins)[name]
        self.found.checks.name(vars(builtins), name, value)
        is_data = not callable(value) and not name.startswith("_") and name not in CONSTANTS
        if is_data or (getattr(value, "__module__", None) != "builtins" and holds_own(value)):
            self.variables.add(label, value)

    def load_text(self, namespace: Mapping[str, Any], chain: Chain) -> None:
        """Follow a chain that stands in a text: it may begin with a global name, or be a module."""
        if chain[0] in namespace:
            self.load(namespace, module_name(namespace), chain)
            return
        module = sys.modules.get(".".join(chain))
        if isinstance(module, ModuleType) and is_own_namespace(vars(module)):
            self.refer_to_module(module)

    def texts_of(self, namespace: Mapping[str, Any], known: KnownCode) -> Iterator[str]:
        """Yield the texts in a function, and in the variables that it names and code leaves alone.

        What code writes there depends on what ran before.
        """
        yield from known.facts.texts
        for chain in sorted(known.facts.loads):
            yield from texts_in([self.variables.left_alone(namespace, chain)])

    def is_ignored(self, module: str, name: str) -> bool:
        if not self.ignore_globals:
            return False
        full = f"{module}.{name}"
        ignored = full in self.ignore_globals or (
            module == self.home and name in self.ignore_globals
        )
        if ignored:
            self.found.notes[self.found.label(module, name)] = "ignored, as ignore_globals says"
        return ignored

    def follow(self, value: ModuleType, module: str, name: str, tail: Chain) -> None:
        """Follow a chain through a module."""
        value = extension_of(value)
        label = self.found.label(module, name)
        target = module_name(vars(value))
        if not is_own_namespace(vars(value)):
            self.found.put(label, "installed", target)
            self.follow_patched(value, label, tail)
            return
        self.found.put(label, "name", self.refer(value) if not tail else target)
        if extension_file(value):
            self.refer(value)
            return
        if tail:
            self.load_from(value, tail)

    def load_from(self, module: ModuleType, chain: Chain) -> None:
        """Follow a chain that begins with a name in an own module, which may make it when asked.

        ``__getattr__`` (PEP 562) does that, or a class of the module. What is made counts, and the
        code that makes it, too: what that reads is then looked at anew at each call.
        """
        namespace, name = vars(module), module_name(vars(module))
        step, *tail = chain
        if step == "__dict__":
            self.looked_into.shown.add(place_of(module))
            self.refer_to_module(module)
            return
        made = NOTHING
        if step not in namespace and not self.is_ignored(name, step):
            made = attempt(getattr, module, step, default=NOTHING)
            if step not in namespace:  # a submodule is bound when it is asked for
                self.makers_of(module)
        if made is NOTHING or step in namespace:
            self.load(namespace, name, chain)
            return
        if hasattr(ModuleType, step):
            self.values.token(made)
            return
        self.found.checks.absent(namespace, step)
        self.use([step])
        again = attempt(getattr, module, step, default=NOTHING)
        if isinstance(made, ModuleType):
            self.follow(made, name, step, tuple(tail))
        elif made is again or self.values.token(made) == self.values.token(again):
            self.use(tail)
            self.variables.add(self.found.label(name, step), made)

    def follow_patched(self, module: ModuleType, label: str, chain: Chain) -> None:
        """Follow a chain through an installed module as far as the program has put there its own.

        What stands there is compared at each call, since it may be put there later.
        """
        for step in chain:
            namespace = vars(module)
            if step not in namespace:
                return
            value, label = namespace[step], f"{label}.{step}"
            self.variables.callers.add(home_of(value))
            self.found.checks.name(namespace, step, value)
            if isinstance(value, type):
                self.use(chain)
            if not isinstance(value, ModuleType):
                self.follow_overloads(value)
                if holds_own(value):
                    self.variables.add(label, value)
                return
            module = value

    def look_for_patches(self) -> None:
        """Follow what the program has added to installed classes, as far as its names are used."""
        for place in self.places:
            for cls, name, member in place.members_called(self.members.used):
                parts = own_parts(member)
                if not parts:
                    place.foreign[id(cls), name] = member
                for path, part in parts.items():
                    self.found.checks.member(cls, name, member)
                    self.variables.add(f"{name_of(cls)}.{name}{path}", part)

    def makers_of(self, module: ModuleType) -> None:
        """Follow the code by which a module makes what it does not have."""
        if "__getattr__" in vars(module):
            self.load(vars(module), module_name(vars(module)), ("__getattr__",))
        if type(module) is not ModuleType:
            self.refer(type(module))

    def select(self, namespace: Mapping[str, Any], module: str, chain: Chain) -> None:
        """Follow a chain where a class only selects: what it is asked for is enough."""
        value = reach(namespace, chain)
        label = self.found.label(module, chain[0])
        for each in value if isinstance(value, tuple) else [value]:
            if isinstance(each, abc.ABCMeta) and is_own_object(each):
                self.asked_for(each, f"{label}?{each.__qualname__}")
        if not isinstance(value, type) or not is_own_object(value) or asks_own_code(value):
            self.load(namespace, module, chain)
            return
        self.found.checks.name(namespace, chain[0], namespace[chain[0]])
        name = self.found.label(own_module(value), value.__qualname__)
        path = ".".join(chain)
        if label not in self.found.nodes and name not in (path, self.found.label(module, path)):
            self.found.put(f"{label}?", "installed", name)

    def asked_for(self, cls: type, label: str) -> None:
        """Let what an abstract class or protocol is asked for count, now and at each call."""
        if label in self.members.taken:
            return
        self.members.taken.add(label)
        names = names_asked_for(cls)
        if names:
            self.found.put(label, "data", names, names)
            self.use(filter(str.isidentifier, names.split()))  # whether an object has them
        self.found.checks.data.append(Datum(label, cls, names, names_asked_for))

    def imported_inside(
        self, known: KnownCode, namespace: Mapping[str, Any]
    ) -> dict[str, list[Imported]]:
        """Import the own modules that a body imports.

        Returns:
            By each name that imports bind, the modules, each with the name that is taken from it:
            there may be one in each branch of the body.
        """
        found: dict[str, list[Imported]] = {}
        for item in sorted(known.facts.imports):
            base = absolute(item, namespace)
            if not base:
                continue
            if not is_own_module(base):
                self.expect_modules(base)
                if is_missing(base):  # what the body does without it is another thing than with it
                    self.found.put(base, "absent", "absent")
                    self.found.checks.data.append(Datum(base, base, "True", is_missing_now))
                else:
                    top = base.partition(".")[0]
                    self.packages.add(top)
                    source = top if item.bound == top else base
                    found.setdefault(item.bound, []).append((source, item.name))
                continue
            module = attempt(import_module, base)
            self.expect_modules(base)
            if module is None:
                self.found.put(base, "absent", "import fails")
                self.found.checks.data.append(Datum(base, base, file_state(base), file_state))
                continue
            top = base.partition(".")[0]
            if not item.bound:
                self.refer(module)
            elif not item.name:  # `import a.b` binds a, and `import a.b as c` binds a.b
                bound = sys.modules[top] if item.bound == top else module
                found.setdefault(item.bound, []).append((bound, ""))
            elif item.name != "*":
                take_from(module, item.name)
                found.setdefault(item.bound, []).append((module, item.name))
        for name in sorted(known.facts.global_imports):
            self.variables.note_import(namespace, name, found.get(name, []))
        return found

    def expect_modules(self, name: str) -> None:
        """Expect an import of a module to find what it finds now, the packages above it included.

        A program may take modules out of :data:`sys.modules`, or put others there.
        """
        while name:
            if name in sys.modules:
                self.found.checks.name(sys.modules, name, sys.modules[name])
            else:
                self.found.checks.absent(sys.modules, name)
            name = name.rpartition(".")[0]

    def load_lazily(self, found: list[Imported], chain: Chain) -> None:
        """Follow a chain that begins with a name that imports in the body bind."""
        for module, name in found:
            if isinstance(module, str):
                continue
            if name:
                self.load_from(module, (name, *chain[1:]))
            else:
                self.follow(module, "import", chain[0], chain[1:])

    def load_libraries(
        self, texts: Iterable[str], directory: str, others: Callable[[], Iterable[str]]
    ) -> None:
        """Let the shared libraries count that texts in a body name, as it loads them."""
        for file in reversed(libraries_named(texts, directory, others)):
            is_below = file.startswith(os.path.join(directory, ""))
            name = os.path.relpath(file, directory) if is_below else os.path.basename(file)
            self.found.put(f"library {name}", "file", digest_of_file(file), name)

    # classes

    def do_class(self, cls: Any, label: str) -> None:
        members, made = members_of(cls)
        annotations = members.pop("__annotations__", {})
        told = told_to(cls, made)
        bases = [self.values.token(base) for base in cls.__mro__[1:-1]]
        meta = "" if type(cls).__module__ in ("enum", "abc", "builtins") else type(cls)
        strict = any(has_types(base) for base in cls.__mro__)
        fields = annotations if strict else list(annotations)
        parts = [*bases, *map(self.values.token, (meta, told, fields))]
        self.found.put(
            label, "class", blake3("\0".join(parts).encode()).hexdigest(), class_text(cls)
        )
        self.found.checks.cls(cls)
        if (reducer := registered_reducer(cls)) is not None:  # it copies and pickles
            self.variables.add(f"{label}.<copyreg>", reducer)
        self.variables.note_hooks(cls)
        if not strict and annotations:
            members["__annotations__"] = types_of_fields(cls)
        for name, value in self.members.add(cls, label, members):
            self.do_member(cls, label, name, value)

    def look_further(self) -> None:
        """Follow what shows only when there is no other code: what is asked for by any name."""
        if self.code:
            return
        self.members.use_called_in(self.variables.callers)
        used = self.members.used
        if "__subclasses__" in used:
            self.refer_to_subclasses()
        self.read.take(used, self.modules)
        for namespace, chain in self.texts.chains(self.looked_into):
            self.load_text(namespace, chain)
        if not self.looked_into.is_empty():
            self.take_whole()

    def take_whole(self) -> None:
        """Let everything count of what is looked into by any name."""
        names = self.looked_into.names()
        size = (len(names), len(self.members.classes), len(self.modules))
        if size == self.taken_whole:
            return
        self.taken_whole = size
        self.members.take_all(names)
        for name in sorted(names & self.modules.keys()):
            self.take_module(self.modules[name])

    def refer_to_subclasses(self) -> None:
        """Follow the classes that a class is asked for which are derived from it."""
        for cls, label, _ in list(self.members.classes):
            if f"{label}.__subclasses__" in self.members.taken or issubclass(cls, type):
                continue
            self.members.taken.add(f"{label}.__subclasses__")
            derived = subclasses_of(cls)
            for each in derived.values():
                self.refer(each)
            names = " ".join(derived)
            self.found.put(f"{label}.__subclasses__", "data", names, names)
            now = identities_of_subclasses(cls)
            self.found.checks.data.append(Datum(label, cls, now, identities_of_subclasses))

    def follow_member(self, cls: type, label: str, name: str, value: Any) -> None:
        self.code.append((self.do_member, (cls, label, name, value)))

    def do_member(self, cls: Any, label: str, name: str, value: Any) -> None:
        place = f"{label}.{name}"
        if place in self.members.taken:
            return
        self.members.taken.add(place)
        self.looked_into.place = cls.__module__
        if name == "__match_args__" and isinstance(value, tuple):  # `case Point(1, 2)` gets these
            self.use(filter(str.isidentifier, map(str, value)))
        if name in vars(cls):
            self.found.checks.member(cls, name, vars(cls)[name])
        namespace = vars(sys.modules.get(cls.__module__, builtins))
        self.variables.add(place, value, namespace, f"{cls.__qualname__}.{name}")

    # modules as values

    def refer_to_module(self, module: ModuleType) -> str:
        name = module_name(vars(module))
        if not is_own_namespace(vars(module)):
            return f"module {name}"
        file = vars(module).get("__file__")
        while vars(self.modules.get(name, module)).get("__file__") != file:  # another of this name
            name += "#"
        if name not in self.modules:
            if file := extension_file(module):
                self.found.put(name, "file", digest_of_file(file), file.rpartition("/")[2])
                return f"module {name}"
            self.modules[name] = module
            self.code.append((self.makers_of, (module,)))
            for attribute in sorted(vars(module)):
                if attribute in self.members.used:
                    self.code.append((self.do_attribute, (module, attribute)))
            for prefix in sorted(self.prefixes):
                self.take_module(module, prefix)
        return f"module {name}"

    def do_attribute(self, module: ModuleType, name: str) -> None:
        namespace = vars(module)
        self.looked_into.place = module_name(namespace)
        if name in namespace and not name.startswith("__"):
            self.load(namespace, module_name(namespace), (name,))

    def look_into(self, namespace: Mapping[str, Any], chain: Chain, prefix: str) -> None:
        """Let everything count in what a chain leads to, as it is looked into by any name.

        Of classes, members whose names begin with ``prefix`` count already.
        """
        value = reach(namespace, chain)
        if isinstance(value, ModuleType):
            self.refer_to_module(value)
            if not prefix:
                self.looked_into.shown.add(place_of(value))
            elif place_of(value) in self.modules:
                self.take_module(value, prefix)
            return
        cls = value if isinstance(value, type) else type(value)
        if not prefix and is_own_object(cls):
            self.looked_into.shown.add(place_of(cls))

    def look_around(self, namespace: Mapping[str, Any], module: str) -> None:
        """Let the functions and classes of a namespace count, as any of them may be called."""
        make_real(namespace, list(namespace))
        for name, value in sorted(namespace.items()):
            if isinstance(value, (FunctionType, Transparent, type)) and is_of_module(value):
                self.load(namespace, module, (name,))

    def use_own_module(self, namespace: Mapping[str, Any], *, everything: bool) -> None:
        """Let names of a module count that its own code uses as attributes, or all of them."""
        module = sys.modules.get(namespace.get("__name__", ""))
        if isinstance(module, ModuleType) and vars(module) is namespace:
            self.refer_to_module(module)
            if everything:
                self.take_module(module)

    def take_module(self, module: ModuleType, prefix: str = "") -> None:
        """Let all of an own module count, but for what it has from installed ones.

        Args:
            module: the module.
            prefix: with what the names begin of what counts.
        """
        make_real(vars(module), list(vars(module)))
        for name, value in sorted(vars(module).items()):
            if name.startswith(prefix) and is_of_module(value):
                self.code.append((self.do_attribute, (module, name)))

    def take_whole_packages(self) -> None:
        """Let the packages that were met count by the syntax of their files."""
        self.found.forget_code()
        tops = {*self.tops, self.home.partition(".")[0]}
        for name in sorted(tops):
            module = sys.modules.get(name)
            if module is not None and is_own_namespace(vars(module)):
                self.found.put(name, "package", digest_of_package(module))
        self.found.notes["<limit>"] = (
            "there is more to follow than is worth it; these packages count as a whole: "
            + ", ".join(sorted(self.found.nodes))
        )


def is_missing_now(name: str) -> str:
    """Return whether a module that was missing still is: its file may have been written."""
    return str(is_missing(name))


def reach(namespace: Mapping[str, Any], chain: Chain) -> Any:
    """Return what a chain of names leads to, or None."""
    value = namespace.get(chain[0])
    for step in chain[1:]:
        value = attempt(getattr, value, step)
    return value


def has_types(cls: type) -> bool:
    """Whether a class makes something of the types of its fields, as pydantic and msgspec do."""
    names = ("__pydantic_fields__", "__attrs_attrs__", "__struct_fields__", "__mapper__")
    return any(name in vars(cls) for name in names)


def class_text(cls: Any) -> str:
    return f"class {cls.__qualname__}({', '.join(base.__name__ for base in cls.__bases__)})"
