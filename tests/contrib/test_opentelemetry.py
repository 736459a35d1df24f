"""OpenTelemetry's own SDK in real workers, which sends to a collector that keeps what it gets."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from packmule.jobs.client import Client
from packmule.tests.command_line import CommandLine, environment_in, free_port
from packmule.tests.worker import hooked_jobs

JOBS = """
from packmule.tests.worker.hooked_jobs import *


@job
def asks() -> None:
    add.enqueue_many([(1,), (2,)])


@job(isolate=True)
def asks_apart() -> None:
    add.enqueue(3)


@job(isolate=True, network=False)
def sealed() -> str:
    return "done"
"""
METRICS = """
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
"""


class Collector:
    """A server that takes OTLP over HTTP."""

    def __init__(self) -> None:
        collector = self
        self.spans: list[Any] = []
        self.points: dict[tuple[str, ...], float] = {}
        """The latest of each metric, by its name, its queue's type of job, and its error."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            asked = ExportTraceServiceRequest.FromString(body)
            self.spans += [
                span for each in asked.resource_spans for scope in each.scope_spans for span in scope.spans
            ]
            return
        for each in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for metric in (metric for scope in each.scope_metrics for metric in scope.metrics):
                for point in [*metric.sum.data_points, *metric.histogram.data_points]:
                    facts = attributes(point)
                    name = facts["packmule.type"].rpartition(".")[2]
                    count = point.count if metric.HasField("histogram") else point.as_int
                    self.points[metric.name, name, facts.get("error.type", "")] = count

    def of(self, name: str) -> Any:
        (found,) = [
            each
            for each in self.spans
            if attributes(each)["packmule.type"].endswith(f".{name}") and each.name.startswith("process")
        ]
        return found


def attributes(of: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in of.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def shop(server, client, tmp_path: Path, collector: Collector) -> CommandLine:
    ours = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "PACKMULE_TRACING": "otlp"}
    (tmp_path / "metrics_setup.py").write_text(METRICS)
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, JOBS) | ours)


def perform(shop: CommandLine, **changes: str) -> None:
    done = shop.run("worker", "--burst", "--processes", "1", "--no-scheduler", "-q", "default", **changes)
    assert done.returncode == 0, done.stderr


def enqueue(shop: CommandLine, name: str) -> str:
    return shop.output("enqueue", "call", f"shop.{name}").split()[-1]


def test_spans_of_all_executors_arrive(shop, client, collector):
    jobs = Client(client)
    jobs.enqueue(hooked_jobs.add, 1)
    jobs.enqueue(hooked_jobs.later, 1)
    jobs.enqueue(hooked_jobs.apart)
    jobs.enqueue(hooked_jobs.fails_apart)
    jobs.enqueue(hooked_jobs.endless.options(timeout=1))
    perform(shop)
    for name in ("add", "later", "apart"):
        assert attributes(collector.of(name))["packmule.outcome"] == "finished"
    assert attributes(collector.of("fails_apart"))["error.type"] == "LookupError"
    assert attributes(collector.of("endless"))["error.type"] == "rq.timeouts.JobTimeoutException"


def test_jobs_that_a_job_enqueues_are_in_its_trace(shop, client, collector):
    enqueue(shop, "asks")
    enqueue(shop, "asks_apart")
    perform(shop)
    (sent,) = [each for each in collector.spans if attributes(each).get("messaging.batch.message_count") == 2]
    assert sent.parent_span_id == collector.of("asks").span_id
    traces = [collector.of(name).trace_id for name in ("asks", "asks", "asks_apart")]
    runs = [each for each in collector.spans if each.name.startswith("process")]
    added = [each.trace_id for each in runs if attributes(each)["packmule.type"].endswith(".add")]
    assert sorted(added) == sorted(traces)


def test_a_collector_that_is_away_keeps_no_isolated_job_from_its_end(shop, client):
    handle = Client(client).enqueue(hooked_jobs.apart.options(timeout=9))  # the SDK would try for 10 s
    sealed = enqueue(shop, "sealed")
    perform(shop, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert handle.status == "finished"
    assert Client(client).job(sealed).result(0) == "done"


def test_metrics_count_what_a_process_sends_and_performs_and_no_copy_of_it(shop, client, collector):
    jobs = Client(client)
    jobs.enqueue(hooked_jobs.add, 1)
    jobs.enqueue(hooked_jobs.fails)
    jobs.enqueue(hooked_jobs.fails_once)
    enqueue(shop, "asks")
    enqueue(shop, "asks_apart")
    perform(shop, PACKMULE_HOOKS="metrics_setup,packmule.contrib.opentelemetry", PACKMULE_TRACING="none")
    took, sent = "messaging.process.duration", "messaging.client.sent.messages"
    assert collector.points == {
        (took, "add", ""): 4,
        (took, "fails", "ZeroDivisionError"): 1,
        (took, "fails_once", "ValueError"): 1,
        (took, "fails_once", ""): 1,
        (took, "asks", ""): 1,
        (sent, "add", ""): 2,
    }
    assert not [each for each in collector.spans if each.name.startswith("process")]


def test_a_forked_process_has_one_thread_so_that_it_may_leave_the_network():
    code = """
import os, threading
from packmule.observe.tracing import export_traces

export_traces("otlp")
from opentelemetry import trace
trace.get_tracer("a").start_span("b").end()
assert threading.active_count() == 2
pid = os.fork()
if pid == 0:
    os._exit(threading.active_count())
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
