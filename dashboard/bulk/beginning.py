"""Beginning a bulk action, from a page or by the API: recorded, audited, and handed to a thread."""

from __future__ import annotations

import math

from starlette.requests import Request

from packmule.dashboard.acting import acting, sender
from packmule.dashboard.bulk import performing, record
from packmule.jobs import filter_text

LONGEST_REASON = 200

OLDEST = 3_600.0
"""Seconds that a dry run may be old when its action begins."""


def begin(
    request: Request,
    act: str,
    text: str,
    at: float,
    found: int = 0,
    is_partial: bool = False,
    reason: str = "",
    id: str | None = None,
) -> str:
    """Begin the act on all jobs that the filter `text` means at the instant `at`; the action's id.

    The caller has checked that the request's viewer may act, and may look for that. `found` is what a dry run
    counted. A call that chooses the `id` can be repeated.

    >>> begin(request, "retry", "name:report status:failed", time.time())  # doctest: +SKIP
    '5f1c07a2b9d34e88'
    """
    site = request.app.state.site
    reason = reason.strip()[:LONGEST_REASON]
    by = {"who": request.state.viewer.name, "where": sender(request), "reason": reason}
    said = {"reason": reason} if reason else {}
    with acting(request, f"bulk {act}", filter=without_values(text), found=found, **said) as on:
        id = record.create(site.client, act, text, at, found, is_partial, id=id, **by)
        on["bulk"] = id
    performing.begin(site.client, id, site.queues)
    return id


def without_values(text: str) -> str:
    """A filter without the values of arguments, which may be secret: for the audit, and who may not see them.

    >>> without_values("name:report args.user:ada")
    'name:report args.user:…'
    """
    try:
        found = filter_text.words(text)
    except filter_text.InvalidWord:
        return ""
    return " ".join(
        f"{each.field}:…" if each.field.startswith(filter_text.ARGUMENT) else str(each) for each in found
    )


def within(at: float, now: float) -> float:
    """The instant of a dry run, or now if that is too old or none."""
    return at if math.isfinite(at) and now - OLDEST <= at <= now else now
