"""Hooks around runs and enqueues, in real workers: what they see, where they run, and what they can't do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from packmule import hooks
from packmule.jobs.client import Client
from packmule.jobs.sending import sending
from packmule.tests.command_line import CommandLine, complaint, environment_in, free_port
from packmule.tests.worker import hooked_jobs

JOBS = """
from packmule.tests.worker.hooked_jobs import *
"""
HOOKS = """
import json, os, threading
from contextlib import asynccontextmanager, contextmanager, nullcontext

from packmule import current, hooks
from packmule.tests.worker import hooked_jobs


def write(**said):
    with open(os.environ["HOOKED"], "a") as file:
        file.write(json.dumps(said) + "\\n")


@hooks.perform
@contextmanager
def around(job):
    assert current.job_id() == job.id
    if job.name.endswith("refused"):
        raise PermissionError("not today")
    try:
        yield
    finally:
        error = type(job.error).__name__ if job.error else None
        write(name=job.name.rpartition(".")[2], outcome=job.outcome, error=error, result=job.result,
              args=list(job.args), attempt=job.attempt, callback=job.callback, process=os.getpid(),
              thread=threading.current_thread().name)


@hooks.perform
@asynccontextmanager
async def around_async(job):
    yield
    write(name="async", of=job.name.rpartition(".")[2], outcome=job.outcome)


@hooks.perform
@contextmanager
def broken(job):
    if "before" in job.args:
        raise LookupError("before")
    yield
    if "after" in job.args:
        raise LookupError("after")


@hooks.perform
@contextmanager
def leaves_slowly(job):
    if not job.name.endswith("bound_for_long"):
        yield
        return
    before = hooked_jobs.BOUND.set(job.id)
    try:
        yield
    finally:
        while True:
            pass
        hooked_jobs.BOUND.reset(before)


class Swallow:
    def __init__(self, job): ...
    def __enter__(self): ...
    def __exit__(self, *_):
        return True

hooks.perform(lambda job: Swallow(job) if job.name.endswith("swallowed") else nullcontext())


@hooks.enqueue
@contextmanager
def sent(jobs):
    if jobs.queue == "low":
        raise ValueError("the queue low is closed")
    yield
    of = jobs.name.rpartition(".")[2]
    write(name="enqueue", of=of, queue=jobs.queue, count=jobs.count, ids=list(jobs.ids))
