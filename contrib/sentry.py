"""Sentry: errors of jobs, their traces, and check-ins of schedules. Name it in `PACKMULE_HOOKS`.

If your own code has not called `sentry_sdk.init`, this does, with what the environment says (`SENTRY_DSN`).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sentry_sdk
from sentry_sdk.crons import MonitorStatus, capture_checkin
from sentry_sdk.integrations.logging import ignore_logger
from sentry_sdk.scope import should_send_default_pii
from sentry_sdk.tracing import TransactionSource
from sentry_sdk.utils import event_from_exception

from packmule import hooks
from packmule.hooks import Enqueueing, Performing
from packmule.jobs import registry
from packmule.jobs.masking import masked, masked_call
from packmule.worker.process.hush import Hush

if TYPE_CHECKING:
    from sentry_sdk._types import MonitorConfig

ORIGIN = "auto.queue.packmule"
JOBS = "packmule.jobs"
"""The logger of the lines about jobs."""

OURS = ("packmule.contrib.", "packmule.worker.")
"""Modules whose frames hold whole calls as texts, and tell nothing about a job's error."""

ENDED = ("finished", "failed", "stopped")
"""The outcomes after which a job doesn't run again by itself."""

_OF_SCHEDULE = re.compile(r"cron-(.+)-\d{8}T\d{6}Z")
"""The id of a job that a schedule enqueued."""

_TRACE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SENTRY_TRACE = re.compile(r"([0-9a-f]{32})-([0-9a-f]{16})-([01])")
"""A trace of which it is decided whether it is kept; no job can continue another."""


@hooks.perform
@contextmanager
def watch(job: Performing) -> Iterator[None]:
    """Run a job in a scope of its own; report the error of which it failed for good."""
    if job.is_isolated and _has_no_network(job.name):
        yield
        return
    began = time.monotonic()
    try:
        with sentry_sdk.isolation_scope() as scope, _transaction(job) as transaction:
            scope.set_transaction_name(job.name, TransactionSource.TASK)
            scope.set_tag("packmule.queue", job.queue)
            scope.set_tag("packmule.attempt", job.attempt)
            scope.set_context("packmule", _facts(job))
            if hide := _hiding(job):
                scope.add_event_processor(hide)
            try:
                yield
            finally:
                transaction.set_status("ok" if job.outcome == "finished" else "internal_error")
                if job.outcome == "failed" and job.error is not None:
                    _report(job.error)
                _check_in(job, time.monotonic() - began)
    finally:
        if job.outcome == "retried":
            sentry_sdk.add_breadcrumb(
                category="packmule.retry",
                level="warning",
                message=f"{job.name} runs again: attempt {job.attempt} failed",
                data={"id": job.id, "error": type(job.error).__name__},
            )


@hooks.enqueue
@contextmanager
def send(jobs: Enqueueing) -> Iterator[None]:
    """Let the jobs continue the trace of what enqueues them."""
    with sentry_sdk.start_span(op="queue.publish", name=jobs.name, origin=ORIGIN) as span:
        span.set_data("messaging.destination.name", jobs.queue)
        found = _SENTRY_TRACE.fullmatch(sentry_sdk.get_traceparent() or "")
        if found and not jobs.trace:
            jobs.trace = f"00-{found[1]}-{found[2]}-0{found[3]}"
        yield


def _transaction(job: Performing) -> Any:
    found = _TRACE.fullmatch(job.trace)
    headers = {"sentry-trace": f"{found[1]}-{found[2]}-{int(found[3], 16) & 1}"} if found else {}
    transaction = sentry_sdk.continue_trace(
        headers, op="queue.process", name=job.name, source=TransactionSource.TASK, origin=ORIGIN
    )
    transaction.set_data("messaging.message.id", job.id)
    transaction.set_data("messaging.destination.name", job.queue)
    transaction.set_data("messaging.message.retry.count", job.attempt - 1)
    return sentry_sdk.start_transaction(transaction)


def _facts(job: Performing) -> dict[str, Any]:
    facts: dict[str, Any] = {"id": job.id, "name": job.name, "attempt": job.attempt, "batch": job.batch}
    if should_send_default_pii():
        args, kwargs = masked_call(job.name, job.args, job.kwargs)
        facts |= {"args": args, "kwargs": kwargs}
    return facts


def _hiding(job: Performing) -> Callable[[Any, Any], Any] | None:
    """What hides the secrets of a call in all that is reported meanwhile, the variables of frames too."""
    called = registry.get(job.name)  # none if RQ alone knows it
    if called is None or not called.secrets:
        return None
    hush = Hush(called, job.args, job.kwargs)

    def hide(event: Any, _: Any) -> Any:
        for each in (event.get("exception") or {}).get("values", ()):
            for frame in (each.get("stacktrace") or {}).get("frames", ()):
                is_ours = str(frame.get("module")).startswith(OURS)
                # By name, too: a short secret is hidden nowhere else.
                frame["vars"] = {} if is_ours else masked(frame.get("vars") or {}, called.secrets)
        return hush.value(event)

    return hide


def _report(error: BaseException) -> None:
    event, hint = event_from_exception(
        error,
        client_options=sentry_sdk.get_client().options,
        mechanism={"type": "packmule", "handled": False},
    )
    sentry_sdk.capture_event(event, hint=hint)


def _check_in(job: Performing, seconds: float) -> None:
    """Say how the job of a schedule ended, once it doesn't run again."""
    found = _OF_SCHEDULE.fullmatch(job.id)
    if found and not job.callback and job.outcome in ENDED:
        capture_checkin(
            monitor_slug=found[1],
            status=MonitorStatus.OK if job.outcome == "finished" else MonitorStatus.ERROR,
            duration=seconds,
            monitor_config=_monitor(job.name),
        )


def _monitor(name: str) -> MonitorConfig | None:
    """How often a job runs whose decorator says so, from which Sentry makes the monitor by itself."""
    traits = registry.find(name).traits
    if traits.cron is None:
        return None
    return {"schedule": {"type": "crontab", "value": traits.cron}, "timezone": traits.tz or "UTC"}


def _has_no_network(name: str) -> bool:
    """Whether jobs of a type may have left the network when they end, so that their worker reports them."""
    called = registry.get(name)  # none if RQ alone knows it
    return called is not None and called.traits.isolate and called.traits.network is not True


class Unseen(logging.Handler):
    """Reports jobs that failed where no hook could: their process died or has no network, or no body ran."""

    def emit(self, record: logging.LogRecord) -> None:
        """Report a line about a failed job, unless it has a traceback that `watch` has reported."""
        facts = getattr(record, "fields", None)
        if not isinstance(facts, dict):
            return
        if str(facts.get("error", "")).startswith("Traceback") and not _has_no_network(str(facts["name"])):
            return
        with sentry_sdk.new_scope() as scope:
            scope.set_context("packmule", facts | {"id": facts["job"]})
            scope.set_tag("packmule.queue", facts["queue"])
            sentry_sdk.capture_message(getattr(record, "summary", record.getMessage()), "error")


hooks.flushers.append(sentry_sdk.flush)
ignore_logger(JOBS)
logging.getLogger(JOBS).addHandler(Unseen(logging.ERROR))
if not sentry_sdk.get_client().is_active():
    sentry_sdk.init()
