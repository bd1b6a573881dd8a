"""The look at each call: whether what a function depends on is still what it was.

Names are compared by identity, a namespace at a time and in C, some 0.1 us a name. Of functions
count the code object, the defaults, the cells and the attributes, of classes the bases, the names
of their members and those members that are used. Data that can change in place is digested again,
and so is what a method or a partial is bound to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from itertools import starmap
from operator import attrgetter, eq, is_, itemgetter
from types import CellType, FunctionType
from typing import Any, NamedTuple

from fleche._util import attempt
from fleche.digest import attributes_of, marks_of_execution
from fleche.function._filling import late

__all__ = ["Checks", "Datum", "Late", "Snapshot"]

CONTENT = attrgetter("cell_contents")
BASES = attrgetter("__bases__")
SPEC = itemgetter("__spec__")


class Snapshot:
    """What the containers in some data held, for a look that is faster than a new token.

    Each container and object is noted once, however often the data leads to it.

    Attributes:
        leaves: what else can change in place, by its id, with the token of each and whether that is
            made of its digest.
        is_partial: there is something that no later look would see.
    """

    __slots__ = ("_mappings", "_objects", "_sequences", "_sets", "_slots", "is_partial", "leaves")

    def __init__(self) -> None:
        self._mappings: dict[int, tuple[Mapping[Any, Any], tuple[Any, ...], tuple[Any, ...]]] = {}
        self._sequences: dict[int, tuple[Collection[Any], tuple[Any, ...]]] = {}
        self._sets: dict[int, tuple[Set[Any], dict[int, Any]]] = {}
        self._objects: dict[int, tuple[Any, type]] = {}
        self._slots: dict[int, tuple[Any, type, dict[str, Any]]] = {}
        self.leaves: dict[int, tuple[Any, str, bool]] = {}
        self.is_partial = False

    def mapping(self, value: Mapping[Any, Any]) -> None:
        """Note what a mapping holds."""
        self._mappings[id(value)] = (value, tuple(value), tuple(value.values()))

    def items(self, value: dict[Any, Any]) -> None:
        """Note what an object holds as a dict, whose class may answer otherwise."""
        self.sequence(dict.keys(value))
        self.sequence(dict.values(value))

    def sequence(self, value: Collection[Any]) -> None:
        """Note what a sequence holds, or the view of a dict."""
        self._sequences[id(value)] = (value, tuple(value))

    def members(self, value: Set[Any]) -> None:
        """Note what a set holds."""
        self._sets[id(value)] = (value, {id(member): member for member in value})

    def instance(self, value: Any, base: type, attributes: dict[str, Any] | None) -> None:
        """Note the class of an object.

        Args:
            value: the object.
            base: the first of the bases of its class that is not the user's own.
            attributes: those of it that are not at hand in a mapping; ``None``: all are.
        """
        self._objects[id(value)] = (value, type(value))
        if attributes is not None:
            self._slots[id(value)] = (value, base, attributes)

    def leaf(self, value: Any, token: str, *, is_digested: bool = False) -> None:
        """Note the token of something else that can change in place."""
        self.leaves[id(value)] = (value, token, is_digested)

    def take_over(self, other: Snapshot) -> None:
        """Note what another snapshot has noted at the same time."""
        for name in ("_mappings", "_objects", "_sequences", "_sets", "_slots"):
            noted = getattr(self, name)
            for place, record in getattr(other, name).items():
                noted.setdefault(place, record)

    def holds(self) -> bool:
        """Whether all containers hold the very same objects, leaves apart."""
        return (
            not self.is_partial
            and all(starmap(is_mapping, self._mappings.values()))
            and all(starmap(is_sequence, self._sequences.values()))
            and all(members.keys() == set(map(id, held)) for held, members in self._sets.values())
            and all(type(value) is cls for value, cls in self._objects.values())
            and all(starmap(has_attributes, self._slots.values()))
        )


def is_mapping(mapping: Mapping[Any, Any], keys: tuple[Any, ...], values: tuple[Any, ...]) -> bool:
    """Whether a mapping holds these objects."""
    return is_sequence(mapping, keys) and all(map(is_, mapping.values(), values))


def is_sequence(sequence: Collection[Any], items: tuple[Any, ...]) -> bool:
    """Whether a sequence, or what yields the keys of a mapping, holds these objects."""
    return len(sequence) == len(items) and all(map(is_, sequence, items))


def has_attributes(value: Any, base: type, attributes: dict[str, Any]) -> bool:
    """Whether an object has these attributes, in slots or not, and no others."""
    found = attributes_of(value, beyond=base)
    if found.keys() != attributes.keys():
        return False
    return all(found[name] is part for name, part in attributes.items())


@dataclass(slots=True, eq=False)
class Datum:
    """Data that can change in place.

    Attributes:
        label: what it is called.
        value: the data.
        token: its token when it was looked at.
        retake: makes the token anew.
        snapshot: what its containers held when it had this token.
        look: makes the token anew, and a snapshot.
        retake_digest: makes the token anew of a part that counts by its digest.
        settles: returns whether all that has changed is what methods fill when it is first wanted.
    """

    label: str
    value: Any
    token: str
    retake: Callable[[Any], str]
    snapshot: Snapshot | None = None
    look: Callable[[Any], tuple[str, Snapshot]] | None = None
    retake_digest: Callable[[Any], str] | None = None
    settles: Callable[[Any, str], bool] = lambda _value, _token: False

    def has_changed(self) -> bool:
        """Whether the data is not what it was."""
        snapshot, retake = self.snapshot, self.retake
        if (
            snapshot is not None
            and snapshot.holds()
            and all(retake(leaf) == token for leaf, token, _ in snapshot.leaves.values())
        ):
            return False
        if self.look is None:
            return retake(self.value) != self.token
        token, snapshot = self.look(self.value)
        if token != self.token:
            return True
        self.snapshot = snapshot  # something was filled, or what is written does not count
        return False


class Common:
    """Data of which nothing has changed as long as no part of it has: each is looked at once.

    Several variables may lead to one object, as the units of a registry do to all the others.

    Args:
        data: data; what of it has no snapshot that sees all of it is left in :attr:`rest`.
    """

    def __init__(self, data: Iterable[Datum]) -> None:
        self.rest: list[Datum] = []
        self._snapshot = Snapshot()
        self._leaves: dict[int, tuple[Any, str, Callable[[Any], str]]] = {}
        for datum in data:
            if datum.snapshot is None or datum.snapshot.is_partial:
                self.rest.append(datum)
                continue
            self._snapshot.take_over(datum.snapshot)
            for place, (leaf, token, is_digested) in datum.snapshot.leaves.items():
                retake = datum.retake_digest if is_digested else None
                self._leaves.setdefault(place, (leaf, token, retake or datum.retake))

    def holds(self) -> bool:
        """Whether all parts are what they were."""
        return self._snapshot.holds() and all(
            retake(leaf) == token for leaf, token, retake in self._leaves.values()
        )


class Late(NamedTuple):
    """A variable that code gives a value where there is nothing yet.

    Attributes:
        place: what it is called, in full.
        find: returns what is there.
        value: what was there.
        before: the token of that.
        token: the token by which a change of what is there is known.
        retake: makes such a token anew.
    """

    place: str
    find: Callable[[], Any]
    value: Any
    before: str
    token: str
    retake: Callable[[Any], str]

    def has_changed(self) -> bool:
        """Whether there is something else than there was."""
        found = self.find()
        return found is not self.value or self.retake(found) != self.token

    def settle(self) -> None:
        """Take what is there for what a body has left."""
        found = self.find()
        late.note(self.place, found, self.retake(found), self.before)


class Checks:
    """What to compare; filled while a closure is resolved, then :meth:`compile` is called once."""

    def __init__(self) -> None:
        self.data: list[Datum] = []
        self.variables: list[tuple[Mapping[str, Any], str, Datum]] = []
        self.captured: list[tuple[CellType, Datum]] = []
        self.late: list[Late] = []
        self._names: dict[int, tuple[Mapping[str, Any], dict[str, Any]]] = {}
        self._absent: dict[int, tuple[Mapping[str, Any], set[str]]] = {}
        self._executed: dict[int, Mapping[str, Any]] = {}
        self._classes: dict[int, type] = {}
        self._functions: dict[int, tuple[FunctionType, frozenset[str]]] = {}
        self._mappings: dict[int, Mapping[Any, Any]] = {}

    def name(self, namespace: Mapping[str, Any], name: str, value: Any) -> None:
        """Expect a name to stand for the very same object."""
        self._names.setdefault(id(namespace), (namespace, {}))[1][name] = value

    def member(self, cls: type, name: str, value: Any) -> None:
        """Expect a class to have the very same object as a member."""
        self._names.setdefault(id(cls), (vars(cls), {}))[1][name] = value

    def execution(self, namespace: Mapping[str, Any]) -> None:
        """Expect a module not to be executed again."""
        for space, name in marks_of_execution(namespace):
            if space is namespace:
                self._executed[id(space)] = space
            elif name in space:
                self.name(space, name, space[name])
            else:
                self.absent(space, name)

    def absent(self, namespace: Mapping[str, Any], name: str) -> None:
        """Expect a name not to be there."""
        self._absent.setdefault(id(namespace), (namespace, set()))[1].add(name)

    def cls(self, cls: type) -> None:
        """Expect a class to have the same bases, and members of the same names."""
        self._classes[id(cls)] = cls

    def mapping(self, mapping: Mapping[Any, Any]) -> None:
        """Expect a mapping to hold the very same objects, and no more of them."""
        self._mappings[id(mapping)] = mapping

    def function(self, function: FunctionType, written: Iterable[str] = ()) -> None:
        """Expect the parts of a function to be the very same objects.

        Args:
            function: the function.
            written: names of attributes that may be any others, as code sets them.
        """
        self._functions[id(function)] = (function, frozenset(written))
        if function.__kwdefaults__ is not None:
            self.mapping(function.__kwdefaults__)

    def compile(self) -> None:
        """Arrange the comparisons so that they run in C."""
        self.names = [compile_names(*found) for found in self._names.values()]
        self.missing = [(space.keys(), frozenset(names)) for space, names in self._absent.values()]
        functions = [function for function, _ in self._functions.values()]
        self.parts = [
            (each, each.__code__, each.__defaults__, each.__kwdefaults__, each.__closure__)
            for each in functions
        ]
        spaces = [(function.__dict__, written) for function, written in self._functions.values()]
        self.whole = tuple(space for space, written in spaces if not written)
        self.sizes = tuple(map(len, self.whole))
        self.unwritten = [
            (space, written, space.keys() - written) for space, written in spaces if written
        ]
        mappings = tuple(self._mappings.values())
        kept = [
            {name: value for name, value in space.items() if name not in written}
            for space, written in spaces
        ]
        self.attributes = [
            compile_names(space, names)
            for (space, _), names in zip(spaces, kept, strict=True)
            if names
        ]
        self.attributes += [compile_names(space, dict(space)) for space in mappings if space]
        cells = [cell for function in functions for cell in function.__closure__ or ()]
        self.cells = tuple(filter(is_filled, cells))
        self.contents = tuple(map(CONTENT, self.cells))
        self.empty = tuple(cell for cell in cells if not is_filled(cell))
        classes = tuple(self._classes.values())
        self.classes = classes
        self.members = tuple(space.keys() for space in (*map(vars, classes), *mappings))
        self.member_names = tuple(map(frozenset, self.members))
        self.bases = tuple(map(BASES, classes))
        self.common = Common(self.data)
        self.executed = tuple(self._executed.values())
        self.specs = tuple(map(SPEC, self.executed))
        looked_at = self.attributes, cells, self.members, self.data, self.late, self.unwritten
        self.has_more = any(looked_at) or bool(self.executed)
        self.has_data = bool(self.data or self.variables or self.captured or self.late)

    def hold(self) -> bool:
        """Whether nothing has changed."""
        try:
            for get, namespace, values in self.names:
                if not all(map(is_, get(namespace), values)):
                    return False
            for keys, names in self.missing:
                if not keys.isdisjoint(names):
                    return False
            for function, code, defaults, keywords, closure in self.parts:
                if (
                    function.__code__ is not code
                    or function.__defaults__ is not defaults
                    or function.__kwdefaults__ is not keywords
                    or function.__closure__ is not closure  # `%autoreload` writes there, too
                ):
                    return False
            if tuple(map(len, self.whole)) != self.sizes:
                return False
            return not self.has_more or self._rest_holds()
        except (KeyError, ValueError, AttributeError):
            return False

    def _rest_holds(self) -> bool:
        """Whether attributes and cells of functions, classes and data are what they were."""
        for get, namespace, values in self.attributes:
            if not all(map(is_, get(namespace), values)):
                return False
        if not all(map(is_, map(CONTENT, self.cells), self.contents)):
            return False
        if any(map(is_filled, self.empty)):
            return False
        if not all(map(is_, map(SPEC, self.executed), self.specs)):
            return False
        if not all(map(eq, self.members, self.member_names)):
            return False
        if not all(map(is_, map(BASES, self.classes), self.bases)):
            return False
        if any(space.keys() - written != names for space, written, names in self.unwritten):
            return False
        if any(each.has_changed() for each in self.late):
            return False
        return not any(datum.has_changed() for datum in self.data_to_look_at())

    def data_to_look_at(self) -> Iterable[Datum]:
        """Yield data of which something may have changed, and look anew at what has not."""
        common = self.common
        if common.holds():
            yield from common.rest
            return
        yield from self.data
        self.common = Common(self.data)

    def changed_data(self) -> Iterable[str]:
        """Yield the labels of data that has changed in place, and of variables set anew."""
        for each in self.late:
            attempt(each.settle)
        for datum in self.data_to_look_at():
            try:
                changed = datum.has_changed() and not datum.settles(datum.value, datum.token)
            except Exception:  # noqa: BLE001 (what an object raises when it is looked into)
                changed = True
            if changed:
                yield datum.label
        for namespace, name, datum in self.variables:
            value = namespace.get(name)
            if value is not datum.value and datum.retake(value) != datum.token:
                yield datum.label
        for cell, datum in self.captured:
            value = cell.cell_contents if is_filled(cell) else cell
            if value is not datum.value and datum.retake(value) != datum.token:
                yield datum.label


def compile_names(
    namespace: Mapping[str, Any], expected: Mapping[str, Any]
) -> tuple[Callable[[Any], tuple[Any, ...]], Mapping[str, Any], tuple[Any, ...]]:
    names = list(expected)
    if len(names) == 1:  # with one name, itemgetter would return the bare object
        names *= 2
    return itemgetter(*names), namespace, tuple(expected[name] for name in names)


def is_filled(cell: CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
