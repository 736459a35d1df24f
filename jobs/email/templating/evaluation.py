"""Evaluation of templates by Jinja2, in a sandbox and within an allowance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

from jinja2 import (
    FileSystemLoader,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
)
from jinja2.exceptions import SecurityError, UndefinedError

from packmule.jobs.email.templating.allowance import MAX_OUTPUT, OverBounds, allowance, weigh
from packmule.jobs.email.templating.environment import BoundedEnvironment, SubjectEnvironment
from packmule.jobs.email.templating.rendering import NOT_GIVEN, InvalidTemplate

MAX_SAID = 300
"""Characters of an error's text."""

_BODY_FAULTS = (
    ArithmeticError,
    AssertionError,
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
        self.environment = BoundedEnvironment(
            loader=FileSystemLoader(folders),
            autoescape=lambda name: name is not None and name.endswith(".html"),
        )
        self._compiled = lru_cache(maxsize=256)(SubjectEnvironment().from_string)

    def subject(self, source: str, variables: Mapping[str, Any]) -> str:
        """The subject line `source`, rendered. Raises `InvalidTemplate`."""
        return self._rendered("subject", lambda: self._compiled(source), variables)

    def part(self, name: str, variables: Mapping[str, Any]) -> str:
        """The template called `name`, rendered. Raises `InvalidTemplate`."""
        return self._rendered(f"template {name}", lambda: self.environment.get_template(name), variables)

    def _rendered(self, where: str, load: Callable[[], Template], variables: Mapping[str, Any]) -> str:
        with allowance(), explained(where):
            given = dict(variables)
            weigh(given)
            template = load()
            # Not `generate`, which rewrites tracebacks for people at length.
            return _bounded(template.root_render_func(template.new_context(given)))


class explained:  # noqa: N801  used like a function
    """Turn what goes wrong in a template into `InvalidTemplate`: one line, with the template and its line."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise `InvalidTemplate` for an error of a template's."""
        if error is None:
            return
        if isinstance(error, TemplateSyntaxError):
            # Of a tag that doesn't end, Jinja2 has the path in place of the name.
            is_name = error.name and not error.name.startswith("/")
            where = f"template {error.name}" if is_name else self._where
            raise InvalidTemplate(_line(f"{where}, line {error.lineno}: {error.message}")) from None
        where = _place(trace, self._where)
        if isinstance(error, UndefinedError):
            said = _missing(error)
        elif isinstance(error, SecurityError):
            said = f"{error.message}; templates run in a sandbox"
        elif isinstance(error, TemplateNotFound):
            said = f"it includes {str(error.name)[:80]!r}, which does not exist"
        elif isinstance(error, TemplateError):
            said = str(error.message)
        elif isinstance(error, OSError):
            said = f"its file can't be read: {error.strerror}"
        elif isinstance(error, UnicodeDecodeError):
            said = "its file is not UTF-8"
        elif isinstance(error, RecursionError):
            said = "it includes or calls itself without end, or is nested too deeply"
        elif isinstance(error, _BODY_FAULTS):
            said = f"{type(error).__name__}: {error}"
        else:
            return
        raise InvalidTemplate(_line(f"{where}: {said}")) from None


def _place(trace: TracebackType | None, where: str) -> str:
    """The innermost template and its line, if a template was being rendered."""
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            line = template.get_corresponding_lineno(trace.tb_lineno)
            where = f"template {template.name}, line {line}" if template.name else where
        trace = trace.tb_next
    return where


def _bounded(pieces: Iterable[str]) -> str:
    kept, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_OUTPUT:
            raise OverBounds(f"it renders to more than {MAX_OUTPUT:,} characters")
        kept.append(piece)
    return "".join(kept)


def _line(text: str) -> str:
    shown = "".join(c if c.isprintable() else " " for c in text[: 2 * MAX_SAID])
    return shown if len(shown) <= MAX_SAID else f"{shown[:MAX_SAID]}..."


def _missing(error: UndefinedError) -> str:
    """Jinja2's `'name' is undefined` with the way out; for anything else undefined, Jinja2's message."""
    message = str(error.message)
    if message.endswith("' is undefined"):
        name = message.removeprefix("'").removesuffix("' is undefined")
        return f"'{name}' {NOT_GIVEN}; pass it in variables (on the command line: --var {name}=...)"
    return message
