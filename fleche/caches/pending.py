"""A call between its arguments and its result."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from fleche.call import MISSING, Call, CallRecord, as_literal, split_digests
from fleche.digest import BufferDigests, Digest, digest, digest_with_buffers
from fleche.errors import FlecheError

__all__ = ["Keeper", "PendingCall"]

log = logging.getLogger("fleche.caches")


class Keeper(Protocol):
    """What a pending call needs of its cache."""

    def save_values(
        self, values: Mapping[Digest, Any], buffers: BufferDigests | None = None
    ) -> None:
        """Store those of ``values`` that are not here."""
        ...

    def save_record(self, key: Digest, record: CallRecord) -> None:
        """Store a record."""
        ...

    def drop(self, key: Digest) -> None:
        """Remove an entry from where saves go, if it is there."""
        ...


class PendingCall:
    """A call whose key is sealed and whose arguments are stored, while its function runs.

    The lease is a record without a result. It is stored before the arguments and removed after the
    record of the finished call, so that at every moment one of the two tells ``gc()`` to keep them.

    Attributes:
        key: the key of the call, whatever becomes of its arguments.
        record: the record so far.
    """

    def __init__(self, cache: Keeper, call: Call, *, lease: bool) -> None:
        """Seal ``call`` and store its arguments in ``cache``."""
        buffers = BufferDigests()
        self.record = replace(call, result=MISSING).seal(buffers)
        self.key = self.record.key
        self._cache = cache
        self._lease = digest(("lease", self.key, secrets.token_hex(16))) if lease else None
        live, _ = split_digests(call.arguments)
        try:
            if self._lease is not None:
                cache.save_record(self._lease, self.record)
            values = {self.record.arguments[name]: value for name, value in live.items()}
            cache.save_values(values, buffers)
        except BaseException:
            self._end_lease(logging.DEBUG)  # perhaps it was never there; the exception tells
            raise

    def commit(self, result: Any, metadata: Mapping[str, Any] | None = None) -> str:
        """Store the result, then the record; return the key. The lease ends here, come what may.

        Args:
            result: what the function returned.
            metadata: replaces that of the call.

        Raises:
            Indigestible: the result has no digest.
            Rejected: the cache refuses it.
        """
        try:
            found, buffers = digest_with_buffers(result)
            record = self.record.replace(result=found, literal=as_literal(result))
            if metadata is not None:
                record = record.with_metadata(metadata)
            if not isinstance(result, Digest):
                self._cache.save_values({found: result}, buffers)
            self._cache.save_record(self.key, record)
        finally:
            self.abandon()
        return self.key

    def abandon(self) -> None:
        """Give the call up (its function raised); nothing of it is listed. Idempotent."""
        self._end_lease(logging.WARNING)

    def _end_lease(self, level: int) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            self._cache.drop(lease)
        except FlecheError as error:
            log.log(level, "lease %s stays until it is too old: %s", lease[:12], error)
