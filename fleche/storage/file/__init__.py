"""Storages in a directory: a file for each entry, safe for many processes and machines."""

from fleche.storage.file.entries import FileEntries
from fleche.storage.file.options import FileOptions
from fleche.storage.file.shards import SUFFIXES, Shards
from fleche.storage.file.storage import CallFile, ValueFile

__all__ = ["SUFFIXES", "CallFile", "FileEntries", "FileOptions", "Shards", "ValueFile"]
