# ruff: noqa: ISC004
"""What a function depends on: rule by rule, on modules of a user."""

from __future__ import annotations

import builtins
import decimal
import functools
import gc
import importlib
import json
import os
import subprocess
import sys
import textwrap
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fleche.digest import code_digest, dump_syntax
from fleche.function import CodeTracker, changes_between, is_own_module
from fleche.function._patched import holds_own
from tests.golden.code import collect
from tests.helpers.pythons import PYTHON_VERSIONS, Pythons
from tests.helpers.scripts import run_cells, run_script

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "code.json"


class Project:
    """Modules of a user, imported anew from a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.count = 0
        self.names: set[str] = set()

    def load(self, files: dict[str, str], module: str = "entry") -> Any:
        """Write the files into a new directory and import a module from there."""
        self.forget()
        self.count += 1
        place = self.directory / str(self.count)
        for name, text in files.items():
            path = place / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
            self.names.add(name.partition("/")[0])
        sys.path.insert(0, str(place))
        importlib.invalidate_caches()
        return importlib.import_module(module)

    def forget(self) -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] in self.names:
                del sys.modules[name]
        sys.path[:] = [path for path in sys.path if not path.startswith(str(self.directory))]

    def tracker(self, files: dict[str, str], name: str = "f", **options: Any) -> CodeTracker:
        module = self.load(files)
        return CodeTracker(getattr(module, name), "entry", **options)

    def digest(self, files: dict[str, str], name: str = "f", **options: Any) -> Any:
        return self.tracker(files, name, **options).closure().digest

    def counts(self, files: dict[str, str] | str, old: str, new: str, **options: Any) -> bool:
        """Whether replacing a text in the files changes what `f` of `entry` depends on."""
        files = {"entry": files} if isinstance(files, str) else files
        edited = {name: text.replace(old, new) for name, text in files.items()}
        assert edited != files
        before = self.digest(files, **options)
        assert before == self.digest(files, **options), "not the same in a second import"
        return bool(before != self.digest(edited, **options))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project")
    yield made
    made.forget()


def nodes(tracker: CodeTracker) -> dict[str, str]:
    return {label: node.kind for label, node in tracker.closure().nodes.items()}


MADE_UP = {
    "make_dataclass": "dataclasses.make_dataclass('C', [('a', int, 2)])",
    "new_class": "types.new_class('C', (), {}, lambda space: space.update(a=2))",
    "metaclass": "abc.ABCMeta('C', (), {'a': 2})",
    "exec": "{}; exec('class C: a = 2', C); C = C['C']",
}
"""Classes that the library makes for a program, which say that they are from there."""


LINKED: dict[str, tuple[str, bool, dict[str, str]]] = {
    "a hand": ("work", True, {}),
    "an editable install": (
        "work",
        True,
        {
            "RECORD": "{entry}/a,,\n{entry},,",
            "direct_url.json": '{{"dir_info": {{"editable": true}}}}',
        },
    ),
    "a cache": ("cache", False, {"RECORD": "b.py,,\n{entry}/a,,\n{entry},,", "METADATA": ""}),
    "a system": ("share", False, {"top_level.txt": "a\n{name}\n"}),
    "a store": ("store/lib/python3/site-packages", False, {}),
}
"""By who has made a link: what it leads to, whether that is own code, and the metadata beside."""


class TestOwn:
    """Own code is followed, installed code counts by its name."""

    @pytest.mark.parametrize("kind", MADE_UP)
    @pytest.mark.parametrize(
        "use",
        ["def f(x): return C.a", "c = C()\ndef f(x): return c.a", "def f(x, c=C): return c.a"],
    )
    def test_a_class_that_is_not_found_under_its_name(
        self, project: Project, kind: str, use: str
    ) -> None:
        """It is the user's own, wherever it says that it is from."""
        source = f"import abc, dataclasses, types\nC = {MADE_UP[kind]}\n{use}"
        assert project.counts(source, "2", "5")

    @pytest.mark.parametrize("used", ["{0}.K", "{0}.h(1)", "{0}.C().h(1)"])
    @pytest.mark.parametrize("found", ["A, B", "M = [A, B]", "M = {1: A, 2: B}"])
    def test_two_modules_of_one_name(
        self,
        project: Project,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        used: str,
        found: str,
    ) -> None:
        """As loaders of plugins make them: the names in both count."""
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it tells edits by the second
        plugin = "K = {0}\ndef h(x): return K\nclass C:\n    def h(self, x): return K\n"
        source = (
            "import importlib.util\n"
            "def load(path):\n"
            "    spec = importlib.util.spec_from_file_location('plugin', path)\n"
            "    module = importlib.util.module_from_spec(spec)\n"
            "    spec.loader.exec_module(module)\n"
            "    return module\n"
        )
        for name in "ab":
            source += f"{name.upper()} = load({str(tmp_path / f'{name}.py')!r})\n"
        listed = "=" in found
        source += f"{found if listed else ''}\ndef f(x):\n    return "
        if listed:
            each = "M.values()" if "{" in found else "M"
            source += f"[{used.format('m')} for m in {each}]\n"
        else:
            source += f"{used.format('A')}, {used.format('B')}\n"

        def digest_with(*values: int) -> Any:
            for name, value in zip("ab", values, strict=True):
                (tmp_path / f"{name}.py").write_text(plugin.format(value))
            importlib.invalidate_caches()
            return project.digest({"entry": source})

        digests = [digest_with(2, 3), digest_with(2, 7), digest_with(5, 3), digest_with(2, 3)]
        assert digests[0] == digests[3]
        assert len(set(digests)) == 3

    @pytest.mark.parametrize("value", ["{0}", "{{'n': {0}}}", "[{0}]"])
    def test_data_in_builtins(self, project: Project, value: str) -> None:
        source = f"import builtins\nbuiltins.FACTOR = {value.format(4)}\ndef f(x): return FACTOR"
        assert project.counts(source, "4", "6")
        del vars(builtins)["FACTOR"]

    def test_installed_functions_count_by_name(self, project: Project) -> None:
        found = nodes(project.tracker({"entry": "import json\ndef f(x): return json.dumps(x)"}))
        assert found == {"f": "function", "json": "installed"}

    def test_another_installed_function_counts(self, project: Project) -> None:
        source = "from math import sin as g\ndef f(x): return g(x)"
        assert project.counts(source, "sin", "cos")

    def test_a_function_is_judged_by_its_globals(self, project: Project) -> None:
        """What an installed decorator makes claims to be from the module of what it wraps."""
        source = """
            import contextlib
            @contextlib.contextmanager
            def opened(x):
                yield x * 2
            def f(x):
                with opened(x) as y:
                    return y
        """
        tracker = project.tracker({"entry": source})
        assert nodes(tracker)["opened"] == "function"
        assert project.counts(source, "x * 2", "x * 3")

    def test_a_package_beside_the_script(self, project: Project) -> None:
        files = {"entry": "import lib.sub\ndef f(x): return lib.sub.g(x)", "lib/__init__": ""}
        files["lib/sub"] = "def g(x): return x + 1"
        assert project.counts(files, "x + 1", "x + 2")

    @pytest.mark.parametrize(
        "use",
        [
            "import tabnanny\n    return tabnanny.check(x)",
            "from tabnanny import check\n    return check(x)",
            "import tabnanny.deep as deep\n    return deep.check(x)",
            "return __import__('tabnanny').check(x)",
        ],
    )
    def test_a_module_that_is_named_like_one_of_python(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, use: str
    ) -> None:
        """The one that an import finds counts, though nothing has imported it so far."""
        monkeypatch.delitem(sys.modules, "tabnanny", raising=False)
        body = "def check(x): return x + 1"
        files = {"entry": f"def f(x):\n    {use}", "tabnanny/__init__": body}
        files["tabnanny/deep"] = body
        assert project.counts(files, "x + 1", "x + 2")

    @pytest.mark.parametrize("installer", LINKED)
    @pytest.mark.parametrize("kind", ["package", "module"])
    def test_a_link_among_installed_packages(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, installer: str
    ) -> None:
        """What the user has linked there is own code, and what an installer has is installed."""
        target, is_own, files = LINKED[installer]
        name = f"linked_{kind}_{installer.replace(' ', '_')}"
        entry = name if kind == "package" else f"{name}.py"
        code = tmp_path / target / (f"{name}/__init__.py" if kind == "package" else entry)
        code.parent.mkdir(parents=True)
        code.touch()
        site = tmp_path / "site-packages"
        for file, text in files.items():
            path = site / f"{name}-1.dist-info" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.format(entry=entry, name=name))
        site.mkdir(exist_ok=True)
        (site / entry).symlink_to(tmp_path / target / entry)
        monkeypatch.syspath_prepend(site)
        assert is_own_module(name) == is_own


NAMES = {
    "a comprehension has a scope of its own": (
        "K = 1\ndef f(x): return [K for K in range(3)] + [K]",
        "K = 1\n",
        "K = 2\n",
    ),
    "a name that a nested function loads": (
        "K = 1\ndef f(x):\n    def g(): return K\n    return g()",
        "K = 1\n",
        "K = 2\n",
    ),
    "a name in the body of a nested class": (
        "K = 1\ndef f(x):\n    class A:\n        k = K\n    return A.k",
        "K = 1\n",
        "K = 2\n",
    ),
    "a default of a nested function": (
        "K = 1\ndef f(x):\n    return (lambda y=K: y)()",
        "K = 1\n",
        "K = 2\n",
    ),
    "a private name of a class": (
        "class A:\n    __k = 1\n    def g(self): return self.__k\ndef f(x): return A().g()",
        "__k = 1",
        "__k = 2",
    ),
    "a chain through modules": (
        {"entry": "import a as b\ndef f(x): return b.c.K", "a": "import c", "c": "K = 1"},
        "K = 1",
        "K = 2",
    ),
    "a star import": ({"entry": "from a import *\ndef f(x): return K", "a": "K = 1"}, "1", "2"),
    "a conditional import": (
        {
            "entry": "try:\n    from b import g\nexcept ImportError:\n    from a import g\n"
            "def f(x): return g(x)",
            "a": "def g(x): return x + 1",
        },
        "x + 1",
        "x + 2",
    ),
    "an import in the body": (
        {"entry": "def f(x):\n    from a import g\n    return g(x)", "a": "def g(x): return x + 1"},
        "x + 1",
        "x + 2",
    ),
    "an import of a module in the body": (
        {
            "entry": "def f(x):\n    import a.b\n    return a.b.g(x)",
            "a/__init__": "",
            "a/b": "def g(x): return x + 1",
        },
        "x + 1",
        "x + 2",
    ),
    "the first of two imports that bind one name": (
        {
            "entry": "def f(x):\n    if x:\n        from a import g\n    else:\n"
            "        from b import g\n    return g(x)",
            "a": "def g(x): return x + 1",
            "b": "def g(x): return x + 2",
        },
        "x + 1",
        "x + 3",
    ),
    "the second of two imports that bind one name": (
        {
            "entry": "def f(x):\n    if x:\n        import a as m\n    else:\n"
            "        import b as m\n    return m.g(x)",
            "a": "def g(x): return x + 1",
            "b": "def g(x): return x + 2",
        },
        "x + 2",
        "x + 3",
    ),
    "a relative import in the body": (
        {
            "entry": "from p.m import f",
            "p/__init__": "",
            "p/m": "def f(x):\n    from .n import K\n    return K",
            "p/n": "K = 1",
        },
        "K = 1",
        "K = 2",
    ),
    "a module that a function imports by a constant name": (
        {
            "entry": "import importlib\ndef f(x): return importlib.import_module('a.b').g(x)",
            "a/__init__": "",
            "a/b": "def g(x): return x + 1",
        },
        "x + 1",
        "x + 2",
    ),
    "a module that is imported so and kept": (
        {
            "entry": "from importlib import import_module\ndef f(x):\n"
            "    a = import_module(name='a')\n    return a.g(x)",
            "a": "def g(x): return x + 1",
        },
        "x + 1",
        "x + 2",
    ),
    "a module that __import__ imports": (
        {
            "entry": "def f(x): return __import__('a.b').b.K",
            "a/__init__": "",
            "a/b": "K = 1",
        },
        "K = 1",
        "K = 2",
    ),
    "a module that is imported so from its own package": (
        {
            "entry": "from p.m import f",
            "p/m": "import importlib\ndef f(x):\n"
            "    return importlib.import_module('.n', __package__).K",
            "p/__init__": "",
            "p/n": "K = 1",
        },
        "K = 1",
        "K = 2",
    ),
    "what two names stand for": (
        "def a(x): return 1\ndef b(x): return 2\none, two = a, b\ndef f(x): return one(x), two(x)",
        "one, two = a, b",
        "one, two = b, a",
    ),
    "a name that getattr gets": (
        {"entry": "import a\ndef f(x): return getattr(a, 'K')", "a": "K = 1"},
        "K = 1",
        "K = 2",
    ),
    "a recursion": (
        "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)\n"
        "def f(x): return even(x)",
        "n != 0",
        "n != 1",
    ),
}
"""Names are followed into other functions, classes and modules."""


@pytest.mark.parametrize(
    "statement", ["import a", "from a import K", "from a.b import K", "import_module('a')"]
)
def test_a_module_that_an_import_in_the_body_does_not_find(
    project: Project, statement: str
) -> None:
    """The body does something else when it is there."""
    source = f"from importlib import import_module\ndef f(x):\n    try:\n        {statement}\n"
    files = {"entry": f"{source}    except ImportError:\n        return 1\n    return 2"}
    tracker = project.tracker(files)
    before = tracker.closure()
    assert tracker.closure() is before
    assert before.digest != project.digest({**files, "a/__init__": "K = 1", "a/b": "K = 1"})


MODELS = {
    "models/__init__": "",
    "models/a": "from .base import K\ndef run(x): return x + K",
    "models/base": "import deep\nK = 1",
    "deep": "K = 5",
    "other": "import sys\nsys.exit(3)",
}
IMPORT = "import importlib\nfrom importlib import import_module as load\n"
BY_NAME = {
    "a beginning": "def f(x): return importlib.import_module(f'models.{x}').run(1)",
    "a sum": "def f(x): return importlib.import_module('models.' + x).run(1)",
    "a table": "M = {'a': 'models.a'}\ndef f(x): return importlib.import_module(M[x]).run(1)",
    "a package in a variable": "P = 'models'\ndef f(x): return __import__(f'{P}.{x}')",
    "an object": "class C:\n    def __init__(self): self.model = 'models.a:run'\nc = C()\n"
    "def f(x):\n    m, _, g = c.model.partition(':')\n    return load(m)",
    "another name for the import": "def f(x): return load('models.a').run(1)",
    "a helper": "def h(name): return load(name)\ndef f(x): return h('models.a').run(1)",
    "a module that is run": "import runpy\ndef f(x): return runpy.run_module('models.a')",
    "an object that is located": "import pydoc\ndef f(x): return pydoc.locate('models.a.run')(1)",
    "an object that is resolved": (
        "import pkgutil\ndef f(x): return pkgutil.resolve_name('models.a:run')(1)"
    ),
}
DEEP = {
    "an f-string": "import_module(f'pk.{x}.model')",
    "a sum": "import_module('pk.' + x + '.model')",
    "a template": "import_module('pk.{}.model'.format(x))",
    "an old template": "import_module('pk.%s.model' % x)",
    "a package beside": "import_module(f'.{x}.model', 'pk')",
    "a package beside, of a constant": "import_module('.sub.model', 'pk').K",
    "a package beside, in a variable": "import_module('.sub.model', P)",
    "a package at the top": "import_module(f'p{x}.sub.model')",
    "a path": "import_module(f'pk.{x}')",
    "a package in a variable": "import_module(f'{P}.{x}')",
    "a module that is run": "run_module(f'pk.{x}.model')",
}
ZIPPED = {
    "a beginning": "import_module(f'inzip.{x}')",
    "a package between": "import_module(f'inzip.{x}.model')",
    "a text": "import_module(('inzip.sub.model', 'json')[x])",
    "a module that is run": "run_module('inzip.sub.model')",
}
HOOKED = {
    "a package": "import_module(f'hooked_{x}')",
    "a module": "import_module(f'hooked_{x}.helpers')",
    "a module of a package": "import_module(f'hooked_a.{x}')",
    "a package of a namespace": "import_module(f'hooked_ns.{x}.helpers')",
    "a text": "import_module('hooked_' + 'ns.inner.helpers'), 'hooked_ns.inner.helpers'",
}
RUN = {
    "a file beside": "def f(x): return run_path('part.py')",
    "a file whose path is joined": "def f(x): return run_path(os.path.join(HERE, 'parts', 'a.py'))",
    "a file whose path is divided": "def f(x): return run_path(Path(HERE) / 'parts' / 'a.py')",
    "a directory in a variable": "P = Path(HERE, 'parts')\ndef f(x): return run_path(P / 'a.py')",
    "a path in a variable": "P = os.path.join(HERE, 'part.py')\ndef f(x): return run_path(P)",
    "an object with a path": "P = Path(HERE) / 'parts' / 'a.py'\ndef f(x): return run_path(P)",
    "a program": "import subprocess, sys\n"
    "def f(x): return subprocess.run([sys.executable, os.path.join(HERE, 'part.py')])",
    "a program, by a function": "from subprocess import check_output as out\n"
    "P = Path(HERE) / 'part.py'\ndef f(x): return out(['python', P])",
    "a program, imported in the body": "def f(x):\n    import subprocess\n"
    "    return subprocess.Popen(['python', 'part.py'], cwd=HERE)",
    "a module of a file": (
        "def f(x):\n    spec = importlib.util.spec_from_file_location('a', f'{HERE}/parts')\n"
        "    return spec.loader, 'part.py'"
    ),
}


class TestImportsByName:
    """Modules that are imported by names made at run time count by the syntax of their files."""

    @pytest.mark.parametrize("edit", ["x + K", "K = 1", "K = 5"])
    @pytest.mark.parametrize("source", BY_NAME.values(), ids=BY_NAME)
    def test_they_count(self, project: Project, source: str, edit: str) -> None:
        """So do the user's own modules that they import."""
        files = {"entry": IMPORT + source, **MODELS}
        assert project.counts(files, edit, edit + "  - 2")
        assert not project.counts(files, edit, edit + "  # as ever")

    @pytest.mark.parametrize("kind", ["packages", "namespaces"])
    @pytest.mark.parametrize("load", DEEP.values(), ids=DEEP)
    def test_at_any_depth(self, project: Project, load: str, kind: str) -> None:
        """So do those in packages below; an end that the code shows leaves others out."""
        head = "from importlib import import_module\nfrom runpy import run_module\nP = 'pk'\n"
        files = {"entry": f"{head}def f(x): return {load}", "pk/sub/model": "K = 1"}
        files |= {"pk/sub/other": "K = 2", "pk/sub/deep/model": "K = 3"}
        if kind == "packages":
            files |= dict.fromkeys(["pk/__init__", "pk/sub/__init__", "pk/sub/deep/__init__"], "")
        assert project.counts(files, "K = 1", "K = 7")
        if "model" in load and "'pk'" not in load and "P" not in load and "run" not in load:
            assert not project.counts(files, "K = 2", "K = 7")

    @pytest.mark.parametrize("load", ZIPPED.values(), ids=ZIPPED)
    def test_in_an_archive(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: str
    ) -> None:
        """So do those in a zip file on the path, and what they set at their tops."""
        head = "import decimal, zipped\nfrom importlib import import_module\n"
        head += "from runpy import run_module\n"
        files = {"entry": f"{head}def f(x): return {load}, decimal.Decimal(x)"}
        found = []
        for number, (prec, k) in enumerate([(9, 1), (9, 1), (11, 1), (9, 7)]):
            place = tmp_path / f"{number}.zip"
            with zipfile.ZipFile(place, "w") as archive:
                archive.writestr("zipped.py", f"import decimal\ndecimal.getcontext().prec = {prec}")
                archive.writestr("inzip/__init__.py", "")
                archive.writestr("inzip/sub/__init__.py", "")
                archive.writestr("inzip/sub/model.py", f"K = {k}")
            with monkeypatch.context() as patch, decimal.localcontext():
                patch.setattr(sys, "path", [str(place), *sys.path])
                project.names |= {"zipped", "inzip"}
                found.append(project.digest(files))
        assert found[0] == found[1]
        assert len(set(found)) == 3

    @pytest.mark.parametrize("load", HOOKED.values(), ids=HOOKED)
    def test_of_an_editable_install(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: str
    ) -> None:
        """So do those that setuptools finds by a hook, where no path leads to them."""
        made_by = pytest.importorskip("setuptools.command.editable_wheel")
        name = f"__editable___{tmp_path.name}_finder"
        homes = {part: str(tmp_path / part) for part in ("hooked_a", "hooked_ns.inner")}
        finder = ModuleType(name)
        text = made_by._finder_template(name, homes, {"hooked_ns": []})
        for kind in ("meta_path", "path_hooks", "path"):
            monkeypatch.setattr(sys, kind, [*getattr(sys, kind)])
        monkeypatch.setitem(sys.modules, name, finder)
        exec(text, vars(finder))
        finder.install()
        found = []
        for code in ("K = 1", "K = 1", "K = 2"):
            for home in homes.values():
                Path(home).mkdir(exist_ok=True)
                Path(home, "__init__.py").touch()
                Path(home, "helpers.py").write_text(code)
            source = f"from importlib import import_module\ndef f(x): return {load}"
            found.append(project.digest({"entry": source}))
        assert found[0] == found[1] != found[2]

    def test_a_package_that_is_linked_into_itself(self, project: Project) -> None:
        files = {"entry": IMPORT + BY_NAME["a beginning"], **MODELS}
        tracker = project.tracker(files)
        models = Path(sys.modules["entry"].__file__ or "").with_name("models")
        models.joinpath("again").symlink_to(models)
        assert {"models.a:*"} == {name for name in nodes(tracker) if name.endswith(".a:*")}

    @pytest.mark.parametrize("edit", ["L = 1", "K = 5"])
    @pytest.mark.parametrize("source", RUN.values(), ids=RUN)
    def test_files_that_are_run(self, project: Project, source: str, edit: str) -> None:
        """So do files of Python that texts name, wherever the parts of the path stand."""
        head = "import importlib.util, os\nfrom pathlib import Path\nfrom runpy import run_path\n"
        head += "HERE = os.path.dirname(__file__)\n"
        part = "import deep\nL = 1"
        files = {"entry": head + source, "deep": "K = 5", "part": part, "parts/a": part}
        assert project.counts(files, edit, edit + " - 2")
        assert not project.counts(files, edit, edit + "  # as ever")

    @pytest.mark.parametrize("edited", ["part", "parts/a", "deep"])
    @pytest.mark.parametrize("source", RUN.values(), ids=RUN)
    def test_they_are_run_anew_at_each_call(
        self, project: Project, source: str, edited: str
    ) -> None:
        """So an edit counts at the next one; but what they import is loaded once in a process."""
        head = "import importlib.util, os, deep\nfrom pathlib import Path\n"
        head += "from runpy import run_path\nHERE = os.path.dirname(__file__)\n"
        part = "import deep\nL = 1"
        files = {"entry": head + source, "deep": "K = 5", "part": part, "parts/a": part}
        module = project.load(files)
        tracker = CodeTracker(module.f, "entry")
        before = tracker.closure().digest
        path = Path(module.__file__).parent / f"{edited}.py"
        path.write_text(f"{files[edited]}  # as ever")
        assert tracker.closure().digest == before
        path.write_text(f"{files[edited]} - 2")
        after = tracker.closure().digest
        anew = {"parts/a" if "'a.py'" in source else "part"}
        anew |= {"deep"} if "subprocess" in source else set()
        assert (after != before) == (edited in anew)

    @pytest.mark.parametrize("source", BY_NAME.values(), ids=BY_NAME)
    def test_they_are_loaded_once(self, project: Project, source: str) -> None:
        """An edit of one that is loaded counts when it is loaded anew, unless it is run."""
        module = project.load({"entry": f"{IMPORT}import models.a\n{source}", **MODELS})
        tracker = CodeTracker(module.f, "entry")
        before = tracker.closure().digest
        loaded = sys.modules["models.a"]
        Path(loaded.__file__ or "").write_text(MODELS["models/a"].replace("x + K", "x + K * 35"))
        assert (tracker.closure().digest != before) == ("runpy" in source)
        assert (CodeTracker(module.f, "entry").closure().digest != before) == ("runpy" in source)
        importlib.reload(loaded)
        assert tracker.closure().digest != before

    @pytest.mark.parametrize(
        "loads",
        [
            "import_module('deeper.' + x)",
            "import_module(f'.{x}', __package__)",
            "__import__(x, globals(), locals(), level=1)",
            "import_module(MODELS[x])",
            "run_module(MODELS[x])",
        ],
    )
    def test_what_they_import_by_name(self, project: Project, loads: str) -> None:
        """So does what modules import by name that are themselves imported by name."""
        files = {
            "entry": "import importlib\ndef f(x): return importlib.import_module(f'deeper.{x}')",
            "deeper/__init__": "from importlib import import_module\nfrom runpy import run_module\n"
            f"MODELS = {{'a': 'elsewhere.b', 'd': 'deeper.c'}}\ndef load(x): return {loads}",
            "deeper/c": "K = 1",
            "elsewhere/__init__": "",
            "elsewhere/b": "K = 2",
        }
        assert project.counts(files, "K = 1", "K = 3")
        assert project.counts(files, "K = 2", "K = 3") == ("MODELS" in loads)

    def test_files_that_are_not_run(self, project: Project) -> None:
        files = {"entry": "def f(x): return open('part.py')", "part": "L = 1"}
        assert not project.counts(files, "L = 1", "L = 2")

    def test_nothing_is_imported(self, project: Project) -> None:
        """A text may name a program by chance, or an installed package, or a file."""
        source = "N = ['other', 'other.csv', 'models.a', 'this.that']\ndef f(x): return load(N[x])"
        tracker = project.tracker({"entry": IMPORT + source, **MODELS})
        found = nodes(tracker)
        assert {"other:*", "models.a:*", "models.base:*", "deep:*"} <= set(found)
        assert sys.modules.keys().isdisjoint(["other", "models", "deep", "this"])

    def test_large_packages_are_read_once(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_home: Path
    ) -> None:
        """What their files say is remembered from process to process, as long as they are as is."""
        from fleche.function import _whole

        many = {f"models/m{n}": f"from . import m{n - 1}" for n in range(1, _whole.MANY_FRESH)}
        files = {"entry": IMPORT + BY_NAME["a beginning"], **MODELS, **many}
        tracker = project.tracker(files)
        first = tracker.closure().digest
        read: list[str] = []
        parsed = _whole.parsed
        monkeypatch.setattr(_whole, "parsed", lambda text: read.append(text) or parsed(text))

        def again() -> str:
            _whole.sources.clear()
            _whole.recalled.clear()
            return CodeTracker(tracker.function, "entry").closure().digest

        assert again() == first
        assert read == [b"K = 5"]  # a module beside, which is no large package
        Path(sys.modules["entry"].__file__ or "").with_name("models").joinpath("m7.py").write_text(
            "from . import a"
        )
        assert again() != first
        assert set(read[1:]) == {b"K = 5", b"from . import a"}

    def test_imports_for_type_checkers_do_not_count(self, project: Project) -> None:
        models = {
            **MODELS,
            "models/a": "if TYPE_CHECKING:\n    import other\nelse:\n    import deep",
        }
        found = nodes(project.tracker({"entry": IMPORT + BY_NAME["a beginning"], **models}))
        assert "deep:*" in found
        assert "other:*" not in found

    def test_of_its_own_package(self, project: Project) -> None:
        source = "import importlib\ndef f(x): return importlib.import_module('.' + x, __package__)"
        files = {"entry": "from models.load import f", "models/load": source, **MODELS}
        assert project.counts(files, "x + K", "x - K")

    @pytest.mark.parametrize(
        "loads",
        [
            "__import__('a', globals(), locals(), ['run'], 1)",
            "__import__('a', globals(), level=1)",
            "__import__(x, globals(), locals(), (), 1)",
            "__import__(x, globals(), level=LEVEL)",
        ],
    )
    def test_of_a_level(self, project: Project, loads: str) -> None:
        files = {"entry": "from models.load import f", **MODELS}
        files["models/load"] = f"LEVEL = 1\ndef f(x): return {loads}.run(1)"
        assert project.counts(files, "x + K", "x - K")

    def test_a_directory_of_such_a_name(self, project: Project) -> None:
        """It is a package to Python, but has no code."""
        files = {"entry": IMPORT + "def f(x): return load(x), 'results'", **MODELS}
        assert project.digest(files) == project.digest({**files, "results/a/.hidden": ""})

    def test_a_module_that_is_new(self, project: Project) -> None:
        files = {"entry": IMPORT + BY_NAME["a beginning"], **MODELS}
        assert project.digest(files) != project.digest({**files, "models/b": ""})

    def test_named_in_arguments(self, project: Project) -> None:
        source = IMPORT + "@fleche\ndef f(x, **k): return load(x['a']).run(1)"
        files = {"entry": "from fleche import fleche\n" + source, **MODELS}

        def key(files: dict[str, str], model: str) -> Any:
            return project.load(files).f.digest({"a": [model]}, b=1)

        edited = {**files, "deep": "K = 6"}
        assert key(files, "models.a") == key(files, "models.a") != key(edited, "models.a")
        assert key(files, "models") != key(edited, "models")
        assert key(files, "json") == key(edited, "json")

    def test_without_such_imports(self, project: Project) -> None:
        files = {"entry": "N = 'models.a'\ndef f(x): return N", **MODELS}
        assert not project.counts(files, "x + K", "x - K")


