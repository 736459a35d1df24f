"""The guard: what it lets through to the site, for whom, and what it adds to answers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import anyio.to_thread
import pytest
from redis import Redis
from redis import exceptions as redis_errors
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from packmule.dashboard.guarding import bounds, streams
from packmule.dashboard.guarding.forwarding import forwarded
from packmule.dashboard.guarding.rules import Rules
from packmule.dashboard.viewer import Role, Viewer
from packmule.tests.dashboard.asking import DEADLINE, OWN, Answer, always, ask, asked, guarded, run

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def facts(request: Request) -> Response:
    """What the site sees of a request."""
    viewer = request.state.viewer
    return JSONResponse(
        {
            "client": request.client.host if request.client else None,
            "scheme": request.url.scheme,
            "host": request.headers.get("host"),
            "path": request.url.path,
            "viewer": viewer and viewer.name,
            "peer": request.state.peer,
            "headers": sorted(request.headers.keys()),
        }
    )


async def size(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


FACTS = Route("/facts", facts, methods=["GET", "POST"])
API_FACTS = Route("/api/test/facts", facts, methods=["GET", "POST"])
SIZE = Route("/size", size, methods=["POST"])


def seen(client: Redis, path: str = "/facts", **more) -> dict:
    rules = more.pop("rules", None)
    answer = ask(guarded(client, FACTS, API_FACTS, identify=always(), rules=rules), path, **more)
    assert answer.status == 200, answer.text
    return json.loads(answer.body)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PURGE"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://jobs.example.com"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://jobs.example.com"},
        {"Sec-Fetch-Site": ""},
        {"Sec-Fetch-Site": "Same-Origin"},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://jobs.example.com.evil.example"},
        {"Origin": "http://jobs.example.com:8080"},
        {"Origin": "http://jobs.example.com@evil.example"},
        {"Origin": "file://jobs.example.com"},
        {"Origin": "jobs.example.com"},
        {"Origin": ""},
        {"Referer": "http://jobs.example.com/"},
        {"Authorization": "Bearer x"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
    ],
)
def test_a_change_that_no_page_of_the_site_sent_is_refused(client, method, headers):
    called = []
    route = Route("/act", lambda request: called.append(request) or Response(), methods=[method])
    answer = ask(guarded(client, route, identify=always()), "/act", method, headers=headers)
    assert answer.status == (400 if "Host" in headers else 403)
    assert called == []


@pytest.mark.parametrize(
    ("headers", "more"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, {}),
        ({"Sec-Fetch-Site": "none"}, {}),
        ({"Origin": "http://jobs.example.com"}, {}),
        ({"Origin": "http://Jobs.Example.com:80"}, {}),
        ({"Origin": "https://jobs.example.com"}, {}),  # TLS ended at a proxy that isn't trusted to say so
        ({"Origin": "https://jobs.example.com"}, {"scheme": "https"}),
        ({"Origin": "http://[::1]:9181"}, {"host": "[::1]:9181"}),
    ],
)
def test_a_change_that_a_page_of_the_site_sent_goes_through(client, headers, more):
    assert ask(guarded(client, FACTS), "/facts", "POST", headers=headers, **more).status == 200


def test_a_page_without_tls_can_change_nothing_on_the_site_with_it(client):
    app = guarded(client, FACTS)
    headers = {"Origin": "http://jobs.example.com"}
    assert ask(app, "/facts", "POST", headers=headers, scheme="https").status == 403


def test_another_site_may_link_here_and_embed_nothing(client):
    app = guarded(client, FACTS)
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert ask(app, "/facts", headers=link).status == 200
    for dest, mode in (
        ("image", "no-cors"),
        ("iframe", "navigate"),
        ("script", "no-cors"),
        ("empty", "cors"),
    ):
        embed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
        assert ask(app, "/facts", headers=embed).status == 403, dest


def test_somebody_who_has_not_logged_in_gets_to_the_login_and_back(client):
    app = guarded(client, FACTS, identify=lambda request: None)
    answer = ask(app, "/facts?q=a%20b&c=//evil", headers=HTML)
    assert answer.status == 303
    assert answer.headers["location"] == "/login?next=%2Ffacts%3Fq%3Da%2520b%26c%3D%2F%2Fevil"
    assert ask(app, "/facts", headers={"Accept": "text/event-stream"}).status == 401
    assert ask(app, "/facts", "POST", headers=OWN).status == 401
    assert ask(app, "/rq/0/data/queues.json").status == 401
    assert ask(app, "/nowhere").status == 401
    answer = ask(app, "/a%0D%0ASet-Cookie:%20x=1%E2%80%A8%C3%A9?b", headers=HTML)
    assert (
        answer.headers["location"]
        == "/login?next=%2Fa%250D%250ASet-Cookie%253A%2520x%253D1%25E2%2580%25A8%25C3%25A9%3Fb"
    )


@pytest.mark.parametrize("path", ["/static/packmule.css", "/health", "/login/unknown"])
def test_some_pages_are_public(client, path):
    def nobody(request: Request) -> Viewer | None:
        assert path.startswith("/login"), "there is nothing to ask"

    assert ask(guarded(client, identify=nobody), path).status in (200, 404)


@pytest.mark.parametrize(
    "path", ["/loginx", "/health/x/../../facts", "//facts", "/static/../facts", "/Login"]
)
def test_what_only_looks_public_is_not(client, path):
    answer = ask(guarded(client, FACTS, identify=lambda request: None), path)
    assert answer.status in (401, 404)
    assert b"headers" not in answer.body


def test_a_token_is_judged_without_cookies_and_cookies_without_a_token_as_on_pages(client):
    asked_for = []

    def identify(request: Request) -> Viewer | None:
        asked_for.append(request.url.path)
        return Viewer("ada", Role.ADMIN)

    app = guarded(client, API_FACTS, identify=identify)
    both = {"Authorization": "Bearer x", "Cookie": "session=1"}
    answer = ask(app, "/api/test/facts", "POST", headers=both)
    assert (answer.status, b"cookie" in answer.body, b'"viewer":null' in answer.body) == (200, False, True)
    assert ask(app, "/api/test/facts", "POST").status == 200  # without either: the API answers that
    assert asked_for == []
    assert ask(app, "/api/test/facts", "POST", headers={"Cookie": "session=1"}).status == 403
    assert (
        ask(
            app, "/api/test/facts", "POST", headers={"Cookie": "session=1", "Sec-Fetch-Site": "cross-site"}
        ).status
        == 403
    )
    assert asked_for == []
    answer = ask(app, "/api/test/facts", "POST", headers={"Cookie": "session=1"} | OWN)
    assert b'"viewer":"ada"' in answer.body


@pytest.mark.parametrize(
    ("host", "address", "hosts", "status"),
    [
        ("localhost:9181", "127.0.0.1", (), 200),
        ("127.0.0.1:9181", "127.0.0.1", (), 200),
        ("[::1]:9181", "::1", (), 200),
        ("jobs.localhost", "127.0.0.1", (), 200),
        ("rebound.example", "127.0.0.1", (), 421),
        ("rebound.example:9181", "::1", (), 421),
        ("127.0.0.1.rebound.example", "127.0.0.1", (), 421),
        ("localhost.rebound.example", "127.0.0.1", (), 421),
        ("192.0.2.5", "127.0.0.1", (), 421),
        ("rebound.example", "192.0.2.1", (), 200),
        ("rebound.example", "192.0.2.1", ("jobs.example.com",), 421),
        ("jobs.example.com.rebound.example", "192.0.2.1", ("jobs.example.com",), 421),
        ("sub.jobs.example.com", "192.0.2.1", ("jobs.example.com",), 421),
        ("JOBS.example.com.:8080", "192.0.2.1", ("jobs.example.com",), 200),
        ("jobs.example.com", "127.0.0.1", ("jobs.example.com",), 200),
        ("localhost", "192.0.2.1", ("jobs.example.com",), 200),
        ("[::ffff:1]", "192.0.2.1", ("::ffff:1",), 200),
        (None, "192.0.2.1", (), 400),
        ("", "192.0.2.1", (), 400),
        ("a b", "192.0.2.1", (), 400),
        ("a/b", "192.0.2.1", (), 400),
        ("a@b", "192.0.2.1", (), 400),
        ("a:b", "192.0.2.1", (), 400),
        ("a\r\nb", "192.0.2.1", (), 400),
        ("x" * 300, "192.0.2.1", (), 400),
    ],
)
def test_the_site_answers_only_to_its_own_names(client, host, address, hosts, status):
    app = guarded(client, FACTS, rules=Rules(hosts=hosts))
    assert ask(app, "/facts", host=host, server=(address, 9181)).status == status
    assert ask(app, "/health", host=host, server=(address, 9181)).status == 200


def test_two_names_at_once_are_refused(client):
    assert ask(guarded(client, FACTS), "/facts", headers=[("Host", "localhost")]).status == 400


def test_only_trusted_proxies_say_who_asks(client):
    told = {
        "X-Forwarded-For": "6.6.6.6, 198.51.100.9, 10.0.0.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "jobs.example.org",
        "X-Forwarded-User": "root",
        "Forwarded": "for=6.6.6.6",
        "X-Real-IP": "6.6.6.6",
        "X_Forwarded_For": "6.6.6.6",
    }
    rules = Rules(proxies=("10.0.0.0/8", "unix", "fd00::/8"))
    for peer in (("10.0.0.5", 1), ("::ffff:10.0.0.5", 1), ("fd00::1", 1), None, ("", 0)):
        facts = seen(client, headers=told, peer=peer, rules=rules)
        assert (facts["client"], facts["scheme"], facts["host"]) == (
            "198.51.100.9",
            "https",
            "jobs.example.org",
        )
        assert facts["peer"] == (peer[0] if peer and peer[0] else "unix")
        assert facts["headers"] == ["host"]
    for peer, others in ((("10.0.0.5", 1), Rules()), (("192.0.2.7", 1), rules), (("11.0.0.1", 1), rules)):
        facts = seen(client, headers=told, peer=peer, rules=others)
        assert (facts["client"], facts["scheme"], facts["host"]) == (peer[0], "http", "jobs.example.com")
        assert (facts["peer"], facts["headers"]) == ("", ["host"])


@pytest.mark.parametrize(
    ("said", "client_address"),
    [
        ("", "10.0.0.5"),
        ("unknown", "10.0.0.5"),
        ("198.51.100.9:4711", "198.51.100.9"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("evil, 10.0.0.6", "10.0.0.6"),
        ("198.51.100.9\x1b[2J", "10.0.0.5"),
        (", ".join(["198.51.100.9"] * 1400), "198.51.100.9"),
    ],
)
def test_a_forwarded_address_is_one_or_is_ignored(client, said, client_address):
    rules = Rules(proxies=("10.0.0.0/8",))
    headers = {"X-Forwarded-For": said}
    assert seen(client, headers=headers, peer=("10.0.0.5", 1), rules=rules)["client"] == client_address


def test_a_prefix_may_be_cut_off_by_the_proxy_or_not(client):
    rules = Rules(prefix="/tools/packmule")
    for path in ("/facts", "/tools/packmule/facts"):
        assert seen(client, path, rules=rules)["path"] == "/tools/packmule/facts"
    app = guarded(client, FACTS, identify=lambda request: None, rules=rules)
    assert (
        ask(app, "/facts", headers=HTML).headers["location"].startswith("/tools/packmule/login?next=%2Ftools")
    )
    app = guarded(client, FACTS, rules=rules)
    for path in ("/tools/packmule", "/tools/packmule/", "/"):
        page = ask(app, path)
        assert page.status == 200
        assert 'href="/tools/packmule/static/' in page.text
        assert 'href="/static/' not in page.text
    assert ask(app, "/tools/packmulex").status == 404


def test_pages_carry_what_browsers_are_to_keep_to(client):
    app = guarded(client)
    page, again = ask(app, "/"), ask(app, "/")
    policy = page.headers["content-security-policy"]
    (nonce,) = re.findall(r"script-src 'nonce-([A-Za-z0-9_-]{22})';", policy)
    assert f'nonce="{nonce}"' in page.text
    assert nonce not in again.text
    assert "unsafe" not in policy
    for part in ("default-src 'none'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert part in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["cross-origin-opener-policy"] == "same-origin"
    assert page.headers["cross-origin-resource-policy"] == "same-origin"
    assert page.headers["referrer-policy"] == "same-origin"
    assert "strict-transport-security" not in page.headers
    assert "strict-transport-security" in ask(app, "/", scheme="https").headers
    for refused in (ask(app, "/nowhere"), ask(app, "/", host="a b"), ask(app, "/", "POST")):
        assert refused.status >= 400
        assert refused.headers["content-security-policy"]
        assert refused.headers["cache-control"] == "no-store"
    assert "no-store" not in ask(app, "/static/packmule.css").headers.get("cache-control", "")


def test_a_body_may_be_a_megabyte_and_no_more(client, monkeypatch):
    app = guarded(client, SIZE)
    most = bounds.MAX_BODY
    assert ask(app, "/size", "POST", headers=OWN, body=b"x" * most).text == str(most)

    async def ten_times_that() -> AsyncIterator[bytes]:
        for _ in range(160):
            sent.append(1)
            yield b"x" * 65536

    sent: list[int] = []
    answer = ask(app, "/size", "POST", headers=OWN, body=ten_times_that())
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert len(sent) < 20
    for length in (str(most + 1), "9" * 14, "9" * 5000):
        sent.clear()
        headers = OWN | {"Content-Length": length}
        assert ask(app, "/size", "POST", headers=headers, body=ten_times_that()).status in (413, 431)
        assert sent == []


async def drop_by_drop() -> AsyncIterator[bytes]:
    while True:
        yield b"x"
        await asyncio.sleep(0.01)


async def nothing_more() -> AsyncIterator[bytes]:
    yield b"x"
    await asyncio.sleep(DEADLINE)


@pytest.mark.parametrize("body", [drop_by_drop, nothing_more])
@pytest.mark.parametrize("path", ["/size", "/api/test/size"])
def test_a_body_that_trickles_is_given_up(client, monkeypatch, body, path):
    monkeypatch.setattr(bounds, "BODY_TIMEOUT", 0.2)
    app = guarded(client, SIZE, Route("/api/test/size", size, methods=["POST"]))
    answer = ask(app, path, "POST", headers=OWN, body=body())
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert app.running == 0


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/" + "a" * 9000, [], 414),
        ("/?" + "a" * 9000, [], 414),
        ("/?a=é", [], 400),
        ("/", [("X-Long", "a" * 40_000)], 431),
        ("/", [(f"X-{number}", "a") for number in range(200)], 431),
        ("/", [("Cookie", "a=b; " * 5000)], 200),
    ],
)
def test_an_address_and_headers_have_bounds(client, path, headers, status):
    assert ask(guarded(client), path, headers=headers).status == status


def test_more_requests_at_once_than_the_bound_are_refused(client, monkeypatch):
    monkeypatch.setattr("packmule.dashboard.guard.MOST_REQUESTS", 3)

    async def scenario() -> None:
        begun, go_on = asyncio.Semaphore(0), asyncio.Event()

        async def wait(request: Request) -> Response:
            begun.release()
            await go_on.wait()
            return Response("done")

        app = guarded(client, Route("/wait", wait))
        async with asyncio.TaskGroup() as running:
            waiting = [running.create_task(asked(app, "/wait")) for _ in range(3)]
            for _ in waiting:
                await begun.acquire()
            refused = await asked(app, "/wait")
            assert (refused.status, refused.headers["retry-after"]) == (503, "10")
            go_on.set()
        assert [each.result().status for each in waiting] == [200] * 3
        assert (await asked(app, "/wait")).status == 200
        assert app.running == 0

    run(scenario())


async def stream(request: Request) -> Response:
    async def events() -> AsyncIterator[bytes]:
        yield b"data: begun\n\n"
        await asyncio.sleep(DEADLINE)

    return StreamingResponse(events(), media_type="text/event-stream")


STREAM = Route("/stream", stream)


async def until(condition, what: str) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.01)


def test_more_streams_than_the_bound_are_refused_and_each_that_leaves_makes_room(client, monkeypatch):
    monkeypatch.setattr(streams, "MOST", 5)
    monkeypatch.setattr(streams, "MOST_EACH", 3)

    async def scenario() -> None:
        app = guarded(
            client,
            STREAM,
            identify=lambda request: Viewer(request.headers["x-name"], Role.VIEWER, session="s"),
        )
        left = asyncio.Event()
        async with asyncio.TaskGroup() as running:
            open_now = []

            async def begin(name: str) -> Answer:
                answer = Answer()
                running.create_task(asked(app, "/stream", headers={"X-Name": name}, answer=answer, stop=left))
                await until(lambda: answer.body, "an answer")
                open_now.append(answer)
                return answer

            statuses = [
                (await begin(name)).status for name in ("ada", "ada", "ada", "ada", "bob", "bob", "cyd")
            ]
            assert statuses == [200, 200, 200, 503, 200, 200, 503]
            assert app.streams.by_viewer.total() == 5
            assert app.running == 0, "streams are counted apart"
            left.set()
        assert app.streams.by_viewer == {}

    run(scenario())


@pytest.mark.parametrize("after", [None, Viewer("ada", Role.VIEWER, False, "s1"), Viewer("ada", Role.ADMIN)])
def test_a_stream_ends_soon_after_its_session_or_the_rights_do(client, monkeypatch, after):
    monkeypatch.setattr(streams, "LOOK_INTERVAL", 0.05)
    now: list[Viewer | None] = [Viewer("ada", Role.ADMIN, True, "s1")]

    async def scenario() -> None:
        app, answer = guarded(client, STREAM, identify=lambda request: now[0]), Answer()
        running = asyncio.create_task(asked(app, "/stream", answer=answer))
        await until(lambda: answer.body, "the stream")
        now[0] = after
        await running
        assert (answer.body, answer.ended) == (b"data: begun\n\n", True)
        assert app.streams.by_viewer == {}

    run(scenario())


def test_logging_out_ends_streams_at_once_and_only_those_of_the_session(client):
    """The interval is longer than the test's deadline."""
    ended: set[str] = set()

    def identify(request: Request) -> Viewer | None:
        session = request.headers["x-session"]
        return None if session in ended else Viewer("ada", Role.ADMIN, session=session)

    async def scenario() -> None:
        def log_out(request: Request) -> Response:
            ended.add(request.headers["x-session"])
            return Response()

        app = guarded(client, STREAM, Route("/out", log_out, methods=["POST"]), identify=identify)
        streams_of = {}
        for session in ("s1", "s2"):
            answer = Answer()
            task = asyncio.create_task(asked(app, "/stream", headers={"X-Session": session}, answer=answer))
            await until(lambda answer=answer: answer.body, "the stream")
            streams_of[session] = task
        await asked(app, "/out", "POST", headers=OWN | {"X-Session": "s1"})
        await streams_of["s1"]
        assert not streams_of["s2"].done()
        streams_of["s2"].cancel()
        await asyncio.wait(streams_of.values())
        assert app.streams.by_viewer == {}

    monkey = pytest.MonkeyPatch()
    with monkey.context() as patched:
        patched.setattr(streams, "LOOK_INTERVAL", 10 * DEADLINE)
        run(scenario())


