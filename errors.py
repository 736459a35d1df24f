"""The errors that Packmule raises for its users: one tree, and the exit code of a command that meets one."""

from __future__ import annotations

from typing import ClassVar


class Error(Exception):
    """What a user, an operator or a job's author can fix; the text names the thing and the way out.

    Each error of ours is a subclass, defined in the module that raises it. `exit_code` is the exit code of a
    command that ends with it.

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
