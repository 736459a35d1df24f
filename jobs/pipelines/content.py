"""Once per content: which contents of files a pipeline has been sent, whoever sends them and dies when."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal

import msgspec

from packmule.coordination.redis.replies import UNREADABLE, pipelined
from packmule.jobs import batch_state
from packmule.jobs.batch_state import State
from packmule.jobs.client import Client
from packmule.jobs.pipelines.pipeline import Pipeline
from packmule.jobs.pipelines.staging import MANIFEST, place_of
from packmule.jobs.storage import Storage
from packmule.units import DAY

KEPT_SECONDS = 90 * DAY
"""For which a content is known after it was sent, or how that ended."""


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """One content: the flow that it is sent as, its path in the storage, and how far that has come.

    It is "begun" before the flow is there, so that anybody can go on, then "sent", and at last "done" or
    "failed".
    """

    flow: str
    source: str
    state: Literal["begun", "sent", "done", "failed"] = "begun"

    def again(self) -> Mark:
        """The mark of the next flow for the content: whoever makes it makes the same."""
        return Mark(sha256(self.flow.encode()).hexdigest()[:32], self.source)


class Contents:
    """The contents that `pipeline` was sent by `client`."""

    def __init__(self, pipeline: Pipeline, storage: Storage, client: Client) -> None:
        self.pipeline = pipeline
        self.storage = storage
        self.client = client

    def known(self, digest: str) -> Mark | None:
        """What is known of the content with this SHA-256."""
        (text,) = pipelined(self.client.redis, [("GET", self._key(digest))], None)
        return _read(text)

    def send(self, digest: str, source: str, again: bool) -> Mark:
        """Send the content, which is at `source`, unless that was done.

        One that failed, or whose results are gone, is sent only if `again`. If somebody died amidst that, or
        does it right now, it is the same flow.
        """
        first = Mark(sha256(f"{self.pipeline.name}\n{digest}".encode()).hexdigest()[:32], source)
        set_new = ("SET", self._key(digest), msgspec.json.encode(first), "NX", "EX", KEPT_SECONDS)
        _, text = pipelined(self.client.redis, [set_new, ("GET", self._key(digest))], None)
        mark = _read(text) or first
        has_ended = mark.state in ("done", "failed")
        if has_ended and not (again and self.may_come_again(mark)):
            return mark
        if has_ended or self._is_lost(mark):
            mark = mark.again()
            if not self.storage.exists(mark.source):
                mark = msgspec.structs.replace(mark, source=source)
            self._keep(digest, mark)
        if mark.state == "begun":
            self._start(mark)
        return self.end(digest, mark, "sent")

    def may_come_again(self, mark: Mark) -> bool:
        """Whether a content that has ended came to nothing, or retention has deleted its results."""
        return mark.state == "failed" or (mark.state == "done" and not self._is_published(mark))

    def end(self, digest: str, mark: Mark, state: Literal["sent", "done", "failed"]) -> Mark:
        """Keep how far it has come."""
        found = msgspec.structs.replace(mark, state=state)
        self._keep(digest, found)
        return found

    def _start(self, mark: Mark) -> None:
        found = self._state(mark)
        if found is None or not found.is_sealed:
            self.pipeline.enqueue(mark.source, id=mark.flow, client=self.client)

    def _is_lost(self, mark: Mark) -> bool:
        """Whether the flow never began, since its sender died, or is not kept and has published nothing."""
        found = self._state(mark)
        if mark.state == "begun":
            return found is not None and found.is_canceled
        return found is None and not self._is_published(mark)

    def _is_published(self, mark: Mark) -> bool:
        return self.storage.exists(f"{place_of(self.pipeline.name, mark.source, mark.flow)}/{MANIFEST}")

    def _state(self, mark: Mark) -> State | None:
        return batch_state.read_each(self.client.redis, [mark.flow])[0]

    def _keep(self, digest: str, mark: Mark) -> None:
        self.client.redis.set(self._key(digest), msgspec.json.encode(mark), ex=KEPT_SECONDS)

    def _key(self, digest: str) -> str:
        return f"pm:watched:{self.pipeline.name}:{digest}"


def _read(text: bytes | None) -> Mark | None:
    try:
        return msgspec.json.decode(text or b"", type=Mark)
    except UNREADABLE:
        return None
