"""The fault drill: a short one passes, and its verdict finds every kind of broken promise."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.drill import job_states
from packmule.drill.hits import BEGIN_SECONDS, Fault
from packmule.drill.interruption import held_back
from packmule.drill.job import MOST_SLOTTED, MOST_WEIGHED, RATE, work_alone, work_on_host, work_weighed
from packmule.drill.ledger import ALONE, CALLED_BACK, HOSTED, RATED, SLOTTED, WEIGHED, Ledger, Run, State
from packmule.drill.load import QUEUES, Load
from packmule.drill.verdict import HELD_UP, KILLED, LIMITS, POOL_GONE, judge, percentile
from packmule.jobs import batch_state, keys
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.terminal.drill import report
from packmule.tests.command_line import DEADLINE, CommandLine, complaint, environment_in, until
from packmule.tests.jobs import sample_jobs
from packmule.tests.pace import pace
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims

DONE = State("finished", 0)
WORKER, POOL, OTHER = 7, 5, 8


@pytest.fixture
def packmule(tmp_path: Path, server: EmbeddedServer, client: Redis) -> CommandLine:
    """Commands whose settings name the shared server, with temporary files in `tmp_path`/tmp."""
    (tmp_path / "tmp").mkdir()
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, TMPDIR=str(tmp_path / "tmp")))


def run(job: str, began: float, ended: float | None, pid: int = WORKER) -> Run:
    return Run(job, pid, POOL, began, ended)


def left(folder: Path) -> str:
    """The processes whose command lines still name the folder."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,args="], capture_output=True, text=True, check=True)
    return "".join(line for line in listed.stdout.splitlines() if str(folder) in line)


def lasting(client: Redis) -> set[bytes]:
    """All keys but events, the index, statistics, and what expires within a minute, like RQ's of workers."""
    seen = (b"pm:events", b"pm:index:", b"pm:stats:", b"pm:top:")
    return {key for key in client.keys("*") if not (0 <= client.ttl(key) <= 60 or key.startswith(seen))}


def broken(found: dict[str, Any], second: float) -> list[str]:
    """The promises that a drill found broken; a job may run again thrice as late as this machine is slow."""
    is_slow = all(each["p99"] < 3 * LIMITS[name] * second for name, each in found["recovery"].items())
    return [each for each in found["broken"] if not (is_slow and "ran again in" in each)]


def test_a_short_drill_loses_nothing_and_leaves_nothing(packmule: CommandLine, tmp_path: Path) -> None:
    words = "--kills 12 --terms 2 --redis-kills 1 --outages 1 --pools 2 --processes 3 --seed 27 --json"
    with pace() as second, packmule.started("drill", *words.split()) as process:
        out, err = process.communicate(timeout=200)
    found = json.loads(out)
    assert (broken(found, second()), err) == ([], ""), out
    assert process.returncode == bool(found["broken"])
    assert found["acknowledged"] == found["completed"] > 50
    assert found["faults"] == {
        "kill process": 11,
        "kill pool": 1,
        "stop process": 1,
        "stop pool": 1,
        "kill redis": 1,
        "freeze redis": 1,
    }
    assert found["recovery"][KILLED]["jobs"] > 0
    kept = [found["evidence"]] if found["broken"] else []
    assert [str(path) for path in (tmp_path / "tmp").iterdir()] == kept
    until(lambda: not left(tmp_path / "tmp"), "its processes to end")


def test_here_a_drill_uses_its_own_queues_and_leaves_the_server_unchanged(
    packmule: CommandLine, client: Redis
) -> None:
    id = packmule.output("enqueue", "call", "shop.add", "a=1")
    before = lasting(client)
    pid = client.info("server")["process_id"]
    with pace() as second:
        done = packmule.run("drill", "--here", "--kills", "1", "--freezes", "1", "--json")
    found = json.loads(done.stdout)
    assert broken(found, second()) == [], done
    assert done.returncode == bool(found["broken"])
    assert found["acknowledged"] == found["completed"] > 0
    assert lasting(client) == before
    assert client.lrange(keys.queue_key("default"), 0, -1) == [id.encode()]
    assert client.info("server")["process_id"] == pid


