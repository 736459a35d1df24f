"""The mailer that a worker provides to its jobs: it takes letters to the first server that works."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from redis import Redis

from packmule.jobs import current
from packmule.jobs.email.delivery.channel import NOT_AGAIN, Channel
from packmule.jobs.email.delivery.pace import Pace, Paced, parse
from packmule.jobs.email.delivery.route import Busy, Route, Routes, TemporaryFailure
from packmule.jobs.email.delivery.smtp.server import MailRefused
from packmule.jobs.email.delivery.staging import Staged, checked
from packmule.jobs.email.delivery.ways import InvalidServer, way_of
from packmule.jobs.email.dkim.signing import signer_of
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.message.verp import checked_path
from packmule.jobs.email.outcome import Journal, Outcome, State
from packmule.jobs.email.templating.rendering import Renderer

MOST_ALONE = 3
"""Recipients, one after another, at whom a server may hang up before it counts as one that doesn't work."""


class Mailer:
    """Renders mails and sends them; provide one to the jobs of a process.

    `urls` are described at `delivery.ways`; the first that works gets the mails, and without one, sending
    raises `InvalidServer`. `sender` is the From of mails that name none, and `return_path` where bounces of
    mails go that don't say it (`verp.return_path`). `templates` is the user's folder of templates. Through
    `redis` all processes keep the `pace` of domains (`pace.parse`) and servers. With `to`, all mails go to
    that address alone. The keys that `dkim` names (`dkim.keys.read_key`) sign the mails of their domains.

    Connections are kept between mails, one for each thread that sends at the same time. A stale connection is
    replaced before the mail is transmitted, and a forked child opens its own. `close()` closes them.

    >>> from packmule.jobs import context
    >>> context.provide(Mailer("smtp://127.0.0.1:2525", "shop@example.org"))
    """

    def __init__(
        self,
        urls: Sequence[str] | str | None,
        sender: str,
        templates: str | None = None,
        *,
        redis: Redis | None = None,
        pace: str = "",
        to: str = "",
        return_path: str = "",
        dkim: Sequence[str] = (),
    ) -> None:
        self.sender = sender
        self.renderer = Renderer(templates)
        self.redis = redis
        urls = urls.split() if isinstance(urls, str) else urls or ()
        self._routes = Routes([way_of(url, len(urls) == 1) for url in urls], redis)
        self._pace = Pace(redis, parse(pace)) if redis is not None else None
        self._to = checked(to) if to else None
        self._signer = signer_of(dkim) if dkim else None
        self.return_path = checked_path(return_path) if return_path else None

    @property
    def is_connected(self) -> bool:
        """Whether a mail can be sent at once, over a channel that was kept."""
        return self._routes.is_open

    def deliver(self, letters: Iterable[Letter], journal: Journal) -> None:
        """Send each of `letters`, and let `journal` know what became of each of its recipients.

        The next letter is taken while the last is not sent yet, so that its envelope can go along. Raises
        `TemporaryFailure`, `InsecureServer`, `MailRefused` or `InvalidServer` if no server takes mails at
        all: the letters that `journal` saw no end of were not taken, and may be sent again.
        """
        if not self._routes.routes:
            raise InvalidServer(
                "no mail server is set: set PACKMULE_MAIL_URL to its URL (smtp://user:password@host)"
            )
        coming = iter(letters)
        if self._to is not None:
            journal = staged = Staged(self._to, coming, journal)
            coming = iter(staged)
        elif self._pace is not None:
            paced = Paced(journal, self._pace)
            journal, coming = paced, paced.may_go(coming)
        if self._signer is not None:
            coming = map(self._signer.signed, coming)
        run = _Run(self._routes, journal)
        try:
            letter = next(coming, None)
            while letter is not None:
                ahead = next(coming, None)
                run.send(letter, ahead)
                letter = ahead
        finally:
            run.end()

    def send(self, letter: Letter) -> dict[str, str]:
        """Send `letter` and keep no journal; returns the refused recipients, each with the server's reply.

        When this returns, the server has accepted the mail for all other recipients. Raises `MailRefused` or
        `TemporaryFailure` if it accepted it for none (or, if the text says so, possibly for some),
        `InsecureServer`, and `InvalidServer` if there is no URL.
        """
        kept = _Kept()
        current.progress(2, 3, "sending")
        self.deliver([letter], kept)
        refused = {to: each for to, each in kept.outcomes.items() if each.state is not State.ACCEPTED}
        if len(refused) < len(letter.recipients):
            return {to: outcome.reply for to, outcome in refused.items()}
        # One recipient refused temporarily makes a retry worthwhile.
        recipient, outcome = min(refused.items(), key=lambda item: item[1].state is State.REFUSED)
        others = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        if outcome.state is State.UNKNOWN:
            raise TemporaryFailure(f"{outcome.reply}; it may have accepted it ({letter.message_id})")
        kind = MailRefused if outcome.state is State.REFUSED else TemporaryFailure
        raise kind(f"the mail was refused for {recipient}{others}: {outcome.reply}")

    def close(self) -> None:
        """Close all kept connections."""
        self._routes.close()


