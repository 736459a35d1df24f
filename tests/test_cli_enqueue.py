"""`packmule enqueue` as its users meet it: real processes, a real server, and workers that perform."""

from __future__ import annotations

import json
import os
import pty
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from redis import Redis

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, reader
from packmule.tests.command_line import DEADLINE, ROOT, CommandLine, Run, complaint, environment_in

SAMPLES = Path(str(resources.files("packmule.jobs") / "samples"))


@pytest.fixture(scope="module")
def settings(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of every command: the shared server, a user's jobs and template, no mail server."""
    home = tmp_path_factory.mktemp("shop")
    (home / "templates").mkdir()
    (home / "templates" / "bill.txt").write_text("You owe {{ amount }}.")
    return environment_in(
        home,
        server.url,
        PACKMULE_TEMPLATES=str(home / "templates"),
        PYTHONPATH=os.pathsep.join([str(ROOT), str(home)]),
    )


@pytest.fixture(scope="module")
def storage(settings: dict[str, str]) -> Path:
    return Path(settings["PACKMULE_DATA_DIR"]) / "files"


@pytest.fixture(scope="module")
def redis(server: EmbeddedServer) -> Iterator[Redis]:
    """A client of the shared server, emptied once: the workers below stay registered between tests."""
    with connect(None, server.data_dir) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="module")
def workers(
    settings: dict[str, str], redis: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A pool that performs what the tests of this module enqueue."""
    home = tmp_path_factory.mktemp("pool")
    with CommandLine(home, settings).workers(lambda: redis.scard(keys.WORKERS)):
        yield


@pytest.fixture
def packmule(settings: dict[str, str], tmp_path: Path) -> CommandLine:
    """Commands in an empty working directory."""
    return CommandLine(tmp_path, settings)


@pytest.fixture
def here(packmule: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The same in this process."""
    return packmule.in_this_process(monkeypatch, capsys)


def state(redis: Redis, storage: Path) -> tuple[set[bytes], set[Path]]:
    """All that an enqueue could have left behind: jobs, and files."""
    return {*redis.scan_iter("rq:job:*")}, {path for path in storage.rglob("*") if path.is_file()}


EMAIL = ("email", "--to", "ada@example.com", "--subject", "Hello", "--body", "Hi")
PHOTO = str(SAMPLES / "photo.jpg")


def test_without_wait_the_job_id_is_all_that_is_printed(packmule: CommandLine, redis: Redis) -> None:
    done = packmule.run("enqueue", *EMAIL, "--in", "1h")
    assert (done.returncode, done.stderr) == (0, "")
    id = done.stdout.removesuffix("\n")
    assert keys.JOB_ID.fullmatch(id)
    record = reader.read(redis, id)
    assert (record.status, record.queue, record.name) == ("scheduled", "high", "packmule.jobs.email.email")
    assert record.kwargs == {"to": ["ada@example.com"], "subject": "Hello", "body": "Hi"}


@pytest.mark.usefixtures("workers")
def test_wait_prints_the_result_as_json_and_nothing_else_where_there_is_no_terminal(
    packmule: CommandLine,
) -> None:
    done = packmule.run("enqueue", "call", "shop.add", "a=40", "b=2", "--wait")
    assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "")


@pytest.mark.usefixtures("workers")
def test_on_a_terminal_progress_goes_to_standard_error(packmule: CommandLine) -> None:
    ours, theirs = pty.openpty()
    words = ("enqueue", "call", "shop.add", "a=1", "--wait")
    try:
        with packmule.started(*words, stderr=theirs, TERM="xterm") as process:
            os.close(theirs)
            seen = b""
            try:
                while read := os.read(ours, 4096):
                    seen += read
            except OSError:  # how Linux tells that the other side has left
                pass
            assert process.stdout is not None
            assert json.loads(process.stdout.read()) == 2
            assert process.wait(DEADLINE) == 0
        assert b"100%" in seen
        assert b"add" in seen
    finally:
        os.close(ours)


