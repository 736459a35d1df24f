"""All pages about logging in, one's own account, users and tokens."""

from __future__ import annotations

from packmule.dashboard.login import account, codes, routes, tokens_page, users_page

ROUTES = [*routes.ROUTES, *account.ROUTES, *codes.ROUTES, *users_page.ROUTES, *tokens_page.ROUTES]
