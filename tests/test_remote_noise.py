"""Noise: whatever is printed on either stream, frames survive, and what is said reaches the log."""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import BaseCache
from fleche.errors import RemoteConnectionError
from fleche.remote import Channel, LocalSubprocessChannel, SshChannel
from fleche.remote._handshake import NOISE_LIMIT
from fleche.testing import example_call
from tests.helpers.caches import make_cache
from tests.helpers.serving import Serving
from tests.helpers.sweeps import swept

PROCESSES = ("subprocess", pytest.param("ssh", marks=pytest.mark.ssh))
MIB = 1 << 20
ABSENT = "0" * 64


def _script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def _channel(serving: Serving, kind: str, python: str) -> Channel:
    """Return a channel to a server whose interpreter is `python`, whatever that does."""
    if kind == "subprocess":
        return LocalSubprocessChannel(python=python)
    return SshChannel(serving.sshd.host, python=python, ssh_options=serving.sshd.ssh_options)


@pytest.mark.parametrize("kind", PROCESSES)
class TestEndlessNoise:
    """A server that never comes to the point."""

    @pytest.mark.parametrize(
        "line",
        [r"Your password \033[31mhas expired\033[0m", r"\007\010\377\376"],
        ids=["text", "binary"],
    )
    def test_fast(self, serving: Serving, tmp_path: Path, kind: str, line: str) -> None:
        """Beyond a bound of bytes it is given up, even without any timeout, and quoted."""
        count = tmp_path / "count"
        python = _script(
            tmp_path / "python",
            f"#!/bin/sh\nyes \"$(printf '{line}')\" | tee {count}\n",
        )
        remote = serving.cache(_channel(serving, kind, python), connect_timeout=None)
        began = time.monotonic()
        with pytest.raises(RemoteConnectionError, match=f"{NOISE_LIMIT} bytes came") as caught:
            remote.info()
        assert time.monotonic() - began < 30
        text = str(caught.value)
        assert len(text) < 2000
        assert all(c.isprintable() or c == "\n" for c in text)
        if "password" in line:
            assert "Your password ·[31mhas expired" in text
        remote.close()
        assert count.stat().st_size < 16 * MIB, "it was read on and on"
        with pytest.raises(RemoteConnectionError):
            remote.contains(ABSENT)

    def test_slow(self, serving: Serving, tmp_path: Path, kind: str) -> None:
        """A drip is given up after `connect_timeout`, which it cannot prolong; it is quoted too."""
        python = _script(
            tmp_path / "python",
            "#!/bin/sh\nwhile printf 'please \\033wait '; do sleep 0.1; done\n",
        )
        remote = serving.cache(_channel(serving, kind, python), connect_timeout=1.5)
        began = time.monotonic()
        with pytest.raises(RemoteConnectionError, match=r"within 1\.5 s.*please ·wait"):
            remote.info()
        assert time.monotonic() - began < 10

    def test_on_standard_error(self, serving: Serving, tmp_path: Path, kind: str) -> None:
        """A server that only complains, without end, is given up in time; its last words told."""
        python = _script(
            tmp_path / "python", "#!/bin/sh\nexec yes 'disk quota \033[5mexceeded' >&2\n"
        )
        remote = serving.cache(_channel(serving, kind, python), connect_timeout=1.5)
        began = time.monotonic()
        with pytest.raises(RemoteConnectionError, match=r"disk quota ·\[5mexceeded") as caught:
            remote.info()
        assert time.monotonic() - began < 15
        assert len(str(caught.value)) < 20_000
        began = time.monotonic()
        remote.close()
        assert time.monotonic() - began < 10


REFUSALS = {
    "on standard output": "echo 'This account is currently not available.'; exit 1",
    "behind a banner": "yes 'Welcome to the cluster.' | head -n 1000; printf 'This account is "
    "currently \\033[31mnot available.'; exit 1",
    "by one who listens": "read line; echo 'This account is currently not available.'",
}


@pytest.mark.parametrize("kind", PROCESSES)
@pytest.mark.parametrize("how", REFUSALS)
def test_a_refusal(serving: Serving, tmp_path: Path, kind: str, how: str) -> None:
    """What is said in place of a greeting, before the end, is told with the end; at once."""
    python = _script(tmp_path / "python", f"#!/bin/sh\n{REFUSALS[how]}\n")
    remote = serving.cache(_channel(serving, kind, python), connect_timeout=None)
    with pytest.raises(RemoteConnectionError) as caught:
        remote.info()
    text = str(caught.value)
    assert "so far it said: '" in text
    assert "This account is currently" in text
    assert "not available." in text
    assert text.count("This account") == 1
    assert "Broken pipe" not in text
    assert "\x1b" not in text
    assert len(text) < 1000


