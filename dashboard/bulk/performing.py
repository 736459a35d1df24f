"""Performing bulk actions: in threads of the dashboard's process, a hundred jobs at a time.

If the process dies, the action is shown as stopped. When it goes on, it begins with the filter anew: what was
done doesn't fit any more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from packmule.dashboard.bulk import record
from packmule.dashboard.bulk.kept import Copies
from packmule.dashboard.bulk.record import Bulk, NotNow, Owner
from packmule.dashboard.bulk.rights import refuse_without_right
from packmule.errors import Conflict, Error
from packmule.jobs import acts
from packmule.jobs.undeleting import undelete
from packmule.observe import audit
from packmule.plain_text import plain

AT_ONCE = 2
"""Bulk actions that a process performs at a time; others wait."""

BEAT = record.LEASE / 5

logger = logging.getLogger(__name__)
_turns = threading.BoundedSemaphore(AT_ONCE)


class BulkStopped(Conflict):
    """Somebody asked the action to stop, or another process has it now."""


class By(NamedTuple):
    """Who lets a bulk action go on, from which address; the right and the name in the audit are theirs."""

    who: str
    where: str = ""


def begin(client: Redis, id: str, more_queues: Sequence[str] = (), by: By | None = None) -> None:
    """Let a thread perform the bulk action `id`, or go on with it `by` somebody else than who began it.

    Raises `NoSuchBulk` and `NotNow`.
    """
    bulk = record.read(client, id)
    owner = Owner(client, id)
    if bulk.state == "done" or not owner.take():
        raise NotNow(f"bulk action {id} is {bulk.state}: there is nothing to resume")
    record.change(client, id, state="running", ended="", fault="")
    threading.Thread(
        target=_perform, args=(client, owner, more_queues, by), name=f"bulk {id}", daemon=True
    ).start()


def begin_undo(client: Redis, id: str, by: By | None = None) -> None:
    """Let a thread put back what the bulk action `id` has deleted, likewise."""
    bulk = record.read(client, id)
    if bulk.act != "delete" or bulk.phase == "undo" or not bulk.is_over:
        raise NotNow(
            f"bulk action {id} can't be undone: only a deletion that has ended and was not undone can"
        )
    if not Copies(client, record.copies_key(id)).seconds_left():
        raise NotNow(f"bulk action {id} can no longer be undone: copies of deleted jobs are kept for an hour")
    record.change(client, id, phase="undo", state="stopped", undo_at=0)
    begin(client, id, by=by)


def _perform(client: Redis, owner: Owner, more_queues: Sequence[str], by: By | None) -> None:
    id, state, fault = owner.id, "done", ""
    try:
        with _beating(owner) as check, _turns:
            check()
            bulk = _read(client, id, by)
            if bulk.phase == "undo":
                _undo(client, bulk, check)
            else:
                _act(client, bulk, check, more_queues)
    except BulkStopped:
        state = "stopped"
    except (Error, RedisError) as error:
        state, fault = "failed", f"{error}"
    except Exception as error:
        logger.exception("bulk action %s", id)
        state, fault = "failed", f"{type(error).__name__}: the log of the dashboard has the details"
    try:
        if owner.is_another():
            return  # whose state it is
        record.change(client, id, state=state, fault=fault[:500], ended=repr(time.time()))
        found = _read(client, id, by)
        owner.release()
        subject = {"bulk": id, "state": state, "done": found.done}
        audit.record(client, f"bulk {found.phase} ended", subject, found.who, found.where)
    except (Error, RedisError) as error:
        logger.warning("the end of bulk action %s was not recorded: %s", id, plain(error))


def _read(client: Redis, id: str, by: By | None) -> Bulk:
    found = record.read(client, id)
    return found if by is None else msgspec.structs.replace(found, who=by.who, where=by.where)


@contextmanager
def _beating(owner: Owner) -> Iterator[Callable[[], None]]:
    """Renew the owner's right meanwhile; the function raises `BulkStopped` once it is lost."""
    over, lost = threading.Event(), threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            try:
                if not owner.renew():
                    lost.set()
            except RedisError:
                continue  # the next call of the action itself meets it too

    def check() -> None:
        if lost.is_set() or not owner.renew():
            raise BulkStopped

    thread = threading.Thread(target=beat, name="bulk's lease", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        over.set()
        thread.join()


def _act(client: Redis, bulk: Bulk, check: Callable[[], None], more_queues: Sequence[str]) -> None:
    """Do it to all jobs that fit, some at a time."""
    wanted = bulk.wanted
    copies = Copies(client, record.copies_key(bulk.id), bulk.copied) if bulk.act == "delete" else None
    for ids in acts.matching(client, wanted, acts.statuses_of(bulk.act, wanted), more_queues):
        check()
        refuse_without_right(client, bulk.who)
        kept = copies.add(ids) if copies else []
        became = acts.perform(client, bulk.act, ids, wanted)
        done = [each.id for each in became if each.error is None]
        if copies and kept and len(done) < len(kept):
            kept = [each for each in kept if each.id in done]
            copies.keep(kept)
        reasons = Counter(acts.reason(each.id, each.error) for each in became if each.error is not None)
        record.count(client, bulk.id, matched=len(ids), done=len(done), copied=len(kept))
        record.refuse(client, bulk.id, "refused", reasons)
        if done:
            audit.record(client, f"job {bulk.act}", {"bulk": bulk.id, "ids": done}, bulk.who, bulk.where)


def _undo(client: Redis, bulk: Bulk, check: Callable[[], None]) -> None:
    """Put back what was deleted, a chunk at a time."""
    copies, number = Copies(client, record.copies_key(bulk.id)), record.undo_at(client, bulk.id)
    while (chunk := copies.chunk(number)) is not None:
        check()
        refuse_without_right(client, bulk.who)
        errors = undelete(client, chunk)
        back = [copy.id for copy, error in zip(chunk, errors, strict=True) if error is None]
        reasons = Counter(
            acts.reason(copy.id, error)
            for copy, error in zip(chunk, errors, strict=True)
            if error is not None
        )
        number += 1
        record.change(client, bulk.id, undo_at=number)
        record.count(client, bulk.id, undone=len(back))
        record.refuse(client, bulk.id, "not_undone", reasons)
        if back:
            audit.record(client, "job undelete", {"bulk": bulk.id, "ids": back}, bulk.who, bulk.where)
