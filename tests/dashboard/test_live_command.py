"""The real command in a real browser: its link makes the first admin, and its pages outlive Redis."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from packmule.coordination.redis.connection import connect
from packmule.jobs.client import Client
from packmule.tests.command_line import CommandLine, Process, environment_in, free_port, until
from packmule.tests.dashboard.browser import becomes_true, opened
from packmule.tests.dashboard.doors import GOOD
from packmule.tests.jobs import sample_jobs

EXPECTED = ["status of 401", "status of 410"]
"""Browsers log the answers to mistakes; these are mistakes that the test makes."""


@contextmanager
def dashboard(home: Path, url: str) -> Iterator[tuple[Process, str, str]]:
    """The running command, its address, and the link that it printed for the first admin."""
    packmule = CommandLine(home, environment_in(home, url))
    with packmule.started("dashboard", "--port", str(free_port())) as process:
        assert process.stderr
        address = process.stderr.readline().removeprefix("The dashboard is on ").strip()
        printed = process.stderr.readline().strip()
        link = re.fullmatch(rf"Create the first admin within an hour: ({re.escape(address)}/\S+)", printed)
        assert link, printed
        yield process, address, link[1]


def become_admin(page, link: str) -> None:
    page.goto(link)
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password", exact=True).fill(GOOD)
    page.get_by_label("Password again").fill(GOOD)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: not urlsplit(url).path.startswith("/login"))


def live(page) -> None:
    becomes_true(page, "document.querySelector('#live').innerText.trim() === 'live'")


def test_the_printed_link_makes_an_admin_who_logs_out_and_in(browser, server, client, tmp_path):
    with dashboard(tmp_path, server.url) as (_, address, link), opened(browser) as (page, faults):
        faults.allowed += EXPECTED
        page.goto(f"{address}/jobs")
        assert urlsplit(page.url).path == "/login", "nobody is in without the link"
        become_admin(page, link)
        page.goto(f"{address}/")
        live(page)
        with opened(browser) as (stranger, others):
            others.allowed += EXPECTED
            stranger.goto(link)
            assert stranger.get_by_label("Name").count() == 0, "the link is good once"
        page.locator("details.who summary").click()
        page.get_by_role("button", name="Log out", exact=True).click()
        page.wait_for_url(f"{address}/login")
        page.goto(f"{address}/jobs")
        assert urlsplit(page.url).path == "/login"
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill("not her password")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        page.get_by_label("Password").fill(GOOD)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{address}/jobs")
        assert "ada" in page.locator("details.who summary").inner_text()
    with dashboard_that_knows_users(tmp_path, server.url) as said:
        assert "first admin" not in said


@contextmanager
def dashboard_that_knows_users(home: Path, url: str) -> Iterator[str]:
    """What the command says once there are users."""
    packmule = CommandLine(home, environment_in(home, url))
    with packmule.started("dashboard", "--port", str(free_port())) as process:
        assert process.stderr
        first = process.stderr.readline()
        process.terminate()
        yield first + process.stderr.read()


def test_a_page_outlives_redis_and_shows_what_is_new(browser, spare_server, tmp_path):
    """Redis is away, is back with its data, and has changed before the dashboard can know that it is."""
    server = spare_server()
    with (
        connect(server.url, server.data_dir) as client,
        dashboard(tmp_path, server.url) as (_, address, link),
        opened(browser) as (page, faults),
    ):
        faults.allowed += [*EXPECTED, "503", "ERR_"]
        Client(client).make_default()
        become_admin(page, link)
        sample_jobs.noop.enqueue()
        page.goto(f"{address}/")
        live(page)
        page.locator("article", has_text="default").locator("text=1 waiting").wait_for()
        for times in range(2, 4):
            server.stop()
            becomes_true(page, "/as of .*, reconnecting/.test(document.querySelector('#live').innerText)")
            assert "reconnecting" in page.locator("#said").inner_text()
            assert page.locator("article", has_text=f"{times - 1} waiting").count() == 1, "what was known"
            server.ensure()
            sample_jobs.noop.enqueue()
            page.locator("article", has_text=f"{times} waiting").wait_for()
            live(page)
        sample_jobs.noop.enqueue()
        page.locator("article", has_text="4 waiting").wait_for()


def test_a_page_goes_on_when_the_dashboard_was_restarted(browser, server, client, tmp_path):
    """Its stream then comes from a process that knows nothing of what the page has seen."""
    Client(client).make_default()
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url))
    port = str(free_port())
    with opened(browser) as (page, faults):
        faults.allowed += [*EXPECTED, "503", "ERR_"]
        with packmule.started("dashboard", "--port", port) as process:
            assert process.stderr
            address = process.stderr.readline().removeprefix("The dashboard is on ").strip()
            become_admin(page, process.stderr.readline().split()[-1])
            page.goto(f"{address}/")
            live(page)
            process.terminate()
            process.wait()
        becomes_true(page, "/reconnecting/.test(document.querySelector('#live').innerText)")
        sample_jobs.noop.enqueue()
        with packmule.started("dashboard", "--port", port) as process:
            assert process.stderr
            until(process.stderr.readline, "the dashboard")
            page.locator("article", has_text="1 waiting").wait_for()
            live(page)
