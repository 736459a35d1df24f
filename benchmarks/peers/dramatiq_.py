"""dramatiq: BENCH_RESULTS, where set, stores results in Redis."""

from __future__ import annotations

import os
from typing import ClassVar

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from peers import bodies
from peers.produce import Calls, OneByOne

broker = RedisBroker(url=bodies.URL)
options = {}
if os.environ.get("BENCH_RESULTS"):
    broker.add_middleware(Results(backend=RedisBackend(url=bodies.URL)))
    options["store_results"] = True
dramatiq.set_broker(broker)
ACTORS = {name: dramatiq.actor(body, actor_name=name, **options) for name, body in bodies.PLAIN.items()}


class Producer(OneByOne):
    """Enqueues with `send`; dramatiq has no bulk."""

    calls: ClassVar[Calls] = {name: actor.send for name, actor in ACTORS.items()}
