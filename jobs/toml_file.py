"""TOML files of settings: read whole, or refused with the reason."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


class InvalidFile(ValueError):
    """A file of schedules or webhooks that can't be used as it stands; the text names it and the place."""


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a file, and what it says. Raises `InvalidFile`."""
    try:
        text = path.read_bytes().decode()
        return text, tomllib.loads(text)
    except OSError as error:
        raise InvalidFile(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidFile(f"{path} is no TOML: {error}") from None
