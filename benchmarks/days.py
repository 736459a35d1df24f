"""Ninety days of statistics: what their records take in Redis, and what recording and reading them costs.

    python benchmarks/days.py [queues] [types] [days]

Each type of job has a queue, and so many executions an hour by day, and a fifth of them by night. "hours" is
what the hashes of a day would take that statistics are counted in, and that are kept for 8 days.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator

from harness import arguments, client_of, machine, table
from redis import Redis

from packmule.coordination.counters.histogram import bucket
from packmule.jobs import keys
from packmule.observe.day_record import DAY, HOURS
from packmule.observe.days import Days, day_key
from packmule.scheduler.maintenance import day_recorder
from packmule.scheduler.maintenance.day_recorder import DayRecorder
from packmule.testing import private_server

SAMPLES = 1000
"""Durations that are drawn for an hour; more executions share them."""


def histogram(count: int, median: float, some: random.Random) -> dict[int, int]:
    """Executions of a log-normal duration."""
    found: dict[int, int] = {}
    for _ in range(min(count, SAMPLES)):
        number = bucket(some.lognormvariate(math.log(median), 0.8))
        found[number] = found.get(number, 0) + max(1, count // SAMPLES)
    return found


def hour(queues: int, types: int, an_hour: int, some: random.Random) -> Iterator[tuple[str, int]]:
    """The fields of an hour's hash."""
    for number in range(types):
        start, count = (
            f"queue-{number % queues}\x1fshop.jobs.do_{number}\x1f",
            some.randrange(an_hour // 2, an_hour),
        )
        run = 0.01 * 1.2**number
        yield f"{start}k1", count
        yield f"{start}k2", count // 50
        yield f"{start}us", int(count * run * 1e6)
        for letter, median in (("w", 0.05), ("r", run)):
            for each, executions in histogram(count, median, some).items():
                yield f"{start}{letter}{each}", executions


def taken(client: Redis, pattern: str) -> int:
    """The bytes of the keys of that pattern."""
    return sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter(pattern, 1000))


def main(queues: int, types: int, days: int) -> None:
    """Measure, and print a table."""
    rows = []
    with private_server() as server, client_of(server) as client:
        print(f"{machine('redis', client=client)}; {queues} queues, {types} types, {days} days\n")
        for an_hour in (50, 1000, 20_000):
            client.flushall()
            yesterday = (int(client.time()[0]) - day_recorder.LATE) // DAY - 1
            some = random.Random(7)
            for number in range(HOURS):
                fields = dict(hour(queues, types, an_hour if 7 < number < 20 else an_hour // 5, some))
                client.hset(f"{keys.STATISTICS}hour:{yesterday * HOURS + number}", mapping=fields)
            hashes = taken(client, f"{keys.STATISTICS}hour:*")
            recorder, began = DayRecorder(client), time.process_time()
            while recorder.record() == day_recorder.AGAIN:
                pass
            recording = time.process_time() - began
            record = client.dump(day_key(yesterday))
            assert record is not None
            client.delete(*client.keys(f"{keys.STATISTICS}*"))
            for day in range(yesterday - days + 1, yesterday + 1):
                client.restore(day_key(day), 0, record)
            reader, times = Days(client), []
            for _ in range(2):
                began = time.process_time()
                reader.look(days, "type")
                times.append((time.process_time() - began) * 1000)
            records = taken(client, f"{keys.STATISTICS}day:*")
            rows.append(
                (
                    f"{an_hour:,}",
                    f"{hashes / 1e6:.1f}",
                    f"{records / days / 1e3:.0f}",
                    f"{records / 1e6:.1f}",
                    f"{recording * 1000:.0f}",
                    *(f"{each:.0f}" for each in times),
                )
            )
    columns = ("runs an hour", "hours of a day: MB", "its record: kB", f"{days} days: MB")
    table((*columns, "to record a day: ms of CPU", "to read: ms of CPU", "again"), rows)


if __name__ == "__main__":
    main(*arguments(10, 50, 90))
