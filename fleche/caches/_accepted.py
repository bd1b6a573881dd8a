"""Code that was accepted, as look-ups use it: which other code may have the results of this code.

What is accepted is some parts of code together (:class:`~fleche.storage.Acceptance`), and never a
function with all that it depends on: so it serves every function that uses them, and stays when
other parts change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from fleche.storage import Acceptance, newest_acceptances

__all__ = ["AcceptedCode", "absolute_parts"]

T = TypeVar("T")

_MANY = 1024


def absolute_parts(parts: Mapping[str, str], home: str) -> dict[str, str]:
    """Return parts of code by names that are the same in every module.

    Args:
        parts: by their names in ``home``.
        home: the module whose names stand without it.
    """
    return {label if ":" in label else f"{home}:{label}": part for label, part in parts.items()}


class AcceptedCode:
    """What was accepted in one cache.

    Attributes:
        rows: each acceptance that counts, the newest first.
    """

    def __init__(self, rows: Iterable[Acceptance]) -> None:
        self.rows = newest_acceptances(rows)
        self._known: dict[object, object] = {}

    def canonical(self, parts: Mapping[str, str]) -> dict[str, str]:
        """Return what parts of code count as: the oldest code that they were accepted for.

        A part that is gone since then, and is here for another reason, counts as it is.

        Args:
            parts: by their names in every module.
        """
        return self.follow(parts)[0]

    def follow(self, parts: Mapping[str, str]) -> tuple[dict[str, str], set[str]]:
        """Return what :meth:`canonical` does, and the names that what was accepted speaks of."""
        found, spoken = dict(parts), set[str]()
        rest = [row for row in self.rows if row.now != row.then]  # others were taken back
        while row := next((row for row in rest if row.now.items() <= found.items()), None):
            rest.remove(row)
            for label in row.now:
                del found[label]
            for label, part in row.then.items():
                found.setdefault(label, part)
            spoken.update(row.now, row.then)
        return found, spoken

    def forms(self, parts: Mapping[str, str], home: str) -> list[dict[str, str]]:
        """Return what some code counts as, best first; nothing if none of it was accepted.

        Parts that are new since then may have been there before, for another reason: therefore the
        second.

        Args:
            parts: by their names in ``home``.
            home: the module whose names stand without it.
        """
        whole = absolute_parts(parts, home)
        found = self.canonical(whole)
        if found == whole:
            return []
        forms = [found]
        if new := {label: part for label, part in whole.items() if label not in found}:
            forms.append({**new, **found})
        prefix = f"{home}:"
        return [
            {label.removeprefix(prefix): part for label, part in each.items()} for each in forms
        ]

    def remember(self, place: object, make: Callable[[], T]) -> T:
        """Return what ``make`` returns, which is the same for each ``place``."""
        if place not in self._known:
            if len(self._known) >= _MANY:
                self._known.clear()
            self._known[place] = make()
        return self._known[place]  # type: ignore[return-value]
