"""How far one gets on the way to a server that does not answer: a second connection finds out.

It goes the way of the server, and prints a mark after each step: the login shell, the change of the
directory, each setup command. In place of the server, its interpreter then reports what it is, and
which fleche it finds. A line is sent ahead; what becomes of it shows what reads standard input.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import selectors
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fleche._util import __version__
from fleche.remote import LocalSubprocessChannel, ProcessChannel, SshChannel

__all__ = ["Step", "find_failure"]

State: TypeAlias = Literal["ok", "note", "failed"]


@dataclass(frozen=True)
class Step:
    """One step on the way to a cache.

    Attributes:
        name: of the step.
        state: ``"ok"``; ``"note"``: it works, and there is something to know; ``"failed"``: here it
            ends.
        found: what was found.
        advice: what to do next; empty if there is nothing to do.
    """

    name: str
    state: State
    found: str
    advice: str = ""


PATIENCE = 5.0
"""Seconds without a word after which the input is closed, for a program that reads it to go on."""

PATIENCE_TO_LOG_IN = 60.0
"""Seconds to the first word; without limit at a terminal, where a person may be typing."""

# What runs there must run under any Python, to say that it is too old.
_CODE = """
import json, os, sys
found = {"python": sys.version.split()[0], "executable": sys.executable, "cwd": os.getcwd()}
found["heard"] = sys.stdin.readline().strip()
try:
    import fleche
    found["file"] = getattr(fleche, "__file__", None)
    found["only"] = ", ".join(getattr(fleche, "__path__", []))  # a directory, and no package
    found["version"] = str(getattr(fleche, "__version__", "?"))
except Exception as error:
    found["missing"] = "%s: %s" % (type(error).__name__, error)
else:
    try:
        from fleche.cli.remote import serve_standard_streams
    except Exception as error:
        found["other"] = "%s: %s" % (type(error).__name__, error)
    else:
        try:
            from fleche.config import load_cache_config
            load_cache_config(CACHE_NAME).capabilities
        except Exception as error:
            found["broken"] = str(error) or repr(error)
sys.stdout.write("\\nMARKreport " + json.dumps(found) + "\\n")
sys.stdout.flush()
"""


@dataclass
class _Trace:
    """What a probe has left.

    Attributes:
        mark: what its own lines begin with.
        out: what came on standard output.
        err: likewise on standard error.
        status: its exit status.
        closed: whether it only went on after its input was closed.
        error: why it could not be started.
    """

    mark: str
    out: str = ""
    err: str = ""
    status: int | None = None
    closed: bool = False
    error: str = ""

    @property
    def steps(self) -> list[str]:
        """The steps that were reached."""
        return re.findall(rf"^.*?{self.mark}(shell|workdir|setup \d+)\s*$", self.out, re.MULTILINE)

    @property
    def report(self) -> dict[str, Any] | None:
        """What the interpreter has said of itself."""
        found = re.search(rf"{self.mark}report (.*)$", self.out, re.MULTILINE)
        if found is None:
            return None
        try:
            report: dict[str, Any] = json.loads(found[1])
        except ValueError:
            return None
        return report

    @property
    def greeting_came_back(self) -> bool:
        """Whether the line that was sent went to something that shows or runs it."""
        hello = f"{self.mark}hello"
        return hello in self.out.replace(f'"{hello}"', "") or hello in self.err

    def last_words(self) -> str:
        """The last lines of standard error, or else of standard output."""
        lines = [line.strip() for line in (self.err.strip() or self._noise()).splitlines()]
        text = "; ".join(line for line in lines[-3:] if line and self.mark not in line)
        return "".join(char if char.isprintable() else "·" for char in text)[:400]

    def _noise(self) -> str:
        return "\n".join(line for line in self.out.splitlines() if self.mark not in line)


def find_failure(channel: ProcessChannel, told: str) -> Iterator[Step]:
    """Yield the steps that a server of ``channel`` would take, the last of which has failed.

    Args:
        channel: the way to a server that did not answer.
        told: what the attempt to connect has said.
    """
    mark = f"fleche-doctor-{secrets.token_hex(8)}-"
    name = getattr(channel, "cache_name", None)
    code = _CODE.replace("MARK", mark).replace("CACHE_NAME", repr(name))
    command = channel.probe(mark, code)
    if command is None:
        yield Step("connection", "failed", told)
        return
    trace = _run(channel, list(command), mark)
    yield from _read(channel, trace, told)


# -- running it ------------------------------------------------------------------------------------


def _run(channel: ProcessChannel, command: list[str], mark: str) -> _Trace:
    trace = _Trace(mark)
    options: dict[str, Any] = dict(channel.options())
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            **options,
        )
    except OSError as error:
        trace.error = f"{error.strerror or error}"
        if error.filename not in (None, command[0]):
            trace.error += f": {error.filename}"
        return trace
    with process:
        _listen(process, trace)
        process.kill()
        process.wait()
    return trace


def _listen(process: subprocess.Popen[bytes], trace: _Trace) -> None:
    """Send a line to a probe, and take note of what comes until it has reported or ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    heard = {"out": bytearray(), "err": bytearray()}
    with suppress(BrokenPipeError):  # it has ended: why, it has said
        process.stdin.write(f"{trace.mark}hello\n".encode())
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, "out")
        selector.register(process.stderr, selectors.EVENT_READ, "err")
        deadline = time.monotonic() + _patience()
        while selector.get_map() and trace.report is None:
            ready = selector.select(max(deadline - time.monotonic(), 0))
            if not ready:
                if trace.closed:
                    return
                trace.closed = True
                process.stdin.close()
                deadline = time.monotonic() + PATIENCE
                continue
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                heard[key.data] += data
                text = heard[key.data].decode("utf-8", "replace")
                setattr(trace, key.data, text.replace("\r\n", "\n"))
            if trace.steps or trace.greeting_came_back:
                deadline = min(deadline, time.monotonic() + PATIENCE)
    if trace.report is None:
        trace.status = process.wait(PATIENCE)


