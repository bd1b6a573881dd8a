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
from scripts.benchmarks.measure import Benchmark, Contender, Setting, Suite, Target, Task
from scripts.benchmarks.peers import Remembered, take_turns

__all__ = ["BENCHMARKS", "hashed"]

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
    title = f"the key of an array of {array.nbytes / MB:g} MB"
    targets = (Target("fleche", "blake3", 1.05),)
    return Benchmark(title, [*digesters(array), *raw], "fleche", targets=targets)


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
    targets = (Target("fleche", "pickle, SHA-256", 1.0),)
    return Benchmark(title, digesters(frame), "fleche", targets=targets)


def leaves(value: Any) -> int:
    """Return next to nothing, of an argument that is much."""
    return len(value)


def nested(setting: Setting, *, mixed: bool = False) -> Benchmark:
    """Build: a hit with an argument of 122,221 leaves, or with objects of numpy in each record."""
    value = [record(number, mixed=mixed) for number in range(setting.size(11_111, 5))]

    def work(remembered: Remembered) -> Task:
        return partial(remembered.call, value)

    contenders = take_turns(setting, leaves, work, ("fleche", "joblib", "diskcache"))
    number = len(value) * (13 if mixed else 11)
    what = f"{number} leaves" + (", one np.float64 and one array a record" if mixed else "")
    targets = (Target("fleche", "joblib", 0.5 if mixed else 0.1),)
    return Benchmark(f"a hit with a nested argument, {what}", contenders, "fleche", targets=targets)


def record(number: int, *, mixed: bool) -> dict[str, Any]:
    """Return eleven leaves: numbers, texts, truth values, ``None``."""
    made: dict[str, Any] = {
        "id": number,
        "name": f"atom {number}",
        "position": [number / 3, number / 5, number / 7],
        "charge": -number,
        "tags": ("bulk", None, number % 2 == 0),
        "site": {"x": number % 10, "y": number // 10},
    }
    if mixed:
        made |= {"energy": np.float64(number / 11), "force": np.full(3, number / 13)}
    return made


BENCHMARKS: Suite = {
    "digest-array": digest_array,
    "digest-dict": digest_dict,
    "digest-frame": digest_frame,
    "nested": nested,
    "nested-mixed": partial(nested, mixed=True),
}
