"""Bulk actions: counted first, done once, stopped, gone on with, undone; refused to who has no right."""

from __future__ import annotations

import html
import re
import threading
from typing import Any

import pytest
from redis import Redis
from redis import exceptions as redis_errors

from packmule.dashboard.bulk import kept, performing, record
from packmule.dashboard.bulk.counting import counted
from packmule.dashboard.bulk.record import NoSuchBulk, NotNow, Owner
from packmule.dashboard.users.store import Users
from packmule.dashboard.users.user import User
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import acts, keys, reader
from packmule.jobs.batch import Batch
from packmule.jobs.job_filter import JobFilter
from packmule.observe import audit
from packmule.tests.command_line import until
from packmule.tests.dashboard.pages_of_jobs import Pages, text_of
from packmule.tests.fork_server import Forked
from packmule.tests.jobs import sample_jobs
from packmule.tests.jobs.ending import end
from packmule.worker.process.claim import Claims

pytestmark = pytest.mark.usefixtures("produce")


def fail(claims: Claims, number: int) -> list[str]:
    ids = sample_jobs.add.enqueue_many([(n,) for n in range(number)])
    end(claims, "Traceback (most recent call last):\nTimeoutError: late", times=number)
    return [str(id) for id in ids]


def begun(pages: Pages, act: str, q: str = "", **more: str) -> str:
    """Begin an action as its dry run's form does; its id."""
    page = pages.get("/bulk/new", act=act, q=q)
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
    fields = {name: html.unescape(value) for name, value in hidden.items()} | more
    answer = pages.browser.post(
        "/bulk", data=fields, headers={"Sec-Fetch-Site": "same-origin"}, follow_redirects=False
    )
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"]).rpartition("/")[2]


def is_performed_here(id: str) -> bool:
    """Whether a thread performs it; it records the end in the audit after the state."""
    return f"bulk {id}" in [each.name for each in threading.enumerate()]


def over(client: Redis, id: str) -> record.Bulk:
    until(lambda: record.read(client, id).is_over and not is_performed_here(id), "the end of the bulk action")
    return record.read(client, id)


def statuses(client: Redis, ids: list[str]) -> set[str]:
    return {info.status if (info := reader.read_if_there(client, id)) else "gone" for id in ids}


def test_a_dry_run_counts_shows_some_and_does_nothing(pages, client, claims):
    ids = fail(claims, 30)
    other = sample_jobs.add.enqueue(1)
    shown = text_of(pages.get("/bulk/new", act="retry", q="error:TimeoutError"))
    assert "Retry 30 jobs?" in shown
    assert "Nothing has been done yet" in shown
    assert shown.count("TimeoutError: late") == 10
    assert statuses(client, ids) == {"failed"}
    assert "No job matches." in text_of(pages.get("/bulk/new", act="run"))
    assert "There is no filter" in text_of(pages.get("/bulk/new", act="delete"))
    assert "Cancel 1 job?" in text_of(pages.get("/bulk/new", act="cancel", q="queue:default"))
    assert reader.read(client, other).status == "queued"
    assert "no action is called 'explode'" in text_of(pages.get("/bulk/new", 400, act="explode"))
    assert "is for jobs that are" in text_of(pages.get("/bulk/new", 400, act="retry", q="status:queued"))
    assert "is not a filter" in text_of(pages.get("/bulk/new", 400, act="retry", q="x:y"))
    pages.post("/bulk", 400, act="explode", q="")
    pages.post("/bulk", 400, act="retry", q="x:y")


def test_all_that_fit_are_retried_once_and_each_is_in_the_audit(pages, client, claims):
    ids, others = fail(claims, 230), fail(claims, 3)
    client.hset(keys.job_key(others[0]), "origin", "elsewhere")
    id = begun(pages, "retry", "queue:default args.a:7", reason="too <late>")
    found = over(client, id)
    assert (found.state, found.matched, found.done, dict(found.refused)) == ("done", 1, 1, {})
    id = begun(pages, "retry", "error:TimeoutError queue:default", reason="too <late>")
    found = over(client, id)
    assert (found.state, found.matched, found.done) == ("done", 231, 231)
    assert statuses(client, ids) == {"queued"}
    assert client.llen(keys.queue_key("default")) == 232
    shown = text_of(pages.get(f"/bulk/{id}"))
    for words in (
        "Retry",
        "done",
        "error:TimeoutError queue:default",
        "too <late>",
        "ada from 192.0.2.7",
        "Queued again 231",
    ):
        assert words in shown, words
    assert "Retry" in text_of(pages.get("/bulk"))
    actions = [each for each in audit.read(client) if each.subject.get("bulk") == id]
    assert actions[0].action == "bulk retry"
    assert actions[-1].action == "bulk act ended"
    named = [job for each in actions if each.action == "job retry" for job in each.subject["ids"]]
    assert len(named) == 231
    assert set(named) <= {*ids, *others}
    assert {(each.who, each.where) for each in actions} == {("ada", "192.0.2.7")}


