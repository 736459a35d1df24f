"""The pages of bulk actions: a dry run that asks, the list, and each with its progress, result and undo."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.acting import acting, go, sender
from packmule.dashboard.bulk import beginning, performing, record
from packmule.dashboard.bulk.beginning import within, without_values
from packmule.dashboard.bulk.counting import counted
from packmule.dashboard.bulk.kept import MOST_JOBS, Copies
from packmule.dashboard.bulk.record import Bulk
from packmule.dashboard.forms import fields
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.job_values import readable, row
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import needs
from packmule.dashboard.viewer import Role
from packmule.errors import UsageError
from packmule.jobs import acts, reader, wire

WORDS = {"retry": "Retry", "cancel": "Cancel", "run": "Run now", "delete": "Delete"}

DONE = {"retry": "queued again", "cancel": "canceled", "run": "in their queue", "delete": "deleted"}


def bulks(request: Request) -> Response:
    """`/bulk`: the latest bulk actions."""
    found = record.latest(request.app.state.site.client)
    return render(
        request,
        "bulks.html",
        bulks=found,
        words=WORDS,
        texts={each.id: _said(request, each) for each in found},
    )


@needs(Role.OPERATOR)
def bulk_new(request: Request) -> Response:
    """`GET /bulk/new`: how many jobs `act` would meet that fit `q`, and some of them; nothing is done."""
    site, now = request.app.state.site, time.time()
    act, text = request.query_params.get("act", ""), request.query_params.get("q", "").strip()
    wanted = readable(text, request.state.viewer, now)
    found = counted(site.client, act, wanted, site.queues)
    infos = reader.read_many(site.client, found.examples)
    rows = [row(info, request.state.viewer) for info in infos if info]
    values: dict[str, Any] = {"act": act, "text": text, "at": repr(now), "found": found, "rows": rows}
    values |= {"words": WORDS, "is_all": wanted.is_empty, "most_undone": MOST_JOBS}
    values["statuses"] = acts.statuses_of(act, wanted)
    return render(request, "bulk_new.html", **values)


@needs(Role.OPERATOR)
def begin(request: Request) -> Response:
    """`POST /bulk`: begin the action that a dry run has shown."""
    given = fields(request)
    act, text, now = given.get("act", ""), given.get("q", "").strip(), time.time()
    at = within(wire.number(given.get("at")) or now, now)
    acts.statuses_of(act, readable(text, request.state.viewer, at))
    count = given.get("found", "")
    found = int(count) if count.isdecimal() and len(count) <= 12 else 0  # noqa: PLR2004  of a thousand milliards
    id = beginning.begin(request, act, text, at, found, bool(given.get("partial")), given.get("reason", ""))
    return go(request, address(request, "bulk", id=id), f"{WORDS[act]}: it has started.")


def bulk(request: Request) -> Response:
    """`GET /bulk/<id>`: a bulk action."""
    client, id = request.app.state.site.client, request.path_params["id"]
    found = record.read(client, id)
    can_undo = found.act == "delete" and found.phase == "act" and found.is_over and found.copied
    values: dict[str, Any] = {"bulk": found, "words": WORDS, "done": DONE, "text": _said(request, found)}
    values["undo_until"] = None
    if can_undo and (left := Copies(client, record.copies_key(id)).seconds_left()):
        values["undo_until"] = time.time() + left
    values["was_lost"] = found.state in ("running", "stopping") and not found.is_performed
    return render(request, "bulk.html", **values)


@needs(Role.OPERATOR)
def steer(request: Request) -> Response:
    """`POST /bulk/<id>`: stop it, let it go on, or undo what it deleted."""
    site, id = request.app.state.site, request.path_params["id"]
    act = fields(request).get("act", "")
    if act not in ("stop", "go on", "undo"):
        raise UsageError(f"no action is called {act:.40}: there are stop, go on and undo")
    by = performing.By(request.state.viewer.name, sender(request))
    with acting(request, f"bulk {act}", bulk=id):
        if act == "stop":
            record.stop(site.client, id)
            said = "It stops after the current jobs."
        elif act == "go on":
            performing.begin(site.client, id, site.queues, by)
            said = "It is resumed."
        else:
            performing.begin_undo(site.client, id, by)
            said = "The deleted jobs are being restored."
    return go(request, address(request, "bulk", id=id), said)


def _said(request: Request, found: Bulk) -> str:
    """The filter, for this viewer: values of arguments are payloads."""
    return found.text if request.state.viewer.may_see_payloads else without_values(found.text)


ROUTES = [
    Route("/bulk", bulks, methods=["GET"], name="bulks"),
    Route("/bulk", begin, methods=["POST"], name="bulk_begin"),
    Route("/bulk/new", bulk_new, methods=["GET"], name="bulk_new"),
    Route("/bulk/{id}", bulk, methods=["GET"], name="bulk"),
    Route("/bulk/{id}", steer, methods=["POST"], name="bulk_steer"),
]
