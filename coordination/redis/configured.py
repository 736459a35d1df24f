"""Clients of the servers that the settings name: a URL that can't be used is a mistake in its setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packmule.config import Settings, SettingsError
from packmule.coordination.redis.connection import InvalidURL, connect, lock_clients

if TYPE_CHECKING:
    from redis import Redis


def job_server(settings: Settings) -> Redis:
    """A client of the server that holds the jobs; without a URL the embedded one is started.

    Raises `SettingsError`, and what `connect` does.

    >>> job_server(Settings.from_env()).ping()  # doctest: +SKIP
    True
    """
    try:
        return connect(settings.redis_url, settings.data_dir, allow_eviction=settings.allow_eviction)
    except InvalidURL as error:
        raise SettingsError(f"PACKMULE_REDIS_URL (or REDIS_URL): {error}") from None


def lock_nodes(settings: Settings) -> list[Redis]:
    """A client of each lock node, which is the job server if the settings name no others.

    Raises `SettingsError`.
    """
    try:
        return lock_clients(settings.lock_urls, settings.redis_url, settings.data_dir)
    except InvalidURL as error:
        raise SettingsError(f"PACKMULE_LOCK_URLS: {error}") from None
