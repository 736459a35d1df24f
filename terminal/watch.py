"""`packmule watch`: send what comes into a folder through a pipeline."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

import click

from packmule.terminal.app import App
from packmule.terminal.parameters import Duration
from packmule.terminal.say import complain, say


@click.command()
@click.argument("inbox", type=click.Path(file_okay=False, path_type=Path))
@click.option("--pipeline", "name", metavar="NAME", required=True, help="Run files through this pipeline.")
@click.option(
    "--stable",
    type=Duration(),
    default="2s",
    show_default=True,
    help="Take a file once it hasn't changed for this long.",
)
@click.option("--leave", is_flag=True, help="Leave files where they are, even if they failed.")
@click.option(
    "--once", is_flag=True, help="Exit when the files that are there are done; exit 1 if one failed."
)
@click.pass_obj
def watch(app: App, inbox: Path, name: str, stable: float, leave: bool, once: bool) -> int:
    """Run files from INBOX through a pipeline, once per content.

    A file is moved to INBOX/done or INBOX/failed when its pipeline has ended. Hidden files, links and folders
    are ignored. Any number of watchers may run, on one host or several. SIGTERM stops the watcher after the
    current file.
    """
    from packmule.jobs.pipelines.pipeline_file import find
    from packmule.jobs.pipelines.watching import Watcher

    if not inbox.is_dir():
        raise click.UsageError(f"there is no folder {inbox}")
    found = find(app.pipelines(), name)
    app.await_server()
    jobs = app.jobs_on(app.client)
    found.check(jobs)
    watcher = Watcher(
        inbox, found, app.storage, jobs, say, complain,
        stable=stable, leaves=leave, most_bytes=app.settings.max_file_bytes,
    )  # fmt: skip

    def stop(signum: int, frame: FrameType | None) -> None:
        if watcher.stopping.is_set():
            raise SystemExit(128 + signum)  # asked twice
        watcher.stopping.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    watcher.run(once)
    return 1 if once and watcher.failures else 0
