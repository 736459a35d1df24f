"""Limits and locks: what blocks jobs, who holds it and for how long, and releasing it by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from redis import Redis
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.coordination.locks import state as locks_state
from packmule.coordination.locks.state import Held, LockNotReleased
from packmule.dashboard.acting import acting, go
from packmule.dashboard.forms import fields
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.paging import MOST_BYTES, page_of, small
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import HIDDEN, needs
from packmule.dashboard.viewer import Role
from packmule.jobs import queues, slots
from packmule.jobs.slots import SlotNotReleased
from packmule.observe import blocked, waits
from packmule.observe.blocked import Group, Waiting
from packmule.observe.slots import Holder

MOST_GROUPS = 50
SINGLETON = "singleton "
"""The prefix of the names of locks that workers take for singletons."""


def limits(request: Request) -> Response:
    """`/limits`: the largest groups of blocked jobs, the rates of queues, and the holders of slots."""
    client: Redis = request.app.state.site.client
    found = blocked.waiting(client, _queues(request), MOST_GROUPS)
    if not request.state.viewer.may_see_payloads:
        found = _without_values(found)
    by_key: dict[str, list[Holder]] = {}
    for holder in found.holders:
        by_key.setdefault(holder.key, []).append(holder)
    rows = [(group, waits.of_group(group, by_key.get(group.lacks or "", []))) for group in found.groups]
    rates = sorted(found.rates.items())

    def of_rows(size: int) -> Response:
        return render(
            request,
            "limits.html",
            groups=rows[:size],
            of=found.of,
            rates=rates[:size],
            of_rates=len(rates),
            holders=found.holders[:size],
            of_holders=len(found.holders),
            limit_words=waits.of_limit,
        )

    return small(of_rows, MOST_BYTES // 2, "groups", "holders")


@needs(Role.OPERATOR)
def release_slot(request: Request) -> Response:
    """`POST /limits`: take a slot from a job whose worker is gone."""
    given = fields(request)
    key, job, force = given.get("key", ""), given.get("job", ""), given.get("force") == "yes"
    back = address(request, "limits")
    _may_see(request)
    try:
        with acting(request, "limits release", key=key, job=job, **({"force": True} if force else {})):
            worker = slots.release_slot(request.app.state.site.client, key, job, force)
    except SlotNotReleased as error:
        return go(request, back, f"Nothing was done: {error}.")
    return go(request, back, f"{key} is released: job {job} of worker {worker or 'unknown'} held it.")


def locks(request: Request) -> Response:
    """`/locks`: who holds which lock on the lock nodes."""
    site = request.app.state.site
    state = locks_state.lock_state(_nodes(request))
    singletons = [
        held.name.removeprefix(SINGLETON) for held in state.locks if held.name.startswith(SINGLETON)
    ]
    known = list(dict.fromkeys(singletons))
    waiting = blocked.behind_singleton(site.client, known, _queues(request)) if known else {}
    may_see = request.state.viewer.may_see_payloads
    rows = [
        (
            held if may_see else replace(held, name=_key(held.name)),
            waiting.get(held.name.removeprefix(SINGLETON)),
        )
        for held in state.locks
    ]

    def of_rows(size: int) -> Response:
        return render(
            request,
            "locks.html",
            page=page_of(rows, request, size),
            nodes=state.nodes,
            faults=state.faults,
            unfinished=state.unfinished,
        )

    return small(of_rows, MOST_BYTES, "list")


@needs(Role.OPERATOR)
def release_lock(request: Request) -> Response:
    """`POST /locks`: release a lock, if the fence in the form is still that of its holder."""
    given, nodes = fields(request), _nodes(request)
    name, fence, back = given.get("name", ""), given.get("fence", ""), address(request, "locks")
    _may_see(request)
    found: Sequence[Held] = locks_state.lock_state(nodes, name).locks if name else ()
    if not found:
        return go(request, back, "Nothing was done: nobody holds that lock any more.")
    held = max(found, key=lambda each: each.nodes)
    if str(held.fence or "") != fence:
        return go(request, back, "Nothing was done: the lock has a new holder. Check again.")
    try:
        with acting(request, "locks release", name=name):
            count = locks_state.release(nodes, held)
    except LockNotReleased as error:
        return go(request, back, f"Nothing was done: {error}.")
    said = f"{name} is released on {count} of {held.of} nodes. A live holder may take it back."
    return go(request, back, said)


def _queues(request: Request) -> list[str]:
    site = request.app.state.site
    return queues.names(site.client, site.queues)


def _nodes(request: Request) -> Sequence[Redis]:
    site = request.app.state.site
    return site.lock_nodes or (site.client,)


def _may_see(request: Request) -> None:
    """Keys have values of arguments in them: who may not see those names no key."""
    if not request.state.viewer.may_see_payloads:
        raise HTTPException(403, f"Keys are {HIDDEN}, so nothing can be released.")


def _key(key: str) -> str:
    """A key without the values of arguments in it."""
    return f"{key.partition(':')[0]}:…" if ":" in key else "…"


def _without_values(found: Waiting) -> Waiting:
    groups: list[Group] = [
        replace(
            group,
            name="…",
            limits=[replace(limit, key=_key(limit.key)) for limit in group.limits],
            lacks=group.lacks and _key(group.lacks),
        )
        for group in found.groups
    ]
    return replace(
        found, groups=groups, holders=[replace(each, key=_key(each.key)) for each in found.holders]
    )


ROUTES = [
    Route("/limits", limits, name="limits"),
    Route("/limits", release_slot, methods=["POST"], name="release_slot"),
    Route("/locks", locks, name="locks"),
    Route("/locks", release_lock, methods=["POST"], name="release_lock"),
]
