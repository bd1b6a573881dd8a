"""From a code object back to the text that it was compiled from.

A text counts only if it compiles to the very code that runs: a file that was edited after its
import, or a function that some tool has rewritten, is not taken for the source. Texts are read once
and remembered, so an edit while a program runs changes nothing; only code that no remembered text
explains, and a file that is executed again, make it be read again.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
import threading
import types
import weakref
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import chain
from operator import is_
from typing import Any

from fleche._util import renewed_after_fork
from fleche.digest._syntax import blocks_of, dump_definition, inner_nodes

__all__ = [
    "Definition",
    "SourceText",
    "find_definition",
    "first_line_of",
    "interactive_sources",
    "keeping_trees",
    "marks_of_execution",
    "read_source",
    "remember_file",
    "take_code",
    "told_of_code",
]

MANY_TEXTS = 2000
"""How many parsed texts are remembered; beyond that the oldest is forgotten."""

MANY_STATES = 8
"""How many states of one file are remembered."""

MANY_CODES = 50_000
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What parsing a text may raise."""

FEATURES = ~0xFFFF  # the lower flags of a code object say other things


class Definition:
    """A function or lambda in a source.

    Attributes:
        syntax: its node of the syntax tree.
        qualname: its qualified name, as Python 3.11 and later give it to code objects.
        owner: the innermost class whose body it stands in, however deep; "" if there is none.
        method_of: the qualified name of the class that it is a method of; "" if it is none.
        source: the text that it stands in.
    """

    __slots__ = ("__dict__", "method_of", "owner", "qualname", "source", "syntax")

    def __init__(
        self, syntax: Any, qualname: str, owner: str, method_of: str, source: SourceText
    ) -> None:
        self.syntax = syntax
        self.qualname = qualname
        self.owner = owner
        self.method_of = method_of
        self.source = source

    @functools.cached_property
    def dump(self) -> bytes:
        """The canonical dump, without name and decorators."""
        return dump_definition(self.syntax)

    @property
    def text(self) -> str:
        """The lines that it stands on, without its decorators."""
        import textwrap

        syntax = self.syntax
        lines = self.source.lines[syntax.lineno - 1 : syntax.end_lineno]
        return textwrap.dedent("\n".join(lines))

    def enclosing(self) -> Iterator[Definition]:
        """Yield the functions in whose bodies it stands."""
        for each in chain.from_iterable(self.source.tree.definitions.values()):
            inside = self.qualname.startswith(f"{each.qualname}.<locals>.")
            if inside and is_part_of(self.syntax, each.syntax):
                yield each


def is_part_of(inner: Any, outer: Any) -> bool:
    """Return whether one node of a tree stands in another; lambdas may share a line."""
    begins = (outer.lineno, outer.col_offset) <= (inner.lineno, inner.col_offset)
    ends = (inner.end_lineno, inner.end_col_offset) <= (outer.end_lineno, outer.end_col_offset)
    return begins and ends


class SourceText:
    """A text of Python, and what it defines.

    Its syntax tree takes much more memory than the text, and much time of all later collections of
    garbage. So it is let go when others have been parsed, see :func:`keeping_trees`, and parsed
    again should more be asked for.

    Args:
        text: the text.
        filename: of the file, or what stands for it.
        features: the ``__future__`` features that it is compiled with.
        prefix: of the qualified names of what it defines.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it is no such text.
    """

    def __init__(self, text: str, filename: str, features: int = 0, prefix: str = "") -> None:
        self.text = text
        self.filename = filename
        self.features = features
        self.prefix = prefix
        self._tree = weakref.ref(parse(self))

    @property
    def tree(self) -> Tree:
        """What it says."""
        found = self._tree()
        if found is None:
            found = parse(self)
            self._tree = weakref.ref(found)
        return found

    def compiled(self, flags: int = 0) -> Any:
        """Return what Python makes of it."""
        import ast
        import warnings

        flags |= self.features | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(self.text, self.filename, "exec", flags, dont_inherit=True)

    @functools.cached_property
    def lines(self) -> list[str]:
        """The lines of the text, as Python counts them."""
        return self.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")

    def find(self, code: types.CodeType) -> Definition | None:
        """Return the definition of ``code`` if it was compiled from this text."""
        try:
            tree = self.tree
        except UNREADABLE:  # this time
            return None
        if code not in tree.codes:
            return None
        candidates = tree.definitions.get((code.co_name, code.co_firstlineno), [])
        if len(candidates) > 1:
            candidates = narrow(candidates, code)
        return candidates[0] if len(candidates) == 1 else None


