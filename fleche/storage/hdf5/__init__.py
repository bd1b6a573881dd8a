"""Values as HDF5 files, which h5py, HDFView, h5dump and MATLAB read.

Importing this package needs ``pip install h5py``.
"""

from fleche.errors import MissingExtra

try:
    import h5py as _h5py  # noqa: F401
except ImportError:
    raise MissingExtra('values of type "hdf5" need the package h5py: pip install h5py') from None

from fleche.storage.hdf5._storage import Hdf5Options, ValueHdf5

__all__ = ["Hdf5Options", "ValueHdf5"]
