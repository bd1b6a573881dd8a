"""What is only the name of something: of data in a file or a store, or of itself.

Such an object has no digest: the data may be written to between two calls, and the object would
still be the same.
"""

from __future__ import annotations

from typing import Any

from fleche.digest.science._parts import Parts, parts, refuse

CONTENT = "or its path as Content[Path], and open it inside the function"


@parts
def stored_array(obj: Any) -> Parts:
    raise refuse(
        obj,
        "it only names data in a file or a store",
        f"pass the values, array[:] or group['name'][:], {CONTENT}",
    )


@parts
def lazy_frame(obj: Any) -> Parts:
    raise refuse(
        obj,
        "it is a plan, which may read files when it is carried out",
        f"pass frame.collect(), {CONTENT}",
    )


@parts
def lazy_graph(obj: Any) -> Parts:
    raise refuse(
        obj,
        "it is a graph of tasks, which may read files when they are carried out",
        f"pass the result of .compute(), {CONTENT}",
    )


@parts
def lazy_table(obj: Any) -> Parts:
    raise refuse(
        obj, "it only names files", f"pass the table that it reads, .to_table(), {CONTENT}"
    )


@parts
def open_table(obj: Any) -> Parts:
    raise refuse(obj, "it only names a file", f"pass the table that it reads, .read(), {CONTENT}")


@parts
def database(obj: Any) -> Parts:
    raise refuse(
        obj,
        "it only names a database",
        f"pass the rows or the atoms that it holds, {CONTENT}",
    )


@parts
def trajectory(obj: Any) -> Parts:
    raise refuse(obj, "it only names a file", f"pass the list of its frames, {CONTENT}")


@parts
def file_handle(obj: Any) -> Parts:
    raise refuse(obj, "it only names a file", f"pass what is read from it, {CONTENT}")


@parts
def temporary_directory(obj: Any) -> Parts:
    raise refuse(
        obj,
        "it only names a directory, which goes when it goes",
        "pass its path, obj.name; return fleche.File(path) of a file in it, or what is in that",
    )


@parts
def uncertain_number(obj: Any) -> Parts:
    """Refuse a number with an uncertainty: which other numbers it depends on is its meaning."""
    raise refuse(
        obj,
        "its correlations with other numbers are known by identity only",
        "pass its nominal_value and std_dev, or the values with covariance_matrix()",
    )
