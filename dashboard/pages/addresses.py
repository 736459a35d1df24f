"""Addresses of pages: names of routes become paths, whatever ids and names stand in them."""

from __future__ import annotations

import hashlib
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount, Route

from packmule.dashboard.guarding.forwarding import root
from packmule.jobs.filter_text import word

STATIC = Path(__file__).parent.parent / "static"
_KNOWN = "addresses"

MOST_KEPT = 4096
"""Addresses that are kept: pages that are shown again and again have the same ones."""


def known(request: Request) -> dict[str, Route | Mount]:
    """The named routes of the site, by name."""
    app: Starlette = request.app
    found: dict[str, Route | Mount] | None = getattr(app.state, _KNOWN, None)
    if found is None:
        found = {each.name: each for each in app.routes if isinstance(each, Route | Mount) and each.name}
        setattr(app.state, _KNOWN, found)
    return found


def address(request: Request, name: str, /, **given: Any) -> str:
    """The path of the route `name`; what is given beyond its path's parameters becomes the query.

    Values are quoted, so an id with `/`, `?` or `%` in it stays whole if its route takes `{id:path}`. A None
    is left out. Files of `static` have the hash of their content in their address.

    >>> address(request, "jobs", q="queue:low", cursor=None)  # doctest: +SKIP
    '/jobs?q=queue%3Alow'
    """
    route = known(request)[name]
    values = tuple([(each, str(value)) for each, value in given.items() if value is not None])
    if isinstance(route, Mount):
        return root(request.scope) + _below(route.path, name == "static", values)
    return root(request.scope) + _path(route.path_format, frozenset(route.param_convertors), values)


@lru_cache(MOST_KEPT)
def _path(form: str, parameters: frozenset[str], given: tuple[tuple[str, str], ...]) -> str:
    inside = {name: quote(value, safe="") for name, value in given if name in parameters}
    return form.format_map(inside) + _query([each for each in given if each[0] not in inside])


@lru_cache(MOST_KEPT)
def _below(path: str, is_static: bool, given: tuple[tuple[str, str], ...]) -> str:
    file = dict(given).get("path", "")
    rest = [each for each in given if each[0] != "path"] + [("v", version(file))] * is_static
    return f"{path}/{quote(file)}{_query(rest)}"


def _query(values: list[tuple[str, str]]) -> str:
    return f"?{urlencode(values)}" if values else ""


def jobs_where(request: Request, /, **words: str) -> str:
    """The page of the jobs that fit a filter; "" while there is no such page.

    >>> jobs_where(request, queue="a b", status="failed")  # doctest: +SKIP
    '/jobs?q=queue%3A%22a+b%22+status%3Afailed'
    """
    if "jobs" not in known(request):
        return ""
    return address(request, "jobs", q=_filter(tuple(words.items())))


@lru_cache(MOST_KEPT)
def _filter(words: tuple[tuple[str, str], ...]) -> str:
    return " ".join(word(field, text) for field, text in words)


def here(request: Request, /, **changes: Any) -> str:
    """This page's address with parts of the query changed, or left out by None.

    >>> here(request, sort="-wait", cursor=None)  # doctest: +SKIP
    '/jobs?q=queue%3Alow&sort=-wait'
    """
    kept = [(key, value) for key, value in request.query_params.multi_items() if key not in changes]
    kept = [(key, value) for key, value in kept if key != "region"]
    kept += [(key, str(value)) for key, value in changes.items() if value is not None]
    path = quote(request.scope["path"], safe="/~!$&'()*+,;=:@")
    start = root(request.scope)
    path = path if path.startswith(start) else start + path
    return path + (f"?{urlencode(kept)}" if kept else "")


@cache
def version(file: str) -> str:
    """The beginning of the hash of a file of `static`, "" if there is none."""
    path = STATIC / file
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else ""
