"""The login in a real browser: with and without script, wide and narrow, light and dark, for everybody."""

from __future__ import annotations

import pyotp
import pytest
from axe_playwright_python.sync_playwright import Axe

from packmule.coordination.sessions.tokens import Tokens
from packmule.dashboard.login.links import Links
from packmule.dashboard.login.log_in import LogIn
from packmule.dashboard.users import totp
from packmule.dashboard.viewer import Role
from packmule.tests.dashboard.browser import NARROW, WIDE, opened, shoot, sideways
from packmule.tests.dashboard.doors import GOOD, Door, served_door
from packmule.tests.dashboard.quick_passwords import quick_passwords  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("quick_passwords")

LOOKS = [(WIDE, "light"), (WIDE, "dark"), (NARROW, "light"), (NARROW, "dark")]
EXPECTED = ["status of 401", "status of 410", "status of 422", "status of 429"]
"""Browsers log the answers to mistakes; these are mistakes that the tests make."""


@pytest.fixture
def door(client):
    return Door(client)


@pytest.fixture
def site(door):
    with served_door(door) as address:
        yield address


def violations(page):
    tags = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
    found = Axe().run(page, options=tags)
    return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found.response["violations"]]


@pytest.mark.parametrize("javascript", [True, False], ids=["with script", "without script"])
def test_somebody_logs_in_sees_her_sessions_and_logs_out(door, site, browser, javascript):
    door.add("ada", Role.OPERATOR)
    with opened(browser, javascript=javascript) as (page, faults):
        faults.allowed += EXPECTED
        page.goto(f"{site}/account")
        assert page.url == f"{site}/login?next=%2Faccount"
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill("wrong password")
        page.get_by_role("button", name="Log in").click()
        assert page.get_by_role("alert").inner_text() == "The name or the password is wrong."
        assert page.get_by_label("Name").input_value() == "ada"
        page.get_by_label("Password").fill(GOOD)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{site}/account")
        assert page.get_by_text("this one").count() == 1
        page.get_by_text("ada", exact=True).first.click()
        page.get_by_role("button", name="Log out", exact=True).first.click()
        page.wait_for_url(f"{site}/login")
        page.goto(f"{site}/account")
        assert page.url.startswith(f"{site}/login")


def test_somebody_turns_codes_on_and_logs_in_with_one(door, site, browser, monkeypatch):
    door.add("ada")
    with opened(browser) as (page, _):
        page.goto(f"{site}/login?next=/account/code")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill(GOOD)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Continue").wait_for()
        page.get_by_label("Password").fill(GOOD)
        page.get_by_role("button", name="Continue").click()
        key = page.locator("main code").inner_text()
        page.get_by_label("Code from the app").fill(pyotp.TOTP(key).now())
        page.get_by_role("button", name="Turn codes on").click()
        page.get_by_text("Login now asks for a code").wait_for()
    door.users.note(
        "ada", lambda user: type(user)(user.name, user.role, password=user.password, totp=user.totp)
    )
    with opened(browser) as (page, _):
        page.goto(f"{site}/login")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill(GOOD)
        page.keyboard.press("Enter")
        page.get_by_label("Code").fill(pyotp.TOTP(key).now())
        page.keyboard.press("Enter")
        page.wait_for_url(f"{site}/")


@pytest.mark.parametrize(
    ("size", "scheme"), LOOKS, ids=lambda each: each if isinstance(each, str) else each["width"]
)
def test_every_page_of_the_door_and_the_account_is_accessible_and_fits(door, site, browser, size, scheme):
    links = Links(LogIn(door.client))
    setup = links.make_setup()
    with opened(browser, size, scheme) as (page, faults):
        faults.allowed += EXPECTED

        def looked_at(name):
            shoot(page, f"{name}-{size['width']}-{scheme}")
            assert sideways(page) == 0, name
            assert violations(page) == [], name
            assert len(page.content()) < 60_000, name

        page.goto(f"{site}/login/setup/{setup}")
        looked_at("setup")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password", exact=True).fill(GOOD)
        page.get_by_label("Password again").fill(GOOD + "x")
        page.keyboard.press("Enter")
        page.get_by_text("The two passwords differ.").wait_for()
        looked_at("setup-wrong")
        door.add("ada", Role.ADMIN)
        page.goto(f"{site}/login")
        looked_at("login")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill("wrong password")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        looked_at("login-wrong")
        door.users.change("ada", totp=totp.new_secret())
        page.get_by_label("Password").fill(GOOD)
        page.keyboard.press("Enter")
        page.get_by_label("Code").wait_for()
        looked_at("login-code")
        link = links.make("ada")
        page.goto(f"{site}/login/link/{link}")
        looked_at("login-link")
        page.get_by_role("button").click()
        page.wait_for_url(f"{site}/")
        page.goto(f"{site}/login/link/{link}")
        looked_at("login-over")
        Tokens(door.client, "api").add("deploy", ["read", "enqueue"], made_by="root@host")
        for path in ("/account", "/account/password", "/account/code", "/users", "/tokens"):
            page.goto(site + path)
            looked_at(path.strip("/").replace("/", "-"))
