"""The variables that code loads and writes, and how their content counts."""

from __future__ import annotations

import gc
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from threading import local
from types import (
    BuiltinFunctionType,
    CellType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any, NamedTuple, TypeAlias

from fleche._util import override
from fleche.digest import (
    captured_by,
    defaults_of,
    imported_as,
    is_from_clock,
    is_simple,
    own_module,
)
from fleche.function._closure import Findings, show
from fleche.function._code import KnownCode, code_of
from fleche.function._definitions import (
    CALLABLE,
    NOTHING,
    Definitions,
    Variable,
    function_of,
    functions_in,
    mark_of_attribute,
)
from fleche.function._facts import Facts
from fleche.function._filling import filled_by, late
from fleche.function._fills import Fills
from fleche.function._kinds import attribute_of, is_callable_code
from fleche.function._masks import can_mask
from fleche.function._names import MUTATORS
from fleche.function._own import (
    directory_of,
    is_own_module,
    is_own_object,
    module_name,
)
from fleche.function._reaching import home_of
from fleche.function._recheck import Datum, Late
from fleche.function._retake import Retake
from fleche.function._signature import Transparent
from fleche.function._trees import Chain
from fleche.function._values import Values, needs_maker

__all__ = ["Imported", "Variables", "Writes", "mark_of"]

BUILT_IN = ("builtins", "collections", "weakref", "_weakrefset", "_thread", "array", "numpy")
"""Modules whose containers have the mutating methods that are known."""

DICTS = (dict, OrderedDict, defaultdict, Counter)
OF_BASES = ("__init_subclass__", "__set_name__")
OF_METACLASSES = (*OF_BASES, "__prepare__", "__new__", "__init__")
"""Methods that run when a class is made: of its bases and attributes, and of its metaclass."""


Imported: TypeAlias = "tuple[ModuleType | str, str]"
"""An own module, or the name of an installed one, and the name that is taken from it, or ""."""


class Writes:
    """What code writes, as far as it has been read.

    Attributes:
        marks: of variables: their labels, objects, and names of class data.
        parts: chains of steps to the parts of variables that it writes where it does not write the
            whole, by the mark.
        late: marks of variables that it only assigns to where there is nothing yet.
        fills: what methods fill when it is first wanted, by the place of their class, and by name.
        attributes: the names of attributes of functions that it writes, by the ``id`` of these.
        makes_classes: whether some of the code makes classes when it runs.
        imports: what imports in bodies bind to global names, by the module and the name.
    """

    def __init__(self) -> None:
        self.marks: set[str] = set()
        self.parts: dict[str, set[Chain]] = {}
        self.late: set[str] = set()
        self.fills: dict[str, dict[str, Fills]] = {}
        self.attributes: dict[int, set[str]] = {}
        self.makes_classes = False
        self.imports: dict[tuple[str, str], list[Imported]] = {}


class Attribute(NamedTuple):
    """An attribute of a function.

    Attributes:
        holder: the function.
        name: what it is called.
        define: returns the hash of the statements that set it before code does, and follows them;
            "" if there are none.
    """

    holder: Any
    name: str
    define: Callable[[], str]


class Variables:
    """The variables of code that is followed, and what they hold.

    Args:
        found: where what counts is noted.
        writes: what code is known to write.
        kept: functions, classes and modules that are followed, with their tokens, by ``id``.
        used: names that occur as attributes.
        refer: returns the token of code, and sees to it that it is followed.
        load: follows a chain of names that begins in a namespace.
        use: lets members so called count.

    Attributes:
        must_restart: something that was looked at before turned out to be written by code.
        waiting: data, to look at when all code has been followed.
        cells: what holds captured variables, by label.
        attributes: attributes of functions, by label.
        values: makes the tokens of what code refers to.
        hooks: methods that run when a class is made, by ``id``.
        looked_at: what the variables hold.
        defined: what counts by how it is made: the names of the modules, and those of variables.
        callers: modules of the installed functions, classes and objects that code names.
    """

    def __init__(
        self,
        found: Findings,
        writes: Writes,
        kept: dict[int, tuple[Any, str]],
        used: set[str],
        refer: Callable[[Any], str],
        load: Callable[[Mapping[str, Any], str, Chain], None],
        use: Callable[[Iterable[str]], None],
    ) -> None:
        self.found = found
        self.writes = writes
        self.kept = kept
        self.used = used
        self.refer = refer
        self.must_restart = False
        self.waiting: deque[tuple[Any, ...]] = deque()
        self.cells: dict[str, CellType] = {}
        self.attributes: dict[str, Attribute] = {}
        self.values = Values(refer, fills=self.filled_in)
        self.definitions = Definitions(found, use, load)
        self.seen: set[str] = set()
        self.walked: set[str] = set()
        self.asked: set[tuple[str, str]] = set()
        self.counted: set[str] = set()
        self.homonyms: dict[str, dict[str, int]] = {}
        self.defined: list[tuple[Mapping[str, Any] | None, str]] = []
        self.filled: dict[type, dict[str, bool]] = {}
        self.hooks: set[int] = set()
        self.looked_at: list[Any] = []
        self.callers: set[str] = set()
        self.tokens: dict[tuple[int, str, frozenset[Chain]], tuple[Values, str]] = {}

    # what code loads

    def add(
        self,
        label: str,
        value: Any,
        namespace: Mapping[str, Any] | None = None,
        name: str = "",
    ) -> None:
        """Let what a name stands for count."""
        if namespace is not None:  # there may be several modules of one name
            numbers = self.homonyms.setdefault(label, {})
            number = numbers.setdefault(str(namespace.get("__file__")), len(numbers) + 1)
            label = f"{label}#{number}" if number > 1 else label
        if label in self.seen:
            return
        self.seen.add(label)
        self.callers.add(home_of(value))
        if namespace is not None and (source := self.installed_source(namespace, name, value)):
            self.found.put(label, "installed", source)
            return
        if isinstance(value, type) and issubclass(value, type) and is_own_object(value):
            self.note_making()
        if not is_callable_code(value) or self.is_written(label):
            self.waiting.append((label, value, namespace, name))
            return
        self.add_code(label, value, namespace, name)
        if isinstance(value, Transparent):
            if "spec" in vars(value):  # another one, after a reload
                self.found.checks.name(vars(value), "spec", value.spec)  # type: ignore[attr-defined]
            self.attributes_of_decorated(label, value)
        if namespace is not None and (function := function_of(value)) is not None:
            self.add_making(label, function, namespace, name)

    def add_code(
        self,
        label: str,
        value: Any,
        namespace: Mapping[str, Any] | None = None,
        name: str = "",
    ) -> None:
        """Let code count, and what it is bound to: the object of a method, what a partial holds."""
        held = list(map(mark_of, bound_to(value)))
        if is_mutating(value):
            self.write(held[0])
        masks = {id(each): self.parts_written([mark_of(each)]) for each in bound_to(value)}
        if self.are_written(held) or not can_mask_all(bound_to(value), masks):
            self.state(label, value, namespace, name)
            return
        values = Values(self.refer, fills=self.filled_in, masks=masks)
        token = values.token(value)
        if token == f"@{label}":
            return
        shown = token[1:] if token.startswith("@") else ""
        self.found.put(self.found.beside(label), "name", token, shown)
        attribute = self.attributes.get(label)
        if values.by_maker and (attribute or not isinstance(value, CALLABLE)):
            by_name = partial(self.definitions.of, namespace, name)
            defined = (attribute.define if attribute else by_name)()
            if defined not in (NOTHING, ""):
                self.found.put(self.found.beside(label), "state", defined)
        depends = isinstance(value, Transparent) and value.spec.options.depends  # type: ignore[attr-defined]
        if values.mutable or depends:
            retake = self.retake("", values.counted, masks)
            snapshot = None if depends else values.snapshot
            self.found.checks.data.append(retake.datum(label, value, token, snapshot))

    def add_making(
        self, label: str, function: FunctionType, namespace: Mapping[str, Any], name: str
    ) -> None:
        """Let count how a function is made, if what it captures and writes follows from that."""
        if not needs_maker(function):
            return
        if (defined := self.definitions.of(namespace, name)) != NOTHING:
            self.found.put(self.found.beside(label), "state", defined)

    def add_making_of_entry(self, entry: FunctionType) -> None:
        """Let count how the function itself is made, by the name that it has in its module."""
        home = sys.modules.get(self.found.home)
        if home is None or not needs_maker(entry):
            return
        for name, value in list(vars(home).items()):
            if issubclass(type(value), CALLABLE) and function_of(value) is entry:
                self.add_making(name, entry, vars(home), name)
                return

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
            if name not in self.writes.attributes.get(id(value), ()):
                self.found.checks.name(own, name, own[name])
            self.add_attribute(label, value, name, own[name])
        for name in self.used - set(own):
            if not hasattr(type(value), name):
                self.found.checks.absent(own, name)

    def add_attribute(self, label: str, holder: Any, name: str, value: Any) -> None:
        """Let count what was set on a function, plain or decorated."""
        function = function_of(holder)
        define = partial(self.definitions.of_attribute, function, name) if function else str
        self.attributes[f"{label}.{name}"] = Attribute(holder, name, define)
        self.add(f"{label}.{name}", value)

    def installed_source(self, namespace: Mapping[str, Any], name: str, value: Any) -> str:
        """Return where a name is imported from, if that is installed, and still has it."""
        if type(value) in (int, float, str, bool):
            return ""
        found = imported_as(namespace, name)
        if found is None or is_own_module(found[0]):
            return ""
        same = getattr(sys.modules.get(found[0]), found[1], self) is value
        return f"{found[0]}.{found[1]}" if same else ""

    def stored_in(self, facts: Facts, namespace: Mapping[str, Any]) -> set[Chain]:
        """Return the variables that count although code only sets items of them.

        What a dict of Python holds has no influence on that.
        """
        found: set[Chain] = set()
        for name in facts.stores:
            if type(value := namespace.get(name)) in DICTS:
                self.found.checks.name(namespace, name, value)
            else:
                found.add((name,))
        return found

    def left_alone(self, namespace: Mapping[str, Any], chain: Chain) -> Any:
        """Return what a variable holds that no code is known to write; else None."""
        found = self.definitions.variable(namespace, chain)
        marks = {found.label, mark_of(found.value)}
        is_written = self.are_written(marks) or self.parts_written(marks)
        return None if is_written or not found.label else found.value

    # what they hold

    def look_at(
        self, label: str, value: Any, namespace: Mapping[str, Any] | None, name: str
    ) -> None:
        """Let data count: by its definition if the code writes it, else by its value."""
        self.looked_at.append(value)
        owner, _, last = name.rpartition(".")
        marks = [label, mark_of(value), f"*.{last}" if owner else "", mark_of(shown_by(value))]
        if label in self.attributes:
            marks.append(mark_of_attribute(*self.attributes[label][:2]))
        parts = self.parts_written(marks)
        if self.are_written(marks) or (parts and self.is_state(value, parts, namespace, name)):
            self.state(label, value, namespace, name)
            return
        if not self.writes.late.isdisjoint(marks):
            self.look_at_late(label, value, namespace, name)
            return
        here = directory_of(namespace) if namespace is not None else ""
        if namespace is not None and is_simple(value) and is_from_clock(namespace, name):
            self.state(label, value, namespace, name)
            self.found.notes[label] = "made by the clock, or by chance: counts as it is written"
            return
        values, plain, is_known = self.token_of(value, here, parts)
        token = plain
        self.note_unseen(label, values)
        if values.opaque or values.by_maker:
            token = f"{token} {self.define(namespace, name)}"
        if parts:
            token = f"{token} {self.define(namespace, name)}"
            self.found.notes[label] = (
                "written by the code itself, in part: that counts as it is defined"
            )
        kind, shown = ("state", "") if parts else ("data", show(value))
        self.found.put(self.found.beside(label), kind, token, shown)
        if is_known and values.mutable:
            return
        retake = self.retake(here, values.counted, {id(value): parts})
        if values.mutable:
            checks = self.found.checks
            checks.data.append(retake.datum(label, value, plain, values.snapshot))
        else:
            self.expect(Datum(label, value, plain, retake), namespace, name)

    def note_unseen(self, label: str, values: Values) -> None:
        """Note what in a value does not count."""
        if values.unsteady:
            self.found.unsteady[label] = values.unsteady[0]
        if values.opaque:
            self.found.notes[label] = f"counts by type: {', '.join(sorted(set(values.opaque)))}"

    def expect(self, datum: Datum, namespace: Mapping[str, Any] | None, name: str) -> None:
        """Let a variable be looked at after the body has run, as it may be set anew."""
        checks = self.found.checks
        if namespace is not None and namespace.get(name) is datum.value:
            checks.variables.append((namespace, name, datum))
        elif datum.label in self.cells:
            checks.captured.append((self.cells[datum.label], datum))

    def token_of(self, value: Any, here: str, parts: set[Chain]) -> tuple[Values, str, bool]:
        """Return what has made the token of data, the token, and whether that was known before.

        Many variables may lead to one object, as all classes of units do to their registry.
        """
        place = id(value), here, frozenset(parts)
        if place in self.tokens:
            return (*self.tokens[place], True)
        values = Values(self.refer, here, self.filled_in, masks={id(value): parts})
        self.tokens[place] = values, values.token(value)
        return (*self.tokens[place], False)

    def look_at_late(
        self, label: str, value: Any, namespace: Mapping[str, Any] | None, name: str
    ) -> None:
        """Let a variable that code assigns to where there is nothing count as the program left it.

        What a body has put there, and has changed there, follows from what is followed anyway.
        """
        attribute = self.attributes.get(label)
        space = namespace if attribute is None else vars(attribute.holder)
        path = name if attribute is None else attribute.name
        if space is None or find_path(space, path) is not value:
            self.state(label, value, namespace, name)
            return
        place = (
            f"{self.found.home if namespace is None else module_name(namespace)}:{name or label}"
        )
        retake = Retake({}, "", filled_by({}), ())
        before = late.before(place, value, retake)
        if before is None:
            here = directory_of(namespace) if namespace is not None else ""
            before = Values(self.refer, here, self.filled_in).token(value)
        defined = attribute.define() if attribute else self.define(namespace, name)
        token = f"{defined} {before}"
        self.found.put(self.found.beside(label), "state", token)
        self.found.notes[label] = "written by the code itself where there is nothing yet"
        find = partial(find_path, space, path)
        self.found.checks.late.append(Late(place, find, value, before, retake(value), retake))

    def is_state(
        self, value: Any, parts: set[Chain], namespace: Mapping[str, Any] | None, name: str
    ) -> bool:
        """Whether a variable that code writes in part cannot be looked at without these parts."""
        from_clock = namespace is not None and is_from_clock(namespace, name)
        return from_clock or not can_mask(value, parts)

    def state(self, label: str, value: Any, namespace: Mapping[str, Any] | None, name: str) -> None:
        """Let a variable count by its definition, and by the code that is in it.

        An attribute that nothing defines is as good as none: code has made it, or is about to.
        """
        attribute = self.attributes.get(label)
        defined = attribute.define() if attribute else self.define(namespace, name)
        if defined not in (NOTHING, "") or not (attribute or "." in name):
            self.found.put(self.found.beside(label), "state", defined)
        self.found.notes[label] = "written by the code itself: counts as it is defined"
        self.follow_code_in(value)

    def define(self, namespace: Mapping[str, Any] | None, name: str) -> str:
        """Return what says how a variable is made, see :meth:`Definitions.of`."""
        self.defined.append((namespace, name))
        return self.definitions.of(namespace, name)

    def add_absent(self, label: str, namespace: Mapping[str, Any], name: str) -> None:
        """Let count that a variable is not there, unless it is for the code to make."""
        if self.are_written([label]):
            self.state(label, None, namespace, name)
        else:
            self.found.put(label, "absent", "absent")

    def follow_code_in(self, value: Any) -> None:
        """Let the code count that is in a value which does not count itself."""
        held = CodeIn(self.refer, self.is_made_by_code)
        with suppress(Exception):  # what an object raises when it is looked into
            held.token(value)

    def is_made_by_code(self, obj: FunctionType | type) -> bool:
        """Whether a function or class is made by a function that is followed, and so part of it."""
        if isinstance(obj, FunctionType):
            module, path = module_name(obj.__globals__), code_of(obj).qualname
        else:
            module, path = own_module(obj), obj.__qualname__
        outer = path.rpartition(".<locals>.")[0]
        return bool(outer) and self.found.label(module, outer) in self.found.nodes

    def is_written(self, label: str) -> bool:
        """Whether code is known to assign to a variable; else note that it was met."""
        return label in self.writes.late or self.are_written([label])

    def are_written(self, marks: Iterable[str]) -> bool:
        """Whether code is known to write one of some variables; else note that they were met."""
        found = set(marks) - {""}
        if found & self.writes.marks:
            return True
        self.walked |= found
        return False

    def parts_written(self, marks: Iterable[str]) -> set[Chain]:
        """Return the parts that code is known to write of one of some variables."""
        return set().union(*(self.writes.parts.get(mark, ()) for mark in marks))

    def retake(
        self,
        here: str,
        counted: Collection[tuple[int, str]] = (),
        masks: Mapping[int, set[Chain]] | None = None,
    ) -> Retake:
        return Retake(self.kept, here, filled_by(self.writes.fills), counted, masks)

    def filled_in(self, cls: type) -> dict[str, bool]:
        """Return the attributes that methods are known to fill when they are first wanted."""
        found = self.filled[cls] = filled_by(self.writes.fills)(cls)
        return found

    # what code writes

    def note_hooks(self, cls: type) -> None:
        """Note the methods of a class that run when another class is made."""
        names = OF_METACLASSES if issubclass(cls, type) else OF_BASES
        members = [vars(cls).get(name) for name in names]
        self.hooks.update(id(getattr(member, "__func__", member)) for member in members)

    def note_making(self) -> None:
        """Note that code makes classes when it runs, and so runs their hooks."""
        self.must_restart |= bool(self.hooks) and not self.writes.makes_classes
        self.writes.makes_classes = True

    def note_writes(self, function: FunctionType, known: KnownCode, module: str) -> None:
        """Note which variables a function writes when it runs."""
        facts, namespace = known.facts, function.__globals__
        if facts.makes_classes:
            self.note_making()
        if id(function) in self.hooks and not self.writes.makes_classes:
            return
        for attribute, *steps in facts.class_writes:
            place = (attribute, *steps)
            self.write(f"*.{attribute}", steps, is_late=place in facts.lazily)
            if place in facts.counters:
                self.note_counters(f"*.{attribute}", namespace)
        if known.method_of and facts.fills != Fills():
            self.note_fills(f"{module}:{known.method_of}", known)
        self.note_bound(function, facts)
        for chain in facts.writes:
            found = self.variable_written(namespace, chain)
            self.write_variable(found, is_late=chain in facts.lazily and not found.part)
            if chain in facts.counters and found.part:
                self.note_counters(found.label, namespace, found.space)
        for chain in facts.mutated:
            label, value, part, *_ = self.variable_written(namespace, chain)
            target, items = find_part(value, part)
            if target is not None and type(target).__module__.partition(".")[0] in BUILT_IN:
                self.write(label, part)
                self.write(mark_of(value), part)
                self.write(mark_of(target), items)

    def write_variable(self, variable: Variable, *, is_late: bool = False) -> None:
        """Note that a variable is written, or the part of it."""
        self.write(variable.label, variable.part, is_late=is_late)
        self.write(variable.anew, variable.part, is_late=is_late)
        if not is_late:
            self.write(mark_of(variable.value), variable.part)

    def note_counters(self, label: str, *spaces: Mapping[str, Any]) -> None:
        """Note what functions of some modules count in a variable where the code counts, too.

        Each counts something of its own, and what the others count is no reason to compute again.

        Args:
            label: that of the variable, or what attributes of a class are known by.
            spaces: the names of the modules.
        """
        if label in self.counted:
            return
        self.counted.add(label)
        for function in {each for space in spaces for each in functions_in(space)}:
            facts = code_of(function).facts
            for chain in facts.counters & facts.writes:
                found = self.definitions.variable(function.__globals__, chain)
                if found.label == label:
                    self.write_variable(found)
            for attribute, *steps in facts.counters & facts.class_writes:
                if f"*.{attribute}" == label:
                    self.write(label, steps)

    def note_fills(self, place: str, known: KnownCode) -> None:
        """Note what a method fills; what objects hold may have been looked at without knowing."""
        methods = self.writes.fills.setdefault(place, {})
        name = known.qualname.rpartition(".")[2]
        if methods.get(name) == known.facts.fills:
            return
        methods[name] = known.facts.fills
        filled = filled_by(self.writes.fills)
        self.must_restart |= any(filled(cls) != found for cls, found in self.filled.items())

    def write(self, mark: str, steps: Iterable[str] = (), *, is_late: bool = False) -> None:
        """Note that a variable is written: its label, an object, or a name of class data.

        If there are steps, only the part that they lead to is; if it is late, only where there is
        nothing yet.
        """
        if not mark:
            return
        if is_late:
            self.must_restart |= mark in self.walked and mark not in self.writes.late
            self.writes.late.add(mark)
            return
        part = tuple(steps)
        parts = self.writes.parts.get(mark, set())
        if mark in self.writes.marks or part in parts:
            return
        if part:
            self.writes.parts[mark] = {*parts, part}
        else:
            self.writes.marks.add(mark)
        self.must_restart |= mark in self.walked

    def note_import(self, namespace: Mapping[str, Any], name: str, found: list[Imported]) -> None:
        """Note what an import in a body binds to a global name."""
        place = module_name(namespace), name
        known = self.writes.imports.setdefault(place, [])
        added = [each for each in found if each not in known]
        known += added
        self.must_restart |= bool(added) and place in self.asked

    def imported(self, namespace: Mapping[str, Any], name: str) -> list[Imported]:
        """Return what imports in bodies bind to a global name, unless it holds something else."""
        place = module_name(namespace), name
        is_new = place not in self.asked
        self.asked.add(place)
        found = self.writes.imports.get(place, [])
        if not found or foreign_at(name, found, namespace):
            return []
        if is_new:
            label, look = self.found.label(*place), partial(foreign_at, name, found)
            self.found.checks.data.append(Datum(label, namespace, "", look))
        return found

    def note_bound(self, function: FunctionType, facts: Facts) -> None:
        """Note what a function writes of its defaults, and of functions that it has captured."""
        held = captured_by(function) if facts.captured_attributes else {}
        for root, name in facts.captured_attributes:
            if isinstance(held.get(root), CALLABLE):
                self.write(self.attribute_written(held[root], name))
        given = defaults_of(function, ()) if facts.parameter_writes else {}
        for parameter in facts.parameter_writes & given.keys():
            self.write(mark_of(given[parameter]))

    def attribute_written(self, holder: Any, name: str) -> str:
        """Note that code writes an attribute of a function, and return what marks it."""
        self.writes.attributes.setdefault(id(holder), set()).add(name)
        return mark_of_attribute(holder, name)

    def variable_written(self, namespace: Mapping[str, Any], chain: Chain) -> Variable:
        """Return the variable that code changes; note it if it is an attribute of a function."""
        found = self.definitions.variable(namespace, chain)
        if found.attribute is not None:
            self.attribute_written(*found.attribute)
        return found


def foreign_at(name: str, found: list[Imported], namespace: Mapping[str, Any]) -> str:
    """Return "" if a global name holds nothing yet, or what one of some imports binds to it."""
    value = namespace.get(name)
    for source, attribute in found:
        module = sys.modules.get(source) if isinstance(source, str) else source
        theirs = getattr(module, "__dict__", {}).get(attribute) if attribute else module
        if value is None or value is theirs:
            return ""
    return "another"


class CodeIn(Values):
    """Meets the code that is in something whose value does not count.

    What code that is followed has made itself is part of that: of it counts only what it captures.
    """

    def __init__(
        self, refer: Callable[[Any], str], is_made: Callable[[FunctionType | type], bool]
    ) -> None:
        super().__init__(self.refer_to_foreign)
        self.follow = refer
        self.is_made = is_made

    def refer_to_foreign(self, obj: Any) -> str:
        if isinstance(obj, (FunctionType, type)) and self.is_made(obj):
            captured = captured_by(obj) if isinstance(obj, FunctionType) else {}
            return self.joined("made", captured.values())
        return self.follow(obj)

    @override
    def plain(self, value: Any, kind: type) -> str:
        return ""

    @override
    def leaf(self, value: Any) -> str:
        return ""


def bound_to(value: Any) -> tuple[Any, ...]:
    """Return the objects that a method or a partial is bound to."""
    if isinstance(value, partial):
        return (*value.args, *value.keywords.values())
    # functions of Boost say of themselves that they are of this class, and are not
    if issubclass(type(value), (MethodType, BuiltinFunctionType)):
        return (value.__self__,)
    return ()


def find_path(namespace: Mapping[str, Any], path: str) -> Any:
    """Return what a name stands for, or an attribute of a class; None if there is nothing."""
    first, *rest = path.split(".")
    value = namespace.get(first)
    for step in rest:
        value = getattr(value, "__dict__", {}).get(step)
    return value


def find_part(value: Any, part: Chain) -> tuple[Any, Chain]:
    """Return the object that some attributes lead to from another, and which items follow."""
    for count, step in enumerate(part):
        if step.startswith("["):
            return value, part[count:]
        inner = attribute_of(value, step)
        if inner is None and type(value) is local:  # nothing is there before it is used
            return value, part[count:]
        value = inner
    return value, ()


def can_mask_all(values: Iterable[Any], masks: Mapping[int, set[Chain]]) -> bool:
    """Whether all of some objects can be looked at without the parts that code writes."""
    return all(can_mask(each, masks[id(each)]) for each in values)


def is_mutating(value: Any) -> bool:
    """Whether a value is a method that changes a container of Python or numpy."""
    if type(value) is not BuiltinFunctionType or value.__name__ not in MUTATORS:
        return False
    return type(value.__self__).__module__.partition(".")[0] in BUILT_IN


def shown_by(value: Any) -> Any:
    """Return the dict that a read-only view shows; None if it is something else."""
    return next(iter(gc.get_referents(value)), None) if type(value) is MappingProxyType else None


def mark_of(value: Any) -> str:
    """Return what an object that can change is known by, whatever names lead to it."""
    immutable = (int, float, complex, str, bytes, tuple, frozenset, type(None))
    if isinstance(value, (type, FunctionType, ModuleType)):
        return ""
    return "" if isinstance(value, immutable) else f"object {id(value)}"
