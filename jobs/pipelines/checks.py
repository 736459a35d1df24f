"""The checks of a pipeline's steps: what can't work is refused in one line before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import get_args

from packmule.errors import UsageError
from packmule.jobs import handed, registry
from packmule.jobs.handed import Handed
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.output_path import OUT, filled, output_path
from packmule.jobs.pipelines.staging import NAME, STAGING
from packmule.jobs.pipelines.steps import SOURCE, OnFailure, Step
from packmule.jobs.storage import OutsideStorage, checked

EXAMPLE = "uploads/a.csv"


class InvalidPipeline(UsageError, ValueError):
    """A pipeline can't be meant, at a `step` and its `setting` if they are known."""

    def __init__(self, text: str, step: str = "", setting: str = "") -> None:
        super().__init__(text)
        self.step = step
        self.setting = setting


Refuse = Callable[..., InvalidPipeline]


def is_name(text: str) -> bool:
    """Whether a pipeline or a step may be called so."""
    return re.fullmatch(NAME, text) is not None


def check_step(pipeline: str, each: Step, above: Mapping[str, Step]) -> None:
    """Check a step beside those `above` it. Raises `InvalidPipeline`."""

    def refuse(text: str, setting: str = "") -> InvalidPipeline:
        return InvalidPipeline(f"pipeline {pipeline}, step {each.name[:80]}: {text}", each.name, setting)

    if not is_name(each.name) or each.name == SOURCE:
        raise refuse(f"a step's name has 1 to 64 letters, digits, - and _, and is not {SOURCE}")
    if each.name in above:
        raise refuse("another step has this name: choose another")
    if SOURCE not in each.job.signature.parameters:
        raise refuse(f"{each.job.name} takes no {SOURCE}, so it can't read a file", "job")
    if each.on_failure not in get_args(OnFailure):
        ways = " or ".join(get_args(OnFailure))
        raise refuse(f"on_failure={each.on_failure!r}: give {ways}", "on_failure")
    if SOURCE in each.arguments:
        raise refuse("reads sets the job's source: omit source", SOURCE)
    _check_place(each, above, refuse)
    _check_call(each, refuse)
    if each.adds_jobs:
        with suppress(registry.NotRegistered):  # its module may come later: `check_members` asks again
            _check_members(each, refuse)


def check_members(each: Step) -> None:
    """Check that the job is there that a step makes of members of an archive. Raises `NotRegistered`."""
    if each.adds_jobs and isinstance(each.arguments.get("each"), str):
        each.members_job()


def _check_place(each: Step, above: Mapping[str, Step], refuse: Refuse) -> None:
    """Check what a step reads and comes after."""
    for setting, names in (("reads", [each.in_front]), ("after", each.after or ())):
        for name in names:
            if name and name not in above:
                raise refuse(
                    f"{setting} names {name[:80]!r}, which is not a step above it{_ways(above)}", setting
                )
    for name in [*above][-1:] if each.after is None else each.after:
        if above[name].adds_jobs:
            raise refuse(
                f"it comes after {name}, whose jobs may still run: put it above, or set after",
                "after",
            )
    if each.adds_jobs and each.reads != each.in_front:
        raise refuse('it needs the whole of what another step has unpacked: set reads = "unpack"', "reads")
    if read := above.get(each.in_front):
        if read.adds_jobs or read.output("", "") is None:
            what = "whose jobs may still run" if read.adds_jobs else "which writes nothing"
            raise refuse(f"it reads {read.name}, {what}: read another, or {SOURCE}", "reads")
        if read.on_failure == "continue" and each.on_failure == "stop":
            raise refuse(
                f'it reads {read.name}, which may fail: set on_failure = "continue" here too', "on_failure"
            )


def _check_call(each: Step, refuse: Refuse) -> None:
    """Check the arguments of a step's job."""
    inner = each.reads.partition("/")[2]
    for setting, path in ((OUT, each.arguments.get(OUT)), ("reads", inner)):
        try:
            if path:
                checked(filled(path, EXAMPLE))
        except OutsideStorage as error:
            raise refuse(str(error), setting) from None
    out = each.output(STAGING, EXAMPLE)
    given = {**each.arguments, **({OUT: out} if out else {})}
    try:
        handed.validate(each.job, (), {**given, SOURCE: Handed([])})
    except InvalidCall as error:
        fault = str(error).removeprefix(f"{each.job.name}: ")
        about = re.match(r"argument (\w+)|.*'(\w+)'", fault)
        raise refuse(fault, (about[1] or about[2]) if about else "") from None


def _check_members(each: Step, refuse: Refuse) -> None:
    """Check the arguments of the jobs that a step makes of members. Raises `NotRegistered`."""
    job, arguments = each.members_job(), each.arguments.get("arguments") or {}
    try:
        out = checked(output_path(job, arguments, STAGING, EXAMPLE) or EXAMPLE)
        job.validate((EXAMPLE,), {**arguments, **({OUT: out} if out != EXAMPLE else {})})
    except (InvalidCall, OutsideStorage) as error:
        raise refuse(str(error), "arguments") from None


def _ways(above: Mapping[str, Step]) -> str:
    return f": there are {', '.join(above)}" if above else f": the first step reads {SOURCE}"
