"""`packmule batch`, and several files of one enqueue, as an operator uses them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.tests.command_line import CommandLine, complaint, environment_in


@pytest.fixture
def packmule(server: EmbeddedServer, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url))


@pytest.fixture
def two_files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / name for name in ("a.csv", "b.csv")]
    for path in paths:
        path.write_text("id,name\n1,Ada\n2,Bob\n")
    return list(map(str, paths))


def test_several_files_are_a_batch_from_its_enqueue_to_its_end(
    packmule: CommandLine, client: Redis, two_files: list[str]
) -> None:
    id = packmule.output("enqueue", "file", *two_files, "--description", "people")
    found = json.loads(packmule.output("batch", "show", id, "--json"))
    assert (found["name"], found["state"], found["total"], found["pending"]) == ("people", "running", 2, 2)
    assert packmule.output("batch", "pause", id) == f"{id} paused"
    assert "paused" in packmule.output("batch", "list")
    job = client.hkeys(f"pm:batch:{id}:jobs")[0].decode()
    assert f"batch {id}, which is paused" in packmule.output("job", "show", job)
    assert packmule.output("batch", "resume", id) == f"{id} resumed"
    assert "have not ended after 100 ms" in complaint(
        packmule.run("batch", "wait", id, "--timeout", "0.1"), 1
    )
    packmule.output("worker", "--burst", "--processes", "1")
    assert packmule.output("batch", "wait", id) == "2 of 2 done, 0 failed, 0 canceled"
    assert packmule.output("batch", "pause", id) == f"{id} was already paused, or has ended"


def test_a_batch_with_failures_ends_with_1_and_names_them(
    packmule: CommandLine, client: Redis, two_files: list[str]
) -> None:
    id = packmule.output("enqueue", "file", *two_files, "--expires", "0.01s")
    packmule.output("worker", "--burst", "--processes", "1")
    ended = packmule.run("batch", "wait", id, "--json")
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["failed"] == 2
    assert len(json.loads(packmule.output("batch", "show", id, "--json"))["failed jobs"]) == 2


def test_a_batch_is_canceled(packmule: CommandLine, client: Redis, two_files: list[str]) -> None:
    id = packmule.output("enqueue", "file", *two_files)
    assert packmule.output("batch", "cancel", id) == f"{id}: 2 canceled, 0 being stopped"
    assert packmule.run("batch", "wait", id).returncode == 1


def test_mistakes_are_told_in_one_line(packmule: CommandLine, two_files: list[str]) -> None:
    for command in ("show", "wait", "cancel", "pause", "resume"):
        assert "no batch has the id nobody" in complaint(packmule.run("batch", command, "nobody"), 2)
    assert "one job_id can't name 2 jobs" in complaint(
        packmule.run("enqueue", "file", *two_files, "--job-id", "x"), 2
    )
