"""Acts on ticked jobs: each is looked at for itself, and the answer says what became of them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from urllib.parse import quote, unquote

import pytest
from redis import Redis

from packmule.dashboard.pages import ticked
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import control, keys, reader
from packmule.observe import audit
from packmule.tests.command_line import until
from packmule.tests.dashboard.browser import opened, shoot
from packmule.tests.dashboard.visits import OURS, Visit, visiting
from packmule.tests.jobs import sample_jobs

ODD = "a/b %? #é <b>&amp;\x1b"

pytestmark = pytest.mark.usefixtures("produce")


@pytest.fixture
def visit(client: Redis) -> Iterator[Visit]:
    with visiting(client, Role.OPERATOR) as found:
        yield found


def post(visit: Visit, act: str, *ids: str, **more: str) -> str:
    fields = {"act": act, "id": [quote(id, safe="") for id in ids], **more}
    answer = visit.http.post("/jobs", data=fields, headers=OURS)
    assert answer.status_code == 200, answer.text
    found = re.search(r'<p class="message[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    assert found, answer.text
    return html.unescape(found[1])


def status(client: Redis, id: str) -> str | None:
    found = reader.read_many(client, [id])[0]
    return found.status if found else None


def test_each_is_looked_at_for_itself_and_the_answer_says_why_not_more(visit, client):
    ids = sample_jobs.noop.enqueue_many([()] * 4)
    for id in ids[:2]:
        control.cancel(client, id)
    said = post(visit, "retry", *ids, "gone", ids[0])
    assert said.startswith("2 jobs are queued again. 3 were refused: 2 is queued")
    assert "1 no job has the id ID" in said
    assert [status(client, id) for id in ids] == ["queued"] * 4
    (action,) = audit.read(client)
    assert (action.who, action.action) == ("ada", "job retry")
    assert action.subject == {"ids": ids[:2], "refused": 3}


@pytest.mark.parametrize(
    ("act", "said", "becomes"),
    [("cancel", "1 job is canceled.", "canceled"), ("delete", "1 job is deleted.", None)],
)
def test_one_of_any_id_is_meant(visit, client, act, said, becomes):
    id, waiting = sample_jobs.noop.enqueue(), keys.queue_key("default")
    client.rename(keys.job_key(id), keys.job_key(ODD))  # as another producer may call one
    client.lset(waiting, client.lpos(waiting, id), ODD)
    boxes = re.findall(r'form="ticked" value="([^"]*)"', visit.get("/jobs"))
    assert [unquote(each) for each in boxes] == [ODD]
    assert post(visit, act, ODD) == said
    assert status(client, ODD) == becomes


def test_a_scheduled_job_runs_now(visit, client):
    id = sample_jobs.noop.options(delay=600).enqueue()
    assert post(visit, "run", id) == "1 job is queued to run now."
    assert status(client, id) == "queued"


def test_the_list_comes_again_with_its_filter(visit, client):
    id = sample_jobs.noop.enqueue()
    fields = {"act": "cancel", "id": id, "q": "queue:default status:queued"}
    answer = visit.http.post("/jobs", data=fields, headers=OURS, follow_redirects=False)
    assert answer.headers["location"] == "/jobs?q=queue%3Adefault+status%3Aqueued"


def test_mistakes_are_said_and_change_nothing(visit, client):
    id = sample_jobs.noop.enqueue()
    assert post(visit, "cancel") == "No job is selected."
    assert "no action is called explode" in visit.refused("/jobs", 400, act="explode", id=id)
    many = {"act": "delete", "id": [str(number) for number in range(ticked.MOST + 1)]}
    assert visit.http.post("/jobs", data=many, headers=OURS).status_code == 400
    assert "No job is selected" not in post(visit, "retry", "%00", "x" * 5000)
    assert status(client, id) == "queued"


def test_viewers_have_no_boxes_and_are_refused(visit, client):
    id = sample_jobs.noop.enqueue()
    visit.viewer = Viewer("eve", Role.VIEWER)
    assert "checkbox" not in visit.get("/jobs")
    assert "this needs an operator" in visit.refused("/jobs", act="delete", id=id)
    assert status(client, id) == "queued"
    assert list(audit.read(client)) == []


def test_only_acts_that_the_status_allows_are_offered(visit, client):
    ids = sample_jobs.noop.enqueue_many([()] * 2)
    control.cancel(client, ids[0])
    buttons = visit.get("/jobs", q="status:canceled").partition('id="ticked"')[2]
    assert 'value="retry"' in buttons
    assert 'value="delete"' in buttons
    assert 'value="cancel"' not in buttons
    assert visit.get("/jobs").count('form="ticked"') == 2


def test_rows_are_ticked_by_range_and_the_list_stands_still_meanwhile(browser, dashboard, client):
    ids = sample_jobs.noop.enqueue_many([()] * 6)
    with opened(browser) as (page, _):
        page.goto(f"{dashboard.address}/jobs")
        boxes = page.locator("[form=ticked]")
        bar = page.locator("#ticked")
        assert not bar.is_visible()
        boxes.nth(1).click()
        boxes.nth(4).click(modifiers=["Shift"])
        assert bar.inner_text().startswith("4 selected")
        shoot(page, "ticked-1280-light")
        shown = [boxes.nth(place).get_attribute("value") for place in range(6)]
        late = sample_jobs.noop.enqueue()
        page.locator("#live").get_by_text("live").wait_for()
        page.evaluate("new Promise(done => setTimeout(done, 1500))")  # in which it would have come
        assert boxes.count() == 6
        bar.get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").get_by_role("button", name="Yes").click()
        page.get_by_text("4 jobs are canceled.").wait_for()
        assert {id for id in ids if status(client, id) == "canceled"} == set(shown[1:5])
        assert status(client, late) == "queued"
        boxes.first.wait_for()
        assert not bar.is_visible()
        page.get_by_label("Select all jobs on this page").click()
        assert bar.inner_text().startswith("7 selected")
        page.get_by_label("Select all jobs on this page").click()
        page.locator("h1").click()
        sample_jobs.noop.enqueue()
        until(lambda: boxes.count() == 8, "the list to go on")


def test_it_works_without_javascript(browser, dashboard, client):
    ids = sample_jobs.noop.enqueue_many([()] * 2)
    with opened(browser, javascript=False) as (page, _):
        page.goto(f"{dashboard.address}/jobs")
        page.locator(f'[value="{ids[0]}"]').check()
        page.get_by_role("button", name="Delete").click()
        page.get_by_text("1 job is deleted.").wait_for()
    assert [status(client, id) for id in ids] == [None, "queued"]
    assert not client.exists(keys.job_key(ids[0]))
