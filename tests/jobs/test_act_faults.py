"""Acts under faults: killed before, in and after, a reply lost, and another who does the same at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from packmule import Flow
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import acts, control, keys, reader
from packmule.jobs.acts import Became
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.jobs.copying import copy
from packmule.jobs.job_filter import JobFilter
from packmule.jobs.search import search
from packmule.tests.command_line import until
from packmule.tests.fork_server import Forked
from packmule.tests.jobs import sample_jobs
from packmule.tests.jobs.ending import end
from packmule.tests.losing_proxy import LosingProxy
from packmule.tests.model import keyspace
from packmule.tests.model.invariants import Allowed, violations
from packmule.tests.worker import limited_jobs, pool_jobs, weighted_jobs
from packmule.tests.worker.pools import children_of, pool
from packmule.worker.process import outcome, performer
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.statistics import MOST_AN_ENTRY

pytestmark = pytest.mark.usefixtures("produce")

JOBS = 400
STATUSES = {"retry": "failed", "run": "scheduled", "cancel": "queued", "delete": "queued"}
"""By act, the status of the jobs that it is for."""

BECOMES = {"retry": "queued", "run": "queued", "cancel": "canceled", "delete": None}
"""By act, their status when it is done."""

every_act = pytest.mark.parametrize("name", acts.ACTS)


def prepare(claims: Claims, name: str, count: int) -> list[str]:
    """Jobs that the act is for: of a batch, of a limited group, unique ones, and others."""
    delay = 3600 if name == "run" else None
    batch = Batch.create(keep=1000)
    ids = list(sample_jobs.noop.options(delay=delay, batch=batch.id).enqueue_many([()] * (count // 4)))
    ids += sample_jobs.add.options(delay=delay, unique=True).enqueue_many([(n,) for n in range(count // 4)])
    limited = limited_jobs.two_a_tenant.options(delay=delay)
    ids += limited.enqueue_many([("x", "y", f"{n % 5}") for n in range(count // 4)])
    ids += sample_jobs.noop.options(delay=delay, queue="low").enqueue_many([()] * (count - len(ids)))
    batch.seal()
    if name == "retry":
        end(claims, "ValueError: no", times=count)
    return ids


def states(client: Redis, ids: list[str]) -> list[str | None]:
    return [info and info.status for info in reader.read_many(client, ids)]


def wrong(client: Redis) -> list[str]:
    """What is half-done; a worker of tests holds no claims."""
    return list(violations(keyspace.read(client), Allowed()))


@contextmanager
def acting(server: EmbeddedServer, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process that acts on all jobs."""
    process = Forked(
        ["packmule.tests.jobs.act_process", str(server.data_dir), name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@every_act
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_an_act_that_is_killed_leaves_each_job_done_or_untouched_and_can_be_said_again(
    server: EmbeddedServer, client: Redis, claims: Claims, name: str, share: float
) -> None:
    ids = prepare(claims, name, JOBS)
    before, after = STATUSES[name], BECOMES[name]
    with acting(server, name) as process:
        until(lambda: states(client, ids).count(after) >= share * JOBS, "a part of the act")
        process.kill()
        process.wait()
    assert set(states(client, ids)) <= {before, after}
    assert wrong(client) == []
    for _ in range(2):
        acts.act(client, name, JobFilter(status=before))
        assert states(client, ids) == [after] * JOBS
        assert wrong(client) == []


@every_act
def test_two_who_act_at_once_do_it_once_to_each_job(
    server: EmbeddedServer, client: Redis, claims: Claims, name: str
) -> None:
    ids = prepare(claims, name, JOBS)
    with acting(server, name) as first, acting(server, name) as second:
        counts = [list(map(int, each.communicate(timeout=60)[0].split())) for each in (first, second)]
    assert states(client, ids) == [BECOMES[name]] * JOBS
    assert wrong(client) == []
    if name != "cancel":  # to be canceled already is no refusal
        assert sum(done for done, _ in counts) == JOBS
    if name == "retry":
        assert sorted(end(claims, times=2 * JOBS)) == sorted(ids)


@contextmanager
def losing(server: EmbeddedServer, tmp_path: Path, on_loss: Callable[[], object]) -> Iterator[Redis]:
    """A client that loses the reply to its next script, after which something else happens."""
    proxy = LosingProxy(tmp_path / "proxy", Path(server.socket_path))
    try:
        with connect(proxy.url, tmp_path) as client:
            client.ping()
            proxy.on_loss, proxy.to_lose = on_loss, 1
            yield client
            assert proxy.lost == 1
    finally:
        proxy.close()


@every_act
@pytest.mark.parametrize("goes_on", [False, True])
def test_an_act_whose_reply_is_lost_did_what_it_says(
    server: EmbeddedServer, client: Redis, claims: Claims, tmp_path: Path, name: str, goes_on: bool
) -> None:
    ids = prepare(claims, name, 8)
    acts.ACTS[name].do(client, ["nobody"])  # so that the server knows the script
    worked = []
    on_loss = (lambda: worked.extend(end(claims, "KeyError: 'b'"))) if goes_on else (lambda: None)
    with losing(server, tmp_path, on_loss) as far:
        assert acts.ACTS[name].do(far, ids) == [None] * 8
    assert wrong(client) == []
    if goes_on and BECOMES[name] == "queued":
        assert sorted(worked) == sorted(ids)  # once each: they failed again, and were not retried for that
        assert states(client, ids) == ["failed"] * 8
    else:
        assert states(client, ids) == [BECOMES[name]] * 8


def test_a_copy_whose_reply_is_lost_is_enqueued_once(
    server: EmbeddedServer, client: Redis, tmp_path: Path
) -> None:
    id = sample_jobs.add.enqueue(1, b=2)
    with losing(server, tmp_path, lambda: None) as far:
        new = copy(Client(far), id, {"b": 3})
    assert client.lrange(keys.queue_key("default"), 0, -1) == [id.encode(), new.encode()]


def test_a_copy_with_a_chosen_id_can_be_said_again(client: Redis, claims: Claims) -> None:
    id = sample_jobs.add.enqueue(1, b=2)
    for _ in range(2):
        assert copy(Client(client), id, {"b": 3}, new_id="again") == "again"
    assert end(claims) == [id, "again"]
    assert copy(Client(client), id, {"b": 3}, new_id="again") == "again"
    assert end(claims) == []


@pytest.mark.parametrize("seed", range(3))
def test_the_index_and_the_records_agree_after_acts_at_random(
    client: Redis, claims: Claims, seed: int
) -> None:
    dice = random.Random(seed)
    ids: list[str] = []
    for _ in range(60):
        match dice.choice(["enqueue", "finish", "fail", "retry", "delete", "cancel", "run"]):
            case "enqueue":
                delay = dice.choice([None, 3600])
                ids += sample_jobs.noop.options(delay=delay).enqueue_many([()] * dice.randint(1, 5))
            case "finish":
                end(claims, times=dice.randint(1, 4))
            case "fail":
                end(claims, "ValueError: no", times=dice.randint(1, 4))
            case act if ids:
                acts.ACTS[act].do(client, dice.sample(ids, min(3, len(ids))))
    claims.send_statistics()
    there = {id for id in ids if client.exists(keys.job_key(id))}
    for status in ("finished", "failed", "queued", "scheduled", "canceled"):
        expected = {id for id in there if reader.read(client, id).status == status}
        page = search(client, JobFilter(status=status), limit=1000)
        assert [len(page.jobs), {info.id for info in page.jobs}] == [len(expected), expected]
    assert control.delete_each(client, list(there)) == [None] * len(there)
    assert search(client).jobs == []
    assert wrong(client) == []


def test_failures_are_in_the_index_whatever_process_is_killed(
    server: EmbeddedServer, client: Redis, tmp_path: Path
) -> None:
    with pool(server, 2) as process:
        until(lambda: len(children_of(process.pid)) == 2, "the workers")
        wrong_calls = list(pool_jobs.give_up.enqueue_many([(str(tmp_path / "notes"),)] * 300))
        fine = list(pool_jobs.add.enqueue_many([(1,)] * 300))
        for part in (0.2, 0.6):
            until(lambda part=part: client.zcard("rq:failed:default") >= part * 300, "failures")
            os.kill(children_of(process.pid)[0], signal.SIGKILL)
        until(lambda: client.zcard("rq:failed:default") == 300, "all failures")
        until(lambda: client.zcard("rq:finished:default") == 300, "all ends")
    client.delete("rq:failed:default")
    assert found(client, JobFilter(status="failed")) == sorted(wrong_calls)
    assert found(client, JobFilter(error="KeyError")) == sorted(wrong_calls)
    finished = found(client, JobFilter(status="finished"))
    assert len(finished) == len({*finished} & {*fine})
    assert len(finished) >= 300 - 2 * 2 * MOST_AN_ENTRY  # those that the killed workers had yet to name


def found(client: Redis, wanted: JobFilter) -> list[str]:
    """The ids of all pages, sorted; one that comes twice is there twice."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = search(client, wanted, cursor=cursor)
        ids += (info.id for info in page.jobs)
        if (cursor := page.cursor) is None:
            return sorted(ids)


def test_results_of_a_job_that_was_retried_and_then_canceled_expire_with_it(
    client: Redis, claims: Claims
) -> None:
    id = sample_jobs.noop.enqueue()
    end(claims, "ValueError: no")
    assert acts.perform(client, "retry", [id]) == acts.perform(client, "cancel", [id]) == [Became(id, None)]
    assert 0 < client.pexpiretime(keys.results_key(id)) <= client.pexpiretime(keys.job_key(id))


def enqueue_something(dice: random.Random) -> list[str]:
    """Jobs of some kind: limited, weighted, singletons, unique, of a batch or a flow, or with a priority."""
    delay = dice.choice([None, None, 3600])
    ids: list[str] = []
    match dice.randrange(8):
        case 0:
            costs = [(dice.choice([1, 40, 99]), dice.choice("ab")) for _ in range(3)]
            ids += weighted_jobs.decode.options(delay=delay).enqueue_many(costs)
        case 1:
            calls = [("x", "y", dice.choice("zw")) for _ in range(3)]
            ids += limited_jobs.two_a_tenant.options(delay=delay).enqueue_many(calls)
        case 2:
            ids += [limited_jobs.replaces.options(delay=delay).enqueue("p", dice.choice("12"))]
        case 3:
            with Batch.create(on_complete=sample_jobs.noop.prepare(), keep=1000) as batch:
                member = sample_jobs.add.options(batch=batch.id, delay=delay)
                ids += member.enqueue_many([(1,), (2,)])
        case 4:
            with Flow() as flow:
                first = flow.add(sample_jobs.add.prepare(1))
                second = flow.add(sample_jobs.noop.prepare(), after=first)
                ids += [first, second, flow.add(sample_jobs.noop.prepare(), after=[first, second])]
        case 5:
            ids += [sample_jobs.noop.options(unique=True, delay=delay).enqueue()]
        case 6:
            ids += [sample_jobs.noop.options(priority=dice.choice([-50, 50]), delay=delay).enqueue()]
        case _:
            alone = weighted_jobs.decode_alone.options(delay=delay)
            ids += [alone.enqueue(dice.choice("pq"), dice.choice([10, 60]))]
    return ids


@pytest.mark.parametrize("seed", [15, 32, 33, 149, 161])
def test_acts_at_random_on_jobs_of_all_kinds_leave_nothing_half_done(
    client: Redis, claims: Claims, seed: int
) -> None:
    dice = random.Random(seed)
    ids: list[str] = []
    held: list[Claimed] = []
    said: list[object] = []
    for _ in range(60):
        match dice.choice("eeeeecccfffaaaaaaaa"):
            case "e":
                ids += enqueue_something(dice)
            case "c":
                held += claims.finish_and_claim(claims.next_id(), [], dice.randrange(1, 4)).jobs
            case "f" if held:
                job = held.pop(dice.randrange(len(held)))
                ended = (
                    outcome.failed(job, "ValueError: no", 1.0, 2.0)
                    if dice.random() < 0.5
                    else performer.finished(job, b"1", 1.0, 2.0)
                )
                claims.finish_and_claim(claims.next_id(), [ended], 0)
            case "a" if ids:
                name = dice.choice(list(acts.ACTS))
                said.append(
                    (name, acts.perform(client, name, dice.sample(ids, min(len(ids), 3)), timeout=-1))
                )
        assert wrong(client) == [], said[-5:]
