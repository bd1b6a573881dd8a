"""``fleche get``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from fleche.call import LazyCall, legible_text
from fleche.cli import _format as form
from fleche.cli._options import OUTPUT_FILE, Session, common
from fleche.cli._selection import NothingFound, find_call, key_argument
from fleche.digest import short_key
from fleche.exchange import SUFFIXES, as_json, write_value

__all__ = ["get"]


@click.command()
@key_argument("key")
@click.option("--arg", metavar="NAME", help="This argument, not the result.")
@click.option("--state", metavar="NAME", help="The state that the call left this argument in.")
@click.option(
    "-o",
    "--output",
    type=OUTPUT_FILE,
    metavar="FILE",
    help=f"Write it there; the suffix says how: {', '.join(SUFFIXES)}.",
)
@common
def get(session: Session, key: str, arg: str | None, state: str | None, output: Path | None) -> int:
    """Print a result, or write it to a file.

    KEY is the key of a call, or the beginning of one. The value is opened, which may need the
    modules of its classes: they are looked for in the working directory, too.

    --json prints the value as JSON, if it has such a form.
    """
    sys.path.append(os.getcwd())
    call = find_call(session, key)
    try:
        value = session.nearest(lambda cache: _value(cache.load(call.key), arg, state))
    except KeyError:
        raise NothingFound(_gone(session, call, arg, state)) from None
    if output is not None:
        write_value(value, output)
        if not session.json:
            session.screen.say(f"{output}: {form.size(output.stat().st_size)}")
            return 0
    if session.json:
        session.screen.document(
            {"file": str(output), "bytes": output.stat().st_size} if output else as_json(value)
        )
    else:
        try:
            text = value if isinstance(value, str) else _text(value)
        except Exception as error:  # noqa: BLE001 (of the value's own class)
            raise click.ClickException(
                f"call {short_key(call.key)}: {type(value).__qualname__} cannot be shown "
                f"({type(error).__name__}: {error}); -o value.pickle writes it to a file"
            ) from None
        click.echo(legible_text(text))
    return 0


def _value(call: LazyCall, arg: str | None, state: str | None) -> Any:
    for kind, name, found in (("argument", arg, call.arguments), ("state", state, call.states)):
        if name is not None:
            if name not in found:
                there = ", ".join(found) or "none"
                raise click.ClickException(
                    f"call {short_key(call.key)} has no {kind} {name!r} (it has: {there})"
                )
            return found[name]
    return call.result


def _gone(session: Session, call: LazyCall, arg: str | None, state: str | None) -> str:
    if arg is None and state is None:
        if call.record.error is not None:
            return f"call {short_key(call.key)} has no result: it raised {call.record.error.text}"
        return f"call {short_key(call.key)}: its result is not in {session.cache!r}: it was evicted"
    what = f"state {state!r}" if arg is None else f"argument {arg!r}"
    return (
        f"call {short_key(call.key)}: its {what} is not in {session.cache!r}: it was evicted, or "
        "is a secret, which is never stored"
    )


def _text(value: Any) -> str:
    import pprint

    if type(value).__module__.partition(".")[0] == "pandas":
        return str(value)
    is_plain = isinstance(value, dict | list | tuple | set | frozenset)
    return pprint.pformat(value, sort_dicts=False) if is_plain else repr(value)
