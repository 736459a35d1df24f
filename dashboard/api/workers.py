"""Workers by HTTP: list, quiet, resume and stop them."""

from __future__ import annotations

import msgspec

from packmule.dashboard.api.endpoint import Call, Endpoint, endpoint
from packmule.dashboard.api.scopes import Scope
from packmule.jobs import cluster
from packmule.jobs.cluster import WorkerInfo


class Steered(msgspec.Struct, frozen=True):
    """A worker, and whether the request changed it."""

    worker: str
    changed: bool


@endpoint("GET", "/workers", Scope.READ, answer=list[WorkerInfo])
def workers(call: Call) -> list[WorkerInfo]:
    """List the registered workers, and what each does."""
    return cluster.workers(call.service.client)


@endpoint("POST", "/workers/{name}/quiet", Scope.ACT, answer=Steered, action="worker quiet", may=(404,))
def quiet(call: Call) -> Steered:
    """Let a worker take no more jobs until it is resumed or ends."""
    return Steered(call.path["name"], cluster.quiet(call.service.client, call.path["name"]))


@endpoint("POST", "/workers/{name}/resume", Scope.ACT, answer=Steered, action="worker resume", may=(404,))
def resume(call: Call) -> Steered:
    """Let a quiet worker take jobs again."""
    return Steered(call.path["name"], cluster.resume(call.service.client, call.path["name"]))


@endpoint("POST", "/workers/{name}/stop", Scope.ADMIN, answer=Steered, action="worker stop", may=(404,))
def stop(call: Call) -> Steered:
    """Let a worker end after the jobs that it runs; its pool starts another in its place."""
    cluster.stop(call.service.client, call.path["name"])
    return Steered(call.path["name"], True)


ENDPOINTS: tuple[Endpoint, ...] = (workers, quiet, resume, stop)