def test_the_audit_and_viewers_without_the_right_get_no_values_of_arguments(pages, client, claims):
    fail(claims, 2)
    id = begun(pages, "retry", "args.a:1 queue:default")
    over(client, id)
    (action,) = [each for each in audit.read(client) if each.action == "bulk retry"]
    assert action.subject["filter"] == "args.a:… queue:default"
    pages.viewer = Viewer("bob", Role.VIEWER)
    assert "args.a:…" in text_of(pages.get(f"/bulk/{id}"))
    assert "args.a:1" not in pages.get(f"/bulk/{id}") + pages.get("/bulk")


def test_what_is_refused_is_counted_by_reason_and_the_rest_is_done(pages, client, claims):
    ids = [str(sample_jobs.add.options(delay=3600).enqueue(n)) for n in range(3)]
    client.hset(keys.job_key(ids[0]), "waits", "sleep:1 9e9")
    found = over(client, begun(pages, "run", "name:add"))
    assert (found.done, dict(found.refused)) == (
        2,
        {"sleeps in a step: it resumes when that time is over": 1},
    )
    assert statuses(client, ids[1:]) == {"queued"}


def test_a_job_that_fails_again_is_not_retried_twice(pages, client, claims):
    ids = fail(claims, 5)
    id = begun(pages, "retry", "name:add")
    over(client, id)
    assert len(end(claims, "TimeoutError: late")) == 5
    record.change(client, id, state="running")  # as if its process had died at the end
    assert "The process that performed it is gone" in text_of(pages.get(f"/bulk/{id}"))
    pages.post(f"/bulk/{id}", act="go on")
    assert over(client, id).done == 5
    assert statuses(client, ids) == {"failed"}


def test_it_stops_when_asked_and_goes_on(pages, client, claims, monkeypatch):
    ids = fail(claims, 250)
    reached, may_go_on = threading.Event(), threading.Event()
    do = acts.ACTS["retry"].do

    def slow(redis: Redis, some: Any) -> Any:
        done = do(redis, some)
        reached.set()
        may_go_on.wait(60)
        return done

    monkeypatch.setitem(acts.ACTS, "retry", acts.ACTS["retry"]._replace(do=slow))  # type: ignore[arg-type]
    id = begun(pages, "retry", "name:add")
    assert reached.wait(60)
    assert record.read(client, id).is_performed
    assert "running" in text_of(pages.get(f"/bulk/{id}"))
    assert "there is nothing to resume" in text_of(pages.post(f"/bulk/{id}", 409, act="go on"))
    pages.post(f"/bulk/{id}", act="stop")
    may_go_on.set()
    found = over(client, id)
    assert (found.state, found.done) == ("stopped", 100)
    assert statuses(client, ids) == {"queued", "failed"}
    assert "isn't running" in text_of(pages.post(f"/bulk/{id}", 409, act="stop"))
    pages.post(f"/bulk/{id}", act="go on")
    found = over(client, id)
    assert (found.state, found.done) == ("done", 250)
    assert client.llen(keys.queue_key("default")) == 250


def test_another_process_that_took_it_over_keeps_it(pages, client, claims, monkeypatch):
    fail(claims, 250)
    do = acts.ACTS["retry"].do

    def overtaken(redis: Redis, some: Any) -> Any:
        (id,) = [each.decode() for each in redis.zrange(record.LATEST, 0, -1)]
        redis.set(f"pm:bulk:{id}:owner", "another")
        return do(redis, some)

    monkeypatch.setitem(acts.ACTS, "retry", acts.ACTS["retry"]._replace(do=overtaken))  # type: ignore[arg-type]
    id = begun(pages, "retry", "name:add")
    until(lambda: not is_performed_here(id), "the end")
    found = record.read(client, id)
    assert (found.done, found.state, found.ended) == (100, "running", None)
    assert client.get(f"pm:bulk:{id}:owner") == b"another"


def test_deleted_jobs_are_put_back_for_an_hour(pages, client, claims):
    ids = fail(claims, 120)
    waiting = sample_jobs.echo.options(queue="low").enqueue("x")
    with Batch.create("b") as batch:
        of_batch = sample_jobs.echo.options(batch=batch.id).enqueue("y")
    id = begun(pages, "delete", "")
    found = over(client, id)
    assert (found.done, found.copied) == (122, 122)
    assert statuses(client, [*ids, waiting, of_batch]) == {"gone"}
    assert 3000 < client.ttl(record.copies_key(id)) <= kept.TTL
    assert "Restore jobs" in pages.get(f"/bulk/{id}")
    pages.post(f"/bulk/{id}", act="undo")
    found = over(client, id)
    assert (found.state, found.undone) == ("done", 121)
    (reason,) = found.not_undone
    assert f"batch or flow {batch.id} has counted it as canceled" in reason
    assert statuses(client, ids) == {"failed"}
    assert statuses(client, [waiting]) == {"queued"}
    assert "can't be undone" in text_of(pages.post(f"/bulk/{id}", 409, act="undo"))
    undone = [
        job for each in audit.read(client) if each.action == "job undelete" for job in each.subject["ids"]
    ]
    assert len(undone) == 121


