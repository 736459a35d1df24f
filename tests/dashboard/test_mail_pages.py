"""The pages of mails: the ledger, the suppressed, bulk sends and caught mails, by role and in a browser."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from packmule.dashboard.api.options import ApiOptions
from packmule.dashboard.pages import mail_caught
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs.client import Client
from packmule.jobs.email import send_bulk
from packmule.jobs.email.ledger import reader
from packmule.jobs.email.ledger.reader import MailFilter
from packmule.jobs.email.outcome import State
from packmule.jobs.email.suppression.store import Suppressions
from packmule.jobs.storage import Storage
from packmule.observe import audit
from packmule.tests.dashboard.browser import NARROW, WIDE, opened, shoot, sideways
from packmule.tests.dashboard.visits import OURS, Visit, visiting
from packmule.tests.jobs.test_mail_ledger import LATER, LOST, SEND, YES, run_of, sent

EVIL = "<script>window.pwned=1</script><img src=x onerror=pwned=1>"
NAME = "20261130T120000.000001Z-0123abcd.eml"
HTML = (
    '<p style="color:green">Hello <b>Ada</b></p><img src="cid:logo@x"><img src="https://evil.example/t.gif">'
    '<script>parent.pwned=1</script><a href="https://evil.example/">go</a>'
    '<meta http-equiv="refresh" content="0;url=https://evil.example/">'
)
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
MAIL = f"""\
X-Envelope-From: mule@example.org
X-Envelope-To: ada@example.org
From: "{EVIL}" <mule@example.org>
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe_=3Cb=3E?=
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain; charset=utf-8

Hello {EVIL}
--b
Content-Type: text/html; charset=utf-8

{HTML}
--b
Content-Type: image/png; name="{EVIL}.png"
Content-ID: <logo@x>
Content-Transfer-Encoding: base64

