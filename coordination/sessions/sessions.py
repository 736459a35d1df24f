"""Sessions: who has come in, under an id that only the visitor knows, until it is idle, old or ended."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.keys import bounded, named
from packmule.coordination.redis.replies import UNREADABLE, as_text
from packmule.coordination.redis.scripts import Script
from packmule.coordination.sessions.opaque import hashed, is_id, new_id
from packmule.errors import Conflict, UsageError
from packmule.units import DAY, KIB, YEAR

MOST_SESSIONS = 100
"""How many a user may have; one more ends the oldest."""

LONGEST_USER = 300
LONGEST_ORIGIN = 100
LONGEST_AGENT = 200
MOST_DATA = 4 * KIB

NOTED_EVERY = 60.0
"""Seconds after which another use of a session is noted, or a tenth of its idle time if that is less."""

ENDING_KEPT = 3600.0
"""Seconds longer than any session lives for which the end of all of a user's sessions is kept."""

ENDED_CHANNEL = "pm:endings"
"""Where scripts publish, as JSON, the index of the user whose sessions they ended, or the token's key."""

GARBAGE_ENDING = str(2**53)
"""The mark while Redis holds garbage in its place: everything is over then (`endings.lua`)."""

_SURROGATE = re.compile("[\ud800-\udfff]")

_start = Script("coordination.sessions", "start_session")
_read = Script("coordination.sessions", "read_session")
_rotate = Script("coordination.sessions", "rotate_session")
_end = Script("coordination.sessions", "end_session")
_end_all = Script("coordination.sessions", "end_all_sessions")
_list = Script("coordination.sessions", "list_sessions")


class SessionsEnded(Conflict, RuntimeError):
    """All sessions of the user were ended while this one was about to begin."""


class InvalidSession(UsageError, ValueError):
    """A user, data or a span that no session may have."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session that goes on. `ref` names it without letting anybody in; times are in Unix seconds."""

    ref: str
    user: str
    begun_at: float
    seen_at: float
    ends_at: float
    origin: str = ""
    agent: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


