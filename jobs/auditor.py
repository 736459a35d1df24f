"""The auditor: what jobs delete by themselves gets into the audit, as what people do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packmule.jobs import current

MOST_NAMED = 20
"""Places that an entry of the audit names; a job's log has all."""


@dataclass(frozen=True, slots=True)
class Auditor:
    """Records an action and its subject by `record`; processes lend it to their jobs.

    >>> context.provide(Auditor(lambda action, subject: print(action, subject)))  # doctest: +SKIP
    """

    record: Callable[[str, Mapping[str, Any]], None]

    def deletes(self, action: str, places: Sequence[str], files: int, size: int) -> None:
        """Record that the running job is about to delete what is at `places`: so many files and bytes."""
        first = list(places[:MOST_NAMED])
        subject = {"deleted": files, "bytes": size, "places": len(places), "first": first}
        self.record(action, subject | {"job": current.job_id() or ""})
