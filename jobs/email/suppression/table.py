"""The list of suppressed addresses as CSV: one line for each, with reason, source and times."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TextIO

from packmule.errors import UsageError
from packmule.jobs.email.message.addresses import InvalidAddress
from packmule.jobs.email.suppression.addresses import name_of, shown
from packmule.jobs.email.suppression.store import A_TRIP, Suppressed, Suppressions
from packmule.plain_text import FORMULA, plain_cell
from packmule.units import CENTURY

COLUMNS = ("address", "reason", "source", "since", "until")
NAMES_OF_ADDRESS = ("address", "email", "e-mail", "recipient", "email address", "domain")
LONGEST_LINE = 10_000


class InvalidTable(UsageError):
    """A file is no list of addresses in CSV."""


class Imported:
    """What became of an imported file: how many were `added`, `known` before, or over, and its `bad` rows."""

    def __init__(self) -> None:
        self.added = self.known = self.over = self.bad = 0
        self.reasons: list[str] = []
        """Why the first of the bad rows are bad, each with its line."""

    def refuse(self, line: int, why: str) -> None:
        """Count a bad row."""
        self.bad += 1
        if len(self.reasons) < 20:  # noqa: PLR2004
            self.reasons.append(f"line {line}: {why}")


def export(suppressed: Iterable[Suppressed], file: TextIO) -> int:
    """Write a list to `file`; how many lines it has."""
    table, count = csv.writer(file, lineterminator="\n"), 0
    table.writerow(COLUMNS)
    for each in suppressed:
        reason = plain_cell(each.reason)  # what a stranger wrote
        table.writerow((shown(each.name), reason, each.source, _written(each.since), _written(each.until)))
        count += 1
    return count


def bring_in(file: TextIO, into: Suppressions, seconds: float | None = None) -> Imported:
    """Add a file's addresses and domains, for so many seconds unless a row says until when.

    Its first line names the columns, of which `address` or `email` is needed; or each line is an address.
    Raises `InvalidTable`.
    """
    done, now = Imported(), time.time()
    waiting: dict[float | None, dict[str, str]] = {}
    for line, who, reason, until in _rows(file):
        try:
            name = name_of(who)
            ends = datetime.fromisoformat(until).astimezone().timestamp() if until else None
        except InvalidAddress as error:
            done.refuse(line, str(error))
            continue
        except (ValueError, OverflowError):
            done.refuse(line, f"until {until[:40]!r}: write a time such as 2026-12-01T08:00:00+00:00")
            continue
        if ends is not None and ends <= now:
            done.over += 1
            continue
        lasting = seconds if ends is None else min(ends - now + 1, CENTURY)
        group = waiting.setdefault(lasting, {})
        group[name] = reason or "imported"
        if len(group) == A_TRIP or len(waiting) == A_TRIP:
            _add(into, waiting, done)
    _add(into, waiting, done)
    return done


def _add(into: Suppressions, waiting: dict[float | None, dict[str, str]], done: Imported) -> None:
    for lasting, group in waiting.items():
        added = into.add_all(list(group.items()), "import", lasting)
        done.added += added
        done.known += len(group) - added
    waiting.clear()


def _rows(file: TextIO) -> Iterator[tuple[int, str, str, str]]:
    """Line, address, reason and end of each row."""
    try:
        table = csv.reader(_bounded(file))
        first = next(table, None)
        if first is None:
            raise InvalidTable("the file is empty: give one address per line, or a CSV with a column address")
        columns = {name.strip().lower(): place for place, name in enumerate(first)}
        place = next((columns[name] for name in NAMES_OF_ADDRESS if name in columns), None)
        if place is None:
            if len(first) > 1 or "." not in first[0]:
                raise InvalidTable(
                    "no column of the file is address or email: it has "
                    + ", ".join(map(repr, first[:10]))[:200]
                )
            place, columns = 0, {}
            yield 1, first[0], "", ""
        for row in table:
            if any(row):
                values = [row[at] if at is not None and at < len(row) else "" for at in
                          (place, columns.get("reason"), columns.get("until"))]  # fmt: skip
                reason = values[1].removeprefix("'") if values[1][1:].startswith(FORMULA) else values[1]
                yield table.line_num, values[0], reason, values[2].strip()
    except csv.Error as error:
        raise InvalidTable(f"the file is not CSV: {error}") from None
    except UnicodeDecodeError:
        raise InvalidTable(
            "the file is not UTF-8: save it as UTF-8, or convert it: iconv -f latin1 -t utf-8"
        ) from None


def _bounded(file: TextIO) -> Iterator[str]:
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise InvalidTable(f"a line has over {LONGEST_LINE:,} characters: is this a list of addresses?")
        yield line


def _written(at: float | None) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") if at else ""
