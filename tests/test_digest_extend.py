"""What is refused, and how users teach fleche to digest it."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import copy
import csv
import importlib.metadata
import io
import itertools
import mmap
import os
import queue
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche.digest import (
    Digest,
    add_hook,
    digest,
    digest_arguments,
    hash_threads,
)
from fleche.digest import _registry as registry
from fleche.errors import Indigestible

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def forget_hooks() -> Iterator[None]:
    """Take back the hooks of a test."""
    from fleche.digest import _builtin

    before = dict(registry.hooks)
    yield
    registry.hooks.clear()
    registry.hooks.update(before)
    registry.resolved.clear()
    registry.LEAVES.update(_builtin.LEAF_HANDLERS)
    registry.extensions.loaded = False


def generator() -> Iterator[int]:
    yield 1


async def coroutine() -> None: ...


async def async_generator() -> Any:
    yield 1


class Reader:
    """An iterator of the user's own."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        self.position += 1
        return self.position


class Holder:
    def __init__(self, handle: Any) -> None:
        self.handle = handle


def in_array(value: Any) -> Any:
    array = np.zeros(1, dtype=object)
    array[0] = value
    return array


ITERATORS: list[Any] = [
    generator,
    lambda: iter([1]),
    lambda: iter((1,)),
    lambda: iter({1}),
    lambda: iter({1: 2}),
    lambda: iter("a"),
    lambda: iter(b"a"),
    lambda: iter(range(3)),
    lambda: reversed([1]),
    lambda: zip([1], [2], strict=True),
    lambda: map(str, [1]),
    lambda: filter(None, [1]),
    lambda: enumerate([1]),
    itertools.count,
    lambda: itertools.cycle([1]),
    lambda: itertools.chain([1]),
    lambda: itertools.islice([1], 1),
    lambda: itertools.tee([1])[0],
    lambda: iter(np.ones(2)),
    lambda: np.ones(2).flat,
    lambda: np.nditer(np.ones(2)),
    lambda: io.BytesIO(b"a"),
    lambda: io.StringIO("a"),
    lambda: csv.reader(["a,b"]),
    lambda: (x for x in [1]),
    lambda: iter(lambda: 1, 2),
    lambda: re.finditer("a", "a"),
    Reader,
]


@pytest.mark.parametrize("make", ITERATORS)
def test_iterators(make: Any) -> None:
    """An iterator is refused wherever it is, and nothing is taken from it."""
    value = make()
    for wrapped in (value, [value], {"k": value}, Holder(value), in_array(value)):
        with pytest.raises(Indigestible):
            digest(wrapped)
    if hasattr(value, "__next__"):
        try:
            assert next(value) is not None
        except StopIteration:
            pytest.fail("the iterator was consumed")


ONE, OTHER = object(), object()


class Marks:
    one = object()


@pytest.mark.parametrize("value", [ONE, [ONE], Marks.one, {"k": Holder(ONE)}])
def test_bare_objects(value: Any) -> None:
    """A bare object is what a module, or a class of it, has under its name."""
    assert digest(value) == digest(value) != digest(OTHER)
    assert len({digest(ONE), digest(OTHER), digest(Marks.one)}) == 3


def test_bare_objects_without_a_name() -> None:
    """One that has no name is equal to itself only; as a part, only its owner knows it."""
    with pytest.raises(Indigestible, match=r"object: a bare object.*give it a name"):
        digest(object())
    with pytest.raises(Indigestible, match=r"arguments\['x'\]: a bare object"):
        digest_arguments({"x": object()})
    one, other = Holder([object()]), Holder([object()])
    assert digest(one) == digest(other) == digest(copy.deepcopy(one)) != digest(Holder([ONE]))
    for holder in (one, other):
        holder.handle = [holder, object()]
    assert digest(one) == digest(other)


def test_bare_objects_inside_code() -> None:
    """What only a function knows is part of it, and as good as another."""

    def build(mark: object) -> Any:
        return lambda x=mark: x is mark

    assert digest(build(object())) == digest(build(object())) != digest(build(ONE))
    assert digest(build(ONE)) != digest(build(OTHER))