class Tree:
    """The syntax tree of a text.

    Attributes:
        body: its statements.
        definitions: functions and lambdas by their name and first line.
        classes: the statements that define a class, by its qualified name.
    """

    def __init__(self, source: SourceText) -> None:
        import ast

        module = source.compiled(ast.PyCF_ONLY_AST)
        self._source = source
        self.body: list[Any] = module.body
        self.definitions: dict[tuple[str, int], list[Definition]] = {}
        self.classes: dict[str, list[Any]] = {}
        self._collect(module)

    @functools.cached_property
    def codes(self) -> frozenset[types.CodeType]:
        """All code that is compiled from the text; none if only its grammar is right."""
        found: set[types.CodeType] = set()
        try:
            pending = [self._source.compiled()]
        except UNREADABLE:
            return frozenset()
        while pending:
            code = pending.pop()
            found.add(code)
            pending += [const for const in code.co_consts if isinstance(const, types.CodeType)]
        return frozenset(found)

    def _collect(self, module: Any) -> None:
        """Index what is defined, with a stack of (node, prefix of names, class, method of).

        Expressions are only looked into where a line has a lambda.
        """
        source = self._source
        lambdas = [at for at, line in enumerate(source.lines, 1) if "lambda" in line]
        pending: list[tuple[Any, str, str, str]] = [(module, source.prefix, "", "")]
        while pending:
            item, prefix, owner, method_of = pending.pop()
            kind = type(item).__name__
            first = first_line_of(item)
            if kind in ("FunctionDef", "AsyncFunctionDef", "Lambda"):
                name = "<lambda>" if kind == "Lambda" else item.name
                found = Definition(item, prefix + name, owner, method_of, source)
                self.definitions.setdefault((name, first), []).append(found)
                prefix, method_of = f"{prefix}{name}.<locals>.", ""
            elif kind == "ClassDef":
                self.classes.setdefault(prefix + item.name, []).append(item)
                method_of, owner = prefix + item.name, item.name
                prefix = f"{prefix}{item.name}."
            last = getattr(item, "end_lineno", None) or sys.maxsize
            has_lambda = is_any_within(lambdas, first, last)
            inner = inner_nodes(item) if has_lambda else chain.from_iterable(blocks_of(item))
            pending.extend((child, prefix, owner, method_of) for child in inner)


def first_line_of(item: Any) -> int:
    """Return the line on which a node begins, or its decorators do; 0 if it stands on none."""
    lines: list[int] = [each.lineno for each in getattr(item, "decorator_list", ())]
    return min([*lines, getattr(item, "lineno", 0)])


def is_any_within(lines: list[int], first: int, last: int) -> bool:
    """Return whether one of ``lines``, which are sorted, is neither before nor after these two."""
    at = bisect_left(lines, first)
    return at < len(lines) and lines[at] <= last


recent: deque[Tree] = deque(maxlen=16)
"""The trees that were parsed last."""

kept = threading.local()
"""Those of a thread that wants more of them: ``kept.trees``."""


def parse(source: SourceText) -> Tree:
    """Return the tree of a text, which stays for a while."""
    found = Tree(source)
    recent.append(found)
    if hasattr(kept, "trees"):
        kept.trees.append(found)
    return found


@contextlib.contextmanager
def keeping_trees() -> Iterator[None]:
    """Keep the syntax trees that this thread parses until the end: much is to be asked of them.

    Meanwhile there are no collections of garbage, which would look at each node many times.
    """
    if hasattr(kept, "trees"):
        yield
        return
    kept.trees = []
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        del kept.trees
        if collects:
            gc.enable()