@pytest.mark.parametrize(
    ("signals", "code"), [([signal.SIGINT], 130), ([signal.SIGINT] * 3, 130), ([signal.SIGTERM], 143)]
)
def test_ctrl_c_ends_a_drill_and_leaves_nothing(
    packmule: CommandLine, client: Redis, tmp_path: Path, signals: list[signal.Signals], code: int
) -> None:
    with packmule.started("drill", "--here", "--minutes", "5") as process:
        until(lambda: client.scard(keys.WORKERS) > 0, "a worker")
        for each in signals:
            process.send_signal(each)
        out, _ = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (code, "")
    until(lambda: not left(tmp_path / "tmp"), "its processes to end")
    assert lasting(client) == set()
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(("owner", "name"), [(Client, "create_batch"), (Client, "send"), (Batch, "seal")])
def test_a_producer_that_is_interrupted_anywhere_in_a_batch_leaves_nothing(
    client: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    mine = Batch.create("mine", client=client)
    before = lasting(client)
    stopped = threading.Event()
    load = Load(tmp_path, "0", 1.0, 1, stopped)
    load.client = Client(client).make_default().redis
    monkeypatch.setattr(load.random, "random", lambda: 0.9)
    original = getattr(owner, name)

    def interrupted(*given: Any, **more: Any) -> Any:
        try:
            return original(*given, **more)
        finally:
            stopped.set()

    monkeypatch.setattr(owner, name, interrupted)
    load._batch(QUEUES[0])
    assert lasting(client) > before
    job_states.clear(client, ())
    assert lasting(client) == before
    assert [each.id for each in batch_state.latest(client)] == [mine.id]


def test_jobs_of_other_workers_on_the_server_are_neither_stuck_nor_deleted(client: Redis) -> None:
    Client(client).make_default()
    mine = sample_jobs.noop.enqueue()
    theirs = work_alone.options(queue=QUEUES[0]).enqueue("", 0.0, 1)
    for worker, queue in (("w1", "default"), ("w2", QUEUES[0])):
        claims = Claims(client, worker, Strict([queue]))
        assert len(claims.finish_and_claim("c1", [], 1).jobs) == 1
    assert job_states.held(client) == {theirs}
    job_states.clear(client, ())
    assert (client.exists(keys.job_key(mine)), client.exists(keys.job_key(theirs))) == (1, 0)
    assert client.hexists(keys.claims_key("w1"), mine)


@pytest.fixture
def pythons_interrupts() -> Iterator[None]:
    """Ctrl-C as Python begins with it, whatever handler another test has left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("pythons_interrupts")
def test_interrupts_are_held_back_until_they_may_come() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), held_back() as let_through:
        let_through()
        signal.raise_signal(signal.SIGINT)
        done.append("started")
        try:
            let_through()
            done.append("never")
        finally:
            signal.raise_signal(signal.SIGINT)
            done.append("cleaned up")
    assert done == ["started", "cleaned up"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(signal.SIGINT)
        done.append("ended")
    assert done[-1] == "ended"


def test_a_usage_error_is_one_line(packmule: CommandLine) -> None:
    assert "--minutes" in complaint(packmule.run("drill", "--minutes", "1", "--kills", "3"), 2)
    for option in ("--redis-kills", "--outages"):
        assert option in complaint(packmule.run("drill", "--here", option, "1"), 2)
    assert "PACKMULE_REDIS_URL" in complaint(packmule.run("drill", "--here", PACKMULE_REDIS_URL=""), 2)


def test_the_drills_job_is_registered_only_in_a_drill(packmule: CommandLine) -> None:
    refused = packmule.run("enqueue", "call", "packmule.drill.job.work", "ledger=x", "seconds=1")
    assert "packmule.drill.job.work" in complaint(refused, 2)


def test_a_drill_without_faults_breaks_no_promise() -> None:
    verdict = judge({"a", "b"}, {"a": DONE, "b": DONE}, (), [run("a", 1, 2), run("b", 2, 3)], [])
    assert (verdict.completed, verdict.duplicated, verdict.broken) == (2, [], [])


@pytest.mark.parametrize(
    ("what", "states", "held", "runs"),
    [
        ("lost", {}, (), []),
        ("lost", {"a": State("queued", 0)}, (), []),
        ("stuck", {"a": State("queued", 0)}, {"a"}, []),
        ("stuck", {"a": State("started", 0)}, {"a"}, [run("a", 1, 2)]),
        ("failed", {"a": State("failed", 2)}, (), []),
        ("misrecorded", {"a": DONE}, (), []),
        ("misrecorded", {}, (), [run("a", 1, 2)]),
        ("excess", {"a": DONE}, (), [run("a", 1, 2), run("a", 3, 4)]),
        ("mishaps", {"a": DONE}, (), [run("a", 1, None), run("a", 3, 4)]),
    ],
)
def test_each_broken_promise_is_reported(
    what: str, states: dict[str, State], held: set[str], runs: list[Run]
) -> None:
    verdict = judge({"a"}, states, held, runs, [])
    assert len(getattr(verdict, what)) == 1
    (sentence,) = verdict.broken
    assert sentence.startswith("1 ")


def test_a_third_death_breaks_no_promise() -> None:
    verdict = judge({"a"}, {"a": State("failed", 3)}, (), [], [])
    assert (list(verdict.gave_up), verdict.broken) == (["a"], [])


@pytest.mark.parametrize(
    ("fault", "is_explained"),
    [
        (Fault("kill process", WORKER, 2.1, 2.1), True),
        (Fault("kill process", OTHER, 2.1, 2.1), False),
        (Fault("kill process", WORKER, 2.6, 2.6), False),
        (Fault("kill pool", POOL, 1.5, 1.5), True),
        (Fault("stop pool", POOL, 1.5, 1.5), False),
        (Fault("freeze pool", POOL, 1.5, 14), True),
        (Fault("freeze supervisor", POOL, 1.5, 4), False),
        (Fault("freeze process", WORKER, 1.5, 4), False),
        (Fault("cut pool", POOL, 1.5, 11.5), False),
        (Fault("kill redis", 0, 1.5, 1.6), False),
        (Fault("freeze redis", 0, 1.5, 16), False),
    ],
    ids=lambda value: f"{value.kind} {value.pid}" if isinstance(value, Fault) else "",
)
def test_only_a_fault_that_hit_the_jobs_process_explains_a_second_run(
    fault: Fault, is_explained: bool
) -> None:
    verdict = judge({"a"}, {"a": DONE}, (), [run("a", 1, 2), run("a", 15, 16, pid=OTHER + 1)], [fault])
    assert verdict.duplicated == ["a"]
    assert (verdict.excess == []) is is_explained


@pytest.mark.parametrize(
    "delay",
    [
        Fault("kill redis", 0, 1.9, 5),
        Fault("stop redis", 0, 1.9, 5),
        Fault("freeze process", WORKER, 2.1, 5),
        Fault("cut pool", POOL, 2.1, 5),
    ],
)
def test_an_outage_a_cut_or_a_frozen_process_delays_an_outcome(delay: Fault) -> None:
    faults = [Fault("kill process", WORKER, 5.1, 5.1), delay]
    verdict = judge({"a"}, {"a": DONE}, (), [run("a", 1, 2), run("a", 6, 7, pid=OTHER)], faults)
    assert verdict.excess == []


@pytest.mark.parametrize(
    ("kind", "pid", "name", "within"),
    [("kill process", WORKER, KILLED, 0.9), ("kill pool", POOL, POOL_GONE, 14.0)],
)
def test_recovery_lasts_from_the_kill_to_the_next_begin_and_is_bounded(
    kind: str, pid: int, name: str, within: float
) -> None:
    for seconds, sentences in ((within, 0), (within + 2, 1)):
        fault = Fault(kind, pid, 1.5, 1.5)
        again = 1.5 + seconds
        runs = [run("a", 1, None), run("a", again, again + 1, pid=OTHER)]
        verdict = judge({"a"}, {"a": DONE}, (), runs, [fault])
        assert verdict.recoveries[name] == [pytest.approx(seconds)]
        assert len(verdict.broken) == sentences


def test_a_callback_that_never_ran_and_one_that_ran_twice_are_reported() -> None:
    job = f"a{CALLED_BACK}"
    runs = [run(job, 1, 2)]
    for callbacks, what in (([], "uncalled"), ([run(job, 3, 3)] * 2, "excess")):
        verdict = judge({job}, {job: DONE}, (), runs, [], callbacks=callbacks)
        assert getattr(verdict, what) == [job]
        assert len(verdict.broken) == 1
    killed = [Fault("kill process", WORKER, 3.1, 3.1)]
    assert judge({job}, {job: DONE}, (), runs, killed, callbacks=[run(job, 3, 3)] * 2).broken == []


@pytest.mark.parametrize(("faults", "overlaps"), [([], 1), ([Fault("freeze pool", POOL, 1.5, 16)], 0)])
def test_singletons_that_ran_at_once_are_reported_unless_one_was_frozen(
    faults: list[Fault], overlaps: int
) -> None:
    jobs = [f"{name}{ALONE}1" for name in "ab"]
    runs = [run(jobs[0], 1, 16.5), Run(jobs[1], OTHER, OTHER, 14, 15), run(f"c{ALONE}2", 14, 15)]
    verdict = judge(set(jobs), dict.fromkeys(jobs, DONE), (), runs, faults)
    assert len(verdict.overlapping) == len(verdict.broken) == overlaps


@pytest.mark.parametrize(
    ("ended", "faults", "is_kept"),
    [
        ((10, 2.5, 5), [], True),
        ((10, 4.5, 5), [], False),
        ((None, 4.5, 5), [Fault("kill process", WORKER, 2.9, 2.9)], True),
        ((None, 4.5, 5), [Fault("kill process", WORKER, 3.1, 3.1)], False),
        ((20, 4.5, 5), [Fault("freeze process", WORKER, 2, 6)], False),
        ((20, 4.5, 5), [Fault("freeze pool", POOL, 2.9, 17)], True),
        ((20, 4.5, 5), [Fault("freeze redis", 0, 2.9, 17)], False),
    ],
)
def test_jobs_beyond_their_slots_are_reported_unless_one_was_killed_or_overtaken(
    ended: tuple[float | None, float, float], faults: list[Fault], is_kept: bool
) -> None:
    jobs = [f"{name}{SLOTTED}1" for name in "abc"]
    pids = (WORKER, OTHER, OTHER + 1)
    runs = [Run(jobs[n], pids[n], POOL if n == 0 else OTHER, n + 1, ended[n]) for n in range(3)]
    runs.append(run(f"d{SLOTTED}2", 1, 10))
    verdict = judge(set(jobs), dict.fromkeys(jobs, DONE), (), runs, faults)
    assert MOST_SLOTTED == 2
    assert verdict.crowded == ([] if is_kept else [jobs[2]])
    assert any("slots" in sentence for sentence in verdict.broken) is not is_kept


@pytest.mark.parametrize(
    ("costs", "faults", "is_kept"),
    [
        ((4, 3, 3), [], True),
        ((4, 3, 4), [], False),
        ((9, 1, 2), [], False),
        ((10, 1, 1), [Fault("kill process", WORKER, 1.5, 1.5)], True),
        ((1, 2, 10), [Fault("freeze pool", POOL, 2.9, 17)], False),
    ],
)
@pytest.mark.parametrize("kind", [WEIGHED, HOSTED])
def test_jobs_that_cost_more_than_there_are_slots_are_reported(
    kind: str, costs: tuple[int, int, int], faults: list[Fault], is_kept: bool
) -> None:
    jobs = [f"{name}{kind}1c{cost}" for name, cost in zip("abc", costs, strict=True)]
    pids = (WORKER, OTHER, OTHER + 1)
    ended = None if faults and faults[0].kind == "kill process" else 10
    runs = [Run(jobs[0], pids[0], POOL, 1, ended)]
    runs += [Run(jobs[n], pids[n], OTHER, n + 1, 10) for n in (1, 2)]
    runs.append(run(f"d{kind}2c10", 1, 10))
    verdict = judge(set(jobs), dict.fromkeys(jobs, DONE), (), runs, faults)
    assert MOST_WEIGHED == 10
    assert verdict.crowded == ([] if is_kept else [jobs[2]])
    assert any("slots" in sentence for sentence in verdict.broken) is not is_kept


def test_jobs_that_begin_sooner_than_their_rate_allows_are_reported() -> None:
    interval = RATE.interval_us / 1e6

    def hasty(begins: list[float], faults: list[Fault]) -> int:
        jobs = [f"{number}{RATED}1" for number, _ in enumerate(begins)]
        runs = [run(job, began, began + 0.01) for job, began in zip(jobs, begins, strict=True)]
        verdict = judge(set(jobs), dict.fromkeys(jobs, DONE), (), runs, faults)
        assert len(verdict.broken) == bool(verdict.hasty)
        return len(verdict.hasty)

    burst = [10.0] * RATE.burst
    late = int(BEGIN_SECONDS / interval)
    assert not hasty([*burst, *(10.0 + interval * (number + 1) for number in range(50))], [])
    assert not hasty([10.0] * (RATE.burst + late), [])
    assert hasty([10.0] * (RATE.burst + late + 1), []) == 1
    assert hasty([*burst, *(10.0 + interval * (number + 1) / 2 for number in range(50))], []) > 5
    for fault in (Fault("freeze process", WORKER, 7, 9.9), Fault("stop redis", 0, 7, 9.9)):
        assert not hasty([10.0] * 20, [fault])
    assert hasty([10.0] * 20, [Fault("freeze process", OTHER, 7, 9.9)])


def test_what_still_waits_or_is_taken_at_the_end_is_reported() -> None:
    verdict = judge(set(), {}, {"unacknowledged"}, [], [], taken=["a key ('a job')"])
    assert verdict.broken == [
        "1 jobs stuck, such as unacknowledged",
        "1 slots or groups taken that nothing needs, such as a key ('a job')",
    ]


def test_a_slot_of_a_job_that_nobody_claims_is_found(client: Redis) -> None:
    Client(client).make_default()
    for number, job in enumerate(("lost", "held")):
        work_alone.options(queue=QUEUES[0], job_id=job).enqueue("", 0.0, number)
    for weighed in (work_weighed, work_on_host):
        weighed.options(queue=QUEUES[0], job_id=weighed.job.name[-8:]).enqueue("", 0.0, 1, 7)
    claims = Claims(client, "w1", Strict(QUEUES))
    assert len(claims.finish_and_claim("c1", [], 4).jobs) == 4
    assert job_states.orphaned(client) == set()
    assert len(job_states.taken(client)) == 4
    client.hset(keys.claims_key("w1"), mapping={"lost": "another", work_on_host.job.name[-8:]: "another"})
    found = " ".join(job_states.orphaned(client))
    assert "'lost'" in found
    assert f"'{work_on_host.job.name[-8:]}'" in found
    assert len(job_states.orphaned(client)) == 2


def test_a_batch_that_counts_wrongly_is_reported() -> None:
    assert len(judge(set(), {}, (), [], [], miscounted=["b1"]).broken) == 1


@pytest.mark.parametrize(
    ("other", "again", "seconds"),
    [
        (Fault("freeze process", OTHER, 1, 4), 4.1, 2.6),
        (Fault("stop redis", 0, 2, 18), 40, 22.5),
        (Fault("freeze pool", OTHER, 2, 18), 32, 30.5),
        (Fault("kill pool", OTHER, 2, 2), 31, 29.5),
        (Fault("kill pool", OTHER, 0, 0.5), 4, None),
    ],
)
def test_a_recovery_that_another_fault_delayed_is_counted_apart_and_without_the_outage(
    other: Fault, again: float, seconds: float | None
) -> None:
    faults = [Fault("kill process", WORKER, 1.5, 1.5), other]
    runs = [run("a", 1, None), run("a", again, again + 1, pid=OTHER)]
    verdict = judge({"a"}, {"a": DONE}, (), runs, faults)
    assert verdict.recoveries[HELD_UP] == ([] if seconds is None else [pytest.approx(seconds)])
    assert bool(verdict.broken) is (seconds is None or seconds > LIMITS[HELD_UP])


def test_a_dead_pool_holds_up_jobs_that_need_the_places_of_its_jobs() -> None:
    faults = [Fault("kill pool", OTHER, 0, 0.5), Fault("kill process", WORKER, 1.5, 1.5)]
    for kind in (ALONE, SLOTTED):
        job = f"a{kind}1"
        runs = [run(job, 1, None), run(job, 12, 13, pid=OTHER)]
        verdict = judge({job}, {job: DONE}, (), runs, faults)
        assert verdict.recoveries[HELD_UP] == [pytest.approx(10.5)]
        assert verdict.broken == []


def test_the_ledger_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.write_text("begin a 7 5 1.0\nbegin b 8 5 1.5\nend a 7 ")
    ledger = Ledger(path)
    ledger.catch_up()
    assert ledger.running == {7: run("a", 1.0, None), 8: run("b", 1.5, None, pid=8)}
    with path.open("a") as file:
        file.write("5 2.0\n")
    ledger.catch_up()
    ledger.catch_up()
    assert ledger.runs == [run("a", 1.0, 2.0), run("b", 1.5, None, pid=8)]
    assert list(ledger.running) == [8]


@pytest.mark.parametrize(("load", "is_said"), [(0.5, False), (1000.0, True)])
def test_a_report_says_when_the_machine_may_have_made_jobs_late(
    load: float, is_said: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    runs = [run("a", 1, None), run("a", 4, 5, pid=OTHER)]
    verdict = judge({"a"}, {"a": DONE}, (), runs, [Fault("kill process", WORKER, 1.5, 1.5)])
    report(verdict, Counter(), 60, 1, None, as_json=False)
    out = capsys.readouterr().out
    assert "broken: after 'process killed' jobs ran again in 2.5 s (p99), not in 1 s\n" in out
    assert ("load of 1000" in out) is is_said
    assert max(map(len, out.splitlines())) <= 80


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([3.0], 99) == 3.0
    assert percentile([float(value) for value in range(1, 101)], 50) == 50.0
    assert percentile([float(value) for value in range(1, 101)], 99) == 99.0
