"""A slow network as a ProxyCommand: ``python relay.py HOST PORT SECONDS`` delays every byte."""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable

__all__ = ["delay", "relay"]


def delay(read: Callable[[], bytes], write: Callable[[bytes], object], seconds: float) -> None:
    """Hand on what ``read`` returns, each piece ``seconds`` after it came, until it is empty."""
    pieces: queue.Queue[tuple[float, bytes]] = queue.Queue()

    def collect() -> None:
        while True:
            data = read()
            pieces.put((time.monotonic() + seconds, data))
            if not data:
                return

    threading.Thread(target=collect, daemon=True).start()
    while True:
        due, data = pieces.get()
        time.sleep(max(0.0, due - time.monotonic()))
        if not data:
            return
        write(data)


def relay(host: str, port: int, seconds: float) -> None:
    """Connect standard input and output to a port, with a delay each way."""
    with socket.create_connection((host, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def up() -> None:
            delay(lambda: os.read(0, 1 << 18), connection.sendall, seconds)
            connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=up, daemon=True).start()
        delay(lambda: connection.recv(1 << 18), _write_out, seconds)


def _write_out(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    relay(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
