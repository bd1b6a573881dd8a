"""Rows of calls, read so that little of them is in memory at once."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from fleche.call import CallEntry, decode_entry
from fleche.errors import CorruptParcel, ParcelError, StorageError
from fleche.storage.sql._database import Database
from fleche.storage.sql._errors import DAMAGED

__all__ = ["LAST_ID", "Rows", "among", "is_key"]

log = logging.getLogger("fleche.storage")

LAST_ID = (1 << 63) - 1

_FIRST_PAGE = 100  # rows; few, so that the first answer comes early
_LARGEST_PAGE = 8_000
_PORTION = 1 << 20
"""Bytes of entries that are read together, if there are several."""

_AFTER_ALL = "\U0010ffff"

_KEY = re.compile("[0-9a-f]{64}")


class Rows:
    """The rows of calls in ``database``.

    Args:
        database: SQLite or a server.
        secrets: all are accepted.
    """

    def __init__(self, database: Database, secrets: Sequence[bytes]) -> None:
        self._database = database
        self._secrets = secrets

    def among(self, statement: str, values: Iterable[Any]) -> list[Any]:
        """Return the rows of a statement that ends where the list of values begins."""
        return self._database.fetch(*among(statement, values))

    def entries_among(
        self, column: Literal["id", "key"], values: Sequence[Any]
    ) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        """Yield keys and entries in the order of ``values``, little of it in memory at once.

        The caller may take long over each entry, and many may at the same time. So those that are
        longer than their share are left for statements of their own.

        Args:
            column: by which they are chosen.
            values: those of the column, as many as a statement takes.
        """
        rows = self.among(f"{_shares_of(len(values))} WHERE {column}", values)
        places = {value: place for place, value in enumerate(values)}
        number = ("id", "key").index(column)
        rows.sort(key=lambda row: places.get(row[number], len(places)))
        return self._opened(rows)

    def all_entries(self, size: int, most: int) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        """Yield keys and entries of all calls, the last come first, likewise.

        Args:
            size: how many are read at first; then more and more.
            most: that many at once.
        """
        last = LAST_ID
        while True:
            statement = f"{_shares_of(size)} WHERE id < :last ORDER BY id DESC LIMIT :size"
            rows = self._database.fetch(statement, {"last": last, "size": size})
            is_end = len(rows) < size
            last = self._checked_last(rows, last)
            yield from self._opened(rows)
            if is_end:
                return
            size = min(4 * size, most)

    def _checked_last(self, rows: Sequence[Any], last: int) -> int:
        """Return the first column of the last row, which falls from row to row.

        Raises:
            StorageError: it does not.
        """
        for row in rows:
            if not isinstance(row[0], int) or row[0] >= last:
                raise StorageError(f"{self._database.shown}: rows in disorder ({DAMAGED})")
            last = row[0]
        return last

    def _opened(self, rows: list[Any]) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        """Yield keys and entries, those that were too long for their share read by themselves."""
        opened = self.opened
        rows.reverse()  # they are taken from the end, and let go
        rest: dict[Any, Any] = {}
        while rows:
            if rows[-1][3] is None and rows[-1][0] not in rest:
                portion = _first_portion(rows)
                rest = dict(self.among("SELECT id, entry FROM fleche_calls WHERE id", portion))
            row_id, key, _, data = rows.pop()
            data = rest.pop(row_id, None) if data is None else data
            if data is not None:
                yield key, opened(key, data)

    def pages(
        self,
        statement: str,
        parameters: Mapping[str, Any],
        last: int = LAST_ID,
        *,
        whole: bool = False,
    ) -> Iterator[Any]:
        """Yield rows whose first column falls, fetched in pages that grow.

        Args:
            statement: with the parameters ``last`` and ``size``.
            parameters: the others.
            last: the first column is less than this.
            whole: rows may share their first column. The last such group of a page is left to the
                next one, so that none is torn.
        """
        size = _FIRST_PAGE
        while True:
            rows = self._database.fetch(statement, {**parameters, "last": last, "size": size})
            is_end = len(rows) < size
            if whole and not is_end:
                rest = [row for row in rows if row[0] != rows[-1][0]]
                if not rest:  # one group is larger than a page
                    size *= 4
                    continue
                rows = rest
            if rows and not all(isinstance(row[0], int) and row[0] < last for row in rows):
                raise StorageError(f"{self._database.shown}: rows in disorder ({DAMAGED})")
            sound = [row for row in rows if len(row) == 1 or is_key(row[1])]
            if len(sound) < len(rows):
                log.warning("%s: calls whose key is damaged are passed over", self._database.shown)
            yield from sound
            if is_end:
                return
            last, size = rows[-1][0], min(16 * size, _LARGEST_PAGE)

    def latest(self, statement: str, parameters: Mapping[str, Any]) -> Iterator[int]:
        """Yield the second column of rows in the falling order of both, in pages that grow.

        Args:
            statement: selects ``s.text`` and ``s.call``.
            parameters: of the statement.
        """
        size = _FIRST_PAGE
        statement += (
            " AND (s.text, s.call) < (:text, :last) ORDER BY s.text DESC, s.call DESC LIMIT :size"
        )
        text, last = _AFTER_ALL, LAST_ID
        while True:
            names = {**parameters, "text": text, "last": last, "size": size}
            rows = self._database.fetch(statement, names)
            for row in rows:
                is_sound = isinstance(row[0], str) and isinstance(row[1], int)
                if not (is_sound and (row[0], row[1]) < (text, last)):
                    raise StorageError(f"{self._database.shown}: rows in disorder ({DAMAGED})")
                text, last = row
                yield last
            if len(rows) < size:
                return
            size = min(4 * size, _LARGEST_PAGE)

    def opened(self, key: str, data: Any) -> CallEntry | ParcelError:
        """Return the entry in a row, after every check, or the error that refuses it."""
        place = self._database.shown
        if type(key) is not str:  # a damaged file holds anything
            return CorruptParcel(f"{place}: the key of a call is damaged")
        try:
            return decode_entry(key, data if type(data) is bytes else b"", self._secrets, place)
        except ParcelError as error:
            return error


def _shares_of(count: int) -> str:
    """Return what selects rows of calls, with those entries that are no longer than their share."""
    share = _PORTION // count
    return f"SELECT id, key, size, CASE WHEN size <= {share} THEN entry END FROM fleche_calls"


def among(statement: str, values: Iterable[Any]) -> tuple[str, dict[str, Any]]:
    """Return a statement with the list of values at its end, and their names."""
    names = {
        f"k{number}": value if isinstance(value, int) else str(value)
        for number, value in enumerate(values)
    }
    places = ", ".join(f":{name}" for name in names)
    return f"{statement} IN ({places})", names


def _first_portion(rows: Sequence[Any]) -> list[int]:
    """Return the ids of the last rows that lack their entries, as many as are read together."""
    portion: list[int] = []
    room = _PORTION
    for row_id, _, size, data in reversed(rows):
        if data is None:
            room -= size if isinstance(size, int) else _PORTION
            if portion and room < 0:
                break
            portion.append(row_id)
    return portion


def is_key(text: Any) -> bool:
    return isinstance(text, str) and _KEY.fullmatch(text) is not None
