"""The pages of errors: what they show of failures, to whom, and what they do about them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from redis import Redis

from packmule.dashboard.pages import errors as pages
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import keys, reader
from packmule.observe import audit, errors
from packmule.tests.command_line import until
from packmule.tests.dashboard.browser import NARROW, opened, shoot, sideways
from packmule.tests.dashboard.visits import ADDRESS, Visit, visiting
from packmule.tests.observe.failing import failed
from packmule.worker.process.failure import Failure

FINGERPRINT, OTHER, UNKNOWN = "3f9a61c204be", "0123456789ab", "ffffffffffff"
MONTH = Failure(FINGERPRINT, "ValueError", "no such month: 13", "report.py:render", "shop.report")
PAID = Failure(OTHER, "KeyError", "'paid'", "shop.py:charge", "shop.charge")


@pytest.fixture
def visit(client: Redis) -> Iterator[Visit]:
    with visiting(client) as found:
        yield found


@pytest.fixture
def ids(client: Redis) -> list[str]:
    """Three jobs that failed of one error, and a fourth of another."""
    return failed(client, [MONTH] * 3 + [PAID])


def rows(page: str) -> list[str]:
    """The errors of a page in their order."""
    return re.findall(r'<tr>\s*<td[^>]*><a href="/errors/([0-9a-f]+)"', page)


def test_without_errors_the_page_says_what_comes_here(visit):
    assert "There are no open errors." in visit.text("/errors")
    assert "No error is ignored." in visit.text("/errors", state="ignored")
    assert "packmule errors list --state all" in visit.text("/errors")


def test_errors_are_listed_with_their_counts_and_found_by_words(visit, ids):
    page = visit.get("/errors")
    assert rows(page) == [OTHER, FINGERPRINT], "the last seen comes first"
    shown = visit.text("/errors")
    assert "ValueError no such month: 13 shop.report in report.py:render 3 3" in shown
    assert "Open 2 Resolved 0 Ignored 0 All 2" in shown
    assert "highest 4" in shown, "all failures of this hour"
    assert rows(visit.get("/errors", q="KEYERROR charge")) == [OTHER]
    assert rows(visit.get("/errors", q="month")) == [FINGERPRINT]
    assert "No error has these words." in visit.text("/errors", q="month charge")
    assert rows(visit.get("/errors", sort="total")) == [OTHER, FINGERPRINT]
    assert rows(visit.get("/errors", sort="-total")) == [FINGERPRINT, OTHER]


def test_only_the_region_that_is_asked_for_is_answered(visit, ids):
    region = visit.get("/errors", region="list")
    assert region.startswith('<section data-region="list"')
    assert rows(region) == [OTHER, FINGERPRINT]
    assert "<main" not in region


def test_an_error_shows_its_counts_an_example_and_its_jobs(visit, client, ids):
    page = visit.get(f"/errors/{FINGERPRINT}")
    shown = visit.text(f"/errors/{FINGERPRINT}")
    assert "Failures 3" in shown
    assert "Last 24 hours 3 Last 7 days 3" in shown
    assert "Job shop.report Function report.py:render Queues default" in shown
    assert "1 frame of libraries" in shown, "they are folded"
    assert "ValueError: no such month: 13" in shown
    assert all(id in page for id in ids[:3])
    assert ids[3] not in page
    client.delete(keys.job_key(ids[0]))
    assert ids[0] not in visit.get(f"/errors/{FINGERPRINT}"), "that job is no longer kept"
    client.delete(*map(keys.job_key, ids))
    assert "None of its jobs is still kept" in visit.text(f"/errors/{FINGERPRINT}")


def test_who_may_not_see_payloads_sees_no_values(visit, ids):
    visit.viewer = Viewer("eve", Role.ADMIN, may_see_payloads=False)
    for path in ("/errors", "/errors?q=month", f"/errors/{FINGERPRINT}"):
        assert "no such month" not in visit.get(path)
        assert "Wrong(row)" not in visit.get(path)
    assert "hidden by your role" in visit.text("/errors")
    assert rows(visit.get("/errors", q="month")) == [], "nor can they be guessed by searching"
    assert 'File "/srv/app/report.py:render", line 40' in visit.text(f"/errors/{FINGERPRINT}")


def test_errors_are_resolved_ignored_and_reopened_by_operators(visit, client, ids):
    visit.viewer = Viewer("ada", Role.OPERATOR)
    assert visit.post(f"/errors/{FINGERPRINT}/resolve") == "The error is resolved."
    assert visit.post(f"/errors/{FINGERPRINT}/resolve") == "The error was already resolved."
    assert visit.post(f"/errors/{OTHER}/ignore") == "The error is ignored."
    assert rows(visit.get("/errors")) == []
    assert rows(visit.get("/errors", state="resolved")) == [FINGERPRINT]
    assert rows(visit.get("/errors", state="ignored")) == [OTHER]
    assert "Open 0 Resolved 1 Ignored 1 All 2" in visit.text("/errors")
    assert visit.post(f"/errors/{OTHER}/reopen") == "The error is open."
    assert rows(visit.get("/errors")) == [OTHER]
    first, *_, last = audit.read(client)
    assert (first.who, first.where, first.action) == ("ada", ADDRESS, "errors resolve")
    assert (last.action, last.subject) == ("errors reopen", {"fingerprints": [OTHER]})


def test_the_jobs_of_an_error_are_retried(visit, client, ids):
    client.delete(keys.job_key(ids[0]))
    assert visit.post(f"/errors/{FINGERPRINT}/retry") == "2 jobs run again."
    assert [reader.read(client, id).status for id in ids[1:]] == ["queued", "queued", "failed"]
    assert visit.post(f"/errors/{FINGERPRINT}/retry").startswith("None of its jobs can be retried")
    (first, _) = audit.read(client)
    assert first.subject == {"fingerprint": FINGERPRINT, "jobs": 2, "refused": 0}


def test_jobs_that_cannot_run_again_are_named_with_the_reason(visit, ids, monkeypatch):
    refused = errors.Retried(["a"], {str(number): f"job {number} can't" for number in range(5)})
    monkeypatch.setattr(pages.source, "retry", lambda client, fingerprint: refused)
    assert visit.post(f"/errors/{FINGERPRINT}/retry") == (
        "1 job runs again. 5 can't: job 0 can't; job 1 can't; job 2 can't, and 2 more."
    )


def test_a_viewer_can_change_nothing(visit, client, ids):
    visit.viewer = Viewer("eve", Role.VIEWER)
    for act in ("resolve", "ignore", "reopen", "retry"):
        assert "this needs an operator" in visit.refused(f"/errors/{FINGERPRINT}/{act}")
    assert {each.state for each in errors.read_all(client)} == {"open"}
    assert list(audit.read(client)) == []
    assert '<form class="act"' not in visit.get(f"/errors/{FINGERPRINT}"), "buttons are disabled"


@pytest.mark.parametrize("fingerprint", [UNKNOWN, "x", "%2e%2e", "%ff", "a" * 300])
def test_an_unknown_error_is_said_in_words(visit, client, fingerprint):
    assert "no error has the fingerprint" in visit.text(f"/errors/{fingerprint}", status=404)
    assert "no error has the fingerprint" in visit.refused(f"/errors/{fingerprint}/resolve", 404)
    assert visit.refused(f"/errors/{fingerprint}/explode", 404)
    assert list(audit.read(client)) == []


@pytest.mark.parametrize("value", ["-1", "0", "1e9", "NaN", "9" * 300, "\x00", "²", "desc", "'"])
def test_numbers_and_words_from_outside_are_clamped(visit, ids, value):
    for name in ("cursor", "sort", "state", "region"):
        visit.get("/errors", **{name: value})
    assert rows(visit.get("/errors", cursor=value)) == [OTHER, FINGERPRINT]


def test_garbage_stops_no_page(visit, client, ids):
    client.set(keys.error_key(OTHER), "of another type")
    client.hset(
        keys.error_key(FINGERPRINT),
        mapping={"first": "NaN", "last": "1e300", "total": "-4", "queues": b"\xff"},
    )
    client.zadd(keys.ERRORS, {"<b>": 9e15, b"\xff\xfe": 1.0})
    assert rows(visit.get("/errors")) == [FINGERPRINT]
    assert "Queues \ufffd" in visit.text(f"/errors/{FINGERPRINT}")
    client.set(f"{keys.error_key(FINGERPRINT)}:jobs", "of another type", xx=False)
    visit.get(f"/errors/{FINGERPRINT}")
    client.set(keys.ERRORS, "of another type")
    visit.get("/errors")


def test_a_page_takes_few_round_trips(visit, client, ids):
    before = client.info("commandstats")
    visit.get("/errors")
    visit.get(f"/errors/{FINGERPRINT}")
    after = client.info("commandstats")
    calls = {name: stat["calls"] - before.get(name, {"calls": 0})["calls"] for name, stat in after.items()}
    assert sum(calls.values()) < 40


def test_errors_are_handled_in_a_browser(browser, dashboard, client, ids):
    with opened(browser) as (page, _):
        page.goto(f"{dashboard.address}/errors")
        shoot(page, "errors-1280-light")
        page.get_by_role("link", name="ValueError").click()
        page.get_by_role("heading", name="ValueError").wait_for()
        shoot(page, "error-1280-light")
        page.get_by_role("button", name="Retry its jobs").click()
        page.get_by_role("dialog").get_by_role("button", name="Yes").click()
        page.get_by_text("3 jobs run again.").wait_for()
        page.get_by_role("button", name="Resolve").click()
        page.get_by_text("The error is resolved.").wait_for()
        page.goto(f"{dashboard.address}/errors")
        page.get_by_role("link", name="KeyError").wait_for()
        failed(client, [MONTH], "w2")
        page.get_by_role("link", name="ValueError").wait_for()  # it is open again, and the page is live
    until(lambda: errors.read(client, FINGERPRINT).error.state == "open", "the error is open again")


def test_errors_fit_a_telephone(browser, dashboard, ids):
    with opened(browser, NARROW, "dark") as (page, _):
        for name, path in (("errors", "/errors"), ("error", f"/errors/{FINGERPRINT}")):
            page.goto(dashboard.address + path)
            shoot(page, f"{name}-390-dark")
            assert sideways(page) == 0
