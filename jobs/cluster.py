"""The workers that are registered, and the server that they share."""

from __future__ import annotations

from typing import Any, TypedDict

from redis import Redis
from rq.command import send_command

from packmule.coordination.redis.replies import as_text, as_texts, pipelined
from packmule.errors import NotFound
from packmule.jobs import keys, wire


class WorkerInfo(TypedDict):
    """A registered worker: its `queues` are separated by commas, and `last_heartbeat` is RQ's text.

    The state of one whose lease has ended is `vanished`: it may be busy no more, or Redis was away.
    """

    name: str
    state: str
    queues: str
    current_job: str
    done: int
    failed: int
    last_heartbeat: str
    quiet: bool


def workers(client: Redis) -> list[WorkerInfo]:
    """The registered workers whose record has not expired, by name."""
    key_names = sorted(as_text(key) for key in client.smembers(keys.WORKERS))
    names = [keys.worker_name(key) for key in key_names]
    commands: list[tuple[str, ...]] = [("HGETALL", key) for key in key_names]
    replies = pipelined(
        client,
        [*commands, ("TIME",), ("SMEMBERS", keys.QUIET), *(("ZSCORE", keys.LEASES, name) for name in names)],
        {},
    )
    found, ends = replies[: len(names)], replies[len(names) + 2 :]
    now, quiets = replies[len(names)][0], {as_text(each) for each in replies[len(names) + 1]}
    return [
        {
            "name": name,
            "state": "vanished"
            if (is_gone := isinstance(end, float) and end < now)
            else fields.get("state", "started"),
            "queues": fields.get("queues", ""),
            "current_job": "" if is_gone else fields.get("current_job", ""),
            "done": wire.whole(fields.get("successful_job_count")),
            "failed": wire.whole(fields.get("failed_job_count")),
            "last_heartbeat": fields.get("last_heartbeat", ""),
            "quiet": keys.worker_key(name) in quiets,
        }
        for name, fields, end in zip(names, map(as_texts, found), ends, strict=True)
        if fields
    ]


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
    if not client.sismember(keys.WORKERS, keys.worker_key(worker)):
        raise NoSuchWorker(f"no worker is called {worker}: packmule status shows their names")


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
