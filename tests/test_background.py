"""Layers that are written to in the background: a miss does not wait for a slow link."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fleche.caches import CacheStack, LayerPolicy
from fleche.config import cache_from_config, cache_to_config
from fleche.errors import RemoteConnectionError
from tests.helpers.layers import Layer, call, in_memory
from tests.helpers.scripts import run_python
from tests.helpers.sweeps import swept

POLICY = LayerPolicy(write_through="background")


@pytest.fixture
def slow() -> Iterator[tuple[CacheStack, Layer, threading.Event]]:
    """A stack whose far layer lets saves through when the event is set."""
    far, go = Layer(policy=POLICY), threading.Event()
    inner = far.backend.lacking

    def wait(addresses: object, *, keep: bool = False) -> object:
        go.wait(20)
        return inner(addresses, keep=keep)  # type: ignore[arg-type]

    far.backend.lacking = wait  # type: ignore[method-assign,assignment]
    stack = CacheStack((in_memory(), far))
    yield stack, far, go
    go.set()
    stack.drain(20)


def test_a_save_does_not_wait(slow: tuple[CacheStack, Layer, threading.Event]) -> None:
    stack, far, go = slow
    began = time.monotonic()
    keys = [stack.save(call(x=x, result=[x] * 20_000)) for x in range(3)]
    assert time.monotonic() - began < 10
    assert len(far.inner) == 0
    assert not stack.drain(0.01)
    go.set()
    assert stack.drain(20)
    assert [far.load(key).result[0] for key in keys] == [0, 1, 2]
    assert stack.counts()["written_through"] == 3


def test_large_values_arrive() -> None:
    far = in_memory(POLICY)
    stack = CacheStack((in_memory(), far))
    key = stack.save(call(result=np.ones(2_000_000)))
    assert stack.drain(20)
    assert far.load(key).result.sum() == 2_000_000


def test_a_failure_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, logged once, and loses nothing: push() sends it later."""
    far = Layer(policy=POLICY)
    stack = CacheStack((in_memory(), far))
    far.backend.refuses = RemoteConnectionError("gone")
    for x in range(3):
        stack.save(call(x=x))
    assert not stack.drain(20), "not everything is there"
    assert stack.drain(20), "which is said once"
    assert stack.counts()["errors.write_through"] == 3
    assert [each.levelno for each in caplog.records if "gone" in str(each.args)].count(
        logging.WARNING
    ) == 1
    far.backend.refuses = None
    assert stack.push() == 3


