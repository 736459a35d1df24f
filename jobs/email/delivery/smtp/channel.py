"""Transactions on one SMTP connection, pipelined where the server allows it."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from packmule.jobs import current
from packmule.jobs.email.delivery.smtp.connection import Connection
from packmule.jobs.email.delivery.smtp.envelope import END, Envelope, commands, impossible, stuffed
from packmule.jobs.email.delivery.smtp.reply import CLOSING, Reply
from packmule.jobs.email.delivery.smtp.wire import HungUp, Lost
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.message.addresses import domain_of
from packmule.jobs.email.outcome import Journal, Outcome, State

MAX_IDLE = 30.0
"""Seconds after which an unused connection is closed instead of used; servers drop idle ones too."""

MAX_AGE = 300.0
MAX_MAILS = 1000
MAX_ERRORS = 8
"""Refused commands since the last accepted mail after which a connection is left: servers slow those down."""

BODY_TIMEOUT = 600.0
"""Seconds in which a body must be on its way, and then those in which the server must confirm it (RFC 5321
4.5.3.2.6). Giving up earlier leaves a mail in doubt that the server takes."""

PATIENCE = 1.0
"""Seconds after which a wait for the journal may have been too long for the server."""

MARGIN = 5.0
"""Seconds that a job always has left when it begins to send a body."""

LONG = 64 * 1024
"""Bytes of a body whose end is sent alone: meanwhile another run may have sent the mail."""

_DATA = b"DATA\r\n"


class SmtpChannel:
    """Carries letters over one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.process = connection.process
        self.wire = connection.wire
        self.is_pipelined = "PIPELINING" in connection.extensions
        self.used_at = time.monotonic()
        self.mails = self.errors = 0
        self._carried = 0
        self._is_broken = self._needs_reset = False
        self._asked = ""
        """The recipient whose address the server answers next."""
        self._offered: tuple[Letter, list[bytes]] | None = None
        """The letter whose envelope went along with the last body, and that; it's not answered yet."""

    @property
    def is_fresh(self) -> bool:
        """Whether it has carried nothing yet."""
        return self._carried == 0

    @property
    def is_usable(self) -> bool:
        """Whether it is neither broken, old, idle for long nor a parent's."""
        now = time.monotonic()
        return (
            not self._is_broken
            and self.process == os.getpid()
            and self.mails < MAX_MAILS
            and self.errors < MAX_ERRORS
            and now - self.used_at < MAX_IDLE
            and now - self.connection.opened_at < MAX_AGE
        )

    def carry(self, letter: Letter, ahead: Letter | None, journal: Journal) -> tuple[str, ...]:
        """Send a letter, as `Channel.carry` says."""
        try:
            envelope = self._envelope(letter)
            if envelope.refused:
                self.errors += len(envelope.refused)
                journal.ended(letter, envelope.refused)
            if envelope.goes_on:
                self._send(letter, envelope.accepted, None if envelope.left else ahead, journal)
        except BaseException as error:
            self._break()
            if isinstance(error, HungUp):
                error.recipient = self._asked
            raise
        finally:
            self._carried += 1
            self.used_at = time.monotonic()
        return tuple(envelope.left)

    def close(self) -> None:
        """Say goodbye if the server listens, and close."""
        if self._is_broken or self._offered is not None:
            self.wire.close()
        else:
            self.connection.leave()
        self._is_broken = True

    def _break(self) -> None:
        self._is_broken = True
        self.wire.close()

    # The envelope

    def _envelope(self, letter: Letter) -> Envelope:
        """Send the envelope, unless it is on its way, and read the answers. Raises `Lost`."""
        if self._offered is not None:
            offered, sent = self._offered
            if offered is not letter:
                raise Lost("another letter was announced")
            self._offered = None
            return self._answered(letter, sent)
        if fault := impossible(letter, self.connection.extensions, str(self.connection.server)):
            return Envelope(refused=dict.fromkeys(letter.recipients, fault))
        sent = commands(letter, self.connection.extensions)
        if self.is_pipelined:
            self.wire.send(b"".join(self._group(sent)), self.connection.deadline())
            self._read_reset()
        elif self._needs_reset:
            self.connection.ask(b"RSET")
            self._needs_reset = False
        return self._answered(letter, sent)

    def _group(self, envelope: list[bytes]) -> list[bytes]:
        return [b"RSET\r\n" if self._needs_reset else b"", *envelope, _DATA]

    def _read_reset(self) -> None:
        if self._needs_reset:
            self._needs_reset = False
            self.connection.answer()

    def _next(self, command: bytes) -> Reply:
        """The answer to one command of the envelope, which is sent now unless all are on their way."""
        deadline = self.connection.deadline()
        if not self.is_pipelined:
            self.wire.send(command, deadline)
        reply = self.wire.reply(deadline)
        if (
            reply.is_done if command == _DATA else reply.is_go_on
        ):  # taken for an answer, it would end the mail
            verb = command[:4].decode()
            raise Lost(f"it answered {verb} with {self.connection.server.words(reply)}")
        return reply

    def _answered(self, letter: Letter, sent: list[bytes]) -> Envelope:
        connection, secrets = self.connection, self.connection.server.secrets
        tried, envelope = letter.recipients[: len(sent) - 1], Envelope()
        envelope.left.extend(letter.recipients[len(tried) :])
        mail = self._next(sent[0])
        if mail.code == CLOSING:
            raise Lost(connection.server.words(mail))
        if mail.is_done or self.is_pipelined:
            for number, recipient in enumerate(tried):
                self._asked = recipient
                reply = self._next(sent[1 + number])
                self._asked = ""
                if not mail.is_done:
                    continue
                if reply.is_done:
                    envelope.accepted.append(recipient)
                elif reply.code == CLOSING:
                    return self._closing(reply, letter, number, envelope)
                elif reply.is_full and envelope.accepted:
                    envelope.left.append(recipient)
                else:
                    envelope.refused[recipient] = reply.outcome(secrets, of_address=True)
        if not mail.is_done:
            outcome = mail.outcome(secrets)
            outcome = outcome._replace(reply=f"refused the sender {letter.sender}: {outcome.reply}"[:600])
            envelope.refused = dict.fromkeys(tried, outcome)
        if envelope.accepted or self.is_pipelined:
            self._begin_data(envelope)
        else:
            self._needs_reset = True
        return envelope

    def _begin_data(self, envelope: Envelope) -> None:
        data = self._next(_DATA)
        if data.code == CLOSING:
            raise Lost(self.connection.server.words(data))
        if data.is_go_on and self.wire.has_unread:
            raise Lost("it answered the mail before that was sent")
        if data.is_go_on and envelope.accepted:
            envelope.goes_on = True
            return
        if data.is_go_on:  # for nobody: an empty mail ends the transaction (RFC 2920 3.1)
            self.wire.send(END, self.connection.deadline())
            self.connection.answer()
        else:
            outcome = data.outcome(self.connection.server.secrets)
            envelope.refused |= dict.fromkeys(envelope.accepted, outcome)
            envelope.accepted = []
        self._needs_reset = True

    def _closing(self, reply: Reply, letter: Letter, number: int, envelope: Envelope) -> Envelope:
        """The server hangs up because of a recipient: those of its domain wait, the others need another."""
        self._break()
        at = domain_of(letter.recipients[number])
        outcome = Outcome(State.DEFERRED, self.connection.server.words(reply))
        open_ones = [each for each in letter.recipients if each not in envelope.refused]
        refused = envelope.refused | {each: outcome for each in open_ones if domain_of(each) == at}
        return Envelope(refused=refused, left=[each for each in open_ones if domain_of(each) != at])

    # The body

    def _send(self, letter: Letter, accepted: list[str], ahead: Letter | None, journal: Journal) -> None:
        """Send the body, with the envelope of the letter `ahead` behind it, and read the server's answer."""
        began = time.monotonic()
        whole = len(accepted) == len(letter.recipients)
        part = letter if whole else replace(letter, recipients=tuple(accepted))
        if not journal.begin(part):
            self._break()  # the server waits for a body, and only this ends that without one
            return
        try:
            if time.monotonic() - began > PATIENCE and (gone := self._gone()):
                journal.ended(letter, dict.fromkeys(accepted, gone))
                return
            outcome = self._confirmed(part, ahead, journal)
        except BaseException as error:
            lost = isinstance(error, Lost)
            why = str(error) if lost else "the job was broken off before the server confirmed the mail"
            unknown = Outcome(State.UNKNOWN, f"{self.connection.server}: {why}"[:600])
            journal.ended(letter, dict.fromkeys(accepted, unknown))
            self._break()
            if not lost:
                raise
            return
        self.mails += 1
        self.errors = 0 if outcome.state is State.ACCEPTED else self.errors + 1
        journal.ended(letter, dict.fromkeys(accepted, outcome))

    def _gone(self) -> Outcome | None:
        """Not taken, if the server hung up before the first byte, as when the journal was away for long."""
        try:
            self.wire.heed()
        except Lost as error:
            self._break()
            return Outcome(State.DEFERRED, f"{self.connection.server}: {error}, before the mail was sent")
        return None

    def _confirmed(self, letter: Letter, ahead: Letter | None, journal: Journal) -> Outcome:
        body = letter.content + END if letter.is_dotless else stuffed(letter.content)
        before_end = len(body) - len(END) if len(body) > LONG else 0
        current.prolong(MARGIN)
        try:
            if before_end:
                self.wire.send(body[:before_end], time.monotonic() + BODY_TIMEOUT, _prolong)
                if not journal.still(letter):
                    self._break()  # the server drops a body without its end
                    return Outcome(State.DEFERRED, f"{self.connection.server}: broken off before its end")
            data = [body[before_end:]]
            if ahead is not None and self._can_offer(ahead):
                envelope = commands(ahead, self.connection.extensions)
                data += self._group(envelope)
                self._offered = ahead, envelope
            self.wire.send(b"".join(data), time.monotonic() + BODY_TIMEOUT, _prolong)
        except Lost as error:
            return self._last_words(error)
        reply = self.wire.reply(time.monotonic() + BODY_TIMEOUT, _prolong)
        if reply.code == CLOSING:
            self._break()
        if reply.is_go_on:
            raise Lost(f"it answered the mail with {self.connection.server.words(reply)}")
        return reply.outcome(self.connection.server.secrets)

    def _can_offer(self, ahead: Letter) -> bool:
        if not self.is_pipelined or self.mails + 1 >= MAX_MAILS:
            return False
        return impossible(ahead, self.connection.extensions, "") is None

    def _last_words(self, error: Lost) -> Outcome:
        """What a server said that refused a body before its end and hung up. Raises `error` if nothing."""
        try:
            reply = self.wire.reply(time.monotonic())
        except Lost:
            raise error from None
        if reply.is_done or reply.is_go_on:
            raise error
        self._break()
        return reply.outcome(self.connection.server.secrets)


def _prolong(seconds: float) -> None:
    current.prolong(seconds + MARGIN)
