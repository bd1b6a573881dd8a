"""Pictures of a report and of the browser for the documentation; see ``scripts/pictures``."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
STATIC = HERE.parents[1] / "_static"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1320, 1335


def photograph(page: Path, target: Path, *, dark: bool) -> None:
    """Write what Chromium shows of a page as PNG."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise SystemExit("Chromium is not installed")
    command = [
        program,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--virtual-time-budget=5000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--window-size={WIDTH},{HEIGHT}",
        f"--screenshot={target}",
        page.as_uri(),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def join(light: Path, dark: Path, target: Path) -> None:
    """Write one picture whose lower right half is dark."""
    from PIL import Image, ImageDraw

    one, other = (Image.open(path).convert("RGB") for path in (light, dark))
    mask = Image.new("L", one.size, 0)
    width, height = one.size
    corners = [(width * 0.8, 0), (width, 0), (width, height), (width * 0.2, height)]
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    one.paste(other, mask=mask)
    one.quantize(192, dither=Image.Dither.NONE).save(target, optimize=True)


async def draw_browser(root: Path) -> str:
    """Return what the browser shows as SVG, without the font that it would load from elsewhere."""
    from fleche.browse import browser
    from fleche.caches import Local

    with Local(root) as cache:
        app = browser(cache)
        async with app.run_test(size=(150, 44)) as pilot:
            table = app.query_one("#calls")
            while table.row_count < 100:
                await pilot.pause(0.05)
            await pilot.press("down", "down")
            await pilot.pause(0.5)
            drawn = app.export_screenshot(title="fleche browse")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)


def main() -> None:
    """Play the week unless it is there, and make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path, nargs="?", help="that week.py has left behind")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        os.environ["HOME"] = place
        root = home / "results"
        if chosen.cache is None:
            subprocess.run([sys.executable, HERE / "week.py", root], check=True)
        else:
            shutil.copytree(chosen.cache, root)
        from fleche.caches import Local
        from fleche.report import write_report

        with Local(root) as cache:
            write_report(cache, home / "study.html", title="Equations of state of fcc metals")
        pictures = [home / "light.png", home / "dark.png"]
        for picture, dark in zip(pictures, (False, True), strict=True):
            photograph(home / "study.html", picture, dark=dark)
        join(*pictures, STATIC / "report.png")
        (STATIC / "browse.svg").write_text(asyncio.run(draw_browser(root)))


if __name__ == "__main__":
    main()
