"""Records that whoever reaches the server can write: each of their texts is hostile."""

from __future__ import annotations

import time

import msgspec
from redis import Redis

from packmule.coordination.locks import grants
from packmule.jobs import keys, schedule_ledger, schedule_store, wire
from packmule.observe import audit, events

NASTY = (
    "[/red][bold]:boom:{x}\x1b[2J\x1b]0;owned\x07\x9b31m\x7f\u202egnp.exe\u2066\u061c\u200b\ufeff"
    "\r\nforged line\x0b\x85\u2028forged line\u2029\U000e0041"
)
"""Markup, ANSI escapes, C1 controls, bidi and unseen characters, and every kind of line end."""

NOW = int(time.time())
FINGERPRINT = "3f9a61c204be"


class Hostile:
    """Records of every kind, in which every text is `text`; `job`, `queue` and so on name some of them."""

    def __init__(self, client: Redis, text: str) -> None:
        self.client = client
        self.text = text
        self.job, self.queue = f"id {text}", f"queue {text}"
        self.worker, self.name = f"worker {text}", f"name {text}"

    def write(self) -> None:
        """Write what whoever reaches the server can write: records of which every text is the text."""
        self.client.sadd(keys.QUEUES, keys.queue_key(self.queue))
        call = msgspec.json.encode([self.name, None, [self.text], {f"argument {self.text}": self.text}])
        for status in ("queued", *keys.REGISTRIES, "stopped"):
            for id in (f"{status} {self.job}",):
                self.client.hset(keys.job_key(id), mapping=self.record(status, call))
                self.client.hset(
                    keys.progress_key(id), mapping={"done": "3", "total": "4", "message": self.text}
                )
                self.say(id)
                result = wire.error_text(
                    f"Traceback (most recent call last):\n  {self.text}\nValueError: {self.text}"
                )
                kind = "finished" if status == "finished" else "failed"
                value = msgspec.json.encode({self.text: self.text}).decode()
                said = {"return_value": wire.b64encode(value.encode()).decode()} if kind == "finished" else {}
                self.client.xadd(
                    keys.results_key(id),
                    {"type": wire.RESULT_TYPES[kind], "created_at": NOW, **(said or {"exc_string": result})},
                )
                if status == "queued":
                    self.client.rpush(keys.queue_key(self.queue), id)
                else:
                    place = "failed" if status == "stopped" else status
                    member = f"{id}:execution" if status == "started" else id
                    self.client.zadd(keys.registry_key(place, self.queue), {member: NOW + 9_999})
        self.client.sadd(keys.WORKERS, keys.worker_key(self.worker))
        self.client.hset(
            keys.worker_key(self.worker),
            mapping={
                "state": self.text,
                "queues": self.queue,
                "current_job": self.job,
                "last_heartbeat": self.text,
            },
        )
        self.client.sadd(keys.PAUSED, self.queue)
        self.client.hset(keys.QUEUE_RATES, self.queue, f"1000000 1000000 {self.text}")
        self.client.zadd(keys.LEASES, {self.worker: NOW + 9_999})
        limits = msgspec.json.encode([["slots", f"slot {self.text}", 1]]).decode()
        self.client.hset(
            keys.job_key("queued " + self.job), mapping={"limits": limits, "group": f"group {self.text}"}
        )
        self.client.hset(keys.groups_key(self.queue), f"group {self.text}", "")
        self.client.rpush(keys.group_key(self.queue, f"group {self.text}"), "queued " + self.job)
        self.client.zadd(
            keys.blocked_key(f"slot {self.text}"), {keys.blocked_name(self.queue, f"group {self.text}"): NOW}
        )
        self.client.hset(keys.holders_key(f"slot {self.text}"), self.job, f"{self.worker} execution")
        batch = f"batch {self.text}"
        self.client.zadd(keys.BATCHES, {batch: NOW})
        self.client.hset(
            keys.batch_key(batch),
            mapping={
                "name": self.text,
                "created": NOW,
                "total": 2,
                "failed": 1,
                "sealed": 1,
                "parent": batch,
            },
        )
        self.client.hset(f"{keys.batch_key(batch)}:jobs", mapping={f"failed {self.job}": "failed"})
        for type in (self.text, *events.TYPES):
            details = {f"detail {self.text}": self.text, "reason": self.text}
            events.stream(self.client).append(
                [[type, self.job, self.queue, self.worker, float(NOW), details]]
            )
        audit.stream(self.client).append(
            [
                [
                    float(NOW),
                    f"who {self.text}",
                    f"did {self.text}",
                    {f"subject {self.text}": [self.text], "name": self.text},
                ]
            ]
        )
        error = keys.error_key(FINGERPRINT)
        names = ("type", "text", "where", "job", "job_id", "state", "queues", "releases")
        self.client.hset(
            error, mapping={**dict.fromkeys(names, self.text), "total": 3, "last": NOW, "example": result}
        )
        self.client.rpush(f"{error}:jobs", f"failed {self.job}")
        self.client.zadd(keys.ERRORS, {FINGERPRINT: NOW})
        self.client.hset(schedule_store.SCHEDULES, f"schedule {self.text}", f"no schedule {self.text}")
        schedule = {
            "name": f"sound {self.text}",
            "every": "5m",
            "job": self.name,
            "args": [self.text],
            "owner": self.text,
        }
        self.client.hset(schedule_store.SCHEDULES, f"sound {self.text}", msgspec.json.encode(schedule))
        self.client.hset(
            schedule_store.state_key(f"sound {self.text}"), mapping={"job": self.job, "fault": self.text}
        )
        tick = {"tick": NOW, "did": self.text, "why": self.text, "job": self.job, "at": NOW}
        self.client.rpush(schedule_ledger.ticks_key(f"sound {self.text}"), msgspec.json.encode(tick))
        self.client.hset(
            keys.LEADER, mapping={"name": self.text, "term": self.text, "since": NOW, "until": NOW + 9_999}
        )
        self.client.set(grants.keys(f"lock {self.text}")[0], f"host {self.text}.12.{self.text}", ex=9_999)
        minute, hour = NOW // 60, NOW // 3600
        for key in (f"minute:{minute}", f"minute:{minute + 1}", f"hour:{hour}", "total"):
            self.client.hset(f"{keys.STATISTICS}{key}", f"{self.queue}\x1f{self.name}\x1fk1", 3)

    def say(self, id: str) -> None:
        line = msgspec.json.encode([[NOW, 20, self.text, {self.text: self.text, "other": [self.text]}]])
        for key, said in ((keys.log_key(id), line), (keys.output_key(id), msgspec.json.encode([self.text]))):
            self.client.xadd(key, {"by": self.text, "attempt": 1, "said": said}, "300-1")

    def record(self, status: str, call: bytes) -> dict[str, str | bytes]:
        return {
            "status": status,
            "origin": self.queue,
            "data": call,
            "description": self.text,
            "created_at": self.text,
            "enqueued_at": self.text,
            "started_at": self.text,
            "ended_at": self.text,
            "worker_name": self.worker,
            "timeout": self.text,
            "batch": f"batch {self.text}",
            "crash": msgspec.json.encode(
                {
                    "cause": self.text,
                    "at": self.text,
                    "worker": self.text,
                    "host": self.text,
                    "peak_memory": 1,
                }
            ),
        }
