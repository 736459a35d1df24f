"""Storage in S3: whole or absent whatever the network does, in little memory, and plain words for faults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from packmule.config import Settings
from packmule.jobs.storage import MissingFile, Storage, StorageError, StorageUnavailable, faults, uploads
from packmule.observe.check import reached
from packmule.tests.jobs.s3_server import LosingNetwork, answering, cutting_answers, forget
from packmule.tests.worker.pools import until
from packmule.units import MIB

s3fs = pytest.importorskip("s3fs")
ROOT = Path(__file__).parents[2]
TWO_PARTS_AND_MORE = 2 * uploads.PART + 3 * MIB


@pytest.fixture
def network(s3, bucket, monkeypatch):
    """A network between the storage and its server."""
    between = LosingNetwork(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
    forget()
    yield between
    between.close()


def of_server(bucket: str, s3: int):
    """The storage without the network."""
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{s3}"
    forget()
    return Storage(f"s3://{bucket}/files")


def unfinished(s3: int, bucket: str) -> list[str]:
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3}")
    return [each["Key"] for each in client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]


def content(size: int) -> bytes:
    return os.urandom(MIB) * (size // MIB)


def test_an_upload_in_parts_goes_on_when_connections_are_lost(network, bucket):
    data = content(TWO_PARTS_AND_MORE)
    network.losses.extend([5 * MIB, 1 * MIB])
    Storage(f"s3://{bucket}/files").write_bytes("big.bin", data)
    assert network.lost == 2
    assert Storage(f"s3://{bucket}/files").read_bytes("big.bin") == data


def test_an_upload_that_can_not_end_leaves_nothing_to_be_seen(network, bucket, s3, monkeypatch):
    storage = Storage(f"s3://{bucket}/files")
    storage.write_bytes("big.bin", b"old")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    words = r"can't write big\.bin in s3://.*it can't be reached"
    with pytest.raises(StorageUnavailable, match=words), storage.write("big.bin") as file:
        file.write_bytes(content(TWO_PARTS_AND_MORE))
        network.is_down = True
    direct = of_server(bucket, s3)
    assert direct.names() == ["big.bin"]
    assert direct.read_bytes("big.bin") == b"old"
    direct.write_bytes("big.bin", b"new")
    assert direct.read_bytes("big.bin") == b"new"


def test_the_check_writes_to_the_bucket_and_leaves_nothing_there(s3, bucket):
    direct = of_server(bucket, s3)
    assert reached.storage(Settings(storage=f"s3://{bucket}/files")) == f"ok, s3://{bucket}/files/"
    assert direct.names() == []
    with pytest.raises(StorageError, match="nowhere"):
        reached.storage(Settings(storage="s3://nowhere/files"))


WRITE = """
import sys
from pathlib import Path
from packmule.jobs.storage import Storage
with Storage(sys.argv[1]).write("big.bin") as file:
    file.write_bytes(bytes(int(sys.argv[2])))
    print("written", flush=True)
