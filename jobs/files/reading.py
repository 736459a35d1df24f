"""What a caller says of how a file is to be read; what is not said is found."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from packmule.errors import UsageError

RANGE = re.compile(r"([A-Za-z]{1,3})([1-9]\d{0,6}):([A-Za-z]{1,3})([1-9]\d{0,6})")
MOST = 2**31
TAKEN = {
    "csv": {"columns", "encoding", "delimiter", "quote", "header", "skip", "null", "dates", "decimal"},
    "jsonl": {"columns", "encoding"},
    "json": {"columns", "encoding"},
    "excel": {"columns", "header", "skip", "sheet", "range"},
    "parquet": set(),
    "arrow": set(),
}
"""The options that each reader takes."""


class UnfitOption(UsageError, ValueError):
    """An option of reading has a value that it can't have, or is for files of another kind."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read a file: None means that it is to be found.

    `columns` maps names to types. The first `skip` lines are left out; `header` is the line of the names from
    there, 0 if there is none. `quote` is empty if there is none. The texts of `null` are no values. `dates`
    is the format of dates, such as `%d/%m/%Y`. `sheet` and `range` say what of a workbook to read.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    header: int | None = None
    skip: int | None = None
    null: tuple[str, ...] = ()
    dates: str | None = None
    decimal: str | None = None
    sheet: str | None = None
    range: str | None = None

    def check(self, source: str) -> Reading:
        """This in one form, with a tab for "tab". Raises `UnfitOption`, which names `source`."""
        sign = {"tab": "\t", r"\t": "\t"}.get(self.delimiter or "", self.delimiter)
        whole = "0 or more"
        for name, fits, wanted in (
            ("delimiter", sign is None or (len(sign) == 1 and sign not in "\r\n"), "one character, or tab"),
            ("quote", self.quote is None or _is_quote(self.quote, sign), "one other character, or empty"),
            ("decimal", self.decimal in (None, ".", ","), "a point or a comma"),
            ("header", self.header is None or 0 <= self.header < MOST, whole),
            ("skip", self.skip is None or 0 <= self.skip < MOST, whole),
            ("dates", self.dates is None or "%" in self.dates, "a format such as %d/%m/%Y"),
            ("range", self.range is None or RANGE.fullmatch(self.range), "cells such as B3:F90"),
            (
                "encoding",
                self.encoding is None or is_encoding(self.encoding),
                "one such as utf-8, cp1252 or gbk",
            ),
        ):
            if not fits:
                value = str(getattr(self, name))[:40]
                raise UnfitOption(f"{source}: {name} can't be {value!r}: use {wanted}")
        return replace(self, delimiter=sign)

    def check_reader(self, source: str, reader: str, type: str) -> None:
        """Raise `UnfitOption` if an option says nothing of files of that `type`."""
        said = [each.name for each in fields(self) if getattr(self, each.name) not in (None, (), {})]
        if unfit := [name for name in said if name not in TAKEN.get(reader, ())]:
            raise UnfitOption(
                f"{source} is {type}, which has no {' or '.join(unfit)}: omit {' and '.join(unfit)}"
            )


NAMES = frozenset(each.name for each in fields(Reading))


def is_encoding(name: str) -> bool:
    """Whether Python can decode text in the encoding `name`."""
    try:
        codecs.lookup(name)
        "".encode(name)
    except (LookupError, ValueError):
        return False
    return True


def _is_quote(text: str, delimiter: Any) -> bool:
    return len(text) < 2 and text not in {"\r", "\n"} and (not text or text != delimiter)  # noqa: PLR2004  one at most
