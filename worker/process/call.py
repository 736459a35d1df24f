"""A call: a claimed job that can be performed, with the type of its callable and its arguments."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from packmule.jobs.job_type import JobType
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.hush import Hush

Kind = Literal["plain", "async", "isolated", "inline"]
"""Who performs a call."""


class Call(NamedTuple):
    """A claimed job that can be performed: the type of its callable, the arguments, and who performs it."""

    job: Claimed
    type: JobType
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    kind: Kind
    leaves_network: bool = False
    """Whether it may connect until it leaves the network itself, in a process of its own."""
    hush: Hush | None = None
    """What hides its secrets in texts, if it has any."""
