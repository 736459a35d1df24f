"""Periodic enqueuer: decide each tick of each schedule once, enqueue or skip it, and record that."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError, ResponseError

from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys, registry, schedule_ledger, schedule_store
from packmule.jobs.client import Client
from packmule.jobs.control import cancel
from packmule.jobs.cron import LAST_INSTANT
from packmule.jobs.options import Options
from packmule.jobs.reader import NoSuchJob
from packmule.jobs.schedule import Schedule, declared, read
from packmule.jobs.schedule_file import read_file
from packmule.jobs.schedule_jobs import faults_of
from packmule.jobs.toml_file import InvalidFile
from packmule.scheduler.leader import NotLeading, require_leading
from packmule.scheduler.maintenance.queue_scan import LONGEST_ROUND
from packmule.scheduler.schedules.tick_policy import Due, Step, entry_of, next_step, upcoming_after

SCHEDULES_A_ROUND = 100
TICKS_A_ROUND = 20
"""Ticks of one schedule in a round; later ones are left to the next round, so that no round is long."""

CHANGED_RETRY_INTERVAL = 0.05
"""Seconds until a schedule that was changed meanwhile is read again."""

FAILED_RETRY_INTERVAL = 1.0
"""Seconds until a step that Redis refused is tried again."""

FAULTY_RETRY_INTERVAL = 10.0
"""Seconds until a faulty schedule is tried again."""

_NOTHING = (b"\x90", b"")
"""An empty list of jobs, as `enqueue.lua` takes it."""

_due = Script("scheduler.schedules", "due_schedules")
_repair = Script("scheduler.schedules", "repair_schedules")
_decide = Script("scheduler.schedules", "decide")

log = logging.getLogger("packmule.scheduler")

DecideCall = tuple[list[str], list[Any]]
"""Keys and arguments of `decide.lua`."""

Work = Generator[DecideCall, Any, float | None]


class PeriodicEnqueuer:
    """Decides due ticks, in rounds of bounded length, and enqueues their jobs by `client`.

    `file` holds schedules that are stored when this scheduler starts, and `more` has those that the settings
    ask for. Tests move its clock `ahead`.
    """

    def __init__(self, client: Client, file: Path | None = None, more: Sequence[Schedule] = ()) -> None:
        self.client = client
        self.redis = client.redis
        self.file = file
        self.more = more
        self.ahead = 0.0
        self._cursor = "0"
        self._has_declared = False

    def sync(self) -> None:
        """Store the schedules of the loaded jobs and of the file; faults are logged."""
        found = [each for each in map(declared, registry.types()) if each is not None]
        faults = schedule_store.sync(self.redis, found, "code", may_go=_is_loaded)
        faults += schedule_store.sync(self.redis, self.more, "code", "settings")
        found += self.more
        if self.file is not None:
            try:
                listed = read_file(self.file)
                faults += schedule_store.sync(self.redis, listed, "file", str(self.file.resolve()))
                found += listed
            except InvalidFile as error:
                faults.append(f"{error}: the stored schedules are left unchanged")
        self._has_declared = bool(found)
        for fault in (*faults, *faults_of(found, self.client, time.time())):
            log.error("%s", fault)

    def repair(self, term: str) -> int:
        """Make some schedules due whose next tick was lost; return how many. Raises `NotLeading`.

        If the key of all schedules was lost, those of code and file are stored again.
        """
        reply = _repair(self.redis, [schedule_store.SCHEDULES, schedule_store.NEXT], [self._cursor, term])
        require_leading(reply)
        self._cursor = as_text(reply[0])
        if self._has_declared and not self.redis.exists(schedule_store.SCHEDULES):
            log.error("all schedules were lost: those of code and file are stored again")
            self.sync()
        return int(reply[1])

    def round(self, term: str) -> float | None:
        """Decide what is due, as the leader of `term`. Raises `NotLeading`.

        Returns the seconds until a schedule is due, or None if there is none.
        """
        found = _due(
            self.redis, [schedule_store.NEXT, schedule_store.SCHEDULES], [SCHEDULES_A_ROUND, self.ahead]
        )
        now = float(found[0])
        soonest = float(found[1]) if found[1] else None
        works: list[tuple[str, Work, Any]] = []
        for name, record, *rest in found[2:]:
            due = Due(as_text(name), record, *map(as_text, rest))
            if due.name.encode() != name:
                self._remove(name)
                continue
            works.append((due.name, self._decide_due(due, now, term), None))
        has_failed = has_begun = is_over = False
        ends_at = time.monotonic() + LONGEST_ROUND
        while works:  # each turn sends one step of every schedule, in one round trip
            steps = []
            for name, work, reply in works:
                try:
                    call = work.throw(reply) if isinstance(reply, Exception) else work.send(reply)
                    steps.append((name, work, call))
                except StopIteration as ended:
                    soonest = _sooner(soonest, ended.value)
                except ResponseError as error:
                    has_failed = True
                    log.error("schedule %s: %s", name, error)
                is_over = time.monotonic() > ends_at
                if is_over and not has_begun:
                    break  # leave the rest to the next round; later turns must read all replies
            if is_over and has_begun:
                break
            replies = _decide.each(self.redis, [call for _, _, call in steps])
            works = [(name, work, reply) for (name, work, _), reply in zip(steps, replies, strict=True)]
            has_begun = True
        if has_failed:
            return FAILED_RETRY_INTERVAL
        if is_over or len(found) - 2 == SCHEDULES_A_ROUND:
            return 0.0  # there may be more
        return None if soonest is None else soonest - now

    def _remove(self, name: bytes) -> None:
        """Remove a schedule that nobody can name."""
        self.redis.zrem(schedule_store.NEXT, name)
        self.redis.hdel(schedule_store.SCHEDULES, name)
        log.error("schedule %r was removed: its name is not text", name)

    def _decide_due(self, due: Due, now: float, term: str) -> Work:
        """Decide the due ticks of one schedule; return the time at which it is due next.

        It yields calls of `decide.lua` and is sent their replies, so that many schedules share a round trip.
        """
        last = schedule_store.instant(due.last)
        if last is None or last > LAST_INSTANT:
            last = int(now)
        try:
            schedule = read(due.record, due.name)
            registry.find(schedule.job)
            for _ in range(TICKS_A_ROUND):
                step = next_step(schedule, last, now, due)
                upcoming = upcoming_after(schedule, step, now)
                if not (yield from self._take(schedule, due, step, upcoming, now, term)):
                    return now + CHANGED_RETRY_INTERVAL
                last = step.last
                if upcoming is None or upcoming > now:
                    break
        except (NotLeading, RedisError):
            raise
        except Exception as error:  # a faulty schedule stops no other one
            log.warning("schedule %s is faulty: %s", due.name, error)
            upcoming = now + FAULTY_RETRY_INTERVAL
            yield from self._write(due, Step(last), upcoming, term, fault=str(error))
        return upcoming

    def _take(
        self, schedule: Schedule, due: Due, step: Step, upcoming: float | None, now: float, term: str
    ) -> Generator[DecideCall, Any, bool]:
        """Carry out one step; return whether the schedule was still as it had been read."""
        if step.held and schedule.overlap == "cancel":
            with contextlib.suppress(NoSuchJob, TimeoutError):
                cancel(self.redis, due.job, timeout=0)
        if step.did != "enqueued":
            entry = entry_of(step, now)
            return (yield from self._write(due, step, upcoming, term, entry=entry)) is not None
        id = schedule.job_id(step.tick)
        options = Options(job_id=id, queue=schedule.queue)
        written = self.client.written(registry.find(schedule.job), schedule.call(step.tick), options)
        entry = entry_of(step, now, id)
        try:
            replies = yield from self._write(due, step, upcoming, term, entry=entry, job=id, written=written)
        except ResponseError as error:
            schedule_ledger.correct(self.redis, due.name, entry, {"did": "failed", "why": str(error)})
            raise
        if replies is None:
            return False
        due.job, due.status = id, "queued"
        if replies and not isinstance(replies[1], int):
            due.status = ""
            why = f"job {as_text(replies[1])} holds its unique key"
            schedule_ledger.correct(self.redis, due.name, entry, {"did": "skipped", "why": why})
        elif replies:
            log.info("schedule %s: job %s already exists", due.name, id)
        return True

    def _write(
        self,
        due: Due,
        step: Step,
        upcoming: float | None,
        term: str,
        *,
        entry: bytes = b"",
        job: str = "",
        written: tuple[bytes, bytes] = _NOTHING,
        fault: str = "",
    ) -> Generator[DecideCall, Any, Sequence[Any] | None]:
        """Send a step; return the reply of `enqueue.lua`, or None if the schedule was changed meanwhile.

        Raises `NotLeading`.
        """
        key_names = [
            keys.UNIQUE,
            schedule_store.SCHEDULES,
            schedule_store.state_key(due.name),
            schedule_store.NEXT,
            schedule_ledger.ticks_key(due.name),
        ]
        sha = hashlib.sha1(due.record, usedforsecurity=False).hexdigest()
        score = "" if upcoming is None else f"{upcoming:.3f}"
        args = [*written, due.name, sha, due.last, step.last, score, entry, job, step.held or "", fault, term]
        reply = yield key_names, [*args, schedule_ledger.MOST_ENTRIES]
        require_leading(reply)
        if reply == b"changed":
            return None
        due.last = str(step.last)
        answer: Sequence[Any] = reply
        return answer


def _is_loaded(schedule: Schedule) -> bool:
    return schedule.job.rpartition(".")[0] in sys.modules


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((each for each in (one, other) if each is not None), default=None)
