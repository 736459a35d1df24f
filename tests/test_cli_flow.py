"""`packmule flow`, as an operator uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from packmule import Batch, Flow, chain, group, result
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys
from packmule.tests.command_line import CommandLine, complaint, environment_in
from packmule.tests.worker import flow_jobs
from packmule.worker import Worker

pytestmark = pytest.mark.usefixtures("produce")


@pytest.fixture
def packmule(server: EmbeddedServer, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, COLUMNS="80"))


def work(client: Redis) -> None:
    Worker(["default"], connection=client).work(burst=True)


def test_a_flow_is_drawn_node_by_node_and_retried(
    packmule: CommandLine, client: Redis, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with Flow("import") as flow:
        first, other = flow.add(flow_jobs.add.call(1)), flow.add(flow_jobs.add.call(2))
        failed = flow.add(flow_jobs.fail.call(str(gate)), after=first)
        flow.add(flow_jobs.shown.call(), after=[failed, other])
        flow.add(flow_jobs.shown.call(), after=failed, on_failure="run")
        flow.add(flow_jobs.shown.call(), after=failed, on_failure="go on")
    work(client)
    followed = packmule.run("flow", "show", flow.id, "--follow").stdout
    assert followed.splitlines()[0] == f"import {flow.id}"
    assert followed.endswith("\n")
    assert packmule.output("flow", "show", flow.id).splitlines()[2:] == [
        "✓ 0 flow_jobs.add",
        "↓ ✗ 2 flow_jobs.fail  ValueError: as it should",
        "├─ ∅ 3 flow_jobs.shown  also after 1",
        "├─ ✓ 4 flow_jobs.shown  on failure",
        "└─ ✓ 5 flow_jobs.shown  in any case",
        "✓ 1 flow_jobs.add",
    ]
    assert "1 failed" in packmule.output("flow", "show", flow.id).splitlines()[1]
    gate.touch()
    assert packmule.output("flow", "retry", flow.id) == f"{flow.id}: 1 nodes run again"
    work(client)
    found = json.loads(packmule.output("flow", "show", flow.id, "--json"))
    assert [node["state"] for node in found["nodes"]] == ["done"] * 6
    assert found["done"] == 6
    assert {node["name"]: node["after"] for node in found["nodes"]}["4"] == {"2": "run"}
    assert packmule.run("flow", "retry", flow.id).returncode == 1
    listed = json.loads(packmule.output("flow", "list", "--json"))
    assert [each["batch"] for each in listed] == [flow.id]
    assert flow.id in packmule.output("flow", "list")


def test_a_large_flow_has_a_line_for_each_layer(packmule: CommandLine, client: Redis) -> None:
    flow = chain(
        group(*[flow_jobs.add.call(1)] * 50), flow_jobs.total.call(result), flow_jobs.fail.call()
    ).enqueue()
    work(client)
    _, counts, _, *layers = packmule.output("flow", "show", flow.id).splitlines()
    assert counts.startswith("51 done, 1 failed, ended ")
    assert [line.split() for line in layers] == [
        ["1", "█" * 16, "50", "0", "0", "flow_jobs.add"],
        ["2", "█" * 16, "1", "0", "0", "flow_jobs.total"],
        ["3", "█" * 16, "1", "0", "1", "flow_jobs.fail"],
    ]


def test_a_very_long_flow_fits_into_a_few_lines(packmule: CommandLine, client: Redis) -> None:
    flow = chain(*[flow_jobs.add.call(1)] * 300).enqueue()
    lines = packmule.output("flow", "show", flow.id).splitlines()
    assert len(lines) == 33
    assert all(len(line.rstrip()) <= 80 for line in lines)


def test_jobs_that_wait_for_each_other_are_drawn_too(packmule: CommandLine, client: Redis) -> None:
    first = flow_jobs.add.enqueue(1)
    second = flow_jobs.add.options(after=first).enqueue(2)
    third = Queue("default", client, serializer=JSONSerializer).enqueue(
        "packmule.tests.worker.flow_jobs.shown", depends_on=second
    )
    for id in (first, second, third.id):
        assert packmule.output("flow", "show", id).splitlines()[1:] == [
            "1 queued, 2 waits",
            f"○ {first} flow_jobs.add",
            f"↓ · {second} flow_jobs.add",
            f"↓ · {third.id} flow_jobs.shown()",
        ]
    assert f"job {first} (queued)" in packmule.output("job", "show", second)
    assert f"job {second} (deferred)" in packmule.output("job", "show", third.id)
    flow = chain(group(flow_jobs.add.call(1), flow_jobs.add.call(2)), flow_jobs.add.call(3)).enqueue()
    assert f"2 nodes of flow {flow.id}" in packmule.output("job", "show", f"{flow.id}-2")
    assert len(json.loads(packmule.output("flow", "show", first, "--json"))["nodes"]) == 3


def test_what_is_no_flow_gets_one_line(packmule: CommandLine, client: Redis) -> None:
    batch = Batch.create()
    assert "is not a flow: see packmule batch show" in complaint(packmule.run("flow", "show", batch.id), 2)
    for command in ("show", "retry"):
        assert "no flow has the id nobody" in complaint(packmule.run("flow", command, "nobody"), 2)
    assert packmule.output("flow", "list") == "no flows"


def test_a_hostile_flow_is_drawn_in_plain_text(packmule: CommandLine, client: Redis) -> None:
    flow = chain(flow_jobs.add.call(1), flow_jobs.add.call(2)).enqueue("\x1b[2J")
    key = keys.batch_key(flow.id)
    client.hset(f"{key}:children", mapping={"0/1": "s1 s\x1b[2J sx", "1/1": "s0", b"\xff": b"\xff \xfe/1"})
    client.hset(f"{key}:jobs", mapping={"\x1b[3J": "p", b"\xff\xfe": "?"})
    client.hset(keys.job_key(f"{flow.id}-1"), "description", "\x1b]0;title\x07")
    drawn = packmule.output("flow", "show", flow.id)
    assert "\x1b" not in drawn
    assert "\x07" not in drawn
    assert json.loads(packmule.output("flow", "show", flow.id, "--json"))["total"] == 2


@pytest.mark.parametrize("part", ["children", "jobs"])
def test_a_flow_of_which_a_part_is_overwritten_is_drawn_without_it(
    packmule: CommandLine, client: Redis, part: str
) -> None:
    flow = chain(flow_jobs.add.call(1), flow_jobs.add.call(2)).enqueue()
    client.set(f"{keys.batch_key(flow.id)}:{part}", "garbage")
    shown = packmule.output("flow", "show", flow.id)
    assert shown.count("flow_jobs.add") == (2 if part == "children" else 0)
