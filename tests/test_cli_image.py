"""`packmule enqueue image` with folders, URLs and --out, as users meet it, on a real server with workers."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image
from redis import Redis

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, queues
from packmule.jobs.image.serving import url_for
from packmule.tests.command_line import (
    DEADLINE,
    CommandLine,
    Run,
    complaint,
    environment_in,
    free_port,
    until,
)
from packmule.tests.jobs.web import web


@pytest.fixture(scope="module")
def settings(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("studio")
    return environment_in(home, server.url, PACKMULE_MODULES="", PACKMULE_WEBHOOK_ALLOW="127.0.0.1")


@pytest.fixture(scope="module")
def redis(server: EmbeddedServer) -> Iterator[Redis]:
    with connect(None, server.data_dir) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="module")
def workers(
    settings: dict[str, str], redis: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    home = tmp_path_factory.mktemp("pool")
    with CommandLine(home, settings).workers(lambda: redis.scard(keys.WORKERS)):
        yield


@pytest.fixture
def packmule(settings: dict[str, str], tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, settings)


@pytest.fixture
def here(packmule: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return packmule.in_this_process(monkeypatch, capsys)


def picture(number: int = 0, format: str = "JPEG") -> bytes:
    file = BytesIO()
    Image.new("RGB", (60 + number % 9, 40), (number % 256, 90, 120)).save(file, format)
    return file.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos, two of which have the same name, and one that is none."""
    for number, name in enumerate(("a/x.jpg", "b/x.jpg", "b/y.jpg")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    (tmp_path / "photos/b/words.jpg").write_text("these are words\n")
    return tmp_path / "photos"


def files(folder: Path) -> list[str]:
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*"))


@pytest.mark.usefixtures("workers")
def test_a_folder_becomes_a_folder_of_renditions_once(packmule: CommandLine, here: Run, photos: Path) -> None:
    words = ("enqueue", "image", "photos", "--size", "30", "--preset", "thumb", "--out", "out")
    first = packmule.run(*words, "--contact-sheet")
    assert first.returncode == 1
    assert first.stderr.count("\n") == 1
    assert "b/words.jpg is not a readable image" in first.stderr
    assert re.fullmatch(r"3 made, 0 unchanged, 1 failed: \S+/out/manifest\.json\n", first.stdout)
    assert files(packmule.cwd / "out") == [
        "a", "a/x-30.jpg", "a/x-thumb.jpg", "b", "b/x-30.jpg", "b/x-thumb.jpg", "b/y-30.jpg", "b/y-thumb.jpg",
        "contact-sheet.html", "manifest.json",
    ]  # fmt: skip
    (photos / "b/words.jpg").write_bytes(picture(5))
    (photos / "b/y.jpg").unlink()
    planned = here(*words, "--dry-run")
    assert "b/words.jpg" in planned.stdout
    assert "1 would be made, 2 are unchanged, 1 are gone" in planned.stdout
    again = here(*words, "--delete", "--json")
    found = json.loads(again.stdout)
    assert (found["made"], found["unchanged"], found["failed"]) == (1, 2, {})
    assert (found["gone"], found["deleted"]) == (["b/y.jpg"], 2)
    assert not [name for name in files(packmule.cwd / "out") if "/y-" in name]
    assert here(*words).returncode == 0


@pytest.mark.usefixtures("workers")
def test_a_wait_for_a_folder_ends_in_time_and_the_same_command_goes_on(
    here: Run, redis: Redis, photos: Path
) -> None:
    words = ("enqueue", "image", "photos/a", "--size", "9", "--out", "late", "--queue", "high")
    queues.pause(redis, "high")
    assert complaint(here(*words, "--wait-timeout", "0.2s"), 1) == (
        "packmule: 0 of 1 images were done after 0.2 s, and the rest continues: run the same command again\n"
    )
    queues.resume(redis, "high")
    assert here(*words, "--wait-timeout", "60s").stdout.startswith("1 made, 0 unchanged")


@pytest.mark.usefixtures("workers")
def test_equal_names_never_overwrite_each_other(here: Run, packmule: CommandLine, photos: Path) -> None:
    done = here("enqueue", "image", "photos/a/x.jpg", "photos/b/x.jpg", "--size", "9", "--out", "same")
    assert done.returncode == 0, done.stderr
    made = [name for name in files(packmule.cwd / "same") if name.endswith("x-9.jpg")]
    assert made == ["photos/a/x-9.jpg", "photos/b/x-9.jpg"]


@pytest.mark.usefixtures("workers")
def test_renditions_go_into_the_storage_or_to_a_url(here: Run, packmule: CommandLine, photos: Path) -> None:
    words = ("--size", "9", "--fact", "colour", "--out", "store:small")
    done = here("enqueue", "image", "photos/a", *words)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((packmule.data_dir / "files/small/manifest.json").read_text())["sources"].values()
    assert re.fullmatch(r"#0.5a78", entry["facts"]["colour"])
    assert files(packmule.data_dir / "files" / "small") == ["manifest.json", "x-9.jpg"]
    url = (packmule.cwd / "elsewhere").as_uri()
    assert here("enqueue", "image", "store:small", "--size", "5", "--out", url).returncode == 0
    assert "x-9-5.jpg" in files(packmule.cwd / "elsewhere")


@pytest.mark.usefixtures("workers")
def test_without_out_a_folder_is_a_batch(packmule: CommandLine, here: Run, photos: Path) -> None:
    (photos / "b/words.jpg").unlink()
    id = here("enqueue", "image", "photos", "--glob", "*/x.jpg").stdout.strip()
    waited = here("batch", "wait", id)
    assert waited.stdout == "2 of 2 done, 0 failed, 0 canceled\n"


@pytest.mark.usefixtures("workers")
def test_urls_are_fetched_by_the_door_of_webhooks(here: Run, packmule: CommandLine) -> None:
    answers = {
        "/a.jpg": (200, {}, picture(1)),
        "/moved": (302, {"Location": "/a.jpg"}, b""),
        "/inside.jpg": (302, {"Location": "http://169.254.169.254/latest"}, b""),
        "/loop": (302, {"Location": "/loop"}, b""),
        "/cut.jpg": (200, {"Content-Length": "9999"}, b"x"),
    }
    with web(answers) as url:
        pages = [f"{url}{path}" for path in [*answers, "/gone.jpg"]]
        planned = here("enqueue", "image", *pages, "--size", "9", "--out", "fetched", "--dry-run", "--json")
        assert (len(json.loads(planned.stdout)["make"]), planned.stderr) == (6, "")
        done = here("enqueue", "image", *pages, "--size", "9", "--out", "fetched", "--json")
        found = json.loads(done.stdout)
        assert (done.returncode, found["made"]) == (1, 2)
        assert set(found["failed"]) == {"inside.jpg", "loop", "cut.jpg", "gone.jpg"}
        assert "169.254.169.254: use https://, or allow the host" in found["failed"]["inside.jpg"]
        assert "redirects more than 3 times" in found["failed"]["loop"]
        assert "the answer broke off" in found["failed"]["cut.jpg"]
        assert "answers 404" in found["failed"]["gone.jpg"]
        assert json.loads(here("enqueue", "image", pages[0], "--size", "9", "--wait").stdout)["renditions"]
        assert "169.254" in complaint(here("enqueue", "image", pages[2]), 2)
        assert "allow the host" in complaint(
            here("enqueue", "image", pages[0], PACKMULE_WEBHOOK_ALLOW="example.org"), 2
        )
        assert "PACKMULE_FETCH_FROM allows" in complaint(
            here("enqueue", "image", pages[0], PACKMULE_FETCH_FROM="example.org"), 2
        )
        assert "more bytes than the limit of 10" in complaint(
            here("enqueue", "image", pages[0], PACKMULE_MAX_FILE_BYTES="10"), 2
        )


@pytest.mark.usefixtures("workers")
def test_a_run_that_is_interrupted_goes_on(
    packmule: CommandLine, here: Run, photos: Path, redis: Redis
) -> None:
    here("queue", "pause", "low")
    (photos / "b/words.jpg").unlink()
    words = ("enqueue", "image", "photos", "--size", "9", "--out", "out", "--queue", "low")
    with packmule.started(*words) as process:
        until(lambda: redis.llen("rq:queue:low") == 3, "the jobs")
        manifest = packmule.cwd / "out/manifest.json"
        until(lambda: len(json.loads(manifest.read_text())["jobs"]) == 3, "the manifest")
        assert "another command is making renditions in out" in complaint(here(*words), 1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == 130
        assert "the same command continues from there" in err
    batch = json.loads(manifest.read_text())["batch"]
    here("queue", "resume", "low")
    done = here(*words)
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "3 made, 0 unchanged")
    assert json.loads(here("batch", "show", batch, "--json").stdout)["done"] == 3
    assert redis.llen("rq:queue:low") == 0


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("out", ["out", "store:strangers"])
def test_a_strangers_file_is_not_replaced_unless_that_is_wanted(
    here: Run, packmule: CommandLine, photos: Path, redis: Redis, out: str
) -> None:
    (photos / "b/words.jpg").unlink()
    folder = packmule.cwd / "out" if out == "out" else packmule.data_dir / "files/strangers"
    for name in ("b/x-9.jpg", "b/y-9.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    words = ("enqueue", "image", "photos", "--size", "9", "--out", out)
    before = set(redis.scan_iter("rq:job:*"))
    for more in ((), ("--dry-run",)):
        said = complaint(here(*words, *more), 2)
        assert "/b/x-9.jpg (and 1 more) would be replaced, but Packmule didn't make it" in said
        assert "use --overwrite" in said
    assert set(redis.scan_iter("rq:job:*")) == before
    assert (folder / "b/x-9.jpg").read_text() == (folder / "b/y-9.png").read_text() == "mine"
    assert not (folder / "manifest.json").exists()
    done = here(*words, "--overwrite", "--json")
    assert (done.returncode, json.loads(done.stdout)["made"]) == (0, 3)
    with Image.open(folder / "b/x-9.jpg") as made:
        assert made.width == 9
    assert json.loads(here(*words, "--json").stdout)["unchanged"] == 3


def test_two_commands_never_write_to_one_folder_of_the_storage_and_a_killed_one_makes_room(
    packmule: CommandLine, here: Run, photos: Path, redis: Redis
) -> None:
    words = ("enqueue", "image", "photos/a", "--size", "9", "--out", "store:shared", "--queue", "low")
    manifest = packmule.data_dir / "files/shared/manifest.json"
    here("queue", "pause", "low")
    with packmule.started(*words) as process:
        until(lambda: manifest.exists() and json.loads(manifest.read_text())["jobs"], "its manifest")
        said = complaint(here(*words), 1)
        assert "another command is making renditions in store:shared: wait until it ends, or 10 s if" in said
        assert here(*words[:-3], "store:other", "--dry-run").returncode == 0
        process.kill()
        process.wait(DEADLINE)
    here("queue", "resume", "low")
    with packmule.workers(lambda: redis.scard(keys.WORKERS)):
        until(lambda: "another command" not in (done := here(*words)).stderr and done.returncode == 0, "room")
    entries = json.loads(manifest.read_text())
    assert (entries["jobs"], list(entries["sources"])) == ({}, ["x.jpg"])


def test_a_run_survives_an_outage_of_redis(
    settings: dict[str, str], spare_server: Callable[[], EmbeddedServer], photos: Path
) -> None:
    (photos / "b/words.jpg").unlink()
    own = spare_server()
    commands = CommandLine(photos.parent, settings | {"PACKMULE_REDIS_URL": own.url})
    words = ("enqueue", "image", "photos", "--size", "8", "--out", "out")
    manifest = photos.parent / "out/manifest.json"
    with commands.started(*words) as process:
        until(lambda: manifest.exists() and len(json.loads(manifest.read_text())["jobs"]) == 3, "the jobs")
        own.stop()
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err.count("\n")) == (3, "", 1), err
    own.ensure()
    with commands.started("worker", "--processes", "1"):
        done = commands.run(*words)
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "3 made, 0 unchanged"), done.stderr


