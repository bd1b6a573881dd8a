"""What every channel must do: run it on yours.

A channel carries bytes to a server of a fresh, writable cache, and back::

    check_channel(lambda: MyChannel(...))
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fleche.remote import PROTOCOL, Channel, ClientGreeting, RemoteCache, RemoteConnectionError

__all__ = ["CHANNEL_CHECKS", "check_channel"]

PATIENCE = 20.0


def check_channel(factory: Callable[[], Channel]) -> None:
    """Run every check, each on a fresh channel.

    Args:
        factory: returns a new channel, not yet opened, to a server of an empty, writable cache.
    """
    for check in CHANNEL_CHECKS:
        channel = factory()
        try:
            check(channel)
        finally:
            channel.close(0)


def _remote(channel: Channel) -> RemoteCache:
    return RemoteCache(channel, timeout=PATIENCE, connect_timeout=PATIENCE)


def check_bytes(channel: Channel) -> None:
    """All bytes pass unchanged, in both directions, in pieces of any size."""
    numbers = random.Random(1)
    with _remote(channel) as remote:
        for size in (0, 1, 255, 256, 4096, 65_537, 3_000_000):
            sent = bytes(range(256)) + numbers.randbytes(size)
            key = remote.save_value(sent)
            assert remote.load_value(key) == sent, f"{size} bytes came back altered"


def check_both_directions(channel: Channel) -> None:
    """Both directions are in use at the same time without waiting for each other."""
    values = [random.Random(seed).randbytes(2_000_000) for seed in range(4)]
    with _remote(channel) as remote, ThreadPoolExecutor(8) as pool:
        keys = [remote.save_value(value) for value in values[:2]]
        saves: list[Any] = [pool.submit(remote.save_value, value) for value in values[2:]]
        loads = [pool.submit(remote.load_value, key) for key in keys]
        for done in saves:
            done.result(PATIENCE)
        assert [load.result(PATIENCE) for load in loads] == values[:2]


def check_streams(channel: Channel) -> None:
    """``readinto`` returns what there is, and the server ends when its input does."""
    reader, writer = channel.open()
    greeting = ClientGreeting((PROTOCOL, PROTOCOL), (), "check")
    view = memoryview(greeting.opening)
    while view:
        view = view[writer.write(view) or 0 :]
    writer.flush()
    buffer = memoryview(bytearray(1 << 16))
    while greeting.hello is None:
        count = reader.readinto(buffer)
        assert count, "the stream ended before the server had answered"
        greeting.feed(buffer[:count])
    writer.close()
    while reader.readinto(buffer):
        pass
    reader.close()
    _close_in_time(channel)


def check_close(channel: Channel) -> None:
    """Closing is bounded and idempotent, before and after use, and a channel opens again."""
    channel.close()
    remote = _remote(channel)
    for _ in range(2):
        first = remote.info()
        assert first["pid"], "the server does not say who it is"
        remote.reconnect()
    _close_in_time(channel)
    channel.close()


def check_diagnosis(channel: Channel) -> None:
    """A server that ended is diagnosed, and what was opened raises at once."""
    remote = _remote(channel)
    remote.info()
    channel.close(0)
    deadline = time.monotonic() + PATIENCE
    while not _is_dead(remote):
        assert time.monotonic() < deadline, "the end of the server was not noticed"
    assert isinstance(channel.diagnose(), str)
    remote.close()


def _is_dead(remote: RemoteCache) -> bool:
    try:
        remote.contains("0" * 64)
    except RemoteConnectionError:
        return True
    return False


def check_name(channel: Channel) -> None:
    """A channel says what it is, for messages."""
    assert channel.name
    assert channel.name in repr(channel)
    assert isinstance(channel.local, bool)


def _close_in_time(channel: Channel) -> None:
    began = time.monotonic()
    channel.close(1.0)
    assert time.monotonic() - began < PATIENCE / 2, "close() takes too long"


CHANNEL_CHECKS: tuple[Callable[[Channel], None], ...] = (
    check_bytes,
    check_both_directions,
    check_streams,
    check_close,
    check_diagnosis,
    check_name,
)
