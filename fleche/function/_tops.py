"""Modules whose tops have run before some code does, since it or what it imports imports them.

Which ones these are is read from their texts, without a syntax tree: a package may have hundreds of
modules, of which few do anything at the top that matters to others.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from fleche.digest import full_name, interactive_sources, remember_file
from fleche.function._own import is_own_namespace

__all__ = ["Top", "top_of", "tops_run"]

MANY = 500

_BODY = re.compile(
    r"^(?:async[ \t]+def|def|class|if[ \t]+(?:\w+\.)?TYPE_CHECKING)\b.*\n"
    r"(?:(?:[ \t)\]}#].*)?\n)*",
    re.MULTILINE,
)
"""What does not run with the top of a module: bodies, and what is for type checkers."""

_IMPORT = re.compile(
    r"(?:^|[;:])[ \t]*(?:from[ \t]+(\.*)[ \t]*([\w.]*)\s+import\s*(\([^)]*\)|.*)"
    r"|import[ \t]+([^;#\n]*))",
    re.MULTILINE,
)
_BY_NAME = re.compile(r"import_module\([ \t]*[\"'](\.*)([\w.]+)[\"']")
_STATEMENT = re.compile(
    r"(?:^|[;:])[ \t]*([^\W\d]\w*)((?:\.\w+)*)[ \t]*([(\[,]|.?=(?!=))(?=(.*))", re.MULTILINE
)
_CALL = re.compile(r"(?<![\w.])([^\W\d]\w*)((?:\.\w+)*)\(")
_SETATTR = re.compile(r"\b(?:set|del)attr\([ \t]*([^\W\d]\w*)")
_WITH = re.compile(r"(?:^|[;:])[ \t]*(?:async[ \t]+)?with\b(.*)", re.MULTILINE)
_ALIAS = re.compile(r"(?:^|[;:])[ \t]*([^\W\d]\w*)[ \t]*=[ \t]*([^\W\d]\w*)\b", re.MULTILINE)
_BEHIND = re.compile(r"[)\]][ \t]*(?:\.|.?=(?!=))")
"""What may follow a call or an item of which a part is set, or which is set."""

_NAME = re.compile(r"\w+|\*")


class Top(NamedTuple):
    """What the text of a module says of its top.

    Attributes:
        imports: what it imports: the level, and a name that may be one of a module, or of all that
            is in one.
        changes: what it calls, by the first name and the last, or may set a part of, by the first
            name and "".
    """

    imports: frozenset[tuple[int, str]]
    changes: frozenset[tuple[str, str]]


known: dict[str, tuple[Any, Top]] = {}
"""By the file, with what has loaded it, or with the text: one that is executed anew has another."""


def tops_run(namespaces: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the namespaces of own modules whose tops have run with those of some modules.

    They come in the order of the ways that lead to them, the given ones first.
    """
    found: dict[int, Mapping[str, Any]] = {}
    pending = list(namespaces)
    while pending and len(found) < MANY:
        below: set[str] = set()
        for namespace in pending:
            if id(namespace) not in found and is_own_namespace(namespace):
                found[id(namespace)] = namespace
                below |= modules_run_with(namespace)
        pending = [vars(sys.modules[name]) for name in sorted(below)]
    return list(found.values())


def modules_run_with(namespace: Mapping[str, Any]) -> set[str]:
    """Return the names of the modules whose tops have run before the end of that of a module."""
    package = str(namespace.get("__package__") or "")
    names = {full_name(package, *each) for each in top_of(namespace).imports} | {package}
    found: set[str] = set()
    for name in names:
        while name and name not in found:
            found.add(name)
            name = name.rpartition(".")[0]
    return {name for name in found if issubclass(type(sys.modules.get(name)), ModuleType)}


def top_of(namespace: Mapping[str, Any]) -> Top:
    """Return what the text of a module says of its top."""
    file, spec = namespace.get("__file__"), namespace.get("__spec__")
    is_text = isinstance(file, str) and not file.endswith((".so", ".pyd"))
    if spec is None and is_text:
        spec = remember_file(str(file))  # a script
    found = known.get(str(file))
    if found is None or found[0] is not spec:
        text = spec if isinstance(spec, str) else text_of(str(file), namespace) if is_text else ""
        found = known[str(file)] = spec, read_top(text)
    if namespace.get("__name__") not in ("__main__", "__mp_main__"):
        return found[1]
    typed = read_top("\n".join(source.text for source in interactive_sources()))
    return Top(found[1].imports | typed.imports, found[1].changes | typed.changes)


def text_of(file: str, namespace: Mapping[str, Any]) -> str:
    """Return the text of a file as far as names stand in it; it is not kept."""
    try:
        with open(file, "rb") as opened:
            return opened.read().decode("utf-8", "replace")
    except OSError:  # in an archive
        return remember_file(file, namespace)


def read_top(text: str) -> Top:
    """Return what a text says of its top."""
    outside = _BODY.sub("", f"{text}\n")
    imports = {(len(dots), name) for dots, name in _BY_NAME.findall(outside)}
    imports.update(*(imported(*parts) for parts in _IMPORT.findall(outside)))
    changes = {(root, f"{root}{rest}".rpartition(".")[2]) for root, rest in _CALL.findall(outside)}
    changes |= {(root, "") for root in _SETATTR.findall(outside)}
    changes |= {(root, "") for line in _WITH.findall(outside) for root, _ in _CALL.findall(line)}
    for root, rest, sign, behind in _STATEMENT.findall(outside):
        if sign == "(":
            changes.add((root, f"{root}{rest}".rpartition(".")[2]))
        if rest if sign[-1] in "=," else _BEHIND.search(behind):
            changes.add((root, ""))
    changed = {root for root, _ in changes}
    changes |= {(root, "") for name, root in _ALIAS.findall(outside) if name in changed}
    return Top(frozenset(imports), frozenset(changes))


def imported(dots: str, module: str, names: str, modules: str) -> Iterator[tuple[int, str]]:
    """Yield what one statement imports."""
    for each in modules.split(","):
        yield from ((0, name) for name in each.split()[:1])
    level = len(dots)
    if level or module:
        yield level, module
    for name in _NAME.findall(names):
        yield level, f"{module}.{name}".lstrip(".")
