"""`packmule enqueue image`: renditions of files, folders and URLs, in the storage or in a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packmule.terminal.app import App
from packmule.terminal.enqueue_options import enqueue_options, split
from packmule.terminal.parameters import size

if TYPE_CHECKING:
    from packmule.jobs.image.batch.sources import Source

FORMATS = ["auto", "jpeg", "png", "webp", "avif", "gif"]
FACTS = ["exif", "gps", "colour", "thumbhash"]
FITS = ["contain", "cover", "fill", "pad", "stretch"]


@click.command("image")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="WxH",
    help="Make a rendition: 800x600, 800 (wide) or x600 (high); can be repeated.  [default: 800]",
)
@click.option(
    "--preset",
    "presets",
    multiple=True,
    metavar="NAME",
    help="Make this preset: thumb, hero@2x; can be repeated.",
)
@click.option(
    "--fit", type=click.Choice(FITS), help="Fit the image into its --size like this.  [default: contain]"
)
@click.option(
    "--format", type=click.Choice(FORMATS), help="The format of the renditions.  [default: the source's]"
)
@click.option("--quality", type=click.IntRange(1, 100), help="The quality of the renditions.  [default: 80]")
@click.option(
    "--fact",
    "facts",
    multiple=True,
    type=click.Choice(FACTS),
    help="Also extract this from the image; can be repeated.",
)
@click.option(
    "--out",
    metavar="FOLDER",
    help="Wait, and put the renditions into this folder, or into store:FOLDER of the storage.",
)
@click.option(
    "--glob",
    "globs",
    multiple=True,
    metavar="PATTERN",
    help="Take only these files from folders; can be repeated.",
)
@click.option("--contact-sheet", is_flag=True, help="With --out: write a page that shows them all.")
@click.option("--delete", is_flag=True, help="With --out: delete the renditions of sources that are gone.")
@click.option("--overwrite", is_flag=True, help="With --out: replace files that Packmule didn't make.")
@click.option("--dry-run", is_flag=True, help="With --out: show what would be made; make nothing.")
@enqueue_options
@click.pass_obj
def enqueue_image(
    app: App,
    /,
    sources: tuple[str, ...],
    sizes: tuple[str, ...],
    presets: tuple[str, ...],
    fit: str | None,
    format: str | None,
    quality: int | None,
    facts: tuple[str, ...],
    out: str | None,
    globs: tuple[str, ...],
    contact_sheet: bool,
    delete: bool,
    overwrite: bool,
    dry_run: bool,
    wait: bool,
    json: bool,
    **given: Any,
) -> int:
    """Make renditions of images.

    Each SOURCE is a file, a folder with its subfolders, a URL, or store:PATH in the storage. Several images
    make a batch, whose id is printed. With --out, a manifest in that folder records what was made, and the
    same command makes only what is new or unfinished.
    """
    from packmule.jobs.client import known_queue
    from packmule.jobs.image import image
    from packmule.jobs.image.batch.sources import gather
    from packmule.terminal.enqueue import enqueue_calls
    from packmule.terminal.image_run import Wishes, make

    common: dict[str, Any] = {
        name: value for name, value in (("format", format), ("quality", quality)) if value is not None
    }
    renditions = {each: _preset(app, each) | common for each in presets}
    if both := renditions.keys() & sizes:
        raise click.UsageError(f"{both.pop()} is a preset and a size, but names one file")
    fitted = common | ({"fit": fit} if fit else {})
    renditions |= {each: _of_size(app, each, fitted) for each in sizes or (() if presets else ("800",))}
    _, options = split(given)
    # Checked before anything is copied, so that a refused call leaves nothing behind.
    call = {"renditions": list(renditions.values()), "facts": list(facts)}
    image.job.validate((), {"source": "a.jpg", **call})
    if options.queue is not None:
        known_queue(options.queue, app.settings.queues)
    if out is not None:
        wishes = Wishes(sources, out, globs, contact_sheet, delete, overwrite, dry_run, json)
        return make(app, wishes, renditions, facts, options)
    if contact_sheet or delete or overwrite or dry_run:
        raise click.UsageError(
            "--contact-sheet, --delete, --overwrite and --dry-run are for a folder of renditions: give --out"
        )
    found = gather(sources, app.storage, globs)
    calls = [{"source": _word(app, each), **call} for each in found]
    return enqueue_calls(app, image.job, calls, options, wait, json, files=("source",))


def _word(app: App, source: Source) -> str:
    """A source as `enqueue` takes files; what is at a URL is fetched into the storage."""
    from packmule.jobs.image.batch.sources import STORED
    from packmule.terminal.image_run import stored

    if source.kind == "file":
        return source.at
    return STORED + (source.at if source.kind == "stored" else stored(app, source.at, source.name))


def _of_size(app: App, text: str, fields: dict[str, Any]) -> dict[str, Any]:
    import msgspec

    from packmule.jobs.arguments import explained
    from packmule.jobs.image import Rendition

    wanted = {**size(text), **fields}
    try:
        known = msgspec.convert(wanted, Rendition).canvas
    except msgspec.ValidationError as error:
        raise click.UsageError(f"--size {text:.40}: {explained(error)}") from None
    if known and known[0] * known[1] > app.settings.max_pixels:
        most = f"the limit of {app.settings.max_pixels:,} pixels (PACKMULE_MAX_PIXELS)"
        raise click.UsageError(f"--size {text:.40}: that is over {most}")
    return wanted


def _preset(app: App, name: str) -> dict[str, Any]:
    import msgspec

    from packmule.jobs.image.presets import Presets

    found: dict[str, Any] = msgspec.to_builtins(Presets(app.settings.presets).find(name))
    return found
