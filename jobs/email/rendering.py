"""Templates: Jinja2 in a sandbox, from the user's folder and ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import (
    FileSystemLoader,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
)
from jinja2.exceptions import SecurityError, UndefinedError

from packmule.errors import UsageError
from packmule.jobs.email.bounded import MAX_OUTPUT, BoundedEnvironment, SubjectEnvironment

SHIPPED = Path(__file__).parent / "templates"

_NAME = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*")
_BODY_FAULTS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""Errors that an expression in a template can raise."""


class InvalidTemplate(UsageError):
    """A template is missing, can't be rendered, or lacks a variable."""


@dataclass(frozen=True, slots=True)
class Content:
    """A mail's content, as plain text, HTML, or both."""

    text: str | None
    html: str | None


class Renderer:
    """Renders templates by name, from `folder` if given and then from those that Packmule ships.

    Templates run in Jinja2's sandbox: they can reach neither Python's internals nor files outside the
    folders, can't change their variables, must be given every variable they use, and may produce up to
    `MAX_OUTPUT` characters. A subject comes with the job, so it may do little (`SubjectEnvironment`). Values
    are escaped in `.html` templates only. Create one per process: it caches compiled templates.

    >>> Renderer().subject("Hello {{ name }}", {"name": "Ada"})
    'Hello Ada'
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folders = [Path(folder), SHIPPED] if folder else [SHIPPED]
        self._environment = BoundedEnvironment(
            loader=FileSystemLoader(self._folders),
            autoescape=lambda name: name is not None and name.endswith(".html"),
        )
        self._compiled = lru_cache(maxsize=256)(SubjectEnvironment().from_string)

    def content(self, template: str, variables: Mapping[str, Any]) -> Content:
        """Render `template`: `welcome` means `welcome.html`, `welcome.txt` or both, from one folder.

        Raises `InvalidTemplate`.
        """
        names = self._parts(template)
        text = f"{template}.txt"
        html = f"{template}.html"
        return Content(
            self._part(text, variables) if text in names else None,
            self._part(html, variables) if html in names else None,
        )

    def subject(self, source: str, variables: Mapping[str, Any]) -> str:
        """Render a subject line that contains `{{`. Raises `InvalidTemplate`."""
        return self._rendered("subject", lambda: self._compiled(source), variables)

    def _parts(self, template: str) -> list[str]:
        """The files of `template` in the first folder that has any; a mail never mixes two folders."""
        if not _NAME.fullmatch(template):
            raise InvalidTemplate(
                f"template {template!r}: give the name of a file in the templates folder without suffix, "
                "such as welcome or orders/shipped"
            )
        for folder in self._folders:
            names = [f"{template}.html", f"{template}.txt"]
            if found := [name for name in names if (folder / name).is_file()]:
                return found
        raise InvalidTemplate(
            f"template {template!r}: there is no {template}.html or {template}.txt in "
            + " or ".join(str(folder) for folder in self._folders)
            + "; set PACKMULE_TEMPLATES to your own folder"
        )

    def _part(self, name: str, variables: Mapping[str, Any]) -> str:
        return self._rendered(f"template {name}", lambda: self._environment.get_template(name), variables)

    def _rendered(self, where: str, load: Callable[[], Template], variables: Mapping[str, Any]) -> str:
        try:
            return _bounded(where, load().generate(variables))
        except UndefinedError as error:
            raise InvalidTemplate(f"{where}: {_missing(error)}") from None
        except SecurityError as error:
            raise InvalidTemplate(f"{where}: {error.message}; templates run in a sandbox") from None
        except TemplateSyntaxError as error:
            place = f"template {error.name}" if error.name else where
            raise InvalidTemplate(f"{place}, line {error.lineno}: {error.message}") from None
        except TemplateNotFound as error:
            raise InvalidTemplate(f"{where}: it includes {error.name!r}, which does not exist") from None
        except TemplateError as error:
            raise InvalidTemplate(f"{where}: {error.message}") from None
        except _BODY_FAULTS as error:
            raise InvalidTemplate(f"{where}: {type(error).__name__}: {error}") from None


def _bounded(where: str, pieces: Iterable[str]) -> str:
    kept, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_OUTPUT:
            raise InvalidTemplate(f"{where}: it renders to more than {MAX_OUTPUT:,} characters")
        kept.append(piece)
    return "".join(kept)


def _missing(error: UndefinedError) -> str:
    """Jinja2's `'name' is undefined` with the way out; for anything else undefined, Jinja2's message."""
    message = str(error.message)
    if message.endswith("' is undefined"):
        name = message.removeprefix("'").removesuffix("' is undefined")
        return f"'{name}' is not given; pass it in variables (on the command line: --var {name}=...)"
    return message
