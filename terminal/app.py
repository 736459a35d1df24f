"""What commands share: the settings, one connection that is made on first use, and the storage."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from packmule.config import Settings, SettingsError, secret_if_set
from packmule.errors import UsageError

if TYPE_CHECKING:
    from redis import Redis

    from packmule.jobs.client import Client
    from packmule.jobs.pipelines import Pipeline
    from packmule.jobs.storage import Storage


class App:
    """The settings, a connection that is made on first use, and what a command closes at its end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.closing = ExitStack()
        self._client: Redis | None = None

    def trace(self) -> None:
        """Trace what this process enqueues and performs, if the settings ask for it."""
        if self.settings.tracing != "none":
            from packmule import hooks
            from packmule.observe.tracing import export_traces

            export_traces(self.settings.tracing)
            self.closing.callback(hooks.flush)

    @property
    def client(self) -> Redis:
        """A client of the settings' Redis."""
        if self._client is None:
            self._client = self.connect()
        return self._client

    def connect(self) -> Redis:
        """One more client, for another process or until the command ends.

        The last command to leave an embedded server stops it.
        """
        from packmule.coordination.redis.configured import job_server
        from packmule.coordination.redis.embedded_server import EmbeddedServer

        client = job_server(self.settings)
        if self.settings.redis_url is None:
            self.closing.callback(EmbeddedServer(self.settings.data_dir).stop_if_unused)
        self.closing.callback(client.close)
        return client

    def await_server(self) -> None:
        """Make the client of a process that is to run on, and wait for a server that isn't up yet."""
        from packmule.coordination.redis.waiting import connect_when_up

        if self._client is None:
            self._client = connect_when_up(self.connect)

    def lock_nodes(self) -> list[Redis]:
        """A client of each lock node."""
        from packmule.coordination.redis.configured import lock_nodes

        return lock_nodes(self.settings)

    @property
    def storage(self) -> Storage:
        """The storage of files that jobs read and write."""
        from packmule.jobs.storage import Storage

        return Storage(self.settings.storage_url)

    def produce(self) -> None:
        """Let `.enqueue(...)` use the settings' Redis."""
        self.jobs_on(self.client).make_default()

    def jobs_on(self, client: Redis) -> Client:
        """What enqueues jobs on a server, as the settings say, within the hooks."""
        from packmule import hooks
        from packmule.jobs.client import Client

        hooks.load(self.settings.hooks)
        return Client(client, self.settings.queues, self.settings.max_job_bytes)

    def load_jobs(self) -> None:
        """Register the hooks, the ready-made jobs, and those of the user's modules."""
        from packmule import hooks
        from packmule.jobs import registry

        hooks.load(self.settings.hooks)
        registry.defer(registry.READY)
        try:
            registry.load(self.settings.modules)
        except registry.NotRegistered as error:
            raise SettingsError(f"PACKMULE_MODULES: {error}") from error
        registry.load((), self.settings.allow)

    def load_if_possible(self) -> None:
        """Likewise, for a command that shows the jobs' arguments: what can't be imported is no matter."""
        with suppress(SettingsError, UsageError):
            self.load_jobs()

    def pipelines(self) -> dict[str, Pipeline]:
        """The site's pipelines, by name; its jobs are loaded for them."""
        from packmule.jobs.pipelines.pipeline_file import known

        self.load_jobs()
        return known(self.settings.pipelines, self.settings.modules)

    def provide(self, mail_urls: Sequence[str]) -> None:
        """Provide this process's jobs with what they need."""
        from packmule.coordination.cache.cache import Cache
        from packmule.jobs import context
        from packmule.jobs.auditor import Auditor
        from packmule.jobs.email import Ledger, Mailer
        from packmule.jobs.email.suppression.links import SECRET, LinkKeys
        from packmule.jobs.host_shares import HostMemory
        from packmule.jobs.input_limits import InputLimits
        from packmule.jobs.outgoing.door import Allowed
        from packmule.jobs.outgoing.fetch_list import FetchList
        from packmule.jobs.pipelines.staging import remove_leftovers
        from packmule.jobs.preset_file import PresetFile
        from packmule.jobs.storage.temporary import Remover
        from packmule.jobs.virus_scanner import VirusScanner
        from packmule.observe import audit
        from packmule.worker.kernel import usable_memory

        settings, storage = self.settings, self.storage
        context.provide(
            storage,
            InputLimits(
                settings.max_file_bytes,
                settings.max_attachment_bytes,
                settings.max_pixels,
                settings.max_unpacked_bytes,
                settings.max_members,
            ),
            VirusScanner(settings.clamd),
            FetchList(settings.fetch_from),
            HostMemory(settings.image_memory or usable_memory() // 2),
            PresetFile(settings.presets),
            Allowed(settings.webhook_allow),
            Mailer(
                mail_urls,
                settings.mail_from,
                settings.templates,
                redis=self.client,
                pace=settings.mail_pace,
                to=settings.mail_to,
                return_path=settings.mail_return_path,
                dkim=settings.dkim,
            ),
            Ledger(self.client, settings.mail_keep),
            Cache(self.client, "jobs"),
            Auditor(partial(audit.record, self.client)),
            Remover(lambda: storage.remove_unfinished() + remove_leftovers(storage, self.client)),
            LinkKeys.of(secret_if_set(SECRET)),
        )
        if settings.bounces:
            from packmule.jobs.email.suppression.collecting import Mailboxes

            context.provide(Mailboxes(settings.bounces, settings.mail_return_path or None))

    def queues(self) -> list[str]:
        """The settings' queues in their order, then others that Redis knows."""
        return self.queues_on(self.client)

    def queues_on(self, client: Redis) -> list[str]:
        """Those that a server knows, likewise."""
        from packmule.jobs import queues

        return queues.names(client, self.settings.queues)