@pytest.mark.usefixtures("workers")
def test_wait_with_json_prints_the_whole_record(packmule: CommandLine) -> None:
    done = packmule.run("enqueue", "call", "shop.add", "a=1", "--wait", "--json", "--queue", "low")
    record = json.loads(done.stdout)
    assert (record["status"], record["result"], record["queue"]) == ("finished", 2, "low")
    assert record["progress"]["message"] == "adding"


@pytest.mark.usefixtures("workers")
def test_an_email_arrives_with_its_attachment(packmule: CommandLine, storage: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("attached")
    words = (
        "--to",
        "ada@example.com",
        "--to",
        "bob@example.com",
        "--subject",
        "Bill",
        "--attach",
        "note.txt",
    )
    done = packmule.run("enqueue", "email", *words, "--template", "bill", "--var", "amount=12 €", "--wait")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["accepted"] == ["ada@example.com", "bob@example.com"]
    mails = [message_from_bytes(path.read_bytes()) for path in (storage / "mail").glob("*.eml")]
    (mail,) = [mail for mail in mails if mail["Message-ID"] == result["message_id"]]
    parts = {part.get_filename(): part.get_payload(decode=True) for part in mail.walk()}
    assert parts["note.txt"] == b"attached"
    assert "You owe 12 €.".encode() in parts[None]


@pytest.mark.usefixtures("workers")
def test_an_image_becomes_renditions_of_the_sizes_asked_for(packmule: CommandLine, storage: Path) -> None:
    sizes = ("--size", "200", "--size", "x50", "--size", "64x64", "--format", "png")
    done = packmule.run("enqueue", "image", PHOTO, *sizes, "--wait")
    assert done.returncode == 0, done.stderr
    found = []
    for rendition in json.loads(done.stdout)["renditions"]:
        with Image.open(storage / rendition["path"]) as image:
            found.append((image.format, *image.size))
    with Image.open(PHOTO) as original:
        width, height = ImageOps.exif_transpose(original).size
    assert found[0] == ("PNG", 200, round(200 * height / width))
    assert found[1][2] == 50
    assert found[2] == ("PNG", 64, round(64 * height / width))


@pytest.mark.usefixtures("workers")
def test_renditions_of_an_image_that_comes_again_are_copied(packmule: CommandLine, redis: Redis) -> None:
    for _ in range(2):
        done = packmule.run("enqueue", "image", PHOTO, "--size", "77", "--wait")
        assert done.returncode == 0, done.stderr
        (key,) = (key for key in redis.keys("pm:cache:jobs:image/*") if b"-77x" in redis.get(key))
        (made,) = json.loads(done.stdout)["renditions"]
        assert f'"{made["path"]}"'.encode() in redis.get(key)


@pytest.mark.usefixtures("workers")
def test_a_csv_becomes_parquet(packmule: CommandLine, storage: Path, tmp_path: Path) -> None:
    (tmp_path / "stock.csv").write_text("item,count\nnut,3\nbolt,4\n")
    done = packmule.run("enqueue", "file", "stock.csv", "--to", "parquet", "--out", "stock.parquet", "--wait")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["rows"], result["path"]) == (2, "stock.parquet")
    assert (storage / "stock.parquet").read_bytes()[:4] == b"PAR1"


