"""``fleche remote --serve``: a process whose standard streams are the wire."""

from __future__ import annotations

import io
import logging
import os
import select
import signal
import sys
import time
from contextlib import suppress
from threading import Thread, main_thread
from typing import NoReturn

from fleche._util import override
from fleche.caches import BaseCache
from fleche.config import load_cache_config
from fleche.errors import FlecheError, told
from fleche.remote import serve, serve_unopened

__all__ = ["guard_standard_streams", "serve_standard_streams"]

log = logging.getLogger("fleche.remote.server")

_LONG_BLOCK = 2 << 20
"""Bytes; more than a frame, which would cost more time from the system than from a heap."""

PATIENCE = 3.0
"""Seconds that the server has to end by itself after its input, before it is told to."""

_GLANCE = 0.5
"""Seconds between two looks for the end of the input, where what is to be read hides it."""

CLOSING = 4.0
"""Seconds that the cache has to close."""


def serve_standard_streams(
    cache_name: str | None, *, read_only: bool = False, no_unpickle: bool = False
) -> int:
    """Serve a cache of this machine's configuration on standard input and output, then exit.

    What there is to say goes to standard error; nowhere, if that is closed. The process ends with
    its input, a few seconds later at most, whatever the cache is waiting for then.

    Args:
        cache_name: which cache; the default one, if ``None``.
        read_only: refuse every save and every evict.
        no_unpickle: refuse a cache that opens the values it is sent.

    Returns:
        The exit status, if standard input or output is missing; otherwise it does not return.
    """
    names = {"input": sys.__stdin__, "output": sys.__stdout__}
    if closed := [name for name, stream in names.items() if stream is None]:
        _complain(f"standard {' and '.join(closed)}: closed, and a server needs both")
        return 2
    if sys.__stderr__ is None:
        from fleche.cli.main import prepare_streams

        prepare_streams()
    if os.isatty(0):
        sys.stderr.write(
            "fleche: this speaks a binary protocol and is started by SshCache, not by hand; "
            "Ctrl-D ends it\n"
        )
    _let_memory_go()
    server = _Server(*guard_standard_streams())
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    server.watch()
    try:
        server.serve(cache_name, read_only=read_only, no_unpickle=no_unpickle)
        status = 0
    except FlecheError as error:
        _complain(told(error))
        status = 2
    except BaseException:
        # what is told to end while it waits for a lock may raise something else than SystemExit
        if server.told is None:
            log.exception("the server failed")
        status = 1 if server.told is None else server.told
    return server.exit(status)


def guard_standard_streams() -> tuple[io.FileIO, io.FileIO]:
    """Take standard input and output for the protocol alone and return them.

    What this process or a child of it prints goes to standard error from now on; a read of standard
    input finds its end.
    """
    reader = io.FileIO(os.dup(0), "rb")
    writer = io.FileIO(os.dup(1), "wb")
    sys.stdout.flush()
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return reader, writer


class _OneLine(logging.Formatter):
    """Shows what has happened in one line, by which the client knows a warning, then a traceback.

    What went wrong at a further machine is several lines, and no advice for this one.
    """

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        lines = told(super().formatMessage(record)).splitlines()
        return "; ".join(lines).replace(":; ", ": ")


class _Server:
    """This process, and how it ends.

    Attributes:
        told: the status with which it was told to end, if it was.
    """

    def __init__(self, reader: io.FileIO, writer: io.FileIO) -> None:
        self._reader, self._writer = reader, writer
        self._cache: BaseCache | None = None
        self._input_is_over = False
        self.told: int | None = None

    def serve(self, cache_name: str | None, *, read_only: bool, no_unpickle: bool) -> None:
        """Serve until the input ends.

        Raises:
            ConfigError: the configuration is broken, or such a cache may not be served.
            FlecheError: the cache cannot be opened, or what is at the other end is no client.
        """
        cache = self._cache = load_cache_config(cache_name)
        served = cache.readonly() if read_only else cache
        answer = serve_unopened if no_unpickle else serve
        answer(self._reader, self._writer, served, cache_name=cache_name)

    def watch(self) -> None:
        """Have this process end in order when it is told to, and soon after its input has ended.

        The loop of the server sees the end of the input too. But before there is a loop, the cache
        is opened and asked what it is, for which it may have to wait for another machine. So
        another thread asks the system.
        """
        signal.signal(signal.SIGTERM, self._stop)
        if hasattr(select, "poll"):
            Thread(target=self._follow, name="fleche server watch", daemon=True).start()

    def _stop(self, number: int, _: object) -> NoReturn:
        self.told = 0 if self._input_is_over else 128 + number
        raise SystemExit(self.told)

    def _follow(self) -> None:
        _wait_for_end(self._reader)
        self._input_is_over = True
        time.sleep(PATIENCE)
        signal.pthread_kill(main_thread().ident or 0, signal.SIGTERM)
        time.sleep(CLOSING + PATIENCE)
        os._exit(0)  # it is in code that does not let itself be interrupted

    def exit(self, status: int) -> NoReturn:
        """Close the cache, and with it what it has started, but not for long; then end.

        The answer to a request that is still being worked on is not awaited any more.
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            self._writer.close()
            closing = Thread(target=self._close, name="fleche server close", daemon=True)
            closing.start()
            closing.join(CLOSING)
            sys.stderr.flush()
        finally:
            os._exit(status)

    def _close(self) -> None:
        try:
            if self._cache is not None:
                self._cache.close()
        except Exception:
            log.exception("the cache could not be closed")


def _wait_for_end(reader: io.FileIO) -> None:
    """Wait until nothing more comes from a pipe or a socket, whether all was read or not.

    Linux tells of the end alone. On macOS the wait for POLLHUP is over, with nothing to tell, when
    there is something to read, and that of a socket is told only to those who wait for that, too.
    """
    hangup = getattr(select, "POLLRDHUP", 0)
    end = hangup | select.POLLHUP | select.POLLERR | select.POLLNVAL
    poll = select.poll()
    poll.register(reader, hangup or select.POLLIN | select.POLLHUP)
    while not any(found & end for _, found in poll.poll()):
        time.sleep(_GLANCE)


def _let_memory_go() -> None:
    """Have the C library give long blocks back to the system when they are freed.

    glibc raises the bound from which on it does so to that of the longest block that was freed, and
    keeps what is below in a heap for each of several threads: hundreds of MiB for some long records
    that were read and sent. See mallopt(3).
    """
    mmap_threshold, arena_max = -3, -8
    try:
        import ctypes

        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 (there is none in another library)
        libc.mallopt(mmap_threshold, _LONG_BLOCK)
        libc.mallopt(arena_max, 2)
    except (ImportError, OSError, AttributeError, TypeError):  # another library, or system
        log.debug("long blocks are freed as the C library likes")


def _complain(message: str) -> None:
    """Say it on standard error, if that is there and can be written to."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(f"fleche remote: {message}\n")
