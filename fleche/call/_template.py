"""Templates of calls: what a query asks for.

A template is plain data, so that a database can translate it and the wire can carry it.
:meth:`QueryCall.matches` is its meaning; every storage that translates it must agree with that.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from fleche._amounts import as_stamp
from fleche.call._live import LazyCall
from fleche.call._record import CallRecord, Scalar, ValueRef, Version, as_plain, plain_metadata
from fleche.digest import Digest, digest, short_key, shown_digest

__all__ = [
    "QUERY_FIELDS",
    "Condition",
    "Moment",
    "Operator",
    "QueryCall",
    "between",
    "like",
    "one_of",
    "where",
]

Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "between", "in", "like", "digest"]

Moment: TypeAlias = datetime | date | timedelta | str
"""A date, or how long ago: ``datetime``, ``timedelta``, ``"2026-01-31"``, ``"2d"``."""

_OPERATORS = get_args(Operator)
_SCALARS = (type(None), bool, int, float, str)
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class Condition(msgspec.Struct, frozen=True, array_like=True):
    """What one argument, result or metadata field must be.

    ``op`` is ``"digest"`` (``value`` is a digest or the beginning of one), ``"="``, ``"!="``,
    ``"<"``, ``"<="``, ``">"``, ``">="``, ``"between"`` (both ends included), ``"in"``, or
    ``"like"`` (a pattern with ``*`` and ``?``). All but ``"digest"`` look at values in the clear:
    numbers compare with numbers, text with text, and everything else does not match.

    Scalars of other classes, those of numpy among them, become the builtins that they equal.

    Raises:
        TypeError: ``value`` is of another type, or of one that ``op`` does not compare with.
        ValueError: there is no such ``op``.
    """

    op: Operator
    value: Scalar | list[Scalar]

    def __post_init__(self) -> None:
        value: Any = self.value
        several = isinstance(value, list | tuple)
        items = [as_plain(item) for item in (value if several else [value])]
        if wrong := [item for item in items if type(item) not in _SCALARS]:
            raise TypeError(
                f"a condition compares with text, numbers, True, False and None, not {wrong[0]!r}"
            )
        if self.op not in _OPERATORS:
            known = ", ".join(map(repr, _OPERATORS))
            raise ValueError(f"{self.op!r} is no comparison; there are {known}")
        if self.op == "between" and not (several and len(items) == 2):
            raise TypeError(f"'between' compares with two values, [low, high], not {value!r}")
        if self.op == "in" and not several:
            raise TypeError(f"'in' compares with a list of values, not {value!r}")
        if self.op not in ("between", "in", "=", "!=") and several:
            raise TypeError(f"{self.op!r} compares with one value, not {value!r}")
        if self.op in ("like", "digest") and not isinstance(items[0], str):
            raise TypeError(f"{self.op!r} compares with text, not {value!r}")
        msgspec.structs.force_setattr(self, "value", items if several else items[0])

    @property
    def text(self) -> str:
        """The condition in a few words."""
        if self.op == "digest":
            return f"= {shown_digest(str(self.value))}"
        return f"{self.op} {self.value!r}"

    def matches(self, found: Any) -> bool:
        """Return whether the plain value ``found`` meets the condition."""
        if self.op == "between":
            low, high = self.value  # type: ignore[misc, str-unpack]
            return Condition(">=", low).matches(found) and Condition("<=", high).matches(found)
        if self.op == "in":
            return any(_same(found, item) for item in self.value)  # type: ignore[union-attr]
        if self.op == "digest":
            return isinstance(found, str) and found.startswith(str(self.value))
        if self.op == "like":
            return isinstance(found, str) and _fits(found, str(self.value))
        if self.op in ("=", "!="):
            return _same(found, self.value) is (self.op == "=")
        compare: Any = _COMPARE[self.op]
        return _comparable(found, self.value) and bool(compare(found, self.value))


def where(op: Operator, value: Scalar | list[Scalar]) -> Condition:
    """Return a condition such as ``where("<", 3)`` for use in a query."""
    return Condition(op, value)


def between(low: Scalar, high: Scalar) -> Condition:
    """Return the condition ``low <= x <= high``."""
    return Condition("between", [low, high])


def one_of(*values: Scalar) -> Condition:
    """Return the condition that a value is one of ``values``."""
    return Condition("in", list(values))


def like(pattern: str) -> Condition:
    """Return the condition that a text matches ``pattern``.

    ``*`` stands for any text, ``?`` for any character, and every other character for itself.
    """
    return Condition("like", pattern)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _comparable(left: Any, right: Any) -> bool:
    both_text = isinstance(left, str) and isinstance(right, str)
    return both_text or (_is_number(left) and _is_number(right))


def _same(left: Any, right: Any) -> bool:
    if _comparable(left, right):
        return bool(left == right)
    return type(left) is type(right) and bool(left == right)


class QueryCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A template: every field that is given must match.

    Attributes:
        name: qualified name of the function, or a pattern with ``*`` and ``?``.
        module: likewise for the module.
        version: the declared version.
        code: digest of the code, or the beginning of one.
        arguments: a condition for each argument named.
        result: a condition on the result.
        metadata: conditions by collector and field, ``{"runtime": {"host": ...}}``.
        uses: groups of digests, or of beginnings of some. A call meets a group that names one of
            its arguments, or one of the calls that it made.
    """

    name: str | None = None
    module: str | None = None
    version: Version | msgspec.UnsetType = msgspec.UNSET
    code: str | None = None
    arguments: dict[str, Condition] = {}
    result: Condition | None = None
    metadata: dict[str, dict[str, Condition]] = {}
    uses: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        for name in ("name", "module", "code"):
            given = getattr(self, name)
            if not (given is None or isinstance(given, str)):
                raise TypeError(f"{name}={given!r}: the {name} of a function is text")
        _check_mapping("arguments", self.arguments, "a parameter, {'x': 3}")
        _check_mapping("metadata", self.metadata, "a collector, {'runtime': {'host': 'bigpc'}}")
        for collector, fields in self.metadata.items():
            _check_mapping(f"metadata[{collector!r}]", fields, "a field, {'host': 'bigpc'}")
        change = partial(msgspec.structs.force_setattr, self)
        change("arguments", {name: _by_digest(each) for name, each in self.arguments.items()})
        if self.result is not None:
            change("result", _by_digest(self.result))
        metadata = {
            collector: {field: _by_value(value) for field, value in fields.items()}
            for collector, fields in self.metadata.items()
        }
        change("metadata", metadata)

    @classmethod
    def of(
        cls,
        *,
        name: str | None = None,
        module: str | None = None,
        version: Version | msgspec.UnsetType = msgspec.UNSET,
        code: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        result: Any = msgspec.UNSET,
        metadata: Mapping[str, Mapping[str, Any]] | None = None,
        uses: Any = msgspec.UNSET,
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> QueryCall:
        """Build a template from values as a person writes them.

        An argument or result may be a :class:`Condition`, a :class:`~fleche.digest.Digest` (perhaps
        short), or any value, which is then compared by its digest. A metadata field may be a
        :class:`Condition` or a plain value.

        What a call ``uses`` is a value that it got as an argument, or a call that it made: given as
        the value, as a digest or key (perhaps short), or as a :class:`LazyCall`, which stands for
        itself and for its result. A result that is small and plain tells nothing, since many calls
        get the same number.

        Calls ``since`` a moment, and ``until`` another, are those that began then, by their
        metadata ``runtime.started``: a date (local, if it has no zone), as ISO-8601 text too, or
        ``"today"`` or ``"yesterday"``, or how long ago, as a :class:`~datetime.timedelta` or as
        ``"30s"``, ``"15m"``, ``"6h"``, ``"2d"``, ``"1w"``.

        Raises:
            Indigestible: a value has no digest.
            ValueError: a text is no moment, or when the calls began is said twice.
        """
        made = cls(
            name=name,
            module=module,
            version=as_plain(version),
            code=code,
            arguments={} if arguments is None else arguments,  # type: ignore[arg-type]
            result=None if result is msgspec.UNSET else _by_digest(result),
            metadata={} if metadata is None else metadata,  # type: ignore[arg-type]
            uses=() if uses is msgspec.UNSET else (_used(uses),),
        )
        if since is None and until is None:
            return made
        return made.merged(cls(metadata={"runtime": {"started": _span(since, until)}}))

    @property
    def text(self) -> str:
        """What is asked for, in one line."""
        said = [
            f"{name}={getattr(self, name)!r}" for name in ("name", "module") if getattr(self, name)
        ]
        if self.version is not msgspec.UNSET:
            said.append(f"version={self.version!r}")
        if self.code:
            said.append(f"code={self.code[:12]!r}")
        said += [f"{name} {condition.text}" for name, condition in self.arguments.items()]
        if self.result is not None:
            said.append(f"result {self.result.text}")
        for collector, fields in self.metadata.items():
            said += [f"{collector}.{name} {each.text}" for name, each in fields.items()]
        said += [f"uses {' or '.join(map(short_key, group))}" for group in self.uses]
        return ", ".join(said)

    def merged(self, other: QueryCall) -> QueryCall:
        """Return the template that asks for all that this one and ``other`` ask for.

        Raises:
            ValueError: both say something, and not the same, of one field.
        """
        changes: dict[str, Any] = {}
        for name in ("name", "module", "version", "code", "result"):
            changes[name] = _either(name, getattr(self, name), getattr(other, name))
        changes["arguments"] = _both("arguments", self.arguments, other.arguments)
        metadata = dict(self.metadata)
        for collector, fields in other.metadata.items():
            path = f"metadata[{collector!r}]"
            metadata[collector] = _both(path, metadata.get(collector, {}), fields)
        uses = tuple(dict.fromkeys((*self.uses, *other.uses)))
        return msgspec.structs.replace(self, **changes, metadata=metadata, uses=uses)

    def matches(self, record: CallRecord) -> bool:
        """Return whether ``record``, a finished call, matches."""
        metadata = record.metadata if self.metadata else {}
        return (
            not record.is_pin
            and _pattern(self.name, record.name)
            and _pattern(self.module, record.module)
            and (self.version is msgspec.UNSET or _same(record.version, self.version))
            and (self.code is None or (record.code or "").startswith(self.code))
            and all(
                name in record.arguments and _meets(wanted, record.arguments[name])
                for name, wanted in self.arguments.items()
            )
            and (
                self.result is None
                or (record.result is not None and _meets(self.result, record.result))
            )
            and all(
                wanted.matches(metadata.get(collector, {}).get(field))
                for collector, fields in self.metadata.items()
                for field, wanted in fields.items()
            )
            and all(_is_used(group, record) for group in self.uses)
        )


QUERY_FIELDS: tuple[str, ...] = tuple(QueryCall.of.__kwdefaults__ or ())
"""What :meth:`QueryCall.of` takes."""


def _span(since: Moment | None, until: Moment | None) -> Condition:
    """Return the condition on the text by which the metadata say when a call began."""
    low, high = (each if each is None else as_stamp(each) for each in (since, until))
    if low is None:
        return Condition("<=", high)
    return Condition(">=", low) if high is None else Condition("between", [low, high])


def _used(value: Any) -> tuple[str, ...]:
    """Return the digests of a group: which of them a call uses does not matter."""
    if isinstance(value, LazyCall):
        result = value.record.result
        tells = result is not None and not result.is_literal
        return (str(value.key), str(result.digest)) if result and tells else (str(value.key),)
    return (str(value if isinstance(value, Digest) else digest(value)),)


def _is_used(group: tuple[str, ...], record: CallRecord) -> bool:
    return any(ref.digest.startswith(group) for ref in record.arguments.values()) or any(
        child.startswith(group) for child in record.children
    )


def _pattern(pattern: str | None, found: str | None) -> bool:
    return pattern is None or (found is not None and _fits(found, pattern))


def _fits(found: str, pattern: str) -> bool:
    # [ would begin a set of characters
    return fnmatchcase(found, pattern.replace("[", "[[]"))


def _meets(wanted: Condition, found: ValueRef) -> bool:
    if wanted.op == "digest":
        return found.digest.startswith(str(wanted.value))
    shown = found.shown
    return shown is not msgspec.UNSET and wanted.matches(shown)


def _either(name: str, one: Any, other: Any) -> Any:
    if other is None or other is msgspec.UNSET or one == other:
        return one
    if one is None or one is msgspec.UNSET:
        return other
    raise ValueError(f"{name} is given twice, as {one!r} and as {other!r}; leave one of them out")


def _both(path: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _either(f"{path}[{name!r}]", one.get(name), other.get(name))
        for name in (*one, *(name for name in other if name not in one))
    }


def _check_mapping(name: str, given: object, example: str) -> None:
    if not isinstance(given, Mapping):
        raise TypeError(f"{name}={given!r}: a dictionary by the name of {example}, is wanted")


def _by_digest(value: Any) -> Condition:
    if isinstance(value, Condition):
        return value
    return Condition("digest", str(value if isinstance(value, Digest) else digest(value)))


def _by_value(value: Any) -> Condition:
    if isinstance(value, Condition):
        return value
    plain = plain_metadata(value)
    if isinstance(plain, list | dict):
        raise TypeError(f"a metadata field is compared with a plain value, not {value!r}")
    return Condition("=", plain)