class _Run:
    """One call of `deliver`: it holds one channel as long as that works."""

    def __init__(self, routes: Routes, journal: Journal) -> None:
        self.routes = routes
        self.journal = journal
        self._held: tuple[Route, Channel] | None = None
        self._suspect = ""
        """The recipient at whose address a server hung up last."""
        self._is_new = False
        """Whether nothing came of that yet. If it now hangs up at another one, neither is to blame."""
        self._alone = 0

    def send(self, letter: Letter, ahead: Letter | None) -> None:
        """Send one letter, in as many transactions and by as many servers as it takes."""
        while True:
            try:
                left = self._carried(letter, ahead)
            except Busy as error:
                waits = Outcome(State.DEFERRED, str(error), retry_at=error.retry_at)
                self.journal.ended(letter, dict.fromkeys(letter.recipients, waits))
                return
            if not left:
                return
            letter = replace(letter, recipients=left)

    def end(self) -> None:
        """Record what the journal has, and keep the channel."""
        try:
            self.journal.flush()
        finally:
            self._let_go()

    def _carried(self, letter: Letter, ahead: Letter | None) -> tuple[str, ...]:
        while True:
            route, channel = self._channel()
            if letter.request and not route.way.knows(letter):
                unknown = Outcome(State.UNKNOWN, f"{route.way}: {NOT_AGAIN}")
                self.journal.ended(letter, dict.fromkeys(letter.recipients, unknown))
                return ()
            is_fresh = channel.is_fresh
            route.admit()
            self.journal.prepare(letter)
            try:
                left = channel.carry(letter, None if route.is_limited else ahead, self.journal)
            except TemporaryFailure as error:
                may_blame = error.recipient and self._alone < MOST_ALONE
                if may_blame and error.recipient == self._suspect:
                    return self._without(letter, route, error)
                if may_blame and not self._is_new:
                    self._suspect, self._is_new = error.recipient, True
                elif is_fresh:
                    route.failed(TemporaryFailure(f"{route.way} hung up: {error}"))
            else:
                self._alone, self._is_new = 0, False
                route.worked()
                return left

    def _without(self, letter: Letter, route: Route, error: TemporaryFailure) -> tuple[str, ...]:
        """The recipients but for the one at whom a server hung up again: that one waits alone."""
        self._alone, self._is_new = self._alone + 1, False
        waits = Outcome(State.DEFERRED, f"{route.way} hung up twice at this address: {error}")
        self.journal.ended(letter, {error.recipient: waits})
        return tuple(to for to in letter.recipients if to != error.recipient)

    def _channel(self) -> tuple[Route, Channel]:
        if self._held is not None and self._held[0].is_usable(self._held[1]):
            return self._held
        self._let_go()
        self._held = self.routes.take(self.journal.flush)  # a mail is not marked while a connection opens
        return self._held

    def _let_go(self) -> None:
        if self._held is not None:
            route, channel = self._held
            self._held = None
            with suppress(OSError):
                route.keep(channel)


class _Kept:
    """A journal in memory."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}

    def prepare(self, letter: Letter) -> None:
        """Nothing is to be recorded."""

    def begin(self, letter: Letter) -> bool:
        """Whoever keeps no journal may always send."""
        return True

    def still(self, letter: Letter) -> bool:
        """The same."""
        return True

    def ended(self, letter: Letter, outcomes: Mapping[str, Outcome]) -> None:
        """Keep the outcomes."""
        self.outcomes.update(outcomes)

    def flush(self) -> None:
        """Nothing is to be recorded."""
