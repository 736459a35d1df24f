"""The page of one job: what it shows to whom, and what can be done with it."""

from __future__ import annotations

import time

import pytest
from redis import Redis
from redis.connection import AbstractConnection
from rq import Queue
from rq.serializers import JSONSerializer

from packmule import current, job
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import control, keys, reader
from packmule.jobs.batch import Batch
from packmule.observe import audit, events
from packmule.tests.dashboard.pages_of_jobs import text_of
from packmule.tests.jobs import sample_jobs
from packmule.tests.jobs.ending import end
from packmule.tests.worker import limited_jobs

pytestmark = pytest.mark.usefixtures("produce")

TRACE = """Traceback (most recent call last):
  File "/srv/shop.py", line 3, in report
    raise ValueError("s3cret 4711")
ValueError: s3cret 4711"""


@job
def waits() -> None:
    current.wait_for("approved")


@job
def charge(account: int, api_key: str, note: str = "") -> None:
    pass


def waiting_job(client: Redis) -> str:
    """A job that waits for the signal `approved`."""
    id = waits.enqueue()
    client.lrem(keys.queue_key("default"), 1, id)
    client.hset(keys.job_key(id), mapping={"status": "deferred", "waits": "signal:approved inf"})
    client.zadd(keys.registry_key("deferred", "default"), {id: float("inf")})
    return id


def test_a_job_is_shown_with_its_past(pages, client, claims):
    id = sample_jobs.add.options(retries=1, retry_intervals=[0]).enqueue(2**70, b=1)
    end(claims, TRACE, times=1)
    end(claims)
    shown = text_of(pages.get(f"/jobs/{id}"))
    assert '"a": 1180591620717411303424, "b": 1' in shown
    assert "finished" in shown
    for words in (
        "Result 1",
        "retried attempt 1 w1 ValueError: s3cret 4711",
        "finished attempt 2 w1",
        "Queue default",
    ):
        assert words in shown, words
    assert pages.browser.get(f"/jobs/{id}", params={"region": "past"}).text.count("<section") == 1


def test_an_unknown_job_is_a_404_in_words(pages):
    page = pages.get("/jobs/nope", 404)
    assert "no job has the id nope: check it; the job may have outlived its result TTL" in text_of(page)
    pages.post("/jobs/nope", 404, act="cancel")
    pages.get("/jobs/a/b%3Fc%23%20ü", 404)


def test_ids_of_others_have_addresses(pages, client):
    for id in ("a/b", "a?b=c#d", "50%", "ü x", "..", "x/copy"):
        client.hset(
            keys.job_key(id), mapping={"data": '["f",null,[],{}]', "status": "finished", "origin": "default"}
        )
        client.zadd(keys.registry_key("finished", "default"), {id: float("inf")})
    page = pages.get("/jobs", q="status:finished")
    for id in ("a/b", "a?b=c#d", "50%", "ü x", "x/copy"):
        from urllib.parse import quote

        assert f'href="/jobs/{quote(id, safe="")}"' in page
        assert f'<span class="id">{id}</span>' in pages.get(f"/jobs/{quote(id, safe='')}")


def test_the_error_and_its_frames_are_shown(pages, claims):
    id = sample_jobs.add.enqueue(1)
    end(claims, TRACE)
    shown = text_of(pages.get(f"/jobs/{id}"))
    assert "ValueError: s3cret 4711" in shown
    assert 'File "/srv/shop.py", line 3, in report' in shown
    assert "Retry" in shown