def test_an_undo_right_behind_the_end_is_told_apart_in_the_audit(pages, client, claims, monkeypatch):
    fail(claims, 2)
    release = Owner.release

    def release_and_undo(owner: Owner) -> None:
        release(owner)
        monkeypatch.setattr(Owner, "release", release)
        performing.begin_undo(client, owner.id)

    monkeypatch.setattr(Owner, "release", release_and_undo)
    found = over(client, begun(pages, "delete", "name:add"))
    assert (found.phase, found.state, found.undone) == ("undo", "done", 2)
    actions = [each.action for each in audit.read(client)]
    assert (actions.count("bulk act ended"), actions.count("bulk undo ended")) == (1, 1)


def test_what_can_not_be_undone_is_said(pages, client, claims, monkeypatch):
    monkeypatch.setattr(kept, "MOST_JOBS", 100)
    fail(claims, 150)
    id = begun(pages, "delete", "status:failed")
    found = over(client, id)
    assert (found.done, found.copied) == (150, 100)
    assert "Without a copy 50" in text_of(pages.get(f"/bulk/{id}"))
    client.delete(record.copies_key(id))
    assert "Restore jobs" not in pages.get(f"/bulk/{id}")
    assert "are kept for an hour" in text_of(pages.post(f"/bulk/{id}", 409, act="undo"))
    fail(claims, 1)
    other = begun(pages, "retry", "status:failed")
    over(client, other)
    assert "only a deletion that" in text_of(pages.post(f"/bulk/{other}", 409, act="undo"))


def test_a_job_that_was_not_deleted_is_not_among_the_copies(pages, client, claims):
    first, second = sample_jobs.add.enqueue(1), sample_jobs.add.enqueue(2)
    client.sadd(keys.dependents_key(first), "x")
    client.hset(keys.job_key("x"), mapping={"status": "deferred", "data": "[]"})
    id = begun(pages, "delete", "name:add")
    found = over(client, id)
    assert (found.done, found.copied) == (1, 1)
    assert statuses(client, [first]) == {"queued"}
    assert statuses(client, [second]) == {"gone"}
    pages.post(f"/bulk/{id}", act="undo")
    found = over(client, id)
    assert (found.undone, dict(found.not_undone)) == (1, {})


def test_only_operators_act_and_only_while_they_are(pages, client, claims, monkeypatch):
    fail(claims, 150)
    pages.viewer = Viewer("bob", Role.VIEWER, may_see_payloads=True)
    pages.get("/bulk/new", 403, act="retry")
    pages.post("/bulk", 403, act="retry", q="")
    assert "Retry…" not in pages.get("/jobs")
    assert record.latest(client) == []
    users = Users(client)
    users.add(User("root", Role.ADMIN, password="x"), is_first=True)
    users.add(User("eve", Role.OPERATOR, password="x"))
    pages.viewer = Viewer("eve", Role.OPERATOR)
    do = acts.ACTS["retry"].do

    def demoted(redis: Redis, some: Any) -> Any:
        users.change("eve", role=Role.VIEWER)
        return do(redis, some)

    monkeypatch.setitem(acts.ACTS, "retry", acts.ACTS["retry"]._replace(do=demoted))  # type: ignore[arg-type]
    found = over(client, begun(pages, "retry", "name:add"))
    assert (found.state, found.done) == ("failed", 100)
    assert "eve may no longer act on jobs" in text_of(pages.get(f"/bulk/{found.id}"))
    for act in ("stop", "go on", "undo"):
        pages.viewer = Viewer("bob", Role.VIEWER)
        pages.post(f"/bulk/{found.id}", 403, act=act)


def test_a_user_who_is_removed_acts_no_further(pages, client, claims, monkeypatch):
    fail(claims, 150)
    users = Users(client)
    users.add(User("root", Role.ADMIN, password="x"), is_first=True)
    users.add(User("eve", Role.OPERATOR, password="x"))
    pages.viewer = Viewer("eve", Role.OPERATOR)
    do = acts.ACTS["retry"].do

    def removed(redis: Redis, some: Any) -> Any:
        if users.find("eve"):
            users.remove("eve")
        return do(redis, some)

    monkeypatch.setitem(acts.ACTS, "retry", acts.ACTS["retry"]._replace(do=removed))  # type: ignore[arg-type]
    found = over(client, begun(pages, "retry", "name:add"))
    assert (found.state, found.done) == ("failed", 100)
    assert "eve may no longer act on jobs" in found.fault