@pytest.mark.parametrize("order", ["a_user, a_definer", "a_definer, a_user", "a_definer"])
def test_names_of_bare_objects(order: str, tmp_path: Path) -> None:
    """The module counts that defines one, whatever has imported it from there."""
    (tmp_path / "a_definer.py").write_text("MARK: object = object()")
    (tmp_path / "a_user.py").write_text("from a_definer import MARK  # object()\nOTHER = MARK")
    paths = (str(Path(__file__).parents[1]), str(tmp_path))
    script = f"import {order}; from fleche import digest; print(digest(a_definer.MARK))"
    found = {
        subprocess.run(
            [sys.executable, "-c", script.replace(order, names)],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        ).stdout
        for names in ("a_definer", order)
    }
    assert len(found) == 1


@pytest.fixture
def resources(tmp_path: Path) -> Iterator[dict[str, Any]]:
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    temporary = tempfile.NamedTemporaryFile()  # noqa: SIM115
    process = subprocess.Popen([sys.executable, "-c", ""])
    database = sqlite3.connect(":memory:")
    with (
        path.open() as text,
        path.open("rb", buffering=0) as raw,
        path.open("r+b") as binary,
        mmap.mmap(binary.fileno(), 0) as mapped,
        socket.socket() as connection,
    ):
        yield {
            "text file": text,
            "raw file": raw,
            "binary file": binary,
            "temporary file": temporary,
            "memory map": mapped,
            "socket": connection,
            "process": process,
            "lock": threading.Lock(),
            "rlock": threading.RLock(),
            "event": threading.Event(),
            "thread": threading.Thread(),
            "local": threading.local(),
            "queue": queue.Queue(),
            "future": Future(),
            "database": database,
            "weak reference": weakref.ref(process),
            "weak dict": weakref.WeakValueDictionary(),
            "context": contextvars.copy_context(),
            "context variable": contextvars.ContextVar("x"),
            "match": re.match("a", "a"),
            "keys": {}.keys(),
            "values": {}.values(),
            "items": {}.items(),
            "frame": sys._getframe(),
            "async generator": async_generator(),
            "stdout": sys.__stdout__,
        }
    temporary.close()
    database.close()
    process.wait()


RESOURCES = """text file, raw file, binary file, temporary file, memory map, socket, process, lock,
rlock, event, thread, local, queue, future, database, weak reference, weak dict, context,
context variable, match, keys, values, items, frame, async generator, stdout"""


@pytest.mark.parametrize("name", [name.strip() for name in RESOURCES.split(",")])
def test_resources(name: str, resources: dict[str, Any]) -> None:
    """What is tied to this process has no digest."""
    with pytest.raises(Indigestible, match=r"object: |object\."):
        digest(resources[name])


def test_coroutines() -> None:
    """A coroutine is refused and can still be awaited."""
    value = coroutine()
    with pytest.raises(Indigestible, match="coroutine has no digest"):
        digest(value)
    asyncio.run(value)


def test_files_are_not_read(tmp_path: Path) -> None:
    """The function still receives the file whole."""
    path = tmp_path / "file"
    path.write_text("one\ntwo\n")
    with path.open() as file:
        with pytest.raises(
            Indigestible, match=r"pass its path, marked Content\[Path\], or what is in it$"
        ):
            digest(file)
        assert file.read() == "one\ntwo\n"


def test_temporary_directories() -> None:
    """One that came back from a cache would name what is gone."""
    with tempfile.TemporaryDirectory() as path:
        assert digest(path)
    directory = tempfile.TemporaryDirectory()
    with pytest.raises(Indigestible, match=r"only names a directory.* return fleche\.File"):
        digest([directory])
    directory.cleanup()


