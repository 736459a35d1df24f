"""The command line: parse, wire, run. What a command does lives in the rooms below."""

from __future__ import annotations

import logging
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from config import Settings, SettingsError

if TYPE_CHECKING:
    from redis import Redis

    from jobs.options import Options
    from jobs.registry import JobType
    from jobs.storage import Storage

FAILED, USAGE, NO_REDIS = 1, 2, 3
READY_JOBS = ("jobs.email", "jobs.image", "jobs.files")
STATUSES = ("queued", "started", "scheduled", "finished", "failed", "deferred", "canceled")
STORED = "store:"
"""In front of a path, it means a file that is in the storage already."""

F = TypeVar("F", bound=Callable[..., Any])
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")


class App:
    """What commands share: the settings, and a connection that is made when first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.closing = ExitStack()
        self._client: Redis | None = None

    @property
    def client(self) -> Redis:
        """A client of the settings' Redis. The last to leave an embedded server stops it."""
        if self._client is None:
            from coordination.server import EmbeddedServer

            self._client = self.connect()
            if self.settings.redis_url is None:
                self.closing.callback(EmbeddedServer(self.settings.data_dir).stop_if_unused, self._client)
        return self._client

    def connect(self) -> Redis:
        """One more client, for a process of its own, or until the command ends."""
        from coordination.connection import InvalidURL, connect

        try:
            client = connect(
                self.settings.redis_url, self.settings.data_dir, allow_eviction=self.settings.allow_eviction
            )
        except InvalidURL as error:
            raise SettingsError(f"PACKMULE_REDIS_URL (or REDIS_URL): {error}") from None
        self.closing.callback(client.close)
        return client

    @property
    def storage(self) -> Storage:
        """The door to the files that jobs take and leave."""
        from jobs.storage import Storage

        return Storage(self.settings.storage_url)

    def produce(self) -> None:
        """Make `.enqueue(...)` go to the settings' Redis."""
        from jobs import registry
        from jobs.producer import Producer

        registry.use(Producer(self.client, self.settings.queues, self.settings.max_job_bytes).enqueue)

    def load_jobs(self, modules: Sequence[str] = READY_JOBS) -> None:
        """Register the ready-made jobs and those of the user's modules."""
        from jobs import registry

        registry.load(modules)
        try:
            registry.load(self.settings.modules)
        except registry.NotRegistered as error:
            raise SettingsError(f"PACKMULE_MODULES: {error}") from error
        registry.load((), self.settings.allow)

    def provide(self, smtp_url: str | None) -> None:
        """Lend this process's jobs what they need."""
        from jobs import current
        from jobs.email import Mailer
        from jobs.limits import Limits

        settings = self.settings
        current.provide(
            self.storage,
            Limits(settings.max_file_bytes, settings.max_attachment_bytes, settings.max_pixels),
            Mailer(smtp_url, settings.mail_from, settings.templates),
        )


