"""Job output: what jobs print becomes lines of the log, labelled with the job, and of the job's own log."""

from __future__ import annotations

import logging
from typing import IO, Any

from packmule.jobs import context, said

LONGEST_LINE = 16_384
"""Characters after which a line is ended."""


class JobOutput:
    """Takes the place of standard output or error: lines of jobs go to `handler`, other text to `stream`.

    Only what Python code prints is seen, not what a child process or a library in C writes.
    """

    def __init__(self, stream: IO[str], handler: logging.Handler, name: str) -> None:
        self._stream = stream
        self._handler = handler
        self._name = name

    def write(self, text: str) -> int:
        """Write the text, or the lines that it completes if a job prints it."""
        job = context.running()
        if job is None:
            return self._stream.write(text)
        if job.printing is None:
            job.printing = _Printing(self._handler)
        job.printing.write(self._name, text)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what the stream and the log hold back; a job's line is held back until it ends."""
        self._stream.flush()
        self._handler.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Printing:
    """What a job has printed: lines that have ended are logged, and the others at the end of the job."""

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler
        self._begun: dict[str, str] = {}

    def write(self, name: str, text: str) -> None:
        *lines, rest = (self._begun.pop(name, "") + text).split("\n")
        if len(rest) > LONGEST_LINE:
            lines.append(rest)
            rest = ""
        for line in lines:
            self._log(name, line)
        if rest:
            self._begun[name] = rest

    def end(self) -> None:
        """Log what has no line's end."""
        for name, rest in self._begun.items():
            self._log(name, rest)
        self._begun = {}

    def _log(self, name: str, line: str) -> None:
        # Past the logger, whose level says what is worth a line: what a job prints always is.
        record = logging.LogRecord(f"packmule.{name}", logging.INFO, "", 0, line, None, None)
        self._handler.handle(record)
        if (heard := context.said()) is not None and heard.level <= logging.INFO:
            heard.line(said.line(record.created, logging.INFO, line))
