"""A run: sends the sources that have changed to the workers, and enters into the manifest what they make."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, cast

import msgspec
from msgspec import structs

from packmule.coordination.redis.replies import as_text
from packmule.jobs import keys, reader
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import NoSuchBatch
from packmule.jobs.client import Client
from packmule.jobs.image import Rendition, image
from packmule.jobs.image.batch import manifest as manifests
from packmule.jobs.image.batch.manifest import Entry, Sent
from packmule.jobs.image.batch.places import foreign, places
from packmule.jobs.image.batch.sources import Source
from packmule.jobs.image.batch.target import Target
from packmule.jobs.options import Options
from packmule.jobs.reader import NoSuchJob
from packmule.jobs.storage import Storage, StorageError
from packmule.jobs.storage.store import explained, sha256_of

AT_ONCE = 100
"""Sources that are sent together, and results that are read together."""

SAVE_SECONDS = 2.0
"""How often the manifest is written while jobs run, unless writing takes long."""

SAVE_SHARE = 20
"""The manifest is written for at most one part in so many of the time."""

Show = Callable[[str, int, int, int], None]
"""Called with what is being done, how much of it is, how much there is, and how much of that has failed."""

Call = tuple[tuple[()], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do: sources to make by name, those that are unchanged, and those that are gone.

    `places` has the place of each source, and `unread` why a source can't be read. `foreign` are the files in
    the target that would be replaced, and that no run has made.
    """

    todo: dict[str, tuple[Source, str]]
    unchanged: list[str]
    gone: list[str]
    places: dict[str, str]
    unread: dict[str, str]
    foreign: list[str]


