"""Isolated jobs whose storage is in S3: each process connects for itself, and a killed one leaves nothing."""

from __future__ import annotations

import os

import msgspec
import pytest

from packmule.jobs import keys
from packmule.jobs.storage import Storage
from packmule.tests.command_line import CommandLine, environment_in
from packmule.tests.jobs.s3_server import ENVIRONMENT, forget, s3_server

pytest.importorskip("s3fs")


@pytest.fixture
def packmule(server, client, tmp_path, monkeypatch):
    """Commands and workers whose storage is a bucket."""
    import boto3

    with s3_server() as port:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
            monkeypatch.setenv(name, value)
        forget()
        boto3.client("s3").create_bucket(Bucket="files-of-jobs")
        commands = CommandLine(tmp_path, environment_in(tmp_path, server.url))
        commands.environment["PACKMULE_STORAGE"] = "s3://files-of-jobs/all"
        with commands.workers(lambda: client.scard(keys.WORKERS)):
            yield commands


def test_files_of_isolated_jobs_get_there_and_back(packmule, tmp_path):
    (tmp_path / "rain.csv").write_text("day,mm\n" + "2026-11-01,2\n" * 1000)
    results = [
        msgspec.json.decode(packmule.output("enqueue", "file", "rain.csv", "--to", "parquet", "--wait"))
        for _ in range(3)
    ]
    assert [each["rows"] for each in results] == [1000] * 3
    storage = Storage("s3://files-of-jobs/all")
    names = storage.names()
    assert {each["path"] for each in results} < set(names)
    assert len(names) == 4  # the upload is stored once
    job = results[0]["path"].split("/")[1]
    assert packmule.output("files", "get", job, "out").split() == ["out/rain.parquet"]
    assert (tmp_path / "out/rain.parquet").read_bytes() == storage.read_bytes(results[0]["path"])
    assert os.listdir(tmp_path / "out") == ["rain.parquet"]  # noqa: PTH208
    packmule.output("files", "rm", job, "--yes")
    assert results[0]["path"] not in storage.names()
