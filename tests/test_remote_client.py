"""The client: lifetime, death, copies, and what it promises about the user's own classes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche.caches import BaseCache, CacheStack
from fleche.call import Call
from fleche.errors import RemoteConnectionError, UnpackError
from fleche.remote import PipeChannel, RemoteCache, SshCache, SubprocessCache, serve, server_info
from fleche.testing import example_call
from tests.helpers.caches import cache_factory
from tests.helpers.leaks import check_leaks
from tests.helpers.peers import Wire, hostile_server
from tests.helpers.processes import children
from tests.helpers.scripts import run_script
from tests.helpers.serving import Serving
from tests.helpers.taps import TappedChannel

PROCESSES = ("subprocess", pytest.param("ssh", marks=pytest.mark.ssh))


@pytest.fixture
def file_cache(tmp_path: Path) -> Callable[[], BaseCache]:
    """A factory of caches over the same files."""
    return cache_factory("file", tmp_path / "files")


@pytest.mark.parametrize("kind", PROCESSES)
class TestDeath:
    """A server that died stays dead until `reconnect()` is called."""

    def test_everything_raises_until_reconnect(
        self, serving: Serving, kind: str, file_cache: Any
    ) -> None:
        """The next operation and every later one raise at once; no process is started."""
        tap = TappedChannel(serving.channel(kind, file_cache))
        remote = serving.cache(tap)
        key = remote.save(example_call())
        os.kill(remote.info()["pid"], signal.SIGKILL)
        for _ in range(3):
            with pytest.raises(RemoteConnectionError, match=r"reconnect\(\)"):
                remote.load(key)
        for operation in (
            lambda: remote.save(example_call(x=3)),
            lambda: remote.contains(key),
            lambda: remote.expand(key[:6]),
            lambda: list(remote.query()),
            remote.info,
        ):
            with pytest.raises(RemoteConnectionError):
                operation()
        assert tap.opened == 1
        remote.reconnect()
        assert remote.load(key).result == 4
        assert tap.opened == 2

    def test_every_thread_learns_of_it(
        self, serving: Serving, kind: str, file_cache: Any, tmp_path: Path
    ) -> None:
        """All pending calls in all threads raise promptly."""
        remote = serving(kind, file_cache)
        pid = remote.info()["pid"]
        os.kill(pid, signal.SIGSTOP)
        with ThreadPoolExecutor(8) as pool:
            pending = [pool.submit(remote.contains, "0" * 64) for _ in range(8)]
            time.sleep(0.2)
            began = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            for future in pending:
                with pytest.raises(RemoteConnectionError):
                    future.result(10)
        assert time.monotonic() - began < 5

    def test_silence(self, serving: Serving, kind: str, file_cache: Any) -> None:
        """A server that says nothing for `timeout` seconds, while an answer is due, is given up."""
        remote = serving(kind, file_cache, timeout=0.8)
        pid = remote.info()["pid"]
        time.sleep(1.2)
        remote.contains("0" * 64)
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(RemoteConnectionError, match="silent"):
                remote.contains("0" * 64)
            assert 0.7 < time.monotonic() - began < 5
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def test_the_words_of_the_error(self, serving: Serving, kind: str, file_cache: Any) -> None:
        """The error names the channel, how the process ended, and what to do."""
        remote = serving(kind, file_cache)
        os.kill(remote.info()["pid"], signal.SIGKILL)
        with pytest.raises(RemoteConnectionError) as caught:
            remote.info()
        text = str(caught.value)
        assert text.startswith(kind)
        assert "signal 9" in text or "exit status" in text


@pytest.mark.parametrize("raised", [KeyboardInterrupt, ValueError])
def test_death_while_it_is_explained(
    raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes between, Ctrl-C or a mistake of a channel: it is dead, and says so."""
    over = threading.Event()

    def act(wire: Wire) -> None:
        over.wait(20)

    def diagnose() -> str:
        raise raised

    channel = hostile_server(act)
    monkeypatch.setattr(channel, "diagnose", diagnose)
    with check_leaks(), RemoteCache(channel, timeout=0.4) as remote:
        with pytest.raises(raised):
            remote.contains("0" * 64)
        for _ in range(2):
            with pytest.raises(RemoteConnectionError, match=r"^pipe: the server was silent"):
                remote.contains("0" * 64)
        over.set()


