"""Values that contain themselves.

The value is laid out as a graph of nodes, and its strongly connected components are taken from the
leaves upward. A component of one node that does not point to itself is hashed as the plain walk
does. The nodes of any other component get *colours*: at first the hash of what is in the node
itself, then, round by round, the hash of the node with the colours of its children in their places.
When a round tells no more nodes apart than the one before, two nodes have one colour if and only if
they cannot be told apart by following references, which is when they are equal (this is the
minimisation of finite automata by partition refinement, E. F. Moore 1956).

A stable round is also a complete description of the component: each colour of the last round is the
hash of a node in terms of colours of the round before. So the digest of a node is the hash of its
colour and of the sorted table of (colour before, colour after), and it does not depend on where the
walk began, on the order of sets, or on which equal parts were one object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fleche.errors import Indigestible

from ._registry import Step
from ._tokens import DEEPEST, ORDERED, hash_node, node_token

if TYPE_CHECKING:
    from ._walk import Walk

__all__ = ["token_of_cyclic"]


@dataclass
class Vertex:
    """A node; ``parts`` holds the tokens of its leaves and the numbers of its other children."""

    kind: bytes
    label: bytes
    children: Any
    step: Step
    parent: tuple[int, int] | None
    depth: int
    parts: list[bytes | int] = field(default_factory=list)

    def edges(self) -> list[int]:
        return [part for part in self.parts if isinstance(part, int)]

    def encode(self, tokens: dict[int, bytes]) -> bytes:
        """Hash the node, its children having the given tokens."""
        filled = [tokens[part] if isinstance(part, int) else part for part in self.parts]
        return hash_node(self.kind, self.label, filled)


def token_of_cyclic(root: object, walk: Walk, name: str) -> bytes:
    """Return the token of a value that contains itself.

    Raises:
        Indigestible: naming the path from ``name`` to the part that has no digest.
    """
    graph = explore(root, walk, name)
    tokens: dict[int, bytes] = {}
    for component in components(graph):
        vertex = component[0]
        if len(component) == 1 and vertex not in graph[vertex].edges():
            tokens[vertex] = node_token(graph[vertex].encode(tokens))
        else:
            tokens.update(tokens_of_component(component, graph, tokens))
    return tokens[0]


def explore(root: object, walk: Walk, name: str) -> list[Vertex]:
    """Describe everything that can be reached; the root, which is a node, has number 0."""
    graph: list[Vertex] = []
    numbers: dict[int, int] = {}
    objects: list[object] = []

    def visit(obj: object, parent: tuple[int, int] | None) -> bytes | int:
        if id(obj) in numbers:
            return numbers[id(obj)]
        try:
            described = walk.describe(obj)
        except (Indigestible, ValueError, OverflowError) as error:
            path = name + path_to(parent, graph)
            raise Indigestible(f"{path}: {error}") from (error.__cause__ or error)
        if isinstance(described, bytes):
            return described
        depth = graph[parent[0]].depth + 1 if parent else 0
        if depth > DEEPEST:
            raise Indigestible(
                f"{name}: it is nested more than {DEEPEST} levels deep, or without end"
            )
        numbers[id(obj)] = len(graph)
        objects.append(obj)
        graph.append(Vertex(*described, parent=parent, depth=depth))
        return numbers[id(obj)]

    visit(root, None)
    for number, vertex in enumerate(graph):  # grows while it is read
        for index, child in enumerate(vertex.children):
            vertex.parts.append(visit(child, (number, index)))
    return graph


def path_to(parent: tuple[int, int] | None, graph: list[Vertex]) -> str:
    steps: list[str] = []
    while parent is not None:
        vertex = graph[parent[0]]
        steps.append(vertex.step(vertex.children, parent[1]))
        parent = vertex.parent
    return "".join(reversed(steps))


def components(graph: list[Vertex]) -> Iterator[list[int]]:
    """Yield the strongly connected components, leaves first (R. Tarjan 1972)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    waiting: list[int] = []
    is_waiting: set[int] = set()
    path: list[tuple[int, Iterator[int]]] = []

    def push(vertex: int) -> None:
        index[vertex] = low[vertex] = len(index)
        waiting.append(vertex)
        is_waiting.add(vertex)
        path.append((vertex, iter(graph[vertex].edges())))

    push(0)
    while path:
        vertex, edges = path[-1]
        for child in edges:
            if child not in index:
                push(child)
                break
            if child in is_waiting:
                low[vertex] = min(low[vertex], index[child])
        else:
            path.pop()
            if path:
                low[path[-1][0]] = min(low[path[-1][0]], low[vertex])
            if low[vertex] == index[vertex]:
                component = [waiting.pop()]
                while component[-1] != vertex:
                    component.append(waiting.pop())
                is_waiting.difference_update(component)
                yield component


def tokens_of_component(
    component: list[int], graph: list[Vertex], outside: dict[int, bytes]
) -> dict[int, bytes]:
    """Return the tokens of nodes that all reach one another."""
    children = {child for vertex in component for child in graph[vertex].edges()}
    neighbours = {child: outside[child] for child in children if child in outside}
    colours = dict.fromkeys(component, b"")
    classes = 1
    while True:
        tokens = neighbours | {vertex: b"C" + colour for vertex, colour in colours.items()}
        refined = {vertex: graph[vertex].encode(tokens) for vertex in component}
        if len(set(refined.values())) == classes and all(colours.values()):
            break
        classes = len(set(refined.values()))
        colours = refined
    table = sorted({colours[vertex] + refined[vertex] for vertex in component})
    return {
        vertex: node_token(hash_node(ORDERED, b"cycle", [colours[vertex], *table]))
        for vertex in component
    }
