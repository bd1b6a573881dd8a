r"""The plain door: trees of Python's plain data, encoded by CPython's own C.

A *tree of plain data* consists of ``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``,
``list``, ``tuple`` and ``dict``, of exactly these types. Its encoding is what the C pickler writes
at protocol 3 with ``fast = True``, that is without memo, so that sharing leaves no trace. An object
of any other type stands in it as a call of :class:`PlainMarker`, a global that plain data cannot
contain, with the token of the object as argument. The format::

    tree    = 0x80 0x03 value "."
    value   = "N" | 0x88 (True) | 0x89 (False) | integer | "G" binary64, big endian
            | "X" length4 utf-8 | 0x8d length8 utf-8          (lone surrogates pass; 8 from 2^32 on)
            | "C" length1 bytes | "B" length4 bytes | 0x8e length8 bytes
            | "]" items | "}" entries | tuple | other
    integer = "K" byte1 | "M" byte2 | "J" signed4 | 0x8a length1 signed | 0x8b length4 signed
    items   = ""  | value "a"                                 (one item)
            | ("(" value * "e") *                             (batches of 1000)
    entries = "" | value value "s"                            (one entry)
            | ("(" (value value) * "u") *                     (batches of 1000; where the number of
                                                               entries is 1000 k, an empty last one)
    tuple   = ")" | value 0x85 | value value 0x86 | value value value 0x87 | "(" value * "t"
    other   = "cfleche.digest\\nPlainMarker\\n" token 0x85 "R"     (the token as a value of bytes)

Lengths and integers are little endian and as short as they can be. The encoder in this module that
is written in Python writes the same bytes. It serves where C cannot: beyond the depth that the
C stack allows, for text so long that C would keep a second form of it, for items over 4 GiB, and to
find the path to an object without a digest.

Three things keep a tree from the door, and each is a property of the value alone: a ``set``,
``frozenset`` or ``bytearray`` among the plain data (C writes them by their classes, in hash order),
more than :data:`MOST_NODES` nodes when the tree is unfolded (the cost of the walk is that of the
graph instead), and a cycle.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator
from functools import partial
from itertools import chain, repeat
from typing import Any

from fleche.digest._registry import item_step, key_step
from fleche.digest._tokens import PARALLEL, PLAIN_KEY, Hasher, feed, hash_threads
from fleche.errors import Indigestible

try:
    from _pickle import Pickler, dumps
except ImportError:  # an interpreter without the accelerator
    Pickler = None  # type: ignore[assignment,misc]

__all__ = [
    "CONTAINERS",
    "MOST_NODES",
    "SCALARS",
    "ChangedError",
    "Cyclic",
    "Encoder",
    "Refused",
    "Sink",
    "Undecided",
    "encode_by_c",
    "hash_scalar",
    "hash_small",
    "hex_of_scalar",
]

CONTAINERS = frozenset([list, tuple, dict])
UNHASHED = frozenset([set, frozenset, bytearray])
MOST_NODES = 10_000_000
"""The most nodes that an unfolded tree may have; another object counts as four."""

MARKER_NODES = 4  # the object, the marker, its arguments, the token
BATCH = 1000
LONG_TEXT = 16 * 1024 * 1024
SMALL = 6
WORTH_KEEPING = 256  # bytes of an encoding that is not made a second time
FIRST_LOOK = 10_000
STRIDE = 100_000  # nodes that C reads within some 5 ms, after which Python may handle a signal

HEADER = b"\x80\x03"
OPEN_MARKER = b"cfleche.digest\nPlainMarker\n"


class PlainMarker:
    """Stands for another object in a tree of plain data; ``__module__`` is part of the format."""


PlainMarker.__module__ = "fleche.digest"


class Refused(Exception):
    """The tree does not go through the door."""


class Undecided(Exception):
    """C cannot encode the tree, which says nothing about the tree."""


class ChangedError(Indigestible):
    """A container was changed while it was read."""


class Cyclic(Exception):
    """A value contains itself."""


class Sink:
    """Takes the encoding piece by piece, and hashes it."""

    __slots__ = ("hasher", "last", "nbytes", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.nbytes = 0
        self.last = b""
        self.hasher: Hasher | None = None

    def write(self, data: bytes) -> None:
        """Take what C writes; a text that is longer than it should read is left undecided."""
        if len(data) > LONG_TEXT and self.last == b"X" + struct.pack("<I", len(data)):
            raise Undecided
        self.last = data[-5:]
        self.put(data)

    def put(self, data: bytes) -> None:
        self.pieces.append(data)
        self.nbytes += len(data)
        if self.nbytes >= PARALLEL:
            self.flush()

    def flush(self) -> None:
        if self.hasher is None:
            self.hasher = Hasher(key=PLAIN_KEY, max_threads=hash_threads(self.nbytes))
        pieces, self.pieces = self.pieces, []
        for piece in pieces if len(pieces) < 16 else [b"".join(pieces)]:
            feed(self.hasher, piece)
        self.nbytes = 0

    def digest(self) -> bytes:
        if self.hasher is None:
            return Hasher(b"".join(self.pieces), key=PLAIN_KEY).digest()
        self.flush()
        return self.hasher.digest()


if Pickler is not None:

    class Door(Pickler):
        """The C pickler, which asks for the token of whatever is not plain."""

        def __init__(self, sink: Sink, resolve: Callable[[Any], bytes]) -> None:
            super().__init__(sink, 3)
            self.resolve = resolve

        def reducer_override(self, obj: Any) -> Any:
            if obj is PlainMarker:
                return NotImplemented
            if obj is set or obj is frozenset or obj is bytearray:
                raise Refused
            return (PlainMarker, (self.resolve(obj),))


SHORTENED: dict[type, tuple[int, ...]] = {list: (1,), dict: (0, 1)}
"""What is left over in the last batch of those that Python 3.15 ends otherwise."""

ENDS_AS_TOLD = Pickler is None or dumps([None] * (BATCH + 1), 3).endswith(b"(Ne.")
"""Whether C ends them as the format says; from Python 3.15 on it saves some bytes."""


def ends_otherwise(obj: Any) -> bool:
    """Whether this is a list or dict whose end C may not write as the format says."""
    rest = SHORTENED.get(type(obj))
    return rest is not None and len(obj) >= BATCH and len(obj) % BATCH in rest


def draw_unless_long(draw: Callable[[Any], None], obj: Any) -> None:
    """Draw a node, unless C ends it otherwise.

    Raises:
        Undecided: it does.
    """
    if ends_otherwise(obj):
        raise Undecided
    draw(obj)


def encode_by_c(root: Any, resolve: Callable[[Any], bytes]) -> tuple[bytes, bool]:
    """Return the hash of a tree of plain data, and whether it took long enough to be remembered.

    Args:
        root: a list, tuple or dict.
        resolve: returns the token of an object that is not plain data. What it raises is raised.

    Raises:
        Refused: the tree does not go through the door.
        Undecided: the tree has to be encoded in Python.
        ChangedError: a container was changed while it was read.
    """
    if Pickler is None:
        raise Undecided
    sink = Sink()
    door = Door(sink, resolve)
    door.fast = True
    draw = partial(next, chain.from_iterable(count_nodes(root)))
    door.persistent_id = draw if ENDS_AS_TOLD else partial(draw_unless_long, draw)  # type: ignore[method-assign]
    try:
        door.dump(root)
    except RecursionError:
        raise Undecided from None
    except RuntimeError as error:  # "dictionary changed size during iteration"
        raise ChangedError(f"it was changed while it was read ({error})") from error
    except (ValueError, OverflowError, MemoryError):  # a cycle, or an item over 4 GiB
        raise Undecided from None
    return sink.digest(), sink.hasher is not None or sink.nbytes > WORTH_KEEPING


def count_nodes(root: Any) -> Iterator[Iterator[None]]:
    """Yield allowances of nodes, each of which C draws one by one as it reads.

    Between them Python's own code runs, so that signals are handled and other threads get a turn.
    A tree that turns out to be large because its parts are shared is counted at once.

    Raises:
        Refused: there are more than :data:`MOST_NODES`.
    """
    read = min(FIRST_LOOK, MOST_NODES)
    yield repeat(None, read)
    look = FIRST_LOOK
    while read < MOST_NODES:
        if read >= look:
            if (nodes := count_shared(root, read // 10)) is not None and nodes > MOST_NODES:
                raise Refused
            look = read * 4
        step = min(STRIDE, MOST_NODES - read)
        read += step
        yield repeat(None, step)
    raise Refused


def count_shared(root: Any, most: int) -> int | None:
    """Return the number of nodes of an unfolded tree, or None if it has more than ``most`` parts.

    A tree in a cycle is left to the encoder: None as well.
    """
    counts: dict[int, int] = {}
    opened: set[int] = set()
    seen = 0
    pending = [root]
    while pending:
        obj = pending[-1]
        if id(obj) in counts:
            pending.pop()
            continue
        parts = children_of(obj)
        inner = [part for part in parts if type(part) in CONTAINERS]
        missing = [part for part in inner if id(part) not in counts]
        if missing:
            if id(obj) in opened:
                return None
            seen += len(parts)
            if seen > most:
                return None
            opened.add(id(obj))
            pending += missing
            continue
        if id(obj) not in opened:
            seen += len(parts)
            if seen > most:
                return None
        total = 1 + sum(counts[id(part)] for part in inner)
        for part in parts:
            if type(part) not in CONTAINERS:
                total += 1 if type(part) in SCALARS else MARKER_NODES
        counts[id(obj)] = total
        pending.pop()
    return counts[id(root)]


def children_of(container: Any) -> Any:
    """Return the parts of a container in their order, keys and values of a dict in turn.

    Raises:
        ChangedError: a dict was changed by another thread meanwhile.
    """
    if type(container) is not dict:
        return container
    try:
        return [part for item in container.items() for part in item]
    except RuntimeError as error:
        raise ChangedError(f"it was changed while it was read ({error})") from error


def encode_int(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + value.to_bytes(1, "little")
    if 0 <= value < 65536:
        return b"M" + value.to_bytes(2, "little")
    if -0x80000000 <= value < 0x80000000:
        return b"J" + value.to_bytes(4, "little", signed=True)
    nbytes = ((~value if value < 0 else value).bit_length() >> 3) + 1
    if nbytes < 256:
        return b"\x8a" + bytes([nbytes]) + value.to_bytes(nbytes, "little", signed=True)
    if nbytes > 0x7FFFFFFF:
        raise Indigestible("it is an integer of more than 2 GiB")
    return b"\x8b" + nbytes.to_bytes(4, "little") + value.to_bytes(nbytes, "little", signed=True)


encode_float: Callable[[float], bytes] = partial(struct.Struct(">cd").pack, b"G")


def encode_text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return text_header(len(raw)) + raw


def text_header(nbytes: int) -> bytes:
    if nbytes <= 0xFFFFFFFF:
        return b"X" + nbytes.to_bytes(4, "little")
    return b"\x8d" + nbytes.to_bytes(8, "little")


def bytes_header(nbytes: int) -> bytes:
    if nbytes < 256:
        return b"C" + nbytes.to_bytes(1, "little")
    if nbytes <= 0xFFFFFFFF:
        return b"B" + nbytes.to_bytes(4, "little")
    return b"\x8e" + nbytes.to_bytes(8, "little")


def encode_bytes(value: bytes) -> bytes:
    return bytes_header(len(value)) + value


SCALARS: dict[type, Callable[[Any], bytes]] = {
    type(None): {None: b"N"}.__getitem__,
    bool: {True: b"\x88", False: b"\x89"}.__getitem__,
    int: encode_int,
    float: encode_float,
    str: encode_text,
    bytes: encode_bytes,
}
"""The types of plain data that contain nothing, with their encodings."""
LENGTHY = (encode_text, encode_bytes)


def hash_scalar(value: Any) -> bytes:
    """Return the hash of a tree that consists of one scalar."""
    encode = SCALARS[type(value)]
    if encode not in LENGTHY or len(value) <= PARALLEL:
        return Hasher(HEADER + encode(value) + b".", key=PLAIN_KEY).digest()
    return hash_long(value)


def hex_of_scalar(value: Any) -> str:
    """Return the same in hexadecimal characters."""
    encode = SCALARS[type(value)]
    if encode not in LENGTHY or len(value) <= PARALLEL:
        return Hasher(HEADER + encode(value) + b".", key=PLAIN_KEY).hexdigest()
    return hash_long(value).hex()


def hash_long(value: Any) -> bytes:
    """Return the hash of a long text or of many bytes."""
    sink = Sink()
    sink.put(HEADER)
    put_scalar(value, sink)
    sink.put(b".")
    return sink.digest()


def put_scalar(value: Any, sink: Sink) -> None:
    """Write a scalar, without a second copy of a long text or of many bytes."""
    kind = type(value)
    if (kind is not str and kind is not bytes) or len(value) <= PARALLEL:
        sink.put(SCALARS[kind](value))
        return
    if kind is bytes:
        sink.put(bytes_header(len(value)))
        sink.put(value)
    else:
        put_text(value, sink)


def put_text(text: str, sink: Sink) -> None:
    """Write a long text by pieces."""
    parts = range(0, len(text), PARALLEL)

    def encoded(start: int) -> bytes:
        return text[start : start + PARALLEL].encode("utf-8", "surrogatepass")

    nbytes = len(text) if text.isascii() else sum(len(encoded(start)) for start in parts)
    sink.put(text_header(nbytes))
    for start in parts:
        sink.put(encoded(start))


def hash_small(container: Any) -> bytes | None:
    """Return the hash of a container of a few scalars; None if it is anything else.

    It costs a third of what it takes to set C to work.
    """
    parts = children_of(container) if len(container) <= SMALL else None
    if parts is None:
        return None
    encoded: list[bytes] = []
    for part in parts:
        encode = SCALARS.get(type(part))
        if encode is None or (encode in LENGTHY and len(part) > PARALLEL):
            return None
        encoded.append(encode(part))
    level = Level(container)
    batch = b"(" if level.stride else b""
    raw = b"".join((HEADER, level.open(), batch, *encoded, level.close, b"."))
    return Hasher(raw, key=PLAIN_KEY).digest()


class Level:
    """A container that is being encoded."""

    __slots__ = ("children", "close", "count", "obj", "position", "stride")

    def __init__(self, obj: Any) -> None:
        kind = type(obj)
        self.obj = obj
        self.children = children_of(obj)
        self.count = count = len(self.children)
        self.position = 0
        self.stride = 0  # children from one batch to the next, if there are batches
        if kind is tuple:
            self.close = (b")", b"\x85", b"\x86", b"\x87")[count] if count < 4 else b"t"
        elif kind is list:
            self.close = (b"", b"a")[count] if count < 2 else b"e"
            self.stride = BATCH if count > 1 else 0
        else:
            self.close = b"" if count == 0 else b"s" if count == 2 else b"u"
            self.stride = 2 * BATCH if count > 2 else 0
            if count and count % (2 * BATCH) == 0:
                self.close = b"u(u"

    def open(self) -> bytes:
        if type(self.obj) is tuple:
            return b"(" if self.count > 3 else b""
        return b"]" if type(self.obj) is list else b"}"

    def next_batch(self) -> bytes:
        """Return what stands between two batches, or before the first."""
        return b"(" if self.position == 0 else self.close[:1] + b"("

    def next_child(self) -> Any:
        try:
            child = self.children[self.position]
        except IndexError:
            check_unchanged(self)
            raise
        self.position += 1
        return child

    def step(self) -> str:
        """Name the child that is being encoded."""
        index = self.position - 1
        return (key_step if type(self.obj) is dict else item_step)(self.children, index)


class Encoder:
    """Encodes one tree in Python, without recursion.

    :meth:`run` yields each object that is not plain data, and is sent its token. At the end it
    returns the hash of the tree.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self.levels: list[Level] = []

    def path(self) -> str:
        """Name the object that has been yielded last."""
        return "".join(level.step() for level in self.levels)

    def run(self, sink: Sink | None = None) -> Generator[Any, bytes, bytes]:
        """Encode the tree, and hash it unless another sink is given.

        Raises:
            Refused: the tree does not go through the door.
            Cyclic: the tree contains itself by its plain data alone.
            ChangedError: a container was changed while it was read.
        """
        sink = sink or Sink()
        put = sink.put
        put(HEADER)
        levels = self.levels
        opened: set[int] = set()
        nodes = 1
        look = FIRST_LOOK
        level = self.enter(self.root, put, opened)
        while True:
            if nodes > look:
                self.check_size(nodes)
                look = min(look * 4, MOST_NODES)
            position = level.position
            if position == level.count:
                check_unchanged(level)
                put(level.close)
                opened.discard(id(level.obj))
                levels.pop()
                if not levels:
                    break
                level = levels[-1]
                continue
            if level.stride and position % level.stride == 0:
                put(level.next_batch())
            child = level.next_child()
            kind = type(child)
            if kind in SCALARS:
                nodes += 1
                put_scalar(child, sink)
            elif kind in CONTAINERS:
                nodes += 1
                level = self.enter(child, put, opened)
            else:
                nodes += MARKER_NODES
                if kind in UNHASHED or (kind is type and child in UNHASHED):
                    raise Refused
                token = yield child
                put(OPEN_MARKER + encode_bytes(token) + b"\x85R")
        if nodes > MOST_NODES:
            raise Refused
        put(b".")
        return sink.digest()

    def check_size(self, nodes: int) -> None:
        """Refuse a tree that has, or would have when unfolded, too many nodes.

        Raises:
            Refused: it has.
        """
        if nodes <= MOST_NODES:
            nodes = count_shared(self.root, nodes // 10) or 0
        if nodes > MOST_NODES:
            raise Refused

    def enter(self, obj: Any, put: Callable[[bytes], None], opened: set[int]) -> Level:
        if id(obj) in opened:
            raise Cyclic
        opened.add(id(obj))
        level = Level(obj)
        self.levels.append(level)
        put(level.open())
        return level


def check_unchanged(level: Level) -> None:
    """Refuse a container that has been changed while it was read.

    Raises:
        ChangedError: it has.
    """
    now = len(level.obj) * (2 if type(level.obj) is dict else 1)
    if now != level.count:
        raise ChangedError("it was changed while it was read")
