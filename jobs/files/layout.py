"""How the records of a CSV are written: found by reading the first ones in each way, and comparing."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from packmule.jobs.files.reading import Reading
from packmule.jobs.files.text import AGREEMENT, DELIMITERS
from packmule.units import KIB

SAMPLE = 256 * KIB
"""Bytes that are read to decide on the delimiter, the quote and the header."""
MOST_RESTARTS = 200
MOST_TITLES = 50
"""Lines above a table that may be titles."""
SEPARATOR = re.compile(r'"?sep=(.)"?[\r\n]', re.IGNORECASE)
"""Excel's line about the delimiter."""


@dataclass(frozen=True, slots=True)
class Record:
    """The fields of a record, or None if it can't be read this way; `line` is its first, from 0."""

    line: int
    fields: list[str] | None
    lines: int = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """How records are written, and the first of them from line `skip` on.

    `share` says how much of the sample has records of the most frequent `width`.

    `newline` is what ends each record, and nothing if they differ. It must be said to DuckDB, which takes one
    within quotes for it otherwise.
    """

    delimiter: str
    quote: str
    escape: str
    skip: int
    records: Sequence[Record]
    share: float
    width: int
    newline: str = ""


def layout_of(file: Path, reading: Reading) -> Layout:
    """The layout of the UTF-8 `file`, as far as `reading` doesn't say it.

    A quote is used wherever all of the sample can be read with it: only a text that can't, and can be read
    better without, has none.
    """
    text, is_whole = _sample(file)
    first = reading.skip or 0
    lines = [*io.StringIO(text, newline="")][first:]
    delimiters = reading.delimiter or DELIMITERS
    if lines and reading.delimiter is None and (said := SEPARATOR.match(lines[0])):
        delimiters, first, lines = said[1], first + 1, lines[1:]
    if reading.header:
        first, lines = first + reading.header - 1, lines[reading.header - 1 :]
    best = _best(lines, delimiters, reading, is_whole)
    width = best.width if best.share >= AGREEMENT or len(delimiters) == 1 else 1
    records = [*_records(lines, best.delimiter, best.quote, best.escape, is_whole)]
    titles = 0 if reading.skip is not None or reading.header is not None else _titles(records, width)
    return replace(
        best,
        width=width,
        skip=first,
        records=[
            Record(each.line + first, each.fields, each.lines)
            for each in records[titles:]
            if each.fields != []
        ],
        newline=_newline([lines[each.line + each.lines - 1] for each in records]),
    )


def _best(lines: Sequence[str], delimiters: str, reading: Reading, is_whole: bool) -> Layout:
    """The layout with the delimiter that fits best."""
    text = "".join(lines)
    found: dict[str, Layout] = {}
    # Those that are nowhere give no two columns, and matter only if no other does.
    for sign in sorted(delimiters, key=lambda sign: sign not in text):
        if sign not in text and any(each.width > 1 and each.share >= AGREEMENT for each in found.values()):
            break
        found[sign] = _quoted(lines, sign, reading, is_whole)
    tried = [found[sign] for sign in delimiters if sign in found]
    best = max(tried, key=lambda each: (each.width > 1, each.share, -each.skip, each.width))
    # Otherwise it is a table of one column, whatever its texts contain.
    return best if best.share >= AGREEMENT else found[delimiters[0]]


def _newline(lines: Sequence[str]) -> str:
    """The only line end of the lines, or nothing."""
    ends = {line[len(line.rstrip("\r\n")) :] for line in lines} - {""}
    return ends.pop() if len(ends) == 1 else ""


def _sample(file: Path) -> tuple[str, bool]:
    """The first lines of `file`, and whether those are all."""
    with file.open("rb") as content:
        head = content.read(SAMPLE + 1)
    is_whole = len(head) <= SAMPLE
    if not is_whole:
        head = head[: head.rfind(b"\n", 0, SAMPLE) + 1] or head
    return head.decode("utf-8", "replace").removeprefix("\ufeff"), is_whole


