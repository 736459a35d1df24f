"""A job as the API shows it: what `packmule job --json` has, less what the asker may not see."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from packmule.dashboard.api.admission import Asker
from packmule.dashboard.api.scopes import Scope
from packmule.jobs.masking import masked, masked_job, masked_result
from packmule.jobs.reader import JobInfo

PAYLOADS = ("args", "kwargs", "description", "result", "error")
"""What needs the scope `payloads`; a description by RQ holds the arguments."""

_OUTPUTS = ("result",)
_EMPTY: dict[str, Any] = {"args": (), "kwargs": {}}


@dataclass(frozen=True, slots=True)
class ShownJob(JobInfo):
    """A job as Redis has it now. Times are texts in UTC; what is unknown is null.

    The fields named in `hidden` are empty because the token may not see them.
    """

    hidden: tuple[str, ...] = ()


_NAMES = tuple(field.name for field in fields(JobInfo))


def shown(info: JobInfo, asker: Asker) -> ShownJob:
    """`info` as `asker` may see it; to people with a session secrets are masked, as on pages."""
    values = {name: getattr(info, name) for name in _NAMES}
    if not asker.key:
        values["args"], values["kwargs"] = masked_job(info)
        values["result"], values["description"] = masked_result(info), masked(info.description)
    if info.progress and not sees_messages(asker):
        values["progress"] = replace(info.progress, message="")
    hidden: tuple[str, ...] = ()
    if not asker.may(Scope.PAYLOADS):
        hidden = tuple(each for each in PAYLOADS if each not in _OUTPUTS or not asker.may(Scope.OUTPUT))
        values.update((name, _EMPTY.get(name)) for name in hidden)
    return ShownJob(**values, hidden=hidden)


def as_shown(value: Any, asker: Asker) -> Any:
    """A value that `asker` may see: to people with a session its secrets are masked, as on pages."""
    return value if asker.key else masked(value)


def sees_messages(asker: Asker) -> bool:
    """Whether `asker` sees messages of progress: all tokens do, and people who may see payloads."""
    return bool(asker.key) or asker.may(Scope.PAYLOADS)
