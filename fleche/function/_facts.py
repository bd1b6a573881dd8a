"""What one definition does with names, as a record: what it loads, what it writes, what it imports.

:mod:`._names` reads it from the syntax tree, and :mod:`._bytecode` where there is no source. A
*chain* is a name with attributes behind it: ``a.b.c`` is ``("a", "b", "c")``.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from fleche.function._fills import Fills
from fleche.function._trees import Chain

__all__ = ["ALL", "MARKED", "Facts", "Import"]

MARKED, ALL = "@", "*"
"""Which names in texts count: those behind an ``@``, as data frames have it, or all."""


class Import(NamedTuple):
    """``from module import name as bound``, or ``import module as bound`` if ``name`` is empty.

    With neither, it is ``import_module("module")``, which may end up anywhere.
    """

    level: int
    module: str
    name: str
    bound: str


class Facts(msgspec.Struct):
    """What one definition does with names.

    Attributes:
        loads: chains that begin with a global name.
        named: chains where a class only selects: in ``isinstance``, ``except`` and ``case``.
        captured: chains that begin with a captured variable.
        lazy: chains that begin with a name that an import in the body binds.
        attributes: names that are used as attributes of anything.
        prefixes: beginnings of attribute names that are made at run time.
        dynamic: chains that begin with a global name, whose attributes are looked up by a name
            that is made at run time; with what is known of its beginning.
        looks_into_itself: ``getattr(self, name)`` with a name that is made at run time.
        looks_into_others: the same of anything else, which the source does not show.
        sets_any: whether attributes are set, or deleted, whose names are made at run time.
        writes: chains that begin with a global name, and are assigned to. Constant items at the
            end of a chain are steps of it, as ``("a", "b", "['c']")`` for ``a.b["c"]``.
        stores: global names of which items are set, apart from where these are loaded.
        lazily: those of ``writes`` and ``class_writes`` that are assigned where nothing is yet.
        mutated: chains that begin with a global name, of which a mutating method is called.
        captured_writes: captured variables of which that holds.
        captured_attributes: the attributes of these that are set, as chains of two.
        parameter_writes: parameters whose values are changed in place.
        class_writes: chains without their beginning, where attributes are changed in place through
            ``self``, or set through ``cls``.
        counters: those of all these chains that augmented assignments (``+=``) write.
        fills: of a method, what it fills when it is first wanted.
        by_clock: of a method, the attributes that it sets to what the clock returns.
        imports: imports in the body.
        global_imports: the global names that these bind.
        imports_by_name: beginnings of the names of modules that are imported by a name made at run
            time, as in ``import_module(f"models.{name}")``; with the level of a relative one. What
            a name ends with follows behind a ``*``.
        uses_own_module: whether it looks up its own module, as in ``sys.modules[__name__]``.
        uses_any_global: whether it uses ``globals()`` for more than constant names, or than to
            evaluate a text.
        makes_classes: whether it defines classes, or makes them at run time.
        unseen: ways of access that no reading of the source follows.
        texts: those that stand in it, where they may hold names.
        reads_texts: which names in these count: :data:`ALL`, :data:`MARKED` or none.
        evaluates: whether it evaluates text, perhaps that of others.
    """

    loads: set[Chain] = msgspec.field(default_factory=set)
    named: set[Chain] = msgspec.field(default_factory=set)
    captured: set[Chain] = msgspec.field(default_factory=set)
    lazy: set[Chain] = msgspec.field(default_factory=set)
    attributes: set[str] = msgspec.field(default_factory=set)
    prefixes: set[str] = msgspec.field(default_factory=set)
    dynamic: set[tuple[Chain, str]] = msgspec.field(default_factory=set)
    looks_into_itself: bool = False
    looks_into_others: bool = False
    sets_any: bool = False
    writes: set[Chain] = msgspec.field(default_factory=set)
    stores: set[str] = msgspec.field(default_factory=set)
    lazily: set[Chain] = msgspec.field(default_factory=set)
    mutated: set[Chain] = msgspec.field(default_factory=set)
    captured_writes: set[str] = msgspec.field(default_factory=set)
    captured_attributes: set[Chain] = msgspec.field(default_factory=set)
    parameter_writes: set[str] = msgspec.field(default_factory=set)
    class_writes: set[Chain] = msgspec.field(default_factory=set)
    counters: set[Chain] = msgspec.field(default_factory=set)
    fills: Fills = Fills()
    by_clock: frozenset[str] = frozenset()
    imports: set[Import] = msgspec.field(default_factory=set)
    global_imports: set[str] = msgspec.field(default_factory=set)
    imports_by_name: set[tuple[int, str]] = msgspec.field(default_factory=set)
    uses_own_module: bool = False
    uses_any_global: bool = False
    makes_classes: bool = False
    unseen: set[str] = msgspec.field(default_factory=set)
    texts: list[str] = msgspec.field(default_factory=list)
    reads_texts: str = ""
    evaluates: bool = False
