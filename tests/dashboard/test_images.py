"""Renditions on demand: signed, made once, kept, bounded, and open to all who have their addresses."""

from __future__ import annotations

import http.client
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from redis import Redis

from packmule.coordination.cache.cache import Cache
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.dashboard import images as serving
from packmule.dashboard.images import Images
from packmule.jobs import context, keys
from packmule.jobs.auditor import Auditor
from packmule.jobs.client import Client
from packmule.jobs.image.presets import Presets
from packmule.jobs.image.serving import Served, WeakImageKey, forget, url_for
from packmule.jobs.image.serving.addresses import Addresses, _signature
from packmule.jobs.image.serving.prune import image_prune
from packmule.jobs.image.serving.served import USES
from packmule.jobs.storage import OutsideStorage, Storage
from packmule.observe import audit
from packmule.tests.dashboard.sites import served
from packmule.tests.worker.pools import DEADLINE, children_of, pool, until

OLD, NEW = "an old key of many bytes", "a new key of many bytes"


def picture(size: tuple[int, int] = (640, 480), format: str = "JPEG") -> bytes:
    file = BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, format)
    return file.getvalue()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(str(tmp_path / "store"))
    storage.write_bytes("in/a b.jpg", picture())
    return storage


@pytest.fixture
def workers(server: EmbeddedServer, client: Redis, storage: Storage) -> Iterator[Any]:
    with pool(server, 2, storage=storage.locate("x")[:-2]) as process:
        yield process


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a slow machine makes is waited for."""
    monkeypatch.setattr(serving, "PATIENCE", DEADLINE)


@pytest.fixture
def address(client: Redis, storage: Storage) -> Iterator[str]:
    images = Images(Addresses([NEW, OLD]), Served(Client(client), storage, Presets()))
    with served(client, images=images) as site:
        yield site.address


def asked(address: str, path: str, method: str = "GET", **headers: str) -> Any:
    """The answer, with its `body`."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=2 * DEADLINE)
    connection.request(method, path, headers={each.replace("_", "-"): to for each, to in headers.items()})
    answer: Any = connection.getresponse()
    answer.body = answer.read()
    connection.close()
    return answer


def made(storage: Storage) -> list[str]:
    return storage.names("renditions/served/")


def jobs_of(client: Redis) -> set[bytes]:
    return set(client.scan_iter("rq:job:*"))


