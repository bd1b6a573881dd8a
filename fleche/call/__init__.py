"""Calls: live, as a record of digests, bound to a cache, and as a template to search by.

``Call`` is what happened, with real objects. Sealing it gives a :class:`CallRecord`, which names
every object by its digest and is all that a call storage keeps or the wire carries. A
:class:`LazyCall` is a record together with the cache that can load what the digests stand for. A
:class:`QueryCall` is a template that records match or not.
"""

from fleche.call.live import MISSING, Call, LazyArguments, LazyCall, Opener, split_digests
from fleche.call.record import (
    KEY_PARTS,
    CallRecord,
    Scalar,
    Version,
    as_literal,
    as_plain,
    decode_record,
    encode_record,
    plain_metadata,
    plain_version,
)
from fleche.call.template import Condition, QueryCall, between, like, one_of, where

__all__ = [
    "KEY_PARTS",
    "MISSING",
    "Call",
    "CallRecord",
    "Condition",
    "LazyArguments",
    "LazyCall",
    "Opener",
    "QueryCall",
    "Scalar",
    "Version",
    "as_literal",
    "as_plain",
    "between",
    "decode_record",
    "encode_record",
    "like",
    "one_of",
    "plain_metadata",
    "plain_version",
    "split_digests",
    "where",
]
