"""Who competes: each system's configurations, in the best form that its documentation knows.

All run two worker processes. A system whose command line starts one process is started twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from peers import elsewhere

BIN = Path(sys.executable).parent
BARE = "bare loop"
FEW = 200
"""Jobs after which a worker is up."""

WARM = 5_000
"""Jobs after which code that is compiled as it runs has been."""

NOOP = frozenset({"noop"})
NAP = frozenset({"nap"})
PERFORM = NOOP | NAP | {"incr"}
ENQUEUE = frozenset({"one", "bulk", "bytes"})
REST = frozenset({"memory", "idle"})
ALL = PERFORM | ENQUEUE | REST | {"latency"}
WAITING = frozenset({"waiting-1k", "waiting-100k", "waiting-1m"})
NO_BULK = ALL - {"bulk"}

Command = tuple[str, ...]


@dataclass(frozen=True)
class Setup:
    """One row: the commands that start a system's workers, the one that enqueues, and what is measured.

    `producer` gets verb, job and count added. `share` is its part of the jobs, so that slow systems take as
    long as fast ones; `naps` are how many sleeping jobs it gets. `warm_up` jobs are performed before
    others are timed. `package` is what must be importable here; `lacks` may name what else is missing, and
    `versions` are those of what runs elsewhere.
    """

    name: str
    commands: tuple[Command, ...]
    producer: Command
    package: str = ""
    share: float = 1.0
    figures: frozenset[str] = ALL
    naps: int = 2_000
    environment: Mapping[str, str] = field(default_factory=dict)
    warm_up: int = FEW
    lacks: Callable[[], str] = lambda: ""
    versions: Callable[[], list[str]] = list

    @property
    def missing(self) -> str:
        """What it can't be measured for, in words, or nothing."""
        if self.package and find_spec(self.package) is None:
            return f"{self.package} is not installed: `make bench-peers` does it"
        return self.lacks()


def _script(name: str, *words: str) -> Command:
    return (str(BIN / name), *words)


def _work(peer: str) -> Command:
    return (sys.executable, "-m", "peers.work", peer)


def _produce(peer: str, python: str = sys.executable) -> Command:
    return (python, "-m", "peers.produce", peer)


def _twice(name: str, share: float, *words: str) -> Setup:
    """A row of a system whose package, script and worker are all that there is to say."""
    return Setup(name, (_script(name, *words),) * 2, _produce(f"{name}_"), name, share)


def _packmule(
    name: str, share: float, figures: frozenset[str], *words: str, naps: int = 200, executor: str = ""
) -> Setup:
    command = _script("packmule", "worker", "--processes", "2", "--quiet", *words)
    environment = {
        "PACKMULE_MODULES": "peers.packmule_",
        "PACKMULE_ENV": "production",
        "BENCH_EXECUTOR": executor,
    }
    return Setup(name, (command,), _produce("packmule_"), "rq", share, figures, naps, environment)


def _taskiq(name: str, share: float, figures: frozenset[str], **environment: str) -> Setup:
    command = _script(
        "taskiq", "worker", "peers.taskiq_:broker", "--workers", "2", "--max-async-tasks", "100",
        "--log-level", "ERROR",
    )  # fmt: skip
    return Setup(
        f"taskiq {name}",
        (command,),
        _produce("taskiq_"),
        "taskiq_redis",
        share,
        figures,
        environment=environment,
    )