def narrow(candidates: list[Definition], code: types.CodeType) -> list[Definition]:
    """Return the one of several lambdas on a line that is meant, in a list; or several."""
    if hasattr(code, "co_positions"):
        inside = [found for found in candidates if holds(found.syntax, code)]
        nodes = [found.syntax for found in inside]
        inside = [found for found in inside if not any(map(is_inside(found.syntax), nodes))]
    else:
        names = names_in_code(code)
        inside = [found for found in candidates if names_in_syntax(found.syntax) == names]
    same = {found.dump for found in inside}
    return inside[:1] if len(same) == 1 and not hasattr(code, "co_positions") else inside


def names_in_code(code: types.CodeType) -> set[Any]:
    found: set[Any] = set()
    pending = [code]
    while pending:
        item = pending.pop()
        found.update(item.co_names, item.co_varnames, item.co_freevars, item.co_cellvars)
        pending += [const for const in item.co_consts if isinstance(const, types.CodeType)]
    return {name for name in found if not name.startswith(".")}


def names_in_syntax(syntax: Any) -> set[str]:
    import ast

    found: set[str] = set()
    for item in ast.walk(syntax):
        found.update(
            name
            for field in ("id", "arg", "attr")
            if isinstance(name := getattr(item, field, None), str)
        )
    return found


def holds(syntax: Any, code: types.CodeType) -> bool:
    """Whether all instructions of ``code`` were compiled from the body of a lambda."""
    body = syntax.body
    if isinstance(body, list):
        return False
    start, end = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
    seen = False
    for line, end_line, column, end_column in code.co_positions():  # type: ignore[attr-defined]
        if line is None or column is None or end_line is None or end_column in (None, 0):
            continue
        seen = True
        if (line, column) < start or (end_line, end_column) > end:
            return False
    return seen


def is_inside(outer: Any) -> Any:
    """Return a test for whether another lambda stands inside ``outer``."""

    def test(inner: Any) -> bool:
        return inner is not outer and (
            (outer.lineno, outer.col_offset) <= (inner.lineno, inner.col_offset)
            and (inner.end_lineno, inner.end_col_offset) <= (outer.end_lineno, outer.end_col_offset)
        )

    return test


lock = renewed_after_fork(threading.RLock())
texts: dict[tuple[str, int], list[SourceText]] = {}
"""What is known of a file under some set of ``__future__`` features, the latest state last."""

latest: dict[str, SourceText] = {}
"""The source that :func:`read_source` gave for a file."""

seen: dict[str, str] = {}
"""Files of which the text has been read, and need not have been parsed."""

known: dict[int, tuple[types.CodeType, SourceText]] = {}
"""Which text explains a code object, by the id of the latter."""


executions: dict[Any, list[tuple[Any, ...]]] = {}
"""What is another object each time that a file is executed; see :func:`is_executed_again`."""


def remember_file(
    filename: str,
    namespace: Mapping[str, Any] | None = None,
    code: types.CodeType | None = None,
) -> str:
    """Return the text of a file, which is read when it is first seen; "" if there is none.

    It is read anew when the file has been executed again since.

    Args:
        filename: of the file.
        namespace: the names of a module that was made of it.
        code: a part of it that is looked at.
    """
    text = seen.get(filename)
    if is_executed_again(filename, namespace or {}, code) and text is not None:
        import linecache

        linecache.checkcache(filename)
        fresh = read(filename, namespace)
        if fresh and fresh != text:
            text = seen[filename] = fresh
    if text is None:
        text = read(filename, namespace)
        if text:
            if len(seen) >= MANY_TEXTS:
                seen.clear()
            seen[filename] = text
    return text


