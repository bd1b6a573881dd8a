"""Pages of the documentation as something to run.

A page is a sequence of fenced blocks, and what is run is decided by their language:

- `python`: run in the interpreter of the page, all blocks in one namespace. If the first line is
  the name of a file (`# study.py`), the block is that file and is written.
- `pycon`: the same as a session, with the output that it must have.
- `toml`: a `fleche.toml` that must load, each of its caches included, or the user's own
  file, if its first line says so. With another name of a file there it is written too.
- `console`: lines after `$ ` are run by a shell, in one working directory; the others are the
  output that they must have. `...` stands for anything.
- `sh`, `text` and others: not run. Commands of fleche in them must exist all the same.

A comment on the line before a block says what is special about it:

- `<!-- skip: why -->`: it cannot be run here.
- `<!-- needs: names -->`: it is run where these are: modules that can be imported, or programs.
- `<!-- bytes: expression -->`: the block shows, in hexadecimal, what the expression gives.
- `<!-- line: expression -->`: the block shows it as text.
- `<!-- run: code -->`: code that the reader need not see.
- `<!-- restart -->`: from here on in a fresh interpreter, in the shell's working directory.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "DOCS",
    "LANGUAGES",
    "Block",
    "Kernel",
    "Page",
    "Reply",
    "Shell",
    "config_file",
    "hexadecimal",
    "is_like",
    "pages",
]

DOCS = Path(__file__).parents[2] / "docs"
LANGUAGES = {"python", "pycon", "toml", "console", "sh", "text", "json", "{toctree}", "{include}"}

_FENCE = re.compile(
    r"^(?P<fence>```+)(?P<language>[^`\n]*)\n(?P<code>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"^<!-- *(?P<verb>\w+)(?:: *(?P<rest>.*?))? *-->$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+\.(?:py|toml))\n")
_HEX_LINE = re.compile(r"((?:[0-9a-f]{2} ?)+)(?: {2}.*)?")

_KERNEL = """\
def serve():
    import contextlib, io, json, linecache, os, sys, traceback
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    namespace = sys.modules["__main__"].__dict__
    del namespace["serve"]
    for number, line in enumerate(sys.stdin):
        request, text = json.loads(line), io.StringIO()
        source, file = request["source"], f"<block {number}>"
        linecache.cache[file] = len(source), None, source.splitlines(True), file
        error = trace = None
        with contextlib.redirect_stdout(text):
            try:
                exec(compile(source, file, request["mode"]), namespace)
            except Exception as raised:
                error = "".join(traceback.format_exception_only(raised))
                trace = traceback.format_exc()
        reply = {"output": text.getvalue(), "error": error, "trace": trace}
        answers.write(json.dumps(reply) + "\\n")

serve()
"""


@dataclass(frozen=True)
class Block:
    """One fenced block, or code in a comment (language `run` or `restart`)."""

    page: str
    line: int
    language: str
    code: str
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def where(self) -> str:
        return f"docs/{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name of the file that the block is."""
        found = _FILE.match(self.code) if self.language in ("python", "toml") else None
        return found[1] if found else None

    @property
    def lacking(self) -> list[str]:
        """What the block needs and this machine has not."""
        needed = (self.note("needs") or "").replace(",", " ").split()
        return [each for each in needed if not (find_spec(each) or shutil.which(each))]

    def note(self, verb: str) -> str | None:
        """What the comment before the block says, if it begins with `verb`."""
        return dict(self.notes).get(verb)


def config_file(text: str) -> Path:
    """The file that a configuration is: the user's own, if its first line says so."""
    own = "~/.config/fleche/cache.toml"
    path = Path(own if text.startswith(f"# {own}\n") else "fleche.toml").expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class Page(NamedTuple):
    """A page of the documentation and its blocks, in order."""

    name: str
    text: str
    blocks: tuple[Block, ...]


class Reply(NamedTuple):
    """What a piece of code did."""

    output: str
    error: str | None
    trace: str | None


