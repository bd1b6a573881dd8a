"""What a definition without a source does with names, as far as its bytecode tells."""

from __future__ import annotations

import dis
from types import CodeType

from fleche.function._facts import Facts, Import

__all__ = ["facts_of_bytecode"]


def facts_of_bytecode(code: CodeType) -> Facts:
    """Return what can be told without a source."""
    facts = Facts()
    pending = [code]
    outermost = frozenset(code.co_freevars)
    while pending:
        item = pending.pop()
        pending += [const for const in item.co_consts if isinstance(const, CodeType)]
        chain: list[str] = []
        module, level = "", 0
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
            elif kind == "IMPORT_NAME":
                module, level = name, 0
                facts.imports.add(Import(level, module, "", name.partition(".")[0]))
            elif kind == "IMPORT_FROM":
                facts.imports.add(Import(level, module, name, name))
        keep(facts, chain, outermost)
    return facts


def keep(facts: Facts, chain: list[str], captured: frozenset[str]) -> None:
    if chain:
        (facts.captured if chain[0] in captured else facts.loads).add(tuple(chain))
