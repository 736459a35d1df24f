"""`packmule enqueue email --recipients`: send a mail to each recipient of a list, and follow that."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packmule import units
from packmule.plain_text import plain_lines
from packmule.terminal.app import App
from packmule.terminal.parameters import F, with_options
from packmule.terminal.say import complain, say, say_lines
from packmule.terminal.waiting import longest_wait

if TYPE_CHECKING:
    from packmule.jobs.email.bulk.counts import Progress
    from packmule.jobs.email.bulk.plan import Report, Sample
    from packmule.jobs.options import Options

POLL_INTERVAL = 0.2

SHOWN_BAD = 10
"""Bad rows that are shown; --bad-rows keeps all."""

SHOWN_LINES = 12
"""Lines of a sample that are shown."""

LIST_OPTIONS = ("column", "encoding", "sheet", "max_bad", "bad_rows", "dry_run")
POLICY = ("on_unknown", "give_up_after")


class Share(click.ParamType[float]):
    """A share such as 5% or 0.05."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)(%?)", str(value))
        share = float(found[1]) / (100 if found[2] else 1) if found else 2.0
        if share > 1:
            self.fail(f"{value!r} is not a share: write 5% or 0.05", param, ctx)
        return share


def bulk_options(command: F) -> F:
    """The options of a list of recipients."""
    options = [
        click.option(
            "--recipients",
            metavar="FILE",
            help="Send one mail to each of this list: CSV, TSV, JSON Lines, Parquet or Excel.",
        ),
        click.option("--column", help="The list's column of addresses.  [default: detected]"),
        click.option("--encoding", help="The list's encoding: utf-8, cp1252.  [default: detected]"),
        click.option("--sheet", help="Read this sheet of a workbook.  [default: the first]"),
        click.option("--max-bad", type=Share(), help="Refuse the list if more rows are bad.  [default: 5%]"),
        click.option("--bad-rows", metavar="FILE", help="Write all bad rows to this file, as JSON Lines."),
        click.option("--dry-run", is_flag=True, help="Check the list and show three mails; send nothing."),
    ]
    return with_options(command, options)


def enqueue_bulk(
    app: App,
    source: str,
    given: dict[str, Any],
    call: dict[str, Any],
    options: Options,
    wait: bool,
    json: bool,
) -> int:
    """Check a list, and enqueue a mail to each of its recipients unless it is a dry run.

    `given` are the values of `bulk_options`, and `call` the arguments of the mail.
    """
    from packmule.jobs.email.bulk.plan import Templating, planned
    from packmule.jobs.email.bulk.recipients import MAX_BAD
    from packmule.jobs.email.bulk.send import enqueue
    from packmule.jobs.email.bulk.table import reading
    from packmule.jobs.email.templating.rendering import Renderer
    from packmule.terminal import show

    policy: dict[str, Any] = {
        name: call.pop(name) for name in ("on_unknown", "give_up_after") if name in call
    }
    content = (call.pop("subject"), call.pop("body", None))
    key = call.pop("key", None)
    max_bad = MAX_BAD if given["max_bad"] is None else given["max_bad"]
    jobs = app.jobs_on(app.client)
    templating = Templating(Renderer(app.settings.templates), app.settings.mail_from)
    with (
        _file(app, source) as file,
        reading(source, file, encoding=given["encoding"], sheet=given["sheet"]) as listed,
        planned(
            listed, (*content, call), templating, app.client,
            key=key, column=given["column"], max_bad=max_bad,
            bad_rows=Path(given["bad_rows"]) if given["bad_rows"] else None,
        ) as plan,
    ):  # fmt: skip
        if given["dry_run"]:
            show.as_json(plan.report) if json else _show_dry_run(plan.report)
            return 0
        _tell(plan.report)
        send = enqueue(plan, jobs, options, policy)
    if wait:
        return follow_bulk(app, send.id, json, longest_wait())
    say(send.id)
    return 0


