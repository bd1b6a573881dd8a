"""Digests of scientific types: one table of what stands for a value of which library.

A row names types by their package and qualified name, so no library is ever imported here: an
object that has the type proves that its module is loaded. The function of a row takes an object and
returns what stands for it in the digest, as a dict of named parts: everything that a user of the
object can see and that survives using it, nothing that the library has only noted on the way. The
class enters the digest beside the parts. A function raises
:class:`~fleche.errors.Indigestible` where the object is only the name of something else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import MethodDescriptorType
from typing import Any

from fleche.digest._names import HEAP
from fleche.digest._registry import is_genuine, package_of, register_name

__all__ = ["REDUCERS", "ROWS", "find_reducer", "register_rows"]

EXACT, SUBCLASSES = False, True
MANY_TYPES = 20_000
PICKLING = ("__reduce_ex__", "__reduce__", "__getstate__")
FORGETFUL = sys.stdlib_module_names - {"enum"}
"""Packages whose way of pickling, in Python, knows of no attributes of subclasses."""

ROWS: tuple[tuple[str, str, str, bool], ...] = (
    # torch
    ("torch", "Tensor", "_tensors:torch_tensor", SUBCLASSES),
    ("torch", "Module", "_tensors:torch_module", SUBCLASSES),
    ("torch", "OptimizedModule", "_tensors:torch_compiled", EXACT),
    ("torch", "ScriptModule ScriptFunction ScriptObject", "_tensors:torch_script", SUBCLASSES),
    ("torch", "UntypedStorage TypedStorage", "_tensors:torch_storage", EXACT),
    ("torch", "Generator", "_tensors:torch_generator", EXACT),
    ("torch", "GraphModule", "_tensors:torch_traced", SUBCLASSES),
    ("torch", "dtype layout memory_format finfo iinfo", "_tensors:torch_singleton", EXACT),
    ("torch", "Distribution", "_tensors:torch_distribution", SUBCLASSES),
    ("torch", "Transform", "_tensors:torch_transform", SUBCLASSES),
    # jax
    ("jaxlib", "ArrayImpl", "_tensors:jax_array", EXACT),
    ("jaxlib", "PjitFunction", "_tensors:jax_function", EXACT),
    ("jaxlib", "PyTreeDef pytree.PyTreeDef", "_tensors:jax_tree", EXACT),
    ("jax", "PRNGKeyArray", "_tensors:jax_keys", EXACT),
    ("jax", "custom_jvp custom_vjp ufunc", "_tensors:jax_wrapper", EXACT),
    ("jax", "Tracer", "_tensors:jax_tracer", SUBCLASSES),
    # numba
    ("numba", "Dispatcher", "_numerics:numba_function", SUBCLASSES),
    ("numba", "DUFunc", "_numerics:numba_ufunc", EXACT),
    ("numba", "GUFunc", "_numerics:numba_gufunc", EXACT),
    ("numba", "CFunc", "_numerics:numba_callback", EXACT),
    ("numba", "StencilFunc", "_numerics:numba_stencil", EXACT),
    ("numba", "List", "_numerics:numba_list", EXACT),
    ("numba", "Dict", "_numerics:numba_dict", EXACT),
    ("numba", "Type", "_numerics:numba_type", SUBCLASSES),
    # sqlalchemy
    ("sqlalchemy", "Visitable", "_sql:construct", SUBCLASSES),
    ("sqlalchemy", "ColumnCollection", "_sql:columns", SUBCLASSES),
    ("sqlalchemy", "quoted_name", "_sql:name", SUBCLASSES),
    # maps and sets without an order
    ("rpds", "HashTrieMap", "_labelled:hash_map", SUBCLASSES),
    ("rpds", "HashTrieSet", "_labelled:hash_set", SUBCLASSES),
    ("immutables", "Map", "_labelled:hash_map", SUBCLASSES),
    ("pyrsistent", "PMap", "_labelled:hash_map", SUBCLASSES),
    ("pyrsistent", "PSet", "_labelled:hash_set", SUBCLASSES),
    # joblib, toolz
    ("joblib", "MemorizedFunc NotMemorizedFunc", "_numerics:memorized_function", SUBCLASSES),
    ("toolz", "curry", "_numerics:curried_function", SUBCLASSES),
    ("cytoolz", "curry", "_numerics:curried_function", SUBCLASSES),
    # scipy
    ("scipy", "LinearOperator", "_numerics:linear_operator", SUBCLASSES),
    ("scipy", "cKDTree KDTree", "_numerics:kd_tree", SUBCLASSES),
    ("scipy", "_QhullUser", "_numerics:triangulation", SUBCLASSES),
    ("scipy", "rv_generic multi_rv_generic", "_numerics:distribution", SUBCLASSES),
    ("scipy", "rv_frozen multi_rv_frozen", "_numerics:frozen_distribution", SUBCLASSES),
    ("scipy", "UnivariateDistribution", "_numerics:random_variable", SUBCLASSES),
    ("scipy", "UnivariateSpline", "_numerics:spline", SUBCLASSES),
    ("scipy", "BarycentricInterpolator", "_numerics:barycentric", SUBCLASSES),
    ("scipy", "_BarycentricRational", "_numerics:rational_interpolant", SUBCLASSES),
    ("scipy", "ShortTimeFFT", "_numerics:short_time_fft", SUBCLASSES),
    # sympy and mpmath
    ("sympy", "Basic", "_symbolic:expression", SUBCLASSES),
    ("sympy", "Quantity", "_symbolic:quantity", SUBCLASSES),
    ("sympy", "Float", "_symbolic:floating", EXACT),
    ("sympy", "Rational", "_symbolic:rational", SUBCLASSES),
    ("sympy", "Dummy", "_symbolic:dummy", SUBCLASSES),
    ("sympy", "ReferenceFrame", "_symbolic:frame", SUBCLASSES),
    ("sympy", "WildFunction", "_symbolic:wild_function", SUBCLASSES),
    ("sympy", "Domain", "_symbolic:domain", SUBCLASSES),
    ("sympy", "UndefinedFunction", "_symbolic:undefined_function", SUBCLASSES),
    ("sympy", "MatrixBase", "_symbolic:matrix", SUBCLASSES),
    ("sympy", "NDimArray", "_symbolic:array", SUBCLASSES),
    ("sympy", "Poly", "_symbolic:polynomial", SUBCLASSES),
    ("sympy", "PolyRing FracField", "_symbolic:ring", EXACT),
    ("sympy", "PolyElement", "_symbolic:ring_element", SUBCLASSES),
    ("sympy", "FracElement", "_symbolic:field_element", SUBCLASSES),
    ("mpmath", "mpnumeric ivmpf ivmpc", "_symbolic:mpmath_number", SUBCLASSES),
    ("mpmath", "_matrix", "_symbolic:mpmath_matrix", SUBCLASSES),
    ("mpmath", "StandardBaseContext", "_symbolic:mpmath_context", SUBCLASSES),
    # astropy, pint, lmfit
    ("astropy", "UnitBase", "_units:astropy_unit", SUBCLASSES),
    ("astropy", "Quantity BaseColumn", "_units:astropy_array", SUBCLASSES),
    ("astropy", "Distribution", "_units:astropy_samples", SUBCLASSES),
    ("astropy", "Masked", "_units:astropy_masked", SUBCLASSES),
    ("astropy", "ShapedLikeNDArray", "_units:astropy_object", SUBCLASSES),
    ("astropy", "TimeBase", "_units:astropy_time", SUBCLASSES),
    ("astropy", "TimeFormat", "_units:astropy_format", SUBCLASSES),
    ("astropy", "Table", "_units:astropy_table", SUBCLASSES),
    ("astropy", "Cosmology", "_units:astropy_cosmology", SUBCLASSES),
    ("astropy", "Model", "_units:astropy_model", SUBCLASSES),
    ("astropy", "Parameter", "_units:astropy_parameter", SUBCLASSES),
    ("astropy", "WCS", "_units:astropy_projection", SUBCLASSES),
    ("astropy", "Header", "_units:fits_header", EXACT),
    ("astropy", "_BaseHDU", "_units:fits_unit", SUBCLASSES),
    ("astropy", "HDUList", "_units:fits_file", EXACT),
    ("astropy", "FITS_rec", "_units:fits_records", EXACT),
    ("pint", "PlainQuantity", "_units:pint_quantity", SUBCLASSES),
    ("pint", "PlainUnit", "_units:pint_unit", SUBCLASSES),
    ("pint", "UnitsContainer", "_units:pint_container", SUBCLASSES),
    (
        "pint",
        "GenericPlainRegistry PlainRegistry LazyRegistry ApplicationRegistry",
        "_units:pint_registry",
        SUBCLASSES,
    ),
    ("lmfit", "Parameter", "_units:lmfit_parameter", EXACT),
    ("lmfit", "Parameters", "_units:lmfit_parameters", EXACT),
    ("lmfit", "Model", "_units:lmfit_model", SUBCLASSES),
    ("lmfit", "ModelResult MinimizerResult", "_units:lmfit_result", EXACT),
    ("uncertainties", "AffineScalarFunc", "_files:uncertain_number", SUBCLASSES),
    # pandas, xarray, pyarrow, polars, networkx
    (
        "pandas",
        "BaseGroupBy BaseGrouper BaseWindow ExtensionDtype Grouping",
        "_labelled:pandas_object",
        SUBCLASSES,
    ),
    ("xarray", "GroupBy", "_labelled:xarray_groups", SUBCLASSES),
    ("xarray", "NamedArray", "_labelled:xarray_variable", SUBCLASSES),
    ("xarray", "DataArray", "_labelled:xarray_array", SUBCLASSES),
    ("xarray", "Dataset", "_labelled:xarray_dataset", SUBCLASSES),
    ("xarray", "DataTree", "_labelled:xarray_tree", SUBCLASSES),
    ("networkx", "Graph", "_labelled:graph", SUBCLASSES),
    ("pyarrow", "Array ChunkedArray", "_labelled:arrow_array", SUBCLASSES),
    ("pyarrow", "DataType", "_labelled:arrow_type", SUBCLASSES),
    ("pyarrow", "Field", "_labelled:arrow_field", EXACT),
    ("pyarrow", "Schema", "_labelled:arrow_schema", EXACT),
    ("pyarrow", "Table RecordBatch", "_labelled:arrow_table", EXACT),
    ("pyarrow", "Scalar", "_labelled:arrow_scalar", SUBCLASSES),
    ("pyarrow", "Buffer", "_labelled:arrow_buffer", SUBCLASSES),
    ("polars", "DataFrame", "_labelled:polars_frame", EXACT),
    ("polars", "Series", "_labelled:polars_series", EXACT),
    ("polars", "Expr", "_labelled:polars_expression", EXACT),
    # rdkit, ase
    ("rdkit", "Mol", "_chemistry:molecule", SUBCLASSES),
    ("rdkit", "Conformer", "_chemistry:conformer", EXACT),
    ("rdkit", "ChemicalReaction", "_chemistry:reaction", EXACT),
    ("rdkit", "Atom Bond", "_chemistry:part_of_molecule", SUBCLASSES),
    ("ase", "Atoms", "_chemistry:ase_atoms", SUBCLASSES),
    ("ase", "BaseCalculator Mixer", "_chemistry:ase_calculator", SUBCLASSES),
    ("ase", "FixConstraint", "_chemistry:ase_constraint", SUBCLASSES),
    ("ase", "Symbols", "_chemistry:ase_symbols", EXACT),
    # statsmodels
    ("statsmodels", "Results ResultMixin ModelData VARProcess", "_statistics:fit", SUBCLASSES),
    ("statsmodels", "Representation", "_statistics:state_space", SUBCLASSES),
    ("statsmodels", "GEE", "_statistics:estimating_equations", SUBCLASSES),
    # matplotlib
    ("matplotlib", "Colormap BivarColormap", "_plotting:colormap", SUBCLASSES),
    ("matplotlib", "Norm Normalize", "_plotting:norm", SUBCLASSES),
    ("matplotlib", "Triangulation", "_plotting:triangulation", SUBCLASSES),
    ("matplotlib", "Affine2D Bbox", "_plotting:transform", EXACT),
    # pillow
    ("PIL", "Image", "_images:image", SUBCLASSES),
    # names of files
    ("tempfile", "TemporaryDirectory", "_files:temporary_directory", SUBCLASSES),
    ("zarr", "Array Group AsyncArray AsyncGroup", "_files:stored_array", SUBCLASSES),
    ("h5py", "HLObject", "_files:stored_array", SUBCLASSES),
    ("h5netcdf", "Group Variable BaseVariable", "_files:stored_array", SUBCLASSES),
    ("netCDF4", "Dataset Variable", "_files:stored_array", SUBCLASSES),
    ("tables", "Node File", "_files:stored_array", SUBCLASSES),
    ("numpy", "NpzFile", "_files:stored_array", EXACT),
    ("polars", "LazyFrame", "_files:lazy_frame", SUBCLASSES),
    ("dask", "DaskMethodsMixin", "_files:lazy_graph", SUBCLASSES),
    ("pyarrow", "Dataset Scanner", "_files:lazy_table", SUBCLASSES),
    ("pyarrow", "ParquetFile ParquetDataset ORCFile", "_files:open_table", SUBCLASSES),
    ("ase", "Database", "_files:database", SUBCLASSES),
    ("ase", "TrajectoryReader TrajectoryWriter", "_files:trajectory", SUBCLASSES),
    (
        "fsspec",
        "OpenFile FSMap AbstractBufferedFile LocalFileOpener",
        "_files:file_handle",
        SUBCLASSES,
    ),
)

REDUCERS: dict[tuple[str, str], str] = {
    ("PIL", "Image"): "reduce_image",
    ("astropy", "BaseColumn"): "reduce_column",
    ("astropy", "Table"): "reduce_table",
    ("builtins", "BaseException"): "reduce_exception",
    ("jax", "custom_jvp"): "reduce_jax_function",
    ("jaxlib", "PjitFunction"): "reduce_jax_function",
    ("matplotlib", "Triangulation"): "reduce_triangulation",
    ("mpmath", "_matrix"): "reduce_mpmath",
    ("mpmath", "ivmpc"): "reduce_mpmath",
    ("mpmath", "ivmpf"): "reduce_mpmath",
    ("numba", "List"): "reduce_numba_list",
    ("numba", "Dict"): "reduce_numba_dict",
    ("numpy", "MaskedArray"): "reduce_masked",
    ("numpy", "ndarray"): "reduce_array",
    ("numpy", "ufunc"): "reduce_ufunc",
    ("numpy", "vectorize"): "reduce_vectorized",
    ("pandas", "Index"): "reduce_pandas",
    ("pandas", "Interval"): "reduce_scalar",
    ("pandas", "NDFrame"): "reduce_pandas",
    ("pandas", "Period"): "reduce_scalar",
    ("pandas", "Timedelta"): "reduce_scalar",
    ("pandas", "Timestamp"): "reduce_scalar",
    ("rdkit", "ChemicalReaction"): "reduce_reaction",
    ("rdkit", "Mol"): "reduce_molecule",
    ("scipy", "UnivariateDistribution"): "reduce_random_variable",
    ("scipy", "multi_rv_generic"): "reduce_distribution",
    ("scipy", "rv_generic"): "reduce_distribution",
    ("sympy", "Basic"): "reduce_expression",
    ("sympy", "FiniteField"): "reduce_finite_field",
    ("sympy", "MatrixBase"): "reduce_matrix",
    ("sympy", "NDimArray"): "reduce_matrix",
    ("sympy", "Poly"): "reduce_polynomial",
    ("sympy", "Quantity"): "reduce_unit",
    ("sympy", "Wild"): "reduce_wild",
    ("torch", "Tensor"): "reduce_tensor",
    ("xarray", "DataArray"): "reduce_opened",
    ("xarray", "Dataset"): "reduce_opened",
    ("xarray", "NamedArray"): "reduce_variable",
}
"""Types whose library does not write, or does not read back, all that counts in their digest."""

Reducer = Callable[[Any], Any]

found: dict[type, Reducer | None] = {}


def register_rows() -> None:
    """Enter the table into the registry."""
    for package, names, target, subclasses in ROWS:
        for name in names.split():
            register_name(f"{package}.*", name, f"science.{target}", subclasses=subclasses)


def find_reducer(cls: type) -> Reducer | None:
    """Return how to pickle objects of a class for a parcel, where its own way loses something.

    The reducer takes an object and returns what ``reducer_override`` of a pickler may return:
    NotImplemented if the library's own way serves.
    """
    if cls not in found:
        if len(found) >= MANY_TYPES:
            found.clear()
        found[cls] = choose_reducer(cls)
    return found[cls]


def choose_reducer(cls: type) -> Reducer | None:
    for base in cls.__mro__:
        name = REDUCERS.get((package_of(base), base.__qualname__))
        if name is not None and is_genuine(base):
            return getattr(import_module("._reducers", __package__), name)  # type: ignore[no-any-return]
    if cls.__module__ == "Boost.Python" and cls.__qualname__ == "function":  # there is no module
        from fleche.digest.science._reducers import reduce_named

        return reduce_named
    if (forgetful := forgetful_base(cls)) is not None:
        from fleche.digest.science._reducers import reduce_as_base

        return partial(reduce_as_base, forgetful)
    return None


def forgetful_base(cls: type) -> type | None:
    """Return the base in C or in Python's own library whose way of pickling a class has.

    It may lose a part: ``datetime.__reduce__`` knows of no ``__dict__``, which a subclass has, and
    numbers of numpy know of no subclass. A base that comes with the class, in one package, knows
    which attributes count: pandas keeps notes in its blocks. So does an enumeration.
    """
    if not cls.__flags__ & HEAP:
        return None
    for base in cls.__mro__[:-1]:
        methods = [vars(base)[name] for name in PICKLING if name in vars(base)]
        if methods:
            knows_none = package_of(base) in FORGETFUL or all(map(is_made_in_c, methods))
            return base if knows_none and package_of(base) != package_of(cls) else None
    return None


def is_made_in_c(method: Any) -> bool:
    """Whether C has made a method, by way of Cython perhaps, which has a type of its own for it."""
    return (
        isinstance(method, MethodDescriptorType)
        or type(method).__name__ == "cython_function_or_method"
    )
