"""Shared libraries that a program loads by ctypes or cffi count by the bytes of their files."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.scripts import run_script
from tests.helpers.sweeps import swept

KERNEL = """
double half(double x) { return x / 2; }
int twice(int x) { return 2 * x; }
"""
HEAD = """
import ctypes, os, pathlib
HERE = os.path.dirname(os.path.abspath(__file__))
def ran(x):
    print("ran")
    return x
"""
LIB = 'LIB = ctypes.CDLL("./libk.so")\n'
BODY = "@fleche\ndef f(x):\n    return ran({})\n"
OBJECT = """
class Kernel:
    def __init__(self):
        self.lib = ctypes.CDLL("./libk.so")
    def go(self, x):
        return self.lib.twice(x)
kernel = Kernel()
"""
SET_IN_BODY = """
@fleche
def f(x):
    LIB.twice.restype = ctypes.c_int
    LIB.twice.argtypes = [ctypes.c_int]
    return ran(LIB.twice(x))
"""
BY_CFFI = """
import cffi
ffi = cffi.FFI()
ffi.cdef("int twice(int);")
LIB = ffi.dlopen("./libk.so")
"""
COMPILE = """
import cffi
ffi = cffi.FFI()
ffi.cdef("int twice(int);")
ffi.set_source("kernel", {source!r})
ffi.compile()
"""

PROGRAMS = {
    "in a variable": LIB + BODY.format("LIB.twice(x)"),
    "a function of it": f"{LIB}twice = LIB.twice\n" + BODY.format("twice(x)"),
    "loaded in the body": BODY.format('ctypes.CDLL(os.path.join(HERE, "libk.so")).twice(x)'),
    "by a path in a variable": 'PATH = pathlib.Path(HERE, "libk.so")\n'
    + BODY.format("ctypes.CDLL(str(PATH)).twice(x)"),
    "in an object": OBJECT + BODY.format("kernel.go(x)"),
    "with types that the body sets": LIB + SET_IN_BODY,
    "by numpy": 'import numpy\nLIB = numpy.ctypeslib.load_library("libk", HERE)\n'
    + BODY.format("LIB.twice(x)"),
    "by cffi": BY_CFFI + BODY.format("LIB.twice(x)"),
}

BUILT = {
    "joined": 'os.path.join(HERE, "build", "libk.so")',
    "joined of more": 'os.path.join(HERE, "build", "release", "libk.so")',
    "divided": 'ROOT / "build" / "libk.so"',
    "in a variable": 'os.path.join(BUILD, "libk.so")',
    "below a variable": 'os.path.join(BUILD, "release", "libk.so")',
    "with a separator": 'os.path.join(HERE, "build/release/libk.so")',
}
"""Paths that a body makes."""

SET = {
    "the type of a result": (
        "LIB.half.restype = ctypes.c_double\nLIB.half.argtypes = [ctypes.c_double]\n"
        + BODY.format("LIB.half(x)"),
        "LIB.half.restype = ctypes.c_double\n",
        "",
    ),
    "a check of results": (
        "def check(found, *_): return found + 1\nLIB.twice.errcheck = check\n"
        + BODY.format("LIB.twice(x)"),
        "found + 1",
        "found + 2",
    ),
    "a function that is called back": (
        "def add(x): return x + 1\nback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(add)\n"
        + BODY.format("back(x)"),
        "x + 1",
        "x + 2",
    ),
    "a function that is called back, decorated": (
        "@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)\ndef back(x): return x + 1\n"
        + BODY.format("back(x)"),
        "x + 1",
        "x + 2",
    ),
}


def build(directory: Path, source: str = KERNEL) -> None:
    (directory / "k.c").write_text(source)
    command = [compiler(), "-shared", "-fPIC", "k.c", "-o", "libk.so"]
    subprocess.run(command, check=True, cwd=directory, timeout=60)


def compiler() -> str:
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        pytest.skip("there is no compiler of C")
    return found


def run(directory: Path, program: str) -> str:
    return run_script(directory, HEAD + program + "print(f(3))\n")


@pytest.mark.parametrize("name", swept(PROGRAMS, list(PROGRAMS)[:3].__contains__))
def test_a_library_that_is_built_anew(tmp_path: Path, name: str) -> None:
    """It counts by the bytes of its file, however the program comes by it."""
    if name.startswith("by ") and name[3:] in ("numpy", "cffi"):
        pytest.importorskip(name[3:])
    build(tmp_path)
    assert [run(tmp_path, PROGRAMS[name]) for _ in range(2)] == ["ran\n6\n", "6\n"]
    build(tmp_path, KERNEL.replace("2 * x", "3 * x"))
    assert run(tmp_path, PROGRAMS[name]) == "ran\n9\n"


@pytest.mark.parametrize("where", ["the working directory", "DYLD_LIBRARY_PATH"])
def test_where_macos_looks_for_a_bare_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A library that has no directory in its name is found there, and counts by its bytes."""
    program = f'{LIB}LIB._name = "libk.so"\n' + BODY.format("LIB.twice(x)")
    if where == "DYLD_LIBRARY_PATH":
        monkeypatch.setenv(where, f"/nowhere{os.pathsep}{tmp_path}")
        program += "os.chdir('/')\n"
    else:
        asked = "import sys, sysconfig\nsysconfig.get_config_vars()\n"  # while it is what it is
        program = f'{asked}sys.platform = "darwin"\n{program}'
    build(tmp_path)
    assert [run(tmp_path, program) for _ in range(2)] == ["ran\n6\n", "6\n"]
    build(tmp_path, KERNEL.replace("2 * x", "3 * x"))
    assert run(tmp_path, program) == "ran\n9\n"


