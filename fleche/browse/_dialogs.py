"""Screens over the browser: a question, the tree of a call, a value, help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

from rich.console import RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Static, Tree
from textual.widgets.tree import TreeNode

from fleche._columns import printable
from fleche._util import override
from fleche.browse._describe import arguments_of, result_of
from fleche.call import LazyCall

__all__ = ["Confirm", "Lineage", "Reader", "call_label"]

Work: TypeAlias = Callable[[Callable[[], Any], Callable[[Any], None]], None]
"""Runs something in a thread, then something else with its result here."""

_MOST_ARGUMENTS = 70


class Confirm(ModalScreen[bool]):
    """A question that is answered by yes or no; Enter and Escape mean no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
    ]

    def __init__(self, question: str, note: str, yes: str) -> None:
        super().__init__()
        self._question, self._note, self._yes = question, note, yes

    @override
    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text(self._question, "bold"))
            yield Static(Text(self._note, "dim"), classes="note")
            with Horizontal(classes="buttons"):
                yield Button("No (n)", id="no")
                yield Button(f"{self._yes} (y)", id="yes", variant="error")

    def on_mount(self) -> None:
        """Let Enter mean no."""
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Take the answer."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        """Take the answer."""
        self.dismiss(answer)


class Reader(ModalScreen[None]):
    """A text to be read and scrolled through."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,v,question_mark", "close", "Close")]

    def __init__(self, title: str, text: str | RenderableType) -> None:
        super().__init__()
        self._title, self._text = title, text

    @override
    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="reader") as box:
            box.border_title = Text(self._title).markup
            box.border_subtitle = "Esc closes"
            yield Static(Text(self._text) if isinstance(self._text, str) else self._text)

    def on_mount(self) -> None:
        """Let the arrow keys scroll."""
        self.query_one(VerticalScroll).focus()

    def action_close(self) -> None:
        """Go back."""
        self.dismiss()


def call_label(call: LazyCall) -> Text:
    """Return one line for a call."""
    arguments = arguments_of(call.record)
    if len(arguments) > _MOST_ARGUMENTS:
        arguments = f"{arguments[: _MOST_ARGUMENTS - 1]}…"
    return Text.assemble(
        (printable(call.name), "bold"),
        f"({arguments})",
        ("  →  ", "dim"),
        result_of(call.record)[:60],
    )


class Lineage(ModalScreen[LazyCall | None]):
    """What a call called, and what used it; branches are read when they are opened."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,t", "close", "Close"),
        Binding("g", "go", "Show this call"),
    ]

    def __init__(self, call: LazyCall, work: Work) -> None:
        super().__init__()
        self._call, self._work = call, work
        self._read: set[int] = set()

    @override
    def compose(self) -> ComposeResult:
        tree: Tree[tuple[str, LazyCall]] = Tree(call_label(self._call), classes="reader")
        tree.border_title = "Lineage"
        tree.border_subtitle = "Enter opens a branch, g shows the call, Esc closes"
        tree.root.expand()
        for kind, title in (("calls", "calls"), ("used", "used by")):
            tree.root.add(Text(title, "italic"), data=(kind, self._call))
        yield tree

    def on_mount(self) -> None:
        """Open what it called."""
        tree = self.query_one(Tree)
        tree.focus()
        tree.root.children[0].expand()

    def on_tree_node_expanded(self, event: Tree.NodeExpanded[tuple[str, LazyCall]]) -> None:
        """Read a branch."""
        node = event.node
        if node.data is None or node.id in self._read:
            return
        self._read.add(node.id)
        kind, call = node.data
        read = call.children if kind == "calls" else call.parents
        waiting = node.add_leaf(Text("…", "dim"))

        def show(found: list[LazyCall]) -> None:
            waiting.remove()
            for each in found:
                self._add(node, kind, each)
            if not found:
                node.add_leaf(Text("none", "dim"))

        self._work(read, show)

    @staticmethod
    def _add(node: TreeNode[tuple[str, LazyCall]], kind: str, call: LazyCall) -> None:
        if kind == "used" or call.record.children:
            node.add(call_label(call), data=(kind, call))
        else:
            leaf = node.add_leaf(call_label(call))
            leaf.data = (kind, call)

    def action_close(self) -> None:
        """Go back."""
        self.dismiss(None)

    def action_go(self) -> None:
        """Go back, to the call under the cursor."""
        node = self.query_one(Tree).cursor_node
        if node is not None:
            self.dismiss(node.data[1] if node.data else self._call)
