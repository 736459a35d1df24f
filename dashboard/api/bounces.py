"""Bounces by HTTP: reports that a mail server hands on, as it got them."""

from __future__ import annotations

import msgspec

from packmule.dashboard.acting import acting
from packmule.dashboard.api.bodies import bounded_body
from packmule.dashboard.api.endpoint import Call, Endpoint, endpoint
from packmule.dashboard.api.scopes import Scope
from packmule.jobs.email.suppression.bounces import take


class ReturnPath(msgspec.Struct, frozen=True):
    """The pattern of our mails' return paths, such as `bounces+{to}@example.org`."""

    return_path: str | None = None


class TakenReport(msgspec.Struct, frozen=True):
    """What a mail did: its reports' kinds, how many are of mails of others, and who is suppressed now."""

    kinds: list[str]
    unknown: int
    suppressed: list[str]


@endpoint(
    "POST",
    "/mail/bounces",
    Scope.BOUNCES,
    query=ReturnPath,
    takes="application/octet-stream",
    answer=TakenReport,
)
async def take_bounce(call: Call) -> TakenReport:
    """Take a report of a bounce or a complaint: the body is the mail that a mail server got.

    It suppresses whom it is about. A mail that is no report of a mail of ours changes nothing.
    """
    content = await bounded_body(call.request)

    def taken() -> TakenReport:
        with acting(call.request, "email intake") as subject:
            found = take(call.service.client, content, call.query.return_path, call.service.site.mail_keep)
            subject["suppressed"] = len(found.suppressed)
        return TakenReport([str(each) for each in found.known], found.unknown, found.suppressed)

    return await call.service.in_thread(taken)


ENDPOINTS: tuple[Endpoint, ...] = (take_bounce,)
