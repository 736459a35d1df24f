"""A tool of the MCP server: its name, its arguments as a struct, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from redis import Redis

from packmule.jobs.client import Client

LONGEST_TEXT = 4_000
"""Characters of each text in an answer."""

MOST_ITEMS = 200
"""Items of each list in an answer."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What tools work with: the client of Redis, the client of jobs, and the settings' queues.

    Without `lock_nodes` the job server is the only one. `webhooks` is the file of webhooks, and
    `webhook_allow` which internal hosts they may reach.
    """

    client: Redis
    jobs: Client
    queues: Sequence[str]
    lock_nodes: Sequence[Redis] = ()
    webhooks: Path | None = None
    webhook_allow: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool; `action` is its name in the audit, empty for one that only reads."""

    name: str
    takes: type[msgspec.Struct]
    do: Callable[[Desk, Any], Any]
    action: str = ""
    is_destructive: bool = False

    @property
    def description(self) -> str:
        """What it does, for the assistant."""
        return " ".join((self.do.__doc__ or "").split())

    @property
    def schema(self) -> dict[str, Any]:
        """Its arguments as a JSON schema, whole in itself."""
        _, found = msgspec.json.schema_components([self.takes])
        schema = dict(found[self.takes.__name__])
        schema.pop("title", None)
        schema.pop("description", None)
        return schema


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No arguments."""


def tool(
    takes: type[msgspec.Struct] = Nothing, action: str = "", is_destructive: bool = False
) -> Callable[[Callable[[Desk, Any], Any]], Tool]:
    """Make a tool of a function, which documents it.

    >>> @tool()
    ... def queues(desk, asked): ...
    """

    def made(do: Callable[[Desk, Any], Any]) -> Tool:
        return Tool(getattr(do, "__name__", ""), takes, do, action, is_destructive)

    return made


def bounded(value: Any) -> Any:
    """An answer with its texts and lists cut to what an assistant can read.

    >>> len(bounded(list(range(1000))))
    201
    """
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        half = LONGEST_TEXT // 2
        left_out = len(value) - 2 * half
        return f"{value[:half]} ... ({left_out:,} characters left out) ... {value[-half:]}"
    if isinstance(value, list):
        rest = len(value) - MOST_ITEMS
        shown = [bounded(each) for each in value[:MOST_ITEMS]]
        return [*shown, f"... and {rest:,} more"] if rest > 0 else shown
    if isinstance(value, dict):
        return {name: bounded(each) for name, each in value.items()}
    return value
