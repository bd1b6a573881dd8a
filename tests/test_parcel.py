"""Parcels: the bytes of a value, laid out, checked, signed, compressed, not copied needlessly."""

from __future__ import annotations

import mmap
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128, xxh3_128_digest

from fleche.digest import Digest, digest
from fleche.errors import CorruptParcel, MissingExtra, SignatureError, UnpackError
from fleche.parcel import (
    ALIGNMENT,
    BUFFER_MIN,
    MAGIC,
    PYTHON,
    VERSION,
    IncomingParcel,
    Packing,
    Parcel,
    StreamSource,
    _pickles,
    allocate,
    pack,
    pack_buffer,
    pack_bytes,
    read_bytes,
    receive,
    unpack,
    verify,
    zstd_available,
    zstd_module,
)
from fleche.parcel._codecs import ZSTD
from fleche.parcel._layout import assemble
from fleche.testing.corpus import Block
from tests.helpers.sweeps import examples, swept

KEY = str(digest("key"))
LARGE = 200_000

opened: list[str] = []


class Bomb:
    """Tells when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return opened.append, ("bang",)


@pytest.fixture(autouse=True)
def nothing_opened() -> None:
    opened.clear()


def block(size: int = LARGE) -> Block:
    return Block(bytes(range(256)) * (size // 256) + bytes(size % 256))


def again(parcel: Parcel, **options: Any) -> Parcel:
    return Parcel.from_bytes(parcel.tobytes(), **options)


def offsets(data: bytes) -> list[int]:
    """Where each section begins, worked out from the bytes alone."""
    flags, length = struct.unpack_from("<HI", data, 10)
    position = 32 + length + (64 if flags & 1 else 16)
    found = []
    head = msgspec.msgpack.decode(data[32 : 32 + length])
    for _size, stored, *_ in (head["stream"], *head.get("buffers", ())):
        position += -position % 64
        found.append(position)
        position += stored
    return found


class TestLayout:
    @pytest.mark.parametrize("keys", [(), (b"s",)], ids=["unsigned", "signed"])
    def test_the_table_of_offsets(self, keys: tuple[bytes, ...]) -> None:
        """Every field is where the documentation says."""
        parcel = pack(block(), digest=KEY, keys=keys)
        data = parcel.tobytes()
        assert data[:8] == MAGIC == b"\x89fleche\n"
        version, flags, length, total = struct.unpack_from("<HHIQ", data, 8)
        assert (version, flags, total) == (VERSION, len(keys), len(data))
        assert data[24:32] == bytes(8)
        head = msgspec.msgpack.decode(data[32 : 32 + length])
        assert (head["serializer"], head["python"], head["digest"]) == ("cloudpickle", PYTHON, KEY)
        covered = data[: 32 + length]
        expected = blake3(covered).digest() if keys else xxh3_128_digest(covered)
        assert data[32 + length :].startswith(expected)
        stream, buffer = offsets(data)
        assert stream % ALIGNMENT == buffer % ALIGNMENT == 0
        assert data[buffer:] == bytes(block().data)
        (size, stored, codec, checksum, *_) = head["buffers"][0]
        assert (size, stored, codec) == (LARGE, LARGE, "")
        assert checksum == (blake3 if keys else xxh3_128)(data[buffer:]).digest()
        content = data[stream : stream + head["stream"][0]]
        assert head["variant"] == xxh3_128_digest(content)
        assert pickle.loads(data[stream : stream + head["stream"][0]], buffers=[b"x"]).data == b"x"

    def test_the_head_says_it_without_opening(self) -> None:
        """Serializer, Python, digest, sizes and checksums are read without unpickling."""
        parcel = again(pack([Bomb(), block()], "pickle", digest=KEY))
        head = parcel.head
        assert (head.serializer, head.python, head.digest, head.code) == (
            "pickle",
            PYTHON,
            KEY,
            False,
        )
        assert [section.size for section in head.buffers] == [LARGE]
        assert all(section.inline for section in head.sections)
        assert parcel.nbytes == len(parcel.tobytes())
        assert opened == []

    def test_small_buffers_stay_in_the_stream(self) -> None:
        """Only what is worth aligning is kept out of the pickle stream."""
        assert len(pack(block(BUFFER_MIN)).head.buffers) == 1
        assert pack(block(BUFFER_MIN - 1)).head.buffers == ()
        assert unpack(again(pack(block(100)))).data == block(100).data

    @pytest.mark.parametrize("value", [None, True, 1, 1.5, 1j, "text", b"bytes", [1], {"a": (1,)}])
    def test_the_same_value_gives_the_same_bytes(self, value: Any) -> None:
        """Packing is deterministic for plain values."""
        assert pack(value).tobytes() == pack(value).tobytes()
        assert unpack(pack(value)) == value

    def test_chunks(self) -> None:
        """Chunks are at most as large as asked for, and together the whole."""
        parcel = pack(block())
        for size in (1000, 1 << 20):
            chunks = [bytes(chunk) for chunk in parcel.chunks(size)]
            assert max(map(len, chunks)) <= size
            assert b"".join(chunks) == parcel.tobytes()
            ends = list(accumulate(map(len, chunks)))
            assert set(range(size, parcel.nbytes, size)) <= set(ends), (
                "a file would have torn pages"
            )
        assert repr(parcel) == f"<Parcel ? cloudpickle {parcel.nbytes} bytes>"


class TestAddresses:
    """A result is found by its digest and by the form in which it was returned."""

    @pytest.mark.parametrize("keys", [(), (b"s",)], ids=["unsigned", "signed"])
    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_the_variant_is_that_of_the_stream(
        self, keys: tuple[bytes, ...], compression: str | None
    ) -> None:
        """The head tells it without opening; compressing and signing do not change it."""
        value = ["text" * 100, {"a": 1}]
        plain = pack(value)
        parcel = again(pack(value, digest=KEY, compression=compression, keys=keys))
        assert parcel.variant == plain.variant == xxh3_128(bytes(plain.stored(0))).hexdigest()
        assert parcel.address == f"{KEY}.{parcel.variant}"
        verify(parcel, keys=keys)

    def test_another_form(self) -> None:
        """What is asked for by its address is refused in another form; by its digest it is not."""
        one, part = pack([[1], [1]], digest=KEY), [1]
        other = pack([part, part], digest=KEY)
        for action in (unpack, verify):
            action(other, digest=other.address)
            action(other, digest=KEY)
            with pytest.raises(CorruptParcel, match=rf"holds {KEY[:12]}\.\w+, not {KEY[:12]}\.\w+"):
                action(other, digest=one.address)

    def test_a_variant_that_lies(self) -> None:
        """Neither opening nor verify() takes a stream for that of another variant."""
        for keys, compression in (((), "zlib"), ((b"s",), None)):
            parcel = pack(["text" * 100, Bomb()], "pickle", compression=compression, keys=keys)
            head = msgspec.structs.replace(parcel.head, variant=bytes(16))
            lying = again(assemble(head, [parcel.stored(0)], keys))
            for action in (unpack, verify):
                with pytest.raises(CorruptParcel, match="not that of its variant"):
                    action(lying, keys=keys)
        parcel = pack(Bomb(), "pickle")
        head = msgspec.structs.replace(parcel.head, variant=bytes(16))
        with pytest.raises(CorruptParcel, match="disagree"):
            again(assemble(head, [parcel.stored(0)]))
        assert opened == []


class TestDamage:
    @pytest.mark.parametrize("keys", [(), (b"s",)], ids=["unsigned", "signed"])
    def test_truncated_anywhere(self, keys: tuple[bytes, ...]) -> None:
        """Every beginning of a parcel is recognised as one, and nothing is unpickled."""
        data = pack(Bomb(), "pickle", keys=keys).tobytes()
        for length in range(len(data)):
            with pytest.raises(CorruptParcel):
                Parcel.from_bytes(data[:length])
        for more in (b"\0", data):
            with pytest.raises(CorruptParcel):
                Parcel.from_bytes(data + more)
        assert opened == []

    @pytest.mark.parametrize("keys", [(), (b"s",)], ids=["unsigned", "signed"])
    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_a_bit_flipped_anywhere(self, keys: tuple[bytes, ...], compression: str | None) -> None:
        """No altered byte is unpickled. What pads the sections means nothing, whatever it is."""
        text = "abc" * 100
        parcel = pack([text, Bomb()], "pickle", digest=KEY, compression=compression, keys=keys)
        data = parcel.tobytes()
        padding = set(range(offsets(data)[0] - ALIGNMENT, offsets(data)[0])) & {
            position for position in range(len(data)) if position >= _end_of_head(data)
        }
        for position in range(len(data)):
            altered = bytearray(data)
            altered[position] ^= 1 << position % 8
            if position in padding:
                assert unpack(Parcel.from_bytes(altered), digest=KEY, keys=keys)[0] == text
                opened.clear()
                continue
            with pytest.raises((CorruptParcel, SignatureError)):
                unpack(Parcel.from_bytes(altered), digest=KEY, keys=keys)
            with pytest.raises((CorruptParcel, SignatureError)):
                verify(Parcel.from_bytes(altered), digest=KEY, keys=keys)
            assert opened == []

    @pytest.mark.parametrize("mmap", [False, True])
    def test_a_bit_flipped_in_a_buffer(self, tmp_path: Path, mmap: bool) -> None:
        """verify() reads every byte; opening does so unless the buffer is mapped."""
        data = bytearray(pack([block(), Bomb()], "pickle", digest=KEY).tobytes())
        data[-1] ^= 1
        path = tmp_path / "parcel"
        path.write_bytes(data)
        with pytest.raises(CorruptParcel, match=str(path)):
            verify(parcel := Parcel.from_file(str(path), mmap=mmap))
        parcel.close()
        if not mmap:
            with pytest.raises(CorruptParcel, match="the checksum of buffer 1"):
                unpack(parcel := Parcel.from_file(str(path)))
            parcel.close()
            assert opened == []

    def test_what_is_no_parcel(self) -> None:
        """Foreign bytes are called so; a layout of the future asks for an upgrade."""
        with pytest.raises(CorruptParcel, match="too few"):
            Parcel.from_bytes(b"")
        with pytest.raises(CorruptParcel, match="not a parcel"):
            Parcel.from_bytes(pickle.dumps("x" * 100))
        data = bytearray(pack(1).tobytes())
        data[8] = 3
        with pytest.raises(CorruptParcel, match="parcel layout 3, this fleche reads 2; upgrade"):
            Parcel.from_bytes(data)

    def test_a_head_that_lies(self) -> None:
        """A sound checksum is not enough: the table must agree with the length, and be a table."""

        def with_head(head: Any) -> bytes:
            encoded = msgspec.msgpack.encode(head)
            total = 48 + len(encoded)
            covered = struct.pack("<8sHHIQ8x", MAGIC, VERSION, 0, len(encoded), total) + encoded
            return covered + xxh3_128_digest(covered)

        section = [10, 10, "", bytes(16)]
        with pytest.raises(CorruptParcel, match="disagree"):
            Parcel.from_bytes(with_head({"serializer": "pickle", "stream": section}))
        for head in (
            {},
            [],
            {"serializer": 1, "stream": section},
            {"serializer": "p", "stream": []},
        ):
            with pytest.raises(CorruptParcel, match="the head cannot be read"):
                Parcel.from_bytes(with_head(head))

    def test_another_values_parcel(self) -> None:
        """A parcel cannot pass for another, nor one without a name for any."""
        with pytest.raises(CorruptParcel, match=f"holds {KEY[:12]}, not {'0' * 12}"):
            unpack(pack(Bomb(), "pickle", digest=KEY), digest="0" * 64)
        with pytest.raises(CorruptParcel, match=r"holds \?"):
            verify(pack(Bomb(), "pickle"), digest="0" * 64)
        assert opened == []

    def test_a_file_that_is_damaged_is_closed(self, tmp_path: Path, no_leaks: None) -> None:
        """A parcel that cannot be read leaves no open file."""
        (tmp_path / "parcel").write_bytes(b"x" * 100)
        with pytest.raises(CorruptParcel, match=str(tmp_path)):
            Parcel.from_file(str(tmp_path / "parcel"))


def _end_of_head(data: bytes) -> int:
    flags, length = struct.unpack_from("<HI", data, 10)
    return 32 + length + (64 if flags & 1 else 16)


class TestSignatures:
    def test_secrets_rotate(self) -> None:
        """The first secret signs, any that is known here will do."""
        parcel = pack(1, keys=[b"new", b"old"])
        assert unpack(parcel, keys=[b"other", b"new"]) == 1
        with pytest.raises(SignatureError, match="a key that is not configured here"):
            unpack(parcel, keys=[b"old"])
        assert unpack(parcel) == 1

    def test_unsigned_is_refused(self) -> None:
        """Where a secret is configured, what has no signature is refused, unopened."""
        for action in (unpack, verify):
            with pytest.raises(SignatureError, match="not signed"):
                action(pack(Bomb(), "pickle"), keys=[b"s"])
        assert opened == []

    def test_the_signature_cannot_be_stripped_or_moved(self) -> None:
        """A signature covers head and checksums, so that it fits one value only."""
        one, two = (pack(number, digest=KEY, keys=[b"s"]).tobytes() for number in (1, 2))
        end = _end_of_head(one)
        with pytest.raises(SignatureError):
            unpack(
                Parcel.from_bytes(two[: end - 32] + one[end - 32 : end] + two[end:]), keys=[b"s"]
            )

    def test_bytes_may_be_signed_too(self) -> None:
        """pack_bytes() and read_bytes() check as pack() and unpack() do."""
        parcel = pack_bytes(b"content" * 100, "kind", digest=KEY, compression="zlib", keys=[b"s"])
        assert parcel.nbytes < 700
        assert bytes(read_bytes(parcel, "kind", keys=[b"s"], digest=KEY)) == b"content" * 100
        with pytest.raises(SignatureError):
            read_bytes(parcel, "kind", keys=[b"t"])
        with pytest.raises(CorruptParcel, match="holds 'kind', not 'other'"):
            read_bytes(parcel, "other")
        with pytest.raises(CorruptParcel, match="not 000000000000"):
            read_bytes(parcel, "kind", digest="0" * 64)
        with pytest.raises(UnpackError, match="unknown serializer 'kind'"):
            unpack(parcel)

    def test_packing_holds_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A Packing signs and checks with its secrets, or with those of the environment."""
        packing = Packing("pickle", "zlib", (b"s",))
        assert packing.unpack(packing.pack([1] * 1000, KEY), KEY) == [1] * 1000
        with pytest.raises(SignatureError):
            packing.unpack(pack(1))
        assert "s'" not in repr(packing)
        monkeypatch.setenv("FLECHE_SECRET_KEY", "a,,b")
        assert Packing().with_environment().keys == (b"a", b"b")
        assert packing.with_environment() is packing
        with pytest.raises(ValueError, match="serializer 'xml': one of cloudpickle"):
            Packing("xml")
        with pytest.raises(ValueError, match="compress 'gz': one of zlib"):
            Packing(compression="gz")


