"""What a ``joblib.Memory`` directory holds, for functions that can be imported.

joblib keeps the arguments of a call as text only. They are read back where the text is that of
plain data, numpy scalars or short arrays, and joblib's own hash of them, which is the name of the
directory, proves that they are the same. Everything else is left where it is, with the reason.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

from fleche.caches import BaseCache
from fleche.decorator import Wrapper, fleche
from fleche.errors import FlecheError, MissingExtra
from fleche.function import signature_of

__all__ = ["JoblibResult", "import_joblib"]


@dataclass(frozen=True)
class JoblibResult:
    """One result in a directory of joblib.

    Attributes:
        function: its module and name.
        path: the directory of the result, or of the function if that is left out as a whole.
        key: of the call that it has become; ``None``: it was left out.
        reason: why it was left out; ``"there already"`` is no fault.
    """

    function: str
    path: Path
    key: str | None = None
    reason: str = ""


class _LeftOut(Exception):
    """A result cannot be taken over; the argument says why."""


def import_joblib(
    directory: str | os.PathLike[str],
    cache: BaseCache,
    *,
    changed: bool = False,
    dry_run: bool = False,
) -> Iterator[JoblibResult]:
    """Save the results of a ``joblib.Memory`` in ``cache``, and yield what has become of each.

    Args:
        directory: the ``location`` of the memory, the ``joblib`` directory in it, or one above.
        cache: where they go.
        changed: take results of functions, too, whose source is another now.
        dry_run: save nothing.

    Raises:
        MissingExtra: joblib is not installed.
        FileNotFoundError: the directory holds no results of joblib.
        Rejected: ``cache`` is read-only.
    """
    _joblib()
    if not dry_run:
        cache.check_writable("import")
    root = Path(directory)
    root = root / "joblib" if (root / "joblib").is_dir() else root
    functions = sorted({path.parent for path in root.rglob("func_code.py")})
    if not functions:
        raise FileNotFoundError(f"{root}: holds no results of joblib (no func_code.py)")
    return _results(root, functions, cache, changed=changed, dry_run=dry_run)


def _results(
    root: Path, functions: list[Path], cache: BaseCache, *, changed: bool, dry_run: bool
) -> Iterator[JoblibResult]:
    for place in functions:
        parts = place.relative_to(root).parts
        if "joblib" in parts:  # which Memory makes: root is further up
            parts = parts[parts.index("joblib") + 1 :]
        name = ".".join(parts)
        try:
            function = _Function(_imported(name), place)
            if not changed:
                function.check_source()
        except _LeftOut as reason:
            yield JoblibResult(name, place, reason=str(reason))
            continue
        for result in sorted(path.parent for path in place.glob("*/output.pkl")):
            try:
                key = function.save(result, cache, dry_run=dry_run)
            except _LeftOut as reason:
                yield JoblibResult(name, result, reason=str(reason))
            else:
                yield JoblibResult(name, result, key)


class _Function:
    """A function whose results are taken over."""

    def __init__(self, found: Any, place: Path) -> None:
        self._place = place
        self._wrapper: Wrapper[..., Any] = found if isinstance(found, Wrapper) else fleche(found)
        self._plain: Callable[..., Any] = inspect.unwrap(found)

    def check_source(self) -> None:
        """Raise if the source is another than that which joblib has noted."""
        noted = (self._place / "func_code.py").read_text(encoding="utf-8", errors="replace")
        try:
            now = inspect.getsource(self._plain)
        except (OSError, TypeError):
            raise _LeftOut("its source is not known") from None
        if _syntax(noted) != _syntax(now):
            raise _LeftOut("its code has changed since (--changed takes the results all the same)")

    def save(self, place: Path, cache: BaseCache, *, dry_run: bool) -> str:
        """Save one result, and return its key."""
        noted = _noted(place)
        args, kwargs = self._arguments(noted.get("input_args", {}), place.name)
        try:
            call = self._wrapper.call(*args, **kwargs)
            key = call.key
        except (TypeError, FlecheError) as error:
            raise _LeftOut(f"cannot be called so now: {error}") from None
        if cache.contains(key):
            raise _LeftOut("there already")
        if dry_run:
            return key
        try:
            call.result = _joblib().load(place / "output.pkl")
        except Exception as error:  # noqa: BLE001 (unpickling runs the code of any class)
            raise _LeftOut(
                f"the result cannot be loaded: {type(error).__name__}: {error}"
            ) from None
        runtime = _runtime(noted)
        call.metadata = {"runtime": runtime, "imported": {"from": "joblib"}}
        call.duration = runtime.get("seconds")
        return cache.save(call)

    def _arguments(self, texts: Mapping[str, str], name: str) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments that the texts spell, if they are those of the directory."""
        values = {each: _value(text, each) for each, text in texts.items()}
        rest, named = values.pop("*", []), values.pop("**", {})
        args: list[Any] = []
        kwargs: dict[str, Any] = dict(named)
        ignored = []
        positional = True
        for parameter in signature_of(self._plain).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if parameter.name not in values:
                ignored.append(parameter.name)
                positional = False  # what follows can be passed by its name only
            elif positional and parameter.kind is not parameter.KEYWORD_ONLY:
                args.append(values[parameter.name])
            else:
                kwargs[parameter.name] = values[parameter.name]
        args += rest
        if self._hash(args, kwargs, ignored) != name:
            raise _LeftOut("its arguments are not known exactly: joblib keeps them as text")
        return args, kwargs

    def _hash(self, args: list[Any], kwargs: dict[str, Any], ignored: list[str]) -> str:
        joblib = _joblib()
        filtered = joblib.func_inspect.filter_args(self._plain, ignored, args, kwargs)
        found: str = joblib.hashing.hash(filtered)
        return found


