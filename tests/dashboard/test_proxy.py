"""The dashboard behind real proxies, by the files of its page: TLS, a prefix, streams, whose word counts."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.observe import audit
from packmule.tests.command_line import DEADLINE, CommandLine, environment_in, free_port, until
from packmule.tests.docs.pages import blocks

DOCS = Path(__file__).parents[2] / "docs"
NAME = "jobs.example.com"
SAME = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
SPOOFED = {"X-Forwarded-User": "ada", "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "evil.example"}


@pytest.fixture
def packmule(tmp_path: Path, server: EmbeddedServer, client: Redis) -> CommandLine:
    settings = {
        "PACKMULE_HOSTS": NAME,
        "PACKMULE_TRUSTED_PROXY": "127.0.0.1",
        "PACKMULE_PREFIX": "/packmule",
        "PACKMULE_USER_HEADER": "X-Forwarded-User",
    }
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, **settings))


def nginx(home: Path, port: int, upstream: int) -> list[str]:
    """The command that serves the page's file on `port`."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}",
         "-keyout", str(home / "key"), "-out", str(home / "pem")],
        check=True, capture_output=True, timeout=DEADLINE,
    )  # fmt: skip
    text = (DOCS / "nginx.conf").read_text()
    for old, new in (
        ("listen 80;", f"listen 127.0.0.1:{free_port()};"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        (f"/etc/ssl/{NAME}.pem", str(home / "pem")),
        (f"/etc/ssl/{NAME}.key", str(home / "key")),
        ("127.0.0.1:9181", f"127.0.0.1:{upstream}"),
    ):
        assert old in text
        text = text.replace(old, new)
    folders = "".join(
        f"{kind}_temp_path {home}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    who = "user root;" if os.geteuid() == 0 else ""
    (home / "nginx.conf").write_text(
        f"{who}\ndaemon off;\npid {home}/pid;\nerror_log {home}/error.log;\nworker_processes 1;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{folders}{text}}}\n"
    )
    return ["nginx", "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")]


def caddy(home: Path, port: int, upstream: int) -> list[str]:
    (text,) = blocks("proxy", "caddyfile")
    text = text.replace("127.0.0.1:9181", f"127.0.0.1:{upstream}")
    text = text.replace(f"{NAME} {{", f"{NAME} {{\n    tls internal")
    head = f"{{\nadmin off\nhttps_port {port}\nhttp_port {free_port()}\nskip_install_trust\n"
    (home / "Caddyfile").write_text(f"{head}storage file_system {home}/caddy\n}}\n{text}")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(home / "Caddyfile")]


@contextmanager
def proxied(home: Path, kind: str, upstream: int) -> Iterator[httpx.Client]:
    """A client of the proxy, which believes that the proxy is the public name."""
    if shutil.which(kind) is None:
        pytest.skip(f"needs {kind}: install the package {kind}")
    port = free_port()
    command = (nginx if kind == "nginx" else caddy)(home, port, upstream)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    log = home / "proxy.log"
    with log.open("w") as said:
        process = subprocess.Popen(command, cwd=home, stdout=said, stderr=said)
    try:
        extensions = {"sni_hostname": NAME}
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusting, timeout=DEADLINE) as http:
            http.headers.update({"Host": f"{NAME}:{port}", **SAME})
            ask = http.send
            http.send = lambda request, **more: ask(_named(request, extensions), **more)  # type: ignore[method-assign]

            def answers() -> bool:
                assert process.poll() is None, log.read_text()
                try:
                    return http.get("/packmule/health").status_code == 200
                except httpx.TransportError:
                    return False

            until(answers, f"{kind} and the dashboard", log.read_text)
            yield http
    finally:
        process.terminate()
        process.wait(DEADLINE)


def _named(request: httpx.Request, extensions: dict[str, str]) -> httpx.Request:
    request.extensions = {**request.extensions, **extensions}
    return request


@pytest.mark.parametrize("kind", ["nginx", "caddy"])
def test_the_page_s_proxy_serves_the_dashboard(packmule: CommandLine, client: Redis, kind: str) -> None:
    packmule.output("user", "add", "ada", "--role", "admin", "--payloads", "--no-password")
    link = packmule.output("user", "link", "ada", "--url", f"https://{NAME}/packmule")
    token = packmule.output("token", "add", "shop", "--scope", "enqueue", "--scope", "read")
    upstream = free_port()
    with (
        packmule.started("dashboard", "--port", str(upstream)) as served,
        proxied(packmule.cwd, kind, upstream) as http,
    ):
        assert served.poll() is None
        assert http.get("/").headers["location"].endswith("/packmule/")
        refused = http.get("/packmule/jobs", headers=SPOOFED)
        assert (refused.status_code, refused.headers["location"]) == (
            303,
            "/packmule/login?next=%2Fpackmule%2Fjobs",
        )
        path = re.search(r"/packmule/login/link/[\w-]+", link)
        assert path, link
        entered = http.post(path[0], headers=SPOOFED)
        assert entered.status_code == 303, entered.text
        cookies = entered.headers.get_list("set-cookie")
        assert all("; secure" in each.lower() and "path=/packmule" in each.lower() for each in cookies), (
            cookies
        )
        http.headers["Cookie"] = "; ".join(each.partition(";")[0] for each in cookies)
        page = http.get("/packmule/jobs")
        assert page.status_code == 200
        assert 'href="/packmule/static/packmule.css' in page.text
        assert "max-age" in page.headers["strict-transport-security"]
        assert http.post("/packmule/logout", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        (login,) = [each for each in audit.read(client) if each.action == "login"]
        assert (login.who, login.where) == ("ada", "127.0.0.1"), "a client's own word was believed"
        with http.stream("GET", "/packmule/live", params={"on": "jobs"}) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "retry: 2000"
            while not next(lines).startswith("event: hello"):
                pass
            packmule.output("enqueue", "call", "shop.add", "a=1")
            while "jobs" not in next(lines):  # it comes although the stream goes on
                pass
        bearer = {"Authorization": f"Bearer {token}", "Cookie": ""}
        large = b"x" * 3_000_000
        stored = http.put("/packmule/api/v1/files/a.bin", content=large, headers=bearer)
        assert (stored.status_code, stored.json()["bytes"]) == (201, len(large))


def test_oauth2_proxy_s_part_of_the_page_works_as_far_as_it_is_ours(
    packmule: CommandLine, client: Redis
) -> None:
    """What oauth2-proxy sends: the user's address in the header, by a trusted address."""
    packmule.output("user", "add", "ada@example.com", "--role", "operator", "--payloads", "--no-password")
    port = free_port()
    packmule.environment["PACKMULE_USER_HEADER"] = "X-Forwarded-Email"
    with packmule.started("dashboard", "--port", str(port)) as served:
        assert served.stderr
        assert "dashboard is on" in served.stderr.readline()
        headers = {"Host": NAME, **SAME}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=DEADLINE) as http:
            for name, status in (
                ("ada@example.com", 200),
                ("Ada@example.com", 303),
                ("bob@example.com", 303),
            ):
                assert http.get("/packmule/jobs", headers={"X-Forwarded-Email": name}).status_code == status


def test_the_page_shows_a_part_of_the_file_for_nginx() -> None:
    (shown,) = blocks("proxy", "nginx")
    whole = {line.strip() for line in (DOCS / "nginx.conf").read_text().splitlines()}
    assert {line.strip() for line in shown.splitlines()} <= whole
