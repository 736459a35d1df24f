"""The overview: each queue, and whether anything is wrong."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.live.shared import shared
from packmule.dashboard.pages.addresses import address, known
from packmule.dashboard.pages.filters import number, short, size
from packmule.dashboard.pages.paging import MOST_BYTES, page_of, small
from packmule.dashboard.pages.rendering import render
from packmule.observe.situation import QueueState, Situation, Situations
from packmule.plain_text import plain

CARDS = 12
"""Queues that are shown as cards; more become a table."""

MOST_NAMED = 3
"""Queues without workers that are named."""

ROWS = 30
"""Queues on one page of the table."""

SAME_FOR = 0.1
"""Seconds for which the situation is not read again: viewers are notified of a change after longer."""

MOST_FIND = 100


@shared
def overview(request: Request) -> Response:
    """`/`: a card or a row for each queue; `?find=` keeps those whose name contains it."""
    found = situation(request)
    find = request.query_params.get("find", "")[:MOST_FIND]
    shown = [each for each in found.queues if find.lower() in each.name.lower()]
    is_table = len(found.queues) > CARDS
    if is_table:
        shown.sort(key=attention)
    values: dict[str, Any] = {
        "now": found,
        "at": int(time.time()),
        "is_table": is_table,
        "find": find,
        "figures": figures(request, found),
        "faults": faults(found),
    }

    def of_rows(size: int) -> Response:
        return render(request, "overview.html", **values, page=page_of(shown, request, size))

    return small(of_rows, MOST_BYTES, "queues", size=ROWS)


class _Shared:
    """The site's one reader of the situation: pages that are asked for at the same moment show one."""

    def __init__(self, situations: Situations) -> None:
        self.lock = threading.Lock()
        self.situations = situations
        self.found: Situation | None = None
        self.until = 0.0
        self.error: RedisError | None = None
        self.failed_at = 0.0


def situation(request: Request) -> Situation:
    """The situation as it is now, or was a moment ago.

    Those who wait while one reads also share its failure: Redis may take seconds to give no answer.
    """
    state = request.app.state
    if not hasattr(state, "situation"):
        state.situation = _Shared(Situations(state.site.client))
    one: _Shared = state.situation
    came_at = time.monotonic()
    with one.lock:
        if one.error and one.failed_at > came_at:
            raise one.error.with_traceback(None)
        # After an act its effect is to be seen.
        if one.found is None or request.state.message or time.monotonic() > one.until:
            try:
                one.found = one.situations.now(state.site.queues)
            except RedisError as error:
                one.error, one.failed_at = error, time.monotonic()
                raise
            one.until = time.monotonic() + SAME_FOR
        return one.found


class Figure(NamedTuple):
    """A figure as `ui.figure` takes it: a word, its value, what else there is to say, a link and a kind."""

    label: str
    value: str
    more: str = ""
    to: str | None = None
    kind: str = ""


def figures(request: Request, found: Situation) -> Sequence[Figure]:
    """What the whole system does, in a row."""
    routes = known(request)

    def link(route: str) -> str | None:
        return address(request, route) if route in routes else None

    waiting = sum(each.counts["queued"] + each.counts["blocked"] for each in found.queues)
    running = sum(each.counts["started"] for each in found.queues)
    depth = sum(each.depth for each in found.queues)
    speed = sum(each.per_second_out for each in found.queues)
    performed, failed = (sum(getattr(each, what) for each in found.hour) for what in ("performed", "failed"))
    server, leads = found.server, found.leader
    gone = found.workers.get("vanished", 0)
    alive = sum(found.workers.values()) - gone
    states = ", ".join(
        f"{number(count)} {short(state, 24)}" for state, count in sorted(found.workers.items())
    )
    replicas = f", replicas: {number(server.replicas)}" if server.replicas else ""
    bound = f"of {size(server.most_memory)}" if server.most_memory else "no limit"
    standby = f"{number(found.schedulers - 1)} on standby" if found.schedulers > 1 else ""
    return (
        Figure("Waiting", number(waiting), f"{number(depth)} still to run", link("jobs")),
        Figure("Running", number(running), f"{number(speed)} jobs/s recently"),
        Figure("Performed, 1 h", number(performed), f"{number(failed)} failed", link("metrics")),
        Figure("Errors, 1 h", number(found.errors), "kinds", link("errors"), "error" * (found.errors > 0)),
        Figure("Workers", number(alive), states, link("workers"), "warning" * bool(gone)),
        Figure("Leader", short(leads.name, 24), standby or "none on standby", None, "text")
        if leads
        else Figure("Leader", "none", "packmule scheduler", None, "warning"),
        Figure(f"{server.kind.title()} memory", size(server.memory), f"{bound}, {server.role}{replicas}"),
    )


def faults(found: Situation) -> Sequence[str]:
    """What is wrong and how to mend it, in the order of its weight."""
    lacking = [each.name for each in found.queues if each.lacks_workers]
    told = []
    if found.server.is_full:
        told.append("Redis is nearly full: workers take no more jobs until some of its memory is free.")
    if found.server.is_suspended:
        told.append("All workers are suspended: resume them with rq resume.")
    if lacking:
        more = len(lacking) - MOST_NAMED
        names = ", ".join(map(plain, lacking[:MOST_NAMED])) + (f" and {more:,} more" if more > 0 else "")
        told.append(f"Jobs are waiting, and no worker serves {names}: {_serving(lacking[0])}.")
    if found.leader is None:
        told.append("No scheduler leads: scheduled jobs and retries wait. Start one with packmule scheduler.")
    return told


def _serving(queue: str) -> str:
    """What to do for a queue without workers. Its name is anybody's text, and people paste commands."""
    if plain(queue) != queue:
        return "add it to PACKMULE_QUEUES"
    return f"packmule worker -q {shlex.quote(queue)} starts one"


def attention(each: QueueState) -> tuple[bool, bool, int, str]:
    """First what is wrong, then the deepest."""
    return not each.lacks_workers, not each.is_paused, -each.depth, each.name


ROUTES = [Route("/", overview, name="overview")]
