"""mayu in two processes, as it advises where Python has a GIL; results are stored."""

from __future__ import annotations

from typing import ClassVar

from mayu import App

from peers import bodies
from peers.produce import Calls, OneByOne

app = App(bodies.URL, result_ttl=500)
TASKS = {name: app.task(body, name=name) for name, body in bodies.PLAIN.items()}


class Producer(OneByOne):
    """Enqueues with `delay`; mayu has no bulk."""

    calls: ClassVar[Calls] = {name: task.delay for name, task in TASKS.items()}
