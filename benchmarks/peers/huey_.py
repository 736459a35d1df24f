"""huey, which stores results as it comes."""

from __future__ import annotations

from typing import ClassVar

from huey import RedisHuey

from peers import bodies
from peers.produce import Calls, OneByOne

huey = RedisHuey("bench", url=bodies.URL)
TASKS = {name: huey.task(name=name)(body) for name, body in bodies.PLAIN.items()}


class Producer(OneByOne):
    """Enqueues by calling the task; huey has no bulk."""

    calls: ClassVar[Calls] = TASKS
