"""Records of calls: what a call storage keeps and the wire carries."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime, timezone
from typing import Any, TypeAlias

import msgspec

from fleche.digest import SCHEME, Address, Digest, call_key, shown_digest
from fleche.errors import CorruptParcel

__all__ = [
    "KEY_PARTS",
    "CallRecord",
    "Scalar",
    "ValueRef",
    "Version",
    "as_literal",
    "as_plain",
    "decode_record",
    "encode_metadata",
    "encode_record",
    "is_legible",
    "legible_text",
    "plain_metadata",
    "plain_version",
]

Scalar: TypeAlias = bool | int | float | str | None
Version: TypeAlias = int | float | str | None

LITERAL_LENGTH = 200
MANY_PARTS = 8
_SMALLEST, _LARGEST = -(1 << 63), (1 << 63) - 1
LONG_NUMBER = "int"
KEY_PARTS = ("module", "version", "code")
_REFERENCE = re.compile(r"[0-9a-f]{64}(\.[0-9a-f]{32})?")
_NO_METADATA = msgspec.Raw(msgspec.msgpack.encode({}))


class ValueRef(
    msgspec.Struct,
    frozen=True,
    gc=False,  # it leads back to nothing; the search for garbage passes over it
    omit_defaults=True,
    rename={
        "digest": "d",
        "variant": "v",
        "size": "n",
        "literal": "l",
        "summary": "s",
        "type": "t",
    },
):
    """One argument or result in a record: what it is, and where its parcel is.

    Attributes:
        digest: the digest of the value, 64 hexadecimal characters.
        variant: the variant of the parcel that was stored; empty if none was: the literal is the
            value, or another call has stored it, or it is a secret.
        size: bytes of the parcel, the shared buffers that it refers to included.
        literal: the value itself if it is small and plain, else ``UNSET``. It is complete: a value
            with a literal needs no parcel.
        summary: what a person sees of any other value: the plain number of a numpy scalar, or a
            short text such as ``float64[12, 3]``.
        type: the type of the value where :attr:`summary` is its plain number, or the digits of a
            whole number of more than 64 bits.
    """

    digest: str
    variant: str = ""
    size: int = 0
    literal: Scalar | msgspec.UnsetType = msgspec.UNSET
    summary: Scalar = None
    type: str = ""

    @property
    def address(self) -> Address:
        """Where the parcel is; without a variant, that of any parcel of this digest."""
        return Address.of(self.digest, self.variant)

    @property
    def is_literal(self) -> bool:
        """Whether the record holds the value itself."""
        return self.literal is not msgspec.UNSET

    @property
    def text(self) -> str:
        """The value in a few words, as far as the record shows it; else its digest."""
        shown = self.shown
        if isinstance(shown, msgspec.UnsetType):
            return shown_digest(self.digest)
        return repr(shown) if self.is_literal else str(shown)

    @property
    def shown(self) -> Scalar | msgspec.UnsetType:
        """What to show, sort and search by: the literal, or the summary, or ``UNSET``."""
        if self.literal is not msgspec.UNSET:
            return self.literal
        if self.type == LONG_NUMBER and isinstance(self.summary, str):
            with suppress(ValueError):  # of another cache, which may say anything
                return int(self.summary)
        return msgspec.UNSET if self.summary is None else self.summary


class CallRecord(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    omit_defaults=True,
    rename={"encoded_metadata": "metadata"},
):
    """One call, with references in place of objects.

    Attributes:
        name: qualified name of the function.
        module: module of the function.
        version: what the author of the function declared.
        code: digest of the function's code and of the code that it depends on.
        dependencies: what :attr:`code` covers, by names such as ``helpers:Cell.area``: of each
            function, class and value the digest; of a name that leads into an installed package
            ``=`` and where it leads; of one that stands for nothing ``-`` and a word. Empty where
            they are many, see :attr:`covered`.
        covered: the value that holds the dependencies where they are more than :data:`MANY_PARTS`:
            all calls of the same code have the same, which is then stored once.
        arguments: each argument, in the order of the signature.
        result: the result; ``None`` in a pin (see :attr:`is_pin`) and in a record of an error.
        error: the exception, for a function whose exceptions are kept.
        states: what the call left its mutable arguments in, by the name of the argument; random
            generators only.
        children: the keys of the cached calls that were made while this one ran, hits included, in
            order, each once.
        returns: the kind of future that the function returned, and a hit returns; mostly empty.
        encoded_metadata: :attr:`metadata` in msgpack. They are most of a record, and are decoded
            when they are asked for, which few hits do.
        unhashed: which of module, version, code are known but are no part of the key.
        duration: seconds that the body took.
        scheme: version of the digest scheme that made the digests.
    """

    name: str
    module: str | None = None
    version: Version = None
    code: str | None = None
    dependencies: dict[str, str] = {}
    covered: ValueRef | None = None
    arguments: dict[str, ValueRef] = {}
    result: ValueRef | None = None
    error: ValueRef | None = None
    states: dict[str, ValueRef] = {}
    children: tuple[str, ...] = ()
    returns: str = ""
    encoded_metadata: msgspec.Raw = _NO_METADATA
    unhashed: tuple[str, ...] = ()
    duration: float | None = None
    scheme: int = SCHEME

    @property
    def metadata(self) -> dict[str, dict[str, Any]]:
        """Plain data by the name of what collected it, decoded anew; never part of the key.

        Empty if they cannot be read, which ``verify`` reports: nothing else depends on them.
        """
        try:
            return _decode_metadata(self.encoded_metadata)
        except UNREADABLE:
            return {}

    @property
    def notes(self) -> dict[str, Any]:
        """What fleche itself has noted in :attr:`metadata`."""
        return self.metadata.get("fleche", {})

    @property
    def began(self) -> datetime | None:
        """When the call began, in UTC; ``None`` if its metadata do not say.

        The collector ``runtime`` writes it as RFC 3339 has it; a time without a zone is one in UTC.
        """
        try:
            found = _decode_began(self.encoded_metadata).runtime.started
            if found is None or found.tzinfo is timezone.utc:
                return found
            zone = found.tzinfo or timezone.utc
            return found.replace(tzinfo=zone).astimezone(timezone.utc)
        except (*UNREADABLE, OverflowError):
            return None

    @property
    def sort_time(self) -> datetime:
        """When the call began, to sort by: one that does not say so began before all others."""
        return self.began or _DAWN

    @property
    def key(self) -> Digest:
        """The digest of the call, from the parts of the record that identify it."""
        parts: dict[str, Any] = {
            part: None if part in self.unhashed else getattr(self, part) for part in KEY_PARTS
        }
        if parts["code"] is not None:
            parts["code"] = Digest(parts["code"])
        digests = {name: Digest(found.digest) for name, found in self.arguments.items()}
        return call_key(name=self.name, arguments=digests, **parts)

    @property
    def text(self) -> str:
        """The call and its result in one line, as far as the record shows them."""
        arguments = ", ".join(f"{name}={ref.text}" for name, ref in self.arguments.items())
        result = self.result or self.error
        return f"{self.name}({arguments}){'' if result is None else f' -> {result.text}'}"

    @property
    def is_pin(self) -> bool:
        """Whether this protects values that are on their way from ``gc()``, and is no call yet."""
        return self.result is None and self.error is None

    def values(self) -> Iterator[ValueRef]:
        """Yield the arguments, the result or error, the states, and what holds the dependencies."""
        yield from self.arguments.values()
        if self.result is not None:
            yield self.result
        if self.error is not None:
            yield self.error
        yield from self.states.values()
        if self.covered is not None:
            yield self.covered

    def replace(
        self, *, metadata: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any
    ) -> CallRecord:
        """Return a copy with some fields changed, the metadata (plain data) among them.

        Raises:
            TypeError: the metadata are not plain data.
        """
        if metadata is not None:
            changes["encoded_metadata"] = encode_metadata(metadata)
        return msgspec.structs.replace(self, **changes)

    def with_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> CallRecord:
        """Return a copy with this metadata, as plain data.

        Raises:
            TypeError: it is not plain data.
        """
        return self.replace(metadata=plain_metadata(metadata))

    def check(self) -> None:
        """Check what decoding leaves unchecked, since no hit depends on it.

        Raises:
            CorruptParcel: the metadata cannot be read, or a reference is not a digest.
        """
        named = [*(found.address for found in self.values()), *self.children, self.code or ""]
        for text in named:
            if text and not _REFERENCE.fullmatch(text):
                raise CorruptParcel(f"{text[:100]!r} in it is not a digest")
        try:
            _decode_metadata(self.encoded_metadata)
        except UNREADABLE as error:
            raise CorruptParcel(f"its metadata cannot be read: {error}") from None

    def __repr__(self) -> str:
        shown = {**msgspec.structs.asdict(self), "metadata": self.metadata}
        del shown["encoded_metadata"]
        return f"CallRecord({', '.join(f'{name}={each!r}' for name, each in shown.items())})"


_DAWN = datetime.min.replace(tzinfo=timezone.utc)


class _Runtime(msgspec.Struct, frozen=True, gc=False):
    started: datetime | None = None


class _Began(msgspec.Struct, frozen=True, gc=False):
    """Of the metadata, when the call began."""

    runtime: _Runtime = _Runtime()


def _encodable(value: Any) -> str:
    if isinstance(value, str):  # a Digest
        return str.__str__(value)
    raise TypeError(f"{type(value).__name__} in the record of a call is not plain data")


_encoder = msgspec.msgpack.Encoder(enc_hook=_encodable)
_decoder = msgspec.msgpack.Decoder(CallRecord)
_decode_metadata = msgspec.msgpack.Decoder(dict[str, dict[str, Any]]).decode
_decode_began = msgspec.msgpack.Decoder(_Began).decode
decode_bare = _decoder.decode
"""Does what :func:`decode_record` does, and raises one of :data:`UNREADABLE`."""

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


def encode_record(record: CallRecord) -> bytes:
    """Return ``record`` as msgpack, the form in which it is stored and sent.

    Raises:
        TypeError: something in it is not plain data.
    """
    return _encoder.encode(record)


def encode_metadata(metadata: Mapping[str, Mapping[str, Any]]) -> msgspec.Raw:
    """Return metadata as a record holds them.

    Raises:
        TypeError: they are not plain data.
    """
    return msgspec.Raw(_encoder.encode(metadata)) if metadata else _NO_METADATA


def decode_record(data: bytes | bytearray | memoryview) -> CallRecord:
    """Return the record that :func:`encode_record` wrote; fields that are unknown here are ignored.

    Raises:
        CorruptParcel: ``data`` is no record.
    """
    try:
        return decode_bare(data)
    except UNREADABLE as error:
        raise CorruptParcel(f"not a call record: {error}") from None


def parts_of(dependencies: Mapping[str, str]) -> dict[str, str]:
    """Return those dependencies that are the user's own: functions, classes, values."""
    return {
        label: part
        for label, part in dependencies.items()
        if part[:1] not in ("=", "-") and not label.endswith("~")
    }


