"""Schedules from a TOML file: one table per schedule, under its name."""

from __future__ import annotations

from pathlib import Path

from packmule.jobs.schedule import InvalidSchedule, Schedule, schedule
from packmule.jobs.toml_file import InvalidFile, place_in, read_toml

_FIELDS = frozenset(Schedule.__struct_fields__) - {"name", "owner", "source"}


def read_file(path: Path) -> list[Schedule]:
    """The schedules in a file; one invalid schedule makes the whole file invalid. Raises `InvalidFile`.

    A table such as `[nightly]` with `job = "shop.report"`, `cron = "30 2 * * *"` and `tz = "Europe/Madrid"`
    is one schedule; its settings are the fields of `Schedule`.
    """
    text, tables = read_toml(path)
    found = []
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise InvalidFile(
                f"{place_in(path, text, name)}: {name} is outside a table: begin with a line [name]"
            )
        if unknown := [field for field in table if field not in _FIELDS]:
            place = place_in(path, text, name, unknown[0])
            known = ", ".join(sorted(_FIELDS))
            raise InvalidFile(f"{place}: schedule {name}: there is no setting {unknown[0]!r}: {known}")
        try:
            found.append(schedule(name, {**table, "owner": "file", "source": str(path)}))
        except InvalidSchedule as error:
            fault = str(error)
            named = [field for field in table if fault.startswith(f"schedule {name}: {field} ")]
            named += [field for field in table if repr(table[field]) in fault]
            place = place_in(path, text, name, named[0] if named else None)
            raise InvalidFile(f"{place}: {fault}") from None
    return found
