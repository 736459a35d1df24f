"""Mails: those in open states, by state, address, batch and time; and resolving unknown ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from redis import Redis
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from packmule.dashboard.acting import acting, go
from packmule.dashboard.forms import form
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.paging import LONGEST_TEXT, MOST_BYTES, small
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import HIDDEN, needs
from packmule.dashboard.viewer import Role, Viewer
from packmule.errors import UsageError
from packmule.jobs.email.ledger import acts, names, reader
from packmule.jobs.email.ledger.entry import Entry
from packmule.jobs.email.ledger.reader import MailFilter
from packmule.jobs.email.message.addresses import InvalidAddress, parse
from packmule.jobs.email.outcome import State
from packmule.units import DAY

STATES: dict[str, tuple[State, ...]] = {
    "unknown": (State.UNKNOWN,),
    "deferred": (State.DEFERRED,),
    "suppressed": (State.SUPPRESSED,),
    "active": (State.RESERVED, State.SENDING),
    "all": reader.OPEN,
}
"""The tabs of the page; `active` is what `reader.counts` calls it."""

SHAPES = {
    State.RESERVED: "queued",
    State.SENDING: "started",
    State.ACCEPTED: "finished",
    State.REFUSED: "failed",
    State.DEFERRED: "scheduled",
    State.SUPPRESSED: "canceled",
    State.UNKNOWN: "blocked",
}
"""The statuses whose colours and shapes the states of mails have."""

SPANS = {"": None, "1h": 3_600, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
MOST_LOOKED = 2_000
"""Mails that one page looks at."""

MOST_RESOLVED = 1_000
"""Mails that one click resolves."""


class Asked(NamedTuple):
    """What somebody looks for, as the form has it."""

    state: str
    who: str = ""
    batch: str = ""
    job: str = ""
    key: str = ""
    within: str = ""

    def wanted(self, states: tuple[State, ...]) -> MailFilter:
        """The filter that this means. Raises `InvalidAddress`."""
        span = SPANS[self.within]
        to, domain = _who(self.who)
        return MailFilter(
            states, to, domain, self.job or None, self.batch or None, self.key or None,
            time.time() - span if span else None,
        )  # fmt: skip

    @property
    def kept(self) -> dict[str, str]:
        """The fields that are not empty."""
        return {name: value for name, value in self._asdict().items() if value}

    @property
    def is_filtered(self) -> bool:
        """Whether more is asked for than a state."""
        return any(self[1:])


def mail(request: Request) -> Response:
    """`/mails`: the mails in a state, the newest first, with how many there are in each."""
    client: Redis = request.app.state.site.client
    viewer: Viewer = request.state.viewer
    asked = _asked(request.query_params, viewer)
    fault, wanted = "", MailFilter(STATES[asked.state])
    try:
        wanted = asked.wanted(STATES[asked.state])
    except InvalidAddress as error:
        fault = str(error)
    cursor = request.query_params.get("cursor", "")[:LONGEST_TEXT] or None
    counts = reader.counts(client)

    def of_rows(size: int) -> Response:
        found = reader.search(client, wanted, size, cursor, MOST_LOOKED)
        return render(
            request,
            "mail.html",
            mails=[] if fault else found.mails,
            next=None if fault else found.cursor,
            counts=counts,
            total=sum(counts.values()),
            asked=asked,
            fault=fault,
            states=STATES,
            spans=SPANS,
            shapes=SHAPES,
            sees=viewer.may_see_payloads,
            looked=MOST_LOOKED,
            most=MOST_RESOLVED,
        )

    return small(of_rows, MOST_BYTES, "list")


@needs(Role.OPERATOR)
def resolve(request: Request) -> Response:
    """`POST /mails/resolve`: take ticked unknown mails, or all that fit, for sent, or for not sent."""
    given = form(request)
    site, viewer = request.app.state.site, request.state.viewer
    word = str(given.get("act", ""))
    if word not in ("sent", "not sent"):
        raise UsageError("say whether the mails were sent or not sent")
    asked = _asked(given, viewer)
    back = address(request, "mail", **asked.kept)
    found = _meant(site.client, given, asked)
    if not found:
        return go(
            request,
            back,
            "No unknown mail is selected." if "all" not in given else "No unknown mail matches.",
        )
    with acting(request, "email resolve", sent=word == "sent") as subject:
        ended = acts.resolve(
            site.client, found, was_sent=word == "sent", who=viewer.name, keep=site.mail_keep
        )
        subject.update(count=ended.done, jobs=len(ended.jobs))
    return go(request, back, _said(ended))


def csv_file(request: Request, name: str, parts: Callable[[], Iterable[str]]) -> Response:
    """A download of addresses, of which `parts` is asked if the viewer may see them."""
    if not request.state.viewer.may_see_payloads:
        raise HTTPException(403, f"Addresses of mails are {HIDDEN}.")
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(parts(), media_type="text/csv; charset=utf-8", headers=headers)


def _meant(client: Redis, given: FormData, asked: Asked) -> list[Entry]:
    """The unknown mails that a form means: those that fit, or those that are ticked."""
    if "all" in given:
        wanted = asked.wanted((State.UNKNOWN,))
        return reader.search(client, wanted, MOST_RESOLVED).mails
    ids = [str(each) for each in given.getlist("id") if names.ID.fullmatch(str(each))][:MOST_RESOLVED]
    found = reader.current(client, reader.entries(client, list(dict.fromkeys(ids))))
    return [each for each in found if each is not None and each.state is State.UNKNOWN]


def _said(ended: acts.Resolved) -> str:
    mails, jobs = ended.done, len(ended.jobs)
    said = f"{mails:,} {'mail is' if mails == 1 else 'mails are'} resolved, {jobs:,} "
    said += "job runs again." if jobs == 1 else "jobs run again."
    others: list[Any] = [*ended.refused, *ended.left]
    if others:
        said += f" {len(others):,} left alone, such as: {others[0]}."
    return said


def _asked(given: Any, viewer: Viewer) -> Asked:
    """What a query or a form asks for. Whoever sees no addresses can't look for them either."""
    state, within = given.get("state", ""), given.get("within", "")
    texts = {name: str(given.get(name, ""))[:LONGEST_TEXT].strip() for name in ("who", "batch", "job", "key")}
    if not viewer.may_see_payloads:
        if texts["who"] or texts["key"]:
            raise HTTPException(403, f"Addresses of mails are {HIDDEN}, so you can't search for one.")
        texts["who"] = texts["key"] = ""
    return Asked(
        state if isinstance(state, str) and state in STATES else "unknown",
        **texts,
        within=within if isinstance(within, str) and within in SPANS else "",
    )


def _who(text: str) -> tuple[str | None, str | None]:
    """The address or the domain that a text names. Raises `InvalidAddress`."""
    if not text:
        return None, None
    if "@" in text.removeprefix("@"):
        return parse(text).spec, None
    return None, parse(f"x@{text.removeprefix('@')}").spec.partition("@")[2]


ROUTES = [
    Route("/mails", mail, methods=["GET"], name="mail"),
    Route("/mails/resolve", resolve, methods=["POST"], name="resolve_mail"),
]
