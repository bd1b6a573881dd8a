"""What a definition without a source does with names, as far as its bytecode tells."""

from __future__ import annotations

import dis
from types import CodeType
from typing import Any

from fleche.function._facts import Facts, Import
from fleche.function._reaching import codes_within, texts_asked_by

__all__ = ["facts_of_bytecode"]


def facts_of_bytecode(code: CodeType) -> Facts:
    """Return what can be told without a source."""
    facts = Facts(attributes=texts_asked_by(code))
    outermost = frozenset(code.co_freevars)
    for item in codes_within(code):
        chain: list[str] = []
        module, given = Import(0, "", "", ""), list[Any]((0, 0))
        for step in dis.get_instructions(item):
            name = step.argval if isinstance(step.argval, str) else ""
            kind = step.opname
            facts.makes_classes |= kind == "LOAD_BUILD_CLASS"
            if kind.startswith(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")):
                facts.attributes.add(name)
                if chain:
                    chain.append(name)
                continue
            keep(facts, chain, outermost)
            chain = []
            if kind in ("LOAD_GLOBAL", "LOAD_NAME"):
                chain = [name]
            elif kind in ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"):
                chain = [name] if name in outermost else []
            elif kind in ("STORE_GLOBAL", "DELETE_GLOBAL"):
                facts.writes.add((name,))
            elif kind == "IMPORT_NAME":  # what is bound is local: the module counts as a value
                level = given[0]
                module = Import(level if type(level) is int else 0, name, "", "")
                facts.imports.add(module)
            elif kind == "IMPORT_FROM":
                facts.imports.add(module._replace(name=name, bound=name))
                facts.lazy.add((name,))
            given = [given[1], step.argval]
        keep(facts, chain, outermost)
    return facts


def keep(facts: Facts, chain: list[str], captured: frozenset[str]) -> None:
    if chain:
        (facts.captured if chain[0] in captured else facts.loads).add(tuple(chain))
