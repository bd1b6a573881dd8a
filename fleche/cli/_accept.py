"""``fleche accept``."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from fleche.cli import _format as form
from fleche.cli._options import Session, common
from fleche.cli._selection import no_call_of

if TYPE_CHECKING:
    from fleche.decorator import Accepted, Wrapper

__all__ = ["accept"]

MAIN = "__main__"


@click.command()
@click.argument("name", metavar="[MODULE|FILE:]NAME")
@click.option("--module", metavar="MODULE|FILE", help="Where the function is.")
@click.option("--dry-run", is_flag=True, help="Only say how many stored calls that would be.")
@click.option("--undo", is_flag=True, help="Take back what was accepted for this function.")
@common
def accept(session: Session, name: str, module: str | None, dry_run: bool, undo: bool) -> int:
    """Keep results though code has changed.

    After a change that computes the same (another name, a faster loop), say so: what has changed
    since the newest stored call of function NAME counts as what it was. Its stored calls are hits
    again, and so are those of every other function that uses the same changed code.

    \b
    fleche accept energy                      where its stored calls say that it is
    fleche accept energy --module study.eos   a module, of this directory as well
    fleche accept study.py:energy --dry-run   a file; its main part does not run

    The module is imported. The exit status is 1 if there was nothing to accept. --json prints one
    document: function, calls, accepted (each: now, then), others (calls of other functions that use
    what was accepted, by name), dry_run. With --undo: function, undone (a number).
    """  # noqa: D301 (to click, it keeps the lines below as they are)
    place, _, name = name.rpartition(":")
    places = {call.module for call in session.reached.query(name=name)} - {None}
    if not (module or place or places):
        raise click.ClickException(no_call_of([name], session.reached))
    found_in = _module(module or place, name, places)
    function = _function(name, found_in, module or place or found_in.__name__)
    from fleche.decorator import accept_code, take_back

    if undo:
        return _print_undone(session, function, take_back(function, cache=session.reached))
    found = accept_code(function, cache=session.reached, dry_run=dry_run)
    if session.json:
        session.screen.document(
            {
                "function": f"{function.spec.info.module}.{name}",
                "calls": found.calls,
                "accepted": [{"now": row.now, "then": row.then} for row in found.rows],
                "others": dict(found.others.most_common()),
                "dry_run": dry_run,
            }
        )
    elif found.calls or found.rows:
        _print(session, name, found, dry_run)
    else:
        session.screen.say(_nothing(function, sorted(filter(None, places))))
    return 0 if found.calls or found.rows else 1


def _print_undone(session: Session, function: Wrapper[..., Any], undone: int) -> int:
    info = function.spec.info
    if session.json:
        session.screen.document({"function": f"{info.module}.{info.name}", "undone": undone})
    elif undone:
        session.screen.say(f"took back {form.count(undone, 'acceptance')} of {info.name}()")
    else:
        session.screen.say(f"nothing was accepted for {info.name}()")
    return 0 if undone else 1


def _nothing(function: Wrapper[..., Any], places: list[str]) -> str:
    """Say why there is nothing to accept: perhaps the stored calls are of another module."""
    name, module = function.spec.info.name, function.spec.info.module
    if not places or module in places or "module" in function.spec.unhashed:
        return f"nothing to accept: no stored call of {name}() is of other code"
    hint = f"name its file, as in FILE.py:{name}" if MAIN in places else "--module says which"
    there = " and ".join(places)
    return (
        f"nothing to accept: the stored calls of {name}() are of {there}, not of {module}; {hint}. "
        f"If it has moved: cache().save_as(call, module={module!r}) for each of its calls"
    )


def _print(session: Session, name: str, found: Accepted, dry_run: bool) -> None:
    screen = session.screen
    verb = "would be a hit again" if found.calls == 1 else "would be hits again"
    if not dry_run:
        verb = "is a hit again" if found.calls == 1 else "are hits again"
    screen.say(f"{form.count(found.calls, 'call')} of {name}() {verb}", "green")
    parts = sorted({label for row in found.rows for label in (*row.now, *row.then)})
    if parts:
        shown = [form.printable(part.partition(":")[2]) for part in parts[:5]]
        more = f", {len(parts) - 5} more" if len(parts) > 5 else ""
        said = "would be accepted" if dry_run else "accepted"
        screen.say(f"{said}: {', '.join(shown)}{more}")
    if found.others:
        screen.say("stored calls of other functions that use that, too:")
        screen.pairs(((each, f"{n:,}") for each, n in found.others.most_common()), indent=2)


def _module(place: str | None, name: str, stored: Iterable[str | None]) -> ModuleType:
    """Return the module of a function, imported.

    Args:
        place: a module, or a file; the modules of stored calls count, if not given.
        name: of the function.
        stored: modules of its stored calls.
    """
    known = sorted(filter(None, stored))
    if not place:
        if len(known) > 1:
            raise click.ClickException(
                f"calls of {name}() are stored of {' and '.join(known)}; --module says which"
            )
        place = known[0]
        if place == MAIN:
            raise click.ClickException(
                f"{name} is of a program ({MAIN}): name its file, as in FILE.py:{name}"
            )
    if place.endswith(".py") or os.sep in place:
        return _of_file(Path(place), known)
    sys.path.insert(0, os.getcwd())
    return _imported(place, partial(import_module, place))  # type: ignore[no-any-return]


def _of_file(path: Path, known: Iterable[str]) -> ModuleType:
    """Import a file as the module of which calls are stored, or else as a program."""
    if not path.is_file():
        raise click.ClickException(f"there is no file {path}")
    parts = path.absolute().with_suffix("").parts
    for module in known:
        names = tuple(module.split("."))
        if parts[-len(names) :] == names:
            sys.path.insert(0, str(Path(*parts[: -len(names)])))
            return _imported(module, partial(import_module, module))  # type: ignore[no-any-return]
    # a module of this name is the program, to fleche as to multiprocessing; its main part does
    # not run
    sys.path.insert(0, str(path.absolute().parent))
    spec = importlib.util.spec_from_file_location("__mp_main__", path)
    if spec is None or spec.loader is None:
        raise click.ClickException(f"{path} is no file of Python")
    made = sys.modules["__mp_main__"] = importlib.util.module_from_spec(spec)
    _imported(str(path), partial(spec.loader.exec_module, made))
    return made


def _imported(what: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except SystemExit as error:
        raise click.ClickException(
            f"{what} ends the program when it is imported ({error!r}); what only the program is to "
            "do belongs below: if __name__ == '__main__':"
        ) from None
    except Exception as error:  # noqa: BLE001 (importing runs any code)
        kind = type(error).__name__
        raise click.ClickException(f"{what} cannot be imported: {kind}: {error}") from None


def _function(name: str, module: ModuleType, where: str) -> Wrapper[..., Any]:
    """Return a decorated function.

    Args:
        name: its qualified name.
        module: where it is.
        where: what the module was called where the command was typed.
    """
    from fleche.decorator import Wrapper

    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if type(found) is Wrapper:
        return found
    what = "has no function" if found is None else "has no function that @fleche decorates:"
    there = sorted(each for each, value in vars(module).items() if type(value) is Wrapper)
    known = f"; it has {', '.join(there)}" if there else ""
    raise click.ClickException(f"{where} {what} {name}{known}")
