"""The list of jobs: a search over all queues and statuses, with the filter in its address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from packmule.dashboard.live.shared import shared
from packmule.dashboard.pages import ticked
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.filters import WORDS
from packmule.dashboard.pages.job_values import readable, row
from packmule.dashboard.pages.paging import MOST_BYTES, small
from packmule.dashboard.pages.rendering import render
from packmule.jobs import filter_text, keys, queues, registry, search
from packmule.jobs.filter_text import InvalidWord, Word
from packmule.jobs.job_filter import STATUSES, JobFilter
from packmule.observe import errors, statistics

TABS = ("queued", "started", "scheduled", "deferred", "failed", "finished", "canceled")

FEW = 10
"""Jobs with which a page is not shown yet, if there are sure to be more."""

MOST_WORDS = 200
"""Names of each kind that the search box offers."""

SPANS = ("15m", "1h", "6h", "1d", "7d")


class Chip(NamedTuple):
    """A word of the filter, and the filter without it."""

    text: str
    rest: str


@shared
def jobs(request: Request) -> Response:
    """`/jobs`: a page of the jobs that fit `q`, from `cursor` on."""
    viewer = request.state.viewer
    text = request.query_params.get("q", "").strip()
    values: dict[str, Any] = {
        "search_text": text,
        "fault": None,
        "marked": ("", "", ""),
        "page": None,
        "rows": [],
    }
    words: list[Word] = []
    try:
        words = filter_text.words(text)
        wanted = readable(text, viewer)
    except InvalidWord as error:
        values["fault"] = str(error)
        values["marked"] = text[: error.start], text[error.start : error.end], text[error.end :]
        return render(request, "jobs.html", 400, **values, chips=[], tabs=[], bare="")
    if (id := _whole_id(request, words)) is not None:
        return RedirectResponse(address(request, "job", id=id), 303)
    values["acts"] = ticked.acts_for(wanted.status)
    chips = [
        Chip(str(each), filter_text.joined([other for other in words if other is not each])) for each in words
    ]
    values |= {"chips": chips, "tabs": _tabs(request, words, wanted), "bare": filter_text.joined(words)}

    def of_rows(size: int) -> Response:
        page = _search(request, wanted, size)
        rows = [row(each, viewer) for each in page.jobs]
        return render(request, "jobs.html", **values | {"page": page, "rows": rows})

    return small(of_rows, MOST_BYTES, "jobs", size=search.PAGE)


def words(request: Request) -> Response:
    """`/jobs/words`: what the search box offers, by field."""
    site = request.app.state.site
    seen = {name for _, name in statistics.hours(site.client, 24)}
    found = errors.read_all(site.client, hours=1)
    offered = {
        "name": _first({*registry.names(), *seen}),
        "queue": _first([*site.queues, *queues.names(site.client)]),
        "status": [*WORDS.values(), *STATUSES],  # as pages say it, too
        "error": _first({each.type for each in found if each.type}),
        "since": list(SPANS),
        "until": list(SPANS),
        "args": _first({name for each in registry.types() for name in each.signature.parameters}),
    }
    return JSONResponse({"fields": [*filter_text.FIELDS, filter_text.ARGUMENT], "words": offered})


def _search(request: Request, wanted: JobFilter, size: int) -> search.Page:
    """A page. If the first look was cut short by its time although nearly all jobs fit, a second goes on."""
    site = request.app.state.site
    page = search.search(site.client, wanted, size, request.query_params.get("cursor"), site.queues)
    left = size - len(page.jobs)
    fits_most = wanted == JobFilter(queue=wanted.queue, status=wanted.status)
    if page.cursor is None or left < size - FEW or not fits_most:
        return page
    more = search.search(site.client, wanted, left, page.cursor, site.queues)
    return replace(more, jobs=[*page.jobs, *more.jobs], is_partial=page.is_partial or more.is_partial)


def _first(names: Any) -> list[str]:
    """Some of the names, as the words that stand for them."""
    kept = names if isinstance(names, list) else sorted(names)
    return [filter_text.word("x", name).removeprefix("x:") for name in [*dict.fromkeys(kept)][:MOST_WORDS]]


def _whole_id(request: Request, found: Sequence[Word]) -> str | None:
    """The id of a job that somebody has pasted, if that is all and there is such a job."""
    bare = request.query_params.get("q", "").strip()
    if len(found) != 1 or found[0].field not in ("id", "name") or request.query_params.get("cursor"):
        return None
    value = found[0].value
    is_there = value in (bare, bare.removeprefix("id:")) and len(value) <= 200  # noqa: PLR2004  no longer id
    return value if is_there and request.app.state.site.client.exists(keys.job_key(value)) else None


def _tabs(
    request: Request, found: Sequence[Word], wanted: JobFilter
) -> list[tuple[str, str, bool, int | None]]:
    """The statuses: text, address, whether it is shown, and how many jobs there are in the queues shown."""
    site = request.app.state.site
    names = [wanted.queue] if wanted.queue else queues.names(site.client, site.queues)
    depths = queues.depths(site.client, names).values()
    counts = {status: sum(each[status] for each in depths) for status in TABS}
    rest = filter_text.without(found, "status")
    shown = [("all", None, sum(counts.values())), *((status, status, counts[status]) for status in TABS)]
    return [
        (
            name,
            address(request, "jobs", q=_with_status(rest, status) or None),
            wanted.status == status,
            count,
        )
        for name, status, count in shown
    ]


def _with_status(rest: Sequence[Word], status: str | None) -> str:
    return filter_text.joined([*([Word("status", status)] if status else []), *rest])


ROUTES = [Route("/jobs", jobs, name="jobs"), Route("/jobs/words", words, name="job_words")]
