"""Sending: the hooks around an enqueue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

from packmule import hooks
from packmule.hooks import Enqueueing
from packmule.jobs.options import DEFAULT_QUEUE


def sending(name: str, queue: str | None, count: int = 1) -> AbstractContextManager[Enqueueing]:
    """What is around an enqueue of `count` jobs of the type `name`; it yields what its hooks see."""
    subject = Enqueueing(name, queue or DEFAULT_QUEUE, count)
    return _around(subject) if hooks.enqueuers else nullcontext(subject)


@contextmanager
def _around(subject: Enqueueing) -> Iterator[Enqueueing]:
    failed: BaseException | None = None
    with ExitStack() as stack:
        for hook in hooks.enqueuers:
            stack.enter_context(hook(subject))
        try:
            yield subject
        except BaseException as error:
            failed = error
            raise
    if failed is not None:  # a hook swallowed it
        raise failed
