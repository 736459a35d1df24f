"""`packmule job logs` and `packmule job output`, as a user reads them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys
from packmule.tests.command_line import DEADLINE, CommandLine, complaint, environment_in

TALK = """

@job(retries=1, retry_intervals=(0,))
def talk(gate: str = "") -> None:
    import logging
    import pathlib
    import time

    current.log("begins", "warning", rows=2, name="a b", note="x\\x1b[2J")
    current.emit("one ")
    while gate and not pathlib.Path(gate).exists():
        time.sleep(0.01)
    print("printed")
    logging.getLogger("shop").info("logged\\nin two lines")
    current.emit("two\\n\\x1b[2J")
    current.emit({"three": 3})
    if not gate:
        raise ValueError("no gate")
"""

AT = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"


@pytest.fixture
def packmule(server: EmbeddedServer, client: Redis, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, TALK))


def untimed(text: str) -> list[str]:
    return [re.sub(f"^{AT} ", "", line) for line in text.splitlines()]


RUN = [
    r'warning  begins rows=2 name="a b" note="x\u001b[2J"',
    "info     printed",
    "info     logged",
    "    in two lines",
]


def test_lines_are_shown_with_their_fields_and_attempts(packmule: CommandLine) -> None:
    id = packmule.output("enqueue", "call", "shop.talk").strip()
    packmule.run("worker", "--burst", "--processes", "1")
    assert untimed(packmule.output("job", "logs", id)) == [*RUN, "attempt 2", *RUN]
    assert untimed(packmule.output("job", "logs", id, "--level", "warning")) == [RUN[0], "attempt 2", RUN[0]]
    found = [json.loads(line) for line in packmule.output("job", "logs", id, "--json").splitlines()]
    assert [(each["attempt"], each["level"], each["text"]) for each in found][:2] == [
        (1, "warning", "begins"),
        (1, "info", "printed"),
    ]
    assert found[0]["fields"] == {"rows": 2, "name": "a b", "note": "x\x1b[2J"}
    assert packmule.output("job", "output", id) == "\n".join(['one two\n\\x1b[2J\n{"three":3}'] * 2)
    assert packmule.output("job", "output", id, "--json").splitlines()[:3] == [
        '"one "',
        r'"two\n\u001b[2J"',
        '{"three":3}',
    ]
    shown = packmule.output("job", "show", id)
    assert "6 lines" in shown
    assert "last lines" in shown
    assert "    in two lines" in shown
    assert json.loads(packmule.output("job", "show", id, "--json"))["lines"] == 6


def test_they_are_followed_until_the_job_ends(packmule: CommandLine, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    id = packmule.output("enqueue", "call", "shop.talk", f"gate={gate}").strip()
    with (
        packmule.started("job", "logs", id, "--follow") as logs,
        packmule.started("job", "output", id, "--follow") as output,
        packmule.started("worker", "--burst", "--processes", "1"),
    ):
        assert logs.stdout
        assert output.stdout
        assert untimed(logs.stdout.readline()) == RUN[:1]
        assert output.stdout.read(4) == "one "
        gate.touch()
        assert untimed(logs.stdout.read()) == RUN[1:]
        assert output.stdout.read() == 'two\n\\x1b[2J\n{"three":3}\n'
        assert logs.wait(DEADLINE) == output.wait(DEADLINE) == 0


def test_what_was_dropped_is_told_on_standard_error(packmule: CommandLine, client: Redis) -> None:
    client.hset(keys.job_key("j1"), mapping={"status": "finished", "data": '["shop.talk",null,[],{}]'})
    for key, said in ((keys.log_key("j1"), '[[1e300,20,"a",{}]]'), (keys.output_key("j1"), '["a"]')):
        client.xadd(key, {"by": "e-1", "attempt": 0, "said": said}, "99-13")
    done = packmule.run("job", "logs", "j1")
    assert done.stdout == "callback\n1e+300 info     a\n"
    assert done.stderr == "packmule: 12 earlier lines were dropped: only the last are kept\n"
    done = packmule.run("job", "output", "j1")
    assert done.stdout == "a\n"
    assert done.stderr == "packmule: 12 earlier chunks were dropped: only the last are kept\n"


@pytest.mark.parametrize("command", ["logs", "output"])
@pytest.mark.parametrize("options", [(), ("--follow",)])
def test_a_job_that_is_not_there_is_one_plain_line(
    packmule: CommandLine, command: str, options: tuple[str, ...]
) -> None:
    done = packmule.run("job", command, "j1", *options)
    assert "no job has the id j1" in complaint(done, 2)


def test_the_jobs_level_is_independent_of_the_terminals(packmule: CommandLine, tmp_path: Path) -> None:
    for setting, lines in (("info", 4), ("warning", 1), ("off", 0)):
        id = packmule.output("enqueue", "call", "shop.talk", f"gate={tmp_path}").strip()
        done = packmule.run(
            "worker", "--burst", "--processes", "1", "--quiet", PACKMULE_JOB_LOG_LEVEL=setting
        )
        assert "logged" not in done.stderr
        assert "finished" not in done.stderr
        assert "printed" in done.stderr
        assert len(packmule.output("job", "logs", id).splitlines()) == lines
