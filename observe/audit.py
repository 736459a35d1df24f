"""The audit: who did what, when, and from where."""

from __future__ import annotations

import os
import pwd
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from redis import Redis

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.coordination.streams.stream import FIELD, Event, Stream, unpack
from packmule.jobs import keys
from packmule.units import YEAR

MOST_ENTRIES = 100_000
MAX_AGE = float(YEAR)
"""Seconds after which an action may be deleted: a year."""

AT_ONCE, MOST_LOOKED = 500, 5_000
"""Entries that one round trip of `latest` reads, and that one call looks at."""

CURSOR = re.compile(r"[0-9]{1,20}-[0-9]{1,20}", re.ASCII)


class Action(NamedTuple):
    """An `action`, such as `queue pause`, of `who` on `subject`, at the Unix time `at`.

    `who` is a user of the dashboard and `where` that user's address, or `user@host` of a command and nothing.
    """

    id: str
    at: float
    who: str
    action: str
    subject: Mapping[str, Any]
    where: str = ""

    @property
    def on(self) -> str:
        """The subject as one line: `queue=mail`, or `ids=a,b done=2`."""
        return " ".join(f"{name}={_word(value)}" for name, value in self.subject.items())


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def stream(client: Redis) -> Stream:
    """The stream of all actions."""
    return Stream(client, keys.AUDIT, max_entries=MOST_ENTRIES, max_age=MAX_AGE)


def record(client: Redis, action: str, subject: Mapping[str, Any], who: str = "", where: str = "") -> None:
    """Record an action, of this process's user if `who` isn't given. Raises what redis-py raises.

    >>> record(client, "job cancel", {"id": id}, "ada", "192.0.2.7")  # doctest: +SKIP
    """
    stream(client).append([_encodable([time.time(), who or whoami(), action, dict(subject), where])])


def _encodable(value: Any) -> Any:
    """The value, with lone surrogates as `\\udcff`: an act on an id that isn't UTF-8 is recorded, too.

    Integers that streams can't hold are texts.
    """
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    if isinstance(value, Mapping):
        return {_encodable(name): _encodable(each) for name, each in value.items()}
    return [_encodable(each) for each in value] if isinstance(value, list | tuple) else value


def whoami() -> str:
    """The user that this process runs as, and its host: `user@host`."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def parse(event: Event) -> Action | None:
    """The action in a stream's event; None if the event is not ours."""
    match event.value:
        case [int() | float() as at, str(who), str(action), dict(subject)]:
            return Action(event.id, float(at), who, action, subject)
        case [int() | float() as at, str(who), str(action), dict(subject), str(where)]:
            return Action(event.id, float(at), who, action, subject, where)
    return None


def read(client: Redis, since: str = "0") -> Iterator[Action]:
    """The actions after `since`, an id or Unix milliseconds, the oldest first."""
    for event in stream(client).read_all(since):
        if (parsed := parse(event)) is not None:
            yield parsed


class Page(NamedTuple):
    """Some actions, the newest first, and the cursor of the next page, None at the end."""

    actions: list[Action]
    next: str | None


def latest(
    client: Redis, before: str = "", count: int = 50, fits: Callable[[Action], bool] = lambda action: True
) -> Page:
    """The last `count` actions that fit, of those before the cursor `before`.

    One call looks at some `MOST_LOOKED` entries; if it finds fewer that fit, the next page goes on there.

    >>> latest(client, fits=lambda action: action.who == "ada").actions  # doctest: +SKIP
    [Action(id='1764504000000-0', at=1764504000.0, who='ada', action='queue pause', ...)]
    """
    found: list[Action] = []
    end = before if CURSOR.fullmatch(before) else ""
    for _ in range(MOST_LOOKED // AT_ONCE):
        start = f"({end}" if end else "+"
        (entries,) = pipelined(client, [("XREVRANGE", keys.AUDIT, start, "-", "COUNT", AT_ONCE)], ())
        for id, fields in entries:
            end = as_text(id)
            events = unpack(end, fields.get(FIELD.encode(), b""))[0]
            actions = [action for event in reversed(events) if (action := parse(event)) is not None]
            found += [action for action in actions if fits(action)]
            if len(found) >= count:
                return Page(found, end)
        if len(entries) < AT_ONCE:
            return Page(found, None)
    return Page(found, end)
