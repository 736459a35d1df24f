"""Pruning of served renditions: by last use and by bytes, and none that is in use."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from functools import partial

import pytest
from redis import Redis

from packmule.coordination.cache.cache import Cache
from packmule.jobs import context
from packmule.jobs.auditor import Auditor
from packmule.jobs.image.serving.prune import NotPruned, image_prune, pruning
from packmule.jobs.image.serving.served import FOLDER, SAFE_SECONDS, USES
from packmule.jobs.storage import FilesLeft, Storage
from packmule.observe import audit
from packmule.units import DAY

HOUR = 3600.0
PATHS = [f"{FOLDER}/{folder}/thumb-{folder}.jpg" for folder in "abcd"]


@pytest.fixture
def kept(storage: Storage, client: Redis) -> Storage:
    """A storage with four renditions of 100 bytes, used 1, 2, 3 and 4 hours ago, and other files."""
    context.provide(Cache(client, "jobs"), Auditor(partial(audit.record, client)))
    for hours, path in enumerate(PATHS, start=1):
        storage.write_bytes(path, bytes(100))
        client.zadd(USES, {path: time.time() - hours * HOUR})
    for other in ("in/a.jpg", "renditions/7f0c/a.jpg", "renditions/servedtoo/a.jpg"):
        storage.write_bytes(other, bytes(1000))
    return storage


def left(storage: Storage) -> list[str]:
    return storage.names(f"{FOLDER}/")


def test_what_nobody_has_used_for_long_is_deleted_and_no_other_file(kept, client):
    assert image_prune(2.5 * HOUR, 10_000) == {"renditions": 2, "bytes": 200, "deleted": 2}
    assert left(kept) == PATHS[:2]
    assert len(kept.names()) == 2 + 3
    (entry,) = audit.read(client)
    assert (entry.action, dict(entry.subject)) == (
        "image prune", {"deleted": 2, "bytes": 200, "places": 2, "first": PATHS[:1:-1], "job": ""}
    )  # fmt: skip
    assert sorted(client.zrange(USES, 0, -1)) == [path.encode() for path in PATHS[:2]]


@pytest.mark.parametrize(("most", "stay"), [(400, 4), (399, 3), (100, 1), (0, 0)])
def test_what_was_used_least_recently_goes_until_the_rest_fits(kept, most, stay):
    assert image_prune(30 * DAY, most) == {"renditions": stay, "bytes": 100 * stay, "deleted": 4 - stay}
    assert left(kept) == PATHS[:stay]


def test_what_was_used_a_moment_ago_stays_whatever_the_bounds(kept, client):
    client.zadd(USES, {PATHS[3]: time.time() - SAFE_SECONDS / 2})
    image_prune(1, 0)
    assert left(kept) == [PATHS[3]]


def test_what_is_used_while_others_are_pruned_stays(kept, client, monkeypatch):
    delete = Storage.delete

    def delete_late(self: Storage, path: str) -> bool:
        client.zadd(USES, {PATHS[1]: time.time()})
        return delete(self, path)

    monkeypatch.setattr(Storage, "delete", delete_late)
    monkeypatch.setattr("packmule.jobs.image.serving.prune.AT_ONCE", 1)
    image_prune(1, 0)
    assert left(kept) == [PATHS[1]]


def test_what_is_not_known_counts_as_used_now(kept, client):
    client.delete(USES)
    assert image_prune(1, 0)["deleted"] == 0
    for path in PATHS:
        assert time.time() - client.zscore(USES, path) < HOUR
    client.zadd(USES, {f"{FOLDER}/gone/x.jpg": 1})
    image_prune(30 * DAY, 10_000)
    assert client.zcard(USES) == 4


def test_a_wrong_key_deletes_nothing_and_is_named(kept, client):
    client.delete(USES)
    client.set(USES, "words")
    with pytest.raises(NotPruned, match=r"^pm:images-used in Redis can't be read .*: delete it$") as refused:
        image_prune(1, 0)
    assert "\n" not in str(refused.value)
    assert left(kept) == PATHS


def test_a_rendition_that_vanishes_meanwhile_is_no_fault(kept, monkeypatch):
    delete = Storage.delete

    def delete_after_another(self: Storage, path: str) -> bool:
        return delete(self, path) and delete(self, path)

    monkeypatch.setattr(Storage, "delete", delete_after_another)
    assert image_prune(30 * DAY, 200) == {"renditions": 2, "bytes": 200, "deleted": 0}


@pytest.fixture
def pinned(kept: Storage) -> Iterator[str]:
    """A rendition that nobody can delete: something is mounted there."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    place = kept.locate(PATHS[3])
    subprocess.run(["mount", "--bind", place, place], check=True)
    yield PATHS[3]
    subprocess.run(["umount", place], check=True)


def test_what_can_not_be_deleted_keeps_no_other(kept, client, pinned):
    with pytest.raises(FilesLeft) as failed:
        image_prune(1.5 * HOUR, 10_000)
    assert str(failed.value) == (
        f"1 of 3 can't be deleted, such as this: can't delete {pinned}: Device or resource busy"
    )
    assert left(kept) == [PATHS[0], pinned]
    assert sorted(client.zrange(USES, 0, -1)) == [PATHS[0].encode(), pinned.encode()]


def test_its_schedule_can_be_kept():
    made = pruning("low", 30.0 * DAY, 10)
    assert (made.name, made.queue) == ("image-prune", "low")
    image_prune.job.validate((), {"keep": 30.0 * DAY, "most": 10})