def follow_bulk(app: App, id: str, json: bool, timeout: float | None = None) -> int:
    """Show the counts of a bulk send until it has ended.

    The exit code is 0 if all of its jobs finished and nobody's mail is unknown.
    """
    from packmule.jobs.batch import Batch
    from packmule.jobs.email.bulk.counts import progress_of
    from packmule.terminal import show
    from packmule.terminal.follow import NO_WORKER_SECONDS, hint_without_workers, live_bars

    batch = Batch(app.client, id)
    hint_at = time.monotonic() + NO_WORKER_SECONDS
    deadline = time.monotonic() + timeout if timeout is not None else float("inf")
    with live_bars() as bars:
        task = bars.add_task("mails", total=None, state="")
        while True:
            found = progress_of(app.client, id)
            ended = found.sent + found.refused + found.suppressed + found.unknown
            bars.update(task, total=found.total or None, completed=ended, state=summary(found))
            if found.state == "ended":
                break
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"bulk send {id} has not ended after {units.given_span(timeout)}, and continues: "
                    f"packmule email bulk {id}"
                )
            if time.monotonic() > hint_at:
                hint_at = float("inf")
                hint_without_workers(app.client, bars)
            time.sleep(POLL_INTERVAL)
    counts = batch.state().counts
    show.as_json(found) if json else say(f"{summary(found)} of {found.total:,}")
    if counts.done < counts.total and not found.unknown and not json:
        complain(
            f"{counts.failed:,} of its {counts.total:,} jobs failed and {counts.canceled:,} were canceled: "
            f"packmule batch show {id}"
        )
    if found.unknown and not json:
        complain(
            f"nobody knows whether {found.unknown:,} mails arrived: packmule email list --state unknown "
            f"--batch {id}, then resolve them"
        )
    return 0 if counts.done == counts.total and not found.unknown else 1


def summary(found: Progress) -> str:
    """`1,000 sent, 2 deferred, 3 refused, 812/s, 24 s left`; what is zero is left out, but not `sent`."""
    parts = [f"{found.sent:,} sent"]
    for name in ("deferred", "refused", "suppressed", "unknown"):
        if count := getattr(found, name):
            parts.append(f"{count:,} {name}")
    if found.state != "ended":
        parts.append(f"{found.rate:,.0f}/s")
        if found.seconds_left is not None:
            parts.append(f"{units.span(found.seconds_left)} left")
        if found.state != "running":
            parts.append(found.state)
    return ", ".join(parts)


@contextmanager
def _file(app: App, source: str) -> Iterator[Path]:
    from packmule.terminal.enqueue import STORED

    if source.startswith(STORED):
        with app.storage.read(source.removeprefix(STORED), app.settings.max_file_bytes) as file:
            yield file
    else:
        yield Path(source)


def _tell(report: Report) -> None:
    """Say on standard error what the sender should know of the list."""
    found, before = report.checked, report.before
    if found.bad:
        complain(
            f"{found.source}: {found.bad:,} of {found.rows:,} rows are bad and skipped: {_first_bad(report)}"
        )
    if before.sent:
        complain(
            f"{before.sent:,} of {found.recipients:,} recipients already got this mail under the key "
            f"{report.key}, and don't get it again; use another --key to send it to them again"
        )
    for sample in report.samples:
        if sample.error:
            complain(f"can't make a mail for {sample.to}: {sample.error}; the others are sent")


def _first_bad(report: Report) -> str:
    first = report.checked.bad_rows[0]
    return f"line {first.line:,}{f', column {first.column}' if first.column else ''}: {first.reason}"


def _show_dry_run(report: Report) -> None:
    from packmule.terminal import show

    found, before = report.checked, report.before
    show.facts(
        {
            "list": found.source,
            "encoding": found.encoding,
            "addresses in": found.column,
            "rows": found.rows,
            "bad rows": found.bad,
            "duplicates": found.duplicates,
            "recipients": found.recipients,
            "sent before": before.sent,
            "unknown": before.unknown,
            "suppressed": before.suppressed,
            "to send": report.to_send,
            "key": report.key,
        }
    )
    if found.bad:
        rows = [(each.line, each.column or "", each.reason) for each in found.bad_rows[:SHOWN_BAD]]
        say("")
        show.table(("line", "column", "bad because"), rows, "", show.NARROW)
    for number, sample in enumerate(report.samples, start=1):
        _show_sample(number, sample)
    say("Nothing was sent: omit --dry-run to send it.")


def _show_sample(number: int, sample: Sample) -> None:
    say("")
    say(f"{number}. To: {sample.to}")
    if sample.error:
        say(f"   can't be made: {sample.error}")
        return
    say(f"   Subject: {sample.subject}")
    lines = plain_lines(sample.text or "").strip().splitlines()
    for line in lines[:SHOWN_LINES]:
        say_lines(f"   {line}")
    if len(lines) > SHOWN_LINES:
        say(f"   ({len(lines) - SHOWN_LINES} more lines)")
