"""What commands share: the settings, one connection that is made on first use, and the storage."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from packmule.config import Settings, SettingsError

if TYPE_CHECKING:
    from redis import Redis

    from packmule.jobs.client import Client
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
            from packmule.jobs import context
            from packmule.observe.tracing import export_traces

            exporting = export_traces(self.settings.tracing)
            context.provide(exporting)
            self.closing.callback(exporting.close)

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
        """What enqueues jobs on a server, as the settings say."""
        from packmule.jobs.client import Client

        return Client(client, self.settings.queues, self.settings.max_job_bytes)

    def load_jobs(self) -> None:
        """Register the ready-made jobs and those of the user's modules."""
        from packmule.jobs import registry

        registry.defer(registry.READY)
        try:
            registry.load(self.settings.modules)
        except registry.NotRegistered as error:
            raise SettingsError(f"PACKMULE_MODULES: {error}") from error
        registry.load((), self.settings.allow)

    def provide(self, mail_urls: Sequence[str]) -> None:
        """Provide this process's jobs with what they need."""
        from packmule.coordination.cache.cache import Cache
        from packmule.jobs import context
        from packmule.jobs.email import Ledger, Mailer
        from packmule.jobs.input_limits import InputLimits

        settings = self.settings
        context.provide(
            self.storage,
            InputLimits(settings.max_file_bytes, settings.max_attachment_bytes, settings.max_pixels),
            Mailer(
                mail_urls,
                settings.mail_from,
                settings.templates,
                redis=self.client,
                pace=settings.mail_pace,
                to=settings.mail_to,
            ),
            Ledger(self.client, settings.mail_keep),
            Cache(self.client, "jobs"),
        )

    def queues(self) -> list[str]:
        """The settings' queues in their order, then others that Redis knows."""
        from packmule.jobs import queues

        return queues.names(self.client, self.settings.queues)
