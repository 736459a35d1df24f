"""The workers that are registered, and the server that they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

from redis import Redis

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.errors import NotFound
from packmule.jobs import keys, wire

FIELDS = (
    "state", "queues", "current_job", "successful_job_count", "failed_job_count", "last_heartbeat", "birth",
    "hostname", "pid", "release", "threads", "tasks", "memory", "jobs",
)  # fmt: skip
"""What is read of a worker's record."""


class WorkerInfo(TypedDict):
    """A registered worker: its `queues` are separated by commas, `since` and `last_heartbeat` are RQ's texts.

    The state of one whose lease has ended is `vanished`: it may be busy no more, or Redis was away. It began
    at `since`, performs `threads` plain and `tasks` async functions at once, and used `memory` bytes at its
    last heartbeat. Workers that know the same jobs have the same `jobs`. What is not known is "" or 0.
    """

    name: str
    state: str
    queues: str
    current_job: str
    done: int
    failed: int
    last_heartbeat: str
    quiet: bool
    since: str
    host: str
    pid: int
    release: str
    threads: int
    tasks: int
    memory: int
    jobs: str


def workers(client: Redis, names: Iterable[str] | None = None) -> list[WorkerInfo]:
    """The registered workers whose record has not expired, or those of them called `names`, by name."""
    if names is None:
        (members,) = pipelined(client, [("SMEMBERS", keys.WORKERS)], ())
        names = (keys.worker_name(as_text(key)) for key in members)
    ordered = sorted(names)
    replies = pipelined(
        client,
        [
            ("TIME",),
            ("SMEMBERS", keys.QUIET),
            *(("HMGET", keys.worker_key(name), *FIELDS) for name in ordered),
            *(("ZSCORE", keys.LEASES, name) for name in ordered),
        ],
        (),
    )
    now, quiets = replies[0][0], {as_text(each) for each in replies[1]}
    found, ends = replies[2 : 2 + len(ordered)], replies[2 + len(ordered) :]
    return [
        _worker(name, dict(zip(FIELDS, values, strict=True)), isinstance(end, float) and end < now, quiets)
        for name, values, end in zip(ordered, found, ends, strict=True)
        if any(values)
    ]


def states(client: Redis) -> Counter[tuple[str, str]]:
    """How many registered workers have which state and queues, as `workers` says them, or are `quiet`.

    It takes two round trips and less of each worker, for those who only count.

    >>> states(client)  # doctest: +SKIP
    Counter({('idle', 'high,default'): 12, ('busy', 'high,default'): 3})
    """
    members, (now, _) = pipelined(client, [("SMEMBERS", keys.WORKERS), ("TIME",)], (0, 0))
    all_keys = [as_text(key) for key in members]
    quiet, ended, *records = pipelined(
        client,
        [
            ("SMEMBERS", keys.QUIET),
            ("ZRANGEBYSCORE", keys.LEASES, "-inf", f"({now}"),
            *(("HMGET", key, "state", "queues") for key in all_keys),
        ],
        (),
    )
    quiets, gone = {as_text(each) for each in quiet}, {keys.worker_key(as_text(each)) for each in ended}
    found = Counter[tuple[str, str]]()
    for key, record in zip(all_keys, records, strict=True):
        state, queues = (as_text(each or b"") for each in record or (None, None))
        if state or queues:
            shown = "vanished" if key in gone else "quiet" if key in quiets else state or "started"
            found[shown, queues] += 1
    return found


def worker(client: Redis, name: str) -> WorkerInfo:
    """The worker called `name`, as `workers` describes it. Raises `NoSuchWorker`.

    >>> worker(client, "host.32312.c89422")["state"]  # doctest: +SKIP
    'busy'
    """
    _registered(client, name)
    found = workers(client, [name])
    if not found:
        raise _no_such(name)
    return found[0]


def _worker(name: str, values: dict[str, bytes | None], is_gone: bool, quiets: set[str]) -> WorkerInfo:
    fields = {field: as_text(value) for field, value in values.items() if value is not None}
    return {
        "name": name,
        "state": "vanished" if is_gone else fields.get("state", "started"),
        "queues": fields.get("queues", ""),
        "current_job": "" if is_gone else fields.get("current_job", ""),
        "done": wire.whole(fields.get("successful_job_count")),
        "failed": wire.whole(fields.get("failed_job_count")),
        "last_heartbeat": fields.get("last_heartbeat", ""),
        "quiet": keys.worker_key(name) in quiets,
        "since": fields.get("birth", ""),
        "host": fields.get("hostname", ""),
        "pid": wire.whole(fields.get("pid")),
        "release": fields.get("release", ""),
        "threads": wire.whole(fields.get("threads")),
        "tasks": wire.whole(fields.get("tasks")),
        "memory": wire.whole(fields.get("memory")),
        "jobs": fields.get("jobs", ""),
    }


