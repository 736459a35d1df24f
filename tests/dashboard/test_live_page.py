"""Pages that live, in a real browser: changes are seen, and what the reader does is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.coordination.redis.connection import connect
from packmule.dashboard.pages.rendering import render, templates
from packmule.jobs import queues
from packmule.jobs.client import Client
from packmule.observe import audit, events
from packmule.tests.dashboard.browser import WIDE, becomes_true, opened
from packmule.tests.dashboard.sites import Served, served
from packmule.tests.jobs import sample_jobs

pytestmark = pytest.mark.usefixtures("steady_hub")

TEMPLATE = """
{% extends "layout.html" %}
{% block title %}Counter{% endblock %}
{% block main %}<h1>Counter</h1>
{% block counter %}<section data-region="counter" data-on="jobs" aria-label="Counter">
<p id="count">{{ count }}</p>
<details id="more"><summary>More</summary><p>{{ count }} of them</p></details>
<form action="/nowhere"><label>Name <input id="name" name="name" value="{{ count }}"></label>
<input type="checkbox" id="box" aria-label="Box"></form>
{{ ui.time(at) }}
<button type="button" id="act">Act {{ count }}</button>
</section>{% endblock %}
{% endblock %}
"""


@pytest.fixture
def counter(client) -> Iterator[Served]:
    """A page with one region, which counts how often it was made."""
    made: list[int] = []

    def page(request: Request) -> Response:
        made.append(1)
        return render(request, templates.from_string(TEMPLATE), count=len(made), at=0)  # type: ignore[arg-type]

    with served(client, more_routes=[Route("/counter", page, name="counter")]) as found:
        yield found


def change(client) -> None:
    events.stream(client).append([["finished", "j1", "default", "", 1_800_000_000.0]])


def is_live(page) -> None:
    becomes_true(page, "document.querySelector('#live').innerText.trim() === 'live'")


def test_a_bar_moves_when_a_job_is_enqueued(dashboard, page, client, produce):
    sample_jobs.noop.enqueue()
    page.goto(dashboard.address)
    is_live(page)
    card = page.locator("article", has_text="default")
    card.locator("text=1 waiting").wait_for()
    for _ in range(3):
        sample_jobs.noop.enqueue()
    card.locator("text=4 waiting").wait_for()
    assert "4 waiting" in (card.locator("svg.bar").get_attribute("aria-label") or "")
    queues.pause(client, "default")
    audit.record(client, "queue pause", {"queue": "default"})
    card.locator(".badge", has_text="paused").wait_for()


def test_what_the_reader_does_survives_a_fresh_region(counter, page, client):
    page.goto(f"{counter.address}/counter")
    is_live(page)
    assert page.locator("#count").inner_text() == "1"
    page.locator("#more summary").click()
    page.locator("#name").fill("half-ty")
    page.locator("#box").check()
    page.locator("#act").focus()
    change(client)
    becomes_true(page, "document.querySelector('#count').innerText !== '1'")
    assert page.locator("#more").get_attribute("open") is not None
    assert page.locator("#more p").inner_text() != "1 of them"
    assert page.locator("#name").input_value() == "half-ty"
    assert page.locator("#box").is_checked()
    assert page.evaluate("document.activeElement.id") == "act"


def test_nothing_moves_while_somebody_types_selects_or_has_paused(counter, page, client):
    page.goto(f"{counter.address}/counter")
    is_live(page)
    page.keyboard.press("p")
    becomes_true(page, "document.querySelector('#live').innerText.startsWith('paused, as of')")
    assert page.locator("#pause").get_attribute("aria-pressed") == "true"
    change(client)
    page.keyboard.press("p")
    becomes_true(page, "document.querySelector('#count').innerText !== '1'")
    is_live(page)
    page.locator("#name").click()
    before = page.locator("#count").inner_text()  # the page may have been fetched again until the click
    change(client)
    page.keyboard.type("abc")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.locator("#count").inner_text() == before
    page.locator("h1").click()
    page.evaluate("document.activeElement.blur()")
    becomes_true(page, f"document.querySelector('#count').innerText !== '{before}'")


def test_keys_lead_everywhere(dashboard, page):
    page.goto(dashboard.address)
    page.keyboard.press("?")
    page.locator("#help", has_text="next, previous row").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.press("Escape")  # which closes the list of words, if it is there
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.locator("article.is-here").wait_for()
    page.keyboard.press("t")
    assert page.evaluate("localStorage.packmuleTheme") == "light"
    page.keyboard.press("t")
    page.reload()
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    page.keyboard.press("g")
    page.keyboard.press("j")
    page.wait_for_url(f"{dashboard.address}/jobs")


def test_an_act_asks_first_and_works(dashboard, page, client):
    page.goto(dashboard.address)
    card = page.locator("article", has_text="default")
    card.locator("summary").click()
    card.get_by_role("button", name="Pause").click()
    page.locator("#confirm", has_text="Pause default?").wait_for()
    page.get_by_role("button", name="Cancel").click()
    assert queues.paused(client) == set()
    card.locator("summary").click()
    card.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Yes").click()
    page.locator(".message", has_text="default is paused.").wait_for()
    assert queues.paused(client) == {"default"}
    (done,) = audit.read(client)
    assert (done.who, done.action, done.subject) == ("ada", "queue pause", {"queue": "default"})


def test_a_page_says_that_it_is_stale_and_recovers(browser, spare_server):
    server = spare_server()
    with (
        connect(server.url, server.data_dir) as client,
        served(client) as site,
        opened(browser) as (page, faults),
    ):
        faults.allowed += ["503", "ERR_"]
        Client(client).make_default()
        page.goto(site.address)
        is_live(page)
        server.stop()
        becomes_true(page, "/as of .*, reconnecting/.test(document.querySelector('#live').innerText)")
        assert "reconnecting" in page.locator("#said").inner_text()
        server.ensure()
        is_live(page)
        sample_jobs.noop.enqueue()
        page.locator("article", has_text="1 waiting").wait_for()


def test_without_streams_a_page_asks_now_and_then(browser, counter, client):
    with opened(browser) as (page, faults):
        faults.allowed += ["503"]
        page.route(re.compile(r"/live\?"), lambda route: route.fulfill(status=503, body="full"))
        page.goto(f"{counter.address}/counter")
        becomes_true(page, "document.querySelector('#count').innerText !== '1'")
        becomes_true(page, "document.querySelector('#live').innerText === 'every 5 s'")


def test_a_page_can_be_read_and_acted_on_without_javascript(browser, dashboard, client, produce):
    sample_jobs.noop.enqueue()
    with opened(browser, WIDE, javascript=False) as (page, _):
        page.goto(dashboard.address)
        card = page.locator("article", has_text="default")
        assert "1 waiting" in card.inner_text()
        card.locator("summary").click()
        card.get_by_role("button", name="Pause").click()
        page.locator(".message", has_text="default is paused.").wait_for()
    assert queues.paused(client) == {"default"}
