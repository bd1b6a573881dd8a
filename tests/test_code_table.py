"""Twenty edits that compute anew, ten that keep the hit, ten programs that hit in their next run.

Each is a program of a user, in files, run in a process of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

from tests.helpers.scripts import run_cells, run_script
from tests.helpers.sweeps import swept


class Edit(NamedTuple):
    """A script and its modules, and what is replaced in them."""

    script: str
    old: str
    new: str
    files: dict[str, str] = {}  # noqa: RUF012 (a tuple)


USE_HELPER = """
    from helpers import area

    @fleche
    def energy(x):
        return area(x) + 1

    print(energy(3))
"""
HELPERS = {"helpers.py": "def area(x):\n    return x * 2\n"}
MODEL = """
    class Base:
        def weight(self):
            return 2

    class Model(Base):
        def __init__(self, x):
            self.x = x

        def energy(self):
            return self.weight() * self.x + 100

        def other(self):
            return 5
"""

ANEW = {
    "a constant of the script": Edit(
        """
        K = 2

        @fleche
        def f(x):
            return K * x

        print(f(3))
        """,
        "K = 2",
        "K = 5",
    ),
    "a helper in the script": Edit(
        """
        def area(x):
            return x * 2

        @fleche
        def energy(x):
            return area(x) + 1

        print(energy(3))
        """,
        "x * 2",
        "x * 20",
    ),
    "a helper in a module": Edit(USE_HELPER, "x * 2", "x * 20", HELPERS),
    "a constant in cfg.py": Edit(
        """
        import cfg

        @fleche
        def f(x):
            return cfg.scale * x

        print(f(3))
        """,
        "scale = 2",
        "scale = 5",
        {"cfg.py": "scale = 2\n"},
    ),
    "a method of an object that is passed": Edit(
        """
        from model import Model

        @fleche
        def energy(model):
            return model.energy()

        print(energy(Model(3)))
        """,
        "+ 100",
        "+ 200",
        {"model.py": MODEL},
    ),
    "a helper of a decorated function in a module": Edit(
        "import jobs\nprint(jobs.energy(3))\n",
        "x * 2",
        "x * 20",
        {
            **HELPERS,
            "jobs.py": """
            from fleche import fleche
            from helpers import area

            @fleche
            def energy(x):
                return area(x) + 1
            """,
        },
    ),
    "the decorated function in a module": Edit(
        "import jobs\nprint(jobs.energy(3))\n",
        "x + 1",
        "x + 10",
        {"jobs.py": "from fleche import fleche\n\n@fleche\ndef energy(x):\n    return x + 1\n"},
    ),
    "a helper of a function that is passed": Edit(
        """
        import steps

        @fleche
        def integrate(step):
            return step(3)

        print(integrate(steps.euler))
        """,
        "x * 2",
        "x * 20",
        {**HELPERS, "steps.py": "from helpers import area\n\ndef euler(x):\n    return area(x)\n"},
    ),
    "a decorated helper": Edit(
        """
        @fleche
        def area(x):
            return x * 2

        @fleche
        def energy(x):
            return area(x) + 1

        print(energy(3))
        """,
        "x * 2",
        "x * 20",
    ),
    "a base class": Edit(
        """
        from model import Model

        @fleche
        def energy(x):
            return Model(x).energy()

        print(energy(3))
        """,
        "return 2",
        "return 7",
        {"model.py": MODEL},
    ),
    "the body of a decorator below": Edit(
        """
        import functools

        def doubled(function):
            @functools.wraps(function)
            def wrapper(*args):
                return function(*args) * 2
            return wrapper

        @fleche
        @doubled
        def energy(x):
            return x + 1

        print(energy(3))
        """,
        "* 2",
        "* 20",
    ),
    "a default": Edit("@fleche\ndef f(x, n=2):\n    return x * n\n\nprint(f(3))\n", "n=2", "n=5"),
    "a captured value": Edit(
        """
        def make(n):
            @fleche
            def f(x):
                return x * n
            return f

        print(make(2)(3))
        """,
        "make(2)",
        "make(5)",
    ),
}


class TestAnew:
    """Each of twenty edits computes anew."""

    @pytest.mark.parametrize("edit", ANEW.values(), ids=ANEW)
    def test_between_two_runs(self, tmp_path: Path, edit: Edit) -> None:
        """The second run gives what it gives with an empty cache."""
        first = run_script(tmp_path, edit.script, edit.files)
        script = edit.script.replace(edit.old, edit.new)
        files = {name: text.replace(edit.old, edit.new) for name, text in edit.files.items()}
        second = run_script(tmp_path, script, files)
        fresh = run_script(tmp_path, script, files, cache=tmp_path / "empty")
        assert first != second == fresh

    def test_a_variable_of_a_loop_in_a_notebook(self, tmp_path: Path) -> None:
        cells = (
            "@fleche\ndef f(x):\n    return K * x\n",
            "for K in (1, 2, 3):\n    print(f(10))\n",
        )
        assert run_cells(tmp_path, *cells) == "10\n20\n30\n"

    def test_an_attribute_of_a_class_at_run_time(self, tmp_path: Path) -> None:
        script = """
            from cfg import Config

            @fleche
            def f(x):
                return Config.dt * x

            print(f(10))
            Config.dt = .2
            print(f(10))
        """
        files = {"cfg.py": "class Config:\n    dt = 0.1\n"}
        assert run_script(tmp_path, script, files) == "1.0\n2.0\n"

    def test_a_monkeypatched_helper(self, tmp_path: Path) -> None:
        script = """
            import helpers

            @fleche
            def energy(x):
                return helpers.area(x)

            print(energy(3))
            helpers.area = lambda x: x * 100
            print(energy(3))
        """
        assert run_script(tmp_path, script, HELPERS) == "6\n300\n"

    def test_two_projects_with_one_utils(self, tmp_path: Path) -> None:
        """Modules of one name in two places, with one cache."""
        script = "import utils\n@fleche\ndef f(x):\n    return utils.scale(x)\nprint(f(3))\n"
        found = []
        for name, factor in (("one", 2), ("two", 5)):
            (tmp_path / name).mkdir()
            files = {"utils.py": f"def scale(x):\n    return x * {factor}\n"}
            found.append(run_script(tmp_path / name, script, files, cache=tmp_path / "cache"))
        assert found == ["6\n", "15\n"]

    def test_two_scripts_with_one_text_of_a_function(self, tmp_path: Path) -> None:
        script = "K = {}\n@fleche\ndef f(x):\n    return K * x\nprint(f(3))\n"
        found = [run_script(tmp_path, script.format(k), name=f"script{k}.py") for k in (2, 5)]
        assert found == ["6\n", "15\n"]

    def test_code_swapped_in_place(self, tmp_path: Path) -> None:
        """`%autoreload 2` puts new code into the functions that are there."""
        script = """
            import importlib, pathlib
            import helpers
            from helpers import area

            @fleche
            def energy(x):
                return area(x)

            print(energy(3))
            old = area
            pathlib.Path("helpers.py").write_text("def area(x):\\n    return x * 20 + 0\\n")
            new = importlib.reload(helpers)
            old.__code__ = new.area.__code__
            print(energy(3))
        """
        assert run_script(tmp_path, script, HELPERS) == "6\n60\n"

    @pytest.mark.parametrize("again", ["%run helpers.py", "%autoreload 2\nimport helpers"])
    @pytest.mark.parametrize(
        "helpers",
        [
            "import decimal as d\nd.getcontext().prec = 4\ndef area(x): return d.Decimal(x) / 3\n",
            "S = {'n': 0, 'k': 4}\ndef area(x):\n    S['n'] += 1\n    return S['k'] * x\n",
            "n = 4\ndef area(x):\n    global n\n    n = n\n    return n * x\n",
        ],
        ids=["what is set", "a part of a variable", "a variable"],
    )
    @pytest.mark.parametrize("inside", [False, True])
    def test_a_file_executed_again(
        self, tmp_path: Path, helpers: str, again: str, inside: bool
    ) -> None:
        """What counts as it is written there is read anew, also of a function in the file."""
        pytest.importorskip("IPython")
        define = "@fleche\ndef f(x):\n    return area(x)\n"
        helpers = f"from fleche import fleche\n{helpers}{define if inside else ''}"
        script = f"""
            import pathlib
            from IPython.core.interactiveshell import InteractiveShell
            shell = InteractiveShell.instance(user_ns={{"fleche": fleche}})
            shell.run_cell("%load_ext autoreload")
            for new in ("5", "65"):
                pathlib.Path("helpers.py").write_text({helpers!r}.replace("4", new))
                shell.run_cell({again!r})
                if "run" not in {again!r}:
                    shell.run_cell("from helpers import *")
                if not {inside}:
                    shell.run_cell({define!r})
                shell.run_cell("print(f(1), f.__wrapped__(1))")
        """
        lines = [line.split() for line in run_script(tmp_path, script).splitlines()]
        found = [line for line in lines if line]
        assert len(found) == 2
        assert found[0] != found[1]
        assert all(hit == plain for hit, plain in found)

    def test_an_extension_module(self, tmp_path: Path) -> None:
        """What has no source counts by the bytes of its file."""
        script = "import native\n@fleche\ndef f(x):\n    return native.scale(x)\nprint(f(3))\n"
        build_extension(tmp_path, 2)
        first = run_script(tmp_path, script)
        build_extension(tmp_path, 5)
        assert (first, run_script(tmp_path, script)) == ("6\n", "15\n")


EXTENSION = """
#include <Python.h>
static PyObject *scale(PyObject *self, PyObject *x) {{
    return PyLong_FromLong(PyLong_AsLong(x) * {factor});
}}
static PyMethodDef methods[] = {{{{"scale", scale, METH_O, ""}}, {{NULL, NULL, 0, NULL}}}};
static struct PyModuleDef module = {{PyModuleDef_HEAD_INIT, "native", "", -1, methods}};
PyMODINIT_FUNC PyInit_native(void) {{ return PyModule_Create(&module); }}
"""


def build_extension(directory: Path, factor: int) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if compiler is None or not header.exists():
        pytest.skip("no compiler of C, or no headers of Python")
    source = directory / "native.c"
    source.write_text(EXTENSION.format(factor=factor))
    target = directory / f"native{sysconfig.get_config_var('EXT_SUFFIX')}"
    command = [compiler, "-shared", "-fPIC", f"-I{header.parent}", str(source), "-o", str(target)]
    subprocess.run(command, check=True, capture_output=True)


SOURCE = """
    import os
    import helpers
    from math import pi

    K = 2

    def area(x):
        # a comment
        return helpers.area(x) * K

    def unrelated(y):
        total = y
        return total

    @fleche
    def energy(x, n=1):
        print("ran")
        return area(x) + n

    print(energy(3))
