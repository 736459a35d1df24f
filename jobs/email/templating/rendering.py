"""Templates: Jinja2 in a sandbox, from the user's folder and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packmule.errors import UsageError
from packmule.jobs.email.letter import Content

if TYPE_CHECKING:
    from packmule.jobs.email.templating.environment import BoundedEnvironment
    from packmule.jobs.email.templating.evaluation import Templates

SHIPPED = Path(__file__).parents[1] / "templates"

_NAME = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*")


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

    def parts(self, template: str) -> list[str]:
        """The files of `template` in the first folder that has any; a mail never mixes two folders.

        Raises `InvalidTemplate`.
        """
        check_name(template)
        for folder in self._folders:
            names = [f"{template}.html", f"{template}.txt"]
            if found := [name for name in names if (folder / name).is_file()]:
                return found
        raise InvalidTemplate(
            f"template {template!r}: there is no {template}.html or {template}.txt in "
            + " or ".join(str(folder) for folder in self._folders)
            + "; set PACKMULE_TEMPLATES to your own folder"
        )


def check_name(template: str) -> None:
    """Refuse a name that no template has. Raises `InvalidTemplate`."""
    if not _NAME.fullmatch(template):
        raise InvalidTemplate(
            f"template {template[:80]!r}: give the name of a file in the templates folder without suffix, "
            "such as welcome or orders/shipped"
        )
