"""Plain text for a terminal of 80 columns or a log file."""

from __future__ import annotations

import textwrap

WIDTH = 78
INDENT = "   "


class Screen:
    """Prints the story, and checks each claim before it is printed as true.

    Attributes:
        failed: the claims that did not hold.
    """

    def __init__(self) -> None:
        self.failed: list[str] = []
        self._steps = 0

    def title(self, text: str) -> None:
        """Print the headline."""
        print(f"{'=' * WIDTH}\n{text}\n{'=' * WIDTH}")

    def step(self, heading: str, of: int) -> None:
        """Begin the next step."""
        self._steps += 1
        self.section(f"Step {self._steps} of {of}: {heading}")

    def section(self, heading: str) -> None:
        """Begin a part."""
        print(f"\n{heading}\n{'-' * WIDTH}")

    def say(self, text: str, first: str = "", further: str = "") -> None:
        """Print a paragraph, its first line and the further ones after what they begin with."""
        paragraph = textwrap.TextWrapper(
            WIDTH,
            initial_indent=first,
            subsequent_indent=further,
            break_long_words=False,
            break_on_hyphens=False,
        )
        print(paragraph.fill(text))

    def show(self, text: str) -> None:
        """Print lines as they are, indented."""
        print(textwrap.indent(text.rstrip(), INDENT))

    def quote(self, text: str) -> None:
        """Print the output of another program, line by line."""
        for line in text.splitlines():
            self.say(line, f"{INDENT}| ", f"{INDENT}| ")

    def claim(self, text: str, holds: bool) -> None:
        """Print a claim and whether it holds."""
        if not holds:
            self.failed.append(text)
        self.say(text, "[ok]  " if holds else "[NO]  ", " " * 6)
