"""The picture of a flow: where its nodes and edges are, and beyond some hundreds its layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from packmule.jobs.flow_graph import Node

MOST_DRAWN = 300
"""Nodes that are drawn one by one."""

MOST_LAYERS = 200
"""Layers that a page shows one by one; the last one sums up the rest."""

WIDTH, HEIGHT, ACROSS, DOWN, MARGIN = 184, 44, 56, 16, 8
"""Of a node's box, and the gaps to the next layer and the next node."""

COLOURS = {
    "done": "finished",
    "failed": "failed",
    "canceled": "canceled",
    "skipped": "canceled",
    "running": "started",
    "queued": "queued",
    "scheduled": "scheduled",
    "waits": "deferred",
}
"""The status whose colour and shape a node's state has."""


class Box(NamedTuple):
    """A node, with its place."""

    node: Node
    x: int
    y: int


class Edge(NamedTuple):
    """The path of an edge, and what the failure of the node in front means: "stop", "go on" or "run"."""

    path: str
    means: str


class Picture(NamedTuple):
    """A flow from the left to the right."""

    width: int
    height: int
    boxes: list[Box]
    edges: list[Edge]


class Layer(NamedTuple):
    """The nodes of the layers from `first` to `last`, by the statuses whose colours they have."""

    first: int
    last: int
    counts: dict[str, int]


def drawn(nodes: Sequence[Node]) -> Picture:
    """A picture of `nodes`; each is beside those that it comes after, as far as that goes.

    >>> drawn(flow_graph.read(client, id)[1]).width  # doctest: +SKIP
    424
    """
    layers: dict[int, list[Node]] = {}
    for node in nodes:
        layers.setdefault(node.layer, []).append(node)
    tallest = max(map(len, layers.values()), default=1)
    places: dict[str, Box] = {}
    for column, number in enumerate(sorted(layers)):
        some = sorted(layers[number], key=lambda node: _height(node, places))
        top = (tallest - len(some)) * (HEIGHT + DOWN) // 2
        for row, node in enumerate(some):
            x, y = MARGIN + column * (WIDTH + ACROSS), MARGIN + top + row * (HEIGHT + DOWN)
            places[node.name] = Box(node, x, y)
    edges = [
        Edge(_curve(places[name], box), means)
        for box in places.values()
        for name, means in box.node.after.items()
        if name in places
    ]
    width = 2 * MARGIN + len(layers) * (WIDTH + ACROSS) - ACROSS
    return Picture(
        max(width, WIDTH), 2 * MARGIN + tallest * (HEIGHT + DOWN) - DOWN, [*places.values()], edges
    )


def layers(nodes: Sequence[Node]) -> list[Layer]:
    """The layers of a large flow, each with how its nodes are."""
    found: dict[int, Counter[str]] = {}
    for node in nodes:
        found.setdefault(min(node.layer, MOST_LAYERS), Counter())[COLOURS[node.state]] += 1
    last = max((node.layer for node in nodes), default=1)
    return [
        Layer(
            number,
            last if number == MOST_LAYERS else number,
            {each: found[number][each] for each in dict.fromkeys(COLOURS.values())},
        )
        for number in sorted(found)
    ]


def _height(node: Node, places: dict[str, Box]) -> float:
    """Where the nodes in front are, on average."""
    above = [places[name].y for name in node.after if name in places]
    return sum(above) / len(above) if above else 0.0


def _curve(begin: Box, end: Box) -> str:
    x, y, to_x, to_y = begin.x + WIDTH, begin.y + HEIGHT // 2, end.x, end.y + HEIGHT // 2
    half = (to_x - x) // 2
    return f"M{x} {y}C{x + half} {y} {to_x - half} {to_y} {to_x} {to_y}"
