"""Job records: what jobs log by `logging` goes to their own logs, too."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from packmule.jobs import context, said

_formatter = logging.Formatter()


class JobRecords(logging.Handler):
    """A handler of the root logger that adds each record of a running job to the job's log.

    What Packmule logs itself isn't the job's. It needs no lock, since a job has its own place for its lines.
    """

    def handle(self, record: logging.LogRecord) -> bool:
        """Keep the record if a job runs where it was made."""
        if record.name.startswith("packmule.") or (heard := context.said()) is None:
            return False
        try:
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + (record.exc_text or _formatter.formatException(record.exc_info))
            if record.stack_info:
                text += "\n" + record.stack_info
        except said.FAULTS as error:
            said_so = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
            text = f"{said_so} (it can't be formatted: {type(error).__name__})"
        heard.line(said.line(record.created, record.levelno, text))
        return True


class Hushing(logging.Filter):
    """Hides the secrets of a running job in a record, before any handler of the root logger has it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without secrets."""
        job = context.running()
        if job is None or job.hush is None or record.name.startswith("packmule."):
            return True
        try:
            text = record.getMessage()
        except said.FAULTS:  # whoever formats it says so
            return True
        if record.exc_info:
            text += "\n" + _formatter.formatException(record.exc_info)
        record.msg, record.args, record.exc_info, record.exc_text = job.hush(text), None, None, None
        return True


@contextmanager
def kept(level: int) -> Iterator[None]:
    """Within this, keep what jobs log from `level` on."""
    root, handler = logging.getLogger(), JobRecords(level)
    # Without a handler of the program's own, logging writes warnings to standard error, and shall go on to.
    handlers = [handler] if root.handlers or logging.lastResort is None else [handler, logging.lastResort]
    if level < said.OFF:
        for each in handlers:
            root.addHandler(each)
    hushing, hushed = Hushing(), [*root.handlers]
    for each in hushed:
        each.addFilter(hushing)
    try:
        yield
    finally:
        for each in hushed:
            each.removeFilter(hushing)
        for each in handlers:
            root.removeHandler(each)
