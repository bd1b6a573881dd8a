"""Values of libraries that fleche does not need, and that keep notes in their objects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche.digest import digest

ROOT = Path(__file__).parents[1]
FORMATS = ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
EYE = np.diag([1.0, 2.0, 3.0])


def run(script: str, *, seed: int = 0) -> list[str]:
    """Return the lines that a script prints as `__main__`."""
    environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, text=True, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


class TestSqlalchemy:
    """Tables count by what they are made of, not by what they have noted about it."""

    @staticmethod
    def table(kind: str = "Integer", **options: Any) -> Any:
        sa = pytest.importorskip("sqlalchemy")
        column = sa.Column("x", getattr(sa, kind)(), primary_key=True)
        return sa.Table("t", sa.MetaData(), column, sa.Column("y", sa.String), **options)

    def test_using_leaves_no_trace(self) -> None:
        table = self.table()
        import sqlalchemy as sa

        before = digest(table)
        engine = sa.create_engine("sqlite://")
        table.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(table.insert(), [{"x": 1, "y": "a"}])
            query = sa.select(table.c.x).where(table.c.y == "a")
            assert connection.execute(query).scalar() == 1
        engine.dispose()
        assert digest(table) == before == digest(self.table())

    def test_what_counts(self) -> None:
        made = [{}, {"kind": "Float"}, {"sqlite_autoincrement": True}, {"comment": "no"}]
        assert len({digest(self.table(**options)) for options in made}) == len(made)


def test_maps_without_an_order() -> None:
    """Those of rpds are in another order in each process."""
    pytest.importorskip("rpds")
    code = "import rpds; from fleche import digest\nletters = 'abcdefgh'\n"
    code += (
        "print(digest(rpds.HashTrieMap(zip(letters, range(8)))), digest(rpds.HashTrieSet(letters)))"
    )
    code += "\nprint(digest(rpds.HashTrieMap(zip(letters, range(1, 9)))))"
    code += "\nprint(digest(rpds.HashTrieSet(letters[1:])))"
    one, other = run(code), run(code, seed=1)
    assert one == other
    assert len(set(one)) == 4


class TestScipy:
    """Sparse matrices count by what they hold, not by what they have noted about it."""

    @pytest.fixture
    def sparse(self) -> Any:
        return pytest.importorskip("scipy.sparse")

    @pytest.fixture(params=[f"{form}_{kind}" for form in FORMATS for kind in ("matrix", "array")])
    def cls(self, request: pytest.FixtureRequest, sparse: Any) -> Any:
        if not hasattr(sparse, request.param):
            pytest.skip("an older scipy")
        return getattr(sparse, request.param)

    def test_using_leaves_no_trace(self, cls: Any) -> None:
        value = cls(EYE)
        before = digest(value)
        for use in (
            lambda: value @ value,
            lambda: value + value,
            value.sum,
            lambda: value.T,
            lambda: value.tocsr()[:, [0]],
            value.toarray,
            lambda: getattr(value, "has_sorted_indices", None),
            lambda: getattr(value, "has_canonical_format", None),
            lambda: value.max() if hasattr(value, "max") else None,
        ):
            use()
            assert digest(value) == before
        assert digest(cls(EYE)) == digest(value.copy()) == before

    def test_content(self, cls: Any) -> None:
        """Values, places, shape and the kind of numbers count."""
        other = EYE.copy()
        other[0, 1] = 1
        found = [
            cls(EYE),
            cls(2 * EYE),
            cls(other),
            cls(EYE[::-1]),
            cls(EYE.astype("f4")),
            cls(np.pad(EYE, ((0, 1), (0, 0)))),
            cls(np.pad(EYE, ((0, 0), (0, 1)))),
        ]
        assert len({digest(value) for value in found}) == len(found)

    def test_classes(self, sparse: Any) -> None:
        """Each format is another value, and so are a matrix and an array."""
        names = [f"{form}_{kind}" for form in FORMATS for kind in ("matrix", "array")]
        found = [getattr(sparse, name)(EYE) for name in names if hasattr(sparse, name)]
        assert len({digest(value) for value in found}) == len(found)

    def test_attributes(self, sparse: Any) -> None:
        class Weights(sparse.csr_matrix):  # type: ignore[misc, name-defined]
            unit = "eV"

        one, other = Weights(EYE), Weights(EYE)
        other.unit = "K"
        assert len({digest(one), digest(other), digest(sparse.csr_matrix(EYE))}) == 3

    def test_is_not_imported(self) -> None:
        script = "import sys, fleche.digest as f; f.digest([1.0, f]); print('scipy' in sys.modules)"
        assert run(script) == ["False"]


MODELS = """
import typing
import pydantic
from fleche.digest import code_digest, digest
def whole(value):
    cls = value if isinstance(value, type) else type(value)
    own = cls.__module__ == "__main__"
    return f"{{code_digest(cls) if own else ''}}{{digest(value)}}"