class TestCompression:
    @pytest.mark.parametrize("codec", ["zlib", "zstd"])
    def test_round_trip(self, codec: str) -> None:
        """Stream and buffers are compressed, each where it helps, and come back equal."""
        parcel = pack([block(), "x" * 100_000], compression=codec, digest=KEY)
        assert parcel.nbytes < LARGE / 10
        assert [section.codec for section in parcel.head.sections] == [codec, codec]
        verify(again(parcel), digest=KEY)
        found = unpack(again(parcel), digest=KEY)
        assert found[0].data == block().data
        assert found[1] == "x" * 100_000

    def test_what_does_not_shrink_is_left_alone(self) -> None:
        """Noise is stored as it is, and so are a few bytes."""
        import random

        noise = Block(random.Random(1).randbytes(LARGE))
        parcel = pack([noise, "x"], compression="zlib")
        assert [section.codec for section in parcel.head.buffers] == [""]
        assert pack(1, compression="zlib").head.stream.codec == ""

    @pytest.mark.parametrize("codec", ["zlib", "zstd"])
    def test_a_section_that_lies_about_its_size(self, codec: str) -> None:
        """A small section that claims, or holds, more than it says is refused: no bombs."""
        from fleche.parcel._codecs import Decompressor, compress

        _, stored = compress(codec, bytes(20_000_000))

        def decompress(codec: str, stored: bytes, size: int) -> int:
            found: list[int] = []
            with Decompressor(codec, size, lambda piece: found.append(len(piece))) as decompressor:
                for start in range(0, len(stored), 1000):
                    decompressor.feed(stored[start : start + 1000])
            return sum(found)

        tracemalloc.start()
        try:
            with pytest.raises(CorruptParcel, match="holds"):
                decompress(codec, stored, 1000)
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()
        assert decompress(codec, stored, 20_000_000) == 20_000_000
        for size in (20_000_001, 19_999_999):
            with pytest.raises(CorruptParcel, match=f"not {size}"):
                decompress(codec, stored, size)
        with pytest.raises(CorruptParcel, match=r"damaged|holds"):
            decompress(codec, b"\1\2\3" * 100, 1000)
        with pytest.raises(CorruptParcel, match="unknown compression 'lzma'"):
            decompress("lzma", stored, 1000)

    def test_a_codec_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the package, the error says how to get it."""
        monkeypatch.setitem(sys.modules, ZSTD, None)
        assert not zstd_available()
        with pytest.raises(MissingExtra, match=r"pip install backports.zstd"):
            pack("x" * 1000, compression="zstd")


class TestMemory:
    SIZE = 64_000_000

    @pytest.fixture
    def array(self) -> Any:
        np = pytest.importorskip("numpy")
        return np.arange(self.SIZE // 8, dtype="int64")

    @pytest.fixture
    def traced(self) -> Iterator[Any]:
        tracemalloc.start()

        def peak() -> int:
            return tracemalloc.get_traced_memory()[1]

        yield peak
        tracemalloc.stop()

    def test_packing_copies_nothing(self, array: Any, traced: Any) -> None:
        """The parcel of a large array refers to its memory."""
        parcel = pack(array)
        assert sum(len(chunk) for chunk in parcel.chunks()) == parcel.nbytes
        verify(parcel)
        assert traced() < 2_000_000
        array[0] = 99
        with pytest.raises(CorruptParcel):
            verify(parcel)

    def test_opening_copies_once(self, array: Any, traced: Any, tmp_path: Path) -> None:
        """An array from a file is read into the memory that it then owns."""
        path = tmp_path / "parcel"
        with path.open("wb") as file:
            file.writelines(pack(array).chunks())
        found = unpack(Parcel.from_file(str(path)))
        assert (found == array).all()
        found[0] = 1
        assert traced() < 1.3 * self.SIZE

    def test_an_owned_parcel_hands_its_memory_over(self, array: Any, traced: Any) -> None:
        """What arrived in memory of its own is not copied again, and spent."""
        data = bytearray(pack(array).tobytes())
        parcel = Parcel.from_bytes(data, owned=True)
        tracemalloc.reset_peak()
        before = traced()
        found = unpack(parcel)
        assert traced() - before < 2_000_000
        found[0] = 1
        with pytest.raises(ValueError, match="spent"):
            unpack(parcel)
        with pytest.raises(ValueError, match="spent"):
            list(parcel.chunks())

    def test_what_is_not_owned_is_not_spent(self, array: Any) -> None:
        """A parcel over bytes of the caller opens again and again, each time to a new object."""
        parcel = again(pack(array[:20_000]))
        one, two = unpack(parcel), unpack(parcel)
        one[:] = 0
        assert (two == array[:20_000]).all()
        assert unpack(Parcel.from_bytes(pack(1).tobytes(), owned=True)) == 1

    def test_a_mapped_file_is_loaded_when_touched(
        self, array: Any, traced: Any, tmp_path: Path
    ) -> None:
        """Opening a memory-mapped parcel costs nothing; writing to it stays private."""
        path = tmp_path / "parcel"
        with path.open("wb") as file:
            file.writelines(pack(array).chunks())
        parcel = Parcel.from_file(str(path), mmap=True)
        found = unpack(parcel)
        assert traced() < 2_000_000
        found[:1000] = 0
        other = unpack(Parcel.from_file(str(path), mmap=True))
        path.unlink()
        assert other[999] == 999
        assert found[1000] == 1000

    @pytest.mark.parametrize("mmap", [False, True])
    def test_files_are_closed(self, tmp_path: Path, mmap: bool, no_leaks: None) -> None:
        """An opened, a closed and a forgotten parcel leave no open file."""
        path = tmp_path / "parcel"
        path.write_bytes(pack(block(), compression="zlib").tobytes())
        assert unpack(Parcel.from_file(str(path), mmap=mmap)).data == block().data
        parcel = Parcel.from_file(str(path), mmap=mmap)
        assert b"".join(parcel.chunks(1000)) == path.read_bytes()
        parcel.close()
        parcel.close()
        forgotten = Parcel.from_file(str(path), mmap=mmap)
        del forgotten

    def test_arrays_of_every_kind(self) -> None:
        """Empty, Fortran-ordered, strided, 0-d, structured: equal, and of the same order."""
        np = pytest.importorskip("numpy")
        arrays = [
            np.zeros((0, 5)),
            np.array(1.0),
            np.asfortranarray(np.arange(40_000.0).reshape(200, 200)),
            np.arange(100_000)[::3],
            np.zeros(20_000, dtype=[("a", "i4"), ("b", "f8")]),
            np.arange(100_000, dtype=">i4"),
            np.zeros((1, 70_000), dtype="int8"),
        ]
        for array, found in zip(arrays, unpack(again(pack(arrays))), strict=True):
            assert found.dtype == array.dtype
            assert (
                found.flags.f_contiguous == array.flags.f_contiguous or not array.flags.contiguous
            )
            np.testing.assert_array_equal(found, array)

    def test_aliases_stay_aliases(self) -> None:
        """One array in two places is one array again."""
        np = pytest.importorskip("numpy")
        array = np.zeros(20_000)
        parcel = pack([array, array])
        assert len(parcel.head.buffers) == 1
        one, two = unpack(parcel)
        assert one is two

    def test_read_only_arrays_come_back(self) -> None:
        """A read-only array is equal; whether it may be written to is not part of its value."""
        np = pytest.importorskip("numpy")
        array = np.arange(20_000)
        array.flags.writeable = False
        np.testing.assert_array_equal(unpack(again(pack(array))), array)

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    def test_more_than_four_gigabytes(self, tmp_path: Path) -> None:
        """Sizes are 64 bits wide; the file is sparse where the value is."""
        np = pytest.importorskip("numpy")
        array = np.zeros((1 << 32) + 1000, dtype="uint8")
        array[-1] = 7
        path = tmp_path / "parcel"
        with path.open("wb") as file:
            for chunk in pack(array, digest=KEY).chunks():
                file.write(chunk)
        parcel = Parcel.from_file(str(path), mmap=True)
        assert parcel.nbytes > 1 << 32
        del array
        verify(parcel, digest=KEY)
        found = unpack(parcel)
        assert (found.size, found[-1]) == ((1 << 32) + 1000, 7)


@pytest.mark.parametrize("size", [0, 1000, 100_000, 40 << 20])
@pytest.mark.parametrize("lacking", ["", "large pages", "numpy"])
def test_memory(monkeypatch: pytest.MonkeyPatch, size: int, lacking: str) -> None:
    """However much it is, and where there are no large pages, as on macOS, or is no numpy."""
    if lacking:
        monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    if lacking == "numpy":
        monkeypatch.setitem(sys.modules, "numpy", None)
    memory = allocate(size)
    assert (memory.nbytes, memory.format, memory.readonly) == (size, "B", False)
    memory[-1:] = b"x"[:size]
    assert allocate(size).obj is not memory.obj


def collect(size: int, pieces: Iterable[bytes]) -> Parcel:
    """Return the parcel of `size` bytes that arrives in `pieces`."""
    memory = allocate(size)

    def filled() -> Iterator[memoryview]:
        position = 0
        for piece in pieces:
            part = memory[position : position + len(piece)]
            part[:] = piece[: len(part)]
            position += len(part)
            yield part if len(part) == len(piece) else memoryview(piece)

    return receive(memory, filled())


class TestArriving:
    def pieces(self, data: bytes, size: int = 1000) -> Iterator[bytes]:
        return (data[start : start + size] for start in range(0, len(data), size))

    @pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
    def test_in_pieces_of_any_size(self, size: int) -> None:
        """However the bytes arrive, they make the same parcel."""
        data = pack(block(70_000), digest=KEY).tobytes()
        source = StreamSource(len(data), self.pieces(data, size))
        assert IncomingParcel(source).tobytes() == data
        parcel = collect(len(data), self.pieces(data, size))
        assert unpack(parcel, digest=KEY).data == block(70_000).data

    def test_opened_while_arriving(self) -> None:
        """Opening collects what is still to come; the head is there before."""
        data = pack([1, block()], digest=KEY).tobytes()
        taken: list[int] = []
        pieces = (taken.append(len(piece)) or piece for piece in self.pieces(data))
        parcel = IncomingParcel(StreamSource(len(data), pieces))
        assert parcel.head.digest == KEY
        assert sum(taken) < 3000
        assert unpack(parcel, digest=KEY)[1].data == block().data
        parcel.close()

    def test_altered_on_the_way(self) -> None:
        """What arrives altered is refused before it is handed on as whole."""
        data = bytearray(pack([Bomb(), block()], "pickle").tobytes())
        for position in (40, len(data) - 1, *offsets(bytes(data))):
            altered = data.copy()
            altered[position] ^= 1
            with pytest.raises(CorruptParcel):
                collect(len(data), self.pieces(altered))
            with pytest.raises(CorruptParcel):
                list(IncomingParcel(StreamSource(len(data), self.pieces(altered))).chunks())
        assert opened == []

    @pytest.mark.parametrize("keep", [0, 10, 40, 500, -1])
    def test_broken_off(self, keep: int) -> None:
        """A stream that ends early is a damaged parcel, wherever it ends."""
        data = pack(block()).tobytes()
        with pytest.raises(CorruptParcel):
            collect(len(data), self.pieces(data[:keep]))

    def test_no_more_is_read_than_announced(self) -> None:
        """More bytes than announced are an error, and an endless stream is not read to its end."""
        data = pack(1).tobytes()
        with pytest.raises(CorruptParcel, match="more than the"):
            collect(len(data), [data + b"x"])

        def endless() -> Iterator[bytes]:
            yield data
            raise AssertionError("asked for more")

        assert unpack(collect(len(data), endless())) == 1


class TestCode:
    SCRIPT = """
