"""When a recipient is tried again, and until when: what follows from an outcome."""

from __future__ import annotations

import time
from collections.abc import Sequence

from packmule.jobs.email.ledger.entry import Entry
from packmule.jobs.email.outcome import Outcome, State
from packmule.units import DAY, span

GIVE_UP_AFTER = 4.0 * DAY
"""Seconds for which recipients that are refused for now are tried, unless the job says otherwise."""

DELAYS = (300.0, 900.0, 3600.0, 14_400.0)
"""Seconds until a recipient that was refused for now is tried again: after the first time, and so on."""

UNREACHED = (2.0, 10.0, 60.0, *DELAYS)
"""The same if no mail server could be reached, as while one is restarted."""


def judged(
    entry: Entry, outcome: Outcome, delays: Sequence[float], earliest: float, give_up_after: float
) -> tuple[Outcome, int, float]:
    """The outcome, how often the recipient was refused for now, and when it is tried again.

    Nothing is tried before `earliest`. An unknown mail is tried again only by the request that its server
    knows, and one that is given up stays unknown.
    """
    if outcome.state is not State.DEFERRED and not outcome.request:
        return outcome, entry.tries, 0.0
    now, tries = time.time(), entry.tries
    if outcome.retry_at is not None:
        due = max(outcome.retry_at, now + 1)
    else:
        due = max(now + delays[min(tries, len(delays) - 1)], earliest)
        tries += 1
    due = min(due, now + DAY)
    if due <= entry.began + give_up_after:
        return outcome, tries, due
    if outcome.state is State.UNKNOWN:
        return outcome._replace(request=""), tries, 0.0
    reply = f"given up after {span(give_up_after)}: {outcome.reply}"
    return Outcome(State.REFUSED, reply), tries, 0.0
