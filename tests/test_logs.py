"""What long-running commands log: a banner, jobs as they start and end, and what jobs print."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.backoff import Outage
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import context, keys, reader
from packmule.terminal.banner import _wrapped
from packmule.terminal.logs import INDENT, AsJson, AsText
from packmule.tests.command_line import DEADLINE, CommandLine, environment_in, until
from packmule.worker.process.job_log import FinishedRecord

JOBS = """
import asyncio, logging, os, threading, time

@job
def plain():
    print("printed by", end=" ")
    logging.getLogger("shop").info("a plain one")
    print("plain\\nand more", end="")

@job
async def waiting():
    await asyncio.sleep(0.05)
    print("an async one")

@job(isolate=True)
def isolated():
    print("an isolated one", file=__import__("sys").stderr)

@job(retries=1, retry_intervals=[0])
def again():
    raise ConnectionError("no\\nroute")

@job(isolate=True)
def dies():
    os._exit(3)

@job(timeout=3)
def late():
    time.sleep(60)

@job(timeout=3, isolate=True)
def late_isolated():
    try:
        time.sleep(60)
    finally:
        raise LookupError("too late")

@job
def rude():
    print("[/red]\\x1b[2J\\rforged")
    raise ValueError("red: \\x1b[31m" + "x" * 1000 + "\\n2026-01-01 00:00:00.000 ERROR   forged")

@job
def long(path: str):
    open(path, "w").close()
    time.sleep(60)
