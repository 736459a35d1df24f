"""Steps as `packmule job` shows them: what a job has done, and what it waits for."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from packmule.jobs.reader import JobInfo
from packmule.jobs.steps import ANSWER
from packmule.observe.steps import StepInfo
from packmule.observe.waits import of_steps, signal_of
from packmule.terminal import show

LONGEST_RESULT = 60
"""Characters of a step's result that are shown; `--json` has it whole."""

STATES = {"begun": "outcome unknown", "late": "no signal came", "waits": "waits"}


def waits_for(info: JobInfo) -> str | None:
    """What a job waits for by its own will, in words; None if it doesn't."""
    found, until = of_steps(info), info.waits_until
    if info.waits is None or found is None:
        return None
    if info.waits.startswith(ANSWER):
        return f"{found}: packmule job signal {info.id} step:{info.waits.removeprefix(ANSWER)}"
    if signal_of(info) is None:
        return f"{found} {show.distance(until or 0)}"
    return found + (f", or its timeout {show.distance(until)}" if until else "")


def steps(found: Sequence[StepInfo]) -> None:
    """Print a table of steps, if there are any."""
    if found:
        rows = [
            (each.name, each.kind, STATES.get(each.state, each.state), show.ago(each.at), _result(each))
            for each in found
        ]
        show.out.print()
        show.table(("step", "kind", "state", "when", "result"), rows, "")


def _result(step: StepInfo) -> str:
    if step.state != "done" or step.kind == "sleep":
        return ""
    text = msgspec.json.encode(step.value).decode()
    return text if len(text) <= LONGEST_RESULT else f"{text[: LONGEST_RESULT - 1]}…"
