"""One call on its way: from its arguments to the cache, and back or through the function's body.

A failing cache never stops the function. What it raises becomes one warning, and the call goes on
without it. A cache that cannot be asked may still be able to store, as a stack can whose far layer
is out of reach: what has been computed is offered to it all the same. Only a mistake that a person
has to mend is raised: a broken configuration, a missing package, an ambiguous digest, and, of a
cache that is told to be strict, a damaged value.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from fleche.call import MISSING
from fleche.decorator._complaints import is_out_of_stack
from fleche.decorator._core import Core, Seal
from fleche.decorator._effects import find_generators, restore_generators
from fleche.decorator._flights import Flight, note_child
from fleche.decorator._passage import Passage
from fleche.errors import AmbiguousDigestError, ConfigError, MissingExtra, ParcelError

if TYPE_CHECKING:
    from fleche.caches import BaseCache
    from fleche.call import LazyCall

__all__ = ["LOUD", "Journey", "depart"]

LOUD = (AmbiguousDigestError, ConfigError, MissingExtra)
"""The mistakes that a person has to mend."""


def depart(
    core: Core, cache: BaseCache, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Passage | Journey:
    """Seal the key of a call; a mere :class:`Passage` is returned if it is none to be cached.

    Raises:
        TypeError: the function cannot be called so.
        KeyError: a digest among the arguments stands for no value.
        AmbiguousDigestError: a short one stands for several.
    """
    info = core.info
    passage = Passage(core, cache, args, kwargs)
    try:
        arguments = info.bind(args, kwargs)
    except TypeError as error:
        if not info.borrowed:
            raise
        core.complaints.about(
            "signature",
            error,
            "runs uncached, since a wrapper of this function may take what the function does not",
            "Let the wrapper name its parameters, instead of *args and **kwargs",
        )
        return passage
    if info.required and info.missing_required(arguments, info.explicit(args, kwargs)):
        return passage
    core.expanded(arguments, cache)
    try:
        seal = core.seal(arguments)
    except Exception as error:
        if is_out_of_stack(error):
            raise
        core.complaints.about(
            "arguments",
            error,
            "runs uncached, since something in its arguments or its code has no digest",
            "If the result does not depend on it, ignore it: @fleche(ignore=...) or Ignored[...], "
            "and @fleche(hash_code=False) for the code; if it does, give its class a __digest__ "
            "method",
        )
        return passage
    return Journey(core, cache, args, kwargs, arguments, seal)


class Journey(Passage):
    """A call with its key.

    Attributes:
        arguments: the arguments in their canonical form.
        seal: what digesting the arguments has found.
        key: the key, of the arguments as they were at the beginning.
        slot: what identical calls at the same time have in common.
        generators: the random generators among the arguments that a call advances; by name.
        lost: the cache could not be asked when it was last looked into, and that has been said.
    """

    def __init__(
        self,
        core: Core,
        cache: BaseCache,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        arguments: dict[str, Any],
        seal: Seal,
    ) -> None:
        super().__init__(core, cache, args, kwargs)
        self.arguments = arguments
        self.seal = seal
        self.key = seal.key
        self.slot: Hashable = (id(cache), seal.key)
        self.lost = False
        self.generators: dict[str, Any] = {}
        if not core.options.isolate:
            self.generators = find_generators(arguments, core.gathering)
        self._states: dict[str, Any] = {}

    def look(self) -> Any:
        """Return the stored call, or ``None``: there is none, or the cache cannot be asked."""
        self.lost = False
        try:
            hit = self.cache.lookup(self.key)
        except (*LOUD, ParcelError):
            raise
        except Exception as error:
            if is_out_of_stack(error):
                raise
            self.core.complaints.about(
                "lookup",
                error,
                "runs without looking for a stored result, since the cache failed",
                "The new result is stored if the cache can do that at least. "
                "Mend the cache, or activate another: fleche.cache(...)",
            )
            self.lost = True
            return None
        self.core.complaints.settle("lookup")
        if hit is not None:
            if self.generators and not self._open_states(hit):
                return None  # it could not advance the generators as the body does
            self.core.check_code(hit.record, self.seal)
        return hit

    def _open_states(self, hit: LazyCall) -> bool:
        """Open the states that the generators were left in; return whether all are there."""
        try:
            self._states = {name: hit.states[name] for name in self.generators}
        except (KeyError, ParcelError):
            return False
        return True

    def answer(self, hit: LazyCall) -> LazyCall:
        """Let a hit, which :meth:`look` has returned, be the answer to this call.

        It counts for the body that has made the call, and advances generators as the body would.
        """
        note_child(self.key)
        if self.generators:
            restore_generators(self.generators, self._states)
        return hit

    def share(self, flight: Flight) -> Any:
        """Return what another caller has computed, as one's own; ``MISSING`` if there is none."""
        hit = self.look()
        if hit is not None:
            return self.answer(hit).result
        if flight.spare is MISSING or self.generators:
            return MISSING
        note_child(self.key)
        return self.copy(flight.spare)
