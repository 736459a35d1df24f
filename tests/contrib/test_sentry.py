"""Sentry's own library in real workers, which reports to a server that keeps what it gets."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import brotli
import pytest

from packmule.jobs import wire
from packmule.jobs.client import Client
from packmule.tests.command_line import CommandLine, environment_in, until
from packmule.tests.worker import hooked_jobs

JOBS = "\nfrom packmule.tests.worker.hooked_jobs import *\n"
ENQUEUE = "from shop import fails; fails.enqueue()"
PROJECT = """
import sentry_sdk
sentry_sdk.init(traces_sample_rate=1.0, send_default_pii=True)
"""


class Intake:
    """A server like Sentry's: it takes envelopes, and keeps their items by type."""

    def __init__(self) -> None:
        intake = self
        self.items: list[tuple[str, dict[str, Any]]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                unpack = {"gzip": gzip.decompress, "br": brotli.decompress}.get(
                    self.headers["Content-Encoding"]
                )
                body = unpack(body) if unpack else body
                lines = body.split(b"\n")[1:]
                for head, item in zip(lines[::2], lines[1::2], strict=False):
                    intake.items.append((json.loads(head)["type"], json.loads(item)))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def dsn(self) -> str:
        return f"http://key@127.0.0.1:{self.server.server_port}/1"

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [item for each, item in self.items if each == kind]


@pytest.fixture
def intake() -> Iterator[Intake]:
    made = Intake()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def shop(server, client, tmp_path: Path, intake: Intake) -> CommandLine:
    ours = {"PACKMULE_HOOKS": "packmule.contrib.sentry", "SENTRY_DSN": intake.dsn}
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, JOBS) | ours)


def perform(shop: CommandLine, **changes: str) -> None:
    done = shop.run("worker", "--burst", "--processes", "1", "-q", "default", **changes)
    assert done.returncode == 0, done.stderr


def test_an_error_is_reported_once_the_job_failed_for_good(shop, client, intake):
    jobs = Client(client)
    failed = jobs.enqueue(hooked_jobs.fails)
    jobs.enqueue(hooked_jobs.fails_once)  # and then it works
    jobs.enqueue(hooked_jobs.add, 1)
    perform(shop)
    (event,) = intake.of("event")
    (error,) = event["exception"]["values"]
    assert (error["type"], error["value"]) == ("ZeroDivisionError", "division by zero")
    assert error["mechanism"] == {"type": "packmule", "handled": False}
    assert event["transaction"] == "packmule.tests.worker.hooked_jobs.fails"
    assert event["contexts"]["packmule"]["id"] == failed
    assert event["tags"]["packmule.queue"] == "default"
    assert "args" not in event["contexts"]["packmule"]


def test_secrets_that_annotations_mark_are_in_nothing_that_is_reported(shop, client, intake, tmp_path):
    (tmp_path / "project_hooks.py").write_text(PROJECT)
    Client(client).enqueue(hooked_jobs.pays, "4242-4242\n-11", pin="907", note="for ada")
    perform(shop, PACKMULE_HOOKS="project_hooks,packmule.contrib.sentry")
    until(lambda: len(intake.of("event")) == 2, "the line that it logs, and its error")
    reported = json.dumps(intake.items)
    assert "4242-4242" not in reported
    (error,) = [each for each in intake.of("event") if "exception" in each]
    found = error["exception"]["values"][0]
    assert found["value"] == "unknown: {'card': '(hidden)', 'of': ['(hidden)', 'for ada']}"
    (frame,) = [each for each in found["stacktrace"]["frames"] if each["function"] == "pays"]
    known = {"card": "'(hidden)'", "of": ["'(hidden)'", "'for ada'"]}
    assert frame["vars"] == {"card": "(hidden)", "pin": "(hidden)", "note": "'for ada'", "known": known}
    assert "907" not in json.dumps([each.get("vars") for each in found["stacktrace"]["frames"]])


