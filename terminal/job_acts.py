"""`packmule job cancel`, `retry`, `delete`, `run` and `copy`: jobs by their ids, or all that fit a filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from packmule.plain_text import plain
from packmule.terminal.app import App
from packmule.terminal.audit import Audited, audited
from packmule.terminal.job_filters import filter_options, job_filter
from packmule.terminal.parameters import Duration, F, JobId, assignments, complete_queues, with_options
from packmule.terminal.say import complain, say

if TYPE_CHECKING:
    from packmule.errors import Error
    from packmule.jobs.acts import Acted


def by_ids_or_filter(command: F) -> F:
    """The ids and options of a command that acts on many jobs, for `_act`."""
    options: list[Callable[[F], F]] = [
        click.argument("ids", metavar="[ID...]", nargs=-1, type=JobId()),
        filter_options,
        click.option("--all", "everything", is_flag=True, help="All jobs, if no other option is given."),
        click.option("--dry-run", is_flag=True, help="Only count the jobs, and show some."),
    ]
    return with_options(command, options)


@click.command("cancel", cls=Audited)
@by_ids_or_filter
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
@click.option(
    "--timeout",
    type=Duration(),
    default=5.0,
    show_default=True,
    help="How long to wait for a running job to end.",
)
@click.pass_obj
def job_cancel(app: App, /, ids: tuple[str, ...], timeout: float, yes: bool, **given: Any) -> int:
    """Cancel waiting jobs and stop running ones.

    Exit with 1 if one had already ended.
    """
    from packmule.jobs.control import NotCanceled, cancel
    from packmule.jobs.reader import NoSuchJob

    if not ids:
        return _act_on_all(app, "cancel", "canceled", asks=not yes, **given)
    _without_filter(given)
    code = 0
    for id in ids:
        try:
            status = cancel(app.client, id, timeout)
        except (NotCanceled, NoSuchJob) as error:  # the others are canceled all the same
            complain(f"{error}")
            code = max(code, error.exit_code)
        else:
            say(f"{id} {status}")
            code = max(code, status not in {"canceled", "stopped"})
    return code


@click.command("retry", cls=Audited)
@by_ids_or_filter
@click.option(
    "--failed",
    metavar="QUEUE",
    shell_complete=complete_queues,
    help="Retry all failed jobs of this queue, and name each.",
)
@click.pass_obj
def job_retry(app: App, /, ids: tuple[str, ...], failed: str | None, **given: Any) -> int:
    """Run failed, stopped or canceled jobs again.

    A filter without --status selects failed jobs. Exit with 1 if a job is in another state.
    """
    from packmule.jobs.acts import matching
    from packmule.jobs.client import known_queue
    from packmule.jobs.control import retry_each
    from packmule.jobs.job_filter import JobFilter

    if failed and (ids or _is_filtered(given)):
        raise click.UsageError("name the jobs, or a queue with --failed, or filter them")
    if failed:
        wanted = JobFilter(queue=known_queue(failed, app.queues()))
        parts = matching(app.client, wanted, ("failed", "stopped"))
        return max(
            (_each(part, "queued", lambda some: retry_each(app.client, some)) for part in parts), default=0
        )
    if not ids:
        return _act_on_all(app, "retry", "queued", **given)
    _without_filter(given)
    return _each(ids, "queued", lambda some: retry_each(app.client, some))


@click.command("delete", cls=Audited)
@by_ids_or_filter
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
@click.pass_obj
def job_delete(app: App, /, ids: tuple[str, ...], yes: bool, **given: Any) -> int:
    """Delete jobs that aren't running, and their results.

    Exit with 1 if a job is running or others wait for it.
    """
    from packmule.jobs.control import delete_each

    if not ids:
        return _act_on_all(app, "delete", "deleted", asks=not yes, **given)
    _without_filter(given)
    return _each(ids, "deleted", lambda some: delete_each(app.client, some))


@click.command("run", cls=Audited)
@by_ids_or_filter
@click.pass_obj
def job_run(app: App, /, ids: tuple[str, ...], **given: Any) -> int:
    """Run scheduled jobs now, including those that wait for a retry.

    Exit with 1 if one is not scheduled.
    """
    from packmule.jobs.control import run_each

    if not ids:
        return _act_on_all(app, "run", "queued", **given)
    _without_filter(given)
    return _each(ids, "queued", lambda some: run_each(app.client, some))


def _each(ids: Sequence[str], done: str, do: Callable[[Sequence[str]], list[Error | None]]) -> int:
    code = 0
    for id, error in zip(ids, do(ids), strict=True):
        if error is None:
            say(f"{id} {done}")
        else:
            complain(f"{error}")
            code = max(code, error.exit_code)
    return code


def _is_filtered(given: dict[str, Any]) -> bool:
    return any(value for name, value in given.items() if name != "dry_run")


def _without_filter(given: dict[str, Any]) -> None:
    if any(given.values()):
        raise click.UsageError("name the jobs, or filter them, not both")


def _act_on_all(
    app: App, act_name: str, done: str, *, everything: bool, dry_run: bool, asks: bool = False, **given: Any
) -> int:
    """Act on all jobs that fit, count them, and ask before if the act can't be undone."""
    from packmule.jobs.acts import Acted, act

    if everything == _is_filtered(given):
        raise click.UsageError(
            "name the jobs, or a queue with --failed, or filter them; --all alone means all"
            if act_name == "retry"
            else "name the jobs, or filter them; --all alone means all"
        )
    wanted = job_filter(app, **given)
    queues = app.queues()
    if dry_run or asks:
        found = act(app.client, act_name, wanted, dry_run=True, more_queues=queues)
        if dry_run or not found.matched:
            say(f"{_jobs(found.matched)} would be {done}{_examples(found)}")
            return 0
        question = f"{act_name.capitalize()} {_jobs(found.matched)}{_examples(found)}?"
        click.confirm(plain(question), abort=True)
    acted = Acted()
    audited(lambda: _subject(given, acted))
    act(app.client, act_name, wanted, more_queues=queues, acted=acted)
    say(f"{_jobs(acted.done)} {done}")
    for reason, count in acted.refused.most_common(10):
        complain(f"{_jobs(count)} skipped: {reason}")
    return int(bool(acted.refused))


