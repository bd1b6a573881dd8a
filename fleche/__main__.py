"""``python -m fleche``."""

import sys

from fleche.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