{PIXEL}
--b--
""".replace("\n", "\r\n")


def mails(client: Redis, outcome: Any = LOST, count: int = 3, domain: str = "example.org") -> None:
    """Mails of one job each, whose outcome this is."""
    for number in range(count):
        to = f"user{number}@{domain}"
        run = run_of(client, f"job{number}-{domain}", "e1")
        run.reserve([to])
        assert sent(run, outcome, to)


def unknown(client: Redis) -> list[str]:
    return sorted(each.recipient for each in reader.search(client, MailFilter([State.UNKNOWN])).mails)


@pytest.fixture
def visit(client: Redis) -> Iterator[Visit]:
    with visiting(client) as found:
        yield found


@pytest.fixture
def storage(visit: Visit, tmp_path: Any) -> Storage:
    app: Any = visit.http.app
    app.site.state.site = replace(app.site.state.site, api=ApiOptions(storage_url=str(tmp_path)))
    return Storage(str(tmp_path))


def test_mails_are_listed_by_state_and_found(visit, client):
    mails(client)
    mails(client, LATER, 2, "example.net")
    shown = visit.text("/mails")
    assert "Unknown 3 Deferred 2 Suppressed 0 Active 0 All 5" in shown
    assert "user2@example.org" in shown
    assert "example.net" not in shown
    assert "450 4.2.0 greylisted" in visit.text("/mails", state="deferred")
    assert "user1@example.net" in visit.text("/mails", state="all", who="example.net")
    for query in ({"who": "user1@example.org"}, {"job": "job1-example.org"}):
        shown = visit.text("/mails", **query)
        assert "user1@example.org" in shown
        assert "user2@" not in shown
    assert "No mail matches" in visit.text("/mails", batch="another")
    assert "user1@" in visit.text("/mails", within="1h", key=SEND.key)
    assert "is not" in visit.text("/mails", who="a b")
    assert "an earlier list printed" in visit.text("/mails", 400, cursor="-1")
    assert visit.get("/mails", state="nothing", within="x", cursor="0-1") != ""


def test_whoever_sees_no_payloads_sees_no_address_and_cannot_look_for_one(visit, client):
    mails(client)
    Suppressions(client).add("eve@example.com", "a secret reason")
    visit.viewer = Viewer("eve", Role.OPERATOR, may_see_payloads=False)
    for path in ("/mails", "/mail/suppressed", "/mails?state=all", "/mail/caught"):
        page = visit.get(path)
        assert "example.org" not in page.replace("job0-example.org", "").replace(
            "job1-example.org", ""
        ).replace("job2-example.org", ""), path
        assert "eve@example.com" not in page
        assert "secret reason" not in page
    for path in ("/mails?who=user1@example.org", "/mails?key=k1", "/mail/suppressed.csv", "/mail/results/x"):
        assert "hidden by your role" in visit.text(path, 403)
    assert "hidden by your role" in visit.text(f"/mail/caught/{NAME}", 403)
    assert "hidden by your role" in visit.text(f"/mail/caught/{NAME}/html", 403)


def test_unknown_mails_are_resolved_by_operators_one_by_one_and_all_that_fit(visit, client):
    mails(client)
    mails(client, LOST, 2, "example.net")
    first, second, *_ = reader.search(client, MailFilter([State.UNKNOWN], domain="example.org")).mails
    visit.viewer = Viewer("eve", Role.VIEWER, may_see_payloads=True)
    assert "this needs an operator" in visit.refused("/mails/resolve", act="sent", all="yes")
    assert "resolve" not in visit.get("/mails")
    visit.viewer = Viewer("ada", Role.OPERATOR, may_see_payloads=True)
    assert "No unknown mail is selected" in visit.post("/mails/resolve", act="sent")
    assert "sent or not sent" in visit.refused("/mails/resolve", 400, act="burned", id=first.id)
    assert "1 mail is resolved" in visit.post("/mails/resolve", act="sent", id=first.id)
    assert reader.entries(client, [first.id])[0].state is State.ACCEPTED
    assert reader.entries(client, [first.id])[0].reply == "resolved by ada: it was sent"
    assert "1 mail is resolved" in visit.post("/mails/resolve", act="not sent", id=second.id)
    assert "2 mails are resolved" in visit.post("/mails/resolve", act="sent", all="yes", who="example.net")
    assert len(unknown(client)) == 1
    assert "No unknown mail matches" in visit.post("/mails/resolve", act="sent", all="yes", who="example.net")
    done = [(each.action, each.who, each.subject["count"]) for each in audit.read(client)]
    assert done == [("email resolve", "ada", 1), ("email resolve", "ada", 1), ("email resolve", "ada", 2)]
    assert "example.net" not in str([each.subject for each in audit.read(client)])


def test_addresses_are_suppressed_found_and_let_go(visit, client):
    visit.viewer = Viewer("eve", Role.VIEWER, may_see_payloads=True)
    assert "this needs an operator" in visit.refused("/mail/suppressed", who="ada@example.org")
    assert "this needs an operator" in visit.refused("/mail/suppressed/remove", who="ada@example.org")
    visit.viewer = Viewer("ada", Role.OPERATOR, may_see_payloads=True)
    assert visit.post("/mail/suppressed", who="Ada@Example.org", reason="asked", days="30").startswith("ada@")
    assert "already suppressed" in visit.post("/mail/suppressed", who="ada@example.org", days="3")
    assert visit.post("/mail/suppressed", who="spam.example") == "spam.example gets no mail."
    assert "Nobody was added" in visit.post("/mail/suppressed", who="nobody")
    assert "Nobody was added" in visit.post("/mail/suppressed", who="x@example.org", days="soon")
    shown = visit.text("/mail/suppressed")
    assert "ada@example.org asked operator" in shown
    assert "spam.example domain" in shown
    assert "asked" in visit.text("/mail/suppressed", q="ADA@example.org")
    assert "spam.example" not in visit.text("/mail/suppressed", q="example.org")
    assert "No entry matches" in visit.text("/mail/suppressed", source="bounce")
    assert "gets mail again" in visit.post("/mail/suppressed/remove", who="ada@example.org")
    assert "is not suppressed" in visit.post("/mail/suppressed/remove", who="ada@example.org")
    visit.viewer = Viewer("eve", Role.VIEWER, may_see_payloads=False)
    assert "ada@example.org" not in visit.get("/audit")


def test_a_list_of_suppressed_goes_in_and_out_as_csv_and_over_pages(visit, client):
    table = "email,reason\n" + "".join(f"u{number}@example.org,{EVIL}\n" for number in range(700))
    answer = visit.http.post(
        "/mail/suppressed/import", data={"days": "30"}, files={"file": ("a.csv", table)}, headers=OURS
    )
    assert "700 added" in answer.text
    found, cursor, pages = set(), "0-0", 0
    while cursor:
        page = visit.get("/mail/suppressed", cursor=cursor)
        found.update(re.findall(r"u\d+@example.org", page))
        following = re.search(r"cursor=([\d-]+)\" rel=\"next\"", page)
        cursor, pages = following[1] if following else "", pages + 1
        assert pages < 100
    assert len(found) == 700
    rows = list(csv.DictReader(io.StringIO(visit.get("/mail/suppressed.csv"))))
    assert len(rows) == 700
    assert {each["source"] for each in rows} == {"import"}
    for content, said in (
        (b"a,b\n1,2", "Only part of it was done"),
        (b"\xff\xfe", "Only part of it was done"),
        (b"", "empty"),
    ):
        answer = visit.http.post("/mail/suppressed/import", files={"file": ("a.csv", content)}, headers=OURS)
        assert said in answer.text
    assert "choose a CSV" in visit.http.post("/mail/suppressed/import", headers=OURS).text
    assert Suppressions(client).count() == 700


def test_bulk_sends_are_followed_and_steered(visit, client):
    rows = [{"email": f"user{number}@example.org"} for number in range(120)]
    made = send_bulk(rows, f"Hello {EVIL}", "Soon more.", key="k", client=Client(client))
    shown = visit.text("/mail/sends")
    assert "Hello <script>" in shown
    assert " 120 0 0 0 0 0 " in shown
    path = f"/mail/sends/{made.id}"
    assert "Waiting 120" in visit.text(path)
    assert "It is paused" in visit.post(f"{path}/pause")
    assert made.progress().state == "paused"
    assert "already so" in visit.post(f"{path}/pause")
    assert "It is resumed" in visit.post(f"{path}/resume")
    assert "user7@example.org,waiting" in visit.get(f"/mail/results/{made.id}")
    assert "It is canceled" in visit.post(f"{path}/cancel")
    assert f"{path}/cancel" not in visit.get(path)
    for wrong in ("/mail/sends/nothing", "/mail/results/nothing"):
        assert "no bulk send has the id" in visit.text(wrong, 404)
    assert visit.http.post("/mail/sends/nothing/pause", headers=OURS).status_code == 404
    assert visit.http.post(f"{path}/burn", headers=OURS).status_code == 404
    assert [each.action for each in audit.read(client)] == [
        "batch pause", "batch pause", "batch resume", "batch cancel"
    ]  # fmt: skip
    visit.viewer = Viewer("eve", Role.VIEWER, may_see_payloads=False)
    assert "Hello" not in visit.get("/mail/sends") + visit.get(path)
    assert "this needs an operator" in visit.refused(f"{path}/pause")


def test_the_job_page_names_the_recipients_with_their_states(pages, client, produce):
    from packmule.jobs.email import email

    id = str(email.enqueue(["user0@example.org", "user1@example.org"], "Hello", body="x", key=SEND.key))
    for number, outcome in enumerate((YES, LATER)):
        run = run_of(client, id, "e1")
        run.reserve([f"user{number}@example.org"])
        assert sent(run, outcome, f"user{number}@example.org")
    shown = pages.get(f"/jobs/{id}")
    assert "450 4.2.0 greylisted" in shown
    assert "queued as 4711" in shown
    pages.viewer = Viewer("eve", Role.VIEWER)
    assert "greylisted" not in pages.get(f"/jobs/{id}")


def test_a_caught_mail_is_readable_and_its_html_has_a_policy_of_its_own(visit, storage):
    storage.write_bytes(f"mail/{NAME}", MAIL.encode())
    assert "Grüße <b> ada@example.org" in visit.text("/mail/caught")
    page = visit.get(f"/mail/caught/{NAME}")
    assert "<script>window" not in page
    assert "&lt;script&gt;window" in page
    answer = visit.http.get(f"/mail/caught/{NAME}/html", headers=OURS)
    assert answer.headers["content-security-policy"] == mail_caught.SANDBOX
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert f'src="data:image/png;base64,{PIXEL}"' in answer.text
    raw = visit.http.get(f"/mail/caught/{NAME}/raw", headers=OURS)
    assert raw.content == MAIL.encode()
    assert raw.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "name", ["x", "..%2F..%2Fetc%2Fpasswd", NAME, "20269999T999999.000001Z-0123abcd.eml"]
)
def test_a_mail_that_is_not_there_is_said_to_be(visit, storage, name):
    for path in (f"/mail/caught/{name}", f"/mail/caught/{name}/raw", f"/mail/caught/{name}/html"):
        assert visit.http.get(path, headers=OURS).status_code == 404


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff" * 1000, b"\r\n\r\n\x00", b"Subject: =?x?q?=ff?=\r\n\r\n", b"Subject: " + b"<" * 200_000,
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 100_000,
        b"Content-Type: text/html; charset=nothing\r\n\r\n<b>\xff", b"X: \"'<>&\r\n" * 20_000,
        b"Content-Type: text/plain\r\n\r\n" + b"<\"'&" * 100_000,
        b"Content-Type: message/rfc822\r\n\r\n" * 5_000,
        b"".join(b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(900)),
    ],
    ids=range(11),
)  # fmt: skip
def test_a_hostile_mail_harms_no_page(visit, storage, content):
    storage.write_bytes(f"mail/{NAME}", content)
    storage.write_bytes("mail/other.txt", b"not one of ours")
    assert len(visit.get("/mail/caught").encode()) < 60_000
    assert len(visit.get(f"/mail/caught/{NAME}").encode()) < 60_000
    visit.get(f"/mail/caught/{NAME}/html")


def test_mails_are_looked_at_in_a_browser(browser, dashboard, client, tmp_path):
    from axe_playwright_python.sync_playwright import Axe

    site = dashboard.app.site.state
    site.site = replace(site.site, api=ApiOptions(storage_url=str(tmp_path)))
    Storage(str(tmp_path)).write_bytes(f"mail/{NAME}", MAIL.encode())
    mails(client)
    mails(client, LATER, 2, "example.net")
    for number, name in enumerate(("ada@example.org", "spam.example", f"{'long' * 12}@example.org")):
        Suppressions(client).add(name, f"{EVIL} {number}", "operator", 86_400 * number or None)
    rows = [{"email": f"user{number}@example.org"} for number in range(120)]
    made = send_bulk(rows, "Spring is here", "Soon more.", key="k", client=Client(client))
    paths = ("/mails?state=all", "/mails", "/mail/suppressed", "/mail/sends", f"/mail/sends/{made.id}",
             "/mail/caught", f"/mail/caught/{NAME}")  # fmt: skip
    for viewport, scheme in ((WIDE, "light"), (WIDE, "dark"), (NARROW, "light"), (NARROW, "dark")):
        with opened(browser, viewport, scheme) as (page, faults):
            faults.allowed += ["evil.example", "Content Security Policy", "sandboxed"]
            for number, path in enumerate(paths):
                page.goto(dashboard.address + path)
                shoot(page, f"mail-{number}-{viewport['width']}-{scheme}")
                assert sideways(page) == 0, path
                assert not page.evaluate("window.pwned || 0")
                told = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]})
                assert not told.response["violations"], (path, told.response["violations"])
    with opened(browser) as (page, faults):
        faults.allowed += ["evil.example", "Content Security Policy", "sandboxed"]
        page.goto(f"{dashboard.address}/mail/caught/{NAME}")
        frame = page.frame_locator("iframe.mail")
        frame.get_by_text("Hello Ada").wait_for()
        assert frame.locator("img").first.evaluate("each => each.naturalWidth") == 1
        page.goto(f"{dashboard.address}/mails")
        page.get_by_role("checkbox", name="Select user1@example.org").check()
        page.get_by_role("button", name="were sent", exact=True).click()
        page.get_by_text("1 mail is resolved").wait_for()
    assert unknown(client) == ["user0@example.org", "user2@example.org"]
