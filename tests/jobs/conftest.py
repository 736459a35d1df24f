"""What tests of jobs share: a storage in a folder, lent to the jobs that they perform, and one in S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from packmule.jobs import context, current
from packmule.jobs.storage import Storage
from packmule.tests.jobs.pictures import LIMITS
from packmule.tests.jobs.s3_server import ENVIRONMENT, forget, s3_server


@pytest.fixture(autouse=True)
def own_resources() -> Iterator[None]:
    """What a test lends to jobs, no other test's jobs have, even if it undoes its own patches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context, "resources", dict(context.resources))
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The storage's folder, which is not there yet."""
    return tmp_path / "store"


@pytest.fixture
def storage(folder: Path) -> Storage:
    """The storage, with the bounds of images."""
    storage = Storage(str(folder))
    context.provide(storage, LIMITS)
    return storage


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> list[context.Running]:
    """However slow the machine is, no report is due; the jobs whose late reports nobody sends."""
    late: list[context.Running] = []
    monkeypatch.setattr(context.late_reports, "send", late.append)
    monkeypatch.setattr(current, "REPORT_INTERVAL", 3600.0)
    return late


@pytest.fixture(scope="session")
def s3() -> Iterator[int]:
    """The port of a server that speaks S3."""
    with s3_server() as port:
        yield port


@pytest.fixture
def bucket(s3: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket, whose server is that of the environment."""
    import boto3

    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}"}.items():
        monkeypatch.setenv(name, value)
    forget()
    name = f"bucket-{uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name
