"""The dashboard: its pages beside rq-dashboard's on the same jobs, and what many viewers cost.

    python benchmarks/dashboard.py [jobs] [idle viewers] [viewers of busy workers] [seconds]

One process serves all pages, and another the stock rq-dashboard on the same jobs. bull-board serves as many
jobs of BullMQ, in another database of the same server, if `make build/node/node_modules` has installed it. A
viewer has a stream of events open, and fetches the overview's regions when it says that they are stale, as a
browser does; all viewers are in a process of their own. "busy" is the processor time of a page in the process
that serves it, which other work on the machine changes less. "notified" is from an event until the viewer's
stream says so, "shown" until the viewer has the fresh regions.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import bench_jobs
import dashboard_peers as peers
import search
from harness import arguments, by_turns, client_of, in_a_pool, machine, rate, ratio, table
from peers import elsewhere
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.dashboard.live.hub import LONGEST
from packmule.dashboard.site import Site, build
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs.client import Client
from packmule.jobs.options import Options
from packmule.observe import events
from packmule.testing import private_server

RUNS = 100
ROUNDS = 5
EVENTS = 10
JOBS_A_ROUND = 30_000
REGIONS = "/?region=figures&region=queues"
LIVE = "/live?on=jobs+workers+server+errors+minute+queues"
PAGES = {
    "overview": ["/"],
    "overview, regions": [REGIONS],
    "jobs": ["/jobs"],
    "jobs by name and error": ["/jobs?q=name:report+error:ValueError"],
    "rq-dashboard in ours: queues": [
        "/rq/0/view/queues",
        "/rq/0/data/queues.json",
        "/rq/0/data/workers.json",
    ],
    "rq-dashboard in ours: 50 finished jobs": [f"/rq/0/view/{peers.JOBS}", f"/rq/0/data/{peers.JOBS}.json"],
}


@contextmanager
def process(task: Callable[[], object]) -> Iterator[int]:
    """A forked process that runs `task` until the block ends."""
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        task()
        os._exit(0)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def serve(server: EmbeddedServer, listening: socket.socket) -> None:
    """Serve the dashboard; each value of the header `x-viewer` is a session of its own."""
    import uvicorn

    client = client_of(server)
    site = Site(client, Client(client), search.QUEUES, "redis://private", "production")
    app = build(site, lambda request: Viewer("ada", Role.ADMIN, True, request.headers.get("x-viewer", "")))
    config = uvicorn.Config(app, log_level="error", backlog=4096)
    uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def served(serve: Callable[[socket.socket], object]) -> Iterator[tuple[int, int]]:
    """The port and the process of a server."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as `packmule dashboard` does
        port = listening.getsockname()[1]
        with process(lambda: serve(listening)) as pid:
            while True:
                time.sleep(0.1)
                with suppress(OSError):
                    http.client.HTTPConnection("127.0.0.1", port).request("GET", "/static/packmule.css")
                    break
            yield port, pid