class Sessions:
    """The sessions of one site; `name` is a word of letters, digits and `. _ -`.

    A session ends after `idle` seconds without use (up to a minute later, because not each use is noted),
    `absolute` seconds after it began, or when it is ended. Redis stores the hash of its id. Safe in threads.

    >>> sessions = Sessions(client, "shop", idle=3600, absolute=86_400)  # doctest: +SKIP
    >>> id = sessions.start("ada", {"cart": 7}, origin="10.0.0.1")  # doctest: +SKIP
    >>> sessions.read(id).user  # doctest: +SKIP
    'ada'
    >>> sessions.end_all("ada")  # doctest: +SKIP
    1
    """

    def __init__(
        self, client: Redis, name: str, *, idle: float = 12 * 3600.0, absolute: float = 7.0 * DAY
    ) -> None:
        for what, seconds in (("idle", idle), ("absolute", absolute)):
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= YEAR:
                raise InvalidSession(f"{what}={seconds!r}: give a number of seconds from 1 to a year")
        self.client = client
        self.name = named(name)
        self.idle = idle
        self.absolute = absolute
        self._every = min(NOTED_EVERY, idle / 10)
        self._idle_ms = math.ceil((idle + self._every) * 1000)
        self.ending_ms = math.ceil((absolute + ENDING_KEPT) * 1000)
        self.prefix = f"pm:session:{name}:"
        self._indexes = f"pm:sessions:{name}:"
        self._endings = f"pm:ended:{name}:"

    def ending(self, user: str) -> str:
        """A mark that changes when all sessions of `user` end.

        Take it before you check a password, and give it to `start`: a session then can't begin with a
        password that was changed meanwhile.
        """
        try:
            found = self.client.get(self.ending_key(user)) or b"0"
        except ResponseError:  # another type
            found = b""
        is_instant = (
            found.isdigit() and len(found) <= len(GARBAGE_ENDING) and int(found) < int(GARBAGE_ENDING)
        )
        return as_text(found) if is_instant else GARBAGE_ENDING

    def start(
        self,
        user: str,
        data: Mapping[str, Any] | None = None,
        *,
        origin: str = "",
        agent: str = "",
        ending: str = "any",
    ) -> str:
        """Begin a session of `user`; returns its id, which is shown to nobody else.

        Never take an id from a visitor: start a new session at each login. `data` is a small JSON object;
        `origin` is where the visitor comes from and `agent` the browser, for the list; long texts are cut.
        Raises `SessionsEnded` if `ending` is not the user's any more, and `InvalidSession`.
        """
        id = new_id()
        by = user_key(user)
        keys = [self.prefix + hashed(id), self.index_key(user), self.ending_key(user)]
        spans = [self._idle_ms, self.absolute, MOST_SESSIONS, self.prefix]
        about = [origin[:LONGEST_ORIGIN], agent[:LONGEST_AGENT], encoded(data or {})]
        about[:2] = [text.encode(errors="replace").decode() for text in about[:2]]
        if not _start(self.client, keys, [hashed(id), user, by, ending, *spans, *about, self.ending_ms]):
            raise SessionsEnded(f"all sessions of {user!r:.120} have ended in the meantime: log in again")
        return id

    def read(self, id: str) -> Session | None:
        """The session of `id`, which goes on; None if there is none any more: one round trip."""
        if not is_id(id):
            return None
        hash = hashed(id)
        return _session(
            _read(self.client, [self.prefix + hash], [hash, self._endings, self._idle_ms, self._every])
        )

    def rotate(self, id: str, data: Mapping[str, Any] | None = None) -> str | None:
        """A new id for the session of `id`, which is nothing any more; None if it is over.

        Call it whenever the session's rights change, and give it the new `data`.
        """
        if not is_id(id):
            return None
        new, old_hash = new_id(), hashed(id)
        keys = [self.prefix + old_hash, self.prefix + hashed(new)]
        text = "" if data is None else encoded(data)
        args = [old_hash, hashed(new), self._endings, self._indexes, self._idle_ms, text]
        return new if _rotate(self.client, keys, args) else None

    def end(self, id: str) -> bool:
        """End the session of `id`; False if there is none."""
        return is_id(id) and self._end(hashed(id), "")

    def end_one(self, user: str, ref: str) -> bool:
        """End the session that `list` calls `ref`; False if `user` has no such session."""
        return isinstance(ref, str) and ref.isalnum() and ref.isascii() and self._end(ref, user_key(user))

    def end_all(self, user: str, *, but: str = "") -> int:
        """End all sessions of `user`, except the one called `but`; returns how many went on until now.

        Refresh tokens of the same name and user end too.
        """
        keys = [self.index_key(user), self.ending_key(user)]
        ended = _end_all(self.client, keys, [self.prefix, self.ending_ms, 2 * MOST_SESSIONS, but])
        return int(ended)

    def list(self, user: str) -> list[Session]:
        """The sessions of `user`, the last used first."""
        args = [self.prefix, self._endings, 2 * MOST_SESSIONS]
        found = map(_session, _list(self.client, [self.index_key(user)], args))
        return sorted((each for each in found if each), key=lambda session: -session.seen_at)

    def index_key(self, user: str) -> str:
        """The Redis key that lists the sessions of `user`."""
        return self._indexes + user_key(user)

    def ending_key(self, user: str) -> str:
        """The Redis key that says when all sessions of `user` were last ended."""
        return self._endings + user_key(user)

    def _end(self, hash: str, by: str) -> bool:
        return bool(_end(self.client, [self.prefix + hash], [hash, by, self._indexes]))


def user_key(user: str) -> str:
    if not isinstance(user, str) or not 0 < len(user) <= LONGEST_USER or _SURROGATE.search(user):
        raise InvalidSession(f"{user!r:.120} is not a user: give a text of up to {LONGEST_USER} characters")
    return bounded(user)


def encoded(data: Mapping[str, Any]) -> str:
    try:
        text = msgspec.json.encode(dict(data)).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidSession(f"a session's data must be a JSON object: {error}") from None
    if len(text) > MOST_DATA:
        raise InvalidSession(f"a session's data has {len(text):,} bytes, over the limit of {MOST_DATA:,}")
    return text


def _session(reply: list[bytes] | None) -> Session | None:
    if not reply:
        return None
    ref, user, begun, seen, ends, origin, agent, data = reply
    try:
        return Session(
            as_text(ref),
            user.decode(),
            float(begun),
            float(seen),
            float(ends),
            as_text(origin),
            as_text(agent),
            msgspec.json.decode(data, type=dict[str, Any]),
        )
    except (*UNREADABLE, ValueError):
        return None
