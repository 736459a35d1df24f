"""One process of the streams' tests: a consumer that records events, and may stop at a given one."""

from __future__ import annotations

import os
import sys
import time

import redis

from packmule.coordination.streams.consumer import Consumer
from packmule.coordination.streams.stream import Event, Stream


def handle(event: Event) -> None:
    if event.value == "killer":
        os.kill(os.getpid(), 9)
    if isinstance(event.value, str) and event.value.startswith("hang"):
        os.write(1, b"hangs\n")
        time.sleep(60)
    os.write(1, f"{event.value}\n".encode())


def main(url: str, name: str) -> None:
    with redis.Redis.from_url(url) as client:
        stream = Stream(client, "s", max_entries=10_000)
        Consumer(stream, "g", name, min_idle=0.5, deliveries=3).run(handle)


if __name__ == "__main__":
    main(*sys.argv[1:])