def test_a_job_that_runs_again_leaves_a_breadcrumb_for_what_fails_later(shop, client, intake):
    jobs = Client(client)
    jobs.enqueue(hooked_jobs.fails_once)
    jobs.enqueue(hooked_jobs.fails)
    perform(shop)
    (event,) = intake.of("event")
    (crumb,) = [each for each in event["breadcrumbs"]["values"] if each["category"] == "packmule.retry"]
    assert crumb["message"].endswith("fails_once runs again: attempt 1 failed")
    assert crumb["data"]["error"] == "ValueError"


def test_a_job_whose_process_is_killed_and_one_whose_call_is_impossible_are_reported(shop, client, intake):
    jobs = Client(client)
    killed = jobs.enqueue(hooked_jobs.endless_apart.options(timeout=1))
    impossible = jobs.enqueue(hooked_jobs.add, 1)
    client.hset(f"rq:job:{impossible}", "data", wire.encode_call(hooked_jobs.add.job.name, [], {}))
    perform(shop)
    until(lambda: len(intake.of("event")) == 2, "both")
    said = {event["contexts"]["packmule"]["id"]: event["message"] for event in intake.of("event")}
    assert "JobTimeoutException" in said[killed]
    assert "missing a required argument" in said[impossible]


def test_an_error_in_an_isolated_process_arrives(shop, client, intake):
    Client(client).enqueue(hooked_jobs.fails_apart)
    perform(shop)
    assert [event["exception"]["values"][0]["type"] for event in intake.of("event")] == ["LookupError"]


def test_an_error_in_a_process_without_network_is_reported_by_its_worker(shop, client, intake):
    failed = Client(client).enqueue(hooked_jobs.fails_sealed)
    perform(shop)
    until(lambda: intake.of("event"), "the report")
    (event,) = intake.of("event")
    assert "LookupError: not even there" in event["message"]
    assert event["contexts"]["packmule"]["id"] == failed
    assert "hooked_jobs.py" in event["contexts"]["packmule"]["error"]


def test_traces_go_from_the_enqueue_to_the_job_and_arguments_are_shown_if_asked_for(
    shop, client, intake, tmp_path
):
    (tmp_path / "project_hooks.py").write_text(PROJECT)
    hooks = "project_hooks,packmule.contrib.sentry"
    name = "packmule.tests.worker.hooked_jobs.fails"
    program = tmp_path / "view.py"
    program.write_text(f"{PROJECT}with sentry_sdk.start_transaction(name='view'):\n    {ENQUEUE}\n")
    done = subprocess.run(
        [sys.executable, str(program)],
        env=shop.environment | {"PACKMULE_HOOKS": "packmule.contrib.sentry"},
        cwd=tmp_path,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    perform(shop, PACKMULE_HOOKS=hooks)
    (run,) = [each for each in intake.of("transaction") if each["transaction"] == name]
    trace = run["contexts"]["trace"]
    assert (trace["op"], trace["status"]) == ("queue.process", "internal_error")
    assert trace["data"]["messaging.destination.name"] == "default"
    (event,) = intake.of("event")
    assert event["contexts"]["trace"]["trace_id"] == trace["trace_id"]
    assert event["contexts"]["packmule"]["args"] == []
    (view,) = [each for each in intake.of("transaction") if each["transaction"] == "view"]
    spans = [(span["op"], span["span_id"]) for span in view["spans"]]
    assert ("queue.publish", trace["parent_span_id"]) in spans
    assert view["contexts"]["trace"]["trace_id"] == trace["trace_id"]


def test_the_job_of_a_schedule_checks_in(shop, client, intake):
    id = "cron-nightly-20261201T070000Z"
    Client(client).enqueue(hooked_jobs.fails.options(job_id=id))
    perform(shop)
    until(lambda: intake.of("check_in"), "a check-in")
    (said,) = intake.of("check_in")
    assert (said["monitor_slug"], said["status"]) == ("nightly", "error")
    assert said["duration"] >= 0
