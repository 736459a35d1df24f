"""`packmule email preview` and `packmule email lint`: templates, before a mail is made of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from packmule.terminal.app import App
from packmule.terminal.parameters import assignments, json_option, variables_option
from packmule.terminal.say import complain, say


@click.command("preview")
@click.argument("template")
@variables_option
@click.option("--vars", "file", metavar="FILE", help="Take variables from this JSON file.")
@click.option("--subject", default="", help="Render this subject too.")
@click.option("--html", "as_html", is_flag=True, help="Print the HTML instead of the text.")
@click.option("--raw", "as_raw", is_flag=True, help="Print the whole mail as it would be sent.")
@json_option
@click.pass_obj
def email_preview(
    app: App,
    template: str,
    variables: tuple[str, ...],
    file: str | None,
    subject: str,
    as_html: bool,
    as_raw: bool,
    json: bool,
) -> None:
    """Show the mail that a template makes."""
    from packmule.jobs.email.message.css import inlined
    from packmule.jobs.email.message.draft import Draft
    from packmule.jobs.email.templating.rendering import Renderer
    from packmule.terminal import show

    renderer = Renderer(app.settings.templates)
    given = renderer.samples(template)
    given |= (_from_file(file) if file else {}) | assignments("--var", variables)
    draft = Draft(renderer, app.settings.mail_from, subject, template=template)
    rendered = draft.render(given)
    content = rendered.content
    if left := inlined(content.html or "").left:
        complain(f"the styles are not inlined: {left}")
    letter = draft.letter("reader@example.org", rendered=rendered)
    if json:
        show.as_json(
            {
                "subject": rendered.subject,
                "text": content.text,
                "html": content.html,
                "bytes": len(letter.content),
            }
        )
    elif as_raw:
        _print(letter.content.decode().replace("\r\n", "\n"))
    elif as_html:
        if content.html is None:
            raise click.UsageError(f"{template} has no HTML: there is no {template}.html")
        _print(content.html)
    else:
        if rendered.subject:
            say(f"Subject: {rendered.subject}")
            say("")
        _print(content.text or "")


@click.command("lint")
@click.argument("template")
@json_option
@click.pass_obj
def email_lint(app: App, template: str, json: bool) -> int:
    """Check a template.

    Print errors, what mail clients don't show, and the template's variables. Exit with 1 if there is an
    error.
    """
    from packmule.jobs.email.templating.lint import lint
    from packmule.jobs.email.templating.rendering import Renderer
    from packmule.terminal import show

    found = lint(Renderer(app.settings.templates), template)
    code = int(any(finding.is_error for finding in found.findings))
    if json:
        show.as_json(
            {
                "files": found.files,
                "variables": found.variables,
                "findings": [finding._asdict() for finding in found.findings],
            }
        )
        return code
    for finding in found.findings:
        place = f"{finding.file}, line {finding.line}" if finding.line else finding.file
        say(f"{place}: {'error: ' if finding.is_error else ''}{finding.said}")
    say(f"variables: {', '.join(found.variables) or 'none'}")
    return code


def _print(text: str) -> None:
    for line in text.rstrip("\n").split("\n"):
        say(line)


def _from_file(path: str) -> dict[str, Any]:
    import msgspec

    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise click.UsageError(f"--vars {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--vars {path} is not a JSON object: {error}") from None
