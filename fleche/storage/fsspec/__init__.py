"""Values and calls on any filesystem of fsspec: S3, Google Cloud, Azure, SFTP, HDFS and others.

Importing this package needs ``pip install fsspec``, and each kind of url the package that
speaks its protocol (s3fs for ``s3://``, gcsfs for ``gs://``, adlfs for ``az://``).
"""

from fleche.errors import MissingExtra

try:
    import fsspec as _fsspec  # noqa: F401
except ImportError:
    raise MissingExtra(
        'storages of type "fsspec" need the package fsspec: pip install fsspec'
    ) from None

from fleche.storage.fsspec._storage import CallFsspec, FsspecOptions, ValueFsspec

__all__ = ["CallFsspec", "FsspecOptions", "ValueFsspec"]
