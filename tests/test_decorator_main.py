"""Scripts: functions of `__main__`, where the name of the module identifies nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

HEAD = """
    import sys
    import fleche as package
    from fleche import Cache, Runtime, cache, fleche
    from fleche.storage import CallFile, ValueFile

    cache(Cache(ValueFile("values"), CallFile("calls")))
    package.meta(Runtime())
"""


def run(path: Path, body: str, *options: str, code: int = 0) -> str:
    """Run a script in the working directory; its cache lies there."""
    path.write_text(dedent(HEAD) + dedent(body), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", *options, str(path)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "script.py"


BODY = """
    @fleche
    def grow(x):
        print("computed")
        return x + {step}

    print(grow(1))
"""


def test_hits_in_the_next_run(script: Path) -> None:
    assert run(script, BODY.format(step=1)) == "computed\n2\n"
    assert run(script, BODY.format(step=1)) == "2\n"


def test_edited_function_computes_anew(script: Path) -> None:
    """Its code is part of the key, so that an edit needs no new version."""
    assert run(script, BODY.format(step=1)) == "computed\n2\n"
    assert run(script, BODY.format(step=2)) == "computed\n3\n"
    assert run(script, BODY.format(step=1)) == "2\n"


def test_comments_do_not_count(script: Path) -> None:
    run(script, BODY.format(step=1))
    assert run(script, "\n    # moved down\n" + BODY.format(step="1  # as before")) == "2\n"


@pytest.mark.parametrize(
    ("line", "outcomes"),
    [
        ("if __debug__: x = -x", ["-3", "3"]),
        ("assert x < 0, 'positive'", ["positive", "3"]),
        ("pass", ["3", "3"]),
    ],
)
def test_without_assertions(script: Path, line: str, outcomes: list[str]) -> None:
    """Under ``-O`` a function may do something else; then its results are kept apart."""
    body = f"""
    ran = False

    @fleche(ignore_globals="ran")
    def f(x):
        global ran
        ran = True
        {line}
        return x

    try:
        print(f(3))
    except AssertionError as error:
        print(error)
    print(ran)
    """
    optimized = [run(script, body, "-O").split() for _ in range(2)]
    assert optimized == [[outcomes[1], "True"], [outcomes[1], "False"]]
    assert run(script, body).split() == [outcomes[0], str(line != "pass")]


def test_two_scripts_do_not_share(tmp_path: Path) -> None:
    """Functions of the same name in two scripts are two functions."""
    assert run(tmp_path / "one.py", BODY.format(step=1)) == "computed\n2\n"
    assert run(tmp_path / "two.py", BODY.format(step=10)) == "computed\n11\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_a_script(script: Path, method: str) -> None:
    """Workers find the function, and store under the key under which the script looks."""
    body = f"""
        import multiprocessing, os
        from concurrent.futures import ProcessPoolExecutor

        @fleche
        def grow(x):
            os.write(1, b"computed\\n")  # in one piece
            return x + 1

        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            with package.wrap_executor(ProcessPoolExecutor(2, mp_context=context)) as pool:
                print(list(pool.map(grow, [1, 2])))
                print(pool.submit(grow, 1).done(), grow.contains(1), grow(2))
    """
    lines = run(script, body).splitlines()
    assert sorted(lines) == ["True True 3", "[2, 3]", "computed", "computed"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_classes_of_a_script_in_its_processes(script: Path, method: str) -> None:
    """There they are the same, in arguments, results and keys; a pool without fleche does that."""
    body = f"""
        import dataclasses, enum, multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        class Phase(enum.Enum):
            SOLID = 1

        class Failed(Exception):
            pass

        @dataclasses.dataclass
        class Cell:
            size: int

            @fleche
            def grown(self, by):
                return Cell(self.size + by)

        @fleche
        def look(cell, phase):
            return isinstance(cell, Cell) and phase is Phase.SOLID

        @fleche
        def phase(x):
            return Phase.SOLID

        @fleche
        def fail(x):
            raise Failed(x)

        def plain(x):
            return Cell(x)

        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            with package.wrap_executor(ProcessPoolExecutor(1, mp_context=context)) as pool:
                grown = pool.submit(Cell(1).grown, 2).result()
                assert type(grown) is Cell and grown == Cell(3)
                assert list(pool.map(Cell(1).grown, [3, 4])) == [Cell(4), Cell(5)]
                assert pool.submit(look, Cell(1), Phase.SOLID).result()
                assert pool.submit(phase, 1).result() is Phase.SOLID
                assert type(pool.submit(plain, 1).result()) is Cell
                assert type(pool.submit(fail, 1).exception()) is Failed
            assert all(Cell(1).grown.contains(by) for by in (2, 3, 4))
            assert look.contains(Cell(1), Phase.SOLID) and phase.contains(1)
            assert type(Cell(1).grown.load(2).arguments["self"]) is Cell
    """
    run(script, body)


def test_what_a_script_has_changed_goes_along(script: Path) -> None:
    """A process that starts anew has not seen it."""
    body = """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        STEP = 1

        @fleche
        def grow(x):
            return x + STEP

        if __name__ == "__main__":
            STEP = 10
            context = multiprocessing.get_context("spawn")
            with package.wrap_executor(ProcessPoolExecutor(1, mp_context=context)) as pool:
                print(pool.submit(grow, 1).result(), grow.contains(1))
    """
    assert run(script, body) == "11 True\n"


def test_by_value(script: Path) -> None:
    """A pickle of cloudpickle takes a function of a script along, with the key of its calls."""
    body = """
        import subprocess, cloudpickle

        @fleche
        def grow(x):
            print("computed", flush=True)
            return grow(x - 1) + 1 if x else 0

        print(grow(3), flush=True)
        bound = cloudpickle.dumps(grow.bind())
        code = "import sys, pickle; print(pickle.load(sys.stdin.buffer)(4))"
        subprocess.run([sys.executable, "-c", code], input=bound, check=True)
    """
    assert run(script, body) == "computed\n" * 4 + "3\ncomputed\n4\n"


def test_interactive() -> None:
    """Typed at a prompt, where there may be no source, it works all the same."""
    lines = [*dedent(HEAD).splitlines(), "@fleche", "def f(x):", "    return print('run') or x", ""]
    done = subprocess.run(
        [sys.executable, "-i"],
        input="\n".join([*lines, "_ = f(1)", "_ = f(1)", ""]),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout.splitlines().count("run") == 1