import sys
from fleche.parcel import pack
def double(x):
    return 2 * x
class Point:
    def __init__(self, x):
        self.x = x
sys.stdout.buffer.write(pack({what}, {serializer!r}).tobytes())
"""

    def packed(self, python: str, what: str, serializer: str = "cloudpickle") -> Parcel:
        code = self.SCRIPT.format(what=what, serializer=serializer)
        done = subprocess.run([python, "-c", code], capture_output=True, check=True)
        return Parcel.from_bytes(done.stdout)

    @pytest.mark.parametrize("serializer", ["cloudpickle", "dill"])
    @pytest.mark.parametrize(
        ("what", "code"),
        [
            ("double", True),
            ("[double]", True),
            ("lambda: 0", True),
            ("double.__code__", True),
            ("Point(1)", True),
            ("len", False),
            ("'_create_code'", False),
            ("b'_create_code' * 9", False),
            ("[1.0, {'_create_code': 1}]", False),
        ],
    )
    def test_code_is_declared(self, serializer: str, what: str, code: bool) -> None:
        """The head says whether there is bytecode, and is not misled by texts.

        A function or class of ``__main__`` is defined beside the stream; in it stand code objects
        alone.
        """
        parcel = self.packed(sys.executable, what, serializer)
        assert (parcel.head.code or parcel.head.definitions is not None) is code
        assert parcel.head.code is (what == "double.__code__")
        unpack(parcel)

    def test_code_of_another_python_is_refused(self, pythons: Any) -> None:
        """Bytecode does not travel between Pythons; the error says what to do. Data does."""
        other = next(version for version in ("3.12", "3.13", "3.10") if version != PYTHON)
        parcel = self.packed(pythons[other], "double")
        with pytest.raises(UnpackError) as caught:
            unpack(parcel)
        assert f"compiled by Python {other}, and this is Python {PYTHON}" in str(caught.value)
        assert "define it in a module that both can import" in str(caught.value)
        value = "{'a': [1, 2.5, (None, b'x')], 3: {4, 5}}"
        assert unpack(self.packed(pythons[other], value)) == {
            "a": [1, 2.5, (None, b"x")],
            3: {4, 5},
        }

    def test_code_is_refused_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same, where no other Python is at hand: this one goes by another version."""
        code = self.packed(sys.executable, "double")
        data = self.packed(sys.executable, "{'a': [1, 2.5, (None, b'x')], 3: {4, 5}}")
        monkeypatch.setattr("fleche.parcel._packing.PYTHON", "3.99")
        with pytest.raises(UnpackError, match=f"compiled by Python {PYTHON}, and this is .* 3.99"):
            unpack(code)
        assert unpack(data) == {"a": [1, 2.5, (None, b"x")], 3: {4, 5}}

    def test_a_missing_module_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A class whose module is not here is an error that says which one."""
        (tmp_path / "elsewhere_only.py").write_text("class Thing:\n    pass\n")
        monkeypatch.syspath_prepend(tmp_path)
        import elsewhere_only  # type: ignore[import-not-found]

        parcel = again(pack(elsewhere_only.Thing(), digest=KEY))
        monkeypatch.undo()
        del sys.modules["elsewhere_only"]
        with pytest.raises(UnpackError) as caught:
            unpack(parcel)
        said = "it needs the module 'elsewhere_only', which cannot be imported here: install it, or"
        assert f"cannot be opened here: {said}" in str(caught.value)
        assert KEY[:12] in str(caught.value)

    def test_an_object_that_refuses(self) -> None:
        """Whatever goes wrong while an object is made is one kind of error, with its cause."""

        class Refusing:
            def __reduce__(self) -> tuple[Any, ...]:
                return int, ("no number",)

        with pytest.raises(UnpackError, match="ValueError: invalid literal") as caught:
            unpack(pack(Refusing()))
        assert isinstance(caught.value.__cause__, ValueError)

    def test_a_serializer_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without dill, the error says how to get it; plain values do not need it."""
        monkeypatch.setitem(sys.modules, "dill", None)
        _pickles._dill_pickler.cache_clear()  # which an earlier test may have made
        with pytest.raises(MissingExtra, match=r"pip install dill"):
            pack([1], "dill")
        assert unpack(pack(1, "dill")) == 1


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.binary(min_size=BUFFER_MIN, max_size=BUFFER_MIN + 100),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=10,
)