class TestStopped:
    """A client that was stopped by Ctrl-Z, or by a batch system, does not blame the server."""

    SCRIPT = """
    import os, signal, subprocess
    from fleche.remote import SubprocessCache

    with SubprocessCache({python}, cache_name="memory", {limit}) as remote:
        {before}
        helper = f"sleep 0.5; kill -STOP {{os.getpid()}}; sleep 3; kill -CONT {{os.getpid()}}"
        subprocess.Popen(["sh", "-c", helper + "; sleep 0.5" + {after}])
        print(remote.contains("0" * 64))
    """

    def test_while_an_answer_is_due(self, tmp_path: Path) -> None:
        """The server was stopped too, and answers a little later."""
        script = self.SCRIPT.format(
            python="None",
            limit="timeout=1.5",
            before='server = remote.info()["pid"]; os.kill(server, signal.SIGSTOP)',
            after='f"; kill -CONT {server}"',
        )
        assert run_script(tmp_path, script) == "False\n"

    def test_while_it_connects(self, tmp_path: Path) -> None:
        slow = tmp_path / "python"
        slow.write_text(f'#!/bin/sh\nsleep 4\nexec {sys.executable} "$@"\n')
        slow.chmod(0o755)
        script = self.SCRIPT.format(
            python=repr(str(slow)), limit="connect_timeout=3", before="pass", after='""'
        )
        assert run_script(tmp_path, script) == "False\n"


def test_failing_to_start_is_death_too(tmp_path: Path) -> None:
    """A server that does not even start is not started again without `reconnect()`."""
    mark = tmp_path / "starts"
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho started >> {mark}\necho no module fleche >&2\nexit 1\n")
    script.chmod(0o755)
    remote = SubprocessCache(python=str(script))
    for _ in range(3):
        with pytest.raises(RemoteConnectionError, match=r"exit status 1[\s\S]*no module fleche"):
            remote.info()
    assert mark.read_text() == "started\n"
    remote.reconnect()
    with pytest.raises(RemoteConnectionError):
        remote.info()
    assert mark.read_text() == "started\n" * 2