@pytest.mark.usefixtures("workers")
def test_a_rendition_is_made_when_first_asked_for_and_then_only_read(client, storage, address):
    path = url_for("in/a b.jpg", "thumb", keys=[NEW])
    first = asked(address, path)
    assert (first.status, first.headers["Content-Type"]) == (200, "image/jpeg")
    with Image.open(BytesIO(first.body)) as image:
        assert image.size == (200, 200)
    assert first.headers["Cache-Control"].startswith("public, max-age=")
    assert first.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in first.headers
    jobs = jobs_of(client)
    again = asked(address, path)
    assert (again.body, again.headers["ETag"]) == (first.body, first.headers["ETag"])
    head = asked(address, path, "HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(first.body)))
    for tags in (first.headers["ETag"], f'"x", W/{first.headers["ETag"]}'):
        same = asked(address, path, If_None_Match=tags)
        assert (same.status, same.body, same.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert asked(address, path, "POST").status == 405
    assert jobs_of(client) == jobs


@pytest.mark.usefixtures("workers")
def test_a_source_that_has_changed_is_made_again_and_what_is_forgotten_is_gone(storage, address):
    path = url_for("in/a b.jpg", "hero@2x", keys=[OLD])
    first = asked(address, path)
    storage.write_bytes("in/a b.jpg", picture((300, 200), "PNG"))
    second = asked(address, path, If_None_Match=first.headers["ETag"])
    assert (second.status, second.headers["Content-Type"]) == (200, "image/png")
    assert second.headers["ETag"] != first.headers["ETag"]
    storage.write_bytes("in/c.jpg", picture())
    assert asked(address, url_for("in/c.jpg", keys=[NEW])).status == 200
    assert forget(storage, "in/a b.jpg") == 2
    assert len(made(storage)) == 1


def test_an_address_that_was_changed_or_leads_elsewhere_is_refused(client, storage, address, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(picture())
    good = url_for("in/a b.jpg", "thumb", keys=[NEW])
    _, _, signature, preset, rest = good.split("/", 4)
    wrong = [
        f"/i/{signature}/hero/{rest}",
        f"/i/{signature}/{preset}/in/b.jpg",
        f"/i/{signature[:-1]}/{preset}/{rest}",
        f"/i/{signature}/{preset}/%2e%2e/secret.jpg",
        f"/i/{signature}/{preset}/in/../in/a%20b.jpg",
        f"/i/{signature}/{preset}//{rest}",
        f"/i/{signature}/{preset}/{rest}%00",
        f"/i/{signature}/{preset}/%ff%fe",
        f"/i/%C3%A9/{preset}/{rest}",
        url_for("in/a b.jpg", "thumb", keys=["a foreign key of many bytes"]),
    ]
    for path in wrong:
        answer = asked(address, path)
        assert (answer.status, answer.headers["Content-Type"][:10]) == (403, "text/plain"), path
        assert answer.body == b"this address is not signed by us, or was changed\n"
    # Even signed by somebody who has the key, nothing but a preset of a stored file is served.
    for source, said in (("../secret.jpg", b"is not a path"), ("in/gone.jpg", b"not in the storage")):
        answer = asked(address, signed(source, "thumb"))
        assert (answer.status, said in answer.body) == (404, True)
    assert asked(address, f"/i//{preset}/{rest}").status == 404
    answer = asked(address, signed("in/a b.jpg", "gigantic"))
    assert (answer.status, b"no preset 'gigantic'" in answer.body) == (404, True)
    assert jobs_of(client) == set()
    with pytest.raises(OutsideStorage):
        url_for("../secret.jpg", keys=[NEW])


def signed(source: str, preset: str) -> str:
    """An address of any source, by somebody who has the key but not our functions."""
    return f"/i/{_signature(NEW.encode(), preset, source)}/{preset}/{quote(source, safe='/')}"


def test_without_a_key_nothing_is_served(client, storage, monkeypatch):
    with served(client) as site:
        assert asked(site.address, url_for("in/a b.jpg", keys=[NEW])).status in (401, 404)
    monkeypatch.delenv("PACKMULE_SECRET_IMAGES", raising=False)
    with pytest.raises(ValueError, match="PACKMULE_SECRET_IMAGES"):
        url_for("in/a b.jpg")
    monkeypatch.setenv("PACKMULE_SECRET_IMAGES", f"{'n' * 20} {'o' * 20}")
    assert url_for("in/a b.jpg") == url_for("in/a b.jpg", keys=["n" * 20])
    with pytest.raises(WeakImageKey, match="16 bytes"):
        url_for("in/a b.jpg", keys=["short"])


@pytest.mark.usefixtures("workers")
def test_what_is_no_image_is_said_in_a_line_and_asked_once(client, storage, address):
    storage.write_bytes("in/words.jpg", b"these are words")
    path = url_for("in/words.jpg", keys=[NEW])
    first = asked(address, path)
    assert (first.status, first.headers["Content-Type"]) == (422, "text/plain; charset=utf-8")
    assert first.body.startswith(b"in/words.jpg is not a readable image")
    assert first.body.count(b"\n") == 1
    jobs = jobs_of(client)
    assert asked(address, path).body == first.body
    assert jobs_of(client) == jobs


def test_many_who_ask_at_once_wait_for_one_job_also_at_several_servers(client, server, storage, address):
    path = url_for("in/a b.jpg", "card", keys=[NEW])
    other = Images(Addresses([NEW]), Served(Client(client), storage, Presets()))
    with served(client, images=other) as second, ThreadPoolExecutor(40) as askers:
        places = [address, second.address] * 20
        answers = [askers.submit(asked, place, path) for place in places]
        until(lambda: jobs_of(client))
        with pool(server, 2, storage=storage.locate("x")[:-2]):
            found = [answer.result() for answer in answers]
    assert {answer.status for answer in found} == {200}
    assert len({answer.body for answer in found}) == 1
    assert len(jobs_of(client)) == 1
    assert len(made(storage)) == 1


def test_a_worker_that_is_killed_meanwhile_is_followed_by_another(client, server, storage, address):
    storage.write_bytes("in/large.png", picture((5000, 4000), "PNG"))
    with ThreadPoolExecutor(1) as asker, pool(server, 2, storage=storage.locate("x")[:-2]) as workers:
        until(lambda: client.scard(keys.WORKERS) == 2)
        answer = asker.submit(asked, address, url_for("in/large.png", "hero", keys=[NEW]))
        until(lambda: jobs_of(client))
        for pid in children_of(workers.pid):
            os.kill(pid, signal.SIGKILL)
        assert answer.result().status == 200
    assert len(made(storage)) == 1


def test_what_waits_is_bounded_and_told_to_come_back(client, storage, address, monkeypatch):
    monkeypatch.setattr(serving, "PATIENCE", 0.2)
    monkeypatch.setattr(serving, "MOST_MAKING", 2)
    for number in range(3):
        storage.write_bytes(f"in/{number}.jpg", picture())
        answer = asked(address, url_for(f"in/{number}.jpg", keys=[NEW]))
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        assert answer.headers["Cache-Control"] == "no-store"
        assert (b"too many renditions" in answer.body) == (number == 2)
    until(lambda: len(jobs_of(client)) == 2)


def test_what_nobody_waits_for_any_more_is_not_made(client, server, storage, address, monkeypatch):
    monkeypatch.setattr(serving, "MAKE_SECONDS", 0.2)
    path = url_for("in/a b.jpg", keys=[NEW])
    assert asked(address, path).status == 503
    with pool(server, 1, storage=storage.locate("x")[:-2]):
        until(lambda: client.zcard(keys.registry_key("failed", "default")))
        assert made(storage) == []
        monkeypatch.setattr(serving, "MAKE_SECONDS", 60.0)
        assert asked(address, path).status == 200


@pytest.mark.usefixtures("workers")
def test_auto_is_what_the_browser_accepts(client, storage, tmp_path):
    file = tmp_path / "presets.toml"
    file.write_text(
        '[any]\nwidth = 64\nformat = "auto"\n[few]\nwidth = 64\nformat = "auto"\naccept = ["webp"]\n'
    )
    storage.write_bytes("in/clear.png", clear())
    images = Images(Addresses([NEW]), Served(Client(client), storage, Presets(file)))
    expected = {
        "image/avif,image/webp,image/apng,*/*;q=0.8": "avif",
        "text/html, Image/WebP ; q=0.9": "webp",
        "image/avif;q=0, image/webp;v=1": "webp",
        "image/avif; q=0.0": "jpeg",
        "*/*": "jpeg",
        ", ;q=1,image/": "jpeg",
    }
    with served(client, images=images) as site:
        tags = set()
        for accept, format in expected.items():
            answer = asked(site.address, url_for("in/a b.jpg", "any", keys=[NEW]), Accept=accept)
            assert (answer.status, answer.headers["Content-Type"]) == (200, f"image/{format}"), accept
            assert answer.headers["Vary"] == "Accept"
            tags.add(answer.headers["ETag"])
            same = asked(
                site.address, url_for("in/a b.jpg", "any", keys=[NEW]), Accept=accept,
                If_None_Match=answer.headers["ETag"],
            )  # fmt: skip
            assert (same.status, same.headers["Vary"]) == (304, "Accept")
        assert len(tags) == 3
        clear_one = asked(site.address, url_for("in/clear.png", "any", keys=[NEW]))
        few = asked(site.address, url_for("in/a b.jpg", "few", keys=[NEW]), Accept="image/avif,image/webp")
        fixed = asked(site.address, url_for("in/a b.jpg", "thumb", keys=[NEW]), Accept="image/avif")
    assert (clear_one.headers["Content-Type"], few.headers["Content-Type"]) == ("image/png", "image/webp")
    assert (fixed.headers["Content-Type"], fixed.headers["Vary"]) == ("image/jpeg", None)


@pytest.mark.usefixtures("workers")
def test_a_cache_keeps_no_format_that_is_impossible_for_browsers_that_take_another(client, storage, tmp_path):
    file = tmp_path / "presets.toml"
    file.write_text('[least]\nwidth = 300\nformat = "auto"\nmax_bytes = 1500\n')
    images = Images(Addresses([NEW]), Served(Client(client), storage, Presets(file)))
    path = url_for("in/a b.jpg", "least", keys=[NEW])
    with served(client, images=images) as site:
        plain = asked(site.address, path)
        modern = asked(site.address, path, Accept="image/avif")
    assert (plain.status, plain.headers["Vary"]) == (422, "Accept")
    assert (modern.status, modern.headers["Content-Type"]) == (200, "image/avif")


def clear() -> bytes:
    file = BytesIO()
    Image.new("RGBA", (100, 80), (250, 10, 10, 90)).save(file, "PNG")
    return file.getvalue()


def test_what_is_sent_is_noted_and_stays_and_what_was_pruned_is_made_again(client, server, storage, address):
    context.provide(storage, Cache(client, "jobs"), Auditor(partial(audit.record, client)))
    path = url_for("in/a b.jpg", keys=[NEW])
    with pool(server, 1, storage=storage.locate("x")[:-2]):
        first = asked(address, path)
        until(lambda: client.zcard(USES))
        [rendition] = made(storage)
        image_prune(1, 0)
        assert made(storage) == [rendition]
        client.zadd(USES, {rendition: 1})
        image_prune(1, 0)
        assert made(storage) == []
        again = asked(address, path)
    assert (again.status, again.body) == (200, first.body)


def test_a_wrong_key_of_uses_keeps_nobody_from_an_image(client, storage, address, server):
    client.set(USES, "words")
    with pool(server, 1, storage=storage.locate("x")[:-2]):
        for _ in range(2):
            assert asked(address, url_for("in/a b.jpg", keys=[NEW])).status == 200


def test_what_is_made_is_served_while_redis_is_away(spare_server, storage, tmp_path):
    away = spare_server()
    client = Redis(unix_socket_path=str(away.socket_path))
    images = Images(Addresses([NEW]), Served(Client(client), storage, Presets()))
    with served(client, images=images) as site:
        path = url_for("in/a b.jpg", keys=[NEW])
        with pool(away, 1, storage=storage.locate("x")[:-2]):
            first = asked(site.address, path)
        away.stop()
        assert asked(site.address, path).body == first.body
        assert asked(site.address, url_for("in/a b.jpg", "hero", keys=[NEW])).status == 503
