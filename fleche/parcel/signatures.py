"""Signatures by secrets, of which there may be several: the first one signs, all are accepted."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from fleche.errors import SignatureError

__all__ = ["SIGNATURE", "check_signature", "sign"]

SIGNATURE = 32
"""The length of a signature in bytes."""


def sign(covered: bytes, keys: Sequence[bytes]) -> bytes:
    """Return the signature of ``covered``, an HMAC-SHA256; empty if there are no keys.

    What is signed says at its beginning what kind of thing it is, so that the signature of one
    thing cannot pass for that of another.
    """
    return hmac.digest(keys[0], covered, "sha256") if keys else b""


def check_signature(covered: bytes, signature: bytes, keys: Sequence[bytes], name: str) -> None:
    """Check that one of ``keys`` signed ``covered``.

    Args:
        covered: what must have been signed.
        signature: what :func:`sign` returned for it; empty if it is not signed.
        keys: secrets; one of them is enough.
        name: where it comes from, for the error.

    Raises:
        SignatureError: it is not signed, or none of ``keys`` did it.
    """
    if not signature:
        raise SignatureError(f"{name}: not signed, and a secret_key is configured; refused")
    for key in keys:
        if hmac.compare_digest(sign(covered, (key,)), signature):
            return
    raise SignatureError(f"{name}: signed by a key that is not configured here; refused")
