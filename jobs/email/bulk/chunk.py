"""The job of one chunk: it sends a mail to each of its recipients over one connection, and to each once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from redis import Redis

from packmule.coordination.redis.backoff import REDIS_ERRORS
from packmule.jobs import context, current, keys
from packmule.jobs.batch import KEEP
from packmule.jobs.context import REPORT_INTERVAL
from packmule.jobs.email import HOPELESS
from packmule.jobs.email.bulk.between import deliver
from packmule.jobs.email.bulk.mail import BulkMail
from packmule.jobs.email.delivery.mailer import Mailer
from packmule.jobs.email.delivery.route import TemporaryFailure
from packmule.jobs.email.delivery.smtp.server import MailRefused
from packmule.jobs.email.ledger import GIVE_UP_AFTER, Ledger, OnUnknown, Run, Send, client_of_ledger, names
from packmule.jobs.email.ledger.verdict import await_rest, refuse_unknown
from packmule.jobs.email.letter import InvalidMessage, Letter
from packmule.jobs.email.message.addresses import InvalidAddress, parse
from packmule.jobs.email.outcome import State
from packmule.jobs.email.suppression.links import links_for, personal
from packmule.jobs.email.templating.rendering import InvalidTemplate
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.interrupts import Interrupted
from packmule.jobs.job import job
from packmule.jobs.storage import Storage

T = TypeVar("T")

RESERVED_AT_ONCE = 100
"""Recipients that one call of the ledger reserves: it takes a few milliseconds."""

LOOK_INTERVAL = 1.0
"""Seconds between two looks whether the batch is paused."""

UNFIT = (InvalidAddress, InvalidMessage, InvalidTemplate)
"""Errors that concern one recipient's mail."""


@job(queue="low", timeout=3600, retries=5, give_up_on=HOPELESS, result_ttl=KEEP, failure_ttl=KEEP)
def email_chunk(
    key: str,
    mail: BulkMail,
    rows: list[dict[str, Any]],
    on_unknown: OnUnknown = "park",
    give_up_after: float = GIVE_UP_AFTER,
) -> dict[str, int]:
    """Send `mail` to the recipients whose variables are `rows`, each once under `key`: a part of `send_bulk`.

    A recipient whose mail can't be built is refused with the reason, and the others go on. Those who are
    refused for now are tried again later. Returns how many are in which state; raises `MailUnknown` if nobody
    knows of some, which `packmule email resolve` settles.
    """
    mailer = current.resource(Mailer)
    if mail.template is not None:
        mailer.renderer.parts(mail.template)  # a worker without it refuses nobody: the chunk fails
    chunk = {_address(row, mail.column): row for row in rows}
    send = Send(names.send_of_key(key), key, is_counted=True)
    ledger = context.resources.get(Ledger)
    run = ledger.run(send, on_unknown, give_up_after) if isinstance(ledger, Ledger) else None
    if not isinstance(ledger, Ledger) or run is None:
        return _unrecorded(mailer, mail, chunk, send)
    try:
        return _recorded(mailer, run, mail, chunk, _Leaving(ledger.client))
    finally:
        run.close()


def _address(row: Mapping[str, Any], column: str) -> str:
    text = row.get(column)
    if not isinstance(text, str):
        raise InvalidAddress(f"a row of the chunk has no address in {column!r:.80}")
    return parse(text).spec


def _recorded(
    mailer: Mailer, run: Run, mail: BulkMail, chunk: Mapping[str, Any], leaving: Callable[[], bool]
) -> dict[str, int]:
    recipients = iter(chunk)
    while some := list(islice(recipients, RESERVED_AT_ONCE)):
        run.reserve(some)
    ready = run.ready()
    run.line_up(ready)
    letters = _letters(mailer, mail, {to: (run.entries[to].id, chunk[to]) for to in ready}, run.refuse)
    is_whole = True
    try:
        is_whole = deliver(mailer, run, map(run.as_before, letters), leaving)
    except TemporaryFailure as error:
        run.unreached(ready, str(error), error.retry_at)
    run.flush()
    if not is_whole:
        raise Interrupted
    await_rest(run)
    refuse_unknown(run)
    return dict(Counter(str(entry.state) for entry in run.entries.values()))


def _unrecorded(mailer: Mailer, mail: BulkMail, chunk: Mapping[str, Any], send: Send) -> dict[str, int]:
    """The same where no ledger is, as in a test that performs jobs at once."""
    refused: list[str] = []
    sent = 0

    def refuse(to: str, why: str) -> None:
        refused.append(to)

    rows = {to: (names.mail_id(send.name, to), row) for to, row in chunk.items()}
    for letter in _letters(mailer, mail, rows, refuse):
        try:
            mailer.send(letter)
            sent += 1
        except MailRefused as error:
            refuse(letter.recipients[0], str(error))
    return {str(State.ACCEPTED): sent, str(State.REFUSED): len(refused)}


def _letters(
    mailer: Mailer,
    mail: BulkMail,
    rows: Mapping[str, tuple[str, dict[str, Any]]],
    refuse: Callable[[str, str], None],
) -> Iterator[Letter]:
    """Yield the letters of recipients, whose `rows` are the ledger's id of their mail and their variables.

    If none can be built, the recipient is refused, with the reason.
    """
    draft = mail.draft(mailer.renderer, mailer.sender, mailer.return_path)
    if mail.attachments or mail.images:
        most = current.resource(InputLimits).attachment_bytes
        draft = draft.with_files(current.resource(Storage), most, mail.attachments, mail.images)
    link_for = _links(mail)
    for to, (id, row) in _tracked(rows):
        try:
            letter = mail.letter(draft, row, id, link_for(to))
        except UNFIT as error:
            refuse(to, str(error))
        else:
            yield letter


def _tracked(rows: Mapping[str, T]) -> Iterator[tuple[str, T]]:
    """The rows; how far they are is reported as often as anybody can see it."""
    reported = -REPORT_INTERVAL
    for done, each in enumerate(rows.items()):
        if (now := time.monotonic()) - reported >= REPORT_INTERVAL:
            current.progress(done, len(rows), "sending")
            reported = now
        yield each
    current.progress(len(rows), len(rows), "sending")


def _links(mail: BulkMail) -> Callable[[str], str | Sequence[str] | None]:
    """What gives a recipient's own unsubscribe links."""
    links = links_for(client_of_ledger())
    return lambda to: personal(mail.unsubscribe, [to], links)


class _Leaving:
    """Says when the job is to go back to its queue: its worker stops, or its batch is paused."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._job = context.running()
        self._batch = current.batch_id()
        self._looked_at = time.monotonic()

    def __call__(self) -> bool:
        if self._job is not None and self._job.is_draining():
            return True
        now = time.monotonic()
        if self._batch is None or now - self._looked_at < LOOK_INTERVAL:
            return False
        self._looked_at = now
        with suppress(*REDIS_ERRORS):
            return bool(self._client.sismember(keys.PAUSED_BATCHES, self._batch))
        return False
