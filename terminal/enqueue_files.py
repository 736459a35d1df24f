"""`packmule enqueue scan` and others: the ready-made jobs for files that strangers sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packmule.terminal.app import App
from packmule.terminal.enqueue_options import calls_of, enqueue_options, split
from packmule.terminal.parameters import Size, assignments
from packmule.terminal.say import say
from packmule.terminal.waiting import longest_wait

if TYPE_CHECKING:
    from packmule.jobs.options import Options


@click.command("scan")
@click.argument("sources", metavar="FILE...", nargs=-1, required=True)
@click.option("--report", is_flag=True, help="Report a virus in the result instead of failing.")
@click.option(
    "--partial", is_flag=True, default=None, help="Accept a clamd that may scan large files only in part."
)
@enqueue_options
@click.pass_obj
def enqueue_scan(
    app: App, /, sources: tuple[str, ...], report: bool, wait: bool, json: bool, **given: Any
) -> int:
    """Scan files for viruses with clamd.

    Workers use the clamd that PACKMULE_CLAMD names. A job fails if it finds a virus or can't scan a whole
    file.

    Each FILE is copied into the storage; store:PATH names one that is there already. Several files make a
    batch, whose id is printed.
    """
    from packmule.jobs.files import scan
    from packmule.terminal.enqueue import enqueue_calls

    call, options = split(given)
    if report:
        call["infected"] = "report"
    calls = calls_of(sources, call)
    return enqueue_calls(app, scan.job, calls, options, wait, json, files=("source",))


@click.command("text")
@click.argument("sources", metavar="FILE...", nargs=-1, required=True)
@click.option("--out", help="Write the text into this folder of the storage.")
@click.option("--encoding", help="The encoding of HTML or plain text, such as cp1252 or gbk.")
@click.option(
    "--max-pages", type=click.IntRange(min=1), help="Fail if there are more pages.  [default: 10000]"
)
@click.option("--thumbnails", type=click.IntRange(0, 100), help="Draw this many first pages of a PDF.")
@click.option(
    "--thumbnail-size",
    type=click.IntRange(16, 2000),
    help="Longer side of thumbnails in pixels.  [default: 400]",
)
@click.option(
    "--thumbnail-format", type=click.Choice(["png", "webp"]), help="Format of thumbnails.  [default: webp]"
)
@enqueue_options
@click.pass_obj
def enqueue_text(app: App, /, sources: tuple[str, ...], wait: bool, json: bool, **given: Any) -> int:
    """Extract the text of PDF, DOCX, PPTX, HTML, RTF.

    The text is in UTF-8, with a form feed between two pages.

    Each FILE is copied into the storage; store:PATH names one that is there already. Several files make a
    batch, whose id is printed.
    """
    from packmule.jobs.files import text
    from packmule.terminal.enqueue import enqueue_calls

    call, options = split(given)
    calls = calls_of(sources, call)
    return enqueue_calls(app, text.job, calls, options, wait, json, files=("source",))


@click.command("unpack")
@click.argument("sources", metavar="FILE...", nargs=-1, required=True)
@click.option("--out", help="Write the files into this folder of the storage.")
@click.option("--skip", is_flag=True, default=None, help="Leave out links and other unfit members.")
@click.option("--encoding", help="The encoding of the names, such as cp437 or shift_jis.")
@click.option("--max-members", type=click.IntRange(min=1), help="Fail if there are more members.")
@click.option("--max-bytes", type=Size(), help="Fail if it unpacks to more than this: 300M, 2G.")
@click.option(
    "--max-ratio",
    type=click.IntRange(min=1),
    help="Fail if it unpacks to more than this many times its size.  [default: 200]",
)
@click.option(
    "--max-depth", type=click.IntRange(min=1), help="Fail if folders are nested deeper.  [default: 32]"
)
@click.option("--each", metavar="JOB", help="Enqueue this job for each file: file, or your own shop.load.")
@click.option(
    "--with",
    "each_with",
    multiple=True,
    metavar="NAME=VALUE",
    help="With --each: set an argument of these jobs.",
)
@enqueue_options
@click.pass_obj
def enqueue_unpack(
    app: App,
    /,
    sources: tuple[str, ...],
    each: str | None,
    each_with: tuple[str, ...],
    wait: bool,
    json: bool,
    **given: Any,
) -> int:
    """Unpack ZIP, tar and compressed files.

    The members of a FILE become files in a folder of the storage, all or none. Links, devices and paths that
    lead out of the folder fail the job, unless --skip leaves them out.

    Each FILE is copied into the storage; store:PATH names one that is there already. Several files make a
    batch, and --each a flow, whose id is printed.
    """
    from packmule.jobs.files import unpack
    from packmule.terminal.enqueue import enqueue_calls

    call, options = split(given)
    calls = calls_of(sources, call)
    if each is not None:
        return _unpack_each(app, calls, options, (each, each_with), wait, json)
    if each_with:
        raise click.UsageError("--with is for the jobs of --each")
    return enqueue_calls(app, unpack.job, calls, options, wait, json, files=("source",))


def _unpack_each(
    app: App,
    calls: list[dict[str, Any]],
    options: Options,
    each: tuple[str, tuple[str, ...]],
    wait: bool,
    json: bool,
) -> int:
    """Enqueue a flow: archives are unpacked, and what was in them becomes further nodes."""
    from packmule import chain, group, result
    from packmule.jobs import registry
    from packmule.jobs.files import each_member, unpack
    from packmule.jobs.job import Prepared
    from packmule.terminal.batch import follow_batch
    from packmule.terminal.enqueue import stored

    app.load_jobs()
    name, texts = each
    job = registry.find(registry.ready(name))
    arguments = assignments("--with", texts, job)
    job.validate(("a.csv",), arguments)
    for call in calls:
        unpack.job.validate((), call)
    for call in calls:
        call["source"] = stored(app, call["source"])
    parts = [
        chain(Prepared(unpack.job, ((), call), options), each_member.call(result, name, arguments))
        for call in calls
    ]
    flow = group(*parts).enqueue(options.description or "unpack", client=app.jobs_on(app.client))
    if wait:
        return follow_batch(app, flow.id, json, longest_wait())
    say(flow.id)
    return 0
