"""Watching: what comes into an inbox is sent through a pipeline, once per content, and then put away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from redis.exceptions import RedisError

from packmule.coordination.redis.backoff import BackOff
from packmule.coordination.redis.embedded_server import ServerFailed
from packmule.errors import Error
from packmule.jobs import batch_state
from packmule.jobs.batch_state import State
from packmule.jobs.client import Client
from packmule.jobs.pipelines.content import Contents, Mark
from packmule.jobs.pipelines.inbox import DONE, FAILED, Inbox, Seen
from packmule.jobs.pipelines.outcome import Outcome, outcome
from packmule.jobs.pipelines.pipeline import Pipeline
from packmule.jobs.pipelines.staging import MANIFEST, place_of
from packmule.jobs.storage import MissingFile, Storage, StorageError
from packmule.jobs.storage.store import sha256_of

PAUSE = 0.5
LONGEST_PAUSE = 5.0
"""Seconds between two looks: the first, or ten times what one takes up to the second."""

RETRY_SECONDS = 10.0
"""Until a file is tried again that could not be read, stored or moved."""

MOST_UNDER_WAY = 1000
"""Files whose flows have not ended; others wait in the inbox."""

SENDING_SECONDS = 2.0
"""For which one look sends files, before it looks what became of others."""


class Watcher:
    """Sends the files of `inbox` through a pipeline; `say` and `complain` get a line of each at its end.

    Whatever dies when: a file that is in the inbox is looked at again, its content leads to its mark, and
    that to its flow, which is there once. A file is moved after its flow has ended, and only then the mark
    says so. With `leaves` files stay where they are.
    """

    def __init__(
        self,
        inbox: Path,
        pipeline: Pipeline,
        storage: Storage,
        client: Client,
        say: Callable[[str], None],
        complain: Callable[[str], None],
        *,
        stable: float = 2.0,
        leaves: bool = False,
        most_bytes: int | None = None,
    ) -> None:
        self.inbox = Inbox(inbox)
        self.pipeline = pipeline
        self.storage = storage
        self.client = client
        self.contents = Contents(pipeline, storage, client)
        self.say = say
        self.complain = complain
        self.stable = stable
        self.leaves = leaves
        self.most_bytes = most_bytes
        self.failures = 0
        self.stopping = threading.Event()
        self._under_way: dict[str, tuple[Seen, str, Mark]] = {}
        self._told = ""

    def run(self, once: bool = False) -> None:
        """Watch until `stopping` is set; `once`, until what is there has ended, but for what changes."""
        backoff = BackOff(PAUSE, RETRY_SECONDS)
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                self.look()
            except Exception as error:  # whatever it is, the next look may not meet it
                self._complain_once(str(error) or type(error).__name__)
                self.stopping.wait(backoff.next())
                continue
            if self._told:
                self._complain_once(f"{self.inbox.folder}: goes on")
                self._told = ""
            backoff.reset()
            files = self.inbox.files.values()
            if once and not self._under_way and all(map(_is_left, files)):
                self.failures += sum(bool(each.told) for each in files)
                for each in files:
                    if not each.is_over and not each.told:
                        self.complain(f"{each.file.name}: it still changes: left for the next run")
                return
            pause = 0.0 if self._under_way else 10 * (time.monotonic() - began)
            self.stopping.wait(min(max(PAUSE, pause), LONGEST_PAUSE))

    def look(self) -> None:
        """Look once: send files that are ready, and put those away whose flows have ended."""
        for name, kind in self.inbox.look():
            self.complain(f"{name}: {kind}: left alone")
        for name in self._under_way.keys() - self.inbox.files.keys():
            del self._under_way[name]  # somebody has taken it away; its flow goes on
        until = time.monotonic() + SENDING_SECONDS
        for seen in list(self.inbox.ready(self.stable)):
            if len(self._under_way) >= MOST_UNDER_WAY or time.monotonic() > until or self.stopping.is_set():
                break
            if self._under_way.get(seen.file.name, (None,))[0] is not seen:
                self._tried(seen, self._take)
        waiting = list(self._under_way.values())
        states = batch_state.read_each(self.client.redis, [mark.flow for _, _, mark in waiting])
        for (seen, digest, mark), state in zip(waiting, states, strict=True):
            if state is None or state.ended is not None:
                self._tried(seen, partial(self._follow, digest=digest, mark=mark, state=state))

    def _take(self, seen: Seen) -> None:
        """Send a file, unless its content is known."""
        name, size = seen.file.name, seen.signature.size
        if self.most_bytes is not None and size > self.most_bytes:
            text = f"it has {size:,} bytes, and PACKMULE_MAX_FILE_BYTES is {self.most_bytes:,}"
            self._put_away(seen, Outcome(False, text))
            return
        digest = sha256_of(seen.file)
        mark = self.contents.known(digest)
        if mark is None or not self._is_known(mark):
            is_stored = mark is not None and self.storage.exists(mark.source)
            path = mark.source if mark and is_stored else self.storage.put(seen.file)
            if digest[:16] not in path:
                raise StorageError("it changed while it was read")
            mark = self.contents.send(digest, path, again=not self.leaves)
        if not self._is_known(mark):
            self._under_way[name] = seen, digest, mark
        else:
            self._put_away(seen, Outcome(mark.state == "done", self._said_before(mark)))

    def _follow(self, seen: Seen, digest: str, mark: Mark, state: State | None) -> None:
        """Put a file away whose flow has ended; one whose flow is lost is sent again."""
        del self._under_way[seen.file.name]
        if state is not None:
            found = outcome(self.storage, self.client.redis, self.pipeline.name, mark.source, state)
            if self._put_away(seen, found):
                self.contents.end(digest, mark, "done" if found.is_done else "failed")

    def _put_away(self, seen: Seen, found: Outcome) -> bool:
        """Move a file that is over, and say it; False if it has changed meanwhile, or is gone."""
        if not self.leaves and not self.inbox.move(seen, DONE if found.is_done else FAILED):
            return False
        seen.is_over = True
        if not self.leaves:
            self.inbox.files.pop(seen.file.name, None)  # it may come again before the next look
        self.failures += not found.is_done
        (self.say if found.is_done else self.complain)(f"{seen.file.name}: {found.text}")
        return True

    def _is_known(self, mark: Mark) -> bool:
        """Whether a content is not to be sent. Files that nobody moves don't come back."""
        has_ended = mark.state in ("done", "failed")
        return has_ended and (self.leaves or not self.contents.may_come_again(mark))

    def _said_before(self, mark: Mark) -> str:
        if mark.state == "failed":
            return f"its content failed before: packmule flow retry {mark.flow}"
        return f"known: {place_of(self.pipeline.name, mark.source, mark.flow)}/{MANIFEST}"

    def _tried(self, seen: Seen, act: Callable[[Seen], None]) -> None:
        """Do something with a file; what goes wrong is said once, and tried again after a while."""
        try:
            act(seen)
            seen.told = ""
        except (RedisError, ServerFailed):
            raise
        except (FileNotFoundError, MissingFile):
            pass  # somebody has taken it away
        except (Error, OSError) as error:
            seen.try_at = time.monotonic() + RETRY_SECONDS
            text = (isinstance(error, OSError) and error.strerror) or str(error)
            if text != seen.told:
                seen.told = text
                self.complain(f"{seen.file.name}: {text}: it stays, and is tried again")

    def _complain_once(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self.complain(text)


def _is_left(seen: Seen) -> bool:
    """Whether nothing more is done with a file if nobody waits."""
    return seen.is_over or seen.is_changed or bool(seen.told)