@examples(0.3)
@given(
    value=PLAIN,
    serializer=st.sampled_from(["cloudpickle", "pickle", "dill"]),
    compression=st.sampled_from([None, "zlib", "zstd"]),
    keys=st.lists(st.binary(min_size=1), max_size=2),
    owned=st.booleans(),
)
def test_round_trip(
    value: Any, serializer: str, compression: str | None, keys: list[bytes], owned: bool
) -> None:
    """Whatever is packed, and however, comes back equal."""
    parcel = pack(value, serializer, digest=KEY, compression=compression, keys=keys)
    found = Parcel.from_bytes(bytearray(parcel.tobytes()), owned=owned)
    verify(found, digest=KEY, keys=keys)
    assert unpack(found, digest=KEY, keys=keys) == value


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """No bytes whatever do worse than an error in words."""
    for found in (
        data,
        MAGIC + data,
        struct.pack("<8sHHIQ8x", MAGIC, VERSION, 0, 9, 40 + len(data)) + data,
    ):
        with pytest.raises(CorruptParcel):
            Parcel.from_bytes(found)


def forged(head: dict[str, Any], body: bytes = b"", *, total: int | None = None) -> bytes:
    """Return an unsigned parcel whose checksums are right, whatever its head says."""
    encoded = msgspec.msgpack.encode(head)
    start = 32 + len(encoded) + 16
    padding = -start % 64 if body else 0
    size = start + padding + len(body) if total is None else total
    covered = struct.pack("<8sHHIQ8x", MAGIC, VERSION, 0, len(encoded), size) + encoded
    return covered + xxh3_128_digest(covered) + bytes(padding) + body


