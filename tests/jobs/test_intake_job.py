"""The job that reads mailboxes of bounces: scheduled by a setting, alone, and stopped by no bad mailbox."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from packmule.jobs import context, schedule_store
from packmule.jobs.client import Client
from packmule.jobs.email import Ledger
from packmule.jobs.email.suppression.collecting import SCHEDULE, Mailboxes, collecting, email_intake
from packmule.jobs.email.suppression.store import Suppressions
from packmule.jobs.handle import JobRaised
from packmule.scheduler.schedules.periodic_enqueuer import PeriodicEnqueuer
from packmule.tests.command_line import CommandLine, environment_in, until
from packmule.tests.jobs.test_bounces import bounce, complaint, mailed
from packmule.tests.jobs.test_mail_ledger import ADA, BOB
from packmule.worker import Worker

__all__ = ["mailed"]  # a fixture


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    found = tmp_path / "bounces"
    (found / "new").mkdir(parents=True)
    return found


def suppressed(client: Redis) -> list[str]:
    return sorted(each.name for each in Suppressions(client))


def names(client: Redis) -> list[str]:
    return [each.name for each in schedule_store.entries(client)]


@pytest.mark.usefixtures("produce")
def test_a_bad_mailbox_fails_the_job_after_the_others_were_read(mailed, maildir, monkeypatch):
    monkeypatch.setattr(context, "resources", {})
    boxes = ("/nowhere", "imap://ada@mail.example.org/INBOX", "imaps://ada@127.0.0.1:1/INBOX", str(maildir))
    context.provide(Ledger(mailed), Mailboxes(boxes))
    (maildir / "new" / "1").write_bytes(bounce())
    handle = email_intake.enqueue()
    Worker(["low"], connection=mailed).work(burst=True)
    with pytest.raises(JobRaised, match="NotCollected") as raised:
        handle.result(timeout=0)
    for words in ("/nowhere can't be read", "write imaps://", "no secret 'IMAP'"):
        assert words in str(raised.value)
    assert suppressed(mailed) == [ADA]
    context.provide(Mailboxes((str(maildir),)))
    (maildir / "new" / "2").write_bytes(complaint(BOB))
    handle = email_intake.enqueue()
    Worker(["low"], connection=mailed).work(burst=True)
    assert handle.result(timeout=0) == {"mails": 1, "kinds": {"complaint": 1}, "unknown": 0, "suppressed": 1}


@pytest.mark.usefixtures("produce")
def test_a_worker_that_knows_no_mailbox_says_so(client, monkeypatch):
    monkeypatch.setattr(context, "resources", {})
    context.provide(Ledger(client))
    handle = email_intake.enqueue()
    Worker(["low"], connection=client).work(burst=True)
    with pytest.raises(JobRaised, match="set PACKMULE_BOUNCES for workers and schedulers"):
        handle.result(timeout=0)


def test_a_setting_declares_the_schedule_and_its_end_drops_that(client):
    jobs = Client(client)
    PeriodicEnqueuer(jobs, None, [collecting("low")]).sync()
    assert SCHEDULE in names(client)
    PeriodicEnqueuer(jobs, None, [collecting("low")]).sync()
    schedule_store.pause(client, SCHEDULE)
    PeriodicEnqueuer(jobs, None, [collecting("low")]).sync()
    assert schedule_store.entry(client, SCHEDULE).state == "paused"
    schedule_store.resume(client, SCHEDULE)
    PeriodicEnqueuer(jobs).sync()
    assert SCHEDULE not in names(client)


def take_in(packmule, client):
    """Let a scheduler make the schedule, and workers perform its job."""
    with packmule.started("scheduler") as scheduler:
        until(lambda: SCHEDULE in names(client), "the scheduler has the schedule")
        scheduler.terminate()
    packmule.output("schedule", "run", SCHEDULE)
    packmule.output("worker", "--burst")


def test_the_job_goes_to_the_last_queue_that_there_is(mailed, server, maildir, tmp_path):
    given = {"PACKMULE_BOUNCES": str(maildir), "PACKMULE_QUEUES": "mail,rest"}
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url, **given))
    (maildir / "new" / "1").write_bytes(bounce())
    take_in(packmule, mailed)
    assert suppressed(mailed) == [ADA]


def test_one_setting_is_all_that_an_operator_gives(mailed, server, maildir, tmp_path):
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url, PACKMULE_BOUNCES=str(maildir)))
    (maildir / "new" / "1").write_bytes(bounce())
    take_in(packmule, mailed)
    assert suppressed(mailed) == [ADA]
    (maildir / "new" / "2").write_bytes(bounce(BOB))
    assert "1 addresses suppressed" in packmule.output("email", "intake")
    assert "bounces" in packmule.output("check")
    failed = packmule.run("check", PACKMULE_BOUNCES=str(tmp_path / "nowhere"))
    assert "not a Maildir" in failed.stdout + failed.stderr
    none = packmule.run("email", "intake", PACKMULE_BOUNCES="")
    assert (none.returncode, "set PACKMULE_BOUNCES" in none.stderr) == (2, True)
