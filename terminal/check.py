"""`packmule check`: each setting, and whether what the settings name can be reached."""

from __future__ import annotations

import click

from packmule.config import VARIABLES
from packmule.errors import Unavailable
from packmule.terminal.app import App
from packmule.terminal.parameters import json_option


@click.command()
@json_option
@click.pass_obj
def check(app: App, json: bool) -> int:
    """Check the settings and whether servers are reachable.

    This connects to Redis, the lock nodes, the storage and the mail server. Exit with 3 if Redis can't be
    reached, and with 1 for other faults.
    """
    from packmule.observe.check.checks import Checks
    from packmule.observe.check.variables import origins, places, shown
    from packmule.terminal import show

    settings = app.settings
    findings = Checks(settings, lambda: app.client, app.load_jobs).one_by_one()
    came = places()
    if json:
        facts = {"settings": settings.masked(), "origins": origins(), "places": came, "findings": findings}
        show.as_json(facts)
    else:
        values = shown(settings)
        rows = [(variable, values[name] or "-", came[name]) for name, (variable, _) in VARIABLES.items()]
        show.table(("setting", "value", "from"), rows, "")
        show.out.print()
        states = [(name, finding.text) for name, finding in findings.items()]
        show.table(("part", "state"), states, "", show.NARROW)
    if not findings["redis"].ok:
        return Unavailable.exit_code
    return 0 if all(finding.ok for finding in findings.values()) else 1
