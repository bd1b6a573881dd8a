"""The embedded store of a whole cache: one SQLite file, and files beside it for what is large."""

from fleche.storage._base import DirectoryOptions
from fleche.storage.local._layout import FORMATS, layout_of
from fleche.storage.local._storage import CallLocal, ValueLocal, local_storages, options_of

__all__ = [
    "FORMATS",
    "CallLocal",
    "DirectoryOptions",
    "ValueLocal",
    "layout_of",
    "local_storages",
    "options_of",
]
