"""Draws docs/states.svg: a job's states, and who moves it from one to the next.

python docs/draw_states.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("states.svg")
WIDTH, HEIGHT = 1180, 580
RADIUS = 10

Point = tuple[float, float]

ACTORS = {
    "client": ("#2457d6", "#86aeff"),
    "leading scheduler": ("#7a34d1", "#c3a1ff"),
    "worker": ("#17803d", "#63d48f"),
    "pool": ("#b8480b", "#ffa56b"),
    "operator": ("#b3164a", "#ff93ad"),
}
"""Who moves jobs, and the colour of that in light and in dark."""


@dataclass(frozen=True)
class State:
    """A box with a name, and below it what the name doesn't say."""

    name: str
    at: Point
    size: Point
    note: str = ""
    kind: str = "waiting"


@dataclass(frozen=True)
class Move:
    """A line of an actor along `points`, with a text at `place`; no arrow where it joins another line."""

    actor: str
    points: Sequence[Point]
    text: str = ""
    place: Point = (0, 0)
    anchor: str = "middle"
    has_arrow: bool = True


STATES = [
    State("scheduled", (230, 66), (150, 56), "until its time"),
    State("deferred", (230, 388), (150, 56), "until other jobs end"),
    State("queued", (440, 180), (190, 140), "in its queue's list, or"),
    State("blocked", (464, 258), (142, 44), kind="inner"),
    State("started", (790, 180), (130, 140), "on a worker", "running"),
    State("finished", (990, 110), (150, 56), "it returned", "good"),
    State("failed", (990, 222), (150, 56), "raised, died, expired", "bad"),
    State("stopped", (990, 334), (150, 56), "canceled as it ran", "ended"),
    State("canceled", (460, 424), (150, 56), "canceled as it waited", "ended"),
]

MOVES = [
    Move("client", [(140, 250), (440, 250)], "enqueue", (290, 240)),
    Move("client", [(90, 228), (90, 94), (230, 94)], "with a delay", (160, 84)),
    Move("client", [(90, 272), (90, 416), (230, 416)], "with dependencies", (160, 440)),
    Move("leading scheduler", [(380, 94), (535, 94), (535, 180)], "promote", (458, 84)),
    Move("worker", [(380, 416), (410, 416), (410, 300), (440, 300)], "the others end", (402, 366), "end"),
    Move("worker", [(630, 212), (790, 212)], "claim", (710, 202)),
    Move("worker", [(790, 254), (630, 254)], "retry, or drain", (710, 244)),
    Move("pool", [(790, 296), (630, 296)], "rescue", (710, 286)),
    Move("worker", [(855, 180), (855, 36), (305, 36), (305, 66)], "retry after a wait", (580, 26)),
    Move("worker", [(920, 212), (955, 212), (955, 138), (990, 138)]),
    Move("worker", [(920, 242), (990, 242)]),
    Move("pool", [(920, 260), (990, 260)]),
    Move("pool", [(920, 288), (955, 288), (955, 362), (990, 362)]),
    Move("operator", [(535, 320), (535, 424)], "cancel", (545, 376), "start"),
    Move(
        "operator",
        [(1140, 250), (1158, 250), (1158, 510), (660, 510), (660, 348), (610, 348), (610, 320)],
        "retry by hand",
        (900, 500),
    ),
    Move("operator", [(1140, 362), (1158, 362)], has_arrow=False),
    Move("operator", [(610, 452), (660, 452)], has_arrow=False),
]


def path(points: Sequence[Point]) -> str:
    """The line through `points`, with round corners."""
    parts = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        start, end = towards(corner, before), towards(corner, after)
        parts.append(f"L{start[0]:g} {start[1]:g}Q{corner[0]:g} {corner[1]:g} {end[0]:g} {end[1]:g}")
    parts.append(f"L{points[-1][0]:g} {points[-1][1]:g}")
    return "".join(parts)


def towards(corner: Point, other: Point) -> Point:
    """The point at which the line to `other` leaves a corner."""
    across, down = other[0] - corner[0], other[1] - corner[1]
    length = abs(across) + abs(down)
    step = min(RADIUS, length / 2) / length
    return corner[0] + across * step, corner[1] + down * step


