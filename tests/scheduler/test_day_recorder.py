"""Recording days: a day that has ended becomes a record, exactly, whenever its leader dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.counters.histogram import bucket
from packmule.coordination.redis.connection import connect
from packmule.jobs import keys
from packmule.observe import day_record, statistics
from packmule.observe.day_record import DAY, HOURS
from packmule.observe.days import KEPT_DAYS, MOST_UNRECORDED, day_key
from packmule.observe.statistics import Statistics
from packmule.scheduler.leader import NotLeading
from packmule.scheduler.maintenance import day_recorder
from packmule.scheduler.maintenance.day_recorder import LATE, DayRecorder
from packmule.tests.command_line import until
from packmule.tests.fork_server import Forked


@pytest.fixture
def yesterday(client: Redis) -> Iterator[int]:
    """A day that has ended, whenever the test runs."""
    yield (int(client.time()[0]) - LATE) // DAY - 1


def write(client: Redis, hour: int, queue: str, kind: str, finished: int, run: float = 1.0) -> None:
    start = f"{queue}\x1f{kind}\x1f"
    counts = {"k1": finished, "k4": 1, "us": int(run * 1e6 * finished), f"r{bucket(run)}": finished}
    counts[f"w{bucket(run / 2)}"] = finished
    client.hset(f"{keys.STATISTICS}hour:{hour}", mapping={start + name: n for name, n in counts.items()})


def write_days(client: Redis, yesterday: int) -> None:
    for day in (yesterday - 1, yesterday):
        for number in range(HOURS):
            write(client, day * HOURS + number, "mail", "shop.send", 100 + number, 0.01 * (number + 1))
            if number % 2:
                write(client, day * HOURS + number, "low", "shop.report", 7, 60.0)


def recorded(client: Redis) -> dict[int, dict[bytes, bytes]]:
    found = {int(key.rpartition(b":")[2]): client.hgetall(key) for key in client.keys(f"{day_key(0)[:-1]}*")}
    return {day: fields for day, fields in found.items() if len(fields) > 3}  # those without jobs have three


def record_all(client: Redis, term: str = "") -> None:
    recorder = DayRecorder(client)
    while recorder.record(term) == day_recorder.AGAIN:
        pass


def test_a_days_record_has_what_its_hours_had(client, yesterday):
    write_days(client, yesterday)
    record_all(client)
    record = recorded(client)[yesterday]
    sums = {part: day_record.sums(record[part.encode()]) for part in day_record.PARTS}
    hours = statistics.of_hours(client, range(yesterday * HOURS, (yesterday + 1) * HOURS))
    for part, of in day_record.PARTS.items():
        by_hour = [statistics.by(each, of) for each in hours]
        for name, found in sums[part].items():
            mine = [each.get(name, Statistics()) for each in by_hour]
            assert found == statistics.combined(mine)
            assert day_record.hours(record[day_record.field(part, name).encode()]) == mine
    assert sums["queue"].keys() == {"mail", "low"}
    assert day_record.hours(record[b"hours"]) == [statistics.combined(each.values()) for each in hours]
    ends = (yesterday + 1 + KEPT_DAYS) * DAY
    assert ends - time.time() - 30 < client.ttl(day_key(yesterday)) <= ends - time.time() + 30


def test_days_without_jobs_have_a_record_and_today_has_none(client, yesterday):
    record_all(client)
    days = {int(key.rpartition(b":")[2]) for key in client.keys("pm:stats:day:*")}
    assert days == set(range(yesterday + 1 - MOST_UNRECORDED, yesterday + 1))
    assert 0 < DayRecorder(client).record() <= day_recorder.IDLE


def test_the_least_of_many_names_are_counted_together(client, yesterday):
    for number in range(150):
        write(client, yesterday * HOURS, f"q{number:03}", f"shop.job{number:03}", 1000 - number)
    record_all(client)
    record = recorded(client)[yesterday]
    types = day_record.sums(record[b"type"])
    assert len(types) == day_record.MOST_NAMES + 1
    assert types["shop.job099"].finished == 901
    assert types[day_record.OTHER].finished == sum(1000 - number for number in range(100, 150))
    assert sum(each.finished for each in types.values()) == day_record.hours(record[b"hours"])[0].finished


def test_a_day_takes_a_bounded_number_of_bytes(client, yesterday, monkeypatch):
    monkeypatch.setattr(day_record, "MOST_BYTES", {"queue": 1000, "type": 1000})
    for number in range(60):
        write(client, yesterday * HOURS, "mail", "x" * 150 + str(number), 1000 - number)
    record_all(client)
    record = recorded(client)[yesterday]
    of_types = [value for name, value in record.items() if name.startswith(b"type\x1f")]
    assert sum(map(len, of_types)) <= 1000 + 100
    assert sum(each.finished for each in day_record.sums(record[b"type"]).values()) == sum(range(941, 1001))


def test_a_record_that_is_there_is_never_written_again(client, yesterday):
    write_days(client, yesterday)
    record_all(client)
    before = recorded(client)
    client.delete(*client.keys("pm:stats:hour:*"))
    record_all(client)
    assert recorded(client) == before


def test_of_two_that_record_at_once_the_first_counts(client, yesterday, monkeypatch):
    """Such as one that was frozen between its last hour and its record."""
    write_days(client, yesterday)
    write = day_recorder._keep
    before: list[dict[bytes, dict[bytes, bytes]]] = []

    def all_records() -> dict[bytes, dict[bytes, bytes]]:
        return {key: client.hgetall(key) for key in client.keys("pm:stats:day:*")}

    def frozen(*call: object) -> object:
        if not before:
            monkeypatch.setattr(day_recorder, "_keep", write)
            record_all(client)
            before.append(all_records())
            client.delete(*client.keys("pm:stats:hour:*"))
            call[2][-1] = b"what the frozen one found"  # type: ignore[index]
        return write(*call)  # type: ignore[arg-type]

    monkeypatch.setattr(day_recorder, "_keep", frozen)
    DayRecorder(client).record()
    record_all(client)
    assert all_records() == before[0]


def test_a_former_leader_records_nothing(client, yesterday):
    write_days(client, yesterday)
    client.hset(keys.LEADER, "term", "8")
    with pytest.raises(NotLeading):
        record_all(client, "7")
    assert recorded(client) == {}


def test_garbage_is_passed_over_or_set_aside(client, yesterday):
    write_days(client, yesterday)
    hour = f"{keys.STATISTICS}hour:{yesterday * HOURS}"
    odd = {
        "a\x1fb\x1fk1": "many",
        "a\x1fb\x1fw99999999999": 1,
        "a\x1fb\x1fr²": 1,
        b"\xff\x1f\xff\x1fk1": 3,
        "": "",
    }
    client.hset(hour, mapping=odd)
    client.set(f"{keys.STATISTICS}hour:{yesterday * HOURS + 1}", "of another type")
    client.set(day_key(yesterday), "of another type")
    record_all(client)
    types = day_record.sums(recorded(client)[yesterday][b"type"])
    assert types["shop.send"].finished == sum(100 + number for number in range(HOURS) if number != 1)
    assert client.get(f"pm:broken:{day_key(yesterday)}") == b"of another type"


@pytest.mark.parametrize("field", ["k1", "us", "w3"])
@pytest.mark.parametrize("count", [2**63 - 1, 2**64, 10**400])
def test_counts_beyond_all_bounds_are_recorded_as_the_most_that_can_be(client, yesterday, field, count):
    huge = {f"{queue}\x1fshop.send\x1f{field}": str(count) for queue in ("mail", "low", "high")}
    client.hset(f"{keys.STATISTICS}hour:{yesterday * HOURS}", mapping=huge)
    record_all(client)
    (found,) = day_record.sums(recorded(client)[yesterday][b"type"]).values()
    most = 2**63 - 1
    assert max(found.finished, found.seconds * 1e6, found.waits.get(3, 0)) == pytest.approx(most)


def test_a_full_server_gets_its_records_later(client, yesterday):
    write_days(client, yesterday)
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(ResponseError):
            record_all(client)
    finally:
        client.config_set("maxmemory", 0)
    assert client.keys("pm:stats:day:*") == []
    record_all(client)
    assert len(recorded(client)) == 2


@pytest.mark.parametrize("calls", [0, 3, 12, 24])
def test_a_leader_that_is_killed_while_it_records_leaves_all_to_the_next(
    client, server, yesterday, monkeypatch, calls
):
    """It dies in front of some hour, or just behind the script that has written a record."""
    write_days(client, yesterday)
    child = os.fork()
    if not child:
        try:
            done = 0

            def dying(client: Redis, numbers: list[int]) -> object:
                nonlocal done
                done += 1
                if done > calls + (MOST_UNRECORDED - 2) * HOURS:
                    os.kill(os.getpid(), signal.SIGKILL)
                return read(client, numbers)

            read = statistics.of_hours
            monkeypatch.setattr(statistics, "of_hours", dying)
            record_all(connect(None, server.data_dir))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert len(recorded(client)) == calls // HOURS
    record_all(client)
    found = {day: day_record.sums(record[b"queue"]) for day, record in recorded(client).items()}
    once = sum(100 + number for number in range(HOURS))
    assert {day: sums["mail"].finished for day, sums in found.items()} == {
        yesterday - 1: once,
        yesterday: once,
    }


def test_schedulers_record_days_though_they_are_killed(client, server, yesterday, tmp_path):
    write_days(client, yesterday)
    with (tmp_path / "log").open("ab") as log:
        for kill in (True, True, False):
            process = Forked(
                ["packmule.tests.scheduler.run_scheduler", server.url, "1"], stdout=log, stderr=log
            )
            try:
                until(lambda: client.hexists(keys.LEADER, "term"), "a leader")
                if not kill:
                    until(lambda: len(recorded(client)) == 2, "the records of both days")
            finally:
                process.kill()
                process.wait()
    record = recorded(client)[yesterday]
    assert day_record.sums(record[b"queue"])["mail"].finished == sum(100 + number for number in range(HOURS))
