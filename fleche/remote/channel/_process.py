"""A server in another process, on its standard streams."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
from abc import abstractmethod
from base64 import b64encode
from collections import deque
from collections.abc import Mapping, Sequence
from threading import Thread, current_thread
from typing import IO

from fleche._settings import as_environment, as_texts, maybe_text
from fleche._util import override
from fleche.errors import RemoteConnectionError
from fleche.remote._streams import ByteReader, ByteWriter
from fleche.remote.channel._base import Channel, WakeableReader

__all__ = ["LocalSubprocessChannel", "ProcessChannel", "packed"]

log = logging.getLogger("fleche.remote")


class ProcessChannel(Channel):
    """A server in another process, on its standard streams."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: StderrTail | None = None
        self._ended = ""
        self._began = self._lasted = 0.0

    @property
    def pid(self) -> int | None:
        """Process number, while there is one."""
        return self._process.pid if self._process else None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the words of the command to run."""

    def options(self) -> dict[str, object]:
        """Return what :class:`subprocess.Popen` needs beyond the command."""
        return {}

    def probe(self, mark: str, code: str) -> Sequence[str] | None:
        """Return a command that goes the way of the server, to find out how far it gets.

        Args:
            mark: printed after each step, followed by the name of the step: ``shell``,
                ``workdir``, ``setup 1``, ...
            code: what runs in the server's interpreter in place of the server.

        Returns:
            The command; ``None`` where there is no such way.
        """
        del mark, code
        return None

    @override
    def open(self) -> tuple[ByteReader, ByteWriter]:
        command = self.command()
        log.debug("%s: starting %s", self.name, shlex.join(command))
        try:
            process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                **self.options(),  # type: ignore[call-overload]
            )
        except OSError as error:
            raise RemoteConnectionError(f"{self.name}: {_tell(error, command[0])}") from None
        except UnicodeEncodeError as error:
            raise RemoteConnectionError(
                f"{self.name}: cannot start {command[0]!r}: {error.object[error.start]!r} is no "
                f"character of this locale, whose encoding is {error.encoding}; set LC_ALL=C.UTF-8"
            ) from None
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        widen(process.stdin.fileno())
        widen(process.stdout.fileno())
        self._process = process
        self._ended = ""
        self._began = time.monotonic()
        try:
            self._stderr = StderrTail(process.stderr, self.name)
        except RuntimeError as error:
            process.stdin.close()
            process.stdout.close()
            raise RemoteConnectionError(f"{self.name}: {error}") from None
        return process.stdout, process.stdin

    @override
    def close(self, grace: float = 2.0) -> None:
        """Wait for the process, then terminate it, then kill it; always reap it."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            for patience, stop in ((grace, process.terminate), (grace and 1.0, process.kill)):
                if _ends_within(process, patience):
                    break
                stop()
        except BaseException:  # there is no more time to give
            process.kill()
            raise
        finally:
            self._remember(process.wait())

    def _remember(self, status: int) -> None:
        self._lasted = time.monotonic() - self._began
        stderr, self._stderr = self._stderr, None
        tail = stderr.close() if stderr else ""
        meaning = f"signal {-status}" if status < 0 else f"exit status {status}"
        self._ended = meaning + (f"; its last words:\n{tail}" if tail else "")

    @override
    def forget(self) -> None:
        """Forget the process, which is the parent's."""
        process, self._process = self._process, None
        stderr, self._stderr = self._stderr, None
        if process is not None:
            process.returncode = 0
        if stderr is not None:
            stderr.forget()

    @override
    def overheard(self) -> str:
        stderr = self._stderr
        return stderr.tail() if stderr else ""

    @override
    def diagnose(self) -> str:
        """Return the exit status and the last lines of standard error."""
        process = self._process
        if process is None:
            return self._ended
        if not _ends_within(process, 1.0):
            tail = self._stderr.tail() if self._stderr else ""
            return "it is still running" + (f"; its last words:\n{tail}" if tail else "")
        self.close(0)
        return self._ended


