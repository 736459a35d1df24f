"""The picture of a flow: where its nodes and edges are. Of a large one, boxes stand for several nodes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote

from markupsafe import escape

from packmule.dashboard.pages.filters import short
from packmule.jobs.flow_graph import Node

MOST_BOXES, MOST_EDGES, MOST_TEXT = 80, 200, 12_000
"""Boxes, edges and bytes of text of a picture, so that its page stays small."""

LONGEST_ADDRESS = 100
"""Bytes of a job's id with which a box is a link to it; the table has links to all."""

WIDTH, HEIGHT, ACROSS, DOWN, MARGIN = 184, 44, 56, 16, 8
"""Of a node's box, and the gaps to the next column and the next node."""

COLOURS = {
    "failed": "failed",
    "running": "started",
    "queued": "queued",
    "scheduled": "scheduled",
    "waits": "deferred",
    "canceled": "canceled",
    "skipped": "canceled",
    "done": "finished",
}
"""The status whose colour and shape a node's state has; what needs most attention comes first."""


class Box(NamedTuple):
    """Nodes of the same state, with their place; `calls` is "" if they call different things."""

    nodes: Sequence[Node]
    calls: str
    x: int
    y: int

    @property
    def state(self) -> str:
        """The state of all its nodes."""
        return self.nodes[0].state

    @property
    def job(self) -> str:
        """The job of its only node, unless its id is too long; "" for several nodes."""
        job = self.nodes[0].job
        return job if len(self.nodes) == 1 and len(quote(job)) <= LONGEST_ADDRESS else ""

    @property
    def layers(self) -> str:
        """The layers that it has nodes of: `3`, or `3-7`."""
        found = [node.layer for node in self.nodes]
        return f"{min(found)}-{max(found)}" if min(found) < max(found) else f"{found[0]}"

    @property
    def lines(self) -> tuple[str, str]:
        """What it says: what is called, and how that stands."""
        called = self.calls if " " in self.calls else self.calls.rpartition(".")[2]  # of a dotted name
        what = short(called or self.nodes[0].name, 23)
        if len(self.nodes) == 1:
            return what, f"{self.state}, {short(named(self.nodes[0].name), 17)}"
        several = f"{len(self.nodes):,} nodes"
        where = f", layers {self.layers.replace('-', ' to ')}" if "-" in self.layers else ""
        return (f"{short(what, 14)} × {len(self.nodes):,}" if self.calls else several), f"{self.state}{where}"

    @property
    def title(self) -> str:
        """The whole of it."""
        calls = short(self.calls or ("" if len(self.nodes) > 1 else self.nodes[0].name), 60)
        one = len(self.nodes) == 1
        some = named(short(self.nodes[0].name, 30)) if one else f"{len(self.nodes):,} nodes"
        return f"{calls}, {self.state} ({some})" if calls else f"{some}, {self.state}"


class Edge(NamedTuple):
    """The path of an edge, and what the failure of the node in front means: "stop", "go on" or "run"."""

    path: str
    means: str


class Picture(NamedTuple):
    """A flow from the left to the right; `is_folded` if some of its boxes stand for several nodes."""

    width: int
    height: int
    boxes: list[Box]
    edges: list[Edge]
    is_folded: bool


class _Group(NamedTuple):
    column: int
    nodes: list[Node]

    @property
    def size(self) -> int:
        """The bytes of its text, about."""
        box = Box(self.nodes, _shared_calls(self.nodes), 0, 0)
        return sum(len(escape(text)) for text in (*box.lines, box.title)) + len(quote(box.job))


class _Folding(NamedTuple):
    """Groups of nodes, and between which of them edges of some meaning go, by their places in the list."""

    groups: list[_Group]
    edges: dict[tuple[int, int, str], None]

    @property
    def fits(self) -> bool:
        if len(self.groups) > MOST_BOXES or len(self.edges) > MOST_EDGES:
            return False
        return sum(group.size for group in self.groups) <= MOST_TEXT


