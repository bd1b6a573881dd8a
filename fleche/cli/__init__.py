"""The command line: ``python -m fleche`` or ``fleche``."""

from fleche.cli.main import main

__all__ = ["main"]
