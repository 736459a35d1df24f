"""A run: the mails of one send that an execution of a job has reserved, and the journal of their delivery."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import msgspec
from redis import Redis

from packmule.coordination.redis.backoff import REDIS_ERRORS, retry_until_available
from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.errors import Conflict
from packmule.jobs import keys, wire
from packmule.jobs.email.ledger import names
from packmule.jobs.email.ledger.channel import Channel
from packmule.jobs.email.ledger.entry import LETTERS, LONGEST_REPLY, Entry, known
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.outcome import Outcome, State
from packmule.jobs.email.suppression.addresses import suppressed_as
from packmule.jobs.email.suppression.store import KEY as SUPPRESSED
from packmule.units import DAY, span

OnUnknown = Literal["park", "resend"]

GIVE_UP_AFTER = 4.0 * DAY
"""Seconds for which recipients that are refused for now are tried, unless the job says otherwise."""

DELAYS = (300.0, 900.0, 3600.0, 14_400.0)
"""Seconds until a recipient that was refused for now is tried again: after the first time, and so on."""

UNREACHED = (2.0, 10.0, 60.0, *DELAYS)
"""The same if no mail server could be reached, as while one is restarted."""

_pack = msgspec.msgpack.Encoder().encode
_reserve = Script("jobs.email.ledger", "reserve")
_record = Script("jobs.email.ledger", "record")


class ClaimLost(Conflict):
    """Another worker has the job now: this run must send nothing."""


class Performed(NamedTuple):
    """The run of a job: its id, its execution, the key of its worker's claims, and its batch or ""."""

    job: str
    execution: str
    claims: str
    batch: str = ""


class Send(NamedTuple):
    """What is sent: its `name` (`names.py`), and the `key` that a user gave it.

    If it `is_of_job`, it is of a job's own life, and a later job with the same id sends anew. How many mails
    are in which state is counted if it `is_counted`.
    """

    name: str
    key: str = ""
    is_of_job: bool = False
    is_counted: bool = False


