"""Queues and schedules by HTTP, and the numbers that an autoscaler asks for."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from packmule.coordination.limits.rate import InvalidRate, Rate
from packmule.dashboard.api.endpoint import Call, Endpoint, endpoint
from packmule.dashboard.api.problems import Fault, Refused
from packmule.dashboard.api.scopes import Scope
from packmule.errors import NotFound
from packmule.jobs import queues as source
from packmule.observe.queue_info import QueueInfo, queue_infos
from packmule.observe.scale import QueueScale, Scales, scales


class NoSuchQueue(NotFound, LookupError):
    """No queue has that name: it isn't among the settings' ones, and no job was ever enqueued to it."""


class QueueState(msgspec.Struct, frozen=True):
    """A queue, and whether the request changed it."""

    queue: str
    paused: bool
    changed: bool


class Purged(msgspec.Struct, frozen=True):
    """How many jobs were deleted."""

    queue: str
    deleted: int


class NewRate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many jobs of the queue may start per interval: `100/m`, `5/30s`; null lifts the limit."""

    rate: Annotated[str, Meta(max_length=100)] | None


class QueueRate(msgspec.Struct, frozen=True):
    """A queue's rate."""

    queue: str
    rate: str | None


@endpoint("GET", "/queues", Scope.READ, answer=dict[str, QueueInfo])
def queues(call: Call) -> dict[str, QueueInfo]:
    """List queues with their numbers of jobs by status."""
    return queue_infos(call.service.client, _names(call))


@endpoint("GET", "/queues/{name}", Scope.READ, answer=QueueInfo, may=(404,))
def read_queue(call: Call) -> QueueInfo:
    """Read the numbers of one queue."""
    name = _known(call)
    return queue_infos(call.service.client, [name])[name]


@endpoint("POST", "/queues/{name}/pause", Scope.ACT, answer=QueueState, action="queue pause", may=(404,))
def pause(call: Call) -> QueueState:
    """Keep workers from taking jobs of a queue."""
    name = _known(call)
    return QueueState(name, True, source.pause(call.service.client, name))


@endpoint("POST", "/queues/{name}/resume", Scope.ACT, answer=QueueState, action="queue resume", may=(404,))
def resume(call: Call) -> QueueState:
    """Let workers take jobs of a queue again."""
    name = _known(call)
    return QueueState(name, False, source.resume(call.service.client, name))


@endpoint("POST", "/queues/{name}/purge", Scope.ADMIN, answer=Purged, action="queue purge", may=(404,))
def purge(call: Call) -> Purged:
    """Delete all jobs of a queue that have not started."""
    name = _known(call)
    deleted = source.purge(call.service.client, name)
    call.audited["deleted"] = deleted
    return Purged(name, deleted)


@endpoint(
    "PUT", "/queues/{name}/rate", Scope.ADMIN, body=NewRate, answer=QueueRate, action="queue limit",
    may=(404,),
)  # fmt: skip
def limit(call: Call) -> QueueRate:
    """Limit how many jobs of a queue may start per interval, across all workers."""
    name, text = _known(call), call.body.rate
    try:
        rate = Rate.parse(text) if text is not None else None
    except InvalidRate as error:
        raise Refused(422, "InvalidRate", str(error), Fault(str(error), "#/rate")) from None
    source.set_rate(call.service.client, name, rate)
    call.audited["rate"] = str(rate) if rate else "none"
    return QueueRate(name, str(rate) if rate else None)


@endpoint("GET", "/scale", Scope.READ, answer=Scales)
def scale(call: Call) -> Scales:
    """Read what an autoscaler needs, such as KEDA: `waiting`, or `queues.mail.waiting`."""
    return scales(call.service.client, _names(call))


@endpoint("GET", "/scale/{name}", Scope.READ, answer=QueueScale, may=(404,))
def scale_of_queue(call: Call) -> QueueScale:
    """Read what an autoscaler needs of one queue."""
    name = _known(call)
    return scales(call.service.client, [name]).queues[name]


def _names(call: Call) -> list[str]:
    return source.names(call.service.client, call.service.site.queues)


def _known(call: Call) -> str:
    """The queue in the path. Raises `NoSuchQueue`."""
    name, names = call.path["name"], _names(call)
    if name not in names:
        raise NoSuchQueue(f"no queue is called {name!r:.200}: there are {', '.join(names[:20])}")
    return name


ENDPOINTS: tuple[Endpoint, ...] = (
    queues, read_queue, pause, resume, purge, limit, scale, scale_of_queue,
)  # fmt: skip
