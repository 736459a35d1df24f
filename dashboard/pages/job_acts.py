"""What is done with one job from its page: retry, cancel, run now, delete, and signals."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.coordination.redis.replies import UNREADABLE
from packmule.dashboard.acting import acting, go
from packmule.dashboard.forms import fields
from packmule.dashboard.pages import job
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.rights import needs
from packmule.dashboard.viewer import Role
from packmule.errors import Error, UsageError
from packmule.jobs import control, signaling
from packmule.jobs.reader import NoSuchJob

LONGEST_DATA = 70_000
"""Characters of a signal's data that are read; `signaling` allows fewer."""


@needs(Role.OPERATOR)
def act(request: Request) -> Response:
    """`POST /jobs/<id>`: do what the field `act` says."""
    client, id = request.app.state.site.client, request.path_params["id"]
    given = fields(request)
    name = given.get("act", "")
    if name == "signal":
        return _signal(request, id, given)
    if name not in job.ACTS:
        raise UsageError(f"no action is called {name:.40}: there are {', '.join(job.ACTS)} and signal")
    on = address(request, "jobs" if name == "delete" else "job", **({} if name == "delete" else {"id": id}))
    try:
        with acting(request, f"job {name}", id=id) as subject:
            if name == "cancel":
                subject["status"] = control.cancel(client, id)
                said = f"The job is {subject['status']}."
            elif name == "retry":
                control.retry(client, id)
                said = "The job is queued again, at the end of its queue."
            elif name == "run":
                control.run_now(client, id)
                said = "The job is in its queue now."
            else:
                control.delete(client, id)
                said = f"Job {id} is deleted."
    except NoSuchJob:
        raise
    except Error as error:
        return go(request, address(request, "job", id=id), f"Nothing was done: {error}.")
    return go(request, on, said)


def _signal(request: Request, id: str, given: Mapping[str, str]) -> Response:
    """Send the signal of a form. A mistake is shown beside its field, with what was typed."""
    name, text = given.get("name", ""), given.get("data", "").strip()
    back = given.get("back") == "approvals"
    try:
        data = msgspec.json.decode(text[:LONGEST_DATA]) if text else None
        signaling.written(name, data)
    except UNREADABLE as error:
        fault = f"That is not JSON: {error}. Put text in quotation marks."
        return job.page(request, 400, {**given, "fault": fault})
    except Error as error:
        return job.page(request, 400, {**given, "fault": f"{error}"})
    try:
        with acting(request, "job signal", id=id, signal=name) as subject:
            subject["verdict"] = signaling.signal(request.app.state.site.client, id, name, data)
    except signaling.NotSignaled as error:
        return go(request, address(request, "job", id=id), f"No signal was sent: {error}.")
    on = address(request, "approvals") if back else address(request, "job", id=id)
    woken = subject["verdict"] == "woken"
    return go(
        request,
        on,
        f"The job has the signal {name}" + (" and goes on." if woken else " when it asks for it."),
    )


ROUTES = [Route("/jobs/{id:path}", act, methods=["POST"], name="job_act")]
