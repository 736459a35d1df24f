"""The fault run of pipelines: many files at once, while workers and pools are killed and flows are canceled.

    python tests/worker/pipeline_faults.py [kills with SIGKILL] [files] [seconds at most] [s3]

Every fourth file is an archive, of whose members each becomes a job. Each file's results are whole, as its
manifest says, or there are none. A flow that failed because a job of it was killed three times is retried. At
the end nothing is left over, and every flow's counts are exact. With `s3` the storage is a bucket of a server
that speaks S3, where results are copied one by one.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from packmule.coordination.redis.connection import connect
from packmule.jobs import batch_state, keys, registry
from packmule.jobs.client import Client
from packmule.jobs.files import each_member, file, unpack
from packmule.jobs.flow import Flow
from packmule.jobs.pipelines import Pipeline, staging, step
from packmule.jobs.storage import Storage
from packmule.testing import private_server
from packmule.tests.jobs.archives import zipped
from packmule.tests.jobs.s3_server import ENVIRONMENT, forget, s3_server
from packmule.tests.worker import pipeline_jobs
from packmule.tests.worker.limit_faults import Crowd, scheduling
from packmule.tests.worker.pools import drained

INTAKE = Pipeline("intake", pipeline_jobs.count, step(file, name="table", to="parquet"), pipeline_jobs.parts)
COPY = f"{pipeline_jobs.__name__}.copy"
ARCHIVE = Pipeline(
    "archive", unpack, step(each_member, reads="unpack", each=COPY, arguments={"out": "{name}"})
)
CANCELED_SHARE = 0.05
ROUNDS = 20
"""In which failed flows are retried."""

STEPS = 4
"""Nodes of a flow of `INTAKE`, with that which publishes."""

ARCHIVES = 4
"""One file in so many is an archive."""


@dataclass
class Report:
    """What was killed, what became of the files, and what went wrong."""

    faults: Counter[str] = field(default_factory=Counter)
    files: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    late: int = 0
    """Staging folders that a killed worker's process wrote to after its flow had been canceled."""
    wrong: list[str] = field(default_factory=list)


