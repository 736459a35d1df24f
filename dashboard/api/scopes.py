"""Scopes: what a token for the API may let its holder do."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """A part of the API; a token has some of them, and `ADMIN` includes all but `PAYLOADS` and `OUTPUT`."""

    ENQUEUE = "enqueue"
    """Enqueue jobs, make batches and flows, and upload files for jobs."""
    READ = "read"
    """Read jobs, batches, flows, queues, schedules, errors, workers and events, without payloads."""
    PAYLOADS = "payloads"
    """Also see arguments, results, outputs, logs and the texts of errors."""
    OUTPUT = "output"
    """Also see a job's output and result, but no more: for the short tokens of an application's users."""
    ACT = "act"
    """Cancel, retry, run, delete and signal jobs; pause and resume; settle errors; run schedules."""
    BOUNCES = "bounces"
    """Hand in reports of bounces and complaints: for mail servers."""
    ADMIN = "admin"
    """Also purge and limit queues, and stop workers."""


def includes(scopes: frozenset[str], scope: Scope) -> bool:
    """Whether a token with these `scopes` may do what needs `scope`.

    >>> includes(frozenset(["admin"]), Scope.READ), includes(frozenset(["admin"]), Scope.PAYLOADS)
    (True, False)
    """
    if scope in scopes:
        return True
    if scope is Scope.OUTPUT:
        return Scope.PAYLOADS in scopes
    return scope is not Scope.PAYLOADS and Scope.ADMIN in scopes
