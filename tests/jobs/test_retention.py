"""Retention: what belongs together goes together, and nothing that a living job may read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from packmule import chain, result
from packmule.coordination.cache.cache import Cache
from packmule.jobs import context, keys, outputs, places, reader, schedule_store
from packmule.jobs.auditor import Auditor
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.jobs.retention.in_use import in_use, is_used
from packmule.jobs.retention.made import gather, place_of
from packmule.jobs.retention.prune import prune
from packmule.jobs.retention.scheduled import files_prune
from packmule.jobs.schedule import schedule
from packmule.jobs.storage import Storage, StoredFile
from packmule.jobs.storage.taking import NotOverwritten, names_for, take
from packmule.tests.jobs import sample_jobs
from packmule.units import DAY
from packmule.worker import Worker


@pytest.fixture
def storage(tmp_path):
    return Storage(str(tmp_path / "files"))


def old(storage: Storage, *paths: str) -> None:
    for path in paths:
        storage.write_bytes(path, b"x")
        os.utime(storage.locate(path), (1, 1))


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("converted/7/a.parquet", "converted/7"),
        ("unpacked/7/b/c/d.csv", "unpacked/7"),
        ("results/intake/a.csv/7/table/a.parquet", "results/intake/a.csv/7"),
        ("converted/mine.parquet", "converted/mine.parquet"),
    ],
)
def test_what_was_made_together_has_one_place(path, place):
    assert place_of(path) == place


def test_a_folder_is_as_young_as_its_newest_file_and_served_renditions_are_not_counted():
    files = [
        StoredFile("unpacked/1/a", 10, 100.0),
        StoredFile("unpacked/1/b", 10, 900.0),
        StoredFile("unpacked/2/a", 5, 500.0),
        StoredFile("renditions/served/ab/c.webp", 5, 1.0),
        StoredFile("fetched/odd", None, None),
    ]
    found = [(each.path, each.files, each.bytes, each.written_at) for each in gather(files)]
    assert found == [
        ("unpacked/2", 1, 5, 500.0),
        ("unpacked/1", 2, 20, 900.0),
        ("fetched/odd", 1, 0, float("inf")),
    ]


def test_jobs_in_any_state_that_is_not_an_end_keep_what_they_name(client):
    jobs = Client(client)
    queued = jobs.enqueue(sample_jobs.echo, "converted/queued/a.parquet")
    jobs.enqueue(sample_jobs.echo.options(delay=3600), "converted/scheduled/a.parquet")
    jobs.enqueue(sample_jobs.echo.options(after=[queued]), "converted/deferred/a.parquet")
    jobs.enqueue(sample_jobs.echo.options(priority=2), "converted/first/a.parquet")
    held = Batch.create("held", client=jobs)
    held.pause()
    jobs.enqueue(sample_jobs.echo.options(batch=held.id), "converted/held/a.parquet")
    canceled = jobs.enqueue(sample_jobs.echo, "converted/canceled/a.parquet")
    canceled.cancel()
    used = in_use(client)
    for name in ("queued", "scheduled", "deferred", "first", "held"):
        assert is_used(f"converted/{name}/a.parquet", used), name
        assert is_used(f"converted/{name}/other.jsonl", used), name
    assert is_used(f"converted/{queued}/a.parquet", used)
    assert is_used(f"results/intake/a.csv/{held.id}/manifest.json", used)
    assert not is_used("converted/canceled/a.parquet", used)


def test_what_a_flow_hands_on_is_in_use_by_the_id_of_the_job_that_made_it(client):
    flow = chain(sample_jobs.echo.call("a"), sample_jobs.echo.call(result)).enqueue(
        "f", client=Client(client)
    )
    ids = [id.decode() for id in client.hkeys(f"{keys.batch_key(flow.id)}:jobs")]
    used = in_use(client)
    assert len(ids) == 2
    assert all(is_used(f"converted/{id}/a.parquet", used) for id in ids)


def test_what_the_steps_the_checkpoint_and_the_signals_of_a_waiting_job_say_is_in_use(client, storage):
    jobs = Client(client)
    waiting = jobs.enqueue(sample_jobs.waits_with, "a step")
    Worker(["default"], connection=client).work(burst=True)
    assert reader.read(client, waiting).status == "deferred"
    assert is_used("converted/a step/a.parquet", in_use(client))
    client.hset(keys.job_key(waiting), "checkpoint", '{"next": "converted/checkpoint/a.parquet"}')
    jobs.job(waiting).signal("later", {"path": "converted/signal/a.parquet"})
    used = in_use(client)
    for name in ("a step", "checkpoint", "signal"):
        assert is_used(f"converted/{name}/a.parquet", used), name


def test_what_a_batch_has_collected_is_in_use_until_its_callback_has_ended(client, storage):
    jobs = Client(client)
    with Batch.create("all", client=jobs, collect=True, on_complete=sample_jobs.echo.prepare("x")) as batch:
        made = jobs.enqueue(sample_jobs.echo.options(batch=batch.id), "converted/named/a.parquet")
        jobs.enqueue(sample_jobs.echo.options(batch=batch.id, queue="low"), "x")
    Worker(["default"], connection=client).work(burst=True)
    paths = ("converted/named/a.parquet", f"converted/{made}/a.parquet")
    assert reader.read(client, made).status == "finished"
    assert all(is_used(path, in_use(client)) for path in paths)
    Worker(["low"], connection=client).work(burst=True)
    assert batch.state().counts.done == 2
    assert all(is_used(path, in_use(client)) for path in paths)  # the callback waits
    Worker(["default"], connection=client).work(burst=True)
    assert not any(is_used(path, in_use(client)) for path in paths)


def test_what_a_schedule_names_is_in_use_until_it_is_removed(client):
    schedule_store.put(client, schedule("daily", {
        "job": sample_jobs.echo.job.name, "every": "1d", "args": ["converted/daily/a.parquet"],
    }))  # fmt: skip
    assert is_used("converted/daily/a.parquet", in_use(client))
    schedule_store.pause(client, "daily")
    assert is_used("converted/daily/a.parquet", in_use(client))
    schedule_store.remove(client, "daily")
    assert not is_used("converted/daily/a.parquet", in_use(client))


def test_what_a_claimed_job_names_is_in_use_before_it_is_marked_as_started(client, claims):
    Client(client).enqueue(sample_jobs.echo, "converted/claimed/a.parquet")
    client.zadd(keys.LEASES, {"w1": time.time() + 60})
    (claimed,) = claims.finish_and_claim("c1", [], 1).jobs
    assert is_used("converted/claimed/a.parquet", in_use(client))
    client.lpush(keys.waiting_key("w2"), client.hdel(keys.claims_key("w1"), claimed.id) and claimed.id)
    client.zadd(keys.LEASES, {"w2": time.time() + 60})
    assert is_used("converted/claimed/a.parquet", in_use(client))


def test_what_a_job_names_that_is_given_back_amidst_the_look_is_in_use(client, claims, monkeypatch):
    """It is claimed after its queue's head was about to be read, and back before the claims are."""
    jobs = Client(client)
    moving = jobs.enqueue(sample_jobs.echo, "converted/moving/a.parquet")
    real, looks = places._from_end, []

    def moves_away(redis, place, at, following):
        if place.key != keys.queue_key("default") or looks:
            return real(redis, place, at, following)
        looks.append(client.lrem(place.key, 1, moving))
        found = real(redis, place, at, following)
        client.lpush(place.key, moving)
        return found

    monkeypatch.setattr(places, "_from_end", moves_away)
    assert is_used("converted/moving/a.parquet", in_use(client))
    assert looks == [1]


