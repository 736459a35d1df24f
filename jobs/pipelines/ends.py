"""How the nodes of a pipeline's flow have ended: its steps, and the jobs that these have added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from packmule.jobs import current, reader
from packmule.jobs.batch import JOBS_A_TRIP, Batch, Result
from packmule.jobs.flow_graph import WORDS
from packmule.jobs.pipelines.staging import states_of
from packmule.jobs.pipelines.steps import EACH_MEMBER

PENDING, DONE = "p", "d"
AMISS = ("f", "c")
"""Failed, and canceled: states in which a node keeps all from being published, unless it may fail."""

MOST_SAID = 100
"""Failures of added jobs that are said of each step."""


class Ends:
    """What became of the `steps` of `flow`, names with those of their jobs, some of which `may_fail`."""

    def __init__(self, flow: Batch, steps: Mapping[str, str], may_fail: Collection[str]) -> None:
        self.flow = flow
        self.steps = steps
        self.may_fail = may_fail
        self.states = states_of(flow.redis, flow.id)
        self.results: dict[str, Result] = {each.job: each for each in flow.results()}
        self.added = dict(self._added())

    def awaited(self) -> list[tuple[str, Literal["stop", "go on"]]]:
        """The added jobs that the end has to wait for, with what their failure means."""
        found: list[tuple[str, Literal["stop", "go on"]]] = []
        for id, step in self.added.items():
            if step in self.may_fail:
                found += [(id, "go on")] if self.states[id] == PENDING else []
            elif self.states[id] in (PENDING, *AMISS):
                found.append((id, "stop"))
        return found

    def said(self) -> list[dict[str, Any]]:
        """Of each step its name, its job, how it ended, its result or error, and those of its added jobs."""
        said: list[dict[str, Any]] = []
        for number, (name, called) in enumerate(self.steps.items()):
            id = self._id(number)
            said.append({"step": name, "job": called, "state": WORDS.get(self.states.get(id, ""), "unknown")})
            if result := self.results.get(id):
                error = _last_line(result)
                said[-1] |= {"error": error} if error else {"result": result.value}
            if jobs := [id for id, step in self.added.items() if step == name]:
                said[-1] |= self._said_of(jobs)
        return said

    def done(self) -> list[str]:
        """The names of the steps that are done."""
        return [name for number, name in enumerate(self.steps) if self.states.get(self._id(number)) == DONE]

    def results_of_done(self) -> Iterator[tuple[str, Any]]:
        """What steps and added jobs have returned that are done, with the name of the step."""
        steps = {self._id(number): name for number, name in enumerate(self.steps)}
        for id, step in (steps | self.added).items():
            if self.states.get(id) == DONE and id in self.results:
                yield step, self.results[id].value

    def spoilt(self, staging: str) -> list[str]:
        """The folders that jobs of archives' files may have written to and that did not finish."""
        numbers = {name: number for number, name in enumerate(self.steps)}
        left = [(id, step) for id, step in self.added.items() if self.states[id] != DONE and step]
        found = []
        for first in range(0, len(left), JOBS_A_TRIP):
            page = left[first : first + JOBS_A_TRIP]
            infos = reader.read_many(self.flow.redis, [id for id, _ in page])
            for (_, step), info in zip(page, infos, strict=True):
                made = self.results.get(self._id(numbers[step]))
                if self.steps[step] == EACH_MEMBER and made and info and info.args:
                    member = str(info.args[0]).removeprefix(f"{made.value['source']}/")
                    found.append(f"{staging}/{step}/{member}")
        return found

    def _added(self) -> Iterator[tuple[str, str]]:
        """The nodes that are neither steps nor ends, with the name of the step that added each, if known."""
        prefix, names = f"{self.flow.id}-", list(self.steps)
        for id in sorted(self.states, key=lambda id: (len(id), id)):
            name = id.removeprefix(prefix)
            # `Flow` makes names such as 2_17, or hashes longer ones.
            number, is_added, _ = name.partition("_")
            if name == id or id == current.job_id():
                continue
            if not is_added and not name.isdigit():
                yield id, ""
            elif is_added and number.isdigit() and int(number) < len(names):
                yield id, names[int(number)]

    def _said_of(self, jobs: list[str]) -> dict[str, Any]:
        counts = Counter(WORDS.get(self.states[id], "unknown") for id in jobs)
        failures = [
            {"job": id, "error": _last_line(self.results[id])}
            for id in jobs
            if self.states[id] == "f" and id in self.results
        ]
        return {"jobs": dict(counts), **({"failures": failures[:MOST_SAID]} if failures else {})}

    def _id(self, number: int) -> str:
        return f"{self.flow.id}-{number}"


def _last_line(result: Result) -> str:
    return (result.error or "").strip().rpartition("\n")[2]
