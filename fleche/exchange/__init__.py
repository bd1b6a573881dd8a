"""Results as files: of one value for other programs, of many calls for another fleche."""

from fleche.exchange._values import SUFFIXES, as_json, write_value

__all__ = ["SUFFIXES", "as_json", "write_value"]
