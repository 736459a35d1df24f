"""Templates of mails: what each makes of values that somebody types. Nothing is sent."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from packmule.dashboard.pages.mail_caught import FRAMED, sizes
from packmule.dashboard.pages.paging import LONGEST_TEXT, page_of, small
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import HIDDEN
from packmule.dashboard.typed_values import as_json, is_json, typed
from packmule.errors import UsageError
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.message.css import inlined
from packmule.jobs.email.message.draft import Draft
from packmule.jobs.email.received import Received, read
from packmule.jobs.email.templating.lint import Finding, lint
from packmule.jobs.email.templating.rendering import InvalidTemplate, Renderer

MOST_BYTES = 20_000
"""Of what is shown of a mail, beside its form and what is typed there."""

MOST_FIELDS = 40
MOST_TYPED = 2_000
"""Characters of all values together, since they are in the page's address."""

FIELD = "var:"
"""What the names of the fields of variables begin with."""

READER = "Ada <ada@example.org>"


class Typed(NamedTuple):
    """What somebody has typed: a subject, and the texts of variables."""

    subject: str
    values: dict[str, str]

    @property
    def query(self) -> dict[str, str]:
        """The same, for an address."""
        return {"subject": self.subject, **{FIELD + name: text for name, text in self.values.items()}}


def templates(request: Request) -> Response:
    """`/mail/templates`: all templates, of the folder and those that Packmule ships."""
    found = _renderer(request).names()

    def of_rows(size: int) -> Response:
        return render(
            request,
            "mail_templates.html",
            page=page_of(found, request, size),
            folder=request.app.state.site.templates,
            sees=request.state.viewer.may_see_payloads,
        )

    return small(of_rows, 2 * MOST_BYTES, "list")


def template(request: Request) -> Response:
    """`/mail/templates/{name}`: the mail that a template makes of what is typed, and what to correct."""
    name, renderer = _name(request), _renderer(request)
    found = lint(renderer, name)
    fault, letter, mail, given = "", None, Received([], [], None, None), Typed("", {})
    try:
        given = _typed(request, found.variables)
        letter = _letter(request, given)
        mail = read(letter.content)
    except UsageError as error:
        fault = str(error)
    notes = list(found.findings)
    if left := inlined(_html(letter)).left:
        notes.append(Finding(f"{name}.html", 0, f"the styles are not inlined: {left}", False))

    def of_size(size: int) -> Response:
        return render(
            request,
            "mail_template.html",
            name=name,
            given=given,
            field=FIELD,
            more=len(found.variables) - len(given.values),
            fault=fault,
            notes=notes[:size],
            has_mail=letter is not None,
            **sizes(mail, letter.content if letter else b"", size),
        )

    return small(of_size, MOST_BYTES, "mail", size=64)


def frame(request: Request) -> Response:
    """`/mail/template-html/{name}`: the HTML of that mail, for the frame."""
    given = _typed(request, lint(_renderer(request), _name(request)).variables)
    return HTMLResponse(_html(_letter(request, given)), headers=FRAMED)


def _letter(request: Request, given: Typed) -> Letter:
    """The mail that a template makes. Raises `UsageError` with what is wrong, in one line."""
    if sum(map(len, given.query.values())) > MOST_TYPED:
        raise UsageError(
            f"the values have more than {MOST_TYPED:,} characters: use packmule email preview --vars FILE"
        )
    draft = Draft(
        _renderer(request), request.app.state.site.mail_from, given.subject, template=_name(request)
    )
    return draft.letter(READER, variables={name: typed("any", text) for name, text in given.values.items()})


def _html(letter: Letter | None) -> str:
    return (letter and letter.message and letter.message.content.html) or ""


def _typed(request: Request, variables: list[str]) -> Typed:
    """What the address has of `variables`, at first their samples or names. Raises `InvalidTemplate`."""
    query = request.query_params
    shown = [name for name in variables[:MOST_FIELDS] if len(name) <= LONGEST_TEXT]
    if any(name.startswith(FIELD) for name in query):
        values = {name: query.get(FIELD + name, "") for name in shown}
    else:
        samples = dict(zip(shown, shown, strict=True)) | _renderer(request).samples(_name(request))
        values = {name: _text(samples[name]) for name in shown}
    return Typed(query.get("subject", "")[:LONGEST_TEXT], values)


def _text(value: Any) -> str:
    """A value as it is typed into its field."""
    return value if isinstance(value, str) and not is_json(value) else as_json(value)


def _name(request: Request) -> str:
    if not request.state.viewer.may_see_payloads:
        raise HTTPException(403, f"The content of mails is {HIDDEN}.")
    name: str = request.path_params["name"]
    try:
        _renderer(request).parts(name)
    except InvalidTemplate as error:
        raise HTTPException(404, f"{error}") from None
    return name


def _renderer(request: Request) -> Renderer:
    return _renderer_of(request.app.state.site.templates)


@lru_cache(maxsize=2)
def _renderer_of(folder: str | None) -> Renderer:
    return Renderer(folder)


ROUTES = [
    Route("/mail/templates", templates, methods=["GET"], name="mail_templates"),
    Route("/mail/templates/{name:path}", template, methods=["GET"], name="mail_template"),
    Route("/mail/template-html/{name:path}", frame, methods=["GET"], name="mail_template_html"),
]