def _patience() -> float:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return PATIENCE_TO_LOG_IN
    return 10 * PATIENCE_TO_LOG_IN


# -- reading what it has left ----------------------------------------------------------------------

_EATEN = (
    "let start-up files (~/.bashrc, ~/.profile, ~/.zshenv, ~/.cshrc) and setup commands read input "
    "(read, cat, exec of another shell) in interactive shells only, or give them </dev/null"
)

_SSH_REASONS: tuple[tuple[str, str], ...] = (
    (
        r"Could not resolve hostname [^\s:]+:[\d/~]",
        (
            "host is user@host, or an alias: a port stands in ~/.ssh/config, or in ssh_options = "
            '["-p", "2222"], and a directory of the other machine in workdir'
        ),
    ),
    (
        "Could not resolve hostname",
        "check the name, or the alias in ~/.ssh/config; a VPN may be off",
    ),
    ("Connection refused", "no sshd listens there: check the port, and that the machine is up"),
    (
        "timed out|No route to host|Network is unreachable",
        "the machine is off, or a firewall or VPN stands between: try 'ping' and 'ssh -v'",
    ),
    (
        "Permission denied",
        (
            "'ssh {host}' must log in by itself: ssh-copy-id {host}, or ssh-add for a key with a "
            "passphrase; codes and passwords need a terminal"
        ),
    ),
    (
        "IDENTIFICATION HAS CHANGED|Host key verification failed",
        "'ssh {host}' once by hand, and compare the host's key with what its owner says",
    ),
    (
        r"(kex|ssh)_exchange_identification|Connection (closed|reset) by \S+ port",
        (
            "its sshd takes only so many logins at once (MaxStartups), or refuses this address: "
            "wait, or share one connection (ControlMaster)"
        ),
    ),
    ("Too many authentication failures", "say which key: IdentityFile and IdentitiesOnly yes"),
    ("Bad owner or permissions|UNPROTECTED PRIVATE KEY", "chmod 600 on that file"),
    (
        "ControlPath too long|too long for Unix domain socket",
        "the path of a socket may have about 100 characters: ControlPath=~/.ssh/cm-%C is short",
    ),
    ("Bad configuration option|unknown option|usage: ssh", "check ssh_options and ~/.ssh/config"),
)


def _read(channel: ProcessChannel, trace: _Trace, told: str) -> Iterator[Step]:
    if trace.error:
        yield _not_started(channel, trace)
        return
    remote = isinstance(channel, SshChannel)
    if remote and "shell" not in trace.steps:
        yield from _no_shell(channel, trace)
        return
    if remote:
        yield Step("login", "ok", f"{channel.name} logs in, and its shell runs commands")
        failure = _failed_setup(channel, trace)
        if failure is not None:
            yield failure
            return
    report = trace.report
    if report is None:
        yield _no_python(channel, trace)
        return
    where = f"{report.get('python')} ({report.get('executable')}), in {report.get('cwd')}"
    if not _is_new_enough(str(report.get("python"))):
        yield Step(
            "python",
            "failed",
            f"{where}: fleche needs Python 3.10 or newer",
            'say which with python = "/path/to/python" in fleche.toml',
        )
        return
    yield Step("python", "ok", where)
    if report.get("heard") != f"{trace.mark}hello":
        yield Step(
            "standard input",
            "failed",
            "what is sent to the server is read by something else that is started before it",
            _EATEN,
        )
        return
    yield from _read_report(report, told)


