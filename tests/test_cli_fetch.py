"""`packmule enqueue fetch`: from a URL into the storage, by real workers."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from packmule.jobs import keys
from packmule.jobs.storage import Storage
from packmule.tests.command_line import CommandLine, complaint, environment_in

CSV = b"day,rain\n2026-11-01,3\n"


@pytest.fixture
def packmule(server, client, tmp_path):
    """Commands beside workers that may fetch from this machine."""
    commands = CommandLine(tmp_path, environment_in(tmp_path, server.url))
    commands.environment["PACKMULE_WEBHOOK_ALLOW"] = "127.0.0.0/8"
    with commands.workers(lambda: client.scard(keys.WORKERS)):
        yield commands


@pytest.fixture
def url(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "rain.csv").write_bytes(CSV)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_file_is_fetched_by_an_isolated_job(packmule, url):
    done = packmule.output("enqueue", "fetch", f"{url}/rain.csv", "--type", "text/*", "--wait")
    path = msgspec.json.decode(done)["path"]
    assert path.endswith("/rain.csv")
    assert Storage(str(packmule.data_dir / "files")).read_bytes(path) == CSV
    failed = packmule.run("enqueue", "fetch", f"{url}/missing.csv", "--wait")
    assert failed.returncode == 1
    assert "answers 404" in failed.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["file:///etc/passwd"], "is not an http:// or https:// URL with a host"),
        (["https://a.example/x", "https://a.example/y", "--out", "x"], "--out is the path of one output"),
        (["https://a.example/x", "--within", "2h"], "give more than 0 and at most 3000"),
        (["https://a.example/x", "--max-bytes", "many"], "--max-bytes"),
    ],
)
def test_a_mistake_is_one_line(server, tmp_path, monkeypatch, capsys, words, text):
    here = CommandLine(tmp_path, environment_in(tmp_path, server.url)).in_this_process(monkeypatch, capsys)
    assert text in complaint(here("enqueue", "fetch", *words), 2)
