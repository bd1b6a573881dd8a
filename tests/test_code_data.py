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

from fleche.function._clocks import is_from_clock_now
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
    "a part of what a dict of one's own holds": ("s = D(a=[[1]])", "s['a'][0].append(2)"),
    "an attribute of a dict of one's own": ("s = D(a=1)", "s.n = 2"),
    "a new item of a dict of one's own": ("s = {'a': D()}", "s['a']['b'] = 2"),
    "an item of a list of one's own": ("s = L([1])", "s[0] = 2"),
    "a class": ("s = A(1)", "s.__class__ = C"),
    "plain data in a tuple": ("s = (1, ([2], 3))", "s[1][0].append(3)"),
    "far inside": ("s = {'a': [A((S([A(1)]), 2))]}", "s['a'][0].n[0].n[0].n = 5"),
    "in a ring": ("s = A(1); s.o = A(s)", "s.o.p = 5"),
    "which of a ring": ("s = A(1); s.o = A(s); s.p = A(s.o)", "s.p.n = s"),
    "below a thousand others": (
        "s = A(None)\nfor _ in range(1000): s = A(s)",
        "at = s\nwhile at.n.n: at = at.n\nat.n.n = 5",
    ),
    "in what two variables share": ("s = [A(1)]; t = A(s)", "s[0].n = 2"),
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


WAYS = {
    "lists in lists": "s = [A(1)]\nfor _ in range(60): s = [s, s]",
    "objects that know their neighbours": """
s = [[A(0) for _ in range(12)] for _ in range(12)]
for i in range(12):
    for j in range(12): s[i][j].near = [s[i - 1][j], s[i][j - 1], s[i - 11][j], s[i][j - 11]]
""",
}


@pytest.mark.parametrize("source", WAYS.values(), ids=WAYS)
def test_as_many_ways_as_one_likes(project: Project, source: str) -> None:
    """What many ways lead to, in circles or not, is described once."""
    tracker = project.tracker({"entry": f"{CLASSES}\n{source}\ndef f(x): return (s, x)\n"})
    before = tracker.closure()
    assert tracker.closure() is before
    exec("A.made[-1].n = A.made[0].n = 7", vars(sys.modules["entry"]))
    assert tracker.closure().digest != before.digest


CLOCKED = """
import dataclasses, datetime, os, random, time, uuid
class Run:
    def __init__(self, seed=None):
        self.started, self.at = time.time(), datetime.datetime.now()
        self.count, self.pid = time.perf_counter_ns(), os.getpid()
        self.name, self.key = str(uuid.uuid4()), uuid.uuid4()
        self.seed = seed or random.randrange(10**9)
@dataclasses.dataclass
class Made:
    n: int
    at: float = dataclasses.field(default_factory=time.perf_counter)
run, made = Run(5), Made(1)
def f(x): return (run, made, x)
"""


@pytest.mark.parametrize(
    "change",
    [
        *("run.started = 5.0", "run.at = None", "run.at = datetime.datetime(2020, 1, 2)"),
        *("run.count = 5", "run.pid = -1", "run.name = 'mine'", "run.key = 1", "run.seed = 6"),
        *("made.at = 2.0", "made.n = 2"),
    ],
)
def test_attributes_by_the_clock(project: Project, change: str) -> None:
    """They count as they are written, unless the program has set them to something else."""
    first, second = (project.digest({"entry": CLOCKED}) for _ in range(2))
    assert first == second
    assert project.digest({"entry": CLOCKED.replace("def f", f"{change}\ndef f")}) != first


def test_a_count_of_the_clock_need_not_be_odd() -> None:
    """One in a thousand ends with three noughts; as in seconds, milliseconds are a person's."""
    moment = 7 * 10**6 + 11_000
    assert is_from_clock_now(10**9 + moment)
    assert is_from_clock_now(1 + moment / 1e9)
    assert not is_from_clock_now(10**9 + 7 * 10**6)
    assert not is_from_clock_now(1.007)


MEMBERS = """
def make(k):
    def inner(x): return k * x
    return inner
class A:
    def __init__(self, k): self.k, self.act = k, make(k)
LATER = [bytearray(SIZE) for _ in range(SIZE)]
s = {make(k) for k in range(9)} | {A(k) for k in range(9)} | {(make(7), 1)}
def f(x): return (s, x)
"""


def test_the_members_of_a_set_have_no_order(tmp_path: Path) -> None:
    """Where they lie in memory does not decide which of two functions is called the first."""
    code = "from fleche.function._dependencies import CodeTracker, own_code\nimport entry\n"
    code += "roots = own_code({entry.make(k) for k in range(9)})\n"
    code += "print([CodeTracker(entry.f, 'entry').closure(r).digest for r in ((), roots)])"
    found = set()
    for size in range(4):
        (tmp_path / "entry.py").write_text(f"SIZE = {50 * size}\n{MEMBERS}")
        env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
        command = [sys.executable, "-B", "-c", code]
        found.add(subprocess.run(command, env=env, check=True, capture_output=True).stdout)
    assert len(found) == 1


ABSENT = """
class Proxy:
    def __getattr__(self, name): raise RuntimeError(name)
    @property
    def __dict__(self): raise RuntimeError("__dict__")
class Late:
    @property
    def __class__(self): raise RuntimeError("__class__")
proxy, late = Proxy(), Late()
def f(x): return proxy.n + x
"""


def test_what_stands_for_something_that_is_not_there(project: Project) -> None:
    """The request of a web server, or what is imported when it is used: it counts by its type."""
    tracker = project.tracker({"entry": ABSENT})
    assert tracker.closure() is tracker.closure()


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