def drawn(nodes: Sequence[Node]) -> Picture:
    """A picture of `nodes`; each is beside those that it comes after, as far as that goes.

    If they are too many, like ones are drawn as one box: first those that come after the same nodes, then all
    of a layer that call the same, then all of a layer, and at last those of several layers. Nodes of
    different states never share a box, so a failed one among thousands is seen.

    >>> drawn(flow_graph.read(client, id)[1]).width  # doctest: +SKIP
    424
    """
    folding = next((each for each in _foldings(nodes) if each.fits), None) or _by_bands(nodes)
    places: list[tuple[int, int]] = [(0, 0)] * len(folding.groups)
    columns: defaultdict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(folding.groups):
        columns[group.column].append(number)
    above: defaultdict[int, list[int]] = defaultdict(list)
    for begin, end, _ in folding.edges:
        above[end].append(begin)
    tallest = max(map(len, columns.values()), default=1)

    def height(number: int) -> float:
        return sum(places[each][1] for each in above[number]) / len(above[number]) if above[number] else 0.0

    for column, key in enumerate(sorted(columns)):
        some = sorted(columns[key], key=height)
        top = (tallest - len(some)) * (HEIGHT + DOWN) // 2
        for row, number in enumerate(some):
            places[number] = MARGIN + column * (WIDTH + ACROSS), MARGIN + top + row * (HEIGHT + DOWN)
    width = 2 * MARGIN + len(columns) * (WIDTH + ACROSS) - ACROSS
    return Picture(
        max(width, WIDTH),
        2 * MARGIN + tallest * (HEIGHT + DOWN) - DOWN,
        [
            Box(group.nodes, _shared_calls(group.nodes), *place)
            for group, place in zip(folding.groups, places, strict=True)
        ],
        [Edge(_curve(places[begin], places[end]), means) for begin, end, means in folding.edges],
        any(len(group.nodes) > 1 for group in folding.groups),
    )


def named(name: str) -> str:
    """A node's name in a sentence; one that was given none has a number."""
    return f"node {name}" if name.isdecimal() else name


def counts(nodes: Sequence[Node]) -> dict[str, int]:
    """How many nodes are in each state, in the order of the attention that they need.

    >>> counts([Node("a", "a", "done", "", {}, 1)])
    {'done': 1}
    """
    found = Counter(node.state for node in nodes)
    return {state: found[state] for state in COLOURS if found[state]}


def _foldings(nodes: Sequence[Node]) -> Iterator[_Folding]:
    """Ever coarser ones, each with a column for a layer."""
    like: tuple[Callable[[Node], Hashable], ...] = (
        lambda node: node.name,
        lambda node: (node.layer, node.state, node.calls, frozenset(node.after.items())),
        lambda node: (node.layer, node.state, node.calls),
        lambda node: (node.layer, node.state),
    )
    return (_folded(nodes, each, lambda node: node.layer) for each in like)


def _by_bands(nodes: Sequence[Node]) -> _Folding:
    """So many layers a column that all boxes fit, whose edges are those to the next column."""
    states = len(counts(nodes))
    deepest = max(node.layer for node in nodes)
    size = -(-deepest // max(1, MOST_BOXES // 2 // states))

    def column(node: Node) -> int:
        return (node.layer - 1) // size

    found = _folded(nodes, lambda node: (column(node), node.state), column)
    groups = found.groups
    near = [each for each in found.edges if groups[each[1]].column - groups[each[0]].column == 1]
    return _Folding(groups, dict.fromkeys(near[:MOST_EDGES]))


def _folded(
    nodes: Sequence[Node], like: Callable[[Node], Hashable], column: Callable[[Node], int]
) -> _Folding:
    numbers: dict[Hashable, int] = {}
    groups: list[_Group] = []
    of: dict[str, int] = {}
    for node in nodes:
        key = like(node)
        if key not in numbers:
            numbers[key] = len(groups)
            groups.append(_Group(column(node), []))
        of[node.name] = numbers[key]
        groups[numbers[key]].nodes.append(node)
    edges: dict[tuple[int, int, str], None] = {}
    for node in nodes:
        for name, means in node.after.items():
            if name in of and groups[of[name]].column != groups[of[node.name]].column:
                edges[of[name], of[node.name], means] = None
    return _Folding(groups, edges)


def _shared_calls(nodes: Sequence[Node]) -> str:
    calls = {node.calls for node in nodes}
    return calls.pop() if len(calls) == 1 else ""


def _curve(begin: tuple[int, int], end: tuple[int, int]) -> str:
    x, y, to_x, to_y = begin[0] + WIDTH, begin[1] + HEIGHT // 2, end[0], end[1] + HEIGHT // 2
    half = (to_x - x) // 2
    return f"M{x} {y}C{x + half} {y} {to_x - half} {to_y} {to_x} {to_y}"
