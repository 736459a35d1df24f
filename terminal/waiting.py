"""The options of commands that may wait for what they have sent: --wait, and --wait-timeout."""

from __future__ import annotations

import click

from packmule.terminal.parameters import Duration, F, with_options

LONGEST = "packmule.wait"


def wait_options(command: F, help: str, goes_on: str = "the job goes on") -> F:
    """`command` with both: the `help` of --wait, and what `goes_on` when the longest wait is over."""
    options = [
        click.option(
            "--wait-timeout",
            type=Duration(),
            expose_value=False,
            is_eager=True,
            callback=_wait_at_most,
            help=f"Like --wait, but exit 1 after this long; {goes_on}.",
        ),
        click.option(
            "--wait",
            is_flag=True,
            callback=lambda ctx, param, value: value or longest_wait() is not None,
            help=help,
        ),
    ]
    return with_options(command, options)


def longest_wait() -> float | None:
    """The seconds for which the command waits at most, by --wait-timeout."""
    found: float | None = click.get_current_context().meta.get(LONGEST)
    return found


def _wait_at_most(ctx: click.Context, param: click.Parameter, value: float | None) -> None:
    ctx.meta[LONGEST] = value
