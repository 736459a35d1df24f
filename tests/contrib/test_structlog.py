"""structlog's own library in real workers: each line of a job says of which it is, and of no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import structlog

from packmule import hooks
from packmule.contrib import structlog as connection
from packmule.hooks import Performing
from packmule.tests.command_line import CommandLine, environment_in

JOBS = """
import asyncio
import os
import threading

import structlog
from structlog.contextvars import bind_contextvars, merge_contextvars

structlog.configure(
    processors=[merge_contextvars, structlog.processors.JSONRenderer()],
    logger_factory=structlog.WriteLoggerFactory(open(os.environ["SAID"], "a", buffering=1)),
)
log = structlog.get_logger()
both = threading.Barrier(2, timeout=30)


@job
def plain(number: int) -> None:
    bind_contextvars(own=number)
    log.info("plain", number=number)


@job
def beside(number: int) -> None:
    log.info("before", number=number)
    both.wait()
    log.info("beside", number=number)


@job
async def later(number: int) -> None:
    await asyncio.sleep(0.01)
    log.info("later", number=number)


@job(isolate=True)
def apart() -> None:
    log.info("apart")


@job(retries=1, retry_intervals=[0])
def again() -> None:
    log.info("again")
    raise ValueError


from packmule import hooks
from contextlib import contextmanager


@hooks.perform  # within structlog's, so it says what the job is, and stays in its thread
@contextmanager
def unbound(job):
    yield
    log.info("behind")
"""


@pytest.fixture
def shop(server, client, tmp_path: Path) -> CommandLine:
    ours = {"PACKMULE_HOOKS": "packmule.contrib.structlog", "SAID": str(tmp_path / "said")}
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, JOBS) | ours)


def said(shop: CommandLine, *options: str) -> list[dict[str, Any]]:
    done = shop.run("worker", "--burst", "--processes", "1", "--no-scheduler", *options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in Path(shop.environment["SAID"]).read_text().splitlines()]


def enqueue(shop: CommandLine, name: str, *arguments: str) -> str:
    return shop.output("enqueue", "call", f"shop.{name}", *arguments).split()[-1]


def test_a_job_starts_with_what_it_is_and_nothing_that_the_last_one_bound(shop):
    ids = [enqueue(shop, "plain", f"number={each}") for each in range(2)]
    lines = [line for line in said(shop) if line["event"] == "plain"]
    assert lines == [
        {"event": "plain", "number": number, "own": number, "job_id": id, "job": "shop.plain"}
        | {"queue": "default", "attempt": 1}
        for number, id in enumerate(ids)
    ]


@pytest.mark.parametrize("name", ["beside", "later"])
def test_jobs_at_the_same_time_are_told_apart(shop, name):
    ids = [enqueue(shop, name, f"number={each}") for each in range(2)]
    lines = [line for line in said(shop, "--threads", "2") if line["event"] == name]
    assert {line["number"]: line["job_id"] for line in lines} == dict(enumerate(ids))
    assert {line["job"] for line in lines} == {f"shop.{name}"}


def test_an_isolated_job_and_each_attempt_are_named(shop):
    apart, again = enqueue(shop, "apart"), enqueue(shop, "again")
    lines = said(shop)
    assert [line["job_id"] for line in lines if line["event"] == "apart"] == [apart]
    runs = [(line["job_id"], line["attempt"]) for line in lines if line["event"] == "again"]
    assert runs == [(again, 1), (again, 2)]


def test_what_was_bound_outside_is_back_behind_a_run_that_fails():
    hooks.forget(connection.bind)
    structlog.contextvars.bind_contextvars(request="r1", job="outer")
    try:
        with pytest.raises(ZeroDivisionError), connection.bind(Performing("a", "shop.add", "low", 2, (), {})):
            structlog.contextvars.bind_contextvars(own=1)
            assert structlog.contextvars.get_contextvars() == {
                "job_id": "a", "job": "shop.add", "queue": "low", "attempt": 2, "own": 1,
            }  # fmt: skip
            raise ZeroDivisionError
        assert structlog.contextvars.get_contextvars() == {"request": "r1", "job": "outer"}
    finally:
        structlog.contextvars.clear_contextvars()
