"""`packmule enqueue profile`: what the columns of tables contain."""

from __future__ import annotations

from typing import Any

import click

from packmule.terminal.app import App
from packmule.terminal.enqueue_options import calls_of, enqueue_options, split
from packmule.terminal.file_options import file_call, reading_options


@click.command("profile")
@click.argument("sources", metavar="FILE...", nargs=-1, required=True)
@click.option("--out", help="Write both into this folder of the storage.")
@reading_options
@enqueue_options
@click.pass_obj
def enqueue_profile(app: App, /, sources: tuple[str, ...], wait: bool, json: bool, **given: Any) -> int:
    """Profile the columns of tables, as JSON and as a page.

    A FILE is read as `enqueue file` reads it. Each is copied into the storage; store:PATH names one that is
    there already. Several files make a batch, whose id is printed.
    """
    from packmule.jobs.files import profile
    from packmule.terminal.enqueue import enqueue_calls

    call, options = split(given)
    call = file_call(app.storage, call, "enqueue profile")
    calls = calls_of(sources, call)
    return enqueue_calls(app, profile.job, calls, options, wait, json, files=("source",))
