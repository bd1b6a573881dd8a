"""What a definition does with names, read from its syntax tree with the scopes that names have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from fleche.digest import full_name, inner_nodes, is_type_checking
from fleche.function._facts import ALL, MARKED, Facts, Import
from fleche.function._fills import fills_of, set_by_clock, written_lazily
from fleche.function._trees import (
    COMPREHENSIONS,
    FUNCTIONS,
    Chain,
    Scope,
    chain_of,
    constant_text,
    hides_names,
    is_class_of_self,
    is_own_package,
    item_step,
    items_changed,
    mangle,
    mentions_own_package,
    names_in_format,
    prefix_of,
    suffix_of,
    texts_within,
)

__all__ = [
    "FINDERS",
    "IMPORTERS",
    "MUTATORS",
    "RUNNERS",
    "facts_of_body",
    "facts_of_expression",
    "facts_of_syntax",
]

MUTATORS = frozenset(
    [
        "add",
        "append",
        "appendleft",
        "clear",
        "discard",
        "extend",
        "extendleft",
        "fill",
        "insert",
        "pop",
        "popitem",
        "popleft",
        "put",
        "remove",
        "resize",
        "reverse",
        "rotate",
        "setdefault",
        "sort",
        "subtract",
        "update",
    ]
)
"""Methods by which builtin containers are changed."""

SETTERS = {"__setattr__": 2, "__delattr__": 1}
"""Methods that set or delete an attribute, and which argument, from the last, is its name."""

NAMED_ACCESS = ("getattr", "hasattr", "setattr", "delattr")
LISTERS = ("dir", "getmembers", "getmembers_static")
IMPORTERS = ("__import__", "import_module")
RUNNERS = ("run_path", "run_module", "spec_from_file_location", "SourceFileLoader", "load_source")
"""Functions of the standard library that run a file or a module by a name that they get."""

FINDERS = ("locate", "resolve_name")
"""Functions of the standard library that find a module by a name that they get."""

UNSEEN = ("eval", "exec", "globals", "vars", "locals", *IMPORTERS)
EVALUATORS = ("eval", "exec", "compile")
FRAMES = ("_getframe", "currentframe")
"""Functions that lead to the variables of others, mostly in order to evaluate what they say."""

LONGEST_TEXT = 10_000
MAKERS = ("new_class", "make_dataclass", "namedtuple", "create_model", "make_class")
GETTERS = ("attrgetter", "methodcaller")
BEGINNINGS = ("__init__", "__new__", "__post_init__", "__attrs_post_init__", "__setstate__")
"""Methods that give an object what it begins with."""

ASKED = ("__getattr__", "__getattribute__")
"""Methods that are told the name of an attribute."""


def facts_of_syntax(syntax: Any, owner: str, captured: Iterable[str]) -> Facts:
    """Return the facts of a function or lambda.

    Args:
        syntax: its node of the syntax tree.
        owner: the innermost class that it stands in, which private names belong to.
        captured: its captured variables.
    """
    reader = Reader(captured)
    scope = Scope(syntax, None, owner)
    reader.first = scope.first
    body = syntax.body if isinstance(syntax.body, list) else [syntax.body]
    reader.read([(item, scope) for item in body])
    if getattr(syntax, "name", "") in ASKED:  # of what others use as attributes, the names count
        reader.facts.looks_into_others = False
        if not owner:  # what a module makes so is followed itself
            reader.facts.imports_by_name.clear()
    reader.facts.lazily = written_lazily(body)
    reader.facts.loads |= loads_of_memos(syntax.args, reader.facts.parameter_writes)
    if owner:
        reader.facts.by_clock = set_by_clock(body, scope.first, lambda name: mangle(name, owner))
    if owner and getattr(syntax, "name", "") not in BEGINNINGS:
        reader.facts.fills = fills_of(body, scope.first, lambda name: mangle(name, owner))
    return reader.facts


def loads_of_memos(args: Any, written: set[str]) -> set[Chain]:
    """Return the names in the defaults of parameters that code changes in place.

    What such a default holds does not count, but what it was made of.
    """
    given = [*args.posonlyargs, *args.args]
    pairs = [*zip(given[::-1], args.defaults[::-1], strict=False)]
    pairs += zip(args.kwonlyargs, args.kw_defaults, strict=True)
    made = [default for arg, default in pairs if arg.arg in written and default is not None]
    return set().union(*(facts_of_expression(each).loads for each in made))


def facts_of_expression(syntax: Any) -> Facts:
    """Return the facts of an expression at the top of a module."""
    import ast

    nothing = ast.arguments([], [], None, [], [], None, [])
    return facts_of_syntax(ast.Lambda(nothing, syntax), "", ())


def facts_of_body(body: list[Any]) -> Facts:
    """Return the facts of the statements of a module, with those in its functions and classes."""
    import ast

    reader = Reader(())
    scope = Scope(ast.Module(body, []), None, "")
    reader.read([(item, scope) for item in body])
    return reader.facts


Step: TypeAlias = "tuple[Any, Scope]"


class Reader:
    """Walks over a syntax tree with a stack of (node, scope)."""

    def __init__(self, captured: Iterable[str]) -> None:
        self.facts = Facts()
        self.captured = frozenset(captured)
        self.first = ""
        self.pending: list[Step] = []
        self.told: set[int] = set()

    def read(self, steps: list[Step]) -> None:
        self.pending += steps
        while self.pending:
            item, scope = self.pending.pop()
            handler = HANDLERS.get(type(item).__name__)
            if handler is None:
                self.go_on(item, scope)
            else:
                handler(self, item, scope)

    def go_on(self, item: Any, scope: Scope) -> None:
        self.pending += [(child, scope) for child in inner_nodes(item)]

    def enter_function(self, item: Any, scope: Scope) -> None:
        outside = [*getattr(item, "decorator_list", ()), *item.args.defaults]
        outside += [default for default in item.args.kw_defaults if default is not None]
        self.pending += [(part, scope) for part in outside]
        inner = Scope(item, scope, scope.owner)
        body = item.body if isinstance(item.body, list) else [item.body]
        self.pending += [(part, inner) for part in body]

    def enter_class(self, item: Any, scope: Scope) -> None:
        self.facts.makes_classes = True
        outside = [*item.decorator_list, *item.bases, *(word.value for word in item.keywords)]
        self.pending += [(part, scope) for part in outside]
        inner = Scope(item, scope, item.name)
        self.pending += [(part, inner) for part in item.body]

    def enter_comprehension(self, item: Any, scope: Scope) -> None:
        first = item.generators[0]
        self.pending.append((first.iter, scope))
        inner = Scope(item, scope, scope.owner)
        made = (getattr(item, field, None) for field in ("elt", "key", "value"))
        parts = [part for part in made if part is not None]  # `{**each for each in x}` has no value
        for generator in item.generators:
            parts += [generator.target, *generator.ifs]
            if generator is not first:
                parts.append(generator.iter)
        self.pending += [(part, inner) for part in parts]

    def read_name(self, item: Any, scope: Scope) -> None:
        if type(item.ctx).__name__ == "Load":
            self.note_reader((item.id,), item.id, scope)
            self.load((item.id,), scope)

    def read_constant(self, item: Any, _: Scope) -> None:
        text = constant_text(item)
        if text and len(text) <= LONGEST_TEXT and not text.isspace():
            self.facts.texts.append(text)
            self.facts.attributes.update(names_in_format(text))

    def read_expression(self, item: Any, scope: Scope) -> None:
        if constant_text(item.value) is None:  # a text that stands alone is said to people
            self.go_on(item, scope)

    def note_reader(self, chain: Chain | None, last: str, scope: Scope) -> None:
        """Note that a function is used which reads texts as code, or a method of data frames."""
        facts, shown = self.facts, self.is_shown(chain, scope)
        if chain == (last,):
            evaluates, reads = last in EVALUATORS, last in (*EVALUATORS, "globals", "evaluate")
        else:
            evaluates, reads = last in FRAMES, shown and last in ("eval", "evaluate")
        if shown and (evaluates or reads or chain == ("sys", "modules")):
            facts.reads_texts = ALL
            facts.evaluates |= evaluates or last in ("eval", "evaluate")
        elif chain != (last,) and last in ("query", "eval"):
            facts.reads_texts = facts.reads_texts or MARKED

    def read_attribute(self, item: Any, scope: Scope) -> None:
        chain = chain_of(item)
        self.note_reader(chain, item.attr, scope)
        if item.attr == "__dict__" and scope.owner and is_class_of_self(item.value):
            self.facts.looks_into_itself = True
        if chain is None:
            self.facts.attributes.add(mangle(item.attr, scope.owner))
            self.pending.append((item.value, scope))
        else:
            self.load(chain, scope)

    def load(self, chain: Chain, scope: Scope) -> None:
        facts = self.facts
        root, *tail = (mangle(name, scope.owner) for name in chain)
        where, binding = scope.find(root)
        if where == "local":
            if binding is not None and root in binding.imported:
                facts.lazy.add((root, *tail))
            else:
                facts.attributes.update(tail)
        elif where == "free" and root in self.captured:
            facts.captured.add((root, *tail))
        elif root != "__class__":
            facts.loads.add((root, *tail))

    def read_import(self, item: Any, scope: Scope) -> None:
        for alias in item.names:
            if type(item).__name__ == "Import":
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                found = Import(0, alias.name, "", alias.asname or whole)
            else:
                bound = alias.asname or alias.name
                found = Import(item.level, item.module or "", alias.name, bound)
            self.facts.imports.add(found)
            if scope.find(found.bound)[0] == "global":
                self.facts.global_imports.add(found.bound)

    def read_if(self, item: Any, scope: Scope) -> None:
        if is_type_checking(item.test):
            self.pending += [(part, scope) for part in item.orelse]
        else:
            self.go_on(item, scope)

    def read_handler(self, item: Any, scope: Scope) -> None:
        self.select(item.type, scope)
        self.pending += [(part, scope) for part in item.body]

    def read_case(self, item: Any, scope: Scope) -> None:
        self.select(item.cls, scope)
        self.facts.attributes.update(item.kwd_attrs)
        if item.patterns:
            self.facts.attributes.add("__match_args__")
        self.pending += [(part, scope) for part in (*item.patterns, *item.kwd_patterns)]

    def select(self, item: Any, scope: Scope) -> None:
        """Read what a class may be selected by."""
        if item is None:
            return
        for part in item.elts if type(item).__name__ == "Tuple" else [item]:
            chain = chain_of(part)
            if chain is None:
                self.pending.append((part, scope))
            elif scope.find(chain[0])[0] != "local" and chain[0] not in self.captured:
                self.facts.named.add(chain)
            else:
                self.load(chain, scope)

    def read_assignment(self, item: Any, scope: Scope) -> None:
        facts, counts = self.facts, type(item).__name__ == "AugAssign"
        before = facts.writes | facts.class_writes if counts else set()
        read = {id(part): part for part in inner_nodes(item)}
        for target in getattr(item, "targets", None) or [item.target]:
            self.write(target, scope)
            if not counts and (name := self.stored_in(target, scope)):
                facts.stores.add(name)
                read[id(target)] = target.slice
        if counts:
            facts.counters |= (facts.writes | facts.class_writes) - before
        read.pop(id(getattr(item, "annotation", None)), None)
        self.pending += [(part, scope) for part in read.values()]

    def stored_in(self, target: Any, scope: Scope) -> str:
        """Return the global name of which a target is an item; "" if it is something else."""
        name = getattr(getattr(target, "value", None), "id", "")
        if type(target).__name__ != "Subscript" or not name or name in self.captured:
            return ""
        return "" if scope.find(name)[0] == "local" else str(name)

    def read_with_item(self, item: Any, scope: Scope) -> None:
        if item.optional_vars is not None:
            self.write(item.optional_vars, scope)
        self.go_on(item, scope)

    def write(self, target: Any, scope: Scope) -> None:
        """Note what an assignment to ``target`` changes."""
        kind = type(target).__name__
        if kind in ("Tuple", "List"):
            for element in target.elts:
                self.write(element, scope)
        elif kind == "Starred":
            self.write(target.value, scope)
        elif kind == "Name":
            if scope.find(target.id)[0] == "global":
                self.facts.writes.add((target.id,))
            elif scope.find(target.id)[0] == "free" and target.id in self.captured:
                self.facts.captured_writes.add(target.id)
        elif kind in ("Attribute", "Subscript"):
            self.change(target, scope, is_item=kind == "Subscript")

    def change(
        self,
        target: Any,
        scope: Scope,
        *,
        is_item: bool,
        by_method: bool = False,
        steps: Chain = (),
    ) -> None:
        """Note that an item or attribute of an object is set, or that it is changed in place.

        Args:
            target: the object, or the item.
            scope: where that happens.
            is_item: whether an item is set.
            by_method: whether a method does it.
            steps: which constant item of ``target`` it is; of others, all may change.
        """
        while type(target).__name__ == "Subscript":
            step = item_step(target.slice)
            steps = (step, *steps) if step else ()
            target, is_item = target.value, True
            by_method = False
        through = ""
        if type(target).__name__ == "Attribute" and is_class_of_self(target.value):
            self.facts.class_writes.add((mangle(target.attr, scope.owner), *steps))
            return
        chain = chain_of(target)
        if chain is None:
            self.write_in_globals(target, steps)
            return
        root, *tail = (mangle(name, scope.owner) for name in chain)
        where, binding = scope.find(root)
        if where == "local":
            through = root if binding is not None and root == binding.first else ""
            if binding is not None and binding.parent is None and (is_item or tail):
                self.facts.parameter_writes.add(root)
            if through and scope.owner and tail and (is_item or root != "self" or len(tail) > 1):
                self.facts.class_writes.add((*tail, *steps))
        elif where == "free" and root in self.captured:
            self.facts.captured_writes.add(root)
            self.facts.captured_attributes.update([(root, tail[0])] if tail else ())
        elif by_method:
            self.facts.mutated.add((root, *tail, *steps))
        else:
            self.facts.writes.add((root, *tail, *steps))

    def write_in_globals(self, target: Any, steps: Chain) -> None:
        """Note that an item of ``globals()`` is set, which is a variable."""
        if steps and getattr(getattr(target, "func", None), "id", "") == "globals":
            self.facts.writes.add((steps[0][2:-2], *steps[1:]))

    def read_call(self, item: Any, scope: Scope) -> None:
        function = item.func
        name = getattr(function, "id", getattr(function, "attr", ""))
        if hasattr(function, "attr") and name in MUTATORS:
            for steps in items_changed(name, item):
                self.change(function.value, scope, is_item=True, by_method=True, steps=steps)
        if name in UNSEEN and not (name in IMPORTERS and self.read_importer(name, item)):
            self.facts.unseen.add(name)
        if name in EVALUATORS:
            self.note_readers_of_globals(item.args)
        self.note_readers_of_globals(word.value for word in item.keywords if not word.arg)
        if getattr(function, "id", "") == "globals":
            self.facts.uses_any_global |= id(item) not in self.told
        if name in RUNNERS or name in FINDERS:
            made = [each for each in item.args[:1] if constant_text(each) is None]
            self.facts.imports_by_name.update((0, start) for start in ("", *map(prefix_of, made)))
        if name in MAKERS or (name == "type" and len(item.args) > 1):
            self.facts.makes_classes = True
        self.read_access(name, item, scope)
        if hides_names(name, item.args):
            self.facts.looks_into_others = True
            self.facts.attributes.update(*(text.split(".") for text in texts_within(item)))
        if name in ("isinstance", "issubclass") and len(item.args) == 2:
            self.select(item.args[1], scope)
            self.pending.append((item.args[0], scope))
        else:
            self.go_on(item, scope)

    def note_readers_of_globals(self, given: Iterable[Any]) -> None:
        """Note calls of ``globals()`` of which a text, or a constant beside, says what is used."""
        self.told.update(id(each) for each in given if getattr(each, "func", None) is not None)

    def read_subscript(self, item: Any, scope: Scope) -> None:
        if constant_text(item.slice) is not None or type(item.ctx).__name__ != "Load":
            self.note_readers_of_globals([item.value])
        is_modules = chain_of(item.value) in (("sys", "modules"), ("modules",))
        self.facts.uses_own_module |= is_modules and is_own_package(item.slice)
        self.go_on(item, scope)

    def read_access(self, name: str, item: Any, scope: Scope) -> None:
        """Note what a call gets by names that are made at run time, or texts beside it."""
        function = item.func
        if name in GETTERS:
            for text in filter(None, map(constant_text, item.args)):
                self.facts.attributes.update(text.split("."))
            names = item.args[:1] if name == "methodcaller" else item.args
            self.facts.looks_into_others |= not all(map(constant_text, names))
        if name in LISTERS and item.args:
            self.look_into(item.args[0], scope)
        if name == "vars" and item.args and self.is_shown(chain_of(item.args[0]), scope):
            self.look_into(item.args[0], scope)
        if hasattr(function, "id") and name in NAMED_ACCESS and len(item.args) > 1:
            self.read_named_access(name, item, scope)
        if name in SETTERS and len(item.args) >= SETTERS[name]:
            attribute = constant_text(item.args[-SETTERS[name]])
            self.facts.attributes.update([attribute] if attribute else ())
            self.facts.sets_any |= not attribute

    def read_importer(self, name: str, item: Any) -> bool:
        """Note what ``import_module`` or ``__import__`` imports by a constant, if it does that."""
        words = {word.arg: word.value for word in item.keywords}
        given = next(iter([*item.args, words.get("name")]))
        told = next(iter([*item.args[4:5], words.get("level")]))  # to __import__
        level: Any = getattr(told, "value", 1) if told else 0
        anchor = next(iter([*item.args[1:], words.get("package")]))  # of import_module
        package = constant_text(anchor) if name == "import_module" else None
        text = constant_text(given)
        if not text:
            beginning = prefix_of(given)
            rest = beginning.lstrip(".")
            level = level or len(beginning) - len(rest)
            level = level or (not rest and not told and mentions_own_package(item))
            if package and level:
                level, rest = 0, f"{full_name(package, level, '')}.{rest}"
            ending = suffix_of(given) if rest or level else ""
            self.facts.imports_by_name.add((int(level), f"{rest}*{ending}" if ending else rest))
            return False
        module = text.lstrip(".")
        if name == "__import__" and level:
            self.facts.imports.add(Import(level, module, "", ""))
            return True
        level = len(text) - len(module)
        if package and level:
            level, module = 0, full_name(package, level, module)
        if level and not is_own_package(anchor):
            self.facts.imports_by_name.add((0, ""))
            return False
        self.facts.imports.add(Import(level, module, "", ""))
        if name == "__import__":  # it returns the first of the packages
            self.facts.imports.add(Import(0, module.partition(".")[0], "", ""))
        return True

    def read_named_access(self, name: str, item: Any, scope: Scope) -> None:
        target, attribute = item.args[:2]
        chain = chain_of(target)
        if (text := constant_text(attribute)) is not None:
            self.facts.attributes.add(text)
            if chain and name in ("getattr", "hasattr") and scope.find(chain[0])[0] != "local":
                self.load((*chain, text), scope)
            elif chain and name in ("setattr", "delattr"):
                self.change_attribute(target, text, scope)
            return
        self.facts.unseen.add(name)
        self.facts.sets_any |= name in ("setattr", "delattr")
        if name != "getattr":
            return
        prefix = prefix_of(attribute)
        if prefix:
            self.facts.prefixes.add(prefix)
        if not prefix or self.is_shown(chain, scope):
            self.look_into(target, scope, prefix)

    def change_attribute(self, target: Any, name: str, scope: Scope) -> None:
        """Note that an attribute is set whose name stands in a text."""
        import ast

        self.change(ast.Attribute(target, name, ast.Store()), scope, is_item=False)

    def is_shown(self, chain: Chain | None, scope: Scope) -> bool:
        """Whether the source shows what a chain leads to: it begins with a global name."""
        if not chain or chain[0] in self.captured:
            return False
        return scope.find(chain[0])[0] != "local"

    def look_into(self, target: Any, scope: Scope, prefix: str = "") -> None:
        """Note that attributes of ``target`` are looked up by names that are made at run time."""
        chain = chain_of(target)
        if (chain in ((self.first,), (scope.first,))) or (scope.owner and is_class_of_self(target)):
            self.facts.looks_into_itself = True
        elif chain and self.is_shown(chain, scope):
            path = tuple(mangle(part, scope.owner) for part in chain)
            self.facts.dynamic.add((path, prefix))
        else:
            self.facts.looks_into_others = True


HANDLERS: dict[str, Callable[[Reader, Any, Scope], None]] = {
    **dict.fromkeys(FUNCTIONS, Reader.enter_function),
    **dict.fromkeys(COMPREHENSIONS, Reader.enter_comprehension),
    **dict.fromkeys(("Import", "ImportFrom"), Reader.read_import),
    **dict.fromkeys(
        ("Assign", "AnnAssign", "AugAssign", "For", "AsyncFor", "Delete"), Reader.read_assignment
    ),
    "ClassDef": Reader.enter_class,
    "Constant": Reader.read_constant,
    "Expr": Reader.read_expression,
    "Name": Reader.read_name,
    "Attribute": Reader.read_attribute,
    "Subscript": Reader.read_subscript,
    "If": Reader.read_if,
    "ExceptHandler": Reader.read_handler,
    "MatchClass": Reader.read_case,
    "withitem": Reader.read_with_item,
    "Call": Reader.read_call,
}
