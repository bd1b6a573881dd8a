"""The closure of a function: the user's own code and data that its result depends on.

Code is followed first: functions, the functions and classes whose names they load, and the members
of those classes whose names are used as attributes anywhere in the closure, until nothing new is
found. Data is looked at afterwards, when it is known which variables the code itself writes.
Nothing is followed into installed packages; their names are enough.
"""

from __future__ import annotations

import builtins
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from types import CellType, FunctionType, ModuleType
from typing import Any, NamedTuple

from blake3 import blake3

from fleche.digest import (
    Digest,
    attributes_of_function,
    captured_by,
    defaults_of,
    members_of,
    told_to,
)
from fleche.function._code import KnownCode, code_of
from fleche.function._filling import filled_by, place_of
from fleche.function._names import Chain, Import, facts_of_expression
from fleche.function._own import (
    extension_file,
    is_own_module,
    is_own_namespace,
    is_own_object,
    module_name,
)
from fleche.function._recheck import Checks, Datum
from fleche.function._signature import Transparent
from fleche.function._state import (
    defining_statements,
    defining_syntax,
    directory_of,
    imported_as,
    is_from_clock,
)
from fleche.function._values import (
    Retake,
    Values,
    is_callable_code,
    name_of,
    token_of_installed,
)
from fleche.function._whole import digest_of_file, digest_of_package

__all__ = ["Closure", "Node", "resolve"]

MANY_FUNCTIONS = 2000
"""Beyond so many functions and classes whole packages count. A limit in seconds would let the key
depend on how busy the machine is."""

ROUNDS = 8
OF_MODULE = frozenset(
    [
        "__name__",
        "__file__",
        "__doc__",
        "__spec__",
        "__package__",
        "__loader__",
        "__path__",
        "__builtins__",
        "__debug__",
        "__cached__",
        "__annotations__",
        "__class__",
    ]
)
"""Names that say where a module is, and nothing about what it does."""

BUILT_IN = ("builtins", "collections", "weakref", "_weakrefset", "array", "numpy")
"""Modules whose containers have the mutating methods that are known."""


class Node(NamedTuple):
    """One thing that a result depends on.

    Attributes:
        kind: "function", "class", "data", "state", "name", "installed", "absent", "file",
            "package", "version" or "extra".
        token: what stands for it.
        text: its source, or a short text that shows it; "" if there is none.
    """

    kind: str
    token: str
    text: str = ""


@dataclass
class Closure:
    """What a function depends on, as it was found.

    Attributes:
        nodes: what counts, by name; names of the function's own module stand without the module.
        digest: the one digest of all nodes.
        notes: what does not count, or only in part, and why; by name.
        unsteady: variables whose digest changes whenever it is taken, and the types of which.
    """

    nodes: dict[str, Node]
    notes: dict[str, str]
    checks: Checks
    unsteady: dict[str, str] = field(default_factory=dict)
    digest: Digest = field(init=False)

    def __post_init__(self) -> None:
        self.digest = digest_of_nodes(self.nodes)
        self.checks.compile()

    def changed_data(self) -> list[str]:
        """Return the names of the variables whose content is not what it was."""
        return sorted(self.checks.changed_data()) if self.checks.has_data else []

    @cached_property
    def digests(self) -> dict[str, str]:
        """The digest of each node by its name, as plain text; mere names are in one."""
        found = {
            label: str(digest_of_nodes({label: node}))
            for label, node in self.nodes.items()
            if node.kind not in ("installed", "absent")
        }
        rest = {label: node for label, node in self.nodes.items() if label not in found}
        if rest:
            found["<names>"] = str(digest_of_nodes(rest))
        return dict(sorted(found.items()))

    def record(self) -> dict[str, str]:
        """Return a copy of :attr:`digests`."""
        return dict(self.digests)