def pages() -> list[Page]:
    """Every page written by hand."""
    found = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
    return [_read(path) for path in found]


def _read(path: Path) -> Page:
    name, text = path.relative_to(DOCS).as_posix(), path.read_text()
    return Page(name, text, tuple(_blocks(name, text)))


def _blocks(name: str, text: str) -> Iterator[Block]:
    fences = list(_FENCE.finditer(text))
    inside = [fence.span() for fence in fences]
    comments = [
        comment
        for comment in _COMMENT.finditer(text)
        if not any(start <= comment.start() < end for start, end in inside)
    ]
    taken: list[re.Match[str]] = []
    for found in sorted([*fences, *comments], key=lambda match: match.start()):
        line = text.count("\n", 0, found.start()) + 1
        if found.re is _FENCE:
            notes = tuple((c["verb"], c["rest"] or "") for c in taken)
            language, _, _ = found["language"].strip().partition(" ")
            yield Block(name, line, language, found["code"], notes)
            taken = []
        elif found["verb"] in ("run", "restart"):
            yield Block(name, line, found["verb"], found["rest"] or "")
        else:
            taken.append(found)


class Kernel:
    """An interpreter that runs one piece of code after another as its `__main__`."""

    def __init__(
        self, directory: Path, env: dict[str, str], python: Sequence[str] = (sys.executable,)
    ) -> None:
        """Start it; `python` is the command, which may make it another user's process."""
        self._process = subprocess.Popen(
            [*python, "-c", _KERNEL],
            cwd=directory,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, source: str, mode: str = "exec") -> Reply:
        """Run `source`; its mode is that of `compile`."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"source": source, "mode": mode}) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, "the interpreter has died"
        return Reply(**json.loads(answer))

    def close(self) -> None:
        self._process.communicate()


class Shell:
    """A shell that stays in the directory where the last command has left it."""

    def __init__(
        self, directory: Path, env: dict[str, str], shell: Sequence[str] = ("bash",)
    ) -> None:
        """Begin in `directory`; `shell` is the command, which may make it another user's."""
        self.directory = directory
        self._env = env
        self._command = shell

    def run(self, command: str) -> str:
        """Run `command` and return what it prints, on either stream."""
        script = f'{command}\nstatus=$?; pwd >&3; exit "$status"'
        read, write = os.pipe()
        with os.fdopen(read) as where:
            done = subprocess.run(
                [*self._command, "-c", f"exec 3>&{write}; {script}"],
                cwd=self.directory,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                pass_fds=[write],
            )
            os.close(write)
            self.directory = Path(where.readline().strip() or self.directory)
        return done.stdout


def is_like(expected: str, found: str) -> bool:
    """Return whether `found` is what `expected` says, but for `...`, blanks, times and places."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    checker = doctest.OutputChecker()
    return checker.check_output(_timeless(expected), _timeless(found), flags)


def _timeless(text: str) -> str:
    """Put the same for every time, for what follows it in a table, and for every rule of one."""
    text = re.sub(r"-{4,}", "----", text.strip())
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d +[\d.e+-]+|(?:just now|\d+ \w+ ago) +[\d.]+ [mµ]?s"
    return re.sub(rf"(?:{when})  \S+@\S+", "WHEN WHERE", text) + "\n"


def hexadecimal(code: str) -> bytes:
    """The bytes that a block shows; what follows two blanks is said about them."""
    digits = ""
    for line in code.splitlines():
        found = _HEX_LINE.fullmatch(line)
        assert found, f"not a line of bytes: {line!r}"
        digits += found[1]
    return bytes.fromhex(digits)


def environment(home: Path) -> dict[str, Any]:
    """What the programs of a page find in their environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, **_OPEN_MPI, **_DASK, "HOME": str(home), "PATH": path, "COLUMNS": "150"}


# Workers may say, while their cluster closes, that it no longer answers.
_DASK = {"DASK_LOGGING__DISTRIBUTED": "critical"}

# Two ranks are started for root and on one core, too.
_OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