def _quoted(lines: Sequence[str], delimiter: str, reading: Reading, is_whole: bool) -> Layout:
    """The layout with the quote that fits best."""
    text = "".join(lines)
    if reading.quote is not None:
        ways = [(reading.quote, reading.quote)] + ([(reading.quote, "\\")] if reading.quote else [])
    else:
        ways = [('"', '"')]
        if '\\"' in text:
            ways.append(('"', "\\"))
        if _has_single_quotes(lines[0] if lines else "", delimiter):
            ways.insert(0, ("'", "'"))
    tried = []
    for quote, escape in ways:
        found = _judged(lines, delimiter, quote, escape, is_whole)
        if all(record.fields is not None for record in found.records):
            return found
        tried.append(found)
    best = max(tried, key=lambda each: each.share)
    if reading.quote is None:
        without = _judged(lines, delimiter, "", "", is_whole)
        if without.share > best.share and _is_mostly_broken(lines, best):
            return without
    return best


def _is_mostly_broken(lines: Sequence[str], layout: Layout) -> bool:
    """Whether more records can't be read with the quote than have a field in quotes."""
    begins = re.compile(rf"(?:^|{re.escape(layout.delimiter)}) *{layout.quote}").search
    broken = sum(record.fields is None for record in layout.records)
    return broken > sum(
        len(record.fields or ()) == layout.width and begins(lines[record.line]) is not None
        for record in layout.records
    )


def _has_single_quotes(line: str, delimiter: str) -> bool:
    """Whether all names of a header are in single quotes."""
    fields = line.rstrip("\r\n").split(delimiter)
    return all(len(field) > 2 and field[0] == field[-1] == "'" for field in fields)  # noqa: PLR2004  not only quotes


def _judged(lines: Sequence[str], delimiter: str, quote: str, escape: str, is_whole: bool) -> Layout:
    """The layout with the share of lines in records of the most frequent number of fields."""
    records = [each for each in _records(lines, delimiter, quote, escape, is_whole) if each.fields != []]
    counts: Counter[int] = Counter()
    for each in records:
        if not (each.fields or [""])[0].startswith("#"):
            counts[len(each.fields or ())] += each.lines
    counts.pop(0, None)
    width = max(counts, key=lambda each: (counts[each], each), default=1)
    titles = _titles(records, width)
    body = records[titles:]
    good = sum(each.lines for each in body if len(each.fields or ()) == width)
    share = good / max(1, sum(each.lines for each in body))
    return Layout(delimiter, quote, escape, titles, records, share, width)


def _records(
    lines: Sequence[str], delimiter: str, quote: str, escape: str, is_whole: bool
) -> Iterator[Record]:
    """Yield the records; after one that can't be read, go on with its second line."""
    at = restarts = 0
    while at < len(lines) and restarts < MOST_RESTARTS:
        reader = csv.reader(
            islice(lines, at, None),
            delimiter=delimiter,
            quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
            escapechar="\\" if escape == "\\" else None,
            doublequote=escape != "\\",
            skipinitialspace=bool(quote) and delimiter != " ",
            strict=True,
        )
        start, before = at, 0
        try:
            for fields in reader:
                yield Record(at, fields, reader.line_num - before)
                before = reader.line_num
                at = start + before
        except csv.Error:
            # The sample may end within a record.
            if not is_whole and start + reader.line_num >= len(lines) and at > len(lines) // 2:
                return
            yield Record(at, None)
            at, restarts = at + 1, restarts + 1
        else:
            return


def _titles(records: Sequence[Record], width: int) -> int:
    """How many records above the table are titles, notes or comments."""
    for place, record in enumerate(records[:MOST_TITLES]):
        fields = record.fields or [""]
        filled = sum(bool(field.strip()) for field in fields)
        # Below a title, a row with one text is another, filled up with delimiters.
        if len(fields) == width and (filled > 1 or not place):
            return place
        if filled > max(1, width // 2) and not fields[0].startswith("#"):
            return 0
    return 0
