"""Classes and functions of a script: opening a value finds them again, and changes none."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleche.errors import UnpackError
from fleche.parcel import SERIALIZERS, Parcel, pack, unpack

DEFINITIONS = """
import enum
import dataclasses

K = 1

def helper(x):
    return K * x

class Base:
    def who(self):
        return "base"

class Model(Base):
    scale = 2
    count = 0
    cache = {}

    def __init__(self, x):
        super().__init__()
        self.x = x
        Model.count += 1
        self.cache[x] = 1

    def energy(self):
        return helper(self.x) * self.scale

class Status(enum.Enum):
    CONVERGED = 1
    FAILED = 2

    @property
    def good(self):
        return self is Status.CONVERGED

@dataclasses.dataclass
class Point:
    x: int
    y: int = 0

def even(n):
    return n == 0 or odd(n - 1)

def odd(n):
    return n != 0 and even(n - 1)
"""

VALUE = "value = [Model(3), Status.CONVERGED, Point(1), helper, even, Model]\n"

WRITE = """
import sys
from fleche.parcel import pack
parcel = pack(value, sys.argv[2])
with open(sys.argv[1], "wb") as file:
    file.write(parcel.tobytes())
print(parcel.variant)
"""

READ = """
import sys, warnings
from fleche.parcel import Parcel, unpack
def opened():
    return unpack(Parcel.from_file(sys.argv[1]))
