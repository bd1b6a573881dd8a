"""Names that stand in texts: in an expression to evaluate, a condition on data, a format.

A text may stand in the function that reads it, in another one that passes it on, in a variable that
one of them names, or among the arguments of a call.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

from fleche.function._facts import ALL, MARKED, Facts
from fleche.function._imported import modules_in, texts_in
from fleche.function._looking import LookedInto, place_of
from fleche.function._own import module_name
from fleche.function._read import uses_any
from fleche.function._trees import Chain

__all__ = ["NamedInText", "NamesAsked", "Texts"]

LONGEST_TEXT = 10_000
FORMULAS = frozenset(["bambi", "formulaic", "linearmodels", "patsy", "statsmodels"])
"""Packages that evaluate formulas (``"y ~ mine(x)"``) with the names of the code that calls."""

_CHAIN = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_MARKED = re.compile(rf"@({_CHAIN.pattern})")


class NamedInText(NamedTuple):
    """Names that stand in the texts among the arguments of a call."""

    chains: tuple[Chain, ...]


class Reader(NamedTuple):
    """A function that reads texts as code.

    Attributes:
        place: its name.
        space: the names that these may lead to.
        pattern: finds them.
        takes_modules: whether they may be modules.
        takes_others: whether it may be passed the texts of other functions.
    """

    place: str
    space: Mapping[str, Any]
    pattern: re.Pattern[str]
    takes_modules: bool
    takes_others: bool

    def knows(self, chain: Chain) -> bool:
        """Whether a chain may lead somewhere."""
        return chain[0] in self.space or (self.takes_modules and ".".join(chain) in sys.modules)


class Holder(NamedTuple):
    """A function that has texts, or names variables that may have.

    Attributes:
        place: its name.
        space: the names of its module.
        texts: returns the texts.
    """

    place: str
    space: Mapping[str, Any]
    texts: Callable[[], Iterable[str]]


class Texts:
    """The texts of the functions that were followed, in which names may stand.

    They count where the function itself reads texts (:attr:`Facts.reads_texts`), and where it may
    pass them to an own function that evaluates any: in the module of that, and in modules that
    refer to it.

    Attributes:
        readers: the functions that read texts.
        told: what stands in texts among the arguments of the call.
    """

    def __init__(self) -> None:
        self.readers: list[Reader] = []
        self.told: set[Chain] = set()
        self._holders: list[Holder] = []
        self._found: dict[tuple[int, re.Pattern[str]], set[Chain]] = {}
        self._looked_at: object = None
        self._done: set[tuple[int, Chain]] = set()

    def note(
        self, function: FunctionType, facts: Facts, texts: Callable[[], Iterable[str]]
    ) -> None:
        """Note a function, what it does with names, and what returns the texts that it has."""
        place, space = place_of(function), function.__globals__
        is_formula = uses_any(FORMULAS, facts, space)
        reads = ALL if is_formula else facts.reads_texts
        if reads:
            takes_modules = ("sys", "modules") in facts.loads
            takes_others = facts.evaluates or is_formula or reads == MARKED
            pattern = _MARKED if reads == MARKED else _CHAIN
            self.readers.append(Reader(place, space, pattern, takes_modules, takes_others))
        self._holders.append(Holder(place, space, texts))

    def chains(self, looked_into: LookedInto) -> Iterator[tuple[Mapping[str, Any], Chain]]:
        """Yield the chains in texts that count, each with the namespace where it begins, once.

        They begin with a global name, or are modules, where the function asks for these by name.
        """
        modules = [
            looked_into.places_of([reader.place]) if reader.takes_others else set[str]()
            for reader in self.readers
        ]
        state = modules, len(self._holders)
        if not modules or state == self._looked_at:
            return
        self._looked_at = state
        for reader, reached_from in zip(self.readers, modules, strict=True):
            yield from self._new(reader, reader.space, self.told)
            for index, holder in enumerate(self._holders):
                if holder.place == reader.place or module_name(holder.space) in reached_from:
                    found = self._chains_of(index, reader.pattern)
                    yield from self._new(reader, holder.space, found)
                    yield from self._new(reader, reader.space, found)

    def _chains_of(self, index: int, pattern: re.Pattern[str]) -> set[Chain]:
        if (index, pattern) not in self._found:
            self._found[index, pattern] = chains_in(self._holders[index].texts(), pattern)
        return self._found[index, pattern]

    def _new(
        self, reader: Reader, space: Mapping[str, Any], found: set[Chain]
    ) -> Iterator[tuple[Mapping[str, Any], Chain]]:
        for chain in sorted(found):
            if (chain[0] in space or reader.takes_modules) and (id(space), chain) not in self._done:
                self._done.add((id(space), chain))
                yield space, chain


def chains_in(texts: Iterable[str], pattern: re.Pattern[str]) -> set[Chain]:
    """Return the chains of names in texts."""
    return {tuple(named.split(".")) for text in texts for named in pattern.findall(text)}


@cache
def named_in_text(chains: tuple[Chain, ...]) -> NamedInText:
    """Return what stands for names in arguments, the same for the same names."""
    return NamedInText(chains)


class NamesAsked(NamedTuple):
    """What code makes of texts among the arguments of a call.

    Attributes:
        imports: whether it imports modules that they may name.
        readers: the functions that read them.
    """

    imports: bool
    readers: tuple[Reader, ...]

    def roots(self, values: Collection[Any]) -> list[Any]:
        """Return what stands for that which texts in arguments name."""
        told = [text for text in texts_in(values) if len(text) <= LONGEST_TEXT]
        found: set[Chain] = set()
        for reader in self.readers:
            found.update(filter(reader.knows, chains_in(told, reader.pattern)))
        named = [named_in_text(tuple(sorted(found)))] if found else []
        return [*named, *(modules_in(told) if self.imports else ())]
