"""Every address of the site: those of our pages by their routes, rq-dashboard's and the API's by theirs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from flask import Flask
from rq_dashboard import web
from starlette.routing import Mount, Route

from packmule.dashboard.api.api import ENDPOINTS, PREFIX
from packmule.dashboard.guard import Guard
from packmule.dashboard.guarding.origin import SAFE_METHODS
from packmule.dashboard.rights import needed
from packmule.dashboard.viewer import Role

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}|<(?:\w+:)?(\w+)>")


class Address(NamedTuple):
    """A method at a path with parameters, and the role that its handler names."""

    method: str
    path: str
    role: Role | None = None

    @property
    def parameters(self) -> list[str]:
        return [one or other for one, other in _PARAMETER.findall(self.path)]

    def filled(self, values: Mapping[str, str]) -> str:
        """The path with its parameters, as a browser asks for it."""

        def value(found: re.Match[str]) -> str:
            name = found[1] or found[2]
            return quote(values.get(name, values.get("", "x")), safe="")

        return _PARAMETER.sub(value, self.path)

    @property
    def changes(self) -> bool:
        return self.method not in SAFE_METHODS

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def of_pages(site: Guard) -> Iterator[Address]:
    app: Any = site.site
    for route in app.routes:
        if isinstance(route, Route):
            for method in sorted(route.methods or ()):
                yield Address(method, route.path, needed(route.endpoint))
        else:
            assert isinstance(route, Mount), route
            assert route.path in ("/static", "/rq", PREFIX), "what is mounted here is not looked at"


def of_rq() -> Iterator[Address]:
    app = Flask("rules")
    app.register_blueprint(web.blueprint)
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("rq_dashboard.") and "static" not in rule.endpoint:
            for method in sorted(rule.methods or ()):
                yield Address(method, f"/rq{rule.rule}")


def of_api() -> Iterator[Address]:
    for each in ENDPOINTS:
        yield Address(each.method, PREFIX + each.path)
    yield Address("GET", f"{PREFIX}/openapi.json")


def everywhere(site: Guard) -> list[Address]:
    return [*of_pages(site), *of_rq(), *of_api()]
