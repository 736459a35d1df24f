"""What a conversion writes: the format, by its name or the output's suffix, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from packmule.errors import UsageError

Format = Literal["csv", "tsv", "jsonl", "json", "parquet", "xlsx", "ods", "arrow", "arrows"]

SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
    ".ods": "ods",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".arrows": "arrows",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
COMPRESSED = {"csv", "tsv", "jsonl", "json"}
DELIMITED = {"csv", "tsv"}
SHEETS = {"xlsx", "ods"}
PARTITIONED = {"csv", "tsv", "parquet"}


class UnfitOutput(UsageError, ValueError):
    """An output can't be written as it is wanted; the text says what can."""


@dataclass(frozen=True, slots=True)
class Output:
    """How a table is written: in files by the columns `partition_by`, and `safe` for spreadsheets."""

    format: Format
    compression: str = ""
    partition_by: Sequence[str] = ()
    safe: bool = False

    @property
    def suffix(self) -> str:
        """What a path of an output ends with that no caller names: nothing for a folder."""
        return "" if self.partition_by else f".{self.format}"


def output_of(
    source: str,
    to: Format | None,
    out: str | None,
    partition_by: Sequence[str] = (),
    safe: bool = False,
) -> Output | None:
    """The output that `to` and the suffix of `out` name, or None if neither is said.

    Raises `UnfitOutput`, which names `source`.
    """
    if to is None and out is None:
        if partition_by or safe:
            raise UnfitOutput(f"{source}: give the format to convert it to, such as csv")
        return None
    suffix, compression = _suffixes(out or "")
    said = SUFFIXES.get(suffix)
    if to is None and said is None:
        raise UnfitOutput(f"{out} has no suffix that names a format: use {', '.join(SUFFIXES)}, or give `to`")
    if to is not None and said not in {None, to}:
        raise UnfitOutput(f"{out} is to be {to}, but its suffix is {suffix}: use .{to}")
    format = to or said or "parquet"
    if compression and format not in COMPRESSED:
        raise UnfitOutput(f"{out} can't be compressed: {format} is already")
    if partition_by and (format not in PARTITIONED or compression):
        raise UnfitOutput(f"{source}: only {', '.join(sorted(PARTITIONED))} can be in partitions")
    if safe and format not in DELIMITED:
        raise UnfitOutput(f"{source}: in {format} no text becomes a formula: omit safe_for_spreadsheets")
    return Output(format, compression, tuple(dict.fromkeys(partition_by)), safe)


def _suffixes(path: str) -> tuple[str, str]:
    """The suffix that says a format, and the compression that one after it says."""
    name = PurePosixPath(path.lower())
    compression = COMPRESSIONS.get(name.suffix, "")
    return (name.with_suffix("") if compression else name).suffix, compression
