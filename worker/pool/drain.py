"""Drain: how a pool stops, what it waits for, and what it says of it."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Collection, Sequence

from packmule.units import span
from packmule.worker.kernel import ECHO_SECONDS, ends_with_parent
from packmule.worker.pool.child import Child
from packmule.worker.scoreboard import RunningJob

REMIND_SECONDS = 10.0
"""Seconds between two lines that say what is still waited for."""

MOST_NAMED = 10

log = logging.getLogger("packmule.worker")


class Drain:
    """Ends the processes of a pool: jobs have `grace` seconds to end; a second request ends them at once.

    If the pool is to end with its parent, a request within a second of another is that one's echo.
    """

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self.requests = 0
        self.is_clean = True
        """Whether no job was cut short."""
        self._echo = ECHO_SECONDS if ends_with_parent() else 0.0
        self._requested_at, self._deadline = float("-inf"), float("inf")
        self._began_at = self._said_at = 0.0

    def request(self) -> None:
        """Begin to drain, or end at once; a signal's handler may call it."""
        now = time.monotonic()
        if not self.requests:
            self._deadline = now + self.grace
        elif now - self._requested_at < self._echo:
            return
        self.requests, self._requested_at = self.requests + 1, now

    def stop(self, children: Collection[Child]) -> None:
        """Pass a signal to stop on; kill processes that go on after the grace or a second request."""
        workers = [each for each in children if each.scoreboard]
        self._say([job for each in workers for job in each.running()])
        for each in children:
            # Companions last: a job that finishes may still need them.
            if not each.stop_sent and (each.scoreboard or not workers):
                each.stop_sent = True
                each.send(signal.SIGTERM)
                each.send(signal.SIGCONT)
        if time.monotonic() < self._deadline and self.requests == 1:
            return
        for each in children:
            if not each.killed_as:
                if running := each.running():
                    log.warning("%s: cuts short %s", each.name, _named(running))
                each.kill("returned", "", [])
                self.is_clean = self.is_clean and each.scoreboard is None

    def end(self) -> None:
        """The last process has ended."""
        if self._began_at:
            log.info("the pool has stopped after %s", span(time.monotonic() - self._began_at))

    def _say(self, running: Sequence[RunningJob]) -> None:
        """Say what the pool waits for, at first and now and then."""
        now = time.monotonic()
        if self._began_at and (not running or now - self._said_at < REMIND_SECONDS):
            return
        self._began_at, self._said_at = self._began_at or now, now
        if not running:
            log.info("the pool stops: no job runs")
        elif self._deadline < float("inf"):
            left = span(max(0.0, self._deadline - now))
            text = "the pool stops, and waits up to %s for %s; a second signal ends it now"
            log.info(text, left, _named(running))


def _named(running: Sequence[RunningJob]) -> str:
    now = time.monotonic()
    names = [f"{each.id}, {span(now - each.started)} so far" for each in running[:MOST_NAMED]]
    if more := len(running) - len(names):
        names.append(f"and {more:,} more")
    return f"{len(running)} job{'s' if len(running) > 1 else ''}: {'; '.join(names)}"
