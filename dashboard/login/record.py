"""The record of who came in, who failed and who left: in the audit, which no attacker can flood."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from redis import Redis, RedisError
from redis.exceptions import ResponseError

from packmule.coordination.keys import KeyTaken
from packmule.coordination.limits.rate_limit import TokenBucket
from packmule.observe import audit

FAILURES = "200/h burst 50"
"""How many failed logins are recorded; others are counted, and the next that is recorded has their number."""

UNRECORDED = "pm:unrecorded-logins"
UNRECORDED_TTL = 30 * 86_400

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Visit:
    """Where an attempt to log in comes from: the address, the browser's name for itself, and its cookie."""

    address: str
    agent: str = ""
    browser: str = ""


def record(client: Redis, visit: Visit, action: str, name: str, **more: Any) -> None:
    """Record what the user `name` did from somewhere. It is done even if the audit can't be written."""
    try:
        audit.record(client, action, {"user": name, **more}, name, visit.address)
    except RedisError as error:
        logger.error("%s of %s was done, but not recorded: %s", action, name, type(error).__name__)


def record_failure(client: Redis, visit: Visit, name: str, wrong: str) -> None:
    """Record that somebody failed to come in as `name`, which is "" unless there is such a user.

    Other names are not recorded, because people type passwords in their place.
    """
    try:
        if not TokenBucket(client, "login-failures", FAILURES).hit("all").allowed:
            client.incr(UNRECORDED)
            client.expire(UNRECORDED, UNRECORDED_TTL)
            return
        left_out = client.getdel(UNRECORDED)
    except (ResponseError, KeyTaken) as error:  # of a key that holds something else
        logger.error("a failed login is not recorded: %s", error)
        return
    more = {"unrecorded": int(left_out)} if isinstance(left_out, bytes) and left_out.isdigit() else {}
    record(client, visit, "login failed", name or "(unknown)", wrong=wrong, **more)
