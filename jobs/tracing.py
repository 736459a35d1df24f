"""Tracing: one trace from the enqueue to the job, if the process has loaded OpenTelemetry."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from packmule.jobs.interrupts import Interrupted, Retry

SYSTEM = "packmule"
FLUSH_MS = 2000


def flush() -> None:
    """Send the remaining spans, if this process traces."""
    if (trace := sys.modules.get("opentelemetry.trace")) is not None:
        flushes = getattr(trace.get_tracer_provider(), "force_flush", None)
        if flushes is not None:
            flushes(FLUSH_MS)


def sending(job_type: str, queue: str) -> AbstractContextManager[str]:
    """A span around an enqueue; it yields the jobs' W3C `traceparent`, "" if the process does not trace."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or (_is_idle(trace) and not trace.get_current_span().get_span_context().is_valid):
        return nullcontext("")
    return _sent(trace, job_type, queue)


@contextmanager
def _sent(trace: Any, job_type: str, queue: str) -> Iterator[str]:
    start = trace.get_tracer(SYSTEM).start_as_current_span
    attributes = _attributes("send", job_type, queue)
    with start(f"send {queue}", kind=trace.SpanKind.PRODUCER, attributes=attributes) as span:
        at = span.get_span_context()
        yield f"00-{at.trace_id:032x}-{at.span_id:016x}-{at.trace_flags:02x}" if at.is_valid else ""


def performing(
    job_type: str, queue: str, id: str, attempt: int, parent: str
) -> AbstractContextManager[object]:
    """A span around a job's body, a child of the enqueue's; it records what the body raises."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or (not parent and _is_idle(trace)):
        return nullcontext()
    attributes = _attributes("process", job_type, queue)
    attributes |= {"messaging.message.id": id, "packmule.attempt": attempt}
    span = trace.get_tracer(SYSTEM).start_as_current_span(
        f"process {queue}",
        context=_context(trace, parent),
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    )
    return _recorded(trace, span)


def _is_idle(trace: Any) -> bool:
    """Whether nobody receives spans: redis-py loads OpenTelemetry wherever it is installed."""
    return isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def _recorded(trace: Any, started: AbstractContextManager[Any]) -> Iterator[None]:
    """Record an error that ends the body, unless it only means that the job runs again."""
    with started as span:
        try:
            yield
        except (Retry, Interrupted):
            raise
        except BaseException as error:
            span.record_exception(error)
            span.set_status(trace.Status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}"))
            raise


def _attributes(operation: str, job_type: str, queue: str) -> dict[str, str | int]:
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
        "packmule.type": job_type,
    }


def _context(trace: Any, parent: str) -> Any:
    """The context of a `traceparent`; None if it is not valid."""
    try:
        _, trace_id, span_id, flags = parent.split("-")
        at = trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16)))
    except ValueError:
        return None
    return trace.set_span_in_context(trace.NonRecordingSpan(at)) if at.is_valid else None
