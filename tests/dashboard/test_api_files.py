"""Uploads by HTTP: whole or not at all, bounded, and with names that lead nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from packmule.jobs.storage import Storage, StorageUnavailable
from packmule.tests.dashboard.api_site import Api, served_api
from packmule.tests.jobs.stores import full_disk

CONTENT = b"\x00\xff" * 20_000


def stored(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "files").rglob("*") if path.is_file()]


def test_a_file_is_put_and_can_be_given_to_a_job(api: Api, tmp_path: Path) -> None:
    answer = api.http.put("/files/photo.jpg", content=CONTENT)
    assert answer.status_code == 201
    found = answer.json()
    assert (found["bytes"], found["sha256"]) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert found["path"].endswith("/photo.jpg")
    assert Storage(str(tmp_path / "files")).read_bytes(found["path"]) == CONTENT


def test_a_form_brings_a_file_among_other_fields(api: Api, tmp_path: Path) -> None:
    files = {"other": ("b.txt", b"not this"), "file": ("a.txt", CONTENT)}
    answer = api.http.post("/files", data={"field": "x"}, files=files)
    assert answer.status_code == 201, answer.text
    assert Storage(str(tmp_path / "files")).read_bytes(answer.json()["path"]) == CONTENT
    assert len(stored(tmp_path)) == 1


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..%2f..%2fa", "%00a", "a\\..\\b", ".tmp/x", "é" * 100, "a b", "-", "CON", "."],
)
def test_a_name_leads_nowhere_else(api: Api, tmp_path: Path, name: str) -> None:
    answer = api.http.put(f"/files/{name}", content=b"x")
    if answer.status_code == 201:
        (file,) = stored(tmp_path)
        assert file.is_relative_to(tmp_path / "files" / "uploads")
    else:
        assert answer.status_code in (404, 405, 422)
    form = api.http.post("/files", files={"file": (name, b"x")})
    assert form.status_code in (201, 422)
    assert all(file.is_relative_to(tmp_path / "files" / "uploads") for file in stored(tmp_path))


def chunks(total: int) -> Iterator[bytes]:
    for _ in range(total // 10_000):
        yield b"x" * 10_000


def test_a_file_that_is_too_large_leaves_nothing(api: Api, tmp_path: Path) -> None:
    assert api.http.put("/files/a", content=b"x" * 200_000).status_code == 413
    assert api.http.put("/files/a", content=chunks(200_000)).status_code == 413  # without a length
    assert api.http.post("/files", files={"file": ("a", b"x" * 200_000)}).status_code == 413
    assert api.http.put("/files/" + "a" * 400, content=b"x").status_code == 422
    assert stored(tmp_path) == []


def test_other_fields_of_a_form_are_bounded_too(api: Api, tmp_path: Path) -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\nabc\r\n'

    def form(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield field * 500
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ny\r\n--b--\r\n'

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert api.http.post("/files", content=form(10), headers=headers).status_code == 201
    with api.as_copy() as http:
        answer = http.post("/files", content=form(60), headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:packmule:FormTooLarge")
    assert len(stored(tmp_path)) == 1


def test_an_upload_that_breaks_off_leaves_nothing(api: Api, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 10_000
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        api.http.put("/files/a", content=broken())
    boundary = b"--b\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n" + b"x" * 1000
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with api.as_copy() as http:
        assert http.post("/files", content=boundary, headers=headers).status_code == 400
    assert [path for path in stored(tmp_path) if ".tmp" not in path.parts] == []


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "multipart/form-data", 415),
        (b"", "multipart/form-data; boundary=", 415),
        (b"", "multipart/form-data; boundary=" + "b" * 300, 415),
        (b"nonsense", "multipart/form-data; boundary=b", 400),
        (b"--b--\r\n", "multipart/form-data; boundary=b", 422),
        (
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\na\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            422,
        ),
        (b"{}", "application/json", 415),
    ],
)
def test_a_form_without_a_file_is_refused(api: Api, content: bytes, kind: str, status: int) -> None:
    answer = api.http.post("/files", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("size", [50_001, 90_000])
def test_a_full_disk_is_said_and_leaves_nothing(api: Api, tmp_path: Path, size: int) -> None:
    with full_disk(50_000):
        for answer in (
            api.http.put("/files/a", content=b"x" * size),
            api.http.post("/files", files={"file": ("a", b"x" * size)}),
        ):
            assert (answer.status_code, answer.json()["type"]) == (507, "urn:packmule:StorageFull")
            assert answer.json()["detail"] == "there is no space for this file: nothing of it was kept"
        assert stored(tmp_path) == []
        assert api.http.put("/files/a", content=b"x").status_code == 201


def test_a_storage_that_is_away_is_not_called_redis(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StorageUnavailable("can't write a in s3://secret: it can't be reached")

    monkeypatch.setattr(Storage, "write", away)
    answer = api.http.put("/files/a", content=b"x")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:packmule:StorageUnavailable")
    assert answer.json()["detail"] == "the storage is away or fails: try again in a moment"


def test_without_a_storage_nothing_is_taken(client: Redis) -> None:
    with served_api(client) as api:
        answer = api.http.put("/files/a", content=b"x")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:packmule:NoStorage")
