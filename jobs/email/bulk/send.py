"""Bulk sends by a program: `send_bulk` enqueues one, and its handle shows and steers it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import msgspec

from packmule.config import Settings
from packmule.jobs import keys
from packmule.jobs.batch import KEEP, Batch
from packmule.jobs.batch import Settings as BatchSettings
from packmule.jobs.client import Client
from packmule.jobs.email.bulk.chunk import email_chunk
from packmule.jobs.email.bulk.counts import FIELD, Facts, Progress, ended_of, facts_of, progress_of
from packmule.jobs.email.bulk.mail import MailFields
from packmule.jobs.email.bulk.plan import Plan, Report, Templating, planned
from packmule.jobs.email.bulk.recipients import MAX_BAD
from packmule.jobs.email.bulk.results import Result, chunk_id, results_of
from packmule.jobs.email.bulk.table import Listed, given, reading
from packmule.jobs.email.ledger import GIVE_UP_AFTER, OnUnknown, names
from packmule.jobs.email.templating.rendering import Renderer
from packmule.jobs.options import InvalidOption, Options
from packmule.units import KIB

LEAST, MOST = 50, 500
"""Recipients of a chunk: a hundredth of the list, within these bounds."""

MOST_BYTES = 192 * KIB
"""Bytes of JSON that the recipients of a chunk may take, unless the client's jobs must be smaller."""

LEFT_FOR_MAIL = 4 * KIB

List = str | Path | Iterable[Mapping[str, Any]]
"""A list of recipients: the path of a file, or their variables."""


class BulkSend:
    """A bulk send that was enqueued: `id` is its batch's, and `report` says what became of its list."""

    def __init__(self, client: Client, id: str, report: Report | None = None) -> None:
        self.id = id
        self.report = report
        self.batch = Batch(client, id)

    def progress(self) -> Progress:
        """How many mails are in which state, its rate and the time left. Raises `NoSuchSend`."""
        return progress_of(self.batch.redis, self.id)

    def wait(self, timeout: float | None = None) -> Progress:
        """Wait until it has ended. Raises `NoSuchSend`, and `TimeoutError` after `timeout` seconds."""
        facts_of(self.batch.redis, self.id)
        self.batch.wait(timeout)
        return self.progress()

    def pause(self) -> bool:
        """Send no more after the mails that are under way; False if it was already paused."""
        return self.batch.pause()

    def resume(self) -> bool:
        """Go on; False if it was not paused."""
        return self.batch.resume()

    def cancel(self) -> None:
        """Send no more after the mails that are under way, ever."""
        self.batch.cancel()

    def results(self) -> Iterator[Result]:
        """What became of each recipient, in the order of the list. Raises `NoSuchSend`."""
        return results_of(self.batch.redis, self.id)


def send_bulk(
    recipients: List,
    subject: str,
    body: str | None = None,
    *,
    key: str | None = None,
    column: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    max_bad: float = MAX_BAD,
    on_unknown: OnUnknown = "park",
    give_up_after: float = GIVE_UP_AFTER,
    options: Options | None = None,
    client: Client | None = None,
    **mail: Unpack[MailFields],
) -> BulkSend:
    """Send one mail to each recipient of a list, once, in chunks that are jobs of one batch.

    `recipients` is the path of a CSV, JSON Lines, Parquet or Excel file, or mappings. Its columns are
    variables of the subject and the template; `column` names the one with the addresses if that is not plain,
    `encoding` how a text is written and `sheet` a workbook's sheet. If a larger share of the rows than
    `max_bad` is bad, nothing is sent.

    A recipient gets what is sent under one `key` once. Without a key, that is so for the same list and mail.
    The other arguments are those of the `email` job. Raises what `plan.planned` and `Client.enqueue` do.

    >>> send = send_bulk("list.csv", "Hello {{ name }}", template="spring", key="sale")  # doctest: +SKIP
    >>> send.wait().sent  # doctest: +SKIP
    1000
    """
    jobs = client or Client.default()
    policy = {"on_unknown": on_unknown, "give_up_after": give_up_after}
    with _planned(
        jobs, opened(recipients, encoding, sheet), (subject, body, mail), key, column, max_bad
    ) as plan:
        return enqueue(plan, jobs, options, policy)


