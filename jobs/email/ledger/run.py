"""A run: the mails of one send that an execution of a job has reserved, and the journal of their delivery."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import msgspec
from redis import Redis

from packmule.coordination.clock import clock
from packmule.coordination.redis.backoff import REDIS_ERRORS
from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.errors import Conflict
from packmule.jobs import keys, wire
from packmule.jobs.email.ledger import names
from packmule.jobs.email.ledger.channel import Channel
from packmule.jobs.email.ledger.due import DELAYS, GIVE_UP_AFTER, UNREACHED, judged
from packmule.jobs.email.ledger.entry import LETTERS, LONGEST_REPLY, Entry
from packmule.jobs.email.ledger.reserving import Performed, Send, ended_holders, reserve
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.message.addresses import domain_of
from packmule.jobs.email.outcome import Outcome, State
from packmule.jobs.email.suppression.addresses import suppressed_as
from packmule.jobs.email.suppression.store import KEY as SUPPRESSED

OnUnknown = Literal["park", "resend"]
Ended = tuple[str, str, str, int, int, str, str]
"""What `record.lua` gets of a mail that has ended."""

FRESH = keys.LEASE_SECONDS / 4
"""Seconds for which a mark allows to send. Nobody takes a job over before its worker's lease has ended, which
the pool renews each second. So a process that was frozen for longer asks again whether it has the job."""

MOST_AT_ONCE = 8
"""Letters marked at once at most: so many may be unknown if a process dies while servers are quick."""

QUICKLY = 0.004
"""Seconds that letters which are marked at once should take together, as those before them did."""

_pack = msgspec.msgpack.Encoder().encode
_record = Script("jobs.email.ledger", "record")


class ClaimLost(Conflict):
    """Another worker has the job now: this run must send nothing."""


class Run:
    """Reserves mails and records what becomes of them, as the `Journal` of their delivery.

    Nothing is sent without its mark in Redis: `begin` waits for that as long as Redis is away. A mail costs
    one script, which travels while the mail server works. If the process dies, the mail that was being sent
    is unknown, and no other is; unless mails were lined up, and went so quickly that several were marked.
    A mail that is unknown and to be sent again stays so until it's marked, and also if no server takes it.
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
        self._channel = Channel(client)
        self._queue: list[Ended] = []
        self._sent: tuple[str, ...] = ()
        """The recipients whose marks were sent last."""
        self._marked: dict[str, float] = {}
        """The recipients that are marked and whose letter has not begun, and when the mark was sent."""
        self._begun: dict[str, float] = {}
        """The recipients whose letter has begun, and when their mark was sent."""
        self._doubted: set[str] = set()
        """The recipients to whom an unknown mail is sent again, or asked for by the same request."""
        self._line: list[str] = []
        self._places: dict[str, int] = {}
        """Where in the line each recipient is."""

    def reserve(self, recipients: Sequence[str], reopen: bool = False, likely: str | None = None) -> None:
        """Reserve a mail to each of `recipients`, and find out what is known of it.

        Mails that another job has are taken over if that ended. With `reopen` those that this job was refused
        are reserved again. If all are new and `likely` is the origin, they are marked as well: their letter
        is to begin next. Raises `ClaimLost`.
        """
        self._ask([(each, "") for each in recipients], reopen, likely)
        held = {each: entry for each, entry in self.held().items() if each in set(recipients)}
        if over := ended_holders(self._client, held.values()):
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

    def as_before(self, letter: Letter) -> Letter:
        """The letter with the request by which its server knows it, if its answer was lost."""
        request = self.entries[letter.recipients[0]].request
        return replace(letter, request=request) if request else letter

    def line_up(self, recipients: Iterable[str]) -> None:
        """A letter to each of these follows, in this order: several may be marked at once."""
        self._line = list(recipients)
        self._places = {to: place for place, to in enumerate(self._line)}

    def prepare(self, letter: Letter) -> None:
        """Begin to record that `letter` is sent, together with what has ended, unless it is marked."""
        self._settle()
        if not self._are_marked(letter.recipients):
            self._mark(letter.recipients, self._following(letter.recipients[-1]))

    def begin(self, letter: Letter) -> bool:
        """Whether its body may be sent: Redis knows that it is, and not since long ago."""
        self._settle()
        while not self._are_marked(letter.recipients):
            self._mark(letter.recipients, self._following(letter.recipients[-1]))
            self._settle()
            if not self._marked.keys() >= set(letter.recipients):
                return False
        self._begun |= {to: self._marked.pop(to) for to in letter.recipients}
        if not self._marked and len(self._sent) > 1:  # they go quickly: the next marks travel meanwhile
            self._mark((), self._following(letter.recipients[-1]))
        return True

    def still(self, letter: Letter) -> bool:
        """Whether the rest may be sent: as `begin`, unless its mark is still fresh."""
        oldest = clock() - FRESH
        return all(self._begun[to] > oldest for to in letter.recipients) or self.begin(letter)

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

    def unreached(self, recipients: Iterable[str], why: str, not_before: float | None = None) -> None:
        """No server took the mail: those of these recipients whose outcome is open are tried again soon.

        `not_before` is the Unix time before which that is in vain, if it's known.
        """
        for to in recipients:
            entry = self.entries[to]
            if self.is_ours(entry) and to not in self._begun:
                self._end(to, entry, Outcome(State.DEFERRED, why), UNREACHED, not_before or 0.0)

    def flush(self) -> None:
        """Record what has ended, and that what is marked was not sent; return once that is done."""
        self._settle()
        self._queue += [self._not_sent(to, LETTERS[State.RESERVED]) for to in self._marked]
        self._marked.clear()
        if self._queue:
            self._sent = ()
            self._transmit()
            self._settle()

    def close(self) -> None:
        """Leave the mails that were not sent to the next run, which finds out itself if Redis is away."""
        left = [to for to, each in self.entries.items() if self.is_ours(each) and to not in self._begun]
        self._queue += [self._not_sent(to, "") for to in left]
        try:
            if self._queue:
                with suppress(*REDIS_ERRORS):
                    _record(self._client, *self._arguments(self._queue, ()))
        finally:
            self._channel.close()

    def _end(
        self, to: str, entry: Entry, outcome: Outcome, delays: Sequence[float] = DELAYS, earliest: float = 0.0
    ) -> None:
        if self.resends:
            outcome = outcome._replace(request="")
        if to in self._doubted and outcome.state is State.DEFERRED:  # an earlier body may have arrived
            outcome = outcome._replace(state=State.UNKNOWN, request=entry.request)
        outcome, tries, due = judged(entry, outcome, delays, earliest, self.give_up_after)
        reply = outcome.reply[:LONGEST_REPLY].encode(errors="replace").decode()
        fault = suppressed_as(to) if outcome.is_bad_address and outcome.state is State.REFUSED else ""
        self._queue.append((to, LETTERS[outcome.state], reply, tries, int(due), fault, outcome.request))
        self._begun.pop(to, None)
        self._marked.pop(to, None)
        self.entries[to] = entry._replace(
            state=outcome.state,
            reply=reply,
            changed=time.time(),
            tries=tries,
            due=due,
            request=outcome.request,
        )

    def _not_sent(self, to: str, letter: str) -> Ended:
        """What is recorded of a mail that was not sent now; one in doubt stays unknown."""
        entry = self.entries[to]
        state = LETTERS[State.UNKNOWN] if to in self._doubted else letter
        return to, state, entry.reply, entry.tries, int(entry.due), "", entry.request

    def _ask(self, asked: Sequence[tuple[str, str]], reopen: bool, likely: str | None = None) -> None:
        """Reserve mails, each given as a recipient and the execution that had it and is over, or ""."""
        flags = (self.resends, reopen, likely)
        reserved = reserve(self._channel, self._keep, self.job, self.send, asked, flags)
        if reserved is None:
            raise ClaimLost(f"job {self.job.job} runs in another worker now: nothing was sent here")
        self.origin = reserved.origin
        for entry in reserved.entries:
            self.entries[entry.recipient] = entry
            may_send = self.resends or entry.request
            if entry.state is State.UNKNOWN and may_send and entry.execution == self.job.execution:
                self._doubted.add(entry.recipient)
                self.entries[entry.recipient] = entry._replace(state=State.RESERVED)
        if reserved.are_marked:
            self._marked = dict.fromkeys(self.entries, reserved.asked_at)

    def _are_marked(self, recipients: Sequence[str]) -> bool:
        """Whether it's known that this run sends to these, and nobody can have taken the job over since."""
        oldest = clock() - FRESH
        return all(self._marked.get(to, oldest) > oldest for to in recipients)

    def _following(self, recipient: str) -> list[str]:
        """Those to mark with a letter to `recipient`: as many as will go quickly, as the last ones did."""
        place = self._places.get(recipient, len(self._line)) + 1
        count, taken = len(self._sent), clock() - self._channel.sent_at
        most = min(int(QUICKLY * count / taken), 2 * count, MOST_AT_ONCE) if taken else 1
        return self._line[place : place + max(most - 1, 0)]

    def _mark(self, recipients: tuple[str, ...], following: Sequence[str]) -> None:
        if recipients or following:
            self._sent = (*recipients, *following)
            for to in self._sent:
                self._marked.pop(to, None)
            self._transmit()

    def _transmit(self) -> None:
        self._channel.send(_record, *self._arguments(self._queue, self._sent))
        self._queue = []

    def _settle(self) -> None:
        """Read the reply to what was sent, if anything was."""
        if self._channel.has_unread:
            marked = zip(self._sent, as_text(self._channel.receive()), strict=True)
            ours = (to for to, sign in marked if sign == "1" and self.is_ours(self.entries[to]))
            self._marked.update(dict.fromkeys(ours, self._channel.sent_at))

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
            [(suppressed_as(to), domain_of(to)) for to in sent], bool(self._line),
        )  # fmt: skip
        return key_names, [_pack(request)]