"""


class Script:
    """Runs texts as scripts, each in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "value.parcel"

    def run(
        self, *texts: str, serializer: str = "cloudpickle", seed: int = 0, python: str = ""
    ) -> list[str]:
        path = self.directory / "script.py"
        path.write_text("".join(map(textwrap.dedent, texts)))
        done = subprocess.run(
            [python or sys.executable, str(path), str(self.file), serializer],
            capture_output=True,
            text=True,
            cwd=self.directory,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


@pytest.fixture(params=SERIALIZERS)
def serializer(request: pytest.FixtureRequest) -> str:
    if request.param == "dill":
        pytest.importorskip("dill")
    return str(request.param)


class TestTheNextRun:
    """The same script, run again, gets its own classes and functions back."""

    def test_they_are_the_very_ones(self, script: Script, serializer: str) -> None:
        """`is`, `isinstance`, `==` and `match` hold, whatever the serializer and the hash seed."""
        script.run(DEFINITIONS, VALUE, WRITE, serializer=serializer)
        found = script.run(
            DEFINITIONS,
            READ,
            """
            model, status, point, function, recursive, cls = opened()
            print(type(model) is Model, cls is Model, isinstance(model, Base), model.energy())
            print(status is Status.CONVERGED, status == Status.CONVERGED, point == Point(1))
            print(function is helper, recursive is even)
            """,
            seed=7,
        )
        assert found == ["True True True 6", "True True True", "True True"]

    def test_the_stream_is_the_same(self, script: Script) -> None:
        """Equal objects give equal streams in every process, and wherever the lines stand.

        So it is with every serializer.
        """
        found = {
            *script.run(DEFINITIONS, VALUE, WRITE),
            *script.run("# a comment\n\n", DEFINITIONS, VALUE, WRITE, seed=3),
            *script.run(DEFINITIONS, VALUE, WRITE, serializer="pickle", seed=9),
        }
        assert len(found) == 1

    def test_another_body_is_another_stream(self, script: Script) -> None:
        """A class that has changed is told by the address, not only when it is opened."""
        one = script.run(DEFINITIONS, VALUE, WRITE)
        assert script.run(DEFINITIONS.replace('"base"', '"other"'), VALUE, WRITE) != one

    def test_what_changes_while_a_program_runs(self, script: Script) -> None:
        """Counters and caches in a class are no part of its definition; globals are none."""
        script.run(DEFINITIONS, VALUE, WRITE)
        found = script.run(
            DEFINITIONS,
            READ,
            """
            K = 10
            for x in range(5):
                Model(x)
            model, *_ = opened()
            print(type(model) is Model, Model.count, model.energy())
            """,
        )
        assert found == ["True 5 60"]

    @pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
    def test_in_another_python(self, script: Script, pythons: Any, version: str) -> None:
        """Data of a script's classes travel between versions: no code needs to travel."""
        script.run(DEFINITIONS, VALUE, WRITE)
        found = script.run(
            DEFINITIONS,
            READ,
            "model, status, *_ = opened()\nprint(type(model) is Model, status.good)\n",
            python=pythons[version],
        )
        assert found == ["True True"]


class TestElsewhere:
    """Where the definitions are not, or are others, they are built by value, apart."""

    def test_built_once(self, script: Script, serializer: str) -> None:
        """Two values that are opened one after the other are of one class."""
        script.run(DEFINITIONS, VALUE, WRITE, serializer=serializer)
        found = script.run(
            READ,
            """
            warnings.simplefilter("error")  # there is nothing to tell: no name is taken
            one, other = opened(), opened()
            print(type(one[0]) is type(other[0]), one[1] is other[1], one[2] == other[2])
            print(one[0].energy(), one[0].who(), one[1].good, one[3](5), one[4](10), one[5](2).x)
            print(type(one[0]).__module__, "Model" in globals())
            """,
        )
        assert found == ["True True True", "6 base True 5 True 2", "__main__ False"]

    def test_changed(self, script: Script, serializer: str) -> None:
        """One warning names what has changed; nothing that is alive changes."""
        script.run(DEFINITIONS, VALUE, WRITE, serializer=serializer)
        found = script.run(
            DEFINITIONS.replace('"base"', '"other"'),
            READ,
            """
            def looks():
                return [dict(vars(cls)) for cls in (Base, Model, Status, Point)]
            Model(1)
            before = looks()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model, status, *_ = opened()
                again, *_ = opened()
            print(len(caught), *(name in str(caught[0].message) for name in ("'Model'", "'Base'")))
            print(caught[0].filename == __file__)
            print(model.who(), Model.who(1), isinstance(model, Model), type(again) is type(model))
            print(status is Status.CONVERGED)
            K = 5
            model.energy()
            print(all(one == two for one, two in zip(before, looks())))
            print(Model(1).energy())
            """,
        )
        assert found == [
            "1 True True",
            "True",
            "base other False True",
            "True",
            "True",
            "10",
        ]

    def test_registers_of_classes(self, script: Script) -> None:
        """A base or metaclass of the program that notes its classes does not note one built apart.

        Other bases are the program's own.
        """
        text = """
        class Plain: pass
        class Hook:
            known = []
            def __init_subclass__(cls, **options): Hook.known.append(cls)
        class Meta(type):
            known = []
            def __init__(cls, *args):
                super().__init__(*args)
                Meta.known.append(cls)
        class One(Plain, Hook):
            def who(self): return 1
        class Two(Plain, metaclass=Meta):
            def who(self): return 1
        """
        script.run(text, "value = [One(), Two()]\n", WRITE)
        found = script.run(
            text.replace("return 1", "return 2"),
            READ,
            """
            warnings.simplefilter("ignore")
            one, two = opened()
            print(one.who(), two.who(), isinstance(one, Plain), isinstance(two, Plain))
            print(Hook.known == [One], Meta.known == [Two])
            """,
        )
        assert found == ["1 1 True True", "True True"]

    def test_what_cannot_be_built(self, script: Script) -> None:
        """A class of a script that cannot be stored by value is of use in that script only."""
        definition = """
        import threading
        LOCK = threading.Lock()
        class Model:
            def energy(self):
                with LOCK:
                    return 1
        """
        script.run(definition, "value = Model()\n", WRITE)
        assert script.run(definition, READ, "print(opened().energy())") == ["1"]
        with pytest.raises(UnpackError, match="needs 'Model' of __main__, which is not here"):
            unpack(Parcel.from_file(str(script.file)))

    def test_it_stays_alive_with_its_values_only(self, script: Script) -> None:
        """What was built goes when nothing uses it."""
        script.run(DEFINITIONS, VALUE, WRITE)
        found = script.run(
            READ,
            """
            import gc, weakref
            gc.disable()
            value = opened()[0]
            cls, value = weakref.ref(type(value)), weakref.ref(value)
            print(value() is None)
            gc.collect()
            print(cls() is None)
            """,
        )
        assert found == ["True", "True"]

    def test_one_for_all_threads(self, script: Script) -> None:
        """Threads that open values at once get one class."""
        script.run(DEFINITIONS, VALUE, WRITE)
        found = script.run(
            READ,
            """
            from concurrent.futures import ThreadPoolExecutor
            with ThreadPoolExecutor(8) as pool:
                values = [each.result() for each in [pool.submit(opened) for _ in range(40)]]
            print(len({type(value[0]) for value in values}), len({value[1] for value in values}))
            """,
        )
        assert found == ["1 1"]


class TestCells:
    """A notebook: one process, whose definitions are made again and again."""

    def test_an_unchanged_cell(self, script: Script) -> None:
        """What is opened after a cell was run again is of the class that the cell made last."""
        found = script.run(
            """
            import sys, types
            from fleche.parcel import pack, unpack
            text = "class Model:\\n    def __init__(self, x): self.x = x\\n"
            exec(compile(text, "<cell 1>", "exec"), globals())
            parcel = pack(Model(1))
            old = Model
            exec(compile(text, "<cell 2>", "exec"), globals())
            print(old is Model, type(unpack(parcel)) is Model)
            """
        )
        assert found == ["False True"]

    def test_a_changed_cell(self, script: Script) -> None:
        """What was stored before the change keeps its class as long as that is alive."""
        found = script.run(
            """
            import warnings
            from fleche.parcel import pack, unpack
            text = "class Model:\\n    def who(self): return 1\\n"
            exec(compile(text, "<cell 1>", "exec"), globals())
            parcel, old = pack(Model()), Model
            exec(compile(text.replace("1", "2"), "<cell 2>", "exec"), globals())
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = unpack(parcel)
            print(type(found) is old, found.who(), Model().who(), len(caught))
            """
        )
        assert found == ["True 1 2 1"]


class TestLocals:
    """Classes and functions that stand in a function."""

    def test_a_class_is_found_again(self, serializer: str) -> None:
        """Without a name, by its code: wherever in the process it is."""

        class Model:
            def __init__(self, x: int) -> None:
                self.x = x

        parcel = pack(Model(1), serializer)
        assert type(unpack(parcel)) is Model

    def test_in_the_next_run(self, script: Script) -> None:
        """The class that the function has made anew is the one."""
        text = """
        from fleche.parcel import pack, unpack, Parcel
        import sys
        def make():
            class Model:
                def __init__(self, x): self.x = x
            return Model
        """
        script.run(text, "value = make()(1)\n", WRITE)
        found = script.run(text, READ, "Local = make()\nprint(type(opened()) is Local)")
        assert found == ["True"]

    @pytest.mark.parametrize("make", [lambda n: lambda x: n * x], ids=["a lambda"])
    def test_a_function_keeps_what_it_captured(
        self, make: Callable[[int], Callable[[int], int]], serializer: str
    ) -> None:
        """Two of one name that captured different values stay apart."""
        two, three = (unpack(pack(make(n), serializer)) for n in (2, 3))
        assert (two(5), three(5)) == (10, 15)

    def test_modules_with_every_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A module that makes whatever it is asked for, as ``torch.classes``, is not asked.

        Functions that say no module are looked for in all: attrs makes some, so does ``exec``.
        """

        class Namespace(types.ModuleType):
            def __getattr__(self, name: str) -> Any:
                raise RuntimeError(f"there is no {name}")

        class Every(types.ModuleType):
            def __getattr__(self, name: str) -> Any:
                setattr(self, name, Namespace(name))
                return getattr(self, name)

        every = Every("every_name")
        monkeypatch.setitem(sys.modules, "every_name", every)
        namespace: dict[str, Any] = {}
        exec("def wrapper(x):\n    return 2 * x\n", namespace)
        made = namespace["wrapper"]
        made.__module__ = None
        assert unpack(pack(made))(3) == 6
        assert "wrapper" not in vars(every)

    def test_what_cannot_travel(self, serializer: str) -> None:
        """A local function that nothing can store is refused where it is packed."""
        lock = __import__("threading").Lock()
        with pytest.raises(TypeError, match=r"cannot pickle|can't pickle"):
            pack(lambda: lock, serializer)


class TestWholeCaches:
    """The same under the decorator."""

    SCRIPT = """
    import os, sys
    from fleche import fleche, cache
    from fleche.config import cache_from_config
    cache(cache_from_config({"template": sys.argv[2], "root": os.path.dirname(__file__) + "/c"}))
    class Model:
        def __init__(self, x): self.x = x
        def double(self): return 2 * self.x
    """

    def test_a_chain_hits(self, script: Script, serializer: str) -> None:
        """In the second run the loaded model is an argument that is known."""
        text = """
        @fleche
        def build(x):
            return Model(x)
        @fleche
        def energy(model):
            print("runs")
            return model.double()
        print(energy(build(2)), type(build(2)) is Model, energy.digest(build(2)))
        """
        first = script.run(self.SCRIPT, text, serializer=serializer)
        assert first[0] == "runs"
        assert script.run(self.SCRIPT, text, serializer=serializer) == first[1:]

    def test_isolated(self, script: Script) -> None:
        """A copy that a function gets for itself is of the caller's class."""
        text = """
        @fleche(isolate=True)
        def same(model):
            return isinstance(model, Model), model
        known, model = same(Model(1))
        print(known, type(model) is Model)
        """
        assert script.run(self.SCRIPT, text) == ["True True"]

    def test_in_workers(self, script: Script) -> None:
        """A worker that runs the same script by another name has the same class."""
        text = """
        from concurrent.futures import ProcessPoolExecutor
        import multiprocessing
        from fleche.parcel import Parcel, pack, unpack
        def check(data):
            model = unpack(Parcel.from_bytes(data))
            return type(model) is Model, pack(model).tobytes()
        if __name__ == "__main__":
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                known, data = pool.submit(check, pack(Model(1)).tobytes()).result()
            print(known, type(unpack(Parcel.from_bytes(data))) is Model)
        """
        assert script.run(self.SCRIPT, text) == ["True True"]


KINDS = """
import abc, collections, dataclasses, enum, functools, typing
T = typing.TypeVar("T")
Pair = collections.namedtuple("Pair", "a b")
class Typed(typing.NamedTuple):
    a: int
    b: str = "x"
class Abstract(abc.ABC):
    @abc.abstractmethod
    def f(self): ...
class Concrete(Abstract):
    def f(self): return 1
class Box(typing.Generic[T]):
    def __init__(self, v): self.v = v
class IntBox(Box[int]): pass
class Slots:
    __slots__ = ("a", "__weakref__")
    def __init__(self): self.a = 1
class Color(enum.IntFlag):
    R = 1
    G = 2
class Level(enum.IntEnum):
    LOW = 1
class Rich:
    K = 3
    @property
    def p(self): return self.K
    @classmethod
    def c(cls): return cls.K
    @staticmethod
    def s(): return 4
    @functools.cached_property
    def cached(self): return 5
    @functools.singledispatchmethod
    def by_type(self, x): return 7
    @by_type.register
    def _(self, x: int): return x + 8
    @by_type.register(str)
    @classmethod
    def _(cls, x): return 9
    class Inner:
        def g(self): return 6
    def inner(self): return Rich.Inner().g()
@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: int = 1
    items: list = dataclasses.field(default_factory=list)
class Meta(type):
    def hello(cls): return "hi"
class WithMeta(metaclass=Meta):
    pass
class Hook:
    subs = []
    def __init_subclass__(cls, **options): Hook.subs.append(cls)
class Sub(Hook): pass
class Failed(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code
class Equal:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return isinstance(other, Equal) and self.x == other.x
    __hash__ = None
class Mapped(dict): pass
@functools.total_ordering
class Ordered:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return self.x == other.x
    def __lt__(self, other): return self.x < other.x
def keyword(a, *, b=2): return a + b
def generate(): yield 1
def decorate(f):
    @functools.wraps(f)
    def wrapper(*a): return f(*a) + 1
    return wrapper
@decorate
def wrapped(x): return x
values = dict(
    pair=Pair(1, 2), typed=Typed(1), concrete=Concrete(), box=Box(1), intbox=IntBox(2),
    slots=Slots(), both=Color.R | Color.G, red=Color.R, level=Level.LOW, rich=Rich(),
    inner=Rich.Inner(), frozen=Frozen(), meta=WithMeta(), sub=Sub(), failed=Failed(3),
    equal=Equal(1), mapped=Mapped(a=1), ordered=Ordered(1), keyword=keyword, generate=generate,
    wrapped=wrapped, method=Rich().inner, part=functools.partial(keyword, 1), bound=Rich.c,
)
"""

CHECKS = """
checks = {
    "pair": "pair.a == 1 and pair._asdict() == {'a': 1, 'b': 2}",
    "typed": "typed.b == 'x'",
    "concrete": "concrete.f() == 1",
    "box": "box.v == 1 and intbox.v == 2 and slots.a == 1",
    "both": "both == 3 and red in both and level == 1",
    "rich": "(rich.p, rich.c(), rich.s(), rich.cached, rich.inner()) == (3, 3, 4, 5, 6)",
    "generic": "(rich.by_type(None), rich.by_type(True), rich.by_type('')) == (7, 9, 9)",
    "inner": "inner.g() == 6 and type(rich).Inner is type(inner)",
    "frozen": "frozen.x == 1 and frozen.items == [] and frozen == type(frozen)()",
    "meta": "type(meta).hello() == 'hi'",
    "failed": "failed.code == 3 and isinstance(failed, Exception)",
    "equal": "equal == type(equal)(1) and mapped == {'a': 1}",
    "ordered": "ordered < type(ordered)(2) and ordered >= type(ordered)(0)",
    "functions": "keyword(1) == 3 and list(generate()) == [1] and wrapped(1) == 2",
    "bound": "method() == 6 and part() == 3 and bound() == 3",
}
found = opened()
print(*(name for name, check in checks.items() if not eval(check, dict(found))))
"""


def test_every_kind_of_class_and_function(script: Script, serializer: str) -> None:
    """All of them are the script's own in its next run, and do what they did elsewhere."""
    script.run(KINDS, "value = values\n", WRITE, serializer=serializer)
    assert script.run(READ, 'warnings.simplefilter("error")', CHECKS) == [""]
    own = """
    print(*(name for name in values if type(found[name]) is not type(values[name])))
    print(*(found[n] is values[n] for n in ("red", "level", "keyword", "generate", "wrapped")))
    """
    found = script.run(KINDS, READ, CHECKS, own)
    assert found == ["", "", "True True True True True"]


class Comparing(type):  # noqa: PLW1641
    """A metaclass whose classes have an equality, and so no hash."""

    def __eq__(cls, other: object) -> bool:
        return cls is other


def test_classes_without_a_hash_are_passed_by(script: Script) -> None:
    """What is built by value is looked for among all classes, of whatever kind they are."""
    kept = Comparing("Unhashable", (), {})
    script.run(DEFINITIONS, VALUE, WRITE)
    assert unpack(Parcel.from_file(str(script.file)))[0].energy() is not None
    assert kept is not None


def test_the_head_names_them(script: Script) -> None:
    """Which classes a value needs, and of which code, is told without opening it."""
    script.run(DEFINITIONS, VALUE, WRITE)
    parcel = Parcel.from_file(str(script.file))
    names = [each.qualname for each in parcel.classes]
    assert names == ["Model", "Point", "Status", "even", "helper"]
    assert {each.module for each in parcel.classes} == {"__main__"}
    assert all(len(each.code) == 64 for each in parcel.classes)
    assert pack([1, "x", len, Path()]).classes == ()
    parcel.close()


CHAIN = """
import sys
from fleche import cache, fleche
from fleche.config import cache_from_config

cache(cache_from_config({"template": "local", "root": sys.argv[1] + ".cache"}))

def scale(k):
    count = 0
    def multiplied(x):
        nonlocal count
        count += 1
        return x * k

    class Scaled:
        def by(self, x): return multiplied(x)

    return {
        "function": multiplied,
        "lambda": lambda x: x * k,
        "maker": lambda x: (lambda: x * k)(),
        "neighbour": (lambda k: lambda x: x * k)(k), "other": lambda k: k,
        "method": Scaled().by,
    }[sys.argv[2]]

@fleche
def build(k):
    print("built")
    return scale(k)

@fleche
def use(function):
    print("used")
    return function(2)

print(use(build(3)))
"""


@pytest.mark.parametrize("kind", ["function", "lambda", "maker", "neighbour", "method"])
def test_a_function_that_comes_back_is_the_same_argument(script: Script, kind: str) -> None:
    """What is built in one run and used there is used again in the next, from the cache."""
    runs = [script.run(CHAIN, serializer=kind, seed=seed) for seed in (0, 1)]
    assert runs == [["built", "used", "6"], ["6"]]


ARRAYS = """
import ctypes
import fleche

class Vector(ctypes.c_double * 3): pass
class Pair(ctypes.Structure): _fields_ = [("x", ctypes.c_int * 2)]

value = [(ctypes.c_int * 3)(1, 2, 3), (ctypes.c_int * 2 * 3)(), (Pair * 2)(), ctypes.c_int * 5]
value += [Vector(1, 2, 3)]
"""


def test_arrays_of_ctypes(script: Script, serializer: str) -> None:
    """Their classes are made where they are first written, and are the same wherever that is."""
    show = "\nprint(list(value[0]), value[4][2], *map(fleche.digest, value))"
    written = script.run(ARRAYS, WRITE, show, serializer=serializer)[1:]
    elsewhere = "exec('import ctypes; ctypes.c_int * 3', {'__name__': 'elsewhere'})\n"
    read = "value = opened()\nassert value[3] is ctypes.c_int * 5 and type(value[4]) is Vector\n"
    assert script.run(elsewhere, ARRAYS, READ, read, show, serializer=serializer) == written
