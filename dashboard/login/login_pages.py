"""All pages about logging in and one's own account."""

from __future__ import annotations

from packmule.dashboard.login import account, codes, routes

ROUTES = [*routes.ROUTES, *account.ROUTES, *codes.ROUTES]