T = typing.TypeVar("T")
class Plain(pydantic.BaseModel):
    b: int = 1
    a: typing.Optional[str] = "q"
class Checked(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen={frozen})
    items: set = {{1, "a", "b"}}
    size: int = pydantic.Field({default}, gt=0, json_schema_extra={{"unit": "{unit}"}})
    _note: int = pydantic.PrivateAttr(3)
    @pydantic.field_validator("size")
    @classmethod
    def check(cls, value):
        return value + {added}
    @pydantic.field_serializer("size")
    def show(self, value):
        return str(value)
    @pydantic.model_validator(mode="after")
    def check_all(self):
        return self
    @pydantic.computed_field
    @property
    def double(self) -> int:
        return 2 * self.size
class Generic(pydantic.BaseModel, typing.Generic[T]):
    x: list[T]
@pydantic.dataclasses.dataclass
class Data:
    x: int = {default}
numbers = Generic[int](x=[1])
values = [Plain, Plain(), Data, Data(), Generic[int], Generic[str], numbers]
values += [Checked, Checked()]
values[1].b, values[1].a = 5, "q"
before = [whole(value) for value in values]
Checked.model_json_schema(), Checked().model_dump(), values[1].model_copy(update={{"b": 1}})
values[1].b, values[1].a = 6, "z"
values[1].b, values[1].a = 5, "q"
assert [whole(value) for value in values] == before
print(*before)
"""


class TestPydantic:
    """Models of a script count by their fields, and not by where they lie in memory."""

    DEFAULTS: dict[str, Any] = {"frozen": False, "default": 1, "unit": "eV", "added": 1}  # noqa: RUF012

    @pytest.fixture(autouse=True)
    def needs(self) -> None:
        pytest.importorskip("pydantic", minversion="2")

    def test_processes(self) -> None:
        """A second run of the script finds what the first has stored."""
        script = MODELS.format(**self.DEFAULTS)
        first = run(script)
        assert len(set(first)) == len(first)
        assert (
            run(script, seed=1) == run("padding = [object() for _ in range(999)]" + script) == first
        )

    @pytest.mark.parametrize(
        ("option", "value"), [("frozen", True), ("default", 2), ("unit", "K"), ("added", 2)]
    )
    def test_definitions(self, option: str, value: Any) -> None:
        """Fields, configuration and validators count."""
        one = run(MODELS.format(**self.DEFAULTS))
        other = run(MODELS.format(**{**self.DEFAULTS, option: value}))
        assert one[:2] == other[:2]
        assert (one[2] != other[2]) == (option == "default")
        assert one[-1] != other[-1]
        assert one[-2] != other[-2]


SYMBOLS = """
import sympy
from fleche.digest import digest
x, y = sympy.symbols("x y")
f, g = sympy.Function("f"), sympy.Function("g")
print(*(digest(value) for value in (f, g, f(x), g(x), f(y), f(x).diff(x), sympy.sin(x) ** 2)))
"""


class TestSympy:
    """A function without a definition claims to be from no module."""

    def test_undefined_functions(self) -> None:
        pytest.importorskip("sympy")
        first = run(SYMBOLS)
        assert len(set(first)) == len(first)
        assert run(SYMBOLS, seed=1) == first

    def test_using_leaves_no_trace(self) -> None:
        sympy = pytest.importorskip("sympy")
        x = sympy.Symbol("x")
        for value in (sympy.sin(x) ** 2 + 1, sympy.Function("f")(x)):
            before = digest(value)
            assert hash(value) is not None
            assert None not in [value.diff(x), sympy.simplify(value), value.evalf()]
            assert value.is_real is None
            assert digest(value) == before
