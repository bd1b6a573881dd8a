"""The remote cache beside its limits: the same bytes through a pipe, and through ssh."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any

import numpy as np

from fleche import fleche, state
from fleche.caches import Cache
from fleche.call import Call, CallEntry, ValueRef
from fleche.digest import Digest, digest
from fleche.parcel import Parcel, pack
from fleche.remote import LocalSubprocessChannel, RemoteCache, SshChannel
from fleche.storage import CallMemory, ValueMemory
from scripts.benchmarks import bare
from scripts.benchmarks.measure import (
    MEMORY,
    REPORTED,
    STATUS,
    Benchmark,
    Contender,
    Setting,
    Suite,
    Target,
)
from scripts.benchmarks.sshd import running_sshd

__all__ = ["BENCHMARKS"]

MIB = 1 << 20
DELAY = 0.025
_FRESH = count()

Reach = Callable[[Setting], RemoteCache]
Fetch = Callable[[Path], list[str]]


# -- reaching a server -----------------------------------------------------------------------------


def _workdir(setting: Setting) -> Path:
    workdir = setting.directory / "served"
    workdir.mkdir(exist_ok=True)
    (workdir / "fleche.toml").write_text(
        '[default]\ncache = "c"\nroot = true\n[c]\ntype = "local"\nroot = "store"\n'
    )
    return workdir


def _over_pipe(setting: Setting) -> tuple[RemoteCache, Fetch]:
    channel = LocalSubprocessChannel(workdir=str(_workdir(setting)))
    remote = setting.stack.enter_context(RemoteCache(channel))
    return remote, lambda path: ["cat", str(path)]


def _over_ssh(setting: Setting, delay: float = 0.0) -> tuple[RemoteCache, Fetch]:
    sshd = setting.stack.enter_context(running_sshd())
    options = [*sshd.ssh_options]
    if delay:
        relay = (
            f"{sys.executable} {Path(__file__).with_name('relay.py')} 127.0.0.1 {sshd.port} {delay}"
        )
        options = ["-o", f"ProxyCommand={relay}", *options]
    channel = SshChannel(
        sshd.host, python=sys.executable, ssh_options=options, workdir=str(_workdir(setting))
    )
    remote = setting.stack.enter_context(RemoteCache(channel, compression="none"))
    return remote, lambda path: ["ssh", *options, sshd.host, "cat", str(path)]


def _delayed(setting: Setting) -> RemoteCache:
    return _over_ssh(setting, DELAY)[0]


# -- throughput ------------------------------------------------------------------------------------


def _array(setting: Setting, mib: int) -> Any:
    return np.random.default_rng(1).normal(size=setting.size(mib, 1) * MIB // 8)


def _drain(command: list[str]) -> None:
    """Read all that a command prints, as a client that keeps nothing."""
    buffer = memoryview(bytearray(MIB))
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        while process.stdout.readinto(buffer):  # type: ignore[attr-defined]
            pass


def _feed(command: list[str], content: memoryview) -> None:
    """Write ``content`` to a command."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        for start in range(0, len(content), MIB):
            view = content[start : start + MIB]
            while view:
                view = view[process.stdin.write(view) :]
        process.stdin.close()


def _load(over: Callable[[Setting], tuple[RemoteCache, Fetch]], setting: Setting) -> Benchmark:
    remote, fetch = over(setting)
    array = _array(setting, 256)
    key = remote.save(Call("large", {"x": 1}, result=array))
    path = setting.directory / "raw"
    path.write_bytes(array)
    return Benchmark(
        f"load an array of {array.nbytes // MIB} MiB",
        [
            Contender("cat", partial(_drain, fetch(path)), note="bytes read and dropped"),
            Contender("hit", lambda: remote.load(Digest(key)).result, note="the array itself"),
        ],
        reference="cat",
        rounds=7,
        targets=[Target("hit", "cat", 1 / 0.9)] if over is _over_ssh else (),
    )


def _save(over: Callable[[Setting], tuple[RemoteCache, Fetch]], setting: Setting) -> Benchmark:
    remote, fetch = over(setting)
    array = _array(setting, 256)
    found = digest(array)
    ready: list[Parcel] = []
    command = [*fetch(Path("-"))[:-2], f"cat > {setting.directory / 'raw'}"]
    if command[0] != "ssh":
        command = ["sh", "-c", command[-1]]

    backend = remote.backend

    def forget() -> None:
        if remote.contains(found):
            remote.evict(found)
        ready.append(pack(array, digest=found))

    def save() -> None:
        parcel = ready.pop()
        backend.save({}, [(parcel.address, parcel)])

    return Benchmark(
        f"save an array of {array.nbytes // MIB} MiB",
        [
            Contender("cat", partial(_feed, command, memoryview(array).cast("B"))),
            Contender("save", save, before=forget),
        ],
        reference="cat",
        rounds=7,
        targets=[Target("save", "cat", 1.0)] if over is _over_ssh else (),
    )


