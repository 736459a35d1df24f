"""The command line: parse, wire, run. The commands are in `terminal`, what they do in the rooms below."""

from __future__ import annotations

import signal
import sys

import click

from packmule.config import Settings, SettingsError
from packmule.terminal.app import App
from packmule.terminal.audited import audit
from packmule.terminal.batch import batch
from packmule.terminal.drill import drill
from packmule.terminal.enqueue import enqueue
from packmule.terminal.events import events
from packmule.terminal.limits import limits
from packmule.terminal.locks import locks
from packmule.terminal.metrics import metrics
from packmule.terminal.processes import dashboard, demo, scheduler, up, worker
from packmule.terminal.reading import check, job, queue, status
from packmule.terminal.schedule import schedule
from packmule.terminal.top import top
from packmule.terminal.webhooks import webhooks

FAILED, USAGE, NO_REDIS = 1, 2, 3


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="packmule")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Background jobs on RQ and Redis: enqueue them, perform them, watch them."""
    app = App(Settings.from_env())
    ctx.obj = app
    ctx.call_on_close(app.closing.close)
    app.trace()


COMMANDS = (
    *(demo, drill, up, worker, scheduler, dashboard, webhooks, enqueue),
    *(job, batch, queue, schedule, limits, locks, events, top, status, metrics, audit, check),
)
for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Run the command line: errors are one line on standard error, and the exit code tells their kind."""
    # Ends a command in order, so that what it started, such as the embedded server, is stopped too.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    try:
        code = cli.main(standalone_mode=False, prog_name="packmule")
    except click.Abort:
        code = 130
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = USAGE
    except click.UsageError as error:
        help = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        _complain(error.format_message().rstrip(".") + help)
        code = USAGE
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        _complain(str(error))
    sys.exit(code or 0)


def _complain(text: str) -> None:
    """Tell of an error in one line, however many its text has."""
    click.echo(f"packmule: {' '.join(text.split())}", err=True)


def _exit_code(error: Exception) -> int | None:
    """The exit code for an error that a user can mend; None for one that is ours."""
    from redis.exceptions import RedisError

    from packmule.coordination.locks.quorum import SameServer
    from packmule.coordination.locks.state import NotReleased as LockNotReleased
    from packmule.coordination.redis.connection import UnfitServer
    from packmule.coordination.redis.embedded_server import ServerFailed
    from packmule.jobs.batch import BatchClosed, NoSuchBatch
    from packmule.jobs.client import ServerFull, UnknownQueue
    from packmule.jobs.email import InvalidAddress, InvalidServer
    from packmule.jobs.email.catcher import CatcherFailed
    from packmule.jobs.job_type import InvalidCall, InvalidJob
    from packmule.jobs.options import InvalidOption
    from packmule.jobs.reader import NoSuchJob
    from packmule.jobs.registry import NotRegistered
    from packmule.jobs.release import NotReleased
    from packmule.jobs.storage import StorageError
    from packmule.jobs.toml_file import InvalidFile
    from packmule.scheduler.schedules.cron import InvalidWhen
    from packmule.scheduler.schedules.schedule import InvalidSchedule
    from packmule.scheduler.schedules.schedule_store import NameTaken, NoSuchSchedule, Removed
    from packmule.terminal.demo import DemoFailed

    kinds: dict[type[Exception], int] = {
        UnfitServer: NO_REDIS,
        ServerFailed: NO_REDIS,
        RedisError: NO_REDIS,
        SettingsError: USAGE,
        InvalidOption: USAGE,
        UnknownQueue: USAGE,
        NoSuchJob: USAGE,
        NoSuchBatch: USAGE,
        BatchClosed: FAILED,
        ServerFull: FAILED,
        InvalidCall: USAGE,
        InvalidJob: USAGE,
        NotRegistered: USAGE,
        StorageError: USAGE,
        NoSuchSchedule: USAGE,
        NameTaken: USAGE,
        Removed: USAGE,
        InvalidSchedule: USAGE,
        InvalidWhen: USAGE,
        InvalidFile: USAGE,
        SameServer: USAGE,
        InvalidAddress: USAGE,
        InvalidServer: USAGE,
        DemoFailed: FAILED,
        CatcherFailed: FAILED,
        TimeoutError: FAILED,
        NotReleased: FAILED,
        LockNotReleased: FAILED,
    }
    return next((code for kind, code in kinds.items() if isinstance(error, kind)), None)


if __name__ == "__main__":
    main()
