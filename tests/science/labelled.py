"""Cases of xarray, pyarrow, polars, pandas, networkx and h5py."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from tests.science import Case, Cases, Refused

__all__ = ["h5py", "networkx", "pandas", "polars", "pyarrow", "xarray"]


def xarray() -> Cases:
    import numpy as np
    import pandas as pd
    import xarray as xr

    def data(**attrs: Any) -> Any:
        return xr.Dataset({"a": ("x", [1.0, 2.0])}, coords={"x": [10, 20]}, attrs=attrs)

    def encoded(**encoding: Any) -> Any:
        found = data()
        found["a"].encoding.update(encoding)
        return found

    data().to_netcdf("data.nc", engine="h5netcdf")
    (data() + 1).to_netcdf("more.nc", engine="h5netcdf")

    def opened(name: str = "data.nc", **options: Any) -> Any:
        found = xr.open_dataset(name, engine="h5netcdf", **options)
        return found.drop_encoding()

    def used(value: Any) -> object:
        return (
            *(value.attrs, value.encoding, repr(value), value.sizes, value.coords, value.indexes),
            *(value.sum(), value.sel(x=10), value.isel(x=0), value.copy(), value.nbytes),
        )

    def used_dataset(value: Any) -> object:
        inner = (value["a"].attrs, value["a"].encoding, value["x"].attrs, value.a.values)
        return (used(value), inner, value.variables["x"].attrs, value.to_dataframe())

    def variable(**options: Any) -> Any:
        return xr.Variable(("x",), [1.0, 2.0], **options)

    def array(**options: Any) -> Any:
        return xr.DataArray([1.0, 2.0], dims="x", **options)

    def stacked(*labels: Any, levels: str = "ab") -> Any:
        codes = [[levels.index(label) for label in "aabb"], [0, 1, 0, 1]]
        index = pd.MultiIndex([list(levels), labels], codes, names=["one", "two"])
        return xr.DataArray(
            np.arange(4.0), coords=xr.Coordinates.from_pandas_multiindex(index, "x")
        )

    times = pd.date_range("2020-01-01", periods=2)
    return {
        "dataset": Case(
            data,
            [
                lambda: data(unit="eV"),
                lambda: data() + 1,
                lambda: data().rename(a="b"),
                lambda: data().drop_vars("x"),
                lambda: data().drop_indexes("x"),
                lambda: data().drop_indexes("x").reset_coords("x"),
                lambda: data().set_coords("a"),
                lambda: data().astype("f4"),
                lambda: encoded(dtype="f4"),
                lambda: xr.Dataset(),
                lambda: data().assign(b=1),
                lambda: data().assign(b=1)[["b", "a"]],
            ],
            use=used_dataset,
            equal=[lambda: data().copy(), lambda: data().load()],
        ),
        "file": Case(
            opened,
            [lambda: opened("more.nc")],
            use=used_dataset,
            equal=[
                lambda: opened().load(),
                lambda: opened(cache=False),
                lambda: xr.load_dataset("data.nc", engine="h5netcdf").drop_encoding(),
            ],
        ),
        "file with encoding": Case(
            lambda: xr.open_dataset("data.nc", engine="h5netcdf"), use=used_dataset
        ),
        "variable": Case(
            variable,
            [
                lambda: variable(attrs={"unit": "eV"}),
                lambda: variable(encoding={"dtype": "f4"}),
                lambda: xr.Variable(("y",), [1.0, 2.0]),
                lambda: xr.IndexVariable(("x",), [1.0, 2.0]),
            ],
            use=lambda v: (v.attrs, v.encoding, repr(v), v.sum(), v.copy(), v.values),
        ),
        "array": Case(
            array,
            [
                lambda: array(name="a"),
                lambda: array(coords={"x": [1, 2]}),
                lambda: array(coords={"x": [1, 2], "t": 3}),
                lambda: array(attrs={"unit": "eV"}),
                lambda: xr.DataArray([1.0, 2.0], dims="y"),
            ],
            use=lambda a: (
                a.attrs,
                a.encoding,
                repr(a),
                a.sum(),
                a.copy(),
                a.values,
                a.coords,
                a.T,
            ),
        ),
        "coordinates": Case(
            lambda: array(coords={"x": times}),
            [
                lambda: array(coords={"x": times + pd.Timedelta("1D")}),
                lambda: array(coords={"x": pd.DatetimeIndex(times, freq=None)}),
                lambda: array(coords={"x": list("ab")}),
            ],
            use=lambda a: (
                a.sel(x="2020-01-01"),
                a.indexes,
                a.resample(x="1D").mean(),
                a.x.dt.year,
            ),
        ),
        "levels": Case(
            lambda: stacked(1, 2),
            [
                lambda: stacked(1, 3),
                lambda: stacked(1, 2, levels="ba"),
                lambda: stacked(1, 2).unstack("x"),
            ],
            use=lambda a: (a.sel(one="a"), a.indexes, repr(a), a.unstack("x")),
        ),
        "tree": Case(
            lambda: xr.DataTree.from_dict({"/": data(), "/inner": data()}),
            [lambda: xr.DataTree.from_dict({"/": data(), "/inner": data() + 1})],
            use=lambda t: (repr(t), t.attrs, t["inner/a"], t.to_dict()),
        ),
        "groups": Case(
            lambda: array(coords={"x": [1, 1]}).groupby("x"),
            [lambda: array(coords={"x": [1, 2]}).groupby("x")],
            use=lambda g: (g.mean(), g.groups, g.dims, len(g)),
        ),
        "chunks": Refused(lambda: data().chunk(x=1), "compute"),
    }


def networkx() -> Cases:
    import networkx as nx

    def graph(kind: Any = nx.Graph, *, first: tuple[str, ...] = (), **attributes: Any) -> Any:
        found = kind(**attributes)
        found.add_nodes_from(first)
        found.add_edge("a", "b", weight=1.0)
        found.add_edge("b", "c")
        return found

    def used(g: Any) -> object:
        looked = (
            g.adj,
            g.nodes,
            g.edges,
            g.degree,
            len(g),
            list(g["a"]),
            str(g),
            g.edges["a", "b"],
        )
        return (looked, nx.shortest_path(g, "a", "c"), nx.to_numpy_array(g), nx.pagerank(g))

    def used_graph(g: Any) -> object:
        return (used(g), list(nx.connected_components(g)), nx.to_directed(g), g.subgraph(["a"]))

    class Net(nx.Graph):  # type: ignore[misc]
        unit = "eV"

    def net(unit: str) -> Any:
        found = Net()
        found.unit = unit
        return found

    def changed(change: Any) -> Any:
        def made() -> Any:
            found = graph()
            change(found)
            return found

        return made

    return {
        "graph": Case(
            graph,
            [
                lambda: graph(first=("c", "b", "a")),
                lambda: graph(name="mine"),
                lambda: graph(nx.DiGraph),
                lambda: graph(nx.MultiGraph),
                lambda: graph(nx.MultiDiGraph),
                changed(lambda g: g.add_node("d")),
                changed(lambda g: g.nodes["a"].update(mass=1)),
                changed(lambda g: g.edges["a", "b"].update(weight=2.0)),
                lambda: nx.freeze(graph()),
                lambda: net("eV"),
                lambda: net("K"),
                lambda: nx.Graph(),
            ],
            use=used_graph,
        ),
        "directed": Case(
            lambda: graph(nx.DiGraph),
            [lambda: graph(nx.DiGraph).reverse(), lambda: graph(nx.DiGraph, first=("c",))],
            use=lambda g: (
                used(g),
                g.pred,
                g.succ,
                g.in_edges,
                g.in_degree,
                nx.topological_sort(g),
            ),
        ),
        "multigraph": Case(
            lambda: nx.MultiGraph([("a", "b"), ("a", "b")]),
            [
                lambda: nx.MultiGraph([("a", "b")]),
                lambda: nx.MultiGraph([("a", "b", "k"), ("a", "b")]),
            ],
            use=lambda g: (g.adj, g.nodes, list(g.edges(keys=True)), g.number_of_edges()),
        ),
        "frozen": Case(
            lambda: nx.freeze(graph()),
            use=lambda g: (g.adj, g.nodes, nx.is_frozen(g)),
            copies=("deepcopy",),
        ),
        "view": Case(
            lambda: graph().subgraph(["a", "b"]),
            [lambda: graph().subgraph(["b", "c"])],
            use=lambda g: (g.adj, g.nodes, g.edges),
            copies=(),
        ),
    }


def pyarrow() -> Cases:
    import datetime as dt
    import decimal

    import numpy as np
    import pyarrow as pa
    import pyarrow.dataset
    import pyarrow.parquet

    table = pa.table({"a": [1, 2, None], "b": ["x", None, "zz"]})
    pyarrow.parquet.write_table(table, "data.parquet")

    def numbers(*items: Any) -> Any:
        return pa.array([*items], pa.int64())

    def under_null(value: int) -> Any:
        data = np.array([1, value, 3], "i8")
        return pa.Array.from_buffers(
            pa.int64(), 3, [pa.py_buffer(b"\x05"), pa.py_buffer(data.tobytes())]
        )

    def sliced(make: Any) -> Any:
        """The middle of an array."""
        whole = make()
        return pa.concat_arrays([whole[:1], whole])[1:]

    def of(kind: Any, *items: Any) -> Case:
        def make() -> Any:
            return pa.array([*items], kind)

        return Case(
            make,
            [lambda: make()[:-1], lambda: pa.nulls(len(items), kind), lambda: make()[1:]],
            use=lambda a: (a.to_pylist(), a.null_count, repr(a), hash(a.type)),
            equal=[lambda: sliced(make), lambda: pa.concat_arrays([make()[:1], make()[1:]])],
        )

    def chunks(*parts: list[Any]) -> Any:
        return pa.chunked_array(parts, pa.int64())

    day = dt.datetime(2020, 1, 1)
    person = pa.struct([("name", pa.string()), ("age", pa.int8())])
    return {
        "int": of(pa.int64(), 1, None, 3),
        "bool": of(pa.bool_(), True, None, False),
        "float": of(pa.float64(), 1.5, None, -0.0),
        "half": of(pa.float16(), np.float16(1.5), None, np.float16(2)),
        "text": of(pa.string(), "a", None, "longer"),
        "large text": of(pa.large_string(), "a", None, "longer"),
        "text view": of(pa.string_view(), "a", None, "longer than twelve bytes"),
        "bytes": of(pa.binary(), b"a", None, b"longer"),
        "fixed bytes": of(pa.binary(2), b"ab", None, b"cd"),
        "time": of(pa.timestamp("ns", "UTC"), day, None, day.replace(year=2021)),
        "date": of(pa.date32(), day.date(), None, day.date().replace(year=2021)),
        "decimal": of(pa.decimal128(5, 2), decimal.Decimal("1.5"), None, decimal.Decimal(2)),
        "list": of(pa.list_(pa.int64()), [1, 2], None, [], [None]),
        "fixed list": of(pa.list_(pa.int64(), 2), [1, 2], None, [3, None]),
        "struct": of(person, {"name": "a", "age": 1}, None, {"name": None, "age": 2}),
        "map": of(pa.map_(pa.string(), pa.int64()), [("a", 1)], None, [("b", 2)]),
        "dictionary": Case(
            lambda: numbers(1, 2, 1).dictionary_encode(),
            [lambda: numbers(1, 2, 2).dictionary_encode(), lambda: numbers(1, 2, 1)],
            use=lambda a: (a.to_pylist(), repr(a)),
            equal=[
                lambda: (
                    numbers(2, 1, 2, 1)
                    .dictionary_encode()[1:]
                    .dictionary_decode()
                    .dictionary_encode()
                )
            ],
        ),
        "types": Case(
            lambda: numbers(1, 2),
            [
                lambda: pa.array([1, 2], pa.int32()),
                lambda: pa.array([1, 2], pa.uint64()),
                lambda: numbers(1, None),
                lambda: numbers(1),
                lambda: pa.array([1, 2], pa.timestamp("us")),
                lambda: chunks([1, 2]),
            ],
        ),
        "null": Case(
            lambda: numbers(1, None, 3),
            [lambda: numbers(1, 0, 3)],
            equal=[lambda: under_null(7), lambda: under_null(8)],
        ),
        "chunks": Case(
            lambda: chunks([1, 2, None], [4]),
            [lambda: chunks([1, 2, None], [5]), lambda: chunks([1, 2])],
            equal=[lambda: chunks([1], [2, None, 4]), lambda: chunks([0, 1, 2, None, 4])[1:]],
            use=lambda a: (a.to_pylist(), a.num_chunks, a.null_count, repr(a)),
        ),
        "no chunks": Case(lambda: chunks(), [lambda: pa.chunked_array([], pa.int8())]),
        "table": Case(
            lambda: pa.table({"a": [1, 2, None], "b": ["x", None, "zz"]}),
            [
                lambda: table.slice(1),
                lambda: table.select(["b", "a"]),
                lambda: table.rename_columns(["a", "c"]),
                lambda: table.replace_schema_metadata({"unit": "eV"}),
                lambda: table.to_batches()[0],
                lambda: pa.table({"a": [1, 2, None]}),
            ],
            equal=[
                lambda: pa.concat_tables([table.slice(0, 1), table.slice(1)]),
                lambda: pa.concat_tables([table, table]).slice(3),
                lambda: pa.concat_tables([table.slice(0, 1), table.slice(1)]).combine_chunks(),
            ],
            use=lambda t: (t.to_pandas(), t.schema, repr(t), t.nbytes, t["a"]),
        ),
        "field": Case(
            lambda: pa.field("a", pa.int8()),
            [
                lambda: pa.field("a", pa.int8(), nullable=False),
                lambda: pa.field("a", pa.int8(), metadata={"unit": "eV"}),
                lambda: pa.field("b", pa.int8()),
                lambda: pa.schema([pa.field("a", pa.int8())]),
                lambda: pa.int8(),
                lambda: pa.list_(pa.field("item", pa.int8(), metadata={"unit": "eV"})),
                lambda: pa.list_(pa.int8()),
            ],
        ),
        "scalar": Case(
            lambda: pa.scalar(1),
            [lambda: pa.scalar(2), lambda: pa.scalar(None, pa.int64()), lambda: pa.scalar("1")],
        ),
        "buffer": Case(
            lambda: pa.py_buffer(b"ab"),
            [lambda: pa.py_buffer(b"ac"), lambda: b"ab"],
            copies=("parcel",),
        ),
        "dataset": Refused(lambda: pyarrow.dataset.dataset("data.parquet"), "to_table"),
        "scanner": Refused(lambda: pyarrow.dataset.dataset("data.parquet").scanner(), "to_table"),
        "file": Refused(lambda: pyarrow.parquet.ParquetFile("data.parquet"), "read"),
    }


def polars() -> Cases:
    import datetime as dt
    import decimal

    import polars as pl

    frame = pl.DataFrame({"a": [1, 2, None], "b": ["x", None, "zz"]})
    frame.write_parquet("data.parquet")
    frame.write_csv("data.csv")
    day = dt.datetime(2020, 1, 1)

    def of(kind: Any, *items: Any) -> Case:
        def make() -> Any:
            return pl.Series("a", [*items], dtype=kind)

        return Case(
            make,
            [
                lambda: make()[:-1],
                lambda: make().alias("b"),
                lambda: make().reverse(),
                lambda: make().clear(),
            ],
            use=lambda s: (
                s.to_list(),
                s.null_count(),
                repr(s),
                s.is_sorted() if s.dtype.is_numeric() else 0,
            ),
            equal=[lambda: make().head(1).append(make().tail(-1)), lambda: make().rechunk()],
        )

    return {
        "int": of(pl.Int64, 1, None, 3),
        "wide int": of(pl.Int128, 1, None, 3),
        "bool": of(pl.Boolean, True, None, False),
        "float": of(pl.Float64, 1.5, None, 2.5),
        "text": of(pl.String, "a", None, "longer"),
        "bytes": of(pl.Binary, b"a", None, b"longer"),
        "time": of(pl.Datetime("ns", "UTC"), day, None, day.replace(year=2021)),
        "date": of(pl.Date, day.date(), None, day.date().replace(year=2021)),
        "duration": of(pl.Duration, dt.timedelta(1), None, dt.timedelta(2)),
        "decimal": of(pl.Decimal(10, 2), decimal.Decimal("1.5"), None, decimal.Decimal(2)),
        "list": of(pl.List(pl.Int64), [1, 2], None, [], [None], [3]),
        "array": of(pl.Array(pl.Int64, 2), [1, 2], None, [3, None]),
        "struct": of(
            pl.Struct({"n": pl.String, "m": pl.Int8}), {"n": "a", "m": 1}, None, {"n": None, "m": 2}
        ),
        "category": of(pl.Categorical, "a", None, "b"),
        "enum": of(pl.Enum(["a", "b"]), "a", None, "b"),
        "types": Case(
            lambda: pl.Series([1, 2]),
            [
                lambda: pl.Series([1, 2], dtype=pl.Int32),
                lambda: pl.Series([1, None]),
                lambda: pl.Series([1, 0]),
                lambda: pl.Series(["a"], dtype=pl.Enum(["a"])),
                lambda: pl.Series(["a"], dtype=pl.Enum(["a", "b"])),
                lambda: pl.Series([day], dtype=pl.Datetime("us")),
                lambda: pl.Series([day], dtype=pl.Datetime("ms")),
                lambda: pl.Series([], dtype=pl.List(pl.Int8)),
            ],
            use=lambda s: (s.sort(), s.unique(), s.sum() if s.dtype.is_numeric() else 0),
        ),
        "order": Case(
            lambda: pl.Series([3, 1, 2]),
            [
                lambda: pl.Series([3, 1, 2]).set_sorted(),
                lambda: pl.Series([3, 1, 2]).set_sorted(descending=True),
            ],
            use=lambda s: (s.sort(), s.max(), s.is_sorted(), s.search_sorted(2), s.to_frame()),
        ),
        "told order": Case(
            lambda: pl.Series([3, 1, 2]).set_sorted(),
            use=lambda s: (s.max(), s.is_sorted(), s.search_sorted(2), s.to_frame(), s.to_numpy()),
        ),
        "frame": Case(
            lambda: pl.DataFrame({"a": [1, 2, None], "b": ["x", None, "zz"]}),
            [
                lambda: frame.select("b", "a"),
                lambda: frame.rename({"a": "c"}),
                lambda: frame.head(2),
                lambda: frame.fill_null(0),
                lambda: pl.DataFrame(),
                lambda: frame.to_dict(as_series=False),
            ],
            equal=[
                lambda: pl.concat([frame.head(1), frame.tail(2)], rechunk=False),
                lambda: pl.read_parquet("data.parquet"),
            ],
            use=lambda f: (
                repr(f),
                f.sort("a"),
                f.to_dicts(),
                f.estimated_size(),
                f.describe(),
                f.schema,
            ),
        ),
        "expression": Case(
            lambda: pl.col("a").sum(),
            [lambda: pl.col("b").sum(), lambda: pl.col("a").mean()],
            use=repr,
        ),
        "dtype": Case(
            lambda: pl.Int64,
            [lambda: pl.Int8, lambda: pl.Datetime("us"), lambda: pl.Datetime("ms")],
        ),
        "plan": Refused(lambda: pl.scan_parquet("data.parquet"), "collect"),
        "plan of csv": Refused(lambda: pl.scan_csv("data.csv").filter(pl.col("a") > 1), "collect"),
    }


def pandas() -> Cases:
    import numpy as np
    import pandas as pd

    def table() -> Any:
        return pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})

    def texts(dtype: Any) -> Any:
        return pd.Series(["a", None, "b"], dtype=dtype)

    def struct(**metadata: str) -> Any:
        import pyarrow as pa

        return pd.ArrowDtype(pa.struct([pa.field("e", pa.int64(), metadata=metadata)]))

    in_arrow = find_spec("pyarrow") is not None

    def if_arrow(*makes: Any) -> tuple[Any, ...]:
        return makes if in_arrow else ()

    cases = {
        "storage": Case(
            lambda: texts(pd.StringDtype("python")),
            [
                *if_arrow(
                    lambda: texts(pd.StringDtype("pyarrow")),
                    lambda: texts(pd.StringDtype("pyarrow", na_value=np.nan)),
                ),
                lambda: texts(pd.StringDtype("python", na_value=np.nan)),
                lambda: texts(object),
            ],
            use=lambda s: (s.str.upper(), repr(s), s.isna(), s.to_numpy()),
        ),
        "dtype": Case(
            lambda: pd.StringDtype("python"),
            [
                *if_arrow(lambda: pd.StringDtype("pyarrow")),
                lambda: pd.StringDtype("python", na_value=np.nan),
            ],
        ),
        "used dtype": Case(
            pd.Int64Dtype,
            [
                *(pd.Int32Dtype, pd.Float64Dtype, pd.BooleanDtype, pd.CategoricalDtype),
                *(pd.SparseDtype, pd.IntervalDtype, lambda: np.dtype("i8")),
                *(lambda: pd.PeriodDtype("D"), lambda: pd.PeriodDtype("h")),
                *(lambda: pd.DatetimeTZDtype(tz="UTC"), lambda: pd.DatetimeTZDtype("s", "UTC")),
                *if_arrow(struct, lambda: struct(unit="eV")),
            ],
            use=lambda d: (d.itemsize, d.kind, d.numpy_dtype, pd.array([1, None], dtype=d)),
        ),
        "index": Case(
            lambda: pd.Index(["a", "b"], dtype=pd.StringDtype("python")),
            if_arrow(lambda: pd.Index(["a", "b"], dtype=pd.StringDtype("pyarrow"))),
            use=lambda i: (i.get_loc("a"), i.is_unique, repr(i)),
        ),
        "categories": Case(
            lambda: pd.Series(["a", "b"], dtype="category"),
            [lambda: pd.Series(["b", "a"], dtype="category")],
            use=lambda s: (s.cat.codes, s.value_counts()),
        ),
        "groups": Case(
            lambda: table().groupby("b"),
            [lambda: table().groupby("a"), lambda: table().groupby("b", sort=False)],
            use=lambda g: (g.sum(), g.groups, g.indices, g["a"], g.get_group("x"), len(g)),
        ),
        "window": Case(
            lambda: pd.Series([1.0, 2.0]).rolling(2),
            [lambda: pd.Series([1.0, 2.0]).rolling(1), lambda: pd.Series([1.0, 3.0]).rolling(2)],
            use=lambda w: (w.sum(), w.mean()),
        ),
    }
    if in_arrow:
        cases["arrow storage"] = Case(
            lambda: texts(pd.StringDtype("pyarrow")),
            equal=[
                lambda: pd.concat(
                    [texts(pd.StringDtype("pyarrow"))[:1], texts(pd.StringDtype("pyarrow"))[1:]]
                )
            ],
            use=lambda s: (s.str.upper(), repr(s), s.isna(), s.to_numpy()),
        )
        cases["arrow numbers"] = Case(
            lambda: pd.Series([1, None], dtype="int64[pyarrow]"),
            [
                lambda: pd.Series([1, None], dtype="Int64"),
                lambda: pd.Series([1, 2], dtype="int64[pyarrow]"),
            ],
            use=lambda s: (s.sum(), repr(s)),
        )
        cases["arrow fields"] = Case(
            lambda: pd.Series([{"e": 1}], dtype=struct()),
            [
                lambda: pd.Series([{"e": 2}], dtype=struct()),
                lambda: pd.Series([{"e": 1}], dtype=struct(unit="eV")),
            ],
            use=lambda s: (s.struct.field("e"), s.dtype.kind, repr(s)),
        )
    return cases


def h5py() -> Cases:
    import h5py
    import numpy as np

    enum = h5py.enum_dtype

    def written() -> Any:
        file = h5py.File("data.h5", "w")
        file["a"] = np.ones(2)
        return file

    return {
        "enum": Case(
            lambda: enum({"RED": 1}),
            [lambda: enum({"BLUE": 1}), lambda: enum({"RED": 2}), lambda: np.dtype("i8")],
            use=h5py.check_enum_dtype,
        ),
        "text": Case(
            h5py.string_dtype,
            [
                lambda: h5py.string_dtype("ascii"),
                lambda: np.dtype("O"),
                lambda: h5py.vlen_dtype("f8"),
            ],
            use=h5py.check_string_dtype,
        ),
        "reference": Case(lambda: h5py.ref_dtype, [lambda: h5py.regionref_dtype]),
        "array": Case(
            lambda: np.ones(2, enum({"RED": 1})),
            [lambda: np.ones(2, enum({"BLUE": 1})), lambda: np.ones(2, "i8")],
        ),
        "structure": Case(
            lambda: np.zeros(2, [("c", enum({"RED": 1})), ("x", "f8")]),
            [lambda: np.zeros(2, [("c", enum({"BLUE": 1})), ("x", "f8")])],
        ),
        "file": Refused(written, "[:]"),
        "group": Refused(lambda: written()["/"], "[:]"),
        "dataset": Refused(lambda: written()["a"], "[:]"),
    }
