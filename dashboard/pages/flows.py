"""Flows: the picture of each, how its nodes are, and retrying it from where it failed."""

from __future__ import annotations

import dataclasses
from collections import Counter

from redis import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.pages import batches, flow_picture
from packmule.dashboard.pages.flow_picture import COLOURS, MOST_DRAWN
from packmule.dashboard.pages.rendering import render
from packmule.jobs import batch_state, flow_graph, reader
from packmule.jobs.batch import NESTED
from packmule.jobs.batch_info import word

MOST_READ = 10_000
"""Nodes that a page reads; of a larger flow it shows the counts alone."""

MOST_FAILED = 20
"""Failed nodes whose errors a page shows."""


def flows(request: Request) -> Response:
    """`/flows`: the flows, the newest first."""
    return batches.listed(request, flows=True)


def flow(request: Request) -> Response:
    """`/flows/{id}`: one flow, as a picture and as a table."""
    client: Redis = request.app.state.site.client
    id = request.path_params["id"]
    state = batch_state.read(client, id)
    nodes = [] if state.counts.total > MOST_READ else flow_graph.read(client, id)[1]
    if not request.state.viewer.may_see_payloads:  # stock RQ's descriptions have arguments
        nodes = [dataclasses.replace(node, calls=node.calls.partition("(")[0]) for node in nodes]
    failed = [node.job for node in nodes if node.state == "failed" and not node.job.startswith(NESTED)]
    errors = dict(zip(failed, reader.read_many(client, failed[:MOST_FAILED]), strict=False))
    is_drawn = 0 < len(nodes) <= MOST_DRAWN
    return render(
        request,
        "flow.html",
        flow=state,
        state=word(state),
        counts=_counts(nodes) if nodes else batches.bar(state),
        picture=flow_picture.drawn(nodes) if is_drawn else None,
        layers=[] if is_drawn else flow_picture.layers(nodes),
        nodes=nodes if is_drawn else [node for node in nodes if node.state == "failed"][:MOST_DRAWN],
        errors=errors,
        colours=COLOURS,
        nested=NESTED,
        box=(flow_picture.WIDTH, flow_picture.HEIGHT),
    )


def _counts(nodes: list[flow_graph.Node]) -> dict[str, int]:
    """How many nodes have each colour, in the order of the colours."""
    found = Counter(COLOURS[node.state] for node in nodes)
    return {colour: found[colour] for colour in dict.fromkeys(COLOURS.values())}


ROUTES = [
    Route("/flows", flows, name="flows"),
    Route("/flows/{id:path}", flow, name="flow"),
]
