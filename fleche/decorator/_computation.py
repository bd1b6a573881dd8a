"""The computing of a call: what comes before the body, and what comes after it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from fleche.call import MISSING, SMALL, CallEntry, CallRecord, plain_metadata
from fleche.decorator._effects import (
    ModuleGenerators,
    changed_arguments,
    find_generators,
    read_files,
    stamps_of,
    states_of,
)
from fleche.decorator._futures import defer, kind_of
from fleche.decorator._invocation import LOUD, KeyedInvocation
from fleche.decorator._recursion import stack_room
from fleche.decorator._singleflight import Flight, flights, inside, note_child
from fleche.decorator._warnings import is_out_of_stack
from fleche.digest import Digest, read_content
from fleche.errors import Indigestible, Rejected
from fleche.function import ENTRY, Closure
from fleche.metadata import Collecting

if TYPE_CHECKING:
    from fleche.caches import PendingCall
    from fleche.decorator._locking import ComputeLock

__all__ = ["Computation", "Drawn"]

log = logging.getLogger("fleche.decorator")

_UNSTORED = "the result is not stored"
_DRAWS = "draws"
_CHANGES = "changes"

_CHEAP = 5e-3
"""Small arguments are digested again after the body if that takes no more seconds, ..."""

_SHARE = 0.02
"""... and all arguments if it takes no more of the time that the body took."""


class Computation:
    """The computing of one invocation: what comes before the body and what comes after it.

    Args:
        invocation: the call.
        flight: what other callers wait for; it lands here in any case.
        lock: what keeps other processes from computing the same; it is released here.
        keep: store the result; if not, it is stored elsewhere.
    """

    def __init__(
        self,
        invocation: KeyedInvocation,
        flight: Flight,
        lock: ComputeLock | None = None,
        *,
        keep: bool = True,
    ) -> None:
        self.invocation = invocation
        self.spec = invocation.spec
        self.flight = flight
        self._lock = lock
        self._keep = keep
        self._pending: PendingCall | None = None
        self._collecting: Collecting | None = None
        self._drawn_by: Mapping[str, Any] = {}
        self._files: dict[str, Any] = {}
        self._states: dict[str, Any] = {}
        self._modules: ModuleGenerators | None = None
        self._began = 0.0
        self._duration: float | None = None

    def enter(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Begin a body that runs in this thread or task; return what to call it with.

        In any case :meth:`leave`, or what includes it, comes afterwards.
        """
        around = inside.get()
        if around and not self.spec.is_async:  # a task has a stack of its own
            stack_room.enter(len(around))
        inside.set((*around, self.flight))
        args, kwargs = self.begin()
        if self._pending is not None:
            if not self.invocation.simple:
                self._drawn_by = self._find_generators(args, kwargs)
            if self.spec.looks_for_draws or self.spec.warner.was_made(_DRAWS):
                self._watch_modules()
        self._began = perf_counter()
        return args, kwargs

    def leave(self) -> None:
        """End the body. Idempotent; only the context that it runs in is left.

        A task that is destroyed unfinished is in another one.
        """
        around = inside.get()
        if not around or around[-1] is not self.flight:
            return
        self._duration = perf_counter() - self._began
        if not self.spec.is_async:
            stack_room.leave(len(around) - 1)
        inside.set(around[:-1])

    def _find_generators(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        """Return the generators that the body draws from: its own copies, if it is isolated."""
        invocation = self.invocation
        if args is invocation.args and not self.spec.options.isolate:
            return invocation.generators
        return find_generators(self.spec.info.bind(args, kwargs), self.spec.gathering)

    def _watch_modules(self) -> None:
        spec = self.spec
        if spec.warner.was_made(_DRAWS):
            self._note_draws()
        # with other computations beside it, whose draws they are cannot be told
        elif spec.looks_for_draws and not spec.is_async and not flights.others_run():
            spec.looks_for_draws -= 1
            self._modules = ModuleGenerators(spec.options.ignore_globals)

    def _note_draws(self) -> None:
        """Let the bodies around this one know whose draws they are."""
        for flight in inside.get():
            flight.drew |= flight is not self.flight

    def begin(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Store the arguments, start the collectors, and return what to call the body with."""
        invocation = self.invocation
        body = invocation.body_arguments()
        if self._keep:
            self._pending = self._prepare()
        if not invocation.simple:  # what digesting made is not kept while the body runs
            invocation.identity.buffers.clear()
        if self._pending is not None:
            if not invocation.simple:
                self._files = stamps_of(invocation.identity.buffers.paths)
            self._collecting = Collecting(
                self.spec.collectors(),
                self.spec.function,
                self._complain_of_collector,
                lambda: self.spec.make_call(invocation.arguments),
            )
        return body

    def _prepare(self) -> PendingCall | None:
        invocation = self.invocation
        try:
            identity, arguments = invocation.identity, invocation.arguments
            if self.spec.info.secret:
                arguments = self.spec.concealed(arguments)
            record = self.spec.make_record(arguments, identity)
            return invocation.cache.prepare_digested(
                identity.key, record, arguments, identity.buffers, self.spec.info.content
            )
        except LOUD:
            raise
        except Exception as error:
            if is_out_of_stack(error):
                raise
            self._complain("prepare", error)
            return None

    def finish(self, result: Any) -> Any:
        """End a body that has returned ``result``; return what the caller gets.

        If it raises, :meth:`fail` comes next.
        """
        self.leave()
        kind = kind_of(result)
        note_child(self.invocation.key)
        if kind:
            return defer(self, result, kind, kind)
        return self.succeed(result)

    def succeed(self, result: Any, returns: str = "") -> Any:
        """Store the result and let the flight land; return what the caller gets.

        Args:
            result: what the body returned.
            returns: the kind of future that held it, if one did.
        """
        try:
            if isinstance(result, Drawn):
                result, self._states = result
            self._commit(result, returns)
            spare = self._spare(result)
            result = self.invocation.own(result)
        except BaseException as error:
            self._land(MISSING, error)
            raise
        self._land(result, spare=spare)
        return result

    def _spare(self, result: Any) -> Any:
        """Return a copy for the waiting callers, if they will not find the result in the cache.

        It is made before the result is handed out: its new owner may change it.
        """
        if not self.flight.joined or self._is_stored():
            return MISSING
        return self.invocation.copy(result)

    def _is_stored(self) -> bool:
        try:
            return not self.invocation.lost and self.invocation.cache.contains(self.invocation.key)
        except Exception:  # noqa: BLE001 (of any cache)
            return False

    def _commit(self, result: Any, returns: str) -> None:
        pending, collecting = self._pending, self._collecting
        # Collectors lead back to this object: what a call leaves behind is no cycle, which would
        # keep its arguments alive until the next collection of garbage.
        self._pending = self._collecting = None
        if pending is None or collecting is None:
            return
        files = self.invocation.identity.buffers.files
        if self._has_changed_globals() or (files and self._has_changed_files()):
            self._abandon(pending)
            return
        self._tell(pending.record)
        spec = self.spec
        try:
            if isinstance(result, Digest):
                raise Indigestible("the result is a Digest, which in a cache stands for its value")
            fields = {
                "metadata": self._metadata(collecting.finish(result)),
                "returns": returns,
                "duration": self._duration,
                "children": tuple(self.flight.children),
            }
            drawn_by, states = self._drawn_by, self._states
            pending.store(result, states_of(drawn_by) if drawn_by else states, fields)
            spec.keep_sources(self.invocation.identity)
            if spec.warner.had_outages:
                spec.warner.settle("prepare", "save", "abandon")
        except Exception as error:
            if is_out_of_stack(error):
                raise
            self._complain("save", error)
        finally:
            if not pending.is_over:
                self._abandon(pending)

    def _tell(self, record: CallRecord) -> None:
        """Warn of what a hit would not repeat."""
        closure = self.invocation.identity.closure
        if closure is not None and closure.unsteady and self.spec.hashes_code:
            self._tell_of_unsteady(closure)
        if self._modules is not None:
            self._tell_of_draws(self._modules)
        if not self.invocation.simple:
            self._tell_of_changes(record)

    def _metadata(self, found: dict[str, Any]) -> dict[str, Any]:
        """Return what was collected, and what is noted beside it."""
        rules = self.spec.rules
        if self._files or rules is not None:
            notes: dict[str, Any] = {}
            if self._files and (files := read_files(self._files)):
                notes["files"] = files
            if rules is not None and rules.expires is not None:
                notes["computed"] = datetime.now(timezone.utc).isoformat()
            if notes:
                found["fleche"] = plain_metadata(notes)
        return found

    def save_entries(self, entries: Mapping[Digest, CallEntry]) -> None:
        """Save what a worker has left to this process."""
        try:
            self.invocation.cache.backend.save(entries)
        except Exception as error:  # noqa: BLE001 (as in _prepare)
            self._complain("save", error)

    def _has_changed_globals(self) -> bool:
        """Whether data that the key speaks of is not what it was, through the body or beside it."""
        closure = self.invocation.identity.closure
        if closure is None or not self.spec.hashes_code:
            return False
        changed = closure.changed_data()
        if not changed:
            return False
        # of a variable that a function has captured, a closure says `function[name]`
        captured = [label[label.rindex("[") + 1 : -1] for label in changed if label.endswith("]")]
        names = " and ".join(f"`{name}`" for name in captured or changed)
        if captured:
            reason = f"captured:{names}"
            said = (
                f"never hits, and {_UNSTORED}, since {names}, which it captured, changed while it "
                "ran. Pass it as an argument, or make it anew inside the function"
            )
        elif ENTRY in changed:
            reason = ENTRY
            said = (
                f"{_UNSTORED}, since the object that it is bound to changed while it ran, and a "
                "hit would not repeat that. Decorate a function that takes the object as an "
                "argument"
            )
        else:
            reason = f"globals:{names}"
            said = (
                f"{_UNSTORED}, since {names} changed while it ran, and a hit would not repeat "
                "that. Pass it as an argument, make it anew inside the function, or, if the result "
                "does not depend on it, say "
                f"@fleche(ignore_globals={changed[0].rpartition(':')[2]!r})"
            )
        self.spec.warner.warn(reason, f"{self.spec.info.name}(): {said}")
        return True

    def _tell_of_unsteady(self, closure: Closure) -> None:
        """Warn, once, of a variable that cannot be told from what it was in another run."""
        for label, kind in closure.unsteady.items():
            plain = label.rpartition(":")[2]
            self.spec.warner.warn(
                f"unsteady:{label}",
                f"{self.spec.info.name}(): uses `{plain}`, whose digest changes whenever it is "
                f"taken: of a {kind} counts only how it is made. What the function reads from it "
                "is not seen, and a hit does nothing to it. Make it inside the function, or, if "
                f"this does not matter, say @fleche(ignore_globals={plain!r})",
            )

    def _tell_of_draws(self, modules: ModuleGenerators) -> None:
        """Warn, once, of a body that draws from a generator which no argument holds."""
        self._modules = None
        if self.flight.drew or flights.others_run():
            return
        if changed := modules.changed():
            self._note_draws()
            names = " and ".join(changed)
            self.spec.warner.warn(
                _DRAWS,
                f"{self.spec.info.name}(): draws from the generator of the module {names}, or "
                "seeds it: the key of a call does not tell in which state that is, and a hit does "
                "not draw. Pass a generator as an argument (numpy.random.default_rng(seed), "
                "random.Random(seed)), whose state a hit leaves as the function does; if this does "
                f"not matter, say @fleche(ignore_globals={changed[0]!r})",
            )

    def _tell_of_changes(self, record: CallRecord) -> None:
        """Warn, once, of a body that changes its arguments, where it is cheap to find that out."""
        spec, identity = self.spec, self.invocation.identity
        if self._duration is None or spec.options.isolate or spec.warner.was_made(_CHANGES):
            return
        size = sum(ref.size for ref in record.arguments.values())
        if identity.seconds > max(_CHEAP if size <= SMALL else 0.0, self._duration * _SHARE):
            return
        paths = spec.info.content  # what they name is looked at by itself
        arguments = self.invocation.arguments
        kept = {name: value for name, value in arguments.items() if name not in paths}
        changed = changed_arguments(kept, identity.digests, self._drawn_by, spec.info.unordered)
        if changed:
            names = " and ".join(map(repr, changed))
            one = len(changed) == 1
            spec.warner.warn(
                _CHANGES,
                f"{spec.info.name}(): changes its {'argument' if one else 'arguments'} {names}, "
                "which a hit does not repeat. Let it work on a copy and return that, or say "
                "@fleche(isolate=True), which gives the function copies",
            )

    def _has_changed_files(self) -> bool:
        """Whether a file whose content is part of the key is not what it was when the call began.

        What the body has read then was perhaps not what the key says.
        """
        for path, before in self.invocation.identity.buffers.files.items():
            with suppress(Indigestible):
                if read_content(path) == before:
                    continue
            self.spec.warner.warn(
                f"files:{path}",
                f"{self.spec.info.name}(): {_UNSTORED}, since {path}, whose content is part of the "
                "key, changed while it ran. Let the function write to another file, and let "
                "nothing else write to this one meanwhile",
            )
            return True
        return False

    def fail(self, error: BaseException | None = None) -> None:
        """Forget the call, and let the flight land without a result. Idempotent.

        Args:
            error: what the body has raised; without it, the body was cancelled.
        """
        try:
            self.leave()
            pending, collecting = self._pending, self._collecting
            self._pending = self._collecting = None
            if pending is not None:
                self._keep_error(pending, collecting, error)
                self._abandon(pending)
        finally:
            self._land(MISSING, error)

    def _keep_error(
        self, pending: PendingCall, collecting: Collecting | None, error: BaseException | None
    ) -> None:
        """Store an exception that is to be kept like a result."""
        rules = self.spec.rules
        if rules is None or collecting is None or not isinstance(error, rules.errors):
            return
        try:
            fields = {
                "metadata": self._metadata(collecting.finish()),
                "duration": self._duration,
                "children": tuple(self.flight.children),
            }
            pending.store_error(error, fields)
        except Exception as problem:  # noqa: BLE001 (as in _prepare)
            self._complain("save", problem)

    def _land(self, result: Any, error: BaseException | None = None, spare: Any = MISSING) -> None:
        """Let the waiting callers go on, here and in other processes."""
        self.invocation.remove_directories()
        if self._lock is not None:
            self._lock.release()
        # Others who wait compute anew, but for those who share a task or a future. The error leads
        # back to this object: what a call leaves behind is no cycle.
        is_shared = self.spec.is_async or self.flight.deferred is not None
        flights.land(self.flight, result, error if is_shared else None, spare)

    def _abandon(self, pending: PendingCall) -> None:
        try:
            pending.abandon()
        except Exception as error:  # noqa: BLE001 (it must not hide what the body did)
            self._complain("abandon", error)

    def _complain(self, step: str, error: Exception) -> None:
        if self.invocation.lost:
            level = logging.WARNING if self.spec.warner.is_new("lost") else logging.DEBUG
            log.log(level, "call %s: %s: %s", self.invocation.key[:12], _UNSTORED, error)
            return
        if isinstance(error, Indigestible):
            advice = (
                "Return a value that can be stored: a list, not an iterator; text, not a Digest"
            )
        elif isinstance(error, Rejected):
            advice = "Activate a cache that takes it: fleche.cache(...)"
        elif isinstance(error, RecursionError):
            advice = "It nests deeper than can be pickled: flatten it, or sys.setrecursionlimit()"
        else:
            advice = "Mend what is wrong with the cache, or with pickling the value"
        self.spec.warner.warn_error(step, error, _UNSTORED, advice)

    def _complain_of_collector(self, name: str, error: Exception) -> None:
        if is_out_of_stack(error):
            raise error
        self.spec.warner.warn_error(
            f"metadata {name}",
            error,
            f"metadata {name!r} is left out",
            "The result is not affected",
        )


class Drawn(NamedTuple):
    """What a worker returns of a body that draws: its result, and the states of its generators."""

    result: Any
    states: dict[str, Any]
