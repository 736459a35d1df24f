"""The ledger of mails: what it takes of Redis's memory and time for each mail.

python benchmarks/mail_ledger.py [mails]
"""

from __future__ import annotations

import sys
import time

from redis import Redis

from packmule.coordination.redis.connection import connect
from packmule.jobs import keys
from packmule.jobs.email.ledger import Performed, Run, Send, names
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.outcome import Outcome, State
from packmule.testing import private_server

CHUNK = 100
TIMED = 5_000
KEEP = 30 * 86_400
YES = Outcome(State.ACCEPTED, "250 2.0.0 Ok: queued as 4Q8hJ2b1kPz3XyW")
LOST = Outcome(State.UNKNOWN, "127.0.0.1:25 hung up before it confirmed the mail")


def main() -> None:
    mails = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with private_server() as server, connect(None, server.data_dir) as client:
        version = client.info("server").get("valkey_version") or client.info("server")["redis_version"]
        print(f"{mails:,} mails for memory, {TIMED:,} for time, server {version}")
        for what, per_job, outcome in (
            ("bulk, accepted", CHUNK, YES),
            ("single, accepted", 1, YES),
            ("single, unknown", 1, LOST),
        ):
            client.execute_command("FLUSHALL", "SYNC")
            begun = time.perf_counter()
            for first in range(0, TIMED, per_job):
                send_all(client, first, per_job, outcome, at_once=False)
            seconds = time.perf_counter() - begun
            client.execute_command("FLUSHALL", "SYNC")
            client.config_resetstat()
            before = client.info("memory")["used_memory_dataset"]
            for first in range(0, mails, per_job):
                send_all(client, first, per_job, outcome, at_once=True)
            used = (client.info("memory")["used_memory_dataset"] - before) / mails
            print(
                f"{what:17} {used:4.0f} bytes a mail, {used * 1e6 / 2**20:4.0f} MiB a million; "
                f"{TIMED / seconds:6,.0f} mails/s by one process that sends nothing"
            )


def send_all(client: Redis, first: int, count: int, outcome: Outcome, at_once: bool) -> None:
    """What one job does in the ledger, without a mail server; `at_once` records all in one call."""
    job = keys.new_job_id()
    claims = keys.claims_key("worker")
    client.hset(claims, job, "abcd12345-1")
    name = names.send_of_key("sale") if count > 1 else names.send_of_content(f"job {job}", "")
    send = Send(name, "sale" if count > 1 else "", is_of_job=count == 1, is_counted=count > 1)
    run = Run(client, KEEP, Performed(job, "abcd12345-1", claims), send)
    likely = None if at_once or count > 1 else names.origin_of(b"")  # there is no record of the job
    run.reserve([f"firstname.name{first + number}@example.com" for number in range(count)], likely=likely)
    for to in run.ready():
        letter = Letter("", "", (to,), b"", False)
        if not at_once:
            run.prepare(letter)
            run.begin(letter)
        run.ended(letter, {to: outcome})
    run.flush()
    run.close()
    client.hdel(claims, job)


if __name__ == "__main__":
    main()