class Run:
    """Reserves mails and records what becomes of them, as the `Journal` of their delivery.

    Nothing is sent without its mark in Redis: `begin` waits for that as long as Redis is away. A mail costs
    one script, which travels while the mail server works. If the process dies, the mail that was being sent
    is unknown, and no other is.
    """

    def __init__(
        self,
        client: Redis,
        keep: float,
        performed: Performed,
        send: Send,
        on_unknown: OnUnknown = "park",
        give_up_after: float = GIVE_UP_AFTER,
    ) -> None:
        self.send = send
        self.resends = on_unknown == "resend"
        self.give_up_after = give_up_after
        self.job = performed
        self.entries: dict[str, Entry] = {}
        """What is known of each recipient's mail."""
        self.origin = ""
        """What tells this job's life from that of another job with its id."""
        self._client = client
        self._keep = int(keep)
        self._short = names.short(performed.job)
        self._channel = Channel(client, _record)
        self._queue: list[tuple[str, str, str, int, int, str]] = []
        self._sent: tuple[str, ...] = ()
        """The recipients of the letter whose beginning was sent and is not known."""
        self._begun: set[str] = set()

    def reserve(self, recipients: Sequence[str], reopen: bool = False) -> None:
        """Reserve a mail to each of `recipients`, and find out what is known of it.

        Mails that another job has are taken over if that ended. With `reopen` those that this job was refused
        are reserved again. Raises `ClaimLost`.
        """
        self._ask([(each, "") for each in recipients], reopen)
        held = {each: entry for each, entry in self.held().items() if each in set(recipients)}
        if over := self._ended_holders(held.values()):
            again = [(each, entry.execution) for each, entry in held.items() if entry.execution in over]
            self._ask(again, reopen)

    def is_ours(self, entry: Entry) -> bool:
        """Whether this run may send the mail."""
        is_open = entry.state in (State.RESERVED, State.SENDING)
        return is_open and entry.execution == self.job.execution and entry.job == self._short

    def ready(self) -> list[str]:
        """The recipients to send to now.

        Those of whom an earlier server said that they must wait, do wait until they are due. If none is due,
        somebody let the job run earlier, and all are tried.
        """
        ours = {to: entry for to, entry in self.entries.items() if self.is_ours(entry)}
        soon = time.time() + 1
        due = [to for to, entry in ours.items() if entry.due <= soon]
        return due or list(ours)

    def held(self) -> dict[str, Entry]:
        """The mails that another run has, by recipient."""
        return {
            to: entry
            for to, entry in self.entries.items()
            if entry.state in (State.RESERVED, State.SENDING) and not self.is_ours(entry)
        }

    def prepare(self, letter: Letter) -> None:
        """Begin to record that `letter` is sent, together with what has ended."""
        self._settle()
        self._sent = letter.recipients
        self._transmit()

    def begin(self, letter: Letter) -> bool:
        """Whether its body may be sent: Redis knows that it is."""
        if not self._channel.has_unread or not set(self._sent).issuperset(letter.recipients):
            self.prepare(letter)
        may_begin = self._settle()
        if may_begin:
            self._begun.update(letter.recipients)
        return may_begin

    def ended(self, letter: Letter, outcomes: Mapping[str, Outcome]) -> None:
        """Take outcomes of some of its recipients; they are recorded with the next letter, or by `flush`."""
        for to, outcome in outcomes.items():
            if (entry := self.entries.get(to)) is not None:
                self._end(to, entry, outcome)

    def refuse(self, recipient: str, why: str) -> None:
        """No mail can be made for a recipient; that is recorded like an outcome."""
        entry = self.entries[recipient]
        if self.is_ours(entry):
            self._end(recipient, entry, Outcome(State.REFUSED, why))

    def unreached(self, recipients: Iterable[str], why: str) -> None:
        """No server took the mail: those of these recipients whose outcome is open are tried again soon."""
        for to in recipients:
            entry = self.entries[to]
            if self.is_ours(entry) and to not in self._begun:
                self._end(to, entry, Outcome(State.DEFERRED, why), UNREACHED)

    def flush(self) -> None:
        """Record what has ended, and return once that is done."""
        self._settle()
        if self._queue:
            self._sent = ()
            self._transmit()
            self._settle()

    def close(self) -> None:
        """Leave the mails that were not sent to the next run, which finds out itself if Redis is away."""
        left = [to for to, each in self.entries.items() if self.is_ours(each) and to not in self._begun]
        self._queue += [(to, "", "", self.entries[to].tries, 0, "") for to in left]
        try:
            if self._queue:
                with suppress(*REDIS_ERRORS):
                    _record(self._client, *self._arguments(self._queue, ()))
        finally:
            self._channel.close()

    def _end(self, to: str, entry: Entry, outcome: Outcome, delays: Sequence[float] = DELAYS) -> None:
        outcome, tries, due = self._judged(entry, outcome, delays)
        reply = outcome.reply[:LONGEST_REPLY].encode(errors="replace").decode()
        fault = suppressed_as(to) if outcome.is_bad_address and outcome.state is State.REFUSED else ""
        self._queue.append((to, LETTERS[outcome.state], reply, tries, int(due), fault))
        self._begun.discard(to)
        self.entries[to] = entry._replace(
            state=outcome.state, reply=reply, changed=time.time(), tries=tries, due=due
        )

    def _judged(self, entry: Entry, outcome: Outcome, delays: Sequence[float]) -> tuple[Outcome, int, float]:
        """The outcome, how often the recipient was refused for now, and when it is tried again."""
        if outcome.state is not State.DEFERRED:
            return outcome, entry.tries, 0.0
        now, tries = time.time(), entry.tries
        if outcome.retry_at is not None:
            due = min(max(outcome.retry_at, now + 1), now + DAY)
        else:
            due = now + delays[min(tries, len(delays) - 1)]
            tries += 1
        if due <= entry.began + self.give_up_after:
            return outcome, tries, due
        reply = f"given up after {span(self.give_up_after)}: {outcome.reply}"
        return Outcome(State.REFUSED, reply), tries, 0.0

    def _ask(self, asked: Sequence[tuple[str, str]], reopen: bool) -> None:
        """Reserve mails, each given as a recipient and the execution that had it and is over, or ""."""
        send, job = self.send, self.job
        mails = [names.mail_id(send.name, to) for to, _ in asked]
        key_names = [
            job.claims,
            keys.job_key(job.job),
            SUPPRESSED,
            names.counts_key(send.name),
            *names.INDEXES,
            *map(names.mail_key, mails),
        ]
        request = (
            wire.time_text(time.time()), job.job, job.execution, self._keep, self._short, send.name, send.key,
            names.short(job.batch), int(send.is_counted), send.is_of_job, self.resends, reopen,
            [(to, suppressed_as(to), names.domain_of(to), over) for to, over in asked],
        )  # fmt: skip
        reply = retry_until_available(lambda: _reserve(self._client, key_names, [_pack(request)]))
        if reply is None:
            raise ClaimLost(f"job {job.job} runs in another worker now: nothing was sent here")
        self.origin = as_text(reply[1])
        for (to, _), mail, packed in zip(asked, mails, reply[2:], strict=True):
            self.entries[to] = known(mail, to, packed)

    def _ended_holders(self, held: Iterable[Entry]) -> set[str]:
        """The executions of other jobs that hold mails although they are over."""
        holders = list({(each.claims, names.long(each.job), each.execution) for each in held if each.claims})
        if not holders:
            return set()

        def look() -> list[Any]:
            with self._client.pipeline(transaction=False) as pipeline:
                for claims, job, _ in holders:
                    pipeline.hget(claims, job)
                return pipeline.execute()

        replies = retry_until_available(look)
        return {
            execution
            for (_, _, execution), reply in zip(holders, replies, strict=True)
            if reply is None or as_text(reply) != execution
        }

    def _transmit(self) -> None:
        self._channel.send(*self._arguments(self._queue, self._sent))
        self._queue = []

    def _settle(self) -> bool:
        """Read the reply to what was sent, if anything was."""
        return self._channel.has_unread and bool(self._channel.receive())

    def _arguments(self, ended: Sequence[Any], sent: Sequence[str]) -> tuple[list[str], list[bytes]]:
        send, job = self.send, self.job
        mails = [self.entries[to].id for to in (*(each[0] for each in ended), *sent)]
        key_names = [
            job.claims,
            SUPPRESSED,
            names.counts_key(send.name),
            *names.INDEXES,
            *map(names.mail_key, mails),
        ]
        request = (
            wire.time_text(time.time()), job.job, job.execution, self._keep, self._short,
            int(send.is_counted), self.origin, ended,
            [(suppressed_as(to), names.domain_of(to)) for to in sent],
        )  # fmt: skip
        return key_names, [_pack(request)]
