"""From objects and calls to digests."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Mapping
from typing import Any

from . import _builtin, _classes, _objects  # noqa: F401 - they register what they handle
from ._builtin import Raw
from ._classes import ClassCode
from ._code import FunctionCode
from ._content import contents_of
from ._digest import Digest
from ._plain import SCALARS
from ._tokens import (
    ORDERED,
    SCHEME,
    BufferDigests,
    digest_of_token,
    digest_token,
    hash_node,
    int_token,
    node_token,
    text_token,
)
from ._walk import Walk, token_of_scalar

__all__ = ["call_key", "code_digest", "digest", "digest_arguments", "digest_with_buffers"]


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
    return found


def digest_with_buffers(obj: object) -> tuple[Digest, BufferDigests]:
    """Return the digest of a value, and those of the large buffers that were hashed on the way.

    A packer that comes to such a buffer asks :meth:`BufferDigests.find` instead of hashing it
    again.

    Raises:
        Indigestible: if some part of the object has no digest; the message names the path to it.
    """
    buffers = BufferDigests()
    return digest_at(obj, "object", buffers), buffers


def digest_at(
    obj: object, name: str, buffers: BufferDigests | None, *, unordered: bool = False
) -> Digest:
    if type(obj) in SCALARS and not unordered:
        return digest_of_token(token_of_scalar(obj, name))
    if isinstance(obj, Digest) and obj.is_full:
        return obj
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


def call_key(
    *,
    name: str | None,
    module: str | None,
    version: object,
    code: Digest | None,
    arguments: Mapping[str, Digest],
) -> Digest:
    """Return the key of a call: one digest of everything that decides its result.

    A part that is None is omitted; that is different from every value it could have. The arguments
    count in the given order, which must be the canonical one of the signature.

    Raises:
        ValueError: if a digest is short.
        Indigestible: if the version has no digest.
    """
    tokens = [
        int_token(SCHEME),
        *map(optional_text, (name, module)),
        Walk().token(version, "version"),
    ]
    tokens.append(Raw(b"N") if code is None else digest_token(code))
    for argument, value in arguments.items():
        tokens += (text_token(argument), digest_token(value))
    return digest_of_token(node_token(hash_node(ORDERED, b"call", tokens)))


def optional_text(value: str | None) -> bytes:
    return b"N" if value is None else text_token(value)
