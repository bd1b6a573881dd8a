"""The steps that lead to a cache, on this machine or on another one."""

from __future__ import annotations

import logging
import os
import platform
import re
import shutil
import statistics
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fleche._amounts import count, shown_bytes
from fleche._redact import redact
from fleche._util import __version__
from fleche.caches import BaseCache, free_bytes
from fleche.digest import Address, Digest, digest
from fleche.doctor._probe import Step, find_failure
from fleche.errors import FlecheError, RemoteConnectionError, told
from fleche.remote import ProcessChannel, RemoteCache, SshChannel

__all__ = ["examine"]

SAMPLE = 4 << 20
"""Bytes that are sent and fetched to measure how quickly that goes."""

SCARCE = 1 << 30
"""Free bytes below which the doctor says so."""

_ROUND_TRIPS = 5

_BESIDE = 0.5
"""Seconds that a server's standard error may be behind its answers."""


def examine(cache: BaseCache, *, write: bool = True, read_only: bool = False) -> Iterator[Step]:
    """Try every step on the way to ``cache``, and yield what was found of each, up to a failure.

    A remote cache is connected as always, so that whatever a person must type is asked once; only
    if that fails, a second connection finds out how far it gets.

    Args:
        cache: one cache; the layers of a stack are examined one by one.
        write: save a value of 4 MiB, load it and evict it again, which shows that saving works,
            and how quickly. A cache that is read-only is only read.
        read_only: nothing is ever saved in it on this way, though it would take that: it is a
            member of a pool.
    """
    if isinstance(cache, RemoteCache):
        yield from _examine_remote(cache, write=write and not read_only)
    else:
        yield from _examine_local(cache, write=write, read_only=read_only or cache.read_only)


# -- this machine ----------------------------------------------------------------------------------


def _examine_local(cache: BaseCache, *, write: bool, read_only: bool) -> Iterator[Step]:
    yield Step("fleche", "ok", f"{__version__}, python {platform.python_version()}")
    config = cache.to_config()
    yield Step("cache", "ok", _described(config))
    yield from _directory(config, read_only=read_only)
    try:
        report = cache.stats()
    except FlecheError as error:
        advice = _advice_for(str(error)) or (
            "what cannot be mended is moved away: results are then computed again"
        )
        yield Step("contents", "failed", str(error), advice)
        return
    yield Step(
        "contents",
        "ok",
        f"{count(report.calls, 'call')}, {count(report.values, 'value')}, "
        f"{shown_bytes(report.bytes)}",
    )
    yield from _room(free_bytes(config))
    yield from _traffic(cache, write=write and not read_only)


def _directory(config: Any, *, read_only: bool) -> Iterator[Step]:
    root = config.get("root") if isinstance(config, dict) else None
    if not isinstance(root, str):
        return
    if read_only and not os.path.isdir(root):
        advice = "nothing is found in it: look whether root in fleche.toml is what is meant"
        yield Step("directory", "note", f"{root}: there is no such directory", advice)
    elif not os.path.exists(root):
        yield Step("directory", "note", f"{root} is not there yet", "the first save makes it")
    elif not (read_only or os.access(root, os.W_OK)):
        yield Step(
            "directory",
            "note",
            f"{root}: this account may not write there",
            "say read_only = true in fleche.toml if that is meant, or change its permissions",
        )
    else:
        yield Step("directory", "ok", root)


# -- another machine, or another process -----------------------------------------------------------


def _examine_remote(cache: RemoteCache, *, write: bool) -> Iterator[Step]:
    channel = cache.backend.channel
    if isinstance(channel, SshChannel):
        program = _ssh_program()
        yield program
        if program.state == "failed":
            return
    with _listening(channel.name) as said:
        yield from _examine_server(cache, write=write)
        if cache.backend.lazy.info is not None:  # else a step has failed that tells what was said
            yield from _complaints(said, wait=_leads_on(cache))


def _examine_server(cache: RemoteCache, *, write: bool) -> Iterator[Step]:
    channel = cache.backend.channel
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other versions, which are a step of their own
            info = cache.info(refresh=False)
    except (FlecheError, OSError) as error:
        if isinstance(channel, ProcessChannel) and isinstance(error, RemoteConnectionError):
            yield from find_failure(channel, told(error))
        else:
            yield Step("connection", "failed", told(error))
        return
    took = time.perf_counter() - began
    there = info.get("hostname", "?")
    yield Step("connection", "ok", f"{channel.name} in {took:.2g} s; the machine is {there}")
    yield from _noise(cache)
    yield Step("python", "ok", f"{info.get('python', '?')}, in {info.get('cwd', '?')}")
    yield from _versions(info)
    yield _served(info)
    yield from _writable(cache, info)
    free = info.get("free_bytes")
    yield from _room(free if isinstance(free, int) else None)
    yield from _traffic(cache, write=write)


