"""Pipelines by HTTP: list them, and upload a file that is sent through one."""

from __future__ import annotations

from pathlib import PurePosixPath

import msgspec

from packmule.dashboard.api.endpoint import Call, Endpoint, Reply, endpoint
from packmule.dashboard.api.files import Uploaded, from_form
from packmule.dashboard.api.idempotency import Repeat, idempotency
from packmule.dashboard.api.problems import Refused
from packmule.dashboard.api.scopes import Scope
from packmule.jobs import batch_state
from packmule.jobs.keys import new_job_id
from packmule.jobs.pipelines import Pipeline
from packmule.jobs.pipelines.pipeline_file import find, known
from packmule.jobs.pipelines.staging import MANIFEST, place_of


class PipelineInfo(msgspec.Struct, frozen=True):
    """A pipeline and the names of its steps."""

    name: str
    steps: list[str]


class PipelineRun(msgspec.Struct, frozen=True):
    """The flow that a file is sent as, where the file is, and where its results appear."""

    flow: str
    source: str
    manifest: str


@endpoint("GET", "/pipelines", Scope.READ, answer=list[PipelineInfo])
def pipelines(call: Call) -> list[PipelineInfo]:
    """List the pipelines that uploads may be sent through."""
    found = _known(call)
    return [PipelineInfo(name, [each.name for each in found[name].steps]) for name in sorted(found)]


@endpoint(
    "POST", "/pipelines/{name}", Scope.ENQUEUE, takes="multipart/form-data", answer=PipelineRun, status=201,
    may=(404, 409, 413, 507), takes_key=True,
)  # fmt: skip
async def run_pipeline(call: Call) -> Reply:
    """Upload a file from a form, whose part is called `file`, and send it through a pipeline.

    With an `Idempotency-Key` the same file sent again within a day answers the same flow, and is stored once.
    """
    service = call.service
    idempotency(call)  # refuses a key that can't be meant before anything is read
    pipeline = await service.in_thread(_sendable, call)
    uploaded = await from_form(call)
    call.body = [uploaded.sha256, PurePosixPath(uploaded.path).name]  # what makes it the same request
    key = idempotency(call)
    id = key.name if key else new_job_id()
    run = PipelineRun(id, uploaded.path, f"{place_of(pipeline.name, uploaded.path, id)}/{MANIFEST}")
    if key:  # kept first, so that a repeat never sends another file as the same flow
        answer = Repeat([run.flow, run.source, run.manifest], [])
        try:
            before = await service.in_thread(key.begin, service.client, answer)
        except Refused:  # after any other error Redis may know the file
            await service.in_thread(_remove, call, uploaded)
            raise
        if before:
            await service.in_thread(_remove, call, uploaded)
            run = PipelineRun(*before.ids)
    await service.in_thread(_send, call, pipeline, run)
    return call.made(run, f"/flows/{run.flow}")


def _known(call: Call) -> dict[str, Pipeline]:
    options = call.service.options
    return known(options.pipelines, options.modules)


def _sendable(call: Call) -> Pipeline:
    """The pipeline that a request names, which can be sent. Raises `UnknownPipeline` and its fault."""
    found = find(_known(call), call.path["name"])
    found.check(call.service.site.jobs)
    return found


def _send(call: Call, pipeline: Pipeline, run: PipelineRun) -> None:
    """Start the flow, unless the same request did it before."""
    jobs = call.service.site.jobs
    (state,) = batch_state.read_each(jobs.redis, [run.flow])
    if state is None or not state.is_sealed:
        pipeline.enqueue(run.source, id=run.flow, client=jobs)


def _remove(call: Call, uploaded: Uploaded) -> None:
    """Delete a file that is there twice, or was sent for nothing."""
    if call.service.storage is not None:
        call.service.storage.delete(uploaded.path)


ENDPOINTS: tuple[Endpoint, ...] = (pipelines, run_pipeline)