def test_a_stream_goes_on_while_redis_is_away(client, monkeypatch, caplog):
    monkeypatch.setattr(streams, "LOOK_INTERVAL", 0.02)
    away: list[int] = []

    def identify(request: Request) -> Viewer | None:
        if app.streams.by_viewer:
            away.append(1)
            raise redis_errors.ConnectionError("away\x1b[2J")
        return Viewer("ada", Role.ADMIN, session="s1")

    app = guarded(client, STREAM, identify=identify)

    async def scenario() -> None:
        answer = Answer()
        running = asyncio.create_task(asked(app, "/stream", answer=answer))
        await until(lambda: len(away) > 3, "looks at the session")
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])

    run(scenario())
    assert "\x1b" not in caplog.text


def test_while_redis_is_away_pages_say_so_and_recover(client):
    broken = [True]

    def identify(request: Request) -> Viewer | None:
        if broken[0]:
            raise redis_errors.ConnectionError("redis://:s3cret@host")
        return Viewer("ada", Role.ADMIN)

    app = guarded(client, FACTS, identify=identify)
    for headers in (HTML, {}):
        answer = ask(app, "/facts", headers=headers)
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert "can't be reached" in answer.text.replace("&#39;", "'")
        assert "s3cret" not in answer.text
    broken[0] = False
    assert ask(app, "/facts").status == 200


