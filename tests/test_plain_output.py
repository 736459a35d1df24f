"""Text that others wrote: what a terminal shows of it is plain, whatever it holds."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from redis import Redis
from rich.console import Console

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.plain_text import plain, plain_json
from packmule.terminal import follow
from packmule.tests.command_line import ROOT, CommandLine, Done, Run, environment_in
from packmule.tests.hostile import FINGERPRINT, NASTY, Hostile

UNSEEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""What no output may hold; a line feed ends the lines that we make."""

JOB, QUEUE, WORKER, NAME = (f"{each} {NASTY}" for each in ("id", "queue", "worker", "name"))


@pytest.fixture(scope="module")
def redis(server: EmbeddedServer) -> Iterator[Redis]:
    with connect(None, server.data_dir) as client:
        client.flushall()
        Hostile(client, NASTY).write()
        yield client
        client.flushall()


@pytest.fixture
def here(
    redis: Redis,
    server: EmbeddedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run a command in this process."""
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url))
    return packmule.in_this_process(monkeypatch, capsys)


COMMANDS = (
    *(("job", "show", f"{status} {JOB}") for status in ("queued", "started", "finished", "failed")),
    ("job", "show", "--traceback", f"failed {JOB}"),
    ("job", "logs", f"finished {JOB}"),
    ("job", "logs", f"failed {JOB}", "--follow"),
    ("job", "list"),
    ("job", "list", "--status", "failed", "--queue", QUEUE),
    ("job", "wait", f"finished {JOB}"),
    ("job", "wait", f"failed {JOB}"),
    ("job", "wait", f"queued {JOB}", "--timeout", "0.1s"),
    ("job", "show", f"no {JOB}"),
    ("job", "cancel", f"finished {JOB}"),
    ("job", "retry", f"finished {JOB}"),
    ("batch", "list"),
    ("batch", "show", f"batch {NASTY}"),
    ("batch", "wait", f"batch {NASTY}", "--timeout", "0.1s"),
    ("queue", "list"),
    ("queue", "pause", f"no {QUEUE}"),
    ("queue", "pause", QUEUE),
    ("schedule", "list"),
    ("schedule", "show", f"schedule {NASTY}"),
    ("schedule", "show", f"sound {NASTY}"),
    ("schedule", "next", f"schedule {NASTY}"),
    ("schedule", "next", f"sound {NASTY}"),
    ("status",),
    ("top", "--once"),
    ("events",),
    ("errors", "list"),
    ("errors", "show", FINGERPRINT),
    ("errors", "show", f"no {NASTY}"),
    ("limits",),
    ("locks",),
    ("metrics",),
    ("audit",),
)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_no_command_shows_markup_controls_or_forged_lines(here: Run, words: tuple[str, ...]) -> None:
    done = here(*words)
    is_plain(done)
    assert "boom" in done.stdout + done.stderr, "it showed nothing of the hostile texts"


READ_AS_JSON = tuple(
    words
    for words in COMMANDS
    if words[0] != "metrics" and words[1:2] not in (("cancel",), ("retry",), ("pause",))
)


@pytest.mark.parametrize("words", READ_AS_JSON, ids=lambda words: " ".join(words[:2]))
def test_json_is_plain_too_and_holds_the_texts_as_they_are(here: Run, words: tuple[str, ...]) -> None:
    done = here(*(word for word in words if word not in ("--once", "--traceback")), "--json")
    is_plain(done)
    for line in done.stdout.splitlines():
        json.loads(line)
    if done.returncode == 0:
        assert NASTY in "".join(texts([json.loads(line) for line in done.stdout.splitlines()]))


def test_a_jobs_output_keeps_its_lines_and_nothing_else_of_what_is_unseen(here: Run) -> None:
    done = here("job", "output", f"failed {JOB}")
    assert not UNSEEN.search(done.stdout), done.stdout.encode("unicode_escape")
    assert "\nforged line" in done.stdout, "whatever a job emits is its own text"
    is_plain(here("job", "output", f"failed {JOB}", "--json"))


def test_bars_of_jobs_that_run_show_no_markup_and_no_controls(redis: Redis) -> None:
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=400, color_system=None, markup=False)
    with mock.patch.object(follow, "err", console):
        follow.follow(redis, {f"failed {JOB}": NASTY, f"finished {JOB}": NASTY})
        with pytest.raises(TimeoutError):
            follow.follow(redis, {f"started {JOB}": NASTY}, timeout=0.1)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", drawn.getvalue())  # how bars are drawn again
    assert "[/red][bold]:boom:{x}\\x1b[2J" in shown
    assert not UNSEEN.search(shown), shown.encode("unicode_escape")
    assert not re.search(r"^forged", shown, re.MULTILINE)


def test_each_command_prints_by_the_helpers_that_make_text_plain() -> None:
    printing = {
        path.name
        for path in (ROOT / "terminal").glob("*.py")
        if re.search(r"click\.echo\(|(?<![.\w])print\(|sys\.std(out|err)\.write", path.read_text())
    }
    assert printing == {"say.py", "show.py", "metrics.py"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ada \u0645\u0631\u062d\u0628\u0627 \U0001f469\u200d\U0001f52c", None),
        ("a\tb\r\nc", r"a\tb\r\nc"),
        ("\x00\x1b\x7f\x9b", r"\x00\x1b\x7f\x9b"),
        ("\u202e\u2066\U000e0041\ud800", r"\u202e\u2066\U000e0041\ud800"),
    ],
)
def test_what_cannot_be_seen_is_written_out_and_other_text_stays(text: str, shown: str | None) -> None:
    assert plain(text) == (text if shown is None else shown)
    whole = plain_json(json.dumps(text, ensure_ascii="\ud800" in text))
    assert json.loads(whole) == text
    assert not UNSEEN.search(whole)


def is_plain(done: Done) -> None:
    for output in (done.stdout, done.stderr):
        assert not UNSEEN.search(output), output.encode("unicode_escape")
        assert not re.search(r"^forged", output, re.MULTILINE), output
        assert not re.search(r" $", output, re.MULTILINE), "a line ends with blanks"
    assert "Traceback (most recent" not in done.stderr, done.stderr
    assert "[/red]" in done.stdout + done.stderr


def texts(value: object) -> Iterator[str]:
    """All texts in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in (*value, *value.values()):
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)