class Duration(click.ParamType[float]):
    """Seconds, or text such as 90s, 5m, 1h30m, 2d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        found = _DURATION.fullmatch(value)
        if not value or found is None:
            self.fail(f"{value!r} is not a duration: say 90, 90s, 5m, 1h30m or 2d", param, ctx)
        days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
        return days * 86400 + hours * 3600 + minutes * 60 + seconds


class Instant(click.ParamType[datetime]):
    """A time such as 2026-12-01T08:00 (this machine's zone) or 2026-12-01T08:00+01:00."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return datetime.fromisoformat(str(value)).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time: say 2026-12-01T08:00 or 2026-12-01T08:00+01:00", param, ctx)


def _complete_queues(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    try:
        return [name for name in Settings.from_env().queues if name.startswith(incomplete)]
    except SettingsError:
        return []


def _complete_calls(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from jobs import registry

    try:
        registry.load(Settings.from_env().modules)
    except (SettingsError, registry.NotRegistered):
        return []
    return [name for name in registry.names() if name.startswith(incomplete)]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="packmule")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Background jobs on RQ and Redis: enqueue them, perform them, watch them."""
    app = App(Settings.from_env())
    ctx.obj = app
    ctx.call_on_close(app.closing.close)


@cli.command()
@click.pass_obj
def demo(app: App) -> None:
    """Run a real e-mail, image and file job on shipped samples."""
    from terminal.demo import QUEUE
    from terminal.demo import demo as run

    app.settings = replace(app.settings, redis_url=None, smtp_url=None, storage=None, queues=(QUEUE,))
    app.produce()
    run(app.client, app.storage, app.settings)


@cli.command()
@click.pass_obj
def up(app: App) -> int:
    """Run the whole Procfile in this terminal; Ctrl-C drains."""
    from terminal.up import up as run

    _ = app.client  # a server that can't be reached is told once, before anything starts
    return run(app.settings.grace)


@cli.command()
@click.option(
    "-q",
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME",
    shell_complete=_complete_queues,
    help="A queue to serve; the first named goes first.  [default: PACKMULE_QUEUES, in their order]",
)
@click.option("--processes", type=click.IntRange(min=1), help="How many.  [default: PACKMULE_PROCESSES]")
@click.option("--burst", is_flag=True, help="Leave when the queues are empty.")
@click.option("--no-scheduler", is_flag=True, help="Leave delayed jobs and retries to another scheduler.")
@click.pass_obj
def worker(app: App, queues: tuple[str, ...], processes: int | None, burst: bool, no_scheduler: bool) -> int:
    """Run a pool of worker processes. SIGTERM drains it."""
    from worker.pool import Pool

    _log()
    for queue in queues:
        _known_queue(app.settings, queue)
    app.load_jobs()
    app.produce()
    companions: dict[str, Callable[[], None]] = {}
    smtp_url = app.settings.smtp_url
    if smtp_url is None and app.settings.environment == "development":
        smtp_url = _catch_mail(app, companions)
    app.provide(smtp_url)
    if not no_scheduler:
        companions["scheduler"] = lambda: _schedule(app.connect())
    return Pool(
        app.connect,
        queues or app.settings.queues,
        processes or app.settings.processes,
        grace=app.settings.grace,
        burst=burst,
        companions=companions,
        max_result_bytes=app.settings.max_result_bytes,
    ).run()


@cli.command()
@click.pass_obj
def scheduler(app: App) -> None:
    """Run a dedicated scheduler; any number may run, one leads."""
    _log()
    _schedule(app.client)


@cli.command()
@click.option("--host", help="Address to listen on.  [default: PACKMULE_HOST, 127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port to listen on.  [default: PACKMULE_PORT or PORT, 9181]"
)
@click.pass_obj
def dashboard(app: App, host: str | None, port: int | None) -> None:
    """Serve rq-dashboard. It has no login of its own yet: keep it on this machine."""
    import waitress

    from coordination.server import EmbeddedServer
    from dashboard import close, create_app

    app.client.ping()  # the connection stays open, and with it an embedded server
    url = app.settings.redis_url or EmbeddedServer(app.settings.data_dir).url
    host, port = host or app.settings.host, port or app.settings.port
    pages = create_app(url)
    app.closing.callback(close, pages)
    try:
        server = waitress.create_server(pages, host=host, port=port)
    except (OSError, ValueError) as error:
        raise click.UsageError(
            f"can't listen on {host}:{port} ({error}): choose another with --host or --port"
        ) from None
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))
    click.echo(f"The dashboard is on http://{host}:{port}", err=True)
    server.run()


def enqueue_options(command: F) -> F:
    """The options that every `packmule enqueue` command has."""
    options = [
        click.option(
            "--queue", metavar="NAME", shell_complete=_complete_queues, help="[default: the job's own]"
        ),
        click.option("--in", "delay", type=Duration(), help="Run it so long from now: 90s, 5m, 1h30m."),
        click.option("--at", type=Instant(), help="Run it at this time: 2026-12-01T08:00."),
        click.option("--timeout", type=Duration(), help="How long it may run."),
        click.option("--result-ttl", type=Duration(), help="How long its result is kept."),
        click.option("--retries", type=click.IntRange(min=0), help="How often a failure is retried."),
        click.option("--description", help="What the dashboard shows."),
        click.option("--job-id", help="Its id; while a job of that id exists, nothing is enqueued."),
        click.option("--at-front", is_flag=True, default=None, help="Jump the queue."),
        click.option("--wait", is_flag=True, help="Show progress and result; exit 1 if it fails."),
        click.option("--json", "json", is_flag=True, help="With --wait: the job as one JSON object."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@cli.group()
def enqueue() -> None:
    """Hand a job to the workers and print its id."""


@enqueue.command("email")
@click.option("--to", "to", multiple=True, required=True, help="A recipient; may be given several times.")
@click.option("--subject", required=True)
@click.option("--body", help="The text.")
@click.option("--html", help="The HTML.")
@click.option("--template", help="The name of a template, instead of --body and --html.")
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="A variable of the template.")
@click.option("--attach", "attachments", multiple=True, metavar="FILE", help="A file to attach.")
@click.option("--from", "sender", help="The sender.  [default: PACKMULE_MAIL_FROM]")
@enqueue_options
@click.pass_obj
def enqueue_email(
    app: App,
    /,
    to: tuple[str, ...],
    variables: tuple[str, ...],
    attachments: tuple[str, ...],
    wait: bool,
    json: bool,
    **given: Any,
) -> int:
    """Send an e-mail, from a text or a template."""
    from jobs.email import address, email

    for each in (*to, given["sender"]):
        if each is not None:
            address(each)
    call, options = _split(given)
    call |= {"to": list(to)}
    if variables:
        call["variables"] = _assignments("--var", variables)
    if attachments:
        call["attachments"] = list(attachments)
    return _enqueue(app, email.job, call, options, wait, json, files="attachments")


@enqueue.command("image")
@click.argument("source", metavar="FILE")
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="WxH",
    help="A rendition: 800x600, 800 (wide) or x600 (high). May be given several times.  [default: 800]",
)
@click.option(
    "--fit",
    type=click.Choice(["contain", "cover", "stretch"]),
    help="How it fits its size.  [default: contain]",
)
@click.option(
    "--format", "format", type=click.Choice(["jpeg", "png", "webp"]), help="[default: the source's]"
)
@click.option("--quality", type=click.IntRange(1, 100), help="[default: 80]")
@click.option("--out", help="A folder of the storage.")
@enqueue_options
@click.pass_obj
def enqueue_image(
    app: App,
    /,
    source: str,
    sizes: tuple[str, ...],
    fit: str | None,
    format: str | None,
    quality: int | None,
    wait: bool,
    json: bool,
    **given: Any,
) -> int:
    """Make renditions of an image. FILE is copied into the storage; store:PATH names one that is there."""
    from jobs.image import image

    common = {"fit": fit, "format": format, "quality": quality}
    common = {name: value for name, value in common.items() if value is not None}
    call, options = _split(given)
    call["renditions"] = [_size(size) | common for size in sizes or ("800",)]
    call["source"] = source
    return _enqueue(app, image.job, call, options, wait, json, files="source")


@enqueue.command("file")
@click.argument("source", metavar="FILE")
@click.option("--to", "to", type=click.Choice(["parquet"]), help="Convert it.  [default: inspect it only]")
@click.option("--out", help="The output's path in the storage.")
@click.option("--max-refused", type=click.IntRange(min=0), help="Fail if more rows than this are refused.")
@enqueue_options
@click.pass_obj
def enqueue_file(app: App, /, source: str, wait: bool, json: bool, **given: Any) -> int:
    """Inspect a file, or convert CSV, JSON Lines or Excel. FILE is copied into the storage, as with image."""
    from jobs.files import file

    call, options = _split(given)
    call["source"] = source
    return _enqueue(app, file.job, call, options, wait, json, files="source")


@enqueue.command("call")
@click.argument("name", shell_complete=_complete_calls)
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@enqueue_options
@click.pass_obj
def enqueue_call(
    app: App, /, name: str, arguments: tuple[str, ...], wait: bool, json: bool, **given: Any
) -> int:
    """Call one of your own jobs by its dotted name. Values are JSON where they can be, else text."""
    from jobs import registry

    app.load_jobs()
    call, options = _split(given)
    call |= _assignments("argument", arguments, parse=True)
    return _enqueue(app, registry.find(name), call, options, wait, json)


@cli.group()
def job() -> None:
    """Look at jobs."""


@job.command("show")
@click.argument("id")
@click.option("--traceback", is_flag=True, help="The whole traceback of a failure.")
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def job_show(app: App, id: str, traceback: bool, json: bool) -> None:
    """Show one job: its arguments, progress, result or error."""
    from jobs import records
    from terminal import show

    record = records.read(app.client, id)
    if json:
        show.as_json(record)
    else:
        show.job(record, traceback)


@job.command("list")
@click.option("--queue", metavar="NAME", shell_complete=_complete_queues, help="[default: all]")
@click.option("--status", type=click.Choice(STATUSES), help="[default: all]")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="For each queue and status."
)
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def job_list(app: App, queue: str | None, status: str | None, limit: int, json: bool) -> None:
    """List jobs by queue and status."""
    from jobs import records, wire
    from terminal import show

    queues = [_known_queue(app.settings, queue, app)] if queue else _all_queues(app)
    statuses = [status] if status else ["queued", *wire.REGISTRIES]
    found = [
        record
        for name in queues
        for each in statuses
        for id in records.ids(app.client, name, each, limit)
        if (record := records.read_if_there(app.client, id))
    ]
    if json:
        show.as_json(found)
        return
    rows = [
        (each.id, show.status(each.status), each.queue, each.name, each.ended_at or each.created_at)
        for each in found
    ]
    show.table(("job", "status", "queue", "calls", "since"), rows, "no jobs")


@job.command("wait")
@click.argument("id")
@click.option("--timeout", type=Duration(), help="Give up after this long, with exit code 1.")
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def job_wait(app: App, id: str, timeout: float | None, json: bool) -> int:
    """Wait until a job has ended; exit 1 if it failed."""
    return _follow(app, id, "job", json, timeout)


@cli.group()
def queue() -> None:
    """Look at queues."""


@queue.command("list")
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def queue_list(app: App, json: bool) -> None:
    """How many jobs each queue has, by status."""
    from jobs import records
    from terminal import show

    depths = records.depths(app.client, _all_queues(app))
    if json:
        show.as_json(depths)
        return
    _show_depths(depths)


@cli.command()
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def status(app: App, json: bool) -> None:
    """Queues, workers and server at one glance."""
    from jobs import records
    from terminal import show

    depths = records.depths(app.client, _all_queues(app))
    workers = records.workers(app.client)
    server = records.server(app.client)
    if json:
        show.as_json({"queues": depths, "workers": workers, "server": server})
        return
    show.facts(server)
    show.out.print()
    _show_depths(depths)
    show.out.print()
    rows = [
        (each["name"], each["state"], each["queues"], each["current_job"], each["done"], each["failed"])
        for each in workers
    ]
    show.table(
        ("worker", "state", "queues", "job", "done", "failed"), rows, "no worker is running: packmule worker"
    )


@cli.command()
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def check(app: App, json: bool) -> int:
    """Check the settings, and that Redis, storage and mail server can be reached."""
    from terminal.check import check as run

    return run(app.settings, app.load_jobs, lambda: app.client, app.storage, json)


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

    from coordination.connection import UnfitServer
    from coordination.server import ServerFailed
    from jobs.options import InvalidOption
    from jobs.producer import UnknownQueue
    from jobs.records import NoSuchJob
    from jobs.registry import InvalidCall, InvalidJob, NotRegistered
    from jobs.storage import StorageError

    kinds: dict[type[Exception], int] = {
        UnfitServer: NO_REDIS,
        ServerFailed: NO_REDIS,
        RedisError: NO_REDIS,
        SettingsError: USAGE,
        InvalidOption: USAGE,
        UnknownQueue: USAGE,
        NoSuchJob: USAGE,
        InvalidCall: USAGE,
        InvalidJob: USAGE,
        NotRegistered: USAGE,
        StorageError: USAGE,
        TimeoutError: FAILED,
    }
    for kind, code in kinds.items():
        if isinstance(error, kind):
            return code
    return _named_exit_code(error)


def _named_exit_code(error: Exception) -> int | None:
    """For errors of rooms that are imported only by the commands that need them."""
    names = {"InvalidAddress": USAGE, "InvalidServer": USAGE, "DemoFailed": FAILED, "CatcherFailed": FAILED}
    return names.get(type(error).__name__)


def _split(given: dict[str, Any]) -> tuple[dict[str, Any], Options]:
    """A command's values parted into the job's arguments and the options of the enqueue."""
    from jobs.options import Options

    names = {"queue", "delay", "at", "timeout", "result_ttl", "retries", "description", "job_id", "at_front"}
    options = Options(**{name: value for name, value in given.items() if name in names})
    return {name: value for name, value in given.items() if name not in names and value is not None}, options


def _enqueue(
    app: App,
    job_type: JobType,
    call: dict[str, Any],
    options: Options,
    wait: bool,
    json: bool,
    files: str | None = None,
) -> int:
    """Enqueue one job; the argument called `files` names what must be in the storage first."""
    from jobs.producer import Producer

    if wait and options.result_ttl == 0:
        raise click.UsageError("--wait has nothing to show with --result-ttl 0: leave one of them out")
    producer = Producer(app.client, app.settings.queues, app.settings.max_job_bytes)
    # Checked before anything is copied, so that a refused call leaves nothing behind.
    job_type.validate((), call)
    if options.queue is not None:
        _known_queue(app.settings, options.queue)
    if files in call:
        given = call[files]
        call[files] = (
            _stored(app, given) if isinstance(given, str) else [_stored(app, each) for each in given]
        )
    id = producer.enqueue(job_type, [((), call)], options)[0]
    if wait:
        return _follow(app, id, job_type.name.rpartition(".")[2], json)
    click.echo(id)
    return 0


def _follow(app: App, id: str, label: str, json: bool, timeout: float | None = None) -> int:
    from terminal import show
    from terminal.follow import follow

    record = follow(app.client, {id: label}, timeout)[id]
    if json:
        show.as_json(record)
    elif record.status == "finished":
        show.result(record)
    else:
        click.echo(f"packmule: job {id} {record.status}: {record.reason}", err=True)
    return 0 if record.status == "finished" else FAILED


def _stored(app: App, source: str) -> str:
    """The storage path of a file: copied in, unless `store:` says that it is there."""
    from jobs.storage import MissingFile

    if source.startswith(STORED):
        path = source.removeprefix(STORED)
        if not app.storage.exists(path):
            raise MissingFile(f"the storage has no file {path}: it is at {app.settings.storage_url}")
        return path
    if not Path(source).is_file():
        raise MissingFile(f"there is no file {source}; {STORED}PATH names one that is in the storage")
    return app.storage.put(Path(source))


def _size(text: str) -> dict[str, int]:
    found = re.fullmatch(r"(\d+)?(?:x(\d+)?)?", text)
    if not found or not any(found.groups()):
        raise click.BadParameter(f"{text!r} is not a size: say 800x600, 800 or x600", param_hint="--size")
    return {
        name: int(value) for name, value in zip(("width", "height"), found.groups(), strict=True) if value
    }


def _assignments(what: str, texts: Sequence[str], parse: bool = False) -> dict[str, Any]:
    import msgspec

    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r}: say NAME=VALUE", param_hint=what)
        values[name] = value
        if parse:
            try:
                values[name] = msgspec.json.decode(value)
            except msgspec.DecodeError:
                values[name] = value
    return values


def _known_queue(settings: Settings, name: str, app: App | None = None) -> str:
    from jobs.producer import UnknownQueue

    known = list(settings.queues) if app is None else _all_queues(app)
    if name not in known:
        raise UnknownQueue(f"no queue is called {name!r}: there are {', '.join(known)} (see PACKMULE_QUEUES)")
    return name


def _all_queues(app: App) -> list[str]:
    """The settings' queues in their order, then others that Redis knows."""
    from jobs import records

    return [*dict.fromkeys([*app.settings.queues, *records.queues(app.client)])]


def _show_depths(depths: dict[str, dict[str, int]]) -> None:
    from terminal import show

    statuses = next(iter(depths.values()), {}).keys()
    show.table(
        ("queue", *statuses), [(name, *counts.values()) for name, counts in depths.items()], "no queues"
    )


def _schedule(client: Redis) -> None:
    from scheduler import Scheduler

    Scheduler(client).run()


def _catch_mail(app: App, companions: dict[str, Callable[[], None]]) -> str:
    """Let a companion process catch the mails of development, and return the URL at which it will."""
    import socket

    from jobs.catcher import Catcher

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    storage = app.storage

    def catch() -> None:
        import threading

        stopped = threading.Event()
        signal.signal(signal.SIGTERM, lambda signum, frame: stopped.set())
        with Catcher(storage, port=port):
            stopped.wait()

    companions["mail-catcher"] = catch
    logging.getLogger("packmule").info(
        "no PACKMULE_SMTP_URL: mails are caught and filed under %s", storage.locate("mail")
    )
    return f"smtp://127.0.0.1:{port}"


def _log() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd tells each word of each mail


if __name__ == "__main__":
    main()
