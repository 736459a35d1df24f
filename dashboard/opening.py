"""Opening: the site as the settings describe it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packmule.config import Settings, SettingsError, secret_if_set
from packmule.coordination.redis.configured import lock_nodes
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.dashboard.api.options import api_options
from packmule.dashboard.guarding.rules import Rules
from packmule.dashboard.known_jobs import load
from packmule.dashboard.login.identify import identify_by
from packmule.dashboard.mail_events import event_keys
from packmule.dashboard.site import Site, build
from packmule.jobs.client import Client
from packmule.jobs.email.suppression.links import SECRET, LinkKeys
from packmule.jobs.storage import Storage
from packmule.observe.check.checks import Checks
from packmule.plain_text import mask

if TYPE_CHECKING:
    from redis import Redis

    from packmule.dashboard.guard import Guard
    from packmule.dashboard.images import Images


def opened(settings: Settings, client: Redis) -> Guard:
    """The application on `client`'s server, for the users that log in there.

    >>> opened(Settings.from_env(), client)  # doctest: +SKIP
    """
    url = mask(settings.redis_url or EmbeddedServer(settings.data_dir).url)
    jobs = Client(client, settings.queues, settings.max_job_bytes)
    api = api_options(
        settings.api_rate, settings.api_origins, settings.storage_url, settings.max_file_bytes,
        settings.templates, settings.mail_from, settings.pipelines, settings.modules,
    )  # fmt: skip
    locks = lock_nodes(settings) if settings.lock_urls else ()
    fault = load(settings)

    def raise_fault() -> None:
        if fault:
            raise SettingsError(f"PACKMULE_MODULES: {fault}")

    site = Site(
        client,
        jobs,
        settings.queues,
        url,
        settings.environment,
        modules_fault=fault,
        api=api,
        lock_nodes=tuple(locks),
        webhooks=settings.webhooks,
        webhook_allow=settings.webhook_allow,
        checks=Checks(settings, lambda: client, raise_fault),
        mail_keep=settings.mail_keep,
        templates=settings.templates,
        mail_from=settings.mail_from,
        event_keys=event_keys(),
        images=_images(settings, jobs),
        link_keys=LinkKeys.of(secret_if_set(SECRET)),
    )
    return build(site, identify_by(client), rules=Rules.of(settings))


def _images(settings: Settings, jobs: Client) -> Images | None:
    """What serves renditions, if there is a key for their addresses; without one nothing of it is loaded."""
    if not secret_if_set("images"):
        return None
    from packmule.dashboard.images import Images  # noqa: PLC0415
    from packmule.jobs.image.presets import Presets  # noqa: PLC0415
    from packmule.jobs.image.serving.addresses import addresses  # noqa: PLC0415
    from packmule.jobs.image.serving.served import Served  # noqa: PLC0415

    return Images(addresses(), Served(jobs, Storage(settings.storage_url), Presets(settings.presets)))
