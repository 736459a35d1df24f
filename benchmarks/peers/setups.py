"""Who competes: each system's configurations, in the best form that its documentation knows.

All run two worker processes. A system whose command line starts one process is started twice.
"""

from __future__ import annotations

import inspect
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from packmule import job
from packmule.worker.pool.pool import Pool
from peers import bodies

ROOT = Path(__file__).parents[2]
NODE_MODULES = ROOT / "build" / "bullmq" / "node_modules"
BULLMQ = str(Path(__file__).parent / "bullmq" / "bench.js")
BIN = Path(sys.executable).parent

NOOP = frozenset({"noop"})
NAP = frozenset({"nap"})
PERFORM = NOOP | NAP | {"incr"}
ENQUEUE = frozenset({"one", "bulk", "bytes"})
ALL = PERFORM | ENQUEUE | {"latency", "memory"}
WAITING = frozenset({"waiting-1k", "waiting-100k", "waiting-1m"})
NO_BULK = ALL - {"bulk"}

Command = tuple[str, ...]


@dataclass(frozen=True)
class Setup:
    """One row: a peer's module, the commands that start its workers, and what is measured of it.

    `share` is its part of the jobs, so that slow systems take about as long as fast ones; `naps` are how many
    sleeping jobs it gets. `package` must be importable, and `lacks` may name what else is missing.
    """

    name: str
    peer: str
    package: str
    commands: tuple[Command, ...]
    share: float = 1.0
    figures: frozenset[str] = ALL
    naps: int = 2_000
    environment: Mapping[str, str] = field(default_factory=dict)
    lacks: Callable[[], str] = lambda: ""

    @property
    def producer(self) -> Command:
        """The command that enqueues, to which verb, job and count are added."""
        if self.peer == "bullmq":
            return ("node", BULLMQ, "produce")
        return (sys.executable, "-m", "peers.produce", self.peer)

    @property
    def missing(self) -> str:
        """What it can't be measured for, in words, or nothing."""
        if self.peer != "bullmq" and find_spec(self.package) is None:
            return f"{self.package} is not installed: `make bench-peers` does it"
        return self.lacks()


def _no_bullmq() -> str:
    if shutil.which("node") is None:
        return "there is no node: install Node.js 20 or newer"
    return "" if (NODE_MODULES / "bullmq").is_dir() else "bullmq is not installed: `make bench-peers` does it"


def _no_isolation() -> str:
    try:
        job(isolate=True)(bodies.noop)
    except TypeError:
        return "@job knows no isolate=True"
    return ""


def _no_threads() -> str:
    return "" if "threads" in inspect.signature(Pool).parameters else "the pool knows no threads"


def _script(name: str, *words: str) -> Command:
    return (str(BIN / name), *words)


def _work(peer: str) -> Command:
    return (sys.executable, "-m", "peers.work", peer)


def _packmule(name: str, share: float, figures: frozenset[str], *, naps: int = 200, **more: object) -> Setup:
    return Setup(name, "packmule_", "rq", (_work("packmule_"),), share, figures, naps, **more)


def _taskiq(name: str, share: float, figures: frozenset[str], **environment: str) -> Setup:
    command = _script(
        "taskiq", "worker", "peers.taskiq_:broker", "--workers", "2", "--max-async-tasks", "100",
        "--log-level", "ERROR",
    )  # fmt: skip
    return Setup(
        f"taskiq {name}", "taskiq_", "taskiq_redis", (command,), share, figures, environment=environment
    )


def _dramatiq(name: str, threads: int, share: float, figures: frozenset[str], **environment: str) -> Setup:
    command = _script("dramatiq", "peers.dramatiq_", "--processes", "2", "--threads", str(threads))
    return Setup(
        f"dramatiq {name}", "dramatiq_", "dramatiq", (command,), share, figures, environment=environment
    )


def _celery(
    name: str, processes: int, *words: str, figures: frozenset[str], naps: int = 200, results: str = ""
) -> Setup:
    command = _script(
        "celery", "--quiet", "--app", "peers.celery_", "worker", "--loglevel", "ERROR",
        "--without-gossip", "--without-mingle", "--without-heartbeat", *words,
    )  # fmt: skip
    commands = tuple((*command, "--hostname", f"bench{number}") for number in range(processes))
    # Many for tasks that are short; one for each of many greenlets.
    environment = {"BENCH_PREFETCH": "1" if "gevent" in words else "64", "BENCH_RESULTS": results}
    return Setup(f"celery {name}", "celery_", "celery", commands, 0.12, figures, naps, environment)


