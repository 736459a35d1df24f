"""rq-dashboard at `/rq`: what it shows and does for whom, beside jobs and records of any kind."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq_dashboard import web

from packmule.dashboard.guarding.rules import Rules
from packmule.dashboard.rq import templates
from packmule.dashboard.viewer import Role
from packmule.jobs import keys, reader
from packmule.jobs.job import job
from packmule.observe import audit
from packmule.tests.dashboard.asking import OWN, Answer, always, ask, guarded


@job(queue="default")
def add(a: int, secret: str = "") -> int:
    return a


@pytest.fixture
def site(client: Redis, produce: None) -> Any:
    return guarded(client, identify=always())


def data(site: Any, path: str, status: int = 200) -> Any:
    answer = ask(site, f"/rq/0/data/{path}.json")
    assert answer.status == status, answer.text
    return json.loads(answer.body) if status == 200 else answer.text


def press(site: Any, path: str) -> Answer:
    return ask(site, f"/rq/{path}", "POST", headers=OWN)


def set_status(client: Redis, id: str, status: str) -> None:
    client.hset(keys.job_key(id), mapping={"status": status, "ended_at": "2026-11-30T08:00:00.000000Z"})
    client.lrem(keys.queue_key("default"), 0, id)
    client.zadd(keys.registry_key("failed" if status == "stopped" else status, "default"), {id: 2e9})


def ids_shown(site: Any, registry: str, rest: str = "50/asc/1") -> list[str]:
    return [each["id"] for each in data(site, f"jobs/default/{registry}/{rest}")["jobs"]]


def test_no_get_changes_anything(site, client):
    id = add.enqueue(1)
    set_status(client, id, "failed")
    paths = ["requeue/default", f"job/{id}/requeue", f"job/{id}/delete"]
    paths += ["queue/default/queued/empty", "queue/default/compact"]
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        for path in paths:
            answer = ask(site, f"/rq/{path}", method, headers=OWN)
            assert (answer.status, "POST" in answer.headers["allow"]) == (405, True), (method, path)
    assert reader.read(client, id).status == "failed"
    assert list(audit.read(client)) == []


def test_viewers_look_and_their_buttons_say_why_they_do_nothing(client, produce):
    site, id = guarded(client, identify=always(Role.VIEWER)), add.enqueue(1)
    set_status(client, id, "failed")
    for path in (
        "requeue/default",
        f"job/{id}/requeue",
        f"job/{id}/delete",
        "queue/default/failed/empty",
        "queue/default/compact",
    ):
        answer = press(site, path)
        assert (answer.status, "You are a viewer" in answer.text) == (403, True), path
        assert answer.headers["content-type"].startswith("text/plain")
    assert ids_shown(site, "failed") == [id]
    assert list(audit.read(client)) == []
    page = ask(site, f"/rq/0/view/job/{id}").text
    assert 'id="delete-job-btn"' not in page
    assert 'id="empty-btn"' not in ask(site, "/rq/0/view/jobs").text


def test_what_jobs_hold_is_hidden_from_those_without_the_right(client, produce):
    id = str(add.enqueue(7, secret="s3cret"))
    client.hset(keys.job_key(id), mapping={"description": "add(7, 's3cret')", "meta": '{"who": "s3cret"}'})
    set_status(client, id, "finished")
    client.xadd(keys.results_key(id), {"type": 2, "exc_string": "Traceback\nshop.Broken: s3cret"})
    client.sadd(keys.WORKERS, keys.worker_key("w"))
    client.hset(keys.worker_key("w"), mapping={"state": "busy", "current_job": id, "queues": "default"})
    for may in (True, False):
        site = guarded(client, identify=always(payloads=may))
        shown = [data(site, f"job/{id}"), data(site, "jobs/default/finished/8/asc/1"), data(site, "workers")]
        for each in shown:
            assert ("s3cret" in json.dumps(each)) is may
            assert id in json.dumps(each)
        assert ("hidden by your role" in json.dumps(shown[0])) is not may


def test_busy_workers_are_shown_with_what_they_do(site, client):
    id = add.enqueue(1)
    for name, current in (("busy", id), ("lost", "nothing"), ("idle", "")):
        client.sadd(keys.WORKERS, keys.worker_key(name))
        record = {"state": name, "queues": "high,default", "current_job": current, "pid": "1e9"}
        client.hset(keys.worker_key(name), mapping={**record, "birth": "no time", "last_heartbeat": "\xff"})
    client.sadd(keys.WORKERS, "not a worker", b"\xff\xfe")
    client.set(keys.worker_key("string"), "not a record")
    client.sadd(keys.WORKERS, keys.worker_key("string"))
    shown = {each["name"]: each for each in data(site, "workers")["workers"]}
    assert shown["busy"]["current_job"]["description"] == f"{__name__}.add"
    assert shown["busy"]["queues"] == ["high", "default"]
    assert "no record" in shown["lost"]["current_job"]["description"]
    assert shown["idle"]["current_job"] == "idle"


def test_jobs_of_every_kind_are_shown_and_the_broken_ones_contained(site, client):
    good = str(add.enqueue(1))
    foreign = Queue("default", client).enqueue("os.getcwd").id  # pickled
    corrupt = ["no-record", "string", "half", "bytes", "nan"]
    client.set(keys.job_key("string"), "x")
    client.hset(keys.job_key("half"), mapping={"status": "queued", "created_at": "never"})
    client.hset(
        keys.job_key("bytes"),
        mapping={"data": b"\xff\x00", "status": b"\xff", "origin": b"\xfe", "meta": b"\xff"},
    )
    client.hset(keys.job_key("nan"), mapping={"data": b'["f", null, [NaN], {}]', "created_at": "9" * 300})
    client.rpush(keys.queue_key("default"), *corrupt, b"\xff\xfe", "")
    shown = ids_shown(site, "queued")
    assert shown == [good, foreign, *corrupt, "\ufffd\ufffd", ""]
    assert data(site, f"job/{foreign}")["status"] == "queued"
    for id in ("bytes", "nan"):
        assert data(site, f"job/{id}")["id"] == id
    for id in ("no-record", "string", "half", "x" * 300, "%00", "..%2f.."):
        assert "no job" in data(site, f"job/{id}", 404) or "can't be read" in data(site, f"job/{id}", 404)
        assert ask(site, f"/rq/0/view/job/{id}").status == 404


def test_big_numbers_are_exact_and_secrets_masked(site, client):
    id = str(add.enqueue(1))
    set_status(client, id, "finished")
    result = b64encode(b'{"n": 9007199254740993, "password": "x1y2"}')
    client.xadd(keys.results_key(id), {"type": 1, "return_value": result})
    shown = data(site, f"job/{id}")
    assert "9007199254740993" in shown["result_text"]
    assert "x1y2" not in json.dumps(shown)


def test_dependencies_are_shown_with_whether_they_are_there(site, client):
    first, second = str(add.enqueue(1)), str(add.enqueue(2))
    client.sadd(keys.dependencies_key(second), keys.job_key(first), keys.job_key("gone"))
    shown = data(site, f"job/{second}")
    assert dict(zip(shown["depends_on"], shown["depends_on_status"], strict=True)) == {
        first: "active",
        "gone": "expired",
    }


def test_registries_are_paged_from_both_ends_and_bands_come_in_their_order(site, client):
    ids = [str(add.options(priority=priority).enqueue(1)) for priority in (None, 80, -80, 20, None, -20)]
    order = [ids[1], ids[3], ids[0], ids[4], ids[5], ids[2]]
    assert ids_shown(site, "queued") == order
    for per_page in (1, 2, 4, 5, 6, 7):
        for way, expected in (("asc", order), ("dsc", order[::-1])):
            pages = [ids_shown(site, "queued", f"{per_page}/{way}/{number}") for number in range(1, 8)]
            assert [id for some in pages for id in some] == expected
            assert all(len(some) <= per_page for some in pages)
    for id in ids:
        set_status(client, id, "failed")
        client.zadd(keys.registry_key("failed", "default"), {id: ids.index(id)})
    assert ids_shown(site, "failed", "2/asc/2") == ids[2:4]
    assert ids_shown(site, "failed", "4/dsc/2") == [ids[1], ids[0]]
    pages = data(site, "jobs/default/failed/2/asc/2")["pagination"]
    assert [each["number"] for each in pages["pages_in_window"]] == [1, 2, 3]
    assert pages["next_page"]["url"] == "/rq/0/view/jobs/default/failed/2/asc/3"
    assert (pages["num_pages"], pages["prev_page"]["url"][-1]) == (3, "1")


@pytest.mark.parametrize("number", ["0", "-1", "1e9", "NaN", "9" * 300, "1.5", "%00", "%EF%BC%91", "a"])
def test_numbers_in_addresses_are_clamped(site, client, number):
    for _ in range(3):
        add.enqueue(1)
    assert len(ids_shown(site, "queued", f"{number}/asc/1")) in (1, 3)
    assert ids_shown(site, "queued", f"2/asc/{number}") in ([], ids_shown(site, "queued", "2/asc/1"))
    assert ask(site, f"/rq/0/view/jobs/default/queued/{number}/asc/1").status in (200, 404)
    assert ask(site, f"/rq/{number}/view/queues").status in (200, 404)


def test_a_page_has_two_hundred_jobs_at_most(site, client):
    add.enqueue_many([(number,) for number in range(250)])
    assert len(ids_shown(site, "queued", "100000/asc/1")) == 200
    assert len(ids_shown(site, "queued", "100000/dsc/2")) == 50


@pytest.mark.parametrize("name", ["a/b", "a b", "ä", "a%2Fb", "a?b#c", "<b>", "'\"\\", "x" * 300])
def test_queues_of_any_name_are_linked_and_shown(client, produce, name):
    for prefix in ("", "/tools"):
        site = guarded(client, identify=always(), rules=Rules(prefix=prefix))
        client.sadd(keys.QUEUES, keys.queue_key(name))
        client.rpush(keys.queue_key(name), "one")
        (row,) = [each for each in data(site, "queues")["queues"] if each["name"] == name]
        assert row["queued_url"].startswith(f"{prefix}/rq/0/view/jobs/")
        page = ask(site, row["queued_url"])
        assert page.status == 200
        (called,) = re.findall(r'api\.getJobs\(("(?:[^"\\]|\\.)*"), ("[^"]*"), (\d+)', page.text)
        assert [json.loads(each) for each in called] == [name, "queued", 8]
        client.delete(keys.queue_key(name))


def test_keys_of_the_wrong_type_are_contained(site, client):
    client.sadd(keys.QUEUES, keys.queue_key("default"), "garbage", b"\xff")
    for key in (keys.queue_key("default"), keys.registry_key("failed", "default")):
        client.set(key, "x")
    assert ids_shown(site, "queued") == ids_shown(site, "failed") == []
    assert ask(site, "/rq/").status == 200
    assert {each["name"] for each in data(site, "queues")["queues"]} >= {"default"}
    client.delete(keys.QUEUES)
    client.set(keys.QUEUES, "x")
    assert ask(site, "/rq/0/data/queues.json").status in (200, 500)
    client.delete(keys.QUEUES)
    assert data(site, "queues")["queues"] == []


def test_buttons_act_as_packmule_does_and_the_audit_knows(site, client):
    failed, stopped, waiting = str(add.enqueue(1)), str(add.enqueue(2)), str(add.enqueue(3))
    set_status(client, failed, "failed")
    set_status(client, stopped, "stopped")
    answer = press(site, f"job/{failed}/requeue")
    assert (answer.status, json.loads(answer.body)["status"]) == (200, "OK")
    assert reader.read(client, failed).status == "queued"
    set_status(client, failed, "failed")
    answer = press(site, "requeue/default")
    assert json.loads(answer.body) == {"status": "OK", "count": 2, "message": "2 jobs are queued again."}
    assert reader.read(client, stopped).status == "queued"
    assert press(site, f"job/{stopped}/delete").status == 200
    assert reader.read_if_there(client, stopped) is None
    assert press(site, f"job/{stopped}/delete").status == 200
    assert json.loads(press(site, "queue/default/queued/empty").body)["message"] == "2 jobs are deleted."
    assert reader.read_if_there(client, waiting) is None
    assert press(site, "queue/default/compact").status == 200
    done = [(each.who, each.where, each.action, dict(each.subject)) for each in audit.read(client)]
    assert done == [
        ("ada", "192.0.2.7", "job retry", {"id": failed}),
        ("ada", "192.0.2.7", "job retry", {"queue": "default", "status": "failed", "done": 2}),
        ("ada", "192.0.2.7", "job delete", {"id": stopped}),
        ("ada", "192.0.2.7", "job delete", {"id": stopped}),
        ("ada", "192.0.2.7", "job delete", {"queue": "default", "status": "queued", "done": 2}),
    ]


def test_what_the_house_refuses_is_refused_in_words(site, client):
    id = str(add.enqueue(1))
    answer = press(site, f"job/{id}/requeue")
    assert (answer.status, "only failed, stopped and canceled jobs can run again" in answer.text) == (
        409,
        True,
    )
    answer = press(site, "queue/default/started/empty")
    assert (answer.status, "cancel them first" in answer.text) == (409, True)
    assert press(site, "job/nothing/requeue").status == 404
    assert press(site, "queue/default/nothing/empty").status == 404


def test_every_script_has_the_nonce_of_its_page_and_templates_escape(site, client):
    id = add.enqueue(1)
    for path in ("/rq/", "/rq/0/view/workers", "/rq/0/view/jobs", f"/rq/0/view/job/{id}"):
        page = ask(site, path)
        policy = page.headers["content-security-policy"]
        (nonce,) = re.findall(r"script-src 'nonce-([^']+)' 'unsafe-eval';", policy)
        assert page.text.count("<script") == page.text.count(f'<script nonce="{nonce}"') + page.text.count(
            f'nonce="{nonce}"></script>'
        )
        scripts = re.findall(r'src="([^"]+\.js)', page.text)
        assert scripts.index("/static/rq.js") == 2, scripts
        assert "underscore" in scripts[1]
        assert ".text(d." not in page.text
    assert "unsafe-eval" not in ask(site, "/").headers["content-security-policy"]


def test_a_template_that_is_not_as_expected_is_not_served():
    for name in templates.CHANGES:
        with pytest.raises(templates.UnknownTemplate, match="not as expected"):
            templates.changed(name, "<p>another version</p>")
    with pytest.raises(templates.UnknownTemplate, match="another way"):
        templates.changed("rq_dashboard/base.html", "<script>x</script>")


def test_another_rq_dashboard_in_this_process_stays_as_it_was(site, client, server):
    from flask import Flask

    assert web.config.serializer is web.DefaultSerializer
    other = Flask("other")
    other.config["RQ_DASHBOARD_REDIS_URL"] = "redis://localhost:1"
    other.register_blueprint(web.blueprint)
    assert web.push_rq_connection in other.before_request_funcs["rq_dashboard"]
    assert other.view_functions["rq_dashboard.list_workers"] is web.list_workers
    assert ask(site, "/rq/0/data/workers.json").status == 200
