"""Calls: live, as a record of digests, bound to a cache, and as a template to search by.

``Call`` is what happened, with real objects. :meth:`Call.to_record` gives a :class:`CallRecord`,
which refers to every object by its digest. A :class:`CallEntry` is a record with the small parcels
that travel with it: what a call storage keeps and the wire carries. A :class:`LazyCall` is an entry
together with the cache that can load what the references stand for. A :class:`QueryCall` is a
template that records match or not.
"""

from typing import TYPE_CHECKING

from fleche._util import imported_when_asked
from fleche.call._entry import SMALL, CallEntry, decode_entry, encode_entry, sort_time_of
from fleche.call._live import MISSING, Call, LazyArguments, LazyCall, Opener, refer
from fleche.call._record import (
    KEY_PARTS,
    MANY_PARTS,
    CallRecord,
    Scalar,
    ValueRef,
    Version,
    as_literal,
    as_plain,
    decode_record,
    encode_record,
    is_legible,
    legible_text,
    parts_of,
    plain_metadata,
    plain_version,
)
from fleche.call._template import (
    QUERY_FIELDS,
    Condition,
    Moment,
    QueryCall,
    between,
    like,
    one_of,
    where,
)

if TYPE_CHECKING:
    from fleche.call._lineage import CallTree
    from fleche.call._summary import Summary, add_summary, summarize
    from fleche.call._where import Where, parse_where

__all__ = [
    "KEY_PARTS",
    "MANY_PARTS",
    "MISSING",
    "QUERY_FIELDS",
    "SMALL",
    "Call",
    "CallEntry",
    "CallRecord",
    "CallTree",
    "Condition",
    "LazyArguments",
    "LazyCall",
    "Moment",
    "Opener",
    "QueryCall",
    "Scalar",
    "Summary",
    "ValueRef",
    "Version",
    "Where",
    "add_summary",
    "as_literal",
    "as_plain",
    "between",
    "decode_entry",
    "decode_record",
    "encode_entry",
    "encode_record",
    "is_legible",
    "legible_text",
    "like",
    "one_of",
    "parse_where",
    "parts_of",
    "plain_metadata",
    "plain_version",
    "refer",
    "sort_time_of",
    "summarize",
    "where",
]

# what only misses, commands and searches by text need
__getattr__ = imported_when_asked(
    __name__,
    {
        "._lineage": ("CallTree",),
        "._summary": ("Summary", "add_summary", "summarize"),
        "._where": ("Where", "parse_where"),
    },
)
