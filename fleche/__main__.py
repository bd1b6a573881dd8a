"""``python -m fleche``."""

import sys

from fleche._path import put_working_directory_back
from fleche.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    # a server opens nothing of the user's by itself, and takes all modules from where they belong
    put_working_directory_back(last=sys.argv[1:2] == ["remote"])
    sys.exit(main())