def uses(data: bytes) -> Iterator[Callable[[], Any]]:
    """Everything that is done with bytes that may be a parcel."""
    yield lambda: unpack(Parcel.from_bytes(data))
    yield lambda: unpack(Parcel.from_bytes(bytearray(data), owned=True))
    yield lambda: verify(Parcel.from_bytes(data))
    yield lambda: read_bytes(Parcel.from_bytes(data), "kind")
    yield lambda: list(IncomingParcel(StreamSource(len(data), [data])).chunks())
    yield lambda: unpack(receive(memoryview(bytearray(data)), [data]))


class TestSizesThatLie:
    """What a head says is not believed: neither obeyed, nor paid for in memory."""

    SIZES = (-(2**63), -5, -1, 0, 1, 3 << 30, 2**63 - 1, 2**63, 2**64 - 1)

    @pytest.fixture
    def little_memory(self) -> Iterator[None]:
        tracemalloc.start()
        yield
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 30_000_000

    @pytest.mark.parametrize("serializer", ["buffer", "pickle", "kind"])
    @pytest.mark.parametrize("codec", ["", "zlib", "zstd"])
    @pytest.mark.parametrize("size", SIZES)
    def test_the_size_of_the_content(
        self, serializer: str, codec: str, size: int, little_memory: None
    ) -> None:
        """It is damage, and nothing else, wherever it is met."""
        content = pickle.dumps("x" * 1000)
        stored = compressed(codec, content)
        section = [size, len(stored), codec, xxh3_128_digest(stored)]
        head = {"serializer": serializer, "digest": blake3(content).hexdigest(), "stream": section}
        data = forged(head, stored)
        for use in uses(data):
            with pytest.raises((CorruptParcel, UnpackError)) as caught:
                use()
            assert caught.type is CorruptParcel or serializer != "pickle"  # of another kind

    @pytest.mark.parametrize("stored", SIZES)
    def test_the_size_of_what_is_stored(self, stored: int, little_memory: None) -> None:
        for codec in ("", "zlib"):
            for size in (stored, 10):
                section = [size, stored, codec, bytes(16)]
                for total in (None, min(max(stored, 0), 2**64 - 1)):
                    data = forged({"serializer": "pickle", "stream": section}, total=total)
                    with pytest.raises(CorruptParcel):
                        unpack(Parcel.from_bytes(data))

    @pytest.mark.parametrize("size", SIZES)
    def test_the_size_of_a_shared_buffer(self, size: int, little_memory: None) -> None:
        """A reference that lies about it does not get the buffer."""
        content = bytes(100_000)
        name = blake3(content).digest()
        stream = pickle.dumps(1)
        head = {
            "serializer": "pickle",
            "variant": xxh3_128_digest(stream),
            "stream": [len(stream), len(stream), "", xxh3_128_digest(stream)],
            "buffers": [[size, 0, "", name, False]],
        }
        held = {Digest(name.hex()): pack_buffer(content, name.hex())}
        with pytest.raises(CorruptParcel):
            unpack(Parcel.from_bytes(forged(head, stream)), buffers=held)

    @pytest.mark.parametrize("codec", swept(["zlib", "zstd"], lambda codec: codec == "zlib"))
    def test_a_bomb_that_tells_its_size(self, codec: str, little_memory: None) -> None:
        """verify() and an upload look into it in small pieces."""
        size = 100_000_000
        stored = compressed(codec, bytes(size))
        assert len(stored) < 1_000_000
        digest_of_zeros = blake3(bytes(size)).hexdigest()
        tracemalloc.reset_peak()
        section = [size, len(stored), codec, xxh3_128_digest(stored)]
        for name in (digest_of_zeros, KEY):
            data = forged({"serializer": "buffer", "digest": name, "stream": section}, stored)
            for use in list(uses(data))[2:6:2]:
                if name == KEY:
                    with pytest.raises(CorruptParcel, match="not that of the buffer"):
                        use()
                else:
                    use()

    def test_a_window_that_lies(self) -> None:
        """A few bytes of zstd may not ask for gigabytes of history."""
        stored = bytes.fromhex("28b52ffd") + b"\x00" + b"\xa8" + b"\x01\x00\x00"  # 2 GiB
        section = [1 << 20, len(stored), "zstd", xxh3_128_digest(stored)]
        data = forged({"serializer": "buffer", "digest": KEY, "stream": section}, stored)
        with pytest.raises(CorruptParcel, match="damaged"):
            verify(Parcel.from_bytes(data))

    def test_a_head_that_is_too_long(self) -> None:
        """No head of a value needs megabytes."""
        section = [0, 0, "", xxh3_128_digest(b"")]
        data = forged({"serializer": "x" * (5 << 20), "stream": section})
        with pytest.raises(CorruptParcel):
            Parcel.from_bytes(data)

    def test_the_most_buffers(self) -> None:
        """However many buffers a value has, its head stays within that bound."""
        many = [Block(bytes(BUFFER_MIN)) for _ in range(40)]
        assert len(pack(many).head.buffers) == 40
        assert 32_768 * len(msgspec.msgpack.encode(pack(many).head.buffers[0])) < 4 << 20


