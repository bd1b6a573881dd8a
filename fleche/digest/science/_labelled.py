"""Tables and labelled arrays, graphs of networkx, and maps and sets that never change."""

from __future__ import annotations

import sys
from typing import Any

from fleche.digest._builtin import Attributes
from fleche.digest._registry import package_of
from fleche.digest.science._parts import Parts, parts, uncached, without

GRAPH = ("_adj", "_node", "_succ", "_pred", "_graph", "_NODE_OK", "_EDGE_OK", "graph")
WIDE = ("Decimal", "Int128", "UInt128")
GRAPH_CACHE = "__networkx_cache__"


@parts
def pandas_object(obj: Any) -> Parts:
    """Describe groups, windows and dtypes of pandas without what they have worked out."""
    return without(obj, "_cache")


@parts
def xarray_groups(obj: Any) -> Parts:
    return without(obj, "_dims", "_groups", "_sizes")


@parts
def xarray_variable(obj: Any) -> Parts:
    """Describe a variable; its attrs and its encoding are None until they are read."""
    return {
        "dims": obj.dims,
        "dtype": str(obj.dtype),
        "values": values_of(obj),
        "attrs": dict(obj._attrs or {}),  # noqa: SLF001 - asking for attrs makes them
        "encoding": encoding_of(obj),
    }


def encoding_of(obj: Any) -> Attributes:
    """Return how values are to be written; the path that they were read from does not matter."""
    encoding = getattr(obj, "_encoding", None) or {}
    return Attributes({name: value for name, value in encoding.items() if name != "source"})


def values_of(variable: Any) -> Any:
    """Return the values of a variable, which are read now if they still lie in a file."""
    data = variable._data  # noqa: SLF001 - what there is, before it is read
    if type(data).__name__ == "PandasExtensionArray":
        return data.array
    return variable.values if package_of(type(data)) == "xarray" else data


def indexes_of(indexes: Any) -> Attributes:
    """Return the indexes of coordinates, those of pandas with what the coordinates do not show.

    That is a frequency, and in which order the levels of a MultiIndex are.
    """
    return Attributes(
        {
            str(name): (type(index), index.index)
            if type(index).__name__.startswith("Pandas")
            else index
            for name, index in indexes.items()
        }
    )


@parts
def xarray_array(obj: Any) -> Parts:
    return {
        "name": obj.name,
        "variable": obj.variable,
        "coords": list(obj._coords.items()),  # noqa: SLF001
        "indexes": indexes_of(obj._indexes),  # noqa: SLF001
    }


@parts
def xarray_dataset(obj: Any) -> Parts:
    return {
        "variables": list(obj._variables.items()),  # noqa: SLF001 - in their order
        "coords": sorted(map(str, obj._coord_names)),  # noqa: SLF001
        "attrs": dict(obj._attrs or {}),  # noqa: SLF001
        "encoding": encoding_of(obj),
        "indexes": indexes_of(obj._indexes),  # noqa: SLF001
    }


@parts
def xarray_tree(obj: Any) -> Parts:
    return {"name": obj.name, "dataset": obj.to_dataset(), "children": dict(obj.children)}


@parts
def graph(obj: Any) -> Parts:
    """Describe a graph by its nodes and neighbours, in the order in which they are listed."""
    found = uncached(obj)
    extras = {
        name: value
        for name, value in found.items()
        if name not in (*GRAPH, GRAPH_CACHE) and getattr(value, "__name__", "") != "frozen"
    }
    return {
        "graph": obj.graph,
        "nodes": [(name, dict(data)) for name, data in obj.nodes(data=True)],
        "edges": neighbours(obj, obj.adj),
        "back": neighbours(obj, obj.pred) if obj.is_directed() else None,
        "attributes": Attributes(extras),
    }


def neighbours(graph: Any, adjacency: Any) -> list[Any]:
    """Return the neighbours of each node with the data of the edges."""
    many = graph.is_multigraph()

    def data(edge: Any) -> Any:
        return [(key, dict(value)) for key, value in edge.items()] if many else dict(edge)

    return [
        (node, [(end, data(edge)) for end, edge in ends.items()])
        for node, ends in adjacency.items()
    ]


@parts
def arrow_array(obj: Any) -> Parts:
    """Describe an array by its values: chunks, offsets and what lies under nulls do not matter."""
    if hasattr(obj, "chunks"):
        obj = obj.unify_dictionaries().combine_chunks()
        if hasattr(obj, "chunks"):  # of some types they cannot be joined
            obj = sys.modules["pyarrow"].concat_arrays(obj.chunks)
    return {"type": obj.type, **content(obj)}


def content(array: Any) -> Parts:
    """Return the length, the validity and the values of an array."""
    valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    return {"length": len(array), "valid": valid, "values": arrow_values(array, valid)}