@pytest.mark.usefixtures("workers")
def test_a_file_already_in_the_storage_is_named_with_store(here: Run, storage: Path) -> None:
    (storage / "lists").mkdir(parents=True)
    (storage / "lists" / "a.csv").write_text("a,b\n1,2\n")
    done = here("enqueue", "file", "store:lists/a.csv", "--wait")
    assert json.loads(done.stdout)["source"] == "lists/a.csv"


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize(
    ("words", "reasons"),
    [
        (("image", "text.jpg"), ("text.jpg", "image")),
        (("file", "photo.csv", "--to", "parquet"), ("photo.csv",)),
        (("email", "--to", "ada@example.com", "--subject", "x", "--template", "bill"), ("bill", "amount")),
        (("email", "--to", "ada@example.com", "--subject", "x", "--template", "gone"), ("gone",)),
        (("call", "shop.boom"), ("ValueError", "the shelf is empty")),
    ],
)
def test_a_job_that_fails_gives_its_reason_in_one_line_and_exit_code_1(
    here: Run, redis: Redis, storage: Path, tmp_path: Path, words: tuple[str, ...], reasons: tuple[str, ...]
) -> None:
    (tmp_path / "text.jpg").write_text("these are words\n")
    (tmp_path / "photo.csv").write_bytes(Path(PHOTO).read_bytes())
    said = complaint(here("enqueue", *words, "--wait"), 1)
    assert all(reason in said for reason in reasons), said
    (id,) = re.findall(r"job ([0-9a-f]{32}) failed: ", said)
    assert reader.read(redis, id).attempts == 0, "it was retried although nothing would have changed"
    left = [path for path in storage.rglob("*") if path.is_file() and path.parts[-2] == ".tmp"]
    assert left == []


@pytest.mark.usefixtures("workers")
def test_a_failed_process_of_its_own_ends_with_exit_code_1(packmule: CommandLine) -> None:
    assert "the shelf is empty" in complaint(packmule.run("enqueue", "call", "shop.boom", "--wait"), 1)


@pytest.mark.usefixtures("workers")
def test_in_and_at_run_a_job_at_that_time(here: Run) -> None:
    def waited(*words: str) -> tuple[datetime, datetime]:
        record = json.loads(here("enqueue", "call", "shop.add", "a=1", *words, "--wait", "--json").stdout)
        created, started = (datetime.fromisoformat(record[name]) for name in ("created_at", "started_at"))
        return created, started

    created, started = waited("--in", "1s")
    assert timedelta(seconds=0.99) < started - created < timedelta(seconds=30)
    due = datetime.now(UTC) + timedelta(seconds=1)
    created, started = waited("--at", due.astimezone().replace(tzinfo=None).isoformat())
    assert due - timedelta(milliseconds=10) < started < due + timedelta(seconds=30)


@pytest.mark.usefixtures("workers")
def test_a_time_that_has_passed_runs_a_job_now_and_says_so(here: Run) -> None:
    done = here("enqueue", "call", "shop.add", "a=1", "--at", "2020-01-31T08:00", "--wait")
    assert (done.returncode, done.stdout) == (0, "2\n")
    assert done.stderr == "packmule: --at 2020-01-31T08:00 has passed: the job runs now\n"


def test_options_reach_the_record(here: Run, redis: Redis) -> None:
    words = (
        "--queue",
        "low",
        "--timeout",
        "5m",
        "--retries",
        "2",
        "--description",
        "the sum",
        "--in",
        "1d2h",
    )
    id = here("enqueue", "call", "shop.add", "a=1", *words, "--result-ttl", "1h30m").stdout.strip()
    record = reader.read(redis, id)
    assert (record.queue, record.timeout, record.retries_left) == ("low", "300", 2)
    assert record.description == "the sum"
    assert redis.hget(keys.job_key(id), "result_ttl") == b"5400"
    due = redis.zscore(keys.registry_key("scheduled", "low"), id)
    assert due is not None
    assert abs(due - time.time() - 26 * 3600) < 30


def test_values_of_a_call_are_json_where_they_can_be(here: Run, redis: Redis) -> None:
    id = here("enqueue", "call", "shop.add", "a=1", "b=-7", "--in", "1h").stdout.strip()
    assert reader.read(redis, id).kwargs == {"a": 1, "b": -7}


def test_a_job_id_enqueues_once(here: Run, redis: Redis) -> None:
    printed = {here("enqueue", *EMAIL, "--in", "1h", "--job-id", "hello-ada").stdout for _ in range(2)}
    assert printed == {"hello-ada\n"}
    ids = redis.zrange(keys.registry_key("scheduled", "high"), 0, -1)
    assert ids.count(b"hello-ada") == 1


