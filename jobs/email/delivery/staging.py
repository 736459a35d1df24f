"""Staging: all mails go to one address, and say to whom they would have gone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from packmule.errors import UsageError
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.message.addresses import InvalidAddress, parse
from packmule.jobs.email.outcome import Journal, Outcome

HEADER = "X-Packmule-Recipient"
LONGEST = 900
"""Characters of an address in the header: a line of a mail has at most 998."""

_UNFIT = re.compile(r"[^\x21-\x7e]")


class InvalidStaging(UsageError, ValueError):
    """The address to which all mails go in staging is none."""


def checked(to: str) -> str:
    """The address to which all mails go. Raises `InvalidStaging`."""
    try:
        return parse(to).spec
    except InvalidAddress as error:
        raise InvalidStaging(f"PACKMULE_MAIL_TO: {error}") from None


class Staged:
    """Letters that go to `to` alone, each with a header X-Packmule-Recipient for each of its recipients.

    As a journal it records in `journal` what becomes of them as if it became of their recipients.
    """

    def __init__(self, to: str, letters: Iterator[Letter], journal: Journal) -> None:
        self._to = to
        self._letters = letters
        self._journal = journal
        self._true: dict[str, Letter] = {}
        """The letters on their way, as they were written."""
        self.flush = journal.flush

    def __iter__(self) -> Iterator[Letter]:
        """The letters as they are sent."""
        for letter in self._letters:
            self._true[letter.message_id] = letter
            named = "".join(f"{HEADER}: {_UNFIT.sub('?', to)[:LONGEST]}\r\n" for to in letter.recipients)
            yield replace(letter, recipients=(self._to,), content=named.encode() + letter.content)

    def prepare(self, letter: Letter) -> None:
        """As if it went to its recipients."""
        self._journal.prepare(self._true[letter.message_id])

    def begin(self, letter: Letter) -> bool:
        """As if it went to its recipients."""
        return self._journal.begin(self._true[letter.message_id])

    def still(self, letter: Letter) -> bool:
        """As if it went to its recipients."""
        return self._journal.still(self._true[letter.message_id])

    def ended(self, letter: Letter, outcomes: Mapping[str, Outcome]) -> None:
        """What became of the one became of all."""
        true = self._true.pop(letter.message_id)
        for outcome in outcomes.values():
            about_the_letter = outcome._replace(is_bad_address=False)
            self._journal.ended(true, dict.fromkeys(true.recipients, about_the_letter))