def arrow_values(array: Any, valid: Any) -> Any:
    """Return the values of an array in a form in which equal ones are equal, by its type."""
    arrow = sys.modules["pyarrow"]
    types, kind = arrow.types, array.type
    if isinstance(kind, arrow.BaseExtensionType):
        return array.storage
    if types.is_dictionary(kind):
        return (array.indices, array.dictionary)
    if types.is_struct(kind):
        return array.flatten()
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        compute = load_compute()
        return (compute.list_value_length(array), array.flatten())
    if types.is_boolean(kind):
        return array.cast("uint8").fill_null(0).to_numpy()
    if is_text(types, kind):
        return text_of(array)
    if is_fixed(types, kind):
        return items_of(array, valid)
    return array.to_pylist()


def load_compute() -> Any:
    """Return the functions of pyarrow, a module that may not be loaded yet."""
    import pyarrow.compute

    return pyarrow.compute


def is_text(types: Any, kind: Any) -> bool:
    return any(
        check(kind)
        for check in (
            types.is_string,
            types.is_large_string,
            types.is_binary,
            types.is_large_binary,
        )
    )


def is_fixed(types: Any, kind: Any) -> bool:
    """Whether an item is a fixed number of bytes."""
    return bool(
        types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind)
    )


def text_of(array: Any) -> Any:
    """Return the offsets and the bytes of strings, nulls being empty."""
    numpy, arrow = sys.modules["numpy"], sys.modules["pyarrow"]
    plain = array.cast(arrow.large_binary()).fill_null(b"")
    _, offsets, data = plain.buffers()
    ends = numpy.frombuffer(offsets, "i8")[plain.offset : plain.offset + len(plain) + 1]
    if not len(plain) or data is None:
        return (numpy.zeros(len(plain) + 1, "i8"), b"")
    return (ends - ends[0], memoryview(data)[ends[0] : ends[-1]])


def items_of(array: Any, valid: Any) -> Any:
    """Return the bytes of items of a fixed width, nulls being zero."""
    numpy = sys.modules["numpy"]
    width = array.type.bit_width // 8
    data = array.buffers()[1]
    if data is None or not width:
        return b""
    raw = numpy.frombuffer(data, "u1")[array.offset * width : (array.offset + len(array)) * width]
    if valid is None:
        return raw
    return numpy.where(valid[:, None], raw.reshape(-1, width), numpy.uint8(0))


@parts
def arrow_type(obj: Any) -> Parts:
    found: Parts = {"type": str(obj), "fields": [obj.field(i) for i in range(obj.num_fields)]}
    if isinstance(obj, sys.modules["pyarrow"].BaseExtensionType):
        found["extension"] = (obj.extension_name, obj.storage_type)
    return found


@parts
def arrow_field(obj: Any) -> Parts:
    return {
        "name": obj.name,
        "type": obj.type,
        "nullable": obj.nullable,
        "metadata": dict(obj.metadata or {}),
    }


@parts
def arrow_schema(obj: Any) -> Parts:
    return {"fields": list(obj), "metadata": dict(obj.metadata or {})}


@parts
def arrow_table(obj: Any) -> Parts:
    return {"schema": obj.schema, "columns": obj.columns, "rows": obj.num_rows}


@parts
def arrow_scalar(obj: Any) -> Parts:
    arrow = sys.modules["pyarrow"]
    return {"value": arrow.array([obj], obj.type) if obj.is_valid else None, "type": obj.type}


@parts
def arrow_buffer(obj: Any) -> Parts:
    return {"bytes": memoryview(obj)}


@parts
def polars_frame(obj: Any) -> Parts:
    return {"columns": obj.get_columns(), "rows": obj.height}


@parts
def polars_series(obj: Any) -> Parts:
    """Describe a series by its values, and by being sorted, which polars believes: not by chunks.

    A series that was said to be sorted, and is not, has another maximum.
    """
    found: Parts = {"name": obj.name, "dtype": repr(obj.dtype), "length": len(obj)}
    if len(obj) > 1:
        found["order"] = [obj.flags[name] for name in ("SORTED_ASC", "SORTED_DESC")]
    valid = obj.is_not_null().to_numpy() if obj.null_count() else None
    return {**found, "valid": valid, "values": polars_values(obj)}


def polars_values(series: Any) -> Any:
    """Return the values of a series in a form in which equal ones are equal, by its type."""
    polars = sys.modules["polars"]
    kind = series.dtype
    if kind == polars.Boolean:
        return series.fill_null(False).to_numpy()
    if kind.is_temporal() or (kind.is_numeric() and not str(kind).startswith(WIDE)):
        return series.to_physical().fill_null(0).to_numpy()
    if isinstance(kind, polars.List):
        sizes = series.list.len()
        return (sizes, series.filter(sizes.fill_null(0) > 0).explode())
    if isinstance(kind, polars.Struct):
        return [series.struct.field(field.name) for field in kind.fields]
    return series.to_list()


@parts
def polars_expression(obj: Any) -> Parts:
    return {"expression": obj.meta.serialize()}


@parts
def hash_map(obj: Any) -> Parts:
    """Return the items of a map that has no order, in one that is the same in each process."""
    from fleche.digest._keys import digest

    return {"items": sorted(obj.items(), key=lambda item: digest(item[0]))}


@parts
def hash_set(obj: Any) -> Parts:
    """Return the members of a set that is none of Python's own, as one of those."""
    return {"members": frozenset(obj)}