class LocalSubprocessChannel(ProcessChannel):
    """``python -m fleche remote --serve`` on this machine, in an interpreter of its own.

    The attributes are what it was told: ``python``, ``workdir``, ``cache_name``, ``env`` and
    ``arguments``.
    """

    def __init__(
        self,
        python: str | None = None,
        workdir: str | None = None,
        cache_name: str | None = None,
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """Configure; nothing starts before :meth:`open`.

        Args:
            python: the interpreter, perhaps of another virtual environment; default: this one.
            workdir: where it runs, and so whose ``fleche.toml`` it finds.
            cache_name: which of its caches it serves; default: its default.
            env: variables added to the environment.
            arguments: further arguments of the server, such as ``--read-only``.

        Raises:
            TypeError: one of them is of the wrong kind.
            ValueError: one of them is impossible.
        """
        self.python = maybe_text("python", python)
        self.workdir = maybe_text("workdir", workdir)
        self.cache_name = maybe_text("cache_name", cache_name)
        self.env = as_environment("env", env)
        self.arguments = as_texts("arguments", arguments)
        super().__init__(f"subprocess {self.python or 'python'}")
        self._python = os.path.expanduser(self.python) if self.python else sys.executable or ""
        self._workdir = os.path.expanduser(self.workdir) if self.workdir else None

    @override
    def open(self) -> tuple[ByteReader, ByteWriter]:
        if not self._python:
            raise RemoteConnectionError(
                f"{self.name}: this Python, inside of another program, does not know which program "
                "starts one; name an interpreter: python="
            )
        return super().open()

    @override
    def command(self) -> Sequence[str]:
        named = [f"--cache={self.cache_name}"] if self.cache_name else []
        return [self._python, "-m", "fleche", "remote", "--serve", *named, *self.arguments]

    @override
    def probe(self, mark: str, code: str) -> Sequence[str]:
        return [self._python, "-c", packed(code)]

    @override
    def options(self) -> dict[str, object]:
        """Run in a session of its own, so that Ctrl-C in the terminal does not reach it."""
        return {
            "cwd": self._workdir,
            "env": {**os.environ, **self.env},
            "start_new_session": True,
        }


def packed(code: str) -> str:
    """Return ``code`` as one line that any shell can quote."""
    text = b64encode(code.encode()).decode()
    return f"exec(__import__('base64').b64decode('{text}').decode())"


def _tell(error: OSError, program: str) -> str:
    """Say why ``program`` cannot be started: it may be its directory that is missing."""
    reason = error.strerror or str(error)
    if error.filename not in (None, program):
        return f"cannot start {program!r} in {error.filename!r}: {reason}"
    # of a program that is nowhere, the system says first if a place in PATH may not be looked into
    is_refused = isinstance(error, PermissionError) and os.sep not in program
    if isinstance(error, FileNotFoundError) or (is_refused and shutil.which(program) is None):
        reason = f"{os.strerror(errno.ENOENT)}; is it installed?"
    return f"cannot start {program!r}: {reason}"


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


stderr_log = logging.getLogger("fleche.remote.stderr")

LINES = 20
LINE_LENGTH = 500
LOGGED_LENGTH = 4000
"""What is logged of a line: one that quotes a long path a few times is whole."""

LAST_READS = 64
"""How often standard error is still read after the end: a child may never stop writing."""


WARNED = b"fleche."
"""Begins a line of a server's log, in which there are warnings and errors alone."""


class StderrTail:
    """A thread that reads a child's standard error for as long as it is wanted.

    The end of the child need not be the end of the stream: a ControlMaster that ssh leaves behind
    may hold it open. So :meth:`close` does not wait for it.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        """Read ``stream``, which is taken over, in a thread; log it under ``name``.

        Raises:
            RuntimeError: the system has no more threads, or the interpreter is ending.
        """
        self._reader = WakeableReader(os.dup(stream.fileno()), last_reads=LAST_READS)
        stream.close()
        self._name = name
        self._lines: deque[str] = deque(maxlen=LINES)
        self._partial = b""
        self._thread = Thread(target=self._run, name=f"fleche {name} stderr", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._reader.close()
            raise

    def tail(self) -> str:
        """Return the last lines so far."""
        return "\n".join(
            [*self._lines, *([_text(self._partial[-LINE_LENGTH:])] if self._partial else [])]
        )

    def close(self) -> str:
        """Read what is there, stop, and return the last lines.

        In the thread itself (where whatever handles a log record may collect garbage, and so close
        a cache) return those so far; it stops when it goes on.
        """
        self._reader.wake()
        if self._thread is not current_thread():
            self._thread.join()
        return self.tail()

    def forget(self) -> None:
        """In a forked child: close the copies; the thread is the parent's."""
        self._reader.close()

    def _run(self) -> None:
        buffer = memoryview(bytearray(1 << 16))
        try:
            while count := self._reader.readinto(buffer):
                self._take(bytes(buffer[:count]))
        finally:
            self._reader.close()

    def _take(self, data: bytes) -> None:
        *whole, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-LOGGED_LENGTH:]
        for line in whole:
            self._lines.append(_text(line[-LINE_LENGTH:]))
            level = logging.WARNING if line.startswith(WARNED) else logging.INFO
            stderr_log.log(level, "%s: %s", self._name, _text(line[-LOGGED_LENGTH:]))


def _text(line: bytes) -> str:
    text = line.decode("utf-8", "replace").rstrip("\r")
    return "".join(c if c.isprintable() or c == "\t" else "·" for c in text)


PIPE_SIZE = 1 << 20
"""Bytes that a pipe should hold: each switch between reader and writer costs more than copying."""


def widen(descriptor: int) -> None:
    """Enlarge a pipe, if this system can and allows it; what is no pipe is left alone."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