def cpu(pid: int) -> float:
    """The processor seconds that a process has used."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pages(port: int, pid: int, found: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Each page's times in milliseconds and its size."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for name, paths in found.items():
        times, size, busy = [], 0, 0.0
        for run in range(RUNS + 3):
            if run == 3:
                busy = cpu(pid)
            time.sleep(0.11)  # past what is kept for those who ask at the same moment
            began, size = time.perf_counter(), 0
            for path in paths:
                connection.request("GET", path, headers={"Accept": "text/html"})
                answer = connection.getresponse()
                size += len(answer.read())
                assert answer.status == 200, (path, answer.status)
            if run >= 3:
                times.append((time.perf_counter() - began) * 1000)
        busy = (cpu(pid) - busy) * 1000 / RUNS
        worst = statistics.quantiles(times, n=20)[18]
        yield name, f"{statistics.median(times):.1f}", f"{worst:.1f}", f"{busy:.1f}", f"{size / 1000:.1f}"


async def view(port: int, name: str, told: Callable[[float, float], None], ready: Callable[[], None]) -> None:
    """One viewer: read the stream, and fetch the stale regions."""
    head = f"Host: 127.0.0.1:{port}\r\nX-Viewer: {name}\r\nAccept: text/html\r\n"
    stream, writing = await asyncio.open_connection("127.0.0.1", port)
    writing.write(f"GET {LIVE} HTTP/1.1\r\n{head}\r\n".encode())
    while line := await stream.readline():
        if line.startswith(b"event: hello"):
            ready()
        elif line.startswith(b"event: stale"):
            notified = time.time()
            pages, asking = await asyncio.open_connection("127.0.0.1", port)
            asking.write(f"GET {REGIONS} HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode())
            await pages.read()
            asking.close()
            told(notified, time.time())


def watch(port: int, viewers: int, out: int) -> None:
    """So many viewers, who write to `out` when each was notified and had the page."""

    async def all_of_them() -> None:
        def told(notified: float, shown: float) -> None:
            os.write(out, f"{notified} {shown}\n".encode())

        def ready() -> None:
            os.write(out, b"ready\n")

        await asyncio.gather(*(view(port, f"s{number // 20}", told, ready) for number in range(viewers)))

    asyncio.run(all_of_them())


@contextmanager
def viewing(port: int, viewers: int) -> Iterator[int]:
    """So many viewers until the block ends; a descriptor of what they tell."""
    back, out = os.pipe()
    with process(lambda: watch(port, viewers, out)):
        with os.fdopen(os.dup(back), "rb", 0) as lines:
            for _ in range(viewers):
                lines.readline()
        yield back
    os.close(back)
    os.close(out)


def idle(client: Redis, port: int, pid: int, viewers: int, seconds: float) -> Iterator[tuple[str, str]]:
    """What idle viewers cost, and how fast they are told of an event."""
    with viewing(port, viewers) as told:
        time.sleep(2)
        began, used = time.perf_counter(), cpu(pid)
        commands = client.info("stats")["total_commands_processed"]
        time.sleep(seconds)
        passed = time.perf_counter() - began
        done = client.info("stats")["total_commands_processed"] - commands - 1
        yield f"{viewers} idle viewers: of a core", f"{(cpu(pid) - used) / passed * 100:.1f} %"
        yield f"{viewers} idle viewers: commands/s", f"{done / passed:.1f}"
        notified, shown = [], []
        os.set_blocking(told, False)
        for number in range(EVENTS):
            time.sleep(LONGEST)  # past the pause after the notice before
            heard(told)
            began = time.time()
            events.stream(client).append([["enqueued", f"job-{number}", "default", "", began]])
            time.sleep(LONGEST)
            times = [tuple(float(each) - began for each in line.split()) for line in heard(told)]
            notified += [first * 1000 for first, _ in times][:viewers]
            shown += [last * 1000 for _, last in times][:viewers]
        for name, times in (("notified", notified), ("shown", shown)):
            worst = statistics.quantiles(times, n=20)[18]
            yield f"{viewers} viewers {name}: ms p50, p95", f"{statistics.median(times):.0f}, {worst:.0f}"


def heard(told: int) -> list[bytes]:
    """The lines that viewers have written by now."""
    text = b""
    try:
        while part := os.read(told, 65536):
            text += part
    except BlockingIOError:
        pass
    return text.splitlines()


def beside_workers(server: EmbeddedServer, client: Redis, port: int, viewers: int) -> tuple[str, str]:
    """The throughput of workers with viewers, as a share of that without."""
    send, job = Client(client).send, bench_jobs.noop.job

    def performed() -> float:
        send(job, [((), {})] * JOBS_A_ROUND, Options(queue="noop"))
        return rate(JOBS_A_ROUND, lambda: in_a_pool(server, "noop"))

    def with_viewers() -> float:
        with viewing(port, viewers) as told:
            os.set_blocking(told, False)
            with process(lambda: drain(told)):
                return performed()

    rates = by_turns({"alone": performed, "viewers": with_viewers}, ROUNDS)
    share = ratio(rates["viewers"], rates["alone"]) * 100
    alone = statistics.median(rates["alone"])
    return f"no-op jobs with {viewers} viewers, of {alone:,.0f}/s without", f"{share:.1f} %"


def drain(descriptor: int) -> None:
    """Read what viewers tell, so that none waits."""
    os.set_blocking(descriptor, True)
    while os.read(descriptor, 65536):
        pass


def main(count: int, idlers: int, viewers: int, seconds: float) -> None:
    """Measure, and print tables."""
    packages = ("redis", "starlette", "uvicorn", "rq-dashboard")
    with private_server() as server, client_of(server) as client:
        print(f"{machine(*packages, client=client)}; {count:,} ended jobs\n", flush=True)
        search.fill(client, count)
        search.fill_waiting(client, count // 100)
        with served(lambda listening: serve(server, listening)) as (port, pid):
            found = list(pages(port, pid, PAGES))
            with served(lambda listening: peers.serve(server, listening)) as peer:
                found += pages(*peer, peers.PAGES)
            if lacks := elsewhere.no_node("@bull-board/express"):
                print(f"without bull-board: {lacks}\n")
            else:
                print(", ".join(elsewhere.node_versions("bullmq", "@bull-board/express")), "\n", flush=True)
                with peers.bull_board(server, count) as peer:
                    found += pages(*peer, peers.OF_BULL_BOARD)
            table(("page", "ms p50", "p95", "busy", "kB"), found)
            print()
            rows = list(idle(client, port, pid, idlers, seconds))
            rows.append(beside_workers(server, client, port, viewers))
            table(("viewers", ""), rows)


if __name__ == "__main__":
    sys.exit(main(*arguments(1_000_000, 200, 50, 20.0)))
