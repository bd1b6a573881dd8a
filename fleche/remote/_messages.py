"""Messages: what client and server say to each other, as validated structs.

A request opens an exchange; the answer is one message or several, some followed by the bytes of a
parcel. Unknown fields are ignored in both directions, so that newer peers may say more.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

from fleche.call import QueryCall
from fleche.errors import ProtocolError, Rejected
from fleche.parcel import Buffer

__all__ = [
    "Answer",
    "Contains",
    "Digests",
    "Done",
    "Evict",
    "Expand",
    "Failure",
    "Flags",
    "Found",
    "Gc",
    "Info",
    "InfoAnswer",
    "Listed",
    "Load",
    "LoadParcel",
    "Measure",
    "Message",
    "Missing",
    "Progressed",
    "Query",
    "Redigest",
    "Reported",
    "Request",
    "SaveParcels",
    "SaveRecords",
    "Shrink",
    "Verify",
    "check_items",
    "check_template",
    "decode_answer",
    "decode_request",
    "encode",
    "legible",
]

Key: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Prefix: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{4,64}$")]
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]

# msgspec looks at the length of an array before it makes anything of its items
_NAMED = msgspec.Meta(max_length=4096)
_CARRIED = msgspec.Meta(max_length=1024)

MAX_ITEMS = 1 << 15
"""Values that a request has at most, each of which takes some 100 bytes once it is decoded."""

MAX_CONDITIONS = 256
MAX_CHOICES = 4096

_UNCHECKED = 1 << 12
"""A message of so few bytes cannot hold too much."""


class Message(msgspec.Struct, frozen=True, tag_field="op", omit_defaults=True):
    """Base of all messages; ``op`` names the kind."""


class Info(Message, frozen=True, tag="info"):
    """Ask for the server's view of itself. Answer: :class:`InfoAnswer`."""


class Load(Message, frozen=True, tag="load"):
    """Ask for records. Answer: a :class:`Found` for each key, in order.

    A result whose parcel has at most ``inline`` bytes follows its record.
    """

    keys: Annotated[list[Key], _NAMED]
    inline: Size = 0


class LoadParcel(Message, frozen=True, tag="load_parcel"):
    """Ask for parcels. Answer: a :class:`Found` for each digest, in order, with the parcel."""

    digests: Annotated[list[Key], _NAMED]


class SaveRecords(Message, frozen=True, tag="save_records"):
    """Store records: the key and the msgpack bytes of each. Answer: :class:`Done`."""

    records: Annotated[list[tuple[Key, bytes]], _CARRIED]


class SaveParcels(Message, frozen=True, tag="save_parcels"):
    """Store parcels, whose bytes follow: the digest and size of each. Answer: :class:`Done`."""

    parcels: Annotated[list[tuple[Key, Size]], _CARRIED]


class Missing(Message, frozen=True, tag="missing"):
    """Ask which values are not there. Answer: :class:`Digests`."""

    digests: Annotated[list[Key], _NAMED]


class Contains(Message, frozen=True, tag="contains"):
    """Ask which calls or values are there. Answer: :class:`Flags`, in order."""

    keys: Annotated[list[Prefix], _NAMED]


class Evict(Message, frozen=True, tag="evict"):
    """Forget a call or a value. Answer: :class:`Done`."""

    key: Prefix


class Expand(Message, frozen=True, tag="expand"):
    """Ask for the complete digest. Answer: :class:`Digests` with one."""

    key: Prefix


class Shrink(Message, frozen=True, tag="shrink"):
    """Ask for short digests. Answer: :class:`Digests`, in order."""

    keys: Annotated[list[Prefix], _NAMED]


class Query(Message, frozen=True, tag="query"):
    """Ask for matching calls. Answer: any number of :class:`Listed`.

    With ``keys_only``, records are left empty, and calls that are still running may be among them;
    a server that does not know the word sends the records all the same.
    """

    template: QueryCall
    keys_only: bool = False


class Gc(Message, frozen=True, tag="gc"):
    """Ask for a garbage collection. Answer: as for :class:`Measure`."""

    grace: float
    lease_age: float
    dry_run: bool = False


class Verify(Message, frozen=True, tag="verify"):
    """Ask for everything to be checked. Answer: as for :class:`Measure`."""

    repair: bool = False


class Redigest(Message, frozen=True, tag="redigest"):
    """Ask for calls to be filed anew. Answer: as for :class:`Measure`."""


class Measure(Message, frozen=True, tag="measure"):
    """Ask for a count. Answer: any number of :class:`Progressed` and of :class:`Reported`."""


class InfoAnswer(Message, frozen=True, tag="info_answer"):
    """The server's view of itself."""

    info: dict[str, Any]


class Found(Message, frozen=True, tag="found"):
    """An entry: a record, or the ``size`` of a parcel that follows, or both, or none (a miss)."""

    record: bytes | None = None
    size: Size | None = None


class Digests(Message, frozen=True, tag="digests"):
    """Digests, complete or short, as asked."""

    digests: list[Prefix]


class Flags(Message, frozen=True, tag="flags"):
    """Yes or no, for each that was asked."""

    flags: list[bool]


class Listed(Message, frozen=True, tag="listed"):
    """Some of the calls that match: keys and records, which are empty if only keys were asked."""

    calls: list[tuple[Key, bytes]]


class Progressed(Message, frozen=True, tag="progressed"):
    """How many entries have been looked at."""

    entries: Size


