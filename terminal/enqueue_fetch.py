"""`packmule enqueue fetch`: files at URLs get into the storage."""

from __future__ import annotations

from typing import Any

import click

from packmule.terminal.app import App
from packmule.terminal.enqueue_options import calls_of, enqueue_options, split
from packmule.terminal.parameters import Duration, Size


@click.command("fetch")
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option("--out", help="Store it at this path of the storage.")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="TYPE",
    help="Accept this type: text/csv, image/*; can be repeated.",
)
@click.option("--max-bytes", type=Size(), help="Fail if it is larger: 300M, 2G.")
@click.option(
    "--within", "seconds", type=Duration(), help="Fail if it takes longer: 90s, 10m.  [default: 15m]"
)
@enqueue_options
@click.pass_obj
def enqueue_fetch(
    app: App, /, urls: tuple[str, ...], types: tuple[str, ...], wait: bool, json: bool, **given: Any
) -> int:
    """Download URLs into the storage.

    A file is stored whole or not at all. Workers fetch only what their PACKMULE_FETCH_FROM allows, by default
    any public host. Several URLs make a batch, whose id is printed.
    """
    from packmule.jobs.files import fetch
    from packmule.terminal.enqueue import enqueue_calls

    call, options = split(given)
    if types:
        call["types"] = list(types)
    return enqueue_calls(app, fetch.job, calls_of(urls, call), options, wait, json)
