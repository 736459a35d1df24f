"""The commands that read, `check`, settings that can't be used, and shell completion."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from redis import Redis

from packmule.config import VARIABLES
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, registry
from packmule.plain_text import mask
from packmule.tests.command_line import DEADLINE, CommandLine, Done, Run, complaint, environment_in
from packmule.tests.network import network


@pytest.fixture(scope="module")
def packmule(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Commands on the shared server, each in a process of its own."""
    home = tmp_path_factory.mktemp("shop")
    return CommandLine(home, environment_in(home, server.url))


@pytest.fixture
def here(packmule: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The same in this process."""
    return packmule.in_this_process(monkeypatch, capsys)


@pytest.fixture(scope="module")
def redis(server: EmbeddedServer) -> Iterator[Redis]:
    with connect(None, server.data_dir) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="module")
def jobs(packmule: CommandLine, redis: Redis) -> dict[str, str]:
    """Ids of a job that finished, one that failed, one that waits in its queue, and a scheduled one."""
    calls = {"finished": ("shop.add", "a=20", "b=22"), "failed": ("shop.boom",)}
    ids = {status: packmule.run("enqueue", "call", *call).stdout.strip() for status, call in calls.items()}
    done = packmule.run(
        "worker", "--burst", "--processes", "1", "--no-scheduler", PACKMULE_MAIL_URL="smtp://x"
    )
    assert done.returncode == 0, done.stderr
    ids["queued"] = packmule.run("enqueue", "call", "shop.add", "a=1").stdout.strip()
    ids["scheduled"] = packmule.run("enqueue", "call", "shop.add", "a=1", "--in", "1h").stdout.strip()
    return ids


def output(done: Done) -> str:
    """What a command that succeeded printed, having complained of nothing."""
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_a_job_is_shown_with_its_arguments_and_result(packmule: CommandLine, jobs: dict[str, str]) -> None:
    shown = output(packmule.run("job", "show", jobs["finished"]))
    facts = dict(re.findall(r"^(\w+) +(.*?) *$", shown, re.MULTILINE))
    assert facts["job"] == jobs["finished"]
    assert (facts["status"], facts["calls"], facts["result"]) == ("finished", "shop.add", "42")
    assert json.loads(facts["arguments"]) == {"a": 20, "b": 22}


def test_a_job_is_shown_as_json(packmule: CommandLine, jobs: dict[str, str]) -> None:
    record = json.loads(output(packmule.run("job", "show", jobs["finished"], "--json")))
    assert (record["id"], record["status"], record["result"]) == (jobs["finished"], "finished", 42)
    assert record["kwargs"] == {"a": 20, "b": 22}


def test_a_failure_is_shown_by_its_reason_and_on_request_by_its_traceback(
    here: Run, jobs: dict[str, str]
) -> None:
    shown = output(here("job", "show", jobs["failed"]))
    assert "ValueError: the shelf is empty" in shown
    assert "Traceback" not in shown
    shown = output(here("job", "show", jobs["failed"], "--traceback"))
    assert "Traceback" in shown
    assert 'raise ValueError("the shelf is empty")' in shown


def test_jobs_are_listed_by_queue_and_status(here: Run, jobs: dict[str, str]) -> None:
    listed = json.loads(output(here("job", "list", "--json")))
    assert {record["status"]: record["id"] for record in listed} == jobs
    assert json.loads(output(here("job", "list", "--queue", "low", "--json"))) == []
    for status, id in jobs.items():
        (record,) = json.loads(output(here("job", "list", "--status", status, "--json")))
        assert (record["id"], record["status"]) == (id, status)


def test_jobs_that_were_stopped_are_listed_alone_though_they_count_as_failed(
    here: Run, redis: Redis, jobs: dict[str, str]
) -> None:
    assert output(here("job", "list", "--status", "stopped")) == "no jobs\n"
    redis.hset(keys.job_key(jobs["failed"]), "status", "stopped")
    try:
        (record,) = json.loads(output(here("job", "list", "--status", "stopped", "--json")))
        assert (record["id"], record["status"]) == (jobs["failed"], "stopped")
        assert json.loads(output(here("status", "--json")))["queues"]["default"]["failed"] == 1
    finally:
        redis.hset(keys.job_key(jobs["failed"]), "status", "failed")


def test_the_list_of_jobs_is_a_table_whose_lines_hold_a_job_each(here: Run, jobs: dict[str, str]) -> None:
    header, *lines = output(here("job", "list")).splitlines()
    assert header.split() == ["job", "status", "queue", "when", "took", "calls"]
    assert {line.split()[1]: line.split()[0] for line in lines} == jobs
    assert output(here("job", "list", "--queue", "low")) == "no jobs\n"


def test_a_scheduled_job_is_listed_and_shown_with_the_time_at_which_it_runs(
    here: Run, jobs: dict[str, str]
) -> None:
    (listed,) = json.loads(output(here("job", "list", "--status", "scheduled", "--json")))
    due = datetime.fromisoformat(listed["due_at"]).timestamp()
    assert due - time.time() == pytest.approx(3600, abs=300)
    shown = json.loads(output(here("job", "show", jobs["scheduled"][:10], "--json")))
    assert shown["due_at"] == listed["due_at"]
    assert f"{listed['due_at'][:19]}Z" in output(here("job", "list", "--status", "scheduled"))
    (queued,) = json.loads(output(here("job", "list", "--status", "queued", "--json")))
    assert queued["due_at"] is None


def test_the_beginning_of_an_id_is_enough_and_that_of_several_names_them(
    here: Run, jobs: dict[str, str]
) -> None:
    assert jobs["failed"] in output(here("job", "show", f"{jobs['failed'][:8]}…"))
    assert "no job has the id abc" in complaint(here("job", "show", "abc"), 2)


def test_jobs_are_listed_by_name_error_time_argument_and_id(here: Run, jobs: dict[str, str]) -> None:
    def listed(*options: str) -> set[str]:
        return {each["id"] for each in json.loads(output(here("job", "list", "--json", *options)))}

    waiting = {jobs["queued"], jobs["scheduled"]}
    assert listed("--name", "add") == waiting | {jobs["finished"]}
    assert (
        listed("--error", "ValueError")
        == listed("--error", "ValueError", "--name", "shop.boom")
        == {jobs["failed"]}
    )
    assert listed("--arg", "a=20") == listed("--arg", "a=20", "--arg", "b=22") == {jobs["finished"]}
    assert listed("--arg", "a=1", "--status", "queued") == {jobs["queued"]}
    assert listed("--since", "1h") == listed("--until", "2100-01-01") == set(jobs.values())
    assert listed("--until", "1h") == listed("--name", "dd") == listed("--arg", "b=20") == set()
    assert listed("--id", jobs["failed"][:12]) == {jobs["failed"]}


def test_a_long_list_of_jobs_goes_on_at_its_cursor(here: Run, jobs: dict[str, str]) -> None:
    seen: list[str] = []
    after: list[str] = []
    for _ in jobs:
        done = here("job", "list", "--limit", "1", *after)
        seen += re.findall("[0-9a-f]{32}", done.stdout)
        after = re.findall(r"searched back to .*; for more: (--after) (\S+)\n", done.stderr)
        after = list(after[0]) if after else []
    assert sorted(seen) == sorted(jobs.values())
    assert not after


@pytest.mark.parametrize(
    "wrong", [("--since", "then"), ("--arg", "a"), ("--after", "x"), ("--queue", "nope"), ("--limit", "0")]
)
def test_a_filter_that_makes_no_sense_is_one_line(
    here: Run, jobs: dict[str, str], wrong: tuple[str, str]
) -> None:
    assert wrong[1] in complaint(here("job", "list", *wrong), 2)


def test_waiting_tells_how_a_job_ended(here: Run, packmule: CommandLine, jobs: dict[str, str]) -> None:
    assert output(here("job", "wait", jobs["finished"])) == "42\n"
    assert json.loads(output(here("job", "wait", jobs["finished"], "--json")))["status"] == "finished"
    said = complaint(packmule.run("job", "wait", jobs["failed"]), 1)
    assert jobs["failed"] in said
    assert "the shelf is empty" in said
    done = here("job", "wait", jobs["failed"], "--json")
    assert (done.returncode, json.loads(done.stdout)["status"]) == (1, "failed")


def test_waiting_gives_up_when_the_time_is_over(here: Run, jobs: dict[str, str]) -> None:
    said = complaint(here("job", "wait", jobs["queued"], "--timeout", "0.2s"), 1)
    assert jobs["queued"] in said
    assert "200 ms" in said


def test_whoever_waits_without_workers_is_told_how_to_start_one(here: Run, jobs: dict[str, str]) -> None:
    done = here("job", "wait", jobs["queued"], "--timeout", "2.5s")
    assert done.returncode == 1
    assert "no worker is running; start one with: packmule worker" in done.stderr


def test_queues_are_listed_with_their_depths(here: Run, packmule: CommandLine, jobs: dict[str, str]) -> None:
    depths = json.loads(output(packmule.run("queue", "list", "--json")))
    assert list(depths) == ["high", "default", "low"]
    assert {status: count for status, count in depths["default"].items() if count} == dict.fromkeys(jobs, 1)
    header, _, default, _ = output(here("queue", "list")).splitlines()
    assert dict(zip(header.split(), default.split(), strict=True))["failed"] == "1"


def test_queues_beyond_the_settings_are_listed_too(here: Run, jobs: dict[str, str]) -> None:
    depths = json.loads(output(here("queue", "list", "--json", PACKMULE_QUEUES="urgent")))
    assert list(depths) == ["urgent", "default"]


def test_status_tells_of_queues_workers_and_server(
    here: Run, packmule: CommandLine, jobs: dict[str, str], server: EmbeddedServer
) -> None:
    status = json.loads(output(packmule.run("status", "--json", PACKMULE_MEMORY_HIGH_WATER="1000")))
    assert status["queues"]["default"]["queued"] == 1
    assert status["workers"] == []
    assert status["server"]["server"] == "valkey"
    assert status["server"]["memory_bytes"] > status["server"]["memory_allowed_bytes"] == 1000
    said = output(here("status"))
    assert "no worker is running; start one with: packmule worker" in said
    assert "MiB, unlimited" in said
    assert f"{mask(server.url)}, valkey " in said  # which of several servers it is


def test_check_finds_all_well(packmule: CommandLine) -> None:
    report = json.loads(output(packmule.run("check", "--json")))
    assert report["findings"].keys() == {
        "variables",
        "modules",
        "schedules",
        "webhooks",
        "presets",
        "redis",
        "durability",
        "memory",
        "rights",
        "clock",
        "locks",
        "storage",
        "hosts",
        "isolation",
        "mail",
    }
    assert all(finding["ok"] for finding in report["findings"].values())
    assert re.search(r", a round trip takes \d+\.\d ms$", report["findings"]["redis"]["text"])
    assert report["findings"]["durability"]["text"] == (
        "ok, a crash of server or machine loses up to the last 2 s of jobs (appendfsync everysec); "
        "no replica is connected"
    )
    assert report["settings"]["queues"] == "high, default, low"
    assert report["origins"]["queues"] == "default"
    assert report["findings"]["rights"]["text"] == "ok, as default, who may do all that jobs need"
    assert report["findings"]["memory"]["text"].endswith(
        " used, without a limit, maxmemory-policy noeviction"
    )


def test_check_shows_how_far_the_server_is(packmule: CommandLine, server: EmbeddedServer) -> None:
    with network(server, 0.075) as far:
        report = json.loads(packmule.run("check", "--json", PACKMULE_REDIS_URL=far.url).stdout)
    trip = re.search(r"a round trip takes (\d+\.\d) ms", report["findings"]["redis"]["text"])
    assert trip is not None
    assert float(trip[1]) >= 150


def test_check_is_content_with_production_without_mail_but_says_so(packmule: CommandLine) -> None:
    report = json.loads(output(packmule.run("check", "--json", PACKMULE_ENV="production")))
    assert report["findings"]["mail"]["text"] == "PACKMULE_MAIL_URL is not set: e-mail jobs will fail"


def test_check_says_where_a_share_of_memory_has_no_effect(here: Run) -> None:
    def redis(**changes: str) -> str:
        return str(json.loads(here("check", "--json", **changes).stdout)["findings"]["redis"]["text"])

    assert redis(PACKMULE_MEMORY_HIGH_WATER="80%").endswith(
        "; PACKMULE_MEMORY_HIGH_WATER=80% has no effect: the server has no maxmemory"
    )
    assert "no effect" not in redis() + redis(PACKMULE_MEMORY_HIGH_WATER="6G")


def test_check_shows_every_variable_and_no_password(here: Run, server: EmbeddedServer) -> None:
    secrets = {
        "PACKMULE_REDIS_URL": f"unix://:s3cret@{server.socket_path}",
        "PACKMULE_MAIL_URL": "smtp://ada:s3cret@127.0.0.1:1",
    }
    for words in (("check",), ("check", "--json")):
        done = here(*words, **secrets)
        assert "s3cret" not in done.stdout + done.stderr
        assert "***" in done.stdout
    shown = here("check", **secrets).stdout
    assert all(variable in shown for variable, _ in VARIABLES.values())


def test_check_finds_each_fault(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})  # other tests' jobs have faulty schedules
    monkeypatch.setenv("PACKMULE_MODULS", "jobs")
    monkeypatch.setenv("PACKMULE_SERVICE_HOST", "10.0.0.1")  # as Kubernetes does
    done = here(
        "check",
        "--json",
        PACKMULE_MAIL_URL="smtp://127.0.0.1:1",
        PACKMULE_MODULES="gone.jobs",
        PACKMULE_WEBHOOKS="gone.toml",
        PACKMULE_PRESETS="presets.toml",
        PACKMULE_PIPELINES="pipelines.toml",
    )
    findings = json.loads(done.stdout)["findings"]
    assert done.returncode == 1
    assert {name for name, finding in findings.items() if not finding["ok"]} == {
        "modules",
        "mail",
        "variables",
        "webhooks",
        "presets",
        "pipelines",
    }
    assert findings["variables"]["text"] == (
        "FAULT: PACKMULE_MODULS is no setting: did you mean PACKMULE_MODULES?"
    )
    assert "gone.jobs" in findings["modules"]["text"]
    assert "gone.toml" in findings["webhooks"]["text"]
    assert findings["presets"]["text"] == "FAULT: presets.toml: no such file or directory"


def test_check_tells_which_locks_there_are(here: Run, server: EmbeddedServer) -> None:
    def locks(*urls: str) -> str:
        done = here("check", "--json", PACKMULE_LOCK_URLS=",".join(urls))
        assert "s3cret" not in done.stdout + done.stderr
        return str(json.loads(done.stdout)["findings"]["locks"]["text"])

    gone = "redis://:s3cret@127.0.0.1:1"
    assert locks() == "ok, the job server is the only lock node"
    assert locks(server.url) == "ok, 1 of 1 lock nodes can vote"
    assert locks(server.url, gone, "unix:///gone").startswith(
        "FAULT: no majority of the lock nodes can vote: 127."
    )


def test_check_ends_with_exit_code_3_where_redis_cannot_be_reached(here: Run) -> None:
    done = here("check", "--json", PACKMULE_REDIS_URL="redis://:s3cret@127.0.0.1:1/0")
    finding = json.loads(done.stdout)["findings"]["redis"]
    assert done.returncode == 3
    assert not finding["ok"]
    assert "redis://:***@127.0.0.1:1/0" in finding["text"]
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("job", "show", "gone"), ("gone", "check it")),
        (("job", "wait", "gone"), ("gone", "check it")),
        (("job", "list", "--queue", "hihg"), ("'hihg'", "high, default, low", "PACKMULE_QUEUES")),
        (("job", "list", "--status", "done"), ("'done'", "'finished'", "packmule job list --help")),
        (("job", "wait", "gone", "--timeout", "long"), ("--timeout", "'long'", "1h30m")),
        (("job", "show"), ("ID", "packmule job show --help")),
        (("queue", "lst"), ("'lst'",)),
    ],
)
def test_a_usage_error_is_one_line(here: Run, words: tuple[str, ...], told: tuple[str, ...]) -> None:
    said = complaint(here(*words), 2)
    assert all(each in said for each in told), said


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("PACKMULE_PROCESSES", "two", "whole number"),
        ("PACKMULE_GRACE", "-1", "not a duration"),
        ("PACKMULE_PORT", "99999", "1 to 65535"),
        ("PORT", "http", "1 to 65535"),
        ("PACKMULE_ENV", "prod", "production"),
        ("PACKMULE_ALLOW_EVICTION", "maybe", "1 or 0"),
        ("PACKMULE_MAX_JOB_BYTES", "0", "not a size"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(here: Run, variable: str, value: str, told: str) -> None:
    said = complaint(here("status", **{variable: value}), 2)
    assert f"{variable}='{value}'" in said
    assert told in said


@pytest.mark.parametrize(
    "words", [("status",), ("queue", "list"), ("job", "list"), ("job", "show", "x"), ("job", "wait", "x")]
)
def test_every_reading_command_ends_with_exit_code_3_without_redis(here: Run, words: tuple[str, ...]) -> None:
    assert "unix:///nowhere" in complaint(here(*words, PACKMULE_REDIS_URL="unix:///nowhere"), 3)


def test_something_else_than_redis_at_the_url_is_told_in_one_line(packmule: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with packmule.started("status", PACKMULE_REDIS_URL=f"redis://127.0.0.1:{port}") as status:
            while status.poll() is None:
                try:
                    listening.settimeout(0.1)
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            out, err = status.communicate(timeout=DEADLINE)
    said = complaint(Done((), status.returncode, out, err), 3)
    assert f"127.0.0.1:{port}" in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion_script(packmule: CommandLine, shell: str) -> None:
    script = packmule.run(_PACKMULE_COMPLETE=f"{shell}_source").stdout
    assert f"_PACKMULE_COMPLETE={shell}_complete" in script
    assert "packmule" in script


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("packmule enqueue e", {"email"}),
        ("packmule worker -q ", {"urgent", "high"}),
        ("packmule job list --queue u", {"urgent"}),
        ("packmule enqueue call shop.", {"shop.add", "shop.boom"}),
        ("packmule enqueue image --fit c", {"contain", "cover"}),
    ],
)
def test_words_are_completed(packmule: CommandLine, typed: str, offered: set[str]) -> None:
    done = packmule.run(
        COMP_WORDS=typed,
        COMP_CWORD=str(typed.count(" ")),
        _PACKMULE_COMPLETE="bash_complete",
        PACKMULE_QUEUES="urgent,high",
    )
    assert {line.partition(",")[2] for line in output(done).splitlines()} == offered


def test_completion_stays_silent_where_settings_or_modules_are_broken(packmule: CommandLine) -> None:
    typed = {"COMP_CWORD": "3", "_PACKMULE_COMPLETE": "bash_complete"}
    for words, broken in (
        ("packmule worker -q ", {"PACKMULE_PROCESSES": "two"}),
        ("packmule enqueue call ", {"PACKMULE_MODULES": "gone.jobs"}),
    ):
        done = packmule.run(COMP_WORDS=words, **typed, **broken)
        assert (done.stdout.strip(), done.stderr) == ("", "")


def test_status_warns_of_workers_of_a_queue_that_know_different_jobs(packmule, client):
    def register(name: str, jobs: str, queues: str = "high,default") -> None:
        client.hset(f"rq:worker:{name}", mapping={"state": "idle", "queues": queues, "jobs": jobs})
        client.sadd("rq:workers", f"rq:worker:{name}")

    register("a", "1f")
    register("b", "1f")
    register("c", "2e", queues="low")
    assert "different jobs" not in packmule.output("status")
    register("d", "2e", queues="default")
    said = " ".join(packmule.output("status").split())
    assert "a and d know different jobs for the queue default" in said
    assert "give each its own database" in said
