"""Locks: of several processes that want the same result at the same time, one computes.

The one that computes holds a lock (:class:`~fleche.storage.LockTable`), which a thread renews until
the result is stored. The others wait until it is gone, look the result up, and find it. They take
over a lock whose heartbeat has stopped, and compute without one where waiting in line would only
take longer: when the owner has failed, or could not store what it computed.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Generator
from enum import Enum
from threading import Event, Thread

from fleche._util import is_held_here
from fleche.call import LazyCall
from fleche.decorator._invocation import LOUD, KeyedInvocation
from fleche.decorator._singleflight import flights, working_directory
from fleche.digest import Digest
from fleche.storage import Lock, LockTable

__all__ = ["ComputeLock", "acquire", "acquire_async"]

log = logging.getLogger("fleche.decorator")

BEAT = 5.0
"""Seconds between two signs of life."""

PATIENCE = 30.0
"""Seconds without one after which an owner is given up."""

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 1.0

_owners: set[str] = set()  # of this process
os.register_at_fork(after_in_child=_owners.clear)


class ComputeLock:
    """A claim that is kept alive by a thread until it is released, or no reference is left.

    The claim belongs to the process that made it: in a forked child, releasing it does nothing.
    """

    def __init__(self, locks: LockTable, key: Digest, owner: str) -> None:
        self._locks, self._key, self._owner = locks, key, owner
        self._pid = os.getpid()
        self._over = Event()
        _owners.add(owner)
        forgotten = weakref.ref(self)
        try:
            Thread(
                target=_keep_alive,
                args=(forgotten, self._over, locks, key, owner),
                name="fleche-claim",
                daemon=True,
            ).start()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let the others go on. Idempotent; a failure costs them some patience, and no more."""
        if self._over.is_set() or self._pid != os.getpid():
            return
        self._over.set()
        _release(self._locks, self._key, self._owner)


def _release(locks: LockTable, key: Digest, owner: str) -> None:
    try:
        locks.release(key, owner)
    except Exception as error:  # noqa: BLE001 (of any cache)
        log.warning("call %s: others wait for it a little longer: %s", key[:12], error)
    else:
        _owners.discard(owner)


def _keep_alive(
    lock: weakref.ref[ComputeLock], over: Event, locks: LockTable, key: Digest, owner: str
) -> None:
    while not over.wait(BEAT):
        if lock() is None:  # an interrupt came between the claim and the computing
            _release(locks, key, owner)
            return
        try:
            if not locks.heartbeat(key, owner):
                return
        except Exception as error:  # noqa: BLE001 (of any cache; it may recover)
            log.debug("call %s: no sign of life: %s", key[:12], error)


class _Claimed(Enum):
    """How a claim was come by."""

    FIRST = "it was free"
    NEXT = "its owner gave it up"
    TAKEN_OVER = "its owner has died"


class StaleDetector:
    """Tells when the owner of a claim is gone.

    At first sight the claim's age by the clock of the storage counts. After that the clock of this
    process decides: a claim that does not change for so long is dead, whatever time others have.
    """

    def __init__(self, locks: LockTable, key: Digest) -> None:
        self._locks, self._key = locks, key
        self._seen = Lock("", 0.0)
        self._since = 0.0

    def is_dead(self, found: Lock) -> bool:
        """Return whether the claim, as it is found now, is no longer kept alive."""
        now = time.monotonic()
        if found == self._seen:
            return now - self._since > PATIENCE
        is_new = found.owner != self._seen.owner
        self._seen, self._since = found, now
        return is_new and self._locks.now(self._key) - found.heartbeat > PATIENCE


def _claim(locks: LockTable, key: Digest, owner: str) -> Generator[float, None, _Claimed | None]:
    """Claim ``key``; yield how many seconds to wait before the next attempt.

    Returns ``None`` if a caller in this very process has it: waiting for oneself never ends. A
    caller that has the working directory may also wait for another process for ever: a thread that
    wants the directory here may have claimed what is wanted there.
    """
    watch, pause, outcome = StaleDetector(locks, key), _FIRST_PAUSE, _Claimed.FIRST
    while (found := locks.acquire(key, owner)) is not None:
        if found.owner in _owners or (is_held_here(working_directory) and flights.others_run()):
            return None
        if watch.is_dead(found):
            if locks.steal(key, owner, found):
                return _Claimed.TAKEN_OVER
            continue
        yield pause
        pause, outcome = min(1.5 * pause, _LONGEST_PAUSE), _Claimed.NEXT
    return outcome


def _negotiate(
    invocation: KeyedInvocation,
) -> Generator[float, None, ComputeLock | LazyCall | None]:
    """Wait for one's lock; return it, or the stored call, or ``None`` to compute without."""
    claimed = lock = None
    try:
        locks = invocation.cache.locks
        if locks.shared and not invocation.cache.read_only:
            owner = os.urandom(16).hex()
            claimed = yield from _claim(locks, invocation.key, owner)
            lock = ComputeLock(locks, invocation.key, owner) if claimed else None
    except LOUD:
        raise
    except Exception as error:  # noqa: BLE001 (of any cache, a user's too)
        invocation.spec.warner.warn_error(
            "claim",
            error,
            "does not wait for other processes that compute the same",
            "The result is not affected; mend what is wrong with the cache",
        )
    if lock is None:
        return None
    try:
        # it may have been stored since the last look
        hit: LazyCall | None = invocation.look(again=True)
    except BaseException:
        lock.release()
        raise
    if hit is None and claimed is not _Claimed.NEXT:
        return lock
    lock.release()
    return hit


def acquire(invocation: KeyedInvocation) -> ComputeLock | LazyCall | None:
    """Wait until no other process computes the call.

    Returns:
        what to hold while computing; the stored call, if another process has computed it; or
        ``None`` if the call is to be computed without regard to others.
    """
    steps = _negotiate(invocation)
    while True:
        try:
            pause = next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        time.sleep(pause)


async def acquire_async(invocation: KeyedInvocation) -> ComputeLock | LazyCall | None:
    """Do the same without blocking the event loop."""
    import asyncio

    steps = _negotiate(invocation)
    while True:
        try:
            pause = next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        await asyncio.sleep(pause)