def _joblib() -> Any:
    try:
        import joblib
        import joblib.func_inspect
        import joblib.hashing
    except ImportError:
        raise MissingExtra("results of joblib need joblib: pip install joblib") from None
    return joblib


def _imported(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    module = module.removeprefix("__main__-") if module.startswith("__main__-") else module
    try:
        found: Any = import_module(module)
    except Exception as error:  # noqa: BLE001 (importing runs any code)
        raise _LeftOut(f"{module} cannot be imported: {error}") from None
    found = getattr(found, attribute, None)
    if not callable(found):
        raise _LeftOut(f"{module} has no function {attribute}")
    return getattr(found, "func", found) if type(found).__module__.startswith("joblib") else found


def _syntax(source: str) -> str:
    """Return what counts of a source: without decorators, comments and positions."""
    if source.startswith("# first line"):
        source = source.partition("\n")[2]
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.decorator_list = []
            break
    return ast.dump(tree)


def _noted(place: Path) -> dict[str, Any]:
    try:
        found = json.loads((place / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise _LeftOut("its arguments are not noted (no metadata.json)") from None
    return found if isinstance(found, dict) else {}


def _runtime(noted: Mapping[str, Any]) -> dict[str, Any]:
    took, ended = noted.get("duration"), noted.get("time")
    found: dict[str, Any] = {}
    if isinstance(took, int | float):
        found["seconds"] = float(took)
    if isinstance(ended, int | float):
        began = datetime.fromtimestamp(ended - found.get("seconds", 0.0), timezone.utc)
        found["started"] = began.isoformat(timespec="microseconds")
    return found


# -- arguments as text -----------------------------------------------------------------------------


def _value(text: str, name: str) -> Any:
    """Return what a repr spells; nothing of it is evaluated as code."""
    try:
        return _read(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise _LeftOut(f"{name} is kept as text only: {text[:60]}") from None


_NAMES = {"nan": math.nan, "inf": math.inf}


def _read(tree: ast.expr) -> Any:
    if isinstance(tree, ast.Call):
        return _read_numpy(tree)
    if isinstance(tree, ast.Name) and tree.id in _NAMES:
        return _NAMES[tree.id]
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_read(tree.operand)
    if isinstance(tree, ast.List | ast.Tuple | ast.Set):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(tree)]
        return kind(map(_read, tree.elts))
    if isinstance(tree, ast.Dict):
        pairs = zip(tree.keys, tree.values, strict=True)
        return {_read(_given(key)): _read(each) for key, each in pairs}
    return ast.literal_eval(tree)


def _given(key: ast.expr | None) -> ast.expr:
    if key is None:
        raise ValueError("no key")
    return key


def _read_numpy(tree: ast.Call) -> Any:
    """Return a scalar (``np.float64(0.5)``) or an array (``array([1, 2])``) of numpy."""
    import numpy as np

    name = tree.func.attr if isinstance(tree.func, ast.Attribute) else getattr(tree.func, "id", "")
    if len(tree.args) != 1:
        raise ValueError(name)
    value = _read(tree.args[0])
    if name in ("set", "frozenset"):
        return (set if name == "set" else frozenset)(value)
    if name == "array":
        dtype = next((each.value for each in tree.keywords if each.arg == "dtype"), None)
        kind = getattr(dtype, "id", None) or getattr(dtype, "value", None)
        return np.array(value, dtype=kind)
    kind = getattr(np, name, None)
    if isinstance(kind, type) and issubclass(kind, np.generic):
        return kind(value)
    raise ValueError(name)
