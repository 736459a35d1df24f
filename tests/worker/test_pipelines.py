"""Pipelines: what the steps of a flow make of a file appears at once, or not at all."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from contextlib import suppress
from hashlib import sha256

import msgspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from packmule.jobs import context, control, keys, reader
from packmule.jobs.files import file
from packmule.jobs.files.unpacking import unpack
from packmule.jobs.flow import Flow
from packmule.jobs.pipelines import Pipeline, publishing, staging, step
from packmule.jobs.storage import Storage, StorageError
from packmule.tests.jobs.s3_server import ENVIRONMENT, forget, s3_server
from packmule.tests.worker import pipeline_jobs
from packmule.tests.worker.pools import until
from packmule.worker import Worker

pytestmark = pytest.mark.usefixtures("produce")


@pytest.fixture(params=["folder", "memory"])
def storage(request, tmp_path):
    url = str(tmp_path / "store") if request.param == "folder" else f"memory://{tmp_path}"
    lent = Storage(url)
    lent.write_bytes("uploads/1/a.txt", b"one\ntwo")
    context.provide(lent)
    return lent


def work(client):
    Worker(["default", "low"], connection=client).work(burst=True)


def place(flow):
    return f"results/simple/a.txt/{flow.id}"


def manifest_of(storage, place):
    return json.loads(storage.read_bytes(f"{place}/manifest.json"))


def test_all_outputs_appear_with_a_manifest(client, storage):
    flow = pipeline_jobs.simple.enqueue("uploads/1/a.txt")
    work(client)
    assert flow.wait(10).counts == (4, 4, 0, 0)
    assert flow.state().name == "simple: a.txt"
    published = ["manifest.json", "parts/0.txt", "parts/1.txt", "upper/a.up"]
    assert storage.names() == [f"{place(flow)}/{each}" for each in published] + ["uploads/1/a.txt"]
    assert storage.read_bytes(f"{place(flow)}/parts/1.txt") == b"TWO"
    found = manifest_of(storage, place(flow))
    assert found["source"]["path"] == "uploads/1/a.txt"
    assert found["source"]["sha256"] == sha256(b"one\ntwo").hexdigest()
    assert [(each["step"], each["state"]) for each in found["steps"]] == [
        ("count", "done"), ("upper", "done"), ("parts", "done")
    ]  # fmt: skip
    assert found["steps"][0]["result"] == {"source": "uploads/1/a.txt", "bytes": 7}
    assert found["steps"][1]["result"]["path"] == f"{place(flow)}/upper/a.up"
    assert found["outputs"] == [
        {"step": "upper", "path": "upper/a.up", "bytes": 7},
        {"step": "parts", "path": "parts/0.txt", "bytes": 3},
        {"step": "parts", "path": "parts/1.txt", "bytes": 3},
    ]
    result = reader.read(client, f"{flow.id}-3").result
    assert result["path"] == f"{place(flow)}/manifest.json"
    assert result["count"] == 3
    assert result["bytes"] == 13
    assert reader.read(client, f"{flow.id}-1").description == "upper: a.txt"


def test_a_failure_publishes_nothing_and_a_retry_uses_what_is_done(client, storage, tmp_path):
    gate = tmp_path / "gate"
    flow = Pipeline(
        "simple", pipeline_jobs.upper, step(pipeline_jobs.parts, fails_unless=str(gate), reads="upper")
    ).enqueue("uploads/1/a.txt")
    work(client)
    assert flow.wait(10).counts == (3, 1, 1, 1)
    assert storage.names("results/") == []
    staged = storage.version(f"staging/{flow.id}/upper/upper.txt")
    assert staged is not None
    gate.touch()
    assert Flow.at(flow.id).retry() == 1
    work(client)
    assert flow.wait(10).counts == (3, 3, 0, 0)
    assert storage.names("staging/") == []
    assert len(storage.names(place(flow))) == 4


def test_a_step_may_fail_and_the_others_go_on(client, storage):
    flow = Pipeline(
        "simple",
        step(pipeline_jobs.parts, fails_unless="/nowhere", on_failure="continue"),
        step(pipeline_jobs.upper, name="of_it", reads="parts/0.txt", on_failure="continue"),
        step(pipeline_jobs.upper, name="last"),
    ).enqueue("uploads/1/a.txt")
    work(client)
    assert flow.wait(10).counts == (4, 2, 1, 1)
    found = manifest_of(storage, place(flow))
    assert [each["state"] for each in found["steps"]] == ["failed", "canceled", "done"]
    assert found["steps"][0]["error"] == "ValueError: as it should"
    assert storage.names("staging/") == []
    assert storage.names(place(flow)) == [f"{place(flow)}/last/upper.txt", f"{place(flow)}/manifest.json"]


def test_a_jobs_out_may_be_a_file(client, storage):
    pipeline = Pipeline(
        "simple",
        pipeline_jobs.copy,
        step(pipeline_jobs.copy, name="copies", out="deep/{name}", reads="copy"),
        step(pipeline_jobs.upper, reads="copies/deep/{name}"),
    )
    flow = pipeline.enqueue("uploads/1/a.txt")
    work(client)
    assert storage.names("staging/") == []
    published = ["copies/deep/a.txt", "copy", "manifest.json", "upper/upper.txt"]
    assert storage.names(place(flow)) == [f"{place(flow)}/{each}" for each in published]


def test_what_a_step_hands_on_must_be_a_path(client, storage):
    flow = Pipeline("simple", pipeline_jobs.parts, step(pipeline_jobs.upper, reads="parts")).enqueue(
        "uploads/1/a.txt"
    )
    work(client)
    reason = reader.read(client, f"{flow.id}-1").reason
    assert "the result of node 0 has no path, which the job takes" in reason


def test_a_member_of_an_archive_becomes_a_table(client, tmp_path, limits):
    storage = Storage(str(tmp_path / "store"))
    context.provide(storage, limits)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("orders/a.csv", "a,b\n1,x\n")
        archive.writestr("b.txt", "b")
    storage.write_bytes("uploads/1/a.txt", packed.getvalue())
    pipeline = Pipeline("simple", unpack, step(file, name="table", to="parquet", reads="unpack/orders/a.csv"))
    flow = pipeline.enqueue("uploads/1/a.txt")
    work(client)
    assert flow.wait(10).counts == (3, 3, 0, 0)
    published = [each.removeprefix(f"{place(flow)}/") for each in storage.names(place(flow))]
    assert published == [
        "manifest.json", "table/a.parquet", "unpack/b.txt", "unpack/members.jsonl", "unpack/orders/a.csv"
    ]  # fmt: skip
    assert storage.names("staging/") == []


def test_a_paused_flow_goes_on_where_it_was(client, storage):
    flow = pipeline_jobs.simple.enqueue("uploads/1/a.txt")
    Worker(["default", "low"], connection=client).work(burst=True, max_jobs=1)
    flow.pause()
    work(client)
    assert (flow.state().counts.done, storage.names("results/")) == (1, [])
    flow.resume()
    work(client)
    assert storage.exists(f"{place(flow)}/manifest.json")


def test_a_canceled_flow_leaves_nothing_staged(client, storage, tmp_path):
    notes = tmp_path / "notes"
    flow = Pipeline("simple", pipeline_jobs.upper, step(pipeline_jobs.slow, notes=str(notes))).enqueue(
        "uploads/1/a.txt"
    )
    cancel = threading.Thread(target=lambda: (until(notes.exists), flow.cancel()))
    cancel.start()
    work(client)
    cancel.join()
    work(client)
    assert flow.state().is_canceled
    assert storage.names() == ["uploads/1/a.txt"]


def test_an_output_that_is_gone_fails_the_end_with_its_name(client, storage):
    flow = pipeline_jobs.simple.flow("uploads/1/a.txt")
    with flow:
        pass
    for _ in range(3):
        Worker(["default", "low"], connection=client).work(burst=True, max_jobs=1)
    storage.delete(f"staging/{flow.id}/parts/1.txt")
    work(client)
    reason = reader.read(client, f"{flow.id}-3").reason
    assert f"staging/{flow.id}/parts/1.txt, which step parts names, is gone: run the pipeline again" in reason
    assert storage.names("results/") == []


def test_what_a_job_writes_beside_its_steps_folder_is_not_published(client, storage):
    silent = Pipeline("simple", pipeline_jobs.silent).enqueue("uploads/1/a.txt")
    work(client)
    published = [name.removeprefix(f"{place(silent)}/") for name in storage.names(place(silent))]
    assert published == ["manifest.json", "silent/it.txt"]
    assert manifest_of(storage, place(silent))["outputs"] == [
        {"step": "silent", "path": "silent/it.txt", "bytes": 2}
    ]
    beside = Pipeline("simple", pipeline_jobs.beside).enqueue("uploads/1/a.txt")
    work(client)
    staged = f"staging/{beside.id}"
    assert (
        f"{staged}/beside.txt, which step beside names, is outside of its folder {staged}/beside, so it "
        "isn't published: have its job write to its argument out"
    ) in reader.read(client, f"{beside.id}-1").reason
    assert storage.names(place(beside)) == []


def test_publishing_again_changes_nothing(client, storage):
    """As after a crash behind the move, before the acknowledgement."""
    flow = pipeline_jobs.simple.enqueue("uploads/1/a.txt")
    work(client)
    before = {each: storage.version(each) for each in storage.names()}
    first = reader.read(client, f"{flow.id}-3").result
    storage.write_bytes(f"staging/{flow.id}/parts/9.txt", b"of a run that was frozen")
    again = publish_in(flow, "uploads/1/a.txt")
    assert again == first
    assert {each: storage.version(each) for each in storage.names()} == before


def publish_in(flow, source):
    from packmule.jobs.context import Running
    from packmule.jobs.pipelines.publishing import publish

    names = {"count": "count", "upper": "upper", "parts": "parts"}
    with Running(f"{flow.id}-3", 1, lambda *_: None, batch=flow.id):
        return publish(source, "simple", names)


def published_in_part(client, storage, monkeypatch, copies: int):
    """A flow whose end was broken off after so many copies within the store."""
    storage.write_bytes("uploads/1/a.txt", b"one\ntwo")
    context.provide(storage)
    flow = pipeline_jobs.simple.enqueue("uploads/1/a.txt")
    real, left = MemoryFileSystem.cp_file, iter(range(copies))

    def fails(self, *args, **kwargs):
        if next(left, None) is None:
            raise OSError("the connection is lost")
        return real(self, *args, **kwargs)

    for _ in range(3):
        Worker(["default", "low"], connection=client).work(burst=True, max_jobs=1)
    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "cp_file", fails)
        work(client)
    return flow


@pytest.mark.parametrize("copies", range(4))
def test_a_store_that_fails_amidst_publishing_shows_nothing_until_it_is_whole(
    client, tmp_path, monkeypatch, copies
):
    storage = Storage(f"memory://{tmp_path}")
    flow = published_in_part(client, storage, monkeypatch, copies)
    assert not storage.exists(f"{place(flow)}/manifest.json")
    assert reader.read(client, f"{flow.id}-3").status == "scheduled"
    control.run_now(client, f"{flow.id}-3")
    work(client)
    assert len(manifest_of(storage, place(flow))["outputs"]) == 3
    assert len(storage.names(place(flow))) == 4
    assert storage.names("staging/") == []


@pytest.mark.parametrize("ending", ["cancel", "forget"])
def test_a_flow_that_ends_amidst_publishing_leaves_nothing_of_it(client, tmp_path, monkeypatch, ending):
    storage = Storage(f"memory://{tmp_path}")
    flow = published_in_part(client, storage, monkeypatch, copies=3)
    assert len(storage.names(f"{place(flow)}/")) == 2
    if ending == "cancel":
        flow.cancel()
        work(client)
    else:
        client.delete(keys.batch_key(flow.id))
        client.zadd(staging.STAGED, {flow.id: 0})
        assert staging.remove_leftovers(storage, client) == 1
    assert storage.names() == ["uploads/1/a.txt"]


FROZEN = {
    "before it looks what there is": (publishing, "Ends"),
    "before it writes its manifest": (msgspec.json, "format"),
    "before it looks again": (publishing, "_check_whole"),
    "before it moves": (Storage, "move_folder"),
}


@pytest.mark.parametrize("ending", ["published", "canceled"])
@pytest.mark.parametrize("at", FROZEN)
def test_an_end_that_was_frozen_publishes_nothing_of_a_flow_that_is_over(
    client, storage, monkeypatch, at, ending
):
    """Another worker has published it meanwhile, or it was canceled; its step names no files."""
    flow = Pipeline("simple", pipeline_jobs.silent).enqueue("uploads/1/a.txt")
    Worker(["default"], connection=client).work(burst=True)
    monkeypatch.setattr(Flow, "current", lambda: Flow.at(flow.id))
    call = ("uploads/1/a.txt", "simple", {"silent": pipeline_jobs.silent.job.name})
    owner, name = FROZEN[at]
    real = getattr(owner, name)

    def thaws_late(*args, **kwargs):
        monkeypatch.setattr(owner, name, real)
        if ending == "published":
            publishing.publish(*call)
        else:
            flow.cancel()
            staging.give_up(storage, flow.id)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, thaws_late)
    with suppress(StorageError, publishing.MissingOutput):
        publishing.publish(*call)
    whole = [f"{place(flow)}/manifest.json", f"{place(flow)}/silent/it.txt"]
    assert storage.names() == [*(whole if ending == "published" else []), "uploads/1/a.txt"]
    if ending == "published":
        assert len(manifest_of(storage, place(flow))["outputs"]) == 1


@pytest.mark.parametrize("said", [b"\xff", b"[" * 5000, b'{"pipeline": "../..", "source": {"path": "a"}}'])
def test_a_staged_manifest_that_is_garbage_keeps_nothing_from_being_removed(client, storage, said):
    storage.write_bytes(f"staging/{'1' * 32}/manifest.json", said)
    staging.note(client, "1" * 32)
    client.zadd(staging.STAGED, {"1" * 32: 0})
    assert staging.remove_leftovers(storage, client) == 1
    assert storage.names() == ["uploads/1/a.txt"]


def test_what_was_published_whole_stays_when_its_flow_is_given_up(client, storage):
    """As after a kill behind the last copy."""
    flow = pipeline_jobs.simple.enqueue("uploads/1/a.txt")
    work(client)
    published = storage.names("results/")
    manifest = storage.read_bytes(f"{place(flow)}/manifest.json")
    storage.write_bytes(f"staging/{flow.id}/manifest.json", manifest)
    staging.give_up(storage, flow.id)
    assert storage.names("results/") == published
    assert storage.names("staging/") == []


def test_results_are_published_in_s3(client, monkeypatch):
    s3fs = pytest.importorskip("s3fs")
    with s3_server() as port:
        for name, value in (*ENVIRONMENT.items(), ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")):
            monkeypatch.setenv(name, value)
        forget()
        s3fs.S3FileSystem().mkdir("bucket")
        storage = Storage("s3://bucket/files")
        storage.write_bytes("uploads/1/a.txt", b"one\ntwo")
        context.provide(storage)
        flow = pipeline_jobs.simple.enqueue("uploads/1/a.txt")
        work(client)
        assert len(manifest_of(storage, place(flow))["outputs"]) == 3
        assert len(storage.names(place(flow))) == 4
        assert storage.names("staging/") == []


def test_folders_of_flows_that_are_over_are_removed(client, storage):
    over = pipeline_jobs.simple.enqueue("uploads/1/a.txt")
    work(client)
    canceled = pipeline_jobs.simple.enqueue("uploads/1/a.txt")
    canceled.cancel()
    failed = Pipeline("simple", pipeline_jobs.upper, step(pipeline_jobs.parts, fails_unless="/no")).enqueue(
        "uploads/1/a.txt"
    )
    work(client)
    waiting, gone = pipeline_jobs.simple.enqueue("uploads/1/a.txt"), "0" * 32
    staging.note(client, gone)
    client.zadd(staging.STAGED, {"../uploads": 0, b"\xff": 0})
    for id in (over.id, canceled.id, waiting.id, gone):
        storage.write_bytes(f"staging/{id}/x/late.txt", b"late")
    assert (
        staging.remove_leftovers(storage, client) == 2
    )  # what is no flow's; the others are too young to be judged
    client.zadd(staging.STAGED, dict.fromkeys(client.zrange(staging.STAGED, 0, -1), 0))
    removed = staging.remove_leftovers(storage, client)
    left = {name.split("/")[1] for name in storage.names("staging/")}
    assert removed == 3
    assert left == {failed.id, waiting.id}
    assert client.zcard(staging.STAGED) == 2
    client.delete(keys.batch_key(failed.id))
    client.zadd(staging.STAGED, {failed.id: 0})
    staging.remove_leftovers(storage, client)
    assert {name.split("/")[1] for name in storage.names("staging/")} == {waiting.id}
    assert storage.exists("uploads/1/a.txt")
