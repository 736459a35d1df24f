"""The past days: read from their records, and from the hours of those that have none yet."""

from __future__ import annotations

import json
import random
import re
import threading
import time
import zlib

import pytest
from redis.exceptions import BusyLoadingError

from packmule.coordination.counters.histogram import LAST_BUCKET, percentile
from packmule.jobs import keys
from packmule.observe import day_record, statistics
from packmule.observe.day_record import DAY, HOURS
from packmule.observe.days import KEPT_DAYS, Days, day_key
from packmule.observe.statistics import Statistics
from packmule.tests.command_line import CommandLine, environment_in


def an_hour(seed: int) -> dict[tuple[str, str], Statistics]:
    some = random.Random(seed)

    def counted() -> Statistics:
        waits, runs = (
            {some.randrange(LAST_BUCKET + 1): some.randrange(1, 99) for _ in range(9)} for _ in "wr"
        )
        return Statistics(
            some.randrange(1, 500), some.randrange(9), 1, 2, some.randrange(10**9) / 1e6, waits, runs
        )

    return {(f"q{number % 3}", f"shop.job{number}"): counted() for number in range(7)}


def keep(client, day: int, hours: list[dict[tuple[str, str], Statistics]]) -> None:
    client.hset(day_key(day), mapping=day_record.fields([day_record.hour(each) for each in hours]))


def write_hour(client, number: int, counted: dict[tuple[str, str], Statistics]) -> None:
    fields = {}
    for (queue, kind), each in counted.items():
        start = f"{queue}\x1f{kind}\x1f"
        fields |= {
            f"{start}k1": each.finished,
            f"{start}k2": each.failed,
            f"{start}us": round(each.seconds * 1e6),
        }
        fields |= {f"{start}k3": each.stopped, f"{start}k4": each.retried}
        fields |= {f"{start}w{bucket}": count for bucket, count in each.waits.items()}
        fields |= {f"{start}r{bucket}": count for bucket, count in each.runs.items()}
    client.hset(f"{keys.STATISTICS}hour:{number}", mapping=fields)


def same(found: Statistics, wanted: Statistics) -> bool:
    found.seconds, wanted.seconds = round(found.seconds, 3), round(wanted.seconds, 3)
    return found == wanted


