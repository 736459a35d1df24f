"""The options of `packmule enqueue file` that say how a file is to be read, and written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packmule.terminal.parameters import F, assignments, with_options

if TYPE_CHECKING:
    from packmule.jobs.storage import Storage


def reading_options(command: F) -> F:
    """The options of commands that read tables: how a file is written, and how much of it may be refused."""
    options = [
        click.option(
            "--column",
            "columns",
            multiple=True,
            metavar="NAME=TYPE",
            help="Set a column's type: zip=VARCHAR; can be repeated.",
        ),
        click.option("--encoding", help="The text's encoding, such as cp1252, shift_jis or gbk."),
        click.option("--delimiter", help="The character between fields, or tab."),
        click.option("--quote", help="The character around fields, or '' if there is none."),
        click.option("--skip", type=click.IntRange(min=0), help="Skip this many lines at the beginning."),
        click.option(
            "--header",
            type=click.IntRange(min=0),
            help="The line of column names after the skipped lines; 0: none.",
        ),
        click.option(
            "--null", multiple=True, help="A text that means no value, such as NA; can be repeated."
        ),
        click.option("--dates", metavar="FORMAT", help="The format of dates, such as %d/%m/%Y."),
        click.option("--decimal", type=click.Choice([".", ","]), help="The decimal separator."),
        click.option("--sheet", help="Read this sheet of a workbook.  [default: the first]"),
        click.option("--range", help="Read these cells of a workbook: B3:F90."),
        click.option(
            "--max-refused", type=click.IntRange(min=0), help="Fail if more rows are refused.  [default: 1 %]"
        ),
    ]
    return with_options(command, options)


def writing_options(command: F) -> F:
    """The options that say what a table is converted to."""
    options = [
        click.option(
            "--to",
            type=click.Choice(["csv", "tsv", "jsonl", "json", "parquet", "xlsx", "ods", "arrow", "arrows"]),
            help="Convert it to this format.  [default: by the suffix of --out]",
        ),
        click.option("--out", help="Write the output to this path of the storage; .csv.gz compresses it."),
        click.option(
            "--partition-by",
            multiple=True,
            metavar="COLUMN",
            help="Write a file for each value of a column into the folder --out; can be repeated.",
        ),
        click.option(
            "--safe-for-spreadsheets",
            is_flag=True,
            default=None,
            help="Put an apostrophe before CSV texts that would be formulas.",
        ),
        click.option("--schema", metavar="FILE", help="Fail if the columns differ from this JSON file."),
        click.option(
            "--widen", is_flag=True, default=None, help="With --schema: only warn about other columns."
        ),
    ]
    return with_options(command, options)


def check_output(call: dict[str, Any]) -> None:
    """Check what a table is converted to, before anything is copied. Raises `UnfitOutput`."""
    from packmule.jobs.files.writing.output import output_of

    output_of(
        "enqueue file",
        call.get("to"),
        call.get("out"),
        call.get("partition_by", ()),
        call.get("safe_for_spreadsheets", False),
    )


def file_call(storage: Storage, call: dict[str, Any], command: str = "enqueue file") -> dict[str, Any]:
    """The arguments of a `file` or `profile` job, checked before anything is copied.

    Raises `UnfitOption`, and `OutsideStorage` for an output that is outside.
    """
    from packmule.jobs.files.reading import NAMES, Reading

    if columns := call.pop("columns"):
        call["columns"] = assignments("--column", columns)
    for name in ("null", "partition_by"):
        if values := call.pop(name, ()):
            call[name] = list(values)
    Reading(**{name: call[name] for name in NAMES & call.keys()}).check(command)
    if "out" in call:
        storage.locate(call["out"])
    return call
