"""No change is missed: not between a page and its stream, nor in an outage; and none is fetched in vain."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from packmule.coordination.redis.connection import connect
from packmule.dashboard.live import hub as hubs
from packmule.dashboard.live.changes import EVERYTHING
from packmule.dashboard.live.hub import Hub
from packmule.dashboard.live.shared import shared
from packmule.dashboard.live.streams import hub_of
from packmule.dashboard.pages.rendering import render, templates
from packmule.observe import events
from packmule.tests.command_line import DEADLINE, until
from packmule.tests.dashboard.asking import run
from packmule.tests.dashboard.browser import becomes_true, opened
from packmule.tests.dashboard.sites import Served, served
from packmule.tests.dashboard.streams import listening

pytestmark = pytest.mark.usefixtures("steady_hub")

TEMPLATE = """
{% extends "layout.html" %}
{% block title %}Counter{% endblock %}
{% block main %}<h1>Counter</h1>
{% block counter %}<section data-region="counter" data-on="jobs" aria-label="Counter">
<p id="made">{{ made }}</p><p id="seen">{{ seen }}</p>
</section>{% endblock %}
{% endblock %}
"""


class Counter:
    """A page that says how often it was made, and how many events there were."""

    def __init__(self, client) -> None:
        self.client = client
        self.made = 0

    def answer(self, request: Request) -> Response:
        seen = self.client.xlen(events.keys.JOB_EVENTS)
        self.made += 1
        return render(request, templates.from_string(TEMPLATE), made=self.made, seen=seen)  # type: ignore[arg-type]


def change(client, type: str = "finished", job: str = "j1") -> None:
    events.stream(client).append([[type, job, "default", "", 1_800_000_000.0]])


@pytest.fixture
def hub(client) -> Iterator[Hub]:
    found = Hub(client, ("default",))
    yield found
    found.close()


@pytest.fixture
def counter(client) -> Counter:
    return Counter(client)


@pytest.fixture
def site(client, counter) -> Iterator[Served]:
    with served(client, more_routes=[Route("/counter", counter.answer)]) as found:
        yield found


def position_of(site: Served, path: str = "/counter") -> str:
    """Where the stream of a page that is made now goes on."""
    text = httpx.get(site.address + path, headers={"Accept": "text/html"}, timeout=DEADLINE).text
    return text.partition('data-position="')[2].partition('"')[0]


def missed(hub: Hub, since: str, *wanted: str) -> set[str]:
    """What a page that subscribes at `since` is told at once."""

    async def subscribed() -> set[str]:
        subscriber = hub.subscribe(wanted, since)
        hub.unsubscribe(subscriber)
        return subscriber.topics

    return run(subscribed())


def begun(hub: Hub) -> str:
    run(hub.ready())
    assert hub.position
    return hub.position


def noticed(hub: Hub, act: Callable[[], object]) -> None:
    """Do what changes something, and wait until the hub has notified its pages of that."""
    before = hub.generation
    act()
    until(lambda: hub.generation > before, "a notice")


def test_what_changed_between_a_page_and_its_stream_is_told(hub, client):
    position = begun(hub)
    assert missed(hub, position, "jobs") == set()
    noticed(hub, lambda: change(client, job="j1"))
    between = hub.position
    assert missed(hub, position, "jobs", "job:j1", "job:j2", "errors") == {"jobs", "job:j1"}
    noticed(hub, lambda: change(client, "failed", "j2"))
    assert missed(hub, position, "jobs", "job:j1", "job:j2", "errors") == {
        "jobs",
        "job:j1",
        "job:j2",
        "errors",
    }
    assert missed(hub, between, "job:j1", "errors") == {"errors"}
    assert missed(hub, hub.position, "jobs", "errors") == set()


def test_from_the_first_page_on_nothing_is_missed(site, client):
    """Nobody looks when it is made, and its stream comes late."""
    position = position_of(site)
    hub = hub_of(site.app.site)
    noticed(hub, lambda: change(client))
    assert missed(hub, position, "jobs") == {"jobs"}
    with listening(site.address, f"/live?on=jobs&since={position}") as heard:
        assert heard.next() == "jobs"


def test_a_page_whose_stream_comes_after_the_watcher_has_rested_is_told_of_everything(
    site, client, monkeypatch
):
    hub, position = hub_of(site.app.site), position_of(site)
    monkeypatch.setattr(hubs, "LINGER", 0.0)
    until(lambda: hub._thread is None, "the watcher to rest")
    change(client)
    with listening(site.address, f"/live?on=jobs&since={position}") as heard:
        assert heard.next() == "*"


@pytest.mark.parametrize(
    "position", ["", "0", "-", "a-1", "{}-999999", "{}--1", "{}-1x", "{}-" + "9" * 400, "{}-²"]
)
def test_a_position_that_this_hub_has_not_given_knows_nothing(hub, position):
    name = begun(hub).partition("-")[0]
    assert missed(hub, position.replace("{}", name), "jobs") == EVERYTHING


def test_past_the_topics_that_are_remembered_everything_has_changed(hub, client, monkeypatch):
    position = begun(hub)
    monkeypatch.setattr(hubs, "MOST_REMEMBERED", 6)
    for number in range(4):
        noticed(hub, lambda number=number: change(client, job=f"j{number}"))
    assert len(hub._changed) <= 6
    assert missed(hub, position, "errors") == EVERYTHING
    assert missed(hub, hub.position, "jobs") == set()


def test_a_stream_that_was_cut_off_goes_on_where_it_was(site, client):
    position = position_of(site)
    address = f"/live?on=jobs+errors&since={position}"
    with listening(site.address, address) as heard:
        assert heard.last_id == position
        change(client)
        assert heard.next() == "jobs"
        last = heard.last_id
        assert last != position
    hub = hub_of(site.app.site)
    with listening(site.address, address, last) as heard:
        noticed(hub, lambda: change(client, "failed"))
        assert set(heard.next().split()) == {"jobs", "errors"}
    with listening(site.address, address, last) as heard:
        assert heard.hello_id == "", "it would not be told again if it were cut off now"
        assert set(heard.next().split()) == {"jobs", "errors"}


def test_what_changed_in_an_outage_is_told_to_all_that_were_there(spare_server, monkeypatch):
    """Also what changes while the watcher begins again: in its own reads, and just before its notice."""
    server = spare_server()
    with connect(server.url, server.data_dir) as client, connect(server.url, server.data_dir) as other:
        hub = Hub(client)
        position = begun(hub)
        may_begin, begin = threading.Event(), hub._changes.begin

        def begin_late() -> None:
            assert may_begin.wait(DEADLINE)
            begin()
            change(other, job="after")

        monkeypatch.setattr(hub._changes, "begin", begin_late)
        server.stop()
        until(lambda: hub.is_away, "the outage")
        assert hub.position == ""
        back = f"{position.partition('-')[0]}-{hub.generation + 1}"
        server.ensure()
        change(other, job="before")
        may_begin.set()
        until(lambda: hub.is_watching, "the end of the outage")
        assert missed(hub, position, "errors") == EVERYTHING
        until(lambda: missed(hub, back, "job:after") in ({"job:after"}, EVERYTHING), "the change after it")
        hub.close()


def test_a_notice_of_another_process_makes_a_shared_region_again(client, monkeypatch):
    monkeypatch.setattr("packmule.dashboard.live.shared.UNWATCHED", DEADLINE)
    made: list[int] = []

    @shared
    def page(request: Request) -> Response:
        made.append(1)
        return HTMLResponse(f"{len(made)}")

    with served(client, more_routes=[Route("/page", page)]) as site:
        address = f"{site.address}/page?region=a"

        def fetched(position: str) -> str:
            return httpx.get(address, headers={"Packmule-Position": position}, timeout=DEADLINE).text

        assert [fetched("other-1"), fetched("other-1"), fetched("other-2")] == ["1", "1", "2"]
        ours = hub_of(site.app.site)
        own = f"{ours._name}-{ours.generation}"
        assert [fetched(own), fetched(own)] == ["3", "3"]


def test_a_page_shows_what_changed_before_its_stream_and_is_fetched_once(site, page, client, counter):
    hub = hub_of(site.app.site)
    held: list[Any] = []
    page.route("**/live?*", lambda route: route.continue_() if held else held.append(route))
    with listening(site.address, "/live?on=jobs"):
        page.goto(f"{site.address}/counter")
        until(lambda: page.evaluate("true") and held, "the request for the stream")
        assert page.locator("#seen").inner_text() == "0"
        noticed(hub, lambda: change(client))
        held[0].continue_()
        becomes_true(page, "document.querySelector('#seen').innerText === '1'")
        noticed(hub, lambda: change(client))
        becomes_true(page, "document.querySelector('#seen').innerText === '2'")
        assert counter.made == 3


def test_a_page_on_which_nothing_changes_is_not_fetched_again(site, page, client, counter):
    change(client)
    page.goto(f"{site.address}/counter")
    becomes_true(page, "document.querySelector('#live').innerText.trim() === 'live'")
    for key in "pp":  # paused, and resumed
        page.keyboard.press(key)
    becomes_true(page, "document.querySelector('#live').innerText.trim() === 'live'")
    change(client)
    becomes_true(page, "document.querySelector('#seen').innerText === '2'")
    assert counter.made == 2


def test_a_paused_page_is_told_what_it_missed_and_only_that(site, page, client, counter):
    hub = hub_of(site.app.site)
    with listening(site.address, "/live?on=jobs"):
        page.goto(f"{site.address}/counter")
        becomes_true(page, "document.querySelector('#live').innerText.trim() === 'live'")
        page.keyboard.press("p")
        noticed(hub, lambda: change(client))
        assert page.locator("#seen").inner_text() == "0"
        page.keyboard.press("p")
        becomes_true(page, "document.querySelector('#seen').innerText === '1'")
        assert counter.made == 2


def test_a_page_shows_what_changed_in_an_outage(browser, spare_server, monkeypatch):
    """Between the server's return and the watcher's next look, which is held back, and after that."""
    server = spare_server()
    with connect(server.url, server.data_dir) as client, connect(server.url, server.data_dir) as other:
        counter = Counter(client)
        with (
            served(client, more_routes=[Route("/counter", counter.answer)]) as site,
            opened(browser) as (page, faults),
        ):
            faults.allowed += ["503", "ERR_"]
            hub = hub_of(site.app.site)
            may_begin, begin = threading.Event(), hub._changes.begin
            page.goto(f"{site.address}/counter")
            becomes_true(page, "document.querySelector('#live').innerText.trim() === 'live'")
            monkeypatch.setattr(hub._changes, "begin", lambda: may_begin.wait(DEADLINE) and begin())
            server.stop()
            becomes_true(page, "/as of .*, reconnecting/.test(document.querySelector('#live').innerText)")
            server.ensure()
            change(other)
            assert page.locator("#seen").inner_text() == "0"
            may_begin.set()
            becomes_true(page, "document.querySelector('#seen').innerText === '1'")
            change(other)
            becomes_true(page, "document.querySelector('#seen').innerText === '2'")
            becomes_true(page, "document.querySelector('#live').innerText.trim() === 'live'")
