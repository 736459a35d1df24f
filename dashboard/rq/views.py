"""What rq-dashboard's addresses answer: pages, the data that their scripts ask for, and the buttons' acts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from flask import Response as FlaskResponse
from flask import abort, render_template, request, url_for
from rq_dashboard import web
from starlette.requests import Request

from packmule.dashboard.acting import acting
from packmule.dashboard.rq import acting as acts
from packmule.dashboard.rq import reading
from packmule.dashboard.rq.reading import Page
from packmule.jobs import queues, reader
from packmule.plain_text import plain

if TYPE_CHECKING:
    from packmule.dashboard.site import Site

ENDPOINT = web.blueprint.name


def asked() -> Request:
    """The request as the guard handed it on."""
    return Request(request.environ["asgi.scope"])


def site() -> Site:
    site: Site = asked().app.state.site
    return site


def _queues_page(instance_number: int) -> str:
    return render_template("rq_dashboard/queues.html", active_tab="queues")


def _workers_page(instance_number: int) -> str:
    return render_template("rq_dashboard/workers.html", active_tab="workers")


def _jobs_page(
    instance_number: int, queue_name: str | None, registry_name: str, per_page: int, order: str, page: int
) -> str:
    shown = Page.of(queue_name or "default", registry_name, str(per_page), order, str(page))
    names = [{"name": name} for name in queues.names(site().client)]
    return render_template(
        "rq_dashboard/jobs.html",
        active_tab="jobs",
        queue={"name": shown.queue},
        queues=names,
        registry_name=shown.registry,
        per_page=shown.per_page,
        order=shown.order,
        page=shown.number,
    )


def _job_page(instance_number: int, job_id: str) -> str:
    reader.read(site().client, job_id)
    return render_template("rq_dashboard/job.html", id=job_id)


def _json(**values: Any) -> FlaskResponse:
    return FlaskResponse(msgspec.json.encode(values), mimetype="application/json")


def _queues_data(instance_number: int) -> FlaskResponse:
    client = site().client
    rows = []
    for name, counts in reading.queue_counts(client, queues.names(client)).items():
        row: dict[str, Any] = {"name": plain(name), "count": counts["queued"]}
        for registry in reading.REGISTRIES:
            row[f"{registry}_url"] = _jobs_url(Page(name, registry, 8, "asc", 1))
            row[f"{registry}_job_registry_count"] = counts[registry]
        rows.append(row)
    return _json(queues=rows)


def _jobs_data(
    instance_number: int, queue_name: str, registry_name: str, per_page: str, order: str, page: str
) -> FlaskResponse:
    client, shown = site().client, Page.of(queue_name, registry_name, per_page, order, page)
    total, ids = reading.page_of_ids(client, shown)
    jobs = reading.jobs_of(client, ids, asked().state.viewer)
    return _json(name=shown.queue, registry_name=shown.registry, jobs=jobs, pagination=_pages(shown, total))


def _pages(shown: Page, total: int) -> dict[str, Any]:
    """The links to the other pages, those of a window around the current one."""
    last = -(-total // shown.per_page)
    number = min(shown.number, max(last, 1))
    first = max(1, min(number - reading.WINDOW // 2, last - reading.WINDOW + 1))

    def link(to: int) -> dict[str, str]:
        return {"url": _jobs_url(shown._replace(number=to))}

    pages: dict[str, Any] = {
        "current_page": number,
        "num_pages": last,
        "pages_in_window": [
            {"number": to, **link(to)} for to in range(first, min(first + reading.WINDOW, last + 1))
        ],
        "first_page": link(1),
        "last_page": link(max(last, 1)),
    }
    if number > 1:
        pages["prev_page"] = link(number - 1)
    if number < last:
        pages["next_page"] = link(number + 1)
    return pages


def _jobs_url(page: Page) -> str:
    return url_for(
        f"{ENDPOINT}.jobs_overview",
        instance_number=0,
        queue_name=page.queue,
        registry_name=page.registry,
        per_page=page.per_page,
        order=page.order,
        page=page.number,
    )


def _job_data(instance_number: int, job_id: str) -> FlaskResponse:
    return _json(**reading.job(site().client, job_id, asked().state.viewer))


def _workers_data(instance_number: int) -> FlaskResponse:
    return _json(workers=reading.workers(site().client, asked().state.viewer))


def _requeue(job_id: str) -> FlaskResponse:
    with acting(asked(), "job retry", id=job_id):
        return _json(status="OK", message=acts.requeue(site().client, job_id))


def _delete(job_id: str) -> FlaskResponse:
    with acting(asked(), "job delete", id=job_id):
        return _json(status="OK", message=acts.delete(site().client, job_id))


def _requeue_all(queue_name: str) -> FlaskResponse:
    with acting(asked(), "job retry", queue=queue_name, status="failed") as subject:
        subject["done"], message = acts.requeue_all(site().client, queue_name)
        return _json(status="OK", count=subject["done"], message=message)


def _empty(queue_name: str, registry_name: str) -> FlaskResponse:
    if registry_name not in reading.REGISTRIES:
        abort(404)
    with acting(asked(), "job delete", queue=queue_name, status=registry_name) as subject:
        subject["done"], message = acts.empty(site().client, queue_name, registry_name)
        return _json(status="OK", message=message)


def _compact(queue_name: str) -> FlaskResponse:
    return _json(status="OK", message=acts.compact(site().client, queue_name))


PAGES = {
    "queues_overview": _queues_page,
    "workers_overview": _workers_page,
    "jobs_overview": _jobs_page,
    "job_view": _job_page,
}
DATA = {
    "list_queues": _queues_data,
    "list_jobs": _jobs_data,
    "job_info": _job_data,
    "list_workers": _workers_data,
}
ACTS = {
    "requeue_job_view": _requeue,
    "delete_job_view": _delete,
    "requeue_all": _requeue_all,
    "empty_queue": _empty,
    "compact_queue": _compact,
}
"""Our views by the names of rq-dashboard's; only `ACTS` change something."""
