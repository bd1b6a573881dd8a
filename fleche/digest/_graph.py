"""Values that contain themselves.

Such a value is a graph, and in a graph it matters which node is which: two rings of three objects
are not one ring of six, although each object sees the same around it. So the nodes that lie on
cycles are *numbered*, and a reference to one of them counts by its number.

The value is laid out as a graph of nodes, all of them by the walk, and its strongly connected
components are found. What reaches no cycle counts as it always does, by its token. The rest is
visited from the root, depth first, children in their order, and each node on a cycle gets the next
number when it is met first. Nodes without an order (sets; dicts on a walk without order) are
put off until everything that hangs on ordered children has been visited. Their children are then
visited in the order of their *colours*, which tell nodes apart by what is seen from them (partition
refinement; E. F. Moore 1956, J. Hopcroft 1971), the numbers given so far included. Where several
children have one colour, and none has been met elsewhere, any order would be arbitrary: the value
is refused.

The token of the value is the hash of its root and of the definitions of all numbered nodes, in
terms of numbers and tokens. From these the graph can be rebuilt, so two values have one digest if
and only if they are the same graph. Acyclic parts that lead to a cycle have no number: whether one
of them is met twice or stands there in two copies leaves no trace, as everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from fleche.digest._plain import CONTAINERS
from fleche.digest._registry import LEAVES, Step
from fleche.digest._tokens import DEEPEST, MAPPING, ORDERED, UNORDERED, hash_node, node_token, size
from fleche.errors import Indigestible

if TYPE_CHECKING:
    from fleche.digest._walk import Walk

__all__ = ["token_of_cyclic"]

Signature = tuple[Any, ...]


class Vertex:
    """A node; ``parts`` holds the tokens of its leaves and the numbers of its other children."""

    __slots__ = ("children", "depth", "kind", "label", "obj", "parent", "parts", "step")

    def __init__(
        self,
        obj: object,
        described: tuple[bytes, bytes, Any, Step],
        parent: tuple[int, int] | None,
        depth: int,
    ) -> None:
        self.obj = obj
        self.kind, self.label, self.children, self.step = described
        self.parent = parent
        self.depth = depth
        self.parts: list[bytes | int] = []

    def edges(self) -> list[int]:
        return [part for part in self.parts if isinstance(part, int)]


def token_of_cyclic(root: object, walk: Walk, name: str) -> bytes:
    """Return the token of a value that contains itself.

    Raises:
        Indigestible: naming the path from ``name`` to the part that has no digest, or to one whose
            children cannot be put in an order.
    """
    graph = Graph(root, walk, name)
    numbers = graph.number()
    tokens = {vertex: b"R" + size(number) for vertex, number in numbers.items()}
    for vertex in graph.leaves_first:
        if vertex in graph.tangled and vertex not in tokens:
            tokens[vertex] = node_token(graph.encode(vertex, tokens))
    definitions = [graph.encode(vertex, tokens) for vertex in numbers]
    return node_token(hash_node(ORDERED, b"graph", [tokens[0], *definitions], walk.key))


class Graph:
    """Everything that can be reached from a value, as vertices; the root has number 0.

    Attributes:
        vertices: the nodes.
        leaves_first: all numbers of vertices, those of a component after those of what it reaches.
        cyclic: the vertices that reach themselves.
        tangled: the vertices that reach a cycle.
    """

    def __init__(self, root: object, walk: Walk, name: str) -> None:
        self.walk = walk
        self.name = name
        self.vertices: list[Vertex] = []
        self.indices: dict[int, int] = {}
        self.explore(root)
        self.leaves_first: list[int] = []
        self.cyclic: set[int] = set()
        self.tangled: set[int] = set()
        self.classify()
        self.replace_untangled()

    def explore(self, root: object) -> None:
        """Lay out everything that can be reached, breadth first."""
        self.visit(root, None)
        for number, vertex in enumerate(self.vertices):  # grows while it is read
            for index, child in enumerate(vertex.children):
                vertex.parts.append(self.visit(child, (number, index)))

    def visit(self, obj: Any, parent: tuple[int, int] | None) -> bytes | int:
        """Return the token of a leaf, or the number of the vertex of a node."""
        leaf = LEAVES.get(type(obj))
        number = self.indices.get(id(obj))
        if number is not None:
            return number
        try:
            if leaf is not None:
                return leaf(obj)
            if type(obj) not in CONTAINERS and (token := self.walk.tokens.get(id(obj))):
                return token
            described = self.walk.describe(obj)
        except (Indigestible, ValueError, OverflowError) as error:
            path = self.name + self.path_to(parent)
            raise Indigestible(f"{path}: {error}") from (error.__cause__ or error)
        if isinstance(described, bytes):
            return described
        depth = self.vertices[parent[0]].depth + 1 if parent else 0
        if depth > DEEPEST:
            raise Indigestible(
                f"{self.name}: it is nested more than {DEEPEST} levels deep, or without end"
            )
        self.indices[id(obj)] = number = len(self.vertices)
        self.vertices.append(Vertex(obj, described, parent, depth))
        return number

    def path_to(self, parent: tuple[int, int] | None) -> str:
        steps: list[str] = []
        while parent is not None:
            vertex = self.vertices[parent[0]]
            steps.append(vertex.step(vertex.children, parent[1]))
            parent = vertex.parent
        return "".join(reversed(steps))

    def classify(self) -> None:
        """Find the vertices on cycles and those that lead to one."""
        for component in components(self.vertices):
            edges = [edge for vertex in component for edge in self.vertices[vertex].edges()]
            if len(component) > 1 or component[0] in edges:
                self.cyclic.update(component)
                self.tangled.update(component)
            elif not self.tangled.isdisjoint(edges):
                self.tangled.update(component)
            self.leaves_first += component

    def replace_untangled(self) -> None:
        """Put the tokens of what leads to no cycle in the places where tangled vertices hold it."""
        known: dict[int, bytes] = {}
        for number in self.tangled:
            vertex = self.vertices[number]
            for index, part in enumerate(vertex.parts):
                if isinstance(part, int) and part not in self.tangled:
                    if part not in known:
                        path = self.name + self.path_to((number, index))
                        known[part] = self.walk.token(self.vertices[part].obj, path)
                    vertex.parts[index] = known[part]

    def encode(self, number: int, tokens: dict[int, bytes]) -> bytes:
        """Hash a vertex whose children have the given tokens."""
        vertex = self.vertices[number]
        filled = [tokens[part] if isinstance(part, int) else part for part in vertex.parts]
        return hash_node(vertex.kind, vertex.label, filled, self.walk.key)

    def groups(self, number: int) -> list[tuple[bytes | int, ...]]:
        """Return the parts of a vertex that have no order among one another."""
        vertex = self.vertices[number]
        if vertex.kind == UNORDERED:
            return [(part,) for part in vertex.parts]
        return list(zip(vertex.parts[::2], vertex.parts[1::2], strict=True))

    def is_unordered(self, number: int) -> bool:
        kind = self.vertices[number].kind
        return kind == UNORDERED or (kind == MAPPING and self.walk.unordered)

    def number(self) -> dict[int, int]:
        """Return the numbers of the vertices on cycles, in ascending order.

        Raises:
            Indigestible: some of them cannot be told apart.
        """
        return Numbering(self).run()


class Numbering:
    """One visit of all tangled vertices."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.numbers: dict[int, int] = {}
        self.visited: set[int] = set()
        self.put_off: list[int] = []
        self.colours: dict[int, int] = {}

    def run(self) -> dict[int, int]:
        self.visit([0])
        is_fresh = False
        while self.put_off:
            if self.settle():
                is_fresh = False
            elif is_fresh:
                vertex = self.graph.vertices[self.put_off[0]]
                path = self.graph.name + self.graph.path_to(vertex.parent)
                raise Indigestible(
                    f"{path}: it holds objects that know one another and cannot be told apart, in "
                    "no order; put them in a list or a dict, or give them names or numbers"
                )
            else:
                self.colours = refine(self.graph, self.numbers)
                is_fresh = True
        return self.numbers

    def visit(self, starts: Iterable[int]) -> None:
        """Visit vertices and what hangs on them in an order, depth first."""
        vertices, tangled = self.graph.vertices, self.graph.tangled
        pending = list(starts)[::-1]
        while pending:
            number = pending.pop()
            if number in self.visited:
                continue
            self.visited.add(number)
            if number in self.graph.cyclic:
                self.numbers[number] = len(self.numbers)
            if self.graph.is_unordered(number):
                self.put_off.append(number)
            else:
                pending += [edge for edge in vertices[number].edges() if edge in tangled][::-1]

    def settle(self) -> bool:
        """Go on from vertices without order, as far as that can be done; say whether it could."""
        waiting, self.put_off = self.put_off, []
        progress = False
        for number in waiting:
            groups = [group for group in self.graph.groups(number) if self.is_open(group)]
            if len(groups) > 1:
                groups = self.told_apart(groups)
            for group in groups:
                self.visit(part for part in group if isinstance(part, int))
                progress = True
            if any(map(self.is_open, self.graph.groups(number))):
                self.put_off.append(number)
            else:
                progress = True
        return progress

    def is_open(self, group: tuple[bytes | int, ...]) -> bool:
        return any(isinstance(part, int) and part not in self.visited for part in group)

    def told_apart(self, groups: list[tuple[bytes | int, ...]]) -> list[tuple[bytes | int, ...]]:
        """Return those groups whose colours no other one shares, in the order of these."""
        if not self.colours:
            return []
        by_colour: dict[Signature, list[tuple[bytes | int, ...]]] = defaultdict(list)
        for group in groups:
            by_colour[signature_of(group, self.colours)].append(group)
        return [by_colour[key][0] for key in sorted(by_colour) if len(by_colour[key]) == 1]


