"""`fleche.File`: a result, or an argument, that is a file."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleche import Digest, File, cache, digest, fleche, state, wrap_executor
from fleche.caches import BaseCache, Cache, CacheStack, Local
from fleche.errors import CorruptParcel, SignatureError, UnpackError
from fleche.parcel import BUFFER_MIN, Head, Parcel, Section, kept_file
from fleche.parcel._files import FileSection
from fleche.parcel._layout import assemble, checksum
from fleche.storage import CallFile, CallMemory, Sql, ValueFile, ValueMemory
from tests.helpers.caches import cache_factory
from tests.helpers.serving import Serving
from tests.helpers.sweeps import swept

LARGE = BUFFER_MIN + 1
runs: list[Any] = []


def hdf5(root: str, **options: Any) -> BaseCache:
    pytest.importorskip("h5py")
    from fleche.storage import ValueHdf5

    return Cache(ValueHdf5(root, **options), CallMemory())


def in_fsspec(root: str) -> BaseCache:
    pytest.importorskip("fsspec")
    from fleche.storage import CallFsspec, ValueFsspec

    return Cache(ValueFsspec(f"file://{root}"), CallFsspec(f"file://{root}"))


CACHES: dict[str, Callable[[str], BaseCache]] = {
    "memory": lambda root: Cache(ValueMemory(), CallMemory()),
    "local": Local,
    "file": lambda root: Cache(ValueFile(root), CallFile(root)),
    "compressed": lambda root: Cache(ValueFile(root, compress="zlib"), CallFile(root)),
    "signed": lambda root: Cache(
        ValueFile(root, secret_key="secret"), CallFile(root, secret_key="secret")
    ),
    "sql": lambda root: Cache(ValueFile(root), Sql()),
    "hdf5": hdf5,
    "hdf5 compressed": lambda root: hdf5(root, compress="gzip"),
    "fsspec": in_fsspec,
    "stack": lambda root: CacheStack((Local(f"{root}/near"), Local(f"{root}/far"))),
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    runs.clear()
    yield
    state.reset()


@pytest.fixture
def local(tmp_path: Path) -> Local:
    """A local store, active during the test."""
    made = Local(tmp_path / "store")
    cache(made)
    return made


@dataclass
class Trajectory:
    frames: File
    steps: int


def write(name: str, content: bytes) -> File:
    Path(name).write_bytes(content)
    return File(name)


@fleche(ignore_globals="runs")
def simulate(letter: str, size: int = LARGE) -> File:
    """Write a file in the working directory, as programs do, always under one name."""
    runs.append(letter)
    return write("trajectory.xyz", letter.encode() * size)


@fleche(ignore_globals="runs")
def simulate_all(size: int) -> Any:
    runs.append(size)
    files = [write(f"{number}.xyz", bytes([number]) * size) for number in range(3)]
    return {"files": files, "best": Trajectory(files[0], 3)}


@pytest.mark.parametrize("size", [0, 10, LARGE])
@pytest.mark.parametrize("kind", CACHES)
def test_every_storage(kind: str, size: int, tmp_path: Path) -> None:
    """Miss and hit alike give a file with that name and content, inside containers too."""
    made = CACHES[kind](str(tmp_path / "store"))
    with cache(made):
        missed = simulate_all(size)
        for number in range(3):
            Path(f"{number}.xyz").unlink()
        found = simulate_all(size)
        assert runs == [size]
        for result in (missed, found):
            for number, file in enumerate(result["files"]):
                assert file.path.name == file.name == f"{number}.xyz"
                assert file.path.read_bytes() == bytes([number]) * size
                assert file.size == size
            assert result["best"].frames is result["files"][0]
        assert found == missed
        (call,) = simulate_all.query()
        assert not made.verify().corrupt
        assert call.result == found


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("kinds", [("local", "hdf5"), ("hdf5", "local"), ("signed", "hdf5")])
def test_transfer(kinds: tuple[str, str], size: int, tmp_path: Path) -> None:
    """Between storages that keep files apart and one that keeps values whole."""
    first, second = (CACHES[kind](str(tmp_path / kind)) for kind in kinds)
    with cache(first):
        simulate_all(size)
    first.transfer(second)
    assert not second.verify().corrupt
    with cache(second):
        found = simulate_all(size)
    assert runs == [size]
    for number, file in enumerate(found["files"]):
        assert file.path.read_bytes() == bytes([number]) * size


@pytest.mark.parametrize("size", swept([10, LARGE, 3 << 20], lambda size: size != LARGE))
def test_every_channel(
    channel_kind: str, size: int, serving: Serving, tmp_path: Path, tmp_home: Path
) -> None:
    """The file is on the machine that asks, in the cache directory of its user."""
    factory = cache_factory("file", tmp_path / "there")
    first, second = (serving(channel_kind, factory) for _ in range(2))
    with cache(first):
        missed = simulate("a", size)
    kept = tmp_home / ".cache" / "fleche" / "kept"
    assert missed.path.is_relative_to(kept)
    missed.path.unlink()
    with cache(second):
        found = simulate("a", size)
    assert runs == ["a"]
    assert found.path.is_relative_to(kept)
    assert found.path.read_bytes() == b"a" * size
    near = Local(tmp_path / "near")
    found.path.unlink()
    with cache(CacheStack((near, second))):
        assert simulate("a", size).path.read_bytes() == b"a" * size
    assert near.query().count() == 1
    assert not list(kept.rglob("*.tmp"))


class TestFile:
    def test_attributes(self, tmp_path: Path) -> None:
        file = write("a.b.xyz", b"abc\n")
        assert (file.name, file.size, file.path) == ("a.b.xyz", 4, Path("a.b.xyz").absolute())
        assert os.fspath(file) == str(file.path)
        with file.open() as binary, file.open("r", encoding="utf-8") as text:
            assert (binary.read(), text.read()) == (b"abc\n", "abc\n")
        with pytest.raises(ValueError, match="read-only; copy_to"):
            file.open("w")
        assert repr(file) == f"File({str(file.path)!r})"

    def test_copy_to(self, local: Local, tmp_path: Path) -> None:
        """A copy may be changed, unlike the file itself, and replaces what is there."""
        file = simulate("a")
        assert not os.access(file.path, os.W_OK) or os.geteuid() == 0
        assert file.path.stat().st_mode & 0o222 == 0
        (tmp_path / "to").mkdir()
        inside = file.copy_to(tmp_path / "to")
        assert inside == tmp_path / "to" / "trajectory.xyz"
        inside.write_bytes(b"changed")
        named = file.copy_to(str(inside))
        assert named.read_bytes() == file.path.read_bytes() == b"a" * LARGE
        assert named.stat().st_mode & 0o200

    def test_must_be_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nowhere\.xyz"):
            File("nowhere.xyz")
        with pytest.raises(IsADirectoryError):
            File(tmp_path)

    def test_counts_by_name_and_bytes(self) -> None:
        Path("sub").mkdir()
        one, same = write("a.xyz", b"1"), write("sub/a.xyz", b"1")
        assert one == same
        assert hash(one) == hash(same)
        assert digest(one) == digest(same)
        assert one != "a.xyz"
        for other in (write("a.dat", b"1"), write("sub/a.xyz", b"2")):
            assert other != one
            assert digest(other) != digest(one)

    def test_copies_and_pickles(self, local: Local) -> None:
        """As a path, for processes of one machine."""
        file = simulate("a")
        for again in (copy.copy(file), copy.deepcopy(file), pickle.loads(pickle.dumps(file))):
            assert again.path == file.path

    def test_record_shows_name_and_size(self, local: Local) -> None:
        simulate("a", 12)
        (call,) = simulate.query()
        assert call.record.result is not None
        assert call.record.result.shown == "File trajectory.xyz, 12 bytes"


class TestKept:
    def test_miss_is_kept(self, local: Local, tmp_path: Path) -> None:
        """The next call writes a file of the same name, and the first result stays what it is."""
        first, second = simulate("a"), simulate("b")
        assert first.path.is_relative_to(tmp_path / "store")
        assert first.path.read_bytes()[:1] == b"a"
        assert second.path.read_bytes()[:1] == b"b"
        assert Path("trajectory.xyz").exists()

    def test_content_is_stored_once(self, local: Local) -> None:
        """Whatever the file is called, and whatever has been stored of the same content."""

        @fleche
        def named(name: str) -> list[File]:
            return [write(name, b"x" * LARGE)]

        before = local.stats()
        paths = [named(name)[0].path for name in ("a.xyz", "b.xyz")]
        assert local.stats().bytes - before.bytes < 1.5 * LARGE
        assert [path.name for path in paths] == ["a.xyz", "b.xyz"]
        assert paths[0].samefile(paths[1])
        Path("a.xyz").unlink()
        assert [named(name)[0].name for name in ("a.xyz", "b.xyz")] == ["a.xyz", "b.xyz"]

    def test_altered_copy_is_replaced(self, local: Local) -> None:
        path = simulate("a").path
        path.chmod(0o644)
        path.write_bytes(b"b" * LARGE)
        assert simulate("a").path.read_bytes() == b"a" * LARGE
        path.unlink()
        assert simulate("a").path.read_bytes() == b"a" * LARGE
        assert runs == ["a"]

    def test_damaged_content_is_a_miss(self, local: Local, tmp_path: Path) -> None:
        simulate("a").path.unlink()
        (stored,) = (tmp_path / "store" / "values").rglob("*.value")
        damaged = bytearray(stored.read_bytes())
        damaged[-1] ^= 1
        stored.write_bytes(damaged)
        assert simulate("a").path.read_bytes() == b"a" * LARGE
        assert runs == ["a", "a"]

    def test_tables_name_their_own_files(self) -> None:
        """The head of a parcel that names a section that it does not have is refused."""
        section = Section(1, 1, "", checksum(b"x", strong=False))
        for files in ((0,), (2,), (-1,)):
            head = Head(serializer="pickle", stream=section, buffers=(section,), files=files)
            parcel = assemble(head, [b"x", b"x"])
            with pytest.raises(CorruptParcel, match="no such file"):
                Parcel.from_bytes(parcel.tobytes())

    def test_changed_while_it_is_stored(
        self, local: Local, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is kept are the bytes that were digested, or nothing is stored."""
        from fleche.parcel import _files

        real = _files._pieces

        def changing(path: Any, size: int = 1 << 20) -> Any:
            Path("trajectory.xyz").write_bytes(b"?" * LARGE)
            return real(path, size)

        monkeypatch.setattr(_files, "_pieces", changing)
        with pytest.warns(UserWarning, match="not stored.* it has changed"):
            simulate("a")
        assert simulate.query().count() == 0

    def test_place_that_cannot_be_written(
        self, local: Local, tmp_path: Path, tmp_home: Path
    ) -> None:
        """Then the copy is in the user's cache directory."""
        simulate("a")
        files = tmp_path / "store" / "files"
        files.rename(tmp_path / "aside")
        files.write_bytes(b"a file where a directory is needed")
        found = simulate("a")
        assert found.path.is_relative_to(tmp_home / ".cache")
        assert found.path.read_bytes() == b"a" * LARGE
        assert runs == ["a"]

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a\\b", "a\0b"])
    def test_names_lead_nowhere(self, name: str, tmp_path: Path) -> None:
        """A stream may come from elsewhere; what it calls a file is a name and no path."""
        with pytest.raises(UnpackError, match="could lead elsewhere"):
            kept_file(name, bytes(32), FileSection(None, 0, str(tmp_path)))

    def test_others_signatures(self, tmp_path: Path) -> None:
        """A file that is not signed by a secret of the cache is never kept."""
        root = str(tmp_path / "store")
        with cache(Cache(ValueFile(root), CallFile(root))):
            simulate("a").path.unlink()
        signed = Cache(ValueFile(root, secret_key="other"), CallFile(root, secret_key="other"))
        (call,) = Cache(ValueFile(root), CallFile(root)).query()
        with pytest.raises(SignatureError):
            _ = signed.load(call.key).result


