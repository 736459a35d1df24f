"""Jobs that the tests of flows let real processes perform."""

from __future__ import annotations

import time
from pathlib import Path

from packmule import Flow, current, job
from packmule.jobs.flow_plan import InvalidFlow
from packmule.tests.worker.pool_jobs import note


@job
def add(*numbers: int) -> int:
    return sum(numbers)


@job
def total(numbers: list[int]) -> int:
    return sum(numbers)


@job
def shown(value: object = "nothing") -> str:
    return repr(value)


@job
def fail(path: str = "") -> int:
    """Fail, unless there is a file of this path."""
    if not path or not Path(path).exists():
        raise ValueError("as it should")
    return 1


@job
def step(path: str, name: str, seconds: float = 0.0, fails: bool = False) -> str:
    """Note when it begins and ends."""
    note(path, f"+{name}")
    time.sleep(seconds)
    note(path, f"-{name}")
    if fails:
        raise ValueError(name)
    return name


@job(isolate=True)
def isolated(number: int) -> int:
    return number + 1


@job(singleton=True)
def single(number: int) -> int:
    return number + 1


@job(singleton=True, singleton_policy="replace")
def replaced(number: int) -> int:
    return number


@job(concurrency="1 by {key}")
def limited(key: str) -> str:
    return key


@job
async def asynchronous(number: int) -> int:
    return number + 1


@job(retries=1, retry_intervals=(0,))
def once(path: str) -> str:
    if not Path(path).exists():
        Path(path).touch()
        raise ValueError("the first time")
    return "the second time"


@job
def fan_out(count: int, path: str = "") -> int:
    """Add nodes to its flow and one behind these, and fail the first time if there is a path."""
    flow = current.flow()
    assert flow is not None
    made = [flow.add(add.call(n)) for n in range(count)]
    flow.add(total.call(flow.result(made)), after=made)
    if path and not Path(path).exists():
        Path(path).touch()
        raise ValueError("the first time")
    return count


@job
def pages(left: int) -> int:
    """Add one node like itself behind it, `left` times."""
    flow = current.flow()
    assert flow is not None
    if left:
        flow.add(pages.call(left - 1), after=current.job_id())
    return left


@job
def facts(number: int) -> dict[str, int]:
    return {"number": number}


@job
def large(size: int) -> str:
    return "x" * size


@job
def report(path: str, title: str) -> None:
    """Note how the flow stands of which this is the callback."""
    flow = current.flow()
    assert flow is not None
    note(path, f"{title}: {', '.join(map(str, flow.state().counts))}")


@job
def grows_in_steps(path: str) -> int:
    """Add a node within each of two steps, and two outside; the first run ends between them."""
    flow = current.flow()
    assert flow is not None
    current.step("first", lambda: str(flow.add(add.call(1))))
    flow.add(add.call(2))
    if not Path(path).exists():
        Path(path).touch()
        raise ValueError("the first time")
    flow.add(add.call(3))
    current.step("second", lambda: str(flow.add(add.call(4))))
    return 0


@job
def nests(number: int) -> str:
    """Try to add a flow to its own, and start that by itself then."""
    inner, flow = Flow("inner"), current.flow()
    inner.add(add.call(number))
    assert flow is not None
    try:
        flow.add(inner)
    except InvalidFlow as error:
        inner.start()
        return str(error)
    return "added"


@job
def add_behind(name: str, how: str = "stop", takes: bool = False) -> str:
    """Add a node behind another of its flow."""
    flow = current.flow()
    assert flow is not None
    node = f"{flow.id}-{name}"
    return flow.add(shown.call(flow.result(node)) if takes else shown.call(), after={node: how})


@job
def signaled() -> str:
    """Wait for a signal."""
    return str(current.wait_for("go"))
