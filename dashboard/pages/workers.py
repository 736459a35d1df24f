"""Workers: what each does now, on which host, and quieting, resuming and stopping them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from redis import Redis
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.acting import acting, go
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.paging import MOST_BYTES, asked, choice, order, page_of, small
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import needs
from packmule.dashboard.viewer import Role
from packmule.jobs import cluster, reader, stacks
from packmule.jobs.cluster import WorkerInfo
from packmule.observe import statistics

TABS = ("all", "busy", "idle", "quiet", "vanished")

MOST_JOBS = 200
"""Jobs that a worker's page shows of those that the worker holds."""

MOST_NAMED = 10
"""Jobs that are named beside stacks."""

_ORDERS: dict[str, Callable[[WorkerInfo], Any]] = {
    "name": lambda worker: worker["name"],
    "host": lambda worker: (worker["host"], worker["name"]),
    "done": lambda worker: worker["done"],
    "failed": lambda worker: worker["failed"],
    "memory": lambda worker: worker["memory"],
    "since": lambda worker: worker["since"],
    "release": lambda worker: (worker["release"], worker["name"]),
}


def workers(request: Request) -> Response:
    """`/workers`: all workers, or those in a state or with some words."""
    client: Redis = request.app.state.site.client
    found = cluster.workers(client)
    words = asked(request).lower().split()
    fitting = [each for each in found if all(word in _words(each) for word in words)]
    counts = Counter(state for each in fitting for state in _states(each))
    state = choice(request, "state", TABS)
    sort, key, is_reversed = order(request, _ORDERS, "name")
    rows = sorted(
        [each for each in fitting if state in ("all", *_states(each))], key=key, reverse=is_reversed
    )
    sums: dict[str, Any] = {
        "hosts": len({each["host"] for each in found if each["host"]}),
        "releases": Counter(each["release"] for each in found if each["release"]),
        "total": Counter(state for each in found for state in _states(each)),
        "done": sum(each["done"] for each in found),
        "failed": sum(each["failed"] for each in found),
        "memory": sum(each["memory"] for each in found),
        "known": len(found),
    }

    def of_rows(size: int) -> Response:
        page = page_of(rows, request, size)
        names = [each["name"] for each in page.rows if each["state"] != "vanished"]
        performed = zip(names, cluster.performed(client, names), strict=True)
        running = {name: ids for name, ids in performed if ids}
        firsts = reader.read_many(client, [ids[0] for ids in running.values()])
        return render(
            request,
            "workers.html",
            **sums,
            page=page,
            running=running,
            jobs=dict(zip(running, firsts, strict=True)),
            tabs=[(tab, counts[tab] if tab != "all" else len(fitting)) for tab in TABS],
            state=state,
            sort=sort,
            asked=asked(request),
        )

    return small(of_rows, MOST_BYTES, "list")


def worker(request: Request) -> Response:
    """`/workers/{name}`: one worker, with the jobs that it performs and those that it will perform next."""
    client: Redis = request.app.state.site.client
    found = cluster.worker(client, request.path_params["name"])
    ids = cluster.claimed(client, [found["name"]], MOST_JOBS)[0]
    jobs = [job for job in reader.read_many(client, ids) if job is not None]
    busiest = dict(statistics.busiest(client, 100, 1))
    may_see = request.state.viewer.may_see_payloads
    running = [job for job in jobs if job.status == "started"]
    next_ones = [job for job in jobs if job.status != "started"]
    values: dict[str, Any] = {
        "worker": found,
        "running": running,
        "next": next_ones,
        "most_named": MOST_NAMED,
        "is_cut": len(ids) >= MOST_JOBS,
        "busy": busiest.get(found["name"]),
        "dump": stacks.read(client, found["name"]) if may_see else None,
    }

    def of_rows(size: int) -> Response:
        return render(request, "worker.html", **values, shown=[*running, *next_ones][:size])

    return small(of_rows, MOST_BYTES, "jobs", size=MOST_JOBS)  # stacks below them count, too


@needs(Role.OPERATOR)
def act(request: Request) -> Response:
    """`POST /workers/{name}/{act}`: quiet, resume or stop a worker, or ask for its stacks."""
    name, wanted = request.path_params["name"], request.path_params["act"]
    client: Redis = request.app.state.site.client
    if wanted not in ("quiet", "resume", "stop", "stack"):
        raise HTTPException(404)
    cluster.worker(client, name)  # an unknown one is no act
    if wanted == "stack":
        return _ask_for_stacks(request, name)
    with acting(request, f"worker {wanted}", names=[name]):
        if wanted == "stop":
            cluster.stop(client, name)
            said = f"{name} stops after its running jobs; its pool starts a replacement."
        elif wanted == "quiet":
            done = cluster.quiet(client, name)
            said = f"{name} {'takes no more jobs' if done else 'was already quiet'}."
        else:
            done = cluster.resume(client, name)
            said = f"{name} {'takes jobs again' if done else 'was not quiet'}."
    return go(request, address(request, "worker", name=name), said)


def _ask_for_stacks(request: Request, name: str) -> Response:
    if not request.state.viewer.may_see_payloads:
        raise HTTPException(
            403, "Stacks show code that a job runs: ask an admin for the right to see payloads."
        )
    on = address(request, "worker", name=name)
    try:
        with acting(request, "worker stack", name=name):
            stacks.ask(request.app.state.site.client, name)
    except stacks.NoStacks as error:
        return go(request, on, f"No stacks: {error}.")
    return go(request, on, f"{name} has written its stacks.")


def _states(worker: WorkerInfo) -> set[str]:
    return {str(worker["state"]), *(("quiet",) if worker["quiet"] else ())}


def _words(worker: WorkerInfo) -> str:
    """Where a search looks."""
    return f"{worker['name']} {worker['host']} {worker['queues']} {worker['release']}".lower()


ROUTES = [
    Route("/workers", workers, name="workers"),
    Route("/workers/{name:path}/{act}", act, methods=["POST"], name="act_on_worker"),
    Route("/workers/{name:path}", worker, name="worker"),
]