def _subject(given: dict[str, Any], acted: Acted) -> dict[str, Any]:
    """What the audit keeps: how many, and the filter without values of arguments, which may be secret."""
    shown = {name: value for name, value in given.items() if value and name != "args"}
    names = [each.partition("=")[0] for each in given["args"]]
    return {**shown, **({"args": names} if names else {}), "matched": acted.matched, "done": acted.done}


def _jobs(count: int) -> str:
    return f"{count:,} {'job' if count == 1 else 'jobs'}"


def _examples(acted: Acted) -> str:
    rest = ", ..." if acted.matched > len(acted.examples) else ""
    return f": {', '.join(acted.examples)}{rest}" if acted.examples else ""


@click.command("copy", cls=Audited)
@click.argument("id", type=JobId())
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change an argument: JSON or text; can be repeated.",
)
@click.option("--queue", metavar="NAME", shell_complete=complete_queues, help="Enqueue it on another queue.")
@click.option("--job-id", help="Give the new job this id; do nothing if a job of that id exists.")
@click.pass_obj
def job_copy(app: App, id: str, changes: tuple[str, ...], queue: str | None, job_id: str | None) -> None:
    """Enqueue a copy of a job, with other arguments.

    Arguments are checked as at any enqueue. The new job's id is printed.
    """
    from packmule.jobs import reader, registry
    from packmule.jobs.copying import copy

    app.load_jobs()
    job = registry.find(reader.read(app.client, id).name) if changes else None
    say(copy(app.jobs_on(app.client), id, assignments("--set", changes, job), queue, job_id))
