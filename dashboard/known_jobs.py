"""The functions that the dashboard knows: the ready-made jobs and those of the user's modules."""

from __future__ import annotations

import logging

from packmule import hooks
from packmule.config import Settings
from packmule.jobs import registry
from packmule.plain_text import plain

logger = logging.getLogger(__name__)


def load(settings: Settings) -> str:
    """Register them, and hooks; returns why the user's can't be imported, or "". Jobs are shown all the same.

    Without them a filter by argument finds positional ones by their numbers only, and no job can be enqueued
    by hand. Raises `BrokenHook`, for an enqueue without its hooks would be another one.

    >>> load(Settings(modules=("shop",)))  # doctest: +SKIP
    "can't import shop: No module named 'shop' (looked in the working directory too)"
    """
    hooks.load(settings.hooks)
    registry.defer(registry.READY)
    try:
        registry.load(settings.modules, settings.allow)
    except registry.NotRegistered as error:
        logger.warning("the dashboard offers no jobs of PACKMULE_MODULES: %s", plain(error))
        return f"{error}"
    return ""
