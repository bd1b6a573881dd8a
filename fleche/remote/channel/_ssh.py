"""A server on another machine."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from fleche._settings import as_host, as_text, as_texts, maybe_text
from fleche._util import override
from fleche.remote.channel._process import ProcessChannel, packed

__all__ = ["SshChannel", "remote_command"]

_REFUSED = re.compile(r"^(kex|ssh)_exchange_identification: ", re.MULTILINE)
_CLOSED = re.compile(r"^Connection (closed|reset) by \S+ port \d+\s*$", re.MULTILINE)
"""All that OpenSSH 10 may say when it is refused; any says it of a login that comes to nothing."""

_REFUSAL_SECONDS = 5.0
"""A login that asks for a code, and is turned away after all, takes longer."""

_MAX_STARTUPS = (
    "The sshd there closed the connection before any authentication: it takes only so many at once "
    "that are not authenticated yet (MaxStartups in sshd_config), or refuses this address. Start "
    "fewer workers at once, or let them share one connection (ControlMaster)."
)

_OURS = ("-o", "RequestTTY=no", "-o", "RemoteCommand=none")
"""What must not come from ``~/.ssh/config``: a terminal changes bytes, and the command is ours."""

_NEEDED = {"SessionType": "default", "StdinNull": "no", "ForkAfterAuthentication": "no"}
"""The same, of OpenSSH 8.7 and newer alone, which names what it knows."""

_SETTINGS_SECONDS = 5.0


class SshChannel(ProcessChannel):
    """``python -m fleche remote --serve`` on another machine, through the ``ssh`` of this one.

    The attributes are what it was told: ``host``, ``cache_name``, ``python``, ``ssh_options``,
    ``setup_commands`` and ``workdir``.
    """

    local = False

    @override
    def was_refused(self) -> bool:
        """Return whether the server's sshd closed the connection before any authentication.

        Behind a jump host or another ``ProxyCommand`` it is not known what that has asked for.
        """
        at_once = _CLOSED.search(self._ended) and self._lasted < _REFUSAL_SECONDS
        if not (at_once or _REFUSED.search(self._ended)):
            return False
        return bool(self._settings) and not {"proxycommand", "proxyjump"} & self._settings.keys()

    @override
    def diagnose(self) -> str:
        found = super().diagnose()
        return f"{found}\n{_MAX_STARTUPS}" if self.was_refused() else found

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
            TypeError: a field is of the wrong kind.
            ValueError: a field is impossible: a ``host`` that begins with ``-``, say, which ssh
                would take for an option.
        """
        self.host = as_host("host", host)
        self.cache_name = maybe_text("cache_name", cache_name)
        self.python = as_text("python", python)
        self.ssh_options = as_texts("ssh_options", ssh_options, split=str.split)
        self.setup_commands = as_texts("setup_commands", setup_commands)
        self.workdir = maybe_text("workdir", workdir)
        super().__init__(f"ssh {self.host}")
        self._settings: Mapping[str, str] = {}  # of the last connection

    @override
    def command(self) -> Sequence[str]:
        """Return the command of the local ssh.

        Of what is said twice ssh takes the first, so that the user's options come before ours, and
        ours before the configuration.

        A Ctrl-C in the terminal goes to ssh too, and must not end it. It cannot leave the
        terminal's process group, for it may have to prompt there; so it is started with that signal
        ignored. While it prompts, ssh handles the signal itself.
        """
        return self._through_ssh(
            remote_command(
                python=self.python,
                cache_name=self.cache_name,
                setup_commands=self.setup_commands,
                workdir=self.workdir,
            )
        )

    @override
    def probe(self, mark: str, code: str) -> Sequence[str]:
        steps = [f"echo {mark}shell"]
        if self.workdir:
            steps += [f"cd {_quote_path(self.workdir)}", f"echo {mark}workdir"]
        for number, command in enumerate(self.setup_commands, 1):
            steps += [command.strip(), f"echo {mark}setup {number}"]
        steps.append(f"exec {_quote_path(self.python)} -c {_quote(packed(code))}")
        return self._through_ssh(" && ".join(steps))

    def _through_ssh(self, remote: str) -> Sequence[str]:
        self._settings = self._ask_for_settings()
        further = _further_options(self._settings)
        ssh = ["ssh", *self.ssh_options, *_OURS, *further, "--", self.host, remote]
        return ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *ssh]

    def _ask_for_settings(self) -> dict[str, str]:
        """Return what ssh makes of its options and configuration; empty if it does not tell."""
        try:
            told = subprocess.run(
                ["ssh", "-G", *self.ssh_options, *_OURS, "--", self.host],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SETTINGS_SECONDS,
                check=True,
            ).stdout
        except (OSError, ValueError, subprocess.SubprocessError):
            return {}  # what is wrong with them will be told by the command itself
        lines = told.decode(errors="replace").splitlines()
        return dict(line.partition(" ")[::2] for line in lines)


def _further_options(settings: Mapping[str, str]) -> Iterator[str]:
    """Yield the options that ssh needs besides, for it to have these settings."""
    for name, needed in _NEEDED.items():
        if settings.get(name.lower(), needed) != needed:
            yield from ("-o", f"{name}={needed}")
    shares = "controlpath" in settings and settings.get("controlmaster", "false") != "false"
    if shares and settings.get("controlpersist") == "no":
        # else others, which have come to share its connection, lose theirs when this ssh is ended
        yield from ("-o", "ControlPersist=1")


def remote_command(
    *,
    python: str,
    cache_name: str | None,
    setup_commands: Sequence[str],
    workdir: str | None,
) -> str:
    """Return the command line for the remote shell.

    ``workdir`` and ``python`` are paths, quoted except for a leading ``~``, which the remote shell
    expands; ``setup_commands`` are verbatim, without the line ends around them, after which no
    ``&&`` may stand. Everything is joined by ``&&``, so that a failure ends it.
    """
    named = " " + _quote(f"--cache={cache_name}") if cache_name else ""
    steps = [f"cd {_quote_path(workdir)}"] if workdir else []
    steps += (command.strip() for command in setup_commands)
    steps.append(f"exec {_quote_path(python)} -m fleche remote --serve{named}")
    return " && ".join(steps)


def _quote_path(path: str) -> str:
    """Quote ``path`` for a shell, its leading ``~`` or ``~user`` excepted, so that it is a path."""
    if path.startswith(("-", "=")):
        # neither an option, nor, as "-" alone is to cd, the place before, nor a command of zsh
        path = f"./{path}"
    home, slash, rest = path.partition("/")
    plain = home.startswith("~") and home[1:].replace("-", "").replace("_", "").isalnum()
    if home != "~" and not plain:
        return _quote(path)
    return home + slash + (_quote(rest) if rest else "")


def _quote(text: str) -> str:
    """Quote ``text`` for any shell: tcsh replaces a ``!`` by earlier commands even in quotes."""
    parts = text.split("!")
    return "\\!".join(shlex.quote(part) if part or len(parts) == 1 else "" for part in parts)