@pytest.fixture
def still(monkeypatch):
    """No hour begins."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)


@pytest.mark.usefixtures("still")
def test_records_and_hours_add_up_to_what_was_performed(client):
    """Days 90 to 3 ago have records; yesterday and the day before have their hours, as today has."""
    this_hour = int(time.time()) // 3600
    today = this_hour // HOURS
    everything = {}
    for day in range(today - 90, today + 1):
        hours = {
            day * HOURS + n: an_hour(day * HOURS + n) for n in range(HOURS) if day * HOURS + n <= this_hour
        }
        everything |= hours
        if day < today - 2:
            keep(client, day, list(hours.values()))
        else:
            for number, each in hours.items():
                write_hour(client, number, each)
    days = Days(client)
    for part, of in day_record.PARTS.items():
        by_hour = {number: statistics.by(each, of) for number, each in everything.items()}
        for name in ("", "q1" if part == "queue" else "shop.job5"):
            found = days.look(90, part, name)
            wanted = {
                number: statistics.combined(each.values()) if not name else each[name]
                for number, each in by_hour.items()
            }
            assert same(found.total, statistics.combined(wanted.values()))
            assert [at for at, _ in found.hours] == [number * 3600 for number in wanted]
            assert [at for at, _ in found.days] == [day * DAY for day in range(today - 90, today + 1)]
            for (_, line), each in zip(found.hours, wanted.values(), strict=True):
                assert line.performed == each.performed
                assert (line.wait_p95, line.run_p50) == (
                    percentile(each.waits, 0.95),
                    percentile(each.runs, 0.5),
                )
            assert sum(line.performed for _, line in found.days) == found.total.performed
        for name, each in found.parts.items():
            assert same(each, statistics.combined(hour[name] for hour in by_hour.values()))
        assert found.parts.keys() == set().union(*by_hour.values())
    assert [len(days.look(count, "queue").days) for count in (8, 30, 90, 10**9, -1)] == [9, 31, 91, 91, 2]


@pytest.mark.usefixtures("still")
def test_what_is_known_is_read_once_and_this_hour_again(client):
    this_hour = int(time.time()) // 3600
    for day in range(this_hour // HOURS - 90, this_hour // HOURS):
        keep(client, day, [an_hour(day)] * HOURS)
    write_hour(client, this_hour, an_hour(1))
    days = Days(client)
    before = days.look(90, "type").total.performed
    client.config_resetstat()
    client.hincrby(f"{keys.STATISTICS}hour:{this_hour}", "q0\x1fshop.job0\x1fk1", 5)
    assert days.look(90, "type").total.performed == before + 5
    ran = client.info("commandstats")
    assert "cmdstat_hmget" not in ran
    assert ran["cmdstat_hgetall"]["calls"] <= 3


def test_threads_may_share_the_past(client):
    this_hour = int(time.time()) // 3600
    for ago in range(30):
        write_hour(client, this_hour - ago, an_hour(ago))
    days, wrong = Days(client), []

    def look(part: str) -> None:
        try:
            for _ in range(10):
                days.look(30, part)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=look, args=(part,)) for part in day_record.PARTS for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"odd",
        zlib.compress(b"odd"),
        zlib.compress(b"\x91" * 100_000),
        zlib.compress(bytes(50_000_000)),
        zlib.compress(day_record._encode({"a": [1, 2, 3, 4, 5, [1, 2, "x"], []]})),
        zlib.compress(day_record._encode([[2**63, 1, 1, 1, 1, [2**63, 7, -5, 1], [10**9, 1]]])),
        zlib.compress(day_record._encode({"a": [-1, -1, -1, -1, -1, [-1, -1], [5]]})),
        zlib.compress(day_record._encode([None] * 10_000)),
    ],
)
def test_garbage_in_records_stops_no_reader(client, garbage):
    today = int(time.time()) // DAY
    for ago, fields in ((1, ("hours", "queue", "queue\x1fmail")), (20, ("hours",)), (21, ("queue",))):
        client.hset(day_key(today - ago), mapping=dict.fromkeys(fields, garbage))
    client.set(day_key(today - 30), "of another type")
    keep(client, today - 40, [an_hour(4)] * HOURS)
    for name in ("", "mail"):
        found = Days(client).look(KEPT_DAYS, "queue", name)
        assert len(found.days) == 91
        assert found.parts["q1"].performed > 0
        for each in (*found.parts.values(), found.total):
            assert percentile(each.waits, 0.5) is None or percentile(each.waits, 0.5) > 0


def test_a_record_with_more_than_was_ever_written_is_not_read(client):
    today = int(time.time()) // DAY
    row, long = [1, 0, 0, 0, 0, [], []], [1, 0, 0, 0, 0, [1] * 100_000, []]
    many = {f"n{number}": row for number in range(100_000)}
    for ago, sums in ((1, many), (2, {"long": long}), (3, {"mail": row})):
        packed = zlib.compress(day_record._encode(sums))
        hours = zlib.compress(day_record._encode([row] * 25))
        client.hset(day_key(today - ago), mapping={"hours": hours, "queue": packed})
    found = Days(client).look(KEPT_DAYS, "queue")
    assert found.parts.keys() == {"mail"}
    assert found.total == Statistics()


def test_a_server_that_cannot_answer_is_no_empty_past(client, monkeypatch):
    loading = [BusyLoadingError("LOADING")]
    monkeypatch.setattr("redis.client.Pipeline.execute", lambda pipeline, **options: loading * len(pipeline))
    with pytest.raises(BusyLoadingError):
        Days(client).look(8, "queue")
    with pytest.raises(BusyLoadingError):
        statistics.of_hours(client, [1, 2])


def test_top_covers_ninety_days(client, server, tmp_path):
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url))
    today = int(time.time()) // DAY
    keep(client, today - 60, [{("mail", "shop.send"): Statistics(finished=2, runs={80: 2})}] * HOURS)
    keep(
        client, today - 20, [{("mail", "shop.send"): Statistics(finished=1, failed=1, runs={80: 2})}] * HOURS
    )
    performed = {}
    for period in ("8d", "30d", "90d"):
        found = json.loads(packmule.output("top", "--json", "--period", period))
        performed[period] = [(each["name"], each["performed"], each["failed"]) for each in found["types"]]
        assert [each["performed"] for each in found["queues"] if each["queue"] == "mail"] == [
            count for _, count, _ in performed[period]
        ]
    assert performed == {"8d": [], "30d": [("shop.send", 48, 24)], "90d": [("shop.send", 96, 24)]}
    page = packmule.output("top", "--once", "--period", "90d")
    assert re.search(r"shop\.send +96 +24", page)
    assert "busiest workers, the last 8d" in page
