"""Small helpers that every layer may use: batches, paths, warnings at the caller's line."""

from __future__ import annotations

import atexit
import functools
import os
import re
import sys
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import islice
from threading import RLock
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from fleche.errors import ConfigError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = [
    "Troubles",
    "__version__",
    "account_name",
    "annotations_of",
    "at_end",
    "attempt",
    "batched",
    "calling_frame",
    "check_type_name",
    "expand_path",
    "home_directory",
    "home_shortened",
    "host_name",
    "imported_when_asked",
    "is_held_here",
    "is_path",
    "loaded_types",
    "override",
    "package_version",
    "reconnected",
    "refuse_url",
    "renewed_after_fork",
    "replace_file",
    "running_loop",
    "sentence",
    "user_cache_directory",
    "user_name",
    "warn_caller",
]

__version__ = "0.1.0"

T = TypeVar("T")


def annotations_of(obj: object) -> dict[str, Any]:
    """Return the annotations of a function, or of a class without those of its bases.

    From Python 3.14 on they are evaluated when they are asked for: a name that has no value yet, or
    only for type checkers, stands as a forward reference then, as it would if it were text.
    """
    own = vars(obj).get if isinstance(obj, type) else partial(getattr, obj)
    ways: list[Any] = [partial(own, "__annotations__", None)]
    annotate = own("__annotate_func__" if isinstance(obj, type) else "__annotate__", None)
    if sys.version_info >= (3, 14) and callable(annotate):
        # not by __annotations__, since a class keeps what is found there
        library = import_module("annotationlib")
        forms = (library.Format.VALUE, library.Format.FORWARDREF, library.Format.STRING)
        call = partial(library.call_annotate_function, annotate, owner=obj)
        ways = [partial(call, each) for each in forms]
    found = (attempt(way) for way in ways)
    return next((dict(each) for each in found if isinstance(each, dict)), {})


def loaded_types(module: str, *names: str) -> tuple[type, ...]:
    """Return classes of a module, if the program has imported it, for ``isinstance``.

    Those that are missing are left out: another thread may be in the midst of the import.
    """
    space = getattr(sys.modules.get(module), "__dict__", {})
    return tuple(space[name] for name in names if name in space)


def running_loop() -> AbstractEventLoop | None:
    """Return the event loop of asyncio that runs here, if one does; asyncio is not imported."""
    # documented; in a module that another thread is importing it may be missing
    get_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    return None if get_loop is None else get_loop()


def attempt(function: Callable[..., Any], *args: Any, default: Any = None) -> Any:
    """Return what ``function`` returns, or ``default`` if it raises anything but Ctrl-C.

    For imports and look-ups that run code of any kind for the sake of a question: a module may call
    ``sys.exit`` when it is imported, which no question may pass on to the program.
    """
    try:
        return function(*args)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 (as above)
        return default


# -- forks -----------------------------------------------------------------------------------------

_renewed: weakref.WeakSet[Any] = weakref.WeakSet()


def renewed_after_fork(lock: T) -> T:
    """Return ``lock``, which from now on a forked child always finds open.

    Args:
        lock: a lock, condition or event of :mod:`threading`. Another thread may hold it in the
            moment of a fork; in the child there is no such thread, and nothing would release it.
            What it guards must be sound at any moment, or be mended in the child. Then it can be an
            ``RLock``, through which a signal handler or a finalizer goes that comes between while
            the thread holds it: to wait there would be to wait for itself.
    """
    _renewed.add(lock)
    return lock


def is_held_here(lock: Any) -> bool:
    """Return whether this very thread holds an ``RLock``, which it would go through.

    So it is where a signal handler, or a finalizer, has come between.
    """
    return lock._is_owned()  # type: ignore[no-any-return] # noqa: SLF001 (as Condition asks it)


def _renew_locks() -> None:
    for lock in list(_renewed):
        lock._at_fork_reinit()  # noqa: SLF001 (what the standard library does with its own locks)


os.register_at_fork(after_in_child=_renew_locks)


# -- the end of the process ------------------------------------------------------------------------

_endings: list[Callable[[], None]] = []
_follows = False


def at_end(function: Callable[[], None]) -> None:
    """Have ``function`` called at the end of this process, and of its forked children.

    It may be called twice. A worker of :mod:`multiprocessing` that was forked ends without what
    :mod:`atexit` knows, or with what was said since, by the version of Python.
    """
    atexit.register(function)
    _endings.append(function)


