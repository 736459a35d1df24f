"""Say: one plain line to a person, on standard output or as a complaint on standard error."""

from __future__ import annotations

import click

from packmule.plain_text import plain, plain_lines


def say(text: object, err: bool = False) -> None:
    """Print `text` as one line; with `err`, on standard error."""
    click.echo(plain(text), err=err)


def say_lines(text: str, ends: bool = True) -> None:
    """Print `text` with its lines kept; unless it `ends`, more of its last line follows."""
    click.echo(plain_lines(text), nl=ends)


def program() -> str:
    """What a person types to run a command: `packmule`, or `manage.py packmule` in a Django project."""
    context = click.get_current_context(silent=True)
    return (context.find_root().info_name if context else None) or "packmule"


def complain(text: object) -> None:
    """Print `text` as one line on standard error, however many lines it has."""
    click.echo(f"packmule: {plain(' '.join(str(text).split()))}", err=True)