def test_an_answer_that_breaks_off_does_not_look_whole(client, caplog):
    async def break_off(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            raise ValueError("x\nforged")

        return StreamingResponse(parts())

    answer = Answer()
    with pytest.raises(ConnectionAbortedError):
        run(asked(guarded(client, Route("/half", break_off)), "/half", answer=answer))
    assert (answer.body, answer.ended) == (b"half", False)
    assert "\n  ValueError: x\n  forged" in caplog.text


def test_a_websocket_is_closed(client):
    async def scenario() -> None:
        sent = []

        async def send(event) -> None:
            sent.append(event)

        await guarded(client)({"type": "websocket", "path": "/"}, None, send)
        assert sent == [{"type": "websocket.close", "code": 1008}]

    run(scenario())


def test_what_others_do_at_once_stays_apart(client):
    """One exchange's viewer, nonce and counts are no other's."""

    def identify(request: Request) -> Viewer | None:
        return Viewer(request.headers["x-name"], Role.VIEWER)

    async def scenario() -> None:
        app = guarded(client, FACTS, identify=identify)
        anyio.to_thread.current_default_thread_limiter().total_tokens = 20
        names = [f"user-{number}" for number in range(100)]
        answers = await asyncio.gather(*(asked(app, "/facts", headers={"X-Name": name}) for name in names))
        assert [f'"viewer":"{name}"' in each.text for name, each in zip(names, answers, strict=True)] == [
            True
        ] * 100
        assert app.running == 0

    run(scenario())


def test_only_the_guard_sees_the_header_that_names_users():
    for peer in ("10.0.0.1", "192.0.2.7"):
        scope = {"client": (peer, 1), "headers": [(b"remote-user", b"ada"), (b"accept", b"*/*")]}
        seen = forwarded(scope, Rules(proxies=("10.0.0.0/8",), user_header="Remote-User"))
        assert seen["headers"] == [(b"accept", b"*/*")]
        assert seen["state"]["named"] == (["ada"] if peer == "10.0.0.1" else [])
