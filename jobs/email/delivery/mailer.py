"""The mailer that a worker provides to its jobs: it takes letters to the first server that works."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from redis import Redis

from packmule.jobs import current
from packmule.jobs.email.delivery.channel import Channel
from packmule.jobs.email.delivery.pace import Pace, Paced, parse
from packmule.jobs.email.delivery.route import Busy, Route, Routes, TemporaryFailure
from packmule.jobs.email.delivery.smtp.server import MailRefused
from packmule.jobs.email.delivery.staging import Staged, checked
from packmule.jobs.email.delivery.ways import InvalidServer, way_of
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.outcome import Journal, Outcome, State
from packmule.jobs.email.templating.rendering import Renderer


class Mailer:
    """Renders mails and sends them; provide one to the jobs of a process.

    `urls` are described at `delivery.ways`; the first that works gets the mails, and without one, sending
    raises `InvalidServer`. `sender` is the From of mails that name none, `templates` the user's folder of
    templates. Through `redis` all processes keep the `pace` of domains (`pace.parse`) and servers. With `to`,
    all mails go to that address alone.

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
    ) -> None:
        self.sender = sender
        self.renderer = Renderer(templates)
        self.redis = redis
        urls = urls.split() if isinstance(urls, str) else urls or ()
        self._routes = Routes([way_of(url) for url in urls], redis)
        self._pace = Pace(redis, parse(pace)) if redis is not None else None
        self._to = checked(to) if to else None

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

    def send(self, letter: Letter, ahead: Letter | None) -> None:
        """Send one letter, in as many transactions and by as many servers as it takes."""
        while True:
            self.journal.prepare(letter)
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
            is_fresh = channel.is_fresh
            route.admit()
            try:
                left = channel.carry(letter, None if route.is_limited else ahead, self.journal)
            except TemporaryFailure as error:
                if is_fresh:
                    route.failed(TemporaryFailure(f"{route.way} hung up: {error}"))
            else:
                route.worked()
                return left

    def _channel(self) -> tuple[Route, Channel]:
        if self._held is not None and self._held[0].is_usable(self._held[1]):
            return self._held
        self._let_go()
        self._held = self.routes.take()
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

    def ended(self, letter: Letter, outcomes: Mapping[str, Outcome]) -> None:
        """Keep the outcomes."""
        self.outcomes.update(outcomes)

    def flush(self) -> None:
        """Nothing is to be recorded."""