def signature_of(parts: Iterable[bytes | int], colours: dict[int, int]) -> Signature:
    """Return parts with colours in place of vertices, so that they can be compared."""
    return tuple(
        (1, b"", colours[part]) if isinstance(part, int) else (0, part, 0) for part in parts
    )


def refine(graph: Graph, numbers: dict[int, int]) -> dict[int, int]:
    """Return a colour for each tangled vertex: different ones for all that can be told apart.

    Vertices are told apart by their content, their number if they have one, and the colours of
    their children. Only those whose children have changed colour are looked at again. Colours
    depend on the graph alone, not on the order in which it was laid out.
    """
    parents = parents_of(graph)
    colours = first_colours(graph, numbers)
    cells: dict[int, set[int]] = defaultdict(set)
    for number, colour in colours.items():
        cells[colour].add(number)
    pending = set(graph.tangled)
    while pending:
        changes = split(graph, colours, cells, pending)
        pending = set()
        for cell, members in changes:
            colour = len(cells)
            cells[colour] = set(members)
            cells[cell] -= cells[colour]
            for number in members:
                colours[number] = colour
                pending |= parents[number]
    return colours


def parents_of(graph: Graph) -> dict[int, set[int]]:
    parents: dict[int, set[int]] = defaultdict(set)
    for number in graph.tangled:
        for edge in graph.vertices[number].edges():
            parents[edge].add(number)
    return parents


