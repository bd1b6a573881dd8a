"""Where modules come from, before any of them does: this one imports only :mod:`sys`.

``python -m fleche`` puts the working directory before the standard library, and a server may meet
anything there: a ``random.py``, a ``struct.py``, a ``json.py``.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 (pip checks that; a checkout, or a PYTHONPATH, does not)
    raise ImportError(
        "fleche needs Python 3.10 or newer, and this is %s (%s)"  # noqa: UP031 (of any age)
        % (sys.version.split()[0], sys.executable)
    )

__all__ = ["put_working_directory_back", "set_working_directory_aside"]

_aside: list[str] = []


def set_working_directory_aside() -> None:
    """Take the working directory off the path if it is there for ``python -m fleche``."""
    given = getattr(sys, "argv", [])  # an interpreter inside another program may have none
    is_command = given[:1] == ["-m"] and "fleche" in sys.orig_argv  # it is being looked for
    if is_command and not getattr(sys.flags, "safe_path", False):
        _aside.append(sys.path.pop(0))


def put_working_directory_back(*, last: bool) -> None:
    """Let modules of the user be found, ``last`` (only what is nowhere else) or first."""
    while _aside:
        sys.path.insert(len(sys.path) if last else 0, _aside.pop())
