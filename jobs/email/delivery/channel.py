"""What all ways of delivery share: a way opens channels, and a channel carries one letter after another."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from packmule.coordination.limits.rate import Rate
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.outcome import Journal

NOT_AGAIN = (
    "the answer was lost, and can't be asked for again: the provider has forgotten the request by now, or "
    "the mail, its recipients or PACKMULE_MAIL_URL have changed since"
)
"""Why a mail stays unknown that no provider knows again."""


class Channel(Protocol):
    """Carries letters, for one thread at a time."""

    process: int
    """The process that opened it."""

    @property
    def is_fresh(self) -> bool:
        """Whether it has carried nothing yet, so that a failure isn't merely that of an old connection."""

    @property
    def is_usable(self) -> bool:
        """Whether it can carry one more, in this process."""

    def carry(self, letter: Letter, ahead: Letter | None, journal: Journal) -> tuple[str, ...]:
        """Send a prepared letter, tell the journal, and return the recipients that need another transaction.

        `ahead` is the letter that follows; what can be sent of it early goes along. Raises `TemporaryFailure`
        if the channel failed before the body: the journal then knows only of recipients that are refused.
        """

    def close(self) -> None:
        """Leave it; never raises and never waits long."""


class Limits(NamedTuple):
    """How many connections and mails a server gets over all workers; no connections means any number."""

    connections: int = 0
    rate: Rate | None = None


class Way(Protocol):
    """One server or provider, as a URL names it; its text is its name, without secrets."""

    limits: Limits

    def knows(self, letter: Letter) -> bool:
        """Whether it knows the request by which the letter was sent before, and sends no second copy."""

    def open(self) -> Channel:
        """A fresh channel. Raises `TemporaryFailure`, `MailRefused`, `InsecureServer` or `InvalidServer`."""
