"""`packmule enqueue`: enqueue a job, and with --wait follow it to its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packmule.terminal.app import App
from packmule.terminal.enqueue_email import enqueue_email
from packmule.terminal.enqueue_fetch import enqueue_fetch
from packmule.terminal.enqueue_files import enqueue_scan, enqueue_text, enqueue_unpack
from packmule.terminal.enqueue_options import calls_of, enqueue_options, split
from packmule.terminal.enqueue_profile import enqueue_profile
from packmule.terminal.file_options import check_output, file_call, reading_options, writing_options
from packmule.terminal.image import enqueue_image
from packmule.terminal.parameters import assignments, complete_calls
from packmule.terminal.say import complain, say
from packmule.terminal.waiting import longest_wait

if TYPE_CHECKING:
    from packmule.jobs.client import Client
    from packmule.jobs.job_type import JobType
    from packmule.jobs.options import Options

STORED = "store:"
"""The prefix of a path that is in the storage already."""


class ReadyJobs(click.Group):
    """The ready-made jobs by their short names; any other job has a dotted name, and `call` takes that."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` name. Raises `UsageError`, which says how a job of one's own is called."""
        name = args[0]
        if name in self.commands or name.startswith("-"):
            return super().resolve_command(ctx, args)
        own = name if "." in name else _own(ctx.find_object(App), name)
        if own is None:
            return super().resolve_command(ctx, args)
        raise click.UsageError(
            f"{name} is not a ready-made job: to enqueue yours, use {ctx.command_path} call {own}", ctx
        )


def _own(app: App | None, name: str) -> str | None:
    """The dotted name of the user's job whose function is called `name`, if there is one."""
    from packmule.jobs import registry

    if app is not None:
        app.load_if_possible()
    own = (each for each in registry.names() if each not in registry.READY)
    return next((each for each in own if each.rpartition(".")[2] == name), None)


@click.group(cls=ReadyJobs)
def enqueue() -> None:
    """Enqueue a job and print its id.

    The commands are ready-made jobs. Enqueue your own jobs by their dotted names: packmule enqueue call
    shop.scan.
    """


READY = (
    enqueue_email, enqueue_image, enqueue_fetch, enqueue_profile, enqueue_scan, enqueue_text, enqueue_unpack,
)  # fmt: skip
for command in READY:
    enqueue.add_command(command)


@enqueue.command("file")
@click.argument("sources", metavar="FILE...", nargs=-1, required=True)
@writing_options
@reading_options
@enqueue_options
@click.pass_obj
def enqueue_file(app: App, /, sources: tuple[str, ...], wait: bool, json: bool, **given: Any) -> int:
    """Inspect files, or convert tables between formats.

    Without --to and --out, files are inspected. Encoding and format are detected; options override what was
    detected.

    Each FILE is copied into the storage; store:PATH names one that is there already. Several files make a
    batch, whose id is printed.
    """
    from packmule.jobs.files import file

    call, options = split(given)
    call = file_call(app.storage, call)
    check_output(call)
    calls = calls_of(sources, call)
    return enqueue_calls(app, file.job, calls, options, wait, json, files=("source", "schema"))


@enqueue.command("call")
@click.argument("name", shell_complete=complete_calls)
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@enqueue_options
@click.pass_obj
def enqueue_call(
    app: App, /, name: str, arguments: tuple[str, ...], wait: bool, json: bool, **given: Any
) -> int:
    """Enqueue one of your own jobs by its dotted name.

    A VALUE is JSON if the argument's annotation accepts that, and text otherwise: for an argument that is a
    str, 5 is text. If both fit, it is JSON.
    """
    from packmule.jobs import registry

    app.load_jobs()
    call, options = split(given)
    job = registry.find(name)
    call |= assignments("argument", arguments, job)
    return enqueue_calls(app, job, [call], options, wait, json)


def enqueue_calls(
    app: App,
    job_type: JobType,
    calls: list[dict[str, Any]],
    options: Options,
    wait: bool,
    json: bool,
    files: tuple[str, ...] = (),
) -> int:
    """Enqueue one job, or a batch; what the arguments `files` name is copied into the storage first."""
    from packmule.jobs.client import known_queue
    from packmule.terminal.follow import follow_one

    if wait and options.result_ttl == 0:
        raise click.UsageError("--wait can't be used with --result-ttl 0: no result would be kept to show")
    jobs = app.jobs_on(app.client)
    # Checked before anything is copied, so that a refused call leaves nothing behind.
    for call in calls:
        job_type.validate((), call | {name: _placeholder(call[name]) for name in files if name in call})
    if options.queue is not None:
        known_queue(options.queue, app.settings.queues)
    for call in calls:
        call |= {name: stored(app, call[name]) for name in files if name in call}
    if len(calls) > 1:
        return _enqueue_batch(app, jobs, job_type, calls, options, wait, json)
    ids = jobs.send(job_type, [((), calls[0])], options)
    id = str(ids[0])
    if ids.held:
        replaced = options.over(job_type.options).is_debounced
        done = "it now has the new arguments" if replaced else "nothing was enqueued"
        complain(f"job {id} is an equal one and still pending: {done}")
    if wait:
        return follow_one(app, id, job_type.name.rpartition(".")[2], json, longest_wait())
    say(id)
    return 0


def _placeholder(source: Any) -> Any:
    """What `stored` will make of `source`, as far as that is known before anything is copied."""
    if isinstance(source, dict):
        return {name: _placeholder(each) for name, each in source.items()}
    if isinstance(source, list):
        return [_placeholder(each) for each in source]
    return source.removeprefix(STORED) if source.startswith(STORED) else f"uploads/file{Path(source).suffix}"


def _enqueue_batch(
    app: App,
    jobs: Client,
    job_type: JobType,
    calls: list[dict[str, Any]],
    options: Options,
    wait: bool,
    json: bool,
) -> int:
    from dataclasses import replace

    from packmule.jobs.batch import Batch
    from packmule.terminal.batch import follow_batch

    name = job_type.name.rpartition(".")[2]
    with Batch.create(options.description or name, client=jobs) as batch:
        jobs.send(job_type, [((), call) for call in calls], replace(options, batch=batch.id))
    if wait:
        return follow_batch(app, batch.id, json, longest_wait())
    say(batch.id)
    return 0


def stored(app: App, source: Any) -> Any:
    """The path of a file in the storage, or of several: it is copied there unless `store:` precedes it."""
    from packmule.jobs.storage import MissingFile

    if isinstance(source, dict):
        return {name: stored(app, each) for name, each in source.items()}
    if isinstance(source, list):
        return [stored(app, each) for each in source]
    if source.startswith(STORED):
        path = source.removeprefix(STORED)
        if not app.storage.exists(path):
            raise MissingFile(f"the storage at {app.settings.storage_url} has no file {path}")
        return path
    if not Path(source).is_file():
        raise MissingFile(f"there is no file {source}; {STORED}PATH names one in the storage")
    return app.storage.put(Path(source))