class TestPaths:
    """An error leads to the culprit."""

    @pytest.mark.parametrize(
        ("value", "path"),
        [
            (iter([]), "object"),
            ([1, iter([])], r"object\[1\]"),
            ((1, [2, iter([])]), r"object\[1\]\[1\]"),
            ({"a": iter([])}, r"object\['a'\]"),
            ({3: {"b": [iter([])]}}, r"object\[3\]\['b'\]\[0\]"),
            ({"x" * 100: iter([])}, r"object\['x{56}\.\.\.\]"),
            (Holder(iter([])), r"object\.handle"),
            ([Holder({"k": Holder(iter([]))})], r"object\[0\]\.handle\['k'\]\.handle"),
            (collections.deque([1, iter([])]), r"object\[1\]"),
            ([0] * 5000 + [iter([])], r"object\[5000\]"),
        ],
    )
    def test_paths(self, value: Any, path: str) -> None:
        with pytest.raises(Indigestible, match=rf"^{path}: an iterator"):
            digest(value)

    def test_arguments(self) -> None:
        with pytest.raises(Indigestible, match=r"^arguments\['cfg'\]\.handle: an iterator"):
            digest_arguments({"x": 1, "cfg": Holder(iter([]))})

    @pytest.mark.parametrize("mode", ["r", "rb"])
    def test_open_files(self, mode: str) -> None:
        """What to pass in their place is said."""
        with open(os.devnull, mode) as file, pytest.raises(Indigestible) as caught:
            digest({"data": file})
        assert str(caught.value).startswith("object['data']: an open file (_io.")
        assert "pass its path, marked Content[Path]" in str(caught.value)

    @pytest.mark.parametrize("file", [io.BytesIO(b"a"), io.StringIO("a")])
    def test_files_in_memory(self, file: Any) -> None:
        with pytest.raises(Indigestible, match=r"a file in memory \(_io\..*its getvalue\(\)"):
            digest([file])

    def test_in_cycles(self) -> None:
        """The path is also known where a value contains itself."""
        loop: list[Any] = [1]
        loop += [loop, {"a": Holder(iter([]))}]
        with pytest.raises(Indigestible, match=r"^object\[2\]\['a'\]\.handle: an iterator"):
            digest(loop)

    def test_is_a_type_error(self) -> None:
        """As for `hash()`."""
        with pytest.raises(TypeError):
            digest(iter([]))

    def test_broken_reduce(self) -> None:
        """Whatever goes wrong inside an object is the object's fault, and is kept as the cause."""

        class Broken:
            def __reduce__(self) -> Any:
                raise ZeroDivisionError("oh")

        with pytest.raises(Indigestible, match=r"\[0\]: .*Broken.*ZeroDivisionError: oh") as caught:
            digest([Broken()])
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    def test_endless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An object that shows a new part of itself each time is an error, not a full memory."""
        from fleche.digest import _graph, _walk

        monkeypatch.setattr(_walk, "DEEPEST", 1000)
        monkeypatch.setattr(_graph, "DEEPEST", 1000)
        with pytest.raises(Indigestible, match="without end"):
            digest(Endless())
        loop: list[Any] = []
        loop += [loop, Endless()]
        with pytest.raises(Indigestible, match="without end"):
            digest(loop)


class Endless:
    def __digest__(self) -> Any:
        return [Endless()]


class Opaque:
    def __init__(self, name: str, handle: Any = None) -> None:
        self.name = name
        self.handle = handle or iter([])


class Deeper(Opaque):
    pass


class Protocol:
    def __init__(self, name: str) -> None:
        self.name = name
        self.handle = iter([])

    def __digest__(self) -> Any:
        return {"name": self.name}


class DeeperProtocol(Protocol):
    pass


class TestProtocol:
    """`__digest__` on a class."""

    def test_stands_for_the_value(self) -> None:
        assert digest(Protocol("a")) == digest(Protocol("a"))
        assert digest(Protocol("a")) != digest(Protocol("b"))
        assert digest([Protocol("a")]) != digest([Protocol("b")])

    def test_class_counts(self) -> None:
        assert digest(Protocol("a")) != digest(DeeperProtocol("a"))
        assert digest(Protocol("a")) != digest({"name": "a"})

    def test_may_be_a_digest(self) -> None:
        class Named:
            def __digest__(self) -> Digest:
                return digest("content")

        assert digest(Named()) == digest(Named()) != digest("content")

    def test_errors_have_a_path(self) -> None:
        class Leaky:
            def __digest__(self) -> Any:
                return [1, iter([])]

        with pytest.raises(Indigestible, match=r"^object\[0\]\[1\]: an iterator"):
            digest([Leaky()])

    def test_itself(self) -> None:
        class Selfish:
            def __digest__(self) -> Any:
                return self

        with pytest.raises(Indigestible, match="returns the object itself"):
            digest(Selfish())

    def test_iterators_may_have_it(self) -> None:
        class Known(Reader):
            def __digest__(self) -> Any:
                return self.position

        assert digest(Known()) == digest(Known())


class TestHooks:
    """`add_hook` for classes that are not one's own."""

    def test_stands_for_the_value(self) -> None:
        with pytest.raises(Indigestible):
            digest(Opaque("a"))
        add_hook(Opaque, lambda value: value.name)
        assert digest(Opaque("a")) == digest(Opaque("a")) != digest(Opaque("b"))

    def test_subclasses(self) -> None:
        """A hook serves subclasses, which stay different; a nearer hook wins."""
        add_hook(Opaque, lambda value: value.name)
        assert digest(Deeper("a")) != digest(Opaque("a"))
        before = digest(Deeper("a"))
        add_hook(Deeper, lambda value: value.name * 2)
        assert digest(Deeper("a")) != before
        assert digest(Deeper("aa")) != digest(Deeper("a"))

    def test_wins_over_the_protocol(self) -> None:
        before = digest(Protocol("a"))
        add_hook(Protocol, lambda value: value.name)
        assert digest(Protocol("a")) != before

    def test_nearer_protocol_wins(self) -> None:
        add_hook(object.__class__, lambda value: value.__name__)

        class Own(Opaque):
            def __digest__(self) -> Any:
                return "own"

        add_hook(Opaque, lambda value: value.name)
        assert digest(Own("a")) == digest(Own("b"))

    def test_wins_over_what_is_built_in(self) -> None:
        arrays, numbers, lists = digest(np.ones(2)), digest([1.25j]), digest([])
        scalars = digest(np.float64(1.25))
        add_hook(np.ndarray, lambda value: value.tolist())
        add_hook(complex, lambda value: str(round(value.imag, 1)))
        add_hook(np.floating, lambda value: str(round(float(value), 1)))
        assert digest(np.ones(2)) != arrays
        assert digest([1.25j]) != numbers
        assert digest([1.21j]) == digest([1.19j])
        assert digest(np.float64(1.25)) != scalars
        assert digest([np.float64(1.21)]) == digest([np.float64(1.19)])
        assert digest([]) == lists

    @pytest.mark.parametrize("cls", [bool, int, float, str, bytes, list, tuple, dict, type(None)])
    def test_plain_data(self, cls: type) -> None:
        """Plain data counts as it is, for C reads it without asking."""
        with pytest.raises(TypeError, match=f"{cls.__name__} is plain data.*subclass"):
            add_hook(cls, str)

    def test_exceptions_name_the_value(self) -> None:
        add_hook(Opaque, lambda value: 1 / 0)
        with pytest.raises(Indigestible, match=r"object\[0\]: .*Opaque.*ZeroDivisionError"):
            digest([Opaque("a")])

    @pytest.mark.parametrize("cls", [object, 1, "str"])
    def test_bad_classes(self, cls: Any) -> None:
        with pytest.raises(TypeError, match="class other than object"):
            add_hook(cls, str)

    def test_bad_functions(self) -> None:
        with pytest.raises(TypeError, match="not callable"):
            add_hook(Opaque, "name")  # type: ignore[arg-type]


