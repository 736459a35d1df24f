"""Commands that RQ publishes to one worker: shut down, stop a job, kill what runs."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

import msgspec

from worker.interrupt import Interrupter, JobKilled, JobStopped
from worker.slot import Slot

log = logging.getLogger("packmule.worker")


class Command(msgspec.Struct, frozen=True):
    """A message as `rq.command.send_command` writes it."""

    command: str
    job_id: str = ""


def obey(message: dict[str, Any], slot: Slot, interrupter: Interrupter) -> None:
    """Do what `message` commands of the worker whose job `slot` tells; what makes no sense is passed over."""
    try:
        command = msgspec.json.decode(message["data"], type=Command)
    except msgspec.DecodeError as error:
        log.warning("passed over a command that makes no sense: %s", error)
        return
    performing = slot.read()
    match command.command:
        case "shutdown":
            os.kill(os.getpid(), signal.SIGTERM)
        case "stop-job" if performing and performing.id == command.job_id:
            interrupter.interrupt(performing.id, JobStopped("stopped by a command"))
        case "kill-horse" if performing:
            interrupter.interrupt(performing.id, JobKilled("killed by a command"))
        case _:
            log.info("passed over the command %s: no such job is running", command.command)
