"""`packmule enqueue image --out`: make a folder of renditions, and follow that."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from packmule.coordination.locks.redlock import Lock, NotAcquired, Redlock
from packmule.errors import Conflict, Error, UsageError
from packmule.jobs.image import Rendition
from packmule.jobs.image.batch import contact_sheet, manifest
from packmule.jobs.image.batch.run import Plan, Run
from packmule.jobs.image.batch.sources import STORED, Source, gather
from packmule.jobs.image.batch.target import Target
from packmule.jobs.storage import Storage, StorageError, safe_name, temporary
from packmule.jobs.storage.store import TEMPORARY, explained
from packmule.terminal import show
from packmule.terminal.app import App
from packmule.terminal.follow import NO_WORKER_SECONDS, hint_without_workers, live_bars
from packmule.terminal.say import complain, say
from packmule.terminal.waiting import longest_wait
from packmule.units import given_span

if TYPE_CHECKING:
    from packmule.jobs.options import Options


LOCK_TTL = 10.0
LOCK_WAIT = 1.0
"""Seconds: a server that writes to a slow disk may answer late once."""


class FolderInUse(Conflict, RuntimeError):
    """Another run writes into the same folder."""


class ForeignFile(UsageError, FileExistsError):
    """A rendition would replace a file that no run has made."""


class Wishes(NamedTuple):
    """What the caller asks for besides renditions: see the options of the command."""

    sources: Sequence[str]
    out: str
    globs: Sequence[str]
    contact_sheet: bool
    delete: bool
    overwrite: bool
    dry_run: bool
    json: bool


def make(
    app: App,
    wishes: Wishes,
    renditions: Mapping[str, dict[str, Any]],
    facts: Sequence[str],
    options: Options,
) -> int:
    """Make the renditions that have changed, or show which these are; 0 if all could be made, else 1."""
    if options.is_unique or options.job_id is not None or options.is_scheduled:
        raise click.UsageError(
            "--out waits for each image: omit --job-id, and options that delay a job or make it unique"
        )
    target = _target(app, wishes.out)
    found = gather(wishes.sources, app.storage, wishes.globs, [wishes.out])
    with live_bars() as bars, _alone(app, target, wishes) as refuse_others:
        task = bars.add_task("images", total=None, state="")
        hint_at = time.monotonic() + NO_WORKER_SECONDS
        longest, until = longest_wait(), 0.0

        def report(what: str, done: int, total: int, failed: int) -> None:
            nonlocal hint_at, until
            refuse_others()
            state = f"{done:,} of {total:,} {what}" + (f", {failed:,} failed" if failed else "")
            bars.update(task, total=total, completed=done, state=state)
            if what != "done" or done == total:
                return
            if time.monotonic() > hint_at:
                hint_at = float("inf")
                hint_without_workers(app.client, bars)
            until = until or time.monotonic() + (float("inf") if longest is None else longest)
            if time.monotonic() > until:
                raise TimeoutError(
                    f"{done:,} of {total:,} images were done after {longest:g} s, and the rest continues: "
                    "run the same command again"
                )

        wanted = msgspec.convert(renditions, dict[str, Rendition])
        run = Run(app.jobs_on(app.client), app.storage, target, wanted, facts, options, report)
        if wishes.dry_run:
            return _show_plan(run, _planned(run, found, {}, wishes), wishes)
        try:
            collected = run.finish_earlier()
            sources, unread = _fetched(app, found, report)
            plan = _planned(run, sources, unread, wishes)
            batch = run.send(plan, options.description or f"images for {wishes.out}")
            hint_at = time.monotonic() + NO_WORKER_SECONDS
            run.follow()
        except (KeyboardInterrupt, SystemExit):
            complain(
                "interrupted: jobs already enqueued still run, and the same command continues from there"
            )
            raise
        deleted = run.delete_gone(plan) if wishes.delete else 0
        if wishes.contact_sheet:
            contact_sheet.write(target, run.manifest)
    return _show_end(run, plan, collected, batch, deleted, wishes)


def stored(app: App, url: str, name: str) -> str:
    """The path in the storage of what is at a URL, once it is fetched."""
    from packmule.jobs.outgoing.door import Allowed
    from packmule.jobs.outgoing.download import download
    from packmule.jobs.outgoing.fetch_list import FetchList

    with temporary.folder() as folder:
        file = folder / safe_name(name)
        allowed, urls = Allowed(app.settings.webhook_allow), FetchList(app.settings.fetch_from)
        download(url, file, app.settings.max_file_bytes, allowed, check=urls.check)
        return app.storage.put(file)


def _target(app: App, out: str) -> Target:
    if out in ("", STORED):
        raise click.UsageError(f"--out needs a folder: web, or {STORED}web in the storage")
    if out.startswith(STORED):
        return Target(app.storage, out.removeprefix(STORED).rstrip("/"), is_workers=True)
    with explained("write to", f"{out:.200}"):
        if "://" not in out and Path(out).exists() and not Path(out).is_dir():
            raise StorageError(f"{out} is a file: give a folder for the renditions")
    return Target(Storage(out))


def _planned(run: Run, sources: Sequence[Source], unread: Mapping[str, str], wishes: Wishes) -> Plan:
    """What the run would do. Raises `ForeignFile`."""
    plan = run.plan(sources, unread)
    if plan.foreign and not wishes.overwrite:
        others = f" (and {len(plan.foreign) - 1:,} more)" if len(plan.foreign) > 1 else ""
        raise ForeignFile(
            f"{run.target.locate(plan.foreign[0])}{others} would be replaced, but Packmule didn't make it: "
            "move it away, choose another folder, or use --overwrite"
        )
    return plan


@contextmanager
def _alone(app: App, target: Target, wishes: Wishes) -> Iterator[Callable[[], None]]:
    """Keep a second run out of the folder; it yields what raises `FolderInUse` if that can't be promised."""
    if wishes.dry_run:
        yield lambda: None
    elif target.is_workers or "://" in wishes.out:
        with _lock_held(app, target, wishes.out) as lock:
            yield partial(_refuse_lost, lock, wishes.out)
    else:
        with _folder_held(target, wishes.out):
            yield lambda: None


