"""Fitness: whether a server can keep jobs and run our scripts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import redis
from redis.exceptions import AskError, ClusterCrossSlotError, ClusterDownError, MovedError

from packmule.coordination.redis.connection_kinds import Replica
from packmule.errors import Unavailable

OLDEST_SERVER = (6, 2)

_CLUSTER_ERRORS = (MovedError, AskError, ClusterCrossSlotError, ClusterDownError)
_CLUSTER_REFUSAL = "Script attempted to access"

_TWO_PLACES = ("pm:here", "pm:there")
"""Keys of two slots. A user of the server may be confined to keys that begin with `pm:` and `rq:`."""


class UnfitServer(Unavailable, RuntimeError):
    """The server would lose jobs or can't run our scripts; the text says how to change that."""


def refuse_cluster(error: redis.ResponseError) -> None:
    """Raise `UnfitServer` if only a server in cluster mode, or one that behaves so, replies `error`."""
    if isinstance(error, _CLUSTER_ERRORS) or _CLUSTER_REFUSAL in str(error):
        raise UnfitServer(
            "the server runs in Redis Cluster mode, where RQ's keys lie on different nodes and no step can "
            "reach them all: use a server outside of cluster mode, with replicas or Sentinel for failovers"
        ) from None


def check(client: redis.Redis, *, allow_eviction: bool) -> list[str]:
    """Check that the server is fit for jobs; returns warnings, one line each.

    Raises `UnfitServer` if it is older than `OLDEST_SERVER`, if it behaves like a part of a Redis Cluster, or
    if it evicts keys when its memory is full and `allow_eviction` is False; `Replica` if it is read-only.
    """
    info: Mapping[str, Any] = client.info()
    refuse_old(str(info.get("redis_version", "")))
    _refuse_cluster(client)
    if info.get("role") == "slave":
        raise Replica("the server")
    warnings = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        fault = f"the server deletes jobs when its memory is full (maxmemory-policy {policy})"
        if not allow_eviction:
            raise UnfitServer(
                f"{fault}: run CONFIG SET maxmemory-policy noeviction, or set PACKMULE_ALLOW_EVICTION=1"
            )
        warnings.append(f"{fault}, and PACKMULE_ALLOW_EVICTION allows it")
    if not info.get("aof_enabled") and _has_no_save_points(client):
        warnings.append(
            "the server stores nothing on disk, so a restart loses all jobs: run CONFIG SET appendonly yes"
        )
    return warnings


def _refuse_cluster(client: redis.Redis) -> None:
    """Raise `UnfitServer` if one script can't use two keys, whatever the server says that it is."""
    try:
        client.eval("return 1", len(_TWO_PLACES), *_TWO_PLACES)
    except redis.ResponseError as error:
        refuse_cluster(error)
        raise


def refuse_old(version: str) -> None:
    """Raise `UnfitServer` if `version`, such as "6.0.16", is older than `OLDEST_SERVER`."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST_SERVER:
        raise UnfitServer(f"the server is Redis {version}: use Redis 6.2 or later, or any Valkey")


def _has_no_save_points(client: redis.Redis) -> bool:
    try:
        points: Mapping[Any, Any] = client.config_get("save")
    except redis.ResponseError:
        return False  # managed services forbid CONFIG and take care of persistence themselves
    return not any(points.values())
