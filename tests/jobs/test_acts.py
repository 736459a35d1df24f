"""Acts on one job and on many: what they do, what they leave alone, and what follows for others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import NoneType

import pytest
from redis import Redis
from rq import Callback, Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.jobs import acts, control, keys, places, reader
from packmule.jobs.acts import Acted, Found, act
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.jobs.control import NotDeleted, NotRun
from packmule.jobs.copying import copy
from packmule.jobs.job_filter import InvalidFilter, JobFilter
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.places import Position
from packmule.jobs.reader import NoSuchJob
from packmule.jobs.registry import NotRegistered
from packmule.tests.jobs import sample_jobs
from packmule.tests.jobs.ending import end
from packmule.tests.worker import limited_jobs
from packmule.worker.process.claim import Claims
from packmule.worker.scoreboard import RunningJob
from packmule.worker.started import Marks

pytestmark = pytest.mark.usefixtures("produce")


def start(claims: Claims) -> str:
    (job,) = claims.finish_and_claim(claims.next_id(), [], 1).jobs
    Marks(claims.client).mark("w1", [RunningJob(0, job.id, job.execution, 0.0, float("inf"), False)], 1.0)
    return job.id


def left(client: Redis, id: str) -> list[str]:
    """The keys that still name or hold a job, but for streams."""
    found = []
    for key in sorted(key.decode() for key in client.scan_iter(count=1000)):
        match client.type(key):
            case b"list":
                held = [each.decode() for each in client.lrange(key, 0, -1)]
            case b"zset":
                held = [each.decode() for each in client.zrange(key, 0, -1)]
            case b"hash":
                held = [word.decode() for pair in client.hgetall(key).items() for word in pair]
            case _:
                held = []
        if id in key or any(word.partition(" ")[0] == id for word in held):
            found.append(key)
    return found


def test_a_scheduled_job_runs_now(client, claims):
    id = sample_jobs.add.options(delay=3600).enqueue(1)
    control.run_now(client, id)
    assert reader.read(client, id).status == "queued"
    with pytest.raises(NotRun, match="is queued"):
        control.run_now(client, id)
    assert end(claims) == [id]
    with pytest.raises(NotRun, match="is finished"):
        control.run_now(client, id)
    with pytest.raises(NoSuchJob):
        control.run_now(client, "nope")


def test_a_job_that_waits_for_its_retry_runs_now_with_its_attempts(client, claims):
    sample_jobs.noop.options(retries=1, retry_intervals=[3600]).enqueue()
    (id,) = end(claims, "ValueError: no")
    assert reader.read(client, id).status == "scheduled"
    control.run_now(client, id)
    assert (reader.read(client, id).attempts, reader.read(client, id).retries_left) == (1, 0)
    assert end(claims) == [id]


def test_a_job_that_runs_now_keeps_its_place_in_its_group(client, claims):
    first, later = (
        limited_jobs.two_a_tenant.options(delay=delay).enqueue("x", "y", "z") for delay in (None, 60)
    )
    control.run_now(client, later)
    assert client.lrange(keys.queue_key("default"), 0, -1) == [first.encode()]
    assert end(claims) == [first, later]


def test_a_job_that_sleeps_in_a_step_is_not_woken(client):
    id = sample_jobs.noop.options(delay=3600).enqueue()
    client.hset(keys.job_key(id), "waits", "sleep:a 9999999999")
    with pytest.raises(NotRun, match="sleeps in a step"):
        control.run_now(client, id)
    assert client.zscore("rq:scheduled:default", id)


def test_an_act_that_was_interrupted_can_be_repeated(client, claims, monkeypatch):
    ids = sample_jobs.noop.enqueue_many([()] * 250)
    end(claims, "ValueError: no", times=250)
    seen, interrupted = Acted(), acts.look

    def interrupt(*given: object) -> object:
        if seen.done >= 100:
            raise KeyboardInterrupt
        return interrupted(*given)

    monkeypatch.setattr(acts, "look", interrupt)
    with pytest.raises(KeyboardInterrupt):
        act(client, "delete", JobFilter(error="ValueError"), acted=seen)
    monkeypatch.undo()
    assert (seen.done, sum(client.exists(keys.job_key(id)) for id in ids)) == (100, 150)
    assert act(client, "delete", JobFilter(error="ValueError")).done == 150
    assert client.zcard("rq:failed:default") == 0


def test_a_job_scheduled_behind_its_callback_does_not_run_before(client, claims):
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    here = "packmule.tests.worker.callback_jobs"
    id = queue.enqueue(f"{here}.body", on_failure=Callback(f"{here}.failed"), retry=None).id
    client.hset(keys.job_key(id), mapping={"retries_left": 1, "retry_intervals": "[60]"})
    end(claims, "ValueError: no", times=1)
    assert reader.read(client, id).status == "scheduled"
    with pytest.raises(NotRun, match="callback"):
        control.run_now(client, id)
    with pytest.raises(NotDeleted, match="callback"):
        control.delete(client, id)


@pytest.mark.parametrize(
    "state", ["queued", "scheduled", "finished", "failed", "canceled", "behind", "with priority"]
)
def test_a_deleted_job_leaves_nothing_behind(client, claims, state):
    options = {"scheduled": {"delay": 60}, "with priority": {"priority": 50}}.get(state, {})
    id = sample_jobs.noop.options(unique_ttl=60, **options).enqueue()
    if state == "behind":
        id = [limited_jobs.two_a_tenant.enqueue("x", "y", "z") for _ in range(2)][1]
    if state in ("finished", "failed"):
        end(claims, "" if state == "finished" else "ValueError: no")
    if state == "canceled":
        control.cancel(client, id)
    control.delete(client, id)
    assert left(client, id) == []
    with pytest.raises(NoSuchJob):
        control.delete(client, id)
    if state == "behind":
        assert len(end(claims)) == 2  # the job in front and the unique one


def test_a_job_that_runs_is_not_deleted(client, claims):
    for begin in (lambda: claims.finish_and_claim(claims.next_id(), [], 1).jobs[0].id, lambda: start(claims)):
        sample_jobs.noop.enqueue()
        id = begin()
        with pytest.raises(NotDeleted, match="a worker has it"):
            control.delete(client, id)
        assert client.exists(keys.job_key(id))


def test_a_job_that_rq_canceled_while_it_runs_is_not_deleted(client, claims):
    sample_jobs.noop.enqueue()
    id = start(claims)
    Job.fetch(id, client, JSONSerializer).cancel()
    with pytest.raises(NotDeleted, match="a worker has it"):
        control.delete(client, id)


def test_a_job_that_others_wait_for_is_not_deleted_and_those_are(client):
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    first = queue.enqueue("packmule.tests.jobs.sample_jobs.noop")
    second = queue.enqueue("packmule.tests.jobs.sample_jobs.noop", depends_on=first)
    with pytest.raises(NotDeleted, match="other jobs wait"):
        control.delete(client, first.id)
    control.delete(client, second.id)
    control.delete(client, first.id)
    assert left(client, first.id) == left(client, second.id) == []


def test_a_batch_counts_deleted_jobs_once_and_ends(client, claims):
    with Batch.create(on_complete=sample_jobs.noop.prepare()) as batch:
        ids = sample_jobs.add.options(batch=batch.id).enqueue_many([(number,) for number in range(3)])
    end(claims, times=1)
    for id in ids:
        control.delete(client, id)
    fields = client.hgetall(keys.batch_key(batch.id))
    assert (fields[b"done"], fields[b"canceled"], b"ended" in fields) == (b"1", b"2", True)
    assert len(end(claims)) == 1  # the callback


def test_many_jobs_are_retried_by_their_error_and_the_others_left_alone(client, claims):
    sample_jobs.add.enqueue_many([{"a": each} for each in range(250)])
    wrong = end(claims, "ValueError: no", times=230)
    others = end(claims, "KeyError: 'a'")
    dry = act(client, "retry", JobFilter(name="add", error="ValueError"), dry_run=True)
    assert (dry.matched, dry.done, len(dry.examples)) == (230, 0, 5)
    assert set(dry.examples) < set(wrong)
    assert {reader.read(client, id).status for id in wrong} == {"failed"}
    acted = act(client, "retry", JobFilter(name="add", error="ValueError"))
    assert (acted.matched, acted.done, dict(acted.refused)) == (230, 230, {})
    assert {reader.read(client, id).status for id in wrong} == {"queued"}
    assert {reader.read(client, id).status for id in others} == {"failed"}
    assert act(client, "retry", JobFilter(error="ValueError")) == Acted()


def test_many_waiting_and_scheduled_jobs_are_deleted_or_canceled_wherever_they_wait(client, claims):
    def wait() -> set[str]:
        ids = list(sample_jobs.add.enqueue_many([{"a": each} for each in range(620)]))
        ids += [sample_jobs.add.options(delay=60).enqueue(1), sample_jobs.add.options(priority=9).enqueue(1)]
        return {*ids, *(limited_jobs.two_a_tenant.enqueue("x", "y", "z") for _ in range(3))}

    kept = sample_jobs.noop.enqueue()
    ids = wait()
    assert act(client, "delete", JobFilter(queue="default", status="scheduled")).done == 1
    for name in ("add", "two_a_tenant"):
        act(client, "delete", JobFilter(name=name))
    assert all(not client.exists(keys.job_key(id)) for id in ids)
    ids = wait()
    acted = [act(client, "cancel", JobFilter(name=name)).done for name in ("add", "two_a_tenant")]
    assert acted == [622, 3]
    assert {client.hget(keys.job_key(id), "status") for id in ids} == {b"canceled"}
    assert end(claims) == [kept]


def test_a_job_that_has_changed_since_it_was_found_is_left_alone(client, claims, monkeypatch):
    ids = sample_jobs.noop.enqueue_many([()] * 3)
    end(claims, "ValueError: no")
    found = acts.matching

    def changing(*given: object) -> object:
        for part in found(*given):
            control.retry(client, ids[0])
            end(claims, "KeyError: 'x'")
            client.delete(keys.job_key(ids[1]))
            yield part

    monkeypatch.setattr(acts, "matching", changing)
    acted = act(client, "retry", JobFilter(error="ValueError"))
    assert (acted.matched, acted.done, dict(acted.refused)) == (3, 1, {"it has changed": 2})
    assert reader.read(client, ids[0]).status == "failed"


def test_what_is_refused_is_counted_by_its_reason(client, claims):
    held = sample_jobs.noop.options(unique=True).enqueue()
    end(claims, "ValueError: no")
    sample_jobs.noop.options(unique=True).enqueue()
    acted = act(client, "retry", JobFilter(status="failed"))
    assert (acted.matched, acted.done, sum(acted.refused.values())) == (1, 0, 1)
    assert held not in str(acted.refused)
    assert "holds its place" in str(acted.refused)


def test_running_jobs_are_stopped_or_named_in_the_end(client, claims):
    sample_jobs.noop.enqueue()
    id = start(claims)
    (error,) = control.cancel_each(client, [id], timeout=0.2)
    assert "still started after 200 ms" in str(error)
    (gone,) = control.cancel_each(client, ["nope"])
    assert isinstance(gone, NoSuchJob)


def test_an_act_that_makes_no_sense_is_refused(client):
    with pytest.raises(acts.UnknownAct, match="explode"):
        act(client, "explode", JobFilter())
    for name, status in (
        ("retry", "finished"),
        ("cancel", "failed"),
        ("delete", "started"),
        ("run", "queued"),
    ):
        with pytest.raises(InvalidFilter, match=status):
            act(client, name, JobFilter(status=status))


def test_a_copy_has_other_arguments_and_nothing_else_of_the_job(client, claims):
    id = sample_jobs.add.options(queue="low", batch=None, priority=7).enqueue(1, b=2)
    end(claims)
    new = reader.read(client, copy(Client(client), id, {"b": 3}))
    assert (new.id != id, new.queue, new.priority, new.status) == (True, "low", 7, "queued")
    assert ([*new.args], new.kwargs) in (([1, 3], {}), ([1], {"b": 3}))
    other = reader.read(client, copy(Client(client), id, {"a": 9}, queue="high"))
    assert (other.queue, [*other.args, *other.kwargs.values()]) == ("high", [9, 2])


@pytest.mark.parametrize(("changes", "said"), [({"a": "many"}, "a"), ({"c": 1}, "c"), ({"self": 1}, "self")])
def test_a_copy_is_checked_as_an_enqueue_is(client, changes, said):
    id = sample_jobs.add.enqueue(1)
    with pytest.raises(InvalidCall, match=said):
        copy(Client(client), id, changes)
    assert client.llen(keys.queue_key("default")) == 1


def test_a_copy_of_what_nobody_knows_is_refused(client):
    with pytest.raises(NoSuchJob):
        copy(Client(client), "nope", {})
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    with pytest.raises(NotRegistered):
        copy(Client(client), queue.enqueue("somewhere.else").id, {})


def test_keys_of_other_types_stop_no_act(client, claims):
    id = sample_jobs.noop.enqueue()
    for key in ("rq:failed:default", "rq:scheduled:default", "pm:groups:default", "rq:queue:default,+1"):
        client.set(key, "garbage")
    client.set(keys.job_key("text"), "no record")
    client.rpush(keys.queue_key("default"), "text", b"\xff", "")
    assert act(client, "delete", JobFilter()).done == 1
    assert not client.exists(keys.job_key(id))


def all_parts(
    client: Redis, name: str, wanted: JobFilter, then: Callable[[Sequence[str]], object]
) -> list[str]:
    """The ids of all parts; `then` happens between them."""
    ids: list[str] = []
    cursor = None
    for _ in range(1000):
        found = acts.find(client, name, wanted, cursor, most=1)
        ids += found.ids
        then(found.ids)
        cursor = found.cursor
        if cursor is None:
            return ids
    raise AssertionError("the parts don't end")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "A_CALL", 3)


def everywhere() -> list[str]:
    """Jobs in all places where they wait: queues, a band, scheduled, behind others of their group."""
    ids = list(sample_jobs.noop.enqueue_many([()] * 10))
    ids += sample_jobs.noop.options(priority=50).enqueue_many([()] * 4)
    ids += sample_jobs.noop.options(queue="low", delay=60).enqueue_many([()] * 3)  # come at once
    return [*ids, *limited_jobs.two_a_tenant.enqueue_many([("x", "y", "z")] * 8)]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("name", ["delete", "cancel"])
def test_parts_have_each_job_once_also_if_it_is_acted_on_in_between(client, name):
    ids = everywhere()
    parts: list[int] = []
    assert sorted(all_parts(client, name, JobFilter(), lambda part: parts.append(len(part)))) == sorted(ids)
    assert max(parts) <= 3
    became = []
    seen = all_parts(client, name, JobFilter(), lambda part: became.extend(acts.perform(client, name, part)))
    assert sorted(seen) == sorted(ids)
    assert {each.error for each in became} == {None}
    assert acts.find(client, name, JobFilter(status="queued")) == Found([], 0, None)


@pytest.mark.usefixtures("small_parts")
def test_parts_miss_no_job_that_stays_while_others_take_and_add_some(client, claims):
    ids = everywhere()
    taken: list[str] = []

    def others(part: Sequence[str]) -> None:
        control.cancel_each(client, part[:1])  # the newest ones, and so from the end of a list
        taken.extend(part[:1])
        sample_jobs.noop.enqueue_many([()] * 2)
        taken.extend(end(claims, times=1))

    seen = all_parts(client, "cancel", JobFilter(), others)
    assert {*ids} - {*taken} <= {*seen}


@pytest.mark.usefixtures("small_parts")
def test_a_list_that_has_an_id_twice_is_seen_to_its_end(client):
    for id in (ids := [f"j{number}" for number in range(7)]):
        sample_jobs.noop.options(job_id=id).enqueue()
    client.rpush(keys.queue_key("default"), *ids, "j3")
    assert set(
        all_parts(client, "cancel", JobFilter(), lambda _: client.rpush("rq:queue:default", "j1"))
    ) == {*ids}


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "é", "AAAA", "\udcff", "9" * 5000, "=", str(Position(9, "z", 0, b""))[:-2]],
)
def test_a_part_that_begins_nowhere_is_refused(client, cursor):
    sample_jobs.noop.enqueue()
    with pytest.raises(acts.InvalidPart):
        acts.find(client, "cancel", JobFilter(), cursor)


@pytest.mark.parametrize("at", [-5, 0, 7, 2**63, 2**64 - 1])
@pytest.mark.parametrize("key", ["rq:queue:default", "rq:scheduled:default", "rq:job:x", "*\n", "a" * 999])
def test_a_cursor_that_somebody_made_up_does_no_harm(client, key, at):
    sample_jobs.noop.enqueue()
    sample_jobs.noop.options(delay=60).enqueue()
    for rank in (-1, 0, 2, 99):
        acts.find(client, "cancel", JobFilter(), str(Position(rank, key, at, b"\xff")))


def test_what_became_of_each_job_is_told_in_order(client, claims):
    done, changed, running = sample_jobs.noop.enqueue_many([()] * 3)
    control.cancel(client, changed)
    became = acts.perform(client, "cancel", [done, "nobody", changed, done], JobFilter(status="queued"))
    assert [each.id for each in became] == [done, "nobody", changed, done]
    assert [type(each.error) for each in became] == [NoneType, acts.Changed, acts.Changed, NoneType]
    mark = start(claims)
    (still,) = acts.perform(client, "cancel", [running], timeout=0.0)
    assert (mark, type(still.error)) == (running, control.NotCanceled)


def test_too_many_jobs_at_once_are_refused(client):
    with pytest.raises(acts.InvalidPart, match="1,001 jobs are too many"):
        acts.perform(client, "retry", ["a"] * 1001)
    assert len(acts.perform(client, "retry", ["a"] * 1000)) == 1000
    assert acts.perform(client, "retry", []) == []


def test_an_act_on_all_can_be_stopped(client):
    sample_jobs.noop.enqueue_many([()] * 250)
    acted = Acted()
    act(client, "cancel", JobFilter(), acted=acted, is_stopped=lambda: acted.done >= 100)
    assert (acted.matched, acted.done) == (100, 100)
    assert act(client, "cancel", JobFilter()).done == 150
