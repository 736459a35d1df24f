"""The mistakes of a first day: what each user gets, one line and an exit code, or a job that says why."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, reader
from packmule.tests.command_line import CommandLine, complaint, environment_in, free_port, until

JOBS = """
import time

from packmule import current, job


@job
def report(month: str, copies: int = 1) -> str:
    return f"{copies} of {month}"


@job
def broken(month: str) -> None:
    stock = {}
    stock[month] += 1


@job(timeout=1)
def endless() -> None:
    while True:
        pass
"""


@pytest.fixture
def user(server: EmbeddedServer, client: Redis, tmp_path: Path) -> CommandLine:
    """Somebody with a module `mill` of three jobs."""
    (tmp_path / "mill.py").write_text(JOBS)
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, PACKMULE_MODULES="mill"))


@pytest.fixture
def working(user: CommandLine, client: Redis) -> Iterator[CommandLine]:
    """The same with two worker processes."""
    with user.workers(lambda: client.scard(keys.WORKERS)):
        yield user


def test_a_wrong_name(user: CommandLine) -> None:
    assert complaint(user.run("enqueue", "call", "mill.reprot"), 2) == (
        "packmule: mill.reprot is not a registered job: did you mean mill.report? If not, decorate it with "
        "@job and name its module in PACKMULE_MODULES\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("month=5", "copies=two"), "argument copies: expected `int`, got `str`"),
        (("mnth=5",), "got an unexpected keyword argument 'mnth': did you mean month?"),
        ((), "missing a required argument: 'month'"),
        (("month",), "'month' is not NAME=VALUE"),
    ],
)
def test_a_wrong_type_or_argument(user: CommandLine, arguments: tuple[str, ...], said: str) -> None:
    assert said in complaint(user.run("enqueue", "call", "mill.report", *arguments), 2)


def test_a_module_that_was_forgotten(user: CommandLine) -> None:
    assert complaint(user.run("enqueue", "call", "mill.report", "month=5", PACKMULE_MODULES=""), 2) == (
        "packmule: mill.report is not a registered job: decorate it with @job and name its module in "
        "PACKMULE_MODULES\n"
    )
    assert complaint(user.run("worker", PACKMULE_MODULES="mil"), 2) == (
        "packmule: PACKMULE_MODULES: can't import mil: No module named 'mil' "
        "(looked in the working directory too)\n"
    )


@pytest.mark.parametrize(("given", "named"), [("mill.py", "mill"), ("./jobs/mill.py", "jobs.mill")])
def test_a_module_with_its_ending(user: CommandLine, given: str, named: str) -> None:
    assert complaint(user.run("worker", PACKMULE_MODULES=given), 2) == (
        f"packmule: PACKMULE_MODULES: can't import {given}: name the module, not its file: {named}\n"
    )


def test_an_exception_in_the_job(working: CommandLine) -> None:
    said = complaint(working.run("enqueue", "call", "mill.broken", "month=5", "--wait"), 1)
    found = re.fullmatch(r"packmule: job ([0-9a-f]{32}) failed: KeyError: '5'\n", said)
    assert found
    shown = working.output("job", "show", found[1][:8], "--traceback")
    assert "mill.py" in shown
    assert "stock[month] += 1" in shown


def test_an_endless_loop(working: CommandLine) -> None:
    said = complaint(working.run("enqueue", "call", "mill.endless", "--wait"), 1)
    assert re.search(r" failed: JobTimeout\w*: .*1 (s|second)", said), said


def test_a_redis_that_is_not_there(user: CommandLine) -> None:
    port = free_port()
    url = f"redis://:s3cret@127.0.0.1:{port}/0"
    for words in (("enqueue", "call", "mill.report", "month=5"), ("status",), ("job", "show", "2a9f")):
        said = complaint(user.run(*words, PACKMULE_REDIS_URL=url), 3)
        assert said.startswith(f"packmule: redis://:***@127.0.0.1:{port}/0: ")


def test_a_port_that_is_taken(user: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = complaint(user.run("dashboard", "--port", str(port)), 2)
        assert f"can't listen on 127.0.0.1:{port} (Address already in use): choose another" in said
        assert complaint(user.run("dashboard", PACKMULE_PORT=str(port)), 2) == said


def test_the_usual_port_that_is_taken_gives_the_next_one(user: CommandLine) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 9181))
            taken.listen()
        except OSError:
            pass  # somebody else has it, which is as good
        log = user.cwd / "dashboard.log"
        with log.open("w") as output, user.started("dashboard", stderr=output):
            until(lambda: "The dashboard is on" in log.read_text(), "the dashboard", log.read_text)
            found = re.search(r"The dashboard is on http://127\.0\.0\.1:(\d+)", log.read_text())
            assert found
            assert 9181 < int(found[1]) < 9201
        assert "can't listen on" in complaint(user.run("dashboard", PACKMULE_ENV="production"), 2)


def test_a_wrong_cron_expression(user: CommandLine) -> None:
    for wrong in ("30 25 * * *", "every day", "* * *"):
        said = complaint(user.run("schedule", "add", "nightly", "mill.report", "month=5", "--cron", wrong), 2)
        assert wrong in said


def test_the_name_of_a_function_in_the_place_of_a_ready_made_job(user: CommandLine) -> None:
    said = complaint(user.run("enqueue", "report", "month=5"), 2)
    assert "to enqueue yours, use packmule enqueue call mill.report" in said
    assert "No such command 'repot'" in complaint(user.run("enqueue", "repot"), 2)


def test_a_worker_that_was_started_before_the_job_was_written(working: CommandLine, client: Redis) -> None:
    module = working.cwd / "mill.py"
    module.write_text(JOBS + "\n\n@job\ndef invoice(number: int) -> int:\n    return number\n")
    done = working.run("enqueue", "call", "mill.invoice", "number=7", "--wait-timeout", "5s")
    assert done.returncode == 1
    (id,) = re.findall("^([0-9a-f]{32}) waits for", done.stderr, re.MULTILINE)
    text = (
        "a worker that knows mill.invoice: restart those that started before it was written or don't load "
        "its module (PACKMULE_MODULES); if it was renamed, keep the old name as a job, too"
    )
    assert f"{id} waits for {text}" in " ".join(done.stderr.split())
    assert reader.read(client, id).status in ("scheduled", "queued", "started")
    until(lambda: text in " ".join(working.output("job", "show", id).split()), "the reason")


def test_a_procfile_that_names_no_process_of_ours(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: true\n")
    user = CommandLine(tmp_path, environment_in(tmp_path, None, PATH=os.environ["PATH"]))
    try:
        done = user.run("up")
        assert done.returncode == 0, done
        assert (
            "the Procfile names no packmule process: no jobs are performed; add worker: packmule worker"
            in (done.stderr)
        )
    finally:
        EmbeddedServer(user.data_dir).stop()
