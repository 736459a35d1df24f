"""Deliver letters so that whatever ends the job early bites between two of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context

from packmule.jobs.email.delivery.mailer import Mailer
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.outcome import Journal, Outcome

POLL = 0.05
"""Seconds after which an interruption is noticed in a thread that signals don't reach."""


def deliver(
    mailer: Mailer, journal: Journal, letters: Iterable[Letter], leaves_off: Callable[[], bool]
) -> bool:
    """Deliver `letters`, but no more once `leaves_off` says so; whether all were.

    Another thread sends them: an exception that a cancel, a timeout or a stop raises here, in the job's own
    thread, doesn't hit it between the last byte of a mail and the server's answer, which would be lost. The
    mail that is under way ends, and then the exception goes on. Raises what `Mailer.deliver` does.
    """
    stoppable = _Stoppable(journal, letters, leaves_off)
    with ThreadPoolExecutor(1, "packmule-bulk") as executor:
        sending = executor.submit(copy_context().run, mailer.deliver, stoppable, stoppable)
        try:
            while not wait([sending], POLL).done:
                pass
        finally:
            stoppable.is_stopped.set()  # the executor's end waits for the mail that is under way
    sending.result()
    return not stoppable.is_left_off


class _Stoppable:
    """Yields letters until it leaves off, and is their journal, which lets none begin once it is stopped."""

    def __init__(self, journal: Journal, letters: Iterable[Letter], leaves_off: Callable[[], bool]) -> None:
        self.is_stopped = threading.Event()
        self.is_left_off = False
        self._journal = journal
        self._letters = letters
        self._leaves_off = leaves_off

    def __iter__(self) -> Iterator[Letter]:
        for letter in self._letters:
            if self.is_stopped.is_set() or self._leaves_off():
                self.is_left_off = True
                return
            yield letter

    def prepare(self, letter: Letter) -> None:
        """Pass it on."""
        self._journal.prepare(letter)

    def begin(self, letter: Letter) -> bool:
        """Whether the body may be sent."""
        return not self.is_stopped.is_set() and self._journal.begin(letter)

    def ended(self, letter: Letter, outcomes: Mapping[str, Outcome]) -> None:
        """Pass it on."""
        self._journal.ended(letter, outcomes)

    def flush(self) -> None:
        """Pass it on."""
        self._journal.flush()
