"""One process of the locks' fault run: increments a counter under the lock."""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import threading
import time

import redis

from packmule.coordination.locks import fence
from packmule.coordination.locks.fence import Overtaken
from packmule.coordination.locks.redlock import LockLost, NoQuorum, NotAcquired, Redlock

TTL = 0.3
LONGEST_TTL = 1.0
MARGIN = 0.2


def note(*words: object) -> None:
    """Append one line to the record, atomically."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def increment(redlock: Redlock, resource: redis.Redis, name: str) -> None:
    """Count once, and record the outcome."""
    try:
        with redlock.acquire("the counter", ttl=TTL, wait=2.0, renew=random.random() < 0.5) as lock:
            value = int(fence.read(resource, "fenced", lock.fence) or 0)
            frozen = resource.getdel(f"freeze:{name}")
            if frozen:
                os.kill(os.getpid(), signal.SIGSTOP)
                select.select([], [], [], 0.05)  # with threads, the signal may take a moment to stop this one
            elif lock.until - time.monotonic() > MARGIN:
                resource.set("plain", int(resource.get("plain") or 0) + 1)
                note("plain" if time.monotonic() < lock.until else "late")
            fence.write(resource, "fenced", value + 1, lock.fence)
            note("wrote", value + 1, lock.fence)
    except (Overtaken, NotAcquired, NoQuorum, LockLost) as error:
        note(type(error).__name__)


def work(redlock: Redlock, url: str, name: str, forks: bool) -> None:
    turn = 0
    with redis.Redis.from_url(url) as resource:
        while not resource.exists("stop"):
            turn += 1
            increment(redlock, resource, name)
            if forks and turn % 40 == 0:
                fork(redlock, url)


def fork(redlock: Redlock, url: str) -> None:
    """A forked child continues with what it inherited."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with redis.Redis.from_url(url) as resource:
                for _ in range(3):
                    increment(redlock, resource, "child")
            status = 0
        finally:
            os._exit(status)
    note("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def main(name: str, url: str, *nodes: str) -> None:
    redlock = Redlock([redis.Redis.from_url(node) for node in nodes], longest_ttl=LONGEST_TTL)
    threads = [threading.Thread(target=work, args=(redlock, url, name, False)) for _ in range(int(name) % 2)]
    for thread in threads:
        thread.start()
    work(redlock, url, name, forks=int(name) % 3 == 0)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