def test_connect_timeout(tmp_path: Path) -> None:
    """A server that says nothing at all is given up after `connect_timeout`; chatter is quoted."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho Enter your code:\nexec sleep 30\n")
    script.chmod(0o755)
    remote = SubprocessCache(python=str(script), connect_timeout=0.5)
    began = time.monotonic()
    with pytest.raises(RemoteConnectionError, match=r"within 0\.5 s.*Enter your code"):
        remote.info()
    assert time.monotonic() - began < 10


class TestClasses:
    """Values of classes that only the client can import (the server never opens a value)."""

    @pytest.fixture
    def only_here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """A module that only this process can import."""
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "onlyhere.py").write_text(
            "class Crystal:\n"
            "    def __init__(self, a): self.a = a\n"
            "    def __eq__(self, other): return self.a == other.a\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path / "modules"))
        import onlyhere  # type: ignore[import-not-found]

        yield onlyhere
        sys.modules.pop("onlyhere")

    def test_save_list_and_load(
        self, serving: Serving, channel_kind: str, file_cache: Any, only_here: Any
    ) -> None:
        """They are saved, listed and loaded, and the server lives on."""
        remote = serving(channel_kind, file_cache)
        pid = remote.info()["pid"]
        call = Call("relax", {"crystal": only_here.Crystal(3.6)}, result=only_here.Crystal(3.61))
        key = remote.save(call)
        assert remote.query(name="relax").only().result == only_here.Crystal(3.61)
        assert remote.load(key).arguments["crystal"] == only_here.Crystal(3.6)
        assert remote.info()["pid"] == pid

    def test_without_the_module(
        self, serving: Serving, channel_kind: str, file_cache: Any, only_here: Any
    ) -> None:
        """Another client gets one clear error where it opens the value, and none before."""
        remote = serving(channel_kind, file_cache)
        key = remote.save(Call("relax", {"x": 1}, result=only_here.Crystal(3.6)))
        sys.modules.pop("onlyhere")
        path = sys.path.pop(0)
        try:
            call = remote.load(key)
            assert call.arguments["x"] == 1
            assert "relax" in str(remote.query().table())
            with pytest.raises(UnpackError, match=r"onlyhere.*cannot be imported"):
                _ = call.result
        finally:
            sys.path.insert(0, path)
            sys.modules["onlyhere"] = only_here

    def test_printing_while_unpickled(
        self, serving: Serving, channel_kind: str, file_cache: Any, only_here: Any
    ) -> None:
        """A class that prints while it is unpickled disturbs nothing."""
        remote = serving(channel_kind, file_cache)
        key = remote.save(Call("f", {}, result=Loud()))
        assert isinstance(remote.load(key).result, Loud)
        assert remote.contains(key)


class Loud:
    """Prints when it is unpickled."""

    def __reduce__(self) -> Any:
        return _loud, ()


def _loud() -> Loud:
    print("unpickling!", flush=True)
    os.write(1, b"unpickling, on the descriptor!\n")
    return Loud()


class TestCopies:
    """A pickled or forked cache is its configuration, and connects for itself."""

    def test_pickling_starts_nothing(self) -> None:
        """An SshCache pickles without a connection, and the copy equals it."""
        cache = SshCache("me@bigpc", cache_name="shared", ssh_options=["-o", "X"], workdir="~/p")
        copy = pickle.loads(pickle.dumps(cache))
        assert copy == cache
        assert copy.to_config() == cache.to_config()
        assert copy.policy == cache.policy

    def test_fields(self) -> None:
        """Every field of the specification, with its default."""
        cache = SshCache("bigpc")
        assert (cache.host, cache.cache_name, cache.python) == ("bigpc", None, "python3")
        assert (cache.ssh_options, cache.setup_commands, cache.workdir) == ((), (), None)
        assert (cache.timeout, cache.connect_timeout) == (60.0, None)
        assert (cache.compression, cache.on_error) == ("auto", "raise")
        assert cache.to_config() == {"type": "ssh", "host": "bigpc", "python": "python3"}

    def test_the_copy_connects_for_itself(self, tmp_path: Path) -> None:
        """Two copies, two servers, one content."""
        (tmp_path / "fleche.toml").write_text(
            '[default]\ncache = "c"\n[c]\ntemplate = "cloudpickle"\nroot = "store"\n'
        )
        with SubprocessCache(workdir=str(tmp_path)) as one:
            key = one.save(example_call())
            with pickle.loads(pickle.dumps(one)) as two:
                assert two.load(key).result == 4
                assert two.info()["pid"] != one.info()["pid"]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.parametrize("kind", PROCESSES)
    def test_fork(self, serving: Serving, kind: str, file_cache: Any) -> None:
        """A forked child opens its own connection; the parent's goes on meanwhile."""
        remote = serving(kind, file_cache)
        key = remote.save(example_call())
        pid = remote.info()["pid"]
        context = multiprocessing.get_context("fork")
        answers: Any = context.Queue()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = context.Process(target=_in_child, args=(remote, key, answers))
            child.start()
        result, child_pid = answers.get(timeout=30)
        child.join(30)
        answers.close()
        answers.join_thread()
        assert result == 4
        assert child_pid != pid
        assert remote.load(key).result == 4
        assert remote.info()["pid"] == pid
        child.close()

    def test_garbage_collection(self, serving: Serving, file_cache: Any) -> None:
        """A cache that nothing refers to any more ends its server."""
        remote = RemoteCache(serving.channel("subprocess", file_cache))
        pid = remote.info()["pid"]
        assert pid in [child.pid for child in children(os.getpid())]
        del remote
        gc.collect()
        assert pid not in [child.pid for child in children(os.getpid())]

    def test_exit(self, tmp_path: Path) -> None:
        """A process that exits leaves no server behind."""
        (tmp_path / "fleche.toml").write_text(
            '[default]\ncache = "c"\n[c]\ntemplate = "cloudpickle"\nroot = "store"\n'
        )
        script = (
            "from fleche.remote import SubprocessCache\n"
            f"print(SubprocessCache(workdir={str(tmp_path)!r}).info()['pid'])"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
        )
        assert done.stderr == ""
        with pytest.raises(ProcessLookupError):
            os.kill(int(done.stdout), 0)


def _in_child(remote: RemoteCache, key: str, answers: Any) -> None:
    answers.put((remote.load(key).result, remote.info()["pid"]))
    remote.close()