class Entry:
    """An entry point."""

    def __init__(self, name: str, function: Any) -> None:
        self.name = name
        self.value = f"somewhere:{name}"
        self.function = function
        self.loads = 0

    def load(self) -> Any:
        self.loads += 1
        return self.function


class TestEntryPoints:
    """Installed packages teach fleche their types."""

    def install(self, monkeypatch: pytest.MonkeyPatch, *entries: Entry) -> None:
        def entry_points(*, group: str) -> list[Entry]:
            return list(entries) if group == "fleche.digest" else []

        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
        registry.extensions.loaded = False
        registry.resolved.clear()

    def test_are_loaded_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are called when the first object arrives that is no type of Python's own."""
        entry = Entry("a", lambda: add_hook(Opaque, lambda value: value.name))
        self.install(monkeypatch, entry)
        digest([1, "a", {2.0}])
        assert entry.loads == 0
        assert digest(Opaque("a")) == digest(Opaque("a"))
        digest(Deeper("a"))
        assert entry.loads == 1

    def test_broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without an extension digests would silently be others, so a broken one is an error."""
        self.install(monkeypatch, Entry("bad", lambda: 1 / 0))
        for _ in range(2):
            with pytest.raises(Indigestible, match=r"extension 'bad'.*ZeroDivisionError"):
                digest(Opaque("a"))

    def test_may_not_touch_builtins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A hook that comes late must not change digests that were made before."""
        before = digest({1})
        self.install(monkeypatch, Entry("late", lambda: add_hook(set, len)))
        with pytest.raises(Indigestible, match="extension 'late' hooks set"):
            digest(Opaque("a"))
        assert digest({1}) == before


