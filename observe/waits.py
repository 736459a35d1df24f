"""What a job waits for, in words: its turn, a limit, a slot, or other jobs."""

from __future__ import annotations

from collections.abc import Sequence

from redis import Redis

from packmule.coordination.redis.replies import pipelined
from packmule.jobs import keys
from packmule.jobs.flow_graph import in_front_of
from packmule.jobs.reader import JobInfo
from packmule.jobs.steps import ANSWER
from packmule.observe.blocked import Group, Wait
from packmule.observe.slots import Holder, Limit
from packmule.units import given_span, span

MOST_NAMED = 3
"""Holders, or jobs in front, that are named."""

MOST_IN_FRONT = 10_000
"""Jobs of a queue's list among which one is looked for."""


def of_queued(wait: Wait) -> str | None:
    """What a queued job waits for; None if it only waits for its turn.

    >>> of_queued(wait_of(client, id))  # doctest: +SKIP
    'its queue, which is paused; 3 of its group'
    """
    reasons = ["its queue, which is paused"] if wait.is_paused else []
    if wait.paused_batch:
        reasons.append(f"batch {wait.paused_batch}, which is paused")
    if wait.before:
        reasons.append(f"{wait.before:,} of its group")
    if wait.group and (wait.before or wait.group.waits_for != "turn"):
        reasons.append(("the first for " if wait.before else "") + of_group(wait.group, wait.holders))
    if wait.rate:
        reasons.append(f"its queue's rate, {wait.rate}")
    return "; ".join(reasons) or None


def of_turn(client: Redis, info: JobInfo) -> str | None:
    """How many jobs are in front of a queued one; None if it isn't among the first of its queue's list."""
    place = ("LPOS", keys.queue_key(info.queue), info.id, "MAXLEN", MOST_IN_FRONT)
    (before,) = pipelined(client, [place], None)
    if before is None:
        return None
    return f"its turn, behind {before:,} of its queue" if before else "a worker: it is the next of its queue"


def of_group(group: Group, holders: Sequence[Holder]) -> str:
    """What the first job of a group waits for."""
    if group.waits_for == "time":
        return f"its time, in {span(group.seconds or 0)}"
    if group.waits_for == "turn":
        return "its turn"
    if group.waits_for == "check":
        return "the scheduler's next check"
    if any(each.per_host and each.key == group.lacks for each in group.limits):
        return f"room on a host for {group.lacks}"
    named = ", ".join(f"job {each.job} on {each.worker}" for each in holders[:MOST_NAMED])
    more = " and others" if len(holders) > MOST_NAMED else ""
    return (
        f"a slot of {group.lacks}, held by {named}{more}" if named else f"a slot of {group.lacks}, now free"
    )


def of_limit(limit: Limit) -> str:
    """What a limit lets through."""
    if limit.kind == "singleton":
        return f"one at a time: {limit.key}"
    if limit.kind == "slots":
        costs = "" if limit.cost is None else f", the first takes {limit.cost:,}"
        return f"{limit.most:,} at a time{' per host' * limit.per_host}{costs}: {limit.key}"
    if limit.kind == "turns":
        return f"turns: {limit.key}"
    burst = f", {limit.most:,} at once after a rest" if limit.most > 1 else ""
    costs = "" if limit.cost is None else f", the first takes {limit.cost:,}"
    return f"one in {given_span(limit.interval)}{burst}{costs}: {limit.key}"


def of_steps(info: JobInfo) -> str | None:
    """What a job waits for by its own will; None if it doesn't."""
    if info.waits is None:
        return None
    if info.waits.startswith(ANSWER):
        return f"an answer for step {info.waits.removeprefix(ANSWER)}, whose end is unknown"
    name = signal_of(info)
    return "the end of its sleep" if name is None else f"signal {name}"


def of_unknown(client: Redis, info: JobInfo) -> str | None:
    """That a scheduled job waits for a worker that knows its function; None if it does not.

    >>> of_unknown(client, reader.read(client, "2a9f"))  # doctest: +SKIP
    'a worker that knows shop.report: restart those that started before it was ...'
    """
    since = client.hget(keys.job_key(info.id), "unknown_since") if info.status == "scheduled" else None
    if not since:
        return None
    return (
        f"a worker that knows {info.name}: restart those that started before it was written or don't load "
        "its module (PACKMULE_MODULES); if it was renamed, keep the old name as a job, too"
    )


def due(client: Redis, infos: Sequence[JobInfo]) -> dict[str, float]:
    """When those of the jobs run that are scheduled or to be retried, in Unix seconds, by id; one trip.

    >>> due(client, [reader.read(client, "2a9f")])  # doctest: +SKIP
    {'2a9f': 1796103362.95}
    """
    scheduled = [each for each in infos if each.status == "scheduled" and each.waits is None]
    commands = [("ZSCORE", keys.registry_key("scheduled", each.queue), each.id) for each in scheduled]
    found = pipelined(client, commands, None) if commands else []
    return {each.id: at for each, at in zip(scheduled, found, strict=True) if at is not None}


def signal_of(info: JobInfo) -> str | None:
    """The name of the signal that a job waits for, None if it waits for none."""
    kind, _, name = (info.waits or "").partition(":")
    return name if kind.startswith("signal") else None


def of_deferred(client: Redis, info: JobInfo) -> str | None:
    """The jobs or nodes of a flow that a deferred job waits for; None if it waits for none."""
    found = in_front_of(client, info.id) if info.status == "deferred" else []
    if isinstance(found, tuple):
        return f"{found[1]:,} nodes of flow {found[0]}"
    more = f" and {len(found) - MOST_NAMED:,} more" if len(found) > MOST_NAMED else ""
    return ", ".join(f"job {id} ({status or 'gone'})" for id, status in found[:MOST_NAMED]) + more or None