@contextmanager
def bucket() -> Iterator[str]:
    """The URL of an empty bucket, which this process and its children reach."""
    import boto3

    with s3_server() as port:
        os.environ.update({**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"})
        forget()
        boto3.client("s3").create_bucket(Bucket="faults")
        yield "s3://faults/files"


def run(kills: int, files: int, seconds: float, seed: int = 1, is_far: bool = False) -> Report:
    """Send `files` files, kill for as long as they take, and judge what is there then."""
    dice, report = random.Random(seed), Report(files=files)
    registry.defer(registry.READY)
    with ExitStack() as stack:
        server = stack.enter_context(private_server())
        client = stack.enter_context(connect(None, server.data_dir))
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        Client(client).make_default()
        url = stack.enter_context(bucket()) if is_far else str(place / "store")
        storage = Storage(url)
        crowd = Crowd(server, place / "log", "workers", f"storage={url}")
        stack.callback(crowd.close)
        stack.enter_context(scheduling(client))
        rows = {}
        for number in range(files):
            pipeline = INTAKE if number % ARCHIVES else ARCHIVE
            source = f"uploads/{number % 50}/{number}.{'csv' if pipeline is INTAKE else 'zip'}"
            lines = dice.randrange(2, 6)
            storage.write_bytes(source, (_table if pipeline is INTAKE else _archive)(number, lines))
            rows[pipeline.enqueue(source).id] = source, lines
        canceled = set(dice.sample(sorted(rows), int(files * CANCELED_SHARE)))
        cancel = threading.Thread(target=_cancel, args=([Flow.at(id) for id in canceled], dice))
        cancel.start()
        until = time.monotonic() + seconds
        _break_until_all_ended(client, crowd, list(rows), kills, until, dice, report)
        cancel.join()
        report.faults = crowd.faults
        report.wrong += [f"a pool ended by itself: {each}" for each in crowd.ended_pools]
        crowd.close()
        report.late = len({name.split("/")[1] for name in storage.names("staging/")})
        client.zadd(staging.STAGED, dict.fromkeys(client.zrange(staging.STAGED, 0, -1), 0))
        for _ in range(3):  # a process that was killed a moment ago may still be on its way out
            drained(server, storage=url)
            if not any((place / "store/.tmp").glob("*")) and not storage.names("staging/"):
                break
        for id, (source, lines) in rows.items():
            _judge(client, storage, id, source, lines, id in canceled, report)
        _judge_rest(client, storage, place / "store", rows, report)
    return report


def _cancel(flows: list[Flow], dice: random.Random) -> None:
    for flow in flows:
        time.sleep(dice.uniform(0, 0.5))
        flow.cancel()


def _break_until_all_ended(client, crowd, ids, kills, until, dice, report) -> None:
    pending, rounds = ids, 0
    while time.monotonic() < until:
        if crowd.kills < kills:
            crowd.break_something(dice)
            time.sleep(dice.uniform(0.2, 0.8))
        else:
            time.sleep(0.5)
        pending = [
            id for id, state in zip(pending, batch_state.read_each(client, pending), strict=True)
            if state is None or state.ended is None
        ]  # fmt: skip
        if pending:
            continue
        states = batch_state.read_each(client, ids)
        pending = [state.id for state in states if state and state.counts.failed and not state.is_canceled]
        rounds += 1
        if not pending or rounds > ROUNDS:
            return
        for id in pending:
            report.retried += Flow.at(id).retry()
    report.wrong.append(f"{len(pending)} flows have not ended in time")


def _table(number: int, lines: int) -> bytes:
    return b"a,b\n" + b"".join(b"%d,x\n" % (number + i) for i in range(lines))


def _archive(number: int, members: int) -> bytes:
    return zipped((f"{member}.txt", b"%d" % (number + member)) for member in range(members))


def _place(source: str, id: str) -> str:
    return staging.place_of("intake" if source.endswith("csv") else "archive", source, id)


def _judge(client, storage, id, source, lines, may_be_absent, report) -> None:
    place, is_table = _place(source, id), source.endswith("csv")
    state, names = batch_state.read_each(client, [id])[0], storage.names(f"{place}/")
    # An archive has a second end if the first met members at work, and fewer nodes if it is canceled.
    totals = {STEPS} if is_table else {3, *range(3 + lines, 3 + 2 * lines)}
    if state is None or sum(state.counts[1:]) != state.counts.total or state.counts.total not in totals:
        report.wrong.append(f"{source}: {state and state.counts}")
    manifest = f"{place}/{staging.MANIFEST}"
    if manifest not in names:
        report.ended["absent"] += 1
        if not (may_be_absent and state is not None and state.is_canceled):
            report.wrong.append(f"{source}: nothing was published, {state}")
        if names:
            report.wrong.append(f"{source}: outputs without a manifest: {names}")
        return
    report.ended["complete"] += 1
    outputs = json.loads(storage.read_bytes(manifest))["outputs"]
    listed = {f"{place}/{each['path']}": each["bytes"] for each in outputs}
    if listed != {name: storage.size(name) for name in names if name != manifest} or len(listed) != (
        lines + 2 if is_table else 2 * lines + 1
    ):
        report.wrong.append(f"{source}: the manifest lists {listed}, and there are {names}")
        return
    if not is_table:
        copies = sorted(storage.read_bytes(name) for name in names if "/each_member/" in name)
        if copies != sorted(b"%d" % (int(Path(source).stem) + member) for member in range(lines)):
            report.wrong.append(f"{source}: its members are {copies}")
        return
    with storage.read(f"{place}/table/{Path(source).stem}.parquet") as table:
        found = duckdb.sql(f"SELECT count(*), min(a) FROM '{table}'").fetchall()
    if found != [(lines, int(Path(source).stem))]:
        report.wrong.append(f"{source}: its table has {found}")


def _judge_rest(client, storage, folder, rows, report) -> None:
    places = {_place(source, id) for id, (source, _) in rows.items()}
    kept = {source for source, _ in rows.values()}
    strange = [
        name
        for name in storage.names()
        if name not in kept and not {str(each) for each in Path(name).parents} & places
    ]
    report.wrong += [f"left over: {name}" for name in strange]
    report.wrong += [f"left over: {each.relative_to(folder)}" for each in folder.glob("staging/*")]
    report.wrong += [f"left over: {each.relative_to(folder)}" for each in folder.glob(".tmp/*")]
    report.wrong += [f"quarantined: {note!r}" for note in client.lrange(keys.QUARANTINE, 0, 4)]


def main() -> None:
    given = [*sys.argv[1:], *["200", "1000", "1500", ""][len(sys.argv) - 1 :]]
    begun = time.monotonic()
    report = run(int(given[0]), int(given[1]), float(given[2]), int(begun), given[3] == "s3")
    print(f"{time.monotonic() - begun:.0f} s")
    for name, value in vars(report).items():
        print(f"{name:8} {dict(value) if isinstance(value, Counter) else value}")
    sys.exit(1 if report.wrong else 0)


if __name__ == "__main__":
    main()