@pytest.mark.usefixtures("workers")
def test_a_terminal_shows_a_bar(packmule: CommandLine, photos: Path) -> None:
    ours, theirs = pty.openpty()
    words = ("enqueue", "image", "photos/a", "--size", "9", "--out", "out")
    try:
        with packmule.started(*words, stderr=theirs, TERM="xterm") as process:
            os.close(theirs)
            seen = b""
            try:
                while read := os.read(ours, 4096):
                    seen += read
            except OSError:  # how Linux tells that the other side has left
                pass
            assert process.wait(DEADLINE) == 0
        assert b"1 of 1 done" in seen
    finally:
        os.close(ours)


@pytest.mark.usefixtures("workers")
def test_the_dashboard_command_serves_what_its_key_signs(packmule: CommandLine) -> None:
    (packmule.cwd / "presets.toml").write_text("[tiny]\nwidth = 7\n")
    stored = packmule.data_dir / "files/in/a.jpg"
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_bytes(picture())
    port, key = free_port(), "a-key-that-is-long-enough"
    with packmule.started(
        "dashboard",
        PACKMULE_PORT=str(port),
        PACKMULE_SECRET_IMAGES=key,
        PACKMULE_PRESETS=str(packmule.cwd / "presets.toml"),
        PACKMULE_PREFIX="/jobs",
    ):
        address = url_for("in/a.jpg", "tiny", f"http://127.0.0.1:{port}/jobs", [key])
        until(lambda: is_up(f"http://127.0.0.1:{port}/jobs/health"), "the dashboard")
        with urlopen(address, timeout=DEADLINE) as answer, Image.open(BytesIO(answer.read())) as image:
            assert (answer.headers["Content-Type"], image.width) == ("image/jpeg", 7)
    weak = packmule.run("dashboard", PACKMULE_SECRET_IMAGES="short", PACKMULE_PORT=str(port))
    assert "PACKMULE_SECRET_IMAGES" in complaint(weak, 2)


