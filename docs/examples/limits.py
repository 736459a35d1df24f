"""Limits in your own code: logins, an API that charges by size, and a few imports at once."""

from __future__ import annotations

from packmule.config import Settings
from packmule.coordination.limits.concurrency import ConcurrencyLimit, NoFreeSlot
from packmule.coordination.limits.rate_limit import RateLimitExceeded, SlidingWindow, TokenBucket
from packmule.coordination.redis.connection import connect

settings = Settings.from_env()

with connect(settings.redis_url, settings.data_dir) as client:
    # Never more than five attempts in any minute, for each address.
    logins = SlidingWindow(client, "logins", "5/m")
    for attempt in range(6):
        try:
            logins.require("203.0.113.7")
            print(f"login attempt {attempt + 1}")
        except RateLimitExceeded as refused:
            print(f"too many: wait {refused.retry_after:.0f} s")
    logins.reset("203.0.113.7")

    # A thousand per hour at an even pace, up to fifty at once. A large request counts as ten.
    api = TokenBucket(client, "api", "1000/h burst 50")
    answer = api.hit("token-1", cost=10)
    print(f"{answer.allowed}, {answer.remaining} left, all of it again in {answer.reset_after:.0f} s")

    # Two imports per tenant at a time. One that takes longer than its lease renews it.
    imports = ConcurrencyLimit(client, "imports", slots=2, lease=30)
    with imports.hold("acme") as first, imports.hold("acme"):
        try:
            imports.acquire("acme")
        except NoFreeSlot as refused:
            print(f"busy: try again in at most {refused.retry_after:.0f} s")
        if imports.renew(first) is None:
            raise SystemExit("lost the slot: another may import now")