def first_colours(graph: Graph, numbers: dict[int, int]) -> dict[int, int]:
    """Colour the vertices by what they are, without regard to their children."""
    kinds = {
        number: (graph.vertices[number].kind, graph.vertices[number].label, numbers.get(number, -1))
        for number in graph.tangled
    }
    ranks = {kind: rank for rank, kind in enumerate(sorted(set(kinds.values())))}
    return {number: ranks[kind] for number, kind in kinds.items()}


def split(
    graph: Graph, colours: dict[int, int], cells: dict[int, set[int]], pending: set[int]
) -> list[tuple[int, list[int]]]:
    """Return the vertices that are to get a new colour, group by group, with the present one."""
    found: dict[int, dict[Signature, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number in pending:
        if len(cells[colours[number]]) > 1:
            found[colours[number]][sign(graph, number, colours)].append(number)
    changes: list[tuple[int, list[int]]] = []
    for cell in sorted(found):
        groups = [members for _, members in sorted(found[cell].items())]
        if sum(map(len, groups)) == len(cells[cell]):
            groups.remove(max(groups, key=len))  # one group keeps the colour
        changes += [(cell, members) for members in groups]
    return changes


def sign(graph: Graph, number: int, colours: dict[int, int]) -> Signature:
    """Return what tells a vertex from others of its colour."""
    if graph.is_unordered(number):
        return tuple(sorted(signature_of(group, colours) for group in graph.groups(number)))
    return signature_of(graph.vertices[number].parts, colours)


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
