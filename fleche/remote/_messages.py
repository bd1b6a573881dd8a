"""Messages: what client and server say to each other, as validated structs.

They are the operations of :class:`~fleche.caches.CacheBackend`. A request opens a stream; the
answer is one message or several, some followed by the bytes of parcels. Unknown fields are ignored
in both directions, so that newer peers may say more.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

from fleche.caches import Task
from fleche.call import QueryCall, legible_text
from fleche.errors import ProtocolError, Rejected
from fleche.parcel import Buffer

__all__ = [
    "UNSENDABLE",
    "Answer",
    "Contains",
    "Digests",
    "Done",
    "Evict",
    "Expand",
    "Expanded",
    "Failure",
    "Flags",
    "Found",
    "Info",
    "InfoAnswer",
    "Lacking",
    "Listed",
    "Load",
    "LoadValues",
    "Maintain",
    "Message",
    "Progressed",
    "Query",
    "Reported",
    "Request",
    "Save",
    "Shrink",
    "WireEntry",
    "check_items",
    "check_template",
    "decode_answer",
    "decode_request",
    "encode",
    "legible",
    "sendable",
]

Key: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Place: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}(\.[0-9a-f]{32})?\Z")]
Name: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}(\.([0-9a-f]{32})?)?\Z")]
"""The key of a call, or an address; that of a value in any form ends with the dot."""
Prefix: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{4,64}\Z")]
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


# msgspec looks at the length of an array before it makes anything of its items
_NAMED = msgspec.Meta(max_length=4096)
_CARRIED = msgspec.Meta(max_length=1024)
_ENTRY = msgspec.Meta(max_length=256)

MAX_ITEMS = 1 << 15
"""Values that a request has at most, each of which takes some 100 bytes once it is decoded."""

MAX_CONDITIONS = 256
MAX_CHOICES = 4096
MOST_NEWEST = 1000

_UNCHECKED = 1 << 12
"""A message of so few bytes cannot hold too much."""


class WireEntry(msgspec.Struct, frozen=True, array_like=True):
    """The entry of a call: its key, its record in msgpack, and the parcels that travel with it."""

    key: Key
    record: bytes
    parcels: Annotated[dict[Place, bytes], _ENTRY] = {}


class Message(msgspec.Struct, frozen=True, tag_field="op", omit_defaults=True):
    """Base of all messages; ``op`` names the kind."""


class Info(Message, frozen=True, tag="info"):
    """Ask for the server's view of itself. Answer: :class:`InfoAnswer`."""


class Load(Message, frozen=True, tag="load"):
    """Ask for entries. Answer: a :class:`Found` for each call that is there, in any order.

    A result of at most ``inline`` bytes that does not travel with its record follows it.
    """

    keys: Annotated[list[Key], _NAMED]
    inline: Size = 0


class LoadValues(Message, frozen=True, tag="load_values"):
    """Ask for parcels. Answer: a :class:`Found` for each that is there, and its bytes."""

    addresses: Annotated[list[Place], _NAMED]


class Save(Message, frozen=True, tag="save"):
    """Store parcels, whose bytes follow, then entries; then remove pins. Answer: :class:`Done`.

    ``parcels`` gives the address and size of each, in the order in which their bytes follow.
    """

    entries: Annotated[list[WireEntry], _CARRIED] = []
    parcels: Annotated[list[tuple[Place, Size]], _CARRIED] = []
    unpin: Annotated[list[Key], _NAMED] = []


class Lacking(Message, frozen=True, tag="lacking"):
    """Ask which values are not there, and keep the others. Answer: :class:`Digests`."""

    addresses: Annotated[list[Place], _NAMED]
    keep: bool = False


class Contains(Message, frozen=True, tag="contains"):
    """Ask which calls or values are there. Answer: :class:`Flags`, in order."""

    keys: Annotated[list[Name], _NAMED]


class Evict(Message, frozen=True, tag="evict"):
    """Forget calls or values. Answer: :class:`Flags`: which of them were there, in order."""

    keys: Annotated[list[Name], _NAMED]


class Expand(Message, frozen=True, tag="expand"):
    """Ask what prefixes may stand for. Answer: :class:`Expanded`, in order."""

    prefixes: Annotated[list[Prefix], _NAMED]


class Shrink(Message, frozen=True, tag="shrink"):
    """Ask for short digests. Answer: :class:`Digests`, in order; empty for what is not there."""

    keys: Annotated[list[Key], _NAMED]