def test_a_refusal_of_which_nothing_is_said(serving: Serving, tmp_path: Path) -> None:
    """An end without a word quotes none."""
    python = _script(tmp_path / "python", "#!/bin/sh\nexit 1\n")
    remote = serving.cache(_channel(serving, "subprocess", python))
    with pytest.raises(RemoteConnectionError, match=r"closed the connection.*status 1") as told:
        remote.info()
    assert "said" not in str(told.value)


def _make_chatty(root: str) -> BaseCache:
    """Return a file cache that prints in every way while it works."""
    cache = make_cache("file", root)
    original = cache.backend.contains

    def chatty(keys: Any) -> list[bool]:
        print("printed in mid-call", flush=True)
        os.write(1, b"on the descriptor " + b"x" * 100_000 + b"\n")
        os.write(1, b"\nfleche-remote! " + bytes(range(256)) + b"\n")
        subprocess.run(["echo", "from a child"], check=True)
        subprocess.run(["sh", "-c", "echo from a grandchild & wait"], check=True)
        return original(keys)

    cache.backend.contains = chatty  # type: ignore[method-assign]
    return cache


@pytest.mark.parametrize("kind", PROCESSES)
def test_chatter_in_mid_call(
    serving: Serving, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Frames survive whatever the server, its code and its children print; it is logged here."""
    caplog.set_level(logging.INFO, "fleche.remote.stderr")
    remote = serving(kind, partial(_make_chatty, str(tmp_path / "served")))
    key = remote.save(example_call())
    for _ in range(3):
        assert remote.contains_many([key]) == [True]
        assert remote.contains_many([ABSENT]) == [False]
        assert remote.load(key).result == 4
    remote.close()
    for words in ("printed in mid-call", "from a child", "from a grandchild"):
        assert len([r for r in caplog.records if r.getMessage().endswith(words)]) == 6, words
    assert "\x1b" not in caplog.text


def _make_loud(root: str, size: int, after: bool) -> BaseCache:
    """Return a file cache that writes `size` bytes to standard error in each `contains`.

    With `after`, as much again when the process ends, which is after the end of its input.
    """
    cache = make_cache("file", root)
    original = cache.backend.contains
    noise = (b"warning: " + b"w" * 90 + b"\n") * (size // 100)

    def shout() -> None:
        view = memoryview(noise)
        while view:
            view = view[os.write(2, view) :]

    def loud(keys: Any) -> list[bool]:
        shout()
        return original(keys)

    if after:
        atexit.register(shout)
    cache.backend.contains = loud  # type: ignore[method-assign]
    return cache


@pytest.mark.parametrize(
    ("kind", "size"),
    swept(
        [
            ("subprocess", 3 * MIB),
            ("subprocess", 10 * MIB),
            pytest.param("ssh", 10 * MIB, marks=pytest.mark.ssh),
        ],
        lambda case: case[1] == 3 * MIB,
    ),
)
def test_much_standard_error(serving: Serving, tmp_path: Path, kind: str, size: int) -> None:
    """Much of it during a call, and again after the end: call and `close()` end in time."""
    remote = serving(kind, partial(_make_loud, str(tmp_path / "served"), size, True))
    key = remote.save(example_call())
    began = time.monotonic()
    assert remote.contains(key)
    assert remote.load(key).result == 4
    assert time.monotonic() - began < 40
    began = time.monotonic()
    remote.close()
    assert time.monotonic() - began < 8


def test_standard_error_of_a_dying_server(serving: Serving, tmp_path: Path) -> None:
    """The last words are told however much came before them."""
    python = _script(
        tmp_path / "python",
        "#!/bin/sh\nhead -c 10485760 /dev/zero | tr '\\0' 'x' >&2\n"
        "echo >&2\necho the real reason >&2\nexit 3\n",
    )
    remote = serving.cache(_channel(serving, "subprocess", python))
    with pytest.raises(RemoteConnectionError, match=r"exit status 3[\s\S]*the real reason"):
        remote.info()
