"""Names that stand in texts: in an expression to evaluate, a condition on data, a format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any

from fleche.function._facts import MARKED, Facts
from fleche.function._looking import LookedInto, place_of
from fleche.function._own import module_name
from fleche.function._trees import Chain

__all__ = ["Texts", "names_in_format"]

_CHAIN = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_MARKED = re.compile(rf"@({_CHAIN.pattern})")
_FIELD = re.compile(r"\{\w*((?:\.[^\W\d]\w*|\[[^][{}]*\])+)")
_STEP = re.compile(r"\.([^\W\d]\w*)")


class Texts:
    """The texts of the functions that were followed, in which names may stand.

    They count where the function itself reads texts (:attr:`Facts.reads_texts`), and where it may
    pass them to an own function that evaluates any: in the module of that, and in modules that
    refer to it.
    """

    def __init__(self) -> None:
        self._reading: list[tuple[FunctionType, Facts]] = []
        self._waiting: dict[str, list[tuple[FunctionType, Facts]]] = {}
        self._evaluators: set[str] = set()

    def note(self, function: FunctionType, facts: Facts) -> None:
        """Note a function, and what it does with names."""
        if facts.reads_texts:
            self._reading.append((function, facts))
        elif facts.texts:
            module = module_name(function.__globals__)
            self._waiting.setdefault(module, []).append((function, facts))
        if facts.evaluates:
            self._evaluators.add(place_of(function))

    def chains(self, looked_into: LookedInto) -> Iterator[tuple[Mapping[str, Any], Chain]]:
        """Yield the chains in texts that count, each with the namespace of its function, once.

        They begin with a global name, or are modules, where the function asks for these by name.
        """
        found, self._reading = self._reading, []
        for module in sorted(looked_into.places_of(self._evaluators)):
            found += self._waiting.pop(module, [])
        for function, facts in found:
            namespace = function.__globals__
            pattern = _MARKED if facts.reads_texts == MARKED else _CHAIN
            takes_modules = ("sys", "modules") in facts.loads
            for named in (each for text in facts.texts for each in pattern.findall(text)):
                chain = tuple(named.split("."))
                if takes_modules or chain[0] in namespace:
                    yield namespace, chain


def names_in_format(text: str) -> Iterator[str]:
    """Yield the attributes that ``text.format(...)`` gets, as ``x`` in ``"{0.x:.2f}"``."""
    for field in _FIELD.findall(text):
        yield from _STEP.findall(field)
