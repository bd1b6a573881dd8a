"""What a decorated function offers beside being called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from fleche.call import Call, LazyCall
from fleche.decorator._core import Core
from fleche.decorator._flights import Flight
from fleche.decorator._journey import Journey, depart
from fleche.decorator._run import approach, compute_async, run, run_async, run_body
from fleche.decorator._work import Work
from fleche.digest import Digest
from fleche.function import Dependencies, Transparent

if TYPE_CHECKING:
    from fleche.caches import BaseCache, QueryIterator
    from fleche.decorator._explain import Explanation
    from fleche.decorator.bound import BoundWrapper
    from fleche.metadata import MetaData

__all__ = ["Surface"]

P = ParamSpec("P")
R = TypeVar("R")


class Surface(Transparent, Generic[P, R]):
    """A function whose results are kept.

    Every method that takes arguments takes those of the function.

    Attributes:
        core: the function, its options, and what makes the keys of its calls.
        lead: the object whose method it is, if it is one.
    """

    core: Core
    lead: tuple[Any, ...] = ()

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the stored result, or compute it and store it."""
        core = self.core
        if core.is_async:
            return run_async(core, core.cache(), (*self.lead, *args), kwargs)  # type: ignore[return-value]
        step, result = approach(core, core.cache(), (*self.lead, *args), kwargs)
        if step is None:
            return result  # type: ignore[no-any-return]
        # As in run_body(), but here: so a nested call adds one frame to that of its body, and a
        # recursion gets deep.
        try:
            given, named = step.enter()
            result = core.function(*given, **named)
        except BaseException as error:
            step.fail(error)
            raise
        return step.finish(result)  # type: ignore[no-any-return]

    def call_with(self, cache: BaseCache, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function with another cache than the active one."""
        answer = run_async if self.core.is_async else run
        return answer(self.core, cache, (*self.lead, *args), kwargs)  # type: ignore[return-value]

    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> Call:
        """Return the :class:`~fleche.call.Call` that these arguments make, without running it."""
        return self.core.make_call(self.core.info.bind((*self.lead, *args), kwargs))

    def digest(self, /, *args: P.args, **kwargs: P.kwargs) -> Digest:
        """Return the key of a call.

        Raises:
            Indigestible: an argument has no digest.
            KeyError: a short digest among the arguments stands for no value.
        """
        core = self.core
        arguments = core.info.bind((*self.lead, *args), kwargs)
        return core.seal(core.expanded(arguments, core.cache())).key

    def contains(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Tell whether the active cache has the result, without loading it."""
        return self.core.cache().contains(self.digest(*args, **kwargs))

    def load(self, /, *args: P.args, **kwargs: P.kwargs) -> LazyCall:
        """Return the stored call.

        Raises:
            KeyError: there is none.
        """
        key = self.digest(*args, **kwargs)
        try:
            return self.core.cache().load(key)
        except KeyError:
            raise KeyError(
                f"{self.core.info.name}(): no result is stored for these arguments (key {key[:12]})"
            ) from None

    def rerun(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compute, whatever is stored, and replace it by the new result."""
        core = self.core
        journey = depart(core, core.cache(), (*self.lead, *args), kwargs)
        if not isinstance(journey, Journey):
            return journey.alone()  # type: ignore[no-any-return]
        if core.is_async:
            return compute_async(journey, Flight())  # type: ignore[return-value]
        return run_body(Work(journey, Flight()), core)  # type: ignore[no-any-return]

    def query(self, /, **fields: Any) -> QueryIterator:
        """Return the stored calls of this function: ``query(arguments={"x": 3})``.

        Args:
            fields: further conditions, as for :meth:`fleche.caches.BaseCache.query`.
        """
        core = self.core
        fields.setdefault("name", core.info.name)
        if core.options.hash_module:
            fields.setdefault("module", core.info.module)
        return core.cache().query(**fields)

    def bind(
        self,
        *,
        cache: BaseCache | str | None = None,
        meta: tuple[MetaData, ...] | None = None,
    ) -> BoundWrapper[P, R]:
        """Return the function with cache, metadata and tags frozen, for another thread or process.

        Args:
            cache: which cache, if not the active one.
            meta: which collectors, if not the active ones.
        """
        from fleche.decorator.bound import BoundWrapper

        return BoundWrapper(self, cache=cache, meta=meta)

    def explain(self, /, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """Say, without computing, whether a call would hit, and if not, why."""
        from fleche.decorator._explain import explain

        core = self.core
        return explain(core, core.cache(), (*self.lead, *args), kwargs)

    def dependencies(self, /, *args: P.args, **kwargs: P.kwargs) -> Dependencies:
        """Return what results depend on besides the arguments: names, kinds and digests.

        Args:
            args: those of a call, whose functions and objects bring code of their own, or none.
            kwargs: likewise.
        """
        core = self.core
        given = (*self.lead, *args)
        arguments = core.info.bind(given, kwargs) if args or kwargs else {"": given}
        return core.dependencies(arguments)

    def __digest__(self) -> Any:
        """Return what tells this function from others: itself as written, and its version."""
        return ("fleche", self.core.function, self.core.options.version, self.lead)
