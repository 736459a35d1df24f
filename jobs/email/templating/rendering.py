"""Templates: Jinja2 in a sandbox, from the user's folder and ours."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from packmule.coordination.redis.replies import UNREADABLE
from packmule.errors import UsageError
from packmule.jobs.email.letter import Content
from packmule.units import KIB

if TYPE_CHECKING:
    from packmule.jobs.email.templating.environment import BoundedEnvironment
    from packmule.jobs.email.templating.evaluation import Templates

SHIPPED = Path(__file__).parents[1] / "templates"

MOST_SAMPLES = 64 * KIB

MOST_FILES = 2_000
"""Files of a folder that are listed."""

LONGEST_NAME = 200
"""Characters of a template's name, which every file system takes."""

_NAME = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*")


NOT_GIVEN = "is not given"
"""What the error says of a variable that a template lacks."""


class InvalidTemplate(UsageError, ValueError):
    """A template is missing, can't be rendered, or lacks a variable."""


class Renderer:
    """Renders templates by name, from `folder` if given and then from those that Packmule ships.

    Templates can reach neither Python's internals nor files outside the folders, can't change their
    variables, must be given every variable they use, and have an allowance of text, steps and time. They may
    extend and include others of the folders. A subject comes with the job, so it may do little
    (`SubjectEnvironment`). Values are escaped in `.html` templates only. Create one per process: it caches
    compiled templates.

    >>> Renderer().subject("Hello {{ name }}", {"name": "Ada"})
    'Hello Ada'
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folders = [Path(folder), SHIPPED] if folder else [SHIPPED]

    def content(self, template: str, variables: Mapping[str, Any]) -> Content:
        """Render `template`: `welcome` means `welcome.html`, `welcome.txt` or both, from one folder.

        Raises `InvalidTemplate`.
        """
        names = self.parts(template)
        text = f"{template}.txt"
        html = f"{template}.html"
        return Content(
            self._templates.part(text, variables) if text in names else None,
            self._templates.part(html, variables) if html in names else None,
        )

    def subject(self, source: str, variables: Mapping[str, Any]) -> str:
        """Render a subject line that contains `{{`. Raises `InvalidTemplate`."""
        return self._templates.subject(source, variables)

    @property
    def environment(self) -> BoundedEnvironment:
        """What parses and evaluates them."""
        return self._templates.environment

    @cached_property
    def _templates(self) -> Templates:
        """What evaluates them, from the first mail on that has a template: it keeps other workers small."""
        from packmule.jobs.email.templating.evaluation import Templates  # noqa: PLC0415  it imports Jinja2

        return Templates(self._folders)

    def names(self) -> list[str]:
        """The templates of all folders, or some of them if there are thousands of files."""
        found = set[str]()
        for folder in self._folders:
            paths = (Path(at, file) for at, _, files in os.walk(folder) for file in files)
            for path in islice(paths, MOST_FILES):
                name = path.relative_to(folder).with_suffix("").as_posix()
                if path.suffix in {".html", ".txt"} and _NAME.fullmatch(name):
                    found.add(name)
        return sorted(found)

    def samples(self, template: str) -> dict[str, Any]:
        """The variables in `<template>.json`, which stands beside the template for previews; {} without it.

        Raises `InvalidTemplate`.
        """
        name = f"{template}.json"
        path = self._located(template)[0] / name
        try:
            with path.open("rb") as file:
                text = file.read(MOST_SAMPLES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InvalidTemplate(f"{name} can't be read: {error.strerror}") from None
        if len(text) > MOST_SAMPLES:
            raise InvalidTemplate(f"{name} has more than {MOST_SAMPLES:,} bytes")
        try:
            return msgspec.json.decode(text, type=dict[str, Any])
        except UNREADABLE as error:
            raise InvalidTemplate(f"{name} is not a JSON object: {error}") from None

    def parts(self, template: str) -> list[str]:
        """The files of `template` in the first folder that has any; a mail never mixes two folders.

        Raises `InvalidTemplate`.
        """
        return self._located(template)[1]

    def _located(self, template: str) -> tuple[Path, list[str]]:
        """The folder of `template`, and its files there."""
        check_name(template)
        names = [f"{template}.html", f"{template}.txt"]
        for folder in self._folders:
            if found := [name for name in names if (folder / name).is_file()]:
                return folder, found
        if not (own := self._folders[0]).is_dir():
            raise InvalidTemplate(f"template {template!r}: PACKMULE_TEMPLATES={own} is not a folder")
        from difflib import get_close_matches  # noqa: PLC0415  for a mistake

        near = get_close_matches(template, self.names(), 1)
        raise InvalidTemplate(
            f"template {template!r}: there is no {template}.html or {template}.txt in "
            + " or ".join(str(folder) for folder in self._folders)
            + (f"; did you mean {near[0]}?" if near else "; set PACKMULE_TEMPLATES to your own folder")
        )


def check_name(template: str) -> None:
    """Refuse a name that no template has. Raises `InvalidTemplate`."""
    if len(template) > LONGEST_NAME or not _NAME.fullmatch(template):
        raise InvalidTemplate(
            f"template {template[:80]!r}: give the name of a file in the templates folder without suffix, "
            "such as welcome or orders/shipped"
        )