def test_a_unique_job_is_enqueued_once_and_its_id_printed_with_a_note(here: Run, redis: Redis) -> None:
    words = ("enqueue", "call", "shop.add", "a=77", "--in", "1h")
    first = here(*words, "--unique")
    again = here(*words, "b=1", "--unique")
    id = first.stdout.strip()
    assert (first.stderr, again.stdout, again.returncode) == ("", first.stdout, 0)
    assert again.stderr == f"packmule: job {id} is an equal one and still pending: nothing was enqueued\n"
    assert here(*words).stdout != first.stdout
    keyed = [here(*words, f"b={b}", "--unique-key", "{a}", "--unique-ttl", "1h").stdout for b in (1, 2)]
    assert keyed[0] == keyed[1] != first.stdout


def test_debounced_and_throttled_jobs_from_the_command_line(here: Run, redis: Redis) -> None:
    words = ("enqueue", "call", "shop.add", "a=78")
    keyed = ("--unique-key", "{a}", "--debounce", "1h", "--debounce-limit", "2h")
    first, last = [here(*words, f"b={b}", *keyed) for b in (1, 2)]
    id = first.stdout.strip()
    assert last.stdout == first.stdout
    assert "now has the new arguments" in last.stderr
    assert reader.read(redis, id).kwargs == {"a": 78, "b": 2}
    throttled = [here(*words, "--queue", "low", "--throttle", "1h").stdout for _ in range(2)]
    assert throttled[0] == throttled[1] != first.stdout


@pytest.mark.usefixtures("workers")
def test_wait_follows_the_job_that_holds_the_place(here: Run) -> None:
    words = ("enqueue", "call", "shop.add", "a=40", "b=2", "--throttle", "1h", "--wait")
    first, again = here(*words), here(*words)
    assert (first.stdout, again.stdout, again.returncode) == ("42\n", "42\n", 0)
    assert "is an equal one and still pending" in again.stderr


CALL = ("call", "shop.add")
REFUSED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "unknown queue": ((*EMAIL, "--queue", "hihg"), ("'hihg'", "high, default, low", "PACKMULE_QUEUES")),
    "unknown queue, with a file": (("image", PHOTO, "--queue", "hihg"), ("'hihg'", "high, default, low")),
    "missing file": (("image", "gone.jpg"), ("gone.jpg", "store:")),
    "a folder as file": (("file", "."), ("no file .",)),
    "missing attachment": ((*EMAIL, "--attach", "gone.pdf"), ("gone.pdf",)),
    "missing in the storage": (("file", "store:a/gone.csv"), ("a/gone.csv", "files")),
    "outside the storage": (("file", "store:../gone.csv"), ("../gone.csv", "not a path in the storage")),
    "not an address": (("email", "--to", "ada", "--subject", "x"), ("'ada'", "@")),
    "not a sender": ((*EMAIL, "--from", "ada@"), ("'ada@'",)),
    "too large": ((*EMAIL[:-1], "x" * 300_000), ("262144", "PACKMULE_MAX_JOB_BYTES")),
    "unknown job name": (("call", "shop.gone"), ("shop.gone", "@job", "PACKMULE_MODULES")),
    "wrong type": ((*CALL, "a=one"), ("shop.add", "argument a", "int")),
    "missing argument": (CALL, ("shop.add", "'a'")),
    "unknown argument": ((*CALL, "a=1", "c=2"), ("shop.add", "'c'")),
    "not an assignment": ((*CALL, "a"), ("'a'", "NAME=VALUE")),
    "not a variable": ((*EMAIL, "--var", "=x"), ("--var", "NAME=VALUE")),
    "not a duration": ((*EMAIL, "--in", "soon"), ("--in", "'soon'", "1h30m")),
    "an empty duration": ((*EMAIL, "--timeout", ""), ("--timeout", "1h30m")),
    "no time at all": ((*EMAIL, "--timeout", "0"), ("timeout", "above 0")),
    "not a time": ((*EMAIL, "--at", "25:61"), ("--at", "'25:61'", "2026-12-01T08:00")),
    "a time too far": ((*EMAIL, "--at", "0001-01-01"), ("--at", "'0001-01-01'")),
    "two times": ((*EMAIL, "--in", "1s", "--at", "2030-01-01"), ("delay or at",)),
    "two kinds of unique": ((*CALL, "a=1", "--unique", "--unique-key", "x"), ("--unique", "not both")),
    "a key of no argument": ((*CALL, "a=1", "--unique-key", "{c}"), ("{c}", "no argument", "a, b")),
    "no time to hold": ((*CALL, "a=1", "--throttle", "0"), ("throttle", "above 0")),
    "two rules": ((*CALL, "a=1", "--throttle", "1", "--debounce", "1"), ("debounce or throttle",)),
    "a limit of nothing": ((*CALL, "a=1", "--debounce-limit", "1"), ("debounce_limit",)),
    "not an id": ((*EMAIL, "--job-id", "a b"), ("'a b'", "letters")),
    "not a size": (("image", PHOTO, "--size", "10y10"), ("--size", "'10y10'", "800x600")),
    "a fit without a height": (("image", PHOTO, "--size", "9", "--fit", "cover"), ("cover", "height")),
    "no size at all": (("image", PHOTO, "--size", "0x0"), ("--size 0x0", "width")),
    "not a quality": (("image", PHOTO, "--quality", "101"), ("--quality", "1<=x<=100", "--help")),
    "not a format": (("image", PHOTO, "--format", "bmp"), ("'bmp'", "'webp'")),
    "missing option": (("email", "--to", "ada@example.com"), ("--subject", "packmule enqueue email --help")),
    "unknown option": (("file", PHOTO, "--nonsense"), ("--nonsense",)),
    "unknown command": (("nonsense",), ("nonsense",)),
    "nothing to wait for": ((*EMAIL, "--wait", "--result-ttl", "0"), ("--wait", "--result-ttl")),
}


