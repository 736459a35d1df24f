"""Read a TOML file of schedules or webhooks."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from packmule.errors import UsageError


class InvalidFile(UsageError, ValueError):
    """A file of schedules or webhooks can't be used; the text names the file and the place."""


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a file, and its content as a dictionary. Raises `InvalidFile`."""
    try:
        text = path.read_bytes().decode()
        return text, tomllib.loads(text)
    except OSError as error:
        raise InvalidFile(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidFile(f"{path} is not valid TOML: {error}") from None
