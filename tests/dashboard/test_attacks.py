"""Attacks on every address that the site has: a new page is attacked without a line here."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import pytest
from redis import Redis

from packmule.coordination.redis.replies import pipelined
from packmule.coordination.sessions.tokens import Tokens
from packmule.dashboard.guard import PROVEN, PUBLIC
from packmule.dashboard.viewer import Role
from packmule.jobs.read_tokens import REALM
from packmule.tests.dashboard import addresses
from packmule.tests.dashboard.addresses import Address
from packmule.tests.dashboard.asking import OWN, Answer, always, ask, guarded
from packmule.tests.hostile import FINGERPRINT, NASTY, Hostile

MARKUP = "</pre></textarea></title></script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
EVIL = f"{MARKUP}\"'><b id=pwned>`${{pwned()}}{{{{7*7}}}}<%=pwned()%>\\u003cb>{NASTY}".replace("\n", "")
"""No address holds a line feed."""

HTML = {"Accept": "text/html"}
FORM, PARTS = "application/x-www-form-urlencoded", "multipart/form-data"

MAY_ALL_DO = ("/logout", "/account")
"""What each user may do to her own sessions and password."""

TALKS_TO_NOBODY = {"/live": "a stream", "/api/v1/events": "a stream"}


@pytest.fixture
def hostile(client: Redis) -> Hostile:
    """The shared server, with records of every kind whose texts are hostile."""
    found = Hostile(client, EVIL)
    found.write()
    return found


def values(hostile: Hostile) -> list[dict[str, str]]:
    """What parameters of paths may be, so that their pages have something to show."""
    common = {
        "name": hostile.queue,
        "queue_name": hostile.queue,
        "queue": hostile.queue,
        "registry_name": "queued",
        "instance_number": "0",
        "per_page": "8",
        "page": "1",
        "order": "asc",
        "fingerprint": FINGERPRINT,
        "mark": "resolved",
        "act": "pause",
        "": "x",
    }
    ids = [f"{status} {hostile.job}" for status in ("queued", "started", "failed", "finished")]
    found = [common | {"id": id, "job_id": id, "job": id} for id in ids]
    names = [
        hostile.worker,
        f"sound {EVIL}",
        f"schedule {EVIL}",
        f"batch {EVIL}",
        f"slot {EVIL}",
        f"lock {EVIL}",
    ]
    return [*found, *(common | {"id": name, "job_id": name, "name": name} for name in names)]


def dumped(client: Redis) -> dict[bytes, Any]:
    """Everything in Redis, but for what counts requests."""
    uncounted = (b"pm:rate:api", b"pm:limit:", b"pm:token", b"pm:bucket")
    names = sorted(key for key in client.scan_iter(count=1000) if not key.startswith(uncounted))
    return dict(zip(names, pipelined(client, [("DUMP", name) for name in names], None), strict=True))


def differences(before: dict[bytes, Any], after: dict[bytes, Any]) -> list[bytes]:
    return sorted(key for key in {*before, *after} if before.get(key) != after.get(key))


def streams(address: Address) -> bool:
    """Whether an answer goes on for ever."""
    return address.path in TALKS_TO_NOBODY or address.path.endswith(("/stream", "/events", "/wait", "/live"))


def test_each_handler_that_changes_something_says_which_role_it_needs(client):
    for each in addresses.of_pages(guarded(client)):
        if each.changes and not each.path.startswith(("/login", *PROVEN, *MAY_ALL_DO)):
            assert each.role in (Role.OPERATOR, Role.ADMIN), str(each)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {},
    ],
    ids=["origin", "cross-site", "same-site", "nothing"],
)
def test_no_other_site_changes_anything_anywhere(client, hostile, headers):
    site, before = guarded(client, identify=always(Role.ADMIN)), dumped(client)
    asked = 0
    for each in addresses.everywhere(site):
        if each.changes and not each.path.startswith(PROVEN):
            for filling in values(hostile)[:5]:
                sent = headers | {"Cookie": "packmule=x", "Content-Type": FORM}
                answer = ask(site, each.filled(filling), each.method, headers=sent, body=b"act=retry&yes=1")
                assert answer.status == 403, str(each)
                asked += 1
    assert asked > 100
    assert differences(before, dumped(client)) == []


def test_nobody_who_has_not_logged_in_sees_or_changes_anything(client, hostile):
    site, before = guarded(client, identify=lambda request: None), dumped(client)
    for each in addresses.everywhere(site):
        if each.path.startswith((*PUBLIC, *PROVEN, "/api/v1/openapi.json")):
            continue
        answer = ask(site, each.filled(values(hostile)[0]), each.method, headers=OWN)
        assert answer.status == 401, str(each)
        assert "pwned" not in answer.text
    assert differences(before, dumped(client)) == []


def test_viewers_change_nothing(client, hostile):
    """Whatever they send; their own sessions are apart."""
    site, before = guarded(client, identify=always(Role.VIEWER)), dumped(client)
    for each in addresses.everywhere(site):
        if each.changes and not each.path.startswith(("/login", *PROVEN, *MAY_ALL_DO)):
            for filling in ({"": "x", "instance_number": "0"}, *values(hostile)[:5]):
                answer = ask(site, each.filled(filling), each.method, headers=OWN)
                refusals = (401, 403, 405) if len(filling) == 2 else (401, 403, 404, 405)
                assert answer.status in refusals, f"{each}: {answer.status} {answer.text[:200]}"
    assert differences(before, dumped(client)) == []


def test_no_get_changes_anything(client, hostile):
    site = guarded(client, identify=always(Role.ADMIN))
    token = Tokens(client, REALM).add("reader", ["read", "payloads", "admin"])
    bearer, before = {"Authorization": f"Bearer {token}"}, dumped(client)
    for each in addresses.everywhere(site):
        if each.changes or streams(each):
            continue
        is_api = each.path.startswith("/api")
        for path in dict.fromkeys(each.filled(filling) for filling in values(hostile)):
            for query in ("",) if is_api else ("", "?region=main"):
                answer = ask(site, path + query, each.method, headers=bearer if is_api else HTML)
                assert answer.status < 500, f"{each}: {answer.text[-2000:]}"
        assert differences(before, dumped(client)) == [], str(each)


UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\ufeff\U000e0000-\U000e0fff]"
)
SHOWN = ("title", "alt", "aria-label", "placeholder")
LINKS = ("href", "src", "action", "formaction")
FOREIGN = re.compile(r"(?!https://github\.com/|http://python-rq\.org)(javascript|data:(?!image/)|//|https?:)")


class _Page(HTMLParser):
    """What is wrong with a page: markup that somebody else wrote, or text that nobody sees."""

    def __init__(self, may_have_styles: bool) -> None:
        super().__init__()
        self.refused = ("srcdoc",) if may_have_styles else ("srcdoc", "style")
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("object", "embed", "base") or (tag == "script" and not given.get("nonce")):
            self.faults.append(f"<{tag} {given}>")
        for name, value in given.items():
            is_foreign = name in LINKS and FOREIGN.match(value.strip().lower())
            if (
                name.startswith("on")
                or name in self.refused
                or is_foreign
                or (name, value) == ("id", "pwned")
            ):
                self.faults.append(f"<{tag} {name}={value}>")
            if name in SHOWN:
                self.handle_data(value)

    def handle_data(self, data: str) -> None:
        if UNSEEN.search(data) or "49}}" in data:
            self.faults.append(f"{data[:300]!r}")


def faults_of(answer: Answer, where: str) -> list[str]:
    page = _Page(may_have_styles=where.startswith("/rq"))
    page.feed(answer.text)
    return page.faults


def test_what_others_wrote_is_shown_as_text_on_every_page(client, hostile):
    site = guarded(client, identify=always(Role.ADMIN))
    shown, faults = 0, list[str]()
    for each in addresses.everywhere(site):
        if each.method != "GET" or streams(each) or each.path.startswith("/api"):
            continue
        for filling in values(hostile):
            path = each.filled(filling)
            answer = ask(site, path, headers=HTML)
            if answer.headers.get("content-type", "").startswith("text/html"):
                faults += [f"{each}: {fault}" for fault in faults_of(answer, path)]
                shown += "pwned" in answer.text
    assert sorted(set(faults)) == []
    assert shown > 20


PARAMETERS = (
    *("q", "queue", "status", "name", "id", "cursor", "after", "before", "page", "per_page", "limit", "n"),
    *("since", "until", "sort", "order", "region", "tab", "on", "error", "state", "who", "what", "level"),
    *("lines", "group", "copy", "from", "next", "act", "args", "message", "job", "view", "hours", "days"),
)
NUMBERS = ("", "0", "-1", "1e9", "NaN", "Infinity", "9" * 300, "\x00", "\xff")
TEXTS = (
    *(EVIL, "9" * 5000, "x" * 300, "../../etc/passwd", "a\r\nSet-Cookie: x=1", "name:" * 200),
    *("args.a:" + "[" * 500, "*?[a-z]", "since:" + "9" * 300, "//evil.example", "\\evil.example"),
)


def check_answer(answer: Answer, where: str) -> None:
    assert answer.status < 500, f"{where[:300]}\n{answer.text[-2000:]}"
    assert "x=1" not in answer.headers.get("set-cookie", "")
    assert re.match(r"/(?![/\\])", answer.headers.get("location", "/")), where


def test_no_value_in_an_address_breaks_a_page(client, hostile):
    site = guarded(client, identify=always(Role.ADMIN))
    for each in addresses.of_pages(site):
        if each.method == "GET" and not streams(each):
            path = each.filled(values(hostile)[0])
            asked = [(PARAMETERS, value) for value in NUMBERS]
            asked += [((name,), value) for name in PARAMETERS for value in ("9" * 300, "\xff")]
            for names, value in asked:
                query = "&".join(f"{name}={quote(value.encode('latin-1'))}" for name in names)
                check_answer(ask(site, f"{path}?{query}", headers=HTML), f"{path}?{query}")
            for value in TEXTS:
                for query in (
                    f"q={quote(value)}",
                    "&".join(f"{name}={quote(value[:100])}" for name in PARAMETERS),
                ):
                    check_answer(ask(site, f"{path}?{query}", headers=HTML), f"{path}?{query}")
            for value in (*NUMBERS, *TEXTS):
                path = each.filled(dict.fromkeys(each.parameters, value or "x"))
                check_answer(ask(site, path, headers=HTML), path)


def test_no_form_breaks_a_handler(client, hostile):
    """An operator's browser may send anything; what is refused is refused in words."""
    site = guarded(client, identify=always(Role.ADMIN))
    bodies: list[tuple[str, bytes]] = [
        (FORM, b""),
        (
            "application/x-www-form-urlencoded",
            b"&".join(f"{name}={quote(EVIL)}".encode() for name in PARAMETERS),
        ),
        (
            "application/x-www-form-urlencoded",
            b"&".join(f"{name}={'9' * 300}".encode() for name in PARAMETERS),
        ),
        ("application/x-www-form-urlencoded", b"a=1&" * 2000),
        ("application/x-www-form-urlencoded", b"\xff\x00=%00%ff&act=%ff&id=%00"),
        ("application/json", b"[" * 100_000),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\nc\r\n--x--",
        ),
        (PARTS, b"--x"),
        (f"{PARTS}; boundary=x", b"garbage"),
        ("text/plain", b"a=b"),
    ]
    for each in addresses.of_pages(site):
        if each.changes:
            for kind, body in bodies:
                for filling in (values(hostile)[0], dict.fromkeys(each.parameters, "x" * 300)):
                    sent = OWN | {"Content-Type": kind, "Content-Length": str(len(body))}
                    answer = ask(site, each.filled(filling), each.method, headers=sent, body=body)
                    assert answer.status < 500, f"{each} {kind} {body[:40]!r}: {answer.text[-2000:]}"