def _dramatiq(name: str, threads: int, share: float, figures: frozenset[str], **environment: str) -> Setup:
    command = _script("dramatiq", "peers.dramatiq_", "--processes", "2", "--threads", str(threads))
    return Setup(
        f"dramatiq {name}",
        (command,),
        _produce("dramatiq_"),
        "dramatiq",
        share,
        figures,
        environment=environment,
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
    return Setup(f"celery {name}", commands, _produce("celery_"), "celery", 0.04, figures, naps, environment)


def _huey(name: str, processes: int, *words: str, figures: frozenset[str]) -> Setup:
    command = _script("huey_consumer", "peers.huey_.huey", "--quiet", *words)
    if "greenlet" in words:
        command = (sys.executable, "-m", "gevent.monkey", *command)
    return Setup(f"huey {name}", (command,) * processes, _produce("huey_"), "huey", 0.1, figures)


def _rq(kind: str, share: float, figures: frozenset[str]) -> Setup:
    commands = (_work("rq_"),) * 2
    return Setup(f"rq {kind}", commands, _produce("rq_"), "rq", share, figures, 200, {"BENCH_WORKER": kind})


def _newer(name: str, share: float, figures: frozenset[str], system: str, *words: str, naps: int) -> Setup:
    """A row of a system that needs Python 3.13, whose script has its name."""
    return Setup(
        name, ((str(elsewhere.NEWER_BIN / system), *words),),
        _produce(f"{system}_", str(elsewhere.NEWER_BIN / "python")), share=share, figures=figures, naps=naps,
        lacks=partial(elsewhere.no_newer, system), versions=partial(elsewhere.newer_versions, system),
    )  # fmt: skip


def _mayu() -> Setup:
    return _newer(
        "mayu 2 processes", 0.5, NO_BULK, "mayu", "worker", "peers.mayu_:app", "--mode", "process",
        "--processes", "2", "--prefetch-multiplier", "64", "--log-level", "ERROR", naps=200,
    )  # fmt: skip


def _ardiq() -> Setup:
    words = ("run", "peers.ardiq_:app", "--workers", "2", "--quiet")
    return _newer("ardiq 2 x 100", 0.2, ALL, "ardiq", *words, naps=2_000)


def _node(name: str, system: str, at_once: int, figures: frozenset[str]) -> Setup:
    node = ("node", elsewhere.NODE, system)
    return Setup(
        name, ((*node, "work", str(at_once)),) * 2, (*node, "produce"), figures=figures, warm_up=WARM,
        lacks=partial(elsewhere.no_node, system),
        versions=partial(elsewhere.node_versions, system, "ioredis"),
    )  # fmt: skip


def _sidekiq(threads: int) -> Setup:
    command = ("sidekiq", "-r", elsewhere.RUBY, "-c", str(threads), "-e", "production")
    return Setup(
        f"Sidekiq 2 x {threads} threads, no results", (command,) * 2, ("ruby", elsewhere.RUBY),
        share=0.4, lacks=elsewhere.no_sidekiq, versions=elsewhere.ruby_versions,
    )  # fmt: skip


SETUPS = (
    _packmule("packmule", 1.0, ALL | WAITING),
    Setup(
        "packmule, batches of 1", (_work("packmule_"),), _produce("packmule_"), "rq", 0.25, PERFORM - NAP,
        environment={"BENCH_CLAIM": "1"},
    ),
    _packmule("packmule, 100 threads", 0.5, PERFORM | {"latency"}, "--threads", "100", naps=2_000),
    _packmule("packmule, async", 0.5, PERFORM | {"latency"}, naps=2_000, executor="async"),
    _packmule("packmule, a fork a job", 0.02, PERFORM - NAP, executor="isolate"),
    _node("bee-queue, 50 at a time, no results, no events", "bee-queue", 50, ALL),
    _node("BullMQ, 50 at a time", "bullmq", 50, ALL),
    _node("BullMQ, 200 at a time", "bullmq", 200, NOOP | NAP),
    _mayu(),
    _ardiq(),
    _sidekiq(10),
    _taskiq("list", 0.15, ALL, BENCH_BROKER="list"),
    _taskiq("list with results", 0.07, NOOP, BENCH_BROKER="list", BENCH_RESULTS="1"),
    _taskiq("stream", 0.15, ALL, BENCH_BROKER="stream"),
    _dramatiq("2 x 64 threads", 64, 0.1, NO_BULK),
    _dramatiq("2 x 8 threads", 8, 0.1, PERFORM | REST | {"latency"}),
    _dramatiq("2 x 64 with results", 64, 0.07, NOOP, BENCH_RESULTS="1"),
    _huey("2 processes", 1, "-k", "process", "-w", "2", figures=NO_BULK - NAP),
    _huey("2 x 100 greenlets", 2, "-k", "greenlet", "-w", "100", figures=NAP),
    _twice("saq", 0.07, "peers.saq_.settings", "--quiet"),
    _celery("solo x 2", 2, "--pool", "solo", figures=ALL),
    _celery("solo x 2 with results", 2, "--pool", "solo", figures=NOOP, results="1"),
    _celery("prefork 2", 1, "--pool", "prefork", "--concurrency", "2", figures=PERFORM),
    _celery("gevent 2 x 100", 2, "--pool", "gevent", "--concurrency", "100", figures=NAP, naps=2_000),
    _twice("streaq", 0.04, "run", "peers.streaq_:worker"),
    _twice("arq", 0.04, "peers.arq_.WorkerSettings"),
    _rq("SimpleWorker", 0.01, ALL),
    _rq("Worker", 0.005, PERFORM | REST | {"latency"}),
    Setup(BARE, (_work("bare_"),) * 2, _produce("bare_"), "redis", 0.25, frozenset({"incr", "latency"})),
)  # fmt: skip


def versions(setups: Iterable[Setup]) -> str:
    """The versions of the systems among `setups` and of their clients: `redis 8.1.0, rq 2.12.0`."""
    packages = {"hiredis", "redis", *(setup.package for setup in setups if setup.package)}
    if "taskiq_redis" in packages:
        packages.add("taskiq")
    found = [f"{name} {version(name)}" for name in sorted(packages)]
    return ", ".join(dict.fromkeys([*found, *(each for setup in setups for each in setup.versions())]))
