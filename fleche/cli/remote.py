"""``fleche remote --serve``: a process whose standard streams are the wire."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import NoReturn

from fleche.errors import ConfigError, FlecheError

__all__ = ["serve_standard_streams"]


def serve_standard_streams(
    cache_name: str | None, *, read_only: bool = False, no_unpickle: bool = False
) -> int:
    """Serve a cache of this machine's configuration on standard input and output, then exit.

    Args:
        cache_name: which cache; the default one, if ``None``.
        read_only: refuse every save and every evict.
        no_unpickle: refuse a cache that opens the values it is sent.

    Raises:
        ConfigError: the configuration is broken, or such a cache may not be served.
    """
    if os.isatty(0):
        sys.stderr.write(
            "fleche: this speaks a binary protocol and is started by SshCache, not by hand; "
            "Ctrl-D ends it\n"
        )
    reader, writer = guard_standard_streams()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    try:
        _serve(reader, writer, cache_name, read_only, no_unpickle)
    except FlecheError as error:
        sys.stderr.write(f"fleche remote: {error}\n")
        _exit(2)
    _exit(0)


def guard_standard_streams() -> tuple[io.FileIO, io.FileIO]:
    """Take standard input and output for the protocol alone and return them.

    Whoever prints, in this process or in a child of it, prints to standard error from now on;
    whoever reads standard input finds its end.
    """
    reader = io.FileIO(os.dup(0), "rb")
    writer = io.FileIO(os.dup(1), "wb")
    sys.stdout.flush()
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return reader, writer


def _serve(
    reader: io.FileIO, writer: io.FileIO, cache_name: str | None, read_only: bool, no_unpickle: bool
) -> None:
    from fleche.config import load_cache_config
    from fleche.remote.server import serve

    cache = load_cache_config(cache_name)
    if no_unpickle and cache.capabilities.opens_parcels:
        raise ConfigError(
            f"cache {cache_name or 'default'}: it opens the values it is sent, and --no-unpickle "
            "forbids that; serve another cache, or store values as files"
        )
    served = cache.readonly() if read_only else cache
    try:
        serve(reader, writer, served, cache_name=cache_name)
    finally:
        cache.close()


def _exit(status: int) -> NoReturn:
    """Exit at once: a request that is still being worked on has nobody left to answer."""
    sys.stderr.flush()
    os._exit(status)