def _not_started(channel: ProcessChannel, trace: _Trace) -> Step:
    workdir = getattr(channel, "workdir", None)
    if isinstance(channel, LocalSubprocessChannel) and workdir and workdir in trace.error:
        return Step("workdir", "failed", trace.error, "make it, or correct workdir in fleche.toml")
    return Step(
        "python",
        "failed",
        f"{getattr(channel, 'python', None) or 'the interpreter'}: {trace.error}",
        "correct python in fleche.toml",
    )


def _no_shell(channel: ProcessChannel, trace: _Trace) -> Iterator[Step]:
    words = trace.last_words()
    if trace.greeting_came_back or (trace.closed and trace.status is not None):
        yield Step(
            "standard input",
            "failed",
            f"{channel.name}: a start-up file of the account reads standard input, so that no "
            "command is reached",
            _EATEN,
        )
        return
    host = getattr(channel, "host", "the host")
    if trace.status == 255:
        for pattern, advice in _SSH_REASONS:
            if re.search(pattern, trace.err):
                yield Step("login", "failed", words, advice.replace("{host}", host))
                return
        yield Step("login", "failed", words or "ssh failed", f"'ssh -v {host} true' says more")
        return
    status = "no end" if trace.status is None else f"exit status {trace.status}"
    said = f": {words}" if words else ""
    yield Step(
        "shell",
        "failed",
        f"logged in, but the commands were not run ({status}){said}",
        "the account may have no shell (nologin), a start-up file that exits, or a key with a "
        f"forced command: 'ssh {host} echo works' must print 'works'",
    )


def _failed_setup(channel: ProcessChannel, trace: _Trace) -> Step | None:
    workdir, setup = getattr(channel, "workdir", None), getattr(channel, "setup_commands", ())
    if workdir and "workdir" not in trace.steps:
        return Step(
            "workdir",
            "failed",
            f"{workdir}: {trace.last_words() or 'cannot be changed to'}",
            "make the directory there, or correct workdir in fleche.toml",
        )
    for number, command in enumerate(setup, 1):
        if f"setup {number}" not in trace.steps:
            hangs = " it does not end;" if trace.status is None else ""
            return Step(
                "setup_commands",
                "failed",
                f"number {number} fails: {command!r}:{hangs} {trace.last_words()}".rstrip(" :"),
                "try it in a login shell there; what follows it is not run",
            )
    return None


def _no_python(channel: ProcessChannel, trace: _Trace) -> Step:
    python = getattr(channel, "python", None) or "python"
    host = getattr(channel, "host", None)
    ask = f"'ssh {host} which python3' shows what there is; " if host else ""
    return Step(
        "python",
        "failed",
        f"{python} does not run (exit status {trace.status}): {trace.last_words()}".rstrip(": "),
        f'{ask}say which with python = "/path/to/python", or load it in setup_commands',
    )


def _is_new_enough(version: str) -> bool:
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= (3, 10)


def _read_report(report: dict[str, Any], told: str) -> Iterator[Step]:
    python = report.get("executable")
    other = 'if an environment there has it, name its interpreter: python = "/path/to/bin/python"'
    install = f"install fleche {__version__} for {python}, as it was installed here"
    if "missing" in report:
        absent = "No module named" in str(report["missing"])
        yield Step(
            "fleche",
            "failed",
            f"that interpreter has no fleche ({report['missing']})"
            if absent
            else f"its fleche cannot be imported: {report['missing']}",
            f"{other}; or else {install}",
        )
        return
    if report.get("file") is None:
        yield Step(
            "fleche",
            "failed",
            f"that interpreter has no fleche, only {report.get('only')}, a directory of that name",
            f"{other}; or else {install}",
        )
        return
    where = f"{report.get('version')} ({report.get('file')})"
    if "other" in report:
        yield Step(
            "fleche",
            "failed",
            f"{where} is a different package of that name, or another version: {report['other']}",
            f"{other}; or else {install}. What is in the workdir comes first, too",
        )
        return
    yield Step("fleche", "ok", where)
    if "broken" in report:
        yield Step(
            "cache",
            "failed",
            str(report["broken"]),
            "mend, or write, the fleche.toml there: it is looked for upward from "
            f"{report.get('cwd')}",
        )
        return
    yield Step("server", "failed", told, "all steps before it work: try once more")
