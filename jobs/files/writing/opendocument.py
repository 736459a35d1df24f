"""Tables written as OpenDocument spreadsheets, a row at a time: no library does that in little memory."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape

from packmule.jobs.files.database import Database
from packmule.jobs.files.table import Table, Work
from packmule.jobs.files.writing.cells import OTHERS, Cells
from packmule.jobs.files.writing.opendocument_parts import (
    BOLD,
    CLOCK,
    CONTENT,
    DAY,
    END,
    INSTANT,
    MANIFEST,
    STYLES,
    TYPE,
)
from packmule.jobs.files.writing.output import Output, UnfitOutput
from packmule.plain_text import plain
from packmule.units import KIB

FIRST_DAY = date(1583, 1, 1)
"""The first whole year of the calendar that cells' dates are in."""
MOST_BYTES = 2**31 - 1
"""Of one part: what is more, not all programs can read."""
PIECE = 256 * KIB
NO_XML = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""Characters that no XML holds, however they are written."""
SPACES = re.compile(r"^ | $|  |[\t\r\n]")
"""White space that is lost from the text of an element."""


def write_opendocument(
    database: Database, work: Work, table: Table, target: Path, output: Output
) -> tuple[int, list[str]]:
    """Write `table` to `target`; returns the number of rows, and warnings about cells that became texts.

    Raises `UnfitOutput` if the table has more rows than a sheet, or a text that a cell can't hold.
    """
    cells = Cells(work, table, "OpenDocument", FIRST_DAY)
    with zipfile.ZipFile(target, "w") as archive:
        # The first member, as it is: that is how the file tells what it is.
        archive.writestr(zipfile.ZipInfo("mimetype"), TYPE)
        archive.writestr(_member("META-INF/manifest.xml"), MANIFEST)
        archive.writestr(_member("styles.xml"), STYLES)
        with archive.open(_member("content.xml"), "w") as part:
            done = _write_content(work, table, cells.rows(database, output), part)
    return done, cells.warnings


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.compress_type = zipfile.ZIP_DEFLATED
    return member


def _write_content(work: Work, table: Table, rows: Iterator[list[Any]], part: IO[bytes]) -> int:
    done = size = 0
    names = [*table.columns]
    columns = f'<table:table-column table:number-columns-repeated="{len(names)}"/>'
    held = [CONTENT, columns, _row([_text(name, BOLD) for name in names])]
    length = sum(map(len, held))

    def write() -> None:
        nonlocal size, length
        size += part.write("".join(held).encode())
        if size > MOST_BYTES:
            raise UnfitOutput(f"{work.source} has more than 2 GiB as OpenDocument: {OTHERS}")
        held.clear()
        length = 0

    if fault := next(filter(NO_XML.search, names), None):
        raise UnfitOutput(f"{work.source}: {_no_character(fault)} in a column's name")
    for done, row in enumerate(rows, start=1):
        text = _row([_cell(value) for value in row])
        if NO_XML.search(text):
            place = next(place for place, value in enumerate(row) if NO_XML.search(str(value)))
            raise UnfitOutput(
                f"{work.source}: column {plain(names[place])}, row {done:,}: {_no_character(row[place])}"
            )
        held.append(text)
        length += len(text)
        if length > PIECE:
            write()
    held.append(END)
    write()
    return done


def _no_character(text: str) -> str:
    found = NO_XML.search(text)
    sign = found[0] if found else ""
    return f"OpenDocument can't hold the character U+{ord(sign):04X}: {OTHERS}"


def _row(cells: list[str]) -> str:
    return f"<table:table-row>{''.join(cells)}</table:table-row>\n"


def _cell(value: Any) -> str:  # noqa: PLR0911  one for each kind of cell
    """The element of one cell, which has its value and what is shown of it."""
    kind = type(value)
    if kind is str:
        return _text(value) if value else "<table:table-cell/>"
    if value is None:
        return "<table:table-cell/>"
    if kind is bool:
        text = "true" if value else "false"
        return _typed("boolean", "boolean-value", text, text.upper())
    if kind is datetime:
        text = value.isoformat(timespec="milliseconds" if value.microsecond else "seconds")
        return _typed("date", "date-value", text, text.replace("T", " "), INSTANT)
    if kind is date:
        return _typed("date", "date-value", value.isoformat(), value.isoformat(), DAY)
    if kind is time:
        text = value.isoformat()
        return _typed("time", "time-value", f"PT{text[:2]}H{text[3:5]}M{text[6:]}S", text, CLOCK)
    return _typed("float", "value", repr(value), repr(value))


def _typed(kind: str, name: str, value: str, shown: str, style: str = "") -> str:
    said = f' table:style-name="{style}"' if style else ""
    return (
        f'<table:table-cell{said} office:value-type="{kind}" office:{name}="{value}">'
        f"<text:p>{shown}</text:p></table:table-cell>"
    )


def _text(text: str, style: str = "") -> str:
    said = f' table:style-name="{style}"' if style else ""
    shown = escape(text)
    if SPACES.search(text):
        exact = shown.replace('"', "&quot;")
        for sign in "\t\r\n":
            exact = exact.replace(sign, f"&#{ord(sign)};")
        said += f' office:string-value="{exact}"'
        shown = re.sub("\r\n?", "\n", shown).replace("\t", "<text:tab/>").replace("\n", "</text:p><text:p>")
        shown = re.sub(" +", lambda run: f'<text:s text:c="{len(run[0])}"/>', shown)
    return f'<table:table-cell{said} office:value-type="string"><text:p>{shown}</text:p></table:table-cell>'
