"""The send-once ledger: what became of each mail to each recipient, and who may send it now."""

from __future__ import annotations

from redis import Redis

from packmule.jobs import context
from packmule.jobs.email.ledger.due import GIVE_UP_AFTER
from packmule.jobs.email.ledger.entry import Entry
from packmule.jobs.email.ledger.reserving import Performed, Send
from packmule.jobs.email.ledger.run import ClaimLost, OnUnknown, Run
from packmule.units import DAY

__all__ = ["GIVE_UP_AFTER", "KEEP", "ClaimLost", "Entry", "Ledger", "OnUnknown", "Performed", "Run", "Send"]

KEEP = 30.0 * DAY
"""Seconds for which the ledger keeps a mail, after somebody last asked for it."""


class Ledger:
    """The ledger on the server of `client`, which keeps mails for `keep` seconds; provide one to jobs.

    >>> from packmule.jobs import context
    >>> context.provide(Ledger(client))  # doctest: +SKIP
    """

    def __init__(self, client: Redis, keep: float = KEEP) -> None:
        self.client = client
        self.keep = keep

    def run(
        self, send: Send, on_unknown: OnUnknown = "park", give_up_after: float = GIVE_UP_AFTER
    ) -> Run | None:
        """A run of `send` by the job that this code runs in; None outside of a worker's jobs."""
        job = context.running()
        if job is None or not job.claims:
            return None
        performed = Performed(job.id, job.execution, job.claims, batch_of(job))
        return Run(self.client, self.keep, performed, send, on_unknown, give_up_after)


def client_of_ledger() -> Redis | None:
    """The server of the ledger that this job uses; None outside of a worker's jobs."""
    ledger = context.resources.get(Ledger)
    return ledger.client if isinstance(ledger, Ledger) else None


def batch_of(job: context.Running) -> str:
    """The batch that a job is in, or ""; a batch's callback is in none."""
    batch, _, word = job.batch.partition(" ")
    return "" if word else batch
