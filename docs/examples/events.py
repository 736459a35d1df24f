"""A consumer of a stream of events: each is handled at least once, and one that keeps failing is set aside.

python docs/examples/events.py
"""

from __future__ import annotations

import threading

from packmule.config import Settings
from packmule.coordination.redis.connection import connect
from packmule.coordination.streams.consumer import Consumer
from packmule.coordination.streams.stream import Event, Stream

settings = Settings.from_env()
stop = threading.Event()


def handle(event: Event) -> None:
    """Handle one event. If this raises, the event comes again; after the fifth time it is set aside."""
    what, order = event.value
    print(what, order)
    if what == "closed":
        stop.set()


with connect(settings.redis_url, settings.data_dir) as client:
    shop = Stream(client, "shop:events", max_entries=10_000)
    shop.append([["ordered", 1], ["paid", 1]])
    shop.append([["closed", 1]])
    Consumer(shop, "accounts", "till-1").run(handle, stop)
    print(len(shop.read("0")), "events are kept for other groups")