def test_a_viewer_without_the_right_sees_no_payload_and_no_button_works(pages, client, claims):
    id = charge.enqueue(4711, "s3cret-key", note="s3cret-note")
    client.hset(keys.progress_key(id), mapping={"done": 1, "total": 2, "message": "s3cret-message"})
    client.xadd(
        keys.log_key(id), {"by": "x", "attempt": 1, "said": '[[1764504000, 20, "s3cret-line"]]'}, id="10-1"
    )
    client.xadd(keys.output_key(id), {"by": "x", "attempt": 1, "said": '["s3cret-output"]'}, id="10-1")
    end(claims, TRACE)
    why = {"reason": "no JSON: s3cret-record"}
    events.stream(client).append([["quarantined", str(id), "", "w1", time.time(), why]])
    seen = pages.get(f"/jobs/{id}")
    for secret in ("s3cret-record", "s3cret-note", "s3cret-line", "s3cret-output", "s3cret 4711", "4711"):
        assert secret in seen, secret
    assert "s3cret-key" not in seen
    pages.viewer = Viewer("bob", Role.VIEWER)
    for region in ("", "?region=job&region=result&region=past&region=log&region=output"):
        seen = pages.get(f"/jobs/{id}{region}")
        assert "s3cret" not in seen
        assert "4711" not in seen
        assert "hidden by your role" in seen
        assert "ValueError" in seen
    for act in ("retry", "cancel", "delete", "run", "signal"):
        pages.post(f"/jobs/{id}", 403, act=act, name="approved", data="null")
    assert reader.read(client, id).status == "failed"
    pages.get("/jobs/new", 403, copy=id)
    for each in "ab":
        waiting = limited_jobs.alone_by_account.enqueue("/nowhere", "account-4711", each)
    assert "1 of its group" in text_of(pages.get(f"/jobs/{waiting}"))
    assert "4711" not in pages.get(f"/jobs/{waiting}") + pages.get("/jobs")
    pages.viewer = Viewer("eve", Role.OPERATOR)
    assert "so a copy can't be edited" in text_of(pages.get("/jobs/new", 403, copy=id))


def test_the_log_is_filtered_by_level(pages, client):
    id = sample_jobs.add.enqueue(1)
    said = '[[1764504000, 20, "a line <b>"], [1764504001, 40, "bad \\u001b[2J", {"order": 7}]]'
    client.xadd(keys.log_key(id), {"by": "x", "attempt": 1, "said": said}, id="10-2")
    assert "a line &lt;b&gt;" in pages.get(f"/jobs/{id}")
    page = pages.get(f"/jobs/{id}", level="warning")
    assert "a line" not in page
    assert "bad \\x1b[2J" in page
    assert "7" in page
    assert "a line" in pages.get(f"/jobs/{id}", level="nonsense")


def test_acts_do_what_they_say_and_are_audited(pages, client, claims):
    id = sample_jobs.add.options(delay=3600).enqueue(1)
    assert "The job is in its queue now." in pages.post(f"/jobs/{id}", act="run")
    assert "The job is canceled." in pages.post(f"/jobs/{id}", act="cancel")
    assert "is queued again" in pages.post(f"/jobs/{id}", act="retry")
    assert reader.read(client, id).status == "queued"
    assert "is queued; only failed, stopped and canceled jobs can run again" in pages.post(
        f"/jobs/{id}", act="retry"
    )
    assert f"Job {id} is deleted." in pages.post(f"/jobs/{id}", act="delete")
    assert reader.read_if_there(client, id) is None
    pages.post(f"/jobs/{id}", 404, act="retry")
    assert [(each.action, each.who, each.where) for each in audit.read(client)][:4] == [
        (f"job {name}", "ada", "192.0.2.7") for name in ("run", "cancel", "retry", "retry")
    ]
    other = sample_jobs.add.enqueue(1)
    assert "no action is called explode" in text_of(pages.post(f"/jobs/{other}", 400, act="explode"))


def test_a_job_that_waits_gets_its_signal(pages, client):
    id = waiting_job(client)
    assert "Send the signal approved" in text_of(pages.get(f"/jobs/{id}"))
    page = pages.post(f"/jobs/{id}", 400, act="signal", name="approved", data='{"ok": yes <b>}')
    assert "That is not JSON" in text_of(page)
    assert "{&#34;ok&#34;: yes &lt;b&gt;}</textarea>" in page
    assert reader.read(client, id).status == "deferred"
    page = pages.post(f"/jobs/{id}", 400, act="signal", name="approved", data='"' + "x" * 69_000 + '"')
    assert "over the limit of" in page
    page = pages.post(f"/jobs/{id}", act="signal", name="approved", data='{"big": 9007199254740993}')
    assert "has the signal approved and goes on" in text_of(page)
    info = reader.read(client, id)
    assert info.status == "queued"
    assert client.hget(keys.job_key(id), "signal:1:approved") == b'{"big":9007199254740993}'
    assert [each.action for each in audit.read(client)] == ["job signal"]
    sample_jobs.add.enqueue(1)
    control.cancel(client, id)
    page = pages.post(f"/jobs/{id}", act="signal", name="approved", data="")
    assert "No signal was sent: job" in text_of(page)