def test_an_admin_puts_back_what_a_user_has_deleted_who_is_removed(pages, client, claims):
    ids = fail(claims, 5)
    users = Users(client)
    users.add(User("root", Role.ADMIN, password="x"), is_first=True)
    users.add(User("eve", Role.OPERATOR, password="x"))
    pages.viewer = Viewer("eve", Role.OPERATOR)
    id = begun(pages, "delete", "name:add")
    assert over(client, id).done == 5
    users.remove("eve")
    pages.viewer = Viewer("root", Role.ADMIN)
    pages.post(f"/bulk/{id}", act="undo")
    found = over(client, id)
    assert (found.state, found.undone, found.fault) == ("done", 5, "")
    assert statuses(client, ids) == {"failed"}
    done_by = {each.action: each.who for each in audit.latest(client).actions}
    assert (done_by["job delete"], done_by["job undelete"], done_by["bulk undo ended"]) == (
        "eve",
        "root",
        "root",
    )


def test_an_action_that_redis_broke_says_so_and_goes_on_later(pages, client, claims, monkeypatch):
    ids = fail(claims, 3)
    do, broken = acts.ACTS["retry"].do, [True]

    def breaks(redis: Redis, some: Any) -> Any:
        if broken:
            broken.clear()
            raise redis_errors.ConnectionError("Redis went away <b>")
        return do(redis, some)

    monkeypatch.setitem(acts.ACTS, "retry", acts.ACTS["retry"]._replace(do=breaks))  # type: ignore[arg-type]
    id = begun(pages, "retry", "name:add")
    assert over(client, id).state == "failed"
    assert "Redis went away <b>" in text_of(pages.get(f"/bulk/{id}"))
    pages.post(f"/bulk/{id}", act="go on")
    assert over(client, id).state == "done"
    assert statuses(client, ids) == {"queued"}


def test_unknown_and_corrupt_records_are_said_or_left_out(pages, client):
    assert "no bulk action has the id nope" in text_of(pages.get("/bulk/nope", 404))
    pages.post("/bulk/nope", 404, act="stop")
    client.zadd(record.LATEST, {"text": 1, "half": 2, "odd": 3, b"\xff": 4})
    client.set("pm:bulk:text", "x")
    client.hset("pm:bulk:half", "act", "retry")
    client.hset(
        "pm:bulk:odd",
        mapping={"act": "<b>", "began": "nan", "state": "?", "refused": "[", "text": "x:y", "done": "-3"},
    )
    assert "<b>" not in pages.get("/bulk").partition("<main")[2]
    for id in ("text", "half"):
        with pytest.raises(NoSuchBulk):
            record.read(client, id)
    assert "no action is called" in text_of(pages.post("/bulk/odd", 400, act="x"))


def test_a_count_is_bounded_by_time(client, claims, monkeypatch):
    fail(claims, 5)
    monkeypatch.setattr("packmule.dashboard.bulk.counting.LONGEST", 0.0)
    found = counted(client, "retry", JobFilter())
    assert found.is_partial
    assert found.count >= 5


def test_one_process_at_a_time_performs_it(client, claims):
    fail(claims, 1)
    id = record.create(client, "retry", "name:add", 0.0, 1, False, who="ada", where="", reason="")
    owner = Owner(client, id)
    assert owner.take()
    assert not Owner(client, id).take()
    with pytest.raises(NotNow):
        performing.begin(client, id)
    assert owner.renew()
    owner.release()
    assert not owner.renew()
    performing.begin(client, id)
    assert over(client, id).done == 1


def test_a_killed_process_leaves_it_stopped_and_another_goes_on(pages, client, claims, server):
    ids = fail(claims, 1_000)
    id = record.create(client, "retry", "name:add", 0.0, 1_000, False, who="ada", where="", reason="")
    with Forked(["packmule.tests.dashboard.bulk_process", str(server.data_dir), id]) as process:
        try:
            until(lambda: record.read(client, id).done == 200, "some of it")
        finally:
            process.kill()
    assert ">Resume<" not in pages.get(f"/bulk/{id}")  # nobody knows yet that it is gone
    until(lambda: not record.read(client, id).is_performed, "the end of its lease")
    before = record.read(client, id)
    assert before.state == "running"
    assert before.done == 200
    assert "The process that performed it is gone" in text_of(pages.get(f"/bulk/{id}"))
    pages.post(f"/bulk/{id}", act="go on")
    assert over(client, id).state == "done"
    assert statuses(client, ids) == {"queued"}
    assert client.llen(keys.queue_key("default")) == 1_000
    assert len(set(client.lrange(keys.queue_key("default"), 0, -1))) == 1_000
