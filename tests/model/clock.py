"""A clock that stands still until a test moves it: the scripts', the server's expiries and this process's."""

from __future__ import annotations

import gc
import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from hashlib import sha1

import pytest
import rq.job
import rq.queue
import rq.registry
from redis import Redis

from packmule.coordination.redis.scripts import Script

KEY = "model:now"
"""A list of two texts, as the command TIME returns them."""

BEGINNING = 1_800_000_000.0

_INSTANT = re.compile(r"'PEXPIREAT', ([^,]+), clock_millisecond \+ ")

_MOVE = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 then
    redis.call('PEXPIRE', key, math.max(0, left - ARGV[1]))
  end
end
redis.call('DEL', KEYS[1])
redis.call('RPUSH', KEYS[1], ARGV[2], ARGV[3])
"""


class Clock:
    """The time on `client`'s server and in this process. An expiry still counts the real milliseconds too."""

    def __init__(self, client: Redis) -> None:
        self.now = BEGINNING
        self._move = client.register_script(_MOVE)

    def advance(self, seconds: float) -> None:
        """Move the clock on: what expires meanwhile is gone."""
        self.now = round(self.now + seconds, 6)
        whole = math.floor(self.now)
        self._move([KEY], [round(seconds * 1000), whole, round((self.now - whole) * 1e6)])


@cache
def _clocked() -> list[tuple[Script, str, str]]:
    """All scripts of this process, each with a text that reads our clock, and that text's hash."""
    found = []  # lazy objects of others pretend to be of any class
    for script in [each for each in gc.get_objects() if type(each) is Script]:
        assert script.sha  # computed now, or it would be that of the changed text for ever
        source = script.source.replace("redis.call('TIME')", f"redis.call('LRANGE', '{KEY}', 0, 1)")
        source = _INSTANT.sub(r"'PEXPIRE', \1, ", source)  # the server has its own clock for these
        found.append((script, source, sha1(source.encode(), usedforsecurity=False).hexdigest()))
    return found


@contextmanager
def stopped(client: Redis) -> Iterator[Clock]:
    """Let all scripts, RQ and this process read a clock that only `advance` moves."""
    clock = Clock(client)
    with pytest.MonkeyPatch.context() as patch:
        for script, source, sha in _clocked():
            patch.setattr(script, "_source", source)
            patch.setattr(script, "_sha", sha)
        patch.setattr(time, "time", lambda: clock.now)
        for module in (rq.queue, rq.job):
            patch.setattr(module, "now", lambda: datetime.fromtimestamp(clock.now, UTC))
        patch.setattr(rq.registry, "current_timestamp", lambda: int(clock.now))
        clock.advance(0)
        yield clock
