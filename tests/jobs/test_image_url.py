"""Images at URLs: fetched by the worker through the door, before their process leaves the network."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from packmule.jobs import context, reader
from packmule.jobs.image import UnreadableImage, image
from packmule.jobs.image.making import Making
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.outgoing.door import Allowed, InvalidTarget
from packmule.jobs.outgoing.fetch_list import FetchList, NotOnList
from packmule.jobs.storage import Storage
from packmule.tests.jobs.pictures import PHOTO
from packmule.tests.jobs.web import Answer, web
from packmule.tests.worker.pools import children_of, ended, pool, until

WISH = [{"width": 90}]
GOOD: Answer = (200, {}, PHOTO.read_bytes())


class Held:
    """An answer that comes when it is let go; `asked` counts the requests."""

    def __init__(self, answer: Answer = GOOD) -> None:
        self.answer = answer
        self.asked = 0
        self.going_on = threading.Event()

    def __call__(self) -> Answer:
        self.asked += 1
        assert self.going_on.wait(60)
        return self.answer


@pytest.fixture
def allowed(storage: Storage) -> Storage:
    context.provide(Allowed(["127.0.0.1"]))
    return storage


@pytest.fixture
def workers(server, client, produce, tmp_path) -> Callable[..., object]:
    @contextmanager
    def started(processes: int = 1) -> Iterator[object]:
        with pool(server, processes, storage=tmp_path / "store", allow="127.0.0.1") as process:
            yield process

    return started


def one_line(text: str) -> str:
    assert "\n" not in text
    return text


def test_the_process_leaves_the_network_after_it_has_fetched_and_before_it_reads(allowed, monkeypatch):
    happened = []
    context.leaving.append(lambda: happened.append("left"))
    decode = Making.decode
    monkeypatch.setattr(Making, "decode", lambda self: [happened.append("decoded"), decode(self)])

    def answer() -> Answer:
        happened.append("asked")
        return GOOD

    with web({"/albums/7f/a%20b.jpg?token=s3cret": answer}) as url:
        result = image(f"{url}/albums/7f/a%20b.jpg?token=s3cret", WISH, "out")
    assert happened == ["asked", "left", "decoded"]
    assert result["source"]["url"] == f"{url}/albums/7f/a%20b.jpg?token=***"
    assert result["renditions"][0]["path"] == "out/a-b-90x68.jpg"
    assert allowed.names() == ["out/a-b-90x68.jpg"]


def test_what_is_no_image_is_named_without_what_may_be_secret(allowed):
    with (
        web({"/s3cret/words.jpg?key=s3cret": (200, {}, b"these are words")}) as url,
        pytest.raises(UnreadableImage, match=r"127\.0\.0\.1/\.\.\./words\.jpg is not a") as refused,
    ):
        image(f"{url}/s3cret/words.jpg?key=s3cret", WISH)
    assert "s3cret" not in one_line(str(refused.value))
    assert allowed.names() == []


@pytest.mark.parametrize("source", ["http://[::1/a.jpg", "://", "https://a..b/x.jpg", "https:///x"])
def test_a_url_that_nobody_has_checked_is_refused_in_one_line(allowed, source):
    with pytest.raises(InvalidTarget) as refused:
        image(source, WISH)
    one_line(str(refused.value))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "ftp://example.org/a.jpg",
            r"argument source: ftp://example\.org/\.\.\. is not an http:// or https://",
        ),
        ("https://ada:secret@example.org/a.jpg", "argument source: a user or password"),
        ("https://example.org:22/a.jpg", "argument source: .* use port 80, 443"),
        ("https://a..b/x.jpg", "argument source: .* not a valid name"),
        ("file:///etc/passwd", r"argument source: file://"),
        ("../a.jpg", "argument source: '../a.jpg' is not a path in the storage"),
        ("/etc/passwd", "argument source: '/etc/passwd' is not a path"),
        ("", "argument source: '' is not a path"),
    ],
)
def test_what_no_worker_could_fetch_is_refused_at_the_enqueue(source, reason):
    with pytest.raises(InvalidCall, match=reason) as refused:
        image.job.validate((), {"source": source, "renditions": WISH})
    assert "secret" not in one_line(str(refused.value))


def test_an_impossible_folder_is_refused_at_the_enqueue():
    for out in ("../x", "/x", "a//b", "a/../b"):
        with pytest.raises(InvalidCall, match="argument out: '"):
            image.job.validate((), {"source": "a.jpg", "renditions": WISH, "out": out})
    image.job.validate((), {"source": "a.jpg", "renditions": WISH, "out": "x/"})


REFUSED = {
    "inside": ((302, {"Location": "http://169.254.169.254/latest"}, b""), "169.254.169.254: use https://"),
    "gone": (None, "answers 404"),
    "loop": ((302, {"Location": "/loop"}, b""), "redirects more than 3 times"),
    "astray": ((302, {"Location": "https://[bad/"}, b""), "redirects to an invalid URL: Invalid IPv6 URL"),
    "words": ((200, {}, b"these are words"), "/.../words is not a readable image"),
    "folder/": ((200, {}, b"<html>"), "is not a readable image"),
}


def test_what_can_not_be_had_fails_its_job_at_once_in_one_line(client, workers):
    asked = dict.fromkeys(REFUSED, 0)

    def counted(name: str, answer: Answer) -> Callable[[], Answer]:
        def answered() -> Answer:
            asked[name] += 1
            return answer

        return answered

    answers = {f"/{name}": counted(name, answer or (404, {}, b"")) for name, (answer, _) in REFUSED.items()}
    with web(answers) as url, workers():
        ids = {name: image.enqueue(f"{url}/{name}", WISH) for name in REFUSED}
        for name, (_, reason) in REFUSED.items():
            info = ended(client, ids[name])
            assert (info.status, info.attempts) == ("failed", 0), name
            assert reason in one_line(info.reason)
    assert asked == {"inside": 1, "gone": 1, "loop": 4, "astray": 1, "words": 1, "folder/": 1}


@pytest.mark.usefixtures("produce")
def test_a_host_that_is_not_allowed_is_not_asked(server, client, tmp_path):
    held = Held()
    with web({"/a.jpg": held}) as url, pool(server, storage=tmp_path):
        info = ended(client, image.enqueue(f"{url}/a.jpg", WISH))
    assert (info.status, info.attempts, held.asked) == ("failed", 0, 0)
    assert "127.0.0.1: use https://, or allow the host in PACKMULE_WEBHOOK_ALLOW" in one_line(info.reason)


def test_only_what_is_on_the_list_is_fetched_redirects_included(allowed):
    held = Held()
    answers = {"/open/a.jpg": GOOD, "/open/moved": (302, {"Location": "/a.jpg"}, b""), "/a.jpg": held}
    with web(answers) as url:
        context.provide(FetchList([f"{url}/open/"]))
        assert image(f"{url}/open/a.jpg", WISH, "out")["renditions"]
        for path in ("a.jpg", "open/moved"):
            with pytest.raises(NotOnList, match="is not among the URLs that PACKMULE_FETCH_FROM allows"):
                image(f"{url}/{path}", WISH, "out")
    assert held.asked == 0


def test_a_server_that_fails_for_a_moment_is_asked_again(client, workers):
    answers = iter([(503, {}, b""), GOOD])
    with web({"/a.jpg": lambda: next(answers)}) as url, workers():
        info = ended(client, image.options(retry_intervals=[0]).enqueue(f"{url}/a.jpg", WISH))
    assert (info.status, info.attempts) == ("finished", 1)


def test_a_process_that_is_killed_while_it_fetches_is_followed_by_another(client, workers):
    held = Held()
    with web({"/a.jpg": held}) as url, workers() as process:
        id = image.enqueue(f"{url}/a.jpg", WISH)
        until(lambda: held.asked)
        (worker,) = children_of(process.pid)
        (isolated,) = children_of(worker)
        left = [
            each for each in Path(tempfile.gettempdir()).glob("packmule-*") if f"-{isolated}-" in each.name
        ]
        assert len(left) == 1
        os.kill(isolated, signal.SIGKILL)
        held.going_on.set()
        info = ended(client, id)
        until(lambda: not left[0].exists())
    assert (info.status, info.deaths, held.asked) == ("finished", 1, 2)


def test_a_cancel_and_a_timeout_end_a_download(client, workers):
    held = Held()
    with web({"/a.jpg": held}) as url, workers(2):
        ids = [
            image.options(**options).enqueue(f"{url}/a.jpg", WISH)
            for options in ({"timeout": 120}, {"timeout": 5, "retries": 0})
        ]
        until(lambda: held.asked == 2)
        ids[0].cancel()
        stopped, late = (ended(client, id) for id in ids)
        assert [reader.read(client, id).deaths for id in ids] == [0, 0]
        held.going_on.set()
    assert (stopped.status, late.status) == ("stopped", "failed")
    assert "timeout" in late.reason


def test_images_of_the_storage_go_on_in_their_process_beside_one_that_is_fetched(client, workers, tmp_path):
    (tmp_path / "store/in").mkdir(parents=True)
    (tmp_path / "store/in/a.jpg").write_bytes(PHOTO.read_bytes())
    held = Held()
    with web({"/a.jpg": held}) as url, workers(2):
        fetched = image.enqueue(f"{url}/a.jpg", WISH)
        until(lambda: held.asked)
        stored = [image.enqueue("in/a.jpg", [{"width": width}]) for width in range(20, 30)]
        assert {ended(client, id).status for id in stored} == {"finished"}
        until(lambda: reader.read(client, fetched).status == "started")
        held.going_on.set()
        assert ended(client, fetched).status == "finished"