MADE = {
    "a number": ("return 1", "return 2"),
    "a function": ("return g", "return h"),
    "what it reads": ("N = 1", "N = 2"),
    "the body of a function": ("y + 1", "y + 2"),
}
USES = {
    "an attribute": "import a\ndef f(x): return a.K, a.call(x)",
    "an import in the body": "def f(x):\n    from a import K, call\n    return K, call(x)",
    "a module that is passed on": "import a\ndef g(m): return m.K, m.call(1)\n"
    "def f(x): return g(a)",
}
MAKERS = {
    "a function": "def __getattr__(name):\n{body}",
    "a class": "import sys, types\nclass M(types.ModuleType):\n    def __getattr__(self, name):\n"
    "    {body}\nsys.modules[__name__].__class__ = M",
}
MADE_BODY = """\
    if name == 'K': return 1
    if name == 'call': return g
    if name == 'n': return N
    raise AttributeError(name)"""


class TestMadeByModules:
    """What a module makes when it is asked for it (PEP 562) counts as what it has does."""

    def files(self, use: str, maker: str = "a function") -> dict[str, str]:
        body = MADE_BODY.replace("\n", "\n    ") if maker == "a class" else MADE_BODY
        text = "N = 1\ndef g(y): return y + 1\ndef h(y): return y\n"
        return {"entry": use, "a": text + MAKERS[maker].format(body=body)}

    @pytest.mark.parametrize("use", USES.values(), ids=USES)
    @pytest.mark.parametrize(("old", "new"), MADE.values(), ids=MADE)
    def test_it_counts(self, project: Project, use: str, old: str, new: str) -> None:
        assert project.counts(self.files(use), old, new)

    @pytest.mark.parametrize(("old", "new"), MADE.values(), ids=MADE)
    def test_by_a_class_of_the_module(self, project: Project, old: str, new: str) -> None:
        assert project.counts(self.files(USES["an attribute"], "a class"), old, new)

    def test_what_it_reads_is_looked_at_anew(self, project: Project) -> None:
        tracker = project.tracker(self.files("import a\ndef f(x): return a.n"))
        before = tracker.closure().digest
        sys.modules["a"].N = 2  # type: ignore[attr-defined]
        assert tracker.closure().digest != before

    @pytest.mark.parametrize("made", ["object()", "time.perf_counter()", "sys.exit(3)"])
    def test_what_is_another_thing_each_time(self, project: Project, made: str) -> None:
        """It counts as it is made."""
        files = {
            "entry": "import a\ndef f(x): return a.K",
            "a": f"import sys, time\ndef __getattr__(name):\n    return {made}, 1",
        }
        assert project.counts(files, ", 1", ", 2")

    def test_a_submodule_that_is_imported_when_it_is_asked_for(self, project: Project) -> None:
        files = {
            "entry": "import a\ndef f(x): return a.b.K",
            "a/__init__": "import importlib\ndef __getattr__(name):\n"
            "    return importlib.import_module(f'{__name__}.{name}')",
            "a/b": "K = 1",
        }
        tracker = project.tracker(files)
        before = tracker.closure()
        assert tracker.closure() is before
        assert before.digest == CodeTracker(tracker.function, "entry").closure().digest
        assert project.counts(files, "K = 1", "K = 2")
        assert not project.counts({**files, "a/c": "K = 3"}, "K = 3", "K = 4")


LOOKED_AT = {
    "an import": ({"bad": "import sys\nsys.exit(3)"}, "import bad"),
    "an import of a name": ({"bad": "import sys\nsys.exit(3)"}, "from bad import K"),
    "a module below it": ({"bad/__init__": "raise SystemExit", "bad/m": ""}, "import bad.m"),
    "what a module does not have": ({"bad": "def __getattr__(n): exit()"}, "from bad import K"),
    "a class that selects": (
        {"bad": "def __getattr__(n): exit()"},
        "pass\nimport bad\ndef g(x):\n    isinstance(x, bad.K)",
    ),
    "a name made at run time": (
        {"bad": "def __getattr__(n): exit()"},
        "pass\nimport bad\ndef g(x):\n    getattr(bad.K, x)",
    ),
}


@pytest.mark.parametrize(("files", "statement"), LOOKED_AT.values(), ids=LOOKED_AT)
def test_a_module_that_exits_does_not_end_the_program(
    project: Project, files: dict[str, str], statement: str
) -> None:
    """What a body imports in a branch that is not taken is imported by nothing but a look at it."""
    source = f"def f(x):\n    if x > 5:\n        g(x)\n    return 1\n\ndef g(x):\n    {statement}"
    assert project.counts({"entry": source, **files}, "return 1", "return 2")


UNUSED = {
    "a local of the same name": ("K = 1\ndef f(x):\n    K = 2\n    return K", "K = 1", "K = 3"),
    "a parameter of the same name": ("K = 1\ndef f(K): return K", "K = 1", "K = 3"),
    "an annotation": ("K = int\ndef f(x: K) -> K:\n    y: K = x\n    return y", "int", "float"),
    "an import for type checkers": (
        {
            "entry": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import K\n"
            "def f(x):\n    if TYPE_CHECKING:\n        import a\n    return x",
            "a": "K = 1",
        },
        "K = 1",
        "K = 2",
    ),
    "a class that only selects": (
        "class A:\n    def g(self): return 1\ndef f(x):\n    return isinstance(x, A)",
        "return 1",
        "return 2",
    ),
    "an exception that is caught": (
        "class A(Exception):\n    def g(self): return 1\ndef f(x):\n"
        "    try:\n        return x\n    except A:\n        return 0",
        "return 1",
        "return 2",
    ),
    "the type of a field": (
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n    k: int = 1\n"
        "def f(x): return [A().k, dataclasses.fields(A)[0].name]",
        "k: int",
        "k: float",
    ),
    "the type of a field, where any name is looked up": (
        "class A:\n    k: int = 1\ndef f(x): return getattr(A(), x)",
        "k: int",
        "k: float",
    ),
    "a method of a name that nothing uses": (
        "class A:\n    def g(self): return 1\n    def h(self): return 2\ndef f(x): return A().g()",
        "return 2",
        "return 3",
    ),
    "a method beside attributes that are set by any name": (
        "class A:\n    def g(self): return 1\ndef f(x):\n    a = A()\n"
        "    for n in x: setattr(a, n, 5)\n    return vars(a)",
        "return 1",
        "return 2",
    ),
    "a decorator that leaves nothing behind": (
        "def mark(g):\n    return g\n@mark\ndef g(x): return x\ndef f(x): return g(x)",
        "    return g\n@",
        "    print(g)\n    return g\n@",
    ),
    "an attribute that repeats the documentation": (
        "def g(x):\n    '''One.'''\n    return x\ng.help = g.__doc__\ndef f(x): return g(x)",
        "One.",
        "Two.",
    ),
}


@pytest.mark.parametrize(("files", "old", "new"), UNUSED.values(), ids=UNUSED)
def test_what_is_not_used_does_not_count(project: Project, files: Any, old: str, new: str) -> None:
    assert not project.counts(files, old, new)


SELECTING = {
    "a class of another module": (
        {
            "entry": "import a, b\nfrom a import E\ndef f(x):\n    try:\n        return x\n"
            "    except E:\n        return 0",
            "a": "class E(Exception): pass",
            "b": "class E(Exception): pass",
        },
        "from a",
        "from b",
    ),
    "a class in another module": (
        {
            "entry": "import a as m, b\ndef f(x): return isinstance(x, m.E)",
            "a": "class E: pass",
            "b": "class E: pass",
        },
        "import a as m, b",
        "import a, b as m",
    ),
    "an installed class": (
        "from asyncio import QueueEmpty as Empty\nfrom queue import Empty as Other\n"
        "def f(x):\n    try:\n        return x\n    except Empty:\n        return 0",
        "QueueEmpty as Empty\nfrom queue import Empty as Other",
        "QueueEmpty as Other\nfrom queue import Empty",
    ),
    "what a metaclass says of objects": (
        "class M(type):\n    def __instancecheck__(cls, o): return o > 1\n"
        "class A(metaclass=M): pass\ndef f(x): return isinstance(x, A)",
        "o > 1",
        "o > 2",
    ),
    "what it says by an attribute of the class": (
        "class M(type):\n    def __subclasscheck__(cls, o): return o in cls.kinds\n"
        "class A(metaclass=M):\n    kinds = [int]\ndef f(x): return issubclass(x, A)",
        "[int]",
        "[str]",
    ),
    "what an object of a protocol must have": (
        "from typing import Protocol, runtime_checkable\n@runtime_checkable\n"
        "class A(Protocol):\n    k: int\nclass B:\n    k = 1\nb = B()\n"
        "def f(x): return isinstance(b, A)",
        "k = 1",
        "n = 1",
    ),
    "what a base says of classes": (
        "import abc\nclass B(abc.ABC):\n    @classmethod\n    def __subclasshook__(cls, o):\n"
        "        return hasattr(o, 'a')\nclass A(B): pass\ndef f(x): return isinstance(x, A)",
        "'a'",
        "'b'",
    ),
    "a class that was registered": (
        "import abc\nclass A(abc.ABC): pass\nA.register(int)\ndef f(x): return isinstance(x, A)",
        "(int)",
        "(str)",
    ),
    "one that was registered with a subclass": (
        "import abc\nclass A(abc.ABC): pass\nclass B(A): pass\nB.register(int)\n"
        "KINDS = (str, A)\ndef f(x): return isinstance(x, KINDS)",
        "(int)",
        "(float)",
    ),
    "what a protocol asks for": (
        "import typing\n@typing.runtime_checkable\nclass A(typing.Protocol):\n"
        "    def go(self): ...\ndef f(x): return isinstance(x, A)",
        "go",
        "stop",
    ),
}
"""Which class it is counts, and what it is asked for beside its bases."""


FUNCTIONS = {
    "an attribute": ("def g(x): return g.k\ng.k = 1\ndef f(x): return g(x)", "k = 1", "k = 2"),
    "a default": ("K = 1\ndef g(x, k=K): return k\ndef f(x): return g(x)", "K = 1", "K = 2"),
    "a captured value": (
        "def make(k):\n    def g(x): return k\n    return g\ng = make(1)\ndef f(x): return g(x)",
        "make(1)",
        "make(2)",
    ),
    "a partial": (
        "import functools\ndef g(k, x): return k\nh = functools.partial(g, 1)\n"
        "def f(x): return h(x)",
        "g, 1",
        "g, 2",
    ),
    "a function below lru_cache": (
        "import functools\n@functools.lru_cache\ndef g(x): return 1\ndef f(x): return g(x)",
        "return 1",
        "return 2",
    ),
    "an implementation by type": (
        "import functools\n@functools.singledispatch\ndef g(x): return 1\n"
        "@g.register\ndef _(x: int): return 2\ndef f(x): return g(x)",
        "return 2",
        "return 3",
    ),
    "a bound method": (
        "class A:\n    def __init__(self, k): self.k = k\n    def g(self, x): return self.k\n"
        "h = A(1).g\ndef f(x): return h(x)",
        "A(1)",
        "A(2)",
    ),
    "a lambda among others on its line": (
        "g, h = (lambda x: x + 1), (lambda x: x + 2)\ndef f(x): return h(x)",
        "x + 2",
        "x + 3",
    ),
    "a function in a dict": (
        "def g(x): return 1\nTABLE = {'g': [g]}\ndef f(x): return TABLE['g'][0](x)",
        "return 1",
        "return 2",
    ),
    "an attribute of a decorated function": (
        "from fleche import fleche\n@fleche\ndef g(x): return g.k\ng.k = 1\ndef f(x): return g(x)",
        "k = 1",
        "k = 2",
    ),
    "a function in something that does not show it": (
        "import numpy\ndef g(x): return 1\nh = numpy.frompyfunc(g, 1, 1)\ndef f(x): return h(x)",
        "return 1",
        "return 2",
    ),
    "how copyreg is told to copy": (
        "import copy, copyreg\nclass A: pass\ndef g(a): return int, (1,)\n"
        "copyreg.pickle(A, g)\ndef f(x): return copy.copy(A())",
        "(1,)",
        "(2,)",
    ),
    "what a pattern gets by its place": (
        "class A:\n    __match_args__ = ('k',)\n    k = 1\n"
        "def f(x):\n    match A():\n        case A(k): return k",
        "k = 1",
        "k = 2",
    ),
    "a method that something calls by its name": (
        "import operator\nclass A:\n    def go(self, k): return 1\n"
        "g = [operator.methodcaller('go', k=1)]\ndef f(x): return g[0](A())",
        "return 1",
        "return 2",
    ),
    "a property that something gets by its name": (
        "import operator\nclass A:\n    @property\n    def k(self): return 1\n"
        "class B:\n    a = A()\ng = operator.attrgetter('x', 'a.k')\ndef f(x): return g(B())",
        "return 1",
        "return 2",
    ),
    "an object that is called": (
        "class A:\n    def __call__(self, x): return 1\na = A()\ndef f(x): return a(x)",
        "return 1",
        "return 2",
    ),
}
"""Defaults, captured values, attributes, and what a decorator has made."""


CLASSES = {
    "an attribute": ("class A:\n    k = 1\ndef f(x): return A.k", "k = 1", "k = 2"),
    "a method through self": (
        "class A:\n    def g(self): return self.h()\n    def h(self): return 1\n"
        "def f(x): return A().g()",
        "return 1",
        "return 2",
    ),
    "a method through super()": (
        "class B:\n    def g(self): return 1\nclass A(B):\n    def g(self): return super().g()\n"
        "def f(x): return A().g()",
        "return 1",
        "return 2",
    ),
    "a property": (
        "class A:\n    @property\n    def k(self): return 1\ndef f(x): return A().k",
        "return 1",
        "return 2",
    ),
    "what a decorator makes of a method": (
        "class A:\n    @staticmethod\n    def g(*a): return a\ndef f(x): return A().g()",
        "@staticmethod",
        "@classmethod",
    ),
    "a special method": (
        "class A:\n    def __add__(self, o): return 1\ndef f(x): return A() + x",
        "return 1",
        "return 2",
    ),
    "a metaclass": (
        "class M(type):\n    def __call__(cls, x): return 1\nclass A(metaclass=M): pass\n"
        "def f(x): return A(x)",
        "return 1",
        "return 2",
    ),
    "the order of bases": (
        "class A: k = 1\nclass B: k = 2\nclass C(A, B): pass\ndef f(x): return C.k",
        "C(A, B)",
        "C(B, A)",
    ),
    "members whose names are made at run time": (
        "class A:\n    def do_g(self): return 1\n    def run(self, n):\n"
        "        return getattr(self, f'do_{n}')()\ndef f(x): return A().run(x)",
        "return 1",
        "return 2",
    ),
    "members that a variable names": (
        "class A:\n    def g(self): return 1\n    def run(self, n): return getattr(self, n)()\n"
        "def f(x): return A().run(x)",
        "return 1",
        "return 2",
    ),
    "a setter of an attribute whose name is made at run time": (
        "class A:\n    @property\n    def k(self): pass\n    @k.setter\n"
        "    def k(self, v): self.v = v + 1\n"
        "def f(x):\n    a = A()\n    for n in x: setattr(a, n, 5)\n    return a.v",
        "v + 1",
        "v + 2",
    ),
    "a descriptor of an attribute that object.__setattr__ sets": (
        "class D:\n    def __set__(self, obj, v): obj.v = v + 1\n"
        "class A:\n    k = D()\n    def put(self, n): object.__setattr__(self, n, 5)\n"
        "def f(x):\n    a = A()\n    a.put(x)\n    return a.v",
        "v + 1",
        "v + 2",
    ),
    "a property that a format gets": (
        "class A:\n    @property\n    def k(self): return 1\n"
        "def f(x): return '<{a[0].k:>5}>'.format(a=[A()])",
        "return 1",
        "return 2",
    ),
    "a property that the format in a variable gets": (
        "class A:\n    @property\n    def k(self): return 1\n"
        "T = '{0.k}'\ndef f(x): return T.format(A())",
        "return 1",
        "return 2",
    ),
    "the type of a field that is asked for": (
        "class A:\n    k: int\ndef f(x): return A.__annotations__['k'](x)",
        "k: int",
        "k: float",
    ),
    "the type of a field, of the dataclass of a helper": (
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n    k: int\n"
        "def make(cls, x): return cls(**{e.name: e.type(x) for e in dataclasses.fields(cls)})\n"
        "def f(x): return make(A, x)",
        "k: int",
        "k: float",
    ),
    "the type of a field, by its hints": (
        "from typing import get_type_hints\nclass A:\n    k: int\n"
        "def f(x): return get_type_hints(A)['k'](x)",
        "k: int",
        "k: float",
    ),
    "the type of a field that a package asks for": (
        "import dataclasses, msgspec\n@dataclasses.dataclass\nclass B:\n    k: int\n"
        "@dataclasses.dataclass\nclass A:\n    b: B\n"
        "def f(x): return msgspec.convert(x, A, strict=False)",
        "k: int",
        "k: float",
    ),
    "the type of a field that is written as text": (
        "import dataclasses, msgspec\n@dataclasses.dataclass\nclass B:\n    k: int\n"
        "@dataclasses.dataclass\nclass A:\n    b: 'list[B]'\n"
        "def f(x): return msgspec.convert(x, A, strict=False)",
        "k: int",
        "k: float",
    ),
    "what overrides a method of an installed base": (
        "import json\nclass E(json.JSONEncoder):\n    def default(self, o): return 1\n"
        "def f(x): return json.dumps(x, cls=E)",
        "return 1",
        "return 2",
    ),
    "a field of a dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n    k: int = 1\n"
        "def f(x): return A().k",
        "= 1",
        "= 2",
    ),
    "the order of fields": (
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n    a: int\n    b: int\n"
        "def f(x): return A(1, x)",
        "    a: int\n    b: int",
        "    b: int\n    a: int",
    ),
    "a default of a named tuple": (
        "import typing\nclass A(typing.NamedTuple):\n    k: int = 1\ndef f(x): return A().k",
        "= 1",
        "= 2",
    ),
    "a member of an enumeration": (
        "import enum\nclass A(enum.Enum):\n    K = 1\ndef f(x): return A.K.value",
        "K = 1",
        "K = 2",
    ),
}
"""Bases, special methods, and the members whose names are used."""


REACHED = {
    "a visitor": ("import ast", "ast.NodeVisitor", "visit_Name"),
    "a class below a visitor": ("import ast", "ast.NodeTransformer", "visit_Name"),
    "a command line": ("import cmd", "cmd.Cmd", "do_go"),
    "a server": ("import http.server", "http.server.BaseHTTPRequestHandler", "do_GET"),
    "a printer": ("import sympy.printing.str as s", "s.StrPrinter", "_print_Mine"),
    "what a base calls and does not have": ("import installed", "installed.Mixin", "area"),
    "what it asks for by a constant": ("import installed", "installed.Mixin", "hook"),
    "what it calls by a text that is formatted": ("import installed", "installed.Mixin", "on_go"),
    "what a variable names": ("import installed", "installed.Caller", "anything"),
}
INSTALLED = """
class Mixin:
    def run(self): return self.area() + getattr(self, "hook", int)()
    def send(self, name):
        method = getattr(self, "on_{}".format(name), None)
        return method
class Caller:
    def run(self, name):
        rule = getattr(self, name)
        return rule(1)
class Reader:
    def run(self): return {name: getattr(self, name) for name in self.fields}
"""


