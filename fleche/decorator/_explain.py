"""Why a call would hit or not."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fleche._html import paragraph
from fleche.call import KEY_PARTS, CallRecord, LazyCall
from fleche.decorator._spec import CallIdentity, FunctionSpec, describe_changes
from fleche.digest import Digest, digest
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


@dataclass(frozen=True)
class Explanation:
    """Whether a call would hit, and why; true if it would.

    Attributes:
        reason: ``"hit"``; ``"uncached"``, if this call is none to be cached; ``"unusable"``, if
            what is stored of it is damaged or not to be trusted; ``"evicted"``, if the call is
            known and its result gone; ``"refused"``, if it has expired or is not valid;
            ``"changed"``, if the same arguments were computed
            with another version, module or code; ``"arguments"``, if others were; ``"never"``, if
            nothing was.
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
    try:
        identity = spec.identify(spec.expanded(arguments, cache), accepted=cache.accepted)
        identity = spec.stored_identity(identity, cache, cache.contains)
    except Indigestible as error:
        return Explanation("uncached", f"{name} runs uncached: {error}")
    key, wanted = identity.key, spec.make_record(arguments, identity)
    comparison = _Comparison(spec, identity, wanted, arguments)
    try:
        stored = cache.load(key)
    except KeyError:
        return comparison.with_nearest(_stored(spec, cache, most))
    except ParcelError as error:
        return Explanation("unusable", f"{name} would be computed: what is stored of it: {error}")
    other = _of_stored(spec, cache, identity, stored)
    return comparison.of_hit(stored) if other is None else other  # one may be false


def _of_stored(
    spec: FunctionSpec, cache: BaseCache, identity: CallIdentity, stored: LazyCall
) -> Explanation | None:
    """Explain a call that is stored under its key; ``None``: it is a plain hit."""
    name = f"{spec.info.name}()"
    if stored.record.error is not None:
        kept = spec.rules is not None and bool(spec.rules.errors)
        text = f"{name} has raised {stored.record.error.text}"
        return Explanation("hit" if kept else "evicted", text, nearest=stored)
    if not cache.contains(stored.key):
        text = f"{name} was computed, and its result is no longer stored"
        return Explanation("evicted", text, nearest=stored)
    if spec.rules is not None and (why := spec.rules.refuse(stored)):
        return Explanation("refused", f"{name} is stored, and {why}", nearest=stored)
    if identity.buffers.paths and (files := spec.changed_files(stored.record)):
        said = f"since it was stored ({stored.key[:12]}), {' and '.join(files)} has changed"
        return Explanation("arguments", f"{name} would be computed: {said}", nearest=stored)
    return None


def _stored(spec: FunctionSpec, cache: BaseCache, most: int) -> Iterator[LazyCall]:
    return islice(cache.query(name=spec.info.name), most)


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

    def of_hit(self, stored: LazyCall) -> Explanation:
        text = f"{self.name} is stored ({stored.key[:12]})"
        changes = self.changes_since(stored)
        if changes:
            text += f", but {describe_changes(self.spec.info.name, changes)} since"
        return Explanation("hit", _with_diffs(text, changes), nearest=stored, changes=(*changes,))

    def changes_since(self, stored: LazyCall) -> list[Change]:
        if stored.record.code == self.identity.code:
            return []
        return self.spec.changes_since(stored.record, self.identity.closure)

    def with_nearest(self, stored: Iterator[LazyCall]) -> Explanation:
        from fleche.caches import started

        compared = ((call, _differences(self.wanted, call.record)) for call in stored)

        def weight(pair: tuple[LazyCall, tuple[str, ...]]) -> tuple[int, float, str]:
            # a changed part says more than a changed argument; of equals the newest, of these any,
            # but always the same
            call, differing = pair
            changed = sum(part in self.wanted.arguments for part in differing)
            began = started(call.record)
            return len(differing) + changed, -began.timestamp() if began else 0.0, call.key

        best = min(compared, key=weight, default=None)
        if best is None:
            return Explanation("never", f"no result of {self.name} is stored in this cache")
        call, differing = best
        changes = self.changes_since(call) if "code" in differing else []
        same_arguments = not any(part in self.wanted.arguments for part in differing)
        shown = " and ".join(self.show(part, call, changes) for part in differing)
        text = _with_diffs(
            f"{self.name} would be computed: in the nearest stored call ({call.key[:12]}) {shown}",
            changes,
        )
        if differing == ("code",):
            text += (
                f"\nIf it computes the same, keep what is stored: {self.spec.info.name}.accept()"
            )
        return Explanation(
            "changed" if same_arguments else "arguments",
            text,
            differing,
            call,
            tuple(changes),
        )

    def show(self, part: str, call: LazyCall, changes: list[Change]) -> str:
        if part == "code" and any(change.name != self.spec.info.name for change in changes):
            said = describe_changes(self.spec.info.name, changes)
            return f"the code was different: {said} since"
        return _show(self.spec, part, self.wanted, call, self.arguments)


