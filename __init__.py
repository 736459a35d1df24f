"""Background jobs on RQ and Redis: `from packmule import job, current, Retry, Batch`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packmule.jobs import current
    from packmule.jobs.interrupts import Retry
    from packmule.jobs.job import job

__all__ = ["Retry", "current", "job"]

_HOMES = {"Retry": "packmule.jobs.interrupts", "job": "packmule.jobs.job"}
"""The modules of what is exported, imported on first use: a command's help needs no Redis client."""


def __getattr__(name: str) -> Any:
    if name == "current":
        return import_module("packmule.jobs.current")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
