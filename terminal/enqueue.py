"""`packmule enqueue`: enqueue a job, and with --wait follow it to its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packmule.terminal.app import App
from packmule.terminal.bulk import LIST_OPTIONS, bulk_options, enqueue_bulk
from packmule.terminal.enqueue_options import enqueue_options, split
from packmule.terminal.parameters import assignments, complete_calls, size, variables_option
from packmule.terminal.say import complain, say

if TYPE_CHECKING:
    from packmule.jobs.client import Client
    from packmule.jobs.job_type import JobType
    from packmule.jobs.options import Options

STORED = "store:"
"""The prefix of a path that is in the storage already."""


@click.group()
def enqueue() -> None:
    """Enqueue a job and print its id."""


@enqueue.command("email")
@click.option("--to", "to", multiple=True, help="A recipient; can be repeated.")
@click.option("--cc", multiple=True, help="A recipient of a copy; can be repeated.")
@click.option("--bcc", multiple=True, help="A recipient of a blind copy; can be repeated.")
@click.option("--reply-to", help="Send answers to this address.")
@click.option("--subject", required=True, help="The subject.")
@click.option("--body", help="The plain text.")
@click.option("--html", help="The HTML.")
@click.option("--template", help="Use this template instead of --body and --html.")
@variables_option
@click.option(
    "--attach", "attachments", multiple=True, metavar="FILE", help="Attach this file; can be repeated."
)
@click.option("--from", "sender", help="The sender.  [default: PACKMULE_MAIL_FROM]")
@click.option("--key", help="Send it once to each recipient under this key, however often it is enqueued.")
@click.option(
    "--on-unknown",
    type=click.Choice(["park", "resend"]),
    help="Leave or send again a mail whose answer is lost.  [default: park]",
)
@bulk_options
@enqueue_options
@click.pass_obj
def enqueue_email(
    app: App,
    /,
    to: tuple[str, ...],
    cc: tuple[str, ...],
    bcc: tuple[str, ...],
    recipients: str | None,
    variables: tuple[str, ...],
    attachments: tuple[str, ...],
    wait: bool,
    json: bool,
    **given: Any,
) -> int:
    """Send an e-mail from a text or a template.

    One mail goes to all of --to, or one to each of a list. A list is checked first, and its columns are
    variables of the subject and the template. It makes a batch, whose id is printed.
    """
    from packmule.jobs.email import address, email

    listing = {name: given.pop(name) for name in LIST_OPTIONS}
    if (recipients is None) == (not to) or (recipients and (cc or bcc)):
        raise click.UsageError("give --to, or --recipients for a list, which has no --cc and --bcc")
    if recipients is None and any(listing.values()):
        named = ", ".join(f"--{name.replace('_', '-')}" for name in LIST_OPTIONS)
        raise click.UsageError(f"{named} are for a list: give --recipients")

    for each in (*to, *cc, *bcc, given["reply_to"], given["sender"]):
        if each is not None:
            address(each)
    call, options = split(given)
    call |= {name: list(each) for name, each in (("to", to), ("cc", cc), ("bcc", bcc)) if each}
    if variables:
        call["variables"] = assignments("--var", variables)
    if attachments:
        call["attachments"] = list(attachments)
    if recipients is not None:
        if attachments:
            call["attachments"] = [_stored(app, each) for each in attachments]
        return enqueue_bulk(app, recipients, listing, call, options, wait, json)
    return _enqueue(app, email.job, [call], options, wait, json, files="attachments")


@enqueue.command("image")
@click.argument("sources", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="WxH",
    help="Make a rendition: 800x600, 800 (wide) or x600 (high); can be repeated.  [default: 800]",
)
@click.option(
    "--fit",
    type=click.Choice(["contain", "cover", "stretch"]),
    help="Fit the image into its size like this.  [default: contain]",
)
@click.option(
    "--format",
    "format",
    type=click.Choice(["jpeg", "png", "webp"]),
    help="The format of the renditions.  [default: the source's]",
)
@click.option("--quality", type=click.IntRange(1, 100), help="The quality of JPEG and WebP.  [default: 80]")
@click.option("--out", help="Write the renditions to this folder of the storage.")
@enqueue_options
@click.pass_obj
def enqueue_image(
    app: App,
    /,
    sources: tuple[str, ...],
    sizes: tuple[str, ...],
    fit: str | None,
    format: str | None,
    quality: int | None,
    wait: bool,
    json: bool,
    **given: Any,
) -> int:
    """Make renditions of images.

    Each FILE is copied into the storage; store:PATH names one that is there already. Several files make a
    batch, whose id is printed.
    """
    from packmule.jobs.image import image

    common = {"fit": fit, "format": format, "quality": quality}
    common = {name: value for name, value in common.items() if value is not None}
    call, options = split(given)
    call["renditions"] = [size(each) | common for each in sizes or ("800",)]
    calls = [{**call, "source": source} for source in sources]
    return _enqueue(app, image.job, calls, options, wait, json, files="source")


@enqueue.command("file")
@click.argument("sources", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--to", "to", type=click.Choice(["parquet"]), help="Convert it to this format.  [default: inspect only]"
)
@click.option("--out", help="Write the output to this path of the storage.")
@click.option("--sheet", help="Read this sheet of a workbook.  [default: the first]")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=TYPE",
    help="Set a column's type: zip=VARCHAR; can be repeated.",
)
@click.option("--max-refused", type=click.IntRange(min=0), help="Fail if more rows are refused.")
@enqueue_options
@click.pass_obj
def enqueue_file(
    app: App, /, sources: tuple[str, ...], columns: tuple[str, ...], wait: bool, json: bool, **given: Any
) -> int:
    """Inspect CSV, JSON Lines or Excel files, or convert them.

    Each FILE is copied into the storage; store:PATH names one that is there already. Several files make a
    batch, whose id is printed.
    """
    from packmule.jobs.files import file

    call, options = split(given)
    if columns:
        call["columns"] = assignments("--column", columns)
    calls = [{**call, "source": source} for source in sources]
    return _enqueue(app, file.job, calls, options, wait, json, files="source")


@enqueue.command("call")
@click.argument("name", shell_complete=complete_calls)
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@enqueue_options
@click.pass_obj
def enqueue_call(
    app: App, /, name: str, arguments: tuple[str, ...], wait: bool, json: bool, **given: Any
) -> int:
    """Enqueue one of your own jobs by its dotted name.

    A VALUE that is valid JSON is parsed; any other value is text. A text that looks like JSON needs quotes of
    its own: year='"2026"'.
    """
    from packmule.jobs import registry

    app.load_jobs()
    call, options = split(given)
    call |= assignments("argument", arguments, parse=True)
    return _enqueue(app, registry.find(name), [call], options, wait, json)


def _enqueue(
    app: App,
    job_type: JobType,
    calls: list[dict[str, Any]],
    options: Options,
    wait: bool,
    json: bool,
    files: str | None = None,
) -> int:
    """Enqueue one job, or a batch; what the argument `files` names is copied into the storage first."""
    from packmule.jobs.client import known_queue
    from packmule.terminal.follow import follow_one

    if wait and options.result_ttl == 0:
        raise click.UsageError(
            "--wait and --result-ttl 0 exclude each other: no result is kept that could be shown"
        )
    jobs = app.jobs_on(app.client)
    # Checked before anything is copied, so that a refused call leaves nothing behind.
    for call in calls:
        job_type.validate((), call)
    if options.queue is not None:
        known_queue(options.queue, app.settings.queues)
    for call in calls:
        if files in call:
            given = call[files]
            call[files] = (
                _stored(app, given) if isinstance(given, str) else [_stored(app, each) for each in given]
            )
    if len(calls) > 1:
        return _enqueue_batch(app, jobs, job_type, calls, options, wait, json)
    ids = jobs.send(job_type, [((), calls[0])], options)
    id = str(ids[0])
    if ids.held:
        replaced = options.over(job_type.options).is_debounced
        done = "it now has the new arguments" if replaced else "nothing was enqueued"
        complain(f"job {id} is equal and pending: {done}")
    if wait:
        return follow_one(app.client, id, job_type.name.rpartition(".")[2], json)
    say(id)
    return 0


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
        return follow_batch(app, batch.id, json)
    say(batch.id)
    return 0


def _stored(app: App, source: str) -> str:
    """The path of a file in the storage: it is copied there unless `store:` precedes it."""
    from packmule.jobs.storage import MissingFile

    if source.startswith(STORED):
        path = source.removeprefix(STORED)
        if not app.storage.exists(path):
            raise MissingFile(f"the storage at {app.settings.storage_url} has no file {path}")
        return path
    if not Path(source).is_file():
        raise MissingFile(f"there is no file {source}; {STORED}PATH names one that is in the storage")
    return app.storage.put(Path(source))
