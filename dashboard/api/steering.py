"""Steering jobs by HTTP: cancel, retry, run now, delete, signal; one, or each of some."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from packmule.dashboard.api.endpoint import Call, Endpoint, Reply, endpoint
from packmule.dashboard.api.enqueueing import Enqueued
from packmule.dashboard.api.idempotency import Repeat, idempotency
from packmule.dashboard.api.problems import Fault, Refused
from packmule.dashboard.api.scopes import Scope
from packmule.dashboard.api.spans import SpanText, seconds_up_to
from packmule.jobs import control, copying, keys, reader, signaling
from packmule.jobs.acts import ACTS
from packmule.jobs.client import UnknownQueue
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.read_tokens import USUAL_SECONDS, read_token

MOST_IDS = 1_000
LONGEST_CANCEL = 10.0


class Canceling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long a running job has to end: seconds, or a text such as 5s."""

    timeout: Annotated[float, Meta(ge=0, le=LONGEST_CANCEL)] | SpanText = 5.0


class JobStatus(msgspec.Struct, frozen=True):
    """A job's id and its status now."""

    id: str
    status: str


class Signal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signal's name, and its data: any JSON."""

    name: str
    data: Any = None


class Signaled(msgspec.Struct, frozen=True):
    """What became of a signal: the job was `woken` by it, or it is `kept` until the job asks for it."""

    id: str
    outcome: Literal["woken", "kept"]


class Acting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to do, and to which jobs."""

    act: Annotated[str, Meta(extra_json_schema={"enum": list(ACTS)})]
    ids: Annotated[list[str], Meta(min_length=1, max_length=MOST_IDS)]


class NotDone(msgspec.Struct, frozen=True):
    """A job that was refused, and why."""

    id: str
    detail: str


class Acts(msgspec.Struct, frozen=True):
    """The ids of the jobs to which it was done, and those that were refused."""

    done: list[str]
    refused: list[NotDone]


class Copying(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Other values for some arguments by name, and another queue."""

    changes: dict[str, Any] = {}
    queue: str | None = None


class Lending(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how long the token is good, and whether it shows what the job emits and returns."""

    seconds: Annotated[float, Meta(ge=1, le=86_400)] = USUAL_SECONDS
    output: bool = False


class ReadToken(msgspec.Struct, frozen=True):
    """A token for one thing, and where it can be followed; the token goes there as `?token=`."""

    token: str
    seconds: float
    stream: str


@endpoint(
    "POST", "/jobs/{id}/cancel", Scope.ACT, body=Canceling, answer=JobStatus, action="job cancel",
    may=(404, 409),
)  # fmt: skip
def cancel(call: Call) -> JobStatus:
    """Cancel a job, or stop it if it runs; one that has ended keeps its status."""
    id, timeout = call.path["id"], seconds_up_to(LONGEST_CANCEL, call.body.timeout, "timeout")
    return JobStatus(id, control.cancel(call.service.client, id, timeout))


@endpoint("POST", "/jobs/{id}/retry", Scope.ACT, answer=JobStatus, action="job retry", may=(404, 409))
def retry(call: Call) -> JobStatus:
    """Run a failed, stopped or canceled job again."""
    control.retry(call.service.client, call.path["id"])
    return JobStatus(call.path["id"], "queued")


@endpoint("POST", "/jobs/{id}/run", Scope.ACT, answer=JobStatus, action="job run", may=(404, 409))
def run(call: Call) -> JobStatus:
    """Let a scheduled job run now."""
    control.run_now(call.service.client, call.path["id"])
    return JobStatus(call.path["id"], "queued")


@endpoint("DELETE", "/jobs/{id}", Scope.ACT, status=204, action="job delete", may=(404, 409))
def delete(call: Call) -> None:
    """Delete a job that waits, is scheduled or has ended, with all that is kept of it."""
    control.delete(call.service.client, call.path["id"])


@endpoint(
    "POST", "/jobs/{id}/signal", Scope.ACT, body=Signal, answer=Signaled, action="job signal", may=(404, 409)
)  # fmt: skip
def signal(call: Call) -> Signaled:
    """Send a signal to a job that waits for it, or will."""
    id, body = call.path["id"], call.body
    call.audited["name"] = body.name
    return Signaled(id, signaling.signal(call.service.client, id, body.name, body.data))


@endpoint(
    "POST", "/jobs/{id}/copy", Scope.ENQUEUE, body=Copying, answer=Enqueued, status=201, action="job copy",
    may=(404, 409), takes_key=True,
)  # fmt: skip
def copy_job(call: Call) -> Reply:
    """Enqueue the same call as a new job, with some of its arguments changed; it also needs `payloads`.

    A request with an `Idempotency-Key` can be sent again within a day: it answers the same job.
    """
    reader.read(call.service.client, call.path["id"])
    call.asker.check(Scope.PAYLOADS, None)  # else a copy could send elsewhere what the token may not see
    body, client, key = call.body, call.service.client, idempotency(call)
    before = key.begin(client) if key else None
    if before is None:
        new_id = key.name if key else keys.new_job_id()
        try:
            made = copying.copy(call.service.site.jobs, call.path["id"], body.changes, body.queue, new_id)
        except UnknownQueue as error:
            raise Refused(422, "UnknownQueue", str(error), Fault(str(error), "#/queue")) from None
        except InvalidCall as error:
            raise Refused(422, "InvalidCall", str(error), Fault(str(error), "#/changes")) from None
        before = Repeat([str(made)], [0] if str(made) != new_id else [])
        if key:
            key.end(client, before)
    call.audited["new"] = before.ids[0]
    found = Enqueued(before.ids[0], bool(before.held))
    return call.made(found, f"/jobs/{found.id}", 200 if before.held else 201)


@endpoint("POST", "/acts", Scope.ACT, body=Acting, answer=Acts, action="job acts")
def act(call: Call) -> Acts:
    """Cancel, retry, run or delete each of some jobs; a refused one doesn't stop the others."""
    body: Acting = call.body
    if body.act not in ACTS:
        raise control.NotRun(f"no action is called {body.act}: there are {', '.join(ACTS)}")
    ids = list(dict.fromkeys(body.ids))
    done: list[str] = []
    refused: list[NotDone] = []
    for first in range(0, len(ids), 100):
        some = ids[first : first + 100]
        for id, error in zip(some, ACTS[body.act].do(call.service.client, some), strict=True):
            if error is None:
                done.append(id)
            else:
                refused.append(NotDone(id, str(error)))
    call.audited.update(act=body.act, done=len(done), refused=len(refused))
    return Acts(done, refused)


@endpoint(
    "POST", "/jobs/{id}/read-token", Scope.READ, body=Lending, answer=ReadToken, status=201, may=(404,)
)  # fmt: skip
async def lend(call: Call) -> Reply:
    """Make a short token for an application's user, which shows this job alone: status and progress.

    With `output` it also shows what the job emits and returns, which needs the scope `payloads`.
    """
    await call.service.read(call.path["id"])
    return await lent(call, "job")


async def lent(call: Call, kind: str) -> Reply:
    """A read token for the `kind` of thing called `id` in the path."""
    id, body = call.path["id"], call.body
    if body.output:
        call.asker.check(Scope.OUTPUT, None)
    token = await call.service.in_thread(
        lambda: read_token(call.service.client, kind, id, body.seconds, output=body.output)
    )
    path = call.request.url.path.removesuffix("/read-token")
    return Reply(ReadToken(token, body.seconds, f"{path}/stream"), 201)


ENDPOINTS: tuple[Endpoint, ...] = (cancel, retry, run, delete, signal, copy_job, act, lend)
