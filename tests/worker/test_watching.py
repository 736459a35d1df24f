"""Watching a folder: each content is sent once, whatever dies, and each file is put away or left alone."""

from __future__ import annotations

import os
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from packmule.coordination.redis.connection import connect
from packmule.jobs import batch_state, context
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.jobs.pipelines import Pipeline, content, step, watching
from packmule.jobs.pipelines.inbox import Inbox
from packmule.jobs.pipelines.watching import Watcher
from packmule.jobs.storage import Storage, StorageError
from packmule.tests.worker import pipeline_jobs
from packmule.tests.worker.pools import until
from packmule.worker import Worker

pytestmark = pytest.mark.usefixtures("produce")


@pytest.fixture
def storage(tmp_path):
    lent = Storage(str(tmp_path / "store"))
    context.provide(lent)
    return lent


@pytest.fixture
def inbox(tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


class Watched(Watcher):
    """A watcher that keeps its lines, and takes files at the first look."""

    def __init__(self, inbox, storage, client, pipeline=pipeline_jobs.simple, **options):
        self.said: list[str] = []
        super().__init__(
            inbox, pipeline, storage, Client(client), self.said.append, self.said.append,
            **{"stable": 0.0, **options},
        )  # fmt: skip


def work(client):
    Worker(["default", "low"], connection=client).work(burst=True)


def flows(client):
    return batch_state.latest(client, 1000)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir()) if folder.exists() else []


def failing(gate: Path) -> Pipeline:
    return Pipeline("simple", step(pipeline_jobs.parts, fails_unless=str(gate)))


def test_a_file_is_sent_and_put_away_when_its_flow_has_ended(client, storage, inbox):
    (inbox / "a.txt").write_bytes(b"one")
    watcher = Watched(inbox, storage, client)
    watcher.look()
    watcher.look()
    (flow,) = flows(client)
    assert (names(inbox), watcher.said) == (["a.txt"], [])
    work(client)
    watcher.look()
    assert watcher.said == [f"a.txt: results/simple/a.txt/{flow.id}/manifest.json"]
    assert (names(inbox), names(inbox / "done")) == (["done"], ["a.txt"])
    assert storage.exists(f"results/simple/a.txt/{flow.id}/manifest.json")


def test_a_file_is_left_while_it_changes(client, storage, inbox):
    (inbox / "a.txt").write_bytes(b"o")
    watcher = Watched(inbox, storage, client, stable=3600.0)
    watcher.look()
    first = watcher.inbox.files["a.txt"]
    with (inbox / "a.txt").open("ab") as file:
        file.write(b"ne")
    watcher.look()
    assert watcher.inbox.files["a.txt"] is not first
    assert list(watcher.inbox.ready(3600.0)) == []
    assert flows(client) == []


def test_a_content_that_failed_is_sent_again_only_if_it_comes_again(client, storage, inbox, tmp_path):
    (inbox / "a.txt").write_bytes(b"one")
    watcher = Watched(inbox, storage, client, failing(tmp_path / "gate"))
    watcher.look()
    work(client)
    watcher.look()
    (flow,) = flows(client)
    assert watcher.said == [f"a.txt: failed: parts: ValueError: as it should: packmule flow retry {flow.id}"]
    assert (names(inbox), names(inbox / "failed"), watcher.failures) == (["failed"], ["a.txt"], 1)
    watcher.look()
    assert len(flows(client)) == 1
    (tmp_path / "gate").touch()
    (inbox / "failed/a.txt").rename(inbox / "b.txt")
    watcher.look()
    work(client)
    watcher.look()
    assert (len(flows(client)), names(inbox / "done")) == (2, ["b.txt"])


@pytest.mark.parametrize("leaves", [False, True])
def test_a_content_whose_results_were_deleted_is_sent_again_if_it_comes_again(client, storage, inbox, leaves):
    (inbox / "a.txt").write_bytes(b"one")
    watcher = Watched(inbox, storage, client, leaves=leaves)
    watcher.look()
    work(client)
    watcher.look()
    storage.delete_folder("results")
    storage.delete_folder("uploads")
    (inbox / "a.txt").write_bytes(b"one")
    again = Watched(inbox, storage, client, leaves=leaves)
    again.look()
    work(client)
    again.look()
    published = [each for each in storage.names("results/") if each.endswith("manifest.json")]
    assert (len(flows(client)), len(published)) == ((1, 0) if leaves else (2, 1))
    assert leaves or again.said == [f"a.txt: {published[0]}"]


