"""The events of all jobs, as Server-Sent Events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from packmule.coordination.streams.stream import Missed
from packmule.dashboard.api.endpoint import Call, Endpoint, endpoint
from packmule.dashboard.api.problems import Fault, Refused
from packmule.dashboard.api.scopes import Scope
from packmule.dashboard.api.sse import MEDIA_TYPE, Pace, event, stream
from packmule.observe import events as source
from packmule.observe.events import TYPES, EventFilter

LOOK_ENTRIES = 50
SHOWN = ("started", "ended", "due", "until", "done", "total", "delay", "fingerprint", "error")
"""Details that hold no text of a job's own."""


class Wanted(msgspec.Struct, frozen=True):
    """Which events, and since when: those after the id of one, or from now on."""

    type: Annotated[
        list[str], Meta(extra_json_schema={"items": {"type": "string", "enum": list(TYPES)}})
    ] = []
    queue: list[str] = []
    job: str | None = None
    since: Annotated[str, Meta(description="The id of an event, Unix milliseconds, or `$` for now.")] = "$"


@endpoint("GET", "/events", Scope.READ, query=Wanted, media_type=MEDIA_TYPE)
async def follow_events(call: Call) -> Any:
    """Follow the events of all jobs by Server-Sent Events named for their types; their data is an event.

    A client that reconnects with `Last-Event-ID` misses none that is kept; `missed` says that some are not.
    Texts of jobs in the details need the scope `payloads`.
    """
    asked: Wanted = call.query
    if unknown := [each for each in asked.type if each not in TYPES]:
        text = f"no event is of the type {unknown[0]:.50}: there are {', '.join(TYPES)}"
        raise Refused(422, "InvalidQuery", text, Fault(text, parameter="type"))
    since = call.request.headers.get("last-event-id") or asked.since
    try:
        found = source.stream(call.service.client)
        if since == "$":
            since = await call.service.in_thread(found.last_id)
        await call.service.in_thread(lambda: found.read(since, count=1))
    except ValueError as error:
        raise Refused(422, "InvalidQuery", str(error), Fault(str(error), parameter="since")) from None
    return await stream(call, "", _events(call, asked, since))


async def _events(call: Call, asked: Wanted, since: str) -> AsyncIterator[bytes]:
    wanted = EventFilter(asked.job, frozenset(asked.type), frozenset(asked.queue))
    found, pace, sees = source.stream(call.service.client), Pace(), call.asker.may(Scope.PAYLOADS)
    while True:
        some = await call.service.in_thread(lambda after: found.read(after, count=LOOK_ENTRIES), since)
        for each in some:
            since = each.id
            if isinstance(each.value, Missed):
                yield event("missed", {"entries": each.value.entries}, each.id)
                continue
            parsed = source.parse(each)
            if parsed in wanted and parsed is not None:
                details = parsed.details
                if not sees:
                    details = {name: value for name, value in details.items() if name in SHOWN}
                yield event(parsed.type, {**parsed._asdict(), "details": details}, each.id)
        if len(some) < LOOK_ENTRIES:
            await pace.wait(bool(some))
        yield b""


ENDPOINTS: tuple[Endpoint, ...] = (follow_events,)
