"""Records: the audit, the quarantine, and the leaderboard of jobs, types and workers."""

from __future__ import annotations

from redis import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.pages.paging import MOST_BYTES, PAGE, asked, choice, offset, small
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import HIDDEN
from packmule.dashboard.viewer import Role
from packmule.jobs import reader
from packmule.observe import audit as actions
from packmule.observe import quarantine as set_aside
from packmule.observe import statistics
from packmule.observe.audit import Action

PERIODS = {"1h": 1, "24h": 24, "7d": 168}
ORDERS = ("runs", "time", "failures")
HIDING = ("limits release", "locks release", "suppression ")

BOARD = 20
"""Lines of each leaderboard."""


def audit(request: Request) -> Response:
    """`/audit`: who did what, the newest first."""
    words = asked(request).lower().split()
    sees_addresses = request.state.viewer.may(Role.OPERATOR)
    sees = request.state.viewer.may_see_payloads

    def subject(action: Action) -> str:
        return (action if sees else _without_values(action)).on

    def fits(action: Action) -> bool:
        place = action.where if sees_addresses else ""
        said = f"{action.who} {action.action} {subject(action)} {place}".lower()
        return all(word in said for word in words)

    page = actions.latest(request.app.state.site.client, request.query_params.get("cursor", ""), PAGE, fits)
    return render(
        request,
        "audit.html",
        page=page,
        asked=asked(request),
        subject=subject,
        sees_addresses=sees_addresses,
        looked=actions.MOST_LOOKED,
    )


def quarantine(request: Request) -> Response:
    """`/quarantine`: corrupt jobs and keys that were set aside."""
    client: Redis = request.app.state.site.client
    skip = offset(request)

    def of_rows(size: int) -> Response:
        notes, count = set_aside.read(client, skip, size)
        return render(
            request,
            "quarantine.html",
            notes=notes,
            count=count,
            next=skip + size if count > skip + size else None,
            broken=set_aside.BROKEN,
        )

    return small(of_rows, MOST_BYTES, "list")


def leaderboard(request: Request) -> Response:
    """`/leaderboard`: the slowest jobs, the busiest workers, and the types of jobs that take most."""
    client: Redis = request.app.state.site.client
    period, order = choice(request, "period", tuple(PERIODS)), choice(request, "by", ORDERS)
    hours = PERIODS[period]
    types = [
        statistics.summary(name, each)
        for name, each in statistics.by(statistics.hours(client, hours), statistics.type_of).items()
    ]
    fields = {"runs": "performed", "time": "seconds", "failures": "failed"}
    types.sort(key=lambda each: (-getattr(each, fields[order]), each.name))
    slowest = statistics.slowest(client, BOARD, hours)
    found = dict(
        zip([id for id, _ in slowest], reader.read_many(client, [id for id, _ in slowest]), strict=True)
    )
    busiest = statistics.busiest(client, BOARD, hours)

    def of_rows(size: int) -> Response:
        return render(
            request,
            "leaderboard.html",
            period=period,
            periods=tuple(PERIODS),
            order=order,
            orders=ORDERS,
            types=types[:size],
            of=len(types),
            slowest=slowest[:size],
            jobs=found,
            busiest=busiest[:size],
            total=sum(each.seconds for each in types) or 1.0,
        )

    return small(of_rows, MOST_BYTES // 2, "types", "boards", size=BOARD)


def _without_values(action: Action) -> Action:
    """The action without the keys of limits and locks, which are made of arguments, and without addresses."""
    if not action.action.startswith(HIDING):
        return action
    hidden = {name: HIDDEN for name in ("key", "name", "names") if name in action.subject}
    return action._replace(subject={**action.subject, **hidden})


ROUTES = [
    Route("/leaderboard", leaderboard, name="leaderboard"),
    Route("/audit", audit, name="audit"),
    Route("/quarantine", quarantine, name="quarantine"),
]
