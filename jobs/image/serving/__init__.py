"""Serving renditions on demand: signed addresses, and what is made for them once."""

from __future__ import annotations

from packmule.jobs.image.serving.addresses import WeakImageKey, url_for
from packmule.jobs.image.serving.served import Served, forget

__all__ = ["Served", "WeakImageKey", "forget", "url_for"]