def styles() -> Iterator[str]:
    """Colours for a light page, and behind them those for a dark one."""
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
    yield f"text{{font-family:{font};text-anchor:middle}}"
    yield ".name{font-size:17px;font-weight:600}.note{font-size:12.5px}.text{font-size:13px}"
    yield ".move{fill:none;stroke-width:1.8}.start{text-anchor:start}.end{text-anchor:end}"
    yield from themed(0)
    yield "@media (prefers-color-scheme:dark){"
    yield from themed(1)
    yield "}"


def themed(theme: int) -> Iterator[str]:
    """The colours of the light theme, 0, or the dark one, 1."""
    boxes = {
        "waiting": (("#eaf0fb", "#9db4dd"), ("#1c2738", "#4d6690")),
        "inner": (("#fbfcff", "#9db4dd"), ("#131b28", "#4d6690")),
        "running": (("#fff4d6", "#d9b655"), ("#352b10", "#8f7630")),
        "good": (("#e2f5e7", "#86c79a"), ("#14301f", "#3f8057")),
        "bad": (("#fde7e4", "#e0a097"), ("#3a1b18", "#995248")),
        "ended": (("#eeeef0", "#b4b4bc"), ("#26272b", "#66686f")),
    }
    for kind, colours in boxes.items():
        fill, stroke = colours[theme]
        yield f".{kind}{{fill:{fill};stroke:{stroke};stroke-width:1.4}}"
    yield f".name{{fill:{('#1c2230', '#eef1f6')[theme]}}}.note{{fill:{('#545d6e', '#a9b2c1')[theme]}}}"
    for number, colours in enumerate(ACTORS.values()):
        colour = colours[theme]
        yield f".a{number}{{stroke:{colour}}}.t{number},.h{number}{{fill:{colour}}}"


def box(state: State) -> Iterator[str]:
    (x, y), (width, height) = state.at, state.size
    middle = x + width / 2
    yield f'<rect class="{state.kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="10"/>'
    base = y + (34 if state.name == "queued" else height / 2 - (3 if state.note else -6))
    yield f'<text class="name" x="{middle:g}" y="{base:g}">{state.name}</text>'
    if state.note:
        yield f'<text class="note" x="{middle:g}" y="{base + 18:g}">{state.note}</text>'


def line(move: Move) -> Iterator[str]:
    number = list(ACTORS).index(move.actor)
    head = f' marker-end="url(#h{number})"' if move.has_arrow else ""
    points = list(move.points)
    if move.has_arrow:  # the arrow's head ends at the box, and the line before it
        (x1, y1), (x2, y2) = points[-2:]
        length = abs(x2 - x1) + abs(y2 - y1)
        points[-1] = (x2 - (x2 - x1) / length * 7, y2 - (y2 - y1) / length * 7)
    yield f'<path class="move a{number}" d="{path(points)}"{head}/>'
    if move.text:
        x, y = move.place
        yield f'<text class="text t{number} {move.anchor}" x="{x}" y="{y}">{move.text}</text>'


def legend() -> Iterator[str]:
    x = 210.0
    for number, actor in enumerate(ACTORS):
        yield f'<path class="move a{number}" d="M{x:g} 551h30" marker-end="url(#h{number})"/>'
        yield f'<text class="text t{number} start" x="{x + 48:g}" y="555">{actor}</text>'
        x += 90 + 7.6 * len(actor)


def drawing() -> str:
    """The picture as SVG."""
    markers = "".join(
        f'<marker id="h{number}" class="h{number}" viewBox="0 0 8 8" refX="1" refY="4" markerWidth="8" '
        'markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z"/></marker>'
        for number in range(len(ACTORS))
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>A job's states and who moves it</title>",
        f"<style>{''.join(styles())}</style>",
        f"<defs>{markers}</defs>",
        '<rect class="ended" x="40" y="228" width="100" height="44" rx="22"/>',
        '<text class="name" x="90" y="256">client</text>',
    ]
    for state in STATES:
        parts += box(state)
    for move in MOVES:
        parts += line(move)
    parts += legend()
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    FILE.write_text(drawing())