def _huey(name: str, processes: int, *words: str, figures: frozenset[str]) -> Setup:
    command = _script("huey_consumer", "peers.huey_.huey", "--quiet", *words)
    if "greenlet" in words:
        command = (sys.executable, "-m", "gevent.monkey", *command)
    return Setup(f"huey {name}", "huey_", "huey", (command,) * processes, 0.25, figures)


def _rq(kind: str, share: float, figures: frozenset[str]) -> Setup:
    return Setup(f"rq {kind}", "rq_", "rq", (_work("rq_"),) * 2, share, figures, 200, {"BENCH_WORKER": kind})


def _bullmq(concurrency: int, figures: frozenset[str]) -> Setup:
    commands = (("node", BULLMQ, "work", str(concurrency)),) * 2
    return Setup(f"BullMQ, {concurrency} at a time", "bullmq", "", commands, 1.0, figures, lacks=_no_bullmq)


SETUPS = (
    _packmule("packmule", 1.0, ALL | WAITING),
    _packmule("packmule, batches of 1", 0.5, PERFORM - NAP, environment={"BENCH_CLAIM": "1"}),
    _packmule(
        "packmule, 100 threads", 0.5, PERFORM | {"latency"}, naps=2_000,
        environment={"BENCH_EXECUTOR": "threads"}, lacks=_no_threads,
    ), _packmule("packmule, async", 0.5, PERFORM | {"latency"}, naps=2_000, environment={"BENCH_EXECUTOR":
    "async"}), _packmule(
        "packmule, a fork a job", 0.02, PERFORM - NAP,
        environment={"BENCH_EXECUTOR": "isolate"}, lacks=_no_isolation,
    ),
    _bullmq(50, ALL),
    _bullmq(200, NOOP | NAP),
    _taskiq("list", 0.4, ALL, BENCH_BROKER="list"),
    _taskiq("list with results", 0.2, NOOP, BENCH_BROKER="list", BENCH_RESULTS="1"),
    _taskiq("stream", 0.4, ALL, BENCH_BROKER="stream"),
    _dramatiq("2 x 64 threads", 64, 0.3, NO_BULK),
    _dramatiq("2 x 8 threads", 8, 0.3, PERFORM | {"latency", "memory"}),
    _dramatiq("2 x 64 with results", 64, 0.2, NOOP, BENCH_RESULTS="1"),
    _huey("2 processes", 1, "-k", "process", "-w", "2", figures=NO_BULK - NAP),
    _huey("2 x 100 greenlets", 2, "-k", "greenlet", "-w", "100", figures=NAP),
    Setup("saq", "saq_", "saq", (_script("saq", "peers.saq_.settings", "--quiet"),) * 2, 0.2),
    _celery("solo x 2", 2, "--pool", "solo", figures=ALL),
    _celery("solo x 2 with results", 2, "--pool", "solo", figures=NOOP, results="1"),
    _celery("prefork 2", 1, "--pool", "prefork", "--concurrency", "2", figures=PERFORM),
    _celery("gevent 2 x 100", 2, "--pool", "gevent", "--concurrency", "100", figures=NAP, naps=2_000),
    Setup("streaq", "streaq_", "streaq", (_script("streaq", "run", "peers.streaq_:worker"),) * 2, 0.1),
    Setup("arq", "arq_", "arq", (_script("arq", "peers.arq_.WorkerSettings"),) * 2, 0.1),
    _rq("SimpleWorker", 0.03, ALL),
    _rq("Worker", 0.01, PERFORM | {"latency", "memory"}),
    Setup("bare loop", "bare_", "redis", (_work("bare_"),) * 2, 0.5, frozenset({"incr", "latency"})),
)  # fmt: skip


def versions(setups: tuple[Setup, ...]) -> str:
    """The versions of the systems among `setups` and of their clients: `redis 8.1.0, rq 2.12.0`."""
    packages = {"hiredis", "redis", *(setup.package for setup in setups if setup.package)}
    if "taskiq_redis" in packages:
        packages.add("taskiq")
    found = [f"{name} {version(name)}" for name in sorted(packages)]
    if any(setup.peer == "bullmq" for setup in setups):
        for name in ("bullmq", "ioredis"):
            package = json.loads((NODE_MODULES / name / "package.json").read_text())
            found.append(f"{name} {package['version']}")
    return ", ".join(found)
