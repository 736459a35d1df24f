"""`packmule jobs`, arguments by their annotations, names that are nearly right, and waiting for a while."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, reader, registry
from packmule.tests.command_line import ROOT, SHOP, CommandLine, Done, Run, complaint, environment_in

MORE = '''
from typing import Any
from datetime import timedelta
from enum import Enum


class Colour(Enum):
    RED = "red"


@job(queue="low", timeout=600, retries=3, result_ttl=timedelta(hours=2), give_up_on=(KeyError,), rate="9/m")
def report(month: str, copies: int = 1, *, note: "str | None" = None, pin: str = "s3cret") -> str:
    """Print a report.

    It takes a while.
    """
    return month


@job
def loose(what, when: "int | str" = 0, colour: Colour = Colour.RED, **more: Any) -> None:
    pass
'''


@pytest.fixture
def packmule(server: EmbeddedServer, client: Redis, tmp_path: Path) -> CommandLine:
    (tmp_path / "desk.py").write_text(SHOP + MORE)
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, PACKMULE_MODULES="desk"))


@pytest.fixture
def here(packmule: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return packmule.in_this_process(monkeypatch, capsys)


def shown(done: Done) -> str:
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_registered_jobs_are_listed_with_signature_and_options_but_no_secret(packmule: CommandLine) -> None:
    lines = shown(packmule.run("jobs")).splitlines()
    assert lines == [
        "desk.add(a: int, b: int = 1) -> int",
        "    queue default, timeout 3 min",
        "desk.boom() -> None",
        "    queue default, timeout 3 min",
        "desk.loose(what, when: int | str = 0, colour: Colour = 'red', **more: Any) -> None",
        "    queue default, timeout 3 min",
        "desk.report(month: str, copies: int = 1, *, note: str | None = None, pin: str = (hidden)) -> str",
        "    queue low, timeout 10 min, result_ttl 2 h, retries 3, rate 9/m",
        lines[-1],
    ]
    assert lines[-1].startswith("Ready-made (--all): email, ")
    (found,) = json.loads(shown(packmule.run("jobs", "desk.report", "--json")))
    assert (found["name"], found["about"]) == ("desk.report", "Print a report.")
    assert [each["name"] for each in found["parameters"] if each["required"]] == ["month"]
    assert found["options"]["result_ttl"] == 7200
    assert found["options"]["give_up_on"] == ["KeyError"]
    assert "s3cret" not in json.dumps(found)


def test_the_ready_made_jobs_are_listed_on_wish_and_no_modules_are_said(packmule: CommandLine) -> None:
    every = shown(packmule.run("jobs", "--all"))
    assert "packmule.jobs.files.file(source: str, " in every
    assert [name for name in registry.INTERNAL if name in every] == []
    last = shown(packmule.run("jobs")).splitlines()[-1]
    assert last == "Ready-made (--all): email, image, file, fetch, profile, scan, text, unpack"
    assert len(last) < 80
    assert shown(packmule.run("jobs", "image")).startswith("packmule.jobs.image.image(")
    assert shown(packmule.run("jobs", PACKMULE_MODULES="")).startswith(
        "no jobs: set PACKMULE_MODULES to your modules\n"
    )


def test_what_a_missing_library_keeps_from_the_list_is_named_and_the_rest_is_shown(
    packmule: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "PIL").mkdir()
    (tmp_path / "PIL" / "__init__.py").write_text("raise ModuleNotFoundError('No module', name='PIL')")
    done = subprocess.run(
        [sys.executable, "-m", "packmule", "jobs", "--all"],
        cwd=tmp_path, env=packmule.environment | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "packmule.jobs.email.email(" in done.stdout
    assert "packmule.jobs.image.image" not in done.stdout
    assert "packmule: not shown: image" in done.stderr
    assert "PIL is not installed: pip install 'packmule[image]'" in done.stderr


def test_spans_are_said_in_one_way_and_kept_ones_are_kept_forever(
    packmule: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "desk.py").write_text(
        SHOP + '@job(timeout="5m", result_ttl=-1, retries=2, retry_intervals=["90s", 3600])\ndef long(): ...'
    )
    line = "    queue default, timeout 5 min, result_ttl forever, retries 2, retry_intervals 90 s, 1 h"
    assert line in shown(packmule.run("jobs", "desk.long"))
    found = json.loads(shown(packmule.run("jobs", "desk.long", "--json")))[0]["options"]
    assert (found["timeout"], found["retry_intervals"]) == (300, [90, 3600])
    id = shown(packmule.run("enqueue", "call", "desk.long")).strip()
    assert re.search(r"^timeout +5 min$", shown(packmule.run("job", "show", id)), re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("job", "show", "abc"), "no job has the id abc: the beginning of one takes 4 characters or more"),
        (("batch", "show", "abc"), "no batch has the id abc: the beginning of one takes 4 characters"),
        (("flow", "show", "abc"), "no flow has the id abc: the beginning of one takes 4 characters"),
        (("flow", "show", "abcdef"), "no flow has the id abcdef: check the id; it may also have ended"),
        (("flow", "retry", "abcdef"), "no flow has the id abcdef: check the id"),
    ],
)
def test_an_id_of_nothing_or_too_short_a_beginning_says_what_to_give(
    here: Run, words: tuple[str, ...], said: str
) -> None:
    assert said in complaint(here(*words), 2)


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (("desk.report", "month=5", "copies=5"), {"month": "5", "copies": 5}),
        (("desk.report", "month=true", "note=null"), {"month": "true", "note": None}),
        (("desk.report", 'month="5"', "note=[1]"), {"month": "5", "note": "[1]"}),
        (("desk.report", "month=", "note={"), {"month": "", "note": "{"}),
        (("desk.loose", "what=5", "when=5", "else=[1]"), {"what": 5, "when": 5, "else": [1]}),
        (("desk.loose", "what=five", "when=soon"), {"what": "five", "when": "soon"}),
    ],
)
def test_an_argument_is_what_its_annotation_says(
    here: Run, client: Redis, words: tuple[str, ...], arguments: dict[str, Any]
) -> None:
    id = shown(here("enqueue", "call", *words)).strip()
    assert reader.read(client, id).kwargs == arguments


def test_a_copy_and_a_schedule_take_arguments_by_their_annotations_too(here: Run, client: Redis) -> None:
    id = shown(here("enqueue", "call", "desk.report", "month=5")).strip()
    copy = shown(here("job", "copy", id[:8], "--set", "month=6", "--set", "copies=2")).strip()
    assert reader.read(client, copy).args == ["6", 2]
    shown(here("schedule", "add", "often", "desk.report", "month=7", "--every", "1h"))
    assert '"kwargs":{"month":"7"}' in shown(here("schedule", "show", "often", "--json"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("enqueue", "call", "desk.reprot"),
            "desk.reprot is not a registered job: did you mean desk.report?",
        ),
        (("enqueue", "call", "loose"), "loose is not a registered job: did you mean desk.loose?"),
        (("jobs", "desk.ad"), "desk.ad is not a registered job: did you mean desk.add?"),
        (
            ("enqueue", "call", "desk.add", "a=1", "--queue", "lwo"),
            "high, default, low; did you mean low?",
        ),
        (("queue", "pause", "hihg"), "did you mean high?"),
        (("enqueue", "call", "desk.add", "--quue", "low"), "--queue"),
        (("qeue", "list"), "No such command 'qeue'. Did you mean 'queue'?"),
        (("queue", "lst"), "Did you mean 'list'?"),
    ],
)
def test_a_name_that_is_nearly_right_is_offered(here: Run, words: tuple[str, ...], said: str) -> None:
    assert said in complaint(here(*words), 2)


def test_waiting_ends_when_its_time_is_over_and_the_job_goes_on(here: Run, client: Redis) -> None:
    done = here("enqueue", "call", "desk.add", "a=1", "--wait-timeout", "0.2s")
    said = complaint(done, 1)
    (id,) = [key.decode().removeprefix("rq:job:") for key in client.keys("rq:job:*")]
    assert said == f"packmule: {id} has not ended after 200 ms, and continues: packmule job wait {id}\n"
    assert reader.read(client, id).status == "queued"


def test_waiting_for_a_bulk_send_ends_when_its_time_is_over(here: Run, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("email\nada@example.org\nbob@example.org\n")
    mail = ("--subject", "Hello", "--body", "Hi", "--recipients", "list.csv")
    done = here("enqueue", "email", *mail, "--wait-timeout", "0.2s")
    assert done.returncode == 1
    assert "has not ended after 200 ms, and continues: packmule email bulk " in done.stderr
    id = done.stderr.split()[-1]
    assert f"bulk send {id} has not ended after 100 ms" in complaint(
        here("email", "bulk", id, "--wait-timeout", "0.1s"), 1
    )


def test_a_batch_that_is_waited_for_names_each_file_that_failed_and_why(
    packmule: CommandLine, client: Redis, tmp_path: Path
) -> None:
    files = ("good.csv", "bad.csv", "worse.csv")
    (tmp_path / "good.csv").write_text("a,b\n1,2\n")
    for name in files[1:]:
        (tmp_path / name).write_bytes(bytes(range(256)) * 8)
    with packmule.workers(lambda: client.scard(keys.WORKERS)):
        done = packmule.run(
            "enqueue", "file", "good.csv", "bad.csv", "worse.csv", "--to", "parquet", "--wait"
        )
    assert (done.returncode, done.stdout) == (1, "1 of 3 done, 2 failed, 0 canceled\n"), done
    for line, name in zip(sorted(done.stderr.splitlines(), key=len), files[1:], strict=True):
        assert line.startswith("packmule: ")
        assert f"{name}: NotATable: " in line
