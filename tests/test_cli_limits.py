"""`packmule limits`, `queue list` and `status`: what jobs wait for, and slots released by hand."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, reader
from packmule.observe.blocked import behind, waiting
from packmule.tests.command_line import CommandLine, Done, Run, complaint, environment_in, until
from packmule.tests.pace import pace
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed

MORE = """
import time


@job(singleton="{account}")
def settle(account: int, seconds: float = 0.0) -> None:
    time.sleep(seconds)


@job(rate="6/h burst 1 by {domain}", concurrency="2 by {domain}", fair="{tenant}")
def crawl(domain: str, tenant: int) -> None: ...
"""
KEY = "shop.settle:7"


@pytest.fixture
def packmule(server: EmbeddedServer, client: Redis, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    home = tmp_path_factory.mktemp("shop")
    return CommandLine(home, environment_in(home, server.url, MORE))


@pytest.fixture
def here(packmule: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return packmule.in_this_process(monkeypatch, capsys)


@pytest.fixture
def enqueue(packmule: CommandLine) -> Callable[..., str]:
    return lambda *call: packmule.output("enqueue", "call", *call)


def claim(client: Redis, worker: str = "w1") -> list[Claimed]:
    claims = Claims(client, worker, Strict(["default"]))
    return claims.finish_and_claim(claims.next_id(), [], 10).jobs


def output(done: Done) -> str:
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_without_groups_it_says_so(here: Run) -> None:
    assert output(here("limits")) == "no group of jobs is waiting\n"
    assert json.loads(output(here("limits", "--json"))) == {"groups": [], "of": 0, "holders": [], "rates": {}}


def test_a_job_tells_what_it_waits_for(
    packmule: CommandLine, here: Run, client: Redis, enqueue: Callable[..., str]
) -> None:
    first, second, third = [enqueue("shop.settle", "account=7") for _ in range(3)]

    def waits_for(id: str) -> str | None:
        lines = output(here("job", "show", id)).splitlines()
        return next((line.removeprefix("waits for").strip() for line in lines if "waits for" in line), None)

    assert waits_for(first) is None
    assert waits_for(third) == "2 of its group; the first for its turn"
    assert [job.id for job in claim(client)] == [first]
    assert claim(client, "w2") == []
    assert waits_for(first) is None
    held = f"a slot of {KEY}, held by job {first} on w1"
    assert waits_for(second) == held
    assert waits_for(third) == f"1 of its group; the first for {held}"
    packmule.output("queue", "limit", "default", "6/h")
    packmule.output("queue", "pause", "default")
    assert waits_for(second) == f"its queue, which is paused; {held}; its queue's rate, 6/h"
    wait = json.loads(output(here("job", "show", third, "--json")))["wait"]
    assert (wait["is_paused"], wait["before"], wait["group"]["job"]) == (True, 1, second)
    assert [line.split() for line in output(here("limits")).splitlines()[3:5]] == [
        ["queue", "rate"],
        ["default", "6/h"],
    ]


def test_a_waiting_singleton_is_told_who_holds_it(
    packmule: CommandLine, here: Run, client: Redis, enqueue: Callable[..., str]
) -> None:
    first, *rest = [enqueue("shop.settle", "account=7") for _ in range(3)]
    assert [job.id for job in claim(client)] == [first]
    assert claim(client, "w2") == []
    done = packmule.run("limits")
    group, _, slots, holder = output(done).splitlines()[1:]
    assert group.split() == (
        f"default one at a time: {KEY} 2 a slot of {KEY}, held by job {first} on w1".split()
    )
    assert slots.split() == ["job", "worker", "claim", "slot"]
    assert holder.split() == [first, "w1", "alive", KEY]
    found = json.loads(output(here("limits", "--json")))
    assert found["groups"][0] | {"seconds": None} == {
        "queue": "default",
        "name": f"lock {KEY}",
        "limits": [
            {"kind": "singleton", "key": KEY, "most": 1, "interval": 0.0, "cost": None, "per_host": False}
        ],
        "job": rest[0],
        "waiting": 2,
        "waits_for": "slot",
        "lacks": KEY,
        "seconds": None,
    }
    assert json.loads(output(here("limits", "--json", "--queue", "low"))) == {
        "groups": [],
        "of": 0,
        "holders": [],
        "rates": {},
    }


def test_a_limited_group_is_told_its_time_and_its_limits_in_words(
    here: Run, client: Redis, enqueue: Callable[..., str]
) -> None:
    for _ in range(3):
        enqueue("shop.crawl", "domain=a.example", "tenant=1")
    assert "its turn" in output(here("limits"))
    assert len(claim(client)) == 1
    shown = output(here("limits"))
    assert (
        "turns: shop.crawl:1, 2 at a time: shop.crawl:a.example, one in 10 min: shop.crawl:a.example" in shown
    )
    (group,) = json.loads(output(here("limits", "--json")))["groups"]
    assert (group["waits_for"], group["waiting"]) == ("time", 2)
    assert 590 < group["seconds"] <= 600


def test_a_slot_is_released_only_from_a_worker_that_is_gone_unless_forced(
    packmule: CommandLine, here: Run, client: Redis, enqueue: Callable[..., str]
) -> None:
    first, second, third = [enqueue("shop.settle", "account=7") for _ in range(3)]
    claim(client)
    claim(client, "w2")
    said = complaint(packmule.run("limits", "release", KEY, first), 1)
    assert f"job {first} runs on worker w1: cancel it" in said
    assert "--force" in said
    assert claim(client, "w2") == []
    client.delete(keys.claims_key("w1"))
    assert output(here("limits")).split()[-2] == "gone"
    assert output(packmule.run("limits", "release", KEY, first)).startswith(f"{KEY} released: job {first}")
    assert [job.id for job in claim(client, "w2")] == [second]  # the group goes on
    claim(client, "w3")
    assert output(here("limits", "release", KEY, second, "--force"))
    assert [job.id for job in claim(client, "w3")] == [third]


def test_a_slot_that_nobody_holds_is_a_mistake(here: Run) -> None:
    for words in ((KEY, "nobody"), ("", ""), ("a\nb", "c")):
        assert "holds no slot of" in complaint(here("limits", "release", *words), 1)
    assert "'KEY'" in complaint(here("limits", "release"), 2)
    assert "hihg" in complaint(here("limits", "--queue", "hihg"), 2)
    assert "unix:///nowhere" in complaint(here("limits", PACKMULE_REDIS_URL="unix:///nowhere"), 3)


def test_a_real_pools_running_singleton_holds_up_the_next(
    packmule: CommandLine, client: Redis, enqueue: Callable[..., str]
) -> None:
    first, second = [enqueue("shop.settle", "account=7", "seconds=60") for _ in range(2)]
    with packmule.started("worker", "--processes", "2", "--no-scheduler", stderr=subprocess.DEVNULL):
        until(lambda: reader.read(client, first).status == "started", "the job to start")
        until(
            lambda: "held by job" in output(packmule.run("limits")),
            "the second to be blocked behind the first",
        )
        assert second not in output(packmule.run("limits")).splitlines()[-1]


def test_keys_of_another_kind_stop_nothing(here: Run, client: Redis, enqueue: Callable[..., str]) -> None:
    enqueue("shop.settle", "account=7")
    (job,) = claim(client)
    enqueue("shop.settle", "account=7")
    client.set("pm:group:default:odd", "x")
    client.hset("pm:groups:default", "odd", "")
    client.set("pm:groups:low", "x")
    client.hset(keys.job_key(job.id), "limits", '{"no": "list"}')
    client.hset(f"pm:holders:{KEY}", "odd", "nonsense")
    client.delete("pm:due")
    client.set("pm:due", "x")
    assert output(here("limits"))
    assert output(here("queue", "list"))


def test_ten_thousand_groups_are_read_fast_and_the_largest_are_shown(client: Redis, here: Run) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for number in range(10_000):
            group = f"fair shop.crawl:{number}"
            pipeline.hset(keys.groups_key("default"), group, f"head{number}")
            pipeline.rpush(keys.group_key("default", group), *"abc"[: 1 + (number == 77)])
        pipeline.execute()
    before = time.monotonic()
    with pace() as second:
        found = waiting(client, ["default"], 20)
    assert time.monotonic() - before < 3 * second()
    assert (len(found.groups), found.of) == (20, 10_000)
    assert (found.groups[0].name, found.groups[0].waiting) == ("fair shop.crawl:77", 3)
    assert behind(client, ["default", "low"]) == {"default": 10_001, "low": 0}
    assert "the 1 largest of 10,000 groups" in output(here("limits", "--limit", "1"))


def test_queues_tell_that_they_are_paused_and_how_many_wait_behind_others(
    here: Run, enqueue: Callable[..., str]
) -> None:
    for _ in range(3):
        enqueue("shop.settle", "account=7")
    assert output(here("queue", "pause", "low")) == "low paused\n"
    found = json.loads(output(here("queue", "list", "--json")))
    assert (found["default"]["queued"], found["default"]["behind"]) == (1, 2)
    assert {name: queue["paused"] for name, queue in found.items()} == {
        "high": False,
        "default": False,
        "low": True,
    }
    header, _, default, low = output(here("queue", "list")).splitlines()
    assert dict(zip(header.split(), default.split(), strict=True))["behind"] == "2"
    assert dict(zip(header.split(), low.split(), strict=True))["paused"] == "yes"
    assert json.loads(output(here("status", "--json")))["queues"] == found
    assert header in output(here("status"))


@pytest.fixture(autouse=True)
def nothing_left(server: EmbeddedServer) -> Iterator[None]:
    yield
    with connect(None, server.data_dir) as client:
        client.flushall()