def digest_of_nodes(nodes: Mapping[str, Node]) -> Digest:
    hasher = blake3(b"fleche code 2")
    for label, node in sorted(nodes.items()):
        for part in (label, node.kind, node.token):
            raw = part.encode("utf-8", "surrogatepass")
            hasher.update(b"%d:%b" % (len(raw), raw))
    return Digest(hasher.hexdigest())


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
        roots: functions and classes that occur in the arguments of a call.
        ignored: parameters whose defaults do not count.
        ignore_globals: variables that do not count, as ``name`` or ``module.name``.
    """
    states: set[str] = set()
    fills: dict[str, set[str]] = {}
    for _ in range(ROUNDS):
        resolver = Resolver(home, ignored, ignore_globals, states, fills)
        try:
            resolver.run(entry, roots)
        except TooMuch:
            resolver.take_whole_packages()
            break
        if not resolver.must_restart:
            break
    return Closure(resolver.nodes, resolver.notes, resolver.checks, resolver.unsteady)


class Resolver:
    """One resolution."""

    def __init__(
        self,
        home: str,
        ignored: Collection[str],
        ignore_globals: Collection[str],
        states: set[str],
        fills: dict[str, set[str]],
    ) -> None:
        self.home = home
        self.ignored = ignored
        self.ignore_globals = frozenset(ignore_globals)
        self.states = states
        self.fills = fills
        self.must_restart = False
        self.nodes: dict[str, Node] = {}
        self.notes: dict[str, str] = {}
        self.checks = Checks()
        self.kept: dict[int, tuple[Any, str]] = {}
        self.taken: set[str] = set()
        self.code: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.data: deque[tuple[Any, ...]] = deque()
        self.walked: set[str] = set()
        self.variables: set[str] = set()
        self.cells: dict[str, CellType] = {}
        self.used: set[str] = set()
        self.prefixes: set[str] = set()
        self.classes: list[tuple[type, str, dict[str, Any]]] = []
        self.waiting: dict[str, list[tuple[type, str, Any]]] = {}
        self.members: set[str] = set()
        self.modules: dict[str, ModuleType] = {}
        self.whole_classes: set[str] = set()
        self.forced: set[int] = set()
        self.tops: set[str] = set()
        self.unsteady: dict[str, str] = {}
        self.values = Values(self.refer, fills=self.filled_in)

    def run(self, entry: Any, roots: Iterable[Any]) -> None:
        """Follow everything."""
        if isinstance(entry, FunctionType) and not is_own_namespace(entry.__globals__):
            self.forced.add(id(entry))
            self.installed_entry(entry)
        token = self.values.token(entry)
        if not isinstance(entry, FunctionType):
            self.put("<function>", "name", token)
        for root in roots:
            self.values.token(root)
        while self.code or self.data:
            while self.code:
                function, args = self.code.popleft()
                function(*args)
                if len(self.kept) > MANY_FUNCTIONS:
                    raise TooMuch
            if self.data:
                self.do_data(*self.data.popleft())

    def installed_entry(self, entry: FunctionType) -> None:
        from importlib import metadata

        top = module_name(entry.__globals__).partition(".")[0]
        try:
            version = metadata.version(top)
        except (metadata.PackageNotFoundError, ValueError):
            version = str(getattr(sys.modules.get(top), "__version__", ""))
        self.put(top, "version", version, version)

    def put(self, label: str, kind: str, token: str, text: str = "") -> None:
        self.nodes[label] = Node(kind, token, text)

    def label(self, module: str, path: str) -> str:
        return path if module == self.home else f"{module}:{path}"

    def beside(self, label: str) -> str:
        """Return the label of what a name stands for, beside a function or class so called."""
        found = f"{label}~" if label in self.taken else label
        self.taken.add(found)
        return found

    def fresh_label(self, module: str, path: str) -> str:
        label, number = self.label(module, path), 1
        while label in self.taken:
            number += 1
            label = f"{self.label(module, path)}#{number}"
        self.taken.add(label)
        return label

    # what is code

    def refer(self, obj: Any) -> str:
        """Return the token of a function, class or module, and see to it that it is followed."""
        if id(obj) in self.kept:
            return self.kept[id(obj)][1]
        if isinstance(obj, FunctionType):
            return self.refer_to_function(obj)
        if isinstance(obj, ModuleType):
            return self.refer_to_module(obj)
        if not is_own_object(obj) or not hasattr(obj, "__mro__"):
            return f"name {name_of(obj)}"
        module = "__main__" if obj.__module__ == "__mp_main__" else obj.__module__
        label = self.fresh_label(module, obj.__qualname__)
        return self.keep(obj, label, self.do_class)

    def refer_to_function(self, function: FunctionType) -> str:
        namespace = function.__globals__
        if not is_own_namespace(namespace) and id(function) not in self.forced:
            self.kept[id(function)] = (function, "again")
            token = token_of_installed(function, self.values)
            self.kept[id(function)] = (function, token)
            return token
        label = self.fresh_label(module_name(namespace), code_of(function).qualname)
        return self.keep(function, label, self.do_function)

    def keep(self, obj: Any, label: str, follow: Callable[..., None]) -> str:
        token = f"@{label}"
        self.kept[id(obj)] = (obj, token)
        self.tops.add(str(getattr(obj, "__module__", "")).partition(".")[0])
        self.code.append((follow, (obj, label)))
        return token

    def do_function(self, function: FunctionType, label: str) -> None:
        known = code_of(function)
        module = module_name(function.__globals__)
        self.put(label, "function", known.token, known.text)
        self.checks.function(function)
        self.parts_of(function, label, known)
        self.writes_of(function, known, module)
        self.uses_of(known, module)
        namespace = function.__globals__
        captured = captured_by(function)
        lazy = self.imported_inside(known, namespace)
        for chain in sorted(known.facts.loads):
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
            self.load_lazily(lazy.get(chain[0]), chain)
        for chain in sorted(known.facts.dynamic):
            self.look_into(namespace, chain)
        if known.facts.unseen:
            self.notes[label] = "dynamic access: " + ", ".join(sorted(known.facts.unseen))

    def parts_of(self, function: FunctionType, label: str, known: KnownCode) -> None:
        """Let defaults, captured values and attributes count."""
        ignored = self.ignored if label == function.__qualname__ else ()
        for name, value in sorted(defaults_of(function, ignored).items()):
            if name in known.facts.parameter_writes and mark_of(value):  # a memo in a default
                self.put(f"{label}({name})", "state", type(value).__name__)
            else:
                self.variable(f"{label}({name})", value)
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        for name, value in sorted(captured_by(function).items()):
            if name in known.facts.captured_writes:
                self.put(f"{label}[{name}]", "state", type(value).__name__)
            else:
                self.cells[f"{label}[{name}]"] = cells[name]
                self.variable(f"{label}[{name}]", value)
        for name, value in sorted(attributes_of_function(function).items()):
            self.variable(f"{label}.{name}", value)

    def uses_of(self, known: KnownCode, module: str) -> None:
        facts = known.facts
        self.use(facts.attributes)
        if facts.looks_into_itself and known.method_of:
            self.whole_classes.add(self.label(module, known.method_of))
            self.revisit("")
        for prefix in facts.prefixes - self.prefixes:
            self.prefixes.add(prefix)
            self.revisit(prefix)

    def use(self, names: Iterable[str]) -> None:
        """Let the members of classes and modules that have one of these names count."""
        for name in set(names) - self.used:
            self.used.add(name)
            for cls, label, value in self.waiting.pop(name, ()):
                self.code.append((self.do_member, (cls, label, name, value)))
            for module in list(self.modules.values()):
                self.code.append((self.do_attribute, (module, name)))

    def revisit(self, prefix: str) -> None:
        for cls, label, members in self.classes:
            for name, value in members.items():
                if name.startswith(prefix) and self.takes(cls, name):
                    self.code.append((self.do_member, (cls, label, name, value)))

    # names

    def load(self, namespace: Mapping[str, Any], module: str, chain: Chain) -> None:
        """Follow a chain that begins with a global name."""
        name, tail = chain[0], chain[1:]
        if name in OF_MODULE or self.is_ignored(module, name):
            return
        if name not in namespace:
            self.checks.absent(namespace, name)
            self.use(tail)
            if not hasattr(builtins, name):
                self.put(self.label(module, name), "absent", "absent")
            return
        value = namespace[name]
        self.checks.name(namespace, name, value)
        if isinstance(value, ModuleType):
            self.follow(value, module, name, tail)
        else:
            self.use(tail)
            self.variable(self.label(module, name), value, namespace, name)

    def is_ignored(self, module: str, name: str) -> bool:
        if not self.ignore_globals:
            return False
        full = f"{module}.{name}"
        ignored = full in self.ignore_globals or (
            module == self.home and name in self.ignore_globals
        )
        if ignored:
            self.notes[self.label(module, name)] = "ignored, as ignore_globals says"
        return ignored

    def follow(self, value: ModuleType, module: str, name: str, tail: Chain) -> None:
        """Follow a chain through a module."""
        label = self.label(module, name)
        target = module_name(vars(value))
        if not is_own_namespace(vars(value)):
            self.put(label, "installed", target)
            self.follow_patched(value, label, tail)
            return
        self.put(label, "name", self.refer(value) if not tail else target)
        if extension_file(value):
            self.refer(value)
            return
        if not tail:
            return
        namespace, step = vars(value), tail[0]
        if step not in namespace and hasattr(value, step):  # a module may have __getattr__
            self.values.token(getattr(value, step))
            return
        self.load(namespace, target, tail)

    def follow_patched(self, module: ModuleType, label: str, chain: Chain) -> None:
        """Follow a chain through an installed module as far as the program has put there its own.

        What stands there is compared at each call, since it may be put there later.
        """
        for step in chain:
            namespace = vars(module)
            if step not in namespace:
                return
            value, label = namespace[step], f"{label}.{step}"
            self.checks.name(namespace, step, value)
            if not isinstance(value, ModuleType):
                if isinstance(value, FunctionType) and is_own_namespace(value.__globals__):
                    self.variable(label, value)
                return
            module = value

    def select(self, namespace: Mapping[str, Any], module: str, chain: Chain) -> None:
        """Follow a chain where a class only selects: its name is enough."""
        value: Any = namespace.get(chain[0], self)
        for step in chain[1:]:
            value = getattr(value, step, self)
        if isinstance(value, type):
            name = f"{value.__module__}.{value.__qualname__}"
            self.checks.name(namespace, chain[0], namespace[chain[0]])
            label = self.label(module, chain[0])
            if label not in self.nodes and not name.endswith(f".{chain[-1]}"):
                self.put(f"{label}?", "installed", name)
        else:
            self.load(namespace, module, chain)

    def imported_inside(
        self, known: KnownCode, namespace: Mapping[str, Any]
    ) -> dict[str, tuple[ModuleType, str]]:
        """Import the own modules that a body imports.

        Returns:
            By each name that an import binds, the module, and the name that is taken from it.
        """
        found: dict[str, tuple[ModuleType, str]] = {}
        for item in sorted(known.facts.imports):
            base = absolute(item, namespace)
            if not base or not is_own_module(base):
                continue
            try:
                module = import_module(base)
            except Exception:  # noqa: BLE001 (what a module raises when it is imported)
                self.put(base, "absent", "import fails")
                continue
            top = base.partition(".")[0]
            if not item.name:  # `import a.b` binds a, and `import a.b as c` binds a.b
                found[item.bound] = (sys.modules[top] if item.bound == top else module, "")
            elif item.name != "*":
                take_from(module, item.name)
                found[item.bound] = (module, item.name)
        return found

    def load_lazily(self, found: tuple[ModuleType, str] | None, chain: Chain) -> None:
        """Follow a chain that begins with a name that an import in the body binds."""
        if found is None:
            return
        module, name = found
        if name:
            self.load(vars(module), module_name(vars(module)), (name, *chain[1:]))
        else:
            self.follow(module, "import", chain[0], chain[1:])

    # variables and data

    def variable(
        self,
        label: str,
        value: Any,
        namespace: Mapping[str, Any] | None = None,
        name: str = "",
    ) -> None:
        """Let what a name stands for count."""
        if label in self.variables:
            return
        self.variables.add(label)
        if namespace is not None and (source := self.installed_source(namespace, name, value)):
            self.put(label, "installed", source)
        elif is_callable_code(value):
            token = self.values.token(value)
            if token != f"@{label}":
                shown = token[1:] if token.startswith("@") else ""
                self.put(self.beside(label), "name", token, shown)
            if isinstance(value, Transparent):
                self.attributes_of_decorated(label, value)
            if isinstance(value, Transparent) and value.spec.options.depends:  # type: ignore[attr-defined]
                self.checks.data.append(Datum(label, value, token, self.retake("")))
        else:
            self.data.append((label, value, namespace, name))

    def attributes_of_decorated(self, label: str, value: Any) -> None:
        """Let what was set on a decorated function count, as it does on a plain one."""
        own = vars(value)
        theirs = getattr(value.spec.function, "__dict__", {})
        for name in sorted(own):
            if (
                name.startswith("_")
                or name in ("spec", "lead")
                or own[name] is theirs.get(name, own)
            ):
                continue
            self.checks.name(own, name, own[name])
            self.variable(f"{label}.{name}", own[name])
        for name in self.used - set(own):
            if not hasattr(type(value), name):
                self.checks.absent(own, name)

    def installed_source(self, namespace: Mapping[str, Any], name: str, value: Any) -> str:
        """Return where a name is imported from, if that is installed, and still has it."""
        if type(value) in (int, float, str, bool):
            return ""
        found = imported_as(namespace, name)
        if found is None or found[0] is None or is_own_module(found[0]):
            return ""
        same = getattr(sys.modules.get(found[0]), found[1], self) is value
        return f"{found[0]}.{found[1]}" if same else ""

    def do_data(
        self, label: str, value: Any, namespace: Mapping[str, Any] | None, name: str
    ) -> None:
        """Let data count: by its definition if the code writes it, else by its value."""
        owner, _, last = name.rpartition(".")
        marks = {label, mark_of(value), f"*.{last}" if owner else ""} - {""}
        if marks & self.states:
            self.state(label, namespace, name)
            return
        self.walked |= marks
        here = directory_of(namespace) if namespace is not None else ""
        simple = isinstance(value, (int, float, str, bytes, tuple)) or not hasattr(
            value, "__dict__"
        )
        if namespace is not None and simple and is_from_clock(namespace, name):
            self.state(label, namespace, name)
            self.definition_of(namespace, name)
            self.notes[label] = "made by the clock, or by chance: counts as it is written"
            return
        values = Values(self.refer, here, self.filled_in)
        token = values.token(value)
        if values.unsteady:
            self.unsteady[label] = values.unsteady[0]
        if values.opaque:
            self.notes[label] = f"counts by type: {', '.join(sorted(set(values.opaque)))}"
            token = f"{token} {self.definition_of(namespace, name)}"
        self.put(self.beside(label), "data", token, show(value))
        retake = self.retake(here, values.counted)
        if values.mutable:
            plain = values.token(value) if values.opaque else token
            datum = Datum(label, value, plain, retake, values.snapshot, retake.settles)
            self.checks.data.append(datum)
        elif namespace is not None and namespace.get(name) is value:
            self.checks.variables.append((namespace, name, Datum(label, value, token, retake)))
        elif label in self.cells:
            self.checks.captured.append((self.cells[label], Datum(label, value, token, retake)))

    def definition_of(self, namespace: Mapping[str, Any] | None, name: str) -> str:
        """Return the syntax by which something without a digest is made, and follow its names."""
        if namespace is None or "." in name:
            return ""
        for statement in defining_statements(namespace, name):
            expression = getattr(statement, "value", None)
            if expression is not None:
                facts = facts_of_expression(expression)
                for chain in sorted(facts.loads - {(name,)}):
                    self.load(namespace, module_name(namespace), chain)
        return blake3(defining_syntax(namespace, name)).hexdigest()

    def state(self, label: str, namespace: Mapping[str, Any] | None, name: str) -> None:
        while namespace is not None and (found := imported_as(namespace, name)) is not None:
            module = sys.modules.get(found[0] or "")
            namespace, name = (vars(module) if module else None), found[1]
        syntax = defining_syntax(namespace, name) if namespace is not None else b""
        self.put(label, "state", blake3(syntax).hexdigest())
        self.notes[label] = "written by the code itself: counts as it is defined"

    def retake(self, here: str, counted: Collection[tuple[int, str]] = ()) -> Retake:
        return Retake(self.kept, here, filled_by(self.fills), counted)

    def filled_in(self, cls: type) -> set[str]:
        """Return the attributes that methods are known to fill when they are first wanted."""
        self.walked.update(map(place_of, cls.__mro__))
        return filled_by(self.fills)(cls)

    def writes_of(self, function: FunctionType, known: KnownCode, module: str) -> None:
        """Note which variables a function writes."""
        facts, namespace = known.facts, function.__globals__
        for name in facts.class_writes:
            self.write(f"*.{name}")
        if facts.fills and known.method_of:
            place = f"{module}:{known.method_of}"
            found = self.fills.setdefault(place, set())
            self.must_restart |= place in self.walked and not facts.fills <= found
            found |= facts.fills
        for chain in facts.writes:
            label, value = self.find_variable(namespace, module, chain)
            self.write(label)
            self.write(mark_of(value))
        for chain in facts.mutated:
            label, value = self.find_variable(namespace, module, chain)
            if type(value).__module__.partition(".")[0] in BUILT_IN:
                self.write(label)
                self.write(mark_of(value))

    def write(self, mark: str) -> None:
        """Note that a variable is written: its label, an object, or a name of class data."""
        if mark and mark not in self.states:
            self.states.add(mark)
            self.must_restart |= mark in self.walked

    def find_variable(
        self, namespace: Mapping[str, Any], module: str, chain: Chain
    ) -> tuple[str, Any]:
        """Return the label and the value of the variable that an assignment to a chain changes."""
        name, *tail = chain
        value = namespace.get(name, self)
        while isinstance(value, ModuleType):
            if not tail or not is_own_namespace(vars(value)):
                return "", None
            namespace, name = vars(value), tail.pop(0)
            module = module_name(namespace)
            value = namespace.get(name, self)
        if isinstance(value, type) and tail and is_own_object(value):
            owner = "__main__" if value.__module__ == "__mp_main__" else value.__module__
            member = vars(value).get(tail[0])
            return self.label(owner, f"{value.__qualname__}.{tail[0]}"), member
        if isinstance(value, (type, FunctionType, Transparent)):
            return "", None
        return self.label(module, name), value

    # classes

    def do_class(self, cls: Any, label: str) -> None:
        namespace = vars(sys.modules.get(cls.__module__, builtins))
        members, made = members_of(cls)
        annotations = members.pop("__annotations__", {})
        told = told_to(cls, made)
        bases = [self.values.token(base) for base in cls.__mro__[1:-1]]
        meta = "" if type(cls).__module__ in ("enum", "abc", "builtins") else type(cls)
        strict = any(has_types(base) for base in cls.__mro__)
        fields = annotations if strict else list(annotations)
        parts = [*bases, *map(self.values.token, (meta, told, fields))]
        self.put(label, "class", blake3("\0".join(parts).encode()).hexdigest(), class_text(cls))
        self.checks.cls(cls)
        self.classes.append((cls, label, members))
        for name, value in sorted(members.items()):
            if self.takes(cls, name):
                self.do_member(cls, label, name, value, namespace)
            else:
                self.waiting.setdefault(name, []).append((cls, label, value))

    def takes(self, cls: Any, name: str) -> bool:
        """Whether a member counts."""
        if name in self.used or (name.startswith("__") and name.endswith("__")):
            return True
        if name in ("_fields", "_field_defaults") and issubclass(cls, tuple):
            return True
        if any(name.startswith(prefix) for prefix in self.prefixes):
            return True
        if any(name in vars(base) for base in cls.__mro__[1:-1] if not is_own_object(base)):
            return True  # installed code may call it
        return any(
            self.label(base.__module__, base.__qualname__) in self.whole_classes
            for base in cls.__mro__
        )

    def do_member(
        self,
        cls: Any,
        label: str,
        name: str,
        value: Any,
        namespace: Mapping[str, Any] | None = None,
    ) -> None:
        place = f"{label}.{name}"
        if place in self.members:
            return
        self.members.add(place)
        if name in vars(cls):
            self.checks.member(cls, name, vars(cls)[name])
        namespace = namespace or vars(sys.modules.get(cls.__module__, builtins))
        self.variable(place, value, namespace, f"{cls.__qualname__}.{name}")

    # modules as values

    def refer_to_module(self, module: ModuleType) -> str:
        name = module_name(vars(module))
        if not is_own_namespace(vars(module)):
            return f"module {name}"
        if name not in self.modules:
            if file := extension_file(module):
                self.put(name, "file", digest_of_file(file), file.rpartition("/")[2])
                return f"module {name}"
            self.modules[name] = module
            for attribute in sorted(vars(module)):
                if attribute in self.used:
                    self.code.append((self.do_attribute, (module, attribute)))
        return f"module {name}"

    def do_attribute(self, module: ModuleType, name: str) -> None:
        namespace = vars(module)
        if name in namespace and not name.startswith("__"):
            self.load(namespace, module_name(namespace), (name,))

    def look_into(self, namespace: Mapping[str, Any], chain: Chain) -> None:
        """Let all functions of a module count whose names are made at run time."""
        value: Any = namespace.get(chain[0])
        for step in chain[1:]:
            value = getattr(value, step, None)
        if isinstance(value, ModuleType) and is_own_namespace(vars(value)):
            self.refer_to_module(value)
            for name, found in sorted(vars(value).items()):
                if isinstance(found, (FunctionType, Transparent)):
                    self.code.append((self.do_attribute, (value, name)))

    def take_whole_packages(self) -> None:
        """Let the packages that were met count by the syntax of their files."""
        self.nodes = {label: node for label, node in self.nodes.items() if node.kind == "version"}
        self.checks = Checks()
        tops = {*self.tops, self.home.partition(".")[0]}
        for name in sorted(tops):
            module = sys.modules.get(name)
            if module is not None and is_own_namespace(vars(module)):
                self.put(name, "package", digest_of_package(module))
        self.notes["<limit>"] = (
            "there is more to follow than is worth it; these packages count as a whole: "
            + ", ".join(sorted(self.nodes))
        )


def absolute(item: Import, namespace: Mapping[str, Any]) -> str:
    """Return the full name of the module that an import names."""
    if not item.level:
        return item.module
    package = namespace.get("__package__") or ""
    parts = package.split(".")
    kept = parts[: len(parts) - item.level + 1]
    return ".".join([*kept, *([item.module] if item.module else [])])


def take_from(module: ModuleType, name: str) -> None:
    """Import a submodule that ``from module import name`` would import."""
    if not hasattr(module, name):
        with suppress(Exception):  # what a module raises when it is imported
            import_module(f"{module.__name__}.{name}")


def mark_of(value: Any) -> str:
    """Return what an object that can change is known by, whatever names lead to it."""
    immutable = (int, float, complex, str, bytes, tuple, frozenset, type, FunctionType, type(None))
    return "" if isinstance(value, immutable) else f"object {id(value)}"


def has_types(cls: type) -> bool:
    """Whether a class makes something of the types of its fields, as pydantic and msgspec do."""
    names = ("__pydantic_fields__", "__attrs_attrs__", "__struct_fields__", "__mapper__")
    return any(name in vars(cls) for name in names)


def class_text(cls: Any) -> str:
    return f"class {cls.__qualname__}({', '.join(base.__name__ for base in cls.__bases__)})"


def show(value: Any) -> str:
    """Return a short text that shows a value, never by the ``repr`` of an unknown class."""
    import reprlib

    if type(value) in (bool, int, float, complex, str, bytes, type(None)):
        return reprlib.repr(value)
    if type(value) in (list, tuple, dict, set, frozenset):
        kinds = {type(part) for part in [*value, *(value.values() if type(value) is dict else ())]}
        if kinds <= {bool, int, float, str, type(None)}:
            return reprlib.repr(value)
    shape = getattr(value, "shape", "")
    return f"{type(value).__qualname__}{list(shape) if isinstance(shape, tuple) else ''}"
