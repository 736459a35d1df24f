"""The command line: parse, wire, run. Each command is in the module of `terminal` that bears its name."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from packmule.config import Settings
from packmule.errors import Error, Unavailable, UsageError, meant
from packmule.extras import how_to_install
from packmule.terminal.say import complain

SECTIONS = {
    "Run": {
        "up": "Run all processes of the Procfile in this terminal.",
        "worker": "Run a pool of worker processes until SIGTERM, which drains it.",
        "scheduler": "Run a dedicated scheduler; any number may run, and one leads.",
        "dashboard": "Serve the dashboard over HTTP.",
        "watch": "Run files from INBOX through a pipeline, once per content.",
        "webhooks": "Post job events to webhooks until SIGTERM.",
    },
    "Work with jobs": {
        "enqueue": "Enqueue a job and print its id.",
        "jobs": "List the registered jobs with their arguments and options.",
        "job": "Show, list, cancel and retry jobs, and print their logs and output.",
        "batch": "List, show, pause, resume and cancel batches of jobs.",
        "flow": "List, draw and retry flows of jobs.",
        "pipeline": "List, show, check and run pipelines of file jobs.",
    },
    "Work with queues, mail and files": {
        "queue": "List, pause, resume, purge and limit queues.",
        "schedule": "Add, list, show, pause and remove schedules of jobs.",
        "email": "Preview templates, and list, show and resolve mails.",
        "suppression": "Manage the addresses and domains that get no mail.",
        "files": "List, download and delete files in the storage.",
    },
    "Observe": {
        "status": "Show queues, workers, the leading scheduler and the server.",
        "top": "Show live what is running and what ran recently.",
        "events": "Print job events, stored or live.",
        "errors": "List, show, resolve, ignore and retry errors.",
        "limits": "Show which limits block jobs.",
        "locks": "Show locks and who holds them.",
        "metrics": "Print metrics of queues, workers and executions for Prometheus.",
        "health": "Ask a worker, scheduler or webhooks process whether it is ready.",
        "audit": "Print who did what, when, and from where.",
        "look": "Show the jobs of any RQ system in a browser, read-only.",
    },
    "Manage access": {
        "user": "Add, change and list the dashboard's users.",
        "token": "Add, list and revoke tokens for the HTTP API.",
        "mcp": "Serve the Model Context Protocol on standard input and output.",
    },
    "Try and check": {
        "demo": "Run an e-mail, an image and a file job on samples.",
        "check": "Check the settings and whether servers are reachable.",
        "drill": "Kill workers and Redis under load, and check the promises.",
    },
}
"""The commands by the heading under which `packmule --help` lists them, each with what it says of them.

It imports none of them for that: their modules take longer than all the rest.
"""


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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` name. Raises `UsageError`, which offers the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = meant(args[0], self.list_commands(ctx))
            if near is None or args[0].startswith("-"):
                raise
            raise click.UsageError(
                f"No such command {args[0]!r}. Did you mean {near!r}?", error.ctx
            ) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands section by section, each with the first line of its help."""
        for heading, commands in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([*commands.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="packmule")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Enqueue, perform and watch background jobs on RQ and Redis."""
    from packmule.terminal.app import App
    from packmule.terminal.surroundings import enter

    enter()
    app = App(Settings.from_env())
    ctx.obj = app
    ctx.call_on_close(app.closing.close)
    app.trace()


def main(arguments: Sequence[str] | None = None, name: str = "packmule") -> None:
    """Run the command line: an error is one line on standard error, and the exit code tells its kind.

    `arguments` are those of the process by default.
    """
    # Ends a command in order, so that what it started, such as the embedded server, is stopped too.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup ignores it
        on_screen = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
        signal.signal(signal.SIGHUP, lambda signum, frame: _hang_up(on_screen))
    try:
        code = cli.main(arguments, standalone_mode=False, prog_name=name)
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
        code, missing = _exit_code(error), how_to_install(error)
        if code is None and missing is None:
            raise
        complain(missing or str(error))
        code = code or UsageError.exit_code
    sys.exit(code or 0)


def _hang_up(on_screen: Sequence[int]) -> None:
    """End as by SIGTERM, which drains workers: the terminal was closed, so what is said goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in on_screen:
        os.dup2(nowhere, descriptor)
    os.kill(os.getpid(), signal.SIGTERM)


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