@contextmanager
def _listening(name: str) -> Iterator[list[str]]:
    """Yield what the server of a channel warns of meanwhile, which is not logged then."""
    said: list[str] = []
    own = f"{name}: "

    def listen(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if record.levelno < logging.WARNING or not message.startswith(own):
            return True
        said.append(message.removeprefix(own))
        return False

    logger = logging.getLogger("fleche.remote.stderr")
    logger.addFilter(listen)
    try:
        yield said
    finally:
        logger.removeFilter(listen)


def _leads_on(cache: RemoteCache) -> bool:
    """Return whether what is served is a stack or a pool, parts of which may be out of reach."""
    served = (cache.backend.lazy.info or {}).get("cache")
    return isinstance(served, list) or (isinstance(served, dict) and "pool" in served)


def _complaints(said: list[str], *, wait: bool) -> Iterator[Step]:
    """Yield what a server has warned of, which comes beside its answers."""
    deadline = time.monotonic() + (_BESIDE if wait else 0)
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    for message in dict.fromkeys(said):
        advice = "on that machine, 'fleche doctor' in its directory says more"
        text = re.sub(r"\bfleche(\.\w+)+: ", "", message)  # names of loggers
        yield Step("server", "failed", f"it warns: {text}", advice)


def _ssh_program() -> Step:
    path = shutil.which("ssh")
    if path is None:
        return Step("ssh", "failed", "no program ssh is on the PATH", "install OpenSSH's client")
    asked = subprocess.run([path, "-V"], capture_output=True, text=True, check=False)
    return Step("ssh", "ok", f"{path}, {(asked.stderr or asked.stdout).strip().partition(',')[0]}")


def _noise(cache: RemoteCache) -> Iterator[Step]:
    connection = cache.backend.lazy.connection
    if connection is not None and connection.noise:
        yield Step(
            "login noise",
            "note",
            f"a start-up file prints before the server answers: {connection.noise}",
            "no harm is done; other programs (scp, rsync) may mind: print in interactive shells "
            "only",
        )


def _versions(info: dict[str, Any]) -> Iterator[Step]:
    import cloudpickle

    here = {"fleche": __version__, "cloudpickle": cloudpickle.__version__}
    there = {name: str(info.get(f"{name}_version", "?")) for name in here}
    both = ", ".join(f"{name} {version}" for name, version in there.items())
    if here == there:
        yield Step("versions", "ok", f"{both}, as here")
        return
    ours = ", ".join(f"{name} {version}" for name, version in here.items())
    yield Step(
        "versions",
        "note",
        f"{both} there; {ours} here",
        "install the same versions at both ends if values cannot be opened",
    )


def _served(info: dict[str, Any]) -> Step:
    name, config = info.get("cache_name"), info.get("cache")
    found = f"{name or 'the default'}: {_described(config)}"
    root = config.get("root") if isinstance(config, dict) else None
    if name is None and isinstance(root, str) and root.endswith("/fleche/default"):
        advice = (
            f"no fleche.toml says so: one in {info.get('cwd')}, or above, says which cache it is"
        )
        return Step("cache", "note", found, advice)
    return Step("cache", "ok", found)


def _described(config: Any) -> str:
    if isinstance(config, list):
        return f"a stack of {len(config)}: " + "; ".join(map(_described, config))
    if not isinstance(config, dict):
        return str(config)
    found = redact(config)
    parts = [f"{key} {found[key]}" for key in ("root", "host", "url", "workdir") if found.get(key)]
    kind = found.get("type") or found.get("template")
    if kind is None and "values" in found:
        return f"values ({_described(found['values'])}), calls ({_described(found['calls'])})"
    return ", ".join([str(kind or ", ".join(found)), *parts])


def _writable(cache: RemoteCache, info: dict[str, Any]) -> Iterator[Step]:
    if cache.backend.options.read_only:
        yield Step(
            "read-only",
            "note",
            "nothing is saved there: fleche.toml on this machine says read_only = true",
        )
    elif info.get("read_only"):
        yield Step(
            "read-only",
            "note",
            "nothing is saved there: the server is read-only",
            "look for read_only in the fleche.toml there, or --read-only in its authorized_keys",
        )


# -- what both have --------------------------------------------------------------------------------


def _room(free: int | None) -> Iterator[Step]:
    if free is None:
        return
    if free < SCARCE:
        yield Step(
            "free space",
            "note",
            f"only {shown_bytes(free)} left",
            "free some: fleche du, fleche evict --older-than 90d, fleche gc",
        )
    else:
        yield Step("free space", "ok", shown_bytes(free))


def _traffic(cache: BaseCache, *, write: bool) -> Iterator[Step]:
    try:
        if isinstance(cache, RemoteCache):
            yield Step("round trip", "ok", f"{_round_trip(cache) * 1e3:.3g} ms")
        if write and not cache.read_only and cache.capabilities.persistent:
            yield _transfer(cache)
    except FlecheError as error:
        yield Step("transfer", "failed", told(error), _advice_for(str(error)))


def _round_trip(cache: BaseCache) -> float:
    """Return the seconds that a small question takes."""
    absent = Digest("0" * 64)
    times = []
    for _ in range(_ROUND_TRIPS):
        began = time.perf_counter()
        cache.backend.contains([absent])
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _transfer(cache: BaseCache) -> Step:
    """Save a value, load it, and remove it again."""
    value = os.urandom(SAMPLE)
    address = Address.of(digest(value))
    try:
        began = time.perf_counter()
        found = cache.save_value(value)
        saved = time.perf_counter()
        came = cache.load_value(found)
        loaded = time.perf_counter()
    except BaseException:
        with suppress(FlecheError):  # what went wrong before tells more
            cache.backend.evict([address])
        raise
    cache.backend.evict([address])
    if came != value:
        return Step(
            "transfer", "failed", "what came back is not what was saved", "run 'fleche verify'"
        )
    up, down = SAMPLE / (saved - began), SAMPLE / (loaded - saved)
    return Step("transfer", "ok", f"saves {shown_bytes(up)}/s, loads {shown_bytes(down)}/s")


def _advice_for(message: str) -> str:
    text = message.lower()
    if "full" in text or "no space" in text or "quota" in text:
        return "free some space where the cache is: fleche evict --older-than 90d, then fleche gc"
    if "read-only" in text:
        return "the file system there is mounted read-only; use another root, or read_only = true"
    if "permission" in text:
        return "let the account write in the directory of the cache, or use another root"
    return ""
