"""What can be seen of results: a figure, the first rows of a table, an array as a strip.

To open a value may run code that is stored with it. Unless all are trusted, only plain ones are
opened: numbers, text, containers, arrays and tables, by a reader that refuses everything else.
Few values are opened, none of them large, and for a bounded time.
"""

from __future__ import annotations

import base64
import io
import logging
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeAlias

from fleche.caches import BaseCache
from fleche.call import summarize
from fleche.report._study import Study, function_of

__all__ = ["Trust", "add_previews"]

log = logging.getLogger("fleche.report")

Trust: TypeAlias = Literal["plain", "all", "none"]

_MOST = 300
"""Results that are opened."""

_SECONDS = 20.0
_LARGEST = 32 << 20
"""Bytes of a value that is opened."""

_PAGE = 3 << 20
"""Bytes of all previews together, in the page."""

_IMAGE = 256 << 10
_WIDE, _HIGH = 240, 48
_ROWS, _COLUMNS = 8, 12
_ITEMS = 24
_CELL = 40
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF8": "gif",
}


def add_previews(study: Study, cache: BaseCache, trust: Trust) -> int:
    """Open results and note what can be seen of them; return how many there are.

    Of each function the newest come first, so that every function has some.

    Args:
        study: knows the calls.
        cache: where the values are.
        trust: which results are opened.
    """
    if trust == "none" or (trust == "plain" and cache.capabilities.opens_parcels):
        return 0  # such a cache opens parts of a value by itself, however it is asked
    deadline = time.monotonic() + _SECONDS
    room = _PAGE
    for place in _in_turn(study):
        if time.monotonic() > deadline or room <= 0 or len(study.previews) >= _MOST:
            break
        call = study.calls[place]
        ref = call.record.result
        assert ref is not None
        try:
            value = cache.open_ref(ref, call.entry, plain=trust == "plain")
            found = _preview(value)
        except Exception as error:  # noqa: BLE001 (of any value, and of any class)
            log.debug("call %s: no preview: %s", call.key[:12], error)
            continue
        if found is not None:
            study.previews[place] = found
            room -= len(str(found))
    return len(study.previews)


def _in_turn(study: Study) -> Iterator[int]:
    """Yield the places of calls whose result may be looked at, one of each function in turn."""
    waiting: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, call in enumerate(study.calls):
        ref = call.record.result
        if ref is not None and not ref.is_literal and not ref.type and ref.size <= _LARGEST:
            waiting[function_of(call.record)].append(place)
    rounds = max(map(len, waiting.values()), default=0)
    for number in range(rounds):
        for places in waiting.values():
            if number < len(places):
                yield places[number]


def _preview(value: Any) -> dict[str, Any] | None:
    for maker in (_of_image, _of_figure, _of_frame, _of_array, _of_container, _of_text):
        found = maker(value)
        if found is not None:
            return found
    return None


# -- images ----------------------------------------------------------------------------------------


def _of_image(value: Any) -> dict[str, Any] | None:
    """Show bytes that are an image, and text that is a drawing."""
    if isinstance(value, bytes | bytearray) and len(value) <= _IMAGE:
        for signature, kind in _SIGNATURES.items():
            if value.startswith(signature):
                return _image(bytes(value), kind)
    if isinstance(value, str) and len(value) <= _IMAGE and value.lstrip()[:4] == "<svg":
        return _image(value.encode("utf-8", "replace"), "svg+xml")  # nothing runs inside an <img>
    return None


def _image(content: bytes, kind: str) -> dict[str, Any]:
    return {
        "kind": "image",
        "source": f"data:image/{kind};base64,{base64.b64encode(content).decode()}",
    }


def _of_figure(value: Any) -> dict[str, Any] | None:
    """Draw a figure of matplotlib, or an image of Pillow; such values are opened if all are."""
    figure = getattr(sys.modules.get("matplotlib.figure"), "Figure", ())
    picture = getattr(sys.modules.get("PIL.Image"), "Image", ())
    file = io.BytesIO()
    if isinstance(value, figure):
        value.savefig(file, format="png", dpi=90, bbox_inches="tight")
    elif isinstance(value, picture):
        small = value.convert("RGBA")
        small.thumbnail((640, 480))
        small.save(file, format="png")
    else:
        return None
    return _image(file.getvalue(), "png") if file.tell() <= _IMAGE else None


