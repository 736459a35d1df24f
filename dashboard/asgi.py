"""The dashboard for any ASGI server: `uvicorn packmule.dashboard.asgi:app`. The environment configures it."""

from __future__ import annotations

from packmule.config import Settings, mask
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.dashboard.api.options import api_options
from packmule.dashboard.guarding.rules import Rules
from packmule.dashboard.known_jobs import load
from packmule.dashboard.login.identify import identify_by
from packmule.dashboard.site import Site, build
from packmule.jobs.client import Client

settings = Settings.from_env()
client = connect(settings.redis_url, settings.data_dir, allow_eviction=settings.allow_eviction)
url = settings.redis_url or EmbeddedServer(settings.data_dir).url
jobs = Client(client, settings.queues, settings.max_job_bytes)
limits = settings.storage_url, settings.max_file_bytes
api = api_options(settings.api_rate, settings.api_origins, *limits)
site = Site(client, jobs, settings.queues, mask(url), settings.environment, load(settings), api)
app = build(site, identify_by(client), rules=Rules.of(settings))
