"""The secrets of a storage: what a table of ``fleche.toml`` says of them, as keys that sign."""

from __future__ import annotations

from fleche.parcel import Packing

__all__ = ["keys_of"]


def keys_of(secret_key: str | list[str] | None) -> tuple[bytes, ...]:
    """Return the secrets of a storage: the first signs, all are accepted.

    Args:
        secret_key: one secret or several; if there are none, those of ``FLECHE_SECRET_KEY`` count.

    Raises:
        ValueError: one of them is empty.
    """
    secrets = [secret_key] if isinstance(secret_key, str) else secret_key or []
    if "" in secrets:
        raise ValueError("secret_key: an empty secret signs nothing; leave it out")
    return Packing(keys=tuple(map(str.encode, secrets))).with_environment().keys