@pytest.mark.parametrize("name", swept(BUILT, {"divided", "below a variable"}.__contains__))
def test_a_body_that_loads_it_from_another_directory(tmp_path: Path, name: str) -> None:
    """Those in its path may stand apart, in the body or in variables."""
    program = (
        'BUILD = os.path.join(HERE, "build")\nROOT = pathlib.Path(__file__).resolve().parent\n'
    )
    program += BODY.format(f"ctypes.CDLL(str({BUILT[name]})).twice(x)")
    directory = tmp_path / "build" / "release"
    directory.mkdir(parents=True)
    for source, number in ((KERNEL, 6), (KERNEL.replace("2 * x", "3 * x"), 9)):
        build(directory, source)
        shutil.copy(directory / "libk.so", tmp_path / "build")
        assert [run(tmp_path, program) for _ in range(2)] == [f"ran\n{number}\n", f"{number}\n"]


@pytest.mark.parametrize(("place", "counts"), [("src/project", True), ("lib", False)])
def test_what_is_below_the_prefix_of_python(tmp_path: Path, place: str, counts: bool) -> None:
    """A project there is the user's own, and what the environment keeps there is not."""
    directory = tmp_path / place
    directory.mkdir(parents=True)
    asked = "import sys, sysconfig\nsysconfig.get_config_vars()\n"  # while it is what it is
    program = f"{asked}sys.prefix = {str(tmp_path)!r}\n" + PROGRAMS["in a variable"]
    program = program.replace('"./libk.so"', 'HERE + "/libk.so"')
    build(directory)
    assert [run(directory, program) for _ in range(2)] == ["ran\n6\n", "6\n"]
    build(directory, KERNEL.replace("2 * x", "3 * x"))
    assert run(directory, program) == ("ran\n9\n" if counts else "6\n")


def test_what_cffi_compiles(tmp_path: Path) -> None:
    """It claims to be a module, and counts as the extension module that it belongs to."""
    pytest.importorskip("cffi")
    pytest.importorskip("setuptools")
    compiler()
    program = "from kernel import lib\n" + BODY.format("lib.twice(x)")
    found = []
    for source in (KERNEL, KERNEL.replace("2 * x", "3 * x")):
        run_script(tmp_path, COMPILE.format(source=source), name="build.py")
        found += [run(tmp_path, program) for _ in range(2)]
    assert found == ["ran\n6\n", "6\n", "ran\n9\n", "9\n"]


@pytest.mark.parametrize(("program", "old", "new"), SET.values(), ids=SET)
def test_what_the_program_sets(tmp_path: Path, program: str, old: str, new: str) -> None:
    """Types of results and arguments, and functions of Python, count with a function in C."""
    build(tmp_path)
    first = run(tmp_path, LIB + program)
    assert first.startswith("ran")
    assert run(tmp_path, LIB + program) == first.removeprefix("ran\n")
    assert run(tmp_path, LIB + program.replace(old, new)).startswith("ran")


def test_the_process_itself(tmp_path: Path) -> None:
    """What is loaded with it counts by no file."""
    program = "LIB = ctypes.CDLL(None)\n" + BODY.format("LIB.abs(x)")
    assert [run(tmp_path, program) for _ in range(2)] == ["ran\n3\n", "3\n"]
