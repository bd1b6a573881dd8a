"""Why a call would hit or not."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from msgspec import UNSET

from fleche._html import paragraph
from fleche.call import KEY_PARTS, MISSING, CallRecord, LazyCall, ValueRef, as_literal, summarize
from fleche.decorator._effects import changed_files
from fleche.decorator._spec import (
    CallIdentity,
    FunctionSpec,
    StoredCalls,
    describe_changes,
    listed,
)
from fleche.digest import Digest, digest, shown_digest
from fleche.errors import Indigestible, ParcelError
from fleche.function import Change

if TYPE_CHECKING:
    from fleche.caches import BaseCache

__all__ = ["Explanation", "Reason", "explain"]

Reason: TypeAlias = Literal[
    "hit", "uncached", "unusable", "evicted", "refused", "changed", "arguments", "never"
]

MANY = 10_000
"""How many stored calls are compared at most."""

OPENED = 1 << 20
"""A stored argument of so many bytes is loaded at most, to be compared."""


@dataclass(frozen=True)
class Explanation:
    """Whether a call would hit, and why; true if it would.

    Attributes:
        reason: ``"hit"``; ``"uncached"``, if this call is none to be cached; ``"unusable"``, if
            what is stored of it is damaged or not to be trusted; ``"evicted"``, if the call is
            known and its result gone, or it raised what is not kept; ``"refused"``, if it has
            expired, is not valid, or ``validate=`` raises; ``"changed"``, if the same arguments
            were computed with another version, module or code; ``"arguments"``, if others were, or
            others by name; ``"never"``, if nothing was.
        text: all of it in a sentence.
        differing: what differs from the nearest stored call: names of arguments, or ``version``,
            ``module``, ``code``.
        nearest: the stored call that differs least.
        changes: what has changed of the code since that call, with the difference of the sources.
    """

    reason: Reason
    text: str
    differing: tuple[str, ...] = ()
    nearest: LazyCall | None = None
    changes: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        return self.reason == "hit"

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Explanation {self.reason}: {self.text}>"

    def _repr_html_(self) -> str:
        text, _, diffs = self.text.partition("\n")
        return paragraph(text, diffs)


def explain(
    spec: FunctionSpec,
    cache: BaseCache,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    most: int = MANY,
) -> Explanation:
    """Explain a call; nothing is computed, and only an argument is loaded, to be compared.

    Args:
        spec: the function.
        cache: where stored calls are looked for.
        args: the positional arguments of the call.
        kwargs: its keyword arguments.
        most: how many stored calls are compared at most.

    Raises:
        TypeError: the function cannot be called so.
        KeyError: a digest among the arguments stands for no value.
    """
    name = f"{spec.info.name}()"
    try:
        arguments = spec.info.bind(args, kwargs)
    except TypeError as error:
        if not spec.info.borrowed:
            raise
        return Explanation("uncached", f"{name} runs uncached: {error}")
    lacking = spec.info.missing_required(arguments, spec.info.explicit(args, kwargs))
    if lacking:
        return Explanation(
            "uncached", f"{name} runs uncached: {lacking[0]!r} is required and not passed"
        )
    calls = StoredCalls(cache)
    try:
        identity = spec.identify(spec.expanded(arguments, cache), accepted=cache.accepted)
        identity = spec.stored_identity(identity, cache, calls.is_there)
    except Indigestible as error:
        return Explanation("uncached", f"{name} runs uncached: {error}")
    comparison = _Comparison(spec, identity, spec.make_record(arguments, identity), arguments)
    try:
        stored = calls.load(identity.key)
        return comparison.of_stored(stored, calls)
    except KeyError:
        return comparison.with_nearest(islice(cache.query(name=spec.info.name), most))
    except ParcelError as error:
        text = f"{name} would be computed: what is stored of it: {error}"
        return Explanation("unusable", text)


@dataclass(frozen=True)
class _Comparison:
    """A call that is asked for, to be compared with stored ones."""

    spec: FunctionSpec
    identity: CallIdentity
    wanted: CallRecord
    arguments: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.spec.info.name}()"

    def of_stored(self, stored: LazyCall, calls: StoredCalls) -> Explanation:
        """Explain a call that is stored under its key."""
        rules, record, short = self.spec.rules, stored.record, stored.key[:12]
        if record.error is not None:
            if rules is not None and rules.kept_error(stored) is not None:
                text = f"{self.name} is stored ({short}): it raises {record.error.text}"
                return Explanation("hit", text, nearest=stored)
            said = f"the stored call ({short}) has raised {record.error.text}"
            return self.of_miss("evicted", said, stored)
        if not calls.is_there(stored.key):
            said = f"the result of the stored call ({short}) is no longer there"
            return self.of_miss("evicted", said, stored)
        try:
            why = "" if rules is None else rules.refuse(stored)
        except ParcelError:
            raise
        except Exception as error:  # noqa: BLE001 (whatever the function that validates raises)
            text = (
                f"{self.name} would raise what validate= does, asked whether the stored result "
                f"({short}) is still right: {type(error).__name__}: {error}"
            )
            return Explanation("refused", text, nearest=stored)
        if rules is not None and why:
            if not rules.returns_stale(why):
                return self.of_miss("refused", f"the stored result ({short}) {why}", stored)
            text = f"{self.name} is stored ({short}), {why}: it is returned, and computed anew"
            return Explanation("hit", text, nearest=stored)
        if self.identity.buffers.paths and (files := changed_files(record)):
            said = f"since it was stored ({short}), {' and '.join(files)} has changed"
            return self.of_miss("arguments", said, stored)
        return self.of_hit(stored)

    def of_miss(self, reason: Reason, why: str, stored: LazyCall) -> Explanation:
        return Explanation(reason, f"{self.name} would be computed: {why}", nearest=stored)

    def of_hit(self, stored: LazyCall) -> Explanation:
        text = f"{self.name} is stored ({stored.key[:12]})"
        changes = self.changes_since(stored)
        if changes:
            text += f", but {describe_changes(self.spec.info.name, changes)} since"
        return Explanation("hit", _with_diffs(text, changes), nearest=stored, changes=(*changes,))

    def changes_since(self, stored: LazyCall) -> list[Change]:
        if stored.record.code == self.identity.code:
            return []
        return self.spec.changes_since(stored, self.identity.closure)

    def with_nearest(self, stored: Iterator[LazyCall]) -> Explanation:
        compared = ((call, _Differences.of(self.wanted, call.record)) for call in stored)

        def weight(pair: tuple[LazyCall, _Differences]) -> tuple[int, float, str]:
            # a changed part says more than a changed argument; of equals the newest, of these any,
            # but always the same
            call, found = pair
            began = call.record.began
            number = len(found.parts) + 2 * len(found.arguments) - 3 * len(found.renamed)
            return number, -began.timestamp() if began else 0.0, call.key

        best = min(compared, key=weight, default=None)
        if best is None:
            return Explanation("never", f"no result of {self.name} is stored in this cache")
        call, found = best
        changes = self.changes_since(call) if "code" in found.parts else []
        shown = [self.show_part(part, call.record, changes) for part in found.parts]
        shown += [self.show_argument(name, call) for name in found.arguments]
        text = _with_diffs(
            f"{self.name} would be computed: in the nearest stored call ({call.key[:12]}) "
            f"{', and '.join(shown)}",
            changes,
        )
        if found.parts == ("module",) and not found.arguments and _part(call.record, "module"):
            text += (
                "\nThe module is a part of the key. If it computes the same, keep what is stored: "
                f"cache().save_as(call, module={self.wanted.module!r}) for each of its calls; "
                "@fleche(hash_module=False) leaves it out, of calls that are computed from then on"
            )
        if found.parts == ("code",) and not found.arguments:
            text += (
                f"\nIf it computes the same, keep what is stored: {self.spec.info.name}.accept()"
            )
        if found.arguments and (told := self.advise(found.arguments, call.record)):
            also = f", and {self.spec.info.name}.accept() for the code" * ("code" in found.parts)
            text += f"\nIf it computes the same, keep what is stored: @fleche({told}){also}"
        return Explanation(
            "arguments" if found.arguments else "changed",
            text,
            (*found.parts, *found.arguments),
            call,
            tuple(changes),
        )

    def show_part(self, part: str, stored: CallRecord, changes: list[Change]) -> str:
        if part == "code":
            others = [change for change in changes if change.name != self.spec.info.name]
            if len(others) < len(changes) or not changes:
                also = f", together with {listed(others)}" if others else ""
                return f"the code was different{also}"
            said = describe_changes(self.spec.info.name, changes)
            return f"the code was different: {said} since"
        return f"the {part} was {_part(stored, part)!r}, not {_part(self.wanted, part)!r}"

    def advise(self, names: tuple[str, ...], stored: CallRecord) -> str:
        """Return what to tell the decorator of parameters that are new, or have another name."""
        if not self.spec.info.secret.isdisjoint(names):
            return ""
        new = [name for name in names if name not in stored.arguments]
        gone = {_digest(stored, name): name for name in names if name not in self.wanted.arguments}
        if len(new) + len(gone) != len(names):
            return ""
        renamed = {
            name: gone.pop(found) for name in new if (found := _digest(self.wanted, name)) in gone
        }
        added = {name: self.arguments[name] for name in new if name not in renamed}
        if gone or any(as_literal(value) is UNSET for value in added.values()):
            return ""
        told = {"added": added, "renamed": renamed}
        return ", ".join(f"{word}={value!r}" for word, value in told.items() if value)

    def show_argument(self, name: str, call: LazyCall) -> str:
        was, now = (each.arguments.get(name) for each in (call.record, self.wanted))
        if name in self.spec.info.secret:
            return f"{name}, which is secret, was another value"
        if was is None:
            return f"there was no {name}, which is {_shown(self.arguments[name])} now"
        if now is None:
            return f"there was also {name}, which was {_shown(MISSING, was)}"
        value = self.arguments[name]
        other = _opened(call, name) if hasattr(type(value), "__len__") else MISSING
        before, after = _shown(other, was), _shown(value)
        is_content = name in self.spec.info.content
        if not is_content and other is not MISSING and _is_other_order(other, value):
            return f"{name} differs only in order (Unordered[...] says that this does not matter)"
        if is_content or before == after:
            before = f"{before} {shown_digest(was.digest)}"
            after = f"{after} {shown_digest(now.digest)}"
        said = "the file's content differs: " if is_content else ""
        return f"{said}{name} was {before}, not {after}"


def _with_diffs(text: str, changes: list[Change]) -> str:
    return "\n".join([text, *(change.diff for change in changes if change.diff)])


class _Differences(NamedTuple):
    """In what two calls differ.

    Attributes:
        parts: of the key, other than arguments.
        arguments: names.
        renamed: digests of values that have one name in one call, and another in the other.
    """

    parts: tuple[str, ...]
    arguments: tuple[str, ...]
    renamed: frozenset[str | None] = frozenset()

    @classmethod
    def of(cls, wanted: CallRecord, stored: CallRecord) -> _Differences:
        parts = [part for part in KEY_PARTS if _part(wanted, part) != _part(stored, part)]
        names = dict.fromkeys((*wanted.arguments, *stored.arguments))
        arguments = [name for name in names if _digest(wanted, name) != _digest(stored, name)]
        new = {_digest(wanted, name) for name in arguments if name not in stored.arguments}
        gone = {_digest(stored, name) for name in arguments if name not in wanted.arguments}
        shown = tuple(parts) if parts or arguments else ("scheme",)
        return cls(shown, tuple(arguments), frozenset(new & gone))


def _digest(record: CallRecord, name: str) -> str | None:
    found = record.arguments.get(name)
    return None if found is None else found.digest


def _part(record: CallRecord, part: str) -> Any:
    return None if part in record.unhashed else getattr(record, part)


def _opened(call: LazyCall, name: str) -> Any:
    """Return an argument of a stored call; ``MISSING`` if it is large, or cannot be opened."""
    if call.record.arguments[name].size > OPENED:
        return MISSING
    try:
        return call.arguments[name]
    except Exception:  # noqa: BLE001 (whatever making it runs; the record has a summary)
        return MISSING


def _is_other_order(stored: Any, value: Any) -> bool:
    """Return whether two values differ only in the order of their dicts."""
    try:
        return digest(stored, unordered=True) == digest(value, unordered=True)
    except Exception:  # noqa: BLE001 (of any class; then more is different)
        return False


def _shown(value: Any, ref: ValueRef | None = None) -> str:
    """Return a value in a few words; where it is ``MISSING``, what its record has of it."""
    if ref is not None and (value is MISSING or ref.is_literal):
        return f"{ref.text} ({ref.type})" if ref.type else ref.text
    return _short.repr(value)


class _Short(reprlib.Repr):
    """Shows plain containers by their first items, and what is not plain by its summary."""

    def __init__(self) -> None:
        super().__init__()
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 6

    def repr1(self, x: Any, level: int) -> str:
        """Return a part in a few words, whatever the name of its class."""
        if type(x) in (dict, list, tuple, set, frozenset):
            return super().repr1(x, level)
        if isinstance(x, Digest):
            return shown_digest(x)
        literal = as_literal(x)
        if literal is not UNSET:
            return repr(literal)
        found = summarize(x)
        return f"{found.shown} ({found.type})" if found.type else str(found.shown)


_short = _Short()
