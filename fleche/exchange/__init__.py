"""Results as files: of one value for other programs, of many calls for another fleche."""

from fleche.exchange._archive import Archive, OpenArchive, export_calls, import_calls, open_export
from fleche.exchange._joblib import JoblibResult, import_joblib
from fleche.exchange._values import SUFFIXES, as_json, json_text, write_value

__all__ = [
    "SUFFIXES",
    "Archive",
    "JoblibResult",
    "OpenArchive",
    "as_json",
    "export_calls",
    "import_calls",
    "import_joblib",
    "json_text",
    "open_export",
    "write_value",
]
