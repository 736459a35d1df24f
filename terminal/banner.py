"""Banner: what a pool of workers begins with, in the words of its log."""

from __future__ import annotations

import logging
import shutil
import textwrap
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from packmule.config import Settings
from packmule.jobs import cluster, registry
from packmule.plain_text import mask
from packmule.terminal.app import App

if TYPE_CHECKING:
    from packmule.worker.options import WorkerOptions

NAME_WIDTH = 12
WIDE = 120
"""Columns where the output is no terminal."""


def show_banner(app: App, queues: dict[str, int | None], processes: str, options: WorkerOptions) -> None:
    """Log the server, the queues, the jobs and the rest that the workers of this pool work with."""
    settings = app.settings
    ready, known = registry.READY, registry.names()
    own = [each for each in known if each not in ready]
    facts: dict[str, object] = {
        "server": server_text(app),
        "queues": _queues(queues),
        "modules": list(settings.modules),
        "jobs": known,
        "processes": processes,
        "executors": _executors(options),
        "storage": mask(settings.storage_url),
        "mail": _mail(settings),
    }
    title = f"packmule {version('packmule')}"
    shown = facts | {"jobs": [*own, f"{len(known) - len(own)} ready-made ones"]}
    texts = {name: ", ".join(each) if isinstance(each, list) else str(each) for name, each in shown.items()}
    lines = [title, *(_wrapped(name, text) for name, text in texts.items() if text)]
    extra = {"text": "\n".join(lines), "fields": facts}
    logging.getLogger("packmule").info("%s", title, extra=extra)


def server_text(app: App) -> str:
    """Where the server is, and what it is if it can be reached."""
    url = app.settings.redis_url
    where = f"embedded in {app.settings.data_dir}" if url is None else mask(url)
    with suppress(RedisError):
        found = cluster.server(app.client)
        where += f", {found['server']} {found['version']}"
    return where


def _mail(settings: Settings) -> str:
    if settings.mail_urls:
        return ", ".join(map(mask, settings.mail_urls))
    if settings.environment == "development" and find_spec("aiosmtpd"):
        return "PACKMULE_MAIL_URL is not set: mails are saved in the storage instead of being sent"
    return "PACKMULE_MAIL_URL is not set: e-mail jobs will fail"


def _queues(queues: dict[str, int | None]) -> str:
    if all(queues.values()) and len(queues) > 1:
        return ", ".join(f"{name} ({weight})" for name, weight in queues.items()) + ", by their weights"
    return ", ".join(queues) + (", in this order" if len(queues) > 1 else "")


def _executors(options: WorkerOptions) -> str:
    plain = f"{options.threads} functions in threads" if options.threads > 1 else "1 function at a time"
    return f"{plain}, {options.tasks} async ones, isolated ones each in a process of its own"


def _wrapped(name: str, text: str) -> str:
    width = shutil.get_terminal_size((WIDE, 24)).columns - 4  # by which it is indented
    head = f"{name:{NAME_WIDTH}}"
    return textwrap.fill(
        text,
        width,
        initial_indent=head,
        subsequent_indent=" " * NAME_WIDTH,
        break_on_hyphens=False,
        break_long_words=False,
    )
