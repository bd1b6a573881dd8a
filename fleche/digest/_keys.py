"""From objects and calls to digests."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from fleche.digest import _builtin, _classes, _objects  # noqa: F401 - they register what they handle
from fleche.digest._classes import ClassCode
from fleche.digest._code import FunctionCode
from fleche.digest._content import contents_of
from fleche.digest._digest import FULL, Digest
from fleche.digest._names import check_bare
from fleche.digest._plain import HEADER, SCALARS, hex_of_scalar
from fleche.digest._tokens import (
    ORDERED,
    PLAIN_KEY,
    SCHEME,
    WALK_KEY,
    BufferDigests,
    Hasher,
    digest_of_token,
    digest_token,
    int_token,
    open_node,
    text_token,
)
from fleche.digest._walk import Walk
from fleche.errors import Indigestible

__all__ = [
    "CallKeys",
    "call_key",
    "code_digest",
    "digest",
    "digest_arguments",
    "digest_with_buffers",
]


def digest(obj: object, *, unordered: bool = False) -> Digest:
    """Return the digest of a value: 64 hexadecimal characters that stand for its type and content.

    The digest of a full :class:`Digest` is itself. The object is only read, never changed or
    consumed.

    Args:
        obj: the value.
        unordered: whether the order of dicts, and of what is built on them, is not to count, at
            any depth. Such a digest is never equal to one for which it counts. Two values that
            have the same unordered digest, and not the same digest, differ only in order.

    Raises:
        Indigestible: if some part of the object has no digest; the message names the path to it.
    """
    return digest_at(obj, "object", None, unordered=unordered)


def digest_arguments(
    arguments: Mapping[str, object],
    buffers: BufferDigests | None = None,
    *,
    unordered: Collection[str] = (),
    content: Collection[str] = (),
) -> dict[str, Digest]:
    """Return the digest of each argument of a call, in the given order.

    Args:
        arguments: values by parameter name.
        buffers: where to note what is found out on the way: the digests of large buffers, for
            packing the same arguments afterwards, and the functions and classes in them.
        unordered: the parameters whose order does not count (:data:`fleche.Unordered`).
        content: the parameters whose paths count by what the files hold (:data:`fleche.Content`).

    Raises:
        Indigestible: naming the path to the part without a digest, such as
            ``arguments['cfg'].handle``.
    """
    found: dict[str, Digest] = {}
    for name, value in arguments.items():
        path = f"arguments[{name!r}]"
        if name in content and not isinstance(value, Digest):
            value = contents_of(value, path, {} if buffers is None else buffers.files)
        found[name] = digest_at(value, path, buffers, unordered=name in unordered)
        if buffers is not None and not buffers.unfamiliar <= steady:
            again = partial(digest_again, value, path, buffers, name in unordered)
            found[name] = steadied(found[name], again, f"{path}: this {type(value).__qualname__}")
            steady.update(buffers.unfamiliar)
    return found


steady: set[type] = set()
"""Classes that no handler knows, of which a value had the same digest when it was taken again."""


def digest_again(value: object, path: str, known: BufferDigests, unordered: bool) -> Digest:
    """Return the digest of an argument once more; no large buffer is read again for it."""
    buffers = BufferDigests(known.code_token)
    buffers.ahead = known.digests
    return digest_at(value, path, buffers, unordered=unordered)


def steadied(found: Digest, again: Callable[[], Digest], what: str) -> Digest:
    """Return the digest of an argument that it has when it is taken again.

    Some objects only note something when they are pickled for the first time.

    Raises:
        Indigestible: it is another one each time, so that no call would be found again.
    """
    second = again()
    if second != found and again() != second:
        raise Indigestible(
            f"{what} has another digest each time it is taken; pass what it was made from instead"
        )
    return second


def digest_with_buffers(
    obj: object, buffers: BufferDigests | None = None
) -> tuple[Digest, BufferDigests]:
    """Return the digest of a value, and those of the large buffers that were hashed on the way.

    A packer that comes to such a buffer asks :meth:`BufferDigests.find` instead of hashing it
    again.

    Args:
        obj: the value.
        buffers: where to note them; in it may stand what was hashed ahead.

    Raises:
        Indigestible: if some part of the object has no digest; the message names the path to it.
    """
    buffers = BufferDigests() if buffers is None else buffers
    return digest_at(obj, "object", buffers), buffers


def digest_at(
    obj: object, name: str, buffers: BufferDigests | None, *, unordered: bool = False
) -> Digest:
    if type(obj) in SCALARS and not unordered:
        try:
            return str.__new__(Digest, hex_of_scalar(obj))
        except Indigestible as error:
            raise Indigestible(f"{name}: {error}") from None
    if isinstance(obj, Digest) and obj.is_full:
        return obj
    if type(obj) is object:
        check_bare(obj, name)
    walk = Walk(buffers, unordered=unordered)
    return digest_of_token(walk.token(obj, name), walk.key)


def code_digest(obj: Callable[..., Any], *, ignored: Collection[str] = ()) -> Digest:
    """Return the digest of what a callable does by itself, without its name and module.

    For a plain function that is the syntax of its source (no docstring, comments, positions,
    decorators), its defaults, its attributes and the values that it has captured; its bytecode
    where no source is to be had. For a class it is its methods and namespace, and those of bases
    that no module has under their name; here the name does count. For a bound method it is the
    function and the object. Any other callable is digested as a value. What the code uses is not
    followed: :mod:`fleche.function` does that.

    Args:
        obj: the function, class or other callable.
        ignored: parameters whose defaults do not count.

    Raises:
        Indigestible: if a default or a captured value has no digest.
    """
    return digest_of_token(Walk().token(code_of(obj, ignored), "code"))


def code_of(obj: Any, ignored: Collection[str]) -> Any:
    """Return the value whose digest is that of the code of a callable."""
    if isinstance(obj, type):
        return ClassCode(obj)
    plain = getattr(obj, "__func__", obj)
    if not isinstance(plain, types.FunctionType) or is_generic(plain):
        return obj
    code = FunctionCode(plain, ignored)
    return (code, obj.__self__) if isinstance(obj, types.MethodType) else code


def is_generic(function: types.FunctionType) -> bool:
    """Whether this is of :func:`functools.singledispatch`, which captures what it has looked up."""
    return hasattr(function, "registry") and function.__globals__.get("__name__") == "functools"


MOST_KNOWN = 2048
LONGEST_KNOWN = 512
LEAST_KNOWN = -(1 << 256)
"""So many keys of a function are remembered, of calls whose arguments have so many bytes."""


class CallKeys:
    """The keys of the calls of one function.

    Args:
        name: of the function.
        module: likewise; a part that is None is omitted, which is different from every value that
            it could have.
        version: likewise.
        unordered: the parameters whose order does not count (:data:`fleche.Unordered`).
        content: the parameters whose paths count by what the files hold (:data:`fleche.Content`).

    Raises:
        Indigestible: if the version has no digest.
    """

    def __init__(
        self,
        *,
        name: str | None,
        module: str | None,
        version: object,
        unordered: Collection[str] = (),
        content: Collection[str] = (),
    ) -> None:
        tokens = [
            int_token(SCHEME),
            *map(optional_text, (name, module)),
            Walk().token(version, "version"),
        ]
        self._begin = open_node(ORDERED, b"call") + b"".join(tokens)
        self._names: dict[str, bytes] = {}
        self._known: dict[tuple[object, ...], tuple[Digest, Mapping[str, Digest]]] = {}
        self._asked: set[int] = set()
        self._unordered, self._content = unordered, content

    def digests(
        self, arguments: Mapping[str, object], buffers: BufferDigests | None = None
    ) -> dict[str, Digest]:
        """Return the digest of each argument, as :func:`digest_arguments` does."""
        return digest_arguments(
            arguments, buffers, unordered=self._unordered, content=self._content
        )

    def of_scalars(
        self, code: Digest | None, arguments: Mapping[str, object]
    ) -> tuple[Digest, Mapping[str, Digest]]:
        """Return the key of a call, and the digests of its arguments, all of which are scalars.

        Parameters that count in a way of their own are not among them, and all calls have the same
        parameters. What has been found out lately is remembered.
        """
        encoded: list[Any] = [code]
        for value in arguments.values():
            kind = type(value)
            if (kind is str or kind is bytes) and len(value) > LONGEST_KNOWN:  # type: ignore[arg-type]
                break
            if kind is int and not LEAST_KNOWN < value < -LEAST_KNOWN:  # type: ignore[operator]
                break
            encoded.append(SCALARS[kind](value))
        else:
            place = tuple(encoded)
            found = self._known.get(place)
            if found is None:
                found = self._find(code, arguments, encoded[1:])
                if sum(map(len, encoded[1:])) <= LONGEST_KNOWN:
                    self._remember(place, found)
            return found
        digests = self.digests(arguments)
        return self.key(code, digests), digests

    def _remember(
        self, place: tuple[object, ...], found: tuple[Digest, Mapping[str, Digest]]
    ) -> None:
        """Keep a key that has been asked for twice.

        What is asked for once, as by a call that is computed, would only cost the collector of
        garbage time.
        """
        mark = hash(place)
        if mark not in self._asked:
            if len(self._asked) >= MOST_KNOWN:
                self._asked.clear()
            self._asked.add(mark)
            return
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[place] = found

    def _find(
        self, code: Digest | None, arguments: Iterable[str], encoded: Iterable[bytes]
    ) -> tuple[Digest, Mapping[str, Digest]]:
        """Return what :meth:`of_scalars` does, from the encodings of the arguments."""
        digests: dict[str, Digest] = {}
        for name, raw in zip(arguments, encoded, strict=True):
            hasher = Hasher(HEADER + raw + b".", key=PLAIN_KEY)
            digests[name] = str.__new__(Digest, hasher.hexdigest())
        return self.key(code, digests), digests

    def key(self, code: Digest | None, arguments: Mapping[str, str]) -> Digest:
        """Return the key of a call: one digest of everything that decides its result.

        Args:
            code: the digest of the code; None: it is omitted.
            arguments: the digest of each argument, in the canonical order of the signature, which
                counts.

        Raises:
            ValueError: if a digest is short.
        """
        # the digest of code is a complete one
        parts = [self._begin, b"N" if code is None else b"d" + bytes.fromhex(code)]
        names = self._names
        for name, found in arguments.items():
            if len(found) != FULL:
                digest_token(Digest(found))  # which says what is wrong with it
            if name not in names:
                names[name] = text_token(name) + b"d"
            parts += (names[name], bytes.fromhex(found))
        return str.__new__(Digest, Hasher(b"".join(parts), key=WALK_KEY).hexdigest())


def call_key(
    *,
    name: str | None,
    module: str | None,
    version: object,
    code: Digest | None,
    arguments: Mapping[str, Digest],
) -> Digest:
    """Return the key of one call, as :meth:`CallKeys.key` does.

    Raises:
        ValueError: if a digest is short.
        Indigestible: if the version has no digest.
    """
    return CallKeys(name=name, module=module, version=version).key(code, arguments)


def optional_text(value: str | None) -> bytes:
    return b"N" if value is None else text_token(value)
