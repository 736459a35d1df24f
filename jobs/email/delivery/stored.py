"""Mails that are stored instead of sent: into a storage, or into this process's memory."""

from __future__ import annotations

import os
import secrets
from collections import deque
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

from packmule.jobs.email.delivery.channel import Limits
from packmule.jobs.email.delivery.ways import InvalidServer
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.outcome import Journal, Outcome, State
from packmule.jobs.storage import Storage, StorageError

MOST_REMEMBERED = 1000

remembered: deque[Letter] = deque(maxlen=MOST_REMEMBERED)
"""The newest letters that `memory://` took in this process, for tests."""


class StoringWay:
    """`file:///folder` writes each mail to a file of its own, `memory://` keeps it in `remembered`.

    A file begins with the envelope, as those of the mail catcher do. Raises `InvalidServer`.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.limits = Limits()
        self._storage = None
        if parts.scheme == "file":
            folder = unquote(parts.path)
            if parts.netloc or parts.query or parts.fragment or len(folder) < len("/x"):
                raise InvalidServer("mails are written to file:///folder: give the path of a folder")
            self._storage = Storage(folder)
        elif url.rstrip("/") != "memory:":
            raise InvalidServer("write memory:// without anything behind it")

    def __str__(self) -> str:
        """What takes the mails."""
        return "memory" if self._storage is None else "a folder"

    def knows(self, letter: Letter) -> bool:
        """It knows no mail again."""
        return False

    def open(self) -> StoringChannel:
        """A channel: nothing can fail yet."""
        return StoringChannel(self._storage)


class StoringChannel:
    """Stores letters in `storage`, or remembers them."""

    is_fresh = is_usable = True

    def __init__(self, storage: Storage | None) -> None:
        self.process = os.getpid()
        self._storage = storage

    def carry(self, letter: Letter, ahead: Letter | None, journal: Journal) -> tuple[str, ...]:
        """Store a letter, as `Channel.carry` says."""
        if journal.begin(letter):
            journal.ended(letter, dict.fromkeys(letter.recipients, self._stored(letter)))
        return ()

    def close(self) -> None:
        """Nothing is open."""

    def _stored(self, letter: Letter) -> Outcome:
        if self._storage is None:
            remembered.append(letter)
            return Outcome(State.ACCEPTED, "remembered")
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}.eml"
        envelope = f"X-Envelope-From: {letter.sender}\r\nX-Envelope-To: {', '.join(letter.recipients)}\r\n"
        try:
            self._storage.write_bytes(name, envelope.encode() + letter.content)
        except (StorageError, OSError) as error:
            return Outcome(State.DEFERRED, " ".join(f"not stored: {error}".split())[:500])
        return Outcome(State.ACCEPTED, f"stored as {name}")
