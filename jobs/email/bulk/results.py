"""What became of each recipient of a bulk send, in the order of its list, read chunk by chunk."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from redis import Redis

from packmule.jobs import batch_state, reader
from packmule.jobs.cron import shown
from packmule.jobs.email.bulk.before import slices
from packmule.jobs.email.bulk.counts import facts_of
from packmule.jobs.email.ledger import reader as ledger
from packmule.jobs.email.message.addresses import InvalidAddress, parse
from packmule.plain_text import plain_cell

AT_ONCE = 500

COLUMNS = ("recipient", "state", "reply", "at")

WAITING = "waiting"
"""The state of a mail that was not begun."""


class Result(msgspec.Struct, frozen=True):
    """What became of the mail to a recipient: its state, the server's reply or why, and since when."""

    recipient: str
    state: str
    reply: str
    at: str | None


def chunk_id(send: str, number: int) -> str:
    """The id of the job that sends a chunk of the bulk send `send`."""
    return f"{send}-{number}"


def results_of(client: Redis, id: str) -> Iterator[Result]:
    """Yield the results of the bulk send `id`; recipients of a chunk whose job was deleted are left out.

    Raises `NoSuchSend` and `NoSuchBatch`, at once.
    """
    facts = facts_of(client, id)
    chunks = batch_state.read(client, id).counts.total
    return _results(client, id, facts.send, facts.column, chunks)


def as_csv(results: Iterable[Result]) -> Iterator[str]:
    """Yield the results as CSV, a few hundred rows at a time; no spreadsheet takes a cell for a formula."""
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    writer.writerow(COLUMNS)
    for some in slices(results, AT_ONCE):
        writer.writerows(
            (plain_cell(each.recipient), each.state, plain_cell(each.reply), each.at or "") for each in some
        )
        yield line.getvalue()
        line.seek(0)
        line.truncate()
    yield line.getvalue()


def _results(client: Redis, id: str, send: str, column: str, chunks: int) -> Iterator[Result]:
    for number in range(chunks):
        info = reader.read_if_there(client, chunk_id(id, number))
        rows = info.kwargs.get("rows") if info is not None else None
        found = [to for row in rows if (to := _recipient(row, column))] if isinstance(rows, list) else []
        for to, entry in zip(found, ledger.of_send(client, send, found), strict=True):
            if entry is None:
                yield Result(to, WAITING, "", None)
            else:
                yield Result(to, str(entry.state), entry.reply, shown(int(entry.changed)))


def _recipient(row: Any, column: str) -> str | None:
    text = row.get(column) if isinstance(row, Mapping) else None
    try:
        return parse(text).spec if isinstance(text, str) else None
    except InvalidAddress:
        return None
