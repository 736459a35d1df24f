"""Batches: how far each is, which of its jobs failed, and pausing, canceling and retrying it."""

from __future__ import annotations

from redis import Redis
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from packmule.dashboard.acting import acting, go
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.paging import MOST_BYTES, asked, choice, offset, small
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import needs
from packmule.dashboard.viewer import Role
from packmule.errors import Error
from packmule.jobs import batch_state, keys, reader
from packmule.jobs.batch import NESTED, Batch
from packmule.jobs.batch_info import word
from packmule.jobs.batch_state import NoSuchBatch, State
from packmule.jobs.flow import Flow

STATES = ("all", "running", "growing", "paused", "canceled", "failed", "ended")
JOBS = 50
"""Failed and pending jobs that a batch's page shows."""


def bar(state: State) -> dict[str, int]:
    """The counts of a batch by the statuses whose colours they have."""
    counts = state.counts
    return {
        "finished": counts.done,
        "failed": counts.failed,
        "canceled": counts.canceled,
        "queued": counts.pending,
    }


def listed(request: Request, *, flows: bool) -> Response:
    """A page of batches, or of flows."""
    state, words = choice(request, "state", STATES), asked(request).lower().split()

    def fits(found: State, is_flow: bool) -> bool:
        said = f"{found.name} {found.id}".lower()
        is_in = state in ("all", word(found)) or (state == "failed" and found.counts.failed > 0)
        return is_flow == flows and is_in and all(each in said for each in words)

    client: Redis = request.app.state.site.client

    def of_rows(size: int) -> Response:
        return render(
            request,
            "batches.html",
            page=batch_state.page(client, offset(request), size, fits),
            flows=flows,
            states=STATES,
            state=state,
            asked=asked(request),
            word=word,
            bar=bar,
            looked=batch_state.MOST_LOOKED,
        )

    return small(of_rows, MOST_BYTES, "list")


def batches(request: Request) -> Response:
    """`/batches`: the batches that are no flows, the newest first."""
    return listed(request, flows=False)


def batch(request: Request) -> Response:
    """`/batches/{id}`: one batch; a flow has a page of its own."""
    client, id = request.app.state.site.client, request.path_params["id"]
    state = batch_state.read(client, id)
    if is_flow(client, id):
        return RedirectResponse(address(request, "flow", id=id), 302)
    failed, are_all_failed = batch_state.some_jobs(client, id, "f", JOBS)
    pending, _ = batch_state.some_jobs(client, id, "p", JOBS)
    ids = [*failed, *pending, *batch_state.callbacks(client, id).values()]
    found = dict(zip(ids, reader.read_many(client, ids), strict=True))
    return render(
        request,
        "batch.html",
        batch=state,
        state=word(state),
        bar=bar(state),
        failed=failed,
        are_all_failed=are_all_failed,
        running=[id for id in pending if (job := found[id]) and job.status == "started"],
        callbacks=batch_state.callbacks(client, id),
        jobs=found,
        nested=NESTED,
    )


@needs(Role.OPERATOR)
def act(request: Request) -> Response:
    """`POST /batches/{id}/{act}`: pause, resume, cancel or retry a batch or flow."""
    client, id, wanted = request.app.state.site.client, request.path_params["id"], request.path_params["act"]
    if wanted not in ("pause", "resume", "cancel", "retry"):
        raise HTTPException(404)
    batch_state.read(client, id)  # an unknown one is no act
    flow = is_flow(client, id)
    found, noun = (Flow.at(id, client), "flow") if flow else (Batch(client, id), "batch")
    back = address(request, noun, id=id)
    try:
        with acting(
            request, f"{'flow' if flow and wanted == 'retry' else 'batch'} {wanted}", id=id
        ) as subject:
            if wanted == "pause":
                said = (
                    "It is paused: workers take no more of its jobs."
                    if found.pause()
                    else "It was already paused, or has ended."
                )
            elif wanted == "resume":
                said = "It is resumed." if found.resume() else "It was not paused."
            elif wanted == "cancel":
                found.cancel()
                counts = found.state().counts
                said = (
                    f"{counts.canceled:,} of its jobs are canceled, and {counts.pending:,} are being stopped."
                )
            else:
                subject["jobs"] = count = found.retry()
                said = f"{count:,} of its failed jobs run again."
    except NoSuchBatch:
        raise
    except Error as error:
        return go(request, back, f"Only part of it was done: {error}.")
    return go(request, back, said)


def is_flow(client: Redis, id: str) -> bool:
    """Whether a batch has edges."""
    return bool(client.hexists(keys.batch_key(id), "start"))


ROUTES = [
    Route("/batches", batches, name="batches"),
    Route("/batches/{id:path}/{act}", act, methods=["POST"], name="act_on_batch"),
    Route("/batches/{id:path}", batch, name="batch"),
]