class TestSkew:
    """Different versions at the two ends."""

    def test_a_warning(self, file_cache: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """One warning for a connection, naming both versions; the cache works."""
        other = {"fleche_version": "99", "cloudpickle_version": "0"}
        monkeypatch.setattr(
            "fleche.remote._server.server_info",
            lambda *args: {**server_info(*args), **other},
        )
        remote = RemoteCache(PipeChannel(lambda i, o: serve(i, o, file_cache())))
        with remote:
            with pytest.warns(UserWarning, match=r"fleche 99 there.*cloudpickle 0 there"):
                remote.info(refresh=False)
            assert not remote.contains("0" * 64)
            assert remote.info(refresh=False)["fleche_version"] == "99"

    def test_silence(self, serving: Serving, file_cache: Any) -> None:
        """No warning where the versions are the same (warnings are errors here)."""
        serving("pipe", file_cache).info()


class TestQuery:
    """Queries stream."""

    def test_stopping_early(self, serving: Serving, channel_kind: str, file_cache: Any) -> None:
        """A caller that stops early stops the server, and the connection goes on."""
        with file_cache() as local:
            for number in range(300):
                local.save(example_call(x=number, result=0))
        tap = TappedChannel(serving.channel(channel_kind, file_cache))
        remote = serving.cache(tap)
        assert len(list(remote.query().take(3))) == 3
        assert remote.query().count() == 300
        assert remote.query(arguments={"x": 7}).only().arguments["x"] == 7

    def test_closed_in_the_middle(
        self, serving: Serving, channel_kind: str, file_cache: Any
    ) -> None:
        """What is left of a listing is not, and the error says whose."""
        with file_cache() as local:
            for number in range(300):
                local.save(example_call(x=number, result="some words " * 1000))
        remote = serving(channel_kind, file_cache)
        found = iter(remote.query())
        next(found)
        remote.reconnect()
        with pytest.raises(RemoteConnectionError) as caught:
            list(found)
        assert str(caught.value) == f"{remote.backend.channel.name}: the connection was closed"

    def test_two_at_once(self, serving: Serving, file_cache: Any) -> None:
        """Two queries and other operations share the connection."""
        with file_cache() as local:
            for number in range(100):
                local.save(example_call(x=number, result=number))
        remote = serving("pipe", file_cache)
        pairs = list(zip(remote.query(), remote.query(), strict=True))
        assert all(one.key == two.key and one.result == two.result for one, two in pairs)


class TestThreads:
    """Many threads share one connection."""

    def test_mixed_operations(self, serving: Serving, channel_kind: str, file_cache: Any) -> None:
        """Every answer goes to who asked."""
        remote = serving(channel_kind, file_cache)

        def work(seed: int) -> None:
            numbers = np.random.default_rng(seed)
            for turn in range(12):
                size = int(numbers.integers(1, 200_000)) if turn % 3 else 3
                value = numbers.normal(size=size)
                key = remote.save(example_call(x=[seed, turn], result=value))
                assert remote.contains(key)
                np.testing.assert_array_equal(remote.load(key).result, value)
                assert not remote.contains(f"{seed:032x}{turn:032x}")

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(work, seed) for seed in range(8)]:
                done.result(60)

    def test_a_small_answer_overtakes(self, serving: Serving, file_cache: Any) -> None:
        """A small question is answered while a large value is on its way."""
        remote = serving("subprocess", file_cache)
        large = remote.save(example_call(x="large", result=np.zeros(12_000_000)))
        small = remote.save(example_call(x="small", result=1))
        loading = threading.Thread(target=lambda: remote.load(large).result)
        loading.start()
        answered = 0
        while loading.is_alive():
            assert remote.load(small).result == 1
            answered += 1
        loading.join()
        assert answered > 1


class TestInterrupt:
    """Ctrl-C ends the call, not the connection."""

    def test_the_next_call_gets_its_own_answer(self, serving: Serving, file_cache: Any) -> None:
        """An abandoned answer is discarded."""
        remote = serving("subprocess", file_cache)
        large = remote.save(example_call(x="large", result=np.zeros(20_000_000)))
        small = remote.save(example_call(x="small", result=1))
        pid = remote.info()["pid"]
        main = threading.main_thread().ident or 0
        timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            while True:
                _ = remote.load(large).result
        timer.join()
        assert remote.load(small).result == 1
        assert remote.info()["pid"] == pid


class TestStack:
    """A remote layer that may be unreachable."""

    def test_offline(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """With `on_error="miss"` work goes on: a counted, once-logged miss."""
        far = SubprocessCache(python="/no/such/python", on_error="miss")
        stack = CacheStack((cache_factory("memory", tmp_path)(), far))
        assert stack.lookup(example_call().key) is None
        key = stack.save(example_call())
        assert stack.load(key).result == 4
        assert stack.lookup(example_call(x=3).key) is None
        assert stack.counts()["unreachable"] >= 2
        assert len([record for record in caplog.records if "unreachable" in record.message]) == 1

    def test_by_default_it_raises(self, tmp_path: Path) -> None:
        """Without it, an unreachable layer raises."""
        far = SubprocessCache(python="/no/such/python")
        stack = CacheStack((cache_factory("memory", tmp_path)(), far))
        with pytest.raises(RemoteConnectionError, match="cannot start"):
            stack.load("0" * 64)