def test_a_content_is_sent_once_whatever_its_names_are(client, storage, inbox):
    for name in ("a.txt", "b.txt"):
        (inbox / name).write_bytes(b"one")
    watcher = Watched(inbox, storage, client)
    watcher.look()
    work(client)
    watcher.look()
    assert len(flows(client)) == 1
    assert len(storage.names("uploads/")) == 1
    (inbox / "a.txt").write_bytes(b"one")
    watcher.look()
    assert watcher.said[-1].startswith("a.txt: known: results/simple/")
    assert (len(flows(client)), names(inbox / "done")) == (1, ["a-2.txt", "a.txt", "b.txt"])


def test_watchers_of_several_hosts_send_each_content_once(client, storage, tmp_path):
    watchers = []
    for host in range(4):
        folder = tmp_path / f"inbox{host}"
        folder.mkdir()
        for number in range(25):
            (folder / f"{host}-{number}.txt").write_bytes(b"%d" % number)
        watchers.append(Watched(folder, storage, client))
    threads = [threading.Thread(target=each.look) for each in watchers]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(flows(client)) == 25
    work(client)
    assert {(state.counts.done, state.counts.total) for state in flows(client)} == {(4, 4)}
    for each in watchers:
        each.look()
        assert len(names(each.inbox.folder / "done")) == 25


def test_two_watchers_of_one_folder_send_and_move_each_file_once(client, storage, inbox):
    for number in range(40):
        (inbox / f"{number}.txt").write_bytes(b"%d" % number)
    watchers = [Watched(inbox, storage, client) for _ in range(2)]

    def both_look() -> bool:
        threads = [threading.Thread(target=each.look) for each in watchers]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        return not any(each.inbox.files for each in watchers)

    until(lambda: both_look() or len(flows(client)) == 40)
    work(client)
    until(both_look)
    assert (names(inbox), len(names(inbox / "done")), len(flows(client))) == (["done"], 40, 40)
    said = [line for each in watchers for line in each.said]
    assert sorted({line.partition(":")[0] for line in said}) == names(inbox / "done")
    assert not [line for line in said if "results/" not in line]
    assert [each.failures for each in watchers] == [0, 0]


def test_a_file_whose_flow_was_canceled_is_put_away_as_failed_and_may_come_again(client, storage, inbox):
    (inbox / "a.txt").write_bytes(b"one")
    watcher = Watched(inbox, storage, client)
    watcher.look()
    (flow,) = flows(client)
    Batch(client, flow.id).cancel()
    watcher.look()
    assert watcher.said == [f"a.txt: canceled: flow {flow.id}"]
    assert (names(inbox / "failed"), watcher.failures) == (["a.txt"], 1)
    (inbox / "failed/a.txt").rename(inbox / "a.txt")
    watcher.look()
    work(client)
    watcher.look()
    assert (len(flows(client)), names(inbox / "done")) == (2, ["a.txt"])


def died(*_, **__):
    raise KeyboardInterrupt


def died_at_the_end(self, digest, mark, state, real=content.Contents.end):
    return real(self, digest, mark, state) if state == "sent" else died()


