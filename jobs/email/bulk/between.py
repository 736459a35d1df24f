"""Deliver letters so that whatever ends the job early bites between two of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import copy_context
from functools import partial

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
    sending = _Sending(partial(copy_context().run, mailer.deliver, stoppable, stoppable))
    try:
        sending.thread.start()
        sending.is_wanted = True
        sending.may_begin.set()
        while not sending.has_ended.wait(POLL):
            pass
    finally:
        stoppable.is_stopped.set()
        sending.may_begin.set()
        if sending.is_wanted:
            sending.has_ended.wait()  # for the mail that is under way
    if sending.error is not None:
        raise sending.error
    return not stoppable.is_left_off


class _Sending:
    """A thread that delivers once it may: an interruption of its own start leaves none that goes on alone."""

    def __init__(self, send: Callable[[], None]) -> None:
        self.may_begin, self.has_ended = threading.Event(), threading.Event()
        self.is_wanted = False
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="packmule-bulk", daemon=True)
        self._send = send

    def _run(self) -> None:
        self.may_begin.wait()
        if not self.is_wanted:
            return
        try:
            self._send()
        except BaseException as error:
            self.error = error
        finally:
            self.has_ended.set()


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

    def still(self, letter: Letter) -> bool:
        """Pass it on: what has begun may end."""
        return self._journal.still(letter)

    def ended(self, letter: Letter, outcomes: Mapping[str, Outcome]) -> None:
        """Pass it on."""
        self._journal.ended(letter, outcomes)

    def flush(self) -> None:
        """Pass it on."""
        self._journal.flush()
