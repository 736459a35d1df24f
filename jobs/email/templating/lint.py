"""What is wrong with a template, found without a recipient, and the variables that it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from jinja2 import TemplateError, TemplateNotFound, TemplateSyntaxError, meta, nodes

from packmule.jobs.email.templating.allowance import allowance
from packmule.jobs.email.templating.environment import BoundedEnvironment
from packmule.jobs.email.templating.rendering import Renderer

CLIPPED = 102_000
"""Bytes of HTML from which on Gmail shows only the beginning of a mail."""

MOST_FILES = 100

_HTML = (
    (re.compile(r"<script\b", re.I), "mail readers remove scripts"),
    (re.compile(r"<(?:form|input|button)\b", re.I), "most mail readers don't show forms: link to a page"),
    (
        re.compile(r"<(?:iframe|object|embed|video)\b", re.I),
        "mail readers don't show embedded pages or films",
    ),
    (
        re.compile(r"<link\b[^<>]{0,500}stylesheet", re.I),
        "mail readers load no style sheets: put the rules into a <style>",
    ),
    (re.compile(r"@import\b", re.I), "mail readers load no style sheets: put the rules into the <style>"),
    (re.compile(r"<img\b(?![^<>]{0,2000}\balt\s*=)[^<>]{0,2000}>", re.I), "an image has no alt text"),
    (
        re.compile(
            r"\b(?:src|href)\s*=\s*[\"'](?!https?:|mailto:|tel:|sms:|cid:|data:|#|\{)[^\"'<>]{1,500}", re.I
        ),
        "a mail has no address of its own: give the whole URL, with https://",
    ),
    (re.compile(r"\bhref\s*=\s*[\"']http:", re.I), "the link is not https"),
)


_OTHERS = (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)


class Finding(NamedTuple):
    """Something to mend: an error, without which the template can't be sent, or advice."""

    file: str
    line: int
    said: str
    is_error: bool


class Lint(NamedTuple):
    """What was looked at and found, and the variables that the template needs or may have."""

    files: list[str]
    variables: list[str]
    findings: list[Finding]


def lint(renderer: Renderer, template: str) -> Lint:
    """Look at `template`, and at all that it extends and includes. Raises `InvalidTemplate` if there is none.

    >>> lint(Renderer(), "welcome").variables
    ['name']
    """
    parts = renderer.parts(template)
    environment = renderer.environment
    seen: dict[str, set[str]] = {}
    findings = []
    for part in parts:
        findings += list(_looked_at(environment, part, seen))
    if not any(part.endswith(".txt") for part in parts):
        findings.append(
            Finding(parts[0], 0, f"there is no {template}.txt: a text is made of the HTML", False)
        )
    own = set().union(*seen.values()) - set(environment.globals)
    return Lint(sorted(seen), sorted(own), sorted(findings))


def _looked_at(environment: BoundedEnvironment, name: str, seen: dict[str, set[str]]) -> Iterator[Finding]:
    if name in seen or len(seen) >= MOST_FILES:
        return
    seen[name] = set()
    try:
        source = environment.source(name)
        with allowance():
            tree = environment.parse(source, name)
            environment.compile(source, name)
    except TemplateNotFound:
        yield Finding(name, 0, "there is no such template", True)
        return
    except TemplateSyntaxError as error:
        yield Finding(name, error.lineno, str(error.message), True)
        return
    except (TemplateError, OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        yield Finding(name, 0, f"{type(error).__name__}: {error}"[:300], True)
        return
    seen[name] = meta.find_undeclared_variables(tree)
    if name.endswith(".html"):
        yield from _html(name, source, tree)
    for node in tree.find_all(_OTHERS):
        for other in _constants(getattr(node, "template", None)):
            if other in seen or not getattr(node, "ignore_missing", False):
                found = list(_looked_at(environment, other, seen))
                yield from found


def _html(name: str, source: str, tree: nodes.Template) -> Iterator[Finding]:
    for pattern, said in _HTML:
        for found in pattern.finditer(source):
            yield Finding(name, source.count("\n", 0, found.start()) + 1, said, False)
    if len(source.encode(errors="replace")) > CLIPPED:
        yield Finding(name, 0, f"Gmail cuts a mail of more than {CLIPPED:,} bytes", False)
    for node in tree.find_all(nodes.Filter):
        if node.name == "safe":
            yield Finding(name, node.lineno, "|safe: whoever fills the variable can write HTML", False)


def _constants(node: Any) -> list[str]:
    if isinstance(node, nodes.Filter):  # which the allowance put around a list
        node = node.node
    if isinstance(node, nodes.Const):
        return [str(each) for each in (node.value if isinstance(node.value, list | tuple) else [node.value])]
    if isinstance(node, nodes.List | nodes.Tuple):
        return [str(item.value) for item in node.items if isinstance(item, nodes.Const)]
    return []
