"""Steps as `packmule job` shows them: what a job has done, and what it waits for."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from packmule.jobs.reader import JobInfo
from packmule.jobs.steps import ANSWER
from packmule.observe.steps import StepInfo
from packmule.terminal import show

LONGEST_RESULT = 60
"""Characters of a step's result that are shown; `--json` has it whole."""

STATES = {"begun": "its end is unknown", "late": "no signal came", "waits": "waits"}


def waits_for(info: JobInfo) -> str | None:
    """What a job waits for by its own will, in words; None if it doesn't."""
    if info.waits is None:
        return None
    if info.waits.startswith(ANSWER):
        step = info.waits.removeprefix(ANSWER)
        return f"an answer for step {step}, whose end is unknown: packmule job signal {info.id} step:{step}"
    kind, _, name = info.waits.partition(":")
    if not kind.startswith("signal"):
        return f"the end of its sleep {show.ago(info.waits_until)}"
    return f"signal {name}" + (f", or its timeout {show.ago(info.waits_until)}" if info.waits_until else "")


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