@contextmanager
def _lock_held(app: App, target: Target, out: str) -> Iterator[Lock]:
    """A lock of the cluster for a folder that other hosts reach, too."""
    redlock = Redlock(app.lock_nodes())
    try:
        try:
            lock = redlock.acquire(f"images in {target.locate(manifest.NAME)}", ttl=LOCK_TTL, wait=LOCK_WAIT)
        except NotAcquired:
            raise FolderInUse(
                f"another command is making renditions in {out}: wait until it ends, "
                f"or {given_span(LOCK_TTL)} if it was killed"
            ) from None
        try:
            yield lock
        finally:
            lock.release()
    finally:
        redlock.close()


def _refuse_lost(lock: Lock, out: str) -> None:
    if time.monotonic() > lock.until:
        raise FolderInUse(
            f"another command may be making renditions in {out}, because Redis was unavailable: run the "
            "same command again"
        )


@contextmanager
def _folder_held(target: Target, out: str) -> Iterator[None]:
    """A lock of this host for a local folder; at the end nothing is left in it that is no rendition."""
    folder = Path(out)
    with explained("write to", out):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(f"another command is making renditions in {out}: wait until it ends") from None
        target.storage.remove_unfinished()
        yield
        with suppress(OSError):
            (folder / TEMPORARY).rmdir()
    finally:
        os.close(lock)


def _fetched(app: App, found: Sequence[Source], report: Any) -> tuple[list[Source], dict[str, str]]:
    """The sources with those of URLs fetched into the storage, and why some can't be."""
    sources, unread = [], {}
    for number, each in enumerate(found, start=1):
        if each.kind != "url":
            sources.append(each)
            continue
        try:
            sources.append(Source(each.name, "stored", stored(app, each.at, each.name.rpartition("/")[2])))
        except (Error, OSError) as error:
            unread[each.name] = str(error)
        report("fetched", number, len(found), len(unread))
    return sources, unread


def _show_plan(run: Run, plan: Plan, wishes: Wishes) -> int:
    made = {
        name: [run.target.path(f"{plan.places[name]}-{label}") for label in run.renditions]
        for name in plan.todo
    }
    if wishes.json:
        show.as_json({"make": made, "unchanged": plan.unchanged, "gone": plan.gone, "unread": plan.unread})
        return 0
    for name, paths in made.items():
        say(f"{name}: {', '.join(path.rpartition('/')[2] for path in paths)}")
    for name, reason in plan.unread.items():
        complain(f"{name}: {reason}")
    say(
        f"{len(made):,} would be made, {len(plan.unchanged):,} are unchanged, {len(plan.gone):,} are gone: "
        "leave --dry-run out to do it"
    )
    return 0


def _show_end(
    run: Run, plan: Plan, collected: set[str], batch: str | None, deleted: int, wishes: Wishes
) -> int:
    # What an earlier run has sent and this one has collected is news to the caller.
    unchanged = [name for name in plan.unchanged if name not in collected]
    made = len(plan.unchanged) - len(unchanged)
    tried = {*plan.todo, *plan.unread}
    failed = {
        name: error for name in sorted(tried) if (error := run.manifest.sources[name].error) is not None
    }
    made += len(tried) - len(failed)
    where = run.target.locate(manifest.NAME)
    if wishes.json:
        show.as_json(
            {
                "made": made,
                "unchanged": len(unchanged),
                "failed": failed,
                "gone": plan.gone,
                "deleted": deleted,
                "manifest": where,
                "batch": batch,
            }
        )
        return 1 if failed else 0
    for name, reason in failed.items():
        complain(reason if name in reason else f"{name}: {reason}")
    said = [f"{made:,} made", f"{len(unchanged):,} unchanged"]
    if failed:
        said.append(f"{len(failed):,} failed")
    if plan.gone:
        said.append(
            f"{len(plan.gone):,} gone" + ("" if wishes.delete else " (--delete removes their renditions)")
        )
    say(f"{', '.join(said)}: {where}")
    return 1 if failed else 0
