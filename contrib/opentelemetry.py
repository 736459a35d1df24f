"""OpenTelemetry: a trace from each enqueue to its job, and their metrics. Name it in `PACKMULE_HOOKS`.

It uses the providers that your own code sets; `PACKMULE_TRACING` sets one of traces. Names are those of the
semantic conventions for messaging.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from packmule import hooks
from packmule.hooks import Enqueueing, Performing
from packmule.jobs.interrupts import Retry

SYSTEM = "packmule"
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""The histogram's bounds in the conventions."""

_meter = metrics.get_meter(SYSTEM)
_sent = _meter.create_counter(
    "messaging.client.sent.messages", "{message}", "Jobs that this process tried to enqueue."
)
_duration = _meter.create_histogram(
    "messaging.process.duration", "s", "How long jobs ran.", explicit_bucket_boundaries_advisory=BOUNDS
)
_propagator = TraceContextTextMapPropagator()

_apart = threading.Event()
"""Set in an isolated process: its copies of the worker's sums would be sent as if they were its own."""

Attributes = dict[str, AttributeValue]


@hooks.enqueue
@contextmanager
def send(jobs: Enqueueing) -> Iterator[None]:
    """A span around an enqueue, in whose trace the jobs are."""
    common = _attributes("send", jobs.name, jobs.queue)
    facts: Attributes = {"messaging.batch.message_count": jobs.count} if jobs.count > 1 else {}
    tracer = trace.get_tracer(SYSTEM)
    with tracer.start_as_current_span(
        f"send {jobs.queue}", kind=SpanKind.PRODUCER, attributes=common | facts
    ) as span:
        carrier = {"traceparent": jobs.trace} if jobs.trace else {}
        if not jobs.trace:
            _propagator.inject(carrier)
            jobs.trace = carrier.get("traceparent", "")
        try:
            yield
        except BaseException as error:
            common["error.type"] = _type(error)
            span.set_attribute("error.type", _type(error))
            raise
        finally:
            if len(jobs.ids) == 1:
                span.set_attribute("messaging.message.id", str(jobs.ids[0]))
            if not _apart.is_set():
                _sent.add(jobs.count, common)


@hooks.perform
@contextmanager
def process(job: Performing) -> Iterator[None]:
    """A span around a run, a child of its enqueue's; it records the error that ended it."""
    if job.is_isolated:
        _apart.set()
    common = _attributes("process", job.name, job.queue)
    facts: Attributes = {"messaging.message.id": job.id, "packmule.attempt": job.attempt}
    sender = _propagator.extract({"traceparent": job.trace}, Context())
    sent_at = trace.get_current_span(sender).get_span_context()
    began = time.perf_counter()
    with trace.get_tracer(SYSTEM).start_as_current_span(
        f"process {job.queue}",
        context=sender,
        kind=SpanKind.CONSUMER,
        attributes=common | facts,
        links=[Link(sent_at)] if sent_at.is_valid else (),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        finally:
            span.set_attribute("packmule.outcome", job.outcome)
            if (error := _failure(job)) is not None:
                common["error.type"] = _type(error)
                span.set_attribute("error.type", _type(error))
                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
            if not _apart.is_set():
                _duration.record(time.perf_counter() - began, common)


def _failure(job: Performing) -> BaseException | None:
    """The error that ended a run, unless it only means that the job goes on later."""
    failed = job.outcome in ("failed", "stopped")
    return job.error if failed or (job.outcome == "retried" and not isinstance(job.error, Retry)) else None


def _attributes(operation: str, name: str, queue: str) -> Attributes:
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
        "packmule.type": name,
    }


def _type(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _has_network() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(("127.0.0.1", 9)) == 0  # sends nothing, but needs a route


def _flush() -> None:
    """Send what is left; without a network nothing can be sent."""
    if _apart.is_set() and not _has_network():
        return
    providers: list[object] = [trace.get_tracer_provider()]
    if not _apart.is_set():
        providers.append(metrics.get_meter_provider())
    for provider in providers:
        if (flush := getattr(provider, "force_flush", None)) is not None:
            flush()


hooks.flushers.append(_flush)
