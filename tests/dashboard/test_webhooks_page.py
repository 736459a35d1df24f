"""The pages of webhooks: what waits and was given up, as `packmule webhooks` says, and sending it again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from packmule.coordination.streams.dead_letters import dead_letters_key, event_record
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import keys
from packmule.observe import audit
from packmule.observe.webhooks import state
from packmule.observe.webhooks.endpoints import group_of
from packmule.tests.command_line import CommandLine, environment_in
from packmule.tests.dashboard.browser import NARROW, WIDE, opened, shoot, sideways
from packmule.tests.dashboard.visits import Visit, visiting
from packmule.tests.observe.test_webhooks import SECRET, emit, receiving

LETTERS = dead_letters_key(keys.JOB_EVENTS, group_of("billing"))


def give_up(client: Redis, *jobs: str, reason: str = "https://hooks.example.org/... answered 422") -> None:
    for number, job in enumerate(jobs):
        row = ["failed", job, "low", "w1", 1795600000.5, {}]
        client.lpush(LETTERS, event_record(f"17-{number}", row, reason=reason, deliveries=1))


def name_file(app: Any, path: Path, text: str) -> None:
    """Let the site read this file of webhooks."""
    path.write_text(text)
    app.state.site = replace(app.state.site, webhooks=path, webhook_allow=("127.0.0.0/8",))


def table(port: int = 9999, more: str = 'secret = "BILLING"') -> str:
    return f'[billing]\nurl = "http://127.0.0.1:{port}/T0/s3cret?key=s3cret"\nqueues = ["low"]\n{more}\n'


@pytest.fixture
def visit(client: Redis) -> Iterator[Visit]:
    with visiting(client) as found:
        yield found


@pytest.fixture
def file(visit: Visit, tmp_path: Path) -> Path:
    name_file(visit.http.app.site, tmp_path / "hooks.toml", table())
    return tmp_path / "hooks.toml"


def test_without_a_file_the_page_says_how_to_name_one(visit):
    assert "Set PACKMULE_WEBHOOKS" in visit.text("/webhooks")


def test_the_numbers_are_those_of_the_command_line(visit, client, server, tmp_path, file):
    emit(client, "a", "b")
    client.xgroup_create(keys.JOB_EVENTS, group_of("billing"), id="0")
    emit(client, "c")
    give_up(client, "x", "y")
    state.count(client, "billing", accepted=True)
    state.count(client, "billing", accepted=False)
    changes = {"PACKMULE_WEBHOOK_ALLOW": "127.0.0.0/8", "PACKMULE_SECRET_BILLING": SECRET}
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url, **changes))
    (told,) = json.loads(packmule.output("webhooks", "--file", str(file), "list", "--json"))
    assert (told["entries_behind"], told["given_up"]) == (2, 2)
    (found,) = state.read(client, [])
    assert (found.waiting, found.sending, found.given_up) == (2, 0, 2)
    assert (found.delivered, found.refused) == (1, 1)
    shown = visit.text("/webhooks")
    assert "of low 2 0 1 1" in shown
    assert "2 given up" in shown


def test_no_page_shows_a_secret_or_what_keeps_an_address_secret(visit, client, file):
    give_up(client, "x")
    for path in ("/webhooks", "/webhooks/billing"):
        assert "http://127.0.0.1:9999/..." in visit.text(path)
        assert "s3cret" not in visit.get(path)
    assert "Signed yes" in visit.text("/webhooks/billing")


def test_dead_letters_are_shown_in_pages_and_their_reasons_hidden(visit, client, file):
    give_up(client, *(f"j{number:02}" for number in range(60)))
    shown = visit.text("/webhooks/billing")
    assert "failed low j59 https://hooks.example.org/... answered 422 1" in shown
    assert "j09" not in shown
    assert "j09" in visit.text("/webhooks/billing", cursor="50")
    assert "60 in all" in shown
    visit.viewer = Viewer("eve", Role.VIEWER, may_see_payloads=False)
    assert "answered 422" not in visit.get("/webhooks/billing")


def test_dead_letters_are_sent_again_by_operators_and_audited(visit, client, tmp_path, file, monkeypatch):
    give_up(client, "x", "y")
    visit.viewer = Viewer("eve", Role.VIEWER, may_see_payloads=True)
    assert "this needs an operator" in visit.refused("/webhooks/billing")
    visit.viewer = Viewer("ada", Role.OPERATOR, may_see_payloads=True)
    assert "Nothing was sent: " in visit.post("/webhooks/billing"), "the dashboard has no secret"
    assert list(audit.read(client)) == []
    monkeypatch.setenv("PACKMULE_SECRET_BILLING", SECRET)
    with receiving() as receiver:
        name_file(visit.http.app.site, file, table(receiver.port))
        receiver.answer = lambda event: 500 if event["job"] == "y" else 200
        assert visit.post("/webhooks/billing") == "1 sent, 1 left."
        receiver.answer = lambda event: 200
        assert visit.post("/webhooks/billing") == "1 sent, 0 left."
        assert receiver.jobs == ["x", "y"]
    assert "There are none" in visit.text("/webhooks/billing")
    done = [each.subject for each in audit.read(client)]
    assert done == [
        {"name": "billing", "resend": True, "sent": n, "left": left} for n, left in ((1, 1), (1, 0))
    ]
    (found,) = state.read(client, []) or [None]
    assert found is None or (found.delivered, found.refused) == (2, 1)


def test_unknown_names_and_broken_files_are_said(visit, client, file):
    assert "There is no webhook of this name" in visit.text("/webhooks/nobody", 404)
    assert "There is no webhook of this name" in visit.refused("/webhooks/nobody", 404)
    for text in ("[billing", "[billing]\nurl = 7\n", table(more='types = ["nothing"]')):
        file.write_text(text)
        assert "hooks.toml" in visit.text("/webhooks")
    file.unlink()
    assert "no such file" in visit.text("/webhooks")
    visit.viewer = Viewer("eve", Role.VIEWER)
    assert "hooks.toml" not in visit.get("/webhooks")


def test_garbage_and_markup_stop_no_page(visit, client, file):
    records = (b"\xff", "[]", "{}", "[" * 9000, '{"events": [7], "at": -1, "deliveries": "x", "reason": []}')
    client.rpush(LETTERS, *records)
    give_up(client, "<script>alert(1)</script>\x1b[2J", reason="<script>alert(1)</script>")
    assert "<script>alert" not in visit.get("/webhooks/billing")
    emit(client, "a")
    client.xgroup_create(keys.JOB_EVENTS, group_of("<b>\x1b"), id="0")
    assert "<b>\\x1b" in visit.text("/webhooks")
    client.set(keys.webhook_counts_key("billing"), "of another type")
    client.delete(LETTERS, keys.JOB_EVENTS)
    client.set(LETTERS, "of another type")
    client.set(keys.JOB_EVENTS, "of another type")
    visit.get("/webhooks")
    visit.get("/webhooks/billing")


def test_corrupt_dead_letters_end_no_sending_again(visit, client, file, monkeypatch):
    monkeypatch.setenv("PACKMULE_SECRET_BILLING", SECRET)
    give_up(client, "x")
    client.rpush(LETTERS, b"\xff", "{}")
    with receiving() as receiver:
        name_file(visit.http.app.site, file, table(receiver.port))
        assert visit.post("/webhooks/billing") == "3 sent, 0 left."
        assert receiver.jobs == ["x"]


def test_webhooks_are_looked_at_and_sent_again_in_a_browser(browser, dashboard, client, tmp_path):
    give_up(client, "x", "a job with a very long name " * 6)
    with receiving() as receiver:
        name_file(dashboard.app.site, tmp_path / "hooks.toml", table(receiver.port, ""))
        for viewport, scheme in ((WIDE, "light"), (NARROW, "dark")):
            with opened(browser, viewport, scheme) as (page, _):
                for name, path in (("webhooks", "/webhooks"), ("webhook", "/webhooks/billing")):
                    page.goto(dashboard.address + path)
                    shoot(page, f"{name}-{viewport['width']}-{scheme}")
                    assert sideways(page) == 0
        with opened(browser) as (page, _):
            page.goto(f"{dashboard.address}/webhooks")
            page.get_by_role("link", name="billing").click()
            page.get_by_role("button", name="Send again").click()
            page.get_by_role("dialog").get_by_role("button", name="Yes").click()
            page.get_by_text("2 sent, 0 left.").wait_for()
            give_up(client, "later")
            emit(client, "other")
            page.get_by_role("cell", name="later").wait_for()  # live
        assert receiver.jobs[0] == "x"
