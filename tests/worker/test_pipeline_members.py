"""Pipelines that make a job of each file of an archive: nothing is published before the last has ended."""

from __future__ import annotations

import json

import pytest

from packmule.jobs import context
from packmule.jobs.context import Running
from packmule.jobs.files import each_member
from packmule.jobs.files.unpacking import unpack
from packmule.jobs.flow import Flow
from packmule.jobs.pipelines import Pipeline, publishing, step
from packmule.jobs.storage import Storage
from packmule.tests.jobs.archives import zipped
from packmule.tests.worker import pipeline_jobs
from packmule.worker import Worker

pytestmark = pytest.mark.usefixtures("produce")

MEMBER = f"{pipeline_jobs.__name__}.member"


@pytest.fixture
def folder(tmp_path, limits):
    lent = Storage(str(tmp_path / "store"))
    context.provide(lent, limits)
    return lent


def stored(folder, **members: bytes) -> str:
    """The path of an archive; `__` in a member's name is a slash."""
    contents = [(name.replace("__", "/"), content) for name, content in members.items()]
    folder.write_bytes("uploads/1/a.zip", zipped(contents))
    return "uploads/1/a.zip"


def work(client, *queues, **bounds):
    Worker(list(queues or ("default", "low")), connection=client).work(burst=True, **bounds)


def pipeline(**settings) -> Pipeline:
    return Pipeline("simple", unpack, step(each_member, name="each", reads="unpack", each=MEMBER, **settings))


def published(folder, flow) -> list[str]:
    place = f"results/simple/a.zip/{flow.id}/"
    return [name.removeprefix(place) for name in folder.names(place)]


def manifest(folder, flow):
    return json.loads(folder.read_bytes(f"results/simple/a.zip/{flow.id}/manifest.json"))


def test_nothing_is_published_before_the_last_job_of_a_file_has_ended(client, folder):
    flow = pipeline().enqueue(stored(folder, a=b"one", b__c=b"two", d=b"three"))
    while flow.state().ended is None:
        assert published(folder, flow) == []
        work(client, "low", "default", max_jobs=1)
    assert flow.state().counts == (7, 7, 0, 0)  # with two ends, of which the first has put the second there
    each = [f"each/{name}/{part}.txt" for name in ("a", "b/c", "d") for part in ("half", "whole")]
    unpacked = ["unpack/a", "unpack/b/c", "unpack/d", "unpack/members.jsonl"]
    assert published(folder, flow) == [*each, "manifest.json", *unpacked]
    found = manifest(folder, flow)
    assert found["steps"][1]["jobs"] == {"done": 3}
    assert [each["path"] for each in found["outputs"]] == [*unpacked, *each]
    assert folder.names("staging/") == []


def test_jobs_of_files_convert_each_to_a_name_of_its_own(client, folder):
    tables = {"orders.csv": b"a,b\n1,x\n", "orders.tsv": b"a\tb\n2\ty\n"}
    packed = stored(folder, **tables)
    convert = step(each_member, name="tables", reads="unpack", each="file", arguments={"to": "jsonl"})
    flow = Pipeline("simple", unpack, convert).enqueue(packed)
    work(client)
    made = [name for name in published(folder, flow) if name.startswith("tables/")]
    assert made == ["tables/orders.csv/orders.jsonl", "tables/orders.tsv/orders.jsonl"]


@pytest.mark.parametrize("queues", [("default", "low"), ("low", "default")])
def test_a_failed_file_publishes_nothing_until_it_is_retried(client, folder, tmp_path, queues):
    """The end looks at the files' jobs after they have run, or before."""
    gate = tmp_path / "gate"
    flow = pipeline(arguments={"fails_unless": str(gate)}).enqueue(stored(folder, a=b"one", b=b"bad"))
    work(client, *queues)
    assert flow.wait(10).counts == (6, 4, 1, 1)
    assert folder.names("results/") == []
    gate.touch()
    assert Flow.at(flow.id).retry() == 1
    work(client, *queues)
    assert flow.wait(10).counts.done == flow.state().counts.total
    assert "each/b/whole.txt" in published(folder, flow)
    assert folder.names("staging/") == []


def test_files_may_fail_and_the_rest_is_published_without_what_these_wrote(client, folder):
    flow = pipeline(on_failure="continue").enqueue(stored(folder, a=b"one", b=b"bad", bad__c=b"bad"))
    work(client)
    assert flow.wait(10).counts.failed == 2
    assert [each for each in published(folder, flow) if each.startswith("each/")] == [
        "each/a/half.txt", "each/a/whole.txt"
    ]  # fmt: skip
    said = manifest(folder, flow)["steps"][1]
    assert said["jobs"] == {"done": 1, "failed": 2}
    assert [each["error"] for each in said["failures"]] == ["ValueError: it is bad"] * 2


def test_more_files_than_an_end_can_wait_for_are_awaited_in_turn(client, folder, monkeypatch):
    monkeypatch.setattr(publishing, "MOST_ADDED", 2)
    members = {f"f{number}": b"%d" % number for number in range(7)}
    flow = pipeline().enqueue(stored(folder, **members))
    while flow.state().ended is None:
        work(client, "low", "default", max_jobs=1)  # the ends as early as they can, with no claim of several
    assert flow.wait(10).counts == (14, 14, 0, 0)
    assert len([each for each in published(folder, flow) if each.endswith("whole.txt")]) == 7


def test_an_empty_archive_is_published_too(client, folder):
    flow = pipeline().enqueue(stored(folder))
    work(client)
    assert flow.wait(10).counts == (3, 3, 0, 0)
    assert published(folder, flow) == ["manifest.json", "unpack/members.jsonl"]


def test_a_canceled_flow_leaves_nothing_of_its_files(client, folder):
    flow = pipeline().enqueue(stored(folder, a=b"one", b=b"two"))
    while flow.state().counts.total < 5:
        work(client, max_jobs=1)
    flow.cancel()
    work(client)
    assert flow.state().is_canceled
    assert folder.names() == ["uploads/1/a.zip"]


def test_an_end_that_runs_again_puts_one_other_there(client, folder):
    """As after a crash behind the addition, before the acknowledgement."""
    flow = pipeline().enqueue(stored(folder, a=b"one"))
    work(client, "low", "default", max_jobs=3)
    assert flow.state().counts == (5, 3, 0, 0)
    with Running(f"{flow.id}-2", 1, lambda *_: None, batch=flow.id):
        publishing.publish("uploads/1/a.zip", "simple", {"unpack": "", "each": ""})
    work(client)
    assert flow.wait(10).counts == (5, 5, 0, 0)
    assert "manifest.json" in published(folder, flow)
