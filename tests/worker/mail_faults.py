"""The mails' fault run: a bulk send and single mails, while workers, pools and Redis are killed.

    python tests/worker/mail_faults.py [kills with SIGKILL] [recipients of the bulk send] [seconds at most]

Some three kills are made a second. By the mail server's own log each recipient got the mail once, unless the
ledger says that it is unknown, and then once at most. The counts of the bulk send are those of its entries.
Jobs that failed because their process died three times are retried, as an operator would.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.replies import as_text
from packmule.jobs import keys, reader, wire
from packmule.jobs.client import Client
from packmule.jobs.control import retry_each
from packmule.jobs.email import email
from packmule.jobs.email.bulk.send import send_bulk
from packmule.jobs.email.calls import mails_of_job
from packmule.jobs.email.ledger import names
from packmule.jobs.email.ledger.reader import counts_of, current, of_send
from packmule.jobs.email.outcome import State
from packmule.testing import private_server
from packmule.tests.jobs.mail_server import MailServer
from packmule.tests.worker.limit_faults import Crowd, scheduling

BACKLOG = 20
SETTLE_SECONDS = 240
KEY = "the bulk send"


@dataclass
class Report:
    """What was killed, what became of the mails, and what went wrong."""

    faults: Counter[str] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    bulk: Counter[str] = field(default_factory=Counter)
    singles: Counter[str] = field(default_factory=Counter)
    unknown_and_sent: int = 0
    wrong: list[str] = field(default_factory=list)


def run(kills: int, recipients: int, seconds: float, seed: int = 1, only: str = "kills") -> Report:
    """Send mails until there were `kills`, or for `seconds`; then let all jobs end, and judge."""
    dice, report = random.Random(seed), Report()
    with ExitStack() as stack:
        server, post = stack.enter_context(private_server()), stack.enter_context(MailServer())
        client = stack.enter_context(connect(None, server.data_dir))
        Client(client).make_default()
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        crowd = Crowd(server, place / "log", only, f"mail={post.url}")
        stack.callback(crowd.close)
        stack.enter_context(scheduling(client))
        everybody = [f"r{number}@example.org" for number in range(recipients)]
        rows = [{"email": each} for each in everybody]
        bulk = send_bulk(rows, "A sale", "Come.", key=KEY) if rows else None
        ids = list(jobs_of(client, bulk.id)) if bulk else []
        singles = _load(client, crowd, kills, time.monotonic() + seconds, dice)
        report.faults = crowd.faults
        report.wrong += [f"a pool ended by itself: {each}" for each in crowd.ended_pools]
        _settle(client, [*ids, *singles], report)
        got = Counter(post.recipients)
        _judge_bulk(client, everybody, got, report)
        for number, id in enumerate(singles):
            _judge_single(client, id, f"s{number}@example.org", got, report)
        report.wrong += [f"{to} got {times} mails" for to, times in got.items() if times > 1]
        if notes := client.lrange(keys.QUARANTINE, 0, 4):
            report.wrong += [str(each) for each in notes]
    return report


def jobs_of(client: Redis, batch: str) -> list[str]:
    """The ids of a batch's jobs."""
    return [as_text(id) for id in client.hkeys(f"{keys.batch_key(batch)}:jobs")]


def _load(client: Redis, crowd: Crowd, kills: int, until: float, dice: random.Random) -> list[str]:
    """Keep single mails waiting, and break things meanwhile; the ids of their jobs."""
    singles: list[str] = []
    while crowd.kills < kills and time.monotonic() < until:
        with suppress(RedisError):
            for _ in range(BACKLOG - client.llen(keys.queue_key("high"))):
                id, to = f"single-{len(singles)}", f"s{len(singles)}@example.org"
                email.options(job_id=id).enqueue(to, "Hello", "Soon more.")
                singles.append(id)
        time.sleep(dice.uniform(0.1, 0.4))
        crowd.break_something(dice)
    return singles


def _settle(client: Redis, ids: list[str], report: Report) -> None:
    """Wait until all jobs have ended, and retry those that died too often."""
    ends_at, left = time.monotonic() + SETTLE_SECONDS, set(ids)
    while left and time.monotonic() < ends_at:
        time.sleep(0.3)
        for id in list(left):
            info = reader.read(client, id)
            if info.status == "failed" and info.deaths >= 3:
                retry_each(client, [id])
            elif info.status in wire.ENDED:
                left.discard(id)
                report.jobs[f"failed: {info.error_type}" if info.status == "failed" else info.status] += 1
    report.wrong += [f"job {id} has not ended: {reader.read(client, id).status}" for id in list(left)[:9]]


def _judge_bulk(client: Redis, everybody: list[str], got: Counter[str], report: Report) -> None:
    send = names.send_of_key(KEY)
    stored = list(of_send(client, send, everybody))
    for to, entry, now in zip(everybody, stored, current(client, stored), strict=True):
        _judge(to, str(now.state) if now else "none", got, report, report.bulk)
        if entry is not None and now is not None and entry.state is not now.state:
            report.bulk["(of these being sent by a run that is over)"] += 1
    told = {str(state): count for state, count in counts_of(client, send).items() if count}
    entries = Counter(str(entry.state) for entry in stored if entry)
    if told != entries:
        report.wrong.append(f"the counts are {told}, and the entries {dict(entries)}")


def _judge_single(client: Redis, id: str, to: str, got: Counter[str], report: Report) -> None:
    found = mails_of_job(client, id)
    state = str(found[0].state) if found else "none"
    _judge(to, state, got, report, report.singles)
    status = reader.read(client, id).status
    if (status == "finished") != (state == State.ACCEPTED):
        report.wrong.append(f"job {id} is {status}, and its mail {state}")


def _judge(to: str, state: str, got: Counter[str], report: Report, states: Counter[str]) -> None:
    states[state] += 1
    report.unknown_and_sent += state == State.UNKNOWN and got[to] == 1
    if state not in (State.ACCEPTED, State.UNKNOWN) or (state == State.ACCEPTED and got[to] != 1):
        report.wrong.append(f"the mail to {to} is {state}, and arrived {got[to]} times")


def main() -> None:
    given = [*sys.argv[1:], *["500", "20000", "1200"][len(sys.argv) - 1 :]]
    begun = time.monotonic()
    report = run(int(given[0]), int(given[1]), float(given[2]), seed=int(begun))
    print(f"{time.monotonic() - begun:.0f} s")
    for name, value in vars(report).items():
        print(f"{name:17} {dict(value) if isinstance(value, Counter) else value}")
    sys.exit(1 if report.wrong else 0)


if __name__ == "__main__":
    main()
