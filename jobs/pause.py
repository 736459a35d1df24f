"""Pausing: no worker takes jobs from a paused queue, until it is resumed; others enqueue to it as ever."""

from __future__ import annotations

from redis import Redis
from rq.command import send_command

from packmule.jobs import wire


def pause(client: Redis, queue: str) -> bool:
    """Pause `queue`; whether it was not paused before. Jobs that run already run to their end."""
    return bool(client.sadd(wire.PAUSED, queue))


def resume(client: Redis, queue: str) -> bool:
    """Let workers go on with `queue`, and tell all of them; whether it was paused."""
    was_paused = bool(client.srem(wire.PAUSED, queue))
    wake_workers(client)
    return was_paused


def wake_workers(client: Redis) -> None:
    """Have all idle workers look for jobs anew."""
    for key in client.smembers(wire.WORKERS):
        send_command(client, wire.worker_name(wire.text(key)), "wake-up")


def paused(client: Redis) -> set[str]:
    """The names of paused queues."""
    return {wire.text(name) for name in client.smembers(wire.PAUSED)}