def _end_worker() -> None:
    for function in reversed(_endings):
        function()


def _follow_workers() -> None:
    """Have the end of a worker noticed, if :mod:`multiprocessing` is in use."""
    global _follows  # noqa: PLW0603 (once in a process)
    util: Any = sys.modules.get("multiprocessing.util")
    # of a module that another thread is importing not all is there
    if _follows or not hasattr(util, "register_after_fork") or not hasattr(util, "Finalize"):
        return
    _follows = True
    # A worker first forgets what its parent wanted done at the end, and then calls what was
    # registered to be called after a fork.
    util.register_after_fork(_end_worker, lambda end: util.Finalize(None, end, exitpriority=0))


_follow_workers()  # of a worker that was started anew, and imports fleche before it begins to work
os.register_at_fork(before=_follow_workers)


# -- packages --------------------------------------------------------------------------------------


def imported_when_asked(package: str, homes: Mapping[str, Iterable[str]]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package some of whose names are imported when they are used.

    Args:
        package: its ``__name__``.
        homes: the names, by the module where they are; that of the package itself begins with a
            dot. Of a name that stands twice, the last counts.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(import_module(home_of[name], package), name)
        setattr(sys.modules[package], name, found)
        return found

    return get


# -- typing and iterating --------------------------------------------------------------------------

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import override
else:

    def override(method: Any) -> Any:
        """Mark a method that implements or replaces one of a base class, for type checkers."""
        return method


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield ``items`` in lists of ``size``, the last one shorter; no more is taken than yielded."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))")


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def expand_variables(text: str) -> str:
    """Return ``text`` with environment variables (``$NAME``, ``${NAME}``) expanded.

    Raises:
        ConfigError: a variable is not set.
    """

    def value_of(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in os.environ:
            raise ConfigError(
                f"{text}: the environment variable {name} is not set here; "
                "set it, or write out what it stands for"
            )
        return os.environ[name]

    return _VARIABLE.sub(value_of, text)


def is_path(text: str) -> bool:
    """Return whether ``FLECHE_CACHE`` names a directory so, and not a configured cache."""
    return os.sep in text or text.startswith(("~", "."))


def refuse_url(text: str) -> None:
    """Refuse a URL where a path is expected, which would make a directory with such a name.

    Raises:
        ConfigError: it is one.
    """
    if _URL.match(text):
        raise ConfigError(
            f"{text}: a path is expected, and this is a URL; another machine is a table of type = "
            '"ssh", an object store has values.type = "fsspec", a database calls.type = "sql"'
        )


def expand_path(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` with a leading ``~`` and environment variables (``$NAME``) expanded.

    Raises:
        ConfigError: a variable is not set, there is no home directory of that name, or it is a URL.
    """
    from pathlib import Path  # slow to import, and needed by no hit

    refuse_url(os.fspath(path))
    try:
        return Path(expand_variables(os.fspath(path))).expanduser()
    except RuntimeError:
        raise ConfigError(f"{os.fspath(path)}: no such home directory is known") from None


def home_directory() -> str | None:
    """Return the user's home directory, or ``None`` where the system knows none.

    So it is in a container that runs under a number that is no account's, without ``HOME``.
    """
    found = os.path.expanduser("~")
    return None if found == "~" else os.path.abspath(found)


def home_shortened(found: object) -> str:
    """Return a path, or a text with paths in quotes, with ``~`` for the home directory."""
    text = str(found)
    home = home_directory()
    if home is None or home == os.sep:
        return text
    return re.sub(rf"(?<![^'\"(\s]){re.escape(home)}(?![^/'\")\s])", "~", text)


def user_cache_directory(*parts: str) -> str:
    """Return a path below ``fleche`` in the user's cache directory; nothing is made.

    Where there is no such directory, nothing can be made there either: what is kept can be made
    again, and a directory that others might have made would not do.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(home_directory() or os.devnull, ".cache")
    return os.path.join(base, "fleche", *parts)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; one that is there keeps its mode."""
    from tempfile import NamedTemporaryFile

    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.close()
            os.chmod(file.name, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _umask() -> int:
    found = os.umask(0o077)
    os.umask(found)
    return found


@functools.cache
def host_name() -> str:
    """Return the name of this machine."""
    return os.uname().nodename


@functools.cache
def user_name() -> str:
    """Return the name of the account, or its number if it has none."""
    for variable in ("LOGNAME", "USER"):
        if name := os.environ.get(variable):
            return name
    return account_name(os.getuid()) or str(os.getuid())


def account_name(number: int) -> str:
    """Return the name of the account of a number; "" if it has none, as in some containers."""
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return ""


_OURS = ("fleche.", "asyncio.", "concurrent.futures.", "threading.", "contextlib.")


def package_version(name: str) -> str | None:
    """Return the version of a package, by the name by which it is imported; ``None``: unknown.

    Nothing of the package runs for it: some warn of whatever asks them for ``__version__``.
    """
    from importlib import metadata

    with suppress(metadata.PackageNotFoundError, ValueError):
        return metadata.version(name)
    found = getattr(sys.modules.get(name), "__dict__", {}).get("__version__")
    if isinstance(found, str):
        return found
    for distribution in metadata.distributions():  # attrs, of which `attr` is a part
        if f"\n{name}/__init__.py," in f"\n{distribution.read_text('RECORD')}":
            return distribution.version
    return None


def calling_frame() -> FrameType | None:
    """Return the nearest frame outside of this package and of what stands between it and a user.

    Returns:
        The frame; ``None`` in a thread of the package's own, which no user's line has called.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 (public in all but name)
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        if not f"{name}.".startswith(_OURS):
            return frame
        frame = frame.f_back
    return None


def check_type_name(name: str) -> None:
    """Check a name that ``type = name`` is to mean; with a colon it would be an import path.

    Raises:
        ValueError: it is none.
    """
    if not (isinstance(name, str) and re.fullmatch(r"[^\W_][\w.+-]*", name)):
        raise ValueError(
            f"type {name!r}: a name is letters, digits and _ . + -, and begins with a letter or "
            "a digit"
        )


def sentence(text: object) -> str:
    """Return ``text`` with a full stop at its end, unless it ends a sentence already."""
    said = str(text).rstrip()
    return said if said.endswith((".", "!", "?")) else f"{said}."


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn of ``message`` at the line that called into this package.

    Args:
        message: what to say.
        category: of the warning.
    """
    frame = calling_frame()
    if frame is None:
        warnings.warn(message, category, stacklevel=2)
        return
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__") or "<unknown>",
        frame.f_globals.setdefault("__warningregistry__", {}),
    )


# -- what is told once -----------------------------------------------------------------------------


class Troubles:
    """Which troubles have been told, and which of them are news when they come again.

    A trouble is told once, and once more when it comes again after a success. It is told a third
    time only after two successes in a row, then after four, and so on. So every outage of a server
    is told, and the warnings end where saves succeed and fail by turns: a disk that is nearly full
    takes small results and not the large ones. After :func:`reconnected` everything that a
    connection explains is news.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, _Trouble] = {}
        self._lock = renewed_after_fork(RLock())

    def is_new(self, trouble: Hashable, *, of_connection: bool = False) -> bool:
        """Take note of a trouble, and return whether it is to be told.

        Args:
            trouble: what it is.
            of_connection: it is that a server cannot be reached.
        """
        with self._lock:
            known = self._known.get(trouble)
            if known is None or (of_connection and known.connected != _connected):
                known = self._known[trouble] = _Trouble()
            known.successes = 0
            was_told, known.is_told = known.is_told, True
            if not was_told:
                known.needed = max(1, 2 * known.needed)
            return not was_told

    def succeed(self, concerns: Callable[[Any], bool]) -> None:
        """Take note of a success of what the troubles that ``concerns`` is true of had to do."""
        if not self._known:
            return
        with self._lock:
            for trouble, known in list(self._known.items()):
                if concerns(trouble):
                    known.successes += 1
                    if known.successes >= known.needed:
                        known.is_told = False


class _Trouble:
    """What is known of a trouble: after how many successes in a row it is to be told again."""

    def __init__(self) -> None:
        self.connected = _connected
        self.is_told = False
        self.needed = self.successes = 0


_connected = 0


def reconnected() -> None:
    """Take note that a connection was given up in favour of a new one, on purpose."""
    global _connected  # noqa: PLW0603 (a clock of the process)
    _connected += 1
