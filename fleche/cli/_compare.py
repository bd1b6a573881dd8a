"""``fleche diff`` and ``fleche tree``."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from fleche.call import CallTree, LazyCall, ValueRef
from fleche.cli import _format as form
from fleche.cli._options import Session, common, everywhere
from fleche.cli._screen import Column
from fleche.cli._selection import find_call, key_argument
from fleche.comparison import CallComparison, Differing, compare_calls
from fleche.digest import short_key

__all__ = ["diff", "tree"]


# -- diff ------------------------------------------------------------------------------------------


@click.command()
@key_argument("first")
@key_argument("second")
@click.option("--values", is_flag=True, help="Load what differs, and say where and by how much.")
@common
def diff(session: Session, first: str, second: str, values: bool) -> int:
    """Show in what two calls differ.

    FIRST and SECOND are keys. Arguments, version, code (with the sources, where they are known on
    this machine), packages and result are compared; when and where the calls ran is not.

    The exit status is 1 if nothing differs. --json prints one document: first, second, differing
    (each: kind, name, first, second, remark), code (each: name, kind, what, diff), same.
    """
    calls = find_call(session, first), find_call(session, second)
    found = compare_calls(*calls, values=values)
    if session.json:
        session.screen.document(
            {
                "first": calls[0].key,
                "second": calls[1].key,
                "differing": [
                    {**vars(each), "first": _exact(each.first), "second": _exact(each.second)}
                    for each in found.differing
                ],
                "code": list(map(msgspec.structs.asdict, found.code)),
                "same": list(found.same),
            }
        )
    else:
        _print_comparison(session, *calls, found)
    return 0 if found else 1


def _exact(shown: Any) -> Any:
    return form.exact(shown) if isinstance(shown, ValueRef) else shown


def _print_comparison(
    session: Session, first: LazyCall, second: LazyCall, found: CallComparison
) -> None:
    screen = session.screen
    for mark, call in (("-", first), ("+", second)):
        text = form.printable(f"{call.record.name}({form.arguments(call.record)})")
        screen.title(f"{mark} {text}", short_key(call.key))
    screen.say()
    if not found:
        screen.say("nothing differs", "green")
        return
    screen.table(
        (
            Column("differs", style="bold", least=8),
            Column("first", style="red", least=10),
            Column("second", style="green", least=10),
            Column("", style="dim", least=10, goes=1),
        ),
        [
            (_named(each), _text(each.first), _text(each.second), form.printable(each.remark))
            for each in found.differing
        ],
    )
    if found.same:
        screen.say(f"same: {form.printable(', '.join(found.same))}", "dim")
    for change in found.code:
        screen.say()
        screen.say(f"code: {change} {_WHAT[change.what]}", "bold")
        if change.diff:
            _print_diff(session, change.diff)
        elif change.what == "changed":
            screen.say("  the sources of both are not known on this machine", "dim")


_WHAT = {"changed": "differs", "new": "is in the second alone", "gone": "is in the first alone"}


def _named(each: Differing) -> str:
    return f"package {each.name}" if each.kind == "package" else form.printable(each.name)


def _text(shown: Any) -> str:
    if shown is None:
        return "—"
    return form.value(shown) if isinstance(shown, ValueRef) else form.printable(str(shown))


def _print_diff(session: Session, text: str) -> None:
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in text.splitlines()[2:]:
        safe = line[:1] + form.printable(line[1:])
        session.screen.say(f"  {safe}", styles.get(line[:1], ""))


# -- tree ------------------------------------------------------------------------------------------


@click.command()
@key_argument("key")
@click.option("--used-by", is_flag=True, help="The other way: what used it.")
@click.option("--depth", type=click.IntRange(1), default=4, show_default=True, help="So deep.")
@everywhere
@common
def tree(session: Session, key: str, used_by: bool, depth: int) -> int:
    """Show what a call called, and what used it.

    Below a call stand the cached calls that it made while it ran, those that were hits included.
    With --used-by, those that made it, or got its result as an argument.

    --json prints one document: key, name, arguments, result, seconds, below (the same again).
    """
    call = find_call(session, key)
    root = call.tree(depth=depth, used_by=used_by)
    if session.json:
        session.screen.document(_as_json(root))
        return 0
    from rich.tree import Tree

    picture = Tree(_line(root), guide_style="dim")
    _draw(picture, root)
    session.screen.console.print(picture)
    if not used_by and (users := call.used_by()):
        session.screen.say(f"used by {form.count(len(users), 'call')}; --used-by shows them", "dim")
    return 0


def _draw(picture: Any, node: CallTree) -> None:
    for each in node.children:
        _draw(picture.add(_line(each)), each)


def _line(node: CallTree) -> Any:
    from rich.text import Text

    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{short_key(node.key)} ", "cyan")
    if node.call is None:
        line.append("not stored here", "dim")
        return line
    record = node.call.record
    line.append(form.printable(record.name), "bold")
    line.append(f"({form.arguments(record)})")
    if outcome := form.outcome(record):
        line.append(f" → {outcome}")
    if record.duration is not None:
        line.append(f"  {form.seconds(record.duration)}", "dim")
    if node.is_repeated or node.is_cut:
        line.append("  (see above)" if node.is_repeated else "  …", "dim")
    return line


def _as_json(node: CallTree) -> dict[str, Any]:
    if node.call is None:
        return {"key": node.key}
    record = node.call.record
    return {
        "key": node.key,
        "name": record.name,
        "arguments": {name: form.exact(ref) for name, ref in record.arguments.items()},
        "result": form.exact(record.result),
        "error": form.exact(record.error),
        "seconds": record.duration,
        "below": list(map(_as_json, node.children)),
    }
