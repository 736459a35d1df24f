"""Drawing flows: a small one node by node, a large one layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from redis import Redis
from rich.console import Group, RenderableType
from rich.text import Text

from packmule.jobs import reader
from packmule.jobs.batch import NESTED
from packmule.jobs.batch_state import State
from packmule.jobs.flow_graph import Node
from packmule.plain_text import plain
from packmule.terminal import show, show_job

MOST_DRAWN = 40
"""Nodes that are drawn one by one."""

MOST_LAYERS = 30
"""Lines for layers; if there are more, several share one."""

BAR = 16
"""Characters of a bar."""

NAMED, MOST_KINDS = 3, 2
"""Other nodes in front that a line names, and jobs that a layer's does."""

MARKS = {
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "canceled": ("∅", "red dim"),
    "skipped": ("-", "dim"),
    "running": ("▶", "cyan"),
    "queued": ("○", ""),
    "scheduled": ("◷", "yellow"),
    "waits": ("·", "dim"),
}
SEGMENTS = (
    ("done", "█", "green"),
    ("failed", "█", "red"),
    ("canceled", "▒", "red dim"),
    ("skipped", "▒", "dim"),
)
CONDITIONS = {"stop": "", "go on": "in any case", "run": "on failure"}


def drawn(client: Redis, state: State | None, nodes: Sequence[Node], width: int) -> RenderableType:
    """A flow, or jobs without a flow, within `width` columns."""
    title = Text(
        f"{plain(state.name) or 'flow'} {state.id}" if state else "jobs that wait for each other", "bold"
    )
    title.truncate(width, overflow="ellipsis")
    body = _tree(client, nodes, width) if len(nodes) <= MOST_DRAWN else [_table(nodes, width)]
    return Group(title, _counts(nodes, state), *body)


def _counts(nodes: Sequence[Node], state: State | None) -> Text:
    counts = Counter(node.state for node in nodes)
    said = [f"{counts[word]:,} {word}" for word in MARKS if counts[word]]
    if state and state.ended is not None:
        said.append(f"ended {show.distance(state.ended)}")
    elif state and state.is_paused:
        said.append("paused")
    return Text(", ".join(said), "dim")


def _tree(client: Redis, nodes: Sequence[Node], width: int) -> list[Text]:
    """A line for each node, below the last of those that it comes after."""
    layers = {node.name: node.layer for node in nodes}
    below: dict[str, list[Node]] = {}
    for node in nodes:
        last = max(node.after, key=lambda name: layers[name], default="")
        below.setdefault(last, []).append(node)
    lines = []
    for lead, node, above in _branches(below, "", ""):
        mark, style = MARKS[node.state]
        line = Text.assemble((lead, "dim"), (mark, style), (plain(_named(node)), "dim"))
        line.append(f" {plain(_short(node.calls))}")
        if remark := _remark(node, above):
            line.append(f"  {plain(remark)}", "dim")
        if node.state in ("failed", "running"):
            line.append(f"  {plain(_news(client, node))}", style)
        line.truncate(width, overflow="ellipsis")
        lines.append(line)
    return lines


def _branches(below: dict[str, list[Node]], above: str, lead: str) -> Iterator[tuple[str, Node, str]]:
    """Each node below the one called `above`, with the lines in front of it, and what it's below."""
    some = below.get(above, [])
    for number, node in enumerate(some, 1):
        is_last = number == len(some)
        own, rest = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
        if not above:
            own, rest = "", ""
        elif len(some) == 1:
            own, rest = "↓ ", ""  # a chain goes straight down
        yield lead + own, node, above
        yield from _branches(below, node.name, lead + rest)


def _remark(node: Node, above: str) -> str:
    """What the place of a node doesn't show: what else it comes after, and when it runs."""
    words = {how for how in node.after.values() if how != "stop"}
    said = [CONDITIONS[how] for how in sorted(words)]
    others = [name.removeprefix(NESTED) for name in node.after if name != above]
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        said.append(f"also after {', '.join(others[:NAMED])}{more}")
    return ", ".join(said)


def _news(client: Redis, node: Node) -> str:
    """Why a node failed, or how far it is."""
    info = reader.read_if_there(client, node.job)
    return (info and (info.reason if node.state == "failed" else show_job.progress(info))) or ""


def _named(node: Node) -> str:
    """A node's name; that of a flow is in what it calls."""
    return "" if node.name.startswith(NESTED) else f" {node.name}"


def _short(calls: str) -> str:
    """What a node calls: of a dotted name the function and its module."""
    return ".".join(calls.split(".")[-2:]) if " " not in calls else calls


def _table(nodes: Sequence[Node], width: int) -> RenderableType:
    """A line for each layer, or for some that follow each other."""
    last = nodes[-1].layer
    share = -(-last // MOST_LAYERS)
    rows: list[tuple[Any, ...]] = []
    for first in range(1, last + 1, share):
        some = [node for node in nodes if first <= node.layer < first + share]
        counts = Counter(node.state for node in some)
        ended = sum(counts[word] for word, *_ in SEGMENTS)
        label = f"{first}" if share == 1 else f"{first} to {min(first + share - 1, last)}"
        kinds = [
            _short(calls) for calls, _ in Counter(node.calls for node in some if node.calls).most_common()
        ]
        calls = ", ".join(kinds[:MOST_KINDS]) + (" ..." if len(kinds) > MOST_KINDS else "")
        rows.append((label, _bar(counts, len(some)), len(some), len(some) - ended, counts["failed"], calls))
    return show.grid(("layer", "", "nodes", "pending", "failed", "calls"), rows, width, cut="calls")


def _bar(counts: Counter[str], total: int) -> Text:
    bar = Text()
    for word, block, style in SEGMENTS:
        bar.append(block * (BAR * counts[word] // total or bool(counts[word])), style)
    bar.truncate(BAR)
    return bar.append("░" * (BAR - len(bar.plain)), "dim")
