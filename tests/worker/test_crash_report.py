"""Crash reports: the kernel's counters tell an out-of-memory kill from other kills."""

from __future__ import annotations

import re
import resource
import time
from pathlib import Path

import pytest

from packmule.worker import kernel
from packmule.worker.crash_report import CrashReport, report_crash
from packmule.worker.kernel import out_of_memory_kills
from packmule.worker.scoreboard import RunningJob


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kernel, "own_cgroup", lambda: tmp_path)
    return tmp_path


def kills(cgroup: Path, count: int) -> None:
    (cgroup / "memory.events").write_text(f"low 0\nhigh 0\nmax 12\noom 3\noom_kill {count}\n")


def report(code: int, kills_before: int | None) -> CrashReport:
    running = RunningJob(0, "job", "execution", time.monotonic() - 2, float("inf"), False)
    return report_crash("w1", code, running, resource.getrusage(resource.RUSAGE_SELF), kills_before)


def test_a_kill_while_the_kernel_killed_for_memory_is_out_of_memory(cgroup):
    kills(cgroup, 4)
    before = out_of_memory_kills()
    kills(cgroup, 5)
    found = report(-9, before)
    assert found.out_of_memory is True
    assert re.fullmatch(
        "the process performing this job died of SIGKILL, killed by the kernel because memory ran out, "
        r"after \d+\.?\d* s",
        found.cause,
    )
    assert float(found.cause.split()[-2]) >= 2.0


@pytest.mark.parametrize(
    ("code", "share", "is_said"),
    [(-6, 0.9, True), (-5, 0.9, True), (-6, 0.5, False), (-9, 0.9, False), (1, 0.9, False)],
)
def test_a_library_that_ends_its_process_near_the_bound_may_have_lacked_memory(code, share, is_said):
    usage = resource.getrusage(resource.RUSAGE_SELF)
    most = int(usage.ru_maxrss * 1024 / share)
    running = RunningJob(0, "job", "execution", time.monotonic() - 2, float("inf"), False)
    found = report_crash("w1", code, running, usage, None, most)
    assert ("maybe because it can have no more than" in found.cause) is is_said
    assert "maybe" not in report_crash("w1", code, running, usage, None).cause


@pytest.mark.parametrize(("code", "after"), [(-9, 4), (-11, 5), (1, 5)])
def test_other_deaths_are_not_out_of_memory(cgroup, code, after):
    kills(cgroup, 4)
    before = out_of_memory_kills()
    kills(cgroup, after)
    assert report(code, before).out_of_memory is False


def test_out_of_memory_is_unknown_if_the_kernel_does_not_say(cgroup):
    assert out_of_memory_kills() is None
    assert report(-9, None).out_of_memory is None
    (cgroup / "memory.events").write_text("nonsense\n")
    assert out_of_memory_kills() is None