def _with_diffs(text: str, changes: list[Change]) -> str:
    return "\n".join([text, *(change.diff for change in changes if change.diff)])


def _differences(wanted: CallRecord, stored: CallRecord) -> tuple[str, ...]:
    parts = [part for part in KEY_PARTS if _part(wanted, part) != _part(stored, part)]
    names = dict.fromkeys((*wanted.arguments, *stored.arguments))
    parts += [item for item in names if _digest(wanted, item) != _digest(stored, item)]
    return tuple(parts) or ("scheme",)


def _digest(record: CallRecord, name: str) -> str | None:
    found = record.arguments.get(name)
    return None if found is None else found.digest


def _part(record: CallRecord, part: str) -> Any:
    return None if part in record.unhashed else getattr(record, part)


def _show(
    spec: FunctionSpec, part: str, wanted: CallRecord, call: LazyCall, arguments: Mapping[str, Any]
) -> str:
    stored = call.record
    if part in KEY_PARTS:
        if part == "code":
            return "the code was different"
        return f"the {part} was {_part(stored, part)!r}, not {_part(wanted, part)!r}"
    if part not in wanted.arguments and part not in stored.arguments:
        return f"the {part} was {stored.scheme}, not {wanted.scheme}"
    if part in spec.info.secret:
        return f"{part}, which is secret, was another value"
    if part in spec.info.content and part in arguments and part in stored.arguments:
        was, now = (f"<{each.arguments[part].digest[:8]}>" for each in (stored, wanted))
        path, here = stored.arguments[part].summary, _shortened(arguments[part])
        return f"the file's content differs: {part} was {path} {was}, not {here} {now}"
    if part in arguments and _differs_only_in_order(call, part, arguments[part]):
        return f"{part} differs only in order (Unordered[...] says that this does not matter)"
    now = _described(arguments[part], wanted, part) if part in arguments else "not passed"
    return f"{part} was {_value(stored, part)}, not {now}"


def _differs_only_in_order(call: LazyCall, name: str, value: Any) -> bool:
    """Whether a container at hand is the stored one but for the order of its dicts."""
    if call.record.arguments[name].is_literal or not hasattr(type(value), "__len__"):
        return False
    try:
        return digest(call.arguments[name], unordered=True) == digest(value, unordered=True)
    except Exception:  # noqa: BLE001 (what cannot be opened is not explained so closely)
        return False


def _value(record: CallRecord, name: str) -> str:
    found = record.arguments.get(name)
    if found is None:
        return "not passed"
    if found.type:  # a scalar of numpy and the like
        return f"{found.summary!r} ({found.type})"
    return _shortened(found.literal) if found.is_literal else f"<{found.digest[:8]}>"


def _described(value: Any, record: CallRecord, name: str) -> str:
    """Return an argument at hand as a person knows it again."""
    if isinstance(value, Digest) or record.arguments[name].is_literal:
        return _value(record, name)
    kind, shape = type(value).__name__, getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        of = getattr(value, "dtype", "")
        return " ".join(filter(None, (kind, str(of), str(shape), _value(record, name))))
    text = _shortened(value)
    return text if kind in text or type(value).__module__ == "builtins" else f"{kind} {text}"


def _shortened(value: Any) -> str:
    """Return a short text for a value; an integer of thousands of digits has no decimal form."""
    try:
        return repr(value) if isinstance(value, str) else reprlib.repr(value)
    except ValueError:
        return f"<{type(value).__name__}>"
