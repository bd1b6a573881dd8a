"""Writing the page: the data of a study, the page's own code, and the charting library, in one."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from fleche._util import __version__, home_shortened, replace_file
from fleche.caches import BaseCache
from fleche.call import LazyCall, QueryCall
from fleche.errors import StorageError
from fleche.report._previews import Trust, add_previews
from fleche.report._study import MOST_CALLS, Study

__all__ = ["WrittenReport", "write_report"]

_SCRIPTS = ("tools.js", "charts.js", "lineage.js", "table.js", "detail.js", "page.js")
_LICENCE = "LICENSE-echarts.txt"


@dataclass(frozen=True)
class WrittenReport:
    """What :func:`write_report` has written.

    Attributes:
        path: of the file.
        calls: how many calls the figures of the page are about.
        shown: how many of them, the newest, are in its table and plots.
        previews: how many results can be looked at.
        bytes: size of the file.
    """

    path: Path
    calls: int
    shown: int
    previews: int
    bytes: int


def write_report(
    cache: BaseCache,
    path: str | os.PathLike[str],
    query: QueryCall | Iterable[LazyCall] | None = None,
    *,
    title: str | None = None,
    previews: Trust = "plain",
    most_calls: int = MOST_CALLS,
) -> WrittenReport:
    """Write a page about stored calls to a file, which needs no network to be opened.

    Sums, charts and the methods paragraph are about all calls; the table and the plots show the
    newest. What records hold appears as text and is never interpreted.

    Args:
        cache: where the calls are.
        path: of the file, which is replaced; ``~`` is expanded.
        query: which calls: a template, or any iterable of calls of ``cache``; all, if not given.
        title: of the page; by default the name of the file.
        previews: which results are opened to be looked at: ``"plain"`` ones (numbers, text,
            containers, arrays and tables; nothing that is stored is run), ``"all"`` (figures too;
            as in ``call.result``, opening a value may run what is stored with it), or ``"none"``.
        most_calls: so many calls are in the table and the plots; each adds some 300 bytes.

    Raises:
        ValueError: ``previews`` or ``most_calls`` is impossible.
        StorageError: the file cannot be written.
        FlecheError: the calls cannot be read.
    """
    if previews not in ("plain", "all", "none"):
        raise ValueError(f'previews={previews!r}: "plain", "all" or "none"')
    if most_calls < 1:
        raise ValueError(f"most_calls={most_calls!r}: at least 1")
    target = Path(path).expanduser()
    calls = cache.query(query) if query is None or isinstance(query, QueryCall) else query
    study = Study(_sizes(cache), most_calls).read(calls)
    study.add_usage(cache.usage())
    study.name_keys()
    opened = add_previews(study, cache, previews)
    source = home_shortened(repr(cache))[:200]  # a page is passed on
    data = study.to_data(title=title or target.stem, source=source, version=__version__)
    page = _page(data).encode("utf-8", "backslashreplace")
    try:
        replace_file(target, page)
    except OSError as error:
        raise StorageError(f"{target}: the report cannot be written: {error}") from error
    return WrittenReport(target, study.total, len(study.calls), opened, len(page))


def _sizes(cache: BaseCache) -> dict[str, float]:
    """Return the bytes of each call that is on this machine, those of all layers together."""
    found: defaultdict[str, float] = defaultdict(float)
    for each in cache.disk_usage().calls:
        found[each.key] += each.bytes
    return found


def _page(data: dict[str, Any]) -> str:
    """Return the page; only its own two scripts may run, and nothing may be loaded."""
    library = _static("echarts.min.js")
    code = "\n".join(chain(['"use strict";(() => {'], map(_static, _SCRIPTS), ["})();"]))
    parts = {
        "title": escape(str(data["title"])),
        "style": _static("page.css"),
        "library": library,
        "code": code,
        "data": _as_script(data),
        "licence": escape(_static(_LICENCE)),
        "policy": (
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
            f"script-src {_hash(library)} {_hash(code)}"
        ),
    }
    page = _static("page.html")
    for name, text in parts.items():
        head, found, tail = page.partition(f"<!--{name}-->")
        assert found, name
        page = f"{head}{text}{tail}"
    return page


def _as_script(data: dict[str, Any]) -> str:
    """Return data as JSON that cannot end the script element round it, whatever it holds."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _static(name: str) -> str:
    return (files("fleche.report") / "static" / name).read_text(encoding="utf-8")