def is_up(address: str) -> bool:
    try:
        with urlopen(address, timeout=DEADLINE) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


MISTAKES = {
    "no such source": (("gone.jpg",), ("no file gone.jpg", "store:")),
    "an empty folder": (("empty",), ("empty", "--glob")),
    "a preset that there is not": (("a.jpg", "--preset", "thumbs"), ("'thumbs'", "thumb")),
    "out is a file": (("a.jpg", "--out", "a.jpg"), ("a.jpg is a file", "folder")),
    "out is outside": (("a.jpg", "--out", "store:../x"), ("../x", "in the storage")),
    "out is the source": ((".", "--out", "."), ("sources", "another folder")),
    "out is the whole storage": (("a.jpg", "--out", "store:"), ("--out", "store:web")),
    "out of another kind": (("a.jpg", "--out", "gopher://x/y"), ("gopher",)),
    "a folder option without out": (("a.jpg", "--delete"), ("--out",)),
    "unique, and out": (("a.jpg", "--out", "out", "--unique"), ("--out waits",)),
    "a strange manifest": (("a.jpg", "--out", "strange"), ("strange/manifest.json", "another folder")),
    "a name that is too long": (("x" * 5000,), ("can't read xxx", "File name too long")),
    "out is too long": (("a.jpg", "--out", "x" * 300), ("can't write to xxx", "File name too long")),
    "a URL of another kind": (("ftp://example.org/a.jpg",), ("ftp://example.org", "http")),
    "a URL with a password": (("https://ada:secret@example.org/a.jpg",), ("password",)),
}


@pytest.mark.parametrize(("words", "reasons"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_before_any_work(
    here: Run, packmule: CommandLine, redis: Redis, words: tuple[str, ...], reasons: tuple[str, ...]
) -> None:
    (packmule.cwd / "a.jpg").write_bytes(picture())
    (packmule.cwd / "empty").mkdir()
    (packmule.cwd / "strange").mkdir()
    (packmule.cwd / "strange/manifest.json").write_text("{}]")
    before = set(redis.scan_iter("rq:job:*"))
    said = complaint(here("enqueue", "image", *words), 2)
    assert all(reason in said for reason in reasons), said
    assert set(redis.scan_iter("rq:job:*")) == before


def test_a_photograph_is_named_by_its_absolute_path_too(packmule: CommandLine) -> None:
    photo = Path(__file__).resolve().parents[1] / "jobs" / "samples" / "photo.jpg"
    id = packmule.output("enqueue", "image", str(photo), "--size", "64").strip()
    assert "uploads/" in packmule.output("job", "show", id)
