"""What a worksheet's cells may lack: formulas whose values were never stored, and errors."""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from packmule.jobs.files.zip_directory import opened
from packmule.units import MIB

TAIL = 64 * 1024
"""A cell's longest text that is searched for."""
CELLS = re.compile(
    rb"<c\b[^>]*\bt=\"e\"[^>]*>|<f\b[^>]*(?:/>|>[^<]*</f>)\s*(?:<v\s*/>|<v>\s*</v>|</c>)",
)
MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
MAX_INDEX = 4 * MIB
"""Bytes of a workbook's list of sheets."""


def doubtful(file: Path, sheet: str) -> list[str]:
    """Warnings about the sheet of a workbook in XLSX; none of other formats, which don't say."""
    try:
        with (
            file.open("rb") as packed,
            opened(packed) as archive,
            archive.open(_member(archive, sheet)) as content,
        ):
            errors, formulas = _counts(iter(lambda: content.read(MIB), b""))
    except (zipfile.BadZipFile, KeyError, OSError, ValueError, RuntimeError, ElementTree.ParseError):
        return []
    return [
        f"{count:,} {name} in sheet {sheet}, read as no value"
        for count, name in (
            (errors, "cells with an error such as #DIV/0!"),
            (formulas, "formulas without a stored value"),
        )
        if count
    ]


def _member(archive: zipfile.ZipFile, sheet: str) -> str:
    """The member that has the cells of `sheet`. Raises `KeyError`."""
    book = _parsed(archive, "xl/workbook.xml")
    wanted = next((each.get(RELATION) for each in book.iter(f"{MAIN}sheet") if each.get("name") == sheet), "")
    for relation in _parsed(archive, "xl/_rels/workbook.xml.rels"):
        if relation.get("Id") == wanted:
            return posixpath.normpath(posixpath.join("/xl", relation.get("Target", ""))).lstrip("/")
    raise KeyError(sheet)


def _parsed(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    with archive.open(name) as content:
        text = content.read(MAX_INDEX)
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ValueError("entities could unfold without end")
    return ElementTree.fromstring(text)  # noqa: S314  has no entities


def _counts(chunks: Iterator[bytes]) -> tuple[int, int]:
    """The cells with an error, and the formulas without a value."""
    errors = formulas = 0
    rest = b""
    for chunk in chunks:
        text = rest + chunk
        end = 0
        for found in CELLS.finditer(text):
            end = found.end()
            if found[0].startswith(b"<c"):
                errors += 1
            else:
                formulas += 1
        cut = max(end, text.rfind(b"<c ", end), len(text) - TAIL)
        rest = text[cut:]
    return errors, formulas
