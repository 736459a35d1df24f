"""`packmule job logs` and `packmule job output`: what a job says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from packmule.plain_text import plain, plain_json, plain_lines
from packmule.terminal.app import App
from packmule.terminal.parameters import JobId
from packmule.terminal.say import complain, say, say_lines

if TYPE_CHECKING:
    from packmule.jobs.said import Line
    from packmule.jobs.watch import Watch

T = TypeVar("T")

LEVELS = ("debug", "info", "warning", "error", "critical")
INDENT = "    "

follow_option = click.option("--follow", "-f", is_flag=True, help="Keep printing until the job ends.")
lines_option = click.option("--json", "json", is_flag=True, help="Print one JSON value per line.")


@click.command("logs")
@click.argument("id", type=JobId())
@follow_option
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default="debug",
    metavar="LEVEL",
    help=f"Only lines of this level and above: {', '.join(LEVELS)}.",
)
@lines_option
@click.pass_obj
def job_logs(app: App, id: str, follow: bool, level: str, json: bool) -> None:
    """Print what a job has logged.

    Each line has a time, level, text and fields; a separator marks where an attempt begins.
    """
    from packmule.jobs import watch
    from packmule.terminal import show

    attempt = 1
    for line in _read(watch.follow_logs(app.client, id, level), follow, "lines"):
        if json:
            show.as_json(line._asdict())
            continue
        if line.attempt != attempt:
            attempt = line.attempt
            say(f"attempt {attempt}" if attempt else "callback")
        say_lines(as_text(line))


@click.command("output")
@click.argument("id", type=JobId())
@follow_option
@lines_option
@click.pass_obj
def job_output(app: App, id: str, follow: bool, json: bool) -> None:
    """Print what a job has emitted.

    Texts are printed as they are, and other values as JSON, one per line.
    """
    from packmule.jobs import watch
    from packmule.terminal import show

    is_line_open = False
    for chunk in _read(watch.output(app.client, id), follow, "chunks"):
        if isinstance(chunk, str) and not json:
            say_lines(chunk, ends=False)
            is_line_open = not chunk.endswith("\n") and (is_line_open or bool(chunk))
            continue
        if is_line_open:
            say("")
        is_line_open = False
        show.as_json(chunk)
    if is_line_open:
        say("")


def as_text(line: Line) -> str:
    """A line for a person: what follows the first line of its text is indented."""
    import msgspec

    try:
        at = f"{datetime.fromtimestamp(line.at):%Y-%m-%d %H:%M:%S.%f}"[:-3]
    except (ValueError, OverflowError, OSError):
        at = f"{line.at:g}"
    first, *more = plain_lines(line.text).split("\n")
    fields = "".join(
        f" {plain(name)}={_value(value, msgspec.json.encode)}" for name, value in line.fields.items()
    )
    return "\n".join([f"{at} {line.level:8} {first}{fields}", *(INDENT + each for each in more)])


def _value(value: Any, encode: Any) -> str:
    """A field's value: a plain word as it is, anything else as JSON."""
    if isinstance(value, str) and value.isprintable() and value and not set(value) & set(' "='):
        return value
    return plain_json(encode(value).decode())


def _read(watch: Watch[T], follow: bool, what: str) -> Iterator[T]:
    """Read what is kept, or follow it, and say what was dropped."""
    dropped = 0
    found: Iterable[T] = watch if follow else watch.kept()
    for each in found:
        if watch.dropped > dropped:
            complain(f"{watch.dropped - dropped:,} earlier {what} were dropped: only the last are kept")
            dropped = watch.dropped
        yield each
