"""What a body does beside returning a result: it draws random numbers, it changes its arguments.

A random generator that is itself an argument is part of the call: the state in which the body left
it is stored with the result, and a hit puts the caller's generator into that state, so that a
script draws the same numbers in each run. Nothing else is repeated by a hit. So a function that
draws from a generator of a module, or that changes another argument, is warned of once.

A file that a path among the arguments names is part of what the body has seen, although the key of
the call has the text of the path alone. If the body has left it as it was, what it held is stored
with the result, which is no hit any more when the file is there and holds something else. A file
that the body has written is what comes out of it, and does not count.
"""

from __future__ import annotations

import copy
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from fleche.call import CallRecord
from fleche.digest import BufferDigests, Digest, digest_arguments, read_content
from fleche.errors import Indigestible

__all__ = [
    "ModuleGenerators",
    "changed_arguments",
    "changed_files",
    "copy_generator",
    "find_generators",
    "read_files",
    "restore_generators",
    "same_generators",
    "stamps_of",
    "states_of",
]

IMMUTABLE = (type(None), bool, int, float, complex, str, bytes, frozenset, type, Digest)
"""Classes of arguments that no body changes."""


class Kind(NamedTuple):
    """How the state of one kind of generator is read and set."""

    read: Callable[[Any], Any]
    write: Callable[[Any, Any], object]


def _seed_of(source: Any) -> Any:
    # before numpy 1.25 the seed sequence of a bit generator had a private name only
    return getattr(source, "seed_seq", None) or getattr(source, "_seed_seq", None)


def _read_bits(source: Any) -> Any:
    spawned = getattr(_seed_of(source), "n_children_spawned", 0)
    return {"state": source.state, "spawned": spawned}


def _write_bits(source: Any, state: Any) -> None:
    source.state = state["state"]
    _write_seed(_seed_of(source), state["spawned"])


def _write_seed(seed: Any, spawned: int) -> None:
    missing = spawned - getattr(seed, "n_children_spawned", spawned)
    if missing > 0:
        seed.spawn(missing)


def _read_torch(generator: Any) -> Any:
    return generator.get_state().numpy().tobytes()


def _write_torch(generator: Any, state: Any) -> None:
    torch = sys.modules["torch"]
    generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


KINDS = {
    ("random", "Random"): Kind(lambda one: one.getstate(), lambda one, state: one.setstate(state)),
    ("numpy.random._generator", "Generator"): Kind(
        lambda one: _read_bits(one.bit_generator),
        lambda one, state: _write_bits(one.bit_generator, state),
    ),
    ("numpy.random.mtrand", "RandomState"): Kind(
        lambda one: one.get_state(legacy=False), lambda one, state: one.set_state(state)
    ),
    ("numpy.random.bit_generator", "BitGenerator"): Kind(_read_bits, _write_bits),
    ("numpy.random.bit_generator", "SeedSequence"): Kind(
        lambda one: one.n_children_spawned, _write_seed
    ),
    ("torch._C", "Generator"): Kind(_read_torch, _write_torch),
}
"""By module and name of a class that it derives from, how a generator is treated."""

_kinds: dict[type, Kind | None] = {}


def _kind_of(cls: type) -> Kind | None:
    try:
        return _kinds[cls]
    except KeyError:
        names = ((base.__module__, base.__qualname__) for base in cls.__mro__)
        found = next((KINDS[name] for name in names if name in KINDS), None)
        if len(_kinds) > 10_000:  # a program that makes classes without end
            _kinds.clear()
        _kinds[cls] = found
        return found


def find_generators(
    arguments: Mapping[str, Any], gathering: Collection[str] = ()
) -> dict[str, Any]:
    """Return the generators among arguments, by the name of each.

    Args:
        arguments: by the names of their parameters.
        gathering: those that hold what ``*args`` and ``**kwargs`` have taken, whose items count.
    """
    found = {
        name: value
        for name, value in arguments.items()
        if (_kinds[type(value)] if type(value) in _kinds else _kind_of(type(value)))
    }
    for name in gathering:
        items = _items(name, arguments.get(name, ()))
        found.update((label, value) for label, value in items if _kind_of(type(value)))
    return found


