"""Job log: one line for each job that starts or ends, with its facts in fields."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from packmule.jobs import wire
from packmule.units import span
from packmule.worker.crash_report import CrashReport
from packmule.worker.process.call import Call
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.failure import name_of
from packmule.worker.process.outcome import FAILED, FINISHED, RETRIED, STOPPED, Outcome
from packmule.worker.rescue import Rescued

LONGEST_REASON = 500
"""Characters of an error that a line has."""

Finished = tuple[str, str, str, str, str, int]

log = logging.getLogger("packmule.jobs")


class JobRecord(logging.LogRecord):
    """A line about a job: `text` is the line without the job's id, and `fields` are the facts in it."""

    def __init__(
        self,
        level: int,
        job: Claimed | Outcome,
        function: str,
        verb: str,
        seconds: float | None = None,
        rest: str = "",
        error: str = "",
    ) -> None:
        super().__init__(log.name, level, "", 0, "", None, None)
        self.text = f"{in_columns(verb, seconds, function)}{'  ' if rest else ''}{rest}"
        self.fields = facts(job, function, seconds, error)
        self.summary = " ".join(self.text.split())
        self.msg = f"job {job.id} {self.summary}"
        if error and level >= logging.ERROR:
            self.msg += f"\n{error.rstrip()}"


class FinishedRecord(logging.LogRecord):
    """Lines about the jobs whose outcomes were acknowledged together: a record for each would cost too much.

    Each of `finished` is a job's end and begin, as texts of Unix times with six decimals, its id, function,
    queue and attempt.
    """

    def __init__(self, finished: Sequence[Finished]) -> None:
        super().__init__(log.name, logging.INFO, "", 0, "", None, None)
        self.finished = finished

    def lines(self, head: Callable[[str], str]) -> list[str]:
        """Of each job a line, which begins with the `head` that is made of the time of its end."""
        return [
            f"{head(ended)}{id} finished {_took(int((float(ended) - float(began)) * 1e6)):>8}  {function}"
            for ended, began, id, function, _, _ in self.finished
        ]

    def facts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Of each job the time of its end, and its facts."""
        for ended, began, id, function, queue, attempt in self.finished:
            seconds = round(float(ended) - float(began), 6)
            facts = {"job": id, "name": function, "queue": queue, "attempt": attempt, "duration": seconds}
            yield ended, facts

    def getMessage(self) -> str:  # noqa: N802  as logging calls it
        """The lines for a formatter that knows no jobs."""
        return "\n".join(f"job {' '.join(line.split())}" for line in self.lines(lambda _: ""))


@lru_cache(maxsize=4096)
def _took(microseconds: int) -> str:
    return span(microseconds / 1e6)


def in_columns(verb: str, seconds: float | None, function: str) -> str:
    """What stands in the same columns in each line about a job."""
    return f"{verb:8} {span(seconds) if seconds is not None else '':>8}  {function}"


def facts(
    job: Claimed | Outcome, function: str, seconds: float | None = None, error: str = ""
) -> dict[str, Any]:
    """The facts of a line about a job; what is unknown is left out."""
    found: dict[str, Any] = {"job": job.id, "name": function, "queue": job.queue}
    if isinstance(job, Claimed):
        found["attempt"] = job.attempt
    if seconds is not None:
        found["duration"] = round(seconds, 6)
    return found | {"error": error} if error else found


class JobLog:
    """Says what becomes of the jobs of this process.

    Whoever performs a job asks `shows` first, so a line that is not logged costs a look at its level. That a
    job finished is held back until `flush`, and said before any other line.
    """

    def __init__(self) -> None:
        self.shows = log.isEnabledFor
        """Whether lines of a level are logged."""
        self.finished: list[Finished] = []
        """What `flush` will say."""
        os.register_at_fork(after_in_child=self.finished.clear)
        for handler in logging.getLogger().handlers:
            handler.addFilter(self._keep_order)

    def starts(self, call: Call) -> None:
        """Log that a job starts now."""
        attempt = f"attempt {call.job.attempt}" if call.job.attempt > 1 else ""
        log.handle(JobRecord(logging.DEBUG, call.job, call.type.name, "starts", None, attempt))

    def ended(self, call: Call, ended: Outcome) -> None:
        """Log the end of a job that was performed; that it finished is logged by the next `flush`."""
        job = call.job
        if job.due:
            return
        if ended.kind == FINISHED:
            line = (ended.ended, ended.began, job.id, call.type.name, job.queue, job.attempt)
            self.finished.append(line)
        else:
            _tell(job, call.type.name, ended)

    def refused(self, job: Claimed | Outcome, ended: Outcome) -> None:
        """Log the end of a job that was not performed."""
        if ended.kind:
            _tell(job, name_of(job.data) if isinstance(job, Claimed) else "-", ended)

    def crashed(self, call: Call, report: CrashReport, rescued: Rescued) -> None:
        """Log that the process of an isolated job died."""
        rest = f"{'it failed' if rescued.failed else 'it runs again'}: {report.cause}"
        log.handle(JobRecord(logging.ERROR, call.job, call.type.name, "died", report.seconds, rest))

    def flush(self) -> None:
        """Say which jobs have finished."""
        if self.finished:
            finished = self.finished.copy()
            del self.finished[: len(finished)]
            log.handle(FinishedRecord(finished))

    def _keep_order(self, record: logging.LogRecord) -> bool:
        if not isinstance(record, FinishedRecord):
            self.flush()
        return True


def _tell(job: Claimed | Outcome, function: str, ended: Outcome) -> None:
    """Log the end of a job that did not finish."""
    seconds = float(ended.ended) - float(ended.began) if ended.began else None
    error = wire.traceback(ended.value) or "" if ended.name == "exc_string" else ""
    reason = wire.reason(error)[:LONGEST_REASON]
    attempt = job.attempt if isinstance(job, Claimed) else 1
    if ended.kind == FAILED:
        tries = f"after {attempt} attempts: " if attempt > 1 else ""
        log.handle(JobRecord(logging.ERROR, job, function, "failed", seconds, f"{tries}{reason}", error))
    elif ended.kind == RETRIED:
        when = f"in {span(ended.delay)}" if ended.delay else "now"
        rest = f"again {when}, attempt {attempt} failed: {reason}"
        log.handle(JobRecord(logging.WARNING, job, function, "retries", seconds, rest, error))
    elif ended.kind == STOPPED:
        log.handle(JobRecord(logging.WARNING, job, function, "stopped", seconds, reason))
    elif ended.status == "queued" and log.isEnabledFor(logging.INFO):
        log.handle(JobRecord(logging.INFO, job, function, "goes back"))
