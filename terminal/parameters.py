"""Types of parameters: durations, times, sizes, assignments; and what the shell completes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from packmule import units
from packmule.config import Settings, SettingsError
from packmule.terminal.app import App

if TYPE_CHECKING:
    from packmule.jobs.job_type import JobType

F = TypeVar("F", bound=Callable[..., Any])


def with_options(command: F, options: Sequence[Callable[[F], F]]) -> F:
    """`command` with these options and arguments, which its help lists in this order."""
    for option in reversed(options):
        command = option(command)
    return command


variables_option = click.option(
    "--var",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a variable of the template; can be repeated.",
)

json_option = click.option("--json", "json", is_flag=True, help="Print JSON.")


class Duration(click.ParamType[float]):
    """Seconds, or text such as 90s, 5m, 1h30m, 2d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return units.duration(value)
        except ValueError as error:
            self.fail(f"{value!r} is {error}", param, ctx)


class JobId(click.ParamType[str]):
    """A job's id, or the beginning of one."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from packmule.jobs.prefixes import job_id

        app = _app(ctx)
        return job_id(app.client, value, app.settings.queues) if app else value


class BatchId(click.ParamType[str]):
    """The id of a batch or a flow, or the beginning of one."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from packmule.jobs.prefixes import batch_id

        app = _app(ctx)
        return batch_id(app.client, value) if app else value


class FlowId(click.ParamType[str]):
    """The id of a flow, or of a job, or the beginning of one."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found = BatchId().convert(value, param, ctx)
        return found if found != value else JobId().convert(value, param, ctx)


def _app(ctx: click.Context | None) -> App | None:
    """The command's; None while the shell completes a line."""
    return ctx.find_object(App) if ctx else None


class Lifetime(Duration):
    """A duration, or `forever`."""

    name = "lifetime"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return -1.0 if value == "forever" else super().convert(value, param, ctx)


class Size(click.ParamType[int]):
    """Bytes, or text such as 512K, 300M, 2G."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return units.size(str(value))
        except ValueError as error:
            self.fail(f"{value!r} is {error}", param, ctx)


class Span(click.ParamType[tuple[int, int]]):
    """A minimum and a maximum, such as 2:8."""

    name = "min:max"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        found = re.fullmatch(r"(\d+):(\d+)", str(value))
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            self.fail(f"{value!r} is not a range: write 2:8, the least and the most processes", param, ctx)
        return int(found[1]), int(found[2])


class Instant(click.ParamType[datetime]):
    """A time such as 2026-12-01T08:00 (this machine's zone) or 2026-12-01T08:00+01:00."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return datetime.fromisoformat(str(value)).astimezone()
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is not a time: write 2026-12-01T08:00 or 2026-12-01T08:00+01:00",
                param,
                ctx,
            )


class Moment(click.ParamType[float]):
    """A duration before now such as 10m, or a time; converted to Unix seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return time.time() - Duration().convert(value, param, ctx)
        except click.BadParameter:
            pass
        try:
            return Instant().convert(value, param, ctx).timestamp()
        except click.BadParameter:
            self.fail(f"{value!r} is not a time: write 10m (ago) or 2026-12-01T08:00", param, ctx)


def verbosity(*quiet: str) -> Callable[[F], F]:
    """The options of a long-running command that say how much it logs; `quiet` are the names of one."""

    def decorate(command: F) -> F:
        less = click.option(*quiet, "quiet", is_flag=True, help="Log warnings and errors only.")
        more = click.option(
            "-v", "--verbose", "verbose", is_flag=True, help="Also log job starts and other details."
        )
        return more(less(command))

    return decorate


class Since(click.ParamType[str]):
    """A duration such as 10m, a time or an event's id; converted to the id of an event to read after."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from packmule.coordination.streams.stream import parse

        try:
            parse(value)
        except ValueError:
            pass
        else:
            return str(value)
        try:
            seconds = time.time() - Duration().convert(value, param, ctx)
        except click.BadParameter:
            try:
                seconds = Instant().convert(value, param, ctx).timestamp()
            except click.BadParameter:
                self.fail(
                    f"{value!r} is not a time: write 10m, 2026-12-01T08:00, or an event's id",
                    param,
                    ctx,
                )
        return f"{max(0, int(seconds * 1000))}"


def complete_queues(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The settings' queues."""
    try:
        return [name for name in Settings.from_env().queues if name.startswith(incomplete)]
    except SettingsError:
        return []


def complete_calls(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The names of the user's jobs."""
    from packmule.jobs import registry

    try:
        registry.load(Settings.from_env().modules)
    except (SettingsError, registry.NotRegistered):
        return []
    return [name for name in registry.names() if name.startswith(incomplete)]


def size(text: str) -> dict[str, int]:
    """`800x600`, `800` or `x600` as width and height in pixels."""
    found = re.fullmatch(r"(\d+)?(?:x(\d+)?)?", text)
    if not found or not any(found.groups()):
        raise click.BadParameter(f"{text!r} is not a size: write 800x600, 800 or x600", param_hint="--size")
    return {
        name: int(value) for name, value in zip(("width", "height"), found.groups(), strict=True) if value
    }


def assignments(what: str, texts: Sequence[str], job: JobType | None = None) -> dict[str, Any]:
    """Each `NAME=VALUE` of `texts`: a text, or what the argument of that name of `job` takes it for."""
    from packmule.jobs.arguments import read

    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=what)
        values[name] = value if job is None else read(job.arguments, name, value)
    return values
