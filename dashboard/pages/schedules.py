"""Schedules: when each enqueues its job, what became of its ticks, and pausing, running and changing it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from redis import Redis
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.acting import acting, go
from packmule.dashboard.forms import fields
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.paging import MOST_BYTES, asked, choice, order, page_of, small
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import HIDDEN, needs
from packmule.dashboard.viewer import Role
from packmule.errors import Error
from packmule.jobs import reader, registry, schedule_jobs, schedule_ledger, schedule_store
from packmule.jobs.cron import LAST_INSTANT
from packmule.jobs.masking import masked_call, unmasked
from packmule.jobs.schedule import InvalidSchedule, Schedule
from packmule.jobs.schedule import schedule as made
from packmule.jobs.schedule_info import in_words, next_ticks, tick_text
from packmule.jobs.schedule_store import StoredSchedule

TABS = ("all", "active", "paused", "faulty", "ended", "removed")
TICKS, NEXT = 50, 5
"""Last and next ticks that a schedule's page shows."""

LONGEST_FIELD = 20_000
CHOICES = {"misfire": ("once", "skip", "all"), "overlap": ("allow", "skip", "wait", "cancel")}
TEXTS = ("cron", "every", "at", "tz", "queue", "window", "jitter", "start", "end")
"""Fields of the form that are left out if they are empty."""

_NEVER = LAST_INSTANT + 1


def schedules(request: Request) -> Response:
    """`/schedules`: all schedules, or those in a state or with some words."""
    client: Redis = request.app.state.site.client
    found = schedule_store.entries(client)
    words = asked(request).lower().split()
    fitting = [each for each in found if all(word in _words(each) for word in words)]
    counts = Counter(each.state for each in fitting)
    state = choice(request, "state", TABS)
    nexts = {each.name: _next(each) for each in fitting}
    orders: dict[str, Callable[[StoredSchedule], Any]] = {
        "name": lambda each: each.name,
        "job": lambda each: (each.schedule.job if each.schedule else "", each.name),
        "next": lambda each: (nexts[each.name] or _NEVER, each.name),
    }
    sort, key, is_reversed = order(request, orders, "name")
    rows = sorted([each for each in fitting if state in ("all", each.state)], key=key, reverse=is_reversed)

    def of_rows(size: int) -> Response:
        page = page_of(rows, request, size)
        last = [each.job for each in page.rows if each.job]
        return render(
            request,
            "schedules.html",
            page=page,
            nexts=nexts,
            jobs=dict(zip(last, reader.read_many(client, last), strict=True)),
            tabs=[(tab, counts[tab] if tab != "all" else len(fitting)) for tab in TABS],
            state=state,
            sort=sort,
            asked=asked(request),
            known=len(found),
            in_words=in_words,
        )

    return small(of_rows, MOST_BYTES, "list")


def schedule(request: Request) -> Response:
    """`/schedules/{name}`: one schedule: its next ticks, and what became of the last."""
    client: Redis = request.app.state.site.client
    entry = schedule_store.entry(client, request.path_params["name"])
    ticks = schedule_ledger.read(client, entry.name, TICKS)[::-1]
    ids = [str(each["job"]) for each in ticks if each.get("job")]
    found = entry.schedule
    return render(
        request,
        "schedule.html",
        entry=entry,
        schedule=found,
        words=in_words(found) if found else None,
        arguments=_arguments(found) if found else None,
        next=[(each, tick_text(each, found.tz)) for each in next_ticks(found, int(time.time()), NEXT)]
        if found
        else [],
        ticks=[_tick(each, found.tz if found else "UTC") for each in ticks],
        jobs=dict(zip(ids, reader.read_many(client, ids), strict=True)),
        did=Counter(str(each.get("did")) for each in ticks),
    )


@needs(Role.OPERATOR)
def act(request: Request) -> Response:
    """`POST /schedules/{name}/{act}`: pause, resume, run or remove a schedule."""
    name, wanted = request.path_params["name"], request.path_params["act"]
    site = request.app.state.site
    if wanted not in ("pause", "resume", "run", "remove"):
        raise HTTPException(404)
    entry = schedule_store.entry(site.client, name)
    back = address(request, "schedule", name=name)
    subject_of: dict[str, Any] = {"name": name} if wanted == "run" else {"names": [name]}
    if wanted == "run" and entry.schedule is None:
        raise InvalidSchedule(f"schedule {name} can't be read: {entry.fault}")
    try:
        with acting(request, f"schedule {wanted}", **subject_of) as subject:
            if wanted == "pause":
                done = schedule_store.pause(site.client, name)
                said = f"{name} is paused." if done else f"{name} was already paused."
            elif wanted == "resume":
                done = schedule_store.resume(site.client, name)
                said = f"{name} is resumed from now on." if done else f"{name} was not paused."
            elif wanted == "remove":
                owner = schedule_store.remove(site.client, name)[name]
                said = f"{name} is removed."
                if owner == "operator":
                    back = address(request, "schedules")
                else:
                    said += f" The {owner} still declares it: resume it to bring it back."
            else:
                ids = schedule_jobs.run_now(entry.schedule, site.jobs)  # type: ignore[arg-type]  # it is readable
                subject["id"] = str(ids[0])
                said = (
                    f"Job {ids[0]} is enqueued."
                    if not ids.held
                    else f"Equal job {ids[0]} is already pending."
                )
    except (registry.NotRegistered, schedule_store.ScheduleRemoved) as error:
        return go(request, back, f"Nothing was done: {error}.")
    return go(request, back, said)


