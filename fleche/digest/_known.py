"""The types that are known by name, and where their handlers are.

A type of numpy or pandas may live in any module of the package, since that differs between
versions.
"""

from __future__ import annotations

from ._registry import register_name
from .science import register_rows

__all__: list[str] = []

STDLIB = {
    "array": {"array": "describe_array"},
    "collections": {
        "deque": "describe_deque",
        "OrderedDict": "describe_ordered_dict",
        "defaultdict": "describe_default_dict",
        "Counter": "describe_counter",
    },
    "datetime": {
        "date": "describe_date",
        "time": "describe_time",
        "datetime": "describe_datetime",
        "timedelta": "describe_timedelta",
        "timezone": "describe_timezone",
    },
    "decimal": {"Decimal": "describe_decimal"},
    "fractions": {"Fraction": "describe_fraction"},
    "functools": {
        "partial": "describe_partial",
        "cached_property": "describe_cached_property",
        "_lru_cache_wrapper": "describe_lru_cache",
        "singledispatchmethod": "describe_generic_method",
    },
    "re": {"Pattern": "describe_pattern"},
    "uuid": {"UUID": "describe_uuid"},
    "zoneinfo": {"ZoneInfo": "describe_zoneinfo"},
}
for module, types in STDLIB.items():
    for name, function in types.items():
        register_name(module, name, f"_stdlib:{function}")

for module in ("pathlib", "pathlib._local"):
    for name in ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath"):
        register_name(module, name, "_stdlib:describe_path")

register_name("typing", "TypeVar", "_classes:describe_type_variable")
register_name("ast", "AST", "_syntax:describe_syntax", subclasses=True)
register_name("_ast", "AST", "_syntax:describe_syntax", subclasses=True)

NUMPY = {
    "ndarray": "describe_array",
    "generic": "describe_scalar",
    "dtype": "describe_dtype",
    "MaskedArray": "describe_masked",
}
for name, function in NUMPY.items():
    register_name("numpy.*", name, f"_numpy:{function}", subclasses=True)

NUMPY_RANDOM = {
    "Generator": "describe_generator",
    "RandomState": "describe_random_state",
    "SeedSequence": "describe_seed_sequence",
}
for name, function in NUMPY_RANDOM.items():
    register_name("numpy.*", name, f"_numpy_random:{function}")
register_name("numpy.*", "BitGenerator", "_numpy_random:describe_bit_generator", subclasses=True)

PANDAS = {
    "DataFrame": "describe_frame",
    "Series": "describe_series",
    "Index": "describe_index",
    "ExtensionArray": "describe_extension_array",
}
for name, function in PANDAS.items():
    register_name("pandas.*", name, f"_pandas:{function}", subclasses=True)

PANDAS_SCALARS = {
    "Timestamp": "describe_timestamp",
    "Timedelta": "describe_timedelta",
    "NaTType": "describe_missing",
    "NAType": "describe_missing",
    "Period": "describe_period",
    "Interval": "describe_interval",
    "CategoricalDtype": "describe_categorical_dtype",
}
for name, function in PANDAS_SCALARS.items():
    register_name("pandas.*", name, f"_pandas:{function}")

register_name("pydantic.*", "Decorator", "_libraries:describe_validator")

register_rows()
