"""Read a TOML file of schedules, webhooks, presets or pipelines, and say where in it something is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from packmule.errors import UsageError


class InvalidFile(UsageError, ValueError):
    """A file of schedules, webhooks, presets or pipelines can't be used; the text names it and the place."""


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a file, and its content as a dictionary. Raises `InvalidFile`."""
    try:
        text = path.read_bytes().decode()
        return text, tomllib.loads(text)
    except OSError as error:
        raise InvalidFile(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidFile(f"{path} is not valid TOML: {error}") from None


def place_in(path: Path, text: str, table: str, field: str | None = None) -> str:
    """`schedules.toml, line 3`: the line of the field if it is found, or else of the table."""
    header = re.compile(rf"\s*\[\s*[\"']?{re.escape(table)}[\"']?\s*\]|\s*{re.escape(table)}\s*[=.]")
    place = None
    for number, line in enumerate(text.splitlines(), 1):
        if place is None:
            place = number if header.match(line) else None
        elif line.lstrip().startswith("["):
            break
        elif field is not None and re.match(rf"\s*{re.escape(field)}\s*=", line):
            place = number
            break
    return f"{path}, line {place}" if place else str(path)
