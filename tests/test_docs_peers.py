"""The comparison with other caches tells the truth, for those that are installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "explanation" / "comparison.md").read_text()

_STUDY = """\
{setup}
import far
K = 2

def helper(x):
    return K * x

@keep
def f(x):
    # a comment
    open("runs", "a").write("x")
    return helper(x) + far.far(x)
"""
_FAR = "def far(x):\n    return x\n"
_ASK = "import sys, study as s; f = s.f; print(eval(sys.argv[1]))"
_ASK_REDUN = """
import sys
from redun import Scheduler
from redun.config import Config
from study import f
scheduler = Scheduler(config=Config({"backend": {"db_uri": "sqlite:///redun.db"}}))
scheduler.load()
print(scheduler.run(eval(sys.argv[1])))
"""
# marimo knows the cells of a notebook, so the study is one.
_NOTEBOOK = """\
import marimo
app = marimo.App()

@app.cell
def _():
    import sys
    import marimo as mo
    import far
    return far, mo, sys

@app.cell
def _():
    K = 2
    return (K,)

@app.cell
def _(K):
    def helper(x):
        return K * x
    return (helper,)

@app.cell
def _(far, helper, mo):
    @mo.persistent_cache(save_path="cache")
    def f(x):
        # a comment
        open("runs", "a").write("x")
        return helper(x) + far.far(x)
    return (f,)

@app.cell
def _(f, sys):
    print(eval(sys.argv[1]))

app.run()
"""
SETUPS = {
    "joblib": "from joblib import Memory\nkeep = Memory('cache', verbose=0).cache",
    "diskcache": "from diskcache import Cache\nkeep = Cache('cache').memoize()",
    "cachier": "from cachier import cachier\nkeep = cachier(cache_dir='cache')",
    "redun": "from redun import task\nredun_namespace = 'n'\nkeep = task()",
    "marimo": "",
    "fleche": "from fleche import fleche as keep",
}
# What the first column of the table says: what is edited, in which file, and into what.
EDITS = {
    "the body of the function": ("study", "return helper(x) +", "return 100 + helper(x) +"),
    "a helper beside it": ("study", "return K * x", "return K * x + 1"),
    "a constant beside it": ("study", "K = 2", "K = 5"),
    "a helper in another module": ("far", "return x", "return x + 1"),
    "a comment in the body": ("study", "# a comment", "# another comment"),
}


class Study:
    """A module and a helper in another one, in a directory with a cache."""

    def __init__(self, tool: str, directory: Path) -> None:
        self.tool = tool
        self.directory = directory
        self.runs = directory / "runs"
        self.files = {"study": _STUDY.format(setup=SETUPS[tool]), "far": _FAR}
        if tool == "marimo":
            self.files["study"] = _NOTEBOOK
        self._write(self.files)
        (directory / "fleche.toml").write_text(
            '[default]\nroot = true\ncache = "c"\n[c]\ntype = "local"\nroot = "cache"\n'
        )

    def edited(self, file: str, old: str, new: str) -> str:
        """Say what becomes of f(3) in a fresh process after an edit."""
        assert old in self.files[file]
        self._write({**self.files, file: self.files[file].replace(old, new)})
        before = self._printed
        computed = self.ask("f(3)")
        if computed:
            return "computed"
        assert self._printed == before
        return "hit"

    def restored(self) -> str:
        """Say what becomes of f(3) when all is as it was."""
        self._write(self.files)
        return "computed" if self.ask("f(3)") else "hit"

    def ask(self, call: str) -> bool:
        """Make a call in a fresh process; was it computed?"""
        before = self._count()
        scripts = {"redun": ["-c", _ASK_REDUN], "marimo": ["study.py"]}
        script = scripts.get(self.tool, ["-c", _ASK])
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.directory), str(ROOT)]),
        }
        done = subprocess.run(
            [sys.executable, "-B", *script, call],
            cwd=self.directory,
            env={**environment, "HOME": str(self.directory)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        self._printed = done.stdout.strip().splitlines()[-1]
        return self._count() > before

    def _count(self) -> int:
        return len(self.runs.read_text()) if self.runs.exists() else 0

    def _write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.directory / f"{name}.py").write_text(text)


def table() -> dict[str, dict[str, str]]:
    """The first table of the page: by line and tool, what happens."""
    (text,) = re.findall(r"^## What a result.*?(\| \|.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)[:1]
    head, _, *rows = [
        [cell.strip(" *") for cell in line.strip("|").split("|")] for line in text.splitlines()
    ]
    tools = [name.split()[0] for name in head[1:] if name]
    return {row[0]: dict(zip(tools, row[1:], strict=True)) for row in rows}


def test_the_table_has_a_column_for_each() -> None:
    rows = table()
    assert set(EDITS) < set(rows)
    assert all(list(row) == list(SETUPS) for row in rows.values())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("tool", SETUPS)
def test_what_a_result_depends_on(tool: str, tmp_path: Path) -> None:
    """Each cell of the table is what happens."""
    if find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed")
    study = Study(tool, tmp_path)
    assert study.ask("f(3)")
    assert not study.ask("f(3)")
    found = {}
    for line, edit in EDITS.items():
        found[line] = study.edited(*edit)
        if found[line] == "hit" and line != "a comment in the body":
            found[line] = "old result"
        if line == "the body of the function":
            found["the body as it was before"] = study.restored()
        else:
            study.restored()
    found["`f(x=3)` after `f(3)`"] = "computed" if study.ask("f(x=3)") else "hit"
    assert found == {line: row[tool] for line, row in table().items()}