"""
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (?P<level>[A-Z]+) +(?P<text>.*)")
BURST = ("worker", "--burst", "--processes", "1", "--no-scheduler")


@pytest.fixture
def packmule(server: EmbeddedServer, client: Redis, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, JOBS))


def logged(packmule: CommandLine, *words: str, **changes: str) -> list[tuple[str, str]]:
    """Level and text of each line; of an indented one the level is empty."""
    done = packmule.run(*(words or BURST), **changes)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    found = []
    for line in done.stderr.splitlines():
        match = LINE.fullmatch(line)
        assert match or line.startswith("    "), f"a line of its own: {line!r}"
        found.append((match["level"], match["text"]) if match else ("", line))
    return found


def test_a_worker_begins_with_what_it_works_with(packmule: CommandLine, server: EmbeddedServer) -> None:
    url = f"unix://:s3cret@{server.socket_path}"
    lines = logged(packmule, *BURST, "-q", "low:1", "-q", "high:5", PACKMULE_REDIS_URL=url, COLUMNS="120")
    banner = dict(re.findall(r"^    (\w+) +(.*)$", "\n".join(text for _, text in lines), re.MULTILINE))
    assert lines[0][1].startswith("packmule ")
    assert banner["server"].startswith(f"unix://:***@{server.socket_path}, valkey ")
    assert banner["queues"] == "low (1), high (5), by their weights"
    assert banner["modules"] == "shop"
    assert banner["jobs"].startswith("shop.add, ")
    assert any(text.rstrip().endswith(" ready-made ones") for _, text in lines for text in text.splitlines())
    assert banner["processes"] == "1"
    assert banner["executors"].startswith("1 function at a time, 100 async ones")
    assert banner["storage"].endswith("/files")
    assert "s3cret" not in str(lines)


def test_each_end_of_a_job_is_a_line_with_its_time_and_reason(packmule: CommandLine, client: Redis) -> None:
    calls = {"add": ("a=1",), "boom": (), "again": (), "dies": ()}
    ids = {name: packmule.output("enqueue", "call", f"shop.{name}", *call) for name, call in calls.items()}
    client.hset(keys.job_key(ids["add"]), "data", b"[1]")
    lines = logged(packmule)
    took = r" +[\d.]+ (us|ms|s)  "

    def of(name: str) -> list[tuple[str, str]]:
        return [(level, text.removeprefix(f"{ids[name]} ")) for level, text in lines if ids[name] in text]

    ((level, text),) = of("boom")
    assert level == "ERROR"
    assert re.fullmatch(rf"failed  {took}shop\.boom  ValueError: the shelf is empty", text)
    at = lines.index((level, f"{ids['boom']} {text}"))
    trace = "\n".join(text for level, text in lines[at + 1 :][:5])
    assert trace.startswith("    Traceback (most recent call last):\n      File")
    assert 'raise ValueError("the shelf is empty")' in trace
    assert "/worker/" not in trace
    first, last = of("again")
    assert first[0] == "WARNING"
    assert re.fullmatch(
        rf"retries {took}shop\.again  again now, attempt 1 failed: ConnectionError: no", first[1]
    )
    assert last[0] == "ERROR"
    assert re.fullmatch(rf"failed  {took}shop\.again  after 2 attempts: ConnectionError: no", last[1])
    deaths = of("dies")
    assert [level for level, _ in deaths] == ["ERROR"] * 3
    assert "it runs again: the process performing this job exited with code 3" in deaths[0][1]
    assert "it failed: " in deaths[2][1]
    ((level, text),) = of("add")
    assert level == "ERROR"
    assert "the payload is" in text


def test_the_line_of_a_job_that_was_refused_names_it(packmule: CommandLine, client: Redis) -> None:
    id = packmule.output("enqueue", "call", "shop.add", "a=1")
    client.hset(keys.job_key(id), "data", b'["shop.add",null,["one"],{}]')  # as older code enqueued it
    (text,) = [text for _, text in logged(packmule) if id in text]
    assert re.search(
        r"failed .*  shop\.add  InvalidCall: shop\.add: argument a: expected `int`, got `str`", text
    )


def test_a_traceback_shows_the_frames_of_the_job_and_none_of_ours(
    packmule: CommandLine, client: Redis
) -> None:
    ids = [packmule.output("enqueue", "call", f"shop.{name}") for name in ("boom", "late", "late_isolated")]
    trace = "\n".join(text for level, text in logged(packmule) if not level)
    assert trace.count("Traceback (most recent call last)") == 4  # one of them led to another error
    assert trace.count("time.sleep(60)") == 2
    assert "/worker/" not in trace
    for id in ids:
        assert "/worker/" not in (reader.read(client, id).error or "")


def test_what_jobs_print_and_log_is_labelled_in_order(packmule: CommandLine) -> None:
    id = packmule.output("enqueue", "call", "shop.plain")
    others = {name: packmule.output("enqueue", "call", f"shop.{name}") for name in ("waiting", "isolated")}
    lines = [text for _, text in logged(packmule)]
    ours = [text.removeprefix(f"{id} ") for text in lines if text.startswith(id)]
    assert ours[:3] == ["| a plain one", "| printed by plain", "| and more"]
    assert re.fullmatch(r"finished +[\d.]+ [mu]?s  shop\.plain", ours[3])
    for name, said in {"waiting": "an async one", "isolated": "an isolated one"}.items():
        assert f"{others[name]} | {said}" in lines


def test_no_text_of_a_job_forges_a_line_or_steers_the_terminal(packmule: CommandLine) -> None:
    id = packmule.output("enqueue", "call", "shop.rude")
    done = packmule.run(*BURST)
    assert rf"{id} | [/red]\x1b[2J\rforged" in done.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.stderr)
    assert all(LINE.fullmatch(line) or line.startswith("    ") for line in done.stderr.splitlines())
    assert not re.search(r"^2026-01-01", done.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "changes", "levels"),
    [
        ((), {}, {"INFO", "ERROR"}),
        (("--quiet",), {}, {"ERROR", "INFO"}),
        ((), {"PACKMULE_LOG_LEVEL": "error"}, {"ERROR", "INFO"}),
        (("-v",), {"PACKMULE_LOG_LEVEL": "error"}, {"DEBUG", "INFO", "ERROR"}),
    ],
)
def test_the_level_says_how_much_is_logged(
    packmule: CommandLine, words: tuple[str, ...], changes: dict[str, str], levels: set[str]
) -> None:
    id = packmule.output("enqueue", "call", "shop.plain")
    packmule.output("enqueue", "call", "shop.boom")
    lines = logged(packmule, *BURST, *words, **changes)
    assert {level for level, _ in lines if level} == levels
    is_quiet = "--quiet" in words or bool(changes and not words)
    assert any("finished" in text for _, text in lines) != is_quiet
    assert any(re.match(rf"{id} starts +shop\.plain", text) for _, text in lines) == ("-v" in words)
    assert ("INFO", f"{id} | printed by plain") in lines, "what a job prints is shown at every level"


def test_json_logs_have_the_facts_of_a_job_in_fields(packmule: CommandLine) -> None:
    names = ("plain", "waiting", "isolated", "boom", "again")
    ids = {name: packmule.output("enqueue", "call", f"shop.{name}") for name in names}
    done = packmule.run(*BURST, "-v", PACKMULE_LOG_FORMAT="json")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all({"time", "level", "logger", "pid", "message"} <= line.keys() for line in lines)
    assert lines[0]["queues"] == "high, default, low, in this order"
    assert "shop.plain" in lines[0]["jobs"]

    def of(name: str, message: str) -> list[dict[str, object]]:
        return [each for each in lines if each.get("job") == ids[name] and message in each["message"]]

    common = {"job": ids["plain"], "name": "shop.plain", "queue": "default", "attempt": 1}
    for message in ("starts", "a plain one", "printed by plain", "and more"):
        (line,) = of("plain", message)
        assert common.items() <= line.items()
    for name in ("plain", "waiting", "isolated"):
        (line,) = of(name, "finished")
        assert line["level"] == "INFO"
        assert isinstance(line["duration"], float)
    (line,) = of("boom", "failed")
    assert str(line["error"]).startswith("Traceback")
    assert line["duration"] > 0  # type: ignore[operator]
    assert [line["attempt"] for line in of("again", "failed")] == [1, 2]
    assert of("again", "retries")[0]["level"] == "WARNING"


def test_a_drain_says_what_it_waits_for_and_what_it_cuts_short(packmule: CommandLine, tmp_path: Path) -> None:
    id = packmule.output("enqueue", "call", "shop.long", f"path={tmp_path / 'begun'}")
    with packmule.started("worker", "--processes", "1", "--no-scheduler", "--grace", "1s") as process:
        until((tmp_path / "begun").exists, "the job")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=DEADLINE)
    assert re.search(
        rf"the pool stops, and waits up to [\d.]+ m?s for 1 job: {id}, [\d.]+ m?s so far; a second signal",
        said,
    )
    assert re.search(rf"cuts short 1 job: {id}, ", said)
    assert re.search(r"the pool has stopped after [\d.]+ s$", said, re.MULTILINE)


def test_an_outage_is_two_lines_however_long_it_is(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    outage.end()
    for _ in range(5):
        outage.begin(ConnectionError("refused"))
    outage.end()
    outage.end()
    away, back = caplog.messages
    assert away == "redis is away: refused"
    assert re.fullmatch(r"redis is back after [\d.]+ us|redis is back after [\d.]+ ms", back)


def test_a_pool_its_workers_and_its_scheduler_say_once_that_redis_is_away_and_back(
    spare_server, tmp_path: Path
) -> None:
    server = spare_server()
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url))
    log = tmp_path / "log"
    with log.open("w") as stream, packmule.started("worker", "--processes", "2", stderr=stream) as process:
        until(lambda: ": leads" in log.read_text() and log.read_text().count("started") == 4, "all to start")
        with Redis.from_url(server.url) as client:
            until(lambda: client.zcard(keys.LEASES) == 2, "a heartbeat")
        server.stop()
        until(lambda: "redis is away" in log.read_text(), "the outage")
        until(lambda: "no longer leads" in log.read_text(), "the end of the term")
        server.ensure()
        until(lambda: "redis is back" in log.read_text(), "its end")
        until(lambda: log.read_text().count(": leads") > 1, "a leader")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE)
    said = log.read_text()
    assert (said.count("redis is away"), said.count("redis is back")) == (1, 1), said


def test_a_traceback_and_odd_text_stay_in_one_line_of_json() -> None:
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "odd \udcff\n%s", ("text",), None)
    try:
        int("broken")
    except ValueError:
        record.exc_info = sys.exc_info()
    with context.Running("j1", 1, lambda *_: None):
        line = AsJson().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert found["message"] == "odd \\udcff\ntext"
    assert found["error"].endswith("'broken'")
    assert (found["job"], found["pid"]) == ("j1", os.getpid())


def test_on_a_terminal_colours_mean_something_and_lines_are_short() -> None:
    finished = FinishedRecord([("1795600000.500000", "1795600000.4", "a" * 32, "shop.add", "default", 1)])
    line = AsText("%H:%M:%S", has_colours=True).format(finished)
    bare = re.sub(r"\x1b\[\d*m", "", line)
    assert re.fullmatch(rf"\d\d:\d\d:\d\d\.500 {'a' * 32} finished   100 ms  shop\.add", bare)
    assert len(bare) < 80
    wrong = logging.LogRecord("x", logging.ERROR, "", 1, "wrong", None, None)
    assert "\x1b[31mwrong\x1b[0m" in AsText("%H:%M:%S", has_colours=True).format(wrong)
    assert "\x1b" not in AsText("%H:%M:%S").format(wrong)
    assert AsText("").format(wrong) == "ERROR   wrong"


def test_hostile_ids_and_names_are_plain_among_finished_jobs() -> None:
    row = ("1795600000.500000", "1795600000.4", "id\nforged\x1b[2J", "na\u202eme", "q", 1)
    sound = ("1795600000.500000", "1795600000.4", "sound", "shop.add", "q", 1)
    lines = AsText("").format(FinishedRecord([sound, row])).split("\n")
    assert len(lines) == 2
    assert lines[1] == "INFO    id\\nforged\\x1b[2J finished   100 ms  na\\u202eme"


def test_a_banner_fits_the_columns_that_its_surroundings_have(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = _wrapped("jobs", ", ".join(f"shop.report_{number}" for number in range(20))).splitlines()
    assert len(lines) > 1
    assert all(len(INDENT + line) <= 60 for line in lines)