def as_literal(value: Any) -> Scalar | msgspec.UnsetType:
    """Return ``value`` if it is small, plain and exactly representable, else ``msgspec.UNSET``."""
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return value  # type: ignore[no-any-return]
    if kind is int and _SMALLEST <= value <= _LARGEST:
        return value  # type: ignore[no-any-return]
    if kind is str and len(value) <= LITERAL_LENGTH and is_legible(value):
        return value  # type: ignore[no-any-return]
    return msgspec.UNSET


def as_plain(value: Any) -> Any:
    """Return the builtin text, number or truth value that equals ``value``, else ``value`` itself.

    Scalars of numpy become builtins, and so do objects of classes that derive from ``str``, ``int``
    or ``float``. Nothing is rounded.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # what it holds; an Enum would give its name
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    # where there is a scalar of numpy, numpy has been imported
    scalar = getattr(sys.modules.get("numpy"), "generic", ())
    if isinstance(value, scalar) and value.dtype.kind in "biuf":
        return value.item()
    return value


def plain_version(version: Any) -> Version:
    """Return a version as a record holds it, and gives it back.

    Raises:
        TypeError: it is not a number or a string.
        ValueError: no record can hold it.
    """
    plain: Version = as_plain(version)
    if plain is not None and type(plain) not in (int, float, str):
        raise TypeError(f"version={version!r}: a number or a string, not {type(version).__name__}")
    is_large = isinstance(plain, int) and not _SMALLEST <= plain <= _LARGEST
    if is_large or (isinstance(plain, str) and not is_legible(plain)):
        raise ValueError(
            f"version={version!r}: a number of up to 64 bits, or text without surrogates"
        )
    return plain


def plain_metadata(value: Any, path: str = "metadata") -> Any:
    """Return ``value`` as plain data: text, numbers, truth values, lists and string-keyed dicts.

    Scalars of other classes become builtins, as in :func:`as_plain`; dates become ISO-8601 text.

    Raises:
        TypeError: something inside is of another type; the message names the place.
    """
    if type(value) is dict:
        return {
            key if type(key) is str and key.isascii() else legible_text(str(as_plain(key))): item
            if (kind := type(item)) is float
            or (kind is str and item.isascii())
            or item is None
            or kind is bool
            else plain_metadata(item, f"{path}[{key!r}]")
            for key, item in value.items()
        }
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {
            legible_text(str(as_plain(key))): plain_metadata(item, f"{path}[{key!r}]")
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [plain_metadata(item, f"{path}[{index}]") for index, item in enumerate(items)]
    plain = as_plain(value)
    if type(plain) is str:
        return legible_text(plain)
    if type(plain) is int and not _SMALLEST <= plain <= _LARGEST:
        return str(plain)
    if plain is None or type(plain) in (bool, int, float):
        return plain
    raise TypeError(
        f"{path}: {type(value).__name__} is not plain data (text, numbers, lists, dicts)"
    )


def is_legible(text: str) -> bool:
    """Return whether a text can be written as UTF-8: it has no half of a character in it."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def legible_text(text: str) -> str:
    """Return a text with halves of characters shown by their numbers.

    A path that is not UTF-8 is in Python a text with such halves, lone surrogates.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