@needs(Role.OPERATOR)
def edit(request: Request) -> Response:
    """`/schedules/{name}/edit`, `/new-schedule`: a form that changes an operator's schedule or adds one."""
    if (name := request.path_params.get("name")) is None:
        return _form(request, {}, None)
    return _form(request, _filled(_changeable(request, name)), name)


@needs(Role.OPERATOR)
def save(request: Request) -> Response:
    """`POST` to either: store what the form says, or show what is wrong with it."""
    site, given = request.app.state.site, fields(request)
    name = request.path_params.get("name")
    before = None if name is None else _changeable(request, name)
    try:
        found = made(name or given.get("name", "").strip(), _table(given, before))
        tick = schedule_jobs.check(found, site.jobs, time.time())
        with acting(request, "schedule add", name=found.name, job=found.job):
            schedule_store.put(site.client, found, replace=name is not None)
    except Error as error:
        return _form(request, given, name, f"{error}", 400)
    said = (
        f"{found.name} is {'changed' if name else 'added'}: its next tick is at {tick_text(tick, found.tz)}."
    )
    return go(request, address(request, "schedule", name=found.name), said)


def _changeable(request: Request, name: str) -> Schedule:
    """The operator's schedule of that name; 403 for who may not see its arguments."""
    found = schedule_store.entry(request.app.state.site.client, name).schedule
    if found is not None and found.owner != "operator":
        raise schedule_store.NameTaken(f"schedule {name} belongs to the {found.owner}: change it there")
    if found is None:
        raise InvalidSchedule(f"schedule {name} can't be read: remove it and add it again")
    if not request.state.viewer.may_see_payloads:
        raise HTTPException(403, f"The schedule's arguments are {HIDDEN}, so it can't be edited.")
    return found


def _filled(found: Schedule) -> dict[str, str]:
    """The form's fields for a schedule."""
    said: dict[str, Any] = msgspec.to_builtins(found)
    given = {
        name: str(said[name]) for name in ("job", "misfire", "overlap", *TEXTS) if said.get(name) is not None
    }
    given |= {
        name: tick_text(said[name], found.tz) for name in ("at", "start", "end") if said.get(name) is not None
    }
    args, kwargs = masked_call(found.job, found.args, found.kwargs)
    given["kwargs"] = msgspec.json.format(msgspec.json.encode(kwargs)).decode() if kwargs else ""
    given["args"] = msgspec.json.encode(args).decode() if args else ""
    return given


def _arguments(found: Schedule) -> dict[str, Any]:
    args, kwargs = masked_call(found.job, found.args, found.kwargs)
    return ({"positional": args} if args else {}) | kwargs


def _table(given: Mapping[str, str], before: Schedule | None) -> dict[str, Any]:
    """What the form says, as `jobs.schedule.schedule` reads it. Raises `InvalidSchedule`.

    Secrets that are hidden in the form stay what they were `before`.
    """
    originals = {"kwargs": before.kwargs, "args": [*before.args]} if before else {"kwargs": {}, "args": []}
    table: dict[str, Any] = {name: given[name].strip() for name in TEXTS if given.get(name, "").strip()}
    table["job"] = given.get("job", "").strip()
    for name in CHOICES:
        if given.get(name):
            table[name] = given[name]
    for name, kind, shape in (("kwargs", dict, "an object of names and values"), ("args", list, "a list")):
        text = given.get(name, "").strip()
        if not text:
            continue
        try:
            table[name] = unmasked(msgspec.json.decode(text[:LONGEST_FIELD], type=kind), originals[name])
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidSchedule(f"its arguments must be {shape} in JSON: {error}") from None
    return table


def _form(
    request: Request, given: Mapping[str, str], name: str | None, fault: str = "", status: int = 200
) -> Response:
    values = {field: given.get(field, "") for field in ("name", "job", "args", "kwargs", *TEXTS, *CHOICES)}
    return render(
        request,
        "schedule_form.html",
        status,
        given=values,
        name=name,
        fault=fault,
        choices=CHOICES,
        jobs=registry.names(),
        modules_fault=request.app.state.site.modules_fault,
    )


def _next(entry: StoredSchedule) -> int | None:
    """The next tick that is not decided yet, of an active schedule."""
    if entry.schedule is None or entry.state != "active":
        return None
    return entry.schedule.next(max(entry.last or 0, int(time.time())))


def _tick(entry: Mapping[str, Any], tz: str) -> dict[str, Any]:
    """An entry of the ledger, made safe to show."""
    tick = entry.get("tick")
    is_one = isinstance(tick, int) and 0 <= tick <= LAST_INSTANT
    return {
        "tick": tick if is_one else None,
        "text": tick_text(tick, tz),
        "to": tick_text(entry.get("to"), tz) if "to" in entry else "",
        "did": str(entry.get("did", "-")),
        "job": str(entry.get("job") or ""),
        "why": str(entry.get("why") or ""),
    }


def _words(entry: StoredSchedule) -> str:
    """Where a search looks."""
    found = entry.schedule
    more = (found.job, found.queue or "", found.owner, found.timing) if found else ()
    return " ".join((entry.name, *more)).lower()


ROUTES = [
    Route("/schedules", schedules, name="schedules"),
    Route("/new-schedule", edit, name="new_schedule"),
    Route("/new-schedule", save, methods=["POST"], name="add_schedule"),
    Route("/schedules/{name}/edit", edit, name="edit_schedule"),
    Route("/schedules/{name}/edit", save, methods=["POST"], name="change_schedule"),
    Route("/schedules/{name:path}/{act}", act, methods=["POST"], name="act_on_schedule"),
    Route("/schedules/{name:path}", schedule, name="schedule"),
]
