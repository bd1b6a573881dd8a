"""Small pieces of HTML for notebooks, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

__all__ = ["facts", "grid", "paragraph"]


_WIDEST = 60
"""Characters of a cell that are shown: of more, the columns beside it would not be seen."""


def grid(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with a line of names above its rows; what is cut shows under the mouse."""
    names = "".join(f"<th>{_escape(str(name))}</th>" for name in head)
    lines = "".join("<tr>" + "".join(_cell(str(cell)) for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table>"


def _cell(text: str) -> str:
    if len(text) <= _WIDEST:
        return f"<td>{_escape(text)}</td>"
    return f'<td title="{_escape(text)}">{_escape(text[: _WIDEST - 3])}...</td>'


def facts(title: str, found: Mapping[str, object]) -> str:
    """Return a table with a name and a value in each row, under a title."""
    lines = "".join(
        f"<tr><th>{_escape(name)}</th><td>{_escape(str(value))}</td></tr>"
        for name, value in found.items()
    )
    return f"<p><b>{_escape(title)}</b></p><table><tbody>{lines}</tbody></table>"


def paragraph(text: str, details: str = "") -> str:
    """Return a paragraph, and below it what is to be shown with its lines as they are."""
    below = f"<pre>{_escape(details)}</pre>" if details else ""
    return f"<p>{_escape(text)}</p>{below}"


def _escape(text: str) -> str:
    import html  # by no hit

    return html.escape(text)
