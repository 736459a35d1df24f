"""`packmule audit`, and the class of commands whose use it records."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from packmule.terminal.app import App
from packmule.terminal.parameters import Since
from packmule.terminal.say import complain, say

RECORDED_OPTIONS = ("failed", "force", "resend")
"""Options that say what was done. Others, and the arguments of jobs, may hold secrets."""

OMITTED_ARGUMENTS = ("arguments",)


MORE = "packmule.audit"


def audited(more: Callable[[], dict[str, Any]]) -> None:
    """Let the audit of this command keep what `more` returns at its end, too."""
    click.get_current_context().meta[MORE] = more


class Audited(click.Command):
    """A command that changes something: the audit records who called it, and with what."""

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command and record it."""
        if ctx.params.get("resend") is False or ctx.params.get("dry_run"):
            return super().invoke(ctx)
        try:
            code = super().invoke(ctx)
        except (click.ClickException, click.Abort):
            raise  # nothing has begun
        except (Exception, KeyboardInterrupt) as error:
            self._record(ctx, {"error": type(error).__name__})  # a part may be done
            raise
        self._record(ctx, {"exit": code} if code else {})
        return code

    def _record(self, ctx: click.Context, end: dict[str, Any]) -> None:
        from redis.exceptions import RedisError

        from packmule.observe import audit

        recorded = {each.name for each in self.params if isinstance(each, click.Argument)}
        recorded = recorded.difference(OMITTED_ARGUMENTS).union(RECORDED_OPTIONS)
        subject = {name: value for name, value in ctx.params.items() if name in recorded and value} | end
        if more := ctx.meta.get(MORE):
            subject |= more()
        app: App = ctx.find_root().obj
        try:
            audit.record(app.client, ctx.command_path.partition(" ")[2], subject)
        except RedisError as error:
            complain(f"done, but not recorded in the audit: {error}")


@click.command()
@click.option(
    "--since",
    type=Since(),
    default="0",
    help="Only actions after this: 10m (ago), 2026-12-01T08:00.  [default: all]",
)
@click.option("--json", "json", is_flag=True, help="Print one JSON object per line.")
@click.pass_obj
def audit(app: App, since: str, json: bool) -> None:
    """Print who did what, when, and from where."""
    from packmule.observe import audit as source
    from packmule.terminal import show

    for action in source.read(app.client, since):
        if json:
            show.as_json(action._asdict())
        else:
            at = datetime.fromtimestamp(action.at)
            where = f" from {action.where}" if action.where else ""
            say(f"{at:%Y-%m-%d %H:%M:%S} {action.who}{where} {action.action} {action.on}".rstrip())
