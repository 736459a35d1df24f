"""The command line: parse, wire, run. Each command is in the module of `terminal` that bears its name."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

import click

from packmule.config import Settings
from packmule.errors import Error, Unavailable, UsageError
from packmule.terminal.say import complain

SECTIONS = {
    "Run": ("up", "worker", "scheduler", "dashboard", "webhooks"),
    "Work with jobs": ("enqueue", "job", "batch", "flow", "queue", "schedule", "email", "suppression"),
    "Observe": ("status", "top", "events", "errors", "limits", "locks", "metrics", "audit", "look"),
    "Let people and programs in": ("user", "token", "mcp"),
    "Try and check": ("demo", "check", "drill"),
}
"""The commands by the heading under which `packmule --help` lists them."""


class Commands(click.Group):
    """The commands of all SECTIONS; only the module of the one that is called is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of the help."""
        return [name for names in SECTIONS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command `cmd_name`, or None if there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = getattr(import_module(f"packmule.terminal.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands section by section, each with the first line of its help."""
        width = formatter.width - 6 - max(map(len, self.list_commands(ctx)))
        for heading, names in SECTIONS.items():
            commands = ((name, self.get_command(ctx, name)) for name in names)
            with formatter.section(heading):
                formatter.write_dl(
                    [(name, command.get_short_help_str(width)) for name, command in commands if command]
                )


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="packmule")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Enqueue, perform and watch background jobs on RQ and Redis."""
    from packmule.terminal.app import App

    app = App(Settings.from_env())
    ctx.obj = app
    ctx.call_on_close(app.closing.close)
    app.trace()


def main() -> None:
    """Run the command line: an error is one line on standard error, and the exit code tells its kind."""
    # Ends a command in order, so that what it started, such as the embedded server, is stopped too.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    try:
        code = cli.main(standalone_mode=False, prog_name="packmule")
    except click.Abort:
        code = 130
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = UsageError.exit_code
    except click.UsageError as error:
        help = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        complain(error.format_message().rstrip(".") + help)
        code = UsageError.exit_code
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        complain(str(error))
    sys.exit(code or 0)


def _exit_code(error: Exception) -> int | None:
    """The exit code for an error that a user can fix; None for a bug of ours, which shows its traceback."""
    from redis.exceptions import RedisError

    if isinstance(error, Error):
        return error.exit_code
    if isinstance(error, RedisError):
        return Unavailable.exit_code
    if isinstance(error, TimeoutError):
        return Error.exit_code
    return None


if __name__ == "__main__":
    main()
