"""A headless browser that opens a page of a file and tells what became of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ["Shown", "needs_browser", "open_page"]

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


class Shown(NamedTuple):
    """What a page is after its scripts have run."""

    html: str
    console: list[str]


def open_page(page: Path, *options: str, fragment: str = "", seconds: float = 90) -> Shown:
    """Open a file and return its elements, and what the browser said on its console."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={page.parent / 'profile'}",
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
            "--window-size=1400,2400",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            *options,
            "--dump-dom",
            f"{page.resolve().as_uri()}{fragment}",
        ],
        capture_output=True,
        timeout=seconds,
        env={**os.environ, "HOME": str(page.parent)},
        check=False,
    )
    said = done.stderr.decode("utf-8", "replace")
    console = re.findall(r"CONSOLE[^\]]*\] (.*)", said)
    return Shown(done.stdout.decode("utf-8", "replace"), console)
