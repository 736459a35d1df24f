"""`packmule events`, as an operator uses it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.coordination.streams.stream import Stream
from packmule.observe import events
from packmule.observe.events import EventFilter, JobEvent
from packmule.tests.command_line import DEADLINE, CommandLine, complaint, environment_in


@pytest.fixture
def packmule(server: EmbeddedServer, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url))


@pytest.fixture
def emitted(client: Redis) -> list[list[object]]:
    rows: list[list[object]] = [
        ["enqueued", "a", "low", "", 1795600000.25],
        ["finished", "a", "low", "w1", 1795600002.0, {"started": 1795600000.5, "ended": 1795600002.0}],
        ["failed", "b", "high", "w1", 1795600003.0, {}],
        ["what?", 1, 2],
        "garbage",  # type: ignore[list-item]
    ]
    Stream(client, "pm:events", max_entries=100).append(rows)
    return rows


def test_what_is_kept_is_shown_one_a_line(packmule: CommandLine, emitted: object) -> None:
    assert packmule.output("events").splitlines() == [
        "2026-11-25 09:46:40.250 enqueued    a low",
        "2026-11-25 09:46:42.000 finished    a low        w1 took=1.500s",
        "2026-11-25 09:46:43.000 failed      b high       w1",
    ]
    found = [json.loads(line) for line in packmule.output("events", "--json", "--job", "a").splitlines()]
    assert [event["type"] for event in found] == ["enqueued", "finished"]
    assert found[1]["details"] == {"started": 1795600000.5, "ended": 1795600002.0}
    assert " b " in packmule.output("events", "--type", "failed", "--type", "stopped")
    assert " b " in packmule.output("events", "--limit", "1", "--queue", "high", "--since", "10m")
    assert packmule.output("events", "--since", "2199-01-01T00:00Z") == ""
    assert (
        packmule.output("events", "--since", found[0]["id"], "--limit", "1", "--job", "a").count("finished")
        == 1
    )


def test_it_follows_until_ctrl_c(packmule: CommandLine, emitted: object, client: Redis) -> None:
    with packmule.started("events", "--follow", "--limit", "1") as process:
        assert process.stdout is not None
        assert " b " in process.stdout.readline()
        Stream(client, "pm:events", max_entries=100).append([["canceled", "c", "low", "", 1795600004.0]])
        assert " c " in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
        assert (out, err.strip()) == ("", "")
    assert process.returncode == 130


def test_mistakes_are_told_in_one_line(packmule: CommandLine) -> None:
    assert "'done' is not one of enqueued, scheduled" in complaint(
        packmule.run("events", "--type", "done"), 2
    )
    assert "'soon' is not a time: write 10m" in complaint(packmule.run("events", "--since", "soon"), 2)


def test_events_are_read_by_job_type_and_queue(client: Redis, emitted: object) -> None:
    found = list(events.read(client, only=EventFilter(types=("enqueued",))))
    assert found == [JobEvent(found[0].id, "enqueued", "a", "low", "", 1795600000.25, {})]
    assert [event.job for event in events.read(client, only=EventFilter(queues=("high",)))] == ["b"]


def test_what_a_job_says_forges_no_line_and_odd_events_end_nothing(
    packmule: CommandLine, client: Redis
) -> None:
    rows = [
        ["progress", "a", "low", "", 1795600000.0, {"message": "one\ntwo\x1b[2J", "odd": [1], "done": 1}],
        *(["failed", "b", "low", "", at, {}] for at in (1e300, float("nan"), -1.0)),
    ]
    Stream(client, "pm:events", max_entries=100).append([*rows, ["failed", "c", "low", "", 9e10, {1: 2}]])
    (first, last) = packmule.output("events").splitlines()
    assert first.endswith(r"message=one\ntwo\x1b[2J odd=[1] done=1")
    assert " c " in last
    assert len(packmule.output("events", "--json").splitlines()) == 2