class TestInstalledBases:
    """Of a class with an installed base, members count that the base reaches by their names."""

    @pytest.fixture(autouse=True)
    def installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        place = tmp_path / "site-packages"
        place.mkdir()
        (place / "installed.py").write_text(INSTALLED)
        monkeypatch.syspath_prepend(place)
        yield
        sys.modules.pop("installed", None)

    def source(self, statement: str, base: str, method: str = "unused") -> str:
        return (
            f"{statement}\nclass V({base}):\n    def {method}(self, *a): return 1\n"
            "    def unrelated(self): return 2\ndef f(x): return V()"
        )

    @pytest.mark.parametrize(("statement", "base", "method"), REACHED.values(), ids=REACHED)
    def test_they_count(self, project: Project, statement: str, base: str, method: str) -> None:
        source = self.source(statement, base, method)
        assert project.counts(source, "return 1", "return 3")
        if base != "installed.Caller":
            assert not project.counts(source, "return 2", "return 3")

    @pytest.mark.parametrize(
        ("base", "method"),
        [
            ("pickle.Pickler", "reducer_override"),
            ("pickle.Pickler", "persistent_id"),
            ("pickle.Unpickler", "persistent_load"),
        ],
    )
    def test_a_base_in_c(self, project: Project, base: str, method: str) -> None:
        """There is no source that would show which members it calls, so that all may be meant."""
        assert project.counts(self.source("import pickle", base, method), "return 1", "return 3")

    @pytest.mark.parametrize("base", ["dict", "collections.deque", "collections.OrderedDict"])
    def test_a_container_calls_none(self, project: Project, base: str) -> None:
        source = self.source("import collections", base)
        assert not project.counts(source, "return 1", "return 3")

    @pytest.mark.parametrize("base", ["torch.nn.Module", "installed.Reader", "pandas.DataFrame"])
    def test_others_may_change(self, project: Project, base: str) -> None:
        """A base that reads what a variable names, and does not call it, reads attributes."""
        if base != "installed.Reader":
            pytest.importorskip(base.partition(".")[0])
        source = self.source(f"import {base.partition('.')[0]}", base)
        assert not project.counts(source, "return 2", "return 3")


VALUES = {
    "an object of one's own": (
        "class A:\n    def __init__(self, k): self.k = k\na = A({'k': [1]})\ndef f(x): return a.k",
        "[1]",
        "[2]",
    ),
    "a class of an object": (
        "class A:\n    def g(self): return 1\na = [A()]\ndef f(x): return a[0].g()",
        "return 1",
        "return 2",
    ),
    "an array": (
        "import numpy as np\na = np.arange(3) + 1\ndef f(x): return a * x",
        "+ 1",
        "+ 2",
    ),
    "the order of a dict": (
        "d = {'a': 1, 'b': 2}\ndef f(x): return list(d)",
        "'a': 1, 'b': 2",
        "'b': 2, 'a': 1",
    ),
    "the default of a context variable": (
        "import contextvars\nv = contextvars.ContextVar('v', default=1)\ndef f(x): return v.get()",
        "default=1",
        "default=2",
    ),
    "a format in a dict": (
        "import struct\nd = {}\nfor k in 'i': d[0] = struct.Struct(k)\ndef f(x): return d[0]",
        "in 'i'",
        "in 'q'",
    ),
    "a variable in a query": (
        "LIMIT = 1\ndef f(x): return x.query('a > @LIMIT and b')",
        "LIMIT = 1",
        "LIMIT = 2",
    ),
    "a variable in a query that is put together": (
        "LIMIT = 1\ndef f(x, y): return x.query(f'a > @LIMIT and b < {y}').eval(expr='c')",
        "LIMIT = 1",
        "LIMIT = 2",
    ),
    "the documentation of the module, as a text": (
        "'Usage: one'\ndef f(x): return __doc__.split()",
        "one",
        "two",
    ),
    "a pattern": ("import re\np = re.compile('a')\ndef f(x): return p.match(x)", "'a'", "'b'"),
    "the type of a number": ("K = 1\ndef f(x): return K", "K = 1", "K = True"),
    "a value of a chain of dicts": (
        "import collections\na = collections.ChainMap({'k': 1}, {'l': 1})\ndef f(x): return a['k']",
        "'k': 1",
        "'k': 2",
    ),
    "a value of a user's dict": (
        "import collections\na = collections.UserDict({'k': 1})\ndef f(x): return a['k']",
        "'k': 1",
        "'k': 2",
    ),
    "an item of a user's list": (
        "import collections\na = collections.UserList([1])\ndef f(x): return a[0]",
        "[1]",
        "[2]",
    ),
    "the longest that a queue may become": (
        "import collections\na = collections.deque([1], maxlen=2)\ndef f(x): return a.copy()",
        "maxlen=2",
        "maxlen=5",
    ),
    "an item of a dict of a class of one's own": (
        "import collections\nclass A(collections.UserDict): pass\na = A(k=1)\n"
        "def f(x): return a['k']",
        "k=1",
        "k=2",
    ),
    "a helper in a user's dict": (
        "import collections\nK = 1\ndef g(): return K\na = collections.UserDict(g=g)\n"
        "def f(x): return a['g']()",
        "K = 1",
        "K = 2",
    ),
    "a module that is passed on": (
        {"entry": "import a\ndef g(m): return m.K\ndef f(x): return g(a)", "a": "K = 1"},
        "K = 1",
        "K = 2",
    ),
    "a function of a module by a name made at run time": (
        {"entry": "import a\ndef f(x): return getattr(a, x)()", "a": "def g(): return 1"},
        "return 1",
        "return 2",
    ),
}
"""Data counts by digest, and what is code in it as code."""

COUNTING = {
    "names": NAMES,
    "what selects": SELECTING,
    "functions": FUNCTIONS,
    "classes": CLASSES,
    "values": VALUES,
}


@pytest.mark.parametrize(
    ("files", "old", "new"),
    [
        pytest.param(*case, id=f"{table}: {name}")
        for table, cases in COUNTING.items()
        for name, case in cases.items()
    ],
)
def test_what_counts(project: Project, files: Any, old: str, new: str) -> None:
    """An edit of what the code depends on, in one of these ways, changes its digest."""
    assert project.counts(files, old, new)


HOLDERS = {
    "a namespace": ("argparse", "held = argparse.Namespace(g=g)", "held.g(x)"),
    "an array of objects": ("numpy", "held = numpy.array([g], dtype=object)", "held[0](x)"),
    "an array of instances": ("numpy", "held = numpy.array([A()], dtype=object)", "held[0].g(x)"),
    "a ufunc": ("numpy", "held = numpy.frompyfunc(g, 1, 1)", "held(x)"),
    "a series": ("pandas", "held = pandas.Series([g])", "held[0](x)"),
    "a composition": ("toolz", "held = toolz.compose(g, abs)", "held(x)"),
    "an operator": (
        "scipy.sparse.linalg",
        "held = scipy.sparse.linalg.LinearOperator((1, 1), matvec=g)",
        "held.matvec([x])",
    ),
    "a validator": (
        "pydantic",
        "import typing\nclass held(pydantic.BaseModel):\n"
        "    k: typing.Annotated[int, pydantic.AfterValidator(g)]",
        "held(k=x).k",
    ),
    "a validator deep in a type": (
        "pydantic",
        "import typing\nclass held(pydantic.BaseModel):\n"
        "    k: list[typing.Annotated[int, pydantic.AfterValidator(g)]]",
        "held(k=[x]).k",
    ),
    "a compiled function": ("jax", "@jax.jit\ndef held(x): return g(x)", "held(x)"),
    "a compiled function with rules": (
        "jax",
        "@jax.custom_jvp\ndef held(x): return x\n@held.defjvp\ndef rule(p, t): return p[0], g(t)",
        "held(x)",
    ),
    "a class of functions": (
        "astropy.modeling",
        "@astropy.modeling.custom_model\ndef held(x, a=1): return g(x)",
        "held()(x)",
    ),
    "an object of a class of functions": (
        "astropy.modeling",
        "@astropy.modeling.custom_model\ndef make(x, a=1): return g(x)\nheld = make()",
        "held(x)",
    ),
    "a key of a comparison": (
        "functools",
        "held = {1: functools.cmp_to_key(lambda a, b: g(a))}",
        "sorted(x, key=held[1])",
    ),
    "a key that decorates": (
        "functools",
        "@functools.cmp_to_key\ndef held(a, b): return g(a)",
        "sorted(x, key=held)",
    ),
    "a key that is captured": (
        "functools",
        "def make(compare):\n    key = functools.cmp_to_key(compare)\n"
        "    return lambda x: sorted(x, key=key)\nheld = make(lambda a, b: g(a))",
        "held(x)",
    ),
    "an iterator": ("itertools", "held = itertools.starmap(g, [(1,)])", "list(held)"),
    "the items of a dict": ("types", "held = {'a': g, 'b': A().g}.items()", "dict(held)"),
    "a weak reference": ("weakref", "held = [weakref.ref(g)]", "held[0]()(x)"),
    "a weak method": ("weakref", "a = A()\nheld = weakref.WeakMethod(a.g)", "held()(x)"),
    "a weak dict": ("weakref", "held = weakref.WeakValueDictionary(a=g)", "held['a'](x)"),
    "a weak dict of keys": (
        "weakref",
        "held = weakref.WeakKeyDictionary({HOME: g})",
        "list(held.values())[0](x)",
    ),
    "a weak set": ("weakref", "held = weakref.WeakSet([g])", "list(held)[0](x)"),
    "a queue": ("queue", "held = queue.Queue()\nheld.put((1, functools.partial(g)))", "held.get()"),
    "a queue in C": ("queue", "held = queue.SimpleQueue()\nheld.put(g)", "held.get()"),
    "a queue of a class of one's own": (
        "queue",
        "class Line(queue.Queue): pass\nheld = Line()\nheld.put(g)",
        "held.get()(x)",
    ),
    "a weak set of a class of one's own": (
        "weakref",
        "class Set(weakref.WeakSet): pass\nheld = [Set([g])]",
        "[each(x) for each in held[0]]",
    ),
    "a queue that is captured": (
        "queue",
        "def make(*calls):\n    line = queue.LifoQueue()\n    for each in calls: line.put(each)\n"
        "    return lambda x: line.get()(x)\nheld = make(A().g)",
        "held(x)",
    ),
    "a layer": ("torch", "held = torch.nn.Sequential(Layer())", "held(x)"),
    "a hook": (
        "torch",
        "held = torch.nn.Identity()\nheld.register_forward_hook(lambda m, i, o: g(o))",
        "held(x)",
    ),
}
HOLDING = """
import functools, {module}
K = 1
def g(x): return K
class HOME: pass
class A:
    def g(self, x): return K
class Layer({base}):
    def forward(self, x): return K
{made}
def f(x): return {use}
"""


class TestHeld:
    """Code of the user's own counts wherever an object of an installed class holds it."""

    @pytest.mark.parametrize(("module", "made", "use"), HOLDERS.values(), ids=HOLDERS)
    def test_it_is_followed(self, project: Project, module: str, made: str, use: str) -> None:
        """What the code uses counts, too, and a change of it is seen at the next call."""
        pytest.importorskip(module)
        base = "torch.nn.Module" if module == "torch" else "object"
        source = HOLDING.format(module=module, made=made, use=use, base=base)
        assert project.counts(source, "K = 1", "K = 2")
        loaded = project.load({"entry": source})
        tracker = CodeTracker(loaded.f, "entry")
        before = tracker.closure()
        assert tracker.closure() is before
        loaded.K = 2
        assert tracker.closure().digest != before.digest

    @pytest.mark.parametrize(
        "made",
        [
            "held = queue.Queue()",
            "class Line(queue.Queue): pass\nheld = Line()",
            "held = [queue.PriorityQueue()]\nheld = held[0]",
            "class Set(weakref.WeakSet): put = weakref.WeakSet.add\nheld = Set()",
            "held = weakref.WeakSet()\nput = held.add",
        ],
    )
    def test_what_is_in_a_queue_is_no_data(self, project: Project, made: str) -> None:
        """It comes and goes."""
        source = f"import queue, weakref\nclass A: n = 1\nkept = [A(), A()]\n{made}\n"
        tracker = project.tracker({"entry": f"{source}def f(x): return held"})
        before = tracker.closure()
        module: Any = sys.modules["entry"]
        getattr(module.held, "put", getattr(module, "put", None))(module.kept[0])
        assert tracker.closure().digest == before.digest
        assert not before.changed_data()

    def test_what_it_writes_leaves_the_key(self, project: Project) -> None:
        """A memo that the code fills is state there as everywhere."""
        source = """
            import argparse
            def make():
                memo = {}
                def g(x):
                    memo[x] = x
                    return memo[x]
                return g
            held = argparse.Namespace(g=make())
            def f(x): return held.g(x)
        """
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        tracker.function(1)
        assert not list(before.checks.changed_data())
        assert tracker.closure() is before
        assert CodeTracker(tracker.function, "entry").closure().digest == before.digest


LAB = """
import contextlib, types
precision, options, config, draws = 0, {}, types.SimpleNamespace(update=print), []
def context(): return config
get_config = context
@contextlib.contextmanager
def digits(n): yield config
def make(): return types.SimpleNamespace(set_title=id)
class Pool(contextlib.nullcontext): pass
def set_precision(n): global precision; precision = n
def seed(n): draws.append(n)
def setup(n): pass
def run(x): return x
"""
SETTINGS: dict[str, Any] = {
    "an attribute": "import lab\nlab.precision = 5\ndef f(x): return lab.run(x)",
    "an attribute of what is returned": "import lab\nlab.context().prec = 5\n"
    "def f(x): return lab.run(x)",
    "an attribute of an object": "from lab import config, run\nconfig.prec = 5\n"
    "def f(x): return run(x)",
    "an item": "import lab as l\nl.options['a'] = 5\ndef f(x): return l.run(x)",
    "a call": "import lab\nlab.set_precision(5)\ndef f(x): return lab.run(x)",
    "a call of a method": "import lab\nlab.config.update(5)\ndef f(x): return lab.run(x)",
    "a call by a name of its own": "from lab import run, seed as begin\nbegin(5)\n"
    "def f(x): return run(x)",
    "a call whose result is kept": "import lab\nold = lab.set_precision(5)\n"
    "def f(x): return lab.run(x)",
    "a variable": "import lab\nSEED = 5\nlab.seed(SEED)\ndef f(x): return lab.run(x)",
    "an attribute of a variable": "import argparse, lab\nargs = argparse.Namespace(k=5, o=7)\n"
    "lab.seed(args.k)\ndef f(x): return lab.run(x)",
    "in a branch": "import lab\nif lab:\n    lab.seed(5)\ndef f(x): return lab.run(x)",
    "under a condition": "import lab\nFAST = 5\nif FAST > 3:\n    if lab:\n        lab.seed(1)\n"
    "def f(x): return lab.run(x)",
    "in the body of the program": "import lab\nif __name__ != '__main__':\n    lab.seed(5)\n"
    "def f(x): return lab.run(x)",
    "in a loop": "import lab\nfor k in (1, 5): lab.options[k] = 1\ndef f(x): return lab.run(x)",
    "in a module that is imported": {
        "entry": "import lab, conf\ndef f(x): return lab.run(x)",
        "conf": "import lab\nlab.seed(5)",
    },
    "in a module from which something is imported": {
        "entry": "import lab\nfrom conf import K\ndef f(x): return lab.run(x)",
        "conf": "import lab\nlab.seed(5)\nK = 1",
    },
    "in a module that another one imports": {
        "entry": "import lab, a\ndef f(x): return lab.run(x)",
        "a": "try:\n    from conf import (  # all\n        K,\n    )\nexcept ImportError: pass",
        "conf": "import lab; lab.seed(5)\nK = 1",
    },
    "in a module that is imported by its name": {
        "entry": "import importlib, lab\nimportlib.import_module('conf')\n"
        "def f(x): return lab.run(x)",
        "conf": "import lab\nlab.seed(5)",
    },
    "in a module that the package imports": {
        "entry": "from a.b import g\ndef f(x): return g(x)",
        "a/__init__": "from .conf import *",
        "a/conf": "import lab\nlab.seed(5)",
        "a/b": "import lab\ndef g(x): return lab.run(x)",
    },
    "all is imported": "from lab import *\nconfig.prec = 5\ndef f(x): return run(x)",
    "by a function": "import lab\ndef f(x): return lab.run(x)\n"
    "def setup(): lab.context().prec = 5\nsetup()",
    "what a function is told": "import lab\ndef f(x): return lab.run(x)\n"
    "def setup(n): lab.set_precision(n)\nsetup(5)",
    "by a function that another calls": "import lab\ndef f(x): return lab.run(x)\n"
    "def setup(n):\n    if n: lab.precision = n\ndef main():\n    setup(5)\nmain()",
    "by a function that imports the package": "import lab as l\ndef f(x): return l.run(x)\n"
    "def setup(n):\n    import lab\n    from lab import seed as begin\n    begin(n)\nsetup(5)",
    "by a function of another module": {
        "entry": "import lab, conf as c\nc.setup(5)\ndef f(x): return lab.run(x)",
        "conf": "import lab\ndef setup(n): lab.seed(n)",
    },
    "in the module of a helper": {
        "entry": "from a import g\ndef f(x): return g(x)",
        "a": "import lab\nlab.seed(5)\ndef g(x): return lab.run(x)",
    },
    "in the environment": "import os, lab\nos.environ['LAB_PREC'] = '5'\n"
    "def f(x): return lab.run(x)",
    "in the environment, by a method": "from os import environ as e\nimport lab\n"
    "e.setdefault('LAB_PREC', '5')\ndef f(x): return lab.run(x)",
    "by main(), of what the module imports": "import lab\nfrom lab import config\n"
    "def f(x): return lab.run(x)\ndef main(): config.prec = 5\nmain()",
    "by main(), of all that the module imports": "from lab import *\ndef f(x): return run(x)\n"
    "def main(): config.prec = 5\nmain()",
    "by main() within another call": "import lab\ndef f(x): return lab.run(x)\n"
    "def main(): lab.precision = 5\nstr(main())",
    "by main() that is a coroutine": "import asyncio, lab\ndef f(x): return lab.run(x)\n"
    "async def main(): lab.precision = 5\nasyncio.run(main())",
    "by main(), with a default": "import lab\ndef f(x): return lab.run(x)\n"
    "def main(n=5): lab.precision = n\nmain()",
    "by another name": "import lab\nc = lab.config\nc.prec = 5\ndef f(x): return lab.run(x)",
    "of what is handed out": "import lab\nc = lab.get_config()\nc.prec = 5\n"
    "def f(x): return lab.run(x)",
    "of what is handed out, in a function": "import lab\ndef f(x): return lab.run(x)\n"
    "def main():\n    c = lab.get_config()\n    c.prec = 5\nmain()",
    "as long as something lasts": "import lab\nwith lab.digits(5):\n    lab.draws.clear()\n"
    "def f(x): return lab.run(x)",
    "in a function, as long as something lasts": "import lab\ndef f(x): return lab.run(x)\n"
    "def main():\n    with lab.digits(5): f(1)\nmain()",
    "of what is set as long as something lasts": "import lab\nwith lab.digits(1) as c:\n"
    "    c.prec = 5\ndef f(x): return lab.run(x)",
    "by setattr": "import lab\nsetattr(lab.config, 'prec', 5)\ndef f(x): return lab.run(x)",
    "several at once": "import lab\nlab.precision, lab.width = 5, 1\ndef f(x): return lab.run(x)",
    "what is not in the environment": "import os, lab\nos.environ['LAB_5'] = '1'\n"
    "del os.environ['LAB_5']\ndef f(x): return lab.run(x)",
    "in the environment, by main()": "import os, lab\ndef f(x): return lab.run(x)\n"
    "def main():\n    os.environ['LAB_PREC'] = '5'\nmain()",
    "in the environment, by a keyword": "import os, lab\nos.environ.update(LAB_PREC='5')\n"
    "def f(x): return lab.run(x)",
    "where the package is imported in the body": "import lab as l\nl.seed(5)\n"
    "def f(x):\n    import lab\n    return lab.run(x)",
    "in a package": {
        "entry": "from a.b import g\ndef f(x): return g(x)",
        "a/__init__": "import lab\nlab.seed(5)",
        "a/b": "import lab\ndef g(x): return lab.run(x)",
    },
}
NO_SETTINGS: dict[str, Any] = {
    "of a package that is not used": "import lab, math\nlab.seed(5)\ndef f(x): return math.sin(x)",
    "what the module computes": "import lab\ndef f(x): return lab.run(x)\ny = lab.run(f(5))",
    "what the module does": "import lab\ndef f(x): return lab.run(x)\nlab.run(5)\nlab.setup(5)",
    "an object that the package makes": "import lab\nc = lab.make()\nc.set_title(5)\n"
    "def f(x): return lab.run(x)",
    "what holds something": "import lab\nwith lab.Pool(5): pass\ndef f(x): return lab.run(x)",
    "of the process": "import logging\nlogging.getLogger('a logger of a test').setLevel(5)\n"
    "def f(x): return logging.INFO",
    "in the environment, for another package": "import os, lab\nos.environ['OTHER_N'] = '5'\n"
    "def f(x): return lab.run(x), os.sep",
    "by a function that is not called": "import lab\ndef setup(n=5): lab.seed(n)\n"
    "def f(x): return lab.run(x)",
    "by a function that computes": "import lab\ndef go(n): return lab.run(n)\n"
    "def f(x): return lab.run(x)\ny = go(5)",
    "by a function of a module that is imported later": {
        "entry": "import lab\ndef f(x): return lab.run(x)\ndef main():\n    import conf",
        "conf": "import lab\nlab.seed(5)",
    },
    "another attribute of a variable": "import argparse, lab\n"
    "args = argparse.Namespace(k=2, o=5)\nlab.seed(args.k)\ndef f(x): return lab.run(x)",
}


