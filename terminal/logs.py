"""The log of long-running commands: lines of text, or one JSON object per line."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

from packmule.jobs import current


class AsJson(logging.Formatter):
    """A record as one line of JSON: `time`, `level`, `logger`, `pid`, `job`, `message` and `error`.

    `job` is the id of the job whose code logged it, whichever executor runs it; it is absent elsewhere, as
    `error`, a traceback, is where there is none.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if (job := current.job_id()) is not None:
            fields["job"] = job
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode({name: _sound(value) for name, value in fields.items()}).decode()


def _sound(value: Any) -> Any:
    """A file's name may hold half a character, which is not valid JSON."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def log_to_stderr(style: str) -> None:
    """Log to standard error, as `text` or as `json`."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(AsJson() if style == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd logs each command of each mail
