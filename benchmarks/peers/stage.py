"""The stage of one measurement: a fresh server, a system's processes in their own sessions, and its marks."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from peers.elsewhere import NODE_MODULES, ROOT
from peers.setups import FEW, Setup

PATIENCE = 30.0
"""Seconds without a mark after which a system is given up."""

PROCESSES = 2
POLL = 0.01


class Failed(RuntimeError):
    """A system did not do what it was asked; the text has the last words of its log."""


class Mark(NamedTuple):
    """A line of the file of marks."""

    process: int
    value: float
    time: float


class Stage:
    """Enter it for an empty server; leave it, and neither server nor process nor file is left."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.folder = Path(tempfile.mkdtemp(prefix="packmule-peers-"))
        self.server = EmbeddedServer(self.folder)
        self.marks_path = self.folder / "marks"
        self.marks_path.touch()
        self.log_path = self.folder / "log"
        self.sessions: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self.server.ensure()
            self.client = Redis(unix_socket_path=str(self.server.socket_path))
            port = _free_port()
            self.client.config_set("bind", "127.0.0.1")
            self.client.config_set("port", port)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.environment = {
            **os.environ,
            **self.setup.environment,
            "BENCH_URL": f"redis://127.0.0.1:{port}/0",
            "BENCH_MARKS": str(self.marks_path),
            "PACKMULE_REDIS_URL": f"redis://127.0.0.1:{port}/0",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)]),
            "NODE_PATH": str(NODE_MODULES),
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while alive := self.processes():
            self._signal(alive, signal.SIGKILL)
            for leader in self.sessions:
                leader.poll()
            time.sleep(POLL)
        self.server.stop()
        shutil.rmtree(self.folder)

    def start_workers(self, jobs: int = FEW) -> None:
        """Start the system, and return once both of its processes have performed jobs and are idle again.

        They have performed at least `jobs` together.
        """
        with self.log_path.open("ab") as log:
            for command in self.setup.commands:
                self.sessions.append(
                    subprocess.Popen(
                        command,
                        cwd=self.folder,
                        env=self.environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
        deadline = time.monotonic() + PATIENCE
        while len({mark.process for mark in self.marks()}) < PROCESSES:
            if time.monotonic() > deadline:
                raise Failed(f"only one process took part within {PATIENCE:g} s{self._last_words()}")
            expected = len(self.marks()) + jobs
            self.produce("bulk", "mark", jobs)
            self.wait_for_marks(expected)
        time.sleep(0.5)

    def produce(self, verb: str, job: str, count: int) -> float:
        """Enqueue in a process of the system's own client; the seconds that it took."""
        return float(self._finished(self.start_producer(verb, job, count)))

    def produce_in_all(self, verb: str, job: str, count: int) -> float:
        """Let PROCESSES producers do the same at the same time; the seconds of the slowest."""
        running = [self.start_producer(verb, job, count) for _ in range(PROCESSES)]
        return max(float(self._finished(each)) for each in running)

    def start_producer(self, verb: str, job: str, count: int) -> subprocess.Popen[bytes]:
        """Start a producer that prints the seconds it took."""
        producer = subprocess.Popen(
            [*self.setup.producer, verb, job, str(count)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.sessions.append(producer)
        return producer

    def pause(self) -> None:
        """Stop the workers where they are."""
        self._signal(self.processes(), signal.SIGSTOP)

    def go_on(self) -> float:
        """Let them go on; the time at which they do."""
        stopped = self.processes()
        now = time.time()
        self._signal(stopped, signal.SIGCONT)
        return now

    def marks(self) -> list[Mark]:
        """All marks made, in the order of their times."""
        lines = self.marks_path.read_text().splitlines()
        words = (line.split() for line in lines)
        return sorted(
            (Mark(int(pid), float(value), float(at)) for pid, value, at in words), key=lambda m: m.time
        )

    def wait_for_marks(self, count: int) -> list[Mark]:
        """All marks, once there are `count` of them."""
        seen = -1
        since = time.monotonic()
        while (made := self.marks_path.read_bytes().count(b"\n")) < count:
            if made > seen:
                seen, since = made, time.monotonic()
            elif time.monotonic() > since + PATIENCE:
                raise Failed(f"{made} of {count} marks, and no more for {PATIENCE:g} s{self._last_words()}")
            time.sleep(POLL)
        return self.marks()

    def wait_until(self, condition: Callable[[], bool], wanted: str) -> None:
        """Return once `condition` holds. Raises `Failed` with what was `wanted`."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise Failed(f"{wanted}{self._last_words()}")
            time.sleep(POLL)

    def processes(self) -> list[int]:
        """The ids of all processes in the sessions started here."""
        leaders = {leader.pid for leader in self.sessions}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                # After the name in parentheses: state, parent, group, session.
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) in leaders and state != "Z":
                    found.append(int(folder.name))
        return found

    def memory(self) -> int:
        """The proportional set size of all processes, in bytes."""
        total = 0
        for pid in self.processes():
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return total * 1024

    def cpu_seconds(self) -> float:
        """The time for which all threads of all processes have run on a core."""
        total = 0
        for pid in self.processes():
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError):
                    total += int((thread / "schedstat").read_text().split()[0])
        return total / 1_000_000_000

    def _finished(self, producer: subprocess.Popen[bytes]) -> str:
        out, err = producer.communicate()
        self.sessions.remove(producer)  # its number may soon be another's
        if producer.returncode:
            raise Failed(f"its producer failed: {_last_line(err.decode())}")
        return out.decode()

    def _last_words(self) -> str:
        words = _last_line(self.log_path.read_text(errors="replace")) if self.log_path.exists() else ""
        return f"; its log ends: {words}" if words else ""

    @staticmethod
    def _signal(pids: Sequence[int], number: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
