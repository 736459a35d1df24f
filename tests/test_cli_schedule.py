"""`packmule schedule`, the scheduler's file, and who leads: what an operator types and what he is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from redis import Redis

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, reader, schedule_ledger, schedule_store
from packmule.jobs.schedule import Schedule
from packmule.observe.leadership import leader
from packmule.tests.command_line import CommandLine, Done, Run, complaint, environment_in, until

MORE = """
@job(cron="30 2 * * *", tz="Europe/Madrid", schedule={"name": "nightly", "kwargs": {"a": 1}})
def count(a: int) -> int:
    return a


@job
def told(tick: str) -> str:
    return tick
"""


@pytest.fixture
def packmule(server: EmbeddedServer, client: Redis, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    home = tmp_path_factory.mktemp("shop")
    return CommandLine(home, environment_in(home, server.url, MORE))


@pytest.fixture
def here(packmule: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.delitem(sys.modules, "shop", raising=False)  # that of another test
    return packmule.in_this_process(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def nothing_left(server: EmbeddedServer) -> Iterator[None]:
    yield
    with connect(None, server.data_dir) as client:
        client.flushall()


def output(done: Done) -> str:
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def facts(here: Run, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(output(here("schedule", "show", name, "--json")))
    return found


def test_without_schedules_it_says_so(here: Run) -> None:
    assert output(here("schedule", "list")) == "no schedules\n"
    assert json.loads(output(here("schedule", "list", "--json"))) == []


def test_a_schedule_is_added_shown_changed_and_removed(here: Run, client: Redis) -> None:
    add = ("schedule", "add", "tell", "shop.told", "tick=<{tick}>", "--tz", "Europe/Madrid")
    said = output(here(*add, "--cron", "30 2 1 1 *", "--overlap", "skip"))
    assert said.startswith("tell added: 30 2 1 1 * (Europe/Madrid), next ")
    assert said.endswith("-01-01T02:30:00+01:00\n")
    found = facts(here, "tell")
    assert (found["state"], found["owner"], found["ticks"]) == ("active", "operator", [])
    assert found["schedule"] == {
        "name": "tell",
        "job": "shop.told",
        "cron": "30 2 1 1 *",
        "tz": "Europe/Madrid",
        "kwargs": {"tick": "<{tick}>"},
        "overlap": "skip",
    }
    assert "already exists" in complaint(here(*add, "--every", "30s"), 2)
    assert "tell changed: every 30 s" in output(here(*add, "--every", "30s", "--replace"))
    assert "tell unchanged" in output(here(*add, "--every", "30s", "--replace"))
    row = output(here("schedule", "list")).splitlines()[1].split()
    assert row[:6] == ["tell", "every", "30", "s", "shop.told", "operator"]
    assert "every 30 s" in output(here("schedule", "show", "tell"))
    assert output(here("schedule", "remove", "tell")) == "tell removed\n"
    assert "no schedule is called 'tell'" in complaint(here("schedule", "show", "tell"), 2)


def test_the_next_ticks_are_told(here: Run) -> None:
    output(here("schedule", "add", "a", "shop.add", "a=1", "--cron", "0 0 1 1 *", "--tz", "Asia/Kathmandu"))
    ticks = output(here("schedule", "next", "a", "3")).split()
    assert len(ticks) == 3
    assert all(each.endswith("-01-01T00:00:00+05:45") for each in ticks)
    found = json.loads(output(here("schedule", "next", "a", "--json")))
    assert (found[:3], len(found)) == (ticks, 5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("shop.add", "a=1", "--cron", "31 2 30 2 *"),
            "'31 2 30 2 *' is not a cron expression: no month of 2 has a day 30",
        ),
        (("shop.add", "a=1", "--cron", "@daily", "--tz", "Europe/Nowhere"), "is not a time zone"),
        (
            ("shop.add", "a=1", "--every", "1h", "--start", "2030-01-02", "--end", "2030-01-01"),
            "before its start",
        ),
        (("shop.add", "a=1", "--at", "2020-01-01T00:00"), "has no more ticks"),
        (("shop.add", "a=1", "--every", "1h", "--end", "2020-01-01"), "has no more ticks"),
        (("shop.add", "a=1"), "give one of cron, every and at"),
        (("shop.add", "--every", "1h"), "missing a required argument: 'a'"),
        (("shop.add", "a=x", "--every", "1h"), "argument a: expected"),
        (("shop.sub", "--every", "1h"), "shop.sub is not a registered job"),
        (("shop.add", "a=1", "--every", "1h", "--queue", "hihg"), "no queue is called 'hihg'"),
        (("shop.add", "a", "--every", "1h"), "is not NAME=VALUE"),
        (("shop.add", "a=1", "--every", "soon"), "'soon' is not a duration"),
        (("shop.add", "a=1", "--every", "1h", "--jitter", "10d"), "jitter must be"),
    ],
)
def test_what_cannot_be_meant_is_a_line_and_nothing_is_added(
    here: Run, client: Redis, words: tuple[str, ...], said: str
) -> None:
    assert said in complaint(here("schedule", "add", "bad", *words), 2)
    assert not client.exists(schedule_store.SCHEDULES)


def test_mistakes_in_other_commands_are_lines_too(here: Run) -> None:
    for command in ("show", "pause", "resume", "remove", "run", "next"):
        assert "no schedule is called 'x'" in complaint(here("schedule", command, "x"), 2)
    assert "unix:///nowhere" in complaint(here("schedule", "list", PACKMULE_REDIS_URL="unix:///nowhere"), 3)


def test_pausing_and_resuming(here: Run) -> None:
    output(here("schedule", "add", "a", "shop.add", "a=1", "--every", "1h"))
    assert output(here("schedule", "pause", "a")) == "a paused\n"
    assert output(here("schedule", "pause", "a")) == "a was already paused\n"
    assert facts(here, "a")["state"] == "paused"
    assert output(here("schedule", "resume", "a")) == "a resumed\n"
    assert output(here("schedule", "resume", "a")) == "a was not paused\n"


def test_who_adds_or_changes_one_that_is_paused_is_told_so(here: Run) -> None:
    add, rests = (
        ("schedule", "add", "a", "shop.add", "a=1", "--every"),
        "paused until packmule schedule resume a\n",
    )
    assert output(here(*add, "1h", "--paused")) == f"a added: every 1 h, {rests}"
    assert ", next " in output(here(*add, "2h", "--replace"))
    output(here("schedule", "pause", "a"))
    assert output(here(*add, "1m", "--replace")) == f"a changed: every 1 min, {rests}"
    assert output(here(*add, "1m", "--replace")) == f"a unchanged: every 1 min, {rests}"


def test_where_a_name_is_wrong_nothing_is_done_and_all_that_are_wrong_are_named(here: Run) -> None:
    for name in ("a", "b"):
        output(here("schedule", "add", name, "shop.add", "a=1", "--every", "1h"))
    output(here("schedule", "pause", "b"))
    for command in ("pause", "resume", "remove"):
        said = complaint(here("schedule", command, "a", "x", "b", "y"), 2)
        assert "no schedule is called 'x' or 'y'" in said
        assert (facts(here, "a")["state"], facts(here, "b")["state"]) == ("active", "paused")
    assert output(here("schedule", "remove", "a", "b", "a")) == "a removed\nb removed\n"


def test_a_wrong_name_is_answered_by_the_one_that_is_meant(here: Run) -> None:
    output(here("schedule", "add", "shop-nightly", "shop.add", "a=1", "--every", "1h"))
    for wrong in ("shop.nightly", "shop-nigthly"):
        said = complaint(here("schedule", "show", wrong), 2)
        assert f"no schedule is called {wrong!r}: did you mean shop-nightly?" in said


def test_what_an_operator_removed_is_not_paused_and_so_stays_removed_till_it_is_brought_back(
    here: Run, client: Redis
) -> None:
    coded = [Schedule(name=name, job="shop.boom", every=60, owner="code") for name in ("a", "b")]
    schedule_store.sync(client, coded, "code")
    output(here("schedule", "remove", "b"))
    for _ in range(2):
        said = complaint(here("schedule", "pause", "a", "b"), 2)
        assert "packmule schedule resume b brings it back" in said
        schedule_store.sync(client, coded, "code")
        assert (facts(here, "a")["state"], facts(here, "b")["state"]) == ("active", "removed")
    assert not client.hexists(schedule_store.state_key("b"), "paused")
    assert output(here("schedule", "resume", "b")) == "b resumed\n"
    assert facts(here, "b")["state"] == "active"


def test_one_is_run_by_hand_and_the_ledger_says_so(here: Run, client: Redis) -> None:
    output(here("schedule", "add", "tell", "shop.told", "tick={tick}", "--every", "1h", "--queue", "low"))
    id = output(here("schedule", "run", "tell")).strip()
    assert id.startswith("cron-tell-run-")
    assert client.lrange(keys.queue_key("low"), 0, -1) == [id.encode()]
    assert reader.read(client, id).kwargs["tick"].endswith("+00:00")
    (line,) = facts(here, "tell")["ticks"]  # type: ignore[misc]
    assert (line["did"], line["why"], line["job"]) == ("enqueued", "by hand", id)
    assert "by hand" in output(here("schedule", "show", "tell"))


def test_what_is_corrupt_is_shown_and_can_be_removed(here: Run, client: Redis) -> None:
    client.hset(schedule_store.SCHEDULES, "broken", "{")
    client.hset(schedule_store.SCHEDULES, "odd", '{"name":"odd","job":"j","every":60}')
    client.set(schedule_store.state_key("odd"), "x")
    assert "faulty" in output(here("schedule", "list"))
    assert "faulty" in output(here("schedule", "show", "broken"))
    assert "can't be read" in complaint(here("schedule", "next", "broken"), 2)
    output(here("schedule", "remove", "broken"))
    assert [each["name"] for each in json.loads(output(here("schedule", "list", "--json")))] == ["odd"]


def test_what_is_wrong_with_one_stands_below_the_table_so_that_neither_is_wide(
    here: Run, client: Redis
) -> None:
    add = ("schedule", "add", "nightly", "shop.add", "a=1", "--tz", "Europe/Madrid")
    output(here(*add, "--cron", "30 2 * * MON-FRI"))
    fault = " ".join(["a reason that takes long to tell"] * 20)
    client.hset(schedule_store.state_key("nightly"), "fault", fault)
    client.hset(schedule_store.SCHEDULES, "[/odd]", "{")
    table, below = output(here("schedule", "list")).split("\n\n")
    assert all(line.split()[-2:] == ["faulty", "-"] for line in table.splitlines()[1:])
    assert max(map(len, [*table.splitlines(), *below.splitlines()])) <= 120
    assert " ".join(below.split()).startswith("faulty because [/odd] ")
    assert " ".join(below.split()).endswith(f" nightly {fault}")


def test_status_tells_how_many_schedules_are_faulty_if_any_is(here: Run, client: Redis) -> None:
    output(here("schedule", "add", "good", "shop.add", "a=1", "--every", "1h"))
    assert "faulty" not in output(here("status"))
    assert json.loads(output(here("status", "--json")))["faulty_schedules"] == 0
    client.hset(schedule_store.SCHEDULES, mapping={"broken": "{", "worse": "["})
    assert "2 faulty; packmule schedule list shows why" in output(here("status"))
    assert json.loads(output(here("status", "--json")))["faulty_schedules"] == 2


def test_a_scheduler_keeps_what_code_file_and_operator_say_and_is_named_by_status(
    packmule: CommandLine, here: Run, client: Redis
) -> None:
    file = packmule.cwd / "schedules.toml"
    file.write_text('[often]\njob = "shop.told"\nevery = "1s"\nkwargs = { tick = "{tick}" }\n')
    assert "no scheduler is running" in output(here("status"))
    output(here("schedule", "add", "mine", "shop.add", "a=1", "--every", "1s"))
    with packmule.started("scheduler", "--schedules", str(file), stderr=subprocess.DEVNULL):
        until(lambda: leader(client), "a leader")
        until(lambda: len(schedule_ledger.read(client, "often")) >= 2, "ticks of the file's schedule")
        until(lambda: len(schedule_ledger.read(client, "mine")) >= 2, "ticks of the operator's")
        assert facts(here, "nightly")["owner"] == "code"
        known = json.loads(output(here("status", "--json")))["leader"]
        assert known["name"] in output(here("status"))
        assert f"term {known['term']}" in output(here("status"))
        with packmule.started("scheduler", stderr=subprocess.DEVNULL):
            until(lambda: "; 1 more on standby" in output(here("status")), "another that stands by")
        until(lambda: json.loads(output(here("status", "--json")))["schedulers"] == 1, "its end")
        said = output(here("schedule", "remove", "nightly", "often"))
        assert "the code still declares it" in said
    file.write_text("[often]\njob = 5\n")
    with packmule.started("scheduler", stderr=subprocess.DEVNULL, PACKMULE_SCHEDULES=str(file)):
        until(lambda: (found := leader(client)) and found.name != known["name"], "another leader")
        count = len(schedule_ledger.read(client, "mine"))
        until(lambda: len(schedule_ledger.read(client, "mine")) > count, "the others to go on")
    assert {each.name: each.state for each in schedule_store.entries(client)} == {
        "mine": "active",
        "nightly": "removed",
        "often": "removed",
    }
    assert output(here("schedule", "resume", "nightly")) == "nightly resumed\n"
    assert facts(here, "nightly")["state"] == "active"


def test_check_names_what_keeps_a_schedule_from_working(packmule: CommandLine) -> None:
    def finding(**changes: str) -> dict[str, object]:
        report = json.loads(packmule.run("check", "--json", **changes).stdout)
        found: dict[str, object] = report["findings"]["schedules"]
        return found

    assert finding() == {"ok": True, "text": "ok, 1"}
    file = packmule.cwd / "schedules.toml"
    file.write_text('[often]\njob = "shop.nothing"\nevery = "1s"\n')
    said = finding(PACKMULE_SCHEDULES=str(file))
    assert said["ok"] is False
    assert "schedule often: shop.nothing is not a registered job" in str(said["text"])
    _, states = packmule.run("check", PACKMULE_SCHEDULES=str(file)).stdout.split("\n\n")
    assert max(map(len, states.splitlines())) <= 120
    assert str(said["text"]) in " ".join(states.split())
    file.write_text('[often]\njob = "shop.boom"\nevery = "1x"\n')
    text = str(finding(PACKMULE_SCHEDULES=str(file))["text"])
    assert "line 3: schedule often: '1x' is not a duration" in text


def test_check_names_a_job_whose_queue_nobody_serves(packmule: CommandLine) -> None:
    (packmule.cwd / "typos.py").write_text(
        "from packmule import job\n\n\n@job(queue='hgih')\ndef report() -> None: ...\n"
    )
    report = json.loads(packmule.run("check", "--json", PACKMULE_MODULES="typos").stdout)
    said = report["findings"]["modules"]
    assert said["ok"] is False
    assert "typos.report: no queue is called 'hgih': there are high, default, low" in said["text"]


def test_a_scheduler_with_a_mistake_in_its_call_or_modules_does_not_begin(packmule: CommandLine) -> None:
    (packmule.cwd / "bad.toml").write_text("[often]\njob = 5\n")
    assert "gone.toml" in complaint(packmule.run("scheduler", "--schedules", "gone.toml"), 2)
    assert "bad.toml, line" in complaint(packmule.run("scheduler", "--schedules", "bad.toml"), 2)
    assert "missing" in complaint(packmule.run("scheduler", PACKMULE_MODULES="shop,missing"), 2)