def is_executed_again(
    filename: str, namespace: Mapping[str, Any], code: types.CodeType | None
) -> bool:
    """Whether a file has been executed since it was last asked for, and before.

    A script has no ``__spec__``, but each time that it runs its functions get code that equals that
    of before, or else is explained by no text of then.
    """
    place: Any = filename
    if getattr(namespace.get("__spec__"), "origin", None) == filename:
        marks = tuple(space.get(name) for space, name in marks_of_execution(namespace))
    elif code is not None:
        place, marks = (filename, code), (code,)
    else:
        return False
    with lock:
        if len(executions) >= MANY_CODES:
            executions.clear()
        before = executions.setdefault(place, [])
        if any(len(each) == len(marks) and all(map(is_, each, marks)) for each in before):
            return False
        executions[place] = [*before[1 - MANY_STATES :], marks]
        return bool(before)


def marks_of_execution(namespace: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield where another object stands each time that an imported module is executed.

    ``%autoreload`` may execute what has changed of it alone, and notes the time of its file.
    """
    if namespace.get("__spec__") is None:
        return
    yield namespace, "__spec__"
    manager = getattr(interactive_shell(), "magics_manager", None)
    magics = getattr(manager, "registry", {}).get("AutoreloadMagics")
    times = getattr(getattr(magics, "_reloader", None), "modules_mtimes", None)
    if isinstance(times, dict):
        yield times, str(namespace.get("__name__"))


def interactive_shell() -> Any:
    """Return the shell of IPython that the program runs in; None if it is another program."""
    shell_of = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return shell_of() if shell_of else None


def read(filename: str, namespace: Mapping[str, Any] | None) -> str:
    import linecache

    found = dict(namespace) if namespace else None
    return "".join(linecache.getlines(filename, found))


def find_definition(code: types.CodeType, namespace: Mapping[str, Any]) -> Definition | None:
    """Return the definition that ``code`` was compiled from, or None.

    Args:
        code: the code of a function.
        namespace: its globals, for modules whose loader knows their source.
    """
    if (told := sent.get(id(code))) is not None:
        return rebuild(told[1])
    if (before := known.get(id(code))) is not None:
        return before[1].find(code)
    for source in sources_of(code, namespace):
        found = source.find(code)
        if found is not None:
            with lock:
                if len(known) >= MANY_CODES:
                    known.clear()
                known[id(code)] = (code, source)
            return found
    return None


Told = tuple[str, str, str, str, str, bytes]
"""What a process tells another of the definition of code: a text, and what it stands in; then the
names of the definition there, and its dump."""

sent: dict[int, tuple[types.CodeType, Told]] = {}
"""What has come with code objects from other processes, where their source is."""


def told_of_code(code: types.CodeType) -> Told | None:
    """Return what to send along with a code object, for :func:`take_code`."""
    found = find_definition(code, {})
    if found is None:
        return None
    # the function that stands in no other: what is captured is there
    outer = min(found.enclosing(), key=lambda each: len(each.qualname), default=found)
    name = getattr(outer.syntax, "name", "")
    if name:
        text = outer.text
    else:  # a lambda is a part of its lines
        import ast

        text = f"({ast.get_source_segment(chr(10).join(found.source.lines), outer.syntax)})"
    prefix = outer.qualname.removesuffix(name or "<lambda>")
    return (text, prefix, found.qualname, found.owner, found.method_of, found.dump)


def take_code(code: types.CodeType, told: Told) -> None:
    """Believe what another process knows of the source of a code object."""
    with lock:
        if len(sent) >= MANY_CODES:
            sent.clear()
        sent[id(code)] = (code, told)


@functools.lru_cache(maxsize=MANY_TEXTS)
def rebuild(told: Told) -> Definition | None:
    """Return the definition of which another process has told, if its text can stand alone."""
    text, prefix, qualname, owner, method_of, dump = told
    try:
        source = SourceText(text, "<told>", prefix=prefix)
    except SyntaxError:
        return None
    for found in chain.from_iterable(source.tree.definitions.values()):
        if found.qualname == qualname and found.dump == dump:
            found.owner, found.method_of = owner, method_of
            return found
    return None


def sources_of(code: types.CodeType, namespace: Mapping[str, Any]) -> Iterator[SourceText]:
    """Yield the texts that may explain ``code``: remembered ones, the file, cells."""
    filename, features = code.co_filename, features_of(code)
    text = remember_file(filename, namespace, code)
    yield from reversed(texts.get((filename, features), []))
    yield from parsed(text, filename, features)
    import linecache

    linecache.checkcache(filename)
    fresh = read(filename, namespace)
    if fresh != text:
        for source in parsed(fresh, filename, features):
            if code in source.tree.codes:
                seen[filename] = fresh  # the module has been loaded anew
            yield source
    if filename.startswith("<"):
        for body in magic_bodies():
            yield from parsed(body, filename, features)


def features_of(code: types.CodeType) -> int:
    """Return the ``__future__`` features that a code object was compiled with."""
    import __future__

    features = 0
    for name in __future__.all_feature_names:
        features |= getattr(__future__, name).compiler_flag & code.co_flags & FEATURES
    return features


def parsed(text: str, filename: str, features: int = 0) -> Iterator[SourceText]:
    """Yield the parsed text, if it is any; it is remembered."""
    if not text:
        return
    states = texts.get((filename, features), [])
    for source in states:
        if source.text == text:
            yield source
            return
    try:
        source = SourceText(text, filename, features)
    except UNREADABLE:
        return
    with lock:
        while len(texts) >= MANY_TEXTS:
            del texts[next(iter(texts))]
        texts[filename, features] = [*states[1 - MANY_STATES :], source]
    yield source


def read_source(filename: str, namespace: Mapping[str, Any] | None = None) -> SourceText | None:
    """Return the text of a file as it was when it was executed, parsed; None if there is none."""
    text = remember_file(filename, namespace)
    found = latest.get(filename)
    if found is not None and found.text is text:
        return found
    for key, states in list(texts.items()):
        if key[0] == filename:
            found = next((state for state in states if state.text == text), found)
    if found is None or found.text != text:
        found = next(parsed(text, filename), None)
    if found is not None:
        found.text = text  # the very object, so that the next look is a comparison of addresses
        if len(latest) >= MANY_TEXTS:
            latest.clear()
        latest[filename] = found
    return found


typed: list[tuple[list[Any], list[SourceText]]] = []
"""The entries of the line cache when it was last looked through, and their sources."""


def interactive_sources() -> list[SourceText]:
    """Return what was typed at a prompt or in a notebook, the latest first.

    Python keeps such texts in the line cache, without a time of modification.
    """
    entries = [entry for _, entry in interactive_entries()]
    if typed and len(typed[0][0]) == len(entries):
        before, sources = typed[0]
        if all(one is other for one, other in zip(before, entries, strict=True)):
            return sources
    sources = []
    for filename, entry in interactive_entries():
        sources += parsed("".join(entry[2]), filename)
    for body in magic_bodies():
        sources += parsed(body, "<magic>")
    typed[:] = [(entries, sources)]
    return sources


def interactive_entries() -> Iterator[tuple[str, Any]]:
    import linecache

    for filename, entry in reversed(list(linecache.cache.items())):
        if len(entry) == 4 and entry[1] is None:
            yield filename, entry


def magic_bodies() -> Iterator[str]:
    """Yield what stands below magics such as ``%%time`` in cells of IPython, the latest first.

    Such a cell is kept as the call ``get_ipython().run_cell_magic("time", "", body)``.
    """
    import ast

    shell = interactive_shell()
    for _, entry in interactive_entries():
        text = "".join(entry[2])
        if "run_cell_magic(" not in text:
            continue
        try:
            tree = ast.parse(text)
        except UNREADABLE:
            continue
        for call in ast.walk(tree):
            if getattr(getattr(call, "func", None), "attr", "") != "run_cell_magic":
                continue
            body = getattr(call.args[-1], "value", None)  # type: ignore[attr-defined]
            if isinstance(body, str):
                yield shell.transform_cell(body) if shell is not None else body
