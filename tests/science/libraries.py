"""The cases of each library, by its name on the package index."""

from __future__ import annotations

from collections.abc import Callable

from tests.science import Cases
from tests.science.chemistry import ase, rdkit
from tests.science.files import dask, fsspec, h5netcdf, zarr
from tests.science.labelled import h5py, networkx, pandas, polars, pyarrow, xarray
from tests.science.numerics import numba, numpy, scipy, sympy
from tests.science.plotting import PIL, matplotlib
from tests.science.statistics import statsmodels
from tests.science.tensors import jax, torch
from tests.science.units import astropy, lmfit, pint, uncertainties

__all__ = ["LIBRARIES"]

TABLES: tuple[Callable[[], Cases], ...] = (
    *(
        PIL,
        ase,
        astropy,
        dask,
        fsspec,
        h5netcdf,
        h5py,
        jax,
        lmfit,
        matplotlib,
        networkx,
        numba,
        numpy,
    ),
    *(pandas, pint, polars, pyarrow, rdkit, scipy, statsmodels, sympy, torch, uncertainties),
    *(xarray, zarr),
)
LIBRARIES = {table.__name__: table for table in TABLES}