"""

KEPT = {
    "a comment": ("# a comment", "# another one\n        # in two lines"),
    "a docstring": ("def area(x):", 'def area(x):\n        """The area."""'),
    "formatting": ("return area(x) + n", "return (area( x )\n            + n)"),
    "an annotation of a parameter": (
        "def energy(x, n=1):",
        "def energy(x: int, n: int = 1) -> int:",
    ),
    "a line moved": ("    K = 2", "\n\n    K = 2"),
    "the order of imports": (
        "import os\n    import helpers\n",
        "import helpers\n    import os\n",
    ),
    "a new function beside": (
        "def unrelated(y):",
        "def new():\n        return 5\n\n    def unrelated(y):",
    ),
    "a local of another function renamed": ("total", "amount"),
}


class TestKept:
    """Each of ten edits keeps the hit."""

    @pytest.mark.parametrize(("old", "new"), KEPT.values(), ids=KEPT)
    def test_between_two_runs(self, tmp_path: Path, old: str, new: str) -> None:
        assert run_script(tmp_path, SOURCE, HELPERS) == "ran\n13\n"
        assert old in SOURCE
        assert run_script(tmp_path, SOURCE.replace(old, new), HELPERS) == "13\n"

    CELL = """\
def area(x):
    return x * 2

@fleche
def f(x):
    print('ran')
    return area(x)
