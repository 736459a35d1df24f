"""Where reports of bounces come from: files, Maildirs and folders of IMAP, whose mails are read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from packmule.config import secret
from packmule.errors import NotFound
from packmule.jobs.email.ledger import KEEP
from packmule.jobs.email.received import MOST_BYTES, UnreadableMail
from packmule.jobs.email.suppression.bounces import take
from packmule.jobs.email.suppression.imap import Folder
from packmule.jobs.email.suppression.visit import Visit

if TYPE_CHECKING:
    from redis import Redis

SEEN = ":2,S"
"""What a Maildir's readers add to the name of a mail that was read."""

MOST_REASONS = 20
MOST_SEEN = 20_000
"""Files of a Maildir of which the oldest are taken first."""


class NoSuchMailbox(NotFound):
    """There is no file or Maildir of that name, or it can't be read."""


class Intake:
    """Takes mails, and counts what they did.

    >>> intake = Intake(client, "bounces+{to}@example.org")  # doctest: +SKIP
    >>> intake.take_from("/home/bounces/Maildir")  # doctest: +SKIP
    """

    def __init__(self, client: Redis, return_path: str | None = None, keep: float = KEEP) -> None:
        self.client = client
        self.return_path = return_path
        self.keep = keep
        self.mails = self.unknown = self.unreadable = 0
        self.kinds: Counter[str] = Counter()
        self.suppressed: list[str] = []
        self.reasons: list[str] = []
        """Why the first of the unreadable mails are that, each with its file's name."""
        self.unfinished: list[str] = []
        """The mailboxes of which mails wait for the next visit."""

    def take_from(self, mailbox: str) -> None:
        """Take the mail in a file, the new ones of a Maildir, or the unread ones of an `imap.Folder`.

        These are then in the Maildir's folder of read ones, or marked as read. As many are taken as fit into
        a `Visit`. Raises `NoSuchMailbox`, and
        what `Folder` and `Folder.take_each` do.
        """
        if _is_url(mailbox):
            self._go_on_later(mailbox, Folder(mailbox, secret).take_each(self.take))
            return
        path = Path(mailbox)
        try:
            if (path / "new").is_dir():
                self._go_on_later(mailbox, self._take_maildir(path))
            else:
                self._take_file(path)
        except OSError as error:
            raise NoSuchMailbox(f"{path} can't be read as a mail or a Maildir: {error.strerror}") from None

    def take(self, content: bytes, name: str) -> None:
        """Take a mail; `name` is for people."""
        self.mails += 1
        try:
            done = take(self.client, content, self.return_path, self.keep)
        except UnreadableMail as error:
            self._pass_over(name, str(error))
            return
        self.kinds.update(map(str, done.known))
        self.unknown += done.unknown
        self.suppressed += done.suppressed

    def _go_on_later(self, mailbox: str, is_done: bool) -> None:
        if not is_done:
            self.unfinished.append(mailbox)

    def _take_maildir(self, path: Path) -> bool:
        (path / "cur").mkdir(exist_ok=True)
        visit = Visit()
        for file in _new(path):
            if visit.is_over:
                return False
            try:
                visit.count(self._take_file(file))
                file.rename(path / "cur" / (file.name.partition(":")[0] + SEEN))
            except FileNotFoundError:
                continue  # another intake has just taken it
            except OSError as error:  # the others are read all the same
                self._pass_over(file.name, error.strerror or type(error).__name__)
        return True

    def _take_file(self, path: Path) -> bytes:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        self.take(content, path.name)
        return content

    def _pass_over(self, name: str, why: str) -> None:
        self.unreadable += 1
        if len(self.reasons) < MOST_REASONS:
            self.reasons.append(f"{name}: {why}")


def check(mailbox: str) -> None:
    """Raise what `Intake.take_from` would raise before it takes a mail of a mailbox."""
    if _is_url(mailbox):
        Folder(mailbox, secret).check()
    elif not (Path(mailbox) / "new").is_dir():
        raise NoSuchMailbox(f"{mailbox} is not a Maildir: it has no folder new")


def _is_url(mailbox: str) -> bool:
    return mailbox.startswith(("imaps:", "imap:"))


def _new(maildir: Path) -> Iterator[Path]:
    """Yield the first new mails, the oldest first; what isn't a plain file is left alone."""
    for file in sorted(islice((maildir / "new").iterdir(), MOST_SEEN)):
        if file.is_file() and not file.is_symlink() and not file.name.startswith("."):
            yield file
