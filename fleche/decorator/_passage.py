"""What the body of a function is called with: values in place of digests, copies if it is isolated.

That holds for every call, whether it is cached or not.
"""

from __future__ import annotations

from inspect import Parameter
from typing import TYPE_CHECKING, Any

from fleche.call import MISSING
from fleche.decorator._core import Core
from fleche.digest import Digest, digest_arguments
from fleche.errors import Indigestible

if TYPE_CHECKING:
    from fleche.caches import BaseCache

__all__ = ["Passage"]


class Passage:
    """A call on its way to the body; without more to it, none that is cached.

    Attributes:
        core: the function.
        cache: where digests are looked up.
        args: the positional arguments as they were passed.
        kwargs: the keyword arguments as they were passed.
    """

    def __init__(
        self, core: Core, cache: BaseCache, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.core = core
        self.cache = cache
        self.args = args
        self.kwargs = kwargs

    def enter(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what to call the body with."""
        return self.body_arguments()

    def fail(self, error: BaseException) -> None:
        """Do nothing about a body that has raised."""

    def finish(self, result: Any) -> Any:
        """Return what the caller gets."""
        return result

    def alone(self) -> Any:
        """Call the function as if there were no cache."""
        args, kwargs = self.body_arguments()
        return self.core.function(*args, **kwargs)

    def copy(self, value: Any) -> Any:
        """Return a copy that shares nothing with ``value``; ``MISSING`` if there can be none."""
        packing = self.cache.packing
        try:
            return packing.unpack(packing.pack(value))
        except Exception:  # noqa: BLE001 (a pickler raises anything)
            return MISSING

    def body_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what the body gets: values in place of digests, copies if it is isolated.

        Ignored arguments are not copied: a log, a progress bar are passed to be changed.

        Raises:
            TypeError: the function cannot be called so.
            KeyError: a digest stands for no value.
            ParcelError: its value cannot be opened.
        """
        core = self.core
        if not (core.options.isolate or core.digest_by_default or self._holds_digest()):
            return self.args, self.kwargs
        bound = core.info.bind_own(self.args, self.kwargs)
        ignored, keywords = core.info.ignored, core.info.ignored_keywords
        for name, value in bound.arguments.items():
            kind = bound.signature.parameters[name].kind
            if kind is Parameter.VAR_KEYWORD:
                given = {k: self._for_body(k, v, k in keywords) for k, v in value.items()}
                bound.arguments[name] = given
            elif kind is Parameter.VAR_POSITIONAL:
                items = (self._for_body(name, item, name in ignored) for item in value)
                bound.arguments[name] = tuple(items)
            else:
                bound.arguments[name] = self._for_body(name, value, name in ignored)
        return bound.args, bound.kwargs

    def _check_content(self, name: str, found: Any, digest: Digest) -> None:
        """Check that paths still lead to the content of ``digest``; the bytes are not in the cache.

        Raises:
            KeyError: they do not.
        """
        try:
            now = digest_arguments({name: found}, content=(name,))[name]
        except Indigestible as error:
            raise KeyError(f"{self.core.no_value(name, digest)} ({error})") from error
        if now != self.cache.complete(digest):
            raise KeyError(
                f"{self.core.no_value(name, digest)} ({found} holds something else by now)"
            )

    def _holds_digest(self) -> bool:
        return Digest in map(type, self.args) or Digest in map(type, self.kwargs.values())

    def _for_body(self, name: str, value: Any, is_ignored: bool) -> Any:
        if isinstance(value, Digest):
            try:
                found = self.cache.load_value(value)
            except KeyError:
                raise KeyError(self.core.no_value(name, value)) from None
            if name in self.core.info.content:
                self._check_content(name, found, value)
            value = found
        if is_ignored or not self.core.options.isolate:
            return value
        copied = self.copy(value)
        return value if copied is MISSING else copied
