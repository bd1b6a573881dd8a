"""The walk: from an object to its token, without recursion.

A tree of plain data goes through the door of :mod:`fleche.digest._plain`. Every other object is
described by its handler (see :mod:`fleche.digest._registry`). Leaves give their tokens; nodes are
put on a stack of this module's own, so depth is bounded by memory rather than by the interpreter,
and their hash is made when the last child has a token. The children of a node are roots of the door
in turn; a tree that the door has refused is a node, and so are the containers inside it, down to
the next object. An object that is met again costs one look-up, and gets the same token as an equal
one: sharing leaves no trace in a digest.

C asks for the token of an object in the middle of a tree. It is then evaluated on the spot, within
a few levels; deeper ones go by the encoder in Python, which shares the stack.

An object that contains itself is left to :mod:`fleche.digest._graph`.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter, methodcaller
from typing import Any

from fleche.digest._builtin import Attributes, describe_attributes
from fleche.digest._graph import token_of_cyclic
from fleche.digest._names import is_made_up
from fleche.digest._plain import (
    CONTAINERS,
    SCALARS,
    ChangedError,
    Cyclic,
    Encoder,
    Refused,
    Undecided,
    encode_by_c,
    hash_scalar,
    hash_small,
)
from fleche.digest._registry import (
    LEAVES,
    Handler,
    Node,
    describe_type,
    find_handler,
    is_unfamiliar,
)
from fleche.digest._tokens import (
    BIG,
    DEEPEST,
    ORDERED,
    PARALLEL,
    UNORDERED_KEY,
    WALK_KEY,
    BufferDigests,
    Hasher,
    big_token,
    buffer_digest,
    bytes_token,
    feed,
    global_token,
    hash_node,
    hash_threads,
    node_token,
    open_node,
    plain_token,
)
from fleche.errors import Indigestible

__all__ = ["Walk", "token_of_scalar"]

BATCH = 4096
OPEN = b""
REFUSED = b"refused"
NESTED = 8
FEW = 32
STDLIB = sys.stdlib_module_names - {"__main__"}
GETTERS = (attrgetter, methodcaller)
NOTED = (type, types.FunctionType, types.ModuleType, *GETTERS)
"""What says only by its name what it does, or what is done by its means."""


class Frame:
    """A node whose children are being encoded."""

    __slots__ = (
        "children",
        "flushed",
        "hasher",
        "key",
        "kind",
        "label",
        "obj",
        "pending",
        "plain",
        "step",
        "tokens",
    )

    def __init__(self, obj: object, described: Node, key: bytes, *, plain: bool) -> None:
        self.obj = obj
        self.kind, self.label, self.children, self.step = described
        self.key = key
        self.plain = plain
        self.pending: Iterator[Any] = iter(self.children)
        self.tokens: list[bytes] = []
        self.flushed = 0
        self.hasher: Hasher | None = None

    def advance(self, walk: Walk) -> bool:
        """Encode children up to the next node, and enter it; return False when none is left."""
        tokens = self.tokens
        while True:
            before = len(tokens)
            for child in islice(self.pending, BATCH):
                leaf = LEAVES.get(type(child))
                token = leaf(child) if leaf is not None else walk.enter(child, plain=self.plain)
                if token is None:
                    return True
                tokens.append(token)
            if len(tokens) - before < BATCH:
                return False
            self.flush()

    def receive(self, token: bytes) -> None:
        """Take the token of the node that was entered."""
        self.tokens.append(token)

    def flush(self) -> None:
        """Feed what there is to the hasher, so that a long list needs no second list of tokens."""
        if self.kind != ORDERED:
            return
        if self.hasher is None:
            self.hasher = Hasher(open_node(self.kind, self.label), key=self.key)
        self.hasher.update(b"".join(self.tokens))
        self.flushed += len(self.tokens)
        self.tokens.clear()

    def finish(self, walk: Walk) -> bytes:
        """Return the token of the node, all of whose children have theirs."""
        if self.hasher is None:
            token = node_token(hash_node(self.kind, self.label, self.tokens, self.key))
        else:
            self.flush()
            token = node_token(self.hasher.digest())
        walk.tokens[id(self.obj)] = token
        walk.kept.append(self.obj)
        return token

    def abandon(self, walk: Walk) -> None:
        """Forget that the node was entered."""
        walk.tokens.pop(id(self.obj), None)

    def locate(self) -> str:
        """Name the child that is being encoded."""
        return self.step(self.children, self.flushed + len(self.tokens))


class PlainFrame:
    """A tree of plain data that is being encoded in Python."""

    __slots__ = ("encoder", "obj", "result", "running", "token")

    def __init__(self, obj: object) -> None:
        self.obj = obj
        self.encoder = Encoder(obj)
        self.running = self.encoder.run()
        self.token: bytes | None = None
        self.result = OPEN

    def advance(self, walk: Walk) -> bool:
        """Encode up to the next object that has to be entered; return False at the end."""
        try:
            while True:
                child = self.running.send(self.token)  # type: ignore[arg-type]
                self.token = walk.enter(child)
                if self.token is None:
                    return True
        except StopIteration as end:
            self.result = end.value
            return False

    def receive(self, token: bytes) -> None:
        """Take the token of the object that was entered."""
        self.token = token

    def finish(self, walk: Walk) -> bytes:
        """Return the token of the tree."""
        token = plain_token(self.result)
        walk.doors[id(self.obj)] = token
        walk.kept.append(self.obj)
        return token

    def abandon(self, walk: Walk) -> None:
        """Forget that the tree was entered."""
        self.running.close()
        walk.doors.pop(id(self.obj), None)

    def locate(self) -> str:
        """Name the object that is being encoded."""
        return self.encoder.path()


def token_of_scalar(obj: object, name: str) -> bytes:
    """Return the token of a tree of plain data that consists of one scalar.

    Raises:
        Indigestible: it is an integer of more than 2 GiB.
    """
    try:
        return plain_token(hash_scalar(obj))
    except Indigestible as error:
        raise Indigestible(f"{name}: {error}") from None


class Walk:
    """One walk over one value; handlers use it to hash buffers.

    Args:
        buffers: where to note what is found out on the way, for the packing that comes next.
        unordered: whether the order of dicts, and of what is built on them, does not count.
    """

    def __init__(self, buffers: BufferDigests | None = None, *, unordered: bool = False) -> None:
        self.buffers = buffers
        self.unordered = unordered
        self.key = UNORDERED_KEY if unordered else WALK_KEY
        self.frames: list[Frame | PlainFrame] = []
        self.tokens: dict[int, bytes] = {}
        self.doors: dict[int, bytes] = {}
        self.kept: list[object] = []
        self.nesting = 0
        self.careful = False

    def token(self, obj: object, name: str = "object") -> bytes:
        """Return the token of ``obj``.

        Raises:
            Indigestible: naming the path from ``name`` to the part that has no digest.
        """
        if type(obj) in SCALARS and not self.unordered:
            return token_of_scalar(obj, name)
        try:
            return self.root_token(obj)
        except Cyclic:
            self.unwind(0)
            return token_of_cyclic(obj, self, name)
        except ChangedError as error:
            self.unwind(0)
            raise Indigestible(f"{name}: {error}") from error
        except Indigestible:
            self.unwind(0)
        return self.token_with_path(obj, name)

    def token_with_path(self, obj: object, name: str) -> bytes:
        """Do the same in Python alone, where the path to an offending part is known."""
        self.careful = True
        try:
            return self.root_token(obj)
        except Cyclic:
            self.unwind(0)
            return token_of_cyclic(obj, self, name)
        except Indigestible as error:
            path = name + "".join(frame.locate() for frame in self.frames)
            raise Indigestible(f"{path}: {error}") from error.__cause__
        finally:
            self.careful = False
            self.unwind(0)

    def root_token(self, obj: object) -> bytes:
        """Return the token of an object that is no part of a node."""
        leaf = LEAVES.get(type(obj))
        if leaf is not None:
            try:
                return leaf(obj)
            except (ValueError, OverflowError) as error:
                raise Indigestible(str(error)) from error
        token = self.enter(obj)
        return token if token is not None else self.finish_entered(len(self.frames) - 1)

    def finish_entered(self, level: int) -> bytes:
        """Return the token of the node on the given level of the stack."""
        frames = self.frames
        while True:
            frame = frames[-1]
            try:
                if frame.advance(self):
                    continue
            except Refused:
                frames.pop()
                token = self.enter_refused(frame.obj)
                if token is None:
                    continue
            except (ValueError, OverflowError) as error:
                raise Indigestible(str(error)) from error
            else:
                token = frame.finish(self)
                frames.pop()
            if len(frames) == level:
                return token
            frames[-1].receive(token)

    def unwind(self, level: int) -> None:
        """Leave the nodes that were entered above a level."""
        while len(self.frames) > level:
            self.frames.pop().abandon(self)

    def enter(self, obj: Any, *, plain: bool = False) -> bytes | None:
        """Return the token of an object if it can be had at once, or open a frame for it.

        Args:
            obj: the object.
            plain: whether it stands in a tree of plain data that the door has refused.

        Raises:
            Cyclic: the object is open already.
        """
        if not plain and not self.unordered and type(obj) in CONTAINERS:
            return self.enter_door(obj)
        token = self.tokens.get(id(obj))
        if token is not None:
            if token is OPEN:
                raise Cyclic
            return token
        described = self.describe(obj)
        if isinstance(described, bytes):
            return described
        if not plain and (token := self.token_at_once(obj, described)):
            return token
        self.open(obj, described)
        return None

    def token_at_once(self, obj: Any, described: Node) -> bytes | None:
        """Return the token of a node all of whose children have theirs at hand, else None."""
        if self.careful or self.unordered:
            return None
        try:
            tokens = self.tokens_at_once(described[2])
        except (ValueError, OverflowError):
            return None
        if tokens is None:
            return None
        token = node_token(hash_node(described[0], described[1], tokens, self.key))
        self.tokens[id(obj)] = token
        self.kept.append(obj)
        return token

    def tokens_at_once(self, children: Sequence[Any]) -> list[bytes] | None:
        if len(children) > FEW:
            return None
        tokens: list[bytes] = []
        for child in children:
            kind = type(child)
            token: bytes | None
            if (leaf := LEAVES.get(kind)) is not None:
                token = leaf(child)
            elif kind in CONTAINERS:
                hashed = hash_small(child)
                token = None if hashed is None else plain_token(hashed)
            elif kind is Attributes:
                described = describe_attributes(child, self)
                inner = self.tokens_at_once(described[2])
                token = node_token(hash_node(*described[:2], inner)) if inner is not None else None
            else:
                token = self.tokens.get(id(child))
            if not token:
                return None
            tokens.append(token)
        return tokens

    def open(self, obj: Any, described: Node) -> None:
        """Open a frame for a node."""
        self.check_depth()
        self.tokens[id(obj)] = OPEN
        self.frames.append(Frame(obj, described, self.key, plain=type(obj) in CONTAINERS))

    def check_depth(self) -> None:
        """Refuse to go on without end.

        Raises:
            Indigestible: the stack is too long.
        """
        if len(self.frames) >= DEEPEST:
            raise Indigestible(f"it is nested more than {DEEPEST} levels deep, or without end")

    def enter_door(self, obj: Any) -> bytes | None:
        """Return the token of a tree of plain data, or open a frame for it."""
        known = self.doors.get(id(obj))
        if known is REFUSED:
            return self.enter(obj, plain=True)
        if known is not None:
            if known is OPEN:
                raise Cyclic
            return known
        if (hashed := hash_small(obj)) is not None:
            return plain_token(hashed)
        self.doors[id(obj)] = OPEN
        if not self.careful:
            try:
                return self.encode_by_c(obj)
            except Refused:
                return self.enter_refused(obj)
            except Undecided:
                self.doors[id(obj)] = OPEN
        self.check_depth()
        self.frames.append(PlainFrame(obj))
        return None

    def encode_by_c(self, obj: Any) -> bytes:
        """Return the token of a tree of plain data; if that fails, nothing has been entered.

        Raises:
            Refused: the tree does not go through the door.
            Undecided: the tree has to be encoded in Python.
        """
        level = len(self.frames)
        self.nesting += 1
        try:
            hashed, is_large = encode_by_c(obj, self.resolve)
        except (Refused, Undecided):
            self.unwind(level)
            raise
        finally:
            self.nesting -= 1
            del self.doors[id(obj)]
        token = plain_token(hashed)
        if is_large:
            self.doors[id(obj)] = token
            self.kept.append(obj)
        return token

    def enter_refused(self, obj: Any) -> bytes | None:
        """Enter a tree that the door has refused."""
        self.doors[id(obj)] = REFUSED
        self.kept.append(obj)
        return self.enter(obj, plain=True)

    def resolve(self, obj: Any) -> bytes:
        """Return the token of an object that C has met in a tree of plain data."""
        leaf = LEAVES.get(type(obj))
        if leaf is not None:
            return leaf(obj)
        token = self.tokens.get(id(obj))
        if token is not None:
            if token is OPEN:
                raise Cyclic
            return token
        described = self.describe(obj)
        if isinstance(described, bytes):
            return described
        if token := self.token_at_once(obj, described):
            return token
        if self.nesting > NESTED:
            raise Undecided
        self.open(obj, described)
        return self.finish_entered(len(self.frames) - 1)

    def describe(self, obj: Any) -> bytes | Node:
        """Ask the handler of the object's type, and translate whatever goes wrong there."""
        cls = type(obj)
        leaf = LEAVES.get(cls)
        if leaf is not None:
            return leaf(obj)
        is_code = isinstance(obj, NOTED)
        if is_code and (token := self.note_code(obj)) is not None:
            return token
        handler: Handler = find_handler(cls)
        if self.buffers is not None and is_unfamiliar(cls):
            self.buffers.unfamiliar.add(cls)
        try:
            described = handler(obj, self)
        except (Indigestible, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, RecursionError) and self.nesting:
                raise  # there is more room on a lower level
            raise Indigestible(
                f"{describe_type(cls)} cannot be taken apart ({type(error).__name__}: {error})"
            ) from error
        if is_code and isinstance(described, bytes):  # the name of a class is not looked for again
            self.tokens[id(obj)] = described
            self.kept.append(obj)
        return described

    def note_code(self, obj: Any) -> bytes | None:
        """Note code on which the value depends, unless it is Python's own.

        Returns:
            What it counts by, if that is not its digest.
        """
        if self.buffers is None:
            return None
        kept = "__name__" if isinstance(obj, types.ModuleType) else "__module__"
        module = getattr(obj, kept, None)
        top = module.partition(".")[0] if isinstance(module, str) else ""
        if top not in STDLIB or isinstance(obj, GETTERS) or is_made_up(obj):
            self.buffers.note_code(obj)
        if self.buffers.code_token is None or (told := self.buffers.code_token(obj)) is None:
            return None
        return global_token("@", told)

    def buffer(self, view: memoryview, owner: object = None, address: int | None = None) -> bytes:
        """Return the token of C-contiguous memory: its bytes, or their BLAKE3 if they are many.

        The digest is noted if the address is known; ``owner`` is then kept, lest another buffer
        be found at the same place.
        """
        if view.nbytes < BIG:
            return bytes_token(view.tobytes())
        if self.buffers is None or address is None:
            found = buffer_digest(view)
        else:
            found = self.buffers.ahead.get((address, view.nbytes)) or buffer_digest(view)
            self.buffers.note(address, view.nbytes, found, owner)
        return big_token(view.nbytes, bytes.fromhex(found))

    def chunks(self, nbytes: int, chunks: Iterable[bytes | memoryview]) -> bytes:
        """Return the token of bytes that come in pieces: the same as if they came in one."""
        if nbytes < BIG:
            return bytes_token(b"".join(chunks))
        hasher = Hasher(max_threads=hash_threads(nbytes) if nbytes >= PARALLEL else 1)
        for chunk in chunks:
            feed(hasher, chunk)
        return big_token(nbytes, hasher.digest())

    def subtoken(self, obj: object) -> bytes:
        """Return the token of a value on a walk of its own, in which order counts."""
        return Walk(self.buffers).token(obj)
