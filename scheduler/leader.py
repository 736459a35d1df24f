"""Leadership: any number of schedulers may run, and one of them at a time leads."""

from __future__ import annotations

import os
import secrets
import socket

from redis import Redis

from coordination.scripts import Script

LEADER = "pm:leader"
TERM = 5.0
"""Seconds that a leader leads without a sign of life."""

_lead = Script("scheduler", "lead")
_resign = Script("scheduler", "resign")


class Leadership:
    """One candidate's claim to lead, named by host, process and chance."""

    def __init__(self, client: Redis, term: float = TERM) -> None:
        self.client = client
        self.term = term
        self.name = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"

    def hold(self) -> bool:
        """Become or stay the leader for another term; whether this candidate leads now. One round trip."""
        return bool(_lead(self.client, [LEADER], [self.name, int(self.term * 1000)]))

    def resign(self) -> None:
        """Let another lead at once."""
        _resign(self.client, [LEADER], [self.name])
