"""`packmule pipeline` and `packmule watch`, as an operator uses them."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import batch_state
from packmule.jobs.storage import Storage
from packmule.tests.command_line import CommandLine, complaint, environment_in
from packmule.tests.worker.pools import drained, pool, until

STEPS = """
[intake.inspect]
job = "file"

[intake.table]
job = "file"
to = "parquet"
"""


@pytest.fixture
def packmule(server: EmbeddedServer, tmp_path: Path, client: Redis) -> CommandLine:
    (tmp_path / "pipelines.toml").write_text(STEPS)
    return CommandLine(
        tmp_path,
        environment_in(
            tmp_path, server.url, COLUMNS="80",
            PACKMULE_PIPELINES="pipelines.toml", PACKMULE_STORAGE=str(tmp_path / "store"),
        ),
    )  # fmt: skip


def flows(client: Redis) -> list[batch_state.State]:
    return batch_state.latest(client, 100)


def test_pipelines_are_listed_shown_and_checked(packmule: CommandLine, tmp_path: Path) -> None:
    assert packmule.output("pipeline", "list").splitlines()[1].split() == ["intake", "inspect,", "table"]
    assert json.loads(packmule.output("pipeline", "list", "--json"))[0]["steps"][1]["arguments"] == {
        "to": "parquet"
    }
    assert "packmule.jobs.files.file" in packmule.output("pipeline", "show", "intake")
    assert packmule.output("pipeline", "check") == "ok, 1: intake"
    (tmp_path / "bad.toml").write_text('[a.file]\n\ntoo = "x"\n')
    bad = packmule.run("pipeline", "check", "bad.toml")
    assert complaint(bad, 2).startswith(
        "packmule: bad.toml, line 3: pipeline a, step file: got an unexpected"
    )
    assert packmule.run("pipeline", "list", PACKMULE_PIPELINES="").stdout == "no pipelines\n"
    unknown = packmule.run("pipeline", "show", "other")
    assert complaint(unknown, 2) == "packmule: there is no pipeline 'other': there are intake\n"


def test_files_are_sent_and_awaited(
    packmule: CommandLine, server: EmbeddedServer, client: Redis, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,x\n")
    (tmp_path / "b.csv").write_bytes(b"")
    storage = Storage(str(tmp_path / "store"))
    storage.write_bytes("uploads/c.csv", b"a,b\n2,y\n")
    missing = packmule.run("pipeline", "run", "intake", "a.csv", "no.csv")
    assert "there is no file no.csv; store:PATH names one in the storage" in complaint(missing, 2)
    assert flows(client) == []
    working = threading.Thread(
        target=lambda: (until(lambda: len(flows(client)) == 3), drained(server, storage=tmp_path / "store"))
    )
    working.start()
    done = packmule.run("pipeline", "run", "intake", "a.csv", "b.csv", "store:uploads/c.csv", "--wait")
    working.join()
    first, second, third = reversed(flows(client))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"a.csv: results/intake/a.csv/{first.id}/manifest.json",
        f"store:uploads/c.csv: results/intake/c.csv/{third.id}/manifest.json",
    ]
    assert "packmule: b.csv: failed: file: EmptyFile: " in done.stderr
    assert done.stderr.rstrip().endswith(f"packmule flow retry {second.id}")
    assert storage.exists(f"results/intake/a.csv/{first.id}/table/a.parquet")
    assert [each.name for each in (first, second)] == ["intake: a.csv", "intake: b.csv"]
    drawn = packmule.output("flow", "show", first.id)
    assert drawn.splitlines()[0] == f"intake: a.csv {first.id}"
    assert drawn.splitlines()[2:] == [
        "✓ 0 inspect: a.csv",
        "↓ ✓ 1 table: a.csv",
        "↓ ✓ 2 publish: a.csv",
    ]
    sent = packmule.output("pipeline", "run", "intake", "a.csv", "b.csv").splitlines()
    assert sent == [each.id for each in reversed(flows(client)[:2])]


def test_a_folder_is_watched_until_a_signal(
    packmule: CommandLine, server: EmbeddedServer, client: Redis, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for number in range(3):
        (inbox / f"{number}.csv").write_text(f"a\n{number}\n")
    with packmule.started("watch", "inbox", "--pipeline", "intake", "--stable", "0.1") as watching:
        until(lambda: len(flows(client)) == 3)
        watching.kill()
        watching.wait()
    with packmule.started("watch", "inbox", "--pipeline", "intake", "--stable", "0.1") as watching:
        drained(server, storage=tmp_path / "store")
        until(lambda: len(list((inbox / "done").glob("*"))) == 3)
        watching.send_signal(signal.SIGTERM)
        assert watching.wait(60) == 0
    assert len(flows(client)) == 3


def test_watchers_that_are_killed_at_any_time_send_each_content_once(
    packmule: CommandLine, server: EmbeddedServer, client: Redis, tmp_path: Path
) -> None:
    dice, inbox = random.Random(1), tmp_path / "inbox"
    inbox.mkdir()
    words = ("watch", "inbox", "--pipeline", "intake", "--stable", "0")
    with pool(server, storage=tmp_path / "store"):
        for turn in range(8):
            for number in range(4):
                (inbox / f"{turn}-{number}.csv").write_text(f"a\n{turn * 3 + number}\n")  # some are equal
            with packmule.started(*words) as first, packmule.started(*words) as second:
                time.sleep(dice.uniform(0.2, 1.2))
                first.kill()
                second.kill()
                assert (first.wait(), second.wait()) == (-9, -9)
        assert packmule.run(*words, "--once").returncode == 0
    assert len(list((inbox / "done").iterdir())) == 32
    assert len(flows(client)) == 25
    assert {(each.counts.done, each.counts.total) for each in flows(client)} == {(3, 3)}


def test_a_folder_may_be_watched_once(
    packmule: CommandLine, server: EmbeddedServer, client: Redis, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / os.fsdecode(b"\xff.csv")).write_text("a\n1\n")
    (inbox / "empty.csv").touch()
    with packmule.started("watch", "inbox", "--pipeline", "intake", "--once", "--stable", "0") as watching:
        until(lambda: len(flows(client)) == 2)
        drained(server, storage=tmp_path / "store")
        said, complained = watching.communicate(timeout=60)
    assert watching.returncode == 1
    assert said.startswith("\\udcff.csv: results/intake/-.csv/")
    assert complained.startswith("packmule: empty.csv: failed: file: EmptyFile")
    assert [each.name for each in (inbox / "failed").iterdir()] == ["empty.csv"]


def test_a_wait_ends_in_time_and_what_was_sent_goes_on(
    packmule: CommandLine, client: Redis, tmp_path: Path
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(f"a\n{name}\n")
    done = packmule.run("pipeline", "run", "intake", "a.csv", "b.csv", "--wait-timeout", "0.2s")
    second, first = flows(client)
    assert complaint(done, 1) == (
        f"packmule: a.csv has not finished after 0.2 s, and continues: packmule batch wait {first.id}\n"
    )
    assert (first.ended, second.ended, first.is_canceled) == (None, None, False)


def test_a_mistake_is_one_line(packmule: CommandLine, tmp_path: Path) -> None:
    for words, said in (
        (("watch", "inbox", "--pipeline", "intake"), "there is no folder inbox"),
        (("watch", ".", "--pipeline", "other"), "there is no pipeline 'other': there are intake"),
        (("watch", ".", "--pipeline", "intake", "--stable", "soon"), "'soon' is not a duration"),
        (("pipeline", "run", "intake"), "Missing argument 'FILE...'"),
    ):
        assert said in complaint(packmule.run(*words), 2)
