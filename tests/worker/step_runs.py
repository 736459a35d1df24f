"""Runs of jobs with steps in this process: claimed, performed and acknowledged by a worker's own code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from redis import Redis

from packmule import current
from packmule.jobs import keys, reader
from packmule.jobs.client import Client
from packmule.jobs.handle import JobHandle
from packmule.jobs.job import JobCall, JobFunction
from packmule.tests.worker import step_jobs
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Performer
from packmule.worker.process.progress import ProgressStore
from packmule.worker.rescue import rescue

calls: list[Any] = []
"""What steps have noted."""


class Runs:
    """A worker as a test moves it."""

    def __init__(self, client: Redis, name: str = "w1") -> None:
        self.client = client
        self.name = name
        self.is_draining = False
        self.claims = Claims(client, name, Strict(["default"]))
        store = ProgressStore(client, name)
        self.performer = Performer(
            store.report, store.save, lambda: self.is_draining, remember=store.remember
        )

    def claim(self) -> Claimed:
        """Claim the one job that waits."""
        (job,) = self.claims.finish_and_claim(self.claims.next_id(), [], 5).jobs
        return job

    def perform(self, job: Claimed) -> Outcome:
        """Perform a claimed job."""
        call = self.performer.prepare(job)
        return call if isinstance(call, Outcome) else self.performer.perform(call)

    def end(self, *outcomes: Outcome) -> None:
        """Acknowledge outcomes."""
        claim = self.claims.finish_and_claim(self.claims.next_id(), outcomes, 0)
        assert claim.is_empty

    def once(self) -> Outcome:
        """One run of the job that waits, from its claim to the acknowledgement."""
        ended = self.perform(self.claim())
        self.end(ended)
        return ended

    def die(self, job: Claimed) -> None:
        """The process dies amidst the job."""
        rescue(self.client, self.name, "died", "why", [job.execution])


def enqueue(
    client: Redis,
    body: Callable[[], Any],
    job: JobFunction[..., Any] | JobCall[...] = step_jobs.flow,
    *args: Any,
) -> JobHandle:
    """Enqueue a job that does what `body` does."""
    step_jobs.bodies[:] = [body]
    return Client(client).enqueue(job, *args)


def value(client: Redis, id: str) -> Any:
    """What the job returned. It has finished."""
    info = reader.read(client, id)
    assert info.status == "finished", info.error
    return info.result


def record(client: Redis, id: str) -> dict[str, str]:
    """The job's record, as text."""
    return {
        name.decode(): text.decode(errors="replace")
        for name, text in client.hgetall(keys.job_key(id)).items()
    }


def recorded(client: Redis, id: str) -> dict[str, Any]:
    """The job's steps: each field's state, and its value."""
    found = {}
    for field, text in client.hgetall(keys.steps_key(id)).items():
        state, *others = msgspec.json.decode(text)
        found[field.decode()] = (state, *others[3:])
    return found


def make_due(client: Redis, id: str) -> None:
    """Let the time for which a job waits be over."""
    field = record(client, id)["waits"].rpartition(" ")[0]
    state, place, beside, _ = msgspec.json.decode(client.hget(keys.steps_key(id), field))
    client.hset(keys.steps_key(id), field, f'["{state}",{place},{beside},1.000000]')
    client.hset(keys.job_key(id), "waits", f"{field} 1.000000")
    client.zadd("rq:scheduled:default", {id: 1.0}, xx=True)


def broken_off(client: Redis, runs: Runs, policy: Any) -> Any:
    """A job that died within its step, and whose next run has asked its policy."""
    calls.append("broken off")

    def body() -> Any:
        def charge() -> str:
            calls.append("charge")
            if calls.count("charge") == 1:
                runs.die(job)
                raise SystemExit
            return "ch_1"

        return current.step.options(if_unknown=policy)("charge", charge)

    handle = enqueue(client, body)
    job = runs.claim()
    runs.perform(job)
    runs.once()
    return handle
