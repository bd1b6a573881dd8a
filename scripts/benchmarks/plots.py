"""Drawings of what was measured, as SVG that needs nothing to be drawn with.

``targets.svg`` shows each target as a bar: how much of what it allows was taken. ``sizes.svg``
shows what a hit costs against the size of its result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from scripts.benchmarks.report import amount, rounded

__all__ = ["draw"]

WIDTH, ROW, LEFT, MOST = 860, 22, 430, 2.0
COLOURS = ("#2a6f97", "#c26a2d", "#6b8f3c", "#7a5195")
GOOD, BAD = "#3c8d5a", "#c0504d"
STYLE = "font-family: sans-serif; font-size: 12px; fill: #555"


def draw(report: Sequence[Mapping[str, Any]], directory: Path) -> None:
    """Write the drawings for which there is something in the report.

    Args:
        report: the benchmarks, as ``--json`` has them.
        directory: where to; it is made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rows = [(found, each) for found in report for each in found["targets"]]
    if rows:
        (directory / "targets.svg").write_text(bars(rows))
    for found in report:
        if found["name"] == "hits-by-size":
            (directory / "sizes.svg").write_text(curves(found))


def picture(width: int, height: int, parts: Sequence[str]) -> str:
    """Return an SVG document."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" style="{STYLE}">'
    )
    return "\n".join((head, *parts, "</svg>\n"))


def text(x: float, y: float, content: str, anchor: str = "start", colour: str = "#555") -> str:
    """Return some text."""
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(content)}</text>"
    )


def bars(rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    """Return the drawing of the targets: the line in the middle is what they allow."""
    scale = (WIDTH - LEFT - 60) / MOST
    height = ROW * (len(rows) + 2)
    middle = LEFT + scale
    parts = [
        text(middle, 14, "allowed", "middle"),
        f'<line x1="{middle}" y1="20" x2="{middle}" y2="{height - 6}" stroke="#888"/>',
    ]
    for number, (found, each) in enumerate(rows):
        share = max(each["value"] / each["most"], 0.0)
        top = ROW * (number + 1) + 4
        colour = GOOD if share <= 1 else BAD
        most = amount(each["most"], found["unit"]) if each["added"] else f"{each['most']:g}"
        over = " over " if each["added"] else " of "
        label = f"{found['name']}: {each['contender']} \u2264 {most}{over}{each['reference']}"
        shown = amount(each["value"], found["unit"]) if each["added"] else rounded(each["value"])
        width = scale * min(share, MOST)
        parts += [
            text(LEFT - 8, top + 12, label, "end"),
            f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{ROW - 6}" fill="{colour}"/>',
            text(LEFT + width + 6, top + 12, shown),
        ]
    return picture(WIDTH, height, parts)


def curves(found: Mapping[str, Any]) -> str:
    """Return the drawing of cost against size, both in powers of ten."""
    points: dict[str, list[tuple[float, float]]] = {}
    for who in found["contenders"]:
        name, _, size = who["name"].rpartition(", ")
        at = math.log10(int(size.split()[0])), math.log10(median(who["samples"]))
        points.setdefault(name, []).append(at)
    every = [point for curve in points.values() for point in curve]
    left, right = (f(x for x, _ in every) for f in (min, max))
    low, high = math.floor(min(y for _, y in every)), math.ceil(max(y for _, y in every))
    across = 620 / (right - left)
    down = 300 / (high - low)

    def place(x: float, y: float) -> tuple[float, float]:
        return 70 + (x - left) * across, 320 - (y - low) * down

    parts = []
    for power in range(low, high + 1):
        _, y = place(left, power)
        parts.append(f'<line x1="70" y1="{y:.0f}" x2="690" y2="{y:.0f}" stroke="#ccc"/>')
        parts.append(text(64, y + 4, amount(10.0**power, "s"), "end"))
    for power in range(math.ceil(left), math.floor(right) + 1):
        x, _ = place(power, low)
        parts.append(text(x, 340, amount(10.0**power, "B"), "middle"))
    below = -math.inf  # the last name; curves may end in one point
    drawn = zip(points.items(), COLOURS, strict=False)
    for (name, curve), colour in sorted(drawn, key=lambda each: -max(each[0][1])[1]):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in sorted(curve)))
        x, y = place(*max(curve))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        below = max(y + 4, below + 14)
        parts.append(text(x + 6, below, name, colour=colour))
    return picture(780, 350, parts)
