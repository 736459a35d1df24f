"""Steps beside a plain model: any flow, with crashes anywhere, does each step once or knows why not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packmule import current
from packmule.jobs import context
from packmule.jobs.interrupts import Waiting
from packmule.jobs.steps import Recorded, Steps, StepsChanged

actions = st.lists(st.sampled_from(["step", "fails", "sleep", "wait"]), max_size=8)
"""What the body of a job does, in order; one that fails does so at its first try."""

instants = st.lists(st.integers(0, 12), max_size=4)
"""The writes at which runs crash, one a run: before half of an even number, or behind that of an odd one."""


class Crash(BaseException):
    """The process dies."""


class World:
    """What is kept of a job, and what its steps have done."""

    def __init__(self, flow: list[str]) -> None:
        self.flow = flow
        self.kept: dict[str, bytes] = {}
        self.done: list[str] = []
        self.may_repeat: Counter[str] = Counter()
        self.crash_at: int | None = None
        self.writes = 0

    def remember(self, field: str, head: str, rest: str, other: str) -> bool:
        """Write a field, unless the process dies before; or die behind it."""
        crashes = self.crash_at is not None and self.writes == self.crash_at // 2
        self.writes += 1
        if crashes and self.crash_at and self.crash_at % 2 == 0:
            self.may_repeat[field] += 1
            raise Crash
        if head:
            self.kept[field] = f"{head}1.0{rest}".encode()
        else:
            self.kept.pop(field, None)
        if crashes:
            raise Crash
        return True

    def effect(self, name: str, fails: bool = False) -> str:
        """What a step does."""
        self.done.append(name)
        if fails and self.done.count(name) == 1:
            self.may_repeat[f"step:{name}"] += 1
            raise ValueError(name)
        return f"result of {name}"

    def body(self) -> list[Any]:
        """The function of the job."""
        found: list[Any] = []
        for number, action in enumerate(self.flow):
            name = f"{action} {number}"
            if action == "sleep":
                found.append(current.sleep(1, name=name))
            elif action == "wait":
                found.append(current.wait_for(name))
            else:
                found.append(current.step(name, self.effect, name, action == "fails"))
        return found

    def run(self, crash_at: int | None) -> list[Any] | None:
        """One run; its result, or None if the job has to run again."""
        self.crash_at, self.writes = crash_at, 0
        running = context.Running("j1", 1, lambda *_: None)
        recorded = Recorded("", dict(self.kept)) if self.kept else None
        running.open_steps = lambda task: Steps(recorded, "", self.remember, lambda: False, task)
        try:
            with running:
                found = self.body()
                running.own_steps().finish()
                return found
        except Waiting as wait:
            place = wait.head.removeprefix('["waits"')
            data = f',"data of {wait.field}"' if wait.field.startswith("signal") else ""
            self.kept[wait.field] = f'["done"{place}1.0{data}]'.encode()
        except (Crash, ValueError):
            pass
        return None


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(actions, instants)
def test_a_flow_does_each_step_once_but_for_what_a_crash_left_unwritten(flow, crashes):
    world, found = World(flow), None
    for crash_at in [*crashes, *[None] * (2 * len(flow) + 1)]:
        if (found := world.run(crash_at)) is not None:
            break
    results = {"sleep": None, "wait": "data of signal:{}"}
    names = [f"{action} {number}" for number, action in enumerate(flow)]
    texts = [results.get(action, "result of {}") for action in flow]
    assert found == [text and text.format(name) for text, name in zip(texts, names, strict=True)]
    steps = [name for action, name in zip(flow, names, strict=True) if action not in results]
    assert list(dict.fromkeys(world.done)) == steps
    for name, times in Counter(world.done).items():
        assert times <= 1 + world.may_repeat[f"step:{name}"]
    places = [msgspec.json.decode(value)[1] for value in world.kept.values()]
    assert sorted(places) == list(range(1, len(flow) + 1))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(actions.filter(bool), st.data())
def test_a_flow_that_loses_a_recorded_step_is_refused(flow, data):
    flow = ["step" if action == "fails" else action for action in flow]
    world = World([*flow, "step"])
    while world.run(None) is None:
        pass
    del world.kept[f"step:step {len(flow)}"]
    lost = data.draw(st.integers(0, len(flow) - 1))
    names = list(enumerate(world.flow))

    def body() -> None:
        for number, action in names[:lost] + names[lost + 1 :]:
            world.flow = ["none"] * number + [action]
            name = f"{action} {number}"
            if action == "sleep":
                current.sleep(1, name=name)
            elif action == "wait":
                current.wait_for(name)
            else:
                current.step(name, world.effect, name)

    world.body = body  # type: ignore[method-assign,assignment]
    done = list(world.done)
    with pytest.raises(StepsChanged, match=rf"without \w+ '{world.flow[lost]} {lost}'"):
        world.run(None)
    assert world.done == done
