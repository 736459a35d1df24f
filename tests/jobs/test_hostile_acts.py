"""Search and acts under attack: hostile texts, times, numbers, key types, and jobs that others made."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import DefaultSerializer, JSONSerializer

from packmule.errors import Error
from packmule.jobs import acts, control, keys, reader
from packmule.jobs.client import Client
from packmule.jobs.copying import copy
from packmule.jobs.job_filter import InvalidFilter, JobFilter
from packmule.jobs.reader import NoSuchJob
from packmule.jobs.search import InvalidPage, search
from packmule.observe import audit
from packmule.tests.jobs import sample_jobs
from packmule.tests.jobs.ending import end
from packmule.tests.worker import limited_jobs
from packmule.worker.process.claim import Claims

pytestmark = pytest.mark.usefixtures("produce")

NOOP = "packmule.tests.jobs.sample_jobs.noop"

TEXTS = (
    "", "*", "[a-z]*", "<script>alert(1)</script>", "\x1b[31mred", "\x00", "a\nb", "x" * 300, "x" * 100_000,
    "\udcff", "\ud800", "é" * 200, "..", "a b", "{", "%s", "rq:job:x", "\u202e", "💥",
)  # fmt: skip

every_text = pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:20]))


def some_of_all(claims: Claims) -> list[str]:
    """Jobs that wait, are scheduled, have finished and failed."""
    ids = list(sample_jobs.add.enqueue_many([(number,) for number in range(6)]))
    end(claims, "ValueError: no", times=2)
    end(claims, times=2)
    return [*ids, sample_jobs.noop.options(delay=60).enqueue()]


@every_text
def test_a_filter_of_any_text_finds_nothing_and_meets_nothing(
    client: Redis, claims: Claims, text: str
) -> None:
    ids = some_of_all(claims)
    for field in ("name", "queue", "error", "fingerprint"):
        wanted = JobFilter(**{field: text})
        if wanted != JobFilter(**{field: ""}) or field == "queue":
            assert search(client, wanted).jobs == []
        for name in acts.ACTS:
            acted = acts.act(client, name, wanted, dry_run=True)
            assert acted.matched == 0 or text == ""
    assert search(client, JobFilter(args={text: text})).jobs == []
    assert {info.id for info in search(client, JobFilter(id=text)).jobs} == ({*ids} if text == "" else set())


@every_text
def test_an_id_of_any_text_is_of_no_job(client: Redis, text: str) -> None:
    for name in acts.ACTS:
        for wanted in (None, JobFilter()):
            (became,) = acts.perform(client, name, [text], wanted)
            assert isinstance(became.error, NoSuchJob if wanted is None else acts.Changed)
            assert len(str(became.error)) < 300 or wanted is not None
    for one in (control.cancel, control.retry, control.run_now, control.delete, reader.read):
        with pytest.raises(NoSuchJob):
            one(client, text)  # type: ignore[operator]
    with pytest.raises(NoSuchJob):
        copy(Client(client), text, {})
    assert client.keys("*") == []


@every_text
def test_a_copy_takes_no_text_for_what_it_isnt(client: Redis, text: str) -> None:
    id = sample_jobs.add.enqueue(1)
    for change in ({text: 1}, {"a": text}):
        with pytest.raises(Error):
            copy(Client(client), id, change)
    if not keys.JOB_ID.fullmatch(text):
        with pytest.raises(Error):
            copy(Client(client), id, {}, new_id=text)
    assert client.lrange(keys.queue_key("default"), 0, -1) == [id.encode()]


@every_text
def test_what_was_done_to_an_id_of_any_text_is_in_the_audit(client: Redis, text: str) -> None:
    audit.record(client, "job retry", {"ids": (text,), text: text}, who=text)
    (action,) = audit.read(client)
    assert action.subject["ids"] == [text.encode(errors="backslashreplace").decode()]


@pytest.mark.parametrize(
    "at", [1e308, -1e308, 1e20, 253_402_300_800.0, -1, 0, 5e-324, 10**100, datetime.max.replace(tzinfo=UTC)]
)
def test_times_beyond_all_jobs_are_bounds_as_any(client: Redis, claims: Claims, at: Any) -> None:
    ids = some_of_all(claims)
    later = at if isinstance(at, datetime) else max(0, at)
    is_late = isinstance(later, datetime) or later > 1
    assert len(search(client, JobFilter(until=at)).jobs) == (len(ids) if is_late else 0)
    assert len(search(client, JobFilter(since=at)).jobs) == (0 if is_late else len(ids))
    assert acts.act(client, "delete", JobFilter(until=at), dry_run=True).matched == (
        len(ids) if is_late else 0
    )


@pytest.mark.parametrize("at", [10**400, "now", b"1", True, [], float("inf"), float("nan"), datetime.min])
def test_times_that_are_none_are_refused(at: Any) -> None:
    for field in ("since", "until"):
        with pytest.raises(InvalidFilter, match=field):
            JobFilter(**{field: at})


def test_other_values_than_a_filter_takes_are_refused(client: Redis) -> None:
    wrong: list[dict[str, Any]] = [
        {"args": args} for args in ([("a", "b")], None, "x", {1: "a"}, {"a": None})
    ]
    wrong += [{"status": status} for status in (5, b"failed", ["failed"], "x" * 10_000)]
    for given in wrong:
        with pytest.raises(InvalidFilter) as refusal:
            JobFilter(**given)
        assert len(str(refusal.value)) < 300
    for limit in (0, -1, 1001, True, 1.5, 10**30, "5", None):
        with pytest.raises(InvalidPage):
            search(client, limit=limit)  # type: ignore[arg-type]


KINDS: dict[str, Callable[[Redis, str], object]] = {
    "string": lambda client, key: client.set(key, b"\xff"),
    "list": lambda client, key: client.rpush(key, b"\xff", "<b>"),
    "hash": lambda client, key: client.hset(key, b"\xff", "x"),
    "zset": lambda client, key: client.zadd(key, {b"\xff": 1}),
    "set": lambda client, key: client.sadd(key, b"\xff"),
    "stream": lambda client, key: client.xadd(key, {b"\xff": b"\xff"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_key_of_another_type_stops_a_search_or_an_act(client: Redis, claims: Claims, kind: str) -> None:
    some_of_all(claims)
    limited_jobs.two_a_tenant.enqueue_many([("x", "y", "z")] * 3)
    for key in sorted(map(bytes.decode, client.keys("*"))):
        client.flushall()
        some_of_all(claims)
        mine = sample_jobs.noop.options(queue="low").enqueue()
        limited_jobs.two_a_tenant.enqueue_many([("x", "y", "z")] * 3)
        client.delete(key)
        KINDS[kind](client, key)
        search(client)
        search(client, JobFilter(name="add", error="ValueError"))
        for name in acts.ACTS:
            acts.act(client, name, JobFilter(name="add"))
        if key != keys.QUEUES:
            assert acts.act(client, "delete", JobFilter(name="noop", status="queued")).done == 1, key
            assert not client.exists(keys.job_key(mine))


def test_jobs_of_stock_rq_are_acted_on_as_ours(client: Redis, claims: Claims) -> None:
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    first, second, third = (queue.enqueue(NOOP).id for _ in range(3))
    later = queue.enqueue_in(timedelta(hours=1), NOOP).id
    assert [each.error for each in acts.perform(client, "cancel", [first])] == [None]
    assert [each.error for each in acts.perform(client, "delete", [second])] == [None]
    assert [each.error for each in acts.perform(client, "run", [later])] == [None]
    assert [each.error for each in acts.perform(client, "retry", [first])] == [None]
    assert sorted(end(claims)) == sorted([third, later, first])
    assert Job.fetch(first, client, JSONSerializer).get_status() == "finished"


def test_jobs_whose_payload_nobody_reads_can_be_found_and_deleted(client: Redis) -> None:
    pickled = Queue("default", connection=client, serializer=DefaultSerializer).enqueue(NOOP).id
    long = "j" * 300
    fields = {"data": b"\x80\xff", "origin": "default", "status": "queued", "created_at": "\x1b[0m"}
    client.hset(keys.job_key(long), mapping=fields)  # type: ignore[arg-type]
    client.rpush(keys.queue_key("default"), long)
    assert {info.id for info in search(client).jobs} == {pickled, long}
    assert search(client, JobFilter(name="noop")).jobs == []
    assert acts.act(client, "delete", JobFilter()).done == 2
    assert client.llen(keys.queue_key("default")) == 0
