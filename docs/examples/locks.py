"""One holder at a time across machines: a lock, and two resources that refuse a late holder by its token.

    python docs/examples/locks.py

Runs on the servers of PACKMULE_LOCK_URLS, or on the job server alone.
"""

from __future__ import annotations

import sqlite3
import time

from packmule.config import Settings
from packmule.coordination.locks import fence
from packmule.coordination.locks.redlock import LockLost, NotAcquired, Redlock
from packmule.coordination.redis.connection import connect, lock_clients

settings = Settings.from_env()
redlock = Redlock(lock_clients(settings.lock_urls, settings.redis_url, settings.data_dir))
client = connect(settings.redis_url, settings.data_dir)

# Held and renewed until the block ends. Others wait for it, or get NotAcquired.
with redlock.acquire("invoices/2026-11", ttl=10, on_lost=lambda lock: print("stop:", lock.name)) as lock:
    try:
        redlock.acquire("invoices/2026-11", wait=0)
    except NotAcquired as error:
        print(error)

    # A value in Redis: read with the token, and written with it.
    number = int(fence.read(client, "invoices:last", lock.fence) or 0)
    fence.write(client, "invoices:last", number + 1, lock.fence)

# A row in a database: the first statement refuses all earlier holders, the others carry the token.
database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER, fence INTEGER DEFAULT 0)")
database.execute("INSERT INTO accounts (id, balance) VALUES (1, 100)")
claim = "UPDATE accounts SET fence = :fence WHERE id = :id AND fence < :fence"
write = "UPDATE accounts SET balance = balance - :amount WHERE id = :id AND fence = :fence"

with redlock.acquire("account 1", ttl=0.2, renew=False) as frozen:
    database.execute(claim, {"id": 1, "fence": frozen.fence})
    while time.monotonic() < frozen.until + 0.1:
        time.sleep(0.05)  # as if this process had been frozen until its lock expired
    with redlock.acquire("account 1") as lock:
        database.execute(claim, {"id": 1, "fence": lock.fence})
        late = database.execute(write, {"id": 1, "fence": frozen.fence, "amount": 50})
        timely = database.execute(write, {"id": 1, "fence": lock.fence, "amount": 10})
        print(f"the late holder changed {late.rowcount} rows, the new one {timely.rowcount}")
    try:
        frozen.extend()
    except LockLost as error:
        print(error)
    frozen.release()

print("balance", database.execute("SELECT balance FROM accounts").fetchone()[0])
database.close()
redlock.close()
client.close()
