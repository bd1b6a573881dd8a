"""From a code object back to the syntax tree that it was compiled from."""

from __future__ import annotations

import threading
import types
from typing import Any

from fleche._util import renewed_after_fork

__all__ = ["find_definition"]

MANY_FILES = 64
FEATURES = ~0xFFFF  # the lower flags of a code object say other things


class Source:
    """A parsed file: its definitions by name and first line, and all code compiled from it."""

    def __init__(self, text: str, filename: str, features: int) -> None:
        import ast
        import warnings

        flags = features | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = compile(text, filename, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
            module = compile(text, filename, "exec", flags, dont_inherit=True)
        self.text = text
        self.codes: set[types.CodeType] = set()
        self.definitions: dict[tuple[str, int], list[Any]] = {}
        self.collect_codes(module)
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
                self.definitions.setdefault((node.name, first), []).append(node)
            elif isinstance(node, ast.Lambda):
                self.definitions.setdefault(("<lambda>", node.lineno), []).append(node)

    def collect_codes(self, module: types.CodeType) -> None:
        pending = [module]
        while pending:
            code = pending.pop()
            self.codes.add(code)
            pending += [const for const in code.co_consts if isinstance(const, types.CodeType)]


sources: dict[tuple[str, int], Source | None] = {}
lock = renewed_after_fork(threading.Lock())


def find_definition(code: types.CodeType, namespace: dict[str, Any]) -> Any | None:
    """Return the FunctionDef, AsyncFunctionDef or Lambda that ``code`` was compiled from, or None.

    Args:
        code: the code of a function.
        namespace: its globals, for modules whose loader knows their source.
    """
    source = read_source(code, namespace)
    if source is None:
        return None
    candidates = source.definitions.get((code.co_name, code.co_firstlineno), [])
    if len(candidates) > 1:
        candidates = [node for node in candidates if holds(node, code)]
        candidates = [node for node in candidates if not any(map(is_inside(node), candidates))]
    return candidates[0] if len(candidates) == 1 else None


def read_source(code: types.CodeType, namespace: dict[str, Any]) -> Source | None:
    """Return the file of ``code`` if it still compiles to it, as remembered or as it is now."""
    import linecache

    for refresh in (False, True):
        if refresh:
            linecache.checkcache(code.co_filename)
        text = "".join(linecache.getlines(code.co_filename, namespace))
        source = parse(text, code.co_filename, code.co_flags) if text else None
        if source is not None and code in source.codes:
            return source
    return None


def parse(text: str, filename: str, code_flags: int) -> Source | None:
    import __future__

    features = 0
    for name in __future__.all_feature_names:
        features |= getattr(__future__, name).compiler_flag & code_flags & FEATURES
    with lock:
        found = sources.get((filename, features))
        if found is None or found.text != text:
            try:
                found = Source(text, filename, features)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                return None
            if len(sources) >= MANY_FILES:
                sources.clear()
            sources[filename, features] = found
        return found


def holds(node: Any, code: types.CodeType) -> bool:
    """Whether all instructions of ``code`` were compiled from the body of a lambda.

    Only Python 3.11 and later know the columns; elsewhere the answer is no.
    """
    body = node.body
    if isinstance(body, list) or not hasattr(code, "co_positions"):
        return False
    start, end = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
    seen = False
    for line, end_line, column, end_column in code.co_positions():
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
