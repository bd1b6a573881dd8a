"""The layout of a file: what a value looks like in HDF5.

The first 512 bytes are the seal (see :mod:`fleche.storage.hdf5.seal`), which HDF5 passes over. The
value is the object ``/value``; every object of it says in its attribute ``type`` what it was:

========================  ==================================================================
``type``                  HDF5
========================  ==================================================================
``NoneType``              a dataset without data (a null dataspace)
``bool``                  a scalar enum FALSE, TRUE of one byte
``int``                   a scalar of 64 bits; beyond them, its hexadecimal digits as a string
``float``, ``complex``    a scalar float64; a scalar compound of ``r`` and ``i``
``str``                   a scalar UTF-8 string; with NUL or lone surrogates, its bytes in UTF-8
                          (surrogates passed through) as uint8
``bytes``, ``bytearray``  a dataset of uint8
``list``, ``tuple``,      where all items are of one plain type, which the attribute ``items``
``set``, ``frozenset``    names: a dataset of one dimension; else a group with members ``0``,
                          ``1``, ...
``dict``                  a group with a member for each key, in order of creation; where the keys
                          are no names, a group with the attribute ``layout = "items"`` and the
                          members ``keys`` and ``values``
``dataclass``,            a group with a member for each field, and the attribute ``class``
``namedtuple``            (``module:name``)
``numpy.ndarray``,        a dataset. What HDF5 has no type for is stored as a stand-in, and the
``numpy.scalar``          attribute ``dtype`` gives the real one: int64 for datetime64 and
                          timedelta64; UTF-8 strings or uint32 code points for unicode. An array of
                          objects is a group with the member ``items`` and the attribute ``shape``.
                          ``order = "F"``: it lay in memory column by column
``opaque``                the number of an item in ``/opaque``, the bytes of a parcel with a list
``parcel``                the whole value as the bytes of a parcel
========================  ==================================================================

What occurs more than once in a value is one object with several links, as far as the root's
attribute ``shared`` says so.
"""

from __future__ import annotations

__all__ = [
    "BUDGET",
    "CLASS",
    "DEEPEST",
    "DTYPE",
    "ITEMS",
    "LAYOUT",
    "OPAQUE",
    "ORDER",
    "SHAPE",
    "SHARED",
    "TYPE",
    "VALUE",
    "NotNative",
    "is_link_name",
    "is_plain_text",
]

VALUE, OPAQUE, SHARED = "value", "opaque", "shared"
TYPE, ITEMS, LAYOUT, CLASS = "type", "items", "layout", "class"
DTYPE, ORDER, SHAPE = "dtype", "order", "shape"

BUDGET = 1024
"""The most HDF5 objects of one value: each costs half a millisecond, and a third of a KiB."""

DEEPEST = 64
"""The most groups in one another."""

_LONGEST_NAME = 1000


class NotNative(Exception):
    """HDF5 has no type for something; it is stored as an opaque part."""


def is_plain_text(text: str) -> bool:
    """Tell whether ``text`` can be an HDF5 string: no NUL, no lone surrogate."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def is_link_name(name: str) -> bool:
    """Tell whether ``name`` can be the name of a member of a group."""
    fits = 0 < len(name) <= _LONGEST_NAME and "/" not in name and name != "."
    return fits and is_plain_text(name)
