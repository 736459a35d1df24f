"""Commands about jobs with steps: `job show`, `job list` and `job signal`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from packmule import current
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys
from packmule.tests.command_line import CommandLine, Done, Run, complaint, environment_in
from packmule.tests.worker.step_runs import Runs, broken_off, enqueue, value


@pytest.fixture
def here(
    server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Run]:
    home = tmp_path_factory.mktemp("home")
    yield CommandLine(home, environment_in(home, server.url)).in_this_process(monkeypatch, capsys)


@pytest.fixture
def runs(client: Redis) -> Runs:
    return Runs(client)


def output(done: Done) -> str:
    """What a command that succeeded printed, having complained of nothing."""
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def body() -> Any:
    current.step("pay", lambda: {"id": "ch_1", "note": "\x1b[2J" + "x" * 100})
    current.sleep(hours=1, name="nap")
    return current.wait_for("approved", timeout=7200)


def test_a_job_is_shown_with_its_steps_and_what_it_waits_for(here, client, runs):
    id = enqueue(client, body)
    runs.once()
    client.hset(keys.steps_key(id), "step:\x1b[2J\u202e", '["done",3,0,1.0,"\u202e"]')
    shown = output(here("job", "show", id))
    assert re.search(r"^waits for +the end of its sleep in (60|59\.\d) min", shown, re.MULTILINE)
    assert re.search(r"^nap +sleep +waits +20\d\d-\S+Z", shown, re.MULTILINE)
    assert '{"id":"ch_1","note":"' in shown
    assert not re.search("[\x1b\u202e]", shown)
    record = json.loads(output(here("job", "show", id, "--json")))
    assert record["waits"] == "sleep:nap"
    assert [(each["kind"], each["name"], each["state"]) for each in record["steps"]] == [
        ("step", "pay", "done"),
        ("sleep", "nap", "waits"),
        ("step", "\x1b[2J\u202e", "done"),
    ]


def test_a_list_says_what_jobs_wait_for_if_some_do(here, client, runs):
    enqueue(client, lambda: 1)
    assert "waits for" not in output(here("job", "list"))
    runs.once()
    enqueue(client, lambda: current.wait_for("approved"))
    runs.once()
    listed = output(here("job", "list", "--status", "deferred"))
    assert "waits for" in listed
    assert "signal approved" in listed


def test_a_signal_is_sent_by_a_command_and_recorded_in_the_audit_without_its_data(here, client, runs):
    id = enqueue(client, lambda: [current.wait_for("approved"), current.wait_for("other")])
    runs.once()
    assert output(here("job", "signal", id, "approved", "--data", '{"by": "Ada L."}')) == f"{id} woken\n"
    assert output(here("job", "signal", id, "other")) == f"{id} kept\n"
    runs.once()
    runs.once()
    assert value(client, id) == [{"by": "Ada L."}, None]
    audited = output(here("audit"))
    assert f"job signal id={id} name=approved" in audited
    assert "Ada L." not in audited


def test_an_operator_sees_an_unknown_step_and_answers_for_it(here, client, runs):
    id = broken_off(client, runs, "ask")
    shown = output(here("job", "show", id))
    assert "an answer for step charge, whose end is unknown" in shown
    assert re.search(r"^charge +step +outcome unknown", shown, re.MULTILINE)
    output(here("job", "signal", id, "step:charge", "--data", '{"done": "ch_0"}'))
    runs.once()
    assert value(client, id) == "ch_0"


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["nobody", "go"], 2, "no job has the id nobody"),
        (["ID", "go", "--data", "{x"], 2, "it is not JSON"),
        (["ID", "go", "--data", "NaN"], 2, "it is not JSON"),
        (["ID", "go", "--data", '"' + "x" * 70_000 + '"'], 2, "over the limit of 65536"),
        (["ID", "a\nb"], 2, "give a name of 1 to 200 printable characters"),
        (["ID", "step:a", "--data", "1"], 2, "settles a step"),
        (["ENDED", "go"], 1, "is finished: only jobs that have not ended take signals"),
    ],
)
def test_a_signal_that_cannot_be_sent_is_one_line(here, client, runs, words, code, line):
    ended = enqueue(client, lambda: 1)
    runs.once()
    id = enqueue(client, body)
    before = client.hgetall(keys.job_key(id))
    words = [{"ID": id, "ENDED": ended}.get(word, word) for word in words]
    assert line in complaint(here("job", "signal", *words), code)
    assert client.hgetall(keys.job_key(id)) == before
