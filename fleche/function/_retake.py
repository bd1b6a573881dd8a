"""Looking at data again, which was described before by :mod:`fleche.function._values`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import FunctionType, ModuleType
from typing import Any

from fleche.function._filling import fillings
from fleche.function._own import is_own_object
from fleche.function._recheck import Datum, Snapshot
from fleche.function._trees import Chain
from fleche.function._values import Values, name_of

__all__ = ["Retake"]


class Retake:
    """Makes the token of data anew, when code is not followed: what was not met counts as new.

    Args:
        kept: the functions, classes and modules that were met, with their tokens, by their ids.
        here: the directory that paths are taken relative to; "" for none.
        fills: returns the attributes that methods of a class fill when they are first wanted.
        counted: those in which there was something else; see :class:`Values`.
        masks: steps to parts that do not count, by the id of the object.
    """

    def __init__(
        self,
        kept: Mapping[int, tuple[Any, str]],
        here: str,
        fills: Callable[[type], Mapping[str, bool]],
        counted: Collection[tuple[int, str]],
        masks: Mapping[int, set[Chain]] | None = None,
    ) -> None:
        self.masks = masks
        self.kept = kept
        self.here = here
        self.fills = fills
        self.counted = counted

    def __call__(self, value: Any) -> str:
        """Return the token of a value."""
        return self.look(value)[0]

    def datum(self, label: str, value: Any, token: str, snapshot: Snapshot | None) -> Datum:
        """Return data that is looked at again so; where there is a snapshot, first by that."""
        look, of_digest = (None, None) if snapshot is None else (self.look, self.of_digest)
        return Datum(label, value, token, self, snapshot, look, of_digest, self.settles)

    def of_digest(self, value: Any) -> str:
        """Return the token of a value of which the digest has been found to count."""
        return Values(self.refer, self.here, self.fills, masks=self.masks).leaf(value)

    def look(self, value: Any) -> tuple[str, Snapshot]:
        """Return the token of a value, and what its containers hold."""
        values = Values(self.refer, self.here, self.fills, masks=self.masks)
        return values.token(value), values.snapshot

    def settles(self, value: Any, token: str) -> bool:
        """Return whether ``token`` was that of a value before methods filled it, and note that."""
        values = Values(self.refer, self.here, self.fills, self.counted, self.masks)
        if values.token(value) != token:
            return False
        for obj, name, part in values.filled:
            fillings.note(obj, name, part)
        return bool(values.filled)

    def refer(self, obj: Any) -> str:
        """Return the token of a function, class or module."""
        found = self.kept.get(id(obj))
        if found is not None:
            return found[1]
        if is_own_object(obj) and (isinstance(obj, FunctionType) or hasattr(obj, "__mro__")):
            return "new"  # other objects count by name, if they come here
        return f"name {name_of(obj)}" if not isinstance(obj, ModuleType) else obj.__name__
