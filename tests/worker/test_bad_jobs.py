"""Jobs that misbehave end failed, with the reason, and their worker lives."""

from __future__ import annotations

import subprocess
import zlib

import pytest

from packmule.jobs import keys, wire
from packmule.jobs.job import JobFunction
from packmule.tests.worker import bad_jobs, pool_jobs
from packmule.tests.worker.pools import children_of, ended, pool, until

pytestmark = pytest.mark.usefixtures("produce")


def payloads() -> dict[bytes, str]:
    """What a payload may be, and why its job fails."""
    return {
        b"\x00\xff garbage": "neither JSON nor compressed JSON",
        b"": "cut short",
        b"[1, 2]": "not [name, null, [positional], {named}]",
        b"[" * 100_000: "not JSON",
        zlib.compress(b" " * 200_000_000): "unpacks to more than 16777216 bytes",
        zlib.compress(b"[]")[:-3]: "cut short",
        b"\x80\x04N.": "a pickle",
        b'["os.system",null,["true"],{}]': "not a registered job",
        b'["packmule.tests.worker.pool_jobs.add",null,["one"],{}]': "argument a",
    }


def test_jobs_that_misbehave_fail_with_their_reasons_and_their_worker_lives(server, client):
    with pool(server, stderr=subprocess.DEVNULL) as process:
        until(lambda: client.scard(keys.WORKERS) == 1)
        children = children_of(process.pid)
        for job, reason in (
            (bad_jobs.recurse, "RecursionError: maximum recursion depth exceeded"),
            (bad_jobs.return_much, "returned 200,000,002 bytes, but a result may hold 1,048,576"),
            (bad_jobs.return_itself, "returned what JSON can't hold"),
            (
                bad_jobs.return_nan,
                "ResultUnwritable: packmule.tests.worker.bad_jobs.return_nan returned",
            ),
            (bad_jobs.return_infinity, "ResultUnwritable: packmule.tests.worker.bad_jobs.return_infinity"),
            (bad_jobs.unspeakable, "is no UTF-8"),
            (bad_jobs.odd_error, "Odd"),
        ):
            record = ended(client, job.enqueue())
            assert (record.status, record.deaths) == ("failed", 0)
            assert reason in record.error
        assert ended(client, bad_jobs.chatter.enqueue()).result == "said"
        assert ended(client, bad_jobs.return_nothing_of_it.enqueue()).result == [1.0, None, "null", 1.0]
        assert children_of(process.pid) == children


def test_corrupt_payloads_fail_with_their_reasons_and_their_worker_lives(server, client):
    reasons = payloads()
    ids = pool_jobs.add.enqueue_many([(1,)] * len(reasons))
    for id, payload in zip(ids, reasons, strict=True):
        client.hset(keys.job_key(id), "data", payload)
    with pool(server, unknown_for=0) as process:
        until(lambda: client.scard(keys.WORKERS) == 1)
        children = children_of(process.pid)
        for id, reason in zip(ids, reasons.values(), strict=True):
            record = ended(client, id)
            assert record.status == "failed"
            assert reason in record.reason
        assert children_of(process.pid) == children


def forged(client, function: JobFunction[..., object], argument: object, **options: int) -> str:
    """A job whose arguments its client has not checked, such as one that stock RQ enqueued."""
    good = {"how": "well"} if function is bad_jobs.read_odd else "a"
    id = function.options(**options).enqueue(good)
    client.hset(keys.job_key(id), "data", wire.encode_call(function.job.name, [argument], {}))
    return id


def test_a_function_that_says_what_may_connect_and_raises_ends_its_job_alone(server, client):
    broken, fine = bad_jobs.maybe_connect.enqueue("raise"), bad_jobs.maybe_connect.enqueue("well")
    with pool(server) as process:
        until(lambda: client.scard(keys.WORKERS) == 1)
        children = children_of(process.pid)
        assert ended(client, broken).reason == "LookupError: no such host"
        assert ended(client, fine).result == "well"
        assert children_of(process.pid) == children


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "InvalidCall: packmule.tests.worker.bad_jobs.read_odd: LookupError"),
        ("exit", "SystemExit: 3"),
    ],
)
def test_a_model_that_refuses_a_call_by_any_error_ends_its_job_alone(server, client, how, reason):
    broken, fine = forged(client, bad_jobs.read_odd, {"how": how}), bad_jobs.read_odd.enqueue({"how": "well"})
    with pool(server) as process:
        until(lambda: client.scard(keys.WORKERS) == 1)
        children = children_of(process.pid)
        assert reason in (ended(client, broken).reason or "")
        assert ended(client, fine).result == "well"
        assert children_of(process.pid) == children


def test_a_model_that_kills_its_process_fails_its_job_at_the_third_death(server, client):
    broken, fine = (
        forged(client, bad_jobs.read_odd, {"how": "die"}),
        bad_jobs.read_odd.enqueue({"how": "well"}),
    )
    with pool(server):
        found = ended(client, broken)
        assert (found.status, found.deaths) == ("failed", 3)
        assert "SIGKILL" in (found.reason or "")
        assert ended(client, fine).result == "well"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("function", "argument"), [(bad_jobs.read_odd, {"how": "hang"}), (bad_jobs.read_slowly, "a" * 50 + "!")]
)
def test_arguments_whose_check_takes_too_long_end_with_their_jobs_timeout(
    server, client, function, argument, threads
):
    slow, fine = forged(client, function, argument, timeout=1), bad_jobs.read_odd.enqueue({"how": "well"})
    with pool(server, threads=threads):
        assert "past its timeout of 1 s" in (ended(client, slow).reason or "")
        assert ended(client, fine).result == "well"
