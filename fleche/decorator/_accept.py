"""Accepting new code: what is stored is right for it, too."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from fleche._util import batched
from fleche.call import CallEntry, LazyCall, QueryCall
from fleche.decorator._spec import FunctionSpec
from fleche.digest import Digest
from fleche.errors import Indigestible, ParcelError

if TYPE_CHECKING:
    from fleche.caches import BaseCache

__all__ = ["accept"]

_TOGETHER = 256


def accept(
    spec: FunctionSpec, cache: BaseCache, template: QueryCall, *, dry_run: bool = False
) -> int:
    """Give stored calls of other code the keys that they have with the code as it is now.

    Args:
        spec: the function.
        cache: where its calls are.
        template: which of them.
        dry_run: change nothing.

    Returns:
        How many calls that was.

    Raises:
        Rejected: the cache is read-only.
    """
    if not dry_run:
        cache.check_writable("accept")
    accepted = 0
    for calls in batched(cache.query(template).sorted(), _TOGETHER):
        entries: dict[Digest, CallEntry] = {}
        for call in calls:  # the newest last, which counts where several get one key
            entries.update(_renewed(spec, cache, call))
        known = cache.contains_many(entries)
        fresh = {key: entries[key] for key, here in zip(entries, known, strict=True) if not here}
        if fresh and not dry_run:
            cache.backend.save(fresh)
        accepted += len(fresh)
    return accepted


def _renewed(spec: FunctionSpec, cache: BaseCache, call: LazyCall) -> dict[Digest, CallEntry]:
    """Return the entry of a call under its new key; nothing if it has no other."""
    record = call.record
    if record.version != spec.options.version:
        return {}
    try:
        identity = spec.identify(spec.expanded(dict(call.arguments), cache))
    except (KeyError, ParcelError, Indigestible):
        return {}  # an argument is gone, or cannot be opened here
    notes: dict[str, Any] = dict(record.metadata.get("fleche", {}))
    notes["accepted"] = datetime.now(timezone.utc).isoformat()
    renewed = record.replace(
        code=None if identity.code is None else str(identity.code),
        dependencies={} if identity.closure is None else identity.closure.record(),
        metadata={**record.metadata, "fleche": notes},
        unhashed=spec.unhashed,
    )
    if identity.key == call.key or renewed.key != identity.key:
        return {}
    return {identity.key: CallEntry(renewed, call.entry.parcels)}