"""


def test_a_process_killed_while_it_uploads_leaves_nothing_that_is_listed(network, bucket, s3, monkeypatch):
    size = 40 * uploads.PART
    command = [sys.executable, "-c", WRITE, f"s3://{bucket}/files", str(size)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == b"written\n"
        until(lambda: network.forwarded > uploads.PART)
        writer.send_signal(signal.SIGKILL)
    storage = of_server(bucket, s3)
    assert storage.names() == []
    assert unfinished(s3, bucket) == ["files/big.bin"]
    # The server says that each upload began in 2010.
    assert Storage(f"s3://{bucket}/elsewhere").remove_unfinished() == 0
    assert storage.remove_unfinished() == 1
    assert unfinished(s3, bucket) == []


def test_an_upload_of_today_is_left_alone():
    calls = []

    class System:
        def call_s3(self, method: str, **named: object) -> dict[str, object]:
            calls.append((method, named))
            return {"Uploads": [{"Key": "a", "UploadId": "1", "Initiated": datetime.now(UTC)}]}

    assert uploads.abort_forgotten(System(), "bucket/files") == 0
    assert calls == [("list_multipart_uploads", {"Bucket": "bucket", "Prefix": "files/"})]


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "AccessDenied", r"access is denied \(.*\): check the credentials"),
        (403, "InvalidAccessKeyId", "check the credentials"),
        (404, "NoSuchBucket", "the bucket does not exist: create it, or correct PACKMULE_STORAGE"),
        (500, "InternalError", r"it is busy or fails \(.*\): try again later"),
        (503, "SlowDown", r"it is busy or fails \(.*\): try again later"),
    ],
)
def test_an_answer_that_is_an_error_is_one_plain_line(bucket, monkeypatch, status, code, words):
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    message = "The specified bucket does not exist" if code == "NoSuchBucket" else "No\nway"
    with answering(status, code, message) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        forget()
        storage = Storage(f"s3://{bucket}/files")
        for act in (lambda: storage.write_bytes("a.txt", b"x"), storage.names):
            with pytest.raises(StorageError, match=words) as refused:
                act()
            assert str(refused.value).isprintable()
            assert isinstance(refused.value, StorageUnavailable) == (status >= 500)
        with pytest.raises(StorageError) as refused:
            storage.read_bytes("a.txt")
        assert not isinstance(refused.value, MissingFile)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "s3://AKIA:s3cretkey@files/x",
            "its library finds credentials in the environment: write s3://bucket",
        ),
        ("s3://AKIA:s3cr@tkey@files", "its library finds credentials in the environment"),
        ("s3://", "it names no bucket: write s3://bucket/prefix"),
        ("s3:///files", "it names no bucket"),
    ],
)
def test_a_url_without_a_bucket_or_with_credentials_is_refused_without_showing_them(url, words):
    with pytest.raises(StorageError, match=words) as refused:
        Storage(url)
    assert "s3cr" not in str(refused.value)


def test_answers_that_always_break_off_are_no_fault_of_the_file(bucket, s3, monkeypatch):
    storage = Storage(f"s3://{bucket}/files")
    storage.write_bytes("big.bin", content(9 * MIB))
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with cutting_answers(s3, 5 * MIB) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        forget()
        with pytest.raises(StorageUnavailable, match="it can't be reached"):
            Storage(f"s3://{bucket}/files").read_bytes("big.bin")


def test_a_missing_bucket_is_no_missing_file(bucket):
    storage = Storage("s3://no-such-bucket-here/files")
    for act in (lambda: storage.read_bytes("a.txt"), lambda: storage.exists("a.txt")):
        with pytest.raises(StorageError, match="the bucket does not exist") as refused:
            act()
        assert not isinstance(refused.value, MissingFile)


def test_a_server_that_is_away_and_credentials_that_are_missing_are_told_apart(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    forget()
    with pytest.raises(StorageUnavailable, match="can't be reached") as away:
        Storage(f"s3://{bucket}").read_bytes("a.txt")
    assert away.value.exit_code == 3
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    forget()
    with pytest.raises(StorageError, match="there are no credentials: set AWS_ACCESS_KEY_ID"):
        Storage(f"s3://{bucket}").read_bytes("a.txt")


def test_no_space_for_a_download_is_told_of_this_host(tmp_path, monkeypatch):
    error = faults.fault("can't read a.bin in s3://files", OSError(28, "No space left on device"))
    assert "of this host has no space for it: free some, or set TMPDIR" in str(error)


COPY = """
import resource, sys
from packmule.jobs.storage import Storage
storage = Storage(sys.argv[1])
storage.write_bytes("small.bin", b"x")
storage.read_bytes("small.bin")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with storage.read("big.bin") as file:
    print(file.stat().st_size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_file_is_read_in_little_memory(bucket, tmp_path):
    size = 200 * MIB
    big = tmp_path / "big.bin"
    with big.open("wb") as file:
        file.truncate(size)
    storage = Storage(f"s3://{bucket}/files")
    with storage.write("big.bin") as target:
        big.rename(target)
    done = subprocess.run(
        [sys.executable, "-c", COPY, f"s3://{bucket}/files"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    read, kilobytes = map(int, done.stdout.split())
    assert read == size
    assert kilobytes < 40_000


def test_files_have_their_sizes_and_times(bucket):
    storage = Storage(f"s3://{bucket}/files")
    storage.write_bytes("a/b.txt", b"12345")
    s3fs.S3FileSystem().pipe_file(f"{bucket}/files/marker/", b"")
    (found,) = storage.files()
    assert (found.path, found.bytes) == ("a/b.txt", 5)
    assert found.written_at
    assert abs(found.written_at - datetime.now(UTC).timestamp()) < 3600


def test_a_forked_process_opens_it_though_a_thread_had_the_lock_of_its_library(bucket):
    """As the thread that removes what dead processes left, while a worker forks for an isolated job."""
    import fsspec.asyn

    storage = Storage(f"s3://{bucket}/files")
    storage.write_bytes("a.txt", b"x")
    with fsspec.asyn.get_lock():
        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(120)  # ends the process if it hangs
                os._exit(0 if storage.read_bytes("a.txt") == b"x" else 1)
            finally:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
