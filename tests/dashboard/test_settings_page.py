"""The page of settings: who sees it, that no secret shows, and that a dead mail server doesn't hold it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis

from packmule.config import VARIABLES, Settings, SettingsError
from packmule.dashboard.viewer import Role
from packmule.observe.check.checks import Checks
from packmule.tests.dashboard.browser import NARROW, WIDE, opened, shoot, sideways
from packmule.tests.dashboard.sites import served
from packmule.tests.dashboard.visits import Visit, visiting


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path, monkeypatch):
    """Where the check proves that files can be stored."""
    monkeypatch.chdir(tmp_path)


@contextmanager
def visit_of(
    client: Redis, settings: Settings, fault: str = "", role: Role = Role.OPERATOR
) -> Iterator[Visit]:
    def load() -> None:
        if fault:
            raise SettingsError(fault)

    with visiting(client, role, checks=Checks(settings, lambda: client, load)) as visit:
        yield visit


def test_the_check_and_each_setting_are_shown_without_secrets(client, monkeypatch, tmp_path):
    monkeypatch.setenv("PACKMULE_SECRET_HOOKS", "s3cret")
    monkeypatch.setenv("PACKMULE_MAIL_URL", "smtp://ada:s3cret@127.0.0.1:1")
    monkeypatch.setenv("REDIS_URL", "redis://:s3cret@jobs")
    settings = Settings.from_env()
    with visit_of(client, settings, "PACKMULE_MODULES: can't import <b>gone</b>") as visit:
        page, shown = visit.get("/settings"), visit.text("/settings")
    assert "s3cret" not in page
    assert "<b>gone" not in page
    assert all(variable in shown for variable, _ in VARIABLES.values())
    assert "PACKMULE_REDIS_URL redis://:***@jobs REDIS_URL" in shown
    assert "PACKMULE_MAIL_URL smtp://ada:***@127.0.0.1:1 environment" in shown
    assert "PACKMULE_GRACE 25 s default" in shown
    assert "PACKMULE_SECRET_HOOKS *** environment" in shown
    assert "modules fault PACKMULE_MODULES: can't import <b>gone</b>" in shown
    assert "mail fault can't reach the mail server 127.0.0.1:1" in shown
    assert "rights ok as default, who may do all that jobs need" in shown


def test_a_mail_server_that_never_answers_does_not_hold_the_page(server, client):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"smtp://127.0.0.1:{silent.getsockname()[1]}"
        with visit_of(client, Settings(redis_url=server.url, mail_urls=(url,))) as visit:
            shown = visit.text("/settings")
    assert "mail fault no answer within" in shown
    assert "clock ok" in shown


def test_viewers_are_told_that_operators_see_settings(server, client):
    with visit_of(client, Settings(redis_url=server.url), role=Role.VIEWER) as visit:
        assert "this needs an operator" in visit.text("/settings", status=403)
        assert 'href="/settings"' not in visit.get("/jobs")


def test_the_menu_has_the_pages_that_the_viewer_may_see(server, client):
    with visit_of(client, Settings(redis_url=server.url)) as visit:
        page = visit.get("/jobs")
    assert 'href="/settings"' in page
    assert 'href="/queues"' in page


def test_a_site_without_settings_says_where_to_look(client):
    with visiting(client) as visit:
        assert "started without settings of its own" in visit.text("/settings")


@pytest.mark.parametrize(("viewport", "scheme"), [(WIDE, "light"), (NARROW, "dark")])
def test_the_page_fits_and_is_accessible(browser, server, client, viewport, scheme):
    from axe_playwright_python.sync_playwright import Axe

    checks = Checks(Settings(redis_url=server.url), lambda: client, lambda: None)
    with served(client, checks=checks) as site, opened(browser, viewport, scheme) as (page, _):
        page.goto(f"{site.address}/settings")
        page.get_by_text("who may do all that jobs need").wait_for()
        shoot(page, f"settings-full-{viewport['width']}-{scheme}")
        assert sideways(page) == 0
        assert Axe().run(page).response["violations"] == []