class TestProcesses:
    """What the package does to its process."""

    def test_imports_nothing_heavy(self) -> None:
        """Importing `fleche.digest` and digesting plain values loads nothing that is slow."""
        script = (
            "import sys\n"
            "before = set(sys.modules)\n"
            "import fleche.digest\n"
            "fleche.digest.digest({'a': [1, 2.0, (b'x', None)]})\n"
            "print(*set(sys.modules) - before)"
        )
        environment = {"PYTHONPATH": str(ROOT)}
        loaded = subprocess.check_output(
            [sys.executable, "-S", "-c", f"import sys; sys.path += {sys.path!r}\n" + script],
            text=True,
            env=environment,
        )
        heavy = {"inspect", "ast", "dataclasses", "datetime", "decimal", "numpy", "pandas", "attr",
                 "importlib.metadata", "pathlib", "linecache", "tokenize", "dis"}  # fmt: skip
        if sys.version_info >= (3, 14):
            heavy.remove("ast")  # typing.NamedTuple needs it there
        assert heavy & set(loaded.split()) == set()

    @pytest.mark.skipif(not hasattr(sys, "fork") and sys.platform == "win32", reason="no fork")
    def test_fork(self) -> None:
        """A forked child may hash large buffers, even if its parent did so with many threads."""
        script = (
            "import os\n"
            "from fleche.digest import digest\n"
            "data = bytes(8 << 20)\n"
            "expected = digest(data)\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    os._exit(0 if digest(data) == expected else 1)\n"
            "assert os.waitpid(child, 0)[1] == 0\n"
        )
        environment = {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", script], check=True, timeout=30, env=environment)

    def test_hash_threads(self) -> None:
        """Small buffers are not worth a thread."""
        assert hash_threads(1000) == 1
        assert hash_threads(100 << 20) != 1

    @pytest.mark.parametrize("tells", [True, False])
    def test_cores_that_are_taken(self, monkeypatch: pytest.MonkeyPatch, tells: bool) -> None:
        """Where one core is left, one thread hashes; macOS tells only how many there are."""
        cores = 2
        monkeypatch.setattr(os, "cpu_count", lambda: 64 if tells else cores)
        affinity = {"sched_getaffinity": lambda _: set(range(cores))} if tells else {}
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        for name, function in affinity.items():
            monkeypatch.setattr(os, name, function, raising=False)
        assert hash_threads(100 << 20) != 1
        assert hash_threads(100 << 20, busy=1) == 1
        cores = 8
        assert hash_threads(100 << 20, busy=1) != 1

    def test_threads(self) -> None:
        """Many threads may digest at once."""
        value = {"a": [np.ones(20_000), Opaque, Holder([1])], "f": test_iterators}
        expected = digest(value)
        registry.resolved.clear()
        found: list[Digest] = []
        threads = [threading.Thread(target=lambda: found.append(digest(value))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [expected] * 8
