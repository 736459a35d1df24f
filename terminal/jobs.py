"""`packmule jobs`: the registered jobs, with their signatures and options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from datetime import timedelta
from enum import Enum
from types import NoneType
from typing import TYPE_CHECKING, Any, get_type_hints

import click

from packmule.terminal.app import App
from packmule.terminal.parameters import complete_calls, json_option
from packmule.terminal.say import complain, say

if TYPE_CHECKING:
    from packmule.jobs.job_type import JobType

INDENT = "    "

SPANS = (
    *("timeout", "result_ttl", "failure_ttl", "retry_intervals", "delay", "expires", "unique_ttl"),
    *("debounce", "debounce_limit", "throttle", "max_cpu"),
)
"""Options in seconds."""

UNSAID = ("give_up_on", "retry_on", "check")
"""What only `--json` has."""


@click.command()
@click.argument("name", required=False, shell_complete=complete_calls)
@click.option("--all", "everything", is_flag=True, help="List the ready-made jobs, too.")
@json_option
@click.pass_obj
def jobs(app: App, name: str | None, everything: bool, json: bool) -> None:
    """List the registered jobs with their arguments and options.

    The jobs are those of PACKMULE_MODULES. With NAME, show only that job.
    """
    from packmule.jobs import registry
    from packmule.terminal import show

    app.load_jobs()
    ready = [each for each in registry.READY if each not in registry.INTERNAL]
    missing = _missing(ready) if everything else []
    hidden = registry.INTERNAL if everything else registry.READY
    found = [registry.find(registry.ready(name))] if name else registry.types()
    if not name:
        found = [each for each in found if each.name not in hidden]
    if json:
        show.as_json([_facts(each) for each in found])
        return
    for each in found:
        show.wrapped(f"{each.name}{_signature(each)}", INDENT)
        show.wrapped(INDENT + _said(_options(each)), INDENT)
    if not found:
        say("no jobs: set PACKMULE_MODULES to your modules")
    if not (name or everything):
        say(f"Ready-made (--all): {', '.join(each.rpartition('.')[2] for each in ready)}")
    for line in missing:
        complain(line)


def _missing(names: Sequence[str]) -> list[str]:
    """Import the jobs `names`; what can't be shown of them, and why."""
    from packmule.jobs import registry

    lacking: dict[str, list[str]] = {}
    for name in names:
        try:
            registry.find(name)
        except registry.NotRegistered as error:
            why = str(error).removeprefix(f"can't import {name.rpartition('.')[0]}: ")
            lacking.setdefault(why, []).append(name.rpartition(".")[2])
    return [f"not shown: {', '.join(some)}: {why}" for why, some in lacking.items()]


def _facts(job: JobType) -> dict[str, Any]:
    """A job as JSON has it."""
    parameters = [
        {"name": each.name, "required": each.name in job.required}
        for each in job.signature.parameters.values()
    ]
    about = (inspect.getdoc(job.function) or "").partition("\n")[0] or None
    return {
        "name": job.name,
        "signature": _signature(job),
        "parameters": parameters,
        "options": _options(job),
        "about": about,
    }


class _Shown(str):
    """A default without quotes."""

    __repr__ = str.__str__


def _signature(job: JobType) -> str:
    """The arguments as Python has them, with their defaults but for secrets."""
    from packmule.jobs.masking import MASK, masked_argument

    signature, kinds = job.signature, {}
    with suppress(Exception):  # annotations that nobody can evaluate, or whose code fails
        hints = get_type_hints(job.function)
        kinds = {name: None if kind is NoneType else kind for name, kind in hints.items()}
    parameters = []
    for each in signature.parameters.values():
        is_given = each.default is not each.empty
        hides = is_given and masked_argument(job, each.name, each.default) == MASK
        default = _Shown(MASK) if hides else each.default
        if isinstance(default, Enum):
            default = default.value
        kind = kinds.get(each.name, each.annotation)
        parameters.append(each.replace(default=default, annotation=kind))
    returned = kinds.get("return", signature.return_annotation)
    written = str(signature.replace(parameters=parameters, return_annotation=returned))
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", written)  # modules of types


def _options(job: JobType) -> dict[str, Any]:
    """What its jobs start from, and the traits that hold for all of them, as far as they are given."""
    from packmule.jobs.options import DEFAULT_QUEUE, DEFAULT_TIMEOUT

    usual = {"queue": DEFAULT_QUEUE, "timeout": DEFAULT_TIMEOUT}
    given = {each.name: getattr(job.options, each.name) for each in fields(job.options)}
    traits = {
        each.name: getattr(job.traits, each.name)
        for each in fields(job.traits)
        if getattr(job.traits, each.name) != each.default
    }
    return usual | {name: _plain(value) for name, value in (given | traits).items() if value is not None}


def _plain(value: Any) -> Any:
    """An option's value as JSON has it."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, bool | int | float | str | Mapping):
        return value
    return getattr(value, "__name__", str(value))


def _said(options: Mapping[str, Any]) -> str:
    """The options for a person: `queue low, timeout 10 min, retries 3`."""
    words = []
    for name, value in options.items():
        if isinstance(value, bool):
            words.append(name if value else f"no {name}")
        elif name not in UNSAID:
            parts = value if isinstance(value, list) else [value]
            said = [_span(each) if name in SPANS else _size(name, each) for each in parts]
            words.append(f"{name} {', '.join(said)}")
    return ", ".join(words)


def _size(name: str, value: Any) -> str:
    from packmule.units import given_size

    return given_size(value) if name == "max_memory" and isinstance(value, int) else str(value)


def _span(seconds: float) -> str:
    from packmule.units import given_span

    return "forever" if seconds == -1 else given_span(seconds)
