"""The search of the built documentation finds guides before internals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("node") is None, reason="the search is JavaScript, for node"),
    pytest.mark.skipif(find_spec("sphinx") is None, reason="Sphinx is not installed"),
]

# What a browser has and the search needs, and the search as the page loads it.
_ASK = """
const fs = require("fs"), path = require("path"), vm = require("vm");
const [directory, ...queries] = process.argv.slice(2);
const nothing = new Proxy(function () {}, {
  get: (_, name) => (name === Symbol.toPrimitive ? () => "" : nothing), apply: () => nothing,
  set: () => true, has: () => true,
});
const browser = {
  document: { currentScript: nothing, getElementById: () => null, readyState: "loading",
    addEventListener: () => {}, documentElement: nothing }, _: (text) => text,
  _ready: () => {}, console, URLSearchParams, location: { search: "" },
};
browser.DOCUMENTATION_OPTIONS = {};
browser.SPHINX_HIGHLIGHT_ENABLED = false;
browser.window = browser;
vm.createContext(browser);
const read = (name) => fs.readFileSync(path.join(directory, name), "utf8");
const load = (code) => vm.runInContext(code, browser);
const scripts = fs.readdirSync(path.join(directory, "_static"));
const stemmers = scripts.filter((name) => name.includes("stemmer"));
for (const name of [...stemmers, "language_data.js", "searchtools.js"]) {
  load(read("_static/" + name));
}
load("globalThis.Search = Search");
load(read("searchindex.js"));
const found = {};
for (const query of queries) {
  browser.query = query;
  const results = load("Search._performSearch(...Search._parseQuery(query))");
  found[query] = results.reverse().map((each) => [each[0], each[1]]);
}
console.log(JSON.stringify(found));
"""

GUIDES = {
    "ssh": "howto/ssh",
    "file": "howto/files",
    "files": "howto/files",
    "notebook": "howto/notebooks",
    "hdf5": "howto/hdf5",
    "group": "howto/group",
    "sign": "howto/sign",
    "fork": "explanation/fork",
    "tutorial": "tutorial",
}
NAMES = ("SshCache", "cache_from_config", "wrap_executor", "MISSING")
MARKER = "Ignored"  # has a guide, and an entry that autodoc does not write
COMMON = ("remote", "cache", "value")


def test_guides_are_found_before_internals(tmp_path: Path) -> None:
    """A word finds its guide first, a name of the code its entry in the reference."""
    built = tmp_path / "html"
    command = [sys.executable, "-m", "sphinx", "--quiet", "-d", str(tmp_path / "doctrees")]
    subprocess.run([*command, "-b", "html", str(DOCS), str(built)], check=True)
    found = search(built, *GUIDES, *NAMES, MARKER, *COMMON)
    assert {words: found[words][0][0] for words in GUIDES} == GUIDES
    for name in NAMES:
        page, title = found[name][0]
        assert page.startswith("reference/api/"), name
        assert title.endswith(name)
    assert found[MARKER][0][0] == "howto/arguments"
    assert any(title.endswith(f".{MARKER}") for _, title in found[MARKER])
    for words in COMMON:
        pages = [page for page, _ in found[words]]
        first_guide = next(n for n, page in enumerate(pages) if page.startswith("howto/"))
        internals = ("protocol", "explanation/architecture")
        assert first_guide < min(n for n, page in enumerate(pages) if page in internals), words


def search(built: Path, *queries: str) -> dict[str, list[tuple[str, str]]]:
    """Give what the search shows for each: pages and titles, the first one first."""
    command = ["node", "-", str(built), *queries]
    done = subprocess.run(command, input=_ASK, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {
        words: [tuple(each) for each in found] for words, found in json.loads(done.stdout).items()
    }
