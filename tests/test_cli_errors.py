"""`packmule errors`, as an operator uses it."""

from __future__ import annotations

import json
import time

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, reader
from packmule.jobs.client import Client
from packmule.terminal.errors import bars
from packmule.tests.command_line import CommandLine, Run, complaint, environment_in
from packmule.tests.worker import pool_jobs
from packmule.worker.order import Strict
from packmule.worker.process import outcome
from packmule.worker.process.claim import Claims
from packmule.worker.process.failure import Failure

FINGERPRINT = "3f9a61c204be"
OTHER = "0123456789ab"


@pytest.fixture
def here(
    server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    home = tmp_path_factory.mktemp("shop")
    return CommandLine(home, environment_in(home, server.url)).in_this_process(monkeypatch, capsys)


@pytest.fixture
def ids(client: Redis) -> list[str]:
    """Three jobs that failed of one error, and a fourth of another."""
    Client(client).make_default()
    ids = pool_jobs.noop.enqueue_many([()] * 4)
    claims = Claims(client, "w1", Strict(["default"]))
    jobs = claims.finish_and_claim("c1", [], 4).jobs
    text = "no such month: it has to be one of the twelve that the report knows, in lower case letters"
    first = Failure(FINGERPRINT, "ValueError", text, "report.py:render", "shop.reports.report_of_a_month")
    second = Failure(OTHER, "KeyError", "'paid'", "shop.py:charge", "shop.charge")
    for job in jobs:
        failure = second if job is jobs[-1] else first
        failed = outcome.failed(
            job, f"Traceback:\n  {failure.where}\n{failure.type}: x", 1.0, 2.0, failure=failure
        )
        claims.finish_and_claim(f"end {job.id}", [failed], 0)
    return [*map(str, ids)]


def test_without_errors_it_says_so(here: Run, client: Redis) -> None:
    assert here("errors", "list").stdout == "no open errors\n"
    assert here("errors", "list", "--state", "all").stdout == "no errors\n"
    assert json.loads(here("errors", "list", "--json").stdout) == []


def test_the_list_fits_eighty_columns(here: Run, ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from packmule.terminal import show

    monkeypatch.setattr(show.out, "_width", 80)
    printed = here("errors", "list").stdout
    assert all(len(line) <= 80 for line in printed.splitlines()), printed
    lines = printed.splitlines()
    assert lines[0].split() == ["error", "failures", "last", "24", "hours", "what", "failed"]
    assert lines[1].split()[:2] == [OTHER, "1"]
    assert any(line.startswith(f"{FINGERPRINT} ") for line in lines)


def test_an_error_is_shown_with_its_jobs_and_a_traceback(here: Run, ids: list[str]) -> None:
    printed = here("errors", "show", FINGERPRINT).stdout
    for said in ("report.py:render", "shop.reports.report_of_a_month", "Traceback:", *ids[:3]):
        assert said in printed, printed
    found = json.loads(here("errors", "show", FINGERPRINT, "--json").stdout)
    assert (found["total"], found["jobs"], found["state"]) == (3, ids[2::-1], "open")
    assert len(found["hours"]) == 168
    assert found["last_at"] == pytest.approx(time.time(), abs=60)


def test_a_failed_job_names_its_error(here: Run, client: Redis, ids: list[str]) -> None:
    assert f"packmule errors show {FINGERPRINT}" in here("job", "show", ids[0]).stdout
    assert json.loads(here("job", "show", ids[3], "--json").stdout)["fingerprint"] == OTHER
    here("errors", "retry", OTHER)
    assert "packmule errors" not in here("job", "show", ids[3]).stdout


def test_errors_are_marked_and_each_is_said(here: Run, ids: list[str]) -> None:
    assert (
        here("errors", "resolve", FINGERPRINT, OTHER).stdout == f"{FINGERPRINT} resolved\n{OTHER} resolved\n"
    )
    assert here("errors", "resolve", OTHER).stdout == f"{OTHER} was already resolved\n"
    assert here("errors", "list").stdout == "no open errors\n"
    assert here("errors", "ignore", OTHER).stdout == f"{OTHER} ignored\n"
    assert "KeyError: 'paid' (ignored)" in here("errors", "list", "--state", "ignored").stdout
    assert here("errors", "reopen", OTHER).stdout == f"{OTHER} open\n"
    done = here("errors", "ignore", "nonsense", FINGERPRINT)
    assert (done.returncode, done.stdout) == (2, f"{FINGERPRINT} ignored\n")
    assert done.stderr.startswith("packmule: no error has the fingerprint nonsense: ")


def test_the_jobs_of_an_error_are_retried(here: Run, client: Redis, ids: list[str]) -> None:
    assert here("errors", "retry", FINGERPRINT).stdout == f"{FINGERPRINT}: 3 jobs enqueued again\n"
    assert [reader.read(client, id).status for id in ids] == ["queued"] * 3 + ["failed"]
    assert here("errors", "retry", FINGERPRINT).stdout == f"{FINGERPRINT}: 0 jobs enqueued again\n"
    found = json.loads(here("errors", "retry", OTHER, "--json").stdout)
    assert found == {"jobs": ids[3:], "refused": {}}


def test_a_job_that_can_not_run_again_is_a_complaint(here: Run, client: Redis, ids: list[str]) -> None:
    client.hset(keys.claims_key("w1"), ids[3], "c1-4")  # its worker still runs its callback
    client.zadd(keys.LEASES, {"w1": time.time() + 60})
    client.hset(keys.job_key(ids[3]), "worker_name", "w1")
    done = here("errors", "retry", OTHER)
    assert (done.returncode, done.stdout) == (1, f"{OTHER}: 0 jobs enqueued again\n")
    assert f"job {ids[3]} can't run again yet" in done.stderr


@pytest.mark.parametrize("words", [("show",), ("retry",)])
def test_a_fingerprint_that_nobody_has_is_one_line(here: Run, client: Redis, words: tuple[str, ...]) -> None:
    assert "no error has the fingerprint beef" in complaint(here("errors", *words, "beef"), 2)


def test_bars_are_as_high_as_their_share_of_the_highest() -> None:
    assert bars([0, 0, 0, 0], 2) == "··"
    assert bars([0, 1, 0, 100, 50, 0], 1) == "·▁·█▄·"
    assert bars([*range(1, 9)], 1) == "▁▂▃▄▅▆▇█"
