"""A server on another machine."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from fleche.remote.channel.process import ProcessChannel

__all__ = ["SshChannel", "remote_command"]


class SshChannel(ProcessChannel):
    """``python -m fleche remote --serve`` on another machine, through the ``ssh`` of this one."""

    local = False

    def __init__(
        self,
        host: str,
        cache_name: str | None = None,
        python: str = "python3",
        ssh_options: Sequence[str] = (),
        setup_commands: Sequence[str] = (),
        workdir: str | None = None,
    ) -> None:
        """Configure; nothing starts before :meth:`open`. The fields are those of ``SshCache``.

        Raises:
            ValueError: ``host`` is empty or begins with ``-``, and ssh would take it for an option.
        """
        if not host or host.startswith("-"):
            raise ValueError(
                f"host {host!r}: a name or user@name is needed; it may not begin with '-'"
            )
        super().__init__(f"ssh {host}")
        self._host = host
        self._ssh_options = tuple(ssh_options)
        self._remote = remote_command(
            python=python, cache_name=cache_name, setup_commands=setup_commands, workdir=workdir
        )

    def command(self) -> Sequence[str]:
        """Return the command of the local ssh.

        A Ctrl-C in the terminal goes to ssh too, and must not end it. It cannot leave the
        terminal's process group, for it may have to prompt there; so it is started with that signal
        ignored. While it prompts, ssh handles the signal itself.
        """
        ssh = ["ssh", *self._ssh_options, "--", self._host, self._remote]
        return ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *ssh]


def remote_command(
    *,
    python: str,
    cache_name: str | None,
    setup_commands: Sequence[str],
    workdir: str | None,
) -> str:
    """Return the command line for the remote shell.

    ``workdir`` and ``python`` are quoted, except for a leading ``~``, which the remote shell
    expands; ``setup_commands`` are verbatim. Everything is joined by ``&&``, so that a failure ends
    it.
    """
    named = f" --cache {shlex.quote(cache_name)}" if cache_name else ""
    steps = [f"cd {_quote_path(workdir)}"] if workdir else []
    steps += setup_commands
    steps.append(f"exec {_quote_path(python)} -m fleche remote --serve{named}")
    return " && ".join(steps)


def _quote_path(path: str) -> str:
    """Quote ``path`` for a shell, its leading ``~`` or ``~user`` excepted."""
    home, slash, rest = path.partition("/")
    plain = home.startswith("~") and home[1:].replace("-", "").replace("_", "").isalnum()
    if home != "~" and not plain:
        return shlex.quote(path)
    return home + slash + (shlex.quote(rest) if rest else "")
