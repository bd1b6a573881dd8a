"""Cases of zarr, dask, fsspec and h5netcdf: names of files, which are refused."""

from __future__ import annotations

from tests.science import Cases, Refused

__all__ = ["dask", "fsspec", "h5netcdf", "zarr"]


def zarr() -> Cases:
    import numpy as np
    import zarr

    zarr.save("data.zarr", np.ones(10))
    return {
        "array": Refused(lambda: zarr.open("data.zarr", mode="r"), "[:]"),
        "array in memory": Refused(lambda: zarr.array(np.ones(2)), "[:]"),
        "group": Refused(zarr.group, "[:]"),
        "list": Refused(lambda: [zarr.open("data.zarr", mode="r")], "object[0]"),
    }


def dask() -> Cases:
    import dask
    import dask.array as da
    import dask.bag
    import numpy as np

    np.save("data.npy", np.ones(4))
    return {
        "array": Refused(lambda: da.ones(3), "compute"),
        "file": Refused(lambda: da.from_array(np.load("data.npy", mmap_mode="r")), "compute"),
        "delayed": Refused(lambda: dask.delayed(np.load)("data.npy"), "compute"),
        "bag": Refused(lambda: dask.bag.from_sequence([1]), "compute"),
    }


def fsspec() -> Cases:
    import fsspec

    return {
        "file": Refused(lambda: fsspec.open("data.txt"), "Content[Path]"),
        "map": Refused(lambda: fsspec.get_mapper("data"), "Content[Path]"),
    }


def h5netcdf() -> Cases:
    import h5netcdf

    def written() -> h5netcdf.File:
        file = h5netcdf.File("data.nc", "w")
        file.dimensions = {"x": 2}
        file.create_variable("v", ("x",), float)
        return file

    return {
        "file": Refused(written, "[:]"),
        "variable": Refused(lambda: written()["v"], "[:]"),
    }