def test_it_is_bounded(
    slow: tuple[CacheStack, Layer, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than so many do not wait: they are left to push(), and that is told."""
    stack, far, go = slow
    monkeypatch.setattr("fleche.caches._background.MOST", 5)
    for x in range(100):
        stack.save(call(x=x, result=[x] * 20_000))
    assert stack.counts()["errors.write_through"] >= 80
    go.set()
    assert not stack.drain(20), "not everything is there"
    assert len(far.inner) <= 20
    assert stack.push() == 100 - len(far.inner) or len(far.inner) == 100


def test_no_thread_to_be_had(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is stored, and left to push(); nothing waits for a thread that is not there."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    far = in_memory(POLICY)
    stack = CacheStack((in_memory(), far))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        key = stack.save(call(x=1))
    assert "can't start new thread" in caplog.text
    assert key in stack
    assert not stack.drain(1), "not everything is there"
    stack.save(call(x=2))
    assert stack.drain(20)
    assert (len(far), stack.push()) == (1, 1)


def test_closing_sends_the_rest(slow: tuple[CacheStack, Layer, threading.Event]) -> None:
    stack, far, go = slow
    stack.save(call(result=[1] * 20_000))
    threading.Timer(0.2, go.set).start()
    stack.close()
    assert len(far.inner) == 1


def test_the_end_of_the_program_sends_the_rest(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import fleche, time\n"
        "from fleche.caches import CacheStack, LayerPolicy, Local\n"
        "far = Local('far', policy=LayerPolicy(write_through='background'))\n"
        "save = far.backend.save\n"
        "def slow(*args, **kwargs):\n"
        "    time.sleep(0.05)\n"
        "    save(*args, **kwargs)\n"
        "far.backend.save = slow\n"
        "fleche.cache(CacheStack((Local('near'), far)))\n"
        "@fleche.fleche(version=1)\n"
        "def f(x): return [x] * 10_000\n"
        "for x in range(10): f(x)\n"
    )
    run_python(script, sys.executable, "0")
    with cache_from_config({"type": "local", "root": str(tmp_path / "far")}) as far:
        assert len(far) == 10


@pytest.mark.parametrize("method", swept(["fork", "spawn", "forkserver"], lambda m: m == "fork"))
def test_the_end_of_a_worker_sends_the_rest(tmp_path: Path, method: str) -> None:
    """A worker of multiprocessing ends otherwise than a program; what it counted is kept too."""
    script = tmp_path / "script.py"
    script.write_text(
        "import fleche, multiprocessing, time\n"
        "from fleche.caches import CacheStack, LayerPolicy, Local\n"
        "@fleche.fleche(version=1)\n"
        "def f(x): return [x] * 10_000\n"
        "def work():\n"
        "    far = Local('far', policy=LayerPolicy(write_through='background'))\n"
        "    save = far.backend.save\n"
        "    def slow(*args, **kwargs):\n"
        "        time.sleep(0.05)\n"
        "        save(*args, **kwargs)\n"
        "    far.backend.save = slow\n"
        "    with fleche.cache(CacheStack((Local('near'), far))):\n"
        "        for x in range(10): f(x), f(x)\n"
        "if __name__ == '__main__':\n"
        f"    worker = multiprocessing.get_context({method!r}).Process(target=work)\n"
        "    worker.start()\n"
        "    worker.join()\n"
    )
    run_python(script, sys.executable, "0")
    with cache_from_config({"type": "local", "root": str(tmp_path / "far")}) as far:
        assert len(far) == 10
    with cache_from_config({"type": "local", "root": str(tmp_path / "near")}) as near:
        assert [(row.misses, row.hits) for row in near.usage()] == [(10, 10)]


def test_an_interrupt_at_the_end_of_the_program(tmp_path: Path) -> None:
    """What is left is told, and the program ends, without a traceback."""
    script = tmp_path / "script.py"
    script.write_text(
        "import fleche, os, subprocess, time\n"
        "from fleche.caches import CacheStack, LayerPolicy, Local\n"
        "far = Local('far', policy=LayerPolicy(write_through='background'))\n"
        "far.backend.save = lambda *args, **kwargs: time.sleep(30)\n"
        "stack = CacheStack((Local('near'), far))\n"
        "fleche.cache(stack)\n"
        "@fleche.fleche(version=1)\n"
        "def f(x): return [x] * 10_000\n"
        "f(1)\n"
        "subprocess.Popen(['sh', '-c', f'sleep 1; kill -INT {os.getpid()}'])\n"
    )
    said = run_python(script, sys.executable, "0", check=False)
    assert "interrupted: 1 result is left to push()" in said
    assert "Traceback" not in said


def test_a_child_leaves_it_to_its_parent(
    slow: tuple[CacheStack, Layer, threading.Event],
) -> None:
    stack, far, go = slow
    stack.save(call(result=[1] * 20_000))
    pid = os.fork()
    if pid == 0:
        os._exit(0 if stack.drain(5) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    go.set()
    assert stack.drain(20)
    assert len(far.inner) == 1


@pytest.mark.parametrize(
    "far",
    [
        {"type": "local", "root": "/far"},
        {"type": "ssh", "host": "far", "python": "python3"},
        {"type": "subprocess"},
    ],
)
def test_configuration(tmp_path: Path, far: dict[str, str]) -> None:
    layers = [
        {"type": "local", "root": str(tmp_path / "near")},
        {**far, "write_through": "background"},
    ]
    with cache_from_config(layers) as made:
        assert cache_to_config(made) == layers
