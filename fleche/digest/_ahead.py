"""Large buffers, hashed by a thread while the one that will need their digests does other work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread

from fleche.digest._digest import Digest, digest_of_hash
from fleche.digest._tokens import AT_ONCE, BufferDigests, Hasher, hash_threads

__all__ = ["hashed_ahead"]


@contextmanager
def hashed_ahead(
    views: Sequence[memoryview], buffers: BufferDigests
) -> Iterator[Callable[[], bool]]:
    """Hash ``views`` during the ``with`` block, which ends when ``buffers`` has their digests.

    The block gets a function that says whether they are still being hashed. If it raises, nothing
    is waited for, and nothing noted.

    Args:
        views: contiguous memory of single bytes, which nothing writes to meanwhile.
        buffers: where a walk, and the packing that follows, finds the digests.
    """
    hashing = _Hashing(views)
    try:
        yield hashing.is_running
    except BaseException:
        hashing.is_given_up = True
        raise
    hashing.note_in(buffers)


class _Hashing:
    def __init__(self, views: Sequence[memoryview]) -> None:
        self._views = views
        self._found: list[Digest] = []
        self.is_given_up = False
        self._thread = Thread(target=self._run, name="fleche-hashing", daemon=True)
        with suppress(RuntimeError):  # no more threads: the walk hashes them
            self._thread.start()

    def _run(self) -> None:
        with suppress(MemoryError):
            for view in self._views:
                hasher = Hasher(max_threads=hash_threads(view.nbytes, busy=1))
                for start in range(0, view.nbytes, AT_ONCE):
                    if self.is_given_up:
                        return
                    hasher.update(view[start : start + AT_ONCE])
                self._found.append(digest_of_hash(hasher.digest()))

    def is_running(self) -> bool:
        return self._thread.is_alive()

    def note_in(self, buffers: BufferDigests) -> None:
        if self._thread.ident is not None:
            self._thread.join()
        for view, found in zip(self._views, self._found, strict=False):
            buffers.note_ahead(view, found)
