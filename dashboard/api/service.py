"""What the API's operations share in one process: the client, and calls that serve many requests at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool

from packmule.dashboard.api.admission import Admission
from packmule.dashboard.api.deliveries import Delivery, deliver_each
from packmule.dashboard.api.looks import Look, Seen, look_each
from packmule.dashboard.api.options import ApiOptions
from packmule.dashboard.api.together import Together
from packmule.errors import NotFound
from packmule.jobs import batch_state, reader, registry
from packmule.jobs.batch_info import BatchInfo, batch_info
from packmule.jobs.job_type import JobType
from packmule.jobs.storage import Storage

if TYPE_CHECKING:
    from packmule.dashboard.site import Site

MOST_WAITS = 200
"""Requests that wait for an end at once; further ones are answered with how things are."""

P = ParamSpec("P")
R = TypeVar("R")


class Service:
    """One API, on the server of `site`."""

    def __init__(self, site: Site, options: ApiOptions) -> None:
        self.site = site
        self.client = site.client
        self.options = options
        executor = ThreadPoolExecutor(4, "packmule-api")
        self.admission = Admission(site.client, options.rate, executor)
        self._types: dict[str, JobType] = {}
        self._deliveries = Together[Delivery, dict[str, str]](self._deliver, executor)
        self._reads = Together[str, reader.JobInfo | None](self._read, executor)
        self._looks = Together[Look, Seen](self._look, executor)
        self._batches = Together[str, BatchInfo](self._batch, executor)
        self.streams: Counter[str] = Counter()
        """How many streams are open, by who follows them."""
        self._waits = 0

    @cached_property
    def storage(self) -> Storage | None:
        """Where uploaded files go."""
        return Storage(self.options.storage_url) if self.options.storage_url else None

    async def job_type(self, name: str) -> JobType:
        """The registered job called `name`, imported in a thread if need be. Raises `NotRegistered`."""
        found = self._types.get(name)
        if found is None:
            found = self._types[name] = await run_in_threadpool(registry.find, name)
        return found

    async def deliver(self, delivery: Delivery) -> dict[str, str]:
        """Enqueue jobs, in one trip with those of other requests: see `jobs.delivery.deliver`."""
        return await self._deliveries.ask(delivery)

    async def read(self, id: str) -> reader.JobInfo:
        """The job called `id`, likewise. Raises `NoSuchJob`."""
        found = await self._reads.ask(id)
        if found is None:
            raise reader.no_such_job(id)
        return found

    async def batch(self, id: str) -> BatchInfo:
        """The batch called `id`, likewise. Raises `NoSuchBatch`."""
        return await self._batches.ask(id)

    async def look(self, look: Look) -> Seen:
        """What a look at a followed job finds, likewise."""
        return await self._looks.ask(look)

    @contextmanager
    def waiting(self, timeout: float) -> Iterator[float]:
        """Wait for something for `timeout` seconds, or not at all if too many do, so that others get in."""
        self._waits += 1
        try:
            yield timeout if self._waits <= MOST_WAITS else 0.0
        finally:
            self._waits -= 1

    async def in_thread(self, call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call something that asks Redis, without holding up other requests."""
        return await run_in_threadpool(call, *args, **kwargs)

    def _deliver(self, deliveries: Sequence[Delivery]) -> list[dict[str, str] | Exception]:
        return deliver_each(self.client, deliveries)

    def _look(self, looks: Sequence[Look]) -> list[Seen]:
        return look_each(self.client, looks)

    def _batch(self, ids: Sequence[str]) -> list[BatchInfo | Exception]:
        found = {id: self._batch_or_error(id) for id in dict.fromkeys(ids)}
        return [found[id] for id in ids]

    def _batch_or_error(self, id: str) -> BatchInfo | Exception:
        try:
            return batch_info(batch_state.read(self.client, id))
        except NotFound as error:
            return error

    def _read(self, ids: Sequence[str]) -> list[Any]:
        return list(reader.read_many(self.client, ids))