def _hit(over: Callable[[Setting], tuple[RemoteCache, Fetch]], setting: Setting) -> Benchmark:
    remote, fetch = over(setting)
    array = _array(setting, 100)
    key = Digest(remote.save(Call("medium", {"x": 1}, result=array)))
    path = setting.directory / "raw"
    path.write_bytes(array)
    return Benchmark(
        f"a hit of {array.nbytes // MIB} MiB",
        [
            Contender("cat", partial(_drain, fetch(path)), note="starts a process each time"),
            Contender("hit", lambda: remote.load(key).result),
        ],
        reference="cat",
        rounds=9,
    )


# -- memory ----------------------------------------------------------------------------------------


def _server_peak(remote: RemoteCache) -> int:
    """Return the highest resident size of the server so far, in bytes."""
    status = Path(f"/proc/{remote.info()['pid']}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def _server_memory(setting: Setting) -> Benchmark:
    remote, _ = _over_pipe(setting)

    def rise(mib: int) -> float:
        remote.reconnect()
        before = _server_peak(remote)
        array = np.random.default_rng(next(_FRESH)).normal(size=mib * MIB // 8)
        key = Digest(remote.save(Call("f", {"x": mib}, result=array)))
        assert remote.load(key).result.nbytes == array.nbytes
        return (_server_peak(remote) - before) / MIB

    small, large = setting.size(64, 1), setting.size(512, 2)
    return Benchmark(
        "MiB by which the server grows while a value is saved and loaded",
        [
            Contender(f"{small} MiB", partial(rise, small)),
            Contender(f"{large} MiB", partial(rise, large)),
        ],
        reference=f"{small} MiB",
        measure=REPORTED,
        rounds=3,
    )


def _connected(workdir: str) -> RemoteCache:
    remote = RemoteCache(LocalSubprocessChannel(workdir=workdir))
    remote.info()
    return remote


_KEPT: dict[str, Any] = {}


def _prepare_load(workdir: str, key: str) -> None:
    _KEPT["remote"] = _connected(workdir)
    _KEPT["key"] = key


def _do_load() -> Any:
    return _KEPT["remote"].load(_KEPT["key"]).result


def _make_array(nbytes: int) -> Any:
    return np.ones(nbytes // 8)


def _prepare_save(workdir: str, nbytes: int) -> None:
    _KEPT["remote"] = _connected(workdir)
    _KEPT["array"] = np.random.default_rng(next(_FRESH)).normal(size=nbytes // 8)


def _do_save() -> Any:
    return _KEPT["remote"].save(Call("f", {"x": id(_KEPT)}, result=_KEPT["array"]))


def _prepare_nothing() -> None:
    _KEPT["numpy"] = np


def _client_memory(setting: Setting) -> Benchmark:
    remote, _ = _over_pipe(setting)
    array = _array(setting, 256)
    key = remote.save(Call("large", {"x": 1}, result=array))
    workdir = str(_workdir(setting))
    make = Contender("the array alone", partial(_make_array, array.nbytes), before=_prepare_nothing)
    load = Contender("load", _do_load, before=partial(_prepare_load, workdir, key))
    save = Contender("save", _do_save, before=partial(_prepare_save, workdir, array.nbytes))
    return Benchmark(
        f"peak memory of a client, array of {array.nbytes // MIB} MiB",
        [make, load, save],
        reference="the array alone",
        measure=MEMORY,
        rounds=3,
    )


# -- waiting ---------------------------------------------------------------------------------------


def _echo(setting: Setting) -> Benchmark:
    remote, fetch = _over_ssh(setting)
    key = Digest(remote.save(Call("f", {"x": 1}, result=2)))
    there, back = _talking(setting, [*fetch(Path("-"))[:-2], "cat"])

    def echo() -> bytes:
        there.write(b"x")
        return back.read(1)

    store = bare.BareStore(setting.directory / bare.NAME)
    bare_key = store.put(1, 2.0)
    program = f"{sys.executable} -m scripts.benchmarks.bare {setting.directory / bare.NAME}"
    command = f"cd {Path(__file__).parents[2]} && exec {program}"
    question, answer = _talking(setting, [*fetch(Path("-"))[:-2], command])

    def ask() -> float:
        return store.number(bare_key, bare.ask(bare_key, question, answer))

    return Benchmark(
        "a hit of a small result",
        [
            Contender("echo", echo, note="one byte"),
            Contender("hit", lambda: remote.load(key).result),
            Contender(bare.NAME, ask, note=bare.NOTE),
        ],
        reference="echo",
        targets=[Target("hit", "echo", 1.5, least=bare.NAME)],
    )


def _talking(setting: Setting, command: list[str]) -> tuple[IO[bytes], IO[bytes]]:
    """Return the input and the output of a command that runs as long as the benchmark."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    setting.stack.enter_context(process)
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _first_answer(setting: Setting) -> Benchmark:
    remote, fetch = _over_ssh(setting)
    command = [*fetch(Path("-"))[:-2], f"{sys.executable} -c pass"]

    def answer() -> object:
        remote.reconnect()
        return remote.info()

    return Benchmark(
        "the first answer of a server, over ssh",
        [
            Contender("python", lambda: subprocess.run(command, check=True), note="-c pass"),
            Contender("first answer", answer),
        ],
        reference="python",
        rounds=9,
        targets=[Target("first answer", "python", 0.150, added=True)],
    )


@fleche
def doubled(number: int) -> int:
    """Return next to nothing."""
    return 2 * number


# -- round trips -----------------------------------------------------------------------------------


def _small_hit(setting: Setting) -> Benchmark:
    remote = _delayed(setting)
    key = Digest(remote.save(Call("f", {"x": 1}, result=2)))
    return Benchmark(
        f"a warm hit of a small result, {DELAY * 1000:g} ms each way",
        [
            Contender("one question", lambda: remote.contains(key)),
            Contender("hit", lambda: remote.load(key).result),
        ],
        reference="one question",
        rounds=9,
    )


def _batch(setting: Setting) -> Benchmark:
    remote = _delayed(setting)
    number = setting.size(1000, 10)
    local = Cache(ValueMemory(), CallMemory())
    keys = [Digest(local.save(Call("f", {"x": x}, result=x))) for x in range(number)]
    local.transfer(remote)

    ready: list[Cache] = []

    def prepare() -> None:
        fresh = Cache(ValueMemory(), CallMemory())
        turn = next(_FRESH)
        for x in range(number):
            fresh.save(Call("g", {"x": x, "turn": turn}, result=[x, turn]))
        ready.append(fresh)

    def send() -> None:
        ready.pop().transfer(remote)

    def map_all() -> int:
        with state.cache(remote):
            return sum(doubled.map(range(number)))

    map_all()

    def receive() -> None:
        assert remote.transfer(Cache(ValueMemory(), CallMemory()), remote.query(name="f")) == number

    return Benchmark(
        f"{number} small calls, {DELAY * 1000:g} ms each way, in round trips",
        [
            Contender("one question", lambda: remote.contains(keys[0])),
            Contender("contains_many", lambda: remote.contains_many(keys)),
            Contender("load_many", lambda: [call.result for call in remote.load_many(keys)]),
            Contender("transfer there", send, before=prepare),
            Contender("transfer back", receive),
            Contender("f.map, hits", map_all),
        ],
        reference="one question",
        rounds=5,
        targets=[
            Target(name, "one question", 8.0)
            for name in ("transfer there", "transfer back", "f.map, hits")
        ],
    )


def _query(setting: Setting) -> Benchmark:
    remote, _ = _over_pipe(setting)
    number = setting.size(100_000, 50)
    local = Cache(ValueMemory(), CallMemory())
    result = local.save_value(0)
    remote.save_value(0)
    shared = ValueRef(result)
    calls = (Call("f", {"x": x}).to_record().replace(result=shared) for x in range(number))
    remote.backend.save({record.key: CallEntry(record) for record in calls})
    return Benchmark(
        f"a query over {number} calls",
        [
            Contender("one question", lambda: remote.contains(result)),
            Contender("the first", lambda: remote.query(name="f").first()),
            Contender("take(10)", lambda: list(remote.query(name="f").take(10))),
            Contender("all", lambda: remote.query(name="f").count(), note="every record"),
        ],
        reference="one question",
        rounds=3,
    )


BENCHMARKS: Suite = {
    "remote-load-pipe": partial(_load, _over_pipe),
    "remote-load-ssh": partial(_load, _over_ssh),
    "remote-save-pipe": partial(_save, _over_pipe),
    "remote-save-ssh": partial(_save, _over_ssh),
    "remote-hit-ssh": partial(_hit, _over_ssh),
    "remote-memory-client": _client_memory,
    **({"remote-memory-server": _server_memory} if STATUS.exists() else {}),
    "remote-echo": _echo,
    "remote-first-answer": _first_answer,
    "remote-hit-delayed": _small_hit,
    "remote-batch-delayed": _batch,
    "remote-query": _query,
}
