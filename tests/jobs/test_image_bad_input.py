"""Bad input of image jobs: one plain line by the command, from Python and over HTTP, and others go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from packmule.dashboard.api.options import ApiOptions
from packmule.jobs import keys
from packmule.jobs.image import image
from packmule.jobs.job_type import InvalidCall
from packmule.tests.command_line import CommandLine, complaint, environment_in
from packmule.tests.dashboard.api_site import served_api
from packmule.tests.jobs.pictures import PHOTO, png_claiming, saved
from packmule.tests.jobs.web import web
from packmule.tests.worker.pools import ended

UNREADABLE = "UnreadableImage: {} is not a readable image (JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP or HEIC)"
SMALL = [{"width": 9}]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"
FILES = {
    "words.jpg": b"these are words\n",
    "eps.jpg": EPS,
    "empty.jpg": b"",
    "cut.jpg": PHOTO.read_bytes()[:9000],
    "wide.png": saved(Image.new("RGB", (17_000, 2)), "PNG"),
    "bomb.png": png_claiming(60_000, 60_000),
    "good.jpg": PHOTO.read_bytes(),
}
FAULTS: dict[str, tuple[str, list[Any], str]] = {
    "no image": ("in/words.jpg", SMALL, UNREADABLE),
    "an EPS": ("in/eps.jpg", SMALL, UNREADABLE),
    "empty": ("in/empty.jpg", SMALL, "UnreadableImage: {} is empty"),
    "cut": ("in/cut.jpg", SMALL, UNREADABLE + ": image file is truncated (4 bytes not processed)"),
    "a folder": ("in", SMALL, "MissingFile: {} is a folder of the storage: name an image in it"),
    "gone": ("in/gone.jpg", SMALL, "MissingFile: {} is not in the storage"),
    "a format that can't hold it": (
        "in/wide.png",
        [{"width": 17_000, "format": "webp"}],
        "ImageTooLarge: a rendition of 17000x2 is too large for webp, with at most 16,383 a side",
    ),
    "an impossible size": (
        "in/good.jpg",
        [{"width": 60_000, "height": 60_000, "fit": "stretch"}],
        "ImageTooLarge: a rendition of 60000x60000 is over the limit of 50,000,000 pixels",
    ),
    "a bomb": ("in/bomb.png", SMALL, "ImageTooLarge: {} has more pixels than the limit of 50,000,000"),
    "an unknown preset": (
        "in/good.jpg", ["thumbs"], "UnknownPreset: there is no preset 'thumbs': did you mean thumb?",
    ),
    "a redirect inside": (
        "/inside.jpg", SMALL,
        "InvalidTarget: 169.254.169.254: use https://, or allow the host in PACKMULE_WEBHOOK_ALLOW",
    ),
}  # fmt: skip
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no size": ({"renditions": [{"width": 0}]}, "argument renditions[0].width: expected `int` >= 1"),
    "half a size": (
        {"renditions": [{"width": 9, "fit": "cover"}]},
        "argument renditions[0]: a rendition with fit cover needs both width and height",
    ),
    "a size that its format can't have": (
        {"renditions": ["thumb", {"width": 17_000, "height": 9, "fit": "stretch", "format": "webp"}]},
        "argument renditions[1]: a rendition of 17000x9 is too large for webp, with at most 16,383 a side",
    ),
    "a wrong format": (
        {"renditions": [{"width": 9, "format": "bmp"}]},
        "argument renditions[0].format: invalid enum value 'bmp'",
    ),
    "nothing to make": ({"renditions": []}, "argument renditions: expected `array` of length >= 1"),
    "a path outside": (
        {"source": "../a.jpg"},
        "argument source: '../a.jpg' is not a path in the storage: use one such as uploads/a.jpg, without .. "
        "and leading /",
    ),
    "a URL of another kind": (
        {"source": "ftp://example.org/a.jpg"},
        "argument source: ftp://example.org/... is not an http:// or https:// URL with a host",
    ),
}
JOB = image.job.name


@pytest.fixture
def host(server, client, produce, tmp_path) -> Iterator[CommandLine]:
    """A host with workers, of which `data_dir/files/in` has the files."""
    settings = environment_in(tmp_path, server.url, PACKMULE_MODULES="", PACKMULE_WEBHOOK_ALLOW="127.0.0.1")
    commands = CommandLine(tmp_path, settings)
    folder = commands.data_dir / "files/in"
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    with commands.workers(lambda: client.scard(keys.WORKERS)):
        yield commands


@contextmanager
def internet() -> Iterator[str]:
    with web({"/inside.jpg": (302, {"Location": "http://169.254.169.254/latest"}, b"")}) as url:
        yield url


def at(source: str, url: str) -> str:
    return url + source if source.startswith("/") else source


def test_from_python_each_fails_its_job_in_one_line(client, host):
    with internet() as url:
        ids = {name: image.enqueue(at(source, url), wishes) for name, (source, wishes, _) in FAULTS.items()}
        for name, (source, _, line) in FAULTS.items():
            info = ended(client, ids[name])
            assert (info.status, info.attempts, info.reason) == ("failed", 0, line.format(source)), name
    assert host.run("enqueue", "image", "store:in/good.jpg", "--wait").returncode == 0


def test_over_http_each_job_has_the_same_line(client, host):
    options = ApiOptions(storage_url=str(host.data_dir / "files"), max_file_bytes=100_000)
    with internet() as url, served_api(client, options) as api:
        for name, (source, wishes, line) in FAULTS.items():
            call = {"source": at(source, url), "renditions": wishes}
            id = api.http.post("/jobs", json={"job": JOB, "kwargs": call}).json()["id"]
            ended(client, id)
            assert api.http.get(f"/jobs/{id}").json()["error"].rstrip().endswith(line.format(source)), name


def test_what_can_be_known_before_is_refused_before(client, host):
    options = ApiOptions(storage_url=str(host.data_dir / "files"), max_file_bytes=100_000)
    with served_api(client, options) as api:
        for name, (change, line) in REFUSED.items():
            call = {"source": "in/good.jpg", "renditions": SMALL} | change
            with pytest.raises(InvalidCall) as refused:
                image.enqueue(**call)
            assert str(refused.value) == f"{JOB}: {line}", name
            answer: httpx.Response = api.http.post("/jobs", json={"job": JOB, "kwargs": call})
            assert (answer.status_code, answer.json()["detail"]) == (422, f"{JOB}: {line}"), name
            [argument] = change
            assert answer.json()["errors"][0]["pointer"] == f"#/kwargs/{argument}", name
    assert list(client.scan_iter("rq:job:*")) == []


def test_a_command_names_each_of_a_folder_and_makes_the_others(host):
    folder = host.data_dir / "files/in"
    (folder / "wide.png").unlink()
    done = host.run("enqueue", "image", str(folder), "--size", "9", "--out", "out")
    assert (done.returncode, done.stdout.partition(":")[0]) == (1, "1 made, 0 unchanged, 5 failed")
    lines = done.stderr.splitlines()
    for name in ("words.jpg", "eps.jpg"):
        assert f"packmule: {UNREADABLE.format(name)}" in lines
    assert "packmule: UnreadableImage: empty.jpg is empty" in lines
    assert any(line.startswith("packmule: ImageTooLarge: bomb.png has more pixels") for line in lines)
    assert len(lines) == 5
    written = json.loads((host.cwd / "out/manifest.json").read_text())["sources"]
    assert [name for name, entry in written.items() if "error" not in entry] == ["good.jpg"]


def test_a_command_waits_for_one_and_says_why_it_failed(host, tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    cases = {
        ("words.jpg",): UNREADABLE.partition("{}")[2],
        ("eps.jpg",): UNREADABLE.partition("{}")[2],
        ("empty.jpg",): "empty.jpg is empty",
        ("wide.png", "--size", "17000", "--format", "webp"): "too large for webp, with at most 16,383 a side",
    }
    for words, reason in cases.items():
        assert reason in complaint(host.run("enqueue", "image", *words, "--wait"), 1), words
    (tmp_path / "folder.jpg").mkdir()
    before = {
        ("gone.jpg",): "there is no file gone.jpg; store:PATH names one in the storage",
        ("folder.jpg",): "folder.jpg has no file that is named like an image: --glob '*' takes all",
        ("store:gone.jpg",): "the storage has neither a file nor a folder gone.jpg",
        ("store:../a.jpg",): "'../a.jpg' is not a path in the storage: use one such as uploads/a.jpg, ",
        ("ftp://example.org/a.jpg",): "ftp://example.org/... is not an http:// or https:// URL with a host",
        ("good.jpg", "--size", "axb"): "'axb' is not a size: write 800x600, 800 or x600",
        ("good.jpg", "--size", "60000x60000", "--fit", "stretch"): (
            "--size 60000x60000: that is over the limit of 50,000,000 pixels (PACKMULE_MAX_PIXELS)"
        ),
        ("good.jpg", "--size", "17000x9", "--fit", "pad", "--format", "webp"): (
            "a rendition of 17000x9 is too large for webp, with at most 16,383 a side"
        ),
        ("good.jpg", "--format", "bmp"): "'bmp' is not one of 'auto', 'jpeg', 'png', 'webp', 'avif', 'gif'",
        ("good.jpg", "--preset", "thumbs"): "there is no preset 'thumbs': did you mean thumb?",
        ("good.jpg", "--size", "0x7"): "--size 0x7: argument width: expected `int` >= 1",
        ("good.jpg", "--size", "70000"): "--size 70000: argument width: expected `int` <= 65535",
        (
            "good.jpg",
            "--size",
            "9",
            "--fit",
            "cover",
        ): "--size 9: a rendition with fit cover needs both width",
    }
    for words, reason in before.items():
        assert reason in complaint(host.run("enqueue", "image", *words), 2), words
    with internet() as url:
        assert "169.254.169.254: use https://" in complaint(
            host.run("enqueue", "image", f"{url}/inside.jpg"), 2
        )
    assert Path(tmp_path / "good.jpg").read_bytes() == PHOTO.read_bytes()