class TestSettings:
    """What the top of a module sets in an installed package counts for code that uses this."""

    @pytest.fixture(autouse=True)
    def lab(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        place = tmp_path / "site-packages"
        place.mkdir()
        (place / "lab.py").write_text(LAB)
        monkeypatch.syspath_prepend(place)
        monkeypatch.setenv("LAB_PREC", "")
        monkeypatch.setenv("OTHER_N", "")
        yield
        sys.modules.pop("lab", None)

    @pytest.mark.parametrize("files", SETTINGS.values(), ids=SETTINGS)
    def test_they_count(self, project: Project, files: Any) -> None:
        assert project.counts(files, "5", "6")

    @pytest.mark.parametrize("files", NO_SETTINGS.values(), ids=NO_SETTINGS)
    def test_others_do_not(self, project: Project, files: Any) -> None:
        assert not project.counts(files, "5", "6")

    def test_the_change_is_named(self, project: Project) -> None:
        files = {"entry": SETTINGS["in a module that is imported"]["entry"], "conf": ""}
        before = project.tracker(files).closure()
        files["conf"] = "import lab\nlab.seed(5)"
        (change,) = changes_between(before.digests, project.tracker(files).closure())
        assert (str(change), change.what) == ("what is set in `lab`", "new")
        assert "+lab.seed(5)" in change.diff

    def test_the_clock(self, project: Project) -> None:
        """What it has given has no influence, as everywhere."""
        source = "import lab, time\nSEED = time.time_ns()\nlab.seed(SEED)\n"
        files = {"entry": f"{source}def f(x): return lab.run(x)"}
        assert project.digest(files) == project.digest(files)

    def test_in_a_notebook(self, tmp_path: Path) -> None:
        """What was typed last counts, from the next call on."""
        define = "import decimal\n@fleche\ndef f(x): return str(decimal.Decimal(1) / x)"
        show = "print(f(3), f.stats().misses)"
        set_to = "decimal.getcontext().prec = {}"
        cells = [define, set_to.format(3), show, show, set_to.format(5), show]
        assert run_cells(tmp_path, *cells).split() == ["0.333", "1", "0.333", "1", "0.33333", "2"]
        again = run_cells(tmp_path, define, set_to.format(3), show)
        assert again.split() == ["0.333", "2"]  # of all sessions together

    @pytest.mark.parametrize(
        "change",
        [
            "N = {0}\ndecimal.getcontext().prec = N",
            "for n in [{0}]: decimal.getcontext().prec = n",
            "C['p'] = {0}\ndecimal.getcontext().prec = C['p']",
        ],
    )
    def test_values_of_variables(self, tmp_path: Path, change: str) -> None:
        """They count as they are when the function is called."""
        define = "import decimal\nC = {}\n@fleche\ndef f(x): return str(decimal.Decimal(1) / x)"
        cells = [f"{change.format(n)}\nprint(f(3))" for n in (3, 5, 3)]
        assert run_cells(tmp_path, define, *cells).split() == ["0.333", "0.33333", "0.333"]

    @pytest.mark.parametrize(
        "change",
        ["decimal.getcontext().prec = n", "decimal.setcontext(decimal.Context(**{'prec': n}))"],
    )
    def test_in_a_loop(self, tmp_path: Path, change: str) -> None:
        """A script that tries one precision after the other has a result for each."""
        source = f"""
            import decimal
            @fleche
            def f(x): return str(decimal.Decimal(1) / x)
            for n in (3, 5, 3):
                {change}
                print(f(3), f.stats().misses)
        """
        expected = ["0.333", "1", "0.33333", "2", "0.333", "2"]
        assert run_script(tmp_path, source).split() == expected
        assert run_script(tmp_path, source).split()[::2] == expected[::2]

    def test_by_functions_that_call_each_other(self, project: Project) -> None:
        """Each of them counts once, by however many ways it is called."""
        calls = "".join(
            f"def g{n}():\n    g{n + 1}()\n    g{n + 2}()\n    g{n + 1}()\n    g0() if n else 0\n"
            for n in range(50)
        )
        source = f"import lab\nn = 0\n{calls}def g50(): lab.seed(5)\ndef g51(): g50()\n"
        source += "g0() if n else 0\nif n: g0()\ndef f(x): return lab.run(x)"
        assert project.counts(source, "5)", "6)")

    def test_by_a_function_in_a_notebook(self, tmp_path: Path) -> None:
        define = "import decimal\ndef setup(n): decimal.getcontext().prec = n\n"
        define += "@fleche\ndef f(x): return str(decimal.Decimal(1) / x)"
        show = "print(f(3), f.stats().misses)"
        cells = ["setup(3)", show, "setup(5)", show, "setup(3)", show]
        found = run_cells(tmp_path, define, *cells).split()
        assert found == ["0.333", "1", "0.33333", "2", "0.333", "2"]


IMPORTED = {
    "from a module": ("from pack.a import N", "N"),
    "from a module beside": ("from .a import N", "N"),
    "under another name": ("from .a import N as M", "M"),
    "all from a module": ("from .a import *", "N"),
    "by the package": ("from . import N", "N"),
    "through the package": ("import pack", "pack.N"),
    "all by the package": ("from . import *", "N"),
    "within another module": ("from . import a", "a.N"),
}
DEFINED_ELSEWHERE = {
    "written": ("N = {'n': 0, 'k': 5}", "{0}['n'] += 1\n    return {0}['k']"),
    "of the clock": ("import time\nN = time.time() * 5", "return {0}"),
    "without a digest": ("import itertools\nN = itertools.count(5)", "return {0}"),
}


@pytest.mark.parametrize(("statement", "name"), IMPORTED.values(), ids=IMPORTED)
@pytest.mark.parametrize(("defined", "body"), DEFINED_ELSEWHERE.values(), ids=DEFINED_ELSEWHERE)
def test_what_counts_as_it_is_defined(
    project: Project, statement: str, name: str, defined: str, body: str
) -> None:
    """The definition is found in its own module, however it was imported from there."""
    entry = f"{statement}\ndef f(x):\n    {body.format(name)}"
    files = {"pack/__init__": "from .a import *", "pack/a": defined, "pack/b": entry}
    found = []
    for text in (defined, defined, defined.replace("5", "6")):
        tracker = CodeTracker(project.load({**files, "pack/a": text}, "pack.b").f, "pack.b")
        found.append(tracker.closure().digest)
        tracker.function(1)
        assert tracker.closure().digest == found[-1]
    assert found[0] == found[1] != found[2]


def test_what_a_module_defines_itself_beside_all_of_another(project: Project) -> None:
    """`from a import *` is not where a name is from that the module binds, or `a` does not show."""
    other = "__all__ = ['N', 'M', 'go']\nN = {'n': 0}\nM = {'n': 0}\nK = {'n': 0}\ndef go(): pass"
    source = "N = {'n': 5}\nfrom a import *\nN = {'n': 7}\nK = {'n': 9}\ndef go(): return 3\n"
    source += "def f(x):\n    N['n'] += go()\n    K['n'] += 1\n    M['n'] += 1\n"
    files = {"entry": source, "a": other}
    assert project.counts(files, "M = {'n': 0", "M = {'n': 1")
    for text in ("'n': 7", "'n': 9", "return 3"):
        assert project.counts(files, text, text.replace(text[-1], "8"))
    assert not project.counts(files, "K = {'n': 0", "K = {'n': 1")


OPAQUE = """
import sqlite3
UNIT = "create table units (name, value)"
db = sqlite3.connect(":memory:")
db.execute(UNIT)
db.isolation_level = None
other = sqlite3.connect(":memory:")
other.execute("create table others (name)")
"""


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
@pytest.mark.parametrize("read", ["from lib import db", "import lib"])
def test_an_object_without_a_digest(project: Project, read: str) -> None:
    """It counts as it is made, and by what is done to it at the top of its module."""
    path = "db" if read.startswith("from") else "lib.db"
    entry = f"{read}\ndef f(x): return {path}.total_changes"
    files = {"entry": entry, "lib": OPAQUE}
    assert project.counts(files, '= sqlite3.connect(":memory:")\ndb', '= sqlite3.connect("")\ndb')
    assert project.counts(files, "db.execute(UNIT)", "db.execute(UNIT.upper())")
    assert project.counts(files, "(name, value)", "(name, number)")
    assert project.counts(files, "level = None", "level = 'EXCLUSIVE'")
    assert not project.counts(files, "others (name)", "others (value)")
    project.forget()
    gc.collect()  # the connections, before other tests


class TestCalledByInstalledCode:
    """Methods count that the installed code may call to which an object is given."""

    SOURCE = """
        {read}
        class Source:
            def read(self, size=-1): return "1"
            def other(self): return 2
        source = Source()
        def f(x): return {use}
    """

    @pytest.mark.parametrize(
        ("read", "use"),
        [
            ("import json", "json.load(Source())"),
            ("import json as parser", "parser.load(source)"),
            ("from json import load", "load(source)"),
            ("import json, functools\n        load = functools.partial(json.load)", "load(source)"),
        ],
    )
    def test_functions(self, project: Project, read: str, use: str) -> None:
        source = textwrap.dedent(self.SOURCE.format(read=read, use=use))
        assert project.counts(source, 'return "1"', 'return "2"')
        assert not project.counts(source, "return 2", "return 3")
        assert project.tracker({"entry": source}).function(0) == 1

    def test_no_other_code_does(self, project: Project) -> None:
        """Where nothing is called that could, a method may change."""
        source = textwrap.dedent(self.SOURCE.format(read="import math", use="math.sqrt(x), source"))
        assert not project.counts(source, 'return "1"', 'return "2"')

    def test_methods_of_a_class(self, project: Project) -> None:
        source = """
            import configparser
            class Lines:
                def before_get(self, parser, section, option, value, defaults): return "1"
            def f(x):
                found = configparser.ConfigParser(interpolation=Lines())
                found.read_dict({"a": {"b": "2"}})
                return found["a"]["b"]
        """
        assert project.counts(source, 'return "1"', 'return "2"')

    def test_names_in_texts(self, project: Project) -> None:
        """A name that a package asks for by ``methodcaller`` or ``getattr``."""
        pytest.importorskip("jax")
        source = """
            import jax
            @jax.tree_util.register_pytree_node_class
            class Pair:
                def tree_flatten(self): return (1, 2), None
                @classmethod
                def tree_unflatten(cls, aux, children): return cls()
            def f(x): return jax.tree_util.tree_leaves(Pair())
        """
        assert project.counts(source, "(1, 2)", "(1, 3)")


WRAPPERS = {
    "a partial method": (
        "functools",
        "class A:\n    def _h(self, k): return k\n    h = functools.partialmethod(_h, 2)\n"
        "h = A().h",
        ("_h, 2", "_h, 5"),
    ),
    "vectorize": ("numpy", "h = numpy.vectorize(g, otypes=[float])", ("float", "int")),
    "vectorize in part": ("numpy", "h = numpy.vectorize(g, excluded={0})", ("{0}", "{'k'}")),
    "curry": ("toolz", "h = toolz.curry(g, 2)", ("g, 2", "g, 5")),
    "a model": ("lmfit", "h = lmfit.Model(g, prefix='a')", ("'a'", "'b'")),
    "a compiled function": (
        "numba",
        "h = numba.njit(error_model='python')(g)",
        ("'python'", "'numpy'"),
    ),
    "a tuple in a closure": ("jax", "h = jax.grad(g, argnums=(0,))", ("(0,)", "(1,)")),
    "a tuple with None": ("jax", "h = jax.vmap(g, in_axes=(0, 0))", ("(0, 0)", "(0, None)")),
    "an object in a closure": (
        "astropy.units",
        "h = astropy.units.quantity_input(x=astropy.units.m)(g)",
        ("units.m)", "units.s)"),
    ),
    "a list of functions in a closure": (
        "attr",
        "h = attr.converters.pipe(g, lambda x: g(x, 2))",
        ("g(x, 2)", "g(x, 5)"),
    ),
    "a number in a closure": ("attr", "h = attr.converters.default_if_none(2)", ("(2)", "(5)")),
}
WRAPPING = """
import {module}
def g(x, k=1):
    return x * k
{made}
def f(x): return h(x)
"""


class TestWrapped:
    """What an installed wrapper was made with counts beside the function in it."""

    @pytest.mark.parametrize(("module", "made", "edit"), WRAPPERS.values(), ids=WRAPPERS)
    def test_it_counts(
        self, project: Project, module: str, made: str, edit: tuple[str, str]
    ) -> None:
        pytest.importorskip(module)
        source = WRAPPING.format(module=module, made=made)
        assert project.counts(source, *edit)
        assert project.counts(source, "x * k", "x + k") == ("(g" in made)

    @pytest.mark.parametrize(
        ("module", "made"),
        [
            ("joblib", "h = joblib.Memory(None).cache(g)"),
            ("joblib", "h = joblib.Memory('memory', verbose=0).cache(g, ignore=['k'])"),
            ("toolz", "h = toolz.curry(g)"),
            ("numpy", "h = numpy.vectorize(g)"),
            ("lmfit", "h = lmfit.Model(g)"),
        ],
    )
    def test_where_the_function_is_does_not(
        self,
        project: Project,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        module: str,
        made: str,
    ) -> None:
        """What a wrapper takes over of a function, its documentation and place, says nothing."""
        pytest.importorskip(module)
        monkeypatch.chdir(tmp_path)
        source = WRAPPING.format(module=module, made=made)
        assert not project.counts(source, "    return", "    'It says more.'\n\n    return")

    @pytest.mark.parametrize(
        ("module", "made"),
        [
            ("toolz", "h = toolz.memoize(g)"),
            ("toolz", "h = toolz.curry(g)"),
            ("numpy", "h = numpy.vectorize(g)"),
            ("functools", "h = functools.lru_cache(g)"),
            ("numba", "h = numba.njit(g)"),
        ],
    )
    def test_that_it_was_used_does_not(self, project: Project, module: str, made: str) -> None:
        """A wrapper that has worked, or has been looked at, is still the one that it was."""
        pytest.importorskip(module)
        tracker = project.tracker({"entry": WRAPPING.format(module=module, made=made)})
        before = tracker.closure()
        tracker.function(3)
        repr(sys.modules["entry"].h)
        assert not list(before.checks.changed_data())
        assert CodeTracker(tracker.function, "entry").closure().digest == before.digest

    def test_an_overload(self, project: Project) -> None:
        """What compiled functions call in place of another one counts where that is called."""
        pytest.importorskip("numba")
        source = """
            import numba, numba.extending
            def h(x): return x
            def other(x): return x
            @numba.extending.overload(h)
            def in_its_place(x): return lambda x: x + 1
            @numba.extending.overload(other)
            def elsewhere(x): return lambda x: x + 3
            @numba.njit
            def g(x): return h(x)
            def f(x): return g(x)
        """
        assert project.counts(source, "x + 1", "x + 2")
        assert not project.counts(source, "x + 3", "x + 4")

    def test_an_overload_for_a_library(self, project: Project) -> None:
        pytest.importorskip("numba")
        source = """
            import colorsys, shlex, numba, numba.extending
            from textwrap import dedent
            @numba.extending.overload(colorsys.rgb_to_yiq)
            def by_its_module(x): return lambda x: x + 5
            @numba.extending.overload(dedent)
            def by_its_name(x): return lambda x: x + 7
            @numba.extending.overload(shlex.split)
            def elsewhere(x): return lambda x: x + 9
            @numba.njit
            def g(x): return colorsys.rgb_to_yiq(x) + dedent(x)
            def f(x): return g(x)
        """
        found = nodes(project.tracker({"entry": source}))
        assert {"by_its_module", "by_its_name", "elsewhere"} & found.keys() == {
            "by_its_module",
            "by_its_name",
        }

    @pytest.mark.parametrize(
        "made",
        [
            "@jax.jit\ndef h(x): return g(x)",
            "h = jax.custom_jvp(g)\nh.defjvps(lambda t, y, x: t)",
        ],
    )
    def test_that_jax_has_worked_does_not(self, tmp_path: Path, made: str) -> None:
        """In a process of its own: from the first array on, jax warns of each fork."""
        pytest.importorskip("jax")
        script = tmp_path / "script.py"
        script.write_text(
            WRAPPING.format(module="jax", made=made) + "\nfrom fleche.function import CodeTracker\n"
            "before = CodeTracker(f, '__main__').closure()\n"
            "f(3)\n"
            "assert not list(before.checks.changed_data())\n"
            "assert CodeTracker(f, '__main__').closure().digest == before.digest\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, script], env=environment, check=True, timeout=120)

    @pytest.mark.parametrize(
        "made",
        ["list.__add__", "list.append", "types.CodeType.co_name", "dict.__dict__['fromkeys']"],
    )
    def test_what_cannot_change(self, project: Project, made: str) -> None:
        """Descriptors of builtin classes are not looked at again at each call."""
        source = f"import types\ndef around(g):\n    return lambda x: (g, x)\nf = around({made})\n"
        assert not project.tracker({"entry": source}).closure().checks.data

    def test_one_without_a_digest(self, project: Project) -> None:
        """It counts by its class and its function."""
        made = "import threading\nh = numpy.vectorize(g)\nh.lock = threading.Lock()"
        source = WRAPPING.format(module="numpy", made=made)
        assert project.counts(source, "x * k", "x + k")
        assert not project.counts(source, "h.lock =", "h.other =")


SUBCLASSES = {
    "a namespace": (
        "import types\nclass A(types.SimpleNamespace):\n    def g(self): return K * self.k\n"
        "a = A(k=2)",
        "a.g()",
    ),
    "a partial": (
        "import functools\nclass A(functools.partial):\n"
        "    def __call__(self, *args): return super().__call__(*args) * K * self.k\n"
        "a = A(abs)\na.k = 2",
        "a(x)",
    ),
    "a partial method": (
        "import functools\nclass P(functools.partialmethod):\n"
        "    def __get__(self, *args): return lambda x: K * self.k\n"
        "class A:\n    g = P(abs)\n    vars()['g'].k = 2",
        "A().g(x)",
    ),
    "a property": (
        "class P(property):\n    def __get__(self, *args): return super().__get__(*args) * K\n"
        "class A:\n    @P\n    def g(self): return 2",
        "A().g",
    ),
    "a cached property": (
        "import functools\nclass P(functools.cached_property):\n"
        "    def __get__(self, *args): return super().__get__(*args) * K\n"
        "class A:\n    @P\n    def g(self): return 2",
        "A().g",
    ),
    "a class method": (
        "class P(classmethod):\n    def __get__(self, *args): return lambda: K * self.__func__(0)\n"
        "class A:\n    @P\n    def g(cls): return 2",
        "A.g()",
    ),
    "a static method": (
        "class P(staticmethod):\n    def __get__(self, *args): return lambda: K * self.__func__()\n"
        "class A:\n    @P\n    def g(): return 2",
        "A.g()",
    ),
    "a formatter": (
        "import logging\nclass A(logging.Formatter):\n    def format(self, r): return K * self.k\n"
        "a = A()\na.k = 2",
        "a.format(x)",
    ),
    "a queue": (
        "import queue\nclass A(queue.Queue):\n    def g(self): return K * self.k\na = A()\na.k = 2",
        "a.g()",
    ),
    "a thread": (
        "import threading\nclass A(threading.Thread):\n    def g(self): return K * self.k\n"
        "a = A()\na.k = 2",
        "a.g()",
    ),
    "a weak dict": (
        "import weakref\nclass A(weakref.WeakValueDictionary):\n"
        "    def g(self): return K * self.k\na = A()\na.k = 2",
        "a.g()",
    ),
    "an object with a registry": (
        "import types\nclass A:\n    registry = types.MappingProxyType({})\n"
        "    def g(self): return K * self.k\na = A()\na.k = 2",
        "a.g()",
    ),
}


class TestSubclasses:
    """A class of the user's own counts, whatever is special about its base."""

    @pytest.mark.parametrize(("made", "use"), SUBCLASSES.values(), ids=SUBCLASSES)
    def test_class_and_attributes_count(self, project: Project, made: str, use: str) -> None:
        source = f"K = 1\n{made}\ndef f(x): return {use}"
        assert project.counts(source, "K = 1", "K = 5")
        for old in ("k = 2", "k=2", "return 2"):
            if old in source:
                assert project.counts(source, old, old.replace("2", "5"))

    def test_what_the_base_does_with_its_objects_does_not(self, project: Project) -> None:
        source = """
            import threading
            class A(threading.Thread):
                def run(self): pass
            a = A()
            def f(x): return a.is_alive()
        """
        tracker = project.tracker({"entry": source})
        before = tracker.closure().digest
        sys.modules["entry"].a.start()
        sys.modules["entry"].a.join()
        assert tracker.closure().digest == before

    def test_what_a_cached_property_leaves_does_not(self, project: Project) -> None:
        source = """
            import functools, types
            class A(types.SimpleNamespace):
                @functools.cached_property
                def k(self): return [1]
            a = A(b=1)
            def f(x): return a.k
        """
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        assert tracker.function(1) == [1]
        assert before.changed_data() == []
        assert tracker.closure().digest == before.digest


class TestStable:
    """What does not decide a result does not change its key."""

    def test_what_cached_properties_leave(self, project: Project) -> None:
        source = """
            import functools
            class A:
                @functools.cached_property
                def k(self): return [1]
            a = A()
            def f(x): return a.k
        """
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        assert tracker.function(1) == [1]
        assert before.changed_data() == []
        assert tracker.closure().digest == before.digest

    def test_a_path_of_the_project(self, project: Project) -> None:
        """A checkout elsewhere has the same keys."""
        source = """
            import os, pathlib
            HERE = pathlib.Path(__file__).parent / "data"
            TABLE = {"root": os.path.join(os.path.dirname(__file__), "table.txt")}
            def f(x): return HERE, TABLE["root"]
        """
        assert project.digest({"entry": source}) == project.digest({"entry": source})
        assert project.counts(source, "table.txt", "other.txt")

    @pytest.mark.parametrize(
        "call", ["time.time()", "uuid.uuid4().hex", "random.random()", "socket.gethostname()",
                 "datetime.datetime.now()", "tempfile.mkdtemp()", "f'run-{NOW}'",
                 "time.strftime('%H%M%S')", "time.ctime()", "time.localtime(None)",
                 "time.perf_counter_ns()", "Run.start + 1"]
    )  # fmt: skip
    def test_what_the_clock_says(self, project: Project, call: str) -> None:
        source = "import time, uuid, random, socket, datetime, tempfile\nNOW = time.time()\n"
        source += "class Run:\n    start = NOW\n"
        source += f"START = {call}\ndef f(x): return START"
        tracker = project.tracker({"entry": source})
        assert nodes(tracker)["START"] == "state"
        assert tracker.closure().digest == project.digest({"entry": source})
        assert "counts as it is written" in tracker.listing(tracker.closure())["START"].note

    @pytest.mark.parametrize(
        "call",
        ["time.mktime(time.strptime(TEXT, '%Y'))", "time.strftime('%Y', time.gmtime(len(TEXT)))",
         "time.gmtime(len(TEXT))", "time.ctime(len(TEXT))", "time.get_clock_info(TEXT).monotonic"]
    )  # fmt: skip
    def test_what_time_computes_is_no_clock(self, project: Project, call: str) -> None:
        """What a function of `time` makes of a time that it is given counts by its value."""
        source = f"import time\nTEXT = {{!r}}\nVALUE = {call}\ndef f(x): return VALUE"
        tracker = project.tracker({"entry": source.format("time" if "info" in call else "1999")})
        assert nodes(tracker)["VALUE"] == "data"

    @pytest.mark.parametrize(
        "start", ["time.time()", "os.getpid()", "NOW", "first + 1", "[uuid.uuid4()]"]
    )
    def test_an_attribute_of_a_class_that_the_clock_makes(
        self, project: Project, start: str
    ) -> None:
        """It counts as it is written, for the functions that use it and for the class itself."""
        source = f"""
            import dataclasses, os, time, uuid
            NOW = time.time()
            class A:
                first = time.perf_counter()
                k = 1
                start = {start}
                def get(self): return self.start
            @dataclasses.dataclass
            class B:
                start: float = time.time()
                def get(self): return self.start
            def f(x): return A().get(), B().get()
        """
        found = []
        for text in (source, source, source.replace("k = 1", "k = 2")):
            tracker = project.tracker({"entry": text})
            module = sys.modules["entry"]
            found.append((tracker.closure().digest, *map(code_digest, (module.A, module.B))))
        first, again, edited = found
        assert nodes(tracker)["A.start"] == "state"
        assert first == again
        assert (first[0], first[2]) == (edited[0], edited[2])
        assert first[1] != edited[1]

    def test_a_time_that_is_imported(self, project: Project) -> None:
        files = {"entry": "from lib import START\ndef f(x): return START"}
        files["lib"] = "import time\nSTART = time.time()"
        assert project.digest(files) == project.digest(files)

    def test_what_else_goes_into_it(self, project: Project) -> None:
        source = """
            import uuid
            BASE = "runs"
            OUT = f"{BASE}/{uuid.uuid4()}"
            def f(x): return OUT
        """
        assert project.counts(source, '"runs"', '"other"')

    def test_locks_and_logs(self, project: Project) -> None:
        source = """
            import logging, threading, weakref
            log, lock = logging.getLogger("a"), threading.RLock()
            live = weakref.WeakValueDictionary()
            def f(x):
                with lock:
                    log.info(x, live)
        """
        assert project.digest({"entry": source}) == project.digest({"entry": source})

    def test_dataclasses_generate_nothing_that_counts(self, project: Project) -> None:
        source = """
            import dataclasses
            @dataclasses.dataclass(order=True)
            class A:
                k: int = 1
            def f(x): return A() < A(x)
        """
        found = nodes(project.tracker({"entry": source}))
        assert [label for label, kind in found.items() if kind == "function"] == ["f"]


PROXY = """
    asked = []
    class A:
        def __getattr__(self, name):
            if not name.startswith("__"):
                asked.append(name)
                {answer}
            raise AttributeError(name)
    {module}
    a = A()
    def f(x): return x if a is not None else a.k
"""


class TestNotAsked:
    """Objects are looked into, and not asked: some load something then, or answer to anything."""

    @pytest.mark.parametrize("answer", ["return 1", "raise RuntimeError(name)", "return len"])
    @pytest.mark.parametrize("module", ["", "A.__module__ = 'json'"], ids=["own", "installed"])
    def test_a_lazy_object(self, project: Project, answer: str, module: str) -> None:
        source = textwrap.dedent(PROXY).format(answer=answer, module=module)
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        assert tracker.closure() is before
        assert sys.modules["entry"].asked == []
        assert project.digest({"entry": source}) == before.digest

    def test_one_that_raises_whatever_is_asked(self, project: Project) -> None:
        """It counts by its class."""
        source = """
            K = 1
            class A:
                def __getattribute__(self, name):
                    if name != "__class__":
                        raise RuntimeError(name)
                    return A
                def __len__(self):
                    return K
            a = [A()]
            def f(x): return len(a[0])
        """
        assert project.counts(source, "K = 1", "K = 2")

    def test_a_wrapper_that_hides_its_class(self, project: Project) -> None:
        """What seems to be the function that it wraps still leads to that."""
        pytest.importorskip("wrapt")
        source = """
            import wrapt
            K = 1
            def g(x): return K
            h = wrapt.FunctionWrapper(g, lambda wrapped, instance, args, kwargs: wrapped(*args))
            def f(x): return h(x)
        """
        assert project.counts(source, "K = 1", "K = 2")


STATE = {
    "global": "N = 1\ndef g():\n    global N\n    N += 1\ndef f(x):\n    g()\n    return N",
    "an item": "N = {'a': 1}\ndef f(x):\n    N[x] = 1\n    return N",
    "an attribute": "class A: pass\nN = A()\nN.k = 1\ndef f(x):\n    N.k = x\n    return N.k",
    "del": "N = {1: 1}\ndef f(x):\n    del N[x]\n    return N",
    "a method": "N = [1]\ndef f(x):\n    N.append(x)\n    return N",
    "data of a thread": (
        "import threading\nN = threading.local()\ndef f(x):\n"
        "    N.__dict__.setdefault('stack', []).append(x)\n    return N.stack.pop()"
    ),
    "a list that a thread has only then": (
        "import threading\nN = threading.local()\ndef f(x):\n"
        "    if not hasattr(N, 'stack'): N.stack = []\n    N.stack.append(x)\n    return N.stack"
    ),
    "what a view shows": (
        "import types\nM = {1: 1}\nN = types.MappingProxyType(M)\ndef f(x):\n    M[x] = 1\n"
        "    return N"
    ),
    "a module": "import entry\nN = [1]\ndef f(x):\n    entry.N.append(x)\n    return entry.N",
}


LATE = {
    "a variable": (
        "N = None\ndef g():\n    global N\n    if N is None:\n        N = 3\n    return N\n"
        "def f(x): return g()",
        "N = 5",
    ),
    "a variable, by an early return": (
        "N = None\ndef g():\n    global N\n    if N:\n        return N\n    N = [3]\n"
        "    return N\ndef f(x): return g()",
        "N = [5]",
    ),
    "what is in a variable": (
        "N = None\ndef g():\n    global N\n    if not N:\n        N = {'a': 3}\n    return N\n"
        "def f(x): return g()",
        "g()['a'] = 5",
    ),
    "the one object of a class": (
        "class N:\n    one = None\n    k = 1\n    @classmethod\n    def get(cls):\n"
        "        if cls.one is None:\n            cls.one = cls()\n        return cls.one\n"
        "def f(x): return N.get().k",
        "N.get().k = 5",
    ),
    "the one object that there can be": (
        "class N:\n    one = None\n    k = 1\n    def __new__(cls):\n"
        "        if not N.one:\n            N.one = super().__new__(cls)\n        return N.one\n"
        "def f(x): return N().k",
        "N().k = 5",
    ),
    "an attribute of a function": (
        "def g():\n    if g.table is None: g.table = [3]\n    return g.table\ng.table = None\n"
        "def f(x): return g()",
        "g.table = [5]",
    ),
}
"""Code that assigns where there is nothing yet, and a statement by which the program does."""


COUNTED = """
def counted(g):
    def wrapper(x):
        wrapper.calls += 1
        g.last = x
        return g(x) + K
    wrapper.calls = 0
    return wrapper
"""

ON_FUNCTIONS = {
    "a counter": "def g(x):\n    g.calls += 1\n    return x\ng.calls = 0\ndef f(x): return g(x)",
    "a counter that code begins": (
        "def g(x):\n    g.calls = getattr(g, 'calls', 0) + 1\n    return x\ndef f(x): return g(x)"
    ),
    "by setattr": (
        "def g(x):\n    setattr(g, 'calls', getattr(g, 'calls', 0) + 1)\n    return x\n"
        "def f(x): return g(x)"
    ),
    "a memo": (
        "def g(x):\n    if not hasattr(g, 'memo'): g.memo = {}\n    g.memo[x] = x\n"
        "    return g.memo[x]\ndef f(x): return g(x)"
    ),
    "a memo that is there": (
        "def g(x):\n    g.memo.setdefault(x, x)\n    return g.memo[x]\ng.memo = {}\n"
        "def f(x): return g(x)"
    ),
    "an item": (
        "def g(x):\n    g.memo['a'] += x\n    return x\ng.memo = {'a': 1}\ndef f(x): return g(x)"
    ),
    "on the function itself": "def f(x):\n    f.calls = getattr(f, 'calls', 0) + 1\n    return x",
    "on a decorated function": (
        "from fleche import fleche as cached\n@cached\ndef g(x): return x\ng.calls = 0\n"
        "def f(x):\n    g.calls += 1\n    return g(x)"
    ),
    "by a decorator": f"K = 1\n{COUNTED}\n@counted\ndef g(x): return x\ndef f(x): return g(x)",
}
"""Functions whose attributes code sets."""


MADE_BY_CODE = {
    "a variable": "def g():\n    global N\n    N = [3]\n    return N\ndef f(x): return g()",
    "a variable that is asked for": (
        "def g():\n    global N\n    try: N\n    except NameError: N = [3]\n    return N\n"
        "def f(x): return g()"
    ),
    "an item of globals()": (
        "def g():\n    if 'N' not in globals(): globals()['N'] = 3\n    return N\n"
        "def f(x): return g()"
    ),
    "an attribute of a class": (
        "class A:\n    @classmethod\n    def get(cls):\n"
        "        if not hasattr(cls, 'one'): cls.one = cls()\n        return cls.one\n"
        "def f(x): return A.get()"
    ),
    "an attribute by type(self)": (
        "class A:\n    def go(self, x): type(self).last = x\ndef f(x): return A().go(x)"
    ),
    "a variable that is gone": (
        "N = 1\ndef f(x):\n    global N\n    N = x\n    y = N\n    del N\n    return y"
    ),
}
"""Code that makes what was not there, or takes away what was."""


PARTS = {
    "an item that is counted": (
        "N = {'a': 1, 'b': 2}\ndef f(x):\n    N['a'] += 1\n    return N['b'] * x",
        "N['b'] = 5",
    ),
    "an attribute that is counted": (
        "class A: pass\nN = A()\nN.a, N.b = 1, 2\ndef f(x):\n    N.a += 1\n    return N.b * x",
        "N.b = 5",
    ),
    "an item of class data that is counted": (
        "class A:\n    n = {'a': 0, 'b': 0}\n    def g(self):\n        self.n['a'] += 1\n"
        "def f(x):\n    A().g()\n    return A.n['b']",
        "A.n['b'] = 5",
    ),
    "an item": ("N = {'a': 1, 'b': 2}\ndef f(x):\n    N['a'] = x\n    return N", "N['b'] = 5"),
    "an item of a list": ("N = [1, 2]\ndef f(x):\n    N[0] = x\n    return N", "N[1] = 5"),
    "an item of an item": (
        "N = {'c': {'a': 1, 'b': 2}}\ndef f(x):\n    N['c']['a'] = x\n    return N",
        "N['c']['b'] = 5",
    ),
    "a list in an item": (
        "N = {'a': [1], 'b': [2]}\ndef f(x):\n    N['a'].append(x)\n    return N",
        "N['b'].append(5)",
    ),
    "an item that was missing": (
        "N = {'b': 2}\ndef f(x):\n    N.setdefault('a', x)\n    return N",
        "N['b'] = 5",
    ),
    "items that are updated": (
        "N = {'a': 1, 'b': 2}\ndef f(x):\n    N.update(a=x)\n    return N",
        "N['b'] = 5",
    ),
    "an attribute": (
        "class A: pass\nN = A()\nN.a, N.b = 1, 2\ndef f(x):\n    N.a = x\n    return N.a, N.b",
        "N.b = 5",
    ),
    "an attribute of a slot": (
        "class A: __slots__ = ('a', 'b')\nN = A()\nN.a, N.b = 1, 2\n"
        "def f(x):\n    N.a = x\n    return N.a, N.b",
        "N.b = 5",
    ),
    "a list in an attribute": (
        "class A: pass\nN = A()\nN.a, N.b = [1], [2]\n"
        "def f(x):\n    N.a.append(x)\n    return N.a, N.b",
        "N.b = 5",
    ),
    "an option of the command line": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--b', default=2)\n"
        "N = p.parse_args([])\ndef f(x):\n    N.a = x\n    return N.b",
        "N.b = 5",
    ),
    "an item of an attribute": (
        "import types\nN = types.SimpleNamespace(d={'a': 1, 'b': 2})\n"
        "def f(x):\n    N.d['a'] = x\n    return N.d",
        "N.d['b'] = 5",
    ),
    "an item of class data": (
        "class A:\n    d = {'a': 1, 'b': 2}\n    def put(self, x):\n        self.d['a'] = x\n"
        "N = A\ndef f(x):\n    A().put(x)\n    return A.d",
        "N.d['b'] = 5",
    ),
}
"""Code that writes a part of a variable, and a statement that changes another part."""


HOOKS = {
    "a registry of __init_subclass__": (
        "R = {}\nclass B:\n    def __init_subclass__(cls): R[cls.__name__] = cls\n"
        "class C(B):\n    k = 1\n    def go(self): return 1\ndef f(x): return R['C']().go()",
        "return 1",
    ),
    "a parameter of a class": (
        "class B:\n    def __init_subclass__(cls, k=1): cls.k = k\n"
        "class C(B, k=10): pass\ndef f(x): return C.k",
        "k=10",
    ),
    "what __init_subclass__ leaves in a helper's registry": (
        "R = {}\ndef note(cls): R[cls.__name__] = cls\nclass B:\n"
        "    def __init_subclass__(cls): note(cls)\n"
        "class C(B):\n    def go(self): return 1\ndef f(x): return R['C']().go()",
        "return 1",
    ),
    "what __set_name__ notes": (
        "K = {'k': 10}\nclass D:\n    def __set_name__(self, owner, name): owner.k = K['k']\n"
        "class C:\n    d = D()\ndef f(x): return C.d, C.k",
        "10",
    ),
    "a registry of a metaclass": (
        "class M(type):\n    made = {}\n    def __new__(cls, *args, k=1):\n"
        "        return super().__new__(cls, *args)\n    def __init__(cls, name, *_, k=1):\n"
        "        cls.made[name] = k\n"
        "class C(metaclass=M, k=10): pass\ndef f(x): return C.made['C']",
        "k=10",
    ),
    "an attribute that a metaclass sets": (
        "class M(type):\n    def __new__(cls, name, bases, space, k=1):\n"
        "        made = super().__new__(cls, name, bases, space)\n        made.k = k\n"
        "        cls.last = k\n        return made\n"
        "class C(metaclass=M, k=10):\n    def go(self): return self.k\n"
        "def f(x): return C().go(), M.last",
        "k=10",
    ),
}

CODE_IN_STATE = {
    "the class of an object": (
        "class Q:\n    def __init__(self): self.n = 0\n    def go(self, x): return 1\nP = Q()\n"
        "def f(x):\n    P.n += 1\n    return P.go(x)",
        "return 1",
    ),
    "the class of an object of a class": (
        "class Q:\n    def go(self, x): return 1\nclass A:\n    made = [Q()]\n"
        "    def put(self): self.made.append(2)\n"
        "def f(x):\n    A().put()\n    return A.made[0].go(x)",
        "return 1",
    ),
    "a function in a registry": (
        "def a(x): return 1\nOPS = {}\nOPS['a'] = [a]\ndef put(n, g): OPS[n] = g\n"
        "def f(x):\n    put('b', abs)\n    return OPS['a'][0](x)",
        "return 1",
    ),
    "a method in a registry": (
        "class Q:\n    def go(self, x): return 1\nOPS = []\nOPS.append(Q().go)\n"
        "def f(x):\n    OPS.append(abs)\n    return OPS[0](x)",
        "return 1",
    ),
    "what a decorator has registered": (
        "OPS = {}\ndef register(g):\n    def wrapper(x): return g(x)\n"
        "    OPS[g.__name__] = wrapper\n    return g\n@register\ndef a(x): return 1\n"
        "def f(x):\n    register(abs)\n    return OPS['a'](x)",
        "return 1",
    ),
    "what goes into its definition": (
        "K = 1\ndef make(): return {'a': K, 'n': 0}\nP = make()\n"
        "def f(x):\n    P['n'] += 1\n    return P['a'] * x",
        "K = 1",
    ),
    "what goes into the definition in a class": (
        "K = 1\nclass A:\n    k = K\n    made = [k]\n    def put(self): self.made.append(2)\n"
        "def f(x):\n    A().put()\n    return A.made",
        "K = 1",
    ),
    "a method of an object": (
        "class Q:\n    def go(self, x): return 1\nP = Q()\ngo = P.go\n"
        "def f(x):\n    P.n = x\n    return go(x)",
        "return 1",
    ),
    "how the object of a method is made": (
        "K = 1\nclass Q:\n    def __init__(self, k): self.k = k\n    def go(self): return self.k\n"
        "P = Q(K)\ngo = P.go\ndef f(x):\n    P.n = x\n    return go(x)",
        "K = 1",
    ),
}


MADE = {
    "a helper": "def h(x): return x\nh = make(K, 1)(h)\ndef f(x): return h(x)",
    "the function itself": "def f(x): return x\nf = make(K, 1)(f)",
    "a decorated helper": "@make(K, 1)\ndef h(x): return x\ndef f(x): return h(x)",
    "the function itself, decorated": "@make(K, 1)\ndef f(x): return x",
    "a method": "class A:\n    @make(K, 1)\n    def h(self): return 1\ndef f(x): return A().h()",
    "another decorated function": "from fleche import fleche\n@fleche\n@make(K, 1)\n"
    "def h(x): return x\ndef f(x): return h(x)",
}


LCG = "def g():\n    global N\n    N = N * 5 % 7\n    return N\ndef f(x): return g()\n"
TABLE = "N = {}\ndef f(x):\n    if x not in N: N[x] = 0\n    return N[x]\n"
SET_AT_TOP = {
    "under a condition": (f"K = 3\nN = 1\nif K > 2: N = 2\n{LCG}", "> 2", "> 5"),
    "under another one": (
        f"K = 3\nN = 1\nif K > 2:\n    if K:\n        N = 2\n{LCG}",
        "> 2",
        "> 5",
    ),
    "in the other branch": (f"K = 3\nN = 1\nif K > 2: pass\nelse: N = 2\n{LCG}", "> 2", "> 5"),
    "in which branch": (f"K = 3\nN = 1\nif K: N = 2\n{LCG}", "if K: N", "if K: pass\nelse: N"),
    "in a loop": (f"{TABLE}for k in range(3): N[k] = k\ndel k", "range(3)", "range(4)"),
    "while a condition holds": (f"N = 1\nwhile N < 9: N = N * 2\n{LCG}", "N < 9", "N < 5"),
    "what a loop is over": (
        f"def ks(): return [1, 2]\n{TABLE}for k in ks(): N[k] = k\ndel k",
        "[1, 2]",
        "[1]",
    ),
    "by a function": (f"{TABLE}def fill():\n    N[1] = 2\nfill()", "N[1] = 2", "N[1] = 3"),
    "by what a function is told": (
        f"N = 1\ndef seed(n):\n    global N\n    N = n\nseed(4)\n{LCG}",
        "seed(4)",
        "seed(5)",
    ),
    "by a function that another calls": (
        f"{TABLE}def put(k, n): N[k] = n\ndef fill():\n    for k in 1, 2: put(k, 7)\nfill()",
        "put(k, 7)",
        "put(k, 8)",
    ),
    "by a function under a condition": (
        f"K = 3\n{TABLE}def fill():\n    N[1] = 2\nif K > 2: fill()",
        "> 2",
        "> 5",
    ),
    "by a function whose result is kept": (
        f"{TABLE}def put(n):\n    N[1] = n\n    return n\nM = put(4)",
        "put(4)",
        "put(5)",
    ),
    "by a decorator": (
        f"{TABLE}def put(n):\n    def wrapper(g):\n        N[1] = n\n        return g\n"
        "    N[2] = n\n    return wrapper\n@put(4)\ndef h(): pass",
        "put(4)",
        "put(5)",
    ),
    "by an object": (
        f"{TABLE}class Fill:\n    def __init__(self, n): N[1] = n\nFill(4)",
        "Fill(4)",
        "Fill(5)",
    ),
    "by a decorator that is an object": (
        "class N:\n    made = {}\n    def __init__(self, k): self.k = k\n"
        "    def __call__(self, g):\n        N.made[self.k] = g\n        return g\n"
        "@N('a')\ndef g(): return 1\ndef f(x):\n    N(x)(g)\n    return N.made",
        "'a'",
        "'b'",
    ),
    "by a method of a class": (
        "class A:\n    made = []\n    @classmethod\n    def put(cls, n): cls.made.append(n)\n"
        "A.put(4)\ndef f(x):\n    A.put(x)\n    return A.made[0]",
        "put(4)",
        "put(5)",
    ),
    "by a method of an object": (
        "class A:\n    def __init__(self): self.made = {}\n    def put(self, k):\n"
        "        self.made[k] = 1\n        return lambda g: g\nN = A()\n"
        "@N.put('a')\ndef g(): return 1\ndef f(x):\n    N.made[x] = 1\n    return N.made",
        "'a'",
        "'b'",
    ),
    "by the base of a class": (
        "class A:\n    made = {}\n    def __init_subclass__(cls, k): A.made[k] = cls\n"
        "class B(A, k='a'): pass\ndef f(x):\n    class C(A, k=x): pass\n    return len(A.made)",
        "'a'",
        "'b'",
    ),
    "by the module of the function": (
        {
            "entry": "import a\na.seed(4)\ndef f(x): return a.g()",
            "a": f"N = 1\ndef seed(n):\n    global N\n    N = n\n{LCG}",
        },
        "seed(4)",
        "seed(5)",
    ),
    "an item, by the module of the function": (
        {"entry": "import a\na.N[1] = 4\ndef f(x): return a.f(x)", "a": TABLE},
        "= 4",
        "= 5",
    ),
    "an item of what the module of the function imports": (
        {
            "entry": "from a import N\nN.update({1: 4})\nfrom a import f as g\n"
            "def f(x): return g(x)",
            "a": TABLE,
        },
        "1: 4",
        "1: 5",
    ),
    "another variable of that module": (
        {"entry": "import a\na.N = 4\ndef f(x): return a.f(x)", "a": f"N = 1\n{LCG}"},
        "= 4",
        "= 5",
    ),
    "what is deleted": (f"{TABLE}N.update(a=1, b=2)\ndel N['a']", "['a']", "['b']"),
    "in a case": (
        "match 3:\n    case 3: N = {'a': 1}\ndef f(x):\n    N[x] = 1\n    return N['a']",
        "'a': 1",
        "'a': 2",
    ),
    "in which case": (
        f"N = 1\nmatch 3:\n    case 3: N = 4\n    case 5: N = 6\n{LCG}",
        "case 3: N = 4\n    case 5: N = 6",
        "case 5: N = 4\n    case 3: N = 6",
    ),
    "an item of an attribute of a class": (
        "class A: N = {}\nA.N['a'] = 4\ndef f(x):\n    A.N[x] = 1\n    return A.N['a']",
        "= 4",
        "= 5",
    ),
    "an attribute of a class": (
        "class A: N = {}\nA.N = {'a': 4}\ndef f(x):\n    A.N[x] = 1\n    return A.N['a']",
        "': 4",
        "': 5",
    ),
    "an attribute of an imported class": (
        {
            "entry": "from a import A\nA.N['a'] = 4\ndef f(x): return A().g(x)",
            "a": "class A:\n    N = {}\n    def g(self, x):\n        self.N[x] = 1\n"
            "        return self.N['a']",
        },
        "= 4",
        "= 5",
    ),
    "an attribute of a base": (
        "class B: N = {'a': 4}\nclass A(B): pass\nA.N['b'] = 1\ndef f(x):\n"
        "    A.N[x] = 1\n    return A.N['a']",
        "': 4",
        "': 5",
    ),
    "an attribute of a base, by what is derived from it": (
        "class B: N = {}\nclass A(B): pass\nA.N['a'] = 4\ndef f(x):\n"
        "    B.N[x] = 1\n    return A.N['a']",
        "= 4",
        "= 5",
    ),
    "an attribute of a class in another": (
        "class A:\n    class B: N = []\nA.B.N.append(4)\ndef f(x):\n"
        "    A.B.N.append(x)\n    return A.B.N",
        "(4)",
        "(5)",
    ),
}
"""Where the top of a module sets a variable `N` that the code writes."""


MAKER = (
    "import functools\ndef make(n):\n    def g(x):\n        nonlocal n\n        n += x\n"
    "        return n\n    return g\ndef wrap(h): return lambda x: h(x)\n"
)
MADE_TO_WRITE = {
    "in a list": "H = [make(3), make(7)]\ndef f(x): return H[0](x)",
    "in a tuple": "H = (make(3), make(7))\ndef f(x): return H[0](x)",
    "in a dict": "H = {k: make(k + 3) for k in (1, 4)}\ndef f(x): return H[x](x)",
    "put into a list": "H = []\nH.append(make(3))\ndef f(x): return H[0](x)",
    "put in by a loop": "H = {}\nfor k in (3, 5): H[k] = make(k)\ndef f(x): return H[x](x)",
    "in an object": "class A:\n    def __init__(self, k): self.g = make(k)\n"
    "a = A(3)\ndef f(x): return a.g(x)",
    "in a class": "class A:\n    g = staticmethod(make(3))\ndef f(x): return A.g(x)",
    "in a partial": "h = functools.partial(make(3), 1)\ndef f(x): return h()",
    "in what wraps it": "h = wrap(make(3))\ndef f(x): return h(x)",
    "in a default": "def g(x, h=make(3)): return h(x)\ndef f(x): return g(x)",
    "in an attribute": "def g(x): return g.h(x)\ng.h = make(3)\ndef f(x): return g(x)",
    "of the object of a method": "class A:\n    def g(self, x): return self.h(x)\n"
    "a = A()\na.h = make(3)\ngo = a.g\ndef f(x): return go(x)",
}
"""Functions that write what they capture, and that no name leads to."""


TALLY = "N = {'n': 0}\ndef f(x):\n    N['n'] += 1\n    return N['k']\n"


class TestState:
    """A variable that the code itself writes counts by its definition, not by its value."""

    @pytest.mark.parametrize("source", STATE.values(), ids=STATE)
    def test_writing_leaves_the_key(self, project: Project, source: str) -> None:
        tracker = project.tracker({"entry": source})
        assert nodes(tracker)["N"] == "state"
        before = tracker.closure().digest
        tracker.function(1)
        assert tracker.closure().digest == before

    def test_an_edit_of_the_definition_counts(self, project: Project) -> None:
        assert project.counts(STATE["an item"], "'a': 1", "'a': 2")

    @pytest.mark.parametrize(("files", "old", "new"), SET_AT_TOP.values(), ids=SET_AT_TOP)
    def test_what_the_top_of_a_module_sets(
        self, project: Project, files: Any, old: str, new: str
    ) -> None:
        """It counts with all that decides what is set there, and the value leaves the key."""
        assert project.counts(files, old, new)
        tracker = project.tracker({"entry": files} if isinstance(files, str) else files)
        before = tracker.closure().digest
        tracker.function(1)
        assert CodeTracker(tracker.function, "entry").closure().digest == before

    @pytest.mark.parametrize("source", MADE_TO_WRITE.values(), ids=MADE_TO_WRITE)
    def test_how_a_function_is_made_that_writes(self, project: Project, source: str) -> None:
        """What it has captured counts by what its maker was given, wherever it is kept."""
        assert project.counts(MAKER + source, "3", "9")
        tracker = project.tracker({"entry": MAKER + source})
        before = tracker.closure().digest
        tracker.function(1 if "(1, 4)" in source else 3)
        assert CodeTracker(tracker.function, "entry").closure().digest == before
        assert not tracker.closure().changed_data()

    def test_what_other_cells_set(self, tmp_path: Path) -> None:
        """That counts as it was typed last, each call for itself."""
        define = """
            from fleche.function import CodeTracker
            N, M = {}, []
            def f(x):
                N[x] = 1
                M.append(1)
                return M, N["a"]
        """
        cells = ["N['a'] = 1", "M.append(2)", "N['a'] = 3", "M.append(2)", "N['a'] = 1"]
        cells = [f"{cell}\nprint(CodeTracker(f, '__main__').closure().digest)" for cell in cells]
        found = run_cells(tmp_path, define, *cells).split()
        assert found[1] == found[4]
        assert found[2] == found[3]
        assert len(set(found)) == 3

    @pytest.mark.parametrize(
        ("define", "change"),
        [
            (
                "S = {'n': 0, 'k': 2}\ndef h(x):\n    S['n'] += 1\n    return S['k'] * x",
                "S['k'] = 5",
            ),
            ("S = [2]\ndef h(x):\n    S.append(x)\n    return S[0] * x", "S[0] = 5"),
            ("S = [2]\ndef h(x):\n    S.append(x)\n    return S[0] * x", "S.insert(0, 5)"),
            (
                "S = {'k': 2}\ndef put(k): S.update(k=k)\n"
                "def h(x):\n    S.setdefault(x, x)\n    return S['k'] * x",
                "put(5)",
            ),
        ],
    )
    def test_state_that_a_later_cell_changes(
        self, tmp_path: Path, define: str, change: str
    ) -> None:
        """It counts from the next call on."""
        define = f"{define}\n@fleche\ndef f(x): return h(x)"
        cells = [define, "print(f(3))", f"{change}\nprint(f(3))"]
        assert run_cells(tmp_path, *cells).split() == ["6", "15"]

    def test_calls_at_the_top_that_set_something_else(self, project: Project) -> None:
        source = f"{TABLE}M = {{}}\ndef put(n): M[1] = n\nput(4)\n"
        assert not project.counts(source, "put(4)", "put(5)")

    @pytest.mark.parametrize(("source", "change"), PARTS.values(), ids=PARTS)
    def test_a_part(self, project: Project, source: str, change: str) -> None:
        """What the code writes of a variable leaves the key, and the rest of it counts."""
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        tracker.function(7)
        assert before.changed_data() == []
        assert tracker.closure().digest == before.digest
        exec(change, vars(sys.modules["entry"]))
        assert tracker.closure().digest != before.digest

    @pytest.mark.parametrize(
        ("source", "change"),
        [
            (
                "N = {'a': 0, 'b': 0}\ndef f(x):\n    N['a'] += 1\n    return x\n"
                "def g(x): N['b'] += 1",
                "g(1)",
            ),
            (
                "N = {'a': 0, 'b': 0}\ndef f(x):\n    N['a'] += 1\n    return x\n"
                "def g(key): N[key] += 1",
                "g('b')",
            ),
            ("N = {}\ndef f(x):\n    N['a'] = x\n    return x", "N['b'] = 1"),
            ("N = {}\ndef f(x):\n    N[x], *_, N['c'] = [x, x]\n    return x", "N['b'] = 1"),
            (
                "class A: a = b = 0\nN = A()\ndef f(x):\n    N.a += 1\n    return x\n"
                "class B:\n    def g(self): N.b += 1",
                "B().g()",
            ),
            (
                "class A:\n    n = {'a': 0, 'b': 0}\n    def g(self):\n        self.n['a'] += 1\n"
                "    def h(self):\n        self.n['b'] += 1\n"
                "def f(x):\n    A().g()\n    return x",
                "A().h()",
            ),
        ],
    )
    def test_counters_beside_others(self, project: Project, source: str, change: str) -> None:
        """Functions that each count something of their own leave the keys of the others."""
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        exec(change, vars(sys.modules["entry"]))
        assert tracker.closure().digest == before.digest

    @pytest.mark.parametrize("is_first", [True, False])
    @pytest.mark.parametrize(("source", "change"), LATE.values(), ids=LATE)
    def test_what_is_assigned_where_nothing_is(
        self, project: Project, source: str, change: str, is_first: bool
    ) -> None:
        """By the code, it leaves the key; by the program, it counts, before the code and after."""
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        if not is_first:
            tracker.function(7)
            assert before.changed_data() == []
            assert tracker.closure().digest == before.digest
        exec(change, vars(sys.modules["entry"]))
        after = tracker.closure()
        assert after.digest != before.digest
        tracker.function(7)
        assert after.changed_data() == []
        assert tracker.closure().digest == after.digest
        exec(change.replace("5", "6"), vars(sys.modules["entry"]))
        assert tracker.closure().digest != after.digest

    def test_what_the_clock_assigns_where_nothing_is(self, project: Project) -> None:
        """Whether the program or the code has asked first, it counts as it is defined."""
        source = "import time\nN = None\ndef g():\n    global N\n    if N is None:\n"
        tracker = project.tracker({"entry": f"{source}        N = time.time()\ndef f(x): g()"})
        before = tracker.closure().digest
        sys.modules["entry"].g()  # type: ignore[attr-defined]
        assert tracker.closure().digest == before

    def test_an_edit_of_what_a_part_begins_with(self, project: Project) -> None:
        assert project.counts(PARTS["an item"][0], "'a': 1", "'a': 3")

    @pytest.mark.parametrize(
        "source",
        [
            "import time\nN = {'t': time.time(), 'a': 0}\ndef f(x):\n    N['a'] += 1",
            "class A:\n    @property\n    def a(self): return self.b\n    @a.setter\n"
            "    def a(self, x): self.b = x\nN = A()\ndef f(x):\n    N.a = x",
            "class A:\n    def __setattr__(self, name, x): vars(self)['b'] = x\n"
            "N = A()\ndef f(x):\n    N.a = x",
            "class A(dict): pass\nN = A()\ndef f(x):\n    N['a'] = x",
            "N = {'a': 1}\ndef f(x):\n    N['a'] = N[x] = 2",
        ],
        ids=["a clock", "a setter", "a class that sets all", "a class of its own", "any item"],
    )
    def test_a_part_that_does_not_stand_apart(self, project: Project, source: str) -> None:
        """Nothing of the variable counts but how it is defined."""
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        tracker.function(7)
        assert before.changed_data() == []
        assert tracker.closure().digest == before.digest
        assert before.digest == CodeTracker(tracker.function, "entry").closure().digest

    @pytest.mark.parametrize(("source", "old"), CODE_IN_STATE.values(), ids=CODE_IN_STATE)
    def test_the_code_in_it_counts(self, project: Project, source: str, old: str) -> None:
        """The value does not: what its classes and functions do, and what it was made of, does."""
        assert project.counts(source, old, old.replace("1", "2"))

    @pytest.mark.parametrize(("source", "old"), HOOKS.values(), ids=HOOKS)
    def test_what_the_making_of_a_class_writes(
        self, project: Project, source: str, old: str
    ) -> None:
        """It is data: it is written when the class is defined, and not when the function runs."""
        assert project.counts(source, old, old.replace("1", "2"))

    @pytest.mark.parametrize(
        "body",
        ["class D(B): pass", "D = type('D', (B,), {})", "D = M('D', (B,), {})",
         "D = types.new_class('D', (B,))"]
    )  # fmt: skip
    def test_a_body_that_makes_classes(self, project: Project, body: str) -> None:
        """What the making of a class writes then is state of the code itself."""
        source = f"""
            import types
            R = {{}}
            class M(type):
                def __init__(cls, *_):
                    R[cls.__name__] = len(R)
            class B(metaclass=M): pass
            def g(x):
                {body}
                return R
            def f(x): return g(x)
        """
        tracker = project.tracker({"entry": source})
        assert nodes(tracker)["R"] == "state"
        before = tracker.closure()
        tracker.function(1)
        assert before.changed_data() == []
        assert tracker.closure().digest == before.digest

    @pytest.mark.parametrize(
        "made", ["lambda y: y * k", "Local(k)", "partial(Known.go, Known())", "Known().go", "Known"]
    )
    def test_what_the_code_puts_there_does_not(self, project: Project, made: str) -> None:
        """The key is the one that it was before, for a function that is called first now, too."""
        source = f"""
            from functools import partial
            MEMO = {{}}
            class Known:
                def go(self, x): return x
            def get(k):
                class Local:
                    def __init__(self, k): self.k = k
                if k not in MEMO:
                    MEMO[k] = {made}
                return MEMO[k]
            def f(x): return get(x)
        """
        module = project.load({"entry": source})
        before = CodeTracker(module.f, "entry").closure()
        module.f(3)
        assert before.changed_data() == []
        assert CodeTracker(module.f, "entry").closure().digest == before.digest

    @pytest.mark.parametrize("bound", ["P.go", "partial(Q.go, P)", "P.items.append"])
    def test_what_code_is_bound_to(self, project: Project, bound: str) -> None:
        """A method of what the code writes is no data that changes."""
        source = f"""
            from functools import partial
            class Q:
                def __init__(self): self.items = []
                def go(self, x): return x
            P = Q()
            go = {bound}
            def f(x):
                P.n = x
                P.items.append(x)
                return go(x)
        """
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        tracker.function(1)
        assert before.changed_data() == []
        assert tracker.closure().digest == before.digest

    def test_a_bound_method_that_writes(self, project: Project) -> None:
        """A name for a mutating method shows as well as its call what is written."""
        source = "N = []\nput = N.append\ndef f(x):\n    put(x)\n    return N"
        tracker = project.tracker({"entry": source})
        assert nodes(tracker)["N"] == "state"
        before = tracker.closure()
        tracker.function(1)
        assert before.changed_data() == []
        assert tracker.closure().digest == before.digest

    def test_what_cannot_be_looked_into(self, project: Project) -> None:
        """It counts as it is defined, as before."""
        source = """
            class A:
                def __getattr__(self, name): raise RuntimeError(name)
                def __reduce_ex__(self, protocol): raise RuntimeError
            N = [A(), (x for x in ())]
            N[0].self = N
            def f(x):
                N.append(x)
        """
        assert project.counts(source, "x for x", "y for x")

    def test_under_another_name(self, project: Project) -> None:
        """The very object counts so, whatever names of whatever modules lead to it."""
        files = {
            "entry": "from lib import MEMO, put\ndef f(x):\n    put(x)\n    return MEMO",
            "lib": "MEMO = {'a': 1}\ndef put(x):\n    MEMO[x] = x",
        }
        tracker = project.tracker(files)
        assert nodes(tracker)["MEMO"] == "state"
        before = tracker.closure().digest
        tracker.function(1)
        assert tracker.closure().digest == before
        assert project.counts(files, "'a': 1", "'a': 2")

    def test_a_variable_called_like_data_of_a_class(self, project: Project) -> None:
        source = """
            made = [1]
            class A:
                made = []
                def __init__(self):
                    self.made.append(1)
            def f(x): return A(), made
        """
        assert nodes(project.tracker({"entry": source}))["made"] == "data"

    def test_data_of_a_class(self, project: Project) -> None:
        source = """
            class A:
                made = []
                count = 0
                def __init__(self):
                    self.made.append(1)
                    type(self).count += 1
            def f(x): return A().made, A.count
        """
        tracker = project.tracker({"entry": source})
        found = nodes(tracker)
        assert (found["A.made"], found["A.count"]) == ("state", "state")
        before = tracker.closure().digest
        tracker.function(1)
        assert tracker.closure().digest == before
        assert project.counts(source, "made = []", "made = [5]")

    def test_a_captured_variable(self, project: Project) -> None:
        source = """
            def make():
                memo = {}
                def g(x):
                    memo[x] = x
                    return memo[x]
                return g
            f = make()
        """
        tracker = project.tracker({"entry": source})
        before = tracker.closure().digest
        tracker.function(1)
        assert tracker.closure().digest == before

    @pytest.mark.parametrize("source", MADE.values(), ids=MADE)
    def test_how_what_captures_it_is_made(self, project: Project, source: str) -> None:
        """What a captured variable that is written began with follows from that statement."""
        maker = """
K = 10
def make(k, n):
    counts = {'k': k, 'n': n}
    def decorate(g):
        def wrapper(x):
            counts['n'] += 1
            return g(x) * counts['k']
        return wrapper
    return decorate
"""
        assert project.counts(maker + source, "K = 10", "K = 20")
        assert project.counts(maker + source, "(K, 1)", "(K, 2)")
        tracker = project.tracker({"entry": maker + source})
        before = tracker.closure().digest
        tracker.function(1)
        assert tracker.closure().digest == before

    @pytest.mark.parametrize(
        ("begins", "edited"),
        [("{}", "{5: 5}"), ("collections.OrderedDict()", "collections.OrderedDict({5: 5})")],
    )
    def test_what_a_captured_memo_begins_with(
        self, project: Project, begins: str, edited: str
    ) -> None:
        """It counts by itself, where it does not follow from how the function is made."""
        source = f"""
            import collections
            def memoize(g):
                memo = {begins}
                def wrapper(x):
                    memo[x] = g(x)
                    return memo
                return wrapper
            @memoize
            def h(x): return x
            def f(x): return h(x)
        """
        assert project.counts(source, begins, edited)
        assert "memoize" not in nodes(project.tracker({"entry": source}))

    def test_what_stands_above_the_decorator(self, project: Project) -> None:
        """Of the decorators of a function those below `@fleche` count."""
        source = """
            from fleche import fleche as cached
            def make(k):
                def decorate(g):
                    n = k
                    def wrapper(x):
                        nonlocal n
                        n += 1
                        return g(x)
                    return wrapper
                return decorate
            def mark(g): return g
            @mark
            @cached(meta=())
            @make(2)
            def f(x): return x
        """

        def digest(old: str = "", new: str = "") -> Any:
            module = project.load({"entry": source.replace(old, new)})
            return CodeTracker(module.f.spec.function, "entry").closure().digest

        same = digest()
        assert same == digest("@mark\n", "\n") == digest("(meta=())", "(isolate=True)")
        assert same != digest("make(2)", "make(3)")

    def test_a_memo_in_a_default(self, project: Project) -> None:
        source = """
            def g(x, memo={}):
                memo[x] = x
                return memo
            def f(x): return g(x)
        """
        tracker = project.tracker({"entry": source})
        before = tracker.closure().digest
        tracker.function(1)
        assert tracker.closure().digest == before
        assert project.counts(source, "memo={}", "memo={5: 5}")

    @pytest.mark.parametrize("made", ["BASE", "make()", "{'k': K}"])
    def test_what_a_memo_in_a_default_is_made_of(self, project: Project, made: str) -> None:
        source = f"""
            K = 1
            def make(): return {{"k": K}}
            BASE = {{"k": K}}
            def g(x, memo={made}):
                memo[x] = x
                return memo["k"]
            def f(x): return g(x)
        """
        tracker = project.tracker({"entry": source})
        before = tracker.closure().digest
        tracker.function(1)
        assert tracker.closure().digest == before
        assert project.counts(source, "K = 1", "K = 2")

    @pytest.mark.parametrize(
        "source",
        [
            "class A: pass\nN = A()\nN.n = 0\nN.k = 1\ndef f(x):\n    N.n += 1\n    return N.k",
            "N = {'n': 0}\nN['k'] = 1\ndef f(x):\n    N['n'] += 1\n    return N['k']",
            "N = {'n': 0}\nN.update(k = 1)\ndef f(x):\n    N['n'] += 1\n    return N['k']",
            "import threading\nN = threading.local()\nN.k = 1\ndef f(x):\n    N.n += 1\n"
            "    return N.k",
            f"{TALLY}M = N\nM['k'] = 1",
            f"{TALLY}(M := N)['k'] = 1",
            f"{TALLY}for n in (N, {{}}): n['k'] = 1",
            f"{TALLY}N['k'], n = 1, 2",
            f"{TALLY}n = N.get('k') or N.update(k = 1)",
            f"{TALLY}dict.update(N, k = 1)",
            f"{TALLY}def g(n): n['k'] = 1\ng(N)",
            f"{TALLY}def g(n, k): n['k'] = k\ng(N, k = 1)",
            "def g(x):\n    g.memo['n'] = x\n    return g.memo['k']\ng.memo = {}\n"
            "g.memo.update(k = 1)\ndef f(x): return g(x)",
        ],
        ids=[
            *("an attribute", "an item", "a method", "data of a thread"),
            *("another name", "another name beside", "a name in a loop", "several at once"),
            *("a method within", "a method of the class", "a function", "what it is told"),
            "on a function",
        ],
    )
    def test_what_the_module_does_with_state(self, project: Project, source: str) -> None:
        """It counts as the statement does that makes it."""
        change = next(
            text for text in ("N.k = 1", "['k'] = 1", "k = 1", "= 1, 2") if text in source
        )
        assert project.counts(source, change, change.replace("1", "2"))

    def test_what_a_decorated_function_writes_when_the_module_calls_it(
        self, project: Project
    ) -> None:
        """That is its work: a hit sets nothing, and `main()` may change."""
        source = (
            "from fleche import fleche\nN = {'n': 0, 'k': 1}\n@fleche\ndef f(x):\n"
            "    N['n'] += 1\n    return N['k']\ndef main():\n    y = 5\n    return y or f(1)\n"
            "main()"
        )
        key, same, other = (
            project.load({"entry": text}).f.digest(1)
            for text in (source, source.replace("5", "6"), source.replace("y = ", "y = N['k'] = "))
        )
        assert key == same != other

    @pytest.mark.parametrize("source", MADE_BY_CODE.values(), ids=MADE_BY_CODE)
    def test_what_code_makes(self, project: Project, source: str) -> None:
        """A variable that is not there before counts as it does then."""
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        for x in range(3):
            sys.modules["entry"].f(x)
            assert tracker.closure().digest == before.digest

    @pytest.mark.parametrize("source", ON_FUNCTIONS.values(), ids=ON_FUNCTIONS)
    def test_attributes_of_functions(self, project: Project, source: str) -> None:
        """They leave the key as it is, and what is followed is not looked at anew."""
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        for x in range(3):
            sys.modules["entry"].f(x)
            assert tracker.closure().digest == before.digest
        settled = tracker.closure()
        sys.modules["entry"].f(3)
        assert tracker.closure() is settled

    def test_what_an_attribute_begins_with(self, project: Project) -> None:
        """That counts by the statements that set it; what else is set there by its value."""
        source = """
            K = 1
            def g(x):
                g.calls += 1
                return g.calls
            g.calls = 10 * K
            g.limit = 3
            def f(x): return g(x)
        """
        assert project.counts(source, "10 * K", "20 * K")
        assert project.counts(source, "K = 1", "K = 2")
        assert project.counts(source, "limit = 3", "limit = 4")
        by_decorator = f"K = 1\n{COUNTED}\n@counted\ndef g(x): return x\ndef f(x): return g(x)"
        assert project.counts(by_decorator, "calls = 0", "calls = 5")

    def test_what_a_program_sets_on_a_function(self, project: Project) -> None:
        """It counts, unless it is for the code to set."""
        source = (
            "def g(x):\n    g.calls = x\n    return g.limit\ng.limit = 3\ndef f(x): return g(x)"
        )
        tracker = project.tracker({"entry": source})
        before = tracker.closure().digest
        sys.modules["entry"].g.calls = 7
        assert tracker.closure().digest == before
        sys.modules["entry"].g.limit = 4
        assert tracker.closure().digest != before

    @pytest.mark.parametrize(
        "source",
        [
            f"K = 1\n{COUNTED}\ndef h(x): return 5\n@counted\ndef g(x): return h(x)\n"
            "def f(x): return g(x)",
            "def h(x): return 5\ndef g(x, known={'h': h}):\n    known['x'] = x\n"
            "    return known['h'](x)\ndef f(x): return g(x)",
            "class A:\n    n = 0\n    def h(self): return 5\ndef g(x, a=A()):\n    a.n += x\n"
            "    return a.h()\ndef f(x): return g(x)",
            "def h(x): return 5\ndef make(g):\n    def call(x):\n        nonlocal g\n"
            "        g = g\n        return g(x)\n    return call\nf = make(h)",
        ],
        ids=["captured", "in a default", "the class of a default", "captured and bound anew"],
    )
    def test_code_in_what_is_written(self, project: Project, source: str) -> None:
        """A function or an object counts by its code also where the code writes a part of it."""
        assert project.counts(source, "return 5", "return 6")

    def test_what_other_code_writes_counts(self, project: Project) -> None:
        """A setter that the function does not call changes what it depends on."""
        source = "P = {'k': 1}\ndef set_k(k):\n    P['k'] = k\ndef f(x): return P['k']"
        module = project.load({"entry": source})
        tracker = CodeTracker(module.f, "entry")
        before = tracker.closure().digest
        module.set_k(2)
        assert tracker.closure().digest != before
        module.set_k(1)
        assert tracker.closure().digest == before


def replace_code(module: Any) -> None:
    module.g.__code__ = module.other.__code__


PATCHES = {
    "a function": ("json.dumps = mine", ("json", "dumps")),
    "a partial": ("json.dumps = functools.partial(mine, k=2)", ("json", "dumps")),
    "an object": ("json.dumps = Mine()", ("json", "dumps")),
    "what lru_cache makes": ("json.dumps = functools.lru_cache(mine)", ("json", "dumps")),
    "a class": ("json.dumps = Mine", ("json", "dumps")),
    "a builtin": ("builtins.oct = mine", ("builtins", "oct")),
    "a builtin that is new": ("builtins.own = Mine()", ("builtins", "own")),
    "what is decorated": ("json.dumps = fleche.fleche(mine)", ("json", "dumps")),
    "a method": ("json.JSONDecoder.go = mine", ("json.JSONDecoder", "go")),
    "a property": ("json.JSONDecoder.go = property(mine)", ("json.JSONDecoder", "go")),
    "a class method": ("json.JSONDecoder.go = classmethod(mine)", ("json.JSONDecoder", "go")),
    "a method of a base": (
        "pandas.core.base.IndexOpsMixin.go = mine",
        ("pandas.core.base.IndexOpsMixin", "go"),
    ),
    "an accessor": (
        "@pandas.api.extensions.register_series_accessor('go')\nclass Go(Mine): pass",
        ("pandas.Series", "go"),
    ),
}
LIVE: dict[str, Callable[[Any], Any]] = {
    "a name": lambda m: setattr(m, "K", 2),
    "a name of equal value": lambda m: setattr(m, "K", True),
    "a helper": lambda m: setattr(m, "g", m.other),
    "the code of a helper": replace_code,
    "a default of a helper": lambda m: setattr(m.g, "__defaults__", (5,)),
    "a keyword default": lambda m: setattr(m.g, "__kwdefaults__", {"z": 5}),
    "an attribute of a helper": lambda m: setattr(m.g, "mark", 1),
    "an item of a dict": lambda m: m.TABLE.update(a=2),
    "a context variable": lambda m: m.DEFAULT.set(2),
    "what is in a context variable": lambda m: m.LISTED.get().append(2),
    "what a thread has": lambda m: setattr(m.LOCAL, "k", 2),
    "an attribute of an object": lambda m: setattr(m.thing, "k", 2),
    "an item behind a proxy": lambda m: m.hidden.update(a=2),
    "an item of a user's dict": lambda m: m.USERS.update(a=2),
    "an item in a chain of dicts": lambda m: m.CHAIN.maps[1].update(a=2),
    "a dict that is new in a chain": lambda m: m.CHAIN.maps.append({"b": 2}),
    "an item of a queue": lambda m: m.QUEUE.append(2),
    "an attribute of a namespace": lambda m: setattr(m.space, "k", [2]),
    "an item of a nested list": lambda m: m.MIXED["a"].append(m.g),
    "an element of an array": lambda m: m.ARRAY.__setitem__(0, 5),
    "a member of a set of functions": lambda m: m.SET.add(m.other),
    "an item of a dict of one's own": lambda m: m.OWN.update(a=2),
    "an attribute of a class": lambda m: setattr(m.A, "k", 2),
    "a method": lambda m: setattr(m.A, "h", lambda self: 5),
    "an override that is new": lambda m: setattr(m.A, "late", lambda self: 5),
    "an override in place of something else": lambda m: (
        setattr(m.A, "late", lambda self: 5),
        delattr(m.A, "spare"),
    ),
    "a base class": lambda m: setattr(m.A, "__bases__", (m.C,)),
    "a builtin that is shadowed": lambda m: setattr(m, "len", lambda x: 5),
    "a name that did not exist": lambda m: setattr(m, "later", lambda: 5),
    "a captured variable": lambda m: m.set_inner(5),
    "a keyword default in place": lambda m: m.keyword.__kwdefaults__.update(z=5),
    "a keyword default that is new": lambda m: m.keyword.__kwdefaults__.update(y=5),
    "the object of a method": lambda m: setattr(m.thing.inner, "k", 2),
    "the object of a captured method": lambda m: setattr(m.captured, "k", 2),
    "the object of a builtin method": lambda m: m.looked_up.update(a=2),
    "the object of an installed method": lambda m: m.generator.normal(),
    "an item of what a partial holds": lambda m: m.listed.append(2),
    "an object that a partial holds": lambda m: setattr(m.held, "k", 2),
    "a keyword of a partial": lambda m: m.bound.keywords.update(b=2),
    "the object of a method in a class": lambda m: setattr(m.of_class, "k", 2),
    "an implementation by type": lambda m: m.by_type.register(int, m.other),
    "another implementation by type": lambda m: m.by_type.register(str, m.g),
    "an implementation by type in a method": lambda m: m.A.by_type.register(int, m.other),
    "a class that is registered": lambda m: m.Kind.register(int),
}
LIVE_SOURCE = """
    import abc
    import collections
    import contextvars
    import functools
    import threading
    import types
    import numpy
    K = 1
    DEFAULT = contextvars.ContextVar("DEFAULT", default=1)
    LISTED = contextvars.ContextVar("LISTED", default=[1])
    LOCAL = threading.local()
    USERS = collections.UserDict(a=1)
    CHAIN = collections.ChainMap({}, {"a": 1})
    QUEUE = collections.deque([1])
    TABLE = {"a": 1}
    hidden = {"a": 1}
    proxy = types.MappingProxyType(hidden)
    space = types.SimpleNamespace(k=[1])
    ARRAY = numpy.zeros(3)

    class Dict(dict):
        pass

    OWN = Dict(a=1)

    def other(x, y=1, *, z=1):
        return 7

    def g(x, y=1, *, z=1):
        return K + y + z

    MIXED = {"a": [g]}
    SET = {g}

    class B:
        def late(self):
            return 1

    class C(B):
        pass

    class Thing:
        def __init__(self, inner=None):
            self.k = 1
            self.inner = inner

        def get(self):
            return self.k

    thing = Thing(Thing())
    method = thing.inner.get
    get = method
    captured, of_class, held = Thing(), Thing(), Thing()
    looked_up = {"a": 1}
    item = looked_up.get
    generator = numpy.random.default_rng(1)
    normal = generator.normal
    listed = [1]
    bound = functools.partial(other, listed, held, b=1)

    def keyword(x, *, y, z=1):
        return z

    @functools.singledispatch
    def by_type(x):
        return 0

    by_type.register(str, other)

    class A(B):
        k = 1
        spare = 1
        get = of_class.get

        @functools.singledispatchmethod
        def by_type(self, x):
            return 0

        def h(self):
            return 1

    class Kind(abc.ABC):
        pass

    def make():
        inner = 1
        def get():
            return inner
        def set(value):
            nonlocal inner
            inner = value
        return get, set

    get_inner, set_inner = make()

    def calling(function):
        return lambda: function()

    get_captured = calling(captured.get)

    def f(x):
        if x is later:
            return later()
        if isinstance(x, Kind):
            return 1
        a = A()
        data = proxy, space, MIXED, ARRAY, SET, OWN, USERS, CHAIN, QUEUE
        here = DEFAULT.get(), LISTED.get(), LOCAL.k
        code = method, get, item, normal, bound, keyword, get_captured, a.get, by_type, a.by_type
        return g(x), a.h(), a.late(), a.k, thing.k, TABLE["a"], len(x), get_inner(), data, code
"""


IMPORTS = {
    "from": "from lib import h",
    "import": "import lib\n    h = lib.h",
    "as": "import lib as m\n    h = m.h",
    "from below": "from pack.below import h",
    "import below": "import pack.below\n    h = pack.below.h",
    "module from": "from pack import below\n    h = below.h",
    "perhaps": "try: from lib import h\n    except ImportError: h = abs",
}
"""How a body imports."""


ENTRIES: dict[str, Callable[[Any], Any]] = {
    "an object": lambda m: m.a,
    "a method": lambda m: m.a.get,
    "a partial": lambda m: functools.partial(m.A.get, m.a),
}


AGAIN = {
    "what is set": {
        "entry": "import decimal\ndecimal.getcontext().prec = 5\n"
        "def f(x): return decimal.Decimal(x) / 3"
    },
    "what is set in another module": {
        "entry": "import conf, decimal\ndef f(x): return decimal.Decimal(x) / 3",
        "conf": "import decimal\ndecimal.getcontext().prec = 5",
    },
    "a variable": {"entry": "n = 5\ndef f(x):\n    global n\n    n = n\n    return n"},
    "a variable of a helper": {
        "entry": "n = 5\ndef g():\n    global n\n    n = n\n    return n\ndef f(x): return g()"
    },
    "a variable in another module": {
        "entry": "import conf\ndef f(x):\n    conf.n = conf.n\n    return conf.n",
        "conf": "n = 5",
    },
    "a part of a variable": {
        "entry": "S = {'n': 0, 'k': 5}\ndef f(x):\n    S['n'] += 1\n    return S['k']"
    },
}
"""Files of which something counts as it is written."""


class TestAtEachCall:
    """What has changed in the running process is seen at the next call."""

    @pytest.mark.parametrize("change", LIVE.values(), ids=LIVE)
    def test_a_change_is_seen(self, project: Project, change: Callable[[Any], Any]) -> None:
        module = project.load({"entry": LIVE_SOURCE})
        tracker = CodeTracker(module.f, "entry")
        before = tracker.closure()
        assert tracker.closure() is before
        change(module)
        assert tracker.closure().digest != before.digest

    @pytest.mark.parametrize("inside", ["f", "helper"])
    @pytest.mark.parametrize("how", ["edit", "other path", "other module"])
    @pytest.mark.parametrize("statement", IMPORTS.values(), ids=IMPORTS)
    def test_what_a_body_imports(
        self, project: Project, statement: str, how: str, inside: str
    ) -> None:
        """It is what an import finds now, although the body of a hit imports nothing."""
        source = f"def helper(x):\n    {statement}\n    return h(x)\n"
        source = source.replace("helper", inside) + "def f(x): return helper(x)" * (inside != "f")
        files = {"entry": source, "lib": "def h(x): return 1", "pack/__init__": ""}
        files["pack/below"] = files["lib"]
        module = project.load(files)
        tracker = CodeTracker(module.f, "entry")
        before = tracker.closure()
        assert module.f(-7) == 1
        assert tracker.closure() is before
        place = Path(module.__file__).parent
        if how != "other module":
            place = place / ("." if how == "edit" else "other")
            (place / "pack").mkdir(parents=True, exist_ok=True)
            (place / "pack/__init__.py").touch()
            for name in ("lib.py", "pack/below.py"):
                (place / name).write_text("def h(x): return 25")
        for name in [name for name in sys.modules if name.partition(".")[0] in ("lib", "pack")]:
            del sys.modules[name]
            if how == "other module":
                sys.modules[name] = other = types.ModuleType(name)
                exec("def h(x): return 5", vars(other))
        if how == "other module" and "pack" in statement:
            sys.modules["pack"].below = sys.modules["pack.below"]
        if how == "other path":
            sys.path.insert(0, str(place))
        importlib.invalidate_caches()
        after = tracker.closure()
        assert module.f(-7) != 1
        assert after.digest != before.digest
        assert tracker.closure().digest == after.digest

    @pytest.mark.parametrize("begins", ["absent", "broken", "blocked"])
    def test_a_module_that_comes_later(self, project: Project, begins: str) -> None:
        """What a body does without a module is another thing than what it does with it."""
        source = """
            def f(x):
                try:
                    from lib import h
                except Exception:
                    return 0
                return h(x)
        """
        module = project.load({"entry": source} | ({"lib": "1 / 0"} if begins == "broken" else {}))
        project.names.add("lib")
        if begins == "blocked":
            sys.modules["lib"] = None  # type: ignore[assignment]
        tracker = CodeTracker(module.f, "entry")
        before = tracker.closure()
        assert module.f(3) == 0
        assert tracker.closure() is before
        (Path(module.__file__).parent / "lib.py").write_text("def h(x): return 25")
        if begins == "blocked":
            del sys.modules["lib"]
        importlib.invalidate_caches()
        after = tracker.closure()
        assert module.f(3) == 25
        assert after.digest != before.digest
        assert tracker.closure() is after
        sys.modules["lib"] = None  # type: ignore[assignment]
        assert module.f(3) == 0
        assert tracker.closure().digest == before.digest or begins == "broken"

    @pytest.mark.parametrize("make", ENTRIES.values(), ids=ENTRIES)
    def test_what_the_function_itself_is_bound_to(
        self, project: Project, make: Callable[[Any], Any]
    ) -> None:
        """A callable that is no plain function is looked at as the variables are."""
        source = """
            class A:
                k = 1
                def __init__(self):
                    self.k = 1
                def get(self, x):
                    return self.k * x
                __call__ = get
            a = A()
        """
        module = project.load({"entry": source})
        tracker = CodeTracker(make(module), "entry")
        before = tracker.closure()
        tracker.function(3)
        assert tracker.closure() is before
        module.a.k = 2
        assert tracker.closure().digest != before.digest
        module.a.k = 1
        assert tracker.closure().digest == before.digest

    def test_using_what_is_bound_changes_nothing(self, project: Project) -> None:
        """A call leaves the keys of the next one, whatever objects have kept for themselves."""
        source = """
            import functools, re
            class Table:
                def __init__(self):
                    self.rows = None
                    self.memo = {}
                def get(self, x):
                    if self.rows is None:
                        self.rows = list(range(x))
                    if x not in self.memo:
                        self.memo[x] = x * x
                    return self.memo[x]
                @functools.cached_property
                def size(self):
                    return 5
                def sized(self, x):
                    return self.size
            table, sized = Table(), Table().sized
            get, bound = table.get, functools.partial(Table.get, Table())
            match = re.compile("a").match
            @functools.singledispatch
            def by_type(x):
                return x
            def f(x):
                return get(x), bound(x), sized(x), match("a"), by_type(x)
        """
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        tracker.function(3)
        assert before.changed_data() == []
        assert tracker.closure().digest == before.digest

    def test_what_has_no_digest(self, project: Project) -> None:
        """A method of an object that has none counts by the type of the object."""
        source = """
            import threading
            acquire, send = threading.Lock().acquire, (x for x in ()).send
            def f(x): return acquire, send
        """
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        assert tracker.closure() is before
        assert before.digest == project.digest({"entry": source})

    @pytest.mark.parametrize("name", ["random.random", "numpy.random.rand"])
    def test_a_method_that_is_a_function_of_its_module(self, project: Project, name: str) -> None:
        """The generators of modules, whose draws are warned of, count by the names of these."""
        source = f"import random, numpy\ndraw = {name}\ndef f(x): return draw()"
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        tracker.function(1)
        assert before.changed_data() == []
        assert tracker.closure() is before
        assert before.digest == project.digest({"entry": source})

    def test_an_installed_name_is_replaced(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a program puts into an installed module counts as its own, and as long as there."""
        files = {
            "entry": """
                import json.decoder
                def f(x):
                    return json.decoder.scanstring(x), json.dumps(x)
                def mine(x):
                    return x
                def other(x):
                    return -x
            """
        }
        tracker = project.tracker(files)
        before = tracker.closure()
        patch = sys.modules["entry"]
        monkeypatch.setattr("json.dumps", patch.mine)
        first = tracker.closure()
        assert first.nodes["json.dumps"].kind == "name"
        monkeypatch.setattr("json.decoder.scanstring", patch.other)
        monkeypatch.setattr("json.dumps", patch.other)
        second = tracker.closure()
        assert len({before.digest, first.digest, second.digest}) == 3
        monkeypatch.undo()
        assert tracker.closure().digest == before.digest

    @pytest.mark.parametrize(("patch", "place"), PATCHES.values(), ids=PATCHES)
    def test_what_is_put_into_installed_places(
        self, project: Project, patch: str, place: Any
    ) -> None:
        """Code of one's own counts there, whatever it is that holds it, and as long as there."""
        source = f"""
import builtins, functools, json, pandas, fleche
def mine(x, *args, k=1):
    return x + 10
class Mine:
    def __init__(self, *args): pass
    def __call__(self, *args): return 10
old = vars({place[0]}).get({place[1]!r})
{patch}
def undo():
    if old is None:
        del {place[0]}.{place[1]}
    else:
        {place[0]}.{place[1]} = old
def f(x): return json.dumps(x), x.go(), oct(x), own(x)
"""
        plain = project.digest({"entry": source.replace(patch, "")})
        found = []
        for text in (source, source, source.replace("10", "20")):
            tracker = project.tracker({"entry": text})
            try:
                found.append(tracker.closure().digest)
            finally:
                sys.modules["entry"].undo()
            assert tracker.closure().digest == plain
        assert found[0] == found[1] != found[2]

    def test_named_tuples_of_installed_modules(self, project: Project) -> None:
        """What makes them is no code of one's own, although it was executed as text."""
        source = "import inspect\nclass A:\n    def __new__(cls): return super().__new__(cls)\n"
        tracker = project.tracker({"entry": f"{source}def f(x): return A(), inspect.stack()"})
        assert {*nodes(tracker)} == {"f", "inspect", "A", "A.__new__", "A.__new__~"}

    def test_reload(self, project: Project) -> None:
        module = project.load({"entry": "K = 1\ndef f(x): return K"})
        tracker = CodeTracker(module.f, "entry")
        before = tracker.closure().digest
        Path(module.__file__).write_text("K = 25\ndef f(x): return K")
        importlib.reload(module)
        assert tracker.closure().digest != before

    @pytest.mark.parametrize("how", ["reload", "run"])
    @pytest.mark.parametrize("files", AGAIN.values(), ids=AGAIN)
    def test_a_file_that_is_executed_again(
        self, project: Project, files: dict[str, str], how: str
    ) -> None:
        """What counts as it is written there counts from then on, and not from the edit on."""
        place = Path(project.load(files).__file__).parent
        edited = {name: text.replace("5", "65") for name, text in files.items()}

        def execute() -> Any:
            """Execute all files again, the first one as a module or as `%run` does it."""
            for name in reversed(files):
                module, path = sys.modules[name], place / f"{name}.py"
                if how == "reload" or name != "entry":
                    importlib.reload(module)
                    continue
                vars(module).clear()
                vars(module).update(__name__=name, __file__=str(path))
                exec(compile(path.read_text(), path, "exec"), vars(module))
            return CodeTracker(sys.modules["entry"].f, "entry")

        with decimal.localcontext():
            tracker = execute()
            before = tracker.closure().digest
            for name, text in edited.items():
                (place / f"{name}.py").write_text(text)
            again = CodeTracker(sys.modules["entry"].f, "entry")
            assert before == again.closure().digest == tracker.closure().digest
            after = execute().closure().digest
            assert before != after
            if how == "reload":
                assert tracker.closure().digest == after == project.digest(edited)

    @pytest.mark.parametrize("name", ["what is set", "a variable"])
    def test_only_another_file_is_executed_again(self, project: Project, name: str) -> None:
        """That is seen although nothing of what the function names is another object."""
        module = project.load(AGAIN[f"{name} in another module"])
        conf = sys.modules["conf"]
        with decimal.localcontext():
            tracker = CodeTracker(module.f, "entry")
            before = tracker.closure().digest
            path = Path(conf.__file__ or "")
            path.write_text(path.read_text().replace("5", "65"))
            assert tracker.closure().digest == before
            importlib.reload(conf)
            assert tracker.closure().digest != before

    def test_an_edit_of_the_file_alone_changes_nothing(self, project: Project) -> None:
        """What runs is what was imported."""
        module = project.load({"entry": "def g(x): return 1\ndef f(x): return g(x)"})
        tracker = CodeTracker(module.f, "entry")
        before = tracker.closure().digest
        Path(module.__file__).write_text("def g(x): return 25\ndef f(x): return g(x)")
        module.extra = 1
        assert CodeTracker(module.f, "entry").closure().digest == before


class TestGlobalImports:
    """What an import in a body binds to a global name is known before it runs, and after."""

    @pytest.mark.parametrize("by", ["load", "go"])
    @pytest.mark.parametrize(
        ("statement", "use"),
        [
            ("import lib", "lib.g(x)"),
            ("import lib as m", "m.g(x)"),
            ("from lib import g", "g(x)"),
        ],
    )
    @pytest.mark.parametrize("before", ["", "{} = None\n"])
    def test_own_modules(
        self, project: Project, statement: str, use: str, before: str, by: str
    ) -> None:
        name = use.partition("(")[0].partition(".")[0]
        source = f"{before.format(name)}def load():\n    global {name}\n    {statement}\n"
        source += f"def go(): load()\ndef f(x):\n    {by}()\n    return {use}"
        files = {"entry": source, "lib": "def g(x): return 1"}
        assert project.counts(files, "return 1", "return 2")
        tracker = project.tracker(files)
        before_call = tracker.closure().digest
        tracker.function(1)
        assert tracker.closure().digest == before_call
        vars(sys.modules["entry"])[name] = len
        assert tracker.closure().digest != before_call

    @pytest.mark.parametrize("statement", ["import colorsys", "from colorsys import hls_to_rgb"])
    def test_installed_modules(
        self, project: Project, statement: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They are not imported to find out."""
        name = statement.rpartition(" ")[2]
        source = f"def f(x):\n    global {name}\n    {statement}\n    return {name}"
        monkeypatch.delitem(sys.modules, "colorsys", raising=False)
        tracker = project.tracker({"entry": source})
        before = tracker.closure()
        assert before.nodes[name] == ("installed", "colorsys", "")
        assert "colorsys" not in sys.modules
        tracker.function(1)
        assert tracker.closure().digest == before.digest

    @pytest.mark.parametrize(
        "source",
        [
            "N = None\ndef get():\n    global N\n    if N is None:\n        import lib\n"
            "        N = lib\n    return N\ndef f(x): return get().g(x)",
            "N = None\ndef get():\n    global N\n    if N is None:\n        from lib import g\n"
            "        N = g\n    return N\ndef f(x): return get()(x)",
            "from lib import g, h\nN = g\ndef f(x):\n    global N\n    N = h\n    return g(x)",
            "from lib import A, B\nN = A\ndef f(x):\n    global N\n    N = B\n    return A.g(x)",
        ],
        ids=["a module", "a function", "another function", "another class"],
    )
    def test_code_that_is_assigned(self, project: Project, source: str) -> None:
        """A variable that holds code is state as any other."""
        lib = (
            "def g(x): return 1\ndef h(x): return 3\nclass A:\n    g = staticmethod(lambda x: 1)\n"
        )
        files = {"entry": source, "lib": f"{lib}class B: pass"}
        edit = ("x: 1", "x: 2") if "A" in source else ("return 1", "return 2")
        assert project.counts(files, *edit)
        tracker = project.tracker(files)
        before = tracker.closure()
        tracker.function(1)
        assert before.changed_data() == []
        assert tracker.closure().digest == before.digest


TWO = "class A:\n    def g(self): return 1\nclass B(A): pass\n"
LOOKED_UP = {
    "of a class that is named": f"{TWO}def f(x): return getattr(B, x)(0)",
    "of an object of the module": f"{TWO}M = B()\ndef f(x): return getattr(M, x)()",
    "of an object in a dict": f"{TWO}M = {{'b': B()}}\ndef f(x): return getattr(M[x], x)()",
    "of an object that is made": f"{TWO}def f(x):\n    m = B()\n    return getattr(m, x)()",
    "of an object in a pair": f"{TWO}def f(x):\n    m = B(), x\n    return getattr(*m)()",
    "of objects, by map": f"{TWO}M = B()\ndef f(x): return [g() for g in map(getattr, [M], [x])]",
    "by a helper": f"{TWO}def get(o, n): return getattr(o, n)\ndef f(x): return get(B(), x)()",
    "by a helper of another module": (
        {"entry": f"from a import get\n{TWO}def f(x): return get(B(), x)()"}
        | {"a": "def get(o, n): return getattr(o, n)"}
    ),
    "by a function in a method": (
        f"{TWO}    def run(self, n):\n        def go(m): return getattr(m, n)()\n"
        "        return go(self)\ndef f(x): return B().run(x)"
    ).replace("class B(A): pass\n", "class B(A):\n"),
    "of a part": (
        f"{TWO}class C:\n    def __init__(self): self.b = B()\n"
        "    def run(self, n): return getattr(self.b, n)()\ndef f(x): return C().run(x)"
    ),
    "that the class inherits": (
        f"{TWO}    def run(self, n): return getattr(self, n)()\ndef f(x): return B().run(x)"
    ).replace("class B(A): pass\n", "class B(A):\n"),
    "of the class of an object": (
        f"{TWO}    def run(self, n): return getattr(type(self), n)(self)\n"
        "def f(x): return B().run(x)"
    ).replace("class B(A): pass\n", "class B(A):\n"),
    "of what it inherits from": (
        f"{TWO}    def run(self, n): return getattr(super(), n)()\ndef f(x): return B().run(x)"
    ).replace("class B(A): pass\n", "class B(A):\n"),
    "by a methodcaller": (f"import operator\n{TWO}def f(x): return operator.methodcaller(x)(B())"),
    "of all that there is": (
        f"import inspect\n{TWO}def f(x): return [g() for _, g in inspect.getmembers(B())]"
    ),
    "of a module, which is a class": (
        {"entry": "import a\ndef f(x): return getattr(a, x)().g()", "a": TWO}
    ),
    "of a module, which is data": {"entry": "import a\ndef f(x): return getattr(a, x)"}
    | {"a": "K = ['return 1']"},
    "of a module that is passed on": (
        {"entry": "import a\ndef g(m, n): return getattr(m, n)\ndef f(x): return g(a, x)().g()"}
        | {"a": TWO}
    ),
    "of a module that is imported in the body": (
        {"entry": "def f(x):\n    import a\n    return getattr(a, x)().g()", "a": TWO}
    ),
    "in what a class holds": f"{TWO}def f(x): return A.__dict__[x](0)",
    "in what the class of an object holds": (
        f"{TWO}    def run(self, n): return self.__class__.__dict__[n](self)\n"
        "def f(x): return A().run(x)"
    ).replace("class B(A): pass\n", ""),
    "in what a module holds": {"entry": "import a\ndef f(x): return vars(a)[x]().g()", "a": TWO},
    "in the namespace": f"{TWO}def f(x): return globals()[x]().g()",
    "among the subclasses": (
        "class Base: pass\nclass A(Base):\n    def g(self): return 1\n"
        "def f(x): return [each().g() for each in Base.__subclasses__()]"
    ),
}
"""Where a name is made at run time, or there is none, and what it may lead to returns 1."""


class TestNamesMadeAtRunTime:
    """What a name may lead to that is made at run time counts, where the source shows no more."""

    @pytest.mark.parametrize("files", LOOKED_UP.values(), ids=LOOKED_UP)
    def test_what_is_looked_up_counts(self, project: Project, files: Any) -> None:
        assert project.counts(files, "return 1", "return 2")

    def test_in_arguments(self, project: Project) -> None:
        def found(text: str) -> Any:
            source = f"{TWO}def f(a, n): return getattr(a, n)()".replace("return 1", text)
            module = project.load({"entry": source})
            return CodeTracker(module.f, "entry").closure([module.B]).digest

        assert found("return 1") == found("return 1") != found("return 2")

    def test_a_subclass_that_is_new(self, project: Project) -> None:
        source = "class A: pass\ndef f(x): return [c.__name__ for c in A.__subclasses__()]"
        module = project.load({"entry": source})
        tracker = CodeTracker(module.f, "entry")
        before = tracker.closure()
        assert tracker.closure() is before
        kept = [type("B", (module.A,), {"__module__": "entry"})]
        found = tracker.closure()
        assert found.digest != before.digest
        kept.append(type("B", (module.A,), {"__module__": "entry"}))
        assert tracker.closure() is not found, "the class was replaced"
        assert tracker.closure().digest == found.digest

    def test_a_class_that_was_replaced_is_no_subclass(self, project: Project) -> None:
        """Until the next collection of garbage there is a second one."""
        source = (
            "import dataclasses\nclass A: pass\n@dataclasses.dataclass(slots=True)\n"
            "class B(A):\n    k: int = 1\ndef f(x): return [c().k for c in A.__subclasses__()]"
        )
        gc.disable()
        try:
            tracker = project.tracker({"entry": source})
            before = tracker.closure().digest
        finally:
            gc.enable()
        gc.collect()
        assert tracker.closure().digest == before

    def test_what_an_attribute_is_handed_on_to_does_not(self, project: Project) -> None:
        """The names that ``__getattr__`` is told are those that stand in the code."""
        source = (
            f"{TWO}    def h(self): return 2\nclass C:\n    def __init__(self): self.b = B()\n"
            "    def __getattr__(self, name): return getattr(self.b, name)\n"
            "def f(x): return C().g()"
        ).replace("class B(A): pass\n", "class B(A):\n")
        assert project.counts(source, "return 1", "return 3")
        assert not project.counts(source, "return 2", "return 3")

    def test_other_modules_do_not(self, project: Project) -> None:
        """Else one such look-up would let all of a package count."""
        files = {
            "entry": "import a, b\ndef f(x): return a.get(a.A(), x), b.B().g()",
            "a": "class A: pass\ndef get(o, n): return inner(o, n)\nfrom c import inner",
            "b": "class B:\n    def g(self): return 0\n    def h(self): return 1\n",
            "c": "def inner(o, n): return getattr(o, n)",
        }
        assert not project.counts(files, "return 1", "return 2")


NAMED_IN_TEXTS = {
    "that is evaluated": "K = 1\ndef f(x): return eval('K + x')",
    "that is put together": "K = 1\ndef f(x): return eval('K' + '+ x')",
    "that is executed": (
        "K = 1\ndef f(x):\n    exec('r = K', globals(), s := {})\n    return s['r']"
    ),
    "that is a key of the namespace": "K = 1\ndef f(x): return globals()['K']",
    "that is filled in": "K = 1\ndef f(x): return '{K}'.format(**globals())",
    "that is a condition on a data frame": "K = 1\ndef f(frame): return frame.query('a > @K')",
    "that makes a column": "K = 1\ndef f(frame): return frame.eval('a * @K')",
    "that pandas evaluates": "import pandas as pd\nK = 1\ndef f(x): return pd.eval('K + 1')",
    "that leads through a module": {
        "entry": "import a\ndef f(x): return eval('a.K')",
        "a": "K = 1",
    },
    "that names a module": {
        "entry": "import a, sys\ndef f(x): return sys.modules['a'].K",
        "a": "K = 1",
    },
    "that an own function evaluates": ("K = 1\ndef g(s): return eval(s)\ndef f(x): return g('K')"),
    "that one elsewhere evaluates": {
        "entry": "from a import g\nK = 1\ndef f(x): return g('K')",
        "a": "import sys\ndef g(s): return eval(s, sys._getframe(1).f_globals)",
    },
    "that is a key made at run time": "K1 = 1\ndef f(x): return globals()[f'K{x}']",
    "that is looked up in the namespace": "K1 = 1\ndef f(x): return globals().get(f'K{x}')",
    "that names its own module": "import sys\nK = 1\ndef f(x): return sys.modules[__name__].K",
    "that names an attribute after the other": {
        "entry": "import a\nfrom functools import reduce\n"
        "def f(x): return reduce(getattr, 'A.B.K'.split('.'), a)",
        "a": "class A:\n    class B:\n        K = 1",
    },
    "that is a key of a module": {
        "entry": "import a\ndef f(x): return a.__dict__['K']",
        "a": "K = 1",
    },
    "of which the beginning is known": {
        "entry": "import a\ndef f(x): return getattr(a, f'K{x}')",
        "a": "K2 = 1\nL = 0",
    },
    "of which the beginning is known, of a module that is passed": {
        "entry": "import a\ndef g(m, x): return getattr(m, f'K{x}')\ndef f(x): return g(a, x)",
        "a": "K2 = 1\nL = 0",
    },
    "of which the beginning is known, of its own module": (
        "import sys\nK2 = 1\ndef f(x): return getattr(sys.modules[__name__], f'K{x}')"
    ),
    "in a variable": "K = 1\nE = 'K + x'\ndef f(x): return eval(E)",
    "in a table": "K = 1\nE = {'a': ['a > @K']}\ndef f(x): return x.query(E['a'][0])",
    "in a variable of another module": {
        "entry": "import a\nK = 1\ndef f(x): return eval(a.E)",
        "a": "E = 'K + x'",
    },
    "in an attribute of an object": (
        "K = 1\nclass A:\n    def __init__(self): self.e = 'a > @K'\n"
        "a = A()\ndef f(x): return x.query(a.e)"
    ),
    "that an own function makes a condition of": (
        "K = 1\ndef g(x, s): return x.query(s)\ndef f(x): return g(x, 'a > @K')"
    ),
    "that is a condition in another module": {
        "entry": "from a import g\ndef f(x): return g(x, 'a > @K')",
        "a": "K = 1\ndef g(x, s): return x.query(s)",
    },
    "that is a formula": {
        "entry": "from a import fit\nK = 1\ndef g(x): return x * K\n"
        "def f(x): return fit('y ~ g(x)', x)",
        "a": "def fit(s, x):\n    from patsy import dmatrices\n    return dmatrices(s, x)",
    },
}
"""Where a variable that is 1 is named in a text."""

NO_NAMES = {
    "a key": "K = 1\ndef f(d): return d['K']",
    "a column": "K = 1\ndef f(frame): return frame.query('K > 3')",
    "a column in a variable": "K = 1\nE = 'K > 3'\ndef f(frame): return frame.query(E)",
    "a text in a variable that nothing reads": "K = 1\nE = 'K'\ndef f(x): return E",
    "a text that code has put there": (
        "K = 1\nE = 'K'\ndef f(x):\n    global E\n    E = x\n    return eval(E)"
    ),
    "a docstring": "K = 1\ndef f(x):\n    'K'\n    return eval(x)",
    "a module that is not there": {
        "entry": "import b\ndef f(x): return eval('x + 1 if b.L else a.K')",
        "a": "K = 1",
        "b": "import a\nL = 2",
    },
    "what is compiled otherwise": "import re\nK = 1\ndef f(x): return re.compile('K')",
    "beside a method of the name": "K = 1\ndef f(m): return m.evaluate('K'), m.modules()",
    "a name of something else": {
        "entry": "import a\ndef f(x): return getattr(a, f'L{x}')",
        "a": "K2 = 1\nL2 = 0",
    },
}

IN_ARGUMENTS = {
    "a condition": "def f(x): return frame.query(x['of'][0])",
    "what is evaluated": "def f(x): return eval(x['of'][0].replace('@', ''))",
    "what a helper evaluates": "def f(x): return g(x['of'][0])\ndef g(s): return eval(s[1:])",
}
"""Uses of a text that is in an argument."""


class TestTexts:
    """A text that is read as code may name variables."""

    @pytest.mark.parametrize("files", NAMED_IN_TEXTS.values(), ids=NAMED_IN_TEXTS)
    def test_what_they_name_counts(self, project: Project, files: Any) -> None:
        assert project.counts(files, "= 1", "= 2")

    @pytest.mark.parametrize("files", NO_NAMES.values(), ids=NO_NAMES)
    def test_others(self, project: Project, files: Any) -> None:
        assert not project.counts(files, "= 1", "= 2")

    @pytest.mark.parametrize("use", IN_ARGUMENTS.values(), ids=IN_ARGUMENTS)
    def test_in_arguments(self, project: Project, use: str) -> None:
        """Of the names in them, those count that lead somewhere for the code that reads them."""
        source = f"from fleche import fleche\nK = 1\nL = 1\n@fleche\n{use}"

        def key(number: int, text: str) -> Any:
            module = project.load({"entry": source.replace("K = 1", f"K = {number}")})
            return module.f.digest({"of": [text]})

        assert key(1, "a > @K") == key(1, "a > @K") != key(2, "a > @K")
        assert key(1, "a > @L") == key(2, "a > @L")

    def test_in_arguments_that_are_not_read(self, project: Project) -> None:
        source = "from fleche import fleche\nK = 1\n@fleche\ndef f(x): return x"
        one, two = (
            project.load({"entry": source.replace("1", n)}).f.digest("a > @K") for n in "12"
        )
        assert one == two


ANNOTATED = {
    "by their hints": (
        "import typing\ndef g(k: int): pass\ndef f(x): return typing.get_type_hints(g)"
    ),
    "by a signature": (
        "import inspect\ndef g(k: int): pass\n"
        "def f(x): return [p.annotation for p in inspect.signature(g).parameters.values()]"
    ),
    "by a decorator": {
        "entry": "import a\n@a.cast\ndef g(k: int): return k\ndef f(x): return g(x)",
        "a": (
            "def cast(g):\n    def cast_first(x): return g(g.__annotations__['k'](x))\n"
            "    return cast_first"
        ),
    },
}


class TestAnnotations:
    """Annotations of functions count where something asks for them."""

    @pytest.mark.parametrize("files", ANNOTATED.values(), ids=ANNOTATED)
    def test_asked_for(self, project: Project, files: Any) -> None:
        assert project.counts(files, "k: int", "k: float")

    def test_not_asked_for(self, project: Project) -> None:
        source = "def g(k: int): return k\ndef f(x): return g(x)"
        assert not project.counts(source, "k: int", "k: float")


class StandIn:
    """What a lazy import leaves behind, for a Python that has none (before 3.15)."""

    def __init__(self, meant: Any) -> None:
        self.meant = meant

    def resolve(self) -> Any:
        if self.meant is None:
            raise ImportError("there is no such module")
        return self.meant


LAZY = {
    "a module": "lazy import a\ndef f(x): return a.g(x)",
    "under another name": "lazy import a as b\ndef f(x): return b.g(x)",
    "a function": "lazy from a import g\ndef f(x): return g(x)",
    "data": "lazy from a import K\ndef f(x): return x + K",
    "a base of a class": "lazy from a import A\nclass B(A): pass\ndef f(x): return B().h()",
    "used in an inner function": (
        "lazy import a\ndef f(x):\n    def h(): return a.g(x)\n    return h()"
    ),
    "looked for by any name": "lazy import a\ndef f(x): return getattr(a, x)(1)",
    "in another module": "import c\ndef f(x): return c.g(x)",
    "written to": "lazy import a\ndef f(x):\n    a.N = x\n    return a.g(x)",
}


@pytest.mark.skipif(sys.version_info < (3, 15), reason="Python 3.15 brings this syntax and type")
@pytest.mark.parametrize(
    "source",
    [
        "D = frozendict(a=1, b=2)\ndef f(x): return D['a']",
        "def g(x): return 1\nD = frozendict(a=g)\ndef f(x): return D['a'](x)",
        "def g(x): return [1]\ndef f(x): return [*g(y) for y in x]",
        "def g(x): return {1: x}\ndef f(x): return {**g(y) for y in x}",
        "def f(x): return [*(y, 1) for y in x]",
    ],
)
def test_new_in_python_3_15(project: Project, source: str) -> None:
    assert project.counts(source, "1", "3")


class TestLazyImports:
    """``lazy import`` (PEP 810): a name stands for nothing until some code loads it."""

    @pytest.fixture
    def tracker(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Return a function that loads ``entry``, its imports being lazy."""
        has_them = sys.version_info >= (3, 15)
        if not has_them:
            monkeypatch.setattr("fleche.function._lazy.LAZY", StandIn)

        def load(source: str, helper: str, *, lazy: bool = True) -> CodeTracker:
            word = "lazy " if lazy and has_them else ""
            files = {"entry": source, "c": "lazy from a import g", "a": helper}
            tracker = project.tracker({k: v.replace("lazy ", word) for k, v in files.items()})
            spaces = [vars(sys.modules[name]) for name in ("entry", "c") if name in sys.modules]
            for space in spaces if lazy and not has_them else ():
                made = [(name, space[name]) for name in ("a", "b", "g", "K", "A") if name in space]
                space.update((name, StandIn(value)) for name, value in made)
            return tracker

        return load

    HELPER = "K = 1\nN = 0\nclass A:\n    def h(self): return K\ndef g(x): return x + K"

    @pytest.mark.parametrize("source", LAZY.values(), ids=LAZY)
    def test_what_they_lead_to_counts(self, tracker: Any, source: str) -> None:
        """As it does behind other imports, in the first call and after it."""
        eager = tracker(source, self.HELPER, lazy=False).closure().digest
        lazy = tracker(source, self.HELPER)
        before = lazy.closure()
        assert before.digest == eager
        assert (
            before.digest != tracker(source, self.HELPER.replace("K = 1", "K = 2")).closure().digest
        )

    def test_names_that_are_not_used_stay_as_they_are(self, tracker: Any) -> None:
        """Nothing is imported that the function does not name."""
        tracker("lazy import a\nlazy from a import K\ndef f(x): return K", self.HELPER).closure()
        space = vars(sys.modules["entry"])
        assert type(space["a"]).__name__ in ("StandIn", "lazy_import")
        assert space["K"] == 1

    def test_an_import_that_fails(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is the function's own business, which may never come to use the name."""
        monkeypatch.setattr("fleche.function._lazy.LAZY", StandIn)
        tracker = project.tracker({"entry": "a = 1\ndef f(x): return a.g(x) if x else 0"})
        vars(sys.modules["entry"])["a"] = StandIn(None)
        assert nodes(tracker)["a"] == "absent"


DOCUMENTED = {
    "of a function": "def g():\n    'one'\ndef f(x): return g.__doc__",
    "of the function itself": "def f(x):\n    'one'\n    return f.__doc__",
    "of a class": "class A:\n    'one'\ndef f(x): return A.__doc__",
    "of a method": "class A:\n    def g(self):\n        'one'\ndef f(x): return A().g.__doc__",
    "by inspect": "import inspect\nclass A:\n    'one'\ndef f(x): return inspect.getdoc(A)",
}


class TestDocumentation:
    """The documentation of functions and classes counts where something reads it."""

    @pytest.mark.parametrize("source", DOCUMENTED.values(), ids=DOCUMENTED)
    def test_read(self, project: Project, source: str) -> None:
        assert project.counts(source, "'one'", "'two'")

    def test_set_at_run_time(self, project: Project) -> None:
        tracker = project.tracker({"entry": DOCUMENTED["of a function"]})
        before = tracker.closure().digest
        sys.modules["entry"].g.__doc__ = "two"  # type: ignore[attr-defined]
        assert tracker.closure().digest != before

    def test_not_read(self, project: Project) -> None:
        source = "def g():\n    'one'\ndef f(x): return g()"
        assert not project.counts(source, "'one'", "'two'")


TEXTS_OF_CODE = {
    "of a function": "import inspect\ndef g(): pass  # one\ndef f(x): return inspect.getsource(g)",
    "of the function itself": (
        "from inspect import getsource\ndef f(x):\n    return getsource(f)  # one"
    ),
    "of a class": (
        "import inspect\nclass A:\n    a = 1  # one\ndef f(x): return inspect.getsourcelines(A)"
    ),
    "by an import in the body": (
        "def g(): pass  # one\ndef f(x):\n    from inspect import getsource\n"
        "    return getsource(g)"
    ),
    "by a helper": {
        "entry": "import a\ndef g(): pass  # one\ndef f(x): return a.read(g)",
        "a": "import inspect\ndef read(g): return inspect.getsource(g).split('#')[1]",
    },
    "of a module": {
        "entry": "import a, inspect\ndef f(x): return inspect.getsource(a)",
        "a": "# one",
    },
}


class TestTextsOfCode:
    """The very text of code, comments included, counts where something reads it."""

    @pytest.mark.parametrize("files", TEXTS_OF_CODE.values(), ids=TEXTS_OF_CODE)
    def test_read(self, project: Project, files: Any) -> None:
        assert project.counts(files, "# one", "# two")

    def test_not_read(self, project: Project) -> None:
        source = "import inspect\ndef g(): pass  # one\ndef f(x): return inspect.isfunction(g)"
        assert not project.counts(source, "# one", "# two")


STRUCT = "import msgspec\nclass A(msgspec.Struct{}):\n    k: int = {}\ndef f(x): return A().k"
READ_BY_METACLASSES = {
    "the fields of ctypes": (
        "import ctypes\nclass A(ctypes.Structure):\n    _fields_ = [('k', ctypes.c_int16)]\n"
        "def f(x): return ctypes.sizeof(A)",
        "int16",
        "int32",
    ),
    "a default of msgspec": (STRUCT.format("", 1), "= 1", "= 2"),
    "a function that makes one": (
        STRUCT.format("", "msgspec.field(default_factory=lambda: 1)"),
        ": 1",
        ": 2",
    ),
    "a field that must be given": (STRUCT.format("", "msgspec.field(name='a')"), "'a'", "'b'"),
    "an option": (STRUCT.format(", frozen=True", 1), "True", "False"),
}


@pytest.mark.parametrize("edit", READ_BY_METACLASSES.values(), ids=READ_BY_METACLASSES)
def test_what_a_metaclass_in_c_reads(project: Project, edit: tuple[str, str, str]) -> None:
    """There is no source that would show what it reads of the body of a class."""
    assert project.counts(*edit)


class TestArguments:
    """Functions and classes that occur in arguments bring their code along."""

    def test_a_method_that_the_function_uses(self, project: Project) -> None:
        def found(text: str) -> Any:
            source = "class A:\n    def g(self): return 1\n    def h(self): return 2\n"
            module = project.load({"entry": (source + "def f(a): return a.g()").replace(*text)})
            return CodeTracker(module.f, "entry").closure([module.A]).digest

        same = found(("return 1", "return 1"))
        assert same == found(("return 2", "return 3"))
        assert same != found(("return 1", "return 3"))

    def test_generated_functions(self, project: Project) -> None:
        """Functions without a module are followed through the dict that they have."""
        module = project.load({"entry": "def f(g): return g(1)"})
        tracker = CodeTracker(module.f, "entry")

        def made(k: int) -> Any:
            space: dict[str, Any] = {"K": k}
            exec("def g(x): return x + K", space)
            return space["g"]

        one, again, other = (tracker.closure([made(k)]).digest for k in (1, 1, 2))
        assert one == again != other

    def test_two_functions_of_one_name(self, project: Project) -> None:
        module = project.load({"entry": "def f(gs): return gs"})
        tracker = CodeTracker(module.f, "entry")
        one, two = (eval(f"lambda x: x + {n}", {"__name__": "entry"}) for n in (1, 2))
        assert tracker.closure([one, two]).digest != tracker.closure([two, one]).digest


def test_what_has_no_source(project: Project) -> None:
    """Bytecode tells which names are loaded, too."""
    space: dict[str, Any] = {"__name__": "entry", "K": {"a": 1}}
    exec("def g(x):\n    return K['a'] + x\ndef f(x):\n    return [g(y) for y in x]", space)
    tracker = CodeTracker(space["f"], "entry")
    before = tracker.closure().digest
    assert {"f", "g", "K"} <= set(nodes(tracker))
    space["K"]["a"] = 2
    assert tracker.closure().digest != before


@pytest.mark.parametrize(
    "body",
    [
        "import pack.a; return pack.a.g(x)",
        "import pack.a as m; return m.g(x)",
        "from pack.a import g; return g(x)",
        "from pack import a; return a.g(x)",
        "from .a import g; return g(x)",
        "import pack.a as m; return getattr(m.A, 'go')()",
    ],
)
def test_what_is_imported_without_a_source(project: Project, body: str) -> None:
    space = "space = {'__name__': 'pack.b', '__package__': 'pack'}"
    files = {"entry": f'{space}\nexec("def f(x): {body}", space)\nf = space["f"]'}
    files["pack/__init__"] = ""
    files["pack/a"] = "def g(x): return 1\nclass A:\n    go = staticmethod(lambda: 2)"
    edit = ("lambda: 2", "lambda: 3") if "go" in body else ("return 1", "return 2")
    assert project.counts(files, *edit)


def test_too_much_to_follow(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a limit whole packages count, by the syntax of their files."""
    from fleche.function import _resolve

    monkeypatch.setattr(_resolve, "MANY_FUNCTIONS", 5)
    body = "\n".join(f"def g{n}(x): return g{n + 1}(x)" for n in range(20))
    files = {
        "entry": "import lib\ndef f(x): return lib.g0(x)",
        "lib": body + "\ndef g20(x): return 1",
    }
    tracker = project.tracker(files)
    assert nodes(tracker) == {"entry": "package", "lib": "package"}
    assert project.counts(files, "return 1", "return 2")
    assert not project.counts(files, "return 1", "return 1  # one")


def test_a_large_package_is_read_once(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_home: Path
) -> None:
    """Its files are remembered from process to process, as long as they do not change."""
    from fleche.function import _resolve, _whole

    monkeypatch.setattr(_resolve, "MANY_FUNCTIONS", 2)
    body = "\n".join(f"def g{n}(x): return g{n + 1}(x)" for n in range(5))
    many = {f"lib/m{n}": f"K = {n}" for n in range(_whole.MANY_FRESH)}
    files = {"entry": "import lib\ndef f(x): return lib.g0(x)", "lib/__init__": body, **many}
    tracker = project.tracker(files)
    before = tracker.closure().digest
    _whole.sources.clear()
    _whole.recalled.clear()
    read: list[str] = []
    monkeypatch.setattr(_whole, "dump_syntax", lambda tree: read.append("read") or b"")
    assert CodeTracker(tracker.function, "entry").closure().digest != before  # entry is no package
    assert len(read) == 1


def test_what_is_remembered_of_files_depends_on_the_interpreter() -> None:
    """An ``assert`` is no syntax under ``-O``."""
    from fleche.function._whole import memory_of

    code = "from fleche.function._whole import memory_of; print(memory_of('here'))"
    for option, is_same in (("-B", True), ("-O", False)):
        command = [sys.executable, option, "-c", code]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert (shown.strip() == memory_of("here")) is is_same


def test_deep_syntax() -> None:
    """The depth of a syntax tree is bounded by memory alone."""
    import ast

    tree: Any = ast.Name("x", ast.Load())
    for _ in range(50_000):
        tree = ast.UnaryOp(ast.USub(), tree)
    assert dump_syntax(tree).count(b"UnaryOp") == 50_000
    while isinstance(tree, ast.UnaryOp):  # taken apart here: the interpreter would recurse
        tree = tree.operand


class TestGolden:
    """What code says has one digest under all versions of Python."""

    def test_here(self) -> None:
        assert collect() == json.loads(GOLDEN.read_text())

    @pytest.mark.parametrize("version", PYTHON_VERSIONS)
    def test_versions(self, version: str, pythons: Pythons) -> None:
        script = "import json\nfrom tests.golden.code import collect\nprint(json.dumps(collect()))"
        done = subprocess.run(
            [pythons[version], "-c", script],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "3"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize(
    "name",
    [
        *("numpy", "numpy.random", "numpy.linalg", "numpy.rec", "scipy.special", "scipy.optimize"),
        *("pandas", "pandas.api.types", "networkx", "h5py", "sympy", "json", "random"),
    ],
)
def test_nothing_in_an_installed_module_is_the_users_own(name: str) -> None:
    """Nor what Cython makes, whose type says that it is of a module without a file."""
    module = pytest.importorskip(name)
    assert [key for key, value in list(vars(module).items()) if holds_own(value)] == []


def test_a_function_in_c_counts_by_name(project: Project) -> None:
    """Its digest would be another one in each process."""
    source = "import numpy as np\ndef f(x): return np.random.default_rng(x).normal()"
    assert sorted(nodes(project.tracker({"entry": source}))) == ["f", "np"]


@pytest.mark.slow
def test_a_class_of_sympy_counts_alike_in_every_process(tmp_path: Path) -> None:
    """Sympy makes notes in each class, of sets and so in the order of a process; they do count."""
    pytest.importorskip("sympy")
    source = """
        import sympy
        class Charge(sympy.Symbol):
            is_integer = True
            def _eval_is_positive(self): return None
        class Screened(sympy.Function):
            @classmethod
            def eval(cls, x): return None
        def f(x): return Screened(Charge("q")) + x
    """
    script = (
        "from fleche.function import CodeTracker\nimport entry\n"
        "print(CodeTracker(entry.f, 'entry').closure().digest)"
    )

    def tell(seed: int, text: str) -> str:
        (tmp_path / "entry.py").write_text(textwrap.dedent(text))
        paths = os.pathsep.join([str(ROOT), str(tmp_path)])
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-B", "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    assert len({tell(seed, source) for seed in range(3)}) == 1
    assert tell(0, source) != tell(0, source.replace("is_integer", "is_rational"))
    assert tell(0, source) != tell(
        0, source.replace("positive(self): return None", "zero(self): 0")
    )
