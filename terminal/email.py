"""`packmule email`: the templates of mails, and what became of mails that were sent."""

from __future__ import annotations

import click


@click.group()
def email() -> None:
    """Look at mails: their templates, and what became of them."""