"""

    def test_a_cell_run_again(self, tmp_path: Path) -> None:
        """A cell that is run again unchanged makes new functions, which are the same ones."""
        cells = (self.CELL, "print(f(3))") * 2
        assert run_cells(tmp_path, *cells) == "ran\n6\n6\n"
        assert run_cells(tmp_path, "\n\n" + self.CELL, "print(f(3))") == "6\n"

    def test_a_magic_on_a_cell(self, tmp_path: Path) -> None:
        """`%%time` runs the rest of the cell under another name of a file."""
        pytest.importorskip("IPython")
        script = f"""
            from IPython.core.interactiveshell import InteractiveShell
            shell = InteractiveShell.instance(user_ns={{"fleche": fleche}})
            shell.run_cell({self.CELL!r})
            shell.run_cell("print(f(3))")
            shell.run_cell("%%time\\n" + {self.CELL!r})
            shell.run_cell("print(f(3))")
        """
        lines = run_script(tmp_path, script).splitlines()
        assert lines.count("ran") == 1
        assert lines.count("6") == 2


PROGRAMS = {
    "a logger of the module": """
        import logging
        log = logging.getLogger(__name__)

        @fleche
        def f(x):
            log.info("f(%s)", x)
            return ran(x)
    """,
    "a progress bar": """
        from tqdm import tqdm

        @fleche
        def f(x):
            return ran(sum(tqdm(range(x), disable=True)))
    """,
    "a memo": """
        memo = {}

        def square(x):
            if x not in memo:
                memo[x] = x * x
            return memo[x]

        square(7)

        @fleche
        def f(x):
            return ran(square(x))
    """,
    "a helper with lru_cache": """
        import functools

        @functools.lru_cache(maxsize=None)
        def square(x):
            return x * x

        square(7)

        @fleche
        def f(x):
            return ran(square(x))
    """,
    "arguments of the command line": """
        import argparse
        parser = argparse.ArgumentParser()
        parser.add_argument("--scale", type=float, default=2.0)
        args = parser.parse_args()

        @fleche
        def f(x):
            return ran(args.scale * x)
    """,
    "a lock": """
        import threading
        lock = threading.Lock()

        @fleche
        def f(x):
            with lock:
                return ran(x)
    """,
    "a registry of classes": """
        registry = {}

        def register(cls):
            registry[cls.__name__] = cls
            return cls

        @register
        class Linear:
            def __call__(self, x):
                return x + 1

        @register
        class Quadratic:
            def __call__(self, x):
                return x * x

        @fleche
        def f(x):
            return ran(registry["Quadratic"]()(x))
    """,
    "a figure made inside": """
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        @fleche
        def f(x):
            figure, axes = plt.subplots()
            axes.plot([0, x], [1, 2])
            plt.close(figure)
            return ran(x)
    """,
    "a compiled function": """
        import numba

        @numba.njit
        def square(x):
            return x * x

        @fleche
        def f(x):
            return ran(int(square(x)))
    """,
    "a figure of the module": """
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots()

        @fleche
        def f(x):
            axes.plot([0, x], [1, 2])
            return ran(x)
    """,
    "an object that fills an attribute when it is first wanted": """
        class Grid:
            def __init__(self, size):
                self.size = size
                self._table = None

            def table(self):
                if self._table is None:
                    self._table = [x * x for x in range(self.size)]
                return self._table

        grid = Grid(5)

        @fleche
        def f(x):
            return ran(grid.table()[x])
    """,
    "an object that notes when it was made": """
        import time

        class Clock:
            def __init__(self):
                self.started = time.time()

            def elapsed(self):
                return time.time() - self.started

        clock = Clock()

        @fleche
        def f(x):
            return ran(x if clock.elapsed() > 0 else 0)
    """,
    "an object with a memo": """
        class Squares:
            def __init__(self):
                self.memo = {}

            def of(self, x):
                try:
                    return self.memo[x]
                except KeyError:
                    self.memo[x] = x * x
                return self.memo[x]

        squares = Squares()

        @fleche
        def f(x):
            return ran(squares.of(x))
    """,
    "a class that notes when it was defined": """
        import os, time

        class Result:
            defined = time.time()
            process = os.getpid()

            def __init__(self, x):
                self.x = x

        @fleche
        def make(x):
            return Result(ran(x))

        def f(x):
            return isinstance(make(x), Result)
    """,
    "a configuration in a dataclass": """
        import dataclasses

        @dataclasses.dataclass
        class Config:
            scale: float = 2.0
            names: list = dataclasses.field(default_factory=list)

        config = Config()

        @fleche
        def f(x):
            return ran(config.scale * x)
    """,
}
NEEDED = {
    "a progress bar": "tqdm",
    "a figure made inside": "matplotlib",
    "a figure of the module": "matplotlib",
    "a compiled function": "numba",
}
HEAVY = ("a figure made inside", "a figure of the module", "a compiled function")
"""Programs whose library takes long to import, which each of them does twice."""

FRAME = """
    def ran(x):
        print("ran")
        return x
"""


@pytest.mark.parametrize("name", swept(PROGRAMS, lambda name: name not in HEAVY))
def test_programs_hit_in_their_next_run(tmp_path: Path, name: str) -> None:
    """Programs as they are written hit in the second call and in the second process."""
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    script = dedent(FRAME) + dedent(PROGRAMS[name]) + "print(f(3), f(3))\n"
    first = run_script(tmp_path, script)
    assert first.count("ran") == 1
    assert run_script(tmp_path, script, seed="7") == first.replace("ran\n", "")
