"""What a job has made, on its page: pictures, first rows, members, files; and what is never shown."""

from __future__ import annotations

import json
import shutil
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import pytest
from PIL import Image
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.dashboard.api.options import ApiOptions
from packmule.dashboard.pages import job_files
from packmule.dashboard.previews import outputs, preview, sampling
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import keys
from packmule.jobs.files import file
from packmule.jobs.image import image
from packmule.jobs.storage import StorageError
from packmule.tests.command_line import DEADLINE, CommandLine, environment_in
from packmule.tests.dashboard.browser import NARROW, WIDE, opened, shoot, sideways
from packmule.tests.dashboard.pages_of_jobs import Pages, pages_for, text_of
from packmule.tests.dashboard.sites import served
from packmule.tests.dashboard.test_accessible import AXE
from packmule.tests.jobs import sample_jobs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.usefixtures("produce")

SAMPLES = Path(__file__).parents[2] / "jobs" / "samples"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Previews of a slow machine are waited for."""
    for name in ("LONGEST", "PATIENCE"):
        monkeypatch.setattr(sampling, name, DEADLINE)
    monkeypatch.setattr(outputs, "LOOKING", DEADLINE)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The folder of the storage."""
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


@pytest.fixture
def pages(client: Redis, files: Path) -> Iterator[Pages]:
    with pages_for(client, storage=str(files)) as found:
        yield found


def finished(client: Redis, name: str, result: Any) -> str:
    """A job of that function with that result."""
    id: str = sample_jobs.noop.enqueue()
    call = msgspec.json.encode([name, None, [], {}])
    client.hset(keys.job_key(id), mapping={"status": "finished", "data": call})
    value = b64encode(json.dumps(result).encode())
    client.xadd(keys.results_key(id), {"type": 1, "return_value": value})
    return id


