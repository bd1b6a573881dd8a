"""Storages in a directory: a file for each entry, safe for many processes and machines."""

from fleche.storage.file._files import SUFFIXES, Files
from fleche.storage.file._locks import FileLockTable
from fleche.storage.file._storage import CallFile, FileEntries, ValueFile

__all__ = [
    "SUFFIXES",
    "CallFile",
    "FileEntries",
    "FileLockTable",
    "Files",
    "ValueFile",
]