def test_a_folder_that_a_job_names_is_in_use_with_all_below_it(client):
    Client(client).enqueue(sample_jobs.echo, "results/intake/")
    used = in_use(client)
    assert is_used("results/intake/a.csv/7/table/a.parquet", used)
    assert not is_used("results/other/a.csv/7/table/a.parquet", used)


def test_nothing_is_deleted_if_redis_does_not_say_what_is_in_use(client, server, storage):
    old(storage, "converted/1/a.parquet")
    Client(client).enqueue(sample_jobs.echo, "converted/1/a.parquet")
    client.acl_setuser(
        "half", enabled=True, nopass=True, keys="*", channels="*", commands=["+@all", "-hmget"]
    )
    try:
        with (
            Redis.from_url(server.url, username="half", password="any") as half,
            pytest.raises(NoPermissionError),
        ):
            prune(storage, half, DAY, None)
    finally:
        client.acl_deluser("half")
    assert storage.names() == ["converted/1/a.parquet"]


def test_a_folder_that_is_written_to_after_it_was_found_stays(client, storage):
    old(storage, "converted/1/a.parquet", "converted/2/a.parquet")

    def before(deleting):
        storage.write_bytes("converted/2/b.parquet", b"x")

    pruned = prune(storage, client, DAY, None, before=before)
    assert [each.path for each in pruned.deleted] == ["converted/1"]
    assert storage.names() == ["converted/2/a.parquet", "converted/2/b.parquet"]


