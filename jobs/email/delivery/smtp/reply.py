"""A reply of an SMTP server: its code, its enhanced code, and its words as one safe line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from packmule.jobs.email.outcome import Outcome, State
from packmule.plain_text import one_line

MAX_WORDS = 500
"""Characters of a reply that are kept."""

CLOSING = 421
DONE, LAST_DONE = 200, 299
CONTINUE, LAST_CONTINUE = 300, 399
FOR_NOW, LAST_FOR_NOW = 400, 499

_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?= |$)")
_BAD_ADDRESS = frozenset(f"5.1.{detail}" for detail in (0, 1, 2, 3, 4, 6, 10))
"""Faults of the recipient's address (RFC 3463, 7505). The other details of 5.1 are those of the sender's."""

_TOO_MANY = {452: "4.5.3", 552: "5.5.3"}
"""Replies to RCPT with which a server takes no more recipients in this transaction (RFC 5321 4.5.3.1.10)."""


class Reply(NamedTuple):
    """A reply; `lines` are its texts without the codes, from the server and so hostile."""

    code: int
    lines: Sequence[bytes]

    @property
    def is_done(self) -> bool:
        """Whether the server did what was asked for; 251 and 252 are that, too."""
        return DONE <= self.code <= LAST_DONE

    @property
    def is_go_on(self) -> bool:
        """Whether the server waits for more."""
        return CONTINUE <= self.code <= LAST_CONTINUE

    @property
    def is_for_now(self) -> bool:
        """Whether the server refused for now."""
        return FOR_NOW <= self.code <= LAST_FOR_NOW

    @property
    def enhanced(self) -> str:
        """The enhanced code, such as `5.1.1`, or nothing."""
        found = _ENHANCED.match(self.lines[0].decode(errors="replace")) if self.lines else None
        return found.group() if found else ""

    @property
    def is_full(self) -> bool:
        """Whether it refuses a recipient only because the transaction has enough of them."""
        return self.code in _TOO_MANY and self.enhanced in {"", _TOO_MANY[self.code]}

    def words(self, secrets: Sequence[str] = ()) -> str:
        """The reply as one printable line, in which `secrets` are masked in case the server repeats them."""
        text = b" ".join(self.lines).decode(errors="replace")
        for secret in secrets:
            text = text.replace(secret, "***")
        return f"{self.code} {one_line(text[: 4 * MAX_WORDS], MAX_WORDS)}".rstrip()

    def outcome(self, secrets: Sequence[str] = (), *, of_address: bool = False) -> Outcome:
        """What the reply says of a recipient. `of_address` tells that it answered this address alone."""
        words = self.words(secrets)
        if self.is_done:
            return Outcome(State.ACCEPTED, words)
        if self.is_for_now:
            return Outcome(State.DEFERRED, words)
        return Outcome(State.REFUSED, words, of_address and self.enhanced in _BAD_ADDRESS)