# -- tables ----------------------------------------------------------------------------------------


def _of_frame(value: Any) -> dict[str, Any] | None:
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(value, pandas.DataFrame | pandas.Series):
        return None
    frame = value.to_frame() if isinstance(value, pandas.Series) else value
    rows, columns = frame.shape
    head = frame.iloc[:_ROWS, :_COLUMNS]
    return {
        "kind": "table",
        "columns": ["", *(_cell(name) for name in head.columns)],
        "rows": [
            [_cell(index), *(_cell(item) for item in row)]
            for index, row in zip(head.index, head.itertuples(index=False), strict=True)
        ],
        "size": [rows, columns],
    }


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else str(summarize(value).shown)
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


# -- arrays ----------------------------------------------------------------------------------------


def _of_array(value: Any) -> dict[str, Any] | None:
    """Show an array as a strip of colours: one dimension as a row, several as rows."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray) or value.dtype.kind not in "biufc":
        return None
    if value.size == 0:
        return None
    flat = numpy.ma.getdata(value)
    flat = flat.reshape(1, -1) if flat.ndim < 2 else flat.reshape(flat.shape[0], -1)
    flat = abs(flat) if flat.dtype.kind == "c" else flat.astype(float)
    finite = flat[numpy.isfinite(flat)]
    if finite.size == 0:
        return None
    low, high = float(finite.min()), float(finite.max())
    picked = flat[_picks(flat.shape[0], _HIGH)][:, _picks(flat.shape[1], _WIDE)]
    span = high - low
    with numpy.errstate(all="ignore"):
        scaled = (picked - low) / span if span > 0 and math.isfinite(span) else picked * 0 + 0.5
        # 255 is no value: not a number, or infinite
        levels = numpy.where(numpy.isfinite(picked), numpy.clip(scaled * 254, 0, 254), 255)
    content = levels.round().astype("uint8").tobytes()
    return {
        "kind": "array",
        "shape": list(value.shape),
        "dtype": str(value.dtype),
        "low": _number(low),
        "high": _number(high),
        "mean": _number(float(finite.mean())),
        "width": picked.shape[1],
        "height": picked.shape[0],
        "levels": base64.b64encode(content).decode(),
        "first": [_number(float(each)) for each in flat.flat[:8]],
    }


def _picks(length: int, most: int) -> Any:
    """Return which of ``length`` places to show, evenly spread."""
    if length <= most:
        return slice(None)
    return [index * length // most for index in range(most)]


def _number(value: float) -> float | str:
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)


# -- containers and text ---------------------------------------------------------------------------


def _of_container(value: Any) -> dict[str, Any] | None:
    if isinstance(value, Mapping) and type(value).__module__ in ("builtins", "collections"):
        items = list(value.items())
        rows = [[_cell(name), _cell(item)] for name, item in items[:_ITEMS]]
    elif type(value) in (list, tuple):
        if numbers := _numbers_of(value):
            numpy = sys.modules.get("numpy")
            return None if numpy is None else _of_array(numpy.asarray(numbers, dtype=float))
        items = list(value)
        rows = [[str(index), _cell(item)] for index, item in enumerate(items[:_ITEMS])]
    else:
        return None
    return {"kind": "table", "columns": None, "rows": rows, "size": [len(items), 1]}


def _numbers_of(value: list[Any] | tuple[Any, ...]) -> list[float] | None:
    if len(value) > _ITEMS and all(type(item) in (int, float) for item in value[:100_000]):
        with suppress(OverflowError):
            return [float(item) for item in value[:100_000]]
    return None


def _of_text(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, str):
        return None
    return {"kind": "text", "text": value[:2000], "size": len(value)}
