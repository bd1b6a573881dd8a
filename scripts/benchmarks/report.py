"""What was measured, as text for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from scripts.benchmarks.measure import Benchmark, Outcome

__all__ = ["as_json", "as_page", "as_text", "machine", "target_lines"]

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def as_text(name: str, benchmark: Benchmark, outcomes: Sequence[Outcome]) -> str:
    """Return the ratios as a table, then the medians, then the settings."""
    rounds = len(outcomes[0].samples)
    lines = [f"{name}: {benchmark.title}", f"  ratio to {benchmark.reference}, {rounds} rounds"]
    lines += [f"    {line}" for line in _aligned([_ratio_row(found) for found in outcomes])]
    lines += [f"  {line}" for line in target_lines(benchmark, outcomes)]
    unit = benchmark.measure.unit
    medians = [f"{o.contender} {amount(median(o.samples), unit)}" for o in outcomes]
    lines.append(f"  medians, which mean nothing on another machine: {', '.join(medians)}")
    notes = [f"{found.contender}: {found.note}" for found in outcomes if found.note]
    lines += [f"  with {'; '.join(notes)}"] if notes else []
    return "\n".join(lines) + "\n"


def target_lines(benchmark: Benchmark, outcomes: Sequence[Outcome]) -> list[str]:
    """Return a line for each target: what it is, what was measured, and whether it is reached."""
    lines = []
    for each in _targets(benchmark, outcomes):
        most, found, mark, least = _told(each, benchmark.measure.unit)
        possible = f" ({each['least']}: {least})" if least else ""
        lines.append(f"target: {each['contender']} \u2264 {most}: {found}, {mark}{possible}")
    return lines


def _targets(benchmark: Benchmark, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return each target with what was measured of it, as plain data."""
    return [
        {
            **asdict(each),
            "value": each.value(outcomes),
            "possible": each.value(outcomes, each.least) if each.least else None,
        }
        for each in benchmark.targets
    ]


def _told(target: Mapping[str, Any], unit: str) -> tuple[str, str, str, str]:
    """Return what a target allows, what was measured, whether it is reached, and what could be."""
    value, most, possible = target["value"], target["most"], target.get("possible")

    def told(number: float) -> str:
        if target["added"]:
            return f"{amount(number, unit)} over {target['reference']}"
        return rounded(number)

    bound = told(most) if target["added"] else f"{most:g} of {target['reference']}"
    mark = "reached" if value <= most else "not reached"
    return bound, told(value), mark, "" if possible is None else told(possible)


def as_page(report: Sequence[Mapping[str, Any]]) -> str:
    """Return the targets of benchmarks, as ``--json`` has them, as a table in Markdown."""
    where = report[0]["machine"]
    rounds = max(len(each["samples"]) for found in report for each in found["contenders"])
    rows = [("work", "of", "target, at most", "measured", "", "bare")]
    rows += [
        (found["title"], each["contender"], *_told(each, found["unit"]))
        for found in report
        for each in found["targets"]
    ]
    table = [f"| {' | '.join(row)} |" for row in rows]
    table.insert(1, "|---" * len(rows[0]) + "|")
    told = (
        f"On {where['processor']}, {where['cores']} cores, {where['system']}, Python "
        f"{where['python']}; medians of up to {rounds} rounds, in turns."
    )
    return "\n".join(["<!-- written by scripts/bench --page -->", "", told, "", *table, ""])


def _ratio_row(found: Outcome) -> list[str]:
    low, high = found.spread
    return [found.contender, rounded(found.ratio), f"({rounded(low)} to {rounded(high)})"]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    first, second, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [f"{name:<{first}}  {ratio:>{second}}  {spread}" for name, ratio, spread in rows]


def rounded(ratio: float) -> str:
    """Return a ratio with the digits that are worth something."""
    if not 0.1 <= ratio < 10:
        return f"{ratio:.2g}" if ratio < 0.1 else f"{ratio:.0f}"
    return f"{ratio:.2f}"


def amount(number: float, unit: str) -> str:
    """Return a number with three digits and a prefix: ``3.21 ms``."""
    if not unit or not number:
        return f"{number:g} {unit}".strip()
    scale, prefix = next((p for p in _PREFIXES if abs(number) >= p[0]), _PREFIXES[-1])
    return f"{number / scale:.3g} {prefix}{unit}"


def machine() -> dict[str, Any]:
    """Return what there is to know about where this runs, but for its name."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "system": platform.system(),
    }


def _processor() -> str:
    """Return what the processor calls itself; where it does not say so, of which kind it is."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.machine()


def as_json(name: str, benchmark: Benchmark, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return one benchmark as plain data."""
    return {
        "name": name,
        "title": benchmark.title,
        "reference": benchmark.reference,
        "unit": benchmark.measure.unit,
        "machine": machine(),
        "targets": _targets(benchmark, outcomes),
        "contenders": [
            {
                "name": found.contender,
                "note": found.note,
                "ratio": found.ratio,
                "quartiles": found.spread,
                "samples": found.samples,
            }
            for found in outcomes
        ],
    }