@pytest.mark.parametrize(("words", "told"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_told_in_one_line_and_leaves_nothing_behind(
    here: Run, redis: Redis, storage: Path, words: tuple[str, ...], told: tuple[str, ...]
) -> None:
    before = state(redis, storage)
    said = complaint(here("enqueue", *words), 2)
    assert all(each in said for each in told), said
    assert state(redis, storage) == before


def test_a_refusal_in_a_process_of_its_own_shows_no_traceback(packmule: CommandLine) -> None:
    assert "no-such-queue" in complaint(packmule.run("enqueue", *EMAIL, "--queue", "no-such-queue"), 2)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///nowhere/server.sock"])
def test_an_unreachable_server_is_exit_code_3_and_nothing_is_copied(
    packmule: CommandLine, tmp_path: Path, url: str
) -> None:
    done = packmule.run(
        "enqueue", "image", PHOTO, PACKMULE_REDIS_URL=url, PACKMULE_DATA_DIR=str(tmp_path / "data")
    )
    said = complaint(done, 3)
    assert url in said
    assert "is it running?" in said
    assert not (tmp_path / "data").exists()


def test_a_password_is_not_shown_when_its_server_cannot_be_reached(here: Run) -> None:
    said = complaint(here("enqueue", *EMAIL, PACKMULE_REDIS_URL="redis://:s3cret@127.0.0.1:1/0"), 3)
    assert "s3cret" not in said


def test_a_url_of_another_scheme_is_a_usage_error(here: Run) -> None:
    said = complaint(here("enqueue", *EMAIL, PACKMULE_REDIS_URL="http://:s3cret@localhost"), 2)
    assert "PACKMULE_REDIS_URL" in said
    assert "redis://" in said
    assert "s3cret" not in said


def test_a_priority_is_stored_and_one_out_of_bounds_is_one_line(packmule: CommandLine, redis: Redis) -> None:
    done = packmule.run("enqueue", "call", "shop.add", "a=1", "--in", "1h", "--priority", "-7")
    assert redis.hget(keys.job_key(done.stdout.strip()), "priority") == b"-7"
    refused = packmule.run("enqueue", "call", "shop.add", "a=1", "--priority", "101")
    assert "-100<=x<=100" in complaint(refused, 2)