"""


class Shop:
    """Commands of a project that has hooks, and what these wrote."""

    def __init__(self, home: Path, url: str) -> None:
        (home / "shop_hooks.py").write_text(HOOKS)
        self.said = home / "said"
        environment = environment_in(home, url, JOBS) | {"HOOKED": str(self.said)}
        self.packmule = CommandLine(home, environment | {"PACKMULE_HOOKS": "shop_hooks"})

    def perform(self, *options: str) -> list[dict[str, Any]]:
        """What hooks say while workers empty the queues."""
        done = self.packmule.run("worker", "--burst", "--processes", "1", "-q", "default", *options)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in self.said.read_text().splitlines()]


@pytest.fixture
def shop(server, client, tmp_path) -> Shop:
    return Shop(tmp_path, server.url)


@pytest.fixture
def jobs(client: Redis) -> Client:
    return Client(client, ["default", "low"])


def of(said: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [each for each in said if each["name"] == name]


@pytest.mark.parametrize("options", [[], ["--threads", "4"]])
def test_a_hook_knows_each_run_and_how_it_ended(shop, jobs, options):
    jobs.enqueue(hooked_jobs.add, 1, 2)
    jobs.enqueue(hooked_jobs.fails)
    jobs.enqueue(hooked_jobs.fails_once)
    jobs.enqueue(hooked_jobs.asks_again)
    said = shop.perform(*options)
    (added,) = of(said, "add")
    assert (added["outcome"], added["result"], added["args"], added["attempt"]) == ("finished", 3, [1, 2], 1)
    (failed,) = of(said, "fails")
    assert (failed["outcome"], failed["error"]) == ("failed", "ZeroDivisionError")
    runs = [(each["attempt"], each["outcome"]) for each in of(said, "fails_once")]
    assert runs == [(1, "retried"), (2, "finished")]
    runs = [(each["attempt"], each["outcome"]) for each in of(said, "asks_again")]
    assert runs == [(1, "retried"), (2, "failed")]


def test_an_isolated_job_has_its_hooks_in_its_own_process(shop, jobs):
    apart, beside = jobs.enqueue(hooked_jobs.apart), jobs.enqueue(hooked_jobs.add, 1)
    said = shop.perform()
    (here,), (there,) = of(said, "add"), of(said, "apart")
    assert there["result"] == there["process"] != here["process"]
    assert (apart.status, beside.status) == ("finished", "finished")


def test_an_async_job_has_both_kinds_of_hooks_and_a_plain_one_only_the_plain(shop, jobs):
    jobs.enqueue(hooked_jobs.later, 5)
    jobs.enqueue(hooked_jobs.add, 1)
    said = shop.perform()
    assert [(each["outcome"], each["result"]) for each in of(said, "later")] == [("finished", 5)]
    assert of(said, "async") == [{"name": "async", "of": "later", "outcome": "finished"}]


def test_an_error_before_the_body_fails_the_job_and_the_body_does_not_run(shop, jobs, client):
    handle = jobs.enqueue(hooked_jobs.refused)
    shop.said.touch()
    assert shop.perform() == []
    assert handle.refresh().reason == "PermissionError: not today"
    assert client.get("hooked:refused") is None


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("job", [hooked_jobs.hook_breaks, hooked_jobs.hook_breaks_later])
def test_a_hook_knows_that_a_hook_within_it_failed_the_job(shop, jobs, job, when):
    handle = jobs.enqueue(job, when)
    runs = of(shop.perform(), job.__name__)
    assert [(each["outcome"], each["error"], each["result"]) for each in runs] == [
        ("retried", "LookupError", None),
        ("failed", "LookupError", None),
    ]
    assert handle.refresh().reason == f"LookupError: {when}"


def test_a_hook_cannot_swallow_the_error_of_a_job(shop, jobs):
    handle = jobs.enqueue(hooked_jobs.swallowed)
    said = shop.perform()
    assert handle.refresh().reason == "ZeroDivisionError: division by zero"
    assert "hooked.py" not in (handle.refresh().error or "")
    assert of(said, "swallowed")[0]["outcome"] == "failed"


def test_a_job_that_runs_out_of_time_ends_its_hooks(shop, jobs):
    jobs.enqueue(hooked_jobs.endless.options(timeout=1))
    (said,) = shop.perform()
    assert (said["outcome"], said["error"]) == ("failed", "JobTimeoutException")


@pytest.mark.parametrize("options", [[], ["--threads", "2"]])
def test_what_a_hook_set_and_could_not_take_back_ends_with_its_job(shop, jobs, options):
    late = jobs.enqueue(hooked_jobs.bound_for_long)
    later = [jobs.enqueue(each) for each in 4 * [hooked_jobs.bound] + [hooked_jobs.bound_later]]
    shop.perform(*options)
    assert late.refresh().reason == "JobTimeoutException: the job ran longer than its timeout of 1 s"
    assert {each.result() for each in later} == {"nothing"}


@pytest.mark.parametrize("fault", ["1 / 0", "time.sleep(600)"])
def test_what_can_not_be_sent_for_hooks_keeps_no_process_from_its_end(shop, jobs, tmp_path, fault):
    path = tmp_path / "shop_hooks.py"
    path.write_text(f"import time\n{HOOKS}\nhooks.flushers.append(lambda: {fault})\n")
    apart, beside = jobs.enqueue(hooked_jobs.apart), jobs.enqueue(hooked_jobs.add, 1)
    assert len(of(shop.perform(), "apart")) == 1
    assert [(each.refresh().status, each.refresh().deaths) for each in (apart, beside)] == [
        ("finished", 0)
    ] * 2


def test_a_module_of_hooks_in_the_working_directory_is_found_by_the_installed_command(shop, jobs, tmp_path):
    jobs.enqueue(hooked_jobs.add, 1)
    done = subprocess.run(
        [Path(sys.executable).with_name("packmule"), "worker", "--burst", "--processes", "1"],
        cwd=tmp_path,
        env=shop.packmule.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert of([json.loads(line) for line in shop.said.read_text().splitlines()], "add")


def test_hooks_are_around_an_enqueue_and_can_prevent_it(shop, client):
    id = shop.packmule.output("enqueue", "call", "packmule.tests.worker.hooked_jobs.add", "a=1").split()[-1]
    said = json.loads(shop.said.read_text())
    assert said == {"name": "enqueue", "of": "add", "queue": "default", "count": 1, "ids": [id]}
    refused = shop.packmule.run(
        "enqueue", "call", "--queue", "low", "packmule.tests.worker.hooked_jobs.add", "a=1"
    )
    assert "the queue low is closed" in refused.stderr
    assert client.llen("rq:queue:low") == 0


def test_hooks_are_around_the_enqueue_of_a_ready_made_job(shop):
    shop.packmule.output("enqueue", "email", "--to", "ada@example.org", "--subject", "Hi", "--body", "Soon")
    said = json.loads(shop.said.read_text())
    assert (said["name"], said["of"], said["queue"]) == ("enqueue", "email", "high")


def test_the_dashboard_loads_hooks_and_names_those_that_it_can_not(shop, tmp_path):
    program = "from packmule import config, hooks\nfrom packmule.dashboard.known_jobs import load\n"
    program += "load(config.Settings.from_env())\nprint(len(hooks.enqueuers))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, env=shop.packmule.environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "1\n", done.stderr
    done = shop.packmule.run("dashboard", "--port", f"{free_port()}", PACKMULE_HOOKS="nosuch")
    assert "PACKMULE_HOOKS: can't import nosuch" in complaint(done, 2)


def test_a_module_of_hooks_that_is_missing_or_broken_is_named(shop, tmp_path):
    done = shop.packmule.run("worker", "--burst", PACKMULE_HOOKS="nosuch")
    assert "PACKMULE_HOOKS: can't import nosuch: ModuleNotFoundError" in complaint(done, 2)
    (tmp_path / "broken_hooks.py").write_text("1 / 0\n")
    done = shop.packmule.run("worker", "--burst", PACKMULE_HOOKS="broken_hooks")
    assert "can't import broken_hooks: ZeroDivisionError" in complaint(done, 2)


def test_an_enqueue_that_a_hook_swallows_is_raised_all_the_same():
    class Swallow:
        def __enter__(self): ...

        def __exit__(self, *_):
            return True

    def swallow(jobs: hooks.Enqueueing) -> Swallow:
        return Swallow()

    hooks.enqueue(swallow)  # type: ignore[type-var]
    try:
        with pytest.raises(KeyError), sending("shop.add", None):
            raise KeyError("x")
    finally:
        hooks.forget(swallow)
    assert swallow not in hooks.enqueuers


def test_jobs_are_sent_when_what_postponed_them_calls(jobs, client):
    later: list[Any] = []

    def postpone(send: Any) -> bool:
        later.append(send)
        return True

    hooks.postponers.append(postpone)
    try:
        handles = jobs.enqueue_many(hooked_jobs.add, [(1,), (2,)])
    finally:
        hooks.forget(postpone)
    assert client.llen("rq:queue:default") == 0
    later[0]()
    assert [each.decode() for each in client.lrange("rq:queue:default", 0, -1)] == handles