PLACES = {
    "before the upload": (Storage, "put", died),
    "before the mark": (content.Contents, "send", died),
    "between mark and flow": (Pipeline, "enqueue", died),
    "between flow and its note": (content.Contents, "end", died),
    "before the move": (Inbox, "move", died),
    "between move and mark": (content.Contents, "end", died_at_the_end),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_watcher_that_dies_is_made_up_for(client, storage, inbox, place, monkeypatch):
    (inbox / "a.txt").write_bytes(b"one")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(*PLACES[place])
        watcher = Watched(inbox, storage, client)
        watcher.look()
        work(client)
        watcher.look()
    again = Watched(inbox, storage, client)
    again.look()
    work(client)
    again.look()
    assert (len(flows(client)), names(inbox), names(inbox / "done")) == (1, ["done"], ["a.txt"])
    (inbox / "b.txt").write_bytes(b"one")
    Watched(inbox, storage, client).look()
    assert (len(flows(client)), names(inbox / "done")) == (1, ["a.txt", "b.txt"])


def test_a_watcher_that_dies_amidst_a_start_is_made_up_for(client, storage, inbox, monkeypatch):
    (inbox / "a.txt").write_bytes(b"one")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("packmule.jobs.flow.Flow.seal", died)
        Watched(inbox, storage, client).look()
    (unsealed,) = flows(client)
    assert not unsealed.is_sealed
    watcher = Watched(inbox, storage, client)
    watcher.look()
    work(client)
    watcher.look()
    assert (len(flows(client)), names(inbox / "done")) == (1, ["a.txt"])


def test_a_watcher_that_was_frozen_amidst_a_start_says_nothing_of_a_flow_that_is_over(
    client, storage, inbox, monkeypatch
):
    """Another watcher starts the flow meanwhile, and it ends."""
    (inbox / "a.txt").write_bytes(b"one")
    frozen, other = Watched(inbox, storage, client), Watched(inbox, storage, client)

    def thaws_late(source, real=frozen.pipeline.enqueue, **options):
        monkeypatch.undo()
        other.look()
        work(client)
        return real(source, **options)

    monkeypatch.setattr(Pipeline, "enqueue", lambda self, source, **options: thaws_late(source, **options))
    frozen.look()
    frozen.look()
    (flow,) = flows(client)
    assert frozen.said == [f"a.txt: results/simple/a.txt/{flow.id}/manifest.json"]
    assert (names(inbox / "done"), frozen.failures) == (["a.txt"], 0)


def test_a_flow_that_a_scheduler_gave_up_is_replaced(client, storage, inbox, monkeypatch):
    (inbox / "a.txt").write_bytes(b"one")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("packmule.jobs.flow.Flow.seal", died)
        Watched(inbox, storage, client).look()
    watcher = Watched(inbox, storage, client)
    Batch(client, flows(client)[0].id).cancel()
    watcher.look()
    work(client)
    watcher.look()
    assert (len(flows(client)), names(inbox / "done")) == (2, ["a.txt"])


def test_a_flow_that_redis_has_lost_is_sent_again(client, storage, inbox):
    (inbox / "a.txt").write_bytes(b"one")
    watcher = Watched(inbox, storage, client)
    watcher.look()
    for key in client.scan_iter("*"):
        if not key.startswith(b"pm:watched:"):
            client.delete(key)
    for _ in range(2):
        watcher.look()
    work(client)
    watcher.look()
    assert names(inbox / "done") == ["a.txt"]


def test_a_mark_that_is_garbage_or_of_another_type_stops_nothing(client, storage, inbox):
    (inbox / "a.txt").write_bytes(b"one")
    (inbox / "b.txt").write_bytes(b"two")
    watcher = Watched(inbox, storage, client)
    first, second = (watcher.contents._key(sha256(each).hexdigest()) for each in (b"one", b"two"))
    client.set(first, b"\xff[[[[")
    client.rpush(second, "x")
    watcher.look()
    work(client)
    watcher.look()
    assert names(inbox / "done") == ["a.txt", "b.txt"]


def test_odd_names_are_sent_and_what_is_no_file_is_left_alone(client, storage, inbox, tmp_path):
    odd = [b"\xff\xfe.csv", "\u202ex.csv".encode(), b"a\nb\x1b[2J.csv", b"-rf", b"x" * 255]
    for number, name in enumerate(odd):
        (inbox / os.fsdecode(name)).write_bytes(b"%d" % number)
    (inbox / ".hidden").write_bytes(b"h")
    (inbox / "folder").mkdir()
    (inbox / "folder/inner.txt").write_bytes(b"i")
    (tmp_path / "secret").write_bytes(b"s")
    (inbox / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(inbox / "pipe")
    watcher = Watched(inbox, storage, client)
    watcher.look()
    watcher.look()
    assert sorted(watcher.said) == [
        "folder: a folder: left alone", "link: a link: left alone", "pipe: not a file: left alone"
    ]  # fmt: skip
    work(client)
    watcher.look()
    assert len(names(inbox / "done")) == len(odd) == len(flows(client))
    assert names(inbox) == [".hidden", "done", "folder", "link", "pipe"]
    assert len(watcher.said) == 3 + len(odd)


def test_a_file_that_was_written_again_meanwhile_is_not_put_away(client, storage, inbox):
    (inbox / "a.txt").write_bytes(b"one")
    watcher = Watched(inbox, storage, client)
    watcher.look()
    work(client)
    watcher.inbox.look = lambda: []  # it was looked at before
    (inbox / "a.txt").write_bytes(b"another")
    watcher.look()
    assert (names(inbox), names(inbox / "done")) == (["a.txt", "done"], [])
    del watcher.inbox.look
    watcher.look()
    work(client)
    watcher.look()
    assert (len(flows(client)), (inbox / "done/a.txt").read_bytes()) == (2, b"another")


def test_a_file_that_is_taken_away_is_forgotten(client, storage, inbox, monkeypatch):
    for name in ("a.txt", "b.txt"):
        (inbox / name).write_bytes(name.encode())
    watcher = Watched(inbox, storage, client)
    real = watching.sha256_of

    def vanishes(file):
        if file.name == "a.txt":
            file.unlink()
        return real(file)

    monkeypatch.setattr(watching, "sha256_of", vanishes)
    watcher.look()
    assert ([state.name for state in flows(client)], watcher.said) == (["simple: b.txt"], [])
    (inbox / "b.txt").unlink()
    work(client)
    watcher.look()
    assert (names(inbox), watcher.said) == ([], [])


def test_a_file_that_can_not_be_stored_stays_and_is_tried_again(client, storage, inbox, monkeypatch):
    (inbox / "a.txt").write_bytes(b"one")
    (storage_folder := Path(storage.locate("uploads"))).parent.mkdir()
    storage_folder.write_bytes(b"in the way")
    watcher = Watched(inbox, storage, client)
    monkeypatch.setattr(watching, "RETRY_SECONDS", 0.0)
    watcher.look()
    watcher.look()
    (said,) = watcher.said
    assert said.startswith("a.txt: can't ")
    assert said.endswith(": it stays, and is tried again")
    storage_folder.unlink()
    watcher.look()
    work(client)
    watcher.look()
    assert names(inbox / "done") == ["a.txt"]


def is_full(*_):
    raise StorageError("it is full")


def test_a_file_that_was_stored_at_a_later_look_has_not_failed(client, storage, inbox, monkeypatch):
    (inbox / "a.txt").write_bytes(b"one")
    watcher = Watched(inbox, storage, client, leaves=True)
    with monkeypatch.context() as patched:
        patched.setattr(Storage, "put", is_full)
        watcher.look()
    watcher.inbox.files["a.txt"].try_at = 0.0
    watcher.look()
    work(client)
    watcher.run(once=True)
    assert [line.partition(":")[2].split("/")[0] for line in watcher.said] == [
        " it is full: it stays, and is tried again", " results"
    ]  # fmt: skip
    assert watcher.failures == 0


def test_a_file_that_is_too_large_has_failed(client, storage, inbox):
    (inbox / "a.txt").write_bytes(b"x" * 101)
    watcher = Watched(inbox, storage, client, most_bytes=100)
    watcher.look()
    assert watcher.said == ["a.txt: it has 101 bytes, and PACKMULE_MAX_FILE_BYTES is 100"]
    assert (names(inbox / "failed"), flows(client)) == (["a.txt"], [])


def test_files_may_be_left_where_they_are(client, storage, inbox, tmp_path):
    (inbox / "a.txt").write_bytes(b"one")
    pipeline = failing(tmp_path / "gate")
    watcher = Watched(inbox, storage, client, pipeline, leaves=True)
    watcher.look()
    work(client)
    for _ in range(3):
        watcher.look()
    assert (names(inbox), len(watcher.said), len(flows(client))) == (["a.txt"], 1, 1)
    later = Watched(inbox, storage, client, pipeline, leaves=True)
    later.look()
    later.look()
    (said,) = later.said
    assert said == f"a.txt: its content failed before: packmule flow retry {flows(client)[0].id}"
    assert len(flows(client)) == 1


def test_many_files_are_sent_a_thousand_at_a_time(client, storage, inbox, monkeypatch):
    monkeypatch.setattr(watching, "MOST_UNDER_WAY", 20)
    for number in range(50):
        (inbox / f"{number}.txt").write_bytes(b"%d" % number)
    watcher = Watched(inbox, storage, client)
    watcher.look()
    watcher.look()
    assert len(flows(client)) == 20
    for _ in range(3):
        work(client)
        watcher.look()
        watcher.look()
    assert (len(flows(client)), len(names(inbox / "done"))) == (50, 50)


def test_a_file_is_never_moved_over_another(inbox, tmp_path):
    looking = Inbox(inbox)
    (inbox / "done").mkdir()
    for number, name in enumerate(("a.txt", "a-2.txt")):
        (inbox / "done" / name).write_bytes(b"old %d" % number)
    (inbox / "a.txt").write_bytes(b"new")
    looking.look()
    assert looking.move(looking.files["a.txt"], "done")
    assert {each: (inbox / "done" / each).read_bytes() for each in names(inbox / "done")} == {
        "a.txt": b"old 0", "a-2.txt": b"old 1", "a-3.txt": b"new"
    }  # fmt: skip
    (inbox / "b.txt").write_bytes(b"moved half")
    looking.look()
    os.link(inbox / "b.txt", inbox / "done/b.txt")  # as by a watcher that died then
    assert looking.move(looking.files["b.txt"], "done")
    assert "b-2.txt" not in names(inbox / "done")
    assert not looking.move(looking.files["b.txt"], "done")  # it's gone


def test_the_loop_is_left_by_nothing(spare_server, storage, inbox):
    server = spare_server()
    with connect(server.url, inbox) as client:
        Client(client).make_default()  # of the jobs, too: they ask what became of their flow
        watcher = Watched(inbox, storage, client)
        running = threading.Thread(target=watcher.run)
        running.start()
        try:
            (inbox / "a.txt").write_bytes(b"one")
            until(lambda: flows(client))
            os.kill(server.pid(), 9)
            until(lambda: watcher.said)
            inbox.rename(inbox.parent / "away")
            server.ensure()
            until(lambda: any("No such file" in each for each in watcher.said))
            (inbox.parent / "away").rename(inbox)
            until(lambda: any(each.endswith("goes on") for each in watcher.said))
            until(lambda: work(client) or names(inbox / "done") == ["a.txt"])
        finally:
            watcher.stopping.set()
            running.join()
