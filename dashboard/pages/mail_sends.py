"""Bulk sends: how far each is, with live counts; pausing, resuming and canceling it, and its results."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.acting import acting, go
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.mail import csv_file
from packmule.dashboard.pages.paging import MOST_BYTES, small
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import needs
from packmule.dashboard.viewer import Role
from packmule.errors import Error
from packmule.jobs.batch import Batch
from packmule.jobs.email.bulk.counts import Progress, facts_of, latest, progress_of
from packmule.jobs.email.bulk.results import as_csv, results_of

SHOWN = 50
OVER = ("ended", "canceled")


def bar(send: Progress) -> dict[str, int]:
    """The counts of a bulk send by the statuses whose colours the states of mails have."""
    return {
        "finished": send.sent,
        "failed": send.refused,
        "blocked": send.unknown,
        "canceled": send.suppressed,
        "scheduled": send.deferred,
        "started": send.sending,
        "queued": send.waiting,
    }


def sends(request: Request) -> Response:
    """`/mail/sends`: the latest bulk sends."""
    found = latest(request.app.state.site.client, SHOWN + 1)

    def of_rows(size: int) -> Response:
        return render(
            request,
            "mail_sends.html",
            sends=found[: min(size, SHOWN)],
            of=len(found),
            bar=bar,
            sees=request.state.viewer.may_see_payloads,
        )

    return small(of_rows, MOST_BYTES, "list")


def send(request: Request) -> Response:
    """`/mail/sends/{id}`: one bulk send."""
    found = progress_of(request.app.state.site.client, request.path_params["id"])
    return render(
        request,
        "mail_send.html",
        send=found,
        bar=bar(found),
        is_over=found.state in OVER,
        sees=request.state.viewer.may_see_payloads,
    )


@needs(Role.OPERATOR)
def act(request: Request) -> Response:
    """`POST /mail/sends/{id}/{act}`: pause, resume or cancel a bulk send."""
    client, id, wanted = request.app.state.site.client, request.path_params["id"], request.path_params["act"]
    if wanted not in ("pause", "resume", "cancel"):
        raise HTTPException(404)
    facts_of(client, id)  # an unknown one is no act
    batch, back = Batch(client, id), address(request, "mail_send", id=id)
    try:
        with acting(request, f"batch {wanted}", id=id):
            if wanted == "pause":
                is_new, said = batch.pause(), "It is paused: only mails already under way are still sent."
            elif wanted == "resume":
                is_new, said = batch.resume(), "It is resumed."
            else:
                batch.cancel()
                is_new, said = True, "It is canceled: only mails already under way are still sent."
    except Error as error:
        return go(request, back, f"Only part of it was done: {error}.")
    return go(request, back, said if is_new else "Nothing was done: it is already so, or has ended.")


def results(request: Request) -> Response:
    """`/mail/results/{id}`: what became of each recipient, as CSV."""
    client, id = request.app.state.site.client, request.path_params["id"]
    return csv_file(request, "results.csv", lambda: as_csv(results_of(client, id)))


ROUTES = [
    Route("/mail/sends", sends, methods=["GET"], name="mail_sends"),
    Route("/mail/results/{id:path}", results, methods=["GET"], name="mail_results"),
    Route("/mail/sends/{id:path}/{act}", act, methods=["POST"], name="act_on_mail_send"),
    Route("/mail/sends/{id:path}", send, methods=["GET"], name="mail_send"),
]
