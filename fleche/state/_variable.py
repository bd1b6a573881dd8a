"""Variables that are set for the process, or for a context of its own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Generic, TypeVar

from fleche._util import running_loop

__all__ = ["UNSET", "Setting", "Unset", "Variable"]

T = TypeVar("T")


class Unset:
    """Stands where nothing is set: then the setting of the process counts, or the default."""


UNSET: Final = Unset()


class Variable(Generic[T]):
    """One setting: a value for the process, and one for each context that has its own."""

    def __init__(self, name: str, default: Callable[[], T]) -> None:
        self._own: ContextVar[T | Unset] = ContextVar(f"fleche.{name}", default=UNSET)
        self._process: T | Unset = UNSET
        self._default = default

    def get(self) -> T:
        """Return what is active here."""
        own = self._own.get()
        if not isinstance(own, Unset):
            return own
        shared = self._process
        return self._default() if isinstance(shared, Unset) else shared

    def is_set(self) -> bool:
        """Whether something is set here, so that the default does not count."""
        return not (isinstance(self._own.get(), Unset) and isinstance(self._process, Unset))

    def set(self, value: T | Unset) -> Callable[[], None]:
        """Set for the process or for this context, whichever applies here; return the way back."""
        if not (isinstance(self._own.get(), Unset) and _is_main()):
            return self.set_here(value)
        before, self._process = self._process, value

        def back() -> None:
            if self._process is value:  # else something has been set since, which stays
                self._process = before

        return back

    def set_here(self, value: T | Unset) -> Callable[[], None]:
        """Set for this context; return the way back."""
        before = self._own.get()
        self._own.set(value)

        def back() -> None:
            self._own.set(before)

        return back

    def set_everywhere(self, value: T) -> Callable[[], None]:
        """Set for the process and for this context; return the way back."""
        process, own = self._process, self._own.get()
        self._process = value
        self._own.set(UNSET)

        def back() -> None:
            self._process = process
            self._own.set(own)

        return back

    def clear(self) -> None:
        """Forget what was set for the process and for this context."""
        self._process = UNSET
        self._own.set(UNSET)


def _is_main() -> bool:
    if threading.current_thread() is not threading.main_thread():
        return False
    if running_loop() is None:
        return True
    frame = sys._getframe()  # noqa: SLF001 (public in all but name)
    while frame.f_back is not None and _is_ours(frame.f_globals):
        frame = frame.f_back
    return frame.f_locals is frame.f_globals


def _is_ours(namespace: dict[str, Any]) -> bool:
    return str(namespace.get("__name__")).startswith("fleche.state.")


class Setting(Generic[T]):
    """What was just set. It stays set; used as a ``with`` block, it is set for the block alone.

    Attributes:
        value: what is active now.
    """

    def __init__(self, variable: Variable[T], value: T) -> None:
        self.value = value
        self._variable = variable
        self._unstick: Callable[[], None] | None = variable.set(value)
        self._back: list[Callable[[], None]] = []

    def __enter__(self) -> T:
        if self._unstick is not None:
            self._unstick()
            self._unstick = None
        self._back.append(self._variable.set_here(self.value))
        return self.value

    def __exit__(self, *_: object) -> None:
        self._back.pop()()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.value!r}>"
