"""Where reports of bounces come from: files, and Maildirs, of which each mail is read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from packmule.errors import NotFound
from packmule.jobs.email.received import MOST_BYTES, UnreadableMail
from packmule.jobs.email.suppression.bounces import take

if TYPE_CHECKING:
    from redis import Redis

SEEN = ":2,S"
"""What a Maildir's readers add to the name of a mail that was read."""

MOST_REASONS = 20


class NoSuchMailbox(NotFound):
    """There is no file or Maildir of that name."""


class Intake:
    """Takes mails, and counts what they did.

    >>> intake = Intake(client, "bounces+{to}@example.org")  # doctest: +SKIP
    >>> intake.take_from(Path("/home/bounces/Maildir"))  # doctest: +SKIP
    """

    def __init__(self, client: Redis, return_path: str | None = None) -> None:
        self.client = client
        self.return_path = return_path
        self.mails = self.unknown = self.unreadable = 0
        self.kinds: Counter[str] = Counter()
        self.suppressed: list[str] = []
        self.reasons: list[str] = []
        """Why the first of the unreadable mails are that, each with its file's name."""

    def take_from(self, path: Path) -> None:
        """Take the mail in a file, or all new ones of a Maildir, which are then in its folder of read ones.

        Raises `NoSuchMailbox`.
        """
        if (path / "new").is_dir():
            for file in _new(path):
                if self._take_file(file):
                    (path / "cur").mkdir(exist_ok=True)
                    file.rename(path / "cur" / (file.name.partition(":")[0] + SEEN))
        elif path.is_file():
            self._take_file(path)
        else:
            raise NoSuchMailbox(f"{path} is no file with a mail, and no Maildir, which has a folder new")

    def take(self, file: BinaryIO, name: str) -> None:
        """Take the mail in an open file; `name` is for people."""
        content = file.read(MOST_BYTES + 1)
        self.mails += 1
        try:
            done = take(self.client, content, self.return_path)
        except UnreadableMail as error:
            self.unreadable += 1
            if len(self.reasons) < MOST_REASONS:
                self.reasons.append(f"{name}: {error}")
            return
        self.kinds.update(map(str, done.known))
        self.unknown += done.unknown
        self.suppressed += done.suppressed

    def _take_file(self, path: Path) -> bool:
        """Whether the file was there: another intake may have taken it."""
        try:
            with path.open("rb") as file:
                self.take(file, path.name)
        except FileNotFoundError:
            return False
        return True


def _new(maildir: Path) -> Iterator[Path]:
    """Yield the new mails, the oldest first; what isn't a plain file is left alone."""
    for file in sorted((maildir / "new").iterdir()):
        if file.is_file() and not file.is_symlink() and not file.name.startswith("."):
            yield file
