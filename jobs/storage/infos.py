"""What file systems of fsspec say of a file, each in its own words: when it was written, and which it is."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime
from typing import Any

from packmule.jobs.storage.owners import FORGOTTEN

CHANGED = ("LastModified", "last_modified", "mtime", "updated", "created")
"""Names under which file systems say when a file was written."""

CHANGING = ("size", "ETag", "etag", "md5", "generation", "Last-Modified", *CHANGED)
"""What file systems say of a file that is another when the file is; each has some of them."""


def version_of(found: dict[str, Any] | None) -> str | None:
    """A text that is another one when the file is; None if there is none."""
    if found is None:
        return None
    return "-".join(str(found[name]) for name in CHANGING if found.get(name) is not None)


def changed_at(info: dict[str, Any]) -> float | None:
    """When a file was written, in Unix seconds, if its file system says so."""
    for name in CHANGED:
        match info.get(name):
            case datetime() as at:
                return at.timestamp()
            case int() | float() as seconds:
                return float(seconds)
            case str(text):
                with suppress(ValueError):
                    return datetime.fromisoformat(text).timestamp()
    return None


def is_forgotten(info: dict[str, Any]) -> bool:
    """Whether a file was written so long ago that nobody will finish it."""
    at = changed_at(info)
    return at is not None and time.time() - at > FORGOTTEN