def compressed(codec: str, content: bytes) -> bytes:
    if codec == "zlib":
        return zlib.compress(content)
    if codec == "zstd":
        packed: bytes = zstd_module().compress(content)
        return packed
    return content


NUMBERS = st.sampled_from(TestSizesThatLie.SIZES) | st.integers(-10, 200)
SECTIONS = st.tuples(
    NUMBERS,
    NUMBERS,
    st.sampled_from(["", "zlib", "zstd", "lzma"]),
    st.binary(max_size=40) | st.just(bytes(16)) | st.just(bytes(32)),
    st.booleans(),
)
HEADS = st.fixed_dictionaries(
    {"serializer": st.sampled_from(["pickle", "buffer", "dill", "kind"]), "stream": SECTIONS},
    optional={
        "digest": st.sampled_from(["", KEY]),
        "variant": st.binary(max_size=20),
        "buffers": st.lists(SECTIONS, max_size=3),
        "definitions": SECTIONS,
        "classes": st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=2),
        "python": st.text(max_size=4),
    },
)


@given(HEADS, st.binary(max_size=200), st.none() | NUMBERS.filter(lambda n: 0 <= n < 2**64))
def test_any_head(head: dict[str, Any], body: bytes, total: int | None) -> None:
    """A head that is sound by its checksum, and nonsense, is damage: whatever it says."""
    for use in uses(forged(head, body, total=total)):
        with suppress(CorruptParcel, UnpackError):
            use()


