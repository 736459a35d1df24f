"""How a run of a job ends: done, tried again later, or failed in words that say what to do."""

from __future__ import annotations

import time
from collections.abc import Mapping

from packmule.errors import JobFailed
from packmule.jobs import current
from packmule.jobs.context import running
from packmule.jobs.email.delivery.smtp.server import MailRefused
from packmule.jobs.email.ledger.entry import Entry
from packmule.jobs.email.ledger.names import long
from packmule.jobs.email.ledger.run import Run
from packmule.jobs.email.outcome import State
from packmule.jobs.interrupts import Retry
from packmule.units import DAY, span

HELD_AGAIN, HELD_MOST = 1.0, 30.0
"""Seconds until a job looks again that waits for another one's mail: at first, and at most."""

AGAIN = 2.0
"""Seconds until a run follows one that could not send everything."""

RESENT_AGAIN = 60.0
"""Seconds until a mail is sent again whose answer was lost, if it may be."""

MOST_NAMED = 5


class MailUnknown(JobFailed):
    """A mail server's answer was lost, so nobody knows whether it took the mail."""


def conclude(run: Run) -> None:
    """Return if nothing is left to do and some recipient got the mail, or none is to get it.

    Raises `Retry` if recipients wait, `MailUnknown` if nobody knows of some, and `MailRefused` if all were
    refused.
    """
    if all(entry.state is State.ACCEPTED for entry in run.entries.values()):
        return
    await_rest(run)
    refuse_unknown(run)
    states = {state: _in(run, state) for state in State}
    refused = states[State.REFUSED]
    if refused and not states[State.ACCEPTED]:
        raise MailRefused(f"refused: {_named(refused, len(run.entries))}")
    if refused:
        current.log(f"refused: {_named(refused, len(run.entries))}", "warning")
    if suppressed := states[State.SUPPRESSED]:
        current.log(f"suppressed: {_named(suppressed, len(run.entries))}", "warning")


def refuse_unknown(run: Run) -> None:
    """Raise `MailUnknown` if nobody knows of some recipients."""
    if unknown := _in(run, State.UNKNOWN):
        raise MailUnknown(
            f"the mail server's answer is lost for {_named(unknown, len(run.entries))}: find out whether the "
            f"mail arrived, then packmule email resolve {run.job.job} --sent, or --not-sent to send it again"
        )


def await_rest(run: Run) -> None:
    """Raise `Retry` for the first time at which there is something to do, if there ever is."""
    states = {state: _in(run, state) for state in State}
    waits: list[tuple[float, str]] = []
    count, now = len(run.entries), time.time()
    if held := run.held():
        first = next(iter(held.values()))
        attempt = min(job.attempt, 10) if (job := running()) else 1
        waits.append((min(HELD_AGAIN * 2**attempt, HELD_MOST), f"job {long(first.job)} sends this mail, too"))
    ours = {to: entry for to, entry in run.entries.items() if run.is_ours(entry)}
    not_due = {to: entry for to, entry in ours.items() if entry.due > now}
    if len(ours) > len(not_due):
        waits.append((AGAIN, "not everything could be sent"))
    if deferred := states[State.DEFERRED] | not_due:
        after = min(max(1.0, min(entry.due for entry in deferred.values()) - now), DAY)
        waits.append((after, f"waiting: {_named(deferred, count)}"))
    unknown = states[State.UNKNOWN]
    if asked := {to: entry for to, entry in unknown.items() if entry.request}:
        after = max(1.0, min(entry.due for entry in asked.values()) - now)
        waits.append((after, f"asked again by the same request: {_named(asked, count)}"))
    if run.resends and any(entry.began + run.give_up_after > now for entry in unknown.values()):
        waits.append((RESENT_AGAIN, f"the answer is lost for {_named(unknown, count)}"))
    if waits:
        after = min(seconds for seconds, _ in waits)
        reason = f"{'; '.join(reason for _, reason in waits)}; tried again in {span(after)}"
        current.log(reason, "warning")
        raise Retry(after, reason)


def _in(run: Run, state: State) -> dict[str, Entry]:
    return {to: entry for to, entry in run.entries.items() if entry.state is state}


def _named(entries: Mapping[str, Entry], of: int) -> str:
    """Some recipients with what is known of them: `1 of 3 recipients (ada@example.org: 450 busy)`."""
    shown = [f"{to}: {entry.reply}" for to, entry in list(entries.items())[:MOST_NAMED]]
    more = f"; {len(entries) - len(shown)} more" if len(entries) > len(shown) else ""
    return f"{len(entries)} of {of} recipients ({'; '.join(shown)}{more})"
