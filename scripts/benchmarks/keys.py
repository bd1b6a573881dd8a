"""What it takes to tell one value from another: keys of large and of many small things."""

from __future__ import annotations

import hashlib
import pickle
from functools import partial
from typing import Any

import joblib
import numpy as np
from blake3 import blake3

from fleche import digest
from scripts.benchmarks.afresh import large
from scripts.benchmarks.measure import Benchmark, Contender, Setting

__all__ = ["digest_array", "digest_dict", "digest_frame", "hashed"]

MB = 1_000_000


def hashed(content: bytes | memoryview) -> bytes:
    """Return the BLAKE3, computed by all cores."""
    return blake3(content, max_threads=blake3.AUTO).digest()


def digesters(value: Any) -> list[Contender]:
    """Return the ways to make a key of ``value``."""
    return [
        Contender("fleche", partial(digest, value), note="fleche.digest, BLAKE3"),
        Contender("joblib", partial(joblib.hash, value), note="joblib.hash, MD5"),
        Contender("pickle, SHA-256", partial(pickled_hash, value), note="as cachier does"),
    ]


def pickled_hash(value: Any) -> str:
    """Return the key that cachier makes by default."""
    return hashlib.sha256(pickle.dumps(value)).hexdigest()


def digest_array(setting: Setting) -> Benchmark:
    """Build: the digest of a large array."""
    array = large(setting.size(100 * MB, 80_000))
    content = array.tobytes()
    raw = [
        Contender("blake3", partial(hashed, content), note="all cores"),
        Contender("blake3, one core", lambda: blake3(content).digest()),
        Contender("MD5", lambda: hashlib.md5(content).digest()),
    ]
    return Benchmark(
        f"the key of an array of {array.nbytes / MB:g} MB", [*digesters(array), *raw], "fleche"
    )


def digest_dict(setting: Setting) -> Benchmark:
    """Build: the digest of many small things."""
    names = [f"key {number}" for number in range(setting.size(1000, 5))]
    value = {name: [number, number / 3, name] for number, name in enumerate(names)}
    return Benchmark(f"the key of a dict of {len(names)} lists", digesters(value), "fleche")


def digest_frame(setting: Setting) -> Benchmark:
    """Build: the digest of a data frame."""
    import pandas as pd

    rows = setting.size(100_000, 10)
    columns: dict[str, Any] = {f"x{i}": large(rows * 8) for i in range(6)}
    columns["n"] = np.arange(rows)
    columns["label"] = [f"label {number % 97}" for number in range(rows)]
    frame = pd.DataFrame(columns)
    title = f"the key of a data frame of {rows} rows: 6 of float, 1 of int, 1 of text"
    return Benchmark(title, digesters(frame), "fleche")