@given(
    st.sampled_from([None, "zlib", "zstd"]),
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=4)), min_size=1, max_size=3),
    st.integers(0, 10**6),
    st.booleans(),
)
def test_any_damage(
    compression: str | None, changes: list[tuple[int, bytes]], length: int, cut: bool
) -> None:
    """Bytes are changed, cut out and put in; what is opened all the same is the value itself."""
    value = ["text" * 50, {"a": 1}, Block(bytes(70_000))]
    data = bytearray(pack(value, digest=KEY, compression=compression).tobytes())
    for position, new in changes:
        position %= len(data)
        data[position : position + len(new)] = new
    if cut:
        del data[length % len(data) :]
    for use in uses(bytes(data)):
        with suppress(CorruptParcel):
            found = use()
            if isinstance(found, list) and len(found) == 3 and isinstance(found[2], Block):
                assert found[:2] == value[:2]
                assert found[2].data == bytes(70_000)


@pytest.mark.slow
def test_the_fuzzer(tmp_path: Path) -> None:
    """`scripts/fuzz` finds nothing in its first inputs, which are sound parcels and entries."""
    pytest.importorskip("atheris")
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "scripts.fuzzing", "3", str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Done" in done.stderr
    assert not list(tmp_path.glob("failed-*"))
    for wrong in ("soon", "-1"):
        told = subprocess.run(
            [sys.executable, "-m", "scripts.fuzzing", wrong],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "usage: scripts/fuzz" in told.stderr