def test_it_says_why_a_job_waits(pages, client):
    ids = sample_jobs.add.options(queue="low").enqueue_many([(n,) for n in range(3)])
    assert "Waits for its turn, behind 2 of its queue." in text_of(pages.get(f"/jobs/{ids[2]}"))
    assert "Waits for a worker: it is the next of its queue." in text_of(pages.get(f"/jobs/{ids[0]}"))
    first, second = (limited_jobs.alone.enqueue("/nowhere", each) for each in "ab")
    assert "Waits for 1 of its group" in text_of(pages.get(f"/jobs/{second}"))
    client.sadd(keys.PAUSED, "default")
    assert "its queue, which is paused" in text_of(pages.get(f"/jobs/{first}"))
    behind = sample_jobs.add.options(after=first).enqueue(1)
    page = pages.get(f"/jobs/{behind}")
    assert f"Waits for job {first} (queued)" in text_of(page)
    assert f'href="/jobs/{first}"' in page
    assert f'href="/jobs/{behind}"' in pages.get(f"/jobs/{first}")
    with Batch.create("b") as batch:
        member = sample_jobs.add.options(batch=batch.id).enqueue(2)
    assert f"Part of batch {batch.id}" in text_of(pages.get(f"/jobs/{member}"))


def test_jobs_of_stock_rq_and_corrupt_ones_are_shown(pages, client, claims):
    rq_job = Queue("default", connection=client, serializer=JSONSerializer).enqueue(
        "math.sqrt", 4, description="<i>"
    )
    assert "math.sqrt" in text_of(pages.get(f"/jobs/{rq_job.id}"))
    client.hset(keys.job_key("bad"), mapping={"data": b"\x80\x04pickle", "status": "failed", "crash": "{",
                "waits": "x", "started_at": "?", "origin": b"\xff", "timeout": "<b>",
                "batch": "gone callback", "priority": "high"})  # fmt: skip
    client.set(keys.results_key("bad2"), "text")
    client.set(keys.log_key("bad"), "text")
    pages.get("/jobs/bad")
    client.delete(keys.log_key("bad"))
    assert "the payload is a pickle" in text_of(pages.get("/jobs/bad"))
    client.hset(
        keys.job_key("bad3"), mapping={"data": b'["f",null,[],{}]', "crash": '{"peak_memory": "x", "at": []}'}
    )
    pages.get("/jobs/bad3")


def test_a_pickled_job_is_said_to_be_one_and_offers_no_copy(pages, client):
    id = Queue("default", connection=client).enqueue("packmule.tests.jobs.sample_jobs.add", 4, note="a").id
    page = pages.get(f"/jobs/{id}")
    shown = text_of(page)
    assert "This job is pickled. Packmule never opens a pickle" in shown
    assert "names the function packmule.tests.jobs.sample_jobs.add ." in shown
    assert "None." not in shown
    assert "Copy…" not in shown
    assert "can't be copied: the payload is a pickle" in text_of(pages.get("/jobs/new?copy=" + id, 400))
    assert "can't be copied" in text_of(pages.post("/jobs/new", 400, copy=id))
    assert "the payload is a pickle" in text_of(pages.get("/jobs"))
    pages.viewer = Viewer("eve", Role.VIEWER)
    shown = text_of(pages.get(f"/jobs/{id}"))
    assert "This job is pickled" in shown
    assert "add(4" not in shown
    unnamed = Queue("default", connection=client).enqueue("math.sqrt", 4, description="nightly <b>").id
    assert "names the function" not in text_of(pages.get(f"/jobs/{unnamed}"))


def test_a_page_takes_at_most_twenty_trips(pages, client, claims, monkeypatch):
    with Batch.create("b") as batch:
        id = sample_jobs.add.options(batch=batch.id, retries=3, retry_intervals=[0]).enqueue(1)
    end(claims, TRACE)
    queued = limited_jobs.alone.enqueue("/nowhere", "a")
    sent: list[object] = []
    send = AbstractConnection.send_packed_command

    def count(connection, command, *args, **options):
        sent.append(command)
        return send(connection, command, *args, **options)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", count)
    for each in (id, queued, waiting_job(client)):
        sent.clear()
        pages.get(f"/jobs/{each}")
        assert len(sent) <= 20, each
