"""A reader of the documentation, who believes nothing and tries all of it."""

from __future__ import annotations

import doctest
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.pages import Block, Kernel, Page, Shell, is_like

__all__ = ["Reader"]


class Reader:
    """Does everything that a page says, in order.

    Args:
        work: the directory to begin in.
        env: the environment.
        become: a command that runs another one as another user; nothing: as this one.
        python: the interpreter of the page.
    """

    def __init__(
        self,
        work: Path,
        env: dict[str, str],
        become: Sequence[str] = (),
        python: str = sys.executable,
    ) -> None:
        self._env = env
        self._top = work
        self._interpreter = (*become, python)
        self._shell = Shell(work, env, (*become, "bash"))
        self._kernel: Kernel | None = None

    def read(self, page: Page) -> list[str]:
        """Do what the page says, and return what this machine lacks for some of it."""
        lacking: list[str] = []
        for block in page.blocks:
            action = getattr(self, f"_{block.language}", None)
            if action is not None and block.note("skip") is None:
                lacking += block.lacking
                if not block.lacking:
                    action(block)
        return sorted(set(lacking))

    def close(self) -> None:
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    @property
    def kernel(self) -> Kernel:
        if self._kernel is None:
            self._kernel = Kernel(self._shell.directory, self._env, self._interpreter)
        return self._kernel

    def _write(self, block: Block) -> None:
        assert block.file is not None
        path = self._top / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.code)
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)

    def _restart(self, block: Block) -> None:
        self.close()

    def _run(self, block: Block) -> None:
        reply = self.kernel.run(block.code)
        assert reply.error is None, f"{block.where}: {reply.trace}"

    def _python(self, block: Block) -> None:
        if block.file is not None:
            self._write(block)
            compile(block.code, block.file, "exec")
        else:
            self._run(block)

    def _toml(self, block: Block) -> None:
        if block.file is not None:
            self._write(block)

    def _pycon(self, block: Block) -> None:
        for example in doctest.DocTestParser().get_examples(block.code):
            reply = self.kernel.run(example.source, "single")
            said = f"{block.where}: >>> {example.source}"
            if example.exc_msg is not None:
                assert reply.error, f"{said}did not raise"
                assert is_like(example.exc_msg, reply.error), f"{said}raised {reply.error}"
            else:
                assert reply.error is None, f"{said}{reply.trace}"
                assert is_like(example.want, reply.output), f"{said}printed {reply.output!r}"

    def _console(self, block: Block) -> None:
        commands = re.split(r"^\$ ", block.code, flags=re.MULTILINE)
        assert not commands[0].strip(), f"{block.where}: output before the first command"
        for each in commands[1:]:
            command, _, expected = each.partition("\n")
            while command.endswith("\\"):
                more, _, expected = expected.partition("\n")
                command = f"{command}\n{more}"
            found = self._shell.run(command)
            assert is_like(expected, found), f"{block.where}: $ {command}\nprinted:\n{found}"
