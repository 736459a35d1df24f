"""The workers that are registered, and the server that they share."""

from __future__ import annotations

from typing import Any

from redis import Redis
from rq.command import send_command

from packmule.coordination.redis.replies import as_text, as_texts
from packmule.jobs import keys, wire


def workers(client: Redis) -> list[dict[str, Any]]:
    """The registered workers whose record has not expired, by name.

    Each is a dictionary of `name`, `state`, `queues` (separated by commas), `current_job`, `done`, `failed`
    and `last_heartbeat` (RQ's text).
    """
    key_names = sorted(as_text(key) for key in client.smembers(keys.WORKERS))
    with client.pipeline(transaction=False) as pipeline:
        for key in key_names:
            pipeline.hgetall(key)
        found = [as_texts(fields) for fields in pipeline.execute()] if key_names else []
    return [
        {
            "name": keys.worker_name(key),
            "state": fields.get("state", "started"),
            "queues": fields.get("queues", ""),
            "current_job": fields.get("current_job", ""),
            "done": wire.whole(fields.get("successful_job_count")),
            "failed": wire.whole(fields.get("failed_job_count")),
            "last_heartbeat": fields.get("last_heartbeat", ""),
        }
        for key, fields in zip(key_names, found, strict=True)
        if fields
    ]


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
