"""The audit: each command that changes something is noted, and none of its secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from redis import Redis

from packmule.cli import cli
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.coordination.streams.stream import Stream
from packmule.terminal.audit import Audited
from packmule.tests.command_line import CommandLine, environment_in

NOTHING_CHANGES = {
    *("list", "show", "wait", "next", "status", "check", "metrics", "health", "top", "events", "audit"),
    *("logs", "output", "sessions", "bulk", "results", "export"),
    *("demo", "drill", "look", "mcp", "up", "worker", "scheduler", "dashboard", "watch"),
    *("preview", "lint", "dkim", "jobs", "ls", "get"),
    *(
        "email",
        "image",
        "file",
        "fetch",
        "profile",
        "scan",
        "text",
        "unpack",
        "call",
    ),  # enqueues, which are events of the job
}


@pytest.fixture
def packmule(server: EmbeddedServer, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url))


def commands(group: click.Group) -> Iterator[click.Command]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from commands(command)
        else:
            yield command


def test_each_command_either_changes_nothing_or_is_audited() -> None:
    for command in commands(cli):
        assert isinstance(command, Audited) != (command.name in NOTHING_CHANGES), command.name


def test_what_was_done_is_told_with_its_user(packmule: CommandLine, client: Redis) -> None:
    packmule.output("queue", "pause", "high", "low")
    packmule.output(
        "schedule", "add", "nightly", "packmule.jobs.files.file", "source=secret.csv", "--every", "1h"
    )
    packmule.run("queue", "pause", "high", "nobody")  # it may have been done in part
    packmule.run("queue", "pause")  # and this was not begun
    done = [json.loads(line) for line in packmule.output("audit", "--json").splitlines()]
    assert [each["action"] for each in done] == ["queue pause", "schedule add", "queue pause"]
    assert done[2]["subject"] == {"names": ["high", "nobody"], "error": "UnknownQueue"}
    assert done[0]["subject"] == {"names": ["high", "low"]}
    assert done[1]["subject"] == {"name": "nightly", "job": "packmule.jobs.files.file"}
    assert "@" in done[0]["who"]
    assert "queue pause names=high,low" in packmule.output("audit")
    assert packmule.output("audit", "--since", "2199-01-01") == ""


def test_what_somebody_else_wrote_there_is_passed_over(packmule: CommandLine, client: Redis) -> None:
    Stream(client, "pm:audit", max_entries=10).append(["garbage", [1, 2, 3, 4]])
    packmule.output("queue", "resume", "high")
    assert packmule.output("audit").count("\n") == 0
    assert "queue resume" in packmule.output("audit")
