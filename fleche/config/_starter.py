"""A first ``fleche.toml``, with comments that say what else it could say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from fleche.errors import ConfigError

__all__ = ["starter_config"]

_HEAD = """\
# Where fleche keeps results. It is looked for from the working directory upward;
# 'fleche config' shows what is read, 'fleche doctor' whether it works.

[default]
cache = {name}
# metadata = ["runtime", "environment", "git"]  # what is recorded with each call
{more}"""

_LOCAL = """\
{head}  # this machine: {role}
type = "local"
root = {root}
# max_bytes = 20_000_000_000  # the calls that were not used for longest go
"""

_SSH = """\
{head}  # the other machine: asked for what is not here
type = "ssh"
host = {host}
{lines}"""

_HINTS = (
    ("python", '# python = "/path/to/python"  # the interpreter there that has fleche'),
    ("workdir", '# workdir = "~/project"  # where the fleche.toml there is looked for'),
    ("setup_commands", '# setup_commands = ["module load python"]  # run before'),
)


def starter_config(
    *,
    root: str = "cache",
    name: str = "results",
    host: str | None = None,
    python: str | None = None,
    workdir: str | None = None,
    setup_commands: Sequence[str] = (),
    offline: bool = True,
    write_through: bool = False,
    stop_here: bool = False,
) -> str:
    """Return the text of a ``fleche.toml`` for results on this machine, and perhaps another one.

    Args:
        root: directory of the results; relative to the file.
        name: of the cache.
        host: target of ssh, for a second layer on that machine.
        python: the interpreter there.
        workdir: the directory there.
        setup_commands: what runs there before the server.
        offline: without the other machine, go on.
        write_through: save there, too, and not only when told to push.
        stop_here: read no other ``fleche.toml`` further up.

    Raises:
        ConfigError: no cache can have this name.
    """
    if name == "default":
        raise ConfigError(
            "no cache can be named 'default': [default] says which cache is used unless told"
        )
    more = "root = true  # read no other fleche.toml\n" if stop_here else ""
    text = _HEAD.format(name=_quoted(name), more=more)
    head = f"[{_key(name)}]" if host is None else f"[[{_key(name)}]]"
    role = "all results" if host is None else "saves go here"
    text += "\n" + _LOCAL.format(head=head, role=role, root=_quoted(root))
    if host is None:
        return text
    given: dict[str, object] = {
        "python": python,
        "workdir": workdir,
        "setup_commands": list(setup_commands) or None,
    }
    lines = "".join(f"{line}\n" for line in _ssh_lines(given, offline, write_through))
    return text + "\n" + _SSH.format(head=head, host=_quoted(host), lines=lines)


def _ssh_lines(given: dict[str, object], offline: bool, write_through: bool) -> Iterator[str]:
    for key, hint in _HINTS:
        yield hint if given[key] is None else f"{key} = {_quoted(given[key])}"
    hint = "out of reach? then go on without it"
    yield f'on_error = "miss"  # {hint}' if offline else f'# on_error = "miss"  # {hint}'
    hint = "each result goes there when it is computed; else: fleche push"
    yield (
        f"write_through = true  # {hint}" if write_through else f"# write_through = true  # {hint}"
    )


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)  # texts and lists of texts are the same in TOML


def _key(name: str) -> str:
    plain = name.replace("-", "").replace("_", "").isalnum() and name.isascii()
    return name if plain else _quoted(name)
