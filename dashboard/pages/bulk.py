"""The pages of bulk actions: a dry run that asks, the list, and each with its progress, result and undo."""

from __future__ import annotations

import math
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.acting import acting, go, sender
from packmule.dashboard.bulk import performing, record
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
from packmule.jobs import acts, filter_text, reader

LONGEST_REASON = 200

OLDEST = 3_600.0
"""Seconds that a dry run may be old when its action begins."""

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
    site, given = request.app.state.site, fields(request)
    act, text = given.get("act", ""), given.get("q", "").strip()
    at = _within(given.get("at", ""), time.time())
    acts.statuses_of(act, readable(text, request.state.viewer, at))
    count = given.get("found", "")
    found = int(count) if count.isdecimal() and len(count) <= 12 else 0  # noqa: PLR2004  of a thousand milliards
    reason = given.get("reason", "").strip()[:LONGEST_REASON]
    by = {"who": request.state.viewer.name, "where": sender(request), "reason": reason}
    with acting(
        request, f"bulk {act}", filter=_shown(text), found=found, **({"reason": reason} if reason else {})
    ) as on:
        id = record.create(site.client, act, text, at, found, bool(given.get("partial")), **by)
        on["bulk"] = id
    performing.begin(site.client, id, site.queues)
    return go(request, address(request, "bulk", id=id), f"{WORDS[act]}: it has begun.")


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
        raise UsageError(f"no act is called {act:.40}: there are stop, go on and undo")
    by = performing.By(request.state.viewer.name, sender(request))
    with acting(request, f"bulk {act}", bulk=id):
        if act == "stop":
            record.stop(site.client, id)
            said = "It stops after the jobs at hand."
        elif act == "go on":
            performing.begin(site.client, id, site.queues, by)
            said = "It goes on."
        else:
            performing.begin_undo(site.client, id, by)
            said = "The deleted jobs are being put back."
    return go(request, address(request, "bulk", id=id), said)


def _said(request: Request, found: Bulk) -> str:
    """The filter, for this viewer: values of arguments are payloads."""
    return found.text if request.state.viewer.may_see_payloads else _shown(found.text)


def _shown(text: str) -> str:
    """A filter without the values of arguments, which may be secret."""
    try:
        found = filter_text.words(text)
    except filter_text.InvalidWord:
        return ""
    return " ".join(
        f"{each.field}:…" if each.field.startswith(filter_text.ARGUMENT) else str(each) for each in found
    )


def _within(text: str, now: float) -> float:
    """The instant of a dry run, or now if it is too old or none."""
    try:
        at = float(text)
    except ValueError:
        return now
    return at if math.isfinite(at) and now - OLDEST <= at <= now else now


ROUTES = [
    Route("/bulk", bulks, methods=["GET"], name="bulks"),
    Route("/bulk", begin, methods=["POST"], name="bulk_begin"),
    Route("/bulk/new", bulk_new, methods=["GET"], name="bulk_new"),
    Route("/bulk/{id}", bulk, methods=["GET"], name="bulk"),
    Route("/bulk/{id}", steer, methods=["POST"], name="bulk_steer"),
]
