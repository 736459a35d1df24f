"""Tables and times for a person."""

from __future__ import annotations

import io
import time

import pytest
from redis import Redis
from rich.console import Console
from rq import Queue

from packmule.jobs import reader
from packmule.terminal import show

ID = "e72383518a69741a91fdf4d523a79ece"
JOBS = ("job", "status", "queue", "since", "calls")


def printed(columns: tuple[str, ...], rows: list[tuple[object, ...]], cut: str | None = None) -> list[str]:
    """The lines of a table on a terminal of 80 columns."""
    console = Console(file=io.StringIO(), width=80, highlight=False)
    console.print(show.grid(columns, rows, 80, cut))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    return [line.rstrip() for line in lines]


def test_a_long_name_loses_its_beginning_and_no_other_cell_is_broken() -> None:
    rows = [(ID, "scheduled", "default", "17 min ago", "shop.reports.monthly.rebuild_search_index")]
    _, line = printed(JOBS, rows, cut="calls")
    assert line.split() == [ID, "scheduled", "default", "17", "min", "ago", line.split()[-1]]
    assert line.split()[-1].startswith("…")
    assert line.endswith("_index")


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
    assert show.ago(now - seconds) == said


def test_a_time_that_cannot_be_read_is_shown_as_it_is() -> None:
    assert (show.ago("soon"), show.moment("soon")) == ("soon", "soon")
    assert show.moment(None) is None


def test_a_job_whose_call_cannot_be_read_says_why(client: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    id = Queue("default", connection=client).enqueue("shop.report", "2026-11").id
    show.job(reader.read(client, id))
    shown = " ".join(capsys.readouterr().out.split())
    assert "calls shop.report" in shown
    assert "arguments unknown: the payload is a pickle: enqueue with RQ's JSONSerializer" in shown
