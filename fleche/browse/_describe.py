"""Calls as text, which is never taken for markup, and has no control characters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from rich.text import Text

from fleche._amounts import count, shown_bytes, shown_float, shown_seconds
from fleche._columns import printable
from fleche.call import MANY_PARTS, CallRecord, LazyCall, ValueRef, parts_of
from fleche.digest import shown_digest

__all__ = [
    "arguments_of",
    "details_of",
    "result_of",
    "value_text",
    "when",
    "where_of",
]

_MOST_ITEMS = 60
_LONG_NUMBER = re.compile(r"-?\d+\.\d{7,}(?:e[-+]?\d+)?")
_LONGEST_VALUE = 20_000
_WIDTH = 90  # of a value on a screen of usual width


def _ref_text(ref: ValueRef | None) -> str:
    if ref is None:
        return ""
    shown = ref.shown
    if isinstance(shown, msgspec.UnsetType):
        return shown_digest(ref.digest)
    if isinstance(shown, float):
        return shown_float(shown, 7)
    if ref.is_literal:
        return printable(repr(shown))
    return _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.7g}", printable(str(shown)))


def arguments_of(record: CallRecord) -> str:
    """Return the arguments as they are written in a call."""
    return ", ".join(
        f"{printable(name)}={_ref_text(ref)}" for name, ref in record.arguments.items()
    )


def result_of(record: CallRecord) -> str:
    """Return the result, or what was raised."""
    return _ref_text(record.result) if record.error is None else f"raised {_ref_text(record.error)}"


def where_of(record: CallRecord) -> str:
    """Return account and machine, as far as they are known."""
    runtime = record.metadata.get("runtime") or {}
    parts = (runtime.get(name) for name in ("user", "host"))
    return printable("@".join(part for part in parts if isinstance(part, str) and part))


def when(record: CallRecord) -> str:
    """Return when a call began, in the zone of this machine."""
    found = record.began
    return "" if found is None else f"{found.astimezone():%Y-%m-%d %H:%M}"


def details_of(call: LazyCall) -> Text:
    """Return all that is known of a call, by the record alone."""
    text = Text()
    record = call.record
    text.append(printable(record.name), "bold")
    text.append(f"  {printable(record.module or '')}\n", "dim")
    for heading, pairs in _sections(call):
        found = [(name, value) for name, value in pairs if value]
        if not found:
            continue
        text.append(f"\n{heading}\n", "bold cyan")
        width = min(max(len(name) for name, _ in found), 18)
        for name, value in found:
            text.append(f"  {name:<{width}}  ", "dim")
            text.append(f"{value}\n")
    return text


def _sections(call: LazyCall) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    record = call.record
    yield "Arguments", [(printable(name), _ref_text(ref)) for name, ref in record.arguments.items()]
    yield "Result", _result(record)
    stored = sum(ref.size for ref in record.values() if ref.variant)
    yield (
        "Record",
        [
            ("key", str(call.key[:16])),
            ("version", "" if record.version is None else printable(str(record.version))),
            ("started", when(record)),
            ("took", shown_seconds(record.duration)),
            ("where", where_of(record)),
            ("values", shown_bytes(stored) if stored else ""),
            ("calls", str(len(record.children)) if record.children else ""),
        ],
    )
    metadata = record.metadata
    for name, fields in metadata.items():
        if name not in ("runtime", "environment") and isinstance(fields, Mapping):
            yield printable(name).capitalize(), _items(fields)
    environment = metadata.get("environment") or {}
    packages = environment.get("packages")
    yield (
        "Packages",
        [
            ("python", printable(str(environment.get("python") or ""))),
            *_items(packages if isinstance(packages, Mapping) else {}),
        ],
    )
    code = [("digest", (record.code or "")[:16])]
    many = f"more than {MANY_PARTS} parts, which fleche show lists" if record.covered else ""
    parts = ", ".join([*parts_of(record.dependencies)][:_MOST_ITEMS])
    code.append(("covers", many or printable(parts)))
    yield "Code", code


def _result(record: CallRecord) -> list[tuple[str, str]]:
    ref = record.result or record.error
    if ref is None:
        return []
    return [
        ("value" if record.error is None else "raised", _ref_text(ref)),
        ("type", printable(ref.type)),
        ("size", shown_bytes(ref.size) if ref.size else ""),
    ]


def _items(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (printable(str(name)), printable(str(value)))
        for name, value in list(fields.items())[:_MOST_ITEMS]
    ]


def value_text(value: Any) -> str:
    """Return the beginning of a plain value: rows of a table, numbers of an array, a dict."""
    import pprint
    import sys

    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame | pandas.Series):
        head = value.head(40)
        wide = {"line_width": _WIDTH} if isinstance(head, pandas.DataFrame) else {}
        shape = " \N{MULTIPLICATION SIGN} ".join(map(str, value.shape))
        found = f"{head.to_string(**wide)}\n\n{shape} in all"
    elif numpy is not None and isinstance(value, numpy.ndarray):
        shown = numpy.array2string(value, threshold=400, edgeitems=4, max_line_width=_WIDTH)
        found = f"{value.dtype}[{', '.join(map(str, value.shape))}]\n\n{shown}"
    elif isinstance(value, str):
        found = value[:_LONGEST_VALUE]
    elif isinstance(value, bytes | bytearray):
        found = f"{count(len(value), 'byte')}\n\n{bytes(value[:2000])!r}"
    else:
        found = pprint.pformat(value, width=_WIDTH, compact=True)
    return "\n".join(printable(line.expandtabs()) for line in found[:_LONGEST_VALUE].split("\n"))
