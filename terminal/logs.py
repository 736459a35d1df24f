"""The log of long-running commands: lines of text for people, or one JSON object per line."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO, Any

import msgspec

from packmule.config import Settings, wants_colour
from packmule.jobs import context
from packmule.jobs.said import LEVELS, OFF
from packmule.plain_text import plain, plain_each, plain_json, plain_lines
from packmule.terminal.job_output import JobOutput
from packmule.worker.process.job_log import FinishedRecord

INDENT = "    "
DIM, YELLOW, RED, END = "\x1b[2m", "\x1b[33m", "\x1b[31m", "\x1b[0m"
FAULTS = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)
"""What a record whose text and arguments don't fit may raise, or a closed stream."""

COLOURS = {logging.WARNING: YELLOW, logging.ERROR: RED, logging.CRITICAL: RED}


class AsJson(logging.Formatter):
    """A record as one line of JSON: `time`, `level`, `logger`, `pid`, `message`, and its facts.

    A record about a job has `job`, `name`, `queue`, `attempt`, and as far as they apply `duration` in seconds
    and `error`, a traceback. What a job itself logs or prints has the first four.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end; of a record of many jobs a line for each."""
        if isinstance(record, FinishedRecord):
            return "\n".join(
                self._line(record, float(at), f"finished {facts['name']}", facts)
                for at, facts in record.facts()
            )
        found = {}
        if (job := context.running()) is not None:
            found = {"job": job.id, "name": job.name, "queue": job.queue, "attempt": job.attempt}
        found |= getattr(record, "fields", {})
        if record.exc_info:
            found["error"] = self.formatException(record.exc_info)
        message = getattr(record, "summary", None) or record.getMessage()
        return self._line(record, record.created, message, found)

    def _line(self, record: logging.LogRecord, at: float, message: str, facts: dict[str, Any]) -> str:
        found: dict[str, Any] = {
            "time": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": message,
            **facts,
        }
        return plain_json(
            msgspec.json.encode({name: _sound(value) for name, value in found.items()}).decode()
        )


class AsText(logging.Formatter):
    """A record as lines of text: what follows the first is indented, so no text can pass for another record.

    The first begins with the time, the level, and the id of the job that it is about. On a terminal the time
    of day is enough, and colours stand for the level.
    """

    def __init__(self, time_format: str, has_colours: bool = False) -> None:
        super().__init__()
        self.time_format = time_format
        self.has_colours = has_colours
        self._second = self._millisecond = self._text = self._time_text = ""

    def format(self, record: logging.LogRecord) -> str:
        """The lines, without the last one's end."""
        if isinstance(record, FinishedRecord):
            level = self._level(record)
            if not self.has_colours:
                return plain_each(record.lines(lambda at: self._time(at) + level))
            lines = plain_each(record.lines(lambda _: "")).split("\n")
            return "\n".join(
                self._time(job[0]) + line for job, line in zip(record.finished, lines, strict=True)
            )
        fields = getattr(record, "fields", {})
        job = context.running()
        id = fields.get("job") or (job.id if job else "")
        text = getattr(record, "text", None)
        if text is None:
            text = ("| " if job else "") + record.getMessage()
        first, *more = plain_lines(text).split("\n")
        error = self.formatException(record.exc_info) if record.exc_info else ""
        if record.levelno >= logging.ERROR:
            error = error or fields.get("error", "")
        more += plain_lines(error.rstrip()).split("\n") if error else []
        head = f"{self._time(f'{record.created:.6f}')}{self._level(record)}{plain(id)}"
        if self.has_colours:
            colour = COLOURS.get(record.levelno, "")
            first = f"{colour}{first}{END}" if colour else first
        return "\n".join([f"{head} {first}" if id else f"{head}{first}", *(INDENT + line for line in more)])

    def _time(self, at: str) -> str:
        """The Unix time `at`, a text with six decimals."""
        if at[:-3] != self._millisecond:
            self._millisecond = at[:-3]
            if at[:-7] != self._second:
                self._second = at[:-7]
                self._text = time.strftime(self.time_format, time.localtime(int(self._second)))
            shown = f"{self._text}.{at[-6:-3]} " if self.time_format else ""
            self._time_text = f"{DIM}{shown}{END}" if self.has_colours else shown
        return self._time_text

    def _level(self, record: logging.LogRecord) -> str:
        return "" if self.has_colours else f"{record.levelname:7} "


def _sound(value: Any) -> Any:
    """A file's name may hold half a character, which is not valid JSON."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


class Lines(logging.StreamHandler[IO[str]]):
    """Writes records to a stream; a child that is forked meanwhile doesn't inherit it locked."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        os.register_at_fork(before=self.acquire, after_in_parent=self.release, after_in_child=self.createLock)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        try:
            self.stream.write(self.format(record) + "\n")
            self.stream.flush()
        except FAULTS:  # not a timeout, which may interrupt a job as it logs
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say why a record can't be written where that doesn't come back here."""
        with suppress(*FAULTS):
            traceback.print_exc(file=sys.__stderr__)


def begin(settings: Settings, verbose: bool = False, quiet: bool = False) -> None:
    """Log to standard error as the settings say; `verbose` and `quiet` replace their level.

    What jobs print goes there too, labelled like what they log.
    """
    level = logging.DEBUG if verbose else logging.WARNING if quiet else settings.log_level.upper()
    handler = Lines(sys.stderr)
    handler.setFormatter(_formatter(settings.log_format))
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd logs each command of each mail
    for name in ("asyncio", "fsspec", "PIL", "redis"):
        logging.getLogger(name).setLevel(logging.INFO)
    sys.stdout = JobOutput(sys.stdout, handler, "stdout")
    sys.stderr = JobOutput(sys.stderr, handler, "stderr")


def let_through(level: str) -> None:
    """Let records of `level` and above, or none if it is `off`, reach jobs' own logs.

    What is shown stays as it was.
    """
    root, least = logging.getLogger(), LEVELS.get(level, OFF)
    shown = root.level
    if least < shown:
        for handler in root.handlers:
            handler.setLevel(shown)
        logging.getLogger("packmule").setLevel(shown)
        root.setLevel(least)


def _formatter(style: str) -> logging.Formatter:
    if style == "json":
        return AsJson()
    if style == "untimed":
        return AsText("")
    if sys.stderr.isatty():
        return AsText("%H:%M:%S", wants_colour())
    return AsText("%Y-%m-%d %H:%M:%S")
