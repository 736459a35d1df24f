"""`packmule` commands for tests: an environment of their own, processes, and what these left behind."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from packmule.config import VARIABLES, child_environment
from packmule.tests.fork_server import Forked

ROOT = Path(__file__).resolve().parent.parent
UNSET = dict.fromkeys([variable for variable, _ in VARIABLES.values()] + ["REDIS_URL", "PORT"])
DEADLINE = 120.0

SHOP = """
from packmule import current, job


@job
def add(a: int, b: int = 1) -> int:
    current.progress(1, 2, "adding")
    return a + b


@job
def boom() -> None:
    raise ValueError("the shelf is empty")
"""

Done = subprocess.CompletedProcess[str]
Process = subprocess.Popen[str]
Run = Callable[..., Done]


def environment_in(home: Path, url: str | None, more_jobs: str = "", **changes: str) -> dict[str, str]:
    """That of commands whose user keeps jobs in `home`/shop.py; without `url`, on an embedded server."""
    (home / "shop.py").write_text(SHOP + more_jobs)
    ours = {
        "PACKMULE_REDIS_URL": url,
        "PACKMULE_DATA_DIR": str(home / "data"),
        "PACKMULE_MODULES": "shop",
        "PYTHONPATH": str(ROOT),
    }
    return child_environment(**{**UNSET, **ours, **changes})


class CommandLine:
    """Commands in one working directory; keywords change the environment of a single one."""

    def __init__(self, cwd: Path, environment: dict[str, str]) -> None:
        self.cwd = cwd
        self.environment = environment
        self.data_dir = Path(environment["PACKMULE_DATA_DIR"])

    def run(self, *words: str, **changes: str) -> Done:
        """Run one to its end."""
        with self.started(*words, stderr=subprocess.PIPE, **changes) as process:
            out, err = process.communicate(timeout=DEADLINE)
        return Done(words, process.returncode, out, err)

    def output(self, *words: str) -> str:
        """What one that succeeded printed, without the line's end."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @contextmanager
    def started(
        self, *words: str, stderr: int | IO[str] = subprocess.PIPE, **changes: str
    ) -> Iterator[Process]:
        """One that runs, and is killed if it still does at the end of the block."""
        with Forked(
            ["packmule", *words],
            cwd=self.cwd,
            env=self.environment | changes,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def workers(self, registered: Callable[[], int]) -> Iterator[None]:
        """A pool of two processes until the block ends; `registered` counts those that have begun."""
        log = self.cwd / "worker.log"
        with log.open("w") as output, self.started("worker", "--processes", "2", stderr=output) as pool:
            try:
                until(lambda: registered() >= 2, "the workers", log.read_text)
                yield
            finally:
                pool.terminate()
                assert pool.wait(DEADLINE) == 0, log.read_text()

    def in_this_process(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
        """The like of `run` without a process, which would cost half a second."""

        def run(*words: str, **changes: str) -> Done:
            from packmule.cli import main

            for name in UNSET:
                monkeypatch.delenv(name, raising=False)
            for name, value in {**self.environment, **changes}.items():
                if name in UNSET:
                    monkeypatch.setenv(name, value)
            monkeypatch.chdir(self.cwd)
            monkeypatch.setattr(sys, "path", [*sys.path, *self.environment["PYTHONPATH"].split(os.pathsep)])
            monkeypatch.setattr(sys, "argv", ["packmule", *words])
            on_sigterm = signal.getsignal(signal.SIGTERM)
            try:
                with pytest.raises(SystemExit) as ended:
                    main()
            finally:
                signal.signal(signal.SIGTERM, on_sigterm)
            out, err = capsys.readouterr()
            return Done(words, ended.value.code, out, err)  # type: ignore[arg-type]

        return run


def complaint(done: Done, code: int) -> str:
    """The one line that a command left with `code` wrote, having written nothing else."""
    assert (done.returncode, done.stdout) == (code, ""), done
    assert re.fullmatch(r"packmule: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


def until(condition: Callable[[], object], what: str, log: Callable[[], str] = str) -> None:
    """Wait for `condition`; past the deadline, fail with what was awaited and the log so far."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}\n{log()}"
        time.sleep(0.02)


def free_port() -> int:
    """One that is free, and that the kernel gives to nobody who asks for any."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
