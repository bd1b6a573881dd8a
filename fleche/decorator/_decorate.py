"""The decorator: from a function and some options to a wrapper."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar, get_args, overload

import msgspec

from fleche import state
from fleche._amounts import as_age
from fleche.call import Version, plain_version
from fleche.decorator._function import BoundMethod, Wrapper
from fleche.decorator._rules import Rules
from fleche.decorator._spec import Coalesce, FunctionSpec, Options
from fleche.digest import digest, remember_file
from fleche.function import Depends, FunctionInfo, inspect_function, version_of

if TYPE_CHECKING:
    from fleche.caches import BaseCache
    from fleche.metadata import MetaData

__all__ = ["Decorator", "fleche"]

_FILLERS = ("__init__", "__post_init__", "__attrs_post_init__", "model_post_init", "__setstate__")
"""Methods whose only work is to give their object its attributes."""

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class Decorator(Protocol):
    """What ``fleche(...)`` with options returns."""

    @overload
    def __call__(self, function: classmethod[S, P, R], /) -> classmethod[S, P, R]: ...

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: staticmethod[P, R], /
    ) -> staticmethod[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Wrapper[P, R]: ...

    def __call__(self, function: Any, /) -> Any:
        """Return the decorated function, or the class method or static method of one."""
        ...


@overload
def fleche(function: classmethod[S, P, R], /) -> classmethod[S, P, R]: ...


@overload
def fleche(  # type: ignore[overload-overlap]
    function: staticmethod[P, R], /
) -> staticmethod[P, R]: ...


@overload
def fleche(function: Callable[P, R], /) -> Wrapper[P, R]: ...


@overload
def fleche(
    *,
    version: Version = None,
    meta: Iterable[MetaData | str | type[MetaData]] | MetaData | str | type[MetaData] = (),
    isolate: bool | Literal["directory"] = False,
    hash_version: bool = True,
    hash_module: bool = True,
    hash_code: bool | None = None,
    require: str | Iterable[str] = (),
    ignore: str | Iterable[str] = (),
    depends: Depends | Iterable[Depends] = (),
    ignore_globals: str | Iterable[str] = (),
    cache: BaseCache | str | None = None,
    coalesce: Coalesce = "threads",
    expires: timedelta | str | None = None,
    stale: bool = False,
    validate: Callable[[Any], Any] | None = None,
    errors: type[BaseException] | Iterable[type[BaseException]] = (),
    added: Mapping[str, Any] | None = None,
    renamed: Mapping[str, str] | None = None,
) -> Decorator: ...


def fleche(
    function: Any = None,
    /,
    *,
    version: Version = None,
    meta: Any = (),
    isolate: bool | Literal["directory"] = False,
    hash_version: bool = True,
    hash_module: bool = True,
    hash_code: bool | None = None,
    require: str | Iterable[str] = (),
    ignore: str | Iterable[str] = (),
    depends: Depends | Iterable[Depends] = (),
    ignore_globals: str | Iterable[str] = (),
    cache: BaseCache | str | None = None,
    coalesce: Coalesce = "threads",
    expires: timedelta | str | None = None,
    stale: bool = False,
    validate: Callable[[Any], Any] | None = None,
    errors: type[BaseException] | Iterable[type[BaseException]] = (),
    added: Mapping[str, Any] | None = None,
    renamed: Mapping[str, str] | None = None,
) -> Any:
    """Keep the results of a function: ``@fleche`` or ``@fleche(version=2, ...)``.

    A call whose result is in the active cache returns that result; any other runs the function and
    stores what it returns, ``None`` too, with the arguments as they were before. What tells calls
    apart is the name and module of the function, its version or, without one, its code and all of
    the user's own code and data that it depends on, and the values of its arguments, however they
    are passed. An exception is not a result: it is passed on, and nothing is stored.

    A :class:`~fleche.digest.Digest` among the arguments stands for its value, which is only loaded
    if the function has to run. Identical calls at the same time, in threads or tasks of one
    process, compute once. If the cache fails or an argument has no digest, the function runs
    uncached, with one :class:`FlecheWarning`.

    Coroutine functions are awaited on a miss only. Of a function that returns a future the result
    is stored when it is there, and a hit is a future that is done. Methods are decorated like
    functions; the value of ``self`` counts as an argument.

    Args:
        function: what is decorated. A function that is decorated already keeps what is not said
            anew: each option that is left at its default, and the parameters that were named.
        version: change it when the function computes something else: a number or a string.
        meta: collectors for this function, beside the active ones.
        isolate: give the function copies of its arguments, and the caller a copy of its result, as
            a hit does: what either of them changes later, the other does not see. Ignored arguments
            are not copied. ``"directory"`` lets the function run in an empty working directory,
            which is removed afterwards; files that its result names are stored before. Since a
            process has one working directory, such functions run one after the other.
        hash_version: let the version count.
        hash_module: let the module count; without, the function may move.
        hash_code: let the code count, and what it depends on. By default it does where no version
            is given; a version speaks for the code, and a hit on the result of other code is then a
            warning that names what has changed.
        require: parameters that must be passed and not be ``None`` for the call to be cached.
        ignore: parameters that do not count and are not stored.
        depends: what else the results depend on, and no code shows: functions without parameters,
            whose values count at each call, and names of distributions, whose versions count.
        ignore_globals: variables of modules that do not count, as ``name`` or ``module.name``.
        cache: a cache, or its name, instead of the active one.
        coalesce: with ``"processes"``, identical calls at the same time compute once in all
            processes that share a cache in files, SQLite or PostgreSQL, not only in the threads of
            each. If the one who computes is killed, another takes over after half a minute.
            Processes that share nothing but a remote cache do not know of each other: there each
            computes, and the last one to save is kept.
        expires: compute anew what is older: a :class:`~datetime.timedelta`, or ``"30d"``, ``"6h"``.
        stale: return what has expired all the same, and compute it anew in a thread, for the next
            call.
        validate: is called with a stored result; if it is false, the function runs again.
        errors: exceptions that are kept like results: the call raises them again without running.
            Others are never kept.
        added: parameters that the function did not have before, each with the value at which it
            does what it did: ``{"solver": "cg"}``. A call with that value has the key that it had.
        renamed: parameters by the names that they had before: ``{"volume": "v"}``, with which they
            go on in keys and records.

    Raises:
        TypeError: this cannot be decorated, or an option is of another type.
        ValueError: an option names a parameter that the function does not have, or a distribution
            that is not installed, the version is too large a number, or ``coalesce``, ``isolate``
            or ``hash_code`` is something else.
        ConfigError: there is no metadata of this name.
    """
    if isinstance(meta, str | type) or not isinstance(meta, Iterable):
        meta = (meta,)
    _check_choices(isolate, hash_code, coalesce)
    if not (cache is None or isinstance(cache, str)):
        state.check_is_cache(cache)
    options = Options(
        version=plain_version(version),
        meta=state.collectors(meta),
        isolate=isolate is True,
        directory=isolate == "directory",
        hash_version=hash_version,
        hash_module=hash_module,
        hash_code=hash_code,
        depends=_depends(depends),
        ignore_globals=tuple(sorted(_names("ignore_globals", ignore_globals))),
        cache=cache,
        coalesce=coalesce,
        rules=_rules(expires, validate, errors, stale=stale),
    )
    ignored, required = _names("ignore", ignore), _names("require", require)

    def decorate(function: Callable[..., Any], /) -> Any:
        if isinstance(function, staticmethod | classmethod):
            return type(function)(decorate(function.__func__))
        if isinstance(function, BoundMethod):
            return BoundMethod(decorate(function.__func__), function.__self__)
        if isinstance(function, Wrapper):
            return Wrapper(_renewed(function.spec, options, ignored, required))
        info = _inspect(function, ignored, required)
        if info.is_coroutine and (stale or options.directory):
            what = "stale=True" if stale else 'isolate="directory"'
            raise TypeError(f"{info.name}(): {what} is for functions that are not coroutines")
        _read_source(function)
        if added or renamed:
            info = _evolved(info, added or {}, renamed or {})
        return Wrapper(FunctionSpec(info, options))

    return decorate if function is None else decorate(function)


def _check_choices(isolate: object, hash_code: object, coalesce: object) -> None:
    if isolate not in (True, False, "directory"):
        raise ValueError(f"isolate={isolate!r}: True, False or 'directory'")
    if hash_code not in (True, False, None):
        raise ValueError(f"hash_code={hash_code!r}: True, False or None")
    if coalesce not in get_args(Coalesce):
        raise ValueError(f"coalesce={coalesce!r}: 'threads' or 'processes'")


def _evolved(info: FunctionInfo, added: Any, renamed: Any) -> FunctionInfo:
    """Return what is known of a function whose parameters were others before.

    Raises:
        TypeError: an option is no mapping, or renames to what is no name.
        ValueError: an option names what is no parameter, or a name is taken.
    """
    parameters = info.signature.parameters
    fixed = {name for name, each in parameters.items() if each.kind not in _VARIABLE}
    for option, names in (("added", added), ("renamed", renamed)):
        if not isinstance(names, Mapping):
            example = {"added": {"solver": "cg"}, "renamed": {"volume": "v"}}[option]
            raise TypeError(f"{option}={names!r}: a dict is wanted, such as {example}")
        for name in names:
            if name not in fixed or name in info.ignored:
                known = ", ".join(sorted(fixed - info.ignored)) or "none"
                raise ValueError(
                    f"{option}={name!r}: {info.name}() has no such parameter that counts; there "
                    f"are: {known}"
                )
    for name, before in renamed.items():
        if not isinstance(before, str):
            raise TypeError(f"renamed={{{name!r}: {before!r}}}: {before!r} is no name")
        if before in parameters or name in info.required:
            why = "is a parameter still" if before in parameters else "of a required parameter"
            raise ValueError(f"renamed={{{name!r}: {before!r}}}: {before!r} {why}")

    def known_as(names: frozenset[str]) -> frozenset[str]:
        return names | {renamed[name] for name in names if name in renamed}

    return msgspec.structs.replace(
        info,
        added={name: digest(value) for name, value in added.items()},
        renamed=dict(renamed),
        unordered=known_as(info.unordered),
        content=known_as(info.content),
        secret=known_as(info.secret),
    )


def _rules(
    expires: timedelta | str | None,
    validate: Callable[[Any], Any] | None,
    errors: type[BaseException] | Iterable[type[BaseException]],
    *,
    stale: bool,
) -> Rules | None:
    kept = (errors,) if isinstance(errors, type) else _several(errors)
    for each in kept:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise TypeError(f"errors={each!r}: classes of exceptions are wanted")
    if validate is not None and not callable(validate):
        raise TypeError(f"validate={validate!r}: a function of the stored result is wanted")
    if stale and expires is None:
        raise ValueError("stale=True says what becomes of expired results; say expires=, too")
    if expires is None and validate is None and not kept:
        return None
    return Rules(None if expires is None else as_age(expires), stale, validate, kept)


def _read_source(function: Any) -> None:
    """Read the file of a function while it still says what has been imported."""
    code = getattr(function, "__code__", None)
    if code is not None:
        remember_file(code.co_filename, getattr(function, "__globals__", None), code)


def _names(option: str, given: str | Iterable[str]) -> frozenset[str]:
    names = _several(given)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{option}={name!r}: names are wanted")
    return frozenset(names)


def _several(given: Any) -> tuple[Any, ...]:
    """Return what is one, or several, as several."""
    one = isinstance(given, str) or not isinstance(given, Iterable)
    return (given,) if one else tuple(given)


def _depends(depends: Any) -> tuple[Depends, ...]:
    found = (depends,) if callable(depends) else _several(depends)
    for item in found:
        if isinstance(item, str):
            version_of(item)
        elif not callable(item):
            raise TypeError(
                f"depends={item!r}: a function without parameters, or the name of a distribution"
            )
    return found


def _renewed(
    spec: FunctionSpec,
    options: Options,
    ignored: frozenset[str],
    required: frozenset[str],
) -> FunctionSpec:
    """Return the same function with other options, as far as they are given."""
    known = spec.info
    info = _inspect(spec.function, known.ignored | ignored, known.required | required)
    info = msgspec.structs.replace(info, added=known.added, renamed=known.renamed)
    defaults = zip(Options.__struct_fields__, Options.__struct_defaults__, strict=True)
    given = ((name, getattr(options, name), default) for name, default in defaults)
    changed = {name: value for name, value, default in given if value != default}
    return FunctionSpec(info, msgspec.structs.replace(spec.options, **changed))


def _inspect(function: Any, ignore: Any, require: Any) -> FunctionInfo:
    if inspect.isclass(function) or not callable(function):
        raise TypeError(
            f"@fleche decorates functions, not {function!r}; write a function that returns it"
        )
    info = inspect_function(function, ignore=ignore, require=require)
    if info.is_generator:
        what = "an async generator" if info.is_async_generator else "a generator"
        raise TypeError(
            f"{info.name}() is {what} function, whose result can be used only once and cannot be "
            "stored; let it return a list, or decorate the function that computes one item"
        )
    if info.name.rpartition(".")[2] in _FILLERS:
        raise TypeError(
            f"{info.name}() fills the object that it is called for, which a hit would leave empty; "
            "decorate a function that makes the object, or the one that computes what is in it"
        )
    if info.module == "__mp_main__":  # so the main script is called in a spawned process
        return msgspec.structs.replace(info, module="__main__")
    return info
