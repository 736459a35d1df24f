"""The pipelines that a site has: those of a TOML file, and those that its modules make."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from packmule.errors import Error, NotFound, meant
from packmule.jobs import registry
from packmule.jobs.client import Client
from packmule.jobs.options import OPTION_NAMES, Options, refuse_unknown
from packmule.jobs.pipelines.checks import InvalidPipeline, check_members
from packmule.jobs.pipelines.pipeline import Pipeline
from packmule.jobs.pipelines.steps import OnFailure, Step
from packmule.jobs.toml_file import InvalidFile, place_in, read_toml


class UnknownPipeline(NotFound, LookupError):
    """No pipeline has this name."""


class _Settings(msgspec.Struct):
    """The settings of a step, beside which its table has the arguments of its job."""

    job: str | None = None
    reads: str = "source"
    after: list[str] | None = None
    on_failure: OnFailure = "stop"
    options: dict[str, Any] = {}


def known(path: Path | None, modules: Iterable[str] = ()) -> dict[str, Pipeline]:
    """The pipelines in the file at `path` and in loaded `modules`, by name; the file's win.

    Raises `InvalidFile`.
    """
    made = [vars(sys.modules[name]).values() for name in modules if name in sys.modules]
    found = {each.name: each for values in made for each in values if isinstance(each, Pipeline)}
    return found | (read_pipelines(path) if path else {})


def find(pipelines: Mapping[str, Pipeline], name: str) -> Pipeline:
    """The pipeline called `name`. Raises `UnknownPipeline`."""
    try:
        return pipelines[name]
    except KeyError:
        there = f"there are {', '.join(sorted(pipelines))}" if pipelines else "PACKMULE_PIPELINES names none"
        way_out = f"did you mean {near}?" if (near := meant(name, pipelines)) else there
        raise UnknownPipeline(f"there is no pipeline {name[:80]!r}: {way_out}") from None


def read_pipelines(path: Path) -> dict[str, Pipeline]:
    """The pipelines in a file; one that is not valid makes the whole file invalid. Raises `InvalidFile`.

    A table such as `[intake.table]` with `job = "file"` and `to = "parquet"` is the step `table` of the
    pipeline `intake`; the steps are in the order of their tables.
    """
    text, tables = read_toml(path)
    found = {}
    for name, table in tables.items():
        if not (isinstance(table, dict) and all(isinstance(each, dict) for each in table.values())):
            place = place_in(path, text, name)
            raise InvalidFile(f"{place}: pipeline {name}: give each step a table [{name}.step]")
        try:
            found[name] = Pipeline(name, *(_step(name, each, of) for each, of in table.items()))
        except InvalidPipeline as error:
            where = f"{name}.{error.step}" if error.step else name
            raise InvalidFile(f"{place_in(path, text, where, error.setting or None)}: {error}") from None
    return found


def _step(pipeline: str, name: str, table: dict[str, Any]) -> Step:
    given = {each: table.pop(each) for each in _Settings.__struct_fields__ if each in table}
    setting = ""
    try:
        settings = msgspec.convert(given, _Settings)
        setting = "job"
        job = registry.find(registry.ready(settings.job or name))
        setting = "options"
        refuse_unknown(settings.options, OPTION_NAMES)
        options = Options(**settings.options)
        step = Step(job, name, table, settings.reads, settings.after, settings.on_failure, options)
        setting = "each"
        check_members(step)
    except (Error, msgspec.ValidationError) as error:
        setting = setting or str(error).partition("`$.")[2].rstrip("`").partition(".")[0]
        raise InvalidPipeline(f"pipeline {pipeline}, step {name}: {error}", name, setting) from None
    return step


def check(pipelines: Mapping[str, Pipeline], client: Client) -> None:
    """Raise an error for the first pipeline that `client` could not send."""
    for each in pipelines.values():
        try:
            each.check(client)
        except Error as error:
            raise InvalidFile(f"pipeline {each.name}: {error}") from None
