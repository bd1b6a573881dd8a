"""Leak checks: a test leaves no descriptor, thread or child process behind."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker

import pytest

from tests.helpers.descriptors import own_descriptors
from tests.helpers.processes import children

__all__ = ["check_leaks", "no_leaks"]

# Opened once by a library, for the rest of the process.
_HARMLESS = ("/dev/random", "/dev/urandom", "resource_tracker", "forkserver")


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail the test if it, or a fixture that it uses, leaks; see `check_leaks`."""
    with check_leaks():
        yield


@contextmanager
def check_leaks(grace: float = 3.0) -> Iterator[None]:
    """Assert that the block leaves no new descriptors, threads or children (zombies included).

    Args:
        grace: seconds in which what is on its way out may still go.
    """
    before = _snapshot()
    yield
    deadline = time.monotonic() + grace
    while leaked := {what for key, what in _snapshot().items() if key not in before}:
        if time.monotonic() > deadline:
            raise AssertionError("leaked " + "; ".join(sorted(leaked)))
        gc.collect()
        time.sleep(0.01)


def _snapshot() -> dict[object, str]:
    """What there is, described, by what identifies it; the title of a process may change."""
    found = (*_descriptors(), *_threads(), *_children())
    return {key: what for key, what in found if _matters(what)}


def _matters(thing: str) -> bool:
    return not any(name in thing for name in _HARMLESS)


def _descriptors() -> Iterator[tuple[object, str]]:
    for number, target in own_descriptors():
        if number not in _kept_by_multiprocessing():
            found = f"descriptor {number} -> {target}"
            yield found, found


def _kept_by_multiprocessing() -> tuple[int | None, ...]:
    # a pipe each to its resource tracker and its fork server, for the rest of the process
    tracker = getattr(resource_tracker, "_resource_tracker", None)
    server = getattr(forkserver, "_forkserver", None)
    return (getattr(tracker, "_fd", None), getattr(server, "_forkserver_alive_fd", None))


def _threads() -> Iterator[tuple[object, str]]:
    for thread in threading.enumerate():
        yield thread, f"thread {thread.name!r} ({thread.ident})"


def _children() -> Iterator[tuple[object, str]]:
    for child in children(os.getpid()):
        kind = "zombie" if child.state == "Z" else "child process"
        yield (child.pid, child.state == "Z"), f"{kind} {child.command!r} ({child.pid})"
