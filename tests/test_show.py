"""Tables and times for a person."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from datetime import datetime
from typing import Any

import pytest
from redis import Redis
from rich.console import Console
from rq import Queue

from packmule import job
from packmule.jobs import reader, registry
from packmule.jobs.client import Client
from packmule.observe import waits
from packmule.terminal import show, show_job
from packmule.terminal.queue import show_queues

ID = "e72383518a69741a91fdf4d523a79ece"
JOBS = ("job", "status", "queue", "since", "calls")


def printed(columns: tuple[str, ...], rows: list[tuple[object, ...]], **cut: str) -> list[str]:
    """The lines of a table on a terminal of 80 columns."""
    console = Console(file=io.StringIO(), width=80, highlight=False)
    console.print(show.grid(columns, rows, 80, **cut))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    return [line.rstrip() for line in lines]


def test_a_long_name_loses_its_beginning_and_no_other_cell_is_broken() -> None:
    rows = [(ID, "scheduled", "default", "17 min ago", "shop.reports.monthly.rebuild_search_index")]
    _, line = printed(JOBS, rows, cut="calls")
    assert line.split() == [ID, "scheduled", "default", "17", "min", "ago", line.split()[-1]]
    assert line.split()[-1].startswith("…")
    assert line.endswith("_index")


def test_a_sentence_loses_its_end() -> None:
    rows = [
        ("ada@example.org", "5.1.1 the recipient's address is on the list of suppressed ones", "17 min ago")
    ]
    _, line = printed(("who", "reason", "since"), rows, shorten="reason")
    assert line.startswith("ada@example.org 5.1.1 the recipient's address")
    assert line.endswith("… 17 min ago")


def test_figures_of_every_status_fit_beside_each_other() -> None:
    columns = ("queue", "queued", "behind", "scheduled", "started", "finished", "failed", "deferred")
    columns += ("canceled", "paused")
    header, *lines = printed(columns, [(name, *range(8), False) for name in ("high", "default", "low")])
    assert header.split() == list(columns)
    assert [len(line.split()) for line in lines] == [10, 10, 10]


def test_sentences_are_folded_at_words() -> None:
    sentence = "the scheduler could not read what another version of Packmule wrote for this schedule"
    lines = printed(("schedule", "because"), [("nightly-report", sentence)])
    assert " ".join(" ".join(lines[1:]).split()) == f"nightly-report {sentence}"


def test_what_a_job_wrote_neither_colours_nor_steers_the_terminal() -> None:
    _, line = printed(("name",), [("[red]x[/]\x1b[2J",)])
    assert line == r"[red]x[/]\x1b[2J"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3, "3 s ago"), (600, "10 min ago"), (3 * 3600, "3 h ago"), (-3 * 86_400 - 60, "in 3 d")],
)
def test_a_time_is_shown_by_its_distance(seconds: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    assert show.distance(now - seconds) == said


def test_a_pipe_gets_exact_times_of_one_word_and_a_terminal_what_a_person_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert show.ago(0) == show.moment(0) == show.ago("1970-01-01T01:00:00+01:00") == "1970-01-01T00:00:00Z"
    monkeypatch.setattr(show, "out", Console(file=io.StringIO(), force_terminal=True))
    at = time.time() - 600
    assert show.ago(at) == "10 min ago"
    assert show.moment(at) == f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}, 10 min ago"


def test_ids_are_shortened_to_what_tells_them_apart_where_there_is_no_room() -> None:
    ids = [ID, f"{ID[:10]}{'0' * 22}", "nightly"]
    rows = [(id, "scheduled", "default", "17 min ago", "shop.report month=2026-11 copies=2") for id in ids]
    _, *lines = printed(JOBS, rows, ids="job", shorten="calls")
    assert [line.split()[0] for line in lines] == [f"{ID[:11]}…", f"{ID[:10]}0…", "nightly"]
    assert all(line.endswith("copies=2") for line in lines)
    _, line = printed(JOBS, [(ID, "failed", "low", "now", "add")], ids="job")
    assert line.split()[0] == ID


def test_a_time_that_cannot_be_read_is_shown_as_it_is() -> None:
    assert (show.ago("soon"), show.moment("soon")) == ("soon", "soon")
    assert show.moment(None) is None


def test_a_job_whose_call_cannot_be_read_says_why(client: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    id = Queue("default", connection=client).enqueue("shop.report", "2026-11").id
    show_job.job(reader.read(client, id))
    shown = " ".join(capsys.readouterr().out.split())
    assert "calls shop.report" in shown
    assert "arguments unknown: the payload is a pickle: enqueue with RQ's JSONSerializer" in shown


@job
def pay(account: int, pin: str = "", note: str = "", **more: object) -> None:
    """A job of which one argument is a secret by its name."""


def read(client: Redis, *args: Any, **kwargs: Any) -> reader.JobInfo:
    return reader.read(client, Client(client).enqueue(pay, *args, **kwargs))


def test_a_line_says_which_call_it_is_about_and_no_secret(client: Redis) -> None:
    name = f"{__name__}.pay"
    said = show_job.called(read(client, 7, "1234", note="for\nthe \x1b[2Jroof", password="x", data=[1, None]))
    assert said == f"{name} 7 (hidden) note=for the [2Jroof password=(hidden) data=[1,null]"
    said = show_job.called(read(client, 7, note="x" * 50, empty=""))
    assert said == f'{name} 7 note={"x" * 40}… empty=""'


def test_positional_arguments_of_a_function_that_nobody_knows_here_are_left_out(
    client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read(client, 7, "1234", note="roof")
    monkeypatch.setattr(registry, "_registered", {})
    assert show_job.called(found) == f"{__name__}.pay … note=roof"


def test_a_terminal_has_short_names_of_functions(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "out", Console(file=io.StringIO(), force_terminal=True))
    found = dataclasses.replace(read(client, 7), name="shop.reports.monthly.rebuild_search_index", args=[])
    assert show_job.called(found) == "rebuild_search_index"
    assert show_job.called(dataclasses.replace(found, name="packmule.jobs.email.email")) == "email"
    assert (
        show_job.about("2a9f03b1c4d54e6f", dataclasses.replace(found, name="shop.add"))
        == "2a9f03b1… shop.add"
    )


def test_a_job_that_runs_shows_how_far_it_is_and_one_that_ended_how_long_it_took(client: Redis) -> None:
    found = dataclasses.replace(read(client, 7), started_at="2026-12-01T08:00:00.000000Z")
    assert show_job.pace(found) == "-"
    ended = dataclasses.replace(found, status="failed", ended_at="2026-12-01T08:00:03.400000Z")
    assert show_job.pace(ended) == "3.4 s"
    assert show_job.pace(dataclasses.replace(ended, ended_at="soon")) == "-"
    runs = dataclasses.replace(found, status="started", progress=reader.Progress(4, 10, "painting"))
    assert show_job.pace(runs) == "40 %"
    assert show_job.pace(dataclasses.replace(runs, progress=None)).endswith((" s", " min", " h"))


def test_a_job_to_come_is_shown_with_its_time(client: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    id = Client(client).enqueue(pay.options(delay=3600), 7)
    found = reader.read(client, id)
    at = waits.due(client, [found])[id]
    assert at - time.time() == pytest.approx(3600, abs=60)
    show_job.job(found, due=at)
    assert f" due {show.exact(at)} " in " ".join(capsys.readouterr().out.split())
    show_job.job(dataclasses.replace(found, attempts=1), due=at)
    assert f" next attempt {show.exact(at)} " in " ".join(capsys.readouterr().out.split())
    assert waits.due(client, []) == {}


def test_a_terminal_leaves_out_counts_of_queues_that_are_all_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"queued": 0, "behind": 0, "started": 0, "finished": 7, "failed": 0, "paused": False}
    file = io.StringIO()
    monkeypatch.setattr(show, "out", Console(file=file, width=80, force_terminal=True, color_system=None))
    show_queues({"high": counts, "low": counts | {"paused": True}})
    shown = ["queue", "queued", "started", "finished", "failed", "paused"]
    assert file.getvalue().split("\n")[0].split() == shown
    file = io.StringIO()
    monkeypatch.setattr(show, "out", Console(file=file, width=500))
    show_queues({"high": counts})
    assert file.getvalue().split("\n")[0].split() == ["queue", *counts]


def test_json_keeps_on_a_line_what_fits_there_and_is_the_same_value() -> None:
    value = {
        "path": "profiles/orders.html",
        "columns": [{"name": "date", "nulls": 0}, {"name": "rain", "histogram": [*range(1000, 1020)]}],
        "top": [],
        "a long name": {"x" * 40: "y" * 40},
        "whole": 2**53 + 1,
    }
    text = show.pretty_json(value)
    assert json.loads(text) == value
    lines = text.splitlines()
    assert '    {"name": "date", "nulls": 0},' in lines
    assert '  "top": [],' in lines
    assert len(lines) < 20, "figures share lines"
    assert max(map(len, lines)) < 100
    assert show.pretty_json([1, 2, {"a": None}]) == '[1, 2, {"a": null}]'


def test_json_that_is_deep_or_wide_is_shown_all_the_same() -> None:
    deep: Any = 0
    for _ in range(200):
        deep = [deep, "x" * 100]
    for value in (deep, "x" * 1000, [0.5] * 10_000, {}, None):
        assert json.loads(show.pretty_json(value)) == value