def _items(name: str, gathered: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(gathered, Mapping):
        yield from ((f"{name}[{key!r}]", value) for key, value in gathered.items())
    else:
        yield from ((f"{name}[{index}]", value) for index, value in enumerate(gathered))


def states_of(generators: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states of generators, as plain data and arrays."""
    kinds = {name: _kind_of(type(generator)) for name, generator in generators.items()}
    return {name: kind.read(generators[name]) for name, kind in kinds.items() if kind is not None}


def restore_generators(generators: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Put generators into the states that :func:`states_of` has read."""
    for name, generator in generators.items():
        kind = _kind_of(type(generator))
        if kind is not None and name in states:
            kind.write(generator, states[name])


def copy_generator(value: Any, memo: dict[int, Any]) -> Any:
    """Return a copy of a generator, and every other value itself.

    Args:
        value: an argument.
        memo: what was copied of the same call: what is passed twice is one generator still.
    """
    kind = _kind_of(type(value))
    if kind is None:
        return value
    if hasattr(value, "clone_state"):  # torch's knows no copy.copy
        return memo.setdefault(id(value), value.clone_state())
    return copy.deepcopy(value, memo)


def same_generators(generators: Mapping[str, Any]) -> list[str]:
    """Return the names of those that draw from one source: what one draws, the others do not."""
    found: dict[int, list[str]] = {}
    for name, one in generators.items():
        source = getattr(one, "bit_generator", None) or getattr(one, "_bit_generator", one)
        found.setdefault(id(source), []).append(name)
    return next((names for names in found.values() if len(names) > 1), [])


# -- what a hit does not repeat --------------------------------------------------------------------


def _frozen(state: Any) -> Any:
    if isinstance(state, dict):
        return tuple((name, _frozen(part)) for name, part in state.items())
    return state.tobytes() if hasattr(state, "tobytes") else state


MODULES: dict[str, Callable[[Any], Any]] = {
    "random": lambda module: module.getstate(),
    "numpy.random": lambda module: _frozen(
        module.mtrand._rand.get_state(legacy=False)  # noqa: SLF001 (has no other name)
    ),
    "torch.random": lambda module: _read_torch(module.default_generator),
}
"""By name, how the state of the generator that belongs to a module is read."""


class ModuleGenerators:
    """The generators that belong to modules, as they are before a body runs.

    Only modules that are loaded are looked at. A look takes some 10 to 30 us for each.

    Args:
        ignored: the modules that are not looked at.
    """

    def __init__(self, ignored: Collection[str] = ()) -> None:
        self._before: dict[str, Any] = {}
        for name in MODULES:
            if name in sys.modules and name not in ignored:
                with suppress(Exception):  # a module that is just being imported
                    self._before[name] = self._look(name)

    def _look(self, name: str) -> Any:
        return MODULES[name](sys.modules["torch" if name == "torch.random" else name])

    def changed(self) -> list[str]:
        """Return the modules whose generator is in another state now."""
        return [name for name, state in self._before.items() if self._look(name) != state]


def changed_arguments(
    arguments: Mapping[str, Any],
    digests: Mapping[str, str],
    generators: Collection[str],
    unordered: Collection[str] = (),
) -> list[str]:
    """Return the names of the arguments whose digests are not what they were.

    Args:
        arguments: as the body has left them.
        digests: what they were before.
        generators: those that are left out, since a hit repeats what happens to them.
        unordered: those in which the order of dicts does not count.
    """
    changed = []
    for name, value in arguments.items():
        held = any(each == name or each.startswith(f"{name}[") for each in generators)
        if held or isinstance(value, IMMUTABLE):
            continue
        with suppress(Exception):  # what an object raises when it is looked into
            now = digest_arguments({name: value}, BufferDigests(), unordered=frozenset(unordered))
            if now[name] != digests[name]:
                changed.append(name)
    return changed


# -- files -----------------------------------------------------------------------------------------

LARGE = 1 << 30
"""A file of more bytes is not read for a mere path: it counts by its size and its last change."""

Stamp = tuple[int, int, int, int, int]


def stamps_of(paths: Iterable[str]) -> dict[str, Stamp]:
    """Return, for those of ``paths`` that lead to files, what tells that one is written to."""
    found = {}
    for path in paths:
        with suppress(OSError, ValueError):
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode):
                place = status.st_dev, status.st_ino
                found[path] = (*place, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


def read_files(before: Mapping[str, Stamp]) -> dict[str, str]:
    """Return what files hold that the body has left as they were, to be stored with the result."""
    unchanged = {path: stamp for path, stamp in stamps_of(before).items() if stamp == before[path]}
    return {path: held for path, stamp in unchanged.items() if (held := _held(path, stamp))}


def changed_files(record: CallRecord) -> list[str]:
    """Return the files that a call has read, and that hold something else by now."""
    stored = record.notes.get("files", {})
    return [
        path
        for path, stamp in stamps_of(stored).items()
        if _held(path, stamp) not in ("", stored[path])
    ]


def _held(path: str, stamp: Stamp) -> str:
    if stamp[2] > LARGE:
        return f"{stamp[2]} bytes of {stamp[3]}"
    try:
        return read_content(path).hashed.hex()
    except (Indigestible, OSError):
        return ""
