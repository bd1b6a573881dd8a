"""Data in variables that changes in place: seen at the next call, and looked at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from fleche.function._patched import own_parts
from tests.test_code import ROOT, Project

CHANGES = {
    "a member of a set": ("s = {A(1), A(2)}", "A.made.remove(s.pop()); s.add(A(3))"),
    "an equal member of a set": ("s = {E(1)}", "s.clear(); s.add(E(2))"),
    "what a member of a set holds": ("s = {A(1)}", "next(iter(s)).n = 5"),
    "a slot": ("s = S(1)", "s.n = 2"),
    "a slot that was not set": ("s = S(1)", "s.m = 2"),
    "what a slot holds": ("s = S([1])", "s.n.append(2)"),
    "a slot beside attributes": ("s = B(1)", "s.n = 2"),
    "an attribute beside slots": ("s = B(1)", "s.other = 2"),
    "an attribute of a tuple": ("s = T((1, 2))", "s.n = 2"),
    "what a tuple of one's own holds": ("s = T((1, [2]))", "s[1].append(3)"),
    "an item of a dict of one's own": ("s = D(a=1)", "s['a'] = 2"),
    "an item of a list of one's own": ("s = L([1])", "s[0] = 2"),
    "a class": ("s = A(1)", "s.__class__ = C"),
    "plain data in a tuple": ("s = (1, ([2], 3))", "s[1][0].append(3)"),
    "far inside": ("s = {'a': [A((S([A(1)]), 2))]}", "s['a'][0].n[0].n[0].n = 5"),
    "in a ring": ("s = A(1); s.o = A(s)", "s.o.p = 5"),
}
CLASSES = """
class A:
    made = []
    def __init__(self, n):
        self.n = n
        A.made.append(self)
class C(A): pass
class E(A):
    def __eq__(self, other): return isinstance(other, E)
    def __hash__(self): return 1
class S:
    __slots__ = ("n", "m")
    def __init__(self, n): self.n = n
class B(S): pass
class T(tuple): pass
class D(dict): pass
class L(list): pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project")
    yield made
    made.forget()


@pytest.mark.parametrize(("source", "change"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen(project: Project, source: str, change: str) -> None:
    """At the next call, wherever it is."""
    tracker = project.tracker({"entry": f"{CLASSES}\n{source}\ndef f(x): return (s, x)\n"})
    before = tracker.closure()
    assert tracker.closure() is before
    exec(change, vars(sys.modules["entry"]))
    assert tracker.closure().digest != before.digest


GRAPH = """
class Kind(tuple):
    parent = None
    def __init__(self, *names): self.below = set()
    def __getattr__(self, name):
        if name[:1].islower(): raise AttributeError(name)
        new = Kind((*self, name))
        setattr(self, name, new)
        self.below.add(new)
        new.parent = self
        return new
root = Kind()
STYLES = {getattr(getattr(root, a), b): a + b for a in "ABCDEF" for b in "ABCDEF"}
def f(x): return STYLES[x]
"""


def test_a_graph_is_looked_at_once(project: Project) -> None:
    """However many ways lead through it."""
    tracker = project.tracker({"entry": GRAPH})
    before = tracker.closure()
    calls = 0

    def count(_frame: FrameType, event: str, _arg: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        after = tracker.closure()
    finally:
        sys.setprofile(None)
    assert after is before
    assert calls < 2000


def test_the_environment_counts_by_name(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is another one in each session; what is read from it is for ``depends=``."""
    files = {"entry": "import os\nENV = os.environ\ndef f(x): return ENV.get(x)\n"}
    tracker = project.tracker(files)
    before = tracker.closure()
    monkeypatch.setenv("THIS_SESSION", "1")
    assert tracker.closure() is before
    assert project.digest(files) == before.digest


def test_what_an_installed_package_has_generated(project: Project) -> None:
    """Methods that attrs writes as text for its own classes differ from process to process."""
    attr = pytest.importorskip("attr")
    assert own_parts(vars(attr.Attribute)["__hash__"]) == {}
    source = "import attr\ndef f(x): return hash(attr.fields(x))\n"
    found = project.tracker({"entry": source}).closure().nodes
    assert not [label for label in found if label.startswith("?")]


def test_modules_are_taken_in_one_order(tmp_path: Path) -> None:
    """Whatever the order of sets: functions that are called alike are numbered as they come."""
    modules = ["alpha", "beta", "gamma", "delta"]
    (tmp_path / "maker.py").write_text("def make(k):\n    return lambda x: x + k\n")
    for number, name in enumerate(modules):
        (tmp_path / f"{name}.py").write_text(f"from maker import make\ng = make({number})\n")
    asked = " + ".join(f"vars({name})[name](x)" for name in modules)
    (tmp_path / "entry.py").write_text(
        f"import {', '.join(modules)}\ndef f(x, name):\n    return {asked}\n"
    )
    program = (
        "import entry; from fleche.function import CodeTracker;"
        " print(CodeTracker(entry.f, 'entry').closure().digest)"
    )
    found = set()
    paths = f"{tmp_path}{os.pathsep}{ROOT}"
    for seed in range(5):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": paths}
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True
        )
        found.add(run.stdout)
    assert len(found) == 1
