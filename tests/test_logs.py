"""Logs of JSON: one object a line, with the job whose code logged it."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import context
from packmule.terminal.logs import AsJson
from packmule.tests.command_line import CommandLine, environment_in

JOBS = """
import logging

@job
def plain():
    logging.getLogger("shop").info("a plain one")

@job
async def waiting():
    logging.getLogger("shop").info("an async one")

@job(isolate=True)
def isolated():
    logging.getLogger("shop").warning("an isolated one")
"""


def test_a_worker_logs_objects_that_name_the_job(
    server: EmbeddedServer, client: Redis, tmp_path: Path
) -> None:
    environment = environment_in(tmp_path, server.url, JOBS, PACKMULE_LOG_FORMAT="json")
    packmule = CommandLine(tmp_path, environment)
    kinds = {"plain": "a plain one", "waiting": "an async one", "isolated": "an isolated one"}
    ids = {packmule.output("enqueue", "call", f"shop.{kind}"): said for kind, said in kinds.items()}
    done = packmule.run("worker", "--burst", "--processes", "1", "--no-scheduler")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["job"]: line["message"] for line in lines if "job" in line} == ids
    assert {"time", "level", "logger", "pid", "message"} <= lines[0].keys()


RUDE = """

@job
def rude() -> None:
    raise ValueError("red: \x1b[31m" + "x" * 1000)
"""


def test_a_worker_logs_why_a_job_failed(server: EmbeddedServer, client: Redis, tmp_path: Path) -> None:
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url, RUDE))
    id = packmule.output("enqueue", "call", "shop.boom")
    rude = packmule.output("enqueue", "call", "shop.rude")
    done = packmule.run("worker", "--burst", "--processes", "1", "--no-scheduler")
    assert f"WARNING job {id} failed: ValueError: the shelf is empty\n" in done.stderr
    assert f"WARNING job {rude} failed: ValueError: red:  [31mxxx" in done.stderr
    assert "\x1b" not in done.stderr
    assert "x" * 500 not in done.stderr


def test_a_traceback_and_odd_text_stay_in_one_line() -> None:
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "odd \udcff\n%s", ("text",), None)
    try:
        int("broken")
    except ValueError:
        record.exc_info = sys.exc_info()
    with context.performing("j1", 1, lambda *_: None):
        line = AsJson().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert found["message"] == "odd \\udcff\ntext"
    assert found["error"].endswith("'broken'")
    assert (found["job"], found["pid"]) == ("j1", os.getpid())