class Run:
    """Makes `renditions`, by their labels, of many sources in a target, and keeps its manifest with `facts`.

    Sources are copied into `storage`, and their jobs sent with `options` as one batch. Call `finish_earlier`,
    then `plan`, `send` and `follow`. The next run goes on where one was broken off in any of these.
    """

    def __init__(
        self,
        jobs: Client,
        storage: Storage,
        target: Target,
        renditions: Mapping[str, Rendition],
        facts: Sequence[str],
        options: Options,
        show: Show,
    ) -> None:
        self.jobs = jobs
        self.storage = storage
        self.target = target
        self.renditions = renditions
        self.facts = list(facts)
        self.options = options
        self.show = show
        self.manifest = manifests.read(target)
        self.wanted = sha256(msgspec.json.encode([renditions, self.facts])).hexdigest()[:16]
        self.claimed = set(self.manifest.claimed)
        self._saved_at = self._save_seconds = 0.0

    def finish_earlier(self) -> set[str]:
        """Wait for what an earlier run has sent, and enter it; the names of the sources of which it was."""
        if self.manifest.batch is None:
            return set()
        names = {sent.name for sent in self.manifest.jobs.values()}
        with suppress(NoSuchBatch):
            Batch(self.jobs, self.manifest.batch).seal()  # the run may have been broken off before it did
            self.follow()
        names -= {sent.name for sent in self.manifest.jobs.values()}
        self.manifest.batch = None
        self.manifest.jobs = {}
        self.save()
        return names

    def plan(self, sources: Sequence[Source], unread: Mapping[str, str]) -> Plan:
        """Compare sources with the manifest: one is unchanged if its content, options and renditions are.

        `unread` has the names of further sources, each with why it can't be read.
        """
        known = {name: entry.place for name, entry in self.manifest.sources.items()}
        names = [*(source.name for source in sources), *unread]
        occupied = filter(None, map(self.target.inside, sources))
        plan = Plan({}, [], [], places(names, list(self.renditions), known, occupied), dict(unread), [])
        for number, source in enumerate(sources, start=1):
            try:
                digest = self._digest(source)
            except StorageError as error:
                plan.unread[source.name] = str(error)
                continue
            entry = self.manifest.sources.get(source.name)
            is_same = entry and (entry.digest, entry.options) == (digest, self.wanted)
            if entry and is_same and digest and manifests.is_whole(self.target, entry):
                plan.unchanged.append(source.name)
            else:
                plan.todo[source.name] = source, digest
            self.show("checked", number, len(sources), 0)
        plan.gone.extend(sorted(self.manifest.sources.keys() - set(names)))
        if plan.todo:
            ours = self.claimed.union(*map(Entry.stems, self.manifest.sources.values()))
            todo = [plan.places[name] for name in plan.todo]
            plan.foreign.extend(foreign(todo, list(self.renditions), ours, self.target.names()))
        return plan

    def send(self, plan: Plan, name: str) -> str | None:
        """Copy the sources of a plan into the storage and send their jobs; the id of the batch, if any."""
        for each, reason in plan.unread.items():
            self._fail(each, plan.places[each], reason)
        if not plan.todo:
            self.save()
            return None
        batch = Batch.create(name, collect=True, client=self.jobs)
        self.manifest.batch = batch.id
        self.claimed.update(f"{plan.places[each]}-{label}" for each in plan.todo for label in self.renditions)
        self.save()
        options = replace(self.options, batch=batch.id)
        todo = list(plan.todo.values())
        for start in range(0, len(todo), AT_ONCE):
            calls = self._calls(todo[start : start + AT_ONCE], plan.places)
            ids = self.jobs.send(image.job, [call for _, call in calls], options) if calls else []
            self.manifest.jobs.update(zip(map(str, ids), (sent for sent, _ in calls), strict=True))
            self.save()
            self.show("sent", min(start + AT_ONCE, len(todo)), len(todo), 0)
        batch.seal()
        return batch.id

    def follow(self) -> None:
        """Enter what the batch's jobs make, until it has ended. Raises `NoSuchBatch`."""
        if self.manifest.batch is None:
            return
        batch = Batch(self.jobs, self.manifest.batch)
        pending, total = list(self.manifest.jobs), len(self.manifest.jobs)
        failed = 0
        while pending:
            has_ended = batch.state().ended is not None
            left = []
            for start in range(0, len(pending) if has_ended else min(AT_ONCE, len(pending)), AT_ONCE):
                window = pending[start : start + AT_ONCE]
                for id, entry in zip(window, self._entries(batch, window, has_ended), strict=True):
                    if entry is None:
                        left.append(id)
                    else:
                        failed += entry.error is not None
                        self._enter(self.manifest.jobs.pop(id).name, entry)
            is_idle = len(left) == min(AT_ONCE, len(pending))
            pending = [] if has_ended else left + pending[AT_ONCE:]
            self.show("done", total - len(pending), total, failed)
            self._save_sometimes()
            if pending and is_idle:
                time.sleep(reader.POLL_INTERVAL)
        self.manifest.batch = None
        self.claimed.difference_update(*map(Entry.stems, self.manifest.sources.values()))
        self.save()

    def delete_gone(self, plan: Plan) -> int:
        """Delete the unchanged renditions of sources that are gone; how many files that were."""
        kept = {
            path
            for name, entry in self.manifest.sources.items()
            if name not in plan.gone
            for path in entry.paths()
        }
        count = 0
        for name in plan.gone:
            entry = self.manifest.sources[name]
            spare = [each for each in entry.renditions if manifests.is_there(self.target, each)]
            count += sum(self.target.delete(each["path"]) for each in spare if each["path"] not in kept)
            del self.manifest.sources[name]
        self.save()
        return count

    def save(self) -> None:
        """Write the manifest."""
        began = time.monotonic()
        self.manifest.claimed = sorted(self.claimed)
        manifests.write(self.target, self.manifest)
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - began

    def _save_sometimes(self) -> None:
        if time.monotonic() - self._saved_at > max(SAVE_SECONDS, SAVE_SHARE * self._save_seconds):
            self.save()

    def _digest(self, source: Source) -> str:
        """What tells whether a source has changed; nothing if there is no source, or it isn't fetched yet."""
        if source.kind == "url":
            return ""
        if source.kind == "stored":
            return self.storage.version(source.at) or ""
        with explained("read", source.at):
            return sha256_of(Path(source.at))

    def _calls(
        self, todo: Sequence[tuple[Source, str]], places: Mapping[str, str]
    ) -> list[tuple[Sent, Call]]:
        """The calls for these sources, once they are copied into the storage; what can't be is entered."""
        calls = []
        for source, digest in todo:
            place = places[source.name]
            folder, _, stem = place.rpartition("/")
            try:
                path = source.at if source.kind == "stored" else self.storage.put(Path(source.at))
            except StorageError as error:
                self._fail(source.name, place, str(error))
                continue
            out = self.target.path(folder).rstrip("/") if self.target.is_workers else self._made_in(path)
            renditions = [
                structs.replace(each, name=f"{stem}-{label}") for label, each in self.renditions.items()
            ]
            sent = Sent(source.name, path, Entry(digest, self.wanted, place))
            calls.append(
                (sent, ((), {"source": path, "renditions": renditions, "out": out, "facts": self.facts}))
            )
        return calls

    def _made_in(self, path: str) -> str:
        """The storage's folder of what is made of a path with these options: others have another one."""
        return f"renditions/{sha256(path.encode()).hexdigest()[:16]}-{self.wanted}"

    def _entries(self, batch: Batch, ids: Sequence[str], has_ended: bool) -> Iterator[Entry | None]:
        """The entries of jobs, with what they made; None for one that goes on."""
        found = cast(
            list[bytes | None], self.jobs.redis.hmget(f"{keys.batch_key(batch.id)}:results", list(ids))
        )
        for id, text in zip(ids, found, strict=True):
            sent = self.manifest.jobs[id]
            if text is None and not has_ended:
                yield None
                continue
            value, error = reader.collected(as_text(text)) if text is not None else (None, None)
            try:
                yield self._made(sent, value) if error is None and value else self._failed(sent, id, error)
            except StorageError as fault:
                yield structs.replace(sent.entry, error=str(fault))

    def _made(self, sent: Sent, value: Any) -> Entry:
        """The entry of a job that finished, once its renditions are in the target."""
        folder = PurePosixPath(sent.entry.place).parent
        made = []
        for facts in value["renditions"]:
            name = str(folder / PurePosixPath(facts["path"]).name)
            if not self.target.is_workers:
                self.target.fetch(self.storage, facts["path"], name, facts["bytes"])
            made.append({**facts, "path": name})
        return structs.replace(sent.entry, facts=value["source"], renditions=made)

    def _failed(self, sent: Sent, id: str, error: str | None) -> Entry:
        """The entry of a job that did not finish."""
        try:
            info = reader.read(self.jobs.redis, id)
            reason = info.reason or f"its job {id} is {info.status}"
        except NoSuchJob:
            reason = (error or "").strip().rpartition("\n")[2] or f"its job {id} was canceled or deleted"
        return structs.replace(sent.entry, error=reason.replace(sent.path, sent.name))

    def _fail(self, name: str, place: str, reason: str) -> None:
        self._enter(name, Entry("", self.wanted, place, error=reason))

    def _enter(self, name: str, entry: Entry) -> None:
        """Enter it in place of an older one, whose files stay known as ours."""
        if old := self.manifest.sources.get(name):
            self.claimed |= old.stems()
        self.manifest.sources[name] = entry