class Query(Message, frozen=True, tag="query"):
    """Ask for matching calls. Answer: any number of :class:`Listed`.

    With ``keys_only``, records are left empty, and pins and damaged entries may be among them. With
    ``newest``, only so many are listed, which began last, in that order.
    """

    template: QueryCall
    keys_only: bool = False
    newest: Annotated[int, msgspec.Meta(ge=0, le=MOST_NEWEST)] = 0


class Maintain(Message, frozen=True, tag="maintain"):
    """Ask for housekeeping. Answer: any number of :class:`Progressed` and :class:`Reported`."""

    task: Task


class InfoAnswer(Message, frozen=True, tag="info_answer"):
    """The server's view of itself."""

    info: dict[str, Any]


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


class Found(Message, frozen=True, tag="found"):
    """What was found of the key or address ``at``.

    ``size`` announces a parcel whose bytes follow: the value that was asked for, or the result of
    the call in ``entry``. ``record`` announces, before that, the bytes of a record that is too
    long for a message, and left empty in it. ``failure`` is in place of what is damaged or not
    trusted.
    """

    at: Place
    entry: WireEntry | None = None
    size: Size | None = None
    failure: Failure | None = None
    record: Size | None = None


class Digests(Message, frozen=True, tag="digests"):
    """Digests or addresses, complete or short, as asked."""

    digests: list[str]


class Expanded(Message, frozen=True, tag="expanded"):
    """The complete digests that begin with each prefix, some of them if there are many."""

    found: list[list[Key]]


class Flags(Message, frozen=True, tag="flags"):
    """Yes or no, for each that was asked."""

    flags: list[bool]


class Listed(Message, frozen=True, tag="listed"):
    """Some of the calls that match.

    Records are empty if only keys were asked, and one that is too long is asked for alone.
    """

    calls: list[WireEntry]


class Progressed(Message, frozen=True, tag="progressed"):
    """How many entries have been looked at."""

    entries: Size


class Reported(Message, frozen=True, tag="reported"):
    """A part of a report, by the names of its fields; parts add up, lists one after the other."""

    report: dict[str, Any]


class Done(Message, frozen=True, tag="done"):
    """It is done."""


Request: TypeAlias = (
    Info
    | Load
    | LoadValues
    | Save
    | Lacking
    | Contains
    | Evict
    | Expand
    | Shrink
    | Query
    | Maintain
)
Answer: TypeAlias = (
    InfoAnswer
    | Found
    | Digests
    | Expanded
    | Flags
    | Listed
    | Progressed
    | Reported
    | Done
    | Failure
)

_encoder = msgspec.msgpack.Encoder(enc_hook=lambda found: legible(str(found)))
UNSENDABLE = (OverflowError, UnicodeEncodeError)
"""What :func:`encode` raises of what no message holds: large numbers, halves of characters."""

_requests = msgspec.msgpack.Decoder(Request)
_answers = msgspec.msgpack.Decoder(Answer)


def legible(found: Any) -> Any:
    """Return plain data with every text as one that a message can carry."""
    if isinstance(found, str):
        return legible_text(str.__str__(found))
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
    number = len(conditions) + sum(map(len, template.uses))
    if number > MAX_CONDITIONS:
        raise Rejected(
            f"a query of {number} conditions: {MAX_CONDITIONS} is the most; ask for less, "
            "and filter what comes"
        )
    if any(isinstance(c.value, list) and len(c.value) > MAX_CHOICES for c in conditions):
        raise Rejected(f"a condition with more than {MAX_CHOICES} values: ask in several queries")


def sendable(template: QueryCall) -> QueryCall:
    """Return a template without what no message holds.

    What answers it is to be looked at again, by the template itself.
    """
    parts = {
        name: value
        for name in ("name", "module", "version", "code", "result", "uses")
        if (value := getattr(template, name)) is not msgspec.UNSET and _has_form(value)
    }
    metadata = {each: _with_form(fields) for each, fields in template.metadata.items()}
    return QueryCall(
        **parts, arguments=_with_form(template.arguments), metadata=_with_form(metadata)
    )


def _with_form(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if _has_form({name: value})}


def _has_form(part: Any) -> bool:
    try:
        _encoder.encode(part)
    except UNSENDABLE:
        return False
    return True


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
