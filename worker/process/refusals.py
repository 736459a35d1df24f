"""Refusals: why a job is not begun although its call is one that this worker knows."""

from __future__ import annotations

import time

from packmule.errors import JobFailed
from packmule.jobs import registry
from packmule.jobs.job_type import JobType
from packmule.jobs.wire import time_text
from packmule.worker.process.claimed import Claimed


class Expired(JobFailed):
    """A job was not started in the time that its `expires` gave it."""


class OtherVersion(registry.NotRegistered):
    """The steps of a job were recorded by another version of its code than this worker has."""


def refuse_expired(job: Claimed, expires_at: float) -> None:
    """Raise `Expired` if the first attempt of the job comes too late."""
    if job.attempt == 1 and expires_at < time.time():
        raise Expired(f"the job could not start before it expired at {time_text(expires_at)}")


def refuse_other_version(job_type: JobType, recorded: str) -> None:
    """Raise `OtherVersion` unless the job's steps were `recorded` by the version of its code here."""
    version = job_type.traits.version_text
    if recorded != version:
        had, has = (f"version {each!r}" if each else "no version" for each in (recorded, version))
        raise OtherVersion(
            f"the job's steps were recorded with {had} of {job_type.name}, which has {has} here: run a "
            "worker with that code until the job has ended, or cancel the job"
        )