def preview_bulk(
    recipients: List,
    subject: str,
    body: str | None = None,
    *,
    key: str | None = None,
    column: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    max_bad: float = MAX_BAD,
    client: Client | None = None,
    **mail: Unpack[MailFields],
) -> Report:
    """What `send_bulk` would do: bad rows, recipients known before, three mails. Nothing is sent.

    >>> preview_bulk("list.csv", "Hello {{ name }}", template="spring").samples[0].subject  # doctest: +SKIP
    'Hello Ada'
    """
    jobs = client or Client.default()
    with _planned(
        jobs, opened(recipients, encoding, sheet), (subject, body, mail), key, column, max_bad
    ) as plan:
        return plan.report


def opened(recipients: List, encoding: str | None, sheet: str | None) -> AbstractContextManager[Listed]:
    """The list of a call. Raises what `table.reading` does."""
    if isinstance(recipients, str | Path):
        return reading(str(recipients), Path(recipients), encoding=encoding, sheet=sheet)
    return given(recipients)


def enqueue(plan: Plan, jobs: Client, options: Options | None, policy: Mapping[str, Any]) -> BulkSend:
    """Enqueue the chunks of `plan` as jobs of a new batch, which is canceled if that fails."""
    options = options or Options()
    if options.is_unique or options.job_id is not None or options.batch is not None or options.parents:
        raise InvalidOption("a bulk send is a batch of its own jobs: omit job_id, batch, after and unique")
    report, counts = plan.report, plan.counts
    checked, send = report.checked, names.send_of_key(report.key)
    total = sum(counts.values()) - report.before.known + checked.recipients
    facts = Facts(
        send, report.key, checked.source, plan.mail.subject, plan.mail.template, plan.mail.column,
        checked.recipients, total, ended_of(counts),
    )  # fmt: skip
    id = keys.new_job_id()
    fields, _ = BatchSettings(f"mail: {checked.source}", None, None, False, KEEP).written()
    jobs.create_batch(id, None, [*fields, FIELD, msgspec.json.encode(facts).decode()], [])
    with Batch(jobs, id):
        for number, rows in enumerate(_chunks(plan, jobs.max_bytes)):
            call = {"key": report.key, "mail": plan.mail, "rows": rows, **policy}
            jobs.send(email_chunk.job, [((), call)], replace(options, batch=id, job_id=chunk_id(id, number)))
    return BulkSend(jobs, id, report)


def _chunks(plan: Plan, max_bytes: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the recipients in lists that jobs can hold."""
    most = min(max(LEAST, plan.report.checked.recipients // 100), MOST)
    room = min(MOST_BYTES, max_bytes - len(msgspec.json.encode(plan.mail)) - LEFT_FOR_MAIL)
    rows: list[dict[str, Any]] = []
    size = 0
    for row in plan.recipients:
        taken = len(msgspec.json.encode(row)) + 1
        if rows and (len(rows) == most or size + taken > room):
            yield rows
            rows, size = [], 0
        rows.append(row)
        size += taken
    if rows:
        yield rows


@contextmanager
def _planned(
    jobs: Client,
    opening: AbstractContextManager[Listed],
    content: tuple[str, str | None, Mapping[str, Any]],
    key: str | None,
    column: str | None,
    max_bad: float,
) -> Iterator[Plan]:
    settings = jobs.settings or Settings.from_env()
    templating = Templating(Renderer(settings.templates), settings.mail_from)
    with (
        opening as listed,
        planned(listed, content, templating, jobs.redis, key=key, column=column, max_bad=max_bad) as plan,
    ):
        yield plan