class TestGc:
    def test_takes_none_that_is_alive(self, local: Local) -> None:
        file = simulate("a")
        (call,) = simulate.query()
        call.evict()
        del call
        local.gc(grace=0)
        assert file.path.read_bytes() == b"a" * LARGE
        path = file.path
        del file
        gc.collect()
        local.gc(grace=0)
        assert not path.exists()

    def test_takes_none_whose_content_is_stored(self, local: Local) -> None:
        path = simulate("a").path
        gc.collect()
        local.gc(grace=0)
        assert path.exists()

    def test_takes_none_of_another_process(self, local: Local, tmp_path: Path) -> None:
        """Not while that process lives; afterwards it does."""
        code = (
            "import sys; from fleche import File, fleche, cache; from fleche.caches import Local\n"
            "cache(Local(sys.argv[1]))\n"
            "@fleche\n"
            "def f():\n"
            "    with open('out.xyz', 'wb') as file: file.write(b'x' * 100_000)\n"
            "    return File('out.xyz')\n"
            "file = f()\n"
            "print(file.path, flush=True)\n"
            "input()\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "store")]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            path = Path(process.stdout.readline().strip())
            for call in local.query(name="f"):
                call.evict()
            local.gc(grace=0)
            assert path.read_bytes() == b"x" * 100_000
            process.communicate("\n")
        local.gc(grace=0)
        assert not path.exists()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_takes_none_of_a_child(self, local: Local) -> None:
        """A forked child that has the file of its parent uses it by itself."""
        file = simulate("a")
        (call,) = simulate.query()
        call.evict()
        del call
        path = file.path
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.read(reader, 1)
            os._exit(0 if file.path.read_bytes() == b"a" * LARGE else 1)
        del file
        gc.collect()
        local.gc(grace=0)
        os.write(writer, b"x")
        os.close(reader)
        os.close(writer)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        local.gc(grace=0)
        assert not path.exists()


class TestWhere:
    """Arguments, methods, coroutines, executors."""

    def test_argument(self, local: Local) -> None:
        """Counts by name and bytes, and is stored with the call."""

        @fleche(ignore_globals="runs")
        def length(file: File) -> int:
            runs.append("length")
            return len(file.path.read_bytes())

        assert length(simulate("a", 5)) == length(simulate("a", 5)) == 5
        assert length(write("trajectory.xyz", b"aaaaa")) == 5
        assert length(write("trajectory.xyz", b"aaaaaa")) == 6
        assert runs.count("length") == 2
        call = length.query(result=6).only()
        assert call.arguments["file"].path.read_bytes() == b"aaaaaa"
        stored = Digest(call.record.arguments["file"].digest)
        assert length.contains(stored)  # type: ignore[arg-type]

    def test_isolated(self, local: Local) -> None:
        @fleche(isolate=True)
        def same(files: list[File]) -> list[File]:
            return files

        (file,) = same([write("a.xyz", b"a" * LARGE)])
        assert file.path.read_bytes() == b"a" * LARGE

    def test_coroutine(self, local: Local) -> None:
        @fleche
        async def run() -> File:
            return write("a.xyz", b"a")

        for _ in range(2):
            assert asyncio.run(run()).path.is_relative_to(local.backend.options.root)

    def test_executor(self, local: Local) -> None:
        with ThreadPoolExecutor(2) as pool:
            submit = wrap_executor(pool).submit
            for _ in range(2):
                assert submit(simulate, "a").result().path.read_bytes() == b"a" * LARGE
        assert runs == ["a"]

    def test_uncached(self) -> None:
        """Without a cache it is the file itself."""
        with cache("void"):
            file = simulate("a")
        assert file.path.read_bytes() == b"a" * LARGE


# -- never in memory as a whole --------------------------------------------------------------------

_SCRIPT = """
import os, resource, sys
from fleche import File, cache, fleche
from tests.test_files import in_memory_of

size, kind, nested, root = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "True", sys.argv[4]

@fleche
def sparse(size: int, nested: bool) -> object:
    with open("sparse.dat", "wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"here")
    found = File("sparse.dat")
    return {"steps": 3, "files": [found]} if nested else found

cache(in_memory_of(kind, root))
sparse(1 << 21, nested)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(2):
    found = sparse(size, nested)
    found = found["files"][0] if nested else found
    assert found.size == size
    with found.open() as file:
        file.seek(size // 2)
        assert file.read(4) == b"here"
    if kind != "local":
        os.unlink(found.path)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""


MUCH, VAST = 160 << 20, (2 << 30) + 1


def in_memory_of(kind: str, root: str) -> BaseCache:
    """Return a cache whose memory is that of this process."""
    from fleche.remote import LocalSubprocessChannel, PipeChannel, RemoteCache, serve

    if kind in CACHES:
        return CACHES[kind](root)
    if kind.startswith("pipe"):
        served = CACHES[kind[5:] or "local"](root)
        return RemoteCache(PipeChannel(lambda reader, writer: serve(reader, writer, served)))
    Path(root).mkdir()
    (Path(root) / "fleche.toml").write_text(
        '[default]\ncache = "c"\n[c]\ntemplate = "local"\nroot = "store"\n'
    )
    return RemoteCache(LocalSubprocessChannel(python=sys.executable, workdir=root))


@pytest.mark.parametrize(
    ("kind", "nested", "size"),
    swept(
        [
            ("local", False, MUCH),
            ("local", False, VAST),
            ("file", False, MUCH),
            ("fsspec", False, MUCH),
            ("fsspec", False, VAST),
            ("hdf5", False, VAST),
            ("hdf5", True, MUCH),
            ("hdf5 compressed", True, MUCH),
            ("hdf5 compressed", True, VAST),
            ("pipe", False, MUCH),
            ("pipe", False, VAST),
            ("pipe hdf5", False, MUCH),
            ("subprocess", False, MUCH),
            ("subprocess", False, VAST),
        ],
        lambda case: case[2] == MUCH and case[0] in ("local", "hdf5 compressed", "subprocess"),
        timeout=900,
    ),
)
def test_memory(kind: str, nested: bool, size: int, tmp_path: Path) -> None:
    """A file streams: on a miss, on a hit, on disks and wires, inside containers too."""
    if "hdf5" in kind:
        pytest.importorskip("h5py")
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(size), kind, str(nested), str(tmp_path / "store")],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) < 100 << 20
