"""Copying a job: enqueue the same call as a new job, with some of its arguments changed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from packmule.jobs import reader, registry
from packmule.jobs.client import Client
from packmule.jobs.handle import JobHandle
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.options import Options


def copy(
    client: Client,
    id: str,
    changes: Mapping[str, Any],
    queue: str | None = None,
    new_id: str | None = None,
) -> JobHandle:
    """Enqueue a new job that calls what `id` does, with other values for the arguments in `changes`.

    It goes to the same queue unless another is given, with the options of its type: it is in no batch, and a
    unique job has its place as any enqueue. A call that chooses its `new_id` can be repeated. Raises
    `NoSuchJob`, `NotRegistered` if this process doesn't know the function, and what `Client.enqueue` raises.

    >>> copy(client, "2a9f", {"month": "2026-12"})  # doctest: +SKIP
    '17cc'
    """
    info = reader.read(client.redis, id)
    if info.unread:
        raise InvalidCall(f"job {id} can't be copied: {info.unread}")
    job = registry.find(info.name)
    try:
        bound = job.signature.bind_partial(*info.args, **info.kwargs)
    except TypeError as error:
        raise InvalidCall(f"{job.name}: job {id} no longer fits it: {error}") from None
    given = {name: value for name, value in changes.items() if _is_one(job.signature.parameters.get(name))}
    bound.arguments.update(given)
    others = {
        name: value for name, value in changes.items() if name not in given
    }  # for **kwargs, or mistakes
    options = Options(queue=queue or info.queue, priority=info.priority or None, job_id=new_id)
    return client.send(job, [(bound.args, bound.kwargs | others)], options)[0]


def _is_one(parameter: inspect.Parameter | None) -> bool:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter is not None and parameter.kind not in kinds
