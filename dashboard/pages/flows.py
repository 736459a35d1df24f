"""Flows: the picture of each, how its nodes are, and retrying it from where it failed."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from redis import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.pages import batches, flow_picture
from packmule.dashboard.pages.flow_picture import COLOURS
from packmule.dashboard.pages.paging import choice, page_of, small
from packmule.dashboard.pages.rendering import render
from packmule.jobs import batch_state, flow_graph, reader
from packmule.jobs.batch import NESTED
from packmule.jobs.batch_info import word
from packmule.jobs.flow_graph import Node

BAR = ("finished", "failed", "canceled", "started", "queued", "scheduled", "deferred")
"""The statuses of a flow's bar, in its order."""

MOST_READ = 10_000
"""Nodes that a page reads; of a larger flow it shows the counts alone."""

ROWS = 25
"""Nodes on one page of the table."""

MOST_BYTES = 18_000
"""Of the table."""

MOST_AFTER = 5
"""Nodes in front that a row names."""

_LAYERS = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)


def flows(request: Request) -> Response:
    """`/flows`: the flows, the newest first."""
    return batches.listed(request, flows=True)


def flow(request: Request) -> Response:
    """`/flows/{id}`: one flow, as a picture and as a table; `?state=failed&layer=2-9` chooses of its rows."""
    client: Redis = request.app.state.site.client
    id = request.path_params["id"]
    state = batch_state.read(client, id)
    nodes = [] if state.counts.total > MOST_READ else flow_graph.read(client, id)[1]
    if not request.state.viewer.may_see_payloads:  # stock RQ's descriptions have arguments
        nodes = [dataclasses.replace(node, calls=node.calls.partition("(")[0]) for node in nodes]
    values: dict[str, Any] = {
        "flow": state,
        "state": word(state),
        "colours": COLOURS,
        "nested": NESTED,
        "box": (flow_picture.WIDTH, flow_picture.HEIGHT),
    }
    if not nodes:
        return render(request, "flow.html", **values, counts=batches.bar(state), picture=None, states={})
    states = flow_picture.counts(nodes)
    asked = choice(request, "state", ("", *states))
    layers = _LAYERS.fullmatch(request.query_params.get("layer", ""))
    rows = [node for node in nodes if asked in ("", node.state) and (not layers or _is_in(node, layers))]
    attention = {name: number for number, name in enumerate(COLOURS)}
    rows.sort(key=lambda node: attention[node.state])
    counts: dict[str, int] = dict.fromkeys(BAR, 0)
    for name, count in states.items():
        counts[COLOURS[name]] += count
    picture = flow_picture.drawn(nodes)

    def of_rows(size: int) -> Response:
        page = page_of(rows, request, size)
        failed = [
            each.job for each in page.rows if each.state == "failed" and not each.job.startswith(NESTED)
        ]
        return render(
            request,
            "flow.html",
            **values,
            counts=counts,
            picture=picture,
            states=states,
            asked=asked,
            layers=layers[0] if layers else "",
            page=page,
            most_after=MOST_AFTER,
            errors=dict(zip(failed, reader.read_many(client, failed), strict=True)),
        )

    return small(of_rows, MOST_BYTES, "nodes", size=ROWS)


def _is_in(node: Node, layers: re.Match[str]) -> bool:
    return int(layers[1]) <= node.layer <= int(layers[2] or layers[1])


ROUTES = [
    Route("/flows", flows, name="flows"),
    Route("/flows/{id:path}", flow, name="flow"),
]
