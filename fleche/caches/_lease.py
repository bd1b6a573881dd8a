"""Keeping values from being collected while nothing else refers to them yet."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from fleche._util import batched
from fleche.call import CallRecord
from fleche.digest import Digest, digest
from fleche.errors import FlecheError, Rejected

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Lease"]

log = logging.getLogger("fleche.caches")

_TOGETHER = 4096


class _Keeper(Protocol):
    def save_records(self, records: Mapping[Digest, CallRecord]) -> None: ...
    def drop(self, key: Digest) -> None: ...


class Lease:
    """Keeps values in a cache until the ``with`` block is left, however long that takes.

    Like the lease of a running call it is a record without a result, which tells ``gc()`` to keep
    what it names, here or not yet. A cache that takes no such record (it shows only some calls, for
    instance) keeps values by their age alone.

    Args:
        cache: where the values are, or will be.
    """

    def __init__(self, cache: _Keeper) -> None:
        self._cache = cache
        self._keys: list[Digest] = []

    def hold(self, values: Iterable[Digest]) -> None:
        """Keep these values, too. To be said before they are asked for, or stored."""
        records = {
            digest(("lease", secrets.token_hex(16))): CallRecord(
                name="transfer",
                arguments={str(number): value for number, value in enumerate(together)},
            )
            for together in batched(values, _TOGETHER)
        }
        self._keys += records
        try:
            self._cache.save_records(records)
        except Rejected as error:
            log.debug("no lease for values that arrive: %s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for key in self._keys:
            try:
                self._cache.drop(key)
            except FlecheError as failure:
                log.warning("lease %s stays until it is too old: %s", key[:12], failure)
