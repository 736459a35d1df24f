"""The errors that Packmule raises for its users: one tree, and the exit code of a command that meets one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class Error(Exception):
    """An error that a user, an operator or a job's author can fix; its text names the thing and the way out.

    Each error of Packmule is a subclass, defined in the module that raises it. `exit_code` is the exit code
    of a command that ends with it.

    >>> try:
    ...     report.enqueue("2026-13")
    ... except packmule.Error as error:
    ...     print(error)  # doctest: +SKIP
    """

    exit_code: ClassVar[int] = 1


class UsageError(Error):
    """A value, setting, file or call is invalid: nothing was done."""

    exit_code = 2


class NotFound(Error):
    """Nothing of that name or id exists."""

    exit_code = 2


class Conflict(Error):
    """The current state does not allow the operation, such as adding to a batch that has ended."""


class Unavailable(Error):
    """A server can't be reached, or can't do what Packmule needs of it."""

    exit_code = 3


class JobFailed(Error):
    """A job ended without a result: it failed, or was stopped or canceled."""


SHORTEST_BEGINNING = 3
"""Letters of a name that are taken for its beginning."""

LONGEST_NAME = 100
"""Letters of a name for which a near one is looked for."""


def meant(name: str, known: Iterable[str]) -> str | None:
    """Which of `known` a name that is none of them is meant to be, as it seems: for the text of an error.

    It differs by a few letters, or is a beginning.

    >>> meant("reprot", ["report", "invoice"]), meant("report", ["shop.report", "shop.add"])
    ('report', 'shop.report')
    >>> meant("stat", ["status"]), meant("at_all", ["tally"])
    ('status', None)
    """
    # By their last parts: names are no more alike for being in one module.
    module, _, last = name[-LONGEST_NAME:].rpartition(".")
    those_of_it_last = sorted(known, key=lambda each: each.rpartition(".")[0] == module)
    by_end = {each.rpartition(".")[2]: each for each in those_of_it_last}
    near = {end: far for end in by_end if (far := _mistakes(last.lower(), end.lower())) is not None}
    if not near and len(last) >= SHORTEST_BEGINNING:
        near = {end: len(end) for end in by_end if end.lower().startswith(last.lower())}
    return by_end[min(near, key=near.__getitem__)] if near else None


def _mistakes(one: str, other: str) -> int | None:
    """How many letters too many, missing, wrong or swapped with the next turn one word into the other.

    None if there are so many that the other is not meant, as between most words: that is soon seen.
    """
    most = min(max(1, (min(len(one), len(other)) + 1) // 3), len(other) - 1)  # a letter they have in common
    if abs(len(one) - len(other)) > most:
        return None
    before: list[int] = []
    above: list[int] = [*range(len(other) + 1)]
    for row, letter in enumerate(one, start=1):
        here: list[int] = [row]
        for place, its in enumerate(other, start=1):
            best = min(above[place] + 1, here[-1] + 1, above[place - 1] + (letter != its))
            is_swapped = place > 1 and row > 1 and letter == other[place - 2] and its == one[row - 2]
            here.append(min(best, before[place - 2] + 1) if is_swapped else best)
        if min(here) > most:  # and so it is in the rows to come
            return None
        before, above = above, here
    return above[-1] if above[-1] <= most else None
