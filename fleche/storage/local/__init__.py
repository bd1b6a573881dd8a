"""The embedded store of a whole cache: one SQLite file, and files beside it for what is large."""

from fleche.storage.local._layout import FORMATS, layout_of
from fleche.storage.local._storage import (
    CallLocal,
    LocalOptions,
    ValueLocal,
    local_storages,
    options_of,
)

__all__ = [
    "FORMATS",
    "CallLocal",
    "LocalOptions",
    "ValueLocal",
    "layout_of",
    "local_storages",
    "options_of",
]
