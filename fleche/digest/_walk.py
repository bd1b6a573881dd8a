"""The walk: from an object to its token, without recursion.

Every object is described by its handler (see :mod:`fleche.digest._registry`). Leaves give their
tokens; nodes are put on a stack of this module's own, so depth is bounded by memory rather than by
the interpreter, and their hash is made when the last child has a token. An object that is met again
costs one look-up, and gets the same token as an equal one: sharing leaves no trace in a digest.

An object that contains itself is left to :mod:`fleche.digest._cycles`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from fleche.errors import Indigestible

from ._buffers import BufferDigests
from ._registry import LEAVES, Handler, Node, describe_type, find_handler
from ._tokens import (
    BIG,
    DEEPEST,
    KEY,
    ORDERED,
    Hasher,
    big_token,
    buffer_digest,
    bytes_token,
    hash_node,
    node_token,
    open_node,
)

__all__ = ["Walk"]

BATCH = 4096
OPEN = b""


class Cyclic(Exception):
    """The walk has come back to an object that it has not finished."""


class Frame:
    """A node whose children are being encoded."""

    __slots__ = (
        "children",
        "flushed",
        "hasher",
        "kind",
        "label",
        "obj",
        "pending",
        "step",
        "tokens",
    )

    def __init__(self, obj: object, described: Node) -> None:
        self.obj = obj
        self.kind, self.label, self.children, self.step = described
        self.pending: Iterator[Any] = iter(self.children)
        self.tokens: list[bytes] = []
        self.flushed = 0
        self.hasher: Hasher | None = None

    def flush(self) -> None:
        """Feed what there is to the hasher, so that a long list needs no second list of tokens."""
        if self.kind != ORDERED:
            return
        if self.hasher is None:
            self.hasher = Hasher(open_node(self.kind, self.label), key=KEY)
        self.hasher.update(b"".join(self.tokens))
        self.flushed += len(self.tokens)
        self.tokens.clear()

    def finish(self) -> bytes:
        """Return the token of the node, all of whose children have theirs."""
        if self.hasher is None:
            return node_token(hash_node(self.kind, self.label, self.tokens))
        self.flush()
        return node_token(self.hasher.digest())

    def locate(self) -> str:
        """Name the child that is being encoded."""
        return self.step(self.children, self.flushed + len(self.tokens))


class Walk:
    """One walk over one value; handlers use it to hash buffers.

    Args:
        buffers: where to note the digests of large buffers for whoever packs the value next.
    """

    def __init__(self, buffers: BufferDigests | None = None) -> None:
        self.buffers = buffers
        self.frames: list[Frame] = []
        self.tokens: dict[int, bytes] = {}
        self.kept: list[object] = []

    def token(self, obj: object, name: str = "object") -> bytes:
        """Return the token of ``obj``.

        Raises:
            Indigestible: naming the path from ``name`` to the part that has no digest.
        """
        leaf = LEAVES.get(type(obj))
        try:
            if leaf is not None:
                return leaf(obj)
            return self.run(obj)
        except Cyclic:
            from ._cycles import token_of_cyclic

            return token_of_cyclic(obj, self, name)
        except Indigestible as error:
            path = name + "".join(frame.locate() for frame in self.frames)
            raise Indigestible(f"{path}: {error}") from error.__cause__
        except (ValueError, OverflowError) as error:
            path = name + "".join(frame.locate() for frame in self.frames)
            raise Indigestible(f"{path}: {error}") from error
        finally:
            self.frames.clear()

    def run(self, root: object) -> bytes:
        token = self.enter(root)
        if token is not None:
            return token
        frames = self.frames
        while True:
            frame = frames[-1]
            if self.advance(frame):
                continue
            token = frame.finish()
            self.tokens[id(frame.obj)] = token
            self.kept.append(frame.obj)
            frames.pop()
            if not frames:
                return token
            frames[-1].tokens.append(token)

    def advance(self, frame: Frame) -> bool:
        """Encode children up to the next node, and enter it; return False when none is left."""
        tokens = frame.tokens
        known = self.tokens
        while True:
            before = len(tokens)
            for child in islice(frame.pending, BATCH):
                leaf = LEAVES.get(type(child))
                if leaf is not None:
                    tokens.append(leaf(child))
                    continue
                token = known.get(id(child))
                if token is None:
                    token = self.enter(child)
                    if token is None:
                        return True
                elif token is OPEN:
                    raise Cyclic
                tokens.append(token)
            if len(tokens) - before < BATCH:
                return False
            frame.flush()

    def enter(self, obj: object) -> bytes | None:
        """Return the token of a leaf, or open a frame for a node."""
        described = self.describe(obj)
        if isinstance(described, bytes):
            return described
        if len(self.frames) >= DEEPEST:
            raise Indigestible(f"it is nested more than {DEEPEST} levels deep, or without end")
        self.tokens[id(obj)] = OPEN
        self.frames.append(Frame(obj, described))
        return None

    def describe(self, obj: object) -> bytes | Node:
        """Ask the handler of the object's type, and translate whatever goes wrong there."""
        cls = type(obj)
        leaf = LEAVES.get(cls)
        if leaf is not None:
            return leaf(obj)
        handler: Handler = find_handler(cls)
        try:
            return handler(obj, self)
        except (Indigestible, MemoryError):
            raise
        except Exception as error:
            raise Indigestible(
                f"{describe_type(cls)} cannot be taken apart ({type(error).__name__}: {error})"
            ) from error

    def buffer(self, view: memoryview, owner: object = None, address: int | None = None) -> bytes:
        """Return the token of C-contiguous memory: its bytes, or their BLAKE3 if they are many.

        The digest is noted if the address is known; ``owner`` is then kept, lest another buffer
        be found at the same place.
        """
        if view.nbytes < BIG:
            return bytes_token(view.tobytes())
        found = buffer_digest(view)
        if self.buffers is not None and address is not None:
            self.buffers.note(address, view.nbytes, found, owner)
        return big_token(view.nbytes, bytes.fromhex(found))

    def chunks(self, nbytes: int, chunks: Iterable[bytes | memoryview]) -> bytes:
        """Return the token of bytes that come in pieces: the same as if they came in one."""
        if nbytes < BIG:
            return bytes_token(b"".join(chunks))
        hasher = Hasher()
        for chunk in chunks:
            hasher.update(chunk)
        return big_token(nbytes, hasher.digest())

    def subtoken(self, obj: object) -> bytes:
        """Return the token of a value on a walk of its own."""
        return Walk(self.buffers).token(obj)
