"""The schema that an output keeps to: which columns it has, with which types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from packmule.errors import UsageError
from packmule.jobs.files.database import quoted
from packmule.jobs.files.table import Table, declared
from packmule.plain_text import plain

WIDER = {("BIGINT", "DOUBLE"), ("DATE", "TIMESTAMP")}
"""Types, and others that hold all of their values."""
SHOWN = 10
"""Columns that a message names."""


class UnfitSchema(UsageError, ValueError):
    """A table has other columns than its schema, or that is not one; nothing was written."""


class Contract:
    """The columns that a table must have; with `widen` others may come, and lost ones are NULL."""

    def __init__(self, source: str, schema: Mapping[str, str], widen: bool) -> None:
        self.columns = declared(source, schema)
        self._source = source
        self._widen = widen

    def types(self, found: Mapping[str, str]) -> dict[str, str]:
        """The types to read those columns as of which others are `found` than the schema has."""
        return {
            name: kind
            for name, kind in self.columns.items()
            if found.get(name, kind) != kind
            and (not self._widen or kind == "VARCHAR" or (found[name], kind) in WIDER)
        }

    def kept(self, table: Table) -> Table:
        """The table with the schema's columns first, in its order.

        Raises `UnfitSchema` if columns are new or lost, or have other types.
        """
        found = table.columns
        new = [name for name in found if name not in self.columns]
        lost = [name for name in self.columns if name not in found]
        changed = [
            f"{name} from {kind} to {found[name]}"
            for name, kind in self.columns.items()
            if found.get(name, kind) != kind
        ]
        said = {"new": new, "lost": lost, "changed": changed}
        if any(said.values()) and not self._widen:
            differences = "; ".join(f"{what}: {_names(names)}" for what, names in said.items() if names)
            raise UnfitSchema(f"{self._source} doesn't fit its schema: columns are {differences}")
        columns = {**self.columns, **found}
        values = (
            quoted(name) if name in found else f"CAST(NULL AS {kind}) AS {quoted(name)}"
            for name, kind in columns.items()
        )
        relation = f"(SELECT {', '.join(values)} FROM {table.relation})"  # noqa: S608  quoted
        warnings = [
            f"against the schema, columns are {what}: {_names(names)}"
            for what, names in said.items()
            if names
        ]
        return replace(table, relation=relation, columns=columns, warnings=[*table.warnings, *warnings])


def parsed(path: str, content: bytes) -> dict[str, str]:
    """The schema in a file: an object of types by column, or one with `columns`, as a result has them.

    Raises `UnfitSchema`.
    """
    try:
        found: Any = json.loads(content)
        if isinstance(found, dict) and isinstance(found.get("columns"), list):
            found = {each["name"]: each["type"] for each in found["columns"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(kind, str) for kind in found.values()):
        raise UnfitSchema(f'{path} is not a schema: write JSON such as {{"id": "BIGINT", "name": "VARCHAR"}}')
    return found


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return plain(", ".join(names[:SHOWN])) + more
