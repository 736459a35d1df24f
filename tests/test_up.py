"""`packmule up`: the whole Procfile in one terminal, and a Ctrl-C that drains."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, reader
from packmule.terminal.up import PROCFILE, direct
from packmule.tests.command_line import DEADLINE, ROOT, CommandLine, environment_in, free_port, until
from packmule.tests.dashboard.links import used
from packmule.tests.docs.pages import blocks

PYTHON = shlex.quote(sys.executable)

NAP = """
import time
from pathlib import Path


@job
def nap(seconds: float) -> str:
    for done in range(10):
        current.progress(done, 10)
        time.sleep(seconds / 10)
    return "slept"


@job
def late(after: str) -> str:
    while not Path(after).exists():
        time.sleep(0.02)
    time.sleep(6)
    return "slept"


@job(singleton=True)
def alone(until: str) -> int | None:
    while not Path(until).exists():
        time.sleep(0.02)
    return current.fence()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An embedded server, a free port, a user's job, and a `packmule` on the path, as if installed."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "packmule"
    script.write_text(f'#!/bin/sh\nexec {PYTHON} -m packmule "$@"\n')
    script.chmod(0o755)
    return environment_in(
        tmp_path,
        None,
        NAP,
        PACKMULE_PROCESSES="1",
        PORT=str(free_port()),
        PATH=os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]),
    )


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start `packmule up` in `tmp_path`; its output goes to `up.log`. Nothing of it survives the test."""
    started: list[subprocess.Popen[bytes]] = []

    def up(*words: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "up.log").open("w") as log:
            command = [sys.executable, "-m", "packmule", "up", *words]
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        started.append(process)
        return process

    yield up
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    for folder in (tmp_path / "data", *(tmp_path / "data" / "locks").glob("*")):
        EmbeddedServer(folder).stop()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Redis]:
    with connect(None, tmp_path / "data") as connected:
        yield connected


def test_the_built_in_procfile_is_the_shipped_one() -> None:
    assert (ROOT / "Procfile").read_text() == PROCFILE


def test_ctrl_c_drains_a_job_of_six_seconds(
    start: Callable[[], subprocess.Popen[bytes]], environment: dict[str, str], tmp_path: Path, client: Redis
) -> None:
    (tmp_path / "Procfile").write_text(
        f"worker: {PYTHON} -m packmule worker --no-scheduler\nclock: {PYTHON} -m packmule scheduler\n"
    )
    log = (tmp_path / "up.log").read_text
    up = start()
    packmule = CommandLine(tmp_path, environment)
    told = tmp_path / "told"
    long, waiting = (packmule.output("enqueue", "call", "shop.late", f"after={told}") for _ in range(2))
    until(lambda: reader.read(client, long).status == "started", "the job to start", log)
    told.touch()
    up.send_signal(signal.SIGINT)
    assert up.wait(DEADLINE) == 0, log()
    record = reader.read(client, long)
    assert (record.status, record.result, record.deaths) == ("finished", "slept", 0), log()
    assert reader.read(client, waiting).status == "queued"
    assert client.scard(keys.WORKERS) == 0
    assert "SIGKILL" not in log()
    assert "clock started" in log()
    assert "web started" not in log()


def test_without_a_procfile_worker_scheduler_and_dashboard_run_until_sigterm(
    start: Callable[[], subprocess.Popen[bytes]], environment: dict[str, str], tmp_path: Path
) -> None:
    log = (tmp_path / "up.log").read_text
    up = start()
    address = f"http://127.0.0.1:{environment['PORT']}/rq/0/data/workers.json"
    until(lambda: "/login/setup/" in log(), "the link for the first admin", log)
    link = re.search(r"http://\S+/login/setup/[\w-]{43}", log())
    assert link
    password = "correct horse battery"
    until(lambda: _answers(address), "the dashboard", log)
    dashboard = used(link[0], user="ada", password=password, again=password)

    def workers() -> list[dict[str, str]]:
        with dashboard.open(address, timeout=DEADLINE) as answer:
            found: list[dict[str, str]] = json.load(answer)["workers"]
            return found

    until(workers, "a worker on the dashboard", log)
    names = ("worker", "scheduler", "web")
    until(lambda: all(f"{name} started" in log() for name in names), "all to start", log)
    up.terminate()
    assert up.wait(DEADLINE) == 0, log()
    assert EmbeddedServer(tmp_path / "data").pid() is None, "the embedded server was left behind"
    assert "SIGKILL" not in log()
    assert log().count("stopped (rc=0)") == len(names), log()


@pytest.mark.parametrize(
    ("line", "begins"),
    [
        ("sleep 5", "exec sleep 5"),
        ("sleep ${TIME:-5} 'a;b'", "exec sleep ${TIME:-5} 'a;b'"),
        ("sleep 5 && echo done", "sleep 5"),
        ("sleep 5; echo done", "sleep 5"),
        ("sleep 5 | cat", "sleep 5"),
        ("(sleep 5)", "(sleep 5)"),
        ("TIME=5 sleep 5", "TIME=5"),
        ("cd /tmp", "cd /tmp"),
        ("sleep 'five", "sleep 'five"),
        ("", ""),
    ],
)
def test_a_line_of_a_procfile_that_is_one_program_is_run_without_a_shell(line: str, begins: str) -> None:
    found = direct(line, os.environ["PATH"])
    assert found.startswith(begins)
    assert found.startswith("exec") == begins.startswith("exec")


@pytest.mark.parametrize("words", [("up", "--no-reload"), ("up",), ("worker", "--reload"), ("worker",)])
def test_a_terminal_that_is_closed_ends_what_runs_in_it_and_lets_jobs_end(
    environment: dict[str, str], tmp_path: Path, words: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(EmbeddedServer(tmp_path / "data").stop)
    (tmp_path / "Procfile").write_text("worker: packmule worker --no-scheduler\n")
    log, run = tmp_path / "out.log", CommandLine(tmp_path, environment)
    screen, theirs = pty.openpty()
    command = [sys.executable, "-m", "packmule", *words]
    with connect(None, tmp_path / "data") as client:
        process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command],
            cwd=tmp_path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        request.addfinalizer(process.terminate)
        os.close(theirs)
        closes = threading.Event()
        copying = threading.Thread(target=_copy, args=(screen, log, closes))
        copying.start()
        until(lambda: client.scard(keys.WORKERS), "a worker", log.read_text)
        id = run.output("enqueue", "call", "shop.nap", "seconds=3")
        until(lambda: reader.read(client, id).status == "started", "the job to start", log.read_text)
        closes.set()
        copying.join()
        os.close(screen)
        until(lambda: not client.scard(keys.WORKERS), "the end of the worker", log.read_text)
        assert reader.read(client, id).status == "finished"
        process.wait(DEADLINE)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
@pytest.mark.parametrize("words", [("up", "--no-reload"), ("worker", "--no-scheduler", "--reload")])
def test_what_a_killed_command_has_started_ends_and_lets_jobs_end(
    environment: dict[str, str], tmp_path: Path, words: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(EmbeddedServer(tmp_path / "data").stop)
    (tmp_path / "Procfile").write_text("worker: packmule worker --no-scheduler\n")
    run, after = CommandLine(tmp_path, environment), tmp_path / "after"
    log = tmp_path / "out.log"
    with connect(None, tmp_path / "data") as client, log.open("w") as out:
        command = [sys.executable, "-m", "packmule", *words]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out)
        request.addfinalizer(process.kill)
        until(lambda: client.scard(keys.WORKERS), "a worker", log.read_text)
        id = run.output("enqueue", "call", "shop.late", f"after={after}")
        until(lambda: reader.read(client, id).status == "started", "the job to start", log.read_text)
        waiting = run.output("enqueue", "call", "shop.late", f"after={after}")
        process.kill()
        process.wait(DEADLINE)
        after.touch()
        until(lambda: not client.scard(keys.WORKERS), "the end of the worker", log.read_text)
        assert reader.read(client, id).status == "finished"
        assert reader.read(client, waiting).status == "queued"


def _copy(screen: int, log: Path, closes: threading.Event) -> None:
    """Write what appears on a screen to a file, until it closes."""
    with log.open("ab", buffering=0) as file:
        while not closes.is_set():
            if select.select([screen], [], [], 0.05)[0]:
                file.write(os.read(screen, 4096))


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=DEADLINE).close()
    except urllib.error.HTTPError as refused:
        return refused.code == 401
    except OSError:
        return False
    return True


def test_when_one_process_ends_the_others_are_stopped_and_its_exit_code_is_kept(
    start: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "Procfile").write_text(f"worker: {PYTHON} -m packmule worker\nbroken: sleep 1; exit 7\n")
    assert start().wait(DEADLINE) == 7, (tmp_path / "up.log").read_text()
    assert EmbeddedServer(tmp_path / "data").pid() is None


def test_nothing_is_started_when_redis_cannot_be_reached(
    start: Callable[[], subprocess.Popen[bytes]], environment: dict[str, str], tmp_path: Path
) -> None:
    environment["PACKMULE_REDIS_URL"] = "unix:///nowhere/server.sock"
    assert start().wait(DEADLINE) == 3
    (line,) = (tmp_path / "up.log").read_text().splitlines()
    assert line.startswith("packmule: unix:///nowhere/server.sock: ")


def test_nothing_is_started_when_a_module_cannot_be_imported(
    start: Callable[[], subprocess.Popen[bytes]], environment: dict[str, str], tmp_path: Path
) -> None:
    environment["PACKMULE_MODULES"] = "nowhere"
    assert start().wait(DEADLINE) == 2
    (line,) = (tmp_path / "up.log").read_text().splitlines()
    assert line.startswith("packmule: PACKMULE_MODULES: can't import nowhere: ")


def test_lock_nodes_are_started_used_and_stopped_with_the_rest(
    start: Callable[..., subprocess.Popen[bytes]], environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "Procfile").write_text(f"worker: {PYTHON} -m packmule worker\n")
    servers = [EmbeddedServer(tmp_path / "data" / "locks" / str(number)) for number in (1, 2, 3)]
    log = (tmp_path / "up.log").read_text
    up = start("--lock-nodes", "3")
    until(lambda: all(server.pid() for server in servers), "the lock nodes", log)
    until(lambda: "PACKMULE_LOCK_URLS=" in log(), "their URLs", log)
    (urls,) = re.findall(r"export PACKMULE_LOCK_URLS=(\S+)", log())
    packmule = CommandLine(tmp_path, environment | {"PACKMULE_LOCK_URLS": urls})
    id = packmule.output("enqueue", "call", "shop.alone", f"until={tmp_path / 'let go'}")

    def held() -> list[tuple[str, int, int]]:
        found = json.loads(packmule.output("locks", "--json"))
        return [(lock["name"], lock["nodes"], lock["of"]) for lock in found["locks"] if not found["faults"]]

    until(lambda: ("packmule leader", 3, 3) in held(), "a leading scheduler", log)
    until(lambda: ("singleton shop.alone", 3, 3) in held(), "the singleton's lock", log)
    (tmp_path / "let go").touch()
    assert packmule.output("job", "wait", id) == str(int(packmule.output("job", "wait", id)))
    up.send_signal(signal.SIGINT)
    assert up.wait(DEADLINE) == 0, log()
    assert [server.pid() for server in servers] == [None] * 3, "lock nodes were left behind"


def test_lock_nodes_beside_those_of_the_settings_or_of_an_even_number_are_refused(
    start: Callable[..., subprocess.Popen[bytes]], environment: dict[str, str], tmp_path: Path
) -> None:
    log = (tmp_path / "up.log").read_text
    assert start("--lock-nodes", "2").wait(DEADLINE) == 2
    assert "'2' is not one of '1', '3', '5'" in log()
    environment["PACKMULE_LOCK_URLS"] = "redis://127.0.0.1:1"
    assert start("--lock-nodes", "3").wait(DEADLINE) == 2
    assert "unset PACKMULE_LOCK_URLS" in log()
    assert not (tmp_path / "data" / "locks").exists()


def test_what_sends_webhooks_runs_too_if_there_are_some(
    tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]], environment: dict[str, str]
) -> None:
    (tmp_path / "hooks.toml").write_text('[shop]\nurl = "https://hooks.example.org/jobs"\n')
    environment["PACKMULE_WEBHOOKS"] = "hooks.toml"
    process = start()
    log = tmp_path / "up.log"
    until(lambda: "created the group webhook:shop" in log.read_text(), "its group", log.read_text)
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE) == 0


def test_the_procfile_of_a_web_project_runs_without_a_platforms_port(
    tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]], environment: dict[str, str]
) -> None:
    """The lines are those of docs/projects.md."""
    (lines,) = [text for text in blocks("projects", "text") if "web:" in text]
    (tmp_path / "Procfile").write_text(lines.replace("uvicorn", "sh serve"))
    (tmp_path / "serve").write_text('echo "serves $*"; exec sleep 600\n')
    del environment["PORT"]
    process = start()
    log = (tmp_path / "up.log").read_text
    until(lambda: "serves main:app --port 8000" in log(), "the web server", log)
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE) == 0


def test_ctrl_c_while_processes_still_start_ends_them_all(
    tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    lines = "".join(f"sleeper{number}: exec sleep 600 # packmule\n" for number in range(20))
    (tmp_path / "Procfile").write_text(lines)
    log = (tmp_path / "up.log").read_text
    process = start()
    until(lambda: "sleeper0 started" in log(), "the first to start", log)
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE) == 0, log()
    assert "Traceback" not in log()
    assert log().count("stopped (rc=") == 20
