"""The pages of templates: what one makes of typed values, by role, in a browser, and what breaks it."""

from __future__ import annotations

import html as markup
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from redis import Redis

from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs.email.templating import allowance
from packmule.tests.dashboard.browser import NARROW, WIDE, opened, shoot, sideways
from packmule.tests.dashboard.visits import Visit, visiting

EVIL = "<script>window.pwned=1</script>"
LAYOUT = """\
<!doctype html><html><head><style>
body { font: 16px/1.5 sans-serif; background: #f4f1ec }
.card { background: #fff; padding: 24px; max-width: 560px; margin: auto }
@media (max-width: 600px) { .card { padding: 8px !important } }
</style></head><body><div class="card">{% block body %}{% endblock %}</div></body></html>
"""
SHIPPED = """\
{% extends "layout.html" %}{% block body %}<h1>Thanks, {{ name }}!</h1>
<ul>{% for item in items %}<li>{{ item }}</li>{% endfor %}</ul><img src="https://evil.example/t.gif">
{% include "footer.html" %}{% endblock %}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "orders").mkdir()
    (tmp_path / "layout.html").write_text(LAYOUT)
    (tmp_path / "footer.html").write_text("<p>{{ company }}</p>")
    (tmp_path / "orders" / "shipped.html").write_text(SHIPPED)
    return tmp_path


@pytest.fixture
def visit(client: Redis, folder: Path) -> Iterator[Visit]:
    with visiting(client, templates=str(folder)) as found:
        yield found


PATH = "/mail/templates/orders/shipped"


def test_all_templates_are_listed(visit: Visit, folder: Path) -> None:
    (folder / "no name.html").write_text("x")
    (folder / "notes.md").write_text("x")

    found = re.findall(r'href="/mail/templates/([^"]*)"', visit.get("/mail/templates"))

    assert found == ["footer", "layout", "orders%2Fshipped", "welcome"]


def test_a_template_is_shown_with_its_variables_before_anybody_types(visit: Visit) -> None:
    page = visit.get("/mail/templates/welcome")

    assert 'name="var:name" type="text" value="name"' in page
    assert "Welcome, name!" in page


def test_samples_beside_a_template_are_its_first_values(visit: Visit, folder: Path) -> None:
    samples = folder / "orders" / "shipped.json"
    samples.write_text('{"name": "Eve", "items": ["x", "y"], "company": "7", "other": 1}')

    page, text = visit.get(PATH), visit.text(PATH)

    assert 'name="var:name" type="text" value="Eve"' in page
    assert 'name="var:company" type="text" value="&#34;7&#34;"' in page
    assert "Thanks, Eve! - x - y 7" in text
    assert "Thanks, Eve!" in visit.get("/mail/template-html/orders/shipped")
    assert "Thanks, Ada!" in visit.text(PATH, **{"var:name": "Ada", "var:items": "[]", "var:company": ""})
    for content, said in (
        ("[1]", "orders/shipped.json is not a JSON object: "),
        ("[" * 60_000, "orders/shipped.json is not a JSON object: "),
        (" " * 70_000, "orders/shipped.json has more than 65,536 bytes"),
    ):
        samples.write_text(content)
        assert said in visit.text(PATH)


def test_a_form_shows_the_mail_of_what_was_typed_with_its_layout_and_notes(visit: Visit) -> None:
    query = {
        "subject": "For {{ name }}",
        "var:name": EVIL,
        "var:items": '["a", "b"]',
        "var:company": "Ä & Co",
    }

    page, text = visit.get(PATH, **query), visit.text(PATH, **query)

    assert EVIL not in page
    assert f"Subject For {EVIL}" in text
    assert "- a - b" in text
    assert "Ä & Co" in text
    assert "orders/shipped.html, line 2: an image has no alt text" in text
    frame = markup.unescape(re.findall(r'<iframe class="mail" sandbox src="([^"]*)"', page)[0])
    answer = visit.http.get(frame)
    assert "&lt;script&gt;" in answer.text
    assert '<div class="card" style="background: #fff;' in answer.text
    assert "@media (max-width: 600px)" in answer.text
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none';")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"var:name": "Ada", "var:items": "7", "var:company": ""}, "template orders/shipped.html, line 2: "),
        ({"var:name": "x" * 2_001}, "the values have more than 2,000 characters: use packmule email preview"),
        ({"subject": "{{ nobody }}"}, "subject: 'nobody' is not given"),
        ({"subject": "a\rb"}, "subject"),
    ],
)
def test_what_makes_no_mail_is_one_line(visit: Visit, query: dict[str, str], said: str) -> None:
    found = re.findall(r'<p class="message is-error">(.*?)</p>', visit.get(PATH, **query), re.DOTALL)

    assert len(found) == 1
    assert said in markup.unescape(found[0])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("a\n{% if x %}", "line 2: "),
        ("{% include 'gone.html' %}", "'gone.html', which does not exist"),
        ("{{ x | nosuch }}", "nosuch"),
        ("\udcff", "its file is not UTF-8"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps"),
    ],
)
def test_a_broken_template_is_named_with_its_line(
    visit: Visit, folder: Path, source: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowance, "MAX_CPU", 60.0)  # steps take longer on a slow machine
    (folder / "bad.html").write_bytes(source.encode(errors="surrogateescape"))

    text = visit.text("/mail/templates/bad")

    assert "bad.html" in text
    assert said in text
    assert visit.http.get("/mail/template-html/bad").status_code == 400


def test_why_styles_are_not_inlined_is_said(visit: Visit, folder: Path) -> None:
    (folder / "deep.html").write_text(f"<style>p {{ color: red }}</style>{'<div>' * 300}x")

    assert "the styles are not inlined: it has more than 200 nested elements" in visit.text(
        "/mail/templates/deep"
    )


def test_a_mail_that_can_not_be_taken_apart_is_shown_raw(visit: Visit, folder: Path) -> None:
    (folder / "rules.txt").write_text("-- \n" * 3_000)

    text = visit.text("/mail/templates/rules")

    assert "the mail has over 2,000 lines that may begin a part" in text
    assert "Auto-Submitted: auto-generated" in text


def test_an_unknown_template_is_not_found(visit: Visit) -> None:
    for name in ("nosuch", "../layout", "orders", "x" * 3_000, "%00", "orders/shipped.html"):
        assert visit.http.get(f"/mail/templates/{name}").status_code == 404, name


def test_who_may_not_see_mails_sees_no_templates(visit: Visit) -> None:
    visit.viewer = Viewer("ada", Role.VIEWER, False, "s1")

    assert "orders/shipped" not in visit.get("/mail/templates")
    for path in (PATH, "/mail/template-html/orders/shipped", "/mail/templates/nosuch"):
        assert visit.http.get(path).status_code == 403


def test_a_page_is_small_whatever_the_template_makes(visit: Visit, folder: Path) -> None:
    names = [f"a_variable_with_a_long_name_{number}" for number in range(100)]
    (folder / "large.html").write_text(
        "".join(f"<script>{{{{ {name} }}}}</script>\n" for name in names) + "<p>ü & x</p>\n" * 20_000
    )

    for query in ({}, {"var:" + names[0]: '"ü' * 500}, {"var:" + name: '"<' for name in names}):
        page = visit.get("/mail/templates/large", **query)
        assert len(page.encode()) <= 60_000
    assert "It has 60 more variables" in page


def test_the_pages_fit_and_work_without_javascript(browser, dashboard, folder) -> None:  # type: ignore[no-untyped-def]
    for viewport, scheme in ((WIDE, "light"), (WIDE, "dark"), (NARROW, "light"), (NARROW, "dark")):
        with opened(browser, viewport, scheme, javascript=False) as (page, faults):
            faults.allowed += ["evil.example", "Content Security Policy", "sandboxed"]
            page.goto(f"{dashboard.address}/mail/templates")
            shoot(page, f"templates-{viewport['width']}-{scheme}")
            page.get_by_role("link", name="welcome").click()
            page.get_by_label("Subject").fill("Hello {{ name }}")
            page.get_by_label("name", exact=True).fill("Ada")
            page.get_by_role("button", name="Show the mail").click()
            page.frame_locator("iframe.mail").get_by_text("Welcome, Ada!").wait_for()
            page.get_by_text("Hello Ada").first.wait_for()
            shoot(page, f"template-{viewport['width']}-{scheme}")
            assert sideways(page) == 0
    with opened(browser) as (page, faults):
        page.goto(f"{dashboard.address}/mail/templates/welcome")
        told = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]})
        assert not told.response["violations"], told.response["violations"]
