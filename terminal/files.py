"""`packmule files`: the files of jobs in the storage, listed, downloaded and deleted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packmule.errors import Error
from packmule.terminal.app import App
from packmule.terminal.audit import Audited, audited
from packmule.terminal.parameters import Duration, Size, json_option
from packmule.terminal.say import complain, say

if TYPE_CHECKING:
    from packmule.jobs.storage import MissingFile, Storage


@click.group()
def files() -> None:
    """List, download and delete files in the storage.

    Name a file by its path in the storage, a folder by its path with a trailing slash, and the files that a
    job made by the job's id.
    """


@files.command("ls")
@click.argument("name", metavar="[PATH|JOB]", default="")
@json_option
@click.pass_obj
def files_ls(app: App, name: str, json: bool) -> None:
    """List the files of a job, or those whose paths begin with PATH."""
    from packmule.jobs.storage import StoredFile
    from packmule.terminal import show

    storage = app.storage
    paths = _of_job(app, storage, name)
    if paths is None:
        found = sorted(storage.files(name))
        if name and not found:
            raise _missing(storage, name)
    else:
        folders = {path.rpartition("/")[0] for path in paths}
        listed = {each.path: each for folder in folders for each in storage.files(f"{folder}/".lstrip("/"))}
        found = [listed.get(path, StoredFile(path, None, None)) for path in paths]
    if json:
        show.as_json([each._asdict() for each in found])
        return
    rows = [
        (
            each.path,
            "gone" if paths and each.path not in listed else _count(each.bytes),
            show.ago(each.written_at),
        )
        for each in found
    ]
    show.table(("path", "bytes", "written"), rows, "no files", cut="path")
    if rows:
        show.out.print()
        say(f"{_counted(len(found), 'file')}, {sum(each.bytes or 0 for each in found):,} bytes")


@files.command("get")
@click.argument("names", metavar="PATH|JOB...", nargs=-1, required=True)
@click.argument("folder", metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace files in FOLDER that have the same names.")
@json_option
@click.pass_obj
def files_get(app: App, names: tuple[str, ...], folder: Path, overwrite: bool, json: bool) -> int:
    """Copy files from the storage into FOLDER.

    Files keep their paths in the storage, relative to the folder that they share. Files in FOLDER with the
    same content stay as they are; others are replaced only with --overwrite.
    """
    from packmule.jobs.storage.taking import names_for, take
    from packmule.terminal import show

    storage, done, faults = app.storage, list[dict[str, Any]](), 0
    for name in names:
        for path, called in names_for(_named(app, storage, name)).items():
            try:
                how = take(storage, path, folder / called, overwrite)
            except Error as error:
                complain(error)
                faults += 1
                continue
            done.append({"path": path, "file": str(folder / called), "how": how})
            if not json:
                say(folder / called if how != "same" else f"{folder / called} (unchanged)")
    if json:
        show.as_json(done)
    return 1 if faults else 0


@files.command("rm", cls=Audited)
@click.argument("names", metavar="PATH|JOB...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Delete files even if a job or a schedule still needs them.")
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
@click.pass_obj
def files_rm(app: App, names: tuple[str, ...], force: bool, yes: bool) -> None:
    """Delete files from the storage."""
    from packmule.jobs.retention.in_use import in_use, is_used
    from packmule.jobs.storage import StorageError

    storage = app.storage
    paths = list(dict.fromkeys(path for name in names for path in _named(app, storage, name)))
    used = set() if force else in_use(app.client)
    if needed := [path for path in paths if is_used(path, used)]:
        raise StorageError(f"{_few(needed)}: a job or a schedule still needs it: wait, or use --force")
    if not yes and not click.confirm(f"Delete {_few(paths)}?"):
        raise click.Abort
    audited(lambda: {"deleted": deleted})
    deleted = 0
    for path in paths:
        deleted += storage.delete(path)
    say(f"Deleted {_counted(deleted, 'file')}.")


@files.command("gc", cls=Audited)
@click.option(
    "--older",
    type=Duration(),
    help="Delete files made longer ago than this: 30d.  [default: PACKMULE_FILES_KEEP]",
)
@click.option(
    "--above",
    type=Size(),
    help="Delete the oldest files beyond this total size: 50G.  [default: PACKMULE_FILES_BYTES]",
)
@click.option("--uploads", is_flag=True, help="Count and delete uploads, too.")
@click.option("--dry-run", is_flag=True, help="Show what would be deleted; delete nothing.")
@json_option
@click.pass_obj
def files_gc(
    app: App, older: float | None, above: int | None, uploads: bool, dry_run: bool, json: bool
) -> int:
    """Delete files that jobs made and that are no longer needed.

    Files that a job or a schedule still needs stay, and so do files younger than an hour.
    """
    from packmule.jobs.retention.made import MADE, UPLOADS
    from packmule.jobs.retention.prune import prune
    from packmule.terminal import show

    if older is None and above is None:
        older, above = app.settings.files_keep, app.settings.files_bytes
        if older is None and above is None:
            raise click.UsageError("say what to delete: --older 30d, --above 50G, or PACKMULE_FILES_KEEP")
    folders = [*MADE, UPLOADS] if uploads else MADE
    pruned = prune(app.storage, app.client, older, above, folders, dry_run)
    audited(
        lambda: {
            "older": older,
            "above": above,
            "uploads": uploads,
            "deleted": pruned.deleted_files,
            "bytes": pruned.deleted_bytes,
        }
    )
    for fault in pruned.faults:
        complain(fault)
    failed = 1 if pruned.faults else 0
    if json:
        show.as_json(
            {
                "files": pruned.files,
                "bytes": pruned.bytes,
                "deleted": pruned.deleted_files,
                "deleted_bytes": pruned.deleted_bytes,
                "used": pruned.used,
                "places": [
                    {
                        "path": made.path,
                        "files": made.files,
                        "bytes": made.bytes,
                        "written_at": made.written_at,
                    }
                    for made in pruned.deleted
                ],
            }
        )
        return failed
    rows = [(made.path, made.files, _count(made.bytes), show.ago(made.written_at)) for made in pruned.deleted]
    show.table(("path", "files", "bytes", "written"), rows, "nothing to delete", cut="path")
    word = "Would delete" if dry_run else "Deleted"
    kept = f"; {_counted(pruned.used, 'file')} kept, because jobs use them" if pruned.used else ""
    say(
        f"{word} {pruned.deleted_files:,} of {_counted(pruned.files, 'file')}, "
        f"{pruned.deleted_bytes:,} of {pruned.bytes:,} bytes{kept}."
    )
    return failed


def _named(app: App, storage: Storage, name: str) -> list[str]:
    """The files that a job has made, or that are in a folder, or one of that path. Raises `MissingFile`."""
    from packmule.jobs.storage import MissingFile

    paths = _of_job(app, storage, name)
    if paths is None:
        path = name
        paths = storage.names(path) if path.endswith("/") else [path] if path and storage.exists(path) else []
        if not paths:
            raise _missing(storage, name)
    elif not paths:
        raise MissingFile(f"job {name} has made no files: packmule job show {name} has its result")
    return paths


def _missing(storage: Storage, name: str) -> MissingFile:
    from packmule.jobs.storage import MissingFile

    if name and not name.endswith("/") and any(storage.files(f"{name}/")):
        return MissingFile(f"{name} is a folder: write {name}/")
    what = "folder" if name.endswith("/") else "file"
    where = storage.locate("x").removesuffix("x")
    return MissingFile(f"the storage at {where} has no {what} {name}, and no job has that id")


def _of_job(app: App, storage: Storage, name: str) -> list[str] | None:
    """The files of the job that `name` is the id of; None if it is not one."""
    from packmule.jobs import reader
    from packmule.jobs.keys import SHORTEST_BEGINNING
    from packmule.jobs.outputs import files_of
    from packmule.jobs.prefixes import job_id

    if "/" in name or ":" in name or len(name) < SHORTEST_BEGINNING or storage.exists(name):
        return None
    try:
        info = reader.read(app.client, job_id(app.client, name, app.settings.queues))
    except reader.NoSuchJob:
        return None
    return files_of(info, storage)


def _few(paths: Sequence[str]) -> str:
    return paths[0] + (f" and {len(paths) - 1:,} more" if len(paths) > 1 else "")


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
