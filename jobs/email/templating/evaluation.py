"""Evaluation of templates by Jinja2, in a sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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

from packmule.jobs.email.templating.bounded import MAX_OUTPUT, BoundedEnvironment, SubjectEnvironment
from packmule.jobs.email.templating.rendering import InvalidTemplate

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


class Templates:
    """The templates of `folders`, and subjects; it caches what it has compiled."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._environment = BoundedEnvironment(
            loader=FileSystemLoader(folders),
            autoescape=lambda name: name is not None and name.endswith(".html"),
        )
        self._compiled = lru_cache(maxsize=256)(SubjectEnvironment().from_string)

    def subject(self, source: str, variables: Mapping[str, Any]) -> str:
        """The subject line `source`, rendered. Raises `InvalidTemplate`."""
        return self._rendered("subject", lambda: self._compiled(source), variables)

    def part(self, name: str, variables: Mapping[str, Any]) -> str:
        """The template called `name`, rendered. Raises `InvalidTemplate`."""
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
