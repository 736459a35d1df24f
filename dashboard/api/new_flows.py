"""Flows by HTTP: create one of nodes that name each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from packmule.dashboard.api.endpoint import Call, Endpoint, Reply, endpoint
from packmule.dashboard.api.enqueueing import MOST_CALLS, NewJob, asked_for
from packmule.dashboard.api.idempotency import Idempotency, Repeat, idempotency
from packmule.dashboard.api.preparing import CALLBACKS, at, moved, of_callback, prepared
from packmule.dashboard.api.problems import Fault, Refused
from packmule.dashboard.api.scopes import Scope
from packmule.dashboard.api.spans import SpanText
from packmule.errors import Conflict, Error
from packmule.jobs import batch_state
from packmule.jobs.batch import KEEP
from packmule.jobs.batch_state import NoSuchBatch
from packmule.jobs.flow import Flow
from packmule.jobs.flow_plan import InvalidFlow, OnFailure
from packmule.jobs.job import Prepared
from packmule.jobs.options import InvalidOption
from packmule.jobs.spans import LONGEST_SPAN

NodeName = Annotated[str, Meta(min_length=1, max_length=100)]
MOST_IN_FRONT = 1_000


class NewNode(NewJob, frozen=True, forbid_unknown_fields=True):
    """A call that begins when all nodes that it comes `after` have ended as they must.

    They stand before it, by their names: in a list, or as an object that says what each one's failure means
    instead of `on_failure`. `results` gives arguments the results of nodes in front, by the arguments' names:
    of one node, or a list of several.
    """

    name: NodeName = ""
    after: (
        Annotated[list[NodeName], Meta(max_length=MOST_IN_FRONT)]
        | Annotated[dict[NodeName, OnFailure], Meta(max_length=MOST_IN_FRONT)]
    ) = msgspec.field(default_factory=list)
    on_failure: OnFailure = "stop"
    results: dict[str, NodeName | list[NodeName]] = msgspec.field(default_factory=dict)


class NewFlow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A flow to be made, which begins at once; `POST /batches` describes the other fields."""

    nodes: Annotated[list[NewNode], Meta(min_length=1, max_length=MOST_CALLS)]
    name: Annotated[str, Meta(max_length=1000)] = ""
    on_complete: NewJob | None = None
    on_success: NewJob | None = None
    collect: bool = False
    keep: Annotated[float, Meta(ge=1, le=LONGEST_SPAN)] | SpanText = KEEP


class FlowMade(msgspec.Struct, frozen=True):
    """The flow's id, and the ids of its nodes in the order given."""

    flow: str
    jobs: list[str]


@endpoint("POST", "/flows", Scope.ENQUEUE, body=NewFlow, answer=FlowMade, status=201, may=(404, 409),
          takes_key=True)  # fmt: skip
async def create_flow(call: Call) -> Reply:
    """Create a flow and let it begin, all of it or nothing.

    With an `Idempotency-Key` the same request within a day answers the same flow.
    """
    body: NewFlow = call.body
    service, key = call.service, idempotency(call)
    if key and (before := await service.in_thread(key.begin, service.client)):
        return call.made(FlowMade(before.ids[0], before.ids[1:]), f"/flows/{before.ids[0]}")
    callbacks = {name: await prepared(call, getattr(body, name), f"/{name}") for name in CALLBACKS}
    calls = []
    for place, node in enumerate(body.nodes):
        try:
            job, options = await asked_for(call, node.job, node.options)
        except Refused as refusal:
            raise moved(refusal, f"/nodes/{place}") from None
        calls.append(Prepared(job, (node.args, node.kwargs), options))
    try:
        found = await service.in_thread(_started, call, calls, callbacks, key)
    except Refused:
        raise
    except Error as error:
        raise of_callback(error, callbacks) from None
    if key:
        await service.in_thread(key.end, service.client, Repeat([found.flow, *found.jobs], []))
    return call.made(found, f"/flows/{found.flow}")


def _started(
    call: Call, calls: list[Prepared], callbacks: Mapping[str, Prepared | None], key: Idempotency | None
) -> FlowMade:
    """Add the nodes and start the flow, unless the same request has started it before."""
    body: NewFlow = call.body
    flow = Flow(
        body.name,
        on_complete=callbacks["on_complete"],
        on_success=callbacks["on_success"],
        collect=body.collect,
        keep=body.keep,
        id=key.name if key else None,
        client=call.service.site.jobs,
    )
    names: dict[str, str] = {}
    jobs = []
    for place, (node, made) in enumerate(zip(body.nodes, calls, strict=True)):
        jobs.append(_add(flow, names, node, made, f"/nodes/{place}"))
        if node.name in names:
            raise _fault("InvalidFlow", f"two nodes are called {node.name}", f"/nodes/{place}/name")
        if node.name:
            names[node.name] = jobs[-1]
    try:
        flow.start()
    except Conflict:
        if key is None or not _is_there(flow):
            raise  # otherwise the same request began it, and it has ended since
    return FlowMade(flow.id, jobs)


def _add(flow: Flow, names: Mapping[str, str], node: NewNode, made: Prepared, place: str) -> str:
    """Add a node behind those that it names; its id. Raises `Refused`."""

    def known(name: str, where: str) -> str:
        if name not in names:
            raise _fault("InvalidFlow", f"no node before this one is called {name}", f"{place}/{where}")
        return names[name]

    if isinstance(node.after, Mapping):
        after: Any = {known(name, "after"): how for name, how in node.after.items()}
    else:
        after = [known(name, "after") for name in node.after]
    args, kwargs = made.call
    results = {}
    for name, said in node.results.items():
        where = f"results/{name.replace('~', '~0').replace('/', '~1')}"
        if name in kwargs:
            raise _fault("InvalidCall", f"{name} is in kwargs and in results: keep one", f"{place}/{where}")
        taken = known(said, where) if isinstance(said, str) else [known(each, where) for each in said]
        results[name] = flow.result(taken)
    call = args, {**kwargs, **results}
    try:
        return str(flow.add(made._replace(call=call), after=after, on_failure=node.on_failure))
    except InvalidFlow as error:
        raise _fault("InvalidFlow", str(error), f"{place}/after") from None
    except InvalidOption as error:
        raise _fault("InvalidOption", str(error), f"{place}/options") from None
    except Error as error:
        raise at(error, place, made.job, call) from None


def _is_there(flow: Flow) -> bool:
    try:
        batch_state.read(flow.redis, flow.id)
    except NoSuchBatch:
        return False
    return True


def _fault(kind: str, text: str, place: str) -> Refused:
    return Refused(422, kind, text, Fault(text, f"#{place}"))


ENDPOINTS: tuple[Endpoint, ...] = (create_flow,)
