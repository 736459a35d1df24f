"""Images made once: of equal jobs at once one computes, and the others copy what it made."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest
from PIL import Image

from packmule.coordination.cache.cache import Cache
from packmule.jobs import context
from packmule.jobs.image import UnreadableImage, image, reuse
from packmule.jobs.image.making import Making
from packmule.jobs.storage import Storage
from packmule.tests.worker.pools import until

WANTED = [{"width": 40}, {"width": 20, "format": "webp"}]


@pytest.fixture
def storage(tmp_path, client, limits):
    storage, cache = Storage(str(tmp_path / "store")), Cache(client, "jobs")
    context.provide(storage, limits, cache)
    yield storage
    cache.close()


@pytest.fixture
def decoded(monkeypatch):
    """A list that grows with each decode, which takes until the event that comes with it."""
    found, going_on, decode = [], threading.Event(), Making.decode

    def decode_slowly(self):
        found.append(1)
        assert going_on.wait(60)
        return decode(self)

    monkeypatch.setattr(Making, "decode", decode_slowly)
    return found, going_on


def picture(sides: tuple[int, int] = (300, 200)) -> bytes:
    file = BytesIO()
    Image.linear_gradient("L").resize(sides).save(file, "PNG")
    return file.getvalue()


def test_equal_jobs_at_once_compute_once_under_names_of_their_own(storage, decoded, monkeypatch):
    found, going_on = decoded
    monkeypatch.setattr(reuse, "LEASE", 60.0)
    for number in range(4):
        storage.write_bytes(f"in/{number}.png", picture())
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(image, f"in/{number}.png", WANTED, f"out/{number}") for number in range(4)]
        until(lambda: found)
        going_on.set()
        made = [result.result()["renditions"] for result in results]
    assert len(found) == 1
    for number, renditions in enumerate(made):
        assert [each["path"] for each in renditions] == [
            f"out/{number}/{number}-40x27.png",
            f"out/{number}/{number}-20x13.webp",
        ]
    assert len({storage.read_bytes(renditions[1]["path"]) for renditions in made}) == 1


def test_what_was_deleted_or_changed_since_is_made_again_at_the_same_path(storage, decoded):
    found, going_on = decoded
    going_on.set()
    storage.write_bytes("in/a.png", picture())
    first = image("in/a.png", WANTED, "out")
    assert image("in/a.png", WANTED, "out") == first
    assert len(found) == 1
    good = storage.read_bytes("out/a-40x27.png")
    storage.write_bytes("out/a-40x27.png", good[:-1] + b"x")
    assert image("in/a.png", WANTED, "out") == first
    assert storage.read_bytes("out/a-40x27.png") == good
    storage.delete("out/a-20x13.webp")
    assert image("in/a.png", WANTED, "out") == first
    assert storage.exists("out/a-20x13.webp")
    assert len(found) == 3


def test_what_is_remembered_of_a_source_is_made_of_those_bytes_even_if_it_is_replaced(storage, monkeypatch):
    storage.write_bytes("in/a.png", picture())
    once = reuse.Reuse.once

    def replaced_meanwhile(self, make):
        storage.write_bytes("in/a.png", picture(sides=(30, 20)))
        return once(self, make)

    monkeypatch.setattr(reuse.Reuse, "once", replaced_meanwhile)
    assert image("in/a.png", WANTED, "out")["source"]["width"] == 300


def test_a_job_waits_for_another_that_hangs_no_longer_than_its_lease(storage, decoded, monkeypatch):
    found, going_on = decoded
    monkeypatch.setattr(reuse, "LEASE", 0.3)
    storage.write_bytes("in/a.png", picture())
    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(image, "in/a.png", WANTED, f"out/{number}") for number in range(2)]
        until(lambda: len(found) >= 2)
        going_on.set()
        assert len({result.result()["renditions"][0]["bytes"] for result in results}) == 1


def test_what_can_not_be_made_is_refused_to_each_that_asks(storage):
    storage.write_bytes("in/a.png", picture()[:200])
    with ThreadPoolExecutor(3) as pool:
        for result in [pool.submit(image, "in/a.png", WANTED) for _ in range(3)]:
            with pytest.raises(UnreadableImage, match=r"in/a\.png"):
                result.result()
