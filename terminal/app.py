"""What commands share: the settings, one connection that is made when first asked for, and the storage."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from packmule.config import Settings, SettingsError

if TYPE_CHECKING:
    from redis import Redis

    from packmule.jobs.storage import Storage

READY_JOBS = ("packmule.jobs.email", "packmule.jobs.image", "packmule.jobs.files")


class App:
    """What commands share: the settings, and a connection that is made when first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.closing = ExitStack()
        self._client: Redis | None = None

    def trace(self) -> None:
        """Trace what this process enqueues and performs, if the settings say so."""
        if self.settings.tracing != "none":
            from packmule.jobs import current
            from packmule.observe.tracing import export_traces

            exporting = export_traces(self.settings.tracing)
            current.provide(exporting)
            self.closing.callback(exporting.close)

    @property
    def client(self) -> Redis:
        """A client of the settings' Redis."""
        if self._client is None:
            self._client = self.connect()
        return self._client

    def connect(self, socket_timeout: float | None = None) -> Redis:
        """One more client, for a process of its own, or until the command ends.

        The command that is the last to leave an embedded server stops it.
        `socket_timeout` is how many seconds an answer may take; without it, as long as it takes.
        """
        from packmule.coordination.redis.connection import InvalidURL, connect
        from packmule.coordination.redis.embedded_server import EmbeddedServer

        try:
            client = connect(
                self.settings.redis_url,
                self.settings.data_dir,
                allow_eviction=self.settings.allow_eviction,
                socket_timeout=socket_timeout,
            )
        except InvalidURL as error:
            raise SettingsError(f"PACKMULE_REDIS_URL (or REDIS_URL): {error}") from None
        if self.settings.redis_url is None:
            self.closing.callback(EmbeddedServer(self.settings.data_dir).stop_if_unused)
        self.closing.callback(client.close)
        return client

    def lock_nodes(self) -> list[Redis]:
        """A client of each server that keeps locks."""
        from packmule.coordination.redis.connection import InvalidURL, lock_clients

        try:
            return lock_clients(self.settings.lock_urls, self.settings.redis_url, self.settings.data_dir)
        except InvalidURL as error:
            raise SettingsError(f"PACKMULE_LOCK_URLS: {error}") from None

    @property
    def storage(self) -> Storage:
        """The door to the files that jobs take and leave."""
        from packmule.jobs.storage import Storage

        return Storage(self.settings.storage_url)

    def produce(self) -> None:
        """Make `.enqueue(...)` go to the settings' Redis."""
        from packmule.jobs.client import Client

        Client(self.client, self.settings.queues, self.settings.max_job_bytes).make_default()

    def load_jobs(self) -> None:
        """Register the ready-made jobs and those of the user's modules."""
        from packmule.jobs import registry

        registry.load(READY_JOBS)
        try:
            registry.load(self.settings.modules)
        except registry.NotRegistered as error:
            raise SettingsError(f"PACKMULE_MODULES: {error}") from error
        registry.load((), self.settings.allow)

    def provide(self, smtp_url: str | None) -> None:
        """Lend this process's jobs what they need."""
        from packmule.coordination.cache.cache import Cache
        from packmule.jobs import current
        from packmule.jobs.email import Mailer
        from packmule.jobs.input_limits import InputLimits

        settings = self.settings
        current.provide(
            self.storage,
            InputLimits(settings.max_file_bytes, settings.max_attachment_bytes, settings.max_pixels),
            Mailer(smtp_url, settings.mail_from, settings.templates),
            Cache(self.client, "jobs"),
        )

    def queues(self) -> list[str]:
        """The settings' queues in their order, then others that Redis knows."""
        from packmule.jobs import reader

        return [*dict.fromkeys([*self.settings.queues, *reader.queues(self.client)])]
