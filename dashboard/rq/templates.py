"""rq-dashboard's templates, changed as they are loaded: they escape values, and their scripts have nonces."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from jinja2 import BaseLoader, Environment

from packmule.errors import Error

_SCRIPT = re.compile(r"<script\b")

_UNDERSCORE = re.compile(r"<script[^>]*underscore[^>]*></script>")

KNOWN = "install a version of it that pip accepts with Packmule"

OURS = """
        <script src="{{ script }}" nonce="{{ nonce }}"></script>"""
"""`static/rq.js`, behind Underscore and in front of their scripts, which it makes escape what they show."""

CHANGES: dict[str, tuple[tuple[str, str], ...]] = {
    "rq_dashboard/navbar.html": (
        (
            '<a class="navbar-brand">RQ-dashboard</a>',
            '<a class="nav-link" href="{{ home }}">&lsaquo; Packmule</a>'
            '<span class="navbar-brand">RQ-dashboard</span>',
        ),
    ),
    "rq_dashboard/jobs.html": (
        ("$('<div/>').text(d.description).html()", "d.description"),  # escaped like all the others now
        ("$('<div/>').text(d.exc_info).html()", "d.exc_info"),
        ("<strong>{{ queue.name }}</strong>", "<strong>{{ queue.name|plain }}</strong>"),
    ),
    "rq_dashboard/job.html": (
        ("JSON.stringify(d.result, null, 2)", "d.result_text"),
        ("</strong>: {{ id }}</h2>", "</strong>: {{ id|plain }}</h2>"),
    ),
    "rq_dashboard/scripts/jobs.js": (("'{{ queue.name }}'", "{{ queue.name|tojson|safe }}"),),
}
"""What is replaced in which template; each text is there exactly once."""


class UnknownTemplate(Error, RuntimeError):
    """A template of rq-dashboard isn't what this version of Packmule knows how to make safe."""


class SafeTemplates(BaseLoader):
    """Loads what `inner` does, changed; scripts get the page's nonce, so no other script runs.

    The nonces are put into the templates and not into pages, which hold what others wrote.
    """

    def __init__(self, inner: BaseLoader) -> None:
        self.inner = inner

    def get_source(
        self, environment: Environment, template: str
    ) -> tuple[str, Any, Callable[[], bool] | None]:
        """The changed source of a template."""
        source, filename, is_current = self.inner.get_source(environment, template)
        return changed(template, source), filename, is_current

    def list_templates(self) -> list[str]:
        """The names of all templates."""
        return self.inner.list_templates()


def changed(template: str, source: str) -> str:
    """The source of a template as it is served. Raises `UnknownTemplate` if it can't be made safe."""
    for old, new in CHANGES.get(template, ()):
        if source.count(old) != 1:
            raise UnknownTemplate(f"rq-dashboard's {template} is not as expected: {KNOWN}")
        source = source.replace(old, new)
    source = _SCRIPT.sub('<script nonce="{{ nonce }}"', source)
    if template == "rq_dashboard/base.html":
        source, found = _UNDERSCORE.subn(lambda tag: tag[0] + OURS, source)
        if found != 1:
            raise UnknownTemplate(f"rq-dashboard loads its templates in another way: {KNOWN}")
    return source
