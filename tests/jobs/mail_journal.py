"""A journal of mails in memory, which checks that delivery calls it in the right order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from packmule.jobs.email.letter import Letter
from packmule.jobs.email.outcome import Outcome, State


class Book:
    """Keeps the outcomes by Message-ID and recipient.

    `may_begin` says whether a body may be sent, and `may_end` whether its end may.
    """

    def __init__(
        self,
        may_begin: Callable[[Letter], bool] = lambda letter: True,
        may_end: Callable[[Letter], bool] = lambda letter: True,
    ) -> None:
        self.may_begin, self.may_end = may_begin, may_end
        self.calls: list[tuple[str, str]] = []
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        self.begun: list[tuple[str, ...]] = []
        """The recipients of each body that began, or that might have."""
        self._open: Letter | None = None

    def prepare(self, letter: Letter) -> None:
        self.calls.append(("prepare", letter.message_id))
        self._open = letter

    def begin(self, letter: Letter) -> bool:
        assert self._open is not None, "a letter begins only when it is prepared"
        assert set(letter.recipients) <= set(self._open.recipients), "and for its recipients, or some of them"
        assert replace(self._open, recipients=letter.recipients) == letter, "and no other since"
        self.calls.append(("begin", letter.message_id))
        self.begun.append(letter.recipients)
        return self.may_begin(letter)

    def still(self, letter: Letter) -> bool:
        assert self.begun[-1] == letter.recipients, "only what has begun goes on"
        self.calls.append(("still", letter.message_id))
        return self.may_end(letter)

    def ended(self, letter: Letter, outcomes: Mapping[str, Outcome]) -> None:
        self.calls.append(("ended", letter.message_id))
        for to, outcome in outcomes.items():
            assert to in letter.recipients
            assert (letter.message_id, to) not in self.outcomes, f"{to} ended twice"
            self.outcomes[letter.message_id, to] = outcome

    def flush(self) -> None:
        self.calls.append(("flush", ""))

    def states(self, message_id: str | None = None) -> dict[str, State]:
        """The state of each recipient, of one letter or, if each has other recipients, of all."""
        return {
            to: outcome.state
            for (mail, to), outcome in self.outcomes.items()
            if message_id is None or mail == message_id
        }

    def reply(self, to: str) -> str:
        """What was said of a recipient."""
        return next(outcome.reply for (_, known), outcome in self.outcomes.items() if known == to)
