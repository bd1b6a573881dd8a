"""Small objects that were read before, by the checksum that a listing gives of them."""

from __future__ import annotations

import hashlib

__all__ = ["Recent"]

_LARGEST = 1 << 16


class Recent:
    """Contents by their MD5, up to so many bytes.

    S3 names it in every listing, so that a scan need not fetch again what has not changed. An
    object whose tag is no MD5 of its content (encrypted ones, and those uploaded in parts) is not
    kept. What is found here is what the listing spoke of, so that nothing can be out of date.

    Args:
        most: bytes to keep; when they are used up, everything is dropped.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[str, bytes] = {}
        self._size = 0

    def get(self, tag: str) -> bytes | None:
        """Return the content that has this tag, if it is known."""
        return self._held.get(tag) if tag else None

    def keep(self, tag: str, content: bytes) -> None:
        """Remember the content, if the tag is its MD5."""
        if not tag or len(content) > _LARGEST or tag in self._held:
            return
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != tag:
            return
        if self._size + len(content) > self._most:
            self.clear()
        self._held[tag] = content
        self._size += len(content)

    def clear(self) -> None:
        """Forget everything."""
        self._held, self._size = {}, 0
