"""A new job by hand: a form made from a registered function's annotations, also to change a copy of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard import call_form, option_form
from packmule.dashboard.acting import acting, go
from packmule.dashboard.forms import fields
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.paging import MOST_BYTES, asked, page_of, small
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import HIDDEN, needs
from packmule.dashboard.viewer import Role
from packmule.errors import Error
from packmule.jobs import keys, reader, registry
from packmule.jobs.job_type import InvalidCall, JobType
from packmule.jobs.options import Options
from packmule.jobs.reader import JobInfo


@needs(Role.OPERATOR)
def new_job(request: Request) -> Response:
    """`GET /jobs/new`: choose a job; with `call` its form; with `copy` that of a copy of a job."""
    given = request.query_params
    if copy := given.get("copy"):
        info, job = _copied(request, copy)
        options = option_form.fields(_options_of(info))
        return _form(request, job, call_form.filled(job, info.args, info.kwargs), options, copy=copy)
    if name := given.get("call"):
        job = registry.find(name)
        return _form(request, job, call_form.empty(job), option_form.fields({}))
    return _choice(request)


def _choice(request: Request) -> Response:
    """The functions that can be called, or those whose name or description has the words of `?q=`."""
    words = asked(request)
    docs = {each.name: _doc(each) for each in registry.types()}
    names = [(name, docs.get(name, "")) for name in registry.names()]
    found = [each for each in names if words.lower() in " ".join(each).lower()]
    fault = request.app.state.site.modules_fault

    def of_rows(size: int) -> Response:
        page = page_of(found, request, size)
        return render(request, "new_job.html", job=None, page=page, asked=words, modules_fault=fault)

    return small(of_rows, MOST_BYTES, "names")


@needs(Role.OPERATOR)
def enqueue(request: Request) -> Response:
    """`POST /jobs/new`: enqueue the call in the form, or show what is wrong with it."""
    site, given = request.app.state.site, fields(request)
    original = None
    if copy := given.get("copy"):
        info, job = _copied(request, copy)
        original = info.args, info.kwargs
    else:
        job = registry.find(given.get("call", ""))
    call, chosen = call_form.read(job, given, original), option_form.read(given, site.queues)
    if call.call is None or chosen.options is None:
        fault = call.fault or chosen.fault
        return _form(request, job, call.fields, chosen.fields, copy, fault, given.get("job_id"), status=400)
    options = chosen.options.over(_once(job, chosen.options, given.get("job_id", "")))
    try:
        with acting(request, "job copy" if copy else "job enqueue", name=job.name) as subject:
            handles = site.jobs.send(job, [call.call], options)
            subject |= {"id": str(handles[0]), **({"of": copy} if copy else {})}
    except Error as error:
        shown = call.fields, chosen.fields
        return _form(request, job, *shown, copy, f"{error}", given.get("job_id"), status=400)
    said = "An equal job is already pending: this is it." if handles.held else "The job is enqueued."
    return go(request, address(request, "job", id=str(handles[0])), said)


def _copied(request: Request, id: str) -> tuple[JobInfo, JobType]:
    """The job to copy, and its type. Raises `NoSuchJob`, `NotRegistered`, and 403 for who may not see it."""
    if not request.state.viewer.may_see_payloads:
        from starlette.exceptions import HTTPException  # noqa: PLC0415

        raise HTTPException(403, f"The job's arguments are {HIDDEN}, so a copy can't be edited.")
    info = reader.read(request.app.state.site.client, id)
    if info.unread:
        raise InvalidCall(f"job {id} can't be copied: {info.unread}")
    return info, registry.find(info.name)


def _options_of(info: JobInfo) -> Mapping[str, str]:
    """What a copy has of its job's options, as `jobs.copying` has it."""
    given = {"queue": info.queue, "priority": str(info.priority) if info.priority else ""}
    return {option_form.PREFIX + name: text for name, text in given.items()}


def _once(job: JobType, options: Options, token: str) -> Options:
    """The options by which a form that is sent twice enqueues once: the job has the id that the form has."""
    if options.over(job.options).is_debounced or not keys.JOB_ID.fullmatch(token):
        return Options()
    return Options(job_id=token)


def _form(
    request: Request,
    job: JobType,
    call: Sequence[call_form.Field],
    options: Sequence[option_form.Option],
    copy: str | None = None,
    fault: str = "",
    job_id: str | None = None,
    status: int = 200,
) -> Response:
    values: dict[str, Any] = {"job": job, "call": call, "options": options, "copy": copy, "fault": fault}
    values |= {"own_queue": job.options.queue or "default", "job_id": job_id or keys.new_job_id()}
    values["doc"] = _doc(job)
    return render(request, "new_job.html", status, **values)


def _doc(job: JobType) -> str:
    """The first line of what the function says of itself."""
    return (job.function.__doc__ or "").strip().partition("\n")[0].replace("`", "")


ROUTES = [
    Route("/jobs/new", new_job, methods=["GET"], name="new_job"),
    Route("/jobs/new", enqueue, methods=["POST"], name="enqueue_job"),
]