class Reported(Message, frozen=True, tag="reported"):
    """A part of a report, by the names of its fields; parts add up, lists one after the other."""

    report: dict[str, Any]


class Done(Message, frozen=True, tag="done"):
    """It is done."""


class Failure(Message, frozen=True, tag="failure"):
    """An exception of the server, instead of the rest of an answer.

    ``code`` is the wire code of an error of fleche, ``"key"`` for a :class:`KeyError`,
    ``"pickled"`` for an exception that travels in ``pickled``, ``"other"`` for one that could not
    be pickled.
    """

    code: str
    message: str = ""
    type: str = ""
    pickled: bytes | None = None
    traceback: str = ""


Request: TypeAlias = (
    Info
    | Load
    | LoadParcel
    | SaveRecords
    | SaveParcels
    | Missing
    | Contains
    | Evict
    | Expand
    | Shrink
    | Query
    | Gc
    | Verify
    | Redigest
    | Measure
)
Answer: TypeAlias = (
    InfoAnswer | Found | Digests | Flags | Listed | Progressed | Reported | Done | Failure
)

_encoder = msgspec.msgpack.Encoder(enc_hook=lambda found: legible(str(found)))
_requests = msgspec.msgpack.Decoder(Request)
_answers = msgspec.msgpack.Decoder(Answer)


def legible(found: Any) -> Any:
    """Return plain data with every text as one that a message can carry.

    A path that is not UTF-8 is a text with lone surrogates in Python; they are written as escapes.
    """
    if isinstance(found, str):
        return found.encode("utf-8", "backslashreplace").decode()
    if isinstance(found, dict):
        return {legible(key): legible(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [legible(item) for item in found]
    return found


def encode(message: Request | Answer) -> bytes:
    """Return ``message`` as msgpack."""
    return _encoder.encode(message)


def decode_request(data: Buffer) -> Request:
    """Return the request that ``data`` holds.

    Raises:
        ProtocolError: it holds none.
        Rejected: it holds more than a server takes; nothing of it was decoded.
    """
    if len(data) > _UNCHECKED:
        check_items(data, MAX_ITEMS, "a request")
    try:
        found: Request = _requests.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not a request: {error}") from None
    if isinstance(found, Query):
        check_template(found.template)
    return found


def check_template(template: QueryCall) -> None:
    """Refuse a query that asks for too much at once.

    Raises:
        Rejected: it has too many conditions, or one of them has.
    """
    fields = [field for fields in template.metadata.values() for field in fields.values()]
    conditions = [*template.arguments.values(), *fields]
    if len(conditions) > MAX_CONDITIONS:
        raise Rejected(
            f"a query of {len(conditions)} conditions: {MAX_CONDITIONS} is the most; ask for less, "
            "and filter what comes"
        )
    if any(isinstance(c.value, list) and len(c.value) > MAX_CHOICES for c in conditions):
        raise Rejected(f"a condition with more than {MAX_CHOICES} values: ask in several queries")


def check_items(data: Buffer, most: int, what: str) -> int:
    """Return how many values there are in msgpack, those in arrays and maps included.

    A value of one byte may become an object of a hundred, so that bytes alone say little about the
    memory that is needed. What is no msgpack is left to the decoder.

    Args:
        data: the msgpack.
        most: how many are allowed.
        what: it is, for the message.

    Raises:
        Rejected: there are more.
    """
    view = memoryview(data)
    position, left, count = 0, 1, 0
    try:
        while left:
            left -= 1
            count += 1
            if count > most:
                raise Rejected(f"{what} holds more than {most} values; nothing was done")
            first = view[position]
            position += 1
            if first < 0x80 or first >= 0xE0:  # small integers
                continue
            if first < 0x90:
                left += 2 * (first & 0x0F)
            elif first < 0xA0:
                left += first & 0x0F
            elif first < 0xC0:
                position += first & 0x1F
            elif first in _FIXED:
                position += _FIXED[first]
            else:
                width, header, items = _COUNTED[first]
                length = int.from_bytes(view[position : position + width], "big")
                position += width + header + (0 if items else length)
                left += length * items
    except (IndexError, KeyError):
        pass
    return count


# https://github.com/msgpack/msgpack/blob/master/spec.md: after the first byte come so many others,
_FIXED = {
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 0),
    0xCA: 4,
    0xCB: 8,
    0xCC: 1,
    0xCD: 2,
    0xCE: 4,
    0xCF: 8,
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
    0xD4: 2,
    0xD5: 3,
    0xD6: 5,
    0xD7: 9,
    0xD8: 17,
}
# or a length of so many bytes, and so many others; each of the length is a byte (0) or values
_COUNTED = {
    0xC4: (1, 0, 0),
    0xC5: (2, 0, 0),
    0xC6: (4, 0, 0),
    0xC7: (1, 1, 0),
    0xC8: (2, 1, 0),
    0xC9: (4, 1, 0),
    0xD9: (1, 0, 0),
    0xDA: (2, 0, 0),
    0xDB: (4, 0, 0),
    0xDC: (2, 0, 1),
    0xDD: (4, 0, 1),
    0xDE: (2, 0, 2),
    0xDF: (4, 0, 2),
}


def decode_answer(data: Buffer) -> Answer:
    """Return the answer that ``data`` holds.

    Raises:
        ProtocolError: it holds none.
    """
    try:
        found: Answer = _answers.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not an answer: {error}") from None
    return found
