"""What ``[default] metadata`` names."""

from __future__ import annotations

import os

from fleche.config.find import load_config
from fleche.config.place import Place, unknown_name
from fleche.metadata import MetaData, metadata_class, metadata_names

__all__ = ["UNCONFIGURED", "load_default_metadata"]

UNCONFIGURED = ("runtime", "environment")
"""What is collected unless told: when, where and with what a call ran."""


def load_default_metadata(*, start: str | os.PathLike[str] | None = None) -> tuple[MetaData, ...]:
    """Return the collectors that ``[default] metadata`` names, ready for use.

    Args:
        start: the directory to look for ``fleche.toml`` from; the working directory, if not given.

    Raises:
        ConfigError: there is no such collector, or something is wrong with the configuration.
    """
    config = load_config(start)
    names = config.default.metadata
    if not isinstance(names, list):
        return tuple(metadata_class(name)() for name in UNCONFIGURED)
    place = config.place_of_default("metadata")
    return tuple(_collector(name, place.index(number)) for number, name in enumerate(names))


def _collector(name: str, place: Place) -> MetaData:
    if ":" not in name and name not in metadata_names():
        raise place.error(unknown_name("metadata", name, metadata_names()))
    with place.blamed():
        return metadata_class(name)()