def test_a_pruning_that_takes_long_or_was_frozen_looks_again_what_jobs_use(client, storage, monkeypatch):
    old(storage, "converted/1/a.parquet", "converted/2/a.parquet")

    def before(deleting):
        Client(client).enqueue(sample_jobs.echo, "converted/2/a.parquet")
        later = time.time() + 100
        monkeypatch.setattr(time, "time", lambda: later)

    pruned = prune(storage, client, DAY, None, before=before)
    assert ([each.path for each in pruned.deleted], pruned.used) == (["converted/1"], 1)
    assert storage.names() == ["converted/2/a.parquet"]


def test_records_that_can_not_be_read_stop_no_pruning(client, storage):
    old(storage, "converted/1/a.parquet")
    broken, odd = (Client(client).enqueue(sample_jobs.echo, "x") for _ in range(2))
    client.hset(f"rq:job:{broken}", mapping={"data": b"\x80\x04pickle", "dependency_ids": b"[" * 100_000})
    client.delete(f"rq:job:{odd}")
    client.lpush(f"rq:job:{odd}", "of another type")
    assert prune(storage, client, DAY, None).deleted_files == 1


def test_a_pruning_that_is_killed_is_repeated_and_a_second_does_no_harm(client, server, storage, tmp_path):
    old(storage, *(f"unpacked/{number}/{name}.csv" for number in range(150) for name in "ab"))
    storage.write_bytes("unpacked/new/a.csv", b"x")
    program = (
        "import sys\nfrom pathlib import Path\nfrom packmule.coordination.redis.connection import connect\n"
        "from packmule.jobs.retention.prune import prune\nfrom packmule.jobs.storage import Storage\n"
        "with connect(None, Path(sys.argv[2])) as client:\n"
        "    print('begun', flush=True)\n"
        "    prune(Storage(sys.argv[1]), client, 86400, None)\n"
    )
    command = [sys.executable, "-c", program, storage.locate("x")[:-2], str(server.data_dir)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) as first:
        assert first.stdout
        assert first.stdout.readline() == b"begun\n"
        deadline = time.monotonic() + 30
        while len(storage.names()) == 301 and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        first.send_signal(signal.SIGKILL)
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL) as other:
        prune(storage, client, DAY, None)
        assert other.wait(60) == 0
    assert storage.names() == ["unpacked/new/a.csv"]


def test_each_thousand_places_is_in_the_audit_before_it_is_deleted(client, storage, monkeypatch):
    monkeypatch.setattr("packmule.jobs.retention.prune.AT_ONCE", 40)
    old(storage, *(f"unpacked/{number:03}/{name}.csv" for number in range(100) for name in "ab"))
    recorded = []

    def record(action, subject):
        recorded.append((action, subject, len(storage.names())))
        if len(recorded) == 3:
            raise ConnectionError("Redis is away")

    context.provide(storage, Cache(client, "jobs"), Auditor(record))
    with pytest.raises(ConnectionError):
        files_prune(keep=DAY)
    assert [(said["deleted"], said["bytes"], said["places"], there) for _, said, there in recorded] == [
        (80, 80, 40, 200), (80, 80, 40, 120), (40, 40, 20, 40)
    ]  # fmt: skip
    assert recorded[0][1]["first"] == [f"unpacked/{number:03}" for number in range(20)]
    assert len(storage.names()) == 40  # what isn't recorded isn't deleted
    assert files_prune(keep=DAY)["deleted"] == 40
    files_prune(keep=DAY)
    assert len(recorded) == 4  # nothing was left to say


@pytest.mark.parametrize("whose", ["of this host", "of Redis"])
def test_a_clock_that_has_jumped_ahead_makes_nothing_old(client, storage, monkeypatch, whose):
    old(storage, "converted/1/a.parquet")
    storage.write_bytes("converted/2/a.parquet", b"x")
    year = time.time() + 365 * DAY
    if whose == "of Redis":
        monkeypatch.setattr(client, "time", lambda: (year, 0))
    else:
        monkeypatch.setattr(time, "time", lambda: year)
    assert [each.path for each in prune(storage, client, DAY, 0).deleted] == ["converted/1"]


