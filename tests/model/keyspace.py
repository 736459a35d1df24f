"""The whole keyspace as one value, read in one step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from redis import Redis

from packmule.coordination.redis.replies import as_text
from packmule.tests.model import clock

_READ = """
local READ = {
  hash = {'HGETALL'}, list = {'LRANGE', 0, -1}, set = {'SMEMBERS'}, zset = {'ZRANGE', 0, -1, 'WITHSCORES'},
  string = {'GET'}, stream = {'XRANGE', '-', '+'},
}
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  local command = READ[kind]
  local value
  if key == 'pm:events' then
    value = redis.call('XRANGE', key, '(' .. ARGV[1], '+')
  else
    value = redis.call(command[1], key, unpack(command, 2))
  end
  found[#found + 1] = {key, kind, redis.call('PTTL', key), value}
end
return found
"""

STATUSES = ("scheduled", "deferred", "finished", "failed", "canceled")


@dataclass
class Keyspace:
    """What Redis holds at one moment, by kind of key."""

    values: dict[str, Any] = field(default_factory=dict)
    """Each key's value as it was read."""
    expiring: set[str] = field(default_factory=set)
    """The keys that have an expiry."""
    records: dict[str, dict[str, str]] = field(default_factory=dict)
    queues: dict[str, list[str]] = field(default_factory=dict)
    """By queue, the jobs of its list and of its bands."""
    banded: set[str] = field(default_factory=set)
    """The lists of queues that have jobs in bands."""
    heads: dict[str, dict[str, str]] = field(default_factory=dict)
    """By queue, the head of each group."""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """By `<queue>:<group>`, the jobs behind the head."""
    registries: dict[str, dict[str, dict[str, float]]] = field(default_factory=lambda: defaultdict(dict))
    """By status and queue, the ids and their scores; `wip` has executions."""
    claims: dict[str, dict[str, str]] = field(default_factory=dict)
    waiting: dict[str, list[str]] = field(default_factory=dict)
    holders: dict[str, dict[str, str]] = field(default_factory=dict)
    weights: dict[str, dict[str, str]] = field(default_factory=dict)
    blocked: dict[str, dict[str, float]] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    batches: dict[str, dict[str, str]] = field(default_factory=dict)
    batch_jobs: dict[str, dict[str, str]] = field(default_factory=dict)
    held: dict[str, list[str]] = field(default_factory=dict)
    unique: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str, str]] = field(default_factory=list)
    """The new events: type and job."""
    last_event: str = "0"

    def places(self) -> dict[str, list[str]]:
        """By job, every place where its id waits or is claimed."""
        found: dict[str, list[str]] = defaultdict(list)
        spots: list[tuple[str, Sequence[str]]] = [
            *((f"queue {name}", ids) for name, ids in self.queues.items()),
            *((f"group {name}", ids) for name, ids in self.groups.items()),
            *((f"held by batch {name}", ids) for name, ids in self.held.items()),
            *((f"moved to {name}", ids) for name, ids in self.waiting.items()),
            *((f"claimed by {name}", list(ids)) for name, ids in self.claims.items()),
            *(
                (f"{status} {queue}", list(ids))
                for status in ("scheduled", "deferred")
                for queue, ids in self.registries[status].items()
            ),
        ]
        for place, ids in spots:
            for id in ids:
                found[id].append(place)
        return found

    def ended_places(self) -> dict[str, list[str]]:
        """By job, the registries of ended jobs that name it."""
        found: dict[str, list[str]] = defaultdict(list)
        for status in ("finished", "failed", "canceled"):
            for ids in self.registries[status].values():
                for id in ids:
                    found[id].append(status)
        return found

    def status(self, id: str) -> str | None:
        """The status in a job's record; None without a record."""
        return self.records[id].get("status", "") if id in self.records else None


def read(client: Redis, last_event: str = "0") -> Keyspace:
    """The keyspace now, with the events after `last_event`."""
    found = Keyspace(last_event=last_event)
    for key, kind, left, raw in client.eval(_READ, 0, last_event):
        name, value = as_text(key), _value(as_text(kind), raw)
        if name == clock.KEY:
            continue
        if name == "pm:events":
            _add_events(found, raw)
            continue
        found.values[name] = value
        if left >= 0:
            found.expiring.add(name)
        _sort(found, name, value)
    return found


def _value(kind: str, raw: Any) -> Any:
    if kind == "string":
        return as_text(raw)
    if kind == "stream":
        return [as_text(id) for id, _ in raw]
    texts = [each.decode(errors="replace") for each in raw]
    if kind == "hash":
        return dict(zip(texts[::2], texts[1::2], strict=True))
    if kind == "zset":
        return {id: float(score) for id, score in zip(texts[::2], texts[1::2], strict=True)}
    return set(texts) if kind == "set" else texts


def _add_events(found: Keyspace, raw: Sequence[Any]) -> None:
    for id, (_, packed) in raw:
        found.last_event = as_text(id)
        for event in msgspec.msgpack.decode(packed):
            found.events.append((event[0], event[1]))


def _sort(found: Keyspace, key: str, value: Any) -> None:
    whole: Mapping[str, str] = {"pm:due": "due", "pm:unique": "unique"}
    named: Mapping[str, str] = {
        "rq:queue:": "queues", "pm:groups:": "heads", "pm:group:": "groups", "pm:waiting:": "waiting",
        "pm:holders:": "holders", "pm:blocked:": "blocked", "pm:weights:": "weights",
    }  # fmt: skip
    if key in whole:
        setattr(found, whole[key], value)
        return
    for prefix, kind in named.items():
        if key.startswith(prefix):
            name, _, band = key.removeprefix(prefix).partition("," if kind == "queues" else "\0")
            places = getattr(found, kind)
            places[name] = [*places.get(name, ()), *value] if kind == "queues" else value
            if band:
                found.banded.add(prefix + name)
            return
    first, _, rest = key.partition(":")
    kind, _, name = rest.partition(":")
    if first == "rq" and kind == "job" and ":" not in name:
        found.records[name] = value
    elif first == "rq" and kind in (*STATUSES, "wip"):
        found.registries[kind][name] = value
    elif first == "pm" and kind == "claims":
        found.claims[name] = {id: execution for id, execution in value.items() if not id.startswith(".")}
    elif first == "pm" and kind == "batch":
        batch, _, part = name.partition(":")
        {"": found.batches, "jobs": found.batch_jobs, "held": found.held}.get(part, {})[batch] = value