def disagreeing(workers: Iterable[WorkerInfo]) -> dict[str, list[str]]:
    """The queues whose living workers don't all know the same jobs, each with one worker of each kind.

    Two applications may share the database by mistake, or a deploy is under way.
    """
    kinds: dict[str, dict[str, str]] = {}
    for each in workers:
        if each["state"] != "vanished" and each["jobs"]:
            for queue in each["queues"].split(","):
                kinds.setdefault(queue, {}).setdefault(each["jobs"], each["name"])
    return {queue: [*found.values()] for queue, found in kinds.items() if len(found) > 1}


def claimed(client: Redis, workers: Sequence[str], most: int) -> list[list[str]]:
    """The ids of at most `most` jobs that each of `workers` holds: what it performs and what comes next."""
    commands = [("HSCAN", keys.claims_key(name), 0, "COUNT", most) for name in workers]
    found = [[*map(as_text, scan[1])] if scan else [] for scan in pipelined(client, commands, None)]
    return [[id for id in ids if not id.startswith(".")][:most] for ids in found]


def performed(client: Redis, workers: Sequence[str], most: int = 100) -> list[list[str]]:
    """The ids of the jobs that each of `workers` performs now, of the first `most` that it holds.

    A job that began less than a tenth of a second ago isn't among them yet.
    """
    held = claimed(client, workers, most)
    flat = [id for ids in held for id in ids]
    statuses = pipelined(client, [("HGET", keys.job_key(id), "status") for id in flat], None)
    started = {id for id, status in zip(flat, statuses, strict=True) if status == b"started"}
    return [[id for id in ids if id in started] for ids in held]


def send_command(client: Redis, worker: str, command: str, **more: str) -> None:
    """Send a worker one of RQ's commands, as `rq.command` does, which would load much of RQ."""
    client.publish(keys.commands_channel(worker), wire.encode_json({"command": command, **more}))


class NoSuchWorker(NotFound, LookupError):
    """No worker of that name is registered."""


def quiet(client: Redis, worker: str) -> bool:
    """Let `worker` take no more jobs until it is resumed or ends; False if it was quiet already.

    What it has goes on. What blocking moves bring it from now on goes back to the front of its queue. Raises
    `NoSuchWorker`.
    """
    _registered(client, worker)
    is_new = bool(client.sadd(keys.QUIET, keys.worker_key(worker)))
    send_command(client, worker, "wake-up")
    return is_new


def resume(client: Redis, worker: str) -> bool:
    """Let a quiet worker take jobs again; False if it was not quiet. Raises `NoSuchWorker`."""
    _registered(client, worker)
    was_quiet = bool(client.srem(keys.QUIET, keys.worker_key(worker)))
    send_command(client, worker, "wake-up")
    return was_quiet


def stop(client: Redis, worker: str) -> None:
    """Let `worker` drain and end. Its pool starts another one in its place; one of stock RQ's ends for good.

    Raises `NoSuchWorker`.
    """
    _registered(client, worker)
    send_command(client, worker, "shutdown")


def _registered(client: Redis, worker: str) -> None:
    asked = ("SISMEMBER", keys.WORKERS, keys.worker_key(worker))
    if not pipelined(client, [asked], 0, only="WRONGTYPE")[0]:
        raise _no_such(worker)


def _no_such(worker: str) -> NoSuchWorker:
    return NoSuchWorker(f"no worker is called {worker}: packmule status shows their names")


def wake_workers(client: Redis) -> None:
    """Send all idle workers to look for jobs again."""
    for key in client.smembers(keys.WORKERS):
        send_command(client, keys.worker_name(as_text(key)), "wake-up")


def server(client: Redis) -> dict[str, Any]:
    """What the server reports of itself: `server` (its kind), `version`, `clients` and `up_seconds`."""
    info = client.info()
    return {
        "server": info.get("server_name", "redis"),
        "version": info.get("valkey_version", info["redis_version"]),
        "clients": info["connected_clients"],
        "up_seconds": info["uptime_in_seconds"],
    }
