"""A profile as a page of HTML that needs nothing else: no script, and its charts are inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from packmule.plain_text import plain

if TYPE_CHECKING:
    from jinja2 import Template

SHOWN = 500
"""Columns that the page shows."""


def rendered(facts: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> str:
    """The page about a table with those facts and measures of its columns."""
    return _template().render(
        **facts, columns=[*map(_shown, columns[:SHOWN])], count=len(columns), left_out=columns[SHOWN:]
    )


def _shown(column: Mapping[str, Any]) -> dict[str, Any]:
    spread = column.get("lengths") or column
    bins = spread.get("histogram", [])
    highest = max(bins, default=0)
    bars = [round(100 * count / highest, 1) for count in bins]
    return {
        "spread": spread,
        "bars": bars,
        "most": max((each["count"] for each in column["top"]), default=1),
        **column,
    }


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415  who enqueues does without it

    text = resources.files(__package__).joinpath("profile.html").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = plain
    return environment.from_string(text)