PRUNE = """
import os, sys
from pathlib import Path
from packmule.coordination.redis.connection import connect
from packmule.jobs.retention.prune import prune
from packmule.jobs.storage import Storage
with connect(None, Path(sys.argv[2])) as client:
    client.ping()
    os.setresuid(*[int(sys.argv[3])] * 3)
    pruned = prune(Storage(sys.argv[1]), client, 86400, None)
    print(*[each.path for each in pruned.deleted], *pruned.faults, sep=chr(10))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_can_not_be_deleted_keeps_nothing_else(client, server, storage):
    old(storage, "converted/0/x", "unpacked/1/x", "unpacked/2/x")
    for folder in ("converted", "converted/0", "unpacked", "unpacked/1"):
        os.chown(storage.locate(folder), 65534, 65534)
    for above in Path(storage.locate("x")).parents:  # pytest keeps its folders for itself
        if above.stat().st_uid == 0 and "pytest-of" in str(above):
            above.chmod(0o755)
    os.utime(storage.locate("converted/0/x"), (2, 2))
    os.chown(storage.locate("converted"), 0, 0)
    command = [sys.executable, "-c", PRUNE, storage.locate("x")[:-2], str(server.data_dir), "65534"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.splitlines() == [
        "unpacked/1",
        "can't delete unpacked/2: Permission denied",
        "can't delete converted/0: Permission denied",
    ], done.stderr
    assert storage.names() == ["unpacked/2/x"]


def test_a_bucket_is_pruned_like_a_folder(client, bucket, monkeypatch):
    storage = Storage(f"s3://{bucket}/files")
    for name in ("unpacked/1/a.csv", "unpacked/1/b/c.csv", "uploads/1/a.csv"):
        storage.write_bytes(name, b"x")
    assert prune(storage, client, 0.0, None).deleted == []
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * DAY)
    monkeypatch.setattr(client, "time", lambda: (now + 2 * DAY, 0))
    assert prune(storage, client, DAY, None).deleted_files == 2
    assert storage.names() == ["uploads/1/a.csv"]


def test_results_name_their_files_in_several_ways(client, storage):
    handle = Client(client).enqueue(sample_jobs.echo, "x")
    info = reader.read(client, handle)
    value = {
        "source": {"path": "uploads/a"},
        "path": "unpacked/7",
        "refused_path": "r.jsonl",
        "renditions": [{"path": "a.jpg"}, {"path": "a.jpg"}],
        "files": ["b", {"path": "c"}],
        "name": "no path",
    }
    done = replace(info, status="finished", result=value)
    assert outputs.paths_of(done) == ["unpacked/7", "r.jsonl", "a.jpg", "b", "c"]
    assert outputs.paths_of(replace(done, status="failed")) == []
    for name in ("unpacked/7/x.csv", "unpacked/7/y/z.csv"):
        storage.write_bytes(name, b"x")
    assert outputs.files_of(done, storage)[:2] == ["unpacked/7/x.csv", "unpacked/7/y/z.csv"]


def test_files_are_called_as_they_are_below_the_folder_that_they_share():
    assert names_for(["a/b/c.csv"]) == {"a/b/c.csv": "c.csv"}
    assert names_for(["c.csv"]) == {"c.csv": "c.csv"}
    assert list(names_for(["a/b/c.csv", "a/b/d/c.csv", "a/bc/e.csv"]).values()) == [
        "b/c.csv",
        "b/d/c.csv",
        "bc/e.csv",
    ]
    assert names_for([]) == {}


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP])
def test_files_are_taken_out_where_no_links_are_allowed(storage, tmp_path, monkeypatch, number):
    def refuses(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuses)
    storage.write_bytes("converted/1/a.csv", b"x")
    target = tmp_path / "out/a.csv"
    assert take(storage, "converted/1/a.csv", target, overwrite=False) == "new"
    assert target.read_bytes() == b"x"
    target.write_bytes(b"mine")
    with pytest.raises(NotOverwritten):
        take(storage, "converted/1/a.csv", target, overwrite=False)
    assert target.read_bytes() == b"mine"
    assert [each.name for each in target.parent.iterdir()] == ["a.csv"]
