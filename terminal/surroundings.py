"""Surroundings: what a command takes from the project around it, its `.env` and its modules."""

from __future__ import annotations

import sys
from pathlib import Path

from packmule import project
from packmule.config import SettingsError, provide, take_back

ENV = ".env"


def enter() -> None:
    """Give this process what the project's `.env` says and the environment doesn't; import from there, too.

    It may be called again: what an earlier call gave and the file no longer says is taken back. Raises
    `SettingsError` if the file can't be read.
    """
    path = dot_env()
    if path != Path(ENV) and str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    take_back()
    if path.is_file():
        provide(_values(path), str(path), to_children=True)


def dot_env() -> Path:
    """Where the project's `.env` is, or would be."""
    found = project.root()
    return Path(ENV) if found is None or found == Path.cwd() else found / ENV


def _values(path: Path) -> dict[str, str]:
    """The variables in a `.env`. Raises `SettingsError` for a line that says none, and never shows it."""
    from io import StringIO

    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} can't be read: {error}") from None
    for each in parse_stream(StringIO(text)):
        if each.error:
            text = each.original.string.lstrip()
            line = each.original.line + each.original.string.removesuffix(text).count("\n")
            raise SettingsError(f"{path}, line {line}: {_way_out(text)}")
    return {name: value for name, value in dotenv_values(stream=StringIO(text)).items() if value is not None}


def _way_out(line: str) -> str:
    """How to mend a line that can't be read. It may hold a secret, so only a name of it is shown."""
    name, equals, value = line.strip().partition("=")
    name = name.removeprefix("export ").strip()
    if not equals or not name.isidentifier():
        return "it is not NAME=value: write it like that, or comment it out with #"
    quote = value.strip()[:1]
    if quote in ("'", '"') and value.count(quote) % 2:
        return f"the value of {name} has no closing {quote}: add one, or write it without quotes"
    return f"something follows the quoted value of {name}: remove it, or quote all of the value"
