"""Fixtures of every test: nobody's real home directory, configuration or environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def tmp_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory; the test's working directory is `work` below it.

    The search for `fleche.toml` goes upward from the working directory and stops at home, so it
    finds only what the test itself has written.
    """
    home = tmp_path / "home"
    work = home / "work"
    work.mkdir(parents=True)
    for name in [name for name in os.environ if name.startswith("FLECHE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.chdir(work)
    return home
