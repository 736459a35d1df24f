"""All pages, in the order of the menu."""

from __future__ import annotations

from packmule.dashboard.pages import overview

ROUTES = [*overview.ROUTES]
