"""What ``fleche.toml`` may say of a file storage."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["FileOptions"]


class FileOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table of a file storage in ``fleche.toml``.

    Attributes:
        root: the directory.
        compress: compress what is written, if that makes it smaller.
        secret_key: one secret or several: the first signs, all of them are accepted.
        mmap: load the large buffers of a value when they are touched, copy-on-write.
        durable: what was written survives a power failure; slower.
    """

    root: str
    compress: Literal["zlib", "zstd"] | None = None
    secret_key: str | list[str] | None = None
    mmap: bool = False
    durable: bool = False
