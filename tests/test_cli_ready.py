"""The ready-made jobs have short names in `packmule enqueue`, and hide no job of a user's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, reader
from packmule.jobs.storage import Storage
from packmule.tests.command_line import CommandLine, Run, complaint, environment_in
from packmule.tests.jobs.clamd_server import SIGNATURE, clamd_server
from packmule.tests.jobs.documents import pdf

OWN = """

@job
def scan(text: str) -> str:
    return f"{text} is of the shop"
"""


@pytest.fixture
def packmule(server: EmbeddedServer, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, OWN))


@pytest.fixture
def here(packmule: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return packmule.in_this_process(monkeypatch, capsys)


@pytest.fixture
def scanned(packmule: CommandLine, client: Redis) -> Iterator[CommandLine]:
    """Commands beside workers that have a scanner."""
    with clamd_server() as url:
        packmule.environment["PACKMULE_CLAMD"] = url
        with packmule.workers(lambda: client.scard(keys.WORKERS)):
            yield packmule


def test_short_names_are_ready_made_jobs_and_dotted_ones_are_called(packmule, client, tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    ready = reader.read(client, packmule.output("enqueue", "scan", "a.txt"))
    own = reader.read(client, packmule.output("enqueue", "call", "shop.scan", "text=this"))
    assert (ready.name, own.name) == ("packmule.jobs.files.scanning.scan", "shop.scan")
    assert "packmule enqueue call shop.scan" in complaint(
        packmule.run("enqueue", "shop.scan", "text=this"), 2
    )
    assert "packmule enqueue call shop.scan" in packmule.output("enqueue", "--help")


def test_options_become_arguments_and_several_files_a_batch(here, client, tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    batch = here("enqueue", "scan", "a.txt", "b.txt", "--report", "--partial").stdout.strip()
    jobs = [reader.read(client, id.decode()) for id in client.hkeys(keys.batch_key(batch) + ":jobs")]
    assert sorted(job.kwargs["source"].rpartition("/")[2] for job in jobs) == ["a.txt", "b.txt"]
    assert all((job.kwargs["infected"], job.kwargs["partial"]) == ("report", True) for job in jobs)
    assert "there is no file c.txt" in complaint(here("enqueue", "scan", "c.txt"), 2)


def test_a_virus_is_found_by_a_job_in_a_process_of_its_own(scanned, tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "virus.txt").write_bytes(SIGNATURE)
    assert '"clean": true' in scanned.output("enqueue", "scan", "a.txt", "--wait")
    found = scanned.run("enqueue", "scan", "virus.txt", "--wait")
    assert found.returncode == 1
    assert "virus.txt contains Eicar-Test, says ClamAV 1.4.3" in found.stderr
    assert Storage(str(scanned.data_dir / "files")).names("uploads/")


def test_the_text_of_a_document_is_read_by_a_job_without_a_network(packmule, client, tmp_path):
    (tmp_path / "a.pdf").write_bytes(pdf("Hello"))
    (tmp_path / "cut.pdf").write_bytes(pdf("Hello")[:300])
    storage = Storage(str(packmule.data_dir / "files"))
    with packmule.workers(lambda: client.scard(keys.WORKERS)):
        result = json.loads(packmule.output("enqueue", "text", "a.pdf", "--thumbnails", "1", "--wait"))
        cut = packmule.run("enqueue", "text", "cut.pdf", "--wait")
    assert storage.read_bytes(result["path"]) == b"Hello"
    assert storage.read_bytes(result["thumbnails"][0])[8:12] == b"WEBP"
    assert (cut.returncode, "cut.pdf: is truncated: its end is missing" in cut.stderr) == (1, True)
    assert len(cut.stderr.splitlines()) == 1
