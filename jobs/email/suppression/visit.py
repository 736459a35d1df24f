"""How much of a mailbox is taken at once; what is left waits for the next visit."""

from __future__ import annotations

import time

SECONDS = 60.0
"""Seconds after which no mail begins."""

MOST_MAILS = 1_000
MOST_BYTES = 256 << 20
"""Bytes of all mails of a visit."""


class Visit:
    """One visit of a mailbox: counts what it takes."""

    def __init__(self) -> None:
        self.ends = time.monotonic() + SECONDS
        self._mails, self._bytes = 0, 0

    @property
    def is_over(self) -> bool:
        """Whether the next mail must wait for the next visit."""
        return self._mails >= MOST_MAILS or self._bytes >= MOST_BYTES or time.monotonic() > self.ends

    def count(self, content: bytes) -> None:
        """A mail was taken."""
        self._mails += 1
        self._bytes += len(content)
