"""What the tests of batches share."""

from __future__ import annotations

from redis import Redis

from packmule.scheduler.maintenance.batch_settler import BatchSettler


def settle(client: Redis, rounds: int = 100) -> None:
    """Let a leader's duty go through all batches, in so many rounds at most."""
    settler = BatchSettler(client)
    for _ in range(rounds):
        settler.settle()
        if not settler._ahead:
            return
    raise AssertionError("it found no end")
