"""`packmule token`: what programs show to use the HTTP API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from packmule.dashboard.api.scopes import Scope
from packmule.terminal.app import App
from packmule.terminal.audit import Audited, audited
from packmule.terminal.parameters import Duration, json_option
from packmule.terminal.say import say

if TYPE_CHECKING:
    from packmule.coordination.sessions.tokens import Tokens

API = "api"


@click.group()
def token() -> None:
    """Add, list and revoke tokens for the HTTP API."""


@token.command("add", cls=Audited)
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([*map(str, Scope)]),
    multiple=True,
    required=True,
    help="Allow this; can be repeated.",
)
@click.option(
    "--expires",
    "lifetime",
    type=Duration(),
    default="90d",
    show_default=True,
    help="Time until it expires, at most a year.",
)
@click.pass_obj
def token_add(app: App, name: str, scopes: tuple[str, ...], lifetime: float) -> None:
    """Create a token, and print it this once.

    NAME has letters, digits and . _ -
    """
    from packmule.observe.audit import whoami

    audited(lambda: {"scopes": list(scopes)})
    say(_tokens(app).add(name, scopes, lifetime=lifetime, made_by=whoami()))
    say(
        "Keep it in a safe place: only its hash is stored. Send it as: Authorization: Bearer pm_...", err=True
    )


@token.command("list")
@json_option
@click.pass_obj
def token_list(app: App, json: bool) -> None:
    """List the tokens."""
    from packmule.terminal import show

    found = _tokens(app).all()
    if json:
        rows = [
            {
                "name": each.name,
                "scopes": sorted(each.scopes),
                "expires_at": each.expires_at,
                "used_at": each.used_at,
                "made_by": each.made_by,
            }
            for each in found
        ]
        show.as_json(rows)
        return
    cells = [
        [
            each.name,
            ", ".join(sorted(each.scopes)),
            show.ago(each.expires_at),
            show.ago(each.used_at),
            each.made_by,
        ]
        for each in found
    ]
    show.table(
        ("token", "scopes", "expires", "last used", "made by"), cells, "no tokens: packmule token add NAME"
    )


@token.command("revoke", cls=Audited)
@click.argument("name")
@click.pass_obj
def token_revoke(app: App, name: str) -> None:
    """Revoke a token at once."""
    _tokens(app).revoke(name)
    say(f"{name} is revoked")


def _tokens(app: App) -> Tokens:
    from packmule.coordination.sessions.tokens import Tokens

    return Tokens(app.client, API)