def picture(folder: Path, path: str, size: tuple[int, int] = (40, 20)) -> dict[str, Any]:
    """What a rendition's result says; the file is there."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(folder / path)
    return {"path": path, "format": "png", "width": size[0], "height": size[1], "bytes": 100}


def test_renditions_are_pictures_for_those_who_may_see_them(pages: Pages, client: Redis, files: Path) -> None:
    made = [picture(files, "renditions/a b&c.png", (800, 400)), picture(files, "renditions/<i>.png")]
    id = finished(client, image.job.name, {"source": {"path": "uploads/x.jpg"}, "renditions": made})
    page = pages.get(f"/jobs/{id}")
    address = f"/outputs/{id}?file=renditions%2Fa+b%26c.png"
    assert f'<img src="{address}" width="220" height="110"' in page
    assert "800 × 400 png" in text_of(page)
    got = pages.browser.get(address)
    assert (got.status_code, got.headers["content-type"]) == (200, "image/png")
    assert got.headers["content-disposition"] == 'inline; filename="a-b-c.png"'
    assert got.headers["content-security-policy"] == "default-src 'none'; sandbox; frame-ancestors 'none'"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.content == (files / "renditions/a b&c.png").read_bytes()
    again = pages.browser.get(address + "&download=1")
    assert again.headers["content-type"] == "application/octet-stream"
    assert again.headers["content-disposition"].startswith("attachment; ")
    pages.viewer = Viewer("eve", Role.ADMIN, may_see_payloads=False)
    assert "<img" not in pages.get(f"/jobs/{id}")
    assert "Renditions" not in text_of(pages.get(f"/jobs/{id}"))
    assert "hidden by your role" in text_of(pages.get(address, 403))


@pytest.mark.parametrize("side", [10**400, -(10**400), 2**64, 0, -1])
def test_sides_beyond_all_bounds_break_no_page(pages: Pages, client: Redis, files: Path, side: int) -> None:
    made = [{**picture(files, "a.png"), "width": side}]
    id = finished(client, image.job.name, {"renditions": made})
    page = pages.get(f"/jobs/{id}")
    assert "<img" not in page
    assert f"/outputs/{id}?file=a.png" in page


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
        ("a.html", b"<!doctype html><script>alert(1)</script>"),
        ("a.png", b"<!doctype html><script>alert(1)</script>"),
        ("a.jpg", b"GIF87 <script>alert(1)</script>"),
        ("a.pdf", b"%PDF-1.7"),
        ("a.txt", b"plain"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(5_000_000)),
    ],
)
def test_nothing_but_small_pictures_is_shown_by_browsers(
    pages: Pages, client: Redis, files: Path, name: str, content: bytes
) -> None:
    (files / name).write_bytes(content)
    made = {"path": name, "format": "png", "width": 9, "height": 9, "bytes": 1}
    id = finished(client, image.job.name, {"renditions": [made]})
    got = pages.browser.get(f"/outputs/{id}", params={"file": name})
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert got.content == content


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "other.txt", "", "x" * 5000, "a\0b", "link", "folder", "http://x/y"]
)
def test_only_files_of_the_result_within_the_storage_are_given(
    pages: Pages, client: Redis, files: Path, path: str
) -> None:
    (files.parent / "secret").write_text("s3cret")
    (files / "other.txt").write_text("s3cret")
    (files / "link").symlink_to(files.parent / "secret")
    (files / "folder").mkdir()
    named = [] if path == "other.txt" else [{"path": path, "format": "png", "width": 1, "height": 1}]
    for name in (image.job.name, file.job.name, "shop.report"):
        id = finished(client, name, {"renditions": named, "path": named[0]["path"] if named else "a"})
        got = pages.browser.get(f"/outputs/{id}", params={"file": path}, headers={"Accept": "text/html"})
        assert got.status_code == 404, (name, got.text)
        assert "s3cret" not in got.text
        assert str(files) not in got.text
        pages.get(f"/jobs/{id}")
    assert pages.browser.get("/outputs/gone", params={"file": path}).status_code == 404


def test_a_file_that_grows_while_it_is_fetched_has_the_length_that_was_said(
    pages: Pages, client: Redis, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "a.txt").write_bytes(b"before")
    shown_as = job_files._shown_as

    def growing(*asked: Any) -> Any:
        (files / "a.txt").write_bytes(b"before and after")
        return shown_as(*asked)

    monkeypatch.setattr(job_files, "_shown_as", growing)
    id = finished(client, "shop.report", {"path": "a.txt"})
    got = pages.browser.get(
        f"/outputs/{id}", params={"file": "a.txt"}, headers={"Accept-Encoding": "identity"}
    )
    assert (got.headers["content-length"], got.content) == ("6", b"before")


def test_a_file_that_is_gone_is_said_to_be(
    pages: Pages, client: Redis, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [picture(files, "renditions/a.png"), picture(files, "renditions/b.png")]
    id = finished(client, image.job.name, {"renditions": made})
    (files / "renditions/a.png").unlink()
    page = pages.get(f"/jobs/{id}")
    assert page.count("<img") == 1
    assert "renditions/a.png is not in the storage: it was removed" in text_of(page)
    got = pages.get(f"/outputs/{id}", 404, file="renditions/a.png")
    assert "renditions/a.png is not in the storage" in text_of(got)
    shutil.rmtree(files)
    page = text_of(pages.get(f"/jobs/{id}"))
    assert page.count("is not in the storage: it was removed, or this dashboard's PACKMULE_STORAGE") == 2

    def unreachable(url: str) -> None:
        raise StorageError("can't read x in s3://secret-bucket: no route")

    monkeypatch.setattr(outputs, "_opened", unreachable)
    for other in (id, finished(client, file.job.name, {"path": "a.parquet"})):
        page = text_of(pages.get(f"/jobs/{other}"))
        assert "the storage can't be reached" in page
        assert "secret-bucket" not in page


def test_a_dashboard_without_a_storage_says_so_of_files(client: Redis) -> None:
    with pages_for(client) as pages:
        id = finished(client, file.job.name, {"path": "a.parquet"})
        assert "can't be checked now" in text_of(pages.get(f"/jobs/{id}"))
        assert "Files" not in text_of(pages.get(f"/jobs/{finished(client, 'shop.f', {'path': 'a'})}"))


def test_the_first_rows_of_tables_are_shown(pages: Pages, client: Redis, files: Path) -> None:
    duckdb.sql(
        'COPY (SELECT i, \'<b>\' || i AS "a ""b"" <i>", NULL::INT AS n, repeat(\'x\', 9999) AS long '
        f"FROM range(5000) t(i)) TO '{files / 'a.parquet'}'"
    )
    (files / "a.csv").write_text("day;rain\n" + "".join(f"2026-01-01;{each}\n" for each in range(90_000)))
    (files / "a.jsonl").write_text('{"line": 3, "reason": "no <date>", "x": [1]}\n' * 3)
    shown = {
        name: text_of(pages.get(f"/jobs/{finished(client, file.job.name, {'path': name})}"))
        for name in ("a.parquet", "a.csv", "a.jsonl")
    }
    assert "First rows of 5,000" in shown["a.parquet"]
    assert 'a "b" <i> VARCHAR' in shown["a.parquet"]
    assert "19 <b>19 null xxxx" in shown["a.parquet"]
    assert "<b>20" not in shown["a.parquet"]
    assert "x" * 300 not in shown["a.parquet"]
    assert "day DATE rain BIGINT" in shown["a.csv"]
    assert "There is more in the file." in shown["a.csv"]
    assert "3 no <date> [1]" in shown["a.jsonl"]
    assert "There is more" not in shown["a.jsonl"]


def test_an_inspected_archive_shows_its_members_and_text_its_lines(
    pages: Pages, client: Redis, files: Path
) -> None:
    with zipfile.ZipFile(files / "a.zip", "w") as archive:
        for number in range(150):
            archive.writestr(f"../<b>{number}", "x" * number)
    (files / "a.txt").write_text("one <script>\x1b[2J\ntwo")
    page = text_of(pages.get(f"/jobs/{finished(client, file.job.name, {'source': 'a.zip'})}"))
    assert "Members: 150" in page
    assert "../<b>99 99 B" in page
    assert "../<b>100" not in page
    page = pages.get(f"/jobs/{finished(client, file.job.name, {'source': 'a.txt'})}")
    assert "one <script>" in text_of(page)
    assert "\x1b" not in page


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"PAR1" + bytes(100) + b"PAR1"),
        ("a.zip", b"PK\x03\x04" + bytes(100)),
        ("a.zip", b"PK\x05\x06" + b"\xff" * 40),
        ("a.csv", b"a,b\n" + b'"' * 100_000),
        ("a.csv", (",".join(f"c{each}" for each in range(3000)) + "\n" + "1," * 2999 + "1\n").encode()),
        ("a.jsonl", b'{"a": ' + b"[" * 50_000 + b"\n" + b'{"a": 1}\n' * 5),
        ("a.bin", bytes(range(256)) * 9),
        ("a.txt", b""),
        ("a.tar", bytes(257) + b"ustar" + bytes(300)),
    ],
)
def test_a_broken_file_breaks_no_page(
    pages: Pages, client: Redis, files: Path, name: str, content: bytes
) -> None:
    (files / name).write_bytes(content)
    page = pages.get(f"/jobs/{finished(client, file.job.name, {'path': name})}")
    assert str(files) not in page
    assert name in text_of(page)


def test_a_file_that_takes_too_much_is_not_shown(
    pages: Pages, client: Redis, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "a.csv").write_text("a,b\n1,2\n")
    id = finished(client, file.job.name, {"path": "a.csv"})
    sampling._kept.clear()
    with monkeypatch.context() as patched:
        patched.setattr(sampling, "LONGEST", 0.0)
        assert "took too much time" in text_of(pages.get(f"/jobs/{id}"))
    sampling._kept.clear()
    with monkeypatch.context() as patched:
        patched.setattr(sampling, "PATIENCE", 0.0)
        assert all(sampling._turns.acquire(blocking=False) for _ in range(sampling.AT_ONCE))
        assert "Too many previews" in text_of(pages.get(f"/jobs/{id}"))
        sampling._turns.release(sampling.AT_ONCE)
    monkeypatch.setattr(sampling, "MOST_BYTES", 3)
    assert "No preview: the file is larger than" in text_of(pages.get(f"/jobs/{id}"))


def test_a_look_into_a_file_gets_no_secrets_and_is_kept_for_a_minute(
    pages: Pages, client: Redis, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "a.csv").write_text("a,b\n1,2\n")
    asked: list[dict[str, str]] = []
    run = sampling.subprocess.run

    def counted(command: list[str], **options: Any) -> Any:
        asked.append(options["env"])
        return run(command, **options)

    monkeypatch.setenv("PACKMULE_SMTP_URL", "smtp://a:s3cret@host")
    monkeypatch.setattr(sampling.subprocess, "run", counted)
    id = finished(client, file.job.name, {"path": "a.csv"})
    for _ in range(3):
        assert "a BIGINT b BIGINT 1 2" in text_of(pages.get(f"/jobs/{id}"))
    assert len(asked) == 1
    assert "s3cret" not in str(asked)


def test_files_of_other_jobs_can_be_downloaded(pages: Pages, client: Redis, files: Path) -> None:
    (files / "a.csv").write_text("a,b\n1,2\n")
    (files / "b.csv").write_text("x")
    result = {
        "report_path": "a.csv",
        "deep": [{"files": ["b.csv", 3, {"path": "gone"}]}],
        "path": "/v1/users",
    }
    id = finished(client, "shop.report", result)
    page = pages.get(f"/jobs/{id}")
    assert f'href="/outputs/{id}?file=a.csv&amp;download=1"' in page
    assert f'href="/outputs/{id}?file=b.csv&amp;download=1"' in page
    assert "file=gone" not in page
    assert pages.browser.get(f"/outputs/{id}?file=b.csv").content == b"x"
    client.hset(keys.job_key(id), "status", "failed")
    assert pages.browser.get(f"/outputs/{id}?file=b.csv").status_code == 404


@pytest.mark.parametrize(
    "result",
    [None, [], "path", {"renditions": 7}, {"renditions": [{"path": 5}]}, {"path": {}}, {"source": []}],
)
def test_a_result_of_another_shape_has_no_preview(pages: Pages, client: Redis, result: Any) -> None:
    for name in (image.job.name, file.job.name, "shop.report"):
        page = text_of(pages.get(f"/jobs/{finished(client, name, result)}"))
        assert "Renditions" not in page.replace('"renditions"', "")
        assert "Download" not in page


def test_a_room_can_enter_a_preview_of_its_own(
    pages: Pages, client: Redis, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "a.csv").write_text("x")
    made = preview.Preview("preview_files.html", {"files": [outputs.Output("of a mail")]})
    monkeypatch.setitem(preview.PREVIEWS, "packmule.jobs.email.email", lambda site, info: made)
    page = pages.get(f"/jobs/{finished(client, 'packmule.jobs.email.email', {'message_id': 'x'})}")
    assert "of a mail" in text_of(page)


def faults(page: Page) -> list[str]:
    """What axe finds."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options=AXE).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]


