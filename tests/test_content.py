"""Paths: what a `Content[Path]` names is part of the key; what others name must be unchanged."""

from __future__ import annotations

import asyncio
import mmap
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Optional

import pytest

from fleche import (
    Content,
    Digest,
    File,
    FlecheWarning,
    Secret,
    digest,
    fleche,
    wrap_executor,
)
from fleche.caches import Cache
from fleche.digest import ContentError, FileContent, _content, digest_arguments, read_content
from fleche.digest._content import GRAIN, FileMemory
from fleche.function import CONTENT, inspect_function

runs: list[Any] = []


@pytest.fixture(autouse=True)
def fresh(active: Cache) -> None:
    runs.clear()


def numbers(path: Any) -> float:
    runs.append(str(path))
    return sum(map(float, Path(path).read_text().split()))


@fleche(ignore_globals="runs")
def total(path: Content[Path]) -> float:
    return numbers(path)


@fleche(ignore_globals="runs")
def plain(path: Any, scale: float = 1.0) -> float:
    return numbers(path) * scale


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def key(value: Any) -> Digest:
    return digest_arguments({"x": value}, content={"x"})["x"]


class TestFile:
    def test_content_counts(self) -> None:
        path = write("a.txt", "1 2")
        assert (total(path), total(path)) == (3, 3)
        write("a.txt", "5 6")
        assert (total(path), total(path)) == (11, 11)
        assert len(runs) == 2

    def test_path_does_not_count(self) -> None:
        """Neither where the file is, nor whether it is named by text or by a `Path`."""
        assert total(write("a.txt", "1 2")) == total(write("b/c.dat", "1 2").absolute()) == 3
        assert total("a.txt") == 3  # type: ignore[arg-type]
        assert runs == ["a.txt"]

    def test_same_size_in_the_same_moment(self) -> None:
        """An edit that leaves size and time as they were is seen."""
        path = write("a.txt", "1 2")
        for number in range(3, 9):
            before = path.stat()
            write("a.txt", f"{number} 2")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert total(path) == number + 2

    def test_bytes_are_not_stored(self, active: Cache) -> None:
        """The record has the path, and the digest of the content."""
        content = "1 " * 100_000
        total(write("a.txt", content))
        assert active.stats().bytes < len(content)
        (call,) = total.query()
        assert call.arguments["path"] == Path("a.txt")
        assert call.record.arguments["path"].shown == "a.txt"
        assert call.arguments.digests["path"] == key(Path("a.txt"))

    def test_rerun_checks(self) -> None:
        """A stored digest stands for the path as long as the file holds what it held."""
        total(write("a.txt", "1 2"))
        (call,) = total.query()
        stored = call.arguments.digests["path"]
        write("a.txt", "5 6")
        with pytest.raises(KeyError, match=r"a\.txt holds something else by now"):
            total.rerun(stored)  # type: ignore[arg-type]
        write("a.txt", "1 2")
        assert total.rerun(stored) == 3  # type: ignore[arg-type]
        assert len(runs) == 2

    def test_missing(self) -> None:
        """One warning says which file; the function runs, and fails in its own way."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(3):
                with pytest.raises(FileNotFoundError):
                    total(Path("a.txt"))
        (said,) = {str(each.message) for each in told}
        assert re.search(r"a\.txt: No such file.*working directory", said)
        assert "Pass the path of a file" in said

    @pytest.mark.skipif(os.name == "nt", reason="named pipes of POSIX")
    def test_pipe(self) -> None:
        """What is no file is not opened: that could wait forever."""
        os.mkfifo("pipe")
        with pytest.raises(ContentError, match="pipe: neither a file nor a directory"):
            read_content("pipe")

    def test_changed_by_the_function(self) -> None:
        """A result that may be of another content than the key says is not stored."""

        @fleche(ignore_globals="runs")
        def append(path: Content[Path]) -> str:
            runs.append(1)
            path.write_text(path.read_text() + "!")
            return path.read_text()

        path = write("a.txt", "a")
        with pytest.warns(FlecheWarning, match=r"not stored, since .*a\.txt.* changed while"):
            assert append(path) == "a!"
        write("a.txt", "a")
        assert append(path) == "a!"
        assert len(runs) == 2

    def test_explain(self) -> None:
        path = write("a.txt", "1 2")
        total(path)
        assert total.explain(path)
        write("a.txt", "5 6")
        found = total.explain(path)
        assert found.differing == ("path",)
        assert "the file's content differs: path was a.txt <" in str(found)


class TestTree:
    @pytest.fixture
    def tree(self) -> Path:
        write("tree/a.txt", "1")
        write("tree/sub/b.txt", "2")
        return Path("tree")

    def test_counts_names_bytes_and_executable_bit(self, tree: Path) -> None:
        keys = [key(tree)]
        write("tree/a.txt", "3")
        keys.append(key(tree))
        (tree / "a.txt").rename(tree / "c.txt")
        keys.append(key(tree))
        (tree / "c.txt").chmod(0o755)
        keys.append(key(tree))
        (tree / "empty").mkdir()
        keys.append(key(tree))
        (tree / "sub" / "b.txt").rename(tree / "b.txt")
        keys.append(key(tree))
        assert len(set(keys)) == len(keys)

    def test_does_not_count_the_rest(self, tree: Path) -> None:
        """Neither the name of the tree, nor times, nor the order of making."""
        before = key(tree)
        write("other/sub/b.txt", "2")
        os.utime(write("other/a.txt", "1"), (0, 0))
        assert key(Path("other")) == before
        assert key(Path("other").absolute()) == before

    def test_names_are_not_run_together(self) -> None:
        write("one/ab", "c")
        write("two/a", "bc")
        assert key(Path("one")) != key(Path("two"))

    def test_link_inside(self, tree: Path) -> None:
        """A link counts as what it leads to, be it a file or a directory."""
        (tree / "again.txt").symlink_to("a.txt")
        (tree / "more").symlink_to("sub")
        write("copy/a.txt", "1")
        write("copy/again.txt", "1")
        write("copy/sub/b.txt", "2")
        write("copy/more/b.txt", "2")
        assert key(tree) == key(Path("copy"))

    def test_link_outward(self, tree: Path) -> None:
        write("secret.txt", "3")
        (tree / "out").symlink_to("../secret.txt")
        with pytest.raises(ContentError, match=r"out: this link leads out of the tree, to .*copy"):
            key(tree)

    def test_link_round(self, tree: Path) -> None:
        (tree / "sub" / "up").symlink_to("..")
        with pytest.raises(ContentError, match="up: this link leads back to a directory"):
            key(tree)

    def test_link_to_nothing(self, tree: Path) -> None:
        (tree / "gone").symlink_to("nowhere")
        with pytest.raises(ContentError, match="gone: No such file"):
            key(tree)

    def test_root_may_be_a_link(self, tree: Path) -> None:
        Path("link").symlink_to("tree")
        assert key(Path("link")) == key(tree)


@dataclass
class Inputs:
    mesh: Path
    order: int = 1


class TestWhere:
    """Wherever a path may be in a call."""

    def test_gathered(self) -> None:
        @fleche(ignore_globals="runs")
        def every(*paths: Content[Path], **named: Content[Path]) -> float:
            runs.append(1)
            return sum(float(path.read_text()) for path in (*paths, *named.values()))

        a, b = write("a", "1"), write("b", "2")
        assert every(a, b, c=b) == every(a, b, c=write("d", "2")) == 5
        assert len(runs) == 1
        write("d", "3")
        assert every(a, b, c=Path("d")) == 6

    def test_gathered_digest(self) -> None:
        """Among gathered paths, a digest stands for one, too."""

        @fleche
        def every(*paths: Content[Path]) -> list[str]:
            return [path.read_text() for path in paths]

        a, b = write("a.txt", "1"), write("b.txt", "2")
        total(a)
        (call,) = total.query()
        stored: Any = call.arguments.digests["path"]
        assert every(stored, b) == every(a, b) == ["1", "2"]
        write("a.txt", "3")
        with pytest.raises(KeyError, match=r"a\.txt holds something else"):
            every(stored)

    def test_containers(self) -> None:
        a, b = write("a", "1"), write("b", "2")
        many = ([a, b], (a, b), [b, a], {"x": a}, {"y": a}, {"x": b}, Inputs(a), Inputs(b), None, 1)
        keys = [key(value) for value in (*many, Inputs(a, 2), {a, b}, frozenset([a, b]), {a})]
        assert len(set(keys)) == len(keys)
        copy = write("copy", "1")
        assert key([copy, b]) == keys[0]
        assert key(Inputs(copy)) == key(Inputs(a))
        assert key({b, copy}) == key({a, b})
        assert key({a, copy}) != key({a})

    def test_other_values_are_refused(self) -> None:
        with pytest.raises(ContentError, match=r"arguments\['x'\]\[1\]: Content is for paths"):
            key([write("a", "1"), object()])
        with pytest.raises(ContentError, match=r"arguments\['x'\]\['m'\]: gone"):
            key({"m": Path("gone")})

    def test_marker_is_found(self) -> None:
        def f(a, b, c, d, e): ...

        f.__annotations__ = {
            "a": Content[Path],
            "b": Optional[Content[str]],  # noqa: UP045 - another type than a | b
            "c": list[Content[Path]],
            "d": Annotated[dict[str, list[Content[Path]]], "inputs"],
            "e": Path,
        }
        assert inspect_function(f).content == {"a", "b", "c", "d"}
        assert Content[int] == Annotated[int, CONTENT]

    def test_default(self) -> None:
        write("data.txt", "1")

        @fleche
        def load(path: Content[str] = "data.txt") -> float:
            return float(Path(path).read_text())

        assert load() == 1
        write("data.txt", "2")
        assert load() == 2

    def test_method(self) -> None:
        class Reader:
            @fleche
            def read(self, path: Content[Path]) -> str:
                return path.read_text()

        path = write("a", "1")
        assert Reader().read(path) == "1"
        write("a", "2")
        assert Reader().read(path) == "2"

    def test_coroutine(self) -> None:
        @fleche
        async def read(path: Content[Path]) -> str:
            return path.read_text()

        path = write("a", "1")
        assert asyncio.run(read(path)) == "1"
        write("a", "2")
        assert asyncio.run(read(path)) == "2"

    def test_executor(self) -> None:
        path = write("a", "1")
        with ThreadPoolExecutor(1) as pool:
            submit = wrap_executor(pool).submit
            assert submit(total, path).result() == 1
            assert submit(total, path).result() == 1
            write("a", "2")
            assert submit(total, path).result() == 2
        assert len(runs) == 2

    def test_isolated(self) -> None:
        @fleche(isolate=True)
        def read(paths: Content[list[Path]]) -> str:
            return paths.pop().read_text()

        paths = [write("a", "1")]
        assert read(paths) == read(paths) == "1"
        write("a", "2")
        assert read(paths) == "2"


class Clock:
    """Says how late it is for the memory of digests."""

    def __init__(self, path: Path) -> None:
        self.now = path.stat().st_ctime_ns

    def __call__(self) -> int:
        return self.now


class TestMemory:
    """Digests of unchanged files are remembered, safely."""

    @pytest.fixture
    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The paths of the files that are read, as they are read."""
        found: list[str] = []
        real = _content.hash_file

        def hash_file(path: str) -> Any:
            found.append(path)
            return real(path)

        monkeypatch.setattr(_content, "hash_file", hash_file)
        return found

    @staticmethod
    def ask(memory: FileMemory, path: Path) -> bytes:
        ((size, found),) = memory.digests([str(path)])
        assert size == path.stat().st_size
        return found

    @staticmethod
    def memory(clock: Callable[[], int]) -> FileMemory:
        return FileMemory(lambda: "memory", clock, lambda device: True)

    def test_a_system_that_does_not_tell_its_mounts(
        self, reads: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As macOS: every file system is taken for one that notes the times."""

        def none(*_: Any, **__: Any) -> Any:
            raise FileNotFoundError

        path = write("a", "1")
        memory = FileMemory(lambda: "memory", lambda: 1 << 62)
        monkeypatch.setattr(_content, "_devices", {})
        monkeypatch.setattr(_content, "open", none, raising=False)
        assert _content._notes_times(path.stat().st_dev)
        monkeypatch.delattr(_content, "open")
        assert self.ask(memory, path) == self.ask(memory, path)
        assert len(reads) == 1

    def test_times_that_do_not_tell(self, reads: list[str]) -> None:
        """Where a change through a memory map leaves the times alone, files are always read."""
        path = write("a", "1")
        for _ in range(2):
            self.ask(FileMemory(lambda: "memory", lambda: 1 << 62, lambda device: False), path)
        assert len(reads) == 2
        assert not Path("memory").exists()

    @pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="no file system in memory")
    def test_memory_map(self) -> None:
        """A file in memory that is changed through a map, long after it was made."""
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
            file.write(bytes(8192))
            file.flush()
            memory = FileMemory(lambda: "memory", lambda: 1 << 62)
            with mmap.mmap(file.fileno(), 8192) as pages:
                pages[0] = 1
                before = self.ask(memory, Path(file.name))
                pages[0] = 2
                pages.flush()
                assert self.ask(memory, Path(file.name)) != before

    def test_old_file_is_read_once(self, reads: list[str]) -> None:
        """In this process, and in later ones."""
        path = write("a", "1")
        clock = Clock(path)
        clock.now += GRAIN + 1
        found = {self.ask(self.memory(clock), path) for _ in range(3)}
        assert len(found) == len(reads) == 1

    def test_a_device_with_a_number_below_zero(
        self, reads: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As macOS gives them to some file systems; what is on them is remembered in files, too."""
        real = os.fstat

        def fstat(descriptor: int) -> Any:
            found = real(descriptor)
            told = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
            return SimpleNamespace(**{**told, "st_dev": -0x50000001})

        path = write("a", "1")
        clock = Clock(path)
        clock.now += GRAIN + 1
        monkeypatch.setattr(os, "fstat", fstat)
        found = {self.ask(self.memory(clock), path) for _ in range(3)}
        assert len(found) == len(reads) == 1

    def test_young_file_is_read_again(self, reads: list[str]) -> None:
        path = write("a", "1")
        clock = Clock(path)
        clock.now += GRAIN
        memory = self.memory(clock)
        self.ask(memory, path)
        self.ask(memory, path)
        assert len(reads) == 2
        clock.now += 1
        self.ask(memory, path)
        self.ask(memory, path)
        assert len(reads) == 3

    def test_changed_file_is_read(self, reads: list[str]) -> None:
        path = write("a", "1")
        clock = Clock(path)
        clock.now += 1000 * GRAIN
        memory = self.memory(clock)
        before = self.ask(memory, path)
        times = path.stat()
        write("a", "2")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert self.ask(memory, path) != before
        assert len(reads) == 2

    @pytest.mark.parametrize("damage", [b"", b"x", None])
    def test_damage_is_ignored(self, damage: bytes | None, reads: list[str]) -> None:
        """What is not as it was written counts for nothing, a flipped bit included."""
        path = write("a", "1")
        clock = Clock(path)
        clock.now += GRAIN + 1
        right = self.ask(self.memory(clock), path)
        (kept,) = Path("memory").iterdir()
        good = kept.read_bytes()
        places = range(len(good)) if damage is None else [0]
        for place in places:
            bad = bytearray(good)
            bad[place] ^= 1
            kept.write_bytes(bytes(bad) if damage is None else damage)
            assert self.ask(self.memory(clock), path) == right
        assert len(reads) == 1 + len(places)

    def test_cannot_be_written(self) -> None:
        path = write("a", "1")
        write("memory", "a file where a directory is needed")
        memory = self.memory(lambda: 1 << 62)
        assert self.ask(memory, path) == self.ask(memory, path)

    def test_is_in_the_cache_directory(self, tmp_home: Path) -> None:
        """Of the user; other processes write there at the same time, and nothing is torn."""
        code = (
            "import sys; from fleche.digest import read_content, _content;"
            "_content.memory._clock = lambda: 1 << 62;"
            "_content.memory._notes_times = lambda device: True;"
            "[read_content(f'{n}') for n in map(int, sys.argv[1:])]"
        )
        names = [str(number) for number in range(40)]
        for name in names:
            write(name, name)
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_home / "cached")}
        running = [
            subprocess.Popen([sys.executable, "-c", code, *names], env=environment)
            for _ in range(3)
        ]
        assert [process.wait() for process in running] == [0, 0, 0]
        kept = sorted((tmp_home / "cached" / "fleche" / "files").iterdir())
        assert kept
        memory = FileMemory(lambda: str(kept[0].parent), notes_times=lambda device: True)
        assert {self.ask(memory, Path(name)) for name in names} == {
            read_content(name).hashed for name in names
        }

    def test_change_while_reading(self, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write("a", "1")

        class Hasher:
            def __init__(self, **_: Any) -> None: ...

            def update(self, _: Any) -> None:
                write("a", "123")

        monkeypatch.setattr(_content, "blake3", Hasher)
        with pytest.raises(ContentError, match="a: it changed while it was read"):
            _content.hash_file(str(path))


class TestBarePath:
    """A path counts by its text, and a result is a hit as long as the file is what was read."""

    def test_changed(self, active: Cache) -> None:
        path = write("a.txt", "1 2")
        before = plain.digest(path)
        assert (plain(path), plain(path)) == (3, 3)
        write("a.txt", "10 20")
        assert plain.digest(path) == before
        assert not plain.contains(path)
        explained = plain.explain(path)
        assert not explained
        assert "a.txt has changed" in str(explained)
        assert (plain(path), plain(path)) == (30, 30)
        assert plain.contains(path)
        assert plain.explain(path)
        assert len(runs) == 2
        assert active.query().count() == 1

    def test_same_content(self) -> None:
        """When it was written does not matter, nor what becomes of it afterwards."""
        path = write("a.txt", "1 2")
        plain(path)
        path.unlink()
        assert plain(path) == 3
        write("a.txt", "1 2")
        assert plain(path) == 3
        path.unlink()
        path.mkdir()
        assert plain(path) == 3
        assert len(runs) == 1

    def test_inside(self) -> None:
        """Paths in containers and in objects, defaults and keywords."""

        @dataclass
        class Inputs:
            data: Path

        path = write("a.txt", "1")

        @fleche(ignore_globals="runs")
        def last(*given: Any, other: Path = path, **named: Any) -> float:
            part = given[0]
            inner = part.data if isinstance(part, Inputs) else part[-1]
            return numbers(inner) + numbers(other) + sum(map(numbers, named.values()))

        for number, part in enumerate(([path], (1, path), Inputs(write("b.txt", "1"))), 1):
            write("b.txt", "1")
            assert last(part, c=write("c.txt", "1")) == 3
            for name in ("b.txt", "c.txt") if isinstance(part, Inputs) else ("a.txt", "c.txt"):
                write(name, "2")
                assert last(part, c=Path("c.txt")) > 3, (number, name)
                write(name, "1")
                assert last(part, c=Path("c.txt")) == 3

    def test_output(self) -> None:
        """A file that the function writes, or appends to, does not count."""

        @fleche(ignore_globals="runs")
        def log(x: int, path: Path) -> int:
            runs.append(x)
            with path.open("a") as file:
                file.write(f"{x}\n")
            return x

        path = Path("log.txt")
        for _ in range(2):
            assert (log(1, path), log(2, path)) == (1, 2)
        write("log.txt", "something else")
        assert log(1, path) == 1
        assert runs == [1, 2]

    def test_directory(self, tmp_path: Path) -> None:
        """A directory counts by its text, and so does text that is a path."""

        @fleche(ignore_globals="runs")
        def names(path: Any) -> int:
            runs.append(path)
            return 1 if isinstance(path, str) else len(list(path.iterdir()))

        write("tree/a", "a")
        names(Path("tree"))
        names("tree/a")
        write("tree/a", "b")
        write("tree/b", "b")
        names("tree/a")
        assert names(Path("tree")) == 1
        assert len(runs) == 2

    def test_large(self) -> None:
        """A file of more than 1 GiB is not read: its size and the time of its change count."""
        path = Path("large")
        with path.open("wb") as file:
            file.truncate((1 << 30) + 1)

        @fleche(ignore_globals="runs")
        def size(path: Path) -> int:
            runs.append(path)
            return path.stat().st_size

        assert size(path) == size(path)
        os.utime(path, (1, 1))
        size(path)
        assert len(runs) == 2

    def test_many_calls(self) -> None:
        """Through map() and an executor."""
        paths = [write(f"{n}.txt", str(n)) for n in range(3)]
        assert list(plain.map(paths)) == [0, 1, 2]
        write("1.txt", "5")
        assert list(plain.map(paths)) == [0, 5, 2]
        write("2.txt", "7")
        with ThreadPoolExecutor(2) as pool:
            submit = wrap_executor(pool).submit
            assert [submit(plain, path).result() for path in paths] == [0, 5, 7]
        assert len(runs) == 5

    def test_secret(self) -> None:
        """What a secret path leads to is written nowhere."""

        @fleche
        def read(key: Secret[Path], path: Path) -> str:
            return path.read_text()

        read(write("key.txt", "k"), write("a.txt", "1"))
        shown = str(read.query().only().metadata)
        assert "a.txt" in shown
        assert "key.txt" not in shown

    def test_coroutine(self) -> None:
        @fleche(ignore_globals="runs")
        async def read(path: Path) -> float:
            return numbers(path)

        path = write("a.txt", "1")
        assert asyncio.run(read(path)) == 1
        write("a.txt", "2")
        assert asyncio.run(read(path)) == 2


def test_no_warning_for_a_hit() -> None:
    path = write("a.txt", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert total(path) == total(path) == 1


def test_what_is_told() -> None:
    """The content of a file is its size and its BLAKE3, as `b3sum` prints it."""
    from blake3 import blake3

    path = write("a.txt", "abc")
    assert read_content(str(path)) == FileContent("file", 3, blake3(b"abc").digest())


class TestGolden:
    """Digests of content are the same on every system and under every version."""

    def test_file(self) -> None:
        assert (
            key(write("a.txt", "abc"))
            == "c2f4b4288d26cc76b8ef2bd2d70bf80207da170e67eb7f1f5b55cb3b09474b3f"
        )

    def test_tree(self) -> None:
        write("tree/sub/b.txt", "b").chmod(0o644)
        write("tree/run", "#!").chmod(0o755)
        (Path("tree") / "empty").mkdir()
        assert (
            key(Path("tree")) == "fb0809fa3b8c9b667aed54087224a4fb1f6be7565abf93dab1d373f0617f7df5"
        )

    def test_result(self) -> None:
        assert (
            digest(File(write("a.txt", "abc")))
            == "6a733ec81fd8b91d107437e79c68ba19bd8dc39c5f61da101bfcc3cd63f21902"
        )
