"""Messages: what client and server say to each other, as validated structs.

A request opens an exchange; the answer is one message or several, some followed by the bytes of a
parcel. Unknown fields are ignored in both directions, so that newer peers may say more.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

from fleche.call import QueryCall
from fleche.errors import ProtocolError

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
    "decode_answer",
    "decode_request",
    "encode",
    "legible",
]

Key: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Prefix: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{4,64}$")]
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class Message(msgspec.Struct, frozen=True, tag_field="op", omit_defaults=True):
    """Base of all messages; ``op`` names the kind."""


class Info(Message, frozen=True, tag="info"):
    """Ask for the server's view of itself. Answer: :class:`InfoAnswer`."""


class Load(Message, frozen=True, tag="load"):
    """Ask for records. Answer: a :class:`Found` for each key, in order.

    A result whose parcel has at most ``inline`` bytes follows its record.
    """

    keys: list[Key]
    inline: Size = 0


class LoadParcel(Message, frozen=True, tag="load_parcel"):
    """Ask for parcels. Answer: a :class:`Found` for each digest, in order, with the parcel."""

    digests: list[Key]


class SaveRecords(Message, frozen=True, tag="save_records"):
    """Store records: the key and the msgpack bytes of each. Answer: :class:`Done`."""

    records: list[tuple[Key, bytes]]


class SaveParcels(Message, frozen=True, tag="save_parcels"):
    """Store parcels, whose bytes follow: the digest and size of each. Answer: :class:`Done`."""

    parcels: list[tuple[Key, Size]]


class Missing(Message, frozen=True, tag="missing"):
    """Ask which values are not there. Answer: :class:`Digests`."""

    digests: list[Key]


class Contains(Message, frozen=True, tag="contains"):
    """Ask which calls or values are there. Answer: :class:`Flags`, in order."""

    keys: list[Prefix]


class Evict(Message, frozen=True, tag="evict"):
    """Forget a call or a value. Answer: :class:`Done`."""

    key: Prefix


class Expand(Message, frozen=True, tag="expand"):
    """Ask for the complete digest. Answer: :class:`Digests` with one."""

    key: Prefix


class Shrink(Message, frozen=True, tag="shrink"):
    """Ask for short digests. Answer: :class:`Digests`, in order."""

    keys: list[Prefix]


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


def decode_request(data: bytes | bytearray | memoryview) -> Request:
    """Return the request that ``data`` holds.

    Raises:
        ProtocolError: it holds none.
    """
    try:
        found: Request = _requests.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not a request: {error}") from None
    return found


def decode_answer(data: bytes | bytearray | memoryview) -> Answer:
    """Return the answer that ``data`` holds.

    Raises:
        ProtocolError: it holds none.
    """
    try:
        found: Answer = _answers.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not an answer: {error}") from None
    return found
