"""The contract of a collector, the register of their names, and the collecting itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from fleche.call import Call, plain_metadata
from fleche.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Collecting", "MetaData", "metadata_class", "metadata_names"]

_classes: dict[str, type[MetaData]] = {}
_RESERVED = "fleche"

_COPYING = ("__copy__", "__getstate__", "__new__", "__reduce__", "__reduce_ex__", "__slots__")
"""What a class may define so that a copy is more than the same attributes."""


class MetaData:
    """One kind of metadata: collected with each call that is computed, not one that is loaded.

    A subclass is known by its name in lowercase, which is also where its data appear in a record,
    and may then be named in ``fleche.toml``; the name ``fleche`` is reserved. It overrides
    :meth:`finish`, and :meth:`start` if something has to be noted before the function runs::

        class Memory(MetaData):
            def start(self):
                self.before = memory_in_use()

            def finish(self):
                return {"grown_by": memory_in_use() - self.before}

    An object of it is a description, like an entry of a list of options. Each call works with a
    copy, so that attributes set in :meth:`start` belong to that one call, whatever else runs at
    the same time.

    Attributes:
        name: where the data appear in a record.
        function: in a copy that belongs to a call, the function that is called.
        start_sees_call: whether :meth:`start` is written to be given the call.
        finish_sees_call: whether :meth:`finish` is written to be given the call and its result.
    """

    name: ClassVar[str] = "metadata"
    function: Callable[..., Any] | None = None
    start_sees_call: ClassVar[bool] = False
    finish_sees_call: ClassVar[bool] = False
    _copied_by_parts: ClassVar[bool] = True
    _starts_with_nothing: ClassVar[bool] = True
    _is_plain: ClassVar[bool] = False  # whether the data are plain already, and not shared

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = cls.__name__.lower()
        if cls.name == _RESERVED:
            raise ConfigError(
                f"the name {_RESERVED!r} is reserved for what fleche itself records; "
                f'rename the metadata {cls.__qualname__}, or give it a name = "..."'
            )
        _classes[cls.name] = cls
        cls._starts_with_nothing = cls.start is MetaData.start
        cls.start_sees_call = _parameters(cls.start) > 1
        cls.finish_sees_call = _parameters(cls.finish) > 1
        if "_is_plain" not in vars(cls):
            cls._is_plain = False  # what a subclass returns is its own affair
        cls._copied_by_parts = not any(
            name in vars(base) for base in cls.__mro__[:-1] for name in _COPYING
        )

    def start(self) -> None:
        """Note what there is to note before the function runs.

        One that is written ``start(self, call)`` is given the call, with its arguments.
        """

    def finish(self) -> dict[str, Any]:
        """Return the data: text, numbers, booleans, dates, ``None``, lists and dicts of these.

        One that is written ``finish(self, call, result)`` is given both. They are for looking at:
        to change them changes what the function, or its caller, gets.
        """
        raise NotImplementedError

    def begin(
        self, function: Callable[..., Any] | None, call: Callable[[], Call] | None = None
    ) -> Self:
        """Return a copy for one call, started.

        Args:
            function: the function that is called.
            call: returns the call.
        """
        if self._copied_by_parts:
            mine = self.__new__(type(self))
            vars(mine).update(vars(self))
        else:
            mine = copy.copy(self)
        mine.function = function
        if self._starts_with_nothing:
            return mine
        if self.start_sees_call and call is not None:
            mine.start(call())  # type: ignore[call-arg]
        else:
            mine.start()
        return mine

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({shown})"


class Collecting:
    """The collectors of one call, at work.

    A collector that fails is left out; the function and the other collectors are not disturbed.

    Args:
        collectors: of several with one name the last counts, except that tags are put together.
        function: the function that is called.
        complain: is told of a collector that failed, and how.
        call: returns the call, for collectors that want to see it.
    """

    def __init__(
        self,
        collectors: tuple[MetaData, ...],
        function: Callable[..., Any] | None,
        complain: Callable[[str, Exception], None],
        call: Callable[[], Call] | None = None,
    ) -> None:
        self._complain = complain
        self._call = call
        self._started: list[MetaData] = []
        global _latest  # noqa: PLW0603
        latest = _latest  # two threads may each find out what counts
        if collectors is not latest[0]:
            latest = _latest = collectors, _distinct(collectors)
        for collector in latest[1]:
            try:
                self._started.append(collector.begin(function, call))
            except Exception as error:  # noqa: BLE001 (a user's code; it must not stop the function)
                complain(collector.name, error)

    def finish(self, result: Any = None) -> dict[str, dict[str, Any]]:
        """Return what was collected, by the name of the collector.

        Args:
            result: what the function returned.
        """
        found: dict[str, dict[str, Any]] = {}
        for collector in reversed(self._started):  # what began first measures the longest
            try:
                if collector.finish_sees_call and self._call is not None:
                    data = collector.finish(self._call(), result)  # type: ignore[call-arg]
                else:
                    data = collector.finish()
                if not collector._is_plain:  # noqa: SLF001 (of this very package)
                    data = plain_metadata(dict(data), collector.name)
                if data:
                    found[collector.name] = data
            except Exception as error:  # noqa: BLE001 (as in __init__)
                self._complain(collector.name, error)
        return dict(sorted(found.items())) if len(found) > 1 else found


def _parameters(method: Callable[..., Any]) -> int:
    """Return how many parameters a method has, itself included."""
    code = getattr(method, "__code__", None)
    return 1 if code is None else code.co_argcount


_latest: tuple[tuple[MetaData, ...], list[MetaData]] = (), []
"""The collectors that were at work last, and which of them count."""


def _distinct(collectors: Iterable[MetaData]) -> list[MetaData]:
    found: dict[str, MetaData] = {}
    for collector in collectors:
        earlier = found.pop(collector.name, None)
        merge = getattr(earlier, "merge", None)
        found[collector.name] = collector if merge is None else merge(collector)
    return list(found.values())


def metadata_names() -> list[str]:
    """Return the names of all collectors that are known."""
    return sorted(_classes)


def metadata_class(name: str) -> type[MetaData]:
    """Return the collector of a name: ``"runtime"``, ``"environment"``, ``"git"``, ``"tags"``, ...

    Capitals do not matter, unless two names differ in them alone. A user's own is known once its
    class is defined; ``"package.module:Class"`` imports it first.

    Raises:
        ConfigError: there is no such collector.
    """
    if ":" in name:
        return _imported_class(name)
    try:
        return _classes.get(name) or _classes[name.lower()]
    except KeyError:
        raise ConfigError(
            f"metadata {name!r} is not known; there are {', '.join(metadata_names())}. "
            'Name a class of your own as "package.module:Class"'
        ) from None


def _imported_class(name: str) -> type[MetaData]:
    from importlib import import_module

    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # importing runs any code
        kind = type(error).__name__
        raise ConfigError(f"metadata {name!r} cannot be imported: {kind}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, MetaData)):
        raise ConfigError(f"metadata {name!r} is not a subclass of fleche.metadata.MetaData")
    return found