def test_real_jobs_show_what_they_made_in_a_browser(
    browser: Browser, tmp_path: Path, server: EmbeddedServer, client: Redis
) -> None:
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url, PACKMULE_PROCESSES="1"))
    photo = packmule.output(
        "enqueue",
        "image",
        str(SAMPLES / "photo.jpg"),
        "--size",
        "800",
        "--size",
        "200x200",
        "--format",
        "webp",
    )
    weather = packmule.output("enqueue", "file", str(SAMPLES / "weather.csv"), "--to", "parquet")
    packmule.output("worker", "--burst")
    storage = packmule.cwd / packmule.environment.get("PACKMULE_DATA_DIR", ".packmule") / "files"
    with served(client, api=ApiOptions(storage_url=str(storage))) as site:
        for viewport, scheme in ((WIDE, "light"), (NARROW, "dark")):
            with opened(browser, viewport, scheme) as (page, _):
                page.goto(f"{site.address}/jobs/{photo}")
                for each in page.locator("main img").all():
                    each.scroll_into_view_if_needed()
                page.wait_for_function(
                    "[...document.querySelectorAll('main img')].filter(e => e.naturalWidth > 0).length == 2"
                )
                assert not sideways(page)
                assert faults(page) == []
                shoot(page, f"preview-image-{viewport['width']}-{scheme}")
                page.goto(f"{site.address}/jobs/{weather}")
                page.get_by_role("heading", name="First rows of 1,461").wait_for()
                assert not sideways(page)
                assert faults(page) == []
                shoot(page, f"preview-table-{viewport['width']}-{scheme}")
