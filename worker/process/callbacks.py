"""Callbacks: what RQ lets a job call, or send, once its outcome is recorded."""

from __future__ import annotations

import ast
import builtins
import sys
from base64 import b64decode
from contextlib import suppress
from typing import Any

from redis import Redis
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.jobs import wire
from packmule.jobs.job_type import job_type
from packmule.jobs.options import Options
from packmule.jobs.registry import Invoked
from packmule.worker.process.claimed import Claimed, Due
from packmule.worker.process.lookup import Lookup

LONGEST_KEY = 200

HEADER = "Traceback (most recent call last):\n"


class Callbacks:
    """Turns callbacks that are due into calls with RQ's signature, from the one read that the claim brought.

    `job_class` and `serializer` are RQ's; `lookup` says which callbacks are allowed.
    """

    def __init__(
        self,
        client: Redis,
        lookup: Lookup,
        job_class: type[Job] = Job,
        serializer: Any = JSONSerializer,
    ) -> None:
        self.client = client
        self.lookup = lookup
        self.job_class = job_class
        self.serializer = serializer

    def call_for(self, claimed: Claimed, due: Due) -> Invoked:
        """The call that is due. Raises if it is not allowed, or if the record is corrupt."""
        job = job_of(self.job_class, claimed.id, due.record, self.client, self.serializer)
        if due.step == "webhooks":
            webhooks = job_type("webhooks", self._send_all, Options(), typed=False)
            return Invoked(webhooks, (job, due), {})
        name = due.record[due.kind.encode() + b"_callback_name"].decode()
        return Invoked(self.lookup.find(name), (job, self.client, *self._extra(due)), {})

    def _extra(self, due: Due) -> tuple[Any, ...]:
        """What follows the job and the connection: the result, or the error as Python describes one."""
        match due.kind:
            case "success":
                return (self.lookup.decode(b64decode(due.value)) if due.value else None,)
            case "failure":
                error = error_from(_reason(due) or "")
                return type(error), error, None
        return ()

    def _send_all(self, job: Job, due: Due) -> None:
        status = "finished" if due.kind == "success" else "failed"
        for webhook in job.webhooks:
            if webhook.job_status == status:
                self.lookup.send(webhook, job, _reason(due) if status == "failed" else None)


def job_of(job_class: type[Job], id: str, record: dict[bytes, bytes], client: Redis, serializer: Any) -> Job:
    """RQ's object of a job, from its whole record. Raises what RQ does if it is corrupt or empty."""
    if b"data" not in record:
        raise NoSuchJobError(f"the job {id} has no record")
    job: Job = job_class(id, client, serializer=serializer)
    # RQ would unpack these without a bound.
    fields = {name: value for name, value in record.items() if name != b"exc_info"}
    fields[b"data"] = wire.unpacked(record[b"data"])
    job.restore(fields)
    return job


def _reason(due: Due) -> str | None:
    return wire.traceback(due.value.decode()) if due.name == "exc_string" else ""


def error_from(text: str) -> BaseException:
    """The error in a traceback: of its class if that is loaded, with the traceback as a note.

    It may have been raised in another process, so what it held besides its text is gone.
    """
    lines = text.rpartition(HEADER)[2].splitlines(keepends=True)
    while lines and lines[0].startswith(" "):
        del lines[0]
    name, _, message = "".join(lines).strip().partition(": ")
    error = _of_class(name, message)
    if HEADER in text:
        error.add_note(text)
    return error


def _of_class(name: str, message: str) -> BaseException:
    module, _, qualified = name.rpartition(".")
    found: Any = sys.modules.get(module) if module else builtins
    found = getattr(found, qualified, None)
    if isinstance(found, type) and issubclass(found, BaseException):
        with suppress(Exception):
            if issubclass(found, KeyError) and len(message) <= LONGEST_KEY:
                message = ast.literal_eval(message)  # whose text is its key as Python writes it
            return found.__new__(found, message)
    return RuntimeError(f"{name}: {message}" if message else name)
