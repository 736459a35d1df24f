"""Flows by HTTP: list, read, retry and cancel."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from packmule.dashboard.api.batches import Limited
from packmule.dashboard.api.endpoint import Call, Endpoint, endpoint
from packmule.dashboard.api.scopes import Scope
from packmule.jobs import flow_graph
from packmule.jobs.batch_info import BatchInfo, FlowInfo, batch_info, flow_info
from packmule.jobs.flow import Flow


class Retried(msgspec.Struct, frozen=True):
    """How many failed or canceled nodes run again."""

    flow: str
    nodes: int


@endpoint("GET", "/flows", Scope.READ, query=Limited, answer=list[BatchInfo])
def flows(call: Call) -> list[BatchInfo]:
    """List the flows among the latest batches, the newest first."""
    return [batch_info(each) for each in flow_graph.latest(call.service.client, call.query.limit)]


@endpoint("GET", "/flows/{id}", Scope.READ, answer=FlowInfo, has_etag=True, may=(404,))
def read_flow(call: Call) -> FlowInfo:
    """Read one flow with its nodes: what each does, and what it comes after."""
    state, nodes = flow_graph.read(call.service.client, call.path["id"])
    if not call.asker.may(Scope.PAYLOADS):  # stock RQ's descriptions have arguments
        nodes = [replace(node, calls=node.calls.partition("(")[0]) for node in nodes]
    return flow_info(state, nodes)


@endpoint("POST", "/flows/{id}/retry", Scope.ACT, answer=Retried, action="flow retry", may=(404, 409))
def retry(call: Call) -> Retried:
    """Run the failed nodes of a flow again, and those behind them that were canceled."""
    id, service = call.path["id"], call.service
    flow_graph.read(service.client, id)
    return Retried(id, Flow.at(id, service.site.jobs).retry())


@endpoint("POST", "/flows/{id}/cancel", Scope.ACT, answer=BatchInfo, action="flow cancel", may=(404,))
def cancel(call: Call) -> BatchInfo:
    """Cancel a flow's waiting nodes and stop its running ones."""
    id, service = call.path["id"], call.service
    flow_graph.read(service.client, id)
    flow = Flow.at(id, service.site.jobs)
    flow.cancel()
    return batch_info(flow.state())


ENDPOINTS: tuple[Endpoint, ...] = (flows, read_flow, retry, cancel)
