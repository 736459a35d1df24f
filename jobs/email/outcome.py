"""What became of a letter, recipient by recipient, and the journal that keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from packmule.jobs.email.letter import Letter


class State(StrEnum):
    """How far a letter has come on its way to one recipient."""

    RESERVED = "reserved"
    """It is to be sent; nothing was sent yet."""

    SENDING = "sending"
    """Its body may be on its way."""

    ACCEPTED = "accepted"
    """A server has confirmed it."""

    REFUSED = "refused"
    """A server refused it for good (5xx)."""

    DEFERRED = "deferred"
    """A server refused it for now (4xx), or the pace of its domain lets it wait."""

    SUPPRESSED = "suppressed"
    """The recipient is on the suppression list."""

    UNKNOWN = "unknown"
    """Its body was sent, or a part of it, and the server's answer was lost."""


class Outcome(NamedTuple):
    """What a server said of a recipient, or why nothing was sent.

    `reply` is one printable, bounded line without secrets. `is_bad_address` says that the address itself does
    not exist (5.1.x), so nobody need send to it again. `retry_at` is the Unix time before which another
    attempt is in vain, if that is known. If the answer was lost and its provider knows the `request` again
    (`HttpWay.request`), the same one may ask for it.

    >>> Outcome(State.ACCEPTED, "250 queued as 4711").state
    <State.ACCEPTED: 'accepted'>
    """

    state: State
    reply: str
    is_bad_address: bool = False
    retry_at: float | None = None
    request: str = ""


class Journal(Protocol):
    """What keeps the outcomes of one run; `Mailer.deliver` calls it.

    It calls `prepare`, `begin` and `ended` in this order for each letter whose body is sent, and `ended`
    alone for recipients that are refused or must wait before that. Of a letter, `ended` may be called several
    times, each time for other recipients. It calls `flush` before it opens a connection, and `prepare` then.
    """

    def prepare(self, letter: Letter) -> None:
        """The body of `letter` follows soon: begin to record that, together with what `ended` left.

        It must not wait for an answer: that arrives while the mail server answers.
        """

    def begin(self, letter: Letter) -> bool:
        """Whether the body may be sent: only once it is recorded that this run sends it.

        Called right before its first byte, with those recipients alone that get it now. False means that
        another run has the letter.
        """

    def still(self, letter: Letter) -> bool:
        """Whether the rest of what `begin` allowed may be sent.

        Called before the last byte of a long body, and before a request is repeated: this process may have
        been frozen meanwhile, and another may have sent the mail. False lets the server drop what it has.
        """

    def ended(self, letter: Letter, outcomes: Mapping[str, Outcome]) -> None:
        """Take the outcomes of some recipients of `letter`; they are recorded with the next letter."""

    def flush(self) -> None:
        """Record what `ended` took, and return once that is done.

        A letter that was prepared and neither begun nor ended by then was not sent, which is recorded too.
        """
