"""Settings: what this process was told, where each value comes from, and what the check finds about it."""

from __future__ import annotations

from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.config import VARIABLES, Settings, source_of
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import needs
from packmule.dashboard.viewer import Role
from packmule.observe.check.variables import DEFAULT, places, secrets_given, shown

HIDDEN_SECRET = "***"  # noqa: S105  what stands in a secret's place


class Row(NamedTuple):
    """A setting as it is shown: its variable, its value, and where that comes from."""

    variable: str
    value: str
    origin: str
    is_default: bool


@needs(Role.OPERATOR)
def settings(request: Request) -> Response:
    """`/settings`: the check and the settings; the check waits for a few seconds at most."""
    checks = request.app.state.site.checks
    if checks is None:
        return render(request, "settings.html", findings={}, faults=0, rows=[])
    findings = checks.at_once()
    return render(
        request,
        "settings.html",
        findings=findings,
        faults=sum(not each.ok for each in findings.values()),
        rows=_rows(checks.settings),
    )


def _rows(found: Settings) -> list[Row]:
    """The settings, then the secrets that there are, whose values nobody sees."""
    values, came = shown(found), places()
    rows = [
        Row(variable, values[name] or "-", came[name], came[name] == DEFAULT)
        for name, (variable, _) in VARIABLES.items()
    ]
    return rows + [Row(each, HIDDEN_SECRET, source_of(each), False) for each in secrets_given()]


ROUTES = [Route("/settings", settings, name="settings")]
